//! Who owns what is restored: by name as this machine knows it, else by number.
//!
//! In: the names and numbers of a record. Out: the numbers to set here. Each name is looked up once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::metadata::Record;

/// Names looked up so far; a hostile repository may invent more.
const MOST_NAMES: usize = 10_000;

type Known = Mutex<HashMap<String, Option<u32>>>;

/// The names of this machine.
#[derive(Debug, Default)]
pub struct Owners {
    users: Known,
    groups: Known,
}

impl Owners {
    /// Nothing looked up yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The owner and the group of a record, as numbers of this machine.
    pub fn of(&self, record: &Record) -> (u32, u32) {
        let user = |name: &str| Some(uzers::get_user_by_name(name)?.uid());
        let group = |name: &str| Some(uzers::get_group_by_name(name)?.gid());
        let uid = record.user.as_deref().and_then(|name| known(&self.users, name, user));
        let gid = record.group.as_deref().and_then(|name| known(&self.groups, name, group));
        (uid.unwrap_or(record.uid), gid.unwrap_or(record.gid))
    }
}

fn known(names: &Known, name: &str, ask: impl FnOnce(&str) -> Option<u32>) -> Option<u32> {
    // The system's own functions take names as C strings.
    if name.is_empty() || name.contains('\0') {
        return None;
    }
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = names.get(name) {
        return *found;
    }
    let found = ask(name);
    if names.len() >= MOST_NAMES {
        names.clear();
    }
    names.insert(name.to_owned(), found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::EntryKind;
    use crate::restore::tests::record;

    #[test]
    fn a_known_name_counts_more_than_its_number_and_an_unknown_one_less() {
        let owners = Owners::new();
        let root = Record {
            user: Some("root".to_owned()),
            uid: 4242,
            group: Some("no such group here".to_owned()),
            gid: 4243,
            ..record(b"x", EntryKind::File)
        };
        assert_eq!(owners.of(&root), (0, 4243));
        let strange = Record { user: Some("ro\0ot".to_owned()), ..root.clone() };
        assert_eq!(owners.of(&strange), (4242, 4243));
        assert_eq!(owners.of(&root), (0, 4243), "the second time from memory");
    }
}
