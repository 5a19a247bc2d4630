//! The conditions that a block must meet before it can belong to an attack, cheap enough to ask of every block.
//!
//! An attack along a disturbance vector needs certain pairs of bits of the expanded message equal, and others
//! different, whatever else its author chooses: the "unavoidable bit conditions" of Stevens and Shumow (2017).
//! [`CONDITIONS`] holds those facts, as published with their collision detection library. In go the sixteen words
//! of a block, out come the vectors all of whose conditions it meets: none at all for nineteen random blocks of
//! twenty. One condition that an attack did not need would be a hole, so `tests.rs` judges each by sampled pairs
//! that follow the vector, and the table by its checksum.

use super::vectors::{Class, VECTORS, each, only};

/// How many blocks are sieved side by side.
pub(super) const LANES: usize = 8;
/// The first words of this many blocks, then their second words, and so on: one vector register a word.
pub(super) type Lanes = [[u32; LANES]; 16];
/// No condition names a word from here on.
const WORDS: usize = 65;

/// Bit `.1` of expanded word `.0`.
type Bit = (usize, u32);

/// Attacks along any of `vectors` need these two bits equal, or different.
#[derive(Clone, Copy)]
pub(super) struct Condition {
    pub(super) one: Bit,
    pub(super) other: Bit,
    pub(super) differ: bool,
    pub(super) vectors: u32,
}

const fn equal(one: Bit, other: Bit, vectors: u32) -> Condition {
    Condition { one, other, differ: false, vectors }
}

const fn differ(one: Bit, other: Bit, vectors: u32) -> Condition {
    Condition { one, other, differ: true, vectors }
}

impl Condition {
    /// All ones if the block does not meet it, else zero.
    #[inline(always)]
    fn failure(self, words: &[u32; WORDS]) -> u32 {
        let one_on_top = words[self.one.0] << (31 - self.one.1);
        let other_on_top = words[self.other.0] << (31 - self.other.1);
        let different = ((one_on_top ^ other_on_top) as i32 >> 31) as u32;
        if self.differ { !different } else { different }
    }
}

// Class, first word, and R2 where the vector is rotated by two.
const I43: u32 = only(Class::I, 43, 0);
const I44: u32 = only(Class::I, 44, 0);
const I45: u32 = only(Class::I, 45, 0);
const I46: u32 = only(Class::I, 46, 0);
const I46R2: u32 = only(Class::I, 46, 2);
const I47: u32 = only(Class::I, 47, 0);
const I47R2: u32 = only(Class::I, 47, 2);
const I48: u32 = only(Class::I, 48, 0);
const I48R2: u32 = only(Class::I, 48, 2);
const I49: u32 = only(Class::I, 49, 0);
const I49R2: u32 = only(Class::I, 49, 2);
const I50: u32 = only(Class::I, 50, 0);
const I50R2: u32 = only(Class::I, 50, 2);
const I51: u32 = only(Class::I, 51, 0);
const I51R2: u32 = only(Class::I, 51, 2);
const I52: u32 = only(Class::I, 52, 0);
const II45: u32 = only(Class::II, 45, 0);
const II46: u32 = only(Class::II, 46, 0);
const II46R2: u32 = only(Class::II, 46, 2);
const II47: u32 = only(Class::II, 47, 0);
const II48: u32 = only(Class::II, 48, 0);
const II49: u32 = only(Class::II, 49, 0);
const II49R2: u32 = only(Class::II, 49, 2);
const II50: u32 = only(Class::II, 50, 0);
const II50R2: u32 = only(Class::II, 50, 2);
const II51: u32 = only(Class::II, 51, 0);
const II51R2: u32 = only(Class::II, 51, 2);
const II52: u32 = only(Class::II, 52, 0);
const II53: u32 = only(Class::II, 53, 0);
const II54: u32 = only(Class::II, 54, 0);
const II55: u32 = only(Class::II, 55, 0);
const II56: u32 = only(Class::II, 56, 0);

