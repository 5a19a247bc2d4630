//! What the snapshot does not have, and is to go because that was asked for.
//!
//! Deepest first, each path a step of its own. Never removed are what is excluded from the backup, what was mounted
//! there, directories that hold either, and what is not what it was when it was looked at.

use std::os::unix::ffi::OsStrExt;

use super::selection::Chosen;
use super::step::Action;
use super::target::{Place, Placed, is_directory};
use super::walk::Walker;
use crate::beneath::{EntryKind, Look};
use crate::error::Result;
use crate::names::RootName;
use crate::path::RelPath;

/// A directory that is being emptied.
struct Emptying {
    place: Place,
    path: RelPath,
    names: std::vec::IntoIter<std::ffi::OsString>,
    /// Something in it stays.
    keeps: bool,
}

impl Emptying {
    fn of(place: &Place, name: &[u8], path: RelPath) -> Result<Self> {
        let place = place.enter(name)?;
        let names = place.names()?.into_iter();
        Ok(Self { place, path, names, keeps: false })
    }
}

impl Walker<'_, '_> {
    /// Removes `name` of `place`, whose path in the root is `path`, and everything below it, as far as it is chosen.
    /// Whether nothing of it is left (or would be).
    pub(super) fn remove_tree(
        &mut self,
        root: &RootName,
        place: &Place,
        name: &[u8],
        path: &RelPath,
        chosen: Option<&Chosen>,
    ) -> Result<bool> {
        let Some(look) = place.look_at(name)? else { return Ok(true) };
        if !is_directory(&look) || !self.may_go(root, path, &look)? {
            return self.remove_leaf(root, place, name, path, &look, chosen);
        }
        let mut stack = vec![Emptying::of(place, name, path.clone())?];
        loop {
            self.check()?;
            let Some(top) = stack.last_mut() else { return Ok(true) };
            if let Some(next) = top.names.next() {
                let next = next.as_bytes();
                let below = top.path.join(next);
                let Some(look) = top.place.look_at(next)? else { continue };
                if is_directory(&look) && self.may_go(root, &below, &look)? {
                    let inner = Emptying::of(&top.place, next, below)?;
                    stack.push(inner);
                } else if !self.remove_leaf(root, &top.place, next, &below, &look, chosen)? {
                    top.keeps = true;
                }
                continue;
            }
            let Some(Emptying { path: emptied, keeps, .. }) = stack.pop() else { return Ok(true) };
            let is_chosen = chosen.is_none_or(|chosen| chosen.covers(&emptied, true));
            let mut is_gone = !keeps && is_chosen;
            if is_gone {
                let holder = stack.last().map_or(place, |above| &above.place);
                is_gone = self.remove_emptied(root, holder, &emptied)?;
            }
            match stack.last_mut() {
                Some(above) => above.keeps |= !is_gone,
                None => return Ok(is_gone),
            }
        }
    }

    /// Whether a path may be removed at all.
    fn may_go(&self, root: &RootName, path: &RelPath, look: &Look) -> Result<bool> {
        let rules = self.policies().excluded.get(root);
        let is_excluded = rules.is_some_and(|rules| !rules.verdict(path, is_directory(look)).is_included());
        Ok(!is_excluded && !look.is_mount && self.is_saved(root, path, is_directory(look)))
    }

    /// Removes something that is no directory; a directory comes here only to be told that it stays.
    fn remove_leaf(
        &mut self,
        root: &RootName,
        place: &Place,
        name: &[u8],
        path: &RelPath,
        look: &Look,
        chosen: Option<&Chosen>,
    ) -> Result<bool> {
        if chosen.is_some_and(|chosen| !chosen.covers(path, false)) {
            return Ok(false);
        }
        if !self.may_go(root, path, look)? {
            let step = self.step(root, path, look.kind, Action::KeepExcluded);
            self.done(&step)?;
            return Ok(false);
        }
        let step = self.step(root, path, look.kind, Action::Delete);
        self.tell(&step)?;
        let outcome = if self.is_dry() { Ok(Placed::Done) } else { place.remove(name, look) };
        match outcome {
            Ok(Placed::Done) => {
                self.count(&step);
                return Ok(true);
            }
            Ok(Placed::Occupied) => {
                self.problem(root, path, "it is not removed: somebody changed it meanwhile");
            }
            Err(error) => self.problem(root, path, error.to_string()),
        }
        Ok(false)
    }

    fn remove_emptied(&mut self, root: &RootName, holder: &Place, path: &RelPath) -> Result<bool> {
        let step = self.step(root, path, EntryKind::Directory, Action::Delete);
        self.tell(&step)?;
        let name = path.file_name().unwrap_or_default();
        let outcome = if self.is_dry() { Ok(true) } else { holder.remove_directory(name) };
        match outcome {
            Ok(true) => {
                self.count(&step);
                return Ok(true);
            }
            Ok(false) => {
                self.problem(root, path, "it is not removed: somebody put something into it meanwhile");
            }
            Err(error) => self.problem(root, path, error.to_string()),
        }
        Ok(false)
    }
}
