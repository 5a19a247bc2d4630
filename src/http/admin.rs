//! The API below `/api/v1`: what is asked of the running tree, answered from the board and the store.
//!
//! Looking at the store or at files may take a moment, so that happens on the blocking pool.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use backupbot_actors::board::Moment;
use backupbot_actors::control::{ControlError, Decided, Flushed, exact_if_lossy};
use backupbot_core::protection;
use serde::{Deserialize, Serialize};
use serde_json::json;
use slog::info;
use utoipa::ToSchema;

use super::body;
use super::problem::Problem;
use super::{Door, remembered, shapes};
use crate::alerts::{self, Looked};
use crate::reload::{self, Refusal};
use crate::spans;
use crate::status::{StatusAnswer, VERSION};

/// How long a flush waits if the client does not say.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// What every handler gives.
pub type Answer = Result<HttpResponse, Problem>;

/// Runs `look` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    door: &Data<Door>,
    look: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Problem> {
    match web::block(look).await {
        Ok(looked) => looked.map_err(|error| door.refused(error, StatusCode::CONFLICT)),
        Err(_) => Err(Problem::stopping()),
    }
}

/// A document that nobody keeps.
pub fn answer(value: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(value)
}

/// How everything stands
#[utoipa::path(get, path = "/status", tag = "state",
               responses((status = 200, description = "All repositories, and what somebody should look at", body = StatusAnswer)))]
pub async fn status(door: Data<Door>) -> Answer {
    let text = remembered::status(&door).await?;
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .content_type("application/json")
        .body(text))
}

/// What somebody should look at, critical things first
#[utoipa::path(get, path = "/alerts", tag = "state",
               responses((status = 200, description = "Alerts that are not over", body = shapes::Alerts)))]
pub async fn alerts(door: Data<Door>) -> Answer {
    Ok(answer(&json!({"alerts": status_now(&door).await?.alerts})))
}

/// The status answer of this moment.
pub async fn status_now(door: &Data<Door>) -> Result<StatusAnswer, Problem> {
    let inside = door.enter()?;
    let settings = door.settings();
    let known = door.known.clone();
    blocking(door, move || {
        let (control, reader) = (&inside.control, &inside.reader);
        let Looked { repositories, health, alerts } = alerts::look(control, reader, &settings.config, &known);
        Ok(StatusAnswer {
            instance: settings.config.instance.clone(),
            version: VERSION.to_owned(),
            daemon: true,
            repositories,
            alerts,
            configuration: Some(control.board().configuration()),
            health,
        })
    })
    .await
}

/// The supervised parts of the program: a tree, each below its `parent`
#[utoipa::path(get, path = "/children", tag = "state",
               responses((status = 200, description = "All of them, parents before their children", body = shapes::Children)))]
pub async fn children(door: Data<Door>) -> Answer {
    let children = door.enter()?.control.board().children();
    let children: Vec<_> = children
        .iter()
        .map(|child| {
            let (parent, name) = child.id.0.rsplit_once('/').unzip();
            json!(shapes::Child {
                name: name.unwrap_or(&child.id.0).to_owned(),
                parent: parent.map(str::to_owned),
                status: child.clone()
            })
        })
        .collect();
    Ok(answer(&json!({"children": children})))
}

/// Whether a file is protected, since when, and if not, why not
#[utoipa::path(get, path = "/why", tag = "state",
    params(
        ("path" = Option<String>, Query, description = "Absolute, or `<root>/rel`"),
        ("path_b64" = Option<String>, Query, description = "The same in base64, for names that are not UTF-8"),
    ),
    responses((status = 200, description = "Where it stands on its way to the remotes", body = shapes::PathReport)))]
pub async fn why(door: Data<Door>, request: HttpRequest) -> Answer {
    let path = body::path_of_query(request.query_string())?;
    let inside = door.enter()?;
    let answered = blocking(&door, move || {
        let report = inside.control.why(&path)?;
        let mut report = serde_json::to_value(&report).unwrap_or_default();
        let seats = inside.control.seats();
        let located = seats.iter().find_map(|seat| protection::locate(&seat.roots, &path));
        let exact = located.and_then(|(_, relative)| exact_if_lossy(relative.as_bytes()));
        if let (Some(exact), Some(members)) = (exact, report.as_object_mut()) {
            members.insert("path_b64".to_owned(), json!(exact));
        }
        Ok(report)
    });
    Ok(answer(&answered.await?))
}

