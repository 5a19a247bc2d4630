//! Bytes out of packs of our own and of git's making, and out of damaged ones.

mod encrypted;

use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::git::pack::{ObjectKind, PackWriter, Sync, hash_object};

struct World {
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { scratch: tempfile::tempdir().unwrap() };
        world.git(&["init", "-q", "--bare", "."]);
        world
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.scratch.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn packed(&self, blobs: &[&[u8]]) -> (Vec<Oid>, PathBuf) {
        let writer = PackWriter::create(&self.scratch.path().join("objects/pack")).unwrap();
        for blob in blobs {
            writer.add(ObjectKind::Blob, blob).unwrap();
        }
        let finished = writer.finish(Sync::Relaxed, &Progress::new()).unwrap().unwrap();
        let installed = finished.install().unwrap();
        let ids = blobs.iter().map(|blob| hash_object(ObjectKind::Blob, blob).unwrap()).collect();
        (ids, installed.path)
    }

    fn read(&self, id: Oid) -> std::result::Result<(Vec<u8>, Proof), String> {
        let contents = Contents::open(self.scratch.path()).unwrap();
        let mut reader = contents.reader();
        let found = reader.find(id).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let proof = reader.stream(&found, &Progress::new(), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        match proof {
            Ok(proof) => Ok((bytes, proof)),
            Err(Trouble::Object(error) | Trouble::Elsewhere(error)) => Err(error.to_string()),
        }
    }
}

#[test]
fn contents_of_every_size_come_out_as_they_went_in_with_both_proofs() {
    let world = World::new();
    let large: Vec<u8> =
        (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let sizes: Vec<&[u8]> = vec![b"", b"x", &large[..1_048_576], &large[..1_048_577], &large];
    let (ids, _) = world.packed(&sizes);
    for (id, expected) in ids.iter().zip(sizes) {
        let (bytes, proof) = world.read(*id).unwrap();
        assert!(bytes == expected, "{} bytes", expected.len());
        assert_eq!(proof.blake3, *blake3::hash(expected).as_bytes());
        assert_eq!(proof.size, expected.len() as u64);
    }
}

#[test]
fn loose_objects_and_deltas_are_read_as_well() {
    let world = World::new();
    let mut text: Vec<u8> = (0..4000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let mut ids = Vec::new();
    for number in 0..4 {
        text.extend_from_slice(format!("one more {number}\n").as_bytes());
        std::fs::write(world.scratch.path().join("f"), &text).unwrap();
        ids.push((world.git(&["hash-object", "-w", "f"]), text.clone()));
    }
    let check = || {
        for (id, expected) in &ids {
            assert!(world.read(id.parse().unwrap()).unwrap().0 == *expected);
        }
    };
    check();
    world.git(&["-c", "pack.window=10", "repack", "-a", "-d", "-f", "-q", "-k"]);
    check();
}

#[test]
fn damaged_and_missing_contents_are_named_and_never_given_as_good() {
    let world = World::new();
    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (ids, pack) = world.packed(&[b"small content", &content]);
    let whole = std::fs::read(&pack).unwrap();
    let mut permissions = std::fs::metadata(&pack).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&pack, permissions).unwrap();
    for at in (14..whole.len() - 20).step_by(whole.len() / 23) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        std::fs::write(&pack, &flipped).unwrap();
        let results: Vec<bool> = ids.iter().map(|id| world.read(*id).is_ok()).collect();
        assert!(results.contains(&false), "a flip at {at} was not seen");
    }
    std::fs::write(&pack, &whole).unwrap();
    let missing = world.read(Oid::from_bytes(&[7; 20]).unwrap()).unwrap_err();
    assert!(missing.contains("missing"), "{missing}");
}

#[test]
fn a_tree_is_no_files_content() {
    let world = World::new();
    let tree = world.git(&["mktree"]);
    assert!(world.read(tree.parse().unwrap()).unwrap_err().contains("no file's content"));
    world.git(&["repack", "-a", "-d", "-q", "-k"]);
}

#[test]
fn a_loose_object_that_is_not_what_its_name_says_ends_in_an_error() {
    let world = World::new();
    let written = |content: &[u8]| {
        std::fs::write(world.scratch.path().join("f"), content).unwrap();
        let name = world.git(&["hash-object", "-w", "f"]);
        let place = world.scratch.path().join("objects").join(&name[..2]).join(&name[2..]);
        (name.parse::<Oid>().unwrap(), place)
    };
    let large = vec![7; 3_000_000];
    let (id, place) = written(&large);
    assert!(world.read(id).unwrap().0 == large);
    let whole = std::fs::read(&place).unwrap();
    std::fs::remove_file(&place).unwrap();
    std::fs::write(&place, &whole[..whole.len() / 2]).unwrap();
    assert!(world.read(id).unwrap_err().contains("inflate"));

    let ((right, at), (_, other)) = (written(b"right"), written(b"wrong"));
    std::fs::remove_file(&at).unwrap();
    std::fs::copy(other, &at).unwrap();
    let error = world.read(right).unwrap_err();
    assert!(error.contains("another object"), "{error}");
    for garbage in [&b""[..], b"not zlib at all"] {
        std::fs::remove_file(&at).unwrap();
        std::fs::write(&at, garbage).unwrap();
        assert!(world.read(right).is_err());
    }
}

#[test]
fn what_is_elsewhere_is_believed_only_where_something_is_said_of_it() {
    let world = World::new();
    let (ids, _) = world.packed(&[b"here"]);
    let contents = Contents::open(world.scratch.path()).unwrap();
    let mut reader = contents.reader();
    let missing = Oid::from_bytes(&[7; 20]).unwrap();
    assert_eq!(reader.find_or_believe(ids[0], Some(99)).unwrap().size, 4);
    assert_eq!(reader.find_or_believe(missing, Some(99)).unwrap().size, 99);
    assert!(reader.find_or_believe(missing, None).is_err());
}

#[test]
fn bytes_that_are_not_as_expected_are_looked_at_again_and_wrong_ones_are_an_error_either_way() {
    let world = World::new();
    let large: Vec<u8> = (0..900_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (ids, pack) = world.packed(&[b"small content", &large]);
    let read = |id: Oid, expected: Option<[u8; 32]>| {
        let contents = Contents::open(world.scratch.path()).unwrap();
        let mut reader = contents.reader();
        let found = reader.find(id).unwrap();
        let mut taken = 0;
        let proof = reader.stream_expecting(&found, expected, &Progress::new(), &mut |piece| {
            taken += piece.len();
            Ok(())
        });
        proof.map(|proof| (proof, taken))
    };
    for (id, content) in ids.iter().zip([&b"small content"[..], &large]) {
        let right = *blake3::hash(content).as_bytes();
        for expected in [None, Some(right), Some([0; 32])] {
            let (proof, taken) = read(*id, expected).unwrap();
            assert_eq!((proof.blake3, taken), (right, content.len()), "the sink sees everything once");
        }
    }
    // The whole of another object under that name: its CRC and its own name are right.
    let index = pack.with_extension("idx");
    let mut swapped = std::fs::read(&index).unwrap();
    let crcs = 8 + 1024 + 2 * 20;
    for (at, length) in [(crcs, 4), (crcs + 8, 4)] {
        let (one, other) = swapped[at..at + 2 * length].split_at_mut(length);
        one.swap_with_slice(other);
    }
    std::fs::remove_file(&index).unwrap();
    std::fs::write(&index, swapped).unwrap();
    let other = *blake3::hash(&large).as_bytes();
    for expected in [None, Some(other), Some([0; 32])] {
        let Err(Trouble::Object(error)) = read(ids[0], expected) else { panic!("it was taken for sound") };
        assert!(error.to_string().contains("another object"), "{error}");
    }
}
