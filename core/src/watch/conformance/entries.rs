//! Files and directories that come, change, move and go.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

pub(super) fn every_kind_of_change_of_a_file_is_hinted_and_nothing_else(suite: &Suite) {
    let mut fixture = suite.start(|root| fs::write(root.join("old"), "x").unwrap());
    fixture.assert_hinted(&[]);
    fs::write(fixture.at("new"), "content").unwrap();
    fixture.assert_hinted(&["new"]);
    fs::write(fixture.at("old"), "content").unwrap();
    fixture.assert_hinted(&["old"]);
    fs::rename(fixture.at("old"), fixture.at("renamed")).unwrap();
    fixture.assert_hinted(&["old", "renamed"]);
    fs::write(fixture.at("renamed"), "again").unwrap();
    fixture.assert_hinted(&["renamed"]);
    fs::set_permissions(fixture.at("new"), fs::Permissions::from_mode(0o600)).unwrap();
    fixture.assert_hinted(&["new"]);
    let file = fs::File::options().write(true).open(fixture.at("new")).unwrap();
    file.set_len(3).unwrap();
    fixture.assert_hinted(&["new"]);
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fixture.assert_hinted(&["new"]);
    symlink("somewhere", fixture.at("link")).unwrap();
    fs::remove_file(fixture.at("new")).unwrap();
    fixture.assert_hinted(&["link", "new"]);
    fixture.assert_hinted(&[]);
}

pub(super) fn a_file_held_open_is_hinted_while_it_is_written(suite: &Suite) {
    let mut fixture = suite.start(|root| fs::write(root.join("log"), "x").unwrap());
    let mut log = fs::OpenOptions::new().append(true).open(fixture.at("log")).unwrap();
    for _ in 0..3 {
        log.write_all(b"line\n").unwrap();
        fixture.assert_hinted(&["log"]);
    }
}

pub(super) fn what_is_undone_before_anybody_looks_is_hinted_by_its_directory_at_least(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/f"), "x").unwrap();
    });
    let deeds: [fn(&Path); 4] = [
        |directory| {
            fs::write(directory.join("new"), "x").unwrap();
            fs::remove_file(directory.join("new")).unwrap();
        },
        |directory| {
            fs::create_dir(directory.join("new")).unwrap();
            fs::remove_dir(directory.join("new")).unwrap();
        },
        |directory| {
            fs::rename(directory.join("f"), directory.join("new")).unwrap();
            fs::rename(directory.join("new"), directory.join("f")).unwrap();
        },
        |directory| {
            fs::rename(directory.join("e"), directory.join("new")).unwrap();
            fs::rename(directory.join("new"), directory.join("e")).unwrap();
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        deed(&fixture.at("d"));
        let hints = fixture.hints();
        // Who looked at the entry in between has to learn that it is not there, or is the old one again.
        let is_told = covered(&hints, "d") || covered(&hints, "d/new");
        assert!(is_told, "deed {number}: {hints:?}");
    }
    fs::write(fixture.at("d/e/after"), "x").unwrap();
    assert!(covered(&fixture.hints(), "d/e/after"));
}

pub(super) fn names_of_all_bytes_and_the_longest_come_through(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    let longest = [b'n'; 255];
    for name in [&b"a\xff\n"[..], b"-rf \x1b[31m", &longest, b"\\", b"...", "\u{e9}".as_bytes()] {
        let directory = fixture.root().join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir(&directory).unwrap();
        fixture.hints();
        let file = RelPath::new(name).unwrap().join(name);
        for content in ["x", "longer"] {
            fs::write(fixture.root().join(file.as_os_path()), content).unwrap();
            let hints = fixture.hints();
            assert!(hints.contains(&Hint::Changed(file.clone())), "{file:?} in {hints:?}");
        }
        fs::remove_dir_all(&directory).unwrap();
        let (root, hints) = (fixture.root(), fixture.hints());
        assert!(hints.iter().any(|hint| accounts_for(&root, hint, &file)), "{file:?} in {hints:?}");
    }
}

