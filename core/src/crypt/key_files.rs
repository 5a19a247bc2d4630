//! Keys of git-crypt on disk: made, brought in, and put in the place of another, each whole or not at all.
//!
//! In: the paths of the configuration. Out: files of mode 0600 that are synced before anything is said about them. Two that
//! change keys in one directory wait for nobody: the second is refused.
//!
//! Rotation never leaves a key nowhere. At each step the process can die, and what is on disk then is enough:
//!
//! | point | `key_file` | `old_keys/<id>.key` | afterwards |
//! |---|---|---|---|
//! | before | the old key | | nothing has happened |
//! | `keys:old-kept` | the old key | the old key, synced | `rotate` again |
//! | `keys:drafted` | the old key | the old key | `rotate` again; the draft `<key_file>.new` was used for nothing |
//! | `keys:placed` | the new key | the old key | it is done |

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::gitcrypt::KeyFile;
use super::keyring::{KEY_SUFFIX, Key};
use super::policy::KeyId;
use crate::config::Gpg;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::file_lock::LockedFile;
use crate::path::lossy;

/// What is added to a key file's name until it is whole.
const DRAFT: &str = ".new";

/// Whose a key file is, and who else may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// Whether the group may read it too.
    pub group_reads: bool,
}

impl Owner {
    /// Whoever this process runs as, and nobody else.
    pub fn this_process() -> Self {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { user, group, group_reads: false }
    }

    /// As a key file that is there.
    fn of(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| Error::io("look at", path, error))?;
        Ok(Self { user: metadata.uid(), group: metadata.gid(), group_reads: metadata.mode() & 0o040 != 0 })
    }

    fn mode(self) -> u32 {
        if self.group_reads { 0o640 } else { 0o600 }
    }

    fn directory_mode(self) -> u32 {
        if self.group_reads { 0o750 } else { 0o700 }
    }

    /// Gives something that this process made to whom it belongs to.
    fn take(self, path: &Path) -> Result<()> {
        let ours = Self::this_process();
        if (ours.user, ours.group) == (self.user, self.group) {
            return Ok(());
        }
        let given = rustix::fs::chown(path, Some(Uid::from_raw(self.user)), Some(Gid::from_raw(self.group)));
        given.map_err(|error| {
            let text = format!(
                "cannot give {} to user {} and group {}, as whom BackupBot reads it: do this as that user, or as root",
                shown(path),
                self.user,
                self.group
            );
            Error::with_source(Kind::EncryptionKey, text, io::Error::from(error))
        })
    }
}

/// What became of a key that was to be put somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Written,
    /// It was there already.
    Present,
}

/// What a rotation did.
#[derive(Debug)]
pub struct Rotated {
    /// The key that encrypted until now.
    pub old: KeyId,
    /// Where it is now.
    pub kept: Vec<PathBuf>,
    /// The key that encrypts from now on.
    pub new: Key,
}

/// Makes a new key at `key_file`, and the directory if there is none.
///
/// # Errors
/// [`Kind::EncryptionKey`] if anything stands there already: nothing is ever written over a key.
pub fn create(key_file: &Path, owner: Owner) -> Result<Key> {
    let directory = directory_of(key_file)?;
    make_directory(directory, owner)?;
    let _lock = lock(directory)?;
    refuse_taken(key_file)?;
    let key = Key::new(KeyFile::generate(None)?, key_file)?;
    let draft = draft(key_file, &key, owner)?;
    place_new(&draft, key_file)?;
    Ok(key)
}

/// Makes the key of metadata and checksums where it is for us to make, and there is none yet.
///
/// # Errors
/// As [`create`].
pub fn make_if_ours(gpg: &Gpg) -> Result<()> {
    let is_there = || gpg.key_file.try_exists().map_err(|error| Error::io("look at", &gpg.key_file, error));
    if gpg.makes_key && !is_there()? {
        create(&gpg.key_file, Owner::this_process())?;
    }
    Ok(())
}

/// Puts a key that somebody has at `path`, and makes the directory if there is none.
///
/// # Errors
/// [`Kind::EncryptionKey`] if anything else than this very key stands there.
pub fn put(key: &Key, path: &Path, owner: Owner) -> Result<Put> {
    let directory = directory_of(path)?;
    make_directory(directory, owner)?;
    let _lock = lock(directory)?;
    put_locked(key, path, owner)
}

/// Puts a key among the old ones, under its id; says where that is.
///
/// # Errors
/// As [`put`].
pub fn keep_old(key: &Key, old_keys: &Path, owner: Owner) -> Result<(PathBuf, Put)> {
    let path = old_path(key.id(), old_keys);
    put(key, &path, owner).map(|put| (path, put))
}

