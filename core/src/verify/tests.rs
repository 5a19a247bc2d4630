//! Real backups, sound and damaged, and commits that git made of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use super::*;
use crate::crypt::keyring::{Key, Keyring};
use crate::crypt::opener::Opener;
use crate::crypt::places::Lent;
use crate::lfs::Objects;
use crate::snapshot::tests::messages::{self, People};
use crate::snapshot::tests::{Bench, bench, git};

fn verified(bench: &Bench, snapshot: &Snapshot, sample: Sample, seed: u64) -> (Report, Work) {
    let mut announced = Work::default();
    let request = Request { repository: &bench.repository, snapshot, sample, seed, large: None };
    let report = verify(&request, &mut |work| announced = work, &Progress::new()).unwrap();
    (report, announced)
}

fn problems(report: &Report) -> Vec<(&str, &str)> {
    assert_eq!(report.problem_count, report.problems.len() as u64);
    report.problems.iter().map(|named| (named.path.as_str(), named.reason.as_str())).collect()
}

/// A commit by git with another object under a path of the last snapshot's tree; `None` takes the path away.
fn with(bench: &Bench, snapshot: &Snapshot, path: &str, mode: &str, object: Option<&str>) -> Snapshot {
    let at = bench.repository.path();
    git(at, &["read-tree", &snapshot.tree.to_string()]);
    match object {
        Some(object) => {
            git(at, &["update-index", "--add", "--cacheinfo", &format!("{mode},{object},{path}")])
        }
        None => git(at, &["rm", "-q", "--cached", path]),
    };
    let tree = git(at, &["write-tree", "--missing-ok"]);
    let author = ["-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", tree.trim(), "-m", "by git"];
    let commit = git(at, &author);
    Snapshot::read(&bench.repository, Oid::from_str(commit.trim()).unwrap()).unwrap()
}

fn blob(bench: &Bench, content: &[u8]) -> String {
    bench.repository.git().blob(content).unwrap().to_string()
}

#[test]
fn everything_is_read_and_what_is_the_same_is_read_once() {
    let mut bench = bench();
    bench.write("a", "same");
    bench.write("sub/b", "same");
    bench.write("sub/large", "x".repeat(3 << 20));
    bench.write("empty", "");
    symlink("a", bench.root().join("link")).unwrap();
    fs::create_dir(bench.root().join("nothing")).unwrap();
    let snapshot = bench.snapshot();
    let (report, work) = verified(&bench, &snapshot, Sample::Whole, 1);
    assert_eq!(problems(&report), []);
    assert_eq!(report.remarks, []);
    assert_eq!((report.files, report.directories), (5, 3));
    assert_eq!((report.verified_files, report.verified_bytes), (report.files, report.bytes));
    assert_eq!(work, Work { files: report.files, bytes: report.bytes });
    assert!(report.hashed_bytes > 3 << 20 && report.hashed_bytes < report.bytes + 4096);
    let request = Request {
        repository: &bench.repository,
        snapshot: &snapshot,
        sample: Sample::Whole,
        seed: 1,
        large: None,
    };
    assert_eq!(contents(&request, &Progress::new()).unwrap().len() as u64, report.objects);
    assert_eq!((report.commit, report.tree), (snapshot.id.to_string(), snapshot.tree.to_string()));
}

#[test]
fn what_was_recorded_of_other_bytes_is_wrong_under_each_of_its_names() {
    let mut bench = bench();
    bench.write("a", "good");
    bench.write("b", "good");
    bench.write("c", "good");
    let good = bench.snapshot();
    let (longer, other) = (blob(&bench, b"longer"), blob(&bench, b"evil"));
    let made = with(&bench, &good, "folder/a", "100644", Some(&other));
    let made = with(&bench, &made, "folder/b", "100644", Some(&other));
    let made = with(&bench, &made, "folder/c", "100644", Some(&longer));
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    let found = problems(&report);
    assert_eq!(found.iter().map(|(path, _)| *path).collect::<Vec<_>>(), ["folder/a", "folder/b", "folder/c"]);
    assert!(found[0].1.contains("BLAKE3") && found[2].1.contains("6 bytes, and 4 are recorded"), "{found:?}");
}

