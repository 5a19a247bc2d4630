//! Restoring to where it was: what is there is committed first, and `--undo` brings back exactly what was touched.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{assert_same, backed_up, fill, portraits, restore, restored, said, set_time};
use crate::support::daemon::{Setup, is_root};
use crate::support::tree::write;
use crate::support::{Random, seed, skip};

/// Changes of every kind.
fn mess_up(root: &Path) {
    write(root, "large", "small now");
    fs::remove_file(root.join("link")).unwrap();
    write(root, "link/is a directory", "x");
    fs::remove_dir_all(root.join("nothing")).unwrap();
    write(root, "nothing", "a file");
    fs::remove_dir_all(root.join("repo")).unwrap();
    write(root, "mine", "new");
    set_time(&root.join("secret"), 77, 7);
    super::set_mode(&root.join("run"), 0o644);
    fs::remove_file(root.join("linked/two")).unwrap();
}

fn goes_back_and_forth(setup: &Setup, commits_alone: bool) {
    let root = setup.root();
    let first = portraits(&root);
    mess_up(&root);
    let messed = portraits(&root);
    if !commits_alone {
        // Nobody has committed this yet: the restore does.
        assert!(setup.local().blob("main", "folder1/mine").is_none());
    }
    let output = restore(setup, &["--in-place"]);
    assert_eq!(output.status.code(), Some(2), "nobody to ask: {}", said(&output));
    assert_same(&messed, &portraits(&root));

    restored(setup, &["--in-place", "--yes", "--delete", "--verify", "--at", "latest"]);
    assert_same(&first, &portraits(&root));
    let listed = setup
        .local()
        .history("main")
        .iter()
        .any(|commit| setup.local().blob(&commit.id, "folder1/mine").as_deref() == Some(b"new"));
    assert!(listed, "what was there is in the history");

    restored(setup, &["--undo", "--yes"]);
    assert_same(&messed, &portraits(&root));
    // Taking back is a restore like any other.
    restored(setup, &["--undo", "--yes"]);
    assert_same(&first, &portraits(&root));
}

#[test]
fn what_is_restored_in_place_can_be_undone_without_a_daemon() {
    let setup = Setup::new();
    fill(&setup.root(), &mut Random::new(seed("in_place")));
    backed_up(&setup);
    goes_back_and_forth(&setup, false);
}

#[test]
fn what_is_restored_in_place_can_be_undone_with_a_daemon() {
    let mut setup = Setup::new();
    // So that a commit made by chance does not change what `latest` is.
    setup.repository()["roots"][0]["debounce"] = json!({"quiet": "1h", "max": "1h"});
    fill(&setup.root(), &mut Random::new(seed("in_place_daemon")));
    let daemon = setup.start();
    daemon.api().flush();
    goes_back_and_forth(&setup, false);
    daemon.stop();
}

#[test]
fn a_remote_that_is_out_of_reach_does_not_keep_anybody_from_restoring() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "before");
    backed_up(&setup);
    fs::write(setup.path("no directory"), "so nothing can be made in it").unwrap();
    let url = setup.path("no directory/documents.git");
    setup.repository()["remotes"][0]["url"] = json!(url.to_str().unwrap());
    write(&setup.root(), "file", "after");
    restored(&setup, &["--in-place", "--yes"]);
    assert_eq!(fs::read(setup.root().join("file")).unwrap(), b"before");
    write(&setup.root(), "file", "after that");
    let daemon = setup.start();
    restored(&setup, &["--in-place", "--yes", "--at", "latest~1"]);
    assert_ne!(fs::read(setup.root().join("file")).unwrap(), b"after that");
    daemon.stop_or_fail();
}

