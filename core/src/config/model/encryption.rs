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
        }
    }
}

/// Where the keys of a key file's predecessors are unless the configuration says otherwise.
pub fn default_old_keys(key_file: &Path) -> PathBuf {
    let mut name = key_file.as_os_str().to_owned();
    name.push(".old");
    PathBuf::from(name)
}
