//! The committer: decides when a repository's queue becomes a commit, and walks each batch through its steps.
//!
//! Nudged by whoever queues, it commits when enough rows wait, when the oldest has waited long enough, when a
//! walk is to be done, or when somebody asks. A batch goes: take rows (queue) → build a pack (job) → stage
//! (queue, durable) → publish (job: pack in place, branch moved) → settle (queue, durable) → nudge the
//! pushers. It starts by finishing or undoing what a crash left, before anything reads the repository.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};
use backupbot_core::adopt;
use backupbot_core::error::{Error, Fate, Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::pack;
use backupbot_core::git::refs;
use backupbot_core::git::repository::{Repository, sweep_unfinished};
use backupbot_core::names::RootName;
use backupbot_core::progress::Progress;
use backupbot_core::scan::Limit;
use backupbot_core::snapshot::{self, Batch, Built, Recovered, Summary};
use backupbot_core::store::StoreReader;
use backupbot_core::store::changes::TakenRow;
use backupbot_core::store::checkpoints::{Settlement, StagedCommit};
use backupbot_core::transport;
use git2::Oid;
use slog::{Logger, info, o, warn};
use tokio::sync::oneshot;

use crate::board::{RepositoryStatus, SkippedFile};
use crate::housekeeping::{Housekeeper, merge_in_repository};
use crate::job;
use crate::messages::{
    CommitUpTo, CountUnsettled, DistrustFiles, LookAtWaiting, PauseChanged, Refusal, RootSeen, Settle, Stage,
    TakeBatch, Unstage, WaitingNow, Wake,
};
use crate::queue::Queue;
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;

/// Findings that one commit of a walk takes at most: more than a batch of single changes, because the walk has
/// them at hand, and few enough that protection grows while a first backup runs.
const WALK_FINDINGS: usize = 10_000;
/// The pause after a failed batch, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Skipped files listed in status.
const LISTED_SKIPS: usize = 100;

struct Waiter {
    seq: u64,
    /// Whether a batch was taken after it came: what was postponed before has had its second chance.
    served: bool,
    answer: oneshot::Sender<std::result::Result<Option<Oid>, Refusal>>,
}

/// The actor.
pub struct Committer {
    seat: Arc<RepositorySeat>,
    exit: ExitHandle,
    queue: Addr<Queue>,
    log: Logger,
    ready: bool,
    at_work: bool,
    looked_in_vain: bool,
    paused: bool,
    tip: Option<Oid>,
    failures: u32,
    alarm: Option<SpawnHandle>,
    waiters: Vec<Waiter>,
    skips_listed: bool,
    housekeeper: Housekeeper,
}

impl Committer {
    /// A committer of the repository; `queue` is the present run of the queue.
    pub fn new(seat: Arc<RepositorySeat>, exit: ExitHandle, queue: Addr<Queue>) -> Self {
        let log =
            seat.common.log.new(o!("actor" => "committer", "repository" => seat.settings.name.to_string()));
        let housekeeper = Housekeeper::new(&exit, &log);
        Self {
            seat,
            exit,
            queue,
            log,
            ready: false,
            at_work: false,
            looked_in_vain: false,
            paused: false,
            tip: None,
            failures: 0,
            alarm: None,
            waiters: Vec::new(),
            skips_listed: true,
            housekeeper,
        }
    }

    fn work(&mut self, ctx: &mut Context<Self>) {
        if !self.ready || self.at_work {
            self.looked_in_vain = true;
            return;
        }
        self.at_work = true;
        self.looked_in_vain = false;
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        self.waiters.retain(|waiter| !waiter.answer.is_closed());
        for waiter in &mut self.waiters {
            waiter.served = true;
        }
        let cycle = Cycle {
            seat: self.seat.clone(),
            exit: self.exit.clone(),
            queue: self.queue.clone(),
            log: self.log.clone(),
            eager: !self.waiters.is_empty(),
            list_skips: self.skips_listed,
            lowest_waiter: self.waiters.iter().map(|waiter| waiter.seq).min(),
        };
        ctx.spawn(wrap_future::<_, Self>(cycle.run()).map(|end, actor, ctx| actor.cycle_ended(end, ctx)));
    }

    fn cycle_ended(&mut self, end: std::result::Result<CycleEnd, Trouble>, ctx: &mut Context<Self>) {
        self.at_work = false;
        match end {
            Ok(end) => {
                self.failures = 0;
                self.skips_listed = end.has_skips;
                if end.tip.is_some() {
                    self.tip = end.tip;
                }
                self.paused = end.now.paused_since_ms.is_some();
                self.publish(&end.now);
                self.answer_waiters(&end);
                if end.committed {
                    self.keep_house(ctx);
                }
                let more =
                    end.committed || self.looked_in_vain || self.waiters.iter().any(|waiter| !waiter.served);
                let unserved = !self.paused && !self.waiters.is_empty() && end.now.waiting.ready > 0;
                if more || unserved {
                    ctx.notify(Wake);
                } else if let Some(pause) = end.look_again {
                    self.wake_after(pause, ctx);
                }
            }
            Err(Trouble::Panicked(message)) => {
                self.exit.panicked(message);
                ctx.stop();
            }
            Err(Trouble::QueueGone) => {
                self.exit.failed("the queue is not running");
                ctx.stop();
            }
            Err(Trouble::Failed(error)) => {
                self.failures = self.failures.saturating_add(1);
                let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(6) - 1));
                let fate = error.fate();
                warn!(self.log, "no commit for now"; "error" => %error, "next try in" => ?pause,
                      "needs somebody" => fate == Fate::Halt);
                if error.kind() == Kind::Internal {
                    self.exit.failed(error.to_string());
                    ctx.stop();
                    return;
                }
                self.wake_after(pause, ctx);
            }
        }
    }

    /// Every commit makes a pack. Nothing waits for their merging, or a first backup would pile up thousands.
    fn keep_house(&mut self, ctx: &mut Context<Self>) {
        let seat = self.seat.clone();
        let work = move |progress: &Progress| merge_in_repository(&seat, progress);
        self.housekeeper.begin(ctx, |actor: &mut Self| &mut actor.housekeeper, work);
    }

    fn answer_waiters(&mut self, end: &CycleEnd) {
        if end.now.paused_since_ms.is_some() {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.answer.send(Err(Refusal::Paused));
            }
            return;
        }
        if let Some(reason) = &end.unavailable {
            for waiter in self.waiters.drain(..) {
                let _ = waiter.answer.send(Err(Refusal::RootUnavailable(reason.clone())));
            }
            return;
        }
        let Some(settled) = end.settled_up_to else { return };
        let tip = self.tip;
        let (done, waiting) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter| waiter.served && waiter.seq <= settled);
        self.waiters = waiting;
        for waiter in done {
            let waiter: Waiter = waiter;
            let _ = waiter.answer.send(Ok(tip));
        }
    }

    fn wake_after(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        self.alarm = Some(ctx.run_later(pause, |actor, ctx| {
            actor.alarm = None;
            actor.work(ctx);
        }));
    }

    fn publish(&self, now: &WaitingNow) {
        self.seat.common.board.publish_repository(RepositoryStatus {
            name: self.seat.settings.name.clone(),
            paused: now.paused_since_ms.is_some(),
            pending: now.waiting.rows as u64,
            commit: self.tip.map(|tip| tip.to_string()),
        });
    }
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:committer:started");
        self.publish(&WaitingNow::default());
        let start = Start {
            seat: self.seat.clone(),
            exit: self.exit.clone(),
            queue: self.queue.clone(),
            log: self.log.clone(),
        };
        ctx.spawn(wrap_future::<_, Self>(start.run()).map(|started, actor, ctx| match started {
            Ok(tip) => {
                actor.ready = true;
                actor.tip = tip;
                actor.seat.nudge_pushers();
                actor.keep_house(ctx);
                actor.work(ctx);
            }
            Err(trouble) => {
                match trouble {
                    Trouble::Panicked(message) => actor.exit.panicked(message),
                    Trouble::QueueGone => actor.exit.failed("the queue is not running"),
                    Trouble::Failed(error) => actor.exit.failed(error.to_string()),
                }
                ctx.stop();
            }
        }));
        let queued = self.seat.queued.clone();
        let own = ctx.address().recipient::<Wake>();
        ctx.spawn(wrap_future(async move {
            loop {
                queued.nudged().await;
                own.do_send(Wake);
            }
        }));
    }
}

