//! Directory trees: pictures of them to compare, and seeded content and churn to fill them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Random;

/// What Git keeps of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    File { executable: bool, size: u64, hash: String },
    Link(Vec<u8>),
}

/// Files and links by path, the bytes as they are.
pub type Picture = BTreeMap<Vec<u8>, Thing>;

/// Takes a picture of everything below `root` that Git can keep.
pub fn picture(root: &Path, leave_out: impl Fn(&[u8]) -> bool + Copy) -> Picture {
    let mut found = Picture::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let listing = fs::read_dir(root.join(&directory)).unwrap_or_else(|error| {
            panic!("cannot list {}: {error}", root.join(&directory).display());
        });
        for entry in listing {
            let entry = entry.unwrap();
            let relative = directory.join(entry.file_name());
            let bytes = relative.as_os_str().as_bytes().to_vec();
            if leave_out(&bytes) {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                directories.push(relative);
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap().into_os_string().into_vec();
                found.insert(bytes, Thing::Link(target));
            } else if kind.is_file() {
                found.insert(bytes, file(&entry.path()));
            }
        }
    }
    found
}

fn file(path: &Path) -> Thing {
    let mut hasher = blake3::Hasher::new();
    let opened = fs::File::open(path).unwrap();
    let metadata = opened.metadata().unwrap();
    hasher.update_reader(opened).unwrap();
    Thing::File {
        executable: metadata.mode() & 0o100 != 0,
        size: metadata.len(),
        hash: hasher.finalize().to_hex().to_string(),
    }
}

/// The same picture under the names that the files had on disk.
pub fn undo_escapes(stored: &Picture) -> Picture {
    let plain = |component: &[u8]| match component.strip_prefix(b"_bb_") {
        None => component.to_vec(),
        Some(rest) => {
            let replaced = replace(rest, b"%5C", b"\\");
            replace(&replaced, b"%25", b"%")
        }
    };
    let undo = |path: &[u8]| -> Vec<u8> {
        let components: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(plain).collect();
        components.join(&b'/')
    };
    stored.iter().map(|(path, thing)| (undo(path), thing.clone())).collect()
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(from) {
            replaced.extend_from_slice(to);
            rest = after;
        } else {
            replaced.push(*first);
            rest = &rest[1..];
        }
    }
    replaced
}

/// Everything that shows whether somebody wrote to a tree: inodes, modes, owners and change times besides the
/// contents, of directories and special files too.
pub fn fingerprint(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = root.join(&relative);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_file() => format!("{:?}", file(&path)),
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            kind if kind.is_dir() => {
                let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
                pending.extend(names.map(|name| relative.join(name)));
                String::new()
            }
            _ => String::new(),
        };
        let marks = format!(
            "{}:{:o}:{}:{}:{}.{}:{}.{} {content}",
            metadata.ino(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec()
        );
        found.insert(relative.into_os_string().into_vec(), marks);
    }
    found
}

/// Writes a file and the directories above it.
pub fn write(root: &Path, relative: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
    let path = root.join(relative.as_ref());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
}

/// Fills `root` with `files` files of mixed sizes in mixed depths.
pub fn corpus(root: &Path, files: usize, random: &mut Random) {
    for number in 0..files {
        let directory = format!("d{:02}/s{:02}", number % 37, (number / 37) % 29);
        let size = match random.below(100) {
            0..50 => random.below(512),
            50..90 => random.below(8 * 1024),
            90..99 => random.below(64 * 1024),
            _ => random.below(512 * 1024),
        };
        write(root, format!("{directory}/file-{number:06}.dat"), random.bytes(size));
    }
}

/// One random change below `root`: the kinds of things that people and programs do.
pub fn change(root: &Path, random: &mut Random) {
    let name = |random: &mut Random| format!("c{}/f{}", random.below(6), random.below(12));
    let path = root.join(name(random));
    let _ = fs::create_dir_all(path.parent().unwrap());
    let is_directory = path.is_dir();
    match random.below(12) {
        0..4 if !is_directory => {
            let length = random.below(20_000);
            let _ = fs::write(&path, random.bytes(length));
        }
        4..6 if !is_directory => {
            // As editors save: a new file in place of the old one.
            let beside = path.with_extension("new");
            let length = random.below(20_000);
            let _ = fs::write(&beside, random.bytes(length));
            let _ = fs::rename(&beside, &path);
        }
        6 if !is_directory => {
            let _ = fs::remove_file(&path);
            let _ = symlink(format!("target-{}", random.below(100)), &path);
        }
        7 if !is_directory => {
            let _ = fs::remove_file(&path);
            let _ = fs::create_dir(&path);
            let _ = fs::write(path.join("inside"), random.bytes(100));
        }
        8 => {
            let _ = fs::rename(&path, root.join(name(random)));
        }
        9 => {
            let mode = if random.below(2) == 0 { 0o755 } else { 0o644 };
            if !is_directory && !path.is_symlink() && path.exists() {
                let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
            }
        }
        _ if is_directory => {
            let _ = fs::remove_dir_all(&path);
        }
        _ => {
            let _ = fs::remove_file(&path);
        }
    }
}

/// A thread that keeps changing a tree until it is stopped.
pub struct Churn {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    /// Changes something below `root` every `pause`.
    pub fn start(root: &Path, seed: u64, pause: Duration) -> Self {
        let (stop, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (root, ended, counted) = (root.to_owned(), stop.clone(), changes.clone());
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            while !ended.load(Ordering::Relaxed) {
                change(&root, &mut random);
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(pause);
            }
        });
        Self { stop, changes, thread: Some(thread) }
    }

    /// Changes made so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Ends it; after this the tree stands still.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.end();
    }
}
