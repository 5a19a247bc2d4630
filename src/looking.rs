//! What the commands that look into history stand on: which repository, which snapshot, which path.
//!
//! They read the bare repository in the state directory and need no lock, so a daemon may work meanwhile. [`place`] finds
//! the path that somebody means, [`shown`] writes names and times for people and programs, [`remotes`] asks which remote
//! has what.

pub mod entry;
pub mod keys;
pub mod place;
pub mod remotes;
pub mod shown;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backupbot_actors::root::repository_path;
use backupbot_core::clock;
use backupbot_core::config::Repository as RepositorySettings;
use backupbot_core::git::contents::LargeContents;
use backupbot_core::git::repository::Repository;
use backupbot_core::guard;
use backupbot_core::history::directory::{Problem, Remark};
use backupbot_core::history::log::Timeline;
use backupbot_core::history::{Oid, Snapshot, moment};
use backupbot_core::lfs::fetched::Fetched;
use backupbot_core::names::{RepositoryName, RootName};
use backupbot_core::path::RelPath;
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::cli::Global;
use crate::exit::Failure;
use crate::files;
use crate::output;
use crate::settings::{self, Settings, World};

/// Remarks that are printed one by one.
const REMARKS: usize = 20;

/// A repository that is looked into.
pub struct Looking<'w> {
    /// What the process finds around it.
    pub world: &'w World,
    /// The configuration, as far as there is one.
    pub settings: Option<Settings>,
    /// Where the state is.
    pub state_dir: PathBuf,
    /// Its name.
    pub name: RepositoryName,
    /// It.
    pub repository: Repository,
    /// The repository in the state directory whose keys open it.
    pub keys_of: PathBuf,
    /// The newest commit.
    pub tip: Oid,
    /// The present moment, in the time zone of whoever asks.
    pub now: Zoned,
}

impl<'w> Looking<'w> {
    /// Opens the repository of that name, or the only one, or the one in which `path` lies.
    pub fn open(
        world: &'w World,
        global: &Global,
        wanted: Option<&str>,
        path: Option<&Path>,
    ) -> Result<Self, Failure> {
        let asking = settings::for_asking(world, global)?;
        let state_dir = asking.state_dir.clone();
        let settings = asking.configuration()?;
        let name = choose(world, &state_dir, settings.as_ref(), wanted, path)?;
        let looking = Self::at(world, settings, state_dir, name)?;
        tell_quarantine(&looking.repository, &looking.name, looking.tip);
        Ok(looking)
    }

    /// Opens the repository `name` of a configuration that is in force.
    pub fn of_daemon(world: &'w World, settings: Settings, name: &str) -> Result<Self, Failure> {
        let state_dir = settings.config.state_dir.clone();
        let name = choose(world, &state_dir, Some(&settings), Some(name), None)?;
        Self::at(world, Some(settings), state_dir, name)
    }

    fn at(
        world: &'w World,
        settings: Option<Settings>,
        state_dir: PathBuf,
        name: RepositoryName,
    ) -> Result<Self, Failure> {
        let directory = repository_path(&state_dir, name.as_str());
        if !directory.exists() {
            return Err(nothing_yet(&name, &state_dir));
        }
        let repository = Repository::open(&directory)?;
        let configured = configured(settings.as_ref(), &name);
        let instance = settings.as_ref().map(|settings| settings.config.instance.as_str());
        // A branch that is named after the month may not have begun yet; HEAD is where the last one was.
        let branch = match configured.zip(instance) {
            Some((configured, instance)) => configured.branch.full_name(instance, clock::now())?,
            None => "HEAD".to_owned(),
        };
        let tip = match repository.reference(&branch)? {
            Some(tip) => Some(tip),
            None => repository.reference("HEAD")?,
        };
        let tip = tip.ok_or_else(|| nothing_yet(&name, &state_dir))?;
        let now = clock::now().to_zoned(TimeZone::system());
        Ok(Self { world, settings, state_dir, name, repository, keys_of: directory, tip, now })
    }

