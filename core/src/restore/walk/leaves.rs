//! What becomes of everything that is no directory: decided here, done by the hands.

use std::sync::Arc;

use super::super::Existing;
use super::super::compare::{Eye, Likeness, Wanted};
use super::super::content::stands_in;
use super::super::finish::Open;
use super::super::hands::{Job, Work, mode_without_record};
use super::super::selection::Chosen;
use super::super::step::{Action, Step};
use super::super::target::{Place, is_directory};
use super::Walker;
use crate::beneath::{EntryKind, Look};
use crate::error::{Error, Kind, Result};
use crate::git::contents::{Found, Proof, Recorded};
use crate::history::directory::Node;
use crate::metadata::Record;
use crate::names::RootName;
use crate::path::RelPath;
use crate::tree::MODE_EXECUTABLE;

/// Why something in place is left alone.
pub(super) const UNSAVED: &str = "what stands there now is in no backup (it is excluded, or could not be read), so it is \
                                  not touched; restore the file elsewhere with --to";

/// Where something stands, or is wanted.
struct Spot<'s> {
    root: &'s RootName,
    place: &'s Place,
    name: &'s [u8],
    path: &'s RelPath,
    chosen: &'s Chosen,
}

impl Walker<'_, '_> {
    /// Decides about everything that is no directory.
    pub(super) fn leaf(
        &mut self,
        open: &Arc<Open>,
        node: &Node,
        path: &RelPath,
        stands: bool,
        chosen: &Chosen,
    ) -> Result<()> {
        let root = open.root.clone();
        if !node.kind.has_content() && !self.policies().specials {
            let step = self.step(&root, path, node.kind, Action::SkipSpecial);
            return self.done(&step);
        }
        let found = match node.entry {
            Some(entry) => {
                let size = node.record.as_ref().filter(|_| self.policies().contents_elsewhere);
                let found = self.reader.find_or_believe(entry.oid, size.and_then(|record| record.size))?;
                Some(self.behind(&root, path, node, found)?)
            }
            None => None,
        };
        let is_executable = node.entry.is_some_and(|entry| entry.mode == MODE_EXECUTABLE);
        let mode =
            node.record.as_ref().map_or(mode_without_record(is_executable, false), |record| record.mode);
        let file = found.as_ref().filter(|_| node.kind == EntryKind::File);
        let (size, most) = file.map_or((0, 0), |found| (found.size, found.most()));
        // What is outside the repository was not blown up out of it.
        if found.as_ref().is_some_and(|found| found.pointer().is_none()) {
            self.bytes = self.bytes.saturating_add(most);
        }
        if let (EntryKind::File, Some(found)) = (node.kind, &found)
            && let Some(why) = self.stands_in(found, node.record.as_ref())?
        {
            return self.conflict(&root, path, node.kind, why);
        }
        let standing = match open.place() {
            Some(place) if stands => place.look_at(&node.name)?,
            _ => None,
        };
        let wanted = Wanted { kind: node.kind, found: found.as_ref(), record: node.record.as_ref(), mode };
        let (action, over) = match (&standing, open.place()) {
            (Some(look), Some(place)) => {
                let spot = Spot { root: &root, place, name: &node.name, path, chosen };
                match self.decide(&spot, look, &wanted)? {
                    Some(decided) => decided,
                    None => return Ok(()),
                }
            }
            _ if self.policies().existing == Existing::Compare => {
                (Action::Conflict("it is not there".to_owned()), None)
            }
            _ => (Action::Write, None),
        };
        let action = self.or_link(open, &root, path, node, action, standing.as_ref())?;
        let writes = matches!(action, Action::Write | Action::Replace);
        let reads = self.policies().existing == Existing::Compare && action == Action::Equal;
        let step = Step {
            bytes: if writes || reads { size } else { 0 },
            ..self.step(&root, path, node.kind, action)
        };
        if writes {
            let freed = over.map_or(0, |look: Look| if look.links == 1 { look.size } else { 0 });
            self.grows = self.grows.saturating_add(most.saturating_sub(freed));
        }
        if !step.action.is_change() {
            return self.done(&step);
        }
        if !self.ensure(open)? {
            return Ok(());
        }
        self.tell(&step)?;
        self.take(open, node, step, found, over, mode)
    }

    /// What a file holds, where its blob only points at it or is a ciphertext.
    fn behind(&mut self, root: &RootName, path: &RelPath, node: &Node, found: Found) -> Result<Found> {
        if node.kind != EntryKind::File || self.policies().raw || found.is_believed() {
            return Ok(found);
        }
        let same = found.clone();
        let seal = self.reader.contents().seal_of(&path.to_git_path(root));
        let recorded = Recorded::by(node.record.as_ref());
        let behind = self.reader.behind(found, seal, recorded, self.progress)?;
        // What nobody has is told as what the repository holds instead.
        if self.reader.can_be_had(&behind)? { Ok(behind) } else { Ok(same) }
    }

