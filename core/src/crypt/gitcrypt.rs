//! The formats of git-crypt 0.7, both ways: its key file, its ciphertext, and its keys wrapped for OpenPGP recipients.
//!
//! What the real program can and cannot do decides what we may write (docs/decisions.md, 116):
//! it decrypts with version 0 of a key only, and a file has less than 4 GiB.

pub mod cipher;
pub mod key;
pub mod wrapped;

#[cfg(test)]
pub(super) mod tests;

pub use cipher::{Decrypting, Encrypting, Nonce};
pub use key::{KeyFile, KeyName, KeyVersion};
