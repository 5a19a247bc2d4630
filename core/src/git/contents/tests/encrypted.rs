//! Files of an encrypted snapshot: ciphertexts in packs, loose and outside Git, the right key, the wrong one, and none.

use std::sync::Arc;

use git2::Oid;

use super::World;
use crate::crypt::gitcrypt::{KeyFile, cipher};
use crate::crypt::keyring::Key;
use crate::crypt::opener::Opener;
use crate::crypt::openpgp::encrypt_whole;
use crate::crypt::openpgp::tests::gpg::Gpg;
use crate::crypt::patterns::Patterns;
use crate::crypt::policy::{Cipher, Policy};
use crate::crypt::unsealer::Unsealer;
use crate::git::contents::{Contents, Found, Proof, Recorded, Trouble};
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;

struct Sealed {
    world: World,
    key: Arc<Key>,
    contents: Contents,
}

fn new_key() -> Arc<Key> {
    Arc::new(Key::new(KeyFile::generate(None).unwrap(), std::path::Path::new("a key")).unwrap())
}

impl Sealed {
    /// A repository with these blobs, as one whose directory `secret` is encrypted.
    fn new(key: Arc<Key>, blobs: &[&[u8]]) -> (Self, Vec<Oid>) {
        Self::by(key, Cipher::GitCrypt, Opener::default(), blobs)
    }

    fn by(key: Arc<Key>, cipher: Cipher, opener: Opener, blobs: &[&[u8]]) -> (Self, Vec<Oid>) {
        let world = World::new();
        let (ids, _) = world.packed(blobs);
        let policy = Policy { key: key.id().clone(), cipher, paths: Patterns::parse(&["secret/"]).unwrap() };
        let unsealer = Some(Arc::new(Unsealer::new(policy, key.clone(), opener)));
        let contents = Contents::open(world.scratch.path()).unwrap().opened_by(unsealer);
        (Self { world, key, contents }, ids)
    }

    fn found(&self, path: &str, id: Oid, recorded: Option<[u8; 32]>) -> Result<Found, String> {
        let mut reader = self.contents.reader();
        let found = reader.find(id).unwrap();
        let seal = self.contents.seal_of(path.as_bytes());
        let recorded = Recorded { size: None, blake3: recorded };
        reader.behind(found, seal, recorded, &Progress::new()).map_err(|error| error.to_string())
    }

    /// What comes of a file, and the error if there is one.
    fn read(&self, path: &str, id: Oid, recorded: Option<[u8; 32]>) -> (Vec<u8>, Result<Proof, String>) {
        let found = match self.found(path, id, recorded) {
            Ok(found) => found,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let mut bytes = Vec::new();
        let proof = self.contents.reader().stream_expecting(
            &found,
            recorded,
            &Progress::new(),
            &mut |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok(())
            },
        );
        if let Ok(proof) = &proof {
            assert_eq!(bytes.len() as u64, proof.size);
            assert!(found.exact_size().is_none_or(|size| size == proof.size) && found.most() >= proof.size);
        }
        let proof = proof.map_err(|trouble| match trouble {
            Trouble::Object(error) => error.to_string(),
            Trouble::Elsewhere(error) => panic!("not the object's fault: {error}"),
        });
        (bytes, proof)
    }
}

fn sealed(key: &Key, plaintext: &[u8]) -> Vec<u8> {
    cipher::encrypt_whole(key.version().unwrap(), plaintext).unwrap()
}

