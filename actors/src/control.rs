//! What an operator can ask of the running tree: status, why, pause, resume, flush.
//!
//! The HTTP API and the process's own shutdown speak to the actors through this. Answers come from the board
//! and the store, so they are there whatever the actors do; only a flush waits for them.

mod quarantine;
mod rearrange;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Addr;
use backupbot_core::audit::Audit;
use backupbot_core::error::Error;
use backupbot_core::git::repository::Repository;
use backupbot_core::names::{RemoteName, RepositoryName};
use backupbot_core::protection::{self, PathReport, StateCounts};
use backupbot_core::scan::WatchedRoot;
use backupbot_core::snapshot;
use base64::Engine as _;
use git2::Oid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::quarantine::refuse_in_quarantine;
pub use self::quarantine::{Decided, in_quarantine};
use crate::board::{Board, ChildState, Moment, RemoteState, RemoteView, RepositoryView};
use crate::committer::Committer;
use crate::lag;
use crate::messages::{BarrierReached, CommitUpTo, PauseChanged, PushNow, Refusal, ResumeRemote, SetPaused};
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

/// A path that a flush could not protect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedPath {
    /// Its root.
    pub root: String,
    /// Its path below the root, lossy.
    pub path: String,
    /// The exact bytes, base64, if the path had to be changed to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Why.
    pub reason: String,
}

/// A remote after a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlushedRemote {
    /// Its name.
    pub name: String,
    /// The commit read back from it.
    pub commit: Option<String>,
    /// Whether that is ours.
    pub verified: bool,
    /// What its pusher is doing.
    pub state: String,
}

/// A repository after a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlushedRepository {
    /// Its name.
    pub name: String,
    /// The tip of its branch.
    pub commit: Option<String>,
    /// What could not be read, and why.
    pub skipped: Vec<SkippedPath>,
    /// Its remotes.
    pub remotes: Vec<FlushedRemote>,
}

