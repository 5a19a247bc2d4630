//! One attempt to bring a remote up to date, with its memory: what the store knew before decides whether and
//! how to try, and what the attempt taught is recorded in one transaction after it.

use std::path::Path;
use std::time::{Duration, Instant};

use git2::{Oid, Sort};

use super::large::{LargeDelivery, Withheld};
use super::tally::Tally;
use super::{HaltReason, Outcome, Request, push};
use crate::clock;
use crate::config as model;
use crate::error::{Error, Fate, Kind, Result};
use crate::fault;
use crate::git::repository::{Repository, git_error};
use crate::progress::Progress;
use crate::snapshot::{oid, raw};
use crate::store::RemoteStore;
use crate::store::remotes::{Halt, PushRecord, RemoteRecord};
use crate::transport::memory::Memory;
use crate::transport::{self, Notes, Sent};

/// Commits looked at, at most, to find the oldest one that a remote lacks.
const LOOK_BACK: usize = 10_000;

/// The longest pause between two looks at a remote that refuses.
const LONGEST_REFUSAL_PAUSE: Duration = Duration::from_secs(3600);

/// What is wanted, decided by the caller.
pub struct Wanted<'w> {
    /// Our bare repository.
    pub repository: &'w Path,
    /// The branch that commits go to, in full.
    pub branch: &'w str,
    /// The branch that is protected, in full, while they go to a quarantine.
    pub protected: Option<&'w str>,
    /// When a commit that was on another branch last became this branch's, Unix milliseconds: what was read back before
    /// that was read from the other one.
    pub moved_ms: i64,
    /// The remote.
    pub remote: &'w model::Remote,
    /// Who backs up, for the name of a rescue branch.
    pub instance: &'w str,
    /// The retry law.
    pub retry: &'w model::Retry,
    /// Try although it is not time, and read the remote although it should be up to date.
    pub eager: bool,
    /// An operator resumes a halted remote: its present state is taken for right.
    pub resume: bool,
    /// Commits in clear text may not be sent.
    pub refuses_clear_history: bool,
    /// What the last push learnt of the remote.
    pub memory: &'w Memory,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// How things stand afterwards.
#[derive(Debug)]
pub struct Delivery {
    /// What is recorded now.
    pub record: RemoteRecord,
    /// The commit last read back from the remote's branch.
    pub confirmed: Option<Oid>,
    /// Whether this very attempt read our branch's tip back: what was read earlier proves nothing now.
    pub is_verified: bool,
    /// Whether the remote was talked to.
    pub attempted: bool,
    /// What was sent, perhaps nothing, to a branch that was read back then.
    pub sent: Option<Sent>,
    /// Unix milliseconds of the oldest commit that the remote's branch lacks.
    pub unprotected_since_ms: Option<i64>,
    /// When to try again; `None`: when there is a new commit.
    pub next_try_ms: Option<i64>,
    /// How long the attempt took; absent if there was none.
    pub took: Option<Duration>,
    /// What kind of trouble the attempt had.
    pub trouble: Option<Kind>,
    /// What was noticed on the way.
    pub notes: Notes,
    /// What is counted of it; absent if there was no attempt, or it was cancelled.
    pub tally: Option<Tally>,
}

