//! A key of git-crypt, encrypted to OpenPGP recipients, where `git-crypt unlock` looks for it.
//!
//! ```text
//! .git-crypt/keys/<name, or default>/<version>/<FINGERPRINT>.gpg      the key file with that version only, as a message
//! ```
//!
//! The fingerprint is that of the recipient's certificate, not of the subkey that is encrypted to. The paths are those
//! within the repository's tree; nothing below `.git-crypt` is ever encrypted by the filter.

use super::key::KeyFile;
use crate::crypt::openpgp::{self, PrivateKey, Recipient};
use crate::error::{Error, Kind, Result};

/// The directory of everything that git-crypt keeps in a tree.
pub const DIRECTORY: &str = ".git-crypt";
/// No wrapped key is larger.
pub const LARGEST: u64 = 64 * 1024;

/// A file to be put into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// Where, from the top of the tree.
    pub path: String,
    /// What.
    pub contents: Vec<u8>,
}

/// Wraps the key for each recipient. Every call gives other contents for the same key, so a caller keeps the file of a
/// recipient who has one.
///
/// # Errors
/// [`Kind::EncryptionKey`] if the key is not one that git-crypt can decrypt with.
pub fn wrap(key: &KeyFile, recipients: &[Recipient]) -> Result<Vec<Wrapped>> {
    let version = key.current()?;
    let plaintext = key.bytes_of_version(version);
    recipients
        .iter()
        .map(|recipient| {
            let contents = openpgp::encrypt_whole(&plaintext, std::slice::from_ref(recipient))?;
            Ok(Wrapped { path: path_of(key, version.version(), recipient.fingerprint()), contents })
        })
        .collect()
}

/// Where a key wrapped for somebody stands.
pub fn path_of(key: &KeyFile, version: u32, fingerprint: &str) -> String {
    let name = key.name().map_or("default", |name| name.as_str());
    format!("{DIRECTORY}/keys/{name}/{version}/{fingerprint}.gpg")
}

/// Opens a wrapped key; `place` says in messages where it is from.
///
/// # Errors
/// [`Kind::EncryptionKey`] if none of `keys` opens it, or it holds no key of git-crypt; [`Kind::Git`] if it is damaged.
pub fn unwrap(contents: &[u8], place: &str, keys: &[&PrivateKey]) -> Result<KeyFile> {
    if contents.len() as u64 > LARGEST {
        return Err(Error::new(
            Kind::EncryptionKey,
            format!("{place} is too large to be a wrapped git-crypt key"),
        ));
    }
    let plaintext = zeroize::Zeroizing::new(openpgp::decrypt_whole(contents, keys, LARGEST)?);
    KeyFile::parse(&plaintext, place)
}
