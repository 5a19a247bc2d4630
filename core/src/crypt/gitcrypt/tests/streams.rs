//! Streams: any chunking, any damage, any garbage, and the largest file there can be.

use std::io::{self, Read, Write};

use proptest::prelude::*;

use super::super::cipher::{self, Decrypting, Encrypting, LARGEST, Nonce};
use super::super::key::KeyFile;
use super::program::GitCrypt;
use super::{KEY, decrypt, encrypt, hex, peak_memory, sample};
use crate::error::Kind;
use crate::progress::Progress;

/// Gives at most so many bytes at a time, in turn.
struct Chunked<'b> {
    rest: &'b [u8],
    steps: Vec<usize>,
    at: usize,
}

impl Read for Chunked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let step = self.steps[self.at % self.steps.len()];
        self.at += 1;
        let most = out.len().min(step);
        self.rest.read(&mut out[..most])
    }
}

fn drain(mut reader: impl Read, steps: &[usize]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buffer = vec![0; *steps.iter().max().unwrap()];
    for step in steps.iter().cycle() {
        match reader.read(&mut buffer[..*step])? {
            0 => break,
            read => out.extend_from_slice(&buffer[..read]),
        }
    }
    // The end stays the end.
    assert_eq!(reader.read(&mut buffer)?, 0);
    Ok(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_round_trip_gives_the_same_bytes_at_any_chunking(
        size in 0_usize..200_000,
        steps in proptest::collection::vec(1_usize..70_000, 1..5),
        others in proptest::collection::vec(1_usize..70_000, 1..5),
    ) {
        let key = KeyFile::parse(&hex(KEY), "k").unwrap();
        let key = key.current().unwrap();
        let plaintext = sample(size);
        let source = || Chunked { rest: &plaintext, steps: steps.clone(), at: 0 };
        let nonce = Nonce::of(key, source(), &Progress::new()).unwrap();
        prop_assert_eq!(nonce, Nonce::of_bytes(key, &plaintext).unwrap());
        let ciphertext = drain(Encrypting::new(key, nonce, source()), &others).unwrap();
        prop_assert!(ciphertext == cipher::encrypt_whole(key, &plaintext).unwrap());
        let source = Chunked { rest: &ciphertext, steps: others, at: 0 };
        prop_assert!(drain(Decrypting::new(key, source).unwrap(), &steps).unwrap() == plaintext);
    }

    #[test]
    fn no_garbage_makes_a_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..200) {
        let key = KeyFile::parse(&hex(KEY), "k").unwrap();
        let _ = KeyFile::parse(&bytes, "k");
        let _ = decrypt(&key, &bytes);
        // Behind a valid beginning as well.
        let mut file = hex(KEY);
        file.truncate(cut);
        file.append(&mut bytes.clone());
        let _ = KeyFile::parse(&file, "k");
        bytes.splice(0..0, cipher::HEADER.iter().copied());
        prop_assert!(decrypt(&key, &bytes).is_err());
    }
}

#[test]
fn a_length_in_a_key_file_is_not_believed() {
    let mut bytes = hex(KEY);
    // The length of the AES key, and an unknown even field: both say 4 GiB.
    for (at, id) in [(32, 3), (32, 8)] {
        bytes[at + 3] = id;
        bytes[at + 4..at + 8].copy_from_slice(&[0xff; 4]);
        assert!(KeyFile::parse(&bytes, "k").unwrap_err().to_string().contains("damaged"));
    }
}

#[test]
fn every_flipped_bit_of_a_ciphertext_and_every_cut_is_found() {
    let key = KeyFile::generate(None).unwrap();
    let ciphertext = encrypt(&key, &sample(100));
    for bit in 0..ciphertext.len() * 8 {
        let mut damaged = ciphertext.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decrypt(&key, &damaged).unwrap_err().kind(), Kind::Git, "bit {bit}");
    }
    for length in 1..ciphertext.len() {
        assert!(decrypt(&key, &ciphertext[..length]).is_err(), "{length}");
    }
    let longer = [&ciphertext[..], b"x"].concat();
    assert!(decrypt(&key, &longer).is_err());
    assert!(decrypt(&KeyFile::generate(None).unwrap(), &ciphertext).is_err());
}

