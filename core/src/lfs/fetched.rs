//! Large contents that are not here, from the remotes that have them, one at a time as they are asked for.
//!
//! In: pointers, by several threads at once. Out: open files. What is fetched is not kept: its name is gone as soon as it is
//! open, so a restore needs room for as many contents as it has threads, not for all of them twice.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Client, Downloaded};
use super::{Objects, Pointer};
use crate::config::Remote;
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::file_lock::{Attempt, LockedFile};
use crate::git::contents::LargeContents;
use crate::progress::Progress;

/// Below a repository's `lfs`: what is on its way, a directory a process.
const DIRECTORY: &str = "passing";
/// Held in such a directory while its process lives.
const LOCK: &str = "lock";

/// A remote that failed as a whole is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// What is here, and who has the rest.
#[derive(Debug)]
pub struct Fetched {
    own: Objects,
    /// `<repository>/lfs/passing`.
    place: PathBuf,
    passing: OnceLock<Passing>,
    /// How many were fetched.
    count: AtomicU64,
    sources: Vec<Source>,
}

struct Source {
    remote: Remote,
    /// Stands for our repository: known hosts of SSH lie two levels above it.
    stands_for: PathBuf,
    /// Connected when it is first asked.
    client: Mutex<Option<Arc<Client>>>,
    /// Since when it fails whatever is asked of it, and why.
    down: Mutex<Option<(Instant, String)>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.remote.name).finish()
    }
}

impl Fetched {
    /// Contents of the repository at `own`, and from `remotes`, in this order, what it lacks. What is on its way is below
    /// `ours`, a repository of ours; `stands_for` is where the one is, or would be, that the remotes are configured for.
    pub fn new(own: &Path, ours: &Path, remotes: Vec<Remote>, stands_for: &Path) -> Self {
        let source = |remote| Source {
            remote,
            stands_for: stands_for.to_path_buf(),
            client: Mutex::default(),
            down: Mutex::default(),
        };
        Self {
            own: Objects::of(own),
            place: ours.join("lfs").join(DIRECTORY),
            passing: OnceLock::new(),
            count: AtomicU64::new(0),
            sources: remotes.into_iter().map(source).collect(),
        }
    }

    fn fetch(&self, pointer: &Pointer, progress: &Progress) -> Result<File> {
        let passing = match self.passing.get() {
            Some(passing) => passing,
            None => {
                let made = Passing::make(&self.place)?;
                self.passing.get_or_init(|| made)
            }
        };
        Room::of(&passing.directory)?.must_hold(pointer.size, &passing.directory)?;
        // Each in a place of its own: two threads may want the same.
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let moment = Moment(passing.directory.join(number.to_string()));
        fs::create_dir(&moment.0).map_err(|error| Error::io("make", &moment.0, error))?;
        let objects = Objects::of(&moment.0);
        let mut said = Vec::new();
        for source in &self.sources {
            match source.fetch(pointer, &objects, progress) {
                Ok(()) => {
                    if let Some(file) = objects.open(&pointer.id)? {
                        return Ok(file);
                    }
                    said.push(format!("{}: nothing came", source.remote.name));
                }
                Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::DiskFull | Kind::Limit) => {
                    return Err(error);
                }
                Err(error) => said.push(format!("{}: {error}", source.remote.name)),
            }
        }
        let text = format!(
            "its content is the large object {} of {} bytes, which is not here and could not be fetched ({})",
            pointer.id,
            pointer.size,
            said.join("; ")
        );
        Err(Error::new(Kind::Git, text))
    }
}

/// Removes what processes that were killed left in the repository at `own`. What a living one uses stays.
///
/// # Errors
/// When something cannot be removed.
pub fn sweep(own: &Path) -> Result<()> {
    sweep_at(&own.join("lfs").join(DIRECTORY))
}

