//! What is known of the watched tree: the last listing of each directory, and which descriptor stands for what.
//!
//! Pure bookkeeping: in go facts, out come paths and differences; nothing here touches the disk. A directory
//! knows its parent and its own name, never a path. What is taken out is returned as handles, which the caller
//! lets go of, so that no descriptor outlives its place here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::FileType;

use super::kernel::Handle;
use crate::path::RelPath;

/// Names a directory; never used again after that one is gone. Those below are larger.
pub(super) type DirectoryId = u64;

/// What a handle stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Directory(DirectoryId),
    /// An entry that is not a directory.
    Entry(DirectoryId, Arc<[u8]>),
}

#[derive(Debug)]
pub(super) struct Directory {
    /// None for the root.
    pub parent: Option<DirectoryId>,
    pub name: Arc<[u8]>,
    /// Device and inode, by which another directory at the same path is told.
    pub identity: (u64, u64),
    pub handle: Handle,
    entries: HashMap<Arc<[u8]>, Entry>,
    /// How many of the entries are compared.
    compared: usize,
    /// The round in which all of it was hinted, as long as it has not been listed.
    pub unlisted_since: Option<u64>,
    /// Not to be listed again before, because that took long, or failed.
    pub rest_until: Option<Instant>,
}

/// What a listing says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub inode: u64,
    pub kind: FileType,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub listed: Listed,
    /// The rules let it in; else it is here because it holds rules itself.
    pub is_included: bool,
    pub state: State,
    /// The listing that had it last.
    pub seen: u64,
}

/// How a change of an entry is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has a record of its own.
    Directory(DirectoryId),
    /// The kernel tells.
    Told(Handle),
    /// Its stat is compared with this fingerprint every now and then.
    Compared(u64, Reason),
    /// It is about to get a descriptor or a fingerprint; hinted in this round.
    Pending(u64),
    /// A directory on another file system; not looked into.
    Foreign,
}

/// Why something has no descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Links, pipes, sockets and devices are not opened.
    Kind,
    /// It cannot be opened.
    Closed,
    /// The kernel cannot watch it.
    Refused,
    /// There is none left; and how many directories, with itself, and files this leaves unwatched.
    Beyond { directories: u64, files: u64 },
}

/// Sums over the whole tree, for status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// Directories that cannot be opened.
    pub closed_directories: u64,
    /// Directories that the kernel cannot watch.
    pub refused_directories: u64,
    /// Directories beyond the budget, with those below them, and files in those.
    pub directories: u64,
    pub files_below: u64,
    /// Files beyond the budget in watched directories.
    pub files: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    directories: HashMap<DirectoryId, Directory>,
    subjects: HashMap<Handle, Subject>,
    root: Option<DirectoryId>,
    next_directory: DirectoryId,
    next_handle: u64,
    missing: Missing,
    /// Directories that can be looked at and are not watched, by their parents; and whether one came or went.
    left: BTreeSet<(DirectoryId, Arc<[u8]>)>,
    is_left_news: bool,
    /// Directories with compared entries.
    with_compared: BTreeSet<DirectoryId>,
    /// Files that could give their descriptor to a directory.
    told: BTreeSet<Handle>,
}

impl Tree {
    pub fn len(&self) -> usize {
        self.directories.len()
    }

    pub fn root(&self) -> Option<DirectoryId> {
        self.root
    }

    pub fn missing(&self) -> Missing {
        self.missing
    }

    /// Directories that can be looked at and are not watched, each by its parent and its name.
    pub fn left(&self) -> impl Iterator<Item = (DirectoryId, &[u8], &Entry)> {
        self.left.iter().filter_map(|(id, name)| Some((*id, &**name, self.entry(*id, name)?)))
    }

    /// Whether they may be others than at the last call.
    pub fn take_left_news(&mut self) -> bool {
        std::mem::take(&mut self.is_left_news)
    }

    pub fn get(&self, id: DirectoryId) -> Option<&Directory> {
        self.directories.get(&id)
    }

    pub fn get_mut(&mut self, id: DirectoryId) -> Option<&mut Directory> {
        self.directories.get_mut(&id)
    }

    pub fn new_handle(&mut self) -> Handle {
        self.next_handle += 1;
        Handle(self.next_handle)
    }

    pub fn subject(&self, handle: Handle) -> Option<&Subject> {
        self.subjects.get(&handle)
    }

