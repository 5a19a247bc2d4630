//! The judge: the real `git`, without anybody's configuration.
//!
//! It says whether repositories are sound, whether history is a tidy line, and whether a plain clone is the
//! watched directories byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::tree::{Picture, picture, undo_escapes};

/// A file with the few settings that these tests need: repositories of another user are judged too.
fn settings() -> &'static Path {
    static FILE: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let make = || {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[safe]\n\tdirectory = *\n").unwrap();
        file
    };
    FILE.get_or_init(make).path()
}

/// `git` in `directory`, hearing nobody's settings.
fn command<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).args(arguments);
    // What this machine says about certificates and proxies would count more than a test's arguments.
    for name in
        ["GIT_SSL_CAINFO", "GIT_SSL_NO_VERIFY", "http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"]
    {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", settings()).env("LC_ALL", "C");
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "Somebody").env(format!("GIT_{name}_EMAIL"), "some@body");
    }
    command
}

/// Runs `git` and returns what it says, however it ends.
pub fn try_git<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Output {
    command(directory, arguments).output().expect("git runs")
}

/// Runs `git`, which must succeed, and returns its output.
pub fn git<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> String {
    let output = try_git(directory, arguments);
    let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {shown:?} in {}: {errors}", directory.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One commit as the judge sees it.
#[derive(Debug, Clone)]
pub struct Commit {
    pub id: String,
    pub parents: Vec<String>,
    pub tree: String,
}

/// A bare repository under judgement.
#[derive(Debug, Clone)]
pub struct Judge {
    pub path: PathBuf,
}

impl Judge {
    /// Judges the repository at `path`, which may not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where a reference or expression points; `None` if nowhere.
    pub fn resolve(&self, expression: &str) -> Option<String> {
        if !self.path.join("HEAD").exists() {
            return None;
        }
        let wanted = format!("{expression}^{{commit}}");
        let output = try_git(&self.path, &["rev-parse", "--verify", "--quiet", &wanted]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The tip of a branch.
    pub fn tip(&self, branch: &str) -> Option<String> {
        self.resolve(&format!("refs/heads/{branch}"))
    }

    /// Every reference by name.
    pub fn references(&self) -> BTreeMap<String, String> {
        let listed = git(&self.path, &["for-each-ref", "--format=%(refname) %(objectname)"]);
        listed.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.into(), b.into())).collect()
    }

    /// The history of `expression`, newest first.
    pub fn history(&self, expression: &str) -> Vec<Commit> {
        let listed = git(&self.path, &["log", "--format=%H/%T/%P", expression]);
        let parse = |line: &str| {
            let mut fields = line.split('/');
            let mut next = || fields.next().unwrap_or_default().to_owned();
            let (id, tree) = (next(), next());
            Commit { id, tree, parents: next().split_whitespace().map(str::to_owned).collect() }
        };
        listed.lines().map(parse).collect()
    }

    /// The bytes of a file in a commit; `None` if it is not there.
    pub fn blob(&self, expression: &str, path: &str) -> Option<Vec<u8>> {
        if !self.path.join("HEAD").exists() {
            return None;
        }
        let output = try_git(&self.path, &["cat-file", "blob", &format!("{expression}:{path}")]);
        output.status.success().then_some(output.stdout)
    }

    /// Whether `older` is in the history of `newer`.
    pub fn is_ancestor(&self, older: &str, newer: &str) -> bool {
        try_git(&self.path, &["merge-base", "--is-ancestor", older, newer]).status.success()
    }

    /// Every object is there and well-formed, and no commit or tree lies about that no reference needs. (A blob
    /// may, in our own repository: of a file that changed while it was streamed into a pack.)
    pub fn assert_sound(&self) {
        let output = try_git(&self.path, &["fsck", "--full", "--strict", "--no-progress"]);
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        let is_harmless = |line: &str| line.starts_with("notice:") || line.starts_with("dangling blob");
        let complaints: Vec<&str> = said.lines().filter(|line| !is_harmless(line)).collect();
        assert!(
            output.status.success() && complaints.is_empty(),
            "git fsck of {}: {complaints:#?}",
            self.path.display()
        );
    }

    /// One line of commits, none of which has the tree of its parent.
    pub fn assert_tidy(&self, expression: &str) {
        let history = self.history(expression);
        let trees: BTreeMap<&str, &str> =
            history.iter().map(|commit| (commit.id.as_str(), commit.tree.as_str())).collect();
        for commit in &history {
            assert!(commit.parents.len() <= 1, "{} is a merge", commit.id);
            for parent in &commit.parents {
                assert_ne!(trees[parent.as_str()], commit.tree, "{} changes nothing", commit.id);
            }
        }
        let beginnings = history.iter().filter(|commit| commit.parents.is_empty()).count();
        assert_eq!(beginnings, 1, "a history has one beginning");
    }

    /// Clones over the real protocol into a new directory.
    pub fn clone_to(&self, target: &Path, branch: &str) {
        let from = format!("file://{}", self.path.display());
        let parent = target.parent().expect("a directory to clone into");
        let target = target.to_str().expect("a plain name");
        git(parent, &["clone", "--quiet", "--branch", branch, &from, target]);
        let state = git(Path::new(target), &["status", "--porcelain"]);
        assert_eq!(state, "", "a fresh clone is what was committed");
    }
}

/// Clones `branch` and compares every watched directory with its directory in the clone. Of a root, `leave_out`
/// says what is not expected there.
pub fn assert_clone_equals(
    remote: &Path,
    branch: &str,
    roots: &[(&str, &Path)],
    leave_out: impl Fn(&[u8]) -> bool + Copy,
) {
    let scratch = tempfile::tempdir().unwrap();
    let clone = scratch.path().join("clone");
    Judge::new(remote).clone_to(&clone, branch);
    let mut expected_names: BTreeSet<String> = roots.iter().map(|(name, _)| (*name).to_owned()).collect();
    for own in [".git", ".backupbot", ".gitattributes"] {
        expected_names.insert(own.to_owned());
    }
    for entry in std::fs::read_dir(&clone).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(expected_names.contains(&name), "{name} does not belong into the repository");
    }
    for (name, path) in roots {
        let stored = undo_escapes(&picture(&clone.join(name), |_| false));
        let source = picture(path, leave_out);
        assert_same(&source, &stored, name);
    }
}

/// Names what differs; a whole picture would be unreadable.
pub fn assert_same(expected: &Picture, found: &Picture, place: &str) {
    let shown = |path: &[u8]| path.escape_ascii().to_string();
    let mut differences = Vec::new();
    for (path, thing) in expected {
        match found.get(path) {
            None => differences.push(format!("missing: {}", shown(path))),
            Some(other) if other != thing => {
                differences.push(format!("different: {}: {thing:?} against {other:?}", shown(path)));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|path| !expected.contains_key(*path));
    differences.extend(surplus.map(|path| format!("too much: {}", shown(path))));
    let number = differences.len();
    differences.truncate(20);
    assert!(differences.is_empty(), "{place}: {number} differences: {differences:#?}");
}
