//! Who looks after the large contents of one repository once they are pushed: how full the remotes are, what can go here, and
//! whether each remote still has everything.
//!
//! | what | when |
//! |---|---|
//! | how full each remote is | every [`LOOK_EVERY`], and soon after an upload |
//! | contents that every remote has are removed here | every day, or as often as `lfs.keep_local` says if that is shorter |
//! | a place is scrubbed: a remote, or what is here | `lfs.scrub.every`, one at a time; after an attempt in vain [`TRY_AGAIN`] |
//! | [`PruneLarge`], [`ScrubLarge`] | when somebody asks |
//!
//! Two jobs run at most: a short one, and a scrub, which may take hours. Neither is waited for by anybody who commits or
//! pushes. What comes of them is on the board, in the audit log, and, of scrubs, in `scrubs.json`.

mod rounds;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use backupbot_core::config::Lfs;
use backupbot_core::error::{Error, Kind};
use backupbot_core::fault;
use backupbot_core::keeping::keeper::Order;
use backupbot_core::keeping::prune::Pruned;
use backupbot_core::keeping::scrubs::Scrubbed;
use backupbot_core::names::RemoteName;
use backupbot_core::priority;
use slog::{Logger, error, info, o, warn};
use tokio::sync::oneshot;

use self::rounds::Known;
pub(crate) use self::rounds::keeper;
use crate::board::{Moment, ScrubTrouble};
use crate::job::{JobOutcome, JobSlot};
use crate::measure;
use crate::messages::Wake;
use crate::seat::RepositorySeat;
use crate::supervision::ExitHandle;
use crate::trail;

/// Between two looks how full the remotes are.
pub const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// The first prune and the first scrubs are so long after the start.
const FIRST_WORK: Duration = Duration::from_secs(600);
/// After an upload one look in this time.
const AFTER_UPLOAD: Duration = Duration::from_secs(60);
/// Between two prunes, at most and at least.
const PRUNE_EVERY: Duration = Duration::from_secs(24 * 3600);
const PRUNE_NOT_SOONER: Duration = Duration::from_secs(3600);
/// Between two attempts to scrub a place that could not be looked at.
pub const TRY_AGAIN: Duration = Duration::from_secs(3600);
/// Between two looks what is due.
const TURN: Duration = Duration::from_secs(15);
/// Scrubs that somebody asked for and that did not begin yet.
const MOST_WISHES: usize = 100;

/// Removes here what every remote has, or says what would be removed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Pruned, Error>")]
pub struct PruneLarge {
    /// Only say it.
    pub dry_run: bool,
}

/// Scrubs as soon as it can be done; what comes of it is on the board.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct ScrubLarge {
    /// Only this remote. Without it: what is here, and every remote.
    pub remote: Option<RemoteName>,
    /// How, and under which number it is found again.
    pub order: Order,
}

/// A place, and what was said of it.
type Wish = (Option<RemoteName>, Order);

/// The actor.
pub struct LfsMonitor {
    seat: Arc<RepositorySeat>,
    log: Logger,
    /// The test build may ask for another pace.
    pace: Option<Duration>,
    short: JobSlot,
    long: JobSlot,
    started: Instant,
    looked: Option<Instant>,
    look_due: Instant,
    prune_due: Instant,
    prunes: VecDeque<(PruneLarge, oneshot::Sender<Result<Pruned, Error>>)>,
    scrubs: VecDeque<Wish>,
    /// Once it was looked at.
    known: Option<Known>,
    /// Places that could not be looked at, until then.
    rests: BTreeMap<Option<RemoteName>, Instant>,
}

impl LfsMonitor {
    /// One for the repository of `seat`.
    pub fn new(seat: Arc<RepositorySeat>, exit: &ExitHandle) -> Self {
        let name = seat.settings.name.to_string();
        let log = seat.common.log.new(o!("actor" => "lfs_monitor", "repository" => name));
        let (pace, now) = (pace(), Instant::now());
        Self {
            seat,
            log,
            pace,
            short: JobSlot::new(exit),
            long: JobSlot::new(exit),
            started: now,
            looked: None,
            look_due: now,
            prune_due: now + pace.unwrap_or(FIRST_WORK),
            prunes: VecDeque::new(),
            scrubs: VecDeque::new(),
            known: None,
            rests: BTreeMap::new(),
        }
    }

