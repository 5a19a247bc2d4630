//! Snapshots whose contents are OpenPGP messages, judged by gpg: each recipient's makes the root of a plain clone.

use super::*;
use crate::config::{EncryptionMethod, Gpg as GpgMethod};
use crate::crypt::gitcrypt::{KeyFile, cipher};
use crate::crypt::openpgp::header;
use crate::crypt::openpgp::tests::gpg::Gpg;
use crate::crypt::places;
use crate::crypt::policy::{Cipher, Policy};
use crate::guard::Memory;
use crate::guard::restores::Restores;
use crate::lfs::Pointer;

const CANARY: &str = "canary-in-a-message-0815";

pub(crate) struct People {
    pub alice: Gpg,
    pub bob: Gpg,
}

impl People {
    pub fn new() -> Self {
        Self { alice: Gpg::with_key("alice", "future-default"), bob: Gpg::with_key("bob", "future-default") }
    }
}

fn certificates(bench: &Bench) -> PathBuf {
    bench.scratch.path().join("people")
}

pub(crate) fn add(bench: &Bench, name: &str, person: &Gpg) {
    fs::create_dir_all(certificates(bench)).unwrap();
    fs::write(certificates(bench).join(format!("{name}.asc")), person.armored_certificate()).unwrap();
}

fn method(bench: &Bench) -> EncryptionMethod {
    let mut gpg = GpgMethod {
        recipients: vec![certificates(bench)],
        key_file: PathBuf::new(),
        makes_key: true,
        old_keys: PathBuf::new(),
        private_key: None,
        passphrase_file: None,
        agent: false,
    };
    gpg.settle(bench.scratch.path(), "documents");
    EncryptionMethod::Gpg(gpg)
}

fn configure(bench: &mut Bench, method: EncryptionMethod, paths: &[&str], accepts: bool) {
    places::announce(bench.repository.path(), Some(&method));
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    bench.encryption = Some(Encryption { method, paths, accepts_clear_history: accepts });
}

pub(crate) fn key_of(bench: &Bench) -> PathBuf {
    method(bench).key_file().unwrap().to_path_buf()
}

/// A host that encrypts to Alice.
pub(crate) fn bench_for(people: &People, paths: &[&str]) -> Bench {
    let mut bench = bench();
    add(&bench, "alice", &people.alice);
    let method = method(&bench);
    configure(&mut bench, method, paths, false);
    bench
}

fn with_large(bench: &mut Bench) {
    bench.classifier = Classifier::of(&lfs::tests::settings("{threshold: 2MiB}", &[]));
}

fn fill(bench: &Bench) {
    bench.write("small", format!("{CANARY} small"));
    bench.write("empty", "");
    bench.write("dir/.gitattributes", format!("# {CANARY}\n* text\n"));
    bench.write("streamed", format!("{CANARY}{}", "s".repeat(1 << 20)));
    bench.write("large", format!("{CANARY}{}", "l".repeat(3 << 20)));
    bench.write("message", [&[0x84, 0x5e][..], CANARY.as_bytes()].concat());
    symlink("small", bench.root().join("link")).unwrap();
    fs::create_dir(bench.root().join("nothing in it")).unwrap();
}

fn tip(bench: &Bench) -> Oid {
    bench.repository.reference(&bench.branch).unwrap().unwrap()
}

fn policy(bench: &Bench) -> Option<Policy> {
    let tree = bench.repository.tree_of(tip(bench)).unwrap();
    Policy::of_tree(&bench.repository.objects().unwrap(), tree).unwrap()
}

