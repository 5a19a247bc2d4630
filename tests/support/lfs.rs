//! Git with git-lfs as the judge of large files: what its users get from a repository of ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::daemon::Setup;
use super::git::assert_same;
use super::tree::{picture, undo_escapes};

/// A directory with a configuration of Git in which git-lfs is installed, and nothing else.
pub struct GitLfs {
    home: tempfile::TempDir,
}

impl GitLfs {
    /// As `git lfs install` leaves a new user's home.
    pub fn new() -> Self {
        let lfs = Self { home: tempfile::tempdir().unwrap() };
        fs::write(lfs.home.path().join("gitconfig"), "").unwrap();
        lfs.git(lfs.home.path(), &["lfs", "install", "--skip-repo"]);
        lfs
    }

    /// Runs git, whatever it says.
    pub fn try_git(&self, at: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(at).env("LC_ALL", "C").env("HOME", self.home.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", self.home.path().join("gitconfig"));
        command.env("GIT_TERMINAL_PROMPT", "0").output().unwrap()
    }

    /// Runs git, which must succeed; what it printed.
    pub fn git(&self, at: &Path, arguments: &[&str]) -> String {
        let output = self.try_git(at, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A clone of the repository at a local path, its large files in place.
    pub fn clone(&self, repository: &Path) -> tempfile::TempDir {
        let clone = tempfile::tempdir().unwrap();
        let source = format!("file://{}", repository.display());
        self.git(clone.path(), &["clone", "-q", "-b", "main", &source, "."]);
        clone
    }

    /// The clone is the root, git-lfs finds nothing wrong in it; the names of the large files, without their root's.
    pub fn large_files_of_equal_clone(&self, repository: &Path, root: &Path) -> BTreeSet<String> {
        let clone = self.clone(repository);
        let is_generated =
            |path: &[u8]| path.split(|byte| *byte == b'/').next_back() == Some(b".gitattributes");
        let stored = undo_escapes(&picture(&clone.path().join("folder1"), is_generated));
        assert_same(&picture(root, |_| false), &stored, "folder1");
        self.git(clone.path(), &["lfs", "fsck"]);
        let listed = self.git(clone.path(), &["lfs", "ls-files", "--name-only"]);
        // It prints names as they are, and a newline may be in one.
        let listed = format!("\n{}", listed.strip_suffix('\n').unwrap_or(&listed));
        listed.split("\nfolder1/").skip(1).map(str::to_owned).collect()
    }
}

/// The files of the large contents in a repository.
pub fn objects(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![repository.join("lfs/objects")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().unwrap().is_dir();
            if is_directory { pending.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// The large contents in a repository: how many, and how many bytes.
pub fn stored(repository: &Path) -> (usize, u64) {
    let objects = objects(repository);
    (objects.len(), objects.iter().map(|path| fs::metadata(path).unwrap().len()).sum())
}

/// Everything that must be true of repositories with large files once the program has stopped after a flush; the names of the
/// large files.
pub fn assert_all_is_well(setup: &Setup, lfs: &GitLfs) -> BTreeSet<String> {
    let mut large = BTreeSet::new();
    for judge in [setup.remote(), setup.local()] {
        large = lfs.large_files_of_equal_clone(&judge.path, &setup.root());
        judge.assert_sound();
        judge.assert_tidy("main");
        let left = fs::read_dir(judge.path.join("lfs/tmp")).into_iter().flatten();
        assert_eq!(left.map(|entry| entry.unwrap().path()).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
    assert_eq!(super::daemon::leftovers(&setup.state()), Vec::<PathBuf>::new());
    large
}
