//! Encrypted snapshots, judged by git-crypt: an unlocked clone is the root, byte for byte, and what is stored tells nothing.

use super::*;
use crate::config::EncryptionMethod;
use crate::crypt::gitcrypt::{KeyFile, cipher};
use crate::metadata;

/// Stands in every content that must not be seen.
const CANARY: &str = "canary-7c1e3f";

/// What the configuration says for a key that is made at this place.
pub(crate) fn encryption(key_file: &Path, paths: &[&str]) -> Encryption {
    let key = KeyFile::generate(None).unwrap();
    fs::write(key_file, &*key.to_bytes()).unwrap();
    Encryption {
        method: EncryptionMethod::GitCrypt {
            key_file: key_file.to_path_buf(),
            old_keys: crate::config::default_old_keys(key_file),
            recipients: Vec::new(),
        },
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        accepts_clear_history: false,
    }
}

pub(crate) fn encrypted_bench(paths: &[&str]) -> Bench {
    let mut bench = bench();
    let encryption = encryption(&bench.scratch.path().join("key"), paths);
    crate::crypt::places::announce(bench.repository.path(), Some(&encryption.method));
    bench.encryption = Some(encryption);
    bench
}

/// A clone that git-crypt unlocked.
fn unlocked(bench: &Bench) -> tempfile::TempDir {
    let clone = bench.clone_fresh();
    let output = Command::new("git-crypt")
        .args(["unlock", bench.scratch.path().join("key").to_str().unwrap()])
        .current_dir(clone.path())
        .output()
        .expect("git-crypt is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    clone
}

fn assert_unlocked_equals(bench: &Bench) {
    let clone = unlocked(bench);
    let mut cloned = listing(&clone.path().join("folder"), true);
    cloned.retain(|path, _| !path.is_empty());
    assert_eq!(cloned, listing(&bench.root(), false));
    assert_eq!(git(clone.path(), &["status", "--porcelain"]), "");
}

/// Every object of the repository and every large content, decompressed.
fn stored(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let objects = bench.repository.objects().unwrap();
    let mut all = Vec::new();
    objects
        .foreach(|id| {
            all.push(*id);
            true
        })
        .unwrap();
    let mut found: Vec<(String, Vec<u8>)> =
        all.into_iter().map(|id| (id.to_string(), objects.read(id).unwrap().data().to_vec())).collect();
    let mut directories = vec![bench.repository.path().join("lfs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => found.push((path.display().to_string(), fs::read(path).unwrap())),
            }
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn blob_at(bench: &Bench, path: &str) -> Vec<u8> {
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let (tree, objects) = (bench.repository.tree_of(tip).unwrap(), bench.repository.objects().unwrap());
    let entry = tree::lookup(&objects, tree, path.as_bytes()).unwrap().unwrap();
    objects.read(entry.oid).unwrap().data().to_vec()
}

fn record_of(bench: &Bench, path: &str) -> metadata::Record {
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let (tree, objects) = (bench.repository.tree_of(tip).unwrap(), bench.repository.objects().unwrap());
    metadata::read_record(&objects, tree, &bench.roots[0].name, &RelPath::new(path).unwrap())
        .unwrap()
        .unwrap()
}

fn fill(bench: &Bench) {
    bench.write("small", format!("{CANARY} small"));
    bench.write("empty", "");
    bench.write("dir/.gitattributes", format!("{CANARY} of a user's own"));
    bench.write("dir/.git/config", format!("{CANARY} nested"));
    bench.write("two blanks", format!("{CANARY} blanks"));
    bench.write("whole", format!("{CANARY}{}", "w".repeat((1 << 20) - CANARY.len())));
    bench.write("streamed", format!("{CANARY}{}{CANARY}", "s".repeat(3 << 20)));
    bench.write("ciphertext", [&b"\0GITCRYPT\0"[..], &[7; 40]].concat());
    symlink("small", bench.root().join("link")).unwrap();
    fs::create_dir(bench.root().join("nothing in it")).unwrap();
}

#[test]
fn an_unlocked_clone_is_the_root_and_what_is_stored_tells_nothing() {
    let mut bench = encrypted_bench(&[]);
    fill(&bench);
    assert_eq!(bench.back_up(), 1);
    assert_unlocked_equals(&bench);
    for (name, bytes) in stored(&bench) {
        assert!(!holds(&bytes, CANARY), "{name}");
        assert!(!holds(&bytes, "\"blake3\""), "{name}: metadata in clear text");
    }
    for path in ["folder/small", "folder/empty", "folder/streamed", "folder/dir/_bb_.gitattributes"] {
        assert!(cipher::has_header(&blob_at(&bench, path)), "{path}");
    }
    let record = record_of(&bench, "small");
    assert_eq!(record.size, Some(CANARY.len() as u64 + 6));
    let plain = *blake3::hash(format!("{CANARY} small").as_bytes()).as_bytes();
    assert!(record.blake3.is_some_and(|checksum| checksum != plain), "anybody could guess the file");
    // Equal files are equal, and a second look stores nothing.
    bench.write("again", format!("{CANARY} small"));
    bench.touch("again", Reach::Exact);
    assert_eq!(bench.drain(), 1);
    assert!(blob_at(&bench, "folder/again") == blob_at(&bench, "folder/small"));
    assert_eq!(bench.back_up(), 0);
}

#[test]
fn only_what_the_patterns_name_is_encrypted_but_all_of_the_metadata() {
    let mut bench = encrypted_bench(&["secret/", "*.key"]);
    bench.write("open", "anybody may read this");
    bench.write("secret/a", CANARY);
    bench.write("b.key", CANARY);
    assert_eq!(bench.back_up(), 1);
    assert_unlocked_equals(&bench);
    assert_eq!(blob_at(&bench, "folder/open"), b"anybody may read this");
    for path in ["folder/secret/a", "folder/b.key", ".backupbot/meta/folder/_bb_meta"] {
        assert!(cipher::has_header(&blob_at(&bench, path)), "{path}");
    }
    assert!(stored(&bench).iter().all(|(_, bytes)| !holds(bytes, CANARY)));
    let plain = *blake3::hash(b"anybody may read this").as_bytes();
    assert!(record_of(&bench, "open").blake3.is_some_and(|checksum| checksum != plain));
}

#[test]
fn a_large_content_is_encrypted_before_it_is_pointed_at() {
    let mut bench = encrypted_bench(&[]);
    bench.classifier = Classifier::of(&lfs::tests::settings("{threshold: 64KiB}", &[]));
    bench.write("disk", format!("{CANARY}{}", "d".repeat(3 << 20)));
    bench.write("middle", format!("{CANARY}{}", "m".repeat(100 << 10)));
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n", "a".repeat(64));
    bench.write("look-alike", &pointer);
    assert_eq!(bench.back_up(), 1);
    for (name, bytes) in stored(&bench) {
        assert!(!holds(&bytes, CANARY), "{name}");
    }
    assert!(
        cipher::has_header(&blob_at(&bench, "folder/look-alike")),
        "nobody takes a ciphertext for a pointer"
    );
    let objects = Objects::of(bench.repository.path());
    for (path, size) in [("disk", (3 << 20) + CANARY.len()), ("middle", (100 << 10) + CANARY.len())] {
        let pointer = Pointer::parse(&blob_at(&bench, &format!("folder/{path}"))).unwrap();
        assert_eq!(pointer.size, size as u64 + cipher::OVERHEAD);
        assert!(objects.has(&pointer).unwrap());
        // Gone from the store, it comes back with the next look at the file: the ciphertext is the same.
        fs::remove_file(objects.path_of(&pointer.id)).unwrap();
        let file = fs::File::options().write(true).open(bench.root().join(path)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        bench.touch(path, Reach::Exact);
        bench.drain();
        assert!(objects.has(&pointer).unwrap(), "{path}");
        assert_eq!(record_of(&bench, path).size, Some(size as u64));
    }
}

#[test]
fn a_root_that_is_encrypted_since_yesterday_is_not_mixed() {
    let mut bench = bench();
    bench.write("a", "clear");
    bench.back_up();
    let encryption = encryption(&bench.scratch.path().join("key"), &[]);
    bench.encryption = Some(encryption);
    bench.touch("a", Reach::Exact);
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.step()));
    let said = refused.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("clear_history"), "{said}");
    assert_eq!(blob_at(&bench, "folder/a"), b"clear", "nothing was committed");
}
