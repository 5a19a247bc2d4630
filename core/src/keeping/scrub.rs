//! Looks whether the large contents of a repository are still where they should be, and whole.
//!
//! In: a repository, one of its remotes or what is here, how much is to be read. Out: what was found and put right
//! ([`Scrubbed`]). A remote is asked for everything that the commit last read back there needs; what it has lost is brought
//! again from here or from another remote. Then some of it is read and hashed, what was read longest ago first, so that in time
//! everything was. What is damaged in a directory is replaced; a server that has an object takes no other one, so there it is
//! told, and a good copy is kept here. What is damaged here is replaced from a remote.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use git2::Oid;

use super::census::{Census, Found};
use super::scrubs::Scrubbed;
use crate::clock::{self, Moment};
use crate::config::Remote;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::repository::Repository;
use crate::lfs::client::{Client, Reason};
use crate::lfs::fetched::Passing;
use crate::lfs::{ObjectId, Objects, Pointer};
use crate::names::RepositoryName;
use crate::progress::Progress;
use crate::push::courier::{Courier, Refusals};
use crate::push::large::{LargeDelivery, Withheld};
use crate::store::{LargeStore, Store};
use crate::transport::Notes;
use crate::verify::{Sample, draw_seed};

/// So many findings have their names in the result.
const NAMED: usize = 20;
/// So many damaged contents are read again the next time.
const MOST_SUSPECTS: usize = 1000;
/// One million is everything.
const WHOLE: u64 = 1_000_000;

/// What is to be looked at.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// The repository.
    pub name: &'r RepositoryName,
    /// Our bare repository.
    pub repository: &'r Repository,
    /// All of its remotes: they may have what is not here.
    pub remotes: &'r [Remote],
    /// The branch that is pushed, in full.
    pub branch: &'r str,
    /// How much is read.
    pub read: Sample,
    /// And no more bytes than that, but for one content.
    pub read_at_most: u64,
    /// What came of it the last time.
    pub former: Option<&'r Scrubbed>,
}

impl Request<'_> {
    fn begin(&self, remote: Option<&Remote>) -> Scrubbed {
        let remote = remote.map(|remote| remote.name.as_str());
        Scrubbed::begin(self.name.as_str(), remote, &self.read.to_string())
    }

    fn path(&self) -> &Path {
        self.repository.path()
    }

    fn suspects(&self) -> BTreeSet<ObjectId> {
        let former = self.former.into_iter().flat_map(|former| &former.suspects);
        former.filter_map(|text| text.parse().ok()).collect()
    }

    /// How many of `all` are read.
    fn share_of(&self, all: usize) -> usize {
        let all = all as u64;
        let wanted = match self.read {
            Sample::Whole => all,
            Sample::Share(share) => all.saturating_mul(u64::from(share)).div_ceil(WHOLE),
            Sample::Files(files) => u64::from(files),
        };
        usize::try_from(wanted.min(all)).unwrap_or(usize::MAX)
    }
}

/// What is to be read: suspects first, then the others in their order, as many as there should be, as far as the bytes go.
fn chosen(request: &Request<'_>, mut all: Vec<Pointer>) -> (Vec<Pointer>, Vec<Pointer>) {
    let suspects = request.suspects();
    let count = request.share_of(all.len());
    all.sort_by_key(|pointer| !suspects.contains(&pointer.id));
    let known = all.iter().take_while(|pointer| suspects.contains(&pointer.id)).count();
    all.truncate(count.max(known));
    let mut left = request.read_at_most;
    let mut taken = Vec::new();
    let mut passed_over = Vec::new();
    for pointer in all {
        if taken.is_empty() || pointer.size <= left {
            left = left.saturating_sub(pointer.size);
            taken.push(pointer);
        } else if suspects.contains(&pointer.id) {
            passed_over.push(pointer);
        }
    }
    (taken, passed_over)
}

fn tell(scrubbed: &mut Scrubbed, found: Option<&Found>, pointer: &Pointer, why: &str) {
    if scrubbed.named.len() < NAMED {
        let name = found.map_or_else(|| "in no snapshot".to_owned(), Found::shown);
        scrubbed.named.push(format!(
            "{name} ({} bytes, object {}): {why}",
            pointer.size,
            &pointer.id.to_string()[..12]
        ));
    }
}

/// Nothing could be found out about a content. What was damaged is taken for damaged still.
fn is_unsure(
    request: &Request<'_>,
    scrubbed: &mut Scrubbed,
    found: Option<&Found>,
    pointer: &Pointer,
    why: &str,
) {
    tell(scrubbed, found, pointer, why);
    match request.suspects().contains(&pointer.id) {
        true => is_damaged(scrubbed, pointer),
        false => scrubbed.unsure += 1,
    }
}

fn is_damaged(scrubbed: &mut Scrubbed, pointer: &Pointer) {
    scrubbed.damaged += 1;
    if scrubbed.suspects.len() < MOST_SUSPECTS {
        scrubbed.suspects.push(pointer.id.to_string());
    }
}

