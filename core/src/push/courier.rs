//! Brings large contents to one remote: what is not here any more is fetched from another remote first.
//!
//! In: what a push needs there. Out: what the remote confirmed, kept in the database, and what it does not have, with the
//! reason. What a remote refused for good is not offered to it again for an hour, because a push comes every minute.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::large::{Brought, LargeDelivery, Withheld};
use crate::config::Remote;
use crate::error::{Error, Kind, Result};
use crate::lfs::client::{Client, Reason, Refusal, Uploaded};
use crate::lfs::{ObjectId, Objects, Pointer};
use crate::progress::Progress;
use crate::store::LargeStore;
use crate::transport::Notes;

/// How long a refusal is believed.
const RESTS: Duration = Duration::from_secs(3600);
/// Refusals that are remembered; further ones are met again.
const MOST_RESTING: usize = 10_000;

/// What a remote refused lately. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<HashMap<ObjectId, Refused>>>);

/// One of them.
#[derive(Debug, Clone)]
struct Refused {
    at: Instant,
    kind: Kind,
    why: String,
}

impl Refusals {
    /// Forgets them: somebody has mended something, or wants to know.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn of(&self, pointer: &Pointer) -> Option<Withheld> {
        let known = self.lock();
        let refused = known.get(&pointer.id).filter(|refused| refused.at.elapsed() < RESTS)?;
        Some(Withheld { pointer: *pointer, kind: refused.kind, why: refused.why.clone() })
    }

    fn note(&self, withheld: &Withheld) {
        let is_final = matches!(withheld.kind, Kind::TooLarge | Kind::Quota | Kind::RemoteRefused);
        let mut known = self.lock();
        if is_final && known.len() < MOST_RESTING {
            let refused = Refused { at: Instant::now(), kind: withheld.kind, why: withheld.why.clone() };
            known.insert(withheld.pointer.id, refused);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way for large contents to one remote.
pub struct Courier<'c> {
    /// The remote.
    pub remote: &'c Remote,
    /// All remotes of the repository: they may have what is not here.
    pub remotes: &'c [Remote],
    /// Our bare repository.
    pub repository: &'c Path,
    /// The branch that is pushed, in full.
    pub branch: &'c str,
    /// Where it is kept what the remote has.
    pub known: &'c LargeStore,
    /// What it refused lately.
    pub refusals: &'c Refusals,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// What was noticed on the way.
    pub notes: Notes,
}

impl LargeDelivery for Courier<'_> {
    fn bring(&mut self, wanted: &[Pointer], progress: &Progress) -> Result<Brought> {
        let objects = Objects::of(self.repository);
        let mut brought = Brought::default();
        let mut offered = Vec::new();
        for pointer in wanted {
            match self.refusals.of(pointer) {
                Some(withheld) => brought.withheld.push(withheld),
                None => offered.push(*pointer),
            }
        }
        if offered.is_empty() {
            return Ok(brought);
        }
        let client = Client::connect(self.remote, self.repository, progress)?.for_reference(self.branch);
        let offering = self.offer(&client, &offered, &objects, &mut brought, progress);
        self.notes.add(client.notes());
        offering?;
        brought.withheld.iter().for_each(|withheld| self.refusals.note(withheld));
        let withheld: Vec<ObjectId> = brought.withheld.iter().map(|one| one.pointer.id).collect();
        offered.retain(|pointer| !withheld.contains(&pointer.id));
        self.known.confirm(&offered, self.now_ms)?;
        Ok(brought)
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

impl Courier<'_> {
    /// Uploads; what is not here, or not as it should be, once more after another remote was asked for it.
    fn offer(
        &self,
        client: &Client,
        offered: &[Pointer],
        objects: &Objects,
        brought: &mut Brought,
        progress: &Progress,
    ) -> Result<()> {
        let again = self.upload(client, offered, objects, brought, true, progress)?;
        if !again.is_empty() {
            self.fetch(&again, objects, progress)?;
            self.upload(client, &again, objects, brought, false, progress)?;
        }
        Ok(())
    }

    fn upload(
        &self,
        client: &Client,
        offered: &[Pointer],
        objects: &Objects,
        brought: &mut Brought,
        is_first: bool,
        progress: &Progress,
    ) -> Result<Vec<Pointer>> {
        match client.upload(offered, objects, progress) {
            Ok(uploaded) => Ok(self.take(uploaded, brought, is_first)),
            Err(error) if is_final(error.kind()) => {
                self.withhold_what_is_missing(client, offered, &error, brought, progress)?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Counts what was uploaded; what another remote may help with comes back, if that is to be tried.
    fn take(&self, uploaded: Uploaded, brought: &mut Brought, is_first: bool) -> Vec<Pointer> {
        brought.sent += uploaded.sent;
        brought.bytes += uploaded.bytes;
        let mut again = Vec::new();
        for (pointer, refusal) in uploaded.refused {
            if is_first && matches!(refusal.reason, Reason::Missing | Reason::Damaged) {
                again.push(pointer);
            } else {
                brought.withheld.push(withheld(pointer, &refusal));
            }
        }
        again
    }

    /// The remote refuses all at once: what it has already is there all the same.
    fn withhold_what_is_missing(
        &self,
        client: &Client,
        offered: &[Pointer],
        error: &Error,
        brought: &mut Brought,
        progress: &Progress,
    ) -> Result<()> {
        let missing = match client.missing(offered, progress) {
            Ok(presence) => {
                let unsure = presence.unsure.into_iter().map(|(pointer, _)| pointer);
                presence.missing.into_iter().chain(unsure).collect()
            }
            Err(error) if is_final(error.kind()) => offered.to_vec(),
            Err(error) => return Err(error),
        };
        let why = error.to_string();
        brought.withheld.extend(missing.into_iter().map(|pointer| Withheld {
            pointer,
            kind: error.kind(),
            why: why.clone(),
        }));
        Ok(())
    }

    /// Gets from the other remotes what is not here, or not as it should be.
    fn fetch(&self, wanted: &[Pointer], objects: &Objects, progress: &Progress) -> Result<()> {
        let fetched = self.fetch_from_others(wanted, objects, progress);
        for pointer in wanted {
            objects.end_aside(&pointer.id)?;
        }
        fetched
    }

    fn fetch_from_others(&self, wanted: &[Pointer], objects: &Objects, progress: &Progress) -> Result<()> {
        let mut left = Vec::new();
        for pointer in wanted {
            match objects.is_sound(pointer, progress)? {
                Some(true) => {}
                Some(false) => {
                    // What is left of it is better than nothing, should nobody have it whole.
                    objects.set_aside(&pointer.id)?;
                    left.push(*pointer);
                }
                None => left.push(*pointer),
            }
        }
        for other in self.remotes.iter().filter(|other| other.name != self.remote.name) {
            if left.is_empty() {
                break;
            }
            // One that cannot be reached is not what this push is about.
            let fetched = Client::connect(other, self.repository, progress)
                .and_then(|client| client.download(&left, objects, progress));
            match fetched {
                Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::DiskFull) => return Err(error),
                _ => {}
            }
            let mut still = Vec::new();
            for pointer in left {
                if !objects.has(&pointer)? {
                    still.push(pointer);
                }
            }
            left = still;
        }
        Ok(())
    }
}

fn is_final(kind: Kind) -> bool {
    matches!(kind, Kind::Quota | Kind::TooLarge | Kind::RemoteRefused)
}

fn withheld(pointer: Pointer, refusal: &Refusal) -> Withheld {
    let kind = match refusal.reason {
        Reason::TooLarge => Kind::TooLarge,
        Reason::Quota => Kind::Quota,
        Reason::Rejected => Kind::RemoteRefused,
        Reason::Missing | Reason::Damaged => Kind::Git,
        Reason::Trouble => Kind::RemoteUnreachable,
    };
    let help = match refusal.reason {
        Reason::Missing => {
            "; it is neither here nor at another remote: write the file anew (`touch` it), and its content is stored again"
        }
        Reason::Damaged => {
            "; it is damaged here and no other remote has it: write the file anew (`touch` it)"
        }
        _ => "",
    };
    Withheld { pointer, kind, why: format!("{}{help}", refusal.error) }
}
