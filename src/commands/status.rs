//! `backupbot status`: what is protected, what is not, why, and what to do about it.

use backupbot_actors::board::Moment;

use super::page;
use crate::cli::{Global, Scope};
use crate::client::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::offline;
use crate::output;
use crate::settings::World;
use crate::status::StatusAnswer;

/// How everything stands, as the daemon knows it, or as the store does.
pub fn ask(world: &World, global: &Global) -> Result<StatusAnswer, Failure> {
    match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let body = client.get("/status", &[])?.ok()?;
            serde_json::from_value(body).map_err(|error| {
                Failure::io("the daemon's answer is not understood; is it another version?", error)
            })
        }
        Reach::Nobody(asking) => offline::open(world, *asking, "status", false)?.status(),
    }
}

pub fn status(world: &World, global: &Global, scope: &Scope) -> Result<Exit, Failure> {
    let mut answer = ask(world, global)?;
    if let Some(wanted) = &scope.repository {
        answer.repositories.retain(|repository| repository.status.name.as_str() == wanted);
        if answer.repositories.is_empty() {
            return Err(Failure::failed(format!("there is no repository {wanted:?}")));
        }
    }
    if global.json {
        output::json(&answer)?;
    } else {
        output::answer(&page::render(&answer, Moment::now()))?;
    }
    Ok(Exit::Done)
}
