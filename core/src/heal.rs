//! A damaged or lost repository of our own is replaced, and its history goes on.
//!
//! The new one is built beside it and swapped in whole. Into it goes what can still be read of the old one, its large
//! contents too. The branch then continues from the most advanced commit that is complete: one that was known here (where the
//! branch stood, what the database remembers), or, where a remote is further or nothing here is complete, the
//! remote's, which is fetched. With neither, the history begins anew; a remote that turns out to have one is
//! then halted and the work goes to its rescue branch, as with every history that is not an ancestor of ours.
//! Nothing is forced, and the remotes' history stays as it is. Files whose commits were lost are on disk still:
//! the stat cache does not belong to this history, so everything is read and committed again.
//!
//! Killed at any moment, the next start finds the damaged repository in its place and begins again, or finds
//! none, and begins again with what was set aside last, or finds the new one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::Oid;

use crate::adopt::{self, Offer};
use crate::config::Remote;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::health::{self, Fault};
use crate::git::pack::PackSet;
use crate::git::prune;
use crate::git::refs;
use crate::git::repository::{self, Repository};
use crate::git::salvage::{self, Salvaged};
use crate::lfs::Objects;
use crate::names::{RemoteName, RootName};
use crate::progress::Progress;
use crate::quarantine;
use crate::snapshot::batch_of;
use crate::transport::{self, Transport};

/// Damaged repositories that are kept: each may be as large as the whole backup.
pub const KEPT: usize = 2;

/// The repository to be replaced, and what is known of it.
pub struct Patient<'p> {
    /// Where it is, or should be.
    pub path: &'p Path,
    /// What its configuration says of who made it.
    pub origin: &'p str,
    /// Whose unfinished repositories those of a killed run are.
    pub owner: &'p str,
    /// The branch, in full.
    pub branch: &'p str,
    /// Commits that the branch may have stood at, from the database.
    pub known: &'p [Oid],
    /// Where its history may be found.
    pub remotes: &'p [Remote],
    /// Who backs up.
    pub instance: &'p str,
    /// The roots of the repository.
    pub roots: &'p [RootName],
}

/// Where the history goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Continued {
    /// From what was still readable here.
    Here(Oid),
    /// From a remote.
    Remote(RemoteName, Oid),
    /// Nowhere: it begins anew.
    Nowhere,
}

/// What was done.
#[derive(Debug)]
pub struct Healed {
    /// Where the damaged one is now; absent if there was none.
    pub set_aside: Option<PathBuf>,
    /// What could be read of it.
    pub salvaged: Salvaged,
    /// Where the history goes on.
    pub continued: Continued,
    /// Remotes that could not be asked, and why.
    pub unasked: Vec<(RemoteName, Error)>,
}

/// Replaces the repository.
///
/// # Errors
/// Only for what is written here and for cancellation; the repository is then as it was.
pub fn heal(patient: &Patient<'_>, progress: &Progress) -> Result<Healed> {
    let is_there = patient.path.symlink_metadata().is_ok();
    if is_there {
        salvage::make_movable(patient.path);
    }
    let made = repository::make_beside(patient.path, patient.branch, patient.origin, patient.owner)?;
    // Killed between setting the old one aside and putting the new one in its place, we find it there.
    let source = if is_there {
        Some(patient.path.to_path_buf())
    } else {
        quarantine::earlier(patient.path).into_iter().next()
    };
    let salvaged = match &source {
        Some(source) => salvage::salvage_packs(source, &made, progress)?,
        None => Salvaged::default(),
    };
    // Large contents may be nowhere else.
    if let Some(source) = &source {
        Objects::of(&made).adopt(&Objects::of(source), progress)?;
    }
    let references = source.as_deref().map(salvage::readable_references).unwrap_or_default();
    let mut unasked = Vec::new();
    let continued = {
        let fresh = Repository::open(&made)?;
        let continued = choose(patient, &fresh, &references, &mut unasked, progress)?;
        if let Continued::Here(tip) | Continued::Remote(_, tip) = continued {
            refs::move_reference(&fresh, patient.branch, None, tip)?;
            restore_references(patient, &fresh, &references, tip)?;
        }
        // A commit with holes in it would be called damage the next time somebody looks.
        drop_the_rest(&fresh, progress)?;
        continued
    };
    fault::point("heal:made-not-swapped");
    let set_aside = if is_there { Some(quarantine::set_aside(patient.path, KEPT)?) } else { None };
    fault::point("heal:set-aside");
    repository::put_in_place(&made, patient.path)?;
    Ok(Healed { set_aside, salvaged, continued, unasked })
}

