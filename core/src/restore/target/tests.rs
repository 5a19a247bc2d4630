//! Writing beneath a directory that somebody else writes to as well.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::restore::tests::record;

fn target(scratch: &tempfile::TempDir) -> Arc<Target> {
    Target::open(scratch.path()).unwrap()
}

fn file<'p>(place: &'p Place, content: &[u8]) -> Temporary<'p> {
    let mut made = place.new_file().unwrap();
    fs::File::from(made.file.take().unwrap()).write_all(content).unwrap();
    made
}

fn names(scratch: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_takes_its_name_only_where_nothing_stands() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    assert_eq!(file(&top, b"one").take(b"f").unwrap(), Placed::Done);
    assert_eq!(file(&top, b"two").take(b"f").unwrap(), Placed::Occupied);
    assert_eq!(fs::read(scratch.path().join("f")).unwrap(), b"one");
    assert_eq!(names(&scratch), ["f"], "the second left nothing");
}

#[test]
fn what_is_not_put_in_place_leaves_nothing_and_its_name_says_what_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    let made = file(&top, b"x");
    assert!(is_temporary(made.name()));
    for name in [
        &b".backupbot-restoring-"[..],
        b".backupbot-restoring-0123456789abcdef-",
        b"x",
        b".backupbot-restoring-0123456789ABCDEF-1",
        b".backupbot-restoring-0123456789abcdef-1x",
    ] {
        assert!(!is_temporary(name), "{name:?}");
    }
    drop(made);
    assert_eq!(names(&scratch), Vec::<String>::new());
    fs::write(scratch.path().join(".backupbot-restoring-0123456789abcdef-12"), "left").unwrap();
    fs::write(scratch.path().join("mine"), "x").unwrap();
    top.sweep(b".backupbot-restoring-0123456789abcdef-12").unwrap();
    top.sweep(b"mine").unwrap();
    assert_eq!(names(&scratch), ["mine"]);
}

#[test]
fn a_file_that_was_changed_since_it_was_looked_at_is_not_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    fs::write(scratch.path().join("f"), "before").unwrap();
    let seen = top.look_at(b"f").unwrap().unwrap();
    fs::write(scratch.path().join("f"), "written by somebody meanwhile").unwrap();
    assert_eq!(file(&top, b"new").replace(b"f", &seen, false).unwrap(), Placed::Occupied);
    assert_eq!(fs::read(scratch.path().join("f")).unwrap(), b"written by somebody meanwhile");
    assert_eq!(top.remove(b"f", &seen).unwrap(), Placed::Occupied);
    assert_eq!(file(&top, b"new").replace_in_two_steps(b"f", &seen, false).unwrap(), Placed::Occupied);
    assert_eq!(names(&scratch), ["f"]);
    let seen = top.look_at(b"f").unwrap().unwrap();
    assert_eq!(file(&top, b"new").replace(b"f", &seen, false).unwrap(), Placed::Done);
    assert_eq!(fs::read(scratch.path().join("f")).unwrap(), b"new");
    let seen = top.look_at(b"f").unwrap().unwrap();
    assert_eq!(top.remove(b"f", &seen).unwrap(), Placed::Done);
    assert_eq!(names(&scratch), Vec::<String>::new());
}

#[test]
fn a_directory_that_came_in_the_place_of_a_file_is_given_back() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    fs::write(scratch.path().join("f"), "before").unwrap();
    let seen = top.look_at(b"f").unwrap().unwrap();
    fs::remove_file(scratch.path().join("f")).unwrap();
    fs::create_dir(scratch.path().join("f")).unwrap();
    fs::write(scratch.path().join("f/precious"), "x").unwrap();
    assert_eq!(file(&top, b"new").replace(b"f", &seen, true).unwrap(), Placed::Occupied);
    assert_eq!(fs::read(scratch.path().join("f/precious")).unwrap(), b"x");
    assert_eq!(names(&scratch), ["f"]);
}

