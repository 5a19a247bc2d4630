//! What one batch takes away from a root, and what it puts there.
//!
//! A batch may come upon a path more than once: at its own row, at its directory's, and as a part of a directory that is
//! gone. What stood there first and what stands there last count.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::path::RelPath;

#[derive(Debug, Clone, Copy)]
struct Place {
    before: Option<u64>,
    after: Option<u64>,
    /// We did it ourselves, or were asked to.
    is_excused: bool,
}

/// By path, what stood there and what stands there.
#[derive(Debug, Default)]
pub struct Tally(HashMap<u64, Place>);

impl Tally {
    /// At `path` stood one stored object and stands another, or none. `is_excused`: that is no loss.
    pub fn note(
        &mut self,
        path: &RelPath,
        before: Option<&[u8; 20]>,
        after: Option<&[u8; 20]>,
        is_excused: bool,
    ) {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let found = Place { before: before.map(key), after: after.map(key), is_excused };
        self.0
            .entry(hasher.finish())
            .and_modify(|place| {
                place.before = place.before.or(found.before);
                place.after = found.after;
                place.is_excused = found.is_excused;
            })
            .or_insert(found);
    }

    /// How many files there are more.
    pub fn files(&self) -> i64 {
        self.0
            .values()
            .map(|place| i64::from(place.after.is_some()) - i64::from(place.before.is_some()))
            .sum()
    }

    /// What was done, as contents that went and contents that came.
    pub(super) fn counted(&self) -> impl Iterator<Item = (Option<u64>, Option<u64>)> {
        self.of(false)
    }

    /// The same of what is no loss.
    pub(super) fn excused(&self) -> impl Iterator<Item = (Option<u64>, Option<u64>)> {
        self.of(true)
    }

    fn of(&self, is_excused: bool) -> impl Iterator<Item = (Option<u64>, Option<u64>)> {
        let chosen = self.0.values().filter(move |place| place.is_excused == is_excused);
        chosen.map(|place| (place.before, place.after))
    }
}

/// Which contents are stored as others since everything was brought into another form.
#[derive(Debug, Default)]
pub struct Turned(HashMap<u64, u64>);

impl Turned {
    /// From what each was stored as, and is stored as.
    pub fn of<'p>(pairs: impl Iterator<Item = (&'p [u8; 20], &'p [u8; 20])>) -> Self {
        Self(pairs.map(|(old, new)| (key(old), key(new))).collect())
    }

    /// What a content is known as now.
    pub(super) fn now(&self, content: u64) -> u64 {
        self.0.get(&content).copied().unwrap_or(content)
    }
}

/// Eight bytes tell contents apart well enough to count them.
fn key(stored: &[u8; 20]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&stored[..8]);
    u64::from_le_bytes(first)
}
