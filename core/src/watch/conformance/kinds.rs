//! Entries that are, or become, something else than a file or a directory with one name.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

pub(super) fn a_file_and_a_directory_change_places(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::write(root.join("one"), "x").unwrap();
        fs::create_dir(root.join("other")).unwrap();
        fs::write(root.join("other/in"), "x").unwrap();
    });
    for round in 0..4 {
        fs::rename(fixture.at("one"), fixture.at("t")).unwrap();
        fs::rename(fixture.at("other"), fixture.at("one")).unwrap();
        fs::rename(fixture.at("t"), fixture.at("other")).unwrap();
        let hints = fixture.hints();
        let directory = if round % 2 == 0 { "one" } else { "other" };
        for place in ["one", "other", &format!("{directory}/in")] {
            assert!(covered(&hints, place), "{place} in {hints:?}");
        }
        fs::write(fixture.at(directory).join("in"), format!("{round}")).unwrap();
        fixture.assert_hinted(&[&format!("{directory}/in")]);
        assert_eq!(fixture.backend.stats().watches, 2);
    }
    fs::remove_file(fixture.at("one")).unwrap();
    fs::create_dir(fixture.at("one")).unwrap();
    fs::write(fixture.at("one/new"), "x").unwrap();
    fs::remove_dir_all(fixture.at("other")).unwrap();
    fs::write(fixture.at("other"), "a file now").unwrap();
    let hints = fixture.hints();
    for place in ["one", "one/new", "other"] {
        assert!(covered(&hints, place), "{place} in {hints:?}");
    }
    fixture.assert_watches(&["", "one"]);
}

pub(super) fn a_file_replaced_by_another_of_the_same_look_is_hinted(suite: &Suite) {
    let mut fixture = suite.start(|root| fs::write(root.join("f"), "one").unwrap());
    let time = fs::metadata(fixture.at("f")).unwrap().modified().unwrap();
    for content in ["two", "six"] {
        fs::write(fixture.outside(), content).unwrap();
        fs::File::options().write(true).open(fixture.outside()).unwrap().set_modified(time).unwrap();
        fs::rename(fixture.outside(), fixture.at("f")).unwrap();
        fixture.assert_hinted(&["f"]);
        fs::remove_file(fixture.at("f")).unwrap();
        fs::write(fixture.at("f"), content).unwrap();
        fixture.assert_hinted(&["f"]);
        fs::write(fixture.at("f"), "and changed").unwrap();
        fixture.assert_hinted(&["f"]);
    }
}

pub(super) fn a_link_to_a_directory_is_an_entry_and_nothing_behind_it_is_watched(suite: &Suite) {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("deep")).unwrap();
    fs::write(outside.path().join("file"), "x").unwrap();
    let mut fixture = suite.start(|root| symlink(outside.path(), root.join("before")).unwrap());
    symlink(outside.path(), fixture.at("after")).unwrap();
    symlink(outside.path().join("file"), fixture.at("to-file")).unwrap();
    fixture.assert_hinted(&["after", "to-file"]);
    fs::write(outside.path().join("deep/f"), "x").unwrap();
    fs::write(outside.path().join("file"), "changed").unwrap();
    fixture.assert_hinted(&[]);
    fs::remove_file(fixture.at("after")).unwrap();
    symlink("elsewhere", fixture.at("after")).unwrap();
    fixture.assert_hinted(&["after"]);
    // A directory swapped for a link leads nowhere.
    fs::create_dir_all(fixture.at("real/deep")).unwrap();
    fixture.hints();
    fs::remove_dir_all(fixture.at("real")).unwrap();
    symlink(outside.path(), fixture.at("real")).unwrap();
    assert!(covered(&fixture.hints(), "real"));
    fs::write(outside.path().join("deep/g"), "x").unwrap();
    fixture.assert_hinted(&[]);
    fixture.assert_watches(&[""]);
}

pub(super) fn a_change_through_either_name_of_a_file_is_hinted_for_one_at_least(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("one"), "x").unwrap();
        fs::hard_link(root.join("one"), root.join("d/two")).unwrap();
    });
    for (number, name) in ["one", "d/two", "one"].into_iter().enumerate() {
        fs::write(fixture.at(name), format!("{number}")).unwrap();
        let hints = fixture.hints();
        assert!(covered(&hints, name), "{name} in {hints:?}");
    }
    fs::hard_link(fixture.at("one"), fixture.at("three")).unwrap();
    assert!(covered(&fixture.hints(), "three"));
    fs::remove_file(fixture.at("one")).unwrap();
    let hints = fixture.hints();
    assert!(covered(&hints, "one"), "{hints:?}");
    for name in ["d/two", "three"] {
        fs::write(fixture.at(name), format!("last by {name}")).unwrap();
        let hints = fixture.hints();
        assert!(covered(&hints, name), "{name} in {hints:?}");
    }
}

pub(super) fn pipes_and_sockets_are_hinted_and_never_waited_for(suite: &Suite) {
    let pipe = |at: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
    };
    let mut fixture = suite.start(|root| pipe(&root.join("before")));
    pipe(&fixture.at("after"));
    let _socket = std::os::unix::net::UnixListener::bind(fixture.at("socket")).unwrap();
    fixture.assert_hinted(&["after", "socket"]);
    fs::remove_file(fixture.at("before")).unwrap();
    fs::write(fixture.at("before"), "a file now").unwrap();
    fixture.assert_hinted(&["before"]);
    fs::write(fixture.at("before"), "changed").unwrap();
    fixture.assert_hinted(&["before"]);
}

pub(super) fn the_mode_of_a_directory_is_hinted_and_a_closed_one_is_found_when_it_opens(suite: &Suite) {
    let set = |at: &Path, mode| fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::create_dir(root.join("closed")).unwrap();
        fs::write(root.join("closed/f"), "x").unwrap();
        set(&root.join("closed"), 0);
    });
    set(&fixture.at("d/e"), 0o750);
    fixture.assert_hinted(&["d/e"]);
    set(&fixture.at("closed"), 0o755);
    let hints = fixture.hints();
    assert!(covered(&hints, "closed"), "{hints:?}");
    fs::write(fixture.at("closed/f"), "changed").unwrap();
    fixture.assert_hinted(&["closed/f"]);
    fixture.assert_watches(&["", "closed", "d", "d/e"]);
}
