//! What a supervisor is told about a child: how to build it, when to restart it, how long to wait for it.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use actix::{Actor, Context};

use super::exit::{ExitHandle, Leash};
use super::policy::RestartPolicy;
use super::spawn::{Ended, Spawned};

/// Whom the end of a child concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Only itself.
    OneForOne,
    /// Also every child that stands after it: those run only while it runs, so they are stopped in reverse
    /// order when it ends, and started in order when it is back.
    RestForOne,
}

/// Whether a run is busy, and a number that stands still only if it is stuck; `None`: nothing can be said.
pub type Probe = Box<dyn Fn() -> Option<(bool, u64)>>;

/// A run that a factory has started, whatever kind of actor it is.
pub struct ChildStart {
    pub(super) leash: Leash,
    pub(super) ended: Ended,
    pub(super) probe: Option<Probe>,
    /// actix stops an actor that nobody can reach any more.
    pub(super) address: Box<dyn Any>,
}

impl ChildStart {
    /// Watches `probe` for hangs instead of the works that the actor's [`ExitHandle`] counts.
    pub fn probe(mut self, probe: impl Fn() -> Option<(bool, u64)> + 'static) -> Self {
        self.probe = Some(Box::new(probe));
        self
    }
}

impl<A: Actor<Context = Context<A>>> From<Spawned<A>> for ChildStart {
    fn from(spawned: Spawned<A>) -> Self {
        Self { leash: spawned.leash, ended: spawned.ended, probe: None, address: Box::new(spawned.address) }
    }
}

/// Builds a child anew for each run. It runs in the supervisor's context, so it must not block.
pub type Factory = Box<dyn FnMut(ExitHandle) -> Result<ChildStart, String>>;

/// Everything a supervisor needs to know about a child.
pub struct ChildSpec {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) rank: Option<u32>,
    pub(super) strategy: Strategy,
    pub(super) policy: RestartPolicy,
    pub(super) stop_within: Duration,
    pub(super) hang_after: Option<Duration>,
    pub(super) factory: Factory,
}

impl ChildSpec {
    /// A child `name`, unique among its siblings, of the kind `role`, that [`RestartPolicy::parking`] governs.
    pub fn new<F, S>(role: impl Into<String>, name: impl Into<String>, mut factory: F) -> Self
    where
        F: FnMut(ExitHandle) -> Result<S, String> + 'static,
        S: Into<ChildStart>,
    {
        Self {
            name: name.into(),
            role: role.into(),
            rank: None,
            strategy: Strategy::OneForOne,
            policy: RestartPolicy::parking(),
            stop_within: Duration::from_secs(10),
            hang_after: Some(Duration::from_secs(600)),
            factory: Box::new(move |exit| factory(exit).map(Into::into)),
        }
    }

    /// Its place in the order: lower ranks start first and stop last, children of one rank stop together.
    /// Without a rank it gets the next higher one, so it starts last and stops first.
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank = Some(rank);
        self
    }

    /// Lets the children after it run only while this one does.
    pub fn rest_for_one(mut self) -> Self {
        self.strategy = Strategy::RestForOne;
        self
    }

    /// When it is started again.
    pub fn policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How long it may take to stop, and its last works to return after its end. For a supervisor: longer
    /// than its own children need one after the other.
    pub fn stop_within(mut self, stop_within: Duration) -> Self {
        self.stop_within = stop_within;
        self
    }

    /// How long it may be busy without progress; `None`: for ever.
    pub fn hang_after(mut self, hang_after: Option<Duration>) -> Self {
        self.hang_after = hang_after;
        self
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ({:?})", self.role, self.name, self.strategy)
    }
}
