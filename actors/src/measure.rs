//! What happens, counted and timed where it happens: the counters and histograms of `/metrics`.
//!
//! In go names of the configuration and words of closed lists, never paths or anybody's texts, so the number of series
//! follows from the configuration alone. [`begin`] makes every series of a repository at zero, because a counter that
//! appears with its first event hides that event from whoever computes its increase. What *is* (queues, ages, states) is
//! no business of this file: it is read from the board when somebody asks (`src/metrics`). Without a recorder, as in
//! commands that only look, all this does nothing.

use std::time::Duration;

use backupbot_core::audit::Event;
use backupbot_core::config::Repository;
use backupbot_core::push::tally::{FAILURES, Tally};
use metrics::{counter, histogram};

/// A metric's kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Only grows.
    Counter,
    /// With these upper bounds, in seconds.
    Histogram(&'static [f64]),
}

/// A metric, as it is described to who reads it.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// With the prefix.
    pub name: &'static str,
    /// What kind.
    pub shape: Shape,
    /// One sentence.
    pub help: &'static str,
}

const FILES: &str = "backupbot_files_committed_total";
const COMMITS: &str = "backupbot_commits_total";
const COMMIT_SECONDS: &str = "backupbot_commit_duration_seconds";
const PUSHES: &str = "backupbot_pushes_total";
const PUSH_SECONDS: &str = "backupbot_push_duration_seconds";
const RETRIES: &str = "backupbot_push_retries_total";
const PUSH_FAILURES: &str = "backupbot_push_failures_total";
const DETECTION_SECONDS: &str = "backupbot_detection_seconds";
const OVERFLOWS: &str = "backupbot_watch_overflows_total";
const RESCANS: &str = "backupbot_rescans_total";
const TORN: &str = "backupbot_torn_reads_total";
const RELOADS: &str = "backupbot_config_reloads_total";
const RESTORES: &str = "backupbot_restore_total";
const LFS_UPLOADED: &str = "backupbot_lfs_uploaded_bytes_total";
const LFS_FAILURES: &str = "backupbot_lfs_verify_failures_total";

/// A commit is a matter of moments, of minutes where files are large.
const COMMIT_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// A first push may take hours.
const PUSH_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0];
/// Around the default debounce (10 s, at most 30 s) and the minute that is promised.
const DETECTION_BUCKETS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0];

/// All of them.
pub const EVENTS: [Described; 15] = [
    of(FILES, Shape::Counter, "Files and links, new or changed, that went into commits."),
    of(COMMITS, Shape::Counter, "Commits made."),
    of(
        COMMIT_SECONDS,
        Shape::Histogram(COMMIT_BUCKETS),
        "Seconds from taking changed paths from the queue to a commit on the branch.",
    ),
    of(PUSHES, Shape::Counter, "Attempts to bring a remote up to date, by result."),
    of(
        PUSH_SECONDS,
        Shape::Histogram(PUSH_BUCKETS),
        "Seconds of each attempt to bring a remote up to date, whatever came of it.",
    ),
    of(RETRIES, Shape::Counter, "Attempts that followed a failed one."),
    of(PUSH_FAILURES, Shape::Counter, "Failed attempts to bring a remote up to date, by reason."),
    of(
        DETECTION_SECONDS,
        Shape::Histogram(DETECTION_BUCKETS),
        "Seconds from the first event of a changed path to its place in the queue; of paths queued together the longest.",
    ),
    of(
        OVERFLOWS,
        Shape::Counter,
        "Times that the system lost events of a root, which was compared as a whole then.",
    ),
    of(RESCANS, Shape::Counter, "Comparisons of a whole root that were begun, by reason."),
    of(TORN, Shape::Counter, "Files that changed while they were read, and were read again later."),
    of(RELOADS, Shape::Counter, "Attempts to obey a changed configuration without a restart, by result."),
    of(
        RESTORES,
        Shape::Counter,
        "Restores that ended, of the API and of commands that wrote into this audit log, by result; no dry runs.",
    ),
    of(LFS_UPLOADED, Shape::Counter, "Bytes of large contents that were uploaded to the remote by pushes."),
    of(
        LFS_FAILURES,
        Shape::Counter,
        "Large contents that a scrub found lost or damaged at the remote, whether they could be put right or not.",
    ),
];

const fn of(name: &'static str, shape: Shape, help: &'static str) -> Described {
    Described { name, shape, help }
}

/// Why a root is compared as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescan {
    /// The watcher began.
    Start,
    /// The root was gone and is back.
    Returned,
    /// Events were lost.
    Overflow,
    /// `rescan` has passed.
    Schedule,
    /// Somebody asked: a flush where nobody watches, or one with `rescan`.
    Request,
    /// So many paths changed that one walk is less work.
    Coarsened,
    /// What is recorded cannot be relied on: a commit ended half way, or the cache was lost.
    Recovery,
}

impl Rescan {
    const ALL: [Self; 7] = [
        Self::Start,
        Self::Returned,
        Self::Overflow,
        Self::Schedule,
        Self::Request,
        Self::Coarsened,
        Self::Recovery,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Returned => "returned",
            Self::Overflow => "overflow",
            Self::Schedule => "schedule",
            Self::Request => "request",
            Self::Coarsened => "coarsened",
            Self::Recovery => "recovery",
        }
    }
}

/// What an attempt to obey a changed configuration came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is in force.
    Applied,
    /// It says the same as the one in force.
    Unchanged,
    /// It has mistakes, cannot be read, or changes what only a restart can.
    Refused,
    /// Nothing is wrong with it, and it could not be obeyed.
    Failed,
}