#[test]
fn of_a_damaged_file_the_last_piece_is_never_given_and_the_error_stays() {
    let key = KeyFile::generate(None).unwrap();
    for size in [10, 200_000] {
        let mut ciphertext = encrypt(&key, &sample(size));
        *ciphertext.last_mut().unwrap() ^= 1;
        let mut reader = Decrypting::new(key.current().unwrap(), &ciphertext[..]).unwrap();
        let mut given = Vec::new();
        let error = reader.read_to_end(&mut given).unwrap_err();
        assert_eq!(crate::crypt::error_of(error, "x").kind(), Kind::Git);
        assert_eq!(given.len(), size / (64 * 1024) * (64 * 1024));
        assert!(reader.read(&mut [0; 10]).is_err());
    }
}

#[test]
fn a_file_that_changed_between_both_passes_is_an_error_before_its_last_piece() {
    let key = KeyFile::generate(None).unwrap();
    let key = key.current().unwrap();
    let plaintext = sample(1000);
    let nonce = Nonce::of_bytes(key, &plaintext).unwrap();
    let mut other = plaintext.clone();
    other[0] ^= 1;
    let longer = [&plaintext[..], b"x"].concat();
    for source in [&other[..], &longer, &plaintext[..999], b""] {
        let mut reader = Encrypting::new(key, nonce, source);
        let mut given = Vec::new();
        let error = reader.read_to_end(&mut given).unwrap_err();
        assert!(crate::crypt::error_of(error, "x").to_string().contains("changed"));
        assert!(reader.read(&mut [0; 10]).is_err());
    }
    // A reader who stops at the size that was announced finds out as well.
    let mut reader = Encrypting::new(key, nonce, &other[..]);
    assert!(reader.read_exact(&mut [0; 22 + 1000]).is_err());
    let nothing = Nonce::of_bytes(key, b"").unwrap();
    assert!(Encrypting::new(key, nothing, &b"x"[..]).read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn more_than_the_format_can_hold_is_refused_with_the_limit_and_cancelling_stops() {
    cipher::check_size(LARGEST).unwrap();
    let error = cipher::check_size(LARGEST + 1).unwrap_err();
    assert!(error.kind() == Kind::TooLarge && error.to_string().contains("4 GiB"));
    let key = KeyFile::generate(None).unwrap();
    let progress = Progress::new();
    progress.cancel();
    let stopped = Nonce::of(key.current().unwrap(), io::repeat(0), &progress);
    assert_eq!(stopped.unwrap_err().kind(), Kind::Cancelled);
}

#[test]
#[ignore = "minutes, and gigabytes of disk: run it alone, with --ignored"]
fn the_largest_file_is_made_and_read_with_flat_memory_and_the_real_program_agrees() {
    let key = KeyFile::generate(None).unwrap();
    let version = key.current().unwrap();
    let progress = Progress::new();
    let plaintext = || io::repeat(b'x').take(LARGEST);
    let nonce = Nonce::of(version, plaintext(), &progress).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (stored, out) = (scratch.path().join("stored"), scratch.path().join("out"));
    let before = peak_memory();
    let mut file = std::fs::File::create(&stored).unwrap();
    let written = io::copy(&mut Encrypting::new(version, nonce, plaintext()), &mut file).unwrap();
    file.flush().unwrap();
    assert_eq!(written, nonce.encrypted_size());
    let file = std::fs::File::open(&stored).unwrap();
    assert_eq!(io::copy(&mut Decrypting::new(version, file).unwrap(), &mut io::sink()).unwrap(), LARGEST);
    assert!(peak_memory() - before < 32 * 1024 * 1024);
    GitCrypt::new().filter_file("smudge", &key, &stored, &out).unwrap();
    assert_eq!(std::fs::metadata(&out).unwrap().len(), LARGEST);
    let one_more = Nonce::of(version, io::repeat(b'x').take(LARGEST + 1), &progress);
    assert_eq!(one_more.unwrap_err().kind(), Kind::TooLarge);
}
