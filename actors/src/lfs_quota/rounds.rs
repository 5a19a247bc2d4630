//! What the monitor of large contents does: functions that block, for the blocking pool; and what is due, which does not.

use backupbot_core::clock::Moment;
use backupbot_core::config::Scrub;
use backupbot_core::error::Result;
use backupbot_core::keeping::keeper::{Keeper, Order};
use backupbot_core::keeping::prune::Pruned;
use backupbot_core::keeping::scrub;
use backupbot_core::keeping::scrubs::{self, Scrubbed};
use backupbot_core::lfs::Objects;
use backupbot_core::names::RemoteName;
use backupbot_core::progress::Progress;

use crate::seat::RepositorySeat;

/// Who does it for a repository.
pub(crate) fn keeper<'s>(seat: &'s RepositorySeat, branch: &'s str) -> Keeper<'s> {
    Keeper {
        store: &seat.common.store,
        settings: &seat.settings,
        path: &seat.path,
        branch,
        state_dir: &seat.common.state_dir,
    }
}

/// What the schedule of scrubs goes by.
pub(super) struct Known {
    /// What came of the latest look at each place.
    pub scrubs: Vec<Scrubbed>,
    /// Whether anything lies here.
    pub has_some_here: bool,
}

impl Known {
    /// Takes in a later look.
    pub fn take(&mut self, newer: Scrubbed) {
        self.scrubs.retain(|it| it.remote != newer.remote);
        self.scrubs.push(newer);
    }
}

/// Publishes how full each remote is; says what is known of scrubs.
pub(super) fn look(seat: &RepositorySeat, progress: &Progress) -> Result<Known> {
    let branch = seat.branch()?;
    for remote in &seat.settings.remotes {
        progress.check()?;
        let fullness = keeper(seat, &branch).fullness(remote, true, progress)?;
        seat.common.board.publish_lfs(&seat.settings.name, &remote.name, fullness);
    }
    Ok(Known {
        scrubs: scrubs::read(&seat.common.state_dir, seat.settings.name.as_str()),
        has_some_here: Objects::of(&seat.path).is_in_use(),
    })
}

/// Removes here what every remote has.
pub(super) fn prune(seat: &RepositorySeat, dry_run: bool, progress: &Progress) -> Result<Pruned> {
    let branch = seat.branch()?;
    keeper(seat, &branch).prune(dry_run, progress)
}

/// Looks at a remote, or at what is here.
pub(super) fn scrub(
    seat: &RepositorySeat,
    remote: Option<&RemoteName>,
    order: Order,
    progress: &Progress,
) -> Result<Scrubbed> {
    let branch = seat.branch()?;
    let keeper = keeper(seat, &branch);
    let remote = remote.map(|name| keeper.remote(name.as_str())).transpose()?;
    keeper.scrub(remote, order, progress)
}

/// The place to look at next, if one is due: there is something in it, and it does not rest.
pub(super) fn due(
    seat: &RepositorySeat,
    known: &Known,
    policy: &Scrub,
    is_resting: impl Fn(&Option<RemoteName>) -> bool,
) -> Option<Option<RemoteName>> {
    let (statuses, now) = (seat.common.board.remotes(&seat.settings.name), Moment::now());
    let was_reached = |name: &RemoteName| {
        statuses.iter().any(|status| status.name == *name && status.last_success.is_some())
    };
    let here = known.has_some_here.then_some(None);
    let remotes = seat.settings.remotes.iter().map(|remote| &remote.name);
    let remotes = remotes.filter(|name| was_reached(name)).map(|name| Some(name.clone()));
    let former = |place: &Option<RemoteName>| {
        known.scrubs.iter().find(|it| it.remote.as_deref() == place.as_ref().map(RemoteName::as_str))
    };
    let places = here.into_iter().chain(remotes).filter(|place| !is_resting(place));
    let due = places.filter(|place| scrub::due_in(former(place), policy.every, now).is_zero());
    due.min_by_key(|place| former(place).map(|former| former.at))
}
