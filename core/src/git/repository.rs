//! Bare repositories on disk: made whole or not at all, opened without anybody's configuration.
//!
//! A new repository is built under a temporary name, synced file by file, and renamed into place, so that no
//! crash leaves half of one. Opening resets libgit2's search paths first: no system, user or global
//! configuration, no hooks and no attributes take part in anything this program does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use git2::{Oid, RepositoryInitOptions, RepositoryOpenFlags};

use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::objects::ObjectDatabase;
use crate::git::pack::PackSet;
use crate::path::lossy;

/// Temporary directories of repositories in the making end so; a start sweeps them.
const UNFINISHED_SUFFIX: &str = ".unfinished";

/// How much of a pack libgit2 maps at a time.
const MAPPED_AT_ONCE: usize = 16 * 1024 * 1024;
/// How much of all packs together it keeps mapped when nobody reads there.
const MAPPED_BYTES: usize = 64 * 1024 * 1024;

static SETTINGS: Once = Once::new();
/// Two parts of this process may want to make the same repository: one after the other.
static MAKING: Mutex<()> = Mutex::new(());

/// What the configuration of a repository in the state directory says of who made it, and whose its leftovers are.
pub const OWN_ORIGIN: &str = "state";

/// Makes libgit2 ignore every configuration but the repository's own. Idempotent.
#[allow(unsafe_code)]
fn settle_library() {
    SETTINGS.call_once(|| {
        use git2::ConfigLevel;
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            // SAFETY: unsafe only because it writes a global without a lock; `Once` runs it before any
            // repository of this process is opened, because opening goes through this file.
            let _ = unsafe { git2::opts::set_search_path(level, "") };
        }
        // SAFETY: as above. A NAS export or a volume often belongs to another user; nothing of a repository's
        // configuration is executed here, which is what the ownership check is there to prevent.
        let _ = unsafe { git2::opts::set_verify_owner_validation(false) };
        // It maps packs and keeps them mapped, up to gigabytes after some days, all of which count as this process's
        // memory. SAFETY: as above.
        let _ = unsafe { git2::opts::set_mwindow_size(MAPPED_AT_ONCE) };
        let _ = unsafe { git2::opts::set_mwindow_mapped_limit(MAPPED_BYTES) };
        // libgit2's own limit on open packs stays off: closing one that another thread reads has crashed it
        // (1.9). Packs are kept few instead, by merging them: see `limits::packs_piled_up`.
    });
}

/// Turns libgit2's error into ours, with the place.
pub fn git_error(doing: &str, path: &Path, error: git2::Error) -> Error {
    let context = format!("cannot {doing} {}", lossy(path.as_os_str().as_encoded_bytes()));
    Error::with_source(Kind::Git, context, error)
}

/// Whether a repository was found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It stood there.
    Found,
    /// It was made just now.
    Created,
}

/// A bare repository on disk.
pub struct Repository {
    path: PathBuf,
    inner: git2::Repository,
}

impl Repository {
    /// Opens the bare repository at `path`.
    ///
    /// # Errors
    /// [`Kind::RemoteRefused`] for what no retry changes: a repository with a work tree, SHA-256 object ids, or
    /// the reftable format. [`Kind::Git`] for everything that is no repository.
    pub fn open(path: &Path) -> Result<Self> {
        settle_library();
        let flags =
            RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::NO_DOTGIT | RepositoryOpenFlags::BARE;
        let none: [&Path; 0] = [];
        refuse_foreign_formats(path)?;
        let inner = git2::Repository::open_ext(path, flags, none)
            .map_err(|error| git_error("open the Git repository", path, error))?;
        Ok(Self { path: path.to_path_buf(), inner })
    }

