//! The pointer: a small text that stands in a tree for a large file.
//!
//! In: SHA-256 and size of a content. Out: the one valid text for them (docs/spec.md of Git LFS), and back. What others
//! wrote is read a little more widely than we write: older version lines, extensions, no newline at the end.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A text of this size or more is no pointer.
pub const LARGEST: usize = 1024;
/// The first line that we write.
const VERSION: &str = "https://git-lfs.github.com/spec/v1";
/// First lines of the program's former names.
const FORMER_VERSIONS: [&str; 2] = ["https://hawser.github.com/spec/v1", "http://git-media.io/v/2"];

/// SHA-256 of a content, by which it is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoObjectId;

impl FromStr for ObjectId {
    type Err = NoObjectId;

    fn from_str(text: &str) -> Result<Self, NoObjectId> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NoObjectId);
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NoObjectId),
        };
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(id))
    }
}

/// What a pointer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer {
    /// Of the content.
    pub id: ObjectId,
    /// Its bytes.
    pub size: u64,
}

impl Pointer {
    /// The one to a content.
    pub fn of(content: &[u8]) -> Self {
        Self { id: ObjectId(Sha256::digest(content).into()), size: content.len() as u64 }
    }

    /// The one text for it. An empty content has none: it stays an empty file.
    pub fn encode(&self) -> String {
        format!("version {VERSION}\noid sha256:{}\nsize {}\n", self.id, self.size)
    }

    /// Reads a whole blob; `None` if it is no pointer.
    pub fn parse(blob: &[u8]) -> Option<Self> {
        if blob.len() >= LARGEST || !blob.starts_with(b"version ") {
            return None;
        }
        let text = std::str::from_utf8(blob).ok()?.trim_end();
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let version = lines.next()?.strip_prefix("version ")?;
        if version != VERSION && !FORMER_VERSIONS.contains(&version) {
            return None;
        }
        let mut previous = "";
        let (mut id, mut size) = (None, None);
        for line in lines {
            let (key, value) = line.split_once(' ')?;
            if key <= previous {
                return None;
            }
            previous = key;
            match key {
                "oid" => id = Some(value.strip_prefix("sha256:")?.parse().ok()?),
                "size" => size = Some(whole_number(value)?),
                key if key.starts_with("ext-") => {}
                _ => return None,
            }
        }
        Some(Self { id: id?, size: size? })
    }
}

/// Digits alone, within what a file can have.
fn whole_number(text: &str) -> Option<u64> {
    let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|size| are_digits && i64::try_from(*size).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF_12: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    fn text(version: &str, rest: &str) -> String {
        format!("version {version}\n{rest}")
    }

    #[test]
    fn a_pointer_is_written_as_the_specification_shows_it() {
        let pointer = Pointer { id: OF_12.parse().unwrap(), size: 12345 };
        let expected =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{OF_12}\nsize 12345\n");
        assert_eq!(pointer.encode(), expected);
        assert_eq!(Pointer::parse(expected.as_bytes()), Some(pointer));
    }

    #[test]
    fn what_others_wrote_is_read_and_what_is_no_pointer_is_not() {
        let good = format!("oid sha256:{OF_12}\nsize 12345\n");
        let pointer = Some(Pointer { id: OF_12.parse().unwrap(), size: 12345 });
        for version in [VERSION, FORMER_VERSIONS[0], FORMER_VERSIONS[1]] {
            assert_eq!(Pointer::parse(text(version, &good).as_bytes()), pointer, "{version}");
        }
        let extended = format!("ext-0-foo sha256:{OF_12}\n{good}");
        assert_eq!(Pointer::parse(text(VERSION, &extended).as_bytes()), pointer);
        assert_eq!(Pointer::parse(text(VERSION, good.trim_end()).as_bytes()), pointer);
        for bad in [
            String::new(),
            good.clone(),
            text("https://example.org/spec/v1", &good),
            text(VERSION, &format!("size 12345\noid sha256:{OF_12}\n")),
            text(VERSION, &format!("oid sha256:{OF_12}\n")),
            text(VERSION, &format!("oid sha256:{OF_12}\nsize -1\n")),
            text(VERSION, &format!("oid sha256:{OF_12}\nsize +1\n")),
            text(VERSION, &format!("oid sha256:{OF_12}\nsize 99999999999999999999\n")),
            text(VERSION, &format!("oid sha256:{}\nsize 1\n", OF_12.to_uppercase())),
            text(VERSION, &format!("oid sha256:{OF_12}\noid sha256:{OF_12}\nsize 1\n")),
            text(VERSION, &format!("oid md5:{OF_12}\nsize 1\n")),
            text(VERSION, &format!("{good}\nand a text below\n")),
            text(VERSION, &format!("{good}{}", " ".repeat(LARGEST))),
        ] {
            assert_eq!(Pointer::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_pointer_comes_back(id in any::<[u8; 32]>(), size in 0..=i64::MAX as u64) {
            let pointer = Pointer { id: ObjectId(id), size };
            prop_assert_eq!(Pointer::parse(pointer.encode().as_bytes()), Some(pointer));
        }

        #[test]
        fn no_bytes_make_the_reader_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut blob = b"version https://git-lfs.github.com/spec/v1\n".to_vec();
            blob.extend(bytes);
            let _ = Pointer::parse(&blob);
        }
    }
}
