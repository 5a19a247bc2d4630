//! Obeying a changed configuration without a restart: read whole, refused whole, or applied as a diff.
//!
//! In: a wish, by the API, a signal, or the file that says something else. Out: what changed, or every reason why nothing did;
//! then what was in force stays in force. One at a time; wishes that come while one is under way or waits share the next, and in a
//! storm they wait for its turn ([`pace`]), because each may replace what commits. A wish goes on even if nobody waits for it any
//! more. What came of it is on the board, in the metrics, in the log and in the audit log.

mod pace;

use actix_web::web::{self, Data};
use backupbot_actors::board::{Board, ConfigurationStatus, Moment};
use backupbot_actors::control::ControlError;
use backupbot_actors::measure::{self, Reload};
use backupbot_core::audit::Event;
use backupbot_core::config::Problem;
use backupbot_core::config::diff::{Diff, Parts};
use backupbot_core::fault;
use serde_json::{Value, json};
use slog::{info, warn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::Global;
use crate::exit::Failure;
use crate::files::shown;
use crate::http::{Door, Inside};
use crate::settings::{self, Origin, Settings, World};

/// After trouble that is not the file's, what it says is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// What is needed to read the configuration again.
#[derive(Default)]
pub struct Reloader {
    world: World,
    global: Global,
    turn: tokio::sync::Mutex<()>,
    /// Wishes so far.
    wishes: AtomicU64,
    latest: Mutex<Latest>,
}

/// The reload before the next one.
#[derive(Default)]
struct Latest {
    /// Up to this wish all had come when it began to read, and what came of it.
    answered: Option<(u64, Result<Applied, Refusal>)>,
    pace: pace::Pace,
}

/// Why nothing changed.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// It cannot be obeyed; each mistake with its place.
    Mistakes(Vec<Problem>),
    /// It changes what only a restart can change.
    NeedsRestart(Vec<&'static str>),
    /// It cannot be read, or the tree cannot be changed now.
    NotNow(String),
    /// The daemon is about to end.
    Stopping,
}

impl Refusal {
    /// In one line.
    pub fn words(&self) -> String {
        match self {
            Self::Mistakes(problems) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            Self::NeedsRestart(fields) => format!("only a restart can change {}", fields.join(", ")),
            Self::NotNow(why) => why.clone(),
            Self::Stopping => "the daemon is stopping".to_owned(),
        }
    }
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    diff: Diff,
    checksum: String,
    /// That of the one before.
    former: Option<String>,
    warnings: Vec<String>,
}

impl Applied {
    /// For programs.
    pub fn document(&self) -> Value {
        let changed: Vec<Value> = self
            .diff
            .changed
            .iter()
            .map(|changed| {
                json!({"name": changed.name, "settings": changed.settings, "roots": parts(&changed.roots),
                   "remotes": parts(&changed.remotes)})
            })
            .collect();
        json!({
            "changed": !self.diff.is_empty(),
            "checksum": self.checksum,
            "fields": self.diff.fields,
            "repositories": {"added": self.diff.added, "removed": self.diff.removed, "changed": changed},
            "warnings": self.warnings,
        })
    }
}

fn parts<N: serde::Serialize>(parts: &Parts<N>) -> Value {
    json!({"added": parts.added, "removed": parts.removed, "changed": parts.changed})
}

impl Reloader {
    /// Reads as the process did at its start.
    pub fn new(world: &World, global: &Global) -> Self {
        Self { world: world.clone(), global: global.clone(), ..Self::default() }
    }

    fn latest<T>(&self, look: impl FnOnce(&mut Latest) -> T) -> T {
        look(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is said of the configuration of a process that begins.
pub fn begun(settings: &Settings) -> ConfigurationStatus {
    let file = match &settings.origin {
        Origin::File(path) => Some(shown(path)),
        Origin::Flags(_) => None,
    };
    ConfigurationStatus::obeyed(file, &settings.config.checksum)
}

/// Reloads whenever the file says what was not tried yet, for ever.
pub async fn follow_file(door: Data<Door>, board: Board) {
    loop {
        board.wait_for(|board| board.configuration().is_news().then_some(())).await;
        info!(door.log, "the file of the configuration has changed"; "to" => "reload");
        fault::point("actor:follow-file:news");
        // Its mistakes stay until it changes again. Trouble of ours may be over sooner.
        while let Err(Refusal::NotNow(_) | Refusal::Stopping) = reload(&door, "change of the file").await {
            actix_rt::time::sleep(TRY_AGAIN).await;
        }
    }
}

/// Reads the configuration again and obeys it, because of `who`.
pub async fn reload(door: &Data<Door>, who: &str) -> Result<Applied, Refusal> {
    let (inner, who) = (door.clone(), who.to_owned());
    let wish = door.reloader.wishes.fetch_add(1, Ordering::Relaxed) + 1;
    let done = actix_rt::spawn(async move {
        let reloader = &inner.reloader;
        let _turn = reloader.turn.lock().await;
        let shared = reloader.latest(|latest| latest.answered.clone()).filter(|(until, _)| *until >= wish);
        if let Some((_, outcome)) = shared {
            return outcome;
        }
        actix_rt::time::sleep(reloader.latest(|latest| latest.pace.pause(Instant::now()))).await;
        let inside = inner.enter().map_err(|_| Refusal::Stopping)?;
        let until = reloader.wishes.load(Ordering::Relaxed);
        let outcome = obey(&inner, &inside).await;
        tell(&inner, &inside, &outcome, &who);
        reloader.latest(|latest| {
            if matches!(&outcome, Ok(applied) if !applied.diff.is_empty()) {
                latest.pace.obeyed(Instant::now());
            }
            latest.answered = Some((until, outcome.clone()));
        });
        outcome
    });
    done.await.unwrap_or(Err(Refusal::Stopping))
}

/// Says everywhere what came of it.
fn tell(door: &Door, inside: &Inside, outcome: &Result<Applied, Refusal>, who: &str) {
    let board = inside.control.board();
    let in_force = door.settings().config.checksum.clone();
    let (refusal, result) = match outcome {
        Ok(applied) => {
            let result = if applied.diff.is_empty() { Reload::Unchanged } else { Reload::Applied };
            measure::reloaded(result);
            info!(door.log, "the configuration was reloaded"; "changes" => applied.document().to_string());
            board.change_configuration(|status| {
                status.in_force.clone_from(&in_force);
                status.refused = None;
            });
            if applied.former.as_ref() != Some(&in_force) {
                let former = applied.former.as_deref().unwrap_or("none");
                let change = Event::new("configuration", "ok").by(who).with("from", former);
                inside.control.audit().record(change.with("to", &in_force));
            }
            return;
        }
        Err(Refusal::Stopping) => return,
        Err(refusal @ Refusal::NotNow(_)) => (refusal, Reload::Failed),
        Err(refusal) => (refusal, Reload::Refused),
    };
    let reason = refusal.words();
    measure::reloaded(result);
    warn!(door.log, "the configuration was not reloaded; the former one stays in force"; "reason" => &reason);
    let change = Event::new("configuration", result.as_str()).by(who).with("from", &in_force);
    let on_disk = board.configuration().on_disk.unwrap_or_else(|| "unreadable".to_owned());
    inside.control.audit().record(change.with("to", on_disk).with("reason", &reason));
    board.change_configuration(|status| status.was_refused(reason, Moment::now()));
}

async fn obey(door: &Data<Door>, inside: &Inside) -> Result<Applied, Refusal> {
    let (present, reader) = (door.settings(), door.clone());
    let read = web::block(move || {
        let reloader = &reader.reloader;
        settings::again(&reloader.world, &reloader.global, &present.origin)
    });
    let (on_disk, read) = read.await.map_err(|_| Refusal::Stopping)?;
    if let Some(on_disk) = on_disk {
        inside.control.board().change_configuration(|status| status.was_tried(on_disk));
    }
    let new = match read {
        Ok(new) => new,
        Err(settings::Again::Mistakes(problems)) => return Err(Refusal::Mistakes(problems)),
        Err(settings::Again::Failed(Failure { lines, .. })) => return Err(Refusal::NotNow(lines.join("; "))),
    };
    let diff = Diff::between(&door.settings().config, &new.config);
    if !diff.needs_restart.is_empty() {
        return Err(Refusal::NeedsRestart(diff.needs_restart));
    }
    let mut warnings: Vec<String> = new.warnings.iter().map(ToString::to_string).collect();
    let late = inside.control.rearrange(&new.config, &diff).await.map_err(|error| match error {
        ControlError::Failed(error) => Refusal::NotNow(error.to_string()),
        ControlError::Refused(why) | ControlError::Unknown(why) => Refusal::NotNow(why),
        ControlError::TimedOut(_) => Refusal::Stopping,
    })?;
    warnings.extend(late);
    let checksum = new.config.checksum.clone();
    let former = inside.control.remember_configuration(&checksum).unwrap_or_else(|error| {
        warnings.push(format!("which configuration is in force could not be noted: {error}"));
        None
    });
    door.obey(Arc::new(Settings { warnings: Vec::new(), ..new }));
    Ok(Applied { diff, checksum, former, warnings })
}
