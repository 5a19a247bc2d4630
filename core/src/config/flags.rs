//! A configuration out of `--watch` and `--remote` alone: the tree that a file would have given.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::names::{RemoteName, RepositoryName};

use super::reader::{At, Problems};
use super::tree::{Node, Place, Value};
use super::validate::lexical;

/// The name where nothing of the given one can be used.
const FALLBACK: &str = "backup";

/// The tree, and a text that is equal for equal flags.
pub(super) fn tree(watch: &[PathBuf], remotes: &[String], problems: &Problems) -> (Node, String) {
    let mut canonical = String::new();
    let mut roots = Vec::new();
    for path in watch {
        let place =
            Place::Argument(format!("--watch {}", crate::path::lossy(path.as_os_str().as_encoded_bytes())));
        let Some(text) = path.to_str() else {
            problems.error(
                &At::new(place, ""),
                "the path is not UTF-8: watch it from a directory above it that is",
            );
            continue;
        };
        canonical.push_str(&format!("watch {text:?}\n"));
        roots.push(Node::map(place.clone(), vec![("path", Node::text(place, text))]));
    }
    let mut taken = HashSet::new();
    let mut remote_nodes = Vec::new();
    for (index, url) in remotes.iter().enumerate() {
        // The address itself may hold a password, so the place is told by counting.
        let place = Place::Argument(format!("--remote (number {})", index + 1));
        canonical.push_str(&format!("remote {url:?}\n"));
        let name = Node::text(place.clone(), remote_name(url, &mut taken));
        remote_nodes
            .push(Node::map(place.clone(), vec![("name", name), ("url", Node::text(place, url.clone()))]));
    }
    let place = Place::File;
    let repository = Node::map(
        place.clone(),
        vec![
            ("name", Node::text(place.clone(), repository_name(watch.first().map(PathBuf::as_path)))),
            ("roots", Node { place: place.clone(), value: Value::List(roots) }),
            ("remotes", Node { place: place.clone(), value: Value::List(remote_nodes) }),
        ],
    );
    let tree = Node::map(
        place.clone(),
        vec![
            ("version", Node::plain(place.clone(), "1")),
            ("repositories", Node { place, value: Value::List(vec![repository]) }),
        ],
    );
    (tree, canonical)
}

/// Characters that do not belong become dashes, ends that are reserved go.
fn sanitise(text: &str, allowed: impl Fn(char) -> bool) -> String {
    let replaced: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).take(60).collect();
    replaced.trim_start_matches(['.', '-', '_']).trim_end_matches(['.', '-', ' ']).to_owned()
}

fn repository_name(first: Option<&Path>) -> String {
    let resolved = first.map(lexical).unwrap_or_default();
    let last = resolved.file_name().unwrap_or_default().to_string_lossy();
    if RepositoryName::new(last.as_ref()).is_ok() {
        return last.into_owned();
    }
    let name = sanitise(&last, |c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' '));
    if RepositoryName::new(name.as_str()).is_ok() { name } else { FALLBACK.to_owned() }
}

/// The last component of the address without `.git`, made unique with `-2`, `-3`, …
fn remote_name(url: &str, taken: &mut HashSet<String>) -> String {
    let path =
        url.split_once("://").map_or(url, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = sanitise(last.strip_suffix(".git").unwrap_or(last), |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    });
    let base = if RemoteName::new(name.as_str()).is_ok() { name } else { FALLBACK.to_owned() };
    let candidates = std::iter::once(base.clone()).chain((2_u32..).map(|number| format!("{base}-{number}")));
    let free = candidates.into_iter().find(|name| !taken.contains(name)).unwrap_or(base);
    taken.insert(free.clone());
    free
}
