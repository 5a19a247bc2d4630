//! The key file of git-crypt: read, written byte for byte as the program writes it, and made anew.
//!
//! ```text
//! \0GITCRYPTKEY  BE32 2
//! header fields  BE32 id, BE32 length, bytes    1 = name of the key; 0 = end (no length)
//! a version      fields as above                1 = version (BE32), 3 = AES key (32), 5 = HMAC key (64); 0 = end
//! ...            the newest version first, to the end of the file
//! ```
//!
//! An unknown field with an even id is passed over, one with an odd id is refused: so the format says. What is read is
//! at most what was given; a length in it is never believed.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Kind, Result};

/// How a key file begins.
const MAGIC: &[u8; 12] = b"\0GITCRYPTKEY";
/// The only version of the format.
const FORMAT: u32 = 2;
const END: u32 = 0;
const HEADER_NAME: u32 = 1;
const FIELD_VERSION: u32 = 1;
const FIELD_AES: u32 = 3;
const FIELD_HMAC: u32 = 5;
const AES_BYTES: usize = 32;
const HMAC_BYTES: usize = 64;
/// The longest name that git-crypt takes.
const LONGEST_NAME: usize = 128;
/// The size of a file of git-crypt before its version 0.4: both keys and nothing else.
const LEGACY_BYTES: usize = AES_BYTES + HMAC_BYTES;

/// The name of a key that is not the default one; it becomes part of the filter's name and of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

impl KeyName {
    /// A name that git-crypt takes: letters, digits, `-` and `_`, at most 128, and not `default`.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] with the rule.
    pub fn new(name: &str) -> Result<Self> {
        let is_valid = (1..=LONGEST_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && name != "default";
        if !is_valid {
            let text =
                "the name of a git-crypt key has 1 to 128 letters, digits, - and _, and is not `default`";
            return Err(Error::new(Kind::EncryptionKey, text));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Both secrets of one version, on the heap so that moving a key leaves no copy behind.
struct Secrets {
    aes: [u8; AES_BYTES],
    hmac: [u8; HMAC_BYTES],
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.aes.zeroize();
        self.hmac.zeroize();
    }
}

/// One version of a key: what encrypts, and what the nonce is made with.
pub struct KeyVersion {
    version: u32,
    secrets: Box<Secrets>,
}

impl KeyVersion {
    fn generate(version: u32) -> Result<Self> {
        let mut secrets = Box::new(Secrets { aes: [0; AES_BYTES], hmac: [0; HMAC_BYTES] });
        for bytes in [&mut secrets.aes[..], &mut secrets.hmac[..]] {
            getrandom::fill(bytes).map_err(|error| {
                let text = "the system gives no randomness for a new key";
                Error::with_source(Kind::Io, text, std::io::Error::other(error.to_string()))
            })?;
        }
        Ok(Self { version, secrets })
    }

    /// Which version of its key it is.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key of AES-256.
    pub(crate) fn aes(&self) -> &[u8; AES_BYTES] {
        &self.secrets.aes
    }

    /// The key of HMAC-SHA1.
    pub(crate) fn hmac(&self) -> &[u8; HMAC_BYTES] {
        &self.secrets.hmac
    }
}

impl fmt::Debug for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVersion").field("version", &self.version).finish_non_exhaustive()
    }
}

/// A key file: a key with all its versions.
#[derive(Debug)]
pub struct KeyFile {
    name: Option<KeyName>,
    /// The newest first, each version once, at least one.
    versions: Vec<KeyVersion>,
}

impl KeyFile {
    /// A new key, version 0, from the system's randomness.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate(name: Option<KeyName>) -> Result<Self> {
        Ok(Self { name, versions: vec![KeyVersion::generate(0)?] })
    }

    /// A key of version 0 from both its secrets, one behind the other.
    pub(crate) fn of_secrets(bytes: &[u8; LEGACY_BYTES]) -> Self {
        let mut secrets = Box::new(Secrets { aes: [0; AES_BYTES], hmac: [0; HMAC_BYTES] });
        let (aes, hmac) = bytes.split_at(AES_BYTES);
        secrets.aes.copy_from_slice(aes);
        secrets.hmac.copy_from_slice(hmac);
        Self { name: None, versions: vec![KeyVersion { version: 0, secrets }] }
    }

