//! `restore --from`: a machine that never saw BackupBot gets everything, or one file, from a remote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;

use super::{assert_same, fill, portraits, said, text};
use crate::http::{served, set_password};
use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::sshd::{Sshd, make_key};
use crate::support::tree::write;
use crate::support::web::{PASSWORD, Switches, USER, Web};
use crate::support::{Random, seed};

/// A machine where there is nothing but the program.
fn stranger() -> Setup {
    Setup::new()
}

fn restore(machine: &Setup, arguments: &[&str]) -> Output {
    let mut all = vec!["restore"];
    all.extend(arguments);
    machine.command(&all).output().unwrap()
}

/// The patience of the HTTP tests is too short for so much on a machine that does other work too.
fn patient(mut setup: Setup) -> Setup {
    setup.repository()["remotes"][0]["timeouts"] = json!({"connect": "60s", "stall": "60s", "answer": "60s"});
    setup
}

fn backed_up(setup: &Setup) {
    let output = setup.run(&["once"]);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", said(&output));
}

/// What is said about getting in at the web server.
fn keys(machine: &Setup, web: &Web) -> Vec<String> {
    set_password(machine, PASSWORD);
    let password = machine.path("password").to_str().unwrap().to_owned();
    ["--username", USER, "--password-file", &password, "--ca-file", &web.ca_file()]
        .map(str::to_owned)
        .to_vec()
}

fn with<'a>(first: &[&'a str], keys: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(keys.iter().map(String::as_str)).collect()
}

fn assert_all_there(setup: &Setup, place: &Path) {
    assert_same(&portraits(&setup.root()), &portraits(&place.join("folder1")));
    let beside: Vec<PathBuf> =
        fs::read_dir(place.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!beside.iter().any(|path| path.to_string_lossy().contains("backupbot-fetched")), "{beside:?}");
}

#[test]
fn everything_comes_back_from_a_path_over_http_and_over_ssh() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    let mut setup = patient(setup);
    let mut random = Random::new(seed("everything_comes_back_from"));
    let sshd = Sshd::start(setup.scratch.path());
    fill(&setup.root(), &mut random);
    let usb = setup.path("usb.git");
    let remotes = setup.repository()["remotes"].as_array_mut().unwrap();
    remotes.push(json!({"name": "usb", "url": usb.to_str().unwrap()}));
    backed_up(&setup);

    let machine = stranger();
    let (key, known_hosts) = (machine.path("key"), machine.path("known hosts"));
    make_key(&key, "ed25519", "");
    sshd.let_in(&key, "");
    fs::write(&known_hosts, sshd.known_hosts_line("ed25519") + "\n").unwrap();
    let (http, ssh) = (web.https("documents"), sshd.url(usb.to_str().unwrap()));
    let mut ways: Vec<Vec<String>> = vec![vec!["--from".to_owned(), usb.to_str().unwrap().to_owned()]];
    ways.push([vec!["--from".to_owned(), http], keys(&machine, &web)].concat());
    let credentials =
        ["--ssh-key-file", text(&key), "--known-hosts-file", text(&known_hosts)].map(str::to_owned);
    ways.push([vec!["--from".to_owned(), ssh], credentials.to_vec()].concat());
    for (number, way) in ways.iter().enumerate() {
        let place = machine.path(&format!("back {number}"));
        let output = restore(&machine, &with(&["--to", text(&place)], way));
        assert_eq!(output.status.code(), Some(0), "{way:?}: {}", said(&output));
        assert_all_there(&setup, &place);
        assert!(!said(&output).contains(PASSWORD));
    }
    drop(web);
}

