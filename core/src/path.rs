//! Paths: bytes below a root, and the names under which Git can hold them.
//!
//! A [`RelPath`] is what the file system says, byte for byte, relative to a root. [`escape_component`] turns
//! one component into a name that Git neither refuses nor acts on; [`unescape_component`] is its exact
//! inverse. docs/format.md describes the escape for readers without this program.

use std::borrow::{Borrow, Cow};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::names::RootName;

/// Every escaped component starts with this.
pub const ESCAPE_PREFIX: &[u8] = b"_bb_";
/// [`ESCAPE_PREFIX`] as text.
pub const ESCAPE_PREFIX_STR: &str = "_bb_";
/// The directory in the repository that is ours; no root can have this name.
pub const OWN_DIRECTORY: &str = ".backupbot";

/// A path relative to a root: components separated by single slashes, none empty, `.` or `..`, no NUL.
/// The empty path is the root itself. Order is by bytes of the whole path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct RelPath(#[serde(with = "bytes")] Vec<u8>);

mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};
    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Vec::<u8>::deserialize(deserializer)
    }
}

/// The bytes are no path below a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a path below a root: {0}")]
pub struct PathError(String);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks `bytes`: no leading or double slash, no `.` or `..` component, no NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        let sound = bytes.is_empty()
            || bytes
                .split(|b| *b == b'/')
                .all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0));
        if sound { Ok(Self(bytes)) } else { Err(PathError(lossy(&bytes))) }
    }

    /// This path with one more component, as readdir or an event gives it.
    pub fn join(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/'));
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.0.is_empty() {
            bytes.extend_from_slice(&self.0);
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.0.rsplit(|b| *b == b'/').next().filter(|name| !name.is_empty())
    }

    /// The components, outermost first; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &RelPath) -> bool {
        ancestor.is_root()
            || (self.0.starts_with(&ancestor.0)
                && (self.0.len() == ancestor.0.len() || self.0[ancestor.0.len()] == b'/'))
    }

    /// The bytes, as the file system has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for system calls relative to the root's descriptor: `.` for the root itself.
    pub fn as_os_path(&self) -> &Path {
        if self.0.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }

    /// The path in the repository: `<root>/<escaped components>`.
    pub fn to_git_path(&self, root: &RootName) -> Vec<u8> {
        let mut git = root.as_str().as_bytes().to_vec();
        for component in self.components() {
            git.push(b'/');
            git.extend_from_slice(&escape_component(component));
        }
        git
    }
}

/// Lets a map by path be asked by bytes. Order, equality and hash are those of the bytes.
impl Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A name for people: lossy UTF-8 with control characters escaped, so that it stays one line in any log.
pub fn lossy(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
            .collect()
    } else {
        text.into_owned()
    }
}

/// Whether Git would refuse `component` or act on it, or it looks like an escaped name.
///
/// Git on NTFS takes a backslash for a separator, so every part between backslashes is looked at.
pub fn needs_escape(component: &[u8]) -> bool {
    component.starts_with(ESCAPE_PREFIX) || component.split(|b| *b == b'\\').any(is_acted_on)
}

/// The name under which Git can hold `component`; most names are returned as they are.
pub fn escape_component(component: &[u8]) -> Cow<'_, [u8]> {
    if !needs_escape(component) {
        return Cow::Borrowed(component);
    }
    let mut name = Vec::with_capacity(ESCAPE_PREFIX.len() + component.len());
    name.extend_from_slice(ESCAPE_PREFIX);
    for byte in component {
        match byte {
            b'%' => name.extend_from_slice(b"%25"),
            b'\\' => name.extend_from_slice(b"%5C"),
            other => name.push(*other),
        }
    }
    Cow::Owned(name)
}

/// The inverse of [`escape_component`]; `None` for a name that no escape produces, and for one that no file
/// can have (empty, `.`, `..`, with a slash or a NUL), so that a foreign tree leads nowhere.
pub fn unescape_component(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    let component = match name.strip_prefix(ESCAPE_PREFIX) {
        None if needs_escape(name) => return None,
        None => Cow::Borrowed(name),
        Some(encoded) => Cow::Owned(decode_percent(encoded).filter(|decoded| needs_escape(decoded))?),
    };
    let possible =
        !matches!(&*component, b"" | b"." | b"..") && !component.iter().any(|b| matches!(b, b'/' | 0));
    possible.then_some(component)
}

