//! Whom one may encrypt to: certificates in every condition, made by the real gpg.

use super::super::{Recipient, encrypt_whole};
use super::gpg::Gpg;
use super::now;
use crate::error::Kind;

const DAY: u64 = 24 * 3600;

fn refused(bytes: &[u8], at: u64) -> String {
    let error = Recipient::parse(bytes, "/etc/alice.asc", at).unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptionKey);
    let text = error.to_string();
    assert!(text.contains("/etc/alice.asc"), "{text}");
    text
}

#[test]
fn a_good_certificate_says_whose_it_is_and_until_when() {
    let alice = Gpg::generate("alice", &["future-default", "default", "2y"], "");
    for bytes in [alice.certificate(), alice.armored_certificate()] {
        let recipient = Recipient::parse(&bytes, "/etc/alice.asc", now()).unwrap();
        assert_eq!(recipient.fingerprint(), alice.fingerprint());
        assert_eq!(recipient.user_id(), "alice <alice@example.org>");
        assert_eq!(recipient.place(), "/etc/alice.asc");
        let left = recipient.expires().unwrap() - now();
        assert!((729 * DAY..=731 * DAY).contains(&left), "{left}");
        assert!(!format!("{recipient:?}").contains("alice@"));
    }
    assert_eq!(Gpg::with_key("bob", "future-default").recipient().expires(), None);
}

#[test]
fn an_expired_certificate_is_refused_with_its_day_and_is_good_again_when_it_was_extended() {
    let alice = Gpg::generate("alice", &["future-default", "default", "2y"], "");
    let later = now() + 800 * DAY;
    let text = refused(&alice.certificate(), later);
    assert!(text.contains("expired on 20") && text.contains("--quick-set-expire"), "{text}");
    alice.make(&["--quick-set-expire", alice.fingerprint(), "5y"]);
    Recipient::parse(&alice.certificate(), "/etc/alice.asc", later).unwrap();
    assert!(refused(&alice.certificate(), now() - 3 * DAY).contains("clock"));
}

#[test]
fn an_expired_subkey_is_refused_unless_there_is_another() {
    let alice = Gpg::with_signing_key("alice", "ed25519");
    alice.make(&["--quick-add-key", alice.fingerprint(), "cv25519", "encr", "1y"]);
    let later = now() + 400 * DAY;
    let text = refused(&alice.certificate(), later);
    assert!(text.contains("expired on 20") && text.contains("'*'"), "{text}");
    let expires = Recipient::parse(&alice.certificate(), "/etc/alice.asc", now()).unwrap().expires().unwrap();
    assert!((364 * DAY..367 * DAY).contains(&(expires - now())));
    alice.make(&["--quick-set-expire", alice.fingerprint(), "5y", "*"]);
    Recipient::parse(&alice.certificate(), "/etc/alice.asc", later).unwrap();
}

#[test]
fn a_revoked_certificate_is_refused() {
    let alice = Gpg::with_key("alice", "future-default");
    let path = alice.home().join(format!("openpgp-revocs.d/{}.rev", alice.fingerprint()));
    let revocation = std::fs::read_to_string(path).unwrap().replace(":-----BEGIN", "-----BEGIN");
    alice.import(revocation.as_bytes());
    assert!(refused(&alice.certificate(), now()).contains("is revoked"));
}

#[test]
fn a_revoked_subkey_is_not_encrypted_to_and_the_newest_other_one_is() {
    let alice = Gpg::with_key("alice", "future-default");
    alice.edit("key 1\nrevkey\ny\n0\n\ny\nsave\n");
    let text = refused(&alice.certificate(), now());
    assert!(text.contains("revoked encryption subkey") && text.contains("--quick-add-key"), "{text}");
    alice.make(&["--quick-add-key", alice.fingerprint(), "cv25519", "encr"]);
    let message = encrypt_whole(b"text", &[alice.recipient()]).unwrap();
    assert_eq!(alice.decrypt(&message).unwrap(), b"text");
}

#[test]
fn a_certificate_that_cannot_encrypt_is_refused_with_the_remedy() {
    for algorithm in ["ed25519", "rsa2048"] {
        let alice = Gpg::with_signing_key("alice", algorithm);
        let text = refused(&alice.certificate(), now());
        assert!(text.contains("no subkey that may encrypt") && text.contains("--quick-add-key"), "{text}");
    }
}

#[test]
fn a_subkey_whose_binding_does_not_verify_is_not_encrypted_to() {
    let (alice, eve) = (Gpg::with_signing_key("alice", "ed25519"), Gpg::with_key("eve", "future-default"));
    // Eve's subkey, with its signature by her, behind Alice's key.
    let stolen = eve.certificate();
    let subkey = stolen.windows(3).position(|head| head == [0xb8, 0x38, 4]).unwrap();
    let forged = [alice.certificate(), stolen[subkey..].to_vec()].concat();
    let text = refused(&forged, now());
    assert!(text.contains("no subkey that may encrypt"), "{text}");
}

#[test]
fn what_is_no_certificate_is_refused_with_what_it_is() {
    let (alice, bob) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("bob", "future-default"));
    let both = [alice.certificate(), bob.certificate()].concat();
    let armored = [alice.armored_certificate(), bob.armored_certificate()].concat();
    let mut cut = alice.certificate();
    cut.truncate(100);
    for (bytes, word) in [
        (Vec::new(), "is empty"),
        (b"hello".to_vec(), "cannot be read"),
        (alice.private_export(), "is a private key"),
        (both, "more than one key"),
        (armored, "more than one key"),
        (cut, ""),
        (encrypt_whole(b"x", &[alice.recipient()]).unwrap(), ""),
        (vec![0; 4 * 1024 * 1024 + 1], "too large"),
    ] {
        let text = refused(&bytes, now());
        assert!(text.contains(word), "{text}");
    }
    let error = super::PrivateKey::parse(&alice.certificate(), "/key", None).unwrap_err();
    assert!(error.to_string().contains("is a public key"), "{error}");
}
