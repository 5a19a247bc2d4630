//! Three judges: the `sha1-checked` crate for hashes and verdicts, the published collisions, and, for what no
//! published collision touches, pairs of blocks that are made to follow each disturbance vector.

use std::io::Write;
use std::time::Instant;

use proptest::prelude::*;
use sha1_checked::{Digest, Sha1};

use super::conditions::{CONDITIONS, Condition};
use super::vectors::{Class, STEPS, VECTORS, each, expand, run_forward, twin};
use super::*;

/// The first published collision's opening blocks (Stevens et al., "The first collision for full SHA-1", 2017);
/// the attack is complete at their end.
const SHATTERED: &str = concat!(
    "255044462d312e330a25e2e3cfd30a0a0a312030206f626a0a3c3c2f57696474682032203020522f48656967687420332030",
    "20522f547970652034203020522f537562747970652035203020522f46696c7465722036203020522f436f6c6f7253706163",
    "652037203020522f4c656e6774682038203020522f42697473506572436f6d706f6e656e7420383e3e0a73747265616d0aff",
    "d8fffe00245348412d3120697320646561642121212121852fec092339759c39b1a1c63c4c97e1fffe017346dc9166b67e11",
    "8f029ab621b2560ff9ca67cca8c7f85ba84c79030c2b3de218f86db3a90901d5df45c14f26fedfb3dc38e96ac22fe7bd728f",
    "0e45bce046d23c570feb141398bb552ef5a0a82be331fea48037b8b5d71f0e332edf93ac3500eb4ddc0decc1a864790c782c",
    "76215660dd309791d06bd0af3f98cda4bc4629b1",
);

/// The last of these blocks in the other of the two files.
const OTHER_SHATTERED_BLOCK: &str = concat!(
    "30570fe9d41398abe12ef5bc942be33542a4802d98b5d70f2a332ec37fac3514e74ddc0f2cc1a874cd0c78305a2156646130",
    "9789606bd0bf3f98cda8044629a1",
);

/// One of the first pair with chosen beginnings (Leurent and Peyrin, "SHA-1 is a Shambles", 2020).
const SHAMBLES: &str = concat!(
    "99040d047fe81780012000ff4b65792069732070617274206f66206120636f6c6c6973696f6e212049742773206120747261",
    "702179c61af0afcc054515d9274e7307624b1dc7fb23988bb8de8b575dba7b9eab31c1674b6d974378a827732ff5851c76a2",
    "e60772b5a47ce1eac40bb993c12d8c70e24a4f8d5fcdedc1b32c9cf19e31af2429759d42e4dfdb31719f587623ee552939b6",
    "dcdc459fca53553b70f87ede30a247ea3af6c759a2f20b320d760db64ff479084fd3ccb3cdd48362d96a9c430617caff6c36",
    "c637e53fde28417f626fec54ed7943a46e5f5730f2bb38fb1df6e0090010d00e24ad78bf92641993608e8d158a789f34c46f",
    "e1e6027f35a4cbfb827076c50eca0e8b7cca69bb2c2b790259f9bf9570dd8d4437a3115faff7c3cac09ad25266055c271047",
    "55178eaeff825a2caa2acfb5de64ce7641dc59a541a9fc9c756756e2e23dc713c8c24c9790aa6b0e38a7f55f14452a1ca285",
    "0ddd9562fd9a18ad42496aa97008f74672f68ef461eb88b09933d626b4f918749cc027fddd6c425fc4216835d0134d15285b",
    "ab2cb784a4f7cbb4fb514d4bf0f6237cf00a9e9f132b9a066e6fd17f6c42987478586ff651af96747fb426b9872b9a88e406",
    "3f59bb334cc00650f83a80c42751b71974d300fc2819a2e8f1e32c1b51cb18e6bfc4db9baef675d4aaf5b1574a047f8f6dd2",
    "ec153a93412293974d928f88ced9363cfef97ce2e742bf34c96b8ef3875676fea5cca8e5f7dea0bab2413d4de00ee71ee01f",
    "162bdb6d1eafd925e6aebaae6a354ef17cf205a404fbdb12fc454d41fdd95cf2459664a2ad032d1da60a73264075d7f1e0d6",
    "c1403ae7a0d861df3fe5707188dd5e07d1589b9f8b6630553f8fc352b3e0c27da80bddba4c64020d",
);

