//! The header in front of every entry of a pack: what it holds, and how large that is when inflated.
//!
//! In goes a kind and a size, out come one to thirty bytes, and back. What is decoded may come from anywhere.

use git2::Oid;

use super::HASH_BYTES;
use super::object::ObjectKind;

/// More than any header needs: ten bytes of size and an object name or ten bytes of distance.
pub(super) const MAX_HEADER_BYTES: usize = 32;

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const TAG: u8 = 4;
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

/// How an entry says what it holds, as written in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderKind {
    Whole(ObjectKind),
    /// A delta against the entry that begins `distance` bytes earlier in the same pack.
    OfsDelta {
        distance: u64,
    },
    RefDelta {
        base: Oid,
    },
}

/// A decoded entry header and the number of bytes it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) kind: HeaderKind,
    /// Size after inflating: of the object, or of the delta.
    pub(super) size: u64,
    pub(super) length: usize,
}

/// Appends the header of an entry that inflates to `size` bytes.
pub(super) fn encode_entry_header(kind: &HeaderKind, size: u64, out: &mut Vec<u8>) {
    let code = match kind {
        HeaderKind::Whole(ObjectKind::Commit) => COMMIT,
        HeaderKind::Whole(ObjectKind::Tree) => TREE,
        HeaderKind::Whole(ObjectKind::Blob) => BLOB,
        HeaderKind::Whole(ObjectKind::Tag) => TAG,
        HeaderKind::OfsDelta { .. } => OFS_DELTA,
        HeaderKind::RefDelta { .. } => REF_DELTA,
    };
    let mut byte = (code << 4) | (size & 0x0f) as u8;
    let mut rest = size >> 4;
    while rest != 0 {
        out.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.push(byte);
    match kind {
        HeaderKind::Whole(_) => {}
        HeaderKind::OfsDelta { distance } => encode_distance(*distance, out),
        HeaderKind::RefDelta { base } => out.extend_from_slice(base.as_bytes()),
    }
}

/// Big-endian groups of seven bits, each but the last counted from one, so that no number has two forms.
fn encode_distance(distance: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; 10];
    let mut at = bytes.len() - 1;
    bytes[at] = (distance & 0x7f) as u8;
    let mut rest = distance >> 7;
    while rest != 0 {
        rest -= 1;
        at -= 1;
        bytes[at] = 0x80 | (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.extend_from_slice(&bytes[at..]);
}

/// Reads the header at the start of `bytes`, which may come from anywhere; the error says what is wrong.
pub(super) fn decode_entry_header(bytes: &[u8]) -> Result<EntryHeader, &'static str> {
    let mut cursor = Cursor { bytes, at: 0 };
    let first = cursor.next()?;
    let mut size = u64::from(first & 0x0f);
    let mut shift = 4;
    let mut more = first & 0x80 != 0;
    while more {
        let byte = cursor.next()?;
        let part = u64::from(byte & 0x7f);
        if shift > 60 || (part << shift) >> shift != part {
            return Err("its size does not fit 64 bits");
        }
        size |= part << shift;
        shift += 7;
        more = byte & 0x80 != 0;
    }
    let kind = match (first >> 4) & 7 {
        COMMIT => HeaderKind::Whole(ObjectKind::Commit),
        TREE => HeaderKind::Whole(ObjectKind::Tree),
        BLOB => HeaderKind::Whole(ObjectKind::Blob),
        TAG => HeaderKind::Whole(ObjectKind::Tag),
        OFS_DELTA => HeaderKind::OfsDelta { distance: cursor.distance()? },
        REF_DELTA => HeaderKind::RefDelta { base: cursor.oid()? },
        _ => return Err("it has no kind that Git knows"),
    };
    Ok(EntryHeader { kind, size, length: cursor.at })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<u8, &'static str> {
        let byte = self.bytes.get(self.at).copied().ok_or("its header is cut short")?;
        self.at += 1;
        Ok(byte)
    }

    fn distance(&mut self) -> Result<u64, &'static str> {
        const TOO_FAR: &str = "the distance to its base does not fit 64 bits";
        let mut byte = self.next()?;
        let mut distance = u64::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.next()?;
            let above = distance.checked_add(1).and_then(|above| above.checked_mul(128)).ok_or(TOO_FAR)?;
            distance = above | u64::from(byte & 0x7f);
        }
        Ok(distance)
    }

    fn oid(&mut self) -> Result<Oid, &'static str> {
        let bytes = self.bytes.get(self.at..self.at + HASH_BYTES).ok_or("its header is cut short")?;
        self.at += HASH_BYTES;
        Oid::from_bytes(bytes).map_err(|_| "the name of its base is not 20 bytes long")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header_kind() -> impl Strategy<Value = HeaderKind> {
        prop_oneof![
            prop::sample::select(vec![
                ObjectKind::Commit,
                ObjectKind::Tree,
                ObjectKind::Blob,
                ObjectKind::Tag
            ])
            .prop_map(HeaderKind::Whole),
            any::<u64>().prop_map(|distance| HeaderKind::OfsDelta { distance }),
            any::<[u8; 20]>().prop_map(|raw| HeaderKind::RefDelta { base: Oid::from_bytes(&raw).unwrap() }),
        ]
    }

    proptest! {
        #[test]
        fn an_encoded_header_decodes_to_itself(kind in header_kind(), bits in 0u32..=64, size in any::<u64>()) {
            let size = size.checked_shr(bits).unwrap_or(0);
            let mut bytes = Vec::new();
            encode_entry_header(&kind, size, &mut bytes);
            let length = bytes.len();
            prop_assert!(length <= MAX_HEADER_BYTES);
            bytes.extend_from_slice(b"what follows");
            prop_assert_eq!(decode_entry_header(&bytes), Ok(EntryHeader { kind, size, length }));
            prop_assert!(decode_entry_header(&bytes[..length - 1]).is_err());
        }

        #[test]
        fn any_bytes_decode_or_fail_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(header) = decode_entry_header(&bytes) {
                prop_assert!(header.length <= bytes.len());
            }
        }
    }

    #[test]
    fn a_size_beyond_64_bits_is_refused() {
        let mut bytes = vec![0xbf];
        bytes.extend_from_slice(&[0xff; 9]);
        bytes.push(0x01);
        assert!(decode_entry_header(&bytes).is_err());
    }
}
