//! A commit reaches a remote: without force, each object once, and believed only when it was read back.
//!
//! [`push`] compares the remote's branch with ours. Absent or an ancestor: the missing objects are sent, the
//! branch is moved from exactly the value that was seen, and read back. Anything else means that somebody
//! else wrote there or took something away: nothing on that branch is touched, the work goes to a rescue
//! branch of its own, and the outcome says so.
//!
//! What a commit says is encrypted is looked at before anything is sent (`clear_text`).
//!
//! Large contents ([`large`]) are at the remote, and confirmed there, before the branch moves to a commit that needs them.
//!
//! The push set is what is reachable from our commit and not from the advertised tips that we hold
//! ([`crate::git::reachable`]), and what the remote should have of these and has lost.

mod clear_text;
pub mod courier;
pub mod delivery;
pub mod large;
pub mod probe;
mod slices;
pub mod tally;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use git2::Oid;

use self::large::{Brought, LargeDelivery, Withheld};
use crate::error::{Error, Kind, Result};
use crate::git::repository::Repository;
use crate::guard;
use crate::lfs::Pointer;
use crate::progress::Progress;
use crate::transport::{ReferenceUpdate, Sent, Transport};

/// What is to be pushed.
#[derive(Debug, Clone)]
pub struct Request<'r> {
    /// The branch, in full, here and there.
    pub branch: &'r str,
    /// Our commit.
    pub commit: Oid,
    /// While commits go to a quarantine: the branch that is protected, in full, and where it stands here. It is brought
    /// there besides, so that what came before the quarantine is on it at the remote too.
    pub protected: Option<(&'r str, Oid)>,
    /// The commit that was last read back from the remote's branch.
    pub confirmed: Option<Oid>,
    /// The rescue branch in use while the remote is halted. A cause that has vanished ends the halt.
    pub rescue_branch: Option<&'r str>,
    /// The name of the rescue branch, should this push find a reason to halt.
    pub new_rescue_branch: &'r str,
    /// Commits in clear text may not be sent.
    pub refuses_clear_history: bool,
}

/// Why a remote's branch must not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltReason {
    /// It holds commits that are not in our history.
    Diverged,
    /// It went back behind what we had confirmed there.
    Rewound,
}

impl HaltReason {
    /// The word used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            HaltReason::Diverged => "diverged",
            HaltReason::Rewound => "rewound",
        }
    }
}

/// How a push ended.
#[derive(Debug)]
pub enum Outcome {
    /// The branch was read back and is our commit.
    Confirmed(Sent),
    /// The same, but the remote does not have these large contents, which the commit needs.
    Incomplete(Sent, Vec<Withheld>),
    /// The branch must not be written; the work went to the rescue branch, or could not.
    Halted {
        /// Why.
        reason: HaltReason,
        /// Which branch there, in full.
        branch: String,
        /// Where the remote's branch stands; absent if it is gone.
        remote_tip: Option<Oid>,
        /// What was sent to the rescue branch and read back there.
        rescued: Result<Sent>,
    },
}

