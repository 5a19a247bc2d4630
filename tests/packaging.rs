//! What images, packages and audits need of the program: its health, its manual pages, what it is made of, and a report.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::daemon::Setup;
use crate::support::tree::write;
use crate::support::{SOON, eventually};

#[test]
fn health_asks_the_running_program_and_says_why_not() {
    let mut setup = Setup::new();
    setup.config["metrics"] = json!({"listen": "127.0.0.1:0"});
    write(&setup.root(), "a", "one");
    let said = |arguments: &[&str]| {
        let output = setup.run(arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = said(&["health"]);
    assert!(code == Some(1) && text.contains("no daemon works in"), "{code:?} {text}");
    let daemon = setup.start();
    daemon.api().flush();
    assert_eq!(said(&["health"]).0, Some(0));
    assert_eq!(said(&["health", "--ready"]).0, Some(0));
    assert_eq!(said(&["health", "--json"]).0, Some(0));
    // What an orchestrator may reach has the probes, and nothing else that a stranger should not have.
    let announced = fs::read_to_string(setup.state().join("daemon.json")).unwrap();
    let address = serde_json::from_str::<Value>(&announced).unwrap()["metrics"].as_str().unwrap().to_owned();
    let beside = Api { address, token: String::new() };
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/api/v1/status", 404)] {
        assert_eq!(beside.raw("GET", path, &[("Host", "pod.example.org")], b"").status, status, "{path}");
    }
    assert_eq!(beside.raw("POST", "/livez", &[("Host", "pod.example.org")], b"").status, 405);
    daemon.stop();
    assert_eq!(said(&["health"]).0, Some(1));
}

#[test]
fn every_command_has_a_manual_page() {
    let setup = Setup::new();
    let pages = setup.path("man");
    fs::create_dir(&pages).unwrap();
    assert!(setup.command(&["man", pages.to_str().unwrap()]).output().unwrap().status.success());
    let made: BTreeSet<String> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for command in
        ["backupbot", "backupbot-run", "backupbot-restore", "backupbot-remote-trust", "backupbot-lfs-usage"]
    {
        assert!(made.contains(&format!("{command}.1")), "{command}: {made:?}");
    }
    let page = fs::read_to_string(pages.join("backupbot-restore.1")).unwrap();
    assert!(page.contains("in\\-place") && page.contains(".SH"), "{page}");
    for name in &made {
        let page = fs::read_to_string(pages.join(name)).unwrap();
        let command = name.trim_end_matches(".1");
        // Name, section, no date, source, manual: at their places.
        let title =
            format!(r#".TH "{command}" "1" "" "BackupBot {}" "BackupBot""#, env!("CARGO_PKG_VERSION"));
        assert_eq!(page.lines().find(|line| line.starts_with(".TH")), Some(title.as_str()));
        assert!(page.lines().all(|line| line.trim_end() == line), "{name} has blanks at the ends of lines");
        assert!(
            page.contains(&format!("{} \\- ", command.replace('-', "\\-"))),
            "{name} does not say its name"
        );
    }
    assert!(!made.iter().any(|name| name.contains("help")), "{made:?}");
    let nowhere = setup.command(&["man", "/no/such/directory"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn what_the_program_is_made_of_is_listed_whole_and_the_same_each_time() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sbom = || Command::new(project.join("scripts/sbom")).output().unwrap();
    let first = sbom();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(first.stdout == sbom().stdout, "two lists of one lock differ");
    let list: Value = serde_json::from_slice(&first.stdout).unwrap();
    let components = list["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    for linked in ["actix-web", "git2", "rustls", "redb"] {
        let component = named(linked).unwrap_or_else(|| panic!("{linked} is missing"));
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        assert_eq!(component["hashes"][0]["alg"], "SHA-256", "{component}");
    }
    assert!(
        named("tempfile").is_none() || named("proptest").is_none(),
        "what only tests need is no part of it"
    );
    assert_eq!(list["metadata"]["component"]["name"], "backupbot");
}

#[test]
fn the_report_says_what_was_proven_and_what_is_open() {
    let mut setup = Setup::new();
    setup.repository()["remotes"][0]["region"] = json!("cupboard | upstairs");
    setup.repository()["remotes"][0]["provider"] = json!("forgejo");
    write(&setup.root(), "a", "one");
    let daemon = setup.start();
    daemon.api().flush();
    let report = || -> Value { serde_json::from_slice(&setup.run(&["report", "--json"]).stdout).unwrap() };
    let before = report();
    let place = &before["repositories"][0]["places"][0];
    assert_eq!((&place["provider"], &place["region"]), (&json!("Forgejo"), &json!("cupboard | upstairs")));
    assert!(place["last_success"].is_string() && place["drill"].is_null(), "{place}");
    let is_open = |report: &Value, word: &str| report["open"].to_string().contains(word);
    assert!(is_open(&before, "rehearsed yet") && is_open(&before, "one remote only"), "{before:#}");
    assert!(
        setup.run(&["drill"]).status.success() && setup.run(&["verify", "--remote", "usb"]).status.success()
    );
    // The daemon's status is made once a second.
    let after = eventually("the proofs are in the report", SOON, || {
        let report = report();
        let place = &report["repositories"][0]["places"][0];
        (place["drill"]["problems"] == 0 && place["verified"]["problems"] == 0).then_some(report)
    });
    assert!(!is_open(&after, "rehearsed yet"), "{after:#}");
    let text = String::from_utf8(setup.run(&["report"]).stdout).unwrap();
    assert!(text.starts_with("# Backups of testbox\n") && text.contains(r"cupboard \| upstairs"), "{text}");
    let row = text.lines().find(|line| line.starts_with("| usb |")).unwrap();
    assert_eq!(row.replace(r"\|", "").matches('|').count(), 10, "{row}");
    assert_eq!(setup.run(&["report", "--repository", "else"]).status.code(), Some(1));
    daemon.stop();
    assert!(!report()["repositories"][0]["places"][0]["last_success"].is_null(), "without a daemon as well");
}
