//! Every message that actors send each other, and the plain types in them.
//!
//! | to | message | answer |
//! |---|---|---|
//! | queue | [`Enqueue`] paths where something changed | sequence number, durable |
//! | queue | [`LookAtWaiting`] what could be committed | numbers |
//! | queue | [`TakeBatch`] rows for a commit | rows, still queued |
//! | queue | [`Stage`] a commit that is about to happen | durable |
//! | queue | [`Settle`] what follows from a batch | durable |
//! | queue | [`Unstage`], [`DistrustFiles`], [`ClockWentBack`], [`KeepOnly`], [`SetPaused`] | durable |
//! | queue | [`NoteOfGuard`]: what the guard against mass changes must not forget | durable |
//! | queue | [`CountUnsettled`] changes up to a number | rows |
//! | watcher | [`BarrierReached`]: hint everything that happened before now, and queue it | sequence number |
//! | watcher | [`RootSeen`]: what a commit saw of the root | |
//! | committer | [`CommitUpTo`] a sequence number, at once | the branch's tip |
//! | committer | [`PauseChanged`] | |
//! | committer | [`Approve`] the quarantine: the protected branch goes forward to it | where it stands now |
//! | pusher | [`PushNow`]: the branch's tip, without waiting for backoff | what was read back there, or halted |
//! | pusher | [`ResumeRemote`] after a halt | |
//!
//! "There is work" is no message but a [`Nudge`]: it is empty, any number of them are one, and whoever is
//! nudged looks for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{Actor, AsyncContext, Context, Handler, Message};
use backupbot_core::error::Error;
use backupbot_core::names::{RepositoryName, RootName};
use backupbot_core::path::RelPath;
use backupbot_core::scan::Counts;
use backupbot_core::store::changes::{Reach, TakenRow, Waiting};
use backupbot_core::store::checkpoints::{Settlement, StagedCommit};
use backupbot_core::store::guard::{Quarantine, Seen};
use git2::Oid;
use tokio::sync::Notify;

/// An answer of the queue; its errors are the store's.
pub type Answer<T> = Result<T, Error>;

/// Tells one actor that there is work, however often it is used before the actor looks.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// There is work.
    pub fn nudge(&self) {
        self.0.notify_one();
    }

    /// Sends the actor a [`Wake`] after each nudge, for as long as it lives.
    pub fn wake<A>(&self, ctx: &mut Context<A>)
    where
        A: Actor<Context = Context<A>> + Handler<Wake>,
    {
        let (nudged, own) = (self.0.clone(), ctx.address().recipient::<Wake>());
        ctx.spawn(wrap_future(async move {
            loop {
                nudged.notified().await;
                own.do_send(Wake);
            }
        }));
    }
}

/// Queues paths durably.
#[derive(Debug, Message)]
#[rtype(result = "Answer<u64>")]
pub struct Enqueue {
    /// The repository.
    pub repository: RepositoryName,
    /// The root below which the paths are.
    pub root: RootName,
    /// The paths.
    pub paths: Vec<(RelPath, Reach)>,
}

/// What the queue says of a repository.
#[derive(Debug, Clone, Default)]
pub struct WaitingNow {
    /// What could be taken.
    pub waiting: Waiting,
    /// Since when the repository is paused, Unix milliseconds.
    pub paused_since_ms: Option<i64>,
    /// When the pause ends by itself, Unix milliseconds.
    pub paused_until_ms: Option<i64>,
    /// The latest change accepted so far, of any repository.
    pub highest_seq: u64,
}

/// Asks what could be taken, counting at most `up_to` rows.
#[derive(Debug, Message)]
#[rtype(result = "Answer<WaitingNow>")]
pub struct LookAtWaiting {
    /// The repository.
    pub repository: RepositoryName,
    /// Rows to count at most.
    pub up_to: usize,
}

/// Takes rows for a commit; they stay queued until they are settled.
#[derive(Debug, Message)]
#[rtype(result = "Answer<Vec<TakenRow>>")]
pub struct TakeBatch {
    /// The repository.
    pub repository: RepositoryName,
    /// Exact rows at most.
    pub most: usize,
    /// Postponed rows too.
    pub eager: bool,
}

/// Records a commit that is about to happen.
#[derive(Debug, Message)]
#[rtype(result = "Answer<()>")]
pub struct Stage {
    /// The repository.
    pub repository: RepositoryName,
    /// The commit.
    pub staged: Arc<StagedCommit>,
    /// The quarantine that begins with it, if one does.
    pub opens: Option<Quarantine>,
}

/// Applies what follows from a batch.
#[derive(Debug, Message)]
#[rtype(result = "Answer<()>")]
pub struct Settle {
    /// The repository.
    pub repository: RepositoryName,
    /// What follows.
    pub settlement: Settlement,
}

