//! One repository whose large contents are looked after: what the daemon does on schedule and a command does at once.
//!
//! In: its settings, its places, the open database. Out: what each of the verbs beside it gives.

use std::path::Path;

use git2::Oid;

use super::census::Census;
use super::fullness::{Fullness, Measured};
use super::prune::{self, Pruned};
use super::report::{self, Contents, Question};
use super::scrub;
use super::scrubs::{self, Scrubbed};
use crate::config::{Lfs, Remote, Repository as Settings};
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;
use crate::lfs::Objects;
use crate::names::RemoteName;
use crate::progress::Progress;
use crate::snapshot;
use crate::store::Store;
use crate::verify::Sample;

/// What somebody who wants a scrub says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// How much is read, in the place of what the settings say.
    pub read: Option<Sample>,
    /// By which the result is known.
    pub number: Option<u64>,
}

/// Looks after a repository's large contents.
#[derive(Debug, Clone, Copy)]
pub struct Keeper<'k> {
    /// The database.
    pub store: &'k Store,
    /// What is configured.
    pub settings: &'k Settings,
    /// The bare repository here.
    pub path: &'k Path,
    /// The branch that is pushed, in full.
    pub branch: &'k str,
    /// Where the state is.
    pub state_dir: &'k Path,
}

impl Keeper<'_> {
    /// The settings of large contents: the defaults where they are switched off and there are some from before.
    pub fn lfs(&self) -> Lfs {
        self.settings.lfs.clone().unwrap_or_default()
    }

    /// A remote by its name.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is none.
    pub fn remote(&self, name: &str) -> Result<&Remote> {
        let found = self.settings.remotes.iter().find(|remote| remote.name.as_str() == name);
        found
            .ok_or_else(|| Error::new(Kind::Config, format!("{} has no remote {name:?}", self.settings.name)))
    }

    /// How full a remote is; its host is asked if `ask` says so.
    ///
    /// # Errors
    /// Of our own database, and cancellation.
    pub fn fullness(&self, remote: &Remote, ask: bool, progress: &Progress) -> Result<Fullness> {
        let lfs = self.lfs();
        let of = Measured { repository: &self.settings.name, path: self.path, remote, lfs: &lfs };
        let reader = self.store.reader();
        if ask { Fullness::look(of, &reader, progress) } else { Fullness::known(of, &reader) }
    }

    /// Removes here what every remote has.
    ///
    /// # Errors
    /// As [`prune::prune`].
    pub fn prune(&self, dry_run: bool, progress: &Progress) -> Result<Pruned> {
        let scrubbed = scrubs::read(self.state_dir, self.settings.name.as_str());
        let request = prune::Request {
            repository: &self.settings.name,
            path: self.path,
            remotes: &self.settings.remotes,
            keep_local: self.lfs().keep_local,
            branch: self.branch,
            scrubbed: &scrubbed,
            dry_run,
        };
        prune::prune(&request, self.store, progress)
    }

    /// What fills the remotes: `top` names of each list, of what `only` is known to have if it is given.
    ///
    /// # Errors
    /// Of our own database and repository, and cancellation.
    pub fn contents(&self, only: Option<&Remote>, top: usize, progress: &Progress) -> Result<Contents> {
        let repository = Repository::open(self.path)?;
        let mut census = Census::of_branches(&repository, progress)?;
        let latest = match repository.reference(self.branch)? {
            Some(tip) => Some(tip),
            // A branch that is named after the month may not have begun yet; HEAD is where the last one was.
            None => repository.reference("HEAD")?,
        };
        if let Some(latest) = latest {
            census.see_latest(&repository, latest, progress)?;
        }
        let remotes: Vec<RemoteName> = self.settings.remotes.iter().map(|it| it.name.clone()).collect();
        let question = Question {
            repository: &self.settings.name,
            remotes: &remotes,
            only: only.map(|remote| &remote.name),
            top,
        };
        report::report(&question, &census, &Objects::of(self.path), &self.store.reader())
    }

    /// The commit that was last read back at a remote, if it is here.
    ///
    /// # Errors
    /// Of our own database and repository.
    pub fn confirmed(&self, remote: &Remote) -> Result<Option<Oid>> {
        let record = self.store.reader().remote(&self.settings.name, &remote.name)?.unwrap_or_default();
        let confirmed = record.confirmed.as_ref().map(snapshot::oid).transpose()?;
        match confirmed {
            Some(commit) if Repository::open(self.path)?.has_commit(commit) => Ok(Some(commit)),
            _ => Ok(None),
        }
    }

    /// Looks at a remote, or at what is here, and remembers what was found. `order` says how much is read in the place of
    /// the settings, and under which number it is found again.
    ///
    /// # Errors
    /// As [`scrub::remote`] and [`scrub::here`], and where nothing was ever pushed to.
    pub fn scrub(&self, remote: Option<&Remote>, order: Order, progress: &Progress) -> Result<Scrubbed> {
        let Order { read, number } = order;
        let policy = self.lfs().scrub.unwrap_or_default();
        let repository = Repository::open(self.path)?;
        let known = scrubs::read(self.state_dir, self.settings.name.as_str());
        let name = remote.map(|remote| remote.name.as_str());
        let request = scrub::Request {
            name: &self.settings.name,
            repository: &repository,
            remotes: &self.settings.remotes,
            branch: self.branch,
            read: read.unwrap_or(policy.read),
            // Whoever says how much has said it.
            read_at_most: if read.is_some() { u64::MAX } else { policy.read_at_most },
            former: known.iter().find(|it| it.remote.as_deref() == name),
        };
        let mut scrubbed = match remote {
            None => scrub::here(&request, progress)?,
            Some(remote) => {
                let confirmed = self.confirmed(remote)?.ok_or_else(|| scrub::nothing_there(remote))?;
                scrub::remote(&request, remote, confirmed, self.store, progress)?
            }
        };
        scrubbed.order = number;
        scrubs::remember(self.state_dir, scrubbed.clone())?;
        Ok(scrubbed)
    }
}
