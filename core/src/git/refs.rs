//! Moving a reference: by compare-and-swap, durably, under Git's own lock.
//!
//! The new value is synced and linked as `<ref>.lock`, and is renamed over the reference, after the present value
//! was seen to be the expected one while the lock was held. Every Git tool takes the same lock, so concurrent
//! writers and readers see the old value or the new one. (libgit2 does the same without syncing.)

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::Oid;

use super::ownership;
use super::repository::{Repository, sync_directory};
use crate::error::{Error, Kind, Result};
use crate::fault;

/// Drafts of locks are called so; the rest is random.
const DRAFT_PREFIX: &str = "backupbot-lock-";

/// Moves `name` (in full) from `expected` (`None`: it must not exist) to `new`.
///
/// # Errors
/// [`Kind::RefMoved`] when it stands elsewhere or somebody else holds its lock; the reference is then as it was.
pub fn move_reference(repository: &Repository, name: &str, expected: Option<Oid>, new: Oid) -> Result<()> {
    move_reference_over(repository, name, expected, new, repository.path(), &|_| false)
}

/// As [`move_reference`], where a lock that stands there already and holds a commit that is ours (`is_ours`) is
/// known to be left over from a process of ours that died, and is removed. Drafts of locks are written in
/// `drafts`, a directory on the same file system and not below `refs/`, where a draft that a killed process
/// leaves would be a branch to every Git tool.
pub fn move_reference_over(
    repository: &Repository,
    name: &str,
    expected: Option<Oid>,
    new: Oid,
    drafts: &Path,
    is_ours: &dyn Fn(Oid) -> bool,
) -> Result<()> {
    let path = reference_path(repository, name)?;
    let directory = path.parent().unwrap_or(repository.path()).to_path_buf();
    create_directories(repository.path(), &directory)?;
    let lock = match Lock::take(drafts, &path, new) {
        Err(error) if error.kind() == Kind::RefMoved && left_by_us(&path, is_ours) => {
            let stale = lock_path(&path);
            fs::remove_file(&stale).map_err(|error| Error::io("remove the stale", &stale, error))?;
            Lock::take(drafts, &path, new)?
        }
        taken => taken?,
    };
    let present = repository.reference(name)?;
    if present != expected {
        let text = format!(
            "{name} of {} stands at {} and not at {}",
            repository.path().display(),
            present.map_or_else(|| "nothing".to_owned(), |oid| oid.to_string()),
            expected.map_or_else(|| "nothing".to_owned(), |oid| oid.to_string()),
        );
        return Err(Error::new(Kind::RefMoved, text));
    }
    fault::point("ref:locked-not-moved");
    lock.commit(&path)?;
    sync_directory(&directory)?;
    fault::point("ref:moved");
    Ok(())
}

fn reference_path(repository: &Repository, name: &str) -> Result<PathBuf> {
    if !name.starts_with("refs/") || !git2::Reference::is_valid_name(name) {
        return Err(Error::new(Kind::Config, format!("{name:?} is not a name for a Git reference")));
    }
    let path = repository.path().join(name);
    // A symbolic reference here would make us lock one name and move another.
    if let Ok(text) = fs::read(&path)
        && text.starts_with(b"ref:")
    {
        let text = format!(
            "{name} of {} is a symbolic reference; name the branch it points at",
            repository.path().display()
        );
        return Err(Error::new(Kind::RemoteRefused, text));
    }
    Ok(path)
}

/// Makes the directories between `base` and `directory`, durably or not at all.
fn create_directories(base: &Path, directory: &Path) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = directory;
    while !at.exists() && at != base {
        missing.push(at.to_path_buf());
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    let made = fs::create_dir_all(directory).map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::NotADirectory
            || error.kind() == std::io::ErrorKind::AlreadyExists
        {
            "create (a branch of that name is in the way) "
        } else {
            "create"
        };
        Error::io(hint, directory, error)
    });
    let durable =
        made.and_then(|()| missing.iter().filter_map(|path| path.parent()).try_for_each(sync_directory));
    if durable.is_err() {
        // Found there next time, they would be taken for durable. Whoever uses one meanwhile keeps it.
        for directory in &missing {
            let _ = fs::remove_dir(directory);
        }
    }
    durable
}

