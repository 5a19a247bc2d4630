//! Rules between sections: names given twice, roots that overlap, loops between roots and remotes.
//!
//! What comes in are the values with their places, also of sections that were wrong elsewhere, so that one
//! mistake does not hide another. Paths are compared as they are written and as the file system resolves
//! them today, because either may lead to the same files.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Component, Path, PathBuf};

use crate::names::{RemoteName, RepositoryName, RootName};

use super::model::Config;
use super::reader::{At, Problems};
use super::url::RemoteUrl;

/// More roots than anybody can be allowed: each is compared with each.
pub(super) const MAX_ROOTS: usize = 1000;

/// The values that rules between sections are about, each with its place.
pub(super) struct Sites {
    pub state_dir_at: At,
    pub max_roots_at: Option<At>,
    pub repositories: Vec<RepositorySite>,
}

pub(super) struct RepositorySite {
    pub name: Option<(RepositoryName, At)>,
    /// The branch of a sample day, to compare with others.
    pub branch: String,
    pub roots: Vec<RootSite>,
    pub remotes: Vec<RemoteSite>,
}

pub(super) struct RootSite {
    pub name: Option<RootName>,
    pub name_at: At,
    pub path: Option<PathBuf>,
    pub path_at: At,
}

pub(super) struct RemoteSite {
    pub name: Option<(RemoteName, At)>,
    pub url: Option<(RemoteUrl, At)>,
}

impl Sites {
    pub(super) fn new(state_dir_at: At) -> Self {
        Self { state_dir_at, max_roots_at: None, repositories: Vec::new() }
    }
}

/// Reports every broken rule.
pub(super) fn validate(config: &Config, sites: &Sites, problems: &Problems) {
    names(sites, problems);
    max_roots(config, sites, problems);
    let state_dir = Territory::of(&config.state_dir);
    let repositories = Territory::of(&config.state_dir.join("repos"));
    let roots: Vec<(Territory, &At)> = sites
        .repositories
        .iter()
        .flat_map(|repository| &repository.roots)
        .filter_map(|root| Some((Territory::of(root.path.as_deref()?), &root.path_at)))
        .take(MAX_ROOTS)
        .collect();
    overlapping_roots(&roots, problems);
    for (root, at) in &roots {
        if let Some(how) = root.meets(&state_dir) {
            let state_at = problems.place(&sites.state_dir_at.place);
            let message = format!(
                "this root {} the state directory ({state_at}): BackupBot would back up its own work",
                how.words()
            );
            problems.error(at, message);
        }
    }
    for (url, at) in
        sites.repositories.iter().flat_map(|r| &r.remotes).filter_map(|remote| remote.url.as_ref())
    {
        let RemoteUrl::Local(path) = url else { continue };
        let remote = Territory::of(path);
        for (root, root_at) in &roots {
            if let Some(how) = remote.meets(root) {
                let root_at = problems.place(&root_at.place);
                let message = format!(
                    "this remote {} a root ({root_at}): every push would be a change to push",
                    how.words()
                );
                problems.error(at, message);
            }
        }
        if remote.meets(&repositories).is_some_and(|how| how != Meeting::Contains) {
            problems.error(
                at,
                "this remote is inside the state directory, where BackupBot's own repositories are",
            );
        }
    }
    shared_remotes(sites, problems);
}

/// Reports each value that an earlier one already has.
fn twice<'a, T: Eq + Hash>(
    values: impl Iterator<Item = (T, &'a At)>,
    problems: &Problems,
    what: impl Fn(&str) -> String,
) {
    let mut seen: HashMap<T, &At> = HashMap::new();
    for (value, at) in values {
        match seen.get(&value) {
            Some(first) => problems.error(at, what(&problems.place(&first.place))),
            None => {
                seen.insert(value, at);
            }
        }
    }
}

