//! Records whose directory has none: it was seen gone, and what was in it was read when it had come again, within one
//! batch. Once it is gone for good, no record of its own tells.

use super::*;
use crate::store::checkpoints::Settlement;
use crate::store::files::FileDelta;

/// A directory with something in it at two depths, whose own record is lost.
fn with_orphans() -> Bench {
    let mut bench = bench();
    for path in ["d/f/inside", "d/f/deep/er", "d/f-x/other", "d/f.x", "stays"] {
        bench.write(path, "x");
    }
    bench.back_up();
    let lost = ["d/f", "d/f/deep"].map(|path| FileDelta::Remove(RelPath::new(path).unwrap()));
    let files = vec![(bench.roots[0].name.clone(), lost.to_vec())];
    bench.queue.settle(&bench.name, &Settlement { files, ..Settlement::default() }, 2).unwrap();
    fs::remove_dir_all(bench.root().join("d/f")).unwrap();
    bench
}

fn names(bench: &Bench) -> Vec<String> {
    let listed = git(bench.repository.path(), &["ls-tree", "-r", "--name-only", "main", "folder"]);
    listed.lines().map(str::to_owned).collect()
}

const LEFT: [&str; 3] = ["folder/d/f-x/other", "folder/d/f.x", "folder/stays"];

#[test]
fn a_comparison_finds_that_they_are_gone() {
    let mut bench = with_orphans();
    bench.touch("", Reach::Deep);
    bench.step();
    assert_eq!(names(&bench), LEFT);
}

#[test]
fn an_event_of_the_directory_takes_them_along() {
    let mut bench = with_orphans();
    bench.touch("d/f", Reach::Exact);
    bench.step();
    assert_eq!(names(&bench), LEFT);
}

#[test]
fn an_event_of_the_directory_above_does_where_listings_are_compared() {
    let mut bench = with_orphans();
    bench.touch("d", Reach::Exact);
    bench.step();
    assert_eq!(names(&bench), LEFT);
}

#[test]
fn a_file_in_the_place_of_their_directory_is_what_is_kept() {
    let mut bench = with_orphans();
    bench.write("d/f", "a file");
    bench.touch("", Reach::Deep);
    bench.step();
    assert_eq!(names(&bench), ["folder/d/f", "folder/d/f-x/other", "folder/d/f.x", "folder/stays"]);
}

#[test]
fn the_names_below_which_something_is_recorded_are_found_between_their_neighbours() {
    let bench = with_orphans();
    let files = bench.store.reader().files(&bench.name).unwrap();
    let root = &bench.roots[0].name;
    let within = |path: &str| files.directories_within(root, &RelPath::new(path).unwrap()).unwrap();
    assert_eq!(within(""), [b"d".to_vec()]);
    assert_eq!(within("d"), [b"f".to_vec(), b"f-x".to_vec()]);
    assert_eq!(within("d/f"), [b"deep".to_vec()]);
    assert_eq!(within("d/f/deep"), Vec::<Vec<u8>>::new());
}