#[test]
fn what_is_missing_is_wrong_and_what_is_not_recorded_is_only_remarked() {
    let mut bench = bench();
    bench.write("a", "1");
    bench.write("b", "2");
    let good = bench.snapshot();
    let nowhere = "1234567890123456789012345678901234567890";
    let made = with(&bench, &good, "folder/a", "100644", Some(nowhere));
    let made = with(&bench, &made, "folder/b", "100644", None);
    let made = with(&bench, &made, "folder/new", "100644", Some(&blob(&bench, b"3")));
    let made = with(&bench, &made, "folder/module", "160000", Some(nowhere));
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    let found = problems(&report);
    assert_eq!(
        found.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
        ["folder/b", "folder/a"],
        "{found:?}"
    );
    assert!(found[1].1.contains(nowhere), "{found:?}");
    let remarked: Vec<&str> = report.remarks.iter().map(|named| named.path.as_str()).collect();
    assert_eq!(remarked, ["folder/module", "folder/new"]);
}

#[test]
fn what_stands_in_for_a_file_is_not_the_file_and_no_link_leads_nowhere() {
    let mut bench = bench();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    bench.write("own", pointer);
    let good = bench.snapshot();
    assert_eq!(problems(&verified(&bench, &good, Sample::Whole, 1).0), [], "it is the user's own");
    let made = with(&bench, &good, "folder/new", "100644", Some(&blob(&bench, pointer.as_bytes())));
    let made = with(&bench, &made, "folder/link", "120000", Some(&blob(&bench, b"a\0b")));
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    let found = problems(&report);
    assert_eq!(found.iter().map(|(path, _)| *path).collect::<Vec<_>>(), ["folder/link", "folder/new"]);
    assert!(found[1].1.contains("a git-lfs pointer"), "{found:?}");
}

#[test]
fn a_large_content_outside_git_is_read_where_it_lies_and_told_when_it_is_damaged_or_gone() {
    let mut bench = bench();
    bench.write("own", "1");
    let good = bench.snapshot();
    let objects = Objects::of(bench.repository.path());
    let mut draft = objects.begin().unwrap();
    draft.write(b"large").unwrap();
    let pointer = draft.finish().unwrap();
    let stored = blob(&bench, pointer.encode().as_bytes());
    let made = with(&bench, &good, "folder/large", "100644", Some(&stored));
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    assert_eq!(problems(&report), []);
    fs::remove_file(objects.path_of(&pointer.id)).unwrap();
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    assert!(problems(&report)[0].1.contains("not here"), "{report:?}");
    fs::write(objects.path_of(&pointer.id), "largE").unwrap();
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    assert!(problems(&report)[0].1.contains("damaged"), "{report:?}");
    // A link is what its blob says.
    let made = with(&bench, &good, "folder/link", "120000", Some(&stored));
    let (report, _) = verified(&bench, &made, Sample::Whole, 1);
    assert_eq!(problems(&report), []);
}

#[test]
fn records_that_cannot_be_read_and_files_of_our_own_that_are_missing_are_wrong() {
    let mut bench = bench();
    bench.write("a", "1");
    let good = bench.snapshot();
    let listed = git(bench.repository.path(), &["ls-tree", "-r", "--name-only", &good.tree.to_string()]);
    let nowhere = "1234567890123456789012345678901234567890";
    for path in listed.lines().filter(|path| !path.starts_with("folder/")) {
        let made = with(&bench, &good, path, "100644", Some(nowhere));
        let (report, _) = verified(&bench, &made, Sample::Whole, 1);
        assert!(!problems(&report).is_empty(), "{path}");
        let made = with(&bench, &good, path, "100644", Some(&blob(&bench, b"not a record")));
        let (report, _) = verified(&bench, &made, Sample::Whole, 1);
        assert_eq!(problems(&report).is_empty(), !path.contains("/meta/"), "{path}");
    }
}

#[test]
fn a_sample_is_as_large_as_was_said_and_differs_from_seed_to_seed() {
    let mut bench = bench();
    for number in 0..40 {
        bench.write(&format!("file{number}"), format!("content {number}"));
    }
    let snapshot = bench.snapshot();
    let drawn = |sample, seed| {
        let request =
            Request { repository: &bench.repository, snapshot: &snapshot, sample, seed, large: None };
        contents(&request, &Progress::new()).unwrap()
    };
    let own = drawn(Sample::Whole, 1).len() - 40;
    assert_eq!(drawn(Sample::Files(7), 1).len(), 7 + own);
    assert_eq!(drawn(Sample::Share(1), 1).len(), 1 + own);
    assert_eq!(drawn(Sample::Files(7), 1), drawn(Sample::Files(7), 1));
    assert_ne!(drawn(Sample::Files(7), 1), drawn(Sample::Files(7), 2));
    let (report, work) = verified(&bench, &snapshot, Sample::Files(7), 3);
    assert_eq!((report.verified_files, work.files, report.files), (7, 7, 40));
    assert_eq!((report.seed, report.sample.as_str()), (Some(3), "7 files"));
    assert!(report.verified_bytes == work.bytes && work.bytes > 0);
}

