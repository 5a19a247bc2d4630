//! Files with several names: the first is written, the others become further names of it.

use std::sync::Arc;

use super::super::compare::{Eye, Likeness, Wanted};
use super::super::finish::Open;
use super::super::step::{Action, Step};
use super::super::target::Target;
use super::super::{Destination, Existing};
use super::Walker;
use crate::beneath::{EntryKind, Look};
use crate::error::Result;
use crate::history::directory::Node;
use crate::names::RootName;
use crate::path::RelPath;

/// Files with several names that are remembered; the other names of further ones become copies.
const MOST_LINKED: usize = 200_000;

/// A file of which other names may come.
pub(super) struct Linked {
    pub(super) path: RelPath,
    pub(super) id: git2::Oid,
    /// Where it is in the target, and what it was; missing in a dry run, and if it could not be written.
    pub(super) made: Option<(RelPath, Look)>,
    /// In which target.
    pub(super) target: Option<Arc<Target>>,
    /// It was written by this restore, so nothing else has to be asked.
    pub(super) is_ours: bool,
}

impl Walker<'_, '_> {
    pub(super) fn group_of<'n>(&self, node: &'n Node) -> Option<&'n str> {
        let record = node.record.as_ref().filter(|_| node.kind == EntryKind::File)?;
        record.hard_link.as_deref()
    }

    /// Remembers a file of which other names may come.
    pub(super) fn remember(&mut self, node: &Node, step: &Step, made: Option<(RelPath, Look)>) {
        let (Some(group), Some(entry)) = (self.group_of(node), node.entry) else { return };
        if matches!(step.action, Action::Link(_)) && self.links.contains_key(group) && made.is_none() {
            return;
        }
        if self.links.len() < MOST_LINKED || self.links.contains_key(group) {
            let linked = Linked { path: step.path.clone(), id: entry.oid, made, target: None, is_ours: true };
            self.links.insert(group.to_owned(), linked);
        }
    }

    /// Something that was not chosen, but may be the same file as something that is.
    pub(super) fn notice_neighbour(&mut self, open: &Open, node: &Node, path: &RelPath) {
        let is_in_place = matches!(self.request.destination, Destination::InPlace(_));
        if !is_in_place || self.group_of(node).is_none() {
            return;
        }
        let look = open.place().and_then(|place| place.look_at(&node.name).ok().flatten());
        if let Some(look) = look.filter(|look| look.kind == EntryKind::File) {
            self.notice(open, node, path, look, false);
        }
    }

    /// Remembers a file that stands there, unless another name of it is known.
    fn notice(&mut self, open: &Open, node: &Node, path: &RelPath, look: Look, is_ours: bool) {
        let (Some(group), Some(entry), Some(place)) = (self.group_of(node), node.entry, open.place()) else {
            return;
        };
        if self.links.contains_key(group) || self.links.len() >= MOST_LINKED {
            return;
        }
        let made = Some((place.path().join(&node.name), look));
        let target = Some(place.target().clone());
        let linked = Linked { path: path.clone(), id: entry.oid, made, target, is_ours };
        self.links.insert(group.to_owned(), linked);
    }

    /// A file that is to be written becomes another name of one that was written, if it is the same file.
    pub(super) fn or_link(
        &mut self,
        open: &Arc<Open>,
        root: &RootName,
        path: &RelPath,
        node: &Node,
        action: Action,
        standing: Option<&Look>,
    ) -> Result<Action> {
        let (Some(group), Some(entry)) = (self.group_of(node), node.entry) else { return Ok(action) };
        if action == Action::Equal && self.policies().existing != Existing::Compare {
            if let Some(look) = standing {
                // What the same restore put there before it was killed is as good as written now.
                let is_ours = self.policies().existing == Existing::Finish;
                self.notice(open, node, path, *look, is_ours);
            }
            return Ok(action);
        }
        if !matches!(action, Action::Write | Action::Replace) {
            return Ok(action);
        }
        let Some(known) = self.links.get(group) else { return Ok(action) };
        if known.id != entry.oid {
            let what = format!(
                "it is recorded as another name of {}, but has another content: it is a file of its own now",
                known.path
            );
            self.remark(root, path, what);
            return Ok(action);
        }
        let to = known.path.clone();
        if !known.is_ours && !self.is_proven(group, node)? {
            let what =
                format!("{to} stood there already: this is a file of its own now, not another name of it");
            self.remark(root, path, what);
            return Ok(action);
        }
        Ok(Action::Link(to))
    }

    /// Whether a file that stood there already may get another name: in place, if it is read and is the same file.
    fn is_proven(&mut self, group: &str, node: &Node) -> Result<bool> {
        let Some(Linked { made: Some((at, look)), target: Some(target), .. }) = self.links.get(group) else {
            return Ok(false);
        };
        if !matches!(self.request.destination, Destination::InPlace(_)) {
            return Ok(false);
        }
        let (at, look, target) = (at.clone(), *look, target.clone());
        let Some(entry) = node.entry else { return Ok(false) };
        let found = self.reader.find(entry.oid)?;
        let mode = node.record.as_ref().map_or(look.mode, |record| record.mode);
        let wanted = Wanted { kind: node.kind, found: Some(&found), record: node.record.as_ref(), mode };
        let eye = Eye { owners: &self.owners, as_root: self.as_root, reads: true, progress: self.progress };
        let place = target.place(at.parent().unwrap_or_default());
        let name = at.file_name().unwrap_or_default();
        let is_same = eye.compare(&mut self.reader, &place, name, &look, &wanted)? == Likeness::Same;
        if let Some(known) = self.links.get_mut(group) {
            known.is_ours = is_same;
        }
        Ok(is_same)
    }
}
