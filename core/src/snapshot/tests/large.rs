//! Large files, judged by git-lfs: a clone through it is the root, byte for byte.

use super::*;
use crate::lfs::{Attributes, Pointer};

const LARGE: usize = 64 * 1024;

fn with_lfs(settings: &str) -> Bench {
    let mut bench = bench();
    switch(&mut bench, settings);
    bench
}

fn switch(bench: &mut Bench, settings: &str) {
    bench.classifier = Classifier::of(&lfs::tests::settings(settings, &[]));
}

fn content(seed: u8, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
    content
}

/// Git with git-lfs and nothing else configured.
fn git_lfs(at: &Path, home: &Path, arguments: &[&str]) -> String {
    let config = home.join("gitconfig");
    if !config.exists() {
        let filter = "[filter \"lfs\"]\n clean = git-lfs clean -- %f\n smudge = git-lfs smudge -- %f\n \
                      process = git-lfs filter-process\n required = true\n";
        fs::write(&config, filter).unwrap();
    }
    let mut command = Command::new("git");
    command.args(arguments).current_dir(at).env("LC_ALL", "C").env("HOME", home);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", &config);
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "git {arguments:?}: {text}");
    text
}

/// A clone through git-lfs equals the root, git-lfs finds nothing wrong, and names exactly `large`.
fn assert_lfs(bench: &Bench, large: &[&str]) {
    let (home, clone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = format!("file://{}", bench.repository.path().display());
    git_lfs(clone.path(), home.path(), &["clone", "-q", &source, "."]);
    let mut cloned = listing(&clone.path().join("folder"), true);
    cloned.retain(|path, _| !path.is_empty());
    assert_eq!(cloned, listing(&bench.root(), false));
    git_lfs(clone.path(), home.path(), &["lfs", "fsck"]);
    let named = git_lfs(clone.path(), home.path(), &["lfs", "ls-files", "--name-only"]);
    let mut named: Vec<&str> = named.lines().map(|line| line.strip_prefix("folder/").unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, large);
    // To git-lfs a file that looks like a pointer is one, also where it is the content of another.
    let modified = git_lfs(clone.path(), home.path(), &["status", "--porcelain"]);
    assert!(
        modified.lines().all(|line| line.ends_with("look-alike") || line.ends_with("nearly")),
        "{modified}"
    );
}

/// The names in the generated file of a directory of the tip.
fn named_in(bench: &Bench, directory: &str) -> Option<Vec<String>> {
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let (tree, objects) = (bench.repository.tree_of(tip).unwrap(), bench.repository.objects().unwrap());
    let path = format!("folder/{directory}{}.gitattributes", if directory.is_empty() { "" } else { "/" });
    let entry = tree::lookup(&objects, tree, path.as_bytes()).unwrap()?;
    let names = Attributes::parse(objects.read(entry.oid).unwrap().data()).unwrap();
    Some(names.names().map(crate::path::lossy).collect())
}

#[test]
fn large_files_are_pointers_and_a_clone_through_git_lfs_has_their_bytes() {
    let mut bench = with_lfs("{threshold: 64KiB, patterns: ['*.iso']}");
    bench.write("exact", content(1, LARGE));
    bench.write("below", content(2, LARGE - 1));
    bench.write("dir/streamed", content(3, 3 << 20));
    bench.write("dir/same", content(3, 3 << 20));
    bench.write("dir/deep/a.iso", "an image");
    bench.write("dir/deep/empty.iso", "");
    bench.write("dir/.gitattributes", "*.iso -filter\n");
    bench.write("other/small", "x");
    fs::set_permissions(bench.root().join("exact"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.back_up();
    assert_lfs(&bench, &["dir/deep/a.iso", "dir/same", "dir/streamed", "exact"]);
    assert_eq!(named_in(&bench, "").unwrap(), ["exact"]);
    assert_eq!(named_in(&bench, "dir").unwrap(), ["same", "streamed"]);
    assert_eq!(named_in(&bench, "other"), None);
    let objects = Objects::of(bench.repository.path());
    assert_eq!(objects.list().unwrap().len(), 3, "the same content is there once");
    assert_eq!(fs::read_dir(bench.repository.path().join("lfs/tmp")).unwrap().count(), 0);
    assert_eq!(bench.back_up(), 0, "nothing changed");
}

#[test]
fn a_file_that_looks_like_a_pointer_goes_through_git_lfs_and_comes_back_as_it_is() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    let pointer = Pointer { id: lfs::ObjectId([7; 32]), size: 12 }.encode();
    bench.write("look-alike", &pointer);
    bench.write(
        "nearly",
        format!("\n{}", pointer.to_uppercase().replace("VERSION HTTPS://GIT-LFS", "version https://git-lfs")),
    );
    bench.write("letter", "version 2 of a letter\n");
    bench.back_up();
    assert_lfs(&bench, &["look-alike", "nearly"]);
}

#[test]
fn files_cross_the_threshold_both_ways_and_the_attributes_follow() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    bench.write("d/a", content(1, LARGE));
    bench.write("d/b", content(2, LARGE));
    bench.write("d/c", "small");
    bench.back_up();
    assert_eq!(named_in(&bench, "d").unwrap(), ["a", "b"]);
    bench.write("d/a", "small now");
    bench.write("d/c", content(3, LARGE));
    bench.touch("d/a", Reach::Exact);
    bench.touch("d/c", Reach::Exact);
    bench.drain();
    assert_lfs(&bench, &["d/b", "d/c"]);
    bench.write("d/b", "");
    fs::remove_file(bench.root().join("d/c")).unwrap();
    bench.touch("d/b", Reach::Exact);
    bench.touch("d/c", Reach::Exact);
    bench.drain();
    assert_eq!(named_in(&bench, "d"), None, "with the last one the file goes");
    assert_lfs(&bench, &[]);
}

#[test]
fn directories_files_and_links_take_each_others_places() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    for (seed, path) in (1..).zip(["d/a", "d/sub/b", "e", "f/x", "g", "h/y"]) {
        bench.write(path, content(seed, LARGE));
    }
    bench.back_up();
    let gone = |bench: &Bench, path: &str| {
        let path = bench.root().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    };
    gone(&bench, "d");
    bench.write("d", content(10, LARGE));
    gone(&bench, "e");
    bench.write("e/inside", content(11, LARGE));
    fs::rename(bench.root().join("f"), bench.root().join("renamed")).unwrap();
    gone(&bench, "g");
    symlink("renamed/x", bench.root().join("g")).unwrap();
    gone(&bench, "h");
    bench.write("h", "small");
    fs::hard_link(bench.root().join("renamed/x"), bench.root().join("other-name")).unwrap();
    bench.back_up();
    assert_lfs(&bench, &["d", "e/inside", "other-name", "renamed/x"]);
    gone(&bench, "d");
    bench.write("d/a", content(1, LARGE));
    gone(&bench, "e");
    bench.write("e", "small");
    gone(&bench, "h");
    bench.write("h/y", content(6, LARGE));
    for path in ["d", "d/a", "e", "e/inside", "h", "h/y"] {
        bench.touch(path, Reach::Exact);
    }
    bench.drain();
    assert_lfs(&bench, &["d/a", "h/y", "other-name", "renamed/x"]);
}