/// Ordered so that each excludes the most of what its predecessors leave.
pub(super) const CONDITIONS: [Condition; 156] = [
    equal((44, 29), (45, 29), I48 | I51 | I52 | II45 | II46 | II50 | II51),
    equal((43, 4), (46, 29), I43 | I45 | I47 | I49 | II47 | II52),
    equal((44, 4), (47, 29), I44 | I46 | I48 | I50 | II48 | II53),
    equal((48, 29), (49, 29), I45 | I52 | II49 | II50 | II54 | II55),
    equal((47, 4), (50, 29), I47 | I49 | I51 | II45 | II51 | II56),
    differ((36, 1), (37, 6), I47R2 | I50R2 | II46R2),
    equal((46, 29), (47, 29), I43 | I50 | II47 | II48 | II52 | II53),
    differ((39, 1), (40, 6), I46R2 | I50R2 | II49R2),
    differ((40, 1), (41, 6), I47R2 | I51R2 | II50R2),
    differ((41, 1), (42, 6), I48R2 | II46R2 | II51R2),
    equal((40, 29), (41, 29), I44 | I47 | I48 | II46 | II47 | II56),
    equal((47, 29), (48, 29), I44 | I51 | II48 | II49 | II53 | II54),
    equal((49, 29), (50, 29), I46 | II45 | II50 | II51 | II55 | II56),
    equal((45, 6), (47, 6), I47R2 | I49R2 | I51R2),
    equal((44, 6), (46, 6), I46R2 | I48R2 | I50R2),
    equal((45, 4), (48, 29), I45 | I47 | I49 | I51 | II49 | II54),
    equal((46, 4), (49, 29), I46 | I48 | I50 | I52 | II50 | II55),
    equal((45, 29), (46, 29), I49 | I52 | II46 | II47 | II51 | II52),
    differ((35, 1), (36, 6), I46R2 | I49R2),
    equal((41, 6), (42, 1), I51R2 | II50R2),
    equal((42, 6), (43, 1), II46R2 | II51R2),
    equal((37, 4), (40, 29), I43 | I47 | II46 | II53 | II55),
    equal((40, 4), (43, 29), I44 | I46 | I50 | II49 | II56),
    equal((40, 6), (41, 1), I50R2 | II49R2),
    equal((41, 4), (44, 29), I43 | I45 | I47 | I51 | II45 | II50),
    equal((50, 4), (53, 29), I50 | I52 | II46 | II48 | II54),
    differ((37, 1), (38, 6), I48R2 | I51R2),
    equal((43, 6), (45, 6), I47R2 | I49R2),
    equal((46, 6), (47, 1), I46R2 | II50R2),
    equal((38, 4), (41, 29), I44 | I48 | II47 | II54 | II56),
    equal((39, 4), (42, 29), I43 | I45 | I49 | II48 | II55),
    differ((44, 1), (45, 6), I51R2 | II49R2),
    equal((47, 6), (48, 1), I47R2 | II51R2),
    equal((50, 29), (51, 29), I47 | II46 | II51 | II52 | II56),
    equal((43, 29), (44, 29), I47 | I50 | I51 | II45 | II49 | II50),
    equal((42, 4), (45, 29), I44 | I46 | I48 | I52 | II46 | II51),
    equal((42, 6), (44, 6), I46R2 | I48R2),
    equal((48, 6), (50, 6), I50R2 | II46R2),
    equal((52, 29), (53, 29), I49 | II45 | II48 | II53 | II54),
    equal((47, 6), (49, 6), I49R2 | I51R2),
    equal((51, 29), (52, 29), I48 | II47 | II52 | II53),
    differ((36, 0), (41, 30), II49R2),
    differ((37, 0), (42, 30), II50R2),
    differ((38, 0), (43, 30), II51R2),
    equal((42, 29), (43, 29), I46 | I49 | I50 | II48 | II49),
    differ((39, 4), (41, 4), I43 | I45 | II55),
    equal((46, 6), (48, 6), I48R2 | I50R2),
    differ((61, 2), (62, 7), I46R2 | II46R2),
    equal((54, 29), (55, 29), I51 | II47 | II50 | II55 | II56),
    equal((48, 4), (51, 29), I48 | I50 | I52 | II46 | II52),
    equal((37, 5), (41, 30), II49R2),
    differ((38, 1), (40, 1), I49R2),
    equal((38, 5), (42, 30), II50R2),
    equal((39, 5), (43, 30), II51R2),
    equal((49, 4), (52, 29), I49 | I51 | II45 | II47 | II53),
    equal((50, 6), (51, 1), I50R2 | II46R2),
    equal((53, 29), (54, 29), I50 | II46 | II49 | II54 | II55),
    differ((40, 4), (42, 4), I44 | I46 | II56),
    equal((41, 29), (42, 29), I45 | I48 | I49 | II47 | II48),
    equal((39, 6), (40, 1), I49R2),
    equal((41, 6), (43, 6), I47R2),
    equal((45, 6), (46, 1), II49R2),
    differ((45, 1), (47, 1), II50R2),
    differ((46, 1), (48, 1), II51R2),
    equal((48, 6), (49, 1), I48R2),
    equal((55, 29), (56, 29), I52 | II48 | II51 | II56),
    differ((37, 4), (39, 4), I43 | II53 | II55),
    differ((36, 4), (38, 4), II52 | II54),
    equal((36, 4), (40, 29), I46 | I49 | II45 | II48),
    differ((44, 29), (46, 29), I43 | I45 | I47),
    equal((35, 5), (39, 30), I51R2),
    equal((40, 6), (42, 6), I46R2),
    differ((42, 1), (50, 1), I49R2),
    differ((47, 1), (51, 1), II46R2),
    differ((50, 1), (54, 1), II49R2),
    equal((51, 4), (54, 29), I51 | II47 | II49 | II55),
    differ((51, 1), (55, 1), II50R2),
    differ((52, 1), (56, 1), II51R2),
    equal((54, 4), (57, 29), II50 | II52),
    differ((62, 2), (63, 7), I47R2),
    differ((63, 2), (64, 7), I48R2),
    differ((38, 4), (40, 4), I44 | II54 | II56),
    equal((39, 4), (43, 29), I52 | II51),
    differ((45, 29), (47, 29), I44 | I46 | I48),
    equal((37, 1), (37, 6), I51R2),
    differ((43, 1), (51, 1), I50R2),
    equal((49, 6), (50, 1), I49R2),
    equal((51, 6), (53, 6), II49R2),
    equal((52, 4), (55, 29), I52 | II48 | II50 | II56),
    equal((52, 6), (54, 6), II50R2),
    equal((53, 4), (56, 29), II49 | II51),
    equal((53, 6), (55, 6), II51R2),
    differ((60, 0), (61, 5), I45 | II45),
    equal((55, 4), (58, 29), II51 | II53),
    equal((56, 4), (59, 29), II52 | II54),
    differ((46, 29), (48, 29), I45 | I47 | I49),
    differ((47, 29), (49, 29), I46 | I48 | I50),
    differ((50, 29), (52, 29), I49 | I51 | II45),
    equal((49, 6), (51, 6), I51R2),
    differ((51, 29), (54, 29), I50 | II46 | II47),
    equal((53, 6), (54, 1), II49R2),
    equal((54, 6), (55, 1), II50R2),
    equal((55, 6), (56, 1), II51R2),
    equal((56, 29), (57, 29), II49 | II52),
    equal((57, 29), (58, 29), II50 | II53),
    differ((58, 0), (63, 30), I43),
    differ((53, 29), (56, 29), I52 | II48 | II49),
    differ((48, 29), (50, 29), I47 | I49 | I51),
    equal((35, 4), (39, 29), I45 | I48 | II47),
    equal((51, 6), (52, 1), I51R2),
    differ((56, 29), (59, 29), II51 | II52),
    equal((59, 5), (63, 30), I43),
    differ((59, 0), (64, 30), I44),
    differ((61, 0), (62, 5), I46 | II46),
    equal((38, 4), (42, 29), I51 | II50),
    equal((58, 29), (59, 29), II51 | II54),
    differ((63, 1), (64, 6), I45 | II45),
    differ((49, 29), (51, 29), I48 | I50 | I52),
    equal((41, 3), (45, 28), II53),
    equal((43, 3), (47, 28), II55),
    equal((60, 5), (64, 30), I44),
    differ((61, 1), (62, 6), I43),
    equal((37, 4), (41, 29), I50 | II49),
    differ((62, 0), (63, 5), I47 | II47),
    differ((37, 30), (42, 28), II50),
    differ((39, 30), (44, 28), II52),
    equal((41, 4), (45, 29), II53),
    equal((42, 3), (46, 28), II54),
    equal((43, 4), (47, 29), II55),
    equal((44, 3), (48, 28), II56),
    differ((48, 29), (55, 29), I51 | I52),
    differ((62, 1), (63, 6), I44),
    differ((63, 0), (64, 5), I48 | II48),
    equal((35, 3), (39, 28), I51 | II47),
    differ((36, 30), (41, 28), II49),
    equal((38, 3), (42, 28), II50),
    differ((38, 30), (43, 28), II51),
    equal((40, 3), (44, 28), II52),
    equal((42, 4), (46, 29), II54),
    equal((44, 4), (48, 29), II56),
    equal((57, 4), (61, 29), II53),
    equal((57, 4), (59, 29), II55),
    differ((35, 30), (40, 28), II48),
    differ((36, 4), (37, 4), I50),
    equal((37, 3), (41, 28), II49),
    differ((38, 4), (39, 4), I52),
    equal((39, 3), (43, 28), II51),
    equal((40, 4), (44, 29), II52),
    differ((55, 29), (58, 29), II50),
    differ((58, 29), (61, 29), II53),
    equal((58, 4), (62, 29), II54),
    equal((59, 4), (63, 29), II55),
    equal((60, 4), (64, 29), II56),
    equal((36, 3), (40, 28), II48),
    differ((37, 4), (38, 4), I51),
    equal((59, 29), (60, 29), II52),
];

