//! Small JSON documents of the state directory that several processes change: the daemon, and commands beside it.
//!
//! A document that cannot be read counts as empty, because nothing but an answer to "when" is lost with it. One that is damaged is
//! set aside before it is written ([`mend`]), so that it is not lost as well.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::file_lock::LockedFile;
use crate::private_file;
use crate::small_state::{self, Aside};

/// Far more than thousands of remotes need.
const LIMIT: u64 = 16 << 20;

/// Sets the document aside if it is damaged, while nobody else changes it.
pub(crate) fn mend<D: DeserializeOwned>(
    state_dir: &Path,
    name: &str,
    lost: &'static str,
) -> Result<Option<Aside>> {
    let file = state_dir.join(format!("{name}.json"));
    // Most of the time there is nothing to do, and then nothing is locked either.
    if small_state::damage::<D>(&file, LIMIT).is_none() {
        return Ok(None);
    }
    let _lock = lock(state_dir, name)?;
    small_state::mend::<D>(&file, LIMIT, lost)
}

fn lock(state_dir: &Path, name: &str) -> Result<LockedFile> {
    let path = state_dir.join(format!("{name}.lock"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&path).map_err(|error| Error::io("open", &path, error))?;
    LockedFile::wait(lock).map_err(|error| Error::io("lock", &path, error))
}

/// Reads `<state_dir>/<name>.json`.
pub(crate) fn read<D: DeserializeOwned + Default>(state_dir: &Path, name: &str) -> D {
    let path = state_dir.join(format!("{name}.json"));
    let bytes = private_file::read_small(&path, LIMIT).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Changes it, while nobody else does.
pub(crate) fn change<D: Serialize + DeserializeOwned + Default>(
    state_dir: &Path,
    name: &str,
    change: impl FnOnce(&mut D),
) -> Result<()> {
    let _lock = lock(state_dir, name)?;
    let path = state_dir.join(format!("{name}.json"));
    small_state::mend::<D>(&path, LIMIT, "")?;
    let mut document: D = read(state_dir, name);
    let before = serde_json::to_vec_pretty(&document).ok();
    change(&mut document);
    let bytes = serde_json::to_vec_pretty(&document)
        .map_err(|error| Error::with_source(Kind::Internal, format!("cannot write {name}.json"), error))?;
    if before.as_ref() == Some(&bytes) && path.exists() {
        return Ok(());
    }
    private_file::write(&path, &bytes)
}
