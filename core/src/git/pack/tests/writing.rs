//! What the writer makes, judged by `git index-pack`, `verify-pack` and `cat-file`.

use std::io::Read;
use std::panic::AssertUnwindSafe;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

/// Adds `data` in one of the three ways a caller has.
fn add_somehow(writer: &PackWriter, way: usize, kind: ObjectKind, data: &[u8]) -> Oid {
    match (way % 3, kind) {
        (0, ObjectKind::Blob) => {
            let mut observed = Vec::new();
            let mut reader = data;
            let streamed = writer
                .add_stream(data.len() as u64, &mut reader, &Progress::new(), &mut |piece| {
                    observed.extend_from_slice(piece)
                })
                .unwrap();
            assert!(observed == data);
            let Streamed::Stored(oid) = streamed else { panic!("{streamed:?}") };
            oid
        }
        (1, _) => {
            let prepared = prepare(kind, data, &mut Compressor::new()).unwrap();
            assert_eq!((prepared.kind(), prepared.size()), (kind, data.len() as u64));
            writer.add_prepared(&prepared).unwrap();
            prepared.oid()
        }
        _ => writer.add(kind, data).unwrap(),
    }
}

fn object_lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![
        1 => Just(0usize),
        6 => 1usize..200,
        6 => 200usize..20_000,
        1 => 20_000usize..3 * 1024 * 1024,
    ];
    prop::collection::vec(length, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn git_accepts_what_we_write_and_gives_it_back(lengths in object_lengths(), seed in any::<u32>()) {
        let repository = Repository::new();
        let writer = PackWriter::create(&repository.pack_dir()).unwrap();
        let mut objects = BTreeMap::new();
        for (number, length) in lengths.iter().enumerate() {
            let data = content(u64::from(seed) + number as u64, *length, number % 4 != 0);
            let oid = add_somehow(&writer, number, ObjectKind::Blob, &data);
            objects.insert(oid, (ObjectKind::Blob, data));
        }
        let blobs: Vec<Oid> = objects.keys().copied().collect();
        let tree = tree_of(&blobs);
        let tree_oid = add_somehow(&writer, seed as usize, ObjectKind::Tree, &tree);
        objects.insert(tree_oid, (ObjectKind::Tree, tree));
        let commit = format!("tree {tree_oid}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nx\n");
        let commit_oid = add_somehow(&writer, 2, ObjectKind::Commit, commit.as_bytes());
        objects.insert(commit_oid, (ObjectKind::Commit, commit.into_bytes()));
        prop_assert_eq!(writer.object_count(), objects.len());

        let pack = finished(writer);
        prop_assert_eq!(pack.objects() as usize, objects.len());
        let (bytes, name) = (pack.bytes(), pack.name().to_owned());
        let installed = pack.install().unwrap();
        prop_assert!(!installed.was_there);
        prop_assert_eq!(&installed.name, &name);
        let packed = std::fs::read(&installed.path).unwrap();
        prop_assert_eq!(packed.len() as u64, bytes);

        let judge = Repository::new();
        let answer = judge.git(&["index-pack", "--strict", "--stdin"], &packed);
        prop_assert_eq!(String::from_utf8(answer).unwrap(), name.replace('-', "\t") + "\n");
        let their_index = std::fs::read(judge.pack_dir().join(format!("{name}.idx"))).unwrap();
        prop_assert!(their_index == std::fs::read(installed.path.with_extension("idx")).unwrap());

        let reader = PackReader::open(&installed.path).unwrap();
        reader.verify(&Progress::new()).unwrap();
        prop_assert_eq!(listed(&reader), repository.verify_pack(&installed.path));
        for (oid, object) in &objects {
            prop_assert!(reader.read_object(oid, u64::MAX).unwrap().as_ref() == Some(object));
        }
        repository.assert_holds(&objects);
    }
}

#[test]
fn an_object_is_in_a_pack_once() {
    let repository = Repository::new();
    let other = Repository::new();
    let data = content(1, 5000, true);
    let source = PackReader::open(&pack_of(&other, std::slice::from_ref(&data)).path).unwrap();

    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let oid = writer.add(ObjectKind::Blob, &data).unwrap();
    assert!(writer.contains(&oid));
    let bytes = writer.bytes();
    for way in 0..3 {
        assert_eq!(add_somehow(&writer, way, ObjectKind::Blob, &data), oid);
    }
    let prepared = prepare(ObjectKind::Blob, &data, &mut Compressor::new()).unwrap();
    assert!(!writer.add_prepared(&prepared).unwrap());
    let entry = source.entry(&oid).unwrap().unwrap();
    assert_eq!(writer.copy_raw(oid, &entry, &source).unwrap(), Copied::AlreadyThere);
    assert_eq!((writer.object_count(), writer.bytes()), (1, bytes));

    let installed = finished(writer).install().unwrap();
    let packed = std::fs::read(&installed.path).unwrap();
    Repository::new().git(&["index-pack", "--strict", "--stdin"], &packed);
}

