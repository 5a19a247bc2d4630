//! Directories of real backups, and trees that no backup writes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use git2::ObjectType;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::history::Snapshot;
use crate::snapshot::tests::bench;
use crate::tree::judge::Judge;
use crate::tree::{Edits, MODE_FILE, TreeSink, apply};

fn root() -> RootName {
    RootName::new("folder").unwrap()
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn shown(directory: &Directory) -> Vec<String> {
    let shown = |node: &Node| {
        let record = node.record.as_ref().map_or("-".to_owned(), |record| format!("{:o}", record.mode));
        let held = if node.entry.is_some() { "git" } else { "recorded" };
        format!("{} {} {held} {record}", lossy(&node.name), node.kind.as_str())
    };
    directory.nodes.iter().map(shown).collect()
}

fn problems(directory: &Directory) -> Vec<(String, Problem)> {
    let remarks = directory.remarks.iter();
    remarks.map(|remark| (lossy(&remark.name), remark.problem.clone())).collect()
}

#[test]
fn a_directory_is_what_was_on_disk_under_the_names_that_it_had_there() {
    let mut bench = bench();
    for name in [&b".git/config"[..], b"_bb_notes", b"not-utf8-\xff", b"100%\\.git", b"b", b"b-c", b"b.d/x"] {
        let at = bench.root().join(OsStr::from_bytes(name));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, name).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::create_dir(bench.root().join("empty")).unwrap();
    symlink("b", bench.root().join("link")).unwrap();
    mknodat(CWD, bench.root().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let snapshot = bench.snapshot();
    let objects = bench.repository.objects().unwrap();
    let read = Directory::read(&objects, snapshot.tree, &root(), &RelPath::root()).unwrap().unwrap();
    assert_eq!(
        shown(&read),
        [
            ".git dir git -",
            "100%\\.git file git 640",
            "_bb_notes file git 640",
            "b file git 640",
            "b-c file git 640",
            "b.d dir git -",
            "empty dir recorded -",
            "link symlink git 777",
            "not-utf8-\u{fffd} file git 640",
            "pipe fifo recorded 600",
        ]
    );
    assert_eq!(read.remarks, []);
    assert_eq!(read.own.as_ref().map(|own| own.kind), Some(EntryKind::Directory));
    let names: Vec<&[u8]> = read.nodes.iter().map(|node| node.name.as_slice()).collect();
    assert!(names.contains(&&b"not-utf8-\xff"[..]));
    for node in &read.nodes {
        let at = RelPath::new(node.name.clone()).unwrap();
        let located = find(&objects, snapshot.tree, &root(), &at).unwrap().unwrap();
        assert_eq!((located.remarks, located.node.entry), (vec![], node.entry), "{at}");
        assert_eq!((located.node.kind, located.node.metadata), (node.kind, node.metadata), "{at}");
        let record = match node.kind {
            EntryKind::Directory => own_record(&objects, node, &root(), &at).unwrap(),
            _ => node.record.clone(),
        };
        assert!(record.is_some());
        assert_eq!(located.node.record, record, "{at}");
    }
    for absent in ["nothing", "b/below", ".git/nothing", "pipe/below", "_bb_.git"] {
        assert_eq!(find(&objects, snapshot.tree, &root(), &path(absent)).unwrap(), None, "{absent}");
        assert_eq!(Directory::read(&objects, snapshot.tree, &root(), &path(absent)).unwrap(), None);
    }
    assert_eq!(Directory::read(&objects, snapshot.tree, &root(), &path("b")).unwrap(), None);
    let top = find(&objects, snapshot.tree, &root(), &RelPath::root()).unwrap().unwrap();
    assert_eq!((top.node.name.as_slice(), top.node.record), (&b""[..], read.own));
}

#[test]
fn a_walk_meets_every_directory_once_and_before_what_is_in_it() {
    let mut bench = bench();
    for directory in ["a", "a/b", "a-b", "a.c/d/e", ".git/objects"] {
        bench.write(&format!("{directory}/file"), directory);
    }
    fs::create_dir_all(bench.root().join("x/empty")).unwrap();
    let snapshot = bench.snapshot();
    let objects = bench.repository.objects().unwrap();
    let roots = snapshot.roots(&objects).unwrap();
    let walk = Walk::new(&objects, &roots[0].name, RelPath::root(), roots[0].place);
    let met: Vec<(String, usize)> = walk
        .map(|(path, read)| {
            let read = read.unwrap();
            assert_eq!(read.remarks, [], "{path}");
            assert!(read.own.is_some());
            (path.to_string(), read.nodes.len())
        })
        .collect();
    let expected = [
        ("", 5),
        (".git", 1),
        (".git/objects", 1),
        ("a", 2),
        ("a/b", 1),
        ("a-b", 1),
        ("a.c", 1),
        ("a.c/d", 1),
        ("a.c/d/e", 1),
        ("x", 1),
        ("x/empty", 0),
    ];
    assert_eq!(met, expected.map(|(path, count)| (path.to_owned(), count)));
    let below = find(&objects, snapshot.tree, &root(), &path("a.c")).unwrap().unwrap().node.place().unwrap();
    let walk = Walk::new(&objects, &roots[0].name, path("a.c"), below);
    assert_eq!(walk.map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["a.c", "a.c/d", "a.c/d/e"]);
}

#[test]
fn a_large_directory_has_every_record() {
    let mut bench = bench();
    for number in 0..700 {
        bench.write(&format!("file-{number}"), "x");
    }
    let snapshot = bench.snapshot();
    let objects = bench.repository.objects().unwrap();
    let read = Directory::read(&objects, snapshot.tree, &root(), &RelPath::root()).unwrap().unwrap();
    assert_eq!(read.nodes.len(), 700);
    assert!(
        read.nodes.iter().all(|node| node.record.as_ref().is_some_and(|record| record.name == node.name))
    );
    assert_eq!(read.remarks, []);
    let one = find(&objects, snapshot.tree, &root(), &path("file-333")).unwrap().unwrap();
    assert_eq!(one.node.record.map(|record| record.name), Some(b"file-333".to_vec()));
}

/// A tree of files and records as somebody else may have made it.
struct Forged {
    judge: Judge,
    edits: Edits,
}

impl Forged {
    fn new() -> Self {
        Self { judge: Judge::new(), edits: Edits::new() }
    }

    fn put(&mut self, at: &str, mode: u32, content: &[u8]) {
        let oid = self.judge.write_blob(content);
        self.edits.set(at, Entry { mode, oid });
    }

    fn file(&mut self, at: &str) {
        self.put(&format!("folder/{at}"), MODE_FILE, b"content");
    }

    fn shard(&mut self, at: &str, lines: &[&str]) {
        let text = format!(
            "{{\"backupbot\":1}}\n{}",
            lines.iter().map(|line| format!("{line}\n")).collect::<String>()
        );
        self.put(&format!(".backupbot/meta/folder/{at}"), MODE_FILE, text.as_bytes());
    }

    fn tree(&self) -> Oid {
        let objects = self.judge.objects();
        apply(&objects, &objects, None, &self.edits).unwrap().unwrap()
    }

    fn top(&self) -> Directory {
        Directory::read(&self.judge.objects(), self.tree(), &root(), &RelPath::root()).unwrap().unwrap()
    }
}

fn line(name: &str, kind: &str, mode: &str) -> String {
    format!(r#"{{"name":"{name}","kind":"{kind}","mode":"{mode}","uid":1,"gid":1,"mtime":"0.000000000"}}"#)
}

#[test]
fn what_contradicts_git_is_told_and_does_not_count() {
    let mut forged = Forged::new();
    for name in
        ["executable", "file", "link", "new", "sub/file", "_bb_plain", "_bb_100%41.git", ".gitattributes"]
    {
        forged.file(name);
    }
    let lines = [
        line(".", "dir", "0755"),
        line("executable", "file", "0755"),
        line("file", "file", "0644"),
        line("ghost", "file", "0644"),
        line("link", "symlink", "0777"),
        line("pipe", "fifo", "0600"),
        line("sub", "fifo", "0600"),
        line("twice", "fifo", "0600"),
    ];
    forged.shard("_bb_meta", &lines.each_ref().map(String::as_str));
    forged.shard("file/_bb_meta", &[&line(".", "dir", "0700")]);
    forged.shard("twice/_bb_meta", &[&line(".", "dir", "0700")]);
    let top = forged.top();
    assert_eq!(
        shown(&top),
        [
            "executable file git -",
            "file file git 644",
            "link file git -",
            "new file git -",
            "pipe fifo recorded 600",
            "sub dir git -",
            "twice dir recorded -",
        ]
    );
    let told = problems(&top);
    let expected = [
        ("_bb_100%41.git", Problem::ImpossibleName),
        ("_bb_plain", Problem::ImpossibleName),
        ("file", Problem::Contradicted),
        ("executable", Problem::Contradicted),
        ("ghost", Problem::Missing),
        ("link", Problem::Contradicted),
        ("sub", Problem::Contradicted),
        ("twice", Problem::Contradicted),
        ("new", Problem::Unrecorded),
    ];
    assert_eq!(told, expected.map(|(name, problem)| (name.to_owned(), problem)));
    let objects = forged.judge.objects();
    let find = |name: &str| find(&objects, forged.tree(), &root(), &path(name)).unwrap();
    for (name, problem) in [("executable", Problem::Contradicted), ("new", Problem::Unrecorded)] {
        let located = find(name).unwrap();
        assert_eq!(located.node.record, None);
        assert_eq!(located.remarks, [Remark { name: Vec::new(), problem }]);
    }
    assert_eq!(find("ghost"), None);
}

#[test]
fn a_link_to_another_repositorys_commit_is_told_and_left_out() {
    let mut forged = Forged::new();
    let objects = forged.judge.objects();
    let link = Entry { mode: MODE_COMMIT, oid: Oid::from_str(&"12".repeat(20)).unwrap() };
    let data = crate::tree::serialize([(&b"module"[..], link)]);
    let tree = TreeSink::write(&objects, ObjectType::Tree, &data).unwrap();
    forged.edits.set("folder/modules", Entry::tree(tree));
    let tree = forged.tree();
    let read = Directory::read(&objects, tree, &root(), &path("modules")).unwrap().unwrap();
    assert_eq!(read.nodes, []);
    assert_eq!(problems(&read)[0], ("module".to_owned(), Problem::Gitlink));
    assert_eq!(find(&objects, tree, &root(), &path("modules/module")).unwrap(), None);
}

#[test]
fn damaged_metadata_hides_nothing_that_git_holds_and_nothing_that_is_beside_it() {
    let hostile = [
        "",
        "\n",
        "{\"backupbot\":2}\n",
        "{\"backupbot\":1}\n{}\n",
        "{\"backupbot\":1}\n{\"name\":\"..\",\"kind\":\"fifo\",\"mode\":\"0600\",\"uid\":1,\"gid\":1,\"mtime\":\"0.000000000\"}\n",
        "{\"backupbot\":1}\n{\"name\":\"a/b\",\"kind\":\"fifo\",\"mode\":\"0600\",\"uid\":1,\"gid\":1,\"mtime\":\"0.000000000\"}\n",
    ];
    for shard in hostile {
        let mut forged = Forged::new();
        forged.file("file");
        forged.file("sub/file");
        forged.put(".backupbot/meta/folder/_bb_meta", MODE_FILE, shard.as_bytes());
        forged.shard("sub/_bb_meta", &[&line(".", "dir", "0700"), &line("file", "file", "0600")]);
        let top = forged.top();
        assert_eq!(shown(&top), ["file file git -", "sub dir git -"], "{shard:?}");
        assert!(
            matches!(top.remarks.as_slice(), [Remark { problem: Problem::Damaged(_), .. }]),
            "{:?}",
            top.remarks
        );
        let objects = forged.judge.objects();
        let sub = Directory::read(&objects, forged.tree(), &root(), &path("sub")).unwrap().unwrap();
        assert_eq!((shown(&sub), sub.remarks), (vec!["file file git 600".to_owned()], vec![]));
        let located = find(&objects, forged.tree(), &root(), &path("file")).unwrap().unwrap();
        assert!(located.node.record.is_none() && !located.remarks.is_empty());
    }
}

#[test]
fn a_directory_that_names_something_twice_is_an_error_and_its_neighbours_are_read() {
    let mut forged = Forged::new();
    forged.file("sound/file");
    let objects = forged.judge.objects();
    let blob = forged.judge.write_blob(b"x");
    let entry = [b"100644 same\0".as_slice(), blob.as_bytes()].concat();
    let twice = TreeSink::write(&objects, ObjectType::Tree, &[entry.clone(), entry].concat()).unwrap();
    forged.edits.set("folder/bad", Entry::tree(twice));
    let tree = forged.tree();
    assert!(Directory::read(&objects, tree, &root(), &path("bad")).is_err());
    let place = find(&objects, tree, &root(), &RelPath::root()).unwrap().unwrap().node.place().unwrap();
    let name = root();
    let met: Vec<(String, bool)> = Walk::new(&objects, &name, RelPath::root(), place)
        .map(|(path, read)| (path.to_string(), read.is_ok()))
        .collect();
    let expected = [("", true), ("bad", false), ("sound", true)];
    assert_eq!(met, expected.map(|(path, is_ok)| (path.to_owned(), is_ok)));
}

#[test]
fn a_tree_of_empty_shards_that_names_itself_everywhere_ends() {
    let mut forged = Forged::new();
    forged.file("file");
    let objects = forged.judge.objects();
    let empty = TreeSink::write(&objects, ObjectType::Blob, b"{\"backupbot\":1}\n").unwrap();
    for bottom in [
        Entry { mode: MODE_FILE, oid: empty },
        Entry::tree(TreeSink::write(&objects, ObjectType::Tree, b"").unwrap()),
    ] {
        let mut node = bottom;
        for _ in 0..41 {
            let names: Vec<String> = (0..64).map(|child| format!("{child:02x}")).collect();
            let entries = names.iter().map(|name| (name.as_bytes(), node));
            let data = crate::tree::serialize(entries);
            node = Entry::tree(TreeSink::write(&objects, ObjectType::Tree, &data).unwrap());
        }
        forged.edits.set(".backupbot/meta/folder/_bb_meta", node);
        let top = forged.top();
        assert_eq!(shown(&top), ["file file git -"]);
        assert!(top.remarks.len() < 100);
        assert!(matches!(top.remarks[0].problem, Problem::Damaged(_)));
    }
}

#[test]
fn a_tree_that_is_deeper_than_any_file_system_ends_the_walk_with_an_error() {
    let forged = Forged::new();
    let objects = forged.judge.objects_in_memory();
    let mut tree = TreeSink::write(&objects, ObjectType::Tree, b"").unwrap();
    for _ in 0..MAX_DEPTH + 10 {
        let data = crate::tree::serialize([(&b"d"[..], Entry::tree(tree))]);
        tree = TreeSink::write(&objects, ObjectType::Tree, &data).unwrap();
    }
    let name = root();
    let place = Place { files: Some(tree), metadata: None };
    let mut walk = Walk::new(&objects, &name, RelPath::root(), place);
    let met = walk.by_ref().take(2 * MAX_DEPTH).filter(|(_, read)| read.is_ok()).count();
    assert_eq!(met, MAX_DEPTH);
    assert!(walk.next().is_none());
}

#[test]
fn a_plain_git_repository_is_read_too_and_says_that_nothing_is_recorded() {
    let judge = Judge::new();
    let blob = judge.write_blob(b"x");
    let mut edits = Edits::new();
    edits.set("folder/sub/file", Entry { mode: MODE_FILE, oid: blob });
    let objects = judge.objects();
    let tree = apply(&objects, &objects, None, &edits).unwrap().unwrap();
    let commit = judge.commit(tree);
    let repository = crate::git::repository::Repository::open(judge.path()).unwrap();
    let snapshot = Snapshot::read(&repository, commit).unwrap();
    let roots = snapshot.roots(&objects).unwrap();
    assert_eq!(roots.len(), 1);
    for (path, read) in Walk::new(&objects, &roots[0].name, RelPath::root(), roots[0].place) {
        assert_eq!(problems(&read.unwrap()), [(String::new(), Problem::NoMetadata)], "{path}");
    }
}
