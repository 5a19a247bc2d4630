//! Reading packs that the real Git made, and moving their entries into ours.

use super::*;
use crate::error::Kind;
use crate::git::housekeeping::{Policy, merge_small_packs};

/// A repository with a history of similar files, repacked by Git into one pack of whole objects and deltas.
/// Its deltas name their base by offset or, if `by_name`, by name.
pub(super) fn repacked(by_name: bool) -> (Repository, PathBuf) {
    let repository = Repository::new();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let mut parent = String::new();
    for version in 0..12u64 {
        let blobs: Vec<Oid> = (0..6u64)
            .map(|file| {
                let mut text = content(file, 6000, true);
                for edit in 0..=version {
                    let at = (edit * 431 + file * 57) as usize % 5000;
                    text.splice(at..at + 10, content(edit * 100 + file, 25, true));
                }
                writer.add(ObjectKind::Blob, &text).unwrap()
            })
            .collect();
        let tree = writer.add(ObjectKind::Tree, &tree_of(&blobs)).unwrap();
        let commit =
            format!("tree {tree}\n{parent}author A <a@b> {version} +0000\ncommitter A <a@b> 0 +0000\n\nx\n");
        let commit = writer.add(ObjectKind::Commit, commit.as_bytes()).unwrap();
        parent = format!("parent {commit}\n");
    }
    finished(writer).install().unwrap();
    let head = parent.trim().trim_start_matches("parent ");
    repository.git(&["update-ref", "refs/heads/main", head], b"");
    let tag = format!("object {head}\ntype commit\ntag v1\ntagger A <a@b> 0 +0000\n\nx\n");
    let tag = repository.git(&["hash-object", "-t", "tag", "-w", "--stdin"], tag.as_bytes());
    repository.git(&["update-ref", "refs/tags/v1", String::from_utf8(tag).unwrap().trim()], b"");
    let offsets = format!("repack.useDeltaBaseOffset={}", !by_name);
    repository.git(&["-c", &offsets, "repack", "-adfq", "--depth=20"], b"");
    let pack = repository.pack_files().into_iter().find(|name| name.ends_with(".pack")).unwrap();
    let path = repository.pack_dir().join(pack);
    (repository, path)
}

/// Every object of a repository as Git gives it.
pub(super) fn all_objects(repository: &Repository) -> BTreeMap<Oid, (ObjectKind, Vec<u8>)> {
    let odb = git2::Repository::open_bare(repository.directory.path()).unwrap();
    let listing = repository.git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"], b"");
    let odb = odb.odb().unwrap();
    String::from_utf8(listing)
        .unwrap()
        .lines()
        .map(|name| {
            let oid: Oid = name.parse().unwrap();
            let object = odb.read(oid).unwrap();
            (oid, (ObjectKind::try_from(object.kind()).unwrap(), object.data().to_vec()))
        })
        .collect()
}

#[test]
fn entries_of_a_pack_made_by_git_are_seen_as_git_sees_them() {
    for by_name in [false, true] {
        let (repository, path) = repacked(by_name);
        let reader = PackReader::open(&path).unwrap();
        reader.verify(&Progress::new()).unwrap();
        let listed = listed(&reader);
        assert_eq!(listed, repository.verify_pack(&path));
        assert!(listed.iter().filter(|object| object.4.is_some()).count() > 30, "Git made hardly any delta");

        let objects = all_objects(&repository);
        assert_eq!(objects.len(), reader.len() as usize);
        for (oid, object) in &objects {
            assert!(reader.contains(oid).unwrap());
            let entry = reader.entry(oid).unwrap().unwrap();
            match entry.kind {
                EntryKind::Whole(kind) => {
                    assert_eq!(kind, object.0);
                    assert!(reader.read_object(oid, u64::MAX).unwrap().as_ref() == Some(object));
                    assert!(reader.read_object(oid, entry.size - 1).is_err());
                }
                EntryKind::OfsDelta { .. } | EntryKind::RefDelta { .. } => {
                    assert_eq!(matches!(entry.kind, EntryKind::RefDelta { .. }), by_name);
                    assert!(reader.read_object(oid, u64::MAX).unwrap_err().to_string().contains("delta"));
                }
            }
        }
        assert_eq!(reader.entry(&Oid::ZERO_SHA1).unwrap(), None);
        assert_eq!(reader.read_object(&Oid::ZERO_SHA1, 1).unwrap(), None);
    }
}