#[test]
fn threads_write_into_one_pack() {
    let repository = Repository::new();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let data_of =
        |number: u64| content(number, 100 + (number as usize * 7919) % 30_000, !number.is_multiple_of(3));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let writer = &writer;
            // Neighbours share half of their objects.
            scope.spawn(move || {
                for number in thread * 100..thread * 100 + 200 {
                    add_somehow(writer, (number + thread) as usize, ObjectKind::Blob, &data_of(number));
                }
            });
        }
    });
    assert_eq!(writer.object_count(), 500);
    let installed = finished(writer).install().unwrap();
    let objects = (0..500)
        .map(|number| {
            let data = data_of(number);
            (hash_object(ObjectKind::Blob, &data).unwrap(), (ObjectKind::Blob, data))
        })
        .collect();
    repository.assert_holds(&objects);
    assert_eq!(repository.verify_pack(&installed.path).len(), 500);
}

/// Gives `good` and then fails.
struct FailingReader<'a> {
    good: &'a [u8],
}

impl Read for FailingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.good.is_empty() {
            return Err(std::io::Error::other("the disk has a bad sector"));
        }
        self.good.read(buffer)
    }
}

#[test]
fn a_stream_that_fails_leaves_the_pack_as_it_was() {
    let repository = Repository::new();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let mut objects = BTreeMap::new();
    let add_small = |objects: &mut BTreeMap<_, _>, seed| {
        let data = content(seed, 700, true);
        objects.insert(writer.add(ObjectKind::Blob, &data).unwrap(), (ObjectKind::Blob, data));
    };
    add_small(&mut objects, 0);
    // The small one stays in the writer's buffer, the large ones do not fit it.
    for (round, length) in [(1u64, 10_000usize), (2, 3 * 1024 * 1024 + 17)] {
        let data = content(round, length, false);
        let size = length as u64;
        let before = (writer.bytes(), writer.object_count());
        let stream =
            |size, reader: &mut dyn Read| writer.add_stream(size, reader, &Progress::new(), &mut |_| {});
        for (announced, longer) in [(size + 1, false), (size - 1, true), (0, true), (u64::MAX, false)] {
            let outcome = stream(announced, &mut data.as_slice()).unwrap();
            assert!(matches!(outcome, Streamed::SizeChanged), "{outcome:?}, longer: {longer}");
            assert_eq!((writer.bytes(), writer.object_count()), before);
        }
        let outcome = stream(size, &mut FailingReader { good: &data[..length - 1] }).unwrap();
        assert!(matches!(&outcome, Streamed::ReadFailed(error) if error.to_string().contains("bad sector")));

        let cancelled = Progress::new();
        cancelled.cancel();
        let error = writer.add_stream(size, &mut data.as_slice(), &cancelled, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);

        let mut pieces = 0;
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            writer.add_stream(size, &mut data.as_slice(), &Progress::new(), &mut |_| {
                pieces += 1;
                assert!(pieces < 8 && length > 100_000, "an observer's own bug");
            })
        }));
        assert!(panicked.is_err());

        assert_eq!((writer.bytes(), writer.object_count()), before);
        add_small(&mut objects, round * 100);
        let Streamed::Stored(oid) = stream(size, &mut data.as_slice()).unwrap() else { panic!() };
        objects.insert(oid, (ObjectKind::Blob, data));
        add_small(&mut objects, round * 100 + 1);
    }
    let pack = finished(writer);
    let bytes = pack.bytes();
    let installed = pack.install().unwrap();
    assert_eq!(std::fs::metadata(&installed.path).unwrap().len(), bytes);
    repository.assert_holds(&objects);
    assert_eq!(repository.verify_pack(&installed.path).len(), objects.len());
}

