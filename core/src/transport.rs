//! The one interface behind which every kind of remote stands: what its references are, sending it a set of
//! objects with a reference to move, fetching a history from it.
//!
//! Rules for every implementation: references move without force and only from the value that was read; a push
//! is believed only after the reference was read back; every call can be cancelled.

pub mod local;
mod pace;
mod runtime;
pub mod ssh;
pub mod wire;

use std::collections::BTreeMap;
use std::path::Path;

use git2::Oid;

use crate::config::RemoteUrl;
use crate::error::{Error, Kind, Result};
use crate::git::repository::{Origin, Repository};
use crate::progress::Progress;

/// What a remote says of itself.
#[derive(Debug, Clone, Default)]
pub struct Advertisement {
    /// Every reference by its full name.
    pub references: BTreeMap<String, Oid>,
}

/// A reference to move on the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceUpdate {
    /// Its full name.
    pub name: String,
    /// Where the advertisement said it stands; `None`: it does not exist.
    pub expected: Option<Oid>,
    /// Where it is to stand. If that is where it stands, it is written again, where that makes it durable.
    pub new: Oid,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Objects.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
    /// How many of the objects the remote should have had and had lost.
    pub restored: u64,
}

/// An open connection to a remote.
pub trait Transport {
    /// The remote's references now.
    fn advertise(&mut self) -> Result<Advertisement>;

    /// Sends `objects` (each once, complete with what the remote has) and moves the references, in this order.
    /// Returns what was sent. A reference that stands elsewhere by now is [`Kind::RefMoved`].
    fn push(
        &mut self,
        source: &Repository,
        objects: &[Oid],
        updates: &[ReferenceUpdate],
        progress: &Progress,
    ) -> Result<Sent>;

    /// Of the objects reachable from `tips`, which the remote advertises and `source` holds, those that the remote
    /// cannot read. Only what a cheap look arouses a suspicion of is searched for; a remote behind a network is
    /// believed.
    fn lost(&mut self, source: &Repository, tips: &[Oid], progress: &Progress) -> Result<Vec<Oid>> {
        let _ = (source, tips, progress);
        Ok(Vec::new())
    }

    /// The message of a commit there, to see whose it is before anything is copied.
    fn commit_message(&mut self, commit: Oid) -> Result<String>;

    /// Copies everything reachable from `want` into `target`, durably, without touching its references.
    fn fetch(&mut self, target: &Repository, want: Oid, progress: &Progress) -> Result<()>;
}

/// Connects to a remote only to read: nothing is made and nothing is swept, so a push may be under way. `None` if a
/// local path does not exist.
pub fn connect_to_read(url: &RemoteUrl, repository: &Path) -> Result<Option<Box<dyn Transport>>> {
    match url {
        RemoteUrl::Local(path) => {
            let opened = local::LocalTransport::open_to_read(path, repository)?;
            Ok(opened.map(|transport| Box::new(transport) as Box<dyn Transport>))
        }
        other => Err(Error::new(Kind::Config, format!("{other}: remotes over a network are not built yet"))),
    }
}

/// Connects to a remote for `repository`. A local path that does not exist becomes a bare repository with HEAD
/// at `branch`.
pub fn connect(url: &RemoteUrl, branch: &str, repository: &Path) -> Result<(Box<dyn Transport>, Origin)> {
    match url {
        RemoteUrl::Local(path) => {
            let (transport, origin) = local::LocalTransport::open(path, branch, repository)?;
            Ok((Box::new(transport), origin))
        }
        other => Err(Error::new(Kind::Config, format!("{other}: remotes over a network are not built yet"))),
    }
}
