//! Reading the ignore files of one directory.
//!
//! In go the root, a directory below it and the names that count; out come the rules of those that exist, in
//! the order of the names, with what is wrong with them. Nothing outside the root is ever read, no link is
//! followed, and neither a pipe nor a device can make the reader wait.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::pattern::{Line, Pattern};
use super::{MAX_IGNORE_FILE, Problem, Rules};
use crate::beneath::open;
use crate::path::RelPath;

/// An ignore file that is there.
pub(super) struct Found {
    pub file: RelPath,
    pub rules: Rules,
    pub bytes: usize,
    pub problem: Option<Problem>,
}

/// Reads the files called `names` in the open directory `opened`, which is `directory`.
pub(super) fn read_in(opened: BorrowedFd<'_>, directory: &RelPath, names: &[Box<[u8]>]) -> Vec<Found> {
    names.iter().filter_map(|name| read_one(opened, directory.join(name), name)).collect()
}

/// Reads the files called `names` in `directory`. A directory that is not there, or no longer, has none.
pub(super) fn read_all(root: &Path, directory: &RelPath, names: &[Box<[u8]>]) -> Vec<Found> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    #[cfg(target_os = "linux")]
    let flags = flags | OFlags::PATH;
    let opened = open::open_root(root).and_then(|root| open::open(root.as_fd(), directory, flags));
    match opened {
        Ok(opened) => read_in(opened.as_fd(), directory, names),
        // Gone, replaced or closed to us: whoever walks the tree finds the same and says so.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::ACCESS) => Vec::new(),
        Err(errno) => {
            let error = io::Error::from(errno);
            let reason =
                format!("ignore files in {directory:?} are not obeyed: it cannot be opened: {error}");
            let problem = Some(Problem { file: Some(directory.clone()), reason });
            vec![Found { file: directory.clone(), rules: Rules::default(), bytes: 0, problem }]
        }
    }
}

fn read_one(directory: BorrowedFd<'_>, file: RelPath, name: &[u8]) -> Option<Found> {
    let content = match read(directory, name) {
        Ok(content) => content,
        Err(Trouble::Absent) => return None,
        Err(Trouble::Unusable(what)) => {
            let reason = format!("the ignore file {file} is not obeyed: {what}");
            let problem = Some(Problem { file: Some(file.clone()), reason });
            return Some(Found { file, rules: Rules::default(), bytes: 0, problem });
        }
    };
    let (rules, void) = compile(&content);
    let problem = void.map(|(line, reason, count)| {
        let more = if count > 1 { format!(", and so do {} more lines", count - 1) } else { String::new() };
        let reason = format!("line {line} of the ignore file {file} excludes nothing: {reason}{more}");
        Problem { file: Some(file.clone()), reason }
    });
    Some(Found { file, rules, bytes: content.len(), problem })
}

/// The rules, and of the lines that can match nothing: the first, why, and how many there are.
fn compile(content: &[u8]) -> (Rules, Option<(u32, &'static str, usize)>) {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut rules = Rules::default();
    let mut void: Option<(u32, &'static str, usize)> = None;
    for (line, number) in content.split(|byte| *byte == b'\n').zip(1u32..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match Pattern::parse(line, number) {
            Line::Blank => {}
            Line::Pattern(pattern) => rules.patterns.push(pattern),
            Line::Void(reason) => void.get_or_insert((number, reason, 0)).2 += 1,
        }
    }
    rules.patterns.shrink_to_fit();
    (rules, void)
}

enum Trouble {
    Absent,
    Unusable(String),
}

fn read(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Trouble> {
    let opened = open_regular(directory, name)?;
    let unusable = |error: io::Error| Trouble::Unusable(format!("it cannot be read: {error}"));
    let mut content = Vec::new();
    std::fs::File::from(opened).take(MAX_IGNORE_FILE + 1).read_to_end(&mut content).map_err(unusable)?;
    if content.len() as u64 > MAX_IGNORE_FILE {
        let limit = MAX_IGNORE_FILE / 1024 / 1024;
        return Err(Trouble::Unusable(format!("it is larger than {limit} MiB")));
    }
    Ok(content)
}

fn open_regular(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(Trouble::Absent),
        // MLINK is what FreeBSD says.
        Err(Errno::LOOP | Errno::MLINK) => {
            return Err(Trouble::Unusable("it is a symbolic link".to_owned()));
        }
        Err(Errno::NXIO) => return Err(Trouble::Unusable("it is not a regular file".to_owned())),
        Err(errno) => {
            return Err(Trouble::Unusable(format!("it cannot be opened: {}", io::Error::from(errno))));
        }
    };
    match rustix::fs::fstat(&opened) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(opened),
        Ok(_) => Err(Trouble::Unusable("it is not a regular file".to_owned())),
        Err(errno) => Err(Trouble::Unusable(format!("it cannot be examined: {}", io::Error::from(errno)))),
    }
}
