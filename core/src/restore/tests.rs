//! What the tests of this module share: records, and repositories made by the real git.

use std::collections::BTreeMap;

use crate::beneath::EntryKind;
use crate::metadata::{Mtime, Record};

pub(super) fn record(name: &[u8], kind: EntryKind) -> Record {
    Record {
        name: name.to_vec(),
        kind,
        mode: 0o644,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: None,
        group: None,
        mtime: Mtime { seconds: 1_600_000_000, nanoseconds: 123_456_789 },
        size: None,
        blake3: None,
        xattrs: BTreeMap::new(),
        xattrs_omitted: false,
        hard_link: None,
        device: None,
        is_mount: false,
    }
}
