//! One step of a restore, as it is planned, shown and done.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::beneath::EntryKind;
use crate::names::RootName;
use crate::path::{RelPath, lossy};

/// What happens to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is made where nothing stands.
    Write,
    /// It takes the place of what stands there.
    Replace,
    /// It becomes another name of this path of the same root.
    Link(RelPath),
    /// Its content is right; it gets its metadata.
    Adjust,
    /// It is as it should be.
    Equal,
    /// It differs and the policy says to leave it.
    Leave,
    /// It is not in the snapshot and is removed.
    Delete,
    /// It is not in the snapshot, and not in any backup either.
    KeepExcluded,
    /// It is a special file, which was not asked for.
    SkipSpecial,
    /// It cannot be restored, for this reason.
    Conflict(String),
}

impl Action {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Action::Write => "write",
            Action::Replace => "replace",
            Action::Link(_) => "link",
            Action::Adjust => "metadata",
            Action::Equal => "equal",
            Action::Leave => "leave",
            Action::Delete => "delete",
            Action::KeepExcluded => "excluded",
            Action::SkipSpecial => "skip",
            Action::Conflict(_) => "conflict",
        }
    }

    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        matches!(self, Action::Write | Action::Replace | Action::Link(_) | Action::Adjust | Action::Delete)
    }
}

/// What happens to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The root.
    pub root: RootName,
    /// The path in it; empty for the root itself.
    pub path: RelPath,
    /// What it is in the snapshot; of a deletion, what stands there.
    pub kind: EntryKind,
    /// What happens.
    pub action: Action,
    /// Bytes of content that are written.
    pub bytes: u64,
}

impl Step {
    /// `<root>/path`, lossy.
    pub fn shown(&self) -> String {
        shown(&self.root, &self.path)
    }
}

/// `<root>/path`, lossy.
pub fn shown(root: &RootName, path: &RelPath) -> String {
    if path.is_root() { root.to_string() } else { format!("{root}/{}", lossy(path.as_bytes())) }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.kind == EntryKind::Directory { "/" } else { "" };
        write!(f, "{:<9}{}{slash}", self.action.word(), self.shown())?;
        match &self.action {
            Action::Link(to) => write!(f, " -> {}", shown(&self.root, to)),
            Action::Conflict(why) => write!(f, ": {why}"),
            _ => Ok(()),
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        let named = super::report::Named::new(&self.root, &self.path, "");
        map.serialize_entry("action", self.action.word())?;
        map.serialize_entry("path", &named.path)?;
        if let Some(exact) = &named.path_b64 {
            map.serialize_entry("path_b64", exact)?;
        }
        map.serialize_entry("kind", self.kind.as_str())?;
        if self.bytes > 0 {
            map.serialize_entry("bytes", &self.bytes)?;
        }
        match &self.action {
            Action::Link(to) => map.serialize_entry("to", &shown(&self.root, to))?,
            Action::Conflict(why) => map.serialize_entry("reason", why)?,
            _ => {}
        }
        map.end()
    }
}
