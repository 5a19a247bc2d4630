//! The main job: what changes in a watched directory is on the remote, soon, exactly, and once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::{Judge, assert_clone_equals, git};
use crate::support::tree::{Churn, change, corpus, write};
use crate::support::{Random, SOON, eventually, seed};

/// Waits until the remote's branch holds `content` at `path`.
fn arrives(setup: &Setup, path: &str, content: &[u8]) {
    eventually(&format!("{path} arrives"), SOON, || {
        (setup.remote().blob("main", path).as_deref() == Some(content)).then_some(())
    });
}

#[test]
fn the_main_command_protects_a_change_within_a_minute() {
    let setup = Setup::new();
    write(&setup.root(), "letter.txt", "dear");
    let remote = setup.remote();
    let mut command = setup.command(&["run", "--watch"]);
    command.arg(setup.root()).arg("--remote").arg(&remote.path).arg("--state-dir").arg(setup.state());
    command.env("BACKUPBOT_ADMIN_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::spawn(command, &setup);
    daemon.serving();
    arrives(&setup, "folder1/letter.txt", b"dear");

    write(&setup.root(), "deep/er/new.bin", [0u8, 1, 2, 255]);
    fs::write(setup.root().join("letter.txt"), "dear friend").unwrap();
    let changed = Instant::now();
    arrives(&setup, "folder1/letter.txt", b"dear friend");
    arrives(&setup, "folder1/deep/er/new.bin", &[0u8, 1, 2, 255]);
    assert!(changed.elapsed() < Duration::from_secs(60), "{:?}", changed.elapsed());

    assert_eq!(fs::read_to_string(remote.path.join("HEAD")).unwrap(), "ref: refs/heads/main\n");
    daemon.stop();
    setup.assert_clone_equals_root();
    for judge in [remote, Judge::new(setup.state().join("repos/folder1.git"))] {
        judge.assert_sound();
        judge.assert_tidy("main");
    }
}

#[test]
fn a_change_reaches_the_remote_without_being_asked() {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..3 {
        write(&setup.root(), "log.txt", format!("line {number}"));
        arrives(&setup, "folder1/log.txt", format!("line {number}").as_bytes());
    }
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn deletes_renames_modes_and_changes_of_kind_are_followed() {
    let setup = Setup::new();
    let root = setup.root();
    for name in ["gone", "old-name", "script", "file-to-dir", "dir-to-link/inside", "moved/a", "moved/b/c"] {
        write(&root, name, name);
    }
    let daemon = setup.start();
    daemon.api().flush();
    setup.assert_clone_equals_root();

    fs::remove_file(root.join("gone")).unwrap();
    fs::rename(root.join("old-name"), root.join("new-name")).unwrap();
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(root.join("file-to-dir")).unwrap();
    write(&root, "file-to-dir/now/inside", "x");
    fs::remove_dir_all(root.join("dir-to-link")).unwrap();
    std::os::unix::fs::symlink("new-name", root.join("dir-to-link")).unwrap();
    fs::rename(root.join("moved"), root.join("elsewhere")).unwrap();
    daemon.api().flush();
    setup.assert_clone_equals_root();

    fs::remove_file(root.join("dir-to-link")).unwrap();
    fs::write(root.join("dir-to-link"), "a file again").unwrap();
    fs::remove_dir_all(root.join("file-to-dir")).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", root.join("file-to-dir")).unwrap();
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o644)).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn random_changes_end_in_an_exact_clone() {
    let setup = Setup::new();
    let mut random = Random::new(seed("random_changes_end_in_an_exact_clone"));
    corpus(&setup.root(), 200, &mut random);
    let daemon = setup.start();
    for _ in 0..5 {
        for _ in 0..150 {
            change(&setup.root(), &mut random);
        }
        daemon.api().flush();
        setup.assert_clone_equals_root();
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_restart_continues_where_the_last_run_stopped() {
    let setup = Setup::new();
    write(&setup.root(), "stays", "1");
    write(&setup.root(), "goes", "2");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let before = setup.remote().tip("main").unwrap();

    fs::remove_file(setup.root().join("goes")).unwrap();
    write(&setup.root(), "came/while/down", "3");
    let daemon = setup.start();
    arrives(&setup, "folder1/came/while/down", b"3");
    daemon.api().flush();
    daemon.stop();
    let after = setup.remote().tip("main").unwrap();
    assert!(setup.remote().is_ancestor(&before, &after));

    // Nothing changed: nothing to say.
    let daemon = setup.start();
    daemon.status_when("the root is compared", |status| {
        status["repositories"][0]["roots"][0]["state"] == "watching"
    });
    daemon.api().flush();
    daemon.stop();
    assert_eq!(setup.remote().tip("main").unwrap(), after, "a restart alone makes no commit");
    setup.assert_all_is_well();
}

#[test]
fn what_ends_as_it_was_makes_no_commit() {
    let setup = Setup::new();
    write(&setup.root(), "same", "content");
    let daemon = setup.start();
    daemon.api().flush();
    let before = setup.remote().tip("main").unwrap();

    let path = setup.root().join("same");
    let (directory, file) = (fs::metadata(setup.root()).unwrap(), fs::metadata(&path).unwrap());
    fs::write(&path, "content").unwrap();
    let set_back = |path: &std::path::Path, times: &fs::Metadata| {
        let times = fs::FileTimes::new().set_modified(times.modified().unwrap());
        fs::File::open(path).unwrap().set_times(times).unwrap();
    };
    set_back(&path, &file);
    write(&setup.root(), "passing", "by");
    fs::remove_file(setup.root().join("passing")).unwrap();
    set_back(&setup.root(), &directory);
    daemon.api().flush();
    assert_eq!(setup.remote().tip("main").unwrap(), before);
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_file_touched_for_ever_is_committed_once_per_longest_wait_and_delays_nobody() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["debounce"] = json!({"quiet": "500ms", "max": "2s"});
    setup.repository()["batch"]["after"] = json!("50ms");
    let daemon = setup.start();
    daemon.api().flush();

    let busy = setup.root().join("busy.log");
    let started = Instant::now();
    let mut quiet_arrived = None;
    let mut number = 0u64;
    while started.elapsed() < Duration::from_secs(9) {
        number += 1;
        fs::write(&busy, format!("{number:020}")).unwrap();
        if number == 20 {
            write(&setup.root(), "quiet.txt", "once");
        }
        if number.is_multiple_of(10) && quiet_arrived.is_none() {
            let has_it = setup.remote().blob("main", "folder1/quiet.txt").is_some();
            quiet_arrived = has_it.then(|| started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let quiet_arrived = quiet_arrived.expect("a busy file delays no other");
    assert!(quiet_arrived < Duration::from_secs(6), "{quiet_arrived:?}");
    let took = started.elapsed();
    let commits = git(&setup.remote().path, &["rev-list", "--count", "main", "--", "folder1/busy.log"]);
    let commits: u64 = commits.trim().parse().unwrap();
    // One every two seconds, with one more for each end.
    let most = took.as_secs() / 2 + 2;
    assert!((2..=most).contains(&commits), "{commits} commits of a busy file in {took:?}");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn excluded_files_are_left_out_counted_and_explained() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["ignore"] = json!(["*.tmp", "/cache/"]);
    let root = setup.root();
    write(&root, ".backupbotignore", "secret-*\n!secret-but-kept\n");
    for name in ["kept.txt", "secret-but-kept", "deep/cache/kept"] {
        write(&root, name, name);
    }
    let excluded = ["a.tmp", "deep/b.tmp", "cache/x", "cache/y", "secret-1", ".DS_Store", ".letter.txt.swp"];
    for name in excluded {
        write(&root, name, name);
    }
    let daemon = setup.start();
    daemon.api().flush();
    let is_excluded = |path: &[u8]| excluded.iter().any(|name| name.as_bytes() == path);
    assert_clone_equals(&setup.remote().path, "main", &[("folder1", &root)], is_excluded);

    let why = setup.run(&["why", root.join("a.tmp").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(said.contains("*.tmp"), "{said}");

    let status = daemon.status_when("the root is compared", |status| {
        status["repositories"][0]["roots"][0]["state"] == "watching"
    });
    let row = &status["repositories"][0]["roots"][0];
    assert_eq!(row["excluded_by_system"], 2, "{row}");

    // A rule that comes later takes files out of the present tree, not out of history.
    let before = setup.remote().tip("main").unwrap();
    write(&root, ".backupbotignore", "secret-*\nkept.txt\n");
    eventually("the new rule is obeyed", SOON, || {
        daemon.api().flush();
        setup.remote().blob("main", "folder1/kept.txt").is_none().then_some(())
    });
    assert!(setup.remote().blob(&before, "folder1/kept.txt").is_some());
    daemon.stop();
    setup.remote().assert_tidy("main");
}

#[test]
fn tags_are_set_as_the_strategy_says() {
    for (every, name, expected) in
        [("commit", "backup-%Y", 3), ("day", "backup-%Y-%m-%d", 1), ("none", "x", 0)]
    {
        let mut setup = Setup::new();
        setup.repository()["tags"] = json!({"every": every, "name": name});
        let daemon = setup.start();
        for number in 0..3 {
            write(&setup.root(), "file", number.to_string());
            daemon.api().flush();
        }
        daemon.stop();
        let tags = |references: std::collections::BTreeMap<String, String>| {
            references.into_iter().filter(|(name, _)| name.starts_with("refs/tags/")).collect::<Vec<_>>()
        };
        let there = tags(setup.remote().references());
        assert_eq!(there, tags(setup.local().references()), "{every}");
        match every {
            // The first commit may be of the empty root.
            "commit" => assert!(there.len() >= expected, "{every}: {there:?}"),
            _ => assert_eq!(there.len(), expected, "{every}: {there:?}"),
        }
        for (_, commit) in there {
            assert!(setup.remote().is_ancestor(&commit, "main"), "{every}");
        }
        setup.assert_all_is_well();
    }
}

#[test]
fn a_branch_template_names_the_branch_here_and_there() {
    let mut setup = Setup::new();
    setup.repository()["branch"] = json!("backup/{instance}/{date:%Y}");
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let references = setup.remote().references();
    let [branch] = references.keys().collect::<Vec<_>>()[..] else { panic!("{references:?}") };
    let year = branch.strip_prefix("refs/heads/backup/testbox/").unwrap_or_else(|| panic!("{branch}"));
    assert!(year.len() == 4 && year.parse::<u32>().is_ok(), "{branch}");
    let head = fs::read_to_string(setup.remote().path.join("HEAD")).unwrap();
    assert_eq!(head, format!("ref: {branch}\n"));
    let short = branch.trim_start_matches("refs/heads/");
    assert_clone_equals(&setup.remote().path, short, &[("folder1", &setup.root())], |_| false);
}

#[test]
fn a_commit_says_who_made_it_and_what_is_in_it() {
    let mut setup = Setup::new();
    setup.config["identity"] = json!({"name": "Night Watch", "email": "night@watch"});
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let shown =
        git(&setup.remote().path, &["log", "-1", "--format=%an <%ae>|%cn|%s|%(trailers:unfold)", "main"]);
    assert!(shown.starts_with("Night Watch <night@watch>|Night Watch|backup "), "{shown}");
    for trailer in [
        "BackupBot-Instance: testbox",
        "BackupBot-Batch: ",
        "BackupBot-Roots: folder1",
        "BackupBot-Format: 1",
    ] {
        assert!(shown.contains(trailer), "{trailer} in {shown}");
    }
}

#[test]
fn the_example_configuration_runs() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let example = include_str!("../config.example.yaml")
        .replace("/var/lib/backupbot", setup.state().to_str().unwrap())
        .replace("/data/folder1", setup.root().to_str().unwrap())
        .replace("/mnt/usb/documents.git", setup.remote().path.to_str().unwrap())
        .replace("127.0.0.1:7177", "127.0.0.1:0");
    let path = setup.path("example.yaml");
    fs::write(&path, example).unwrap();
    let mut command = setup.command(&["run", "--config"]);
    command.arg(&path);
    let daemon = Daemon::spawn(command, &setup);
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_file_larger_than_a_batch_may_be_is_stored_whole() {
    let mut setup = Setup::new();
    setup.repository()["batch"]["bytes"] = json!("64KiB");
    let mut random = Random::new(7);
    write(&setup.root(), "large", random.bytes(3 * 1024 * 1024));
    for number in 0..20 {
        write(&setup.root(), format!("small-{number}"), random.bytes(30_000));
    }
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    assert!(setup.remote().history("main").len() > 5, "a commit takes no more than a batch");
}

#[test]
fn what_is_written_during_the_first_scan_is_not_lost() {
    let setup = Setup::new();
    let seed = seed("what_is_written_during_the_first_scan_is_not_lost");
    corpus(&setup.root(), 300, &mut Random::new(seed));
    let churn = Churn::start(&setup.root(), seed, Duration::from_millis(1));
    let daemon = setup.start();
    eventually("a few hundred changes", SOON, || (churn.changes() > 500).then_some(()));
    churn.stop();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}