#[test]
fn entries_move_to_another_pack_as_they_are_compressed() {
    for by_name in [false, true] {
        let (from, path) = repacked(by_name);
        let source = PackReader::open(&path).unwrap();
        let to = Repository::new();
        let writer = PackWriter::create(&to.pack_dir()).unwrap();
        // Against the order of the source, so that deltas come before their bases.
        let mut entries: Vec<_> = source.entries().unwrap().map(|item| item.unwrap()).collect();
        entries.reverse();
        for (oid, entry) in &entries {
            assert_eq!(writer.copy_raw(*oid, entry, &source).unwrap(), Copied::Added);
        }
        let installed = finished(writer).install().unwrap();
        to.assert_holds(&all_objects(&from));
        let copied = PackReader::open(&installed.path).unwrap();
        assert_eq!(listed(&copied), to.verify_pack(&installed.path));
        for (oid, entry) in &entries {
            assert_eq!(copied.entry(oid).unwrap().unwrap().compressed_len, entry.compressed_len);
        }
        let packed = std::fs::read(&installed.path).unwrap();
        let judge = Repository::new();
        judge.git(&["index-pack", "--strict", "--stdin"], &packed);
        let their_index = judge.pack_dir().join(installed.path.with_extension("idx").file_name().unwrap());
        assert!(
            std::fs::read(their_index).unwrap()
                == std::fs::read(installed.path.with_extension("idx")).unwrap()
        );
    }
}

#[test]
fn a_delta_whose_base_is_missing_is_not_finished() {
    let (_repository, path) = repacked(false);
    let source = PackReader::open(&path).unwrap();
    let (oid, entry) = source
        .entries()
        .unwrap()
        .map(|item| item.unwrap())
        .find(|(_, entry)| matches!(entry.kind, EntryKind::OfsDelta { .. }))
        .unwrap();
    let to = Repository::new();
    let writer = PackWriter::create(&to.pack_dir()).unwrap();
    assert_eq!(writer.copy_raw(oid, &entry, &source).unwrap(), Copied::Added);
    let base = source.base_oid(&entry).unwrap().unwrap();
    let error = writer.finish(Sync::Relaxed, &Progress::new()).unwrap_err();
    assert!(error.to_string().contains(&base.to_string()), "{error}");
    assert_eq!(to.pack_files(), [""; 0]);
}

/// A pack of two similar blobs of which Git stored the smaller one as a delta of the other.
fn pack_of_two(first: &[u8], second: &[u8]) -> (Repository, PathBuf) {
    let repository = Repository::new();
    let oids = [first, second].map(|data| repository.git(&["hash-object", "-w", "--stdin"], data)).concat();
    let prefix = repository.pack_dir().join("pack");
    repository.git(&["pack-objects", "--quiet", prefix.to_str().unwrap()], &oids);
    let pack = repository.pack_files().into_iter().find(|name| name.ends_with(".pack")).unwrap();
    let path = repository.pack_dir().join(pack);
    (repository, path)
}

