//! git-crypt's ciphertext, made and read as streams with flat memory.
//!
//! ```text
//! \0GITCRYPT\0   nonce (12)   AES-256-CTR of the bytes, counter block = nonce ‖ BE32 number of the block
//!                nonce = the first 12 bytes of HMAC-SHA1(HMAC key, plaintext)
//! ```
//!
//! The nonce is also what proves the plaintext, so encrypting takes two passes: [`Nonce::of`] over the plaintext, then
//! [`Encrypting`]. An empty file is header and nonce alone, as git-crypt 0.7 writes it; other versions leave it empty, and
//! that is read too.

use std::io::{self, Read};

use aes::Aes256;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha1_of_hmac::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::key::KeyVersion;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// How a ciphertext begins.
pub const HEADER: &[u8; 10] = b"\0GITCRYPT\0";
pub(super) const NONCE_BYTES: usize = 12;
/// What a ciphertext is longer than its plaintext.
pub const OVERHEAD: u64 = (HEADER.len() + NONCE_BYTES) as u64;
/// The largest plaintext: git-crypt counts bytes in 32 bits, and gives up when the count comes round to zero.
pub const LARGEST: u64 = u32::MAX as u64;
/// Bytes read at a time.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Whether bytes, which may be only the beginning of a file, have git-crypt's header and a whole nonce.
pub fn has_header(beginning: &[u8]) -> bool {
    beginning.starts_with(HEADER) && beginning.len() as u64 >= OVERHEAD
}

/// Fails for a plaintext that git-crypt's format cannot hold.
///
/// # Errors
/// [`Kind::TooLarge`], with the limit.
pub fn check_size(plaintext: u64) -> Result<()> {
    if plaintext <= LARGEST {
        return Ok(());
    }
    let text = "git-crypt encrypts files of less than 4 GiB: ignore the file, leave its directory out of `encryption`, \
                or use `method: gpg`";
    Err(Error::new(Kind::TooLarge, text))
}

pub(super) type Keystream = Ctr32BE<Aes256>;
pub(super) type Authenticator = Hmac<Sha1>;

pub(super) fn keystream(key: &KeyVersion, nonce: &[u8; NONCE_BYTES]) -> Keystream {
    let mut counter = [0; 16];
    counter[..NONCE_BYTES].copy_from_slice(nonce);
    Keystream::new(key.aes().into(), &counter.into())
}

pub(super) fn authenticator(key: &KeyVersion) -> Authenticator {
    <Authenticator as KeyInit>::new(key.hmac().into())
}

pub(super) fn nonce_of(authenticator: Authenticator) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&authenticator.finalize().into_bytes()[..NONCE_BYTES]);
    nonce
}

