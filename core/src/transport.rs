//! The one interface behind which every kind of remote stands: what its references are, sending it a set of
//! objects with a reference to move, fetching a history from it.
//!
//! Rules for every implementation: references move without force and only from the value that was read; a push
//! is believed only after the reference was read back; every call can be cancelled.

mod advertisement;
mod http;
pub mod local;
pub mod memory;
mod messages;
mod pace;
mod packetline;
mod receive_pack;
mod refusal;
mod runtime;
pub mod smart;
pub mod ssh;
mod upload_pack;
pub mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use git2::Oid;

use self::memory::Memory;
use self::messages::Messages;
use self::smart::SmartTransport;
use self::wire::{Limits, Service, Wire};
use crate::config::{self as model, RemoteUrl};
use crate::error::{Error, Kind, Result};
use crate::git::reachable::PushSet;
use crate::git::repository::Repository;
use crate::progress::Progress;

pub(crate) use self::http::client::{
    error_of as client_error, of as client_of, plain as plain_client, within as client_within,
};
pub(crate) use self::http::reach::{OutOfReach, Reach};
pub(crate) use self::http::{Answer, Login, Upload, origin_of};
pub(crate) use self::messages::said;
pub(crate) use self::pace::Throttle;
pub(crate) use self::refusal::{kind_of, retry_after};
pub(crate) use self::runtime::run as wait;

/// Patience with a remote that is only read from; while it works it says so every few seconds.
const LONGEST_READ: Duration = Duration::from_secs(20);

/// What a remote says of itself.
#[derive(Debug, Clone, Default)]
pub struct Advertisement {
    /// Every reference by its full name.
    pub references: BTreeMap<String, Oid>,
    /// Commits that it has without a reference of its own.
    pub haves: Vec<Oid>,
}

/// What a remote is, as far as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The program that answers, such as `git/2.47.0`.
    pub agent: Option<String>,
    /// What its service can do, in Git's words.
    pub capabilities: Vec<String>,
    /// Whether there is a Git LFS server; `None`: it was not asked, or gave no clear answer.
    pub lfs: Option<bool>,
}

/// What was noticed on the way to a remote, for the log and for status. Nothing in it is secret or has control
/// characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// What an operator should change although it works.
    pub warnings: Vec<String>,
    /// What the server said to people.
    pub messages: Vec<String>,
    /// When the token in use ends, as the server says, Unix milliseconds.
    pub token_expires_ms: Option<i64>,
}

impl Notes {
    /// Adds what was noticed elsewhere on the same way.
    pub fn add(&mut self, other: Notes) {
        let is_new = |warning: &String| !self.warnings.contains(warning);
        let new: Vec<String> = other.warnings.into_iter().filter(is_new).collect();
        self.warnings.extend(new);
        self.messages.extend(other.messages);
        self.token_expires_ms = self.token_expires_ms.or(other.token_expires_ms);
    }
}

/// What a remote gives besides whole histories of what it advertises. To be asked after [`Transport::advertise`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// A commit without those before it.
    pub shallow: bool,
    /// A commit without its files.
    pub leaves_out: bool,
    /// Commits that only a history leads to.
    pub earlier_commits: bool,
    /// Perhaps any object by its name: a refusal tells.
    pub single_objects: bool,
}

/// A part of a remote's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Commits, each with all that is in it and without those before it.
    Snapshot,
    /// The same without the contents of files.
    Names,
    /// Commits and all before them, and nothing that is in them.
    Commits,
    /// Nothing but what is named.
    Objects,
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
    /// Large contents besides.
    pub large: u64,
}

/// An open connection to a remote.
pub trait Transport {
    /// The remote's references now.
    fn advertise(&mut self) -> Result<Advertisement>;

