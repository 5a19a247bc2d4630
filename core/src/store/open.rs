//! Opening the database so that no crash and no damage ends in a loop or in silence.
//!
//! redb makes an empty database of a zero-length file, leaves a file that never opens when killed while it
//! creates one, notices flipped bytes only when asked, and panics on holes. So a new file is made under
//! another name and renamed when it is whole; a file is checked before it is believed; and whatever fails,
//! panics, is of a later version or may not be read is set aside.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, ReadableDatabase};

use super::{
    CHANGES, CHECKPOINTS, FILE_NAME, FILES, FORMAT, GUARD, Inner, LFS, META, ORDER, Outcome, PAUSED,
    PUSH_HISTORY, REMOTES, Recovery, STAGED, store_error, store_error_at,
};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::path::lossy;
use crate::quarantine;

/// Damaged files that are kept: of a database the size matters little, and the newest tell most.
const KEPT: usize = 3;

/// How much of the file is checked before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// All of it: a flipped bit in a value is seen by nothing else.
    All,
    /// All of it only if it was open when the process died.
    AfterCrash,
}

enum Damage {
    /// Not readable as our database, or not readable by us.
    Broken(String),
    /// The disk fails: perhaps once, perhaps always, perhaps only where this file lies.
    Failing(Error),
    /// Not damage: the system refuses, and setting the file aside would help nobody.
    System(Error),
}

/// How often a file that the disk fails to give is tried at a start, and the pause between.
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn open_or_rebuild(
    state_dir: &Path,
    cache_bytes: usize,
    check: Check,
) -> Result<(Database, Option<Recovery>)> {
    let path = state_dir.join(FILE_NAME);
    remove_unfinished(state_dir)?;
    let recovery = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("look at", &path, error)),
        Ok(_) => match open_patiently(&path, cache_bytes, check) {
            Ok(database) => return Ok((database, None)),
            Err(Damage::System(error)) => return Err(error),
            Err(Damage::Failing(error)) => {
                // A disk that takes no new one either is the trouble, and this file may be whole.
                if write_new(state_dir, cache_bytes).is_err() {
                    return Err(error);
                }
                let set_aside = quarantine::set_aside(&path, KEPT)?;
                Some(Recovery { reason: error.to_string(), set_aside })
            }
            Err(Damage::Broken(reason)) => {
                let set_aside = quarantine::set_aside(&path, KEPT)?;
                Some(Recovery { reason, set_aside })
            }
        },
    };
    // It spoke of the file that is gone now.
    if let Err(error) = fs::remove_file(verdict_of(&path))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::io("remove", &verdict_of(&path), error));
    }
    create_whole(state_dir, &path, cache_bytes)?;
    match open_checked(&path, cache_bytes, check) {
        Ok(database) => Ok((database, recovery)),
        Err(Damage::System(error) | Damage::Failing(error)) => Err(error),
        Err(Damage::Broken(reason)) => Err(Error::new(Kind::Store, format!("{}: {reason}", path.display()))),
    }
}

fn open_patiently(path: &Path, cache_bytes: usize, check: Check) -> std::result::Result<Database, Damage> {
    for _ in 1..TRIES {
        match open_unless_condemned(path, cache_bytes, check) {
            Err(Damage::Failing(_)) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    open_unless_condemned(path, cache_bytes, check)
}

fn unfinished(state_dir: &Path) -> PathBuf {
    state_dir.join(format!("{FILE_NAME}.new"))
}

/// What a crash left of a database in the making.
fn remove_unfinished(state_dir: &Path) -> Result<()> {
    let path = unfinished(state_dir);
    let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
        _ => Ok(()),
    }
}

fn create_whole(state_dir: &Path, path: &Path, cache_bytes: usize) -> Result<()> {
    let temporary = write_new(state_dir, cache_bytes)?;
    fault::point("store:written-not-renamed");
    fs::rename(&temporary, path).map_err(|error| Error::io("rename", &temporary, error))?;
    sync_directory(state_dir)?;
    fault::point("store:renamed");
    Ok(())
}

/// Writes an empty database beside its place, whole and durable.
fn write_new(state_dir: &Path, cache_bytes: usize) -> Result<PathBuf> {
    remove_unfinished(state_dir)?;
    let temporary = unfinished(state_dir);
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
            transaction.open_table(GUARD)?;
            transaction.open_table(LFS)?;
            transaction.open_table(REMOTES)?;
            transaction.open_table(PUSH_HISTORY)?;
        }
        transaction.commit()?;
        Ok(())
    };
    make().map_err(|error| store_error_at(error, &temporary))?;
    let file = File::open(&temporary).map_err(|error| Error::io("open", &temporary, error))?;
    file.sync_all().map_err(|error| Error::io("sync", &temporary, error))?;
    Ok(temporary)
}

