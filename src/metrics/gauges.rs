//! What is, at the moment of a scrape: from the board, the store and what the health checker published.
//!
//! What is not known has no series: a nought that nobody measured would hide trouble.
//! This blocks on the store.

use std::collections::BTreeMap;

use backupbot_actors::board::{Board, Check, ChildState, Condition, Moment, Subject};
use backupbot_actors::control::Control;
use backupbot_actors::lag;
use backupbot_actors::seat::RepositorySeat;
use backupbot_core::store::changes::SkipReason;
use metrics::{Unit, counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::logging::LOST;
use crate::status::{VERSION, revision};

/// What of ours may be found damaged and made anew.
const RECOVERIES: [&str; 3] = ["database", "repository", "file"];

/// Name without prefix, unit, help.
type Gauge = (&'static str, Unit, &'static str);

const GAUGES: [Gauge; 21] = [
    ("build_info", Unit::Count, "1, with the version as a label, and the revision if it is known."),
    ("process_start_time_seconds", Unit::Seconds, "When the process began, Unix time."),
    ("queue_depth", Unit::Count, "Paths that wait to be committed, those that cannot be read among them."),
    ("paused", Unit::Count, "1 while somebody has paused the repository."),
    (
        "encryption_in_the_way",
        Unit::Count,
        "1 while nothing is committed for want of a key, or because configuration and repository differ on encryption.",
    ),
    ("repository_size_bytes", Unit::Bytes, "Bytes of the repository here, counted every minute."),
    (
        "oldest_unprotected_seconds",
        Unit::Seconds,
        "For how long the oldest change that the remote lacks has been waiting; 0 if none.",
    ),
    (
        "last_success_timestamp_seconds",
        Unit::Seconds,
        "When the remote was last read back with what it should have, Unix time.",
    ),
    (
        "last_verified_timestamp_seconds",
        Unit::Seconds,
        "When what is here was last verified and found well, Unix time.",
    ),
    (
        "last_drill_timestamp_seconds",
        Unit::Seconds,
        "When a restore from the remote was last rehearsed and went well, Unix time.",
    ),
    (
        "lfs_used_bytes",
        Unit::Bytes,
        "Bytes of large contents at the remote: as its host counts them for the account, else those of the repository.",
    ),
    (
        "lfs_quota_bytes",
        Unit::Bytes,
        "Bytes that large contents may take there: the smaller of the configured quota and the host's.",
    ),
    ("remote_up", Unit::Count, "1 if the remote answered and let us in when it was last asked, else 0."),
    (
        "remote_diverged",
        Unit::Count,
        "1 while the remote's branch has, or lacks, what somebody else did to it.",
    ),
    (
        "token_expires_timestamp_seconds",
        Unit::Seconds,
        "When the token in use ends, where the server says so, Unix time.",
    ),
    (
        "watch_limited",
        Unit::Count,
        "1 while the root is not watched as a whole by events; the rest is polled or found by rescans.",
    ),
    (
        "files_skipped",
        Unit::Count,
        "Files of the root that are not protected in their present version, by reason.",
    ),
    (
        "config_valid",
        Unit::Count,
        "1 if what the configuration says was obeyed when it was last tried, else 0.",
    ),
    ("disk_free_bytes", Unit::Bytes, "Free bytes on the file system of the state directory."),
    ("actor_up", Unit::Count, "1 if every actor of the kind runs."),
    (
        "health",
        Unit::Count,
        "How the worst finding of each check is: 0 as it should be, 1 a warning, 2 failing.",
    ),
];

const COUNTERS: [Gauge; 3] = [
    ("actor_restarts_total", Unit::Count, "Runs of actors that were begun after the first, by kind."),
    ("log_records_lost_total", Unit::Count, "Log records that nobody can read, by reason."),
    ("state_recoveries_total", Unit::Count, "Times that state was found damaged and made anew, by kind."),
];

/// The text.
pub(super) fn render(control: &Control, started: Moment) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        for (name, unit, help) in GAUGES {
            metrics::describe_gauge!(prefixed(name), unit, help);
        }
        for (name, unit, help) in COUNTERS {
            metrics::describe_counter!(prefixed(name), unit, help);
        }
        process(started);
        log();
        let board = control.board();
        set("config_valid", &[], board.configuration().refused.is_none().into());
        for seat in &control.seats() {
            repository(board, seat);
            proofs(board, seat);
        }
        actors(board);
        health(board);
    });
    recorder.handle().render()
}

fn prefixed(name: &str) -> String {
    format!("backupbot_{name}")
}

