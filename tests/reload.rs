//! A changed file is obeyed by itself: however it changes, whatever is going on, and without losing anything.

mod storms;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit;
use crate::http::{remote, served};
use crate::support::daemon::{Daemon, Setup};
use crate::support::fault_proxy::{Behaviour, FaultProxy, Head};
use crate::support::scrape::{Scrape, scrape_when};
use crate::support::tree::write;
use crate::support::web::{PASSWORD, Switches};
use crate::support::{SOON, eventually};

/// Puts the configuration in the file's place as editors do.
fn replace_config(setup: &Setup) {
    let path = setup.path("backupbot.yaml");
    fs::write(setup.path("backupbot.yaml~"), serde_json::to_string(&setup.config).unwrap()).unwrap();
    fs::rename(setup.path("backupbot.yaml~"), path).unwrap();
}

/// Waits until what the file says is in force.
fn obeyed(daemon: &Daemon, what: &str) -> Value {
    daemon.status_when(what, |status| {
        let configuration = &status["configuration"];
        configuration["refused"].is_null() && configuration["in_force"] == configuration["on_disk"]
    })
}

/// Waits until the limit of the backlog that is in force has been applied so many times.
fn applied(daemon: &Daemon, times: f64) -> Scrape {
    scrape_when(daemon, "the reload", |scrape| {
        scrape.value("config_reloads_total", "result=\"applied\"") >= times
    })
}

/// Anything that differs from before and touches no repository.
fn differ(setup: &mut Setup, number: u64) {
    setup.config["alerts"] = json!({"backlog": 1000 + number});
}

#[test]
fn the_file_is_obeyed_however_it_changes() {
    let mut setup = Setup::new();
    let daemon = setup.start();
    let value =
        |scrape: &Scrape, result: &str| scrape.value("config_reloads_total", &format!("result=\"{result}\""));
    let scrape = Scrape::of(&daemon);
    assert_eq!((scrape.value("config_valid", ""), scrape.sum("config_reloads_total")), (1.0, 0.0));

    differ(&mut setup, 1);
    replace_config(&setup);
    applied(&daemon, 1.0);
    differ(&mut setup, 2);
    setup.write_config();
    applied(&daemon, 2.0);
    let status = obeyed(&daemon, "it was written in place");
    let known = status["configuration"]["in_force"].as_str().unwrap().to_owned();

    // Gone is told, and what is in force stays; back as it was, it is well again.
    fs::rename(setup.path("backupbot.yaml"), setup.path("away")).unwrap();
    let status = daemon.status_when("it is missed", |status| !status["configuration"]["refused"].is_null());
    assert!(status["configuration"]["on_disk"].is_null(), "{status:#}");
    assert_eq!(status["configuration"]["in_force"], known.as_str());
    fs::rename(setup.path("away"), setup.path("backupbot.yaml")).unwrap();
    obeyed(&daemon, "it is back");
    let scrape = Scrape::of(&daemon);
    assert_eq!((value(&scrape, "refused"), value(&scrape, "unchanged")), (1.0, 1.0), "{}", scrape.text);

    // Whoever asks meanwhile is first, and the change is not obeyed twice.
    differ(&mut setup, 3);
    replace_config(&setup);
    daemon.api().post("/api/v1/reload", &json!({}));
    applied(&daemon, 3.0);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(Scrape::of(&daemon).sum("config_reloads_total"), 5.0);
    daemon.stop();
}

