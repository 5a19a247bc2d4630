//! Where the keys of each repository of this process are: said once by whoever knows the configuration, asked for by whoever
//! meets a ciphertext. No key is kept here, only where it is read at use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::keyring::Keyring;
use crate::config::EncryptionMethod;
use crate::error::{Error, Kind, Result};

/// What was said of all repositories.
#[derive(Debug, Default)]
struct Places {
    announced: HashMap<PathBuf, EncryptionMethod>,
    /// Counts before what was announced, also later: whoever reads the configuration again takes nobody's keys away.
    in_hand: HashMap<PathBuf, Arc<Keyring>>,
}

/// Where keys come from.
enum Source {
    Configured(EncryptionMethod),
    InHand(Arc<Keyring>),
}

static PLACES: RwLock<Option<Places>> = RwLock::new(None);

fn with_places<T>(change: impl FnOnce(&mut Places) -> T) -> T {
    let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
    change(places.get_or_insert_default())
}

/// Says what the configuration has for the repository at this path.
pub fn announce(repository: &Path, method: Option<&EncryptionMethod>) {
    with_places(|places| match method {
        Some(method) => drop(places.announced.insert(repository.to_path_buf(), method.clone())),
        None => drop(places.announced.remove(repository)),
    });
}

/// Keys that a repository has for as long as this lives; then those count again that counted before.
#[derive(Debug)]
#[must_use = "without it the keys are gone at once"]
pub struct Lent(PathBuf, Option<Arc<Keyring>>);

impl Lent {
    /// Gives keys for the repository at this path, for somebody who has no configuration, or names more than it does.
    pub fn to(repository: &Path, keys: Arc<Keyring>) -> Self {
        let before = with_places(|places| places.in_hand.insert(repository.to_path_buf(), keys));
        Self(repository.to_path_buf(), before)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let before = self.1.take();
        with_places(|places| match before {
            Some(keys) => drop(places.in_hand.insert(self.0.clone(), keys)),
            None => drop(places.in_hand.remove(&self.0)),
        });
    }
}

fn source_of(repository: &Path) -> Option<Source> {
    let places = PLACES.read().unwrap_or_else(PoisonError::into_inner);
    let places = places.as_ref()?;
    let in_hand = places.in_hand.get(repository).cloned().map(Source::InHand);
    in_hand.or_else(|| places.announced.get(repository).cloned().map(Source::Configured))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::gitcrypt::KeyFile;
    use crate::crypt::keyring::Key;

    fn ring() -> Arc<Keyring> {
        let key = Key::new(KeyFile::generate(None).unwrap(), Path::new("a key")).unwrap();
        Arc::new(Keyring::of(vec![key]))
    }

    #[test]
    fn lent_keys_count_before_what_is_announced_meanwhile_and_until_they_are_given_back() {
        let place = Path::new("/of/a/test/that/lends/keys.git");
        let known = || known_of(place).unwrap();
        let id = |ring: &Arc<Keyring>| ring.current().unwrap().id().clone();
        let (one, two) = (ring(), ring());
        let nothing = EncryptionMethod::None { old_keys: None };
        assert!(known().is_none() && keys_of(place).is_err());
        let first = Lent::to(place, one.clone());
        announce(place, Some(&nothing));
        assert_eq!(id(&known().unwrap()), id(&one));
        let second = Lent::to(place, two.clone());
        announce(place, None);
        assert_eq!(id(&known().unwrap()), id(&two));
        drop(second);
        assert_eq!(id(&known().unwrap()), id(&one));
        announce(place, Some(&nothing));
        drop(first);
        assert!(known().unwrap().current().is_none(), "what was announced counts again");
        announce(place, None);
        assert!(known().is_none());
    }
}
