//! Objects that nothing needs go: what a commit that was taken back left, what was salvaged without its history.
//!
//! [`prepare`] reads the whole history and, of every pack that is old enough and holds something that no tip
//! needs, makes a pack of the rest; [`Prepared::finish`] then removes the old ones. The first takes long and goes
//! on beside commits; the second takes a moment, and **no commit may be in the making meanwhile**: one that is
//! being built may find a content in an old pack and not store it again. A commit made between the two is looked
//! at by the second: if it needs one of the objects that would go, nothing is removed, and the next run tries
//! again.
//!
//! Killed anywhere, every object that is needed is in at least one pack that is whole. Only for repositories of
//! our own: in a remote, what nobody needs by our knowledge may be a push of somebody else that has not moved its
//! branch yet.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use git2::Oid;

use super::pack::{self, EntryKind, ObjectKind, PackReader, PackWriter, Sync};
use super::reachable::new_objects;
use super::repository::{Repository, git_error};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::progress::Progress;

/// What stays and what may go.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Younger packs are left alone.
    pub grace: Duration,
    /// A pack is made anew only if at least so much of it may go.
    pub least_bytes: u64,
    /// Bytes that must stay free on the file system.
    pub reserve: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { grace: Duration::from_secs(14 * 24 * 3600), least_bytes: 1, reserve: 64 * 1024 * 1024 }
    }
}

/// Packs that may go, with everything that is needed of them in new ones.
#[derive(Debug)]
pub struct Prepared {
    /// Old packs.
    replaced: Vec<String>,
    /// What goes with them.
    dropped: HashSet<Oid>,
    /// For what the history was read.
    tips: Vec<Oid>,
    /// Bytes that the dropped objects take.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Objects that went.
    pub objects: usize,
    /// Bytes that they took.
    pub bytes: u64,
}

/// Makes new packs of what is needed of those that hold something else; `None` if there is nothing to do. `tips`
/// are all commits whose history stays, beside what references need.
pub fn prepare(
    repository: &Repository,
    tips: &[Oid],
    policy: &Policy,
    now: SystemTime,
    progress: &Progress,
) -> Result<Option<Prepared>> {
    let directory = repository.pack_directory();
    let candidates: Vec<String> = pack::whole_packs(&directory)?
        .into_iter()
        .filter(|name| is_old(&directory.join(name).with_extension("pack"), policy.grace, now))
        .collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut all_tips = tips.to_vec();
    let mut needed: HashSet<Oid> = HashSet::new();
    for (_, target) in repository.references()? {
        needed.insert(target);
        all_tips.push(target);
    }
    all_tips.retain(|tip| repository.has_commit(*tip));
    all_tips.sort_unstable();
    all_tips.dedup();
    let mut done: Vec<Oid> = Vec::new();
    for tip in &all_tips {
        needed.extend(new_objects(repository, *tip, &done, progress)?);
        done.push(*tip);
    }
    let mut prepared = Prepared { replaced: Vec::new(), dropped: HashSet::new(), tips: all_tips, bytes: 0 };
    for name in candidates {
        progress.check()?;
        prepared.take(repository, &directory, name, &needed, policy, progress)?;
    }
    Ok((!prepared.replaced.is_empty()).then_some(prepared))
}

fn is_old(pack: &Path, grace: Duration, now: SystemTime) -> bool {
    let modified = fs::metadata(pack).and_then(|metadata| metadata.modified());
    // A time from the future says nothing.
    modified.is_ok_and(|at| grace.is_zero() || now.duration_since(at).is_ok_and(|age| age >= grace))
}

