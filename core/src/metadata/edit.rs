//! Changes of records become blobs and edits of the tree. Only shards that a changed name's hash leads to
//! are read, and only those that come out different are written.
//!
//! A shard that grows over its limit becomes a tree of shards by the next six bits of each name's hash; a
//! tree of shards that shrank to a quarter of that becomes one shard again. Each shard decides for itself, so
//! no count of a whole directory is kept anywhere, and names chosen to share a hash's beginning only cost
//! levels.

use std::collections::BTreeMap;
use std::ops::Range;

use git2::{ObjectType, Oid};

use super::changes::{Changes, DirectoryChanges};
use super::shard::{Prefix, Shard};
use super::{
    FORMAT_PATH, FORMAT_VERSION, MAX_LEVELS, RECORDS_NAME, check_format, child_at, child_name, child_of,
    damaged, directory_path, hash_of, records_path,
};
use crate::crypt::gitcrypt::cipher::encrypt_whole;
use crate::crypt::keyring::Key;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::names::RootName;
use crate::path::{RelPath, escape_component, lossy};
use crate::tree::{Edits, Entry, Listing, MODE_FILE, Trail, TreeSink};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetadataStats {
    /// Blobs of records.
    pub shards_written: usize,
    /// Their bytes, before compression.
    pub bytes_written: usize,
    /// Records that went without their extended attributes, because those were too big.
    pub xattrs_omitted: usize,
}

/// Writes what `changes` say of `root` as new shards to `sink` and adds the edits that put them into the
/// tree. `base_tree` is the tree that the edits will be applied to. The format file is added where it is
/// missing. With a `key` what is written is encrypted.
///
/// Errors: damaged metadata on the way, or of another format version (`Kind::Git`); a record that cannot be
/// written down, which its maker should have known (`Kind::Internal`); what the sink says.
pub fn apply(
    objects: &ObjectDatabase<'_>,
    sink: &dyn TreeSink,
    base_tree: Option<Oid>,
    root: &RootName,
    changes: &Changes,
    key: Option<&Key>,
    edits: &mut Edits,
) -> Result<MetadataStats> {
    if changes.is_empty() {
        return Ok(MetadataStats::default());
    }
    if !check_format(objects, base_tree)? {
        let oid = sink.write(ObjectType::Blob, format!("{FORMAT_VERSION}\n").as_bytes())?;
        edits.set(FORMAT_PATH, Entry { mode: MODE_FILE, oid });
    }
    let top = directory_path(root, &RelPath::root());
    let mut trail = Trail::new(objects, base_tree, top, |path| {
        Err(damaged(path, "a file stands where a directory should"))
    })?;
    let mut writer = Writer { objects, sink, key, edits, stats: MetadataStats::default() };
    // By bytes, so a directory comes before those below it, and what it wipes goes before they are set.
    for (directory, change) in &changes.directories {
        let is_in_wiped = directory.parent().is_some_and(|parent| is_wiped(changes, &parent));
        if change.wiped && !is_in_wiped && trail.has(directory)? {
            writer.edits.remove(directory_path(root, directory));
        }
        // What is wiped is not even read, so that damage in it can be replaced.
        let base = if change.wiped || is_in_wiped { None } else { trail.listing(directory)? };
        write_directory(&mut writer, base, root, directory, change)?;
    }
    Ok(writer.stats)
}

fn is_wiped(changes: &Changes, directory: &RelPath) -> bool {
    let bytes = directory.as_bytes();
    let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    std::iter::once(0)
        .chain(ends)
        .chain([bytes.len()])
        .filter_map(|end| changes.directories.get(bytes.get(..end)?))
        .any(|change| change.wiped)
}

