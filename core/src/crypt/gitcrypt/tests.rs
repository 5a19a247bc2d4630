//! The real git-crypt as the judge of our key files and ciphertexts, both ways.

pub(in crate::crypt) mod program;
mod streams;
mod wrapping;

use std::fs;

use super::cipher::{self, Decrypting, Encrypting, Nonce};
use super::key::{KeyFile, KeyName};
use crate::error::Kind;
use crate::progress::Progress;
use program::GitCrypt;

/// A key and the ciphertext of `hello\n`, made by git-crypt 0.7.0.
const KEY: &str = "0047495443525950544b45590000000200000000000000010000000400000000000000030000002090f5a3658553d2ada430a5ebaf7f26a724e43c3bd47c4cd09207c147f352b25e000000050000004079e7c25e90048075144e16c81c2580ea757258288f7f20cba76cbf660951607f08b2343a18dfc83c6538aca11c0f7fa46cfe8ee4bd6c16be26292d0240f19af400000000";
const CIPHERTEXT: &str = "0047495443525950540077c42bdd5889365c101160ec388271677fbb";

/// Around a block, a piece and a mebibyte.
const SIZES: [usize; 10] =
    [0, 1, 15, 16, 17, 64 * 1024, 64 * 1024 + 1, 1024 * 1024 - 1, 1024 * 1024, 3 * 1024 * 1024];

pub(super) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Bytes that are no two blocks alike.
pub(in crate::crypt) fn sample(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&size.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The most memory that this process has had at once, in bytes.
pub(in crate::crypt) fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

pub(in crate::crypt) fn encrypt(key: &KeyFile, plaintext: &[u8]) -> Vec<u8> {
    let key = key.current().unwrap();
    let nonce = Nonce::of(key, plaintext, &Progress::new()).unwrap();
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut Encrypting::new(key, nonce, plaintext), &mut out).unwrap();
    assert_eq!(out.len() as u64, nonce.encrypted_size());
    assert_eq!(out, cipher::encrypt_whole(key, plaintext).unwrap());
    out
}

fn decrypt(key: &KeyFile, ciphertext: &[u8]) -> crate::error::Result<Vec<u8>> {
    let whole = cipher::decrypt_whole(&[&key.versions()[0]], ciphertext);
    let streamed = Decrypting::new(&key.versions()[0], ciphertext).and_then(|mut reader| {
        let mut out = Vec::new();
        let read = std::io::Read::read_to_end(&mut reader, &mut out);
        read.map(|_| out).map_err(|error| crate::crypt::error_of(error, "read"))
    });
    assert_eq!(whole.as_ref().ok(), streamed.as_ref().ok());
    streamed
}

#[test]
fn a_key_and_a_ciphertext_of_the_real_program_are_read_and_made_again_byte_for_byte() {
    let key = KeyFile::parse(&hex(KEY), "k").unwrap();
    assert_eq!(key.to_bytes().as_slice(), hex(KEY));
    assert_eq!((key.name(), key.versions().len(), key.current().unwrap().version()), (None, 1, 0));
    assert_eq!(decrypt(&key, &hex(CIPHERTEXT)).unwrap(), b"hello\n");
    assert_eq!(encrypt(&key, b"hello\n"), hex(CIPHERTEXT));
}

#[test]
fn the_real_program_makes_the_same_ciphertext_of_every_size_and_reads_ours() {
    let bench = GitCrypt::new();
    let theirs = KeyFile::parse(&bench.key_made_by_program(), "k").unwrap();
    let ours = KeyFile::generate(None).unwrap();
    for key in [&theirs, &ours] {
        for size in SIZES {
            let plaintext = sample(size);
            let ciphertext = encrypt(key, &plaintext);
            assert!(ciphertext == bench.clean(key, &plaintext).unwrap(), "{size}");
            assert!(plaintext == bench.smudge(key, &ciphertext).unwrap(), "{size}");
            assert!(plaintext == decrypt(key, &ciphertext).unwrap(), "{size}");
            assert!(cipher::has_header(&ciphertext));
        }
    }
}

#[test]
fn an_empty_file_is_written_as_the_real_program_does_and_read_in_both_forms() {
    let key = KeyFile::generate(None).unwrap();
    let header = encrypt(&key, b"");
    assert_eq!(header.len(), 22);
    for form in [&b""[..], &header] {
        assert_eq!(decrypt(&key, form).unwrap(), b"");
        assert_eq!(GitCrypt::new().smudge(&key, form).unwrap(), b"");
    }
}

