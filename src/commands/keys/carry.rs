//! `keys export` and `keys import`: keys carried away, as a file or on paper, and brought back.

use std::io::{self, IsTerminal};
use std::path::Path;

use backupbot_core::audit::Event;
use backupbot_core::clock;
use backupbot_core::config::{Config, EncryptionMethod, Repository, default_old_keys};
use backupbot_core::crypt::gitcrypt::KeyFile;
use backupbot_core::crypt::key_files::{self, Owner, Put};
use backupbot_core::crypt::keyring::{Key, Keyring};
use backupbot_core::crypt::kit::{self, Sheet};
use backupbot_core::crypt::recipients;
use serde_json::json;

use super::people::now;
use super::{HOW_TO_ENCRYPT, Place, configuration, given, meant, method, owner, place, tell, warn_of_owner};
use crate::cli::Global;
use crate::cli::keys::{Export, Import};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::World;

/// How a key file begins; whatever else is given is taken for a kit.
const KEY_FILE_MAGIC: &[u8] = b"\0GITCRYPTKEY";

pub fn export(world: &World, global: &Global, export: &Export) -> Result<Exit, Failure> {
    let settings = configuration(world, global)?;
    let config = &settings.config;
    let place = place(config, export.which.repository.as_deref())?;
    if export.to.is_none() && !export.kit && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "a key is binary, and nothing for a terminal: name a file with --to FILE, or take --kit to have text",
        ));
    }
    let key = Key::read(&place.key_file)?;
    let target = export.to.as_deref().map(|path| world.absolute(path));
    let contents = if export.kit {
        let sheet = kit_of(config, &place)?;
        zeroize::Zeroizing::new(sheet.as_bytes().to_vec())
    } else {
        key.file().to_bytes()
    };
    match &target {
        Some(path) => key_files::hand_out(&contents, path)?,
        None => {
            let mut out = output::Lines::begin();
            out.bytes(&contents)?;
            out.end()?;
        }
    }
    let to = target.as_deref().map_or_else(|| "the standard output".to_owned(), shown);
    tell(world, global, "export", &place.repositories, &|| {
        let form = if export.kit { "recovery kit" } else { "key file" };
        Event::new("key", "exported").with("key", key.id()).with("as", form).with("to", &to)
    });
    let Some(path) = target else { return Ok(Exit::Done) };
    if global.json {
        output::json(&json!({"key": key.id(), "to": path, "kit": export.kit}))?;
    } else if export.kit {
        output::answer(&format!(
            "the recovery kit is in {to}: print it, and remove the file: whoever reads it can read the backup"
        ))?;
    } else {
        output::answer(&format!(
            "the key {} is in {to}{}; a clone is opened with: git-crypt unlock {to}\nSnapshots from before a `keys rotate` need \
             the keys in {}",
            key.id(),
            if place.is_of_metadata { " (it has the metadata only)" } else { "" },
            place.old_keys.iter().map(|path| shown(path)).collect::<Vec<_>>().join(", ")
        ))?;
    }
    Ok(Exit::Done)
}

/// The sheet for a key, with every old key that its repositories know.
fn kit_of(config: &Config, place: &Place) -> Result<zeroize::Zeroizing<String>, Failure> {
    let mut rings = Vec::new();
    for directory in &place.old_keys {
        rings.push(Keyring::read(&EncryptionMethod::GitCrypt {
            key_file: place.key_file.clone(),
            old_keys: directory.clone(),
            recipients: Vec::new(),
        })?);
    }
    let mut keys: Vec<&Key> = Vec::new();
    for key in rings.iter().flat_map(Keyring::keys) {
        if !keys.iter().any(|other| other.id() == key.id()) {
            keys.push(key);
        }
    }
    let is_ours =
        |repository: &&Repository| place.repositories.iter().any(|name| repository.name.as_str() == *name);
    let repositories: Vec<&Repository> = config.repositories.iter().filter(is_ours).collect();
    let mut remotes = Vec::new();
    let mut branches: Vec<String> = Vec::new();
    for repository in &repositories {
        for remote in &repository.remotes {
            let name = match repositories.len() {
                1 => remote.name.to_string(),
                _ => format!("{} {}", repository.name, remote.name),
            };
            remotes.push((name, remote.url.to_string()));
        }
        let branch = repository.branch.full_name(&config.instance, clock::now())?;
        if !branches.contains(&branch) {
            branches.push(branch);
        }
    }
    let sheet = Sheet {
        made: clock::now().strftime("%Y-%m-%d").to_string(),
        instance: config.instance.clone(),
        repository: place.repositories.join(", "),
        branch: branches.join(", "),
        remotes,
        has_large: repositories.iter().any(|repository| repository.lfs.is_some()),
        keys,
        private_keys: private_keys_for(place, &repositories),
    };
    Ok(sheet.text()?)
}

