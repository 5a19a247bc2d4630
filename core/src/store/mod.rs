//! The embedded state database, `<state_dir>/state.redb`: what must survive a crash and is not in Git.
//!
//! | table | key | value | written by |
//! |---|---|---|---|
//! | `changes` | repository, root, path | [`changes::ChangeRow`] | [`QueueStore`] |
//! | `order` | repository, position | root, path of the row at that place in the queue | [`QueueStore`] |
//! | `staged` | repository | [`checkpoints::StagedCommit`] | [`QueueStore`] |
//! | `checkpoints` | repository | [`checkpoints::Checkpoint`] | [`QueueStore`] |
//! | `paused` | repository, or repository NUL `until` | since or until when, Unix milliseconds | [`QueueStore`] |
//! | `files` | repository NUL root NUL directory NUL name | [`files::FileRecord`] | [`QueueStore`] |
//! | `guard` | repository | [`guard::GuardRecord`] | [`QueueStore`] |
//! | `remotes` | repository, remote | [`remotes::RemoteRecord`] | that remote's [`RemoteStore`] |
//! | `lfs` | repository, remote, object | [`lfs::Confirmed`] | who asks that remote, by [`LargeStore`] |
//! | `push_history` | repository, remote, number | [`remotes::PushRecord`] | that remote's [`RemoteStore`] |
//! | `meta` | text | format version, running mark, last sequence, configuration checksum | opening, [`QueueStore`] |
//!
//! One writer a table, and a type says so: whoever holds a [`QueueStore`] or [`RemoteStore`] may write its
//! tables, everybody else gets a [`StoreReader`]. Values are postcard; keys are chosen so that what is read
//! together lies together. Durable transactions use two-phase commit, because file names are hostile input.
//!
//! When the file fails, a transaction ends with an error and may or may not be on disk; the database is opened
//! again by itself (`handle.rs`), and whoever keeps numbers in memory beside it reads them again.

pub mod changes;
pub mod checkpoints;
pub mod files;
pub mod guard;
mod handle;
pub mod lfs;
mod open;
pub mod remotes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use redb::{Durability, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use changes::QueueStore;
pub use lfs::LargeStore;
pub use remotes::RemoteStore;

use self::handle::Handle;
use self::open::Check;
use crate::error::{Error, Kind, Result};
use crate::names::{RemoteName, RepositoryName};

/// The version of this layout; a store of a newer version is refused.
pub const FORMAT: u64 = 3;
/// The database's file name in the state directory.
pub const FILE_NAME: &str = "state.redb";

/// redb's page cache; its default of 1 GiB is far more than the working set.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(crate) const CHANGES: TableDefinition<(&str, &str, &[u8]), &[u8]> = TableDefinition::new("changes");
pub(crate) const ORDER: TableDefinition<(&str, u64), (&str, &[u8])> = TableDefinition::new("order");
pub(crate) const STAGED: TableDefinition<&str, &[u8]> = TableDefinition::new("staged");
pub(crate) const CHECKPOINTS: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoints");
pub(crate) const PAUSED: TableDefinition<&str, i64> = TableDefinition::new("paused");
pub(crate) const FILES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("files");
pub(crate) const GUARD: TableDefinition<&str, &[u8]> = TableDefinition::new("guard");
pub(crate) const REMOTES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("remotes");
pub(crate) const LFS: TableDefinition<(&str, &str, &[u8]), &[u8]> = TableDefinition::new("lfs");
pub(crate) const PUSH_HISTORY: TableDefinition<(&str, &str, u64), &[u8]> =
    TableDefinition::new("push_history");

/// A database that was not what it should be, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What was wrong, in words.
    pub reason: String,
    /// Where the damaged file was put aside.
    pub set_aside: PathBuf,
}

/// The open database. Clones are the same database.
#[derive(Debug, Clone)]
pub struct Store {
    handle: Arc<Handle>,
    damage: Damage,
}

/// Whether the open database failed in a way that no retry mends, and why. Clones are the same.
#[derive(Debug, Clone)]
pub struct Damage(Arc<Condemned>);

#[derive(Debug)]
struct Condemned {
    reason: OnceLock<String>,
    /// Where the next start finds it.
    verdict: PathBuf,
}

impl Damage {
    /// Why, if so.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.get().map(String::as_str)
    }

    fn note(&self, reason: &str) {
        if self.0.reason.set(reason.to_owned()).is_ok() {
            // If it cannot be written, the next start checks the whole file all the same.
            let _ = std::fs::write(&self.0.verdict, reason);
        }
    }
}

impl Store {
    /// Opens `<state_dir>/state.redb`, making it if it is absent. The caller holds the state directory's lock.
    ///
    /// A new file appears whole or not at all. The whole file is checked; one that is damaged, of a later version
    /// or closed to us is set aside with a time stamp and replaced by an empty one, which the caller must
    /// announce: queue and caches are then rebuilt from the repository, the roots and the remotes.
    ///
    /// # Errors
    /// [`Kind::Store`] when the file cannot be replaced, else the system's errors.
    pub fn open(state_dir: &Path) -> Result<(Self, Option<Recovery>)> {
        Self::open_after(state_dir, Check::All)
    }

    /// As [`Store::open`] for a command that only looks: the whole file is checked only after a crash.
    pub fn open_to_look(state_dir: &Path) -> Result<(Self, Option<Recovery>)> {
        Self::open_after(state_dir, Check::AfterCrash)
    }

