//! Restores that die: nothing half-written under a final name, and the same command goes on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use super::{assert_same, backed_up, fill, portraits, restored, said, text};
use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::write;
use crate::support::{Random, SOON, seed};

/// Every point of a restore, and at which passes to die there.
const POINTS: &[(&str, &[u32])] = &[
    ("restore:marked", &[1]),
    ("restore:directory-made", &[1, 2, 30]),
    ("restore:file-written", &[1, 2, 60]),
    ("restore:file-placed", &[1, 2, 60, 150]),
];

fn dies(setup: &Setup, fault: &str, arguments: &[&str]) {
    let config = setup.write_config();
    let mut all = vec!["restore", "--config", text(&config)];
    all.extend(arguments);
    let output = setup.command(&all).env("BACKUPBOT_FAULT", fault).output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{fault}: {}", said(&output));
}

/// Whatever stands under a name of the snapshot is whole.
fn assert_nothing_is_half(setup: &Setup, root: &Path, what: &str) {
    if !root.exists() {
        return;
    }
    let expected = portraits(&setup.root());
    for (path, found) in portraits(root) {
        if path.windows(11).any(|part| part == b".backupbot-") {
            continue;
        }
        let shown = path.escape_ascii();
        let wanted = expected.get(&path).unwrap_or_else(|| panic!("{what}: {shown} is not in the snapshot"));
        if found.mode & 0o170_000 == 0o100_000 {
            assert_eq!(
                (found.mode, &found.content, found.mtime),
                (wanted.mode, &wanted.content, wanted.mtime),
                "{what}: {shown}"
            );
        }
    }
}

#[test]
fn a_killed_restore_leaves_whole_files_only_and_is_finished_by_the_same_command() {
    let setup = Setup::new();
    fill(&setup.root(), &mut Random::new(seed("killed_restore")));
    backed_up(&setup);
    let expected = portraits(&setup.root());
    for (point, passes) in POINTS {
        for pass in *passes {
            let what = format!("{point}=kill@{pass}");
            let out = setup.path(&format!("out-{}-{pass}", point.replace(':', "-")));
            let arguments = ["--to", text(&out)];
            dies(&setup, &what, &arguments);
            assert_nothing_is_half(&setup, &out.join("folder1"), &what);
            // Another restore is not let in.
            let other = super::restore(&setup, &[&arguments[..], &["folder1/run"]].concat());
            assert_eq!(other.status.code(), Some(2), "{what}: {}", said(&other));
            let said = restored(&setup, &arguments);
            assert!(said.contains("going on with the restore of snapshot"), "{what}: {said}");
            assert_same(&expected, &portraits(&out.join("folder1")));
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{what}: nothing of ours is left");
        }
    }
}

/// The large content is not here and comes from the remote while it is restored.
#[test]
fn a_restore_that_dies_while_it_fetches_a_large_content_is_finished_by_the_same_command() {
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    let mut random = Random::new(seed("killed_fetch"));
    let content: Vec<u8> = (0..40_000).flat_map(|_| random.next().to_le_bytes()).collect();
    write(&setup.root(), "dir/large", &content);
    write(&setup.root(), "small", "x");
    backed_up(&setup);
    let expected = portraits(&setup.root());
    let own = setup.state().join("repos/documents.git/lfs");
    fs::remove_dir_all(own.join("objects")).unwrap();
    for point in ["lfs:object-begun", "lfs:object-synced", "lfs:object-stored"] {
        let out = setup.path(&format!("out-{}", point.replace(':', "-")));
        let arguments = ["--to", text(&out)];
        dies(&setup, &format!("{point}=kill@1"), &arguments);
        assert_nothing_is_half(&setup, &out.join("folder1"), point);
        restored(&setup, &arguments);
        assert_same(&expected, &portraits(&out.join("folder1")));
        let mut left = Vec::new();
        let mut pending = vec![own.clone()];
        while let Some(path) = pending.pop() {
            match fs::read_dir(&path) {
                Ok(entries) => pending.extend(entries.map(|entry| entry.unwrap().path())),
                Err(_) => left.push(path),
            }
        }
        assert!(left.is_empty(), "{point}: {left:?} stays in the state");
    }
}

#[test]
fn a_killed_restore_in_place_is_finished_and_undone_to_where_it_began() {
    let setup = Setup::new();
    fill(&setup.root(), &mut Random::new(seed("killed_in_place")));
    backed_up(&setup);
    let first = portraits(&setup.root());
    for entry in fs::read_dir(setup.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("d0") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let messed = portraits(&setup.root());
    let arguments = ["--in-place", "--yes"];
    for pass in [1, 10] {
        dies(&setup, &format!("restore:file-placed=kill@{pass}"), &arguments);
    }
    restored(&setup, &arguments);
    assert_same(&first, &portraits(&setup.root()));
    restored(&setup, &["--undo", "--yes"]);
    assert_same(&messed, &portraits(&setup.root()));
}

#[test]
fn the_first_interrupt_stops_in_an_orderly_way_and_the_second_at_once() {
    let setup = Setup::new();
    fill(&setup.root(), &mut Random::new(9));
    backed_up(&setup);
    let expected = portraits(&setup.root());
    let out = setup.path("out");
    let config = setup.write_config();
    let mut command = setup.command(&["restore", "--config", text(&config), "--to", text(&out)]);
    command.env("BACKUPBOT_FAULT", "restore:file-written=stall@20");
    let mut restore = Daemon::spawn(command, &setup);
    crate::support::eventually("it is at work", SOON, || out.join("folder1").exists().then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    restore.signal(Signal::INT);
    crate::support::eventually("it says what it does", SOON, || {
        restore.output().contains("once more stops at once").then_some(())
    });
    assert!(restore.ended().is_none(), "it waits for what is being written");
    restore.signal(Signal::INT);
    assert_eq!(restore.end(SOON).code(), Some(1));
    restored(&setup, &["--to", text(&out)]);
    assert_same(&expected, &portraits(&out.join("folder1")));
}

#[test]
fn every_point_of_a_restore_is_in_the_table_and_explained() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut pending = vec![base.join("core/src/restore")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let source = fs::read_to_string(&path).unwrap_or_default();
        found.extend(
            source.split("fault::point(\"").skip(1).map(|part| part.split('"').next().unwrap().to_owned()),
        );
    }
    found.sort();
    let mut table: Vec<&str> = POINTS.iter().map(|(point, _)| *point).collect();
    table.sort_unstable();
    assert_eq!(found, table);
    let documented = fs::read_to_string(base.join("docs/architecture.md")).unwrap();
    for point in table {
        assert!(documented.contains(&format!("`{point}`")), "{point}");
    }
}