    /// Opens the repository at `path`, or makes a bare one with HEAD at `branch` (in full) if nothing is there.
    /// `owner` tells whose leftovers those of a killed making are ([`crate::git::workshop::owner_of`]).
    pub fn open_or_create(path: &Path, branch: &str, origin: &str, owner: &str) -> Result<(Self, Origin)> {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        sweep_unfinished(path, owner)?;
        match fs::symlink_metadata(path) {
            Ok(_) if is_empty_directory(path) => {}
            Ok(_) => return Ok((Self::open(path)?, Origin::Found)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", path, error)),
        }
        let origin = create_whole(path, branch, origin, owner)?;
        Ok((Self::open(path)?, origin))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its packs are.
    pub fn pack_directory(&self) -> PathBuf {
        self.path.join("objects/pack")
    }

    /// libgit2's view of it, for reading objects and history.
    pub fn git(&self) -> &git2::Repository {
        &self.inner
    }

    /// Its objects.
    pub fn objects(&self) -> Result<ObjectDatabase<'_>> {
        let objects =
            self.inner.odb().map_err(|error| git_error("read the objects of", &self.path, error))?;
        Ok(ObjectDatabase::new(objects, &self.path))
    }

    /// Where a reference stands, symbolic ones followed; `None` if there is none.
    pub fn reference(&self, name: &str) -> Result<Option<Oid>> {
        match self.inner.refname_to_id(name) {
            Ok(oid) => Ok(Some(oid)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(git_error(&format!("read {name} of"), &self.path, error)),
        }
    }

    /// All references that point at objects, with their full names.
    pub fn references(&self) -> Result<Vec<(String, Oid)>> {
        let fail = |error| git_error("list the references of", &self.path, error);
        let mut found = Vec::new();
        for reference in self.inner.references().map_err(fail)? {
            let reference = reference.map_err(fail)?;
            if let (Ok(name), Some(target)) = (reference.name(), reference.target()) {
                found.push((name.to_owned(), target));
            }
        }
        Ok(found)
    }

    /// Every tag that leads to a commit, with the commit and its name without `refs/tags/`.
    pub fn tags(&self) -> Result<Vec<(Oid, String)>> {
        let mut tags = Vec::new();
        for (name, target) in self.references()? {
            let Some(name) = name.strip_prefix("refs/tags/") else { continue };
            let commit =
                self.inner.find_object(target, None).and_then(|object| object.peel(git2::ObjectType::Commit));
            // One that leads elsewhere, or nowhere, marks no commit.
            tags.extend(commit.map(|commit| (commit.id(), name.to_owned())));
        }
        Ok(tags)
    }

    /// The tree of a commit.
    pub fn tree_of(&self, commit: Oid) -> Result<Oid> {
        let found = self.inner.find_commit(commit);
        found
            .map(|commit| commit.tree_id())
            .map_err(|error| git_error(&format!("read commit {commit} of"), &self.path, error))
    }

    /// The message of a commit, lossy.
    pub fn message_of(&self, commit: Oid) -> Result<String> {
        let found = self.inner.find_commit(commit);
        let found =
            found.map_err(|error| git_error(&format!("read commit {commit} of"), &self.path, error))?;
        Ok(String::from_utf8_lossy(found.message_bytes()).into_owned())
    }

    /// Whether `ancestor` is `descendant` or in its history; false when either is not here.
    pub fn is_ancestor(&self, ancestor: Oid, descendant: Oid) -> Result<bool> {
        if ancestor == descendant {
            return Ok(true);
        }
        if !self.holds(ancestor)? || !self.holds(descendant)? {
            return Ok(false);
        }
        self.inner
            .graph_descendant_of(descendant, ancestor)
            .map_err(|error| git_error("walk the history of", &self.path, error))
    }

    /// The newest commit that is in the history of both; `None` if there is none, or one of them is not here.
    pub fn common_ancestor(&self, one: Oid, other: Oid) -> Result<Option<Oid>> {
        if !self.has_commit(one) || !self.has_commit(other) {
            return Ok(None);
        }
        match self.inner.merge_base(one, other) {
            Ok(base) => Ok(Some(base)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(git_error("walk the history of", &self.path, error)),
        }
    }

    /// Whether every commit from `tip` down to the first is here.
    ///
    /// # Errors
    /// [`Kind::Git`] names the place where the history breaks off.
    pub fn check_history(&self, tip: Oid) -> Result<()> {
        let fail = |error| git_error("walk the history of", &self.path, error);
        let mut commits = self.inner.revwalk().map_err(fail)?;
        commits.push(tip).map_err(fail)?;
        commits.try_for_each(|commit| commit.map(|_| ()).map_err(fail))
    }

    /// Whether the commit is here, where the answer decides something: libgit2 calls absent whatever it could not
    /// open just now.
    pub fn holds(&self, commit: Oid) -> Result<bool> {
        if self.has_commit(commit) {
            return Ok(true);
        }
        let packs = PackSet::open(&self.pack_directory())?;
        let is_passing = |problem: &&Error| {
            let source = std::error::Error::source(*problem)
                .and_then(|source| source.downcast_ref::<std::io::Error>());
            problem.kind() == Kind::Io
                && source.is_some_and(|source| source.kind() != std::io::ErrorKind::NotFound)
        };
        match packs.problems().iter().find(is_passing) {
            Some(problem) => {
                let place = lossy(self.path.as_os_str().as_encoded_bytes());
                let text = format!("whether commit {commit} is in {place} cannot be told now: {problem}");
                Err(Error::new(Kind::Io, text))
            }
            // Opened a moment later it may be there after all.
            None => Ok(self.has_commit(commit) || packs.contains(&commit)?),
        }
    }

    /// Whether the commit can be read here.
    pub fn has_commit(&self, commit: Oid) -> bool {
        self.inner.find_commit(commit).is_ok()
    }
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn refuse_foreign_formats(path: &Path) -> Result<()> {
    let place = lossy(path.as_os_str().as_encoded_bytes());
    if path.join(".git").symlink_metadata().is_ok() {
        let text = format!(
            "{place} has a work tree; a backup goes to a bare repository: make one with `git init --bare`, or name a path that does not exist"
        );
        return Err(Error::new(Kind::RemoteRefused, text));
    }
    let config = path.join("config");
    let Ok(text) = fs::read_to_string(&config) else {
        return Ok(());
    };
    for line in text.lines().map(|line| line.trim().to_ascii_lowercase().replace(' ', "")) {
        if line == "objectformat=sha256" {
            let text = format!(
                "{place} uses SHA-256 object ids, which Git hosts and this program do not take yet: make one with `git init --bare --object-format=sha1`"
            );
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        if line == "refstorage=reftable" {
            let text = format!(
                "{place} keeps its references in the reftable format, which this program cannot write: make one with `git init --bare --ref-format=files`"
            );
            return Err(Error::new(Kind::RemoteRefused, text));
        }
    }
    Ok(())
}

/// Where the repository for `path` is made before it is put in place.
fn unfinished_place(path: &Path, owner: &str) -> Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Kind::Config, format!("{} cannot be a repository", path.display())));
    };
    fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
    let mut unfinished = name.to_os_string();
    unfinished.push(format!("-{owner}{UNFINISHED_SUFFIX}"));
    Ok(parent.join(unfinished))
}

/// Makes an empty repository beside `path`, for [`put_in_place`]; what an earlier run left there is removed.
pub(crate) fn make_beside(path: &Path, branch: &str, origin: &str, owner: &str) -> Result<PathBuf> {
    settle_library();
    sweep_unfinished(path, owner)?;
    let unfinished = unfinished_place(path, owner)?;
    let mut options = RepositoryInitOptions::new();
    let head = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    options.bare(true).external_template(false).no_reinit(true).initial_head(head);
    let made = git2::Repository::init_opts(&unfinished, &options)
        .map_err(|error| git_error("create the Git repository", &unfinished, error))?;
    let set = |key: &str, value: &str| -> std::result::Result<(), git2::Error> {
        made.config()?.set_str(key, value)
    };
    // Packs are ours to manage; `git gc` started by some other tool must not race with us.
    set("gc.auto", "0").map_err(|error| git_error("configure", &unfinished, error))?;
    set("backupbot.origin", origin).map_err(|error| git_error("configure", &unfinished, error))?;
    drop(made);
    // libgit2 does not tell when it could not remove a lock; here nobody else can hold one.
    super::refs::sweep_stale_locks(&unfinished, Duration::ZERO, SystemTime::now());
    Ok(unfinished)
}

/// Makes everything in `made` durable and moves it to `path`, where nothing may stand.
pub(crate) fn put_in_place(made: &Path, path: &Path) -> Result<()> {
    sync_tree(made)?;
    fs::rename(made, path).map_err(|error| Error::io("rename into place", made, error))?;
    sync_directory(path.parent().unwrap_or(path))
}

fn create_whole(path: &Path, branch: &str, origin: &str, owner: &str) -> Result<Origin> {
    let unfinished = make_beside(path, branch, origin, owner)?;
    let parent = unfinished.parent().unwrap_or(path).to_path_buf();
    fault::point("repository:made-not-synced");
    sync_tree(&unfinished)?;
    fault::point("repository:synced-not-renamed");
    if is_empty_directory(path) {
        fs::remove_dir(path).map_err(|error| Error::io("replace the empty directory", path, error))?;
    }
    match fs::rename(&unfinished, path) {
        Ok(()) => {}
        // Somebody else made it in the same moment: theirs is as good as ours.
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            remove_if_there(&unfinished)?;
            return Ok(Origin::Found);
        }
        Err(error) => return Err(Error::io("rename into place", &unfinished, error)),
    }
    if let Err(error) = sync_directory(&parent) {
        // Found there next time, it would be taken for durable: it is made anew instead.
        let _ = fs::rename(path, &unfinished);
        return Err(error);
    }
    fault::point("repository:renamed");
    Ok(Origin::Created)
}

