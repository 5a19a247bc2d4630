//! `backupbot once`: scan, commit, push, verify, exit.
//!
//! The same tree as the daemon's, without the API. It ends when everything is at every remote, or when every
//! remote was tried with everything that could be committed: what cannot be reached now is the next run's.

use std::time::{Duration, Instant};

use backupbot_actors::board::Board;
use backupbot_actors::control::{Control, Flushed};
use backupbot_actors::root;
use backupbot_actors::seat::now_ms;
use backupbot_core::audit::{Audit, Event};
use backupbot_core::config::{LogConfig, LogLevel};
use backupbot_core::store::{Store, StoreReader};
use serde_json::json;
use slog::{Logger, warn};

use super::control::{summary, tell_skipped};
use super::run::beside_meter;
use crate::boot;
use crate::cli::{Invocation, Once};
use crate::exit::{Exit, Failure};
use crate::logging::{self, Log};
use crate::meter::{Meter, done_so_far};
use crate::output;
use crate::press::{self, Pressed};
use crate::race::{First, first};
use crate::settings::{self, Settings, World};
use crate::shutdown::{self, Signals};
use crate::spans;

/// When a root is unavailable, the other roots' pushes are waited for, but not through a long backoff.
const OTHERS_WITHIN: Duration = Duration::from_secs(60);

/// What came of it.
struct Outcome {
    exit: Exit,
    /// What was not done, one line each.
    why: Vec<String>,
    reached: Option<Flushed>,
    done: (u64, u64),
}

pub fn once(world: &World, invocation: &Invocation, once: &Once) -> Result<Exit, Failure> {
    boot::keep_files_private();
    let mut settings = settings::for_work(world, invocation, &once.target)?;
    let meter = Meter::default();
    let Log { root: log, guard, .. } = logging::start(&settings.config.log, &meter)?;
    boot::log_panics(&log);
    let outcome = work(world, &mut settings, once, &meter, &log);
    meter.hide();
    drop((log, guard));
    tell(&outcome?, invocation.cli.global.json)
}

/// Commits the present state here, without pushing. The state directory stays locked for the rest of the process,
/// because the database stays open with it.
pub fn commit_here(
    world: &World,
    settings: &Settings,
    command: &str,
    within: Duration,
) -> Result<Flushed, Failure> {
    let meter = Meter::default();
    // Whoever restores is told what came of it; of the rest only what went wrong concerns him.
    let quiet =
        LogConfig { level: settings.config.log.level.min(LogLevel::Warning), ..settings.config.log.clone() };
    let Log { root: log, guard, .. } = logging::start(&quiet, &meter)?;
    let ground = boot::prepare(&mut settings.clone(), None, command, &world.host, &log)?;
    let mut settings = settings.clone();
    for repository in &mut settings.config.repositories {
        repository.remotes.clear();
    }
    let (store, audit, lock) = (ground.store, ground.audit, ground.lock);
    let (its_meter, its_log) = (meter.clone(), log.clone());
    let outcome = boot::on_a_thread_that_stays(move || {
        let system = actix_rt::System::new();
        let errand = Errand::Commit(within);
        let outcome = system.block_on(back_up(&settings, store, &audit, errand, &its_meter, &its_log));
        std::mem::forget(system);
        outcome
    })?;
    std::mem::forget(lock);
    meter.hide();
    drop((log, guard));
    let outcome = outcome?;
    match (outcome.exit, outcome.reached) {
        (Exit::Done | Exit::SomeSkipped, Some(flushed)) => Ok(flushed),
        (Exit::Done, None) => {
            Err(Failure::failed("the present state was committed, but the result cannot be read"))
        }
        (exit, _) => Err(Failure { exit, lines: outcome.why }),
    }
}

fn tell(outcome: &Outcome, as_json: bool) -> Result<Exit, Failure> {
    let mut exit = outcome.exit;
    if let Some(reached) = &outcome.reached {
        if as_json {
            output::json(&json!({"repositories": reached.repositories, "problems": outcome.why}))?;
        } else {
            let (files, bytes) = outcome.done;
            output::answer(&format!("{}\n{}", summary(reached), done_so_far(files, bytes)))?;
        }
        let skipped = tell_skipped(reached);
        if exit == Exit::Done {
            exit = skipped;
        }
    }
    for line in &outcome.why {
        output::complain(line);
    }
    Ok(exit)
}

fn work(
    world: &World,
    settings: &mut Settings,
    once: &Once,
    meter: &Meter,
    log: &Logger,
) -> Result<Outcome, Failure> {
    let ground = boot::prepare(settings, once.target.adopt, "once", &world.host, log)?;
    let timeout = once.timeout;
    let (store, audit) = (ground.store, ground.audit);
    let (settings, meter, log) = (settings.clone(), meter.clone(), log.clone());
    let outcome = boot::on_a_thread_that_stays(move || {
        let system = actix_rt::System::new();
        let errand = Errand::Push(timeout);
        let outcome = system.block_on(back_up(&settings, store, &audit, errand, &meter, &log));
        std::mem::forget(system);
        outcome
    })?;
    drop(ground.lock);
    outcome
}