/// Every file of the root as the tip stores it: path, object, stored bytes, whether it is large.
fn stored(bench: &Bench) -> Vec<(RelPath, Oid, Vec<u8>, bool)> {
    let tree = bench.repository.tree_of(tip(bench)).unwrap();
    let objects = bench.repository.objects().unwrap();
    let (files, name) = (bench.store.reader().files(&bench.name).unwrap(), bench.roots[0].name.clone());
    let mut found = Vec::new();
    metadata::walk(&objects, tree, &name, &mut |directory, record| {
        if record.kind != EntryKind::File {
            return Ok(());
        }
        let path = directory.join(&record.name);
        let recorded = files.get(&name, &path)?.unwrap();
        let entry = tree::lookup(&objects, tree, &path.to_git_path(&name))?.unwrap();
        assert_eq!(recorded.stored, raw(entry.oid), "{path}");
        assert_eq!(record.blake3, Some(recorded.checksum), "{path}");
        let mut bytes = objects.read(entry.oid).unwrap().data().to_vec();
        if recorded.is_pointer {
            let pointer = Pointer::parse(&bytes).unwrap();
            bytes = fs::read(Objects::of(bench.repository.path()).path_of(&pointer.id)).unwrap();
        }
        found.push((path, entry.oid, bytes, recorded.is_pointer));
        Ok(())
    })
    .unwrap();
    found
}

/// What stands in the tree is the root, for this person.
fn is_the_root(bench: &Bench, person: &Gpg) {
    let files = stored(bench);
    let on_disk = listing(&bench.root(), false).values().filter(|it| !it.starts_with("->")).count();
    assert_eq!(files.len(), on_disk);
    for (path, _, message, _) in files {
        let content = fs::read(bench.root().join(path.as_os_path())).unwrap();
        assert!(header::look(&message).is_some(), "{path}");
        assert!(person.decrypt(&message).unwrap() == content, "{path}");
    }
}

fn oids(bench: &Bench) -> BTreeMap<Vec<u8>, Oid> {
    stored(bench).into_iter().map(|(path, oid, ..)| (path.as_bytes().to_vec(), oid)).collect()
}

fn has_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
}

/// Nothing that is stored, or in the state, has the canary.
fn is_silent(bench: &Bench) {
    let objects = bench.repository.objects().unwrap();
    let mut all = Vec::new();
    objects
        .foreach(|id| {
            all.push(*id);
            true
        })
        .unwrap();
    for id in all {
        assert!(!has_canary(objects.read(id).unwrap().data()), "{id}");
    }
    let mut waiting = vec![bench.scratch.path().to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path == bench.scratch.path().join("data") || path.is_symlink() {
                continue;
            }
            match path.is_dir() {
                true => waiting.push(path),
                false => assert!(!has_canary(&fs::read(&path).unwrap()), "{}", path.display()),
            }
        }
    }
}

fn refused(bench: &mut Bench, word: &str) {
    bench.touch("", Reach::Deep);
    let (before, packs) =
        (bench.repository.reference(&bench.branch).unwrap(), bench.repository.pack_directory());
    let count = || fs::read_dir(&packs).unwrap().count();
    let there = count();
    let error = bench.try_build(None).expect_err("nothing is committed");
    assert_eq!(error.kind(), Kind::EncryptionKey, "{error}");
    assert!(error.to_string().contains(word), "{error}");
    assert_eq!((bench.repository.reference(&bench.branch).unwrap(), count()), (before, there));
    assert!(bench.queue.row_count(&bench.name) > 0, "the rows stay");
}

#[test]
fn every_content_is_a_message_to_each_recipient_and_nothing_else_is_stored() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    add(&bench, "bob", &people.bob);
    with_large(&mut bench);
    fill(&bench);
    bench.back_up();
    is_the_root(&bench, &people.alice);
    is_the_root(&bench, &people.bob);
    assert!(stored(&bench).iter().any(|(path, _, _, is_large)| path.as_bytes() == b"large" && *is_large));
    is_silent(&bench);
    let mut names = vec![people.alice.fingerprint().to_owned(), people.bob.fingerprint().to_owned()];
    names.sort();
    assert_eq!(policy(&bench).unwrap().cipher, Cipher::OpenPgp { recipients: names });
    // Git leaves the messages alone, and git-crypt opens the rest for each of them.
    let clone = bench.clone_fresh();
    for person in [&people.alice, &people.bob] {
        let shards = || git(clone.path(), &["ls-files", "--", ".backupbot/meta"]);
        let shard = clone.path().join(shards().lines().next().unwrap());
        assert!(cipher::has_header(&fs::read(&shard).unwrap()));
        let unlock = Command::new("git-crypt")
            .arg("unlock")
            .current_dir(clone.path())
            .env("GNUPGHOME", person.home())
            .output()
            .expect("git-crypt is installed");
        assert!(unlock.status.success(), "{}", String::from_utf8_lossy(&unlock.stderr));
        assert!(fs::read(&shard).unwrap().starts_with(b"{"));
        assert!(header::look(&fs::read(clone.path().join("folder/small")).unwrap()).is_some());
        assert_eq!(git(clone.path(), &["status", "--porcelain"]), "");
        let lock = Command::new("git-crypt").arg("lock").current_dir(clone.path()).output().unwrap();
        assert!(lock.status.success());
    }
}