fn sweep_at(place: &Path) -> Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| Error::io("list", place, error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| Error::io("list", place, error))?.path();
        if lock(&path).is_some_and(|lock| !matches!(LockedFile::attempt(lock), Ok(Attempt::Locked(_)))) {
            continue;
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The lock file of a process' directory; absent if there is none.
fn lock(directory: &Path) -> Option<File> {
    OpenOptions::new().write(true).open(directory.join(LOCK)).ok()
}

/// A directory for what is on its way, gone with the value; what a killed process left there is swept.
#[derive(Debug)]
pub(crate) struct Passing {
    directory: PathBuf,
    _lock: LockedFile,
}

impl Passing {
    /// One of the repository at `own`.
    pub(crate) fn of(own: &Path) -> Result<Self> {
        Self::make(&own.join("lfs").join(DIRECTORY))
    }

    /// Contents in it.
    pub(crate) fn objects(&self) -> Objects {
        Objects::of(&self.directory)
    }

    /// Another process may sweep just before the lock is taken: then it is made once more.
    fn make(place: &Path) -> Result<Self> {
        // What stays is in nobody's way, and the next one comes by.
        let _ = sweep_at(place);
        let mut random = [0; 8];
        loop {
            getrandom::fill(&mut random)
                .map_err(|error| Error::new(Kind::Io, format!("cannot get random bytes: {error}")))?;
            let directory = place.join(format!("{:016x}", u64::from_ne_bytes(random)));
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&directory).map_err(|error| Error::io("make", &directory, error))?;
            let path = directory.join(LOCK);
            let lock = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock.map_err(|error| Error::io("make", &path, error))?,
            };
            let lock = LockedFile::wait(lock).map_err(|error| Error::io("lock", &path, error))?;
            if path.exists() {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where one content stands until it is open.
struct Moment(PathBuf);

impl Drop for Moment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl LargeContents for Fetched {
    fn open(&self, pointer: &Pointer, progress: &Progress) -> Result<File> {
        if self.own.has(pointer)?
            && let Some(file) = self.own.open(&pointer.id)?
        {
            return Ok(file);
        }
        self.fetch(pointer, progress)
    }

    fn can_be_had(&self, pointer: &Pointer) -> Result<bool> {
        Ok(!self.sources.is_empty() || self.own.has(pointer)?)
    }
}

impl Source {
    /// One that cannot be reached is not waited for again with every content of thousands.
    fn fetch(&self, pointer: &Pointer, to: &Objects, progress: &Progress) -> Result<()> {
        let is_down = |down: &(Instant, String)| down.0.elapsed() < LEFT_ALONE;
        if let Some((_, why)) = lock_of(&self.down).as_ref().filter(|down| is_down(down)) {
            let text = format!("{why} (it is not asked again for a minute)");
            return Err(Error::new(Kind::RemoteUnreachable, text));
        }
        let fetched = self.ask(pointer, to, progress);
        if let Err(error) = &fetched
            && matches!(
                error.kind(),
                Kind::RemoteUnreachable | Kind::Credentials | Kind::HostKey | Kind::Redirected | Kind::Busy
            )
        {
            *lock_of(&self.down) = Some((Instant::now(), error.to_string()));
        }
        let mut downloaded = fetched?;
        match downloaded.failed.pop() {
            Some((_, refusal)) => Err(refusal.error),
            None => Ok(()),
        }
    }

    fn ask(&self, pointer: &Pointer, to: &Objects, progress: &Progress) -> Result<Downloaded> {
        let client = {
            let mut client = lock_of(&self.client);
            match &*client {
                Some(client) => client.clone(),
                None => {
                    let connected = Client::connect(&self.remote, &self.stands_for, progress)?;
                    client.insert(Arc::new(connected)).clone()
                }
            }
        };
        client.download(std::slice::from_ref(pointer), to, progress)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::config::RemoteUrl;
    use crate::names::RemoteName;

    #[test]
    fn a_remote_that_cannot_be_reached_is_asked_once_and_the_next_one_helps() {
        let scratch = tempfile::tempdir().unwrap();
        let (own, there) = (scratch.path().join("own.git"), scratch.path().join("there.git"));
        for path in [&own, &there] {
            git2::Repository::init_bare(path).unwrap();
        }
        let mut draft = Objects::of(&there).begin().unwrap();
        draft.write(b"large").unwrap();
        let pointer = draft.finish().unwrap();
        let remote = |name: &str, path: &Path| {
            Remote::at(RemoteName::new(name).unwrap(), RemoteUrl::Local(path.to_path_buf()))
        };
        let gone = scratch.path().join("gone.git");
        let fetched = Fetched::new(&own, &own, vec![remote("gone", &gone), remote("there", &there)], &own);
        let progress = Progress::new();
        let mut content = String::new();
        fetched.open(&pointer, &progress).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "large");
        assert!(lock_of(&fetched.sources[0].down).is_some() && lock_of(&fetched.sources[1].down).is_none());
        assert!(Objects::of(&own).list().unwrap().is_empty(), "nothing is kept");
        let absent = Pointer { size: 7, ..pointer };
        let error = fetched.open(&absent, &progress).unwrap_err().to_string();
        assert!(error.contains("gone: ") && error.contains("not asked again"), "{error}");
        drop(fetched);
        assert_eq!(fs::read_dir(own.join("lfs").join(DIRECTORY)).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_a_living_one_uses_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("lfs").join(DIRECTORY);
        let used = Passing::make(&place).unwrap();
        fs::create_dir(place.join("left")).unwrap();
        fs::write(place.join("left").join(LOCK), "").unwrap();
        sweep(scratch.path()).unwrap();
        assert!(used.directory.exists() && !place.join("left").exists());
        drop(used);
        sweep(scratch.path()).unwrap();
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    }
}
