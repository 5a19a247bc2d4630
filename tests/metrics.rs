//! `/metrics` and the health checks: the numbers are right, they come back after a restart, their number follows from the
//! configuration alone, and `promtool` and a real Prometheus take them.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::daemon::{Daemon, Setup};
use crate::support::git::git;
use crate::support::running::{Running, free_address};
use crate::support::scrape::{Scrape, ask, scrape_at, scrape_when};
use crate::support::{SOON, eventually};

const USB: &str = "repository=\"documents\",remote=\"usb\"";

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn what_succeeds_fails_and_is_tried_again_is_counted() {
    let mut setup = Setup::new();
    setup.repository()["remotes"][0]["url"] = json!(setup.path("remotes/usb/documents.git"));
    fs::create_dir_all(setup.path("remotes/usb")).unwrap();
    fs::write(setup.root().join("a"), "one").unwrap();
    fs::write(setup.root().join("b"), "two").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let pushed = format!("{USB},result=\"success\"");
    let first = scrape_when(&daemon, "the first push is counted", |scrape| {
        scrape.get("pushes_total", &pushed) >= Some(1.0)
            && scrape.get("repository_size_bytes", "repository=\"documents\"").is_some()
    });
    assert_eq!(first.value("files_committed_total", "repository=\"documents\""), 2.0);
    assert!(first.value("commits_total", "repository=\"documents\"") >= 1.0);
    assert_eq!(first.value("push_duration_seconds_count", USB), first.value("pushes_total", &pushed));
    assert_eq!(first.sum("push_failures_total"), 0.0);
    assert_eq!(first.value("push_retries_total", USB), 0.0);
    assert_eq!(first.value("oldest_unprotected_seconds", USB), 0.0);
    assert_eq!(first.value("remote_up", USB), 1.0);
    assert_eq!(first.value("remote_diverged", USB), 0.0);
    assert!((now() - first.value("last_success_timestamp_seconds", USB)).abs() < 120.0);
    assert!((now() - first.value("process_start_time_seconds", "")).abs() < 300.0);
    assert_eq!(first.value("queue_depth", "repository=\"documents\""), 0.0);
    assert_eq!(first.value("paused", "repository=\"documents\""), 0.0);
    assert!(first.value("disk_free_bytes", "") > 1e6);
    assert!(first.value("repository_size_bytes", "repository=\"documents\"") > 100.0);
    assert_eq!(
        first.value("rescans_total", "repository=\"documents\",root=\"folder1\",reason=\"start\""),
        1.0
    );
    assert_eq!(
        first.value("commit_duration_seconds_count", "repository=\"documents\""),
        first.sum("commits_total")
    );
    assert_eq!(first.value("build_info", &format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), 1.0);
    for actor in ["queue", "repository", "committer", "pusher", "watcher", "health"] {
        assert_eq!(first.value("actor_up", &format!("actor=\"{actor}\"")), 1.0, "{actor}");
        assert_eq!(first.value("actor_restarts_total", &format!("actor=\"{actor}\"")), 0.0, "{actor}");
    }

    fs::rename(setup.path("remotes/usb/documents.git"), setup.path("remotes/away.git")).unwrap();
    fs::write(setup.root().join("c"), "three").unwrap();
    let unreachable = format!("{USB},reason=\"remote_unreachable\"");
    let down = scrape_when(&daemon, "a push fails and is tried again", |scrape| {
        scrape.value("push_failures_total", &unreachable) >= 2.0
            && scrape.value("oldest_unprotected_seconds", USB) >= 1.0
    });
    assert_eq!(down.value("remote_up", USB), 0.0);
    assert!(down.value("push_retries_total", USB) >= 1.0);
    assert!(down.value("pushes_total", &format!("{USB},result=\"failure\"")) >= 2.0);
    assert!(down.value("detection_seconds_count", "repository=\"documents\",root=\"folder1\"") >= 1.0);
    assert_eq!(down.value("health", "check=\"remote_reachable\""), 2.0);
    let status = daemon.api().status();
    let row = health_row(&status, "remote_reachable");
    assert_eq!((&row["state"], &row["remote"]), (&json!("failing"), &json!("usb")), "{status:#}");
    assert!(row["since"].is_string() && row["remedy"].as_str().unwrap().contains("remote test"), "{row}");

    fs::rename(setup.path("remotes/away.git"), setup.path("remotes/usb/documents.git")).unwrap();
    let up = scrape_when(&daemon, "the remote is back", |scrape| {
        scrape.value("oldest_unprotected_seconds", USB) == 0.0 && scrape.value("remote_up", USB) == 1.0
    });
    assert!(up.value("pushes_total", &pushed) >= first.value("pushes_total", &pushed) + 1.0);
    assert_eq!(up.value("files_committed_total", "repository=\"documents\""), 3.0);
    daemon.stop();
}

