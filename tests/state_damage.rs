//! Damaged state: whatever is found in the state directory, at a start or while running, it is set aside, made anew
//! from what remains, and told. No commit is lost that a remote has, none is made twice, and nothing is forced.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::{git, try_git};
use crate::support::tree::{corpus, write};
use crate::support::{Random, SOON, eventually, is_long, seed};

/// Everything set aside in the state directory whose name begins with `name`.
fn set_aside(setup: &Setup, name: &str) -> Vec<PathBuf> {
    let place = setup.state().join(name);
    let prefix = format!("{}.damaged-", place.file_name().unwrap().to_str().unwrap());
    let listing = fs::read_dir(place.parent().unwrap()).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = listing
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

const DATABASE: &str = "state.redb";
const REPOSITORY: &str = "repos/documents.git";

/// A setup with a few pushed commits; the program is stopped.
fn with_history() -> Setup {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..4 {
        write(&setup.root(), format!("d{number}/file"), format!("version {number}"));
        write(&setup.root(), "changing", format!("version {number}"));
        daemon.api().flush();
    }
    daemon.stop();
    setup
}

/// Everything is well after a damage: the remote is the root, it kept what it had, nothing was made twice.
fn assert_recovered(setup: &Setup, daemon: Daemon, earlier: &str) {
    daemon.api().flush();
    let said = daemon.output();
    daemon.stop();
    println!("it said: {said}");
    setup.assert_all_is_well();
    assert!(setup.remote().is_ancestor(earlier, "main"), "the remote's history goes on");
    assert_eq!(setup.local().tip("main"), setup.remote().tip("main"));
    let references = setup.remote().references();
    assert!(!references.keys().any(|name| name.contains("rescue")), "{references:?}");
    // One more start has nothing to do and nothing to tell.
    let tip = setup.remote().tip("main");
    let daemon = setup.start();
    daemon.api().flush();
    assert!(!daemon.output().contains("damaged"), "{}", daemon.output());
    daemon.stop();
    assert_eq!(setup.remote().tip("main"), tip, "a second commit");
}

fn state_recovered(daemon: &Daemon) -> String {
    let status = daemon.status_when("the recovery is told", |status| {
        status["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == "state_recovered")
    });
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "state_recovered").unwrap();
    alert["message"].as_str().unwrap().to_owned()
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn packs(setup: &Setup, ending: &str) -> Vec<PathBuf> {
    let listing = fs::read_dir(setup.state().join(REPOSITORY).join("objects/pack")).unwrap();
    let mut found: Vec<PathBuf> = listing
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|own| own == ending))
        .collect();
    found.sort();
    found
}

/// The pack here that holds the commit.
fn pack_of(setup: &Setup, commit: &str) -> PathBuf {
    let holds = |index: &PathBuf| git(&setup.local().path, &["show-index"], index).contains(commit);
    fn git(directory: &Path, arguments: &[&str], input: &Path) -> String {
        let output = std::process::Command::new("git")
            .args(arguments)
            .current_dir(directory)
            .stdin(fs::File::open(input).unwrap())
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
    packs(setup, "idx").into_iter().find(holds).unwrap().with_extension("pack")
}

#[test]
fn a_database_in_any_state_of_ruin_is_set_aside_and_rebuilt() {
    let damages: &[(&str, fn(&Path))] = &[
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("text", |path| fs::write(path, b"dear diary\n").unwrap()),
        ("one byte", |path| fs::write(path, b"r").unwrap()),
        ("half", |path| rewrite(path, |bytes| bytes.truncate(bytes.len() / 2))),
        ("a page", |path| rewrite(path, |bytes| bytes.truncate(4096))),
        ("all but a byte", |path| rewrite(path, |bytes| bytes.truncate(bytes.len() - 1))),
        ("zeros", |path| rewrite(path, |bytes| bytes.fill(0))),
        ("a hole", |path| {
            rewrite(path, |bytes| {
                let end = bytes.len().min(200_000);
                bytes[4096..end].fill(0);
            });
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir_all(path.join("inside")).unwrap();
        }),
        ("a link to nowhere", |path| {
            fs::remove_file(path).unwrap();
            symlink("/nowhere/at/all", path).unwrap();
        }),
    ];
    let setup = with_history();
    for (number, (name, damage)) in damages.iter().enumerate() {
        println!("{name}");
        let before = setup.remote().tip("main").unwrap();
        damage(&setup.state().join(DATABASE));
        // Every other time something happened meanwhile.
        if number % 2 == 1 {
            write(&setup.root(), "changing", format!("meanwhile {number}"));
            fs::remove_file(setup.root().join("gone")).ok();
        } else {
            write(&setup.root(), "gone", "x");
        }
        let daemon = setup.start();
        let message = state_recovered(&daemon);
        assert!(message.contains("database") && message.contains(".damaged-"), "{name}: {message}");
        assert_recovered(&setup, daemon, &before);
        assert_eq!(
            set_aside(&setup, DATABASE).len(),
            (number + 1).min(3),
            "{name}: the newest three are kept"
        );
    }
}

#[test]
fn a_database_that_is_gone_is_rebuilt() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    fs::remove_file(setup.state().join(DATABASE)).unwrap();
    fs::remove_file(setup.root().join("d1/file")).unwrap();
    assert_recovered(&setup, setup.start(), &before);
}