impl Reload {
    const ALL: [Self; 4] = [Self::Applied, Self::Unchanged, Self::Refused, Self::Failed];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Makes the series of reloads, at zero.
pub fn begin_reloads() {
    Reload::ALL.into_iter().for_each(|result| reloads(result, 0));
}

/// An attempt to obey a changed configuration is over.
pub fn reloaded(result: Reload) {
    reloads(result, 1);
}

fn reloads(result: Reload, times: u64) {
    counter!(RELOADS, "result" => result.as_str()).increment(times);
}

/// What became of a restore: the results of its last line in the audit log, and the labels.
const RESTORED: [(&str, &str); 5] = [
    ("ok", "success"),
    ("incomplete", "incomplete"),
    ("cancelled", "cancelled"),
    ("interrupted", "interrupted"),
    ("failed", "failure"),
];

/// Makes the series of restores, at zero.
pub fn begin_restores() {
    RESTORED.into_iter().for_each(|(_, label)| restores(label, 0));
}

/// Counts the line if it says what became of a restore: so one that a command made counts as one of the API does.
pub fn restored(line: &Event) {
    let label = RESTORED.into_iter().find(|(result, _)| *result == line.result);
    if let Some((_, label)) = label.filter(|_| line.what == "restore") {
        restores(label, 1);
    }
}

fn restores(result: &'static str, times: u64) {
    counter!(RESTORES, "result" => result).increment(times);
}

/// Makes every series of a repository, at zero.
pub fn begin(settings: &Repository) {
    let repository = settings.name.to_string();
    for name in [FILES, COMMITS, TORN] {
        counter!(name, "repository" => repository.clone()).increment(0);
    }
    let _ = histogram!(COMMIT_SECONDS, "repository" => repository.clone());
    for remote in &settings.remotes {
        let labels = [("repository", repository.clone()), ("remote", remote.name.to_string())];
        counter!(RETRIES, &labels).increment(0);
        counter!(LFS_UPLOADED, &labels).increment(0);
        counter!(LFS_FAILURES, &labels).increment(0);
        let _ = histogram!(PUSH_SECONDS, &labels);
        for result in ["success", "failure"] {
            pushes(&repository, remote.name.as_str(), result, 0);
        }
        for reason in FAILURES {
            failures(&repository, remote.name.as_str(), reason, 0);
        }
    }
    for root in &settings.roots {
        let labels = [("repository", repository.clone()), ("root", root.name.to_string())];
        counter!(OVERFLOWS, &labels).increment(0);
        let _ = histogram!(DETECTION_SECONDS, &labels);
        for reason in Rescan::ALL {
            rescans(&repository, root.name.as_str(), reason, 0);
        }
    }
}

/// The branch moved; so many files went in.
pub fn committed(repository: &str, files: u64) {
    counter!(COMMITS, "repository" => repository.to_owned()).increment(1);
    counter!(FILES, "repository" => repository.to_owned()).increment(files);
}

/// From the rows to the branch.
pub fn commit_took(repository: &str, took: Duration) {
    histogram!(COMMIT_SECONDS, "repository" => repository.to_owned()).record(took.as_secs_f64());
}

/// A batch met files that changed under its eyes.
pub fn torn_reads(repository: &str, files: u64) {
    counter!(TORN, "repository" => repository.to_owned()).increment(files);
}

/// An attempt ended. A look that found a remote up to date is none.
pub fn push_ended(repository: &str, remote: &str, tally: &Tally, took: Duration) {
    if !tally.is_event {
        return;
    }
    let labels = [("repository", repository.to_owned()), ("remote", remote.to_owned())];
    histogram!(PUSH_SECONDS, &labels).record(took.as_secs_f64());
    if tally.is_retry {
        counter!(RETRIES, &labels).increment(1);
    }
    pushes(repository, remote, if tally.failure.is_some() { "failure" } else { "success" }, 1);
    if let Some(reason) = tally.failure {
        failures(repository, remote, reason, 1);
    }
}

/// Large contents were uploaded.
pub fn lfs_uploaded(repository: &str, remote: &str, bytes: u64) {
    let labels = [("repository", repository.to_owned()), ("remote", remote.to_owned())];
    counter!(LFS_UPLOADED, &labels).increment(bytes);
}

/// A scrub found large contents lost or damaged.
pub fn lfs_verify_failed(repository: &str, remote: &str, contents: u64) {
    let labels = [("repository", repository.to_owned()), ("remote", remote.to_owned())];
    counter!(LFS_FAILURES, &labels).increment(contents);
}

/// Paths are durably queued; the first event of them was so long ago.
pub fn detected(repository: &str, root: &str, held: Duration) {
    histogram!(DETECTION_SECONDS, "repository" => repository.to_owned(), "root" => root.to_owned())
        .record(held.as_secs_f64());
}

/// The system lost events.
pub fn overflowed(repository: &str, root: &str) {
    counter!(OVERFLOWS, "repository" => repository.to_owned(), "root" => root.to_owned()).increment(1);
}

/// A whole root is to be compared.
pub fn rescan(repository: &str, root: &str, reason: Rescan) {
    rescans(repository, root, reason, 1);
}

fn rescans(repository: &str, root: &str, reason: Rescan, times: u64) {
    counter!(RESCANS, "repository" => repository.to_owned(), "root" => root.to_owned(), "reason" => reason.as_str())
        .increment(times);
}

fn pushes(repository: &str, remote: &str, result: &'static str, times: u64) {
    counter!(PUSHES, "repository" => repository.to_owned(), "remote" => remote.to_owned(), "result" => result)
        .increment(times);
}

fn failures(repository: &str, remote: &str, reason: &'static str, times: u64) {
    counter!(PUSH_FAILURES, "repository" => repository.to_owned(), "remote" => remote.to_owned(), "reason" => reason)
        .increment(times);
}
