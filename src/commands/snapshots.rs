//! `backupbot snapshots`: when something was backed up, how much of it, and where it is.

use std::collections::HashMap;

use backupbot_core::history::log::{Log, Timeline, Version};
use backupbot_core::history::{ObjectDatabase, Oid, Snapshot};
use serde_json::{Map, Value, json};

use crate::cli::Global;
use crate::cli::look::Snapshots;
use crate::exit::{Exit, Failure};
use crate::looking::remotes::Holders;
use crate::looking::{Looking, shown};
use crate::output::{self, Lines};
use crate::settings::World;

pub fn snapshots(world: &World, global: &Global, arguments: &Snapshots) -> Result<Exit, Failure> {
    let path = arguments.path.as_deref();
    let looking = Looking::open(world, global, arguments.which.repository.as_deref(), path)?;
    let first = looking.snapshot(arguments.at.at.as_deref())?;
    let holders = match Holders::ask(world, global, &looking, &first) {
        Ok(holders) => Some(holders),
        Err(failure) => {
            let why = failure.lines.join("; ");
            output::complain(&format!("backupbot: which remotes have them is not known: {why}"));
            None
        }
    };
    let mut listing = Listing {
        tags: tags(&looking)?,
        looking: &looking,
        holders,
        json: global.json,
        lines: Lines::begin(),
    };
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let (count, broke_off) = match path {
        None => listing.all(&first, limit)?,
        Some(path) => {
            let _keys = looking.unlock(&arguments.unlock, &[&first])?;
            let (root, path) = looking.locate(path, &first)?;
            let objects = looking.repository.objects()?;
            let mut timeline = Timeline::new(&looking.repository, &objects, first.id, &root, &path);
            let count = listing.versions(&mut timeline, &objects, limit)?;
            if count == 0 && limit > 0 {
                looking.tell_the_end(timeline.broke_off());
                let text = format!(
                    "{} is in no snapshot from {} back",
                    shown::path(&root, &path),
                    looking.named(&first)
                );
                return Err(Failure::failed(text));
            }
            (count, timeline.broke_off())
        }
    };
    listing.lines.end()?;
    if count < limit {
        looking.tell_the_end(broke_off);
    }
    Ok(Exit::Done)
}

/// The tags of each commit, without `refs/tags/`.
fn tags(looking: &Looking<'_>) -> Result<HashMap<Oid, Vec<String>>, Failure> {
    let mut tags: HashMap<Oid, Vec<String>> = HashMap::new();
    for (commit, name) in looking.repository.tags()? {
        tags.entry(commit).or_default().push(name);
    }
    Ok(tags)
}

struct Listing<'l, 'w> {
    looking: &'l Looking<'w>,
    tags: HashMap<Oid, Vec<String>>,
    holders: Option<Holders>,
    json: bool,
    lines: Lines,
}

impl Listing<'_, '_> {
    fn all(&mut self, first: &Snapshot, limit: usize) -> Result<(usize, Option<Oid>), Failure> {
        if !self.json {
            self.lines.line(&format!(
                "{:<12}  {:<19}  {:>8}  {:>8}  {:>8}  {:>10}  {:<20}  {}",
                "SNAPSHOT", "TIME", "ADDED", "CHANGED", "DELETED", "BYTES", "REMOTES", "TAGS"
            ))?;
        }
        let mut log = Log::new(&self.looking.repository, first.id);
        let mut count = 0;
        for snapshot in log.by_ref().take(limit) {
            let snapshot = snapshot?;
            count += 1;
            let holders = self.holders_of(&snapshot);
            if self.json {
                let document = self.document(&snapshot, holders.as_deref());
                self.lines.json(&document)?;
                continue;
            }
            let number = |pick: fn(&backupbot_core::history::Counts) -> u64| {
                snapshot.counts.as_ref().map_or_else(|| "-".to_owned(), |counts| pick(counts).to_string())
            };
            self.lines.line(
                format!(
                    "{:<12}  {:<19}  {:>8}  {:>8}  {:>8}  {:>10}  {:<20}  {}",
                    snapshot.short_id(),
                    self.looking.local(&snapshot),
                    number(|counts| counts.added),
                    number(|counts| counts.changed),
                    number(|counts| counts.deleted),
                    shown::size(snapshot.bytes),
                    in_words(holders.as_deref()),
                    self.tags_of(&snapshot),
                )
                .trim_end(),
            )?;
        }
        Ok((count, log.broke_off()))
    }

    fn versions(
        &mut self,
        timeline: &mut Timeline<'_, '_>,
        objects: &ObjectDatabase<'_>,
        limit: usize,
    ) -> Result<usize, Failure> {
        let mut count = 0;
        for version in timeline.by_ref().take(limit) {
            let Version { snapshot, change, state } = version?;
            if count == 0 && !self.json {
                self.lines.line(&format!(
                    "{:<12}  {:<19}  {:<8}  {:>10}  {:<20}  {}",
                    "SNAPSHOT", "TIME", "CHANGE", "SIZE", "REMOTES", "TAGS"
                ))?;
            }
            count += 1;
            let size = state.as_ref().and_then(|state| state.size(objects));
            let holders = self.holders_of(&snapshot);
            if self.json {
                let mut document = self.document(&snapshot, holders.as_deref());
                document.insert("change".to_owned(), json!(change.as_str()));
                document.insert("kind".to_owned(), json!(state.as_ref().map(|state| state.kind.as_str())));
                document.insert("size".to_owned(), json!(size));
                let object = state.and_then(|state| state.entry).map(|entry| entry.oid.to_string());
                document.insert("object".to_owned(), json!(object));
                self.lines.json(&document)?;
                continue;
            }
            self.lines.line(
                format!(
                    "{:<12}  {:<19}  {:<8}  {:>10}  {:<20}  {}",
                    snapshot.short_id(),
                    self.looking.local(&snapshot),
                    change.as_str(),
                    shown::size(size),
                    in_words(holders.as_deref()),
                    self.tags_of(&snapshot),
                )
                .trim_end(),
            )?;
        }
        Ok(count)
    }

    fn holders_of(&mut self, snapshot: &Snapshot) -> Option<Vec<String>> {
        self.holders.as_mut().map(|holders| holders.of(snapshot).to_vec())
    }

    fn tags_of(&self, snapshot: &Snapshot) -> String {
        let tags = self.tags.get(&snapshot.id).map(Vec::as_slice).unwrap_or_default();
        tags.iter().map(|tag| shown::name(tag.as_bytes())).collect::<Vec<_>>().join(", ")
    }

    fn document(&self, snapshot: &Snapshot, holders: Option<&[String]>) -> Map<String, Value> {
        let tags = self.tags.get(&snapshot.id).map(Vec::as_slice).unwrap_or_default();
        let mut document = shown::snapshot(snapshot, tags);
        document.insert("remotes".to_owned(), json!(holders));
        document
    }
}

fn in_words(holders: Option<&[String]>) -> String {
    match holders {
        None => "?".to_owned(),
        Some([]) => "-".to_owned(),
        Some(names) => names.join(", "),
    }
}
