//! From a host's name to an encrypted connection with a server that has proven to be the right one.
//!
//! Every address of the host is tried in the order in which the system gives them, each with the limit for connecting;
//! the error at the end says what was wrong with each. A server with the wrong key ends it at once: another
//! address does not make it right. A [`Connection`] that is dropped hangs up, whatever it was doing.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Config, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use russh::{Preferred, SshId, cipher, compression};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::known_hosts::{KnownHosts, Recorded, Standing};
use super::meeting::{Greeter, Notes};
use super::site::Site;
use super::stream::CalmStream;
use crate::error::{Error, Kind, Result};

/// No host of a backup has more; a resolver that is out to waste our time may say so.
const MOST_ADDRESSES: usize = 16;
/// A server that says nothing for so long is asked whether it is still there; that keeps routers from forgetting it, too.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// So often, before it counts as gone.
const KEEPALIVES: usize = 4;
/// What the server may send ahead of our reading: enough for a long fast line. It lies in the system's buffers, not in
/// ours.
const WINDOW: u32 = 4 << 20;
/// Packets that wait for our reading; with packets of 32 KiB this bounds the memory.
const PACKETS_AHEAD: usize = 64;

/// A host key type and the algorithms that prove it, as names and as russh has them.
const HOST_KEYS: [(&str, &[Algorithm]); 5] = [
    ("ssh-ed25519", &[Algorithm::Ed25519]),
    ("ecdsa-sha2-nistp256", &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }]),
    ("ecdsa-sha2-nistp384", &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 }]),
    ("ecdsa-sha2-nistp521", &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }]),
    (
        "ssh-rsa",
        &[Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }],
    ),
];

/// An encrypted connection; ends when it is dropped.
pub(super) struct Connection {
    pub handle: Handle<Greeter>,
    notes: Notes,
    pub address: SocketAddr,
    _hangup: Hangup,
}

/// Ends the connection at the lowest level, so that nothing waits for it any more.
struct Hangup(OwnedFd);

impl Drop for Hangup {
    fn drop(&mut self) {
        // A connection that is gone already is what is wanted.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl Connection {
    /// What the server has said to people, on one line.
    pub(super) fn said(&self) -> String {
        let told = self.notes.look();
        let said: Vec<String> =
            [&told.banner, &told.farewell].into_iter().map(|text| one_line(text)).collect();
        said.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// The connection does not work any more.
    pub(super) fn broken(&self, site: &Site, error: &russh::Error) -> Error {
        let farewell = one_line(&self.notes.look().farewell);
        let why = if farewell.is_empty() { one_line(&error.to_string()) } else { farewell };
        Error::new(Kind::RemoteUnreachable, format!("the connection to {} broke: {why}", site.shown()))
    }
}

/// Text from outside on one line without control characters.
pub(super) fn one_line(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| crate::path::lossy(line.trim().as_bytes()))
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

/// The addresses of the host.
pub(super) async fn addresses(site: &Site, patience: Duration) -> Result<Vec<SocketAddr>> {
    let fail = |why: String| {
        Error::new(
            Kind::RemoteUnreachable,
            format!("cannot find the address of the host {}: {why}", site.host),
        )
    };
    let found = timeout(patience, tokio::net::lookup_host((site.host.as_str(), site.port))).await;
    let found = found.map_err(|_| fail(format!("no answer within {} s", patience.as_secs_f32())))?;
    let found: Vec<SocketAddr> =
        found.map_err(|error| fail(error.to_string()))?.take(MOST_ADDRESSES).collect();
    if found.is_empty() {
        return Err(fail("it has none".to_owned()));
    }
    Ok(found)
}

/// Connects to a host that is known, at the first of `addresses` where that works.
pub(super) async fn meet(
    site: &Site,
    addresses: &[SocketAddr],
    known: &Arc<KnownHosts>,
    patience: Duration,
) -> Result<Connection> {
    let mut failures = Vec::new();
    for address in addresses {
        let notes = Notes::default();
        match greet(site, *address, known, &notes, true, patience).await {
            Ok(connection) => return Ok(connection),
            Err(failure) => failures.push(failure),
        }
        if let Some((key, standing)) = notes.look().shown.take()
            && standing != Standing::Known
        {
            return Err(stranger(site, &key, &standing));
        }
    }
    Err(nobody(site, &failures))
}

/// The key that the host shows, and what is on file about it; nobody logs in.
pub(super) async fn key_of(
    site: &Site,
    addresses: &[SocketAddr],
    known: &Arc<KnownHosts>,
    patience: Duration,
) -> Result<(PublicKey, Standing)> {
    let mut failures = Vec::new();
    for address in addresses {
        let notes = Notes::default();
        let outcome = greet(site, *address, known, &notes, false, patience).await;
        if let Some(shown) = notes.look().shown.take() {
            return Ok(shown);
        }
        if let Err(failure) = outcome {
            failures.push(failure);
        }
    }
    Err(nobody(site, &failures))
}

/// What was wrong with one address.
struct Failure {
    address: SocketAddr,
    why: String,
    /// Whether waiting does not help.
    is_permanent: bool,
}

async fn greet(
    site: &Site,
    address: SocketAddr,
    known: &Arc<KnownHosts>,
    notes: &Notes,
    stays: bool,
    patience: Duration,
) -> std::result::Result<Connection, Failure> {
    let config = Arc::new(config(&known.algorithms(&site.known_as())));
    let greeter = Greeter { notes: notes.clone(), known: known.clone(), known_as: site.known_as(), stays };
    let attempt = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Held across the greeting, so that one that is given up ends there too.
        let hangup = Hangup(std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned()?);
        let handle = client::connect_stream(config, CalmStream::new(stream), greeter).await?;
        Ok(Connection { handle, notes: notes.clone(), address, _hangup: hangup })
    };
    let fail = |why: String, is_permanent: bool| Failure { address, why, is_permanent };
    match timeout(patience, attempt).await {
        Err(_) => Err(fail(format!("no answer within {} s", patience.as_secs_f32()), false)),
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(russh::Error::NoCommonAlgo { kind, theirs, .. })) => {
            let theirs = one_line(&theirs.join(", "));
            Err(fail(
                format!("it offers only {kind:?} algorithms that are unknown or unsafe: {theirs}"),
                true,
            ))
        }
        Ok(Err(russh::Error::Version)) => {
            Err(fail("what listens there does not speak SSH 2".to_owned(), false))
        }
        Ok(Err(russh::Error::IO(error))) => Err(fail(error.to_string(), false)),
        Ok(Err(error)) => {
            let farewell = one_line(&notes.look().farewell);
            Err(fail(if farewell.is_empty() { one_line(&error.to_string()) } else { farewell }, false))
        }
    }
}

