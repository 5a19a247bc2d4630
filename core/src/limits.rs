//! How many files this process may have open, and how they are shared out.
//!
//! Packs are the only thing of which any number could be held open: each reader keeps the most recently used ones.
//! Where the system gives few descriptors, they keep few, and open them more often.

use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit};

/// Where the system knows no limit.
const PLENTY: u64 = 1 << 20;

/// The number of descriptors that this process may have.
fn descriptors() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(PLENTY))
}

/// Packs that one reader of a repository keeps open.
pub fn packs_a_reader() -> usize {
    share(descriptors(), 32, 2, 12)
}

/// Packs that a repository may pile up before they are merged: libgit2 holds every one open that it read from.
pub fn packs_piled_up() -> usize {
    share(descriptors(), 16, 3, 50)
}

/// Directories that a restore holds open at the same time; further ones are opened at each use.
pub fn directories_held() -> usize {
    share(descriptors(), 8, 4, 128)
}

fn share(limit: u64, part: u64, least: usize, most: usize) -> usize {
    usize::try_from(limit / part).unwrap_or(most).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_shared_out_sparingly_and_many_are_not_wasted() {
        assert_eq!(share(64, 32, 2, 12), 2);
        assert_eq!(share(256, 32, 2, 12), 8);
        assert_eq!(share(1024, 32, 2, 12), 12);
        assert_eq!(share(0, 32, 2, 12), 2);
        assert_eq!(share(u64::MAX, 32, 2, 12), 12);
        assert!(packs_a_reader() >= 2 && packs_piled_up() >= 3);
    }
}
