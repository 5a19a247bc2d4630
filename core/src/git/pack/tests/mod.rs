//! Packs against the real Git: what we write it must accept, what it writes we must read, and neither may
//! disagree with the other by a byte.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git2::Oid;

use super::*;
use crate::progress::Progress;

mod damage;
mod outgoing;
mod places;
mod reading;
mod writing;

/// A bare repository in a temporary directory, and the real `git` to judge it.
pub(super) struct Repository {
    directory: tempfile::TempDir,
}

impl Repository {
    pub(super) fn new() -> Self {
        let repository = Self { directory: tempfile::tempdir().unwrap() };
        repository.git(&["init", "--quiet", "--bare", "."], b"");
        repository
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn pack_dir(&self) -> PathBuf {
        self.directory.path().join("objects/pack")
    }

    /// Runs `git`, which must succeed; its standard output.
    pub(super) fn git(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        self.try_git(arguments, input).unwrap_or_else(|error| panic!("git {arguments:?}: {error}"))
    }

    pub(super) fn try_git(&self, arguments: &[&str], input: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut child = Command::new("git")
            .args(arguments)
            .current_dir(self.directory.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("GIT_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().unwrap()
        });
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Asserts by `git cat-file --batch` that every object is there with its kind and bytes.
    pub(super) fn assert_holds(&self, objects: &BTreeMap<Oid, (ObjectKind, Vec<u8>)>) {
        let mut names = Vec::new();
        let mut expected = Vec::new();
        for (oid, (kind, data)) in objects {
            writeln!(names, "{oid}").unwrap();
            writeln!(expected, "{oid} {} {}", kind.as_str(), data.len()).unwrap();
            expected.extend_from_slice(data);
            expected.push(b'\n');
        }
        // Not `assert_eq!`: nobody wants to read megabytes of difference.
        assert!(self.git(&["cat-file", "--batch"], &names) == expected, "git gives other bytes back");
    }

    /// What `git verify-pack -v` says of every object: name, inflated size, stored size, offset, base.
    pub(super) fn verify_pack(&self, pack: &Path) -> Vec<(Oid, u64, u64, u64, Option<Oid>)> {
        let text = String::from_utf8(self.git(&["verify-pack", "-v", pack.to_str().unwrap()], b"")).unwrap();
        let mut objects: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| matches!(words.get(1).copied(), Some("blob" | "tree" | "commit" | "tag")))
            .map(|words| {
                let number = |at: usize| words[at].parse().unwrap();
                let base = words.get(6).map(|base| base.parse().unwrap());
                (words[0].parse().unwrap(), number(2), number(3), number(4), base)
            })
            .collect();
        objects.sort_unstable_by_key(|object| object.3);
        objects
    }

    /// The names of all files in the pack directory.
    pub(super) fn pack_files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.pack_dir())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// What our reader says of every object, in the form of [`Repository::verify_pack`].
pub(super) fn listed(reader: &PackReader) -> Vec<(Oid, u64, u64, u64, Option<Oid>)> {
    reader
        .entries()
        .unwrap()
        .map(|item| {
            let (oid, entry) = item.unwrap();
            assert_eq!(reader.entry(&oid).unwrap(), Some(entry));
            let stored = entry.header_len + entry.compressed_len;
            (oid, entry.size, stored, entry.offset, reader.base_oid(&entry).unwrap())
        })
        .collect()
}

/// Bytes that follow from `seed`: of sixteen letters, or such that no compressor finds anything in them.
pub(super) fn content(seed: u64, length: usize, compressible: bool) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    if compressible {
        bytes.iter_mut().for_each(|byte| *byte = b"etaoin shrdlu\n(;"[usize::from(*byte & 15)]);
    }
    bytes
}

/// A tree of files named by number.
pub(super) fn tree_of(blobs: &[Oid]) -> Vec<u8> {
    let mut tree = Vec::new();
    for (number, blob) in blobs.iter().enumerate() {
        write!(tree, "100644 {number:08}\0").unwrap();
        tree.extend_from_slice(blob.as_bytes());
    }
    tree
}

pub(super) fn finished(writer: PackWriter) -> FinishedPack {
    writer.finish(Sync::Relaxed, &Progress::new()).unwrap().expect("a pack with objects")
}

/// Puts `blobs` into one installed pack.
pub(super) fn pack_of(repository: &Repository, blobs: &[Vec<u8>]) -> InstalledPack {
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    for blob in blobs {
        writer.add(ObjectKind::Blob, blob).unwrap();
    }
    finished(writer).install().unwrap()
}
