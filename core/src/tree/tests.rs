//! Trees against a map as the model and the real git as the judge.

use std::collections::{BTreeMap, BTreeSet};

use git2::{ObjectType, Odb, Oid};
use proptest::prelude::*;

use super::*;
use crate::tree::judge::Judge;

type Model = BTreeMap<Vec<u8>, Entry>;

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn model_set(model: &mut Model, path: &[u8], entry: Entry) {
    model.retain(|other, _| other != path && !is_below(other, path) && !is_below(path, other));
    model.insert(path.to_vec(), entry);
}

fn model_remove(model: &mut Model, path: &[u8]) {
    model.retain(|other, _| other != path && !is_below(other, path));
}

/// The tree git itself makes of the model.
fn tree_by_git(judge: &Judge, model: &Model) -> Option<Oid> {
    std::fs::remove_file(judge.path().join("index")).ok();
    let mut lines = Vec::new();
    for (path, entry) in model {
        lines.extend(format!("{:o} {}\t", entry.mode, entry.oid).as_bytes());
        lines.extend(path);
        lines.push(0);
    }
    judge.git_with(["update-index", "-z", "--index-info"], &lines);
    let tree = judge.git(["write-tree"]);
    (!model.is_empty()).then(|| Oid::from_str(String::from_utf8(tree).unwrap().trim()).unwrap())
}

fn flatten(objects: &Odb<'_>, tree: Option<Oid>) -> Model {
    let mut model = Model::new();
    diff_paths(objects, None, tree, &mut |change| {
        assert!(change.old.is_none());
        model.insert(change.path.to_vec(), change.new.unwrap());
        Ok(())
    })
    .unwrap();
    model
}

#[derive(Debug, Clone)]
enum Step {
    Set(Vec<u8>, bool),
    Remove(Vec<u8>),
}

/// Few names, chosen to sort around the slash, so that paths meet often.
fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["a", "a!", "a-b", "a.b", "a0", "ab", "b", "\u{e9}"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/").into_bytes())
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (any_path(), any::<bool>()).prop_map(|(path, executable)| Step::Set(path, executable)),
        2 => any_path().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..25)
}

fn perform(steps: &[Step], oids: [Oid; 2], model: &mut Model) -> Edits {
    let mut edits = Edits::new();
    for step in steps {
        match step {
            Step::Set(path, executable) => {
                let mode = if *executable { MODE_EXECUTABLE } else { MODE_FILE };
                let entry = Entry { mode, oid: oids[usize::from(*executable)] };
                edits.set(path.clone(), entry);
                model_set(model, path, entry);
            }
            Step::Remove(path) => {
                edits.remove(path.clone());
                model_remove(model, path);
            }
        }
    }
    edits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_edits_give_the_tree_that_git_gives(batches in prop::collection::vec(any_steps(), 1..4)) {
        let judge = Judge::new();
        let objects = judge.objects();
        let oids = [judge.write_blob(b"one"), judge.write_blob(b"two")];
        let mut model = Model::new();
        let mut tree = None;
        for steps in &batches {
            let before = (tree, model.clone());
            let edits = perform(steps, oids, &mut model);
            tree = apply(&objects, &objects, tree, &edits).unwrap();
            prop_assert_eq!(tree, tree_by_git(&judge, &model));
            prop_assert_eq!(&flatten(&objects, tree), &model);

            for (path, entry) in &model {
                prop_assert_eq!(lookup(&objects, tree.unwrap(), path).unwrap(), Some(*entry));
            }
            let mut changes = Vec::new();
            diff_paths(&objects, before.0, tree, &mut |change| {
                changes.push((change.path.to_vec(), change.old, change.new));
                Ok(())
            }).unwrap();
            let paths: BTreeSet<&Vec<u8>> = before.1.keys().chain(model.keys()).collect();
            let mut expected: Vec<_> = paths.into_iter()
                .map(|path| (path.clone(), before.1.get(path).copied(), model.get(path).copied()))
                .filter(|(_, old, new)| old != new)
                .collect();
            expected.sort();
            let mut sorted = changes.clone();
            sorted.sort();
            prop_assert_eq!(sorted, expected);

            if let (Some(old), Some(new)) = (before.0, tree) {
                let mut visited = BTreeSet::new();
                diff_new_objects(&objects, Some(old), new, &mut |_, oid, _| {
                    visited.insert(oid.to_string());
                    Ok(true)
                }).unwrap();
                let listed = judge.git(["rev-list", "--objects", "--no-object-names", &new.to_string(),
                    &format!("^{old}")]);
                for oid in String::from_utf8(listed).unwrap().lines() {
                    prop_assert!(visited.contains(oid), "{} is not visited", oid);
                }
            }
        }
    }

    #[test]
    fn bytes_from_anywhere_are_read_or_refused_and_what_is_read_writes_back(
        mut data in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        honest in any::<bool>(),
    ) {
        if honest {
            let oid = Oid::from_bytes(&[7; 20]).unwrap();
            let file = Entry { mode: MODE_FILE, oid };
            data = serialize([(&b"a"[..], file), (b"a-b", file), (b"b", Entry::tree(oid)), (b"b.c", file)]);
            for (at, value) in flips {
                let at = at.index(data.len());
                data[at] = value;
            }
        }
        let entries: Vec<_> = parse(&data).collect();
        if let Ok(entries) = entries.into_iter().collect::<std::result::Result<Vec<_>, _>>() {
            let again = serialize(entries.iter().map(|raw| (raw.name, raw.entry)));
            prop_assert_eq!(again, data);
        }
    }
}

