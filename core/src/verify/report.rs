//! What a verification found: exact numbers, and names, of which at most [`MOST_NAMED`] are kept.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::restore::{MOST_NAMED, Named};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The commit.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// How much was to be read: `whole`, a share or a number of files.
    pub sample: String,
    /// Which files a sample has; the same seed chooses the same ones again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Directories in the snapshot, all of whose names and records were read.
    pub directories: u64,
    /// Files and symbolic links in the snapshot.
    pub files: u64,
    /// Their bytes, as recorded.
    pub bytes: u64,
    /// Named pipes, sockets and devices in the snapshot.
    pub specials: u64,
    /// Files and symbolic links whose content was read.
    pub verified_files: u64,
    /// Their bytes, as recorded.
    pub verified_bytes: u64,
    /// Different contents that were read and hashed.
    pub objects: u64,
    /// Bytes that were hashed.
    pub hashed_bytes: u64,
    /// Large contents that are kept at remotes only, of which just the pointers were read here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elsewhere: u64,
    /// Contents that nothing here opens, of which only the ciphertexts were read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ciphertexts: u64,
    /// How much is wrong.
    pub problem_count: u64,
    /// What is wrong.
    pub problems: Vec<Named>,
    /// How much is worth knowing and not wrong.
    pub remark_count: u64,
    /// What that is: things of which nothing is recorded, and names that no backup writes.
    pub remarks: Vec<Named>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    pub(super) fn of(request: &Request<'_>) -> Self {
        Self {
            commit: request.snapshot.id.to_string(),
            tree: request.snapshot.tree.to_string(),
            sample: request.sample.to_string(),
            seed: (!request.sample.is_whole()).then_some(request.seed),
            ..Self::default()
        }
    }

    /// Adds something that is wrong.
    pub fn problem(&mut self, named: Named) {
        self.problem_count += 1;
        if self.problems.len() < MOST_NAMED {
            self.problems.push(named);
        }
    }

    /// Adds something that is worth knowing.
    pub(super) fn remark(&mut self, named: Named) {
        self.remark_count += 1;
        if self.remarks.len() < MOST_NAMED {
            self.remarks.push(named);
        }
    }
}
