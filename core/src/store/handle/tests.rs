//! A database on a file that fails when it is told to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use redb::{Builder, ReadableDatabase, StorageBackend};
use rustix::io::Errno;

use super::super::{FILE_NAME, META, Store};
use super::*;

/// A file, each call on which fails with the error number that is set, if one is.
#[derive(Debug)]
struct Flaky {
    file: File,
    errno: Arc<AtomicI32>,
}

impl Flaky {
    fn works(&self) -> io::Result<()> {
        match self.errno.load(Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl StorageBackend for Flaky {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.works()?;
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.works()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.works()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.works()?;
        self.file.write_all_at(data, offset)
    }
}

/// A whole store in `directory`, its database open on a file that can be made to fail.
fn flaky(directory: &Path) -> (Handle, Arc<AtomicI32>) {
    let path = directory.join(FILE_NAME);
    drop(Store::open(directory).unwrap());
    let errno = Arc::new(AtomicI32::new(0));
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let backend = Flaky { file, errno: errno.clone() };
    let database = Builder::new().create_with_backend(backend).unwrap();
    (Handle::new(path, 1 << 20, database), errno)
}

fn put(handle: &Handle, key: &str) -> Result<()> {
    handle.with(|database| {
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(key, [1u8].as_slice())?;
        transaction.commit()?;
        Ok(())
    })
}

fn has(handle: &Handle, key: &str) -> Result<bool> {
    handle.with(|database| Ok(database.begin_read()?.open_table(META)?.get(key)?.is_some()))
}

#[test]
fn a_database_whose_file_fails_is_opened_again_with_all_that_was_committed() {
    for (errno, kind) in
        [(Errno::NOSPC, Kind::DiskFull), (Errno::DQUOT, Kind::DiskFull), (Errno::IO, Kind::Store)]
    {
        let scratch = tempfile::tempdir().unwrap();
        let (handle, fails) = flaky(scratch.path());
        put(&handle, "before").unwrap();
        fails.store(errno.raw_os_error(), Ordering::Relaxed);
        let error = put(&handle, "during").unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(scratch.path().to_str().unwrap()), "{error}");
        fails.store(0, Ordering::Relaxed);
        // Without being opened again it would refuse everything for ever.
        put(&handle, "after").unwrap();
        assert!(has(&handle, "before").unwrap() && has(&handle, "after").unwrap());
        assert!(!handle.is_damaged());
    }
}

#[test]
fn a_file_that_cannot_be_opened_again_is_tried_after_growing_pauses() {
    let scratch = tempfile::tempdir().unwrap();
    let (handle, fails) = flaky(scratch.path());
    fails.store(Errno::IO.raw_os_error(), Ordering::Relaxed);
    put(&handle, "lost").unwrap_err();
    // Somebody else has it for a while.
    let other = Builder::new().open(scratch.path().join(FILE_NAME)).unwrap();
    assert_eq!(put(&handle, "refused").unwrap_err().kind(), Kind::Store);
    drop(other);
    let too_early = put(&handle, "too early").unwrap_err();
    assert!(too_early.to_string().contains("open in another process"), "{too_early}");
    std::thread::sleep(FIRST_PAUSE);
    put(&handle, "again").unwrap();
    assert!(has(&handle, "again").unwrap() && !has(&handle, "refused").unwrap());
}

#[test]
fn a_file_that_is_damaged_or_gone_is_left_to_the_next_start() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 3] = [
        ("text", |path| std::fs::write(path, "this is no database").unwrap()),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("gone", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (what, damage) in cases {
        let scratch = tempfile::tempdir().unwrap();
        let (handle, fails) = flaky(scratch.path());
        fails.store(Errno::IO.raw_os_error(), Ordering::Relaxed);
        put(&handle, "lost").unwrap_err();
        damage(&handle.path);
        for _ in 0..2 {
            let error = has(&handle, "anything").unwrap_err();
            assert!(error.to_string().contains("damaged"), "{what}: {error}");
            assert!(handle.is_damaged(), "{what}");
        }
        let names = std::fs::read_dir(scratch.path()).unwrap().count();
        assert!(names <= 1, "{what}: nothing is set aside or made while the process runs");
        drop(handle);
        let (_, recovery) = Store::open(scratch.path()).unwrap();
        assert_eq!(recovery.is_some(), what != "gone", "{what}");
    }
}

#[test]
fn a_panic_in_a_transaction_is_followed_by_a_fresh_opening() {
    let scratch = tempfile::tempdir().unwrap();
    let (handle, _) = flaky(scratch.path());
    put(&handle, "before").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        handle.with(|database| -> Outcome<()> {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert("half", [1u8].as_slice())?;
            panic!("a bug");
        })
    }));
    assert!(panicked.is_err());
    put(&handle, "after").unwrap();
    assert!(has(&handle, "before").unwrap() && !has(&handle, "half").unwrap());
}
