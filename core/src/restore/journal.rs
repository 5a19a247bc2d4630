//! What a restore in place touched, so that it can be taken back.
//!
//! One file a restore in `<state_dir>/restores`, appended to before each step is taken: the first line says what was
//! restored and at which commit everything was safe before, each further line is one path, the last says that it came to
//! its end. Taking back is a restore of that commit, of exactly these paths. A line that a kill cut off was never
//! followed by its step. The store is not used, because a daemon may hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::marker::Identity;
use super::step::Step;
use crate::error::{Error, Kind, Result};
use crate::file_lock::{Attempt, LockedFile};
use crate::names::RootName;
use crate::path::RelPath;

/// Where the journals lie in the state directory.
pub const DIRECTORY: &str = "restores";
const ENDING: &str = ".journal";
const UNDONE: &str = ".undone";
/// Journals of a repository that are kept; older ones are removed.
const KEPT: usize = 20;
/// Longer than the line of any path.
const LONGEST_LINE: u64 = 4 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// What was restored.
    pub identity: Identity,
    /// The commit that has the state before it.
    pub before: String,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Path(String, String),
    Finished,
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: LockedFile,
    path: PathBuf,
    head: Head,
    last_parent: Option<(RootName, RelPath)>,
}

/// A journal that was read.
#[derive(Debug)]
pub struct Past {
    /// Its first line.
    pub head: Head,
    /// Every path that was touched, or was about to be.
    pub paths: BTreeMap<RootName, BTreeSet<RelPath>>,
    /// It came to its end.
    pub is_finished: bool,
    path: PathBuf,
}

/// Begins a journal in `directory`, or goes on with that of the same restore if it was not finished.
///
/// # Errors
/// [`Kind::InUse`] if a restore in place is running.
pub fn begin(directory: &Path, head: Head) -> Result<Journal> {
    let failed = |error| Error::io("make", directory, error);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let unfinished = latest(directory, &head.identity.repository)?
        .filter(|past| !past.is_finished && past.head.identity == head.identity);
    let (path, head, is_new) = match unfinished {
        Some(past) => (past.path, past.head, false),
        None => (directory.join(name_of(&head.identity.repository, head.started_ms)), head, true),
    };
    let failed = |error| Error::io("write", &path, error);
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    let file = match LockedFile::attempt(file).map_err(failed)? {
        Attempt::Locked(file) => file,
        Attempt::Held(_) => {
            let text = "this restore is running already; wait for its end";
            return Err(Error::new(Kind::InUse, text));
        }
    };
    let mut journal = Journal { file, path: path.clone(), head, last_parent: None };
    if is_new {
        let head = journal.head.clone();
        journal.append(&head)?;
        journal.file.sync_all().map_err(failed)?;
        prune(directory, &journal.head.identity.repository);
    } else {
        // The last line may have been cut off.
        journal.file.write_all(b"\n").map_err(failed)?;
    }
    Ok(journal)
}

impl Journal {
    /// The commit that has the state before this restore, also if an earlier run began it.
    pub fn before(&self) -> &str {
        &self.head.before
    }

    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(line)
            .map_err(|error| Error::with_source(Kind::Internal, "cannot write a line", error))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Notes what is about to be touched: the path, and the directory that it is in, whose time moves.
    pub fn note(&mut self, step: &Step) -> Result<()> {
        if !step.action.is_change() {
            return Ok(());
        }
        if let Some(parent) = step.path.parent() {
            let parent = (step.root.clone(), parent);
            if self.last_parent.as_ref() != Some(&parent) {
                self.append(&Line::Path(parent.0.to_string(), STANDARD.encode(parent.1.as_bytes())))?;
                self.last_parent = Some(parent);
            }
        }
        self.append(&Line::Path(step.root.to_string(), STANDARD.encode(step.path.as_bytes())))
    }

    /// The restore came to its end.
    pub fn finish(mut self) -> Result<()> {
        self.append(&Line::Finished)?;
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))
    }
}

fn list(directory: &Path, repository: &str) -> Vec<PathBuf> {
    named(directory, repository, ENDING)
}