/// What to pause.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseWish {
    /// Only this repository; without it all
    #[serde(default)]
    repository: Option<String>,
    /// Go on by itself after this, such as `2h`; without it somebody has to say so
    #[serde(default, rename = "for")]
    #[schema(example = "2h")]
    lasting: Option<String>,
    /// Not possible: a remote cannot be paused by itself
    #[serde(default)]
    #[schema(ignore)]
    remote: Option<String>,
}

/// What to resume.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeWish {
    /// Only this repository; without it all
    #[serde(default)]
    repository: Option<String>,
    /// Let only this halted remote try again; without it all of them
    #[serde(default)]
    remote: Option<String>,
}

/// Stops committing and pushing; what changes meanwhile is queued, over restarts too
#[utoipa::path(post, path = "/pause", tag = "control", request_body = PauseWish,
               responses((status = 200, description = "What is paused now", body = shapes::Paused)))]
pub async fn pause(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: PauseWish = body::json(&request, payload).await?;
    if wish.remote.is_some() {
        return Err(Problem::bad("a remote cannot be paused by itself; pause its repository"));
    }
    let lasting = wish.lasting.as_deref().map(spans::parse_long).transpose();
    let lasting = lasting.map_err(|why| Problem::bad(format!("for: {why}")))?;
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "pause", "repository" => &wish.repository, "for" => &wish.lasting,
          "by" => peer(&request));
    let repository = wish.repository.as_deref();
    let changed = match lasting {
        Some(lasting) => inside.control.pause_for(repository, lasting).await,
        None => inside.control.set_paused(repository, None, true).await,
    };
    let names = changed.map_err(|error| door.refused(error, StatusCode::SERVICE_UNAVAILABLE))?;
    let until = lasting.map(|lasting| Moment::now().later_by(lasting));
    Ok(answer(&paused_answer(names.iter().map(|name| name.as_str()), true, until)))
}

/// Goes on after a pause, and lets halted remotes try again with their present state taken for right
#[utoipa::path(post, path = "/resume", tag = "control", request_body = ResumeWish,
               responses((status = 200, description = "What is no longer paused", body = shapes::Paused)))]
pub async fn resume(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: ResumeWish = body::json(&request, payload).await?;
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "resume", "repository" => &wish.repository, "remote" => &wish.remote,
          "by" => peer(&request));
    let changed = inside.control.set_paused(wish.repository.as_deref(), wish.remote.as_deref(), false).await;
    let names = changed.map_err(|error| door.refused(error, StatusCode::SERVICE_UNAVAILABLE))?;
    Ok(answer(&paused_answer(names.iter().map(|name| name.as_str()), false, None)))
}

/// What `approve` and `reject` are asked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionWish {
    /// Only this repository; without it all that are in quarantine
    #[serde(default)]
    repository: Option<String>,
}

