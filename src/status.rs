//! The status answer: what the API sends, what `status --json` prints, and what the page is drawn from.
//!
//! It is put together from what the actors published on the board, or, when no daemon runs, from the store.
//! Every configured repository, root and remote is in it, also one that has not said anything yet.

#[cfg(test)]
use backupbot_actors::board::LfsStatus;
use backupbot_actors::board::{
    ConfigurationStatus, GuardStatus, HealthRow, InspectionStatus, Moment, RemoteState, RemoteStatus,
    RemoteView, RepositoryStatus, RepositoryView, RootState, RootStatus, SkippedFile,
};
use backupbot_actors::control::Control;
use backupbot_actors::seat::RepositorySeat;
use backupbot_core::error::Result;
use backupbot_core::inspect::drills::{self, Drilled};
use backupbot_core::inspect::verified::{self, Verified};
use backupbot_core::keeping::scrubs::{self, Scrubbed};
use backupbot_core::names::{RemoteName, RepositoryName};
use backupbot_core::protection::StateCounts;
use backupbot_core::store::StoreReader;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::alerts::Alert;
use crate::http::shapes;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, if who built it said so; no time, so that the same commit gives the same program.
pub fn revision() -> Option<&'static str> {
    option_env!("BACKUPBOT_BUILD_REVISION").filter(|revision| !revision.is_empty())
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusAnswer {
    /// Who backs up.
    pub instance: String,
    /// The version that answers.
    pub version: String,
    /// Whether a daemon answered; if not, nobody watches.
    pub daemon: bool,
    /// By configuration order.
    pub repositories: Vec<RepositoryAnswer>,
    /// What somebody should look at, critical first.
    pub alerts: Vec<Alert>,
    /// The configuration in force and the one on the disk; known to the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,
    /// What was checked, how it was found, and since when; without a daemon nobody checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<HealthRow>,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryAnswer {
    /// Its own words.
    #[serde(flatten)]
    pub status: RepositoryStatus,
    /// Paths by how far they are on their way.
    #[schema(value_type = shapes::StateCounts)]
    pub states: StateCounts,
    /// Its roots.
    pub roots: Vec<RootAnswer>,
    /// Its remotes.
    pub remotes: Vec<RemoteView>,
    /// What was last verified of it, here and at its remotes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<shapes::Verified>)]
    pub verified: Vec<Verified>,
    /// The latest restore drill of each remote, and after it the one that found something which is not known to be well again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<shapes::Drilled>)]
    pub drills: Vec<Drilled>,
    /// When each place is inspected next; known to the daemon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inspections: Vec<InspectionStatus>,
    /// What came of looking at the large contents of each place the last time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<shapes::Scrubbed>)]
    pub scrubs: Vec<Scrubbed>,
}

impl RepositoryAnswer {
    /// Takes in the restore drills of this repository's remotes.
    pub fn take_drills(&mut self, all: &[Drilled]) {
        let standings = self.remotes.iter().map(|remote| {
            let standing = drills::standing(all, self.status.name.as_str(), remote.name.as_str());
            let other_bad = standing.bad.filter(|bad| Some(*bad) != standing.latest);
            standing.latest.into_iter().chain(other_bad)
        });
        self.drills = standings.flatten().cloned().collect();
    }

    /// Those that found something which is not known to be well again.
    pub fn bad_drills(&self) -> impl Iterator<Item = &Drilled> {
        self.drills.iter().filter(|drilled| drilled.problems > 0)
    }

    /// Takes in what came of looking at large contents, as far as it speaks of what is configured.
    pub fn take_scrubs(&mut self, mut all: Vec<Scrubbed>) {
        let is_known = |name: &str| self.remotes.iter().any(|remote| remote.name.as_str() == name);
        all.retain(|it| it.remote.as_deref().is_none_or(is_known));
        self.scrubs = all;
    }

    /// Takes in what was verified of this repository, as far as it speaks of what is configured.
    pub fn take_verified(&mut self, all: &[Verified]) {
        let is_known = |it: &&Verified| {
            it.remote
                .as_ref()
                .is_none_or(|name| self.remotes.iter().any(|remote| remote.name.as_str() == name))
        };
        let of_this = all.iter().filter(|it| it.repository == self.status.name.as_str());
        self.verified = of_this.filter(is_known).cloned().collect();
    }
}

/// Where something was verified, for people.
pub fn place(verified: &Verified) -> String {
    verified.remote.as_ref().map_or_else(|| "what is here".to_owned(), |remote| format!("remote {remote}"))
}

/// What a root is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RootStanding {
    /// Not looked at yet.
    Starting,
    /// Being compared with what is recorded.
    Scanning,
    /// Compared, and changes are noticed as they come.
    Watching,
    /// Missing, empty where it was not, or another file system.
    Unavailable,
    /// No daemon runs.
    NotWatched,
}

