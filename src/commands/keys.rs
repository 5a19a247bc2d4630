//! `backupbot keys …`: the keys of encrypted repositories, in the hands of the operator.
//!
//! In: the configuration, which says where keys and certificates are. Out: files there (core/src/crypt/key_files.rs,
//! core/src/crypt/recipients.rs), words about what to do next, a line in the audit log, and a word to a running daemon, which
//! reads keys at use.

mod carry;
mod check;
mod make;
mod people;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backupbot_core::audit::Event;
use backupbot_core::config::{Config, EncryptionMethod, Repository};
use backupbot_core::crypt::key_files::Owner;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::cli::keys::{Keys, KeysCommand};
use crate::client::{self, Reach};
use crate::deeds::Deeds;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::settings::{self, Settings, World};

/// What to write into the configuration where nothing is encrypted.
const HOW_TO_ENCRYPT: &str =
    "write `encryption: {method: git-crypt, key_file: /etc/backupbot/NAME.key}` under the repository";

pub fn keys(world: &World, global: &Global, arguments: &Keys) -> Result<Exit, Failure> {
    match &arguments.command {
        KeysCommand::Create(which) => make::create(world, global, which),
        KeysCommand::Rotate(which) => make::rotate(world, global, which),
        KeysCommand::Export(export) => carry::export(world, global, export),
        KeysCommand::Import(import) => carry::import(world, global, import),
        KeysCommand::AddRecipient(add) => people::add(world, global, add),
        KeysCommand::RemoveRecipient(remove) => people::remove(world, global, remove),
        KeysCommand::Check(which) => check::check(world, global, which),
    }
}

fn configuration(world: &World, global: &Global) -> Result<Settings, Failure> {
    settings::for_asking(world, global)?
        .configuration()?
        .ok_or_else(|| Failure::usage("no configuration found: name one with --config FILE"))
}

/// The repositories that are meant, by name or all.
fn meant<'c>(config: &'c Config, wanted: Option<&str>) -> Result<Vec<&'c Repository>, Failure> {
    let is_meant = |repository: &&Repository| wanted.is_none_or(|wanted| repository.name.as_str() == wanted);
    let meant: Vec<&Repository> = config.repositories.iter().filter(is_meant).collect();
    match wanted {
        Some(wanted) if meant.is_empty() => {
            Err(Failure::failed(format!("there is no repository {wanted:?}")))
        }
        _ => Ok(meant),
    }
}

/// A key file, with everybody who goes by it.
struct Place {
    key_file: PathBuf,
    /// Where the old keys of each of the repositories are, without repetition.
    old_keys: Vec<PathBuf>,
    /// The repositories that are encrypted with this key: one may be shared.
    repositories: Vec<String>,
    /// Whether it has the metadata only, because contents are OpenPGP messages.
    is_of_metadata: bool,
}

/// The one key file that is meant.
fn place(config: &Config, wanted: Option<&str>) -> Result<Place, Failure> {
    let mut files: Vec<(&Path, &str)> = Vec::new();
    for repository in meant(config, wanted)? {
        if let Some(key_file) = method(repository).and_then(EncryptionMethod::key_file)
            && !files.iter().any(|(other, _)| *other == key_file)
        {
            files.push((key_file, repository.name.as_str()));
        }
    }
    let key_file = match files.as_slice() {
        [(only, _)] => only.to_path_buf(),
        [] => {
            let who = wanted.map_or_else(
                || "no repository is encrypted".to_owned(),
                |name| format!("repository {name} is not encrypted"),
            );
            return Err(Failure::usage(format!("{who}: {HOW_TO_ENCRYPT}")));
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(_, name)| *name).collect();
            return Err(Failure::usage(format!(
                "there are several keys: choose with --repository one of {}",
                names.join(", ")
            )));
        }
    };
    let mut place = Place { key_file, old_keys: Vec::new(), repositories: Vec::new(), is_of_metadata: true };
    for repository in &config.repositories {
        let Some(method) = method(repository) else { continue };
        if method.key_file() != Some(&place.key_file) {
            continue;
        }
        place.repositories.push(repository.name.to_string());
        place.is_of_metadata &= matches!(method, EncryptionMethod::Gpg(_));
        if let Some(old_keys) = method.old_keys()
            && !place.old_keys.iter().any(|known| known == old_keys)
        {
            place.old_keys.push(old_keys.to_path_buf());
        }
    }
    Ok(place)
}

fn method(repository: &Repository) -> Option<&EncryptionMethod> {
    repository.encryption.as_ref().map(|encryption| &encryption.method)
}

/// As whom keys are to be readable: root makes them for the user of the daemon, whose the state directory is.
fn owner(config: &Config) -> Owner {
    use std::os::unix::fs::MetadataExt;
    let ours = Owner::this_process();
    match std::fs::metadata(&config.state_dir) {
        Ok(metadata) if ours.user == 0 => {
            Owner { user: metadata.uid(), group: metadata.gid(), group_reads: false }
        }
        _ => ours,
    }
}

/// What to complain about where the daemon could not read what this user makes.
fn warn_of_owner(config: &Config) {
    use std::os::unix::fs::MetadataExt;
    let ours = Owner::this_process();
    let Ok(metadata) = std::fs::metadata(&config.state_dir) else { return };
    if ours.user != 0 && metadata.uid() != ours.user {
        crate::output::complain(&format!(
            "the state directory belongs to user {}, and the key to user {}: whoever runs the daemon must be able to read \
             it (chown it, or do this as that user)",
            metadata.uid(),
            ours.user
        ));
    }
}

/// Reads something that was given on the command line, `-` being the standard input.
fn given(world: &World, path: &Path, limit: u64) -> Result<(Zeroizing<Vec<u8>>, String), Failure> {
    let (name, source): (String, Box<dyn Read>) = if path == Path::new("-") {
        ("the standard input".to_owned(), Box::new(io::stdin()))
    } else {
        let path = world.absolute(path);
        let opened = std::fs::File::open(&path);
        let file = opened.map_err(|error| Failure::io(format!("cannot read {}", shown(&path)), error))?;
        (shown(&path), Box::new(file))
    };
    // Large enough for any key from the beginning: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(256 * 1024));
    let read = source.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(format!("cannot read {name}"), error))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::failed(format!("{name} is too large to be what is expected")));
    }
    Ok((bytes, name))
}

/// Writes a line into the audit log for each repository.
fn tell(world: &World, global: &Global, command: &str, repositories: &[String], event: &dyn Fn() -> Event) {
    let deeds = Deeds::of(&format!("keys {command}"), world, global);
    for repository in repositories {
        deeds.write(event().in_repository(repository));
    }
}

/// Asks a running daemon to make a snapshot now; says what came of it.
fn nudge(world: &World, global: &Global, repositories: &[String]) -> &'static str {
    let Ok(Reach::Daemon(client)) = client::reach(world, global) else {
        return "no daemon is running: it happens with the next snapshot";
    };
    let is_told = repositories.iter().all(|repository| {
        // Where no file has changed there is nothing to make a snapshot of, unless everything is compared.
        let wish = json!({"repository": repository, "wait": false, "rescan": true});
        client.post("/flush", &wish, Duration::ZERO).and_then(client::Answer::ok).is_ok()
    });
    if is_told {
        "the running daemon was asked to make a snapshot now"
    } else {
        "the running daemon could not be asked: it happens with the next snapshot"
    }
}
