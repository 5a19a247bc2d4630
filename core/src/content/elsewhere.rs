//! Contents that a batch meets at more than one place: one that leaves a place and turns up at another, one with several names, and
//! one that was stored for another file just now. Each keeps its object.
//!
//! An OpenPGP message is another one each time, so without this a renamed directory would be stored again, and would look
//! like one that was lost and another that came; and a file with two names would be stored twice.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::files::FileRecord;

/// What a content with a certain checksum is stored as.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What is, or would be, recorded of a file that has it.
    pub record: FileRecord,
    /// It was stored in this batch, so all of it is here.
    pub is_new: bool,
}

#[derive(Debug, Default)]
struct Known {
    by_checksum: HashMap<[u8; 32], Stored>,
    sizes: HashSet<u64>,
}

/// By their checksums, for several threads.
#[derive(Debug, Default)]
pub struct Elsewhere(RwLock<Known>);

impl Elsewhere {
    /// Notes what is recorded of a file that is gone, or has another name.
    pub fn note(&self, record: FileRecord) {
        self.insert(Stored { record, is_new: false });
    }

    /// Notes what was stored just now.
    pub fn note_new(&self, record: FileRecord) {
        self.insert(Stored { record, is_new: true });
    }

    fn insert(&self, stored: Stored) {
        let record = &stored.record;
        if record.is_stored() && record.checksum != [0; 32] {
            let mut known = self.write();
            known.sizes.insert(record.look.size);
            known.by_checksum.insert(record.checksum, stored);
        }
    }

    /// Whether one of so many bytes is known: then it may pay to read a large file once more.
    pub fn has_size(&self, size: u64) -> bool {
        self.read().sizes.contains(&size)
    }

    /// What has this checksum.
    pub fn get(&self, checksum: &[u8; 32]) -> Option<Stored> {
        self.read().by_checksum.get(checksum).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
