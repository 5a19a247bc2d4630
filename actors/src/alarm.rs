//! The alarm: looks every few seconds what is wrong, and tells receivers when that begins and when it ends.
//!
//! What is wrong is found by whoever built the tree ([`Watchman::conditions`]); the ledger and the outboxes are core's
//! (`alert`). Both are in a file of the state directory, so a restart neither repeats nor forgets anything. Each receiver has
//! a job of its own: one that answers slowly delays no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context};
use backupbot_core::alert::ledger::{Active, Delays, Ledger};
use backupbot_core::alert::outbox::Outbox;
use backupbot_core::alert::send::{News, deliver};
use backupbot_core::alert::{Change, ChangeKind, Condition, Severity};
use backupbot_core::config::Notification;
use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::fault;
use backupbot_core::private_file;
use backupbot_core::progress::Progress;
use backupbot_core::small_state::{self, Aside};
use serde::{Deserialize, Serialize};
use slog::{Logger, error, info, o, warn};

use crate::job::{JobOutcome, JobSlot};
use crate::seat::now_ms;
use crate::supervision::ExitHandle;

/// What [`Watchman::pause`] should be.
pub const PAUSE: Duration = Duration::from_secs(5);
/// A sign of life, and a repeated list to whoever forgets alerts, go out so often.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// What [`Watchman::calm`] should be.
pub const CALM: Duration = Duration::from_secs(300);
/// A larger file is not ours.
const LARGEST: u64 = 4 << 20;

/// What holds now.
pub type Conditions = Arc<dyn Fn() -> Vec<Condition> + Send + Sync>;

/// What the alarm goes by.
#[derive(Clone)]
pub struct Watchman {
    /// Who backs up.
    pub instance: String,
    /// Whom to tell.
    pub receivers: Vec<Notification>,
    /// Where ledger and outboxes are kept.
    pub file: PathBuf,
    /// Finds what is wrong; it may read files.
    pub conditions: Conditions,
    /// What the alarm knows, for whoever asks.
    pub known: Known,
    /// How long a condition has to hold, or to be gone.
    pub delays: Delays,
    /// After a start not everything is known yet: what was active before is not over before this.
    pub calm: Duration,
    /// Between two looks.
    pub pause: Duration,
}

/// What the alarm knows, shared with those who show it.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// Held by whoever writes the file.
    saving: Mutex<()>,
    /// Whether the file was read: once a process, because later it may be older than what is known.
    is_loaded: AtomicBool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    ledger: Ledger,
    /// By receiver.
    #[serde(default)]
    outboxes: BTreeMap<String, Outbox>,
}

impl Known {
    /// What has fired and not ended, critical first.
    pub fn active(&self) -> Vec<Active> {
        self.kept().ledger.active()
    }

    /// Receivers that could not be told, and why.
    pub fn unreached(&self) -> Vec<(String, String)> {
        let kept = self.kept();
        let trouble =
            kept.outboxes.iter().filter_map(|(name, outbox)| Some((name.clone(), outbox.trouble()?)));
        trouble.collect()
    }

    /// Whole at every moment between calls, so a panic of a holder leaves nothing half done.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_once(&self, file: &Path) {
        if self.0.is_loaded.swap(true, Ordering::SeqCst) {
            return;
        }
        // A file that is lost costs a repetition, no alert. A damaged one was set aside by who started us.
        let read = private_file::read_small(file, LARGEST).ok().flatten();
        let kept = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        *self.kept() = kept.unwrap_or_default();
    }

    fn save(&self, file: &Path) -> Result<()> {
        let _saving = self.0.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = serde_json::to_vec(&*self.kept())
            .map_err(|error| Error::with_source(Kind::Internal, "alerts cannot be written down", error))?;
        private_file::write(file, &bytes)
    }

    fn told(&self, receiver: &str, arrived: &[Change], told: &Result<()>, now_ms: i64) {
        let mut kept = self.kept();
        let outbox = kept.outboxes.entry(receiver.to_owned()).or_default();
        if !arrived.is_empty() || told.is_ok() {
            outbox.arrived(arrived);
        }
        if let Err(error) = told {
            outbox.failed(&error.to_string(), now_ms);
        }
    }
}

/// Sets the file aside if it is damaged: for a start, before the alarm reads it.
///
/// # Errors
/// When it cannot be set aside.
pub fn mend(file: &Path) -> Result<Option<Aside>> {
    small_state::mend::<Kept>(file, LARGEST, "alerts that still hold are told once more")
}

/// The actor.
pub struct Alarm {
    watchman: Watchman,
    log: Logger,
    looking: JobSlot,
    deliveries: Vec<Delivery>,
    began: Instant,
}

struct Delivery {
    name: String,
    receiver: Notification,
    job: JobSlot,
    told: Option<Instant>,
}