#[test]
fn nothing_is_written_through_links_that_stand_there() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("canary"), "alive").unwrap();
    symlink(outside.path(), scratch.path().join("dir")).unwrap();
    symlink(outside.path().join("canary"), scratch.path().join("file")).unwrap();
    fs::hard_link(outside.path().join("canary"), scratch.path().join("hard")).unwrap();
    let top = target(&scratch).top();
    assert!(top.enter(b"dir").is_err(), "no link is entered");
    assert!(top.make_directory(b"dir").is_err());
    for name in [&b"file"[..], b"hard"] {
        let seen = top.look_at(name).unwrap().unwrap();
        assert_eq!(file(&top, b"new").replace(name, &seen, false).unwrap(), Placed::Done);
    }
    assert_eq!(fs::read(outside.path().join("canary")).unwrap(), b"alive");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(scratch.path().join("hard")).unwrap(), b"new");
    for name in [&b".."[..], b".", b"", b"a/b", b"/etc"] {
        assert!(top.enter(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_directory_that_is_moved_away_takes_what_is_written_into_it_along() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    let inner = top.make_directory(b"d").unwrap();
    fs::rename(scratch.path().join("d"), scratch.path().join("moved")).unwrap();
    symlink(outside.path(), scratch.path().join("d")).unwrap();
    assert_eq!(file(&inner, b"x").take(b"f").unwrap(), Placed::Done);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // A place that is opened at each use meets the link, and stops there.
    let unheld = top.target().place(RelPath::new("d").unwrap());
    assert!(unheld.new_file().is_err());
}

#[test]
fn a_file_is_dressed_as_recorded_and_set_id_needs_the_owner() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    let owners = Owners::new();
    let mut wanted = record(b"f", EntryKind::File);
    wanted.xattrs.insert(b"user.note".to_vec(), b"hello".to_vec());
    wanted.xattrs.insert(b"trusted.secret".to_vec(), b"x".to_vec());
    let mut made = top.new_file().unwrap();
    let opened = made.file.take().unwrap();
    let clothes = Clothes { record: Some(&wanted), mode: 0o4755, set_id: true, as_root: false };
    let dressed = clothes.put_on(opened.as_fd(), &owners);
    assert_eq!(dressed.failed, None);
    assert!(dressed.set_id_set && !dressed.owner_refused);
    assert!(
        dressed.attributes_refused.contains(&b"trusted.secret".to_vec()),
        "not asked for without the right"
    );
    made.take(b"f").unwrap();
    let found = fs::metadata(scratch.path().join("f")).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o4755);
    assert_eq!((found.mtime(), found.mtime_nsec()), (1_600_000_000, 123_456_789));

    let mut plain = top.new_file().unwrap();
    let opened = plain.file.take().unwrap();
    let without = Clothes { set_id: false, ..clothes };
    assert!(without.put_on(opened.as_fd(), &owners).set_id_dropped);
    let nobody = Clothes { record: None, ..clothes };
    assert!(nobody.put_on(opened.as_fd(), &owners).set_id_dropped, "who is not recorded gets no power");
}

#[test]
fn links_and_pipes_get_their_own_time_and_not_that_of_what_they_lead_to() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    fs::write(scratch.path().join("t"), "x").unwrap();
    let before = fs::metadata(scratch.path().join("t")).unwrap();
    let wanted = record(b"l", EntryKind::Symlink);
    let clothes = Clothes { record: Some(&wanted), mode: 0o640, set_id: true, as_root: false };
    let made = top.new_symlink(b"t").unwrap();
    assert_eq!(clothes.put_on_symlink(&made, &Owners::new()).failed, None);
    made.take(b"l").unwrap();
    let found = fs::symlink_metadata(scratch.path().join("l")).unwrap();
    assert_eq!(found.mtime(), 1_600_000_000);
    let after = fs::metadata(scratch.path().join("t")).unwrap();
    assert_eq!((after.mtime(), after.mode()), (before.mtime(), before.mode()));
    if cfg!(target_os = "linux") {
        let pipe = top.new_special(EntryKind::Fifo, None).unwrap();
        assert_eq!(clothes.put_on_special(&pipe, EntryKind::Fifo, &Owners::new()).failed, None);
        pipe.take(b"p").unwrap();
        let found = fs::symlink_metadata(scratch.path().join("p")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (0o640, 1_600_000_000));
    }
}

#[test]
fn a_hard_link_is_made_only_to_the_inode_that_was_meant() {
    let scratch = tempfile::tempdir().unwrap();
    let top = target(&scratch).top();
    file(&top, b"one").take(b"a").unwrap();
    let seen = top.look_at(b"a").unwrap().unwrap();
    top.new_link(&top, b"a", &seen).unwrap().take(b"b").unwrap();
    let inode = |name: &str| fs::metadata(scratch.path().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    fs::remove_file(scratch.path().join("a")).unwrap();
    fs::write(scratch.path().join("a"), "another").unwrap();
    assert!(top.new_link(&top, b"a", &seen).is_err());
    assert_eq!(names(&scratch), ["a", "b"]);
}
