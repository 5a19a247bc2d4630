//! The bytes of one tree object: `<octal mode> <name>\0<20-byte id>`, again and again, sorted by name as if
//! each directory's name ended with a slash. In: bytes from anywhere. Out: entries, or what is wrong.

use std::cmp::Ordering;
use std::ffi::CStr;
use std::ops::Range;

use git2::Oid;

use super::{Entry, MODE_COMMIT, MODE_EXECUTABLE, MODE_FILE, MODE_SYMLINK, MODE_TREE};

const OID_BYTES: usize = 20;

/// Written by Git before 2005 and still read by it.
const MODE_GROUP_WRITABLE: u32 = 0o100_664;

/// What Git's format does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {position}")]
pub struct Malformed {
    problem: &'static str,
    position: usize,
}

/// One entry, with its place in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry<'a> {
    /// The name, as Git holds it.
    pub name: &'a [u8],
    /// What it stands for.
    pub entry: Entry,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl RawEntry<'_> {
    pub(super) fn name_range(&self) -> Range<usize> {
        let end = self.end - OID_BYTES - 1;
        end - self.name.len()..end
    }
}

/// The entries of a tree; ends after the first error.
pub struct Entries<'a> {
    data: &'a [u8],
    cursor: Cursor,
    failed: bool,
}

/// Reads a tree object's bytes.
pub fn parse(data: &[u8]) -> Entries<'_> {
    Entries { data, cursor: Cursor::default(), failed: false }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RawEntry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.cursor.next(self.data);
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Where reading stands. It borrows nothing, so that it can be kept beside the bytes it reads.
#[derive(Default)]
pub(super) struct Cursor {
    position: usize,
    previous: Option<(Range<usize>, bool)>,
    /// Files whose directory namesake could still follow: `a` stays here while `a-b`, `a.c` pass, until
    /// everything that sorts before `a/` is over.
    files_awaiting_namesake: Vec<Range<usize>>,
}

impl Cursor {
    pub(super) fn next<'a>(&mut self, data: &'a [u8]) -> Result<Option<RawEntry<'a>>, Malformed> {
        let start = self.position;
        let wrong = |problem| Malformed { problem, position: start };
        let rest = data.get(start..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let (mode, mode_bytes) = mode_of(rest).ok_or(wrong("an unknown mode"))?;
        let after_mode = rest.get(mode_bytes..).unwrap_or_default();
        let name =
            CStr::from_bytes_until_nul(after_mode).map_err(|_| wrong("a name without end"))?.to_bytes();
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(wrong("an impossible name"));
        }
        let oid_start = mode_bytes + name.len() + 1;
        let id = rest.get(oid_start..oid_start + OID_BYTES).ok_or(wrong("a cut-off object id"))?;
        let oid = Oid::from_bytes(id).map_err(|_| wrong("an unusable object id"))?;

        let end = start + oid_start + OID_BYTES;
        let raw = RawEntry { name, entry: Entry { mode, oid }, start, end };
        self.check_order(data, &raw).map_err(wrong)?;
        self.position = end;
        Ok(Some(raw))
    }

    fn check_order(&mut self, data: &[u8], raw: &RawEntry<'_>) -> Result<(), &'static str> {
        let is_tree = raw.entry.is_tree();
        if let Some((previous, previous_is_tree)) = self.previous.take()
            && order(&data[previous], previous_is_tree, raw.name, is_tree) != Ordering::Less
        {
            return Err("a name out of order");
        }
        while let Some(file) = self.files_awaiting_namesake.last() {
            match raw.name.strip_prefix(&data[file.clone()]) {
                Some([]) => return Err("one name twice"),
                Some([next, ..]) if *next < b'/' => break,
                _ => self.files_awaiting_namesake.pop(),
            };
        }
        if !is_tree {
            self.files_awaiting_namesake.push(raw.name_range());
        }
        self.previous = Some((raw.name_range(), is_tree));
        Ok(())
    }
}

/// The mode and the bytes it takes, with its space. Only Git's own spelling, so that every tree that is
/// accepted can be copied in pieces.
fn mode_of(rest: &[u8]) -> Option<(u32, usize)> {
    let known: [(&[u8], u32); 6] = [
        (b"100644 ", MODE_FILE),
        (b"40000 ", MODE_TREE),
        (b"100755 ", MODE_EXECUTABLE),
        (b"120000 ", MODE_SYMLINK),
        (b"160000 ", MODE_COMMIT),
        (b"100664 ", MODE_GROUP_WRITABLE),
    ];
    known.into_iter().find(|(text, _)| rest.starts_with(text)).map(|(text, mode)| (mode, text.len()))
}

/// Git's order of two entries.
pub(super) fn order(a: &[u8], a_is_tree: bool, b: &[u8], b_is_tree: bool) -> Ordering {
    let common = a.len().min(b.len());
    let next = |name: &[u8], is_tree: bool| match name.get(common) {
        Some(byte) => *byte,
        None if is_tree => b'/',
        None => 0,
    };
    a[..common].cmp(&b[..common]).then_with(|| next(a, a_is_tree).cmp(&next(b, b_is_tree)))
}

/// A tree object's bytes. The entries are sorted here; that no name comes twice is the caller's part.
pub fn serialize<'a>(entries: impl IntoIterator<Item = (&'a [u8], Entry)>) -> Vec<u8> {
    let mut sorted: Vec<(&[u8], Entry)> = entries.into_iter().collect();
    sorted.sort_unstable_by(|a, b| order(a.0, a.1.is_tree(), b.0, b.1.is_tree()));
    let mut data = Vec::new();
    for (name, entry) in sorted {
        append(&mut data, name, entry);
    }
    data
}

pub(super) fn append(data: &mut Vec<u8>, name: &[u8], entry: Entry) {
    data.extend_from_slice(format!("{:o} ", entry.mode).as_bytes());
    data.extend_from_slice(name);
    data.push(0);
    data.extend_from_slice(entry.oid.as_bytes());
}