impl Handler<Wake> for Committer {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        fault::point("actor:committer:handle");
        self.work(ctx);
    }
}

impl Handler<PauseChanged> for Committer {
    type Result = ();

    fn handle(&mut self, _: PauseChanged, ctx: &mut Self::Context) {
        self.work(ctx);
    }
}

impl Handler<CommitUpTo> for Committer {
    type Result = ResponseFuture<std::result::Result<Option<Oid>, Refusal>>;

    fn handle(&mut self, message: CommitUpTo, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.waiters.push(Waiter { seq: message.seq, served: false, answer });
        self.work(ctx);
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(Refusal::NotRunning("the committer was restarted".to_owned())))
        })
    }
}

/// Why a sequence of steps ended early.
enum Trouble {
    Failed(Error),
    Panicked(String),
    QueueGone,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Failed(error)
    }
}

impl From<actix::MailboxError> for Trouble {
    fn from(_: actix::MailboxError) -> Self {
        Trouble::QueueGone
    }
}

async fn run_job<T: Send + 'static>(
    exit: &ExitHandle,
    name: &str,
    work: impl FnOnce(&Progress) -> Result<T> + Send + 'static,
) -> std::result::Result<T, Trouble> {
    match job::run(exit, name, work).await {
        job::JobOutcome::Finished(result) => Ok(result?),
        job::JobOutcome::Panicked(message) => Err(Trouble::Panicked(format!("in {name}: {message}"))),
    }
}

