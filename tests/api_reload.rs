//! A changed configuration is obeyed without a restart, whole or not at all.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::git::Judge;
use crate::support::tree::write;
use crate::support::{SOON, eventually};

fn child(daemon: &Daemon, id: &str) -> Value {
    let children = daemon.api().get("/api/v1/children").json()["children"].as_array().unwrap().clone();
    children.into_iter().find(|child| child["id"] == id).unwrap_or(Value::Null)
}

fn reload(daemon: &Daemon) -> Value {
    let answer = daemon.api().post("/api/v1/reload", &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn second(setup: &mut Setup) -> Value {
    fs::create_dir_all(setup.path("folder2")).unwrap();
    let mut second = setup.repository().clone();
    second["name"] = json!("photos");
    second["roots"][0]["name"] = json!("folder2");
    second["roots"][0]["path"] = json!(setup.path("folder2").to_str().unwrap());
    second["remotes"][0]["url"] = json!(setup.path("remote/photos.git").to_str().unwrap());
    second
}

#[test]
fn repositories_come_change_and_go_while_the_others_run_on() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(reload(&daemon)["changed"], false);
    let untouched = child(&daemon, "repository documents/watcher folder1");

    let photos = second(&mut setup);
    write(&setup.path("folder2"), "picture", "1");
    setup.config["repositories"].as_array_mut().unwrap().push(photos);
    setup.write_config();
    let applied = reload(&daemon);
    assert_eq!(applied["repositories"]["added"], json!(["photos"]), "{applied:#}");
    daemon.api().flush();
    let of_photos = Judge::new(setup.path("remote/photos.git"));
    assert_eq!(of_photos.blob("main", "folder2/picture").unwrap(), b"1");

    // A remote and a root more, and another debounce: one repository starts anew, the other does not.
    fs::create_dir(setup.path("folder3")).unwrap();
    write(&setup.path("folder3"), "late", "x");
    let more = json!({"name": "folder3", "path": setup.path("folder3").to_str().unwrap()});
    setup.config["repositories"][1]["roots"].as_array_mut().unwrap().push(more);
    let copy = json!({"name": "copy", "url": setup.path("remote/copy.git").to_str().unwrap()});
    setup.config["repositories"][1]["remotes"].as_array_mut().unwrap().push(copy);
    setup.write_config();
    let output = setup.run(&["reload"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.contains("photos: root folder3 added, remote copy added"), "{said}");
    daemon.api().flush();
    let of_copy = Judge::new(setup.path("remote/copy.git"));
    assert_eq!(of_copy.blob("main", "folder3/late").unwrap(), b"x");
    assert_eq!(of_copy.blob("main", "folder2/picture").unwrap(), b"1");

    setup.config["repositories"][1]["remotes"].as_array_mut().unwrap().remove(0);
    setup.config["repositories"][1]["roots"].as_array_mut().unwrap().remove(0);
    setup.write_config();
    let applied = reload(&daemon);
    let changed = &applied["repositories"]["changed"][0];
    assert_eq!(
        (&changed["roots"]["removed"], &changed["remotes"]["removed"]),
        (&json!(["folder2"]), &json!(["usb"]))
    );
    write(&setup.path("folder3"), "later", "y");
    daemon.api().flush();
    assert_eq!(
        of_copy.blob("main", "folder2/picture").unwrap(),
        b"1",
        "a removed root stays at its last version"
    );
    let status = daemon.api().status();
    let names = |what: &str| {
        status["repositories"][1][what]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!((names("roots"), names("remotes")), (vec![json!("folder3")], vec![json!("copy")]));

    setup.config["repositories"].as_array_mut().unwrap().remove(1);
    setup.write_config();
    assert_eq!(reload(&daemon)["repositories"]["removed"], json!(["photos"]));
    assert_eq!(daemon.api().status()["repositories"].as_array().unwrap().len(), 1);
    assert!(child(&daemon, "repository photos").is_null());
    let same = child(&daemon, "repository documents/watcher folder1");
    assert_eq!(same, untouched, "what did not change was not touched");
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    daemon.stop();
    setup.assert_clone_equals_root();
}

#[test]
fn a_bad_configuration_is_refused_whole_and_the_old_one_stays() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let good = setup.config.clone();
    let photos = second(&mut setup);
    setup.config["repositories"].as_array_mut().unwrap().push(photos);
    setup.config["repositories"][0]["batch"]["aftr"] = json!("1s");
    setup.config["alerts"] = json!({"backlog": "many"});
    setup.write_config();
    let problem = api.post("/api/v1/reload", &json!({})).problem(422);
    let problems = problem["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{problem:#}");
    assert!(
        problems.iter().all(|it| it["place"].as_str().unwrap().contains("backupbot.yaml:")),
        "{problem:#}"
    );
    let status = api.status();
    assert_eq!(status["repositories"].as_array().unwrap().len(), 1);
    assert!(status["alerts"].to_string().contains("config_invalid"), "{status:#}");
    // The configuration that `run` names would be refused before the daemon is asked.
    let state = setup.state();
    let arguments = ["reload", "--state-dir", state.to_str().unwrap()];
    let output = setup.command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("aftr"), "{output:?}");
    write(&setup.root(), "file", "2");
    api.flush();

    setup.config = good.clone();
    setup.config["instance"] = json!("other");
    setup.config["admin"]["listen"] = json!("127.0.0.1:1");
    setup.write_config();
    let problem = api.post("/api/v1/reload", &json!({})).problem(409);
    assert_eq!(problem["fields"], json!(["instance", "admin.listen"]), "{problem:#}");
    assert_eq!(api.status()["instance"], "testbox");

    setup.config = good;
    setup.config["alerts"] = json!({"disk_free": "900PiB"});
    setup.write_config();
    daemon.signal(Signal::HUP);
    eventually("SIGHUP is obeyed", SOON, || {
        let alerts = api.status()["alerts"].to_string();
        (alerts.contains("disk_low") && !alerts.contains("config_invalid")).then_some(())
    });
    api.post("/api/v1/reload", &json!({"x": 1})).problem(400);
    daemon.stop();
}
