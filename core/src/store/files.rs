//! The stat cache: what each file was when its content was last stored, so that a scan reads only what changed.
//!
//! A row counts only while the repository's checkpoint is its branch's tip or an ancestor of it; whoever finds
//! otherwise clears the rows. Keys are `repository NUL root NUL directory NUL name`, so the children of one
//! directory lie together in name order, and a merge with a directory listing needs no memory but that listing.

use std::collections::{BTreeSet, HashSet};

use redb::{ReadOnlyTable, ReadableTable};
use serde::{Deserialize, Serialize};

use super::{FILES, Inner, Outcome, Store, StoreReader, decode, encode, store_error};
use crate::beneath::{EntryKind, Look};
use crate::error::Result;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;

/// A file's modification time within this of the moment it was recorded proves nothing: the file may have
/// changed again within the clock's grain. Two seconds cover FAT and coarse network file systems.
const RACY_NANOSECONDS: i64 = 2_000_000_000;

/// As the time of a record: it proves nothing.
const UNPROVEN: i64 = i64::MIN;

/// One entry as it was when it was last stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What the file system said before the content was read.
    pub look: Look,
    /// When that was, nanoseconds since 1970.
    pub recorded_ns: i64,
    /// The stored object; zeros for entries without content.
    pub stored: [u8; 20],
    /// BLAKE3 of the plaintext; zeros for entries without content.
    pub checksum: [u8; 32],
    /// Whether the stored object is a pointer to the content, which is a large one.
    pub is_pointer: bool,
}

impl FileRecord {
    /// Whether it was made from a commit, and nobody has looked at the file since. What is only here, such as large
    /// contents, may be gone then.
    pub fn is_from_commit(&self) -> bool {
        self.look.inode == 0
    }

    /// Whether there is an object for its content. Where there is none, the content has to be stored again even if it is the
    /// same.
    pub fn is_stored(&self) -> bool {
        self.stored != [0; 20]
    }

    /// The same, made so that the next look takes it for changed, and stores its content again whatever that is.
    #[must_use]
    pub fn to_be_stored_again(&self) -> Self {
        let look = Look { inode: 0, device: 0, mtime_ns: 0, ctime_ns: 0, ..self.look };
        Self { look, recorded_ns: 0, stored: [0; 20], ..self.clone() }
    }

    /// Whether `look`, taken at `now_ns`, proves that nothing changed since this was recorded.
    ///
    /// Equal looks prove it only if a change in between would have left other times. Both times have to say so:
    /// anybody can set a modification time back, and some file systems keep no change time of their own.
    pub fn proves_unchanged(&self, look: &Look, now_ns: i64) -> bool {
        if !self.look.is_same_as(look) {
            return false;
        }
        look.kind != EntryKind::File
            || self.recorded_ns != UNPROVEN
                && [look.mtime_ns, look.ctime_ns]
                    .into_iter()
                    .all(|time| cannot_recur(time, self.recorded_ns, now_ns))
    }
}

/// Whether a file that had `time` when it was read at `recorded` cannot have got the same time by a change until `now`:
/// the clock was not near it when the file was read and, as far as the three tell, has not come by it since. A clock
/// that was set back below it and has passed it again leaves no trace here; whoever sees it set back makes the
/// records that this concerns prove nothing ([`forget_proofs`]).
fn cannot_recur(time: i64, recorded: i64, now: i64) -> bool {
    let was_past = time.saturating_add(RACY_NANOSECONDS) < recorded;
    let was_before = recorded.saturating_add(RACY_NANOSECONDS) < time;
    let is_not_there_yet = now.saturating_add(RACY_NANOSECONDS) < time;
    (was_past && (recorded <= now || is_not_there_yet)) || (was_before && is_not_there_yet)
}