    pub fn path(&self, id: DirectoryId) -> Option<RelPath> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = self.directories.get(&id)?;
        while let Some(parent) = at.parent {
            names.push(&at.name);
            at = self.directories.get(&parent)?;
        }
        names.reverse();
        RelPath::new(names.join(&b'/')).ok()
    }

    pub fn entry(&self, id: DirectoryId, name: &[u8]) -> Option<&Entry> {
        self.directories.get(&id)?.entries.get(name)
    }

    /// Whether `listing` shows what is on record; if so, notes that it was seen there.
    pub fn see(&mut self, id: DirectoryId, name: &[u8], listed: Listed, listing: u64) -> bool {
        let entry = self.directories.get_mut(&id).and_then(|directory| directory.entries.get_mut(name));
        match entry {
            Some(entry) if entry.listed == listed => {
                entry.seen = listing;
                true
            }
            _ => false,
        }
    }

    /// Says whether the rules let an entry in.
    pub fn include(&mut self, id: DirectoryId, name: &[u8], is_included: bool) {
        let directory = self.directories.get_mut(&id);
        if let Some(entry) = directory.and_then(|directory| directory.entries.get_mut(name)) {
            entry.is_included = is_included;
        }
    }

    /// Makes the next listing find an entry as another one than the recorded.
    pub fn make_unknown(&mut self, id: DirectoryId, name: &[u8]) {
        let directory = self.directories.get_mut(&id);
        if let Some(entry) = directory.and_then(|directory| directory.entries.get_mut(name)) {
            entry.listed.inode = 0;
        }
    }

    /// How many entries a directory has on record.
    pub fn count_entries(&self, id: DirectoryId) -> usize {
        self.directories.get(&id).map_or(0, |directory| directory.entries.len())
    }

    /// Names and entries of a directory that `wanted` picks.
    pub fn entries(
        &self,
        id: DirectoryId,
        wanted: impl Fn(&[u8], &Entry) -> bool,
    ) -> Vec<(Arc<[u8]>, Entry)> {
        let entries = self.directories.get(&id).into_iter().flat_map(|directory| &directory.entries);
        entries
            .filter(|(name, entry)| wanted(name, entry))
            .map(|(name, entry)| (name.clone(), *entry))
            .collect()
    }

    /// Puts a directory on record, with its entry in its parent's.
    pub fn add_directory(
        &mut self,
        place: Option<(DirectoryId, Arc<[u8]>, Listed, u64)>,
        identity: (u64, u64),
        handle: Handle,
        round: u64,
    ) -> DirectoryId {
        self.next_directory += 1;
        let id = self.next_directory;
        let (parent, name) = match place {
            Some((parent, name, listed, seen)) => {
                let entry = Entry { listed, is_included: true, state: State::Directory(id), seen };
                self.set_entry(parent, name.clone(), entry);
                (Some(parent), name)
            }
            None => {
                self.root = Some(id);
                (None, Arc::from([]))
            }
        };
        let directory = Directory {
            parent,
            name,
            identity,
            handle,
            entries: HashMap::new(),
            compared: 0,
            unlisted_since: Some(round),
            rest_until: None,
        };
        self.directories.insert(id, directory);
        self.subjects.insert(handle, Subject::Directory(id));
        id
    }

    /// Puts an entry on record. One that stood there must have been taken out before.
    pub fn set_entry(&mut self, id: DirectoryId, name: Arc<[u8]>, entry: Entry) {
        self.count(id, &name, &entry, true);
        let Some(directory) = self.directories.get_mut(&id) else { return };
        match entry.state {
            State::Told(handle) => {
                self.subjects.insert(handle, Subject::Entry(id, name.clone()));
                self.told.insert(handle);
            }
            State::Compared(..) => {
                directory.compared += 1;
                self.with_compared.insert(id);
            }
            State::Directory(_) | State::Pending(_) | State::Foreign => {}
        }
        directory.entries.insert(name, entry);
    }

    /// Takes an entry out, and all below it; returns the handles, those of directories first.
    pub fn take_entry(&mut self, id: DirectoryId, name: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let mut doomed = Vec::new();
        let removed =
            self.directories.get_mut(&id).and_then(|directory| directory.entries.remove_entry(name));
        if let Some((name, entry)) = removed {
            self.forget(id, &name, &entry, &mut taken, &mut doomed);
        }
        // Somebody's tree may be deeper than a stack: no recursion.
        while let Some(below) = doomed.pop() {
            self.with_compared.remove(&below);
            let Some(directory) = self.directories.remove(&below) else { continue };
            self.subjects.remove(&directory.handle);
            taken.directories.push(directory.handle);
            for (name, entry) in &directory.entries {
                self.forget(below, name, entry, &mut taken, &mut doomed);
            }
        }
        taken
    }

    fn forget(
        &mut self,
        id: DirectoryId,
        name: &Arc<[u8]>,
        entry: &Entry,
        taken: &mut Taken,
        doomed: &mut Vec<DirectoryId>,
    ) {
        self.count(id, name, entry, false);
        match entry.state {
            State::Directory(below) => doomed.push(below),
            State::Told(handle) => {
                self.subjects.remove(&handle);
                self.told.remove(&handle);
                taken.files.push(handle);
            }
            State::Compared(..) => {
                if let Some(directory) = self.directories.get_mut(&id) {
                    directory.compared -= 1;
                    if directory.compared == 0 {
                        self.with_compared.remove(&id);
                    }
                }
            }
            State::Pending(_) | State::Foreign => {}
        }
    }

    fn count(&mut self, id: DirectoryId, name: &Arc<[u8]>, entry: &Entry, is_added: bool) {
        let State::Compared(_, reason) = entry.state else { return };
        let is_directory = entry.listed.kind == FileType::Directory;
        if is_directory && matches!(reason, Reason::Refused | Reason::Beyond { .. }) {
            self.is_left_news = true;
            let place = (id, name.clone());
            if is_added {
                self.left.insert(place)
            } else {
                self.left.remove(&place)
            };
        }
        let change = |sum: &mut u64, by: u64| {
            *sum = if is_added { *sum + by } else { sum.saturating_sub(by) };
        };
        match reason {
            Reason::Closed if is_directory => change(&mut self.missing.closed_directories, 1),
            Reason::Refused if is_directory => change(&mut self.missing.refused_directories, 1),
            Reason::Beyond { directories, files } if is_directory => {
                change(&mut self.missing.directories, directories);
                change(&mut self.missing.files_below, files);
            }
            Reason::Beyond { .. } => change(&mut self.missing.files, 1),
            Reason::Closed | Reason::Refused | Reason::Kind => {}
        }
    }

    /// A directory and all that are on record below it.
    pub fn subtree(&self, id: DirectoryId) -> Vec<DirectoryId> {
        let mut found = vec![id];
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            next += 1;
            let Some(directory) = self.directories.get(&at) else { continue };
            found.extend(directory.entries.values().filter_map(|entry| match entry.state {
                State::Directory(below) => Some(below),
                _ => None,
            }));
        }
        found
    }

    /// Directories with compared entries, in order.
    pub fn with_compared(&self) -> Vec<DirectoryId> {
        self.with_compared.iter().copied().collect()
    }

    /// A file that the kernel tells of, the latest.
    pub fn last_told(&self) -> Option<(DirectoryId, Arc<[u8]>)> {
        match self.subjects.get(self.told.last()?)? {
            Subject::Entry(id, name) => Some((*id, name.clone())),
            Subject::Directory(_) => None,
        }
    }
}

