//! What a remote holds, taken as somebody would who has nothing of it here: into a scratch directory. A repository on a
//! disk is read where it is.
//!
//! A remote that is damaged often cannot send a whole snapshot. Where it gives parts, the contents are then asked for in
//! ever smaller lots, so that what it cannot give has a name.

use std::path::Path;
use std::sync::Arc;

use bytesize::ByteSize;
use jiff::tz::TimeZone;

use super::drills::Way;
use crate::clock;
use crate::config::{Remote, RemoteUrl};
use crate::crypt::given::Given;
use crate::crypt::places::Lent;
use crate::disk::{RESERVE_BYTES, Room};
use crate::error::{Error, Kind, Result};
use crate::git::contents::LargeContents;
use crate::git::repository::Repository;
use crate::history::{Oid, Snapshot, moment};
use crate::lfs::Objects;
use crate::lfs::fetched::Fetched;
use crate::progress::Progress;
use crate::retrieve::{self, Retrieval, Tip};
use crate::verify::{self, Sample};

/// Requests that may fail while what is damaged is looked for.
const MOST_FAILURES: u32 = 200;
/// What git says of its own repository before it hangs up.
const CORRUPTION: &str = "repository corruption";

/// Told what an operator should know while it goes on.
pub type Say<'s> = &'s mut dyn FnMut(&str);

/// What is wanted of a remote.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// The remote.
    pub remote: &'w Remote,
    /// Its branch; without it the only one, or the one that is meant as a rule.
    pub branch: Option<&'w str>,
    /// Which snapshot of it; the newest if nothing is said.
    pub at: Option<&'w str>,
    /// Where known hosts of SSH are looked for.
    pub state_dir: &'w Path,
    /// What opens it, if it is encrypted.
    pub keys: &'w Given,
    /// How much of its contents.
    pub sample: Sample,
    /// Decides which files a sample has.
    pub seed: u64,
    /// Bytes that a whole snapshot may take here, where that is known: without room for these it is not begun with.
    pub whole_takes: Option<u64>,
}

impl<'w> Wanted<'w> {
    /// Names and records are all that is asked for by it.
    fn request<'r>(&self, repository: &'r Repository, snapshot: &'r Snapshot) -> verify::Request<'r> {
        verify::Request { repository, snapshot, sample: self.sample, seed: self.seed, large: None }
    }
}

/// What a remote holds.
pub struct Far {
    /// It, or what could be fetched of it.
    pub repository: Repository,
    /// The commit that was asked for.
    pub commit: Oid,
    /// The snapshot, or why the remote could not give it, where what it cannot give has no name.
    pub snapshot: std::result::Result<Snapshot, String>,
    /// Who has its large contents.
    pub large: Arc<dyn LargeContents>,
    /// How it came.
    pub way: Way,
    /// What opens it, for as long as it is looked into.
    _keys: Option<Lent>,
}

