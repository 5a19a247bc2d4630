//! The checksum of a plaintext that stands beside its ciphertext.
//!
//! A plain BLAKE3 of a file in the metadata would tell everybody who can guess the file that he guessed right. This one is
//! keyed, so it tells only who has the key whether a file is the same as before.
//!
//! ```text
//! key      = BLAKE3 derive_key(context, secret)       a context of its own for each kind of secret
//! checksum = BLAKE3 keyed_hash(key, plaintext)
//! ```
//!
//! With git-crypt the secret is the AES key and the HMAC key, one behind the other: whoever can decrypt can also check.
//! With gpg there is no secret on the host that encrypts, so it is 32 random bytes that live in the state
//! directory: lost, all checksums change, and every file counts as changed once.

use zeroize::{Zeroize, Zeroizing};

use super::gitcrypt::KeyVersion;
use crate::error::{Error, Kind, Result};

/// Never to change: every checksum hangs on it.
const OF_GIT_CRYPT: &str = "BackupBot 2026-11-23 plaintext checksum, git-crypt";
const OF_STATE: &str = "BackupBot 2026-11-23 plaintext checksum, state";
/// Bytes of the secret of a host that only encrypts.
pub const SECRET_BYTES: usize = 32;

/// What plaintext checksums of one repository are keyed with.
pub struct ChecksumKey(Box<Zeroizing<[u8; 32]>>);

impl std::fmt::Debug for ChecksumKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChecksumKey").finish_non_exhaustive()
    }
}

impl ChecksumKey {
    /// The key that belongs to a key of git-crypt.
    pub fn of_git_crypt(key: &KeyVersion) -> Self {
        let mut secret = Zeroizing::new([0; 96]);
        secret[..32].copy_from_slice(key.aes());
        secret[32..].copy_from_slice(key.hmac());
        Self::derive(OF_GIT_CRYPT, &secret[..])
    }

    /// The key that belongs to the random secret of a host that only encrypts.
    pub fn of_state(secret: &[u8; SECRET_BYTES]) -> Self {
        Self::derive(OF_STATE, secret)
    }

    /// A new secret for [`Self::of_state`].
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new_secret() -> Result<Zeroizing<[u8; SECRET_BYTES]>> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut secret[..]).map_err(|error| {
            Error::with_source(Kind::Io, "the system gives no randomness for a new key", error.to_string())
        })?;
        Ok(secret)
    }

    fn derive(context: &str, secret: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(secret);
        let mut key = Box::new(Zeroizing::new([0; 32]));
        hasher.finalize_xof().fill(&mut key[..]);
        hasher.zeroize();
        Self(key)
    }

    /// A hasher whose result is the checksum; it is fed piece by piece.
    pub fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }

    /// The checksum of a plaintext in memory.
    pub fn checksum(&self, plaintext: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, plaintext).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::gitcrypt::KeyFile;

    #[test]
    fn a_checksum_is_that_of_the_documented_derivation_and_never_changes() {
        let key = ChecksumKey::of_state(&[7; SECRET_BYTES]);
        let derived = blake3::derive_key("BackupBot 2026-11-23 plaintext checksum, state", &[7; 32]);
        assert_eq!(key.checksum(b"abc"), *blake3::keyed_hash(&derived, b"abc").as_bytes());
        let text: String = key.checksum(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "e252f5912fc5bddb4fe58cc496bdac36e99995611b6a95e4cffc4162d3fb1537");
    }

    #[test]
    fn a_checksum_tells_nothing_without_the_key_and_the_same_in_pieces_as_in_one() {
        let file = KeyFile::generate(None).unwrap();
        let other = KeyFile::generate(None).unwrap();
        let key = ChecksumKey::of_git_crypt(&file.versions()[0]);
        let sum = key.checksum(b"some text");
        assert_ne!(sum, *blake3::hash(b"some text").as_bytes());
        assert_ne!(sum, ChecksumKey::of_git_crypt(&other.versions()[0]).checksum(b"some text"));
        let again = KeyFile::parse(&file.to_bytes(), "x").unwrap();
        let mut hasher = ChecksumKey::of_git_crypt(&again.versions()[0]).hasher();
        hasher.update(b"some ").update(b"text");
        assert_eq!(*hasher.finalize().as_bytes(), sum);
        assert_ne!(ChecksumKey::new_secret().unwrap(), ChecksumKey::new_secret().unwrap());
    }
}