/// Tries, if it is time, and records what came of it. `on_push` is called when the remote is about to be
/// talked to.
///
/// # Errors
/// Only of our own repository and store; trouble with the remote is in the record.
pub fn deliver(
    wanted: &Wanted<'_>,
    store: &RemoteStore,
    large: Option<&mut dyn LargeDelivery>,
    on_push: &mut dyn FnMut(),
    progress: &Progress,
) -> Result<Delivery> {
    let mut record = known_of(wanted, store)?;
    if !wanted.repository.exists() {
        // The committer makes it; until then nothing is committed that could be pushed.
        return Ok(Delivery {
            record,
            confirmed: None,
            is_verified: false,
            attempted: false,
            sent: None,
            unprotected_since_ms: None,
            next_try_ms: None,
            took: None,
            trouble: None,
            notes: Notes::default(),
            tally: None,
        });
    }
    let repository = Repository::open(wanted.repository)?;
    if wanted.resume && record.halted.take().is_some() {
        record.confirmed = None;
    }
    let Some(tip) = repository.reference(wanted.branch)? else {
        return stand(&repository, record, None, Attempt::None);
    };
    let was_read_since = record.confirmed_at_ms.is_some_and(|at_ms| at_ms >= wanted.moved_ms);
    let is_up_to_date = record.halted.is_none()
        && record.failures == 0
        && record.confirmed == Some(raw(tip))
        && was_read_since;
    let left = clock::left_until(record.retry_at_ms, wanted.now_ms, longest_pause(wanted.retry));
    // Large contents that are refused there hold up nothing that comes after them.
    let is_new = arrived_without_all(&record).is_some_and(|commit| commit != raw(tip));
    let is_time = wanted.eager || wanted.resume || is_new || left.is_zero();
    if !is_time || (is_up_to_date && !wanted.eager) {
        return stand(&repository, record, Some(tip), Attempt::None);
    }
    on_push();
    let began = Instant::now();
    let mut notes = Notes::default();
    let outcome = attempt(wanted, &repository, &record, tip, large, &mut notes, progress);
    fault::point("push:before-record");
    if let Err(error) = &outcome
        && error.kind() == Kind::Cancelled
    {
        return stand(&repository, record, Some(tip), Attempt::InVain);
    }
    let trouble = match &outcome {
        Err(error) | Ok(Outcome::Halted { rescued: Err(error), .. }) => Some(error.kind()),
        Ok(Outcome::Incomplete(_, withheld)) => Some(Withheld::class(withheld)),
        Ok(_) => None,
    };
    let mut tally = Tally::of(&outcome, record.failures > 0);
    let took = began.elapsed();
    let took_ms = milliseconds(took);
    // The pause is between the end of one attempt and the next: one that waited for minutes was none.
    let ended_ms = wanted.now_ms.saturating_add(took_ms);
    let mut attempt = PushRecord {
        at_ms: wanted.now_ms,
        took_ms: u64::try_from(took_ms).unwrap_or(0),
        commit: raw(tip),
        objects: 0,
        bytes: 0,
        error: None,
    };
    if let Ok(Outcome::Incomplete(sent, _)) = &outcome {
        (attempt.objects, attempt.bytes) = (sent.objects, sent.bytes);
    }
    let sent = learn(&mut record, outcome, &repository, wanted, tip, ended_ms);
    if let Some(sent) = sent {
        (attempt.objects, attempt.bytes) = (sent.objects, sent.bytes);
    }
    attempt.error = record.last_error.clone();
    // Reading a remote that is up to date is no event worth a line in its history.
    let is_event = attempt.error.is_some() || sent.is_some_and(|sent| sent.objects > 0) || !is_up_to_date;
    store.record(&record, is_event.then_some(&attempt))?;
    fault::point("push:recorded");
    let came_to = sent.map_or(Attempt::InVain, Attempt::Verified);
    let delivery = stand(&repository, record, Some(tip), came_to)?;
    tally.is_event = is_event;
    Ok(Delivery { took: Some(took), trouble, notes, tally: Some(tally), ..delivery })
}

/// What the store knows of the remote, unless that was learnt at another address under the same name.
fn known_of(wanted: &Wanted<'_>, store: &RemoteStore) -> Result<RemoteRecord> {
    let record = store.load()?;
    let place = *blake3::hash(wanted.remote.url.to_string().as_bytes()).as_bytes();
    if record.place == place {
        return Ok(record);
    }
    let fresh = RemoteRecord { place, ..RemoteRecord::default() };
    store.large().forget_all()?;
    store.record(&fresh, None)?;
    Ok(fresh)
}

