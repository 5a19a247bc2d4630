//! The HTTP interface: what it tells, what it does, whom it refuses, and how.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::daemon::{Setup, is_root};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

fn wait_flush(api: &Api, timeout: &str) -> crate::support::api::Answer {
    api.post("/api/v1/flush", &json!({"repository": "documents", "wait": true, "timeout": timeout}))
}

#[test]
fn status_says_what_the_contract_promises() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    let flushed = daemon.api().flush();
    let status = daemon.status_when("the root is compared", |status| {
        status["repositories"][0]["roots"][0]["state"] == "watching"
    });
    assert_eq!(status["instance"], "testbox");
    assert!(status["version"].is_string());
    assert!(status["alerts"].is_array());
    let repository = &status["repositories"][0];
    assert_eq!(repository["name"], "documents");
    assert_eq!(repository["paused"], false);
    assert!(repository["pending"].is_u64());
    assert_eq!(repository["commit"], flushed["repositories"][0]["commit"]);
    assert_eq!(repository["commit"], setup.remote().tip("main").unwrap());
    let root = &repository["roots"][0];
    assert_eq!(root["name"], "folder1");
    assert_eq!(root["backend"], "inotify");
    assert_eq!(root["files"], 1);
    assert_eq!(root["skipped"], 0);
    let remote = &repository["remotes"][0];
    assert_eq!(remote["name"], "usb");
    assert_eq!(remote["state"], "idle");
    assert_eq!(remote["reason"], Value::Null);
    assert_eq!(remote["commit"], repository["commit"]);
    assert!(remote["last_success"].is_string());
    assert_eq!(remote["oldest_unprotected_seconds"], 0);
    let answer = &flushed["repositories"][0];
    assert_eq!(answer["name"], "documents");
    assert_eq!(answer["skipped"], json!([]));
    assert_eq!(answer["remotes"][0]["name"], "usb");
    assert_eq!(answer["remotes"][0]["state"], "idle");
    assert_eq!(answer["remotes"][0]["commit"], answer["commit"]);
}

#[test]
fn probes_need_no_token_and_everything_else_does() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    for probe in ["/livez", "/readyz"] {
        // A kubelet asks by address, a scraper by whatever name.
        for host in [api.address.as_str(), "pod-7.example:1234"] {
            let answer = api.raw("GET", probe, &[("Host", host)], b"");
            assert_eq!(answer.status, 200, "{probe}: {}", answer.text());
        }
    }
    let guarded = ["/api/v1/status", "/api/v1/children", "/api/v1/why?path=x", "/api/v1/nothing"];
    for path in guarded {
        let wrong = [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic eDp5")];
        for authorization in wrong {
            let mut headers = vec![("Host", api.address.as_str())];
            headers.extend(authorization.map(|value| ("Authorization", value)));
            let answer = api.raw("GET", path, &headers, b"");
            answer.problem(401);
            assert!(answer.header("www-authenticate").is_some(), "{path} {authorization:?}");
        }
    }
    for path in ["/api/v1/pause", "/api/v1/resume", "/api/v1/flush"] {
        let headers = [("Host", api.address.as_str()), ("Content-Type", "application/json")];
        api.raw("POST", path, &headers, b"{}").problem(401);
    }
    assert!(!daemon.output().contains(&api.token), "the token is not in the log");
    assert!(!api.status().to_string().contains(&api.token));
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let mut setup = Setup::new();
    setup.config["admin"]["allowed_hosts"] = json!(["backup.example.org"]);
    let daemon = setup.start();
    let api = daemon.api();
    let bearer = api.bearer();
    let port = api.address.rsplit(':').next().unwrap().to_owned();
    let ask = |host: &str, origin: Option<&str>| {
        let mut headers = vec![("Host", host), ("Authorization", bearer.as_str())];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        api.raw("GET", "/api/v1/status", &headers, b"")
    };
    for host in [&api.address, &format!("localhost:{port}"), "localhost", "[::1]", "backup.example.org"] {
        assert_eq!(ask(host, None).status, 200, "{host}");
    }
    for host in
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "backup.example.org.evil"]
    {
        let answer = ask(host, None);
        assert!(matches!(answer.status, 403 | 421), "{host}: {}", answer.status);
        answer.problem(answer.status);
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        ask(&api.address, Some(origin)).problem(403);
    }
    let answer = ask(&api.address, None);
    assert!(answer.header("access-control-allow-origin").is_none(), "no CORS");
}

