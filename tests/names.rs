//! Names, kinds and attributes: everything a directory can hold comes back, or is in the metadata.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use crate::support::daemon::Setup;
use crate::support::git::{git, try_git};
use crate::support::metadata::{record, records};
use crate::support::skip;
use crate::support::tree::{fingerprint, write};

#[test]
fn odd_names_come_back_as_they_were() {
    let setup = Setup::new();
    let root = setup.root();
    let longest = "n".repeat(255);
    let longest_bytes = [b"\xc3\xa9".repeat(127), b"x".to_vec()].concat();
    let names: Vec<&[u8]> = vec![
        b"new\nline",
        b"escape\x1b[31m",
        b"not-utf8-\xff\xfe",
        b"tab\there",
        b"-rf",
        b"--help",
        b" leading space",
        b"trailing space ",
        b"back\\slash",
        b"quo\"te's",
        b"col:on",
        b"100%",
        b"100%25",
        b"star*?[x]",
        b"\xe2\x80\xaertl",
        b"con",
        b"HEAD",
        b"_bb_notes",
        b"_bb__bb_notes",
        b"_bb_.git",
        b"_bb_meta",
        b".gitignore",
        b".gitattributes",
        b".gitmodules",
        b".lfsconfig",
        b".GitModules ",
        b".gitattributes.",
        b"git~1",
        b"gitmod~1",
        b"100%\\.git",
        b".backupbot",
        longest.as_bytes(),
        &longest_bytes,
    ];
    for name in &names {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
        let directory = [b"in/".as_slice(), name].concat();
        write(&root, OsStr::from_bytes(&[&directory, b"/file".as_slice()].concat()), "inside");
    }
    write(&root, ".gitattributes", format!("* filter=evil {}\n", "x".repeat(3000)));
    write(&root, ".gitmodules", "[submodule \"--upload-pack=evil\"]\n\tpath = x\n\turl = -evil\n");
    symlink("/etc/passwd", root.join("in/.gitmodules-link")).unwrap();
    symlink("somewhere", root.join("in/con-link")).unwrap();
    symlink("linked attributes", root.join("in/.gitattributes-of-a-link")).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    setup.assert_clone_equals_root();

    // Each of them can change and go, too.
    for name in &names {
        fs::write(root.join(OsStr::from_bytes(name)), "changed").unwrap();
    }
    fs::remove_file(root.join(OsStr::from_bytes(b"not-utf8-\xff\xfe"))).unwrap();
    fs::remove_dir_all(root.join("in/_bb_meta")).unwrap();
    fs::rename(root.join("in/.gitmodules"), root.join("in/plain")).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_strict_host_takes_every_name() {
    let mut setup = Setup::new();
    let strict = setup.path("remote/strict.git");
    fs::create_dir_all(&strict).unwrap();
    git(&strict, &["init", "--quiet", "--bare", "--initial-branch=main"]);
    setup.repository()["remotes"][0]["url"] = serde_json::json!(strict.to_str().unwrap());
    let root = setup.root();
    write(&root, ".gitmodules", "[submodule \"a\"]\n\tpath = ../../x\n\turl = -evil\n");
    write(&root, ".gitattributes", "x ".repeat(3000));
    symlink("target", root.join("sub.gitmodules")).unwrap();
    for name in [".git", "git~1", ".git ", ".git.", "sub/.GIT", "sub/.git::$INDEX_ALLOCATION"] {
        write(&root, format!("d/{name}/config"), "[core]\n\tfsmonitor = evil\n");
    }
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let other = setup.path("receives.git");
    fs::create_dir(&other).unwrap();
    git(&other, &["init", "--quiet", "--bare"]);
    git(&other, &["config", "receive.fsckObjects", "true"]);
    git(&other, &["config", "transfer.unpackLimit", "1"]);
    let pushed = try_git(&strict, &["push", "--quiet", other.to_str().unwrap(), "main"]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
}

#[test]
fn a_nested_git_repository_is_protected_whole() {
    let setup = Setup::new();
    let nested = setup.root().join("project");
    fs::create_dir(&nested).unwrap();
    git(&nested, &["init", "--quiet"]);
    write(&nested, "source.c", "int main;");
    write(&nested, "lib/sub.c", "int sub;");
    git(&nested, &["add", "."]);
    git(&nested, &["commit", "--quiet", "-m", "first"]);
    let daemon = setup.start();
    daemon.api().flush();
    setup.assert_clone_equals_root();

    write(&nested, "source.c", "int main();");
    git(&nested, &["commit", "--quiet", "-a", "-m", "second"]);
    git(&nested, &["gc", "--quiet"]);
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();

    let clone = setup.path("clone");
    setup.remote().clone_to(&clone, "main");
    fs::rename(clone.join("folder1/project/_bb_.git"), clone.join("folder1/project/.git")).unwrap();
    let restored = clone.join("folder1/project");
    for directory in ["refs/heads", "refs/tags", "objects/info", "objects/pack", "info", "hooks", "branches"]
    {
        // Git does not keep empty directories; a repository needs some of them.
        fs::create_dir_all(restored.join(".git").join(directory)).unwrap();
    }
    git(&restored, &["fsck", "--strict"]);
    assert_eq!(git(&restored, &["log", "--format=%s"]), "second\nfirst\n");
    assert_eq!(git(&restored, &["status", "--porcelain"]), "");
}

#[test]
fn special_files_are_never_opened_and_stand_in_the_metadata() {
    let setup = Setup::new();
    let root = setup.root();
    write(&root, "file", "x");
    let fifo = root.join("pipe");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let has_device =
        mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), 0x0103)
            .is_ok();

    // Opening a pipe for writing without waiting succeeds only while somebody has it open for reading.
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watch = {
        let (stop, opened, fifo) = (stop.clone(), opened.clone(), fifo);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let attempt = fs::OpenOptions::new()
                    .write(true)
                    .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                    .open(&fifo);
                opened.fetch_add(u64::from(attempt.is_ok()), Ordering::Relaxed);
                std::thread::yield_now();
            }
        })
    };
    let daemon = setup.start();
    daemon.api().flush();
    mknodat(CWD, root.join("pipe2"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    daemon.api().flush();
    stop.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 0, "the pipe was opened");
    daemon.stop();
    setup.assert_all_is_well();

    let clone = setup.path("clone");
    setup.remote().clone_to(&clone, "main");
    let found = records(&clone, "folder1", "");
    assert_eq!(record(&found, "pipe")["kind"], "fifo");
    assert_eq!(record(&found, "pipe")["mode"], "0640");
    assert_eq!(record(&found, "pipe2")["kind"], "fifo");
    assert_eq!(record(&found, "socket")["kind"], "socket");
    if has_device {
        assert_eq!(record(&found, "null")["kind"], "char");
        assert_eq!(record(&found, "null")["device"], serde_json::json!([1, 3]));
    } else {
        skip("device nodes in the metadata (making one needs root)");
    }
}

