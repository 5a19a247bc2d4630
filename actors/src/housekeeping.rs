//! Keeping packs few, beside an actor's other work.
//!
//! The committer does it in the repository, a pusher in a remote that this program made on a disk. A commit or
//! push never waits for it: packs are merged next to whatever else goes on (`core/src/git/housekeeping.rs` says
//! why that is safe), by one job at a time, and trouble with it, even a panic, ends in the log and a pause.
//!
//! Once a week the committer also searches its repository for what nobody needs (`core/src/git/prune.rs`): the
//! search goes on beside commits, and only the removal at its end, a moment, takes the place of one.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, Context};
use backupbot_core::error::{Kind, Result};
use backupbot_core::git::housekeeping::{self, Housekept, Policy, Skipped};
use backupbot_core::git::prune::{self, Prepared, Pruned};
use backupbot_core::git::repository::Repository;
use backupbot_core::git::workshop;
use backupbot_core::names::RemoteName;
use backupbot_core::progress::Progress;
use backupbot_core::snapshot;
use git2::Oid;
use slog::{Logger, error, info, warn};

use crate::job::{JobOutcome, JobSlot};
use crate::seat::RepositorySeat;
use crate::supervision::ExitHandle;
use crate::trail;

/// After trouble the next merge is not tried before this: a full disk or a damaged pack stays so for a while.
const PAUSE_AFTER_TROUBLE: Duration = Duration::from_secs(3600);

/// An actor's housekeeping: at most one merge in flight.
pub(crate) struct Housekeeper {
    job: JobSlot,
    log: Logger,
    not_before: Option<Instant>,
}

impl Housekeeper {
    /// One for the actor that `exit` belongs to.
    pub(crate) fn new(exit: &ExitHandle, log: &Logger) -> Self {
        Self { job: JobSlot::new(exit), log: log.clone(), not_before: None }
    }

    /// Whether a merge is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.job.is_busy()
    }

    /// Asks the merge in flight to end.
    pub(crate) fn cancel(&self) {
        self.job.cancel();
    }

    /// Room for one more of its jobs; none while a merge is in flight.
    pub(crate) fn slot(&mut self) -> Option<&mut JobSlot> {
        (!self.job.is_busy()).then_some(&mut self.job)
    }

    /// Starts `work` unless it is at work already or had trouble lately; `own` finds this in the actor again.
    pub(crate) fn begin<A, W>(&mut self, ctx: &mut Context<A>, own: fn(&mut A) -> &mut Self, work: W)
    where
        A: Actor<Context = Context<A>>,
        W: FnOnce(&Progress) -> Result<Option<Housekept>> + Send + 'static,
    {
        let rests = self.not_before.is_some_and(|at| Instant::now() < at);
        if rests || self.job.is_busy() {
            return;
        }
        // Busy cannot be: that was asked just now.
        let _ = self.job.start_catching(ctx, "merge packs", work, move |actor, outcome, _| {
            let housekeeper = own(actor);
            let pause = report(&housekeeper.log, outcome).then_some(PAUSE_AFTER_TROUBLE);
            housekeeper.not_before = pause.map(|pause| Instant::now() + pause);
        });
    }
}

/// Logs what came of it; whether there was trouble.
fn report(log: &Logger, outcome: JobOutcome<Option<Housekept>>) -> bool {
    let done = match outcome {
        JobOutcome::Finished(Ok(Some(done))) => done,
        JobOutcome::Finished(Ok(None)) => return false,
        JobOutcome::Finished(Err(error)) if error.kind() == Kind::Cancelled => return false,
        JobOutcome::Finished(Err(error)) => {
            warn!(log, "packs are not merged; nothing is lost, and it is tried again"; "error" => %error,
                  "next try in" => ?PAUSE_AFTER_TROUBLE);
            return true;
        }
        JobOutcome::Panicked(message) => {
            error!(log, "merging packs panicked; nothing is lost, and it is tried again";
                   "message" => message, "next try in" => ?PAUSE_AFTER_TROUBLE);
            return true;
        }
    };
    for reason in &done.left_alone {
        warn!(log, "a pack is left as it is"; "reason" => %reason);
    }
    if let Some(into) = &done.into {
        info!(log, "packs merged"; "merged" => done.merged, "removed" => done.removed, "into" => into,
              "objects" => done.objects, "bytes" => done.bytes);
    }
    match done.skipped {
        Some(reason @ (Skipped::LowDisk { .. } | Skipped::ForeignIndex)) => {
            warn!(log, "packs are not merged"; "reason" => %reason, "next try in" => ?PAUSE_AFTER_TROUBLE);
            true
        }
        Some(Skipped::NotDue | Skipped::NothingSmall) | None => !done.left_alone.is_empty(),
    }
}

