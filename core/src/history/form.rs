//! In which form a file's content stands in Git: as itself, or as something that stands for it.
//!
//! A git-lfs pointer or a ciphertext must never be taken for the file. A user's own file can look like either: it is
//! itself where size and checksum are those that were recorded of it.

use crate::git::contents::BEGINNING_BYTES;
use crate::metadata::Record;

/// So many bytes from the beginning of a content tell its form.
pub const HEAD_BYTES: usize = BEGINNING_BYTES;

/// What an object is, to the file that it is stored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The content.
    Content,
    /// A git-lfs pointer; the content is elsewhere.
    Pointer,
    /// Encrypted by git-crypt.
    GitCrypt,
    /// An OpenPGP message.
    OpenPgp,
}

impl Form {
    /// For messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Content => "the content",
            Self::Pointer => "a git-lfs pointer",
            Self::GitCrypt => "a ciphertext of git-crypt",
            Self::OpenPgp => "an OpenPGP message",
        }
    }
}

/// The form of an object of `size` bytes that begins with `head` ([`HEAD_BYTES`], or all of it). `checksum` is that of the
/// snapshot's records ([`Contents::checksum`](crate::git::contents::Contents::checksum)).
pub fn of(head: &[u8], size: u64, record: Option<&Record>, checksum: impl FnOnce(&[u8]) -> [u8; 32]) -> Form {
    let is_recorded_size = record.and_then(|record| record.size).map(|recorded| recorded == size);
    if is_pointer(head, size) {
        let recorded = record.and_then(|record| record.blake3);
        let is_itself = is_recorded_size == Some(true) && recorded == Some(checksum(head));
        return if is_itself { Form::Content } else { Form::Pointer };
    }
    if head.starts_with(b"\0GITCRYPT\0") && is_recorded_size != Some(true) {
        return Form::GitCrypt;
    }
    // So many files begin like this that only a record can say that this is not one of them.
    if is_openpgp(head) && is_recorded_size == Some(false) {
        return Form::OpenPgp;
    }
    Form::Content
}

/// By the specification of git-lfs: under 1024 bytes, and the version first.
fn is_pointer(head: &[u8], size: u64) -> bool {
    let versions: [&[u8]; 3] = [
        b"version https://git-lfs.github.com/spec/",
        b"version http://git-media.io/",
        b"version https://hawser.github.com/spec/",
    ];
    size < HEAD_BYTES as u64
        && head.len() as u64 == size
        && versions.iter().any(|version| head.starts_with(version))
}

/// A packet with an encrypted session key, in the old or the new format (RFC 9580), or an armoured message.
fn is_openpgp(head: &[u8]) -> bool {
    let is_packet = matches!(head.first(), Some(0x84..=0x86 | 0x8c..=0x8e | 0xc1 | 0xc3));
    is_packet || head.starts_with(b"-----BEGIN PGP MESSAGE-----")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::EntryKind;
    use crate::metadata::Mtime;

    fn recorded(content: &[u8]) -> Record {
        Record {
            name: b"x".to_vec(),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime: Mtime::default(),
            size: Some(content.len() as u64),
            blake3: Some(*blake3::hash(content).as_bytes()),
            xattrs: Default::default(),
            xattrs_omitted: false,
            hard_link: None,
            device: None,
            is_mount: false,
        }
    }

    #[test]
    fn what_stands_for_a_file_is_not_the_file_unless_it_was_recorded_so() {
        let pointer: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        let other_of_that_size = vec![7; pointer.len()];
        let git_crypt: &[u8] = b"\0GITCRYPT\0 and more";
        let armoured: &[u8] = b"-----BEGIN PGP MESSAGE-----\n";
        let checksum = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
        let form = |head: &[u8], record: Option<&[u8]>| {
            of(head, head.len() as u64, record.map(recorded).as_ref(), checksum)
        };
        assert_eq!(form(pointer, None), Form::Pointer);
        assert_eq!(form(pointer, Some(b"large")), Form::Pointer);
        assert_eq!(form(pointer, Some(&other_of_that_size)), Form::Pointer);
        assert_eq!(form(pointer, Some(pointer)), Form::Content, "a user's own file that looks like one");
        assert_eq!(form(git_crypt, None), Form::GitCrypt);
        assert_eq!(form(git_crypt, Some(b"plain")), Form::GitCrypt);
        assert_eq!(form(git_crypt, Some(git_crypt)), Form::Content);
        assert_eq!(form(armoured, Some(b"plain")), Form::OpenPgp);
        assert_eq!(form(armoured, Some(armoured)), Form::Content);
        assert_eq!(form(armoured, None), Form::Content);
        assert_eq!(form(b"plain", Some(b"otherwise")), Form::Content, "a record that is out of date");
        assert_eq!(of(pointer, 5000, None, checksum), Form::Content);
        assert_eq!(form(b"", None), Form::Content);
    }
}
