//! The health checker: looks, again and again, whether what backing up rests on is as it should be.
//!
//! Out come findings on the board, each with its state, since when, and a remedy; `status`, alerts and metrics read them.
//! It decides when something is looked at; the looks are jobs, of which two run at most: one at things of this machine,
//! one at a remote, so that a remote that does not answer delays no look at the disk.
//!
//! | what | how often |
//! |---|---|
//! | room, lag of each remote, watches, clock | [`LOOK_EVERY`] |
//! | bytes of each repository | [`SIZES_EVERY`] |
//! | a remote, if no push told of it meanwhile, none is under way and it is not halted | [`REMOTE_EVERY`] |
//! | a remote that refused | [`REFUSED_EVERY`] |
//! | a sample of each repository | [`SAMPLE_EVERY`], first after some minutes; after damage sooner |

mod looks;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context};
use backupbot_core::clock;
use backupbot_core::config::Alerts;
use backupbot_core::error::{Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::health::Health;
use backupbot_core::names::{RemoteName, RepositoryName};
use slog::{Logger, o, warn};

use self::looks::{Around, Reached};
use self::rules::Jump;
pub use self::rules::reachability;
use crate::board::{Board, Check, Condition, Finding, Moment, RemoteState, Subject};
use crate::job::{JobOutcome, JobSlot};
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;

/// Between two looks around.
pub const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Between two countings of bytes.
pub const SIZES_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at one remote.
pub const REMOTE_EVERY: Duration = Duration::from_secs(300);
/// The same after it refused us: a wrong password every few minutes locks an account.
pub const REFUSED_EVERY: Duration = Duration::from_secs(3600);
/// Between two samples of one repository.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// The first sample, and the next one after damage.
const SAMPLE_SOON: Duration = Duration::from_secs(600);
/// The first looks at remotes follow each other in this pace.
const FIRST_LOOKS: Duration = Duration::from_secs(5);
/// What the clock is corrected by without that being news.
const SLACK_BACK_MS: i64 = 2_000;
const SLACK_FORWARD_MS: i64 = 60_000;

type Place = (RepositoryName, RemoteName);

/// The actor.
pub struct HealthChecker {
    seats: Vec<Arc<RepositorySeat>>,
    limits: Alerts,
    board: Board,
    log: Logger,
    /// The test build may ask for another pace of everything.
    pace: Option<Duration>,
    here: JobSlot,
    far: JobSlot,
    sizes_due: Instant,
    remotes_due: BTreeMap<Place, Instant>,
    samples_due: BTreeMap<RepositoryName, Instant>,
    /// The wall clock and the one that nobody sets, at the last look.
    clocks: Option<(i64, i64)>,
    jump: Option<Jump>,
}

impl HealthChecker {
    /// Looks after these repositories.
    pub fn new(
        seats: Vec<Arc<RepositorySeat>>,
        limits: Alerts,
        board: &Board,
        log: &Logger,
        exit: &ExitHandle,
    ) -> Self {
        let (now, pace) = (Instant::now(), pace());
        let remotes = seats.iter().flat_map(|seat| {
            seat.settings.remotes.iter().map(|remote| (seat.settings.name.clone(), remote.name.clone()))
        });
        let first = pace.unwrap_or(FIRST_LOOKS);
        let remotes_due = remotes.zip(1..).map(|(place, number)| (place, now + first * number)).collect();
        let soon = pace.unwrap_or(SAMPLE_SOON);
        let samples_due = seats
            .iter()
            .zip(1..)
            .map(|(seat, number)| (seat.settings.name.clone(), now + soon * number))
            .collect();
        Self {
            seats,
            limits,
            board: board.clone(),
            log: log.new(o!("actor" => "health")),
            pace,
            here: JobSlot::new(exit),
            far: JobSlot::new(exit),
            sizes_due: now,
            remotes_due,
            samples_due,
            clocks: None,
            jump: None,
        }
    }

    fn every(&self, otherwise: Duration) -> Duration {
        self.pace.unwrap_or(otherwise)
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        self.look_at_clock();
        self.look_at_board();
        self.look_around(ctx);
        self.look_at_remotes(ctx);
    }

    fn publish(&self, finding: Finding) {
        let former = self.board.health_of(finding.check, &finding.subject);
        if finding.state > Condition::Ok && former.is_none_or(|row| row.finding.state != finding.state) {
            let subject = &finding.subject;
            warn!(self.log, "a check found something"; "check" => ?finding.check, "message" => &finding.message,
                  "repository" => subject.repository.as_ref().map(ToString::to_string),
                  "remote" => subject.remote.as_ref().map(ToString::to_string),
                  "root" => subject.root.as_ref().map(ToString::to_string), "remedy" => &finding.remedy);
        }
        self.board.publish_health(finding, Moment::now());
    }

    fn look_at_clock(&mut self) {
        // Without a clock that nobody sets there is nothing to compare with, and nothing is said.
        let Some(steady) = clock::awake_and_asleep_ms() else { return };
        let now = (now_ms(), steady);
        let jump = self.clocks.and_then(|before| clock::jump_between(before, now, SLACK_BACK_MS));
        if let Some(by_ms) = jump.filter(|by_ms| *by_ms < 0 || *by_ms > SLACK_FORWARD_MS) {
            self.jump = Some(Jump { by_ms, noticed: Instant::now() });
        }
        self.clocks = Some(now);
        self.publish(rules::clock(self.jump, Instant::now()));
    }

    /// What others have published already.
    fn look_at_board(&self) {
        for seat in &self.seats {
            let name = &seat.settings.name;
            for root in self.board.roots(name) {
                self.publish(rules::watching(name, &root.name, root.watch_limited.as_deref()));
            }
        }
    }

    fn look_around(&mut self, ctx: &mut Context<Self>) {
        if self.here.is_busy() {
            return;
        }
        let former = self.board.sizes();
        // One that has just been made is counted at the next look.
        let is_counted = |seat: &Arc<RepositorySeat>| former.repositories.contains_key(&seat.settings.name);
        let with_sizes = Instant::now() >= self.sizes_due || !self.seats.iter().all(is_counted);
        if with_sizes {
            self.sizes_due = Instant::now() + self.every(SIZES_EVERY);
        }
        let (seats, limits) = (self.seats.clone(), self.limits.clone());
        let work = move |progress: &_| looks::look_around(&seats, &limits, former, with_sizes, progress);
        let _ = self.here.start_catching(ctx, "look around", work, |actor: &mut Self, outcome, ctx| {
            if let Some(Around { findings, sizes }) = actor.result_of("this machine", outcome) {
                actor.board.publish_sizes(sizes);
                findings.into_iter().for_each(|finding| actor.publish(finding));
            }
            actor.take_sample(ctx);
        });
    }

    fn take_sample(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let due = self.seats.iter().find(|seat| {
            let is_due = self.samples_due.get(&seat.settings.name).is_some_and(|due| *due <= now);
            // Until the committer has taken its first steps, what a crash left may lie about.
            is_due && seat.settled.may_push()
        });
        let Some(seat) = due.cloned().filter(|_| !self.here.is_busy()) else { return };
        let name = seat.settings.name.clone();
        self.samples_due.insert(name.clone(), now + self.every(SAMPLE_EVERY));
        let work = {
            let seat = seat.clone();
            move |progress: &_| looks::sample(&seat, progress)
        };
        let _ = self.here.start_catching(ctx, "take a sample", work, move |actor: &mut Self, outcome, _| {
            let Some(health) = actor.result_of("a repository", outcome) else { return };
            if let Health::Damaged(reason) = &health {
                seat.suspect(reason);
                actor.samples_due.insert(name.clone(), Instant::now() + actor.every(SAMPLE_SOON));
            }
            if let Some(finding) = rules::integrity(&name, health) {
                actor.publish(finding);
            }
        });
    }

    fn look_at_remotes(&mut self, ctx: &mut Context<Self>) {
        if self.far.is_busy() {
            return;
        }
        let now = Instant::now();
        let due: Vec<Place> =
            self.remotes_due.iter().filter(|(_, due)| **due <= now).map(|(place, _)| place.clone()).collect();
        for place in due {
            if let Some(rest) = self.rest_of(&place) {
                self.remotes_due.insert(place, now + rest);
                continue;
            }
            let seat = self.seats.iter().find(|seat| seat.settings.name == place.0).cloned();
            let remote = seat
                .as_ref()
                .and_then(|seat| seat.settings.remotes.iter().find(|remote| remote.name == place.1).cloned());
            let (Some(seat), Some(remote)) = (seat, remote) else { continue };
            self.remotes_due.insert(place.clone(), now + self.every(REMOTE_EVERY));
            let work = move |progress: &_| looks::look_at_remote(&seat, &remote, progress);
            let _ = self.far.start_catching(
                ctx,
                "look at a remote",
                work,
                move |actor: &mut Self, outcome, ctx| {
                    if let Some(Reached { finding, is_refusal }) = actor.result_of("a remote", outcome) {
                        if is_refusal {
                            actor.remotes_due.insert(place, Instant::now() + actor.every(REFUSED_EVERY));
                        }
                        finding.into_iter().for_each(|finding| actor.publish(finding));
                    }
                    actor.look_at_remotes(ctx);
                },
            );
            return;
        }
    }

    /// How long a remote that is due is left alone all the same: it was heard of meanwhile, or its pusher is at it.
    fn rest_of(&self, place: &Place) -> Option<Duration> {
        let every = self.every(REMOTE_EVERY);
        let state = self.board.remotes(&place.0).into_iter().find(|remote| remote.name == place.1)?.state;
        if matches!(state, RemoteState::Pushing | RemoteState::Halted) {
            return Some(every);
        }
        let row = self.board.health_of(Check::RemoteReachable, &Subject::remote(&place.0, &place.1))?;
        let age = Duration::from_secs(Moment::now().seconds_since(row.checked));
        every.checked_sub(age).filter(|rest| rest.as_secs() > 0)
    }

    /// A look that could not be made says nothing; it is made again.
    fn result_of<T>(&self, of: &str, outcome: JobOutcome<T>) -> Option<T> {
        let result: Result<T> = match outcome {
            JobOutcome::Finished(result) => result,
            JobOutcome::Panicked(message) => {
                warn!(self.log, "a check panicked; it is made again"; "of" => of, "message" => message);
                return None;
            }
        };
        match result {
            Ok(found) => Some(found),
            Err(error) if error.kind() == Kind::Cancelled => None,
            Err(error) => {
                warn!(self.log, "a check could not be made; it is made again"; "of" => of, "error" => %error);
                None
            }
        }
    }
}

impl Actor for HealthChecker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:health:started");
        self.look(ctx);
        ctx.run_interval(self.every(LOOK_EVERY), Self::look);
    }
}

fn pace() -> Option<Duration> {
    if !cfg!(feature = "fault-points") {
        return None;
    }
    let milliseconds = std::env::var("BACKUPBOT_FAULT_HEALTH_EVERY_MS").ok()?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}
