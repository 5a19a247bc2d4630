//! `restore`: what comes back is what was there, byte for byte and mode for mode; what stands there is treated as was
//! said; what cannot be restored is named; and what was done in place can be undone.

mod from;
mod hostile;
mod in_place;
#[cfg(feature = "fault-points")]
mod killed;
mod target;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::git::assert_clone_equals;
use crate::support::tree::{corpus, write};
use crate::support::{Random, seed};

/// Everything that a restore brings back of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portrait {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub content: Vec<u8>,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first path of the same file.
    pub first_name: Option<Vec<u8>>,
}

/// Everything below `root`, and the directory itself.
pub fn portraits(root: &Path) -> BTreeMap<Vec<u8>, Portrait> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    let mut all = Vec::new();
    while let Some(relative) = pending.pop() {
        let path = root.join(&relative);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            pending
                .extend(fs::read_dir(&path).unwrap().map(|entry| relative.join(entry.unwrap().file_name())));
        }
        all.push(relative);
    }
    all.sort();
    for relative in all {
        let path = root.join(&relative);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else {
            Vec::new()
        };
        let bytes = relative.into_os_string().into_vec();
        let first_name = (kind.is_file() && metadata.nlink() > 1)
            .then(|| names.entry(metadata.ino()).or_insert_with(|| bytes.clone()).clone());
        let portrait = Portrait {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            attributes: if kind.is_file() || kind.is_dir() { attributes(&path) } else { Vec::new() },
            first_name,
        };
        found.insert(bytes, portrait);
    }
    found
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap_or(0);
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
        found.push((name.to_vec(), value[..length].to_vec()));
    }
    found
}

