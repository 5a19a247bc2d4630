use std::fs;

use super::*;
use crate::keeping::keeper::Order;
use crate::keeping::tests::{Place, pointer_of, spoil};

fn order(read: Sample) -> Order {
    Order { read: Some(read), number: None }
}

fn at(place: &Place, number: usize, read: Sample) -> Scrubbed {
    let remote = &place.settings.remotes[number];
    place.keeper().scrub(Some(remote), order(read), &Progress::new()).unwrap()
}

fn place_with_contents(remotes: &[&str]) -> Place {
    let mut place = Place::new(remotes);
    place.back_up(&[("a", "first content")]);
    place.remove("a");
    place.back_up(&[("b", "second content"), ("c", "third content")]);
    (0..remotes.len()).for_each(|number| place.push(number));
    place
}

#[test]
fn a_remote_that_has_everything_is_read_in_turn_until_all_of_it_was() {
    let place = place_with_contents(&["usb"]);
    let mut read = BTreeSet::new();
    for _ in 0..3 {
        let scrubbed = at(&place, 0, Sample::Files(1));
        assert_eq!((scrubbed.asked, scrubbed.bytes, scrubbed.read), (3, 40, 1));
        assert_eq!((scrubbed.failures(), scrubbed.unsure), (0, 0), "{scrubbed:?}");
        let reader = place.bench.store.reader();
        reader
            .each_large(&place.settings.name, &place.settings.remotes[0].name, &mut |id, row| {
                if row.read_ms.is_some() {
                    read.insert(id);
                }
            })
            .unwrap();
    }
    assert_eq!(read.len(), 3);
}

#[test]
fn a_wiped_remote_gets_everything_again_also_what_only_another_remote_has() {
    let place = place_with_contents(&["usb", "nas"]);
    let lost = pointer_of("first content");
    fs::remove_dir_all(place.remote_path(0).join("lfs")).unwrap();
    place.own().remove(&lost.id).unwrap();
    let scrubbed = at(&place, 0, Sample::Whole);
    assert_eq!((scrubbed.brought, scrubbed.lost, scrubbed.damaged), (3, 0, 0), "{scrubbed:?}");
    assert!(!scrubbed.is_bad());
    assert_eq!(place.objects_at(0).list().unwrap().len(), 3);
    assert!(place.is_known(0, &lost));
    assert_eq!(at(&place, 0, Sample::Whole).read, 3);
}

#[test]
fn what_nobody_has_any_more_is_lost_and_named_until_it_is_back() {
    let place = place_with_contents(&["usb"]);
    let lost = pointer_of("first content");
    place.objects_at(0).remove(&lost.id).unwrap();
    let content = place.own().path_of(&lost.id);
    fs::rename(&content, place.bench.scratch.path().join("kept")).unwrap();
    let scrubbed = at(&place, 0, Sample::Whole);
    assert_eq!((scrubbed.lost, scrubbed.brought, scrubbed.read), (1, 0, 2));
    assert!(scrubbed.is_bad() && scrubbed.named[0].starts_with("folder/a (13 bytes"), "{scrubbed:?}");
    assert!(scrubbed.named[0].contains("touch"), "{scrubbed:?}");
    assert!(!place.is_known(0, &lost), "nobody counts it");
    fs::rename(place.bench.scratch.path().join("kept"), &content).unwrap();
    assert!(!at(&place, 0, Sample::Files(1)).is_bad());
}

#[test]
fn a_damaged_content_in_a_directory_is_replaced_from_here_or_from_another_remote() {
    for is_here in [true, false] {
        let place = place_with_contents(&["usb", "nas"]);
        let bad = pointer_of("second content");
        spoil(&place.objects_at(0), &bad);
        if !is_here {
            spoil(&place.own(), &bad);
        }
        let scrubbed = at(&place, 0, Sample::Whole);
        assert_eq!((scrubbed.replaced, scrubbed.damaged, scrubbed.read), (1, 0, 2), "{scrubbed:?}");
        let path = place.objects_at(0).path_of(&bad.id);
        assert_eq!(fs::read(path).unwrap(), b"second content");
        assert_eq!(fs::read(place.own().path_of(&bad.id)).unwrap(), b"second content");
    }
}

