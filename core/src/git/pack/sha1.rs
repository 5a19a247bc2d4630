//! SHA-1 by the processor's own instructions, where it has them, with detection of the known collision attacks.
//!
//! In go bytes in pieces, out come their SHA-1 and whether a block among them completes a collision attack.
//!
//! Detection is that of Stevens, "Counter-cryptanalysis" (2013): an attack pairs a block with a twin that differs
//! from it by one of 32 disturbance vectors, so whoever has either block can compute the other and see that both
//! end in the same state (`vectors.rs`). Before that, every block is asked whether it meets the conditions that
//! an attack along each vector cannot avoid (`conditions.rs`): eight blocks at a time for half of the conditions,
//! the sieve, and one by one for what the sieve leaves.
//!
//! Why nothing slips through that `sha1-checked` or Git would find, which have these vectors and conditions too:
//! the state comes from the `sha1` crate alone and detection never changes it; every block goes through the
//! sieve, those that padding and length end up in included; a vector is dropped only for a condition of its own
//! that the block does not meet; each vector that is left is decided by its twin, from the very states before and
//! after the block. An attack along a vector that is not among the 32 is found by none of the three.

mod conditions;
mod vectors;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::shattered_blocks;

use self::conditions::{LANES, Lanes, beyond_the_sieve, sieve};
use self::vectors::{State, collides};

const BLOCK_BYTES: usize = 64;
const FIRST_STATE: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// What was hashed: its SHA-1, and whether it was made to collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The hash that every SHA-1 computes.
    pub(super) hash: [u8; 20],
    /// A block in there completes a known collision attack.
    pub(super) attacked: bool,
}

/// SHA-1 of bytes that come in pieces, with detection of the known collision attacks.
pub(super) struct DetectingSha1 {
    state: State,
    /// Bytes taken so far.
    length: u64,
    /// The block in the making; its first `length % 64` bytes count.
    open: [u8; BLOCK_BYTES],
    /// Blocks that are in `state` but not yet sieved, and the state before each.
    unsieved: Lanes,
    before: [State; LANES],
    waiting: usize,
    attacked: bool,
}

impl DetectingSha1 {
    pub(super) fn new() -> Self {
        Self {
            state: FIRST_STATE,
            length: 0,
            open: [0; BLOCK_BYTES],
            unsieved: [[0; LANES]; 16],
            before: [[0; 5]; LANES],
            waiting: 0,
            attacked: false,
        }
    }

    /// Takes the next piece.
    pub(super) fn update(&mut self, piece: &[u8]) {
        let filled = self.open_bytes();
        self.length = self.length.wrapping_add(piece.len() as u64);
        let missing = BLOCK_BYTES - filled;
        if piece.len() < missing {
            self.open[filled..filled + piece.len()].copy_from_slice(piece);
            return;
        }
        let mut rest = piece;
        if filled > 0 {
            let completing;
            (completing, rest) = piece.split_at(missing);
            self.open[filled..].copy_from_slice(completing);
            let block = self.open;
            self.take(&block);
        }
        let (blocks, tail) = rest.as_chunks();
        for block in blocks {
            self.take(block);
        }
        self.open[..tail.len()].copy_from_slice(tail);
    }

    /// Pads, and tells the hash and what was found.
    pub(super) fn finish(mut self) -> Verdict {
        let bits = self.length.wrapping_mul(8);
        let filled = self.open_bytes();
        let mut last = [0; BLOCK_BYTES];
        last[..filled].copy_from_slice(&self.open[..filled]);
        last[filled] = 0x80;
        if filled >= BLOCK_BYTES - 8 {
            self.take(&last);
            last = [0; BLOCK_BYTES];
        }
        last[BLOCK_BYTES - 8..].copy_from_slice(&bits.to_be_bytes());
        self.take(&last);
        self.examine();

        let mut hash = [0; 20];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        Verdict { hash, attacked: self.attacked }
    }

    fn open_bytes(&self) -> usize {
        (self.length % BLOCK_BYTES as u64) as usize
    }

    #[inline]
    fn take(&mut self, block: &[u8; BLOCK_BYTES]) {
        self.before[self.waiting] = self.state;
        ::sha1::compress(&mut self.state, std::slice::from_ref(block.into()));
        for (lanes, bytes) in self.unsieved.iter_mut().zip(block.as_chunks().0) {
            lanes[self.waiting] = u32::from_be_bytes(*bytes);
        }
        self.waiting += 1;
        if self.waiting == LANES {
            self.examine();
        }
    }

    /// Decides about the blocks that wait. Lanes beyond them hold blocks that were decided before.
    fn examine(&mut self) {
        for (lane, vectors) in sieve(&self.unsieved).into_iter().enumerate().take(self.waiting) {
            if vectors != 0 {
                self.examine_closely(lane, vectors);
            }
        }
        self.waiting = 0;
    }

    #[inline(never)]
    fn examine_closely(&mut self, lane: usize, left_by_the_sieve: u32) {
        let block = self.unsieved.map(|lanes| lanes[lane]);
        let vectors = beyond_the_sieve(block, left_by_the_sieve);
        let after = self.before[..self.waiting].get(lane + 1).unwrap_or(&self.state);
        self.attacked |= collides(&block, &self.before[lane], after, vectors);
    }
}
