//! `/api/v1/repositories/{r}/lfs`: how full the remotes are with large contents and with which, pruning here, scrubbing.
//!
//! A scrub may take hours, so it is only begun here; the answer about usage says what came of it, and whether it goes on.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use backupbot_core::keeping::scrubs;
use backupbot_core::verify::Sample;
use serde::{Deserialize, Serialize};
use slog::info;
use utoipa::ToSchema;

use super::admin::{Answer, answer, blocking, peer};
use super::problem::Problem;
use super::{Door, body, shapes};
use crate::large::{PruneAnswer, UsageAnswer};

/// Names in each list.
const TOP: usize = 10;
/// The longest list.
const MOST: usize = 1000;

/// How full each remote is with large files, and what fills it
///
/// What is in the history stays at the remotes: nothing that is done here frees room there.
#[utoipa::path(
    get, path = "/repositories/{repository}/lfs", tag = "large",
    params(
        ("repository" = String, Path, description = "A repository by its name"),
        ("remote" = Option<String>, Query, description = "Only this remote, and what it is known to have"),
        ("top" = Option<usize>, Query, minimum = 0, maximum = 1000, description = "At most so many names in each list; 10 if not said"),
    ),
    responses((status = 200, description = "Numbers and names", body = UsageAnswer),
              (status = 409, description = "Nothing was backed up yet", body = shapes::ProblemDocument,
               content_type = "application/problem+json"))
)]
pub async fn usage(door: Data<Door>, request: HttpRequest, path: web::Path<String>) -> Answer {
    let query = body::Query::of(&request)?;
    let (top, remote) = (query.number("top", TOP, 0, MOST)?, query.text("remote")?);
    let inside = door.enter()?;
    let turn = door.turns.heavy().await?;
    let name = path.into_inner();
    let told = blocking(&door, move || {
        let _turn = turn;
        let large = inside.control.large_contents(&name, remote.as_deref(), top)?;
        let scrubs = scrubs::read(inside.control.state_dir(), &name);
        let mut answer = UsageAnswer::new(&name, large.remotes, large.contents, scrubs, remote.as_deref());
        answer.scrub_troubles = large.scrub_troubles;
        Ok(answer)
    });
    Ok(answer(&told.await?))
}

/// What to prune.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneWish {
    /// Only say what would be removed
    #[serde(default)]
    dry_run: bool,
}

/// Removes on the daemon's machine the large contents that every remote has
///
/// Only what is older than `lfs.keep_local`, and what every remote, asked now, says that it has.
#[utoipa::path(post, path = "/repositories/{repository}/lfs/prune", tag = "large", request_body = PruneWish,
    params(("repository" = String, Path, description = "A repository by its name")),
    responses(
        (status = 200, description = "What was removed, and what stays and why", body = PruneAnswer),
        (status = 409, description = "There are no large contents", body = shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn prune(
    door: Data<Door>,
    request: HttpRequest,
    path: web::Path<String>,
    payload: Payload,
) -> Answer {
    let wish: PruneWish = body::json(&request, payload).await?;
    let (inside, name) = (door.enter()?, path.into_inner());
    info!(door.log, "asked over HTTP"; "to" => "prune large contents", "repository" => &name,
          "dry_run" => wish.dry_run, "by" => peer(&request));
    let pruned = inside.control.prune_large(&name, wish.dry_run).await;
    let pruned = pruned.map_err(|error| door.refused(error, StatusCode::CONFLICT))?;
    Ok(answer(&PruneAnswer::new(&name, pruned)))
}

/// What to scrub.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubWish {
    /// Only this remote; without it what is on the daemon's machine, and every remote
    #[serde(default)]
    remote: Option<String>,
    /// How much is read: `whole`, a share such as `1%`, or so many; without it as much as the settings say
    #[serde(default)]
    #[schema(example = "1%")]
    read: Option<String>,
}

/// A scrub was begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScrubBegun {
    /// The repository
    pub repository: String,
    /// The number of the order: that of its results in `scrubs` and `scrub_troubles` of `GET …/lfs`
    pub order: u64,
}

/// Asks remotes for every large content, brings them what they lost, and reads some
///
/// It goes on by itself; `GET …/lfs` has what came of it.
#[utoipa::path(post, path = "/repositories/{repository}/lfs/scrub", tag = "large", request_body = ScrubWish,
    params(("repository" = String, Path, description = "A repository by its name")),
    responses(
        (status = 202, description = "It begins as soon as it can", body = ScrubBegun),
        (status = 409, description = "There are no large contents", body = shapes::ProblemDocument, content_type = "application/problem+json"),
    ))]
pub async fn scrub(
    door: Data<Door>,
    request: HttpRequest,
    path: web::Path<String>,
    payload: Payload,
) -> Answer {
    let wish: ScrubWish = body::json(&request, payload).await?;
    let read = match wish.read.as_deref() {
        None => None,
        Some("whole" | "100%") => Some(Sample::Whole),
        Some(text) => Some(text.parse().map_err(|why| Problem::bad(format!("read: {why}")))?),
    };
    let (inside, name) = (door.enter()?, path.into_inner());
    info!(door.log, "asked over HTTP"; "to" => "scrub large contents", "repository" => &name,
          "remote" => &wish.remote, "read" => &wish.read, "by" => peer(&request));
    let begun = inside.control.scrub_large(&name, wish.remote.as_deref(), read).await;
    let order = begun.map_err(|error| door.refused(error, StatusCode::CONFLICT))?;
    Ok(HttpResponse::Accepted().json(ScrubBegun { repository: name, order }))
}
