//! Git is the judge: random trees and patterns are put before `git check-ignore`, and every answer must agree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn rules(root: &TempDir, patterns: &[&str], files: &[&str], system: bool) -> IgnoreRules {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    IgnoreRules::new(root.path(), &owned(patterns), &owned(files), system).0
}

fn write(root: &TempDir, path: &str, content: impl AsRef<[u8]>) {
    let path = root.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// An empty repository, made by hand because `git init` for every case takes most of the time.
fn repository() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["objects", "refs", "info"] {
        std::fs::create_dir_all(root.path().join(".git").join(directory)).unwrap();
    }
    write(&root, ".git/HEAD", "ref: refs/heads/main\n");
    root
}

/// Runs Git in `root` without anybody's configuration.
fn git(root: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

/// What Git decides on each path: excluded or not.
fn verdicts_of_git(root: &Path, paths: &[RelPath]) -> BTreeMap<RelPath, bool> {
    let mut input = Vec::new();
    for path in paths {
        input.extend_from_slice(path.as_bytes());
        input.push(0);
    }
    let output = git(root, &["check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"], &input);
    let fields: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    let answers = fields.chunks_exact(4).map(|answer| {
        let excluded = !answer[2].is_empty() && !answer[2].starts_with(b"!");
        (RelPath::new(answer[3]).unwrap(), excluded)
    });
    let answers: BTreeMap<_, _> = answers.collect();
    assert_eq!(answers.len(), paths.len());
    answers
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    let odd = ["a b", "a ", "!a", "#b", "a*", "[a]", "a-b", "{a,b}", "ab.c", "é", "a\\b", "a\t"];
    prop_oneof![
        20 => "[ab]{1,2}".prop_map(String::into_bytes),
        3 => prop::sample::select(odd.to_vec()).prop_map(|name| name.as_bytes().to_vec()),
        1 => Just(vec![b'a', 0xff]),
        1 => Just(vec![b'\n', b'a']),
    ]
}

fn file_path() -> impl Strategy<Value = RelPath> {
    prop::collection::vec(component(), 1..5)
        .prop_map(|components| RelPath::new(components.join(&b"/"[..])).unwrap())
}

fn pattern_line() -> impl Strategy<Value = Vec<u8>> {
    let plain = ["a", "b", "*", "?", "/", "**", "**/", "/**/", "/**", "[ab]", "a/"];
    let odd = [
        "\\",
        "[!a]",
        "[^b]",
        "[a-c]",
        "[]a]",
        "[a",
        "[[:alpha:]]",
        "[[:punct:]x]",
        "[[:no:]]",
        "[a\\]]",
        "[/]",
        " ",
        "\\ ",
        "{a,b}",
        "é",
        ".c",
        "\t",
        "-",
        "#",
        "!",
        "\r",
        "***",
        "\\/",
        "\\a",
        "[[:a]",
        "[--b]",
        "[b-a]",
    ];
    let piece = prop_oneof![
        40 => prop::sample::select(plain.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        10 => prop::sample::select(odd.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => Just(vec![0xff]),
    ];
    let start =
        prop_oneof![8 => Just(""), 1 => prop::sample::select(vec!["!", "/", "!/", "\\!", "\\#", "#"])];
    let end = prop_oneof![8 => Just(""), 1 => prop::sample::select(vec!["/", " ", "\\ ", "  ", "\r"])];
    (start, prop::collection::vec(piece, 1..5), end).prop_map(|(start, middle, end)| {
        [start.as_bytes().to_vec(), middle.concat(), end.as_bytes().to_vec()].concat()
    })
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), prop::collection::vec(pattern_line(), 0..5)).prop_map(|(marked, lines)| {
        let mark: &[u8] = if marked { b"\xef\xbb\xbf" } else { b"" };
        [mark, &lines.join(&b"\n"[..])].concat()
    })
}

fn compare_with_git(
    files: &[RelPath],
    configured: &[u8],
    ignore_files: &[(usize, Vec<u8>)],
) -> Result<(), TestCaseError> {
    let root = repository();
    let at = |path: &RelPath| root.path().join(OsStr::from_bytes(path.as_bytes()));
    for file in files {
        // Two random paths may want the same name as file and as directory; the first wins.
        let Some(parent) = file.parent() else { continue };
        if std::fs::create_dir_all(at(&parent)).is_ok() && !at(file).exists() {
            std::fs::write(at(file), "x").unwrap();
        }
    }
    let mut asked: Vec<(RelPath, bool)> = Vec::new();
    let mut stack = vec![RelPath::root()];
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(at(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name().as_bytes());
            let is_dir = entry.file_type().unwrap().is_dir();
            if path.as_bytes() == b".git" {
                continue;
            }
            if is_dir {
                stack.push(path.clone());
            }
            asked.push((path, is_dir));
        }
    }
    asked.sort();
    let directories: Vec<RelPath> = asked
        .iter()
        .filter(|(_, is_dir)| *is_dir)
        .map(|(path, _)| path.clone())
        .chain([RelPath::root()])
        .collect();
    for (choice, content) in ignore_files {
        std::fs::write(at(&directories[choice % directories.len()].join(b".gitignore")), content).unwrap();
    }
    std::fs::write(root.path().join(".git/info/exclude"), configured).unwrap();

    // The configuration takes text only; the rest of the line format is the same as in a file.
    let text = String::from_utf8_lossy(configured).into_owned();
    let exact =
        text.as_bytes() == configured && !configured.starts_with(b"\xef\xbb\xbf") && !text.contains('\r');
    let patterns: Vec<String> =
        if exact { text.split('\n').map(str::to_owned).collect() } else { Vec::new() };
    if !exact {
        std::fs::write(root.path().join(".git/info/exclude"), "").unwrap();
    }
    let (rules, _) = IgnoreRules::new(root.path(), &patterns, &[".gitignore".to_owned()], false);
    let paths: Vec<RelPath> = asked.iter().map(|(path, _)| path.clone()).collect();
    let expected = verdicts_of_git(root.path(), &paths);
    for (path, is_dir) in &asked {
        let ours = !rules.verdict(path, *is_dir).is_included();
        prop_assert_eq!(ours, expected[path], "{:?} (directory: {})", path, is_dir);
        let scope = rules.scope_fresh(&path.parent().unwrap());
        let walked = !rules.verdict_child(&scope, path.file_name().unwrap(), *is_dir).is_included();
        prop_assert_eq!(walked, ours, "a walk differs on {:?}", path);
    }
    Ok(())
}