/// The first steps of a committer's life: the repository exists, and no crash's half is left in it.
struct Start {
    seat: Arc<RepositorySeat>,
    exit: ExitHandle,
    queue: Addr<Queue>,
    log: Logger,
}

impl Start {
    async fn run(self) -> std::result::Result<Option<Oid>, Trouble> {
        let name = self.seat.settings.name.clone();
        let (seat, reader) = (self.seat.clone(), self.seat.common.store.reader());
        let staged = run_job(&self.exit, "recover", move |_| recover(&seat, &reader)).await?;
        match staged {
            Some((Recovered::Settle, staged)) => {
                info!(self.log, "a commit that was on its way is settled");
                let settlement = staged.settlement;
                self.queue.send(Settle { repository: name.clone(), settlement }).await??;
            }
            Some((Recovered::Drop, _)) => {
                info!(self.log, "a commit that was on its way is undone; its changes are still queued");
                self.queue.send(Unstage(name.clone())).await??;
            }
            None => {}
        }
        let seat = self.seat.clone();
        let log = self.log.clone();
        run_job(&self.exit, "adopt", move |progress| adopt_history(&seat, &log, progress)).await?;
        let (seat, reader) = (self.seat.clone(), self.seat.common.store.reader());
        let (tip, trusted) = run_job(&self.exit, "check", move |_| check_cache(&seat, &reader)).await?;
        if !trusted {
            warn!(
                self.log,
                "the cache of known files does not belong to this history; everything is read again"
            );
            self.queue.send(DistrustFiles(name)).await??;
        }
        Ok(tip)
    }
}

