//! What every part of the program said about itself last.
//!
//! Status is published here, not asked for, so it answers for a child that is dead, busy or stuck. Supervision
//! publishes the children; watchers, pushers and repositories publish their own rows; the API, metrics and
//! alerts read, and a waiter awaits the next change instead of asking again and again. A published value says
//! *since when*, never *for how long*: durations are worked out when somebody looks.

mod configuration;
mod guard;
mod health;
mod inspections;
mod lfs;
mod rows;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use backupbot_core::names::{RemoteName, RepositoryName, RootName};
use backupbot_core::protection::StateCounts;
use tokio::sync::watch;

use self::lfs::LfsRow;
use crate::supervision::{ChildId, ExitReason, lock};

pub use configuration::{ConfigurationStatus, RefusedConfiguration};
pub use guard::{GuardStatus, MassChangeStatus, QuarantineStatus, RepositoryState};
pub use health::{Check, Condition, Finding, HealthRow, Subject};
pub use inspections::InspectionStatus;
pub use lfs::{LfsStatus, LfsTrouble, ScrubTrouble};
pub use rows::{
    ChildState, ChildStatus, LastExit, Moment, Recovered, RemoteState, RemoteStatus, RemoteView,
    RepositoryStatus, RepositoryView, RootState, RootStatus, SkippedFile,
};

#[derive(Default)]
struct Rows {
    children: BTreeMap<ChildId, ChildStatus>,
    /// Kept apart from the children, so that a counter never runs backwards when a child is removed.
    restarts_by_role: BTreeMap<String, u64>,
    leaked: u64,
    repositories: BTreeMap<RepositoryName, RepositoryStatus>,
    roots: BTreeMap<(RepositoryName, RootName), RootStatus>,
    remotes: BTreeMap<(RepositoryName, RemoteName), RemoteStatus>,
    inspections: BTreeMap<RepositoryName, Vec<InspectionStatus>>,
    lfs: BTreeMap<(RepositoryName, RemoteName), LfsRow>,
    scrub_troubles: BTreeMap<RepositoryName, Vec<ScrubTrouble>>,
    recoveries: BTreeMap<&'static str, u64>,
    /// The latest of each kind and place, for people.
    recovered: BTreeMap<(&'static str, String), Recovered>,
    health: BTreeMap<(Check, Subject), HealthRow>,
    state: StateSizes,
    configuration: ConfigurationStatus,
}

/// How much room the state takes and has; what was not looked at yet is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateSizes {
    /// Free bytes where the state directory is.
    pub disk_free: Option<u64>,
    /// Bytes of each repository here.
    pub repositories: BTreeMap<RepositoryName, u64>,
}

struct Shared {
    rows: Mutex<Rows>,
    version: watch::Sender<u64>,
}

/// The board; clones are the same one.
#[derive(Clone)]
pub struct Board(Arc<Shared>);

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Shared { rows: Mutex::default(), version: watch::Sender::new(0) }))
    }
}

/// Wakes its holder when something on the board changes.
#[derive(Debug, Clone)]
pub struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Completes at the next change after the last one this holder has seen.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The board is gone, so nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Counts a run that was given up while something of it still ran, until dropped.
#[derive(Debug)]
pub(crate) struct Leak(Board);

impl Drop for Leak {
    fn drop(&mut self) {
        self.0.change(|rows| {
            rows.leaked = rows.leaked.saturating_sub(1);
            true
        });
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Board(version {})", *self.0.version.borrow())
    }
}