#[test]
fn flipped_bits_in_the_database_never_lose_or_double_a_commit() {
    let seed = seed("flipped_bits_in_the_database_never_lose_or_double_a_commit");
    let mut random = Random::new(seed);
    let setup = with_history();
    corpus(&setup.root(), 150, &mut random);
    for round in 0..if is_long() { 200 } else { 12 } {
        let path = setup.state().join(DATABASE);
        rewrite(&path, |bytes| {
            for _ in 0..1 << (round % 6) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        });
        if round % 3 == 0 {
            write(&setup.root(), "changing", format!("round {round}"));
        }
        let before = setup.remote().tip("main").unwrap();
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
        setup.assert_clone_equals_root();
        setup.remote().assert_tidy("main");
        assert!(setup.remote().is_ancestor(&before, "main"), "round {round}");
        assert!(set_aside(&setup, DATABASE).len() <= 3);
    }
    setup.assert_all_is_well();
}

#[test]
fn a_database_that_may_not_be_read_stops_nobody() {
    let mut setup = with_history();
    setup.as_nobody = true;
    let before = setup.remote().tip("main").unwrap();
    let path = setup.state().join(DATABASE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert_eq!(set_aside(&setup, DATABASE).len(), 0, "it is our own: the permission is mended");
    assert!(setup.remote().is_ancestor(&before, "main"));
}

#[test]
fn a_database_that_vanishes_while_the_program_runs_is_rebuilt_at_the_next_start() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    fs::remove_file(setup.state().join(DATABASE)).unwrap();
    write(&setup.root(), "changing", "while it is gone");
    daemon.api().flush();
    daemon.kill();
    write(&setup.root(), "changing", "while the program is gone");
    assert_recovered(&setup, setup.start(), &before);
}

#[test]
fn a_database_cut_off_while_the_program_runs_ends_in_a_rebuild() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    let mut daemon = setup.start();
    daemon.api().flush();
    let file = fs::File::options().write(true).open(setup.state().join(DATABASE)).unwrap();
    file.set_len(8192).unwrap();
    for number in 0..20 {
        write(&setup.root(), format!("later/{number}"), "x");
    }
    // It may go on with what it has in memory, or give up; it must not go on for ever with neither.
    let told = |daemon: &Daemon| {
        let api = daemon.api();
        api.post("/api/v1/flush", &serde_json::json!({"wait": true, "timeout": "5s"})).status == 200
    };
    let gave_up = |daemon: &mut Daemon| {
        eventually("it ends or goes on", SOON * 2, || {
            let ended = daemon.ended().is_some();
            (ended
                || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| told(daemon))).unwrap_or(false))
            .then_some(ended)
        })
    };
    if gave_up(&mut daemon) {
        assert_eq!(daemon.end(SOON).code(), Some(6), "it says that it is to be started again");
    }
    drop(daemon);
    assert_recovered(&setup, setup.start(), &before);
}