fn write_directory(
    writer: &mut Writer<'_, '_>,
    base: Option<&Listing<'_>>,
    root: &RootName,
    directory: &RelPath,
    change: &DirectoryChanges,
) -> Result<()> {
    if change.records.is_empty() {
        return Ok(());
    }
    let mut pending = Vec::with_capacity(change.records.len());
    for (name, record) in &change.records {
        let line = match record {
            None => None,
            Some(record) => {
                let (line, omitted) = record.to_line().map_err(|problem| {
                    let text = format!("a record of {:?} in {directory:?} cannot be kept", lossy(name));
                    Error::with_source(Kind::Internal, text, problem)
                })?;
                writer.stats.xattrs_omitted += usize::from(omitted);
                Some(line)
            }
        };
        // Where a file is now, the records of a directory that was there must go.
        let stored = escape_component(name);
        if record.is_some() && base.is_some_and(|base| base.get(&stored).is_some()) {
            let mut path = directory_path(root, directory);
            path.push(b'/');
            path.extend_from_slice(&stored);
            writer.edits.remove(path);
        }
        pending.push(Pending { hash: hash_of(name), name, line });
    }
    pending.sort_unstable_by_key(|change| change.hash);
    let node = base.and_then(|base| base.get(RECORDS_NAME));
    let mut place = Place { path: records_path(root, directory), prefix: Prefix::new() };
    let outcome = writer.update(node, &mut place, &mut pending)?;
    writer.settle(outcome, &mut place)
}

/// One name's change, on its way to its shard.
struct Pending<'a> {
    hash: [u8; 32],
    name: &'a [u8],
    /// `None` removes.
    line: Option<Vec<u8>>,
}

/// Where in the tree, and in the hash, a shard or tree of shards stands.
struct Place {
    path: Vec<u8>,
    prefix: Prefix,
}

impl Place {
    fn level(&self) -> usize {
        self.prefix.len()
    }

    fn enter(&mut self, child: u8) {
        self.path.push(b'/');
        self.path.extend_from_slice(&child_name(child));
        self.prefix.push(child);
    }

    fn leave(&mut self) {
        self.path.truncate(self.path.len().saturating_sub(3));
        self.prefix.pop();
    }
}

/// What a place came to hold.
enum Outcome {
    Unchanged,
    /// These lines, which nobody has written yet.
    Shard {
        shard: Shard,
        shrunk: bool,
    },
    /// A tree of shards, all of them written.
    Tree {
        shrunk: bool,
    },
}

struct Writer<'a, 'o> {
    objects: &'a ObjectDatabase<'o>,
    sink: &'a dyn TreeSink,
    key: Option<&'a Key>,
    edits: &'a mut Edits,
    stats: MetadataStats,
}

