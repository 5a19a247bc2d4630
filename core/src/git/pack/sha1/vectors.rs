//! The disturbance vectors of every practicable attack on SHA-1, and the full check of a block against one.
//!
//! In goes a block's expanded words with the hash state before and after it, out comes the *twin*: the only
//! block and states that an attack along that vector could have paired with it. Vectors are named as by Manuel,
//! "Classification and generation of disturbance vectors for collision attacks against SHA-1" (2011); which of
//! them matter is from Stevens and Shumow, "Speeding up detection of SHA-1 collision attacks using unavoidable
//! attack conditions" (2017). What a vector makes of the words is computed here from its name.

use std::ops::Range;

/// The steps of SHA-1.
pub(super) const STEPS: usize = 80;
/// The hash state between blocks, and the five working words between steps.
pub(super) type State = [u32; 5];

/// How the zero words of a vector lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    I,
    II,
}

/// A disturbance vector: its class, the first of its sixteen defining words, and by how much it is rotated.
#[derive(Clone, Copy)]
pub(super) struct Vector {
    pub(super) class: Class,
    pub(super) first: usize,
    pub(super) rotation: u32,
}

const fn vector(class: Class, first: usize, rotation: u32) -> Vector {
    Vector { class, first, rotation }
}

/// All that are looked for; a set of vectors is a word with bit `n` for the `n`th of these.
pub(super) const VECTORS: [Vector; 32] = [
    vector(Class::I, 43, 0),
    vector(Class::I, 44, 0),
    vector(Class::I, 45, 0),
    vector(Class::I, 46, 0),
    vector(Class::I, 46, 2),
    vector(Class::I, 47, 0),
    vector(Class::I, 47, 2),
    vector(Class::I, 48, 0),
    vector(Class::I, 48, 2),
    vector(Class::I, 49, 0),
    vector(Class::I, 49, 2),
    vector(Class::I, 50, 0),
    vector(Class::I, 50, 2),
    vector(Class::I, 51, 0),
    vector(Class::I, 51, 2),
    vector(Class::I, 52, 0),
    vector(Class::II, 45, 0),
    vector(Class::II, 46, 0),
    vector(Class::II, 46, 2),
    vector(Class::II, 47, 0),
    vector(Class::II, 48, 0),
    vector(Class::II, 49, 0),
    vector(Class::II, 49, 2),
    vector(Class::II, 50, 0),
    vector(Class::II, 50, 2),
    vector(Class::II, 51, 0),
    vector(Class::II, 51, 2),
    vector(Class::II, 52, 0),
    vector(Class::II, 53, 0),
    vector(Class::II, 54, 0),
    vector(Class::II, 55, 0),
    vector(Class::II, 56, 0),
];

/// The set of one vector. Asking for one that is not listed does not compile.
pub(super) const fn only(class: Class, first: usize, rotation: u32) -> u32 {
    let mut at = 0;
    loop {
        let candidate = VECTORS[at];
        if candidate.class as u8 == class as u8 && candidate.first == first && candidate.rotation == rotation
        {
            return 1 << at;
        }
        at += 1;
    }
}

impl Vector {
    /// The words of the vector itself: a bit in word `t` is a disturbance that step `t` brings in.
    pub(super) const fn disturbances(self) -> [u32; STEPS] {
        let mut words = [0; STEPS];
        words[self.first + 15] = 1 << self.rotation;
        if let Class::II = self.class {
            words[self.first + 1] = (1u32 << 31).rotate_left(self.rotation);
            words[self.first + 3] = words[self.first + 1];
        }
        expand_both_ways(words, self.first)
    }

    /// The XOR difference between the expanded words of a block and those of its twin: each disturbance and
    /// the five corrections that take it out again.
    pub(super) const fn differences(self) -> [u32; STEPS] {
        let disturbances = self.disturbances();
        let mut words = [0; STEPS];
        let from = self.first + 5;
        let mut step = from;
        while step < from + 16 {
            words[step] = disturbances[step]
                ^ disturbances[step - 1].rotate_left(5)
                ^ disturbances[step - 2]
                ^ disturbances[step - 3].rotate_left(30)
                ^ disturbances[step - 4].rotate_left(30)
                ^ disturbances[step - 5].rotate_left(30);
            step += 1;
        }
        expand_both_ways(words, from)
    }

    /// A step before which block and twin have the same working words, because the last disturbance was
    /// corrected and the next is to come. From there the twin can be computed in both directions.
    pub(super) const fn meeting_step(self) -> usize {
        self.first + 15
    }
}

/// The message expansion, run from the sixteen words at `from` to the end and to the beginning.
const fn expand_both_ways(mut words: [u32; STEPS], from: usize) -> [u32; STEPS] {
    let mut step = from + 16;
    while step < STEPS {
        words[step] =
            (words[step - 3] ^ words[step - 8] ^ words[step - 14] ^ words[step - 16]).rotate_left(1);
        step += 1;
    }
    step = from;
    while step > 0 {
        step -= 1;
        words[step] = words[step + 16].rotate_right(1) ^ words[step + 13] ^ words[step + 8] ^ words[step + 2];
    }
    words
}