#[test]
fn one_file_comes_back_and_its_neighbours_stay_as_they_are() {
    let setup = Setup::new();
    for name in ["a", "b", "sub/c"] {
        write(&setup.root(), name, "first");
    }
    backed_up(&setup);
    for name in ["a", "b", "sub/c"] {
        write(&setup.root(), name, "second");
    }
    write(&setup.root(), "sub/mine", "x");
    restored(&setup, &["--in-place", "--yes", "folder1/sub/c"]);
    let read = |name: &str| fs::read_to_string(setup.root().join(name)).unwrap();
    assert_eq!((read("a"), read("sub/c"), read("sub/mine")), ("second".into(), "first".into(), "x".into()));
    write(&setup.root(), "a", "third");
    restored(&setup, &["--undo", "--yes"]);
    assert_eq!((read("a"), read("sub/c"), read("sub/mine")), ("third".into(), "second".into(), "x".into()));
    let output = restore(&setup, &["--undo", "--yes", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn what_is_in_no_backup_is_never_replaced_in_place() {
    let mut setup = Setup::new();
    write(&setup.root(), "notes.txt", "first");
    write(&setup.root(), "other", "first");
    backed_up(&setup);
    // From now on it is excluded, so what stands there is nowhere else.
    setup.repository()["roots"][0]["ignore"] = json!(["notes.txt"]);
    write(&setup.root(), "notes.txt", "precious and in no backup");
    write(&setup.root(), "other", "second");
    let output = restore(&setup, &["--in-place", "--yes", "--delete"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("notes.txt") && said(&output).contains("--to"), "{}", said(&output));
    assert_eq!(fs::read(setup.root().join("notes.txt")).unwrap(), b"precious and in no backup");
    assert_eq!(fs::read(setup.root().join("other")).unwrap(), b"first");
}

#[test]
fn what_cannot_be_read_now_is_not_replaced_in_place() {
    if !is_root() {
        return skip("another user is needed");
    }
    let mut setup = Setup::new();
    write(&setup.root(), "closed", "first");
    write(&setup.root(), "open", "first");
    setup.as_nobody = true;
    backed_up(&setup);
    write(&setup.root(), "closed", "nobody can read this");
    write(&setup.root(), "open", "second");
    std::os::unix::fs::lchown(setup.root().join("open"), Some(65_534), Some(65_534)).unwrap();
    super::set_mode(&setup.root().join("closed"), 0o000);
    let output = restore(&setup, &["--in-place", "--yes"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(fs::read(setup.root().join("closed")).unwrap(), b"nobody can read this");
    assert_eq!(fs::read(setup.root().join("open")).unwrap(), b"first");
}

#[test]
fn a_root_that_is_lost_comes_back_to_an_empty_place() {
    for leave_directory in [true, false] {
        let setup = Setup::new();
        fill(&setup.root(), &mut Random::new(5));
        backed_up(&setup);
        let expected = portraits(&setup.root());
        fs::remove_dir_all(setup.root()).unwrap();
        if leave_directory {
            fs::create_dir(setup.root()).unwrap();
        }
        restored(&setup, &["--in-place", "--yes", "--verify"]);
        assert_same(&expected, &portraits(&setup.root()));
        backed_up(&setup);
    }
}

#[test]
fn a_paused_repository_is_not_restored_in_place_behind_its_back() {
    let setup = Setup::new();
    write(&setup.root(), "file", "first");
    backed_up(&setup);
    write(&setup.root(), "file", "second");
    assert!(setup.run(&["pause"]).status.success());
    let output = restore(&setup, &["--in-place", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("paused") && said(&output).contains("--to"), "{}", said(&output));
    assert_eq!(fs::read(setup.root().join("file")).unwrap(), b"second");
}

#[test]
fn a_root_that_became_a_link_is_not_followed() {
    let setup = Setup::new();
    write(&setup.root(), "file", "first");
    backed_up(&setup);
    fs::rename(setup.root(), setup.path("elsewhere")).unwrap();
    write(&setup.path("elsewhere"), "file", "precious");
    std::os::unix::fs::symlink(setup.path("elsewhere"), setup.root()).unwrap();
    let output = restore(&setup, &["--in-place", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(fs::read(setup.path("elsewhere/file")).unwrap(), b"precious");
}