impl Far {
    /// Gives it its keys.
    fn unlocked(mut self, wanted: &Wanted<'_>) -> Result<Self> {
        let Ok(snapshot) = &self.snapshot else { return Ok(self) };
        match wanted.keys.unlock(&self.repository, &[snapshot.tree]) {
            Ok(keys) => self._keys = keys,
            Err(error) if is_damage(&error) => self.snapshot = Err(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(self)
    }
}

/// Opens it, or fetches it to `place`.
///
/// # Errors
/// When it cannot be reached, does not let us in, has no such branch or state, or there is no room here;
/// [`Kind::EncryptionKey`] if it is encrypted and its key is not among those that were given. What it has and
/// cannot give because it is damaged is no error.
pub fn open(wanted: &Wanted<'_>, place: &Path, say: Say<'_>, progress: &Progress) -> Result<Far> {
    if let RemoteUrl::Local(path) = &wanted.remote.url {
        return in_place(wanted, path);
    }
    let mut retrieval = Retrieval::begin(wanted.remote, place, wanted.state_dir, progress)?;
    let tip = retrieval.tip(wanted.branch)?;
    let mut commit = tip.commit;
    if wanted.at.is_some() {
        retrieval.commits(tip.commit, progress)?;
        commit = snapshot(retrieval.repository(), tip.commit, wanted.at)?.id;
    }
    let mut fetch =
        Fetch { retrieval, commit, tip, wanted, place, progress, say, failures: 0, way: Way::Whole };
    let gave_up = fetch.all()?;
    let way = fetch.way;
    let repository = Repository::open(place)?;
    let snapshot = match gave_up {
        Some(why) => Err(why),
        None => Ok(Snapshot::read(&repository, commit)?),
    };
    let stands_for = wanted.state_dir.join("repos").join("restored.git");
    let large = Arc::new(Fetched::new(place, place, vec![wanted.remote.clone()], &stands_for));
    Far { repository, commit, snapshot, large, way, _keys: None }.unlocked(wanted)
}

/// Whether anything is fetched from it at all.
pub fn is_fetched(remote: &Remote) -> bool {
    !matches!(remote.url, RemoteUrl::Local(_))
}

fn in_place(wanted: &Wanted<'_>, path: &Path) -> Result<Far> {
    let (repository, tip) = retrieve::open_in_place(path, wanted.branch)?;
    let (commit, snapshot) = match wanted.at {
        None => (tip.commit, Snapshot::read(&repository, tip.commit).map_err(|error| error.to_string())),
        at => {
            let snapshot = snapshot(&repository, tip.commit, at)?;
            (snapshot.id, Ok(snapshot))
        }
    };
    let stands_for = wanted.state_dir.join("repos").join("restored.git");
    let large: Arc<dyn LargeContents> = match wanted.remote.lfs_url {
        Some(_) => Arc::new(Fetched::new(path, wanted.state_dir, vec![wanted.remote.clone()], &stands_for)),
        None => Arc::new(Objects::of(path)),
    };
    Far { repository, commit, snapshot, large, way: Way::InPlace, _keys: None }.unlocked(wanted)
}

fn snapshot(repository: &Repository, tip: Oid, at: Option<&str>) -> Result<Snapshot> {
    let now = clock::now().to_zoned(TimeZone::system());
    match at {
        Some(at) => moment::resolve(repository, tip, at, &now),
        None => Snapshot::read(repository, tip),
    }
}

/// Whether the remote can be reached and what it has is broken.
fn is_damage(error: &Error) -> bool {
    error.kind() == Kind::Git || error.to_string().contains(CORRUPTION)
}

struct Fetch<'f> {
    retrieval: Retrieval,
    commit: Oid,
    tip: Tip,
    wanted: &'f Wanted<'f>,
    place: &'f Path,
    progress: &'f Progress,
    say: Say<'f>,
    failures: u32,
    way: Way,
}

impl Fetch<'_> {
    /// Fetches what is going to be read. Why that cannot be done, if the remote's own repository is the reason and what
    /// it cannot give has no name.
    fn all(&mut self) -> Result<Option<String>> {
        let in_parts = self.retrieval.gives_parts();
        let outcome = match (self.wanted.sample.is_whole(), in_parts) {
            (true, _) => self.whole(in_parts),
            (false, true) => match self.parts() {
                // It advertises more than it gives.
                Err(error) if error.kind() == Kind::RemoteRefused && !is_damage(&error) => {
                    self.whole_for_a_sample()
                }
                outcome => outcome,
            },
            (false, false) => self.whole_for_a_sample(),
        };
        match outcome {
            Err(error) if is_damage(&error) && !self.progress.is_cancelled() => Ok(Some(error.to_string())),
            outcome => outcome.map(|()| None),
        }
    }

    fn whole(&mut self, in_parts: bool) -> Result<()> {
        self.must_have_room()?;
        self.way = Way::Whole;
        match self.retrieval.whole(self.commit, self.tip.commit, self.progress) {
            Err(error) if is_damage(&error) && in_parts && !self.progress.is_cancelled() => {
                let text = "the remote cannot send the whole snapshot; looking for what it cannot send";
                (self.say)(&format!("{text} ({error})"));
                // If it does not give parts after all, that it cannot give the whole is what there is to say.
                match self.parts() {
                    Err(refused) if refused.kind() == Kind::RemoteRefused => Err(error),
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    fn whole_for_a_sample(&mut self) -> Result<()> {
        (self.say)("this server gives no parts of a snapshot, so all of it is fetched for the sample");
        self.whole(false)
    }

    /// How much comes Git's protocol does not say; what is here is a good guess.
    fn must_have_room(&self) -> Result<()> {
        let Some(needed) = self.wanted.whole_takes else { return Ok(()) };
        let spare = Room::of(self.place)?.spare();
        if spare >= needed {
            return Ok(());
        }
        let text = format!(
            "the remote sends nothing less than the whole snapshot, which may take {}, and {} has {} free besides a \
             reserve of {}: make room there",
            ByteSize(needed),
            crate::path::lossy(self.place.as_os_str().as_encoded_bytes()),
            ByteSize(spare),
            ByteSize(RESERVE_BYTES)
        );
        Err(Error::new(Kind::DiskFull, text))
    }

    fn parts(&mut self) -> Result<()> {
        self.way = Way::Parts;
        self.retrieval.names(self.commit, self.tip.commit, self.progress)?;
        let snapshot = Snapshot::read(self.retrieval.repository(), self.commit)?;
        self.retrieval.encryption(&snapshot, self.progress)?;
        let _keys = self.wanted.keys.unlock(self.retrieval.repository(), &[snapshot.tree])?;
        self.retrieval.records(&snapshot, self.progress)?;
        let contents = {
            let request = self.wanted.request(self.retrieval.repository(), &snapshot);
            verify::contents(&request, self.progress)?
        };
        self.lots(contents)
    }

    /// What cannot be had stays away: the verification then names it.
    fn lots(&mut self, contents: Vec<Oid>) -> Result<()> {
        let mut waiting = vec![contents];
        while let Some(mut lot) = waiting.pop() {
            let Err(error) = self.retrieval.missing(lot.clone(), self.progress) else { continue };
            self.failures += 1;
            if !is_damage(&error) || self.failures > MOST_FAILURES {
                return Err(error);
            }
            if lot.len() > 1 {
                waiting.push(lot.split_off(lot.len() / 2));
                waiting.push(lot);
            }
        }
        Ok(())
    }
}