impl Prepared {
    fn take(
        &mut self,
        repository: &Repository,
        directory: &Path,
        name: String,
        needed: &HashSet<Oid>,
        policy: &Policy,
        progress: &Progress,
    ) -> Result<()> {
        // Damage is not housekeeping's to mend.
        let Ok(reader) = PackReader::open(&directory.join(&name).with_extension("pack")) else {
            return Ok(());
        };
        let mut dropped = Vec::new();
        let (mut bytes, mut kept_bytes) = (0, 0);
        for item in reader.entries()? {
            let (oid, entry) = item?;
            let length = entry.header_len + entry.compressed_len;
            if needed.contains(&oid) {
                kept_bytes += length;
            } else {
                bytes += length;
                dropped.push(oid);
            }
        }
        if dropped.is_empty() || bytes < policy.least_bytes {
            return Ok(());
        }
        if kept_bytes > 0 {
            if !has_room(directory, kept_bytes.saturating_add(policy.reserve))? {
                return Ok(());
            }
            copy_needed(repository, directory, &reader, needed, progress)?;
        }
        self.bytes += bytes;
        self.dropped.extend(dropped);
        self.replaced.push(name);
        Ok(())
    }

    /// Removes the old packs, unless a commit made since needs something that would go with them; `tips` are those
    /// of now.
    pub fn finish(
        self,
        repository: &Repository,
        tips: &[Oid],
        progress: &Progress,
    ) -> Result<Option<Pruned>> {
        let mut now: Vec<Oid> = repository.references()?.into_iter().map(|(_, target)| target).collect();
        now.extend_from_slice(tips);
        if now.iter().any(|tip| self.dropped.contains(tip)) {
            return Ok(None);
        }
        let known: HashSet<Oid> = self.tips.iter().copied().collect();
        for tip in now.into_iter().filter(|tip| !known.contains(tip) && repository.has_commit(*tip)) {
            let added = new_objects(repository, tip, &self.tips, progress)?;
            if added.iter().any(|oid| self.dropped.contains(oid)) {
                return Ok(None);
            }
        }
        let directory = repository.pack_directory();
        for (number, name) in self.replaced.iter().enumerate() {
            pack::remove_files(&directory, &directory, name)?;
            if number == 0 {
                fault::point("prune:first-removed");
            }
        }
        pack::sync_directory(&directory)?;
        Ok(Some(Pruned { objects: self.dropped.len(), bytes: self.bytes }))
    }
}

fn has_room(directory: &Path, wanted: u64) -> Result<bool> {
    let system = rustix::fs::statvfs(directory)
        .map_err(|error| Error::io("ask for the free space of", directory, error))?;
    // Some network file systems do not know.
    Ok(system.f_blocks == 0 || system.f_bavail.saturating_mul(system.f_frsize) >= wanted)
}

