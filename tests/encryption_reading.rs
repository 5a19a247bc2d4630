//! Reading what is encrypted: everything comes back with the key, by every way there is, and without it nothing is taken for a
//! file, and what is missing is named.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::http::{served, set_password};
use crate::restore::{assert_same, backed_up, fill, portraits, said};
use crate::support::daemon::Setup;
use crate::support::git::{Judge, git};
use crate::support::lfs::objects;
use crate::support::tree::write;
use crate::support::web::{PASSWORD, Switches, USER};
use crate::support::{Random, seed};
use crate::verify::{document, ends, flip};

const SECRET: &str = "the only copy of it";

/// A key file as git-crypt writes it.
pub fn new_key(setup: &Setup, name: &str) -> PathBuf {
    let mut bytes = b"\0GITCRYPTKEY\0\0\0\x02\0\0\0\0".to_vec();
    let mut random = Random::new(seed(name) ^ std::process::id() as u64);
    for (id, value) in [(1u32, vec![0; 4]), (3, random.bytes(32)), (5, random.bytes(64))] {
        bytes.extend(id.to_be_bytes());
        bytes.extend((value.len() as u32).to_be_bytes());
        bytes.extend(value);
    }
    bytes.extend([0; 4]);
    let path = setup.path(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything is encrypted, and what is larger than 64 KiB is in LFS.
pub fn encrypted() -> (Setup, PathBuf) {
    let mut setup = Setup::new();
    let key = new_key(&setup, "documents.key");
    setup.repository()["encryption"] = json!({"method": "git-crypt", "key_file": text(&key)});
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    (setup, key)
}

fn little(setup: &Setup) {
    let root = setup.root();
    write(&root, "letter", SECRET);
    write(&root, "empty", "");
    write(&root, "notes/.git/config", "a name that git does not take");
    write(&root, "film", Random::new(7).bytes(300_000));
    symlink("letter", root.join("link")).unwrap();
}

#[track_caller]
fn run(machine: &Setup, code: i32, arguments: &[&str]) -> String {
    let output: Output = machine.command(arguments).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn everything_comes_back_here_and_on_a_machine_that_has_only_the_key() {
    let (mut setup, key) = encrypted();
    fill(&setup.root(), &mut Random::new(seed("everything encrypted")));
    write(&setup.root(), "film", Random::new(1).bytes(3_000_000));
    backed_up(&setup);
    let expected = portraits(&setup.root());
    let to = setup.path("back");
    ends(&setup, 0, &["restore", "--to", text(&to), "--verify"]);
    assert_same(&expected, &portraits(&to.join("folder1")));
    let said = ends(&setup, 0, &["verify"]).0;
    assert!(said.contains("as it was backed up") || !said.contains("problem"), "{said}");
    ends(&setup, 0, &["verify", "--remote", "usb"]);
    let said = ends(&setup, 0, &["drill", "--whole"]).0;
    assert!(said.contains("all is as it was") && said.contains("with what is here"), "{said}");
    assert_eq!(ends(&setup, 0, &["cat", "folder1/run"]).0, "#!/bin/sh\n");
    let film =
        setup.command(&["cat", "--config", text(&setup.write_config()), "folder1/film"]).output().unwrap();
    assert!(film.stdout == Random::new(1).bytes(3_000_000), "{}", crate::restore::said(&film));
    let named = setup.path("named");
    ends(&setup, 0, &["restore", "--from", "usb", "--to", text(&named), "folder1/run"]);
    assert_eq!(fs::read_to_string(named.join("folder1/run")).unwrap(), "#!/bin/sh\n");
    let raw = setup.command(&["cat", "--raw", "--config", text(&setup.write_config()), "folder1/run"]);
    let raw = { raw }.output().unwrap();
    assert!(raw.stdout.starts_with(b"\0GITCRYPT\0"));

    let machine = Setup::new();
    let remote = setup.remote().path;
    let (from, place) = (text(&remote).to_owned(), machine.path("everything"));
    run(&machine, 0, &["restore", "--from", &from, "--key-file", text(&key), "--to", text(&place)]);
    assert_same(&expected, &portraits(&place.join("folder1")));
    run(&machine, 0, &["verify", "--from", &from, "--key-file", text(&key)]);
    run(&machine, 0, &["verify", "--from", &from, "--key-file", text(&key), "--sample", "5"]);

    // The program that names its own keys needs none of them: this is `run` with another configuration.
    setup.repository()["encryption"] = json!(null);
    let (_, complained) = ends(&setup, 2, &["verify"]);
    assert!(complained.contains("--key-file"), "{complained}");
    ends(&setup, 0, &["verify", "--key-file", text(&key)]);
    ends(&setup, 0, &["drill", "--sample", "3", "--key-file", text(&key)]);
    assert_eq!(ends(&setup, 0, &["cat", "folder1/run", "--key-file", text(&key)]).0, "#!/bin/sh\n");
    ends(&setup, 0, &["ls", "-R", "--key-file", text(&key)]);
    ends(&setup, 0, &["snapshots"]);
}

#[test]
fn without_the_key_nothing_is_written_and_the_key_is_named() {
    let (mut setup, _) = encrypted();
    little(&setup);
    backed_up(&setup);
    let remote = setup.remote();
    let policy = String::from_utf8(remote.blob("main", ".backupbot/encryption").unwrap()).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&policy).unwrap()["key"].as_str().unwrap().to_owned();
    let wrong = new_key(&setup, "wrong.key");
    let machine = Setup::new();
    let (from, place) = (text(&remote.path).to_owned(), machine.path("back"));
    let none = ["restore", "--from", &from, "--to", text(&place)];
    for more in [&[][..], &["--key-file", text(&wrong)], &["--dry-run"]] {
        let said = run(&machine, 2, &[&none[..], more].concat());
        assert!(said.contains(&id) && said.contains("--key-file"), "{said}");
        assert!(!place.exists(), "{said}");
    }
    for command in ["verify", "restore"] {
        let arguments = [command, "--from", &from, "--key-file", "/nowhere", "--to", text(&place)];
        let arguments = if command == "verify" { &arguments[..5] } else { &arguments[..] };
        let said = run(&machine, 2, arguments);
        assert!(said.contains("/nowhere"), "{said}");
    }
    setup.repository()["encryption"] = json!(null);
    for command in [
        &["cat", "folder1/letter"][..],
        &["ls", "folder1"],
        &["verify"],
        &["verify", "--remote", "usb"],
        &["drill"],
        &["restore", "--to", text(&setup.path("here"))],
        &["restore", "--in-place", "--yes"],
        &["snapshots", "--path", "folder1/letter"],
    ] {
        let (answer, complained) = ends(&setup, 2, command);
        assert!(complained.contains(&id), "{command:?}: {answer}{complained}");
        assert!(!answer.contains(SECRET), "{answer}");
    }
    assert!(!setup.path("here").exists());

    // Whoever asks for it gets what is stored.
    let raw = machine.path("raw");
    let output =
        machine.command(&["restore", "--from", &from, "--to", text(&raw), "--raw"]).output().unwrap();
    let stored = fs::read(raw.join("folder1/letter")).unwrap();
    assert!(stored.starts_with(b"\0GITCRYPT\0"), "{}", said(&output));
}

#[test]
fn in_place_only_what_differs_is_replaced_and_it_can_be_taken_back() {
    let (setup, _) = encrypted();
    little(&setup);
    backed_up(&setup);
    let expected = portraits(&setup.root());
    write(&setup.root(), "letter", "spoilt");
    // The same size and another time: only its bytes tell that it is the same.
    let film = fs::File::options().write(true).open(setup.root().join("film")).unwrap();
    film.set_modified(std::time::UNIX_EPOCH).unwrap();
    let spoilt = portraits(&setup.root());
    let report = document(&setup, 0, &["restore", "--in-place", "--yes"]);
    let totals = &report["report"]["totals"];
    assert_eq!((&totals["replaced"], &totals["adjusted"]), (&json!(1), &json!(1)), "{report:#}");
    assert_same(&expected, &portraits(&setup.root()));
    ends(&setup, 0, &["restore", "--undo", "--yes"]);
    assert_same(&spoilt, &portraits(&setup.root()));
}

/// The object of a file.
pub fn object_of(judge: &Judge, path: &str) -> String {
    git(&judge.path, &["rev-parse", &format!("main:{path}")]).trim().to_owned()
}

#[test]
fn a_flipped_bit_is_found_and_nothing_stands_under_the_name() {
    let (setup, key) = encrypted();
    little(&setup);
    write(&setup.root(), "whole", "x".repeat(10_000));
    backed_up(&setup);
    let remote = setup.remote();
    flip(&remote.path, &[object_of(&remote, "folder1/letter")]);
    let [large] = objects(&remote.path).try_into().unwrap();
    fs::set_permissions(&large, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&large).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&large, bytes).unwrap();
    let said = ends(&setup, 3, &["verify", "--remote", "usb"]);
    for name in ["folder1/letter", "folder1/film"] {
        assert!(said.0.contains(name) || said.1.contains(name), "{said:?}");
    }
    ends(&setup, 3, &["drill", "--whole"]);
    let (machine, place) = (Setup::new(), setup.path("back"));
    let said = run(
        &machine,
        3,
        &["restore", "--from", text(&remote.path), "--key-file", text(&key), "--to", text(&place)],
    );
    assert!(!place.join("folder1/letter").exists() && !place.join("folder1/film").exists(), "{said}");
    assert_eq!(fs::read(place.join("folder1/whole")).unwrap().len(), 10_000);
    let left = fs::read_dir(place.join("folder1")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("backupbot")), "{said}");
}

