//! A remote that is a directory here: its large objects lie in its own `lfs/objects`, where Git LFS looks for those of a
//! repository on a disk, and come from there.
//!
//! A disk that is not mounted is told from objects that are missing: the repository has to be there, before and after.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::place::{Copied, Target, fetch, is_held};
use super::{Downloaded, Presence, Reason, Refusal, Uploaded, largest_first};
use crate::error::{Error, Kind, Result};
use crate::git::repository::{Repository, sync_directory};
use crate::git::workshop;
use crate::lfs::{Objects, Pointer};
use crate::path::lossy;
use crate::progress::Progress;

/// Where there are no locks, a copy of ours that nobody has written to for so long was given up.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// The store of a remote on a disk.
pub(super) struct Directory {
    /// The repository there.
    path: PathBuf,
    objects: Objects,
    /// Tells what we left there from what others did.
    prefix: String,
}

impl Directory {
    /// That of the repository at `path`.
    pub(super) fn open(path: &Path, repository: &Path) -> Result<Self> {
        let directory = Self {
            path: path.to_path_buf(),
            objects: Objects::of(path),
            prefix: format!("bb_{}_", workshop::owner_of(repository)),
        };
        directory.has_to_be_there()?;
        Repository::open(path)?;
        Ok(directory)
    }

    /// What lies there.
    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// A disk may be unplugged at any time.
    pub(super) fn has_to_be_there(&self) -> Result<()> {
        let error = match fs::symlink_metadata(self.path.join("objects")) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let shown = lossy(self.path.as_os_str().as_encoded_bytes());
        let text =
            format!("the remote at {shown} cannot be reached (is its disk mounted, has it been pushed to?)");
        Err(Error::with_source(Kind::RemoteUnreachable, text, error))
    }

    pub(super) fn missing(&self, objects: &[Pointer], progress: &Progress) -> Result<Presence> {
        let mut presence = Presence::default();
        for pointer in objects {
            progress.check()?;
            match self.objects.has(pointer)? {
                true => presence.there += 1,
                false => presence.missing.push(*pointer),
            }
        }
        self.has_to_be_there()?;
        Ok(presence)
    }

    pub(super) fn upload(
        &self,
        objects: &[Pointer],
        store: &Objects,
        progress: &Progress,
    ) -> Result<Uploaded> {
        self.sweep();
        let target = Target { repository: &self.path, prefix: &self.prefix };
        let mut outcome = Uploaded::default();
        for pointer in largest_first(objects) {
            progress.check()?;
            if self.objects.has(&pointer)? {
                // Put there by a run that was killed before it could make the name durable, for all we know.
                if let Some(parent) = self.objects.path_of(&pointer.id).parent() {
                    sync_directory(parent)?;
                }
                outcome.already += 1;
                continue;
            }
            self.has_to_be_there()?;
            let refusal = |reason, why: &str| {
                let text = format!("the large object {} of {} bytes {why}", pointer.id, pointer.size);
                (pointer, Refusal { reason, error: Error::new(Kind::Git, text) })
            };
            match target.copy(store, &pointer, progress)? {
                Copied::Whole => {
                    outcome.sent += 1;
                    outcome.bytes += pointer.size;
                    progress.file_done(0);
                }
                Copied::NotThere => {
                    outcome.refused.push(refusal(Reason::Missing, "is not in the store here"));
                }
                Copied::Damaged => {
                    outcome
                        .refused
                        .push(refusal(Reason::Damaged, "is damaged in the store here: it was not sent"));
                }
                Copied::Unreadable => {
                    outcome.refused.push(refusal(Reason::Damaged, "cannot be read in the store here"));
                }
            }
        }
        Ok(outcome)
    }

    /// Puts what `store` has in the place of what stands there; whether it had it.
    pub(super) fn replace(&self, pointer: &Pointer, store: &Objects, progress: &Progress) -> Result<bool> {
        self.has_to_be_there()?;
        let target = Target { repository: &self.path, prefix: &self.prefix };
        Ok(target.copy(store, pointer, progress)? == Copied::Whole)
    }

    pub(super) fn download(
        &self,
        objects: &[Pointer],
        store: &Objects,
        progress: &Progress,
    ) -> Result<Downloaded> {
        let mut outcome = Downloaded::default();
        for pointer in largest_first(objects) {
            progress.check()?;
            if store.has(&pointer)? {
                outcome.already += 1;
                continue;
            }
            let reason = match fetch(&self.objects, &pointer, store, progress)? {
                Copied::Whole => {
                    outcome.received += 1;
                    outcome.bytes += pointer.size;
                    progress.file_done(0);
                    continue;
                }
                Copied::NotThere => Reason::Missing,
                Copied::Damaged => Reason::Damaged,
                Copied::Unreadable => Reason::Trouble,
            };
            self.has_to_be_there()?;
            let why = match reason {
                Reason::Missing => "is not there",
                Reason::Damaged => "is damaged there",
                _ => "cannot be read there",
            };
            let place = lossy(self.path.as_os_str().as_encoded_bytes());
            let text = format!("the large object {} of {} bytes {why}: {place}", pointer.id, pointer.size);
            let error = Error::new(Kind::RemoteRefused, text);
            outcome.failed.push((pointer, Refusal { reason, error }));
        }
        Ok(outcome)
    }

    /// Removes copies of ours that a killed process left.
    fn sweep(&self) {
        for entry in fs::read_dir(self.path.join("lfs/tmp")).into_iter().flatten().flatten() {
            let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&self.prefix));
            if !is_ours {
                continue;
            }
            let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
            let is_old = || age.is_some_and(|age| age > ABANDONED_AFTER);
            let is_left = is_held(&entry.path()).map_or_else(is_old, |held| !held);
            if is_left {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
