//! From what was typed to what is wanted: paths with a root's name, paths on disk, and patterns of both.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backupbot_core::git::repository::Repository;
use backupbot_core::history::Snapshot;
use backupbot_core::history::directory::find;
use backupbot_core::names::RootName;
use backupbot_core::path::{RelPath, lossy};
use backupbot_core::restore::{Selection, What, Wish, has_wildcards};

use super::place::Source;
use crate::exit::Failure;
use crate::settings::World;

/// What the paths choose of the snapshot; none choose everything.
pub fn selection(
    world: &World,
    source: &Source,
    repository: &Repository,
    snapshot: &Snapshot,
    paths: &[PathBuf],
) -> Result<Selection, Failure> {
    if paths.is_empty() {
        return Ok(Selection::Everything);
    }
    let objects = repository.objects()?;
    let roots: Vec<RootName> = snapshot.roots(&objects)?.into_iter().map(|root| root.name).collect();
    let mut wishes = Vec::new();
    for path in paths {
        let candidates = candidates(world, source, &roots, path);
        if candidates.is_empty() {
            return Err(Failure::failed(format!(
                "{} is in none of the roots of this snapshot: they are {}",
                lossy(path.as_os_str().as_bytes()),
                roots.iter().map(RootName::as_str).collect::<Vec<_>>().join(", ")
            )));
        }
        let mut wish = None;
        for (root, relative) in &candidates {
            if find(&objects, snapshot.tree, root, relative)?.is_some() {
                wish = Some(Wish { root: root.clone(), what: What::Path(relative.clone()) });
                break;
            }
        }
        let pattern = candidates.iter().find(|(_, relative)| has_wildcards(relative.as_bytes()));
        if let (None, Some((root, relative))) = (&wish, pattern) {
            let pattern = String::from_utf8(relative.as_bytes().to_vec()).map_err(|_| {
                Failure::usage(
                    "a pattern has to be UTF-8; name the files one by one, or the directory that they are in",
                )
            })?;
            wish = Some(Wish { root: root.clone(), what: What::Pattern(pattern) });
        }
        let Some(wish) = wish else {
            return Err(Failure::failed(format!(
                "{} is not in the snapshot {} of {}; `--at` chooses another one",
                lossy(path.as_os_str().as_bytes()),
                snapshot.short_id(),
                snapshot.time
            )));
        };
        wishes.push(wish);
    }
    Ok(Selection::Some(wishes))
}

/// What a path can mean: `<root>/rel`, or something below a watched directory.
fn candidates(world: &World, source: &Source, roots: &[RootName], path: &Path) -> Vec<(RootName, RelPath)> {
    let mut found = Vec::new();
    let literal = path.as_os_str().as_bytes();
    for root in roots {
        let rest = literal.strip_prefix(root.as_str().as_bytes());
        if let Some(relative) = rest.and_then(below) {
            found.push((root.clone(), relative));
        }
    }
    let absolute = world.absolute(path);
    let mut places = vec![absolute.clone()];
    if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name())
        && let Ok(parent) = parent.canonicalize()
    {
        places.push(parent.join(name));
    }
    for configured in source.roots().filter(|configured| roots.contains(&configured.name)) {
        for place in &places {
            let rest = place.as_os_str().as_bytes().strip_prefix(configured.path.as_os_str().as_bytes());
            if let Some(relative) = rest.and_then(below) {
                found.push((configured.name.clone(), relative));
            }
        }
    }
    found
}

/// What follows the name or the path of a root.
fn below(rest: &[u8]) -> Option<RelPath> {
    let rest = match rest {
        [] => rest,
        [b'/', below @ ..] => below,
        _ => return None,
    };
    RelPath::new(rest.strip_suffix(b"/").unwrap_or(rest)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_root_is_a_path_only_after_a_slash() {
        assert_eq!(below(b""), Some(RelPath::root()));
        assert_eq!(below(b"/"), Some(RelPath::root()));
        assert_eq!(below(b"/a/b/"), RelPath::new("a/b").ok());
        assert_eq!(below(b"x/a"), None);
        assert_eq!(below(b"/a/../b"), None);
    }
}
