//! Merging packs, judged by the real git: the same objects before and after, whatever happens in between.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use git2::Oid;

use super::*;
use crate::git::pack::{PackSet, hash_object};
use crate::git::refs;

const BRANCH: &str = "refs/heads/main";

/// A repository in which every commit makes a pack, as in a life of small changes.
struct Bench {
    scratch: tempfile::TempDir,
    repository: Repository,
    tip: Option<Oid>,
    commits: usize,
}

fn bench() -> Bench {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("documents.git");
    let (repository, _) = Repository::open_or_create(&path, BRANCH, "state", "owner").unwrap();
    Bench { scratch, repository, tip: None, commits: 0 }
}

fn at_most(most: usize) -> Policy {
    Policy { most, reserve: 0, ..Policy::default() }
}

/// Lines of which each version changes a few, so that Git finds deltas.
fn text_of(file: usize, version: usize) -> Vec<u8> {
    let line = |number: usize| {
        let edits = if number % 37 == version % 37 { version } else { 0 };
        format!("line {number} of file {file}: {:x}\n", (number * 7919 + edits * 31 + file).pow(3))
    };
    (0..80).flat_map(|number| line(number).into_bytes()).collect()
}

impl Bench {
    /// A commit of three changed files, in one new pack; its name.
    fn commit(&mut self) -> String {
        let writer = PackWriter::create(&self.repository.pack_directory()).unwrap();
        let mut tree = Vec::new();
        for file in 0..3 {
            let blob = writer.add(ObjectKind::Blob, &text_of(file, self.commits)).unwrap();
            tree.extend_from_slice(format!("100644 {file}\0").as_bytes());
            tree.extend_from_slice(blob.as_bytes());
        }
        let tree = writer.add(ObjectKind::Tree, &tree).unwrap();
        let parent = self.tip.map(|tip| format!("parent {tip}\n")).unwrap_or_default();
        let who = format!("A <a@example.org> {} +0000", 1_700_000_000 + self.commits);
        let text = format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\nno. {}\n", self.commits);
        let commit = writer.add(ObjectKind::Commit, text.as_bytes()).unwrap();
        let pack = writer.finish(Sync::Relaxed, &Progress::new()).unwrap().unwrap();
        let name = pack.install().unwrap().name;
        refs::move_reference(&self.repository, BRANCH, self.tip, commit).unwrap();
        self.tip = Some(commit);
        self.commits += 1;
        name
    }

    fn commits(&mut self, count: usize) {
        for _ in 0..count {
            self.commit();
        }
    }

    fn merge(&self, policy: &Policy) -> Housekept {
        merge_small_packs(&self.repository, policy, None, &Progress::new()).unwrap()
    }

    fn survey(&self) -> Survey<'_> {
        survey(&self.repository, &at_most(1)).unwrap().unwrap()
    }

    /// The steps of a merge up to the finished copy.
    fn copy(&self) -> Copy {
        let mut survey = self.survey();
        let chosen = choose(&mut survey.candidates, u64::MAX);
        survey.copy(&chosen, &mut Vec::new(), &Progress::new()).unwrap().unwrap()
    }

    fn try_git(&self, arguments: &[&str]) -> std::result::Result<String, String> {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.repository.path()).env("LC_ALL", "C");
        let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.try_git(arguments).unwrap()
    }

    /// Every object with kind and size; Git has read and hashed each.
    fn objects(&self) -> BTreeSet<String> {
        self.git(&["fsck", "--full", "--strict"]);
        let reachable = self.git(&["rev-list", "--objects", "--all", "--no-object-names"]);
        let all = self.git(&["cat-file", "--batch-all-objects", "--batch-check"]);
        let all: BTreeSet<String> = all.lines().map(str::to_owned).collect();
        for name in reachable.lines() {
            assert!(all.iter().any(|line| line.starts_with(name)), "{name} is lost");
        }
        all
    }

    fn files(&self) -> BTreeSet<String> {
        let listing = fs::read_dir(self.repository.pack_directory()).unwrap();
        listing.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn packs(&self) -> usize {
        self.files().iter().filter(|name| name.ends_with(".pack")).count()
    }

    fn place(&self, name: &str, ending: &str) -> PathBuf {
        self.repository.pack_directory().join(format!("{name}.{ending}"))
    }
}