/// No more than the largest plaintext passes here, which is far less than the counter allows.
pub(super) fn apply(keystream: &mut Keystream, bytes: &mut [u8]) -> io::Result<()> {
    keystream.try_apply_keystream(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

fn of_ours(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn read_some(source: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Fills `piece` as far as the source goes.
fn read_full(source: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match read_some(source, &mut piece[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// What the first pass over a plaintext tells the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce {
    bytes: [u8; NONCE_BYTES],
    size: u64,
}

impl Nonce {
    /// Reads a plaintext to its end.
    ///
    /// # Errors
    /// Of the source; [`Kind::TooLarge`] as soon as there is more than [`LARGEST`]; cancellation.
    pub fn of(key: &KeyVersion, mut plaintext: impl Read, progress: &Progress) -> Result<Self> {
        let mut authenticator = authenticator(key);
        let mut size: u64 = 0;
        let mut piece = vec![0; PIECE_BYTES];
        let read = loop {
            progress.check()?;
            match read_some(&mut plaintext, &mut piece) {
                Ok(0) => break Ok(()),
                Ok(read) => {
                    size += read as u64;
                    check_size(size)?;
                    authenticator.update(&piece[..read]);
                }
                Err(error) => break Err(error),
            }
        };
        piece.zeroize();
        read.map_err(|error| crate::crypt::error_of(error, "read what is to be encrypted"))?;
        Ok(Self { bytes: nonce_of(authenticator), size })
    }

    /// The same for a plaintext that is in memory.
    ///
    /// # Errors
    /// [`Kind::TooLarge`].
    pub fn of_bytes(key: &KeyVersion, plaintext: &[u8]) -> Result<Self> {
        check_size(plaintext.len() as u64)?;
        let mut authenticator = authenticator(key);
        authenticator.update(plaintext);
        Ok(Self { bytes: nonce_of(authenticator), size: plaintext.len() as u64 })
    }

    /// Bytes of the plaintext.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the ciphertext.
    pub fn encrypted_size(&self) -> u64 {
        self.size + OVERHEAD
    }
}

/// A plaintext in memory, encrypted.
///
/// # Errors
/// [`Kind::TooLarge`].
pub fn encrypt_whole(key: &KeyVersion, plaintext: &[u8]) -> Result<Vec<u8>> {
    let nonce = Nonce::of_bytes(key, plaintext)?;
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD as usize);
    out.extend_from_slice(HEADER);
    out.extend_from_slice(&nonce.bytes);
    out.extend_from_slice(plaintext);
    apply(&mut keystream(key, &nonce.bytes), &mut out[OVERHEAD as usize..])
        .map_err(|error| Error::with_source(Kind::Internal, "git-crypt's counter ran out", error))?;
    Ok(out)
}

/// The second pass: reads a plaintext, gives the ciphertext.
///
/// Two plaintexts under one nonce would betray each other, so a source that is not what the first pass read is an error
/// before the last piece is given; the pieces before it are then to be thrown away.
pub struct Encrypting<R> {
    source: R,
    nonce: Nonce,
    keystream: Keystream,
    /// Taken when it has seen as many bytes as the first pass.
    authenticator: Option<Authenticator>,
    /// Bytes of header and nonce that were given.
    header_given: usize,
    left: u64,
    /// An error was given, and no end of the source makes it good.
    is_broken: bool,
}

impl<R: Read> Encrypting<R> {
    /// Encrypts what is read from `source`, which is to be what `nonce` was made of.
    pub fn new(key: &KeyVersion, nonce: Nonce, source: R) -> Self {
        Self {
            source,
            keystream: keystream(key, &nonce.bytes),
            authenticator: Some(authenticator(key)),
            header_given: 0,
            left: nonce.size,
            is_broken: false,
            nonce,
        }
    }

    fn changed(&mut self) -> io::Error {
        self.is_broken = true;
        of_ours(Error::new(Kind::Io, "the file changed between the two readings that its encryption needs"))
    }
}

impl<R: Read> Read for Encrypting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.is_broken {
            return Err(self.changed());
        }
        if self.header_given < OVERHEAD as usize {
            let mut header = [0; OVERHEAD as usize];
            header[..HEADER.len()].copy_from_slice(HEADER);
            header[HEADER.len()..].copy_from_slice(&self.nonce.bytes);
            let rest = &header[self.header_given..];
            let given = rest.len().min(out.len());
            out[..given].copy_from_slice(&rest[..given]);
            self.header_given += given;
            return Ok(given);
        }
        if self.left == 0 {
            // Also what grew is not what was measured.
            return match read_some(&mut self.source, &mut [0])? {
                0 => Ok(0),
                _ => Err(self.changed()),
            };
        }
        let most = usize::try_from(self.left).map_or(out.len(), |left| left.min(out.len()));
        let piece = &mut out[..most];
        // Until it is encrypted it is a plaintext in somebody else's buffer.
        let read = match read_some(&mut self.source, piece) {
            Ok(0) => return Err(self.changed()),
            Ok(read) => read,
            Err(error) => {
                piece.zeroize();
                return Err(error);
            }
        };
        let piece = &mut piece[..read];
        self.left -= read as u64;
        let Some(authenticator) = &mut self.authenticator else {
            piece.zeroize();
            return Err(self.changed());
        };
        authenticator.update(piece);
        if self.left == 0 {
            let authenticator = self.authenticator.take();
            let is_same = authenticator.is_some_and(|all| bool::from(nonce_of(all).ct_eq(&self.nonce.bytes)));
            if !is_same {
                piece.zeroize();
                return Err(self.changed());
            }
        }
        apply(&mut self.keystream, piece)?;
        Ok(read)
    }
}

/// Reads a ciphertext, gives the plaintext.
///
/// The last piece (all of it, up to 64 KiB) is given only when the whole is proven. What came before it is not proven,
/// and to be thrown away if an error comes.
pub struct Decrypting<R> {
    source: R,
    nonce: [u8; NONCE_BYTES],
    keystream: Keystream,
    /// Taken when the plaintext is proven, or proven wrong.
    authenticator: Option<Authenticator>,
    is_proven: bool,
    /// Decrypted, being given from `given`.
    current: Vec<u8>,
    given: usize,
    /// Read, but neither decrypted nor given.
    next: Vec<u8>,
    size: u64,
}

impl<R: Read> Decrypting<R> {
    /// Reads the header. An empty source is an empty file.
    ///
    /// # Errors
    /// [`Kind::Git`] if it is not git-crypt's ciphertext; of the source.
    pub fn new(key: &KeyVersion, mut source: R) -> Result<Self> {
        let nonce = read_header(&mut source)?;
        let mut next = vec![0; PIECE_BYTES];
        let is_proven = nonce.is_none();
        let authenticator = nonce.map(|_| authenticator(key));
        let nonce = nonce.unwrap_or_default();
        let read = read_full(&mut source, &mut next).map_err(unreadable)?;
        next.truncate(read);
        let current = Vec::with_capacity(PIECE_BYTES);
        let keystream = keystream(key, &nonce);
        Ok(Self { source, nonce, keystream, authenticator, is_proven, current, given: 0, next, size: 0 })
    }

    /// Makes the next piece the current one, and proves the whole if it is the last.
    fn advance(&mut self) -> io::Result<()> {
        let Some(mut authenticator) = self.authenticator.take() else {
            return if self.is_proven { Ok(()) } else { Err(of_ours(wrong_or_damaged())) };
        };
        std::mem::swap(&mut self.current, &mut self.next);
        self.given = self.current.len();
        self.size += self.current.len() as u64;
        if self.size > LARGEST {
            return Err(of_ours(damaged("is larger than git-crypt can make one")));
        }
        apply(&mut self.keystream, &mut self.current)?;
        authenticator.update(&self.current);
        self.next.resize(PIECE_BYTES, 0);
        let read = read_full(&mut self.source, &mut self.next)?;
        self.next.truncate(read);
        if read == 0 {
            if !bool::from(nonce_of(authenticator).ct_eq(&self.nonce)) {
                self.current.zeroize();
                self.given = 0;
                self.current.clear();
                return Err(of_ours(wrong_or_damaged()));
            }
            self.is_proven = true;
        } else {
            self.authenticator = Some(authenticator);
        }
        self.given = 0;
        Ok(())
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.given == self.current.len() {
            self.advance()?;
        }
        let rest = &self.current[self.given..];
        let given = rest.len().min(out.len());
        out[..given].copy_from_slice(&rest[..given]);
        self.given += given;
        Ok(given)
    }
}

impl<R> Drop for Decrypting<R> {
    fn drop(&mut self) {
        // The one was the other before.
        self.current.zeroize();
        self.next.zeroize();
    }
}

/// Reads header and nonce; `None` for an empty source.
fn read_header(source: &mut impl Read) -> Result<Option<[u8; NONCE_BYTES]>> {
    let mut header = [0; OVERHEAD as usize];
    let read = read_full(source, &mut header).map_err(unreadable)?;
    if read == 0 {
        return Ok(None);
    }
    if !header[..read].starts_with(HEADER) {
        return Err(damaged("has no header of git-crypt: it was never encrypted, or is damaged"));
    }
    if read < header.len() {
        return Err(damaged("ends within its header"));
    }
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&header[HEADER.len()..]);
    Ok(Some(nonce))
}

fn unreadable(error: io::Error) -> Error {
    crate::crypt::error_of(error, "read what is to be decrypted")
}

pub(super) fn damaged(why: &str) -> Error {
    Error::new(Kind::Git, format!("a file encrypted with git-crypt {why}"))
}

pub(super) fn wrong_or_damaged() -> Error {
    damaged("is damaged, or was made with another key")
}

/// Which of several keys a ciphertext was made with, in one pass; `None` if with none of them. An empty one was made with
/// any, which the first stands for.
///
/// # Errors
/// As [`Decrypting`], without the proof; cancellation.
pub fn key_of<'k>(
    keys: &[&'k KeyVersion],
    mut ciphertext: impl Read,
    progress: &Progress,
) -> Result<Option<&'k KeyVersion>> {
    let Some(nonce) = read_header(&mut ciphertext)? else { return Ok(keys.first().copied()) };
    let mut trials: Vec<_> =
        keys.iter().map(|key| (*key, keystream(key, &nonce), authenticator(key))).collect();
    let mut piece = vec![0; PIECE_BYTES];
    let mut trial_piece = vec![0; PIECE_BYTES];
    let mut size: u64 = 0;
    loop {
        progress.check()?;
        let read = read_some(&mut ciphertext, &mut piece).map_err(unreadable)?;
        size += read as u64;
        if read == 0 {
            break;
        }
        if size > LARGEST {
            return Err(damaged("is larger than git-crypt can make one"));
        }
        for (_, keystream, authenticator) in &mut trials {
            trial_piece[..read].copy_from_slice(&piece[..read]);
            apply(keystream, &mut trial_piece[..read]).map_err(unreadable)?;
            authenticator.update(&trial_piece[..read]);
        }
    }
    trial_piece.zeroize();
    let found = trials.into_iter().find(|(_, _, all)| bool::from(nonce_of(all.clone()).ct_eq(&nonce)));
    Ok(found.map(|(key, ..)| key))
}

/// A ciphertext in memory, decrypted by the one of `keys` that fits.
///
/// # Errors
/// [`Kind::Git`] if none of them does, or it is not git-crypt's.
pub fn decrypt_whole(keys: &[&KeyVersion], ciphertext: &[u8]) -> Result<Vec<u8>> {
    let mut rest = ciphertext;
    let Some(nonce) = read_header(&mut rest)? else { return Ok(Vec::new()) };
    if rest.len() as u64 > LARGEST {
        return Err(damaged("is larger than git-crypt can make one"));
    }
    let mut plaintext = Vec::with_capacity(rest.len());
    for key in keys {
        plaintext.clear();
        plaintext.extend_from_slice(rest);
        apply(&mut keystream(key, &nonce), &mut plaintext).map_err(unreadable)?;
        let mut all = authenticator(key);
        all.update(&plaintext);
        if bool::from(nonce_of(all).ct_eq(&nonce)) {
            return Ok(plaintext);
        }
    }
    plaintext.zeroize();
    Err(wrong_or_damaged())
}