/// Damages to the repository that a start finds, and whether every commit of it is still readable here.
const REPOSITORY_DAMAGES: &[(&str, fn(&Setup))] = &[
    ("gone", |setup| fs::remove_dir_all(&setup.local().path).unwrap()),
    ("emptied", |setup| {
        fs::remove_dir_all(&setup.local().path).unwrap();
        fs::create_dir(&setup.local().path).unwrap();
    }),
    ("a file", |setup| {
        fs::remove_dir_all(&setup.local().path).unwrap();
        fs::write(&setup.local().path, "not a repository").unwrap();
    }),
    ("half made", |setup| {
        fs::remove_dir_all(&setup.local().path).unwrap();
        fs::create_dir_all(setup.local().path.join("objects/info")).unwrap();
    }),
    ("made anew by somebody", |setup| {
        fs::remove_dir_all(&setup.local().path).unwrap();
        git(&setup.state(), &["init", "--quiet", "--bare", "repos/documents.git"]);
    }),
    ("no HEAD", |setup| fs::remove_file(setup.local().path.join("HEAD")).unwrap()),
    ("zero HEAD", |setup| fs::write(setup.local().path.join("HEAD"), "").unwrap()),
    ("zero config", |setup| fs::write(setup.local().path.join("config"), "").unwrap()),
    ("no config", |setup| fs::remove_file(setup.local().path.join("config")).unwrap()),
    ("broken config", |setup| fs::write(setup.local().path.join("config"), "[core").unwrap()),
    ("zero branch", |setup| fs::write(setup.local().path.join("refs/heads/main"), "").unwrap()),
    ("text in the branch", |setup| fs::write(setup.local().path.join("refs/heads/main"), "hi\n").unwrap()),
    ("no branch", |setup| fs::remove_file(setup.local().path.join("refs/heads/main")).unwrap()),
    ("no references", |setup| fs::remove_dir_all(setup.local().path.join("refs")).unwrap()),
    ("broken packed-refs", |setup| fs::write(setup.local().path.join("packed-refs"), "x\0y").unwrap()),
    ("a branch to nowhere", |setup| {
        fs::write(setup.local().path.join("refs/heads/main"), format!("{}\n", "5".repeat(40))).unwrap();
    }),
    ("an old value of the branch", |setup| {
        let old = setup.local().resolve("main~2").unwrap();
        fs::write(setup.local().path.join("refs/heads/main"), format!("{old}\n")).unwrap();
    }),
    ("no objects", |setup| fs::remove_dir_all(setup.local().path.join("objects")).unwrap()),
    ("zero pack", |setup| rewrite(&packs(setup, "pack")[0], Vec::clear)),
    ("short pack", |setup| rewrite(&packs(setup, "pack")[1], |bytes| bytes.truncate(bytes.len() - 3))),
    ("no pack", |setup| fs::remove_file(&packs(setup, "pack")[2]).unwrap()),
    ("zero index", |setup| rewrite(&packs(setup, "idx")[0], Vec::clear)),
    ("no index", |setup| fs::remove_file(&packs(setup, "idx")[1]).unwrap()),
    ("an index of another pack", |setup| {
        let indexes = packs(setup, "idx");
        fs::remove_file(&indexes[0]).unwrap();
        fs::copy(&indexes[1], &indexes[0]).unwrap();
    }),
    ("the tip's pack and index", |setup| {
        let pack = pack_of(setup, &setup.local().tip("main").unwrap());
        fs::remove_file(pack.with_extension("idx")).unwrap();
        fs::remove_file(pack).unwrap();
    }),
    ("alternates", |setup| {
        let elsewhere = setup.path("elsewhere");
        git(setup.scratch.path(), &["init", "--quiet", "--bare", "elsewhere"]);
        let line = format!("{}\n", elsewhere.join("objects").display());
        fs::write(setup.local().path.join("objects/info/alternates"), line).unwrap();
    }),
];

#[test]
fn a_repository_in_any_state_of_ruin_goes_on_from_what_remains() {
    for (number, (name, damage)) in REPOSITORY_DAMAGES.iter().enumerate() {
        println!("{name}");
        let setup = with_history();
        let before = setup.remote().tip("main").unwrap();
        damage(&setup);
        if number % 2 == 1 {
            write(&setup.root(), "changing", "meanwhile");
            fs::remove_file(setup.root().join("d1/file")).unwrap();
        }
        let daemon = setup.start();
        if *name != "an old value of the branch" {
            let message = state_recovered(&daemon);
            assert!(message.contains("documents.git"), "{name}: {message}");
        }
        assert_recovered(&setup, daemon, &before);
        let expected = usize::from(!matches!(*name, "gone" | "an old value of the branch"));
        assert_eq!(set_aside(&setup, REPOSITORY).len(), expected, "{name}");
    }
}

