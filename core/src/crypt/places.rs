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

/// The keys of the repository at this path, read now.
///
/// # Errors
/// [`Kind::EncryptionKey`] if there are none, or one cannot be read.
pub fn keys_of(repository: &Path) -> Result<Arc<Keyring>> {
    let source = PLACES
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .and_then(|places| places.get(repository).cloned());
    match source {
        Some(Source::InHand(keys)) => Ok(keys),
        Some(Source::Configured(method)) => Keyring::read(&method).map(Arc::new),
        None => Err(Error::new(
            Kind::EncryptionKey,
            "this is encrypted, and no key is known here: name its key file with --key-file, or in the configuration \
             (encryption: {method: git-crypt, key_file: F})",
        )),
    }
}
