//! What a directory held at the last look, in as few bytes as will do: nine an entry beside its name.
//!
//! In go the entries of a directory with a [`Mark`] each, out comes what differs at the next look. A mark is a
//! keyed hash of everything that a look tells, so two different looks are taken for the same once in 2^61
//! times, and nobody who does not know the key can make it happen.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

use crate::beneath::{EntryKind, Look, Unseen};

/// What an entry was, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

const DIRECTORY: u64 = 1;
const YOUNG: u64 = 2;
const HIDDEN: u64 = 4;
const FLAGS: u64 = DIRECTORY | YOUNG | HIDDEN;

impl Mark {
    /// The mark of an entry that was looked at. The device is left out, because it is another one after a
    /// remount.
    pub fn of(look: &Look, key: &RandomState) -> Self {
        let flags = if look.kind == EntryKind::Directory { DIRECTORY } else { 0 };
        let seen = (
            look.kind,
            (look.mode, look.uid, look.gid, look.size),
            (look.mtime_ns, look.ctime_ns),
            (look.inode, look.links, look.special),
        );
        Self(key.hash_one(seen) & !FLAGS | flags)
    }

    /// The mark of an entry that cannot be looked at.
    pub fn unseen(unseen: &Unseen, is_directory: bool, key: &RandomState) -> Self {
        let words = match unseen {
            Unseen::Gone => "",
            Unseen::Unreadable(words) => words.as_str(),
        };
        Self(key.hash_one(words) & !FLAGS | if is_directory { DIRECTORY } else { 0 })
    }

    /// The entry may change once more without looking different.
    pub fn young(self) -> Self {
        Self(self.0 | YOUNG)
    }

    /// The entry is recorded although the rules leave it out: it is a file of rules itself.
    pub fn hidden(self) -> Self {
        Self(self.0 | HIDDEN)
    }

    pub fn is_directory(self) -> bool {
        self.0 & DIRECTORY != 0
    }

    pub fn is_hidden(self) -> bool {
        self.0 & HIDDEN != 0
    }

    /// Whether nothing has happened to an entry that was marked `before`, as far as can be told.
    pub fn proves_unchanged_since(self, before: Mark) -> bool {
        before.0 & YOUNG == 0 && self.0 & !YOUNG == before.0
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: Box<[u8]>,
    pub mark: Mark,
}

/// The entries of a directory in name order: each its name, a NUL and its mark.
#[derive(Debug, Default)]
pub(super) struct Listing(Box<[u8]>);

/// What stands after a name: the NUL and the mark.
const TAIL: usize = 1 + size_of::<u64>();

impl Listing {
    /// Packs `entries`, which are sorted by name.
    pub fn pack(entries: &[Entry]) -> Self {
        let length = entries.iter().map(|entry| entry.name.len() + TAIL).sum();
        let mut packed = Vec::with_capacity(length);
        for entry in entries {
            packed.extend_from_slice(&entry.name);
            packed.push(0);
            packed.extend_from_slice(&entry.mark.0.to_le_bytes());
        }
        Self(packed.into_boxed_slice())
    }

    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Mark)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let (name, tail) = rest.split_at_checked(end)?;
            let (mark, after) = tail.get(1..)?.split_first_chunk()?;
            rest = after;
            Some((name, Mark(u64::from_le_bytes(*mark))))
        })
    }

    /// Bytes of memory, without this struct itself.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// An entry before and now; never neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub name: &'a [u8],
    pub before: Option<Mark>,
    pub now: Option<Mark>,
}

impl Pair<'_> {
    /// Whether somebody has to look at the entry.
    pub fn differs(&self) -> bool {
        match (self.before, self.now) {
            (Some(before), Some(now)) => !now.proves_unchanged_since(before),
            _ => true,
        }
    }

    /// Whether it is a directory now that was none before.
    pub fn is_new_directory(&self) -> bool {
        self.now.is_some_and(Mark::is_directory) && !self.before.is_some_and(Mark::is_directory)
    }

    /// Whether it was a directory before and is none now.
    pub fn was_directory(&self) -> bool {
        self.before.is_some_and(Mark::is_directory) && !self.now.is_some_and(Mark::is_directory)
    }
}

