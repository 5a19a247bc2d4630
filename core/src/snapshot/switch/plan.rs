//! What a switch has to read: the files of a tree that are to be stored in another form, or whose checksum is to be another.
//!
//! In: the tip's tree, the policy that it has and the one that is wanted. Out: the files in the order of their paths, how many
//! bytes they take, and the certainty that all of them can be read: a large content that is not here any more is told
//! before anything is written.

use std::os::fd::AsFd;

use git2::{ObjectType, Oid};

use super::super::Batch;
use super::super::attributes;
use super::Old;
use crate::beneath::{self, EntryKind, RootDirectory};
use crate::crypt::gitcrypt::{cipher, wrapped};
use crate::crypt::policy::Cipher;
use crate::error::{Error, Kind, Result};
use crate::git::contents::may_point;
use crate::git::objects::ObjectDatabase;
use crate::lfs::attributes::FILE_NAME;
use crate::lfs::{Attributes, Objects, Pointer};
use crate::names::RootName;
use crate::path::{OWN_DIRECTORY, RelPath, lossy, unescape_component};
use crate::progress::Progress;
use crate::tree::{self, Entry, Listing, MAX_DEPTH};

/// So many names a message has.
const NAMED: usize = 5;

/// A root and the path below it, on disk.
pub(super) type Place = (RootName, RelPath);

/// A file to be looked at.
pub(super) struct Item {
    /// In the repository.
    pub path: Vec<u8>,
    /// The root and the path on disk, for what is of a root.
    pub place: Option<Place>,
    pub entry: Entry,
    /// Bytes of the object.
    pub size: u64,
    pub is_pointer: bool,
    /// Where the content is.
    pub source: Whereabouts,
    /// Whether it is encrypted, and is to be.
    pub is_covered: bool,
    pub will_be_covered: bool,
    /// It keeps its object; only its checksum is another.
    pub keeps_object: bool,
}

/// Where a content is.
pub(super) enum Whereabouts {
    /// The object itself.
    Inline,
    /// Among the large contents.
    Large(Pointer),
    /// Only in the watched directory, as clear text, with this checksum of the form that the tree has.
    Disk { root: std::path::PathBuf, path: RelPath, size: u64, checksum: [u8; 32] },
}

#[derive(Default)]
pub(super) struct Plan {
    /// In the order of their paths.
    pub items: Vec<Item>,
    /// OpenPGP messages that stay until their files are read again.
    pub messages: Vec<Place>,
    /// What git-crypt cannot hold, in the order of the paths.
    pub too_large: Vec<(Vec<u8>, Option<Place>)>,
    /// What is written for them at most.
    pub bytes: u64,
}

impl Plan {
    pub fn of_tree(
        batch: &Batch<'_>,
        objects: &ObjectDatabase<'_>,
        tree: Oid,
        old: Option<&Old>,
        large: &Objects,
        progress: &Progress,
    ) -> Result<Self> {
        let mut planner = Planner {
            batch,
            objects,
            old,
            large,
            items: Vec::new(),
            messages: Vec::new(),
            too_large: Vec::new(),
            gone: Vec::new(),
        };
        planner.walk(tree, progress)?;
        let Planner { mut items, messages, mut too_large, gone, .. } = planner;
        if !gone.is_empty() {
            return Err(gone_error(&gone));
        }
        items.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        too_large.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let bytes = items.iter().filter(|item| !item.keeps_object).fold(0u64, |sum, item| {
            let size = match &item.source {
                Whereabouts::Inline => item.size,
                Whereabouts::Large(pointer) => pointer.size,
                Whereabouts::Disk { size, .. } => *size,
            };
            sum.saturating_add(size).saturating_add(cipher::OVERHEAD)
        });
        Ok(Self { items, messages, too_large, bytes })
    }
}

struct Planner<'p> {
    batch: &'p Batch<'p>,
    objects: &'p ObjectDatabase<'p>,
    old: Option<&'p Old>,
    large: &'p Objects,
    items: Vec<Item>,
    messages: Vec<Place>,
    too_large: Vec<(Vec<u8>, Option<Place>)>,
    gone: Vec<(Vec<u8>, Pointer)>,
}

