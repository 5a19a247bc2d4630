//! Whether everything is protected: the first line of the status page, and what it is made of.

use backupbot_actors::board::{RemoteState, RemoteView};
use backupbot_core::keeping::scrubs::Scrubbed;

use crate::status::{RepositoryAnswer, RootAnswer, RootStanding, StatusAnswer};

/// A change is at every remote within this, or something is wrong.
const PROMISED_SECONDS: u64 = 60;

/// What the first line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Every root is watched and every change of every file is at every remote.
    Protected,
    /// But for changes that are younger than the promise allows.
    OnItsWay,
    /// Something needs time or somebody.
    Not,
}

/// Of everything.
pub(super) fn verdict(answer: &StatusAnswer) -> Verdict {
    if !answer.daemon {
        return Verdict::Not;
    }
    answer.repositories.iter().map(verdict_of).max().unwrap_or(Verdict::Not)
}

fn verdict_of(repository: &RepositoryAnswer) -> Verdict {
    let is_watched = |root: &RootAnswer| root.state == RootStanding::Watching && root.skipped == 0;
    let is_served = |remote: &RemoteView| {
        remote.commit.is_some()
            && matches!(remote.state, RemoteState::Idle | RemoteState::Pushing)
            && remote.oldest_unprotected_seconds <= PROMISED_SECONDS
    };
    let needs_somebody = repository.status.paused
        || repository.status.guard.quarantine.is_some()
        || repository.status.trouble.is_some()
        || repository.remotes.is_empty()
        || repository.verified.iter().any(|verified| verified.problems > 0)
        || repository.bad_drills().next().is_some()
        || repository.scrubs.iter().any(Scrubbed::is_bad)
        || !repository.roots.iter().all(is_watched)
        || !repository.remotes.iter().all(is_served);
    let is_at_rest = repository.status.pending == 0
        && repository.states.detected == 0
        && repository.remotes.iter().all(|remote| is_protected_at(repository, remote));
    match (needs_somebody, is_at_rest) {
        (true, _) => Verdict::Not,
        (false, true) => Verdict::Protected,
        (false, false) => Verdict::OnItsWay,
    }
}

/// Nothing is missing there.
pub(super) fn is_protected_at(repository: &RepositoryAnswer, remote: &RemoteView) -> bool {
    remote.state != RemoteState::Halted
        && remote.oldest_unprotected_seconds == 0
        && repository.status.commit.is_some()
        && remote.commit == repository.status.commit
}

/// Files that cannot be stored; they are pending, too.
pub(super) fn skipped(repository: &RepositoryAnswer) -> u64 {
    repository.roots.iter().map(|root| root.skipped).sum()
}

/// What is missing there is only what could not be read here.
pub(super) fn has_all_readable(repository: &RepositoryAnswer, remote: &RemoteView) -> bool {
    let skipped = skipped(repository);
    remote.state == RemoteState::Idle
        && skipped > 0
        && repository.status.pending <= skipped
        && remote.commit.is_some()
        && remote.commit == repository.status.commit
}
