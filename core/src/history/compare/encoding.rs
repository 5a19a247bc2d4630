//! Whether two snapshots hold the same content in the same way. Where the encryption changed between them, neither Git's
//! names of contents nor, with another key, the recorded checksums tell whether a file is the same.
//!
//! In: both trees, then both records of a file. Out: the answer as far as the records give one: with the same key by the
//! checksum, else by size and modification time.

use git2::Oid;

use super::fields::Fields;
use crate::crypt::policy::Policy;
use crate::error::Result;
use crate::git::objects::ObjectDatabase;
use crate::metadata::Record;

/// How the contents of two snapshots differ in form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// They do not.
    Same,
    /// Other files are encrypted, with the same key; or the same content gives another OpenPGP message each time.
    OtherFiles,
    /// The key is another, or only one is encrypted.
    OtherKey,
}

impl Encoding {
    pub(super) fn between(objects: &ObjectDatabase<'_>, old: Oid, new: Oid) -> Result<Self> {
        let (old, new) = (Policy::of_tree(objects, old)?, Policy::of_tree(objects, new)?);
        let key = |policy: &Option<Policy>| policy.as_ref().map(|policy| policy.key.clone());
        let is_other_each_time = new.as_ref().is_some_and(|new| new.cipher.is_open_pgp());
        Ok(if old == new && !is_other_each_time {
            Self::Same
        } else if key(&old) == key(&new) {
            Self::OtherFiles
        } else {
            Self::OtherKey
        })
    }

    /// Takes back what only seems to have changed.
    pub(super) fn settle(self, fields: &mut Fields, old: Option<&Record>, new: Option<&Record>) {
        if self == Self::OtherKey
            && let (Some(old), Some(new)) = (old, new)
        {
            fields.content = old.size != new.size;
        }
    }

    /// Whether a file of which Git holds different objects has the same content all the same.
    pub(super) fn is_same_content(self, old: Option<&Record>, new: Option<&Record>) -> bool {
        match (self, old, new) {
            (Self::Same, ..) => false,
            (Self::OtherFiles, Some(old), Some(new)) => {
                old.blake3.is_some() && (old.size, old.blake3) == (new.size, new.blake3)
            }
            // Records that are the same are not read.
            (Self::OtherFiles, None, None) => true,
            (Self::OtherKey, Some(old), Some(new)) => {
                old.size.is_some() && (old.size, old.mtime) == (new.size, new.mtime)
            }
            _ => false,
        }
    }
}
