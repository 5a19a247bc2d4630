//! What Git refuses is asked of the real git: fsck for names as they are, fsck and clone for escaped ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use git2::Oid;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::tree::judge::Judge;

/// Names that are or look like what Git acts on, and everyday names with odd bytes.
fn nasty_names() -> BTreeSet<Vec<u8>> {
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    for base in [".git", ".gitmodules", ".gitattributes", ".lfsconfig", ".gitignore", ".mailmap"] {
        let upper = base.to_uppercase();
        let (first, last) = base.split_at(3);
        for form in [
            base.to_owned(),
            upper.clone(),
            format!("{base} "),
            format!("{upper}. . "),
            format!("{base}:"),
            format!("{base}::$INDEX_ALLOCATION"),
            format!("{base} .:stream\\x"),
            format!("{base}x"),
            format!("x{base}"),
            format!("{first}\u{200c}{last}"),
            format!("\u{feff}{base}\u{206f}"),
            format!("{base}\u{fffe}rest"),
            format!("{base}\u{200b}"),
            format!("a\\{base}"),
            format!("{base}\\"),
            format!("{base}\\hooks\\{upper} "),
            format!("\\{base}x"),
            format!("_bb_{base}"),
            format!("_bb__bb_{base}"),
            format!("100%{base}"),
            format!("%5C{base}"),
            format!("{base}%5C"),
        ] {
            names.insert(form.into_bytes());
        }
        names.insert([base.as_bytes(), b"\xff\xferest"].concat());
        names.insert([base.as_bytes(), b"\xed\xa0\x80"].concat());
        names.insert([&base.as_bytes()[..2], b"\xc0", &base.as_bytes()[2..]].concat());
    }
    for name in [
        "git~1",
        "GIT~1",
        "git~1 .",
        "git~1:x",
        "git~2",
        "git~10",
        "gitmod~1",
        "GITMOD~4 ",
        "gitmod~5",
        "gitatt~1",
        "gitatt~1.:x",
        "lfscon~1",
        "LFSCON~3",
        "gi7eba~1",
        "GI7EBA~9",
        "gi7d29~1",
        "gi7d2~12",
        "gi7d~123",
        "g~123456",
        "~1234567",
        "~0123456",
        "~12345678",
        "gi7eba~0",
        "lfd659~1",
        "LFD659~2..",
        "lfd65~12",
        "gi7ebb~1",
        "x\\git~1",
        "_bb_",
        "_bb_x",
        "_bb_meta",
        "_bb_%41",
        "_bb_%25",
        "_BB_x",
        "_bb",
        "%",
        "%25",
        "100%",
        "a\\b",
        "\\",
        "a\tb",
        "a\nb",
        "\"quoted\"",
        "-rf",
        "con",
        "aux.txt",
        "a:b",
        "name ",
        "name.",
        "...",
        "..git",
        ".gi",
        "*",
        "?",
        "žluť",
        "\u{1f600}",
        "e\u{301}",
        "\u{200c}",
        "a\u{202e}b",
    ] {
        names.insert(name.as_bytes().to_vec());
    }
    names.insert(b"\xff\xfe".to_vec());
    names.insert(b"\xc0.git".to_vec());
    names.insert(vec![b'x'; 255]);
    names
}

/// Names put together from the pieces of disguises, the same ones in every run.
fn random_names(count: usize) -> BTreeSet<Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b".",
        b".git",
        b".GIT",
        b"git",
        b"Git",
        b"g",
        b"i",
        b"T",
        b"modules",
        b"MODULES",
        b"attributes",
        b"gitmod",
        b"gitatt",
        b"gi7eba",
        b"gi7d29",
        b"gi7",
        b"~",
        b"~1",
        b"~4",
        b"~5",
        b"0",
        b"1",
        b"9",
        b" ",
        b":",
        b"\\",
        b"%",
        b"\xe2\x80\x8c",
        b"\xef\xbb\xbf",
        b"\xef\xbf\xbe",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"_bb_",
        b"x",
    ];
    let piece = prop::sample::select(PIECES.to_vec());
    let name = prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    let mut runner = TestRunner::deterministic();
    let mut names = BTreeSet::new();
    while names.len() < count {
        let name = name.new_tree(&mut runner).unwrap().current();
        if name != b"." && name != b".." {
            names.insert(name);
        }
    }
    names
}

