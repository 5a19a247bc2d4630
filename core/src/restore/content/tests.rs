//! Bytes out of packs of our own and of git's making, and out of damaged ones.

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
fn what_stands_in_for_a_file_is_told_unless_the_checksum_says_that_it_is_the_file() {
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n", "0".repeat(64));
    let mut record = crate::restore::tests::record(b"f", crate::beneath::EntryKind::File);
    for bytes in [pointer.as_bytes(), b"\0GITCRYPT\0and so on"] {
        let proof = Proof { blake3: [0; 32], size: bytes.len() as u64, beginning: bytes.to_vec() };
        assert!(stands_in(&proof, None, false).is_some());
        record.size = Some(bytes.len() as u64);
        assert!(stands_in(&proof, Some(&record), false).is_some(), "a size alone proves nothing");
        assert_eq!(stands_in(&proof, Some(&record), true), None, "the user's own file that looks like one");
    }
    let plain = Proof { blake3: [0; 32], size: 5, beginning: b"plain".to_vec() };
    assert_eq!(stands_in(&plain, None, false), None);
}
