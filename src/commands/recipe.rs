//! `backupbot recipe`: the plain commands that get everything back without BackupBot.
//!
//! It asks nobody but the configuration, and the state directory for a branch that is named after the date.

use std::path::{Path, PathBuf};

use backupbot_actors::root::repository_path;
use backupbot_core::clock;
use backupbot_core::config::{Config, EncryptionMethod, Repository as RepositorySettings};
use backupbot_core::git::repository::Repository;
use backupbot_core::lfs::Objects;
use serde_json::json;

use crate::cli::{Invocation, Recipe};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::recipe::{self, Place, Source};
use crate::settings::{self, World};

pub fn recipe(world: &World, invocation: &Invocation, arguments: &Recipe) -> Result<Exit, Failure> {
    let global = &invocation.cli.global;
    let Some(settings) = settings::for_asking(world, global)?.configuration()? else {
        return Err(Failure::usage("no configuration found: name one with --config FILE"));
    };
    let mut arguments = arguments.clone();
    // The variable is also the one of `run --remote`, and then no name but an address.
    let is_name = |name: &str| {
        let mut remotes = settings.config.repositories.iter().flat_map(|repository| &repository.remotes);
        remotes.any(|remote| remote.name.as_str() == name)
    };
    if !invocation.is_typed("remote") {
        arguments.remote = arguments.remote.filter(|name| is_name(name));
    }
    let steps = recipe::steps(&sources(&settings.config, &arguments)?);
    if global.json {
        output::json(&json!({"commands": steps}))?;
    } else {
        output::answer(&recipe::script(&steps))?;
    }
    Ok(Exit::Done)
}

/// What is to be got back, and from where.
pub fn sources(config: &Config, arguments: &Recipe) -> Result<Vec<Source>, Failure> {
    let wanted = arguments.which.repository.as_deref();
    let is_meant =
        |repository: &&RepositorySettings| wanted.is_none_or(|name| repository.name.as_str() == name);
    let meant: Vec<&RepositorySettings> = config.repositories.iter().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(Failure::failed(format!("there is no repository {:?}", wanted.unwrap_or_default())));
    }
    let mut sources = Vec::new();
    for repository in &meant {
        let places = places(config, repository, arguments.remote.as_deref());
        if places.is_empty() {
            continue;
        }
        sources.push(Source {
            name: repository.name.to_string(),
            roots: repository.roots.iter().map(|root| root.name.to_string()).collect(),
            branch: branch(config, repository)?,
            is_dated: repository.branch.as_str().contains("{date:"),
            has_large: repository.lfs.is_some()
                || Objects::of(&repository_path(&config.state_dir, repository.name.as_str())).is_in_use(),
            key: key(repository),
            is_open_pgp: matches!(method(repository), Some(EncryptionMethod::Gpg(_))),
            places,
        });
    }
    if sources.is_empty() {
        let remotes = meant.iter().flat_map(|repository| &repository.remotes);
        let names: Vec<&str> = remotes.map(|remote| remote.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let name = arguments.remote.as_deref().unwrap_or_default();
        return Err(Failure::failed(format!("there is no remote {name:?}; there is: {there}")));
    }
    Ok(sources)
}

/// Where the key of an encrypted repository is.
fn key(repository: &RepositorySettings) -> Option<PathBuf> {
    method(repository)?.key_file().map(Path::to_path_buf)
}

fn method(repository: &RepositorySettings) -> Option<&EncryptionMethod> {
    repository.encryption.as_ref().map(|encryption| &encryption.method)
}

fn places(config: &Config, repository: &RepositorySettings, wanted: Option<&str>) -> Vec<Place> {
    let is_meant = |name: &str| wanted.is_none_or(|wanted| wanted == name);
    let known_hosts = config.state_dir.join("known_hosts");
    let mut places: Vec<Place> = repository
        .remotes
        .iter()
        .filter(|remote| is_meant(remote.name.as_str()))
        .map(|remote| Place::Remote(Box::new(remote.clone()), known_hosts.clone()))
        .collect();
    if repository.remotes.is_empty() && wanted.is_none() {
        places.push(Place::State(repository_path(&config.state_dir, repository.name.as_str())));
    }
    places
}

/// The branch that has the newest state, in full.
fn branch(config: &Config, repository: &RepositorySettings) -> Result<String, Failure> {
    let now = repository.branch.full_name(&config.instance, clock::now())?;
    let directory = repository_path(&config.state_dir, repository.name.as_str());
    // One that is named after the month may not have begun yet; HEAD is where the last one was.
    Ok(last_begun(&directory, &now).unwrap_or(now))
}

fn last_begun(directory: &Path, branch: &str) -> Option<String> {
    // What cannot be read here is no reason to give no recipe: the state may be what was lost.
    let repository = Repository::open(directory).ok()?;
    if repository.reference(branch).ok()?.is_some() {
        return None;
    }
    let head = repository.git().find_reference("HEAD").ok()?;
    let last = head.symbolic_target().ok()??;
    repository.reference(last).ok()??;
    Some(last.to_owned())
}
