//! The supervisor of one repository: its pushers, its committer, its watchers, each restarted by itself.
//!
//! A child that keeps failing is parked while its siblings go on: a remote that crashes its pusher stops no
//! commit, a root that crashes its watcher stops no other root.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};

use crate::committer::Committer;
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
        for remote in &self.seat.settings.remotes {
            let (seat, remote) = (self.seat.clone(), remote.clone());
            let name = format!("pusher {}", remote.name);
            let spec = ChildSpec::new("pusher", name, move |exit| {
                let place = seat.pushers.get(&remote.name).cloned().unwrap_or_default();
                let (seat, remote) = (seat.clone(), remote.clone());
                Ok::<_, String>(spawn(exit, |exit| Pusher::new(seat, remote, exit)).at(&place))
            });
            self.children.add(spec.rank(1).policy(policy()).hang_after(Some(hang_after())));
        }
        let seat = self.seat.clone();
        let spec = ChildSpec::new("committer", "committer", move |exit| {
            let queue = seat.common.queue.address_of("queue")?;
            let run = seat.clone();
            Ok::<_, String>(spawn(exit, |exit| Committer::new(run, exit, queue)).at(&seat.committer))
        });
        self.children.add(spec.rank(2).policy(policy()).hang_after(Some(hang_after())));
        for root in &self.seat.settings.roots {
            let (seat, root) = (self.seat.clone(), root.clone());
            let name = format!("watcher {}", root.name);
            let spec = ChildSpec::new("watcher", name, move |exit| {
                let queue = seat.common.queue.address_of("queue")?;
                let place = seat.watchers.get(&root.name).cloned().unwrap_or_default();
                let (seat, root) = (seat.clone(), root.clone());
                Ok::<_, String>(spawn(exit, |exit| Watcher::new(seat, root, exit, queue)).at(&place))
            });
            self.children.add(spec.rank(3).policy(policy()).hang_after(Some(hang_after())));
        }
        self.children.attach(ctx);
    }
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
