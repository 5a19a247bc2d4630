//! The records in which one directory differs between two trees. In: what stands under [`RECORDS_NAME`] in each. Out: the
//! records that are not the same, at the cost of the shards that are not. What cannot be read counts as not recorded.

use std::collections::BTreeMap;

use super::shard::{Prefix, read_differing};
use super::tolerant::Readable;
use super::{MAX_LEVELS, RECORDS_NAME, Record, child_of, damaged};
use crate::git::objects::ObjectDatabase;
use crate::tree::{Entry, diff_names};

/// A name whose record differs; never both `None`, never equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// The name; [`OWN_NAME`](super::OWN_NAME) for the directory itself.
    pub name: Vec<u8>,
    /// What was recorded.
    pub old: Option<Record>,
    /// What is recorded.
    pub new: Option<Record>,
}

/// The records that differ, by name, and what could not be read.
pub fn differing_records(
    objects: &ObjectDatabase<'_>,
    old: Option<Entry>,
    new: Option<Entry>,
) -> (Vec<RecordChange>, Vec<String>) {
    let mut sides = Sides::default();
    sides.join(objects, old, new, RECORDS_NAME.to_vec(), &mut Prefix::new());
    let by_name = |records: Vec<Record>| -> BTreeMap<Vec<u8>, Record> {
        records.into_iter().map(|record| (record.name.clone(), record)).collect()
    };
    let (old, mut new) = (by_name(sides.old.records), by_name(sides.new.records));
    let mut changes = Vec::new();
    for (name, old) in old {
        let new = new.remove(&name);
        if new.as_ref() != Some(&old) {
            changes.push(RecordChange { name, old: Some(old), new });
        }
    }
    changes.extend(new.into_iter().map(|(name, new)| RecordChange { name, old: None, new: Some(new) }));
    changes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let damage = sides.old.damage.into_iter().chain(sides.new.damage);
    (changes, damage.collect())
}

/// Pairs of shards that are compared for one directory; twenty million names make fewer.
const MAX_PAIRS: usize = 1 << 19;

#[derive(Default)]
struct Sides {
    old: Readable,
    new: Readable,
    pairs: usize,
}

impl Sides {
    /// The native recursion ends at [`MAX_LEVELS`], and a tree of shards that names itself many times over at
    /// [`MAX_PAIRS`].
    fn join(
        &mut self,
        objects: &ObjectDatabase<'_>,
        old: Option<Entry>,
        new: Option<Entry>,
        path: Vec<u8>,
        prefix: &mut Prefix,
    ) {
        if old == new || self.old.is_given_up() || self.new.is_given_up() {
            return;
        }
        self.pairs += 1;
        if self.pairs > MAX_PAIRS {
            return self.new.give_up(&damaged(&path, "more shards than any directory has"));
        }
        if let (Some(old), Some(new)) = (old, new)
            && !old.is_tree()
            && !new.is_tree()
        {
            return self.shards(objects, old, new, &path, prefix);
        }
        let tree = |entry: Option<Entry>| entry.filter(|entry| entry.is_tree()).map(|entry| entry.oid);
        let (Some(old_tree), Some(new_tree)) = (tree(old), tree(new)) else {
            if let Some(node) = old {
                self.old.read_shards(objects, node, path.clone(), prefix.clone());
            }
            if let Some(node) = new {
                self.new.read_shards(objects, node, path, prefix.clone());
            }
            return;
        };
        if prefix.len() >= MAX_LEVELS {
            return self.new.damaged(&damaged(&path, "more levels of shards than a hash has bits for"));
        }
        let mut below: BTreeMap<Vec<u8>, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
        let joined = diff_names(objects, Some(old_tree), Some(new_tree), &mut |change| {
            // A blob on one side and a tree on the other come as two.
            let pair = below.entry(change.path.to_vec()).or_default();
            pair.0 = pair.0.or(change.old);
            pair.1 = pair.1.or(change.new);
            Ok(())
        });
        if let Err(error) = joined {
            self.new.damaged(&error);
        }
        for (name, (old, new)) in below {
            let Some(child) = child_of(&name) else {
                self.new.damaged(&damaged(&path, "a name that is no shard's"));
                continue;
            };
            prefix.push(child);
            self.join(objects, old, new, [path.as_slice(), b"/", &name].concat(), prefix);
            prefix.pop();
        }
    }
    /// Where one of them cannot be read, the other is as a whole.
    fn shards(&mut self, objects: &ObjectDatabase<'_>, old: Entry, new: Entry, path: &[u8], prefix: &Prefix) {
        if !self.old.has_room_for(objects, old.oid, path) || !self.new.has_room_for(objects, new.oid, path) {
            return;
        }
        match read_differing(objects, (old.oid, new.oid), path, prefix) {
            Ok((old, new)) => {
                self.old.records.extend(old);
                self.new.records.extend(new);
            }
            Err(_) => {
                self.old.read_shards(objects, old, path.to_vec(), prefix.clone());
                self.new.read_shards(objects, new, path.to_vec(), prefix.clone());
            }
        }
    }
}
