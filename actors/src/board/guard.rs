//! How a repository stands with the guard against mass changes, for status and alerts.

use backupbot_core::config::MassChange;
use backupbot_core::error::Result;
use backupbot_core::guard::branch::short;
use backupbot_core::snapshot;
use backupbot_core::store::guard::{GuardRecord, Seen};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;
use crate::control::in_quarantine;

/// What a repository does with what changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryState {
    /// It is committed and pushed.
    #[default]
    Running,
    /// It is queued.
    Paused,
    /// It is committed and pushed, to a branch of its own, until somebody approves.
    Quarantine,
}

/// A mass change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MassChangeStatus {
    /// In which root.
    pub root: String,
    /// Files that were deleted or rewritten.
    pub lost: u64,
    /// Files that there were.
    pub of: u64,
    /// The share, in hundredths.
    pub percent: u64,
    /// When it was found.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Moment>,
}

/// Commits go to a branch of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantineStatus {
    /// Why, and since when.
    #[serde(flatten)]
    pub found: MassChangeStatus,
    /// That branch.
    pub branch: String,
    /// The branch that is protected.
    pub protected_branch: String,
    /// Where that stands.
    pub protected_commit: String,
    /// Whether somebody rejected it.
    pub rejected: bool,
    /// What it means and what to do.
    pub message: String,
}

/// What the guard has to say of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuardStatus {
    /// What is done with what changes.
    #[serde(default)]
    pub state: RepositoryState,
    /// The quarantine that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<QuarantineStatus>,
    /// A mass change within the window for which there is only an alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass_change: Option<MassChangeStatus>,
}

impl GuardStatus {
    /// What follows from what is recorded, for a repository that is paused or not.
    pub fn of(record: &GuardRecord, is_paused: bool, limits: &MassChange, now: Moment) -> Result<Self> {
        let quarantine = match &record.quarantine {
            Some(quarantine) => Some(QuarantineStatus {
                found: found(&quarantine.seen),
                branch: short(&quarantine.branch).to_owned(),
                protected_branch: short(&quarantine.protected_branch).to_owned(),
                protected_commit: snapshot::oid(&quarantine.protected)?.to_string(),
                rejected: quarantine.rejected_ms.is_some(),
                message: in_quarantine(quarantine),
            }),
            None => None,
        };
        let state = match (&quarantine, is_paused) {
            (Some(_), _) => RepositoryState::Quarantine,
            (None, true) => RepositoryState::Paused,
            (None, false) => RepositoryState::Running,
        };
        let told = record.told.as_ref().map(found).filter(|_| quarantine.is_none());
        let mass_change =
            told.filter(|found| found.since.is_some_and(|since| now < since.later_by(limits.window)));
        Ok(Self { state, quarantine, mass_change })
    }
}

fn found(seen: &Seen) -> MassChangeStatus {
    MassChangeStatus {
        root: seen.root.to_string(),
        lost: seen.lost,
        of: seen.of,
        percent: seen.lost.saturating_mul(100).checked_div(seen.of).unwrap_or(100),
        since: Moment::from_unix_seconds(seen.at_ms / 1000),
    }
}
