//! The switch from one form to another, judged by git-crypt: what it unlocks is the root.

use super::*;
use crate::config::EncryptionMethod;
use crate::config::default_old_keys;
use crate::crypt::gitcrypt::{KeyFile, cipher};
use crate::crypt::keyring::Keyring;
use crate::crypt::places;
use crate::crypt::policy::{KeyId, Policy};
use crate::guard::Memory;
use crate::guard::restores::Restores;
use crate::lfs::Pointer;

const CANARY: &str = "CANARY-4711-in-the-coal-mine";

/// A key file beside the data.
fn new_key(bench: &Bench, name: &str) -> PathBuf {
    let path = bench.scratch.path().join(name);
    fs::write(&path, &KeyFile::generate(None).unwrap().to_bytes()[..]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn id_of(key: &Path) -> KeyId {
    let method = method_of(key);
    Keyring::read(&method).unwrap().current().unwrap().id().clone()
}

fn method_of(key: &Path) -> EncryptionMethod {
    EncryptionMethod::GitCrypt {
        key_file: key.to_path_buf(),
        old_keys: default_old_keys(key),
        recipients: Vec::new(),
    }
}

/// What the configuration says from now on.
fn configure(bench: &mut Bench, method: Option<EncryptionMethod>, paths: &[&str], accepts: bool) {
    places::announce(bench.repository.path(), method.as_ref());
    bench.encryption = method.map(|method| Encryption {
        method,
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        accepts_clear_history: accepts,
    });
}

fn encrypt_with(bench: &mut Bench, key: &Path, paths: &[&str]) {
    configure(bench, Some(method_of(key)), paths, true);
}

/// Builds, which is to be the switch and nothing else, and takes it through all steps.
fn switch(bench: &mut Bench) -> (Oid, Switched) {
    bench.touch("", Reach::Deep);
    let before = bench.queue.row_count(&bench.name);
    let (commit, summary) = bench.step();
    assert_eq!(bench.queue.row_count(&bench.name), before, "the rows stay");
    assert_eq!((summary.added, summary.changed, summary.deleted), (0, 0, 0));
    bench.fsck();
    (commit.expect("a commit"), summary.switched.expect("a switch"))
}

fn refused(bench: &mut Bench) -> String {
    bench.touch("", Reach::Deep);
    let tip = bench.repository.reference(&bench.branch).unwrap();
    let packs = || fs::read_dir(bench.repository.pack_directory()).unwrap().count();
    let before = packs();
    let built = bench.try_build(None);
    let error = built.expect_err("nothing is committed");
    assert_eq!(error.kind(), Kind::EncryptionKey, "{error}");
    assert_eq!(bench.repository.reference(&bench.branch).unwrap(), tip);
    let packs = || fs::read_dir(bench.repository.pack_directory()).unwrap().count();
    assert_eq!(packs(), before, "nothing is left behind");
    assert!(bench.queue.row_count(&bench.name) > 0, "the rows stay");
    error.to_string()
}

/// All kinds of files, each with the canary in it.
fn fill(bench: &Bench) {
    bench.write("small", CANARY);
    bench.write("secret/small", format!("{CANARY} too"));
    bench.write("secret/empty", "");
    bench.write("copy", CANARY);
    bench.write("deep/er/.gitattributes", format!("# {CANARY}\n* text\n"));
    bench.write("deep/.git/config", CANARY);
    bench.write("large", format!("{CANARY}{}", "x".repeat(3 << 20)));
    bench.write("secret/large", vec![7; (1 << 20) + 1]);
    bench.write("looks-encrypted", [&cipher::HEADER[..], &[7; 40]].concat());
    fs::set_permissions(bench.root().join("small"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("small", bench.root().join("link")).unwrap();
    fs::create_dir_all(bench.root().join("nothing/in/it")).unwrap();
    for file in 0..200 {
        bench.write(&format!("many/{file:03}"), format!("{file} {CANARY}"));
    }
}

fn git_crypt_unlocks(bench: &Bench, key: &Path) -> tempfile::TempDir {
    let clone = tempfile::tempdir().unwrap();
    let source = bench.repository.path().to_str().unwrap();
    git(
        clone.path(),
        &["clone", "-q", "--branch", bench.branch.trim_start_matches("refs/heads/"), source, "."],
    );
    let output = Command::new("git-crypt")
        .current_dir(clone.path())
        .arg("unlock")
        .arg(key)
        .env("HOME", clone.path())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git-crypt is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(git(clone.path(), &["status", "--porcelain"]), "", "the filters find nothing to change");
    clone
}

fn is_the_root(bench: &Bench, clone: &Path) {
    let mut cloned = listing(&clone.join("folder"), true);
    cloned.retain(|path, _| !path.is_empty());
    assert_eq!(cloned, listing(&bench.root(), false));
}

/// The objects of a commit that its history has not.
fn new_objects(bench: &Bench, commit: Oid) -> Vec<(String, Vec<u8>)> {
    let repository = &bench.repository;
    let parents: Vec<Oid> = repository.git().find_commit(commit).unwrap().parent_ids().collect();
    let new = crate::git::reachable::new_objects(repository, commit, &parents, &Progress::new()).unwrap();
    let objects = repository.objects().unwrap();
    new.into_iter().map(|oid| (oid.to_string(), objects.read(oid).unwrap().data().to_vec())).collect()
}

fn has_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
}

/// Metadata, stat cache and contents all speak of the form that the tip has.
fn is_consistent(bench: &Bench) {
    let tip = bench.repository.reference(&bench.branch).unwrap().unwrap();
    let (tree, objects) = (bench.repository.tree_of(tip).unwrap(), bench.repository.objects().unwrap());
    let policy = Policy::of_tree(&objects, tree).unwrap();
    let keys = policy.as_ref().map(|_| places::keys_of(bench.repository.path()).unwrap());
    let key = policy.as_ref().and_then(|policy| keys.as_ref().unwrap().find(&policy.key));
    let files = bench.store.reader().files(&bench.name).unwrap();
    let name = &bench.roots[0].name;
    let mut seen = 0;
    metadata::walk(&objects, tree, name, &mut |directory, record| {
        if record.kind != EntryKind::File {
            return Ok(());
        }
        seen += 1;
        let path = directory.join(&record.name);
        let content = fs::read(bench.root().join(path.as_os_path())).unwrap();
        let checksum =
            key.map_or_else(|| *blake3::hash(&content).as_bytes(), |key| key.checksums().checksum(&content));
        assert_eq!(record.blake3, Some(checksum), "{path}");
        let recorded = files.get(name, &path)?.unwrap();
        assert_eq!(recorded.checksum, checksum, "{path}");
        let git_path = path.to_git_path(name);
        let entry = tree::lookup(&objects, tree, &git_path)?.unwrap();
        assert_eq!(recorded.stored, raw(entry.oid), "{path}");
        let mut stored = objects.read(entry.oid).unwrap().data().to_vec();
        let pointer = Pointer::parse(&stored).filter(|_| recorded.is_pointer);
        assert_eq!(pointer.is_some(), recorded.is_pointer, "{path}");
        if let Some(pointer) = pointer {
            let large = Objects::of(bench.repository.path());
            stored = fs::read(large.path_of(&pointer.id)).unwrap();
        }
        if policy.as_ref().is_some_and(|policy| policy.covers(&git_path)) {
            assert!(cipher::has_header(&stored), "{path}");
            stored = cipher::decrypt_whole(&[key.unwrap().version().unwrap()], &stored).unwrap();
        }
        assert!(stored == content, "{path}");
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, listing(&bench.root(), false).values().filter(|it| !it.starts_with("->")).count());
    let mut shards = 0;
    let meta = tree::lookup(&objects, tree, b".backupbot/meta").unwrap().unwrap();
    tree::diff_paths(&objects, None, Some(meta.oid), &mut |change| {
        let blob = objects.read(change.new.unwrap().oid).unwrap();
        assert_eq!(cipher::has_header(blob.data()), policy.is_some());
        shards += 1;
        Ok(())
    })
    .unwrap();
    assert!(shards > 0);
}

#[test]
fn one_commit_encrypts_everything_and_git_crypt_unlocks_a_clone_to_the_root() {
    let mut bench = bench();
    fill(&bench);
    bench.back_up();
    let before = bench.repository.reference(BRANCH).unwrap().unwrap();
    let key = new_key(&bench, "key");
    encrypt_with(&mut bench, &key, &[]);
    let (commit, switched) = switch(&mut bench);
    assert_eq!(switched.from, "clear text");
    assert_eq!(switched.to, format!("git-crypt with key {}", id_of(&key)));
    assert_eq!((switched.clear_commits, switched.files), (1, 209));
    let parents: Vec<Oid> = bench.repository.git().find_commit(commit).unwrap().parent_ids().collect();
    assert_eq!(parents, [before]);
    is_consistent(&bench);
    is_the_root(&bench, git_crypt_unlocks(&bench, &key).path());
    for (oid, bytes) in new_objects(&bench, commit) {
        assert!(!has_canary(&bytes), "{oid}: {}", String::from_utf8_lossy(&bytes));
    }
    let message = bench.repository.message_of(commit).unwrap();
    assert!(
        message::trailer(&message, message::SWITCH_TRAILER).unwrap().starts_with("clear text -> git-crypt")
    );
    assert_eq!(message::counts_in_subject(&message), Some(message::Counts::default()));
}

#[test]
fn rotation_other_paths_and_switching_off_are_one_commit_each_and_leave_nothing_mixed() {
    let mut bench = bench();
    fill(&bench);
    bench.back_up();
    let (one, two) = (new_key(&bench, "one"), new_key(&bench, "two"));
    encrypt_with(&mut bench, &one, &["secret/"]);
    let (_, switched) = switch(&mut bench);
    assert_eq!(switched.files, 3, "the others keep their objects");
    is_consistent(&bench);
    is_the_root(&bench, git_crypt_unlocks(&bench, &one).path());

    encrypt_with(&mut bench, &one, &[]);
    let (commit, switched) = switch(&mut bench);
    assert_eq!(switched.files, 206);
    is_consistent(&bench);
    assert!(new_objects(&bench, commit).iter().all(|(_, bytes)| !has_canary(bytes)));

    let old = default_old_keys(&two);
    fs::create_dir(&old).unwrap();
    fs::copy(&one, old.join("one.key")).unwrap();
    encrypt_with(&mut bench, &two, &[]);
    let (commit, switched) = switch(&mut bench);
    assert_eq!(switched.files, 209);
    is_consistent(&bench);
    is_the_root(&bench, git_crypt_unlocks(&bench, &two).path());
    assert!(new_objects(&bench, commit).iter().all(|(_, bytes)| !has_canary(bytes)));

    fs::copy(&two, old.join("two.key")).unwrap();
    configure(&mut bench, Some(EncryptionMethod::None { old_keys: Some(old) }), &[], false);
    let (_, switched) = switch(&mut bench);
    assert_eq!((switched.to.as_str(), switched.files), ("clear text", 209));
    is_consistent(&bench);
    bench.assert_clone_equals();
    assert_eq!(git(bench.repository.path(), &["ls-tree", "main", ".git-crypt", ".backupbot/encryption"]), "");
}

#[test]
fn large_contents_are_encrypted_before_a_pointer_stands_for_them_and_a_look_alike_becomes_one_again() {
    let mut bench = bench();
    bench.classifier = Classifier::of(&lfs::tests::settings("{threshold: 2000000}", &[]));
    fill(&bench);
    let look_alike = Pointer::of(b"nobody has this").encode();
    bench.write("look-alike", &look_alike);
    bench.back_up();
    let key = new_key(&bench, "key");
    encrypt_with(&mut bench, &key, &[]);
    switch(&mut bench);
    is_consistent(&bench);
    let old = default_old_keys(&key);
    configure(&mut bench, Some(EncryptionMethod::None { old_keys: Some(old.clone()) }), &[], false);
    assert!(refused(&mut bench).contains(id_of(&key).as_str()), "its key is not in hand");
    fs::create_dir(&old).unwrap();
    fs::copy(&key, old.join("x.key")).unwrap();
    switch(&mut bench);
    is_consistent(&bench);

    // Written while everything was encrypted, it was no pointer.
    let mut bench = bench_with(&[], &["folder"]);
    bench.write("look-alike", &look_alike);
    bench.back_up();
    encrypt_with(&mut bench, &key, &[]);
    switch(&mut bench);
    is_consistent(&bench);
    bench.classifier = Classifier::of(&lfs::tests::settings("{threshold: 2000000}", &[]));
    configure(&mut bench, Some(EncryptionMethod::None { old_keys: Some(old) }), &[], false);
    switch(&mut bench);
    is_consistent(&bench);
    let files = bench.store.reader().files(&bench.name).unwrap();
    let recorded = files.get(&bench.roots[0].name, &RelPath::new("look-alike").unwrap()).unwrap().unwrap();
    assert!(recorded.is_pointer);
    let attributes = git(bench.repository.path(), &["show", "main:folder/.gitattributes"]);
    assert!(attributes.starts_with("/look-alike filter=lfs"), "{attributes}");
}

#[test]
fn a_large_content_that_is_not_here_comes_from_the_watched_directory_if_it_is_unchanged_there() {
    let mut bench = bench();
    bench.classifier = Classifier::of(&lfs::tests::settings("{threshold: 2000000}", &[]));
    fill(&bench);
    bench.back_up();
    let large = Objects::of(bench.repository.path());
    for pointer in large.list().unwrap() {
        large.remove(&pointer.id).unwrap();
    }
    let key = new_key(&bench, "key");
    encrypt_with(&mut bench, &key, &[]);
    let content = fs::read(bench.root().join("large")).unwrap();
    let mut other = content.clone();
    other[0] ^= 1;
    fs::write(bench.root().join("large"), &other).unwrap();
    let text = refused(&mut bench);
    assert!(text.contains("folder/large") && text.contains("put the file as it was back"), "{text}");
    fs::write(bench.root().join("large"), &other[1..]).unwrap();
    let text = refused(&mut bench);
    assert!(text.contains("folder/large (object ") && text.contains("git lfs fetch"), "{text}");
    fs::write(bench.root().join("large"), &content).unwrap();
    switch(&mut bench);
    is_consistent(&bench);
}

#[test]
fn a_clear_history_is_refused_until_it_is_accepted_or_a_new_branch_begins_without_it() {
    let mut bench = bench();
    fill(&bench);
    bench.back_up();
    let key = new_key(&bench, "key");
    configure(&mut bench, Some(method_of(&key)), &[], false);
    let text = refused(&mut bench);
    assert!(text.contains("clear_history: accept") && text.contains("another `branch`"), "{text}");

    bench.branch = "refs/heads/encrypted".to_owned();
    let clear = bench.repository.reference(BRANCH).unwrap().unwrap();
    assert!(!may_begin_at(&bench.repository, clear, bench.encryption.as_ref()).unwrap());
    let (commit, switched) = switch(&mut bench);
    assert_eq!(bench.repository.git().find_commit(commit).unwrap().parent_count(), 0);
    assert_eq!(switched.clear_commits, 0);
    assert!(may_begin_at(&bench.repository, commit, bench.encryption.as_ref()).unwrap());
    is_consistent(&bench);
    is_the_root(&bench, git_crypt_unlocks(&bench, &key).path());
    assert!(new_objects(&bench, commit).iter().all(|(_, bytes)| !has_canary(bytes)));
}

#[test]
fn without_the_key_and_without_a_word_that_clear_text_is_meant_nothing_is_stored() {
    let mut bench = bench();
    fill(&bench);
    bench.back_up();
    let key = new_key(&bench, "key");
    encrypt_with(&mut bench, &key, &[]);
    let id = id_of(&key);
    switch(&mut bench);
    let encryption = bench.encryption.take();
    let text = refused(&mut bench);
    assert!(text.contains("method: none") && text.contains(id.as_str()), "{text}");
    bench.encryption = encryption;

    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(refused(&mut bench).contains("keys import"));
    let other = new_key(&bench, "key");
    assert_eq!(other, key);
    let text = refused(&mut bench);
    assert!(text.contains(id.as_str()) && text.contains("old_keys"), "{text}");
    fs::write(&key, b"no key at all").unwrap();
    refused(&mut bench);
    fs::write(&key, kept).unwrap();
    assert!(bench.try_build(None).is_ok(), "it goes on by itself");
}

#[test]
fn the_guard_takes_the_switch_for_nothing_whether_it_remembers_or_reads_the_commits() {
    let mut bench = bench();
    fill(&bench);
    bench.back_up();
    let begins = bench.repository.reference(BRANCH).unwrap().unwrap();
    let since = BTreeMap::from([(bench.roots[0].name.clone(), begins)]);
    let limits = crate::config::MassChange { min_files: 10, share: 0.5, ..Default::default() };
    let restores = Restores::default();
    let memory = Memory::default();
    for file in 0..90 {
        fs::remove_file(bench.root().join(format!("many/{file:03}"))).unwrap();
    }
    bench.touch("", Reach::Deep);
    let guard = |memory| Guard { limits: &limits, memory, since: &since, restores: &restores };
    let Built::Commit(staged, summary) = bench.try_build(Some(guard(&memory))).unwrap() else { panic!() };
    assert_eq!(summary.mass_change, None);
    let take = |bench: &mut Bench, staged: &StagedCommit| {
        bench.queue.stage(&bench.name, staged).unwrap();
        publish(&bench.repository, staged, &Progress::new()).unwrap();
        bench.queue.settle(&bench.name, &staged.settlement, 2).unwrap();
    };
    take(&mut bench, &staged);
    bench.drain();
    let key = new_key(&bench, "key");
    encrypt_with(&mut bench, &key, &[]);
    bench.touch("", Reach::Deep);
    let Built::Commit(staged, summary) = bench.try_build(Some(guard(&memory))).unwrap() else { panic!() };
    assert!(summary.switched.is_some() && summary.mass_change.is_none());
    take(&mut bench, &staged);
    // More of the same, and it is too much: what was deleted before the switch counts, the switch does not.
    let (fresh, afresh) = (Memory::default(), Memory::default());
    for memory in [&memory, &fresh] {
        let Built::Unchanged(..) = bench.try_build(Some(guard(memory))).unwrap() else { panic!() };
    }
    for file in 90..110 {
        fs::remove_file(bench.root().join(format!("many/{file:03}"))).unwrap();
    }
    bench.touch("", Reach::Deep);
    for memory in [&memory, &afresh] {
        let Built::Commit(_, summary) = bench.try_build(Some(guard(memory))).unwrap() else { panic!() };
        let (_, loss) = summary.mass_change.expect("110 of 211 files are gone");
        assert_eq!((loss.lost, loss.of), (110, 210));
    }
}
