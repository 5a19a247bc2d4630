//! Where a restore comes from and where it may not go: the repository in the state directory, and what is watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backupbot_actors::root::repository_path;
use backupbot_core::config::{Repository as RepositorySettings, Root};
use backupbot_core::git::Oid;
use backupbot_core::git::repository::Repository;
use backupbot_core::history::Snapshot;
use backupbot_core::names::{RepositoryName, RootName};

use crate::cli::Global;
use crate::exit::Failure;
use crate::files::shown;
use crate::settings::{self, Settings, World};

/// What is restored from.
pub struct Source {
    /// Where the state is.
    pub state_dir: PathBuf,
    /// The configuration, as far as there is one.
    pub settings: Option<Settings>,
    /// The repository.
    pub name: RepositoryName,
    /// Where it is.
    pub git_directory: PathBuf,
}

impl Source {
    /// The repository that was named, or the only one.
    pub fn find(world: &World, global: &Global, wanted: Option<&str>) -> Result<Self, Failure> {
        let asking = settings::for_asking(world, global)?;
        let state_dir = asking.state_dir.clone();
        let settings = asking.configuration()?;
        let mut names: Vec<RepositoryName> = match &settings {
            Some(settings) => {
                settings.config.repositories.iter().map(|repository| repository.name.clone()).collect()
            }
            None => Vec::new(),
        };
        let on_disk = std::fs::read_dir(state_dir.join("repos")).into_iter().flatten().flatten();
        for entry in on_disk {
            let name = entry.file_name().into_string().ok();
            let name = name.as_deref().and_then(|name| name.strip_suffix(".git"));
            names.extend(name.and_then(|name| RepositoryName::new(name).ok()));
        }
        names.sort();
        names.dedup();
        let listed = names.iter().map(RepositoryName::as_str).collect::<Vec<_>>().join(", ");
        let name = match wanted {
            Some(wanted) => names.into_iter().find(|name| name.as_str() == wanted).ok_or_else(|| {
                Failure::failed(format!("there is no repository {wanted:?}; there are: {listed}"))
            })?,
            None if names.len() > 1 => {
                return Err(Failure::usage(format!(
                    "there are several repositories: choose with --repository: {listed}"
                )));
            }
            None => names.pop().ok_or_else(|| {
                Failure::failed(format!(
                    "there is no backup in {}: name the right place with --state-dir or --config",
                    shown(&state_dir)
                ))
            })?,
        };
        let git_directory = repository_path(&state_dir, name.as_str());
        if !git_directory.exists() {
            return Err(Failure::failed(format!("nothing of {name} was ever committed here")));
        }
        Ok(Self { state_dir, settings, name, git_directory })
    }

    fn configured(&self) -> Option<&RepositorySettings> {
        let settings = self.settings.as_ref()?;
        settings.config.repositories.iter().find(|repository| repository.name == self.name)
    }

    /// The roots of the repository as they are configured.
    pub fn roots(&self) -> impl Iterator<Item = &Root> {
        self.configured().into_iter().flat_map(|repository| &repository.roots)
    }

    /// Where each root is watched.
    pub fn places(&self) -> Result<BTreeMap<RootName, PathBuf>, Failure> {
        let places: BTreeMap<RootName, PathBuf> =
            self.roots().map(|root| (root.name.clone(), root.path.clone())).collect();
        if places.is_empty() {
            return Err(Failure::usage(
                "no configuration was found, so it is not known where the files were: name one with --config, or restore \
                 somewhere else with --to",
            ));
        }
        Ok(places)
    }

    /// Where restores in place are remembered.
    pub fn journals(&self) -> PathBuf {
        self.state_dir.join("restores")
    }

    /// The newest commit.
    pub fn tip(&self, repository: &Repository) -> Result<Oid, Failure> {
        let branch = match (self.configured(), &self.settings) {
            (Some(configured), Some(settings)) => {
                let name =
                    configured.branch.render(&settings.config.instance, backupbot_core::clock::now())?;
                if name.starts_with("refs/") { name } else { format!("refs/heads/{name}") }
            }
            _ => "HEAD".to_owned(),
        };
        let tip = match repository.reference(&branch)? {
            Some(tip) => Some(tip),
            // The branch of today may have no commit yet.
            None => repository.reference("HEAD")?,
        };
        tip.ok_or_else(|| Failure::failed(format!("nothing of {} was ever committed here", self.name)))
    }

    /// Refuses a directory where a restore would be backed up again, or would change what is watched behind its back.
    pub fn refuse_dangerous_target(
        &self,
        directory: &Path,
        snapshot: &Snapshot,
        repository: &Repository,
    ) -> Result<(), Failure> {
        let real = real_path(directory);
        let shown_directory = shown(directory);
        let state_dir = real_path(&self.state_dir);
        if is_within(&real, &state_dir) {
            return Err(Failure::usage(format!(
                "{shown_directory} is in the state directory {}: name a directory elsewhere",
                shown(&self.state_dir)
            )));
        }
        let objects = repository.objects()?;
        let written: Vec<PathBuf> =
            snapshot.roots(&objects)?.into_iter().map(|root| real.join(root.name.as_str())).collect();
        let settings = self.settings.iter().flat_map(|settings| &settings.config.repositories);
        for root in settings.flat_map(|repository| &repository.roots) {
            let watched = real_path(&root.path);
            if is_within(&real, &watched) {
                return Err(Failure::usage(format!(
                    "{shown_directory} is in the watched directory {}, so what is restored there would be backed up again: \
                     name a directory elsewhere, or restore to where it was with --in-place",
                    shown(&root.path)
                )));
            }
            if written.iter().any(|written| is_within(&watched, written)) {
                return Err(Failure::usage(format!(
                    "restoring to {shown_directory} would write into the watched directory {}: use --in-place, which backs \
                     up first what is there and can be undone, or name a directory elsewhere",
                    shown(&root.path)
                )));
            }
        }
        if written.iter().any(|written| is_within(&state_dir, written)) {
            return Err(Failure::usage(format!(
                "restoring to {shown_directory} would write over the state directory {}: name a directory elsewhere",
                shown(&self.state_dir)
            )));
        }
        Ok(())
    }
}

fn is_within(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory)
}

/// The path without symbolic links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_path_buf()
}
