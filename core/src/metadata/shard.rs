//! One shard: a header line and one line a record, sorted by the bytes of the names. In: a blob. Out: its
//! lines by name, kept as they were written, so that fields a later version added survive a writer that does
//! not know them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use git2::Oid;
use serde::Deserialize;

use super::record::{Record, name_in_line};
use super::{FORMAT_VERSION, MAX_SHARD_BYTES, child_at, damaged, hash_of, read_blob};
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::path::lossy;

/// A shard with more records is split.
const MAX_RECORDS: usize = 128;
/// A shard of several records with more bytes is split.
const MAX_BYTES: usize = 64 << 10;
/// Shards are joined when what is in them is a quarter of what would split them, so that a directory at a
/// limit does not swing between two forms.
const JOIN_DIVISOR: usize = 4;

#[derive(Deserialize)]
struct Header {
    backupbot: u32,
}

/// The lines of a shard, without newlines, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shard {
    lines: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

/// The way from a directory's records to a shard: the child chosen at each level.
pub(super) type Prefix = Vec<u8>;

impl Shard {
    pub(super) fn read(objects: &ObjectDatabase<'_>, oid: Oid, path: &[u8], prefix: &[u8]) -> Result<Self> {
        let data = read_blob(objects, oid, path, MAX_SHARD_BYTES)?;
        let mut shard = Self::default();
        for line in lines_of(&data, path)? {
            let name = name_in_line(line).map_err(|problem| damaged(path, &problem))?;
            if shard.lines.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(damaged(path, "names out of order"));
            }
            check_place(&name, prefix, path)?;
            shard.insert(name, line.to_vec());
        }
        Ok(shard)
    }

    pub(super) fn insert(&mut self, name: Vec<u8>, line: Vec<u8>) -> Option<Vec<u8>> {
        self.bytes += line.len() + 1;
        let before = self.lines.insert(name, line);
        self.bytes -= before.as_ref().map_or(0, |line| line.len() + 1);
        before
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let before = self.lines.remove(name);
        self.bytes -= before.as_ref().map_or(0, |line| line.len() + 1);
        before
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines.get(name).map(Vec::as_slice)
    }

    /// Name and line of each record, in the order of the names.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|(name, line)| (name.as_slice(), line.as_slice()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn is_too_big(&self) -> bool {
        self.lines.len() > 1 && (self.lines.len() > MAX_RECORDS || self.bytes > MAX_BYTES)
    }

    /// Whether this is small enough to stand in place of a tree of shards.
    pub(super) fn is_small(&self) -> bool {
        self.lines.len() <= MAX_RECORDS / JOIN_DIVISOR && self.bytes <= MAX_BYTES / JOIN_DIVISOR
    }

    pub(super) fn merge(&mut self, other: Shard) {
        for (name, line) in other.lines {
            self.insert(name, line);
        }
    }

    /// The shards one level further down, by child, none empty.
    pub(super) fn split(self, level: usize) -> BTreeMap<u8, Shard> {
        let mut children: BTreeMap<u8, Shard> = BTreeMap::new();
        for (name, line) in self.lines {
            children.entry(child_at(&hash_of(&name), level)).or_default().insert(name, line);
        }
        children
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut data = format!("{{\"backupbot\":{FORMAT_VERSION}}}\n").into_bytes();
        data.reserve(self.bytes);
        for line in self.lines.values() {
            data.extend_from_slice(line);
            data.push(b'\n');
        }
        data
    }
}

/// Reads a shard's records, in the order of their names.
pub(super) fn read_records(
    objects: &ObjectDatabase<'_>,
    oid: Oid,
    path: &[u8],
    prefix: &[u8],
) -> Result<Vec<Record>> {
    let data = read_blob(objects, oid, path, MAX_SHARD_BYTES)?;
    parse_records(lines_of(&data, path)?, path, prefix)
}

fn parse_records<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    path: &[u8],
    prefix: &[u8],
) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for line in lines {
        let record = Record::from_line(line).map_err(|problem| damaged(path, &problem))?;
        if records.last().is_some_and(|last| last.name >= record.name) {
            return Err(damaged(path, "names out of order"));
        }
        check_place(&record.name, prefix, path)?;
        records.push(record);
    }
    Ok(records)
}

/// The records of two shards at one place that are not in both, each in the order of the names. Lines that are the same
/// byte for byte are not looked at, which is most of the work saved.
pub(super) fn read_differing(
    objects: &ObjectDatabase<'_>,
    oids: (Oid, Oid),
    path: &[u8],
    prefix: &[u8],
) -> Result<(Vec<Record>, Vec<Record>)> {
    let old_data = read_blob(objects, oids.0, path, MAX_SHARD_BYTES)?;
    let new_data = read_blob(objects, oids.1, path, MAX_SHARD_BYTES)?;
    let (old, new) = unlike_parts(records_in(&old_data, path)?, records_in(&new_data, path)?);
    let lines = |part| -> HashSet<&[u8]> { lines_in(part).collect() };
    let (old_lines, new_lines) = (lines(old), lines(new));
    let differing = |part, others: &HashSet<&[u8]>| {
        parse_records(lines_in(part).filter(|line| !others.contains(line)), path, prefix)
    };
    Ok((differing(old, &new_lines)?, differing(new, &old_lines)?))
}