#[track_caller]
pub fn assert_same(expected: &BTreeMap<Vec<u8>, Portrait>, found: &BTreeMap<Vec<u8>, Portrait>) {
    let paths: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differences: Vec<String> = paths
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .take(10)
        .map(|path| {
            let shown = |portrait: Option<&Portrait>| {
                portrait.map(|portrait| Portrait {
                    content: portrait.content.iter().take(20).copied().collect(),
                    ..portrait.clone()
                })
            };
            format!(
                "{}: {:?} against {:?}",
                path.escape_ascii(),
                shown(expected.get(path)),
                shown(found.get(path))
            )
        })
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let both = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A tree with everything that a backup has to bring back.
pub fn fill(root: &Path, random: &mut Random) {
    corpus(root, 150, random);
    write(root, "large", random.bytes(3_000_000));
    write(root, "empty file", "");
    write(root, OsStr::from_bytes(b"not \xff UTF-8/\xfe"), "x");
    write(root, "new\nline", "x");
    write(root, "repo/.git/config", "[core]\n");
    write(root, ".gitattributes", "* -text\n");
    write(root, "_bb_mine/100%\\.git", "x");
    write(
        root,
        "pointer",
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n", "0".repeat(64)),
    );
    write(root, "crypt", b"\0GITCRYPT\0 not really");
    fs::create_dir_all(root.join("nothing/at all/in here")).unwrap();
    symlink("../nowhere/at all", root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("absolute link")).unwrap();
    write(root, "linked/one", "one file");
    fs::hard_link(root.join("linked/one"), root.join("linked/two")).unwrap();
    fs::hard_link(root.join("linked/one"), root.join("elsewhere")).unwrap();
    write(root, "run", "#!/bin/sh\n");
    set_mode(&root.join("run"), 0o4751);
    write(root, "secret", "x");
    set_mode(&root.join("secret"), 0o600);
    write(root, "closed/inside", "x");
    set_mode(&root.join("closed/inside"), 0o400);
    let file = fs::File::open(root.join("secret")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    // Not every file system has them.
    let _ = rustix::fs::fsetxattr(&file, "user.note", b"hello\0", flags);
    for (path, seconds) in [("run", -14_182_940), ("link", 1_000_000_000), ("secret", 4_294_967_296)] {
        set_time(&root.join(path), seconds, 123_456_789);
    }
    set_mode(&root.join("nothing/at all"), 0o1777);
    set_time(&root.join("nothing"), 1_111_111_111, 1);
    set_mode(&root.join("closed"), 0o555);
    set_time(root, 1_222_222_222, 2);
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `restore` with these arguments.
fn restore(setup: &Setup, arguments: &[&str]) -> Output {
    let mut all = vec!["restore"];
    all.extend(arguments);
    setup.run(&all)
}

#[track_caller]
fn restored(setup: &Setup, arguments: &[&str]) -> String {
    let output = restore(setup, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    said(&output)
}

#[track_caller]
pub fn backed_up(setup: &Setup) {
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn everything_comes_back_as_it_was_and_a_dry_run_had_said_so() {
    let setup = Setup::new();
    fill(&setup.root(), &mut Random::new(seed("everything_comes_back")));
    backed_up(&setup);
    let expected = portraits(&setup.root());
    let out = setup.path("out");

    let dry = restored(&setup, &["--to", text(&out), "--dry-run"]);
    assert!(!out.exists(), "a dry run makes nothing");
    let report_file = setup.path("report.json");
    let arguments = ["--to", text(&out), "--list", "--verify", "--report", text(&report_file)];
    let real = restored(&setup, &arguments);
    let steps = |said: &str| -> Vec<String> {
        said.lines()
            .filter(|line| line.starts_with("write ") || line.starts_with("link "))
            .map(str::to_owned)
            .collect()
    };
    assert!(steps(&dry).len() > 150);
    assert_eq!(steps(&dry), steps(&real), "the same steps in the same order");
    assert_same(&expected, &portraits(&out.join("folder1")));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "nothing of ours is left there");

    let report: Value = serde_json::from_slice(&fs::read(&report_file).unwrap()).unwrap();
    assert_eq!(report["problem_count"], 0, "{report:#}");
    assert_eq!(report["remark_count"], 0, "{report:#}");
    assert_eq!(report["finished"], true);
    assert_eq!(report["verified"]["different"], 0);
    assert_eq!(report["totals"]["hard_links"], 2);
    assert_eq!(report["snapshot"].as_str(), setup.local().tip("main").as_deref());
    // What plain git gives is the same.
    assert_clone_equals(&setup.local().path, "main", &[("folder1", &out.join("folder1"))], |_| false);
}

#[test]
fn paths_patterns_and_moments_choose_what_comes_back() {
    let setup = Setup::new();
    for path in ["docs/a.txt", "docs/b.md", "docs/deep/c.txt", "other/d.txt", "docs/[x]*.txt"] {
        write(&setup.root(), path, "first");
    }
    backed_up(&setup);
    write(&setup.root(), "docs/a.txt", "second");
    fs::remove_file(setup.root().join("other/d.txt")).unwrap();
    backed_up(&setup);
    let absolute = setup.root().join("docs/deep");
    let cases: [(&[&str], &[&str]); 7] = [
        (&["folder1/docs/a.txt"], &["docs/a.txt"]),
        (&[text(&absolute)], &["docs/deep/c.txt"]),
        (&["folder1/docs/*.txt"], &["docs/[x]*.txt", "docs/a.txt"]),
        (&["folder1/docs/[x]*.txt"], &["docs/[x]*.txt"]),
        (
            &["folder1/**/*.txt", "--at", "latest~1"],
            &["docs/[x]*.txt", "docs/a.txt", "docs/deep/c.txt", "other/d.txt"],
        ),
        (&["folder1/docs/b.md", "folder1/docs/deep"], &["docs/b.md", "docs/deep/c.txt"]),
        (&["folder1/nothing/*"], &[]),
    ];
    for (number, (arguments, expected)) in cases.into_iter().enumerate() {
        let out = setup.path(&format!("out{number}"));
        let mut all = vec!["--to", text(&out)];
        all.extend(arguments);
        restored(&setup, &all);
        let root = out.join("folder1");
        let found: Vec<Vec<u8>> = if root.exists() {
            portraits(&root)
                .into_iter()
                .filter(|(_, found)| found.mode & 0o170_000 == 0o100_000)
                .map(|(path, _)| path)
                .collect()
        } else {
            Vec::new()
        };
        let expected: Vec<&[u8]> = expected.iter().map(|path| path.as_bytes()).collect();
        assert_eq!(found, expected, "{arguments:?}");
    }
    let first = setup.path("first");
    restored(&setup, &["--to", text(&first), "--at", "latest~1", "folder1/docs/a.txt"]);
    assert_eq!(fs::read(first.join("folder1/docs/a.txt")).unwrap(), b"first");
    for (wrong, word) in
        [("folder1/other/d.txt", "it was there until"), ("nowhere/x", "folder1"), ("/etc/passwd", "folder1")]
    {
        let output = restore(&setup, &["--to", text(&setup.path("no")), wrong]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(word) && said(&output).contains(wrong), "{}", said(&output));
    }
}

#[test]
fn what_stands_there_is_treated_as_was_said() {
    let setup = Setup::new();
    for name in ["equal", "differs", "retouched", "was a directory", "dir/inside"] {
        write(&setup.root(), name, format!("content of {name}"));
    }
    backed_up(&setup);
    let out = setup.path("out");
    let mess_up = || {
        let _ = fs::remove_dir_all(&out);
        restored(&setup, &["--to", text(&out)]);
        let root = out.join("folder1");
        write(&root, "differs", "something else");
        set_time(&root.join("retouched"), 5, 0);
        fs::remove_file(root.join("was a directory")).unwrap();
        write(&root, "was a directory/precious", "x");
        fs::remove_dir_all(root.join("dir")).unwrap();
        write(&root, "dir", "a file now");
        write(&root, "extra", "of the user");
        root
    };
    let read = |path: PathBuf| String::from_utf8(fs::read(path).unwrap()).unwrap();
    let to = ["--to", text(&out)];

    mess_up();
    let output = restore(&setup, &to);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("not empty") && said(&output).contains("--overwrite"),
        "{}",
        said(&output)
    );

    let root = mess_up();
    let output = restore(&setup, &[&to[..], &["--overwrite=never"]].concat());
    assert_eq!(output.status.code(), Some(3), "kinds that clash are problems: {}", said(&output));
    assert_eq!(read(root.join("differs")), "something else");
    assert_eq!(fs::metadata(root.join("retouched")).unwrap().mtime(), 5);
    assert_eq!(read(root.join("was a directory/precious")), "x");
    assert_eq!(read(root.join("dir")), "a file now");

    let root = mess_up();
    let before = fs::metadata(root.join("retouched")).unwrap().ino();
    let output = restore(&setup, &[&to[..], &["--overwrite=changed"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(read(root.join("differs")), "content of differs");
    let after = fs::metadata(root.join("retouched")).unwrap();
    assert!(after.mtime() > 5 && after.ino() == before, "only its time was put right");
    assert_eq!(read(root.join("was a directory/precious")), "x");
    assert_eq!(read(root.join("dir")), "a file now");

    let root = mess_up();
    let output = restore(&setup, &[&to[..], &["--overwrite=always"]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(read(root.join("dir/inside")), "content of dir/inside");
    assert_eq!(read(root.join("was a directory/precious")), "x", "a directory with something in it stays");
    assert!(
        said(&output).contains("was a directory") && said(&output).contains("--delete"),
        "{}",
        said(&output)
    );

    let root = mess_up();
    restored(&setup, &[&to[..], &["--overwrite=always", "--delete"]].concat());
    assert_same(&portraits(&setup.root()), &portraits(&root));
}

#[test]
fn deleting_spares_what_is_excluded_from_the_backup() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["ignore"] = serde_json::json!(["*.cache", "/build/"]);
    write(&setup.root(), "kept", "x");
    backed_up(&setup);
    let out = setup.path("out");
    restored(&setup, &["--to", text(&out)]);
    let root = out.join("folder1");
    for path in ["a.cache", "build/product", "half/b.cache", "half/goes", "goes/deep/er"] {
        write(&root, path, "x");
    }
    let arguments = ["--to", text(&out), "--overwrite=changed", "--delete"];
    let dry = restored(&setup, &[&arguments[..], &["--dry-run"]].concat());
    let real = restored(&setup, &[&arguments[..], &["--list"]].concat());
    let deletions = |said: &str| -> Vec<String> {
        said.lines()
            .filter(|line| line.starts_with("delete ") || line.starts_with("excluded"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(deletions(&dry), deletions(&real));
    assert_eq!(deletions(&real).len(), 7, "{real}");
    for (path, stays) in [
        ("kept", true),
        ("a.cache", true),
        ("build/product", true),
        ("half/b.cache", true),
        ("half/goes", false),
        ("goes", false),
    ] {
        assert_eq!(root.join(path).exists(), stays, "{path}");
    }
}

#[test]
fn special_files_come_back_when_they_are_asked_for() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let pipe = setup.root().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o640), 0)
        .unwrap();
    backed_up(&setup);
    let (without, with) = (setup.path("without"), setup.path("with"));
    let said = restored(&setup, &["--to", text(&without)]);
    assert!(said.contains("--special") && !without.join("folder1/pipe").exists(), "{said}");
    restored(&setup, &["--to", text(&with), "--special"]);
    assert_same(&portraits(&setup.root()), &portraits(&with.join("folder1")));
}

#[test]
fn answers_for_programs_are_one_document() {
    let setup = Setup::new();
    write(&setup.root(), OsStr::from_bytes(b"a\xff"), "x");
    backed_up(&setup);
    let output = restore(&setup, &["--to", text(&setup.path("out")), "--json", "--list"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["report"]["totals"]["files"], 1, "{answer:#}");
    let step = answer["steps"].as_array().unwrap().iter().find(|step| step["kind"] == "file").unwrap();
    assert_eq!(step["action"], "write");
    assert_eq!(step["path_b64"], "Zm9sZGVyMS9h/w==");
}

#[test]
fn usage_that_makes_no_sense_is_refused_with_the_way_out() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    backed_up(&setup);
    let out = setup.path("out");
    for (arguments, word) in [
        (vec![], "--to"),
        (vec!["--to", text(&out), "--in-place"], "--to"),
        (vec!["--undo", "folder1/file"], "--undo"),
        (vec!["--to", text(&out), "--delete"], "--overwrite"),
        (vec!["--in-place", "--overwrite=perhaps"], "never"),
    ] {
        let output = restore(&setup, &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(word), "{arguments:?}: {}", said(&output));
    }
}
