//! From what was typed to what is wanted: paths with a root's name, paths on disk, and patterns of both.

use std::path::PathBuf;

use backupbot_core::history::Snapshot;
use backupbot_core::history::directory::find;
use backupbot_core::restore::{Selection, What, Wish, has_wildcards};

use super::place::Source;
use crate::exit::Failure;

/// What the paths choose of the snapshot; none choose everything. A name that is there counts as itself even if it looks
/// like a pattern.
pub fn selection(source: &Source<'_>, snapshot: &Snapshot, paths: &[PathBuf]) -> Result<Selection, Failure> {
    if paths.is_empty() {
        return Ok(Selection::Everything);
    }
    let objects = source.repository().objects()?;
    let mut wishes = Vec::new();
    for path in paths {
        let (root, relative) = source.looking.locate(path, snapshot)?;
        let what = if find(&objects, snapshot.tree, &root, &relative)?.is_some() {
            What::Path(relative)
        } else if has_wildcards(relative.as_bytes()) {
            What::Pattern(String::from_utf8(relative.as_bytes().to_vec()).map_err(|_| {
                Failure::usage(
                    "a pattern has to be UTF-8; name the files one by one, or the directory that they are in",
                )
            })?)
        } else {
            return Err(source.looking.absent(&root, &relative, snapshot));
        };
        wishes.push(Wish { root, what });
    }
    Ok(Selection::Some(wishes))
}
