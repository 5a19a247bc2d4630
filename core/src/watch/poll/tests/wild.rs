//! A consumer that does what the hints ask for, and no more, must know the tree as it is, whatever two threads
//! do to it at random meanwhile.

use super::*;

/// What a consumer of hints knows of the tree: kind, size and modification time of every entry.
type Mirror = std::collections::BTreeMap<RelPath, (bool, u64, std::time::SystemTime)>;

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
                if !seen.0 {
                    mirror.retain(|known, _| !known.is_within(path));
                }
                let children = mirror.keys().filter(|known| known.parent().as_ref() == Some(path));
                let gone: Vec<RelPath> =
                    children.filter(|child| look(root, child).is_none()).cloned().collect();
                mirror.retain(|known, _| !gone.iter().any(|gone| known.is_within(gone)));
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

#[test]
fn whoever_obeys_the_hints_knows_the_tree_however_wildly_it_changes() {
    for seed in 0..12 {
        let mut fixture = started(|_| ());
        fixture.backend.poller.young_ns = 5_000_000_000;
        let (root, outside) = (fixture.root(), fixture.directory.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let rioters: Vec<_> = (0..2)
            .map(|rioter| {
                let (root, outside) = (root.clone(), outside.clone());
                std::thread::spawn(move || riot(&root, &outside, seed * 10 + rioter, 1500))
            })
            .collect();
        let mut mirror = Mirror::new();
        while !rioters.iter().all(std::thread::JoinHandle::is_finished) {
            fixture.hints().iter().for_each(|hint| obey(&root, hint, &mut mirror));
        }
        rioters.into_iter().for_each(|rioter| rioter.join().unwrap());
        fixture.hints().iter().for_each(|hint| obey(&root, hint, &mut mirror));
        let mut truth = Mirror::new();
        look_below(&root, &RelPath::root(), &mut truth);
        assert_eq!(mirror, truth, "seed {seed}");
        let directories = truth.values().filter(|(is_dir, ..)| *is_dir).count() + 1;
        assert_eq!(fixture.backend.stats().watches, directories, "seed {seed}");
    }
}
