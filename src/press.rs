//! A flush that ends: everything committed, every remote tried, and no waiting for what cannot be had now.
//!
//! The tree's own flush waits through backoff until its time is over, which is right for an operator who
//! watches. `once` and an orderly stop want to know instead that a remote was tried with everything that is
//! committed and could not be reached: its next attempt is the next run's.

use std::time::Duration;

use backupbot_actors::board::{ChildState, ChildStatus, RemoteState, RootState};
use backupbot_actors::control::{Control, ControlError, Flushed};
use backupbot_actors::seat::{RepositorySeat, now_ms};
use backupbot_core::error::{Error, Result};
use backupbot_core::store::StoreReader;

use crate::race::{First, first};

/// How often the board is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A flush has found and committed what there is within this, as a rule.
const NOT_BEFORE: Duration = Duration::from_secs(1);
/// For those who set no time: longer than any backup.
pub const WITHOUT_END: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How it ended.
#[derive(Debug)]
pub enum Pressed {
    /// Everything is at every remote.
    Done,
    /// Somebody has to do something first.
    Refused(String),
    /// These remotes were tried in vain; all else is done.
    OutOfReach(Vec<String>),
    /// A part of the tree keeps failing.
    Broken(String),
    /// The time was over.
    TimedOut,
    /// Our own store or repository failed.
    Failed(Error),
}

/// Commits and pushes everything, `within` at most.
pub async fn press(control: &Control, reader: &StoreReader, within: Duration) -> Pressed {
    let since_ms = now_ms();
    let is_hopeless = || {
        if let Some(broken) = parked(control) {
            return Some(Ok(Pressed::Broken(broken)));
        }
        match out_of_reach(control, reader, since_ms) {
            Ok(None) => None,
            Ok(Some(remotes)) => Some(Ok(Pressed::OutOfReach(remotes))),
            Err(error) => Some(Err(error)),
        }
    };
    let hopeless = async {
        // An attempt of the pusher's own may fail before the flush has committed the latest changes.
        actix_rt::time::sleep(NOT_BEFORE).await;
        until(is_hopeless).await
    };
    match first(control.flush_to_the_end(within), hopeless).await {
        First::Left(Ok(_)) => Pressed::Done,
        First::Left(Err(ControlError::TimedOut(_))) => Pressed::TimedOut,
        First::Left(Err(ControlError::Failed(error))) | First::Right(Err(error)) => Pressed::Failed(error),
        First::Left(Err(ControlError::Refused(reason) | ControlError::Unknown(reason))) => {
            Pressed::Refused(reason)
        }
        First::Right(Ok(pressed)) => pressed,
    }
}

/// Commits everything, `within` at most, also what goes to a quarantine.
pub async fn commit(control: &Control, within: Duration) -> Pressed {
    let broken = until(|| parked(control));
    match first(control.commit(None, within), broken).await {
        First::Left(Ok(_)) => Pressed::Done,
        First::Left(Err(ControlError::TimedOut(_))) => Pressed::TimedOut,
        First::Left(Err(ControlError::Failed(error))) => Pressed::Failed(error),
        First::Left(Err(ControlError::Refused(reason) | ControlError::Unknown(reason))) => {
            Pressed::Refused(reason)
        }
        First::Right(broken) => Pressed::Broken(broken),
    }
}

/// Completes when every root that can be has been compared as a whole, or a part of the tree is parked. Where no
/// commit can be made, no comparison comes to its end either: whoever flushes then hears why.
pub async fn compared(control: &Control) {
    let is_compared = |seat: &RepositorySeat| {
        is_paused(control, seat)
            || control.board().repository(&seat.settings.name).is_some_and(|status| status.trouble.is_some())
            || control.board().roots(&seat.settings.name).iter().filter(|root| is_settled(root.state)).count()
                == seat.roots.len()
    };
    until(|| {
        (control.seats().iter().all(|seat| is_compared(seat)) || parked(control).is_some()).then_some(())
    })
    .await;
}

/// Completes when every remote has what is committed, is halted, or was tried in vain since then.
pub async fn tried(control: &Control, reader: &StoreReader, since_ms: i64) {
    until(|| {
        let all = control.seats().iter().filter(|seat| !is_paused(control, seat)).all(|seat| {
            matches!(standings(control, reader, seat, since_ms), Ok(standings)
                     if standings.iter().all(|standing| !matches!(standing, Standing::Working)))
        });
        (all || parked(control).is_some()).then_some(())
    })
    .await;
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        actix_rt::time::sleep(LOOK_AGAIN).await;
    }
}

fn is_settled(state: RootState) -> bool {
    matches!(state, RootState::Watching | RootState::Unavailable)
}

fn is_paused(control: &Control, seat: &RepositorySeat) -> bool {
    control.board().repository(&seat.settings.name).is_some_and(|status| status.paused)
}