/// Remembers what was written.
struct Counting<'o> {
    objects: &'o Odb<'o>,
    written: std::cell::RefCell<Vec<Oid>>,
}

impl TreeSink for Counting<'_> {
    fn write(&self, kind: ObjectType, data: &[u8]) -> Result<Oid> {
        let oid = TreeSink::write(self.objects, kind, data)?;
        self.written.borrow_mut().push(oid);
        Ok(oid)
    }
}

fn file(oid: Oid) -> Entry {
    Entry { mode: MODE_FILE, oid }
}

#[test]
fn only_directories_on_changed_paths_are_written() {
    let judge = Judge::new();
    let objects = judge.objects();
    let (one, two) = (judge.write_blob(b"one"), judge.write_blob(b"two"));
    let mut edits = Edits::new();
    for path in ["a/b/c", "a/d/e", "f/g"] {
        edits.set(path, file(one));
    }
    let base = apply(&objects, &objects, None, &edits).unwrap();
    let write = |edits: &Edits| {
        let sink = Counting { objects: &objects, written: Default::default() };
        let tree = apply(&objects, &sink, base, edits).unwrap();
        (tree, sink.written.into_inner().len())
    };

    let mut edits = Edits::new();
    edits.set("a/b/c", file(two));
    assert_eq!(write(&edits).1, 3);

    let mut edits = Edits::new();
    edits.set("a/b/c", file(one));
    edits.remove("a/b/nothing");
    edits.remove("a/b/c/below a file");
    edits.remove("no/such/place");
    assert_eq!(write(&edits), (base, 0));

    let mut edits = Edits::new();
    edits.remove("a/b/c");
    edits.remove("a/d/e");
    assert_eq!(write(&edits).1, 1);
    edits.remove("f");
    assert_eq!(write(&edits), (None, 0));
    assert_eq!(apply(&objects, &objects, None, &Edits::new()).unwrap(), None);
}