async fn back_up(
    settings: &Settings,
    store: Store,
    audit: &Audit,
    errand: Errand,
    meter: &Meter,
    log: &Logger,
) -> Result<Outcome, Failure> {
    let mut config = settings.config.clone();
    for repository in &mut config.repositories {
        // Schedules are for who stays: `verify` and `drill` do it on demand.
        (repository.verify, repository.drill) = (None, None);
    }
    let config = &config;
    let mut signals = Signals::install().map_err(|error| Failure::io("cannot listen for signals", error))?;
    let reader = store.reader();
    let started_ms = now_ms();
    let (mut tree, control) = root::start(config, &store, &Board::new(), audit, None, log);

    let effort = beside_meter(&control, meter, run_errand(&control, &reader, errand));
    let (exit, why) = match first(first(signals.stop_asked(), &mut tree.ended), effort).await {
        First::Right((pressed, others)) => verdict(pressed, &others, errand.within()),
        First::Left(First::Left(name)) => (
            Exit::Failed,
            vec![format!("interrupted by {name}; what is committed is kept and pushed next time")],
        ),
        First::Left(First::Right(reason)) => {
            let line = format!("the supervisor gave up: {reason}");
            return Err(Failure::new(Exit::GaveUp, line));
        }
    };
    let reached = press::reached(&control, &reader, started_ms);
    let reached =
        reached.inspect_err(|error| warn!(log, "the result cannot be read"; "error" => %error)).ok();
    let done = control.seats().into_iter().map(|seat| seat.activity.done());
    let done = done.fold((0, 0), |sum, done| (sum.0 + done.0, sum.1 + done.1));
    // Whatever it is busy with after a signal is not worth waiting for; nothing is lost.
    let stopping = shutdown::stop(tree, config.shutdown_grace, log);
    if let First::Left(_) = first(stopping, signals.stop_asked()).await {
        shutdown::mark_stopped(&store, log);
    }
    audit.record(Event::new("stop", if exit == Exit::Done { "ok" } else { "unfinished" }));
    audit.sync();
    Ok(Outcome { exit, why, reached, done })
}

/// What the tree is started for.
#[derive(Debug, Clone, Copy)]
enum Errand {
    /// To commit what there is, within this time.
    Commit(Duration),
    /// To push it too.
    Push(Option<Duration>),
}

impl Errand {
    fn within(self) -> Option<Duration> {
        match self {
            Errand::Commit(within) => Some(within),
            Errand::Push(within) => within,
        }
    }
}

async fn run_errand(control: &Control, reader: &StoreReader, errand: Errand) -> (Pressed, Vec<String>) {
    match errand {
        Errand::Push(timeout) => flush_what_can_be(control, reader, timeout).await,
        Errand::Commit(within) => {
            let compared = actix_rt::time::timeout(within, press::compared(control));
            let pressed = match compared.await {
                Ok(()) => press::commit(control, within).await,
                Err(_) => Pressed::TimedOut,
            };
            (pressed, Vec::new())
        }
    }
}

/// Compares every root, then flushes; when that is refused (one root is unavailable, one remote halted), the
/// rest is still tried. Returns also whether the rest was done in time.
async fn flush_what_can_be(
    control: &Control,
    reader: &StoreReader,
    timeout: Option<Duration>,
) -> (Pressed, Vec<String>) {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let left = || deadline.map_or(press::WITHOUT_END, |at| at.saturating_duration_since(Instant::now()));
    let since_ms = now_ms();
    if actix_rt::time::timeout(left(), press::compared(control)).await.is_err() {
        return (Pressed::TimedOut, Vec::new());
    }
    let pressed = press::press(control, reader, left()).await;
    let mut others = Vec::new();
    if matches!(pressed, Pressed::Refused(_)) {
        let tried = press::tried(control, reader, since_ms);
        if actix_rt::time::timeout(left().min(OTHERS_WITHIN), tried).await.is_err() {
            others.push("not every other remote was reached in time; they are tried next time".to_owned());
        }
    }
    (pressed, others)
}

fn verdict(pressed: Pressed, others: &[String], timeout: Option<Duration>) -> (Exit, Vec<String>) {
    let (exit, mut why) = match pressed {
        Pressed::Done => (Exit::Done, Vec::new()),
        Pressed::Refused(reason) => (Exit::Failed, vec![format!("not everything is protected: {reason}")]),
        Pressed::OutOfReach(remotes) => {
            let kept = "the commits are kept here and pushed next time";
            (Exit::Failed, remotes.into_iter().map(|remote| format!("{remote}; {kept}")).collect())
        }
        Pressed::Broken(reason) => (Exit::Failed, vec![reason]),
        Pressed::TimedOut => {
            let within = timeout
                .map_or(String::new(), |timeout| format!(" within {}", spans::in_words(timeout.as_secs())));
            (
                Exit::TimedOut,
                vec![format!("not done{within}; what is committed is kept and pushed next time")],
            )
        }
        Pressed::Failed(error) => (Exit::Failed, vec![error.to_string()]),
    };
    why.extend_from_slice(others);
    (exit, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backupbot_core::error::{Error, Kind};

    #[test]
    fn each_end_has_its_exit_code_and_says_why() {
        let cases = [
            (Pressed::Done, Exit::Done, ""),
            (Pressed::Refused("documents: it is paused".into()), Exit::Failed, "it is paused"),
            (
                Pressed::OutOfReach(vec!["documents: remote usb: gone".into()]),
                Exit::Failed,
                "usb: gone; the commits",
            ),
            (Pressed::Broken("committer keeps failing".into()), Exit::Failed, "keeps failing"),
            (Pressed::TimedOut, Exit::TimedOut, "not done within 1 min"),
            (Pressed::Failed(Error::new(Kind::Store, "no store")), Exit::Failed, "no store"),
        ];
        for (pressed, exit, says) in cases {
            let (found, why) = verdict(pressed, &[], Some(Duration::from_secs(60)));
            assert_eq!(found, exit);
            assert!(why.join("\n").contains(says), "{why:?}");
            assert_eq!(why.is_empty(), exit == Exit::Done);
        }
    }
}
