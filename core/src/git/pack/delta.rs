//! How to make one object out of another: Git's delta instructions. See gitformat-pack(5), "Deltified representation".
//!
//! In: an earlier version of an object and the one to send. Out: instructions to copy from the former and to insert
//! what is new. The ends that both share are found by comparing, the rest by looking up each place of the new
//! version in an index of the former's blocks, with a hash that rolls along. Each instruction is checked
//! against the bytes, so a poor hash costs size, never truth.

/// What is looked up: an entry of a tree is hardly shorter.
const BLOCK: usize = 32;
/// The most that one instruction inserts.
const MOST_INSERTED: usize = 127;
/// The most that one instruction copies: the largest number that its three bytes hold.
const MOST_COPIED: usize = 0xff_ffff;
const MULTIPLIER: u32 = 0x0100_0193;
const NOTHING: u32 = u32::MAX;

/// Instructions that make `new` out of `base`; `None` if they would take more than `most` bytes, or if one of the two
/// is too large for them.
pub(super) fn delta(base: &[u8], new: &[u8], most: usize) -> Option<Vec<u8>> {
    if u32::try_from(base.len()).is_err() || base.len() as u64 >= u64::from(NOTHING) {
        return None;
    }
    let head = common(base.iter(), new.iter());
    let longest_tail = base.len().min(new.len()) - head;
    let tail = common(base.iter().rev(), new.iter().rev()).min(longest_tail);
    let end = new.len() - tail;
    let mut out = Instructions { bytes: Vec::new(), most };
    out.number(base.len());
    out.number(new.len());
    out.copy(0, head)?;
    if end - head >= BLOCK && base.len() >= BLOCK {
        between(base, new, head..end, &mut out)?;
    } else {
        out.insert(&new[head..end])?;
    }
    out.copy(base.len() - tail, tail)?;
    Some(out.bytes)
}

fn common<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}

/// Looks for each part of `new[range]` anywhere in `base`.
fn between(base: &[u8], new: &[u8], range: std::ops::Range<usize>, out: &mut Instructions) -> Option<()> {
    let blocks = Blocks::of(base);
    let (mut done, mut at) = (range.start, range.start);
    let mut hash = RollingHash::of(&new[at..at + BLOCK]);
    while at + BLOCK <= range.end {
        let found = blocks.find(hash.0).filter(|found| base[*found..found + BLOCK] == new[at..at + BLOCK]);
        let Some(found) = found else {
            if let (true, Some(next)) = (at + BLOCK < range.end, new.get(at + BLOCK)) {
                hash.roll(new[at], *next);
            }
            at += 1;
            // What has to be inserted until here already decides.
            if out.bytes.len() + (at - done) > out.most.saturating_add(BLOCK) {
                return None;
            }
            continue;
        };
        let before = common(base[..found].iter().rev(), new[done..at].iter().rev());
        let after = common(base[found + BLOCK..].iter(), new[at + BLOCK..range.end].iter());
        out.insert(&new[done..at - before])?;
        out.copy(found - before, before + BLOCK + after)?;
        at += BLOCK + after;
        done = at;
        if let Some(block) = new.get(at..at + BLOCK) {
            hash = RollingHash::of(block);
        }
    }
    out.insert(&new[done..range.end])
}

/// A polynomial over the last [`BLOCK`] bytes.
struct RollingHash(u32);

impl RollingHash {
    /// The multiplier to the power of `BLOCK`: what the byte that leaves is worth.
    const LEAVING: u32 = MULTIPLIER.wrapping_pow(BLOCK as u32);

    fn of(block: &[u8]) -> Self {
        Self(
            block
                .iter()
                .fold(0, |hash: u32, byte| hash.wrapping_mul(MULTIPLIER).wrapping_add((*byte).into())),
        )
    }

    fn roll(&mut self, leaves: u8, comes: u8) {
        let leaving = u32::from(leaves).wrapping_mul(Self::LEAVING);
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(comes.into()).wrapping_sub(leaving);
    }
}

/// Where the blocks of an object begin, by their hash; of several with the same, the first.
struct Blocks {
    places: Vec<u32>,
    shift: u32,
}

impl Blocks {
    fn of(base: &[u8]) -> Self {
        let bits = (base.len() / BLOCK * 2).max(16).next_power_of_two().ilog2();
        let mut blocks = Self { places: vec![NOTHING; 1 << bits], shift: 32 - bits };
        for (number, block) in base.chunks_exact(BLOCK).enumerate() {
            let slot = blocks.slot(RollingHash::of(block).0);
            if let Some(place) = blocks.places.get_mut(slot).filter(|place| **place == NOTHING) {
                *place = (number * BLOCK) as u32;
            }
        }
        blocks
    }

