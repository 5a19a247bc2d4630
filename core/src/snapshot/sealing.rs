//! What a tree says of its own encryption, in clear text: the policy and the topmost `.gitattributes`.

use git2::{ObjectType, Oid};

use super::ATTRIBUTES;
use crate::crypt::policy;
use crate::crypt::sealer::Sealer;
use crate::error::Result;
use crate::git::objects::ObjectDatabase;
use crate::tree::{self, Edits, Entry, TreeSink};

/// The topmost `.gitattributes`.
pub(super) fn attributes_of(sealer: Option<&Sealer>) -> Result<Vec<u8>> {
    let mut text = ATTRIBUTES.to_vec();
    if let Some(sealer) = sealer {
        text.extend_from_slice(&sealer.policy().attributes());
    }
    Ok(text)
}

/// Puts the policy into a tree.
pub(super) fn seal_into(
    _objects: &ObjectDatabase<'_>,
    sealer: &Sealer,
    _base: Option<Oid>,
    sink: &dyn TreeSink,
    edits: &mut Edits,
) -> Result<()> {
    let oid = sink.write(ObjectType::Blob, &sealer.policy().encode()?)?;
    edits.set(policy::PATH, Entry { mode: tree::MODE_FILE, oid });
    Ok(())
}