impl Planner<'_> {
    fn walk(&mut self, tree: Oid, progress: &Progress) -> Result<()> {
        let mut waiting = vec![(Vec::new(), tree, 1)];
        while let Some((path, tree, depth)) = waiting.pop() {
            progress.check()?;
            if depth > MAX_DEPTH {
                let text =
                    format!("more than {MAX_DEPTH} directories below each other at {:?}", lossy(&path));
                return Err(Error::new(Kind::Git, text));
            }
            let listing = Listing::read(self.objects, tree, &path)?;
            let pointers = match listing.get(FILE_NAME) {
                Some(entry) => attributes::read(self.objects, entry),
                None => Some(Attributes::default()),
            };
            for (name, entry) in listing.iter() {
                let is_own = [OWN_DIRECTORY, wrapped::DIRECTORY].iter().any(|own| own.as_bytes() == name);
                if name == FILE_NAME || (is_own && path.is_empty()) {
                    continue;
                }
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name);
                match entry.mode {
                    tree::MODE_TREE => waiting.push((below, entry.oid, depth + 1)),
                    tree::MODE_SYMLINK | tree::MODE_COMMIT => {}
                    _ => self.file(below, name, entry, pointers.as_ref())?,
                }
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: Vec<u8>,
        name: &[u8],
        entry: Entry,
        pointers: Option<&Attributes>,
    ) -> Result<()> {
        let is_covered = self.old.is_some_and(|old| old.policy.covers(&path));
        let will_be_covered = self.batch.sealer.is_some_and(|sealer| sealer.covers(&path));
        let old_key = self.old.map(|old| &old.policy.key);
        let new_key = self.batch.sealer.map(|sealer| &sealer.policy().key);
        let is_same_key = old_key == new_key;
        let old_cipher = self.old.map(|old| &old.policy.cipher);
        let new_cipher = self.batch.sealer.map(|sealer| &sealer.policy().cipher);
        if is_covered && old_cipher.is_some_and(Cipher::is_open_pgp) {
            if !is_same_key || old_cipher != new_cipher {
                self.messages.extend(place_of(&path));
            }
            return Ok(());
        }
        if !is_covered && !will_be_covered && self.old.is_some_and(|old| old.key.is_none()) {
            // Its checksum is found when it is read again.
            return Ok(());
        }
        let is_same_cipher = old_cipher == new_cipher;
        let keeps_object = is_covered == will_be_covered && (!is_covered || (is_same_key && is_same_cipher));
        if keeps_object && is_same_key {
            return Ok(());
        }
        let fail = |error| {
            let text = format!("the content of {:?} is missing or damaged", lossy(&path));
            Error::with_source(Kind::Git, text, error)
        };
        let (size, kind) = self.objects.read_header(entry.oid).map_err(fail)?;
        if kind != ObjectType::Blob {
            return Err(Error::new(Kind::Git, format!("no file stands at {:?}", lossy(&path))));
        }
        let size = size as u64;
        // Where the file that says it is not ours, what reads as a pointer is one.
        let is_named = pointers.is_none_or(|pointers| pointers.has(name));
        let pointer = match is_named && may_point(size) {
            true => Pointer::parse(self.objects.read(entry.oid).map_err(fail)?.data()),
            false => None,
        };
        let place = place_of(&path);
        let stored_size = pointer.map_or(size, |pointer| pointer.size);
        let is_git_crypt = new_cipher.is_some_and(|cipher| !cipher.is_open_pgp());
        if will_be_covered && is_git_crypt && !is_covered && stored_size > cipher::LARGEST {
            self.too_large.push((path, place));
            return Ok(());
        }
        let source = match pointer {
            None => Whereabouts::Inline,
            Some(pointer) if self.large.has(&pointer)? => Whereabouts::Large(pointer),
            Some(pointer) => match self.on_disk(place.as_ref(), &pointer, is_covered)? {
                Some(on_disk) => on_disk,
                None => {
                    self.gone.push((path, pointer));
                    return Ok(());
                }
            },
        };
        let is_pointer = pointer.is_some();
        self.items.push(Item {
            path,
            place,
            entry,
            size,
            is_pointer,
            source,
            is_covered,
            will_be_covered,
            keeps_object,
        });
        Ok(())
    }

    /// A large content that was let go of here is still in the watched directory, most of the time.
    fn on_disk(
        &self,
        place: Option<&(RootName, RelPath)>,
        pointer: &Pointer,
        is_covered: bool,
    ) -> Result<Option<Whereabouts>> {
        let Some((root, path)) = place else { return Ok(None) };
        let Some(watched) = self.batch.roots.iter().find(|watched| watched.name == *root) else {
            return Ok(None);
        };
        let Some(recorded) = self.batch.files.get(root, path)? else { return Ok(None) };
        let size = if is_covered { pointer.size.saturating_sub(cipher::OVERHEAD) } else { pointer.size };
        if recorded.checksum == [0; 32] {
            return Ok(None);
        }
        let Ok(directory) = RootDirectory::open(&watched.path) else { return Ok(None) };
        let look = directory.open_file(path).and_then(|file| beneath::look_at_open(file.as_fd()));
        let is_like_it = look.is_ok_and(|look| look.kind == EntryKind::File && look.size == size);
        Ok(is_like_it.then(|| Whereabouts::Disk {
            root: watched.path.clone(),
            path: path.clone(),
            size,
            checksum: recorded.checksum,
        }))
    }
}

/// The root and the path on disk of what stands at a path of the repository.
fn place_of(path: &[u8]) -> Option<(RootName, RelPath)> {
    let mut names = path.split(|byte| *byte == b'/');
    let root = RootName::new(std::str::from_utf8(names.next()?).ok()?).ok()?;
    let names: Option<Vec<_>> = names.map(unescape_component).collect();
    let names = names.filter(|names| !names.is_empty())?;
    Some((root, RelPath::new(names.join(&b'/')).ok()?))
}

fn gone_error(gone: &[(Vec<u8>, Pointer)]) -> Error {
    let shown: Vec<String> = gone
        .iter()
        .take(NAMED)
        .map(|(path, pointer)| format!("{} (object {}, {} bytes)", lossy(path), pointer.id, pointer.size))
        .collect();
    let more = match gone.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "everything has to be stored in another form, and the content of {}{more} is neither here nor unchanged in the \
         watched directory: nothing is stored. Put the file as it was back into the watched directory, or the object into \
         this repository (`git lfs fetch` in a clone of a remote gets it; `git lfs push --object-id` takes it to a directory)",
        shown.join(", ")
    );
    Error::new(Kind::EncryptionKey, text)
}
