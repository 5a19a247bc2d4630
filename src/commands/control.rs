//! `backupbot pause`, `resume`, `reload`, `approve`, `reject` and `flush`: wishes to the running daemon, or to the next one.

use std::time::Duration;

use backupbot_actors::board::Moment;
use backupbot_actors::control::{Decided, Flushed};
use serde_json::{Value, json};

use crate::cli::{Flush, Global, Pause, Scope};
use crate::client::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::http::paused_answer;
use crate::offline;
use crate::output;
use crate::settings::World;
use crate::spans;

/// A reload waits for what it replaces.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);

pub fn pause(world: &World, global: &Global, pause: &Pause) -> Result<Exit, Failure> {
    set_paused(world, global, &pause.scope, true, pause.lasting)
}

pub fn resume(world: &World, global: &Global, scope: &Scope) -> Result<Exit, Failure> {
    set_paused(world, global, scope, false, None)
}

fn set_paused(
    world: &World,
    global: &Global,
    scope: &Scope,
    paused: bool,
    lasting: Option<Duration>,
) -> Result<Exit, Failure> {
    let (path, word) = if paused { ("/pause", "paused") } else { ("/resume", "resumed") };
    let (answer, runs) = match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let mut wish = json!({"repository": scope.repository});
            if let Some(lasting) = lasting {
                wish["for"] = json!(format!("{}ms", lasting.as_millis()));
            }
            (client.post(path, &wish, Duration::ZERO)?.ok()?, true)
        }
        Reach::Nobody(asking) => {
            let offline = offline::open(world, *asking, if paused { "pause" } else { "resume" }, true)?;
            let names = offline.set_paused(scope.repository.as_deref(), paused, lasting)?;
            let until = lasting.map(|lasting| Moment::now().later_by(lasting));
            (paused_answer(names.iter().map(|name| name.as_str()), paused, until), false)
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
            (true, _) if lasting.is_some() => {
                "changes are queued; it goes on by itself, or with `backupbot resume`"
            }
            (true, true) => "changes are queued until `backupbot resume`",
            (true, false) => "no daemon is running; the next one starts paused",
            (false, true) => "what was queued is committed and pushed now",
            (false, false) => "no daemon is running; start it with `backupbot run`",
        };
        let until = lasting.map_or_else(String::new, |lasting| {
            format!(" for {}, until {}", spans::in_words(lasting.as_secs()), Moment::now().later_by(lasting))
        });
        output::answer(&format!("{name}: {word}{until}; {hint}"))?;
    }
    Ok(Exit::Done)
}

pub fn reload(world: &World, global: &Global) -> Result<Exit, Failure> {
    let client = match client::reach(world, global)? {
        Reach::Daemon(client) => client,
        Reach::Nobody(asking) => {
            let remedy = "`backupbot check` looks for mistakes; the next start obeys what is there then";
            return Err(offline::no_daemon(&asking.state_dir, remedy));
        }
    };
    let answer = client.post("/reload", &json!({}), RELOAD_WITHIN)?;
    if global.json {
        output::json(&answer.body)?;
    }
    if answer.status == 422 {
        let mut lines =
            vec!["the daemon keeps the configuration that it has; the new one cannot be obeyed:".to_owned()];
        lines.extend(answer.body["problems"].as_array().into_iter().flatten().map(mistake));
        return Err(Failure { exit: Exit::Usage, lines });
    }
    let body = answer.ok()?;
    if !global.json {
        output::answer(&reloaded(&body))?;
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

fn mistake(problem: &Value) -> String {
    let text = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
    let parts = [text("place"), text("field"), text("message")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// What changed, a line each.
fn reloaded(body: &Value) -> String {
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let mut lines = Vec::new();
    let repositories = &body["repositories"];
    for (member, words) in
        [("added", "is new and watched now"), ("removed", "is no longer watched; its history stays")]
    {
        lines.extend(names(&repositories[member]).iter().map(|name| format!("{name}: {words}")));
    }
    for changed in repositories["changed"].as_array().into_iter().flatten() {
        let mut parts = Vec::new();
        for (kind, word) in [("roots", "root"), ("remotes", "remote")] {
            for what in ["added", "removed", "changed"] {
                parts.extend(names(&changed[kind][what]).iter().map(|name| format!("{word} {name} {what}")));
            }
        }
        parts.extend((changed["settings"] == true).then(|| "settings changed".to_owned()));
        lines.push(format!("{}: {}", changed["name"].as_str().unwrap_or_default(), parts.join(", ")));
    }
    lines.extend(names(&body["fields"]).iter().map(|field| format!("{field}: changed")));
    if lines.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    lines.extend(names(&body["warnings"]).iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
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
