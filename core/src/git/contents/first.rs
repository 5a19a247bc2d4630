//! How a blob begins, without reading the rest of it: for who has to look at very many.
//!
//! Nothing is proven. Whoever needs the bytes themselves streams the whole.

use flate2::{Decompress, FlushDecompress, Status};

use super::{ContentReader, Found, Place, damaged};
use crate::error::{Error, Result};
use crate::progress::Progress;

impl ContentReader<'_> {
    /// The first bytes of a blob, `count` of them or all.
    ///
    /// # Errors
    /// What is wrong with the blob there.
    pub fn first_bytes(&mut self, found: &Found, count: usize, progress: &Progress) -> Result<Vec<u8>> {
        let Place::Packed(pack, entry) = &found.place else {
            return self.start(found, count, progress);
        };
        let mut inflate = Decompress::new(true);
        let mut first = vec![0; count];
        let mut given = 0;
        let read = pack.stream_raw(entry, &mut |mut piece| {
            progress.check()?;
            while !piece.is_empty() && given < count {
                let taken = inflate.total_in();
                let status = inflate
                    .decompress(piece, &mut first[given..], FlushDecompress::None)
                    .map_err(|error| damaged(pack, entry, &error.to_string()))?;
                let taken = (inflate.total_in() - taken) as usize;
                let before = given;
                given = inflate.total_out() as usize;
                piece = piece.get(taken..).unwrap_or_default();
                if status == Status::StreamEnd {
                    break;
                }
                if taken == 0 && given == before {
                    return Err(damaged(pack, entry, "it does not inflate"));
                }
            }
            if given < count { Ok(()) } else { Err(Error::cancelled()) }
        });
        if given < count {
            read?;
        }
        first.truncate(given);
        Ok(first)
    }
}
