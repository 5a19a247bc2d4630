//! What was checked, how it was found, and since when it is so: the rows of `health`.

use backupbot_core::names::{RemoteName, RepositoryName, RootName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

/// What is checked; a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A remote answers and lets us in.
    RemoteReachable,
    /// What is committed reaches a remote in time.
    LastSuccess,
    /// A root is watched as a whole by events.
    WatchLimits,
    /// The repository here is what was written: a sample of it, and all that the tip names.
    StateIntegrity,
    /// Room where the state is.
    DiskSpace,
    /// The wall clock was not set.
    Clock,
}

impl Check {
    /// The word in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RemoteReachable => "remote_reachable",
            Self::LastSuccess => "last_success",
            Self::WatchLimits => "watch_limits",
            Self::StateIntegrity => "state_integrity",
            Self::DiskSpace => "disk_space",
            Self::Clock => "clock",
        }
    }
}

/// How it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It does not.
    Failing,
}

/// Of what something is said: the machine, a repository, one of its remotes or one of its roots.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// The repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub repository: Option<RepositoryName>,
    /// One of its remotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote: Option<RemoteName>,
    /// One of its roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub root: Option<RootName>,
}

impl Subject {
    /// A repository.
    pub fn repository(name: &RepositoryName) -> Self {
        Self { repository: Some(name.clone()), ..Self::default() }
    }

    /// A remote.
    pub fn remote(repository: &RepositoryName, name: &RemoteName) -> Self {
        Self { remote: Some(name.clone()), ..Self::repository(repository) }
    }

    /// A root.
    pub fn root(repository: &RepositoryName, name: &RootName) -> Self {
        Self { root: Some(name.clone()), ..Self::repository(repository) }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Which.
    pub check: Check,
    /// Of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// How it is.
    pub state: Condition,
    /// In words.
    pub message: String,
    /// What to do about it; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A finding, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthRow {
    /// What was found last.
    #[serde(flatten)]
    pub finding: Finding,
    /// Since when its state is what it is.
    #[schema(value_type = String, format = DateTime)]
    pub since: Moment,
    /// When it was looked at last.
    #[schema(value_type = String, format = DateTime)]
    pub checked: Moment,
}

impl HealthRow {
    /// The row after `finding` at `now`; the beginning stays while the state does.
    pub(super) fn after(former: Option<&Self>, finding: Finding, now: Moment) -> Self {
        let since = former.filter(|row| row.finding.state == finding.state).map_or(now, |row| row.since);
        Self { finding, since, checked: now }
    }
}
