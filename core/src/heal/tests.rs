//! A damaged repository is replaced by one that goes on from the most advanced complete commit.

use std::fs;

use super::*;
use crate::config::RemoteUrl;
use crate::git::health::tests::{BRANCH, pack_of, rewrite, with_history};
use crate::git::health::{Expected, Health};

struct World {
    scratch: tempfile::TempDir,
    remotes: Vec<Remote>,
    commits: Vec<Oid>,
}

impl World {
    /// Here `local` commits, in the remote the first `pushed` of them.
    fn new(local: u64, pushed: u64) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let (_, commits) = with_history(&scratch.path().join("x.git"), "state", local);
        let remote = scratch.path().join("remote.git");
        if pushed > 0 {
            with_history(&remote, "remote", pushed);
        }
        let remote = Remote::at(RemoteName::new("usb").unwrap(), RemoteUrl::Local(remote));
        Self { scratch, remotes: vec![remote], commits }
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("x.git")
    }

    fn heal(&self) -> Healed {
        let path = self.path();
        let roots = [RootName::new("folder").unwrap()];
        let known = [*self.commits.last().unwrap()];
        let patient = Patient {
            path: &path,
            origin: "state",
            owner: "state",
            branch: BRANCH,
            known: &known,
            remotes: &self.remotes,
            instance: "box",
            roots: &roots,
        };
        let healed = heal(&patient, &Progress::new()).unwrap();
        let checkpoint = match healed.continued {
            Continued::Here(tip) | Continued::Remote(_, tip) => Some(tip),
            Continued::Nowhere => None,
        };
        let expected = Expected { origin: "state", branch: BRANCH, checkpoint };
        assert_eq!(health::examine(&path, &expected, &Progress::new()).unwrap(), Health::Sound);
        let fresh = Repository::open(&path).unwrap();
        assert_eq!(fresh.reference(BRANCH).unwrap(), checkpoint);
        let fsck = std::process::Command::new("git")
            .arg("-C")
            .arg(&path)
            .args(["fsck", "--full", "--strict", "--unreachable"])
            .output();
        let fsck = fsck.unwrap();
        assert!(fsck.status.success() && fsck.stdout.is_empty(), "{fsck:?}");
        assert!(!healed.in_words(&path, "a test").is_empty());
        healed
    }

    fn flip(&self, commit: usize) {
        rewrite(&pack_of(&self.path(), self.commits[commit]), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 8;
        });
    }
}

#[test]
fn large_contents_come_along_whether_the_repository_is_damaged_or_was_set_aside() {
    let world = World::new(2, 0);
    let put = || {
        let mut draft = Objects::of(&world.path()).begin().unwrap();
        draft.write(b"large").unwrap();
        draft.finish().unwrap()
    };
    let pointer = put();
    fs::write(world.path().join("HEAD"), "").unwrap();
    world.heal();
    let is_sound = || Objects::of(&world.path()).is_sound(&pointer, &Progress::new()).unwrap();
    assert_eq!(is_sound(), Some(true));
    // Killed between the two renames.
    quarantine::set_aside(&world.path(), KEPT).unwrap();
    world.heal();
    assert_eq!(is_sound(), Some(true));
}

#[test]
fn damage_outside_of_the_objects_costs_no_commit() {
    let damages: [fn(&Path); 4] = [
        |path| fs::write(path.join("HEAD"), "").unwrap(),
        |path| fs::write(path.join(BRANCH), "").unwrap(),
        |path| fs::remove_file(path.join("config")).unwrap(),
        |path| fs::remove_dir_all(path.join("refs")).unwrap(),
    ];
    for damage in damages {
        for pushed in [0, 2, 3] {
            let world = World::new(3, pushed);
            damage(&world.path());
            let healed = world.heal();
            assert_eq!(healed.continued, Continued::Here(world.commits[2]));
            assert!(healed.set_aside.unwrap().exists());
            assert_eq!(healed.salvaged, Salvaged { whole: 3, partly: 0, lost: 0 });
        }
    }
}

#[test]
fn what_a_remote_has_is_fetched_whatever_was_lost_here() {
    for damaged in 0..3 {
        let world = World::new(3, 3);
        world.flip(damaged);
        let healed = world.heal();
        assert!(
            matches!(healed.continued, Continued::Remote(_, tip) if tip == world.commits[2]),
            "{healed:?}"
        );
    }
    let world = World::new(3, 3);
    fs::remove_dir_all(world.path()).unwrap();
    let healed = world.heal();
    assert!(matches!(healed.continued, Continued::Remote(_, tip) if tip == world.commits[2]));
    assert!(healed.set_aside.is_none());
}

#[test]
fn commits_that_no_remote_has_are_kept_if_they_are_complete() {
    let world = World::new(3, 1);
    fs::write(world.path().join("HEAD"), "").unwrap();
    assert_eq!(world.heal().continued, Continued::Here(world.commits[2]));
    // The second is lost, so the third is incomplete: the first is the latest that is not.
    let world = World::new(3, 0);
    world.flip(1);
    assert_eq!(world.heal().continued, Continued::Here(world.commits[0]));
    let world = World::new(3, 2);
    world.flip(2);
    let healed = world.heal();
    assert_eq!(healed.continued, Continued::Here(world.commits[1]), "it has what the remote has");
}

#[test]
fn with_nothing_left_anywhere_the_history_begins_anew() {
    let world = World::new(2, 0);
    world.flip(0);
    let healed = world.heal();
    assert_eq!(healed.continued, Continued::Nowhere);
    assert_eq!(healed.unasked.len(), 1, "the remote that is not there is named and not made");
    assert!(!world.scratch.path().join("remote.git").exists());
}

#[test]
fn a_remote_of_somebody_else_is_no_help() {
    let world = World::new(2, 0);
    let remote = world.scratch.path().join("remote.git");
    with_history(&remote, "remote", 5);
    world.flip(0);
    let mut other = World { remotes: world.remotes.clone(), ..world };
    other.commits.truncate(1);
    let path = other.path();
    let known = [];
    let patient = Patient {
        path: &path,
        origin: "state",
        owner: "state",
        branch: BRANCH,
        known: &known,
        remotes: &other.remotes,
        instance: "another box",
        roots: &[RootName::new("folder").unwrap()],
    };
    assert_eq!(heal(&patient, &Progress::new()).unwrap().continued, Continued::Nowhere);
}

#[test]
fn killed_between_the_two_renames_it_goes_on_from_what_was_set_aside() {
    let world = World::new(3, 1);
    quarantine::set_aside(&world.path(), KEPT).unwrap();
    fs::create_dir_all(world.scratch.path().join("x.git-state.unfinished/objects")).unwrap();
    let healed = world.heal();
    assert_eq!(healed.continued, Continued::Here(world.commits[2]));
    assert!(healed.set_aside.is_none());
    let left: Vec<_> =
        fs::read_dir(world.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}