#[test]
fn the_same_content_keeps_its_message_whatever_its_time_or_place() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    with_large(&mut bench);
    fill(&bench);
    bench.back_up();
    let before = oids(&bench);
    for path in ["small", "streamed", "large", "empty"] {
        let file = fs::File::options().append(true).open(bench.root().join(path)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    assert_eq!(bench.back_up(), 1, "other times");
    assert_eq!(oids(&bench), before);
    fs::create_dir(bench.root().join("moved")).unwrap();
    for path in ["small", "streamed", "large"] {
        fs::rename(bench.root().join(path), bench.root().join("moved").join(path)).unwrap();
    }
    bench.back_up();
    let after = oids(&bench);
    for path in ["small", "streamed", "large"] {
        assert_eq!(after[format!("moved/{path}").as_bytes()], before[path.as_bytes()], "{path}");
    }
    is_the_root(&bench, &people.alice);
    assert_eq!(bench.back_up(), 0);
    bench.write("moved/small", "another");
    bench.back_up();
    assert_ne!(oids(&bench)[&b"moved/small"[..]], before[&b"small"[..]]);
    is_the_root(&bench, &people.alice);
}

#[test]
fn a_content_with_several_names_or_in_several_places_of_a_batch_is_one_message() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    with_large(&mut bench);
    for (path, size) in [("small", 100), ("streamed", (1 << 20) + 1), ("large", 3 << 20)] {
        bench.write(path, CANARY.repeat(size / CANARY.len() + 1));
        fs::hard_link(bench.root().join(path), bench.root().join(format!("{path}-linked"))).unwrap();
    }
    // One after the other: two threads may meet the same content in the same moment.
    bench.limit = Limit { findings: 1, bytes: 1 << 30 };
    bench.back_up();
    for path in ["small", "streamed", "large"] {
        fs::hard_link(bench.root().join(path), bench.root().join(format!("{path}-later"))).unwrap();
    }
    bench.limit = Limit { findings: 10_000, bytes: 1 << 30 };
    bench.back_up();
    let oids = oids(&bench);
    for path in ["small", "streamed", "large"] {
        for other in ["linked", "later"] {
            assert_eq!(oids[path.as_bytes()], oids[format!("{path}-{other}").as_bytes()], "{path}-{other}");
        }
    }
    is_the_root(&bench, &people.alice);
    // Copies in one batch, in the order of one thread: files of one stride.
    for copy in 0..3 {
        bench.write(&format!("copies/{copy}"), format!("{CANARY} copied"));
    }
    bench.back_up();
    let copies: Vec<Oid> =
        (0..3).map(|copy| self::oids(&bench)[format!("copies/{copy}").as_bytes()]).collect();
    assert!(copies.iter().all(|oid| *oid == copies[0]));
}

#[test]
fn a_large_message_that_is_lost_is_made_again_when_its_file_is_touched() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    with_large(&mut bench);
    fill(&bench);
    bench.back_up();
    let before = oids(&bench)[&b"large"[..]];
    fs::remove_dir_all(bench.repository.path().join("lfs/objects")).unwrap();
    let touch = |bench: &Bench, second| {
        let file = fs::File::options().append(true).open(bench.root().join("large")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(second)).unwrap();
    };
    bench.is_everywhere = true;
    touch(&bench, 1);
    bench.back_up();
    let at = |bench: &Bench| {
        let objects = bench.repository.objects().unwrap();
        let tree = bench.repository.tree_of(tip(bench)).unwrap();
        tree::lookup(&objects, tree, b"folder/large").unwrap().unwrap().oid
    };
    assert_eq!(at(&bench), before, "every remote has it");
    bench.is_everywhere = false;
    touch(&bench, 2);
    bench.back_up();
    assert_ne!(at(&bench), before);
    is_the_root(&bench, &people.alice);
}

