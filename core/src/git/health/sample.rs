//! The look between the cheap one and reading everything: for every day.
//!
//! The tip is connected: every tree of it can be read, and every content is there. Besides, objects drawn by lot from
//! all packs, of any age, are read and hashed, bounded in number and bytes; so rot anywhere is met sooner or later, and
//! the cost does not grow with history. Damage is told as by [`super::look`].

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use git2::{ObjectType, Oid};

use super::{Expected, Health, Look, answer, damage, io_fault, look, shown};
use crate::error::{Kind, Result};
use crate::git::contents::{ContentReader, Contents, Trouble};
use crate::git::pack::{PackReader, PackSet};
use crate::git::repository::{Repository, git_error};
use crate::progress::Progress;
use crate::tree;

/// How much is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Objects.
    pub objects: u64,
    /// Their bytes; the object that goes beyond them is the last.
    pub bytes: u64,
    /// The same seed draws the same objects.
    pub seed: u64,
}

/// Looks, follows the tip's tree to its end, and reads what `draw` draws.
///
/// # Errors
/// [`Kind::Cancelled`], and what the system has to say that is no damage.
pub fn sample(
    path: &std::path::Path,
    expected: &Expected<'_>,
    draw: Draw,
    progress: &Progress,
) -> Result<Health> {
    match look(path, expected)? {
        Health::Sound => answer(drawn(path, expected, draw, progress)),
        other => Ok(other),
    }
}