/// Ends quarantines: each protected branch goes forward to what was committed meanwhile
#[utoipa::path(post, path = "/approve", tag = "control", request_body = DecisionWish,
    responses(
        (status = 200, description = "What was decided", body = shapes::Decisions),
        (status = 409, description = "There is nothing to decide", body = shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn approve(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: DecisionWish = body::json(&request, payload).await?;
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "approve", "repository" => &wish.repository, "by" => peer(&request));
    decided(&door, inside.control.approve(wish.repository.as_deref()).await)
}

/// Pauses repositories in quarantine; both branches stay as they are
#[utoipa::path(post, path = "/reject", tag = "control", request_body = DecisionWish,
    responses(
        (status = 200, description = "What was decided", body = shapes::Decisions),
        (status = 409, description = "There is nothing to decide", body = shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn reject(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: DecisionWish = body::json(&request, payload).await?;
    let inside = door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "reject", "repository" => &wish.repository, "by" => peer(&request));
    decided(&door, inside.control.reject(wish.repository.as_deref()).await)
}

fn decided(door: &Door, outcome: Result<Vec<Decided>, ControlError>) -> Answer {
    let decided = outcome.map_err(|error| door.refused(error, StatusCode::CONFLICT))?;
    Ok(answer(&json!({"repositories": decided})))
}

/// What `pause` and `resume` answer, with or without a daemon.
pub fn paused_answer<'n>(
    names: impl Iterator<Item = &'n str>,
    paused: bool,
    until: Option<Moment>,
) -> serde_json::Value {
    let one = |name| shapes::PausedRepository { name: String::from(name), paused, until };
    json!(shapes::Paused { repositories: names.map(one).collect() })
}

/// What to flush.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlushWish {
    /// Only this repository; without it all
    #[serde(default)]
    repository: Option<String>,
    /// Answer when everything is there
    #[serde(default)]
    wait: bool,
    /// How long to wait, such as `60s`, which is also what counts if nothing is said
    #[serde(default)]
    #[schema(example = "60s")]
    timeout: Option<String>,
    /// Compare every root as a whole first, whatever events told.
    #[serde(default)]
    rescan: bool,
    /// Wait until everything is committed here, and for no remote.
    #[serde(default)]
    commit_only: bool,
}

/// Commits and pushes at once what has changed
///
/// With `wait` it answers when every change made before the call is at every remote and was read back, with
/// `commit_only` when it is in a commit here.
#[utoipa::path(post, path = "/flush", tag = "control", request_body = FlushWish,
    responses(
        (status = 200, description = "Everything is there; files that cannot be read are listed", body = Flushed),
        (status = 202, description = "It was begun", body = Flushed),
        (status = 409, description = "Somebody has to do something first", body = shapes::ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "Not in time; `repositories` says how far it came", body = shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
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
        return Ok(answer(&committed.map_err(|error| door.refused(error, StatusCode::CONFLICT))?));
    }
    let flushed =
        inside.control.flush_after(wish.repository.as_deref(), wish.wait, timeout, wish.rescan).await;
    let flushed = flushed.map_err(|error| door.refused(error, StatusCode::CONFLICT))?;
    if wish.wait { Ok(answer(&flushed)) } else { Ok(HttpResponse::Accepted().json(&flushed)) }
}

/// Reads the configuration again and obeys it, without a restart of what did not change
#[utoipa::path(post, path = "/reload", tag = "control", request_body = Nothing,
    responses(
        (status = 200, description = "What changed", body = shapes::Reloaded),
        (status = 409, description = "It needs a restart; nothing changed", body = shapes::ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "It has mistakes, in `problems`; nothing changed", body = shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn reload(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let Nothing {} = body::json(&request, payload).await?;
    door.enter()?;
    info!(door.log, "asked over HTTP"; "to" => "reload", "by" => peer(&request));
    match reload::reload(&door, &format!("HTTP from {}", address(&request))).await {
        Ok(applied) => Ok(answer(&applied.document())),
        Err(Refusal::Stopping) => Err(Problem::stopping()),
        Err(Refusal::Mistakes(problems)) => {
            let problems: Vec<_> = problems
                .iter()
                .map(|it| json!({"place": it.place, "field": it.field, "message": it.message}))
                .collect();
            let detail = "the configuration cannot be obeyed; the former one stays in force";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with("problems", json!(problems)))
        }
        Err(Refusal::NeedsRestart(fields)) => {
            let detail = format!("only a restart can change {}; nothing was changed", fields.join(", "));
            Err(Problem::new(StatusCode::CONFLICT, detail).with("fields", json!(fields)))
        }
        Err(Refusal::NotNow(why)) => {
            let place = door.settings().config.state_dir.clone();
            Err(Problem::new(StatusCode::CONFLICT, why).without(&place))
        }
    }
}

/// No members, or no body at all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Without its port: the words of the audit log.
fn address(request: &HttpRequest) -> String {
    request.peer_addr().map_or_else(|| "nowhere".to_owned(), |peer| peer.ip().to_string())
}

/// Who asks.
pub fn peer(request: &HttpRequest) -> Option<String> {
    request.peer_addr().map(|address| address.to_string())
}
