//! The API below `/api/v1`: what is asked of the running tree, answered from the board and the store.
//!
//! Looking at the store or at files may take a moment, so that happens on the blocking pool.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use backupbot_actors::board::Moment;
use backupbot_actors::control::{ControlError, Decided, exact_if_lossy};
use backupbot_core::protection;
use serde::{Deserialize, Serialize};
use serde_json::json;
use slog::info;

use super::Door;
use super::body;
use super::problem::Problem;
use crate::health;
use crate::spans;
use crate::status::{self, StatusAnswer, VERSION};

/// How long a flush waits if the client does not say.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

type Answer = Result<HttpResponse, Problem>;

/// Runs `look` where blocking is allowed.
async fn blocking<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Problem> {
    match web::block(look).await {
        Ok(looked) => looked.map_err(|error| Problem::of_control(error, StatusCode::CONFLICT)),
        Err(_) => Err(Problem::stopping()),
    }
}

fn answer(value: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(value)
}

/// `GET /api/v1/status`
pub async fn status(door: Data<Door>) -> Answer {
    Ok(answer(&status_now(door).await?))
}

/// `GET /api/v1/alerts`
pub async fn alerts(door: Data<Door>) -> Answer {
    Ok(answer(&json!({"alerts": status_now(door).await?.alerts})))
}

async fn status_now(door: Data<Door>) -> Result<StatusAnswer, Problem> {
    let inside = door.enter()?;
    blocking(move || {
        let repositories = status::of_daemon(&inside.control);
        let halted_since = |repository: &_, remote: &_| {
            status::halted_since(&inside.reader, repository, remote).ok().flatten()
        };
        let mut alerts = status::alerts(&repositories, &door.alerts, Moment::now(), halted_since);
        alerts.extend(status::Alert::disk_low(inside.control.state_dir(), &door.alerts));
        alerts.extend(inside.control.board().latest_recoveries().iter().map(status::Alert::state_recovered));
        let health = inside.control.board().health();
        alerts.extend(health::alerts(&health, &repositories, Moment::now()));
        alerts.sort_by_key(|alert| alert.severity);
        Ok(StatusAnswer {
            instance: door.instance.clone(),
            version: VERSION.to_owned(),
            daemon: true,
            repositories,
            alerts,
            health,
        })
    })
    .await
}

/// `GET /api/v1/children`
pub async fn children(door: Data<Door>) -> Answer {
    Ok(answer(&json!({"children": door.enter()?.control.board().children()})))
}

/// `GET /api/v1/why?path=` or `?path_b64=`
pub async fn why(door: Data<Door>, request: HttpRequest) -> Answer {
    let path = body::path_of_query(request.query_string())?;
    let inside = door.enter()?;
    let answered = blocking(move || {
        let report = inside.control.why(&path)?;
        let mut report = serde_json::to_value(&report).unwrap_or_default();
        let located = inside.control.seats().iter().find_map(|seat| protection::locate(&seat.roots, &path));
        let exact = located.and_then(|(_, relative)| exact_if_lossy(relative.as_bytes()));
        if let (Some(exact), Some(members)) = (exact, report.as_object_mut()) {
            members.insert("path_b64".to_owned(), json!(exact));
        }
        Ok(report)
    });
    Ok(answer(&answered.await?))
}

/// What `pause` and `resume` are asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseWish {
    #[serde(default)]
    repository: Option<String>,
    #[serde(default)]
    remote: Option<String>,
}

/// `POST /api/v1/pause`
pub async fn pause(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: PauseWish = body::json(&request, payload).await?;
    if wish.remote.is_some() {
        let detail = "a remote cannot be paused by itself; pause its repository";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    set_paused(&door, &request, &wish, true).await
}

/// `POST /api/v1/resume`
pub async fn resume(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: PauseWish = body::json(&request, payload).await?;
    set_paused(&door, &request, &wish, false).await
}

/// What `approve` and `reject` are asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionWish {
    #[serde(default)]
    repository: Option<String>,
}

/// `POST /api/v1/approve`
pub async fn approve(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: DecisionWish = body::json(&request, payload).await?;
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "approve", "repository" => &wish.repository, "by" => peer(&request));
    decided(inside.control.approve(wish.repository.as_deref()).await)
}

/// `POST /api/v1/reject`
pub async fn reject(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: DecisionWish = body::json(&request, payload).await?;
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "reject", "repository" => &wish.repository, "by" => peer(&request));
    decided(inside.control.reject(wish.repository.as_deref()).await)
}

fn decided(outcome: Result<Vec<Decided>, ControlError>) -> Answer {
    let decided = outcome.map_err(|error| Problem::of_control(error, StatusCode::CONFLICT))?;
    Ok(answer(&json!({"repositories": decided})))
}

async fn set_paused(door: &Data<Door>, request: &HttpRequest, wish: &PauseWish, paused: bool) -> Answer {
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => if paused { "pause" } else { "resume" },
          "repository" => &wish.repository, "remote" => &wish.remote, "by" => peer(request));
    let changed = inside.control.set_paused(wish.repository.as_deref(), wish.remote.as_deref(), paused).await;
    let names = changed.map_err(|error| Problem::of_control(error, StatusCode::SERVICE_UNAVAILABLE))?;
    Ok(answer(&paused_answer(names.iter().map(|name| name.as_str()), paused)))
}

/// What `pause` and `resume` answer, with or without a daemon.
pub fn paused_answer<'n>(names: impl Iterator<Item = &'n str>, paused: bool) -> serde_json::Value {
    let repositories: Vec<_> = names.map(|name| json!({"name": name, "paused": paused})).collect();
    json!({"repositories": repositories})
}

/// What `flush` is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushWish {
    #[serde(default)]
    repository: Option<String>,
    #[serde(default)]
    wait: bool,
    #[serde(default)]
    timeout: Option<String>,
    /// Compare every root as a whole first, whatever events told.
    #[serde(default)]
    rescan: bool,
    /// Wait until everything is committed here, and for no remote.
    #[serde(default)]
    commit_only: bool,
}

/// `POST /api/v1/flush`: 200 when everything is at every remote (with `commit_only`, in a commit here), 202 if not
/// asked to wait.
pub async fn flush(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: FlushWish = body::json(&request, payload).await?;
    let timeout = match wish.timeout.as_deref().map(spans::parse) {
        None => FLUSH_WITHIN,
        Some(Ok(timeout)) => timeout,
        Some(Err(why)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("timeout: {why}")));
        }
    };
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "flush", "repository" => &wish.repository, "wait" => wish.wait,
          "by" => peer(&request));
    if wish.commit_only {
        let committed = inside.control.commit(wish.repository.as_deref(), timeout).await;
        return Ok(answer(&committed.map_err(|error| Problem::of_control(error, StatusCode::CONFLICT))?));
    }
    let flushed =
        inside.control.flush_after(wish.repository.as_deref(), wish.wait, timeout, wish.rescan).await;
    let flushed = flushed.map_err(|error| Problem::of_control(error, StatusCode::CONFLICT))?;
    if wish.wait { Ok(answer(&flushed)) } else { Ok(HttpResponse::Accepted().json(&flushed)) }
}

fn peer(request: &HttpRequest) -> Option<String> {
    request.peer_addr().map(|address| address.to_string())
}
