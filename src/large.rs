//! What is said about the large contents of a repository: the answer of the API, what `lfs --json` prints, and what the
//! command's page is drawn from.

use backupbot_actors::board::{LfsStatus, ScrubTrouble};
use backupbot_core::keeping::prune::{Amount, Kept, Pruned};
use backupbot_core::keeping::report::{Contents, KnownThere, LargeDirectory, LargeFile};
use backupbot_core::keeping::scrubs::Scrubbed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::shapes;

/// How full the remotes of a repository are, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageAnswer {
    /// The repository
    pub repository: String,
    /// By remote
    pub remotes: Vec<RemoteUsage>,
    /// What lies here
    #[schema(value_type = shapes::Amount)]
    pub here: Amount,
    /// What lies here and no branch needs
    #[schema(value_type = shapes::Amount)]
    pub unneeded_here: Amount,
    /// What all branches need
    #[schema(value_type = shapes::Amount)]
    pub history: Amount,
    /// What the latest snapshot needs
    #[schema(value_type = shapes::Amount)]
    pub latest: Amount,
    /// What only earlier snapshots need
    #[schema(value_type = shapes::Amount)]
    pub only_earlier: Amount,
    /// The largest contents
    #[schema(value_type = Vec<shapes::LargeFile>)]
    pub largest: Vec<LargeFile>,
    /// The directories with the most bytes of them
    #[schema(value_type = Vec<shapes::LargeDirectory>)]
    pub directories: Vec<LargeDirectory>,
    /// What came of looking at each place the last time
    #[schema(value_type = Vec<shapes::Scrubbed>)]
    pub scrubs: Vec<Scrubbed>,
    /// Places that could not be looked at the last time; known to the daemon
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scrub_troubles: Vec<ScrubTrouble>,
}

/// A remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoteUsage {
    /// Its name
    pub name: String,
    /// How full it is; null if it was not looked at yet
    pub lfs: Option<LfsStatus>,
    /// What branches need and it is not known to have
    #[schema(value_type = shapes::Amount)]
    pub lacks: Amount,
    /// What it is known to have and no branch needs
    #[schema(value_type = shapes::Amount)]
    pub unneeded: Amount,
}

impl UsageAnswer {
    /// Puts it together; of `only` if it is given.
    pub fn new(
        repository: &str,
        statuses: Vec<(String, Option<LfsStatus>)>,
        contents: Contents,
        scrubs: Vec<Scrubbed>,
        only: Option<&str>,
    ) -> Self {
        let Contents { here, unneeded_here, history, latest, only_earlier, known, largest, directories } =
            contents;
        let is_meant = |name: &str| only.is_none_or(|only| only == name);
        let remotes = statuses.into_iter().zip(known).map(|((name, lfs), known)| {
            let KnownThere { lacks, unneeded, .. } = known;
            RemoteUsage { name, lfs, lacks, unneeded }
        });
        let remotes = remotes.filter(|remote| is_meant(&remote.name)).collect();
        let scrubs = scrubs.into_iter();
        let scrubs = scrubs.filter(|it| it.remote.as_deref().is_none_or(is_meant)).collect();
        Self {
            repository: repository.to_owned(),
            remotes,
            here,
            unneeded_here,
            history,
            latest,
            only_earlier,
            largest,
            directories,
            scrubs,
            scrub_troubles: Vec::new(),
        }
    }
}

/// What was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PruneAnswer {
    /// The repository
    pub repository: String,
    /// Nothing was removed: this is what would be
    pub dry_run: bool,
    /// What was removed here
    #[schema(value_type = shapes::Amount)]
    pub removed: Amount,
    /// What stays here, and why
    #[schema(value_type = Vec<shapes::Kept>)]
    pub kept: Vec<Kept>,
}

impl PruneAnswer {
    /// What came of it in a repository.
    pub fn new(repository: &str, pruned: Pruned) -> Self {
        let Pruned { dry_run, removed, kept } = pruned;
        Self { repository: repository.to_owned(), dry_run, removed, kept }
    }
}