/// Has every record of a file with a time from `since_ns` on prove nothing, because the clock was set back to it; how
/// many that are.
pub(super) fn forget_proofs(
    table: &mut Table<'_>,
    repository: &RepositoryName,
    since_ns: i64,
) -> Outcome<usize> {
    let mut from = repository.as_str().as_bytes().to_vec();
    from.push(0);
    let to = after(from.clone());
    let since_ns = since_ns.saturating_sub(RACY_NANOSECONDS);
    let mut concerned = Vec::new();
    for row in table.range(from.as_slice()..to.as_slice())? {
        let (key, value) = row?;
        let record: FileRecord = decode(value.value())?;
        let is_concerned = record.look.mtime_ns >= since_ns || record.look.ctime_ns >= since_ns;
        if is_concerned && record.look.kind == EntryKind::File && record.recorded_ns != UNPROVEN {
            concerned.push((key.value().to_vec(), FileRecord { recorded_ns: UNPROVEN, ..record }));
        }
    }
    for (key, record) in &concerned {
        table.insert(key.as_slice(), encode(record)?.as_slice())?;
    }
    Ok(concerned.len())
}

/// What a commit changes in the stat cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileDelta {
    /// The entry is now this.
    Put(RelPath, Box<FileRecord>),
    /// The entry is gone.
    Remove(RelPath),
    /// The entry and everything below it are gone.
    RemoveTree(RelPath),
}

fn prefix(repository: &RepositoryName, root: &RootName) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(repository.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(root.as_str().as_bytes());
    key.push(0);
    key
}

fn key(repository: &RepositoryName, root: &RootName, path: &RelPath) -> Vec<u8> {
    let mut key = prefix(repository, root);
    if let Some(parent) = path.parent() {
        key.extend_from_slice(parent.as_bytes());
    }
    key.push(0);
    key.extend_from_slice(path.file_name().unwrap_or_default());
    key
}

/// The path in a key, its prefix taken off.
fn path_of(rest: &[u8]) -> Option<RelPath> {
    let cut = rest.iter().position(|b| *b == 0)?;
    let directory = RelPath::new(&rest[..cut]).ok()?;
    Some(if rest.len() == cut + 1 { directory } else { directory.join(&rest[cut + 1..]) })
}

/// The smallest key that is greater than every key with this prefix.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    prefix
}

type Table<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

pub(super) fn apply(
    table: &mut Table<'_>,
    repository: &RepositoryName,
    root: &RootName,
    deltas: &[FileDelta],
) -> Outcome<()> {
    for delta in deltas {
        match delta {
            FileDelta::Put(path, record) => {
                let value = encode(record.as_ref())?;
                table.insert(key(repository, root, path).as_slice(), value.as_slice())?;
            }
            FileDelta::Remove(path) => {
                table.remove(key(repository, root, path).as_slice())?;
            }
            FileDelta::RemoveTree(path) => remove_tree(table, repository, root, path)?,
        }
    }
    Ok(())
}

fn remove_tree(
    table: &mut Table<'_>,
    repository: &RepositoryName,
    root: &RootName,
    path: &RelPath,
) -> Outcome<()> {
    if path.is_root() {
        return clear_prefix(table, &prefix(repository, root));
    }
    table.remove(key(repository, root, path).as_slice())?;
    for separator in [0u8, b'/'] {
        let mut below = prefix(repository, root);
        below.extend_from_slice(path.as_bytes());
        below.push(separator);
        clear_prefix(table, &below)?;
    }
    Ok(())
}

fn clear_prefix(table: &mut Table<'_>, from: &[u8]) -> Outcome<()> {
    let to = after(from.to_vec());
    table.retain_in(from..to.as_slice(), |_, _| false)?;
    Ok(())
}

pub(super) fn clear_repository(table: &mut Table<'_>, repository: &RepositoryName) -> Outcome<()> {
    let mut from = repository.as_str().as_bytes().to_vec();
    from.push(0);
    clear_prefix(table, &from)
}

/// The stat cache of one repository at one moment.
pub struct FilesView {
    store: Store,
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
    repository: RepositoryName,
}

impl StoreReader {
    /// The stat cache of `repository` as it is now; later writes do not show.
    pub fn files(&self, repository: &RepositoryName) -> Result<FilesView> {
        let transaction = self.store().begin_read()?;
        let table = transaction.open_table(FILES).map_err(|error| store_error(Inner::from(error)))?;
        Ok(FilesView { store: self.store().clone(), table, repository: repository.clone() })
    }
}

