//! Large contents without a daemon: what is known of them, and looking after them here.

use std::path::Path;

use backupbot_actors::board::LfsStatus;
use backupbot_actors::root::repository_path;
use backupbot_core::error::Result as CoreResult;
use backupbot_core::keeping::keeper::Keeper;
use backupbot_core::lfs::Objects;
use backupbot_core::names::RepositoryName;
use backupbot_core::progress::Progress;

use super::Offline;
use crate::exit::Failure;
use crate::status::RepositoryAnswer;

impl Offline {
    /// How full the remotes are, as far as it is known here: no host is asked.
    pub(super) fn count_large(
        &self,
        name: &RepositoryName,
        answer: &mut RepositoryAnswer,
    ) -> Result<(), Failure> {
        if self.configured(name).is_none() || !self.has_large_contents(name) {
            return Ok(());
        }
        let counted = self.keep(name, |keeper| {
            let remotes = keeper.settings.remotes.iter();
            remotes
                .map(|remote| keeper.fullness(remote, false, &Progress::new()))
                .collect::<CoreResult<Vec<_>>>()
        })?;
        for (fullness, view) in counted.into_iter().zip(&mut answer.remotes) {
            view.lfs = Some(LfsStatus { checked: None, ..fullness.into() });
        }
        Ok(())
    }

    /// Whether there are large contents, or may be soon.
    pub fn has_large_contents(&self, name: &RepositoryName) -> bool {
        let is_configured = self.configured(name).is_some_and(|settings| settings.lfs.is_some());
        is_configured || Objects::of(&repository_path(&self.state_dir, name.as_str())).is_in_use()
    }

    /// Does something with the large contents of a repository.
    pub fn keep<T>(
        &self,
        name: &RepositoryName,
        work: impl FnOnce(&Keeper<'_>) -> CoreResult<T>,
    ) -> Result<T, Failure> {
        let path = repository_path(&self.state_dir, name.as_str());
        let settings = self.configured(name).ok_or_else(|| {
            let text = format!("no configuration was found: name the one with {name} with --config");
            Failure::usage(text)
        })?;
        if !path.exists() {
            return Err(Failure::failed(format!("nothing of {name} was backed up yet")));
        }
        let branch = self.branch(settings)?;
        let (store, state_dir) = (&self.store, self.state_dir.as_path());
        Ok(work(&Keeper { store, settings, path: &path, branch: &branch, state_dir })?)
    }

    /// Where the state is.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }
}
