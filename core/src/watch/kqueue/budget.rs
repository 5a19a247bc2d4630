//! How many descriptors watching may take, as each watched path costs one.
//!
//! Of the process's limit on open files (`RLIMIT_NOFILE`) a quarter, and at least 64, is left to everything else.
//! The rest is shared by all roots. Files may take three quarters of it, so that directories, without which
//! nothing in them is noticed, find room however late they come. On macOS `kern.maxfilesperproc` bounds the limit
//! itself. What is taken is given back when a backend is dropped.

#[cfg(not(target_os = "linux"))]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};

/// Left for packs, the database, remotes and connections, whatever the limit is.
const LEAST_RESERVE: u64 = 64;
/// More than any system opens: what an unlimited limit counts as.
const UNLIMITED: u64 = 1 << 20;

/// What all backends of the process share.
#[derive(Debug)]
pub(super) struct Pool {
    /// The limit on open files that it follows from.
    limit: u64,
    all: usize,
    for_files: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    directories: usize,
    files: usize,
}

impl Pool {
    /// For a process that may have `limit` files open.
    pub fn with_limit(limit: u64) -> Arc<Self> {
        let all = usize::try_from(usable(limit)).unwrap_or(usize::MAX);
        Arc::new(Self { limit, all, for_files: all / 4 * 3, taken: Mutex::default() })
    }

    /// Files get none, except where directories depend on one.
    #[cfg(test)]
    pub fn without_files(limit: u64) -> Arc<Self> {
        let all = usize::try_from(usable(limit)).unwrap_or(usize::MAX);
        Arc::new(Self { limit, all, for_files: 0, taken: Mutex::default() })
    }

    /// The one of this process, from the limit as it is at the first call.
    #[cfg(not(target_os = "linux"))]
    pub fn of_process() -> Arc<Self> {
        static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
        POOL.get_or_init(|| Self::with_limit(present_limit())).clone()
    }

    /// The limit that would be enough for `directories` and `files` more, with room for some growth.
    fn needed(&self, directories: u64, files: u64) -> u64 {
        let taken = *self.taken();
        let files = files + taken.files as u64;
        let all = files + directories + taken.directories as u64;
        let usable_needed = all.max(files / 3 * 4 + 4);
        let usable_needed = usable_needed + usable_needed / 4;
        (usable_needed / 3 * 4 + 4).max(usable_needed + LEAST_RESERVE)
    }

    /// The sentence for what got no descriptor, with the limit and the one that would be enough.
    pub fn sentence(&self, wanting: &Wanting) -> String {
        let Wanting { directories, files_below, files, are_polled } = *wanting;
        let limit = self.limit;
        let needed = self.needed(directories, files_below + files);
        let instead = if are_polled {
            "polled every 5 to 30 seconds instead of watched"
        } else {
            "not watched, and compared at rescans only"
        };
        let mut what = Vec::new();
        if directories > 0 {
            what.push(format!("{} {instead}", counted(directories, "directory", "directories")));
        }
        if files > 0 {
            what.push(format!(
                "{} not watched, and compared every few seconds",
                counted(files, "file", "files")
            ));
        }
        let what = what.join(", ");
        format!(
            "{what}, because watching takes a descriptor a path and this process may open {limit} files (ulimit \
             -n); raise that limit to at least {needed}, for example: ulimit -n {needed} (on macOS also: sysctl -w \
             kern.maxfilesperproc={needed}; on FreeBSD: sysctl kern.maxfilesperproc={needed})"
        )
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counted(number: u64, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one} is") } else { format!("{number} {several} are") }
}

fn usable(limit: u64) -> u64 {
    limit.saturating_sub((limit / 4).max(LEAST_RESERVE))
}

#[cfg(not(target_os = "linux"))]
fn present_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(UNLIMITED).min(UNLIMITED)
}

