use super::*;
use crate::keeping::tests::{Place, pointer_of};

fn shown(census: &Census) -> Vec<(String, bool)> {
    let mut shown: Vec<(String, bool)> =
        census.contents().map(|(_, found)| (found.shown(), found.is_current)).collect();
    shown.sort();
    shown
}

fn latest(place: &Place, census: &mut Census) -> Vec<(String, bool)> {
    census.see_latest(&place.bench.repository, place.tip(), &Progress::new()).unwrap();
    shown(census)
}

fn words(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
    expected.iter().map(|(name, is_current)| ((*name).to_owned(), *is_current)).collect()
}

#[test]
fn every_content_of_the_history_is_found_once_with_its_latest_name() {
    let mut place = Place::new(&[]);
    place.back_up(&[
        ("a", "first content"),
        ("deep/er/b", "second content"),
        ("tiny", "x"),
        (".git", "a file of Git's"),
    ]);
    place.back_up(&[("a", "another content"), ("same", "second content")]);
    place.remove("deep/er/b");
    place.back_up(&[("c", "third content")]);
    let mut census = place.census();
    assert_eq!(census.pointers().len(), 5);
    assert_eq!(census.get(&pointer_of("third content").id).unwrap().size, 13);
    let expected = [
        ("folder/.git", true),
        ("folder/a", false),
        ("folder/a", true),
        ("folder/c", true),
        ("folder/same", true),
    ];
    assert_eq!(latest(&place, &mut census), words(&expected));

    place.remove("c");
    let tip = place.back_up(&[("d", "fourth content")]);
    let mut census = Census::of(&place.bench.repository, &[tip], &Progress::new()).unwrap();
    let expected = [
        ("folder/.git", true),
        ("folder/a", false),
        ("folder/a", true),
        ("folder/c", false),
        ("folder/d", true),
        ("folder/same", true),
    ];
    assert_eq!(latest(&place, &mut census), words(&expected));
}

#[test]
fn only_what_the_tips_lead_to_counts_and_branches_beside_each_other_do() {
    let mut place = Place::new(&[]);
    let first = place.back_up(&[("a", "first content")]);
    let second = place.back_up(&[("b", "second content")]);
    let of = |tips: &[Oid]| Census::of(&place.bench.repository, tips, &Progress::new()).unwrap();
    assert_eq!(shown(&of(&[])), []);
    assert_eq!(shown(&of(&[first])), words(&[("folder/a", false)]));
    assert_eq!(of(&[first, second]).pointers().len(), 2);
    assert_eq!(place.census().pointers().len(), 2);
}

#[test]
fn a_text_that_merely_looks_like_a_pointer_is_somebodys_file() {
    let mut place = Place::new(&[]);
    // From before large contents were switched on.
    let on = std::mem::take(&mut place.bench.classifier);
    place.back_up(&[("old", &pointer_of("elsewhere").encode())]);
    place.bench.classifier = on;
    place.back_up(&[("large", "a large content")]);
    assert_eq!(shown(&place.census()), words(&[("folder/large", false)]));
}

#[test]
fn in_somebody_elses_history_what_reads_as_a_pointer_is_one() {
    let mut place = Place::new(&[]);
    let on = std::mem::take(&mut place.bench.classifier);
    place.back_up(&[("film.iso", &pointer_of("elsewhere").encode())]);
    place.bench.classifier = on;
    // As git-lfs writes it, in the directory of the file.
    let repository = &place.bench.repository;
    let git = repository.git();
    let root = git.find_tree(repository.tree_of(place.tip()).unwrap()).unwrap();
    let folder = git.find_tree(root.get_name("folder").unwrap().id()).unwrap();
    let file = git.blob(b"*.iso filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    let mut folder = git.treebuilder(Some(&folder)).unwrap();
    folder.insert(".gitattributes", file, 0o100_644).unwrap();
    let mut top = git.treebuilder(Some(&root)).unwrap();
    top.insert("folder", folder.write().unwrap(), 0o040_000).unwrap();
    let who = git2::Signature::now("x", "x@example.org").unwrap();
    let tree = git.find_tree(top.write().unwrap()).unwrap();
    let foreign = git.commit(None, &who, &who, "x", &tree, &[]).unwrap();
    let census = Census::of(repository, &[foreign], &Progress::new()).unwrap();
    assert_eq!(shown(&census), words(&[("folder/film.iso", false)]));
}

#[test]
#[ignore = "a measurement: cargo test --release -- --ignored ten_thousand_commits --nocapture"]
fn a_history_of_ten_thousand_commits_is_counted_in_seconds() {
    let place = Place::new(&[]);
    let repository = &place.bench.repository;
    let git = repository.git();
    let who = git2::Signature::now("x", "x@example.org").unwrap();
    let attributes = git.blob(b"/film filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    let small = git.blob(b"x").unwrap();
    // A hundred directories of a hundred files, one of which is large and changes.
    let directory = |content: &str| {
        let pointer = git.blob(pointer_of(content).encode().as_bytes()).unwrap();
        let mut tree = git.treebuilder(None).unwrap();
        (0..100).for_each(|n| drop(tree.insert(format!("f{n}"), small, 0o100_644).unwrap()));
        tree.insert(".gitattributes", attributes, 0o100_644).unwrap();
        tree.insert("film", pointer, 0o100_644).unwrap();
        tree.write().unwrap()
    };
    let mut folder = git.treebuilder(None).unwrap();
    (0..100)
        .for_each(|n| drop(folder.insert(format!("d{n}"), directory(&format!("0 {n}")), 0o040_000).unwrap()));
    let mut parent: Option<Oid> = None;
    for number in 0..10_000 {
        folder.insert(format!("d{}", number % 100), directory(&number.to_string()), 0o040_000).unwrap();
        let mut top = git.treebuilder(None).unwrap();
        top.insert("folder", folder.write().unwrap(), 0o040_000).unwrap();
        let tree = git.find_tree(top.write().unwrap()).unwrap();
        let parents: Vec<git2::Commit<'_>> = parent.iter().map(|it| git.find_commit(*it).unwrap()).collect();
        let parents: Vec<&git2::Commit<'_>> = parents.iter().collect();
        parent = Some(git.commit(None, &who, &who, "x", &tree, &parents).unwrap());
    }
    crate::snapshot::tests::git(
        repository.path(),
        &["update-ref", "refs/heads/main", &parent.unwrap().to_string()],
    );
    crate::snapshot::tests::git(repository.path(), &["gc", "-q"]);
    let repository = Repository::open(repository.path()).unwrap();
    let begun = std::time::Instant::now();
    let mut census = Census::of_branches(&repository, &Progress::new()).unwrap();
    let all = begun.elapsed();
    census.see_latest(&repository, parent.unwrap(), &Progress::new()).unwrap();
    let latest = begun.elapsed() - all;
    println!("{} contents in {all:?}, the latest in {latest:?}", census.pointers().len());
}
