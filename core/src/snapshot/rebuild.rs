//! The stat cache from a commit: after a lost database it tells the next walk what the tree holds.
//!
//! The looks are made so that they match nothing on disk: every file is read again, but what is gone is noticed
//! as gone, and a file whose checksum is still the recorded one keeps its object without being stored anew. Where that
//! object is a pointer, what it points at may be lost: it is stored again if it is not here.
//!
//! Where the key of the metadata is lost (a host that writes OpenPGP messages makes it itself), names are all that is known:
//! every file is stored again.

use git2::Oid;

use super::message::{BATCH_TRAILER, trailer};
use super::{attributes, raw};
use crate::beneath::{EntryKind, Look};
use crate::crypt::places;
use crate::crypt::policy::Policy;
use crate::crypt::unsealer::Unsealer;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::git::repository::Repository;
use crate::lfs::{self, Attributes, Pointer, pointer};
use crate::metadata::{self, Record};
use crate::names::RootName;
use crate::path::{RelPath, lossy, unescape_component};
use crate::progress::Progress;
use crate::store::files::{FileDelta, FileRecord};
use crate::tree::{self, Listing};

/// Records handed over at a time.
const PART: usize = 10_000;

/// The number of the batch that made `commit`, as its trailer says; 0 if it does not say.
pub fn batch_of(repository: &Repository, commit: Oid) -> Result<u64> {
    let message = repository.message_of(commit)?;
    Ok(trailer(&message, BATCH_TRAILER).and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// Hands the records of `root` in `commit` to `take`, in parts.
pub fn rebuild_files(
    repository: &Repository,
    commit: Oid,
    root: &RootName,
    progress: &Progress,
    take: &mut dyn FnMut(Vec<FileDelta>) -> Result<()>,
) -> Result<()> {
    let tree = repository.tree_of(commit)?;
    let objects = repository.objects()?;
    if is_metadata_lost(repository, &objects, tree)? {
        return names_alone(&objects, tree, root, progress, take);
    }
    let unsealer = Unsealer::of(repository, tree)?;
    let checksum = |bytes: &[u8]| match &unsealer {
        Some(unsealer) => unsealer.checksums().checksum(bytes),
        None => *blake3::hash(bytes).as_bytes(),
    };
    let mut part = Vec::new();
    let mut here: Option<(RelPath, Option<Here<'_>>)> = None;
    metadata::walk(&objects, tree, root, &mut |directory, record| {
        progress.check()?;
        let is_own = record.name == metadata::OWN_NAME;
        let path = if is_own { directory.clone() } else { directory.join(&record.name) };
        if here.as_ref().is_none_or(|(known, _)| known != directory) {
            let git_path = directory.to_git_path(root);
            let files = match tree::lookup(&objects, tree, &git_path)? {
                Some(entry) if entry.is_tree() => Some(Here::read(&objects, entry.oid, &git_path)?),
                _ => None,
            };
            here = Some((directory.clone(), files));
        }
        let files = here.as_ref().and_then(|(_, files)| files.as_ref()).filter(|_| !is_own);
        let stored = files.and_then(|files| files.stored(&objects, &record, &checksum));
        part.push(FileDelta::Put(path, Box::new(file_record(&record, stored))));
        if part.len() >= PART {
            take(std::mem::take(&mut part))?;
        }
        Ok(())
    })?;
    take(part)
}

fn is_metadata_lost(repository: &Repository, objects: &ObjectDatabase<'_>, tree: Oid) -> Result<bool> {
    let Some(policy) = Policy::of_tree(objects, tree)? else { return Ok(false) };
    if !policy.cipher.is_open_pgp() {
        return Ok(false);
    }
    let keys = places::known_of(repository.path())?;
    Ok(keys.is_some_and(|keys| keys.makes_key() && keys.find(&policy.key).is_none()))
}

/// The names in the tree, so that what is gone is noticed as gone; nothing of what stands there is taken for known.
fn names_alone(
    objects: &ObjectDatabase<'_>,
    tree: Oid,
    root: &RootName,
    progress: &Progress,
    take: &mut dyn FnMut(Vec<FileDelta>) -> Result<()>,
) -> Result<()> {
    let top = RelPath::root();
    let Some(entry) = tree::lookup(objects, tree, &top.to_git_path(root))?.filter(|entry| entry.is_tree())
    else {
        return Ok(());
    };
    let mut part = vec![FileDelta::Put(top.clone(), Box::new(nothing_known(EntryKind::Directory, false)))];
    let mut waiting = vec![(top, entry.oid, 1)];
    while let Some((directory, tree, depth)) = waiting.pop() {
        progress.check()?;
        let git_path = directory.to_git_path(root);
        if depth > tree::MAX_DEPTH {
            let text = format!("directories without end below each other at {:?}", lossy(&git_path));
            return Err(Error::new(Kind::Git, text));
        }
        let here = Here::read(objects, tree, &git_path)?;
        for (name, entry) in here.listing.iter() {
            let Some(component) = unescape_component(name) else { continue };
            let path = directory.join(&component);
            let kind = match entry.mode {
                tree::MODE_TREE => EntryKind::Directory,
                tree::MODE_SYMLINK => EntryKind::Symlink,
                tree::MODE_COMMIT => continue,
                _ => EntryKind::File,
            };
            if kind == EntryKind::Directory {
                waiting.push((path.clone(), entry.oid, depth + 1));
            }
            let is_pointer = here.pointers.as_ref().is_some_and(|pointers| pointers.has(name));
            part.push(FileDelta::Put(path, Box::new(nothing_known(kind, is_pointer))));
            if part.len() >= PART {
                take(std::mem::take(&mut part))?;
            }
        }
    }
    take(part)
}

fn nothing_known(kind: EntryKind, is_pointer: bool) -> FileRecord {
    let look = look_at_nothing(kind);
    FileRecord { look, recorded_ns: 0, stored: [0; 20], checksum: [0; 32], is_pointer }
}

/// No inode has the number 0, so no look on disk is this one.
fn look_at_nothing(kind: EntryKind) -> Look {
    Look {
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        inode: 0,
        device: 0,
        links: 0,
        special: 0,
        is_mount: false,
    }
}

/// The checksum that the snapshot's records have.
type Checksum<'c> = &'c dyn Fn(&[u8]) -> [u8; 32];

/// One directory in the tree of files.
struct Here<'o> {
    listing: Listing<'o>,
    /// The names of pointers; absent if the file that says them is not one of ours.
    pointers: Option<Attributes>,
}

impl<'o> Here<'o> {
    fn read(objects: &'o ObjectDatabase<'_>, tree: Oid, path: &[u8]) -> Result<Self> {
        let listing = Listing::read(objects, tree, path)?;
        let pointers = match listing.get(lfs::attributes::FILE_NAME) {
            Some(entry) => attributes::read(objects, entry),
            None => Some(Attributes::default()),
        };
        Ok(Self { listing, pointers })
    }

    /// What is stored of a file, and whether it is a pointer.
    fn stored(
        &self,
        objects: &ObjectDatabase<'_>,
        record: &Record,
        checksum: Checksum<'_>,
    ) -> Option<(Oid, bool)> {
        let name = crate::path::escape_component(&record.name);
        let entry = self.listing.get(&name).filter(|entry| !entry.is_tree())?;
        let is_pointer = match &self.pointers {
            Some(pointers) => pointers.has(&name),
            // Not a word that is the content's own is taken for a pointer: one has other bytes than what it stands for.
            None => {
                record.size.is_some_and(|size| size > 0)
                    && entry.mode != tree::MODE_SYMLINK
                    && is_pointer(objects, entry.oid, record, checksum)
            }
        };
        Some((entry.oid, is_pointer && record.kind == EntryKind::File))
    }
}

fn is_pointer(objects: &ObjectDatabase<'_>, blob: Oid, record: &Record, checksum: Checksum<'_>) -> bool {
    let is_small = objects.read_header(blob).is_ok_and(|(size, _)| size < pointer::LARGEST);
    let Some(blob) = objects.read(blob).ok().filter(|_| is_small) else { return false };
    let is_itself = record.blake3 == Some(checksum(blob.data()));
    !is_itself && Pointer::parse(blob.data()).is_some()
}

fn file_record(record: &Record, stored: Option<(Oid, bool)>) -> FileRecord {
    let look = Look {
        mode: record.mode,
        uid: record.uid,
        gid: record.gid,
        size: record.size.unwrap_or(0),
        // What was mounted there and is not any more must not be taken for deleted.
        is_mount: record.is_mount,
        ..look_at_nothing(record.kind)
    };
    FileRecord {
        look,
        recorded_ns: 0,
        stored: stored.map_or([0; 20], |(oid, _)| raw(oid)),
        // Without an object there is nothing that a matching checksum could stand for.
        checksum: stored.and(record.blake3).unwrap_or([0; 32]),
        is_pointer: stored.is_some_and(|(_, is_pointer)| is_pointer),
    }
}
