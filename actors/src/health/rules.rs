//! What is said about what was seen: facts and a time in, findings out, nothing asked and nothing kept.

use std::time::Duration;

use backupbot_core::config::Alerts;
use backupbot_core::disk::Room;
use backupbot_core::git::health::Health;
use backupbot_core::names::{RemoteName, RepositoryName, RootName};
use bytesize::ByteSize;

use crate::board::{Check, Condition, Finding, Moment, Subject};

/// For so long somebody should know that the clock was set.
const JUMP_IS_NEWS: Duration = Duration::from_secs(3600);

/// The clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jump {
    /// By so many milliseconds; back if negative.
    pub by_ms: i64,
    /// When that was noticed, on the clock that nobody sets.
    pub noticed: std::time::Instant,
}

fn ok(check: Check, subject: Subject, message: impl Into<String>) -> Finding {
    Finding { check, subject, state: Condition::Ok, message: message.into(), remedy: None }
}

fn bad(check: Check, subject: Subject, state: Condition, message: String, remedy: &str) -> Finding {
    Finding { check, subject, state, message, remedy: Some(remedy.to_owned()) }
}

/// Whether a remote answers and lets us in; in words if not.
pub fn reachability(repository: &RepositoryName, remote: &RemoteName, found: Result<(), String>) -> Finding {
    let (check, subject) = (Check::RemoteReachable, Subject::remote(repository, remote));
    match found {
        Ok(()) => ok(check, subject, "it answers and lets us in"),
        Err(reason) => bad(
            check,
            subject,
            Condition::Failing,
            reason,
            "see that it runs and can be reached from here, and that the credentials are right: `backupbot remote test` \
             tells more; it is looked at again by itself",
        ),
    }
}

/// Whether what is committed reaches a remote in time.
pub(super) fn lag(
    repository: &RepositoryName,
    remote: &RemoteName,
    unprotected_seconds: u64,
    last_success: Option<Moment>,
    limits: &Alerts,
) -> Finding {
    let (check, subject) = (Check::LastSuccess, Subject::remote(repository, remote));
    let last =
        last_success.map_or("nothing was ever read back".to_owned(), |at| format!("last read back {at}"));
    if unprotected_seconds > limits.stale_after.as_secs() {
        let hours = unprotected_seconds / 3600;
        let text = format!(
            "it lacks changes that are {hours} h {} min old; {last}",
            unprotected_seconds % 3600 / 60
        );
        return bad(check, subject, Condition::Failing, text, "`backupbot status` names the cause");
    }
    ok(check, subject, last)
}

/// Whether there is room where the state is.
pub(super) fn room(room: &Room, limits: &Alerts) -> Finding {
    let (check, subject) = (Check::DiskSpace, Subject::default());
    let free =
        room.bytes.map_or("an unknown amount is free".to_owned(), |free| format!("{} free", ByteSize(free)));
    let remedy = "make room on the file system of the state directory";
    if room.spare() == 0 {
        let text = format!("{free}: no commit fits any more");
        return bad(check, subject, Condition::Failing, text, remedy);
    }
    if room.bytes.is_some_and(|bytes| bytes < limits.disk_free) {
        let text = format!("{free}; commits stop when the next one does not fit");
        return bad(check, subject, Condition::Warning, text, remedy);
    }
    ok(check, subject, free)
}

/// Whether a root is watched as a whole.
pub(super) fn watching(repository: &RepositoryName, root: &RootName, limited: Option<&str>) -> Finding {
    let (check, subject) = (Check::WatchLimits, Subject::root(repository, root));
    match limited {
        None => ok(check, subject, "it is watched as a whole"),
        Some(reason) => bad(
            check,
            subject,
            Condition::Warning,
            reason.to_owned(),
            "raise the limit that the message names, or accept that changes there are found by comparing",
        ),
    }
}

/// Whether the clock was set lately.
pub(super) fn clock(jump: Option<Jump>, now: std::time::Instant) -> Finding {
    let (check, subject) = (Check::Clock, Subject::default());
    match jump.filter(|jump| now.saturating_duration_since(jump.noticed) < JUMP_IS_NEWS) {
        None => ok(check, subject, "it was not set lately"),
        Some(jump) => {
            let direction = if jump.by_ms < 0 { "back" } else { "forward" };
            let seconds = jump.by_ms.unsigned_abs() / 1000;
            let text = format!(
                "it was set {direction} by {seconds} s; files with later times are read again, and what waits for a \
                 time is due"
            );
            bad(check, subject, Condition::Warning, text, "see that NTP works on this machine")
        }
    }
}

/// Whether the repository here is what was written; `None` if there is none yet.
pub(super) fn integrity(repository: &RepositoryName, health: Health) -> Option<Finding> {
    let (check, subject) = (Check::StateIntegrity, Subject::repository(repository));
    match health {
        Health::Missing => None,
        Health::Sound => {
            Some(ok(check, subject, "a sample of it was read and the latest commit is complete"))
        }
        Health::Damaged(reason) => Some(bad(
            check,
            subject,
            Condition::Failing,
            reason,
            "it is examined and, if that is confirmed, replaced by itself; check the disk, and run `backupbot verify \
             --remote NAME` to see that a remote is whole",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn documents() -> RepositoryName {
        RepositoryName::new("documents").unwrap()
    }

    fn usb() -> RemoteName {
        RemoteName::new("usb").unwrap()
    }

    #[test]
    fn everything_that_is_not_well_names_a_remedy_and_what_is_well_needs_none() {
        let root = RootName::new("folder1").unwrap();
        let limits = Alerts::default();
        let noticed = Instant::now();
        let full = Room { bytes: Some(1000), inodes: None };
        let bad = [
            reachability(&documents(), &usb(), Err("no route".into())),
            lag(&documents(), &usb(), 6 * 3600 + 1, None, &limits),
            room(&full, &limits),
            watching(&documents(), &root, Some("no watches left")),
            clock(Some(Jump { by_ms: -5000, noticed }), noticed),
            integrity(&documents(), Health::Damaged("a pack does not inflate".into())).unwrap(),
        ];
        for finding in bad {
            assert!(finding.state > Condition::Ok && finding.remedy.is_some(), "{finding:?}");
        }
        let good = [
            reachability(&documents(), &usb(), Ok(())),
            lag(&documents(), &usb(), 6 * 3600, None, &limits),
            room(&Room { bytes: None, inodes: None }, &limits),
            watching(&documents(), &root, None),
            clock(None, noticed),
            integrity(&documents(), Health::Sound).unwrap(),
        ];
        for finding in good {
            assert!(finding.state == Condition::Ok && finding.remedy.is_none(), "{finding:?}");
        }
        assert_eq!(integrity(&documents(), Health::Missing), None);
    }

    #[test]
    fn little_room_is_a_warning_and_none_is_a_failure() {
        let state = |bytes| room(&Room { bytes: Some(bytes), inodes: None }, &Alerts::default()).state;
        assert_eq!(state(2 << 30), Condition::Ok);
        assert_eq!(state(1 << 29), Condition::Warning);
        assert_eq!(state(8 << 20), Condition::Failing);
    }

    #[test]
    fn a_jump_of_the_clock_is_told_for_an_hour() {
        let noticed = Instant::now();
        let jump = Some(Jump { by_ms: 7_200_000, noticed });
        let after = |seconds| clock(jump, noticed + Duration::from_secs(seconds));
        assert!(after(0).message.contains("forward by 7200 s"), "{:?}", after(0));
        assert_eq!(after(3599).state, Condition::Warning);
        assert_eq!(after(3600).state, Condition::Ok);
    }
}