    fn every(&self, otherwise: Duration) -> Duration {
        self.pace.unwrap_or(otherwise)
    }

    fn lfs(&self) -> Lfs {
        self.seat.settings.lfs.clone().unwrap_or_default()
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        // Until then a branch may stand at what a crash left.
        if self.seat.settled.may_push() {
            self.do_short_work(ctx);
            self.do_long_work(ctx);
        }
    }

    fn do_short_work(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if self.short.is_busy() {
            return;
        }
        if let Some((wish, answer)) = self.prunes.pop_front() {
            self.prune(wish.dry_run, Some(answer), ctx);
        } else if now >= self.look_due {
            self.look(ctx);
        } else if now >= self.prune_due {
            let pause = self.lfs().keep_local.clamp(PRUNE_NOT_SOONER, PRUNE_EVERY);
            self.prune_due = now + self.every(pause);
            // Who has switched large contents off may be about to leave a remote.
            if self.seat.settings.lfs.is_some() {
                self.prune(false, None, ctx);
            }
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.looked = Some(now);
        self.look_due = now + self.every(LOOK_EVERY);
        let seat = self.seat.clone();
        let work = move |progress: &_| rounds::look(&seat, progress);
        let _ = self.short.start_catching(ctx, "look at large contents", work, |actor: &mut Self, outcome, ctx| {
            match finished(outcome) {
                Ok(known) => actor.known = Some(known),
                Err(error) if error.kind() == Kind::Cancelled => {}
                Err(error) => {
                    warn!(actor.log, "it cannot be told how full the remotes are; it is tried again"; "error" => %error);
                }
            }
            actor.turn(ctx);
        });
    }

    fn prune(
        &mut self,
        dry_run: bool,
        answer: Option<oneshot::Sender<Result<Pruned, Error>>>,
        ctx: &mut Context<Self>,
    ) {
        let seat = self.seat.clone();
        let work = move |progress: &_| {
            fault::point("actor:lfs_monitor:prune");
            rounds::prune(&seat, dry_run, progress)
        };
        let _ = self.short.start_catching(
            ctx,
            "prune large contents",
            work,
            move |actor: &mut Self, outcome, ctx| {
                let outcome = finished(outcome);
                actor.pruned(&outcome);
                if let Some(answer) = answer {
                    let _ = answer.send(outcome);
                }
                actor.turn(ctx);
            },
        );
    }

    fn pruned(&self, outcome: &Result<Pruned, Error>) {
        match outcome {
            Ok(pruned) if pruned.dry_run => {}
            Ok(pruned) => {
                if pruned.removed.objects > 0 {
                    info!(self.log, "large contents that every remote has were removed here";
                          "objects" => pruned.removed.objects, "bytes" => pruned.removed.bytes);
                }
                trail::pruned_large(&self.seat, pruned);
            }
            Err(error) if error.kind() == Kind::Cancelled => {}
            Err(error) => {
                warn!(self.log, "large contents could not be pruned; it is tried again"; "error" => %error)
            }
        }
    }

    fn do_long_work(&mut self, ctx: &mut Context<Self>) {
        if self.long.is_busy() {
            return;
        }
        let Some((remote, order)) = self.scrubs.pop_front().or_else(|| self.due()) else { return };
        let (seat, board, name) =
            (self.seat.clone(), self.seat.common.board.clone(), self.seat.settings.name.clone());
        board.scrub_begins(&name, remote.as_ref());
        let place = remote.clone();
        let work = move |progress: &_| {
            fault::point("actor:lfs_monitor:scrub");
            priority::lowest("scrub", || rounds::scrub(&seat, place.as_ref(), order, progress))
        };
        let _ = self.long.start_catching(ctx, "scrub", work, move |actor: &mut Self, outcome, ctx| {
            let trouble = match finished(outcome) {
                Ok(scrubbed) => {
                    actor.scrubbed(remote.as_ref(), &scrubbed);
                    None
                }
                Err(error) => Some(actor.not_scrubbed(remote.as_ref(), order, &error)),
            };
            // Who sees that it is over finds the result.
            board.scrub_ended(&name, remote.as_ref(), trouble);
            actor.turn(ctx);
        });
    }

    fn not_scrubbed(&mut self, remote: Option<&RemoteName>, order: Order, error: &Error) -> ScrubTrouble {
        let remote_name = remote.map(RemoteName::to_string);
        if error.kind() != Kind::Cancelled {
            let place = remote_name.as_deref().unwrap_or("here");
            warn!(self.log, "large contents could not be looked at; it is tried again"; "place" => place,
                  "error" => %error);
            self.rests.insert(remote.cloned(), Instant::now() + self.every(TRY_AGAIN));
        }
        ScrubTrouble {
            remote: remote_name,
            at: Moment::now(),
            order: order.number,
            message: error.to_string(),
        }
    }

    fn scrubbed(&mut self, remote: Option<&RemoteName>, scrubbed: &Scrubbed) {
        let seat = &self.seat;
        self.rests.remove(&remote.cloned());
        seat.common.audit.record(scrubbed.deed());
        if let Some(known) = &mut self.known {
            known.take(scrubbed.clone());
        }
        if let Some(remote) = remote {
            measure::lfs_verify_failed(seat.settings.name.as_str(), remote.as_str(), scrubbed.failures());
        }
        let (place, first) = (scrubbed.place(), scrubbed.named.first());
        if scrubbed.is_bad() {
            error!(self.log, "large contents are lost or damaged"; "place" => place, "lost" => scrubbed.lost,
                   "damaged" => scrubbed.damaged, "first" => first);
        } else if scrubbed.failures() > 0 {
            warn!(self.log, "large contents were lost or damaged, and are whole again"; "place" => place,
                  "brought" => scrubbed.brought, "replaced" => scrubbed.replaced);
        } else {
            info!(self.log, "large contents are where they should be"; "place" => place,
                  "objects" => scrubbed.asked, "read" => scrubbed.read);
        }
        if scrubbed.failures() > 0 {
            self.look_due = Instant::now();
        }
    }

    /// The place that has waited longest beyond its time.
    fn due(&self) -> Option<Wish> {
        let policy = self.lfs().scrub?;
        if self.started.elapsed() < self.every(FIRST_WORK) {
            return None;
        }
        let is_resting =
            |place: &Option<RemoteName>| self.rests.get(place).is_some_and(|until| Instant::now() < *until);
        rounds::due(&self.seat, self.known.as_ref()?, &policy, is_resting)
            .map(|place| (place, Order::default()))
    }
}

/// A panic is an error too: the others go on.
fn finished<T>(outcome: JobOutcome<T>) -> Result<T, Error> {
    match outcome {
        JobOutcome::Finished(result) => result,
        JobOutcome::Panicked(message) => Err(Error::new(Kind::Internal, format!("it panicked: {message}"))),
    }
}

fn pace() -> Option<Duration> {
    if !cfg!(feature = "fault-points") {
        return None;
    }
    let milliseconds = std::env::var("BACKUPBOT_FAULT_LFS_EVERY_MS").ok()?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}

impl Actor for LfsMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:lfs_monitor:started");
        self.seat.uploaded.clone().wake(ctx);
        self.turn(ctx);
        ctx.run_interval(self.every(TURN).min(TURN), Self::turn);
    }
}

