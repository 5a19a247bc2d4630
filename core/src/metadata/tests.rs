//! Records against a map as the model; the real git as the judge of the trees.

mod difference;
mod foreign;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::tree::judge::Judge;
use crate::tree::{self, Edits, TreeSink, lookup};

pub(super) fn root() -> RootName {
    RootName::new("folder").unwrap()
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

pub(super) fn record(name: &[u8], kind: EntryKind, size: u64) -> Record {
    let is_file = kind == EntryKind::File;
    Record {
        name: name.to_vec(),
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        user: Some("anna".to_owned()),
        group: None,
        mtime: Mtime { seconds: 1_764_000_000, nanoseconds: 123_456_789 },
        size: is_file.then_some(size),
        blake3: is_file.then(|| *blake3::hash(&size.to_le_bytes()).as_bytes()),
        xattrs: BTreeMap::new(),
        xattrs_omitted: false,
        is_mount: false,
        hard_link: None,
        device: None,
    }
}

pub(super) fn file(name: &str, size: u64) -> Record {
    record(name.as_bytes(), EntryKind::File, size)
}

fn own(size: u64) -> Record {
    Record { size: Some(size), ..record(OWN_NAME, EntryKind::Directory, 0) }
}

/// The state of one repository, and what the last batch read and wrote.
struct World {
    objects: ObjectDatabase<'static>,
    tree: Option<Oid>,
}

struct Recording<'a>(&'a ObjectDatabase<'static>, RefCell<Vec<usize>>);

impl TreeSink for Recording<'_> {
    fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid> {
        self.1.borrow_mut().push(data.len());
        TreeSink::write(self.0, kind, data)
    }
}

impl World {
    fn new(judge: &Judge) -> Self {
        Self { objects: judge.objects_in_memory(), tree: None }
    }

    /// Applies the changes; the sizes of all objects written, trees too.
    fn apply(&mut self, changes: &Changes) -> (MetadataStats, Vec<usize>) {
        let sink = Recording(&self.objects, RefCell::default());
        let mut edits = Edits::new();
        let stats = apply(&self.objects, &sink, self.tree, &root(), changes, None, &mut edits).unwrap();
        self.tree = tree::apply(&self.objects, &sink, self.tree, &edits).unwrap();
        (stats, sink.1.into_inner())
    }

    fn all(&self) -> BTreeMap<(RelPath, Vec<u8>), Record> {
        let mut all = BTreeMap::new();
        let Some(tree) = self.tree else { return all };
        walk(&self.objects, tree, &root(), &mut |directory, record| {
            let before = all.insert((directory.clone(), record.name.clone()), record);
            assert!(before.is_none());
            Ok(())
        })
        .unwrap();
        all
    }

    fn kind_at(&self, path: &str) -> Option<bool> {
        lookup(&self.objects, self.tree.unwrap(), path.as_bytes()).unwrap().map(tree::Entry::is_tree)
    }
}

#[test]
fn extended_attributes_that_do_not_fit_are_left_out_and_said_so() {
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let mut changes = Changes::new();
    let mut big = file("big", 1);
    big.xattrs.insert(b"user.big".to_vec(), vec![1; 5 << 20]);
    changes.put(&RelPath::root(), big);
    assert_eq!(world.apply(&changes).0.xattrs_omitted, 1);
    let read = read_record(&world.objects, world.tree.unwrap(), &root(), &path("big")).unwrap().unwrap();
    assert_eq!(read, Record { xattrs_omitted: true, ..file("big", 1) });
}

#[test]
fn no_escape_produces_the_reserved_name() {
    assert_eq!(crate::path::unescape_component(RECORDS_NAME), None);
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let mut changes = Changes::new();
    changes.put_directory(&path("_bb_meta/.git"), own(1));
    changes.put(&path("_bb_meta"), file("_bb_meta", 2));
    world.apply(&changes);
    assert_eq!(world.kind_at(".backupbot/meta/folder/_bb__bb_meta/_bb_.git/_bb_meta"), Some(false));
    assert_eq!(world.all().len(), 2);
    let found =
        read_directory(&world.objects, world.tree.unwrap(), &root(), &RelPath::root()).unwrap().unwrap();
    assert_eq!(found, DirectoryRecords { directories: vec![b"_bb_meta".to_vec()], ..Default::default() });
}

/// The same rules as [`Changes`], one call at a time.
#[derive(Default)]
struct Model {
    records: BTreeMap<(RelPath, Vec<u8>), Record>,
}

impl Model {
    fn clear(&mut self, at: &RelPath) {
        let (parent, name) = (at.parent(), at.file_name().map(<[u8]>::to_vec));
        self.records.retain(|(directory, own_name), _| {
            let is_it = Some(directory) == parent.as_ref() && Some(own_name) == name.as_ref();
            !is_it && !directory.is_within(at)
        });
    }

    fn make_directories(&mut self, directory: &RelPath) {
        let mut at = directory.clone();
        while let (Some(parent), Some(name)) = (at.parent(), at.file_name()) {
            self.records.remove(&(parent.clone(), name.to_vec()));
            at = parent;
        }
    }

