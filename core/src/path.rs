//! Paths: bytes below a root, and the names under which Git can hold them.
//!
//! A [`RelPath`] is what the file system says, byte for byte, relative to a root. [`escape_component`] turns
//! one component into a name that Git neither refuses nor acts on; [`unescape_component`] is its exact
//! inverse. docs/format.md describes the escape for readers without this program.

use std::borrow::Cow;
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
pub fn needs_escape(component: &[u8]) -> bool {
    component.starts_with(ESCAPE_PREFIX) || component.split(|b| *b == b'\\').any(is_acted_on)
}

fn is_acted_on(_part: &[u8]) -> bool {
    false
}

/// The name under which Git can hold `component`; most names are returned as they are.
pub fn escape_component(component: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(component)
}

/// The inverse of [`escape_component`]; `None` for a name that no escape produces.
pub fn unescape_component(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    Some(Cow::Borrowed(name))
}