#[test]
fn many_commits_leave_few_packs_and_every_object() {
    let mut bench = bench();
    let policy = at_most(8);
    let mut merges = 0;
    for _ in 0..150 {
        bench.commit();
        let done = bench.merge(&policy);
        assert!(done.left_alone.is_empty());
        if done.into.is_some() {
            merges += 1;
            assert_eq!(done.removed, done.merged);
        }
        assert!(bench.packs() <= policy.most, "{} packs", bench.packs());
    }
    assert!((10..60).contains(&merges), "{merges} merges");
    let objects = bench.objects();
    assert_eq!(objects.len(), 150 * 5);
    assert!(bench.files().iter().all(|name| !name.starts_with(pack::TEMPORARY_PREFIX)));
    assert_eq!(bench.git(&["rev-list", "--count", "main"]).trim(), "150");
}

#[test]
fn nothing_happens_before_it_is_due() {
    let mut bench = bench();
    bench.commits(5);
    let files = bench.files();
    assert_eq!(bench.merge(&at_most(5)).skipped, Some(Skipped::NotDue));
    assert_eq!(bench.files(), files);
    assert_eq!(bench.merge(&at_most(4)).merged, 5);
}

fn sized(sizes: &[u64]) -> Vec<Candidate> {
    let candidate = |(number, bytes): (usize, &u64)| Candidate {
        name: format!("{number:09}"),
        bytes: *bytes,
        index_bytes: INDEX_BYTES + INDEX_ROW_BYTES * bytes,
        modified: SystemTime::UNIX_EPOCH,
    };
    sizes.iter().enumerate().map(candidate).collect()
}