#[test]
fn a_request_that_cannot_be_obeyed_gets_a_problem_document() {
    let setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    let bearer = api.bearer();
    let post = |kind: &str, body: &[u8]| {
        let headers =
            [("Host", api.address.as_str()), ("Authorization", bearer.as_str()), ("Content-Type", kind)];
        api.raw("POST", "/api/v1/flush", &headers, body)
    };
    post("text/plain", b"{}").problem(415);
    post("application/x-www-form-urlencoded", b"wait=true").problem(415);
    post("application/json", b"{").problem(400);
    for body in [br#"{"timeout":"soon"}"#.as_slice(), br#"{"wiat":true}"#] {
        let answer = post("application/json", body);
        assert!(matches!(answer.status, 400 | 422), "{}", answer.text());
        answer.problem(answer.status);
    }
    post("application/json", &vec![b' '; 4 << 20]).problem(413);
    api.post("/api/v1/flush", &json!({"repository": "nobody", "wait": true})).problem(404);
    api.post("/api/v1/pause", &json!({"repository": "nobody"})).problem(404);
    api.get("/api/v1/nothing").problem(404);
    api.get("/nothing").problem(404);
    api.raw("DELETE", "/api/v1/status", &[("Host", &api.address), ("Authorization", &bearer)], b"")
        .problem(405);
}

