//! What is wrong with large contents at a remote: no room for them, or they are lost or damaged.

use backupbot_actors::board::LfsStatus;
use backupbot_core::keeping::scrubs::Scrubbed;
use backupbot_core::names::{RemoteName, RepositoryName};
use bytesize::ByteSize;

use super::{Alert, Severity};
use crate::output::quoted;
use crate::spans;

/// A remote has no room left for large contents, or little.
pub(super) fn room(repository: &RepositoryName, remote: &RemoteName, lfs: &LfsStatus) -> Option<Alert> {
    let of = format!("--repository {} --remote {}", quoted(repository.as_str()), quoted(remote.as_str()));
    let remedy = format!(
        "`backupbot lfs usage {of}` says what fills it; raise the quota there, or leave out what is large and not needed. \
         What is in the history stays there, nothing that is done here frees it"
    );
    let place = format!("{repository}/{remote}");
    if let Some(refused) = &lfs.refused {
        let text = format!(
            "{repository}: remote {remote} has no room left, so not everything is protected there: {}; {remedy}",
            refused.message
        );
        return Some(Alert::new("quota", Severity::Critical, text).of(place).since(Some(refused.since)));
    }
    let (reached, quota) = (lfs.reached?, lfs.quota?);
    let full = lfs.full_on.map_or_else(String::new, |at| format!(", and is full on {}", spans::day(at)));
    let text = format!(
        "{repository}: remote {remote} has used {} of {} for large files ({} %, {reached} % warn){full}; {remedy}",
        ByteSize(lfs.used),
        ByteSize(quota),
        lfs.percent.unwrap_or_default()
    );
    Some(Alert::new("quota", Severity::Warning, text).of(place))
}

/// Large contents are lost or damaged.
pub(super) fn damaged(name: &RepositoryName, scrubbed: &Scrubbed) -> Option<Alert> {
    if !scrubbed.is_bad() {
        return None;
    }
    let (what, remote) = match &scrubbed.remote {
        Some(remote) => (format!("remote {remote}"), format!("/{remote}")),
        None => ("what is here".to_owned(), String::new()),
    };
    let first = scrubbed.named.first().map_or_else(String::new, |first| format!(": {first}"));
    let of = scrubbed.remote.as_ref().map_or_else(String::new, |it| format!(" --remote {}", quoted(it)));
    let text = format!(
        "{name}: {} large contents are lost and {} damaged ({what}) and could not be put right{first}; `backupbot lfs scrub \
         --repository {}{of}` looks again",
        scrubbed.lost,
        scrubbed.damaged,
        quoted(name.as_str())
    );
    let alert = Alert::new("lfs_damaged", Severity::Critical, text).of(format!("{name}{remote}"));
    Some(alert.since(Some(scrubbed.at)))
}

#[cfg(test)]
mod tests {
    use super::super::of_repositories;
    use super::super::tests::names;
    use super::*;
    use crate::status::tests::{healthy, large as lfs, scrubbed};
    use backupbot_actors::board::Moment;
    use backupbot_core::config::Alerts;

    #[test]
    fn little_room_at_a_remote_is_a_warning_and_a_refusal_is_critical() {
        let of = |lfs| {
            let mut repository = healthy();
            repository.remotes[0].lfs = Some(lfs);
            of_repositories(&[repository], &Alerts::default(), Moment::now(), |_, _| None)
        };
        assert_eq!(of(lfs(79, None, false)), []);
        let alerts = of(lfs(81, Some(80), false));
        let [warning] = alerts.as_slice() else { panic!("{alerts:?}") };
        assert_eq!((warning.name.as_str(), warning.subject.as_str()), ("quota", "documents/usb"));
        assert_eq!(warning.severity, Severity::Warning);
        for words in
            ["81.0 MiB of 100.0 MiB", "(81 %, 80 % warn)", "full on 1970-02-01", "lfs usage", "raise"]
        {
            assert!(warning.message.contains(words), "{words}: {}", warning.message);
        }
        let alerts = of(lfs(10, None, true));
        let [critical] = alerts.as_slice() else { panic!("{alerts:?}") };
        assert_eq!((critical.name.as_str(), critical.severity), ("quota", Severity::Critical));
        assert!(critical.message.contains("its plan is used up"), "{}", critical.message);
    }

    #[test]
    fn large_contents_that_are_lost_or_damaged_are_critical() {
        let mut repository = healthy();
        let elsewhere = Scrubbed { remote: Some("sold".to_owned()), ..scrubbed(1, 0) };
        repository.take_scrubs(vec![scrubbed(0, 0), elsewhere]);
        assert!(names(repository.clone()).is_empty());
        for bad in [scrubbed(1, 0), scrubbed(0, 1), Scrubbed { remote: None, ..scrubbed(0, 1) }] {
            repository.take_scrubs(vec![bad]);
            assert_eq!(names(repository.clone()), ["lfs_damaged"]);
        }
    }
}