#[test]
fn a_pack_is_merged_when_the_smaller_ones_together_have_reached_its_size() {
    let chosen = |sizes: &[u64], most| {
        let mut sizes: Vec<u64> =
            choose(&mut sized(sizes), most).iter().map(|candidate| candidate.bytes).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(chosen(&[], u64::MAX), [0u64; 0]);
    assert_eq!(chosen(&[7], u64::MAX), [0u64; 0]);
    assert_eq!(chosen(&[5, 4, 21, 11], u64::MAX), [0u64; 0]);
    assert_eq!(chosen(&[5, 4, 20, 11], u64::MAX), [4, 5, 11, 20]);
    assert_eq!(chosen(&[1000, 3, 5, 2, 40], u64::MAX), [2, 3, 5]);
    assert_eq!(chosen(&[8, 1, 2, 4, 1], u64::MAX), [1, 1, 2, 4, 8]);
    assert_eq!(chosen(&[8, 1, 2, 4, 1], 10), [1, 1, 2, 4]);
    assert_eq!(chosen(&[8, 1, 2, 4, 1], 1), [0u64; 0]);
}

#[test]
fn a_year_of_minutes_stays_bounded_and_rewrites_each_byte_a_few_times() {
    let most = Policy::default().most;
    for films in [false, true] {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        let (mut packs, mut arrived, mut rewritten) = (Vec::new(), 0, 0);
        for _ in 0..365 * 24 * 60 {
            // A few kilobytes, and at times a film.
            let is_film = films && random() % 1000 == 0;
            let size = if is_film { random() % 1_000_000_000 } else { 500 + random() % 5_000 };
            packs.push(size);
            arrived += size;
            if packs.len() > most {
                let mut candidates = sized(&packs);
                let merged: u64 = choose(&mut candidates, u64::MAX).iter().map(|chosen| chosen.bytes).sum();
                packs = candidates.iter().map(|kept| kept.bytes).chain([merged]).collect();
                rewritten += merged;
                assert!(packs.len() <= most, "{} packs", packs.len());
            }
        }
        assert_eq!(packs.iter().sum::<u64>(), arrived);
        let times = rewritten as f64 / arrived as f64;
        println!("films: {films}, packs: {}, each byte was rewritten {times:.1} times", packs.len());
        assert!(times < 15.0, "each byte was rewritten {times:.1} times");
    }
}

#[test]
fn deltas_that_git_made_move_along_with_their_bases() {
    for by_name in [false, true] {
        let mut bench = bench();
        let offsets = format!("repack.useDeltaBaseOffset={}", !by_name);
        for _ in 0..4 {
            bench.commits(9);
            // Only what stands in no kept pack, so each round makes a pack of deltas of its own.
            bench.git(&["-c", &offsets, "repack", "-adfq", "--depth=20"]);
            for name in bench.files().iter().filter_map(|name| name.strip_suffix(".pack")) {
                fs::write(bench.place(name, "keep"), "").unwrap();
            }
        }
        for name in bench.files().iter().filter(|name| name.ends_with(".keep")) {
            fs::remove_file(bench.repository.pack_directory().join(name)).unwrap();
        }
        bench.commits(20);
        let objects = bench.objects();
        assert!(bench.packs() >= 22, "{} packs", bench.packs());
        let done = bench.merge(&at_most(1));
        assert!(done.left_alone.is_empty() && done.merged >= 22);
        assert_eq!(bench.objects(), objects);
        let into = bench.place(&done.into.unwrap(), "idx");
        let listing = bench.git(&["verify-pack", "-v", into.to_str().unwrap()]);
        assert!(listing.lines().filter(|line| line.split(' ').count() > 6).count() > 30, "{listing}");
    }
}

#[test]
fn objects_that_stand_in_several_packs_stand_in_the_new_one_once() {
    let mut bench = bench();
    bench.commits(6);
    // A second copy of everything, some of it as deltas.
    let names: BTreeSet<String> = bench.files();
    let kept: Vec<(String, Vec<u8>)> = names
        .iter()
        .map(|name| (name.clone(), fs::read(bench.repository.pack_directory().join(name)).unwrap()))
        .collect();
    bench.git(&["repack", "-adfq"]);
    for (name, bytes) in kept {
        fs::write(bench.repository.pack_directory().join(name), bytes).unwrap();
    }
    let objects = bench.objects();
    let done = bench.merge(&at_most(1));
    assert_eq!((done.merged, done.objects as usize), (7, objects.len()));
    assert_eq!((bench.packs(), bench.objects()), (1, objects));
}

#[test]
fn a_merge_killed_anywhere_loses_nothing_and_the_next_one_mends_it() {
    for killed_after in ["nothing", "copied", "pack in place", "installed", "index removed", "first removed"]
    {
        let mut bench = bench();
        bench.commits(6);
        let objects = bench.objects();
        let Copy { finished, sources } = bench.copy();
        let (temporary_pack, temporary_index) = finished.temporary_paths().unwrap();
        let into = finished.into_name();
        let pack_dir = bench.repository.pack_directory();
        match killed_after {
            "nothing" => {
                drop(fs::write(&temporary_pack, "half").and_then(|()| fs::remove_file(&temporary_index)))
            }
            "copied" => {}
            "pack in place" => fs::rename(&temporary_pack, bench.place(&into, "pack")).unwrap(),
            _ => drop(pack::install_by_name(&pack_dir, &into).unwrap()),
        }
        match killed_after {
            "index removed" => {
                let hex = sources[0].strip_prefix("pack-").unwrap();
                let aside = pack_dir.join(format!("{}{hex}_idx", pack::TEMPORARY_PREFIX));
                fs::rename(bench.place(&sources[0], "idx"), aside).unwrap();
            }
            "first removed" => assert_eq!(bench.survey().remove(&sources[..1], &into).unwrap(), 1),
            _ => {}
        }
        assert_eq!(bench.objects(), objects, "killed after: {killed_after}");

        pack::sweep_temporary(&pack_dir, None).unwrap();
        let done = bench.merge(&at_most(1));
        assert_eq!(bench.objects(), objects, "killed after: {killed_after}");
        // Where some of the merged are removed, the others are merged anew, beside the first new pack.
        let is_half_removed = matches!(killed_after, "index removed" | "first removed");
        let set = PackSet::open(&pack_dir).unwrap();
        assert_eq!((set.len(), set.problems().len()), (1 + usize::from(is_half_removed), 0));
        assert_eq!(bench.files().len(), 2 * set.len(), "killed after: {killed_after}");
        if killed_after == "installed" {
            assert_eq!(done.into, Some(into), "the pack that was made before is the one that stays");
            assert_eq!((done.merged, done.removed), (7, 6));
        }
    }
}

#[test]
fn a_damaged_pack_under_the_new_name_does_not_take_the_place_of_the_others() {
    let mut bench = bench();
    bench.commits(4);
    let objects = bench.objects();
    let copy = bench.copy();
    let (temporary_pack, temporary_index) = copy.finished.temporary_paths().unwrap();
    let name = copy.finished.name().to_owned();
    let mut bytes = fs::read(&temporary_pack).unwrap();
    bytes[100] ^= 1;
    fs::write(bench.place(&name, "pack"), bytes).unwrap();
    fs::copy(&temporary_index, bench.place(&name, "idx")).unwrap();
    let survey = survey(&bench.repository, &at_most(1)).unwrap().unwrap();
    assert!(survey.put_in_place(copy, &Progress::new()).is_err());
    pack::remove_by_name(&bench.repository.pack_directory(), &name).unwrap();
    assert_eq!(bench.objects(), objects);
}

#[test]
fn kept_staged_and_damaged_packs_are_left_alone() {
    let mut bench = bench();
    let names: Vec<String> = (0..8).map(|_| bench.commit()).collect();
    let objects = bench.objects();
    for (name, ending) in names.iter().zip(["keep", "promisor", "mtimes"]) {
        fs::write(bench.place(name, ending), "").unwrap();
    }
    let staged = names[3].as_str();
    let damaged = bench.place(&names[4], "pack");
    let good = fs::read(&damaged).unwrap();
    let mut bad = good.clone();
    bad[60] ^= 0x10;
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, bad).unwrap();
    let done = merge_small_packs(&bench.repository, &at_most(1), Some(staged), &Progress::new()).unwrap();
    assert_eq!((done.merged, done.removed, done.left_alone.len()), (3, 3, 1));
    assert!(done.left_alone[0].to_string().contains(&names[4]), "{:?}", done.left_alone);
    for name in &names[..5] {
        assert!(bench.place(name, "pack").exists() && bench.place(name, "idx").exists());
    }
    fs::write(&damaged, good).unwrap();
    for (name, ending) in names.iter().zip(["keep", "promisor", "mtimes"]) {
        fs::remove_file(bench.place(name, ending)).unwrap();
    }
    assert_eq!(bench.objects(), objects);
}