/// Looks at one remote. `confirmed` is the commit that was last read back there.
///
/// # Errors
/// When it cannot be found out: nobody answers, no room for what is on its way, our own repository; and cancellation.
pub fn remote(
    request: &Request<'_>,
    remote: &Remote,
    confirmed: Oid,
    store: &Store,
    progress: &Progress,
) -> Result<Scrubbed> {
    let census = Census::of(request.repository, &[confirmed], progress)?;
    let (pointers, known) = (census.pointers(), store.large(request.name, &remote.name));
    let mut scrubbed = request.begin(Some(remote));
    scrubbed.asked = pointers.len() as u64;
    scrubbed.bytes = pointers.iter().fold(0, |sum, pointer| pointer.size.saturating_add(sum));
    if pointers.is_empty() {
        return Ok(scrubbed);
    }
    let client = Client::connect(remote, request.path(), progress)?.for_reference(request.branch);
    let presence = client.missing(&pointers, progress)?;
    for (pointer, refusal) in &presence.unsure {
        let why = refusal.error.to_string();
        is_unsure(request, &mut scrubbed, census.get(&pointer.id), pointer, &why);
    }
    let unsure = presence.unsure.iter().map(|(pointer, _)| pointer);
    let without: BTreeSet<ObjectId> = presence.missing.iter().chain(unsure).map(|it| it.id).collect();
    let there: Vec<Pointer> = pointers.into_iter().filter(|it| !without.contains(&it.id)).collect();
    known.confirm(&there, clock::now_ms())?;
    let place = Place { request, remote, client: &client, known: &known, census: &census };
    place.bring_again(&presence.missing, &mut scrubbed, progress)?;
    match place.read_some(there, store, &mut scrubbed, progress) {
        // What was found until then is told.
        Err(error) if error.kind() != Kind::Cancelled && scrubbed.failures() > 0 => {
            scrubbed.unsure += 1;
            scrubbed.named.push(format!("the rest could not be read: {error}"));
        }
        outcome => outcome?,
    }
    scrubbed.at = Moment::now();
    Ok(scrubbed)
}

struct Place<'p> {
    request: &'p Request<'p>,
    remote: &'p Remote,
    client: &'p Client,
    known: &'p LargeStore,
    census: &'p Census,
}

impl Place<'_> {
    fn bring_again(&self, missing: &[Pointer], scrubbed: &mut Scrubbed, progress: &Progress) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let ids: Vec<ObjectId> = missing.iter().map(|pointer| pointer.id).collect();
        self.known.forget(&ids)?;
        fault::point("lfs-scrub:forgotten");
        let mut courier = Courier {
            remote: self.remote,
            remotes: self.request.remotes,
            repository: self.request.path(),
            branch: self.request.branch,
            known: self.known,
            refusals: &Refusals::default(),
            now_ms: clock::now_ms(),
            notes: Notes::default(),
        };
        let brought = courier.bring(missing, progress)?;
        scrubbed.lost += brought.withheld.len() as u64;
        scrubbed.brought += (missing.len() as u64).saturating_sub(brought.withheld.len() as u64);
        for Withheld { pointer, why, .. } in &brought.withheld {
            let why = format!("the remote has lost it, and it could not be brought again: {why}");
            tell(scrubbed, self.census.get(&pointer.id), pointer, &why);
        }
        Ok(())
    }

    fn read_some(
        &self,
        mut there: Vec<Pointer>,
        store: &Store,
        scrubbed: &mut Scrubbed,
        progress: &Progress,
    ) -> Result<()> {
        // What was read longest ago, or never, comes first.
        let reader = store.reader();
        let mut read_ms = std::collections::HashMap::new();
        reader.each_large(self.request.name, &self.remote.name, &mut |id, row| {
            if let Some(at_ms) = row.read_ms {
                read_ms.insert(id, at_ms);
            }
        })?;
        there.sort_by_key(|pointer| (read_ms.get(&pointer.id).copied(), pointer.id));
        let (chosen, passed_over) = chosen(self.request, there);
        for pointer in passed_over {
            tell(scrubbed, self.census.get(&pointer.id), &pointer, "it was damaged, and was not read again");
            is_damaged(scrubbed, &pointer);
        }
        let passing = Passing::of(self.request.path())?;
        for pointer in chosen {
            progress.check()?;
            let examined = self.client.examine(&pointer, &passing.objects(), progress);
            let examined = match examined {
                Err(error) if error.kind() == Kind::DiskFull => {
                    is_unsure(
                        self.request,
                        scrubbed,
                        self.census.get(&pointer.id),
                        &pointer,
                        &error.to_string(),
                    );
                    continue;
                }
                examined => examined?,
            };
            let Some(refusal) = examined else {
                self.known.confirm_read(&[pointer], clock::now_ms())?;
                scrubbed.read += 1;
                scrubbed.read_bytes = scrubbed.read_bytes.saturating_add(pointer.size);
                continue;
            };
            let mut why = refusal.error.to_string();
            match refusal.reason {
                Reason::Damaged | Reason::Missing => {}
                _ => {
                    is_unsure(self.request, scrubbed, self.census.get(&pointer.id), &pointer, &why);
                    continue;
                }
            }
            let is_here = make_sound(self.request, Some(self.remote), &pointer, &passing, progress)?;
            let own = Objects::of(self.request.path());
            if is_here && self.client.replace(&pointer, &own, progress)? {
                fault::point("lfs-scrub:replaced");
                self.known.confirm_read(&[pointer], clock::now_ms())?;
                scrubbed.replaced += 1;
                continue;
            }
            why.push_str(match is_here {
                true => "; a good copy is here, and this server takes none in its place: remove the object there, and it is \
                         brought again",
                false => "; there is no good copy here nor at another remote: if the file is still there, `touch` it",
            });
            tell(scrubbed, self.census.get(&pointer.id), &pointer, &why);
            is_damaged(scrubbed, &pointer);
        }
        Ok(())
    }
}

