//! What is known of the programs and services that remotes run: how large a file they take.
//!
//! GitHub: docs.github.com, "About large files on GitHub" and "About Git Large File Storage"; the limit of its free plan,
//! which the paid ones only raise. GitLab: docs.gitlab.com, "GitLab.com settings". What people run themselves takes
//! what its owner says, which nobody can ask for.

use super::model::{Provider, Repository};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Provider {
    /// Its name, as its makers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forgejo => "Forgejo",
            Self::Gitea => "Gitea",
            Self::Gitlab => "GitLab",
            Self::Github => "GitHub",
            Self::Generic => "the remote",
        }
    }

    /// Bytes of the largest file that it takes in Git itself; `None`: no limit is known.
    pub fn largest_blob(self) -> Option<u64> {
        match self {
            Self::Github | Self::Gitlab => Some(100 * MIB),
            Self::Forgejo | Self::Gitea | Self::Generic => None,
        }
    }

    /// Bytes of the largest file that it takes by Git LFS; `None`: no limit is known.
    pub fn largest_object(self) -> Option<u64> {
        match self {
            Self::Github => Some(2 * GIB),
            Self::Gitlab | Self::Forgejo | Self::Gitea | Self::Generic => None,
        }
    }
}

impl Repository {
    /// The remote's program that takes the smallest files in Git itself, and their size, if there is a limit.
    pub fn largest_blob(&self) -> Option<(Provider, u64)> {
        self.smallest(Provider::largest_blob)
    }

    /// The same by Git LFS.
    pub fn largest_object(&self) -> Option<(Provider, u64)> {
        self.smallest(Provider::largest_object)
    }

    fn smallest(&self, limit: impl Fn(Provider) -> Option<u64>) -> Option<(Provider, u64)> {
        let providers = self.remotes.iter().filter_map(|remote| remote.provider);
        providers.filter_map(|provider| Some((provider, limit(provider)?))).min_by_key(|(_, bytes)| *bytes)
    }
}
