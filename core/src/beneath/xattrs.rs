//! The extended attributes of an open file or directory, as far as a restore can put them back.

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use std::os::unix::ffi::OsStrExt;

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use rustix::io::Errno;

use super::Unseen;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use super::{retry, unseen};

/// Extended attributes: names with their values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of an open file or directory that a restore can put back: the `user.` name space,
/// access lists and capabilities. An empty list where the file system has none; one that the disk fails to give
/// makes the whole entry unreadable, because it would be missing for ever. On macOS, where names have no spaces:
/// all that an owner may set. On the BSDs, whose calls for attributes are others: none.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub fn xattrs_of(file: BorrowedFd<'_>) -> Result<Xattrs, Unseen> {
    let Some(names) = in_growing_buffer(|buffer| rustix::fs::flistxattr(file, buffer))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| is_kept_xattr(name)) {
        let name_text = OsStr::from_bytes(name);
        if let Some(value) = in_growing_buffer(|buffer| rustix::fs::fgetxattr(file, name_text, buffer))? {
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// See above.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub fn xattrs_of(_: BorrowedFd<'_>) -> Result<Xattrs, Unseen> {
    Ok(Vec::new())
}

/// Calls with a buffer that most answers fit in, and again with the largest that Linux allows. `None` for what
/// is not there or not for us.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn in_growing_buffer(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> Result<Option<Vec<u8>>, Unseen> {
    const USUAL_BYTES: usize = 512;
    const MOST_BYTES: usize = 64 * 1024;
    let mut small = [0u8; USUAL_BYTES];
    let answer = match retry(|| call(&mut small)) {
        Ok(length) => return Ok(Some(small[..length].to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; MOST_BYTES];
            retry(|| call(&mut large)).map(|length| {
                large.truncate(length);
                large
            })
        }
        Err(errno) => Err(errno),
    };
    match answer {
        Ok(bytes) => Ok(Some(bytes)),
        Err(errno @ (Errno::IO | Errno::NOMEM | Errno::STALE | Errno::TIMEDOUT)) => Err(unseen(errno)),
        Err(_) => Ok(None),
    }
}

/// What the system keeps for itself cannot be put back.
#[cfg(target_vendor = "apple")]
fn is_kept_xattr(name: &[u8]) -> bool {
    let of_the_system: [&[u8]; 3] = [b"com.apple.system.", b"com.apple.provenance", b"com.apple.macl"];
    !name.is_empty() && !of_the_system.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(target_os = "linux")]
fn is_kept_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn extended_attributes_are_read_whatever_their_size() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("f"), "x").unwrap();
        let file = fs::File::open(scratch.path().join("f")).unwrap();
        let set = |name: &str, value: &[u8]| {
            rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty())
        };
        if set("user.small", b"v").is_err() {
            eprintln!("not tested: no extended attributes here");
            return;
        }
        let large = vec![7u8; 2000];
        set("user.large", &large).unwrap();
        set("user.empty", b"").unwrap();
        let expected: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b"user.empty".to_vec(), Vec::new()),
            (b"user.large".to_vec(), large),
            (b"user.small".to_vec(), b"v".to_vec()),
        ];
        assert_eq!(xattrs_of(file.as_fd()), Ok(expected));
    }
}
