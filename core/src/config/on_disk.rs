//! Whether the configuration's file says something else than before.
//!
//! In go looks at a path with their times, out comes when the file is worth reading. A look follows every link, so whatever
//! makes the path lead to other bytes is seen: an editor that renames a new file over the old one, a link somewhere on the
//! way that is swapped, as Kubernetes does for a ConfigMap, a file written in place, one that is gone or back. What counts
//! in the end is the checksum of what stands there; a look only saves the reading.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::MAX_FILE_BYTES;

/// A file that changed is read when it has been still for so long: whoever writes it is done by then.
const QUIET: Duration = Duration::from_secs(2);
/// One that is never still is read all the same, and no more often than this.
const LONGEST: Duration = Duration::from_secs(10);
/// It is read this often whatever looks say: a time stamp is as coarse as the file system makes it.
const READ_ANYWAY: Duration = Duration::from_secs(30);

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A file: device, inode, size, and when contents and inode changed, in seconds and nanoseconds.
    File([i128; 5]),
    /// A pipe or a device, which nobody can read twice.
    Stream,
    /// Nothing that can be looked at, for this reason.
    Gone(String),
}

impl Mark {
    /// That of what `path` leads to now.
    pub fn of(path: &Path) -> Self {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) => return Self::Gone(error.to_string()),
        };
        if !found.is_file() {
            return if found.is_dir() { Self::Gone("it is a directory".to_owned()) } else { Self::Stream };
        }
        let at =
            |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self::File([
            found.dev().into(),
            found.ino().into(),
            found.size().into(),
            at(found.mtime(), found.mtime_nsec()),
            at(found.ctime(), found.ctime_nsec()),
        ])
    }
}

/// Decides from looks when to read. All times are passed in.
#[derive(Debug, Default)]
pub struct Looks {
    seen: Option<Mark>,
    /// The first and the latest look since the last reading that saw something new.
    unread: Option<(Instant, Instant)>,
    read: Option<Instant>,
}

impl Looks {
    /// Takes in a look; whether the file is to be read now. It counts as read if so.
    pub fn are_worth_reading(&mut self, mark: Mark, now: Instant) -> bool {
        if self.seen.as_ref() != Some(&mark) {
            let first = self.unread.map_or(now, |(first, _)| first);
            self.unread = Some((first, now));
        }
        let is_stream = mark == Mark::Stream;
        self.seen = Some(mark);
        let is_still = self.unread.is_some_and(|(first, latest)| {
            now.saturating_duration_since(latest) >= QUIET || now.saturating_duration_since(first) >= LONGEST
        });
        let is_time = self.unread.is_none()
            && self.read.is_none_or(|read| now.saturating_duration_since(read) >= READ_ANYWAY);
        if is_stream || !(is_still || is_time) {
            return false;
        }
        self.unread = None;
        self.read = Some(now);
        true
    }
}

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnDisk {
    /// Text with this checksum.
    Text(String),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl OnDisk {
    /// What stands there now.
    pub fn of(path: &Path) -> Self {
        match read(path) {
            Ok(text) => Self::Text(checksum(&text)),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// The text of a configuration, and one byte over the limit if it has more: that is enough to know. A device or a pipe may
/// have no size to ask for.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// By which one text is told from another.
pub(super) fn checksum(text: &[u8]) -> String {
    blake3::hash(text).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn file(version: i128) -> Mark {
        Mark::File([1, 2, 3, version, version])
    }

    /// At which of the seconds, from the first on, the file is read; `marks` has one a second.
    fn read_at(marks: impl IntoIterator<Item = Mark>) -> Vec<usize> {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let mut read = Vec::new();
        for (second, mark) in marks.into_iter().enumerate() {
            if looks.are_worth_reading(mark, start + Duration::from_secs(second as u64)) {
                read.push(second);
            }
        }
        read
    }

    #[test]
    fn a_file_is_read_at_the_start_and_when_a_change_has_come_to_rest() {
        let mut marks = vec![file(1); 5];
        marks.extend([file(2), file(3)]);
        marks.extend(vec![file(3); 10]);
        assert_eq!(read_at(marks), [2, 8], "changed in seconds 5 and 6, still since");
    }

    #[test]
    fn a_storm_is_read_every_ten_seconds_and_once_when_it_is_over() {
        let storm = (0..35).map(file).chain(vec![file(35); 5]);
        assert_eq!(read_at(storm), [10, 21, 32, 37]);
    }

    #[test]
    fn what_looks_do_not_tell_is_found_by_reading_anyway() {
        assert_eq!(read_at(vec![file(1); 70]), [2, 32, 62]);
    }

    #[test]
    fn a_file_that_is_gone_is_tried_once_and_again_when_it_is_back() {
        let gone = || Mark::Gone("no such file".to_owned());
        let mut marks = vec![file(1); 3];
        marks.extend(vec![gone(); 5]);
        marks.extend(vec![file(2); 4]);
        assert_eq!(read_at(marks), [2, 5, 10]);
        assert_eq!(read_at(vec![Mark::Stream; 100]), [0; 0], "a pipe is never read again");
    }

    #[test]
    fn a_swapped_link_a_renamed_file_and_one_written_in_place_are_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for (version, text) in [("v1", "a"), ("v2", "b")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.yaml"), text).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        let path = at("config.yaml");
        let before = (Mark::of(&path), OnDisk::of(&path));
        symlink("v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        let swapped = (Mark::of(&path), OnDisk::of(&path));
        assert!(before.0 != swapped.0 && before.1 != swapped.1, "{before:?} {swapped:?}");

        fs::write(at("new"), "c").unwrap();
        fs::rename(at("new"), &path).unwrap();
        let renamed = (Mark::of(&path), OnDisk::of(&path));
        assert!(swapped.0 != renamed.0 && swapped.1 != renamed.1, "{swapped:?} {renamed:?}");
        fs::write(&path, "longer").unwrap();
        assert_ne!(Mark::of(&path), renamed.0);

        fs::remove_file(&path).unwrap();
        assert!(matches!(Mark::of(&path), Mark::Gone(_)), "{:?}", Mark::of(&path));
        assert!(matches!(OnDisk::of(&path), OnDisk::Unreadable(_)));
        fs::create_dir(&path).unwrap();
        assert!(matches!(Mark::of(&path), Mark::Gone(_)), "a directory is no configuration");
        assert_eq!(Mark::of(Path::new("/dev/null")), Mark::Stream);
    }
}