#[test]
fn a_file_comes_out_as_it_was_with_its_own_size_and_the_keyed_checksum() {
    let key = new_key();
    let large: Vec<u8> = (0..900_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let plain: [&[u8]; 5] = [b"", b"x", b"a letter", &large[..65_536], &large];
    let ciphertexts: Vec<Vec<u8>> = plain.iter().map(|plain| sealed(&key, plain)).collect();
    let mut blobs: Vec<&[u8]> = ciphertexts.iter().map(Vec::as_slice).collect();
    blobs.push(b"");
    blobs.push(b"in the open");
    let (sealed, ids) = Sealed::new(key, &blobs);
    for (expected, id) in plain.iter().zip(&ids) {
        let checksum = sealed.key.checksums().checksum(expected);
        for recorded in [None, Some(checksum), Some([0; 32])] {
            let (bytes, proof) = sealed.read("folder/secret/x", *id, recorded);
            let proof = proof.unwrap();
            assert!(bytes == *expected && proof.blake3 == checksum, "{} bytes", expected.len());
            assert!(proof.beginning == expected[..expected.len().min(1024)]);
        }
    }
    assert_eq!(sealed.read("folder/secret/empty", ids[5], None).0, b"", "one version leaves it empty");
    let (bytes, proof) = sealed.read("folder/open", ids[6], None);
    assert_eq!(bytes, b"in the open");
    assert_eq!(proof.unwrap().blake3, sealed.key.checksums().checksum(b"in the open"));
    assert_eq!(sealed.read("folder/open", ids[2], None).0, ciphertexts[2], "nobody said that it is one");
}

#[test]
fn clear_text_where_a_ciphertext_should_be_and_another_key_are_errors_without_a_byte() {
    let (key, other) = (new_key(), new_key());
    let foreign = sealed(&other, b"a letter");
    let mut flipped = sealed(&key, b"a letter");
    flipped[25] ^= 1;
    let clear = [&b"a letter"[..], b"\0GITCRYPT\0", b"a letter of more than twenty bytes"];
    let mut blobs = clear.to_vec();
    blobs.extend([foreign.as_slice(), &flipped]);
    let (sealed, ids) = Sealed::new(key, &blobs);
    for (id, word) in ids.iter().zip(["clear text", "clear text", "clear text", "another key", "damaged"]) {
        let (bytes, outcome) = sealed.read("folder/secret/x", *id, None);
        let error = outcome.unwrap_err();
        assert!(bytes.is_empty() && error.contains(word), "{error}");
    }
}

#[test]
fn a_large_file_is_fetched_by_its_pointer_and_decrypted_then() {
    let key = new_key();
    let plain: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let ciphertext = sealed(&key, &plain);
    let (good, open) = (Pointer::of(&ciphertext), Pointer::of(&plain));
    let texts = [good.encode().into_bytes(), open.encode().into_bytes()];
    let sealed_look_alike = sealed(&key, &texts[1]);
    let (sealed, ids) =
        Sealed::new(key, &[texts[0].as_slice(), texts[1].as_slice(), sealed_look_alike.as_slice()]);
    let objects = Objects::of(sealed.world.scratch.path());
    for (pointer, bytes) in [(&good, &ciphertext), (&open, &plain)] {
        let path = objects.path_of(&pointer.id);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let checksum = sealed.key.checksums().checksum(&plain);
    for recorded in [None, Some(checksum)] {
        let (bytes, proof) = sealed.read("folder/secret/film", ids[0], recorded);
        assert!(bytes == plain && proof.unwrap().blake3 == checksum);
        let (bytes, proof) = sealed.read("folder/film", ids[1], recorded);
        assert!(bytes == plain && proof.unwrap().blake3 == checksum, "not encrypted, and its checksum keyed");
    }
    let error = sealed.read("folder/secret/film", ids[1], None).1.unwrap_err();
    assert!(error.contains("clear text"), "{error}");

    // A user's own file that looks like a pointer: told by the keyed checksum where it is clear, by its ciphertext else.
    let own = sealed.key.checksums().checksum(&texts[1]);
    assert_eq!(sealed.read("folder/film", ids[1], Some(own)).0, texts[1]);
    let plain_own = *blake3::hash(&texts[1]).as_bytes();
    assert_eq!(sealed.read("folder/film", ids[1], Some(plain_own)).0, plain, "no checksum of this snapshot");
    assert_eq!(sealed.read("folder/secret/film", ids[2], Some(own)).0, texts[1]);

    let path = objects.path_of(&good.id);
    let mut damaged = ciphertext;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(path, damaged).unwrap();
    let (bytes, outcome) = sealed.read("folder/secret/film", ids[0], Some(checksum));
    assert!(outcome.unwrap_err().contains("damaged"));
    assert!(bytes.len() < plain.len(), "the last of it is withheld");
}

/// A repository whose contents are OpenPGP messages to `gpg`.
fn messages(gpg: &Gpg, opener: Opener, blobs: &[&[u8]]) -> (Sealed, Vec<Oid>) {
    let cipher = Cipher::OpenPgp { recipients: vec![gpg.fingerprint().to_owned()] };
    Sealed::by(new_key(), cipher, opener, blobs)
}

fn text(length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[test]
fn messages_are_read_with_a_private_key_inline_and_large_and_the_last_piece_waits_for_the_proof() {
    let gpg = Gpg::with_key("reader", "future-default");
    let opener = Opener::new(vec![Arc::new(gpg.private())], false);
    let plain = [Vec::new(), b"a letter".to_vec(), text(400_000), text(3_000_000)];
    let to = [gpg.recipient()];
    let sent: Vec<Vec<u8>> = plain.iter().map(|plain| encrypt_whole(plain, &to).unwrap()).collect();
    let pointers: Vec<Pointer> = sent.iter().map(|message| Pointer::of(message)).collect();
    let texts: Vec<Vec<u8>> = pointers.iter().map(|pointer| pointer.encode().into_bytes()).collect();
    let mut flipped = sent[3].clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let behind = [&sent[1][..], b"x"].concat();
    let wrong: [&[u8]; 6] = [&flipped, &sent[3][..2_000_000], &sent[1][..60], &behind, b"a letter", b""];
    let blobs: Vec<&[u8]> = sent.iter().chain(&texts).map(Vec::as_slice).chain(wrong).collect();
    let (sealed, ids) = messages(&gpg, opener, &blobs);
    let objects = Objects::of(sealed.world.scratch.path());
    for (pointer, message) in pointers.iter().zip(&sent) {
        let path = objects.path_of(&pointer.id);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, message).unwrap();
    }
    for (id, expected) in ids.iter().zip(plain.iter().chain(&plain)) {
        let checksum = sealed.key.checksums().checksum(expected);
        for recorded in [None, Some(checksum), Some([0; 32])] {
            let (bytes, proof) = sealed.read("folder/secret/x", *id, recorded);
            assert!(bytes == *expected && proof.unwrap().blake3 == checksum, "{} bytes", expected.len());
        }
    }
    let words =
        ["damaged|encrypted", "encrypted", "encrypted", "behind|trailing", "clear text", "clear text"];
    for ((id, wrong), words) in ids[8..].iter().zip(wrong).zip(words) {
        let (bytes, outcome) = sealed.read("folder/secret/x", *id, None);
        let error = outcome.unwrap_err();
        assert!(words.split('|').any(|word| error.contains(word)), "{error}");
        assert!(bytes.len() < plain[3].len() && (wrong.len() > 1_000_000 || bytes.is_empty()));
    }
    let open = sealed.read("folder/x", ids[1], None).0;
    assert_eq!(open, sent[1], "nobody said that it is one");
}

#[test]
fn without_a_private_key_a_message_is_refused_before_it_is_read_and_its_recipient_is_named() {
    let (gpg, eve) = (Gpg::with_key("reader", "future-default"), Gpg::with_key("eve", "future-default"));
    let message = encrypt_whole(b"a letter", &[gpg.recipient()]).unwrap();
    for opener in [Opener::default(), Opener::new(vec![Arc::new(eve.private())], false)] {
        let (sealed, ids) = messages(&gpg, opener, &[&message, b"in the open"]);
        let error = sealed.found("folder/secret/x", ids[0], None).unwrap_err();
        for word in [gpg.fingerprint(), "--key-file", "--gpg", "private_key"] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(sealed.read("folder/open", ids[1], None).0, b"in the open");
    }
}