/// Removes what a crash of `owner` left of the repository at `path` in the making, beside it.
fn sweep_unfinished(path: &Path, owner: &str) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let mut unfinished = name.to_os_string();
    unfinished.push(format!("-{owner}{UNFINISHED_SUFFIX}"));
    remove_if_there(&parent.join(unfinished))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error)
            if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Syncs every file and directory below `directory`, children first.
fn sync_tree(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))? {
        let entry = entry.map_err(|error| Error::io("list", directory, error))?;
        let path = entry.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            sync_file(&path)?;
        }
    }
    sync_directory(directory)
}

/// Makes a file's content durable.
pub fn sync_file(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    file.sync_all().map_err(|error| Error::io("sync", path, error))
}

/// Makes a directory's names durable.
pub fn sync_directory(path: &Path) -> Result<()> {
    super::pack::sync_directory(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_repository_is_bare_with_head_at_the_branch_and_leaves_no_rest() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("deep/er/documents.git");
        let (repository, origin) =
            Repository::open_or_create(&path, "refs/heads/backup/main", "local", "o").unwrap();
        assert_eq!(origin, Origin::Created);
        assert!(repository.git().is_bare());
        assert_eq!(fs::read_to_string(path.join("HEAD")).unwrap(), "ref: refs/heads/backup/main\n");
        assert_eq!(repository.reference("refs/heads/backup/main").unwrap(), None);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let (_, origin) = Repository::open_or_create(&path, "refs/heads/other", "local", "o").unwrap();
        assert_eq!(origin, Origin::Found);
    }

    #[test]
    fn formats_that_we_cannot_write_are_refused_with_the_remedy() {
        let scratch = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let status =
                std::process::Command::new("git").args(arguments).current_dir(scratch.path()).output();
            assert!(status.unwrap().status.success(), "{arguments:?}");
        };
        git(&["init", "-q", "--bare", "--object-format=sha256", "sha256.git"]);
        git(&["init", "-q", "tree"]);
        for (name, word) in [("sha256.git", "sha1"), ("tree", "--bare")] {
            let Err(error) = Repository::open(&scratch.path().join(name)) else {
                panic!("{name} was opened")
            };
            assert_eq!(error.kind(), Kind::RemoteRefused);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_directory_that_is_no_repository_is_not_touched() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("letter.txt"), "dear").unwrap();
        assert!(Repository::open_or_create(scratch.path(), "refs/heads/main", "local", "o").is_err());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_left_of_a_making_is_swept_by_its_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.git");
        fs::create_dir_all(scratch.path().join("x.git-us.unfinished/objects")).unwrap();
        fs::create_dir_all(scratch.path().join("x.git-them.unfinished")).unwrap();
        Repository::open_or_create(&path, "refs/heads/main", "test", "us").unwrap();
        let mut left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["x.git", "x.git-them.unfinished"]);
    }

    #[test]
    fn many_that_want_the_same_repository_get_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.git");
        let made: Vec<bool> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || {
                        let owner = n.to_string();
                        let made = Repository::open_or_create(path, "refs/heads/main", "test", &owner);
                        made.unwrap().1 == Origin::Created
                    })
                })
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|created| **created).count(), 1);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