    /// Sends the objects of `set` (complete with what the remote has) and moves the references, in this order.
    /// Returns what was sent. A reference that stands elsewhere by now is [`Kind::RefMoved`].
    fn push(
        &mut self,
        source: &Repository,
        set: &PushSet,
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

    /// Whether the last advertisement was remembered and not asked for: what follows from it, but for a push that the
    /// remote took, has to be looked at again.
    fn went_by_memory(&self) -> bool {
        false
    }

    /// How many bytes one request should have at most; whole commits are sent in slices of about that size. `None`: as
    /// many as there are.
    fn slice_bytes(&self) -> Option<u64> {
        None
    }

    /// What the remote is. To be asked after [`Transport::advertise`].
    fn describe(&mut self) -> Result<Description> {
        Ok(Description::default())
    }

    /// What was noticed since the last call.
    fn notes(&mut self) -> Notes {
        Notes::default()
    }

    /// What it gives besides.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Copies a part of the remote's history into `target`, durably. The caller has made sure that the remote is able to.
    fn fetch_part(
        &mut self,
        target: &Repository,
        want: &[Oid],
        part: Part,
        progress: &Progress,
    ) -> Result<()> {
        let _ = (target, want, progress);
        Err(Error::new(Kind::Internal, format!("{part:?} cannot be had from this remote")))
    }

    /// Copies everything reachable from `want` into `target`, durably, without touching its references.
    fn fetch(&mut self, target: &Repository, want: Oid, progress: &Progress) -> Result<()>;
}

/// Connects to a remote only to read: nothing is made and nothing is swept, so a push may be under way. `None` if a
/// local path does not exist.
pub fn connect_to_read(
    remote: &model::Remote,
    repository: &Path,
    progress: &Progress,
) -> Result<Option<Box<dyn Transport>>> {
    // Whoever looks waits for nobody's hooks, and others may wait for who looks.
    let mut remote = remote.clone();
    remote.timeouts.answer = remote.timeouts.answer.min(LONGEST_READ);
    connect_to_fetch(&remote, repository, progress)
}

/// As [`connect_to_read`], with all the patience that is configured: a server may take its time to gather much.
pub fn connect_to_fetch(
    remote: &model::Remote,
    repository: &Path,
    progress: &Progress,
) -> Result<Option<Box<dyn Transport>>> {
    match wire(remote, repository, progress)? {
        Some(wire) => Ok(Some(Box::new(SmartTransport::new(wire, Service::UploadPack, progress)))),
        None => {
            let opened = local::LocalTransport::open_to_read(&local_path(remote)?, repository)?;
            Ok(opened.map(|transport| Box::new(transport) as Box<dyn Transport>))
        }
    }
}

/// Connects as a push would, to see whether one may; a local path is not made. `None` if it does not exist.
pub fn connect_to_test(
    remote: &model::Remote,
    repository: &Path,
    progress: &Progress,
) -> Result<Option<Box<dyn Transport>>> {
    match wire(remote, repository, progress)? {
        Some(wire) => Ok(Some(Box::new(SmartTransport::new(wire, Service::ReceivePack, progress)))),
        None => connect_to_read(remote, repository, progress),
    }
}

/// Connects to a remote for `repository`. A local path that does not exist becomes a bare repository with HEAD
/// at `branch`. The first look may be one at `memory`.
pub fn connect(
    remote: &model::Remote,
    branch: &str,
    repository: &Path,
    memory: &Memory,
    progress: &Progress,
) -> Result<Box<dyn Transport>> {
    match wire(remote, repository, progress)? {
        Some(wire) => {
            let transport = SmartTransport::new(wire, Service::ReceivePack, progress);
            Ok(Box::new(transport.remembering(memory.clone())))
        }
        None => Ok(Box::new(local::LocalTransport::open(&local_path(remote)?, branch, repository)?.0)),
    }
}

fn local_path(remote: &model::Remote) -> Result<std::path::PathBuf> {
    match &remote.url {
        RemoteUrl::Local(path) => Ok(path.clone()),
        other => Err(Error::new(Kind::Internal, format!("{other} is no local path"))),
    }
}

/// How patient to be with a remote, and how fast.
pub(crate) fn limits_of(remote: &model::Remote) -> Limits {
    Limits {
        connect: remote.timeouts.connect,
        stall: remote.timeouts.stall,
        answer: remote.timeouts.answer,
        bandwidth: remote.bandwidth,
    }
}

/// The way over a network; `None` where there is none.
fn wire(remote: &model::Remote, repository: &Path, progress: &Progress) -> Result<Option<Box<dyn Wire>>> {
    let limits = limits_of(remote);
    match &remote.url {
        RemoteUrl::Local(_) => Ok(None),
        RemoteUrl::Http(url) => Ok(Some(Box::new(http::HttpWire::new(url, remote, limits, progress)?))),
        RemoteUrl::Ssh(url) => {
            let state_dir = state_directory_of(repository);
            Ok(Some(Box::new(ssh::SshWire::new(remote, url, state_dir, limits, progress)?)))
        }
    }
}

/// Our repositories lie two levels below the state directory, and the file of known hosts in it.
pub(crate) fn state_directory_of(repository: &Path) -> &Path {
    repository.parent().and_then(Path::parent).unwrap_or(repository)
}
