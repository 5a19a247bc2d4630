//! Random changes, seeded, so that a failure can be run again.
//!
//! A consumer that does what the hints ask for, and no more, must know the tree as it is, whatever two threads do
//! to it meanwhile. And whatever differs between two barriers is covered by the hints between them.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// What a consumer of hints knows of the tree: kind, size and modification time of every entry.
type Mirror = BTreeMap<RelPath, (bool, u64, std::time::SystemTime)>;

fn look(root: &Path, path: &RelPath) -> Option<(bool, u64, std::time::SystemTime)> {
    let metadata = fs::symlink_metadata(root.join(path.as_os_path())).ok()?;
    // A directory's own time changes with each entry, which is the entry's hint.
    let is_dir = metadata.is_dir();
    let time = if is_dir { std::time::UNIX_EPOCH } else { metadata.modified().ok()? };
    Some((is_dir, if is_dir { 0 } else { metadata.len() }, time))
}

fn look_below(root: &Path, directory: &RelPath, mirror: &mut Mirror) {
    let Ok(entries) = fs::read_dir(root.join(directory.as_os_path())) else { return };
    for entry in entries.flatten() {
        let path = directory.join(entry.file_name().as_encoded_bytes());
        let Some(seen) = look(root, &path) else { continue };
        mirror.insert(path.clone(), seen);
        if seen.0 {
            look_below(root, &path, mirror);
        }
    }
}

/// Does what a hint asks for, and no more.
fn obey(root: &Path, hint: &Hint, mirror: &mut Mirror) {
    match hint {
        Hint::Changed(path) => match look(root, path) {
            Some(seen) => {
                mirror.retain(|known, _| {
                    let name = known.as_bytes().get(path.as_bytes().len()..).unwrap_or_default();
                    let name = name.strip_prefix(b"/").unwrap_or(name).split(|byte| *byte == b'/').next();
                    let child = name.filter(|name| !name.is_empty()).map(|name| path.join(name));
                    let is_below = known.is_within(path);
                    !is_below || seen.0 && child.is_none_or(|child| look(root, &child).is_some())
                });
                if !path.is_root() {
                    mirror.insert(path.clone(), seen);
                }
            }
            None => mirror.retain(|known, _| !known.is_within(path)),
        },
        Hint::Deep(path) => {
            mirror.retain(|known, _| !known.is_within(path));
            if let Some(seen) = look(root, path).filter(|_| !path.is_root()) {
                mirror.insert(path.clone(), seen);
            }
            look_below(root, path, mirror);
        }
        Hint::Overflow => obey(root, &Hint::Deep(RelPath::root()), mirror),
        Hint::RootGone | Hint::Barrier(_) => {}
    }
}

/// Pseudo-random, so that a failure can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.roll(4);
        (0..depth).map(|_| ["a", "b", "c"][self.roll(3) as usize]).collect::<Vec<_>>().join("/")
    }
}

/// Makes, writes, moves and deletes at random in `root` and in `outside`; most attempts fail, which is fine.
fn riot(root: &Path, outside: &Path, seed: u64, deeds: u64) {
    let mut dice = Dice(seed);
    for _ in 0..deeds {
        let one = root.join(dice.path());
        let other = root.join(dice.path());
        let away = outside.join(["x", "y"][dice.roll(2) as usize]);
        match dice.roll(12) {
            0..=2 => drop(fs::create_dir_all(&one)),
            3..=5 => drop(fs::write(&one, vec![b'x'; dice.roll(100) as usize])),
            6..=8 => drop(fs::rename(&one, &other)),
            9 => drop(fs::rename(&one, &away)),
            10 => drop(fs::rename(&away, &one)),
            _ => drop(if dice.roll(2) == 0 { fs::remove_dir_all(&one) } else { fs::remove_file(&one) }),
        }
    }
}