/// A batch can see a directory gone and what is in it there again.
#[test]
fn a_directory_that_came_again_within_a_batch_names_what_is_in_it() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    bench.write("d/a", content(1, LARGE));
    bench.write("d/b", content(2, LARGE));
    bench.write("stays", "x");
    bench.back_up();
    fs::remove_dir_all(bench.root().join("d")).unwrap();
    bench.touch("d", Reach::Exact);
    let Built::Commit(staged, _) = bench.build() else { panic!("no commit") };
    pack::remove_by_name(&bench.repository.pack_directory(), &staged.pack).unwrap();
    bench.write("d/a", content(1, LARGE));
    bench.touch("d/b", Reach::Exact);
    bench.touch("d/a", Reach::Exact);
    bench.drain();
    assert_lfs(&bench, &["d/a"]);
}

#[test]
fn switched_off_new_versions_are_inline_and_old_pointers_stay() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    for (seed, path) in (1..).zip(["d/a", "d/b", "d/c"]) {
        bench.write(path, content(seed, 2 << 20));
    }
    bench.write("d/small", "x");
    bench.back_up();
    switch(&mut bench, "null");
    bench.write("d/a", content(9, 2 << 20));
    // Only its time changes: what is stored stays in its form.
    bench.write("d/b", content(2, 2 << 20));
    bench.back_up();
    assert_lfs(&bench, &["d/b", "d/c"]);
    switch(&mut bench, "{threshold: 1KiB}");
    bench.write("d/a", content(9, 2 << 20));
    bench.write("d/small", content(4, 1024));
    bench.back_up();
    assert_lfs(&bench, &["d/b", "d/c", "d/small"]);
}

