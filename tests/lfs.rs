//! Large files: what stands in Git for them, judged by git-lfs on the repository in the state directory.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::daemon::Setup;
use crate::support::lfs::{GitLfs, assert_all_is_well, stored};
use crate::support::mount::{memory, sharing_blocks};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually, skip};

const LARGE: usize = 64 * 1024;

fn with_lfs() -> (Setup, GitLfs) {
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB", "patterns": ["*.iso"]});
    (setup, GitLfs::new())
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

fn names<const N: usize>(names: [&str; N]) -> std::collections::BTreeSet<String> {
    names.map(str::to_owned).into_iter().collect()
}

#[test]
fn what_is_large_goes_through_git_lfs_and_everything_comes_back() {
    let (setup, lfs) = with_lfs();
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n", "a".repeat(64));
    write(&setup.root(), "exact", bytes(1, LARGE));
    write(&setup.root(), "below", bytes(2, LARGE - 1));
    write(&setup.root(), "dir/stream", bytes(3, 3 << 20));
    write(&setup.root(), "dir/a.iso", "x");
    write(&setup.root(), "dir/empty.iso", "");
    write(&setup.root(), "dir/.gitattributes", "* -filter\n");
    write(&setup.root(), "odd/a b*\"\\\n[x]", bytes(4, LARGE));
    write(&setup.root(), "pointer", &pointer);
    symlink("dir/stream", setup.root().join("link.iso")).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    write(&setup.root(), "exact", "small now");
    write(&setup.root(), "below", bytes(2, LARGE));
    fs::rename(setup.root().join("dir"), setup.root().join("moved")).unwrap();
    daemon.api().flush();
    daemon.stop();
    let large = assert_all_is_well(&setup, &lfs);
    assert_eq!(large, names(["below", "moved/a.iso", "moved/stream", "odd/a b*\"\\\n[x]", "pointer"]));
    assert_eq!(
        stored(&setup.local().path).0,
        6,
        "the moved ones are there once, and the former version of one stays"
    );

    // A lost database is made from the tip, and nothing is stored twice or in another form.
    let tip = setup.local().tip("main");
    fs::remove_file(setup.state().join("state.redb")).unwrap();
    fs::remove_dir_all(setup.local().path.join("lfs")).unwrap();
    let daemon = setup.start();
    daemon.status_when("the root is compared", |status| {
        status["repositories"][0]["roots"][0]["state"] == "watching"
    });
    daemon.api().flush();
    daemon.stop();
    assert_eq!(setup.local().tip("main"), tip);
    assert_eq!(assert_all_is_well(&setup, &lfs), large);
    assert_eq!(stored(&setup.local().path).0, 5, "what is still on disk is here again");
}

#[test]
fn a_file_larger_than_the_limit_is_held_said_and_taken_when_the_limit_is_raised() {
    let (mut setup, lfs) = with_lfs();
    setup.repository()["lfs"] = json!({"threshold": "64KiB", "max_object": "1MiB"});
    write(&setup.root(), "grows", bytes(1, LARGE));
    write(&setup.root(), "other", "x");
    let daemon = setup.start();
    daemon.api().flush();
    write(&setup.root(), "grows", bytes(2, (1 << 20) + 1));
    write(&setup.root(), "other", "y");
    let answer = daemon.api().flush();
    let skipped = &answer["repositories"][0]["skipped"];
    let reason = skipped[0]["reason"].as_str().unwrap_or_default();
    assert!(skipped[0]["path"] == "grows" && reason.contains("lfs.max_object"), "{answer:#}");
    let why = setup.run(&["why", setup.root().join("grows").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(said.contains("lfs.max_object") && said.contains("1.0 MiB"), "{said}");
    let held = setup.local().blob("main", "folder1/grows").unwrap();
    assert!(String::from_utf8_lossy(&held).contains(&format!("size {LARGE}")), "the last version stays");
    assert_eq!(setup.local().blob("main", "folder1/other").unwrap(), b"y");

    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    setup.write_config();
    assert_eq!(daemon.api().post("/api/v1/reload", &json!({})).status, 200);
    eventually("it is taken", SOON, || {
        let answer = daemon.api().flush();
        (answer["repositories"][0]["skipped"] == json!([])).then_some(())
    });
    daemon.stop();
    assert_eq!(assert_all_is_well(&setup, &lfs), names(["grows"]));
}

#[test]
fn what_a_host_does_not_take_in_git_is_held_until_lfs_is_on() {
    let (mut setup, lfs) = with_lfs();
    setup.repository()["lfs"] = json!(null);
    setup.repository()["remotes"][0]["provider"] = json!("github");
    let sparse = fs::File::create(setup.root().join("large")).unwrap();
    sparse.set_len((100 << 20) + 1).unwrap();
    write(&setup.root(), "small", "x");
    let daemon = setup.start();
    let answer = daemon.api().flush();
    let reason = answer["repositories"][0]["skipped"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("GitHub") && reason.contains("turn on `lfs`"), "{answer:#}");
    setup.repository()["lfs"] = json!({"threshold": "1GiB"});
    setup.write_config();
    assert_eq!(daemon.api().post("/api/v1/reload", &json!({})).status, 200);
    eventually("it is taken", SOON, || {
        let answer = daemon.api().flush();
        (answer["repositories"][0]["skipped"] == json!([])).then_some(())
    });
    daemon.stop();
    assert_eq!(assert_all_is_well(&setup, &lfs), names(["large"]));
}

#[test]
fn where_blocks_can_be_shared_a_large_file_takes_no_room() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let place = tempfile::tempdir().unwrap();
    let disk = match sharing_blocks(image.path(), place.path()) {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("shared blocks: {reason}")),
    };
    let mut setup = Setup::beneath(&disk.path);
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    write(&setup.root(), "d/large", bytes(1, 96 << 20));
    write(&setup.root(), "d/odd", bytes(2, (5 << 20) + 3));
    rustix::fs::syncfs(fs::File::open(&disk.path).unwrap()).unwrap();
    let free = disk.free();
    let daemon = setup.start();
    daemon.api().flush();
    assert!(free - disk.free() < 32 << 20, "{} bytes were taken", free - disk.free());
    // Only its times change: it is looked at, and nothing is stored.
    fs::File::open(setup.root().join("d/large")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    daemon.api().flush();
    daemon.stop();
    assert_eq!(assert_all_is_well(&setup, &GitLfs::new()), names(["d/large", "d/odd"]));
    assert_eq!(stored(&setup.local().path).0, 2);
}

#[test]
fn a_large_file_that_does_not_fit_here_is_held_and_the_others_go_on() {
    let (mut setup, lfs) = with_lfs();
    let _disk = match memory(&setup.state(), "size=64m") {
        Ok(disk) => disk,
        Err(reason) => return skip(&format!("a small state directory: {reason}")),
    };
    setup.repository()["batch"] = json!({"after": "100ms", "bytes": "8MiB"});
    write(&setup.root(), "large", bytes(1, 80 << 20));
    write(&setup.root(), "fits", bytes(2, 1 << 20));
    let daemon = setup.start();
    let answer = daemon.api().flush();
    let skipped = &answer["repositories"][0]["skipped"];
    let reason = skipped[0]["reason"].as_str().unwrap_or_default();
    assert!(skipped[0]["path"] == "large" && reason.contains("make room"), "{answer:#}");
    fs::remove_file(setup.root().join("large")).unwrap();
    daemon.api().flush();
    daemon.stop();
    assert_eq!(assert_all_is_well(&setup, &lfs), names(["fits"]));
}
