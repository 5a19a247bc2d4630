//! Reading records back: one, a directory's, or all of a root in the order in which a restore needs them.

use git2::Oid;

use super::shard::{Prefix, find_in_shard, foreign_version, read_records};
use super::{
    FORMAT_PATH, FORMAT_VERSION, MAX_LEVELS, NOTHING_IN_IT, OWN_NAME, RECORDS_NAME, Record, child_at,
    child_name, child_of, damaged, directory_path, hash_of, read_blob, records_path,
};
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::names::RootName;
use crate::path::{RelPath, lossy, unescape_component};
use crate::tree::{Entry, Listing, MAX_DEPTH, entry_in, lookup};

/// What is recorded of one directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectoryRecords {
    /// The directory itself.
    pub own: Option<Record>,
    /// What is in it and is no directory, in the order of the names.
    pub records: Vec<Record>,
    /// The directories in it, not escaped, in the order of the names.
    pub directories: Vec<Vec<u8>>,
}

/// Whether `tree` has the format file; an error if it is of a version that this program does not know.
pub fn check_format(objects: &ObjectDatabase<'_>, tree: Option<Oid>) -> Result<bool> {
    let Some(tree) = tree else { return Ok(false) };
    let path = FORMAT_PATH.as_bytes();
    let Some(entry) = lookup(objects, tree, path)? else { return Ok(false) };
    let text = read_blob(objects, entry.oid, path, 64)?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n'));
    match number.and_then(|number| number.parse::<u32>().ok()) {
        Some(FORMAT_VERSION) => Ok(true),
        Some(other) => Err(foreign_version(path, other)),
        None => Err(damaged(path, "not a version number")),
    }
}

/// The records of `directory` in `root`; `None` if the tree knows no such directory.
pub fn read_directory(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    directory: &RelPath,
) -> Result<Option<DirectoryRecords>> {
    let path = directory_path(root, directory);
    let Some(entry) = lookup(objects, tree, &path)? else { return Ok(None) };
    let listing = Listing::read(objects, entry.oid, &path)?;
    let mut found = DirectoryRecords::default();
    for (name, _) in subdirectories(&listing, &path)? {
        found.directories.push(name);
    }
    found.directories.sort_unstable();
    if let Some(node) = listing.get(RECORDS_NAME) {
        let mut place = (records_path(root, directory), Prefix::new());
        visit_shards(objects, node, &mut place, &mut |records| {
            found.records.extend(records);
            Ok(())
        })?;
    }
    found.records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let own = found.records.iter().position(|record| record.name == OWN_NAME);
    found.own = own.map(|index| found.records.remove(index));
    Ok(Some(found))
}

/// The record of what is at `path` in `root`, be it a directory or anything else. A directory's record has
/// the name `.`.
pub fn read_record(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    path: &RelPath,
) -> Result<Option<Record>> {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Some(record) = find(objects, tree, root, &parent, name)?
    {
        return Ok(Some(record));
    }
    find(objects, tree, root, path, OWN_NAME)
}

fn find(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    directory: &RelPath,
    name: &[u8],
) -> Result<Option<Record>> {
    let path = records_path(root, directory);
    match lookup(objects, tree, &path)? {
        Some(node) => find_in(objects, node, path, name),
        None => Ok(None),
    }
}

pub(super) fn find_in(
    objects: &ObjectDatabase<'_>,
    node: Entry,
    mut path: Vec<u8>,
    name: &[u8],
) -> Result<Option<Record>> {
    match descend(objects, node, &mut path, name)? {
        Some(shard) => find_in_shard(objects, shard, &path, name),
        None => Ok(None),
    }
}

/// The shard in which the record of `name` is, if there is one; `path` becomes its own.
pub(super) fn descend(
    objects: &ObjectDatabase<'_>,
    node: Entry,
    path: &mut Vec<u8>,
    name: &[u8],
) -> Result<Option<Oid>> {
    let hash = hash_of(name);
    let mut node = node;
    let mut level = 0;
    while node.is_tree() {
        if level >= MAX_LEVELS {
            return Err(damaged(path, "more levels of shards than a hash has bits for"));
        }
        let child = child_name(child_at(&hash, level));
        let Some(below) = entry_in(objects, node.oid, path, &child)? else { return Ok(None) };
        path.push(b'/');
        path.extend_from_slice(&child);
        level += 1;
        node = below;
    }
    Ok(Some(node.oid))
}

