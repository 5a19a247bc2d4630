//! What becomes of a directory itself: made, kept, dressed, or in the way.

use std::sync::Arc;

use super::super::Existing;
use super::super::compare::{Eye, Wanted};
use super::super::finish::{Finish, Open};
use super::super::hands::{concerns_everybody, os_error};
use super::super::step::Action;
use super::super::target::{Place, Placed};
use super::Walker;
use crate::beneath::{EntryKind, Look};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::names::RootName;
use crate::path::RelPath;

impl Walker<'_, '_> {
    pub(super) fn make_way_for_directory(
        &mut self,
        above: &Arc<Open>,
        root: &RootName,
        path: &RelPath,
        name: &[u8],
        look: &Look,
    ) -> Result<bool> {
        if !self.policies().replace_kinds || self.policies().existing == Existing::Compare {
            let why = "something that is no directory stands where one is needed, so neither it nor anything below it is \
                       restored (--overwrite=always replaces it)";
            self.conflict(root, path, EntryKind::Directory, why)?;
            return Ok(false);
        }
        if !self.is_saved(root, path, false) {
            self.conflict(root, path, EntryKind::Directory, super::leaves::UNSAVED)?;
            return Ok(false);
        }
        let step = self.step(root, path, look.kind, Action::Delete);
        self.tell(&step)?;
        if let (false, Some(place)) = (self.is_dry(), above.place()) {
            match place.remove(name, look) {
                Ok(Placed::Done) => {}
                Ok(Placed::Occupied) => {
                    self.problem(
                        root,
                        path,
                        "somebody changed what stands there meanwhile; nothing was touched",
                    );
                    return Ok(false);
                }
                Err(error) => {
                    self.problem(root, path, error.to_string());
                    return Ok(false);
                }
            }
        }
        self.count(&step);
        Ok(true)
    }

    /// Decides about the directory itself. `false` if nothing in it can be restored.
    pub(super) fn own_directory(
        &mut self,
        open: &Arc<Open>,
        finish: Finish,
        is_covered: bool,
    ) -> Result<bool> {
        let policies = self.policies();
        let (existing, is_there) = (policies.existing, open.place().is_some());
        if open.is_new() && is_covered {
            // A root's own directory in place, made just now.
            let step = self.step(&open.root, &open.path, EntryKind::Directory, Action::Write);
            self.done(&step)?;
            open.dress_with(finish);
            return Ok(true);
        }
        if !is_there {
            open.dress_with(finish);
            return if is_covered { self.ensure(open) } else { Ok(true) };
        }
        if !is_covered {
            return Ok(true);
        }
        let look = match open.place().map(Place::look) {
            Some(look) => look?,
            None => return Ok(true),
        };
        let eye = Eye { owners: &self.owners, as_root: self.as_root, reads: false, progress: self.progress };
        let wanted = Wanted {
            kind: EntryKind::Directory,
            found: None,
            record: finish.record.as_ref(),
            mode: finish.mode,
        };
        let is_dressed = eye.is_dressed(&look, &wanted);
        let action = match (existing, is_dressed) {
            (_, true) | (Existing::Finish, _) => Action::Equal,
            (Existing::Never, _) => Action::Leave,
            (Existing::Changed | Existing::Always, _) => Action::Adjust,
            (Existing::Compare, _) => {
                if look.mode == finish.mode || self.is_mode_excused(finish.mode, look.mode) {
                    // The time of a directory moves whenever somebody makes a file in it.
                    Action::Equal
                } else {
                    Action::Conflict(format!(
                        "its mode is {:04o} and should be {:04o}",
                        look.mode, finish.mode
                    ))
                }
            }
        };
        let step = self.step(&open.root, &open.path, EntryKind::Directory, action);
        self.done(&step)?;
        if matches!(existing, Existing::Changed | Existing::Always | Existing::Finish) {
            open.dress_with(finish);
        }
        Ok(true)
    }

    fn is_mode_excused(&self, wanted: u32, found: u32) -> bool {
        (wanted ^ found) & 0o1777 == 0
    }

    /// Makes the directory, and those above it that wait for it, as far as they are not there. `false` if that is
    /// impossible; it is told.
    pub(super) fn ensure(&mut self, open: &Arc<Open>) -> Result<bool> {
        let mut missing = Vec::new();
        let mut at = Some(open);
        while let Some(open) = at.filter(|open| !open.is_there()) {
            missing.push(open.clone());
            at = open.above();
        }
        for open in missing.into_iter().rev() {
            if self.policies().existing == Existing::Compare {
                self.conflict(&open.root, &open.path, EntryKind::Directory, "it is not there")?;
                return Ok(false);
            }
            let step = self.step(&open.root, &open.path, EntryKind::Directory, Action::Write);
            self.tell(&step)?;
            let made = match (self.is_dry(), open.above().and_then(|above| above.place())) {
                (true, _) => None,
                (false, None) => {
                    return Err(Error::new(
                        Kind::Internal,
                        "a directory was to be made in one that is not there",
                    ));
                }
                (false, Some(place)) => {
                    let name = match open.path.file_name() {
                        Some(name) => name,
                        None => open.root.as_str().as_bytes(),
                    };
                    let above = open.above().cloned();
                    let mut made = place.make_directory(name);
                    if let (Err(error), Some(above)) = (&made, &above)
                        && os_error(error) == Some(rustix::io::Errno::ACCESS)
                        && above.open_up().unwrap_or(false)
                    {
                        made = place.make_directory(name);
                    }
                    match made {
                        Ok(place) => Some(place),
                        Err(error) if concerns_everybody(&error) => return Err(error),
                        Err(error) => {
                            let why = format!("neither it nor anything below it is restored: {error}");
                            self.problem(&open.root, &open.path, why);
                            drop(above);
                            return Ok(false);
                        }
                    }
                }
            };
            open.made(made);
            fault::point("restore:directory-made");
            self.count(&step);
        }
        Ok(true)
    }
}
