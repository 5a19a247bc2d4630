//! `backupbot why PATH`: is this file protected, since when, and if not, why not.

use std::os::unix::ffi::OsStrExt;

use backupbot_core::protection::PathReport;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::cli::{Global, Why};
use crate::client::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::looking::place::meanings;
use crate::offline;
use crate::output;
use crate::settings::World;

pub fn why(world: &World, global: &Global, arguments: &Why) -> Result<Exit, Failure> {
    let meanings = meanings(&world.current_dir, &arguments.path);
    let found = match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let mut found = None;
            for path in &meanings {
                let exact = URL_SAFE_NO_PAD.encode(path.as_os_str().as_bytes());
                let answer = client.get("/why", &[("path_b64", exact.as_str())])?;
                if answer.status != 404 {
                    found = Some(answer.ok()?);
                    break;
                }
            }
            found
        }
        Reach::Nobody(asking) => {
            let offline = offline::open(world, *asking, "why", false)?;
            let mut found = None;
            for path in &meanings {
                if let Some(report) = offline.why(path.as_os_str().as_bytes())? {
                    found = Some(serde_json::to_value(&report).unwrap_or_default());
                    break;
                }
            }
            found
        }
    };
    let Some(report) = found else {
        let path = crate::files::shown(&arguments.path);
        return Err(Failure::failed(format!(
            "{path}: NOT protected: it is below none of the watched directories"
        )));
    };
    if global.json {
        output::json(&report)?;
    } else {
        output::answer(&render(report)?)?;
    }
    Ok(Exit::Done)
}

fn render(report: Value) -> Result<String, Failure> {
    let report: PathReport = serde_json::from_value(report).map_err(|error| {
        Failure::io("the daemon's answer is not understood; is it another version?", error)
    })?;
    let verdict = if report.protected { "protected" } else { "NOT protected in its present version" };
    let place =
        if report.path.is_empty() { report.root.clone() } else { format!("{}/{}", report.root, report.path) };
    let mut lines = vec![format!("{place}: {verdict}: {}", report.explanation)];
    lines.push(format!(
        "  repository {}, {}",
        report.repository,
        match &report.commit {
            Some(commit) => format!("latest commit {commit}"),
            None => "nothing committed yet".to_owned(),
        }
    ));
    match &report.stored {
        Some(stored) => lines.push(format!("  stored as {stored}")),
        None => lines.push("  no version of it is stored".to_owned()),
    }
    for remote in &report.remotes {
        let has_it =
            if remote.has_it { "has the stored version" } else { "does NOT have the stored version" };
        let reason = remote.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        lines.push(format!("  remote {}: {has_it}{reason}", remote.name));
    }
    Ok(lines.join("\n"))
}