/// Every path of up to three components of up to two of the letters a and b.
fn all_short_paths() -> Vec<RelPath> {
    let names = ["a", "b", "aa", "ab", "ba", "bb"];
    let mut paths: Vec<RelPath> = names.map(rel).to_vec();
    let mut from = 0;
    for _ in 1..3 {
        let longer = paths.len();
        for at in from..longer {
            paths.extend(names.map(|name| paths[at].join(name.as_bytes())));
        }
        from = longer;
    }
    paths
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn every_verdict_is_that_of_git(
        files in prop::collection::vec(file_path(), 1..25),
        configured in lines(),
        ignore_files in prop::collection::vec((any::<usize>(), lines()), 0..4),
    ) {
        compare_with_git(&files, &configured, &ignore_files)?;
    }

    #[test]
    fn a_single_pattern_matches_exactly_the_paths_that_git_says(line in pattern_line()) {
        let root = repository();
        write(&root, ".gitignore", &line);
        let rules = rules(&root, &[], &[".gitignore"], false);
        for (path, excluded) in verdicts_of_git(root.path(), &all_short_paths()) {
            let ours = !rules.verdict(&path, false).is_included();
            prop_assert_eq!(ours, excluded, "{:?} under {:?}", path, String::from_utf8_lossy(&line));
        }
    }
}

#[test]
fn every_named_class_holds_the_bytes_that_git_puts_there() {
    let root = repository();
    let classes = [
        "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
        "xdigit",
    ];
    let mut content = String::new();
    for class in classes {
        content.push_str(&format!("{class}-[[:{class}:]]\n"));
    }
    write(&root, ".gitignore", &content);
    let bytes = (1..=255u8).filter(|byte| *byte != b'/');
    let paths: Vec<RelPath> = bytes
        .flat_map(|byte| {
            classes.map(|class| RelPath::new([class.as_bytes(), b"-", &[byte]].concat()).unwrap())
        })
        .collect();
    let rules = rules(&root, &[], &[".gitignore"], false);
    for (path, excluded) in verdicts_of_git(root.path(), &paths) {
        assert_eq!(!rules.verdict(&path, false).is_included(), excluded, "{path:?}");
    }
}

