//! Files that are whole or not there, and keys that are never nowhere.

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_key_is_private_and_nothing_is_written_over_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("deep/keys/documents.key");
    let key = create(&path, Owner::this_process()).unwrap();
    assert_eq!(Key::read(&path).unwrap().id(), key.id());
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&scratch.path().join("deep")), 0o700);
    let error = create(&path, Owner::this_process()).unwrap_err();
    assert!(error.to_string().contains("keys rotate"), "{error}");
    assert_eq!(Key::read(&path).unwrap().id(), key.id());
    assert_eq!(names(path.parent().unwrap()), ["documents.key"]);

    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(create(&link, Owner::this_process()).is_err());
    assert!(create(Path::new("/"), Owner::this_process()).is_err());
}

#[test]
fn what_a_crash_left_of_a_draft_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key");
    fs::write(scratch.path().join("key.new"), "half").unwrap();
    create(&path, Owner::this_process()).unwrap();
    assert_eq!(names(scratch.path()), ["key"]);
}

#[test]
fn the_same_key_may_be_put_again_and_another_may_not() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, other) = (scratch.path().join("one"), scratch.path().join("a/other"));
    let key = create(&one, Owner::this_process()).unwrap();
    assert_eq!(put(&key, &other, Owner::this_process()).unwrap(), Put::Written);
    assert_eq!(put(&key, &other, Owner::this_process()).unwrap(), Put::Present);
    assert_eq!(Key::read(&other).unwrap().id(), key.id());
    let stranger = Key::new(KeyFile::generate(None).unwrap(), &one).unwrap();
    let error = put(&stranger, &one, Owner::this_process()).unwrap_err();
    assert!(error.to_string().contains(key.id().as_str()), "{error}");
    fs::write(&one, "no key").unwrap();
    assert!(put(&stranger, &one, Owner::this_process()).is_err());
    assert_eq!(fs::read(&one).unwrap(), b"no key");
}

#[test]
fn a_rotation_keeps_the_old_key_and_who_may_read_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key");
    let first = create(&path, Owner::this_process()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let places = [scratch.path().join("key.old"), scratch.path().join("elsewhere/old")];
    let rotated = rotate(&path, &places).unwrap();
    assert_eq!(rotated.old, *first.id());
    assert_ne!(rotated.new.id(), first.id());
    assert_eq!(Key::read(&path).unwrap().id(), rotated.new.id());
    assert_eq!((mode(&path), mode(&places[0])), (0o640, 0o750));
    for (kept, place) in rotated.kept.iter().zip(&places) {
        assert_eq!(*kept, place.join(format!("{}.key", first.id())));
        assert_eq!(Key::read(kept).unwrap().id(), first.id());
    }
    rotate(&path, &places).unwrap();
    assert_eq!(names(&places[0]).len(), 2);
    assert_eq!(names(scratch.path()), ["elsewhere", "key", "key.old"]);
}

#[test]
fn a_rotation_through_a_link_keeps_the_link() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, link) = (scratch.path().join("key"), scratch.path().join("link"));
    create(&path, Owner::this_process()).unwrap();
    std::os::unix::fs::symlink("key", &link).unwrap();
    let rotated = rotate(&link, &[scratch.path().join("old")]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Key::read(&link).unwrap().id(), rotated.new.id());
}

#[test]
fn a_rotation_that_cannot_keep_the_old_key_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key");
    let key = create(&path, Owner::this_process()).unwrap();
    fs::write(scratch.path().join("file"), "").unwrap();
    assert!(rotate(&path, &[scratch.path().join("file")]).is_err());
    assert!(rotate(&path, &[]).is_err());
    assert_eq!(Key::read(&path).unwrap().id(), key.id());
}

#[test]
fn two_do_not_change_keys_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key");
    create(&path, Owner::this_process()).unwrap();
    let _held = lock(scratch.path()).unwrap();
    for refused in [
        create(&scratch.path().join("other"), Owner::this_process()).unwrap_err(),
        rotate(&path, &[scratch.path().join("old")]).unwrap_err(),
    ] {
        assert_eq!(refused.kind(), Kind::InUse);
    }
}