fn attempt(
    wanted: &Wanted<'_>,
    repository: &Repository,
    record: &RemoteRecord,
    tip: Oid,
    mut large: Option<&mut dyn LargeDelivery>,
    notes: &mut Notes,
    progress: &Progress,
) -> Result<Outcome> {
    if let model::RemoteUrl::Local(path) = &wanted.remote.url
        && record.confirmed.is_some()
        && matches!(path.try_exists(), Ok(false))
    {
        // Made anew on the mount point of a disk that is not there, it would hold a backup that is none.
        let text = format!(
            "{} was there and is gone: is its disk mounted? If it was removed on purpose, make it with `git init --bare`",
            crate::path::lossy(path.as_os_str().as_encoded_bytes())
        );
        return Err(Error::new(Kind::RemoteUnreachable, text));
    }
    if record.halted.is_some() || record.failures > 0 {
        wanted.memory.clear();
    }
    // A remote that we make has the branch as its first that people look at.
    let made_with = wanted.protected.unwrap_or(wanted.branch);
    let mut transport =
        transport::connect(wanted.remote, made_with, wanted.repository, wanted.memory, progress)?;
    let new_rescue_branch = rescue_branch(wanted.instance, wanted.now_ms);
    let rescue_branch = record.halted.as_ref().map(|halt| halt.rescue_branch.as_str());
    let protected = match wanted.protected {
        Some(name) => repository.reference(name)?.map(|commit| (name.to_owned(), commit)),
        None => None,
    };
    let request = Request {
        branch: wanted.branch,
        commit: tip,
        protected: protected.as_ref().map(|(name, commit)| (name.as_str(), *commit)),
        confirmed: record.confirmed.as_ref().map(oid).transpose()?,
        rescue_branch: rescue_branch.filter(|name| !name.is_empty()),
        new_rescue_branch: &new_rescue_branch,
        refuses_clear_history: wanted.refuses_clear_history,
    };
    let mut outcome = push(repository, transport.as_mut(), reborrowed(&mut large), &request, progress);
    if transport.went_by_memory() && is_to_be_looked_into(&outcome) {
        outcome = push(repository, transport.as_mut(), reborrowed(&mut large), &request, progress);
    }
    *notes = transport.notes();
    if let Some(large) = large {
        notes.add(large.notes());
    }
    outcome
}

fn reborrowed<'a>(large: &'a mut Option<&mut dyn LargeDelivery>) -> Option<&'a mut dyn LargeDelivery> {
    match large {
        Some(large) => Some(&mut **large),
        None => None,
    }
}

/// Whether it may have another cause than the remote as it is now.
fn is_to_be_looked_into(outcome: &Result<Outcome>) -> bool {
    match outcome {
        Ok(Outcome::Confirmed(_) | Outcome::Incomplete(..)) => false,
        Ok(Outcome::Halted { .. }) => true,
        Err(error) => matches!(error.kind(), Kind::RefMoved | Kind::RemoteRefused | Kind::Redirected),
    }
}

/// Turns what happened into what is known. Returns what reached the branch.
fn learn(
    record: &mut RemoteRecord,
    outcome: Result<Outcome>,
    repository: &Repository,
    wanted: &Wanted<'_>,
    tip: Oid,
    ended_ms: i64,
) -> Option<Sent> {
    match outcome {
        Ok(Outcome::Confirmed(sent)) => {
            *record = RemoteRecord {
                confirmed: Some(raw(tip)),
                confirmed_at_ms: Some(wanted.now_ms),
                place: record.place,
                ..RemoteRecord::default()
            };
            Some(sent)
        }
        Ok(Outcome::Halted { reason, branch, remote_tip, rescued }) => {
            let former = record.halted.take().filter(|halt| !halt.rescue_branch.is_empty());
            let mut halt = former.unwrap_or_else(|| Halt {
                reason: String::new(),
                message: String::new(),
                since_ms: wanted.now_ms,
                rescue_branch: rescue_branch(wanted.instance, wanted.now_ms),
                rescue_commit: None,
            });
            halt.reason = reason.as_str().to_owned();
            halt.message = explain(reason, &branch, remote_tip, wanted, &halt.rescue_branch);
            match rescued {
                Ok(_) => {
                    halt.rescue_commit = Some(raw(tip));
                    record.failures = 0;
                    record.last_error = None;
                    record.retry_at_ms = ended_ms.saturating_add(milliseconds(wanted.retry.max));
                }
                Err(error) => fail(record, &error, wanted, ended_ms),
            }
            record.halted = Some(halt);
            None
        }
        // The branch moved, but what was confirmed is the last commit of which everything is there.
        Ok(Outcome::Incomplete(_, withheld)) => {
            let text = Withheld::explain(&withheld, repository, tip);
            let error = Error::new(Withheld::class(&withheld), text);
            if error.fate() == Fate::Retry {
                record.halted = record.halted.take().filter(|halt| !halt.rescue_branch.is_empty());
                fail(record, &error, wanted, ended_ms);
                return None;
            }
            halt(record, &error, wanted, ended_ms);
            if let Some(halt) = record.halted.as_mut().filter(|halt| halt.rescue_branch.is_empty()) {
                halt.rescue_commit = Some(raw(tip));
            }
            None
        }
        Err(error) if error.fate() == Fate::Halt => {
            halt(record, &error, wanted, ended_ms);
            None
        }
        Err(error) => {
            // A refusal that has given way to ordinary trouble is no longer a refusal; a branch that is not ours to
            // write stays one while nobody can look.
            record.halted = record.halted.take().filter(|halt| !halt.rescue_branch.is_empty());
            fail(record, &error, wanted, ended_ms);
            None
        }
    }
}

