//! The harness: a seeded random number source, waiting with deadlines, and announced skips.

pub mod api;
pub mod daemon;
pub mod fault_proxy;
pub mod giftless;
pub mod git;
pub mod gpg;
pub mod helm;
pub mod lfs;
pub mod lfs_server;
pub mod metadata;
pub mod mount;
pub mod receiver;
pub mod running;
pub mod scrape;
pub mod sshd;
pub mod strace;
pub mod tree;
pub mod web;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long anything that should happen soon may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks until `look` finds something; panics with `what` when it does not in time.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A small random number source (splitmix64): the same numbers for the same seed, everywhere.
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// So many bytes, half of them compressible.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        let compressible = self.below(2) == 0;
        while bytes.len() < length {
            let number = self.next();
            if compressible {
                bytes.extend_from_slice(format!("{:08x} ", number % 4096).as_bytes());
            } else {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// The seed of this run: `BACKUPBOT_TEST_SEED`, or one from the clock. Printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("BACKUPBOT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() ^ u64::from(now.subsec_nanos())
    });
    println!("{test}: BACKUPBOT_TEST_SEED={seed}");
    seed
}

/// Whether the long tier was asked for.
pub fn is_long() -> bool {
    std::env::var("BACKUPBOT_TEST_LONG").is_ok_and(|value| value == "1")
}

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Announces that something was not tested, and how many such things there were in this run.
pub fn skip(what: &str) {
    let number = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // Not `eprintln!`: the test runner would swallow it as the output of a test that passes.
    let line = format!("\nSKIPPED ({number} so far): {what}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
