//! The supervisor of one repository: its pushers, its committer, who looks after its large contents, its watchers, each
//! restarted by itself.
//!
//! A child that keeps failing is parked while its siblings go on: a remote that crashes its pusher stops no
//! commit, a root that crashes its watcher stops no other root.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use backupbot_core::config as model;
use backupbot_core::config::diff::RepositoryDiff;
use backupbot_core::names::{RemoteName, RootName};

use crate::committer::Committer;
use crate::lfs_quota::LfsMonitor;
use crate::pusher::Pusher;
use crate::seat::RepositorySeat;
use crate::supervision::{ChildSpec, Children, ExitHandle, OnExceeded, RestartPolicy, Supervising, spawn};
use crate::watcher::Watcher;

/// A job that stands still for so long is hung.
const HANG_AFTER: Duration = Duration::from_secs(300);

/// The actor.
pub struct RepositorySupervisor {
    seat: Arc<RepositorySeat>,
    children: Children,
}

impl RepositorySupervisor {
    /// A supervisor of the repository's actors.
    pub fn new(seat: Arc<RepositorySeat>, exit: &ExitHandle) -> Self {
        let children = Children::new(exit, &seat.common.board, &seat.common.log);
        Self { seat, children }
    }
}

impl Supervising for RepositorySupervisor {
    fn children(&mut self) -> &mut Children {
        &mut self.children
    }
}

impl Actor for RepositorySupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let seat = self.seat.clone();
        seat.settings.remotes.iter().for_each(|remote| self.add_pusher(remote));
        self.add_committer();
        self.add_lfs_monitor();
        seat.settings.roots.iter().for_each(|root| self.add_watcher(root));
        self.children.attach(ctx);
    }
}

/// Each is started in the place of one of the same name, if there is one: that is stopped first.
impl RepositorySupervisor {
    fn add_pusher(&mut self, remote: &model::Remote) {
        let (seat, remote) = (self.seat.clone(), remote.clone());
        let spec = ChildSpec::new("pusher", pusher_name(&remote.name), move |exit| {
            let place = seat.pushers.get(&remote.name).cloned().unwrap_or_default();
            let (seat, remote) = (seat.clone(), remote.clone());
            Ok::<_, String>(spawn(exit, |exit| Pusher::new(seat, remote, exit)).at(&place))
        });
        self.children.add(spec.rank(1).policy(policy()).hang_after(Some(hang_after())));
    }

    fn add_committer(&mut self) {
        let seat = self.seat.clone();
        let spec = ChildSpec::new("committer", COMMITTER, move |exit| {
            let queue = seat.common.queue.address_of("queue")?;
            let run = seat.clone();
            Ok::<_, String>(spawn(exit, |exit| Committer::new(run, exit, queue)).at(&seat.committer))
        });
        self.children.add(spec.rank(2).policy(policy()).hang_after(Some(hang_after())));
    }

    /// Only where there are large contents: `lfs` in the settings comes with another supervisor.
    fn add_lfs_monitor(&mut self) {
        if !self.seat.has_large_contents() {
            return;
        }
        let seat = self.seat.clone();
        let spec = ChildSpec::new("lfs_monitor", LFS_MONITOR, move |exit| {
            let run = seat.clone();
            Ok::<_, String>(spawn(exit, |exit| LfsMonitor::new(run, &exit)).at(&seat.lfs))
        });
        self.children.add(spec.rank(2).policy(policy()).hang_after(Some(hang_after())));
    }

    fn add_watcher(&mut self, root: &model::Root) {
        let (seat, root) = (self.seat.clone(), root.clone());
        let spec = ChildSpec::new("watcher", watcher_name(&root.name), move |exit| {
            let queue = seat.common.queue.address_of("queue")?;
            let place = seat.watchers.get(&root.name).cloned().unwrap_or_default();
            let (seat, root) = (seat.clone(), root.clone());
            Ok::<_, String>(spawn(exit, |exit| Watcher::new(seat, root, exit, queue)).at(&place))
        });
        self.children.add(spec.rank(3).policy(policy()).hang_after(Some(hang_after())));
    }
}

/// Another configuration has other roots or remotes; what of them did not change runs on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Alter {
    /// What is in force from now on.
    pub seat: Arc<RepositorySeat>,
    /// What differs.
    pub diff: RepositoryDiff,
}

impl Handler<Alter> for RepositorySupervisor {
    type Result = ();

    fn handle(&mut self, Alter { seat, diff }: Alter, _: &mut Self::Context) {
        self.seat = seat.clone();
        diff.roots.removed.iter().for_each(|root| self.children.remove(&watcher_name(root)));
        diff.remotes.removed.iter().for_each(|remote| self.children.remove(&pusher_name(remote)));
        let is_meant =
            |name: &RemoteName| diff.remotes.added.contains(name) || diff.remotes.changed.contains(name);
        for remote in seat.settings.remotes.iter().filter(|remote| is_meant(&remote.name)) {
            self.add_pusher(remote);
        }
        // Both know every remote, and the committer goes through every root.
        self.add_committer();
        self.add_lfs_monitor();
        let is_meant = |name: &RootName| diff.roots.added.contains(name) || diff.roots.changed.contains(name);
        for root in seat.settings.roots.iter().filter(|root| is_meant(&root.name)) {
            self.add_watcher(root);
        }
    }
}

/// The committer's name among the children.
pub(crate) const COMMITTER: &str = "committer";

/// The name of who looks after large contents among the children.
pub(crate) const LFS_MONITOR: &str = "lfs monitor";

/// A pusher's name among the children.
pub(crate) fn pusher_name(remote: &RemoteName) -> String {
    format!("pusher {remote}")
}

/// A watcher's name among the children.
pub(crate) fn watcher_name(root: &RootName) -> String {
    format!("watcher {root}")
}

/// A parked child is tried again after a minute: what broke it may be a disk that is back by then.
fn policy() -> RestartPolicy {
    let cool_off = Duration::from_secs(60);
    RestartPolicy { on_exceeded: OnExceeded::Park { cool_off }, ..RestartPolicy::parking() }
}

/// The test build may ask for less patience.
pub(crate) fn hang_after() -> Duration {
    if cfg!(feature = "fault-points")
        && let Ok(text) = std::env::var("BACKUPBOT_FAULT_HANG_AFTER_MS")
        && let Ok(milliseconds) = text.parse()
    {
        return Duration::from_millis(milliseconds);
    }
    HANG_AFTER
}
