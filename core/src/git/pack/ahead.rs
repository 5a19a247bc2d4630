//! Reading a file a little ahead, where reads follow each other: entries of a pack are asked for in small parts, mostly in
//! the order in which they stand, and a system call for each costs more than the bytes.
//!
//! Two places are followed at the same time, because trees stand elsewhere than the files that are named in them. A read
//! that follows none is made as it is: reading ahead for it would be in vain.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, TryLockError};

/// Read at once where reads follow each other.
const WINDOW: usize = 64 * 1024;
/// Larger reads are made as they are.
const LARGE: usize = WINDOW / 4;
/// Places that are followed.
const PLACES: usize = 2;

/// What was read lately, and what lies behind it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    places: Mutex<[Place; PLACES]>,
}

#[derive(Debug, Default)]
struct Place {
    /// Where the last read ended.
    end: u64,
    /// Where `bytes` begin in the file.
    start: u64,
    bytes: Vec<u8>,
    /// The higher, the later it was used.
    used: u64,
}

impl Place {
    fn give(&mut self, buffer: &mut [u8], at: u64) -> bool {
        let Some(from) = at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok()) else {
            return false;
        };
        let Some(part) = self.bytes.get(from..).and_then(|rest| rest.get(..buffer.len())) else {
            return false;
        };
        buffer.copy_from_slice(part);
        self.end = at + buffer.len() as u64;
        true
    }

    /// Whether somebody who read here would read `at` next.
    fn leads_to(&self, at: u64) -> bool {
        // A header is looked at with some bytes after it, and then the rest is asked for.
        at + 64 >= self.end && at < self.end + WINDOW as u64
    }
}

impl Ahead {
    /// Fills `buffer` with what stands in `file` from `at` on. The file must not change.
    pub(super) fn read_exact(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if buffer.len() > LARGE {
            return file.read_exact_at(buffer, at);
        }
        let mut places = match self.places.try_lock() {
            Ok(places) => places,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Two threads follow places of their own.
            Err(TryLockError::WouldBlock) => return file.read_exact_at(buffer, at),
        };
        let now = places.iter().map(|place| place.used).max().unwrap_or(0) + 1;
        if let Some(place) = places.iter_mut().find_map(|place| place.give(buffer, at).then_some(place)) {
            place.used = now;
            return Ok(());
        }
        if let Some(place) = places.iter_mut().find(|place| place.leads_to(at)) {
            place.bytes.resize(WINDOW, 0);
            let length = read_at_most(file, &mut place.bytes, at)?;
            place.bytes.truncate(length);
            (place.start, place.used) = (at, now);
            if place.give(buffer, at) {
                return Ok(());
            }
            // Too short: the error is the system's.
            return file.read_exact_at(buffer, at);
        }
        file.read_exact_at(buffer, at)?;
        if let Some(oldest) = places.iter_mut().min_by_key(|place| place.used) {
            *oldest = Place { end: at + buffer.len() as u64, used: now, ..Place::default() };
        }
        Ok(())
    }
}

fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(length: usize) -> (Vec<u8>, File) {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (bytes, file)
    }

    proptest! {
        #[test]
        fn every_read_gives_what_stands_there(
            reads in prop::collection::vec((0u64..300_000, 1usize..40_000, any::<bool>()), 1..60),
        ) {
            let (bytes, file) = file(300_000);
            let ahead = Ahead::default();
            let mut last = 0u64;
            for (at, length, follows) in reads {
                let at = if follows { last } else { at };
                let mut buffer = vec![0; length];
                let end = at as usize + length;
                let read = ahead.read_exact(&file, &mut buffer, at);
                if end <= bytes.len() {
                    read.unwrap();
                    prop_assert!(buffer == bytes[at as usize..end]);
                    last = end as u64;
                } else {
                    prop_assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
                }
            }
        }
    }

    #[test]
    fn two_places_are_followed_at_the_same_time() {
        let (_, file) = file(2_000_000);
        let ahead = Ahead::default();
        let mut buffer = [0; 100];
        for step in 0..1000u64 {
            for start in [0, 1_000_000] {
                ahead.read_exact(&file, &mut buffer, start + step * 100).unwrap();
            }
        }
        let places = ahead.places.lock().unwrap();
        assert!(places.iter().all(|place| place.bytes.len() == WINDOW), "both read ahead");
    }
}