    fn open_after(state_dir: &Path, check: Check) -> Result<(Self, Option<Recovery>)> {
        let (database, recovery) = open::open_or_rebuild(state_dir, CACHE_BYTES, check)?;
        let verdict = open::verdict_of(&state_dir.join(FILE_NAME));
        let damage = Damage(Arc::new(Condemned { reason: OnceLock::new(), verdict }));
        let handle = Handle::new(state_dir.join(FILE_NAME), CACHE_BYTES, database);
        Ok((Self { handle: Arc::new(handle), damage }, recovery))
    }

    /// The queue's tables, for writing. Only the queue may ask.
    pub fn queue(&self) -> Result<QueueStore> {
        QueueStore::new(self.clone())
    }

    /// One remote's tables, for writing. Only that remote's pusher may ask.
    pub fn remote(&self, repository: &RepositoryName, remote: &RemoteName) -> RemoteStore {
        RemoteStore::new(self.clone(), repository.clone(), remote.clone())
    }

    /// Everything, for reading.
    pub fn reader(&self) -> StoreReader {
        StoreReader { store: self.clone() }
    }

    /// Notes that the process stops in an orderly way, so that the next start need not check the whole file.
    pub fn mark_stopped(&self) -> Result<()> {
        self.write(|transaction| {
            transaction.open_table(META)?.insert("running", [0u8].as_slice())?;
            Ok(())
        })
    }

    /// Keeps the configuration's checksum; returns the former one.
    pub fn swap_config_checksum(&self, checksum: &str) -> Result<Option<String>> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let former = meta.insert("config", checksum.as_bytes())?;
            Ok(former.map(|text| String::from_utf8_lossy(text.value()).into_owned()))
        })
    }

    /// Whether the database turned out to be damaged while it was open; the process should then end, and the next
    /// start sets it aside.
    pub fn damage(&self) -> Damage {
        self.damage.clone()
    }

    /// Whether [`Store::damage`] has a reason by now.
    pub fn is_damaged(&self) -> bool {
        self.damage.reason().is_some()
    }

    /// Runs `change` in one durable transaction: all of it happens, or nothing.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Outcome<T>) -> Result<T> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_two_phase_commit(true);
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Outcome<T>) -> Result<T> {
        self.with(|database| look(&database.begin_read()?))
    }

    /// Uses the database. What only damage explains is noted: redb's panics on pages that are not what they were
    /// among it, and a file that was found damaged when it had to be opened again.
    fn with<T>(&self, work: impl FnOnce(&redb::Database) -> Outcome<T>) -> Result<T> {
        let mut is_damage = false;
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            self.handle.with(|database| work(database).inspect_err(|error| is_damage = error.is_damage()))
        }));
        match attempt {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if is_damage || self.handle.is_damaged() {
                    self.damage.note(&error.to_string());
                }
                Err(error)
            }
            Err(_) => {
                let text = "reading the state database ended in a panic: it is damaged";
                self.damage.note(text);
                Err(Error::new(Kind::Store, text))
            }
        }
    }

    pub(crate) fn begin_read(&self) -> Result<ReadTransaction> {
        self.with(|database| Ok(database.begin_read()?))
    }

    /// As [`Store::with`] for what reads on in a transaction that is open.
    pub(crate) fn guard<T>(&self, attempt: impl FnOnce() -> Outcome<T>) -> Result<T> {
        self.with(|_| attempt())
    }
}

/// What the tables can be asked by everybody.
#[derive(Debug, Clone)]
pub struct StoreReader {
    store: Store,
}

impl StoreReader {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

/// Inside a transaction every error is redb's or the codec's; [`store_error`] makes it ours, once.
pub(crate) type Outcome<T> = std::result::Result<T, Inner>;

/// An error inside a transaction.
#[derive(Debug)]
pub(crate) enum Inner {
    Database(redb::Error),
    Codec(postcard::Error),
}

impl Inner {
    /// Whether the file is not what was written; the system's refusals are not.
    fn is_damage(&self) -> bool {
        match self {
            Inner::Database(redb::Error::Io(error)) => error.raw_os_error().is_none(),
            Inner::Database(redb::Error::Corrupted(_)) | Inner::Codec(_) => true,
            Inner::Database(_) => false,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Inner {
    fn from(error: E) -> Self {
        Inner::Database(error.into())
    }
}

/// Ours of theirs, where the file's path is not at hand; the directory above knows which it is.
pub(crate) fn store_error(error: Inner) -> Error {
    store_error_at(error, Path::new(FILE_NAME))
}

/// Ours of theirs, with the place.
pub(crate) fn store_error_at(error: Inner, path: &Path) -> Error {
    let place = crate::path::lossy(path.as_os_str().as_encoded_bytes());
    match error {
        Inner::Database(redb::Error::Io(source)) => match crate::error::kind_of_io(&source) {
            Kind::Io => {
                let text = format!("the state database {place} cannot be read or written");
                Error::with_source(Kind::Store, text, source)
            }
            _ => Error::io("read or write the state database", path, source),
        },
        Inner::Database(source) => {
            let text = format!("the state database {place} cannot be read or written");
            Error::with_source(Kind::Store, text, source)
        }
        Inner::Codec(source) => {
            let text = format!("a record in the state database {place} is not readable");
            Error::with_source(Kind::Store, text, source)
        }
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Outcome<Vec<u8>> {
    postcard::to_stdvec(value).map_err(Inner::Codec)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Outcome<T> {
    postcard::from_bytes(bytes).map_err(Inner::Codec)
}
