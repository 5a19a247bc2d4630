//! The real gpg with an agent of its own as the one who is asked, and messages in pieces of every size.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Decryptor, Opener};
use crate::crypt::gitcrypt::tests::{peak_memory, sample};
use crate::crypt::openpgp::encrypt_whole;
use crate::crypt::openpgp::tests::gpg::Gpg;
use crate::error::{Kind, Result};
use crate::progress::Progress;

const LIMIT: u64 = 64 * 1024 * 1024;

/// What came, and how it ended, for a message in pieces of this size.
fn pushed(opener: &Opener, message: &[u8], piece: usize, limit: u64) -> (Vec<u8>, Result<()>) {
    let mut decryptor = Decryptor::new(opener, limit, &Progress::new());
    let mut plaintext = Vec::new();
    for mut piece in message.chunks(piece) {
        while !piece.is_empty() {
            match decryptor.take(&mut piece) {
                Ok(plain) => plaintext.extend_from_slice(plain),
                Err(error) => return (plaintext, Err(error)),
            }
        }
    }
    loop {
        match decryptor.end() {
            Ok(Some(plain)) => plaintext.extend_from_slice(plain),
            Ok(None) => return (plaintext, Ok(())),
            Err(error) => return (plaintext, Err(error)),
        }
    }
}

/// Has the agent ask a program of this behaviour for passphrases.
fn set_pinentry(gpg: &Gpg, answer: &str) {
    let program = gpg.home().join("pinentry");
    let script = format!(
        "#!/bin/sh\necho 'OK ready'\nwhile read -r word rest; do case $word in GETPIN) {answer};; BYE) echo OK; exit;; *) echo \
         OK;; esac; done\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(gpg.home().join("gpg.conf"), "no-tty\n").unwrap();
    let agent = format!("pinentry-program {}\ndefault-cache-ttl 0\n", program.display());
    std::fs::write(gpg.home().join("gpg-agent.conf"), agent).unwrap();
    let killed = Command::new("gpgconf").arg("--homedir").arg(gpg.home()).args(["--kill", "all"]).status();
    assert!(killed.unwrap().success());
}

fn whole(opener: &Opener, message: &[u8]) -> Result<Vec<u8>> {
    opener.decrypt_whole(message, LIMIT, &Progress::new()).map(|plain| plain.to_vec())
}

#[test]
fn the_agent_opens_what_no_key_in_hand_is_for() {
    let (alice, bob) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("bob", "rsa2048"));
    let opener = Opener::with_gpg_of(vec![Arc::new(bob.private())], alice.home());
    for size in [0, 1, 70_000, 3_000_000] {
        let plain = sample(size);
        for to in [alice.recipient(), bob.recipient()] {
            let message = encrypt_whole(&plain, &[to]).unwrap();
            assert!(whole(&opener, &message).unwrap() == plain, "{size}");
            assert!(pushed(&opener, &message, 300_000, LIMIT).0 == plain, "{size}");
        }
    }
    assert!(opener.is_able() && opener.asks_gpg() && !Opener::default().is_able());
}

#[test]
fn whatever_is_wrong_with_a_message_the_agent_gives_no_plaintext_for_it() {
    let alice = Gpg::with_key("alice", "future-default");
    let opener = Opener::with_gpg_of(Vec::new(), alice.home());
    let message = encrypt_whole(b"some text", &[alice.recipient()]).unwrap();
    let stored = alice.store(b"in the open");
    let mut flipped = message.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let (junk, twice, more) =
        ([&message[..], b"x"].concat(), [&message[..], &message].concat(), [&message[..], &stored].concat());
    let cut = &message[..message.len() - 5];
    for wrong in [&flipped[..], cut, &junk, &twice, &more, &stored, b"a letter", b""] {
        let (out, ended) = pushed(&opener, wrong, 4096, LIMIT);
        let error = ended.unwrap_err();
        assert!(out.is_empty() && error.kind() == Kind::Git, "{} bytes: {error}", wrong.len());
    }
    let error = opener.decrypt_whole(&message, 3, &Progress::new()).unwrap_err();
    assert!(error.to_string().contains("more than it should"), "{error}");
    assert_eq!(whole(&opener, &message).unwrap(), b"some text", "and it still opens what is sound");
}