#[test]
fn two_packs_that_delta_the_same_objects_both_ways_do_not_make_a_circle() {
    let small = content(3, 9000, true);
    let large = [small.as_slice(), b"tail"].concat();
    let oids = [&small, &large].map(|data| hash_object(ObjectKind::Blob, data).unwrap());
    // Git makes the smaller a delta of the larger. The delta the other way round is made by hand: from 9000
    // bytes to 9004, copy 9000, insert four.
    let (_first, first_path) = pack_of_two(&small, &large);
    let first = PackReader::open(&first_path).unwrap();
    let small_entry = first.entry(&oids[0]).unwrap().unwrap();
    assert_eq!(small_entry.kind, EntryKind::RefDelta { base: oids[1] });

    let mut delta = vec![0xa8, 0x46, 0xac, 0x46, 0xb0, 0x28, 0x23, 4];
    delta.extend_from_slice(b"tail");
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
    let mut append = |kind: &header::HeaderKind, data: &[u8]| {
        header::encode_entry_header(kind, data.len() as u64, &mut pack);
        let mut encoder = flate2::write::ZlibEncoder::new(&mut pack, flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap();
    };
    append(&header::HeaderKind::Whole(ObjectKind::Blob), &small);
    append(&header::HeaderKind::RefDelta { base: oids[0] }, &delta);
    let mut hashing = object::Hashing::new(std::io::sink());
    hashing.write_all(&pack).unwrap();
    pack.extend_from_slice(&hashing.finish().0);
    let other = Repository::new();
    let name = other.git(&["index-pack", "--stdin"], &pack);
    let name = String::from_utf8(name).unwrap().trim().replace('\t', "-");
    let second = PackReader::open(&other.pack_dir().join(name).with_extension("pack")).unwrap();
    let large_entry = second.entry(&oids[1]).unwrap().unwrap();
    assert_eq!(large_entry.kind, EntryKind::RefDelta { base: oids[0] });

    let to = Repository::new();
    let writer = PackWriter::create(&to.pack_dir()).unwrap();
    assert_eq!(writer.copy_raw(oids[0], &small_entry, &first).unwrap(), Copied::Added);
    assert_eq!(writer.copy_raw(oids[1], &large_entry, &second).unwrap(), Copied::Cyclic);
    writer.add(ObjectKind::Blob, &large).unwrap();
    finished(writer).install().unwrap();
    let blob = |data| (ObjectKind::Blob, data);
    let objects = BTreeMap::from([(oids[0], blob(small)), (oids[1], blob(large))]);
    to.assert_holds(&objects);

    let both = Repository::new();
    for pack in [first.path(), second.path()] {
        for path in [pack.to_owned(), pack.with_extension("idx")] {
            std::fs::copy(&path, both.pack_dir().join(path.file_name().unwrap())).unwrap();
        }
    }
    // Of three packs of about one size, none is larger than the two others.
    pack_of(&both, &[content(9, 9000, true)]);
    let opened = crate::git::repository::Repository::open(both.directory.path()).unwrap();
    let policy = Policy { most: 1, reserve: 0, ..Policy::default() };
    let merged = merge_small_packs(&opened, &policy, None, &Progress::new()).unwrap();
    assert_eq!((merged.merged, merged.removed, merged.objects), (3, 3, 3));
    both.assert_holds(&objects);
    both.git(&["fsck", "--full", "--strict"], b"");
}

#[test]
fn a_set_finds_objects_in_all_packs_and_follows_changes() {
    let repository = Repository::new();
    let blobs: Vec<Vec<u8>> = (0..6).map(|seed| content(seed, 1000, true)).collect();
    let oids: Vec<Oid> = blobs.iter().map(|blob| hash_object(ObjectKind::Blob, blob).unwrap()).collect();
    let first = pack_of(&repository, &blobs[..2]);
    let mut set = PackSet::open(&repository.pack_dir()).unwrap();
    assert!(set.contains(&oids[0]).unwrap() && !set.contains(&oids[2]).unwrap());

    let second = pack_of(&repository, &blobs[2..4]);
    assert!(set.find(&oids[2]).unwrap().is_none(), "not before it looks again");
    set.refresh().unwrap();
    for (oid, pack) in oids.iter().zip([&first, &first, &second, &second]) {
        let (reader, entry) = set.find(oid).unwrap().unwrap();
        assert_eq!(reader.path(), pack.path);
        assert_eq!(reader.entry(oid).unwrap(), Some(entry));
    }
    remove_by_name(&repository.pack_dir(), &first.name).unwrap();
    set.refresh().unwrap();
    assert!(!set.contains(&oids[0]).unwrap() && set.contains(&oids[3]).unwrap());
    assert_eq!((set.len(), set.problems().len()), (1, 0));
    assert!(PackSet::open(Path::new("/no/such/directory")).unwrap().is_empty());
}

#[test]
fn a_damaged_pack_does_not_hide_the_others() {
    let repository = Repository::new();
    let blobs: Vec<Vec<u8>> = (0..4).map(|seed| content(seed, 1000, true)).collect();
    let packs: Vec<InstalledPack> =
        blobs.iter().map(|blob| pack_of(&repository, std::slice::from_ref(blob))).collect();
    let index_of = |number: usize| packs[number].path.with_extension("idx");
    std::fs::remove_file(index_of(0)).unwrap();
    std::fs::remove_file(index_of(1)).unwrap();
    std::fs::write(index_of(1), b"\xfftOc\0\0\0\x02").unwrap();
    std::fs::remove_file(&packs[2].path).unwrap();

    let mut set = PackSet::open(&repository.pack_dir()).unwrap();
    let problems: Vec<String> = set.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for pack in &packs[..3] {
        assert!(problems.iter().any(|problem| problem.contains(&pack.name)), "{problems:?}");
    }
    let oid = |number: usize| hash_object(ObjectKind::Blob, &blobs[number]).unwrap();
    assert!(set.contains(&oid(3)).unwrap());
    assert!(!set.contains(&oid(0)).unwrap());

    repository.git(&["index-pack", packs[0].path.to_str().unwrap()], b"");
    set.refresh().unwrap();
    assert!(set.contains(&oid(0)).unwrap());
    assert_eq!(set.problems().len(), 2);
}

#[test]
fn an_index_of_another_pack_is_refused() {
    let repository = Repository::new();
    let first = pack_of(&repository, &[content(1, 100, true)]);
    let second = pack_of(&repository, &[content(2, 100, true)]);
    std::fs::rename(second.path.with_extension("idx"), first.path.with_extension("idx")).unwrap();
    let error = PackReader::open(&first.path).unwrap_err();
    assert_eq!(error.kind(), Kind::Git);
    assert!(error.to_string().contains("another pack") && error.to_string().contains(&first.name), "{error}");
}

/// Descriptors of this process for files below `directory`; those of removed files count.
#[cfg(target_os = "linux")]
fn descriptors_below(directory: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|item| std::fs::read_link(item.unwrap().path()).ok())
        .filter(|target| target.starts_with(directory))
        .count()
}