/// Beside the database stands, from the moment at which it failed a running program, why.
pub(super) fn verdict_of(path: &Path) -> PathBuf {
    path.with_file_name(format!("{FILE_NAME}.verdict"))
}

/// What a running program met may be nothing that a check finds, and would be met again after every start.
fn open_unless_condemned(
    path: &Path,
    cache_bytes: usize,
    check: Check,
) -> std::result::Result<Database, Damage> {
    match fs::read(verdict_of(path)) {
        Ok(reason) => Err(Damage::Broken(lossy(&reason[..reason.len().min(1000)]))),
        Err(_) => open_checked(path, cache_bytes, check),
    }
}

fn open_checked(path: &Path, cache_bytes: usize, check: Check) -> std::result::Result<Database, Damage> {
    // redb takes a zero-length file for a new database: silently empty is what must never happen.
    let found = fs::metadata(path).map_err(|error| damage_of(path, "look at", error))?;
    if !found.is_file() {
        return Err(Damage::Broken("what stands in its place is no file".to_owned()));
    }
    if found.len() == 0 {
        return Err(Damage::Broken("the file is empty".to_owned()));
    }
    make_ours_readable(path, &found);
    let attempt = catch_unwind(AssertUnwindSafe(|| -> Outcome<(Database, bool, u64)> {
        let mut database = Database::builder().set_cache_size(cache_bytes).open(path)?;
        let (format, was_running) = read_marks(&database)?;
        let is_due = check == Check::All || was_running;
        let sound = if is_due && format == FORMAT { database.check_integrity()? } else { true };
        if sound && format == FORMAT {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            transaction.open_table(META)?.insert("running", [1u8].as_slice())?;
            // A version before these tables were thought of may have made the file.
            transaction.open_table(GUARD)?;
            transaction.open_table(LFS)?;
            transaction.commit()?;
        }
        Ok((database, sound, format))
    }));
    match attempt {
        Ok(Ok((_, _, format))) if format > FORMAT => Err(Damage::Broken(format!(
            "it has format {format} and this program reads up to {FORMAT}: a later version wrote it, which can use it \
             again once it is moved back"
        ))),
        Ok(Ok((_, _, format))) if format < FORMAT => Err(Damage::Broken(format!(
            "it has format {format} and this program uses {FORMAT}: an earlier version wrote it"
        ))),
        Ok(Ok((database, true, _))) => Ok(database),
        // The check repaired what it could: what is left is consistent, but may be older than the truth.
        Ok(Ok((_, false, _))) => Err(Damage::Broken("the check of the whole file found damage".to_owned())),
        Ok(Err(Inner::Database(redb::Error::DatabaseAlreadyOpen))) => Err(Damage::System(Error::new(
            Kind::InUse,
            format!("{} is open in another process", path.display()),
        ))),
        Ok(Err(Inner::Database(redb::Error::Io(error)))) => Err(damage_of(path, "open", error)),
        Ok(Err(error)) => Err(Damage::Broken(store_error(error).to_string())),
        Err(_) => Err(Damage::Broken("reading it ended in a panic".to_owned())),
    }
}

/// Whether an error speaks of the file or of the system.
fn damage_of(path: &Path, doing: &str, error: std::io::Error) -> Damage {
    use rustix::io::Errno;
    let is_of_the_file = matches!(
        Errno::from_io_error(&error),
        None | Some(
            Errno::NOENT
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::LOOP
                | Errno::NXIO
                | Errno::ACCESS
                | Errno::PERM
                | Errno::INVAL
        )
    );
    let is_failing = Errno::from_io_error(&error) == Some(Errno::IO);
    let error = Error::io(doing, path, error);
    if is_failing {
        return Damage::Failing(error);
    }
    if is_of_the_file { Damage::Broken(error.to_string()) } else { Damage::System(error) }
}

