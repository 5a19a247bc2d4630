//! OpenPGP, as gpg 2.2 and later reads it: a stream encrypted to the public keys of one or more recipients, and back.
//!
//! ```text
//! one session key packet a recipient (version 3)   SEIPD version 1, AES-256: binary literal packet, no compression, MDC
//! ```
//!
//! [`certificate`] reads whom to encrypt to, [`private`] what decrypts, [`header`] looks at a message without a key. In
//! process, by rPGP: a process of gpg costs 28 ms a file. Memory is flat in both directions. The proof of a message stands
//! at its end: what [`decrypt`] wrote before an error is to be thrown away.

pub mod certificate;
pub mod header;
mod literal;
pub mod private;
mod trouble;

#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, BufRead, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use pgp::composed::{DecryptionOptions, Message, MessageBuilder, TheRing};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::types::Seipdv1ReadMode;
use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::{Zeroize, Zeroizing};

pub use certificate::Recipient;
use literal::Literal;
pub use private::PrivateKey;
use trouble::Watched;

use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// Bytes of plaintext in one part of a message.
const PART_BYTES: u32 = 64 * 1024;
/// Of an encrypted message, what may be read until its text begins: hostile ones have no end of packets before it.
const HEAD_BYTES: u64 = 4 * header::ENOUGH_BYTES as u64;

/// Encrypts all of `plaintext` to all of `recipients`; gives the number of its bytes.
///
/// # Errors
/// [`Kind::EncryptionKey`] without a recipient; of source and sink; cancellation. What was written is to be thrown away
/// then.
pub fn encrypt(
    plaintext: impl Read,
    recipients: &[Recipient],
    out: impl Write,
    progress: &Progress,
) -> Result<u64> {
    let mut source = Watched::new(plaintext, progress);
    let mut sink = Watched::new(out, progress);
    let sealed = seal(&mut source, recipients, &mut sink);
    let size = source.passed();
    // Neither end's trouble is a finding about the message.
    source.take_error("read what is to be encrypted")?;
    sink.take_error("write what is encrypted")?;
    sealed?;
    Ok(size)
}

fn seal(source: &mut impl Read, recipients: &[Recipient], out: &mut impl Write) -> Result<()> {
    if recipients.is_empty() {
        return Err(Error::new(Kind::EncryptionKey, "nobody is named who could decrypt: name a recipient"));
    }
    let refused = |error: pgp::errors::Error| {
        Error::with_source(Kind::EncryptionKey, "a file cannot be encrypted with OpenPGP", error.to_string())
    };
    let mut random = randomness()?;
    let mut builder =
        MessageBuilder::from_reader("", source).seipd_v1(&mut random, SymmetricKeyAlgorithm::AES256);
    builder.partial_chunk_size(PART_BYTES).map_err(refused)?;
    for recipient in recipients {
        recipient.add_to(&mut builder, &mut random)?;
    }
    builder.to_writer(&mut random, out).map_err(refused)
}

/// A generator for one message, seeded by the system.
fn randomness() -> Result<StdRng> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut seed[..]).map_err(|error| {
        Error::with_source(Kind::Io, "the system gives no randomness to encrypt with", error.to_string())
    })?;
    Ok(StdRng::from_seed(*seed))
}

/// The same in memory.
///
/// # Errors
/// As [`encrypt`].
pub fn encrypt_whole(plaintext: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(plaintext.len() + 1024);
    encrypt(plaintext, recipients, &mut out, &Progress::new())?;
    Ok(out)
}

