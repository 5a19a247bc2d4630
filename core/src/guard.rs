//! The guard against mass deletion and mass rewriting: is what a batch does to a root like work, or like an attack?
//!
//! In: what a batch takes away from a root and what it puts there ([`Tally`]), and what the commits before it did within
//! the window ([`Window`]). Out: a [`Loss`], if a large share of the files that the root held at the window's start
//! is gone by now, under whatever name. Batches are small, so the counts of many commits add up; they are kept in
//! memory and read from the commits themselves after a restart (`past`), so what counts is as durable as these are.
//!
//! What follows from a loss is the caller's: with the policy `quarantine` the batch, and all after it, go to a branch
//! of their own ([`branch`]) until somebody approves ([`approve`]).

pub mod branch;
mod past;
pub mod restores;
mod tally;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use git2::Oid;

use crate::config::{MassChange, MassChangePolicy};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::refs;
use crate::git::repository::Repository;
use crate::names::RootName;
use crate::progress::Progress;
use crate::snapshot::raw;
use crate::store::files::FilesView;
use crate::store::guard::{Quarantine, Seen};

use self::restores::Restores;
pub use self::tally::{Tally, Turned};
pub use self::window::{Loss, Window};

/// What the commits up to a tip did within the window, by root. It is only a memory: where it does not speak of the
/// commit that a batch builds on, it is read again from the repository.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Option<Remembered>>);

#[derive(Debug)]
struct Remembered {
    tip: Oid,
    roots: BTreeMap<RootName, Window>,
}

impl Memory {
    /// Forgets all, because the window begins anew.
    pub fn forget(&self) {
        self.take();
    }

    fn take(&self) -> Option<Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The commit upon `parent` is `commit`, which brings everything into another form: what stood in the tree as one object
    /// stands there as another, and nothing came or went. By root, each pair of both.
    pub(crate) fn turn<'r>(
        &self,
        parent: Oid,
        commit: Oid,
        turned: impl Iterator<Item = (&'r RootName, Vec<([u8; 20], [u8; 20])>)>,
    ) {
        let Some(mut remembered) = self.take().filter(|remembered| remembered.tip == parent) else { return };
        remembered.tip = commit;
        for (root, pairs) in turned {
            if let Some(window) = remembered.roots.get_mut(root) {
                window.turn(&Turned::of(pairs.iter().map(|(old, new)| (old, new))));
            }
        }
        self.put(remembered);
    }

    fn put(&self, remembered: Remembered) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(remembered);
    }
}

/// What a batch is judged by.
#[derive(Clone, Copy)]
pub struct Guard<'g> {
    /// From which loss on.
    pub limits: &'g MassChange,
    /// What is known of the commits before.
    pub memory: &'g Memory,
    /// The roots that were seen whole once, and since which commit they count. What is done to others is their first
    /// comparison, and no loss.
    pub since: &'g BTreeMap<RootName, Oid>,
    /// What restores in place did lately.
    pub restores: &'g Restores,
}

impl<'g> Guard<'g> {
    /// Begins with a batch that builds on `parent` at `now_s`, Unix seconds.
    pub(crate) fn begin(
        self,
        repository: &Repository,
        parent: Option<Oid>,
        now_s: i64,
        progress: &Progress,
    ) -> Result<Judge<'g>> {
        let start_s = now_s.saturating_sub(seconds(self.limits.window));
        let mut roots = match (self.memory.take(), parent) {
            (Some(remembered), Some(parent)) if remembered.tip == parent => remembered.roots,
            (_, Some(parent)) => {
                past::read(repository, parent, start_s, self.since, self.restores, progress)?
            }
            (_, None) => BTreeMap::new(),
        };
        for window in roots.values_mut() {
            window.forget_before(start_s);
        }
        Ok(Judge { guard: self, parent, now_s, roots })
    }
}

/// Judges one batch.
pub(crate) struct Judge<'g> {
    guard: Guard<'g>,
    parent: Option<Oid>,
    now_s: i64,
    roots: BTreeMap<RootName, Window>,
}

