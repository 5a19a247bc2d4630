//! `backupbot remote test NAME`: is it there, does it let us in, what is it, and would a push go through?
//!
//! It goes as far as a push goes before it sends anything, and changes nothing at either end.

use backupbot_actors::root::repository_path;
use backupbot_core::config::RemoteUrl;
use backupbot_core::progress::Progress;
use backupbot_core::push::probe::{self, Report, Standing};
use serde_json::json;

use crate::cli::{Global, TestRemote};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::World;

use super::{Found, find};

pub fn test(world: &World, global: &Global, arguments: &TestRemote) -> Result<Exit, Failure> {
    let found = find(world, global, &arguments.name, &arguments.scope)?;
    let repository = repository_path(&found.state_dir, &found.repository);
    let name = &arguments.name;
    let report = match probe::probe(&found.remote, &found.branch, &repository, &Progress::new()) {
        Ok(report) => report,
        Err(error) => {
            if global.json {
                let reason = error.kind().as_str();
                let url = found.remote.url.as_str();
                output::json(&json!({"repository": found.repository, "remote": name, "url": url,
                                     "reachable": false, "reason": reason, "message": error.to_string()}))?;
            }
            return Err(Failure::failed(format!("remote {name}: {error}")));
        }
    };
    if global.json {
        output::json(&as_json(&found, &report))?;
    } else {
        output::answer(&describe(&found, &report).join("\n"))?;
    }
    Ok(if would_halt(&report) { Exit::Failed } else { Exit::Done })
}

fn would_halt(report: &Report) -> bool {
    report
        .remote
        .as_ref()
        .is_some_and(|remote| remote.standing == Standing::Elsewhere || remote.in_the_way.is_some())
}

fn describe(found: &Found, report: &Report) -> Vec<String> {
    let milliseconds = report.took.as_millis();
    let place = found.remote.url.as_str();
    let Some(remote) = &report.remote else {
        return vec![format!("{place}: nothing is there yet; the first push makes a bare repository of it")];
    };
    let way = match &found.remote.url {
        RemoteUrl::Local(_) => "can be read".to_owned(),
        RemoteUrl::Http(_) if found.remote.credentials.is_none() => "answers, without credentials".to_owned(),
        RemoteUrl::Http(_) => "answers, and takes the credentials for a push".to_owned(),
        RemoteUrl::Ssh(_) => "answers, logs us in and starts git-receive-pack".to_owned(),
    };
    let mut lines = vec![format!("{place}: {way} ({milliseconds} ms)")];
    if let Some(agent) = &remote.description.agent {
        lines.push(format!("  server: {agent}; can do: {}", remote.description.capabilities.join(" ")));
    }
    lines.push(match remote.description.lfs {
        Some(true) => "  Git LFS: there is a server for large files".to_owned(),
        Some(false) => "  Git LFS: none".to_owned(),
        None => "  Git LFS: not known".to_owned(),
    });
    let branch = &found.branch;
    let stands = remote.tip.map_or_else(String::new, |tip| format!(" at {tip}"));
    lines.push(match remote.standing {
        Standing::Absent => {
            format!("  {branch}: not there yet, of {} references; a push makes it", remote.references)
        }
        Standing::Equal => format!("  {branch}{stands}: up to date"),
        Standing::Behind => format!("  {branch}{stands}: behind ours; a push moves it forward"),
        Standing::Unknown => format!("  {branch}{stands}: nothing is committed here yet to compare it with"),
        Standing::Elsewhere => format!(
            "  {branch}{stands}: NOT in our history; a push would halt, and save the work on a branch below \
             backupbot/rescue"
        ),
    });
    lines.extend(remote.in_the_way.as_ref().map(|why| format!("  NOT possible: {why}")));
    lines.extend(report.notes.warnings.iter().map(|warning| format!("  warning: {warning}")));
    lines.extend(report.notes.messages.iter().map(|message| format!("  it says: {message}")));
    if !would_halt(report) {
        lines.push(
            "A push would be taken as far as can be told: hooks and protected branches speak up only then."
                .to_owned(),
        );
    }
    lines
}

fn as_json(found: &Found, report: &Report) -> serde_json::Value {
    let standing = report.remote.as_ref().map(|remote| match remote.standing {
        Standing::Absent => "absent",
        Standing::Equal => "equal",
        Standing::Behind => "behind",
        Standing::Elsewhere => "elsewhere",
        Standing::Unknown => "unknown",
    });
    let remote = report.remote.as_ref();
    json!({
        "repository": found.repository,
        "remote": found.remote.name.as_str(),
        "url": found.remote.url.as_str(),
        "reachable": true,
        "exists": remote.is_some(),
        "took_ms": u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        "server": remote.and_then(|remote| remote.description.agent.clone()),
        "capabilities": remote.map(|remote| remote.description.capabilities.clone()).unwrap_or_default(),
        "lfs": remote.and_then(|remote| remote.description.lfs),
        "branch": found.branch,
        "commit": remote.and_then(|remote| remote.tip).map(|tip| tip.to_string()),
        "standing": standing,
        "in_the_way": remote.and_then(|remote| remote.in_the_way.clone()),
        "push_possible": !would_halt(report),
        "warnings": report.notes.warnings,
        "messages": report.notes.messages,
    })
}
