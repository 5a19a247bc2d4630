//! What the tree writes into the audit log: where references stand here and at remotes, how pushes went, what
//! was fetched, and what was merged, removed or forgotten.

use backupbot_core::audit::Event;
use backupbot_core::config::Remote;
use backupbot_core::error::Error;
use backupbot_core::git::housekeeping::Housekept;
use backupbot_core::git::prune::Pruned;
use backupbot_core::keeping;
use backupbot_core::names::RemoteName;
use backupbot_core::push::delivery::Delivery;
use backupbot_core::store::guard::Quarantine;
use git2::Oid;

use crate::seat::RepositorySeat;

/// A commit was made: the branch stands at it.
pub(crate) fn committed(seat: &RepositorySeat, branch: &str, tip: Oid, details: &[(&str, String)]) {
    let mut event = local(seat, "commit", branch, tip);
    for (name, value) in details {
        event = event.with(name, value);
    }
    seat.common.audit.reference_stands(event);
}

/// The branch stands here. That is news after a crash between the move and its line, and when somebody else moved it.
pub(crate) fn found(seat: &RepositorySeat, branch: &str, tip: Oid) {
    seat.common.audit.reference_stands(local(seat, "found", branch, tip));
}

/// A branch was begun at, or brought forward to, a commit that was here already.
pub(crate) fn branch_moved(seat: &RepositorySeat, branch: &str, tip: Oid) {
    seat.common.audit.reference_stands(local(seat, "branch", branch, tip));
}

/// The branch begins where a remote's history ends.
pub(crate) fn adopted(seat: &RepositorySeat, branch: &str, tip: Oid) {
    seat.common.audit.reference_stands(local(seat, "adopt", branch, tip));
}

/// A mass change was found, and commits go to a quarantine from now on.
pub(crate) fn quarantined(seat: &RepositorySeat, quarantine: &Quarantine) {
    let event = Event::new("quarantine", "begun").in_repository(seat.settings.name.as_str());
    let seen = &quarantine.seen;
    let event = event.with("branch", &quarantine.branch).with("root", &seen.root);
    seat.common.audit.record(event.with("lost", seen.lost).with("of", seen.of));
}

/// A quarantine was approved: the protected branch went forward to it.
pub(crate) fn approved(seat: &RepositorySeat, branch: &str, tip: Oid) {
    seat.common.audit.reference_stands(local(seat, "approve", branch, tip));
}

/// A quarantine was rejected.
pub(crate) fn rejected(seat: &RepositorySeat, quarantine: &Quarantine) {
    let event = Event::new("reject", "ok").in_repository(seat.settings.name.as_str());
    seat.common.audit.record(event.with("branch", &quarantine.branch));
}

/// The repository was damaged, and another one is in its place.
pub(crate) fn repository_replaced(seat: &RepositorySeat, words: &str) {
    let event = Event::new("repository", "replaced").in_repository(seat.settings.name.as_str());
    seat.common.audit.record(event.with("why", words));
}

/// A history was fetched from a remote; a line about the branch says that it was taken over.
pub(crate) fn fetched(seat: &RepositorySeat, remote: &RemoteName, tip: Oid, why: &str) {
    let event = Event::new("fetch", "ok").in_repository(seat.settings.name.as_str());
    let event = event.at_remote(remote.as_str()).with("commit", tip).with("why", why);
    seat.common.audit.record(event);
}

/// A history could not be fetched.
pub(crate) fn not_fetched(seat: &RepositorySeat, remote: &RemoteName, tip: Oid, error: &Error) {
    let event = Event::new("fetch", "failed").in_repository(seat.settings.name.as_str());
    let event = event.at_remote(remote.as_str()).with("commit", tip).with("message", error);
    seat.common.audit.record(event);
}

/// Packs were merged, here or in a remote that this program made.
pub(crate) fn merged(seat: &RepositorySeat, remote: Option<&RemoteName>, done: &Housekept) {
    let Some(into) = &done.into else { return };
    let event = Event::new("merge", "ok").in_repository(seat.settings.name.as_str());
    let event = remote.iter().fold(event, |event, remote| event.at_remote(remote.as_str()));
    let event = event.with("packs", done.merged).with("removed", done.removed).with("into", into);
    seat.common.audit.record(event.with("objects", done.objects).with("bytes", done.bytes));
}

/// What nobody needed was removed.
pub(crate) fn pruned(seat: &RepositorySeat, pruned: &Pruned) {
    let event = Event::new("prune", "ok").in_repository(seat.settings.name.as_str());
    seat.common.audit.record(event.with("objects", pruned.objects).with("bytes", pruned.bytes));
}

/// Large contents that every remote has were removed here.
pub(crate) fn pruned_large(seat: &RepositorySeat, pruned: &keeping::prune::Pruned) {
    if pruned.removed.objects == 0 {
        return;
    }
    seat.common.audit.record(pruned.deed(seat.settings.name.as_str()));
}

/// What was queued of roots that are no longer configured is forgotten.
pub(crate) fn roots_dropped(seat: &RepositorySeat, rows: usize) {
    let roots: Vec<&str> = seat.roots.iter().map(|root| root.name.as_str()).collect();
    let event = Event::new("roots", "dropped").in_repository(seat.settings.name.as_str());
    seat.common.audit.record(event.with("rows", rows).with("what is left", roots.join(", ")));
}

/// A drill of the inspector came to no result.
pub(crate) fn not_drilled(seat: &RepositorySeat, remote: &RemoteName, error: &Error) {
    let event = Event::new("drill", "failed").in_repository(seat.settings.name.as_str());
    seat.common.audit.record(event.at_remote(remote.as_str()).with("message", error));
}

fn local(seat: &RepositorySeat, what: &str, branch: &str, tip: Oid) -> Event {
    Event::new(what, "ok")
        .in_repository(seat.settings.name.as_str())
        .reference(branch, Some(&tip.to_string()))
}

/// What an attempt to bring a remote up to date came to.
pub(crate) fn delivered(seat: &RepositorySeat, remote: &Remote, branch: &str, delivery: &Delivery) {
    if !delivery.attempted {
        return;
    }
    let audit = &seat.common.audit;
    let event = |what: &str, result: &str| {
        Event::new(what, result).in_repository(seat.settings.name.as_str()).at_remote(remote.name.as_str())
    };
    let took = delivery.took.map_or(0, |took| took.as_millis());
    let halt = delivery.record.halted.as_ref();
    if let Some(confirmed) = delivery.confirmed.filter(|_| delivery.is_verified) {
        let sent = delivery.sent.unwrap_or_default();
        let stands = event("push", "ok").reference(branch, Some(&confirmed.to_string()));
        let stands = stands.with("objects", sent.objects).with("large_objects", sent.large);
        audit.reference_stands(stands.with("bytes", sent.bytes).with("took_ms", took));
    } else if let Some(error) = halt.map(|halt| &halt.message).or(delivery.record.last_error.as_ref()) {
        let result = halt.map_or("failed", |halt| halt.reason.as_str());
        audit.record(
            event("push", result).with("branch", branch).with("message", error).with("took_ms", took),
        );
    }
    if let Some(halt) = halt
        && !halt.rescue_branch.is_empty()
        && let Some(Ok(rescued)) = halt.rescue_commit.map(|raw| backupbot_core::snapshot::oid(&raw))
    {
        audit.reference_stands(
            event("rescue", "ok").reference(&halt.rescue_branch, Some(&rescued.to_string())),
        );
    }
}
