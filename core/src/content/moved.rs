//! Contents that leave their places in a batch: one that turns up at another place keeps its object.
//!
//! An OpenPGP message is another one each time, so without this a renamed directory would be stored again, and would look
//! like one that was lost and another that came.

use std::collections::HashMap;

use crate::store::files::FileRecord;

/// By their checksums.
#[derive(Debug, Default)]
pub struct Moved(HashMap<[u8; 32], FileRecord>);

impl Moved {
    /// Notes what is recorded of a file that is gone.
    pub fn note(&mut self, record: FileRecord) {
        if record.is_stored() && record.checksum != [0; 32] {
            self.0.insert(record.checksum, record);
        }
    }

    /// Whether nothing has left its place.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one that left had so many bytes.
    pub fn has_size(&self, size: u64) -> bool {
        self.0.values().any(|record| record.look.size == size)
    }

    /// What had this checksum.
    pub fn get(&self, checksum: &[u8; 32]) -> Option<&FileRecord> {
        self.0.get(checksum)
    }
}