/// The answer to a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// By repository.
    pub repositories: Vec<FlushedRepository>,
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

    /// Has every change made before the call committed and pushed, at once, and reads it back.
    pub async fn flush(
        &self,
        repository: Option<&str>,
        wait: bool,
        timeout: Duration,
    ) -> Result<Flushed, ControlError> {
        self.flush_after(repository, wait, timeout, false).await
    }

    /// Has every change made before the call committed, at once, and waits for no remote.
    pub async fn commit(&self, repository: Option<&str>, timeout: Duration) -> Result<Flushed, ControlError> {
        let seats = self.chosen(repository)?;
        let all = async {
            let mut arrivals = Vec::new();
            for seat in &seats {
                let commit = commit_all(seat, false, true).await.map_err(|refusal| {
                    ControlError::Refused(format!("{}: {}", seat.settings.name, explain(&refusal)))
                })?;
                arrivals.push(Arrival { commit, read_back: BTreeMap::new() });
            }
            Ok::<_, ControlError>(arrivals)
        };
        match actix_rt::time::timeout(timeout, all).await {
            Err(_) => Err(ControlError::TimedOut(Box::new(self.flushed(&seats, None)?))),
            Ok(arrivals) => self.flushed(&seats, Some(&arrivals?)),
        }
    }

    /// As [`Control::flush`]; with `rescan` every root is compared as a whole first, whatever events told.
    pub async fn flush_after(
        &self,
        repository: Option<&str>,
        wait: bool,
        timeout: Duration,
        rescan: bool,
    ) -> Result<Flushed, ControlError> {
        self.flush_as(repository, wait, timeout, Manner { rescan, though_quarantined: false }).await
    }

    /// As [`Control::flush`] of everything, for who ends afterwards: what goes to a quarantine is committed and pushed too,
    /// and only then refused.
    pub async fn flush_to_the_end(&self, timeout: Duration) -> Result<Flushed, ControlError> {
        self.flush_as(None, true, timeout, Manner { rescan: false, though_quarantined: true }).await
    }

    async fn flush_as(
        &self,
        repository: Option<&str>,
        wait: bool,
        timeout: Duration,
        manner: Manner,
    ) -> Result<Flushed, ControlError> {
        let seats = self.chosen(repository)?;
        if !wait {
            for seat in seats.clone() {
                actix_rt::spawn(async move {
                    let _ = flush_repository(&seat, manner).await;
                });
            }
            return self.flushed(&seats, None);
        }
        let all = async {
            let tasks: Vec<_> = seats
                .iter()
                .map(|seat| {
                    let seat = seat.clone();
                    actix_rt::spawn(async move { flush_repository(&seat, manner).await })
                })
                .collect();
            let _cancel = AbortOnDrop(tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect());
            let (mut arrivals, mut refusals) = (Vec::new(), Vec::new());
            for (task, seat) in tasks.into_iter().zip(&seats) {
                let name = &seat.settings.name;
                match task.await {
                    Ok(Ok(arrived)) => arrivals.push(arrived),
                    Ok(Err(refusal)) => refusals.push(format!("{name}: {}", explain(&refusal))),
                    Err(_) => refusals.push(format!("{name}: the flush itself broke down")),
                }
            }
            (arrivals, refusals)
        };
        match actix_rt::time::timeout(timeout, all).await {
            Err(_) => Err(ControlError::TimedOut(Box::new(self.flushed(&seats, None)?))),
            Ok((arrivals, refusals)) if refusals.is_empty() => self.flushed(&seats, Some(&arrivals)),
            Ok((_, refusals)) => Err(ControlError::Refused(refusals.join("; "))),
        }
    }

    /// With `arrivals`, one a seat, what the flush waited for; without, how things stand now.
    fn flushed(
        &self,
        seats: &[Arc<RepositorySeat>],
        arrivals: Option<&[Arrival]>,
    ) -> Result<Flushed, ControlError> {
        let reader = self.common.store.reader();
        let mut repositories = Vec::new();
        for (number, seat) in seats.iter().enumerate() {
            let name = &seat.settings.name;
            let (_, skipped) = reader.skipped(name, 1000)?;
            let arrival = arrivals.and_then(|arrivals| arrivals.get(number));
            let commit = match arrival {
                Some(arrival) => arrival.commit.map(|commit| commit.to_string()),
                None => self.common.board.repository(name).and_then(|status| status.commit),
            };
            let remotes = self.common.board.remotes(name).into_iter().map(|remote| {
                // By now a later commit may be on its way or there: what counts is that what was read back for
                // this flush is the flush's commit, or has it in its history.
                let is_there = arrival.is_some_and(|arrival| arrival.read_back.contains_key(&remote.name));
                FlushedRemote {
                    verified: is_there,
                    commit: if is_there { commit.clone() } else { remote.commit },
                    name: remote.name.to_string(),
                    state: state_word(remote.state).to_owned(),
                }
            });
            repositories.push(FlushedRepository {
                name: name.to_string(),
                remotes: remotes.collect(),
                commit,
                skipped: skipped
                    .iter()
                    .map(|skip| SkippedPath {
                        root: skip.root.to_string(),
                        path: skip.path.to_string(),
                        path_b64: exact_if_lossy(skip.path.as_bytes()),
                        reason: format!("{}: {}", skip.failure.reason.as_str(), skip.failure.message),
                    })
                    .collect(),
            });
        }
        Ok(Flushed { repositories })
    }
}

fn state_word(state: RemoteState) -> &'static str {
    match state {
        RemoteState::Idle => "idle",
        RemoteState::Pushing => "pushing",
        RemoteState::Backoff => "backoff",
        RemoteState::Halted => "halted",
    }
}

/// How a flush is made.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// Every root is compared as a whole first.
    rescan: bool,
    /// What goes to a quarantine is committed and pushed too before the flush is refused.
    though_quarantined: bool,
}

struct AbortOnDrop(Vec<tokio::task::AbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Paused => "it is paused; resume it first".to_owned(),
        Refusal::RootUnavailable(why) => format!("a root is unavailable: {why}"),
        Refusal::Halted(why) => format!("a remote is halted: {why}"),
        Refusal::Quarantine(why) => why.clone(),
        Refusal::NoCommit(why) => format!("no commit can be made: {why}"),
        Refusal::NotRunning(why) => why.clone(),
    }
}