macro_rules! expand_each {
    ($words:ident: $($step:literal)*) => { $(
        $words[$step] =
            ($words[$step - 3] ^ $words[$step - 8] ^ $words[$step - 14] ^ $words[$step - 16]).rotate_left(1);
    )* };
}

/// The expanded words that conditions name. Written out, as a loop in here would keep [`sieve`] from being run
/// over several blocks at a time.
#[inline(always)]
fn expand(block: [u32; 16]) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    words[..16].copy_from_slice(&block);
    expand_each!(words:
        16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48
        49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
    );
    words
}

/// The vectors that condition `AT` excludes for this block. The condition is a constant of each instance, so
/// that its words, shifts and vectors are built into the code.
#[inline(always)]
fn excluded_by<const AT: usize>(words: &[u32; WORDS]) -> u32 {
    let condition = const { CONDITIONS[AT] };
    condition.failure(words) & condition.vectors
}

macro_rules! excluded_by_each {
    ($words:ident: $($at:literal)*) => { 0 $(| excluded_by::<$at>($words))* };
}

/// Conditions in the sieve. More cost every block more than they save the few blocks that pass.
const SIEVE: usize = 80;

#[inline(always)]
fn excluded_by_the_sieve(words: &[u32; WORDS]) -> u32 {
    excluded_by_each!(words:
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36
        37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69
        70 71 72 73 74 75 76 77 78 79
    )
}

