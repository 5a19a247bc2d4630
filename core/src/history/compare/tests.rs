//! Comparisons of real backups with a plain comparison of everything in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::history::directory::Walk;
use crate::snapshot::tests::messages::{self, People};
use crate::snapshot::tests::{Bench, bench};

fn told(comparison: &Comparison) -> Vec<String> {
    let line = |change: &Change| {
        let from = match &change.what {
            What::Renamed { path, .. } => format!("{path} -> "),
            _ => String::new(),
        };
        let fields: Vec<&str> = change.fields.names().filter(|name| *name != "mtime").collect();
        let fields = if change.what == What::Metadata && !fields.is_empty() {
            format!(" ({})", fields.join(" "))
        } else {
            String::new()
        };
        format!("{} {from}{}{fields}", change.what.letter(), change.path)
    };
    comparison.changes.iter().map(line).collect()
}

fn compared(bench: &Bench, old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let found = snapshots(&bench.repository.objects().unwrap(), old, new).unwrap();
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    told(&found)
}

fn mode(bench: &Bench, path: &str, mode: u32) {
    fs::set_permissions(bench.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn every_way_to_change_is_told_by_its_own_letter() {
    let mut bench = bench();
    for name in
        ["changed", "moved", "gone", "modes", "executable", "to-link", "to-directory", "d/.git/x", "d/y"]
    {
        bench.write(name, name);
    }
    bench.write("empty-file", "");
    fs::create_dir_all(bench.root().join("was-empty")).unwrap();
    fs::create_dir_all(bench.root().join("gone-empty")).unwrap();
    mknodat(CWD, bench.root().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let old = bench.snapshot();
    let root = bench.root();
    bench.write("changed", "otherwise");
    fs::create_dir_all(root.join("new/place")).unwrap();
    fs::rename(root.join("moved"), root.join("new/place/moved")).unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    mode(&bench, "modes", 0o600);
    mode(&bench, "executable", 0o755);
    fs::remove_file(root.join("to-link")).unwrap();
    symlink("to-link", root.join("to-link")).unwrap();
    fs::remove_file(root.join("to-directory")).unwrap();
    bench.write("to-directory/inside", "x");
    fs::remove_dir_all(root.join("d/.git")).unwrap();
    mode(&bench, "d", 0o700);
    fs::remove_file(root.join("empty-file")).unwrap();
    bench.write("another-empty-file", "");
    bench.write("was-empty/file", "no more");
    fs::remove_dir(root.join("gone-empty")).unwrap();
    fs::create_dir_all(root.join("now-empty/inner")).unwrap();
    fs::remove_file(root.join("pipe")).unwrap();
    let new = bench.snapshot();
    let expected = [
        "A another-empty-file",
        "M changed",
        "m d (mode)",
        "D d/.git/x",
        "D empty-file",
        "m executable (mode)",
        "D gone",
        "D gone-empty",
        "m modes (mode)",
        "R moved -> new/place/moved",
        "A now-empty/inner",
        "D pipe",
        "D to-directory",
        "A to-directory/inside",
        "M to-link",
        "A was-empty/file",
    ];
    assert_eq!(compared(&bench, &old, &new), expected);
    assert_eq!(compared(&bench, &new, &new), [""; 0]);
    let back = compared(&bench, &new, &old);
    assert_eq!(back.len(), expected.len());
    assert!(back.contains(&"R new/place/moved -> moved".to_owned()), "{back:?}");

    let objects = bench.repository.objects().unwrap();
    let name = RootName::new("folder").unwrap();
    for (path, expected) in [
        ("d", vec!["m d (mode)", "D d/.git/x"]),
        ("gone", vec!["D gone"]),
        ("modes", vec!["m modes (mode)"]),
        ("new", vec!["A new/place/moved"]),
        ("d/y", vec![]),
        ("to-directory", vec!["D to-directory", "A to-directory/inside"]),
        ("nothing", vec![]),
    ] {
        let path = RelPath::new(path).unwrap();
        let found = within(&objects, &old, &new, &name, &path).unwrap();
        assert_eq!(told(&found), expected, "{path}");
    }
}

#[test]
fn equal_contents_are_paired_by_name_first_and_each_once() {
    let mut bench = bench();
    for name in ["a/one", "a/two", "a/three"] {
        bench.write(name, "the same");
    }
    let old = bench.snapshot();
    fs::rename(bench.root().join("a"), bench.root().join("b")).unwrap();
    bench.write("b/four", "the same");
    let new = bench.snapshot();
    assert_eq!(
        compared(&bench, &old, &new),
        ["A b/four", "R a/one -> b/one", "R a/three -> b/three", "R a/two -> b/two"]
    );
}

#[test]
fn a_file_that_only_the_time_of_changed_is_told_and_its_directory_is_not() {
    let mut bench = bench();
    bench.write("d/file", "x");
    bench.write("d/other", "x");
    let old = bench.snapshot();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = fs::File::options().write(true).open(bench.root().join("d/file")).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    bench.write("d/new", "y");
    let new = bench.snapshot();
    assert_eq!(compared(&bench, &old, &new), ["m d/file", "A d/new"]);
    let directory = fs::File::open(bench.root().join("d")).unwrap();
    directory.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    let touched = bench.snapshot();
    assert_eq!(compared(&bench, &new, &touched), ["m d"]);
}

/// Every path with what it is, found the slow way.
fn everything(bench: &Bench, snapshot: &Snapshot) -> BTreeMap<String, String> {
    let objects = bench.repository.objects().unwrap();
    let mut all = BTreeMap::new();
    for root in snapshot.roots(&objects).unwrap() {
        for (path, read) in Walk::new(&objects, &root.name, RelPath::root(), root.place) {
            for node in read.unwrap().nodes.iter().filter(|node| node.kind != EntryKind::Directory) {
                let entry = node.entry.map(|entry| entry.oid.to_string());
                all.insert(path.join(&node.name).to_string(), entry.unwrap_or_default());
            }
        }
    }
    all
}

#[test]
fn random_changes_are_told_as_a_comparison_of_everything_would_tell_them() {
    let mut bench = bench();
    let mut state = 42_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut snapshots_made = Vec::new();
    for _ in 0..6 {
        for _ in 0..120 {
            let path = format!("{}/{}", ["a", "a-b", ".git", "a/b", "wide"][random(5) as usize], random(200));
            let at = bench.root().join(&path);
            if random(3) == 0 {
                let _ = fs::remove_file(at);
            } else {
                bench.write(&path, format!("{} {}", path.len(), random(1_000_000)));
            }
        }
        for number in 0..random(300) {
            bench.write(&format!("wide/{}", 1000 + number), "x");
        }
        snapshots_made.push(bench.snapshot());
    }
    for old in &snapshots_made {
        for new in &snapshots_made {
            let (before, after) = (everything(&bench, old), everything(&bench, new));
            let mut expected: Vec<String> = Vec::new();
            for (path, content) in &before {
                match after.get(path) {
                    None => expected.push(format!("D {path}")),
                    Some(other) if other != content => expected.push(format!("M {path}")),
                    Some(_) => {}
                }
            }
            let added = after.keys().filter(|path| !before.contains_key(*path));
            expected.extend(added.map(|path| format!("A {path}")));
            let mut found: Vec<String> = Vec::new();
            let comparison = snapshots(&bench.repository.objects().unwrap(), old, new).unwrap();
            for change in &comparison.changes {
                match &change.what {
                    What::Metadata => {}
                    What::Renamed { path, .. } => {
                        found.push(format!("D {path}"));
                        found.push(format!("A {}", change.path));
                    }
                    what => {
                        let side = change.new.or(change.old).unwrap();
                        if side.kind != EntryKind::Directory {
                            found.push(format!("{} {}", what.letter(), change.path));
                        }
                    }
                }
            }
            expected.sort();
            found.sort();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_was_only_encrypted_anew_is_the_same_and_what_is_another_is_told() {
    let people = People::new();
    let mut bench = messages::bench_for(&people, &[]);
    for name in ["same", "d/same", "changed", "moved"] {
        bench.write(name, name);
    }
    let old = bench.snapshot();
    messages::add(&bench, "bob", &people.bob);
    let new = bench.snapshot();
    assert_eq!(compared(&bench, &old, &new), Vec::<String>::new());
    fs::rename(bench.root().join("moved"), bench.root().join("d/moved")).unwrap();
    bench.write("changed", "otherwise");
    let newest = bench.snapshot();
    assert_eq!(compared(&bench, &new, &newest), ["M changed", "R moved -> d/moved"]);
}
