//! `/api/v1/restores`: beginning one, watching it, stopping it. The work is that of [`crate::restoring`].

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::access::BASE;
use super::admin::{Answer, answer};
use super::problem::Problem;
use super::{Door, auth, body};
use crate::restoring::{Job, Refused, Wish};

/// The restores of late, the latest first
#[utoipa::path(get, path = "/restores", tag = "restores",
               responses((status = 200, description = "At most twenty", body = super::shapes::Restores)))]
pub async fn list(door: Data<Door>) -> Answer {
    Ok(answer(&json!({"restores": door.enter()?.jobs.all()})))
}

/// Restores something into a directory on the daemon's machine
///
/// It goes on by itself; its address is in `Location`. One at a time. When one was stopped or interrupted, the same
/// wish goes on where it ended.
#[utoipa::path(post, path = "/restores", tag = "restores", request_body = Wish,
    responses(
        (status = 202, description = "It began", body = Job, headers(("Location" = String, description = "Its address"))),
        (status = 409, description = "Another one runs, or something stands where it should write", body = super::shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn start(door: Data<Door>, request: HttpRequest, payload: Payload) -> Answer {
    let wish: Wish = body::json(&request, payload).await?;
    let inside = door.enter()?;
    let is_known = |name: &str| inside.control.seats().iter().any(|seat| seat.settings.name.as_str() == name);
    if !is_known(&wish.repository) {
        let detail = format!("there is no repository {:?}", wish.repository);
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let (settings, log, who) = (door.settings(), door.log.clone(), auth::words(request.peer_addr()));
    let started = web::block(move || inside.jobs.start(wish, &settings, &who))
        .await
        .map_err(|_| Problem::stopping())?;
    match started {
        Ok(job) => Ok(HttpResponse::Accepted()
            .insert_header(("Location", format!("{BASE}/restores/{}", job.id)))
            .insert_header(("Cache-Control", "no-store"))
            .json(&job)),
        Err(Refused::Busy(id)) => {
            let detail = "another restore runs; wait for it, or cancel it";
            Err(Problem::new(StatusCode::CONFLICT, detail).with("running", json!(id)))
        }
        Err(Refused::Occupied(why)) => Err(Problem::new(StatusCode::CONFLICT, why)),
        Err(Refused::Elsewhere(why)) => Err(Problem::new(StatusCode::FORBIDDEN, why)),
        Err(Refused::Senseless(why)) => Err(Problem::bad(why)),
        Err(Refused::Failed(why)) => Err(Problem::internal(&log, &why)),
    }
}

/// How far a restore is, and what it came to
#[utoipa::path(get, path = "/restores/{id}", tag = "restores",
               params(("id" = String, Path, description = "Its name")),
               responses((status = 200, description = "It", body = Job)))]
pub async fn show(door: Data<Door>, id: web::Path<String>) -> Answer {
    let job = door.enter()?.jobs.get(&id).ok_or_else(unknown)?;
    Ok(answer(&job))
}

/// Stops a restore; what was restored until then stays
#[utoipa::path(delete, path = "/restores/{id}", tag = "restores",
               params(("id" = String, Path, description = "Its name")),
               responses((status = 200, description = "It; it may take a moment to stop", body = Job)))]
pub async fn remove(door: Data<Door>, id: web::Path<String>) -> Answer {
    stop(&door, &id)
}

/// Stops a restore; the same as DELETE
#[utoipa::path(post, path = "/restores/{id}/cancel", tag = "restores",
               params(("id" = String, Path, description = "Its name")),
               responses((status = 200, description = "It; it may take a moment to stop", body = Job)))]
pub async fn cancel(door: Data<Door>, id: web::Path<String>) -> Answer {
    stop(&door, &id)
}

fn stop(door: &Door, id: &str) -> Answer {
    let job = door.enter()?.jobs.cancel(id).ok_or_else(unknown)?;
    Ok(answer(&job))
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no restore of that name, or it is too long ago")
}