#[test]
fn a_gpg_without_the_key_says_so_and_what_to_do() {
    let (alice, eve) = (Gpg::with_key("alice", "future-default"), Gpg::with_key("eve", "future-default"));
    let message = encrypt_whole(b"some text", &[alice.recipient()]).unwrap();
    let error = whole(&Opener::with_gpg_of(Vec::new(), eve.home()), &message).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::EncryptionKey);
    assert!(text.contains("no private key") && text.contains("--key-file"), "{text}");
}

#[test]
fn the_agent_asks_for_a_passphrase_and_who_declines_is_not_asked_again() {
    let alice = Gpg::with_locked_key("alice", "open sesame");
    let message = encrypt_whole(b"some text", &[alice.recipient()]).unwrap();
    set_pinentry(&alice, "echo 'D open sesame'; echo OK");
    assert_eq!(whole(&Opener::with_gpg_of(Vec::new(), alice.home()), &message).unwrap(), b"some text");

    let asked = alice.home().join("asked");
    let count = format!("echo x >> {}; echo 'ERR 83886179 Operation cancelled'", asked.display());
    set_pinentry(&alice, &count);
    let opener = Opener::with_gpg_of(Vec::new(), alice.home());
    for _ in 0..3 {
        let error = whole(&opener.clone(), &message).unwrap_err();
        assert_eq!(error.kind(), Kind::EncryptionKey);
        assert!(error.to_string().contains("passphrase"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(asked).unwrap(), "x\n");
}

#[test]
fn a_stop_is_heard_while_the_agent_waits_for_an_answer() {
    let alice = Gpg::with_locked_key("alice", "open sesame");
    let message = encrypt_whole(&sample(2_000_000), &[alice.recipient()]).unwrap();
    let asked = alice.home().join("asked");
    // It waits for a word that never comes, and ends with its agent.
    set_pinentry(&alice, &format!("echo x > {}; read -r word || exit", asked.display()));
    let opener = Opener::with_gpg_of(Vec::new(), alice.home());
    let progress = Progress::new();
    let stopper = {
        let progress = progress.clone();
        std::thread::spawn(move || {
            let begun = Instant::now();
            while !asked.exists() && begun.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            progress.cancel();
            Instant::now()
        })
    };
    let mut decryptor = Decryptor::new(&opener, LIMIT, &progress);
    let mut rest = &message[..];
    let mut outcome = Ok(());
    while outcome.is_ok() {
        outcome =
            if rest.is_empty() { decryptor.end().map(|_| ()) } else { decryptor.take(&mut rest).map(|_| ()) };
    }
    drop(decryptor);
    let late = stopper.join().unwrap().elapsed();
    assert_eq!(outcome.unwrap_err().kind(), Kind::Cancelled);
    assert!(late < Duration::from_secs(20), "{late:?}");
}

#[test]
fn what_was_encrypted_comes_back_in_pieces_of_any_size() {
    let alice = Gpg::with_key("alice", "future-default");
    let opener = Opener::new(vec![Arc::new(alice.private())], false);
    for size in [0, 1, 65_535, 65_536, 65_537, 1_048_000, 1_048_576, 1_100_000, 5_000_000] {
        let plain = sample(size);
        let message = encrypt_whole(&plain, &[alice.recipient()]).unwrap();
        for piece in [7, 4096, 262_144, 1 << 20, usize::MAX] {
            if piece == 7 && size > 100_000 && size != 1_100_000 {
                continue;
            }
            for limit in [message.len() as u64, LIMIT] {
                let (out, ended) = pushed(&opener, &message, piece, limit);
                assert!(ended.is_ok() && out == plain, "{size} bytes in pieces of {piece}: {ended:?}");
            }
        }
    }
}

#[test]
fn whatever_is_flipped_cut_off_or_added_is_an_error_and_the_last_piece_is_withheld() {
    let alice = Gpg::with_key("alice", "future-default");
    let opener = Opener::new(vec![Arc::new(alice.private())], false);
    let to = [alice.recipient()];
    let small = encrypt_whole(&sample(300), &to).unwrap();
    for at in (0..small.len()).skip(2 + usize::from(small[1])) {
        let mut flipped = small.clone();
        flipped[at] ^= 4;
        let (out, ended) = pushed(&opener, &flipped, 64, LIMIT);
        assert!(ended.is_err() && out.is_empty(), "a flip at {at}");
    }
    for length in 0..small.len() {
        let (out, ended) = pushed(&opener, &small[..length], 64, LIMIT);
        assert!(ended.is_err() && out.is_empty(), "cut off at {length}");
    }
    let large = encrypt_whole(&sample(3_000_000), &to).unwrap();
    for at in [1_200_000, 2_900_000, large.len() - 1] {
        let mut flipped = large.clone();
        flipped[at] ^= 4;
        for wrong in [&flipped[..], &large[..at], &[&large[..], b"x"].concat()] {
            let (out, ended) = pushed(&opener, wrong, 10_000, LIMIT);
            assert_eq!(ended.unwrap_err().kind(), Kind::Git);
            assert!(out.len() <= 3_000_000 - 1000, "{}", out.len());
        }
    }
    let (out, ended) = pushed(&opener, &large, 10_000, 2_000_000);
    assert!(ended.is_err() && out.len() <= 2_000_000, "it gives no more than it may");
    let clear = sample(3_000_000);
    let (out, ended) = pushed(&opener, &clear, 10_000, LIMIT);
    assert!(out.is_empty() && ended.unwrap_err().to_string().contains("clear text"));
}

#[test]
fn one_that_is_dropped_in_the_middle_ends_its_thread() {
    let alice = Gpg::with_key("alice", "future-default");
    let message = encrypt_whole(&sample(3_000_000), &[alice.recipient()]).unwrap();
    for opener in
        [Opener::new(vec![Arc::new(alice.private())], false), Opener::with_gpg_of(Vec::new(), alice.home())]
    {
        for end in [1_100_000, 2_000_000, message.len()] {
            let mut decryptor = Decryptor::new(&opener, LIMIT, &Progress::new());
            for mut piece in message[..end].chunks(100_000) {
                while !piece.is_empty() {
                    decryptor.take(&mut piece).unwrap();
                }
            }
            // It waits for the thread: a thread that went on would hang the test.
            drop(decryptor);
        }
    }
}

#[test]
#[ignore = "it looks at the memory of the whole process: run it alone, with --ignored"]
fn memory_does_not_grow_with_the_message() {
    let alice = Gpg::with_key("alice", "future-default");
    let message = encrypt_whole(&vec![7; 48 * 1024 * 1024], &[alice.recipient()]).unwrap();
    for opener in
        [Opener::new(vec![Arc::new(alice.private())], false), Opener::with_gpg_of(Vec::new(), alice.home())]
    {
        let before = peak_memory();
        let mut decryptor = Decryptor::new(&opener, LIMIT, &Progress::new());
        let mut size = 0;
        for mut piece in message.chunks(65_536) {
            while !piece.is_empty() {
                size += decryptor.take(&mut piece).unwrap().len();
            }
        }
        while let Some(plain) = decryptor.end().unwrap() {
            size += plain.len();
        }
        assert_eq!(size, 48 * 1024 * 1024);
        let grown = peak_memory().saturating_sub(before);
        assert!(grown < 16 * 1024 * 1024, "{grown} bytes");
    }
}
