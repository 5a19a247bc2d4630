//! What stays while actors come and go: a repository's settings, and where its actors can be reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backupbot_core::audit::Audit;
use backupbot_core::config as model;
use backupbot_core::error::Result;
use backupbot_core::guard;
use backupbot_core::lfs::Objects;
use backupbot_core::names::{RemoteName, RepositoryName, RootName};
use backupbot_core::scan::WatchedRoot;
use backupbot_core::store::Store;
use backupbot_core::store::guard::Quarantine;
use slog::Logger;
use tokio::sync::watch;

use crate::board::Board;
use crate::committer::Committer;
use crate::lfs_quota::LfsMonitor;
use crate::messages::Nudge;
use crate::pusher::Pusher;
use crate::queue::Queue;
use crate::repository::RepositorySupervisor;
use crate::supervision::Place;
use crate::watcher::Watcher;

/// Pushes wait for a committer's first steps no longer than this.
const LONGEST_SETTLING: Duration = Duration::from_secs(30);

/// What the whole tree shares.
#[derive(Clone)]
pub struct Common {
    /// The state directory.
    pub state_dir: PathBuf,
    /// Who backs up.
    pub instance: String,
    /// Author and committer.
    pub identity: model::Identity,
    /// The open database.
    pub store: Store,
    /// What everybody publishes.
    pub board: Board,
    /// Where it is written down what was done.
    pub audit: Audit,
    /// Where to log.
    pub log: Logger,
    /// The queue.
    pub queue: Place<Queue>,
}

/// The repositories of the configuration in force; clones are the same.
#[derive(Clone)]
pub struct Seats(Arc<watch::Sender<Vec<Arc<RepositorySeat>>>>);

impl Default for Seats {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl Seats {
    /// Those of now, in the order of the configuration.
    pub fn now(&self) -> Vec<Arc<RepositorySeat>> {
        self.0.borrow().clone()
    }

    /// Waits until `seat` is no longer in force, which may never be; the one in its place, if the repository is still configured.
    pub(crate) async fn replaced(&self, seat: &Arc<RepositorySeat>) -> Option<Arc<RepositorySeat>> {
        let mut changes = self.0.subscribe();
        let is_in_force = |seats: &Vec<Arc<RepositorySeat>>| seats.iter().any(|it| Arc::ptr_eq(it, seat));
        // The sender lives as long as this does.
        let _ = changes.wait_for(|seats| !is_in_force(seats)).await;
        self.of(&seat.settings.name)
    }

    /// One of them.
    pub(crate) fn of(&self, name: &RepositoryName) -> Option<Arc<RepositorySeat>> {
        self.now().into_iter().find(|seat| seat.settings.name == *name)
    }

    pub(crate) fn put(&self, seats: Vec<Arc<RepositorySeat>>) {
        self.0.send_replace(seats);
    }
}

/// Work done since the start, for progress bars.
#[derive(Debug, Default)]
pub struct Activity {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Activity {
    /// Files and bytes read into commits that are done.
    pub fn done(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A repository as long as a configuration is in force. When a root or a remote comes, changes or goes, the next seat shares all
/// that lives with the former one: whoever is not concerned keeps that one and is still reached.
pub struct RepositorySeat {
    /// What the whole tree shares.
    pub common: Common,
    /// Its settings.
    pub settings: model::Repository,
    /// Its bare repository.
    pub path: PathBuf,
    /// Its roots, in the order of the settings.
    pub roots: Arc<Vec<WatchedRoot>>,
    /// Their supervisor.
    pub supervisor: Place<RepositorySupervisor>,
    /// The committer.
    pub committer: Place<Committer>,
    /// One pusher a remote.
    pub pushers: BTreeMap<RemoteName, Place<Pusher>>,
    /// One watcher a root.
    pub watchers: BTreeMap<RootName, Place<Watcher>>,
    /// Nudges the committer: something was queued.
    pub queued: Nudge,
    /// Nudges each pusher: something was committed.
    pub committed: BTreeMap<RemoteName, Nudge>,
    /// Work done since the start.
    pub activity: Arc<Activity>,
    /// By root: paths that events named and that are not quiet yet.
    pub detected: BTreeMap<RootName, Arc<AtomicU64>>,
    /// What somebody met in the repository that should not be there; the committer looks into it.
    pub suspicion: Arc<Suspicion>,
    /// Whether the committer has taken its first steps.
    pub settled: Arc<Settled>,
    /// What the guard against mass changes remembers of the latest commits.
    pub guard: Arc<guard::Memory>,
    /// Who looks after large contents; nobody, where there are none.
    pub lfs: Place<LfsMonitor>,
    /// Nudges that one: large contents were uploaded.
    pub uploaded: Nudge,
}

/// Since when the committer has been busy with its first steps: until it is done, a branch may stand at what a crash
/// or damage left, which no remote should be compared with.
#[derive(Debug)]
pub struct Settled(Mutex<Option<Instant>>);

impl Default for Settled {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Settled {
    /// Begins, or is done, for better or worse.
    pub(crate) fn set(&self, is_settled: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (!is_settled).then(Instant::now);
    }

    /// Whether the others may go on. Nobody waits for ever: the remotes still lack what is committed.
    pub(crate) fn may_push(&self) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| since.elapsed() >= LONGEST_SETTLING)
    }
}

/// Something about the repository that needs a look, until somebody takes it up.
#[derive(Debug, Default)]
pub struct Suspicion(Mutex<Option<String>>);

impl Suspicion {
    /// Raises it; the first one that is not taken up yet stays.
    fn raise(&self, reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }

    /// Takes it up.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl RepositorySeat {
    /// The branch that commits go to now, in full: that of the quarantine while there is one.
    pub fn branch(&self) -> Result<String> {
        match self.quarantine()? {
            Some(quarantine) => Ok(quarantine.branch),
            None => self.protected_branch(),
        }
    }

    /// The quarantine that is in force.
    pub fn quarantine(&self) -> Result<Option<Quarantine>> {
        Ok(self.common.store.reader().guard(&self.settings.name)?.quarantine)
    }

    /// The branch of the configuration, in full; a mass change does not reach it until somebody approves.
    pub fn protected_branch(&self) -> Result<String> {
        self.settings.branch.full_name(&self.common.instance, backupbot_core::clock::now())
    }

    /// A root by name.
    pub fn root(&self, name: &RootName) -> Option<&WatchedRoot> {
        self.roots.iter().find(|root| root.name == *name)
    }

    /// Whether there are large contents, or may be soon.
    pub fn has_large_contents(&self) -> bool {
        self.settings.lfs.is_some() || Objects::of(&self.path).is_in_use()
    }

    /// Has the committer look whether the repository is damaged.
    pub fn suspect(&self, reason: &str) {
        self.suspicion.raise(reason);
        self.queued.nudge();
    }

    /// Tells every pusher that there is a new commit.
    pub fn nudge_pushers(&self) {
        for nudge in self.committed.values() {
            nudge.nudge();
        }
    }
}

/// Unix time in milliseconds.
pub fn now_ms() -> i64 {
    backupbot_core::clock::now_ms()
}
