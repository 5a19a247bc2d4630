//! Each kind of damage is told, a sound repository is not, and the system's own trouble is neither.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::git::pack::{ObjectKind, PackWriter, Sync};
use crate::git::refs;
use crate::tree;

pub(crate) const BRANCH: &str = "refs/heads/main";

/// A repository with `commits` commits, each in a pack of its own, and their names, oldest first.
pub(crate) fn with_history(path: &Path, origin: &str, commits: u64) -> (Repository, Vec<Oid>) {
    let (repository, _) = Repository::open_or_create(path, BRANCH, origin, "o").unwrap();
    let mut made: Vec<Oid> = Vec::new();
    for number in 1..=commits {
        let writer = PackWriter::create(&repository.pack_directory()).unwrap();
        let blob = writer.add(ObjectKind::Blob, format!("version {number}").as_bytes()).unwrap();
        let entry = tree::Entry { mode: tree::MODE_FILE, oid: blob };
        let root = writer.add(ObjectKind::Tree, &tree::serialize([(b"file".as_slice(), entry)])).unwrap();
        let parent = made.last().map(|parent| format!("parent {parent}\n")).unwrap_or_default();
        let text = format!(
            "tree {root}\n{parent}author a <a@b> {number} +0000\ncommitter a <a@b> {number} +0000\n\nbackup\n\n\
             BackupBot-Instance: box\nBackupBot-Batch: {number}\nBackupBot-Roots: folder\n"
        );
        let commit = writer.add(ObjectKind::Commit, text.as_bytes()).unwrap();
        writer.finish(Sync::Durable, &Progress::new()).unwrap().unwrap().install().unwrap();
        refs::move_reference(&repository, BRANCH, made.last().copied(), commit).unwrap();
        made.push(commit);
    }
    (repository, made)
}

fn scratch() -> (tempfile::TempDir, PathBuf, Vec<Oid>) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.git");
    let (_, commits) = with_history(&path, "state", 3);
    (scratch, path, commits)
}

fn expected(checkpoint: Option<Oid>) -> Expected<'static> {
    Expected { origin: "state", branch: BRANCH, checkpoint }
}

pub(crate) fn packs(path: &Path, ending: &str) -> Vec<PathBuf> {
    let listing = fs::read_dir(path.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        listing.filter(|path| path.extension().is_some_and(|own| own == ending)).collect();
    found.sort();
    found
}

/// The pack that holds an object.
pub(crate) fn pack_of(path: &Path, oid: Oid) -> PathBuf {
    let holds = |pack: &PathBuf| PackReader::open(pack).unwrap().contains(&oid).unwrap();
    packs(path, "pack").into_iter().find(holds).unwrap()
}

pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_repository_is_sound() {
    let (_scratch, path, commits) = scratch();
    for checkpoint in [None, Some(commits[0]), Some(commits[2])] {
        assert_eq!(look(&path, &expected(checkpoint)).unwrap(), Health::Sound);
        assert_eq!(examine(&path, &expected(checkpoint), &Progress::new()).unwrap(), Health::Sound);
    }
    let packed = std::process::Command::new("git")
        .args(["-C", path.to_str().unwrap(), "pack-refs", "--all", "--prune"])
        .status();
    assert!(packed.unwrap().success());
    assert_eq!(look(&path, &expected(Some(commits[2]))).unwrap(), Health::Sound);
    let renamed = Expected { branch: "refs/heads/other", ..expected(Some(commits[2])) };
    assert_eq!(look(&path, &renamed).unwrap(), Health::Sound, "the branch has another name now");
}

#[test]
fn what_is_not_there_is_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.git");
    assert_eq!(look(&path, &expected(None)).unwrap(), Health::Missing);
    fs::create_dir(&path).unwrap();
    assert_eq!(look(&path, &expected(None)).unwrap(), Health::Missing);
}