fn health_row(status: &Value, check: &str) -> Value {
    let rows = status["health"].as_array().unwrap();
    rows.iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("no {check}: {status:#}")).clone()
}

#[test]
fn the_last_success_is_known_right_after_a_restart() {
    let setup = Setup::new();
    fs::write(setup.root().join("a"), "one").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let before = scrape_when(&daemon, "the push is known", |scrape| {
        scrape.get("last_success_timestamp_seconds", USB).is_some()
    });
    daemon.stop();
    let again = setup.start();
    let after = Scrape::of(&again).value("last_success_timestamp_seconds", USB);
    // The orderly stop may have read the remote once more.
    let passed = after - before.value("last_success_timestamp_seconds", USB);
    assert!((0.0..60.0).contains(&passed), "{passed}");
    again.stop();
}

#[test]
fn a_halted_remote_of_another_history_is_diverged_and_not_down() {
    let setup = Setup::new();
    fs::write(setup.root().join("a"), "one").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let remote = setup.remote().path;
    let identity = ["-c", "user.name=x", "-c", "user.email=x@x"];
    let commit = [&identity[..], &["commit-tree", "-m", "theirs", "main^{tree}"]].concat();
    let stranger = git(&remote, &commit);
    git(&remote, &["update-ref", "refs/heads/main", stranger.trim()]);
    fs::write(setup.root().join("b"), "two").unwrap();
    let halted = scrape_when(&daemon, "the remote is diverged", |scrape| {
        scrape.get("remote_diverged", USB) == Some(1.0)
    });
    assert_eq!(halted.value("remote_up", USB), 1.0);
    assert!(halted.value("push_failures_total", &format!("{USB},reason=\"diverged\"")) >= 1.0);
    daemon.stop_or_fail();
}

#[test]
fn the_number_of_series_follows_from_the_configuration_alone() {
    let setup = Setup::new();
    fs::write(setup.root().join("first"), "one").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let is_settled = |scrape: &Scrape| {
        scrape.get("remote_up", USB).is_some()
            && scrape.get("disk_free_bytes", "").is_some()
            && scrape.get("repository_size_bytes", "repository=\"documents\"").is_some()
            && scrape.series.keys().filter(|series| series.starts_with("backupbot_health{")).count() == 5
    };
    let before = scrape_when(&daemon, "everything was looked at once", is_settled);
    for number in 0..1000 {
        let directory = setup.root().join(format!("directory-{}", number % 20));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("file-{number}")), format!("{number}")).unwrap();
    }
    std::os::unix::net::UnixListener::bind(setup.root().join("socket")).unwrap();
    daemon.api().flush();
    let after = scrape_when(&daemon, "the files are counted", |scrape| {
        scrape.value("files_committed_total", "repository=\"documents\"") >= 1001.0
    });
    // The first verification and the first drill come when they are due, and bring one series each.
    let comes_later = |series: &&String| {
        ["backupbot_last_verified", "backupbot_last_drill"].iter().any(|name| series.starts_with(name))
    };
    let names = |scrape: &Scrape| {
        scrape.series.keys().filter(|series| !comes_later(series)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    for secret in ["file-", "directory-", setup.root().to_str().unwrap(), &daemon.api().token] {
        assert!(!after.text.contains(secret), "{secret}");
    }
    daemon.stop();
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let setup = Setup::new();
    fs::write(setup.root().join("a"), "one").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let scrape =
        scrape_when(&daemon, "the remote was reached", |scrape| scrape.get("remote_up", USB).is_some());
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(scrape.text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.is_empty(), "{said}\n{}", scrape.text);
    daemon.stop();
}

#[test]
fn a_real_prometheus_scrapes_a_listener_of_its_own_and_answers_queries() {
    let mut setup = Setup::new();
    setup.config["metrics"] = json!({"listen": "127.0.0.1:0"});
    fs::write(setup.root().join("a"), "one").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let (status, _, problem) = ask(&daemon.api().address);
    assert_eq!(status, 404, "{problem}");
    assert!(problem.contains("metrics.listen"), "{problem}");
    let announced: Value =
        serde_json::from_str(&fs::read_to_string(setup.state().join("daemon.json")).unwrap()).unwrap();
    let target = announced["metrics"].as_str().unwrap().to_owned();
    assert_eq!(scrape_at(&target).value("commits_total", "repository=\"documents\""), 1.0);
    let own = Api { address: target.clone(), token: String::new() };
    assert_eq!(own.raw("GET", "/api/v1/status", &[("Host", &target)], b"").status, 404);
    assert_eq!(own.raw("POST", "/metrics", &[("Host", &target)], b"").status, 405);

    let (config, address) = (setup.path("prometheus.yml"), free_address());
    let jobs = json!([{"job_name": "backupbot", "static_configs": [{"targets": [target]}]}]);
    let settings =
        json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs});
    fs::write(&config, settings.to_string()).unwrap();
    let log = fs::File::create(setup.path("prometheus.log")).unwrap();
    let _prometheus = Running(
        Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", setup.path("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let prometheus = Api { address: address.clone(), token: String::new() };
    let query = |query: &str| -> Option<Value> {
        let path = format!("/api/v1/query?query={query}");
        let answer = prometheus.try_raw("GET", &path, &[("Host", &address)], b"").ok()?;
        let results = (answer.status == 200).then(|| answer.json())?["data"]["result"].clone();
        results.as_array().filter(|results| !results.is_empty())?.first().cloned()
    };
    let pushed = eventually("Prometheus has the pushes", SOON, || {
        query("sum%20by%20(remote)%20(backupbot_pushes_total%7Bresult=%22success%22%7D)")
    });
    assert_eq!(pushed["metric"]["remote"], "usb", "{pushed}");
    assert_eq!(pushed["value"][1], "1", "{pushed}");
    let quantile = "histogram_quantile(0.9,backupbot_commit_duration_seconds_bucket)";
    let seconds = query(quantile).unwrap()["value"][1].as_str().unwrap().parse::<f64>().unwrap();
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    let age = query("time()-backupbot_last_success_timestamp_seconds").unwrap();
    assert!(age["value"][1].as_str().unwrap().parse::<f64>().unwrap() < 120.0, "{age}");
    let up = query("up%7Bjob=%22backupbot%22%7D").unwrap();
    assert_eq!(up["value"][1], "1", "{up}");
    daemon.stop();
}

