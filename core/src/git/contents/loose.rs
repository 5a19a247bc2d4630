//! Objects that are files of their own, as other programs write them.
//!
//! In: an object's name. Out: its kind and size, and its bytes with flat memory. What the header says is believed of
//! nothing: whoever takes the bytes counts and hashes them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::ZlibDecoder;
use git2::Oid;

use super::checked::Checked;
use super::delivery::Trouble;
use crate::error::{Error, Kind, Result};
use crate::git::pack::ObjectKind;
use crate::path::lossy;
use crate::progress::Progress;

/// `commit`, a space, the digits of a size and a NUL.
const MAX_HEADER_BYTES: usize = 32;
const CHUNK_BYTES: usize = 128 * 1024;

/// One of them, open behind its header.
pub(super) struct Loose {
    pub(super) kind: ObjectKind,
    pub(super) size: u64,
    inflate: ZlibDecoder<BufReader<File>>,
    shown: String,
}

impl Loose {
    /// Opens the object; `None` if there is no such file.
    pub(super) fn open(repository: &Path, oid: &Oid) -> Result<Option<Self>> {
        let name = oid.to_string();
        let (directory, file) = name.split_at(2);
        let path = repository.join("objects").join(directory).join(file);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open the object", &path, error)),
        };
        let shown = lossy(path.as_os_str().as_encoded_bytes());
        let mut inflate = ZlibDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
        let mut header = Vec::new();
        let mut byte = [0];
        while header.len() < MAX_HEADER_BYTES {
            inflate
                .read_exact(&mut byte)
                .map_err(|error| damaged(&shown, &format!("it does not inflate: {error}")))?;
            if byte == [0] {
                let (kind, size) = header_of(&header).ok_or_else(|| damaged(&shown, "its header is none"))?;
                return Ok(Some(Self { kind, size, inflate, shown }));
            }
            header.extend_from_slice(&byte);
        }
        Err(damaged(&shown, "its header does not end"))
    }

    /// Gives all bytes to `checked`.
    pub(super) fn stream(
        mut self,
        progress: &Progress,
        checked: &mut Checked<'_>,
    ) -> std::result::Result<(), Trouble> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            progress.check().map_err(Trouble::Elsewhere)?;
            match self.inflate.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => checked.take(&buffer[..count])?,
                Err(error) => {
                    let what = format!("it does not inflate: {error}");
                    return Err(Trouble::Object(damaged(&self.shown, &what)));
                }
            }
        }
    }
}

fn damaged(shown: &str, what: &str) -> Error {
    Error::new(Kind::Git, format!("the object {shown} is damaged: {what}"))
}

fn header_of(header: &[u8]) -> Option<(ObjectKind, u64)> {
    let (kind, size) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    let all = [ObjectKind::Commit, ObjectKind::Tree, ObjectKind::Blob, ObjectKind::Tag];
    let kind = all.into_iter().find(|known| known.as_str() == kind)?;
    let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
    Some((kind, size.parse().ok().filter(|_| is_number)?))
}