#[test]
fn a_configuration_that_kubernetes_swaps_is_obeyed() {
    let mut setup = Setup::new();
    let mount = setup.path("mount");
    let publish = |setup: &Setup, version: &str| {
        fs::create_dir_all(mount.join(version)).unwrap();
        let text = serde_json::to_string(&setup.config).unwrap();
        fs::write(mount.join(version).join("config.yaml"), text).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    publish(&setup, "..2026_1");
    symlink("..data/config.yaml", mount.join("config.yaml")).unwrap();
    let config = mount.join("config.yaml");
    let command = setup.command(&["run".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let daemon = Daemon::spawn(command, &setup);
    daemon.serving();
    differ(&mut setup, 1);
    publish(&setup, "..2026_2");
    fs::remove_dir_all(mount.join("..2026_1")).unwrap();
    applied(&daemon, 1.0);
    obeyed(&daemon, "the swapped one is in force");
    daemon.stop();
}

#[test]
fn a_bad_file_keeps_the_old_one_in_force_and_says_so_everywhere_until_it_is_mended() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let good = setup.config.clone();
    let before = api.status()["configuration"]["in_force"].clone();
    setup.config["repositories"][0]["batch"]["aftr"] = json!("1s");
    setup.config["alerts"] = json!({"backlog": "many"});
    replace_config(&setup);
    let refused = |status: &Value| !status["configuration"]["refused"].is_null();
    let status = daemon.status_when("it is refused", refused);
    let configuration = &status["configuration"];
    assert_eq!(configuration["in_force"], before);
    assert_ne!(configuration["on_disk"], before);
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "config_invalid").unwrap();
    let message = alert["message"].as_str().unwrap();
    assert!(message.contains("aftr") && message.contains("alerts.backlog"), "every mistake: {message}");
    assert_eq!(message.matches("backupbot.yaml:").count(), 2, "with its place: {message}");
    assert_eq!(Scrape::of(&daemon).value("config_valid", ""), 0.0);
    // The configuration that a command finds is the bad one, so it is told where the daemon is.
    let state = setup.state();
    let page = setup.command(&["status", "--state-dir", state.to_str().unwrap()]).output().unwrap();
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let short = |checksum: &Value| checksum.as_str().unwrap()[..10].to_owned();
    assert!(page.contains(&short(&before)) && page.contains(&short(&configuration["on_disk"])), "{page}");
    // It works on by the former one.
    write(&setup.root(), "file", "2");
    api.flush();

    setup.config = good.clone();
    setup.config["instance"] = json!("other");
    replace_config(&setup);
    let status = daemon.status_when("a restart is asked for", |status| {
        status["configuration"]["refused"]["reason"].as_str().is_some_and(|reason| reason.contains("restart"))
    });
    let reason = status["configuration"]["refused"]["reason"].as_str().unwrap();
    assert!(reason.contains("instance"), "{reason}");
    assert_eq!(status["instance"], "testbox");

    setup.config = good;
    differ(&mut setup, 1);
    replace_config(&setup);
    let status = obeyed(&daemon, "it is mended");
    assert!(!status["alerts"].to_string().contains("config_invalid"), "{status:#}");
    let scrape = applied(&daemon, 1.0);
    assert_eq!(scrape.value("config_valid", ""), 1.0);
    assert_eq!(scrape.value("config_reloads_total", "result=\"refused\""), 2.0);
    api.flush();
    daemon.stop();
    let told = audit::lines(&setup);
    let of_configuration: Vec<&str> = told
        .iter()
        .filter(|line| line["what"] == "configuration")
        .map(|line| line["result"].as_str().unwrap())
        .collect();
    assert_eq!(of_configuration, ["ok", "refused", "refused", "ok"]);
    setup.assert_all_is_well();
}

/// Another root or none, and sometimes something that concerns the whole repository.
fn shake(setup: &mut Setup, number: u64) {
    let other = setup.path("folder2");
    fs::create_dir_all(&other).unwrap();
    let repository = setup.repository();
    let roots = repository["roots"].as_array_mut().unwrap();
    roots.truncate(1);
    if number % 2 == 1 {
        roots.push(json!({"name": "folder2", "path": other.to_str().unwrap()}));
    }
    repository["retry"]["max"] = json!(format!("{}ms", 500 + number / 3));
}

fn reload(daemon: &Daemon) {
    let answer = daemon.api().post("/api/v1/reload", &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn fill(root: &Path, files: u64, word: &str) {
    for number in 0..files {
        write(root, format!("{}/{number}", number % 20), format!("{word} {number}").repeat(200));
    }
}

#[test]
fn reloads_in_the_middle_of_commits_and_pushes_lose_nothing() {
    let mut setup = Setup::new();
    setup.repository()["batch"]["files"] = json!(50);
    setup.repository()["mass_change"] = json!({"policy": "off"});
    let daemon = setup.start();
    for number in 1..=6 {
        let before = setup.local().tip("main");
        fill(&setup.root(), 600, &format!("version {number}"));
        // Who looks seldom may see only that it was.
        daemon.status_when("a commit is on its way, or was", |status| {
            status["repositories"][0]["pending"] != 0 || setup.local().tip("main") != before
        });
        shake(&mut setup, number);
        replace_config(&setup);
        reload(&daemon);
    }
    // The last one has one root.
    daemon.api().flush();
    daemon.stop();
    setup.assert_clone_equals_root();
    for judge in [setup.remote(), setup.local()] {
        judge.assert_sound();
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn a_kill_in_the_middle_of_a_commit_or_push_while_reloading_loses_nothing() {
    for point in ["snapshot:staged", "snapshot:branch-moved", "push:reference-moved", "queue:before-settle"] {
        let mut setup = Setup::new();
        write(&setup.root(), "file", "1");
        let daemon = setup.launch(&[("BACKUPBOT_FAULT", &format!("{point}=kill@3"))]);
        daemon.serving();
        for number in 1..200 {
            write(&setup.root(), "file", number.to_string());
            shake(&mut setup, number % 2);
            replace_config(&setup);
            // It dies during one of them. Each comes at another moment after the last; a commit needs 100 ms without one.
            let Some(answer) = daemon.try_post("/api/v1/reload") else { break };
            assert_eq!(answer, 200);
            std::thread::sleep(Duration::from_millis(number % 5 * 60));
        }
        daemon.dies_by_itself(point);
        shake(&mut setup, 0);
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
        setup.assert_clone_equals_root();
        setup.local().assert_sound();
        setup.remote().assert_sound();
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn a_commit_that_hangs_is_left_behind_by_a_reload() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.launch(&[("BACKUPBOT_FAULT", "snapshot:staged=stall@1")]);
    daemon.serving();
    daemon.status_when("the commit hangs", |status| status["repositories"][0]["states"]["staged"] != 0);
    shake(&mut setup, 1);
    replace_config(&setup);
    reload(&daemon);
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    shake(&mut setup, 0);
    replace_config(&setup);
    reload(&daemon);
    daemon.api().flush();
    daemon.stop_or_fail();
    setup.assert_clone_equals_root();
}

#[test]
fn a_push_that_hangs_is_left_alone_by_what_does_not_concern_it_and_replaced_by_what_does() {
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let proxy = FaultProxy::start(web.plain_port());
    let mut slow = remote(&setup, "web", &proxy.url("documents"));
    slow["timeouts"] = json!({"connect": "60s", "stall": "300s", "answer": "300s"});
    setup.repository()["remotes"] = json!([slow]);
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    let hang = |head: &Head| if head.is_push() { Behaviour::HangBeforeHead } else { Behaviour::Pass };
    proxy.behave(hang);
    let before = proxy.pushes();
    write(&setup.root(), "file", "1");
    eventually("the push hangs", SOON, || (proxy.pushes() > before).then_some(()));
    let pusher = child(&daemon, "repository documents/pusher web");
    shake(&mut setup, 1);
    setup.repository()["retry"]["max"] = json!("500ms");
    replace_config(&setup);
    reload(&daemon);
    assert_eq!(child(&daemon, "repository documents/pusher web"), pusher);
    assert_eq!(proxy.pushes(), before + 1, "the push goes on");

    let other = FaultProxy::start(web.plain_port());
    setup.repository()["remotes"][0]["url"] = json!(other.url("documents"));
    shake(&mut setup, 0);
    setup.repository()["retry"]["max"] = json!("500ms");
    replace_config(&setup);
    reload(&daemon);
    daemon.api().flush();
    assert!(other.pushes() > 0 && proxy.pushes() == before + 1);
    drop(proxy);
    daemon.stop();
    let clone = setup.path("clone");
    web.clone_by_git("documents", PASSWORD, &clone);
    assert_eq!(fs::read(clone.join("folder1/file")).unwrap(), b"1");
    setup.local().assert_sound();
}

#[test]
fn a_restore_goes_on_through_reloads() {
    let mut setup = Setup::new();
    fs::create_dir(setup.path("restored")).unwrap();
    setup.config["admin"]["restore_dirs"] = json!([setup.path("restored").to_str().unwrap()]);
    fill(&setup.root(), 2000, "x");
    let daemon = setup.start();
    daemon.api().flush();
    let api = daemon.api();
    let to = setup.path("restored/back");
    let answer =
        api.post("/api/v1/restores", &json!({"repository": "documents", "to": to.to_str().unwrap()}));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.header("location").unwrap().to_owned();
    let mut number = 0;
    let ended = eventually("the restore ends", SOON, || {
        number += 1;
        shake(&mut setup, number);
        replace_config(&setup);
        reload(&daemon);
        let job = api.get(&job).json();
        (!matches!(job["state"].as_str(), Some("planning" | "restoring" | "verifying"))).then_some(job)
    });
    println!("{number} reloads");
    assert_eq!(ended["state"], "finished", "{ended:#}");
    assert_eq!(ended["report"]["totals"]["files"], 2000, "{ended:#}");
    shake(&mut setup, 0);
    replace_config(&setup);
    reload(&daemon);
    api.flush();
    daemon.stop();
    setup.assert_clone_equals_root();
}

fn child(daemon: &Daemon, id: &str) -> Value {
    let children = daemon.api().get("/api/v1/children").json()["children"].as_array().unwrap().clone();
    children.into_iter().find(|child| child["id"] == id).unwrap_or(Value::Null)
}

#[test]
fn what_did_not_change_in_a_changed_repository_runs_on() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "1");
    let unreachable = setup.path("nowhere");
    write(setup.scratch.path(), "nowhere", "a file where a directory should be");
    let broken = json!({"name": "broken", "url": unreachable.join("x.git").to_str().unwrap()});
    setup.repository()["remotes"].as_array_mut().unwrap().push(broken);
    setup.repository()["retry"] = json!({"first": "100ms", "max": "300s", "factor": 8.0});
    setup.config["shutdown_grace"] = json!("1s");
    let daemon = setup.start();
    let parts = ["watcher folder1", "pusher usb", "pusher broken"];
    let look = || parts.map(|part| child(&daemon, &format!("repository documents/{part}")));
    let is_at_rest = |status: &Value| {
        let remotes = status["repositories"][0]["remotes"].as_array().unwrap();
        remotes
            .iter()
            .all(|remote| remote["state"] == if remote["name"] == "usb" { "idle" } else { "backoff" })
            && remotes[0]["commit"].is_string()
    };
    daemon.status_when("one has it and one is waited for", is_at_rest);
    let before = look();
    let committer = child(&daemon, "repository documents/committer");
    shake(&mut setup, 1);
    setup.repository()["retry"] = json!({"first": "100ms", "max": "300s", "factor": 8.0});
    write(&setup.path("folder2"), "late", "x");
    let copy = json!({"name": "copy", "url": setup.path("remote/copy.git").to_str().unwrap()});
    setup.repository()["remotes"].as_array_mut().unwrap().push(copy);
    replace_config(&setup);
    reload(&daemon);
    assert_eq!(look(), before, "neither its watches nor its backoff were touched");
    assert_ne!(child(&daemon, "repository documents/committer"), committer, "it knows every root and remote");
    let rescans = "repository=\"documents\",root=\"folder1\",reason=\"start\"";
    assert_eq!(Scrape::of(&daemon).value("rescans_total", rescans), 1.0);
    write(&setup.root(), "file", "2");
    let judge = crate::support::git::Judge::new(setup.path("remote/copy.git"));
    let has = |path: &str, content: &[u8]| judge.blob("main", path).is_some_and(|blob| blob == content);
    eventually("all of it is at the new remote", SOON, || {
        (has("folder2/late", b"x") && has("folder1/file", b"2")).then_some(())
    });
    // What the untouched watcher notices reaches the new committer, and its commits the untouched pusher.
    eventually("and at the old one", SOON, || {
        (setup.remote().blob("main", "folder1/file")? == b"2").then_some(())
    });

    shake(&mut setup, 0);
    setup.repository()["retry"] = json!({"first": "100ms", "max": "300s", "factor": 8.0});
    setup.repository()["remotes"].as_array_mut().unwrap().truncate(2);
    replace_config(&setup);
    reload(&daemon);
    assert_eq!(look()[..2], before[..2]);
    assert!(child(&daemon, "repository documents/watcher folder2").is_null());
    assert!(child(&daemon, "repository documents/pusher copy").is_null());
    daemon.stop_or_fail();
}

#[test]
fn what_is_no_longer_configured_keeps_its_history() {
    let mut setup = Setup::new();
    shake(&mut setup, 1);
    write(&setup.root(), "file", "1");
    write(&setup.path("folder2"), "kept", "x");
    let daemon = setup.start();
    daemon.api().flush();
    let before = setup.remote().tip("main").unwrap();
    // The root goes, and the remote is another directory.
    shake(&mut setup, 0);
    let moved = setup.path("remote/moved.git");
    setup.repository()["remotes"][0]["url"] = json!(moved.to_str().unwrap());
    replace_config(&setup);
    applied(&daemon, 1.0);
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    assert_eq!(setup.remote().tip("main").unwrap(), before, "nobody touches the former remote");
    let moved = crate::support::git::Judge::new(&moved);
    assert_eq!(moved.blob("main", "folder2/kept").unwrap(), b"x", "the root stays at its last version");
    assert_eq!(moved.blob("main~1", "folder1/file").unwrap(), b"1", "and all history goes along");
    moved.assert_sound();
    daemon.stop();
}
