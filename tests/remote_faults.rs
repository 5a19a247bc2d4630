//! Remotes on a disk that misbehave: gone, read-only, somebody else's, damaged, shared with another instance. Each
//! ends in the state that docs/reliability.md names, with the work where the remote can take it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup, is_root, leftovers};
use crate::support::git::{Judge, git};
use crate::support::mount;
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually, skip};

fn state_of(status: &Value) -> &str {
    status["repositories"][0]["remotes"][0]["state"].as_str().unwrap()
}

fn reason_of(status: &Value) -> &str {
    status["repositories"][0]["remotes"][0]["reason"].as_str().unwrap_or_default()
}

fn arrives(setup: &Setup, content: &[u8]) {
    eventually("it is pushed by itself", SOON, || {
        (setup.remote().blob("main", "folder1/file").as_deref() == Some(content)).then_some(())
    });
}

/// A backup with two commits, still running.
fn backed_up(setup: &Setup) -> Daemon {
    write(&setup.root(), "file", "1");
    write(&setup.root(), "kept", Random::new(3).bytes(5000));
    let daemon = setup.start();
    daemon.api().flush();
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    daemon
}

#[test]
fn a_remote_whose_directory_is_gone_waits_until_it_is_back() {
    let setup = Setup::new();
    let daemon = backed_up(&setup);
    let away = setup.path("unplugged");
    fs::rename(setup.path("remote"), &away).unwrap();
    write(&setup.root(), "file", "3");
    let status = daemon.status_when("backoff", |status| state_of(status) == "backoff");
    assert!(reason_of(&status).contains("is its disk mounted"), "{status:#}");
    assert!(!setup.path("remote").exists(), "nothing is made on the bare mount point");
    fs::rename(&away, setup.path("remote")).unwrap();
    arrives(&setup, b"3");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_read_only_remote_is_told_and_retried() {
    let setup = Setup::new();
    let daemon = backed_up(&setup);
    let disk = match mount::itself(&setup.path("remote")) {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("a read-only remote: {reason}")),
    };
    disk.read_only(true);
    write(&setup.root(), "file", "3");
    let status = daemon.status_when("backoff", |status| state_of(status) == "backoff");
    let reason = reason_of(&status);
    assert!(reason.contains("Read-only file system") && reason.contains("remote/documents.git"), "{reason}");
    disk.read_only(false);
    arrives(&setup, b"3");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_remote_that_we_may_not_write_is_told_and_retried() {
    if !is_root() {
        return skip("a remote of another user: making one needs root");
    }
    let mut setup = Setup::new();
    setup.as_nobody = true;
    let daemon = backed_up(&setup);
    let owner = |path: &Path, uid: u32| {
        let status = std::process::Command::new("chown").args(["-R", &uid.to_string()]).arg(path).status();
        assert!(status.unwrap().success());
    };
    owner(&setup.remote().path, 0);
    write(&setup.root(), "file", "3");
    let status = daemon.status_when("backoff", |status| state_of(status) == "backoff");
    let reason = reason_of(&status);
    assert!(reason.contains("ermission denied") && reason.contains("remote/documents.git"), "{reason}");
    owner(&setup.remote().path, 65_534);
    arrives(&setup, b"3");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn what_is_pushed_to_somebody_elses_remote_is_theirs_too() {
    if !is_root() {
        return skip("a remote of another user: making one needs root");
    }
    const THEIRS: u32 = 12_345;
    let setup = Setup::new();
    let remote = setup.remote().path;
    fs::create_dir_all(&remote).unwrap();
    git(&remote, &["init", "--quiet", "--bare", "--shared", "--initial-branch=main"]);
    fs::set_permissions(setup.path("remote"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(setup.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let given = std::process::Command::new("chown").args(["-R", &THEIRS.to_string()]).arg(&remote).status();
    assert!(given.unwrap().success());
    let daemon = backed_up(&setup);
    daemon.stop();
    let mut pending = vec![remote];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.uid(), THEIRS, "{}", path.display());
        assert_ne!(metadata.mode() & 0o044, 0, "{} {:o}", path.display(), metadata.mode());
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    setup.assert_all_is_well();
}

#[test]
fn a_branch_that_somebody_deleted_is_pushed_again_whole() {
    let setup = Setup::new();
    let daemon = backed_up(&setup);
    let before = setup.remote().tip("main").unwrap();
    git(&setup.remote().path, &["update-ref", "-d", "refs/heads/main"]);
    git(&setup.remote().path, &["gc", "--quiet", "--prune=now"]);
    write(&setup.root(), "file", "3");
    arrives(&setup, b"3");
    daemon.api().flush();
    daemon.stop();
    assert!(setup.remote().is_ancestor(&before, "main"), "the whole history is back");
    setup.assert_all_is_well();
}

/// The packs of the remote, largest first.
fn packs(remote: &Judge) -> Vec<PathBuf> {
    let listing = fs::read_dir(remote.path.join("objects/pack")).unwrap();
    let mut packs: Vec<PathBuf> = listing
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pack"))
        .collect();
    packs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    packs
}

#[test]
fn objects_that_a_remote_has_lost_are_sent_again() {
    type Damage = fn(&Judge);
    let cases: [(&str, Damage); 5] = [
        ("a pack without its index", |remote| {
            fs::remove_file(packs(remote)[0].with_extension("idx")).unwrap();
        }),
        ("an index without its pack", |remote| fs::remove_file(&packs(remote)[0]).unwrap()),
        ("a pack that is cut off", |remote| {
            let pack = &packs(remote)[0];
            let length = fs::metadata(pack).unwrap().len();
            fs::set_permissions(pack, fs::Permissions::from_mode(0o600)).unwrap();
            fs::File::options().write(true).open(pack).unwrap().set_len(length / 2).unwrap();
        }),
        ("an empty pack", |remote| {
            let pack = &packs(remote)[0];
            fs::set_permissions(pack, fs::Permissions::from_mode(0o600)).unwrap();
            fs::File::options().write(true).open(pack).unwrap().set_len(0).unwrap();
        }),
        ("no pack at all", |remote| {
            for pack in packs(remote) {
                fs::remove_file(pack.with_extension("idx")).unwrap();
                fs::remove_file(pack).unwrap();
            }
        }),
    ];
    for (what, damage) in cases {
        let setup = Setup::new();
        let daemon = backed_up(&setup);
        damage(&setup.remote());
        write(&setup.root(), "file", "3");
        arrives(&setup, b"3");
        daemon.api().flush();
        // The log is written by a thread of its own.
        eventually(&format!("{what} is told"), SOON, || {
            daemon.output().contains("had lost objects").then_some(())
        });
        let status = daemon.status_when(what, |status| state_of(status) == "idle");
        assert_eq!(reason_of(&status), "", "{what}");
        daemon.stop();
        setup.assert_clone_equals_root();
        let whole =
            crate::support::git::try_git(&setup.remote().path, &["rev-list", "--objects", "--quiet", "main"]);
        assert!(whole.status.success(), "{what}: {}", String::from_utf8_lossy(&whole.stderr));
        assert_eq!(leftovers(&setup.path("remote")), Vec::<PathBuf>::new(), "{what}");
    }
}

#[test]
fn a_flush_finds_what_an_idle_remote_has_lost() {
    let setup = Setup::new();
    let daemon = backed_up(&setup);
    fs::remove_file(&packs(&setup.remote())[0]).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_clone_equals_root();
}

#[test]
fn two_instances_with_one_branch_keep_out_of_each_others_way() {
    let first = Setup::new();
    let mut second = Setup::new();
    second.config["instance"] = json!("otherbox");
    let url = first.remote().path.to_str().unwrap().to_owned();
    second.repository()["remotes"][0]["url"] = json!(url);
    write(&first.root(), "file", "of the first");
    write(&second.root(), "file", "of the second");
    // Whoever comes first has the branch; the other must not touch it and still get its work out.
    let daemons = [first.start(), second.start()];
    let mut halted = Vec::new();
    eventually("one has the branch and the other is halted", SOON, || {
        let states: Vec<String> =
            daemons.iter().map(|daemon| state_of(&daemon.api().status()).to_owned()).collect();
        halted = (0..2).filter(|number| states[*number] == "halted").collect();
        (halted.len() == 1 && states[1 - halted[0]] == "idle").then_some(())
    });
    let (loser, winner) = (halted[0], 1 - halted[0]);
    let setups = [&first, &second];
    let status = daemons[loser].api().status();
    assert!(reason_of(&status).contains("diverged"), "{status:#}");
    let instance = if loser == 0 { "testbox" } else { "otherbox" };
    let rescue = eventually("the work is rescued", SOON, || {
        let references = first.remote().references();
        references
            .into_keys()
            .find(|name| name.starts_with(&format!("refs/heads/backupbot/rescue/{instance}/")))
    });
    let content = fs::read(setups[loser].root().join("file")).unwrap();
    eventually("the rescue branch has it", SOON, || {
        (first.remote().blob(&rescue, "folder1/file").as_deref() == Some(&content)).then_some(())
    });
    // Both go on, each where it was.
    write(&setups[loser].root(), "later", "loser");
    write(&setups[winner].root(), "later", "winner");
    daemons[winner].api().flush();
    eventually("the rescue branch follows", SOON, || {
        let _ = daemons[loser].api().post("/api/v1/flush", &json!({"wait": true, "timeout": "5s"}));
        (first.remote().blob(&rescue, "folder1/later").as_deref() == Some(b"loser")).then_some(())
    });
    assert_eq!(first.remote().blob("main", "folder1/later").unwrap(), b"winner");
    for daemon in daemons {
        daemon.stop_or_fail();
    }
    first.remote().assert_sound();
    first.remote().assert_tidy("main");
}
