//! `recipe` of an encrypted repository: the script as printed, run with the real git-crypt, git-lfs and gpg.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::encryption_reading::encrypted;
use crate::recipe::{bring_back, filled, is_possible, recipe, run_by, stranger, switched_on};
use crate::restore::{assert_same, backed_up, portraits, said};
use crate::support::Random;
use crate::support::daemon::Setup;
use crate::support::gpg::Person;
use crate::support::skip;
use crate::support::tree::write;

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("the recipe of an encrypted repository: {program} is missing"));
    }
    found
}

#[test]
fn the_script_decrypts_files_of_any_name_metadata_and_what_git_lfs_brings() {
    if !is_possible() || !has("git-crypt") || !has("git-lfs") {
        return;
    }
    let (setup, key) = encrypted();
    write(&setup.root(), "films/large [1] \"x\"", Random::new(3).bytes(3_000_000));
    write(&setup.root(), "films/.git", Random::new(4).bytes(70_000));
    // Nobody may take it for a ciphertext of ours once it is decrypted.
    write(&setup.root(), "films/ciphertext", [&b"\0GITCRYPT\0"[..], &Random::new(5).bytes(70_000)].concat());
    fs::hard_link(setup.root().join("films/.git"), setup.root().join("films/again")).unwrap();
    let expected = filled(&setup);
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    assert!(script.contains("It needs git, git-crypt, git-lfs and python3"), "{script}");
    assert!(script.contains(key.to_str().unwrap()), "{script}");
    assert_same(&expected, &portraits(&bring_back_with_key(&setup, "whole", &script)));

    let one = switched_on(&script, "git --git-dir=documents.git cat-file");
    for (number, path) in ["run", "films/large [1] \"x\"", "empty file"].into_iter().enumerate() {
        let one = one.replace("folder1/PATH", &format!("'folder1/{path}'"));
        let name = format!("one {number}");
        bring_back_with_key(&setup, &name, &one);
        let file = setup.path(&name).join("here/restored-file");
        assert!(fs::read(file).unwrap() == fs::read(setup.root().join(path)).unwrap(), "{path}");
    }

    // The wrong key: no file, and no ciphertext under a file's name.
    let wrong = crate::encryption_reading::new_key(&setup, "wrong.key");
    let wrong = script.replace(&format!("key={}", key.display()), &format!("key={}", wrong.display()));
    let place = stranger(&setup, "wrong");
    let output = run_by(&place, &wrong, &[], None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is not the key of this state"), "{}", said(&output));
    assert!(!place.join("here/documents").exists(), "{}", said(&output));
    let none = script.replace(&format!("key={}", key.display()), "key=nowhere.key");
    let output = run_by(&stranger(&setup, "none"), &none, &[], None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("there is no key in"), "{}", said(&output));
}

#[test]
fn the_script_decrypts_what_is_encrypted_with_gpg_for_the_owner_of_a_private_key() {
    if !is_possible() || !has("git-crypt") || !has("git-lfs") {
        return;
    }
    let alice = Person::new("alice", "never");
    let mut setup = Setup::new();
    let certificate = setup.path("alice.asc");
    fs::write(&certificate, alice.certificate()).unwrap();
    setup.repository()["encryption"] =
        json!({"method": "gpg", "recipients": [certificate.to_str().unwrap()]});
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    write(&setup.root(), "films/large [1] \"x\"", Random::new(3).bytes(3_000_000));
    write(&setup.root(), "films/.git", Random::new(4).bytes(70_000));
    write(&setup.root(), "films/message", [&[0x84, 0x5e][..], &Random::new(5).bytes(70_000)].concat());
    fs::hard_link(setup.root().join("films/.git"), setup.root().join("films/again")).unwrap();
    let expected = filled(&setup);
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    assert!(script.contains("It needs git, git-crypt, gpg, git-lfs and python3"), "{script}");
    let home = alice.home().to_str().unwrap();
    assert_same(&expected, &portraits(&bring_back(&setup, "whole", &script, &[("GNUPGHOME", home)])));
    let one = switched_on(&script, "git --git-dir=documents.git cat-file");
    let one = one.replace("folder1/PATH", "'folder1/films/large [1] \"x\"'");
    bring_back(&setup, "one", &one, &[("GNUPGHOME", home)]);
    let file = setup.path("one").join("here/restored-file");
    assert!(fs::read(file).unwrap() == Random::new(3).bytes(3_000_000));

    let eve = Person::new("eve", "never");
    let place = stranger(&setup, "eve");
    let output = run_by(&place, &script, &[("GNUPGHOME", eve.home().to_str().unwrap())], None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("there is no key in"), "{}", said(&output));
    assert!(!place.join("here/documents").exists());
}

fn bring_back_with_key(setup: &Setup, name: &str, script: &str) -> std::path::PathBuf {
    bring_back(setup, name, script, &[])
}
