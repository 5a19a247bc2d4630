//! A key of git-crypt, encrypted to OpenPGP recipients, where `git-crypt unlock` looks for it.
//!
//! ```text
//! .git-crypt/keys/<name, or default>/<version>/<FINGERPRINT>.gpg      the key file with that version only, as a message
//! ```
//!
//! The fingerprint is that of the recipient's certificate, not of the subkey that is encrypted to. The paths are those
//! within the repository's tree; nothing below `.git-crypt` is ever encrypted by the filter.

use git2::{ObjectType, Odb, Oid};

use super::key::KeyFile;
use crate::crypt::opener::Opener;
use crate::crypt::openpgp::{self, PrivateKey, Recipient};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::tree::{Listing, MODE_FILE, lookup};

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

/// Where the default key wrapped for somebody stands, in the version that git-crypt uses.
pub fn path_of_default(fingerprint: &str) -> String {
    format!("{DIRECTORY}/keys/default/0/{fingerprint}.gpg")
}

/// The keys of more recipients are not looked at.
const MOST_RECIPIENTS: usize = 1000;

/// Where a snapshot has the key for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTree {
    /// Of the recipient's certificate.
    pub fingerprint: String,
    /// The message's object.
    pub oid: Oid,
}

/// For whom a snapshot has its key. Only what git-crypt would use, the version 0 of the default key, is looked at.
///
/// # Errors
/// [`Kind::Git`] if the trees on the way cannot be read.
pub fn recipients(objects: &Odb<'_>, tree: Oid) -> Result<Vec<InTree>> {
    let path = format!("{DIRECTORY}/keys/default/0");
    let Some(directory) = lookup(objects, tree, path.as_bytes())?.filter(|entry| entry.is_tree()) else {
        return Ok(Vec::new());
    };
    let listing = Listing::read(objects, directory.oid, path.as_bytes())?;
    let files = listing.iter().filter(|(_, entry)| entry.mode == MODE_FILE).filter_map(|(name, entry)| {
        let fingerprint = std::str::from_utf8(name).ok()?.strip_suffix(".gpg")?;
        let is_sound = fingerprint.len() <= 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sound.then(|| InTree { fingerprint: fingerprint.to_owned(), oid: entry.oid })
    });
    Ok(files.take(MOST_RECIPIENTS).collect())
}

/// The message of a wrapped key.
///
/// # Errors
/// [`Kind::Git`] if it cannot be read, or is no small blob.
pub fn read(objects: &Odb<'_>, wrapped: &InTree) -> Result<Vec<u8>> {
    let fail = |error| {
        let text = format!("cannot read the key that is wrapped for {}", wrapped.fingerprint);
        Error::with_source(Kind::Git, text, error)
    };
    let (size, kind) = objects.read_header(wrapped.oid).map_err(fail)?;
    if kind != ObjectType::Blob || size as u64 > LARGEST {
        let text = format!("the key that is wrapped for {} is no small file", wrapped.fingerprint);
        return Err(Error::new(Kind::Git, text));
    }
    Ok(objects.read(wrapped.oid).map_err(fail)?.data().to_vec())
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

/// The same with whatever opens messages.
///
/// # Errors
/// As [`unwrap`]; cancellation.
pub fn open(contents: &[u8], place: &str, opener: &Opener, progress: &Progress) -> Result<KeyFile> {
    KeyFile::parse(&opener.decrypt_whole(contents, LARGEST, progress)?, place)
}
