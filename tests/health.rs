//! The health checker finds by itself what no push and no commit meets.
//!
//! The test build is asked for a quick pace; how often it looks otherwise stands in its file.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};

fn start(setup: &Setup) -> Daemon {
    let daemon = setup.launch(&[("BACKUPBOT_FAULT_HEALTH_EVERY_MS", "300")]);
    daemon.serving();
    daemon
}

fn state_of(status: &Value, check: &str) -> Option<String> {
    let row = status["health"].as_array()?.iter().find(|row| row["check"] == check)?;
    row["state"].as_str().map(str::to_owned)
}

fn is(status: &Value, check: &str, state: &str) -> bool {
    state_of(status, check).as_deref() == Some(state)
}

#[test]
fn a_remote_that_goes_away_while_nothing_changes_is_found_and_so_is_its_return() {
    let setup = Setup::new();
    fs::write(setup.root().join("a"), "one").unwrap();
    let daemon = start(&setup);
    daemon.api().flush();
    daemon.status_when("the remote is up", |status| is(status, "remote_reachable", "ok"));
    fs::rename(setup.path("remote"), setup.path("away")).unwrap();
    let down = daemon.status_when("the remote is down", |status| is(status, "remote_reachable", "failing"));
    assert_eq!(down["repositories"][0]["remotes"][0]["state"], "idle", "no push met it: {down:#}");
    let page = setup.run(&["status"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("health: documents: remote usb: remote_reachable: FAILING"), "{page}");
    fs::rename(setup.path("away"), setup.path("remote")).unwrap();
    let up = daemon.status_when("the remote is back", |status| is(status, "remote_reachable", "ok"));
    for check in ["disk_space", "last_success", "watch_limits", "clock"] {
        assert!(state_of(&up, check).is_some(), "{check}: {up:#}");
    }
    daemon.stop();
}

#[test]
fn rot_in_an_old_pack_is_found_and_mended_without_anybody_reading_it() {
    let setup = Setup::new();
    fs::write(setup.root().join("a"), "the content of a file that nobody looks at again").unwrap();
    let daemon = start(&setup);
    daemon.api().flush();
    daemon.status_when("a sample was sound", |status| is(status, "state_integrity", "ok"));
    let pack = first_pack(&setup);
    let mut bytes = fs::read(&pack).unwrap();
    // The first entry begins behind twelve bytes; somewhere in its deflated content.
    bytes[24] ^= 0x20;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    daemon.status_when("the repository is mended", |status| {
        status["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == "state_recovered")
    });
    daemon.status_when("a sample is sound again", |status| is(status, "state_integrity", "ok"));
    assert!(daemon.output().contains("StateIntegrity"), "the checker told of it:\n{}", daemon.output());
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

fn first_pack(setup: &Setup) -> PathBuf {
    let listing = fs::read_dir(setup.state().join("repos/documents.git/objects/pack")).unwrap();
    let mut packs: Vec<PathBuf> = listing.map(|entry| entry.unwrap().path()).collect();
    packs.retain(|path| path.extension().is_some_and(|ending| ending == "pack"));
    packs.sort();
    packs.remove(0)
}
