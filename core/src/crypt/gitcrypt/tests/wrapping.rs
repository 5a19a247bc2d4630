//! Keys wrapped for OpenPGP recipients, with the real gpg and the real git-crypt at the other end.

use std::fs;

use super::super::key::{KeyFile, KeyName};
use super::super::wrapped::{self, path_of, unwrap, wrap};
use super::program::GitCrypt;
use super::{encrypt, sample};
use crate::crypt::openpgp::tests::gpg::Gpg;
use crate::error::Kind;

#[test]
fn a_clone_with_a_key_that_we_wrapped_is_unlocked_by_each_recipient_with_gpg_alone() {
    let key = KeyFile::generate(None).unwrap();
    let (alice, bob) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("bob", "rsa2048"));
    let eve = Gpg::with_key("eve", "future-default");
    let plaintext = sample(50_000);
    let mut files = vec![("secret/file".to_owned(), encrypt(&key, &plaintext))];
    for wrapped in wrap(&key, &[alice.recipient(), bob.recipient()]).unwrap() {
        files.push((wrapped.path, wrapped.contents));
    }
    assert!(files[1].0.ends_with(&format!(".git-crypt/keys/default/0/{}.gpg", alice.fingerprint())));
    for (holder, may) in [(&alice, true), (&bob, true), (&eve, false)] {
        let bench = GitCrypt::new();
        let clone = bench.clone_of(&files);
        let unlocked = bench.unlock_with_gpg(&clone, holder.home());
        assert_eq!(unlocked.is_ok(), may, "{unlocked:?}");
        assert_eq!(fs::read(clone.join("secret/file")).unwrap() == plaintext, may);
    }
}

#[test]
fn a_key_that_the_real_program_wrapped_is_opened_and_a_strangers_key_opens_nothing() {
    let key = KeyFile::generate(None).unwrap();
    let (alice, eve) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("eve", "future-default"));
    let contents = GitCrypt::new().wrapped_by_program(&key, alice.home(), alice.fingerprint());
    let opened = unwrap(&contents, "x", &[&eve.private(), &alice.private()]).unwrap();
    assert_eq!(*opened.to_bytes(), *key.to_bytes());
    let error = unwrap(&contents, "x", &[&eve.private()]).unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptionKey);
    let ours = wrap(&key, &[alice.recipient()]).unwrap();
    assert_eq!(*unwrap(&ours[0].contents, "x", &[&alice.private()]).unwrap().to_bytes(), *key.to_bytes());
    assert!(unwrap(&vec![0; wrapped::LARGEST as usize + 1], "x", &[&alice.private()]).is_err());
}

#[test]
fn the_path_of_a_wrapped_key_has_the_name_of_the_key() {
    let named = KeyFile::generate(Some(KeyName::new("team").unwrap())).unwrap();
    assert_eq!(path_of(&named, 0, "ABC"), ".git-crypt/keys/team/0/ABC.gpg");
}