/// No count here comes near 2^53.
fn set(name: &str, labels: &[(&'static str, String)], value: u64) {
    gauge!(prefixed(name), labels).set(value as f64);
}

fn set_moment(name: &str, labels: &[(&'static str, String)], at: Moment) {
    gauge!(prefixed(name), labels).set(at.unix_seconds() as f64);
}

fn process(started: Moment) {
    let mut build = vec![("version", VERSION.to_owned())];
    build.extend(revision().map(|revision| ("revision", revision.to_owned())));
    set("build_info", &build, 1);
    set_moment("process_start_time_seconds", &[], started);
}

fn repository(board: &Board, seat: &RepositorySeat) {
    let (name, now) = (&seat.settings.name, Moment::now());
    let own = [("repository", name.to_string())];
    if let Some(status) = board.repository(name) {
        set("queue_depth", &own, status.pending);
        set("paused", &own, status.paused.into());
        set("encryption_in_the_way", &own, status.is_encryption_in_the_way.into());
    }
    if let Some(bytes) = board.sizes().repositories.get(name) {
        set("repository_size_bytes", &own, *bytes);
    }
    // Where the store cannot be read, what the pushers said last is better than nothing.
    let lags = lag::of_repository(seat, now).unwrap_or_default();
    let published = board.remotes(name);
    for remote in &seat.settings.remotes {
        let labels = [("repository", name.to_string()), ("remote", remote.name.to_string())];
        let said = published.iter().find(|status| status.name == remote.name);
        let waits = said.map(|status| status.view(now).oldest_unprotected_seconds);
        let lag = lags.get(&remote.name);
        if let Some(seconds) = waits.max(lag.map(|lag| lag.unprotected_seconds)) {
            set("oldest_unprotected_seconds", &labels, seconds);
        }
        let success = lag.and_then(|lag| lag.last_success).max(said.and_then(|status| status.last_success));
        if let Some(at) = success {
            set_moment("last_success_timestamp_seconds", &labels, at);
        }
        if let Some(lag) = lag {
            set("remote_diverged", &labels, lag.is_diverged.into());
        }
        let reached = board.health_of(Check::RemoteReachable, &Subject::remote(name, &remote.name));
        if let Some(row) = reached {
            set("remote_up", &labels, (row.finding.state == Condition::Ok).into());
        }
        if let Some(lfs) = board.lfs(name, &remote.name) {
            set("lfs_used_bytes", &labels, lfs.used);
            if let Some(quota) = lfs.quota {
                set("lfs_quota_bytes", &labels, quota);
            }
        }
        if let Some(at) = said.and_then(|status| status.token_expires) {
            set_moment("token_expires_timestamp_seconds", &labels, at);
        }
    }
    for root in board.roots(name) {
        let labels = [("repository", name.to_string()), ("root", root.name.to_string())];
        set("watch_limited", &labels, root.watch_limited.is_some().into());
        for reason in SkipReason::ALL {
            let [repository, root_label] = labels.clone();
            let labels = [repository, root_label, ("reason", reason.as_str().to_owned())];
            let files = root.skipped_by_reason.get(reason.as_str()).copied().unwrap_or(0);
            set("files_skipped", &labels, files);
        }
    }
}

/// What the inspector found well.
fn proofs(board: &Board, seat: &RepositorySeat) {
    let name = &seat.settings.name;
    let moment = |gauge: &str, labels: &[(&'static str, String)], seconds: Option<i64>| {
        if let Some(at) = seconds.and_then(Moment::from_unix_seconds) {
            set_moment(gauge, labels, at);
        }
    };
    let own = ("repository", name.to_string());
    moment("last_verified_timestamp_seconds", std::slice::from_ref(&own), board.last_verified(name));
    for remote in &seat.settings.remotes {
        let labels = [own.clone(), ("remote", remote.name.to_string())];
        moment("last_drill_timestamp_seconds", &labels, board.last_drill(name, &remote.name));
    }
}

fn log() {
    let (too_slow, failed) = LOST.counts();
    for (reason, count) in [("too_slow", too_slow), ("failed", failed)] {
        counter!(prefixed("log_records_lost_total"), "reason" => reason).absolute(count);
    }
}

fn actors(board: &Board) {
    let mut up = BTreeMap::new();
    for child in board.children() {
        let all_run = up.entry(child.role).or_insert(true);
        *all_run &= child.state == ChildState::Running;
    }
    let restarts = board.restarts_by_role();
    for (role, all_run) in up {
        let times = restarts.get(&role).copied().unwrap_or(0);
        counter!(prefixed("actor_restarts_total"), "actor" => role.clone()).absolute(times);
        set("actor_up", &[("actor", role)], all_run.into());
    }
    let recoveries = board.recoveries();
    for kind in RECOVERIES {
        let times = recoveries.get(kind).copied().unwrap_or(0);
        counter!(prefixed("state_recoveries_total"), "kind" => kind).absolute(times);
    }
}

fn health(board: &Board) {
    if let Some(bytes) = board.sizes().disk_free {
        set("disk_free_bytes", &[], bytes);
    }
    let mut worst = BTreeMap::new();
    for row in board.health() {
        let state = worst.entry(row.finding.check).or_insert(row.finding.state);
        *state = row.finding.state.max(*state);
    }
    for (check, state) in worst {
        let number = match state {
            Condition::Ok => 0,
            Condition::Warning => 1,
            Condition::Failing => 2,
        };
        set("health", &[("check", check.as_str().to_owned())], number);
    }
}
