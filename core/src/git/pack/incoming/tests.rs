//! `git index-pack` is the judge of what is sound and of every byte of the index; what it would take in spite of us, and
//! what we have to survive, is written here byte by byte.

use std::path::PathBuf;

use proptest::prelude::*;

use super::super::delta::delta;
use super::super::header::HeaderKind;
use super::super::header::encode_entry_header;
use super::super::object::{Compressor, ObjectKind, hash_object};
use super::*;
use crate::tree::judge::Judge;

/// Takes `pack` in, in pieces of `step` bytes; the index.
fn taken_in(pack: &[u8], step: usize, completeness: Completeness) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let outcome = (|| {
        let mut incoming = IncomingPack::create(directory.path(), completeness)?;
        for piece in pack.chunks(step) {
            incoming.take(piece)?;
        }
        let finished = incoming.finish(Sync::Relaxed, &Progress::new())?;
        let Some(finished) = finished else { return Ok(Vec::new()) };
        let installed = finished.install()?;
        assert!(std::fs::read(&installed.path).unwrap() == pack);
        let index = std::fs::read(installed.path.with_extension("idx")).unwrap();
        std::fs::remove_file(installed.path.with_extension("idx")).unwrap();
        std::fs::remove_file(&installed.path).unwrap();
        Ok(index)
    })();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something is left");
    outcome
}

fn parts(pack: &[u8]) -> Result<Vec<u8>> {
    taken_in(pack, 65_536, Completeness::Parts)
}

/// What git says about it; `None` if it refuses.
fn judged(pack: &[u8]) -> Option<Vec<u8>> {
    let judge = Judge::new();
    let place = judge.path().join("x.pack");
    std::fs::write(&place, pack).unwrap();
    let output = judge.try_git(["index-pack", "x.pack"], b"");
    output.status.success().then(|| std::fs::read(place.with_extension("idx")).unwrap())
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A repository with history, in one pack made by git with these options.
fn pack_of_history(options: &[&str], versions: u64, lines: usize) -> (Judge, Vec<u8>) {
    let judge = Judge::new();
    let mut text: Vec<String> =
        (0..lines).map(|line| format!("line {line} of a file that grows\n")).collect();
    let mut parent = String::new();
    for version in 0..versions {
        for (at, byte) in noise(6, version + 1).into_iter().enumerate() {
            let line = usize::from(byte) * 7 % text.len();
            text[line] = format!("changed in version {version} as number {at}\n");
        }
        let mut listing = Vec::new();
        for file in 0..30 {
            let content = format!("{file}\n{}", text[file.min(lines)..].concat());
            let content = if file % 10 == version as usize % 10 { content } else { format!("{file}\n") };
            let id = judge.write_blob(content.as_bytes());
            listing.extend_from_slice(format!("100644 blob {id}\tfile-{file:04}\n").as_bytes());
        }
        let tree = String::from_utf8(judge.git_with(["mktree"], &listing)).unwrap();
        let mut arguments = vec!["commit-tree", "-m", "x", tree.trim()];
        if !parent.is_empty() {
            arguments.extend(["-p", &parent]);
        }
        let commit = String::from_utf8(judge.git(arguments)).unwrap().trim().to_owned();
        parent = commit;
    }
    judge.git(["update-ref", "refs/heads/main", &parent]);
    judge.git(["tag", "-a", "-m", "a tag", "v1", &parent]);
    judge.git([&["repack", "-adfq"], options].concat());
    let pack = only_pack(&judge);
    (judge, pack)
}

fn only_pack(judge: &Judge) -> Vec<u8> {
    let mut packs: Vec<PathBuf> = std::fs::read_dir(judge.path().join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pack"))
        .collect();
    assert_eq!(packs.len(), 1);
    std::fs::read(packs.remove(0)).unwrap()
}

/// A pack in the making, entry by entry.
struct Forged {
    bytes: Vec<u8>,
    count: u32,
    compressor: Compressor,
}

impl Forged {
    fn new() -> Self {
        Self { bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(), count: 0, compressor: Compressor::new() }
    }

    /// Adds an entry that inflates to `data`; where it begins.
    fn add(&mut self, kind: HeaderKind, data: &[u8]) -> u64 {
        let at = self.bytes.len() as u64;
        self.bytes.extend(self.compressor.entry(&kind, data).unwrap());
        self.count += 1;
        at
    }

    fn blob(&mut self, data: &[u8]) -> (u64, Oid) {
        let at = self.add(HeaderKind::Whole(ObjectKind::Blob), data);
        (at, hash_object(ObjectKind::Blob, data).unwrap())
    }

    fn on_place(&mut self, base_at: u64, data: &[u8]) -> u64 {
        let distance = self.bytes.len() as u64 - base_at;
        self.add(HeaderKind::OfsDelta { distance }, data)
    }

    /// Adds an entry whose header says another size than its bytes have.
    fn lying(&mut self, kind: ObjectKind, size: u64, data: &[u8]) {
        let entry = self.compressor.entry(&HeaderKind::Whole(kind), data).unwrap();
        let mut header = Vec::new();
        encode_entry_header(&HeaderKind::Whole(kind), data.len() as u64, &mut header);
        let deflated = &entry[header.len()..];
        header.clear();
        encode_entry_header(&HeaderKind::Whole(kind), size, &mut header);
        self.bytes.extend(header);
        self.bytes.extend_from_slice(deflated);
        self.count += 1;
    }

    fn whole(self) -> Vec<u8> {
        let count = self.count;
        self.announcing(count)
    }

    fn announcing(mut self, count: u32) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&count.to_be_bytes());
        sealed(self.bytes)
    }
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum: [u8; 20] = sha1::Sha1::digest(&bytes).into();
    bytes.extend(checksum);
    bytes
}