#[test]
fn a_clone_is_unlocked_by_the_real_program_and_equals_what_was_encrypted() {
    let bench = GitCrypt::new();
    let key = KeyFile::generate(None).unwrap();
    let files: Vec<_> = SIZES.iter().map(|size| (format!("dir/{size}.bin"), sample(*size))).collect();
    let stored: Vec<_> = files.iter().map(|(path, bytes)| (path.clone(), encrypt(&key, bytes))).collect();
    let clone = bench.clone_of(&stored);
    for (path, bytes) in &stored {
        assert!(&fs::read(clone.join(path)).unwrap() == bytes, "{path}");
    }
    bench.unlock_with_key(&clone, &key);
    for (path, bytes) in &files {
        assert!(&fs::read(clone.join(path)).unwrap() == bytes, "{path}");
    }
    assert_eq!(bench.changes_in(&clone), "");
}

#[test]
fn a_named_key_is_written_as_the_real_program_writes_it() {
    let bench = GitCrypt::new();
    let theirs = bench.named_key_made_by_program("team-1_x");
    let key = KeyFile::parse(&theirs, "k").unwrap();
    assert_eq!(key.name().unwrap().as_str(), "team-1_x");
    assert_eq!(key.to_bytes().as_slice(), theirs);
    let ours = KeyFile::generate(Some(KeyName::new("other").unwrap())).unwrap();
    assert_eq!(bench.smudge(&ours, &encrypt(&ours, b"x")).unwrap(), b"x");
    for bad in ["", "default", "a b", "a/b", "..", "ü", &"x".repeat(129)] {
        assert_eq!(KeyName::new(bad).unwrap_err().kind(), Kind::EncryptionKey);
    }
}

#[test]
fn the_real_program_cannot_read_what_another_version_than_0_encrypted_so_neither_encrypts_here() {
    let bench = GitCrypt::new();
    let mut rotated = hex(KEY);
    // The same entry once more in front, as the newer version, with another key.
    let mut entry = rotated[20..].to_vec();
    entry[11] = 1;
    entry[20] ^= 1;
    rotated.splice(20..20, entry);
    let key = KeyFile::parse(&rotated, "k").unwrap();
    assert_eq!(key.to_bytes().as_slice(), rotated);
    assert_eq!(key.versions().iter().map(|version| version.version()).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(key.current().unwrap_err().kind(), Kind::EncryptionKey);
    let made = bench.clean(&key, b"text").unwrap();
    bench.smudge(&key, &made).unwrap_err();
    // We read it all the same.
    let versions: Vec<_> = key.versions().iter().collect();
    assert_eq!(cipher::decrypt_whole(&versions, &made).unwrap(), b"text");
    let found = cipher::key_of(&versions, &made[..], &Progress::new()).unwrap().unwrap();
    assert_eq!(found.version(), 1);
    let other = KeyFile::generate(None).unwrap();
    let others: Vec<_> = other.versions().iter().collect();
    assert!(cipher::key_of(&others, &made[..], &Progress::new()).unwrap().is_none());
    assert!(cipher::key_of(&others, &b""[..], &Progress::new()).unwrap().is_some());
}

#[test]
fn a_key_file_that_is_none_is_refused_with_its_place_and_the_remedy() {
    let valid = hex(KEY);
    let mut unknown_odd = valid.clone();
    unknown_odd[23] = 7;
    let mut newer = valid.clone();
    newer[15] = 3;
    let mut twice = valid.clone();
    twice.extend_from_slice(&valid[20..]);
    let mut unknown_header = valid.clone();
    unknown_header.splice(16..16, [0, 0, 0, 9, 0, 0, 0, 0]);
    let mut without_hmac = valid[..72].to_vec();
    without_hmac.extend_from_slice(&[0; 4]);
    for (bytes, word) in [
        (vec![], "empty"),
        (vec![0; 96], "migrate-key"),
        (b"-----BEGIN PGP MESSAGE-----".to_vec(), "OpenPGP"),
        (b"password".to_vec(), "export-key"),
        (valid[..147].to_vec(), "damaged"),
        (valid[..20].to_vec(), "no key in it"),
        (unknown_odd, "newer"),
        (unknown_header, "newer"),
        (newer, "newer"),
        (twice, "twice"),
        (without_hmac, "damaged"),
    ] {
        let error = KeyFile::parse(&bytes, "/etc/key").unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::EncryptionKey);
        assert!(text.contains("/etc/key") && text.contains(word), "{text}");
    }
    let mut unknown_even = valid.clone();
    unknown_even.splice(16..16, [0, 0, 0, 8, 0, 0, 0, 2, 1, 1]);
    assert_eq!(KeyFile::parse(&unknown_even, "k").unwrap().to_bytes().as_slice(), valid);
}

#[test]
fn debug_of_a_key_shows_nothing_of_it() {
    let key = KeyFile::parse(&hex(KEY), "k").unwrap();
    let shown = format!("{key:?}");
    assert_eq!(shown, "KeyFile { name: None, versions: [KeyVersion { version: 0, .. }] }");
}
