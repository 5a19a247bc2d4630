//! File systems that are mounted below a root, and not any more.

use super::*;

/// A file system mounted for the time of a test.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, announced, where that cannot be had.
    fn tmpfs(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at).output();
        if is_root() && mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        skip("mounts need root");
        None
    }

    fn unmount(&self) -> bool {
        Command::new("umount").arg(&self.0).output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[test]
fn an_unmounted_directory_inside_a_root_is_no_deletion() {
    let setup = Setup::new();
    let at = setup.root().join("disk");
    let Some(mounted) = Mounted::tmpfs(&at) else { return };
    write(&setup.root(), "disk/on it", "precious");
    write(&setup.root(), "disk/sub/on it", "precious too");
    write(&setup.root(), "beside", "1");
    let daemon = setup.start();
    daemon.api().flush();
    setup.assert_clone_equals_root();
    let whole = setup.remote().tip("main").unwrap();

    assert!(mounted.unmount(), "nobody holds the mount");
    write(&setup.root(), "beside", "2");
    daemon.api().flush();
    let listed = skipped(&daemon);
    assert!(
        listed
            .iter()
            .any(|skip| skip["path"] == "disk" && skip["reason"].as_str().unwrap().contains("mount")),
        "{listed:#?}"
    );
    daemon.stop();
    // A start compares everything, and must not take it for deleted either.
    let daemon = setup.start();
    daemon.api().flush();
    let remote = setup.remote();
    assert_eq!(remote.blob("main", "folder1/beside").unwrap(), b"2");
    let assert_kept = || {
        for path in ["folder1/disk/on it", "folder1/disk/sub/on it"] {
            assert!(remote.blob("main", path).is_some(), "{path} was taken for deleted");
        }
    };
    assert_kept();
    // Desktops remove a mount's directory with the mount.
    fs::remove_dir(&at).unwrap();
    daemon.api().flush();
    assert_kept();
    daemon.api().post("/api/v1/flush", &json!({"wait": true, "rescan": true, "timeout": "30s"}));
    assert_kept();
    assert!(skipped(&daemon).iter().any(|skip| skip["path"] == "disk"));

    let Some(_mounted) = Mounted::tmpfs(&at) else { return };
    write(&setup.root(), "disk/on it", "precious");
    write(&setup.root(), "disk/sub/on it", "changed");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    assert!(remote.is_ancestor(&whole, "main"));
}

/// Whether status lists this path as unmounted.
fn is_listed_as_unmounted(daemon: &Daemon, path: &str) -> bool {
    skipped(daemon)
        .iter()
        .any(|skip| skip["path"] == path && skip["reason"].as_str().unwrap().contains("mount it again"))
}

#[test]
fn a_directory_that_goes_with_the_mount_below_it_takes_only_its_own_files_along() {
    let setup = Setup::new();
    let at = setup.root().join("a/b");
    let Some(mounted) = Mounted::tmpfs(&at) else { return };
    let fill = || {
        write(&setup.root(), "a/b/on it", "precious");
        write(&setup.root(), "a/b/sub/on it", "precious too");
        write(&setup.root(), "a/beside", "1");
    };
    fill();
    write(&setup.root(), "beside", "1");
    let daemon = setup.start();
    daemon.api().flush();
    setup.assert_clone_equals_root();
    let remote = setup.remote();
    let assert_kept = |what: &str| {
        for path in ["folder1/a/b/on it", "folder1/a/b/sub/on it"] {
            assert!(remote.blob("main", path).is_some(), "{what}: {path} was taken for deleted");
        }
        assert!(remote.blob("main", "folder1/a/beside").is_none(), "{what}: it is gone, and no mount's");
    };

    assert!(mounted.unmount(), "nobody holds the mount");
    fs::remove_dir_all(setup.root().join("a")).unwrap();
    daemon.api().flush();
    assert_kept("told by an event");
    assert!(is_listed_as_unmounted(&daemon, "a/b"));
    daemon.api().post("/api/v1/flush", &json!({"wait": true, "rescan": true, "timeout": "30s"}));
    assert_kept("compared");
    daemon.stop();
    let daemon = setup.start();
    daemon.api().flush();
    assert_kept("compared at a start");
    assert!(is_listed_as_unmounted(&daemon, "a/b"));

    let Some(_mounted) = Mounted::tmpfs(&at) else { return };
    fill();
    daemon.api().flush();
    setup.assert_clone_equals_root();
    // Renamed with the mount in it: it is stored at its new place, and stays at the old one.
    fs::rename(setup.root().join("a"), setup.root().join("c")).unwrap();
    let _moved = Mounted(setup.root().join("c/b"));
    daemon.api().flush();
    assert_kept("renamed");
    assert_eq!(remote.blob("main", "folder1/c/b/on it").unwrap(), b"precious");
    assert_eq!(remote.blob("main", "folder1/c/beside").unwrap(), b"1");
    // One file says that it is meant.
    write(&setup.root(), "a/b/new", "x");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn that_something_was_mounted_is_known_without_the_database() {
    let setup = Setup::new();
    let at = setup.root().join("a/b");
    let Some(mounted) = Mounted::tmpfs(&at) else { return };
    write(&setup.root(), "a/b/on it", "precious");
    write(&setup.root(), "beside", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    assert!(mounted.unmount(), "nobody holds the mount");
    fs::remove_file(setup.state().join("state.redb")).unwrap();
    let daemon = setup.start();
    write(&setup.root(), "beside", "2");
    daemon.api().flush();
    assert_eq!(setup.remote().blob("main", "folder1/beside").unwrap(), b"2");
    assert!(setup.remote().blob("main", "folder1/a/b/on it").is_some(), "it was taken for deleted");
    assert!(is_listed_as_unmounted(&daemon, "a/b"));
    daemon.stop();
}

#[test]
fn one_file_system_leaves_mounts_out_and_counts_them() {
    let mut setup = Setup::new();
    setup.repository()["roots"][0]["one_file_system"] = json!(true);
    let Some(_mounted) = Mounted::tmpfs(&setup.root().join("in/disk")) else { return };
    write(&setup.root(), "in/disk/on it", "elsewhere");
    write(&setup.root(), "in/here", "here");
    let daemon = setup.start();
    daemon.api().flush();
    write(&setup.root(), "in/disk/later", "elsewhere");
    write(&setup.root(), "in/later", "here");
    daemon.api().flush();
    let status = daemon.api().status();
    assert_eq!(root_row(&status)["excluded_by_file_system"], 1, "{status:#}");
    daemon.stop();
    crate::support::git::assert_clone_equals(
        &setup.remote().path,
        "main",
        &[("folder1", &setup.root())],
        |path| path.starts_with(b"in/disk/"),
    );
}
