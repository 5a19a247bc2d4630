//! What a sound server may refuse, and what somebody may do to its repository: hooks, protected branches, quotas,
//! sizes, branches that were moved, deleted, set back, replaced, or hidden among a hundred thousand.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::http::{row, served, standing};
use crate::support::daemon::{Daemon, Setup};
use crate::support::git::{Judge, git, try_git};
use crate::support::tree::write;
use crate::support::web::{PASSWORD, Switches, Web};
use crate::support::{Random, SOON, eventually};

/// A server with one commit of ours, and the program running.
fn running() -> Option<(Setup, Web, Daemon)> {
    let (setup, web) = served(&Switches::default())?;
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    Some((setup, web, daemon))
}

/// The rescue branches on the server.
fn rescues(setup: &Setup) -> Vec<String> {
    let names = setup.remote().references().into_keys();
    names.filter(|name| name.starts_with("refs/heads/backupbot/rescue/testbox/")).collect()
}

/// Waits until the one rescue branch has this content of `file`.
fn rescued(setup: &Setup, content: &str) -> String {
    eventually("the rescue branch has it", SOON, || {
        let found = rescues(setup);
        let blob = setup.remote().blob(found.first()?, "folder1/file")?;
        (found.len() == 1 && blob == content.as_bytes()).then(|| found[0].clone())
    })
}

fn resume(daemon: &Daemon) {
    let answer = daemon.api().post("/api/v1/resume", &json!({"repository": "documents", "remote": "web"}));
    assert!(answer.status < 300, "{}", answer.text());
}

#[test]
fn a_hook_that_declines_is_heard_and_when_it_is_gone_the_push_goes_through() {
    let Some((setup, web, daemon)) = running() else { return };
    let path = setup.remote().path;
    let cases = [
        (
            "pre-receive",
            "printf 'no \\033[31mred\\033[0m today\\n' >&2; exit 1",
            "rejected: ",
            "no \\u{1b}[31mred",
        ),
        (
            "update",
            "test \"$1\" = refs/heads/main && { echo protected branch >&2; exit 1; }; exit 0",
            "rejected: ",
            "protected branch",
        ),
        ("pre-receive", "echo repository quota of 1 GB exceeded >&2; exit 1", "quota: ", "quota of 1 GB"),
    ];
    for (number, (hook, script, reason, words)) in cases.into_iter().enumerate() {
        web.hook(&path, hook, script);
        write(&setup.root(), "file", format!("declined {number}"));
        let found = standing(&daemon, "web", "halted", reason);
        assert!(found["reason"].as_str().unwrap().contains(words), "{found}");
        assert!(!daemon.output().contains('\u{1b}'));
        fs::remove_file(path.join("hooks").join(hook)).unwrap();
        daemon.api().flush();
        standing(&daemon, "web", "idle", "");
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn what_a_hook_says_of_a_push_that_it_takes_is_in_status() {
    let Some((setup, web, daemon)) = running() else { return };
    web.hook(&setup.remote().path, "post-receive", "echo 'your account ends tomorrow' >&2");
    write(&setup.root(), "file", "1");
    daemon.api().flush();
    let status = daemon.status_when("the words", |status| {
        row(status, "web")["messages"].to_string().contains("ends tomorrow")
    });
    assert_eq!(row(&status, "web")["state"], "idle");
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_branch_that_somebody_moved_or_set_back_is_not_touched_and_the_work_is_rescued() {
    for is_diverged in [true, false] {
        let Some((setup, _web, daemon)) = running() else { return };
        write(&setup.root(), "file", "1");
        daemon.api().flush();
        let path = setup.remote().path;
        let theirs = if is_diverged {
            let tree = git(&path, &["rev-parse", "main^{tree}"]);
            git(&path, &["commit-tree", "-p", "main", "-m", "theirs", tree.trim()])
        } else {
            git(&path, &["rev-parse", "main~1"])
        };
        git(&path, &["update-ref", "refs/heads/main", theirs.trim()]);
        write(&setup.root(), "file", "2");
        standing(&daemon, "web", "halted", if is_diverged { "diverged" } else { "rewound" });
        rescued(&setup, "2");
        assert_eq!(setup.remote().tip("main").unwrap(), theirs.trim());
        write(&setup.root(), "file", "3");
        let _ = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "5s"}));
        rescued(&setup, "3");
        assert_eq!(setup.remote().tip("main").unwrap(), theirs.trim());
        if !is_diverged {
            resume(&daemon);
            daemon.api().flush();
            setup.assert_clone_equals_root();
        }
        daemon.stop_or_fail();
    }
}