#[test]
fn what_cannot_be_replaced_is_damaged_until_it_was_read_again() {
    let place = place_with_contents(&["usb"]);
    let bad = pointer_of("second content");
    spoil(&place.objects_at(0), &bad);
    let good = place.own().path_of(&bad.id);
    fs::rename(&good, place.bench.scratch.path().join("kept")).unwrap();
    let scrubbed = at(&place, 0, Sample::Whole);
    assert_eq!((scrubbed.damaged, scrubbed.suspects.len()), (1, 1));
    for _ in 0..3 {
        let again = at(&place, 0, Sample::Files(1));
        assert_eq!((again.damaged, again.read), (1, 0), "the suspect comes first: {again:?}");
    }
    fs::rename(place.bench.scratch.path().join("kept"), &good).unwrap();
    let healed = at(&place, 0, Sample::Files(1));
    assert_eq!((healed.replaced, healed.damaged, healed.suspects.len()), (1, 0, 0), "{healed:?}");
}

#[test]
fn what_is_damaged_here_is_replaced_from_a_remote_and_what_nobody_needs_goes() {
    let place = place_with_contents(&["usb"]);
    let (bad, short) = (pointer_of("second content"), pointer_of("third content"));
    spoil(&place.own(), &bad);
    let path = place.own().path_of(&short.id);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "th").unwrap();
    let mut draft = place.own().begin().unwrap();
    draft.write(b"an orphan").unwrap();
    spoil(&place.own(), &draft.finish().unwrap());
    let here = |read| place.keeper().scrub(None, order(read), &Progress::new()).unwrap();
    let scrubbed = here(Sample::Whole);
    assert_eq!((scrubbed.asked, scrubbed.read, scrubbed.replaced), (4, 1, 2), "{scrubbed:?}");
    assert!(!scrubbed.is_bad());
    assert_eq!(fs::read(path).unwrap(), b"third content");
    assert_eq!((here(Sample::Whole).read, here(Sample::Files(2)).read), (3, 2));

    spoil(&place.own(), &bad);
    spoil(&place.objects_at(0), &bad);
    let lost = here(Sample::Whole);
    assert!(lost.is_bad() && lost.named[0].starts_with("folder/b ("), "{lost:?}");
    assert_eq!(fs::read(place.own().path_of(&bad.id)).unwrap(), b"??????????????", "it is all there is");
}

#[test]
fn no_more_is_read_than_was_allowed_but_for_one_content() {
    let place = place_with_contents(&["usb"]);
    let request = |read_at_most| Request {
        name: &place.settings.name,
        repository: &place.bench.repository,
        remotes: &place.settings.remotes,
        branch: "refs/heads/main",
        read: Sample::Share(1_000_000),
        read_at_most,
        former: None,
    };
    let read = |read_at_most| here(&request(read_at_most), &Progress::new()).unwrap().read;
    assert_eq!((read(0), read(28), read(40)), (1, 2, 3));
}

#[test]
fn a_place_is_due_at_once_and_then_after_its_time_and_no_future_holds_it_up() {
    let every = Duration::from_secs(100);
    let moment = |seconds| Moment::from_unix_seconds(seconds).unwrap();
    let former = |seconds| Scrubbed { at: moment(seconds), ..Scrubbed::begin("r", None, "1%") };
    assert_eq!(due_in(None, every, moment(0)), Duration::ZERO);
    assert_eq!(due_in(Some(&former(1000)), every, moment(1040)), Duration::from_secs(60));
    assert_eq!(due_in(Some(&former(1000)), every, moment(1100)), Duration::ZERO);
    assert_eq!(due_in(Some(&former(5000)), every, moment(1100)), Duration::ZERO);
}
