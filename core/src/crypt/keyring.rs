//! The keys of one repository: read from their files at use, so that another key needs no restart.
//!
//! In: what the configuration says of the encryption, or the key files that somebody names for a restore. Out: the key that
//! encrypts, and for a snapshot the key that decrypts it. An unreadable key is an error, never an absent one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gitcrypt::{KeyFile, KeyVersion, cipher};
use super::keyed::ChecksumKey;
use super::opener::Opener;
use super::openpgp::PrivateKey;
use super::policy::KeyId;
use crate::config::{EncryptionMethod, Gpg, SecretSource};
use crate::error::{Error, Kind, Result};
use crate::path::lossy;
use crate::secret;

/// What the names of old keys end with.
pub const KEY_SUFFIX: &str = "key";
/// More old keys are not read: nobody rotates so often, and a directory may be the wrong one.
const MOST_KEYS: usize = 1000;

/// A key with what follows from it.
#[derive(Debug)]
pub struct Key {
    id: KeyId,
    file: KeyFile,
    place: PathBuf,
    checksums: ChecksumKey,
}

impl Key {
    /// Takes a key over; `place` says in messages where it is from.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] for a key that git-crypt cannot decrypt with, or one with a name of its own.
    pub fn new(file: KeyFile, place: &Path) -> Result<Self> {
        if let Some(name) = file.name() {
            let text = format!(
                "the key {} is git-crypt's key {:?}: only its default key is used here",
                shown(place),
                name.as_str()
            );
            return Err(Error::new(Kind::EncryptionKey, text));
        }
        let version = file.current()?;
        let (id, checksums) = (KeyId::of(version), ChecksumKey::of_git_crypt(version));
        Ok(Self { id, file, place: place.to_path_buf(), checksums })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`], with the place and the remedy.
    pub fn read(path: &Path) -> Result<Self> {
        let found = secret::read(&SecretSource::File(path.to_path_buf()), "git-crypt key", true);
        let found = found.map_err(|error| {
            let text = "make one with `backupbot keys create`, or bring it back with `backupbot keys import`";
            let cause = error.to_string();
            Error::with_source(
                Kind::EncryptionKey,
                format!("no key to encrypt and decrypt with ({text})"),
                cause,
            )
        })?;
        Self::new(KeyFile::parse(found.secret.bytes(), &shown(path))?, path)
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What encrypts.
    ///
    /// # Errors
    /// None that [`Key::new`] has not told already.
    pub fn version(&self) -> Result<&KeyVersion> {
        self.file.current()
    }

    /// The whole key file.
    pub fn file(&self) -> &KeyFile {
        &self.file
    }

    /// Where it was read.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// What plaintext checksums are keyed with.
    pub fn checksums(&self) -> &ChecksumKey {
        &self.checksums
    }
}

/// The keys of one repository.
#[derive(Debug, Default)]
pub struct Keyring {
    current: Option<Arc<Key>>,
    old: Vec<Arc<Key>>,
    /// What opens contents that are OpenPGP messages.
    opener: Opener,
    /// The key that is missing here was made by ourselves: it is lost, and nobody has it elsewhere.
    makes_key: bool,
}

impl Keyring {
    /// Reads the keys that the configuration names.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] for the first that cannot be read.
    pub fn read(method: &EncryptionMethod) -> Result<Self> {
        match method {
            EncryptionMethod::None { old_keys } => Ok(Self {
                current: None,
                old: old_keys.as_deref().map(read_directory).transpose()?.unwrap_or_default(),
                ..Self::default()
            }),
            EncryptionMethod::GitCrypt { key_file, old_keys, .. } => {
                let current = Arc::new(Key::read(key_file)?);
                Ok(Self { current: Some(current), old: read_directory(old_keys)?, ..Self::default() })
            }
            EncryptionMethod::Gpg(gpg) => Self::read_gpg(gpg),
        }
    }

    fn read_gpg(gpg: &Gpg) -> Result<Self> {
        // One that we make is not there before the first snapshot, nor after a lost state.
        let is_absent = gpg.makes_key && !gpg.key_file.try_exists().unwrap_or(true);
        let current = if is_absent { None } else { Some(Arc::new(Key::read(&gpg.key_file)?)) };
        let private = match &gpg.private_key {
            Some(path) => vec![Arc::new(PrivateKey::read(path, gpg.passphrase_file.as_deref())?)],
            None => Vec::new(),
        };
        let opener = Opener::new(private, gpg.agent);
        Ok(Self { current, old: read_directory(&gpg.old_keys)?, opener, makes_key: gpg.makes_key })
    }

    /// Keys that somebody has in hand: the first encrypts, if anything is.
    pub fn of(keys: Vec<Key>) -> Self {
        let mut keys = keys.into_iter().map(Arc::new);
        Self { current: keys.next(), old: keys.collect(), ..Self::default() }
    }

    /// Keys that somebody has in hand, and then those of another ring.
    pub fn joined(keys: Vec<Arc<Key>>, others: Option<&Self>) -> Self {
        let mut all = keys.into_iter().chain(others.into_iter().flat_map(|ring| ring.keys().cloned()));
        let opener = others.map(|ring| ring.opener.clone()).unwrap_or_default();
        Self { current: all.next(), old: all.collect(), opener, makes_key: false }
    }

    /// The same, and something that opens OpenPGP messages besides what it has.
    #[must_use]
    pub fn with_opener(self, opener: &Opener) -> Self {
        Self { opener: opener.joined(&self.opener), ..self }
    }

    /// Whether a key that is not here is lost, because it was only ever here.
    pub fn makes_key(&self) -> bool {
        self.makes_key
    }

    /// What opens contents that are OpenPGP messages.
    pub fn opener(&self) -> &Opener {
        &self.opener
    }

    /// The key that encrypts.
    pub fn current(&self) -> Option<&Arc<Key>> {
        self.current.as_ref()
    }

    /// All of them, the one that encrypts first.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.current.iter().chain(&self.old)
    }

    /// The key with this name.
    pub fn find(&self, id: &KeyId) -> Option<&Arc<Key>> {
        self.keys().find(|key| key.id() == id)
    }

    /// Decrypts a small ciphertext with whichever key it was made with.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`] if none of the keys opens it.
    pub fn open_whole(&self, ciphertext: &[u8]) -> Result<Vec<u8>> {
        let mut versions = Vec::new();
        for key in self.keys() {
            versions.push(key.version()?);
        }
        cipher::decrypt_whole(&versions, ciphertext)
    }
}

/// The keys in a directory; none if it is not there.
fn read_directory(directory: &Path) -> Result<Vec<Arc<Key>>> {
    key_files(directory)?.iter().map(|path| Key::read(path).map(Arc::new)).collect()
}

/// The files in a directory of old keys, by their names; none if it is not there.
///
/// # Errors
/// [`Kind::EncryptionKey`] if it cannot be listed, or is none of ours.
pub fn key_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error: io::Error| {
        Error::with_source(
            Kind::EncryptionKey,
            format!("cannot list the old keys in {}", shown(directory)),
            error,
        )
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == KEY_SUFFIX) {
            paths.push(path);
        }
        if paths.len() > MOST_KEYS {
            let text =
                format!("{} holds more than {MOST_KEYS} keys: is it the right directory?", shown(directory));
            return Err(Error::new(Kind::EncryptionKey, text));
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn shown(path: &Path) -> String {
    lossy(path.as_os_str().as_encoded_bytes())
}
