//! Scrapes of `/metrics`, taken apart.

use std::collections::BTreeMap;

use super::api::Api;
use super::daemon::Daemon;
use super::{SOON, eventually};

/// One scrape: series with its labels, and value.
pub struct Scrape {
    pub text: String,
    pub series: BTreeMap<String, f64>,
}

/// Status, type and text of one.
pub fn ask(address: &str) -> (u16, Option<String>, String) {
    let api = Api { address: address.to_owned(), token: String::new() };
    let answer = api.raw("GET", "/metrics", &[("Host", "prometheus.example.org")], b"");
    (answer.status, answer.header("content-type").map(str::to_owned), answer.text())
}

/// One scrape, which must succeed.
pub fn scrape_at(address: &str) -> Scrape {
    let (status, kind, text) = ask(address);
    assert_eq!(status, 200, "{text}");
    assert_eq!(kind.as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?} has no number")))
    });
    let series = series.collect();
    Scrape { text, series }
}

impl Scrape {
    /// Of a running program, at its admin address.
    pub fn of(daemon: &Daemon) -> Self {
        scrape_at(&daemon.api().address)
    }

    /// The value of `backupbot_<name>{<labels>}`, if there is such a series.
    pub fn get(&self, name: &str, labels: &str) -> Option<f64> {
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.series.get(&format!("backupbot_{name}{braces}")).copied()
    }

    pub fn value(&self, name: &str, labels: &str) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no backupbot_{name}{{{labels}}}:\n{}", self.text))
    }

    /// The sum over all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        let (bare, labelled) = (format!("backupbot_{name}"), format!("backupbot_{name}{{"));
        let of_name = |series: &str| series == bare || series.starts_with(&labelled);
        self.series.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }
}

/// Scrapes until something holds.
pub fn scrape_when(daemon: &Daemon, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut last = String::new();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(what, SOON, || {
            let scrape = Scrape::of(daemon);
            last.clone_from(&scrape.text);
            holds(&scrape).then_some(scrape)
        })
    }));
    found.unwrap_or_else(|_| panic!("{what}; the last scrape was\n{last}"))
}
