//! Verifying: what `verify` says of sound and of damaged backups, here and at remotes, and what `status` says then.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::http::served;
use crate::support::daemon::{Setup, leftovers};
use crate::support::git::git;
use crate::support::tree::write;
use crate::support::web::{Switches, USER};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that must end with this code; what it answers and what it complains of.
pub fn ends(setup: &Setup, code: i32, arguments: &[&str]) -> (String, String) {
    let output = setup.run(arguments);
    let (said, complained) = (text(&output), complaint(&output));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{complained}");
    assert!(!complained.contains("panicked"), "{complained}");
    (said, complained)
}

pub fn document(setup: &Setup, code: i32, arguments: &[&str]) -> Value {
    serde_json::from_str(&ends(setup, code, &[arguments, &["--json"]].concat()).0).unwrap()
}

fn problem_paths(answer: &Value) -> Vec<&str> {
    let problems = answer["report"]["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["path"].as_str().unwrap()).collect()
}

/// A root with some of everything, backed up.
fn backed_up() -> Setup {
    let setup = Setup::new();
    fill(&setup);
    ends(&setup, 0, &["once"]);
    setup
}

pub fn fill(setup: &Setup) {
    let root = setup.root();
    write(&root, "a/same", "twice");
    write(&root, "b/same", "twice");
    write(&root, "notes/.git/config", "a name that git does not take");
    write(&root, "large", (0..400_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    write(&root, "precious \x1b[31m", "the only copy");
    fs::create_dir_all(root.join("empty")).unwrap();
    symlink("large", root.join("link")).unwrap();
}

/// Flips a bit in the compressed bytes of each of these objects, wherever it is stored.
pub fn flip(repository: &Path, objects: &[String]) {
    // Where they are is asked for first: git does not list a damaged pack.
    let places: Vec<_> = objects.iter().map(|object| place_of(repository, object)).collect();
    for (file, end) in places {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        // The checksum of zlib's stream comes last: that the bytes inflate is not enough.
        bytes[end - 2] ^= 0x10;
        fs::write(&file, bytes).unwrap();
    }
}

/// The file of an object, and where it ends there.
fn place_of(repository: &Path, object: &str) -> (PathBuf, usize) {
    let loose = repository.join("objects").join(&object[..2]).join(&object[2..]);
    if let Ok(found) = fs::metadata(&loose) {
        return (loose, found.len() as usize);
    }
    for entry in fs::read_dir(repository.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "idx") {
            continue;
        }
        let listed = git(repository, &["verify-pack", "-v", path.to_str().unwrap()]);
        let Some(line) = listed.lines().find(|line| line.starts_with(object)) else { continue };
        let words: Vec<usize> = line.split_whitespace().skip(3).map(|word| word.parse().unwrap()).collect();
        return (path.with_extension("pack"), words[0] + words[1]);
    }
    panic!("{object} is nowhere in {}", repository.display());
}

/// Takes an object away.
fn lose(repository: &Path, object: &str) {
    let packs = repository.join("objects/pack");
    let aside = repository.with_extension("aside");
    fs::rename(&packs, &aside).unwrap();
    fs::create_dir(&packs).unwrap();
    for entry in fs::read_dir(&aside).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pack") {
            let script = format!("git unpack-objects -q < '{}'", path.display());
            let status =
                std::process::Command::new("sh").arg("-c").arg(script).current_dir(repository).status();
            assert!(status.unwrap().success());
        }
    }
    fs::remove_dir_all(aside).unwrap();
    let (directory, file) = object.split_at(2);
    fs::remove_file(repository.join("objects").join(directory).join(file)).unwrap();
}

pub fn object_of(repository: &Path, path: &str) -> String {
    git(repository, &["rev-parse", &format!("main:{path}")]).trim().to_owned()
}