#[test]
fn the_later_call_decides_where_paths_cross() {
    let judge = Judge::new();
    let objects = judge.objects();
    let blob = judge.write_blob(b"x");
    let paths = |edits: &Edits, base: Option<Oid>| -> (Option<Oid>, Vec<String>) {
        let tree = apply(&objects, &objects, base, edits).unwrap();
        let paths = flatten(&objects, tree).into_keys().map(|path| String::from_utf8(path).unwrap());
        (tree, paths.collect())
    };
    let mut edits = Edits::new();
    edits.set("a/old", file(blob));
    edits.set("a-b", file(blob));
    let (base, _) = paths(&edits, None);

    let mut edits = Edits::new();
    edits.remove("a");
    edits.set("a/new", file(blob));
    assert_eq!(paths(&edits, base).1, ["a-b", "a/new"]);

    let mut edits = Edits::new();
    edits.set("a/new", file(blob));
    edits.set("a", file(blob));
    assert_eq!(paths(&edits, base).1, ["a", "a-b"]);
    edits.set("a/b", file(blob));
    assert_eq!(paths(&edits, base).1, ["a-b", "a/b"]);

    let mut edits = Edits::new();
    let subtree = lookup(&objects, base.unwrap(), b"a").unwrap().unwrap();
    edits.set("copy", subtree);
    edits.set("copy/more", file(blob));
    assert_eq!(paths(&edits, base).1, ["a-b", "a/old", "copy/more", "copy/old"]);
}

#[test]
fn paths_and_modes_that_no_tree_can_hold_are_refused() {
    let judge = Judge::new();
    let objects = judge.objects();
    let blob = judge.write_blob(b"x");
    for path in ["", "/", "/a", "a/", "a//b", "a/../b", ".", "a\0b"] {
        let mut edits = Edits::new();
        edits.set(path, file(blob));
        assert_eq!(apply(&objects, &objects, None, &edits).unwrap_err().kind(), Kind::Internal, "{path:?}");
    }
    let mut edits = Edits::new();
    edits.set("a", Entry { mode: 0o100_600, oid: blob });
    assert!(apply(&objects, &objects, None, &edits).is_err());
}

#[test]
fn hostile_trees_are_errors_everywhere() {
    let judge = Judge::new();
    let objects = judge.objects();
    let id = [7_u8; 20];
    let entry = |text: &[u8]| [text, b"\0", &id].concat();
    let cases = [
        entry(b"100600 a"),
        entry(b"040000 a"),
        entry(b"0 a"),
        entry(b"100644 "),
        entry(b"100644  a")[..5].to_vec(),
        entry(b"100644 a/b"),
        entry(b"100644 ."),
        entry(b"40000 .."),
        b"100644 a\0short".to_vec(),
        b"100644 endless".to_vec(),
        [entry(b"100644 b"), entry(b"100644 a")].concat(),
        [entry(b"100644 a"), entry(b"100644 a")].concat(),
        [entry(b"100644 a"), entry(b"40000 a")].concat(),
        [entry(b"100644 a"), entry(b"100644 a-b"), entry(b"100644 a-b.c"), entry(b"40000 a")].concat(),
        [entry(b"40000 a"), entry(b"100644 a.b")].concat(),
    ];
    for data in cases {
        assert!(parse(&data).any(|entry| entry.is_err()), "{}", lossy(&data));
        let tree = judge.git_with(["hash-object", "-t", "tree", "-w", "--stdin", "--literally"], &data);
        let tree = Oid::from_str(String::from_utf8(tree).unwrap().trim()).unwrap();
        let mut edits = Edits::new();
        edits.remove("zzz");
        assert_eq!(apply(&objects, &objects, Some(tree), &edits).unwrap_err().kind(), Kind::Git);
        assert!(lookup(&objects, tree, b"zzz").is_err());
        assert!(Listing::read(&objects, tree, b"").is_err());
        assert!(diff_paths(&objects, None, Some(tree), &mut |_| Ok(())).is_err());
    }
    let blob = judge.write_blob(b"x");
    assert!(lookup(&objects, blob, b"a").is_err());
    assert!(lookup(&objects, Oid::from_bytes(&id).unwrap(), b"a").is_err());
}