#[test]
fn a_pack_that_is_kept_since_the_merge_began_stays() {
    let mut bench = bench();
    let names: Vec<String> = (0..3).map(|_| bench.commit()).collect();
    let Copy { finished, sources } = bench.copy();
    let into = finished.install().unwrap().name;
    fs::write(bench.place(&names[1], "keep"), "").unwrap();
    assert_eq!(bench.survey().remove(&sources, &into).unwrap(), 2);
    assert!(bench.place(&names[1], "pack").exists());
}

#[test]
fn a_disk_without_room_for_a_second_copy_is_left_as_it_is() {
    let mut bench = bench();
    bench.commits(4);
    let files = bench.files();
    let policy = Policy { reserve: u64::MAX, ..at_most(1) };
    let done = bench.merge(&policy);
    let Some(reason @ Skipped::LowDisk { needed: u64::MAX, .. }) = done.skipped else { panic!("{done:?}") };
    assert!(reason.to_string().contains("make room"));
    assert_eq!(bench.files(), files);
}

#[test]
fn where_somebody_else_keeps_house_nothing_is_touched() {
    let mut bench = bench();
    bench.commits(4);
    bench.git(&["multi-pack-index", "write"]);
    let files = bench.files();
    assert_eq!(bench.merge(&at_most(1)).skipped, Some(Skipped::ForeignIndex));
    assert_eq!(bench.files(), files);
}

#[test]
fn only_remotes_that_we_made_are_tidied() {
    let mut bench = bench();
    bench.commits(4);
    let tidy = |bench: &Bench| {
        merge_in_remote(bench.repository.path(), "owner", &at_most(1), &Progress::new()).unwrap()
    };
    assert!(tidy(&bench).is_none(), "its origin is another");
    bench.git(&["config", "--unset", "backupbot.origin"]);
    assert!(tidy(&bench).is_none(), "it has none");
    assert_eq!(bench.packs(), 4);
    bench.git(&["config", "backupbot.origin", "remote"]);
    assert_eq!(tidy(&bench).unwrap().merged, 4);
}

