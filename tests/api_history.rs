//! Looking into history and restoring over HTTP: pages, downloads, roles, jobs, and where they may not write.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::support::api::{Answer, Api};
use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually};

const READER: &str = "a-token-that-only-looks";

fn with_history() -> (Setup, Daemon) {
    let mut setup = Setup::new();
    fs::create_dir(setup.path("restored")).unwrap();
    fs::write(setup.path("reader"), READER).unwrap();
    setup.config["admin"]["restore_dirs"] = json!([setup.path("restored").to_str().unwrap()]);
    setup.config["admin"]["read_token_file"] = json!(setup.path("reader").to_str().unwrap());
    write(&setup.root(), "letter", "first");
    let daemon = setup.start();
    daemon.api().flush();
    write(&setup.root(), "letter", "second");
    write(&setup.root(), "deep/er/x", "x");
    daemon.api().flush();
    (setup, daemon)
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn snapshots(api: &Api, query: &str) -> Value {
    ok(&api.get(&format!("/api/v1/repositories/documents/snapshots{query}")))
}

fn files(api: &Api, at: &str, query: &str) -> Answer {
    api.get(&format!("/api/v1/repositories/documents/snapshots/{at}/files{query}"))
}

#[test]
fn snapshots_come_in_pages_and_directories_are_listed() {
    let (setup, daemon) = with_history();
    let api = daemon.api().with_token(READER);
    let all = snapshots(&api, "");
    let ids: Vec<&str> =
        all["snapshots"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids[0], setup.remote().tip("main").unwrap());
    assert!(ids.len() >= 2 && all["next"].is_null(), "{all:#}");
    let mut paged = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = snapshots(&api, &query);
        paged.extend(
            page["snapshots"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=1&before={next}");
    }
    assert_eq!(paged, ids);

    let top = ok(&files(&api, "latest", ""));
    assert_eq!(top["entries"][0]["name"], "folder1");
    let names = |listed: &Value| -> Vec<String> {
        listed["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&ok(&files(&api, "latest", "?path=folder1"))), ["deep", "letter"]);
    let page = ok(&files(&api, ids[0], "?path=folder1&limit=1"));
    assert_eq!(
        (names(&page), &page["next"], &page["count"]),
        (vec!["deep".to_owned()], &json!(1), &json!(2))
    );
    let page = ok(&files(&api, ids[0], "?path=folder1&limit=1&offset=1"));
    assert_eq!((names(&page), page["entries"][0]["size"].as_u64()), (vec!["letter".to_owned()], Some(6)));
    assert_eq!(names(&ok(&files(&api, ids[ids.len() - 1], "?path=folder1/"))), ["letter"]);

    for path in
        ["?path=folder1/none", "?path=../x", "?path=folder1/../x", "?path=nobody", "?path=/etc/passwd"]
    {
        files(&api, "latest", path).problem(404);
    }
    files(&api, "no-such-thing", "").problem(404);
    files(&api, "latest", "?path=folder1&limit=0").problem(400);
    api.get("/api/v1/repositories/nobody/snapshots").problem(404);
}

#[test]
fn a_file_is_downloaded_byte_for_byte_by_whoever_may_operate() {
    let (setup, daemon) = with_history();
    let api = daemon.api();
    let name = std::ffi::OsStr::from_bytes(b"n\xff\"\n<script>.html");
    let content = Random::new(7).bytes(3 << 20);
    fs::write(setup.root().join(name), &content).unwrap();
    fs::write(setup.root().join("empty"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", setup.root().join("link")).unwrap();
    api.flush();
    let path = "?path=folder1/n%ff%22%0a%3Cscript%3E.html";
    let answer = files(&api, "latest", path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == content, "{} bytes", answer.body.len());
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("content-length"), Some(content.len().to_string().as_str()));
    let disposition = answer.header("content-disposition").unwrap();
    assert!(
        disposition.starts_with("attachment; filename=\"") && !disposition.contains('<'),
        "{disposition}"
    );
    let listed = ok(&files(&api, "latest", "?path=folder1"));
    let exact = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|it| it["path_b64"].as_str())
        .unwrap()
        .to_owned();
    assert!(files(&api, "latest", &format!("?path_b64={exact}")).body == content);
    let empty = files(&api, "latest", "?path=folder1/empty");
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert_eq!(files(&api, "latest~1", "?path=folder1/letter").body, b"second");
    files(&api, "latest", "?path=folder1/link").problem(409);
    files(&api.with_token(READER), "latest", path).problem(403);
}

fn begin(api: &Api, wish: &Value) -> String {
    let answer = api.post("/api/v1/restores", wish);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let location = answer.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/api/v1/restores/{}", answer.json()["id"].as_str().unwrap()));
    location
}

fn ended(api: &Api, location: &str) -> Value {
    eventually("the restore ends", SOON, || {
        let job = ok(&api.get(location));
        (!matches!(job["state"].as_str(), Some("planning" | "restoring" | "verifying"))).then_some(job)
    })
}

#[test]
fn a_restore_is_a_job_that_ends_with_a_report() {
    let (setup, daemon) = with_history();
    let api = daemon.api();
    let to = setup.path("restored/back");
    let wish = json!({"repository": "documents", "to": to.to_str().unwrap(), "verify": true});
    let mut rehearsal = wish.clone();
    rehearsal["dry_run"] = json!(true);
    let job = ended(&api, &begin(&api, &rehearsal));
    assert_eq!(
        (&job["state"], &job["report"]["totals"]["files"]),
        (&json!("finished"), &json!(2)),
        "{job:#}"
    );
    assert!(!to.exists());
    let location = begin(&api, &wish);
    let job = ended(&api, &location);
    assert_eq!(job["state"], "finished", "{job:#}");
    assert_eq!(job["report"]["verified"]["different"], 0, "{job:#}");
    assert_eq!((&job["done"]["files"], &job["done"]["files_total"]), (&json!(2), &json!(2)), "{job:#}");
    assert_eq!(fs::read(to.join("folder1/letter")).unwrap(), b"second");
    assert_eq!(fs::read(to.join("folder1/deep/er/x")).unwrap(), b"x");

    let older = json!({"repository": "documents", "at": "latest~1", "paths": ["folder1/letter"],
                       "to": setup.path("restored/older").to_str().unwrap()});
    assert_eq!(ended(&api, &begin(&api, &older))["state"], "finished");
    assert_eq!(fs::read(setup.path("restored/older/folder1/letter")).unwrap(), b"first");
    let mut missing = older;
    missing["paths"] = json!(["folder1/none"]);
    missing["to"] = json!(setup.path("restored/none").to_str().unwrap());
    let job = ended(&api, &begin(&api, &missing));
    assert_eq!(job["state"], "failed", "{job:#}");
    assert!(job["error"].as_str().unwrap().contains("is not in snapshot"), "{job:#}");
    assert_eq!(ok(&api.delete(&location))["state"], "finished", "what is over is not stopped");
    assert_eq!(ok(&api.get("/api/v1/restores"))["restores"].as_array().unwrap().len(), 4);
    daemon.stop();

    let daemon = setup.start();
    assert_eq!(ok(&daemon.api().get(&location))["state"], "finished", "it is remembered");
    daemon.api().get("/api/v1/restores/none").problem(404);
}

#[test]
fn a_restore_writes_nowhere_else() {
    let (setup, daemon) = with_history();
    let api = daemon.api();
    std::os::unix::fs::symlink(setup.path("elsewhere"), setup.path("restored/out")).unwrap();
    fs::create_dir(setup.path("elsewhere")).unwrap();
    let wish = |to: &str| json!({"repository": "documents", "to": to});
    let at = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    for to in [
        at("elsewhere"),
        at("restored"),
        at("restored/out/x"),
        at("restored/../elsewhere"),
        at("folder1"),
        at("state/x"),
        "relative".to_owned(),
        String::new(),
        "/".to_owned(),
    ] {
        api.post("/api/v1/restores", &wish(&to)).problem(403);
    }
    let good = wish(&at("restored/x"));
    api.with_token(READER).post("/api/v1/restores", &good).problem(403);
    api.post("/api/v1/restores", &json!({"repository": "nobody", "to": at("restored/x")})).problem(404);
    api.post("/api/v1/restores", &json!({"repository": "documents"})).problem(400);
    api.post("/api/v1/restores", &json!({"repository": "documents", "to": at("restored/x"), "delete": true}))
        .problem(400);
    assert!(fs::read_dir(setup.path("elsewhere")).unwrap().next().is_none());
    assert!(!setup.path("restored/x").exists());
}

/// With a daemon that waits in each restore after its first file, while the file that is returned is there.
#[cfg(feature = "fault-points")]
fn held_history() -> (Setup, Daemon, std::path::PathBuf) {
    let (setup, daemon) = with_history();
    daemon.stop();
    let held_by = setup.path("held");
    fs::write(&held_by, "").unwrap();
    let daemon = setup.launch(&[
        ("BACKUPBOT_FAULT", "restore:file-written=hold@1"),
        ("BACKUPBOT_FAULT_HELD_BY", held_by.to_str().unwrap()),
    ]);
    daemon.serving();
    (setup, daemon, held_by)
}

#[cfg(feature = "fault-points")]
fn writes(api: &Api, location: &str) {
    eventually("the restore writes", SOON, || {
        let state = ok(&api.get(location))["state"].clone();
        (state == "restoring").then_some(())
    });
}

#[cfg(feature = "fault-points")]
#[test]
fn a_second_restore_waits_its_turn_and_the_first_can_be_cancelled_and_gone_on_with() {
    let (setup, daemon, held_by) = held_history();
    let api = daemon.api();
    let to = setup.path("restored/back");
    let wish = json!({"repository": "documents", "to": to.to_str().unwrap()});
    let location = begin(&api, &wish);
    writes(&api, &location);
    let mut other = wish.clone();
    other["to"] = json!(setup.path("restored/other").to_str().unwrap());
    let refused = api.post("/api/v1/restores", &other).problem(409);
    assert!(location.ends_with(refused["running"].as_str().unwrap()), "{refused}");
    // The same wish too: it is being done.
    api.post("/api/v1/restores", &wish).problem(409);
    api.with_token(READER).delete(&location).problem(403);
    assert_eq!(api.post(&format!("{location}/cancel"), &json!({})).status, 200);
    fs::remove_file(held_by).unwrap();
    let job = ended(&api, &location);
    assert_eq!((&job["state"], &job["error"]), (&json!("cancelled"), &Value::Null), "{job:#}");
    assert!(!setup.path("restored/other").exists());
    let again = ended(&api, &begin(&api, &wish));
    assert_eq!(again["state"], "finished", "{again:#}");
    assert_eq!(fs::read(to.join("folder1/letter")).unwrap(), b"second");
    let results: Vec<Value> = crate::audit::lines(&setup)
        .iter()
        .filter(|line| line["what"] == "restore")
        .map(|line| line["result"].clone())
        .collect();
    assert_eq!(results, ["begun", "cancelled", "begun", "ok"]);
    let scrape = crate::support::scrape::Scrape::of(&daemon);
    assert_eq!(scrape.value("restore_total", "result=\"cancelled\""), 1.0);
    daemon.stop();
}

#[cfg(feature = "fault-points")]
#[test]
fn a_restore_that_a_killed_daemon_left_is_told_as_interrupted_and_can_be_gone_on_with() {
    let (setup, daemon, _) = held_history();
    let wish = json!({"repository": "documents", "to": setup.path("restored/back").to_str().unwrap()});
    let location = begin(&daemon.api(), &wish);
    writes(&daemon.api(), &location);
    daemon.kill();
    for _ in 0..2 {
        let daemon = setup.start();
        assert_eq!(ok(&daemon.api().get(&location))["state"], "interrupted");
        daemon.stop();
    }
    let is_told = |line: &&Value| line["what"] == "restore" && line["result"] == "interrupted";
    assert_eq!(crate::audit::lines(&setup).iter().filter(is_told).count(), 1, "told once");
    let daemon = setup.start();
    let job = ended(&daemon.api(), &begin(&daemon.api(), &wish));
    assert_eq!(job["state"], "finished", "{job:#}");
    daemon.stop();
}

#[cfg(feature = "fault-points")]
#[test]
fn where_something_stands_or_somebody_writes_a_restore_is_refused_at_once() {
    let (setup, daemon) = with_history();
    let api = daemon.api();
    write(&setup.path("restored/full"), "file", "somebody's");
    let wish = |to: &str| json!({"repository": "documents", "to": setup.path(to).to_str().unwrap()});
    let refused = api.post("/api/v1/restores", &wish("restored/full")).problem(409);
    assert!(refused["detail"].as_str().unwrap().contains("`overwrite`"), "{refused}");
    let mut over = wish("restored/full");
    over["overwrite"] = json!("never");
    assert_eq!(ended(&api, &begin(&api, &over))["state"], "finished");

    let (held_by, to) = (setup.path("held"), setup.path("restored/taken"));
    fs::write(&held_by, "").unwrap();
    let config = setup.write_config();
    let mut command = setup
        .command(&["restore", "--config", config.to_str().unwrap(), "--to", to.to_str().unwrap()])
        .env("BACKUPBOT_FAULT", "restore:file-written=hold@1")
        .env("BACKUPBOT_FAULT_HELD_BY", &held_by)
        .spawn()
        .unwrap();
    eventually("the command writes", SOON, || to.join("folder1").exists().then_some(()));
    let refused = api.post("/api/v1/restores", &wish("restored/taken")).problem(409);
    assert!(refused["detail"].as_str().unwrap().contains("another restore is writing"), "{refused}");
    fs::remove_file(held_by).unwrap();
    assert!(command.wait().unwrap().success());
    daemon.stop();
}

#[test]
fn without_a_directory_in_the_configuration_there_are_no_restores_over_http() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.api().flush();
    let wish = json!({"repository": "documents", "to": setup.path("x").to_str().unwrap()});
    let problem = daemon.api().post("/api/v1/restores", &wish).problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("admin.restore_dirs"), "{problem}");
}
