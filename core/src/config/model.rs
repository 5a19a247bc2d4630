//! The configuration as the rest of the program sees it: plain data, checked, every default filled in.
//!
//! The `Default` of each struct is the documented default of its section; nothing else in the program knows
//! one. Sizes are bytes, shares lie above 0 and up to 1, paths are absolute.

use std::path::PathBuf;
use std::time::Duration;

use crate::names::{RemoteName, RepositoryName, RootName};
use crate::verify::Sample;

use super::branch::BranchTemplate;
use super::url::RemoteUrl;

pub(crate) mod encryption;
mod operating;

pub use encryption::{Encryption, EncryptionMethod, Gpg};
pub use operating::{
    Admin, Alerts, LogConfig, LogFormat, LogLevel, Metrics, Notification, Receiver, ReceiverUrl, Smtp,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Everything an operator can decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where all state lives; one process at a time uses it.
    pub state_dir: PathBuf,
    /// Which machine this is, recorded in each commit; safe as one component of a branch name.
    pub instance: String,
    /// Who commits.
    pub identity: Identity,
    /// Bounds against mistakes.
    pub limits: Limits,
    /// How long a stop may take before work is abandoned.
    pub shutdown_grace: Duration,
    /// Where the log goes.
    pub log: LogConfig,
    /// The HTTP interface.
    pub admin: Admin,
    /// The metrics listener.
    pub metrics: Metrics,
    /// When to raise the alarm, and where to.
    pub alerts: Alerts,
    /// At least one; names are unique.
    pub repositories: Vec<Repository>,
    /// BLAKE3 (hex) of what was read: two equal ones need no reload.
    pub checksum: String,
}

/// Author and committer of every commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { name: "BackupBot".to_owned(), email: "backupbot@localhost".to_owned() }
    }
}

/// Bounds against mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Roots over all repositories.
    pub max_roots: usize,
    /// Size of one repository at which it is reported as too large, in bytes.
    pub repository_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_roots: 10, repository_size: 50 * GIB }
    }
}

/// The stop's default patience.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// A set of roots, one bare repository, one branch.
#[derive(Debug, Clone, PartialEq)]
pub struct Repository {
    /// Unique.
    pub name: RepositoryName,
    /// Where commits go.
    pub branch: BranchTemplate,
    /// Which commits get a tag.
    pub tags: Tags,
    /// At least one; names unique here, paths apart from each other everywhere.
    pub roots: Vec<Root>,
    /// When a batch becomes a commit.
    pub batch: Batch,
    /// The guard against mass deletion and mass rewriting.
    pub mass_change: MassChange,
    /// When what is here is verified; `None`: not on schedule.
    pub verify: Option<Verify>,
    /// When restoring from the remotes is rehearsed; `None`: not on schedule.
    pub drill: Option<Drill>,
    /// The retry law.
    pub retry: Retry,
    /// `None`: every file is a blob.
    pub lfs: Option<Lfs>,
    /// `None`: remotes see the contents.
    pub encryption: Option<Encryption>,
    /// Names and URLs are unique here; possibly none.
    pub remotes: Vec<Remote>,
}

/// Which commits get a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// How often.
    pub every: TagPeriod,
    /// strftime, in UTC.
    pub name: String,
}

impl Default for Tags {
    fn default() -> Self {
        Self { every: TagPeriod::None, name: "backup-%Y-%m-%d".to_owned() }
    }
}

/// How often a tag is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TagPeriod {
    None,
    Commit,
    Day,
    Week,
    Month,
}

/// A batch is committed when one of these is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Files.
    pub files: usize,
    /// Bytes; a commit never exceeds them but for one large file.
    pub bytes: u64,
    /// Age.
    pub after: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { files: 500, bytes: 256 * MIB, after: Duration::from_secs(10) }
    }
}

/// What happens when much of a root changes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MassChangePolicy {
    /// Commits go to a branch of their own until somebody approves.
    Quarantine,
    /// Only an alert.
    Alert,
    /// Nothing.
    Off,
}

/// The guard against mass deletion and mass rewriting.
#[derive(Debug, Clone, PartialEq)]
pub struct MassChange {
    /// Share of a root.
    pub share: f64,
    /// Sliding window.
    pub window: Duration,
    /// Fewer changed files never trigger.
    pub min_files: u64,
    /// What to do then.
    pub policy: MassChangePolicy,
}

impl Default for MassChange {
    fn default() -> Self {
        Self { share: 0.5, window: HOUR, min_files: 100, policy: MassChangePolicy::Quarantine }
    }
}

/// When what is here is verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Verify {
    /// How much is read each time.
    pub sample: Sample,
    /// How often a sample is.
    pub every: Duration,
    /// How often everything is; `None`: never on schedule.
    pub full_every: Option<Duration>,
}

impl Default for Verify {
    fn default() -> Self {
        Self { sample: Sample::Share(10_000), every: DAY, full_every: Some(30 * DAY) }
    }
}

