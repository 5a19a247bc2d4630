//! What the bytes of a blob are to the file that they are to become: its own, those of somebody who changed the history
//! with another program, or what merely stands in for it.
//!
//! In: the proof of bytes that were read, and the record of the file. Out: an answer, and words for it. [`stands_in`] tells
//! a file's own bytes from a pointer of git-lfs that leads nowhere, or a ciphertext that the snapshot does not speak of.

use crate::git::contents::Proof;
use crate::history::form::{self, Form};
use crate::metadata::Record;

/// What git-crypt writes in front of everything that it encrypts.
const CIPHER_HEADER: &[u8] = b"\0GITCRYPT\0";

/// What stands in a repository instead of a file's own bytes, in words; `None` if it is the file. `is_as_recorded`: the
/// bytes have the recorded checksum, so they are the user's, whatever they look like.
pub fn stands_in(proof: &Proof, record: Option<&Record>, is_as_recorded: bool) -> Option<&'static str> {
    if is_as_recorded {
        return None;
    }
    // A record may claim anything of bytes that do not have its checksum.
    let form = match proof.beginning.starts_with(CIPHER_HEADER) {
        true => Form::GitCrypt,
        // What has the recorded checksum got no further than the first line.
        false => form::of(&proof.beginning, proof.size, record, |_| proof.blake3),
    };
    match form {
        Form::Content => None,
        Form::Pointer => Some(
            "the repository holds a git-lfs pointer to it, and the large object that it points at is not here and at no \
             remote that could be asked; --raw restores the pointer",
        ),
        Form::GitCrypt => Some(
            "the repository holds it encrypted by git-crypt, and the snapshot does not say with which key; --raw restores \
             the ciphertext",
        ),
        Form::OpenPgp => Some(
            "the repository holds it encrypted by OpenPGP, and this version cannot decrypt it; --raw restores the \
             ciphertext",
        ),
    }
}

/// Whether the metadata speaks of these very bytes.
pub fn fits(proof: &Proof, record: &Record) -> bool {
    record.size.is_none_or(|size| size == proof.size) && record.blake3.is_none_or(|hash| hash == proof.blake3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_a_file_is_told_unless_the_checksum_says_that_it_is_the_file() {
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n", "0".repeat(64));
        let mut record = crate::restore::tests::record(b"f", crate::beneath::EntryKind::File);
        for bytes in [pointer.as_bytes(), b"\0GITCRYPT\0and so on"] {
            let proof = Proof { blake3: [0; 32], size: bytes.len() as u64, beginning: bytes.to_vec() };
            assert!(stands_in(&proof, None, false).is_some());
            record.size = Some(bytes.len() as u64);
            assert!(stands_in(&proof, Some(&record), false).is_some(), "a size alone proves nothing");
            assert_eq!(
                stands_in(&proof, Some(&record), true),
                None,
                "the user's own file that looks like one"
            );
        }
        let plain = Proof { blake3: [0; 32], size: 5, beginning: b"plain".to_vec() };
        assert_eq!(stands_in(&plain, None, false), None);
    }
}
