//! How contents are encrypted, for whom, and where the keys are.

use std::path::{Path, PathBuf};

/// What remotes cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// How and for whom.
    pub method: EncryptionMethod,
    /// Only what these match, as paths in the repository (`<root>/...`), in the part of the gitignore syntax that
    /// [`crate::crypt::patterns`] describes; empty: everything.
    pub paths: Vec<String>,
    /// Commits from before, in clear text, may stay in the history of what is pushed.
    pub accepts_clear_history: bool,
}

/// How contents are encrypted and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncryptionMethod {
    /// Not, and on purpose: what was encrypted until now is stored in clear text from now on.
    None {
        /// The directory of the keys that older snapshots need.
        old_keys: Option<PathBuf>,
    },
    /// As git-crypt does.
    GitCrypt {
        /// The symmetric key.
        key_file: PathBuf,
        /// The directory of the keys that older snapshots need.
        old_keys: PathBuf,
        /// OpenPGP certificates for which the key is put into the repository, or directories of them.
        recipients: Vec<PathBuf>,
    },
    /// Each content as an OpenPGP message: who has public keys only can write and not read.
    Gpg(Gpg),
}

/// For whom contents are OpenPGP messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpg {
    /// OpenPGP certificates of those who can read, or directories of them.
    pub recipients: Vec<PathBuf>,
    /// The symmetric key of metadata and checksums.
    pub key_file: PathBuf,
    /// Whether that key is made by ourselves where there is none: it is in the state directory then.
    pub makes_key: bool,
    /// The directory of its predecessors.
    pub old_keys: PathBuf,
    /// An OpenPGP private key, with which this host can read too.
    pub private_key: Option<PathBuf>,
    /// The passphrase of that key.
    pub passphrase_file: Option<PathBuf>,
    /// Whether `gpg` and its agent decrypt.
    pub agent: bool,
}

impl Gpg {
    /// Puts the key where it is made by ourselves if the configuration names no place: into the state directory.
    pub fn settle(&mut self, state_dir: &Path, repository: &str) {
        if self.makes_key {
            self.key_file = state_dir.join("keys").join(repository).join("metadata.key");
            if !self.old_keys.is_absolute() {
                self.old_keys = default_old_keys(&self.key_file);
            }
        }
    }
}

impl Encryption {
    /// Whether nothing in clear text may be in the history of what is pushed.
    pub fn refuses_clear_history(&self) -> bool {
        !self.accepts_clear_history && self.encrypts()
    }

    /// Whether anything is encrypted at all.
    pub fn encrypts(&self) -> bool {
        !matches!(self.method, EncryptionMethod::None { .. })
    }
}

impl EncryptionMethod {
    /// As the configuration and the repository name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None { .. } => "none",
            Self::GitCrypt { .. } => "git-crypt",
            Self::Gpg(_) => "gpg",
        }
    }

    /// The symmetric key, if anything is encrypted.
    pub fn key_file(&self) -> Option<&Path> {
        match self {
            Self::None { .. } => None,
            Self::GitCrypt { key_file, .. } => Some(key_file),
            Self::Gpg(gpg) => Some(&gpg.key_file),
        }
    }

    /// The directory of its predecessors.
    pub fn old_keys(&self) -> Option<&Path> {
        match self {
            Self::None { old_keys } => old_keys.as_deref(),
            Self::GitCrypt { old_keys, .. } => Some(old_keys),
            Self::Gpg(gpg) => Some(&gpg.old_keys),
        }
    }

    /// Where certificates of recipients are.
    pub fn recipients(&self) -> &[PathBuf] {
        match self {
            Self::None { .. } => &[],
            Self::GitCrypt { recipients, .. } => recipients,
            Self::Gpg(gpg) => &gpg.recipients,
        }
    }
}

/// Where the keys of a key file's predecessors are unless the configuration says otherwise.
pub fn default_old_keys(key_file: &Path) -> PathBuf {
    let mut name = key_file.as_os_str().to_owned();
    name.push(".old");
    PathBuf::from(name)
}
