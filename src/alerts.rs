//! What somebody should look at: the rules, from what the tree published and the store remembers.
//!
//! The same rules answer `status`, the API and the alarm that sends messages. An alert says what is wrong and what to do; its
//! name and subject stay the same as long as it lasts.

mod large;

use std::path::Path;

use backupbot_actors::alarm::Known;
use backupbot_actors::board::{ConfigurationStatus, HealthRow, Moment, Recovered, RemoteState};
use backupbot_actors::control::Control;
use backupbot_core::alert::{self, Condition};
use backupbot_core::config::{Alerts, Config};
use backupbot_core::disk::Room;
use backupbot_core::inspect::drills::Drilled;
use backupbot_core::inspect::verified::Verified;
use backupbot_core::names::{RemoteName, RepositoryName};
use backupbot_core::store::StoreReader;
use backupbot_core::store::remotes::PushRecord;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::files::shown;
use crate::health;
use crate::output::quoted;
use crate::spans;
use crate::status::{self, RepositoryAnswer, RootStanding, place};

/// Failures are a share of something only if so many pushes were tried.
const FEWEST_PUSHES: usize = 4;
/// Pushes looked at for it, at most.
const MOST_PUSHES: usize = 200;
/// Pushes that count for the share.
const RECENT_MS: i64 = 3600 * 1000;

/// How urgent an alert is; the order is that of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something is not protected, or will not be.
    Critical,
    /// It may become so.
    Warning,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// The kind, the same word each time.
    pub name: String,
    /// What it is about: a repository, `repository/remote`, `repository/root`. Empty: the whole installation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// How urgent.
    pub severity: Severity,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Moment>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Alert {
    pub(crate) fn new(name: &str, severity: Severity, message: String) -> Self {
        Self { name: name.to_owned(), subject: String::new(), severity, since: None, message }
    }

    /// What it is about.
    pub(crate) fn of(self, subject: impl std::fmt::Display) -> Self {
        Self { subject: subject.to_string(), ..self }
    }

    pub(crate) fn since(self, since: Option<Moment>) -> Self {
        Self { since, ..self }
    }

    /// Little is free where the state is; `None` while there is enough, or where the file system does not say.
    pub fn disk_low(state_dir: &Path, limits: &Alerts) -> Option<Self> {
        let free = Room::of(state_dir).ok()?.bytes.filter(|free| *free < limits.disk_free)?;
        let text = format!(
            "the file system of {} has {} free; commits stop when the next one does not fit: make room there",
            shown(state_dir),
            ByteSize(free)
        );
        Some(Self::new("disk_low", Severity::Warning, text))
    }

    /// As the alarm takes it.
    pub fn condition(&self) -> Condition {
        Condition {
            name: self.name.clone(),
            subject: self.subject.clone(),
            severity: match self.severity {
                Severity::Critical => alert::Severity::Critical,
                Severity::Warning => alert::Severity::Warning,
            },
            message: self.message.clone(),
            since_ms: self.since.map(|since| since.unix_seconds().saturating_mul(1000)),
        }
    }

    /// What the configuration's file says was not obeyed.
    pub fn config_invalid(status: &ConfigurationStatus) -> Option<Self> {
        let refused = status.refused.as_ref()?;
        let text = format!(
            "the configuration was not reloaded, the former one stays in force: {}; it is tried again when it changes",
            refused.reason
        );
        Some(Self::new("config_invalid", Severity::Warning, text).since(Some(refused.since)))
    }

    /// The state database or a repository was damaged and made anew.
    pub fn state_recovered(recovered: &Recovered) -> Self {
        Self::new("state_recovered", Severity::Warning, recovered.words.clone())
            .of(recovered.kind)
            .since(Some(recovered.at))
    }
}

/// How much was wrong, in words.
fn things(problems: u64) -> String {
    let things = if problems == 1 { "thing was" } else { "things were" };
    format!("{problems} {things} wrong")
}

/// What was wrong, and how to see it.
fn finding(verified: &Verified) -> String {
    let remote =
        verified.remote.as_ref().map(|remote| format!(" --remote {}", quoted(remote))).unwrap_or_default();
    format!(
        "{} when {} was verified: `backupbot verify --repository {}{remote}` names what",
        things(verified.problems),
        place(verified),
        quoted(&verified.repository)
    )
}

