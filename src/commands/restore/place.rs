//! Where a restore comes from and where it may not go: the repository in the state directory, and what is watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backupbot_core::config::{Repository as RepositorySettings, Root};
use backupbot_core::git::contents::LargeContents;
use backupbot_core::git::repository::Repository;
use backupbot_core::history::Snapshot;
use backupbot_core::names::{RepositoryName, RootName};
use backupbot_core::progress::Progress;
use backupbot_core::restore::Selection;

use super::from::{self, Fetched, Opened};
use crate::cli::Global;
use crate::cli::restore::Restore;
use crate::exit::Failure;
use crate::files::shown;
use crate::looking::Looking;
use crate::settings::{Settings, World};

/// What is restored from.
pub struct Source<'w> {
    /// The repository, and what is known around it.
    pub looking: Looking<'w>,
    /// Where the rest of it comes from, if it is not here.
    fetched: Option<Fetched>,
    /// Who has large contents.
    large: Arc<dyn LargeContents>,
}

impl<'w> Source<'w> {
    /// The repository that was named, or the only one, or the one in which `path` lies.
    pub fn find(
        world: &'w World,
        global: &Global,
        wanted: Option<&str>,
        path: Option<&Path>,
    ) -> Result<Self, Failure> {
        Looking::open(world, global, wanted, path).map(Self::of)
    }

    /// A repository that is open already.
    pub fn of(looking: Looking<'w>) -> Self {
        let large = looking.large();
        Self { looking, fetched: None, large }
    }

    /// What a remote has.
    pub fn from(
        world: &'w World,
        global: &Global,
        arguments: &Restore,
        from: &str,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let Opened { looking, fetched, large } = from::open(world, global, arguments, from, progress)?;
        Ok(Self { looking, fetched, large })
    }

    /// Who has large contents.
    pub fn large(&self) -> Arc<dyn LargeContents> {
        self.large.clone()
    }

    /// Makes sure that it can be told whether the snapshot is encrypted, and with which key.
    pub fn bring_encryption(&self, snapshot: &Snapshot, progress: &Progress) -> Result<(), Failure> {
        match &self.fetched {
            Some(fetched) => fetched.bring_encryption(snapshot, progress),
            None => Ok(()),
        }
    }

    /// Makes sure that what is to be restored is here.
    pub fn bring(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        progress: &Progress,
    ) -> Result<(), Failure> {
        match &self.fetched {
            Some(fetched) => fetched.bring(snapshot, selection, progress),
            None => Ok(()),
        }
    }

    /// As [`Source::bring`] for a dry run, which needs less.
    pub fn outline(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        progress: &Progress,
    ) -> Result<(), Failure> {
        match &self.fetched {
            Some(fetched) => fetched.outline(snapshot, selection, progress),
            None => Ok(()),
        }
    }

    /// Whether contents may be elsewhere still.
    pub fn is_fetched(&self) -> bool {
        self.fetched.is_some()
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.looking.repository
    }

    /// Its name.
    pub fn name(&self) -> &RepositoryName {
        &self.looking.name
    }

    fn configured(&self) -> Option<&RepositorySettings> {
        let settings = self.looking.settings.as_ref()?;
        settings.config.repositories.iter().find(|repository| repository.name == self.looking.name)
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
        self.looking.state_dir.join(backupbot_core::restore::journal::DIRECTORY)
    }

    /// Refuses a directory where a restore would be backed up again, or would change what is watched behind its back.
    pub fn refuse_dangerous_target(&self, directory: &Path, snapshot: &Snapshot) -> Result<(), Failure> {
        refuse_dangerous_place(directory, &self.looking.state_dir, self.looking.settings.as_ref())?;
        let real = real_path(directory);
        let shown_directory = shown(directory);
        let state_dir = real_path(&self.looking.state_dir);
        let objects = self.repository().objects()?;
        let written: Vec<PathBuf> =
            snapshot.roots(&objects)?.into_iter().map(|root| real.join(root.name.as_str())).collect();
        let settings = self.looking.settings.iter().flat_map(|settings| &settings.config.repositories);
        for root in settings.flat_map(|repository| &repository.roots) {
            let watched = real_path(&root.path);
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
                shown(&self.looking.state_dir)
            )));
        }
        Ok(())
    }
}

/// Refuses a directory in the state directory or in a watched one, whatever is to be restored there.
pub fn refuse_dangerous_place(
    directory: &Path,
    state_dir: &Path,
    settings: Option<&Settings>,
) -> Result<(), Failure> {
    let (real, shown_directory) = (real_path(directory), shown(directory));
    if is_within(&real, &real_path(state_dir)) {
        return Err(Failure::usage(format!(
            "{shown_directory} is in the state directory {}: name a directory elsewhere",
            shown(state_dir)
        )));
    }
    let repositories = settings.iter().flat_map(|settings| &settings.config.repositories);
    for root in repositories.flat_map(|repository| &repository.roots) {
        if is_within(&real, &real_path(&root.path)) {
            return Err(Failure::usage(format!(
                "{shown_directory} is in the watched directory {}, so what is restored there would be backed up again: \
                 name a directory elsewhere, or restore to where it was with --in-place",
                shown(&root.path)
            )));
        }
    }
    Ok(())
}

/// Whether the state directory or a watched one lies in `directory`: not all may be restored there.
pub fn holds_ours(directory: &Path, state_dir: &Path, settings: Option<&Settings>) -> bool {
    let real = real_path(directory);
    let repositories = settings.iter().flat_map(|settings| &settings.config.repositories);
    let mut watched = repositories.flat_map(|repository| &repository.roots).map(|root| real_path(&root.path));
    is_within(&real_path(state_dir), &real) || watched.any(|watched| is_within(&watched, &real))
}

fn is_within(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory)
}

/// The path without symbolic links, as far as it exists.
pub fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_path_buf()
}
