//! What is the kqueue backend's own; what it shares with others is in the conformance suite.

use std::fs;

use tempfile::TempDir;

use super::simulated::Simulated;
use super::*;

/// Enough for every test, and below what a test process may open.
const PLENTY: u64 = 4096;

/// For the conformance suite: on the simulated kernel, with descriptors for all.
pub fn make(root: &Path, rules: Arc<IgnoreRules>, _: &Path, one_file_system: bool) -> Box<dyn Backend> {
    Box::new(backend(root, rules, one_file_system, Pool::with_limit(PLENTY)))
}

/// With descriptors for directories only.
pub fn make_without_files(
    root: &Path,
    rules: Arc<IgnoreRules>,
    _: &Path,
    one_file_system: bool,
) -> Box<dyn Backend> {
    Box::new(backend(root, rules, one_file_system, Pool::without_files(PLENTY)))
}

fn backend(root: &Path, rules: Arc<IgnoreRules>, one_file_system: bool, pool: Arc<Pool>) -> KqueueBackend {
    let (asker, woken) = Asker::new().unwrap();
    KqueueBackend::on(Box::new(Simulated::new(woken)), asker, pool, root, rules, one_file_system).unwrap()
}
