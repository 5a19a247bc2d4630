//! Files with several names: the first is written, the others become further names of it.

use std::sync::Arc;

use super::super::Existing;
use super::super::finish::Open;
use super::super::step::{Action, Step};
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
            let linked = Linked { path: step.path.clone(), id: entry.oid, made, is_ours: true };
            self.links.insert(group.to_owned(), linked);
        }
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
            if let (Some(look), Some(place)) = (standing, open.place())
                && !self.links.contains_key(group)
                && self.links.len() < MOST_LINKED
            {
                let made = Some((place.path().join(&node.name), *look));
                // What the same restore put there before it was killed is as good as written now.
                let is_ours = self.policies().existing == Existing::Finish;
                let linked = Linked { path: path.clone(), id: entry.oid, made, is_ours };
                self.links.insert(group.to_owned(), linked);
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
        if !known.is_ours {
            let what = format!(
                "{} stood there already: this is a file of its own now, not another name of it",
                known.path
            );
            self.remark(root, path, what);
            return Ok(action);
        }
        Ok(Action::Link(known.path.clone()))
    }
}