/// Opens or makes the repository, sweeps leftovers, and finishes or undoes a staged commit on disk.
fn recover(seat: &RepositorySeat, reader: &StoreReader) -> Result<Option<(Recovered, StagedCommit)>> {
    fault::point("actor:committer:job");
    if let Some(parent) = seat.path.parent() {
        sweep_unfinished(parent)?;
    }
    let (repository, _) = Repository::open_or_create(&seat.path, &seat.branch()?, "state")?;
    refs::sweep_stale_locks(&seat.path, Duration::ZERO, std::time::SystemTime::now());
    let staged = reader.staged(&seat.settings.name)?;
    let kept = staged.as_ref().map(|staged| staged.pack.as_str());
    pack::sweep_temporary(&repository.pack_directory(), kept)?;
    let Some(staged) = staged else { return Ok(None) };
    let recovered = snapshot::recover(&repository, &staged)?;
    Ok(Some((recovered, staged)))
}

/// Continues a remote's history where this machine has none.
fn adopt_history(seat: &RepositorySeat, log: &Logger, progress: &Progress) -> Result<()> {
    let repository = Repository::open(&seat.path)?;
    let branch = seat.branch()?;
    if repository.reference(&branch)?.is_some()
        || seat.common.store.reader().checkpoint(&seat.settings.name)?.is_some()
    {
        return Ok(());
    }
    let roots: Vec<RootName> = seat.roots.iter().map(|root| root.name.clone()).collect();
    let mut offers = Vec::new();
    for remote in &seat.settings.remotes {
        let asked = transport::connect(&remote.url, &branch).and_then(|(mut transport, _)| {
            adopt::ask(&remote.name, transport.as_mut(), &branch, &seat.common.instance, &roots)
        });
        match asked {
            Ok(offer) => offers.extend(offer),
            Err(error) => {
                warn!(log, "a remote cannot be asked for its history; it is compared when it is reached";
                                "remote" => %remote.name, "error" => %error)
            }
        }
    }
    let Some(offer) = adopt::leading(&offers) else { return Ok(()) };
    let Some(remote) = seat.settings.remotes.iter().find(|remote| remote.name == offer.remote) else {
        return Ok(());
    };
    info!(log, "the state is new here and a remote has our history: continuing it"; "remote" => %remote.name,
          "commit" => %offer.tip);
    let (mut transport, _) = transport::connect(&remote.url, &branch)?;
    adopt::take_over(&repository, &branch, transport.as_mut(), offer, progress)
}

/// The branch's tip, and whether the stat cache may be believed: its checkpoint is in the tip's history.
fn check_cache(seat: &RepositorySeat, reader: &StoreReader) -> Result<(Option<Oid>, bool)> {
    let repository = Repository::open(&seat.path)?;
    let tip = repository.reference(&seat.branch()?)?;
    let Some(checkpoint) = reader.checkpoint(&seat.settings.name)? else {
        let files = reader.files(&seat.settings.name)?;
        let mut any = false;
        for root in seat.roots.iter() {
            any |= files.has_any(&root.name)?;
        }
        return Ok((tip, !any));
    };
    let commit = snapshot::oid(&checkpoint.commit)?;
    let trusted = match tip {
        Some(tip) => repository.is_ancestor(commit, tip)?,
        // The branch has a new name (its template has a date): it continues from the checkpoint.
        None => repository.has_commit(commit),
    };
    Ok((tip.or(Some(commit).filter(|_| trusted)), trusted))
}

/// What a cycle came to.
struct CycleEnd {
    now: WaitingNow,
    committed: bool,
    tip: Option<Oid>,
    /// Every change up to this is in a commit or listed as skipped.
    settled_up_to: Option<u64>,
    unavailable: Option<String>,
    has_skips: bool,
    look_again: Option<Duration>,
}

/// One look at the queue, and one commit if it is time.
struct Cycle {
    seat: Arc<RepositorySeat>,
    exit: ExitHandle,
    queue: Addr<Queue>,
    log: Logger,
    eager: bool,
    list_skips: bool,
    lowest_waiter: Option<u64>,
}