#[test]
fn damage_that_a_cheap_look_sees_is_told_with_its_place() {
    type Damage = fn(&Path, &[Oid]);
    let cases: &[(&str, Damage)] = &[
        ("x.git", |path, _| {
            fs::remove_dir_all(path).unwrap();
            fs::write(path, "a file").unwrap();
        }),
        ("x.git", |path, _| {
            fs::remove_dir_all(path).unwrap();
            symlink("nowhere", path).unwrap();
        }),
        ("HEAD", |path, _| fs::remove_file(path.join("HEAD")).unwrap()),
        ("HEAD", |path, _| fs::write(path.join("HEAD"), "").unwrap()),
        ("HEAD", |path, _| fs::write(path.join("HEAD"), "\0\0\0\0").unwrap()),
        ("HEAD", |path, _| {
            fs::remove_file(path.join("HEAD")).unwrap();
            fs::create_dir(path.join("HEAD")).unwrap();
        }),
        ("config", |path, _| fs::remove_file(path.join("config")).unwrap()),
        ("config", |path, _| fs::write(path.join("config"), "").unwrap()),
        ("config", |path, _| fs::write(path.join("config"), "[core\nbare").unwrap()),
        ("config", |path, _| {
            rewrite(&path.join("config"), |text| text.extend(b"[include]\npath = /etc/passwd\n"))
        }),
        ("config", |path, _| rewrite(&path.join("config"), |text| text.extend(b"[core]\nworktree = /\n"))),
        ("objects", |path, _| fs::remove_dir_all(path.join("objects")).unwrap()),
        ("pack", |path, _| fs::remove_dir_all(path.join("objects/pack")).unwrap()),
        ("refs", |path, _| fs::remove_dir_all(path.join("refs")).unwrap()),
        ("main", |path, _| fs::write(path.join(BRANCH), "").unwrap()),
        ("main", |path, _| fs::write(path.join(BRANCH), "\0".repeat(41)).unwrap()),
        ("main", |path, _| fs::write(path.join(BRANCH), "a".repeat(39)).unwrap()),
        ("main", |path, _| fs::remove_file(path.join(BRANCH)).unwrap()),
        ("bbbbbbbb", |path, _| fs::write(path.join(BRANCH), "b".repeat(40)).unwrap()),
        ("packed-refs", |path, _| fs::write(path.join("packed-refs"), "half a li").unwrap()),
        ("alternates", |path, _| fs::write(path.join("objects/info/alternates"), "/tmp\n").unwrap()),
        ("commondir", |path, _| fs::write(path.join("commondir"), "/tmp\n").unwrap()),
        ("shallow", |path, _| fs::write(path.join("shallow"), "").unwrap()),
        (".idx", |path, _| fs::remove_file(&packs(path, "idx")[1]).unwrap()),
        (".idx", |path, _| rewrite(&packs(path, "idx")[1], |bytes| bytes.truncate(1100))),
        (".idx", |path, _| rewrite(&packs(path, "idx")[1], Vec::clear)),
        (".pack", |path, _| fs::remove_file(&packs(path, "pack")[1]).unwrap()),
        (".pack", |path, _| rewrite(&packs(path, "pack")[1], Vec::clear)),
        (".pack", |path, _| rewrite(&packs(path, "pack")[1], |bytes| bytes.truncate(bytes.len() - 1))),
        (".pack", |path, _| {
            let (one, two) = (packs(path, "idx")[0].clone(), packs(path, "idx")[1].clone());
            fs::remove_file(&two).unwrap();
            fs::copy(one, two).unwrap();
        }),
        ("lacks the commit", |path, _| {
            fs::remove_dir_all(path).unwrap();
            Repository::open_or_create(path, BRANCH, "state", "o").unwrap();
        }),
        ("commit", |path, commits| {
            let pack = pack_of(path, commits[2]);
            fs::remove_file(&pack).unwrap();
            fs::remove_file(pack.with_extension("idx")).unwrap();
        }),
    ];
    for (number, (word, damage)) in cases.iter().enumerate() {
        let (_scratch, path, commits) = scratch();
        damage(&path, &commits);
        let health = look(&path, &expected(Some(commits[2]))).unwrap();
        let Health::Damaged(text) = health else { panic!("case {number} ({word}) is {health:?}") };
        assert!(text.contains(word), "case {number}: {text}");
    }
}

#[test]
fn damage_deep_inside_is_found_when_everything_is_read() {
    let (_scratch, path, commits) = scratch();
    let pack = pack_of(&path, commits[0]);
    rewrite(&pack, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 8;
    });
    assert_eq!(look(&path, &expected(Some(commits[2]))).unwrap(), Health::Sound);
    let health = examine(&path, &expected(Some(commits[2])), &Progress::new()).unwrap();
    assert!(matches!(&health, Health::Damaged(text) if text.contains("pack")), "{health:?}");

    let (_scratch, path, commits) = scratch();
    let pack = pack_of(&path, commits[1]);
    fs::remove_file(pack.with_extension("idx")).unwrap();
    fs::remove_file(pack).unwrap();
    let health = examine(&path, &expected(Some(commits[2])), &Progress::new()).unwrap();
    assert!(matches!(&health, Health::Damaged(_)), "{health:?}");
}
