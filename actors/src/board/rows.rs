//! The rows of the board and the JSON they become; the field names are the contract's.

pub use backupbot_core::clock::Moment;
use std::collections::BTreeMap;

use backupbot_core::names::{RemoteName, RepositoryName, RootName};
use backupbot_core::protection::StateCounts;
use serde::{Deserialize, Serialize};

use utoipa::ToSchema;

use super::{GuardStatus, LfsStatus};
use crate::supervision::ChildId;

/// State of ours that was damaged or lost and was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// What it was: `database`, `repository` or `file`.
    pub kind: &'static str,
    /// When.
    pub at: Moment,
    /// What happened and what to do.
    pub words: String,
}

/// What a supervised child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ChildState {
    /// It is being started, or waits for a sibling that it needs.
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It failed and is started again at `until`.
    Backoff {
        /// When.
        #[schema(value_type = String, format = DateTime)]
        until: Moment,
    },
    /// It failed too often and is left alone until `until`, while its siblings go on.
    Parked {
        /// When it is tried again.
        #[schema(value_type = String, format = DateTime)]
        until: Moment,
    },
    /// It is down and stays so.
    Stopped,
}

/// How and when a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastExit {
    /// The reason in words.
    pub reason: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Moment,
}

/// A supervised child as its supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChildStatus {
    /// Its full name.
    #[schema(value_type = String)]
    pub id: ChildId,
    /// What kind of actor it is: the metrics' label.
    pub role: String,
    /// What it is doing.
    #[serde(flatten)]
    pub state: ChildState,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Moment,
    /// Runs begun after the first.
    pub restarts: u64,
    /// How the run before this one ended.
    pub last_exit: Option<LastExit>,
    /// The number of the present or last run.
    pub generation: u64,
}

impl ChildStatus {
    pub(super) fn new(id: ChildId) -> Self {
        let state = ChildState::Starting;
        Self {
            id,
            role: String::new(),
            state,
            since: Moment::now(),
            restarts: 0,
            last_exit: None,
            generation: 0,
        }
    }

    /// Returns whether that was a change.
    pub(super) fn enter(&mut self, state: ChildState) -> bool {
        if self.state == state {
            return false;
        }
        self.state = state;
        self.since = Moment::now();
        true
    }
}

/// A file that is not protected in its present version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedFile {
    /// Its path below the root, lossy.
    pub path: String,
    /// The exact bytes of the path, base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Why.
    pub reason: String,
}

/// What a watched root is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// Not looked at yet.
    Starting,
    /// Being compared with what is recorded.
    Scanning,
    /// Compared, and changes are noticed as they come.
    Watching,
    /// Missing, empty where it was not, or another file system: nothing is concluded from it.
    Unavailable,
}

/// A root as its watcher sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStatus {
    /// Its name.
    pub name: RootName,
    /// What it is doing.
    pub state: RootState,
    /// Why, where the state does not speak for itself.
    pub reason: Option<String>,
    /// How changes are noticed now: inotify, kqueue, poll, or a mix such as inotify+poll.
    pub backend: String,
    /// Files below it at the last scan.
    pub files: u64,
    /// Entries left out by patterns and ignore files at the last scan; a directory counts once.
    #[serde(default)]
    pub excluded_by_rules: u64,
    /// Entries left out by the built-in list at the last scan.
    #[serde(default)]
    pub excluded_by_system: u64,
    /// Entries left out because they are on another file system, at the last scan.
    #[serde(default)]
    pub excluded_by_file_system: u64,
    /// How many of them are not protected in their present version.
    pub skipped: u64,
    /// The first of those, as many as the watcher cares to list; answers that list them take them from here.
    #[serde(skip)]
    pub skipped_files: Vec<SkippedFile>,
    /// How many of them by the word of their reason.
    #[serde(skip)]
    pub skipped_by_reason: BTreeMap<&'static str, u64>,
    /// Why it is not watched as a whole by events, if so.
    #[serde(skip)]
    pub watch_limited: Option<String>,
}

/// What a pusher is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemoteState {
    /// Everything committed is there.
    Idle,
    /// A push is under way.
    Pushing,
    /// The last push failed; the next one is due later.
    Backoff,
    /// Somebody has to do something first.
    Halted,
}

/// A remote as its pusher sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteStatus {
    /// Its name.
    pub name: RemoteName,
    /// What it is doing.
    pub state: RemoteState,
    /// Why it is in backoff or halted.
    pub reason: Option<String>,
    /// The commit last read back from it.
    pub commit: Option<String>,
    /// When that was.
    pub last_success: Option<Moment>,
    /// Since when the oldest change that is not there waits; `None`: nothing waits.
    pub unprotected_since: Option<Moment>,
    /// What an operator should change although it works.
    pub warnings: Vec<String>,
    /// What the server said at the last attempt.
    pub messages: Vec<String>,
    /// When the token in use ends, if the server says so.
    pub token_expires: Option<Moment>,
}

impl RemoteStatus {
    /// As the API shows it at `now`.
    pub fn view(&self, now: Moment) -> RemoteView {
        let oldest_unprotected_seconds = self.unprotected_since.map_or(0, |since| now.seconds_since(since));
        RemoteView {
            name: self.name.clone(),
            state: self.state,
            reason: self.reason.clone(),
            commit: self.commit.clone(),
            last_success: self.last_success,
            oldest_unprotected_seconds,
            warnings: self.warnings.clone(),
            messages: self.messages.clone(),
            token_expires: self.token_expires,
            lfs: None,
        }
    }
}

/// A remote in an answer: the waiting time is as of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of RemoteStatus")]
pub struct RemoteView {
    #[schema(value_type = String)]
    pub name: RemoteName,
    pub state: RemoteState,
    pub reason: Option<String>,
    pub commit: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success: Option<Moment>,
    /// 0 if nothing waits.
    pub oldest_unprotected_seconds: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub token_expires: Option<Moment>,
    /// Its large contents; filled in by whoever knows of them. Absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs: Option<LfsStatus>,
}

/// A repository as its supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryStatus {
    /// Its name.
    #[schema(value_type = String)]
    pub name: RepositoryName,
    /// Whether an operator paused it.
    pub paused: bool,
    /// When the pause ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paused_until: Option<Moment>,
    /// Paths waiting to be committed.
    pub pending: u64,
    /// The tip of its branch.
    pub commit: Option<String>,
    /// Why no commit could be made the last time, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether that is for want of a key, or because the configuration and what is stored do not agree on the encryption.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_encryption_in_the_way: bool,
    /// Older commits that are clear text although encryption is configured; it was accepted that they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_history: Option<u64>,
    /// How it stands with the guard against mass changes; filled in by whoever can look at the store.
    #[serde(flatten, default)]
    pub guard: GuardStatus,
}

/// A repository in an answer, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryView {
    /// What it says itself.
    #[serde(flatten)]
    pub repository: RepositoryStatus,
    /// Paths by state; filled in by whoever can look at the store.
    #[serde(default)]
    pub states: StateCounts,
    /// Its roots, by name.
    pub roots: Vec<RootStatus>,
    /// Its remotes, by name.
    pub remotes: Vec<RemoteView>,
}
