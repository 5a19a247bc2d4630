//! Reading what can be read: for whoever looks into a repository or restores from it, where one damaged shard must
//! not hide what all others say. In: the metadata directory of one directory, from anywhere. Out: its records, its
//! subdirectories, and in words what could not be read. Nothing here fails.

use git2::Oid;

use super::read::{descend, find_in, subdirectory};
use super::shard::{Prefix, find_in_shard, read_records};
use super::{MAX_LEVELS, NOTHING_IN_IT, OWN_NAME, RECORDS_NAME, Record, child_of, damaged};
use crate::error::{Error, Result};
use crate::git::objects::ObjectDatabase;
use crate::tree::{Entry, Listing};

/// Records of one directory beyond so many bytes are not read: ten times what a directory of 100,000 names takes.
const MAX_DIRECTORY_BYTES: usize = 512 << 20;
/// After so many places that cannot be read, the rest of a directory's records is not looked at.
const MAX_DAMAGE: usize = 64;

/// What could be read of one directory's metadata.
#[derive(Debug, Default)]
pub struct Readable {
    /// The directory's record of itself.
    pub own: Option<Record>,
    /// What is in it and is no directory, in the order of the names.
    pub records: Vec<Record>,
    /// The metadata directories of the directories in it, by their names on disk, in the order of these.
    pub directories: Vec<(Vec<u8>, Oid)>,
    /// What could not be read and why, one sentence each.
    pub damage: Vec<String>,
    /// Of shards that were read.
    bytes: usize,
    given_up: bool,
}

impl Readable {
    /// Takes in the records below a shard or a tree of shards, in no particular order.
    pub(super) fn read_shards(
        &mut self,
        objects: &ObjectDatabase<'_>,
        node: Entry,
        mut path: Vec<u8>,
        mut prefix: Prefix,
    ) {
        let mut reader = Reader { objects, found: self };
        reader.shards(node, &mut path, &mut prefix);
    }

    /// Whether so much is damaged that the rest is not looked at.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up || self.damage.len() >= MAX_DAMAGE
    }

    /// Whether the shard can be held beside what was read; if not, nothing more is.
    pub(super) fn has_room_for(&mut self, objects: &ObjectDatabase<'_>, shard: Oid, path: &[u8]) -> bool {
        let size = objects.read_header(shard).map_or(0, |(size, _)| size);
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MAX_DIRECTORY_BYTES {
            let text = format!("more than {MAX_DIRECTORY_BYTES} bytes of records in one directory");
            self.give_up(&damaged(path, &text));
        }
        !self.given_up
    }

    /// Looks at nothing more, for this reason.
    pub(super) fn give_up(&mut self, error: &Error) {
        self.damaged(error);
        self.given_up = true;
    }

    pub(super) fn damaged(&mut self, error: &Error) {
        if !self.is_given_up() {
            self.damage.push(error.to_string());
        }
    }
}

/// Reads the metadata directory `tree`, which stands at `path`, as far as that is possible.
pub fn read_what_is_there(objects: &ObjectDatabase<'_>, tree: Oid, path: &[u8]) -> Readable {
    let mut found = Readable::default();
    let listing = match Listing::read(objects, tree, path) {
        Ok(listing) => listing,
        Err(error) => {
            found.damaged(&error);
            return found;
        }
    };
    for (stored, entry) in listing.iter().filter(|(stored, _)| *stored != RECORDS_NAME) {
        match subdirectory(stored, entry, path) {
            Ok(name) => found.directories.push((name, entry.oid)),
            Err(error) => found.damaged(&error),
        }
    }
    found.directories.sort_unstable();
    if let Some(node) = listing.get(RECORDS_NAME) {
        found.read_shards(objects, node, records_path(path), Prefix::new());
    }
    found.records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let own = found.records.iter().position(|record| record.name == OWN_NAME);
    found.own = own.map(|index| found.records.remove(index));
    found
}

/// The record of `name` in the metadata directory `tree`, which stands at `path`; of the directory itself under
/// [`OWN_NAME`]. Only the way to it is read, so what is wrong beside it is not noticed.
pub fn find_record(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    path: &[u8],
    name: &[u8],
) -> Result<Option<Record>> {
    match Listing::read(objects, tree, path)?.get(RECORDS_NAME) {
        Some(node) => find_in(objects, node, records_path(path), name),
        None => Ok(None),
    }
}

/// The shard below a directory's records `node` in which the record of `name` stands, if there is one.
pub fn shard_under(objects: &ObjectDatabase<'_>, node: Entry, name: &[u8]) -> Result<Option<Oid>> {
    descend(objects, node, &mut RECORDS_NAME.to_vec(), name)
}

/// The record of `name` in a shard that [`shard_under`] found.
pub fn record_under(objects: &ObjectDatabase<'_>, shard: Oid, name: &[u8]) -> Result<Option<Record>> {
    find_in_shard(objects, shard, RECORDS_NAME, name)
}

fn records_path(path: &[u8]) -> Vec<u8> {
    [path, b"/", RECORDS_NAME].concat()
}

struct Reader<'r, 'o> {
    objects: &'r ObjectDatabase<'o>,
    found: &'r mut Readable,
}

impl Reader<'_, '_> {
    /// An empty child could stand at all of 64^42 places at once; each costs one of the damages that are allowed, and
    /// each other shard holds a name that belongs to no other place. So this ends.
    fn shards(&mut self, node: Entry, path: &mut Vec<u8>, prefix: &mut Prefix) {
        if !node.is_tree() {
            return self.shard(node, path, prefix);
        }
        if prefix.len() >= MAX_LEVELS {
            return self.found.damaged(&damaged(path, "more levels of shards than a hash has bits for"));
        }
        let listing = match Listing::read(self.objects, node.oid, path) {
            Ok(listing) if listing.is_empty() => return self.found.damaged(&damaged(path, NOTHING_IN_IT)),
            Ok(listing) => listing,
            Err(error) => return self.found.damaged(&error),
        };
        for (name, entry) in listing.iter() {
            if self.found.is_given_up() {
                return;
            }
            let Some(child) = child_of(name) else {
                self.found.damaged(&damaged(path, "a name that is no shard's"));
                continue;
            };
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name);
            prefix.push(child);
            self.shards(entry, path, prefix);
            path.truncate(length);
            prefix.pop();
        }
    }

    fn shard(&mut self, node: Entry, path: &[u8], prefix: &Prefix) {
        if !self.found.has_room_for(self.objects, node.oid, path) {
            return;
        }
        match read_records(self.objects, node.oid, path, prefix) {
            Ok(records) if records.is_empty() && !prefix.is_empty() => {
                self.found.damaged(&damaged(path, NOTHING_IN_IT));
            }
            Ok(records) => self.found.records.extend(records),
            Err(error) => self.found.damaged(&error),
        }
    }
}