#[test]
fn other_recipients_get_everything_anew_and_no_file_counts_as_another() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    with_large(&mut bench);
    fill(&bench);
    bench.back_up();
    let before: BTreeMap<_, _> = oids(&bench);
    add(&bench, "bob", &people.bob);
    bench.touch("", Reach::Deep);
    let (commit, summary) = bench.step();
    assert_eq!(summary.switched.unwrap().again, Some(Again::Recipients));
    assert!(bench.repository.message_of(commit.unwrap()).unwrap().contains("other recipients"));
    let checksums = |bench: &Bench| -> BTreeMap<Vec<u8>, Option<[u8; 32]>> {
        let tree = bench.repository.tree_of(tip(bench)).unwrap();
        let mut found = BTreeMap::new();
        let objects = bench.repository.objects().unwrap();
        metadata::walk(&objects, tree, &bench.roots[0].name, &mut |directory, record| {
            found.insert(directory.join(&record.name).as_bytes().to_vec(), record.blake3);
            Ok(())
        })
        .unwrap();
        found
    };
    let sums = checksums(&bench);
    // The process died here, and some commits were made already: the marks last.
    bench.limit = Limit { findings: 3, bytes: 256 << 20 };
    assert!(bench.drain() > 1);
    is_the_root(&bench, &people.alice);
    is_the_root(&bench, &people.bob);
    for (path, oid) in oids(&bench) {
        assert_ne!(before[&path], oid, "{}", String::from_utf8_lossy(&path));
    }
    assert_eq!(checksums(&bench), sums);
    assert_eq!(bench.back_up(), 0);
    // One less: what comes is for Alice alone.
    fs::remove_file(certificates(&bench).join("bob.asc")).unwrap();
    bench.back_up();
    is_the_root(&bench, &people.alice);
    for (path, _, message, _) in stored(&bench) {
        assert!(people.bob.decrypt(&message).is_err(), "{path}");
    }
}

#[test]
fn the_lost_key_of_the_metadata_means_that_everything_is_encrypted_anew() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    fill(&bench);
    bench.back_up();
    let before = oids(&bench);
    fs::remove_file(key_of(&bench)).unwrap();
    bench.touch("", Reach::Deep);
    let (_, summary) = bench.step();
    assert_eq!(summary.switched.unwrap().again, Some(Again::Lost));
    bench.drain();
    is_the_root(&bench, &people.alice);
    assert!(oids(&bench).iter().all(|(path, oid)| before[path] != *oid));
    assert_eq!(bench.back_up(), 0);
    let tree = bench.repository.tree_of(tip(&bench)).unwrap();
    let objects = bench.repository.objects().unwrap();
    let nothing = RelPath::new(b"nothing in it".to_vec()).unwrap();
    assert!(metadata::read_directory(&objects, tree, &bench.roots[0].name, &nothing).unwrap().is_some());
}

#[test]
fn a_state_that_is_lost_as_a_whole_is_made_anew_from_the_names_in_the_tree() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    with_large(&mut bench);
    fill(&bench);
    bench.write("gone/soon", CANARY);
    bench.back_up();
    let before = oids(&bench);
    let commit = tip(&bench);
    fs::remove_file(key_of(&bench)).unwrap();
    fs::remove_dir_all(bench.root().join("gone")).unwrap();
    bench.queue.distrust_files(&bench.name).unwrap();
    let root = bench.roots[0].name.clone();
    let mut parts = Vec::new();
    rebuild_files(&bench.repository, commit, &root, &Progress::new(), &mut |part| {
        parts.push(part);
        Ok(())
    })
    .unwrap();
    let checkpoint = Some(Checkpoint { commit: raw(commit), at_ms: 1, batch: 1 });
    let files = parts.into_iter().map(|part| (root.clone(), part)).collect();
    let settlement = Settlement { files, checkpoint, ..Settlement::default() };
    bench.queue.settle(&bench.name, &settlement, 1).unwrap();
    bench.back_up();
    is_the_root(&bench, &people.alice);
    let after = oids(&bench);
    assert!(!after.contains_key(&b"gone/soon"[..]));
    assert!(after.iter().all(|(path, oid)| before[path] != *oid));
    is_silent(&bench);
}