fn choose(
    patient: &Patient<'_>,
    fresh: &Repository,
    references: &[(String, Oid)],
    unasked: &mut Vec<(RemoteName, Error)>,
    progress: &Progress,
) -> Result<Continued> {
    let here = most_advanced_here(patient, fresh, references, progress)?;
    for offer in offers(patient, unasked, progress) {
        if let Some((tip, batch)) = here {
            // A tie goes to the remote: what it has must not be taken for somebody else's.
            // What the remote has may be here with holes in its history.
            let contains_it = fresh.is_ancestor(offer.tip, tip).unwrap_or(false);
            if contains_it || batch > offer.batch {
                return Ok(Continued::Here(tip));
            }
        }
        match fetch(patient, fresh, &offer, progress) {
            Ok(()) => return Ok(Continued::Remote(offer.remote, offer.tip)),
            Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::DiskFull | Kind::Limit) => {
                return Err(error);
            }
            Err(error) => unasked.push((offer.remote, error)),
        }
    }
    Ok(here.map_or(Continued::Nowhere, |(tip, _)| Continued::Here(tip)))
}

/// The most advanced commit here that is complete: of those that the branch may have stood at or, where none of
/// them is, of all.
fn most_advanced_here(
    patient: &Patient<'_>,
    fresh: &Repository,
    references: &[(String, Oid)],
    progress: &Progress,
) -> Result<Option<(Oid, u64)>> {
    let of_branch = references.iter().filter(|(name, _)| name == patient.branch).map(|(_, tip)| *tip);
    let mut candidates = Vec::new();
    for commit in of_branch.chain(patient.known.iter().copied()) {
        if fresh.has_commit(commit) {
            candidates.push((batch_of(fresh, commit)?, commit));
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    let packs = PackSet::open(&fresh.pack_directory())?;
    for (batch, commit) in candidates.into_iter().rev() {
        if is_complete(fresh, &packs, commit, &[], progress)? {
            return Ok(Some((commit, batch)));
        }
    }
    latest_of_all(fresh, &packs, progress)
}

/// Each commit is looked at after its parent, and only if that is complete: what it adds is all that is asked for.
fn latest_of_all(fresh: &Repository, packs: &PackSet, progress: &Progress) -> Result<Option<(Oid, u64)>> {
    let mut commits = Vec::new();
    for commit in salvage::commits_in(fresh.path(), progress)? {
        if let Ok(batch) = batch_of(fresh, commit) {
            commits.push((batch, commit));
        }
    }
    commits.sort_unstable();
    let mut done: HashSet<Oid> = HashSet::new();
    let mut latest = None;
    for (batch, commit) in commits {
        let Ok(found) = fresh.git().find_commit(commit) else { continue };
        let parents: Vec<Oid> = found.parent_ids().collect();
        if parents.iter().all(|parent| done.contains(parent))
            && is_complete(fresh, packs, commit, &parents, progress)?
        {
            done.insert(commit);
            latest = Some((commit, batch));
        }
    }
    Ok(latest)
}

fn is_complete(
    fresh: &Repository,
    packs: &PackSet,
    tip: Oid,
    have: &[Oid],
    progress: &Progress,
) -> Result<bool> {
    match health::complete(fresh, packs, tip, have, progress) {
        Ok(()) => Ok(true),
        Err(Fault::Damage(_)) => Ok(false),
        Err(Fault::System(error)) => Err(error),
    }
}

/// What the remotes offer that is ours, the most advanced first.
fn offers(patient: &Patient<'_>, unasked: &mut Vec<(RemoteName, Error)>, progress: &Progress) -> Vec<Offer> {
    let mut offers = Vec::new();
    // A push that began before the damage was met may still be under way there.
    let asked = adopt::ask_all(patient.remotes, |remote| {
        let mut transport = connect(patient, remote, progress)?;
        adopt::ask(&remote.name, transport.as_mut(), patient.branch, patient.instance, patient.roots)
    });
    for (name, answer) in asked {
        match answer {
            Ok(offer) => offers.extend(offer.filter(|offer| offer.ours)),
            Err(error) => unasked.push((name, error)),
        }
    }
    offers.sort_by_key(|offer| std::cmp::Reverse(offer.batch));
    offers
}

fn fetch(patient: &Patient<'_>, fresh: &Repository, offer: &Offer, progress: &Progress) -> Result<()> {
    let packs = PackSet::open(&fresh.pack_directory())?;
    if fresh.has_commit(offer.tip) && health::complete(fresh, &packs, offer.tip, &[], progress).is_ok() {
        return Ok(());
    }
    let Some(remote) = patient.remotes.iter().find(|remote| remote.name == offer.remote) else {
        return Err(Error::new(Kind::Internal, "an offer of a remote that is not configured"));
    };
    let connected = transport::connect_to_fetch(remote, patient.path, progress)?;
    is_there(connected, remote)?.fetch(fresh, offer.tip, progress)
}

fn connect(patient: &Patient<'_>, remote: &Remote, progress: &Progress) -> Result<Box<dyn Transport>> {
    is_there(transport::connect_to_read(remote, patient.path, progress)?, remote)
}

fn is_there(connected: Option<Box<dyn Transport>>, remote: &Remote) -> Result<Box<dyn Transport>> {
    connected.ok_or_else(|| Error::new(Kind::RemoteUnreachable, format!("{} is not there", remote.url)))
}

fn drop_the_rest(fresh: &Repository, progress: &Progress) -> Result<()> {
    let policy = prune::Policy { grace: Duration::ZERO, ..prune::Policy::default() };
    if let Some(prepared) = prune::prepare(fresh, &[], &policy, SystemTime::now(), progress)? {
        prepared.finish(fresh, &[], progress)?;
    }
    Ok(())
}

/// Tags and earlier branches come along where they are in the history that goes on.
fn restore_references(
    patient: &Patient<'_>,
    fresh: &Repository,
    references: &[(String, Oid)],
    tip: Oid,
) -> Result<()> {
    for (name, target) in references {
        if name != patient.branch && fresh.is_ancestor(*target, tip).unwrap_or(false) {
            match refs::move_reference(fresh, name, None, *target) {
                // Names that exclude each other: nothing that is needed to go on.
                Err(error) if matches!(error.kind(), Kind::DiskFull | Kind::Limit) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

impl Healed {
    /// What happened and what to do, for the operator.
    pub fn in_words(&self, path: &Path, reason: &str) -> String {
        let place = crate::path::lossy(path.as_os_str().as_encoded_bytes());
        let aside = self.set_aside.as_ref().map_or_else(String::new, |aside| {
            format!("; it is set aside as {}", crate::path::lossy(aside.as_os_str().as_encoded_bytes()))
        });
        let history = match &self.continued {
            Continued::Here(tip) => format!("its history goes on from {tip}, which is complete"),
            Continued::Remote(remote, tip) => {
                format!("its history goes on from {tip}, fetched from the remote {remote}")
            }
            Continued::Nowhere => {
                let lost = "nothing of its history could be read here or fetched, so a new one begins; a remote that \
                            still has the old one is halted, keeps it, and gets the backup in a rescue branch";
                lost.to_owned()
            }
        };
        let unasked: Vec<String> = self
            .unasked
            .iter()
            .map(|(remote, error)| format!("; remote {remote} could not help: {error}"))
            .collect();
        format!(
            "the repository {place} was damaged or lost ({reason}){aside}; {history}; everything is read again and \
             what was not yet pushed is committed anew{}. Check the disk, for example with `smartctl` and `fsck`",
            unasked.concat()
        )
    }
}

#[cfg(test)]
mod tests;
