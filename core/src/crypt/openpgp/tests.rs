//! The real gpg as the judge of our messages, certificates and keys, both ways.

mod certificates;
pub(crate) mod gpg;

use std::io::{self, Read};

use proptest::prelude::*;

use super::header::{self, look};
use super::{PrivateKey, Recipient, decrypt, decrypt_whole, encrypt, encrypt_whole};
use crate::crypt::gitcrypt::tests::{peak_memory, sample};
use crate::error::Kind;
use crate::progress::Progress;
use crate::secret::Secret;
use gpg::Gpg;

/// More than any test takes.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Around the sizes of parts.
const SIZES: [usize; 9] =
    [0, 1, 511, 512, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 1024 * 1024, 3 * 1024 * 1024];

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn each_recipient_decrypts_what_we_made_with_gpg_and_with_us_and_nobody_else_does() {
    let people: Vec<_> = ["future-default", "rsa2048", "nistp256"]
        .into_iter()
        .map(|algorithm| Gpg::with_key(algorithm, algorithm))
        .collect();
    let eve = Gpg::with_key("eve", "future-default");
    let recipients: Vec<_> = people.iter().map(Gpg::recipient).collect();
    for size in SIZES {
        let plaintext = sample(size);
        let message = encrypt_whole(&plaintext, &recipients).unwrap();
        let header = look(&message[..message.len().min(header::ENOUGH_BYTES)]).unwrap();
        assert_eq!(header.recipients, recipients.iter().map(Recipient::key_id).collect::<Vec<_>>());
        for person in &people {
            assert!(person.decrypt(&message).unwrap() == plaintext, "{size} {}", person.fingerprint());
            assert!(
                decrypt_whole(&message, &[&eve.private(), &person.private()], LIMIT).unwrap() == plaintext
            );
        }
    }
    let message = encrypt_whole(b"x", &recipients).unwrap();
    eve.decrypt(&message).unwrap_err();
    let error = decrypt_whole(&message, &[&eve.private()], LIMIT).unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptionKey);
}

#[test]
fn what_gpg_made_is_decrypted_compressed_or_not_and_for_several() {
    let (alice, bob) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("bob", "rsa2048"));
    alice.import(&bob.certificate());
    for size in SIZES {
        // Something that compression makes smaller.
        let plaintext = [sample(size), vec![b'x'; size]].concat();
        for compression in ["0", "6"] {
            let message = alice.encrypt(&plaintext, &[alice.fingerprint(), bob.fingerprint()], compression);
            assert_eq!(look(&message).unwrap().recipients.len(), 2);
            for person in [&alice, &bob] {
                assert!(decrypt_whole(&message, &[&person.private()], LIMIT).unwrap() == plaintext);
            }
        }
    }
}

