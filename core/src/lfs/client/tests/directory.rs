//! A remote that is a directory.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

struct Disk {
    scratch: tempfile::TempDir,
    remote: Remote,
    store: Objects,
    progress: Progress,
}

impl Disk {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        git2::Repository::init_bare(scratch.path().join("usb/remote.git")).unwrap();
        let remote = remote_at(scratch.path().join("usb/remote.git").to_str().unwrap());
        let store = Objects::of(&scratch.path().join("repositories/ours.git"));
        Self { scratch, remote, store, progress: Progress::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn client(&self) -> Result<Client> {
        Client::connect(&self.remote, &self.path("repositories/ours.git"), &self.progress)
    }

    fn upload(&self, objects: &[Pointer]) -> Result<Uploaded> {
        self.client()?.upload(objects, &self.store, &self.progress)
    }
}

fn files_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn objects_lie_where_git_lfs_looks_for_them_and_come_back() {
    let disk = Disk::new();
    let pointers: Vec<Pointer> = (0..4).map(|n| stored(&disk.store, &content(n, 400_000))).collect();
    assert_eq!(disk.client().unwrap().missing(&pointers, &disk.progress).unwrap().missing, pointers);
    let sent = disk.upload(&pointers).unwrap();
    assert_eq!((sent.sent, sent.bytes, sent.refused.len()), (4, 1_600_000, 0));
    assert_eq!(disk.upload(&pointers).unwrap().already, 4);
    let there = Objects::of(&disk.path("usb/remote.git"));
    assert!(pointers.iter().all(|pointer| there.is_sound(pointer, &disk.progress).unwrap() == Some(true)));
    assert_eq!(files_below(&disk.path("usb/remote.git/lfs/tmp")), 0);

    for pointer in &pointers {
        disk.store.remove(&pointer.id).unwrap();
    }
    there.remove(&pointers[1].id).unwrap();
    let damaged = there.path_of(&pointers[2].id);
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, content(9, 400_000)).unwrap();
    let got = disk.client().unwrap().download(&pointers, &disk.store, &disk.progress).unwrap();
    assert_eq!(got.received, 2);
    let mut failed: Vec<_> = got.failed.iter().map(|(pointer, why)| (*pointer, why.reason)).collect();
    failed.sort_by_key(|(pointer, _)| *pointer);
    let mut expected = [(pointers[1], Reason::Missing), (pointers[2], Reason::Damaged)];
    expected.sort_by_key(|(pointer, _)| *pointer);
    assert_eq!(failed, expected);
    assert_eq!(fs::read(disk.store.path_of(&pointers[0].id)).unwrap(), content(0, 400_000));
    assert_eq!(disk.store.list().unwrap().len(), 2);
}

#[test]
fn what_is_damaged_here_never_gets_there() {
    let disk = Disk::new();
    let pointer = stored(&disk.store, b"whole");
    let path = disk.store.path_of(&pointer.id);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "wrong").unwrap();
    let absent = Pointer { id: crate::lfs::ObjectId([7; 32]), size: 5 };
    let sent = disk.upload(&[pointer, absent]).unwrap();
    let mut found = reasons(&sent.refused);
    found.sort_by_key(|reason| reason.as_str());
    assert_eq!(found, [Reason::Damaged, Reason::Missing]);
    assert_eq!(files_below(&disk.path("usb/remote.git/lfs")), 0);
}

#[test]
fn a_disk_that_is_not_mounted_is_no_loss_of_objects() {
    let disk = Disk::new();
    let pointer = stored(&disk.store, b"x");
    disk.upload(&[pointer]).unwrap();
    let client = disk.client().unwrap();
    fs::rename(disk.path("usb"), disk.path("unplugged")).unwrap();
    fs::create_dir(disk.path("usb")).unwrap();
    for outcome in [
        client.missing(&[pointer], &disk.progress).map(drop),
        disk.client().map(drop),
        client.upload(&[pointer], &disk.store, &disk.progress).map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), Kind::RemoteUnreachable);
    }
    disk.store.remove(&pointer.id).unwrap();
    let error = client.download(&[pointer], &disk.store, &disk.progress).unwrap_err();
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    assert_eq!(files_below(&disk.path("usb")), 0);
}

#[test]
fn links_and_pipes_that_somebody_put_there_are_not_followed() {
    let disk = Disk::new();
    let pointer = stored(&disk.store, b"x");
    fs::create_dir(disk.path("victim")).unwrap();
    symlink(disk.path("victim"), disk.path("usb/remote.git/lfs")).unwrap();
    let error = disk.upload(&[pointer]).unwrap_err();
    assert_eq!(error.kind(), Kind::RemoteRefused, "{error}");
    assert_eq!(files_below(&disk.path("victim")), 0);
    fs::remove_file(disk.path("usb/remote.git/lfs")).unwrap();

    let there = Objects::of(&disk.path("usb/remote.git")).path_of(&pointer.id);
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    disk.store.remove(&pointer.id).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&there).status().unwrap();
    assert!(made.success());
    let got = disk.client().unwrap().download(&[pointer], &disk.store, &disk.progress).unwrap();
    assert_eq!(reasons(&got.failed), [Reason::Missing]);
}

#[test]
fn what_a_killed_upload_of_ours_left_goes_and_what_others_have_there_stays() {
    let disk = Disk::new();
    let pointer = stored(&disk.store, b"x");
    disk.upload(&[pointer]).unwrap();
    let owner = crate::git::workshop::owner_of(&disk.path("repositories/ours.git"));
    let place = |name: &str| disk.path("usb/remote.git/lfs/tmp").join(name);
    let (left, held) = (place(&format!("bb_{owner}_1")), place(&format!("bb_{owner}_2")));
    for path in [&left, &held, &place("bb_another_3")] {
        fs::write(path, "half").unwrap();
    }
    let writer = fs::File::open(&held).unwrap();
    rustix::fs::flock(&writer, rustix::fs::FlockOperation::LockExclusive).unwrap();
    disk.upload(&[pointer]).unwrap();
    assert!(!left.exists() && held.exists() && place("bb_another_3").exists());
}

#[test]
fn what_comes_back_goes_into_the_store_that_is_named_and_is_as_open_there_as_its_directory() {
    use std::os::unix::fs::PermissionsExt;
    let disk = Disk::new();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(disk.path("usb/remote.git"), fs::Permissions::from_mode(0o755)).unwrap();
    let pointer = stored(&disk.store, b"x");
    disk.upload(&[pointer]).unwrap();
    let there = Objects::of(&disk.path("usb/remote.git")).path_of(&pointer.id);
    assert_eq!((mode(there.clone()), mode(there.parent().unwrap().to_owned())), (0o444, 0o755));
    let elsewhere = Objects::of(&disk.path("elsewhere"));
    let got = disk.client().unwrap().download(&[pointer], &elsewhere, &disk.progress).unwrap();
    assert_eq!(got.received, 1);
    assert!(elsewhere.has(&pointer).unwrap());
}
