//! Taking a commit back that no remote has: its changes are queued again before the branch moves.
//!
//! Order: every root queued whole, durable → stat cache made anew from the older commit, its checkpoint
//! last, durable → branch moved
//! back. A crash after any step leaves a state that the next batches turn into the same tree: more is read
//! than had to be, nothing is lost. The commit's pack stays as an unreachable leftover.

use git2::Oid;

use crate::clock::now_ms;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::refs;
use crate::git::repository::Repository;
use crate::names::{RepositoryName, RootName};
use crate::path::RelPath;
use crate::progress::Progress;
use crate::snapshot::{batch_of, raw, rebuild_files};
use crate::store::QueueStore;
use crate::store::changes::Reach;
use crate::store::checkpoints::{Checkpoint, Settlement};

/// Moves `branch` back to `to`.
///
/// # Errors
/// [`Kind::RemoteRefused`] when a commit that would be taken back is among `confirmed`, the commits last read
/// back from remotes: what is pushed stays. [`Kind::Git`] when `to` is not in the branch's history.
pub fn take_back(
    repository: &Repository,
    name: &RepositoryName,
    branch: &str,
    to: Oid,
    confirmed: &[Oid],
    roots: &[RootName],
    queue: &mut QueueStore,
) -> Result<()> {
    let Some(tip) = repository.reference(branch)? else {
        return Err(Error::new(Kind::Git, format!("{branch} does not exist")));
    };
    if !repository.is_ancestor(to, tip)? {
        return Err(Error::new(Kind::Git, format!("{to} is not in the history of {branch}")));
    }
    for commit in confirmed {
        if !repository.is_ancestor(*commit, to)? {
            let text = format!("{commit} is on a remote already: what is pushed stays");
            return Err(Error::new(Kind::RemoteRefused, text));
        }
    }
    let now_ms = now_ms();
    for root in roots {
        queue.enqueue(name, root, &[(RelPath::root(), Reach::Deep)], now_ms)?;
    }
    fault::point("rollback:queued");
    queue.distrust_files(name)?;
    for root in roots {
        rebuild_files(repository, to, root, &Progress::new(), &mut |deltas| {
            let files = vec![(root.clone(), deltas)];
            queue.settle(name, &Settlement { files, ..Settlement::default() }, now_ms)
        })?;
    }
    let batch = batch_of(repository, to)?;
    let checkpoint = Some(Checkpoint { commit: raw(to), at_ms: now_ms, batch });
    queue.settle(name, &Settlement { checkpoint, ..Settlement::default() }, now_ms)?;
    fault::point("rollback:checkpoint-set");
    refs::move_reference(repository, branch, Some(tip), to)
}