/// Undoes `%25` and `%5C`; `None` where the encoding would have written something else.
fn decode_percent(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((first, tail)) = rest.split_first() {
        rest = match first {
            b'%' => {
                let (code, tail) = tail.split_at_checked(2)?;
                decoded.push(match code {
                    b"25" => b'%',
                    b"5C" => b'\\',
                    _ => return None,
                });
                tail
            }
            b'\\' => return None,
            other => {
                decoded.push(*other);
                tail
            }
        };
    }
    Some(decoded)
}

/// A file that Git or git-lfs reads, and the prefix of its fall-back short name on NTFS: two letters and the
/// checksum of the name, in hexadecimal digits.
struct SpecialName {
    name: &'static [u8],
    short_name: &'static [u8; 6],
}

/// What Git itself checks against (fsck, verify_path), and git-lfs' own file by the same rules.
const SPECIAL_NAMES: [SpecialName; 3] = [
    SpecialName { name: b".gitmodules", short_name: b"gi7eba" },
    SpecialName { name: b".gitattributes", short_name: b"gi7d29" },
    SpecialName { name: b".lfsconfig", short_name: b"lfd659" },
];

/// Whether a name, or a part of one, is `.git` or a special file in a disguise that Git knows of.
fn is_acted_on(part: &[u8]) -> bool {
    // Every disguise begins with a dot, an ignorable code point (E2 or EF), a tilde, or the first letter of
    // a short name.
    if !matches!(part.first(), Some(b'.' | 0xe2 | 0xef | b'~' | b'g' | b'G' | b'l' | b'L')) {
        return false;
    }
    is_git_on_ntfs(part)
        || is_same_on_hfs(part, b".git")
        || SPECIAL_NAMES
            .iter()
            .any(|special| is_special_on_ntfs(part, special) || is_same_on_hfs(part, special.name))
}

fn starts_with_ignoring_case(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// NTFS drops spaces and dots from the end of a name, and a colon starts the name of a stream.
fn is_only_trailer_on_ntfs(rest: &[u8]) -> bool {
    match rest.iter().find(|b| !matches!(b, b' ' | b'.')) {
        None => true,
        Some(byte) => *byte == b':',
    }
}

fn is_git_on_ntfs(name: &[u8]) -> bool {
    [&b".git"[..], b"git~1"].iter().any(|git| {
        starts_with_ignoring_case(name, git)
            && is_only_trailer_on_ntfs(name.get(git.len()..).unwrap_or_default())
    })
}

/// Mirrors how wide Git casts this net: `gitmod~1` to `~4`, and the fall-back form of eight characters, a
/// beginning of the checksummed prefix, a tilde and digits, so that even `~1234567` is caught.
fn is_special_on_ntfs(name: &[u8], special: &SpecialName) -> bool {
    if starts_with_ignoring_case(name, special.name) {
        return is_only_trailer_on_ntfs(name.get(special.name.len()..).unwrap_or_default());
    }
    let Some((short, rest)) = name.split_at_checked(8) else { return false };
    let regular = special.name.get(1..7).is_some_and(|first_six| starts_with_ignoring_case(short, first_six))
        && short[6] == b'~'
        && matches!(short[7], b'1'..=b'4');
    (regular || is_fallback_short_name(short, special.short_name)) && is_only_trailer_on_ntfs(rest)
}

fn is_fallback_short_name(short: &[u8], prefix: &[u8; 6]) -> bool {
    let Some(tilde) = short.iter().position(|b| *b == b'~') else { return false };
    let (before, digits) = (&short[..tilde], &short[tilde + 1..]);
    prefix.get(..before.len()).is_some_and(|start| start.eq_ignore_ascii_case(before))
        && digits.first().is_some_and(|first| *first != b'0')
        && digits.iter().all(u8::is_ascii_digit)
}

/// HFS+ folds case and skips some code points. Git stops reading at the first malformed one, so a name that
/// goes on after it counts as ended there.
fn is_same_on_hfs(name: &[u8], special: &[u8]) -> bool {
    let well_formed = name.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut seen = well_formed
        .chars()
        .filter(|c| !is_ignored_on_hfs(*c))
        .take_while(|c| !matches!(c, '\u{fffe}' | '\u{ffff}'));
    special.iter().all(|wanted| seen.next().is_some_and(|c| c.eq_ignore_ascii_case(&char::from(*wanted))))
        && seen.next().is_none()
}

fn is_ignored_on_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