    /// Who has large contents: the repository, and the remotes that are configured for it.
    pub fn large(&self) -> Arc<dyn LargeContents> {
        let remotes = configured(self.settings.as_ref(), &self.name)
            .map_or_else(Vec::new, |repository| repository.remotes.clone());
        let own = self.repository.path();
        Arc::new(Fetched::new(own, own, remotes, own))
    }

    /// The snapshot that is meant; the latest if nothing was said.
    pub fn snapshot(&self, at: Option<&str>) -> Result<Snapshot, Failure> {
        match at {
            Some(text) => Ok(moment::resolve(&self.repository, self.tip, text, &self.now)?),
            None => Ok(Snapshot::read(&self.repository, self.tip)?),
        }
    }

    /// The root and the path in it that are meant. Nothing need be there.
    pub fn locate(&self, path: &Path, snapshot: &Snapshot) -> Result<(RootName, RelPath), Failure> {
        let objects = self.repository.objects()?;
        let mut roots: Vec<(RootName, Option<PathBuf>)> = Vec::new();
        if let Some(configured) = configured(self.settings.as_ref(), &self.name) {
            roots.extend(configured.roots.iter().map(|root| (root.name.clone(), Some(root.path.clone()))));
        }
        for root in snapshot.roots(&objects)? {
            if !roots.iter().any(|(name, _)| *name == root.name) {
                roots.push((root.name, None));
            }
        }
        place::locate(&self.world.current_dir, path, &roots).ok_or_else(|| {
            let mut names: Vec<String> =
                roots.iter().map(|(name, _)| shown::name(name.as_str().as_bytes())).collect();
            names.sort();
            let path = files::shown(path);
            let text = format!(
                "{path} is in no root of {}: say ROOT/PATH with one of {}, or a path below a watched directory",
                self.name,
                names.join(", ")
            );
            Failure::failed(text)
        })
    }

    /// Why nothing can be shown of a path: it is not in the snapshot, and perhaps it was in another one.
    pub fn absent(&self, root: &RootName, path: &RelPath, snapshot: &Snapshot) -> Failure {
        let shown = shown::path(root, path);
        let mut text = format!("{shown} is not in snapshot {}", self.named(snapshot));
        // The hint is a kindness; what it fails at, the command that follows it will tell.
        if let Ok(hint) = self.elsewhere(root, path, snapshot) {
            text.push_str(&hint);
        }
        Failure::failed(text)
    }

    fn elsewhere(
        &self,
        root: &RootName,
        path: &RelPath,
        snapshot: &Snapshot,
    ) -> backupbot_core::error::Result<String> {
        let objects = self.repository.objects()?;
        let timeline = |tip| Timeline::new(&self.repository, &objects, tip, root, path);
        if let Some(parent) = snapshot.parents.first()
            && let Some(last) = timeline(*parent).last_seen()?
        {
            return Ok(format!("; it was there until {}", self.named(&last)));
        }
        if self.tip != snapshot.id {
            for version in timeline(self.tip) {
                let version = version?;
                if version.state.is_some() {
                    return Ok(format!("; it is in {}", self.named(&version.snapshot)));
                }
            }
        }
        Ok("; it was in none before it".to_owned())
    }

    /// A snapshot, for messages.
    pub fn named(&self, snapshot: &Snapshot) -> String {
        format!("{} ({})", snapshot.short_id(), self.local(snapshot))
    }

    /// When a snapshot was made, in the time zone of whoever asks.
    pub fn local(&self, snapshot: &Snapshot) -> String {
        shown::time(snapshot.time, self.now.time_zone())
    }

    /// Says that history breaks off, as after a shallow fetch.
    pub fn tell_the_end(&self, broke_off: Option<Oid>) {
        if let Some(missing) = broke_off {
            let text =
                format!("backupbot: history breaks off here: commit {missing} is not in this repository");
            output::complain(&text);
        }
    }
}