fn drill_finding(drilled: &Drilled) -> String {
    let first = drilled.named.first().map(|first| format!(" ({first})")).unwrap_or_default();
    format!(
        "{}{first} when a restore from remote {} was rehearsed: `backupbot drill --repository {} --remote {} --whole` \
         names what",
        things(drilled.problems),
        drilled.remote,
        quoted(&drilled.repository),
        quoted(&drilled.remote)
    )
}

/// How everything stands, as the running daemon knows it.
pub struct Looked {
    /// By configuration order.
    pub repositories: Vec<RepositoryAnswer>,
    /// What the health checker found.
    pub health: Vec<HealthRow>,
    /// What somebody should look at, critical first.
    pub alerts: Vec<Alert>,
}

/// Looks at everything. This blocks on the store and the disk.
pub fn look(control: &Control, reader: &StoreReader, config: &Config, known: &Known) -> Looked {
    let (limits, now) = (&config.alerts, Moment::now());
    let repositories = status::of_daemon(control);
    let halted = |repository: &_, remote: &_| status::halted_since(reader, repository, remote).ok().flatten();
    let mut alerts = of_repositories(&repositories, limits, now, halted);
    for repository in &repositories {
        let name = &repository.status.name;
        for remote in &repository.remotes {
            // What cannot be read now is no failure of the remote.
            let attempts = reader.push_history(name, &remote.name, MOST_PUSHES).unwrap_or_default();
            alerts.extend(failing(name, &remote.name, &attempts, limits, now));
        }
        let size = control.board().sizes().repositories.get(name).copied();
        alerts.extend(large(name, size, config.limits.repository_size));
    }
    alerts.extend(Alert::disk_low(control.state_dir(), limits));
    alerts.extend(control.board().latest_recoveries().iter().map(Alert::state_recovered));
    let health = control.board().health();
    alerts.extend(health::alerts(&health, &repositories, now));
    alerts.extend(control.audit().trouble().map(|trouble| {
        let text = format!("the audit log is not written: {trouble}; make room, or look at its disk");
        Alert::new("audit_stopped", Severity::Warning, text)
    }));
    alerts.extend(known.unreached().into_iter().map(|(receiver, why)| {
        let text = format!("{receiver} is not told of alerts: {why}; try it with `backupbot alerts test`");
        Alert::new("notify_failed", Severity::Warning, text).of(receiver)
    }));
    alerts.extend(Alert::config_invalid(&control.board().configuration()));
    alerts.sort_by_key(|alert| alert.severity);
    Looked { repositories, health, alerts }
}

/// More pushes than allowed failed within the last hour.
fn failing(
    repository: &RepositoryName,
    remote: &RemoteName,
    attempts: &[PushRecord],
    limits: &Alerts,
    now: Moment,
) -> Option<Alert> {
    let since_ms = now.unix_seconds().saturating_mul(1000).saturating_sub(RECENT_MS);
    let recent: Vec<&PushRecord> = attempts.iter().filter(|attempt| attempt.at_ms >= since_ms).collect();
    let failed = recent.iter().filter(|attempt| attempt.error.is_some()).count();
    let share = failed as f64 / recent.len().max(1) as f64;
    (recent.len() >= FEWEST_PUSHES && share > limits.failure_rate).then(|| {
        let text = format!(
            "{repository}: {failed} of {} pushes to remote {remote} failed within an hour; `backupbot remote test {}` \
             tells more",
            recent.len(),
            quoted(remote.as_str())
        );
        Alert::new("push_failing", Severity::Warning, text).of(format!("{repository}/{remote}"))
    })
}

/// A repository is larger than it should be.
fn large(name: &RepositoryName, size: Option<u64>, limit: u64) -> Option<Alert> {
    let size = size.filter(|size| *size > limit)?;
    let text = format!(
        "{name}: the repository takes {}, more than {} (limits.repository_size); hosts may refuse it, and clones take \
         long: exclude what is large and changes often, or raise the limit",
        ByteSize(size),
        ByteSize(limit)
    );
    Some(Alert::new("repository_large", Severity::Warning, text).of(name))
}