/// Every entry of a directory before and now, in name order.
pub(super) fn pairs<'a>(
    before: Option<&'a Listing>,
    now: &'a [Entry],
) -> impl Iterator<Item = Pair<'a>> + use<'a> {
    let mut before = before.into_iter().flat_map(Listing::entries).peekable();
    let mut now = now.iter().map(|entry| (&*entry.name, entry.mark)).peekable();
    std::iter::from_fn(move || {
        let order = match (before.peek(), now.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((before, _)), Some((now, _))) => before.cmp(now),
        };
        let before = if order.is_le() { before.next() } else { None };
        let now = if order.is_ge() { now.next() } else { None };
        let (name, _) = before.or(now)?;
        Some(Pair { name, before: before.map(|(_, mark)| mark), now: now.map(|(_, mark)| mark) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(size: u64) -> Look {
        Look {
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime_ns: 1,
            ctime_ns: 2,
            inode: 3,
            device: 4,
            links: 1,
            special: 0,
            is_mount: false,
        }
    }

    fn entry(name: &str, mark: Mark) -> Entry {
        Entry { name: name.as_bytes().into(), mark }
    }

    #[test]
    fn a_packed_listing_holds_its_entries_in_nine_bytes_and_the_name() {
        let key = RandomState::new();
        let entries: Vec<Entry> = ["\u{1}", "a", "b\n", "\u{ff}"]
            .iter()
            .enumerate()
            .map(|(size, name)| entry(name, Mark::of(&look(size as u64), &key).young()))
            .collect();
        let packed = Listing::pack(&entries);
        let unpacked: Vec<Entry> =
            packed.entries().map(|(name, mark)| Entry { name: name.into(), mark }).collect();
        assert_eq!(unpacked, entries);
        let names: usize = entries.iter().map(|entry| entry.name.len()).sum();
        assert_eq!(packed.bytes(), names + 9 * entries.len());
        assert_eq!(Listing::default().entries().count(), 0);
    }

    #[test]
    fn whatever_a_look_tells_is_in_the_mark_but_for_the_device() {
        let key = RandomState::new();
        let mark = |change: fn(&mut Look)| {
            let mut changed = look(10);
            change(&mut changed);
            Mark::of(&changed, &key)
        };
        let before = mark(|_| ());
        assert!(mark(|_| ()).proves_unchanged_since(before));
        assert!(mark(|look| look.device = 9).proves_unchanged_since(before));
        assert!(mark(|_| ()).young().proves_unchanged_since(before));
        assert!(!before.proves_unchanged_since(before.young()));
        let changes: [fn(&mut Look); 10] = [
            |look| look.kind = EntryKind::Directory,
            |look| look.mode = 0o600,
            |look| look.uid = 7,
            |look| look.gid = 7,
            |look| look.size = 7,
            |look| look.mtime_ns = 7,
            |look| look.ctime_ns = 7,
            |look| look.inode = 7,
            |look| look.links = 7,
            |look| look.special = 7,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(!mark(change).proves_unchanged_since(before), "change {number}");
        }
    }

    #[test]
    fn two_listings_are_told_apart_name_by_name() {
        let key = RandomState::new();
        let (one, other) = (Mark::of(&look(1), &key), Mark::of(&look(2), &key));
        let before = Listing::pack(&[entry("a", one), entry("b", one), entry("c", one), entry("d", one)]);
        let now = [entry("B", one), entry("b", other), entry("c", one), entry("e", one)];
        let told: Vec<(String, bool, bool, bool)> = pairs(Some(&before), &now)
            .map(|pair| {
                let name = String::from_utf8_lossy(pair.name).into_owned();
                (name, pair.before.is_some(), pair.now.is_some(), pair.differs())
            })
            .collect();
        let told: Vec<(&str, bool, bool, bool)> = told
            .iter()
            .map(|(name, before, now, differs)| (name.as_str(), *before, *now, *differs))
            .collect();
        assert_eq!(
            told,
            [
                ("B", false, true, true),
                ("a", true, false, true),
                ("b", true, true, true),
                ("c", true, true, false),
                ("d", true, false, true),
                ("e", false, true, true),
            ]
        );
        assert_eq!(pairs(None, &now).filter(Pair::differs).count(), 4);
    }
}
