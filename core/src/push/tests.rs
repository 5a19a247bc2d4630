//! Pushes into real bare repositories, judged by the real git.

mod clear_text;
mod large;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::delivery::{Delivery, Wanted, deliver};
use super::*;
use crate::adopt;
use crate::config::{Context, Remote, from_flags};
use crate::names::RootName;
use crate::snapshot::tests::{Bench, bench, git};
use crate::transport;
use crate::transport::memory::Memory;

const BRANCH: &str = "refs/heads/main";

struct Target {
    remote: Remote,
    path: PathBuf,
}

fn target(bench: &Bench, name: &str) -> Target {
    let path = bench.scratch.path().join(name);
    let context = Context { default_instance: "laptop".to_owned(), ..Context::default() };
    let watch = [bench.root()];
    let context = Context { default_state_dir: "/nonexistent/state".into(), ..context };
    let loaded = from_flags(&watch, &[path.to_str().unwrap().to_owned()], &context).unwrap();
    Target { remote: loaded.config.repositories[0].remotes[0].clone(), path }
}

fn run(bench: &Bench, target: &Target, eager: bool, resume: bool, now_ms: i64) -> Delivery {
    run_with(bench, target, None, (eager, resume), now_ms)
}

fn run_with(
    bench: &Bench,
    target: &Target,
    large: Option<&mut dyn LargeDelivery>,
    (eager, resume): (bool, bool),
    now_ms: i64,
) -> Delivery {
    let store = bench.store.remote(&bench.name, &target.remote.name);
    let retry = crate::config::Retry::default();
    let wanted = Wanted {
        protected: None,
        moved_ms: 0,
        repository: bench.repository.path(),
        branch: BRANCH,
        remote: &target.remote,
        instance: "laptop",
        retry: &retry,
        eager,
        resume,
        refuses_clear_history: bench
            .encryption
            .as_ref()
            .is_some_and(crate::config::Encryption::refuses_clear_history),
        memory: &Memory::default(),
        now_ms,
    };
    deliver(&wanted, &store, large, &mut || {}, &Progress::new()).unwrap()
}

fn tip(target: &Target, name: &str) -> String {
    git(&target.path, &["rev-parse", name]).trim().to_owned()
}

fn commit_elsewhere(target: &Target) {
    let clone = tempfile::tempdir().unwrap();
    git(clone.path(), &["clone", "-q", target.path.to_str().unwrap(), "."]);
    fs::write(clone.path().join("foreign"), "x").unwrap();
    git(clone.path(), &["add", "."]);
    git(clone.path(), &["-c", "user.name=o", "-c", "user.email=o@o", "commit", "-qm", "foreign"]);
    git(clone.path(), &["push", "-q", "origin", "HEAD:main"]);
}

#[test]
fn a_first_push_makes_the_remote_and_later_ones_send_only_what_is_new() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.write("d/b", "two");
    bench.back_up();
    let target = target(&bench, "remote.git");
    let first = run(&bench, &target, false, false, 1);
    assert!(first.is_verified);
    assert!(first.sent.unwrap().objects > 5);
    git(&target.path, &["fsck", "--full", "--strict"]);
    let again = run(&bench, &target, false, false, 2);
    assert!(!again.attempted, "nothing new is nothing to do");
    bench.write("a", "three");
    bench.back_up();
    let second = run(&bench, &target, false, false, 3);
    let sent = second.sent.unwrap().objects;
    assert!((3..=8).contains(&sent), "commit, trees, blob, metadata shard: {sent}");
    git(&target.path, &["fsck", "--full", "--strict"]);
    assert_eq!(tip(&target, "main"), bench.repository.reference(BRANCH).unwrap().unwrap().to_string());
    let leftovers = fs::read_dir(target.path.join("objects/pack")).unwrap();
    let odd = leftovers.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        let name = name.to_string_lossy().into_owned();
        !(name.ends_with(".pack") || name.ends_with(".idx"))
    });
    assert_eq!(odd.count(), 0);
}

