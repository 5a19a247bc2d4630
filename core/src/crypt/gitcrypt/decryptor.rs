//! git-crypt's ciphertext, decrypted where it comes in pieces that somebody else reads.
//!
//! In: a ciphertext, piece by piece. Out: the plaintext, piece by piece. As with [`Decrypting`](super::Decrypting) the last
//! piece (all of it, up to 64 KiB) is given only when the whole is proven; what came before it is not proven, and to be
//! thrown away if an error comes.

use hmac::Mac;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::cipher::{
    Authenticator, HEADER, Keystream, LARGEST, NONCE_BYTES, OVERHEAD, PIECE_BYTES, apply, authenticator,
    damaged, keystream, nonce_of, wrong_or_damaged,
};
use super::key::KeyVersion;
use crate::error::{Error, Kind, Result};

const HEADER_BYTES: usize = OVERHEAD as usize;

/// A ciphertext that is being decrypted.
pub struct Decryptor<'k> {
    key: &'k KeyVersion,
    /// Header and nonce, as far as they came.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Absent until the nonce is known, and after an error.
    works: Option<(Keystream, Authenticator)>,
    /// Decrypted and not given yet.
    held: Vec<u8>,
    /// Given, until the next call.
    given: Vec<u8>,
    size: u64,
}

impl<'k> Decryptor<'k> {
    /// Decrypts with this key.
    pub fn new(key: &'k KeyVersion) -> Self {
        Self {
            key,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            works: None,
            held: Vec::new(),
            given: Vec::new(),
            size: 0,
        }
    }

    /// Takes as much from the beginning of `ciphertext` as it can, and gives what came of it, which may be nothing.
    ///
    /// # Errors
    /// [`Kind::Git`] for what is no ciphertext. After an error nothing more is decrypted.
    pub fn take(&mut self, ciphertext: &mut &[u8]) -> Result<&[u8]> {
        if self.header_bytes < HEADER_BYTES {
            self.take_header(ciphertext)?;
            return Ok(&[]);
        }
        if self.held.len() == PIECE_BYTES && !ciphertext.is_empty() {
            std::mem::swap(&mut self.held, &mut self.given);
            self.held.clear();
            return Ok(&self.given);
        }
        let length = ciphertext.len().min(PIECE_BYTES - self.held.len());
        let (piece, rest) = ciphertext.split_at(length);
        *ciphertext = rest;
        let Some((mut keystream, mut authenticator)) = self.works.take() else {
            return Err(wrong_or_damaged());
        };
        self.size += length as u64;
        if self.size > LARGEST {
            return Err(damaged("is larger than git-crypt can make one"));
        }
        let begin = self.held.len();
        // Never moved while it grows: what it was moved from would stay in memory.
        if self.held.capacity() == 0 {
            self.held.reserve_exact(PIECE_BYTES);
        }
        self.held.extend_from_slice(piece);
        let new = &mut self.held[begin..];
        apply(&mut keystream, new)
            .map_err(|error| Error::with_source(Kind::Git, "git-crypt's counter ran out", error))?;
        authenticator.update(new);
        self.works = Some((keystream, authenticator));
        Ok(&[])
    }

    fn take_header(&mut self, ciphertext: &mut &[u8]) -> Result<()> {
        let length = ciphertext.len().min(HEADER_BYTES - self.header_bytes);
        let (piece, rest) = ciphertext.split_at(length);
        *ciphertext = rest;
        self.header[self.header_bytes..][..length].copy_from_slice(piece);
        self.header_bytes += length;
        let known = self.header_bytes.min(HEADER.len());
        if self.header[..known] != HEADER[..known] {
            return Err(is_clear_text());
        }
        if self.header_bytes == HEADER_BYTES {
            self.works = Some((keystream(self.key, &self.nonce()), authenticator(self.key)));
        }
        Ok(())
    }

    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.header[HEADER.len()..]);
        nonce
    }

    /// The ciphertext ended: gives the last of the plaintext, which proves the whole. Nothing at all is an empty file.
    ///
    /// # Errors
    /// [`Kind::Git`] if it is damaged, or was made with another key.
    pub fn finish(&mut self) -> Result<&[u8]> {
        if self.header_bytes == 0 {
            return Ok(&[]);
        }
        if self.header_bytes < HEADER_BYTES {
            return Err(damaged("ends within its header"));
        }
        let is_proven = match self.works.take() {
            Some((_, all)) => bool::from(nonce_of(all).ct_eq(&self.nonce())),
            None => false,
        };
        if is_proven { Ok(&self.held) } else { Err(wrong_or_damaged()) }
    }
}

