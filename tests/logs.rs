//! The log: levels that change while the program runs, places that cannot take it, and what it must never say.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::http::served;
use crate::support::api::Api;
use crate::support::daemon::{Daemon, Setup};
use crate::support::mount::memory;
use crate::support::tree::write;
use crate::support::web::{PASSWORD, Switches, USER};
use crate::support::{SOON, eventually, skip};

fn put(api: &Api, body: &Value) -> crate::support::api::Answer {
    let bearer = api.bearer();
    let headers =
        [("Host", api.address.as_str()), ("Authorization", &bearer), ("Content-Type", "application/json")];
    api.raw("PUT", "/api/v1/log", &headers, body.to_string().as_bytes())
}

fn lost(api: &Api, kind: &str) -> u64 {
    api.get("/api/v1/log").json()["lost"][kind].as_u64().unwrap()
}

#[test]
fn levels_change_while_it_runs_and_go_back_by_themselves() {
    let setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    // What is there before the root is watched is found without an event.
    api.flush();
    let levels = api.get("/api/v1/log").json();
    assert_eq!((&levels["level"], &levels["configured"]), (&json!("info"), &json!("info")));
    assert!(levels["known"].as_array().unwrap().iter().any(|module| module["name"] == "pusher"), "{levels}");
    assert!(!daemon.output().contains("\"level\":\"debug\""));

    let levels = put(&api, &json!({"modules": {"watcher": "trace"}})).json();
    assert_eq!((&levels["level"], &levels["modules"]["watcher"]), (&json!("info"), &json!("trace")));
    write(&setup.root(), "named", "x");
    eventually("the path is in the log", SOON, || daemon.output().contains("named").then_some(()));
    assert!(!daemon.output().contains("\"msg\":\"answered\""), "others stay as they are");

    // By the command, which leaves the others as they are, for a time.
    let output = setup.run(&["log", "--module", "http", "--level", "debug", "--for", "3s", "--json"]);
    let levels: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        (&levels["modules"]["http"], &levels["modules"]["watcher"]),
        (&json!("debug"), &json!("trace"))
    );
    assert!(levels["until"].is_string(), "{levels}");
    api.status();
    eventually("requests are in the log", SOON, || {
        daemon.output().contains("\"msg\":\"answered\"").then_some(())
    });
    eventually("what is configured is in force again", SOON, || {
        (api.get("/api/v1/log").json()["modules"] == json!({})).then_some(())
    });

    let problem = put(&api, &json!({"modules": {"pushr": "debug"}})).problem(400);
    assert!(problem["detail"].as_str().unwrap().contains("pusher"), "{problem}");
    put(&api, &json!({"level": "loud"})).problem(400);
    put(&api, &json!({"level": "debug", "for": "0s"})).problem(400);
    assert_eq!(put(&api, &json!({"level": "error"})).json()["level"], "error");
    let page = setup.run(&["log"]);
    let text = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(text.contains("level error (configured: info)") && text.contains("committer"), "{text}");
    assert!(setup.run(&["log", "--reset"]).status.success());
    assert_eq!(api.get("/api/v1/log").json()["level"], "info");
    assert_eq!(setup.run(&["log", "--module", "http"]).status.code(), Some(2));
    daemon.stop();
}

#[test]
fn a_full_log_disk_stops_nothing_and_what_was_lost_is_said() {
    let mut setup = Setup::new();
    let disk = match memory(&setup.path("logs"), "size=1m") {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("a full log disk: {reason}")),
    };
    let file = setup.path("logs/backupbot.log");
    setup.config["log"] = json!({"file": file.to_str().unwrap(), "format": "json", "level": "trace"});
    let ballast = disk.fill(8192);
    let daemon = setup.start();
    let api = daemon.api();
    for number in 0..200 {
        write(&setup.root(), format!("file-{number}"), "x");
    }
    api.flush();
    eventually("records are lost", SOON, || (lost(&api, "failed") > 0).then_some(()));
    ballast.remove();
    eventually("that is said", SOON, || {
        api.status();
        fs::read_to_string(&file).unwrap().contains("log records were lost").then_some(())
    });
    daemon.stop();
    for line in fs::read_to_string(&file).unwrap().lines().filter(|line| line.contains("were lost")) {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(record["failed"].as_u64() > Some(0), "{record}");
    }
    setup.assert_all_is_well();
}

