//! Encryption of contents: formats that plain tools read, and nothing of our own.
//!
//! ```text
//! git-crypt: key file ─▶ file's bytes ─▶ \0GITCRYPT\0 ‖ nonce ‖ ciphertext      (git-crypt unlock)
//! gpg:       recipients' public keys ─▶ one OpenPGP message a file               (gpg --decrypt)
//! ```
//!
//! [`gitcrypt`] is the first, [`openpgp`] the second, [`keyed`] the checksum of a plaintext that tells nobody without the
//! key what the plaintext is. All of them fail closed: an error comes instead of a plaintext that was passed through, and
//! whatever was written before an error is to be thrown away by who wrote it.

use std::io;

use crate::error::{Error, kind_of_io};

pub mod gitcrypt;
pub mod given;
pub mod key_files;
pub mod keyed;
pub mod keyring;
pub mod kit;
pub mod needed;
pub mod opener;
pub mod openpgp;
pub mod patterns;
pub mod places;
pub mod policy;
pub mod recipients;
pub mod sealer;
pub mod unsealer;

/// The error that a reader of this module hid in one of the system's kind, or that one, with what was being done.
pub fn error_of(error: io::Error, doing: &str) -> Error {
    let kind = kind_of_io(&error);
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::with_source(kind, format!("cannot {doing}"), error),
    }
}