    fn slot(&self, hash: u32) -> usize {
        (hash.wrapping_mul(0x9e37_79b1) >> self.shift) as usize
    }

    fn find(&self, hash: u32) -> Option<usize> {
        self.places
            .get(self.slot(hash))
            .copied()
            .filter(|place| *place != NOTHING)
            .map(|place| place as usize)
    }
}

/// The instructions as bytes, up to a limit.
struct Instructions {
    bytes: Vec<u8>,
    most: usize,
}

impl Instructions {
    fn number(&mut self, number: usize) {
        let mut rest = number;
        while rest > 0x7f {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    fn insert(&mut self, bytes: &[u8]) -> Option<()> {
        for part in bytes.chunks(MOST_INSERTED) {
            self.bytes.push(part.len() as u8);
            self.bytes.extend_from_slice(part);
            self.check()?;
        }
        Some(())
    }

    fn copy(&mut self, from: usize, length: usize) -> Option<()> {
        let (mut from, mut rest) = (from, length);
        while rest > 0 {
            let part = rest.min(MOST_COPIED);
            let at = self.bytes.len();
            self.bytes.push(0x80);
            let numbers =
                from.to_le_bytes().into_iter().take(4).chain(part.to_le_bytes().into_iter().take(3));
            for (place, byte) in numbers.enumerate().filter(|(_, byte)| *byte != 0) {
                self.bytes[at] |= 1 << place;
                self.bytes.push(byte);
            }
            (from, rest) = (from + part, rest - part);
            self.check()?;
        }
        Some(())
    }

    fn check(&self) -> Option<()> {
        (self.bytes.len() <= self.most).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As gitformat-pack(5) describes it.
    fn made_from(base: &[u8], delta: &[u8]) -> Vec<u8> {
        let mut bytes = delta.iter().copied();
        let mut number = || {
            let (mut number, mut shift) = (0usize, 0);
            loop {
                let byte = bytes.next().unwrap();
                number |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return number;
                }
            }
        };
        assert_eq!(number(), base.len());
        let size = number();
        let mut made = Vec::new();
        while let Some(code) = bytes.next() {
            if code & 0x80 == 0 {
                assert_ne!(code, 0);
                made.extend(bytes.by_ref().take(code.into()));
                continue;
            }
            let mut part = |places: std::ops::Range<u32>| {
                let mut number = 0usize;
                for (shift, place) in places.enumerate() {
                    if code & (1 << place) != 0 {
                        number |= usize::from(bytes.next().unwrap()) << (8 * shift);
                    }
                }
                number
            };
            let (from, length) = (part(0..4), part(4..7));
            made.extend_from_slice(&base[from..from + if length == 0 { 0x1_0000 } else { length }]);
        }
        assert_eq!(made.len(), size);
        made
    }

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn one_change_in_a_large_object_takes_a_few_bytes() {
        let base = noise(5_000_000, 7);
        let mut new = base.clone();
        new.splice(2_000_000..2_000_020, *b"something else, longer than before");
        let delta = delta(&base, &new, 1000).unwrap();
        assert!(delta.len() < 64, "{} bytes", delta.len());
        assert!(made_from(&base, &delta) == new);
    }

    #[test]
    fn what_moved_is_found_wherever_it_went() {
        let base = noise(100_000, 9);
        let new = [&base[70_001..90_003], b"new", &base[10_007..50_011], &base[..5_000]].concat();
        let delta = delta(&base, &new, 1000).unwrap();
        assert!(delta.len() < 200, "{} bytes", delta.len());
        assert!(made_from(&base, &delta) == new);
    }

    #[test]
    fn a_copy_of_exactly_the_length_that_has_no_bytes_of_its_own_is_read_as_meant() {
        for length in [0x1_0000, 0x1_0001, 0xff_ffff, 0x100_0000] {
            let base = noise(length, 3);
            let new = [&base[..], b"x"].concat();
            let delta = delta(&base, &new, 1000).unwrap();
            assert!(made_from(&base, &delta) == new, "{length}");
        }
    }

    #[test]
    fn what_has_nothing_in_common_gives_no_delta() {
        assert_eq!(delta(&noise(50_000, 1), &noise(50_000, 2), 25_000), None);
    }

    proptest! {
        #[test]
        fn the_instructions_make_the_new_from_the_former(
            base in prop::collection::vec(0u8..4, 0..2000),
            edits in prop::collection::vec((0usize..2000, 0usize..300, prop::collection::vec(0u8..4, 0..100)), 0..5),
        ) {
            let mut new = base.clone();
            for (at, length, text) in edits {
                let start = at.min(new.len());
                let end = (start + length).min(new.len());
                new.splice(start..end, text);
            }
            let delta = delta(&base, &new, usize::MAX).unwrap();
            prop_assert_eq!(made_from(&base, &delta), new);
        }
    }
}