impl Board {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of every change from now on.
    pub fn subscribe(&self) -> Changes {
        Changes(self.0.version.subscribe())
    }

    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    /// Completes with what `look` finds, looking now and after every change; who waits sets the deadline.
    pub async fn wait_for<T>(&self, mut look: impl FnMut(&Board) -> Option<T>) -> T {
        let mut changes = self.subscribe();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            changes.changed().await;
        }
    }

    /// `change` says whether it changed anything; only then are the waiters woken.
    fn change(&self, change: impl FnOnce(&mut Rows) -> bool) {
        let changed = change(&mut lock(&self.0.rows));
        if changed {
            self.0.version.send_modify(|version| *version += 1);
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Rows) -> T) -> T {
        read(&lock(&self.0.rows))
    }

    /// A run of `id` begins; all but the first are restarts.
    pub(crate) fn child_starts(&self, id: &ChildId, role: &str, generation: u64) {
        self.change(|rows| {
            if let Some(child) = rows.children.get_mut(id).filter(|child| child.generation > 0) {
                child.restarts += 1;
                *rows.restarts_by_role.entry(role.to_owned()).or_default() += 1;
            }
            let child = rows.children.entry(id.clone()).or_insert_with(|| ChildStatus::new(id.clone()));
            child.role = role.to_owned();
            child.generation = generation;
            child.enter(ChildState::Starting);
            true
        });
    }

    pub(crate) fn child_ended(&self, id: &ChildId, reason: &ExitReason) {
        self.change(|rows| match rows.children.get_mut(id) {
            Some(child) => {
                child.last_exit = Some(LastExit { reason: reason.to_string(), at: Moment::now() });
                true
            }
            None => false,
        });
    }

    pub(crate) fn child_is(&self, id: &ChildId, role: &str, state: ChildState) {
        self.change(|rows| {
            let child = rows.children.entry(id.clone()).or_insert_with(|| ChildStatus::new(id.clone()));
            child.role = role.to_owned();
            child.enter(state)
        });
    }

    /// Nobody will start `id` again, unless its row already speaks of a run under another supervisor.
    pub(crate) fn child_is_orphaned(&self, id: &ChildId, generation: u64) {
        self.change(|rows| match rows.children.get_mut(id) {
            Some(child) if child.generation == generation => child.enter(ChildState::Stopped),
            _ => false,
        });
    }

    /// Forgets `ancestor` and every child below it.
    pub(crate) fn forget_child(&self, ancestor: &ChildId) {
        self.change(|rows| remove_where(&mut rows.children, |id| id.is_within(ancestor)));
    }

    /// Forgets every child below `ancestor`, but not `ancestor` itself.
    pub(crate) fn forget_children_of(&self, ancestor: &ChildId) {
        self.change(|rows| remove_where(&mut rows.children, |id| id != ancestor && id.is_within(ancestor)));
    }

    pub(crate) fn leak(&self) -> Leak {
        self.change(|rows| {
            rows.leaked += 1;
            true
        });
        Leak(self.clone())
    }

    /// State of ours was damaged or lost and was made anew: counted by `kind`, and kept for people. `place` tells
    /// one of a kind from another.
    pub fn recovered(&self, kind: &'static str, place: &str, words: &str) {
        self.change(|rows| {
            *rows.recoveries.entry(kind).or_default() += 1;
            let told = Recovered { kind, at: Moment::now(), words: words.to_owned() };
            rows.recovered.insert((kind, place.to_owned()), told);
            true
        });
    }

    /// Recoveries since the start of the process, by kind.
    pub fn recoveries(&self) -> BTreeMap<&'static str, u64> {
        self.read(|rows| rows.recoveries.clone())
    }

    /// The latest recovery of each kind and place since the start of the process.
    pub fn latest_recoveries(&self) -> Vec<Recovered> {
        self.read(|rows| rows.recovered.values().cloned().collect())
    }

    /// Something was checked at `now`.
    pub fn publish_health(&self, finding: Finding, now: Moment) {
        self.change(|rows| {
            let key = (finding.check, finding.subject.clone());
            let former = rows.health.get(&key);
            let is_news = former.is_none_or(|former| former.finding != finding);
            let row = HealthRow::after(former, finding, now);
            rows.health.insert(key, row);
            is_news
        });
    }

    /// What was checked, by check and subject.
    pub fn health(&self) -> Vec<HealthRow> {
        self.read(|rows| rows.health.values().cloned().collect())
    }

    /// What one check found of one subject last.
    pub fn health_of(&self, check: Check, subject: &Subject) -> Option<HealthRow> {
        self.read(|rows| rows.health.get(&(check, subject.clone())).cloned())
    }

    /// How much room the state takes and has. Nobody waits for that, so nobody is woken.
    pub fn publish_sizes(&self, sizes: StateSizes) {
        lock(&self.0.rows).state = sizes;
    }

    /// How much room the state takes and has.
    pub fn sizes(&self) -> StateSizes {
        self.read(|rows| rows.state.clone())
    }

    /// Every supervised child, by id.
    pub fn children(&self) -> Vec<ChildStatus> {
        self.read(|rows| rows.children.values().cloned().collect())
    }

    /// One child.
    pub fn child(&self, id: &ChildId) -> Option<ChildStatus> {
        self.read(|rows| rows.children.get(id).cloned())
    }

    /// Restarts since the start of the process, by role; never runs backwards.
    pub fn restarts_by_role(&self) -> BTreeMap<String, u64> {
        self.read(|rows| rows.restarts_by_role.clone())
    }

    /// Runs that were given up and of which something, a thread as a rule, is still running.
    pub fn leaked(&self) -> u64 {
        self.read(|rows| rows.leaked)
    }

    /// Puts `status` in the place of what the repository of that name published before.
    pub fn publish_repository(&self, status: RepositoryStatus) {
        self.change(|rows| replace(&mut rows.repositories, status.name.clone(), status));
    }

    /// Puts `status` in the place of what the root of that name published before.
    pub fn publish_root(&self, repository: &RepositoryName, status: RootStatus) {
        self.change(|rows| replace(&mut rows.roots, (repository.clone(), status.name.clone()), status));
    }

    /// Puts `status` in the place of what the remote of that name published before.
    pub fn publish_remote(&self, repository: &RepositoryName, status: RemoteStatus) {
        self.change(|rows| replace(&mut rows.remotes, (repository.clone(), status.name.clone()), status));
    }

    /// Forgets a repository that is no longer configured, its roots and its remotes.
    pub fn forget_repository(&self, name: &RepositoryName) {
        self.change(|rows| {
            let inspections = rows.inspections.remove(name).is_some();
            let lfs = rows.forget_lfs(name, None);
            let repository = rows.repositories.remove(name).is_some();
            let roots = remove_where(&mut rows.roots, |(repository, _)| repository == name);
            let remotes = remove_where(&mut rows.remotes, |(repository, _)| repository == name);
            rows.state.repositories.remove(name);
            let health =
                remove_where(&mut rows.health, |(_, subject)| subject.repository.as_ref() == Some(name));
            repository || roots || remotes || inspections || lfs || health
        });
    }

    /// Forgets a root that is no longer configured.
    pub fn forget_root(&self, repository: &RepositoryName, root: &RootName) {
        self.change(|rows| {
            let health =
                remove_where(&mut rows.health, |(_, subject)| *subject == Subject::root(repository, root));
            rows.roots.remove(&(repository.clone(), root.clone())).is_some() || health
        });
    }

    /// Forgets a remote that is no longer configured.
    pub fn forget_remote(&self, repository: &RepositoryName, remote: &RemoteName) {
        self.change(|rows| {
            let health = remove_where(&mut rows.health, |(_, subject)| {
                *subject == Subject::remote(repository, remote)
            });
            let lfs = rows.forget_lfs(repository, Some(remote));
            rows.remotes.remove(&(repository.clone(), remote.clone())).is_some() || health || lfs
        });
    }

    /// What a repository said last.
    pub fn repository(&self, name: &RepositoryName) -> Option<RepositoryStatus> {
        self.read(|rows| rows.repositories.get(name).cloned())
    }

    /// What every repository said last, by name.
    pub fn repositories(&self) -> Vec<RepositoryStatus> {
        self.read(|rows| rows.repositories.values().cloned().collect())
    }

    /// What the roots of a repository said last, by name.
    pub fn roots(&self, repository: &RepositoryName) -> Vec<RootStatus> {
        self.read(|rows| rows.roots_of(repository).cloned().collect())
    }

    /// What the remotes of a repository said last, by name.
    pub fn remotes(&self, repository: &RepositoryName) -> Vec<RemoteStatus> {
        self.read(|rows| rows.remotes_of(repository).cloned().collect())
    }

    /// The `repositories` of the status answer as of `now`, all from one and the same moment of the board.
    pub fn status(&self, now: Moment) -> Vec<RepositoryView> {
        self.read(|rows| {
            let view = |repository: &RepositoryStatus| RepositoryView {
                repository: repository.clone(),
                states: StateCounts::default(),
                roots: rows.roots_of(&repository.name).cloned().collect(),
                remotes: rows.remotes_of(&repository.name).map(|remote| remote.view(now)).collect(),
            };
            rows.repositories.values().map(view).collect()
        })
    }
}

impl Rows {
    fn roots_of(&self, repository: &RepositoryName) -> impl Iterator<Item = &RootStatus> {
        self.roots.iter().filter(move |((owner, _), _)| owner == repository).map(|(_, root)| root)
    }

    fn remotes_of(&self, repository: &RepositoryName) -> impl Iterator<Item = &RemoteStatus> {
        self.remotes.iter().filter(move |((owner, _), _)| owner == repository).map(|(_, remote)| remote)
    }
}

fn replace<K: Ord, V: PartialEq>(rows: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if rows.get(&key) == Some(&value) {
        return false;
    }
    rows.insert(key, value);
    true
}

fn remove_where<K: Ord, V>(rows: &mut BTreeMap<K, V>, unwanted: impl Fn(&K) -> bool) -> bool {
    let before = rows.len();
    rows.retain(|key, _| !unwanted(key));
    rows.len() != before
}

#[cfg(test)]
mod tests;