fn names(sites: &Sites, problems: &Problems) {
    let repositories = sites.repositories.iter().filter_map(|repository| repository.name.as_ref());
    twice(repositories.map(|(name, at)| (name, at)), problems, |first| {
        format!("another repository has this name, at {first}")
    });
    for repository in &sites.repositories {
        let roots = repository.roots.iter().filter_map(|root| Some((root.name.as_ref()?, &root.name_at)));
        twice(roots, problems, |first| {
            format!(
                "another root of this repository has this name, at {first}: give one of them another `name` in the configuration file"
            )
        });
        let remotes = repository.remotes.iter().filter_map(|remote| remote.name.as_ref());
        twice(remotes.map(|(name, at)| (name, at)), problems, |first| {
            format!("another remote of this repository has this name, at {first}")
        });
        let urls = repository.remotes.iter().filter_map(|remote| remote.url.as_ref());
        twice(urls.map(|(url, at)| (same_place(url), at)), problems, |first| {
            format!("another remote of this repository is the same place, at {first}")
        });
    }
}

fn max_roots(config: &Config, sites: &Sites, problems: &Problems) {
    let limit = config.limits.max_roots;
    let mut roots = sites.repositories.iter().flat_map(|repository| &repository.roots);
    let Some(first_over) = roots.nth(limit) else { return };
    let total = limit + 1 + roots.count();
    let set_at =
        sites.max_roots_at.as_ref().map(|at| format!(" ({})", problems.place(&at.place))).unwrap_or_default();
    problems.error(
        &first_over.path_at,
        format!(
            "there are {total} roots, and limits.max_roots{set_at} is {limit}: raise it if that is intended"
        ),
    );
}

fn overlapping_roots(roots: &[(Territory, &At)], problems: &Problems) {
    for (index, (root, at)) in roots.iter().enumerate() {
        for (earlier, earlier_at) in &roots[..index] {
            let Some(how) = root.meets(earlier) else { continue };
            let earlier_at = problems.place(&earlier_at.place);
            let message =
                format!("this root {} the root at {earlier_at}: a file belongs to one root", how.words());
            problems.error(at, message);
        }
    }
}

/// Two repositories on one branch of one remote would each find the other's commits and halt.
fn shared_remotes(sites: &Sites, problems: &Problems) {
    let mut owners: HashMap<(String, &str), (usize, &At)> = HashMap::new();
    for (index, repository) in sites.repositories.iter().enumerate() {
        for (url, at) in repository.remotes.iter().filter_map(|remote| remote.url.as_ref()) {
            let (owner, first) = owners.entry((same_place(url), &repository.branch)).or_insert((index, at));
            if *owner != index {
                let first = problems.place(&first.place);
                let message = format!(
                    "another repository pushes the same branch to this place, at {first}: use another branch"
                );
                problems.error(at, message);
            }
        }
    }
}

/// Equal for addresses of the same place.
fn same_place(url: &RemoteUrl) -> String {
    match url {
        RemoteUrl::Local(path) => resolve(path).to_string_lossy().into_owned(),
        RemoteUrl::Http(url) | RemoteUrl::Ssh(url) => {
            let text = url.text.trim_end_matches('/');
            text.strip_suffix(".git").unwrap_or(text).to_owned()
        }
    }
}

/// How one directory lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    Same,
    Inside,
    Contains,
}

impl Meeting {
    fn words(self) -> &'static str {
        match self {
            Meeting::Same => "is the same directory as",
            Meeting::Inside => "is inside",
            Meeting::Contains => "contains",
        }
    }
}

/// A directory as written and as the file system resolves it.
struct Territory([PathBuf; 2]);

impl Territory {
    fn of(path: &Path) -> Self {
        Self([lexical(path), resolve(path)])
    }

    fn meets(&self, other: &Territory) -> Option<Meeting> {
        let pairs = || self.0.iter().flat_map(|own| other.0.iter().map(move |theirs| (own, theirs)));
        let any = |test: fn(&Path, &Path) -> bool| pairs().any(|(own, theirs)| test(own, theirs));
        if any(|own, theirs| own == theirs) {
            Some(Meeting::Same)
        } else if any(|own, theirs| own.starts_with(theirs)) {
            Some(Meeting::Inside)
        } else if any(|own, theirs| theirs.starts_with(own)) {
            Some(Meeting::Contains)
        } else {
            None
        }
    }
}

/// The path without `.` and `..`, by its text alone.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // At the root, `pop` does nothing, which is what the system does too.
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// The path through all symbolic links, as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    let mut existing = path;
    loop {
        if let Ok(real) = existing.canonicalize() {
            let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
            return lexical(&real.join(rest));
        }
        match existing.parent() {
            Some(parent) => existing = parent,
            None => return lexical(path),
        }
    }
}