/// The commit that the remote's branch was read back at although large contents of it are not there.
fn arrived_without_all(record: &RemoteRecord) -> Option<[u8; 20]> {
    record.halted.as_ref().filter(|halt| halt.rescue_branch.is_empty())?.rescue_commit
}

/// Waits for somebody, or for an hour.
fn halt(record: &mut RemoteRecord, error: &Error, wanted: &Wanted<'_>, ended_ms: i64) {
    fail(record, error, wanted, ended_ms);
    record.retry_at_ms = ended_ms.saturating_add(milliseconds(refusal_pause(wanted.retry, record.failures)));
    // A rescue branch that is in use there stays the one: a second would tell of a second halt.
    let former = record.halted.take();
    let since_ms = former.as_ref().map_or(wanted.now_ms, |halt| halt.since_ms);
    let rescue = former.filter(|halt| !halt.rescue_branch.is_empty());
    record.halted = Some(Halt {
        reason: reason_of(error.kind()).to_owned(),
        message: error.to_string(),
        since_ms,
        rescue_commit: rescue.as_ref().and_then(|halt| halt.rescue_commit),
        rescue_branch: rescue.map_or_else(String::new, |halt| halt.rescue_branch),
    });
}

fn fail(record: &mut RemoteRecord, error: &Error, wanted: &Wanted<'_>, ended_ms: i64) {
    record.failures = record.failures.saturating_add(1);
    record.last_error = Some(error.to_string());
    // Who asks to be left alone for longer than the law says is.
    let delay = retry_delay(wanted.retry, record.failures, random_share())
        .max(error.retry_after().unwrap_or_default());
    record.retry_at_ms = ended_ms.saturating_add(milliseconds(delay));
}

fn explain(
    reason: HaltReason,
    branch: &str,
    remote_tip: Option<Oid>,
    wanted: &Wanted<'_>,
    rescue_branch: &str,
) -> String {
    let stands = remote_tip.map_or_else(|| "is gone".to_owned(), |tip| format!("stands at {tip}"));
    let what = match reason {
        HaltReason::Diverged => "which is not in our history: somebody else writes there",
        HaltReason::Rewound => "behind what was confirmed there: somebody reset it, or restored an old copy",
    };
    format!(
        "{branch} {stands}, {what}. Nothing on it is touched; the backup goes to {rescue_branch} meanwhile. Look at both, \
         then `backupbot resume --repository … --remote {}`; or start once with `--adopt continue` to go on from what \
         is there, or with `--adopt branch` to leave it and push to a branch of this instance's own",
        wanted.remote.name
    )
}

