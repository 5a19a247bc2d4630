//! Removes large contents here that every configured remote has.
//!
//! In: what lies here, and the remotes. Out: what was removed, and what stays and why. A content goes only if it has been here
//! for `lfs.keep_local` and every remote, asked now, says that it has it; that is written down before anything is removed,
//! so that its absence is understood. If any remote cannot be asked, or is known to have damaged contents, nothing goes.
//!
//! | killed | here | the next time |
//! |---|---|---|
//! | `lfs-prune:confirmed` | all contents, and a note that the remotes have them | asks again, removes them |
//! | `lfs-prune:removed` | some contents | asks about the others, removes them |

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::scrubs::Scrubbed;
use crate::audit::Event;
use crate::clock;
use crate::config::Remote;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::lfs::client::Client;
use crate::lfs::{ObjectId, Objects, Pointer};
use crate::names::RepositoryName;
use crate::progress::Progress;
use crate::store::Store;

/// What is to be pruned.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The repository.
    pub repository: &'r RepositoryName,
    /// Where it stands.
    pub path: &'r Path,
    /// All of its remotes.
    pub remotes: &'r [Remote],
    /// What every remote has stays here for so long.
    pub keep_local: Duration,
    /// The branch that is pushed, in full.
    pub branch: &'r str,
    /// What was found when the remotes were last scrubbed.
    pub scrubbed: &'r [Scrubbed],
    /// Say what would be done.
    pub dry_run: bool,
}

/// Contents and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Contents.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds one.
    pub fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn of(pointers: &[Pointer]) -> Self {
        let mut amount = Self::default();
        pointers.iter().for_each(|pointer| amount.add(pointer.size));
        amount
    }
}

/// Contents that stay here, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// In words.
    pub why: String,
    /// How many.
    #[serde(flatten)]
    pub amount: Amount,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Nothing was removed: this is what would be.
    pub dry_run: bool,
    /// What was removed.
    #[serde(flatten)]
    pub removed: Amount,
    /// What stays.
    pub kept: Vec<Kept>,
}

impl Pruned {
    /// What the audit log says of it.
    pub fn deed(&self, repository: &str) -> Event {
        let event = Event::new("lfs prune", "ok").in_repository(repository);
        event.with("objects", self.removed.objects).with("bytes", self.removed.bytes)
    }

    fn keep(&mut self, pointers: &[Pointer], why: String) {
        if !pointers.is_empty() {
            self.kept.push(Kept { why, amount: Amount::of(pointers) });
        }
    }
}

/// Prunes.
///
/// # Errors
/// Of what is here, and cancellation. A remote that cannot be asked is among the reasons to keep.
pub fn prune(request: &Request<'_>, store: &Store, progress: &Progress) -> Result<Pruned> {
    let objects = Objects::of(request.path);
    let mut pruned = Pruned { dry_run: request.dry_run, ..Pruned::default() };
    let (mut old, mut young) = (Vec::new(), Vec::new());
    for pointer in objects.list()? {
        progress.check()?;
        match is_old(&objects, &pointer.id, request.keep_local)? {
            true => old.push(pointer),
            false => young.push(pointer),
        }
    }
    old.sort_unstable();
    pruned.keep(&young, "not here for as long as lfs.keep_local says".to_owned());
    if request.remotes.is_empty() {
        pruned.keep(&old, "no remote is configured, so they are nowhere else".to_owned());
        return Ok(pruned);
    }
    if let Some(bad) = request.scrubbed.iter().find(|it| it.is_bad() && it.speaks_of(request.remotes)) {
        pruned.keep(&old, format!("{} is known to lack or to have damaged large contents", bad.place()));
        return Ok(pruned);
    }
    for remote in request.remotes {
        if old.is_empty() {
            return Ok(pruned);
        }
        old = there(request, remote, &old, &mut pruned, progress)?;
    }
    if request.dry_run {
        pruned.removed = Amount::of(&old);
        return Ok(pruned);
    }
    for remote in request.remotes {
        store.large(request.repository, &remote.name).confirm(&old, clock::now_ms())?;
    }
    fault::point("lfs-prune:confirmed");
    for pointer in &old {
        progress.check()?;
        // It may have been stored anew meanwhile.
        if !is_old(&objects, &pointer.id, request.keep_local)? {
            continue;
        }
        objects.remove(&pointer.id)?;
        pruned.removed.add(pointer.size);
        progress.tick();
        fault::point("lfs-prune:removed");
    }
    Ok(pruned)
}

/// Those of `pointers` that the remote has; of the others it is said why they stay.
fn there(
    request: &Request<'_>,
    remote: &Remote,
    pointers: &[Pointer],
    pruned: &mut Pruned,
    progress: &Progress,
) -> Result<Vec<Pointer>> {
    let asked = Client::connect(remote, request.path, progress)
        .map(|client| client.for_reference(request.branch))
        .and_then(|client| client.missing(pointers, progress));
    let presence = match asked {
        Ok(presence) => presence,
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        Err(error) => {
            pruned.keep(pointers, format!("remote {} cannot be asked: {error}", remote.name));
            return Ok(Vec::new());
        }
    };
    let unsure: Vec<Pointer> = presence.unsure.iter().map(|(pointer, _)| *pointer).collect();
    let without: BTreeSet<ObjectId> = presence.missing.iter().chain(&unsure).map(|it| it.id).collect();
    let there: Vec<Pointer> = pointers.iter().copied().filter(|it| !without.contains(&it.id)).collect();
    if there.len() as u64 != presence.there {
        pruned.keep(pointers, format!("remote {} does not say of each whether it has it", remote.name));
        return Ok(Vec::new());
    }
    pruned.keep(&presence.missing, format!("remote {} does not have them", remote.name));
    if let Some((_, refusal)) = presence.unsure.first() {
        let why = format!("remote {} does not say whether it has them: {}", remote.name, refusal.error);
        pruned.keep(&unsure, why);
    }
    Ok(there)
}

/// Whether a content has been here for so long. One that is not here any more has not.
fn is_old(objects: &Objects, id: &ObjectId, keep_local: Duration) -> Result<bool> {
    let path = objects.path_of(id);
    let stored = match fs::symlink_metadata(&path).and_then(|found| found.modified()) {
        Ok(stored) => stored,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("look at", &path, error)),
    };
    // A time ahead of the clock proves nothing.
    Ok(SystemTime::now().duration_since(stored).is_ok_and(|age| age >= keep_local))
}

#[cfg(test)]
mod tests;
