//! `backupbot report`: where the data is, who could read it, and when it was last proven, for an audit or a data protection
//! record. In: the configuration and the status. Out: Markdown, or JSON with the same.
//!
//! It says what is configured and what was found, and does not judge the law of a country: `region` is the operator's own word.

mod markdown;

use std::path::Path;

use backupbot_actors::board::Moment;
use backupbot_core::config::{
    Config, Credentials, Encryption, EncryptionMethod, Remote, RemoteUrl, Repository, SecretSource,
};
use serde::Serialize;

use super::status;
use crate::cli::{Global, Scope};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::{self, World};
use crate::status::{RepositoryAnswer, StatusAnswer};

/// The whole report.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    made: Moment,
    instance: String,
    version: String,
    repositories: Vec<Held>,
    /// What an auditor would ask about.
    open: Vec<String>,
}

/// One repository.
#[derive(Debug, PartialEq, Serialize)]
struct Held {
    name: String,
    branch: String,
    roots: Vec<String>,
    commit: Option<String>,
    encryption: Encrypted,
    verified_here: Option<Proof>,
    places: Vec<Place>,
}

/// Who can read the contents.
#[derive(Debug, PartialEq, Serialize)]
struct Encrypted {
    method: &'static str,
    /// gitignore syntax; empty: everything, where there is a method.
    paths: Vec<String>,
    /// Where keys are, never what they are.
    keys: Vec<String>,
}

/// One place where copies are.
#[derive(Debug, PartialEq, Serialize)]
struct Place {
    remote: String,
    address: String,
    provider: &'static str,
    region: Option<String>,
    transport: &'static str,
    /// Where the credentials come from, never what they are.
    credentials: Vec<String>,
    state: String,
    last_success: Option<Moment>,
    oldest_unprotected_seconds: u64,
    verified: Option<Proof>,
    drill: Option<Proof>,
}

/// That something was read back, or restored, and compared.
#[derive(Debug, PartialEq, Serialize)]
struct Proof {
    at: Moment,
    sample: String,
    files: u64,
    bytes: u64,
    problems: u64,
}

pub fn report(world: &World, global: &Global, scope: &Scope) -> Result<Exit, Failure> {
    let Some(settings) = settings::for_asking(world, global)?.configuration()? else {
        return Err(Failure::usage("no configuration found: name one with --config FILE"));
    };
    let answer = status::ask(world, global)?;
    let report = make(&settings.config, &answer, scope.repository.as_deref(), Moment::now());
    if let (Some(wanted), true) = (&scope.repository, report.repositories.is_empty()) {
        return Err(Failure::failed(format!("there is no repository {wanted:?}")));
    }
    if global.json {
        output::json(&report)?;
    } else {
        output::answer(&markdown::text(&report))?;
    }
    Ok(Exit::Done)
}

fn make(config: &Config, status: &StatusAnswer, wanted: Option<&str>, now: Moment) -> Report {
    let is_meant = |repository: &&Repository| wanted.is_none_or(|name| repository.name.as_str() == name);
    let meant: Vec<&Repository> = config.repositories.iter().filter(is_meant).collect();
    let repositories: Vec<Held> = meant
        .iter()
        .map(|repository| {
            let found = status.repositories.iter().find(|answer| answer.status.name == repository.name);
            held(repository, found)
        })
        .collect();
    let open =
        meant.iter().zip(&repositories).flat_map(|(settings, held)| open(settings, held, now)).collect();
    Report {
        made: now,
        instance: config.instance.clone(),
        version: status.version.clone(),
        repositories,
        open,
    }
}

fn held(repository: &Repository, found: Option<&RepositoryAnswer>) -> Held {
    let verified = |remote: Option<&str>| {
        let all = found.into_iter().flat_map(|answer| &answer.verified);
        let of_it = all.filter(|verified| verified.remote.as_deref() == remote);
        of_it.max_by_key(|verified| verified.at.unix_seconds()).map(|verified| Proof {
            at: verified.at,
            sample: verified.sample.clone(),
            files: verified.files,
            bytes: verified.bytes,
            problems: verified.problems,
        })
    };
    let drilled = |remote: &str| {
        let all = found.into_iter().flat_map(|answer| &answer.drills);
        let of_it = all.filter(|drilled| drilled.remote == remote);
        of_it.max_by_key(|drilled| drilled.at.unix_seconds()).map(|drilled| Proof {
            at: drilled.at,
            sample: drilled.sample.clone(),
            files: drilled.files,
            bytes: drilled.bytes,
            problems: drilled.problems,
        })
    };
    let place = |remote: &Remote| {
        let view = found.into_iter().flat_map(|answer| &answer.remotes).find(|view| view.name == remote.name);
        let state = view.map(|view| format!("{:?}", view.state).to_lowercase());
        Place {
            remote: remote.name.to_string(),
            address: remote.url.to_string(),
            provider: remote.provider.map_or("not said", |provider| provider.name()),
            region: remote.region.clone(),
            transport: transport(&remote.url),
            credentials: remote.credentials.as_ref().map(sources).unwrap_or_default(),
            state: state.unwrap_or_else(|| "unknown".to_owned()),
            last_success: view.and_then(|view| view.last_success),
            oldest_unprotected_seconds: view.map_or(0, |view| view.oldest_unprotected_seconds),
            verified: verified(Some(remote.name.as_str())),
            drill: drilled(remote.name.as_str()),
        }
    };
    Held {
        name: repository.name.to_string(),
        branch: repository.branch.as_str().to_owned(),
        roots: repository.roots.iter().map(|root| root.path.to_string_lossy().into_owned()).collect(),
        commit: found.and_then(|answer| answer.status.commit.clone()),
        encryption: encrypted(repository.encryption.as_ref()),
        verified_here: verified(None),
        places: repository.remotes.iter().map(place).collect(),
    }
}

