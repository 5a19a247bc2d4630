//! Repositories that somebody made to do harm: built with git's plumbing, restored without any.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{said, text};
use crate::support::daemon::Setup;
use crate::support::git::git;

/// A state directory with one repository of a stranger's making.
struct Trap {
    setup: Setup,
    repository: PathBuf,
}

impl Trap {
    fn new() -> Self {
        let setup = Setup::new();
        let repository = setup.state().join("repos/documents.git");
        fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "-q", "--bare", "--initial-branch=main", "."]);
        Self { setup, repository }
    }

    fn write(&self, kind: &str, bytes: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(["hash-object", "-w", "--stdin", "--literally", "-t", kind])
            .current_dir(&self.repository)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn blob(&self, bytes: impl AsRef<[u8]>) -> String {
        self.write("blob", bytes.as_ref())
    }

    /// A tree exactly as given, however wrong.
    fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            for at in (0..40).step_by(2) {
                bytes.push(u8::from_str_radix(&id[at..at + 2], 16).unwrap());
            }
        }
        self.write("tree", &bytes)
    }

    /// Makes a commit of these roots, with metadata of `folder1` if there is any.
    fn commit(&self, root: &str, records: &[&str]) {
        let mut entries = Vec::new();
        let metadata = (!records.is_empty()).then(|| {
            let shard = self.blob(format!("{{\"backupbot\":1}}\n{}\n", records.join("\n")));
            let records = self.tree(&[("100644", b"_bb_meta", &shard)]);
            let meta = self.tree(&[("40000", b"folder1", &records)]);
            let format = self.blob("1\n");
            self.tree(&[("100644", b"format", &format), ("40000", b"meta", &meta)])
        });
        if let Some(metadata) = &metadata {
            entries.push(("40000", &b".backupbot"[..], metadata.as_str()));
        }
        entries.push(("40000", b"folder1", root));
        let top = self.tree(&entries);
        let commit = git(&self.repository, &["commit-tree", &top, "-m", "a gift"]);
        git(&self.repository, &["update-ref", "refs/heads/main", commit.trim()]);
    }

    fn restore(&self, arguments: &[&str]) -> Output {
        let state = self.setup.state();
        let out = self.setup.path("out");
        let mut all = vec!["restore", "--state-dir", text(&state), "--to", text(&out)];
        all.extend(arguments);
        self.setup.command(&all).output().unwrap()
    }

    fn out(&self, path: &str) -> PathBuf {
        self.setup.path("out/folder1").join(path)
    }

    /// The paths that could not be restored, with the reasons.
    fn problems(&self, output: &Output) -> Vec<(String, String)> {
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)));
        let problems = answer["report"]["problems"].as_array().unwrap();
        problems
            .iter()
            .map(|problem| {
                (problem["path"].as_str().unwrap().to_owned(), problem["reason"].as_str().unwrap().to_owned())
            })
            .collect()
    }
}

fn everything_below(path: &Path) -> Vec<String> {
    let mut found: Vec<String> = crate::support::tree::picture(path, |_| false)
        .into_keys()
        .map(|path| String::from_utf8_lossy(&path).into_owned())
        .collect();
    found.sort();
    found
}

#[test]
fn names_that_lead_elsewhere_are_left_out_and_named() {
    let trap = Trap::new();
    let evil = trap.blob("evil");
    let good = trap.blob("good");
    let inner = trap.tree(&[("100644", b"canary", &evil)]);
    let before = everything_below(trap.setup.scratch.path());
    for (mode, name, id) in [
        ("40000", &b".."[..], &inner),
        ("100644", b"..", &evil),
        ("40000", b".", &inner),
        ("40000", b".git", &inner),
        ("40000", b".GIT", &inner),
        ("100644", b"a/b", &evil),
        ("100644", b"/etc/evil", &evil),
        ("40000", b"_bb_..", &inner),
        ("100644", b"_bb_x%2Fy", &evil),
        ("160000", b"module", &evil),
    ] {
        let mut entries = vec![(mode, name, id.as_str()), ("100644", b"good", good.as_str())];
        entries.sort_by_key(|(_, name, _)| name.to_vec());
        trap.commit(&trap.tree(&entries), &[]);
        let output = trap.restore(&["--json"]);
        let shown = name.escape_ascii();
        assert_eq!(output.status.code(), Some(3), "{shown}: {}", said(&output));
        assert!(!trap.problems(&output).is_empty());
        let out = trap.setup.path("out");
        if out.exists() {
            let found = everything_below(&out);
            assert!(found == ["folder1/good"] || found.is_empty(), "{shown}: {found:?}");
            fs::remove_dir_all(&out).unwrap();
        }
        let after = everything_below(trap.setup.scratch.path());
        let strays: Vec<_> =
            after.iter().filter(|path| !before.contains(path) && !path.starts_with("state/")).collect();
        assert!(strays.is_empty(), "{shown}: {strays:?}");
    }
}