#[test]
fn a_stop_from_outside_is_no_finding() {
    let mut bench = bench();
    bench.write("a", "1");
    let snapshot = bench.snapshot();
    let progress = Progress::new();
    let request = Request {
        repository: &bench.repository,
        snapshot: &snapshot,
        sample: Sample::Whole,
        seed: 1,
        large: None,
    };
    let error = verify(&request, &mut |_| progress.cancel(), &progress).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Cancelled);
}

#[test]
fn a_bomb_of_trees_ends_and_is_wrong() {
    let bench = bench();
    let objects = bench.repository.objects().unwrap();
    let tree = |names: &[String], entry| {
        let data = crate::tree::serialize(names.iter().map(|name| (name.as_bytes(), entry)));
        crate::tree::Entry::tree(objects.write(git2::ObjectType::Tree, &data).unwrap())
    };
    let names: Vec<String> = (100..300).map(|number| format!("d{number}")).collect();
    let mut entry = crate::tree::Entry { mode: 0o100_644, oid: blob(&bench, b"x").parse().unwrap() };
    for _ in 0..4 {
        entry = tree(&names, entry);
    }
    let top = tree(&["folder".to_owned()], entry).oid.to_string();
    let arguments = ["-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", &top, "-m", "bomb"];
    let commit = git(bench.repository.path(), &arguments);
    let snapshot = Snapshot::read(&bench.repository, commit.trim().parse().unwrap()).unwrap();
    let (report, _) = verified(&bench, &snapshot, Sample::Whole, 1);
    assert_eq!(report.problem_count, 1, "{:?}", report.problems);
    assert!(report.problems[0].reason.contains("busy for ever"), "{:?}", report.problems);
}

#[test]
fn without_a_private_key_messages_are_compared_as_they_are_and_what_is_none_is_wrong() {
    let people = People::new();
    let mut bench = messages::bench_for(&people, &[]);
    bench.write("a", "one");
    bench.write("sub/b", "two");
    let snapshot = bench.snapshot();
    let (report, _) = verified(&bench, &snapshot, Sample::Whole, 1);
    assert_eq!((problems(&report), report.remarks.len(), report.ciphertexts), (vec![], 0, 2));
    let key = crate::crypt::gitcrypt::wrapped::path_of_default(people.alice.fingerprint());
    let clear = blob(&bench, b"clear text");
    for path in ["folder/a", key.as_str()] {
        let forged = with(&bench, &snapshot, path, "100644", Some(&clear));
        let (report, _) = verified(&bench, &forged, Sample::Whole, 1);
        let found = problems(&report);
        assert!(found.len() == 1 && found[0].0 == path, "{found:?}");
    }
}

#[test]
fn a_message_that_is_still_for_others_is_no_damage_and_is_told() {
    let people = People::new();
    let mut bench = messages::bench_for(&people, &[]);
    bench.write("a", "one");
    bench.write("sub/b", "two");
    bench.back_up();
    messages::add(&bench, "bob", &people.bob);
    bench.touch("", crate::store::changes::Reach::Deep);
    // The switch alone: the files are not encrypted anew yet.
    let switched = bench.step().0.unwrap();
    let snapshot = Snapshot::read(&bench.repository, switched).unwrap();
    let key = messages::key_of(&bench);
    let opener = Opener::new(vec![Arc::new(people.bob.private())], false);
    let ring = Keyring::joined(vec![Arc::new(Key::read(&key).unwrap())], None).with_opener(&opener);
    let _lent = Lent::to(bench.repository.path(), Arc::new(ring));
    let (report, _) = verified(&bench, &snapshot, Sample::Whole, 1);
    assert_eq!((problems(&report), report.ciphertexts), (vec![], 2));
    assert!(report.remarks[0].reason.contains("not every content"), "{:?}", report.remarks);
}
