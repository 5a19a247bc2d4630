//! Which remote is to be verified: one of the configuration, or any address.

use std::path::PathBuf;

use backupbot_actors::root::repository_path;
use backupbot_core::config::Remote;
use backupbot_core::names::RepositoryName;

use crate::afar;
use crate::cli::Global;
use crate::cli::verify::Verify;
use crate::exit::Failure;
use crate::settings::{self, World};

/// The remote that is meant.
pub struct Meant<'m> {
    /// How to get there.
    pub remote: Remote,
    /// Its branch, as far as one is meant.
    pub branch: Option<String>,
    repository: RepositoryName,
    /// Its name in the configuration.
    configured: Option<&'m str>,
    /// Where the state is.
    pub state_dir: PathBuf,
}

impl Meant<'_> {
    /// The repository's name.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The repository in the state directory of which it should be a copy.
    pub fn own(&self) -> Option<PathBuf> {
        self.configured.map(|_| repository_path(&self.state_dir, self.repository.as_str()))
    }

    /// The remote's name in the configuration.
    pub fn configured_name(&self) -> Option<&str> {
        self.configured
    }

    /// The remote, for people.
    pub fn shown(&self) -> String {
        match self.configured {
            Some(name) => format!("remote {name}"),
            None => self.remote.url.to_string(),
        }
    }
}

/// A remote of the configuration.
pub fn configured<'m>(
    world: &World,
    global: &Global,
    arguments: &Verify,
    name: &'m str,
) -> Result<Meant<'m>, Failure> {
    let asking = settings::for_asking(world, global)?;
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?.ok_or_else(|| {
        Failure::usage(
            "no configuration was found, so no remote has a name: name one with --config, or use --from URL",
        )
    })?;
    let wanted = arguments.which.repository.as_deref();
    let all = || {
        let repositories = settings.config.repositories.iter();
        repositories.filter(|repository| wanted.is_none_or(|wanted| repository.name.as_str() == wanted))
    };
    let having: Vec<_> =
        all().filter(|it| it.remotes.iter().any(|remote| remote.name.as_str() == name)).collect();
    let repository = match having.as_slice() {
        [only] => *only,
        [] => {
            let mut names: Vec<&str> =
                all().flat_map(|it| &it.remotes).map(|remote| remote.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Failure::usage(format!("no remote is called {name:?}; configured are: {names}")));
        }
        several => {
            let names: Vec<&str> = several.iter().map(|it| it.name.as_str()).collect();
            let text = format!(
                "several repositories have a remote {name}: choose with --repository one of {}",
                names.join(", ")
            );
            return Err(Failure::usage(text));
        }
    };
    let within = Some(repository.name.as_str());
    let (remote, branch) = afar::meant(world, Some(&settings), within, name, &arguments.access)?;
    let branch = arguments.access.branch.clone().or(branch);
    Ok(Meant { remote, branch, repository: repository.name.clone(), configured: Some(name), state_dir })
}

/// Any remote.
pub fn anywhere<'m>(
    world: &World,
    global: &Global,
    arguments: &Verify,
    from: &'m str,
) -> Result<Meant<'m>, Failure> {
    let asking = settings::for_asking(world, global)?;
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?;
    let wanted = arguments.which.repository.as_deref();
    let (remote, branch) = afar::meant(world, settings.as_ref(), wanted, from, &arguments.access)?;
    let mut repositories = settings.iter().flat_map(|settings| &settings.config.repositories);
    let of_this = |it: &&backupbot_core::config::Repository| {
        it.remotes.iter().any(|known| known.name == remote.name && known.url == remote.url)
            && wanted.is_none_or(|wanted| it.name.as_str() == wanted)
    };
    let known = repositories.find(of_this).filter(|_| remote.name.as_str() == from);
    let name = match (known, wanted) {
        (Some(known), _) => Ok(known.name.clone()),
        (None, Some(wanted)) => RepositoryName::new(wanted),
        (None, None) => {
            RepositoryName::new(remote.name.as_str()).or_else(|_| RepositoryName::new(afar::NAMELESS))
        }
    };
    let repository = name.map_err(|error| Failure::usage(error.to_string()))?;
    let branch = arguments.access.branch.clone().or(branch);
    Ok(Meant { branch, repository, configured: known.map(|_| from), remote, state_dir })
}
