//! `backupbot remote …`: one remote of the configuration, by its name.

mod test;
mod trust;

use std::path::PathBuf;

use backupbot_core::config::Remote;

use crate::cli::{self, Global, RemoteCommand, Scope};
use crate::exit::{Exit, Failure};
use crate::settings::{self, World};

pub fn remote(world: &World, global: &Global, arguments: &cli::Remote) -> Result<Exit, Failure> {
    match &arguments.command {
        RemoteCommand::Test(test) => test::test(world, global, test),
        RemoteCommand::Trust(trust) => trust::trust(world, global, trust),
    }
}

/// A remote and where it stands in the configuration.
struct Found {
    repository: String,
    /// The branch, in full, as of now.
    branch: String,
    remote: Remote,
    state_dir: PathBuf,
}

/// The remote of that name; several are good enough if they are one and the same for all that is done with them here.
fn find(world: &World, global: &Global, name: &str, scope: &Scope) -> Result<Found, Failure> {
    let Some(settings) = settings::for_asking(world, global)?.configuration()? else {
        return Err(Failure::usage("no configuration found: name one with --config FILE"));
    };
    let config = settings.config;
    let is_meant = |repository: &str| scope.repository.as_deref().is_none_or(|wanted| wanted == repository);
    let meant: Vec<_> =
        config.repositories.iter().filter(|repository| is_meant(repository.name.as_str())).collect();
    if meant.is_empty() {
        let wanted = scope.repository.as_deref().unwrap_or_default();
        return Err(Failure::failed(format!("there is no repository {wanted:?}")));
    }
    let all = || {
        meant.iter().flat_map(|repository| repository.remotes.iter().map(move |remote| (repository, remote)))
    };
    let mut named = all().filter(|(_, remote)| remote.name.as_str() == name);
    let Some((repository, remote)) = named.next() else {
        let names: Vec<&str> = all().map(|(_, remote)| remote.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Failure::failed(format!("there is no remote {name:?}; there is: {there}")));
    };
    if named.any(|(_, other)| other.url != remote.url || other.credentials != remote.credentials) {
        let text = format!(
            "several repositories have a remote {name}, and not the same one: choose with --repository"
        );
        return Err(Failure::usage(text));
    }
    Ok(Found {
        repository: repository.name.as_str().to_owned(),
        branch: repository.branch.full_name(&config.instance, backupbot_core::clock::now())?,
        remote: remote.clone(),
        state_dir: config.state_dir,
    })
}
