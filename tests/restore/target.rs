//! Targets that are full, read-only, somebody else's, or the wrong place altogether.

use std::fs;

use super::{backed_up, portraits, restore, restored, said, text};
use crate::support::Random;
use crate::support::daemon::{Setup, is_root};
use crate::support::mount::{itself, memory};
use crate::support::skip;
use crate::support::tree::write;

const MIB: u64 = 1024 * 1024;

#[test]
fn a_target_that_is_too_small_is_refused_before_anything_is_written() {
    let setup = Setup::new();
    write(&setup.root(), "large", Random::new(1).bytes(20 * MIB as usize));
    backed_up(&setup);
    let place = setup.path("small");
    let _mount = match memory(&place, "size=16m") {
        Ok(mount) => mount,
        Err(reason) => return skip(&format!("a small target: {reason}")),
    };
    let output = restore(&setup, &["--to", text(&place)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for part in ["20.0 MiB", "free", "make room", "nothing was written"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    assert!(!place.join("folder1").exists());
}

#[test]
fn a_target_that_fills_up_leaves_whole_files_and_the_same_command_goes_on_later() {
    let setup = Setup::new();
    for number in 0..3000 {
        write(&setup.root(), format!("d{}/f{number}", number % 20), "x");
    }
    backed_up(&setup);
    let place = setup.path("small");
    let mount = match memory(&place, "size=11m") {
        Ok(mount) => mount,
        Err(reason) => return skip(&format!("a target that fills up: {reason}")),
    };
    let arguments = ["--to", text(&place)];
    // Each of these takes a page there, so much more than their bytes.
    let output = restore(&setup, &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("make room"), "{}", said(&output));
    let expected = portraits(&setup.root());
    for (path, found) in portraits(&place.join("folder1")) {
        assert!(!path.starts_with(b".backupbot"), "nothing temporary is left");
        let is_file = found.mode & 0o170_000 == 0o100_000;
        assert!(!is_file || expected[&path] == found, "{}", path.escape_ascii());
    }
    let grown =
        std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(&mount.path).status();
    assert!(grown.unwrap().success());
    restored(&setup, &arguments);
    super::assert_same(&expected, &portraits(&place.join("folder1")));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

#[test]
fn a_read_only_target_is_named_once_and_not_once_a_file() {
    let setup = Setup::new();
    for number in 0..50 {
        write(&setup.root(), format!("f{number}"), "x");
    }
    backed_up(&setup);
    let place = setup.path("place");
    fs::create_dir_all(place.join("folder1")).unwrap();
    let mount = match itself(&place) {
        Ok(mount) => mount,
        Err(reason) => return skip(&format!("a read-only target: {reason}")),
    };
    mount.read_only(true);
    let output = restore(&setup, &["--to", text(&place), "--overwrite=changed"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(said(&output).matches("ead-only").count(), 1, "{}", said(&output));
    mount.read_only(false);
}

#[test]
fn nothing_is_restored_into_what_is_watched_or_into_the_state() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    backed_up(&setup);
    let before = crate::support::tree::fingerprint(&setup.root());
    let links = setup.path("links");
    fs::create_dir(&links).unwrap();
    std::os::unix::fs::symlink(setup.root(), links.join("way in")).unwrap();
    for (place, word) in [
        (setup.root().join("sub"), "--in-place"),
        (setup.root(), "--in-place"),
        (setup.state().join("x"), "state directory"),
        (links.join("way in/deeper"), "watched"),
        // Its roots would be written over the watched ones.
        (setup.path("."), "--in-place"),
    ] {
        let output = restore(&setup, &["--to", text(&place), "--overwrite=always"]);
        assert_eq!(output.status.code(), Some(2), "{}: {}", place.display(), said(&output));
        assert!(said(&output).contains(word), "{}: {}", place.display(), said(&output));
    }
    assert_eq!(crate::support::tree::fingerprint(&setup.root()), before);
    assert!(!setup.state().join("x").exists());
}

#[test]
fn who_may_not_give_files_away_restores_them_and_is_told() {
    if !is_root() {
        return skip("files of several owners need root");
    }
    let mut setup = Setup::new();
    write(&setup.root(), "mine", "x");
    write(&setup.root(), "roots", "x");
    write(&setup.root(), "closed/inside", "x");
    setup.as_nobody = true;
    // The first run hands everything to nobody; then a file that is root's comes.
    backed_up(&setup);
    setup.as_nobody = false;
    let chown = |name: &str, owner| {
        std::os::unix::fs::lchown(setup.root().join(name), Some(owner), Some(owner)).unwrap();
    };
    chown("roots", 0);
    super::set_mode(&setup.root().join("roots"), 0o4755);
    super::set_mode(&setup.root().join("closed"), 0o500);
    backed_up(&setup);
    setup.as_nobody = true;
    let out = setup.path("out");
    let report = restored(&setup, &["--to", text(&out), "--verify"]);
    assert!(report.contains("1 has another owner"), "{report}");
    assert!(report.contains("1 was recorded with set-id bits"), "{report}");
    let found = portraits(&out.join("folder1"));
    assert_eq!(found[&b"roots"[..]].mode & 0o7777, 0o755);
    assert_eq!(found[&b"roots"[..]].owner.0, 65_534);
    assert_eq!(found[&b"closed"[..]].mode & 0o7777, 0o500);
    // Once more into directories that forbid writing to their owner.
    fs::remove_file(out.join("folder1/closed/inside")).unwrap();
    restored(&setup, &["--to", text(&out), "--overwrite=changed"]);
    assert_eq!(portraits(&out.join("folder1")), found);
}

#[test]
fn links_that_stand_in_the_target_lead_nowhere() {
    let setup = Setup::new();
    write(&setup.root(), "dir/file", "restored");
    write(&setup.root(), "file", "restored");
    write(&setup.root(), "hard", "restored");
    backed_up(&setup);
    let outside = setup.path("outside");
    write(&outside, "canary", "alive");
    let out = setup.path("out");
    let root = out.join("folder1");
    fs::create_dir_all(&root).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.join("canary"), root.join("file")).unwrap();
    fs::hard_link(outside.join("canary"), root.join("hard")).unwrap();
    let before = crate::support::tree::picture(&outside, |_| false);
    let output = restore(&setup, &["--to", text(&out), "--overwrite=changed"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(fs::read(root.join("file")).unwrap(), b"restored");
    assert_eq!(fs::read(root.join("hard")).unwrap(), b"restored");
    restored(&setup, &["--to", text(&out), "--overwrite=always"]);
    assert_eq!(fs::read(root.join("dir/file")).unwrap(), b"restored");
    assert_eq!(crate::support::tree::picture(&outside, |_| false), before);
    assert_eq!(fs::read(outside.join("canary")).unwrap(), b"alive");
}
