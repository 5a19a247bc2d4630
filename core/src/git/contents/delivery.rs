//! The last stretch: stored bytes become the file's own, counted and summed, and go out.
//!
//! In: bytes in pieces as they are stored, and what decrypts them if they are a ciphertext. Out: the file's bytes to a sink, and
//! at the end a [`Proof`], or the [`Trouble`]. Whoever feeds it proves what was stored before he calls for the end.

use crate::crypt::unsealer::Decryptor;
use crate::error::{Error, Kind, Result};

/// So many bytes from the beginning are kept.
pub const BEGINNING_BYTES: usize = 1024;

/// What the bytes that came turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// BLAKE3 of them; of the files of an encrypted snapshot the keyed one.
    pub blake3: [u8; 32],
    /// How many there were.
    pub size: u64,
    /// The first of them, [`BEGINNING_BYTES`] or all.
    pub beginning: Vec<u8>,
}

/// Why bytes did not come.
#[derive(Debug)]
pub enum Trouble {
    /// The object is missing, damaged or not what its name says; nothing else is affected.
    Object(Error),
    /// They could not be written, or a stop was asked for.
    Elsewhere(Error),
}

/// What passes on to the sink.
pub(super) struct Delivery<'s> {
    decryptor: Option<Decryptor<'s>>,
    out: Outlet<'s>,
}

struct Outlet<'s> {
    blake3: blake3::Hasher,
    size: u64,
    beginning: Vec<u8>,
    sink: &'s mut dyn FnMut(&[u8]) -> Result<()>,
}

impl Outlet<'_> {
    fn give(&mut self, piece: &[u8]) -> std::result::Result<(), Trouble> {
        self.blake3.update(piece);
        self.size = self.size.saturating_add(piece.len() as u64);
        let wanted = BEGINNING_BYTES.saturating_sub(self.beginning.len()).min(piece.len());
        self.beginning.extend_from_slice(&piece[..wanted]);
        (self.sink)(piece).map_err(Trouble::Elsewhere)
    }
}

/// Whether it is the object's fault that it is not decrypted, or that of what should decrypt it.
fn whose(error: Error) -> Trouble {
    match error.kind() {
        Kind::Cancelled | Kind::Limit | Kind::EncryptionKey => Trouble::Elsewhere(error),
        _ => Trouble::Object(error),
    }
}

impl<'s> Delivery<'s> {
    pub(super) fn new(
        decryptor: Option<Decryptor<'s>>,
        blake3: blake3::Hasher,
        sink: &'s mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Self {
        Self { decryptor, out: Outlet { blake3, size: 0, beginning: Vec::new(), sink } }
    }

    /// Takes a piece as it is stored.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> std::result::Result<(), Trouble> {
        let Some(decryptor) = &mut self.decryptor else { return self.out.give(piece) };
        while !piece.is_empty() {
            let plain = decryptor.take(&mut piece).map_err(whose)?;
            if !plain.is_empty() {
                self.out.give(plain)?;
            }
        }
        Ok(())
    }

    /// All that was stored came, and is proven.
    pub(super) fn finish(mut self) -> std::result::Result<Proof, Trouble> {
        if let Some(decryptor) = &mut self.decryptor {
            while let Some(plain) = decryptor.end().map_err(whose)? {
                if !plain.is_empty() {
                    self.out.give(plain)?;
                }
            }
        }
        let Outlet { blake3, size, beginning, .. } = self.out;
        Ok(Proof { blake3: *blake3.finalize().as_bytes(), size, beginning })
    }
}
