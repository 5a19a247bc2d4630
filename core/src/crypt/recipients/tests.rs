//! Trees with wrapped keys, of which the real gpg and git-crypt are the judges.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};

use super::{edits, is_certificate_name, read, survey};
use crate::crypt::gitcrypt::KeyFile;
use crate::crypt::gitcrypt::tests::program::GitCrypt;
use crate::crypt::gitcrypt::tests::{encrypt, sample};
use crate::crypt::keyring::Key;
use crate::crypt::openpgp::Recipient;
use crate::crypt::openpgp::tests::gpg::Gpg;
use crate::crypt::openpgp::tests::now;
use crate::crypt::patterns::Patterns;
use crate::crypt::policy::{self, Cipher, Policy};
use crate::error::Kind;
use crate::tree::judge::Judge;
use crate::tree::{self, Edits, Entry, TreeSink};

fn a_key() -> Key {
    Key::new(KeyFile::generate(None).unwrap(), Path::new("/key")).unwrap()
}

/// The next tree, as a snapshot would make it; `None` if nothing below `.git-crypt` changes.
fn next(judge: &Judge, base: Option<Oid>, key: &Key, recipients: &[Recipient]) -> Option<Oid> {
    let objects = judge.objects();
    let mut changes = Edits::new();
    edits(&objects, base, key, recipients, &objects, &mut changes).unwrap();
    if changes.is_empty() {
        return None;
    }
    let policy = Policy {
        key: key.id().clone(),
        cipher: Cipher::GitCrypt,
        paths: Patterns::parse(&[] as &[&str]).unwrap(),
    };
    let oid = judge.write_blob(&policy.encode().unwrap());
    changes.set(policy::PATH, Entry { mode: tree::MODE_FILE, oid });
    tree::apply(&objects, &objects, base, &changes).unwrap()
}

/// The paths below `.git-crypt`, with their objects.
fn listed(judge: &Judge, tree: Oid) -> Vec<(String, String)> {
    let text =
        judge.git(["ls-tree", "-r", "--format=%(objectname) %(path)", &tree.to_string(), ".git-crypt"]);
    let text = String::from_utf8(text).unwrap();
    text.lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(a, b)| (b.to_owned(), a.to_owned()))
        .collect()
}

fn wrapped_for(tree: &[(String, String)], who: &Gpg) -> Option<String> {
    let path = format!(".git-crypt/keys/default/0/{}.gpg", who.fingerprint());
    tree.iter().find(|(at, _)| *at == path).map(|(_, oid)| oid.clone())
}

/// Whether a plain clone with what this tree has below `.git-crypt` is unlocked by somebody.
fn opens(judge: &Judge, tree: Oid, key: &Key, who: &Gpg) -> bool {
    let plaintext = sample(5000);
    let mut files = vec![("x".to_owned(), encrypt(key.file(), &plaintext))];
    for (path, oid) in listed(judge, tree) {
        files.push((path, judge.git(["cat-file", "blob", &oid])));
    }
    let bench = GitCrypt::new();
    let clone = bench.clone_of(&files);
    let is_open = bench.unlock_with_gpg(&clone, who.home()).is_ok();
    assert_eq!(fs::read(clone.join("x")).unwrap() == plaintext, is_open);
    is_open
}

#[test]
fn exactly_the_recipients_unlock_a_clone_and_who_stays_keeps_the_same_file() {
    let judge = Judge::new();
    let key = a_key();
    let people: Vec<_> = ["alice", "bob", "carol"].map(|name| Gpg::with_key(name, "future-default")).into();
    let [alice, bob, carol] = people.as_slice() else { unreachable!() };
    let first = next(&judge, None, &key, &[alice.recipient(), bob.recipient()]).unwrap();
    assert_eq!([alice, bob, carol].map(|who| opens(&judge, first, &key, who)), [true, true, false]);
    assert_eq!(next(&judge, Some(first), &key, &[bob.recipient(), alice.recipient()]), None);

    let second = next(&judge, Some(first), &key, &[alice.recipient(), carol.recipient()]).unwrap();
    assert_eq!([alice, bob, carol].map(|who| opens(&judge, second, &key, who)), [true, false, true]);
    let (before, after) = (listed(&judge, first), listed(&judge, second));
    assert_eq!(wrapped_for(&before, alice), wrapped_for(&after, alice));
    assert_eq!(wrapped_for(&after, bob), None);

    let none = next(&judge, Some(second), &key, &[]).unwrap();
    assert_eq!(listed(&judge, none), []);
    assert_eq!(next(&judge, Some(none), &key, &[]), None);
    judge.commit(second);
    assert_eq!(judge.fsck(), "");
}

#[test]
fn another_key_is_wrapped_anew_for_everybody() {
    let judge = Judge::new();
    let (old, new) = (a_key(), a_key());
    let alice = Gpg::with_key("alice", "future-default");
    let first = next(&judge, None, &old, &[alice.recipient()]).unwrap();
    let second = next(&judge, Some(first), &new, &[alice.recipient()]).unwrap();
    assert!(opens(&judge, second, &new, &alice));
    assert_ne!(wrapped_for(&listed(&judge, first), &alice), wrapped_for(&listed(&judge, second), &alice));
}