/// Puts a new key in the place of the one at `key_file`, which goes into each of `old_keys` first. Both belong to the same user
/// as before.
///
/// # Errors
/// [`Kind::EncryptionKey`] if the present key cannot be read; of writing. The key file is as it was then.
pub fn rotate(key_file: &Path, old_keys: &[PathBuf]) -> Result<Rotated> {
    let old = Key::read(key_file)?;
    // A link stays one, and leads to the new key.
    let key_file = &fs::canonicalize(key_file).map_err(|error| Error::io("look at", key_file, error))?;
    let owner = Owner::of(key_file)?;
    let directory = directory_of(key_file)?;
    let _lock = lock(directory)?;
    let mut kept = Vec::new();
    for directory_of_old in old_keys {
        let path = old_path(old.id(), directory_of_old);
        make_directory(directory_of_old, owner)?;
        put_locked(&old, &path, owner)?;
        // What is about to be replaced must be readable there, by whatever reads it later.
        if Key::read(&path)?.id() != old.id() {
            let text = format!("{} does not hold the key that was written into it", shown(&path));
            return Err(Error::new(Kind::EncryptionKey, text));
        }
        kept.push(path);
    }
    if kept.is_empty() {
        return Err(Error::new(Kind::Internal, "there is no place for the old key"));
    }
    fault::point("keys:old-kept");
    let new = Key::new(KeyFile::generate(None)?, key_file)?;
    let draft = draft(key_file, &new, owner)?;
    fs::rename(&draft, key_file).map_err(|error| Error::io("write", key_file, error))?;
    sync_directory(directory)?;
    fault::point("keys:placed");
    Ok(Rotated { old: old.id().clone(), kept, new })
}

/// Where an old key has its place.
pub fn old_path(id: &KeyId, old_keys: &Path) -> PathBuf {
    old_keys.join(format!("{id}.{KEY_SUFFIX}"))
}

/// Writes a key for somebody to take away, as a file that `git-crypt unlock` reads or as text.
///
/// # Errors
/// [`Kind::EncryptionKey`] if anything stands there already.
pub fn hand_out(contents: &[u8], path: &Path) -> Result<()> {
    let directory = directory_of(path)?;
    refuse_taken(path)?;
    let draft = write_draft(path, contents, Owner::this_process())?;
    place_new(&draft, path)?;
    sync_directory(directory)
}

fn put_locked(key: &Key, path: &Path, owner: Owner) -> Result<Put> {
    if fs::symlink_metadata(path).is_ok() {
        let present = Key::read(path).map_err(|error| {
            let text = format!("{} holds something else already: move it away first", shown(path));
            Error::with_source(Kind::EncryptionKey, text, error.to_string())
        })?;
        if present.id() == key.id() {
            return Ok(Put::Present);
        }
        let text = format!(
            "{} holds the key {} already, not {}: nothing is written over a key; move it away first",
            shown(path),
            present.id(),
            key.id()
        );
        return Err(Error::new(Kind::EncryptionKey, text));
    }
    let draft = draft(path, key, owner)?;
    place_new(&draft, path)?;
    Ok(Put::Written)
}

fn draft(path: &Path, key: &Key, owner: Owner) -> Result<PathBuf> {
    let draft = write_draft(path, &key.file().to_bytes(), owner)?;
    fault::point("keys:drafted");
    Ok(draft)
}

/// Writes a synced neighbour of `path`; what a crash left of another is replaced.
fn write_draft(path: &Path, contents: &[u8], owner: Owner) -> Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DRAFT);
    let draft = path.with_file_name(name);
    let write = || -> io::Result<()> {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(contents)?;
        file.set_permissions(Permissions::from_mode(owner.mode()))?;
        file.sync_all()
    };
    let written = write().map_err(|error| Error::io("write", &draft, error));
    let finished = written.and_then(|()| owner.take(&draft));
    if finished.is_err() {
        let _ = fs::remove_file(&draft);
    }
    finished.map(|()| draft)
}

/// Gives a draft its name, which nothing may have by now.
fn place_new(draft: &Path, path: &Path) -> Result<()> {
    let placed = rename_to_new(draft, path);
    if let Err(error) = placed {
        let _ = fs::remove_file(draft);
        return Err(match error.kind() {
            io::ErrorKind::AlreadyExists => taken(path),
            _ => Error::io("write", path, error),
        });
    }
    sync_directory(directory_of(path)?)
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems know no such renaming.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_if_free(from, to),
        renamed => Ok(renamed?),
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    rename_if_free(from, to)
}

/// Under the directory's lock nobody of ours comes in between.
fn rename_if_free(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

fn refuse_taken(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(taken(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}

fn taken(path: &Path) -> Error {
    let text = format!(
        "{} is there already, and nothing is written over a key: `backupbot keys check` says what it is, `backupbot keys \
         rotate` puts a new key in the place of a present one",
        shown(path)
    );
    Error::new(Kind::EncryptionKey, text)
}

fn directory_of(path: &Path) -> Result<&Path> {
    let directory = path.parent().filter(|_| path.file_name().is_some());
    let directory =
        directory.map(|directory| if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
    directory.ok_or_else(|| Error::new(Kind::EncryptionKey, format!("{} is no name of a file", shown(path))))
}

/// Makes a directory that only the owner of the key may look into, and those above it that are missing.
fn make_directory(directory: &Path, owner: Owner) -> Result<()> {
    let fail = |error| Error::io("make the directory", directory, error);
    let mut missing = Vec::new();
    for place in directory.ancestors() {
        if place.as_os_str().is_empty() || place.try_exists().map_err(fail)? {
            break;
        }
        missing.push(place);
    }
    for place in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made.map_err(fail)?,
        }
        fs::set_permissions(place, Permissions::from_mode(owner.directory_mode())).map_err(fail)?;
        owner.take(place)?;
        sync_directory(directory_of(place)?)?;
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<LockedFile> {
    let opened = File::open(directory).and_then(LockedFile::where_known);
    let locked = opened.map_err(|error| Error::io("lock", directory, error))?;
    locked.ok_or_else(|| {
        let text = format!(
            "another command is changing keys in {} at this moment: try again when it is done",
            shown(directory)
        );
        Error::new(Kind::InUse, text)
    })
}

fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::io("sync", directory, error))
}

fn shown(path: &Path) -> String {
    lossy(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests;