#[test]
fn one_file_of_a_large_snapshot_is_fetched_alone_where_the_server_allows_it() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    let setup = patient(setup);
    let mut random = Random::new(3);
    for number in 0..40 {
        let noise: Vec<u8> = (0..25_000).flat_map(|_| random.next().to_le_bytes()).collect();
        write(&setup.root(), format!("large/{number}"), noise);
    }
    write(&setup.root(), "letters/dear.txt", "first");
    write(&setup.root(), "letters/.git/config", "x");
    backed_up(&setup);
    write(&setup.root(), "letters/dear.txt", "second");
    write(&setup.root(), "large/0", "small now");
    backed_up(&setup);
    let remote = setup.remote().path;
    let machine = stranger();
    let keys = keys(&machine, &web);
    let url = web.https("documents");
    let mut fetched = Vec::new();
    let rounds: [(&[&str], &str); 3] = [
        (&[], "this server gives no parts of it"),
        (&["allowFilter", "allowTipSHA1InWant"], "this server gives no parts of it"),
        (&["allowReachableSHA1InWant"], "2 files, "),
    ];
    for (round, (settings, expected)) in rounds.into_iter().enumerate() {
        for setting in settings {
            git(&remote, &["config", &format!("uploadpack.{setting}"), "true"]);
        }
        for (at, content) in [(None, "second"), (Some("latest~1"), "first")] {
            let place = machine.path(&format!("one {round} {content}"));
            let before = web.sent();
            let mut arguments = vec!["--from", &url, "--to", text(&place), "folder1/letters"];
            arguments.extend(at.iter().flat_map(|at| ["--at", at]));
            let output = restore(&machine, &with(&arguments, &keys));
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert_eq!(fs::read_to_string(place.join("folder1/letters/dear.txt")).unwrap(), content);
            assert!(place.join("folder1/letters/.git/config").exists());
            assert!(!place.join("folder1/large").exists());
            assert!(said(&output).contains(expected), "it says what it costs: {}", said(&output));
            fetched.push(web.sent() - before);
        }
    }
    assert!(fetched[0] > 5_000_000, "{fetched:?}");
    assert!(fetched[4] < 100_000 && fetched[5] < 100_000, "{fetched:?}");
}

#[test]
fn a_configured_remote_is_named_and_an_earlier_state_and_another_branch_are_found() {
    let mut setup = Setup::new();
    setup.repository()["branch"] = json!("kept");
    for content in ["1", "2", "3"] {
        write(&setup.root(), "file", content);
        backed_up(&setup);
    }
    let config = setup.write_config();
    let place = setup.path("named");
    let arguments = ["--config", text(&config), "--from", "usb", "--at", "latest~2", "--to", text(&place)];
    let output = restore(&setup, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(fs::read_to_string(place.join("folder1/file")).unwrap(), "1");

    let remote = setup.remote().path;
    git(&remote, &["branch", "other", "kept~1"]);
    let machine = stranger();
    for (branch, content) in [("other", "2"), ("kept", "3")] {
        let place = machine.path(branch);
        let output = restore(&machine, &["--from", text(&remote), "--branch", branch, "--to", text(&place)]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(fs::read_to_string(place.join("folder1/file")).unwrap(), content);
    }
}

#[test]
fn nothing_is_fetched_into_a_watched_directory_or_the_state() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    let setup = patient(setup);
    write(&setup.root(), "file", "1");
    backed_up(&setup);
    let config = setup.write_config();
    let before = portraits(&setup.root());
    let asked = web.seen().len();
    for place in [setup.root().join("back"), setup.root().join("a/b"), setup.state().join("back")] {
        let output = restore(&setup, &["--config", text(&config), "--from", "web", "--to", text(&place)]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("name a directory elsewhere"), "{}", said(&output));
    }
    assert_eq!(web.seen().len(), asked, "nobody was asked for anything");
    assert_same(&before, &portraits(&setup.root()));
}

#[test]
fn what_cannot_be_had_is_said_with_the_remedy_and_nothing_is_left_behind() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    write(&setup.root(), "file", "1");
    backed_up(&setup);
    let machine = stranger();
    let keys = keys(&machine, &web);
    let url = web.https("documents");
    let nothing = web.https("nothing");
    let place = machine.path("back");
    let to = text(&place);
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (with(&["--from", &url], &keys), "--to"),
        (vec!["--from", &url, "--to", to], "certificate"),
        (with(&["--from", &nothing, "--to", to], &keys), "404"),
        (with(&["--from", &url, "--to", to, "--branch", "x"], &keys), "--branch"),
        (with(&["--from", &url, "--to", to, "--at", "yesterday"], &keys), "oldest"),
        (with(&["--from", &url, "--to", to, "folder1/nothing"], &keys), "not in snapshot"),
        (vec!["--from", "/no such place at all", "--to", to], "nothing at"),
        (vec!["--from", "git@host:path", "--to", to], "ssh://"),
    ];
    for (arguments, words) in cases {
        let output = restore(&machine, &arguments);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
        let left: Vec<_> =
            fs::read_dir(machine.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            !place.exists() && !left.iter().any(|name| name.to_string_lossy().contains("fetched")),
            "{left:?}"
        );
    }
}