#[test]
fn a_pause_holds_commits_survives_a_restart_and_loses_nothing() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let before = setup.remote().tip("main").unwrap();
    let answer = daemon.api().post("/api/v1/pause", &json!({"repository": "documents"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    daemon.status_when("paused", |status| status["repositories"][0]["paused"] == true);

    write(&setup.root(), "file", "2");
    write(&setup.root(), "passing", "by");
    daemon.status_when("changes wait", |status| status["repositories"][0]["pending"].as_u64() >= Some(1));
    wait_flush(&daemon.api(), "10s").problem(409);
    daemon.stop_or_fail();
    assert_eq!(setup.local().tip("main").unwrap(), before, "nothing is committed while paused");

    write(&setup.root(), "while-down", "3");
    let daemon = setup.start();
    daemon.status_when("still paused", |status| status["repositories"][0]["paused"] == true);
    wait_flush(&daemon.api(), "10s").problem(409);
    assert_eq!(setup.local().tip("main").unwrap(), before);
    let answer = daemon.api().post("/api/v1/resume", &json!({"repository": "documents"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("what waited is committed unasked", SOON, || {
        setup.remote().blob("main", "folder1/while-down")
    });
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_pause_with_an_end_goes_on_by_itself_over_a_restart_too() {
    let setup = Setup::new();
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let answer = api.post("/api/v1/pause", &json!({"for": "20s"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["repositories"][0]["until"].is_string(), "{}", answer.text());
    let status = daemon.status_when("paused", |status| status["repositories"][0]["paused"] == true);
    assert!(status["repositories"][0]["paused_until"].is_string(), "{status:#}");
    wait_flush(&api, "10s").problem(409);
    for wrong in [json!({"for": "soon"}), json!({"for": "0s"}), json!({"for": "9000h"}), json!({"for": 7})] {
        api.post("/api/v1/pause", &wrong).problem(400);
    }
    daemon.stop_or_fail();

    write(&setup.root(), "file", "2");
    let shown = setup.run(&["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("PAUSED until"), "{shown:?}");
    let daemon = setup.start();
    daemon.status_when("still paused", |status| status["repositories"][0]["paused"] == true);
    eventually("it goes on by itself", SOON, || {
        (setup.remote().blob("main", "folder1/file").as_deref() == Some(b"2")).then_some(())
    });
    daemon.status_when("no longer paused", |status| status["repositories"][0]["paused"] == false);
    let output = setup.run(&["pause", "--for", "2h"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("paused for 2 h, until"), "{output:?}");
    assert_eq!(setup.run(&["resume"]).status.code(), Some(0));
    daemon.api().flush();
}

#[test]
fn children_are_a_tree_with_their_states() {
    let setup = Setup::new();
    let daemon = setup.start();
    daemon.api().flush();
    let children = daemon.api().get("/api/v1/children").json()["children"].as_array().unwrap().clone();
    for child in &children {
        let parent = &child["parent"];
        assert!(parent.is_null() || children.iter().any(|other| other["id"] == *parent), "{child}");
        assert_eq!(child["state"], "running", "{child}");
        assert!(child["restarts"].is_u64() && child["since"].is_string(), "{child}");
    }
    let pusher = children.iter().find(|child| child["name"] == "pusher usb").unwrap();
    assert_eq!(pusher["parent"], "repository documents");
}

#[test]
fn a_flush_answers_only_when_everything_is_there() {
    let setup = Setup::new();
    let daemon = setup.start();
    for number in 0..20 {
        write(&setup.root(), format!("file-{}", number % 3), number.to_string());
        write(&setup.root(), format!("new/{number}/x"), number.to_string());
        let flushed = daemon.api().flush();
        let tip = setup.remote().tip("main").unwrap();
        assert_eq!(flushed["repositories"][0]["commit"], tip);
        let content = setup.remote().blob("main", &format!("folder1/file-{}", number % 3));
        assert_eq!(content.unwrap(), number.to_string().into_bytes(), "round {number}");
        assert!(setup.remote().blob("main", &format!("folder1/new/{number}/x")).is_some(), "round {number}");
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn flushes_that_are_asked_for_together_all_end() {
    let setup = Setup::new();
    write(&setup.root(), "first", "x");
    let daemon = setup.start();
    daemon.api().flush();
    for round in 0..20 {
        // Each waits for a later change than the one before; one commit may have the changes of all.
        let asked: Vec<_> = (0..6)
            .map(|number| {
                write(&setup.root(), format!("file-{number}"), format!("{round} {number}"));
                let api = daemon.api();
                std::thread::spawn(move || wait_flush(&api, "20s").status)
            })
            .collect();
        for (number, flush) in asked.into_iter().enumerate() {
            assert_eq!(flush.join().unwrap(), 200, "flush {number} of round {round}");
        }
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_flush_says_when_it_ran_out_of_time() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("1s");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    let answer = wait_flush(&daemon.api(), "2s");
    let problem = answer.problem(504);
    let remote = &problem["repositories"][0]["remotes"][0];
    assert_eq!(remote["verified"], false, "{problem:#}");
    // Without waiting it is only started.
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": false}));
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    assert_ne!(answer.json()["repositories"][0]["remotes"][0]["verified"], true);
}

#[test]
fn files_that_cannot_be_read_are_listed_and_hold_nothing_up() {
    let mut setup = Setup::new();
    setup.as_nobody = is_root();
    let locked = setup.root().join("locked");
    write(&setup.root(), "locked", "first version");
    write(&setup.root(), "shut/inside", "first version");
    write(&setup.root(), "open", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let set = |mode: u32| {
        fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(
            setup.root().join("shut"),
            fs::Permissions::from_mode(mode | (mode & 0o400) >> 2),
        )
        .unwrap();
    };
    fs::write(&locked, "second version").unwrap();
    set(0o000);
    write(&setup.root(), "open", "2");
    let flushed = daemon.api().flush();
    let skipped = flushed["repositories"][0]["skipped"].as_array().unwrap().clone();
    let entry =
        skipped.iter().find(|entry| entry["path"] == "locked").unwrap_or_else(|| panic!("{flushed:#}"));
    assert_eq!(entry["root"], "folder1");
    assert!(entry["reason"].as_str().unwrap().contains("unreadable"), "{entry}");
    assert_eq!(setup.remote().blob("main", "folder1/open").unwrap(), b"2", "others are not held up");
    assert_eq!(
        setup.remote().blob("main", "folder1/locked").unwrap(),
        b"first version",
        "the last version stays"
    );
    assert_eq!(setup.remote().blob("main", "folder1/shut/inside").unwrap(), b"first version");
    let status = daemon.status_when("status counts it", |status| {
        status["repositories"][0]["roots"][0]["skipped"].as_u64() >= Some(1)
    });
    assert!(status["repositories"][0]["roots"][0]["skipped"].as_u64() <= Some(2), "{status:#}");
    let output = setup.run(&["flush", "--wait", "--timeout", "30s"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains("locked"), "they are named");
    let why = setup.run(&["why", locked.to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_slice(&why.stdout).unwrap();
    assert_eq!(report["state"], "failed", "{report:#}");
    assert_eq!(report["protected"], false);
    daemon.stop_or_fail();

    // As a job, too, and over a restart.
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    set(0o644);
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    setup.assert_all_is_well();
}

#[test]
fn readiness_follows_the_program_and_not_its_remotes() {
    let mut setup = Setup::new();
    setup.config["shutdown_grace"] = json!("1s");
    fs::write(setup.path("disk"), "not mounted").unwrap();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("disk/documents.git").to_str().unwrap());
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.status_when("backoff", |status| status["repositories"][0]["remotes"][0]["state"] == "backoff");
    let api = daemon.api();
    let host = [("Host", api.address.as_str())];
    assert_eq!(api.raw("GET", "/livez", &host, b"").status, 200);
    assert_eq!(
        api.raw("GET", "/readyz", &host, b"").status,
        200,
        "a lost remote is no reason to be restarted"
    );
}