/// A file of our own that somebody closed to us is opened again.
fn make_ours_readable(path: &Path, found: &fs::Metadata) {
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if is_ours && found.mode() & 0o600 != 0o600 {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
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
    match open_checked(path, cache_bytes, Check::AfterCrash) {
        Ok(database) => Reopened::Open(Box::new(database)),
        Err(Damage::System(error) | Damage::Failing(error)) => Reopened::NotNow(error),
        Err(Damage::Broken(reason)) => Reopened::Damaged(reason),
    }
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
    fn a_newer_store_is_set_aside_as_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let newer = |store: &Store| {
            store.write(|transaction| {
                transaction.open_table(META)?.insert("format", (FORMAT + 1).to_le_bytes().as_slice())?;
                Ok(())
            })
        };
        newer(&store).unwrap();
        drop(store);
        let (store, recovery) = Store::open(scratch.path()).unwrap();
        let recovery = recovery.unwrap();
        assert!(recovery.reason.contains("a later version"), "{recovery:?}");
        assert_eq!(store.swap_config_checksum("x").unwrap(), None);
        let aside = Database::open(&recovery.set_aside).unwrap();
        assert_eq!(read_marks(&aside).unwrap().0, FORMAT + 1, "the later version can use it again");
    }

    #[test]
    fn an_earlier_versions_database_is_set_aside_and_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let earlier = store.write(|transaction| {
            transaction.open_table(META)?.insert("format", (FORMAT - 1).to_le_bytes().as_slice())?;
            Ok(())
        });
        earlier.unwrap();
        drop(store);
        let (_, recovery) = Store::open(scratch.path()).unwrap();
        let recovery = recovery.unwrap();
        assert!(
            recovery.reason.contains("an earlier version") && recovery.set_aside.exists(),
            "{recovery:?}"
        );
    }

    #[test]
    fn what_is_no_file_is_set_aside_too() {
        let cases: [fn(&Path); 3] = [
            |path| fs::create_dir_all(path.join("inside")).unwrap(),
            |path| std::os::unix::fs::symlink("/nowhere", path).unwrap(),
            |path| std::os::unix::fs::symlink(path, path).unwrap(),
        ];
        for make in cases {
            let scratch = tempfile::tempdir().unwrap();
            make(&scratch.path().join(FILE_NAME));
            let (_, recovery) = Store::open(scratch.path()).unwrap();
            assert!(recovery.unwrap().set_aside.symlink_metadata().is_ok());
        }
    }

    #[test]
    fn a_file_that_failed_a_running_program_is_set_aside_whatever_a_check_says() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        assert_eq!(store.damage().reason(), None);
        // A record that no version of this program wrote: every check passes, reading it fails.
        store
            .write(|transaction| {
                transaction.open_table(CHECKPOINTS)?.insert("documents", b"\xff".as_slice())?;
                Ok(())
            })
            .unwrap();
        let repository = crate::names::RepositoryName::new("documents").unwrap();
        assert!(store.reader().checkpoint(&repository).is_err());
        let reason = store.damage().reason().unwrap().to_owned();
        drop(store);
        let (store, recovery) = Store::open(scratch.path()).unwrap();
        assert_eq!(recovery.unwrap().reason, reason);
        assert_eq!(store.reader().checkpoint(&repository).unwrap(), None);
        drop(store);
        assert!(Store::open(scratch.path()).unwrap().1.is_none(), "once is enough");
        // The verdict of a file that somebody took away is nobody's.
        fs::write(verdict_of(&scratch.path().join(FILE_NAME)), "an old one").unwrap();
        fs::remove_file(scratch.path().join(FILE_NAME)).unwrap();
        assert!(Store::open(scratch.path()).unwrap().1.is_none());
        assert!(Store::open(scratch.path()).unwrap().1.is_none());
    }

    #[test]
    fn a_panic_inside_the_database_is_an_error_and_a_verdict() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let failed = store.read(|_| -> Outcome<()> { panic!("as redb does on holes") });
        assert_eq!(failed.unwrap_err().kind(), Kind::Store);
        assert!(store.damage().reason().is_some());
    }

    /// A small generator of its own, so that a failure can be repeated.
    fn next(seed: &mut u64) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    }

    #[test]
    fn no_flipped_bit_is_believed_even_after_an_orderly_stop() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(FILE_NAME);
        let value = "kept-".repeat(400);
        let (store, _) = Store::open(scratch.path()).unwrap();
        store.swap_config_checksum(&value).unwrap();
        store.mark_stopped().unwrap();
        drop(store);
        let good = fs::read(&path).unwrap();
        let mut seed = 20_261_122;
        for round in 0..150 {
            let mut bytes = good.clone();
            for _ in 0..=round % 4 {
                let at = next(&mut seed) % bytes.len();
                bytes[at] ^= 1 << (next(&mut seed) % 8);
            }
            fs::write(&path, &bytes).unwrap();
            let (store, recovery) = Store::open(scratch.path()).unwrap();
            let found = store.swap_config_checksum("x").unwrap();
            match recovery {
                // Where nothing stands a flipped bit is no damage.
                None => assert_eq!(found.as_deref(), Some(value.as_str()), "round {round}"),
                Some(_) => assert_eq!(found, None),
            }
        }
        // In the value itself, wherever it stands.
        for (at, _) in good.windows(5).enumerate().filter(|(_, window)| window == b"kept-").take(50) {
            let mut bytes = good.clone();
            bytes[at + 2] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let (store, recovery) = Store::open(scratch.path()).unwrap();
            let found = store.swap_config_checksum("x").unwrap();
            assert!(recovery.is_some() || found.as_deref() == Some(value.as_str()), "at {at}");
        }
        assert!(quarantine::earlier(&path).len() <= KEPT);
    }
}