/// The fingerprints of those who alone can read contents that are OpenPGP messages.
fn private_keys_for(place: &Place, repositories: &[&Repository]) -> Vec<String> {
    let mut names = Vec::new();
    if place.is_of_metadata {
        for method in repositories.iter().filter_map(|repository| method(repository)) {
            let found = recipients::survey(method.recipients(), now());
            names.extend(found.into_iter().filter_map(|found| found.fingerprint));
        }
        names.sort_unstable();
        names.dedup();
    }
    names
}

pub fn import(world: &World, global: &Global, import: &Import) -> Result<Exit, Failure> {
    let (bytes, name) = given(world, &import.from, kit::LARGEST)?;
    let keys = if bytes.starts_with(KEY_FILE_MAGIC) {
        vec![Key::new(KeyFile::parse(&bytes, &name)?, Path::new(&name))?]
    } else {
        let text = std::str::from_utf8(&bytes);
        let text = text
            .map_err(|_| Failure::failed(format!("{name} is neither a key file of git-crypt nor a kit")))?;
        kit::read(text, &name)?
    };
    drop(bytes);
    let done = match &import.to {
        Some(path) => {
            let path = world.absolute(path);
            let old = [default_old_keys(&path)];
            put(&keys, Some(&path), &old, Owner::this_process())?
        }
        None => {
            let config = configuration(world, global)?.config;
            let wanted = import.which.repository.as_deref();
            let (current, old, repositories) = if import.old {
                let (old, repositories) = old_places(&config, wanted)?;
                (None, old, repositories)
            } else {
                let place = place(&config, wanted)?;
                (Some(place.key_file), place.old_keys, place.repositories)
            };
            let done = put(&keys, current.as_deref(), &old, owner(&config))?;
            tell(world, global, "import", &repositories, &|| {
                let ids: Vec<&str> = keys.iter().map(|key| key.id().as_str()).collect();
                Event::new("key", "imported").with("key", ids.join(", "))
            });
            warn_of_owner(&config);
            done
        }
    };
    if global.json {
        let rows = done
            .iter()
            .map(|(key, path, put)| json!({"key": key.id(), "file": path, "written": *put == Put::Written}));
        output::json(&json!({"keys": rows.collect::<Vec<_>>()}))?;
        return Ok(Exit::Done);
    }
    for (key, path, put) in &done {
        let became = if *put == Put::Written { "is now in" } else { "was already in" };
        output::answer(&format!("the key {} {became} {}", key.id(), shown(path)))?;
    }
    Ok(Exit::Done)
}

/// Puts the first key in its place, if there is one, and the others among the old ones.
fn put<'k>(
    keys: &'k [Key],
    current: Option<&Path>,
    old: &[std::path::PathBuf],
    owner: Owner,
) -> Result<Vec<(&'k Key, std::path::PathBuf, Put)>, Failure> {
    let mut done = Vec::new();
    let mut rest = keys.iter();
    if let Some(path) = current
        && let Some(first) = rest.next()
    {
        let put = key_files::put(first, path, owner).map_err(|error| {
            let mut failure = Failure::from(error);
            failure.lines.push("an old key, for older snapshots only, is imported with --old".to_owned());
            failure
        })?;
        done.push((first, path.to_path_buf(), put));
    }
    for key in rest {
        for directory in old {
            let (path, put) = key_files::keep_old(key, directory, owner)?;
            done.push((key, path, put));
        }
    }
    Ok(done)
}

/// Where the old keys of the meant repositories are.
fn old_places(
    config: &Config,
    wanted: Option<&str>,
) -> Result<(Vec<std::path::PathBuf>, Vec<String>), Failure> {
    let (mut places, mut names) = (Vec::new(), Vec::new());
    for repository in meant(config, wanted)? {
        if let Some(directory) = method(repository).and_then(EncryptionMethod::old_keys) {
            names.push(repository.name.to_string());
            if !places.iter().any(|place| place == directory) {
                places.push(directory.to_path_buf());
            }
        }
    }
    match places.len() {
        0 => Err(Failure::usage(format!(
            "the configuration names no directory of old keys: {HOW_TO_ENCRYPT}, or `encryption: {{method: none, old_keys: \
             DIRECTORY}}` for one that is no longer encrypted"
        ))),
        1 => Ok((places, names)),
        _ => Err(Failure::usage("several repositories have old keys: choose with --repository")),
    }
}
