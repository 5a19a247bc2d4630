//! Opening the database so that no crash and no damage ends in a loop or in silence.
//!
//! redb makes an empty database of a zero-length file, leaves a file that never opens when killed while it
//! creates one, notices flipped bytes only when asked, and panics on holes. So a new file is made under
//! another name and renamed when it is whole; a file that was open when the process died is checked; and
//! whatever fails or panics is set aside.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase};

use super::{
    CHANGES, CHECKPOINTS, FILE_NAME, FILES, FORMAT, Inner, META, ORDER, Outcome, PAUSED, PUSH_HISTORY,
    REMOTES, Recovery, STAGED, store_error, store_error_at,
};
use crate::error::{Error, Kind, Result};
use crate::fault;

enum Damage {
    /// Not readable as our database.
    Broken(String),
    /// Readable, but made by a later version of this program.
    Newer(u64),
    /// Not damage: the system refuses, and setting the file aside would help nobody.
    System(Error),
}

pub(super) fn open_or_rebuild(state_dir: &Path, cache_bytes: usize) -> Result<(Database, Option<Recovery>)> {
    let path = state_dir.join(FILE_NAME);
    let recovery = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("look at", &path, error)),
        Ok(_) => match open_checked(&path, cache_bytes) {
            Ok(database) => return Ok((database, None)),
            Err(Damage::System(error)) => return Err(error),
            Err(Damage::Newer(version)) => {
                let text = format!(
                    "{} has format {version}, this program reads up to {FORMAT}: run the version that wrote it, or \
                     move the file away to have the state rebuilt",
                    path.display()
                );
                return Err(Error::new(Kind::Config, text));
            }
            Err(Damage::Broken(reason)) => {
                let set_aside = set_aside(&path)?;
                Some(Recovery { reason, set_aside })
            }
        },
    };
    create_whole(state_dir, &path, cache_bytes)?;
    match open_checked(&path, cache_bytes) {
        Ok(database) => Ok((database, recovery)),
        Err(Damage::System(error)) => Err(error),
        Err(Damage::Broken(reason)) => Err(Error::new(Kind::Store, format!("{}: {reason}", path.display()))),
        Err(Damage::Newer(version)) => {
            Err(Error::new(Kind::Store, format!("a new store has format {version}")))
        }
    }
}

fn create_whole(state_dir: &Path, path: &Path, cache_bytes: usize) -> Result<()> {
    let temporary = state_dir.join(format!("{FILE_NAME}.new"));
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::io("remove", &temporary, error));
    }
    let make = || -> Outcome<()> {
        let database = Database::builder().set_cache_size(cache_bytes).create(&temporary)?;
        let transaction = database.begin_write()?;
        {
            transaction.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
            transaction.open_table(CHANGES)?;
            transaction.open_table(ORDER)?;
            transaction.open_table(STAGED)?;
            transaction.open_table(CHECKPOINTS)?;
            transaction.open_table(PAUSED)?;
            transaction.open_table(FILES)?;
            transaction.open_table(REMOTES)?;
            transaction.open_table(PUSH_HISTORY)?;
        }
        transaction.commit()?;
        Ok(())
    };
    make().map_err(|error| store_error_at(error, &temporary))?;
    fault::point("store:written-not-renamed");
    let file = File::open(&temporary).map_err(|error| Error::io("open", &temporary, error))?;
    file.sync_all().map_err(|error| Error::io("sync", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| Error::io("rename", &temporary, error))?;
    sync_directory(state_dir)?;
    fault::point("store:renamed");
    Ok(())
}

fn open_checked(path: &Path, cache_bytes: usize) -> std::result::Result<Database, Damage> {
    // redb takes a zero-length file for a new database: silently empty is what must never happen.
    let length = fs::metadata(path).map_err(|error| Damage::System(Error::io("look at", path, error)))?.len();
    if length == 0 {
        return Err(Damage::Broken("the file is empty".to_owned()));
    }
    let attempt = catch_unwind(AssertUnwindSafe(|| -> Outcome<(Database, bool, u64)> {
        let mut database = Database::builder().set_cache_size(cache_bytes).open(path)?;
        let (format, was_running) = read_marks(&database)?;
        let sound = if was_running && format <= FORMAT { database.check_integrity()? } else { true };
        if sound && format <= FORMAT {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            transaction.open_table(META)?.insert("running", [1u8].as_slice())?;
            transaction.commit()?;
        }
        Ok((database, sound, format))
    }));
    match attempt {
        Ok(Ok((_, _, format))) if format > FORMAT => Err(Damage::Newer(format)),
        Ok(Ok((database, true, _))) => Ok(database),
        // The check repaired what it could: what is left is consistent, but may be older than the truth.
        Ok(Ok((_, false, _))) => Err(Damage::Broken("the check of the whole file found damage".to_owned())),
        Ok(Err(Inner::Database(redb::Error::DatabaseAlreadyOpen))) => Err(Damage::System(Error::new(
            Kind::InUse,
            format!("{} is open in another process", path.display()),
        ))),
        Ok(Err(Inner::Database(redb::Error::Io(error)))) if is_systems(&error) => {
            Err(Damage::System(Error::io("open", path, error)))
        }
        Ok(Err(error)) => Err(Damage::Broken(store_error(error).to_string())),
        Err(_) => Err(Damage::Broken("reading it ended in a panic".to_owned())),
    }
}

