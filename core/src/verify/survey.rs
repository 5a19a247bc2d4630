//! Going through a snapshot: every tree and every record of it is read, and what is found is handed out one by one.
//!
//! In: a request. Out, in an order that is the same each time: what has content, what has none, what is wrong, what is worth
//! knowing. Nothing is kept but one directory and the names of those that wait. A snapshot that has more names than its
//! repository has bytes is ended, as one that was made to keep somebody busy for ever.

use super::Request;
use crate::beneath::EntryKind;
use crate::crypt::gitcrypt::wrapped;
use crate::crypt::openpgp::header;
use crate::crypt::policy::Policy;
use crate::error::{Error, Kind, Result};
use crate::history::directory::{Directory, Problem, Walk};
use crate::history::{ObjectDatabase, Oid, Root};
use crate::metadata::Record;
use crate::names::RootName;
use crate::path::{OWN_DIRECTORY, RelPath};
use crate::progress::Progress;
use crate::restore::{Bounds, Named, repository_bytes};
use crate::tree::{Entry, Listing, MODE_COMMIT};

/// The directory of the metadata in our own.
const METADATA: &[u8] = b"meta";

/// One thing in a snapshot.
pub(super) enum Found<'f> {
    /// A directory whose tree and records could be read, at least in part.
    Directory,
    /// Something that has no content.
    Special,
    /// Something that has content.
    Content(Content<'f>),
    /// Something is wrong.
    Problem(Named),
    /// Something is worth knowing.
    Remark(Named),
}

/// A file, a symbolic link, or a file of our own.
pub(super) struct Content<'f> {
    place: Where<'f>,
    /// Mode and object.
    pub(super) entry: Entry,
    /// A file or a symbolic link.
    pub(super) kind: EntryKind,
    /// As recorded.
    pub(super) record: Option<&'f Record>,
    /// It belongs to the backup and not to the user.
    pub(super) is_own: bool,
}

enum Where<'f> {
    /// In a root.
    Root(&'f RootName, &'f RelPath, &'f [u8]),
    /// Elsewhere in the tree.
    Tree(Vec<u8>),
}

impl Content<'_> {
    /// The root's name and the path in it.
    pub(super) fn full_path(&self) -> Vec<u8> {
        match &self.place {
            Where::Root(root, directory, name) => {
                let mut path = root.as_str().as_bytes().to_vec();
                for part in [directory.as_bytes(), name] {
                    if !part.is_empty() {
                        path.push(b'/');
                        path.extend_from_slice(part);
                    }
                }
                path
            }
            Where::Tree(path) => path.clone(),
        }
    }

    /// Its path in the repository.
    pub(super) fn git_path(&self) -> Vec<u8> {
        match &self.place {
            Where::Root(root, directory, name) => directory.join(name).to_git_path(root),
            Where::Tree(path) => path.clone(),
        }
    }

    /// Its root and its path there; none for what belongs to no root.
    pub(super) fn place_in_root(&self) -> Option<(RootName, RelPath)> {
        match &self.place {
            Where::Root(root, directory, name) => Some(((*root).clone(), directory.join(name))),
            Where::Tree(_) => None,
        }
    }

    /// Something about it.
    pub(super) fn named(&self, reason: String) -> Named {
        Named::at(&self.full_path(), reason)
    }
}

/// What stands in a tree that has no records, by stored names.
type Plain = Vec<(Vec<u8>, Entry)>;

type Tell<'t> = &'t mut dyn FnMut(Found<'_>) -> Result<()>;

/// One pass.
pub(super) struct Survey<'s> {
    request: &'s Request<'s>,
    objects: ObjectDatabase<'s>,
    progress: &'s Progress,
    repository_bytes: u64,
    entries: u64,
}

impl<'s> Survey<'s> {
    pub(super) fn new(request: &'s Request<'s>, progress: &'s Progress) -> Result<Self> {
        let objects = request.repository.objects()?;
        let repository_bytes = repository_bytes(request.repository.path());
        Ok(Self { request, objects, progress, repository_bytes, entries: 0 })
    }

    /// Goes through all of it. Only `tell` and a stop from outside end it early with an error.
    pub(super) fn run(mut self, tell: Tell<'_>) -> Result<()> {
        let snapshot = self.request.snapshot;
        let top = match self.listing(snapshot.tree, b"", tell)? {
            Some(top) => top,
            None => return Ok(()),
        };
        for (name, entry) in &top {
            let path = name.clone();
            match (entry.is_tree(), name.as_slice()) {
                (true, own) if own == OWN_DIRECTORY.as_bytes() => self.own(entry.oid, tell)?,
                (true, name) if name == wrapped::DIRECTORY.as_bytes() && self.is_encrypted() => {
                    self.wrapped_keys(tell)?;
                }
                (true, name) if !is_root(name) => tell(no_root(name))?,
                (true, _) => {}
                (false, _) => self.own_file(path, *entry, tell)?,
            }
        }
        let roots = match snapshot.roots(&self.objects) {
            Ok(roots) => roots,
            Err(error) => return tell(wrong(b"", &error)),
        };
        for root in roots {
            if !self.root(&root, tell)? {
                break;
            }
        }
        Ok(())
    }