impl Cycle {
    async fn run(self) -> std::result::Result<CycleEnd, Trouble> {
        let repository = self.seat.settings.name.clone();
        let up_to = self.seat.settings.batch.files.max(1);
        let look = LookAtWaiting { repository: repository.clone(), up_to };
        let now = self.queue.send(look).await??;
        let mut end = CycleEnd {
            committed: false,
            tip: None,
            settled_up_to: None,
            unavailable: None,
            has_skips: self.list_skips,
            look_again: None,
            now,
        };
        if end.now.paused_since_ms.is_some() {
            return Ok(end);
        }
        end.look_again = self.pause_before_commit(&end.now);
        if self.eager || end.look_again.is_some_and(|pause| pause.is_zero()) {
            self.commit(&mut end).await?;
            let look = LookAtWaiting { repository: repository.clone(), up_to };
            end.now = self.queue.send(look).await??;
            end.look_again = self.pause_before_commit(&end.now);
        }
        if let Some(seq) = self.lowest_waiter {
            let left = self.queue.send(CountUnsettled { repository, up_to: seq }).await??;
            end.settled_up_to = (left == 0).then_some(seq);
        }
        Ok(end)
    }

    /// How long to wait for more rows; zero: commit now; `None`: nothing waits.
    fn pause_before_commit(&self, now: &WaitingNow) -> Option<Duration> {
        let waiting = &now.waiting;
        let until = |at_ms: i64| Duration::from_millis(u64::try_from(at_ms - now_ms()).unwrap_or(0));
        let batch = &self.seat.settings.batch;
        let postponed = waiting.next_ready_ms.map(until);
        let ready = waiting.oldest_since_ms.map(|since| {
            if waiting.ready >= batch.files || waiting.deep {
                return Duration::ZERO;
            }
            until(since.saturating_add(i64::try_from(batch.after.as_millis()).unwrap_or(i64::MAX)))
        });
        match (ready, postponed) {
            (Some(ready), Some(postponed)) => Some(ready.min(postponed)),
            (ready, postponed) => ready.or(postponed),
        }
    }

    async fn commit(&self, end: &mut CycleEnd) -> std::result::Result<(), Trouble> {
        let repository = self.seat.settings.name.clone();
        let most = self.seat.settings.batch.files.max(WALK_FINDINGS);
        let take = TakeBatch { repository: repository.clone(), most, eager: self.eager };
        let rows = self.queue.send(take).await??;
        if rows.is_empty() {
            return Ok(());
        }
        let (seat, log) = (self.seat.clone(), self.log.clone());
        let built = run_job(&self.exit, "build", move |progress| build(&seat, rows, progress)).await?;
        let (settlement, summary) = match built {
            Built::Unchanged(settlement, summary) => (*settlement, summary),
            Built::Commit(staged, summary) => {
                let staged = Arc::new(*staged);
                let stage = Stage { repository: repository.clone(), staged: staged.clone() };
                self.queue.send(stage).await??;
                let (seat, publishing) = (self.seat.clone(), staged.clone());
                let published = run_job(&self.exit, "publish", move |progress| {
                    let opened = Repository::open(&seat.path)?;
                    snapshot::publish(&opened, &publishing, progress)
                })
                .await;
                if let Err(Trouble::Failed(error)) = published {
                    self.undo(staged).await?;
                    return Err(Trouble::Failed(error));
                }
                published?;
                end.committed = true;
                end.tip = Some(snapshot::oid(&staged.commit)?);
                let settlement = staged.settlement.clone();
                (settlement, summary)
            }
        };
        let moves_on = !settlement.rows.is_empty();
        let found_skips = self.list_skips || settlement.rows.iter().any(is_skip);
        self.queue.send(Settle { repository: repository.clone(), settlement }).await??;
        if end.committed {
            self.seat.activity.add(summary.added + summary.changed, summary.bytes);
            self.seat.nudge_pushers();
            info!(log, "committed"; "commit" => end.tip.map(|tip| tip.to_string()), "added" => summary.added,
                  "changed" => summary.changed, "deleted" => summary.deleted, "bytes" => summary.bytes,
                  "pack_bytes" => summary.pack_bytes);
        } else if !moves_on {
            end.look_again = Some(FIRST_PAUSE);
        }
        end.has_skips = self.report(&summary, found_skips).await?;
        end.unavailable = summary.unavailable.first().map(|root| root.reason.clone());
        Ok(())
    }

