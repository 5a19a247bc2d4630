//! What of a snapshot is wanted: everything, what lies at or below some paths, what a pattern names, or an exact list.
//!
//! In: what the operator wrote, already split into root and path. Out: for each path whether it is wanted
//! ([`Chosen::covers`]) and for each directory whether anything below it may be ([`Chosen::may_hold`]), so that a walk
//! leaves the rest alone. Patterns are those of the ignore rules (gitignore syntax), anchored at the root.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::ignore::IgnoreRules;
use crate::names::RootName;
use crate::path::RelPath;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All roots, whole.
    Everything,
    /// What at least one of these names, and everything below it.
    Some(Vec<Wish>),
    /// These paths, and nothing below them.
    Exactly(BTreeMap<RootName, BTreeSet<RelPath>>),
}

/// One thing that is wanted of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The root.
    pub root: RootName,
    /// The path, or the pattern.
    pub what: What,
}

/// How it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// By its path; the empty one is the whole root.
    Path(RelPath),
    /// By a pattern in gitignore syntax, relative to the root.
    Pattern(String),
}

/// Whether the bytes have a character that makes a pattern of them.
pub fn has_wildcards(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// What is wanted of one root.
#[derive(Debug)]
pub enum Chosen {
    /// All of it.
    Whole,
    /// Nothing.
    Nothing,
    /// What lies at or below a path, or is named by a pattern.
    Parts(Parts),
    /// Exactly these.
    Exactly(BTreeSet<RelPath>),
}

/// Paths and patterns of one root.
#[derive(Debug)]
pub struct Parts {
    paths: BTreeSet<RelPath>,
    patterns: Option<IgnoreRules>,
    /// What stands in the patterns before their first wildcard, as whole components.
    beginnings: Vec<RelPath>,
}

impl Selection {
    /// What of it concerns `root`.
    ///
    /// # Errors
    /// [`Kind::Config`] for a pattern that can match nothing.
    pub fn of_root(&self, root: &RootName) -> Result<Chosen> {
        let wishes = match self {
            Selection::Everything => return Ok(Chosen::Whole),
            Selection::Exactly(paths) => {
                return Ok(paths.get(root).map_or(Chosen::Nothing, |paths| Chosen::Exactly(paths.clone())));
            }
            Selection::Some(wishes) => wishes.iter().filter(|wish| wish.root == *root),
        };
        let (mut paths, mut patterns, mut beginnings) = (BTreeSet::new(), Vec::new(), Vec::new());
        for wish in wishes {
            match &wish.what {
                What::Path(path) if path.is_root() => return Ok(Chosen::Whole),
                What::Path(path) => {
                    paths.insert(path.clone());
                }
                What::Pattern(pattern) => {
                    patterns.push(format!("/{}", pattern.trim_start_matches('/')));
                    beginnings.push(beginning_of(pattern));
                }
            }
        }
        if paths.is_empty() && patterns.is_empty() {
            return Ok(Chosen::Nothing);
        }
        let (rules, problems) = IgnoreRules::new(Path::new("/"), &patterns, &[], false);
        if let Some(problem) = problems.first() {
            return Err(Error::new(Kind::Config, format!("the pattern names nothing: {}", problem.reason)));
        }
        let patterns = (!patterns.is_empty()).then_some(rules);
        Ok(Chosen::Parts(Parts { paths, patterns, beginnings }))
    }
}

fn beginning_of(pattern: &str) -> RelPath {
    let pattern = pattern.trim_start_matches('/');
    let literal =
        pattern.split('/').take_while(|part| !has_wildcards(part.as_bytes()) && !part.contains('\\'));
    let mut path = RelPath::root();
    for part in literal.filter(|part| !matches!(*part, "" | "." | "..")) {
        path = path.join(part.as_bytes());
    }
    path
}

impl Chosen {
    /// Whether `path` is wanted.
    pub fn covers(&self, path: &RelPath, is_directory: bool) -> bool {
        match self {
            Chosen::Whole => true,
            Chosen::Nothing => false,
            Chosen::Exactly(paths) => paths.contains(path),
            Chosen::Parts(parts) => {
                is_at_or_below(path, &parts.paths)
                    || parts
                        .patterns
                        .as_ref()
                        .is_some_and(|rules| !rules.verdict(path, is_directory).is_included())
            }
        }
    }

    /// Whether anything in or below the directory `path` may be wanted.
    pub fn may_hold(&self, path: &RelPath) -> bool {
        match self {
            Chosen::Whole => true,
            Chosen::Nothing => false,
            Chosen::Exactly(paths) => has_below(path, paths),
            Chosen::Parts(parts) => {
                is_at_or_below(path, &parts.paths)
                    || has_below(path, &parts.paths)
                    || parts
                        .beginnings
                        .iter()
                        .any(|beginning| path.is_within(beginning) || beginning.is_within(path))
            }
        }
    }
}

fn is_at_or_below(path: &RelPath, paths: &BTreeSet<RelPath>) -> bool {
    let bytes = path.as_bytes();
    let mut ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).collect();
    ends.push(bytes.len());
    ends.into_iter().any(|end| paths.contains(&bytes[..end]))
}

