//! What the health checker found, as alerts and as a line of the status page.
//!
//! Room and lag have alerts of their own, which ask at the moment of the answer. How a root is watched and that the clock
//! was set are for people who look, and wake nobody: what they lead to is found by comparing.

use backupbot_actors::board::{Check, Condition, HealthRow, Moment, RemoteState, Subject};

use crate::alerts::{Alert, Severity};
use crate::spans;
use crate::status::RepositoryAnswer;

/// A remote that does not answer for so long is worth a warning: reboots and reconnections are over by then.
const UNREACHABLE_AFTER_SECONDS: u64 = 15 * 60;

/// What somebody should look at.
pub fn alerts(health: &[HealthRow], repositories: &[RepositoryAnswer], now: Moment) -> Vec<Alert> {
    let bad = health.iter().filter(|row| row.finding.state > Condition::Ok);
    bad.filter_map(|row| alert(row, repositories, now)).collect()
}

fn alert(row: &HealthRow, repositories: &[RepositoryAnswer], now: Moment) -> Option<Alert> {
    let (name, severity) = match row.finding.check {
        Check::StateIntegrity => ("state_damaged", Severity::Critical),
        Check::RemoteReachable => {
            let is_long = now.seconds_since(row.since) >= UNREACHABLE_AFTER_SECONDS;
            if !is_long || is_halted(&row.finding.subject, repositories) {
                return None;
            }
            ("remote_unreachable", Severity::Warning)
        }
        Check::LastSuccess | Check::DiskSpace | Check::WatchLimits | Check::Clock => return None,
    };
    let remedy = row.finding.remedy.as_deref().map_or_else(String::new, |remedy| format!("; {remedy}"));
    let text = format!("{}: {}{remedy}", place(&row.finding.subject), row.finding.message);
    Some(Alert::new(name, severity, text).of(of(&row.finding.subject)).since(Some(row.since)))
}

/// A halt is an alert already.
fn is_halted(subject: &Subject, repositories: &[RepositoryAnswer]) -> bool {
    let of_it = |repository: &&RepositoryAnswer| Some(&repository.status.name) == subject.repository.as_ref();
    repositories
        .iter()
        .filter(of_it)
        .flat_map(|repository| &repository.remotes)
        .any(|remote| Some(&remote.name) == subject.remote.as_ref() && remote.state == RemoteState::Halted)
}

/// The same in one word.
fn of(subject: &Subject) -> String {
    let parts = [
        subject.repository.as_ref().map(ToString::to_string),
        subject.remote.as_ref().map(ToString::to_string),
        subject.root.as_ref().map(ToString::to_string),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

fn place(subject: &Subject) -> String {
    let repository = subject.repository.as_ref().map_or("this machine", |name| name.as_str());
    match (&subject.remote, &subject.root) {
        (Some(remote), _) => format!("{repository}: remote {remote}"),
        (None, Some(root)) => format!("{repository}: root {root}"),
        (None, None) => repository.to_owned(),
    }
}

/// One line for the page, and what to do; nothing if nobody checked.
pub fn lines(health: &[HealthRow], now: Moment) -> Vec<(String, Option<String>)> {
    if health.is_empty() {
        return Vec::new();
    }
    let bad: Vec<&HealthRow> = health.iter().filter(|row| row.finding.state > Condition::Ok).collect();
    if bad.is_empty() {
        return vec![(format!("health: {} checks, nothing found", health.len()), None)];
    }
    bad.iter()
        .map(|row| {
            let state = if row.finding.state == Condition::Failing { "FAILING" } else { "warning" };
            let (place, check) = (place(&row.finding.subject), row.finding.check.as_str());
            let ago = spans::in_words(now.seconds_since(row.since));
            let line = format!("health: {place}: {check}: {state} for {ago}: {}", row.finding.message);
            (line, row.finding.remedy.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::healthy;
    use backupbot_actors::board::Finding;
    use backupbot_core::names::{RemoteName, RepositoryName};

    fn row(check: Check, state: Condition) -> HealthRow {
        let (repository, remote) =
            (RepositoryName::new("documents").unwrap(), RemoteName::new("usb").unwrap());
        let subject = match check {
            Check::RemoteReachable | Check::LastSuccess => Subject::remote(&repository, &remote),
            Check::StateIntegrity => Subject::repository(&repository),
            _ => Subject::default(),
        };
        let (message, remedy) = ("it is so".to_owned(), Some("do this".to_owned()));
        let at = Moment::from_unix_seconds(1_000_000).unwrap();
        HealthRow { finding: Finding { check, subject, state, message, remedy }, since: at, checked: at }
    }

    fn after(seconds: i64) -> Moment {
        Moment::from_unix_seconds(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_remote_is_unreachable_only_after_a_while_and_not_beside_a_halt() {
        let down = [row(Check::RemoteReachable, Condition::Failing)];
        let mut repository = healthy();
        assert_eq!(alerts(&down, std::slice::from_ref(&repository), after(899)), []);
        let raised = alerts(&down, std::slice::from_ref(&repository), after(900));
        assert_eq!((raised[0].name.as_str(), raised[0].severity), ("remote_unreachable", Severity::Warning));
        assert_eq!(raised[0].message, "documents: remote usb: it is so; do this");
        repository.remotes[0].state = RemoteState::Halted;
        assert_eq!(alerts(&down, &[repository], after(900)), []);
    }

    #[test]
    fn damage_is_critical_at_once_and_what_is_well_raises_nothing() {
        let damaged = alerts(&[row(Check::StateIntegrity, Condition::Failing)], &[healthy()], after(0));
        assert_eq!((damaged[0].name.as_str(), damaged[0].severity), ("state_damaged", Severity::Critical));
        let all = [Check::StateIntegrity, Check::RemoteReachable, Check::Clock, Check::DiskSpace];
        assert_eq!(alerts(&all.map(|check| row(check, Condition::Ok)), &[healthy()], after(9999)), []);
    }

    #[test]
    fn the_page_names_what_is_not_well_with_its_remedy_and_counts_the_rest() {
        assert_eq!(lines(&[], after(0)), []);
        let well = [row(Check::Clock, Condition::Ok), row(Check::DiskSpace, Condition::Ok)];
        assert_eq!(lines(&well, after(0)), [("health: 2 checks, nothing found".to_owned(), None)]);
        let found = lines(&[row(Check::Clock, Condition::Warning), well[1].clone()], after(120));
        let line = "health: this machine: clock: warning for 2 min: it is so".to_owned();
        assert_eq!(found, [(line, Some("do this".to_owned()))]);
    }
}
