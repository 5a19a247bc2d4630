//! The client against servers: a small one of ours that misbehaves as it is told, a real one of another make, a
//! directory, and Git's own LFS program as the judge.

mod account;
mod directory;
mod faults;
#[path = "../../../../tests/support/giftless.rs"]
mod giftless;
mod hostile;
#[path = "../../../../tests/support/lfs_server.rs"]
mod lfs_server;
mod real;
mod tls;
mod transfers;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use self::law::Law;
use self::lfs_server::{Behaviour, LfsServer, Request};
use super::*;
use crate::config::{Credentials, SecretSource};
use crate::error::Kind;
use crate::names::RemoteName;

/// Tries that take no time.
const FAST: Law = Law { first: Duration::from_millis(1), most: Duration::from_millis(4), tries: 4 };

/// Our repository, and a server.
struct Bench {
    scratch: tempfile::TempDir,
    server: LfsServer,
    remote: Remote,
    store: Objects,
    progress: Progress,
}

impl Bench {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let server = LfsServer::start();
        let remote = remote_at(&server.url());
        let store = Objects::of(&scratch.path().join("repositories/ours.git"));
        Self { scratch, server, remote, store, progress: Progress::new() }
    }

    fn repository(&self) -> PathBuf {
        self.scratch.path().join("repositories/ours.git")
    }

    /// With a password that the server would see.
    fn with_password(mut self) -> Self {
        let file = self.scratch.path().join("password");
        fs::write(&file, "correct-horse").unwrap();
        let password = Some(SecretSource::File(file));
        self.remote.credentials =
            Some(Credentials { username: Some("bot".to_owned()), password, ..Default::default() });
        self
    }

    fn client(&self) -> Client {
        Client::connect(&self.remote, &self.repository(), &self.progress).unwrap().with_law(FAST)
    }

    /// Puts a content into our store.
    fn stored(&self, bytes: &[u8]) -> Pointer {
        stored(&self.store, bytes)
    }

    /// Puts a content into the server.
    fn kept(&self, bytes: &[u8]) -> Pointer {
        Pointer { id: self.server.keep(bytes).parse().unwrap(), size: bytes.len() as u64 }
    }

    fn upload(&self, objects: &[Pointer]) -> Result<Uploaded> {
        self.client().upload(objects, &self.store, &self.progress)
    }

    fn download(&self, objects: &[Pointer]) -> Result<Downloaded> {
        self.client().download(objects, &self.store, &self.progress)
    }

    fn read(&self, pointer: &Pointer) -> Vec<u8> {
        fs::read(self.store.path_of(&pointer.id)).unwrap()
    }
}

fn remote_at(url: &str) -> Remote {
    let mut remote = Remote::at(RemoteName::new("there").unwrap(), RemoteUrl::parse(url).unwrap());
    remote.timeouts.connect = Duration::from_secs(10);
    remote.timeouts.stall = Duration::from_secs(20);
    remote.timeouts.answer = Duration::from_secs(20);
    remote
}

fn stored(store: &Objects, bytes: &[u8]) -> Pointer {
    let mut draft = store.begin().unwrap();
    draft.write(bytes).unwrap();
    draft.finish().unwrap()
}

/// So many bytes that differ by `seed`.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn reasons(refused: &[(Pointer, Refusal)]) -> Vec<Reason> {
    refused.iter().map(|(_, refusal)| refusal.reason).collect()
}