#[test]
fn a_branch_that_was_deleted_and_a_repository_made_anew_get_everything_again() {
    let Some((setup, web, daemon)) = running() else { return };
    let path = setup.remote().path;
    git(&path, &["update-ref", "-d", "refs/heads/main"]);
    git(&path, &["gc", "--quiet", "--prune=now"]);
    write(&setup.root(), "file", "1");
    daemon.api().flush();
    setup.assert_clone_equals_root();
    fs::remove_dir_all(&path).unwrap();
    web.repository("documents");
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_repository_with_an_unrelated_history_is_left_alone() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    let path = setup.remote().path;
    let tree = git(&path, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let theirs = git(&path, &["commit-tree", "-m", "somebody else's", tree.trim()]);
    git(&path, &["update-ref", "refs/heads/main", theirs.trim()]);
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    standing(&daemon, "web", "halted", "diverged");
    rescued(&setup, "1");
    assert_eq!(setup.remote().tip("main").unwrap(), theirs.trim());
    web.clone_by_git("documents", PASSWORD, &setup.path("clone"));
    daemon.stop_or_fail();
}

#[test]
fn a_name_in_the_way_of_the_branch_is_named() {
    let Some((setup, _web)) = served(&Switches::default()) else { return };
    let path = setup.remote().path;
    let tree = git(&path, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let theirs = git(&path, &["commit-tree", "-m", "somebody else's", tree.trim()]);
    git(&path, &["update-ref", "refs/heads/main/x", theirs.trim()]);
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    standing(&daemon, "web", "halted", "refs/heads/main/x");
    git(&path, &["update-ref", "-d", "refs/heads/main/x"]);
    daemon.api().flush();
    daemon.stop();
    setup.assert_clone_equals_root();
}

#[test]
fn a_server_that_has_lost_objects_is_never_called_complete_unless_it_is() {
    let Some((setup, _web, daemon)) = running() else { return };
    let objects = setup.remote().path.join("objects");
    for entry in fs::read_dir(&objects).unwrap() {
        let path = entry.unwrap().path();
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
    }
    write(&setup.root(), "file", "1");
    let tip = eventually("it is committed", SOON, || {
        (setup.local().blob("main", "folder1/file")? == b"1").then(|| setup.local().tip("main"))?
    });
    let status = daemon.status_when("it has come to something", |status| {
        let row = row(status, "web");
        row["state"] != "pushing" && (row["state"] != "idle" || row["commit"] == tip.as_str())
    });
    let row = row(&status, "web");
    println!("{row:#}");
    if row["state"] == "idle" {
        let whole = try_git(&setup.remote().path, &["rev-list", "--objects", "--quiet", "main"]);
        assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    } else {
        assert!(row["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{row}");
    }
    daemon.stop_or_fail();
}

#[test]
fn a_hundred_thousand_references_are_no_trouble() {
    let Some((setup, _web, daemon)) = running() else { return };
    let path = setup.remote().path;
    let tip = setup.remote().tip("main").unwrap();
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for number in 0..100_000 {
        packed.push_str(&format!("{tip} refs/heads/user/{number:06}\n"));
    }
    fs::write(path.join("packed-refs"), packed).unwrap();
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    write(&setup.root(), "file", "1");
    daemon.api().flush();
    let grown = memory() - before;
    println!("100,000 references: {grown} kB more at most");
    assert!(grown < 64 * 1024, "{grown} kB");
    daemon.stop();
    setup.assert_clone_equals_root();
}

#[test]
fn what_is_too_large_for_one_request_goes_in_slices_and_one_file_that_never_fits_is_named() {
    let Some((mut setup, mut web)) = served(&Switches::default()) else { return };
    let limited = Switches { largest_body: Some("300k"), ..Switches::default() };
    let usb = setup.path("usb.git");
    let remotes = setup.repository()["remotes"].as_array_mut().unwrap();
    remotes.push(json!({"name": "usb", "url": usb.to_str().unwrap()}));
    web.restart(&limited);
    web.down();
    let mut random = Random::new(7);
    let mut noise =
        |length: usize| -> Vec<u8> { (0..length / 8).flat_map(|_| random.next().to_le_bytes()).collect() };
    let daemon = setup.start();
    let usb = Judge::new(&usb);
    for number in 0..12 {
        let name = format!("noise-{number}");
        let content = noise(100_000);
        write(&setup.root(), &name, &content);
        eventually("the other remote has it", SOON, || {
            (usb.blob("main", &format!("folder1/{name}"))? == content).then_some(())
        });
    }
    standing(&daemon, "web", "backoff", "cannot list the references");
    web.restart(&limited);
    daemon.api().flush();
    setup.assert_clone_equals_root();
    let refused = web.seen().iter().filter(|seen| seen.status == 413).count();
    let taken = web.seen().iter().filter(|seen| seen.method == "POST" && seen.status == 200).count();
    assert!(refused >= 1 && taken >= 6, "{refused} refused, {taken} taken");

    let big = noise(500_000);
    write(&setup.root(), "the-big-one", &big);
    let found = standing(&daemon, "web", "halted", "too_large: ");
    assert!(found["reason"].as_str().unwrap().contains("folder1/the-big-one"), "{found}");
    write(&setup.root(), "after", "it");
    eventually("the other remote goes on", SOON, || usb.blob("main", "folder1/after"));
    web.restart(&Switches::default());
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_large_pack_is_streamed_and_refused_before_its_end() {
    let Some((setup, mut web)) = served(&Switches::default()) else { return };
    let mut random = Random::new(8);
    let noise: Vec<u8> = (0..2_000_000).flat_map(|_| random.next().to_le_bytes()).collect();
    write(&setup.root(), "noise", &noise);
    // Not the limit of a body that announces its length: this one comes in chunks.
    web.restart(&Switches { largest_body: Some("1m"), ..Switches::default() });
    let daemon = setup.start();
    let found = standing(&daemon, "web", "halted", "too_large: ");
    assert!(found["reason"].as_str().unwrap().contains("413"), "{found}");
    web.restart(&Switches::default());
    daemon.api().flush();
    daemon.stop();
    // What the server that was cut off leaves lying about is its own.
    setup.assert_clone_equals_root();
}

#[test]
fn a_server_that_goes_away_and_comes_back_needs_nobody() {
    let Some((setup, mut web, daemon)) = running() else { return };
    web.down();
    write(&setup.root(), "file", "1");
    standing(&daemon, "web", "backoff", "refused");
    std::thread::sleep(Duration::from_millis(500));
    web.restart(&Switches::default());
    let tip = setup.local().tip("main").unwrap();
    daemon.status_when("it is back", |status| row(status, "web")["commit"] == tip.as_str());
    daemon.stop();
    setup.assert_all_is_well();
}