#[test]
fn depth_costs_no_stack_and_ends_at_the_limit() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let work = move || {
        let blob = TreeSink::write(&objects, ObjectType::Blob, b"x").unwrap();
        let deep = |depth: usize| vec!["d"; depth].join("/").into_bytes();
        let mut edits = Edits::new();
        edits.set(deep(4000), file(blob));
        let tree = apply(&objects, &objects, None, &edits).unwrap().unwrap();
        assert_eq!(lookup(&objects, tree, &deep(4000)).unwrap(), Some(file(blob)));
        assert_eq!(flatten(&objects, Some(tree)).len(), 1);
        let mut seen = 0;
        diff_new_objects(&objects, None, tree, &mut |_, _, _| {
            seen += 1;
            Ok(true)
        })
        .unwrap();
        assert_eq!(seen, 4001);

        let mut edits = Edits::new();
        edits.set(deep(5000), file(blob));
        assert_eq!(apply(&objects, &objects, None, &edits).unwrap_err().kind(), Kind::Git);
        let mut too_deep = tree;
        for _ in 0..200 {
            too_deep =
                TreeSink::write(&objects, ObjectType::Tree, &serialize([(&b"d"[..], Entry::tree(too_deep))]))
                    .unwrap();
        }
        assert!(diff_paths(&objects, None, Some(too_deep), &mut |_| Ok(())).is_err());
    };
    std::thread::Builder::new().stack_size(512 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn one_edit_among_a_hundred_thousand_names_is_one_tree_that_git_calls_sound() {
    let judge = Judge::new();
    let objects = judge.objects();
    let blob = judge.write_blob(b"x");
    let names: Vec<String> = (0..100_000).map(|number| format!("wide/name {number}")).collect();
    let mut edits = Edits::new();
    for name in &names {
        edits.set(name.as_str(), file(blob));
    }
    let base = apply(&objects, &objects, None, &edits).unwrap().unwrap();
    let mut edits = Edits::new();
    edits.remove("wide/name 4711");
    edits.set("wide/name 4711/inside", file(blob));
    let sink = Counting { objects: &objects, written: Default::default() };
    let tree = apply(&objects, &sink, Some(base), &edits).unwrap().unwrap();
    assert_eq!(sink.written.borrow().len(), 3);
    judge.commit(tree);
    assert_eq!(judge.fsck(), "");

    let wide = lookup(&objects, tree, b"wide").unwrap().unwrap();
    let listing = Listing::read(&objects, wide.oid, b"wide").unwrap();
    assert_eq!(listing.len(), names.len());
    assert!(listing.get(b"name 4711").unwrap().is_tree());
    assert_eq!(listing.get(b"name 99999"), Some(file(blob)));
    assert_eq!(listing.get(b"name"), None);
}

#[test]
fn a_tree_that_names_itself_many_times_is_entered_once_by_a_caller_that_remembers() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let mut tree = TreeSink::write(&objects, ObjectType::Blob, b"x").unwrap();
    for level in 0..40 {
        let entry = if level == 0 { file(tree) } else { Entry::tree(tree) };
        let data = serialize(
            (b'a'..=b'z')
                .map(|name| (vec![name], entry))
                .collect::<Vec<_>>()
                .iter()
                .map(|(name, entry)| (name.as_slice(), *entry)),
        );
        tree = TreeSink::write(&objects, ObjectType::Tree, &data).unwrap();
    }
    let mut known = BTreeSet::new();
    diff_new_objects(&objects, None, tree, &mut |_, oid, _| Ok(known.insert(oid))).unwrap();
    assert_eq!(known.len(), 41);
}

#[test]
fn a_file_that_gave_way_to_a_directory_does_not_come_back() {
    let scratch = tempfile::tempdir().unwrap();
    let repository = git2::Repository::init_bare(scratch.path()).unwrap();
    let objects = repository.odb().unwrap();
    let oid = objects.write(git2::ObjectType::Blob, b"x").unwrap();
    let file = Entry { mode: MODE_FILE, oid };
    let mut edits = Edits::new();
    edits.set("a", file);
    edits.set("a/b", file);
    edits.remove("a/b");
    assert_eq!(apply(&objects, &objects, None, &edits).unwrap(), None);
    edits.set("a/c", file);
    let tree = apply(&objects, &objects, None, &edits).unwrap().unwrap();
    assert!(lookup(&objects, tree, b"a").unwrap().unwrap().is_tree());
}