/// The committer's job.
pub(crate) fn merge_in_repository(seat: &RepositorySeat, progress: &Progress) -> Result<Option<Housekept>> {
    let repository = Repository::open(&seat.path)?;
    let Some(survey) = housekeeping::survey(&repository, &policy())? else { return Ok(None) };
    let staged = seat.common.store.reader().staged(&seat.settings.name)?;
    let done = survey.merge(staged.as_ref().map(|staged| staged.pack.as_str()), progress)?;
    trail::merged(seat, None, &done);
    if let Some(damaged) = done.left_alone.first() {
        seat.suspect(&damaged.to_string());
    }
    Ok(Some(done))
}

/// Its time of modification is when the repository was last searched for what nobody needs.
const SEARCHED: &str = "objects/info/backupbot-searched";
/// Between two searches: each reads the whole history.
const SEARCH_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether it is time to search the repository for what nobody needs; if so, the next time is a week away.
pub(crate) fn search_is_due(seat: &RepositorySeat) -> bool {
    let mark = seat.path.join(SEARCHED);
    let searched = std::fs::metadata(&mark).and_then(|metadata| metadata.modified());
    let age = searched.as_ref().ok().map(|at| SystemTime::now().duration_since(*at));
    let is_due = match age {
        // What is new holds nothing old.
        None => hastened_grace().is_some(),
        Some(Ok(age)) => age >= SEARCH_EVERY,
        // The clock went back: within a week it is due again.
        Some(Err(_)) => false,
    };
    if is_due || !matches!(age, Some(Ok(_))) {
        // If it cannot be noted, the search is done once more.
        let _ = std::fs::write(&mark, "");
    }
    is_due
}

/// The committer's first step, beside commits: new packs without what nobody needs.
pub(crate) fn prepare_pruning(seat: &RepositorySeat, progress: &Progress) -> Result<Option<Prepared>> {
    let repository = Repository::open(&seat.path)?;
    let usual = prune::Policy::default();
    let policy = prune::Policy { grace: hastened_grace().unwrap_or(usual.grace), ..usual };
    prune::prepare(&repository, &known_tips(seat)?, &policy, SystemTime::now(), progress)
}

/// Its second step, while no commit is in the making: the old packs go.
pub(crate) fn finish_pruning(
    seat: &RepositorySeat,
    prepared: Prepared,
    progress: &Progress,
) -> Result<Option<Pruned>> {
    if seat.common.store.reader().staged(&seat.settings.name)?.is_some() {
        return Ok(None);
    }
    let pruned = prepared.finish(&Repository::open(&seat.path)?, &known_tips(seat)?, progress)?;
    if let Some(pruned) = &pruned {
        trail::pruned(seat, pruned);
    }
    Ok(pruned)
}

/// Commits that the database knows and no reference may lead to.
fn known_tips(seat: &RepositorySeat) -> Result<Vec<Oid>> {
    let (reader, name) = (seat.common.store.reader(), &seat.settings.name);
    let mut raw = Vec::new();
    raw.extend(reader.checkpoint(name)?.map(|checkpoint| checkpoint.commit));
    raw.extend(reader.staged(name)?.map(|staged| staged.commit));
    for remote in &seat.settings.remotes {
        let record = reader.remote(name, &remote.name)?.unwrap_or_default();
        raw.extend(record.confirmed);
        raw.extend(record.halted.and_then(|halt| halt.rescue_commit));
    }
    raw.iter().map(snapshot::oid).collect()
}