pub(super) fn nothing_of_a_tree_made_at_one_go_is_missed(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    let mut files = Vec::new();
    for top in 0..20 {
        let directory = format!("t{top}/a/b/c/d/e");
        fs::create_dir_all(fixture.at(&directory)).unwrap();
        for (number, above) in Path::new(&directory).ancestors().take(6).enumerate() {
            let file = format!("{}/f{number}", above.display());
            fs::write(fixture.at(&file), "x").unwrap();
            files.push(file);
        }
        // Sometimes the watcher is in between.
        if top % 3 == 0 {
            fixture.backend.wait(Duration::ZERO, &mut fixture.hints).unwrap();
        }
    }
    let hints = fixture.hints();
    for file in files {
        assert!(covered(&hints, &file), "{file} is missing");
    }
    assert_eq!(fixture.backend.stats().watches, 1 + 20 * 6);
    fs::write(fixture.at("t7/a/b/c/d/e/late"), "x").unwrap();
    // Not "and nothing else": a process that another test forks holds what is open here until it starts its program,
    // so one of the many files above may be closed, and told of, only now.
    let hints = fixture.hints();
    assert!(covered(&hints, "t7/a/b/c/d/e/late"), "{hints:?}");
}

pub(super) fn a_tree_being_made_by_another_thread_is_hinted_whole(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    let root = fixture.root();
    let maker = std::thread::spawn(move || {
        let mut files = Vec::new();
        for number in 0..300 {
            let directory = format!("x{}/y{}/z{number}", number % 3, number % 17);
            fs::create_dir_all(root.join(&directory)).unwrap();
            let file = format!("{directory}/f");
            fs::write(root.join(&file), "x").unwrap();
            if number % 10 == 0 {
                fs::rename(root.join(&directory), root.join(format!("m{number}"))).unwrap();
                files.push(format!("m{number}/f"));
            } else {
                files.push(file);
            }
        }
        files
    });
    while !maker.is_finished() {
        fixture.backend.wait(Duration::from_millis(1), &mut fixture.hints).unwrap();
    }
    let files = maker.join().unwrap();
    let hints = fixture.hints();
    for file in &files {
        assert!(covered(&hints, file), "{file} is missing");
        fs::write(fixture.at(file), "again").unwrap();
    }
    let hints = fixture.hints();
    for file in &files {
        assert!(hints.contains(&Hint::Changed(path(file))), "{file} has no watch");
    }
}

pub(super) fn a_directory_moved_in_is_hinted_and_watched(suite: &Suite) {
    let mut fixture = suite.start(|_| ());
    fs::create_dir_all(fixture.outside().join("a")).unwrap();
    fs::write(fixture.outside().join("a/f"), "x").unwrap();
    fs::rename(fixture.outside(), fixture.at("in")).unwrap();
    let hints = fixture.hints();
    assert!(covered(&hints, "in/a/f"), "{hints:?}");
    fs::write(fixture.at("in/a/g"), "x").unwrap();
    fixture.assert_hinted(&["in/a/g"]);
    fs::write(fixture.at("in/a/f"), "changed").unwrap();
    fixture.assert_hinted(&["in/a/f"]);
}

pub(super) fn a_directory_moved_out_is_hinted_and_no_longer_watched(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/old"), "x").unwrap();
    });
    fs::rename(fixture.at("d"), fixture.outside()).unwrap();
    fixture.assert_hinted(&["d"]);
    let end = Instant::now() + PATIENCE;
    while fixture.backend.stats().watches > 1 {
        assert!(Instant::now() < end);
        fixture.backend.wait(Duration::from_millis(100), &mut fixture.hints).unwrap();
    }
    fs::write(fixture.outside().join("e/f"), "x").unwrap();
    fs::write(fixture.outside().join("e/old"), "changed").unwrap();
    fixture.assert_hinted(&[]);
    fixture.assert_watches(&[""]);
}

