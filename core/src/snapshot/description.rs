//! What a tree says of itself at its top, for Git and for readers: its attributes, and what of it is encrypted.

use git2::ObjectType;

use crate::crypt::policy;
use crate::crypt::sealer::Sealer;
use crate::error::Result;
use crate::git::objects::ObjectDatabase;
use crate::git::pack::{ObjectKind, hash_object};
use crate::lfs;
use crate::tree::{self, Edits, Entry, TreeSink};

/// Keeps a plain clone byte for byte, whatever line-ending settings its user has.
const ATTRIBUTES: &[u8] = b"* -text -ident -filter !working-tree-encoding\n";

/// The files, by path.
///
/// # Errors
/// For a policy that cannot be written down.
pub(super) fn of(sealer: Option<&Sealer>) -> Result<Vec<(&'static [u8], Vec<u8>)>> {
    let mut attributes = ATTRIBUTES.to_vec();
    let mut files = Vec::new();
    if let Some(sealer) = sealer {
        attributes.extend(sealer.policy().attributes());
        files.push((policy::PATH.as_bytes(), sealer.policy().encode()?));
    }
    files.push((lfs::attributes::FILE_NAME, attributes));
    Ok(files)
}

/// Puts a file in place unless it stands there already.
///
/// # Errors
/// For the trees and the sink.
pub(super) fn put(
    objects: &ObjectDatabase<'_>,
    tree: Option<git2::Oid>,
    path: &[u8],
    text: &[u8],
    sink: &dyn TreeSink,
    edits: &mut Edits,
) -> Result<()> {
    let present = tree.map(|tree| tree::lookup(objects, tree, path)).transpose()?.flatten();
    let wanted = hash_object(ObjectKind::Blob, text)?;
    if !present.is_some_and(|entry| entry.oid == wanted && entry.mode == tree::MODE_FILE) {
        let oid = sink.write(ObjectType::Blob, text)?;
        edits.set(path, Entry { mode: tree::MODE_FILE, oid });
    }
    Ok(())
}