/// As after a lost database; the tip.
fn make_cache_anew(bench: &mut Bench) -> Oid {
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let root = bench.roots[0].name.clone();
    bench.queue.distrust_files(&bench.name).unwrap();
    rebuild_files(&bench.repository, tip, &root, &Progress::new(), &mut |part| {
        let settlement = Settlement { files: vec![(root.clone(), part)], ..Settlement::default() };
        bench.queue.settle(&bench.name, &settlement, 1)
    })
    .unwrap();
    tip
}

/// Somebody changes the attributes of `d` by hand, in a commit on top of ours, and the cache goes along.
fn tamper(bench: &mut Bench, attributes: Option<&str>) {
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let batch = bench.store.reader().checkpoint(&bench.name).unwrap().unwrap().batch;
    let objects = bench.repository.objects().unwrap();
    let mut edits = Edits::new();
    match attributes {
        Some(text) => {
            let oid = TreeSink::write(&objects, ObjectType::Blob, text.as_bytes()).unwrap();
            edits.set(&b"folder/d/.gitattributes"[..], Entry { mode: tree::MODE_FILE, oid });
        }
        None => edits.remove(&b"folder/d/.gitattributes"[..]),
    }
    let tree = tree::apply(&objects, &objects, Some(bench.repository.tree_of(tip).unwrap()), &edits);
    let (tree, parent) = (tree.unwrap().unwrap().to_string(), tip.to_string());
    let who = ["-c", "user.name=x", "-c", "user.email=x"];
    let commit = [&who[..], &["commit-tree", &tree, "-p", &parent, "-m", "x"]].concat();
    let commit = git(bench.repository.path(), &commit).trim().to_owned();
    drop(objects);
    git(bench.repository.path(), &["update-ref", BRANCH, &commit]);
    let checkpoint = Some(Checkpoint { commit: raw(commit.parse().unwrap()), at_ms: 1, batch });
    bench.queue.settle(&bench.name, &Settlement { checkpoint, ..Settlement::default() }, 1).unwrap();
}

#[test]
fn a_cache_made_from_the_tree_knows_pointers_and_brings_lost_contents_back() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    bench.write("d/a", content(1, LARGE));
    bench.write("d/b", content(2, 2 << 20));
    bench.write("d/c", content(3, 2 << 20));
    bench.write("d/small", "x");
    bench.back_up();
    let tip = make_cache_anew(&mut bench);
    fs::remove_dir_all(bench.repository.path().join("lfs")).unwrap();
    fs::remove_file(bench.root().join("d/c")).unwrap();
    bench.back_up();
    let after = bench.repository.reference(BRANCH).unwrap().unwrap();
    let parent = git(bench.repository.path(), &["rev-parse", "main^"]);
    assert_eq!(parent.trim(), tip.to_string());
    let changed = git(bench.repository.path(), &["diff", "--name-only", "main^", "main", "--", "folder"]);
    assert_eq!(changed, "folder/d/.gitattributes\nfolder/d/c\n", "{after}");
    assert_lfs(&bench, &["d/a", "d/b"]);
}