impl Drop for Decryptor<'_> {
    fn drop(&mut self) {
        // The one was the other before.
        self.held.zeroize();
        self.given.zeroize();
    }
}

/// What stands where a ciphertext should is none.
pub fn is_clear_text() -> Error {
    let text = "it stands in the repository in clear text although the snapshot says that it is encrypted: another program \
                put it there, or it is damaged; look at it with `backupbot cat --raw` before you trust it";
    Error::new(Kind::Git, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::gitcrypt::{KeyFile, cipher};

    /// What came, and how it ended, for a ciphertext in pieces of this size.
    fn pushed(key: &KeyVersion, ciphertext: &[u8], piece: usize) -> (Vec<u8>, Result<()>) {
        let mut decryptor = Decryptor::new(key);
        let mut plaintext = Vec::new();
        for mut piece in ciphertext.chunks(piece) {
            while !piece.is_empty() {
                match decryptor.take(&mut piece) {
                    Ok(plain) => plaintext.extend_from_slice(plain),
                    Err(error) => return (plaintext, Err(error)),
                }
            }
        }
        match decryptor.finish() {
            Ok(plain) => plaintext.extend_from_slice(plain),
            Err(error) => return (plaintext, Err(error)),
        }
        (plaintext, Ok(()))
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn what_was_encrypted_comes_back_in_pieces_of_any_size() {
        let file = KeyFile::generate(None).unwrap();
        let key = file.current().unwrap();
        for length in [0, 1, 21, 22, 23, 65_535, 65_536, 65_537, 200_000] {
            let plaintext = text(length);
            let ciphertext = cipher::encrypt_whole(key, &plaintext).unwrap();
            for piece in [1, 7, 22, 65_536, 65_558, 1 << 20] {
                if piece < 7 && length > 1000 {
                    continue;
                }
                let (out, ended) = pushed(key, &ciphertext, piece);
                assert!(ended.is_ok() && out == plaintext, "{length} bytes in pieces of {piece}");
            }
        }
        assert!(pushed(key, b"", 1).1.is_ok(), "other versions leave an empty file empty");
    }

    #[test]
    fn whatever_is_flipped_or_cut_off_is_an_error_and_a_small_file_gives_no_byte_of_it() {
        let (file, other) = (KeyFile::generate(None).unwrap(), KeyFile::generate(None).unwrap());
        let key = file.current().unwrap();
        let ciphertext = cipher::encrypt_whole(key, &text(500)).unwrap();
        for at in 0..ciphertext.len() {
            let mut flipped = ciphertext.clone();
            flipped[at] ^= 4;
            let (out, ended) = pushed(key, &flipped, 64);
            assert!(ended.is_err() && out.is_empty(), "a flip at {at}");
        }
        for length in 1..ciphertext.len() {
            let (out, ended) = pushed(key, &ciphertext[..length], 64);
            assert!(ended.is_err() && out.is_empty(), "cut off at {length}");
        }
        let (out, ended) = pushed(other.current().unwrap(), &ciphertext, 64);
        assert!(out.is_empty() && ended.unwrap_err().to_string().contains("another key"));
        let (out, ended) = pushed(key, b"a letter", 3);
        assert!(out.is_empty() && ended.unwrap_err().to_string().contains("clear text"));
    }

    #[test]
    fn the_last_piece_of_a_large_file_waits_for_the_proof() {
        let file = KeyFile::generate(None).unwrap();
        let key = file.current().unwrap();
        let mut ciphertext = cipher::encrypt_whole(key, &text(3 * PIECE_BYTES)).unwrap();
        let last = ciphertext.len() - 1;
        ciphertext[last] ^= 1;
        let (out, ended) = pushed(key, &ciphertext, 10_000);
        assert!(ended.is_err());
        assert_eq!(out.len(), 2 * PIECE_BYTES);
    }
}