fn has_below(path: &RelPath, paths: &BTreeSet<RelPath>) -> bool {
    if path.is_root() {
        return !paths.is_empty();
    }
    let mut first = path.as_bytes().to_vec();
    first.push(b'/');
    let next = paths
        .range::<[u8], _>((std::ops::Bound::Included(first.as_slice()), std::ops::Bound::Unbounded))
        .next();
    next.is_some_and(|next| next.as_bytes().starts_with(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    fn root() -> RootName {
        RootName::new("r").unwrap()
    }

    fn chosen(paths: &[&str], patterns: &[&str]) -> Chosen {
        let paths = paths.iter().map(|path| What::Path(rel(path)));
        let patterns = patterns.iter().map(|pattern| What::Pattern((*pattern).to_owned()));
        let wishes = paths.chain(patterns).map(|what| Wish { root: root(), what }).collect();
        Selection::Some(wishes).of_root(&root()).unwrap()
    }

    #[test]
    fn a_path_is_wanted_with_everything_below_it_and_nothing_beside() {
        let chosen = chosen(&["a/b"], &[]);
        for (path, wanted, holds) in [
            ("a", false, true),
            ("a/b", true, true),
            ("a/b/c/d", true, true),
            ("a/bc", false, false),
            ("a/b.txt", false, false),
            ("b", false, false),
        ] {
            assert_eq!(chosen.covers(&rel(path), true), wanted, "{path}");
            assert_eq!(chosen.may_hold(&rel(path)), holds, "{path}");
        }
        assert!(chosen.may_hold(&RelPath::root()) && !chosen.covers(&RelPath::root(), true));
    }

    #[test]
    fn a_pattern_is_anchored_at_the_root_and_covers_what_lies_below_its_matches() {
        let chosen = chosen(&[], &["docs/*.txt", "**/old"]);
        for (path, wanted) in [
            ("docs/a.txt", true),
            ("docs/sub/a.txt", false),
            ("x/docs/a.txt", false),
            ("x/y/old/deep", true),
            ("old", true),
            ("older", false),
        ] {
            assert_eq!(chosen.covers(&rel(path), false), wanted, "{path}");
        }
        assert!(chosen.may_hold(&rel("x/y")), "two stars may be anywhere");
    }

    #[test]
    fn a_pattern_leads_a_walk_only_where_it_can_match() {
        let chosen = chosen(&[], &["a/b/*.c"]);
        for (path, holds) in [("a", true), ("a/b", true), ("a/b/c", true), ("b", false), ("a/c", false)] {
            assert_eq!(chosen.may_hold(&rel(path)), holds, "{path}");
        }
    }

    #[test]
    fn an_exact_list_has_nothing_below_it() {
        let paths = [("r", vec!["a", "b/c"])];
        let paths = paths
            .into_iter()
            .map(|(root, paths)| (RootName::new(root).unwrap(), paths.into_iter().map(rel).collect()))
            .collect();
        let chosen = Selection::Exactly(paths).of_root(&root()).unwrap();
        assert!(chosen.covers(&rel("a"), true) && !chosen.covers(&rel("a/x"), false));
        assert!(chosen.may_hold(&rel("b")) && !chosen.may_hold(&rel("a")) && !chosen.covers(&rel("b"), true));
    }

    #[test]
    fn another_root_and_the_whole_of_this_one() {
        let selection = Selection::Some(vec![Wish { root: root(), what: What::Path(RelPath::root()) }]);
        assert!(matches!(selection.of_root(&root()).unwrap(), Chosen::Whole));
        let other = RootName::new("other").unwrap();
        assert!(matches!(selection.of_root(&other).unwrap(), Chosen::Nothing));
    }
}
