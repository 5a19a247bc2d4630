//! Where the keys of each repository of this process are: said once by whoever knows the configuration, asked for by whoever
//! meets a ciphertext. No key is kept here, only where it is read at use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::keyring::Keyring;
use crate::config::EncryptionMethod;
use crate::error::{Error, Kind, Result};

/// Where keys come from.
#[derive(Debug, Clone)]
enum Source {
    Configured(EncryptionMethod),
    InHand(Arc<Keyring>),
}

static PLACES: RwLock<Option<HashMap<PathBuf, Source>>> = RwLock::new(None);

fn set(repository: &Path, source: Option<Source>) {
    let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
    let places = places.get_or_insert_with(HashMap::new);
    match source {
        Some(source) => places.insert(repository.to_path_buf(), source),
        None => places.remove(repository),
    };
}

/// Says what the configuration has for the repository at this path.
pub fn announce(repository: &Path, method: Option<&EncryptionMethod>) {
    set(repository, method.cloned().map(Source::Configured));
}

/// Gives keys for the repository at this path, for a restore by somebody who has no configuration.
pub fn hand_over(repository: &Path, keys: Arc<Keyring>) {
    set(repository, Some(Source::InHand(keys)));
}

/// Keys that a repository has for as long as this lives; then those count again that counted before.
#[derive(Debug)]
#[must_use = "without it the keys are gone at once"]
pub struct Lent(PathBuf, Option<Source>);

impl Lent {
    /// Gives keys for the repository at this path.
    pub fn to(repository: &Path, keys: Arc<Keyring>) -> Self {
        let before = source_of(repository);
        hand_over(repository, keys);
        Self(repository.to_path_buf(), before)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        set(&self.0, self.1.take());
    }
}

fn source_of(repository: &Path) -> Option<Source> {
    let places = PLACES.read().unwrap_or_else(PoisonError::into_inner);
    places.as_ref()?.get(repository).cloned()
}

/// The keys of the repository at this path, read now; nothing if nobody said where they are.
///
/// # Errors
/// [`Kind::EncryptionKey`] if one cannot be read.
pub fn known_of(repository: &Path) -> Result<Option<Arc<Keyring>>> {
    match source_of(repository) {
        Some(Source::InHand(keys)) => Ok(Some(keys)),
        Some(Source::Configured(method)) => Keyring::read(&method).map(|keys| Some(Arc::new(keys))),
        None => Ok(None),
    }
}

/// The keys of the repository at this path, read now.
///
/// # Errors
/// [`Kind::EncryptionKey`] if there are none, or one cannot be read.
pub fn keys_of(repository: &Path) -> Result<Arc<Keyring>> {
    known_of(repository)?.ok_or_else(|| {
        Error::new(
            Kind::EncryptionKey,
            "this is encrypted, and no key is known here: name its key file with --key-file, or in the configuration \
             (encryption: {method: git-crypt, key_file: F})",
        )
    })
}
