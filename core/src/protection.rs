//! Where a path stands on its way to the remotes: the eight states, and the evidence for each.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::beneath::RootDirectory;
use crate::error::Result;
use crate::git::repository::Repository;
use crate::ignore::Verdict;
use crate::lfs::attributes::FILE_NAME;
use crate::names::{RemoteName, RepositoryName};
use crate::path::RelPath;
use crate::scan::WatchedRoot;
use crate::snapshot::oid;
use crate::store::StoreReader;
use crate::store::changes::{Reach, Scope};
use crate::tree;

/// The states of a path, in the order in which a change passes through them.
///
/// | state | means | taken back by |
/// |---|---|---|
/// | watched | nothing is known to have changed | |
/// | detected | an event was seen, the path is not quiet yet | nothing: it is in memory only, the scan at the next start finds it |
/// | queued | a durable row says where to look | clearing the row |
/// | staged | its content is in a pack, the branch has not moved | dropping the staged record and the pack |
/// | committed | the branch has it | moving the branch back while no remote has it |
/// | lfs_processed | its large object is confirmed at the remote | dropping unreferenced objects |
/// | pushed | every remote was read back and has it | nothing: what is pushed stays |
/// | failed | it could not be stored, for a reason | trying again |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtectionState {
    /// Nothing is known to have changed.
    Watched,
    /// An event was seen; the path is not quiet yet.
    Detected,
    /// A durable row says where to look.
    Queued,
    /// Its content is in a pack; the branch has not moved.
    Staged,
    /// The branch has it.
    Committed,
    /// Its large object is confirmed at the remote.
    LfsProcessed,
    /// Every remote was read back and has it.
    Pushed,
    /// It could not be stored.
    Failed,
}

/// How many paths are in each state. Every file counts as watched, and besides in the state that it is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    /// Files and links at the last complete look.
    pub watched: u64,
    /// Paths that events named and that are not quiet yet.
    pub detected: u64,
    /// Rows that wait; a deep row is one.
    pub queued: u64,
    /// Rows of the commit that is being made.
    pub staged: u64,
    /// Files in the branch that some remote does not have yet, in this version.
    pub committed: u64,
    /// Always 0 while large objects are not built.
    pub lfs_processed: u64,
    /// Files that every remote has.
    pub pushed: u64,
    /// Paths that could not be stored.
    pub failed: u64,
}

/// Files looked at, at most, to count what a remote lacks.
const COUNTED_AT_MOST: u64 = 100_000;

/// The files that the branch has and `confirmed` does not have in the same version.
pub fn count_unconfirmed(git_directory: &Path, branch: &str, confirmed: Option<git2::Oid>) -> Result<u64> {
    let repository = Repository::open(git_directory)?;
    let Some(tip) = repository.reference(branch)? else { return Ok(0) };
    if confirmed == Some(tip) {
        return Ok(0);
    }
    let known = confirmed.filter(|commit| repository.has_commit(*commit));
    let old = known.map(|commit| repository.tree_of(commit)).transpose()?;
    let new = repository.tree_of(tip)?;
    let mut count = 0;
    let objects = repository.objects()?;
    let counted = tree::diff_paths(&objects, old, Some(new), &mut |change| {
        let is_ours = change.path.starts_with(crate::path::OWN_DIRECTORY.as_bytes())
            || change.path.split(|byte| *byte == b'/').next_back() == Some(FILE_NAME);
        if !is_ours && change.new.is_some_and(|entry| !entry.is_tree()) {
            count += 1;
        }
        if count >= COUNTED_AT_MOST { Err(crate::error::Error::cancelled()) } else { Ok(()) }
    });
    match counted {
        Err(error) if count < COUNTED_AT_MOST => Err(error),
        _ => Ok(count),
    }
}

/// What is known of one remote with respect to the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteProtection {
    /// The remote.
    pub name: String,
    /// Whether the commit that has the path's stored version was read back there.
    pub has_it: bool,
    /// The commit last read back.
    pub commit: Option<String>,
    /// Why it lags, if it does.
    pub reason: Option<String>,
}

