//! Storms of reloads, reloads that change nothing, and flushes that wait while a reload takes something away.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[cfg(feature = "fault-points")]
use super::applied;
use super::{differ, obeyed, reload, replace_config, shake};
use crate::support::daemon::{Daemon, Setup};
use crate::support::git::git;
use crate::support::scrape::{Scrape, scrape_when};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

#[test]
fn a_storm_of_changes_is_few_reloads_and_the_last_one_counts() {
    let mut setup = Setup::new();
    let daemon = setup.start();
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(14) {
        number += 1;
        write(&setup.root(), "file", number.to_string());
        differ(&mut setup, number);
        // Half of them are halves.
        let text = serde_json::to_string(&setup.config).unwrap();
        let end = if number.is_multiple_of(2) { text.len() } else { text.len() / 2 };
        fs::write(setup.path("backupbot.yaml"), &text[..end]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    differ(&mut setup, 100_000);
    replace_config(&setup);
    let status = obeyed(&daemon, "the last one is in force");
    assert!(!status["alerts"].to_string().contains("config_invalid"), "{status:#}");
    let reloads = Scrape::of(&daemon).sum("config_reloads_total");
    println!("{number} changes, {reloads} reloads");
    assert!(number > 100 && (1.0..=4.0).contains(&reloads), "{number} changes, {reloads} reloads");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_storm_of_orders_to_reload_holds_no_commit_back() {
    const ORDERS: u64 = 200;
    let mut setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let began = Instant::now();
    let orders: Vec<_> = (1..=ORDERS)
        .map(|number| {
            shake(&mut setup, number);
            replace_config(&setup);
            write(&setup.root(), "file", number.to_string());
            let api = api.clone();
            std::thread::sleep(Duration::from_millis(20));
            std::thread::spawn(move || api.post("/api/v1/reload", &json!({})).status)
        })
        .collect();
    // Here nothing is asked to hurry: quiet after 50 ms, at most 200 ms, and a batch after 100 ms more.
    let late = Duration::from_secs(6);
    let wanted = ORDERS.to_string();
    let has_it = || {
        setup.remote().tip("main")?;
        (setup.remote().blob("main", "folder1/file")? == wanted.as_bytes()).then_some(())
    };
    eventually("the last version is at the remote", late, has_it);
    let commits = git(&setup.remote().path, &["rev-list", "--count", "main"]);
    assert!(commits.trim().parse::<u64>().unwrap() >= 4, "and some before it: {commits}");
    for order in orders {
        assert_eq!(order.join().unwrap(), 200);
    }
    let reloads = Scrape::of(&daemon).sum("config_reloads_total");
    let most = 6.0 + began.elapsed().as_secs_f64() / 3.0;
    println!("{reloads} reloads, {commits} commits in {:?}", began.elapsed());
    assert!(reloads <= most, "{reloads} reloads");
    obeyed(&daemon, "what was ordered last is in force");
    shake(&mut setup, 0);
    replace_config(&setup);
    reload(&daemon);
    api.flush();
    daemon.stop();
    setup.assert_clone_equals_root();
}

#[test]
fn a_reload_that_changes_nothing_replaces_nobody() {
    let setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let look = || {
        let children = api.get("/api/v1/children").json()["children"].as_array().unwrap().clone();
        let runs = children.iter().map(|child| (child["id"].clone(), child["generation"].clone()));
        runs.collect::<Vec<_>>()
    };
    let before = look();
    assert!(before.iter().any(|(id, _)| id == "inspector") && before.iter().any(|(id, _)| id == "health"));
    for _ in 0..200 {
        assert_eq!(api.post("/api/v1/reload", &json!({})).json()["changed"], false);
    }
    daemon.signal(rustix::process::Signal::HUP);
    scrape_when(&daemon, "all of them", |scrape| {
        scrape.value("config_reloads_total", "result=\"unchanged\"") >= 201.0
    });
    assert_eq!(look(), before);
    daemon.stop();
}

#[cfg(feature = "fault-points")]
#[test]
fn the_file_is_followed_although_who_follows_it_broke_down() {
    let mut setup = Setup::new();
    let daemon = setup.launch(&[("BACKUPBOT_FAULT", "actor:follow-file:news=panic@1")]);
    daemon.serving();
    differ(&mut setup, 1);
    replace_config(&setup);
    applied(&daemon, 1.0);
    eventually("it was said", SOON, || {
        daemon.output().contains("a task has broken down and is begun anew").then_some(())
    });
    differ(&mut setup, 2);
    replace_config(&setup);
    applied(&daemon, 2.0);
    daemon.stop();
}

/// A flush that is under way, and its status, answer and duration.
fn flush_that_waits(daemon: &Daemon, setup: &Setup) -> std::thread::JoinHandle<(u16, Value, Duration)> {
    let api = daemon.api();
    let begun = Instant::now();
    let flush = std::thread::spawn(move || {
        let answer = api.post("/api/v1/flush", &json!({"wait": true, "timeout": "300s"}));
        (answer.status, answer.json(), begun.elapsed())
    });
    eventually("the flush is waiting", SOON, || daemon.output().contains("\"to\":\"flush\"").then_some(()));
    assert!(!setup.remote().path.exists() && !flush.is_finished());
    flush
}

#[test]
fn a_flush_that_waits_for_what_is_taken_out_of_the_configuration_ends_with_the_reason() {
    for what in ["repository", "root", "remote"] {
        println!("{what}");
        let mut setup = Setup::new();
        write(&setup.root(), "file", "1");
        write(&setup.path("folder2"), "file", "2");
        // A remote that never answers holds the flush.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x.git", silent.local_addr().unwrap());
        setup.repository()["remotes"] = json!([{"name": "silent", "url": url}]);
        let second = json!({"name": "folder2", "path": setup.path("folder2").to_str().unwrap()});
        setup.repository()["roots"].as_array_mut().unwrap().push(second);
        let other = json!({"name": "other", "roots": [{"name": "folder3", "path": setup.path("folder3").to_str().unwrap()}],
                           "remotes": []});
        fs::create_dir(setup.path("folder3")).unwrap();
        setup.config["repositories"].as_array_mut().unwrap().push(other);
        setup.config["shutdown_grace"] = json!("1s");
        let daemon = setup.start();
        let flush = flush_that_waits(&daemon, &setup);
        match what {
            "repository" => drop(setup.config["repositories"].as_array_mut().unwrap().remove(0)),
            "root" => drop(setup.repository()["roots"].as_array_mut().unwrap().pop()),
            _ => {
                let place = setup.path("remote/documents.git");
                setup.repository()["remotes"] = json!([{"name": "usb", "url": place.to_str().unwrap()}]);
            }
        }
        replace_config(&setup);
        reload(&daemon);
        let (status, answer, took) = flush.join().unwrap();
        assert!(took < Duration::from_secs(60), "{took:?}");
        if what == "remote" {
            assert_eq!(status, 200, "{answer:#}");
            let remote = &answer["repositories"][0]["remotes"][0];
            assert_eq!((&remote["name"], &remote["verified"]), (&json!("usb"), &json!(true)), "{answer:#}");
        } else {
            assert_eq!(status, 409, "{answer:#}");
            let detail = answer["detail"].as_str().unwrap();
            assert!(detail.contains("taken out of the configuration"), "{detail}");
            assert!(what == "repository" || detail.contains("folder2"), "{detail}");
        }
        daemon.stop_or_fail();
    }
}