fn named(directory: &Path, repository: &str, ending: &str) -> Vec<PathBuf> {
    let ending = format!("-{repository}{ending}");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // A repository's name may hold a dash, so the number in front is counted too.
            name.len() == 16 + ending.len() && name.ends_with(&ending)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn prune(directory: &Path, repository: &str) {
    let found = list(directory, repository);
    for old in found.iter().take(found.len().saturating_sub(KEPT)) {
        // One too many is no harm.
        let _ = fs::remove_file(old);
    }
}

/// The newest journal of a repository that was not taken back.
///
/// # Errors
/// If it cannot be read.
pub fn latest(directory: &Path, repository: &str) -> Result<Option<Past>> {
    list(directory, repository).pop().map(|path| read(&path)).transpose()
}

/// The journal of the restore that began then.
///
/// # Errors
/// If it cannot be read.
pub fn begun_at(directory: &Path, repository: &str, started_ms: i64) -> Result<Option<Past>> {
    let path = directory.join(name_of(repository, started_ms));
    if path.exists() { read(&path).map(Some) } else { Ok(None) }
}

/// The restores of a repository that noted something since then, finished or not, taken back or not. What cannot be
/// read is left out: who asks wants to know what can be told.
pub fn touched_since(directory: &Path, repository: &str, since: SystemTime) -> Vec<Past> {
    let undone = format!("{ENDING}{UNDONE}");
    let found = [ENDING, undone.as_str()].into_iter().flat_map(|ending| named(directory, repository, ending));
    let is_recent = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|found| found.modified());
        modified.is_ok_and(|modified| modified >= since)
    };
    found.filter(is_recent).filter_map(|path| read(&path).ok()).collect()
}

fn name_of(repository: &str, started_ms: i64) -> String {
    format!("{started_ms:016}-{repository}{ENDING}")
}

fn read(path: &Path) -> Result<Past> {
    let failed = |error| Error::io("read", path, error);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)?;
    let head: Head = serde_json::from_slice(&line).map_err(|error| {
        let text = format!("the journal {} is damaged", path.display());
        Error::with_source(Kind::Io, text, error)
    })?;
    let mut past = Past { head, paths: BTreeMap::new(), is_finished: false, path: path.to_path_buf() };
    loop {
        line.clear();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(past);
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Finished) => past.is_finished = true,
            Ok(Line::Path(root, encoded)) => {
                let bytes = STANDARD.decode(encoded).ok();
                let known = RootName::new(root).ok().zip(bytes.and_then(|bytes| RelPath::new(bytes).ok()));
                if let Some((root, path)) = known {
                    past.paths.entry(root).or_default().insert(path);
                }
            }
            // Cut off by a kill; its step was not taken.
            Err(_) => {}
        }
    }
}

impl Past {
    /// It was taken back, and is not offered again.
    pub fn mark_undone(&self) -> Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(UNDONE);
        fs::rename(&self.path, PathBuf::from(name)).map_err(|error| Error::io("rename", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::EntryKind;
    use crate::restore::Action;

    fn head(snapshot: &str, started_ms: i64) -> Head {
        let identity = Identity {
            repository: "my-docs".to_owned(),
            snapshot: snapshot.to_owned(),
            selection: Vec::new(),
        };
        Head { identity, before: format!("before {snapshot}"), started_ms }
    }

    fn step(path: &[u8], action: Action) -> Step {
        let (root, path) = (RootName::new("r").unwrap(), RelPath::new(path).unwrap());
        Step { root, path, kind: EntryKind::File, action, bytes: 0 }
    }

    #[test]
    fn what_was_touched_is_read_back_exactly_and_a_line_that_was_cut_off_does_not_count() {
        let scratch = tempfile::tempdir().unwrap();
        let mut journal = begin(scratch.path(), head("a", 5)).unwrap();
        journal.note(&step(b"d/x\xff", Action::Write)).unwrap();
        journal.note(&step(b"d/equal", Action::Equal)).unwrap();
        journal.file.write_all(br#"{"path":["r","ZC9"#).unwrap();
        drop(journal);
        let past = latest(scratch.path(), "my-docs").unwrap().unwrap();
        assert!(!past.is_finished);
        let paths: Vec<_> = past.paths.into_values().flatten().collect();
        assert_eq!(paths, [RelPath::new("d").unwrap(), RelPath::new(&b"d/x\xff"[..]).unwrap()]);
        assert!(latest(scratch.path(), "docs").unwrap().is_none(), "the name of another repository ends so");
    }

    #[test]
    fn an_unfinished_restore_keeps_the_commit_from_before_its_first_run() {
        let scratch = tempfile::tempdir().unwrap();
        drop(begin(scratch.path(), head("a", 5)).unwrap());
        let again = Head { before: "half restored".to_owned(), ..head("a", 9) };
        let mut journal = begin(scratch.path(), again).unwrap();
        assert_eq!(journal.before(), "before a");
        journal.note(&step(b"x", Action::Delete)).unwrap();
        journal.finish().unwrap();
        let past = latest(scratch.path(), "my-docs").unwrap().unwrap();
        assert!(past.is_finished && past.head.started_ms == 5);
        assert_eq!(begin(scratch.path(), head("a", 10)).unwrap().before(), "before a");
        let last = latest(scratch.path(), "my-docs").unwrap().unwrap();
        assert_eq!(last.head.started_ms, 10, "a finished one is not gone on with");
        last.mark_undone().unwrap();
        assert_eq!(latest(scratch.path(), "my-docs").unwrap().unwrap().head.started_ms, 5);
    }
}