/// A collision of SHA-1 with fewer steps, from the test data of the authors of collision detection.
const FEWER_STEPS: &str = concat!(
    "bc7e393a0470f684e0a484dea556875acddff9c82d02016b860ee7f911e1841871bfbff1067095c9ed44afee78122409a3b2",
    "eb2e16c0cfc206c5202810383c2b73e6e2c8437fb13e4e4d5db6e383e01d7bea242c2bb630546845b1430c2194abfb5236be",
    "2bc91e191d11bf8f665ef9ab9f8fe36a402cbf39d77c1fb43cb00872",
);

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Bytes whose last block completes a collision attack.
pub(in crate::git::pack) fn shattered_blocks() -> Vec<u8> {
    bytes_of(SHATTERED)
}

fn ours(pieces: &[&[u8]]) -> Verdict {
    let mut sha = DetectingSha1::new();
    for piece in pieces {
        sha.update(piece);
    }
    sha.finish()
}

fn theirs(data: &[u8]) -> Verdict {
    let mut sha = Sha1::builder().safe_hash(false).build();
    sha.update(data);
    let result = sha.try_finalize();
    Verdict { hash: (*result.hash()).into(), attacked: result.has_collision() }
}

/// Numbers without a pattern, the same at every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    fn words<const COUNT: usize>(&mut self) -> [u32; COUNT] {
        std::array::from_fn(|_| self.next())
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn numbers() -> Numbers {
    Numbers(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn every_length_around_block_and_batch_borders_hashes_as_elsewhere() {
    let data = numbers().bytes(1300);
    for length in 0..data.len() {
        assert_eq!(ours(&[&data[..length]]), theirs(&data[..length]), "{length}");
    }
}

#[test]
fn every_split_of_a_message_hashes_the_same() {
    let data = numbers().bytes(700);
    let whole = theirs(&data);
    for split in 0..=data.len() {
        assert_eq!(ours(&[&data[..split], &data[split..]]), whole, "{split}");
        let middle = split + (data.len() - split) / 2;
        assert_eq!(ours(&[&data[..split], &data[split..middle], &data[middle..]]), whole, "{split}");
    }
    for size in 1..200 {
        assert_eq!(ours(&data.chunks(size).collect::<Vec<_>>()), whole, "{size}");
    }
}

#[test]
fn even_contents_are_no_attack() {
    for byte in [0, 1, b' ', 0x55, 0xaa, 0xff] {
        let data = vec![byte; 20_000];
        assert_eq!(ours(&[&data]), theirs(&data));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_hash_and_judge_as_elsewhere(
        data in prop::collection::vec(any::<u8>(), 0..3000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
        places.extend([0, data.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &data[ends[0]..ends[1]]).collect();
        prop_assert_eq!(ours(&pieces), theirs(&data));
    }
}

#[test]
fn published_collisions_are_found_wherever_pieces_and_batches_end() {
    for attack in [bytes_of(SHATTERED), bytes_of(SHAMBLES)] {
        assert!(theirs(&attack).attacked);
        for cut in 0..=attack.len() {
            assert_eq!(ours(&[&attack[..cut], &attack[cut..]]), theirs(&attack), "{cut}");
        }
        for more in 0..600 {
            let longer = [&attack[..], &vec![7; more]].concat();
            assert_eq!(ours(&[&longer]), theirs(&longer), "{more} bytes more");
        }
        // Without its last block the attack is not complete, and another start undoes it.
        assert!(!ours(&[&attack[..attack.len() - 64]]).attacked);
        let elsewhere = [&[0; 64], &attack[..]].concat();
        assert_eq!(ours(&[&elsewhere]), theirs(&elsewhere));
        assert!(!ours(&[&elsewhere]).attacked);
    }
}

/// The state is put in by hand: of the known collisions none ends in another lane.
#[test]
fn an_attack_is_found_in_every_lane_of_a_batch() {
    let attack = bytes_of(SHATTERED);
    let (block, before, after) = blocks_of(&attack)[4];
    let attacking = attack[256..].as_chunks::<64>().0[0];
    for lane in 0..LANES {
        for behind in 0..=LANES - 1 - lane {
            let mut sha = DetectingSha1::new();
            (0..lane).for_each(|_| sha.take(&[3; 64]));
            sha.state = before;
            sha.take(&attacking);
            assert!(lane == LANES - 1 || sha.state == after);
            (0..behind).for_each(|_| sha.take(&[4; 64]));
            assert!(sha.finish().attacked, "lane {lane}, {behind} behind");
        }
        assert!(vectors_left(&block, lane) & 1 << 27 != 0);
    }
}

/// The words of each block, and the states before and after it.
fn blocks_of(data: &[u8]) -> Vec<([u32; 16], State, State)> {
    let mut state = FIRST_STATE;
    let mut blocks = Vec::new();
    for bytes in data.as_chunks::<64>().0 {
        let block = std::array::from_fn(|word| u32::from_be_bytes(bytes.as_chunks().0[word]));
        let before = state;
        state = compressed(before, &block);
        blocks.push((block, before, state));
    }
    blocks
}

fn compressed(mut state: State, block: &[u32; 16]) -> State {
    let mut bytes = [0; BLOCK_BYTES];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(block) {
        *place = word.to_be_bytes();
    }
    ::sha1::compress(&mut state, std::slice::from_ref((&bytes).into()));
    state
}

/// Sieve and the rest together, the block being in `lane` among others.
fn vectors_left(block: &[u32; 16], lane: usize) -> u32 {
    let mut lanes: Lanes = std::array::from_fn(|word| [block[word].wrapping_mul(3) ^ 0x55; LANES]);
    for (word, lanes) in lanes.iter_mut().enumerate() {
        lanes[lane] = block[word];
    }
    beyond_the_sieve(*block, sieve(&lanes)[lane])
}

#[test]
fn a_collision_of_fewer_steps_meets_its_vector_and_its_twin_starts_in_the_same_state() {
    let data = bytes_of(FEWER_STEPS);
    let mut judge = Sha1::builder().safe_hash(false).reduced_round_collision(true).build();
    judge.update(&data);
    assert!(judge.try_finalize().has_collision());

    let found = blocks_of(&data).iter().any(|(block, before, after)| {
        let words = expand(block);
        each(vectors_left(block, 5))
            .any(|index| twin(&words, before, after, index, VECTORS[index].meeting_step()).before == *before)
    });
    assert!(found);
    assert_eq!(ours(&[&data]), theirs(&data));
}

#[test]
fn the_twin_of_a_published_block_is_the_block_of_the_other_file() {
    let vector = VECTORS[27];
    assert!(vector.class == Class::II && vector.first == 52 && vector.rotation == 0);
    let (block, before, after) = blocks_of(&shattered_blocks())[4];
    let (other_block, ..) = blocks_of(&bytes_of(OTHER_SHATTERED_BLOCK))[0];
    let differences = vector.differences();
    assert!((0..16).all(|word| block[word] ^ differences[word] == other_block[word]));
    let found = twin(&expand(&block), &before, &after, 27, vector.meeting_step());
    assert_eq!(compressed(found.before, &other_block), after);
}

#[test]
fn every_twin_is_hashed_from_its_start_to_its_end_by_plain_sha1_and_meets_where_its_vector_is_quiet() {
    let mut numbers = numbers();
    for (index, vector) in VECTORS.iter().enumerate() {
        let block: [u32; 16] = numbers.words();
        let before: State = numbers.words();
        let after = compressed(before, &block);
        let differences = vector.differences();
        let words = expand(&block);
        let found = twin(&words, &before, &after, index, vector.meeting_step());
        let twin_block = std::array::from_fn(|at| block[at] ^ differences[at]);
        assert_eq!(compressed(found.before, &twin_block), found.after);

        let quiet_from = vector.first + if vector.class == Class::I { 5 } else { 9 };
        for step in 0..=STEPS {
            let met = run_forward(before, 0..step, |at| words[at])
                == run_forward(found.before, 0..step, |at| words[at] ^ differences[at]);
            assert_eq!(met, (quiet_from..=vector.meeting_step()).contains(&step), "{index} {step}");
        }
        assert_eq!(twin(&words, &before, &after, index, quiet_from), found);
    }
}

/// Words 35 to 64 of a block that, with its twin, does what the vector says at each of these steps: every
/// disturbance is exactly its bit, every other difference is corrected. Most beginnings turn out to be dead ends,
/// so many are led on at a time, and those that got a step further take the places of those that did not.
fn words_that_follow(vector: usize, numbers: &mut Numbers) -> [u32; 65] {
    const FROM: usize = 35;
    const AT_A_TIME: usize = 128;
    let disturbances = VECTORS[vector].disturbances();
    let differences = VECTORS[vector].differences();
    'again: loop {
        let mut beginnings: Vec<(State, State, [u32; 65])> = (0..AT_A_TIME)
            .map(|_| {
                let one: State = numbers.words();
                let other = std::array::from_fn(|at| {
                    one[at] ^ disturbances[FROM - 1 - at].rotate_left(if at < 2 { 0 } else { 30 })
                });
                (one, other, [0; 65])
            })
            .collect();
        for step in FROM..65 {
            let mut further = Vec::new();
            for attempt in 0..AT_A_TIME * 8 {
                let (one, other, mut words) = beginnings[attempt % beginnings.len()];
                words[step] = numbers.next();
                let next_one = run_forward(one, step..step + 1, |_| words[step]);
                let next_other = run_forward(other, step..step + 1, |_| words[step] ^ differences[step]);
                if next_one[0] ^ next_other[0] == disturbances[step] {
                    further.push((next_one, next_other, words));
                }
                if further.len() == AT_A_TIME {
                    break;
                }
            }
            if further.is_empty() {
                continue 'again;
            }
            beginnings = further;
        }
        return beginnings[0].2;
    }
}

fn meets(condition: &Condition, words: &[u32]) -> bool {
    let bit = |(word, bit): (usize, u32)| words[word] >> bit & 1 == 1;
    (bit(condition.one) != bit(condition.other)) == condition.differ
}

fn conditions_of(vector: usize) -> Vec<&'static Condition> {
    CONDITIONS.iter().filter(|condition| condition.vectors & 1 << vector != 0).collect()
}

#[test]
fn every_condition_holds_in_every_pair_that_follows_its_vector() {
    let mut numbers = numbers();
    for vector in 0..VECTORS.len() {
        for _ in 0..24 {
            let words = words_that_follow(vector, &mut numbers);
            for condition in conditions_of(vector) {
                assert!(
                    meets(condition, &words),
                    "vector {vector}: {:?} {:?}",
                    condition.one,
                    condition.other
                );
            }
        }
    }
}

/// A block that meets all of these conditions but `broken`, if there is one, made of `seed`: conditions are
/// linear in the bits of the block.
fn block_that_meets(conditions: &[&Condition], broken: Option<usize>, seed: [u32; 16]) -> [u32; 16] {
    let unmet = |block: &[u32; 16]| {
        let words = expand(block);
        let fails = |condition: &&Condition| u32::from(!meets(condition, &words));
        conditions.iter().map(fails).rev().fold(0, |set, failed| set << 1 | failed)
    };
    let unmet_by_nothing = unmet(&[0; 16]);
    // Bits of the block to flip, with what that changes; each owns the lowest condition that it changes.
    let mut owners: [Option<(u32, [u32; 16])>; 32] = [None; 32];
    for bit in 0..512 {
        let mut flips = [0; 16];
        flips[bit / 32] = 1 << (bit % 32);
        let mut change = unmet(&flips) ^ unmet_by_nothing;
        while change != 0 {
            let owner = &mut owners[change.trailing_zeros() as usize];
            let Some((known_change, known_flips)) = owner else {
                *owner = Some((change, flips));
                break;
            };
            change ^= *known_change;
            flips = std::array::from_fn(|word| flips[word] ^ known_flips[word]);
        }
    }
    let mut block = seed;
    let mut to_change = unmet(&block) ^ broken.map_or(0, |at| 1 << at);
    while to_change != 0 {
        let (change, flips) = owners[to_change.trailing_zeros() as usize].unwrap();
        to_change ^= change;
        block = std::array::from_fn(|word| block[word] ^ flips[word]);
    }
    block
}

#[test]
fn a_vector_is_left_exactly_where_all_its_conditions_are_met() {
    let by_the_table = |block: &[u32; 16]| {
        let words = expand(block);
        let unmet = CONDITIONS.iter().filter(|condition| !meets(condition, &words));
        !unmet.fold(0, |set, condition| set | condition.vectors)
    };
    let mut numbers = numbers();
    for vector in 0..VECTORS.len() {
        let conditions = conditions_of(vector);
        let block = block_that_meets(&conditions, None, numbers.words());
        assert!(vectors_left(&block, vector % LANES) & 1 << vector != 0);
        for broken in 0..conditions.len() {
            let block = block_that_meets(&conditions, Some(broken), numbers.words());
            let left = vectors_left(&block, broken % LANES);
            assert!(left & 1 << vector == 0, "{vector} {broken}");
            assert_eq!(left, by_the_table(&block));
        }
    }
    for lane in (0..LANES).cycle().take(2000) {
        let block = numbers.words();
        assert_eq!(vectors_left(&block, lane), by_the_table(&block));
    }
}

/// The sums were taken over the bit relations and message differences that `sha1-checked` 0.10.0 has.
#[test]
fn conditions_and_differences_are_those_published() {
    let mut rows: Vec<_> =
        CONDITIONS.iter().map(|row| (row.one, row.other, row.differ, row.vectors)).collect();
    rows.sort_unstable();
    let mut sum = crc32fast::Hasher::new();
    for ((one, one_bit), (other, other_bit), differ, vectors) in rows {
        sum.update(&[one as u8, one_bit as u8, other as u8, other_bit as u8, u8::from(differ)]);
        sum.update(&vectors.to_be_bytes());
    }
    assert_eq!(sum.finalize(), 0xfb73_a51d);

    let mut sum = crc32fast::Hasher::new();
    for word in VECTORS.iter().flat_map(|vector| vector.differences()) {
        sum.update(&word.to_be_bytes());
    }
    assert_eq!(sum.finalize(), 0x493c_d995);
}

#[test]
#[ignore = "a measurement: run it alone, with --release and --nocapture"]
fn how_fast_it_is() {
    let random = numbers().bytes(4 * 1024 * 1024);
    let text: Vec<u8> = include_str!("tests.rs").bytes().cycle().take(random.len()).collect();
    let mut out = std::io::stdout();
    for (content, data) in [("random", random), ("text", text)] {
        let closely = blocks_of(&data).iter().filter(|(block, ..)| vectors_left(block, 0) != 0).count();
        writeln!(
            out,
            "{content}: {:.2} % of blocks need their twin",
            closely as f64 * 6400.0 / data.len() as f64
        )
        .unwrap();
        let mut measure = |name: &str, hash: &dyn Fn()| {
            let times = (0..30).map(|_| {
                let start = Instant::now();
                hash();
                start.elapsed()
            });
            let seconds = times.min().unwrap().as_secs_f64();
            writeln!(out, "{content}, {name}: {:.0} MB/s", data.len() as f64 / 1e6 / seconds).unwrap();
        };
        measure("this", &|| assert!(!ours(&[&data]).attacked));
        measure("sha1-checked", &|| assert!(!theirs(&data).attacked));
        measure("sha1, no detection", &|| assert!(::sha1::Sha1::digest(&data)[..] != [0; 20]));
    }
}
