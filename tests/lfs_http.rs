//! Large files on an LFS server: a real one of another make, and one that fails as it is told.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::giftless::Giftless;
use crate::support::git::{Judge, git};
use crate::support::lfs::{GitLfs, stored};
use crate::support::lfs_server::{Behaviour, LfsServer};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually};

const LARGE: usize = 64 * 1024;

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

/// Git goes to the local path, large files to the server at `url`.
fn with_server(url: &str) -> Setup {
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    setup.repository()["remotes"][0]["lfs_url"] = json!(format!("{url}/info/lfs"));
    setup
}

fn remote(status: &Value) -> &Value {
    &status["repositories"][0]["remotes"][0]
}

fn files_below(directory: &Path) -> usize {
    let mut count = 0;
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().unwrap().is_dir();
            if is_directory { pending.push(entry.path()) } else { count += 1 }
        }
    }
    count
}

#[test]
fn a_server_of_another_make_has_the_large_files_and_git_lfs_gets_them_from_there() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(server) = Giftless::start(scratch.path(), true) else { return };
    let setup = with_server(&server.url());
    write(&setup.root(), "one", bytes(1, LARGE));
    write(&setup.root(), "dir/two", bytes(2, 3 << 20));
    write(&setup.root(), "small", "x");
    let daemon = setup.start();
    let answer = daemon.api().flush();
    assert_eq!(answer["repositories"][0]["remotes"][0]["verified"], true, "{answer:#}");
    assert_eq!((files_below(&server.storage()), stored(&setup.remote().path).0), (2, 0));
    daemon.stop();

    let lfs = GitLfs::new();
    let clone = tempfile::tempdir().unwrap();
    let from = format!("file://{}", setup.remote().path.display());
    let endpoint = format!("lfs.url={}/info/lfs", server.url());
    lfs.git(clone.path(), &["-c", &endpoint, "clone", "-q", "-c", &endpoint, "-b", "main", &from, "."]);
    assert!(fs::read(clone.path().join("folder1/dir/two")).unwrap() == bytes(2, 3 << 20));
    lfs.git(clone.path(), &["lfs", "fsck"]);

    // Without anything here, by the name of the remote, which says where large files are.
    fs::remove_dir_all(setup.local().path.join("lfs/objects")).unwrap();
    let target = setup.path("restored");
    let to = target.to_str().unwrap();
    let restored = setup.run(&["restore", "--from", "usb", "--to", to]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(fs::read(target.join("folder1/one")).unwrap() == bytes(1, LARGE));
    let verified = setup.run(&["verify", "--remote", "usb"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    assert_eq!(fs::read_dir(setup.remote().path.join("lfs")).into_iter().flatten().count(), 0);
}

#[test]
fn what_git_lfs_pushes_there_is_restored() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(server) = Giftless::start(scratch.path(), true) else { return };
    let setup = with_server(&server.url());
    let (lfs, work) = (GitLfs::new(), setup.path("work"));
    fs::create_dir(&work).unwrap();
    lfs.git(&work, &["init", "-q", "-b", "main", "."]);
    lfs.git(&work, &["config", "lfs.url", &format!("{}/info/lfs", server.url())]);
    lfs.git(&work, &["lfs", "track", "*.bin"]);
    write(&work, "folder/large.bin", bytes(5, 2 << 20));
    lfs.git(&work, &["add", "."]);
    lfs.git(&work, &["-c", "user.name=s", "-c", "user.email=s@s", "commit", "-qm", "theirs"]);
    let remote = setup.remote().path;
    git(&setup.path(""), &["init", "-q", "--bare", "-b", "main", remote.to_str().unwrap()]);
    lfs.git(&work, &["push", "-q", &format!("file://{}", remote.display()), "main"]);
    assert_eq!(files_below(&server.storage()), 1);
    let target = setup.path("restored");
    let restored = setup.run(&["restore", "--from", "usb", "--to", target.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(fs::read(target.join("folder/large.bin")).unwrap() == bytes(5, 2 << 20));
}

#[test]
fn a_content_that_the_server_refuses_is_named_and_everything_else_is_protected_at_once() {
    let server = LfsServer::start();
    let setup = with_server(&server.url());
    server.behave(|request| match request.is_batch() {
        true => Behaviour::But(Box::new(|answer| {
            for object in answer["objects"].as_array_mut().unwrap() {
                if object["size"] == LARGE + 1 && object["actions"]["upload"].is_object() {
                    *object = json!({"oid": object["oid"], "size": object["size"],
                        "error": {"code": 422, "message": "at most 64 KiB on your plan"}});
                }
            }
        })),
        false => Behaviour::Good,
    });
    write(&setup.root(), "films/large.iso", bytes(1, LARGE + 1));
    write(&setup.root(), "good", bytes(2, LARGE));
    write(&setup.root(), "small", "x");
    let daemon = setup.start();
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "60s"}));
    assert_eq!(answer.status, 409, "nobody calls that complete: {}", answer.text());
    let status = daemon.status_when("it is halted", |status| remote(status)["state"] == "halted");
    let reason = remote(&status)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("folder1/films/large.iso") && reason.contains("on your plan"), "{reason}");
    assert!(remote(&status)["oldest_unprotected_seconds"].as_f64().is_some(), "{status:#}");
    let at_remote = Judge::new(setup.remote().path);
    assert_eq!(at_remote.tip("main"), setup.local().tip("main"));
    assert_eq!(server.objects().len(), 1);

    write(&setup.root(), "small", "y");
    eventually("later changes go on", SOON, || {
        (at_remote.blob("main", "folder1/small").unwrap_or_default() == b"y").then_some(())
    });
    let puts = server.count("PUT");
    server.behave(|_| Behaviour::Good);
    let answer = daemon.api().flush();
    assert_eq!(answer["repositories"][0]["remotes"][0]["verified"], true, "{answer:#}");
    assert_eq!((server.objects().len(), server.count("PUT")), (2, puts + 1));
    daemon.stop();
}

#[test]
fn a_server_that_fails_holds_the_branch_back_and_a_flush_says_so() {
    let server = LfsServer::start();
    let setup = with_server(&server.url());
    server.behave(|_| Behaviour::status(401, "who are you"));
    write(&setup.root(), "large", bytes(1, LARGE));
    let daemon = setup.start();
    let answer = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "60s"}));
    assert_eq!(answer.status, 409, "{}", answer.text());
    let status = daemon.status_when("it is halted", |status| remote(status)["state"] == "halted");
    let reason = remote(&status)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("401"), "{reason}");
    assert_eq!(setup.remote().tip("main"), None, "no branch leads to what is not there");
    server.behave(|_| Behaviour::Good);
    let answer = daemon.api().flush();
    assert_eq!(answer["repositories"][0]["remotes"][0]["verified"], true, "{answer:#}");
    daemon.stop();
}
