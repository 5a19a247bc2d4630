//! What the documents of the API look like, as far as their types are not made here: those of core know nothing of
//! OpenAPI. Tests hold each against what is really sent.

mod large;

use backupbot_actors::board::{ChildStatus, Moment};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::alerts::Alert;
use crate::restoring::Job;

pub use large::{Amount, Kept, LargeDirectory, LargeFile, Scrubbed};

/// An error, as RFC 9457 has it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `Problem` writes")]
pub struct ProblemDocument {
    /// Always `about:blank`
    r#type: String,
    /// The words of the status
    title: String,
    /// The HTTP status
    status: u16,
    /// What is wrong, and what to do about it
    detail: String,
}

/// What `pause` and `resume` did.
#[derive(Serialize, ToSchema)]
pub struct Paused {
    /// By repository
    pub repositories: Vec<PausedRepository>,
}

/// A repository that was paused or resumed.
#[derive(Serialize, ToSchema)]
pub struct PausedRepository {
    /// Its name
    pub name: String,
    /// Whether it is paused
    pub paused: bool,
    /// When it goes on by itself
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Moment>,
}

/// What somebody should look at.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Alerts {
    /// Critical ones first
    alerts: Vec<Alert>,
}

/// What `approve` and `reject` did.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Decisions {
    /// By repository
    repositories: Vec<Decision>,
}

/// What was decided about a quarantine.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Decision {
    /// The repository
    name: String,
    /// The protected branch
    branch: String,
    /// Where it stands
    commit: String,
}

/// A supervised part of the program, and where it stands in the tree.
#[derive(Serialize, ToSchema)]
pub struct Child {
    /// Its name among its siblings
    pub name: String,
    /// The id of its supervisor; null for the children of the topmost one
    pub parent: Option<String>,
    /// What it does
    #[serde(flatten)]
    pub status: ChildStatus,
}

/// The supervised parts.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Children {
    /// By id
    children: Vec<Child>,
}

/// The restores of late.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Restores {
    /// The latest first
    restores: Vec<Job>,
}

/// How many paths are in each state. Every file counts as watched, and besides in the state that it is in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct StateCounts {
    /// Files and links at the last complete look
    watched: u64,
    /// Named by an event and not quiet yet
    detected: u64,
    /// Waiting to be committed
    queued: u64,
    /// In the commit that is being made
    staged: u64,
    /// In the branch, and missing at some remote
    committed: u64,
    /// Confirmed as large objects
    lfs_processed: u64,
    /// At every remote
    pushed: u64,
    /// Not possible to store
    failed: u64,
}

/// Where a file stands on its way to the remotes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct PathReport {
    /// Its repository
    repository: String,
    /// Its root
    root: String,
    /// Its path below the root, lossy
    path: String,
    /// The exact bytes in base64, if something was lost
    path_b64: Option<String>,
    /// One of watched, detected, queued, staged, committed, lfs_processed, pushed, failed
    state: String,
    /// Whether every remote has the version that is on disk
    protected: bool,
    /// For a person
    explanation: String,
    /// The stored object
    stored: Option<String>,
    /// The tip of the branch
    commit: Option<String>,
    /// By remote
    remotes: Vec<RemoteProtection>,
}

/// What is known of one remote with respect to a path.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct RemoteProtection {
    /// Its name
    name: String,
    /// Whether the stored version was read back there
    has_it: bool,
    /// The commit last read back
    commit: Option<String>,
    /// Why it lags
    reason: Option<String>,
}

/// What a restore came to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Report {
    /// The commit
    snapshot: String,
    /// Where to
    target: String,
    /// Nothing was done: this is what would be
    dry_run: bool,
    /// It came to its end
    finished: bool,
    /// How many of each: files, bytes, directories, links, what was replaced, equal, left and deleted
    totals: std::collections::BTreeMap<String, u64>,
    /// What could not be restored
    problem_count: u64,
    /// The first of it by name
    problems: Vec<Named>,
    /// What was restored and is to be known
    remark_count: u64,
    /// The first of it by name
    remarks: Vec<Named>,
    /// What a second reading from the disk found: `compared`, `bytes`, `different`
    verified: Option<std::collections::BTreeMap<String, u64>>,
}

/// A path and what is to be said of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Named {
    /// `<root>/path`, lossy
    path: String,
    /// The exact bytes in base64, if something was lost
    path_b64: Option<String>,
    /// What is to be said
    reason: String,
}

/// A verification.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Verified {
    /// The repository
    repository: String,
    /// The remote that it was fetched from; absent: what is here
    remote: Option<String>,
    /// The snapshot
    commit: String,
    /// When it was done
    at: String,
    /// `whole`, or which share or how many files
    sample: String,
    /// Files whose content was read
    files: u64,
    /// Their bytes
    bytes: u64,
    /// Contents that nothing there opened, of which only the ciphertexts were read
    ciphertexts: Option<u64>,
    /// How much was wrong
    problems: u64,
}

/// A restore drill.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Drilled {
    /// The repository
    repository: String,
    /// The remote
    remote: String,
    /// The snapshot
    commit: String,
    /// When it ended
    at: String,
    /// `whole`, or which share or how many files
    sample: String,
    /// Which files were drawn
    seed: Option<u64>,
    /// How the files came: in_place, parts, whole
    way: String,
    /// Whether the same snapshot is here, to compare with
    is_here: bool,
    /// Files and symbolic links that were restored
    files: u64,
    /// Their bytes
    bytes: u64,
    /// Where nothing here opens contents, nothing was restored: so many were read and compared as ciphertexts instead
    ciphertexts: Option<u64>,
    /// How much was wrong
    problems: u64,
    /// The first of that
    #[serde(default)]
    named: Vec<String>,
}

