//! Which files go to large storage and which into Git itself.
//!
//! In: a repository's settings, then paths, sizes and small contents. Out: yes or no. Without `lfs` in the settings
//! nothing is large.

use std::path::Path;

use super::limits::LARGEST_INLINE;
use super::pointer;
use crate::config::Repository;
use crate::ignore::IgnoreRules;
use crate::path::RelPath;

/// How the files of a repository are told apart.
#[derive(Debug, Default)]
pub struct Classifier {
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    /// Bytes from which on a file is large.
    threshold: u64,
    /// What they leave out is large, if there are any.
    patterns: Option<IgnoreRules>,
}

impl Classifier {
    /// What `settings` say.
    pub fn of(settings: &Repository) -> Self {
        let rules = settings.lfs.as_ref().map(|lfs| {
            let hosts = settings.largest_blob().map_or(u64::MAX, |(_, bytes)| bytes);
            let first_too_large = hosts.min(LARGEST_INLINE) + 1;
            // No file is read for these patterns, so there is no place that they could be said of.
            let patterns = || IgnoreRules::new(Path::new("/"), &lfs.patterns, &[], false).0;
            let patterns = (!lfs.patterns.is_empty()).then(patterns);
            Rules { threshold: lfs.threshold.min(first_too_large), patterns }
        });
        Self { rules }
    }

    /// Whether a file of `size` bytes at `path` is large. An empty one never is: there is no pointer for it.
    pub fn is_large(&self, path: &RelPath, size: u64) -> bool {
        let Some(rules) = &self.rules else { return false };
        let matches = |patterns: &IgnoreRules| !patterns.verdict(path, false).is_included();
        size > 0 && (size >= rules.threshold || rules.patterns.as_ref().is_some_and(matches))
    }

    /// Whether a small content has to go to large storage because somebody could take it for a pointer. Stored so, a
    /// pointer in the tree is always ours, and what it stands for is the user's look-alike.
    ///
    /// More is taken than [`pointer::Pointer::parse`] reads: the readers of others forgive other things.
    pub fn looks_like_a_pointer(&self, content: &[u8]) -> bool {
        if self.rules.is_none() || content.len() > pointer::LARGEST {
            return false;
        }
        let names: [&[u8]; 3] = [b"git-lfs", b"hawser", b"git-media"];
        content.trim_ascii_start().starts_with(b"version")
            && names.iter().any(|name| content.windows(name.len()).any(|part| part == *name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lfs::tests::settings;

    const MIB: u64 = 1 << 20;

    fn is_large(lfs: &str, providers: &[&str], path: &str, size: u64) -> bool {
        Classifier::of(&settings(lfs, providers)).is_large(&RelPath::new(path).unwrap(), size)
    }

    #[test]
    fn a_file_of_exactly_the_threshold_is_large_and_one_of_a_byte_less_is_not() {
        let at = |size| is_large("{threshold: 64KiB}", &[], "a/b", size);
        assert!(at(65536) && at(65537) && !at(65535) && !at(0));
        assert!(!is_large("null", &["github"], "a/b", u64::MAX), "switched off");
    }

    #[test]
    fn patterns_have_the_meaning_that_they_have_in_ignore_files() {
        let lfs = "{threshold: 1GiB, patterns: ['*.iso', '!keep.iso', videos/, /top]}";
        let matches = |path| is_large(lfs, &[], path, 1);
        for path in ["x.iso", "deep/er/x.iso", "videos/a", "a/videos/b/c", "top"] {
            assert!(matches(path), "{path}");
        }
        for path in ["keep.iso", "x.iso.txt", "videos", "a/top"] {
            assert!(!matches(path), "{path}");
        }
        assert!(!is_large(lfs, &[], "x.iso", 0), "an empty file");
    }

    #[test]
    fn what_a_host_or_the_memory_does_not_take_is_large_whatever_the_threshold() {
        let lfs = "{threshold: 4GiB}";
        assert!(
            !is_large(lfs, &["github"], "a", 100 * MIB) && is_large(lfs, &["github"], "a", 100 * MIB + 1)
        );
        assert!(is_large(lfs, &["forgejo", "gitlab"], "a", 101 * MIB));
        assert!(!is_large(lfs, &["forgejo"], "a", 512 * MIB) && is_large(lfs, &[], "a", 512 * MIB + 1));
    }

    #[test]
    fn what_anybody_could_take_for_a_pointer_is_told() {
        let on = Classifier::of(&settings("{}", &[]));
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n", "A".repeat(64));
        assert!(on.looks_like_a_pointer(pointer.as_bytes()));
        assert!(on.looks_like_a_pointer(format!("\n {pointer}").as_bytes()));
        assert!(on.looks_like_a_pointer(b"version http://git-media.io/v/2\n"));
        assert!(!on.looks_like_a_pointer(b"version 3 of my letter\n"));
        assert!(!on.looks_like_a_pointer(format!("{pointer}{}", "x".repeat(1024)).as_bytes()));
        assert!(!on.looks_like_a_pointer(b""));
        assert!(!Classifier::default().looks_like_a_pointer(pointer.as_bytes()));
    }
}