#[test]
fn packs_with_deltas_and_loose_objects_are_pushed_and_fetched_whole() {
    let mut bench = bench();
    for n in 0..40 {
        bench.write(&format!("f{n}"), "line\n".repeat(200) + &n.to_string());
    }
    bench.back_up();
    bench.write("f1", "changed\n");
    bench.back_up();
    git(bench.repository.path(), &["repack", "-adfq", "--depth=50", "--window=50"]);
    let target = target(&bench, "remote.git");
    assert!(run(&bench, &target, false, false, 1).is_verified);
    git(&target.path, &["fsck", "--full", "--strict"]);
    let unpacked = bench.scratch.path().join("loose.git");
    git(bench.scratch.path(), &["init", "-q", "--bare", "loose.git"]);
    git(&target.path, &["push", "-q", unpacked.to_str().unwrap(), "main"]);
    let (fresh, _) =
        Repository::open_or_create(&bench.scratch.path().join("fresh.git"), BRANCH, "t", "owner").unwrap();
    let (mut transport, _) = transport::local::LocalTransport::open(&unpacked, BRANCH, fresh.path()).unwrap();
    let want = bench.repository.reference(BRANCH).unwrap().unwrap();
    transport.fetch(&fresh, want, &Progress::new()).unwrap();
    assert!(fresh.has_commit(want));
    git(fresh.path(), &["fsck", "--full", "--strict", &want.to_string()]);
}

#[test]
fn a_diverged_remote_is_halted_its_branch_untouched_and_the_work_rescued() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let target = target(&bench, "remote.git");
    run(&bench, &target, false, false, 1);
    commit_elsewhere(&target);
    let foreign = tip(&target, "main");
    bench.write("a", "two");
    bench.back_up();
    let halted = run(&bench, &target, false, false, 2);
    let halt = halted.record.halted.unwrap();
    assert_eq!(halt.reason, "diverged");
    assert_eq!(tip(&target, "main"), foreign);
    assert!(halt.rescue_branch.starts_with("refs/heads/backupbot/rescue/laptop/"), "{}", halt.rescue_branch);
    let ours = bench.repository.reference(BRANCH).unwrap().unwrap().to_string();
    assert_eq!(tip(&target, &halt.rescue_branch), ours);
    bench.write("a", "three");
    bench.back_up();
    let still = run(&bench, &target, true, false, 3);
    assert_eq!(still.record.halted.unwrap().rescue_branch, halt.rescue_branch, "one branch a halt");
    let ours = bench.repository.reference(BRANCH).unwrap().unwrap().to_string();
    assert_eq!(tip(&target, &halt.rescue_branch), ours);
    git(&target.path, &["update-ref", "refs/heads/main", &halt.rescue_branch]);
    let back = run(&bench, &target, true, false, 4);
    assert!(back.is_verified, "the cause has vanished");
}

#[test]
fn a_rewound_remote_waits_for_the_operators_word() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let target = target(&bench, "remote.git");
    run(&bench, &target, false, false, 1);
    let old = tip(&target, "main");
    bench.write("a", "two");
    bench.back_up();
    run(&bench, &target, false, false, 2);
    git(&target.path, &["update-ref", "refs/heads/main", &old]);
    let halted = run(&bench, &target, true, false, 3);
    assert_eq!(halted.record.halted.unwrap().reason, "rewound");
    assert_eq!(tip(&target, "main"), old);
    assert!(run(&bench, &target, true, true, 4).is_verified, "resume takes its present state for right");
}