/// A setup whose latest commit is on this machine only; the program is stopped.
fn with_unpushed_commit() -> (Setup, String) {
    let mut setup = with_history();
    let remote = setup.path("remote");
    fs::rename(&remote, setup.path("unplugged")).unwrap();
    setup.config["shutdown_grace"] = serde_json::json!("1s");
    let before = setup.local().tip("main");
    write(&setup.root(), "unpushed", "precious");
    let daemon = setup.start();
    let tip =
        eventually("a commit", SOON, || setup.local().tip("main").filter(|tip| Some(tip) != before.as_ref()));
    daemon.stop_or_fail();
    fs::rename(setup.path("unplugged"), remote).unwrap();
    (setup, tip)
}

#[test]
fn a_commit_that_was_not_pushed_survives_what_leaves_it_readable() {
    let damages: [fn(&Setup); 4] = [
        |setup| fs::write(setup.local().path.join("HEAD"), "").unwrap(),
        |setup| fs::write(setup.local().path.join("refs/heads/main"), "").unwrap(),
        |setup| fs::remove_file(packs(setup, "idx").last().unwrap()).unwrap(),
        |setup| {
            fs::write(setup.local().path.join("refs/heads/main"), "").unwrap();
            fs::remove_file(setup.state().join(DATABASE)).unwrap();
        },
    ];
    for damage in damages {
        let (setup, unpushed) = with_unpushed_commit();
        damage(&setup);
        assert_recovered(&setup, setup.start(), &unpushed);
    }
}

#[test]
fn a_commit_that_was_lost_before_it_was_pushed_is_made_again_from_the_files() {
    let (setup, unpushed) = with_unpushed_commit();
    let before = setup.remote().tip("main").unwrap();
    rewrite(&pack_of(&setup, &unpushed), Vec::clear);
    assert_recovered(&setup, setup.start(), &before);
    assert_eq!(setup.remote().blob("main", "folder1/unpushed").as_deref(), Some(b"precious".as_slice()));
}

#[test]
fn with_its_remote_out_of_reach_a_ruined_repository_begins_anew_and_nothing_is_forced() {
    let mut setup = with_history();
    let theirs = setup.remote().tip("main").unwrap();
    fs::rename(setup.path("remote"), setup.path("unplugged")).unwrap();
    setup.config["shutdown_grace"] = serde_json::json!("1s");
    fs::remove_dir_all(&setup.local().path).unwrap();
    let daemon = setup.start();
    let message = state_recovered(&daemon);
    assert!(message.contains("rescue"), "it says what will happen: {message}");
    eventually("a commit", SOON, || setup.local().tip("main"));
    fs::rename(setup.path("unplugged"), setup.path("remote")).unwrap();
    daemon.status_when("the remote is halted", |status| {
        status["repositories"][0]["remotes"][0]["state"] == "halted"
    });
    let rescued = eventually("the rescue branch", SOON, || {
        let mut references = setup.remote().references().into_iter();
        references.find(|(name, _)| name.starts_with("refs/heads/backupbot/rescue/"))
    });
    assert_eq!(setup.remote().tip("main").unwrap(), theirs, "nothing is forced");
    assert!(setup.remote().blob(&rescued.1, "folder1/changing").is_some());
    daemon.stop_or_fail();
    setup.remote().assert_sound();
}

#[test]
fn damage_that_is_met_while_running_is_healed_without_a_restart() {
    let damages: &[(&str, fn(&Setup))] = &[
        ("gone", |setup| fs::remove_dir_all(&setup.local().path).unwrap()),
        ("zero branch", |setup| fs::write(setup.local().path.join("refs/heads/main"), "").unwrap()),
        ("no pack directory", |setup| fs::remove_dir_all(setup.local().path.join("objects/pack")).unwrap()),
        ("every pack", |setup| packs(setup, "pack").iter().for_each(|pack| rewrite(pack, Vec::clear))),
        ("a flipped tree", |setup| {
            let pack = pack_of(setup, &setup.local().tip("main").unwrap());
            rewrite(&pack, |bytes| {
                let length = bytes.len();
                bytes[20..length - 20].iter_mut().for_each(|byte| *byte ^= 0x10);
            });
        }),
    ];
    for (name, damage) in damages {
        println!("{name}");
        let setup = with_history();
        let before = setup.remote().tip("main").unwrap();
        let daemon = setup.start();
        daemon.api().flush();
        damage(&setup);
        write(&setup.root(), "changing", "after the damage");
        write(&setup.root(), "d1/new", "after the damage");
        let message = state_recovered(&daemon);
        assert!(message.contains("documents.git"), "{name}: {message}");
        assert_recovered(&setup, daemon, &before);
    }
}

