//! One record, and its line of JSON. In: what lstat and the extended attributes say, or a line from a tree.
//! Out: the line, or the record. A line has one spelling for each value; unknown fields are for later
//! versions and are not looked at.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::OWN_NAME;
use crate::beneath::EntryKind;

#[cfg(test)]
mod tests;

/// A time as stat gives it: the nanoseconds always count forwards from the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

const NANOS: i128 = 1_000_000_000;

impl Mtime {
    fn to_text(self) -> String {
        let total = i128::from(self.seconds) * NANOS + i128::from(self.nanoseconds);
        let sign = if total < 0 { "-" } else { "" };
        format!("{sign}{}.{:09}", total.abs() / NANOS, total.abs() % NANOS)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (whole, fraction) = text.strip_prefix('-').unwrap_or(text).split_once('.')?;
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if fraction.len() != 9 || whole.len() > 19 || !digits(whole) || !digits(fraction) {
            return None;
        }
        let size = whole.parse::<i128>().ok()? * NANOS + fraction.parse::<i128>().ok()?;
        let total = if text.starts_with('-') { -size } else { size };
        let mtime = Self {
            seconds: total.div_euclid(NANOS).try_into().ok()?,
            nanoseconds: total.rem_euclid(NANOS).try_into().ok()?,
        };
        (mtime.to_text() == text).then_some(mtime)
    }
}

/// What is known of one name in a directory, or of the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name as readdir gives it, not escaped; `.` for the directory itself.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The low twelve bits of the mode.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The owner's name, if it has one here.
    pub user: Option<String>,
    /// The group's name, if it has one here.
    pub group: Option<String>,
    /// The last change of the content.
    pub mtime: Mtime,
    /// The content's length in bytes.
    pub size: Option<u64>,
    /// BLAKE3 of the content as it is on disk; files only.
    pub blake3: Option<[u8; 32]>,
    /// Extended attributes, value by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// There were more extended attributes than a record holds ([`Record::MAX_BYTES`]), and none is here.
    pub xattrs_omitted: bool,
    /// Names with the same text are the same file; only where it has several names.
    pub hard_link: Option<String>,
    /// Major and minor number; devices only.
    pub device: Option<(u32, u32)>,
    /// A file system was mounted on it; directories only.
    pub is_mount: bool,
}

/// The line's fields, in the order in which they are written.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    kind: Cow<'a, str>,
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Cow<'a, str>>,
    mtime: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blake3: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<Cow<'a, str>, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs_b64: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    xattrs_omitted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hard_link: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    mount: bool,
}

/// Only the name: what a writer needs of the lines that it carries over.
#[derive(Deserialize)]
struct NameOnly<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name_b64: Option<Cow<'a, str>>,
}

/// What is wrong with a line, in words.
pub(super) type Problem = String;

impl Record {
    /// A line that would be longer goes without its extended attributes.
    pub const MAX_BYTES: usize = 4 << 20;

    /// The line, without newline, and whether extended attributes had to be left out of it.
    pub(super) fn to_line(&self) -> Result<(Vec<u8>, bool), Problem> {
        self.check()?;
        let full = self.encode(!self.xattrs_omitted)?;
        if full.len() <= Self::MAX_BYTES {
            return Ok((full, false));
        }
        let bare = self.encode(false)?;
        if bare.len() <= Self::MAX_BYTES { Ok((bare, true)) } else { Err("a record without end".to_owned()) }
    }

    fn encode(&self, with_xattrs: bool) -> Result<Vec<u8>, Problem> {
        let (mut xattrs, mut xattrs_b64) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in self.xattrs.iter().filter(|_| with_xattrs) {
            let value = STANDARD.encode(value);
            match std::str::from_utf8(name) {
                Ok(text) => xattrs.insert(Cow::Borrowed(text), value),
                Err(_) => xattrs_b64.insert(STANDARD.encode(name), value),
            };
        }
        let text = std::str::from_utf8(&self.name).ok();
        let line = Line {
            name_b64: text.is_none().then(|| STANDARD.encode(&self.name)),
            name: text.map(Cow::Borrowed),
            kind: Cow::Borrowed(self.kind.as_str()),
            mode: format!("{:04o}", self.mode),
            uid: self.uid,
            gid: self.gid,
            user: self.user.as_deref().map(Cow::Borrowed),
            group: self.group.as_deref().map(Cow::Borrowed),
            mtime: self.mtime.to_text(),
            size: self.size,
            blake3: self.blake3.map(|hash| blake3::Hash::from_bytes(hash).to_hex().to_string()),
            xattrs,
            xattrs_b64,
            xattrs_omitted: !with_xattrs,
            hard_link: self.hard_link.as_deref().map(Cow::Borrowed),
            device: self.device,
            mount: self.is_mount,
        };
        serde_json::to_vec(&line).map_err(|e| e.to_string())
    }

