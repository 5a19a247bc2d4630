//! Obeying a changed configuration without a restart: read whole, refused whole, or applied as a diff.
//!
//! In: a wish, by the API or a signal. Out: what changed, or every reason why nothing did; then what was in force stays
//! in force. One at a time; a wish goes on even if nobody waits for it any more.

use actix_web::web::{self, Data};
use backupbot_actors::board::Moment;
use backupbot_actors::control::ControlError;
use backupbot_core::audit::Event;
use backupbot_core::config::Problem;
use backupbot_core::config::diff::{Diff, Parts};
use serde_json::{Value, json};
use slog::{info, warn};
use std::sync::{Arc, Mutex, PoisonError};

use crate::alerts::{Alert, Severity};
use crate::cli::Global;
use crate::exit::Failure;
use crate::http::Door;
use crate::settings::{self, Settings, World};

/// What is needed to read the configuration again.
#[derive(Default)]
pub struct Reloader {
    world: World,
    global: Global,
    turn: tokio::sync::Mutex<()>,
    /// When the last wish was refused, and why.
    refused: Mutex<Option<(Moment, String)>>,
}

/// Why nothing changed.
#[derive(Debug)]
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

    /// What somebody should look at.
    pub fn alert(&self) -> Option<Alert> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        refused.map(|(at, why)| {
            let text = format!("the configuration was not reloaded, the former one stays in force: {why}");
            Alert::new("config_invalid", Severity::Warning, text).since(Some(at))
        })
    }
}

/// Reads the configuration again and obeys it.
pub async fn reload(door: &Data<Door>) -> Result<Applied, Refusal> {
    let inner = door.clone();
    let done = actix_rt::spawn(async move {
        let outcome = obey(&inner).await;
        let refused = match &outcome {
            Ok(applied) => {
                info!(inner.log, "the configuration was reloaded"; "changes" => applied.document().to_string());
                None
            }
            Err(refusal) => {
                let why = refusal.words();
                warn!(inner.log, "the configuration was not reloaded; the former one stays in force"; "reason" => &why);
                Some((Moment::now(), why))
            }
        };
        *inner.reloader.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        outcome
    });
    done.await.unwrap_or(Err(Refusal::Stopping))
}

async fn obey(door: &Data<Door>) -> Result<Applied, Refusal> {
    let _turn = door.reloader.turn.lock().await;
    let inside = door.enter().map_err(|_| Refusal::Stopping)?;
    let (present, reader) = (door.settings(), door.clone());
    let read = web::block(move || {
        let reloader = &reader.reloader;
        settings::again(&reloader.world, &reloader.global, &present.origin)
    });
    let new = match read.await.map_err(|_| Refusal::Stopping)? {
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
    if !diff.is_empty() {
        let change =
            Event::new("configuration", "ok").by("reload").with("from", former.as_deref().unwrap_or("none"));
        inside.control.audit().record(change.with("to", &checksum));
    }
    door.obey(Arc::new(Settings { warnings: Vec::new(), ..new }));
    Ok(Applied { diff, checksum, warnings })
}
