//! `/api/v1/log`: which log records are written, looked at and changed while the program runs.

use std::collections::BTreeMap;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::web::{Data, Payload};
use backupbot_actors::board::Moment;
use serde::{Deserialize, Serialize};
use slog::info;
use utoipa::ToSchema;

use super::Door;
use super::admin::{Answer, answer, peer};
use super::body;
use super::problem::Problem;
use crate::logging::{LOST, LevelName, Levels, MODULES};
use crate::spans;

/// The levels that are wanted, instead of all that were wanted before.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogWish {
    /// For every module that is not named; without it the configured one
    #[serde(default)]
    level: Option<LevelName>,
    /// By module, such as `{"pusher": "debug"}`: a name of `known`, or a longer path below it
    #[serde(default)]
    #[schema(example = json!({"pusher": "debug"}))]
    modules: BTreeMap<String, LevelName>,
    /// Back to the configured level after this, such as `10m`; without it at the next start
    #[serde(default, rename = "for")]
    #[schema(example = "10m")]
    lasting: Option<String>,
}

/// The levels in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogLevels {
    /// Of every module that is not named
    level: LevelName,
    /// By module
    modules: BTreeMap<String, LevelName>,
    /// What the configuration says, and the next start obeys
    configured: LevelName,
    /// When the configured level is in force again
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Moment>,
    /// The finest that this build can write: release builds have no trace records
    finest: LevelName,
    /// The modules that there are
    known: Vec<LogModule>,
    /// Records that nobody can read
    lost: LogLost,
}

/// A part of the program that writes records.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogModule {
    /// Its name
    name: String,
    /// What it is
    about: String,
}

/// Records that were lost since the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogLost {
    /// Because writing was too slow
    too_slow: u64,
    /// Because writing failed
    failed: u64,
}

/// Which log records are written
#[utoipa::path(get, path = "/log", tag = "state", operation_id = "log_levels",
               responses((status = 200, description = "The levels in force", body = LogLevels)))]
pub async fn show(door: Data<Door>) -> Answer {
    Ok(answer(&in_force(&door.levels)))
}

/// Has other log records written, until a time or the next start
///
/// It replaces what was wanted before. Without any member the configured level is in force again.
#[utoipa::path(put, path = "/log", tag = "control", operation_id = "change_log_levels", request_body = LogWish,
               responses((status = 200, description = "The levels in force now", body = LogLevels)))]
pub async fn change(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: LogWish = body::json(&request, payload).await?;
    let lasting = wish.lasting.as_deref().map(spans::parse_long).transpose();
    let lasting = lasting.map_err(|why| Problem::bad(format!("for: {why}")))?;
    let modules = format!("{:?}", wish.modules);
    door.levels.want(wish.level, wish.modules, lasting, Instant::now()).map_err(Problem::bad)?;
    info!(door.log, "asked over HTTP"; "to" => "change the log", "level" => ?wish.level, "modules" => modules,
          "for" => &wish.lasting, "by" => peer(&request));
    Ok(answer(&in_force(&door.levels)))
}

fn in_force(levels: &Levels) -> LogLevels {
    let now = levels.now(Instant::now());
    let (too_slow, failed) = LOST.counts();
    let known =
        MODULES.iter().map(|(name, about)| LogModule { name: (*name).into(), about: (*about).into() });
    LogLevels {
        level: now.level,
        modules: now.modules,
        configured: levels.configured(),
        until: now.until.map(|(_, moment)| moment),
        finest: LevelName::finest(),
        known: known.collect(),
        lost: LogLost { too_slow, failed },
    }
}