/// How restoring is rehearsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Drill {
    /// How often.
    pub every: Duration,
    /// How much is restored and compared.
    pub sample: Sample,
}

impl Default for Drill {
    fn default() -> Self {
        Self { every: 7 * DAY, sample: Sample::Share(10_000) }
    }
}

/// Waiting times after failures: `first`, then `factor` times more each time, never above `max`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Retry {
    pub first: Duration,
    pub factor: f64,
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), factor: 2.0, max: 5 * MINUTE }
    }
}

/// Which files go to LFS storage, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lfs {
    /// Files of at least this size.
    pub threshold: u64,
    /// And files that match, gitignore syntax.
    pub patterns: Vec<String>,
    /// Larger ones are skipped and reported.
    pub max_object: u64,
    /// How long pushed objects stay here.
    pub keep_local: Duration,
    /// Percentages of the quota that warn, ascending.
    pub warn_at: Vec<u8>,
    /// How it is seen that every remote still has all of them; absent: it is not.
    pub scrub: Option<Scrub>,
}

/// Asking remotes again for the large contents that they should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrub {
    /// How often each remote is asked for all of them.
    pub every: Duration,
    /// How much is downloaded and hashed each time.
    pub read: Sample,
    /// No more than so many bytes of it each time, but for one content.
    pub read_at_most: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { every: DAY, read: Sample::Share(10_000), read_at_most: GIB }
    }
}

impl Default for Lfs {
    fn default() -> Self {
        Self {
            threshold: 10 * MIB,
            patterns: Vec::new(),
            max_object: 5 * GIB,
            keep_local: 7 * DAY,
            warn_at: vec![80, 95],
            scrub: Some(Scrub::default()),
        }
    }
}

/// A watched directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    /// Its directory in the repository.
    pub name: RootName,
    /// Where it is.
    pub path: PathBuf,
    /// Left out, gitignore syntax.
    pub ignore: Vec<String>,
    /// Names of files in the tree that are obeyed like `ignore`.
    pub ignore_files: Vec<String>,
    /// Whether the documented list of junk is left out.
    pub system_excludes: bool,
    /// Whether other mounts below it are left out.
    pub one_file_system: bool,
    /// When a changed file is looked at.
    pub debounce: Debounce,
    /// How often everything is compared, because events are only hints.
    pub rescan: Duration,
    /// Who tells of changes.
    pub backend: BackendChoice,
}

/// The name of the ignore file that is obeyed by default.
pub(super) const IGNORE_FILE: &str = ".backupbotignore";
/// The default pause between full reconciles.
pub(super) const RESCAN: Duration = HOUR;

/// When a changed file is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debounce {
    /// After this long without another event.
    pub quiet: Duration,
    /// After this long at the latest.
    pub max: Duration,
}

impl Default for Debounce {
    fn default() -> Self {
        Self { quiet: Duration::from_secs(10), max: Duration::from_secs(30) }
    }
}

/// Who tells of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BackendChoice {
    Auto,
    Inotify,
    Kqueue,
    Poll,
}

/// Where a repository is pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// Unique within the repository.
    pub name: RemoteName,
    /// Where it is.
    pub url: RemoteUrl,
    /// How to get in.
    pub credentials: Option<Credentials>,
    /// LFS storage there, in bytes; `None`: ask where it can be asked.
    pub quota: Option<u64>,
    /// What it runs, for quota and messages.
    pub provider: Option<Provider>,
    /// Where it stands, text for the report.
    pub region: Option<String>,
    /// The LFS endpoint, if not the usual one.
    pub lfs_url: Option<String>,
    /// Bytes a second.
    pub bandwidth: Option<u64>,
    /// Trusted instead of the system's authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy.
    pub proxy: Option<String>,
    /// How patient to be with it.
    pub timeouts: Timeouts,
}

impl Remote {
    /// A remote of which nothing but the address is known.
    pub fn at(name: RemoteName, url: RemoteUrl) -> Self {
        Self {
            name,
            url,
            credentials: None,
            quota: None,
            provider: None,
            region: None,
            lfs_url: None,
            bandwidth: None,
            ca_file: None,
            proxy: None,
            timeouts: Timeouts::default(),
        }
    }
}

/// How patient to be with a remote behind a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection with its encryption and its log-in.
    pub connect: Duration,
    /// While bytes are under way: when hardly any have come for so long, it has stalled.
    pub stall: Duration,
    /// While it works and says nothing.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            answer: Duration::from_secs(600),
        }
    }
}

/// What a remote runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Provider {
    Forgejo,
    Gitea,
    Gitlab,
    Github,
    Generic,
}

/// How to get into a remote: only where secrets are, never what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Option<SecretSource>,
    pub token: Option<SecretSource>,
    pub ssh_key: Option<SecretSource>,
    pub passphrase: Option<SecretSource>,
    pub known_hosts_file: Option<PathBuf>,
}

/// Where a secret is read, each time it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The output of a program, given as its arguments.
    Command(Vec<String>),
}
