//! How full the remotes' rooms for large contents are, whether one refused for want of room, and what came of looking whether
//! the contents are still there.

use backupbot_core::clock::Moment;
use backupbot_core::keeping::fullness::Fullness;
use backupbot_core::names::{RemoteName, RepositoryName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Board, Rows, remove_where};

/// The large contents of a repository at a remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LfsStatus {
    /// Contents of this repository that are known to be there.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that count against the quota: as the host says, else those of this repository.
    pub used: u64,
    /// Bytes there may be: the smaller of the configured quota and the host's.
    pub quota: Option<u64>,
    /// `used` in hundredths of `quota`.
    pub percent: Option<u64>,
    /// The highest threshold of `lfs.warn_at` that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<u8>,
    /// When it will be full if it goes on as in the last month.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub full_on: Option<Moment>,
    /// When this was counted, and the host asked; null without a daemon.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub checked: Option<Moment>,
    /// Why the host could not be asked, if it should have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Since when it has refused contents for want of room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<LfsTrouble>,
    /// Whether it is being scrubbed now.
    #[serde(default)]
    pub scrubbing: bool,
}

/// An attempt to scrub a place that came to no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubTrouble {
    /// The remote; absent: what is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Moment,
    /// The number of the order, if somebody gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// Why.
    pub message: String,
}

/// What a remote does not let us do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LfsTrouble {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Moment,
    /// In words.
    pub message: String,
}

impl From<Fullness> for LfsStatus {
    fn from(fullness: Fullness) -> Self {
        Self {
            objects: fullness.objects,
            bytes: fullness.bytes,
            used: fullness.used,
            quota: fullness.quota,
            percent: fullness.percent,
            reached: fullness.reached,
            full_on: fullness.full_on,
            checked: Some(fullness.checked),
            trouble: fullness.trouble,
            refused: None,
            scrubbing: false,
        }
    }
}

/// What different actors say of one remote.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LfsRow {
    fullness: Option<LfsStatus>,
    refused: Option<LfsTrouble>,
    scrubbing: bool,
}

impl LfsRow {
    pub(super) fn status(&self) -> Option<LfsStatus> {
        let status = self.fullness.clone()?;
        Some(LfsStatus { refused: self.refused.clone(), scrubbing: self.scrubbing, ..status })
    }
}

impl Board {
    fn change_lfs(&self, repository: &RepositoryName, remote: &RemoteName, change: impl FnOnce(&mut LfsRow)) {
        self.change(|rows| {
            let row = rows.lfs.entry((repository.clone(), remote.clone())).or_default();
            let before = row.clone();
            change(row);
            *row != before
        });
    }

    /// A remote's room was looked at.
    pub fn publish_lfs(&self, repository: &RepositoryName, remote: &RemoteName, fullness: Fullness) {
        self.change_lfs(repository, remote, |row| row.fullness = Some(fullness.into()));
    }

    /// A push was refused for want of room, or none is any more.
    pub fn lfs_refused(&self, repository: &RepositoryName, remote: &RemoteName, message: Option<&str>) {
        self.change_lfs(repository, remote, |row| {
            let since = row.refused.as_ref().map_or_else(Moment::now, |refused| refused.since);
            row.refused = message.map(|message| LfsTrouble { since, message: message.to_owned() });
        });
    }

    /// A place is being scrubbed: a remote, or what is here.
    pub fn scrub_begins(&self, repository: &RepositoryName, remote: Option<&RemoteName>) {
        if let Some(remote) = remote {
            self.change_lfs(repository, remote, |row| row.scrubbing = true);
        }
    }

    /// It is not any more; `trouble`: it came to no result.
    pub fn scrub_ended(
        &self,
        repository: &RepositoryName,
        remote: Option<&RemoteName>,
        trouble: Option<ScrubTrouble>,
    ) {
        if let Some(remote) = remote {
            self.change_lfs(repository, remote, |row| row.scrubbing = false);
        }
        self.change(|rows| {
            let troubles = rows.scrub_troubles.entry(repository.clone()).or_default();
            let before = troubles.clone();
            troubles.retain(|it| it.remote.as_deref() != remote.map(RemoteName::as_str));
            troubles.extend(trouble);
            *troubles != before
        });
    }

    /// Of each place of a repository, why the last attempt to scrub it came to no result, if so.
    pub fn scrub_troubles(&self, repository: &RepositoryName) -> Vec<ScrubTrouble> {
        self.read(|rows| rows.scrub_troubles.get(repository).cloned().unwrap_or_default())
    }

    /// What is known of the large contents at a remote.
    pub fn lfs(&self, repository: &RepositoryName, remote: &RemoteName) -> Option<LfsStatus> {
        self.read(|rows| rows.lfs.get(&(repository.clone(), remote.clone())).and_then(LfsRow::status))
    }
}

impl Rows {
    pub(super) fn forget_lfs(&mut self, repository: &RepositoryName, remote: Option<&RemoteName>) -> bool {
        let is_meant = |(of, at): &(RepositoryName, RemoteName)| {
            of == repository && remote.is_none_or(|remote| remote == at)
        };
        let troubles = remote.is_none() && self.scrub_troubles.remove(repository).is_some();
        remove_where(&mut self.lfs, is_meant) || troubles
    }
}
