//! The file of known hosts, in OpenSSH's format: which key a host is to prove itself with.
//!
//! In come the bytes of the file, a host's name in it (`nas`, `[nas]:2222`) and a key; out comes what the file says of
//! that key, or the file's new bytes with a key added or replaced. Names may be hashed (`|1|salt|hash`), have
//! wildcards, or be excluded (`!name`). Lines that cannot be understood count for nothing, as with OpenSSH; no line
//! of another host is ever changed by a byte. Authorities (`@cert-authority`) are not supported: a host is known by
//! its key.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use russh::keys::{HashAlg, PublicKey};
use sha1::{Digest, Sha1};

use crate::error::{Error, Kind, Result};

/// Far more than the hosts of a backup need.
const LARGEST: u64 = 4 << 20;
/// What HMAC-SHA1 works on at a time.
const BLOCK: usize = 64;

/// A key that is on file for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its type, such as `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// The line of the file, counted from 1.
    pub line: usize,
}

/// What the file says of a key that a host has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is the host's.
    Known,
    /// The host is not on file. `only_authority`: but for a certificate authority, which does not count here.
    Unknown {
        /// Whether an authority stands there.
        only_authority: bool,
    },
    /// The host has other keys there.
    Changed {
        /// Which.
        recorded: Vec<Recorded>,
    },
    /// Nobody is to prove anything with it any more.
    Revoked,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

struct Line<'f> {
    number: usize,
    marker: Marker,
    hosts: &'f str,
    algorithm: &'f str,
    key: Vec<u8>,
}

/// A file of known hosts as it was read.
pub(super) struct KnownHosts {
    contents: Vec<u8>,
}

impl KnownHosts {
    /// Reads the file; one that does not exist knows nobody.
    pub(super) fn read(path: &Path) -> Result<Self> {
        use std::io::Read;
        let place = crate::path::lossy(path.as_os_str().as_encoded_bytes());
        let fail = |error: std::io::Error| {
            let kind = crate::error::kind_of_io(&error);
            let kind = if kind == Kind::Io { Kind::HostKey } else { kind };
            Error::with_source(kind, format!("cannot read the known hosts in {place}"), error)
        };
        let mut contents = Vec::new();
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self { contents }),
            Err(error) => return Err(fail(error)),
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::new(
                    Kind::HostKey,
                    format!("the known hosts in {place}: that is no regular file"),
                ));
            }
            Ok(_) => {}
        }
        std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut contents))
            .map_err(fail)?;
        if contents.len() as u64 > LARGEST {
            return Err(Error::new(
                Kind::HostKey,
                format!("{place} is too large to be a file of known hosts"),
            ));
        }
        Ok(Self { contents })
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let lines = self.contents.split(|byte| *byte == b'\n').enumerate();
        lines.filter_map(|(index, line)| parse(index + 1, line))
    }

    fn lines_of<'f>(&'f self, host: &str) -> impl Iterator<Item = Line<'f>> {
        self.lines().filter(move |line| matches(line.hosts, host))
    }

    /// What the file says of `key`, in the encoding of the wire, as a key of `host`.
    pub(super) fn standing(&self, host: &str, key: &[u8]) -> Standing {
        let mut recorded = Vec::new();
        let (mut is_known, mut has_authority) = (false, false);
        for line in self.lines_of(host) {
            match line.marker {
                Marker::Revoked if line.key == key => return Standing::Revoked,
                Marker::Revoked => {}
                Marker::Authority => has_authority = true,
                Marker::None => {
                    is_known |= line.key == key;
                    recorded.push(Recorded {
                        algorithm: line.algorithm.to_owned(),
                        fingerprint: fingerprint(&line.key),
                        line: line.number,
                    });
                }
            }
        }
        match (is_known, recorded.is_empty()) {
            (true, _) => Standing::Known,
            (false, true) => Standing::Unknown { only_authority: has_authority },
            (false, false) => Standing::Changed { recorded },
        }
    }

    /// The types of key that the host has there: what it is asked to prove itself with first.
    pub(super) fn algorithms(&self, host: &str) -> Vec<String> {
        let lines = self.lines_of(host).filter(|line| line.marker == Marker::None);
        lines.map(|line| line.algorithm.to_owned()).collect()
    }

    /// The file with `line` at its end and, if it is to `replace` them, without the keys that `host` had.
    ///
    /// # Errors
    /// [`Kind::HostKey`] where such a key stands on a line with a wildcard that speaks for other hosts too.
    pub(super) fn with(&self, host: &str, line: &str, replace: bool) -> Result<Vec<u8>> {
        let mut contents = Vec::with_capacity(self.contents.len() + line.len() + 2);
        for (index, raw) in self.contents.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let text = raw.strip_suffix(b"\n").unwrap_or(raw);
            let of_host = parse(index + 1, text)
                .filter(|parsed| replace && parsed.marker == Marker::None && matches(parsed.hosts, host));
            match of_host {
                None => contents.extend_from_slice(raw),
                Some(parsed) => contents.extend_from_slice(&without(raw, &parsed, host)?),
            }
        }
        if contents.last().is_some_and(|byte| *byte != b'\n') {
            contents.push(b'\n');
        }
        contents.extend_from_slice(line.as_bytes());
        contents.push(b'\n');
        Ok(contents)
    }
}