/// The test build may ask for less grace.
fn hastened_grace() -> Option<Duration> {
    if !cfg!(feature = "fault-points") {
        return None;
    }
    let text = std::env::var("BACKUPBOT_FAULT_PRUNE_AFTER_MS").ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// A pusher's job, for the remote at `path`.
pub(crate) fn merge_in_remote(
    seat: &RepositorySeat,
    remote: &RemoteName,
    path: &Path,
    progress: &Progress,
) -> Result<Option<Housekept>> {
    let owner = workshop::owner_of(&seat.path);
    let done = housekeeping::merge_in_remote(path, &owner, &policy(), progress)?;
    if let Some(done) = &done {
        trail::merged(seat, Some(remote), done);
    }
    Ok(done)
}

/// The test build may ask for more work.
fn policy() -> Policy {
    let usual = Policy::default();
    if cfg!(feature = "fault-points")
        && let Ok(text) = std::env::var("BACKUPBOT_FAULT_MOST_PACKS")
        && let Ok(most) = text.parse()
    {
        return Policy { most, ..usual };
    }
    usual
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use actix::{Handler, Message};
    use backupbot_core::error::Error;
    use slog::{Discard, o};

    use super::*;
    use crate::supervision::{Spawned, spawn};

    struct Owner {
        housekeeper: Housekeeper,
    }

    impl Actor for Owner {
        type Context = Context<Self>;
    }

    type Work = Box<dyn FnOnce() -> Result<Option<Housekept>> + Send>;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Begin(Work);

    /// Whether the job is in flight, and whether the housekeeper rests after it.
    #[derive(Message)]
    #[rtype(result = "(bool, bool)")]
    struct HowIsIt;

    impl Handler<Begin> for Owner {
        type Result = ();

        fn handle(&mut self, Begin(work): Begin, ctx: &mut Context<Self>) {
            self.housekeeper.begin(ctx, |actor: &mut Self| &mut actor.housekeeper, move |_| work());
        }
    }

    impl Handler<HowIsIt> for Owner {
        type Result = actix::MessageResult<HowIsIt>;

        fn handle(&mut self, _: HowIsIt, _: &mut Context<Self>) -> Self::Result {
            actix::MessageResult((self.housekeeper.job.is_busy(), self.housekeeper.not_before.is_some()))
        }
    }

    fn owner() -> Spawned<Owner> {
        let log = Logger::root(Discard, o!());
        spawn(ExitHandle::topmost(), |exit| Owner { housekeeper: Housekeeper::new(&exit, &log) })
    }

    /// Asks for `work` and waits until no job is in flight; whether the housekeeper rests now.
    async fn rests_after(
        owner: &Spawned<Owner>,
        work: impl FnOnce() -> Result<Option<Housekept>> + Send + 'static,
    ) -> bool {
        owner.address.send(Begin(Box::new(work))).await.unwrap();
        loop {
            let (is_busy, rests) = owner.address.send(HowIsIt).await.unwrap();
            if !is_busy {
                return rests;
            }
            tokio::task::yield_now().await;
        }
    }

    #[actix::test]
    async fn trouble_even_a_panic_brings_a_pause_and_no_end() {
        let low_disk = Skipped::LowDisk { free: 0, needed: 1 };
        let skipped = |reason| Housekept { skipped: Some(reason), ..Housekept::default() };
        for (is_trouble, work) in [
            (false, Box::new(|| Ok(None)) as Work),
            (false, Box::new(move || Ok(Some(skipped(Skipped::NothingSmall))))),
            (false, Box::new(|| Err(Error::cancelled()))),
            (true, Box::new(move || Ok(Some(skipped(low_disk))))),
            (true, Box::new(|| Err(Error::new(Kind::DiskFull, "no room")))),
            (true, Box::new(|| panic!("a bug"))),
        ] {
            let owner = owner();
            assert_eq!(rests_after(&owner, work).await, is_trouble);
            let count = Arc::new(AtomicU32::new(0));
            let counted = count.clone();
            let again = move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            };
            rests_after(&owner, again).await;
            assert_eq!(count.load(Ordering::Relaxed), u32::from(!is_trouble));
        }
    }

    #[actix::test]
    async fn a_merge_in_flight_is_not_begun_again() {
        let owner = owner();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first: Work = Box::new(move || {
            let _ = held.recv();
            Ok(None)
        });
        owner.address.send(Begin(first)).await.unwrap();
        owner.address.send(Begin(Box::new(|| panic!("begun")))).await.unwrap();
        release.send(()).unwrap();
        assert!(!rests_after(&owner, || Ok(None)).await);
    }
}