fn left_by_us(reference: &Path, is_ours: &dyn Fn(Oid) -> bool) -> bool {
    let text = fs::read_to_string(lock_path(reference)).unwrap_or_default();
    Oid::from_str(text.trim()).is_ok_and(is_ours)
}

struct Lock {
    path: PathBuf,
    held: bool,
}

impl Lock {
    /// Takes the lock with the new value in it already, so that a lock whose holder died tells whose it was.
    fn take(drafts: &Path, reference: &Path, new: Oid) -> Result<Self> {
        let path = lock_path(reference);
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Kind::Io, format!("cannot get random bytes: {error}")))?;
        // One file for each lock: two that shared a draft would be one inode with one value.
        let draft = drafts.join(format!("{DRAFT_PREFIX}{:016x}", u64::from_ne_bytes(random)));
        let text = format!("{new}\n");
        let written = write_synced(&draft, &text);
        if let Some(directory) = path.parent() {
            ownership::follow(&draft, directory);
        }
        let linked = written.map(|()| fs::hard_link(&draft, &path));
        let _ = fs::remove_file(&draft);
        let linked = linked?;
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(held(&path)),
            // A file system without hard links: the lock is empty for a moment.
            Err(_) => match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => {
                    // From here on it is removed again, also if it cannot be written.
                    let lock = Self { path, held: true };
                    write_synced(&lock.path, &text)?;
                    return Ok(lock);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(held(&path)),
                Err(error) => return Err(Error::io("create", &path, error)),
            },
        }
        Ok(Self { path, held: true })
    }

    fn commit(mut self, reference: &Path) -> Result<()> {
        fs::rename(&self.path, reference).map_err(|error| Error::io("move into place", &self.path, error))?;
        self.held = false;
        Ok(())
    }
}

fn held(lock: &Path) -> Error {
    let text = format!("{} exists: another Git process is at work there, or one died", lock.display());
    Error::new(Kind::RefMoved, text)
}