    /// A staged commit whose branch did not move is taken back; its rows are all still queued.
    async fn undo(&self, staged: Arc<StagedCommit>) -> std::result::Result<(), Trouble> {
        let seat = self.seat.clone();
        let recovered = run_job(&self.exit, "undo", {
            let staged = staged.clone();
            move |_| snapshot::recover(&Repository::open(&seat.path)?, &staged)
        })
        .await?;
        let repository = self.seat.settings.name.clone();
        match recovered {
            Recovered::Drop => self.queue.send(Unstage(repository)).await??,
            Recovered::Settle => {
                let settlement: Settlement = staged.settlement.clone();
                self.queue.send(Settle { repository, settlement }).await??;
            }
        }
        Ok(())
    }

    /// Tells the watchers what the batch saw of their roots. Returns whether anything is skipped now.
    async fn report(&self, summary: &Summary, list_skips: bool) -> std::result::Result<bool, Trouble> {
        let skips = if list_skips {
            let (reader, name) = (self.seat.common.store.reader(), self.seat.settings.name.clone());
            Some(run_job(&self.exit, "list skipped", move |_| reader.skipped(&name, usize::MAX)).await?.1)
        } else {
            None
        };
        for root in self.seat.roots.iter() {
            let unavailable = summary
                .unavailable
                .iter()
                .find(|unavailable| unavailable.root == root.name)
                .map(|u| u.reason.clone());
            let walk = summary.walks.get(&root.name).copied();
            let skipped = skips.as_ref().map(|all| {
                let of_root: Vec<_> = all.iter().filter(|skip| skip.root == root.name).collect();
                let listed = of_root.iter().take(LISTED_SKIPS).map(|skip| SkippedFile {
                    path: skip.path.to_string(),
                    path_b64: crate::control::exact_if_lossy(skip.path.as_bytes()),
                    reason: format!("{}: {}", skip.failure.reason.as_str(), skip.failure.message),
                });
                (of_root.len() as u64, listed.collect())
            });
            let seen = RootSeen { unavailable, walk, skipped };
            if let Some(watcher) = self.seat.watchers.get(&root.name).and_then(|place| place.address()) {
                let _ = watcher.send(seen).await;
            }
        }
        Ok(skips.is_some_and(|skips| !skips.is_empty()))
    }
}

fn is_skip(outcome: &backupbot_core::store::checkpoints::RowOutcome) -> bool {
    matches!(outcome.verdict, backupbot_core::store::changes::RowVerdict::Again { .. })
}

fn build(seat: &RepositorySeat, rows: Vec<TakenRow>, progress: &Progress) -> Result<Built> {
    fault::point("actor:committer:job");
    let repository = Repository::open(&seat.path)?;
    let reader = seat.common.store.reader();
    let checkpoint = reader.checkpoint(&seat.settings.name)?;
    let base = checkpoint.as_ref().map(|checkpoint| snapshot::oid(&checkpoint.commit)).transpose()?;
    let files = reader.files(&seat.settings.name)?;
    let branch = seat.branch()?;
    let batch = Batch {
        repository: &repository,
        branch: &branch,
        base,
        identity: (&seat.common.identity.name, &seat.common.identity.email),
        instance: &seat.common.instance,
        tags: &seat.settings.tags,
        roots: &seat.roots,
        rows,
        files: &files,
        limit: Limit {
            findings: seat.settings.batch.files.max(WALK_FINDINGS),
            bytes: seat.settings.batch.bytes,
        },
        number: checkpoint.map_or(0, |checkpoint| checkpoint.batch) + 1,
        threads: std::thread::available_parallelism().map_or(2, usize::from).min(8),
    };
    snapshot::build(batch, progress)
}
