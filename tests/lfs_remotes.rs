//! Large files on their way to remotes and back: at a directory, where git-lfs is the judge of what arrived.

use std::fs;

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::lfs::{GitLfs, objects, stored};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually};

const LARGE: usize = 64 * 1024;

fn with_lfs() -> (Setup, GitLfs) {
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    (setup, GitLfs::new())
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

fn json_of(setup: &Setup, arguments: &[&str]) -> Value {
    let output = setup.run(&[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}{errors}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn large_files_are_at_a_directory_with_the_branch_and_git_lfs_gives_them_back() {
    let (setup, lfs) = with_lfs();
    write(&setup.root(), "one", bytes(1, LARGE));
    write(&setup.root(), "dir/two", bytes(2, 3 << 20));
    write(&setup.root(), "dir/same", bytes(1, LARGE));
    write(&setup.root(), "small", "x");
    let daemon = setup.start();
    let answer = daemon.api().flush();
    assert_eq!(answer["repositories"][0]["remotes"][0]["verified"], true, "{answer:#}");
    assert_eq!(stored(&setup.remote().path).0, 2);
    fs::remove_file(setup.root().join("one")).unwrap();
    write(&setup.root(), "three", bytes(3, LARGE + 1));
    daemon.api().flush();
    daemon.stop();
    assert_eq!(stored(&setup.remote().path).0, 3);
    let large = lfs.large_files_of_equal_clone(&setup.remote().path, &setup.root());
    assert_eq!(large.into_iter().collect::<Vec<_>>(), ["dir/same", "dir/two", "three"]);
}

#[test]
fn every_way_back_leads_through_the_pointer_and_what_is_not_here_comes_from_the_remote() {
    let (setup, _) = with_lfs();
    let content = bytes(2, 3 << 20);
    write(&setup.root(), "dir/large", &content);
    write(&setup.root(), "small", "x");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let remote = setup.remote().path.to_str().unwrap().to_owned();
    let ways: [&[&str]; 2] = [&[], &["--from", &remote]];
    for (number, is_here) in [true, false].into_iter().enumerate() {
        if !is_here {
            fs::remove_dir_all(setup.local().path.join("lfs/objects")).unwrap();
        }
        let shown = setup.run(&["cat", "folder1/dir/large"]);
        assert!(shown.stdout == content, "{}", String::from_utf8_lossy(&shown.stderr));
        for (way, from) in ways.iter().enumerate() {
            let target = setup.path(&format!("restored-{number}-{way}"));
            let to = target.to_str().unwrap();
            let mut arguments = vec!["restore", "--to", to, "--verify"];
            arguments.extend_from_slice(from);
            let report = json_of(&setup, &arguments);
            assert_eq!(report["report"]["problem_count"], 0, "{report:#}");
            assert!(fs::read(target.join("folder1/dir/large")).unwrap() == content);
        }
        let whole = json_of(&setup, &["verify"]);
        assert_eq!(whole["report"]["problem_count"], 0, "{whole:#}");
        let drilled = setup.run(&["drill", "--whole"]);
        assert!(drilled.status.success(), "{}", String::from_utf8_lossy(&drilled.stderr));
    }
    let raw = setup.run(&["cat", "folder1/dir/large", "--raw"]);
    assert!(raw.stdout.starts_with(b"version https://git-lfs"), "the pointer, on request");
    let left = setup.local().path.join("lfs/passing");
    assert_eq!(fs::read_dir(left).into_iter().flatten().count(), 0, "what was fetched is not kept");
}

#[test]
fn a_large_content_that_is_gone_or_damaged_at_the_remote_is_told_and_stops_nothing_else() {
    let (setup, _) = with_lfs();
    write(&setup.root(), "gone", bytes(1, LARGE));
    write(&setup.root(), "other", bytes(2, LARGE));
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let remote = setup.remote().path.to_str().unwrap().to_owned();
    let victim = objects(&setup.remote().path)
        .into_iter()
        .find(|path| fs::read(path).unwrap() == bytes(1, LARGE))
        .unwrap();
    for what in ["damaged", "gone"] {
        fs::remove_file(&victim).unwrap();
        if what == "damaged" {
            fs::write(&victim, bytes(9, LARGE)).unwrap();
        }
        let target = setup.path(what);
        let to = target.to_str().unwrap();
        let output = setup.run(&["restore", "--to", to, "--from", &remote]);
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("folder1/gone"), "{said}");
        assert!(!target.join("folder1/gone").exists(), "nothing that is not the file has its name");
        assert!(fs::read(target.join("folder1/other")).unwrap() == bytes(2, LARGE));
        let output = setup.run(&["verify", "--remote", "usb"]);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("folder1/gone"), "{said}");
    }
}

#[test]
fn a_remote_that_lost_its_large_contents_gets_them_again_from_here_or_from_another() {
    let (mut setup, lfs) = with_lfs();
    let other = setup.path("other.git");
    let remotes = setup.repository()["remotes"].as_array_mut().unwrap();
    remotes.push(json!({"name": "other", "url": other.to_str().unwrap()}));
    write(&setup.root(), "large", bytes(1, LARGE));
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert_eq!((stored(&setup.remote().path).0, stored(&other).0), (1, 1));

    // A remote that is made anew has nothing, and the content is not here any more.
    fs::remove_dir_all(&other).unwrap();
    fs::remove_dir_all(setup.local().path.join("lfs/objects")).unwrap();
    fs::create_dir_all(setup.local().path.join("lfs/objects")).unwrap();
    crate::support::git::git(&setup.path(""), &["init", "-q", "--bare", other.to_str().unwrap()]);
    let daemon = setup.start();
    eventually("the remote is whole again", SOON, || {
        daemon.try_post("/api/v1/flush");
        (stored(&other).0 == 1).then_some(())
    });
    daemon.stop();
    lfs.large_files_of_equal_clone(&other, &setup.root());
}

#[test]
fn what_strangers_keep_with_git_lfs_is_restored_too() {
    let (setup, lfs) = with_lfs();
    let (work, bare) = (setup.path("work"), setup.path("stranger.git"));
    fs::create_dir(&work).unwrap();
    lfs.git(&work, &["init", "-q", "-b", "main", "."]);
    lfs.git(&work, &["lfs", "track", "*.bin"]);
    write(&work, "folder/large.bin", bytes(5, 2 << 20));
    write(&work, "folder/plain", "x");
    lfs.git(&work, &["add", "."]);
    lfs.git(&work, &["-c", "user.name=s", "-c", "user.email=s@s", "commit", "-qm", "theirs"]);
    lfs.git(&setup.path(""), &["init", "-q", "--bare", "-b", "main", bare.to_str().unwrap()]);
    lfs.git(&work, &["push", "-q", &format!("file://{}", bare.display()), "main"]);
    let target = setup.path("restored");
    let to = target.to_str().unwrap();
    let output = setup.run(&["restore", "--from", bare.to_str().unwrap(), "--to", to]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(target.join("folder/large.bin")).unwrap() == bytes(5, 2 << 20));
    assert_eq!(fs::read(target.join("folder/plain")).unwrap(), b"x");
}

#[test]
fn a_large_content_that_is_lost_everywhere_is_named_and_writing_the_file_anew_brings_it_back() {
    let (mut setup, lfs) = with_lfs();
    write(&setup.root(), "lost", bytes(1, LARGE));
    write(&setup.root(), "small", "x");
    let daemon = setup.start();
    daemon.api().flush();
    let other = setup.path("other.git");
    let remotes = setup.repository()["remotes"].as_array_mut().unwrap();
    remotes.push(json!({"name": "other", "url": other.to_str().unwrap()}));
    for repository in [setup.local(), setup.remote()] {
        objects(&repository.path).iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    setup.write_config();
    assert_eq!(daemon.api().post("/api/v1/reload", &json!({})).status, 200);
    let status = daemon.status_when("the new remote lacks one", |status| {
        let remotes = status["repositories"][0]["remotes"].as_array().unwrap();
        let row = remotes.iter().find(|remote| remote["name"] == "other");
        row.is_some_and(|row| row["reason"].as_str().unwrap_or_default().contains("folder1/lost"))
    });
    let rows = status["repositories"][0]["remotes"].as_array().unwrap();
    let row = rows.iter().find(|remote| remote["name"] == "other").unwrap();
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("everything else is") && reason.contains("touch"), "{reason}");
    let at_other = crate::support::git::Judge::new(&other);
    assert_eq!(at_other.tip("main"), setup.local().tip("main"), "the rest is protected");
    assert_ne!(row["commit"], json!(at_other.tip("main").unwrap()), "but nobody calls that confirmed");

    fs::File::options()
        .append(true)
        .open(setup.root().join("lost"))
        .unwrap()
        .set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5))
        .unwrap();
    eventually("it is brought back", SOON, || {
        daemon.try_post("/api/v1/flush");
        (stored(&other).0 == 1).then_some(())
    });
    daemon.stop();
    lfs.large_files_of_equal_clone(&other, &setup.root());
}
