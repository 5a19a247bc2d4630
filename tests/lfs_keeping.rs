//! Large files once they are pushed: how full remotes are, what goes here, and whether everything is still there; with
//! directories, and with a server of ours that misbehaves as it is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::giftless::Giftless;
use crate::support::lfs::{GitLfs, stored};
use crate::support::lfs_server::{Behaviour, LfsServer};
use crate::support::scrape::{Scrape, scrape_when};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually};

const LARGE: usize = 64 * 1024;
const USB: &str = "repository=\"documents\",remote=\"usb\"";
/// Everything that happens every so often happens often.
const PACE: (&str, &str) = ("BACKUPBOT_FAULT_LFS_EVERY_MS", "200");

fn with_lfs(lfs: &Value) -> Setup {
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB", "keep_local": "0s", "scrub": null});
    for (name, value) in lfs.as_object().unwrap() {
        setup.repository()["lfs"][name] = value.clone();
    }
    setup
}

/// Its large contents are at a server, everything else in a directory.
fn with_server(lfs: &Value) -> (Setup, LfsServer) {
    let (mut setup, server) = (with_lfs(lfs), LfsServer::start());
    setup.repository()["remotes"][0]["lfs_url"] = json!(format!("http://127.0.0.1:{}/lfs", server.port()));
    (setup, server)
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

/// The files below a store of large contents.
fn objects(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![repository.join("lfs/objects")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().unwrap().is_dir();
            if is_directory { pending.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

fn json_of(setup: &Setup, arguments: &[&str], code: i32) -> Value {
    let output = setup.run(&[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{errors}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"))
}

fn text_of(setup: &Setup, arguments: &[&str]) -> String {
    let output = setup.run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn alerts(status: &Value) -> BTreeMap<String, String> {
    let alerts = status["alerts"].as_array().unwrap().iter();
    let pair = |alert: &Value| {
        (alert["name"].as_str().unwrap().to_owned(), alert["severity"].as_str().unwrap().to_owned())
    };
    alerts.map(pair).collect()
}

fn lfs_of(status: &Value) -> &Value {
    &status["repositories"][0]["remotes"][0]["lfs"]
}

fn has_alert(status: &Value, name: &str, severity: &str) -> bool {
    alerts(status).get(name).map(String::as_str) == Some(severity)
}

#[test]
fn how_full_a_remote_is_is_counted_told_and_warned_of_with_and_without_a_daemon() {
    let mut setup = with_lfs(&json!({"warn_at": [50, 90], "keep_local": "1d"}));
    setup.repository()["remotes"][0]["quota"] = json!("256KiB");
    write(&setup.root(), "films/long", bytes(1, 2 * LARGE));
    write(&setup.root(), "short", bytes(2, LARGE));
    let daemon = setup.launch(&[PACE]);
    daemon.api().flush();
    let status = daemon.status_when("the room is told", |status| {
        lfs_of(status)["objects"] == 2 && lfs_of(status)["checked"].is_string()
    });
    let lfs = lfs_of(&status);
    assert_eq!(
        (&lfs["bytes"], &lfs["used"], &lfs["quota"]),
        (&json!(3 * LARGE), &json!(3 * LARGE), &json!(4 * LARGE))
    );
    assert_eq!((&lfs["percent"], &lfs["reached"]), (&json!(75), &json!(50)));
    assert!(lfs["checked"].is_string() && lfs["full_on"].is_null(), "{lfs:#}");
    assert!(has_alert(&status, "quota", "warning"), "{status:#}");
    let scrape = Scrape::of(&daemon);
    assert_eq!(scrape.value("lfs_used_bytes", USB), (3 * LARGE) as f64);
    assert_eq!(scrape.value("lfs_quota_bytes", USB), (4 * LARGE) as f64);
    assert_eq!(scrape.value("lfs_uploaded_bytes_total", USB), (3 * LARGE) as f64);
    assert_eq!(scrape.value("lfs_verify_failures_total", USB), 0.0);
    assert_eq!(scrape.value("actor_up", "actor=\"lfs_monitor\""), 1.0);

    fs::remove_file(setup.root().join("films/long")).unwrap();
    write(&setup.root(), "small", "x");
    daemon.api().flush();
    let asked = json_of(&setup, &["lfs", "usage"], 0);
    let page = text_of(&setup, &["lfs", "usage", "--remote", "usb", "--top", "1"]);
    let status_page = text_of(&setup, &["status"]);
    daemon.stop();
    let known = json_of(&setup, &["lfs", "usage"], 0);
    let status = json_of(&setup, &["status"], 0);
    for (answer, runs) in [(&asked, true), (&known, false)] {
        let of = &answer["repositories"][0];
        assert_eq!(of["latest"], json!({"objects": 1, "bytes": LARGE}), "{of:#}");
        assert_eq!(of["only_earlier"], json!({"objects": 1, "bytes": 2 * LARGE}));
        assert_eq!(of["here"], json!({"objects": 2, "bytes": 3 * LARGE}));
        let first = &of["largest"][0];
        assert_eq!((&first["path"], &first["is_current"]), (&json!("folder1/films/long"), &json!(false)));
        assert_eq!(first["remotes"], json!(["usb"]));
        assert_eq!(of["directories"][0]["path"], "folder1/films");
        let remote = &of["remotes"][0];
        assert_eq!((&remote["lfs"]["percent"], &remote["lacks"]["objects"]), (&json!(75), &json!(0)));
        assert_eq!(remote["lfs"]["checked"].is_string(), runs || remote["lfs"]["checked"].is_string());
    }
    for words in ["(75 %)", "only in earlier snapshots", "192.0 KiB of 256.0 KiB"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("folder1/short"), "{page}");
    assert!(
        status_page.contains("remote usb: 2 large files, 192.0 KiB; 192.0 KiB of 256.0 KiB used"),
        "{status_page}"
    );
    assert_eq!(lfs_of(&status)["percent"], 75);
    assert!(has_alert(&status, "quota", "warning"), "{status:#}");
}

#[test]
fn the_hosts_own_numbers_count_where_it_can_be_asked() {
    let (mut setup, server) = (with_lfs(&json!({})), LfsServer::start());
    let token = setup.path("token");
    fs::write(&token, "correct-horse").unwrap();
    let remote = &mut setup.repository()["remotes"][0];
    remote["url"] = json!(format!("http://127.0.0.1:{}/me/documents.git", server.port()));
    remote["provider"] = json!("forgejo");
    remote["credentials"] = json!({"username": "me", "token_file": token});
    let said = json!({"used": {"size": {"git": {"LFS": 970}}},
                      "groups": [{"rules": [{"limit": 1000, "subjects": ["size:git:lfs"]}]}]});
    server.behave(move |request| match request.path == "/api/v1/user/quota" {
        true => Behaviour::status(200, &said.to_string()),
        false => Behaviour::status(404, ""),
    });
    write(&setup.root(), "small", "x");
    let daemon = setup.launch(&[PACE]);
    let status = daemon.status_when("the host was asked", |status| lfs_of(status)["quota"] == 1000);
    let lfs = lfs_of(&status);
    assert_eq!((&lfs["used"], &lfs["percent"], &lfs["reached"]), (&json!(970), &json!(97), &json!(95)));
    assert!(has_alert(&status, "quota", "warning"), "{status:#}");
    server.behave(|_| Behaviour::status(403, ""));
    let status =
        daemon.status_when("it cannot be asked any more", |status| lfs_of(status)["trouble"].is_string());
    assert_eq!((&lfs_of(&status)["used"], &lfs_of(&status)["quota"]), (&json!(0), &Value::Null));
    daemon.stop();
}

#[test]
fn a_server_that_has_no_room_is_critical_until_it_has() {
    let (setup, server) = with_server(&json!({}));
    server.behave(|request| match request.is_batch() {
        true => Behaviour::status(507, "{\"message\": \"your plan is used up\"}"),
        false => Behaviour::Good,
    });
    write(&setup.root(), "large", bytes(1, LARGE));
    let daemon = setup.launch(&[PACE]);
    let status = daemon.status_when("the refusal is told", |status| has_alert(status, "quota", "critical"));
    let alert = status["alerts"].as_array().unwrap().iter().find(|alert| alert["name"] == "quota").unwrap();
    let message = alert["message"].as_str().unwrap();
    for words in ["your plan is used up", "lfs usage", "nothing that is done here frees it"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(alert["since"].is_string() && lfs_of(&status)["refused"]["since"].is_string(), "{status:#}");
    server.behave(|_| Behaviour::Good);
    daemon.api().flush();
    daemon.status_when("it is over", |status| !alerts(status).contains_key("quota"));
    assert_eq!(server.objects().len(), 1);
    daemon.stop();
}

#[test]
fn contents_that_every_remote_has_go_here_and_come_back_when_they_are_needed() {
    let setup = with_lfs(&json!({}));
    let content = bytes(1, LARGE);
    write(&setup.root(), "large", &content);
    let daemon = setup.start();
    daemon.api().flush();
    let dry = json_of(&setup, &["lfs", "prune", "--dry-run"], 0);
    assert_eq!(objects(&setup.local().path).len(), 1);
    let pruned = json_of(&setup, &["lfs", "prune"], 0);
    let removed = &pruned["repositories"][0]["removed"];
    assert_eq!(*removed, json!({"objects": 1, "bytes": LARGE}));
    assert_eq!(
        (removed, &dry["repositories"][0]["dry_run"]),
        (&dry["repositories"][0]["removed"], &json!(true))
    );
    assert!(objects(&setup.local().path).is_empty());
    let audit = text_of(&setup, &["audit"]);
    assert!(audit.contains("lfs prune"), "{audit}");
    assert_eq!(json_of(&setup, &["verify"], 0)["report"]["problem_count"], 0, "its absence is understood");
    let shown = setup.run(&["cat", "folder1/large"]);
    assert_eq!(shown.stdout, content);
    daemon.stop();
    let nothing = text_of(&setup, &["lfs", "prune"]);
    assert!(nothing.contains("0 large files") && nothing.contains("larger quota"), "{nothing}");
}

#[test]
fn what_is_not_at_every_remote_is_never_pruned_on_schedule_or_by_order() {
    let mut setup = with_lfs(&json!({}));
    let (other, away) = (setup.path("other.git"), setup.path("away.git"));
    write(&setup.root(), "large", bytes(1, LARGE));
    let daemon = setup.launch(&[PACE]);
    daemon.api().flush();
    eventually("it is pruned on schedule", SOON, || objects(&setup.local().path).is_empty().then_some(()));
    daemon.stop();

    // A remote is down, and then a new one comes.
    fs::rename(setup.remote().path, &away).unwrap();
    let daemon = setup.launch(&[PACE]);
    write(&setup.root(), "second", bytes(2, LARGE));
    eventually("it is committed", SOON, || (objects(&setup.local().path).len() == 1).then_some(()));
    let refused = json_of(&setup, &["lfs", "prune"], 0);
    let kept = &refused["repositories"][0]["kept"][0];
    assert!(kept["why"].as_str().unwrap().contains("usb cannot be asked"), "{refused:#}");
    daemon.stop();
    fs::rename(&away, setup.remote().path).unwrap();
    fs::create_dir_all(&away).unwrap();
    let remotes = setup.repository()["remotes"].as_array_mut().unwrap();
    remotes.push(json!({"name": "other", "url": other.to_str().unwrap()}));
    // It cannot be made where it should be.
    fs::write(&other, "no directory").unwrap();
    let daemon = setup.launch(&[PACE]);
    let usb = setup.remote().path;
    eventually("the old remote has both", SOON, || (stored(&usb).0 == 2).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(2));
    let is_second = |path: &PathBuf| fs::read(path).is_ok_and(|found| found == bytes(2, LARGE));
    assert!(objects(&setup.local().path).iter().any(is_second), "the new remote has nothing");
    fs::remove_file(&other).unwrap();
    eventually("the new remote has both, and what is there goes", SOON, || {
        daemon.try_post("/api/v1/flush");
        (stored(&other).0 == 2 && objects(&setup.local().path).is_empty()).then_some(())
    });
    daemon.stop();
    GitLfs::new().large_files_of_equal_clone(&other, &setup.root());
}

#[test]
fn a_prune_that_is_killed_loses_nothing_and_is_finished_by_the_next() {
    for point in ["lfs-prune:confirmed", "lfs-prune:removed"] {
        let setup = with_lfs(&json!({}));
        (1..4).for_each(|n| write(&setup.root(), format!("large{n}"), bytes(n, LARGE)));
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
        let daemon = setup.launch(&[PACE, ("BACKUPBOT_FAULT", &format!("{point}=kill"))]);
        daemon.dies_by_itself(point);
        let left = objects(&setup.local().path).len();
        assert_eq!(left, if point.ends_with("removed") { 2 } else { 3 });
        assert_eq!(json_of(&setup, &["verify"], 0)["report"]["problem_count"], 0);
        let daemon = setup.launch(&[PACE]);
        eventually("the rest is pruned", SOON, || objects(&setup.local().path).is_empty().then_some(()));
        daemon.stop();
        assert_eq!(stored(&setup.remote().path).0, 3);
        GitLfs::new().large_files_of_equal_clone(&setup.remote().path, &setup.root());
    }
}

fn scrubbed_when(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let of_usb = |status: &Value| {
        let scrubs = status["repositories"][0]["scrubs"].as_array().cloned().unwrap_or_default();
        scrubs.into_iter().find(|scrubbed| scrubbed["remote"] == "usb")
    };
    let status = daemon.status_when(what, |status| of_usb(status).is_some_and(|scrubbed| holds(&scrubbed)));
    of_usb(&status).unwrap()
}

#[test]
fn a_wiped_server_is_healed_by_a_scrub_on_schedule() {
    let (setup, server) = with_server(&json!({"scrub": {"every": "1s", "read": "100%"}, "keep_local": "1d"}));
    (1..4).for_each(|n| write(&setup.root(), format!("large{n}"), bytes(n, LARGE)));
    let daemon = setup.launch(&[PACE]);
    daemon.api().flush();
    scrubbed_when(&daemon, "everything is there and was read", |it| it["asked"] == 3 && it["read"] == 3);
    server.objects().clear();
    eventually("it has everything again", SOON, || (server.objects().len() == 3).then_some(()));
    let scrape = scrape_when(&daemon, "it is counted", |scrape| {
        scrape.get("lfs_verify_failures_total", USB) == Some(3.0)
    });
    drop(scrape);
    let status = daemon.api().status();
    assert!(!alerts(&status).contains_key("lfs_damaged"), "{status:#}");
    let audit = text_of(&setup, &["audit"]);
    assert!(audit.contains("lfs scrub"), "{audit}");
    daemon.stop();
}

#[test]
fn what_a_server_has_damaged_and_cannot_be_told_to_replace_is_critical_and_nothing_is_pruned() {
    let (setup, server) = with_server(&json!({}));
    write(&setup.root(), "large", bytes(1, LARGE));
    let daemon = setup.start();
    daemon.api().flush();
    server.objects().values_mut().for_each(|bytes| bytes[7] ^= 1);
    let bad = json_of(&setup, &["lfs", "scrub", "--remote", "usb", "--read", "whole"], 3);
    let found = &bad["scrubs"][0];
    assert_eq!((&found["damaged"], &found["read"]), (&json!(1), &json!(0)), "{bad:#}");
    let named = found["named"][0].as_str().unwrap();
    assert!(named.contains("folder1/large") && named.contains("a good copy is here"), "{named}");
    let status = daemon.status_when("it is told", |status| has_alert(status, "lfs_damaged", "critical"));
    assert!(status["repositories"][0]["scrubs"][0]["suspects"].is_array(), "{status:#}");
    let kept = json_of(&setup, &["lfs", "prune"], 0);
    assert_eq!(kept["repositories"][0]["removed"]["objects"], 0, "{kept:#}");
    assert_eq!(objects(&setup.local().path).len(), 1);

    // A server that says nothing of it takes nothing back.
    server.behave(|request| match request.is_batch() {
        true => Behaviour::But(Box::new(|answer| {
            answer["objects"][0]["error"] = json!({"code": 422, "message": "locked"});
        })),
        false => Behaviour::Good,
    });
    let unsure = json_of(&setup, &["lfs", "scrub", "--remote", "usb"], 3);
    assert_eq!(unsure["scrubs"][0]["damaged"], 1, "{unsure:#}");
    server.behave(|_| Behaviour::Good);

    // The operator removes it there.
    server.objects().clear();
    let page = text_of(&setup, &["lfs", "scrub", "--remote", "usb"]);
    assert!(page.contains("1 were lost and brought again"), "{page}");
    daemon.status_when("it is over", |status| !alerts(status).contains_key("lfs_damaged"));
    daemon.stop();
    assert_eq!(json_of(&setup, &["lfs", "prune"], 0)["repositories"][0]["removed"]["objects"], 1);
}

#[test]
fn a_server_of_another_make_is_asked_read_and_healed() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(server) = Giftless::start(scratch.path(), true) else { return };
    let mut setup = with_lfs(&json!({}));
    setup.repository()["remotes"][0]["lfs_url"] = json!(format!("{}/info/lfs", server.url()));
    (1..4).for_each(|n| write(&setup.root(), format!("large{n}"), bytes(n, LARGE)));
    let daemon = setup.start();
    daemon.api().flush();
    let scrub = ["lfs", "scrub", "--remote", "usb", "--read", "whole"];
    let well = json_of(&setup, &scrub, 0);
    assert_eq!((&well["scrubs"][0]["asked"], &well["scrubs"][0]["read"]), (&json!(3), &json!(3)), "{well:#}");
    let victim = fs::read_dir(server.storage()).unwrap().next().unwrap().unwrap().path();
    fs::write(&victim, bytes(9, LARGE)).unwrap();
    let bad = json_of(&setup, &scrub, 3);
    assert_eq!((&bad["scrubs"][0]["damaged"], &bad["scrubs"][0]["read"]), (&json!(1), &json!(2)), "{bad:#}");
    server.wipe();
    let healed = json_of(&setup, &scrub, 0);
    assert_eq!(
        (&healed["scrubs"][0]["brought"], &healed["scrubs"][0]["damaged"]),
        (&json!(3), &json!(0)),
        "{healed:#}"
    );
    assert_eq!(json_of(&setup, &scrub, 0)["scrubs"][0]["read"], 3);
    // What is there now is what makes room here.
    assert_eq!(json_of(&setup, &["lfs", "prune"], 0)["repositories"][0]["removed"]["objects"], 3);
    server.wipe();
    let lost = json_of(&setup, &scrub, 3);
    assert_eq!(lost["scrubs"][0]["lost"], 3, "{lost:#}");
    (1..4).for_each(|n| write(&setup.root(), format!("large{n}"), bytes(n, LARGE)));
    daemon.api().flush();
    assert_eq!(json_of(&setup, &scrub, 0)["scrubs"][0]["lost"], 0, "the files were written anew");
    daemon.stop();
}

#[test]
fn damaged_contents_of_a_directory_and_of_this_machine_are_replaced_without_a_daemon_too() {
    let setup = with_lfs(&json!({}));
    write(&setup.root(), "one", bytes(1, LARGE));
    write(&setup.root(), "two", bytes(2, LARGE));
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let spoil = |repository: &Path, of: u64| {
        let path =
            objects(repository).into_iter().find(|path| fs::read(path).unwrap() == bytes(of, LARGE)).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes(9, LARGE)).unwrap();
    };
    spoil(&setup.remote().path, 1);
    spoil(&setup.local().path, 2);
    let healed = json_of(&setup, &["lfs", "scrub", "--read", "whole"], 0);
    let replaced: Vec<&Value> =
        healed["scrubs"].as_array().unwrap().iter().map(|it| &it["replaced"]).collect();
    assert_eq!(replaced, [1, 1], "{healed:#}");
    GitLfs::new().large_files_of_equal_clone(&setup.remote().path, &setup.root());
    let unreachable = setup.path("away.git");
    fs::rename(setup.remote().path, &unreachable).unwrap();
    let output = setup.run(&["lfs", "scrub", "--remote", "usb"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot be reached"), "{said}");
}

#[test]
fn a_scrub_that_is_killed_is_made_again() {
    for point in ["lfs-scrub:forgotten", "lfs-scrub:replaced"] {
        let setup = with_lfs(&json!({"scrub": {"every": "1s", "read": "100%"}, "keep_local": "1d"}));
        write(&setup.root(), "one", bytes(1, LARGE));
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
        let object = objects(&setup.remote().path).pop().unwrap();
        fs::remove_file(&object).unwrap();
        if point.ends_with("replaced") {
            fs::write(&object, bytes(9, LARGE)).unwrap();
        }
        let daemon = setup.launch(&[PACE, ("BACKUPBOT_FAULT", &format!("{point}=kill"))]);
        daemon.dies_by_itself(point);
        let daemon = setup.launch(&[PACE]);
        scrubbed_when(&daemon, "all is well", |it| it["asked"] == 1 && it["read"] == 1);
        daemon.stop();
        assert_eq!(fs::read(&object).unwrap(), bytes(1, LARGE));
    }
}

#[test]
fn a_prune_and_a_scrub_that_panic_are_told_and_made_again() {
    let setup = with_lfs(&json!({}));
    write(&setup.root(), "large", bytes(1, LARGE));
    for (part, arguments) in [("prune", ["lfs", "prune"]), ("scrub", ["lfs", "scrub"])] {
        let fault = format!("actor:lfs_monitor:{part}=panic@1,actor:lfs_monitor:started=panic@1");
        let daemon = setup.launch(&[("BACKUPBOT_FAULT", &fault)]);
        daemon.api().flush();
        let fails = || setup.run(&arguments);
        let failed = eventually("it is running again", SOON, || {
            let output = fails();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (!said.contains("not running")).then_some((output.status.code(), said))
        });
        assert_eq!(failed.0, Some(1), "{}", failed.1);
        assert!(setup.run(&arguments).status.success());
        daemon.stop();
    }
}

#[test]
fn who_has_no_large_files_is_told_so() {
    let setup = Setup::new();
    write(&setup.root(), "a", "x");
    let daemon = setup.start();
    daemon.api().flush();
    for command in ["usage", "prune", "scrub"] {
        let output = setup.run(&["lfs", command]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("`lfs` is not configured"), "{said}");
    }
    let refused = setup.run(&["lfs", "prune", "--repository", "documents"]);
    assert_eq!(refused.status.code(), Some(1));
    daemon.stop();
}