/// For each block the vectors that the sieve leaves. Straight-line code over one block, so that the compiler runs
/// it over as many blocks at a time as the processor's registers hold.
#[inline(never)]
pub(super) fn sieve(blocks: &Lanes) -> [u32; LANES] {
    let mut left = [0; LANES];
    for lane in 0..LANES {
        left[lane] = !excluded_by_the_sieve(&expand(std::array::from_fn(|word| blocks[word][lane])));
    }
    left
}

/// The most conditions beyond the sieve that one vector has.
const MOST_LEFT: usize = 8;

/// For each vector the places of its conditions beyond the sieve; zero, a place within the sieve, ends the list.
static BEYOND_THE_SIEVE: [[u8; MOST_LEFT + 1]; VECTORS.len()] = {
    let mut places = [[0; MOST_LEFT + 1]; VECTORS.len()];
    let mut vector = 0;
    while vector < VECTORS.len() {
        let mut found = 0;
        let mut at = SIEVE;
        while at < CONDITIONS.len() {
            if CONDITIONS[at].vectors & (1 << vector) != 0 {
                places[vector][found] = at as u8;
                found += 1;
            }
            at += 1;
        }
        assert!(found <= MOST_LEFT);
        vector += 1;
    }
    places
};

/// Those of `vectors`, left by the sieve, whose other conditions this block meets as well.
pub(super) fn beyond_the_sieve(block: [u32; 16], vectors: u32) -> u32 {
    let words = expand(block);
    let meets_all = |vector: &usize| {
        let mut places = BEYOND_THE_SIEVE[*vector].iter().take_while(|place| **place != 0);
        places.all(|place| CONDITIONS[usize::from(*place)].failure(&words) == 0)
    };
    each(vectors).filter(meets_all).fold(0, |left, vector| left | 1 << vector)
}