fn copy_needed(
    repository: &Repository,
    directory: &Path,
    reader: &PackReader,
    needed: &HashSet<Oid>,
    progress: &Progress,
) -> Result<()> {
    let objects = repository.objects()?;
    let writer = PackWriter::create(directory)?;
    for item in reader.entries()? {
        let (oid, entry) = item?;
        if !needed.contains(&oid) {
            continue;
        }
        if matches!(entry.kind, EntryKind::Whole(_)) {
            let _ = writer.copy_raw_while(oid, &entry, reader, progress)?;
            continue;
        }
        // What it is a delta against may be what goes.
        let object = objects
            .read(oid)
            .map_err(|error| git_error(&format!("read object {oid} of"), repository.path(), error))?;
        let stored = writer.add(ObjectKind::try_from(object.kind())?, object.data())?;
        if stored != oid {
            let place = repository.path().display();
            return Err(Error::new(
                Kind::Git,
                format!("object {oid} of {place} is damaged: it reads as {stored}"),
            ));
        }
    }
    if let Some(finished) = writer.finish(Sync::Durable, progress)? {
        fault::point("prune:copied-not-installed");
        finished.install()?;
        fault::point("prune:installed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::health::tests::{BRANCH, packs, with_history};
    use crate::git::refs;

    fn now() -> SystemTime {
        SystemTime::now()
    }

    const AT_ONCE: Policy = Policy { grace: Duration::ZERO, least_bytes: 1, reserve: 0 };

    fn exists(repository: &Repository, oid: Oid) -> bool {
        Repository::open(repository.path()).unwrap().objects().unwrap().exists(oid)
    }

    fn assert_fsck(repository: &Repository) {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(repository.path())
            .args(["fsck", "--full", "--strict", "--unreachable", "--no-progress"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing unreachable is left");
    }

    /// Three commits of which the branch has two, all in one pack.
    fn taken_back() -> (tempfile::TempDir, Repository, Vec<Oid>) {
        let scratch = tempfile::tempdir().unwrap();
        let (repository, commits) = with_history(&scratch.path().join("x.git"), "state", 3);
        let merged = std::process::Command::new("git")
            .arg("-C")
            .arg(repository.path())
            .args(["repack", "-a", "-d", "-q", "--depth=5"])
            .status();
        assert!(merged.unwrap().success());
        refs::move_reference(&repository, BRANCH, Some(commits[2]), commits[1]).unwrap();
        (scratch, repository, commits)
    }

    #[test]
    fn what_no_tip_needs_goes_and_the_rest_stays() {
        let (_scratch, repository, commits) = taken_back();
        let prepared = prepare(&repository, &[], &AT_ONCE, now(), &Progress::new()).unwrap().unwrap();
        assert!(exists(&repository, commits[2]), "nothing is removed before the second step");
        let pruned = prepared.finish(&repository, &[], &Progress::new()).unwrap().unwrap();
        assert_eq!(pruned.objects, 3, "commit, tree and content");
        assert!(!exists(&repository, commits[2]));
        assert_fsck(&repository);
        assert_eq!(packs(repository.path(), "pack").len(), 1);
        assert!(prepare(&repository, &[], &AT_ONCE, now(), &Progress::new()).unwrap().is_none());
    }

    #[test]
    fn what_a_tip_beside_the_references_needs_stays() {
        let (_scratch, repository, commits) = taken_back();
        assert!(prepare(&repository, &[commits[2]], &AT_ONCE, now(), &Progress::new()).unwrap().is_none());
    }

    #[test]
    fn young_packs_are_left_alone_also_by_a_clock_that_went_back() {
        let (_scratch, repository, _) = taken_back();
        let policy = Policy::default();
        let at = |now| prepare(&repository, &[], &policy, now, &Progress::new()).unwrap().is_some();
        assert!(!at(now()));
        assert!(!at(now() - Duration::from_secs(400 * 24 * 3600)));
        assert!(at(now() + Duration::from_secs(15 * 24 * 3600)));
    }

    #[test]
    fn a_commit_made_meanwhile_that_needs_something_keeps_it() {
        let (_scratch, repository, commits) = taken_back();
        let prepared = prepare(&repository, &[], &AT_ONCE, now(), &Progress::new()).unwrap().unwrap();
        refs::move_reference(&repository, BRANCH, Some(commits[1]), commits[2]).unwrap();
        assert_eq!(prepared.finish(&repository, &[], &Progress::new()).unwrap(), None);
        assert!(exists(&repository, commits[2]));

        // A new commit whose tree is that of the one that goes.
        refs::move_reference(&repository, BRANCH, Some(commits[2]), commits[1]).unwrap();
        let prepared = prepare(&repository, &[], &AT_ONCE, now(), &Progress::new()).unwrap().unwrap();
        let tree = repository.tree_of(commits[2]).unwrap();
        let writer = PackWriter::create(&repository.pack_directory()).unwrap();
        let text = format!(
            "tree {tree}\nparent {}\nauthor a <a@b> 9 +0000\ncommitter a <a@b> 9 +0000\n\nagain\n",
            commits[1]
        );
        let commit = writer.add(ObjectKind::Commit, text.as_bytes()).unwrap();
        writer.finish(Sync::Durable, &Progress::new()).unwrap().unwrap().install().unwrap();
        refs::move_reference(&repository, BRANCH, Some(commits[1]), commit).unwrap();
        assert_eq!(prepared.finish(&repository, &[], &Progress::new()).unwrap(), None);
        assert!(exists(&repository, tree));
    }

    #[test]
    fn a_pack_that_somebody_keeps_stays() {
        let (_scratch, repository, commits) = taken_back();
        for pack in packs(repository.path(), "pack") {
            fs::write(pack.with_extension("keep"), "mine").unwrap();
        }
        assert!(prepare(&repository, &[], &AT_ONCE, now(), &Progress::new()).unwrap().is_none());
        assert!(exists(&repository, commits[2]));
    }
}