static DIFFERENCES: [[u32; STEPS]; VECTORS.len()] = {
    let mut differences = [[0; STEPS]; VECTORS.len()];
    let mut at = 0;
    while at < VECTORS.len() {
        differences[at] = VECTORS[at].differences();
        at += 1;
    }
    differences
};

/// The words of a block as its eighty steps use them.
pub(super) fn expand(block: &[u32; 16]) -> [u32; STEPS] {
    let mut words = [0; STEPS];
    words[..16].copy_from_slice(block);
    for step in 16..STEPS {
        words[step] =
            (words[step - 3] ^ words[step - 8] ^ words[step - 14] ^ words[step - 16]).rotate_left(1);
    }
    words
}

/// What a step of round `ROUND` adds beside the first and last working word and the message word.
#[inline(always)]
fn function<const ROUND: usize>(b: u32, c: u32, d: u32) -> u32 {
    match ROUND {
        0 => (d ^ (b & (c ^ d))).wrapping_add(0x5a82_7999),
        1 => (b ^ c ^ d).wrapping_add(0x6ed9_eba1),
        2 => ((b & c) | (d & (b ^ c))).wrapping_add(0x8f1b_bcdc),
        _ => (b ^ c ^ d).wrapping_add(0xca62_c1d6),
    }
}

/// Those of `steps` that are in round `ROUND`.
fn part<const ROUND: usize>(steps: &Range<usize>) -> Range<usize> {
    steps.start.clamp(ROUND * 20, ROUND * 20 + 20)..steps.end.clamp(ROUND * 20, ROUND * 20 + 20)
}

#[inline(always)]
fn round_forward<const ROUND: usize>(state: &mut State, steps: &Range<usize>, word: impl Fn(usize) -> u32) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for step in part::<ROUND>(steps) {
        let sum = e
            .wrapping_add(word(step))
            .wrapping_add(function::<ROUND>(b, c, d))
            .wrapping_add(a.rotate_left(5));
        (a, b, c, d, e) = (sum, a, b.rotate_left(30), c, d);
    }
    *state = [a, b, c, d, e];
}

#[inline(always)]
fn round_back<const ROUND: usize>(state: &mut State, steps: &Range<usize>, word: impl Fn(usize) -> u32) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for step in part::<ROUND>(steps).rev() {
        let earlier_b = c.rotate_right(30);
        let earlier_e =
            a.wrapping_sub(word(step))
                .wrapping_sub(b.rotate_left(5))
                .wrapping_sub(function::<ROUND>(earlier_b, d, e));
        (a, b, c, d, e) = (b, earlier_b, d, e, earlier_e);
    }
    *state = [a, b, c, d, e];
}

/// The working words after these steps.
#[inline(always)]
pub(super) fn run_forward(mut state: State, steps: Range<usize>, word: impl Fn(usize) -> u32) -> State {
    round_forward::<0>(&mut state, &steps, &word);
    round_forward::<1>(&mut state, &steps, &word);
    round_forward::<2>(&mut state, &steps, &word);
    round_forward::<3>(&mut state, &steps, &word);
    state
}

/// The working words from which these steps lead to `state`.
#[inline(always)]
fn run_back(mut state: State, steps: Range<usize>, word: impl Fn(usize) -> u32) -> State {
    round_back::<3>(&mut state, &steps, &word);
    round_back::<2>(&mut state, &steps, &word);
    round_back::<1>(&mut state, &steps, &word);
    round_back::<0>(&mut state, &steps, &word);
    state
}

/// The states before and after the block that an attack would have paired with this one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twin {
    pub(super) before: State,
    pub(super) after: State,
}

/// The twin of a block along the vector at `index`, the two having met before step `meeting`.
pub(super) fn twin(
    words: &[u32; STEPS],
    before: &State,
    after: &State,
    index: usize,
    meeting: usize,
) -> Twin {
    let differences = &DIFFERENCES[index];
    let word = |step: usize| words[step];
    let twin_word = |step: usize| words[step] ^ differences[step];
    let last: State = std::array::from_fn(|at| after[at].wrapping_sub(before[at]));
    let met = run_back(last, meeting..STEPS, word);
    let end = run_forward(met, meeting..STEPS, twin_word);
    let start = run_back(met, 0..meeting, twin_word);
    Twin { before: start, after: std::array::from_fn(|at| start[at].wrapping_add(end[at])) }
}

/// The places of the vectors in a set of them.
pub(super) fn each(mut vectors: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = vectors.trailing_zeros() as usize;
        vectors &= vectors.wrapping_sub(1);
        (first < VECTORS.len()).then_some(first)
    })
}

/// Whether the twin of this block along one of `vectors` ends in the same state: the proof that it was made to
/// collide.
pub(super) fn collides(block: &[u32; 16], before: &State, after: &State, vectors: u32) -> bool {
    if vectors == 0 {
        return false;
    }
    let words = expand(block);
    each(vectors)
        .any(|index| twin(&words, before, after, index, VECTORS[index].meeting_step()).after == *after)
}