    fn is_encrypted(&self) -> bool {
        matches!(Policy::of_tree(&self.objects, self.request.snapshot.tree), Ok(Some(_)))
    }

    /// Whether the key that recipients have in the repository can be read there. That it opens something only they can say.
    fn wrapped_keys(&self, tell: Tell<'_>) -> Result<()> {
        let keys = match wrapped::recipients(&self.objects, self.request.snapshot.tree) {
            Ok(keys) => keys,
            Err(error) => return tell(wrong(wrapped::DIRECTORY.as_bytes(), &error)),
        };
        for key in keys {
            self.progress.check()?;
            let path = wrapped::path_of_default(&key.fingerprint);
            match wrapped::read(&self.objects, &key) {
                Ok(message) if header::look(&message).is_some() => {}
                Ok(_) => {
                    let error =
                        Error::new(Kind::Git, "it is no OpenPGP message: nobody gets the key from it");
                    tell(wrong(path.as_bytes(), &error))?;
                }
                Err(error) => tell(wrong(path.as_bytes(), &error))?,
            }
        }
        Ok(())
    }

    /// What stands in a tree that has no records, or `None` if that cannot be read, which is told.
    fn listing(&self, tree: Oid, path: &[u8], tell: Tell<'_>) -> Result<Option<Plain>> {
        self.progress.check()?;
        match Listing::read(&self.objects, tree, path) {
            Ok(listing) => Ok(Some(listing.iter().map(|(name, entry)| (name.to_vec(), entry)).collect())),
            Err(error) => tell(wrong(path, &error)).map(|()| None),
        }
    }

    /// Our own directory. What is in the metadata is read with the directories that it speaks of.
    fn own(&mut self, tree: Oid, tell: Tell<'_>) -> Result<()> {
        let at = OWN_DIRECTORY.as_bytes();
        for (name, entry) in self.listing(tree, at, tell)?.unwrap_or_default() {
            let path = [at, b"/", &name].concat();
            if !entry.is_tree() {
                self.own_file(path, entry, tell)?;
                continue;
            }
            if name != METADATA {
                tell(no_root(&path))?;
                continue;
            }
            for (name, entry) in self.listing(entry.oid, &path, tell)?.unwrap_or_default() {
                if !entry.is_tree() || !is_root(&name) {
                    tell(no_root(&[&path, b"/".as_slice(), &name].concat()))?;
                }
            }
        }
        Ok(())
    }

    fn own_file(&self, path: Vec<u8>, entry: Entry, tell: Tell<'_>) -> Result<()> {
        if entry.mode == MODE_COMMIT {
            return tell(Found::Remark(Named::at(&path, Problem::Gitlink.to_string())));
        }
        let kind = EntryKind::File;
        tell(Found::Content(Content { place: Where::Tree(path), entry, kind, record: None, is_own: true }))
    }

    /// One root; `false` if it ends the pass.
    fn root(&mut self, root: &Root, tell: Tell<'_>) -> Result<bool> {
        let name = &root.name;
        for (path, read) in Walk::new(&self.objects, name, RelPath::root(), root.place) {
            self.progress.check()?;
            let directory = match read {
                Ok(directory) => directory,
                Err(error) => {
                    tell(Found::Problem(Named::new(name, &path, error.to_string())))?;
                    continue;
                }
            };
            self.entries = self.entries.saturating_add(1 + directory.nodes.len() as u64);
            if let Err(error) = Bounds::default().check_entries(self.entries, self.repository_bytes) {
                tell(Found::Problem(Named::new(name, &path, error.to_string())))?;
                return Ok(false);
            }
            tell(Found::Directory)?;
            hand_out(name, &path, &directory, tell)?;
        }
        Ok(true)
    }
}

fn hand_out(root: &RootName, path: &RelPath, directory: &Directory, tell: Tell<'_>) -> Result<()> {
    for remark in &directory.remarks {
        let at = if remark.name.is_empty() { path.clone() } else { path.join(&remark.name) };
        let named = Named::new(root, &at, remark.problem.to_string());
        tell(match remark.problem {
            Problem::Damaged(_) | Problem::Contradicted | Problem::Missing => Found::Problem(named),
            Problem::NoMetadata | Problem::Unrecorded | Problem::Gitlink | Problem::ImpossibleName => {
                Found::Remark(named)
            }
        })?;
    }
    for node in &directory.nodes {
        match (node.kind, node.entry) {
            (EntryKind::Directory, _) => {}
            (kind, Some(entry)) if kind.has_content() => tell(Found::Content(Content {
                place: Where::Root(root, path, &node.name),
                entry,
                kind,
                record: node.record.as_ref(),
                is_own: false,
            }))?,
            _ => tell(Found::Special)?,
        }
    }
    Ok(())
}

fn is_root(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| RootName::new(name).is_ok())
}

fn no_root(path: &[u8]) -> Found<'static> {
    Found::Remark(Named::at(path, "it belongs to no watched directory; what is in it is not looked at"))
}

fn wrong(path: &[u8], error: &Error) -> Found<'static> {
    let path = if path.is_empty() { b"." } else { path };
    Found::Problem(Named::at(path, error.to_string()))
}