    pub(super) fn from_line(line: &[u8]) -> Result<Self, Problem> {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let kind = EntryKind::ALL.into_iter().find(|kind| kind.as_str() == line.kind);
        let mode = u32::from_str_radix(&line.mode, 8).ok().filter(|mode| format!("{mode:04o}") == line.mode);
        let mut xattrs = BTreeMap::new();
        for (name, value) in line.xattrs {
            xattrs.insert(name.into_owned().into_bytes(), decode_base64(&value)?);
        }
        for (name, value) in line.xattrs_b64 {
            xattrs.insert(not_text(decode_base64(&name)?)?, decode_base64(&value)?);
        }
        let record = Self {
            name: name_from(line.name.map(|name| name.into_owned().into_bytes()), line.name_b64.as_deref())?,
            kind: kind.ok_or("an unknown kind")?,
            mode: mode.ok_or("not a mode")?,
            uid: line.uid,
            gid: line.gid,
            user: line.user.map(Cow::into_owned),
            group: line.group.map(Cow::into_owned),
            mtime: Mtime::from_text(&line.mtime).ok_or("not a time")?,
            size: line.size,
            blake3: line.blake3.map(|hex| decode_hash(&hex)).transpose()?,
            xattrs,
            xattrs_omitted: line.xattrs_omitted,
            hard_link: line.hard_link.map(Cow::into_owned),
            device: line.device,
            is_mount: line.mount,
        };
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), Problem> {
        check_name(&self.name)?;
        let problem = if (self.kind == EntryKind::Directory) != (self.name == OWN_NAME) {
            "a directory is recorded in itself, under the name `.`"
        } else if self.mode > 0o7777 {
            "a mode of more than twelve bits"
        } else if self.mtime.nanoseconds >= 1_000_000_000 {
            "nanoseconds of more than a second"
        } else if self.blake3.is_some() && self.kind != EntryKind::File {
            "a checksum of something that is no file"
        } else if self.device.is_some() != self.kind.is_device() {
            "device numbers belong to devices"
        } else if self.is_mount && self.kind != EntryKind::Directory {
            "a mount on something that is no directory"
        } else if self.xattrs_omitted && !self.xattrs.is_empty() {
            "extended attributes that are there and left out"
        } else if self.xattrs.keys().any(|name| name.is_empty() || name.contains(&0)) {
            "an extended attribute with an impossible name"
        } else {
            return Ok(());
        };
        Err(problem.to_owned())
    }
}

/// The name in a line of which nothing else is looked at.
pub(super) fn name_in_line(line: &[u8]) -> Result<Vec<u8>, Problem> {
    let found: NameOnly<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let name = name_from(found.name.map(|name| name.into_owned().into_bytes()), found.name_b64.as_deref())?;
    check_name(&name)?;
    Ok(name)
}

fn name_from(text: Option<Vec<u8>>, base64: Option<&str>) -> Result<Vec<u8>, Problem> {
    match (text, base64) {
        (Some(name), None) => Ok(name),
        (None, Some(encoded)) => not_text(decode_base64(encoded)?),
        _ => Err("not exactly one of name and name_b64".to_owned()),
    }
}

fn check_name(name: &[u8]) -> Result<(), Problem> {
    let sound = !matches!(name, b"" | b"..") && !name.iter().any(|b| matches!(b, b'/' | 0));
    if sound { Ok(()) } else { Err("an impossible name".to_owned()) }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|e| e.to_string())
}

fn not_text(bytes: Vec<u8>) -> Result<Vec<u8>, Problem> {
    if std::str::from_utf8(&bytes).is_ok() { Err("text that hides in base64".to_owned()) } else { Ok(bytes) }
}

fn decode_hash(hex: &str) -> Result<[u8; 32], Problem> {
    let hash = blake3::Hash::from_hex(hex).map_err(|e| e.to_string())?;
    if hash.to_hex().as_str() == hex {
        Ok(*hash.as_bytes())
    } else {
        Err("a checksum in capitals".to_owned())
    }
}
