//! The real `git` as the judge of what this crate writes: a bare repository in a scratch directory and a way
//! to run commands in it that sees nobody's configuration.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use git2::{Odb, Oid};

use crate::git::objects::ObjectDatabase;

pub(crate) struct Judge {
    directory: tempfile::TempDir,
    repository: git2::Repository,
}

impl Judge {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Command::new("git")
            .args(["init", "--quiet", "--bare", "--template="])
            .arg(directory.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status();
        assert!(made.unwrap().success());
        let repository = git2::Repository::open_bare(directory.path()).unwrap();
        Self { directory, repository }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn objects(&self) -> ObjectDatabase<'_> {
        ObjectDatabase::new(self.repository.odb().unwrap(), self.path())
    }

    /// A database that reads the repository and keeps what is written in memory: fast, unseen by git.
    pub(crate) fn objects_in_memory(&self) -> ObjectDatabase<'static> {
        let objects = Odb::new().unwrap();
        objects.add_disk_alternate(self.path().join("objects").to_str().unwrap()).unwrap();
        objects.add_new_mempack_backend(1000).unwrap();
        ObjectDatabase::new(objects, self.path())
    }

    pub(crate) fn write_blob(&self, content: &[u8]) -> Oid {
        self.repository.blob(content).unwrap()
    }

    /// Runs git with `input`, whatever its exit code.
    pub(crate) fn try_git<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        let mut child = Command::new("git")
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_INDEX_FILE", self.path().join("index"))
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@example.org")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@example.org")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A git that fails early closes its end; its exit code tells.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output().unwrap()
        })
    }

    /// Runs git with `input`, which must succeed, and returns its output.
    pub(crate) fn git_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Vec<u8> {
        let output = self.try_git(arguments, input);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git: {complaint}");
        output.stdout
    }

    /// Runs git, which must succeed, and returns its output.
    pub(crate) fn git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
        self.git_with(arguments, b"")
    }

    /// Commits `tree` to the branch `main`, where HEAD points.
    pub(crate) fn commit(&self, tree: Oid) -> Oid {
        let commit = self.git(["commit-tree", "-m", "a backup", &tree.to_string()]);
        let commit = String::from_utf8(commit).unwrap().trim().to_owned();
        self.git(["update-ref", "refs/heads/main", &commit]);
        self.git(["symbolic-ref", "HEAD", "refs/heads/main"]);
        Oid::from_str(&commit).unwrap()
    }

    /// What the strictest check finds in the whole repository; empty if it is clean.
    pub(crate) fn fsck(&self) -> String {
        let output = self.try_git(["fsck", "--strict", "--full", "--no-dangling", "--no-progress"], b"");
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success() || !text.is_empty());
        text
    }
}