#[test]
fn a_remote_that_cannot_be_reached_is_tried_again_by_the_law() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let blocker = bench.scratch.path().join("blocker");
    fs::write(&blocker, "a file where a directory should be").unwrap();
    let target = target(&bench, "blocker/remote.git");
    let failed = run(&bench, &target, false, false, 1_000_000);
    assert_eq!(failed.record.failures, 1);
    assert!(failed.unprotected_since_ms.is_some());
    let next = failed.next_try_ms.unwrap();
    assert!((1_000_500..=1_001_000).contains(&next), "{next}");
    assert!(!run(&bench, &target, false, false, 1_000_100).attempted, "it is not time yet");
    fs::remove_file(&blocker).unwrap();
    assert!(run(&bench, &target, false, false, next).is_verified);
    let history = bench.store.reader().push_history(&bench.name, &target.remote.name, 10).unwrap();
    assert_eq!(history.len(), 2);
    assert!(history[1].error.is_some() && history[0].error.is_none());
}

#[test]
fn a_lost_state_continues_its_own_history_and_nobody_elses() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let target = target(&bench, "remote.git");
    run(&bench, &target, false, false, 1);
    let roots = [RootName::new("folder").unwrap()];
    let mut transport = transport::connect(
        &target.remote,
        BRANCH,
        bench.repository.path(),
        &Memory::default(),
        &Progress::new(),
    )
    .unwrap();
    let ask = |transport: &mut dyn Transport, instance: &str, roots: &[RootName]| {
        adopt::ask(&target.remote.name, transport, BRANCH, instance, roots).unwrap().unwrap()
    };
    assert!(!ask(transport.as_mut(), "other", &roots).ours);
    assert!(!ask(transport.as_mut(), "laptop", &[RootName::new("x").unwrap()]).ours);
    let offer = ask(transport.as_mut(), "laptop", &roots);
    assert!(offer.ours);
    let (fresh, _) =
        Repository::open_or_create(&bench.scratch.path().join("fresh.git"), BRANCH, "t", "owner").unwrap();
    adopt::take_over(&fresh, BRANCH, transport.as_mut(), &offer, &Progress::new()).unwrap();
    assert_eq!(fresh.reference(BRANCH).unwrap(), bench.repository.reference(BRANCH).unwrap());
    git(fresh.path(), &["fsck", "--full", "--strict"]);
}

#[test]
fn a_concurrent_reader_never_sees_half_a_push() {
    let mut bench = bench();
    bench.write("a", "0");
    bench.back_up();
    let target = target(&bench, "remote.git");
    run(&bench, &target, false, false, 1);
    let path = target.path.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut reads = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let output = Command::new("git")
                    .args(["rev-list", "--objects", "main"])
                    .current_dir(&path)
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                reads += 1;
            }
            reads
        }
    });
    for n in 1..30 {
        bench.write("a", n.to_string());
        bench.back_up();
        assert!(run(&bench, &target, false, false, n).is_verified);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}

#[test]
fn a_remote_that_was_confirmed_and_is_gone_is_unreachable_and_not_made_anew() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let target = target(&bench, "remote.git");
    assert!(run(&bench, &target, false, false, 1).is_verified);
    let aside = bench.scratch.path().join("unmounted.git");
    fs::rename(&target.path, &aside).unwrap();
    bench.write("a", "two");
    bench.back_up();
    let failed = run(&bench, &target, true, false, 2);
    assert!(!failed.is_verified && failed.record.last_error.unwrap().contains("is its disk mounted"));
    assert!(!target.path.exists());
    fs::rename(&aside, &target.path).unwrap();
    assert!(run(&bench, &target, true, false, 3).is_verified);
    fs::rename(&target.path, &aside).unwrap();
    let known = run(&bench, &target, true, false, 4);
    assert!(!known.is_verified, "that it had this commit once is no proof that it has it now");
    assert!(known.confirmed.is_some() && known.record.failures == 1);
}

#[test]
fn what_was_learnt_of_a_remote_counts_only_for_its_address() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.back_up();
    let target = target(&bench, "old.git");
    assert!(run(&bench, &target, false, false, 1).is_verified);
    let mut moved = self::target(&bench, "new.git");
    moved.remote.name = target.remote.name;
    assert!(run(&bench, &moved, false, false, 2).is_verified, "another disk under the old name is made anew");
    assert!(moved.path.join("HEAD").exists());
}