/// So many records that neither the pipe nor what waits has room for them, and the backup goes on.
fn fill_the_log(setup: &Setup, daemon: Daemon) {
    let api = daemon.api();
    // How many records so many changes lead to depends on how the watcher meets them.
    for round in 0.. {
        for number in 0..4000 {
            write(&setup.root(), format!("d{}/file-{round}-{number}", number % 20), "x");
        }
        api.flush();
        if lost(&api, "too_slow") > 0 {
            break;
        }
        assert!(round < 30, "nothing was lost: too few records");
    }
    assert_eq!(api.raw("GET", "/livez", &[("Host", "x")], b"").status, 200);
    write(&setup.root(), "later", "x");
    eventually("it is pushed", SOON, || setup.remote().blob("main", "folder1/later"));
    api.flush();
    daemon.stop();
    setup.assert_all_is_well();
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_log_file_that_is_a_pipe_which_nobody_reads_stops_nothing() {
    let mut setup = Setup::new();
    let file = setup.path("log-pipe");
    pipe(&file);
    setup.config["log"] = json!({"file": file.to_str().unwrap(), "level": "trace"});
    let daemon = setup.start();
    fill_the_log(&setup, daemon);
}

#[test]
fn a_reader_of_stderr_who_takes_nothing_stops_nothing() {
    let mut setup = Setup::new();
    setup.config["log"] = json!({"level": "trace"});
    let path = setup.path("stderr-pipe");
    pipe(&path);
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let config = setup.write_config();
    let mut command = Command::new("sh");
    let plain = setup.command::<&str>(&[]);
    command.args(["-c", "exec \"$@\" 2>\"$0\""]).arg(&path).arg(plain.get_program());
    command.args(["run", "--config"]).arg(&config).env("HOME", setup.scratch.path());
    command.current_dir(setup.scratch.path()).stdin(std::process::Stdio::null());
    let daemon = Daemon::spawn(command, &setup);
    daemon.serving();
    fill_the_log(&setup, daemon);
}

/// With a server that says something nasty with each push; the program runs at trace level.
fn nasty(format: &str) -> Option<String> {
    let (mut setup, web) = served(&Switches::default())?;
    setup.config["log"] = json!({"level": "trace", "format": format});
    let script = "printf 'forged\\n{\"level\":\"info\"}\\r\\033[2Jgone\\n' >&2\n";
    web.hook(&setup.path("remote/documents.git"), "post-receive", script);
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    write(&setup.root(), "a\nb\u{1b}[2Jc\r", "x");
    eventually("it is pushed", SOON, || setup.remote().blob("main", "folder1/a\nb\u{1b}[2Jc\r").map(|_| ()));
    api.flush();
    api.with_token("a-wrong-token").get("/api/v1/status").problem(401);
    setup.run(&["remote", "test", "web"]);
    daemon.signal(rustix::process::Signal::HUP);
    eventually("the name is in the log", SOON, || daemon.output().contains("[2Jc").then_some(()));
    let token = api.token;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let outputs = setup.path("output-0.log");
    daemon.stop();
    let text = fs::read_to_string(outputs).unwrap();
    for secret in [PASSWORD, token.as_str(), basic.as_str(), "first-p%40ssword"] {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
    Some(text)
}

#[test]
fn at_trace_level_a_record_is_one_line_and_no_secret_is_in_it_as_json() {
    let Some(text) = nasty("json") else { return };
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(record["ts"].is_string() && record["msg"].is_string(), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn at_trace_level_a_record_is_one_line_and_no_secret_is_in_it_as_text() {
    let Some(text) = nasty("text") else { return };
    for line in text.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let time = line.split(' ').next().unwrap();
        assert!(time.contains('T') && time.ends_with('Z'), "{line:?} does not begin with its time");
    }
}