/// Calls `visit` with the directory and the record for every record of `root`: a directory's own record
/// first, then what is in it, shard by shard, then the directories in it. One shard is held at a time.
pub fn walk(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    visit: &mut dyn FnMut(&RelPath, Record) -> Result<()>,
) -> Result<()> {
    let top = directory_path(root, &RelPath::root());
    let Some(entry) = lookup(objects, tree, &top)? else { return Ok(()) };
    // Directories still to be walked, the next one last.
    let mut waiting = vec![(RelPath::root(), entry, 1)];
    while let Some((directory, entry, depth)) = waiting.pop() {
        let path = directory_path(root, &directory);
        if depth > MAX_DEPTH {
            let text =
                format!("more than {MAX_DEPTH} directories below each other in the metadata of {root}");
            return Err(Error::new(Kind::Git, text));
        }
        let listing = Listing::read(objects, entry.oid, &path)?;
        if let Some(node) = listing.get(RECORDS_NAME) {
            walk_records(objects, node, records_path(root, &directory), &mut |record| {
                visit(&directory, record)
            })?;
        }
        for (name, entry) in subdirectories(&listing, &path)?.into_iter().rev() {
            waiting.push((directory.join(&name), entry, depth + 1));
        }
    }
    Ok(())
}

fn walk_records(
    objects: &ObjectDatabase<'_>,
    node: Entry,
    path: Vec<u8>,
    visit: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<()> {
    if let Some(own) = find_in(objects, node, path.clone(), OWN_NAME)? {
        visit(own)?;
    }
    visit_shards(objects, node, &mut (path, Prefix::new()), &mut |records| {
        records.into_iter().filter(|record| record.name != OWN_NAME).try_for_each(&mut *visit)
    })
}

/// Calls `visit` with the records of each shard. The native recursion ends at [`MAX_LEVELS`].
fn visit_shards(
    objects: &ObjectDatabase<'_>,
    node: Entry,
    place: &mut (Vec<u8>, Prefix),
    visit: &mut dyn FnMut(Vec<Record>) -> Result<()>,
) -> Result<()> {
    let (path, prefix) = place;
    if !node.is_tree() {
        let records = read_records(objects, node.oid, path, prefix)?;
        if records.is_empty() && !prefix.is_empty() {
            return Err(damaged(path, NOTHING_IN_IT));
        }
        return visit(records);
    }
    if prefix.len() >= MAX_LEVELS {
        return Err(damaged(path, "more levels of shards than a hash has bits for"));
    }
    let listing = Listing::read(objects, node.oid, path)?;
    // One that is empty could stand at all of 64^42 places.
    if listing.is_empty() {
        return Err(damaged(path, NOTHING_IN_IT));
    }
    for (name, entry) in listing.iter() {
        let (path, prefix) = place;
        let child = child_of(name).ok_or_else(|| damaged(path, "a name that is no shard's"))?;
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(name);
        prefix.push(child);
        visit_shards(objects, entry, place, visit)?;
        place.0.truncate(length);
        place.1.pop();
    }
    Ok(())
}

/// The directories in a metadata directory by their names on disk, in Git's order.
fn subdirectories(listing: &Listing<'_>, path: &[u8]) -> Result<Vec<(Vec<u8>, Entry)>> {
    let mut found = Vec::new();
    for (stored, entry) in listing.iter().filter(|(stored, _)| *stored != RECORDS_NAME) {
        found.push((subdirectory(stored, entry, path)?, entry));
    }
    Ok(found)
}

/// The name on disk of a directory in the metadata directory at `path`.
pub(super) fn subdirectory(stored: &[u8], entry: Entry, path: &[u8]) -> Result<Vec<u8>> {
    let name = unescape_component(stored).filter(|_| entry.is_tree());
    let name = name.ok_or_else(|| damaged(path, &format!("{:?} is no directory's name", lossy(stored))))?;
    Ok(name.into_owned())
}
