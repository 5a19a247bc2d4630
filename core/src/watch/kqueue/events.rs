//! What one event means: hints, and directories that have to be listed. The rules stand at the top of [`super`].

use super::kernel::{Event, Notes};
use super::tree::{DirectoryId, Subject};
use super::{Hint, KqueueBackend};

impl KqueueBackend {
    pub(super) fn take(&mut self, event: Event, hints: &mut Vec<Hint>) {
        if self.place.is_gone() {
            return;
        }
        // An event that was pending when its descriptor was let go of meets nobody.
        match self.tree.subject(event.handle).cloned() {
            Some(Subject::Directory(id)) if Some(id) == self.tree.root() => {
                self.take_root(id, event.notes, hints);
            }
            Some(Subject::Directory(id)) => self.take_directory(id, event.notes, hints),
            Some(Subject::Entry(id, name)) => self.take_entry(id, &name, event.notes, hints),
            None => {}
        }
    }

    fn take_root(&mut self, id: DirectoryId, notes: Notes, hints: &mut Vec<Hint>) {
        let may_be_lost = notes.has_any_of(Notes::DELETE | Notes::RENAME | Notes::REVOKE);
        if may_be_lost && (notes.has_any_of(Notes::REVOKE) || !self.place.is_there()) {
            self.place.lose(hints);
            return;
        }
        if notes.has_any_of(Notes::ATTRIB) {
            push(hints, Hint::Changed(crate::path::RelPath::root()));
        }
        self.dirty.insert(id);
    }

    fn take_directory(&mut self, id: DirectoryId, notes: Notes, hints: &mut Vec<Hint>) {
        if notes.has_any_of(Notes::DELETE | Notes::RENAME | Notes::REVOKE) {
            self.drop_record(id, hints);
            return;
        }
        if notes.has_any_of(Notes::ATTRIB)
            && let Some(path) = self.tree.path(id)
        {
            push(hints, Hint::Changed(path));
        }
        if notes.has_any_of(Notes::WRITE | Notes::EXTEND | Notes::LINK) || self.closed.contains(&id) {
            self.dirty.insert(id);
        }
    }

    fn take_entry(&mut self, id: DirectoryId, name: &[u8], notes: Notes, hints: &mut Vec<Hint>) {
        let Some(directory) = self.tree.path(id) else { return };
        if self.tree.entry(id, name).is_some_and(|entry| entry.is_included) {
            push(hints, Hint::Changed(directory.join(name)));
        }
        if self.rules.is_ignore_file(name) {
            self.follow_rules(id, hints);
        }
        if notes.has_any_of(Notes::DELETE | Notes::RENAME | Notes::REVOKE) {
            let taken = self.tree.take_entry(id, name);
            self.let_go(taken);
            self.dirty.insert(id);
        }
    }

    /// The record of a directory is no longer true: whatever stands in its place now is found as new.
    pub(super) fn drop_record(&mut self, id: DirectoryId, hints: &mut Vec<Hint>) {
        let Some(path) = self.tree.path(id) else { return };
        self.rules.forget(&path);
        push(hints, Hint::Deep(path));
        let place = self.tree.get(id).map(|directory| (directory.parent, directory.name.clone()));
        if let Some((Some(parent), name)) = place {
            let taken = self.tree.take_entry(parent, &name);
            self.let_go(taken);
            self.dirty.insert(parent);
        }
    }

    /// The rules in a directory changed, and with them what is let in there and below.
    pub(super) fn follow_rules(&mut self, id: DirectoryId, hints: &mut Vec<Hint>) {
        let Some(path) = self.tree.path(id) else { return };
        self.rules.forget(&path);
        push(hints, Hint::Deep(path));
        for below in self.tree.subtree(id) {
            self.dirty.insert(below);
            self.recheck.insert(below);
        }
    }
}

/// Adds a hint unless the last one says the same.
pub(super) fn push(hints: &mut Vec<Hint>, hint: Hint) {
    if hints.last() != Some(&hint) {
        hints.push(hint);
    }
}
