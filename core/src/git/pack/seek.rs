//! One commit out of a pack that is still arriving: whoever wants to know whose history it is need not take it whole.
//!
//! Servers put commits first, so the first bytes are usually enough. The pack is a stranger's: nothing is believed but
//! an object whose hash is the name that was asked for.

use flate2::{Decompress, FlushDecompress, Status};
use git2::Oid;

use super::header::{HeaderKind, MAX_HEADER_BYTES, decode_entry_header};
use super::object::{ObjectKind, hash_object};
use super::{HASH_BYTES, PACK_HEADER_BYTES};
use crate::error::{Error, Kind, Result};

/// No commit of ours comes near that.
const LARGEST_COMMIT: u64 = 1024 * 1024;

/// Looks for a commit in the bytes of a pack.
pub struct CommitSeeker {
    wanted: Oid,
    /// Bytes that are taken at most.
    limit: u64,
    taken: u64,
    /// What has come and is not understood yet.
    pending: Vec<u8>,
    began: bool,
    entry: Option<Entry>,
    found: Option<Vec<u8>>,
}

struct Entry {
    is_commit: bool,
    inflate: Decompress,
    data: Vec<u8>,
}

impl CommitSeeker {
    /// Looks for `wanted` in the first `limit` bytes.
    pub fn new(wanted: Oid, limit: u64) -> Self {
        Self { wanted, limit, taken: 0, pending: Vec::new(), began: false, entry: None, found: None }
    }

    /// The commit's bytes, once they have come.
    pub fn found(self) -> Option<Vec<u8>> {
        self.found
    }

    /// Takes the next bytes. An error as soon as no more are needed: [`CommitSeeker::found`] tells whether it is one.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        self.pending.extend_from_slice(bytes);
        self.read()?;
        if self.found.is_some() {
            return Err(Error::cancelled());
        }
        if self.taken > self.limit {
            let text =
                format!("{} is not among the first {} bytes that the remote sends", self.wanted, self.limit);
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        if !self.began {
            if self.pending.len() < PACK_HEADER_BYTES as usize {
                return Ok(());
            }
            if !self.pending.starts_with(b"PACK") {
                return Err(damaged("it does not begin as a pack does"));
            }
            self.pending.drain(..PACK_HEADER_BYTES as usize);
            self.began = true;
        }
        while self.found.is_none() {
            if self.entry.is_none() && !self.begin_entry()? {
                return Ok(());
            }
            if !self.inflate()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the next entry's header was there.
    fn begin_entry(&mut self) -> Result<bool> {
        // At the end only the checksum is left, which may look like anything; no header is longer than this.
        if self.pending.len() <= HASH_BYTES + MAX_HEADER_BYTES {
            return Ok(false);
        }
        let header = decode_entry_header(&self.pending).map_err(damaged)?;
        let is_commit = matches!(header.kind, HeaderKind::Whole(ObjectKind::Commit));
        self.pending.drain(..header.length);
        self.entry = Some(Entry { is_commit, inflate: Decompress::new(true), data: Vec::new() });
        Ok(true)
    }

    /// Whether the entry has come to its end.
    fn inflate(&mut self) -> Result<bool> {
        let Some(entry) = &mut self.entry else { return Ok(true) };
        let mut output = [0; 16 * 1024];
        loop {
            let (before_in, before_out) = (entry.inflate.total_in(), entry.inflate.total_out());
            let status = entry
                .inflate
                .decompress(&self.pending, &mut output, FlushDecompress::None)
                .map_err(|_| damaged("an entry does not inflate"))?;
            let used = usize::try_from(entry.inflate.total_in() - before_in).unwrap_or(0);
            let made = usize::try_from(entry.inflate.total_out() - before_out).unwrap_or(0);
            self.pending.drain(..used);
            if entry.is_commit && (entry.data.len() + made) as u64 <= LARGEST_COMMIT {
                entry.data.extend_from_slice(&output[..made]);
            }
            if status == Status::StreamEnd {
                let entry = self.entry.take();
                if let Some(entry) = entry.filter(|entry| entry.is_commit)
                    && hash_object(ObjectKind::Commit, &entry.data)? == self.wanted
                {
                    self.found = Some(entry.data);
                }
                return Ok(true);
            }
            if used == 0 && made == 0 {
                return Ok(false);
            }
        }
    }
}

fn damaged(what: &str) -> Error {
    Error::new(Kind::RemoteRefused, format!("what the remote sends is no pack: {what}"))
}
