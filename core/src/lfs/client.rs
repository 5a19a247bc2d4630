//! The LFS client of one remote: what it lacks, bringing it there, getting it back, how much room is used.
//!
//! In: pointers, and the local store ([`Objects`]). Out: what happened to each object. It knows nothing of Git's
//! history, and remembers nothing of what a remote has: every call asks.
//!
//! ```text
//! Client ─┬─ local: a directory, objects are placed in its lfs/objects (place)
//!         └─ server: an HTTP endpoint (endpoint: configured, derived, or told over SSH)
//!              ├─ batch: up to 100 objects a question; what is to be done for each (action)
//!              ├─ upload, download: several at a time (workers), each by the retry law (law)
//!              └─ storage: one PUT or GET at the place the server named, within its reach
//! ```
//!
//! An object that cannot be had or taken never stops the others: it is among the refused, with the reason. What
//! concerns all of them (no connection, no credentials, no room at all, told to wait) is an error of the call.

mod action;
mod asking;
mod batch;
mod download;
mod endpoint;
mod examine;
mod exchange;
mod failure;
mod grant;
mod law;
mod local;
mod place;
mod quota;
mod server;
mod storage;
mod upload;
mod workers;

use std::path::Path;

use self::local::Directory;
use self::server::Server;
use super::{Objects, Pointer};
use crate::config::{Remote, RemoteUrl};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::transport::Notes;

/// Why one object did not go the way of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is not where it should come from: on upload not here, on download not there.
    Missing,
    /// Its bytes are not what its name says, where it should come from.
    Damaged,
    /// The remote takes none so large.
    TooLarge,
    /// The remote has no room for it.
    Quota,
    /// The remote does not want it, or answers what cannot be obeyed.
    Rejected,
    /// Trouble of the kind that passes has lasted for all tries.
    Trouble,
}

impl Reason {
    /// The word used in metrics, logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Damaged => "damaged",
            Reason::TooLarge => "too_large",
            Reason::Quota => "quota",
            Reason::Rejected => "rejected",
            Reason::Trouble => "trouble",
        }
    }
}

/// An object that was left out, and why.
#[derive(Debug)]
pub struct Refusal {
    /// For a program.
    pub reason: Reason,
    /// For people: names the object and the place.
    pub error: Error,
}

/// What a remote has of what it was asked for.
#[derive(Debug, Default)]
pub struct Presence {
    /// Objects that it has, as far as it says.
    pub there: u64,
    /// Those that it has not.
    pub missing: Vec<Pointer>,
    /// Those of which it does not say.
    pub unsure: Vec<(Pointer, Refusal)>,
}

/// What became of an upload.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// Objects that were sent, and that the remote confirmed to have.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that it had already.
    pub already: u64,
    /// The others.
    pub refused: Vec<(Pointer, Refusal)>,
}

/// What became of a download.
#[derive(Debug, Default)]
pub struct Downloaded {
    /// Objects that are in the store now, hashed on the way.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were in the store.
    pub already: u64,
    /// The others.
    pub failed: Vec<(Pointer, Refusal)>,
}

/// How much of its LFS storage a remote says is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that count against `limit`.
    pub used: u64,
    /// Bytes there may be; `None`: the remote names no limit.
    pub limit: Option<u64>,
}

/// A way to the LFS storage of one remote.
pub struct Client(Way);

enum Way {
    Local(Directory),
    Server(Box<Server>),
}

impl Client {
    /// A way to the LFS storage of `remote` for our bare repository at `repository`. Nothing is asked yet over a network;
    /// a directory has to be there.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] for an address that cannot be one,
    /// [`crate::error::Kind::RemoteUnreachable`] for a directory that is not there.
    pub fn connect(remote: &Remote, repository: &Path, progress: &Progress) -> Result<Self> {
        progress.check()?;
        match &remote.url {
            RemoteUrl::Local(path) if remote.lfs_url.is_none() => {
                Directory::open(path, repository).map(|directory| Self(Way::Local(directory)))
            }
            _ => Server::new(remote, repository, progress).map(|server| Self(Way::Server(Box::new(server)))),
        }
    }

    /// The same, telling the server for which reference (its full name) objects are meant: some decide by it.
    #[must_use]
    pub fn for_reference(mut self, name: &str) -> Self {
        if let Way::Server(server) = &mut self.0 {
            server.reference = Some(name.to_owned());
        }
        self
    }

    /// Which of `objects` the remote lacks. It is asked at each call and believed as far as it says: whether the bytes
    /// are good shows when they are downloaded.
    ///
    /// # Errors
    /// What concerns all objects.
    pub fn missing(&self, objects: &[Pointer], progress: &Progress) -> Result<Presence> {
        match &self.0 {
            Way::Local(directory) => directory.missing(objects, progress),
            Way::Server(server) => download::missing(server, objects, progress),
        }
    }

    /// Brings to the remote what it lacks of `objects`, from `store`, and has it confirmed.
    ///
    /// # Errors
    /// What concerns all objects, with the time to wait where the remote names one. What was sent before stays sent: the
    /// next call finds it there.
    pub fn upload(&self, objects: &[Pointer], store: &Objects, progress: &Progress) -> Result<Uploaded> {
        match &self.0 {
            Way::Local(directory) => directory.upload(objects, store, progress),
            Way::Server(server) => upload::upload(server, objects, store, progress),
        }
    }

    /// Gets from the remote what `store` lacks of `objects`.
    ///
    /// # Errors
    /// What concerns all objects, and what keeps us from storing them here.
    pub fn download(&self, objects: &[Pointer], store: &Objects, progress: &Progress) -> Result<Downloaded> {
        match &self.0 {
            Way::Local(directory) => directory.download(objects, store, progress),
            Way::Server(server) => download::download(server, objects, store, progress),
        }
    }

    /// How much of the account's LFS storage is used; `None` where the remote's kind (its `provider`) has no way to ask,
    /// or has it switched off.
    ///
    /// # Errors
    /// When it cannot be asked although there is a way.
    pub fn quota(&self, progress: &Progress) -> Result<Option<Usage>> {
        match &self.0 {
            Way::Local(_) => Ok(None),
            Way::Server(server) => quota::usage(server, progress),
        }
    }

    /// What was noticed since the last call: nothing in it is secret.
    pub fn notes(&self) -> Notes {
        match &self.0 {
            Way::Local(_) => Notes::default(),
            Way::Server(server) => server.take_notes(),
        }
    }

    /// The same with another retry law and number of transfers.
    #[cfg(test)]
    pub(crate) fn with_law(mut self, law: law::Law) -> Self {
        if let Way::Server(server) = &mut self.0 {
            server.law = law;
        }
        self
    }
}

/// Each object once, the largest first: what takes longest begins first, so that nothing waits for it at the end.
fn largest_first(objects: &[Pointer]) -> Vec<Pointer> {
    let mut sorted = objects.to_vec();
    sorted.sort_by(|one, other| other.size.cmp(&one.size).then(one.id.cmp(&other.id)));
    sorted.dedup();
    sorted
}

#[cfg(test)]
mod tests;
