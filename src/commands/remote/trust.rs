//! `backupbot remote trust NAME`: the key with which an SSH server proves itself, shown and recorded.
//!
//! Nobody logs in for it. A key that is new is recorded after a yes, typed or given with `--yes`; one in the place of
//! another needs `--replace` as well; a revoked one never is.

use std::io::{self, IsTerminal, Write};

use backupbot_core::audit::Event;
use backupbot_core::config::RemoteUrl;
use backupbot_core::progress::Progress;
use backupbot_core::transport::ssh::Standing;
use backupbot_core::transport::ssh::trust::{self, HostKey};
use serde_json::json;

use crate::cli::{Global, Trust};
use crate::deeds::Deeds;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::World;

use super::{Found, find};

pub fn trust(world: &World, global: &Global, arguments: &Trust) -> Result<Exit, Failure> {
    let found = find(world, global, &arguments.name, &arguments.scope)?;
    let RemoteUrl::Ssh(url) = &found.remote.url else {
        let text = format!("remote {}: only ssh:// addresses have a host key to trust", arguments.name);
        return Err(Failure::usage(text));
    };
    let patience = found.remote.timeouts.connect;
    let host = trust::host_key(&found.remote, url, &found.state_dir, patience, &Progress::new())?;
    if !global.json {
        output::answer(&describe(&host))?;
    }
    let verdict = decide(&host, arguments);
    let is_meant = match &verdict {
        Verdict::Known => false,
        Verdict::Record => true,
        Verdict::Ask => !global.json && asked("Record it? Type yes: ")?,
        Verdict::Refuse(_) => false,
    };
    if is_meant {
        trust::record(&host, arguments.replace)?;
        let event =
            Event::new("trust", "ok").in_repository(&found.repository).at_remote(arguments.name.as_str());
        let event =
            event.with("host", &host.host).with("key", format!("{} {}", host.algorithm, host.fingerprint));
        let event = event.with("file", shown(&host.file));
        let event = if arguments.replace { event.with("replaced", recorded(&host)) } else { event };
        Deeds::of("remote trust", world, global).write(event);
    }
    let is_trusted = is_meant || verdict == Verdict::Known;
    if global.json {
        output::json(&as_json(&found, &host, is_trusted))?;
    } else if is_meant {
        output::answer(&format!("recorded in {}", shown(&host.file)))?;
    }
    match verdict {
        _ if is_trusted => Ok(Exit::Done),
        Verdict::Refuse(why) => Err(Failure::failed(why)),
        _ => {
            let again = if arguments.replace { " --replace" } else { "" };
            Err(Failure::failed(format!(
                "not recorded; if it is the server's own key, run `backupbot remote trust {}{again} --yes`",
                arguments.name
            )))
        }
    }
}

/// The keys that were on file.
fn recorded(host: &HostKey) -> String {
    let Standing::Changed { recorded } = &host.standing else { return "none".to_owned() };
    let keys: Vec<String> =
        recorded.iter().map(|key| format!("{} {}", key.algorithm, key.fingerprint)).collect();
    keys.join(", ")
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// There is nothing to do.
    Known,
    Record,
    Ask,
    Refuse(String),
}

fn decide(host: &HostKey, arguments: &Trust) -> Verdict {
    let name = &arguments.name;
    match &host.standing {
        Standing::Known => Verdict::Known,
        Standing::Revoked => Verdict::Refuse(format!(
            "the key is revoked in {}: the server needs another one",
            shown(&host.file)
        )),
        Standing::Changed { .. } if !arguments.replace => Verdict::Refuse(format!(
            "another key is recorded: somebody may be listening in, or the server was set up anew; if you know that \
             it was, run `backupbot remote trust {name} --replace`"
        )),
        Standing::Changed { .. } | Standing::Unknown { .. } if arguments.yes => Verdict::Record,
        Standing::Changed { .. } | Standing::Unknown { .. } => Verdict::Ask,
    }
}

fn describe(host: &HostKey) -> String {
    let file = shown(&host.file);
    let mut lines = vec![format!("{} proves itself with {} {}", host.host, host.algorithm, host.fingerprint)];
    match &host.standing {
        Standing::Known => lines.push(format!("That is recorded in {file}: it is trusted.")),
        Standing::Unknown { .. } => lines.push(format!("Nothing is recorded for it in {file} yet.")),
        Standing::Revoked => lines.push(format!("That key is revoked in {file}.")),
        Standing::Changed { recorded } => {
            lines.push(format!("Recorded in {file} is something else:"));
            let each = recorded
                .iter()
                .map(|key| format!("  {} {} (line {})", key.algorithm, key.fingerprint, key.line));
            lines.extend(each);
        }
    }
    lines.join("\n")
}

fn as_json(found: &Found, host: &HostKey, is_trusted: bool) -> serde_json::Value {
    let (standing, recorded) = match &host.standing {
        Standing::Known => ("known", &[][..]),
        Standing::Unknown { .. } => ("unknown", &[][..]),
        Standing::Revoked => ("revoked", &[][..]),
        Standing::Changed { recorded } => ("changed", recorded.as_slice()),
    };
    let recorded: Vec<_> = recorded
        .iter()
        .map(|key| json!({"algorithm": key.algorithm, "fingerprint": key.fingerprint, "line": key.line}))
        .collect();
    json!({
        "repository": found.repository,
        "remote": found.remote.name.as_str(),
        "host": host.host,
        "algorithm": host.algorithm,
        "fingerprint": host.fingerprint,
        "found": standing,
        "recorded": recorded,
        "file": shown(&host.file),
        "trusted": is_trusted,
    })
}

/// Asks the person at the terminal; where there is none, nobody has said yes.
fn asked(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let unread = |error: io::Error| Failure::io("cannot ask", error);
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(unread)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(unread)?;
    Ok(line.trim().eq_ignore_ascii_case("yes"))
}
