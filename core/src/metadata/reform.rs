//! All records of a tree written anew: with other checksums, in clear text or encrypted with another key.
//!
//! The shards stay what and where they are, so that nothing but the form changes; a line whose checksum stays is carried over
//! byte for byte. In: a tree, and what becomes of each file's record. Out: edits. One shard is held at a time.

use git2::{ObjectType, Oid};

use super::shard::{Prefix, Shard};
use super::{
    MAX_LEVELS, NOTHING_IN_IT, OWN_NAME, RECORDS_NAME, Record, child_of, damaged, read::subdirectory,
};
use crate::crypt::gitcrypt::cipher::encrypt_whole;
use crate::crypt::keyring::Key;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::path::{OWN_DIRECTORY, escape_component, lossy};
use crate::progress::Progress;
use crate::tree::{Edits, Entry, Listing, MAX_DEPTH, MODE_FILE, TreeSink, lookup};

/// What becomes of a file's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reform {
    /// Its content has this checksum from now on.
    Checksum([u8; 32]),
    /// It stays as it is.
    Same,
    /// Nothing is known of its content: it goes without a checksum.
    Unknown,
    /// The file is not in the tree any more.
    Gone,
}

/// Says what becomes of the record of the file at a path of the repository.
pub type ReformOf<'c> = dyn Fn(&[u8]) -> Reform + 'c;

/// Writes every record of `tree` to `sink` as `reform_of` says, encrypted with `key` if there is one.
///
/// # Errors
/// Damaged metadata, or such as no key opens; what the sink says; cancellation.
pub fn rewrite(
    objects: &ObjectDatabase<'_>,
    sink: &dyn TreeSink,
    tree: Oid,
    key: Option<&Key>,
    reform_of: &ReformOf<'_>,
    edits: &mut Edits,
    progress: &Progress,
) -> Result<()> {
    let top = format!("{OWN_DIRECTORY}/meta").into_bytes();
    let Some(entry) = lookup(objects, tree, &top)? else { return Ok(()) };
    let mut writer = Writer { objects, sink, key, reform_of, edits, progress };
    let mut waiting = vec![(top, entry, Vec::new(), 1)];
    while let Some((path, entry, files, depth)) = waiting.pop() {
        if depth > MAX_DEPTH {
            return Err(damaged(&path, "directories without end below each other"));
        }
        let listing = Listing::read(objects, entry.oid, &path)?;
        for (name, entry) in listing.iter() {
            let mut below = path.clone();
            below.push(b'/');
            below.extend_from_slice(name);
            if name == RECORDS_NAME {
                writer.shards(entry, &mut (below, Prefix::new()), &files)?;
                continue;
            }
            subdirectory(name, entry, &path)?;
            let within = if files.is_empty() { name.to_vec() } else { [&files[..], b"/", name].concat() };
            waiting.push((below, entry, within, depth + 1));
        }
    }
    Ok(())
}

struct Writer<'w, 'o> {
    objects: &'w ObjectDatabase<'o>,
    sink: &'w dyn TreeSink,
    key: Option<&'w Key>,
    reform_of: &'w ReformOf<'w>,
    edits: &'w mut Edits,
    progress: &'w Progress,
}

impl Writer<'_, '_> {
    /// The shards at a place, of the directory of files at `files`. The native recursion ends at [`MAX_LEVELS`].
    fn shards(&mut self, entry: Entry, place: &mut (Vec<u8>, Prefix), files: &[u8]) -> Result<()> {
        if !entry.is_tree() {
            return self.shard(entry, place, files);
        }
        if place.1.len() >= MAX_LEVELS {
            return Err(damaged(&place.0, "more levels of shards than a hash has bits for"));
        }
        let listing = Listing::read(self.objects, entry.oid, &place.0)?;
        if listing.is_empty() {
            return Err(damaged(&place.0, NOTHING_IN_IT));
        }
        for (name, entry) in listing.iter() {
            let child = child_of(name).ok_or_else(|| damaged(&place.0, "a name that is no shard's"))?;
            let length = place.0.len();
            place.0.push(b'/');
            place.0.extend_from_slice(name);
            place.1.push(child);
            self.shards(entry, place, files)?;
            place.0.truncate(length);
            place.1.pop();
        }
        Ok(())
    }