impl FilesView {
    /// The record of one entry.
    pub fn get(&self, root: &RootName, path: &RelPath) -> Result<Option<FileRecord>> {
        let look = || -> Outcome<Option<FileRecord>> {
            let found = self.table.get(key(&self.repository, root, path).as_slice())?;
            found.map(|value| decode(value.value())).transpose()
        };
        self.store.guard(look)
    }

    /// The records of a directory's children in name order.
    pub fn children(&self, root: &RootName, directory: &RelPath) -> Result<Vec<(Vec<u8>, FileRecord)>> {
        let mut from = prefix(&self.repository, root);
        from.extend_from_slice(directory.as_bytes());
        from.push(0);
        let skip = from.len();
        let to = after(from.clone());
        let look = || -> Outcome<Vec<(Vec<u8>, FileRecord)>> {
            let mut children = Vec::new();
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                let (key, value) = row?;
                let name = key.value()[skip..].to_vec();
                // The root's own record has an empty name and lies among its children.
                if !name.is_empty() {
                    children.push((name, decode(value.value())?));
                }
            }
            Ok(children)
        };
        self.store.guard(look)
    }

    /// The names in `directory` below which something is recorded, in order. Such a name need not have a record itself: a
    /// directory may have come again and gone within one batch.
    pub fn directories_within(&self, root: &RootName, directory: &RelPath) -> Result<Vec<Vec<u8>>> {
        let mut base = prefix(&self.repository, root);
        base.extend_from_slice(directory.as_bytes());
        if !directory.is_root() {
            base.push(b'/');
        }
        let to = after(base.clone());
        let look = || -> Outcome<Vec<Vec<u8>>> {
            let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
            // The records of what is in the root itself begin with the separator.
            let mut from = [base.as_slice(), &[1]].concat();
            while let Some(row) = self.table.range(from.as_slice()..to.as_slice())?.next().transpose()? {
                let rest = &row.0.value()[base.len()..];
                let end = rest.iter().position(|byte| matches!(byte, 0 | b'/')).unwrap_or(rest.len());
                let separator = rest.get(end).copied().unwrap_or(0);
                // What lies below one name stands in two places, with other names between them.
                from = [base.as_slice(), &rest[..end], &[separator + 1]].concat();
                names.insert(rest[..end].to_vec());
            }
            Ok(names.into_iter().collect())
        };
        self.store.guard(look)
    }

    /// Whether anything is recorded below `path`, at whatever depth.
    pub fn has_below(&self, root: &RootName, path: &RelPath) -> Result<bool> {
        let look = || -> Outcome<bool> {
            for separator in [0u8, b'/'] {
                let mut from = prefix(&self.repository, root);
                from.extend_from_slice(path.as_bytes());
                from.push(separator);
                let to = after(from.clone());
                if self.table.range(from.as_slice()..to.as_slice())?.next().transpose()?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.store.guard(look)
    }

    /// Calls `visit` with each file or link below `path`, at whatever depth, and its stored object.
    pub fn contents_below(
        &self,
        root: &RootName,
        path: &RelPath,
        visit: &mut dyn FnMut(RelPath, [u8; 20]),
    ) -> Result<()> {
        self.records_below(root, path, &mut |path, record| {
            if record.look.kind.has_content() {
                visit(path, record.stored);
            }
        })
    }

    /// Calls `visit` with everything that is recorded below `path`, at whatever depth.
    pub fn records_below(
        &self,
        root: &RootName,
        path: &RelPath,
        visit: &mut dyn FnMut(RelPath, FileRecord),
    ) -> Result<()> {
        let own = prefix(&self.repository, root);
        let separators: &[&[u8]] = if path.is_root() { &[b""] } else { &[&[0], b"/"] };
        self.store.guard(|| {
            for separator in separators {
                let from = [own.as_slice(), path.as_bytes(), separator].concat();
                let to = after(from.clone());
                for row in self.table.range(from.as_slice()..to.as_slice())? {
                    let (key, value) = row?;
                    let record: FileRecord = decode(value.value())?;
                    if let Some(path) = path_of(&key.value()[own.len()..]) {
                        visit(path, record);
                    }
                }
            }
            Ok(())
        })
    }

    /// The directories below `path`, at whatever depth, that something was mounted on when they were recorded.
    pub fn mounts_below(&self, root: &RootName, path: &RelPath) -> Result<Vec<RelPath>> {
        let own = prefix(&self.repository, root);
        let look = || -> Outcome<Vec<RelPath>> {
            let mut mounts = Vec::new();
            for separator in [0u8, b'/'] {
                let mut from = own.clone();
                from.extend_from_slice(path.as_bytes());
                from.push(separator);
                let to = after(from.clone());
                for row in self.table.range(from.as_slice()..to.as_slice())? {
                    let (key, value) = row?;
                    let record: FileRecord = decode(value.value())?;
                    if record.look.is_mount {
                        mounts.extend(path_of(&key.value()[own.len()..]));
                    }
                }
            }
            Ok(mounts)
        };
        self.store.guard(look)
    }

    /// The recorded names of the files with these device and inode numbers. Goes through the whole root.
    pub fn names_of(&self, root: &RootName, inodes: &HashSet<(u64, u64)>) -> Result<Vec<RelPath>> {
        let from = prefix(&self.repository, root);
        let to = after(from.clone());
        let look = || -> Outcome<Vec<RelPath>> {
            let mut names = Vec::new();
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                let (key, value) = row?;
                let record: FileRecord = decode(value.value())?;
                if inodes.contains(&(record.look.device, record.look.inode)) {
                    names.extend(path_of(&key.value()[from.len()..]));
                }
            }
            Ok(names)
        };
        self.store.guard(look)
    }

    /// Whether anything of the root is recorded below its top.
    pub fn has_any(&self, root: &RootName) -> Result<bool> {
        let from = prefix(&self.repository, root);
        let to = after(from.clone());
        let own = key(&self.repository, root, &RelPath::root());
        let look = || -> Outcome<bool> {
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                if row?.0.value() != own.as_slice() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.store.guard(look)
    }

    /// The number of files and links recorded for the root.
    pub fn count_contents(&self, root: &RootName) -> Result<u64> {
        let from = prefix(&self.repository, root);
        let to = after(from.clone());
        let look = || -> Outcome<u64> {
            let mut count = 0;
            for row in self.table.range(from.as_slice()..to.as_slice())? {
                let record: FileRecord = decode(row?.1.value())?;
                count += u64::from(record.look.kind.has_content());
            }
            Ok(count)
        };
        self.store.guard(look)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn look(size: u64, mtime_ns: i64) -> Look {
        Look {
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime_ns,
            ctime_ns: mtime_ns,
            inode: 1,
            device: 1,
            links: 1,
            special: 0,
            is_mount: false,
        }
    }

    #[test]
    fn a_record_proves_nothing_about_a_file_modified_in_the_same_moment() {
        let old = look(5, 1_000_000_000);
        let record = FileRecord {
            look: old,
            recorded_ns: 60_000_000_000,
            stored: [0; 20],
            checksum: [0; 32],
            is_pointer: false,
        };
        let now = 90_000_000_000;
        assert!(record.proves_unchanged(&old, now));
        assert!(!record.proves_unchanged(&Look { ctime_ns: 2, ..old }, now));
        assert!(
            record.proves_unchanged(&Look { device: 2, ..old }, now),
            "the disk was found in another order"
        );
        let fresh = FileRecord { recorded_ns: 1_500_000_000, ..record };
        assert!(!fresh.proves_unchanged(&old, now));
    }

    const SECOND: i64 = 1_000_000_000;
    const YEAR: i64 = 365 * 24 * 3600 * SECOND;

    /// A file with these times, read at `recorded` and looked at again, the same, at `now`.
    fn proves(mtime: i64, ctime: i64, recorded: i64, now: i64) -> bool {
        let seen = Look { mtime_ns: mtime, ctime_ns: ctime, ..look(5, 0) };
        let record = FileRecord {
            look: seen,
            recorded_ns: recorded,
            stored: [0; 20],
            checksum: [0; 32],
            is_pointer: false,
        };
        record.proves_unchanged(&seen, now)
    }

    #[test]
    fn a_modification_time_that_was_set_back_proves_nothing_while_the_change_time_is_fresh() {
        let (then, now) = (100 * YEAR, 101 * YEAR);
        assert!(
            !proves(then - YEAR, then, then + SECOND, now),
            "copied with its times, changed again at once"
        );
        assert!(proves(then - YEAR, then, then + 3 * SECOND, now));
        assert!(!proves(then, then - YEAR, then + SECOND, now), "a file system without change times");
    }

    #[test]
    fn a_clock_that_was_set_back_never_makes_a_file_look_unchanged() {
        let then = 100 * YEAR;
        // Read while the clock was a year ahead; it is right again and may have come by the file's time.
        assert!(!proves(then, then, then + YEAR, then + 10 * SECOND));
        assert!(!proves(then, then, then + YEAR, then + SECOND));
        assert!(!proves(then, then, then + YEAR, then - SECOND));
        // It cannot have come by it yet: nothing has to be read again.
        assert!(proves(then, then, then + YEAR, then - 10 * SECOND));
        assert!(proves(then, then, then + YEAR, then - YEAR));
        // Read in the very moment, then the clock went back.
        assert!(!proves(then, then, then, then - YEAR));
        assert!(!proves(then, then, then + SECOND, then - YEAR));
        // Without a jump as before.
        assert!(proves(then, then, then + YEAR, then + YEAR));
        assert!(proves(then, then, then + YEAR, then + 2 * YEAR));
    }

    #[test]
    fn times_from_the_future_prove_something_until_they_come() {
        let (then, future) = (100 * YEAR, 136 * YEAR);
        assert!(proves(future, then, then + 10 * SECOND, then + YEAR));
        assert!(!proves(future, then, then + 10 * SECOND, future - SECOND));
        assert!(!proves(future, then, then + 10 * SECOND, future + YEAR), "the clock has come by");
        assert!(!proves(future, then, then + SECOND, then + YEAR), "set back again in the same moment");
        for absurd in [i64::MIN, i64::MAX] {
            proves(absurd, absurd, absurd, absurd);
            proves(then, absurd, then, absurd);
        }
    }

    #[test]
    fn records_that_a_jump_back_concerns_prove_nothing_any_more() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let (one, two) = (RepositoryName::new("one").unwrap(), RepositoryName::new("two").unwrap());
        let root = RootName::new("r").unwrap();
        let mut queue = store.queue().unwrap();
        let now = 100 * YEAR;
        for repository in [&one, &two] {
            let put = |name: &str, time: i64| {
                let record = FileRecord {
                    look: look(5, time),
                    recorded_ns: now,
                    stored: [0; 20],
                    checksum: [0; 32],
                    is_pointer: false,
                };
                FileDelta::Put(RelPath::new(name).unwrap(), Box::new(record))
            };
            let files = vec![(root.clone(), vec![put("old", now - YEAR), put("fresh", now - 60 * SECOND)])];
            let settlement = crate::store::checkpoints::Settlement { files, ..Default::default() };
            queue.settle(repository, &settlement, 0).unwrap();
        }
        assert_eq!(queue.clock_went_back(&one, now - 3600 * SECOND).unwrap(), 1);
        let proves = |repository: &RepositoryName, name: &str| {
            let record = store.reader().files(repository).unwrap().get(&root, &RelPath::new(name).unwrap());
            let record = record.unwrap().unwrap();
            record.proves_unchanged(&record.look, now + YEAR)
        };
        assert!(proves(&one, "old") && !proves(&one, "fresh"));
        assert!(proves(&two, "old") && proves(&two, "fresh"));
        assert_eq!(queue.clock_went_back(&one, now - 3600 * SECOND).unwrap(), 0, "once is enough");
    }

    #[test]
    fn the_key_after_a_prefix_is_beyond_all_its_keys() {
        assert_eq!(after(b"a\0".to_vec()), b"a\x01");
        assert_eq!(after(vec![b'a', 255]), b"b");
    }
}