/// A line without `host`; nothing if it speaks for no other.
fn without(raw: &[u8], parsed: &Line<'_>, host: &str) -> Result<Vec<u8>> {
    let others: Vec<&str> = parsed.hosts.split(',').filter(|name| !name.eq_ignore_ascii_case(host)).collect();
    let rest = others.join(",");
    if parsed.hosts.starts_with('|') || rest.is_empty() {
        return Ok(Vec::new());
    }
    if matches(&rest, host) {
        let text = format!(
            "line {} of the file of known hosts names {host} by a wildcard: change it by hand",
            parsed.number
        );
        return Err(Error::new(Kind::HostKey, text));
    }
    let start = parsed.hosts.as_ptr() as usize - raw.as_ptr() as usize;
    let mut line = raw[..start].to_vec();
    line.extend_from_slice(rest.as_bytes());
    line.extend_from_slice(&raw[start + parsed.hosts.len()..]);
    Ok(line)
}

fn parse(number: usize, line: &[u8]) -> Option<Line<'_>> {
    let text = std::str::from_utf8(line).ok()?.trim();
    if text.starts_with('#') {
        return None;
    }
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let first = words.next()?;
    let (marker, hosts) = match first {
        "@revoked" => (Marker::Revoked, words.next()?),
        "@cert-authority" => (Marker::Authority, words.next()?),
        other if other.starts_with('@') => return None,
        hosts => (Marker::None, hosts),
    };
    let algorithm = words.next()?;
    let key = STANDARD.decode(words.next()?).ok()?;
    // The type stands in the key as well; a line where they differ is damaged.
    let named = key.get(4..)?.get(..algorithm.len())?;
    (named == algorithm.as_bytes()).then_some(Line { number, marker, hosts, algorithm, key })
}

/// Whether the first word of a line speaks for `host`.
fn matches(hosts: &str, host: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        return hmac_sha1(&salt, host.as_bytes()) == *hash;
    }
    let mut is_named = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(excluded) if fits(excluded, host) => return false,
            Some(_) => {}
            None => is_named |= fits(pattern, host),
        }
    }
    is_named
}

/// `*` stands for anything and `?` for one character; letters count in either case.
fn fits(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.as_bytes(), host.as_bytes());
    let (mut at, mut of) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while of < host.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&host[of]) => {
                (at, of) = (at + 1, of + 1)
            }
            _ => match star {
                Some((from, upto)) => {
                    (at, of) = (from + 1, upto + 1);
                    star = Some((from, upto + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// RFC 2104; no more than hashed host names need.
fn hmac_sha1(key: &[u8], text: &[u8]) -> [u8; 20] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..20].copy_from_slice(&Sha1::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha1::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha1::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

/// `SHA256:…` of a key in the encoding of the wire.
pub(super) fn fingerprint(key: &[u8]) -> String {
    match PublicKey::from_bytes(key) {
        Ok(key) => key.fingerprint(HashAlg::Sha256).to_string(),
        Err(_) => "a key that cannot be read".to_owned(),
    }
}

#[cfg(test)]
#[path = "tests/known_hosts.rs"]
mod tests;