#[cfg(target_os = "linux")]
#[test]
fn after_a_full_disk_the_writer_goes_on_where_it_was() {
    let repository = Repository::new();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let (small, large) = (content(1, 700, true), content(2, 3 * 1024 * 1024, false));
    let first = writer.add(ObjectKind::Blob, &small).unwrap();
    let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let file = writer.redirect(full);
    for way in 0..3 {
        let added = match way {
            0 => writer
                .add_stream(large.len() as u64, &mut large.as_slice(), &Progress::new(), &mut |_| {})
                .map(|_| ()),
            _ => writer.add(ObjectKind::Blob, &large).map(|_| ()),
        };
        assert_eq!(added.unwrap_err().kind(), Kind::DiskFull);
        assert_eq!(writer.object_count(), 1);
    }
    // What a write that came halfway leaves behind.
    file.set_len(20_000_000).unwrap();
    writer.redirect(file);
    let second = writer.add(ObjectKind::Blob, &large).unwrap();
    let installed = finished(writer).install().unwrap();
    let blob = |data| (ObjectKind::Blob, data);
    repository.assert_holds(&BTreeMap::from([(first, blob(small.clone())), (second, blob(large))]));
    assert_eq!(repository.verify_pack(&installed.path).len(), 2);

    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    writer.add(ObjectKind::Blob, &small).unwrap();
    writer.redirect(std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
    assert_eq!(writer.finish(Sync::Durable, &Progress::new()).unwrap_err().kind(), Kind::DiskFull);
    assert_eq!(repository.pack_files().len(), 2, "{:?}", repository.pack_files());
}

#[test]
fn the_large_offset_table_is_the_one_git_writes() {
    let repository = Repository::new();
    let blobs: Vec<Vec<u8>> = (0..40).map(|seed| content(seed, 3000, false)).collect();
    let installed = pack_of(&repository, &blobs);
    let reader = PackReader::open(&installed.path).unwrap();
    let mut entries: Vec<IndexEntry> = reader
        .entries()
        .unwrap()
        .map(|item| {
            item.map(|(oid, entry)| IndexEntry { oid, offset: entry.offset, crc: entry.crc }).unwrap()
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.oid);
    for limit in [0u64, 12, 40_000, 60_001] {
        let mut ours = Vec::new();
        // Git's limit is the last offset that it writes in 31 bits.
        index::write_index(&mut ours, &entries, reader.checksum(), limit + 1).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("their.idx");
        let version = format!("--index-version=2,{limit}");
        let arguments =
            ["index-pack", &version, "-o", theirs.to_str().unwrap(), installed.path.to_str().unwrap()];
        repository.git(&arguments, b"");
        assert!(ours == std::fs::read(&theirs).unwrap(), "limit {limit}");

        std::fs::copy(&installed.path, theirs.with_extension("pack")).unwrap();
        let large = PackReader::open(&theirs).unwrap();
        assert_eq!(listed(&large), listed(&reader));
    }
}

/// Nanoseconds that this thread has run: unlike the clock on the wall, the same on a busy machine.
fn thread_cpu_nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Not a test of anything but time: run it by name, optimised.
#[test]
#[ignore = "a measurement"]
fn measure_throughput_of_two_threads() {
    const FILES: u64 = 20_000;
    let words = [
        "fn ", "let mut ", "self", ".unwrap", "(value", ") {\n", "    ", "return ", "Result<", "// the ",
        ";\n",
    ];
    let files: Vec<Vec<u8>> = (0..FILES)
        .map(|seed| {
            let noise = content(seed, 4000, false);
            let mut text = Vec::new();
            for pair in noise.chunks_exact(2) {
                text.extend_from_slice(words[usize::from(pair[0]) % words.len()].as_bytes());
                if pair[0] > 100 {
                    text.extend_from_slice(format!("{:x}_", pair[1]).as_bytes());
                }
            }
            text
        })
        .collect();
    let bytes: usize = files.iter().map(Vec::len).sum();
    let repository = Repository::new();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let cpu = std::sync::atomic::AtomicU64::new(0);
    let own_before = thread_cpu_nanoseconds();
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for half in files.chunks(files.len() / 2) {
            let (writer, cpu) = (&writer, &cpu);
            scope.spawn(move || {
                let mut compressor = Compressor::new();
                for file in half {
                    writer.add_prepared(&prepare(ObjectKind::Blob, file, &mut compressor).unwrap()).unwrap();
                }
                cpu.fetch_add(thread_cpu_nanoseconds(), std::sync::atomic::Ordering::Relaxed);
            });
        }
    });
    let added = start.elapsed();
    let pack = writer.finish(Sync::Durable, &Progress::new()).unwrap().unwrap();
    let packed = pack.bytes();
    pack.install().unwrap();
    let all = start.elapsed();
    let cpu = cpu.into_inner() + thread_cpu_nanoseconds() - own_before;
    println!(
        "{FILES} files, {} MB in, {} MB out; added in {added:?}, in place in {all:?}: {:.0} MB/s; {:.2} CPU-s",
        bytes / 1_000_000,
        packed / 1_000_000,
        bytes as f64 / 1e6 / all.as_secs_f64(),
        cpu as f64 / 1e9
    );
}
