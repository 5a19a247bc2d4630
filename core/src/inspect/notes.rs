//! Small JSON documents of the state directory that several processes change: the daemon, and commands beside it.
//!
//! A document that cannot be read counts as empty, because nothing but an answer to "when" is lost with it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::private_file;

/// Far more than thousands of remotes need.
const LIMIT: u64 = 16 << 20;

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
    let lock_path = state_dir.join(format!("{name}.lock"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&lock_path).map_err(|error| Error::io("open", &lock_path, error))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| Error::io("lock", &lock_path, error))?;
    let mut document: D = read(state_dir, name);
    let path = state_dir.join(format!("{name}.json"));
    let before = serde_json::to_vec_pretty(&document).ok();
    change(&mut document);
    let bytes = serde_json::to_vec_pretty(&document)
        .map_err(|error| Error::with_source(Kind::Internal, format!("cannot write {name}.json"), error))?;
    if before.as_ref() == Some(&bytes) && path.exists() {
        return Ok(());
    }
    private_file::write(&path, &bytes)
}