#[test]
fn with_the_key_a_lost_stat_cache_makes_no_new_message() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    fill(&bench);
    bench.back_up();
    let (before, commit, root) = (oids(&bench), tip(&bench), bench.roots[0].name.clone());
    bench.queue.distrust_files(&bench.name).unwrap();
    let mut parts = Vec::new();
    rebuild_files(&bench.repository, commit, &root, &Progress::new(), &mut |part| {
        parts.push(part);
        Ok(())
    })
    .unwrap();
    let files = parts.into_iter().map(|part| (root.clone(), part)).collect();
    bench.queue.settle(&bench.name, &Settlement { files, ..Settlement::default() }, 1).unwrap();
    assert_eq!(bench.back_up(), 0);
    assert_eq!(oids(&bench), before);
}

#[test]
fn clear_text_and_git_crypt_become_messages_in_one_commit() {
    let people = People::new();
    for is_git_crypt in [false, true] {
        let mut bench = bench();
        add(&bench, "alice", &people.alice);
        with_large(&mut bench);
        fill(&bench);
        bench.write("copy of large", fs::read(bench.root().join("large")).unwrap());
        if is_git_crypt {
            let key_file = bench.scratch.path().join("key");
            fs::write(&key_file, &*KeyFile::generate(None).unwrap().to_bytes()).unwrap();
            let old_keys = method(&bench).old_keys().unwrap().to_path_buf();
            fs::create_dir_all(&old_keys).unwrap();
            let method = EncryptionMethod::GitCrypt {
                key_file: key_file.clone(),
                old_keys: old_keys.clone(),
                recipients: Vec::new(),
            };
            configure(&mut bench, method, &[], false);
            bench.back_up();
            let gpg = self::method(&bench);
            configure(&mut bench, gpg, &[], true);
            refused(&mut bench, "old_keys");
            fs::copy(key_file, old_keys.join("former.key")).unwrap();
        } else {
            bench.back_up();
        }
        let method = method(&bench);
        configure(&mut bench, method, &[], true);
        bench.touch("", Reach::Deep);
        let (_, summary) = bench.step();
        let switched = summary.switched.unwrap();
        assert_eq!((switched.again, switched.files), (None, 7));
        is_the_root(&bench, &people.alice);
        let oids = oids(&bench);
        assert_eq!(oids[&b"large"[..]], oids[&b"copy of large"[..]], "one content, one message");
        assert_eq!(bench.drain(), 0, "the checksums are known");
    }
}

#[test]
fn what_cannot_be_read_is_not_stored_in_another_way_but_on_another_branch_everything_is() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    fill(&bench);
    bench.back_up();
    configure(&mut bench, EncryptionMethod::None { old_keys: None }, &[], false);
    refused(&mut bench, "another `branch`");
    let commit = tip(&bench);
    let encryption = bench.encryption.clone();
    assert!(!may_begin_at(&bench.repository, commit, encryption.as_ref()).unwrap());
    bench.branch = "refs/heads/second".to_owned();
    bench.touch("", Reach::Deep);
    let (first, summary) = bench.step();
    assert_eq!(summary.switched.unwrap().again, Some(Again::Afresh));
    assert_eq!(bench.repository.git().find_commit(first.unwrap()).unwrap().parent_count(), 0);
    bench.drain();
    let clone = tempfile::tempdir().unwrap();
    let source = bench.repository.path().to_str().unwrap();
    git(clone.path(), &["clone", "-q", "--branch", "second", source, "."]);
    let mut cloned = listing(&clone.path().join("folder"), true);
    cloned.retain(|path, _| !path.is_empty());
    assert_eq!(cloned, listing(&bench.root(), false));
    assert!(policy(&bench).is_none());
}

