//! What is done to Git and to files besides commits and pushes has its line too, whoever does it: the daemon, the API, or a command
//! that writes into the same log while a daemon does.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::audit::{assert_tells_all, lines};
use crate::support::api::Api;
use crate::support::daemon::{Daemon, Setup};
use crate::support::scrape::{Scrape, scrape_when};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

fn told<'l>(lines: &'l [Value], what: &str, result: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["what"] == what && line["result"] == result).collect()
}

/// A daemon that has pushed one file, and may restore below `restored`.
fn with_one_file() -> (Setup, Daemon) {
    let mut setup = Setup::new();
    setup.config["admin"]["restore_dirs"] = json!([setup.path("restored").to_str().unwrap()]);
    fs::create_dir(setup.path("restored")).unwrap();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    daemon.api().flush();
    (setup, daemon)
}

fn restored_over_http(api: &Api, wish: &Value) -> Value {
    let answer = api.post("/api/v1/restores", wish);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let location = answer.header("location").unwrap().to_owned();
    eventually("the restore ends", SOON, || {
        let job = api.get(&location).json();
        (job["ended"].is_string()).then_some(job)
    })
}

fn restore(setup: &Setup, to: &Path, more: &[&str]) -> Output {
    setup.run(&[&["restore", "--to", to.to_str().unwrap()], more].concat())
}

fn count(scrape: &Scrape, result: &str) -> f64 {
    scrape.value("restore_total", &format!("result=\"{result}\""))
}

#[test]
fn restores_of_the_api_and_of_commands_are_told_and_counted() {
    let (setup, daemon) = with_one_file();
    let api = daemon.api();
    for result in ["success", "incomplete", "cancelled", "interrupted", "failure"] {
        assert_eq!(count(&Scrape::of(&daemon), result), 0.0, "{result}");
    }
    let wish = |to: &str| json!({"repository": "documents", "to": setup.path(to).to_str().unwrap()});
    let mut rehearsal = wish("restored/a");
    rehearsal["dry_run"] = json!(true);
    restored_over_http(&api, &rehearsal);
    assert!(restore(&setup, &setup.path("b"), &["--dry-run"]).status.success());
    assert!(told(&lines(&setup), "restore", "ok").is_empty(), "nothing was restored yet");

    let job = restored_over_http(&api, &wish("restored/a"));
    assert_eq!(job["state"], "finished", "{job:#}");
    assert!(restore(&setup, &setup.path("b"), &[]).status.success());
    fs::write(setup.root().join("file"), "spoiled").unwrap();
    assert!(setup.run(&["restore", "--in-place", "--yes", "--at", "latest"]).status.success());
    // One that cannot be had, and one that makes no sense.
    let missing = restore(&setup, &setup.path("c"), &["folder1/none"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert_eq!(restore(&setup, &setup.state().join("x"), &[]).status.code(), Some(2));

    scrape_when(&daemon, "three went well and one did not", |scrape| {
        (count(scrape, "success"), count(scrape, "failure")) == (3.0, 1.0)
    });
    let text = lines(&setup);
    let done = told(&text, "restore", "ok");
    assert_eq!(done.len(), 3, "{done:#?}");
    assert_eq!(
        (&done[0]["detail"]["job"], &done[0]["detail"]["snapshot"]),
        (&job["id"], &job["snapshot"]),
        "{done:#?}"
    );
    assert_eq!(done[0]["who"], "HTTP from 127.0.0.1");
    assert!(done[1]["who"].as_str().unwrap().starts_with("restore by user "), "{done:#?}");
    assert_eq!(
        (&done[1]["detail"]["files"], &done[1]["detail"]["to"]),
        (&json!("1"), &json!(setup.path("b")))
    );
    assert_eq!(done[2]["detail"]["to"], "in place");
    assert_eq!(told(&text, "restore", "begun").len(), 3, "{text:#?}");
    assert!(told(&text, "restore", "failed")[0]["detail"]["message"].as_str().unwrap().contains("none"));
    daemon.stop();
    assert_tells_all(&setup);
}

#[test]
fn commands_and_a_daemon_write_one_chain_at_the_same_time() {
    let (setup, daemon) = with_one_file();
    let api = daemon.api();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..6 {
                let to = setup.path(&format!("out-{number}"));
                assert!(restore(&setup, &to, &[]).status.success());
                assert!(setup.run(&["verify", "--remote", "usb"]).status.success());
            }
        });
        for number in 0..8 {
            write(&setup.root(), "other", format!("version {number}"));
            api.flush();
        }
    });
    assert!(setup.run(&["drill"]).status.success());
    daemon.stop();
    assert_tells_all(&setup);
    let text = lines(&setup);
    assert_eq!(told(&text, "restore", "ok").len(), 6);
    assert_eq!(told(&text, "verify", "ok").len(), 6);
    let drill = told(&text, "drill", "ok");
    assert_eq!((drill.len(), &drill[0]["remote"]), (1, &json!("usb")), "{drill:#?}");
    assert_eq!(drill[0]["detail"]["fetched"], "read in place", "{drill:#?}");
}

