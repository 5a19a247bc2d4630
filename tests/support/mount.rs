//! Small file systems to fill, and directories that can be made read-only: mounts that end with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::is_root;

/// A mount, taken away when dropped.
#[derive(Debug)]
pub struct Mount {
    pub path: PathBuf,
}

fn mount(arguments: &[&str], path: &Path) -> Result<Mount, String> {
    if !is_root() {
        return Err("mounting needs root".to_owned());
    }
    let output =
        Command::new("mount").args(arguments).arg(path).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(Mount { path: path.to_owned() })
}

/// A file system in memory at `path`, which is made; `options` as `size=16m,nr_inodes=200`.
pub fn memory(path: &Path, options: &str) -> Result<Mount, String> {
    fs::create_dir_all(path).unwrap();
    mount(&["-t", "tmpfs", "-o", options, "none"], path)
}

/// A file system of 400 MB at `path` that can share blocks between files, in the file `image`; both are made.
pub fn sharing_blocks(image: &Path, path: &Path) -> Result<Mount, String> {
    fs::create_dir_all(path).unwrap();
    fs::File::create(image).unwrap().set_len(400 << 20).unwrap();
    let made = Command::new("mkfs.xfs").args(["-q", "-f", "-m", "reflink=1"]).arg(image).output();
    let made = made.map_err(|error| format!("mkfs.xfs: {error}"))?;
    if !made.status.success() {
        return Err(format!("mkfs.xfs: {}", String::from_utf8_lossy(&made.stderr).trim()));
    }
    mount(&["-o", "loop", image.to_str().unwrap()], path)
}

/// Mounts `path` onto itself, so that it can be made read-only without anything else.
pub fn itself(path: &Path) -> Result<Mount, String> {
    let own = path.to_str().unwrap().to_owned();
    mount(&["--bind", &own], path)
}

impl Mount {
    /// From now on nobody can write there, or everybody again.
    pub fn read_only(&self, read_only: bool) {
        let word = if read_only { "remount,bind,ro" } else { "remount,bind,rw" };
        let output = Command::new("mount").args(["-o", word]).arg(&self.path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Fills it until only about `left` bytes are free.
    pub fn fill(&self, left: u64) -> Ballast {
        let path = self.path.join("ballast");
        let file = fs::File::create(&path).unwrap();
        let free = self.free();
        if free > left {
            // As far as it goes: the last page may be needed for the file itself.
            let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - left);
        }
        Ballast { path }
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let system = rustix::fs::statvfs(&self.path).unwrap();
        system.f_bavail * system.f_frsize
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

/// A file that takes up room.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Gives the room back.
    pub fn remove(self) {
        fs::remove_file(&self.path).unwrap();
    }
}