/// Two texts of whole lines without the lines at their beginnings and ends that are the same.
fn unlike_parts<'a>(mut a: &'a [u8], mut b: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    /// Compared at a time, because that is many times as fast as byte by byte.
    const STRIDE: usize = 64;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let alike = STRIDE * strides.take_while(|(a, b)| a == b).count();
    let rest = a[alike..].iter().zip(&b[alike..]);
    let alike = alike + rest.take_while(|(a, b)| a == b).count();
    let start = a[..alike].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (a, b) = (&a[start..], &b[start..]);

    let strides = a.rchunks_exact(STRIDE).zip(b.rchunks_exact(STRIDE));
    let alike = STRIDE * strides.take_while(|(a, b)| a == b).count();
    let rest = a[..a.len() - alike].iter().rev().zip(b[..b.len() - alike].iter().rev());
    let alike = alike + rest.take_while(|(a, b)| a == b).count();
    // The line that is cut belongs to what differs.
    let end = a[a.len() - alike..].iter().position(|byte| *byte == b'\n').map_or(0, |at| alike - at - 1);
    (&a[..a.len() - end], &b[..b.len() - end])
}

/// The record of one name, found by halving: of the other lines only some names are read.
pub(super) fn find_in_shard(
    objects: &ObjectDatabase<'_>,
    oid: Oid,
    path: &[u8],
    name: &[u8],
) -> Result<Option<Record>> {
    let data = read_blob(objects, oid, path, MAX_SHARD_BYTES)?;
    let lines: Vec<&[u8]> = lines_of(&data, path)?.collect();
    let (mut from, mut to) = (0, lines.len());
    while from < to {
        let middle = from + (to - from) / 2;
        let found = name_in_line(lines[middle]).map_err(|problem| damaged(path, &problem))?;
        match found.as_slice().cmp(name) {
            Ordering::Less => from = middle + 1,
            Ordering::Greater => to = middle,
            Ordering::Equal => {
                return Record::from_line(lines[middle]).map(Some).map_err(|problem| damaged(path, &problem));
            }
        }
    }
    Ok(None)
}

/// The record lines, after the header was found to be of a version that this program reads.
fn lines_of<'a>(data: &'a [u8], path: &[u8]) -> Result<impl Iterator<Item = &'a [u8]>> {
    Ok(lines_in(records_in(data, path)?))
}

/// The text after the header, whole lines.
fn records_in<'a>(data: &'a [u8], path: &[u8]) -> Result<&'a [u8]> {
    if !data.ends_with(b"\n") {
        return Err(damaged(path, "no newline at the end"));
    }
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let header: Header =
        serde_json::from_slice(&data[..end]).map_err(|e| damaged(path, &format!("no header: {e}")))?;
    if header.backupbot != FORMAT_VERSION {
        return Err(foreign_version(path, header.backupbot));
    }
    Ok(&data[end + 1..])
}

fn lines_in(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.strip_suffix(b"\n").map(|text| text.split(|byte| *byte == b'\n'));
    lines.into_iter().flatten()
}

pub(super) fn foreign_version(path: &[u8], version: u32) -> Error {
    let text = format!(
        "{:?} is of format version {version} and this program reads {FORMAT_VERSION}; \
         use a version of BackupBot that reads it",
        lossy(path)
    );
    Error::new(Kind::Git, text)
}

/// A record in a shard that its name's hash does not lead to would never be found again.
fn check_place(name: &[u8], prefix: &[u8], path: &[u8]) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    let hash = hash_of(name);
    let belongs = prefix.iter().enumerate().all(|(level, child)| child_at(&hash, level) == *child);
    if belongs { Ok(()) } else { Err(damaged(path, "a record in another one's shard")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_texts_share_at_their_ends_is_cut_off_in_whole_lines() {
        let long = format!("{}\n", "x".repeat(200));
        let cases = [
            ("", ""),
            ("a\nb\n", "a\nb\n"),
            ("a\nb\nc\n", "a\nB\nc\n"),
            ("a\nc\n", "a\nb\nc\n"),
            ("ab\n", "cb\n"),
            ("a\na\n", "a\n"),
            ("aa\n", "a\n"),
            ("", "a\n"),
        ];
        for (a, b) in cases {
            for around in ["", "same\n", &long.repeat(3)] {
                let (whole_a, whole_b) = (format!("{around}{a}{around}"), format!("{around}{b}{around}"));
                let (old, new) = unlike_parts(whole_a.as_bytes(), whole_b.as_bytes());
                assert!(old.len() <= a.len() + around.len() / 2 + 8, "{whole_a:?} {whole_b:?}");
                let before = old.as_ptr() as usize - whole_a.as_ptr() as usize;
                let after = whole_a.len() - before - old.len();
                assert_eq!(new, &whole_b.as_bytes()[before..whole_b.len() - after]);
                for cut in [&whole_a[..before], &whole_a[whole_a.len() - after..]] {
                    assert!(cut.is_empty() || cut.ends_with('\n'), "{whole_a:?} {whole_b:?}");
                }
                assert_eq!(whole_a[..before], whole_b[..before]);
                assert_eq!(whole_a[whole_a.len() - after..], whole_b[whole_b.len() - after..]);
            }
        }
    }
}