/// An actor that is being restarted is waited for; whoever waits sets the deadline.
async fn present<A: actix::Actor>(place: &Place<A>) -> Addr<A> {
    loop {
        if let Some(address) = place.address() {
            return address;
        }
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a flush of one repository came to.
#[derive(Debug, Default)]
struct Arrival {
    /// The commit that has every change made before the flush; absent if there is nothing at all.
    commit: Option<Oid>,
    /// What was read back from each remote: that commit, or one after it.
    read_back: BTreeMap<RemoteName, Oid>,
}

/// Commits everything that changed before the call; the commit that has it.
/// With `though_rejected` also what is paused because its quarantine was rejected: somebody is about to put files back.
async fn commit_all(
    seat: &RepositorySeat,
    rescan: bool,
    though_rejected: bool,
) -> Result<Option<Oid>, Refusal> {
    let is_paused = seat.common.store.reader().paused_since(&seat.settings.name).ok().flatten().is_some();
    let is_rejected =
        || matches!(seat.quarantine(), Ok(Some(quarantine)) if quarantine.rejected_ms.is_some());
    if is_paused && !(though_rejected && is_rejected()) {
        return Err(Refusal::Paused);
    }
    let mut seq = 0;
    for place in seat.watchers.values() {
        loop {
            match present(place).await.send(BarrierReached { rescan }).await {
                Ok(Ok(reached)) => {
                    seq = seq.max(reached);
                    break;
                }
                // It went away while we waited: the next run is asked again.
                Ok(Err(Refusal::NotRunning(_))) | Err(_) => {
                    actix_rt::time::sleep(Duration::from_millis(50)).await
                }
                Ok(Err(refusal)) => return Err(refusal),
            }
        }
    }
    loop {
        match present::<Committer>(&seat.committer).await.send(CommitUpTo { seq, though_rejected }).await {
            Ok(Err(Refusal::NotRunning(_))) | Err(_) => {}
            Ok(answer) => return answer,
        }
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Commits everything that changed before the call and has it at every remote.
async fn flush_repository(seat: &RepositorySeat, manner: Manner) -> Result<Arrival, Refusal> {
    let mut rescan = manner.rescan;
    loop {
        // Whoever waits is told at once; the commits go on by themselves.
        if !manner.though_quarantined {
            refuse_in_quarantine(seat)?;
        }
        let Some(commit) = commit_all(seat, rescan, false).await? else { return Ok(Arrival::default()) };
        if !manner.though_quarantined {
            refuse_in_quarantine(seat)?;
        }
        let arrival = push_all(seat, commit).await?;
        let (path, read_back) = (seat.path.clone(), arrival.read_back.clone());
        let has_arrived =
            actix_rt::task::spawn_blocking(move || is_in_all(&path, commit, read_back.values()));
        match has_arrived.await {
            Ok(Ok(true)) => return refuse_in_quarantine(seat).map(|()| arrival),
            // The branch has another name since: it is named after the day, and the day has changed.
            Ok(Ok(false)) => rescan = false,
            Ok(Err(error)) => return Err(Refusal::NoCommit(error.to_string())),
            Err(error) => return Err(Refusal::NotRunning(error.to_string())),
        }
        actix_rt::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether each of `tips` is `commit` or has it in its history.
fn is_in_all<'t>(path: &Path, commit: Oid, tips: impl Iterator<Item = &'t Oid>) -> Result<bool, Error> {
    let mut opened = None;
    for tip in tips.filter(|tip| **tip != commit) {
        let repository = match opened.take() {
            Some(repository) => repository,
            None => Repository::open(path)?,
        };
        if !repository.has_commit(*tip) || !repository.is_ancestor(commit, *tip)? {
            return Ok(false);
        }
        opened = Some(repository);
    }
    Ok(true)
}

/// Has every remote brought up to date; what was read back there.
async fn push_all(seat: &RepositorySeat, commit: Oid) -> Result<Arrival, Refusal> {
    let mut pushes = Vec::new();
    for (name, place) in &seat.pushers {
        let (name, place) = (name.clone(), place.clone());
        pushes.push(actix_rt::spawn(async move {
            loop {
                match present(&place).await.send(PushNow).await {
                    Ok(Err(Refusal::NotRunning(_))) | Err(_) => {}
                    Ok(answer) => return answer.map(|read_back| (name, read_back)),
                }
                actix_rt::time::sleep(Duration::from_millis(50)).await;
            }
        }));
    }
    let _cancel = AbortOnDrop(pushes.iter().map(tokio::task::JoinHandle::abort_handle).collect());
    let mut arrival = Arrival { commit: Some(commit), read_back: BTreeMap::new() };
    let mut refusal = None;
    for push in pushes {
        match push.await.unwrap_or_else(|_| Err(Refusal::NotRunning("a push broke down".to_owned()))) {
            Ok((name, read_back)) => {
                arrival.read_back.insert(name, read_back);
            }
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    refusal.map_or(Ok(arrival), Err)
}
