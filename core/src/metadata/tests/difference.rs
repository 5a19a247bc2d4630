//! The records in which two trees differ, against a comparison of all records; and trees that no writer makes.

use super::*;

fn node(world: &World) -> Option<tree::Entry> {
    lookup(&world.objects, world.tree.unwrap(), b".backupbot/meta/folder/_bb_meta").unwrap()
}

#[test]
fn what_differs_is_found_whatever_form_the_shards_have() {
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let mut states = vec![(None, BTreeMap::new())];
    let batches: [(std::ops::Range<u64>, u64); 6] =
        [(0..5, 1), (3..100, 2), (0..700, 3), (300..310, 4), (20..690, 0), (0..3, 5)];
    for (names, size) in batches {
        let mut changes = Changes::new();
        for name in names {
            match size {
                0 => changes.remove(&path(&format!("n{name}"))),
                size => changes.put(&RelPath::root(), file(&format!("n{name}"), size)),
            }
        }
        world.apply(&changes);
        let all: BTreeMap<Vec<u8>, Record> =
            world.all().into_iter().map(|((_, name), record)| (name, record)).collect();
        states.push((node(&world), all));
    }
    for (old_node, old) in &states {
        for (new_node, new) in &states {
            let (found, damage) = differing_records(&world.objects, *old_node, *new_node);
            assert_eq!(damage, [""; 0]);
            let names: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
            let expected: Vec<RecordChange> = names
                .into_iter()
                .filter(|name| old.get(*name) != new.get(*name))
                .map(|name| RecordChange {
                    name: name.clone(),
                    old: old.get(name).cloned(),
                    new: new.get(name).cloned(),
                })
                .collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn two_trees_of_shards_that_name_themselves_everywhere_come_to_an_end() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let write = |kind, data: &[u8]| TreeSink::write(&objects, kind, data).unwrap();
    let shard =
        |text: &str| tree::Entry { mode: tree::MODE_FILE, oid: write(ObjectType::Blob, text.as_bytes()) };
    let subtree = |names: &[&str], below: tree::Entry| {
        let entries = names.iter().map(|name| (name.as_bytes(), below));
        tree::Entry::tree(write(ObjectType::Tree, &tree::serialize(entries)))
    };
    let one = r#"{"name":"x","kind":"fifo","mode":"0600","uid":1,"gid":1,"mtime":"0.000000000"}"#;
    let with_header = |header: &str| shard(&format!("{header}\n{one}\n"));
    let bottoms = [
        (shard("{\"backupbot\":1}\n"), shard("{\"backupbot\":1,\"by\":\"x\"}\n")),
        (with_header("{\"backupbot\":1}"), with_header("{\"backupbot\":1,\"by\":\"x\"}")),
        (subtree(&["zz"], shard("a")), subtree(&["zy"], shard("b"))),
        (subtree(&["00"], shard("a")), subtree(&["01"], shard("b"))),
    ];
    let all: Vec<String> = (0..64).map(|child| format!("{child:02x}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (mut old, mut new) in bottoms {
        for _ in 0..43 {
            (old, new) = (subtree(&all, old), subtree(&all, new));
        }
        let (found, damage) = differing_records(&objects, Some(old), Some(new));
        assert!(found.is_empty());
        assert!(!damage.is_empty() && damage.len() < 200);
    }
}

#[test]
fn a_shard_that_cannot_be_read_counts_as_none() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let shard = |text: &str| {
        let oid = TreeSink::write(&objects, ObjectType::Blob, text.as_bytes()).unwrap();
        Some(tree::Entry { mode: tree::MODE_FILE, oid })
    };
    let line = |name: &str| {
        format!(r#"{{"name":"{name}","kind":"fifo","mode":"0600","uid":1,"gid":1,"mtime":"0.000000000"}}"#)
    };
    let good = shard(&format!("{{\"backupbot\":1}}\n{}\n{}\n", line("a"), line("b")));
    let bad = shard(&format!("{{\"backupbot\":1}}\n{}\n{}\n", line("a"), line("..")));
    let (found, damage) = differing_records(&objects, good, bad);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|change| change.new.is_none()));
    assert_eq!(damage.len(), 1);
}