    /// Gives a decided step to the hands.
    fn take(
        &mut self,
        open: &Arc<Open>,
        node: &Node,
        step: Step,
        found: Option<Found>,
        over: Option<Look>,
        mode: u32,
    ) -> Result<()> {
        let Some(hands) = self.hands else {
            if !matches!(step.action, Action::Adjust) {
                self.remember(node, &step, None);
            }
            self.report.count(&step);
            return Ok(());
        };
        let group = self.group_of(node).map(str::to_owned);
        let work = match (&step.action, found) {
            (Action::Adjust, _) => match over {
                Some(look) => Work::Adjust(look),
                None => return Err(Error::new(Kind::Internal, "nothing stands there to adjust")),
            },
            (Action::Link(_), Some(found)) => {
                let made = group
                    .as_ref()
                    .and_then(|group| self.links.get(group))
                    .and_then(|known| known.made.clone());
                match made {
                    Some((at, look)) => Work::Link(at, look),
                    // The first of them could not be written: this is the first then.
                    None => Work::File(found),
                }
            }
            (_, Some(found)) if node.kind == EntryKind::Symlink => Work::Symlink(found),
            (_, Some(found)) => Work::File(found),
            (_, None) => Work::Special,
        };
        let is_first = group.is_some() && matches!(work, Work::File(_));
        let over = over.filter(|_| !matches!(work, Work::Adjust(_)));
        let at = open.place().map(|place| place.path().join(&node.name));
        let job = Job {
            open: open.clone(),
            name: node.name.clone(),
            step,
            work,
            over,
            record: node.record.clone(),
            mode,
        };
        if !is_first {
            return hands.submit(job);
        }
        hands.check()?;
        let step = job.step.clone();
        let made = hands.work(&mut self.reader, job).zip(at).map(|(look, at)| (at, look));
        self.remember(node, &step, made);
        Ok(())
    }

    /// What a blob holds instead of the file, if that can be told before all of it is read.
    fn stands_in(&mut self, found: &Found, record: Option<&Record>) -> Result<Option<&'static str>> {
        let is_suspicious = match record {
            Some(record) => record.size != Some(found.size),
            None => true,
        };
        if self.policies().raw || !is_suspicious || found.is_led_to() {
            return Ok(None);
        }
        let beginning = self.reader.beginning(found, self.progress)?;
        let proof = Proof { blake3: [0; 32], size: found.size, beginning };
        Ok(stands_in(&proof, record, false))
    }

    /// Decides about something that stands where a file, a link or a special file is wanted. `None` if nothing is to be
    /// done any more.
    fn decide(
        &mut self,
        spot: &Spot<'_>,
        look: &Look,
        wanted: &Wanted<'_>,
    ) -> Result<Option<(Action, Option<Look>)>> {
        let existing = self.policies().existing;
        if is_directory(look) {
            if existing != Existing::Compare && self.policies().replace_kinds {
                return self.make_way_for_leaf(spot);
            }
            let why = "a directory stands where something else is needed (--overwrite=always replaces it if it is empty, with \
                       --delete also otherwise)";
            return Ok(Some((Action::Conflict(why.to_owned()), None)));
        }
        if existing == Existing::Always {
            return Ok(Some((self.unless_unsaved(spot, Action::Replace), Some(*look))));
        }
        let eye = Eye {
            owners: &self.owners,
            as_root: self.as_root,
            reads: existing == Existing::Compare,
            progress: self.progress,
        };
        let likeness = eye.compare(&mut self.reader, spot.place, spot.name, look, wanted)?;
        let action = match (existing, likeness) {
            (Existing::Finish, Likeness::Same | Likeness::SameContent) | (_, Likeness::Same) => Action::Equal,
            (Existing::Never, _) => Action::Leave,
            (Existing::Finish, Likeness::Different) => Action::Conflict(
                "something else stands there, which this restore did not put there".to_owned(),
            ),
            (Existing::Compare, Likeness::SameContent) => {
                let is_excused = (look.mode ^ wanted.mode) & 0o1777 == 0 || look.kind == EntryKind::Symlink;
                if is_excused {
                    Action::Equal
                } else {
                    let why = format!("its mode is {:04o} and should be {:04o}", look.mode, wanted.mode);
                    Action::Conflict(why)
                }
            }
            (Existing::Compare, _) => {
                Action::Conflict("what is on the disk is not what the snapshot holds".to_owned())
            }
            (_, Likeness::SameContent) if look.kind == EntryKind::File && look.links == 1 => Action::Adjust,
            _ => Action::Replace,
        };
        Ok(Some((self.unless_unsaved(spot, action), Some(*look))))
    }

    /// What stands there now and is in no backup is not replaced where the user works.
    fn unless_unsaved(&self, spot: &Spot<'_>, action: Action) -> Action {
        if action != Action::Replace || self.is_saved(spot.root, spot.path, false) {
            return action;
        }
        Action::Conflict(UNSAVED.to_owned())
    }

    fn make_way_for_leaf(&mut self, spot: &Spot<'_>) -> Result<Option<(Action, Option<Look>)>> {
        let is_empty = spot.place.enter(spot.name)?.names()?.is_empty();
        if !is_empty && !self.policies().delete {
            let why =
                "a directory that is not empty stands where something else is needed (--delete removes it)";
            return Ok(Some((Action::Conflict(why.to_owned()), None)));
        }
        // Who takes back what was touched leaves alone what was not.
        let limit = matches!(spot.chosen, Chosen::Exactly(_)).then_some(spot.chosen);
        if self.remove_tree(spot.root, spot.place, spot.name, spot.path, limit)? {
            return Ok(Some((Action::Write, None)));
        }
        let why = "a directory stands there that holds what is excluded from the backup, or what was put there later";
        Ok(Some((Action::Conflict(why.to_owned()), None)))
    }
}
