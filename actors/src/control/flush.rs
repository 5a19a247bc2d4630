//! Flushing: everything that changed before the call is committed, pushed and read back, or the reason why not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use backupbot_core::error::Error;
use backupbot_core::git::repository::Repository;
use backupbot_core::names::RemoteName;
use backupbot_core::scan::WatchedRoot;
use git2::Oid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::quarantine::refuse_in_quarantine;
use super::{Control, ControlError, exact_if_lossy};
use crate::board::RemoteState;
use crate::committer::Committer;
use crate::messages::{BarrierReached, CommitUpTo, PushNow, Refusal};
use crate::seat::RepositorySeat;
use crate::supervision::Place;

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

impl Control {
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
                let committed =
                    self.while_configured(seat, async |seat| commit_all(&seat, false, true).await).await;
                let commit = committed.map_err(|refusal| {
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
                let control = self.clone();
                actix_rt::spawn(async move {
                    let _ = control.flush_configured(&seat, manner).await;
                });
            }
            return self.flushed(&seats, None);
        }
        let all = async {
            let tasks: Vec<_> = seats
                .iter()
                .map(|seat| {
                    let (control, seat) = (self.clone(), seat.clone());
                    actix_rt::spawn(async move { control.flush_configured(&seat, manner).await })
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

    async fn flush_configured(&self, seat: &Arc<RepositorySeat>, manner: Manner) -> Result<Arrival, Refusal> {
        self.while_configured(seat, async |seat| flush_repository(&seat, manner).await).await
    }

    /// Does `work` with the repository as it is configured: when that changes under it, it is begun anew, because those whom it
    /// waited for may be gone for ever. When the repository or one of its roots is gone, what had changed there will never
    /// be anywhere.
    async fn while_configured<T>(
        &self,
        seat: &Arc<RepositorySeat>,
        work: impl AsyncFn(Arc<RepositorySeat>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut seat = seat.clone();
        loop {
            let next = tokio::select! {
                done = work(seat.clone()) => return done,
                next = self.seats.replaced(&seat) => next,
            };
            let Some(next) = next else {
                return Err(Refusal::Unconfigured(
                    "it was taken out of the configuration meanwhile".to_owned(),
                ));
            };
            let is_gone = |root: &&WatchedRoot| next.root(&root.name).is_none();
            if let Some(root) = seat.roots.iter().find(is_gone) {
                let text = format!("its root {} was taken out of the configuration meanwhile", root.name);
                return Err(Refusal::Unconfigured(text));
            }
            seat = next;
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

pub(super) fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Paused => "it is paused; resume it first".to_owned(),
        Refusal::RootUnavailable(why) => format!("a root is unavailable: {why}"),
        Refusal::Halted(why) => format!("a remote is halted: {why}"),
        Refusal::Quarantine(why) => why.clone(),
        Refusal::NoCommit(why) => format!("no commit can be made: {why}"),
        Refusal::NotRunning(why) => why.clone(),
        Refusal::Unconfigured(why) => format!("{why}, so what had changed there may not be backed up"),
    }
}

/// An actor that is being restarted is waited for; whoever waits sets the deadline.
pub(super) async fn present<A: actix::Actor>(place: &Place<A>) -> Addr<A> {
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
