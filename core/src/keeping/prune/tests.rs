use std::fs::{File, FileTimes};

use super::*;
use crate::keeping::scrubs;
use crate::keeping::tests::{Place, pointer_of};

fn prune_now(place: &Place) -> Pruned {
    place.keeper().prune(false, &Progress::new()).unwrap()
}

fn why(pruned: &Pruned) -> Vec<(u64, String)> {
    pruned.kept.iter().map(|kept| (kept.amount.objects, kept.why.clone())).collect()
}

#[test]
fn what_every_remote_has_goes_and_a_dry_run_says_the_same() {
    let mut place = Place::new(&["usb", "nas"]);
    place.back_up(&[("a", "first content"), ("b", "second content")]);
    place.push(0);
    place.push(1);
    place.back_up(&[("c", "not pushed yet")]);
    let dry = place.keeper().prune(true, &Progress::new()).unwrap();
    assert_eq!(place.own().list().unwrap().len(), 3);
    let pruned = prune_now(&place);
    assert_eq!((pruned.removed.objects, pruned.removed.bytes), (2, 27));
    assert_eq!(Pruned { dry_run: false, ..dry }, pruned);
    assert_eq!(why(&pruned), [(1, "remote usb does not have them".to_owned())]);
    assert_eq!(place.own().list().unwrap(), [pointer_of("not pushed yet")]);
    assert_eq!(why(&prune_now(&place)), [(1, "remote usb does not have them".to_owned())], "again");
}

#[test]
fn what_a_single_remote_lacks_or_does_not_say_stays() {
    let mut place = Place::new(&["usb", "nas"]);
    let pointer = pointer_of("first content");
    place.back_up(&[("a", "first content")]);
    place.push(0);
    let lacks = prune_now(&place);
    assert_eq!(why(&lacks), [(1, "remote nas does not have them".to_owned())]);
    place.push(1);
    // It was told to be there, and is not any more: what is in the database does not count.
    place.objects_at(1).remove(&pointer.id).unwrap();
    assert!(place.is_known(1, &pointer));
    assert_eq!(prune_now(&place).removed.objects, 0);
    place.push(1);
    // A new remote has nothing yet.
    place.add_remote("new");
    assert_eq!(why(&prune_now(&place)), [(1, "remote new does not have them".to_owned())]);
    place.push(2);
    // A disk that is not mounted.
    let away = place.bench.scratch.path().join("away");
    fs::rename(place.remote_path(0), &away).unwrap();
    let down = prune_now(&place);
    assert_eq!(down.removed.objects, 0);
    assert!(down.kept[0].why.starts_with("remote usb cannot be asked: "), "{down:?}");
    fs::rename(&away, place.remote_path(0)).unwrap();
    assert_eq!(prune_now(&place).removed.objects, 1);
    // Its absence is understood.
    assert!((0..3).all(|number| place.is_known(number, &pointer)));
}

#[test]
fn what_is_young_or_from_a_time_to_come_stays_and_without_a_remote_everything_does() {
    let mut place = Place::new(&[]);
    place.back_up(&[("a", "first content")]);
    assert!(prune_now(&place).kept[0].why.starts_with("no remote is configured"));
    place.add_remote("usb");
    place.push(0);
    place.lfs().keep_local = Duration::from_secs(3600);
    let young = "not here for as long as lfs.keep_local says".to_owned();
    assert_eq!(why(&prune_now(&place)), [(1, young.clone())]);
    let path = place.own().path_of(&pointer_of("first content").id);
    let set = |time| File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    set(SystemTime::now() + Duration::from_secs(100_000));
    assert_eq!(why(&prune_now(&place)), [(1, young)]);
    set(SystemTime::now() - Duration::from_secs(3601));
    assert_eq!(prune_now(&place).removed.objects, 1);
}

#[test]
fn nothing_goes_while_a_remote_is_known_to_have_damaged_contents() {
    let mut place = Place::new(&["usb"]);
    place.back_up(&[("a", "first content")]);
    place.push(0);
    let remember = |place: &Place, remote: &str, damaged| {
        let name = place.settings.name.as_str();
        let found = Scrubbed { damaged, ..Scrubbed::begin(name, Some(remote), "1%") };
        scrubs::remember(place.bench.scratch.path(), found).unwrap();
    };
    remember(&place, "usb", 1);
    let kept = prune_now(&place);
    assert_eq!(why(&kept), [(1, "remote usb is known to lack or to have damaged large contents".to_owned())]);
    remember(&place, "usb", 0);
    remember(&place, "sold", 1);
    assert_eq!(prune_now(&place).removed.objects, 1, "one that is not configured any more");
}
