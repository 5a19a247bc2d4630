//! The checksum of a plaintext that stands beside its ciphertext.
//!
//! A plain BLAKE3 of a file in the metadata would tell everybody who can guess the file that he guessed right. This one is
//! keyed, so it tells only who has the key whether a file is the same as before.
//!
//! ```text
//! key      = BLAKE3 derive_key(context, secret)
//! checksum = BLAKE3 keyed_hash(key, plaintext)
//! ```
//!
//! The secret is the AES key and the HMAC key of git-crypt's key file, one behind the other. Where contents are OpenPGP messages,
//! that key has nothing but the metadata and these checksums: lost, all checksums change, and every file is encrypted anew.

use zeroize::{Zeroize, Zeroizing};

use super::gitcrypt::KeyVersion;

/// Never to change: every checksum hangs on it.
const OF_GIT_CRYPT: &str = "BackupBot 2026-11-23 plaintext checksum, git-crypt";

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
        let mut file = b"\0GITCRYPTKEY\0\0\0\x02\0\0\0\0".to_vec();
        for (field, value) in [(1u32, vec![0; 4]), (3, vec![7; 32]), (5, vec![9; 64])] {
            file.extend(field.to_be_bytes());
            file.extend((value.len() as u32).to_be_bytes());
            file.extend(value);
        }
        file.extend([0; 4]);
        let file = KeyFile::parse(&file, "x").unwrap();
        let key = ChecksumKey::of_git_crypt(&file.versions()[0]);
        let secret = [[7; 32], [9; 32], [9; 32]].concat();
        let derived = blake3::derive_key("BackupBot 2026-11-23 plaintext checksum, git-crypt", &secret);
        assert_eq!(key.checksum(b"abc"), *blake3::keyed_hash(&derived, b"abc").as_bytes());
        let text: String = key.checksum(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "241611e98bb4031ac6a85228e8c6254678c5ab025db06468ae0029e84d606199");
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
    }
}
