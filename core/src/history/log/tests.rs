//! Timelines of real backups, and histories that break off.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::snapshot::tests::{Bench, bench, git};
use crate::store::changes::Reach;

fn timeline(bench: &Bench, path: &str) -> Vec<(String, char, Option<u64>)> {
    let tip = bench.repository.reference("refs/heads/main").unwrap().unwrap();
    let objects = bench.repository.objects().unwrap();
    let (root, path) = (RootName::new("folder").unwrap(), RelPath::new(path).unwrap());
    let versions = Timeline::new(&bench.repository, &objects, tip, &root, &path);
    versions
        .map(|version| {
            let version = version.unwrap();
            let size = version.state.and_then(|state| state.size(&objects));
            (version.snapshot.id.to_string(), version.change.letter(), size)
        })
        .collect()
}

fn commit(bench: &mut Bench) -> String {
    bench.snapshot().id.to_string()
}

#[test]
fn a_paths_timeline_has_the_snapshots_that_changed_it_and_no_other() {
    let mut bench = bench();
    bench.write("other", "0");
    commit(&mut bench);
    bench.write("sub/.git/x", "1");
    let added = commit(&mut bench);
    bench.write("sub/.git/y", "neighbour");
    commit(&mut bench);
    bench.write("sub/.git/x", "22");
    let changed = commit(&mut bench);
    fs::set_permissions(bench.root().join("sub/.git/x"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = commit(&mut bench);
    fs::remove_file(bench.root().join("sub/.git/x")).unwrap();
    let deleted = commit(&mut bench);
    bench.write("other", "1");
    commit(&mut bench);
    bench.write("sub/.git/x", "333");
    let again = commit(&mut bench);
    assert_eq!(
        timeline(&bench, "sub/.git/x"),
        [
            (again.clone(), 'A', Some(3)),
            (deleted.clone(), 'D', None),
            (mode, 'm', Some(2)),
            (changed, 'M', Some(2)),
            (added.clone(), 'A', Some(1)),
        ]
    );
    assert_eq!(timeline(&bench, "sub/.git").len(), 6);
    assert_eq!(timeline(&bench, "").len(), 8);
    assert_eq!(timeline(&bench, "sub/.git/y").len(), 1);
    assert_eq!(timeline(&bench, "nothing/at/all"), []);
    assert_eq!(timeline(&bench, "other/below-a-file"), []);

    let objects = bench.repository.objects().unwrap();
    let (root, path) = (RootName::new("folder").unwrap(), RelPath::new("sub/.git/x").unwrap());
    let parent = |id: &str| Snapshot::read(&bench.repository, Oid::from_str(id).unwrap()).unwrap().parents[0];
    let from = |tip: Oid| {
        let mut timeline = Timeline::new(&bench.repository, &objects, tip, &root, &path);
        timeline.last_seen().unwrap().map(|snapshot| snapshot.id)
    };
    assert_eq!(from(parent(&again)), Some(parent(&deleted)));
    assert_eq!(from(parent(&added)), None);
}

#[test]
fn what_only_the_metadata_knows_has_a_timeline_too() {
    let mut bench = bench();
    fs::create_dir_all(bench.root().join("empty/inner")).unwrap();
    commit(&mut bench);
    fs::set_permissions(bench.root().join("empty/inner"), fs::Permissions::from_mode(0o700)).unwrap();
    commit(&mut bench);
    fs::remove_dir(bench.root().join("empty/inner")).unwrap();
    commit(&mut bench);
    let letters = |path| timeline(&bench, path).iter().map(|(_, letter, _)| *letter).collect::<String>();
    assert_eq!(letters("empty/inner"), "DmA");
    assert_eq!(letters("empty"), "mmA");
}

#[test]
fn one_record_among_many_shards_is_followed() {
    let mut bench = bench();
    for number in 0..400 {
        bench.write(&format!("file-{number}"), "x");
    }
    commit(&mut bench);
    for number in 0..5 {
        bench.write(&format!("file-{number}"), "y");
        bench.touch(&format!("file-{number}"), Reach::Exact);
        bench.drain();
    }
    for number in 0..5 {
        assert_eq!(timeline(&bench, &format!("file-{number}")).len(), 2, "{number}");
    }
    assert_eq!(timeline(&bench, "file-300").len(), 1);
    for number in 0..390 {
        fs::remove_file(bench.root().join(format!("file-{number}"))).unwrap();
    }
    commit(&mut bench);
    let letters: String = timeline(&bench, "file-395").iter().map(|(_, letter, _)| *letter).collect();
    assert_eq!(letters, "A", "its record moved to another shard, and is the same");
}

#[test]
fn a_history_that_breaks_off_ends_and_says_where() {
    let mut bench = bench();
    for number in 0..4 {
        bench.write("file", number.to_string());
        commit(&mut bench);
    }
    let tip = bench.snapshot().id;
    let all = Log::new(&bench.repository, tip).map(|snapshot| snapshot.unwrap().id);
    let all: Vec<Oid> = all.collect();
    assert_eq!(all.len(), 4);
    let here = bench.repository.path().to_str().unwrap();
    let shallow = bench.scratch.path().join("shallow.git");
    let target = shallow.to_str().unwrap();
    git(bench.scratch.path(), &["clone", "-q", "--bare", "--depth", "2", &format!("file://{here}"), target]);
    fs::remove_file(shallow.join("shallow")).unwrap();
    let shallow = Repository::open(&shallow).unwrap();
    let mut log = Log::new(&shallow, all[0]);
    let met: Vec<Oid> = log.by_ref().map(|snapshot| snapshot.unwrap().id).collect();
    assert_eq!(met, all[..2]);
    assert_eq!(log.broke_off(), Some(all[2]));
    assert!(Log::new(&shallow, all[3]).next().unwrap().is_err());
}