fn transport(url: &RemoteUrl) -> &'static str {
    match url {
        RemoteUrl::Local(_) => "a path of this machine",
        RemoteUrl::Ssh(_) => "SSH",
        RemoteUrl::Http(url) if url.text.starts_with("https:") => "TLS",
        RemoteUrl::Http(_) => "HTTP without encryption",
    }
}

fn encrypted(encryption: Option<&Encryption>) -> Encrypted {
    let Some(encryption) = encryption else {
        return Encrypted { method: "none", paths: Vec::new(), keys: Vec::new() };
    };
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let mut keys = Vec::new();
    if encryption.encrypts() {
        let of_metadata =
            if matches!(encryption.method, EncryptionMethod::Gpg(_)) { " (of metadata)" } else { "" };
        keys.extend(encryption.method.key_file().map(|key| format!("file {}{of_metadata}", shown(key))));
        keys.extend(encryption.method.old_keys().map(|old| format!("older ones in {}", shown(old))));
        let recipients = encryption.method.recipients().iter();
        keys.extend(recipients.map(|place| format!("for the recipients of {}", shown(place))));
    }
    if let EncryptionMethod::Gpg(gpg) = &encryption.method {
        keys.push(match (&gpg.private_key, gpg.agent) {
            (Some(path), _) => format!("private key here, {}: this host can read", shown(path)),
            (None, true) => "gpg's agent here: this host can read".to_owned(),
            (None, false) => "no private key here: this host can write and not read".to_owned(),
        });
    }
    let method = encryption.method.as_str();
    Encrypted { method, paths: encryption.paths.clone(), keys }
}

/// Where each secret is read, in words.
fn sources(credentials: &Credentials) -> Vec<String> {
    let named = [
        ("password", &credentials.password),
        ("token", &credentials.token),
        ("SSH key", &credentials.ssh_key),
        ("passphrase", &credentials.passphrase),
    ];
    let words = |(what, source): (&str, &Option<SecretSource>)| {
        Some(match source.as_ref()? {
            SecretSource::File(path) => format!("{what} from the file {}", path.to_string_lossy()),
            SecretSource::Environment(name) => format!("{what} from the variable {name}"),
            SecretSource::Command(command) => {
                format!("{what} from the program {}", command.first().map_or("", String::as_str))
            }
        })
    };
    named.into_iter().filter_map(words).collect()
}

/// Questions that the report leaves open.
fn open(settings: &Repository, held: &Held, now: Moment) -> Vec<String> {
    let mut open = Vec::new();
    let name = &held.name;
    if held.places.is_empty() {
        open.push(format!("{name}: nothing leaves this machine: there is no remote"));
    }
    if held.places.len() == 1 {
        open.push(format!(
            "{name}: there is one remote only; when it is lost, this machine has the last copy"
        ));
    }
    for place in &held.places {
        let at = format!("{name} at {}", place.remote);
        if place.region.is_none() {
            open.push(format!("{at}: it is not said where it stands (`region`)"));
        }
        if place.transport == "HTTP without encryption" {
            open.push(format!("{at}: contents and credentials cross the network unencrypted"));
        }
        if held.encryption.method == "none" && place.transport != "a path of this machine" {
            open.push(format!("{at}: whoever runs it can read the contents (`encryption`)"));
        }
        match &place.drill {
            None => open.push(format!("{at}: no restore from it was rehearsed yet (`backupbot drill`)")),
            Some(drill) if drill.problems > 0 => {
                open.push(format!("{at}: the last rehearsed restore found something wrong"));
            }
            Some(drill) => {
                let interval = settings.drill.as_ref().map_or(u64::MAX, |law| law.every.as_secs());
                if now.seconds_since(drill.at) > interval.saturating_mul(3) {
                    open.push(format!("{at}: the last rehearsed restore is three intervals old"));
                }
            }
        }
        if place.last_success.is_none() {
            open.push(format!("{at}: nothing was read back from it yet"));
        }
    }
    if settings.drill.is_none() {
        open.push(format!("{name}: restores are not rehearsed on schedule (`drill: null`)"));
    }
    if settings.verify.is_none() {
        open.push(format!("{name}: what is here is not verified on schedule (`verify: null`)"));
    }
    open
}

#[cfg(test)]
mod tests;