/// The answer to "is this file protected, since when, and if not, why not".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// The repository.
    pub repository: String,
    /// The root.
    pub root: String,
    /// The path below the root, lossy.
    pub path: String,
    /// Where it stands.
    pub state: ProtectionState,
    /// Whether the version on disk is the one that every remote has.
    pub protected: bool,
    /// One sentence for a person.
    pub explanation: String,
    /// The stored object, if there is one.
    pub stored: Option<String>,
    /// The branch's tip.
    pub commit: Option<String>,
    /// By remote.
    pub remotes: Vec<RemoteProtection>,
}

/// A path and where to look for it.
pub struct Subject<'s> {
    /// The repository.
    pub repository: &'s RepositoryName,
    /// Its bare Git repository.
    pub git_directory: &'s Path,
    /// Its branch, in full.
    pub branch: &'s str,
    /// The root.
    pub root: &'s WatchedRoot,
    /// The path below it.
    pub path: &'s RelPath,
    /// The configured remotes.
    pub remotes: &'s [RemoteName],
}

/// Finds the root that a path belongs to: an absolute path, or `<root>/rel`.
pub fn locate<'r>(roots: &'r [WatchedRoot], path: &[u8]) -> Option<(&'r WatchedRoot, RelPath)> {
    use std::os::unix::ffi::OsStrExt;
    for root in roots {
        let prefix = if path.starts_with(b"/") {
            root.path.as_os_str().as_bytes()
        } else {
            root.name.as_str().as_bytes()
        };
        let Some(rest) = path.strip_prefix(prefix) else { continue };
        let rest = match rest {
            [] => rest,
            [b'/', below @ ..] => below,
            _ => continue,
        };
        let trimmed = rest.strip_suffix(b"/").unwrap_or(rest);
        if let Ok(relative) = RelPath::new(trimmed) {
            return Some((root, relative));
        }
    }
    None
}

/// Looks at disk, queue, branch and remotes.
pub fn report(subject: &Subject<'_>, reader: &StoreReader) -> Result<PathReport> {
    let root = subject.root;
    // Before the first commit there may be no repository yet.
    let repository =
        if subject.git_directory.exists() { Some(Repository::open(subject.git_directory)?) } else { None };
    let tip = match &repository {
        Some(repository) => repository.reference(subject.branch)?,
        None => None,
    };
    let recorded = reader.files(subject.repository)?.get(&root.name, subject.path)?;
    let row = reader.covering_change(subject.repository, &root.name, subject.path)?;
    let staged = reader.staged(subject.repository)?;
    let remotes = remotes(subject, reader, repository.as_ref(), tip, recorded.is_some())?;
    let everywhere = remotes.iter().all(|remote| remote.has_it);
    let stored_entry = match (&repository, tip) {
        (Some(repository), Some(tip)) => entry_at(repository, tip, subject)?,
        _ => None,
    };
    let opened = RootDirectory::open(&root.path).ok();
    let on_disk = opened.as_ref().and_then(|open| open.look_at(subject.path).ok());
    let is_directory = on_disk.is_some_and(|look| look.kind == crate::beneath::EntryKind::Directory);
    let is_elsewhere = opened.zip(on_disk).is_some_and(|(opened, look)| root.is_elsewhere(&opened, &look));
    let verdict = root.rules.verdict(subject.path, is_directory);
    let is_as_recorded = match (&recorded, &on_disk) {
        (Some(record), Some(look)) => record.look.is_same_as(look),
        (None, None) => true,
        _ => false,
    };
    let (state, explanation) = if let Verdict::Excluded { rule, .. } = &verdict {
        (ProtectionState::Watched, format!("it is left out of the backup by the rule {rule:?}"))
    } else if is_elsewhere {
        let text =
            "it is on another file system than the watched directory, and one_file_system leaves those out";
        (ProtectionState::Watched, text.to_owned())
    } else if let Some((row, reach)) = row {
        match (&row.failure, reach) {
            (Some(failure), _) => {
                let kept = if recorded.is_some() {
                    "its last stored version is kept"
                } else {
                    "no version is stored yet"
                };
                let text = format!("{}: {}; {kept}", failure.reason.as_str(), failure.message);
                (ProtectionState::Failed, text)
            }
            _ if staged.is_some() => (ProtectionState::Staged, "its commit is being made".to_owned()),
            (None, Reach::Deep) if is_as_recorded && recorded.is_some() => stand(everywhere, &remotes),
            (None, _) => (ProtectionState::Queued, "it changed and waits for the next commit".to_owned()),
        }
    } else if recorded.is_some() && is_as_recorded {
        stand(everywhere, &remotes)
    } else if recorded.is_none() && on_disk.is_none() {
        (ProtectionState::Watched, "there is no such file, and none is stored".to_owned())
    } else {
        (
            ProtectionState::Detected,
            "it differs from what is stored; it is queued when it is quiet".to_owned(),
        )
    };
    let protected = state == ProtectionState::Pushed;
    Ok(PathReport {
        repository: subject.repository.to_string(),
        root: root.name.to_string(),
        path: subject.path.to_string(),
        state,
        protected,
        explanation,
        stored: stored_entry.map(|entry| entry.oid.to_string()),
        commit: tip.map(|tip| tip.to_string()),
        remotes,
    })
}