pub(super) fn whoever_obeys_the_hints_knows_the_tree_however_wildly_it_changes(suite: &Suite) {
    for seed in 0..8 {
        let mut fixture = suite.start(|_| ());
        let (root, outside) = (fixture.root(), fixture.outside());
        fs::create_dir(&outside).unwrap();
        let rioters: Vec<_> = (0..2)
            .map(|rioter| {
                let (root, outside) = (root.clone(), outside.clone());
                std::thread::spawn(move || riot(&root, &outside, seed * 10 + rioter, 1500))
            })
            .collect();
        let mut mirror = Mirror::new();
        let mut told = Vec::new();
        while !rioters.iter().all(std::thread::JoinHandle::is_finished) {
            fixture.backend.wait(Duration::from_millis(5), &mut fixture.hints).unwrap();
            fixture.hints.iter().for_each(|hint| obey(&root, hint, &mut mirror));
            told.append(&mut fixture.hints);
        }
        rioters.into_iter().for_each(|rioter| rioter.join().unwrap());
        let rest = fixture.hints();
        rest.iter().for_each(|hint| obey(&root, hint, &mut mirror));
        told.extend(rest);
        let mut truth = Mirror::new();
        look_below(&root, &RelPath::root(), &mut truth);
        if mirror != truth {
            let wrong: Vec<_> =
                truth.iter().filter(|(path, seen)| mirror.get(*path) != Some(*seen)).collect();
            let gone: Vec<_> = mirror.iter().filter(|(path, _)| !truth.contains_key(*path)).collect();
            let last = &told[told.len().saturating_sub(60)..];
            panic!("seed {seed}: not known {wrong:#?}, no longer there {gone:#?} after {last:?}");
        }
        let directories: Vec<String> = std::iter::once(String::new())
            .chain(truth.iter().filter(|(_, seen)| seen.0).map(|(path, _)| path.to_string()))
            .collect();
        fixture.assert_watches(&directories.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Everything about an entry that a backup keeps.
type Snapshot = BTreeMap<RelPath, (u32, u32, u64, i64, i64, Option<Vec<u8>>)>;

fn snapshot(root: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut steps = vec![RelPath::root()];
    while let Some(directory) = steps.pop() {
        for entry in fs::read_dir(root.join(directory.as_os_path())).unwrap().flatten() {
            let path = directory.join(entry.file_name().as_encoded_bytes());
            let there = entry.metadata().unwrap();
            let content = there.is_file().then(|| fs::read(entry.path()).unwrap());
            // Times and size of a directory, and the number of its entries, are those of its entries.
            let is_dir = there.is_dir();
            let times = if is_dir { (0, 0) } else { (there.mtime(), there.mtime_nsec()) };
            let size = if is_dir { 0 } else { there.size() };
            found.insert(path.clone(), (there.mode(), there.uid(), size, times.0, times.1, content));
            if is_dir {
                steps.push(path);
            }
        }
    }
    found
}

/// One random deed, alone; most attempts fail, which is fine.
fn deed(dice: &mut Dice, root: &Path, outside: &Path) {
    let one = root.join(dice.path());
    let other = root.join(dice.path());
    let away = outside.join(["x", "y"][dice.roll(2) as usize]);
    let content = vec![b'a' + dice.roll(26) as u8; dice.roll(4) as usize];
    let mode = fs::Permissions::from_mode([0o600, 0o644, 0o755, 0o700][dice.roll(4) as usize]);
    match dice.roll(18) {
        0..=2 => drop(fs::create_dir_all(&one)),
        3..=5 => drop(fs::write(&one, content)),
        6..=8 => drop(fs::rename(&one, &other)),
        9 => drop(fs::rename(&one, &away)),
        10 => drop(fs::rename(&away, &one)),
        11 => drop(fs::remove_dir_all(&one)),
        12 => drop(fs::remove_file(&one)),
        13 => drop(symlink(&other, &one)),
        // A link to another file would be followed by the next two.
        14 if one.is_symlink() => {}
        14 => drop(fs::set_permissions(&one, mode)),
        15 => drop(fs::File::options().write(true).open(&one).map(|file| file.set_len(dice.roll(9)))),
        16 => {
            let written = fs::write(&away, content);
            drop(written.and_then(|()| fs::rename(&away, &one)));
        }
        _ => {
            let written = fs::write(&one, content);
            drop(written.and_then(|()| fs::remove_file(&one)).and_then(|()| fs::create_dir(&one)));
        }
    }
}

pub(super) fn after_a_barrier_every_difference_from_before_is_covered(suite: &Suite) {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let mut fixture = suite.start(|_| ());
        let (root, outside) = (fixture.root(), fixture.outside());
        fs::create_dir(&outside).unwrap();
        let mut before = snapshot(&root);
        for batch in 0..40 {
            for _ in 0..dice.roll(12) {
                deed(&mut dice, &root, &outside);
                if dice.roll(4) == 0 {
                    fixture.backend.wait(Duration::ZERO, &mut fixture.hints).unwrap();
                }
            }
            let hints = fixture.hints();
            let now = snapshot(&root);
            let paths = before.keys().chain(now.keys());
            for path in paths.filter(|path| before.get(*path) != now.get(*path)) {
                assert!(
                    hints.iter().any(|hint| accounts_for(&root, hint, path)),
                    "seed {seed}, batch {batch}: {path} was {:?} and is {:?}; only {hints:?}",
                    before.get(path),
                    now.get(path)
                );
            }
            before = now;
        }
    }
}
