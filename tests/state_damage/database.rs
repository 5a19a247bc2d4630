//! Damage to the database.

use super::*;

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