#[test]
fn a_link_and_a_directory_of_one_name_cannot_be_written_through() {
    let trap = Trap::new();
    let outside = trap.setup.path("outside");
    fs::create_dir(&outside).unwrap();
    let link = trap.blob(text(&outside));
    let evil = trap.blob("evil");
    let inner = trap.tree(&[("100644", b"canary", &evil)]);
    // Twice in one tree; and one after the other, in two snapshots.
    trap.commit(&trap.tree(&[("120000", b"x", &link), ("40000", b"x", &inner)]), &[]);
    let output = trap.restore(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let _ = fs::remove_dir_all(trap.setup.path("out"));
    trap.commit(&trap.tree(&[("120000", b"x", &link)]), &[]);
    assert_eq!(trap.restore(&["--json"]).status.code(), Some(0));
    trap.commit(&trap.tree(&[("40000", b"x", &inner)]), &[]);
    let output = trap.restore(&["--json", "--overwrite=changed"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let output = trap.restore(&["--json", "--overwrite=always"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(fs::read(trap.out("x/canary")).unwrap(), b"evil");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn metadata_that_lies_costs_the_metadata_and_not_the_content() {
    let trap = Trap::new();
    let content = trap.blob("content");
    let root = trap.tree(&[("100755", b"f", &content)]);
    let dot = r#"{"name":".","kind":"dir","mode":"0755","uid":0,"gid":0,"mtime":"1600000000.000000000"}"#;
    let record = |size: u64, hash: &str| {
        format!(
            r#"{{"name":"f","kind":"file","mode":"6777","uid":0,"gid":0,"mtime":"1600000000.000000000","size":{size},"blake3":"{hash}"}}"#
        )
    };
    let wrong = "0".repeat(64);
    let right = blake3::hash(b"content").to_hex().to_string();
    for lie in [record(7, &wrong), record(8, &right)] {
        trap.commit(&root, &[dot, &lie]);
        let output = trap.restore(&["--json", "--verify"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("metadata does not fit"), "{}", said(&output));
        assert_eq!(fs::read(trap.out("f")).unwrap(), b"content");
        let mode = fs::metadata(trap.out("f")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777, 0o700, "no power from what lies");
        fs::remove_dir_all(trap.setup.path("out")).unwrap();
    }
    // What does not lie is obeyed, unless that is not wanted.
    trap.commit(&root, &[dot, &record(7, &right)]);
    let output = trap.restore(&["--no-set-id"]);
    assert!(said(&output).contains("set-id bits, which were left out"), "{}", said(&output));
    let mode = fs::metadata(trap.out("f")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777, 0o777);
    fs::remove_dir_all(trap.setup.path("out")).unwrap();

    for garbage in
        ["not json", r#"{"name":"../f","kind":"file","mode":"0644","uid":0,"gid":0,"mtime":"0.000000000"}"#]
    {
        trap.commit(&root, &[dot, garbage]);
        let output = trap.restore(&["--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(fs::read(trap.out("f")).unwrap(), b"content");
        fs::remove_dir_all(trap.setup.path("out")).unwrap();
    }
}

#[test]
fn an_object_that_is_not_what_its_name_says_is_not_restored() {
    let trap = Trap::new();
    let (good, bad) = (trap.blob("good"), trap.blob("as it should be"));
    let other = trap.blob("another object");
    let missing = "1".repeat(40);
    let root =
        trap.tree(&[("100644", b"bad", &bad), ("100644", b"good", &good), ("100644", b"missing", &missing)]);
    let at = |id: &str| trap.repository.join("objects").join(&id[..2]).join(&id[2..]);
    fs::remove_file(at(&bad)).unwrap();
    fs::copy(at(&other), at(&bad)).unwrap();
    trap.commit(&root, &[]);
    let output = trap.restore(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let paths: Vec<String> = trap.problems(&output).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["folder1/bad", "folder1/missing"]);
    assert_eq!(everything_below(&trap.setup.path("out")), ["folder1/good"]);
}

#[test]
fn what_lies_beside_the_roots_is_named_and_not_passed_over_in_silence() {
    let trap = Trap::new();
    let good = trap.blob("good");
    let inner = trap.tree(&[("100644", b"file", &good)]);
    let top = trap.tree(&[
        ("100644", b".gitattributes", &good),
        ("100644", b"README", &good),
        ("40000", b"folder1", &inner),
        ("40000", b"odd\\name", &inner),
    ]);
    let commit = git(&trap.repository, &["commit-tree", &top, "-m", "somebody's project"]);
    git(&trap.repository, &["update-ref", "refs/heads/main", commit.trim()]);
    let output = trap.restore(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let paths: Vec<String> = trap.problems(&output).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["README", "odd\\name"]);
    assert_eq!(everything_below(&trap.setup.path("out")), ["folder1/file"]);
    fs::remove_dir_all(trap.setup.path("out")).unwrap();
    assert_eq!(trap.restore(&["folder1"]).status.code(), Some(0), "who asks for a root gets it");
}

#[test]
fn a_bomb_of_trees_is_refused_before_anything_is_written() {
    let trap = Trap::new();
    let empty = trap.blob("");
    let names: Vec<String> = (0..40).map(|number| format!("n{number:02}")).collect();
    let mut tree = {
        let entries: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), empty.as_str())).collect();
        trap.tree(&entries)
    };
    for _ in 0..5 {
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_bytes(), tree.as_str())).collect();
        tree = trap.tree(&entries);
    }
    trap.commit(&tree, &[]);
    let output = trap.restore(&["folder1"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("--no-limits"), "{}", said(&output));
    assert!(!trap.out("n00").exists());
}

#[test]
fn what_stands_in_for_a_file_is_told_and_comes_only_when_asked_for() {
    let trap = Trap::new();
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n", "0".repeat(64));
    let (crypt, plain, lfs) = (trap.blob(b"\0GITCRYPT\0xyz"), trap.blob("plain"), trap.blob(&pointer));
    let root =
        trap.tree(&[("100644", b"crypt", &crypt), ("100644", b"lfs", &lfs), ("100644", b"plain", &plain)]);
    trap.commit(&root, &[]);
    let output = trap.restore(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let problems = trap.problems(&output);
    assert!(problems[0].1.contains("git-crypt") && problems[1].1.contains("git-lfs"), "{problems:?}");
    assert_eq!(everything_below(&trap.setup.path("out")), ["folder1/plain"]);
    fs::remove_dir_all(trap.setup.path("out")).unwrap();
    assert_eq!(trap.restore(&["--raw"]).status.code(), Some(0));
    assert_eq!(fs::read(trap.out("lfs")).unwrap(), pointer.as_bytes());
}

#[test]
fn depths_lengths_and_targets_beyond_reason_stop_nothing_else() {
    let trap = Trap::new();
    let (good, long_link) = (trap.blob("good"), trap.blob("x".repeat(70_000)));
    let null_link = trap.blob(b"a\0b");
    let empty_link = trap.blob("");
    let long_name = vec![b'n'; 300];
    let mut deep = trap.tree(&[("100644", b"bottom", &good)]);
    for _ in 0..4200 {
        deep = trap.tree(&[("40000", b"d", &deep)]);
    }
    let root = trap.tree(&[
        ("40000", b"d", &deep),
        ("120000", b"empty", &empty_link),
        ("100644", b"good", &good),
        ("120000", b"long", &long_link),
        ("100644", &long_name, &good),
        ("120000", b"null", &null_link),
    ]);
    trap.commit(&root, &[]);
    let output = trap.restore(&["--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let problems = trap.problems(&output);
    assert_eq!(problems.len(), 5, "{:?}", problems.iter().map(|(_, reason)| reason).collect::<Vec<_>>());
    assert_eq!(fs::read(trap.out("good")).unwrap(), b"good");
    // Too deep for the standard library's way of removing it by path.
    assert!(Command::new("rm").arg("-rf").arg(trap.setup.path("out")).status().unwrap().success());
}