impl Handler<Wake> for LfsMonitor {
    type Result = ();

    /// Something was uploaded.
    fn handle(&mut self, _: Wake, _: &mut Self::Context) {
        let since = self.looked.map_or(Duration::MAX, |looked| looked.elapsed());
        let pause = self.every(AFTER_UPLOAD).saturating_sub(since);
        self.look_due = self.look_due.min(Instant::now() + pause);
    }
}

impl Handler<PruneLarge> for LfsMonitor {
    type Result = ResponseFuture<Result<Pruned, Error>>;

    fn handle(&mut self, wish: PruneLarge, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.prunes.push_back((wish, answer));
        self.turn(ctx);
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(Error::cancelled())) })
    }
}

impl Handler<ScrubLarge> for LfsMonitor {
    type Result = Result<(), Error>;

    fn handle(&mut self, wish: ScrubLarge, ctx: &mut Self::Context) -> Self::Result {
        let places = match wish.remote {
            Some(remote) => vec![Some(remote)],
            None => {
                let remotes = self.seat.settings.remotes.iter().map(|remote| Some(remote.name.clone()));
                std::iter::once(None).chain(remotes).collect()
            }
        };
        for place in places {
            let wish = (place, wish.order);
            if self.scrubs.len() < MOST_WISHES && !self.scrubs.contains(&wish) {
                self.scrubs.push_back(wish);
            }
        }
        self.turn(ctx);
        Ok(())
    }
}
