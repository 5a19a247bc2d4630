//! How large a file may be, whatever is in it: beyond that it is held back, and its last version stays.
//!
//! In: a repository's settings. Out: the smallest of the limits that count for it, with the words that tell the operator
//! whose it is and what to do.

use bytesize::ByteSize;

use crate::config::{Provider, Repository};

/// Larger files are read from Git with all their bytes in memory, by Git and by many of its servers.
pub(super) const LARGEST_INLINE: u64 = 512 << 20;

/// The size of the largest file that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    /// Bytes that are still taken.
    pub bytes: u64,
    whose: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Repository,
    MaxObject,
    Blobs(Provider),
    Objects(Provider),
}

impl SizeLimit {
    /// `limits.repository_size`, so that a sparse file of terabytes does not keep all others waiting.
    pub fn of_repository(bytes: u64) -> Self {
        Self { bytes, whose: Whose::Repository }
    }

    /// What counts for the files of `settings`.
    pub fn of(settings: &Repository, repository_size: u64) -> Self {
        let of_host = match &settings.lfs {
            None => settings.largest_blob().map(|(provider, bytes)| (bytes, Whose::Blobs(provider))),
            Some(_) => settings.largest_object().map(|(provider, bytes)| (bytes, Whose::Objects(provider))),
        };
        let of_lfs = settings.lfs.as_ref().map(|lfs| (lfs.max_object, Whose::MaxObject));
        let all = [Some((repository_size, Whose::Repository)), of_lfs, of_host];
        let smallest = all.into_iter().flatten().min_by_key(|(bytes, _)| *bytes);
        let (bytes, whose) = smallest.unwrap_or((repository_size, Whose::Repository));
        Self { bytes, whose }
    }

    /// Why a file of `bytes` is not taken, and what to do; `None` if it is.
    pub fn refusal(&self, bytes: u64) -> Option<String> {
        if bytes <= self.bytes {
            return None;
        }
        let (size, most) = (ByteSize(bytes), ByteSize(self.bytes));
        Some(match self.whose {
            Whose::Repository => {
                format!(
                    "its {size} are more than limits.repository_size, {most}: raise that, or leave the file out"
                )
            }
            Whose::MaxObject => {
                format!("its {size} are more than lfs.max_object, {most}: raise that, or leave the file out")
            }
            Whose::Blobs(provider) => format!(
                "its {size} are more than the {most} that {} takes of a file in Git itself: turn on `lfs`, or leave the \
                 file out",
                provider.name()
            ),
            Whose::Objects(provider) => format!(
                "its {size} are more than the {most} that {} takes of a large file on its smallest plan: leave the file \
                 out, or, if your plan takes more, leave `provider` out of that remote",
                provider.name()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lfs::tests::settings;

    #[test]
    fn the_smallest_limit_counts_and_names_itself_and_the_remedy() {
        const GIB: u64 = 1 << 30;
        let limit = |lfs: &str, providers: &[&str]| SizeLimit::of(&settings(lfs, providers), 50 * GIB);
        let cases = [
            (limit("null", &[]), 50 * GIB, "limits.repository_size"),
            (limit("null", &["forgejo"]), 50 * GIB, "limits.repository_size"),
            (limit("null", &["forgejo", "gitlab"]), 100 << 20, "GitLab"),
            (limit("null", &["github"]), 100 << 20, "turn on `lfs`"),
            (limit("{}", &["gitlab"]), 5 * GIB, "lfs.max_object"),
            (limit("{}", &["generic", "github"]), 2 * GIB, "leave `provider` out"),
            (limit("{max_object: 1GiB}", &["github"]), GIB, "lfs.max_object"),
            (limit("{max_object: 1TiB}", &[]), 50 * GIB, "limits.repository_size"),
        ];
        for (limit, bytes, words) in cases {
            assert_eq!(limit.bytes, bytes, "{words}");
            assert_eq!(limit.refusal(bytes), None, "{words}");
            let refusal = limit.refusal(bytes + 1).unwrap();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
