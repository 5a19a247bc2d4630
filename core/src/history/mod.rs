//! Looking into what was backed up: snapshots, what is in them, when something changed, what differs between two.
//!
//! In: a repository, possibly of somebody else's making. Out: names as the user knows them, with what Git holds and
//! what the metadata says of them. Nothing is changed and no lock is needed, so a daemon may work meanwhile.
//!
//! A [`Snapshot`] is one commit. [`directory`] reads what stands in it, one directory at a time; [`log`] goes back through
//! the snapshots, or through those that changed a path; [`moment`] finds the one that a user means; [`compare`] says what
//! differs between two; [`form`] tells a file's content from what stands for it.

pub mod compare;
pub mod directory;
pub mod form;
pub mod log;
pub mod moment;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::git::repository::{Repository, git_error};
use crate::names::RootName;
use crate::path::OWN_DIRECTORY;
use crate::snapshot::message::{
    BATCH_TRAILER, BYTES_TRAILER, INSTANCE_TRAILER, ROOTS_TRAILER, counts_in_subject, trailer, unlisted,
};
use crate::tree::{Listing, lookup};

use directory::Place;

pub use crate::git::objects::ObjectDatabase;
pub use crate::snapshot::message::Counts;
pub use git2::Oid;

/// A commit that is longer is nobody's backup.
const MAX_COMMIT_BYTES: usize = 1 << 20;

/// One commit of a repository. What only our own commits say is missing in anybody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit.
    pub id: Oid,
    /// Its tree.
    pub tree: Oid,
    /// Its parents; the first is the snapshot before it.
    pub parents: Vec<Oid>,
    /// When it was made, to the second, by the clock of the machine that made it.
    pub time: Timestamp,
    /// What it changed.
    pub counts: Option<Counts>,
    /// Bytes of the files that it added or changed.
    pub bytes: Option<u64>,
    /// The installation that made it.
    pub instance: Option<String>,
    /// Its number among the commits of that installation.
    pub batch: Option<u64>,
    /// The roots that were watched when it was made; older ones may be in its tree besides.
    pub watched: Vec<RootName>,
}

/// A root as it stands in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: RootName,
    /// Where its top directory is.
    pub place: Place,
}

impl Snapshot {
    /// Reads a commit.
    ///
    /// # Errors
    /// [`Kind::Git`] if there is no such commit or it is damaged.
    pub fn read(repository: &Repository, id: Oid) -> Result<Self> {
        let fail = |error| git_error(&format!("read commit {id} of"), repository.path(), error);
        let (size, _) = repository.objects()?.read_header(id).map_err(fail)?;
        if size > MAX_COMMIT_BYTES {
            let text =
                format!("commit {id} has {size} bytes, more than the {MAX_COMMIT_BYTES} that are read");
            return Err(Error::new(Kind::Git, text));
        }
        let commit = repository.git().find_commit(id).map_err(fail)?;
        let message = String::from_utf8_lossy(commit.message_raw_bytes());
        let seconds = commit.time().seconds();
        let listed = trailer(&message, ROOTS_TRAILER).unwrap_or_default();
        let watched = listed.split(',').filter_map(|name| RootName::new(unlisted(name)).ok()).collect();
        Ok(Self {
            id,
            tree: commit.tree_id(),
            parents: commit.parent_ids().collect(),
            // A stranger's commit may say anything; the ends of time are as good as what nobody can mean.
            time: Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
                Timestamp::MIN
            } else {
                Timestamp::MAX
            }),
            counts: trailer(&message, INSTANCE_TRAILER).and_then(|_| counts_in_subject(&message)),
            bytes: trailer(&message, BYTES_TRAILER).and_then(|number| number.parse().ok()),
            instance: trailer(&message, INSTANCE_TRAILER).map(str::to_owned),
            batch: trailer(&message, BATCH_TRAILER).and_then(|number| number.parse().ok()),
            watched,
        })
    }

    /// The first digits of its id, enough to tell it from others.
    pub fn short_id(&self) -> String {
        let mut id = self.id.to_string();
        id.truncate(12);
        id
    }

    /// The roots in its tree, in the order of their names: every top-level directory but our own, and what only the
    /// metadata knows because nothing but empty directories was in it.
    ///
    /// # Errors
    /// [`Kind::Git`] if the top of the tree cannot be read. Damaged metadata hides only what is in it alone.
    pub fn roots(&self, objects: &ObjectDatabase<'_>) -> Result<Vec<Root>> {
        let mut roots: Vec<Root> = Vec::new();
        let top = Listing::read(objects, self.tree, b"")?;
        for (stored, entry) in top.iter() {
            let Some(name) = root_name(stored).filter(|_| entry.is_tree()) else { continue };
            roots.push(Root { name, place: Place { files: Some(entry.oid), metadata: None } });
        }
        roots.sort_by(|a, b| a.name.cmp(&b.name));
        let all_metadata = format!("{OWN_DIRECTORY}/meta");
        let metadata = lookup(objects, self.tree, all_metadata.as_bytes()).ok().flatten();
        let listing = metadata.and_then(|it| Listing::read(objects, it.oid, all_metadata.as_bytes()).ok());
        for (stored, entry) in listing.iter().flat_map(Listing::iter) {
            let Some(name) = root_name(stored).filter(|_| entry.is_tree()) else { continue };
            match roots.binary_search_by(|root| root.name.cmp(&name)) {
                Ok(at) => roots[at].place.metadata = Some(entry.oid),
                Err(at) => {
                    let place = Place { files: None, metadata: Some(entry.oid) };
                    roots.insert(at, Root { name, place });
                }
            }
        }
        Ok(roots)
    }
}

/// The root that a name at the top of a tree stands for.
fn root_name(stored: &[u8]) -> Option<RootName> {
    RootName::new(std::str::from_utf8(stored).ok()?).ok()
}

#[cfg(test)]
pub(crate) mod tests;
