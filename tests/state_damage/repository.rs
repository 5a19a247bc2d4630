//! Damage to the repository.

use super::*;

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