impl Alarm {
    /// An alarm that goes by `watchman`.
    pub fn new(watchman: Watchman, exit: &ExitHandle, log: &Logger) -> Self {
        let deliveries = named(&watchman.receivers).into_iter().map(|(name, receiver)| Delivery {
            name,
            receiver,
            job: JobSlot::new(exit),
            told: None,
        });
        Self {
            deliveries: deliveries.collect(),
            looking: JobSlot::new(exit),
            log: log.new(o!("actor" => "alarm")),
            watchman,
            began: Instant::now(),
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let watchman = self.watchman.clone();
        let receivers: Vec<String> = self.deliveries.iter().map(|delivery| delivery.name.clone()).collect();
        let is_calm = self.began.elapsed() < watchman.calm;
        let delays =
            Delays { clear: if is_calm { watchman.calm } else { watchman.delays.clear }, ..watchman.delays };
        let work = move |_: &Progress| {
            fault::point("actor:alarm:job");
            watchman.known.load_once(&watchman.file);
            Ok(look(&watchman, &receivers, delays))
        };
        // Busy with the last look (a file system may hang): the next one comes.
        let _ = self.looking.start(ctx, "look", work, |actor: &mut Self, looked, ctx| {
            let Ok((changes, saved)) = looked else { return };
            actor.log_changes(&changes);
            if let Err(error) = saved {
                warn!(actor.log, "alerts are not kept over a restart"; "error" => %error);
            }
            actor.deliver(ctx);
        });
    }

    fn log_changes(&self, changes: &[Change]) {
        for change in changes {
            let Condition { name, subject, message, severity, .. } = &change.condition;
            match (change.event, severity) {
                (ChangeKind::Cleared, _) => {
                    info!(self.log, "an alert is over"; "alert" => name, "of" => subject)
                }
                (_, Severity::Critical) => {
                    error!(self.log, "alert"; "alert" => name, "of" => subject, "message" => message);
                }
                (_, Severity::Warning) => {
                    warn!(self.log, "alert"; "alert" => name, "of" => subject, "message" => message);
                }
            }
        }
    }

    fn deliver(&mut self, ctx: &mut Context<Self>) {
        let at_ms = now_ms();
        let has_active = !self.watchman.known.active().is_empty();
        for number in 0..self.deliveries.len() {
            let Some(delivery) = self.deliveries.get_mut(number).filter(|delivery| !delivery.job.is_busy())
            else {
                continue;
            };
            let outboxes = self.watchman.known.kept().outboxes.clone();
            let due = outboxes.get(&delivery.name).map(|outbox| outbox.due(at_ms)).unwrap_or_default();
            if due.is_empty() && !delivery.beats(has_active) {
                continue;
            }
            delivery.told = Some(Instant::now());
            let (watchman, receiver) = (self.watchman.clone(), delivery.receiver.clone());
            let name = delivery.name.clone();
            let work = move |progress: &Progress| {
                let active = watchman.known.active();
                let news =
                    News { instance: &watchman.instance, changes: &due, active: &active, now_ms: at_ms };
                let (arrived, told) = deliver(&receiver, news, progress);
                watchman.known.told(&name, due.get(..arrived).unwrap_or(&due), &told, now_ms());
                watchman.known.save(&watchman.file)?;
                told
            };
            let name = delivery.name.clone();
            let tell = delivery.job.start_catching(ctx, "tell", work, move |actor: &mut Self, outcome, _| {
                let reason = match outcome {
                    JobOutcome::Finished(Ok(())) => return,
                    JobOutcome::Finished(Err(error)) => error.to_string(),
                    JobOutcome::Panicked(message) => message,
                };
                warn!(actor.log, "a receiver of alerts cannot be told, and is tried again"; "receiver" => name,
                      "reason" => reason);
            });
            // It was not busy a moment ago.
            let _ = tell;
        }
    }
}

impl Delivery {
    /// Whether it is told without news: a sign of life, or what it would otherwise forget.
    fn beats(&self, has_active: bool) -> bool {
        let is_time = self.told.is_none_or(|told| told.elapsed() >= HEARTBEAT);
        is_time
            && match self.receiver {
                Notification::Healthchecks(_) => true,
                Notification::Alertmanager(_) => has_active,
                Notification::Webhook(_) | Notification::Ntfy(_) | Notification::Smtp(_) => false,
            }
    }
}

/// One look: what holds goes into the ledger, what changed into every outbox.
fn look(watchman: &Watchman, receivers: &[String], delays: Delays) -> (Vec<Change>, Result<()>) {
    let conditions = (watchman.conditions)();
    let (changes, has_changed) = {
        let mut kept = watchman.known.kept();
        let before = kept.clone();
        let changes = kept.ledger.update(conditions, now_ms(), delays);
        // Whoever is no longer configured is told nothing more.
        kept.outboxes.retain(|name, _| receivers.contains(name));
        for receiver in receivers {
            let outbox = kept.outboxes.entry(receiver.clone()).or_default();
            changes.iter().for_each(|change| outbox.put(change.clone()));
        }
        (changes, *kept != before)
    };
    let saved = if has_changed { watchman.known.save(&watchman.file) } else { Ok(()) };
    (changes, saved)
}

/// Each receiver with a name that is the same after a restart, and tells nothing of its address.
pub fn named(receivers: &[Notification]) -> Vec<(String, Notification)> {
    let mut named: Vec<(String, Notification)> = Vec::new();
    for receiver in receivers {
        let kind = receiver.kind();
        let number = named.iter().filter(|(_, other)| other.kind() == kind).count() + 1;
        let name = if number == 1 { kind.to_owned() } else { format!("{kind} {number}") };
        named.push((name, receiver.clone()));
    }
    named
}

impl Actor for Alarm {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:alarm:started");
        ctx.run_interval(self.watchman.pause, Self::look);
    }
}

#[cfg(test)]
mod tests;