#[test]
#[cfg(target_os = "linux")]
fn a_set_of_any_number_of_packs_holds_few_descriptors() {
    let repository = Repository::new();
    let blobs: Vec<Vec<u8>> = (0..300).map(|seed| content(seed, 400, true)).collect();
    for blob in &blobs {
        pack_of(&repository, std::slice::from_ref(blob));
    }
    let set = PackSet::open(&repository.pack_dir()).unwrap();
    let directory = repository.pack_dir().canonicalize().unwrap();
    assert_eq!(descriptors_below(&directory), 0);
    let set = &set;
    std::thread::scope(|scope| {
        for half in blobs.chunks(150) {
            scope.spawn(move || {
                for blob in half {
                    let oid = hash_object(ObjectKind::Blob, blob).unwrap();
                    let (pack, _) = set.find(&oid).unwrap().unwrap();
                    assert!(pack.read_object(&oid, 1000).unwrap().unwrap().1 == *blob);
                }
            });
        }
    });
    let held = descriptors_below(&directory);
    assert!((1..=40).contains(&held), "{held} descriptors");
}

#[test]
fn large_indexes_are_opened_as_they_are_asked_and_may_be_gone_by_then() {
    let repository = Repository::new();
    let blobs: Vec<Vec<u8>> = (0..40).map(|seed| content(seed, 400, true)).collect();
    let oids: Vec<Oid> = blobs.iter().map(|blob| hash_object(ObjectKind::Blob, blob).unwrap()).collect();
    let packs: Vec<InstalledPack> =
        blobs.iter().map(|blob| pack_of(&repository, std::slice::from_ref(blob))).collect();
    let set = PackSet::open_within(&repository.pack_dir(), 0).unwrap();
    for oid in &oids {
        assert!(set.contains(oid).unwrap());
        assert_eq!(set.find(oid).unwrap().unwrap().0.len(), 1);
    }
    #[cfg(target_os = "linux")]
    assert!(descriptors_below(&repository.pack_dir().canonicalize().unwrap()) <= 40);
    pack_of(&repository, &blobs[..20]);
    for pack in &packs[..20] {
        remove_by_name(&repository.pack_dir(), &pack.name).unwrap();
    }
    for oid in &oids {
        assert!(set.contains(oid).unwrap());
        assert!(set.find(oid).unwrap().is_some());
    }
    assert!(set.find(&Oid::ZERO_SHA1).unwrap().is_none());
    assert_eq!(set.len(), 21, "it has looked again");
}

#[test]
#[ignore = "a measurement: run it with --ignored --nocapture"]
fn how_long_a_thousand_small_packs_take() {
    let repository = Repository::new();
    for seed in 0..1000 {
        pack_of(&repository, &[content(seed, 300, true), content(seed + 5000, 600, true)]);
    }
    let oid = |seed| hash_object(ObjectKind::Blob, &content(seed, 300, true)).unwrap();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        work();
        println!("{what}: {:?}", start.elapsed());
    };
    let mut set = None;
    timed("open 1000 packs", &mut || set = Some(PackSet::open(&repository.pack_dir()).unwrap()));
    let set = set.unwrap();
    timed("1000 objects that are there", &mut || {
        (0..1000).for_each(|seed| assert!(set.contains(&oid(seed)).unwrap()));
    });
    timed("1000 objects that are not", &mut || {
        (2000..3000).for_each(|seed| assert!(!set.contains(&oid(seed)).unwrap()));
    });
    timed("1000 entries", &mut || {
        (0..1000).for_each(|seed| assert!(set.find(&oid(seed)).unwrap().is_some()))
    });
    #[cfg(target_os = "linux")]
    println!("descriptors: {}", descriptors_below(&repository.pack_dir().canonicalize().unwrap()));
}