#[test]
fn a_sound_backup_is_found_to_be_sound_and_status_remembers_it() {
    let setup = backed_up();
    let (said, complained) = ends(&setup, 0, &["verify"]);
    assert!(said.contains("nothing is wrong") && said.contains("read 6 files"), "{said}");
    assert_eq!(complained, "");
    let answer = document(&setup, 0, &["verify", "--remote", "usb"]);
    let report = &answer["report"];
    assert_eq!((&report["problem_count"], &report["remark_count"]), (&json!(0), &json!(0)), "{answer:#}");
    assert_eq!((&report["files"], &report["verified_files"]), (&json!(6), &json!(6)));
    assert_eq!((&answer["snapshot_is_here"], &answer["remote"]), (&json!(true), &json!("remote usb")));
    assert_eq!(answer["snapshot"], setup.local().tip("main").unwrap());

    let page = ends(&setup, 0, &["status"]).0;
    assert!(page.contains("what is here: verified ") && page.contains("remote usb: verified "), "{page}");
    let status = document(&setup, 0, &["status"]);
    let verified = status["repositories"][0]["verified"].as_array().unwrap();
    assert_eq!(verified.len(), 2);
    assert_eq!((&verified[1]["remote"], &verified[1]["sample"]), (&json!("usb"), &json!("whole")));
    let daemon = setup.start();
    let of_daemon = daemon.api().status();
    assert_eq!(of_daemon["repositories"][0]["verified"], status["repositories"][0]["verified"]);
    // Nothing is in its way.
    ends(&setup, 0, &["verify"]);
    daemon.stop();
    assert_eq!(leftovers(&setup.state()), Vec::<PathBuf>::new());
}

#[test]
fn a_sample_is_drawn_by_lot_and_can_be_drawn_again() {
    let setup = backed_up();
    let first = document(&setup, 0, &["verify", "--sample", "2"]);
    assert_eq!(first["report"]["verified_files"], 2);
    let seed = first["report"]["seed"].as_u64().unwrap().to_string();
    let again = document(&setup, 0, &["verify", "--sample", "2", "--seed", &seed]);
    assert_eq!(first, again);
    let seeds = |_| document(&setup, 0, &["verify", "--sample", "2"])["report"]["seed"].clone();
    let drawn: Vec<Value> = (0..3).map(seeds).collect();
    assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2], "{drawn:?}");
    let (said, _) = ends(&setup, 0, &["verify", "--sample", "0.1%"]);
    assert!(said.contains("read 1 of 6 files") && said.contains("sample 0.1%, seed "), "{said}");
    assert!(ends(&setup, 0, &["status"]).0.contains("(0.1% of "));
    for wrong in [
        &["verify", "--sample", "0"][..],
        &["verify", "--sample", "a lot"],
        &["verify", "--seed", "1"],
        &["verify", "--remote", "usb", "--from", "/x"],
        &["verify", "--remote", "nowhere"],
        &["verify", "--at", "no-such-tag"],
    ] {
        ends(&setup, 2, wrong);
    }
    assert!(ends(&setup, 2, &["verify", "--remote", "nowhere"]).1.contains("configured are: usb"));
    assert!(ends(&setup, 1, &["verify", "--repository", "nothing"]).1.contains("nothing"));
}