#[test]
fn what_git_does_not_keep_stands_in_the_metadata() {
    let setup = Setup::new();
    let root = setup.root();
    fs::create_dir_all(root.join("empty/inner")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o2750)).unwrap();
    write(&root, "file", "abc");
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("file"), root.join("other-name")).unwrap();
    symlink("file", root.join("link")).unwrap();
    let has_attributes = setxattr(root.join("file"), "user.note", b"hello", XattrFlags::empty()).is_ok();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let times = fs::FileTimes::new().set_modified(time);
    fs::File::options().write(true).open(root.join("file")).unwrap().set_times(times).unwrap();
    let daemon = setup.start();
    daemon.api().flush();

    let clone = setup.path("clone");
    setup.remote().clone_to(&clone, "main");
    let top = records(&clone, "folder1", "");
    let file = record(&top, "file");
    assert_eq!(file["kind"], "file");
    assert_eq!(file["mode"], "4751");
    assert_eq!(file["mtime"], "1000000000.123456789");
    assert_eq!(file["size"], 3);
    assert_eq!(file["blake3"], blake3::hash(b"abc").to_hex().to_string());
    assert!(file["hard_link"].is_string(), "{file}");
    assert_eq!(file["hard_link"], record(&top, "other-name")["hard_link"]);
    assert_eq!(record(&top, "link")["kind"], "symlink");
    if has_attributes {
        assert_eq!(file["xattrs"]["user.note"], "aGVsbG8=");
    } else {
        skip("extended attributes (the file system of the temporary directory has none)");
    }
    assert_eq!(record(&records(&clone, "folder1", "empty"), ".")["mode"], "2750");
    assert_eq!(record(&records(&clone, "folder1", "empty/inner"), ".")["kind"], "dir");

    // A change of nothing but a mode is a change.
    fs::remove_file(root.join("other-name")).unwrap();
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir(root.join("empty/inner")).unwrap();
    daemon.api().flush();
    daemon.stop();
    let again = setup.path("again");
    setup.remote().clone_to(&again, "main");
    assert_eq!(record(&records(&again, "folder1", ""), "file")["mode"], "0600");
    assert!(!again.join(".backupbot/meta/folder1/empty/inner").exists());
    setup.assert_all_is_well();
}

#[test]
fn a_change_through_one_name_of_a_file_reaches_its_other_names() {
    let setup = Setup::new();
    let root = setup.root();
    write(&root, "a/first-name", "1");
    fs::create_dir(root.join("b")).unwrap();
    fs::hard_link(root.join("a/first-name"), root.join("b/second-name")).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    // The kernel tells of the name that was used, and of no other.
    fs::write(root.join("a/first-name"), "2").unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn nothing_is_ever_written_into_a_watched_directory() {
    let setup = Setup::new();
    let mut random = crate::support::Random::new(3);
    crate::support::tree::corpus(&setup.root(), 100, &mut random);
    symlink("loop", setup.root().join("loop")).unwrap();
    let before = fingerprint(&setup.root());
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    let output = setup.run(&["once"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fingerprint(&setup.root()), before);
}
