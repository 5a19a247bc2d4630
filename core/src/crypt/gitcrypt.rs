//! The formats of git-crypt 0.7, both ways: its key file, its ciphertext, and its keys wrapped for OpenPGP recipients.
//!
//! What the real program can and cannot do decides what we may write (docs/decisions.md, 116):
//! it decrypts with version 0 of a key only, and a file has less than 4 GiB.

pub mod cipher;
mod decryptor;
pub mod key;
pub mod wrapped;

#[cfg(test)]
pub(in crate::crypt) mod tests;

pub use cipher::{Decrypting, Encrypting, Nonce};
pub use decryptor::{Decryptor, is_clear_text};
pub use key::{KeyFile, KeyName, KeyVersion};