/// A child that failed too often, and why. Nothing is committed or pushed less without the health checker.
fn parked(control: &Control) -> Option<String> {
    let children = control.board().children();
    let is_parked = |child: &&ChildStatus| matches!(child.state, ChildState::Parked { .. });
    let child = children.iter().filter(|child| child.role != "health").find(is_parked)?;
    let why = child.last_exit.as_ref().map_or("", |exit| exit.reason.as_str());
    Some(format!("{} keeps failing: {why}", child.id))
}

enum Standing {
    /// It has what is committed, or waits for somebody.
    Over,
    /// It does not have it and may still get it.
    Working,
    /// It was tried with it, in vain.
    InVain(String),
}

fn standings(
    control: &Control,
    reader: &StoreReader,
    seat: &RepositorySeat,
    since_ms: i64,
) -> Result<Vec<Standing>> {
    let name = &seat.settings.name;
    let tip = control.board().repository(name).and_then(|status| status.commit);
    let published = control.board().remotes(name);
    let mut standings = Vec::new();
    for remote in seat.pushers.keys() {
        let status = published.iter().find(|status| status.name == *remote);
        standings.push(match status {
            Some(status) if status.state == RemoteState::Halted => Standing::Over,
            Some(status) if status.state == RemoteState::Idle && status.commit == tip => Standing::Over,
            Some(status) if status.state == RemoteState::Backoff => {
                let last = reader.push_history(name, remote, 1)?.pop();
                let in_vain = last.filter(|push| push.at_ms >= since_ms && Some(hex(&push.commit)) == tip);
                match in_vain.and_then(|push| push.error) {
                    Some(error) => Standing::InVain(format!("{name}: remote {remote}: {error}")),
                    None => Standing::Working,
                }
            }
            _ => Standing::Working,
        });
    }
    Ok(standings)
}

/// The remotes that were tried in vain, once nothing else is left to wait for. Repositories that a flush
/// refuses at once (paused, a root unavailable) are not waited for.
fn out_of_reach(control: &Control, reader: &StoreReader, since_ms: i64) -> Result<Option<Vec<String>>> {
    let mut in_vain = Vec::new();
    for seat in &control.seats() {
        let name = &seat.settings.name;
        let roots = control.board().roots(name);
        if is_paused(control, seat) || roots.iter().any(|root| root.state == RootState::Unavailable) {
            continue;
        }
        if roots.len() < seat.roots.len() || roots.iter().any(|root| !is_settled(root.state)) {
            return Ok(None);
        }
        let found = standings(control, reader, seat, since_ms)?;
        if found.iter().any(|standing| matches!(standing, Standing::Working)) {
            return Ok(None);
        }
        let failed: Vec<String> = found
            .into_iter()
            .filter_map(|standing| match standing {
                Standing::InVain(reason) => Some(reason),
                _ => None,
            })
            .collect();
        // Asked last, because it reads the queue: what is left there cannot be read anyway.
        let pending = control.board().repository(name).map_or(0, |status| status.pending);
        if !failed.is_empty() && pending > reader.skipped(name, 0)?.0 as u64 {
            return Ok(None);
        }
        in_vain.extend(failed);
    }
    Ok((!in_vain.is_empty()).then_some(in_vain))
}

/// What was reached although a flush did not end well: the branch's tip, and which remotes were seen to have
/// it since then.
pub fn reached(control: &Control, reader: &StoreReader, since_ms: i64) -> Result<Flushed> {
    let mut repositories = Vec::new();
    for seat in &control.seats() {
        let name = &seat.settings.name;
        let commit = control.board().repository(name).and_then(|status| status.commit);
        let (_, skipped) = reader.skipped(name, 1000)?;
        let mut remotes = Vec::new();
        for remote in control.board().remotes(name) {
            // The board knows seconds only; what was read back just before this run began proves nothing.
            let record = reader.remote(name, &remote.name)?.unwrap_or_default();
            let is_fresh = record.failures == 0 && record.confirmed_at_ms.is_some_and(|at| at >= since_ms);
            let confirmed = record.confirmed.filter(|_| is_fresh).map(|id| hex(&id));
            let state = serde_json::to_value(remote.state).ok();
            remotes.push(backupbot_actors::control::FlushedRemote {
                name: remote.name.to_string(),
                verified: commit.is_some() && confirmed == commit,
                commit: remote.commit,
                state: state.and_then(|state| Some(state.as_str()?.to_owned())).unwrap_or_default(),
            });
        }
        repositories.push(backupbot_actors::control::FlushedRepository {
            name: name.to_string(),
            remotes,
            commit,
            skipped: skipped
                .iter()
                .map(|skip| backupbot_actors::control::SkippedPath {
                    root: skip.root.to_string(),
                    path: skip.path.to_string(),
                    path_b64: backupbot_actors::control::exact_if_lossy(skip.path.as_bytes()),
                    reason: format!("{}: {}", skip.failure.reason.as_str(), skip.failure.message),
                })
                .collect(),
        });
    }
    Ok(Flushed { repositories })
}

/// An object id as Git writes it.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
