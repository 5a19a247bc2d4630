//! What an operator can ask of the running tree: status, why, pause, resume, flush, and about large contents.
//!
//! The HTTP API and the process's own shutdown speak to the actors through this. Answers come from the board
//! and the store, so they are there whatever the actors do; only a flush waits for them.

mod flush;
mod large;
mod quarantine;
mod rearrange;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backupbot_core::audit::Audit;
use backupbot_core::error::Error;
use backupbot_core::names::{RemoteName, RepositoryName};
use backupbot_core::protection::{self, PathReport, StateCounts};
use backupbot_core::scan::WatchedRoot;
use backupbot_core::snapshot;
use base64::Engine as _;

pub use self::flush::{Flushed, FlushedRemote, FlushedRepository, SkippedPath};
pub use self::large::LargeContents;
pub use self::quarantine::{Decided, in_quarantine};
use crate::board::{Board, ChildState, Moment, RemoteState, RemoteView, RepositoryView};
use crate::lag;
use crate::messages::{PauseChanged, ResumeRemote, SetPaused};
use crate::root::{AreYouThere, Root};
use crate::seat::{Common, RepositorySeat, Seats};
use crate::supervision::{ChildId, Place};

/// The exact bytes in base64, where the text for people had to lose something.
pub fn exact_if_lossy(bytes: &[u8]) -> Option<String> {
    let is_exact = std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control));
    (!is_exact).then(|| base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// So much later, Unix milliseconds.
pub fn later_ms(from_ms: i64, by: Duration) -> i64 {
    from_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}

/// The handle. Clones are the same.
#[derive(Clone)]
pub struct Control {
    common: Common,
    seats: Seats,
    root: Place<Root>,
}

/// Why a wish was not fulfilled.
#[derive(Debug)]
pub enum ControlError {
    /// No repository, remote or path of that name.
    Unknown(String),
    /// Somebody has to do something first.
    Refused(String),
    /// Not in time; what is protected and what is not stands in the answer.
    TimedOut(Box<Flushed>),
    /// Our own store or repository failed.
    Failed(Error),
}

impl From<Error> for ControlError {
    fn from(error: Error) -> Self {
        ControlError::Failed(error)
    }
}

impl Control {
    pub(crate) fn new(common: Common, seats: Seats, root: Place<Root>) -> Self {
        Self { common, seats, root }
    }

    /// Completes when the root of the tree has come to a message; at once if it has ended, which others notice.
    pub async fn root_comes_round(&self) {
        if let Some(root) = self.root.address() {
            let _ = root.send(AreYouThere).await;
        }
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.common.state_dir
    }

    /// What was done by somebody's order is written there.
    pub fn audit(&self) -> &Audit {
        &self.common.audit
    }

    /// What everybody published.
    pub fn board(&self) -> &Board {
        &self.common.board
    }

    /// The repositories, as they are configured now.
    pub fn seats(&self) -> Vec<Arc<RepositorySeat>> {
        self.seats.now()
    }

    fn chosen(&self, name: Option<&str>) -> Result<Vec<Arc<RepositorySeat>>, ControlError> {
        let Some(name) = name else { return Ok(self.seats()) };
        let seats = self.seats();
        let found = seats.iter().find(|seat| seat.settings.name.as_str() == name);
        found
            .map(|seat| vec![seat.clone()])
            .ok_or_else(|| ControlError::Unknown(format!("there is no repository {name:?}")))
    }

    /// The `repositories` of the status answer. A remote is unprotected since the older of its oldest missing
    /// commit and the oldest change that is not committed. Blocks on store and repository; where these cannot be
    /// read, the answer is what the board says, and that.
    pub fn status(&self) -> Vec<RepositoryView> {
        let now = Moment::now();
        let mut views = self.common.board.status(now);
        for view in &mut views {
            if let Err(error) = self.correct(view, now) {
                view.repository.trouble.get_or_insert(error.to_string());
            }
        }
        views
    }

    fn correct(&self, view: &mut RepositoryView, now: Moment) -> Result<(), Error> {
        let oldest = self.common.store.reader().oldest_change_ms(&view.repository.name)?;
        let waits =
            oldest.and_then(|ms| Moment::from_unix_seconds(ms / 1000)).map(|since| now.seconds_since(since));
        let counted = self.count_states(view).map(|states| view.states = states);
        view.remotes.iter_mut().fold(counted, |outcome, remote| {
            let corrected = self.correct_remote(&view.repository.name, remote, now);
            remote.oldest_unprotected_seconds = remote.oldest_unprotected_seconds.max(waits.unwrap_or(0));
            outcome.and(corrected)
        })
    }

    /// A pusher that is down, or has not come to its first attempt, cannot say that it lags: the store can.
    fn correct_remote(
        &self,
        repository: &RepositoryName,
        remote: &mut RemoteView,
        now: Moment,
    ) -> Result<(), Error> {
        let child = ChildId(format!("repository {repository}/pusher {}", remote.name));
        if let Some(child) = self.common.board.child(&child)
            && matches!(
                child.state,
                ChildState::Backoff { .. } | ChildState::Parked { .. } | ChildState::Stopped
            )
        {
            remote.state = RemoteState::Backoff;
            let why = child.last_exit.map_or_else(String::new, |exit| format!(": {}", exit.reason));
            remote.reason = Some(format!("its pusher is down{why}"));
        }
        let seats = self.seats();
        let Some(seat) = seats.iter().find(|seat| seat.settings.name == *repository) else {
            return Ok(());
        };
        let record = self.common.store.reader().remote(repository, &remote.name)?.unwrap_or_default();
        let seconds = lag::committed_for(seat, &record, now)?;
        remote.oldest_unprotected_seconds = remote.oldest_unprotected_seconds.max(seconds);
        Ok(())
    }

    fn count_states(&self, view: &RepositoryView) -> Result<StateCounts, Error> {
        let name = &view.repository.name;
        let seats = self.seats();
        let Some(seat) = seats.iter().find(|seat| seat.settings.name == *name) else {
            return Ok(StateCounts::default());
        };
        let reader = self.common.store.reader();
        let (skipped, _) = reader.skipped(name, 0)?;
        let failed = skipped as u64;
        let watched = view.roots.iter().map(|root| root.files).sum();
        let detected = seat.detected.values().map(|count| count.load(Ordering::Relaxed)).sum();
        let staged = reader.staged(name)?.map_or(0, |staged| staged.settlement.rows.len() as u64);
        let mut committed = 0;
        let is_made = view.repository.commit.is_some();
        for remote in seat.pushers.keys().filter(|_| is_made) {
            let confirmed = reader.remote(name, remote)?.and_then(|record| record.confirmed);
            let confirmed = confirmed.as_ref().map(snapshot::oid).transpose()?;
            committed = committed.max(protection::count_unconfirmed(&seat.path, &seat.branch()?, confirmed)?);
        }
        let pushed = if is_made { u64::saturating_sub(watched, committed.saturating_add(failed)) } else { 0 };
        let queued = view.repository.pending.saturating_sub(failed);
        Ok(StateCounts { watched, detected, queued, staged, committed, lfs_processed: 0, pushed, failed })
    }

    /// Where a file stands on its way to the remotes, and why. `path` is absolute, or `<root>/rel`.
    pub fn why(&self, path: &[u8]) -> Result<PathReport, ControlError> {
        for seat in &self.seats() {
            let Some((root, rel)) = protection::locate(&seat.roots, path) else { continue };
            let root: &WatchedRoot = root;
            let remotes: Vec<RemoteName> =
                seat.settings.remotes.iter().map(|remote| remote.name.clone()).collect();
            let subject = protection::Subject {
                repository: &seat.settings.name,
                git_directory: &seat.path,
                branch: &seat.branch()?,
                root,
                path: &rel,
                remotes: &remotes,
            };
            return Ok(protection::report(&subject, &self.common.store.reader())?);
        }
        Err(ControlError::Unknown("the path is below none of the watched directories".to_owned()))
    }

    /// Pauses or resumes a repository, or all. What changes while paused is queued. Resuming also lets halted
    /// remotes try again, with their present state taken for right.
    pub async fn set_paused(
        &self,
        repository: Option<&str>,
        remote: Option<&str>,
        paused: bool,
    ) -> Result<Vec<RepositoryName>, ControlError> {
        self.set_paused_until(repository, remote, paused, None).await
    }

    /// Pauses a repository, or all, for some time: it then goes on by itself, over restarts too.
    pub async fn pause_for(
        &self,
        repository: Option<&str>,
        lasting: Duration,
    ) -> Result<Vec<RepositoryName>, ControlError> {
        let until_ms = later_ms(crate::seat::now_ms(), lasting);
        self.set_paused_until(repository, None, true, Some(until_ms)).await
    }

    async fn set_paused_until(
        &self,
        repository: Option<&str>,
        remote: Option<&str>,
        paused: bool,
        until_ms: Option<i64>,
    ) -> Result<Vec<RepositoryName>, ControlError> {
        let seats = self.chosen(repository)?;
        if let Some(remote) = remote {
            let known = |seat: &RepositorySeat| seat.pushers.keys().any(|name| name.as_str() == remote);
            if !seats.iter().any(|seat| known(seat)) {
                return Err(ControlError::Unknown(format!("there is no remote {remote:?}")));
            }
        }
        for seat in &seats {
            let queue = self.common.queue.address_of("queue").map_err(ControlError::Refused)?;
            let message = SetPaused { repository: seat.settings.name.clone(), paused, until_ms };
            match queue.send(message).await {
                Ok(answer) => answer?,
                Err(_) => return Err(ControlError::Refused("the queue is not running".to_owned())),
            }
            if let Some(committer) = seat.committer.address() {
                let _ = committer.send(PauseChanged).await;
            }
            if !paused {
                for (name, place) in &seat.pushers {
                    let chosen = remote.is_none_or(|remote| remote == name.as_str());
                    if let (true, Some(pusher)) = (chosen, place.address()) {
                        let _ = pusher.send(ResumeRemote).await;
                    }
                }
            }
            let name = seat.settings.name.clone();
            let shown = self.common.board.wait_for(|board| {
                board.repository(&name).filter(|status| status.paused == paused).map(|_| ())
            });
            let _ = actix_rt::time::timeout(Duration::from_secs(5), shown).await;
        }
        Ok(seats.iter().map(|seat| seat.settings.name.clone()).collect())
    }
}