fn tree_line(mode: &str, kind: &str, oid: Oid, name: &[u8]) -> Vec<u8> {
    [format!("{mode} {kind} {oid}\t").as_bytes(), name, b"\0"].concat()
}

#[test]
fn every_name_that_git_complains_of_is_escaped() {
    let judge = Judge::new();
    let blob = judge.write_blob(b"");
    let names: Vec<Vec<u8>> = nasty_names().union(&random_names(4000)).cloned().collect();
    let mut batch = Vec::new();
    for name in &names {
        // As a link, because Git complains of more names then; one tree a name, to know whose it is.
        batch.extend(tree_line("120000", "blob", blob, name));
        batch.push(0);
    }
    let made = judge.git_with(["mktree", "-z", "--batch"], &batch);
    let trees: Vec<String> = String::from_utf8(made).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(trees.len(), names.len());
    let name_of: BTreeMap<&str, &Vec<u8>> = trees.iter().map(String::as_str).zip(&names).collect();

    let complaints = judge.fsck();
    let mut seen = BTreeSet::new();
    for line in complaints.lines() {
        let Some((_, problem)) = line.split_once(" in tree ") else { continue };
        let (tree, problem) = problem.split_once(": ").unwrap();
        let kind = problem.split(':').next().unwrap();
        seen.insert(kind.to_owned());
        // Not acted on by a clone: links of these names are ignored, files of these names say what to ignore.
        if !matches!(kind, "gitignoreSymlink" | "mailmapSymlink") {
            assert!(needs_escape(name_of[tree]), "{kind}: {}", lossy(name_of[tree]));
        }
    }
    for expected in ["hasDotgit", "gitmodulesSymlink", "gitattributesSymlink"] {
        assert!(seen.contains(expected), "git no longer says {expected}: {seen:?}");
    }
}

#[test]
fn escaped_names_pass_fsck_and_a_protected_clone_byte_for_byte() {
    let judge = Judge::new();
    let names: Vec<Vec<u8>> = nasty_names().union(&random_names(300)).cloned().collect();
    assert!(names.len() > 400);
    let (mut files, mut links, mut directories) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        // A user's broken `.gitmodules` and over-long attributes must not matter either.
        let content = [&b"[submodule \"\n"[..], name, &[b'x'; 3000]].concat();
        let escaped = escape_component(name);
        files.extend(tree_line("100644", "blob", judge.write_blob(&content), &escaped));
        links.extend(tree_line("120000", "blob", judge.write_blob(b"../target"), &escaped));
        let inner =
            judge.git_with(["mktree", "-z"], &tree_line("100644", "blob", judge.write_blob(name), b"f"));
        let inner = Oid::from_str(String::from_utf8(inner).unwrap().trim()).unwrap();
        directories.extend(tree_line("040000", "tree", inner, &escaped));
    }
    let mut top = Vec::new();
    for (name, listing) in [("files", files), ("links", links), ("directories", directories)] {
        let tree = judge.git_with(["mktree", "-z"], &listing);
        let tree = Oid::from_str(String::from_utf8(tree).unwrap().trim()).unwrap();
        top.extend(tree_line("040000", "tree", tree, name.as_bytes()));
    }
    let tree = judge.git_with(["mktree", "-z"], &top);
    judge.commit(Oid::from_str(String::from_utf8(tree).unwrap().trim()).unwrap());

    let complaints: Vec<String> = judge
        .fsck()
        .lines()
        .filter(|line| !line.contains("gitignoreSymlink") && !line.contains("mailmapSymlink"))
        .map(str::to_owned)
        .collect();
    assert_eq!(complaints, Vec::<String>::new());

    let clone = tempfile::tempdir().unwrap();
    let target = clone.path().join("clone");
    judge.git([
        OsStr::new("-c"),
        OsStr::new("core.protectNTFS=true"),
        OsStr::new("-c"),
        OsStr::new("core.protectHFS=true"),
        OsStr::new("clone"),
        OsStr::new("--quiet"),
        judge.path().as_os_str(),
        target.as_os_str(),
    ]);
    let mut found = 0;
    for entry in std::fs::read_dir(target.join("files")).unwrap() {
        let escaped = entry.unwrap().file_name();
        let name = unescape_component(escaped.as_bytes()).unwrap();
        let content = std::fs::read(target.join("files").join(&escaped)).unwrap();
        assert_eq!(content, [&b"[submodule \"\n"[..], &name, &[b'x'; 3000]].concat());
        assert!(target.join("links").join(&escaped).is_symlink());
        assert_eq!(
            std::fs::read(target.join("directories").join(&escaped).join("f")).unwrap(),
            name.as_ref()
        );
        found += 1;
    }
    assert_eq!(found, names.len());
}

