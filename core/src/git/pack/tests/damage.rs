//! Flipped and cut files: an error that names the place, never a panic, never wrong content.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::reading::{all_objects, repacked};
use super::*;
use crate::error::Kind;

struct Sample {
    pack: Vec<u8>,
    index: Vec<u8>,
    objects: BTreeMap<Oid, (ObjectKind, Vec<u8>)>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let (repository, path) = repacked(false);
    Sample {
        pack: std::fs::read(&path).unwrap(),
        index: std::fs::read(path.with_extension("idx")).unwrap(),
        objects: all_objects(&repository),
    }
});

/// Writes a pack and its index to a directory, where [`PackReader::open`] finds them.
fn placed(pack: &[u8], index: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pack-x.pack");
    std::fs::write(&path, pack).unwrap();
    std::fs::write(path.with_extension("idx"), index).unwrap();
    (directory, path)
}

/// Asks everything that can be asked. Whatever comes back as an object must be that object.
fn interrogate(reader: &PackReader) {
    let _ = reader.verify(&Progress::new());
    let target = tempfile::tempdir().unwrap();
    let writer = PackWriter::create(target.path()).unwrap();
    let listed: Vec<Oid> =
        reader.entries().into_iter().flatten().filter_map(|item| Some(item.ok()?.0)).collect();
    for oid in SAMPLE.objects.keys().copied().chain(listed) {
        if let Ok(Some(object)) = reader.read_object(&oid, 1 << 20) {
            assert!(SAMPLE.objects.get(&oid) == Some(&object), "{oid} came back wrong");
        }
        let _ = reader.contains(&oid);
        if let Ok(Some(entry)) = reader.entry(&oid) {
            assert!(entry.offset + entry.header_len + entry.compressed_len <= reader.bytes());
            let (objects, bytes) = (writer.object_count(), writer.bytes());
            if writer.copy_raw(oid, &entry, reader).is_err() {
                assert_eq!((writer.object_count(), writer.bytes()), (objects, bytes));
            }
        }
    }
    let _ = writer.finish(Sync::Relaxed, &Progress::new());
}

/// Changes to a file: a byte at a fraction of its length, xor-ed with something.
fn flips() -> impl Strategy<Value = Vec<(f64, u8)>> {
    prop::collection::vec((0.0..1.0f64, 1u8..=255), 0..6)
}

fn flip(bytes: &mut [u8], flips: &[(f64, u8)]) {
    for (at, mask) in flips {
        let at = (bytes.len() as f64 * at) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= mask;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn one_changed_byte_is_noticed_by_verify(at in 0.0..1.0f64, mask in 1u8..=255, in_index in any::<bool>()) {
        let (mut pack, mut index) = (SAMPLE.pack.clone(), SAMPLE.index.clone());
        flip(if in_index { &mut index } else { &mut pack }, &[(at, mask)]);
        let (_directory, path) = placed(&pack, &index);
        let verdict = PackReader::open(&path).and_then(|reader| {
            interrogate(&reader);
            reader.verify(&Progress::new())
        });
        prop_assert_eq!(verdict.unwrap_err().kind(), Kind::Git);
    }

    #[test]
    fn no_damage_makes_a_panic(
        in_pack in flips(),
        in_index in flips(),
        pack_kept in 0.0..3.0f64,
        index_kept in 0.0..3.0f64,
    ) {
        let (mut pack, mut index) = (SAMPLE.pack.clone(), SAMPLE.index.clone());
        flip(&mut pack, &in_pack);
        flip(&mut index, &in_index);
        pack.truncate((SAMPLE.pack.len() as f64 * pack_kept) as usize);
        index.truncate((SAMPLE.index.len() as f64 * index_kept) as usize);
        let (_directory, path) = placed(&pack, &index);
        if let Ok(reader) = PackReader::open(&path) {
            interrogate(&reader);
        }
    }

    #[test]
    fn damage_between_opening_and_reading_makes_no_panic(
        in_pack in flips(),
        in_index in flips(),
        kept in 0.0..2.0f64,
    ) {
        let (_directory, path) = placed(&SAMPLE.pack, &SAMPLE.index);
        let reader = PackReader::open(&path).unwrap();
        let (mut pack, mut index) = (SAMPLE.pack.clone(), SAMPLE.index.clone());
        flip(&mut pack, &in_pack);
        flip(&mut index, &in_index);
        pack.truncate((SAMPLE.pack.len() as f64 * kept) as usize);
        index.truncate((SAMPLE.index.len() as f64 * kept) as usize);
        std::fs::write(&path, &pack).unwrap();
        std::fs::write(path.with_extension("idx"), &index).unwrap();
        interrogate(&reader);
    }
}

#[test]
fn a_copied_entry_that_lost_a_bit_is_named_by_pack_and_offset() {
    let (_directory, path) = placed(&SAMPLE.pack, &SAMPLE.index);
    let reader = PackReader::open(&path).unwrap();
    let target = Repository::new();
    let writer = PackWriter::create(&target.pack_dir()).unwrap();
    let entries: Vec<_> = reader.entries().unwrap().map(|item| item.unwrap()).collect();
    let (oid, entry) = entries[5];
    let mut pack = SAMPLE.pack.clone();
    pack[(entry.offset + entry.header_len + entry.compressed_len / 2) as usize] ^= 4;
    std::fs::write(&path, &pack).unwrap();
    // Of the open one a part is in memory.
    let reader = PackReader::open(&path).unwrap();
    let error = writer.copy_raw(oid, &entry, &reader).unwrap_err();
    assert_eq!(error.kind(), Kind::Git);
    let text = error.to_string();
    assert!(text.contains("pack-x.pack") && text.contains(&format!("offset {}", entry.offset)), "{text}");
    assert_eq!(writer.object_count(), 0);
    drop(writer);
    assert_eq!(target.pack_files(), [""; 0]);
}

#[test]
fn a_hostile_index_cannot_point_outside_its_pack() {
    let small_offsets = SAMPLE.index.len() - 40 - 4 * SAMPLE.objects.len();
    for offset in [0u32, 11, SAMPLE.pack.len() as u32 - 20, 0x7fff_ffff, 0xffff_ffff] {
        let mut index = SAMPLE.index.clone();
        index[small_offsets..small_offsets + 4].copy_from_slice(&offset.to_be_bytes());
        let (_directory, path) = placed(&SAMPLE.pack, &index);
        let reader = PackReader::open(&path).unwrap();
        let first = reader.index().oid(0).unwrap();
        assert_eq!(reader.entry(&first).unwrap_err().kind(), Kind::Git);
        assert!(reader.entries().is_err());
        interrogate(&reader);
    }
    let mut twice = SAMPLE.index.clone();
    twice.copy_within(small_offsets..small_offsets + 4, small_offsets + 4);
    let (_directory, path) = placed(&SAMPLE.pack, &twice);
    assert!(PackReader::open(&path).unwrap().entries().is_err());
}