#[test]
fn a_locked_key_needs_its_passphrase_and_a_wrong_one_is_found_at_once() {
    let alice = Gpg::with_locked_key("alice", "open sesame");
    let message = encrypt_whole(b"text", &[alice.recipient()]).unwrap();
    let exported = alice.private_export();
    let right = Secret::new(b"open sesame".to_vec());
    let key = PrivateKey::parse(&exported, "/key", Some(&right)).unwrap();
    assert_eq!(key.fingerprint(), alice.fingerprint());
    assert_eq!(format!("{key:?}"), format!("PrivateKey {{ fingerprint: {:?}, .. }}", alice.fingerprint()));
    assert_eq!(decrypt_whole(&message, &[&key], LIMIT).unwrap(), b"text");
    let wrong = Secret::new(b"open barley".to_vec());
    for (passphrase, word) in [(None, "locked"), (Some(&wrong), "passphrase given")] {
        let error = PrivateKey::parse(&exported, "/key", passphrase).unwrap_err();
        let text = error.to_string();
        assert!(
            error.kind() == Kind::EncryptionKey && text.contains("/key") && text.contains(word),
            "{text}"
        );
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_message_is_found() {
    let alice = Gpg::with_key("alice", "future-default");
    let key = alice.private();
    let plaintext = b"forty-two bytes of a text that nobody knows".to_vec();
    let message = encrypt_whole(&plaintext, &[alice.recipient()]).unwrap();
    for bit in 0..message.len() * 8 {
        let mut damaged = message.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match decrypt_whole(&damaged, &[&key], LIMIT) {
            Err(_) => {}
            // The numbers of a session key have bits that no reader looks at (how many bits of the last byte count,
            // the form of a point): the session key, and so the plaintext, is proven all the same.
            Ok(same) => assert!(bit / 8 < 2 + usize::from(message[1]) && same == plaintext, "bit {bit}"),
        }
    }
    for length in 0..message.len() {
        assert!(decrypt_whole(&message[..length], &[&key], LIMIT).is_err(), "{length}");
    }
    let twice = [&message[..], &message].concat();
    assert!(decrypt_whole(&twice, &[&key], LIMIT).is_err());
    assert!(decrypt_whole(&[&message[..], b"x"].concat(), &[&key], LIMIT).is_err());
}

#[test]
fn a_damaged_large_message_is_an_error_wherever_the_damage_is() {
    let alice = Gpg::with_key("alice", "future-default");
    let key = alice.private();
    let message = encrypt_whole(&sample(400_000), &[alice.recipient()]).unwrap();
    for at in (0..message.len()).step_by(10_007).chain(message.len() - 30..message.len()) {
        let mut damaged = message.clone();
        damaged[at] ^= 0x10;
        assert!(decrypt_whole(&damaged, &[&key], LIMIT).is_err(), "{at}");
        assert!(decrypt_whole(&message[..at], &[&key], LIMIT).is_err(), "{at}");
    }
}

#[test]
fn clear_text_is_refused_although_it_is_openpgp_and_a_bomb_stops_at_the_limit() {
    let alice = Gpg::with_key("alice", "future-default");
    let clear = alice.store(b"text");
    assert_eq!(look(&clear), None);
    let error = decrypt_whole(&clear, &[&alice.private()], LIMIT).unwrap_err();
    assert!(error.kind() == Kind::Git && error.to_string().contains("clear text"), "{error}");
    let bomb = alice.encrypt(&vec![0; 4 * 1024 * 1024], &[alice.fingerprint()], "9");
    assert!(bomb.len() < 64 * 1024);
    let mut out = Vec::new();
    let error = decrypt(&bomb[..], &[&alice.private()], &mut out, 100_000, &Progress::new()).unwrap_err();
    assert!(error.to_string().contains("more than it should") && out.len() <= 100_000, "{error}");
    decrypt(&bomb[..], &[&alice.private()], io::sink(), 4 * 1024 * 1024, &Progress::new()).unwrap();
}

#[test]
fn the_same_text_gives_another_message_each_time_and_none_shows_it() {
    let alice = Gpg::with_key("alice", "future-default");
    let canary = b"CANARY-CANARY-CANARY-CANARY";
    let one = encrypt_whole(canary, &[alice.recipient()]).unwrap();
    let other = encrypt_whole(canary, &[alice.recipient()]).unwrap();
    assert_ne!(one, other);
    assert!(!one.windows(6).any(|window| canary.windows(6).any(|part| part == window)));
    assert_eq!(encrypt_whole(b"x", &[]).unwrap_err().kind(), Kind::EncryptionKey);
}

#[test]
fn trouble_at_either_end_keeps_its_kind() {
    struct Failing(u64);
    impl Read for Failing {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let given = usize::try_from(self.0).unwrap().min(out.len());
            self.0 -= given as u64;
            if given == 0 { Err(io::Error::from_raw_os_error(5)) } else { Ok(given) }
        }
    }
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(28))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let alice = Gpg::with_key("alice", "future-default");
    let (to, key, fresh) = ([alice.recipient()], alice.private(), Progress::new());
    for size in [0, 10, 200_000] {
        let error = encrypt(Failing(size), &to, io::sink(), &fresh).unwrap_err();
        assert!(error.kind() == Kind::Io && error.to_string().contains("os error 5"), "{error}");
    }
    assert_eq!(encrypt(&b"x"[..], &to, Full, &fresh).unwrap_err().kind(), Kind::DiskFull);
    let message = encrypt_whole(b"x", &to).unwrap();
    assert_eq!(decrypt(&message[..], &[&key], Full, LIMIT, &fresh).unwrap_err().kind(), Kind::DiskFull);
    let broken = io::BufReader::new((&message[..100]).chain(Failing(0)));
    assert_eq!(decrypt(broken, &[&key], io::sink(), LIMIT, &fresh).unwrap_err().kind(), Kind::Io);
    let stopped = Progress::new();
    stopped.cancel();
    assert_eq!(encrypt(&b"x"[..], &to, io::sink(), &stopped).unwrap_err().kind(), Kind::Cancelled);
    let error = decrypt(&message[..], &[&key], io::sink(), LIMIT, &stopped).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_garbage_makes_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), tag in 0_u8..64) {
        let framed = |head: &[u8]| [head, &bytes].concat();
        for bytes in [framed(b""), framed(&[0xc0 | tag]), framed(&[0xc1, 13, 3]), framed(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")] {
            let _ = look(&bytes);
            let _ = decrypt_whole(&bytes, &[], LIMIT);
            let _ = Recipient::parse(&bytes, "x", 0);
            let _ = PrivateKey::parse(&bytes, "x", None);
        }
    }
}

#[test]
fn a_message_whose_head_is_cut_or_is_for_nobody_has_no_header() {
    let alice = Gpg::with_key("alice", "rsa2048");
    let message = encrypt_whole(b"text", &[alice.recipient()]).unwrap();
    let head = (0..message.len()).find(|length| look(&message[..*length]).is_some()).unwrap();
    assert!((head..message.len()).all(|length| look(&message[..length]).is_some()));
    // Without the packet of the session key nobody could decrypt it.
    assert_eq!(look(&message[head - 4..]), None);
    assert_eq!(look(b""), None);
    assert_eq!(look(b"some text"), None);
}

#[test]
#[ignore = "minutes, and gigabytes of disk: run it alone, with --ignored"]
fn five_gigabytes_go_through_in_both_directions_with_flat_memory() {
    const SIZE: u64 = 5_000_000_000;
    let alice = Gpg::with_key("alice", "future-default");
    let (to, key, progress) = ([alice.recipient()], alice.private(), Progress::new());
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("message");
    let before = peak_memory();
    let file = std::fs::File::create(&path).unwrap();
    assert_eq!(encrypt(io::repeat(b'x').take(SIZE), &to, file, &progress).unwrap(), SIZE);
    let file = io::BufReader::new(std::fs::File::open(&path).unwrap());
    assert_eq!(decrypt(file, &[&key], io::sink(), SIZE, &progress).unwrap(), SIZE);
    assert!(peak_memory() - before < 32 * 1024 * 1024, "{}", peak_memory() - before);
    assert_eq!(alice.decrypted_size(&path), SIZE);
}
