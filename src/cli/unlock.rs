//! The flags that name keys of an encrypted backup.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

/// What opens an encrypted backup besides the configured keys.
#[derive(Debug, Clone, Default, Args)]
pub struct Unlock {
    /// A key that an encrypted backup is opened with: git-crypt's key file, or an OpenPGP private key for which the contents, or
    /// the key that is in the repository, are encrypted. Repeat it for more, such as keys from before a rotation. What the configuration names need not be
    /// named
    #[arg(long, value_name = "FILE")]
    pub key_file: Vec<PathBuf>,
    /// Decrypts with gpg and its agent, as the user who runs this: what is encrypted to a key that gpg has needs no --key-file,
    /// and gpg asks for its passphrase if it has to
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub gpg: bool,
    /// With --key-file: a file with the passphrase of the OpenPGP private key
    #[arg(long, value_name = "FILE")]
    pub key_passphrase_file: Option<PathBuf>,
}