#[test]
fn nasty_names_come_back_and_stay_apart() {
    let names: Vec<Vec<u8>> = nasty_names().union(&random_names(4000)).cloned().collect();
    let mut stored = BTreeSet::new();
    for name in &names {
        let escaped = escape_component(name);
        assert_eq!(unescape_component(&escaped).as_deref(), Some(name.as_slice()), "{}", lossy(name));
        assert!(!escaped.split(|b| *b == b'\\').any(is_acted_on), "{}", lossy(&escaped));
        assert!(stored.insert(escaped.into_owned()), "{}", lossy(name));
    }
}

#[test]
fn the_contracts_examples_are_stored_as_it_says() {
    let cases: [(&[u8], &[u8]); 12] = [
        (b".git", b"_bb_.git"),
        (b".GiT", b"_bb_.GiT"),
        (b".gitattributes", b"_bb_.gitattributes"),
        (b".lfsconfig", b"_bb_.lfsconfig"),
        (b"git~1", b"_bb_git~1"),
        (b"a\\.git", b"_bb_a%5C.git"),
        (b".git:100%", b"_bb_.git:100%25"),
        (b"_bb_x", b"_bb__bb_x"),
        (b"_bb_\\%", b"_bb__bb_%5C%25"),
        (b".gitignore", b".gitignore"),
        (b"100%\\x", b"100%\\x"),
        (b".github", b".github"),
    ];
    for (name, stored) in cases {
        assert_eq!(escape_component(name), stored, "{}", lossy(name));
        assert_eq!(unescape_component(stored).as_deref(), Some(name));
    }
}

#[test]
fn names_that_no_escape_produces_are_told_apart() {
    for name in [
        &b"_bb_"[..],
        b"_bb_x",
        b"_bb_meta",
        b"_bb_.git%",
        b"_bb_.git%5c",
        b"_bb_.git%41",
        b"_bb_.git\\",
        b"_bb_..",
        b".git",
        b".GITMODULES",
        b"git~1",
        b"a\\.git",
        b"",
        b".",
        b"..",
        b"a/b",
        b"a\0",
        b"_bb_.git:/",
        b"_bb_.git:\0",
    ] {
        assert_eq!(unescape_component(name), None, "{}", lossy(name));
    }
}

#[test]
fn a_path_is_escaped_component_by_component() {
    let root = RootName::new("folder").unwrap();
    let path = RelPath::new(*b"src/.git/config").unwrap();
    assert_eq!(path.to_git_path(&root), b"folder/src/_bb_.git/config");
    assert_eq!(RelPath::root().to_git_path(&root), b"folder");
}

fn any_component() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>().prop_filter("no separator", |b| !matches!(b, b'/' | 0)), 1..40)
        .prop_filter("a name", |name| name != b"." && name != b"..")
}

proptest! {
    #[test]
    fn any_name_comes_back(name in any_component()) {
        let escaped = escape_component(&name);
        prop_assert_eq!(unescape_component(&escaped), Some(Cow::Borrowed(name.as_slice())));
    }

    #[test]
    fn whatever_can_be_unescaped_is_what_the_escape_writes(tail in any_component(), prefixed in any::<bool>()) {
        let stored = if prefixed { [ESCAPE_PREFIX, b".git:", &tail].concat() } else { tail };
        if let Some(name) = unescape_component(&stored) {
            prop_assert_eq!(escape_component(&name), Cow::Borrowed(stored.as_slice()));
        }
    }
}