/// Sees to it that a good copy of a content is here, from any remote but `except`; whether there is one now.
fn make_sound(
    request: &Request<'_>,
    except: Option<&Remote>,
    pointer: &Pointer,
    passing: &Passing,
    progress: &Progress,
) -> Result<bool> {
    let own = Objects::of(request.path());
    match own.is_sound(pointer, progress) {
        Ok(Some(true)) => return Ok(true),
        Err(error) if error.kind() != Kind::Io => return Err(error),
        _ => {}
    }
    let fetched = passing.objects();
    for remote in request.remotes.iter().filter(|it| except.is_none_or(|except| except.name != it.name)) {
        let downloaded = Client::connect(remote, request.path(), progress)
            .and_then(|client| client.download(&[*pointer], &fetched, progress));
        match downloaded {
            Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::DiskFull) => return Err(error),
            // One that cannot be reached has nothing for us now.
            _ => {}
        }
        if fetched.has(pointer)? {
            own.take_over(&fetched, &pointer.id)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks at what is here: some of it is read and hashed, drawn by lot.
///
/// # Errors
/// When it cannot be read, and cancellation.
pub fn here(request: &Request<'_>, progress: &Progress) -> Result<Scrubbed> {
    let own = Objects::of(request.path());
    let mut all = own.list()?;
    let mut scrubbed = request.begin(None);
    scrubbed.asked = all.len() as u64;
    scrubbed.bytes = all.iter().fold(0, |sum, pointer| pointer.size.saturating_add(sum));
    if all.is_empty() {
        return Ok(scrubbed);
    }
    all.sort_unstable();
    let first = usize::try_from(draw_seed()?).unwrap_or_default() % all.len();
    all.rotate_left(first);
    let (chosen, passed_over) = chosen(request, all);
    let mut damaged = passed_over;
    for pointer in chosen {
        progress.check()?;
        match own.is_sound(&pointer, progress) {
            Ok(Some(true)) => {
                scrubbed.read += 1;
                scrubbed.read_bytes = scrubbed.read_bytes.saturating_add(pointer.size);
            }
            // Pruned meanwhile.
            Ok(None) => {}
            Ok(Some(false)) => damaged.push(pointer),
            Err(error) if error.kind() == Kind::Io => damaged.push(pointer),
            Err(error) => return Err(error),
        }
    }
    if !damaged.is_empty() {
        mend(request, &damaged, &mut scrubbed, progress)?;
    }
    scrubbed.at = Moment::now();
    Ok(scrubbed)
}

fn mend(
    request: &Request<'_>,
    damaged: &[Pointer],
    scrubbed: &mut Scrubbed,
    progress: &Progress,
) -> Result<()> {
    let census = Census::of_branches(request.repository, progress)?;
    let (own, passing) = (Objects::of(request.path()), Passing::of(request.path())?);
    for pointer in damaged {
        progress.check()?;
        let Some(found) = census.get(&pointer.id) else {
            // Nobody needs it, and under this name it would be taken for what it is not.
            own.remove(&pointer.id)?;
            continue;
        };
        let meant = Pointer { id: pointer.id, size: found.size };
        if make_sound(request, None, &meant, &passing, progress)? {
            scrubbed.replaced += 1;
            continue;
        }
        let why = "it is damaged here, and no remote has a good copy: if the file is still there, `touch` it, and it is \
                   stored again";
        tell(scrubbed, Some(found), &meant, why);
        is_damaged(scrubbed, &meant);
    }
    Ok(())
}

/// When a place is to be looked at again, after which pause, if it was last looked at so.
pub fn due_in(former: Option<&Scrubbed>, every: Duration, now: Moment) -> Duration {
    let Some(former) = former else { return Duration::ZERO };
    // One from a clock that was ahead proves nothing.
    if former.at > now {
        return Duration::ZERO;
    }
    every.saturating_sub(Duration::from_secs(now.seconds_since(former.at)))
}

/// The refusal where nothing was pushed yet.
pub fn nothing_there(remote: &Remote) -> Error {
    let text = format!("remote {} was never read back, so nothing is known to be there", remote.name);
    Error::new(Kind::Git, text)
}

#[cfg(test)]
mod tests;