fn write_synced(path: &Path, text: &str) -> Result<()> {
    let mut file = File::create(path).map_err(|error| Error::io("create", path, error))?;
    file.write_all(text.as_bytes()).map_err(|error| Error::io("write", path, error))?;
    file.sync_all().map_err(|error| Error::io("sync", path, error))
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.held {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock_path(reference: &Path) -> PathBuf {
    let mut name = reference.as_os_str().to_os_string();
    name.push(".lock");
    PathBuf::from(name)
}

/// Removes lock files below the repository's references (and of HEAD and packed-refs) that are older than `age`.
/// In our own repositories every lock found at a start is stale (`age` zero); elsewhere only old ones are.
/// Returns the removed ones.
pub fn sweep_stale_locks(repository: &Path, age: Duration, now: SystemTime) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    let mut directories = vec![repository.join("refs")];
    let mut candidates: Vec<PathBuf> =
        ["HEAD.lock", "packed-refs.lock", "config.lock"].iter().map(|name| repository.join(name)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind)
                    if kind.is_file() && entry.path().extension().is_some_and(|ending| ending == "lock") =>
                {
                    candidates.push(entry.path());
                }
                _ => {}
            }
        }
    }
    for entry in fs::read_dir(repository).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(DRAFT_PREFIX.as_bytes()) {
            candidates.push(entry.path());
        }
    }
    for path in candidates {
        let Ok(modified) = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified()) else {
            continue;
        };
        let old_enough = age.is_zero() || now.duration_since(modified).is_ok_and(|passed| passed >= age);
        if old_enough && fs::remove_file(&path).is_ok() {
            removed.push(path);
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Repository, Oid, Oid) {
        let scratch = tempfile::tempdir().unwrap();
        let (repository, _) =
            Repository::open_or_create(&scratch.path().join("r.git"), "refs/heads/main", "test", "owner")
                .unwrap();
        let commits: Vec<Oid> = ["one", "two"]
            .iter()
            .map(|message| {
                let git = repository.git();
                let tree = git.treebuilder(None).unwrap().write().unwrap();
                let who = git2::Signature::now("t", "t@t").unwrap();
                git.commit(None, &who, &who, message, &git.find_tree(tree).unwrap(), &[]).unwrap()
            })
            .collect();
        (scratch, repository, commits[0], commits[1])
    }

    #[test]
    fn a_reference_moves_only_from_where_it_is_expected() {
        let (_scratch, repository, one, two) = scratch();
        let name = "refs/heads/backup/main";
        move_reference(&repository, name, None, one).unwrap();
        assert_eq!(move_reference(&repository, name, None, two).unwrap_err().kind(), Kind::RefMoved);
        assert_eq!(move_reference(&repository, name, Some(two), one).unwrap_err().kind(), Kind::RefMoved);
        move_reference(&repository, name, Some(one), two).unwrap();
        assert_eq!(repository.reference(name).unwrap(), Some(two));
        let seen = std::process::Command::new("git")
            .args(["-C", repository.path().to_str().unwrap(), "rev-parse", name])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(seen.stdout).unwrap().trim(), two.to_string());
    }

    #[test]
    fn a_packed_reference_is_seen_and_moved() {
        let (_scratch, repository, one, two) = scratch();
        move_reference(&repository, "refs/heads/main", None, one).unwrap();
        let packed = std::process::Command::new("git")
            .args(["-C", repository.path().to_str().unwrap(), "pack-refs", "--all", "--prune"])
            .status()
            .unwrap();
        assert!(packed.success());
        assert!(!repository.path().join("refs/heads/main").exists());
        move_reference(&repository, "refs/heads/main", Some(one), two).unwrap();
        assert_eq!(repository.reference("refs/heads/main").unwrap(), Some(two));
    }

    #[test]
    fn a_held_lock_is_respected_and_a_stale_one_swept() {
        let (_scratch, repository, one, two) = scratch();
        let lock = repository.path().join("refs/heads/main.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!(
            move_reference(&repository, "refs/heads/main", None, one).unwrap_err().kind(),
            Kind::RefMoved
        );
        assert!(sweep_stale_locks(repository.path(), Duration::from_secs(600), SystemTime::now()).is_empty());
        assert_eq!(sweep_stale_locks(repository.path(), Duration::ZERO, SystemTime::now()), [lock]);
        fs::write(repository.path().join("refs/heads/main.lock"), format!("{one}\n")).unwrap();
        assert!(
            move_reference_over(&repository, "refs/heads/main", None, two, repository.path(), &|oid| oid
                == two)
            .is_err()
        );
        move_reference_over(&repository, "refs/heads/main", None, two, repository.path(), &|oid| oid == one)
            .unwrap();
        assert_eq!(repository.reference("refs/heads/main").unwrap(), Some(two));
        assert_eq!(
            fs::read_dir(repository.path().join("refs/heads")).unwrap().count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn names_that_are_no_references_and_symbolic_ones_are_refused() {
        let (_scratch, repository, one, _) = scratch();
        for name in ["HEAD", "refs/heads/../x", "refs/heads/a b", "main"] {
            assert_eq!(
                move_reference(&repository, name, None, one).unwrap_err().kind(),
                Kind::Config,
                "{name}"
            );
        }
        fs::write(repository.path().join("refs/heads/sym"), "ref: refs/heads/main\n").unwrap();
        assert!(move_reference(&repository, "refs/heads/sym", None, one).is_err());
    }

    #[test]
    fn moves_at_the_same_time_do_not_mix_up_their_values() {
        let (_scratch, repository, one, two) = scratch();
        let path = repository.path().to_path_buf();
        std::thread::scope(|scope| {
            for (name, value) in [("refs/heads/a", one), ("refs/heads/b", two)] {
                let path = &path;
                scope.spawn(move || {
                    let repository = Repository::open(path).unwrap();
                    let other = if value == one { two } else { one };
                    move_reference(&repository, name, None, value).unwrap();
                    for _ in 0..50 {
                        move_reference(&repository, name, Some(value), other).unwrap();
                        assert_eq!(repository.reference(name).unwrap(), Some(other));
                        move_reference(&repository, name, Some(other), value).unwrap();
                        assert_eq!(repository.reference(name).unwrap(), Some(value));
                    }
                });
            }
        });
    }
}
