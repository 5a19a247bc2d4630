//! What one event means: hints, and changes of the bookkeeping. The rules stand at the top of [`super`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use inotify::{Event, EventMask};

use super::table::Watch;
use super::walk::key_of;
use super::{Hint, InotifyBackend};
use crate::error::Result;
use crate::ignore::Scope;
use crate::path::RelPath;

impl InotifyBackend {
    pub(super) fn take(&mut self, event: &Event<&OsStr>, hints: &mut Vec<Hint>) -> Result<()> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.overflows += 1;
            self.resync_needed = true;
            push(hints, Hint::Overflow);
            hints.extend(self.sentinel.all_passed().into_iter().map(Hint::Barrier));
            return Ok(());
        }
        let watch = event.wd.get_watch_descriptor_id();
        if Some(watch) == self.sentinel_watch {
            self.take_sentinel(event, hints);
            return Ok(());
        }
        if self.place.is_gone() {
            return Ok(());
        }
        match event.name {
            None => self.take_own(watch, event.mask, hints),
            Some(name) => {
                let Some(scope) = self.scope_of(watch) else { return Ok(()) };
                let entry = Named { parent: watch, scope, name: name.as_bytes(), cookie: event.cookie };
                return self.take_named(&entry, event.mask, hints);
            }
        }
        Ok(())
    }

    fn take_sentinel(&mut self, event: &Event<&OsStr>, hints: &mut Vec<Hint>) {
        if let Some(name) = event.name {
            hints.extend(self.sentinel.passed(name.as_bytes()).into_iter().map(Hint::Barrier));
        } else if event.mask.contains(EventMask::MOVE_SELF) {
            // The kernel answers with IGNORED.
            self.unwatch([event.wd.get_watch_descriptor_id()]);
        } else if event.mask.contains(EventMask::IGNORED) {
            self.sentinel_watch = None;
        }
    }

    /// An event of a watched directory itself.
    fn take_own(&mut self, watch: Watch, mask: EventMask, hints: &mut Vec<Hint>) {
        let lost = EventMask::IGNORED | EventMask::UNMOUNT | EventMask::DELETE_SELF;
        if Some(watch) == self.root_watch {
            if mask.intersects(lost | EventMask::MOVE_SELF) {
                self.place.lose(hints);
            } else {
                push(hints, Hint::Changed(RelPath::root()));
            }
            return;
        }
        let Some(path) = self.table.path(watch) else {
            if mask.contains(EventMask::IGNORED) {
                self.forget_watch(watch);
            }
            return;
        };
        if mask.contains(EventMask::ATTRIB) {
            push(hints, Hint::Changed(path));
        } else if mask.contains(EventMask::UNMOUNT) {
            self.rules.forget(&path);
            push(hints, Hint::Deep(path));
        } else if mask.contains(EventMask::IGNORED) {
            self.forget_watch(watch);
        }
    }

    fn take_named(&mut self, entry: &Named<'_>, mask: EventMask, hints: &mut Vec<Hint>) -> Result<()> {
        let is_dir = mask.contains(EventMask::ISDIR);
        let included = self.rules.verdict_child(&entry.scope, entry.name, is_dir).is_included();
        if self.rules.is_ignore_file(entry.name) {
            let directory = entry.scope.directory().clone();
            self.here = None;
            self.rules.forget(&directory);
            push(hints, Hint::Deep(directory.clone()));
            self.changed_rules.insert(directory);
            if !is_dir {
                return Ok(());
            }
        }
        if !is_dir {
            if included {
                push(hints, Hint::Changed(entry.path()));
            }
            return Ok(());
        }
        self.take_directory(entry, mask, included, hints)
    }

    fn take_directory(
        &mut self,
        entry: &Named<'_>,
        mask: EventMask,
        included: bool,
        hints: &mut Vec<Hint>,
    ) -> Result<()> {
        let path = entry.path();
        let watched = self.table.child(entry.parent, entry.name);
        if mask.contains(EventMask::MOVED_FROM) {
            self.here = None;
            self.rules.forget(&path);
            self.leave_nothing_within(&path);
            if let Some(watch) = watched {
                self.table.detach(watch);
                self.leaving.insert(entry.cookie, (watch, self.round));
            }
            if included {
                push(hints, Hint::Deep(path));
            }
            return Ok(());
        }
        if mask.contains(EventMask::DELETE) {
            self.rules.forget(&path);
            self.exhausted.remove(&key_of(&path));
            self.unreadable.remove(&key_of(&path));
            self.leave_nothing_within(&path);
            if let Some(watch) = watched {
                self.forget_watch(watch);
            }
            if included {
                push(hints, Hint::Changed(path));
            }
            return Ok(());
        }
        if !included {
            return Ok(());
        }
        if mask.contains(EventMask::MOVED_TO) {
            self.here = None;
            self.rules.forget(&path);
            if let Some((watch, _)) = self.leaving.remove(&entry.cookie) {
                let (_, evicted) = self.table.place(watch, entry.parent, entry.name, self.walk);
                if let Some(evicted) = evicted {
                    self.forget_watch(evicted);
                }
            }
            push(hints, Hint::Deep(path));
            return self.walk_below(entry);
        }
        // Made, or its mode changed: perhaps it can be read only now. One that is watched was listed then.
        if watched.is_none() {
            push(hints, Hint::Deep(path));
            return self.walk_below(entry);
        }
        push(hints, Hint::Changed(path));
        Ok(())
    }

    fn walk_below(&mut self, entry: &Named<'_>) -> Result<()> {
        let walked = self.walk_directory(entry.parent, &entry.scope, entry.name);
        self.resync_needed |= walked.is_err();
        walked
    }

    /// Drops the bookkeeping of a directory that is no longer there, and the watches at and below it.
    fn forget_watch(&mut self, watch: Watch) {
        self.here = None;
        let removed = self.table.remove(watch);
        self.unwatch(removed);
    }

    /// The scope of a watched directory.
    fn scope_of(&mut self, watch: Watch) -> Option<Scope> {
        if let Some((at, scope)) = &self.here
            && *at == watch
        {
            return Some(scope.clone());
        }
        let scope = self.rules.scope(&self.table.path(watch)?);
        self.here = Some((watch, scope.clone()));
        Some(scope)
    }
}

/// An entry of a watched directory that an event is about.
pub(super) struct Named<'a> {
    parent: Watch,
    scope: Scope,
    name: &'a [u8],
    cookie: u32,
}

impl Named<'_> {
    fn path(&self) -> RelPath {
        self.scope.directory().join(self.name)
    }
}

/// Adds a hint unless the last one says the same: one write makes several events in a row.
fn push(hints: &mut Vec<Hint>, hint: Hint) {
    if hints.last() != Some(&hint) {
        hints.push(hint);
    }
}
