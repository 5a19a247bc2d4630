//! What should be encrypted and is not never leaves: such commits are forged into our own repository.

use super::*;
use crate::crypt::gitcrypt::cipher;
use crate::crypt::openpgp::encrypt_whole;
use crate::error::Kind;
use crate::lfs::{Objects, Pointer};
use crate::snapshot::tests::messages::{People, bench_for};
use crate::snapshot::tests::sealed::encrypted_bench;
use crate::tree::{self, Edits, Entry, TreeSink};
use git2::{ObjectType, Oid};

/// A commit upon the branch's tip with these bytes at this path.
fn forge(bench: &Bench, path: &str, bytes: &[u8]) -> Oid {
    let repository = &bench.repository;
    let tip = repository.reference(BRANCH).unwrap().unwrap();
    let objects = repository.objects().unwrap();
    let mut edits = Edits::new();
    let oid = TreeSink::write(&objects, ObjectType::Blob, bytes).unwrap();
    edits.set(path, Entry { mode: tree::MODE_FILE, oid });
    let tree =
        tree::apply(&objects, &objects, Some(repository.tree_of(tip).unwrap()), &edits).unwrap().unwrap();
    let git = repository.git();
    let who = git2::Signature::now("x", "x@example.org").unwrap();
    let (tree, parent) = (git.find_tree(tree).unwrap(), git.find_commit(tip).unwrap());
    git.commit(Some(BRANCH), &who, &who, "forged", &tree, &[&parent]).unwrap()
}

fn is_halted(bench: &Bench, target: &Target, names: &str) {
    let references = || match target.path.exists() {
        true => git(&target.path, &["for-each-ref"]),
        false => String::new(),
    };
    let stood = references();
    let delivery = run(bench, target, true, false, 5);
    let halted = delivery.record.halted.expect("halted");
    assert_eq!(halted.reason, "clear_text");
    assert!(halted.message.contains(names), "{}", halted.message);
    assert_eq!(delivery.trouble, Some(Kind::ClearText));
    assert_eq!(references(), stood, "nothing was sent");
}

#[test]
fn a_file_in_clear_text_where_the_policy_wants_ciphertext_halts_the_remote() {
    for path in ["folder/forged", ".backupbot/meta/folder/_bb_meta"] {
        let mut bench = encrypted_bench(&[]);
        bench.write("a", "1");
        bench.write("empty", "");
        bench.back_up();
        let target = target(&bench, "remote.git");
        assert!(run(&bench, &target, false, false, 1).is_verified);
        forge(&bench, path, b"in clear text");
        is_halted(&bench, &target, path);
        // The next commit has it too, and it is still new to the remote.
        forge(&bench, "folder/another", &cipher::HEADER[..]);
        is_halted(&bench, &target, path);
    }
}

#[test]
fn pointers_are_looked_behind_and_what_is_not_covered_may_be_clear_text() {
    let mut bench = encrypted_bench(&["secret/"]);
    bench.write("open", "1");
    bench.write("secret/a", "2");
    bench.back_up();
    let target = target(&bench, "remote.git");
    forge(&bench, "folder/also-open", b"anybody may read this");
    let large = Objects::of(bench.repository.path());
    let keep = |bytes: &[u8]| {
        let mut draft = large.begin().unwrap();
        draft.write(bytes).unwrap();
        draft.finish().unwrap()
    };
    let good = keep(&[&cipher::HEADER[..], &[7; 100]].concat());
    forge(&bench, "folder/secret/large", good.encode().as_bytes());
    assert!(run(&bench, &target, false, false, 1).is_verified);
    let bad: Pointer = keep(&[7; 100]);
    forge(&bench, "folder/secret/larger", bad.encode().as_bytes());
    is_halted(&bench, &target, "folder/secret/larger");
}

#[test]
fn what_is_no_message_where_the_policy_wants_messages_halts_the_remote() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    bench.write("a", "1");
    bench.write("empty", "");
    bench.back_up();
    let target = target(&bench, "remote.git");
    assert!(run(&bench, &target, false, false, 1).is_verified);
    let forged: [(&str, Vec<u8>); 5] = [
        ("folder/clear", b"in clear text".to_vec()),
        ("folder/nothing", Vec::new()),
        // Each of both forms is clear text in the place of the other.
        ("folder/git-crypt", [&cipher::HEADER[..], &[7; 100]].concat()),
        (".backupbot/meta/folder/_bb_meta", encrypt_whole(b"x", &[people.alice.recipient()]).unwrap()),
        // Signed or compressed is not encrypted.
        ("folder/stored", people.alice.store(b"in clear text")),
    ];
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    for (path, bytes) in forged {
        forge(&bench, path, &bytes);
        is_halted(&bench, &target, path);
        git(bench.repository.path(), &["update-ref", BRANCH, &tip.to_string()]);
    }
    forge(&bench, "folder/message", &encrypt_whole(b"x", &[people.bob.recipient()]).unwrap());
    assert!(run(&bench, &target, true, true, 9).is_verified);
}

#[test]
fn commits_in_clear_text_are_not_sent_where_that_is_refused() {
    let mut bench = bench();
    bench.write("a", "1");
    bench.back_up();
    let target = target(&bench, "remote.git");
    bench.encryption =
        Some(crate::snapshot::tests::sealed::encryption(&bench.scratch.path().join("key"), &[]));
    is_halted(&bench, &target, "clear_history: accept");
    bench.encryption.as_mut().unwrap().accepts_clear_history = true;
    assert!(run(&bench, &target, true, false, 9).is_verified);
}
