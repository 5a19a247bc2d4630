//! Listing directories, and telling what differs from the record.
//!
//! In go the directories that have a note, out come hints, and a record that is what the disk was at the
//! listing. What changes after a listing has a note of its own, because a directory is watched before it is
//! listed, so a listing that is out of date already costs another look and loses nothing. Hints are handed out
//! after the call, when everything found has its descriptor or its fingerprint: whoever obeys them sees all that
//! happened before.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::events::push;
use super::tree::{DirectoryId, Entry, Listed, Reason, State};
use super::{Hint, KqueueBackend, RETRY, identity_in};
use crate::error::{Error, Kind, Result};
use crate::ignore::Scope;
use crate::path::RelPath;
use crate::progress::Progress;

/// A directory that took longer than this to list is left alone for a while, so that a storm of changes in a
/// huge one does not keep a processor busy; a barrier does not wait for that.
const LONG_LISTING: Duration = Duration::from_millis(2);
const REST_FACTOR: u32 = 8;
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long to count what is beyond the budget, in one call.
const LONGEST_COUNTING: Duration = Duration::from_secs(5);

/// What stands at the path of a recorded directory.
pub(super) enum Found {
    Open(OwnedFd),
    /// Nothing, or something else.
    Other,
    /// It cannot be listed at present.
    Closed,
}

type Names = Vec<(Arc<[u8]>, Listed)>;

impl KqueueBackend {
    /// Does what events left to do, then compares what has no descriptor: all of it when a barrier is to pass.
    pub(super) fn bring_up_to_date(&mut self, for_barrier: bool, hints: &mut Vec<Hint>) -> Result<()> {
        if self.place.is_gone() {
            return Ok(());
        }
        let progress = Progress::new();
        let settled = self.settle(for_barrier, &progress, hints);
        let swept = if for_barrier { self.sweep_all() } else { self.sweep_some() };
        if for_barrier && swept.is_err() {
            push(hints, Hint::Deep(RelPath::root()));
        }
        let again = if self.dirty.is_empty() { Ok(()) } else { self.settle(for_barrier, &progress, hints) };
        settled.and(swept).and(again)
    }

    /// Lists what is dirty, all of it or what is not resting, and hands out descriptors. What fails is hinted
    /// as a whole, and stays to be done.
    pub(super) fn settle(&mut self, all: bool, progress: &Progress, hints: &mut Vec<Hint>) -> Result<()> {
        let mut later = BTreeSet::new();
        let mut outcome = Ok(());
        while outcome.is_ok() && !(self.dirty.is_empty() && self.pending.is_empty()) {
            outcome = self
                .list_dirty(all, progress, &mut later, hints)
                .and_then(|()| self.watch_pending(progress, hints));
        }
        self.dirty.append(&mut later);
        outcome
    }