/// What somebody should look at. `halted_since` is asked for halted remotes only.
pub fn of_repositories(
    repositories: &[RepositoryAnswer],
    limits: &Alerts,
    now: Moment,
    halted_since: impl Fn(&RepositoryName, &RemoteName) -> Option<Moment>,
) -> Vec<Alert> {
    let mut alerts = Vec::new();
    for repository in repositories {
        let name = &repository.status.name;
        for root in repository.roots.iter().filter(|root| root.state == RootStanding::Unavailable) {
            let reason = root.reason.as_deref().unwrap_or("it cannot be looked at");
            let text = format!("{name}: root {} is unavailable: {reason}", root.name);
            alerts.push(
                Alert::new("root_unavailable", Severity::Critical, text).of(format!("{name}/{}", root.name)),
            );
        }
        for remote in &repository.remotes {
            let place = format!("{name}/{}", remote.name);
            if remote.state == RemoteState::Halted {
                let reason = remote.reason.as_deref().unwrap_or("it waits for somebody");
                let text = format!("{name}: remote {} is halted: {reason}", remote.name);
                let since = halted_since(name, &remote.name);
                alerts.push(Alert::new("remote_halted", Severity::Critical, text).of(&place).since(since));
            }
            let waits = remote.oldest_unprotected_seconds;
            if waits > limits.stale_after.as_secs() {
                let text = format!(
                    "{name}: remote {} lacks changes that are {} old",
                    remote.name,
                    spans::in_words(waits)
                );
                let since = i64::try_from(waits)
                    .ok()
                    .and_then(|waits| Moment::from_unix_seconds(now.unix_seconds() - waits));
                alerts.push(Alert::new("remote_stale", Severity::Critical, text).of(&place).since(since));
            }
            alerts.extend(remote.lfs.as_ref().and_then(|lfs| large::room(name, &remote.name, lfs)));
        }
        if let Some(quarantine) = &repository.status.guard.quarantine {
            let text = format!("{name}: {}", quarantine.message);
            let since = quarantine.found.since;
            alerts.push(Alert::new("mass_change", Severity::Critical, text).of(name).since(since));
        }
        if let Some(found) = &repository.status.guard.mass_change {
            let text = format!(
                "{name}: in root {} {} of {} files ({} %) were deleted or rewritten; every version before is kept; if \
                 that was not meant: `backupbot pause`, and `backupbot restore`",
                found.root, found.lost, found.of, found.percent
            );
            alerts.push(Alert::new("mass_change", Severity::Warning, text).of(name).since(found.since));
        }
        if let Some(trouble) = &repository.status.trouble {
            let text = format!("{name}: no commit can be made: {trouble}");
            let what =
                if repository.status.is_encryption_in_the_way { "encryption" } else { "commit_failed" };
            alerts.push(Alert::new(what, Severity::Critical, text).of(name));
        }
        for verified in repository.verified.iter().filter(|verified| verified.problems > 0) {
            let text = format!("{name}: {}", finding(verified));
            let remote = verified.remote.as_ref().map_or_else(String::new, |remote| format!("/{remote}"));
            let alert = Alert::new("verify_failed", Severity::Critical, text).of(format!("{name}{remote}"));
            alerts.push(alert.since(Some(verified.at)));
        }
        for drilled in repository.bad_drills() {
            let text = format!("{name}: {}", drill_finding(drilled));
            let alert = Alert::new("verify_failed", Severity::Critical, text);
            alerts.push(alert.of(format!("{name}/{} drill", drilled.remote)).since(Some(drilled.at)));
        }
        alerts.extend(repository.scrubs.iter().filter_map(|scrubbed| large::damaged(name, scrubbed)));
        if repository.remotes.is_empty() {
            let text = format!("{name}: no remote is configured, so nothing leaves this machine");
            alerts.push(Alert::new("no_remote", Severity::Warning, text).of(name));
        }
        if repository.status.pending > limits.backlog {
            let text = format!("{name}: {} paths wait to be committed", repository.status.pending);
            alerts.push(Alert::new("backlog", Severity::Warning, text).of(name));
        }
    }
    alerts.sort_by_key(|alert| alert.severity);
    alerts
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::status::tests::{drilled, healthy, verified};

    pub fn names(repository: RepositoryAnswer) -> Vec<String> {
        let now = Moment::from_unix_seconds(1_100_000).unwrap();
        let halted = |_: &RepositoryName, _: &RemoteName| Moment::from_unix_seconds(7);
        let found = of_repositories(&[repository], &Alerts::default(), now, halted);
        found.into_iter().map(|alert| alert.name).collect()
    }

    #[test]
    fn what_is_well_raises_nothing() {
        assert!(names(healthy()).is_empty());
    }

    #[test]
    fn what_a_verification_found_is_critical_and_what_speaks_of_others_is_left_out() {
        let mut repository = healthy();
        let elsewhere = Verified { remote: Some("sold".to_owned()), ..verified(1) };
        let of_another = Verified { repository: "photos".to_owned(), ..verified(1) };
        repository.take_verified(&[elsewhere, of_another, verified(0)]);
        assert_eq!(repository.verified, [verified(0)]);
        assert!(names(repository.clone()).is_empty());
        repository.take_verified(&[verified(2)]);
        assert_eq!(names(repository), ["verify_failed"]);
    }

    #[test]
    fn what_a_drill_found_is_critical_until_it_is_known_to_be_well() {
        let mut repository = healthy();
        repository.take_drills(&[drilled(1, 0), Drilled { remote: "sold".to_owned(), ..drilled(2, 1) }]);
        assert_eq!(repository.drills, [drilled(1, 0)]);
        assert!(names(repository.clone()).is_empty());
        repository.take_drills(&[drilled(1, 2), drilled(2, 0)]);
        assert_eq!(repository.drills, [drilled(2, 0), drilled(1, 2)], "another lot was lucky");
        assert_eq!(names(repository.clone()), ["verify_failed"]);
        let well = Drilled { seed: Some(1), ..drilled(3, 0) };
        repository.take_drills(&[drilled(1, 2), well]);
        assert!(names(repository).is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_critical_things_first() {
        let mut repository = healthy();
        repository.status.pending = 10_001;
        repository.roots[0].state = RootStanding::Unavailable;
        repository.remotes[0].state = RemoteState::Halted;
        repository.remotes[0].oldest_unprotected_seconds = 6 * 3600 + 1;
        assert_eq!(names(repository), ["root_unavailable", "remote_halted", "remote_stale", "backlog"]);
        assert_eq!(names(RepositoryAnswer { remotes: Vec::new(), ..healthy() }), ["no_remote"]);
    }

    #[test]
    fn little_room_is_a_warning_and_enough_is_none() {
        let limits = |disk_free| Alerts { disk_free, ..Alerts::default() };
        let scratch = tempfile::tempdir().unwrap();
        let alert = Alert::disk_low(scratch.path(), &limits(u64::MAX)).unwrap();
        assert_eq!(alert.severity, Severity::Warning);
        assert!(alert.message.contains("make room"), "{}", alert.message);
        assert_eq!(Alert::disk_low(scratch.path(), &limits(0)), None);
        assert_eq!(Alert::disk_low(Path::new("/no/such/place"), &limits(u64::MAX)), None);
    }

    #[test]
    fn a_remote_is_stale_only_after_the_time_given() {
        let mut repository = healthy();
        repository.remotes[0].state = RemoteState::Backoff;
        repository.remotes[0].oldest_unprotected_seconds = 6 * 3600;
        assert!(names(repository).is_empty());
    }

    #[test]
    fn pushes_that_fail_are_a_warning_only_if_there_were_enough_and_lately() {
        let (documents, usb) = (RepositoryName::new("documents").unwrap(), RemoteName::new("usb").unwrap());
        let now = Moment::from_unix_seconds(1_000_000).unwrap();
        let attempt = |age_seconds: i64, failed: bool| PushRecord {
            at_ms: (1_000_000 - age_seconds) * 1000,
            took_ms: 1,
            commit: [0; 20],
            objects: 0,
            bytes: 0,
            error: failed.then(|| "no route".to_owned()),
        };
        let failing = |attempts: &[PushRecord]| failing(&documents, &usb, attempts, &Alerts::default(), now);
        let (bad, good, old) = (attempt(10, true), attempt(20, false), attempt(3601, true));
        assert_eq!(failing(&[]), None);
        assert_eq!(failing(&[bad.clone(), bad.clone(), bad.clone()]), None, "three are too few");
        assert_eq!(failing(&[bad.clone(), bad.clone(), good.clone(), good.clone()]), None, "half is allowed");
        assert_eq!(failing(&[old.clone(), old, bad.clone(), bad.clone(), good.clone()]), None, "an hour ago");
        let alert = failing(&[bad.clone(), bad.clone(), bad, good]).unwrap();
        assert_eq!((alert.name.as_str(), alert.subject.as_str()), ("push_failing", "documents/usb"));
        assert!(alert.message.contains("3 of 4"), "{}", alert.message);
    }

    #[test]
    fn a_repository_is_large_only_beyond_its_limit() {
        let name = RepositoryName::new("documents").unwrap();
        assert_eq!(large(&name, None, 10), None);
        assert_eq!(large(&name, Some(10), 10), None);
        assert_eq!(large(&name, Some(11), 10).unwrap().name, "repository_large");
    }
}