#[test]
fn a_dry_run_fetches_no_contents_and_everything_comes_by_one_pack() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    let setup = patient(setup);
    let mut random = Random::new(4);
    for number in 0..10 {
        let noise: Vec<u8> = (0..25_000).flat_map(|_| random.next().to_le_bytes()).collect();
        write(&setup.root(), format!("large/{number}"), noise);
    }
    write(&setup.root(), "letters/dear.txt", "first");
    std::os::unix::fs::symlink("letters/dear.txt", setup.root().join("link")).unwrap();
    backed_up(&setup);
    for word in ["allowFilter", "allowTipSHA1InWant", "allowReachableSHA1InWant"] {
        git(&setup.remote().path, &["config", &format!("uploadpack.{word}"), "true"]);
    }
    let machine = stranger();
    let keys = keys(&machine, &web);
    let url = web.https("documents");
    let place = machine.path("back");
    let totals = |more: &[&str]| {
        let report = machine.path("report.json");
        let arguments = [&["--from", &url, "--to", text(&place), "--report", text(&report)], more].concat();
        let (asked, sent) = (web.seen().len(), web.sent());
        let output = restore(&machine, &with(&arguments, &keys));
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let asked: Vec<_> = web.seen().into_iter().skip(asked).filter(|seen| seen.status == 200).collect();
        let packs = asked.iter().filter(|seen| seen.method == "POST").count();
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        (report["totals"].clone(), packs, web.sent() - sent, said(&output))
    };
    let (planned, _, bytes, words) = totals(&["--dry-run"]);
    assert!(bytes < 100_000, "{bytes}");
    assert!(
        words.contains("the restore itself would fetch") && words.contains("12 files, 1.9 MiB"),
        "{words}"
    );
    assert!(!place.exists());
    let (planned_part, _, bytes, words) = totals(&["--dry-run", "folder1/large/3"]);
    assert!(bytes < 100_000 && words.contains("1 file, 195.3 KiB"), "{bytes} {words}");
    assert_eq!(planned_part["bytes"], 200_000);

    // Nobody is asked for anything that could not be used.
    fs::create_dir(&place).unwrap();
    write(&place, "somebody's", "x");
    let asked = web.seen().len();
    let output = restore(&machine, &with(&["--from", &url, "--to", text(&place)], &keys));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("is not empty"), "{}", said(&output));
    assert_eq!(web.seen().len(), asked);
    fs::remove_dir_all(&place).unwrap();

    let (done, packs, bytes, words) = totals(&[]);
    assert!(bytes > 2_000_000 && words.contains("the whole snapshot"), "{bytes} {words}");
    assert_eq!(packs, 1);
    assert_eq!(done, planned);
    assert_all_there(&setup, &place);
    // What is there already is told apart without the contents.
    fs::remove_file(place.join("folder1/large/3")).unwrap();
    write(&place, "folder1/large/4", "another");
    let (planned, _, bytes, _) = totals(&["--dry-run", "--overwrite=changed"]);
    assert!(bytes < 100_000, "{bytes}");
    let (done, ..) = totals(&["--overwrite=changed"]);
    assert_eq!(done, planned);
    assert_all_there(&setup, &place);
}