fn drawn(path: &std::path::Path, expected: &Expected<'_>, draw: Draw, progress: &Progress) -> Look {
    let repository = Repository::open(path)?;
    if let Some(tip) = repository.reference(expected.branch)? {
        connected(&repository, tip, progress)?;
    }
    let contents = Contents::open(repository.path())?;
    let mut reader = contents.reader();
    let mut left = draw.bytes;
    for oid in lots(&repository, draw, progress)? {
        progress.check()?;
        progress.tick();
        match read_proven(&repository, &mut reader, oid, progress) {
            // Nobody needed it any more, and it was removed meanwhile.
            Err(error) if error.kind() == Kind::Git && !is_there(&repository, &oid)? => {}
            read => left = left.saturating_sub(read?),
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads an object of any kind and whether its bytes are what its name says; how many they are.
fn read_proven(
    repository: &Repository,
    reader: &mut ContentReader<'_>,
    oid: Oid,
    progress: &Progress,
) -> Result<u64> {
    let objects = repository.objects()?;
    let fail = |error| git_error("read an object of", repository.path(), error);
    let (size, kind) = objects.read_header(oid).map_err(fail)?;
    if kind == ObjectType::Blob {
        let found = reader.find(oid)?;
        let mut tick = |_: &[u8]| {
            progress.tick();
            Ok(())
        };
        let read = reader.stream(&found, progress, &mut tick);
        read.map_err(|(Trouble::Object(error) | Trouble::Elsewhere(error))| error)?;
        return Ok(found.size);
    }
    // It compares the name.
    objects.read(oid).map_err(fail)?;
    Ok(size as u64)
}

fn is_there(repository: &Repository, oid: &Oid) -> Result<bool> {
    Ok(PackSet::open(&repository.pack_directory())?.contains(oid)? || repository.objects()?.exists(*oid))
}

/// Whether all that the commit's tree names is here.
fn connected(repository: &Repository, tip: Oid, progress: &Progress) -> Look {
    let objects = repository.objects()?;
    let packs = PackSet::open(&repository.pack_directory())?;
    let mut trees = HashSet::new();
    let mut missing = None;
    tree::diff_new_objects(&objects, None, repository.tree_of(tip)?, &mut |kind, oid, _| {
        progress.check()?;
        progress.tick();
        if kind == ObjectType::Tree {
            // It is read when it is gone into, once.
            return Ok(trees.insert(oid) && missing.is_none());
        }
        // A name that is not in this listing of the packs may have been moved into a new one.
        if missing.is_none() && kind == ObjectType::Blob && !packs.contains(&oid)? && !objects.exists(oid) {
            missing = Some(oid);
        }
        Ok(true)
    })?;
    match missing {
        Some(oid) => {
            damage(format!("{} lacks the object {oid} of its latest commit", shown(repository.path())))
        }
        None => Ok(()),
    }
}

/// Names of stored objects, drawn by lot from all packs together.
fn lots(repository: &Repository, draw: Draw, progress: &Progress) -> Look<Vec<Oid>> {
    let directory = repository.pack_directory();
    let listing = fs::read_dir(&directory).map_err(|error| io_fault("list", &directory, error))?;
    let mut packs: Vec<PathBuf> = listing
        .flatten()
        .map(|entry| entry.path())
        .filter(|at| at.extension().is_some_and(|ending| ending == "pack"))
        .collect();
    packs.sort();
    let mut sizes = Vec::with_capacity(packs.len());
    let mut all = 0;
    for at in &packs {
        progress.check()?;
        progress.tick();
        let count = match PackReader::open(at) {
            Ok(pack) => u64::from(pack.len()),
            // Merged into another in the meantime.
            Err(_) if !at.exists() => 0,
            Err(error) => return Err(error.into()),
        };
        sizes.push(count);
        all += count;
    }
    let mut random = draw.seed;
    // By pack, so that each is opened once; the same object may be drawn twice, which does no harm.
    let mut numbers: Vec<u64> = (0..draw.objects.min(all)).map(|_| below(&mut random, all)).collect();
    numbers.sort_unstable();
    let mut names = Vec::with_capacity(numbers.len());
    let mut first = 0;
    for (at, count) in packs.iter().zip(sizes) {
        let of_this = numbers.iter().filter(|number| (first..first + count).contains(*number));
        let positions: Vec<u32> = of_this.filter_map(|number| u32::try_from(number - first).ok()).collect();
        first += count;
        if positions.is_empty() {
            continue;
        }
        let pack = match PackReader::open(at) {
            Ok(pack) => pack,
            Err(_) if !at.exists() => continue,
            Err(error) => return Err(error.into()),
        };
        for position in positions.into_iter().filter(|position| *position < pack.len()) {
            names.push(pack.index().oid(position)?);
        }
    }
    // The bytes may not suffice for all: none is preferred for where it stands.
    for last in (1..names.len()).rev() {
        let other = below(&mut random, last as u64 + 1) as usize;
        names.swap(last, other);
    }
    Ok(names)
}

/// A number below `bound` (splitmix64); nothing secret hangs on it.
fn below(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) % bound.max(1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BRANCH, pack_of, rewrite, with_history};
    use super::*;

    const ALL: Draw = Draw { objects: 1000, bytes: u64::MAX, seed: 7 };

    fn scratch() -> (tempfile::TempDir, PathBuf, Vec<Oid>) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.git");
        let (_, commits) = with_history(&path, "state", 5);
        (scratch, path, commits)
    }

    fn sampled(path: &std::path::Path, draw: Draw) -> Health {
        let expected = Expected { origin: "state", branch: BRANCH, checkpoint: None };
        sample(path, &expected, draw, &Progress::new()).unwrap()
    }

    #[test]
    fn a_sound_repository_is_sound_however_much_is_drawn() {
        let (_scratch, path, _) = scratch();
        for draw in [ALL, Draw { objects: 0, ..ALL }, Draw { bytes: 0, ..ALL }, Draw { seed: 0, ..ALL }] {
            assert_eq!(sampled(&path, draw), Health::Sound, "{draw:?}");
        }
        assert_eq!(sampled(&path.join("none"), ALL), Health::Missing);
    }

    #[test]
    fn a_flipped_byte_in_an_old_content_is_found_by_the_lot_that_falls_on_it() {
        let (_scratch, path, commits) = scratch();
        let pack = pack_of(&path, commits[0]);
        // The first entry of the pack is the content; behind the pack's header and its own.
        rewrite(&pack, |bytes| bytes[16] ^= 0x40);
        let found = (0..40).filter(|seed| {
            let draw = Draw { objects: 4, bytes: u64::MAX, seed: *seed };
            matches!(sampled(&path, draw), Health::Damaged(_))
        });
        let found = found.count();
        assert!(found > 0 && found < 40, "{found} of 40 lots fell on it");
    }

    #[test]
    fn what_the_tip_lacks_is_found_without_any_lot() {
        let (_scratch, path, commits) = scratch();
        let (repository, tip) = (Repository::open(&path).unwrap(), commits[4]);
        let writer = crate::git::pack::PackWriter::create(&repository.pack_directory()).unwrap();
        let nowhere = Oid::from_str(&"ab".repeat(20)).unwrap();
        let entry = tree::Entry { mode: tree::MODE_FILE, oid: nowhere };
        let inner = writer
            .add(crate::git::pack::ObjectKind::Tree, &tree::serialize([(b"file".as_slice(), entry)]))
            .unwrap();
        let outer = [(b"folder".as_slice(), tree::Entry::tree(inner))];
        let root = writer.add(crate::git::pack::ObjectKind::Tree, &tree::serialize(outer)).unwrap();
        let text = format!(
            "tree {root}\nparent {tip}\nauthor a <a@b> 9 +0000\ncommitter a <a@b> 9 +0000\n\nbackup\n"
        );
        let commit = writer.add(crate::git::pack::ObjectKind::Commit, text.as_bytes()).unwrap();
        let durable = crate::git::pack::Sync::Durable;
        writer.finish(durable, &Progress::new()).unwrap().unwrap().install().unwrap();
        crate::git::refs::move_reference(&repository, BRANCH, Some(tip), commit).unwrap();
        let Health::Damaged(reason) = sampled(&path, Draw { objects: 0, ..ALL }) else {
            panic!("it is sound")
        };
        assert!(reason.contains(&nowhere.to_string()), "{reason}");
    }

    #[test]
    fn a_cancelled_sample_says_so() {
        let (_scratch, path, _) = scratch();
        let progress = Progress::new();
        progress.cancel();
        let expected = Expected { origin: "state", branch: BRANCH, checkpoint: None };
        assert_eq!(sample(&path, &expected, ALL, &progress).unwrap_err().kind(), Kind::Cancelled);
    }
}
