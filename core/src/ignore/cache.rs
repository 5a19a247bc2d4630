//! What is known of the ignore files of the tree, in bounded memory.
//!
//! In go scopes as they are read, out they come again until they are forgotten or the bound is reached. A
//! reader may be overtaken by a change: it notes the generation before it reads, and what it brings is not
//! kept if anything was forgotten meanwhile.

use std::collections::BTreeMap;

use super::{Problem, Scope};
use crate::path::RelPath;

/// Directories kept; at about 200 bytes each.
const MAX_DIRECTORIES: usize = 8192;
/// Bytes of ignore files kept compiled, as they stand on disk.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Problems kept; more would help nobody.
const MAX_PROBLEMS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Cache {
    scopes: BTreeMap<RelPath, Scope>,
    /// What is wrong with the ignore files of a directory.
    problems: BTreeMap<RelPath, Vec<Problem>>,
    bytes: usize,
    generation: u64,
}

impl Cache {
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn get(&self, directory: &RelPath) -> Option<Scope> {
        self.scopes.get(directory).cloned()
    }

    /// Keeps `scope`, whose ignore files had `bytes` bytes, unless something was forgotten since `generation`.
    pub fn put(&mut self, generation: u64, scope: &Scope, bytes: usize, problems: Vec<Problem>) {
        if generation != self.generation {
            return;
        }
        if self.scopes.len() >= MAX_DIRECTORIES || self.bytes + bytes > MAX_BYTES {
            self.scopes.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        let directory = scope.directory();
        if problems.is_empty() {
            self.problems.remove(directory);
        } else if self.problems.len() < MAX_PROBLEMS {
            self.problems.insert(directory.clone(), problems);
        }
        self.scopes.insert(directory.clone(), scope.clone());
    }

    pub fn forget(&mut self, directory: &RelPath) {
        self.generation += 1;
        remove_within(&mut self.scopes, directory);
        remove_within(&mut self.problems, directory);
        if self.scopes.is_empty() {
            self.bytes = 0;
        }
    }

    pub fn problems(&self) -> Vec<Problem> {
        self.problems.values().flatten().cloned().collect()
    }
}

/// Removes `directory` and what lies below it.
fn remove_within<V>(map: &mut BTreeMap<RelPath, V>, directory: &RelPath) {
    map.remove(directory);
    // The smallest name that can stand below: no name is smaller than one NUL byte, and none contains it.
    let first = if directory.is_root() { RelPath::root() } else { directory.join(b"\0") };
    let doomed: Vec<RelPath> = map
        .range(first..)
        .map(|(path, _)| path)
        .take_while(|path| path.is_within(directory))
        .cloned()
        .collect();
    for path in doomed {
        map.remove(&path);
    }
}