#[test]
fn an_address_that_is_taken_is_named_and_the_admin_address_is_refused() {
    let mut setup = Setup::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    setup.config["metrics"] = json!({"listen": taken.local_addr().unwrap().to_string()});
    let ended = setup.run(&["run"]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("metrics.listen"), "{said}");

    setup.config["admin"]["listen"] = json!("127.0.0.1:9");
    setup.config["metrics"] = json!({"listen": "127.0.0.1:9"});
    let checked = setup.run(&["check"]);
    let said =
        String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.contains("metrics.listen") && said.contains("admin"), "{said}");
}

#[test]
fn a_thousand_scrapes_are_cheap_and_all_answered() {
    let setup = Setup::new();
    fs::write(setup.root().join("a"), "one").unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let before = cpu_ticks(&daemon);
    let began = std::time::Instant::now();
    let address = daemon.api().address;
    for _ in 0..1000 {
        assert_eq!(ask(&address).0, 200);
    }
    let spent = Duration::from_millis((cpu_ticks(&daemon) - before) * 10);
    println!("1000 scrapes: {:?}, {spent:?} of processor time", began.elapsed());
    // Each with a connection of its own and in a build without optimisation; the remembered text is what matters.
    assert!(spent < Duration::from_secs(5), "{spent:?}");
    daemon.stop();
}

/// User and system time, in hundredths of a second.
fn cpu_ticks(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn the_rules_for_prometheus_fire_when_they_should_and_ask_for_metrics_that_there_are() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/prometheus");
    for arguments in
        [["check", "rules", "backupbot.rules.yaml"], ["test", "rules", "backupbot.rules.test.yaml"]]
    {
        let checked = Command::new("promtool").args(arguments).current_dir(&directory).output().unwrap();
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert!(checked.status.success(), "{arguments:?}: {said}");
    }
    let rules = fs::read_to_string(directory.join("backupbot.rules.yaml")).unwrap();
    let documented = fs::read_to_string(directory.parent().unwrap().join("operations.md")).unwrap();
    let words = rules.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    let mut asked = 0;
    for name in words.filter_map(|word| word.strip_prefix("backupbot_")) {
        asked += 1;
        assert!(documented.contains(&format!("`{name}`")), "{name} is in the rules and in no table");
    }
    assert!(asked > 15, "{asked}");
}