pub(super) fn a_file_moved_between_directories_is_hinted_at_both_places(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir(root.join("a")).unwrap();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("a/f"), "x").unwrap();
        fs::write(root.join("b/g"), "x").unwrap();
    });
    fs::rename(fixture.at("a/f"), fixture.at("b/f")).unwrap();
    fixture.assert_hinted(&["a/f", "b/f"]);
    fs::write(fixture.at("b/f"), "changed").unwrap();
    fixture.assert_hinted(&["b/f"]);
    fs::rename(fixture.at("b/f"), fixture.at("b/g")).unwrap();
    fixture.assert_hinted(&["b/f", "b/g"]);
    fs::rename(fixture.at("b/g"), fixture.outside()).unwrap();
    fixture.assert_hinted(&["b/g"]);
    fs::write(fixture.outside(), "changed").unwrap();
    fixture.assert_hinted(&[]);
    fs::rename(fixture.outside(), fixture.at("a/back")).unwrap();
    fixture.assert_hinted(&["a/back"]);
}

pub(super) fn after_a_rename_of_an_ancestor_events_have_the_new_path(suite: &Suite) {
    let mut fixture = suite.start(|root| fs::create_dir_all(root.join("a/b/c")).unwrap());
    fs::create_dir(fixture.at("x")).unwrap();
    fs::rename(fixture.at("a"), fixture.at("x/y")).unwrap();
    let hints = fixture.hints();
    assert!(covered(&hints, "a") && covered(&hints, "x/y/b/c/f"), "{hints:?}");
    fs::write(fixture.at("x/y/b/c/f"), "x").unwrap();
    fixture.assert_hinted(&["x/y/b/c/f"]);
    fixture.assert_watches(&["", "x", "x/y", "x/y/b", "x/y/b/c"]);
}

pub(super) fn directories_that_change_places_keep_their_watches(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("a/in-a")).unwrap();
        fs::create_dir_all(root.join("b/in-b")).unwrap();
    });
    fs::rename(fixture.at("a"), fixture.at("t")).unwrap();
    fs::rename(fixture.at("b"), fixture.at("a")).unwrap();
    fs::rename(fixture.at("t"), fixture.at("b")).unwrap();
    fs::create_dir(fixture.at("t")).unwrap();
    let hints = fixture.hints();
    for moved in ["a/in-b", "b/in-a", "t"] {
        assert!(covered(&hints, moved), "{moved} in {hints:?}");
    }
    fs::write(fixture.at("a/in-b/f"), "x").unwrap();
    fs::write(fixture.at("b/in-a/f"), "x").unwrap();
    fixture.assert_hinted(&["a/in-b/f", "b/in-a/f"]);
    fixture.assert_watches(&["", "a", "a/in-b", "b", "b/in-a", "t"]);
}

pub(super) fn a_directory_made_again_under_the_same_name_is_watched_even_while_the_old_one_is_open(
    suite: &Suite,
) {
    let mut fixture = suite.start(|root| fs::create_dir_all(root.join("d/e")).unwrap());
    let _held = fs::File::open(fixture.at("d/e")).unwrap();
    for round in 0..5 {
        fs::remove_dir_all(fixture.at("d")).unwrap();
        fs::create_dir_all(fixture.at("d/e")).unwrap();
        let file = format!("d/e/f{round}");
        fs::write(fixture.at(&file), "x").unwrap();
        let hints = fixture.hints();
        assert!(covered(&hints, &file), "{hints:?}");
    }
    fs::write(fixture.at("d/e/g"), "x").unwrap();
    fixture.assert_hinted(&["d/e/g"]);
    fixture.assert_watches(&["", "d", "d/e"]);
}

pub(super) fn deleting_a_tree_hints_it_and_frees_its_watches(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "x").unwrap();
    });
    fs::remove_dir_all(fixture.at("d")).unwrap();
    let hints = fixture.hints();
    // A directory that is gone takes all below it along, so the top is enough.
    assert!(covered(&hints, "d"), "{hints:?}");
    fixture.assert_watches(&[""]);
}