/// Forgets a commit that did not happen.
#[derive(Debug, Message)]
#[rtype(result = "Answer<()>")]
pub struct Unstage(pub RepositoryName);

/// Empties a stat cache that does not belong to the branch's history, and queues every root.
#[derive(Debug, Message)]
#[rtype(result = "Answer<()>")]
pub struct DistrustFiles(pub RepositoryName);

/// Drops what is queued of other roots: those are no longer configured.
#[derive(Debug, Message)]
#[rtype(result = "Answer<usize>")]
pub struct KeepOnly {
    /// The repository.
    pub repository: RepositoryName,
    /// The roots that are.
    pub roots: Vec<RootName>,
}

/// The wall clock was set back: looks at files with times from then on prove nothing.
#[derive(Debug, Message)]
#[rtype(result = "Answer<usize>")]
pub struct ClockWentBack {
    /// The repository.
    pub repository: RepositoryName,
    /// To when, Unix milliseconds.
    pub to_ms: i64,
}

/// Pauses or resumes a repository.
#[derive(Debug, Message)]
#[rtype(result = "Answer<()>")]
pub struct SetPaused {
    /// The repository.
    pub repository: RepositoryName,
    /// Paused or not.
    pub paused: bool,
    /// When the pause ends by itself, Unix milliseconds.
    pub until_ms: Option<i64>,
}

/// What the guard against mass changes must not forget.
#[derive(Debug, Message)]
#[rtype(result = "Answer<()>")]
pub struct NoteOfGuard {
    /// The repository.
    pub repository: RepositoryName,
    /// What.
    pub note: GuardNote,
}

/// One of the things that it must not forget.
#[derive(Debug)]
pub enum GuardNote {
    /// A root was compared whole, and counts from this commit on.
    CountSince(RootName, Oid),
    /// No other roots are watched.
    CountOnly(Vec<RootName>),
    /// A mass change for which there is only an alert.
    Tell(Seen),
    /// The quarantine was approved: the protected branch stands at this commit.
    End(Oid),
    /// A quarantine is in force of which the database knew nothing.
    Reopen(Box<Quarantine>),
    /// The quarantine was rejected.
    Reject,
}

/// Ends the quarantine: the protected branch goes forward to it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Approved, Refusal>")]
pub struct Approve;

/// What an approval came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// The protected branch, in full.
    pub branch: String,
    /// Where it stands now.
    pub commit: Oid,
}

/// Counts the rows of changes up to a number that are neither settled nor known to be unreadable.
#[derive(Debug, Message)]
#[rtype(result = "Answer<usize>")]
pub struct CountUnsettled {
    /// The repository.
    pub repository: RepositoryName,
    /// The number.
    pub up_to: u64,
}

/// Asks a watcher to hint and queue everything that happened before now. The answer is the sequence number
/// up to which the queue must be settled, or why the root cannot be looked at.
#[derive(Debug, Message)]
#[rtype(result = "Result<u64, Refusal>")]
pub struct BarrierReached {
    /// Also compare the whole root, for who does not want to rely on events.
    pub rescan: bool,
}

/// What a commit saw of a root.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RootSeen {
    /// Why the root could not be looked at, if so.
    pub unavailable: Option<String>,
    /// Numbers of a part of a walk, and whether it was the last part.
    pub walk: Option<(Counts, bool)>,
    /// Which of its paths are skipped now.
    pub skipped: Option<SkippedNow>,
}

/// The paths of a root that are not protected in their present version.
#[derive(Debug, Clone, Default)]
pub struct SkippedNow {
    /// How many.
    pub count: u64,
    /// How many of each reason.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub listed: Vec<crate::board::SkippedFile>,
}

/// Commits, without waiting for a batch to fill, until every change up to `seq` is in a commit or skipped.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<Oid>, Refusal>")]
pub struct CommitUpTo {
    /// The sequence number.
    pub seq: u64,
    /// Also while the repository is paused because its quarantine was rejected: somebody is about to put files back.
    pub though_rejected: bool,
}

/// Why an operator's wish is not fulfilled now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The repository is paused.
    Paused,
    /// A root cannot be looked at.
    RootUnavailable(String),
    /// A remote waits for somebody.
    Halted(String),
    /// Commits go to a quarantine, or there is none to end.
    Quarantine(String),
    /// No commit can be made now.
    NoCommit(String),
    /// The actor that would do it is not running.
    NotRunning(String),
    /// It was taken out of the configuration meanwhile.
    Unconfigured(String),
}

/// The repository was paused or resumed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PauseChanged;

/// Pushes the branch's tip of now or later, without waiting for backoff, and reads it back: the answer is what
/// was read after this came.
#[derive(Debug, Message)]
#[rtype(result = "Result<Oid, Refusal>")]
pub struct PushNow;

/// An operator has looked at a halted remote: try again, and take its present state for right.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ResumeRemote;

/// An actor's own alarm or nudge.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Wake;