/// A page of snapshots.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Snapshots {
    /// The repository
    repository: String,
    /// Newest first
    snapshots: Vec<SnapshotShape>,
    /// What to give as `before` for the next page; null at the end
    next: Option<String>,
}

/// A commit. What only our own commits say is null in anybody else's.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct SnapshotShape {
    /// The commit
    id: String,
    /// When it was made
    time: String,
    /// Files that it added
    added: Option<u64>,
    /// Files that it changed
    changed: Option<u64>,
    /// Files that it deleted
    deleted: Option<u64>,
    /// Bytes of the files that it added or changed
    bytes: Option<u64>,
    /// The installation that made it
    instance: Option<String>,
    /// Its number among the commits of that installation
    batch: Option<u64>,
    /// The roots that were watched
    roots: Vec<String>,
    /// Its tags
    tags: Vec<String>,
}

/// A page of a directory.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Files {
    /// The repository
    repository: String,
    /// The commit
    snapshot: String,
    /// `<root>/rel`, lossy; empty for all roots
    path: String,
    /// The exact bytes in base64, if something was lost
    path_b64: Option<String>,
    /// By name
    entries: Vec<FileEntry>,
    /// What did not fit together in what is stored
    remarks: Vec<String>,
    /// Names in the directory
    count: u64,
    /// What to give as `offset` for the next page; null at the end
    next: Option<u64>,
}

/// A name in a directory. What is not recorded is missing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct FileEntry {
    /// Its name, lossy
    name: String,
    /// The exact bytes in base64, if something was lost
    name_b64: Option<String>,
    /// `<root>/rel`, lossy
    path: String,
    /// The exact bytes in base64, if something was lost
    path_b64: Option<String>,
    /// file, directory, symlink, fifo, socket, char_device, block_device
    kind: String,
    /// Bytes
    size: Option<u64>,
    /// What Git holds
    object: Option<String>,
    /// Octal
    mode: Option<String>,
    /// Owner
    uid: Option<u32>,
    /// Group
    gid: Option<u32>,
    /// Owner by name
    user: Option<String>,
    /// Group by name
    group: Option<String>,
    /// When it was changed
    mtime: Option<String>,
    /// The checksum of its content
    blake3: Option<String>,
    /// Names of extended attributes
    xattrs: Option<Vec<String>>,
    /// The hard links that it is one of
    #[schema(value_type = Option<Object>)]
    hard_link: Option<serde_json::Value>,
    /// Major and minor number
    device: Option<Vec<u32>>,
    /// Where a link leads, lossy
    target: Option<String>,
    /// The exact bytes in base64, if something was lost
    target_b64: Option<String>,
}

/// What a reload changed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct Reloaded {
    /// Whether anything changed
    changed: bool,
    /// Of the configuration that is in force now
    checksum: String,
    /// Fields outside of the repositories that changed
    fields: Vec<String>,
    /// Repositories by what happened to them
    repositories: ReloadedRepositories,
    /// What is odd about it
    warnings: Vec<String>,
}

/// Repositories by what happened to them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct ReloadedRepositories {
    /// Started
    added: Vec<String>,
    /// Stopped; their history stays
    removed: Vec<String>,
    /// Stopped and started
    changed: Vec<ReloadedRepository>,
}

/// What changed in a repository.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents an answer")]
pub struct ReloadedRepository {
    /// Its name
    name: String,
    /// Something that is neither a root nor a remote
    settings: bool,
    /// Names by `added`, `removed`, `changed`
    roots: std::collections::BTreeMap<String, Vec<String>>,
    /// Names by `added`, `removed`, `changed`
    remotes: std::collections::BTreeMap<String, Vec<String>>,
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    /// A shape refuses members that it does not know.
    pub fn fits<T: DeserializeOwned>(value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap();
        if let Err(error) = serde_json::from_value::<T>(value.clone()) {
            panic!("{error}: {value}");
        }
    }

    #[test]
    fn the_shapes_are_those_of_what_core_says() {
        use backupbot_core::{inspect, protection, restore, verify};
        fits::<StateCounts>(protection::StateCounts::default());
        let reread = Some(restore::Reread::default());
        let named = restore::Named { path: "x".into(), path_b64: Some("eA==".into()), reason: "y".into() };
        fits::<Report>(restore::Report { verified: reread, problems: vec![named], ..Default::default() });
        let remote =
            protection::RemoteProtection { name: "usb".into(), has_it: true, commit: None, reason: None };
        let report = protection::PathReport {
            repository: "documents".into(),
            root: "folder1".into(),
            path: "x".into(),
            state: protection::ProtectionState::Pushed,
            protected: true,
            explanation: "it is".into(),
            stored: None,
            commit: None,
            remotes: vec![remote],
        };
        fits::<PathReport>(report);
        let verified = verify::Report { problem_count: 1, ciphertexts: 1, ..Default::default() };
        let verified = inspect::verified::Verified::new("documents", Some("usb"), &verified, Moment::now());
        fits::<Verified>(verified);
        let drilled = inspect::drills::Drilled {
            repository: "documents".into(),
            remote: "usb".into(),
            commit: "c".into(),
            at: Moment::now(),
            sample: "1%".into(),
            seed: Some(7),
            way: inspect::drills::Way::InPlace,
            is_here: true,
            files: 1,
            bytes: 1,
            ciphertexts: Some(1),
            problems: 1,
            named: vec!["x".into()],
        };
        fits::<Drilled>(drilled);
    }

    #[test]
    fn a_member_that_is_not_documented_is_noticed() {
        let mut report: Value = serde_json::to_value(backupbot_core::restore::Report::default()).unwrap();
        report["more"] = json!(1);
        assert!(serde_json::from_value::<Report>(report).is_err());
    }
}