/// What came of opening the file again while the process runs.
pub(super) enum Reopened {
    /// It is as it was last written.
    Open(Box<Database>),
    /// The system does not let us, for now.
    NotNow(Error),
    /// It is damaged or gone; what to do about that is a start's business.
    Damaged(String),
}

/// Opens the file again after an error of it; never sets it aside, never makes it anew.
pub(super) fn open_again(path: &Path, cache_bytes: usize) -> Reopened {
    if let Ok(false) = path.try_exists() {
        return Reopened::Damaged("it is gone".to_owned());
    }
    match open_checked(path, cache_bytes) {
        Ok(database) => Reopened::Open(Box::new(database)),
        Err(Damage::System(error)) => Reopened::NotNow(error),
        Err(Damage::Broken(reason)) => Reopened::Damaged(reason),
        Err(Damage::Newer(version)) => Reopened::Damaged(format!("it has format {version}")),
    }
}

/// Errors that speak of the system, not of the file's content.
fn is_systems(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some()
}

fn read_marks(database: &Database) -> Outcome<(u64, bool)> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let format = meta
        .get("format")?
        .and_then(|bytes| bytes.value().try_into().ok().map(u64::from_le_bytes))
        .unwrap_or(u64::MAX);
    let was_running = meta.get("running")?.is_some_and(|bytes| bytes.value() == [1]);
    Ok((format, was_running))
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut target = path.with_file_name(format!("{FILE_NAME}.damaged-{stamp}"));
    let mut number = 1;
    while target.exists() {
        number += 1;
        target = path.with_file_name(format!("{FILE_NAME}.damaged-{stamp}-{number}"));
    }
    fs::rename(path, &target).map_err(|error| Error::io("set aside", path, error))?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(target)
}

pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    let open = File::open(directory).map_err(|error| Error::io("open", directory, error))?;
    open.sync_all().map_err(|error| Error::io("sync", directory, error))
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn a_new_store_is_made_and_opens_again() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, recovery) = Store::open(scratch.path()).unwrap();
        assert!(recovery.is_none());
        assert_eq!(store.swap_config_checksum("one").unwrap(), None);
        drop(store);
        let (store, recovery) = Store::open(scratch.path()).unwrap();
        assert!(recovery.is_none(), "an unclean stop without damage is no recovery");
        assert_eq!(store.swap_config_checksum("two").unwrap(), Some("one".to_owned()));
    }

    #[test]
    fn damage_is_set_aside_and_never_silently_empty() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 4] = [
            ("empty", |path| fs::write(path, b"").unwrap()),
            ("text", |path| fs::write(path, b"hello, I am a text file\n").unwrap()),
            ("truncated", |path| File::options().write(true).open(path).unwrap().set_len(5000).unwrap()),
            ("holed", |path| {
                let mut bytes = fs::read(path).unwrap();
                let length = bytes.len();
                bytes[4096..length.min(600_000)].fill(0);
                fs::write(path, bytes).unwrap();
            }),
        ];
        for (name, damage) in cases {
            let scratch = tempfile::tempdir().unwrap();
            let (store, _) = Store::open(scratch.path()).unwrap();
            store.swap_config_checksum("kept").unwrap();
            drop(store);
            damage(&scratch.path().join(FILE_NAME));
            let (_, recovery) = Store::open(scratch.path()).unwrap();
            let recovery = recovery.unwrap_or_else(|| panic!("{name}: damage went unnoticed"));
            assert!(recovery.set_aside.exists(), "{name}");
        }
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        store
            .write(|transaction| {
                transaction.open_table(META)?.insert("format", (FORMAT + 1).to_le_bytes().as_slice())?;
                Ok(())
            })
            .unwrap();
        drop(store);
        let error = Store::open(scratch.path()).unwrap_err();
        assert!(error.to_string().contains("has format 2"), "{error}");
        assert!(scratch.path().join(FILE_NAME).exists());
    }
}
