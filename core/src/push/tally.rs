//! What is counted of an attempt to push: whether it was one more try, what it failed of, whether the remote answered.
//!
//! The words are a closed list, because they become labels of metrics: a number of series that a remote's answers could
//! let grow would be a way to fill somebody's disk.

use super::delivery::reason_of;
use super::large::Withheld;
use super::{HaltReason, Outcome};
use crate::error::{Kind, Result};

/// An attempt, for who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Whether the one before it had failed.
    pub is_retry: bool,
    /// Whether there was something to push, or something went wrong: not just a look that found all well.
    pub is_event: bool,
    /// Why the branch did not get there: one of [`FAILURES`].
    pub failure: Option<&'static str>,
    /// Whether the remote answered and let us in; `None` if the attempt does not tell.
    pub was_answered: Option<bool>,
}

/// Every word that [`Tally::failure`] can be.
pub const FAILURES: [&str; 18] = [
    "remote_unreachable",
    "busy",
    "ref_moved",
    "diverged",
    "rewound",
    "rejected",
    "refused",
    "credentials",
    "host_key",
    "clear_text",
    "quota",
    "too_large",
    "redirected",
    "git",
    "io",
    "disk_full",
    "limit",
    "other",
];

impl Tally {
    pub(super) fn of(outcome: &Result<Outcome>, is_retry: bool) -> Self {
        let (failure, was_answered) = match outcome {
            Ok(Outcome::Confirmed(_)) => (None, Some(true)),
            Ok(Outcome::Incomplete(_, withheld)) => {
                (Some(failure_word(Withheld::class(withheld))), Some(true))
            }
            Ok(Outcome::Halted { reason, .. }) => (Some(reason.as_str()), Some(true)),
            Err(error) => (Some(failure_word(error.kind())), answered(error.kind())),
        };
        Self { is_retry, is_event: failure.is_some(), failure, was_answered }
    }
}

/// Whether a word of [`FAILURES`] means that the remote's history is not ours.
pub fn is_divergence(word: &str) -> bool {
    [HaltReason::Diverged, HaltReason::Rewound].iter().any(|reason| reason.as_str() == word)
}

fn failure_word(kind: Kind) -> &'static str {
    let word = reason_of(kind);
    FAILURES.into_iter().find(|known| *known == word).unwrap_or("other")
}

/// What trouble says about whether the remote can be reached and lets us in. A refusal may come from a hook at the end
/// or from a door at the beginning, and trouble of our own tells nothing.
fn answered(kind: Kind) -> Option<bool> {
    match kind {
        Kind::RemoteUnreachable | Kind::Credentials | Kind::HostKey | Kind::Redirected => Some(false),
        Kind::Quota | Kind::TooLarge | Kind::Busy | Kind::RefMoved | Kind::Diverged => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::transport::Sent;

    #[test]
    fn every_kind_of_trouble_has_a_word_of_the_closed_list() {
        let all = [
            (Kind::RemoteUnreachable, "remote_unreachable", Some(false)),
            (Kind::RemoteRefused, "rejected", None),
            (Kind::Config, "refused", None),
            (Kind::Redirected, "redirected", Some(false)),
            (Kind::ClearText, "clear_text", None),
            (Kind::Quota, "quota", Some(true)),
            (Kind::DiskFull, "disk_full", None),
            (Kind::Internal, "other", None),
            (Kind::Store, "other", None),
        ];
        for (kind, word, was_answered) in all {
            let tally = Tally::of(&Err(Error::new(kind, "x")), true);
            assert_eq!((tally.failure, tally.was_answered, tally.is_retry), (Some(word), was_answered, true));
            assert!(FAILURES.contains(&word));
        }
    }

    #[test]
    fn a_remote_with_anothers_history_has_failed_and_has_answered() {
        for reason in [HaltReason::Diverged, HaltReason::Rewound] {
            let outcome = Outcome::Halted {
                reason,
                branch: "refs/heads/main".to_owned(),
                remote_tip: None,
                rescued: Ok(Sent::default()),
            };
            let tally = Tally::of(&Ok(outcome), false);
            assert_eq!((tally.failure, tally.was_answered), (Some(reason.as_str()), Some(true)));
            assert!(FAILURES.contains(&reason.as_str()) && is_divergence(reason.as_str()));
        }
        assert!(!is_divergence("quota"));
        let tally = Tally::of(&Ok(Outcome::Confirmed(Sent::default())), false);
        assert_eq!((tally.failure, tally.is_event), (None, false));
    }
}