#[test]
fn the_attributes_are_those_that_git_crypt_writes() {
    let judge = Judge::new();
    let (key, alice) = (a_key(), Gpg::with_key("alice", "future-default"));
    let tree = next(&judge, None, &key, &[alice.recipient()]).unwrap();
    let ours = judge.git(["show", &format!("{tree}:.git-crypt/.gitattributes")]);
    let theirs = GitCrypt::new().attributes_by_program(key.file(), alice.home(), alice.fingerprint());
    assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs).unwrap());
}

#[test]
fn what_somebody_else_put_there_goes_and_a_damaged_key_is_made_again() {
    let judge = Judge::new();
    let (key, alice) = (a_key(), Gpg::with_key("alice", "future-default"));
    let good = next(&judge, None, &key, &[alice.recipient()]).unwrap();
    let own = format!(".git-crypt/keys/default/0/{}.gpg", alice.fingerprint());
    let objects = judge.objects();
    let oid = TreeSink::write(&objects, ObjectType::Blob, b"no key").unwrap();
    for (path, mode) in [
        (".git-crypt/keys/default/0/EVE.gpg", tree::MODE_FILE),
        (".git-crypt/keys/team/0/EVE.gpg", tree::MODE_FILE),
        (".git-crypt/keys/default/1/EVE.gpg", tree::MODE_FILE),
        (".git-crypt/more", tree::MODE_FILE),
        (".git-crypt/.gitattributes", tree::MODE_FILE),
        (".git-crypt/keys", tree::MODE_FILE),
        (".git-crypt", tree::MODE_SYMLINK),
        (own.as_str(), tree::MODE_FILE),
        (own.as_str(), tree::MODE_SYMLINK),
    ] {
        let mut spoil = Edits::new();
        spoil.set(path, Entry { mode, oid });
        let spoilt = tree::apply(&objects, &objects, Some(good), &spoil).unwrap();
        let mended = next(&judge, spoilt, &key, &[alice.recipient()]).unwrap();
        let paths: Vec<_> = listed(&judge, mended).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [".git-crypt/.gitattributes", own.as_str()], "{path}");
        if path == own {
            assert!(opens(&judge, mended, &key, &alice), "{path}");
        }
    }
}

#[test]
fn a_new_subkey_has_the_key_wrapped_for_it() {
    let judge = Judge::new();
    let (key, alice) = (a_key(), Gpg::with_key("alice", "future-default"));
    let first = next(&judge, None, &key, &[alice.recipient()]).unwrap();
    alice.edit("key 1\nrevkey\ny\n0\n\ny\nsave\n");
    alice.make(&["--quick-add-key", alice.fingerprint(), "rsa2048", "encr"]);
    let second = next(&judge, Some(first), &key, &[alice.recipient()]).unwrap();
    assert_ne!(first, second);
    assert!(opens(&judge, second, &key, &alice));
}

#[test]
fn certificates_are_read_from_files_and_directories_and_each_person_counts_once() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("people");
    fs::create_dir(&directory).unwrap();
    let (alice, bob) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("bob", "future-default"));
    let single = scratch.path().join("bob-as-a-file");
    fs::write(&single, bob.certificate()).unwrap();
    fs::write(directory.join("alice.asc"), alice.armored_certificate()).unwrap();
    fs::write(directory.join("again.gpg"), alice.certificate()).unwrap();
    fs::write(directory.join("README"), "no certificate").unwrap();
    fs::write(directory.join(".#alice.asc"), "half").unwrap();
    let places = [directory, single];
    let found = read(&places, now()).unwrap();
    let fingerprints: Vec<_> = found.iter().map(Recipient::fingerprint).collect();
    assert_eq!(fingerprints, [alice.fingerprint(), bob.fingerprint()]);
    assert_eq!(survey(&places, now()).len(), 3);
    assert!(read(&[], now()).unwrap().is_empty());
}

#[test]
fn a_bad_certificate_or_a_missing_place_is_an_error_that_names_it() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("people");
    fs::create_dir(&directory).unwrap();
    let alice = Gpg::generate("alice", &["future-default", "default", "2y"], "");
    fs::write(directory.join("alice.pgp"), alice.certificate()).unwrap();
    let places = [directory.clone()];
    read(&places, now()).unwrap();
    let three_years = 3 * 366 * 24 * 3600;
    let error = read(&places, now() + three_years).unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptionKey);
    assert!(error.to_string().contains("alice.pgp") && error.to_string().contains("expired"), "{error}");

    fs::write(directory.join("broken.asc"), "broken").unwrap();
    let error = read(&places, now()).unwrap_err();
    assert!(error.to_string().contains("broken.asc"), "{error}");
    fs::remove_file(directory.join("broken.asc")).unwrap();
    fs::create_dir(directory.join("folder.asc")).unwrap();
    let error = read(&places, now()).unwrap_err();
    assert!(error.to_string().contains("no regular file"), "{error}");

    let missing: PathBuf = scratch.path().join("missing");
    let error = read(std::slice::from_ref(&missing), now()).unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptionKey);
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn only_names_with_an_ending_of_certificates_are_looked_at() {
    for (name, is_one) in
        [("a.asc", true), ("a.gpg", true), ("a.pgp", true), ("a.key", false), ("a", false), (".a.asc", false)]
    {
        assert_eq!(is_certificate_name(Path::new(name)), is_one, "{name}");
    }
}
