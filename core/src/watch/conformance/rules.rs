//! What is left out: by ignore rules, and by file system.

use std::process::Command;

use super::*;

pub(super) fn what_the_rules_leave_out_has_neither_watch_nor_hint(suite: &Suite) {
    let mut fixture = suite.start_with(&["cache/", "*.tmp"], false, |root| {
        fs::create_dir_all(root.join("cache/deep")).unwrap();
        fs::create_dir_all(root.join("kept")).unwrap();
        fs::write(root.join("kept/old.tmp"), "x").unwrap();
    });
    fs::write(fixture.at("cache/deep/f"), "x").unwrap();
    fs::create_dir(fixture.at("kept/cache")).unwrap();
    fs::write(fixture.at("kept/cache/f"), "x").unwrap();
    fs::write(fixture.at("kept/f.tmp"), "x").unwrap();
    fs::write(fixture.at("kept/old.tmp"), "changed").unwrap();
    fs::write(fixture.at("kept/.DS_Store"), "x").unwrap();
    fixture.assert_hinted(&[]);
    fs::rename(fixture.at("kept/cache"), fixture.at("kept/treasure")).unwrap();
    assert!(covered(&fixture.hints(), "kept/treasure/f"));
    fs::rename(fixture.at("kept/treasure"), fixture.at("cache/treasure")).unwrap();
    fixture.assert_hinted(&["kept/treasure"]);
    fs::rename(fixture.at("kept/f.tmp"), fixture.at("kept/f")).unwrap();
    fixture.assert_hinted(&["kept/f"]);
    fs::rename(fixture.at("kept/f"), fixture.at("kept/f.tmp")).unwrap();
    fixture.assert_hinted(&["kept/f"]);
    fixture.backend.wait(Duration::from_millis(100), &mut fixture.hints).unwrap();
    fs::write(fixture.at("cache/treasure/f"), "y").unwrap();
    fs::write(fixture.at("kept/f.tmp"), "y").unwrap();
    fixture.assert_hinted(&[]);
    fixture.assert_watches(&["", "kept"]);
}

pub(super) fn a_changed_ignore_file_adjusts_the_watches_below_its_directory(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("d/a/deep")).unwrap();
        fs::create_dir_all(root.join("d/b")).unwrap();
        fs::write(root.join("d/.backupbotignore"), "a\n").unwrap();
    });
    fixture.assert_watches(&["", "d", "d/b"]);
    fs::write(fixture.at("d/.backupbotignore"), "b\n").unwrap();
    assert!(fixture.hints().contains(&Hint::Deep(path("d"))));
    fixture.assert_watches(&["", "d", "d/a", "d/a/deep"]);
    fs::write(fixture.at("d/b/f"), "x").unwrap();
    fs::write(fixture.at("d/a/deep/f"), "x").unwrap();
    fixture.assert_hinted(&["d/a/deep/f"]);
    fs::remove_file(fixture.at("d/.backupbotignore")).unwrap();
    assert!(fixture.hints().contains(&Hint::Deep(path("d"))));
    fixture.assert_watches(&["", "d", "d/a", "d/a/deep", "d/b"]);
    fs::write(fixture.at("d/a/.backupbotignore"), "deep\n.backupbotignore\n").unwrap();
    assert!(fixture.hints().contains(&Hint::Deep(path("d/a"))));
    fixture.assert_watches(&["", "d", "d/a", "d/b"]);
    // It leaves itself out, and is obeyed all the same.
    fs::write(fixture.at("d/a/.backupbotignore"), ".backupbotignore\n").unwrap();
    assert!(fixture.hints().contains(&Hint::Deep(path("d/a"))));
    fixture.assert_watches(&["", "d", "d/a", "d/a/deep", "d/b"]);
}

pub(super) fn an_ignore_file_replaced_by_a_rename_counts_at_once(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir(root.join("a")).unwrap();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join(".backupbotignore"), "a\n").unwrap();
    });
    for (rules, kept) in [("b\n", "a"), ("a\n", "b"), ("b\n", "a")] {
        fs::write(fixture.outside(), rules).unwrap();
        fs::rename(fixture.outside(), fixture.at(".backupbotignore")).unwrap();
        assert!(fixture.hints().contains(&Hint::Deep(path(""))));
        fixture.assert_watches(&["", kept]);
    }
}

pub(super) fn a_moved_directory_takes_the_rules_of_its_new_place(suite: &Suite) {
    let mut fixture = suite.start(|root| {
        fs::create_dir_all(root.join("free/x")).unwrap();
        fs::create_dir_all(root.join("strict")).unwrap();
        fs::write(root.join("strict/.backupbotignore"), "x/\n").unwrap();
    });
    fs::create_dir(fixture.at("free/sub")).unwrap();
    fs::rename(fixture.at("free/x"), fixture.at("free/sub/x")).unwrap();
    fixture.assert_watches(&["", "free", "free/sub", "free/sub/x", "strict"]);
    fs::rename(fixture.at("free/sub"), fixture.at("strict/sub")).unwrap();
    fixture.assert_watches(&["", "free", "strict", "strict/sub"]);
    fs::rename(fixture.at("strict/sub"), fixture.at("sub")).unwrap();
    assert!(covered(&fixture.hints(), "sub/x"));
    fixture.assert_watches(&["", "free", "strict", "sub", "sub/x"]);
}

/// Set in the run that may mount, in a namespace of its own.
const IN_NAMESPACE: &str = "BACKUPBOT_TEST_MAY_MOUNT";

pub(super) fn a_mount_below_the_root_is_left_out_where_that_is_asked_for(suite: &Suite) {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        let (_, test) = suite.test.split_once("::").unwrap();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(IN_NAMESPACE, "1")
            .output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                panic!("{}{}", text(&output.stdout), text(&output.stderr));
            }
            _ => eprintln!("not tested: no namespace can be made here"),
        }
        return;
    }
    for is_left_out in [true, false] {
        let mut fixture = suite.start_with(&[], is_left_out, |root| {
            fs::create_dir_all(root.join("mount")).unwrap();
            fs::create_dir_all(root.join("plain")).unwrap();
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "none"]).arg(root.join("mount")).status();
            assert!(mounted.unwrap().success());
            fs::create_dir(root.join("mount/d")).unwrap();
            fs::write(root.join("mount/d/old"), "x").unwrap();
        });
        fs::write(fixture.at("mount/d/f"), "x").unwrap();
        fs::write(fixture.at("mount/d/old"), "changed").unwrap();
        fs::write(fixture.at("plain/f"), "x").unwrap();
        let expected: &[&str] =
            if is_left_out { &["plain/f"] } else { &["plain/f", "mount/d/f", "mount/d/old"] };
        fixture.assert_hinted(expected);
        assert_eq!(fixture.backend.stats().watches, if is_left_out { 2 } else { 4 });
        fs::write(fixture.at("next"), "x").unwrap();
        fixture.assert_hinted(&["next"]);
        let root = fixture.at("mount");
        drop(fixture.backend);
        assert!(Command::new("umount").arg(root).status().unwrap().success());
    }
}
