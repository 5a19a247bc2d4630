//! Which parts of a record changed.

use crate::metadata::Record;

/// Parts of two records of one path that are not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// Permissions, or Git's executable bit.
    pub mode: bool,
    /// Owner or group, by number or name.
    pub owner: bool,
    /// Modification time.
    pub mtime: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Which other names the file has.
    pub links: bool,
    /// Device numbers, or that a file system was mounted here.
    pub device: bool,
    /// Size or checksum, though Git holds the same: one of the records is wrong.
    pub content: bool,
}

impl Fields {
    /// Of two records; none if one of them is missing.
    pub fn between(old: Option<&Record>, new: Option<&Record>) -> Self {
        let (Some(old), Some(new)) = (old, new) else { return Self::default() };
        let owner = |record: &Record| (record.uid, record.gid, record.user.clone(), record.group.clone());
        Self {
            mode: old.mode != new.mode,
            owner: owner(old) != owner(new),
            mtime: old.mtime != new.mtime,
            xattrs: old.xattrs != new.xattrs || old.xattrs_omitted != new.xattrs_omitted,
            links: old.hard_link != new.hard_link,
            device: old.device != new.device || old.is_mount != new.is_mount,
            content: (old.size, old.blake3) != (new.size, new.blake3),
        }
    }

    /// Whether any changed.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Their names, for people and programs.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.mode, "mode"),
            (self.owner, "owner"),
            (self.mtime, "mtime"),
            (self.xattrs, "xattrs"),
            (self.links, "links"),
            (self.device, "device"),
            (self.content, "checksum"),
        ];
        all.into_iter().filter(|(changed, _)| *changed).map(|(_, name)| name)
    }
}
