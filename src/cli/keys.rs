//! The arguments of `keys`.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};

/// Examples of `keys`.
pub const EXAMPLES: &str = "\
A new key, and the sheet that belongs into a drawer:
  backupbot keys create
  backupbot keys export --kit | lpr
The key for plain git-crypt:      backupbot keys export --to /media/stick/documents.key
From the sheet, typed in again:   backupbot keys import kit.txt
Somebody had the key, or may have: backupbot keys rotate
Is everything in order?           backupbot keys check";

/// Arguments of `keys`.
#[derive(Debug, Clone, Args)]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a new key where the configuration wants one
    ///
    /// Nothing is ever written over a key. Print a recovery kit at once (`keys export --kit`): without the key nobody can read
    /// the backup, you included.
    Create(Which),
    /// Write the key as a file for `git-crypt unlock`, or with --kit as a sheet to be printed
    Export(Export),
    /// Bring a key back, from a key file of git-crypt or a recovery kit that was typed in again
    ///
    /// Blanks and case mean nothing in a kit, and a line that was mistyped is named.
    Import(Import),
    /// Put a new key in the place of the present one, which is kept for the older snapshots
    ///
    /// The next snapshot encrypts everything anew. Whoever had the old key can still read what was encrypted with it.
    Rotate(Which),
    /// Let somebody open the repository with an OpenPGP key of his own
    ///
    /// The certificate goes into the directory that the configuration names (encryption.recipients). With the next snapshot the
    /// key is in the repository, encrypted for that person, and `git-crypt unlock` needs no key file there. A newer copy of a
    /// certificate takes the place of the older one.
    AddRecipient(AddRecipient),
    /// Take somebody's certificate away
    ///
    /// Whoever could open the key keeps it: only after `keys rotate` can he read nothing new.
    RemoveRecipient(RemoveRecipient),
    /// Say which keys and recipients there are, whether all snapshots can be read, and what somebody has to do
    ///
    /// Exits with 3 if something has to be done.
    Check(Which),
}

/// Which repository's key.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Only this repository. Needed where several have keys of their own
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
}

/// Arguments of `keys export`.
#[derive(Debug, Clone, Args)]
pub struct Export {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Write it into this file, which must not exist. Without it: to the standard output
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// The recovery kit: text with all keys, where the remotes are, and how everything is got back
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub kit: bool,
}

/// Arguments of `keys import`.
#[derive(Debug, Clone, Args)]
pub struct Import {
    /// The key file or the kit; - for the standard input
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Write a key file here, and leave the configured one alone; needs no configuration
    #[arg(long, value_name = "FILE", conflicts_with = "old")]
    pub to: Option<PathBuf>,
    /// It is an old key, for older snapshots only
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub old: bool,
}

/// Arguments of `keys add-recipient`.
#[derive(Debug, Clone, Args)]
pub struct AddRecipient {
    /// The certificate (public key), as `gpg --export` writes it; - for the standard input
    #[arg(value_name = "CERT")]
    pub certificate: PathBuf,
    /// Which.
    #[command(flatten)]
    pub which: Which,
}

/// Arguments of `keys remove-recipient`.
#[derive(Debug, Clone, Args)]
pub struct RemoveRecipient {
    /// The certificate's fingerprint (40 digits), or its file
    #[arg(value_name = "FINGERPRINT|CERT")]
    pub who: String,
    /// Which.
    #[command(flatten)]
    pub which: Which,
}