/// Tells what did not fit, the first few things one by one.
#[derive(Default)]
pub struct Remarks {
    count: usize,
}

impl Remarks {
    /// Tells one of what is in the directory `path`.
    pub fn tell(&mut self, root: &RootName, path: &RelPath, remark: &Remark) {
        // Every directory of a commit that another program made: the first one says it.
        self.count += 1;
        if self.count > REMARKS || (self.count > 1 && remark.problem == Problem::NoMetadata) {
            return;
        }
        let path = if remark.name.is_empty() { path.clone() } else { path.join(&remark.name) };
        output::complain(&format!("backupbot: {}: {}", shown::path(root, &path), remark.problem));
    }

    /// Tells how many were not told.
    pub fn end(self) {
        if self.count > REMARKS {
            output::complain(&format!("backupbot: {} more remarks like these", self.count - REMARKS));
        }
    }
}

/// What a mass change brought is not on the protected branch: whoever looks for the latest files should know.
fn tell_quarantine(repository: &Repository, name: &RepositoryName, protected: Oid) {
    // It is a hint; what cannot be read the command itself will tell.
    let Ok(open) = guard::branch::open(repository, protected) else { return };
    if let Some((branch, _)) = open.last() {
        let branch = guard::branch::short(branch);
        output::complain(&format!(
            "backupbot: {name} is in quarantine: after a mass change everything goes to {branch}; what is shown is the \
             protected branch before it. Look into the quarantine with --at {branch}"
        ));
    }
}

fn configured<'s>(settings: Option<&'s Settings>, name: &RepositoryName) -> Option<&'s RepositorySettings> {
    settings?.config.repositories.iter().find(|repository| repository.name == *name)
}

fn nothing_yet(name: &RepositoryName, state_dir: &Path) -> Failure {
    let place = files::shown(state_dir);
    Failure::failed(format!(
        "nothing of {name} was backed up to {place} yet; start `backupbot run`, or name the right place with \
         --state-dir or --config"
    ))
}

fn choose(
    world: &World,
    state_dir: &Path,
    settings: Option<&Settings>,
    wanted: Option<&str>,
    path: Option<&Path>,
) -> Result<RepositoryName, Failure> {
    let mut names: Vec<RepositoryName> = match settings {
        Some(settings) => {
            settings.config.repositories.iter().map(|repository| repository.name.clone()).collect()
        }
        None => in_state_dir(state_dir),
    };
    if let Some(wanted) = wanted {
        names.retain(|name| name.as_str() == wanted);
        return names.pop().ok_or_else(|| Failure::failed(format!("there is no repository {wanted:?}")));
    }
    if names.len() > 1
        && let (Some(settings), Some(path)) = (settings, path)
    {
        let holds = |name: &RepositoryName| {
            let configured = configured(Some(settings), name);
            let roots: Vec<_> = configured
                .iter()
                .flat_map(|repository| &repository.roots)
                .map(|root| (root.name.clone(), Some(root.path.clone())))
                .collect();
            place::locate(&world.current_dir, path, &roots).is_some()
        };
        let holding: Vec<RepositoryName> = names.iter().filter(|name| holds(name)).cloned().collect();
        if let [only] = holding.as_slice() {
            return Ok(only.clone());
        }
    }
    if names.len() > 1 {
        let names: Vec<&str> = names.iter().map(RepositoryName::as_str).collect();
        let text =
            format!("there are several repositories: choose with --repository one of {}", names.join(", "));
        return Err(Failure::usage(text));
    }
    names.pop().ok_or_else(|| {
        Failure::failed(format!(
            "there is no repository in {}: nothing was backed up with it yet; start `backupbot run`, or name the \
             right place with --state-dir or --config",
            files::shown(state_dir)
        ))
    })
}

fn in_state_dir(state_dir: &Path) -> Vec<RepositoryName> {
    let Ok(entries) = std::fs::read_dir(state_dir.join("repos")) else { return Vec::new() };
    let names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        RepositoryName::new(name.strip_suffix(".git")?).ok()
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}