#[test]
fn a_cancelled_merge_leaves_no_file() {
    let mut bench = bench();
    bench.commits(4);
    let files = bench.files();
    let progress = Progress::new();
    progress.cancel();
    let error = merge_small_packs(&bench.repository, &at_most(1), None, &progress).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert_eq!(bench.files(), files);
}

#[test]
fn a_set_opened_before_finds_every_object_after() {
    let mut bench = bench();
    bench.commits(30);
    let set = PackSet::open(&bench.repository.pack_directory()).unwrap();
    let blob = |version| hash_object(ObjectKind::Blob, &text_of(0, version)).unwrap();
    let pinned = set.find(&blob(0)).unwrap().unwrap();
    bench.merge(&at_most(1));
    for version in 0..30 {
        assert!(set.contains(&blob(version)).unwrap());
        let (pack, entry) = set.find(&blob(version)).unwrap().unwrap();
        let mut bytes = 0;
        pack.stream_raw(&entry, &mut |piece| {
            bytes += piece.len() as u64;
            Ok(())
        })
        .unwrap();
        assert_eq!(bytes, entry.compressed_len);
    }
    assert_eq!(set.len(), 1, "it has looked again");
    pinned.0.stream_raw(&pinned.1, &mut |_| Ok(())).unwrap();
    assert!(set.find(&Oid::ZERO_SHA1).unwrap().is_none());
}

#[test]
fn readers_that_come_while_packs_are_merged_see_a_whole_repository() {
    let mut bench = bench();
    bench.commits(3);
    let is_over = AtomicBool::new(false);
    let path = bench.repository.path().to_owned();
    let (clones, logs) = std::thread::scope(|scope| {
        let run = |arguments: &[&str], at: &Path| {
            let output = Command::new("git").args(arguments).current_dir(at).env("LC_ALL", "C").output();
            let output = output.unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.success(), text)
        };
        let url = format!("file://{}", path.display());
        let cloner = scope.spawn({
            let is_over = &is_over;
            let target = tempfile::tempdir().unwrap();
            move || {
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let name = format!("clone-{rounds}.git");
                    // Two tries, as everybody grants a server that repacks.
                    let cloned = run(&["clone", "-q", "--bare", &url, &name], target.path());
                    if !cloned.0 {
                        let again = run(&["clone", "-q", "--bare", &url, &name], target.path());
                        assert!(again.0, "{} and {}", cloned.1, again.1);
                    }
                    let whole = run(&["fsck", "--full", "--strict"], &target.path().join(&name));
                    assert!(whole.0, "{}", whole.1);
                    rounds += 1;
                }
                rounds
            }
        });
        let logger = scope.spawn({
            let (is_over, path) = (&is_over, path.clone());
            move || {
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let logged = run(&["log", "-p", "--stat", "main"], &path);
                    assert!(logged.0, "{}", logged.1);
                    rounds += 1;
                }
                rounds
            }
        });
        let ours = scope.spawn({
            let (is_over, path) = (&is_over, path.clone());
            move || {
                let first = hash_object(ObjectKind::Blob, &text_of(1, 0)).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    let repository = Repository::open(&path).unwrap();
                    let set = PackSet::open(&repository.pack_directory()).unwrap();
                    let mut walk = repository.git().revwalk().unwrap();
                    walk.push_ref(BRANCH).unwrap();
                    for commit in walk {
                        let tree = repository.tree_of(commit.unwrap()).unwrap();
                        assert!(set.find(&first).unwrap().is_some());
                        let tree = repository.git().find_tree(tree).unwrap();
                        assert!(tree.iter().all(|entry| repository.git().find_blob(entry.id()).is_ok()));
                    }
                }
            }
        });
        for _ in 0..80 {
            if [cloner.is_finished(), logger.is_finished(), ours.is_finished()].contains(&true) {
                break;
            }
            bench.commit();
            bench.merge(&at_most(3));
        }
        is_over.store(true, Ordering::Relaxed);
        ours.join().unwrap();
        (cloner.join().unwrap(), logger.join().unwrap())
    });
    assert!(clones > 0 && logs > 0);
    assert_eq!(bench.objects().len(), bench.commits * 5);
    drop(bench.scratch);
}