fn nobody(site: &Site, failures: &[Failure]) -> Error {
    let is_permanent = !failures.is_empty() && failures.iter().all(|failure| failure.is_permanent);
    let kind = if is_permanent { Kind::RemoteRefused } else { Kind::RemoteUnreachable };
    let each: Vec<String> =
        failures.iter().map(|failure| format!("{}: {}", failure.address, failure.why)).collect();
    Error::new(kind, format!("cannot connect to {}: {}", site.shown(), each.join("; ")))
}

/// Why a server is not believed, and what to do.
pub(super) fn stranger(site: &Site, key: &PublicKey, standing: &Standing) -> Error {
    let (host, remote) = (site.shown(), &site.remote);
    let shown = super::key::shown(key);
    let file = crate::path::lossy(site.known_hosts.as_os_str().as_encoded_bytes());
    let text = match standing {
        Standing::Known => format!("the host key of {host} is known: {shown}"),
        Standing::Unknown { only_authority: false } => format!(
            "the host key of {host} is not known: {shown}; compare it with the server's own, then record it with \
             `backupbot remote trust {remote}`"
        ),
        Standing::Unknown { only_authority: true } => format!(
            "the host key of {host} is not known: {shown}; {file} has only a certificate authority for it, which is \
             not supported: record the key itself with `backupbot remote trust {remote}`"
        ),
        Standing::Changed { recorded } => format!(
            "the host key of {host} has changed: it is {shown}, and {file} has {}; somebody may be listening in, or \
             the server was set up anew: if you know that it was, run `backupbot remote trust {remote} --replace`",
            list(recorded)
        ),
        Standing::Revoked => {
            format!("the host key of {host} is revoked in {file}: {shown}; the server needs another key")
        }
    };
    Error::new(Kind::HostKey, text)
}

fn list(recorded: &[Recorded]) -> String {
    let each =
        recorded.iter().map(|key| format!("{} {} (line {})", key.algorithm, key.fingerprint, key.line));
    each.collect::<Vec<_>>().join(", ")
}

/// Our side of the negotiation. Hosts are asked for a key of the types that are on file first.
fn config(on_file: &[String]) -> Config {
    let (first, rest): (Vec<_>, Vec<_>) =
        HOST_KEYS.iter().partition(|(name, _)| on_file.iter().any(|known| known == name));
    let keys: Vec<Algorithm> =
        first.into_iter().chain(rest).flat_map(|(_, proofs)| proofs.to_vec()).collect();
    let preferred = Preferred {
        key: Cow::Owned(keys),
        cipher: Cow::Borrowed(if has_aes() { AES_FIRST } else { CHACHA_FIRST }),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    };
    Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-BackupBot_", env!("CARGO_PKG_VERSION")))),
        window_size: WINDOW,
        channel_buffer_size: PACKETS_AHEAD,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        preferred,
        ..Config::default()
    }
}

const AES_FIRST: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_128_CTR];
const CHACHA_FIRST: &[cipher::Name] =
    &[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_256_CTR, cipher::AES_128_CTR];

/// Whether the processor computes AES by itself; without, it is several times slower than ChaCha20.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