    fn is_below_a_file(&self, path: &RelPath) -> bool {
        let mut at = path.parent();
        while let Some(directory) = at {
            if let (Some(parent), Some(name)) = (directory.parent(), directory.file_name())
                && self.records.contains_key(&(parent, name.to_vec()))
            {
                return true;
            }
            at = directory.parent();
        }
        false
    }
}

#[derive(Debug, Clone)]
enum Step {
    File(String, u64),
    Directory(String, u64),
    Remove(String),
}

fn any_steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let name = prop::sample::select(vec!["a", "a-b", "a.b", "ab", ".git"]);
    let at = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let step = prop_oneof![
        4 => (at.clone(), 0..3_u64).prop_map(|(at, size)| Step::File(at, size)),
        2 => (at.clone(), 0..3_u64).prop_map(|(at, size)| Step::Directory(at, size)),
        2 => at.prop_map(Step::Remove),
    ];
    prop::collection::vec(prop::collection::vec(step, 0..10), 1..5)
}

/// What the batches do with a file in a directory that they put no record of: the tree must then know it as
/// a directory, as a committer would say, so the way to every path is put first.
fn with_ways(steps: Vec<Step>) -> Vec<Step> {
    let mut all = Vec::new();
    for step in steps {
        if let Step::File(at, _) | Step::Directory(at, _) = &step {
            for (end, _) in at.match_indices('/') {
                all.push(Step::Directory(at[..end].to_owned(), 9));
            }
        }
        all.push(step);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_batches_leave_what_their_calls_said_in_order(batches in any_steps()) {
        let judge = Judge::new();
        let mut world = World::new(&judge);
        let mut model = Model::default();
        for steps in batches {
            let mut changes = Changes::new();
            for step in with_ways(steps) {
                match step {
                    Step::File(at, size) => {
                        let at = path(&at);
                        let (parent, name) = (at.parent().unwrap(), at.file_name().unwrap().to_vec());
                        let record = record(&name, EntryKind::File, size);
                        changes.put(&parent, record.clone());
                        model.make_directories(&parent);
                        model.clear(&at);
                        model.records.insert((parent, name), record);
                    }
                    Step::Directory(at, size) => {
                        let at = path(&at);
                        changes.put_directory(&at, own(size));
                        model.make_directories(&at);
                        model.records.insert((at, OWN_NAME.to_vec()), own(size));
                    }
                    Step::Remove(at) => {
                        let at = path(&at);
                        changes.remove(&at);
                        if !model.is_below_a_file(&at) {
                            model.clear(&at);
                        }
                    }
                }
            }
            world.apply(&changes);
            prop_assert_eq!(world.all(), model.records.clone());
            for ((directory, name), record) in &model.records {
                let at = if name == OWN_NAME { directory.clone() } else { directory.join(name) };
                let read = read_record(&world.objects, world.tree.unwrap(), &root(), &at).unwrap();
                prop_assert_eq!(read.as_ref(), Some(record));
            }
            // Saying the same again changes nothing and writes nothing.
            let mut again = Changes::new();
            for ((directory, _), record) in &model.records {
                again.put(directory, record.clone());
            }
            let before = world.tree;
            prop_assert_eq!(world.apply(&again).1, Vec::<usize>::new());
            prop_assert_eq!(world.tree, before);
        }
    }
}

#[test]
fn a_directory_grows_into_shards_and_shrinks_back_with_slack() {
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let directory = path("d");
    let put = |world: &mut World, numbers: std::ops::Range<u64>| {
        let mut changes = Changes::new();
        for number in numbers {
            changes.put(&directory, file(&format!("file {number}"), number));
        }
        world.apply(&changes)
    };
    let remove = |world: &mut World, numbers: std::ops::Range<u64>| {
        let mut changes = Changes::new();
        for number in numbers {
            changes.remove(&directory.join(format!("file {number}").as_bytes()));
        }
        world.apply(&changes)
    };
    let node = ".backupbot/meta/folder/d/_bb_meta";
    assert_eq!(put(&mut world, 0..128).0.shards_written, 1);
    assert_eq!(world.kind_at(node), Some(false));
    put(&mut world, 128..129);
    assert_eq!(world.kind_at(node), Some(true));
    assert_eq!(world.kind_at(&format!("{node}/00")), Some(false));
    remove(&mut world, 40..129);
    assert_eq!(world.kind_at(node), Some(true));
    remove(&mut world, 32..40);
    assert_eq!(world.kind_at(node), Some(false));
    assert_eq!(world.all().len(), 32);
    put(&mut world, 32..128);
    assert_eq!(world.kind_at(node), Some(false));

    put(&mut world, 0..20_000);
    assert_eq!(world.kind_at(&format!("{node}/3f")), Some(true));
    assert_eq!(world.kind_at(&format!("{node}/3f/07")), Some(false));
    assert_eq!(world.all().len(), 20_000);
    remove(&mut world, 10..19_990);
    assert_eq!(world.kind_at(node), Some(false));
    assert_eq!(world.all().len(), 20);
    remove(&mut world, 0..20_000);
    assert_eq!(world.all().len(), 0);
    assert_eq!(world.kind_at(".backupbot/meta"), None);
    assert_eq!(world.kind_at(".backupbot/format"), Some(false));
}

#[test]
fn one_change_among_a_hundred_thousand_writes_a_few_kilobytes() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let mut world = World { objects, tree: None };
    let directory = path("Many files");
    let mut changes = Changes::new();
    changes.put_directory(&directory, own(1));
    for number in 0..100_000 {
        changes.put(&directory, file(&format!("a file with a name of usual length {number}"), number));
    }
    let started = std::time::Instant::now();
    world.apply(&changes);
    println!("100,000 records: {:?}", started.elapsed());

    let mut one = Changes::new();
    one.put(&directory, file("a file with a name of usual length 4711", 1));
    let started = std::time::Instant::now();
    let (stats, written) = world.apply(&one);
    let total: usize = written.iter().sum();
    println!("one record: {:?}, {written:?}", started.elapsed());
    assert_eq!(stats.shards_written, 1);
    assert!(total < 20 << 10, "{total} bytes in {written:?}");

    let found = read_directory(&world.objects, world.tree.unwrap(), &root(), &directory).unwrap().unwrap();
    assert_eq!(found.records.len(), 100_000);
    assert_eq!(found.own, Some(own(1)));
    assert!(found.records.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn names_that_share_a_hashs_beginning_only_cost_levels() {
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let mut changes = Changes::new();
    let unlucky = (0_u64..).map(|number| format!("n{number}")).filter(|name| {
        let hash = hash_of(name.as_bytes());
        child_at(&hash, 0) == 5 && child_at(&hash, 1) == 63
    });
    for name in unlucky.take(300) {
        changes.put(&RelPath::root(), file(&name, 1));
    }
    world.apply(&changes);
    assert_eq!(world.all().len(), 300);
    assert_eq!(world.kind_at(".backupbot/meta/folder/_bb_meta/05/3f"), Some(true));
}

#[test]
fn big_attributes_split_a_shard_before_it_gets_big() {
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let mut changes = Changes::new();
    for number in 0..60 {
        let mut record = file(&format!("n{number}"), 1);
        record.xattrs.insert(b"user.x".to_vec(), vec![7; 3000]);
        changes.put(&RelPath::root(), record);
    }
    let (_, written) = world.apply(&changes);
    assert!(written.iter().all(|size| *size < 66 << 10));
    assert_eq!(world.all().len(), 60);
}

#[test]
fn git_finds_the_trees_sound_and_a_clone_shows_them() {
    let judge = Judge::new();
    let objects = judge.objects();
    let mut changes = Changes::new();
    changes.put_directory(&RelPath::root(), own(1));
    changes.put_directory(&path("empty/.git"), own(1));
    changes.put(&RelPath::root(), record(b"\xff\xfe", EntryKind::Fifo, 0));
    for number in 0..300 {
        changes.put(&path("many"), file(&format!("{number}"), number));
    }
    let mut edits = Edits::new();
    apply(&objects, &objects, None, &root(), &changes, None, &mut edits).unwrap();
    let tree = tree::apply(&objects, &objects, None, &edits).unwrap().unwrap();
    judge.commit(tree);
    assert_eq!(judge.fsck(), "");
    assert_eq!(judge.git(["show", "HEAD:.backupbot/format"]), b"1\n");
    let shown = judge.git(["show", "HEAD:.backupbot/meta/folder/empty/_bb_.git/_bb_meta"]);
    assert!(shown.starts_with(b"{\"backupbot\":1}\n{\"name\":\".\",\"kind\":\"dir\","));
}

#[test]
fn a_dropped_root_leaves_nothing_and_the_others_alone() {
    let judge = Judge::new();
    let mut world = World::new(&judge);
    let mut changes = Changes::new();
    changes.put(&path("a/b"), file("c", 1));
    world.apply(&changes);
    let other = RootName::new("folder2").unwrap();
    let mut edits = Edits::new();
    apply(&world.objects, &world.objects, world.tree, &other, &changes, None, &mut edits).unwrap();
    world.tree = tree::apply(&world.objects, &world.objects, world.tree, &edits).unwrap();
    let mut drop_it = Changes::new();
    drop_it.remove(&RelPath::root());
    world.apply(&drop_it);
    assert!(world.all().is_empty());
    let left = read_record(&world.objects, world.tree.unwrap(), &other, &path("a/b/c")).unwrap();
    assert_eq!(left, Some(file("c", 1)));
}

#[test]
fn every_name_of_a_shard_is_one_of_sixty_four() {
    let names: BTreeSet<[u8; 2]> = (0..64).map(child_name).collect();
    assert_eq!(names.len(), 64);
    assert_eq!(child_of(b"3f"), Some(63));
    for wrong in [&b"40"[..], b"3F", b"0", b"000", b""] {
        assert_eq!(child_of(wrong), None);
    }
    let hash = [
        0b1111_1100,
        0b0000_1111,
        0b1100_0001,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        63,
    ];
    assert_eq!([0, 1, 2, 3].map(|level| child_at(&hash, level)), [63, 0, 63, 1]);
    assert_eq!(child_at(&hash, 41), 3);
}