#[test]
fn only_the_named_paths_are_messages_and_fewer_of_them_are_refused() {
    let people = People::new();
    let mut bench = bench_for(&people, &["secret/"]);
    bench.write("secret/x", CANARY);
    bench.write("open", "seen by all");
    bench.back_up();
    for (path, _, bytes, _) in stored(&bench) {
        assert_eq!(header::look(&bytes).is_some(), path.as_bytes() == b"secret/x", "{path}");
    }
    let method = method(&bench);
    configure(&mut bench, method.clone(), &["nothing/"], true);
    refused(&mut bench, "another `branch`");
    configure(&mut bench, method, &[], true);
    bench.back_up();
    is_the_root(&bench, &people.alice);
}

#[test]
fn without_a_good_certificate_nothing_is_stored() {
    let people = People::new();
    let mut bench = bench_for(&people, &[]);
    fill(&bench);
    bench.back_up();
    bench.write("small", "more");
    let certificate = certificates(&bench).join("alice.asc");
    let good = fs::read(&certificate).unwrap();
    fs::write(&certificate, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnonsense").unwrap();
    refused(&mut bench, "alice.asc");
    fs::remove_file(&certificate).unwrap();
    refused(&mut bench, "recipients");
    fs::write(&certificate, Gpg::expired("carol").armored_certificate()).unwrap();
    refused(&mut bench, "expired");
    fs::write(&certificate, good).unwrap();
    bench.back_up();
    is_the_root(&bench, &people.alice);
    is_silent(&bench);
}

#[test]
fn the_guard_takes_nothing_that_is_encrypted_anew_or_moved_for_a_loss_also_after_a_restart() {
    let people = People::new();
    for is_lost in [false, true] {
        let mut bench = bench_for(&people, &[]);
        for file in 0..60 {
            bench.write(&format!("many/{file:02}"), format!("{file} {CANARY}"));
        }
        bench.back_up();
        let since = BTreeMap::from([(bench.roots[0].name.clone(), tip(&bench))]);
        let limits = crate::config::MassChange { min_files: 10, share: 0.5, ..Default::default() };
        let (restores, memory, fresh, afresh) =
            (Restores::default(), Memory::default(), Memory::default(), Memory::default());
        let guard = |memory| Guard { limits: &limits, memory, since: &since, restores: &restores };
        let step = |bench: &mut Bench, memory| {
            let Built::Commit(staged, summary) = bench.try_build(Some(guard(memory))).unwrap() else {
                panic!()
            };
            assert_eq!(summary.mass_change, None);
            bench.queue.stage(&bench.name, &staged).unwrap();
            publish(&bench.repository, &staged, &Progress::new()).unwrap();
            bench.queue.settle(&bench.name, &staged.settlement, 2).unwrap();
        };
        match is_lost {
            true => fs::remove_file(key_of(&bench)).unwrap(),
            false => add(&bench, "bob", &people.bob),
        }
        bench.touch("", Reach::Deep);
        step(&mut bench, &memory);
        // Everything is encrypted anew, and then everything moves.
        step(&mut bench, &memory);
        fs::rename(bench.root().join("many"), bench.root().join("moved")).unwrap();
        bench.touch("", Reach::Deep);
        step(&mut bench, &memory);
        bench.write("moved/00", "another");
        bench.touch("moved/00", Reach::Exact);
        // Who remembers nothing reads the commits.
        step(&mut bench, &fresh);
        for file in 0..40 {
            bench.write(&format!("moved/{file:02}"), format!("rewritten {file}"));
        }
        bench.touch("", Reach::Deep);
        for memory in [&memory, &afresh] {
            let Built::Commit(_, summary) = bench.try_build(Some(guard(memory))).unwrap() else { panic!() };
            let (_, loss) = summary.mass_change.expect("40 of 60 files are rewritten");
            assert_eq!((loss.lost, loss.of), (40, 60));
        }
    }
}