/// Decrypts a message of any size with the first of `keys` that it is for; gives the number of bytes written, which are at
/// most `limit`.
///
/// # Errors
/// [`Kind::EncryptionKey`] if it is for none of them; [`Kind::Git`] if it is damaged, or no encrypted message at all,
/// or more than `limit` comes out of it; of source and sink; cancellation.
pub fn decrypt(
    mut message: impl BufRead + Send,
    keys: &[&PrivateKey],
    out: impl Write,
    limit: u64,
    progress: &Progress,
) -> Result<u64> {
    let mut head = Vec::new();
    let read = message.by_ref().take(header::ENOUGH_BYTES as u64).read_to_end(&mut head);
    read.map_err(|error| crate::crypt::error_of(error, "read what is to be decrypted"))?;
    if header::look(&head).is_none() {
        return Err(is_no_message());
    }
    let is_open = AtomicBool::new(false);
    let mut source = Watched::closed((&head[..]).chain(message), progress, &is_open, HEAD_BYTES);
    let mut sink = Watched::new(out, progress);
    // A message comes from a repository, which anybody may have written to, and its parser is not ours.
    let opened = catch_unwind(AssertUnwindSafe(|| open(&mut source, &is_open, keys, &mut sink, limit)))
        .unwrap_or_else(|_| Err(damaged("makes its reader fail")));
    source.take_error("read what is to be decrypted")?;
    sink.take_error("write what is decrypted")?;
    opened?;
    if !source
        .fill_buf()
        .map_err(|error| crate::crypt::error_of(error, "read what is to be decrypted"))?
        .is_empty()
    {
        return Err(damaged("has something behind its end"));
    }
    Ok(sink.passed())
}

fn open(
    source: &mut (impl BufRead + Send + std::fmt::Debug),
    source_is_open: &AtomicBool,
    keys: &[&PrivateKey],
    out: &mut impl Write,
    limit: u64,
) -> Result<()> {
    let unreadable = |error: pgp::errors::Error| damaged(&format!("cannot be read: {error}"));
    let message = Message::from_bytes(source).map_err(unreadable)?;
    if !matches!(message, Message::Encrypted { .. }) {
        return Err(damaged("is not encrypted"));
    }
    let options =
        DecryptionOptions::new().set_seipdv1_read_mode(Seipdv1ReadMode::Streaming).enable_gnupg_aead();
    let ring = TheRing {
        secret_keys: keys.iter().map(|key| key.secret()).collect(),
        decrypt_options: options,
        ..TheRing::default()
    };
    let (mut message, _) = message.decrypt_the_ring(ring, true).map_err(|error| match error {
        pgp::errors::Error::MissingKey => Error::new(
            Kind::EncryptionKey,
            "none of the private keys decrypts a file encrypted with OpenPGP: give the key of one of its recipients",
        ),
        error => unreadable(error),
    })?;
    source_is_open.store(true, Ordering::Relaxed);
    if let Message::Compressed { reader, .. } = message {
        let inner = |error: io::Error| damaged(&format!("is not what was encrypted: {error}"));
        let mut literal = Literal::new(reader.decompress().map_err(inner)?).map_err(inner)?;
        pour(&mut literal, out, limit)?;
        // Behind it stands the proof, and nothing else.
        let mut packet = literal.into_source().into_inner();
        io::copy(&mut packet, &mut io::sink()).map_err(inner)?;
        return match packet.into_inner().read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged("has something behind its text")),
            Err(error) => Err(inner(error)),
        };
    }
    if !message.is_literal() && !message.is_signed() {
        return Err(damaged("has more layers than anybody makes"));
    }
    pour(&mut message, out, limit)
}

/// Copies to the end; only there the proof of a message has been looked at.
fn pour(from: &mut impl Read, out: &mut impl Write, limit: u64) -> Result<()> {
    // No more than can come: wiping it costs as much as decrypting a small file.
    let room = usize::try_from(limit.saturating_add(1)).unwrap_or(usize::MAX).min(PART_BYTES as usize);
    let mut piece = Zeroizing::new(vec![0; room]);
    let mut left = limit;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(&format!("is not what was encrypted: {error}"))),
        };
        left = left.checked_sub(read as u64).ok_or_else(|| damaged("holds more than it should"))?;
        let written = out.write_all(&piece[..read]);
        written.map_err(|error| crate::crypt::error_of(error, "write what is decrypted"))?;
    }
}

/// A message in memory, decrypted.
///
/// # Errors
/// As [`decrypt`].
pub fn decrypt_whole(message: &[u8], keys: &[&PrivateKey], limit: u64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match decrypt(message, keys, &mut out, limit, &Progress::new()) {
        Ok(_) => Ok(out),
        Err(error) => {
            out.zeroize();
            Err(error)
        }
    }
}

/// What stands where a message should be is none.
pub(super) fn is_no_message() -> Error {
    damaged("is not encrypted for recipients: it is clear text, damaged, or something else")
}

pub(super) fn damaged(why: &str) -> Error {
    Error::new(Kind::Git, format!("a file encrypted with OpenPGP {why}"))
}