/// Raises the limit on open files as far as this process is allowed to; to be called before anything watches.
/// Systems that watch by descriptors start programs with limits such as 256.
pub fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let Some(current) = now.current else { return };
    let mut wanted = now.maximum.unwrap_or(UNLIMITED).min(UNLIMITED);
    // What is allowed may be less than the hard limit says, and only trying tells.
    while wanted > current {
        let new = Rlimit { current: Some(wanted), maximum: now.maximum };
        if setrlimit(Resource::Nofile, new).is_ok() {
            return;
        }
        wanted /= 2;
    }
}

/// What has no descriptor.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wanting {
    /// With all that are below them.
    pub directories: u64,
    /// Files in those.
    pub files_below: u64,
    /// Files in watched directories.
    pub files: u64,
    /// Whether somebody polls these directories.
    pub are_polled: bool,
}

impl Wanting {
    pub fn is_anything(&self) -> bool {
        self.directories + self.files > 0
    }
}

/// What one backend has taken.
#[derive(Debug)]
pub(super) struct Budget {
    pool: Arc<Pool>,
    own: Taken,
}

impl Budget {
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool, own: Taken::default() }
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Takes one for a directory; false if there is none.
    pub fn take_directory(&mut self) -> bool {
        let mut taken = self.pool.taken();
        let is_free = taken.directories + taken.files < self.pool.all;
        if is_free {
            taken.directories += 1;
            self.own.directories += 1;
        }
        is_free
    }

    /// Takes one for a file; false if there is none.
    pub fn take_file(&mut self) -> bool {
        let mut taken = self.pool.taken();
        let is_free = taken.directories + taken.files < self.pool.all && taken.files < self.pool.for_files;
        if is_free {
            taken.files += 1;
            self.own.files += 1;
        }
        is_free
    }

    /// Takes one that is kept for directories, for a file that they depend on.
    pub fn take_file_before_others(&mut self) -> bool {
        let is_free = self.take_directory();
        if is_free {
            self.give_back_directory();
            self.own.files += 1;
            self.pool.taken().files += 1;
        }
        is_free
    }

    pub fn give_back_directory(&mut self) {
        self.own.directories = self.own.directories.saturating_sub(1);
        let mut taken = self.pool.taken();
        taken.directories = taken.directories.saturating_sub(1);
    }

    pub fn give_back_file(&mut self) {
        self.own.files = self.own.files.saturating_sub(1);
        let mut taken = self.pool.taken();
        taken.files = taken.files.saturating_sub(1);
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let mut taken = self.pool.taken();
        taken.directories = taken.directories.saturating_sub(self.own.directories);
        taken.files = taken.files.saturating_sub(self.own.files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left_to_others_and_files_leave_room_for_directories() {
        let pool = Pool::with_limit(256);
        let (mut one, mut other) = (Budget::new(pool.clone()), Budget::new(pool));
        let files = (0..1000).filter(|_| one.take_file()).count();
        assert_eq!(files, 144, "three quarters of the 192 that are left");
        assert!(!other.take_file());
        let directories = (0..1000).filter(|_| other.take_directory()).count();
        assert_eq!(directories, 48);
        one.give_back_file();
        assert!(one.take_directory());
        drop(one);
        assert_eq!((0..1000).filter(|_| other.take_directory()).count(), 144);
    }

    #[test]
    fn the_number_in_the_sentence_is_enough() {
        for (directories, below, files) in [(10, 0, 0), (0, 0, 5000), (700, 30_000, 9), (1, 1, 1)] {
            let small = Budget::new(Pool::with_limit(100));
            let wanting = Wanting { directories, files_below: below, files, are_polled: false };
            let sentence = small.pool().sentence(&wanting);
            let needed: u64 = sentence
                .split("at least ")
                .nth(1)
                .and_then(|rest| rest.split(',').next())
                .and_then(|number| number.parse().ok())
                .unwrap();
            let mut enough = Budget::new(Pool::with_limit(needed));
            assert!((0..files + below).all(|_| enough.take_file()), "{sentence}");
            assert!((0..directories).all(|_| enough.take_directory()), "{sentence}");
        }
    }
}