    /// From the root downwards, as parents have smaller numbers.
    fn list_dirty(
        &mut self,
        all: bool,
        progress: &Progress,
        later: &mut BTreeSet<DirectoryId>,
        hints: &mut Vec<Hint>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(id) = self.dirty.pop_first() {
            let is_resting = self
                .tree
                .get(id)
                .and_then(|directory| directory.rest_until)
                .is_some_and(|until| until > Instant::now());
            if later.contains(&id) || is_resting && !all {
                later.insert(id);
                continue;
            }
            if let Err(error) = progress.check() {
                self.dirty.insert(id);
                return Err(error);
            }
            match self.compare(id, hints) {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::RootUnavailable => {
                    self.dirty.insert(id);
                    return Err(error);
                }
                Err(error) => {
                    if let Some(directory) = self.tree.get_mut(id) {
                        directory.rest_until = Some(Instant::now() + RETRY);
                    }
                    if let Some(path) = self.tree.path(id) {
                        push(hints, Hint::Deep(path));
                    }
                    later.insert(id);
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Opens a recorded directory for listing.
    pub(super) fn find(&self, id: DirectoryId, path: &RelPath) -> Result<Found> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = match self.open_below(path, flags)? {
            Ok(opened) => opened,
            Err(errno) if is_other(errno) => return Ok(Found::Other),
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
                return Err(Error::io("open", &self.place.path().join(path.as_os_path()), errno));
            }
            Err(_) => return Ok(Found::Closed),
        };
        let recorded = self.tree.get(id).map(|directory| directory.identity);
        match rustix::fs::fstat(&opened) {
            Ok(stat) if Some(identity_in(&stat)) == recorded => Ok(Found::Open(opened)),
            Ok(_) => Ok(Found::Other),
            Err(_) => Ok(Found::Closed),
        }
    }

    fn compare(&mut self, id: DirectoryId, hints: &mut Vec<Hint>) -> Result<()> {
        let Some(path) = self.tree.path(id) else { return Ok(()) };
        let begun = Instant::now();
        let opened = match self.find(id, &path)? {
            Found::Open(opened) => opened,
            Found::Other => {
                self.drop_record(id, hints);
                return Ok(());
            }
            Found::Closed => {
                self.close(id, path, hints);
                return Ok(());
            }
        };
        let unlisted_since = self.tree.get(id).and_then(|directory| directory.unlisted_since);
        // Hinted as a whole, and nobody can have looked since.
        let is_hinted = unlisted_since == Some(self.round);
        if unlisted_since.is_some() {
            self.rules.forget(&path);
            if !is_hinted {
                push(hints, Hint::Deep(path.clone()));
            }
        } else {
            // What came and went since the last listing has no name here, and somebody may have stored it.
            push(hints, Hint::Changed(path.clone()));
        }
        self.listing += 1;
        let Ok((unknown, matched)) = self.list(id, &opened) else {
            self.close(id, path, hints);
            return Ok(());
        };
        self.closed.remove(&id);
        let gone = if matched == self.tree.count_entries(id) {
            Vec::new()
        } else {
            let listing = self.listing;
            self.tree.entries(id, |_, entry| entry.seen != listing)
        };
        let new_rules = self.take_gone(id, &path, &gone, hints) | self.add_rules(id, &opened, &unknown)?;
        if new_rules && unlisted_since.is_none() {
            self.follow_rules(id, hints);
            self.dirty.remove(&id);
        }
        self.rules_are_known(new_rules, &path);
        let scope = self.rules.scope(&path);
        if self.recheck.remove(&id) {
            self.apply_rules(id, &scope);
        }
        self.add_new(id, &opened, &scope, unknown, is_hinted, hints)?;
        if let Some(directory) = self.tree.get_mut(id) {
            directory.unlisted_since = None;
            let took = begun.elapsed();
            directory.rest_until =
                (took > LONG_LISTING).then(|| Instant::now() + (took * REST_FACTOR).min(LONGEST_REST));
        }
        Ok(())
    }

    /// What is cached of the rules may be older than the watch of the file that holds them.
    fn rules_are_known(&self, are_new: bool, path: &RelPath) {
        if are_new {
            self.rules.forget(path);
        }
    }

    /// A directory that is watched and cannot be listed: what is in it is not known until its mode changes.
    fn close(&mut self, id: DirectoryId, path: RelPath, hints: &mut Vec<Hint>) {
        if let Some(directory) = self.tree.get_mut(id) {
            directory.unlisted_since = None;
            directory.rest_until = None;
        }
        if self.closed.insert(id) {
            push(hints, Hint::Deep(path));
        }
    }

    /// Lists an open directory: what differs from the record, and how many entries do not.
    fn list(&mut self, id: DirectoryId, opened: &OwnedFd) -> rustix::io::Result<(Names, usize)> {
        let mut unknown = Vec::new();
        let mut matched = 0;
        for entry in Dir::read_from(opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    // Gone since: there is a note for that.
                    Err(_) => continue,
                },
                kind => kind,
            };
            let listed = Listed { inode: entry.ino(), kind };
            if self.tree.see(id, name, listed, self.listing) {
                matched += 1;
            } else {
                unknown.push((Arc::from(name), listed));
            }
        }
        Ok((unknown, matched))
    }

    /// Drops what is no longer listed as it was. True if rules went with it.
    fn take_gone(
        &mut self,
        id: DirectoryId,
        path: &RelPath,
        gone: &[(Arc<[u8]>, Entry)],
        hints: &mut Vec<Hint>,
    ) -> bool {
        let mut any_rules = false;
        for (name, entry) in gone {
            let is_dir = entry.listed.kind == FileType::Directory;
            any_rules |= !is_dir && self.rules.is_ignore_file(name);
            if entry.is_included {
                let path = path.join(name);
                if is_dir {
                    self.rules.forget(&path);
                }
                push(hints, if is_dir { Hint::Deep(path) } else { Hint::Changed(path) });
            }
            let taken = self.tree.take_entry(id, name);
            self.let_go(taken);
        }
        any_rules
    }

    /// Watches new ignore files, before anybody reads them. True if there are any.
    fn add_rules(&mut self, id: DirectoryId, opened: &OwnedFd, unknown: &Names) -> Result<bool> {
        let mut any = false;
        for (name, listed) in unknown {
            if listed.kind == FileType::Directory || !self.rules.is_ignore_file(name) {
                continue;
            }
            any = true;
            let state = State::Pending(self.round);
            let entry = Entry { listed: *listed, is_included: false, state, seen: self.listing };
            self.tree.set_entry(id, name.clone(), entry);
            self.watch_entry(id, opened, name, true);
        }
        if any {
            self.commit()?;
        }
        Ok(any)
    }