fn rescue_branch(instance: &str, now_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
    format!("refs/heads/backupbot/rescue/{instance}/{}", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// The pause before the next try after `failures` failures in a row: exponential, capped, and somewhere
/// between half of that and the whole (`random` from 0 to 1), so that many clients do not come back at once.
pub fn retry_delay(retry: &model::Retry, failures: u32, random: f64) -> Duration {
    let exponent = i32::try_from(failures.saturating_sub(1).min(1000)).unwrap_or(1000);
    let seconds = retry.first.as_secs_f64() * retry.factor.powi(exponent);
    let capped = seconds.min(retry.max.as_secs_f64());
    Duration::from_secs_f64(capped * (0.5 + 0.5 * random.clamp(0.0, 1.0)))
}

/// No pause is longer, so a time further away was written under another clock.
pub fn longest_pause(retry: &model::Retry) -> Duration {
    retry.max.max(LONGEST_REFUSAL_PAUSE)
}

/// The pause after a refusal, which hardly goes away by itself: from the longest of the law up to an hour. A wrong
/// password every few minutes would lock the account.
fn refusal_pause(retry: &model::Retry, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    retry.max.saturating_mul(1 << doublings).min(LONGEST_REFUSAL_PAUSE).max(retry.max)
}

/// The word for a refusal, as status and metrics have it.
pub(super) fn reason_of(kind: Kind) -> &'static str {
    match kind {
        Kind::RemoteRefused => "rejected",
        Kind::Config => "refused",
        kind => kind.as_str(),
    }
}

fn random_share() -> f64 {
    let mut bytes = [0u8; 4];
    // Without randomness the whole pause is right too.
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What this attempt came to.
#[derive(Clone, Copy)]
enum Attempt {
    /// It was not time.
    None,
    /// The remote's branch was not seen at our tip.
    InVain,
    /// It was.
    Verified(Sent),
}

fn stand(
    repository: &Repository,
    record: RemoteRecord,
    tip: Option<Oid>,
    attempt: Attempt,
) -> Result<Delivery> {
    let confirmed = record.confirmed.as_ref().map(oid).transpose()?;
    let (attempted, sent) = match attempt {
        Attempt::None => (false, None),
        Attempt::InVain => (true, None),
        Attempt::Verified(sent) => (true, Some(sent)),
    };
    let unprotected_since_ms = match tip {
        Some(tip) if confirmed != Some(tip) => oldest_missing(repository, tip, confirmed)?,
        _ => None,
    };
    let waits = record.halted.is_some() || record.failures > 0;
    let next_try_ms = waits.then_some(record.retry_at_ms);
    let is_verified = sent.is_some();
    let trouble = None;
    Ok(Delivery {
        confirmed,
        is_verified,
        attempted,
        sent,
        unprotected_since_ms,
        next_try_ms,
        took: None,
        trouble,
        notes: Notes::default(),
        tally: None,
        record,
    })
}

/// Unix milliseconds of the oldest commit on `branch` that is not in the history of `confirmed`; `None` if there
/// is none.
pub fn unconfirmed_since_ms(repository: &Path, branch: &str, confirmed: Option<Oid>) -> Result<Option<i64>> {
    if !repository.exists() {
        return Ok(None);
    }
    let repository = Repository::open(repository)?;
    match repository.reference(branch)? {
        Some(tip) if confirmed != Some(tip) => oldest_missing(&repository, tip, confirmed),
        _ => Ok(None),
    }
}

/// When the oldest commit was made that is in `tip`'s history and not in `confirmed`'s, Unix milliseconds.
fn oldest_missing(repository: &Repository, tip: Oid, confirmed: Option<Oid>) -> Result<Option<i64>> {
    let fail = |error| git_error("walk the history of", repository.path(), error);
    let mut commits = repository.git().revwalk().map_err(fail)?;
    commits.set_sorting(Sort::TIME).map_err(fail)?;
    commits.push(tip).map_err(fail)?;
    if let Some(confirmed) = confirmed.filter(|commit| repository.has_commit(*commit)) {
        commits.hide(confirmed).map_err(fail)?;
    }
    let mut oldest = None;
    for commit in commits.take(LOOK_BACK) {
        let commit = repository.git().find_commit(commit.map_err(fail)?).map_err(fail)?;
        oldest = Some(commit.time().seconds().saturating_mul(1000));
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_by_the_law_and_stays_under_its_cap() {
        let retry = model::Retry::default();
        let pause = |failures, random| retry_delay(&retry, failures, random);
        assert_eq!(pause(1, 1.0), Duration::from_secs(1));
        assert_eq!(pause(1, 0.0), Duration::from_millis(500));
        assert_eq!(pause(4, 1.0), Duration::from_secs(8));
        assert_eq!(pause(u32::MAX, 1.0), Duration::from_secs(300));
    }
}