/// Brings a remote up to our commit.
///
/// # Errors
/// Whatever the transport says; [`Kind::RefMoved`] when somebody else pushed in the same moment, which a
/// second try sorts out.
pub fn push(
    source: &Repository,
    transport: &mut dyn Transport,
    large: Option<&mut dyn LargeDelivery>,
    request: &Request<'_>,
    progress: &Progress,
) -> Result<Outcome> {
    let advertised = transport.advertise()?;
    check_name(&advertised.references, request.branch)?;
    let remote_tip = advertised.references.get(request.branch).copied();
    let halt = match remote_tip {
        Some(tip) if !source.is_ancestor(tip, request.commit)? => {
            // With a hole in our own history everybody else's would look like a stranger's.
            source.check_history(request.commit)?;
            Some(HaltReason::Diverged)
        }
        Some(tip)
            if went_back(source, request.confirmed, tip)?
                && !stands_on_another(source, &advertised.references, request)? =>
        {
            Some(HaltReason::Rewound)
        }
        _ => None,
    };
    let mut halt = halt.map(|reason| (reason, request.branch, remote_tip));
    let mut beside = Vec::new();
    if let Some((branch, commit)) = request.protected {
        check_name(&advertised.references, branch)?;
        let stands = advertised.references.get(branch).copied();
        match stands {
            Some(tip) if tip == commit => {}
            Some(tip) if !source.is_ancestor(tip, commit)? => {
                source.check_history(commit)?;
                halt = halt.or(Some((HaltReason::Diverged, branch, stands)));
            }
            _ => beside.push(ReferenceUpdate { name: branch.to_owned(), expected: stands, new: commit }),
        }
    }
    let there = advertised.references.values().chain(&advertised.haves).copied();
    let tips: BTreeSet<Oid> = there.filter(|tip| source.has_commit(*tip)).collect();
    let tips: Vec<Oid> = tips.into_iter().collect();
    clear_text::check(source, request.commit, &tips, request.refuses_clear_history, progress)?;
    let lost = transport.lost(source, &tips, progress)?;
    let mut luggage =
        Luggage { large: large.filter(|_| large::has_any(source)), brought: Brought::default() };
    let mut sending =
        Sending { source, commit: request.commit, tips: &tips, lost: &lost, luggage: &mut luggage };
    let stands = [Some(request.branch), request.protected.map(|(branch, _)| branch)].into_iter().flatten();
    let stands = stands.filter_map(|branch| advertised.references.get(branch).copied()).collect();
    sending.bring_what_was_left(&stands, request.confirmed, progress)?;
    if let Some((reason, branch, remote_tip)) = halt {
        let name = request.rescue_branch.unwrap_or(request.new_rescue_branch);
        let expected = advertised.references.get(name).copied();
        let updates = (expected != Some(request.commit)).then_some(expected);
        let rescued = sending.to(transport, name, updates, Vec::new(), progress);
        return Ok(Outcome::Halted { reason, branch: branch.to_owned(), remote_tip, rescued });
    }
    beside.extend(missing_tags(source, &advertised.references, request.commit)?);
    // A branch that stands there already may have been moved by a push of ours that died, or whose sync failed: it
    // counts as pushed only after it was written durably.
    let is_durable = remote_tip == Some(request.commit) && request.confirmed == Some(request.commit);
    let update = (!is_durable).then_some(remote_tip);
    let sent = sending.to(transport, request.branch, update, beside, progress)?;
    let brought = luggage.brought;
    let sent = Sent { large: brought.sent, bytes: sent.bytes.saturating_add(brought.bytes), ..sent };
    Ok(match brought.withheld.is_empty() {
        true => Outcome::Confirmed(sent),
        false => Outcome::Incomplete(sent, brought.withheld),
    })
}

/// Who brings large contents, and what came of it so far.
struct Luggage<'l> {
    large: Option<&'l mut dyn LargeDelivery>,
    brought: Brought,
}

/// Whether `tip` lies strictly behind what we once read back there.
fn went_back(source: &Repository, confirmed: Option<Oid>, tip: Oid) -> Result<bool> {
    match confirmed {
        Some(confirmed) if confirmed != tip => source.is_ancestor(tip, confirmed),
        _ => Ok(false),
    }
}