    fn shard(&mut self, entry: Entry, place: &(Vec<u8>, Prefix), files: &[u8]) -> Result<()> {
        self.progress.check()?;
        let mut shard = Shard::read(self.objects, entry.oid, &place.0, &place.1)?;
        let (mut replaced, mut gone) = (Vec::new(), Vec::new());
        for (name, line) in shard.lines() {
            if name == OWN_NAME {
                continue;
            }
            let record = Record::from_line(line).map_err(|problem| damaged(&place.0, &problem))?;
            let Some(old) = record.blake3 else { continue };
            let path = [files, b"/", &escape_component(name)].concat();
            let new = match (self.reform_of)(&path) {
                Reform::Same => continue,
                Reform::Checksum(new) if new == old => continue,
                Reform::Checksum(new) => Some(new),
                Reform::Unknown => None,
                Reform::Gone => {
                    gone.push(name.to_vec());
                    continue;
                }
            };
            replaced.push((name.to_vec(), with_checksum(line, record, old, new)?));
        }
        for name in gone {
            shard.remove(&name);
        }
        for (name, line) in replaced {
            shard.insert(name, line);
        }
        if shard.is_empty() {
            self.edits.remove(place.0.clone());
            return Ok(());
        }
        let mut data = shard.to_bytes();
        if let Some(key) = self.key {
            data = encrypt_whole(key.version()?, &data)?;
        }
        let oid = self.sink.write(ObjectType::Blob, &data)?;
        self.edits.set(place.0.clone(), Entry { mode: MODE_FILE, oid });
        Ok(())
    }
}

/// The line with another checksum, and with whatever a later version wrote into it.
fn with_checksum(line: &[u8], record: Record, old: [u8; 32], new: Option<[u8; 32]>) -> Result<Vec<u8>> {
    let field = |hash: [u8; 32]| format!("\"blake3\":\"{}\"", blake3::Hash::from_bytes(hash).to_hex());
    let wanted = Record { blake3: new, ..record };
    if let (Some(new), Ok(text)) = (new, std::str::from_utf8(line)) {
        let replaced = text.replacen(&field(old), &field(new), 1).into_bytes();
        // What a name or an attribute has in it is quoted otherwise; whatever somebody made up is written by us.
        if Record::from_line(&replaced).is_ok_and(|read| read == wanted) {
            return Ok(replaced);
        }
    }
    let (line, _) = wanted.to_line().map_err(|problem| {
        let text = format!("a record of {:?} cannot be kept", lossy(&wanted.name));
        Error::with_source(Kind::Internal, text, problem)
    })?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gets_another_checksum_and_keeps_what_a_later_version_wrote_into_it() {
        let old = *blake3::hash(b"a").as_bytes();
        let new = *blake3::hash(b"b").as_bytes();
        let hex = |hash: [u8; 32]| blake3::Hash::from_bytes(hash).to_hex().to_string();
        let line = format!(
            r#"{{"name":"x","kind":"file","mode":"0644","uid":1,"gid":1,"mtime":"1.000000000","size":1,"blake3":"{}","later":[1]}}"#,
            hex(old)
        );
        let record = Record::from_line(line.as_bytes()).unwrap();
        let replaced = with_checksum(line.as_bytes(), record.clone(), old, Some(new)).unwrap();
        assert_eq!(String::from_utf8(replaced).unwrap(), line.replace(&hex(old), &hex(new)));
        let without = with_checksum(line.as_bytes(), record.clone(), old, None).unwrap();
        assert_eq!(Record::from_line(&without).unwrap(), Record { blake3: None, ..record });
    }
}
