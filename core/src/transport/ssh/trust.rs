//! For `backupbot remote trust`: which key a server shows, and how it gets on file.
//!
//! [`host_key`] connects and leaves again before anybody logs in. [`record`] writes the key it was given, never one
//! that it fetches itself, so what a person has compared is what is trusted. The file is replaced as a whole and durably;
//! lines of other hosts stay as they are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::connect;
use super::known_hosts::{self, KnownHosts, Standing};
use super::site::Site;
use crate::config::{NetworkUrl, Remote};
use crate::error::{Error, Kind, Result};
use crate::file_lock::LockedFile;
use crate::progress::Progress;
use crate::transport::runtime::run;

/// A server's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// The server, for people: its name and port.
    pub host: String,
    /// Its type, such as `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// The line for a file of known hosts.
    pub line: String,
    /// What is on file about it now.
    pub standing: Standing,
    /// The file.
    pub file: PathBuf,
    known_as: String,
    key: Vec<u8>,
}

/// Asks the server of a remote for its key, and nothing else.
///
/// # Errors
/// [`Kind::RemoteUnreachable`]; [`Kind::HostKey`] if the file cannot be read.
pub fn host_key(
    remote: &Remote,
    url: &NetworkUrl,
    state_dir: &Path,
    patience: Duration,
    progress: &Progress,
) -> Result<HostKey> {
    let site = Site::of(remote, url, state_dir)?;
    let known = Arc::new(KnownHosts::read(&site.known_hosts)?);
    let (key, standing) = run(progress, async {
        let addresses = connect::addresses(&site, patience).await?;
        connect::key_of(&site, &addresses, &known, patience).await
    })?;
    let bytes = key.to_bytes().map_err(|error| {
        Error::with_source(Kind::HostKey, format!("the host key of {} cannot be read", site.shown()), error)
    })?;
    let shown = super::key::shown(&key);
    let algorithm = shown.split(' ').next().unwrap_or_default().to_owned();
    Ok(HostKey {
        host: site.shown(),
        line: format!("{} {algorithm} {}", site.known_as(), STANDARD.encode(&bytes)),
        algorithm,
        fingerprint: known_hosts::fingerprint(&bytes),
        standing,
        known_as: site.known_as(),
        file: site.known_hosts,
        key: bytes,
    })
}

/// Puts the key on file. Keys that the host had there go only if they are to be replaced (`replace`).
///
/// # Errors
/// [`Kind::HostKey`] for a revoked key, for another one than is on file unless it is to be replaced, and for a line
/// with a wildcard that would have to be split.
pub fn record(host: &HostKey, replace: bool) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(Kind::HostKey, format!("the host key of {} {why}", host.host)));
    // Where the file is a link, what it leads to is what is replaced.
    let file = host.file.canonicalize().unwrap_or_else(|_| host.file.clone());
    let fail = |doing: &str, path: &Path, error: io::Error| Error::io(doing, path, error);
    let Some(directory) = file.parent() else { return refuse("has no file to stand in") };
    // It may be the state directory, which is its owner's alone.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| fail("make", directory, error))?;
    // Two of us at once must not lose each other's line.
    let lock = File::open(directory).map_err(|error| fail("open", directory, error))?;
    let lock = LockedFile::wait(lock).map_err(|error| fail("lock", directory, error))?;
    let known = KnownHosts::read(&file)?;
    match known.standing(&host.known_as, &host.key) {
        Standing::Known => return Ok(()),
        Standing::Revoked => return refuse("is revoked there"),
        Standing::Changed { .. } if !replace => {
            return refuse("is another one than before: say that it replaces it");
        }
        Standing::Changed { .. } | Standing::Unknown { .. } => {}
    }
    let contents = known.with(&host.known_as, &host.line, replace)?;
    write(&file, &contents).map_err(|error| fail("write", &file, error))?;
    lock.sync_all().map_err(|error| fail("write", directory, error))
}

/// Replaces the file by one that is complete.
fn write(file: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = file.with_file_name(name);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let attempt = (|| {
        if let Ok(before) = fs::metadata(file) {
            written.set_permissions(fs::Permissions::from_mode(before.permissions().mode() & 0o777))?;
        }
        written.write_all(contents)?;
        written.sync_all()?;
        fs::rename(&draft, file)
    })();
    if attempt.is_err() {
        let _ = fs::remove_file(&draft);
    }
    attempt
}

#[cfg(test)]
#[path = "tests/trust.rs"]
mod tests;