/// Whether the remote has what we confirmed on another branch of ours: the branch's name depends on the date, and
/// the date went back; or it was a quarantine, which was approved.
fn stands_on_another(
    source: &Repository,
    advertised: &BTreeMap<String, Oid>,
    request: &Request<'_>,
) -> Result<bool> {
    let Some(confirmed) = request.confirmed else { return Ok(false) };
    for (name, target) in advertised {
        let is_another = name.starts_with("refs/heads/")
            && (!name.starts_with("refs/heads/backupbot/") || name.starts_with(guard::branch::PREFIX))
            && name != request.branch;
        if is_another && source.reference(name)?.is_some() && source.is_ancestor(confirmed, *target)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a push takes to the remote, whatever it is called there.
struct Sending<'s, 'l> {
    source: &'s Repository,
    commit: Oid,
    /// Advertised there and held here.
    tips: &'s [Oid],
    /// What the remote should have and cannot read.
    lost: &'s [Oid],
    luggage: &'s mut Luggage<'l>,
}

impl Sending<'_, '_> {
    /// Brings the large contents that commits need which the remote has already: the last push may have died behind
    /// moving the branch, or some were refused then, or nothing is known of the remote. `stands` is where our branches are
    /// there: of tags and other people's branches there may be thousands.
    fn bring_what_was_left(
        &mut self,
        stands: &BTreeSet<Oid>,
        confirmed: Option<Oid>,
        progress: &Progress,
    ) -> Result<()> {
        if self.luggage.large.is_none() {
            return Ok(());
        }
        let mut left = BTreeSet::new();
        for tip in stands {
            let is_ours = Some(*tip) != confirmed && self.source.has_commit(*tip);
            if is_ours && self.source.is_ancestor(*tip, self.commit)? {
                let have = confirmed.as_slice();
                left.extend(large::pointers_between(self.source, *tip, have, progress)?);
            }
        }
        self.bring(&left.into_iter().collect::<Vec<_>>(), progress)
    }

    /// Brings what these objects point at.
    fn bring_for(&mut self, objects: &[Oid], progress: &Progress) -> Result<()> {
        if self.luggage.large.is_none() {
            return Ok(());
        }
        self.bring(&large::pointers_in(self.source, objects, progress)?, progress)
    }

    fn bring(&mut self, wanted: &[Pointer], progress: &Progress) -> Result<()> {
        if let Some(large) = &mut self.luggage.large
            && !wanted.is_empty()
        {
            let brought = large.bring(wanted, progress)?;
            self.luggage.brought.add(brought);
        }
        Ok(())
    }

    /// Sends what is missing, moves `name` from where it was seen (`update`; absent: it stays) and reads it back.
    fn to(
        &mut self,
        transport: &mut dyn Transport,
        name: &str,
        update: Option<Option<Oid>>,
        mut updates: Vec<ReferenceUpdate>,
        progress: &Progress,
    ) -> Result<Sent> {
        if let Some(expected) = update {
            updates.insert(0, ReferenceUpdate { name: name.to_owned(), expected, new: self.commit });
        }
        let mut sent = Sent::default();
        let wanted: Vec<(String, Oid)> =
            updates.iter().filter(|update| update.name != name).map(|it| (it.name.clone(), it.new)).collect();
        if !updates.is_empty() || !self.lost.is_empty() {
            let stands = update.is_some().then_some(name);
            sent = slices::send(self, transport, stands, updates, progress)?;
            sent.restored = self.lost.len() as u64;
        }
        let references = transport.advertise()?.references;
        let wanted = std::iter::once((name.to_owned(), self.commit)).chain(wanted);
        for (name, commit) in wanted.filter(|(name, _)| name.starts_with("refs/heads/")) {
            let seen = references.get(&name).copied();
            if seen == Some(commit) {
                continue;
            }
            let text = format!(
                "the remote took the push, but its {name} was read back as {}",
                seen.map_or_else(|| "absent".to_owned(), |oid| oid.to_string())
            );
            return Err(Error::new(Kind::RefMoved, text));
        }
        Ok(sent)
    }
}

/// Git keeps references in directories: one called `a` and one called `a/b` cannot both be.
fn check_name(references: &BTreeMap<String, Oid>, branch: &str) -> Result<()> {
    let below = format!("{branch}/");
    let in_it = references
        .range(below.clone()..)
        .next()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with(&below));
    let mut above = branch.rmatch_indices('/').map(|(at, _)| &branch[..at]);
    let is_one = above.find(|name| references.contains_key(*name));
    let Some(other) = in_it.map(String::as_str).or(is_one) else { return Ok(()) };
    let text = format!(
        "the remote has {}, beside which there can be no {branch}: delete it there, or configure another branch",
        crate::path::lossy(other.as_bytes())
    );
    Err(Error::new(Kind::RemoteRefused, text))
}

/// Our tags in the pushed history that the remote does not have.
fn missing_tags(
    source: &Repository,
    advertised: &BTreeMap<String, Oid>,
    commit: Oid,
) -> Result<Vec<ReferenceUpdate>> {
    let mut missing = Vec::new();
    for (name, target) in source.references()? {
        let ours = name.starts_with("refs/tags/") && !advertised.contains_key(&name);
        if ours && source.is_ancestor(target, commit)? {
            missing.push(ReferenceUpdate { name, expected: None, new: target });
        }
    }
    Ok(missing)
}