    /// Reads a key file. `place` says in messages where it is from.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`], with the place and what is wrong there.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        let wrong = |why: &str| Error::new(Kind::EncryptionKey, format!("the git-crypt key {place} {why}"));
        let damaged = || wrong("is damaged: restore it from the copy you keep elsewhere");
        let newer = || wrong("is of a newer git-crypt, which this version cannot read");
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(match bytes.len() {
                0 => wrong("is empty"),
                LEGACY_BYTES => wrong("is of git-crypt before 0.4: convert it with `git-crypt migrate-key`"),
                _ if is_openpgp(bytes) => wrong(
                    "is itself encrypted with OpenPGP: give the file that `git-crypt export-key` writes after an unlock",
                ),
                _ => wrong("is not one: give the file that `git-crypt export-key` writes"),
            });
        };
        let mut fields = Fields(rest);
        match fields.number() {
            Some(FORMAT) => {}
            Some(_) => return Err(newer()),
            None => return Err(damaged()),
        }
        let mut name = None;
        loop {
            match fields.next().ok_or_else(damaged)? {
                (END, _) => break,
                // git-crypt writes no empty one, and reads it as none.
                (HEADER_NAME, []) => {}
                (HEADER_NAME, bytes) => {
                    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
                    name = Some(KeyName::new(text).map_err(|_| damaged())?);
                }
                (id, _) if id % 2 == 1 => return Err(newer()),
                _ => {}
            }
        }
        let mut versions: Vec<KeyVersion> = Vec::new();
        while !fields.0.is_empty() {
            let mut version = None;
            let mut secrets = Box::new(Secrets { aes: [0; AES_BYTES], hmac: [0; HMAC_BYTES] });
            let (mut has_aes, mut has_hmac) = (false, false);
            loop {
                match fields.next().ok_or_else(damaged)? {
                    (END, _) => break,
                    (FIELD_VERSION, bytes) => {
                        version = Some(u32::from_be_bytes(bytes.try_into().map_err(|_| damaged())?));
                    }
                    (FIELD_AES, bytes) if bytes.len() == AES_BYTES => {
                        secrets.aes.copy_from_slice(bytes);
                        has_aes = true;
                    }
                    (FIELD_HMAC, bytes) if bytes.len() == HMAC_BYTES => {
                        secrets.hmac.copy_from_slice(bytes);
                        has_hmac = true;
                    }
                    (FIELD_AES | FIELD_HMAC, _) => return Err(damaged()),
                    (id, _) if id % 2 == 1 => return Err(newer()),
                    _ => {}
                }
            }
            // git-crypt would go on with a key of zeros.
            let version = version.filter(|_| has_aes && has_hmac).ok_or_else(damaged)?;
            if versions.iter().any(|other| other.version == version) {
                return Err(wrong(&format!("has version {version} twice")));
            }
            versions.push(KeyVersion { version, secrets });
        }
        if versions.is_empty() {
            return Err(wrong("has no key in it"));
        }
        versions.sort_by_key(|version| std::cmp::Reverse(version.version));
        Ok(Self { name, versions })
    }

    /// The file's bytes, as git-crypt writes them.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        self.bytes_of(self.versions.iter())
    }

    /// The bytes of a file with one of the versions only, as it is wrapped for a recipient.
    pub(crate) fn bytes_of_version(&self, version: &KeyVersion) -> Zeroizing<Vec<u8>> {
        self.bytes_of(std::iter::once(version))
    }

    fn bytes_of<'v>(&self, versions: impl ExactSizeIterator<Item = &'v KeyVersion>) -> Zeroizing<Vec<u8>> {
        // Never moved while it grows, which would leave a copy of a key behind.
        let most = MAGIC.len() + 16 + LONGEST_NAME + versions.len() * (LEGACY_BYTES + 32);
        let mut out = Zeroizing::new(Vec::with_capacity(most));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        if let Some(name) = &self.name {
            put(&mut out, HEADER_NAME, name.as_str().as_bytes());
        }
        out.extend_from_slice(&END.to_be_bytes());
        for version in versions {
            put(&mut out, FIELD_VERSION, &version.version.to_be_bytes());
            put(&mut out, FIELD_AES, version.aes());
            put(&mut out, FIELD_HMAC, version.hmac());
            out.extend_from_slice(&END.to_be_bytes());
        }
        out
    }

    /// The key's name; `None` for the default one.
    pub fn name(&self) -> Option<&KeyName> {
        self.name.as_ref()
    }

    /// Its versions, the newest first.
    pub fn versions(&self) -> &[KeyVersion] {
        &self.versions
    }

    /// The version that encrypts: 0, the only one that the real program decrypts with.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] if there is none, or a newer one, with which git-crypt would encrypt what it cannot read.
    pub fn current(&self) -> Result<&KeyVersion> {
        match self.versions.as_slice() {
            [only] if only.version == 0 => Ok(only),
            _ => {
                let text = "the git-crypt key has other versions than 0, which git-crypt cannot decrypt with: \
                            make a new key instead";
                Err(Error::new(Kind::EncryptionKey, text))
            }
        }
    }
}

fn put(out: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    out.extend_from_slice(&id.to_be_bytes());
    // No field is longer than a name.
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Whether something is a message of OpenPGP, armored or not: a wrapped key that was given for the key itself.
fn is_openpgp(bytes: &[u8]) -> bool {
    // Tag 1, the session key for a recipient, in the old and the new form of a packet's header.
    bytes.starts_with(b"-----BEGIN PGP") || matches!(bytes.first(), Some(0x84..=0x86 | 0xc1))
}

/// Fields that were not read yet.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    /// The next field; `None` if the bytes end in it.
    fn next(&mut self) -> Option<(u32, &'b [u8])> {
        let id = self.number()?;
        if id == END {
            return Some((END, &[]));
        }
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((id, bytes))
    }
}