#[test]
fn the_rule_closest_to_the_file_decides() {
    let root = tempfile::tempdir().unwrap();
    write(&root, ".backupbotignore", "!one\ntwo\n");
    write(&root, "sub/.backupbotignore", "!two\n");
    let rules = rules(&root, &["one", "!Thumbs.db"], &[".backupbotignore"], true);
    assert_eq!(rules.verdict(&rel("one"), false), Verdict::Included);
    assert_eq!(rules.verdict(&rel("sub/two"), false), Verdict::Included);
    assert_eq!(rules.verdict(&rel("Thumbs.db"), false), Verdict::Included);
    let by_file =
        Verdict::Excluded { by: ExcludedBy::IgnoreFile, rule: ".backupbotignore:2: two".to_owned() };
    assert_eq!(rules.verdict(&rel("two"), false), by_file);
    let by_system = Verdict::Excluded { by: ExcludedBy::System, rule: ".DS_Store".to_owned() };
    assert_eq!(rules.verdict(&rel("sub/.DS_Store"), false), by_system);
}

#[test]
fn of_two_ignore_files_in_a_directory_the_later_named_decides() {
    let root = tempfile::tempdir().unwrap();
    write(&root, ".first", "a\n!b\n");
    write(&root, ".second", "!a\nb\n");
    let rules = rules(&root, &[], &[".first", ".second"], false);
    assert!(rules.verdict(&rel("a"), false).is_included());
    assert!(!rules.verdict(&rel("b"), false).is_included());
    assert!(rules.is_ignore_file(b".second") && !rules.is_ignore_file(b"second"));
}

#[test]
fn nothing_below_an_excluded_directory_comes_back_and_its_ignore_file_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    write(&root, "out/.backupbotignore", "!*\n[broken\n");
    let rules = rules(&root, &["out/", "!out/keep"], &[".backupbotignore"], false);
    let expected = Verdict::Excluded { by: ExcludedBy::Pattern, rule: "out/".to_owned() };
    assert_eq!(rules.verdict(&rel("out/keep"), false), expected);
    assert_eq!(rules.verdict(&rel("out/deep/keep"), false), expected);
    assert_eq!(rules.problems(), []);
}

#[test]
fn built_in_rules_hide_junk_and_no_work() {
    let root = tempfile::tempdir().unwrap();
    let rules = rules(&root, &[], &[], true);
    let files = [
        ".DS_Store",
        "a/Thumbs.db",
        ".note.txt.swp",
        ".#note",
        "~$report.docx",
        ".~lock.a.odt#",
        ".nfs0123456789abcdef01234567",
        ".fuse_hidden0123456789abcdef",
    ];
    for path in files {
        assert!(!rules.verdict(&rel(path), false).is_included(), "{path}");
        assert!(rules.verdict(&rel(path), true).is_included(), "a directory called {path}");
    }
    for path in ["lost+found", ".Trash-1000", "a/$RECYCLE.BIN"] {
        assert!(!rules.verdict(&rel(path), true).is_included(), "{path}");
        assert!(rules.verdict(&rel(path), false).is_included(), "a file called {path}");
    }
    let kept = [
        "note~",
        "#note#",
        "._note",
        "desktop.ini",
        ".film.swf",
        ".#note.c.1.12",
        ".nfs-notes",
        "a/lost+found",
        "note.swp",
        "~notes",
    ];
    for path in kept {
        assert!(rules.verdict(&rel(path), false).is_included(), "{path}");
        assert!(rules.verdict(&rel(path), true).is_included(), "{path}");
    }
}

#[test]
fn a_changed_ignore_file_counts_after_forget_and_on_a_fresh_look() {
    let root = tempfile::tempdir().unwrap();
    write(&root, "d/.backupbotignore", "a\n");
    let rules = rules(&root, &[], &[".backupbotignore"], false);
    assert!(!rules.verdict(&rel("d/e/a"), false).is_included());
    write(&root, "d/.backupbotignore", "b\n");
    assert!(!rules.verdict(&rel("d/e/a"), false).is_included());
    rules.forget(&rel("d"));
    assert!(rules.verdict(&rel("d/e/a"), false).is_included());
    assert!(!rules.verdict(&rel("d/e/b"), false).is_included());
    std::fs::remove_file(root.path().join("d/.backupbotignore")).unwrap();
    assert!(rules.verdict_child(&rules.scope_fresh(&rel("d")), b"b", false).is_included());
}