fn refused(pack: &[u8], word: &str) {
    for step in [1, 7, 65_536] {
        let error = taken_in(pack, step, Completeness::Parts).unwrap_err();
        assert_eq!(error.kind(), Kind::Git, "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[test]
fn the_index_of_any_history_is_that_of_git_whatever_the_pieces() {
    for (options, versions, lines) in [
        (&["--depth=50", "--window=10"][..], 25, 400),
        (&["--depth=250", "--window=50"], 60, 100),
        (&["--depth=1", "--window=5"], 8, 50),
        (&["--depth=0", "--window=0"], 5, 2000),
    ] {
        let (judge, pack) = pack_of_history(options, versions, lines);
        let expected = judged(&pack).unwrap();
        for step in [1, 13, 4096, usize::MAX] {
            assert!(taken_in(&pack, step, Completeness::Closed).unwrap() == expected, "{options:?} {step}");
        }
        // The same with bases by name.
        let all = judge.git(["rev-list", "--all", "--objects", "--no-object-names"]);
        let pack =
            judge.git_with(["pack-objects", "--stdout", "-q", "--no-reuse-delta", "--window=20"], &all);
        assert!(
            taken_in(&pack, 1000, Completeness::Closed).unwrap() == judged(&pack).unwrap(),
            "{options:?}"
        );
    }
}

#[test]
fn objects_of_every_size_are_named_as_git_names_them() {
    let mut forged = Forged::new();
    let sizes = [0, 1, 1_048_575, 4095, 1_044_480, 1_044_481, 1_048_576, 1_048_577, 3_500_000, 2, 0xf_ffff];
    for (seed, size) in (1..).zip(sizes) {
        let mut data = noise(size, seed);
        // No two are the same, not even of the smallest.
        data.iter_mut().take(1).for_each(|byte| *byte = seed as u8);
        forged.blob(&data);
    }
    let tree: Vec<u8> =
        (0..60_000).flat_map(|n| [format!("100644 {n:08}\0").as_bytes(), &[1; 20]].concat()).collect();
    forged.add(HeaderKind::Whole(ObjectKind::Tree), &tree);
    let pack = forged.whole();
    let expected = judged(&pack).unwrap();
    for step in [100, 65_536, usize::MAX] {
        assert!(taken_in(&pack, step, Completeness::Parts).unwrap() == expected, "{step}");
    }
}

#[test]
fn deltas_by_name_may_stand_before_their_bases_and_on_top_of_each_other() {
    let versions: Vec<Vec<u8>> =
        (0..40).map(|n| [noise(3000, 1), noise(n * 10, n as u64 + 5)].concat()).collect();
    let mut forged = Forged::new();
    for pair in versions.windows(2).rev() {
        let base = hash_object(ObjectKind::Blob, &pair[0]).unwrap();
        forged.add(HeaderKind::RefDelta { base }, &delta(&pair[0], &pair[1], usize::MAX).unwrap());
    }
    let (at, _) = forged.blob(&versions[0]);
    forged.on_place(at, &delta(&versions[0], b"another one", usize::MAX).unwrap());
    let pack = forged.whole();
    assert!(parts(&pack).unwrap() == judged(&pack).unwrap());
}

#[test]
fn what_had_to_make_room_is_made_again() {
    // Every object of the chain has another child that is made after the chain: more than is kept.
    let mut forged = Forged::new();
    let mut former = vec![0; 5 * 1024 * 1024];
    let (mut at, _) = forged.blob(&former);
    for number in 0..12u8 {
        let mut side = former.clone();
        side[100] = number + 1;
        forged.on_place(at, &delta(&former, &side, usize::MAX).unwrap());
        let mut next = former.clone();
        next[200 + usize::from(number)] = 9;
        at = forged.on_place(at, &delta(&former, &next, usize::MAX).unwrap());
        former = next;
    }
    let pack = forged.whole();
    assert!(parts(&pack).unwrap() == judged(&pack).unwrap());
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed_and_leaves_nothing() {
    let (_, pack) = pack_of_history(&["--depth=20"], 4, 12);
    for length in 0..pack.len() {
        assert!(parts(&pack[..length]).is_err(), "{length} of {}", pack.len());
    }
    for at in 0..pack.len() {
        let mut flipped = pack.clone();
        flipped[at] ^= 1 << (at % 8);
        if at == 7 {
            // Version 3 is read like version 2.
            flipped[at] = 4;
        }
        assert!(parts(&flipped).is_err(), "{at}");
        // With a checksum that fits, too: what is taken is what git takes.
        let body = flipped.len() - 20;
        let resealed = sealed(flipped[..body].to_vec());
        if let Ok(index) = parts(&resealed) {
            assert!(Some(index) == judged(&resealed), "{at}");
        }
    }
    refused(&[pack.as_slice(), b"x"].concat(), "more than the objects");
    refused(b"", "within its header");
    refused(b"GIF89a, which is no pack", "does not begin");
    refused(&pack[..pack.len() - 1], "ends early");
}

#[test]
fn counts_and_sizes_that_lie_are_told() {
    let two = || {
        let mut forged = Forged::new();
        forged.blob(b"one");
        forged.blob(b"two");
        forged
    };
    assert!(parts(&two().whole()).is_ok());
    refused(&two().announcing(1), "more than the objects");
    assert!(parts(&two().announcing(3)).is_err());
    assert!(parts(&two().announcing(u32::MAX)).is_err());
    for (size, word) in
        [(4, "more than its header"), (6, "less than its header"), (1 << 60, "less than its header")]
    {
        let mut forged = Forged::new();
        forged.lying(ObjectKind::Blob, size, b"fives");
        refused(&forged.whole(), word);
    }
    // Nothing at all: git has no use for it, and neither have we.
    assert!(parts(&Forged::new().whole()).unwrap().is_empty());
}

#[test]
fn a_bomb_is_refused_at_the_size_that_it_announces() {
    let mut forged = Forged::new();
    forged.lying(ObjectKind::Blob, 10, &vec![0; 64 * 1024 * 1024]);
    refused(&forged.whole(), "more than its header");
    // Instructions that make half a gigabyte and a byte.
    let mut forged = Forged::new();
    let (at, _) = forged.blob(&[0; 0x1_0000]);
    let mut instructions = vec![0x80, 0x80, 0x04, 0x81, 0x80, 0x80, 0x80, 0x02];
    instructions.extend([0x80; 8192]);
    forged.on_place(at, &instructions);
    refused(&forged.whole(), "held in memory");
}

#[test]
fn bases_that_are_not_there_are_told() {
    let some = Oid::from_str(&"12".repeat(20)).unwrap();
    let instructions = delta(b"base", b"bass", usize::MAX).unwrap();
    let mut forged = Forged::new();
    forged.add(HeaderKind::RefDelta { base: some }, &instructions);
    refused(&forged.whole(), &some.to_string());

    for distance in [0, 1, 5, 12, 1 << 40, u64::MAX] {
        let mut forged = Forged::new();
        forged.blob(b"base");
        forged.add(HeaderKind::OfsDelta { distance }, &instructions);
        refused(&forged.whole(), "does not stand before it");
    }
    // Two that rest on each other: what one makes is named by the other.
    let (one, other) = (b"a first content", b"a second content");
    let name = |data: &[u8]| hash_object(ObjectKind::Blob, data).unwrap();
    let mut forged = Forged::new();
    forged.blob(b"something else");
    forged.add(HeaderKind::RefDelta { base: name(other) }, &delta(other, one, usize::MAX).unwrap());
    forged.add(HeaderKind::RefDelta { base: name(one) }, &delta(one, other, usize::MAX).unwrap());
    let pack = forged.whole();
    refused(&pack, "rests on itself");
    assert_eq!(judged(&pack), None);
}

#[test]
fn deltas_that_lie_are_told_with_their_place() {
    for (instructions, word) in [
        (&[4, 9, 1, b'x'][..], "less than it announces"),
        (&[4, 1, 2, b'x', b'y'], "more than it announces"),
        (&[5, 1, 1, b'x'], "another size"),
        (&[4, 200, 1, 0x91, 3, 200], "beyond its base"),
        (&[4, 1, 0], "does not know"),
        (&[], "cut short"),
    ] {
        let mut forged = Forged::new();
        let (at, _) = forged.blob(b"base");
        let place = forged.on_place(at, instructions);
        let pack = forged.whole();
        refused(&pack, word);
        refused(&pack, &format!("at byte {place}"));
        assert_eq!(judged(&pack), None);
    }
}

#[test]
fn an_object_that_comes_twice_is_refused_also_where_others_are_made_from_it() {
    let mut forged = Forged::new();
    forged.blob(b"the same");
    forged.blob(b"the same");
    refused(&forged.whole(), "a second time");

    let mut forged = Forged::new();
    let (_, name) = forged.blob(b"the same");
    forged.blob(b"the same");
    for other in [&b"made from it"[..], b"made from it, too"] {
        forged.add(HeaderKind::RefDelta { base: name }, &delta(b"the same", other, usize::MAX).unwrap());
    }
    refused(&forged.whole(), "a second time");
}

#[test]
fn chains_that_no_git_makes_are_refused() {
    let chain = |length: u32| {
        let mut forged = Forged::new();
        let (mut at, _) = forged.blob(&0u32.to_be_bytes());
        for number in 1..=length {
            let mut instructions = vec![4, 4, 4];
            instructions.extend(number.to_be_bytes());
            at = forged.on_place(at, &instructions);
        }
        forged.whole()
    };
    let pack = chain(4095);
    assert!(parts(&pack).unwrap() == judged(&pack).unwrap());
    let error = parts(&chain(4200)).unwrap_err().to_string();
    assert!(error.contains("rest on each other"), "{error}");
}

#[test]
fn deflated_bytes_that_say_nothing_are_not_held() {
    let mut forged = Forged::new();
    let at = forged.bytes.len() as u64;
    let mut header = Vec::new();
    encode_entry_header(&HeaderKind::Whole(ObjectKind::Blob), 4, &mut header);
    forged.bytes.extend(header);
    // Zlib's header, four million empty stored blocks, and then the content.
    forged.bytes.extend([0x78, 0x01]);
    forged.bytes.extend([0, 0, 0, 0xff, 0xff].repeat(4_000_000));
    forged.bytes.extend([1, 4, 0, 0xfb, 0xff, b'b', b'a', b's', b'e', 0x03, 0xfa, 0x01, 0x9c]);
    let alone = Forged { bytes: forged.bytes.clone(), count: 1, compressor: Compressor::new() }.whole();
    assert!(parts(&alone).unwrap() == judged(&alone).unwrap());
    forged.count = 1;
    forged.on_place(at, &delta(b"base", b"bass", usize::MAX).unwrap());
    let error = parts(&forged.whole()).unwrap_err().to_string();
    assert!(error.contains("much longer"), "{error}");
}

#[test]
fn a_history_that_lacks_something_is_refused_and_parts_are_not() {
    let (judge, _) = pack_of_history(&["--depth=5"], 3, 40);
    let all = String::from_utf8(judge.git(["rev-list", "--all", "--objects", "--no-object-names"])).unwrap();
    let names: Vec<&str> = all.lines().collect();
    let packed = |names: Vec<&str>| {
        judge.git_with(["pack-objects", "--stdout", "-q"], format!("{}\n", names.join("\n")).as_bytes())
    };
    assert!(taken_in(&packed(names.clone()), 4096, Completeness::Closed).is_ok());
    let mut needed = 0;
    for (at, name) in names.iter().enumerate() {
        let others =
            names.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, name)| *name).collect();
        let pack = packed(others);
        assert!(parts(&pack).is_ok());
        match taken_in(&pack, 4096, Completeness::Closed) {
            Err(error) => {
                assert!(error.to_string().contains(name), "{error}");
                needed += 1;
            }
            // Nobody names the tag.
            Ok(_) => assert_eq!(judge.git(["cat-file", "-t", name]), b"tag\n"),
        }
    }
    assert_eq!(needed, names.len() - 1);
}

#[test]
fn a_stop_is_obeyed_and_leaves_nothing() {
    let mut forged = Forged::new();
    let (at, _) = forged.blob(b"base");
    forged.on_place(at, &delta(b"base", b"bass", usize::MAX).unwrap());
    let pack = forged.whole();
    let directory = tempfile::tempdir().unwrap();
    let mut incoming = IncomingPack::create(directory.path(), Completeness::Parts).unwrap();
    incoming.take(&pack).unwrap();
    let progress = Progress::new();
    progress.cancel();
    assert_eq!(incoming.finish(Sync::Relaxed, &progress).unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_packs_are_indexed_as_git_does(
        contents in prop::collection::btree_set(prop::collection::vec(0u8..3, 0..400), 1..30),
        bases in prop::collection::vec((any::<prop::sample::Index>(), 0u8..3), 30),
        step in 1usize..3000,
    ) {
        let mut forged = Forged::new();
        let mut placed: Vec<(u64, Vec<u8>)> = Vec::new();
        for (content, (base, way)) in contents.into_iter().zip(bases) {
            let at = match (way, placed.is_empty()) {
                (0, _) | (_, true) => forged.blob(&content).0,
                (way, _) => {
                    let (base_at, base) = &placed[base.index(placed.len())];
                    let instructions = delta(base, &content, usize::MAX).unwrap();
                    let name = hash_object(ObjectKind::Blob, base).unwrap();
                    match way {
                        1 => forged.on_place(*base_at, &instructions),
                        _ => forged.add(HeaderKind::RefDelta { base: name }, &instructions),
                    }
                }
            };
            placed.push((at, content));
        }
        let pack = forged.whole();
        prop_assert!(taken_in(&pack, step, Completeness::Parts).unwrap() == judged(&pack).unwrap());
    }

    #[test]
    fn any_bytes_end_without_a_panic(
        body in prop::collection::vec(any::<u8>(), 0..300),
        count in 0u32..4,
        step in 1usize..50,
    ) {
        let mut forged = Forged::new();
        forged.bytes.extend(body);
        let pack = forged.announcing(count);
        let _ = taken_in(&pack, step, Completeness::Closed);
    }
}