#[test]
fn a_command_where_nothing_was_backed_up_from_makes_no_log() {
    let (setup, daemon) = with_one_file();
    daemon.stop();
    let elsewhere = Setup::new();
    let from = setup.path("remote/documents.git");
    let to = elsewhere.path("back");
    let arguments = ["restore", "--from", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
    assert!(elsewhere.run(&arguments).status.success());
    assert!(to.join("folder1/file").exists() && !elsewhere.state().join("audit.jsonl").exists());
}

#[cfg(feature = "fault-points")]
#[test]
fn a_command_killed_while_it_restores_or_writes_its_line_breaks_no_chain() {
    use std::os::unix::process::ExitStatusExt;

    let (setup, daemon) = with_one_file();
    let config = setup.write_config();
    let to = setup.path("killed");
    let arguments =
        ["restore", "--config", config.to_str().unwrap(), "--to", to.to_str().unwrap(), "--overwrite=always"];
    for fault in ["restore:file-written=kill@1", "audit:written=kill@1", "audit:written=kill@2"] {
        let output = setup.command(&arguments).env("BACKUPBOT_FAULT", fault).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{fault}: {output:?}");
    }
    // Half a line, as a kill within the write would leave it.
    let log = setup.state().join("audit.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"{\"seq\":99,\"ti").unwrap();
    assert!(setup.command(&arguments).output().unwrap().status.success());
    write(&setup.root(), "file", "later");
    daemon.api().flush();
    let scrape = scrape_when(&daemon, "two ended", |scrape| count(scrape, "success") == 2.0);
    assert_eq!(count(&scrape, "failure"), 0.0);
    daemon.stop();
    assert_tells_all(&setup);
    let text = lines(&setup);
    assert_eq!(
        (told(&text, "restore", "begun").len(), told(&text, "restore", "ok").len()),
        (4, 2),
        "{text:#?}"
    );
}

#[cfg(feature = "fault-points")]
#[test]
fn merged_and_removed_packs_are_told() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.launch(&[("BACKUPBOT_FAULT_MOST_PACKS", "3")]);
    let api = daemon.serving();
    for number in 0..8 {
        write(&setup.root(), "file", format!("version {number}"));
        api.flush();
    }
    let merges = eventually("packs are merged here and there", SOON, || {
        let text = lines(&setup);
        let merges: Vec<Value> = told(&text, "merge", "ok").into_iter().cloned().collect();
        let (here, there) = (Value::Null, json!("usb"));
        let has = |place: &Value| merges.iter().any(|line| line["remote"] == *place);
        (has(&here) && has(&there)).then_some(merges)
    });
    assert!(merges[0]["detail"]["into"].as_str().unwrap().starts_with("pack-"), "{merges:#?}");
    daemon.stop();
    assert_tells_all(&setup);
}

#[test]
fn a_history_that_was_fetched_after_the_state_was_lost_is_told_as_taken_over() {
    let (setup, daemon) = with_one_file();
    daemon.stop();
    let theirs = setup.remote().tip("main").unwrap();
    fs::remove_dir_all(setup.state()).unwrap();
    let daemon = setup.start();
    write(&setup.root(), "file", "later");
    daemon.api().flush();
    daemon.stop();
    let text = lines(&setup);
    let fetched = told(&text, "fetch", "ok");
    assert_eq!((&fetched[0]["remote"], &fetched[0]["detail"]["commit"]), (&json!("usb"), &json!(theirs)));
    assert_eq!(told(&text, "adopt", "ok")[0]["to"], theirs);
    assert_tells_all(&setup);
}

#[test]
fn what_is_forgotten_of_a_root_that_is_no_longer_configured_is_told() {
    let mut setup = Setup::new();
    fs::create_dir(setup.path("second")).unwrap();
    let second = json!({"name": "second", "path": setup.path("second").to_str().unwrap(),
                        "debounce": {"quiet": "50ms", "max": "200ms"}});
    setup.repository()["roots"].as_array_mut().unwrap().push(second);
    let daemon = setup.start();
    daemon.api().flush();
    daemon.api().post("/api/v1/pause", &json!({"repository": "documents"}));
    write(&setup.path("second"), "file", "x");
    daemon.status_when("it is queued", |status| {
        status["repositories"][0]["states"]["queued"].as_u64() > Some(0)
    });
    daemon.kill();
    setup.repository()["roots"].as_array_mut().unwrap().pop();
    let daemon = setup.start();
    let dropped = eventually("it is forgotten", SOON, || {
        told(&lines(&setup), "roots", "dropped").first().map(|line| (*line).clone())
    });
    assert_eq!(dropped["detail"]["what is left"], "folder1", "{dropped:#}");
    daemon.stop_or_fail();
}