#[test]
fn a_flipped_object_that_a_push_needs_is_found_and_made_again() {
    let (setup, unpushed) = with_unpushed_commit();
    let before = setup.remote().tip("main").unwrap();
    // Not a byte that a cheap look reads.
    rewrite(&pack_of(&setup, &unpushed), |bytes| bytes[30] ^= 0x40);
    let daemon = setup.start();
    state_recovered(&daemon);
    assert_recovered(&setup, daemon, &before);
    assert_eq!(setup.remote().blob("main", "folder1/unpushed").as_deref(), Some(b"precious".as_slice()));
}

#[test]
fn leftovers_of_old_crashes_are_swept() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    let repository = setup.local().path;
    for leftover in [
        "refs/heads/main.lock",
        "HEAD.lock",
        "packed-refs.lock",
        "config.lock",
        "objects/pack/tmp_pack_bb_new_0123456789abcdef",
        "objects/pack/tmp_pack_XXAbcd",
        "objects/pack/tmp_idx_XXAbcd",
        "objects/pack/.tmp-17-pack-0123.pack",
        "objects/ab/tmp_obj_123456",
    ] {
        let path = repository.join(leftover);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "half").unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 24 * 3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    fs::create_dir_all(setup.state().join("repos/documents.git-state.unfinished/objects")).unwrap();
    fs::write(setup.state().join("state.redb.new"), "half").unwrap();
    write(&setup.root(), "changing", "meanwhile");
    assert_recovered(&setup, setup.start(), &before);
}

#[test]
fn hooks_in_the_repository_are_not_run() {
    let setup = with_history();
    let before = setup.remote().tip("main").unwrap();
    let canary = setup.path("canary");
    for repository in [setup.local().path, setup.remote().path] {
        fs::create_dir_all(repository.join("hooks")).unwrap();
        for hook in
            ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "pre-auto-gc"]
        {
            let path = repository.join("hooks").join(hook);
            fs::write(&path, format!("#!/bin/sh\ntouch {}\nexit 1\n", canary.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    write(&setup.root(), "changing", "with hooks");
    assert_recovered(&setup, setup.start(), &before);
    assert!(!canary.exists());
}

#[test]
fn alternates_are_not_obeyed() {
    let setup = with_history();
    // The planted store has what was taken away here; nothing must be found in it.
    let stolen = setup.path("stolen");
    fs::create_dir_all(stolen.join("objects/pack")).unwrap();
    for ending in ["pack", "idx"] {
        for path in packs(&setup, ending) {
            fs::rename(&path, stolen.join("objects/pack").join(path.file_name().unwrap())).unwrap();
        }
    }
    let line = format!("{}\n", stolen.join("objects").display());
    fs::write(setup.local().path.join("objects/info/alternates"), line).unwrap();
    let before = setup.remote().tip("main").unwrap();
    assert_recovered(&setup, setup.start(), &before);
    assert!(!setup.local().path.join("objects/info/alternates").exists());
    fs::remove_dir_all(&stolen).unwrap();
    setup.local().assert_sound();
}

#[test]
fn what_is_set_aside_is_bounded() {
    let setup = with_history();
    for _ in 0..4 {
        fs::write(setup.local().path.join("HEAD"), "").unwrap();
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
    }
    assert_eq!(set_aside(&setup, REPOSITORY).len(), 2);
    setup.assert_all_is_well();
    for aside in set_aside(&setup, REPOSITORY) {
        assert!(
            try_git(&aside, &["cat-file", "-e", "HEAD"]).status.code() != Some(0),
            "it is as it was found"
        );
    }
}