impl Writer<'_, '_> {
    /// Applies the changes to what stands at a place. The native recursion ends at [`MAX_LEVELS`].
    fn update(
        &mut self,
        node: Option<Entry>,
        place: &mut Place,
        pending: &mut [Pending<'_>],
    ) -> Result<Outcome> {
        match node {
            Some(entry) if entry.is_tree() => self.update_tree(entry.oid, place, pending),
            Some(entry) => {
                let shard = Shard::read(self.objects, entry.oid, &place.path, &place.prefix)?;
                Ok(update_shard(shard, pending))
            }
            None => Ok(update_shard(Shard::default(), pending)),
        }
    }

    fn update_tree(&mut self, oid: Oid, place: &mut Place, pending: &mut [Pending<'_>]) -> Result<Outcome> {
        let mut children = children_of(self.objects, oid, place)?;
        let mut outcomes: BTreeMap<u8, Shard> = BTreeMap::new();
        let (mut changed, mut shrunk, mut has_tree) = (false, false, false);
        for range in runs(pending, place.level()) {
            let Some(run) = pending.get_mut(range) else { continue };
            let Some(child) = run.first().map(|first| child_at(&first.hash, place.level())) else { continue };
            place.enter(child);
            let outcome = self.update(children.get(&child).copied(), place, run);
            place.leave();
            match outcome? {
                Outcome::Unchanged => {}
                Outcome::Shard { shard, shrunk: child_shrunk } => {
                    (changed, shrunk) = (true, shrunk || child_shrunk);
                    children.remove(&child);
                    outcomes.insert(child, shard);
                }
                Outcome::Tree { shrunk: child_shrunk } => {
                    (changed, shrunk) = (true, shrunk || child_shrunk);
                    children.remove(&child);
                    has_tree = true;
                }
            }
        }
        if !changed {
            return Ok(Outcome::Unchanged);
        }
        if shrunk
            && !has_tree
            && let Some(shard) = self.join(&children, &outcomes, place)?
        {
            return Ok(Outcome::Shard { shard, shrunk });
        }
        for (child, shard) in outcomes {
            place.enter(child);
            let settled = self.settle(Outcome::Shard { shard, shrunk }, place);
            place.leave();
            settled?;
        }
        Ok(Outcome::Tree { shrunk })
    }

    /// All children as one shard, if they are few and small enough together. `untouched` are read only if
    /// they are: each child holds at least one record.
    fn join(
        &self,
        untouched: &BTreeMap<u8, Entry>,
        touched: &BTreeMap<u8, Shard>,
        place: &mut Place,
    ) -> Result<Option<Shard>> {
        let mut all = Shard::default();
        for shard in touched.values() {
            all.merge(shard.clone());
            if !all.is_small() {
                return Ok(None);
            }
        }
        if untouched.len() > 32 || untouched.values().any(|entry| entry.is_tree()) {
            return Ok(None);
        }
        for (child, entry) in untouched {
            place.enter(*child);
            let shard = Shard::read(self.objects, entry.oid, &place.path, &place.prefix);
            place.leave();
            all.merge(shard?);
            if !all.is_small() {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// Writes a shard, or the shards that it has to be split into, and puts them into the tree.
    fn settle(&mut self, outcome: Outcome, place: &mut Place) -> Result<()> {
        let Outcome::Shard { shard, .. } = outcome else { return Ok(()) };
        if shard.is_empty() {
            self.edits.remove(place.path.clone());
            return Ok(());
        }
        if !shard.is_too_big() || place.level() >= MAX_LEVELS {
            let mut data = shard.to_bytes();
            if let Some(key) = self.key {
                data = encrypt_whole(key.version()?, &data)?;
            }
            let oid = self.sink.write(ObjectType::Blob, &data)?;
            self.stats.shards_written += 1;
            self.stats.bytes_written += data.len();
            self.edits.set(place.path.clone(), Entry { mode: MODE_FILE, oid });
            return Ok(());
        }
        for (child, part) in shard.split(place.level()) {
            place.enter(child);
            let settled = self.settle(Outcome::Shard { shard: part, shrunk: false }, place);
            place.leave();
            settled?;
        }
        Ok(())
    }
}

fn update_shard(mut shard: Shard, pending: &mut [Pending<'_>]) -> Outcome {
    let (mut changed, mut shrunk) = (false, false);
    for change in pending {
        match change.line.take() {
            None => {
                let removed = shard.remove(change.name).is_some();
                (changed, shrunk) = (changed || removed, shrunk || removed);
            }
            Some(line) if shard.get(change.name) == Some(&line) => {}
            Some(line) => {
                let bytes = line.len();
                let before = shard.insert(change.name.to_vec(), line);
                (changed, shrunk) = (true, shrunk || before.is_some_and(|before| before.len() > bytes));
            }
        }
    }
    if changed { Outcome::Shard { shard, shrunk } } else { Outcome::Unchanged }
}

/// The runs of changes, sorted by hash, that go to the same child.
fn runs(pending: &[Pending<'_>], level: usize) -> Vec<Range<usize>> {
    let mut start = 0;
    pending
        .chunk_by(|a, b| child_at(&a.hash, level) == child_at(&b.hash, level))
        .map(|run| {
            let range = start..start + run.len();
            start = range.end;
            range
        })
        .collect()
}

fn children_of(objects: &ObjectDatabase<'_>, oid: Oid, place: &Place) -> Result<BTreeMap<u8, Entry>> {
    if place.level() >= MAX_LEVELS {
        return Err(damaged(&place.path, "more levels of shards than a hash has bits for"));
    }
    let listing = Listing::read(objects, oid, &place.path)?;
    let mut children = BTreeMap::new();
    for (name, entry) in listing.iter() {
        let child = child_of(name).ok_or_else(|| damaged(&place.path, "a name that is no shard's"))?;
        children.insert(child, entry);
    }
    Ok(children)
}
