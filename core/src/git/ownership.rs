//! Whose the files are that we put into a repository.
//!
//! This process makes everything for itself alone. In a repository that others use too, on a disk that belongs to
//! somebody else for example, a pack that only we may read breaks the repository for its owner. So what is put
//! into a directory gets the permissions, and as far as the system lets us the owner, of that directory. In
//! repositories of our own that changes nothing.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Permission bits for one class of users.
const ONE_CLASS: u32 = 0o7;
const SET_GROUP_ID: u32 = 0o2000;

/// Gives the file or directory at `path`, which we have just made, to whom `directory` belongs, with no more
/// permissions than it gives. What the system does not let us do is left: where it matters, the owner sees it.
///
/// The directory's owner may put something else in the place of what we made while we look. So all is done through
/// one descriptor, never through a link, and only to what is ours and has no other name.
pub(crate) fn follow(path: &Path, directory: &Path) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(open) = rustix::fs::open(path, flags, Mode::empty()) else { return };
    let open = File::from(open);
    let (Ok(own), Ok(like)) = (open.metadata(), fs::metadata(directory)) else { return };
    let is_plain = own.is_dir() || (own.is_file() && own.nlink() == 1);
    if !is_plain || own.uid() != rustix::process::geteuid().as_raw() {
        return;
    }
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        let whole = std::os::unix::fs::fchown(&open, Some(like.uid()), Some(like.gid()));
        // Whoever is not root may still give it to a group of his own.
        let _ = whole.or_else(|_| std::os::unix::fs::fchown(&open, None, Some(like.gid())));
    }
    let for_owner = (own.mode() >> 6) & ONE_CLASS;
    let for_all = for_owner << 6 | for_owner << 3 | for_owner;
    let inherited = if own.is_dir() { like.mode() & SET_GROUP_ID } else { 0 };
    let mode = (for_all & like.mode()) | for_owner << 6 | inherited;
    if mode != own.mode() & 0o7777 {
        let _ = open.set_permissions(fs::Permissions::from_mode(mode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_directory_is_as_open_as_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "x").unwrap();
        for (directory, before, after) in
            [(0o755, 0o400, 0o444), (0o775, 0o600, 0o664), (0o700, 0o444, 0o400), (0o2770, 0o400, 0o440)]
        {
            fs::set_permissions(scratch.path(), fs::Permissions::from_mode(directory)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(before)).unwrap();
            follow(&file, scratch.path());
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, after, "{directory:o}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let (victim, other_name) = (elsewhere.path().join("victim"), elsewhere.path().join("other"));
        fs::write(&victim, "x").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        follow(&link, scratch.path());
        fs::hard_link(&victim, &other_name).unwrap();
        follow(&other_name, scratch.path());
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o7777, 0o600, "not through links");
        let below = scratch.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o2775)).unwrap();
        follow(&below, scratch.path());
        assert_eq!(fs::metadata(&below).unwrap().permissions().mode() & 0o7777, 0o2775);
    }
}
