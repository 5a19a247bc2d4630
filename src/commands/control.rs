//! `backupbot pause`, `resume`, `approve`, `reject` and `flush`: wishes to the running daemon, or to the next one.

use std::time::Duration;

use backupbot_actors::control::{Decided, Flushed};
use serde_json::json;

use crate::cli::{Flush, Global, Scope};
use crate::client::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::http::paused_answer;
use crate::offline;
use crate::output;
use crate::settings::World;

pub fn set_paused(world: &World, global: &Global, scope: &Scope, paused: bool) -> Result<Exit, Failure> {
    let (path, word) = if paused { ("/pause", "paused") } else { ("/resume", "resumed") };
    let (answer, runs) = match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let wish = json!({"repository": scope.repository});
            (client.post(path, &wish, Duration::ZERO)?.ok()?, true)
        }
        Reach::Nobody(asking) => {
            let offline = offline::open(world, *asking, if paused { "pause" } else { "resume" }, true)?;
            let names = offline.set_paused(scope.repository.as_deref(), paused)?;
            (paused_answer(names.iter().map(|name| name.as_str()), paused), false)
        }
    };
    if global.json {
        output::json(&answer)?;
        return Ok(Exit::Done);
    }
    let names =
        answer["repositories"].as_array().into_iter().flatten().filter_map(|row| row["name"].as_str());
    for name in names {
        let hint = match (paused, runs) {
            (true, true) => "changes are queued until `backupbot resume`",
            (true, false) => "no daemon is running; the next one starts paused",
            (false, true) => "what was queued is committed and pushed now",
            (false, false) => "no daemon is running; start it with `backupbot run`",
        };
        output::answer(&format!("{name}: {word}; {hint}"))?;
    }
    Ok(Exit::Done)
}

/// What an operator decides about a quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Decision {
    Approve,
    Reject,
}

pub fn decide(world: &World, global: &Global, scope: &Scope, decision: Decision) -> Result<Exit, Failure> {
    let wanted = scope.repository.as_deref();
    let (path, word) = match decision {
        Decision::Approve => ("/approve", "approve"),
        Decision::Reject => ("/reject", "reject"),
    };
    let (decided, runs) = match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let answer = client.post(path, &json!({"repository": wanted}), Duration::ZERO)?.ok()?;
            let decided = serde_json::from_value(answer["repositories"].clone()).map_err(|error| {
                Failure::io("the daemon's answer is not understood; is it another version?", error)
            })?;
            (decided, true)
        }
        Reach::Nobody(asking) => {
            let offline = offline::open(world, *asking, word, false)?;
            let decided = match decision {
                Decision::Approve => offline.approve(wanted)?,
                Decision::Reject => offline.reject(wanted)?,
            };
            (decided, false)
        }
    };
    if global.json {
        output::json(&json!({"repositories": decided}))?;
        return Ok(Exit::Done);
    }
    let decided: Vec<Decided> = decided;
    for Decided { name, branch, commit } in &decided {
        let commit = commit.get(..12).unwrap_or(commit);
        let line = match (decision, runs) {
            (Decision::Approve, true) => {
                format!("{name}: approved; {branch} stands at {commit} now, and is pushed")
            }
            (Decision::Approve, false) => format!(
                "{name}: approved; {branch} stands at {commit} now; no daemon is running, the next one pushes it"
            ),
            (Decision::Reject, _) => format!(
                "{name}: rejected and paused; {branch} stays at {commit}. Find what did it and stop it; then `backupbot \
                 restore --in-place` puts the files back (what is there now is kept), `backupbot resume` goes on, and \
                 `backupbot approve` ends the quarantine when everything is right again"
            ),
        };
        output::answer(&line)?;
    }
    Ok(Exit::Done)
}

pub fn flush(world: &World, global: &Global, flush: &Flush) -> Result<Exit, Failure> {
    let client = match client::reach(world, global)? {
        Reach::Daemon(client) => client,
        Reach::Nobody(asking) => {
            let remedy = "back up once with `backupbot once`, or start it with `backupbot run`";
            return Err(offline::no_daemon(&asking.state_dir, remedy));
        }
    };
    let wish = json!({
        "repository": flush.scope.repository,
        "wait": flush.wait,
        "rescan": flush.rescan,
        "timeout": format!("{}ms", flush.timeout.as_millis()),
    });
    let patience = if flush.wait { flush.timeout } else { Duration::ZERO };
    let answer = client.post("/flush", &wish, patience)?;
    if answer.status == 504 && global.json {
        output::json(&answer.body)?;
    }
    let body = answer.ok()?;
    let flushed: Flushed = serde_json::from_value(body).map_err(|error| {
        Failure::io("the daemon's answer is not understood; is it another version?", error)
    })?;
    if global.json {
        output::json(&flushed)?;
    } else if !flush.wait {
        output::answer(
            "flush asked for; `backupbot flush --wait` waits until everything is at every remote",
        )?;
    } else {
        output::answer(&summary(&flushed))?;
    }
    Ok(if flush.wait { tell_skipped(&flushed) } else { Exit::Done })
}

/// A line for each repository and remote.
pub fn summary(flushed: &Flushed) -> String {
    let mut lines = Vec::new();
    for repository in &flushed.repositories {
        let commit =
            repository.commit.as_deref().map_or("nothing committed".to_owned(), |id| format!("commit {id}"));
        lines.push(format!("{}: {commit}", repository.name));
        if repository.remotes.is_empty() {
            lines.push("  no remote is configured: it stays on this machine".to_owned());
        }
        for remote in &repository.remotes {
            let verified = if remote.verified { "has it, read back" } else { "NOT verified" };
            lines.push(format!("  remote {}: {verified} ({})", remote.name, remote.state));
        }
    }
    lines.join("\n")
}

/// Names on stderr what could not be read, and says with the exit code whether there was any.
pub fn tell_skipped(flushed: &Flushed) -> Exit {
    let mut exit = Exit::Done;
    for repository in &flushed.repositories {
        for skip in &repository.skipped {
            output::complain(&format!(
                "skipped: {}: {}/{}: {}",
                repository.name, skip.root, skip.path, skip.reason
            ));
            exit = Exit::SomeSkipped;
        }
    }
    exit
}