/// Handles that stand for nothing any more.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub directories: Vec<Handle>,
    pub files: Vec<Handle>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(inode: u64, kind: FileType) -> Listed {
        Listed { inode, kind }
    }

    fn name(text: &str) -> Arc<[u8]> {
        Arc::from(text.as_bytes())
    }

    fn directory(tree: &mut Tree, parent: DirectoryId, text: &str, inode: u64) -> DirectoryId {
        let handle = tree.new_handle();
        let place = (parent, name(text), listed(inode, FileType::Directory), 1);
        tree.add_directory(Some(place), (1, inode), handle, 1)
    }

    fn file(tree: &mut Tree, parent: DirectoryId, text: &str, state: State) {
        let entry = Entry { listed: listed(9, FileType::RegularFile), is_included: true, state, seen: 1 };
        tree.set_entry(parent, name(text), entry);
    }

    #[test]
    fn what_is_taken_out_returns_every_handle_at_and_below_it_and_leaves_no_count() {
        let mut tree = Tree::default();
        let handle = tree.new_handle();
        let root = tree.add_directory(None, (1, 1), handle, 1);
        let a = directory(&mut tree, root, "a", 2);
        let b = directory(&mut tree, a, "b", 3);
        let told = tree.new_handle();
        file(&mut tree, b, "f", State::Told(told));
        file(&mut tree, b, "g", State::Compared(7, Reason::Beyond { directories: 0, files: 1 }));
        assert_eq!(tree.path(b).unwrap().to_string(), "a/b");
        assert_eq!(tree.last_told(), Some((b, name("f"))));
        assert_eq!((tree.with_compared(), tree.missing().files), (vec![b], 1));
        assert_eq!(tree.subtree(a), [a, b]);
        let taken = tree.take_entry(root, b"a");
        assert_eq!((taken.directories.len(), taken.files), (2, vec![told]));
        assert_eq!((tree.len(), tree.missing(), tree.with_compared()), (1, Missing::default(), vec![]));
        assert_eq!((tree.path(b), tree.subject(told), tree.last_told()), (None, None, None));
    }

    #[test]
    fn directories_beyond_the_budget_count_with_what_is_below() {
        let mut tree = Tree::default();
        let handle = tree.new_handle();
        let root = tree.add_directory(None, (1, 1), handle, 1);
        let beyond = State::Compared(1, Reason::Beyond { directories: 4, files: 9 });
        let entry =
            Entry { listed: listed(5, FileType::Directory), is_included: true, state: beyond, seen: 1 };
        tree.set_entry(root, name("d"), entry);
        assert_eq!((tree.missing().directories, tree.missing().files_below), (4, 9));
        assert!(tree.take_left_news() && !tree.take_left_news());
        assert!(tree.left().map(|(id, name, _)| (id, name)).eq([(root, b"d".as_slice())]));
        tree.take_entry(root, b"d");
        assert_eq!(tree.missing(), Missing::default());
        assert!(tree.take_left_news() && tree.left().next().is_none());
    }
}