fn stand(everywhere: bool, remotes: &[RemoteProtection]) -> (ProtectionState, String) {
    if remotes.is_empty() {
        return (ProtectionState::Committed, "it is committed here; no remote is configured".to_owned());
    }
    if everywhere {
        return (ProtectionState::Pushed, "every remote has it, as it is on disk".to_owned());
    }
    let lagging: Vec<&str> =
        remotes.iter().filter(|remote| !remote.has_it).map(|remote| remote.name.as_str()).collect();
    (
        ProtectionState::Committed,
        format!("it is committed here, but not yet confirmed at {}", lagging.join(", ")),
    )
}

fn remotes(
    subject: &Subject<'_>,
    reader: &StoreReader,
    repository: Option<&Repository>,
    tip: Option<git2::Oid>,
    is_recorded: bool,
) -> Result<Vec<RemoteProtection>> {
    let mut found = Vec::new();
    let wanted = match (repository, tip) {
        (Some(repository), Some(tip)) => entry_at(repository, tip, subject)?,
        _ => None,
    };
    for name in subject.remotes {
        let record = reader.remote(subject.repository, name)?.unwrap_or_default();
        let confirmed = record.confirmed.as_ref().map(oid).transpose()?;
        // The remote may lag behind the tip and still have this very version.
        let has_it = match (repository, confirmed) {
            (_, Some(confirmed)) if Some(confirmed) == tip => is_recorded || wanted.is_some(),
            (Some(repository), Some(confirmed)) if repository.has_commit(confirmed) => {
                wanted.is_some() && entry_at(repository, confirmed, subject)? == wanted
            }
            _ => false,
        };
        let reason = match record.halted {
            Some(halt) => Some(format!("{}: {}", halt.reason, halt.message)),
            None => record.last_error,
        };
        found.push(RemoteProtection {
            name: name.to_string(),
            has_it,
            commit: confirmed.map(|confirmed| confirmed.to_string()),
            reason,
        });
    }
    Ok(found)
}

fn entry_at(
    repository: &Repository,
    commit: git2::Oid,
    subject: &Subject<'_>,
) -> Result<Option<tree::Entry>> {
    let git_path = subject.path.to_git_path(&subject.root.name);
    let objects = repository.objects()?;
    tree::lookup(&objects, repository.tree_of(commit)?, &git_path)
}

impl StoreReader {
    /// The row that covers a path: its own, or the deep row of a directory above it.
    fn covering_change(
        &self,
        repository: &RepositoryName,
        root: &crate::names::RootName,
        path: &RelPath,
    ) -> Result<Option<(crate::store::changes::ChangeRow, Reach)>> {
        let mut at = Some(path.clone());
        while let Some(candidate) = at {
            if let Some(row) = self.change(repository, root, &candidate)? {
                let reach = match row.scope {
                    Scope::Exact => Reach::Exact,
                    Scope::Deep { .. } => Reach::Deep,
                };
                if reach == Reach::Deep || candidate == *path {
                    return Ok(Some((row, reach)));
                }
            }
            at = candidate.parent();
        }
        Ok(None)
    }
}
