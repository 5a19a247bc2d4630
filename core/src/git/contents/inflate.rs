//! A large whole entry of a pack, inflated with flat memory.
//!
//! In: the entry. Out: its bytes in pieces, to whoever checks them.

use flate2::{Decompress, FlushDecompress, Status};

use super::PIECE_BYTES;
use super::checked::Checked;
use super::delivery::Trouble;
use crate::error::{Error, Kind};
use crate::git::pack::{PackReader, RawEntry};
use crate::progress::Progress;

/// The error of an entry that is not what it should be.
pub(super) fn damaged(pack: &PackReader, entry: &RawEntry, what: &str) -> Error {
    let place = crate::path::lossy(pack.path().as_os_str().as_encoded_bytes());
    Error::new(Kind::Git, format!("the pack {place} is damaged at offset {}: {what}", entry.offset))
}

/// Gives the entry's bytes to `checked`.
pub(super) fn inflate_in_pieces(
    pack: &PackReader,
    entry: &RawEntry,
    progress: &Progress,
    checked: &mut Checked<'_>,
) -> Result<(), Trouble> {
    let mut inflate = Decompress::new(true);
    let mut plain = vec![0; PIECE_BYTES];
    let mut trouble = None;
    let mut ended = false;
    let read = pack.stream_raw(entry, &mut |mut piece| {
        // Zlib's trailer may come in a piece of its own, after all bytes are there.
        while !piece.is_empty() && !ended {
            progress.check()?;
            let (taken, given) = (inflate.total_in(), inflate.total_out());
            let status = inflate
                .decompress(piece, &mut plain, FlushDecompress::None)
                .map_err(|error| damaged(pack, entry, &error.to_string()))?;
            let taken = (inflate.total_in() - taken) as usize;
            let given = (inflate.total_out() - given) as usize;
            if let Err(found) = checked.take(&plain[..given]) {
                trouble = Some(found);
                return Err(Error::cancelled());
            }
            piece = &piece[taken..];
            ended = status == Status::StreamEnd;
            if taken == 0 && given == 0 && !ended {
                return Err(damaged(pack, entry, "it does not inflate"));
            }
        }
        Ok(())
    });
    match (trouble, read) {
        (Some(trouble), _) => Err(trouble),
        (None, Err(error)) if error.kind() == Kind::Cancelled => Err(Trouble::Elsewhere(error)),
        (None, Err(error)) => Err(Trouble::Object(error)),
        (None, Ok(())) => {
            // What the inflater still holds back.
            while !ended {
                let given = inflate.total_out();
                let status = inflate.decompress(&[], &mut plain, FlushDecompress::Finish);
                let given = (inflate.total_out() - given) as usize;
                checked.take(&plain[..given])?;
                match status {
                    Ok(Status::StreamEnd) => ended = true,
                    Ok(_) if given > 0 => {}
                    _ => return Err(Trouble::Object(damaged(pack, entry, "it ends too early"))),
                }
            }
            Ok(())
        }
    }
}