    /// Lets go of entries that the changed rules leave out, and takes note of those that they let in.
    fn apply_rules(&mut self, id: DirectoryId, scope: &Scope) {
        for (name, entry) in self.tree.entries(id, |_, _| true) {
            let is_dir = entry.listed.kind == FileType::Directory;
            let is_included = self.rules.verdict_child(scope, &name, is_dir).is_included();
            if is_included == entry.is_included {
                continue;
            }
            if is_included || !is_dir && self.rules.is_ignore_file(&name) {
                self.tree.include(id, &name, is_included);
                continue;
            }
            let taken = self.tree.take_entry(id, &name);
            self.let_go(taken);
        }
    }

    /// Hints and records what is new and let in by the rules.
    fn add_new(
        &mut self,
        id: DirectoryId,
        opened: &OwnedFd,
        scope: &Scope,
        unknown: Names,
        is_hinted: bool,
        hints: &mut Vec<Hint>,
    ) -> Result<()> {
        let mut any_directory = false;
        for (name, listed) in unknown {
            let is_dir = listed.kind == FileType::Directory;
            if !self.rules.verdict_child(scope, &name, is_dir).is_included() {
                continue;
            }
            if !is_hinted {
                let path = scope.directory().join(&name);
                push(hints, if is_dir { Hint::Deep(path) } else { Hint::Changed(path) });
            }
            if is_dir {
                self.watch_directory(id, opened, &name, listed, hints)?;
                any_directory = true;
            } else if self.tree.entry(id, &name).is_some() {
                // An ignore file, watched already.
                self.tree.include(id, &name, true);
            } else {
                let state = State::Pending(self.round);
                let entry = Entry { listed, is_included: true, state, seen: self.listing };
                self.tree.set_entry(id, name, entry);
                self.pending.insert(id);
            }
        }
        // Before anybody lists them.
        if any_directory { self.commit() } else { Ok(()) }
    }

    /// Gives descriptors to the entries that wait for one: directories have theirs by now.
    fn watch_pending(&mut self, progress: &Progress, hints: &mut Vec<Hint>) -> Result<()> {
        while let Some(id) = self.pending.pop_first() {
            let outcome = progress.check().and_then(|()| self.watch_pending_in(id, hints));
            if outcome.is_err() {
                if let Some(path) = self.tree.path(id) {
                    push(hints, Hint::Deep(path));
                }
                self.pending.insert(id);
                return outcome;
            }
        }
        self.commit()
    }

    fn watch_pending_in(&mut self, id: DirectoryId, hints: &mut Vec<Hint>) -> Result<()> {
        let Some(path) = self.tree.path(id) else { return Ok(()) };
        let opened = match self.find(id, &path)? {
            Found::Open(opened) => opened,
            Found::Other => {
                self.drop_record(id, hints);
                return Ok(());
            }
            Found::Closed => {
                self.close(id, path, hints);
                return Ok(());
            }
        };
        let waiting = self.tree.entries(id, |_, entry| matches!(entry.state, State::Pending(_)));
        for (name, entry) in waiting {
            if entry.is_included && entry.state != State::Pending(self.round) {
                push(hints, Hint::Changed(path.join(&name)));
            }
            self.watch_entry(id, &opened, &name, false);
        }
        Ok(())
    }

    /// How many directories, with itself, and files the rules let in at and below a directory that gets no
    /// descriptor. Good enough for a number in a sentence: what cannot be listed, or takes too long, does not count.
    pub(super) fn count_below(&mut self, top: &RelPath) -> Reason {
        let (mut directories, mut files) = (0, 0);
        if self.counting.0 != self.round {
            self.counting = (self.round, Instant::now() + LONGEST_COUNTING);
        }
        let Ok(root) = self.place.open() else { return Reason::Beyond { directories: 1, files: 0 } };
        let mut steps = vec![self.rules.scope_fresh(top)];
        while let Some(scope) = steps.pop() {
            directories += 1;
            if Instant::now() > self.counting.1 {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let Ok(opened) = crate::beneath::open::open(root.as_fd(), scope.directory(), flags) else {
                continue;
            };
            let is_foreign = |stat: rustix::fs::Stat| identity_in(&stat).0 != self.place.device();
            if self.one_file_system && rustix::fs::fstat(&opened).is_ok_and(is_foreign) {
                continue;
            }
            for entry in Dir::read_from(&opened).into_iter().flatten().flatten() {
                let name = entry.file_name().to_bytes();
                let is_dir = entry.file_type() == FileType::Directory;
                if matches!(name, b"." | b"..")
                    || !self.rules.verdict_child(&scope, name, is_dir).is_included()
                {
                    continue;
                }
                if is_dir {
                    steps.push(self.rules.enter_opened(&scope, name, None));
                } else {
                    files += 1;
                }
            }
        }
        Reason::Beyond { directories, files }
    }
}

/// Whether an errno of opening a directory means that another thing, or nothing, stands there. What a link is
/// answered with differs by system.
pub(super) fn is_other(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::XDEV)
}
