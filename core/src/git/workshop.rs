//! Where packs for a remote on a disk are made before they are put in place: directories beside the remote's
//! packs whose names tell whose they are.
//!
//! What a killed process leaves in them is swept by the next connection of the same state directory, at once,
//! and by nobody else. A merge of packs may go on while a push connects, so its directory also carries the
//! process, and only those of other processes are swept: one process a state directory makes that safe. The
//! names begin as Git's own directories for incoming objects do, which `git gc` removes when they are old.

use std::fs;
use std::path::{Path, PathBuf};

use super::pack;
use crate::error::{Error, Result};

const PREFIX: &str = "tmp_objdir-backupbot-";

/// Names this machine's repository at `path`, so that two instances never sweep each other's files.
pub fn owner_of(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(rustix::system::uname().nodename().to_bytes());
    hasher.update(&[0]);
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Makes the directory for the packs of a push to `remote`.
pub fn for_push(remote: &Path, owner: &str) -> Result<PathBuf> {
    make(remote, format!("{PREFIX}{owner}-push"))
}

/// Makes the directory for merging packs in `remote`.
pub fn for_merge(remote: &Path, owner: &str) -> Result<PathBuf> {
    make(remote, format!("{PREFIX}{owner}-merge-{}", std::process::id()))
}

fn make(remote: &Path, name: String) -> Result<PathBuf> {
    let path = remote.join("objects").join(name);
    fs::create_dir_all(&path).map_err(|error| Error::io("create", &path, error))?;
    Ok(path)
}

/// Removes what earlier pushes and merges of `owner` left in `remote`: half-made packs, and packs that stand
/// there without their index.
pub fn sweep(remote: &Path, owner: &str) {
    let objects = remote.join("objects");
    let ours = format!("{PREFIX}{owner}-");
    let in_use = format!("{ours}merge-{}", std::process::id());
    for entry in fs::read_dir(&objects).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(&ours) || name == in_use.as_str() {
            continue;
        }
        for pack in pack::waiting_in(&entry.path()) {
            let index = objects.join("pack").join(format!("{pack}.idx"));
            if index.symlink_metadata().is_err() {
                let _ = fs::remove_file(index.with_extension("pack"));
            }
        }
        let _ = fs::remove_dir_all(entry.path());
    }
}