impl From<RootState> for RootStanding {
    fn from(state: RootState) -> Self {
        match state {
            RootState::Starting => RootStanding::Starting,
            RootState::Scanning => RootStanding::Scanning,
            RootState::Watching => RootStanding::Watching,
            RootState::Unavailable => RootStanding::Unavailable,
        }
    }
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RootAnswer {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: RootStanding,
    /// Why, where the state does not speak for itself.
    pub reason: Option<String>,
    /// How changes are noticed.
    pub backend: String,
    /// Files at the last scan.
    pub files: u64,
    /// Entries left out by patterns and ignore files; a directory counts once.
    pub excluded_by_rules: u64,
    /// Entries left out by the built-in list.
    pub excluded_by_system: u64,
    /// Entries left out because they are on another file system; what is below them is not counted.
    pub excluded_by_file_system: u64,
    /// Files that are not protected in their present version.
    pub skipped: u64,
    /// The first hundred of those.
    pub skipped_files: Vec<SkippedFile>,
}

impl From<RootStatus> for RootAnswer {
    fn from(root: RootStatus) -> Self {
        Self {
            name: root.name.to_string(),
            state: root.state.into(),
            reason: root.reason,
            backend: root.backend,
            files: root.files,
            excluded_by_rules: root.excluded_by_rules,
            excluded_by_system: root.excluded_by_system,
            excluded_by_file_system: root.excluded_by_file_system,
            skipped: root.skipped,
            skipped_files: root.skipped_files,
        }
    }
}

/// What the running daemon knows of each repository.
pub fn of_daemon(control: &Control) -> Vec<RepositoryAnswer> {
    let mut views = control.status();
    let verified = verified::read(control.state_dir());
    let drills = drills::read(control.state_dir());
    control
        .seats()
        .iter()
        .map(|seat| {
            let at = views.iter().position(|view| view.repository.name == seat.settings.name);
            let mut answer = complete(seat, at.map(|at| views.swap_remove(at)), control);
            answer.take_verified(&verified);
            answer.take_drills(&drills);
            answer.inspections = control.board().inspections(&seat.settings.name);
            answer.take_scrubs(scrubs::read(control.state_dir(), seat.settings.name.as_str()));
            for remote in &mut answer.remotes {
                remote.lfs = control.large_at(seat, &remote.name);
            }
            answer
        })
        .collect()
}

/// Who has not said anything yet is starting.
fn complete(seat: &RepositorySeat, view: Option<RepositoryView>, control: &Control) -> RepositoryAnswer {
    let name = &seat.settings.name;
    let (mut status, states, mut roots, mut remotes) = match view {
        Some(view) => (view.repository, view.states, view.roots, view.remotes),
        None => {
            let status = RepositoryStatus {
                name: name.clone(),
                paused: false,
                paused_until: None,
                pending: 0,
                commit: None,
                trouble: None,
                is_encryption_in_the_way: false,
                clear_history: None,
                guard: Default::default(),
            };
            let remotes =
                control.board().remotes(name).iter().map(|remote| remote.view(Moment::now())).collect();
            (status, StateCounts::default(), control.board().roots(name), remotes)
        }
    };
    // Where this cannot be read, the status has said so already.
    if let Ok(record) = seat.common.store.reader().guard(name) {
        let standing = GuardStatus::of(&record, status.paused, &seat.settings.mass_change, Moment::now());
        status.guard = standing.unwrap_or_default();
    }
    let roots =
        seat.roots.iter().map(|root| match roots.iter().position(|status| status.name == root.name) {
            Some(at) => roots.swap_remove(at).into(),
            None => RootAnswer {
                name: root.name.to_string(),
                state: RootStanding::Starting,
                reason: None,
                backend: String::new(),
                files: 0,
                excluded_by_rules: 0,
                excluded_by_system: 0,
                excluded_by_file_system: 0,
                skipped: 0,
                skipped_files: Vec::new(),
            },
        });
    let roots = roots.collect();
    let remotes = seat.settings.remotes.iter().map(|remote| {
        match remotes.iter().position(|view| view.name == remote.name) {
            Some(at) => remotes.swap_remove(at),
            None => unheard_of(remote.name.clone()).view(Moment::now()),
        }
    });
    RepositoryAnswer {
        status,
        states,
        roots,
        remotes: remotes.collect(),
        verified: Vec::new(),
        drills: Vec::new(),
        inspections: Vec::new(),
        scrubs: Vec::new(),
    }
}

/// A remote of which nothing is known.
pub fn unheard_of(name: RemoteName) -> RemoteStatus {
    RemoteStatus {
        name,
        state: RemoteState::Idle,
        reason: None,
        commit: None,
        last_success: None,
        unprotected_since: None,
        warnings: Vec::new(),
        messages: Vec::new(),
        token_expires: None,
    }
}

/// Since when a remote is halted.
pub fn halted_since(
    reader: &StoreReader,
    repository: &RepositoryName,
    remote: &RemoteName,
) -> Result<Option<Moment>> {
    let halt = reader.remote(repository, remote)?.and_then(|record| record.halted);
    Ok(halt.and_then(|halt| Moment::from_unix_seconds(halt.since_ms / 1000)))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A repository in which everything is as it should be.
    pub fn healthy() -> RepositoryAnswer {
        RepositoryAnswer {
            status: RepositoryStatus {
                name: RepositoryName::new("documents").unwrap(),
                paused: false,
                paused_until: None,
                pending: 0,
                commit: Some("c0ffee00".repeat(5)),
                trouble: None,
                is_encryption_in_the_way: false,
                clear_history: None,
                guard: Default::default(),
            },
            states: StateCounts { watched: 1234, pushed: 1234, ..StateCounts::default() },
            roots: vec![RootAnswer {
                name: "folder1".to_owned(),
                state: RootStanding::Watching,
                reason: None,
                backend: "inotify".to_owned(),
                files: 1234,
                excluded_by_rules: 3,
                excluded_by_system: 0,
                excluded_by_file_system: 0,
                skipped: 0,
                skipped_files: Vec::new(),
            }],
            remotes: vec![RemoteView {
                name: RemoteName::new("usb").unwrap(),
                state: RemoteState::Idle,
                reason: None,
                commit: Some("c0ffee00".repeat(5)),
                last_success: Moment::from_unix_seconds(1_000_000),
                oldest_unprotected_seconds: 0,
                warnings: Vec::new(),
                messages: Vec::new(),
                token_expires: None,
                lfs: None,
            }],
            verified: Vec::new(),
            drills: Vec::new(),
            inspections: Vec::new(),
            scrubs: Vec::new(),
        }
    }

    /// The large contents at a remote that is as full as that, and refuses or not.
    pub fn large(percent: u64, reached: Option<u8>, refused: bool) -> LfsStatus {
        LfsStatus {
            objects: 12,
            bytes: percent << 20,
            used: percent << 20,
            quota: Some(100 << 20),
            percent: Some(percent),
            reached,
            full_on: Moment::from_unix_seconds(1_000_000 + 20 * 86_400),
            checked: Moment::from_unix_seconds(1_000_000),
            trouble: None,
            refused: refused.then(|| backupbot_actors::board::LfsTrouble {
                since: Moment::from_unix_seconds(1_000_000).unwrap(),
                message: "its plan is used up".to_owned(),
            }),
            scrubbing: false,
        }
    }

    /// A look at the large contents of the remote.
    pub fn scrubbed(lost: u64, damaged: u64) -> Scrubbed {
        Scrubbed {
            at: Moment::from_unix_seconds(1_000_000).unwrap(),
            asked: 12,
            bytes: 12 << 20,
            read: 1,
            read_bytes: 1 << 20,
            lost,
            damaged,
            named: vec!["folder1/film: it is gone".to_owned(); usize::from(lost + damaged > 0)],
            ..Scrubbed::begin("documents", Some("usb"), "1%")
        }
    }

    /// A drill from the remote.
    pub fn drilled(at: i64, problems: u64) -> Drilled {
        Drilled {
            repository: "documents".to_owned(),
            remote: "usb".to_owned(),
            commit: "c0ffee00".repeat(5),
            at: Moment::from_unix_seconds(at).unwrap(),
            sample: "1%".to_owned(),
            seed: u64::try_from(at).ok(),
            way: drills::Way::Parts,
            is_here: true,
            files: 120,
            bytes: 3456,
            ciphertexts: None,
            problems,
            named: vec!["folder1/x: gone".to_owned(); usize::from(problems > 0)],
        }
    }

    /// A verification of the remote.
    pub fn verified(problems: u64) -> Verified {
        Verified {
            repository: "documents".to_owned(),
            remote: Some("usb".to_owned()),
            commit: "c0ffee00".repeat(5),
            at: Moment::from_unix_seconds(1_000_000).unwrap(),
            sample: "1%".to_owned(),
            files: 12,
            bytes: 3456,
            ciphertexts: None,
            problems,
        }
    }

    #[test]
    fn the_json_has_the_fields_of_the_contract() {
        let answer = StatusAnswer {
            instance: "laptop".to_owned(),
            version: VERSION.to_owned(),
            daemon: true,
            repositories: vec![healthy()],
            alerts: Vec::new(),
            configuration: None,
            health: Vec::new(),
        };
        let json = serde_json::to_value(&answer).unwrap();
        let repository = &json["repositories"][0];
        for field in ["name", "paused", "pending", "commit", "states", "roots", "remotes"] {
            assert!(repository.get(field).is_some(), "{field}");
        }
        assert_eq!(repository["roots"][0]["state"], "watching");
        assert_eq!(repository["remotes"][0]["state"], "idle");
        assert_eq!(serde_json::from_value::<StatusAnswer>(json).unwrap(), answer);
    }
}
