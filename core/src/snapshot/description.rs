//! What a tree says of itself at its top, for Git and for readers: its attributes, and what of it is encrypted.

use git2::{ObjectType, Oid};

use crate::crypt::gitcrypt::wrapped;
use crate::crypt::policy;
use crate::crypt::recipients;
use crate::crypt::sealer::Sealer;
use crate::error::Result;
use crate::git::objects::ObjectDatabase;
use crate::git::pack::{ObjectKind, hash_object};
use crate::lfs;
use crate::tree::{self, Edits, Entry, TreeSink};

/// Keeps a plain clone byte for byte, whatever line-ending settings its user has.
const ATTRIBUTES: &[u8] = b"* -text -ident -filter !working-tree-encoding\n";

/// The files, by path.
fn of(sealer: Option<&Sealer>) -> Result<Vec<(&'static [u8], Vec<u8>)>> {
    let mut attributes = ATTRIBUTES.to_vec();
    let mut files = Vec::new();
    if let Some(sealer) = sealer {
        attributes.extend(sealer.policy().attributes());
        files.push((policy::PATH.as_bytes(), sealer.policy().encode()?));
    }
    files.push((lfs::attributes::FILE_NAME, attributes));
    Ok(files)
}

/// Adds the edits after which a tree says that of itself, and holds the key for those who are to have it.
///
/// # Errors
/// For the trees and the sink; [`Kind::EncryptionKey`](crate::error::Kind::EncryptionKey) if the key cannot be wrapped.
pub(super) fn apply(
    objects: &ObjectDatabase<'_>,
    tree: Option<Oid>,
    sealer: Option<&Sealer>,
    sink: &dyn TreeSink,
    edits: &mut Edits,
) -> Result<()> {
    for (path, text) in of(sealer)? {
        put(objects, tree, path, &text, sink, edits)?;
    }
    match sealer {
        Some(sealer) => recipients::edits(objects, tree, sealer.key(), sealer.recipients(), sink, edits),
        None => {
            for path in [policy::PATH, wrapped::DIRECTORY] {
                let is_there = tree.map(|tree| tree::lookup(objects, tree, path.as_bytes())).transpose()?;
                if is_there.flatten().is_some() {
                    edits.remove(path);
                }
            }
            Ok(())
        }
    }
}

/// Puts a file in place unless it stands there already.
fn put(
    objects: &ObjectDatabase<'_>,
    tree: Option<Oid>,
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
