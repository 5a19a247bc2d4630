//! What the inspector says of each place: when it was last found well, and when it is looked at again.

use backupbot_core::clock::Moment;
use backupbot_core::names::{RemoteName, RepositoryName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Board, replace};

/// A place that is inspected: a repository here, or a remote of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InspectionStatus {
    /// The remote; absent: what is here, which is verified. From a remote, restoring is rehearsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// When nothing was found wrong the last time.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_good: Option<Moment>,
    /// When it is due next; nothing while there is nothing to look at yet.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Moment>,
    /// Whether it goes on now.
    pub running: bool,
    /// Attempts in a row that came to no result.
    pub attempts: u32,
    /// Why the last of these did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Board {
    /// Puts `places` in the place of what was published of the repository before.
    pub fn publish_inspections(&self, repository: &RepositoryName, places: Vec<InspectionStatus>) {
        self.change(|rows| replace(&mut rows.inspections, repository.clone(), places));
    }

    /// The places of a repository, what is here first.
    pub fn inspections(&self, repository: &RepositoryName) -> Vec<InspectionStatus> {
        self.read(|rows| rows.inspections.get(repository).cloned().unwrap_or_default())
    }

    /// When a verification of what is here last found nothing wrong, Unix seconds.
    pub fn last_verified(&self, repository: &RepositoryName) -> Option<i64> {
        self.last_good(repository, None)
    }

    /// When a drill from this remote last found nothing wrong, Unix seconds.
    pub fn last_drill(&self, repository: &RepositoryName, remote: &RemoteName) -> Option<i64> {
        self.last_good(repository, Some(remote.as_str()))
    }

    fn last_good(&self, repository: &RepositoryName, remote: Option<&str>) -> Option<i64> {
        self.read(|rows| {
            let mut places = rows.inspections.get(repository)?.iter();
            let place = places.find(|place| place.remote.as_deref() == remote)?;
            place.last_good.map(Moment::unix_seconds)
        })
    }
}
