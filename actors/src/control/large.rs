//! What an operator can ask about large contents: how full the remotes are and with what, to prune here, to scrub.

use std::sync::Arc;

use backupbot_core::error::Error;
use backupbot_core::keeping::keeper::Order;
use backupbot_core::keeping::prune::Pruned;
use backupbot_core::keeping::report::Contents;
use backupbot_core::names::RemoteName;
use backupbot_core::progress::Progress;
use backupbot_core::verify::{Sample, draw_seed};

use super::{Control, ControlError};
use crate::board::{LfsStatus, ScrubTrouble};
use crate::lfs_quota::{LfsMonitor, PruneLarge, ScrubLarge, keeper};
use crate::seat::RepositorySeat;

/// Large contents of a repository, as the daemon knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeContents {
    /// By remote, in the order of the configuration.
    pub remotes: Vec<(String, Option<LfsStatus>)>,
    /// What fills them.
    pub contents: Contents,
    /// Places that could not be looked at the last time.
    pub scrub_troubles: Vec<ScrubTrouble>,
}

impl Control {
    fn one(&self, repository: &str) -> Result<Arc<RepositorySeat>, ControlError> {
        let found = self.seats().into_iter().find(|seat| seat.settings.name.as_str() == repository);
        found.ok_or_else(|| ControlError::Unknown(format!("there is no repository {repository:?}")))
    }

    fn with_large_contents(
        &self,
        repository: &str,
        remote: Option<&str>,
    ) -> Result<Arc<RepositorySeat>, ControlError> {
        let seat = self.one(repository)?;
        let is_known = |name: &str| seat.settings.remotes.iter().any(|it| it.name.as_str() == name);
        if let Some(name) = remote.filter(|name| !is_known(name)) {
            return Err(ControlError::Unknown(format!("{repository} has no remote {name:?}")));
        }
        if !seat.path.exists() {
            return Err(ControlError::Refused(format!("nothing of {repository} was backed up yet")));
        }
        Ok(seat)
    }

    /// The large contents at a remote: as its monitor saw it last, else as far as the database knows. Nothing where there are
    /// none. Blocks on the store.
    pub fn large_at(&self, seat: &RepositorySeat, remote: &RemoteName) -> Option<LfsStatus> {
        if !seat.has_large_contents() {
            return None;
        }
        let seen = self.common.board.lfs(&seat.settings.name, remote);
        seen.or_else(|| {
            let branch = seat.branch().ok()?;
            let keeper = keeper(seat, &branch);
            let known = keeper.fullness(keeper.remote(remote.as_str()).ok()?, false, &Progress::new());
            Some(LfsStatus { checked: None, ..known.ok()?.into() })
        })
    }

    /// How full the remotes of a repository are and with what: `top` names of each list, of what `remote` is known to have
    /// if it is given. Blocks on store and repository.
    pub fn large_contents(
        &self,
        repository: &str,
        remote: Option<&str>,
        top: usize,
    ) -> Result<LargeContents, ControlError> {
        let seat = self.with_large_contents(repository, remote)?;
        let branch = seat.branch()?;
        let keeper = keeper(&seat, &branch);
        let only = remote.map(|name| keeper.remote(name)).transpose()?;
        let contents = keeper.contents(only, top, &Progress::new())?;
        let remotes = seat.settings.remotes.iter();
        let remotes = remotes.map(|it| (it.name.to_string(), self.large_at(&seat, &it.name)));
        let scrub_troubles = self.common.board.scrub_troubles(&seat.settings.name);
        Ok(LargeContents { remotes: remotes.collect(), contents, scrub_troubles })
    }

    /// Removes here what every remote has, or says what would be removed.
    pub async fn prune_large(&self, repository: &str, dry_run: bool) -> Result<Pruned, ControlError> {
        let seat = self.with_large_contents(repository, None)?;
        let answer = monitor_of(&seat)?.send(PruneLarge { dry_run }).await;
        Ok(answer.map_err(|_| not_running())??)
    }

    /// Has large contents looked at as soon as it can be done: at one remote, or here and at all of them. The number is that
    /// of the results.
    pub async fn scrub_large(
        &self,
        repository: &str,
        remote: Option<&str>,
        read: Option<Sample>,
    ) -> Result<u64, ControlError> {
        let seat = self.with_large_contents(repository, remote)?;
        let found = seat.settings.remotes.iter().find(|it| Some(it.name.as_str()) == remote);
        let number = draw_seed()?;
        let order = Order { read, number: Some(number) };
        let wish = ScrubLarge { remote: found.map(|it| it.name.clone()), order };
        let answer: Result<Result<(), Error>, _> = monitor_of(&seat)?.send(wish).await;
        answer.map_err(|_| not_running())??;
        Ok(number)
    }
}

fn monitor_of(seat: &RepositorySeat) -> Result<actix::Addr<LfsMonitor>, ControlError> {
    if !seat.has_large_contents() {
        let name = &seat.settings.name;
        return Err(ControlError::Refused(format!("{name} has no large contents: `lfs` is not configured")));
    }
    seat.lfs.address().ok_or_else(not_running)
}

fn not_running() -> ControlError {
    let text = "who looks after large contents is not running now; it is started again by itself: try again in a minute";
    ControlError::Refused(text.to_owned())
}
