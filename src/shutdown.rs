//! The end: signals, a last flush, the tree stopped in order, all within the grace that was configured.
//!
//! Nothing depends on an orderly end: a kill at any moment loses nothing. The last flush only shortens the
//! time for which something is unprotected, so it is given up when it leads nowhere, and a second signal
//! skips it.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use backupbot_actors::control::Control;
use backupbot_actors::root::Root;
use backupbot_actors::supervision::Spawned;
use backupbot_core::store::Store;
use slog::{Logger, error, info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::notify::Manager;
use crate::press::{self, Pressed};
use crate::race::{First, first};

/// The tree has this long even when the flush took all the grace, and after a second signal.
const AT_LEAST: Duration = Duration::from_secs(1);

/// How often the database is asked whether it is damaged.
const LOOK_AT_STORE: Duration = Duration::from_millis(500);

/// The signals that concern us.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on these signals do not end the process by themselves. Must be called within the system.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// A stream of the signals that ask for a reload.
    pub fn hang_ups(&self) -> io::Result<Signal> {
        signal(SignalKind::hangup())
    }

    /// Completes at the next signal that asks for a stop, with its name.
    pub async fn stop_asked(&mut self) -> &'static str {
        poll_fn(|cx| {
            // It ends nothing. Who wants to obey it asks for a stream of its own.
            while let Poll::Ready(Some(())) = self.hang_up.poll_recv(cx) {}
            if self.terminate.poll_recv(cx).is_ready() {
                return Poll::Ready("SIGTERM");
            }
            self.interrupt.poll_recv(cx).map(|_| "SIGINT")
        })
        .await
    }
}

/// How the tree ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped.
    Stopped,
    /// It gave up by itself, for this reason.
    GaveUp(String),
}

/// Completes when the database turns out to be damaged: nothing that depends on it can go on.
async fn condemned(store: &Store) -> String {
    let damage = store.damage();
    loop {
        if let Some(reason) = damage.reason() {
            return reason.to_owned();
        }
        actix_rt::time::sleep(LOOK_AT_STORE).await;
    }
}

/// Watches over the tree until it is asked to stop, then flushes and stops it within `grace`.
pub async fn watch_over(
    mut root: Spawned<Root>,
    control: &Control,
    store: &Store,
    signals: &mut Signals,
    grace: Duration,
    manager: &Manager,
    log: &Logger,
) -> End {
    let reader = &store.reader();
    match first(first(signals.stop_asked(), &mut root.ended), condemned(store)).await {
        First::Right(reason) => {
            let text = format!("{reason}; the next start sets the database aside and rebuilds it");
            manager.stopping("the supervisor gave up", AT_LEAST);
            return gave_up(text, log);
        }
        First::Left(First::Right(reason)) => {
            manager.stopping("the supervisor gave up", AT_LEAST);
            return gave_up(reason.to_string(), log);
        }
        First::Left(First::Left(name)) => {
            manager.stopping("pushing what is left", grace);
            info!(log, "stopping: pushing what is left"; "signal" => name);
        }
    }
    let deadline = Instant::now() + grace;
    let flush = press::press(control, reader, grace * 3 / 4);
    match first(first(signals.stop_asked(), &mut root.ended), flush).await {
        First::Left(First::Left(name)) => {
            info!(log, "stopping at once; what is left is pushed after the next start"; "signal" => name);
            return stop(root, AT_LEAST, log).await;
        }
        First::Left(First::Right(reason)) => return gave_up(reason.to_string(), log),
        First::Right(pressed) => log_flush(&pressed, log),
    }
    let rest = deadline.saturating_duration_since(Instant::now()).max(AT_LEAST);
    match first(stop(root, rest, log), signals.stop_asked()).await {
        First::Left(end) => end,
        First::Right(_) => End::Stopped,
    }
}

fn log_flush(pressed: &Pressed, log: &Logger) {
    const LATER: &str = "what is left is pushed after the next start";
    match pressed {
        Pressed::Done => info!(log, "everything is at every remote"),
        Pressed::Refused(reason) => warn!(log, "not everything was pushed; {LATER}"; "reason" => reason),
        Pressed::OutOfReach(remotes) => {
            warn!(log, "not everything was pushed; {LATER}"; "reason" => remotes.join("; "))
        }
        Pressed::Broken(reason) => warn!(log, "not everything was pushed; {LATER}"; "reason" => reason),
        Pressed::TimedOut => warn!(log, "not everything was pushed in time; {LATER}"),
        Pressed::Failed(reason) => error!(log, "not everything was pushed; {LATER}"; "error" => %reason),
    }
}

fn gave_up(reason: String, log: &Logger) -> End {
    error!(log, "the supervisor gave up; whatever started this process is to start it again"; "reason" => &reason);
    End::GaveUp(reason)
}

/// Stops the tree; who does not stop in time is left to itself.
pub async fn stop(root: Spawned<Root>, within: Duration, log: &Logger) -> End {
    match root.stop(within).await {
        Ok(_) => info!(log, "stopped"),
        Err(still) => {
            warn!(log, "stopped with work left to itself; nothing is lost by that"; "work" => %still)
        }
    }
    End::Stopped
}

/// Notes the orderly end, so that the next start need not check the whole database.
pub fn mark_stopped(store: &Store, log: &Logger) {
    if let Err(error) = store.mark_stopped() {
        warn!(log, "the orderly stop could not be noted; the next start checks the database"; "error" => %error);
    }
}