impl Judge<'_> {
    /// A tally of what the batch does to a root, if that counts.
    pub fn tally(&self, root: &RootName) -> Option<Tally> {
        (self.parent.is_some() && self.guard.since.contains_key(root)).then(Tally::default)
    }

    /// Takes what the batch did to a root; `files` is the stat cache as it was before.
    pub fn take(&mut self, root: &RootName, tally: &Tally, files: &FilesView) -> Result<Option<Loss>> {
        let window = self.roots.entry(root.clone()).or_default();
        if !window.take(tally, self.now_s) {
            return Ok(None);
        }
        if !window.may_hold(self.guard.limits) {
            return Ok(None);
        }
        let now = window.files(|| {
            let before = i64::try_from(files.count_contents(root)?).unwrap_or(i64::MAX);
            Ok(before.saturating_add(tally.files()))
        })?;
        Ok(window.judge(now, self.guard.limits))
    }

    /// Remembers what was judged, for the batch that builds on `tip`; absent if this one made no commit.
    pub fn remember(self, tip: Option<Oid>) {
        if let Some(tip) = tip.or(self.parent) {
            self.guard.memory.put(Remembered { tip, roots: self.roots });
        }
    }

    /// Whether a loss means a branch of its own.
    pub fn quarantines(&self) -> bool {
        self.guard.limits.policy == MassChangePolicy::Quarantine
    }
}

/// Moves the protected branch forward to the tip of the quarantine. Doing it again is harmless.
///
/// # Errors
/// [`Kind::RefMoved`] when the protected branch is not behind the quarantine, [`Kind::Git`] when that branch is gone.
pub fn approve(repository: &Repository, quarantine: &Quarantine, protected: &str) -> Result<Oid> {
    let place = repository.path().display();
    let Some(tip) = repository.reference(&quarantine.branch)? else {
        let text = format!("{} is gone from {place}: nothing can be approved", quarantine.branch);
        return Err(Error::new(Kind::Git, text));
    };
    let stands = repository.reference(protected)?;
    if stands == Some(tip) {
        return Ok(tip);
    }
    if let Some(stands) = stands
        && !repository.is_ancestor(stands, tip)?
    {
        let text = format!(
            "{protected} of {place} stands at {stands}, which {} does not lead on from: somebody moved it; nothing was \
             approved",
            quarantine.branch
        );
        return Err(Error::new(Kind::RefMoved, text));
    }
    refs::move_reference(repository, protected, stands, tip)?;
    fault::point("approve:branch-moved");
    Ok(tip)
}

/// Whether the protected branch has all of the quarantine: then somebody approved it, and died.
pub fn is_approved(repository: &Repository, quarantine: &Quarantine, protected: &str) -> Result<bool> {
    match (repository.reference(&quarantine.branch)?, repository.reference(protected)?) {
        (Some(tip), Some(stands)) => repository.is_ancestor(tip, stands),
        _ => Ok(false),
    }
}

/// The quarantine that stands open in the repository, where nothing is known of it any more because the database was lost.
pub fn reopen(
    repository: &Repository,
    instance: &str,
    protected: &str,
    roots: &[RootName],
    progress: &Progress,
) -> Result<Option<Quarantine>> {
    let Some(stands) = repository.reference(protected)? else { return Ok(None) };
    let own = format!("{}{instance}/", branch::PREFIX);
    let mut open = branch::open(repository, stands)?;
    open.retain(|(name, _)| name.strip_prefix(&own).is_some_and(|start| !start.contains('/')));
    let Some((name, tip)) = open.pop() else { return Ok(None) };
    let mut worst: Option<Seen> = None;
    for root in roots {
        progress.check()?;
        let (lost, of) = past::lost_between(repository, stands, tip, root)?;
        if worst.as_ref().is_none_or(|worst| worst.lost < lost) {
            let at_ms = repository.git().find_commit(tip).map_or(0, |commit| commit.time().seconds() * 1000);
            worst = Some(Seen { root: root.clone(), lost, of, at_ms });
        }
    }
    Ok(worst.map(|seen| Quarantine {
        branch: name,
        protected_branch: protected.to_owned(),
        protected: raw(stands),
        seen,
        rejected_ms: None,
    }))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
