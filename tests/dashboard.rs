//! The dashboard for Grafana: each of its queries, asked of a real Prometheus and of VictoriaMetrics that scrape the real
//! program, finds what it is about.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::daemon::{Daemon, Setup};
use crate::support::helm::chart;
use crate::support::running::{Running, free_address};
use crate::support::tree::write;
use crate::support::{SOON, eventually, skip};

/// Metrics of what does not happen while a test runs: a query about them finds nothing, and still has to be a right one.
const NOTHING_OF: [&str; 1] = ["backupbot_token_expires_timestamp_seconds"];

/// Every query with the panel that it is of.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets
            .into_iter()
            .map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    dashboard["panels"].as_array().unwrap().iter().flat_map(of_panel).collect()
}

/// The query as Grafana asks it when everything is chosen.
fn filled_in(query: &str) -> String {
    let query = query.replace("$__rate_interval", "1m");
    ["$instance", "$repository", "$remote"].iter().fold(query, |query, name| query.replace(name, ".*"))
}

/// The names of metrics in it, without what histograms add.
fn metrics(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("backupbot_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A time series database that scrapes `target` each second.
struct Database {
    _process: Running,
    api: Api,
}

impl Database {
    fn start(setup: &Setup, name: &str, target: &str) -> Self {
        let (config, address) = (setup.path(&format!("{name}.yml")), free_address());
        let jobs = json!([{
            "job_name": "backupbot", "scrape_interval": "1s", "scrape_timeout": "1s",
            "static_configs": [{"targets": [target]}],
        }]);
        fs::write(&config, json!({"scrape_configs": jobs}).to_string()).unwrap();
        let (config, data) = (config.display().to_string(), setup.path(name).display().to_string());
        let arguments = match name {
            "prometheus" => [
                format!("--config.file={config}"),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
            ],
            _ => [
                format!("-promscrape.config={config}"),
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={address}"),
            ],
        };
        let log = fs::File::create(setup.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { _process: Running(command.spawn().unwrap()), api: Api { address, token: String::new() } }
    }

    /// The results, or why it refuses the query.
    fn ask(&self, query: &str) -> Result<Vec<Value>, String> {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        let answer = self.api.try_raw("GET", &path, &[("Host", &self.api.address)], b"");
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status {
            200 => Ok(answer.json()["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(answer.text()),
        }
    }
}

/// A program to which everything happened that the dashboard shows.
fn eventful(setup: &mut Setup) -> Daemon {
    setup.config["metrics"] = json!({"listen": "127.0.0.1:0"});
    setup.repository()["lfs"] = json!({"threshold": "10KiB"});
    setup.repository()["remotes"][0]["quota"] = json!("1GiB");
    write(&setup.root(), "small", "one");
    write(&setup.root(), "large", "x".repeat(20_000));
    let daemon = setup.start();
    daemon.api().flush();
    assert!(setup.run(&["verify"]).status.success());
    assert!(setup.run(&["drill"]).status.success());
    daemon
}

#[test]
fn every_query_of_the_dashboard_finds_what_it_is_about() {
    let text = fs::read_to_string(chart().join("dashboards/backupbot.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 40, "{}", queries.len());

    let mut setup = Setup::new();
    let daemon = eventful(&mut setup);
    let announced = fs::read_to_string(setup.state().join("daemon.json")).unwrap();
    let target = serde_json::from_str::<Value>(&announced).unwrap()["metrics"].as_str().unwrap().to_owned();
    let mut names = vec!["prometheus"];
    match Command::new("victoria-metrics").arg("-version").output() {
        Ok(_) => names.push("victoria-metrics"),
        Err(_) => skip("the dashboard on VictoriaMetrics: victoria-metrics is missing"),
    }
    let databases: Vec<Database> = names.iter().map(|name| Database::start(&setup, name, &target)).collect();
    // Something has to happen while they look, for rates to be of something.
    let (api, root) = (daemon.api(), setup.root());
    let (enough, ended) = std::sync::mpsc::channel::<()>();
    let changes = std::thread::spawn(move || {
        let mut number = 0;
        while ended.recv_timeout(Duration::from_millis(300)) == Err(RecvTimeoutError::Timeout) {
            number += 1;
            write(&root, "small", format!("{number}"));
            api.flush();
        }
    });
    for (name, database) in names.iter().zip(&databases) {
        for (panel, query) in &queries {
            let asked = filled_in(query);
            assert!(!asked.contains('$'), "{panel}: {asked}");
            let of_nothing = metrics(query).iter().any(|metric| NOTHING_OF.contains(&metric.as_str()))
                || query.trim_end().ends_with("== 0)")
                || query.trim_end().ends_with("== 1)");
            let what = format!("{name}, {panel}: {asked}");
            let found = eventually(&what, SOON, || match database.ask(&asked) {
                Ok(found) if found.is_empty() && !of_nothing => None,
                Ok(found) => Some(found),
                Err(error) if error.contains("parse") || error.contains("bad_data") => {
                    panic!("{what}: {error}")
                }
                Err(_) => None,
            });
            assert!(found.iter().all(|result| result["value"][1].is_string()), "{what}: {found:?}");
        }
    }
    drop(enough);
    changes.join().unwrap();
    daemon.stop();
}

#[test]
fn what_the_dashboard_asks_for_is_documented_and_all_that_is_documented_is_shown() {
    let text = fs::read_to_string(chart().join("dashboards/backupbot.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut asked: BTreeSet<String> =
        queries(&dashboard).iter().flat_map(|(_, query)| metrics(query)).collect();
    asked = asked.iter().map(|name| name.trim_start_matches("backupbot_").to_owned()).collect();
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let (_, after) = manual.split_once("\n| Metric |").or_else(|| manual.split_once("\n| metric |")).unwrap();
    let (table, _) = after.split_once("\n\n").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert!(documented.len() > 30, "{documented:?}");
    assert_eq!(asked, documented);
    // One file for the chart and for who imports it by hand; Grafana keeps what it is told of.
    assert_eq!(dashboard["uid"], "backupbot");
    let ids: BTreeSet<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
}