/// A commit on the remote's branch that puts these blobs at these paths.
pub fn committed(remote: &Path, scratch: &Path, blobs: &[(&str, &[u8])]) {
    let index = format!("GIT_INDEX_FILE={}", text(&scratch.join("an index")));
    let sh = |script: &str| {
        let script = format!("export {index}; {script}");
        let mut command = Command::new("sh");
        command.args(["-ec", &script]).current_dir(remote).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for name in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{name}_NAME"), "Somebody").env(format!("GIT_{name}_EMAIL"), "a@b");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    sh("git read-tree main");
    for (path, blob) in blobs {
        let file = scratch.join("a blob");
        fs::write(&file, blob).unwrap();
        let id = sh(&format!("git hash-object -w --no-filters '{}'", text(&file)));
        sh(&format!("git update-index --add --cacheinfo 100644,{id},'{path}'"));
    }
    sh("git update-ref refs/heads/main $(git commit-tree -p main -m foreign $(git write-tree))");
}

#[test]
fn clear_text_that_somebody_put_among_the_ciphertexts_is_told_and_not_restored() {
    let (setup, key) = encrypted();
    little(&setup);
    backed_up(&setup);
    let remote = setup.remote();
    committed(
        &remote.path,
        setup.scratch.path(),
        &[("folder1/letter", b"pay to somebody else instead of me")],
    );
    let (machine, place) = (Setup::new(), setup.path("back"));
    let from = ["--from", text(&remote.path), "--key-file", text(&key)];
    let said = run(&machine, 3, &[&["restore"], &from[..], &["--to", text(&place)]].concat());
    assert!(said.contains("clear text") && !place.join("folder1/letter").exists(), "{said}");
    let said = run(&machine, 3, &[&["verify"], &from[..]].concat());
    assert!(said.contains("folder1/letter") && said.contains("clear text"), "{said}");
}

/// gpg with a home of its own.
fn gpg(home: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("gpg")
        .args(["--homedir", text(home), "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"])
        .args(["--trust-model", "always"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    output.stdout
}

#[test]
fn who_has_an_openpgp_key_for_which_the_key_is_in_the_repository_needs_no_other() {
    let (setup, key) = encrypted();
    little(&setup);
    backed_up(&setup);
    let remote = setup.remote();
    let home = setup.path("gnupg");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let mut keys = Vec::new();
    for name in ["ann", "bob"] {
        let user = format!("{name} <{name}@example.org>");
        gpg(
            &home,
            &["--passphrase", "open sesame", "--quick-gen-key", &user, "future-default", "default", "never"],
        );
        let exported = gpg(&home, &["--passphrase", "open sesame", "--armor", "--export-secret-keys", &user]);
        let file = setup.path(name);
        fs::write(&file, exported).unwrap();
        keys.push(file);
    }
    let listed = String::from_utf8(gpg(&home, &["--with-colons", "--list-keys", "ann"])).unwrap();
    let fingerprint = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
    let fingerprint = fingerprint.split(':').nth(9).unwrap().to_owned();
    let wrapped = gpg(&home, &["--recipient", "ann", "--output", "-", "--encrypt", text(&key)]);
    let _ = Command::new("gpgconf").args(["--homedir", text(&home), "--kill", "all"]).status();
    let path = format!(".git-crypt/keys/default/0/{fingerprint}.gpg");
    committed(&remote.path, setup.scratch.path(), &[(&path, &wrapped)]);

    let expected = portraits(&setup.root());
    let (machine, place) = (Setup::new(), setup.path("back"));
    let passphrase = setup.path("passphrase");
    fs::write(&passphrase, "open sesame\n").unwrap();
    let from = ["restore", "--from", text(&remote.path), "--to", text(&place)];
    let said = run(&machine, 2, &from);
    assert!(said.contains(&fingerprint), "{said}");
    let unlocked = ["--key-passphrase-file", text(&passphrase), "--key-file"];
    let said = run(&machine, 2, &[&from[..], &unlocked, &[text(&keys[1])]].concat());
    assert!(said.contains("none") || said.contains("no key that"), "{said}");
    let said = run(&machine, 2, &[&from[..], &["--key-file", text(&keys[0])]].concat());
    assert!(said.contains("passphrase"), "{said}");
    assert!(!place.exists());
    run(&machine, 0, &[&from[..], &unlocked, &[text(&keys[0])]].concat());
    assert_same(&expected, &portraits(&place.join("folder1")));
}

/// The next key, and the former among the old ones.
fn rotated(setup: &Setup, key: &Path) {
    let old = PathBuf::from(format!("{}.old", text(key)));
    fs::create_dir_all(&old).unwrap();
    fs::rename(key, old.join("former.key")).unwrap();
    fs::rename(new_key(setup, "the next key"), key).unwrap();
}

#[test]
fn states_from_before_the_encryption_and_from_before_another_key_are_read() {
    let (mut setup, key) = encrypted();
    let mut encryption = setup.repository()["encryption"].take();
    encryption["clear_history"] = json!("accept");
    little(&setup);
    backed_up(&setup);
    let expected = portraits(&setup.root());
    setup.repository()["encryption"] = encryption;
    backed_up(&setup);
    rotated(&setup, &key);
    ends(&setup, 0, &["verify"]);
    backed_up(&setup);
    write(&setup.root(), "letter", "a second one");
    backed_up(&setup);
    for (at, name) in [("latest~3", "clear"), ("latest~2", "first key"), ("latest~1", "second key")] {
        let to = setup.path(name);
        ends(&setup, 0, &["restore", "--at", at, "--to", text(&to), "--verify"]);
        assert_same(&expected, &portraits(&to.join("folder1")));
        ends(&setup, 0, &["verify", "--at", at]);
        assert_eq!(ends(&setup, 0, &["cat", "--at", at, "folder1/letter"]).0, SECRET);
    }
    for (old, new) in [("latest~3", "latest~2"), ("latest~2", "latest~1"), ("latest~3", "latest~1")] {
        let (told, complained) = ends(&setup, 0, &["diff", old, new]);
        assert!(told.is_empty(), "nothing but the encryption changed: {told}{complained}");
    }
    for old in ["latest~3", "latest~2", "latest~1"] {
        let told = ends(&setup, 0, &["diff", old]).0;
        assert!(told.contains("folder1/letter") && told.lines().count() == 1, "{told}");
    }
    ends(&setup, 0, &["drill", "--whole"]);

    // A stranger names the key of then.
    let old = PathBuf::from(format!("{}.old/former.key", text(&key)));
    let (machine, place) = (Setup::new(), setup.path("stranger"));
    let remote = setup.remote();
    let from = ["restore", "--from", text(&remote.path), "--to", text(&place), "--at", "latest~2"];
    let said = run(&machine, 2, &[&from[..], &["--key-file", text(&key)]].concat());
    assert!(said.contains("known are"), "{said}");
    run(&machine, 0, &[&from[..], &["--key-file", text(&key), "--key-file", text(&old)]].concat());
    assert_same(&expected, &portraits(&place.join("folder1")));
}

#[test]
fn a_part_is_fetched_from_a_server_with_what_it_takes_to_open_it() {
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    setup.repository()["remotes"][0]["timeouts"] = json!({"connect": "60s", "stall": "60s", "answer": "60s"});
    let key = new_key(&setup, "documents.key");
    setup.repository()["encryption"] = json!({"method": "git-crypt", "key_file": text(&key)});
    little(&setup);
    write(&setup.root(), "other/large", Random::new(9).bytes(2_000_000));
    backed_up(&setup);
    for setting in ["allowFilter", "allowTipSHA1InWant", "allowReachableSHA1InWant"] {
        git(&setup.remote().path, &["config", &format!("uploadpack.{setting}"), "true"]);
    }
    let machine = Setup::new();
    set_password(&machine, PASSWORD);
    let (password, url) = (machine.path("password"), web.https("documents"));
    let access = ["--username", USER, "--password-file", text(&password), "--ca-file", &web.ca_file()];
    let with = |first: &[&str]| {
        let all: Vec<String> = first.iter().chain(&access).map(|it| (*it).to_owned()).collect();
        all
    };
    let go = |code: i32, arguments: &[&str]| {
        let all = with(arguments);
        run(&machine, code, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let place = machine.path("back");
    let before = web.sent();
    let from = ["restore", "--from", &url, "--to", text(&place)];
    let said = go(2, &[&from[..], &["folder1/letter"]].concat());
    assert!(said.contains("--key-file") && !place.exists(), "{said}");
    let said = go(0, &[&from[..], &["folder1/letter", "--dry-run", "--key-file", text(&key)]].concat());
    assert!(said.contains(&format!("{} B", SECRET.len())) || said.contains("1 file"), "{said}");
    go(0, &[&from[..], &["folder1/letter", "folder1/notes", "--key-file", text(&key)]].concat());
    assert_eq!(fs::read_to_string(place.join("folder1/letter")).unwrap(), SECRET);
    assert!(web.sent() - before < 1_500_000, "the large one stayed there");
    go(0, &["verify", "--from", &url, "--sample", "2", "--key-file", text(&key)]);
    ends(&setup, 0, &["drill", "--sample", "2"]);
}