#[test]
fn a_file_that_is_only_touched_brings_its_content_back_unless_every_remote_has_it() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    bench.write("whole", content(1, LARGE));
    bench.write("streamed", content(2, 3 << 20));
    bench.back_up();
    let objects = Objects::of(bench.repository.path());
    let all = objects.list().unwrap();
    for (is_everywhere, left) in [(true, 0), (false, 2), (true, 2)] {
        if left == 0 {
            all.iter().for_each(|pointer| objects.remove(&pointer.id).unwrap());
        }
        bench.is_everywhere = is_everywhere;
        for path in ["whole", "streamed"] {
            let mode = if is_everywhere { 0o600 } else { 0o640 };
            fs::set_permissions(bench.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        bench.back_up();
        assert_eq!(objects.list().unwrap().len(), left, "{is_everywhere}");
    }
    assert_lfs(&bench, &["streamed", "whole"]);
}

#[test]
fn attributes_that_are_lost_or_not_ours_are_made_anew() {
    let mut bench = with_lfs("{threshold: 64KiB}");
    bench.write("d/a", content(1, LARGE));
    bench.write("d/b", content(2, LARGE));
    bench.back_up();
    for foreign in [Some("* -filter\n"), None] {
        tamper(&mut bench, foreign);
        bench.write("d/b", content(if foreign.is_some() { 3 } else { 4 }, LARGE));
        bench.back_up();
        assert_lfs(&bench, &["d/a", "d/b"]);
    }
}

#[test]
fn a_cache_made_from_the_tree_knows_pointers_also_where_the_attributes_are_not_ours() {
    let mut bench = bench();
    let look_alike = Pointer::of(b"nothing").encode();
    bench.write("d/look-alike", &look_alike);
    bench.back_up();
    switch(&mut bench, "{threshold: 64KiB}");
    bench.write("d/a", content(1, LARGE));
    bench.write("d/small", "x");
    bench.write("d/empty", "");
    symlink(&look_alike, bench.root().join("d/link")).unwrap();
    bench.back_up();
    tamper(&mut bench, Some("* filter=other\n"));
    make_cache_anew(&mut bench);
    let files = bench.store.reader().files(&bench.name).unwrap();
    let known = files.children(&bench.roots[0].name, &RelPath::new("d").unwrap()).unwrap();
    let pointers = known.iter().filter(|(_, record)| record.is_pointer);
    assert_eq!(pointers.map(|(name, _)| name.as_slice()).collect::<Vec<_>>(), [b"a"]);
    assert_eq!(known.len(), 5);
}

/// Prints what it takes, for docs/performance.md.
#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture ten_thousand_large"]
fn ten_thousand_large_files_in_one_directory() {
    let mut bench = with_lfs("{threshold: 1KiB}");
    for number in 0..10_000u32 {
        bench.write(&format!("d/{number}"), number.to_le_bytes().repeat(256));
    }
    let mut measure = |what: &str, step: &mut dyn FnMut(&mut Bench)| {
        let began = std::time::Instant::now();
        step(&mut bench);
        println!("{what}: {:?}", began.elapsed());
    };
    measure("10,000 large files", &mut |bench| {
        bench.touch("", Reach::Deep);
        bench.step();
    });
    for seed in 0..3 {
        measure("one more version of one of them", &mut |bench| {
            bench.write("d/5000", content(seed, LARGE));
            bench.touch("d/5000", Reach::Exact);
            bench.step();
        });
    }
    measure("one small file beside them", &mut |bench| {
        bench.write("d/small", "x");
        bench.touch("d/small", Reach::Exact);
        bench.step();
    });
    measure("a clone through git-lfs, and what it finds", &mut |bench| {
        let (home, clone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = format!("file://{}", bench.repository.path().display());
        git_lfs(clone.path(), home.path(), &["clone", "-q", &source, "."]);
    });
    measure("git status there without git-lfs", &mut |bench| {
        let clone = tempfile::tempdir().unwrap();
        let source = format!("file://{}", bench.repository.path().display());
        git(clone.path(), &["clone", "-q", &source, "."]);
        git(clone.path(), &["check-attr", "filter", "folder/d/5000"]);
    });
}