#[test]
fn an_ignore_file_that_cannot_be_obeyed_is_a_problem_and_excludes_nothing() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside, "list", "x\n");
    let root = tempfile::tempdir().unwrap();
    for directory in ["link", "pipe", "large", "directory/.backupbotignore", "broken", "fine"] {
        std::fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    std::os::unix::fs::symlink(outside.path().join("list"), root.path().join("link/.backupbotignore"))
        .unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("pipe/.backupbotignore"), rustix::fs::Mode::RWXU)
        .unwrap();
    write(&root, "large/.backupbotignore", "x\n".repeat(600_000));
    write(&root, "broken/.backupbotignore", "x[\ny\\\nz\n");
    write(&root, "fine/.backupbotignore", "x\n");
    let rules = rules(&root, &[], &[".backupbotignore"], false);
    for directory in ["link", "pipe", "large", "directory", "broken"] {
        assert!(rules.verdict(&rel(&format!("{directory}/x")), false).is_included(), "{directory}");
    }
    assert!(!rules.verdict(&rel("fine/x"), false).is_included());
    assert!(!rules.verdict(&rel("broken/z"), false).is_included());
    let reasons: Vec<String> = rules.problems().into_iter().map(|problem| problem.reason).collect();
    assert_eq!(
        reasons,
        [
            "line 1 of the ignore file broken/.backupbotignore excludes nothing: a character class is not closed, and so do 1 more lines",
            "the ignore file directory/.backupbotignore is not obeyed: it is not a regular file",
            "the ignore file large/.backupbotignore is not obeyed: it is larger than 1 MiB",
            "the ignore file link/.backupbotignore is not obeyed: it is a symbolic link",
            "the ignore file pipe/.backupbotignore is not obeyed: it is not a regular file",
        ]
    );
    std::fs::remove_file(root.path().join("large/.backupbotignore")).unwrap();
    rules.scope_fresh(&rel("large"));
    assert_eq!(rules.problems().len(), 4);
}

#[test]
fn an_ignore_file_reached_through_a_link_is_not_read() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside, ".backupbotignore", "x\n");
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    let rules = rules(&root, &[], &[".backupbotignore"], false);
    assert!(rules.verdict(&rel("link/x"), false).is_included());
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (_, problems) =
        IgnoreRules::new(Path::new("/"), &owned(&["*.o", "a["]), &owned(&["x/y", ".ok", ""]), true);
    let reasons: Vec<String> = problems.into_iter().map(|problem| problem.reason).collect();
    assert_eq!(
        reasons,
        [
            "ignore pattern 2, \"a[\", excludes nothing: a character class is not closed",
            "ignore file \"x/y\" is not obeyed: it must be a plain file name",
            "ignore file \"\" is not obeyed: it must be a plain file name",
        ]
    );
}

#[test]
fn the_cache_stays_bounded_and_right() {
    let root = tempfile::tempdir().unwrap();
    write(&root, ".backupbotignore", "x\n");
    let rules = rules(&root, &[], &[".backupbotignore"], false);
    for number in 0..20_000 {
        assert!(!rules.verdict(&rel(&format!("d{number}/x")), false).is_included());
    }
    assert!(rules.cache().get(&RelPath::root()).is_some() || !rules.verdict(&rel("x"), false).is_included());
}

#[test]
fn the_price_of_a_verdict_is_printed() {
    let root = tempfile::tempdir().unwrap();
    for (what, patterns, system) in [
        ("no patterns", &[][..], false),
        ("built-in list", &[], true),
        ("built-in list and five patterns", &["*.o", "target/", "/a/**/b", "x*y?z", "!keep.o"], true),
    ] {
        let rules = rules(&root, patterns, &[".backupbotignore"], system);
        let scope = rules.scope_fresh(&RelPath::root());
        let names: Vec<Vec<u8>> = (0..100_000).map(|n| format!("file-{n}.txt").into_bytes()).collect();
        let start = std::time::Instant::now();
        let included =
            names.iter().filter(|name| rules.verdict_child(&scope, name, false).is_included()).count();
        let each = start.elapsed() / 100_000;
        assert_eq!(included, 100_000);
        eprintln!("{what}: {each:?} a file");
    }
}

#[test]
fn a_tree_deeper_than_a_stack_does_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let rules = rules(&root, &[], &[".backupbotignore"], false);
    assert!(rules.verdict(&rel(&vec!["d"; 3000].join("/")), false).is_included());
    let mut above: Option<Arc<Level>> = None;
    for _ in 0..200_000 {
        above = Some(Arc::new(Level {
            file: RelPath::root(),
            rules: Rules::default(),
            directory_length: 0,
            above,
        }));
    }
    drop(above);
}