#[test]
fn a_flipped_bit_is_found_and_every_name_is_told_in_a_way_that_cannot_act_on_a_terminal() {
    let setup = backed_up();
    let local = setup.local().path;
    let damaged = ["folder1/precious \x1b[31m", "folder1/a/same", "folder1/large"];
    flip(&local, &damaged.map(|path| object_of(&local, path)));
    let (said, complained) = ends(&setup, 3, &["verify"]);
    assert!(said.contains("4 things are WRONG"), "{said}");
    for name in ["wrong: folder1/a/same: ", "wrong: folder1/b/same: ", "wrong: folder1/large: "] {
        assert!(complained.contains(name), "{name}: {complained}");
    }
    assert!(complained.contains(r#"wrong: "folder1/precious \x1b[31m": "#) && !complained.contains('\x1b'));
    let answer = document(&setup, 3, &["verify"]);
    assert_eq!(answer["report"]["problem_count"], 4);
    assert_eq!(ends(&setup, 0, &["verify", "--remote", "usb"]).1, "");

    let status = document(&setup, 0, &["status"]);
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "verify_failed").expect("an alert");
    assert_eq!(alert["severity"], "critical");
    assert!(alert["message"].as_str().unwrap().contains("`backupbot verify --repository documents`"));
    // A sample that reads something else does not take it back.
    for _ in 0..3 {
        setup.run(&["verify", "--sample", "1"]);
    }
    assert!(ends(&setup, 0, &["status"]).0.contains("4 things were WRONG"));
}

#[test]
fn what_a_remote_on_a_disk_lost_is_named_and_what_is_here_is_still_well() {
    let setup = backed_up();
    let remote = setup.remote().path;
    lose(&remote, &object_of(&remote, "folder1/large"));
    ends(&setup, 0, &["verify"]);
    let answer = document(&setup, 3, &["verify", "--remote", "usb"]);
    assert_eq!(problem_paths(&answer), ["folder1/large"]);
    let tree = object_of(&remote, "folder1/a");
    let (directory, file) = tree.split_at(2);
    fs::remove_file(remote.join("objects").join(directory).join(file)).unwrap();
    let answer = document(&setup, 3, &["verify", "--from", remote.to_str().unwrap()]);
    assert_eq!(problem_paths(&answer), ["folder1/a", "folder1/b", "folder1/large"], "b is the same tree");
    let tip = setup.remote().tip("main").unwrap();
    let (directory, file) = tip.split_at(2);
    fs::remove_file(remote.join("objects").join(directory).join(file)).unwrap();
    let answer = document(&setup, 3, &["verify", "--from", remote.to_str().unwrap(), "--branch", "main"]);
    assert_eq!(problem_paths(&answer), ["."], "not even the commit is there");
    fs::rename(&remote, setup.path("unplugged")).unwrap();
    let (_, complained) = ends(&setup, 1, &["verify", "--remote", "usb"]);
    assert!(complained.contains("there is nothing at"), "{complained}");
    let status = document(&setup, 0, &["status"]);
    let verified = &status["repositories"][0]["verified"];
    assert_eq!((&verified[0]["problems"], &verified[1]["problems"]), (&json!(0), &json!(1)), "{verified:#}");
}

#[test]
fn metadata_that_does_not_fit_is_wrong_and_what_others_committed_is_not() {
    let setup = backed_up();
    let local = setup.local().path;
    let commit = |paths: &[(&str, &str)]| {
        git(&local, &["read-tree", "main"]);
        for (path, content) in paths {
            let source = setup.path("content");
            fs::write(&source, content).unwrap();
            let blob = git(&local, &["hash-object", "-w", source.to_str().unwrap()]);
            let entry = format!("100644,{},{path}", blob.trim());
            git(&local, &["update-index", "--add", "--cacheinfo", &entry]);
        }
        let tree = git(&local, &["write-tree"]);
        let author = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let arguments = [&author[..], &["commit-tree", tree.trim(), "-p", "main", "-m", "by git"]].concat();
        git(&local, &arguments).trim().to_owned()
    };
    let foreign = commit(&[("folder1/new", "by somebody else"), ("README", "hello")]);
    let (said, complained) = ends(&setup, 0, &["verify", "--at", &foreign]);
    assert!(said.contains("nothing is wrong") && complained.contains("note: folder1/new: "), "{complained}");
    let evil = commit(&[("folder1/a/same", "TWICE"), ("folder1/large", "small")]);
    git(&local, &["update-ref", "refs/heads/evil", &evil]);
    let answer = document(&setup, 3, &["verify", "--at", &evil]);
    assert_eq!(problem_paths(&answer), ["folder1/large", "folder1/a/same"]);
    let damaged = commit(&[(".backupbot/meta/folder1/a/_bb_entries", "{")]);
    let listed = git(&local, &["ls-tree", "-r", "--name-only", "main", ".backupbot/meta/folder1/a"]);
    let shard = listed.lines().next().unwrap().to_owned();
    let damaged_shard = commit(&[(&shard, "{")]);
    assert!(!setup.state().join("verified.json").exists(), "status speaks of the latest snapshot");
    for made in [damaged, damaged_shard] {
        let answer = document(&setup, 3, &["verify", "--at", &made]);
        assert!(problem_paths(&answer).iter().all(|path| path.starts_with("folder1/a")), "{answer:#}");
    }
}

#[test]
fn what_a_server_has_is_fetched_as_by_a_stranger_and_read() {
    let Some((setup, mut web)) = served(&Switches::default()) else { return };
    fill(&setup);
    ends(&setup, 0, &["once"]);
    let verifying = setup.state().join("verifying");
    let left = || fs::read_dir(&verifying).unwrap().filter(|it| it.as_ref().unwrap().path().is_dir()).count();
    // Once in one piece, once in parts.
    for in_parts in ["false", "true"] {
        let remote = setup.remote().path;
        git(&remote, &["config", "uploadpack.allowFilter", in_parts]);
        git(&remote, &["config", "uploadpack.allowAnySHA1InWant", in_parts]);
        let answer = document(&setup, 0, &["verify", "--remote", "web"]);
        assert_eq!(
            (&answer["report"]["verified_files"], &answer["snapshot_is_here"]),
            (&json!(6), &json!(true))
        );
        let answer = document(&setup, 0, &["verify", "--remote", "web", "--sample", "2"]);
        assert_eq!(answer["report"]["verified_files"], 2, "{answer:#}");
        assert_eq!(left(), 0);
    }
    let (_, refused) = ends(&setup, 1, &["verify", "--from", &web.https("documents")]);
    assert!(refused.contains("certificate"), "{refused}");
    // By somebody who has no configuration.
    let (password, ca) = (setup.path("password"), web.ca_file());
    let stranger = setup.path("stranger");
    let output = setup
        .command(&["verify", "--from", &web.https("documents"), "--username", USER, "--ca-file", &ca])
        .arg("--password-file")
        .arg(&password)
        .arg("--state-dir")
        .arg(&stranger)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert!(text(&output).contains("this snapshot is not here"), "{}", text(&output));
    web.down();
    ends(&setup, 1, &["verify", "--remote", "web"]);
    assert_eq!(left(), 0);
    let status = document(&setup, 0, &["status"]);
    assert_eq!(status["repositories"][0]["verified"][0]["problems"], 0, "not reached is not damaged");
}

#[test]
fn damage_at_a_server_alone_is_found_and_named_where_the_server_gives_parts() {
    let Some((setup, _web)) = served(&Switches::default()) else { return };
    fill(&setup);
    ends(&setup, 0, &["once"]);
    let remote = setup.remote().path;
    flip(&remote, &[object_of(&remote, "folder1/large")]);
    ends(&setup, 0, &["verify"]);
    let answer = document(&setup, 3, &["verify", "--remote", "web"]);
    assert_eq!(problem_paths(&answer), ["."], "{answer:#}");
    let reason = answer["report"]["problems"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("could not be had"), "{reason}");
    git(&remote, &["config", "uploadpack.allowFilter", "true"]);
    git(&remote, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let answer = document(&setup, 3, &["verify", "--remote", "web"]);
    assert_eq!(problem_paths(&answer), ["folder1/large"], "{answer:#}");
    let page = ends(&setup, 0, &["status"]).0;
    assert!(page.contains("remote web: verified") && page.contains("1 thing was WRONG"), "{page}");
}

#[test]
fn a_scratch_directory_that_a_kill_left_is_gone_with_the_next_verification() {
    let Some((setup, _web)) = served(&Switches::default()) else { return };
    fill(&setup);
    ends(&setup, 0, &["once"]);
    let left = setup.state().join("verifying/documents-web.git");
    write(&left, "objects/pack/half", "of a pack");
    write(&left, "HEAD", "ref: refs/heads/nonsense");
    let lock = fs::File::create(setup.state().join("verifying/documents-web.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (_, complained) = ends(&setup, 5, &["verify", "--remote", "web"]);
    assert!(complained.contains("being verified by another process") && left.exists(), "{complained}");
    drop(lock);
    ends(&setup, 0, &["verify", "--remote", "web"]);
    assert!(!left.exists());
}
