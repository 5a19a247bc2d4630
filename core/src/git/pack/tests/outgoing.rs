//! Packs that rest on what the other end has, taken in by the real git there.

use git2::Oid;

use super::Repository as Place;
use crate::git::pack::{OutgoingPack, Written};
use crate::git::reachable::push_set;
use crate::git::repository::Repository;
use crate::progress::Progress;

/// A repository with a history that git made, stored without differences, and a copy of its beginning.
struct Ends {
    here: Place,
    there: Place,
}

fn text(lines: usize, seed: usize) -> String {
    (0..lines).map(|line| format!("{}\n", blake3::hash(&(line * 1000 + seed).to_le_bytes()))).collect()
}

impl Ends {
    /// `commit` is called with each number after the first, which both have.
    fn new(commits: usize, commit: impl Fn(usize) -> Vec<(String, String)>) -> Self {
        let ends = Self { here: Place::new(), there: Place::new() };
        let mut stream = String::new();
        for number in 0..=commits {
            stream += &format!("commit refs/heads/main\ncommitter a <a@a> {number} +0000\ndata 1\nx\n");
            for (path, content) in commit(number) {
                stream += &format!("M 100644 inline {path}\ndata {}\n{content}\n", content.len());
            }
        }
        ends.here.git(&["fast-import", "--quiet"], stream.as_bytes());
        ends.here.git(&["-c", "pack.window=0", "repack", "-adFq"], b"");
        let first = format!("main~{commits}");
        let old = ends.here.git(&["pack-objects", "--revs", "--stdout", "-q"], first.as_bytes());
        ends.there.git(&["index-pack", "--stdin"], &old);
        ends
    }

    fn oid(&self, revision: &str) -> Oid {
        let text = String::from_utf8(self.here.git(&["rev-parse", revision], b"")).unwrap();
        text.trim().parse().unwrap()
    }

    /// Sends everything, differences allowed or not, and has git check it at the other end.
    fn send(&self, old: &str, differences: bool) -> Written {
        let repository = Repository::open(self.here.path()).unwrap();
        let progress = Progress::new();
        let set = push_set(&repository, self.oid("main"), &[self.oid(old)], &progress).unwrap();
        let mut pack = OutgoingPack::new(&repository, &set.objects, &progress).unwrap();
        if differences {
            pack.rest_on(&set.formers);
        }
        let mut bytes = Vec::new();
        let written = pack
            .write(&mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        assert_eq!(written.bytes, bytes.len() as u64);
        self.there.git(&["index-pack", "--stdin", "--fix-thin", "--strict"], &bytes);
        self.there.git(&["update-ref", "refs/heads/main", &self.oid("main").to_string()], b"");
        self.there.git(&["fsck", "--full", "--strict", "--no-dangling"], b"");
        written
    }
}

#[test]
fn a_change_in_a_large_directory_and_in_a_large_file_sends_little_more_than_the_change() {
    let files = |number: usize| {
        let mut files: Vec<(String, String)> = Vec::new();
        if number == 0 {
            files.extend((0..3000).map(|n| (format!("many/file-{n}"), format!("{n}"))));
        }
        files.push(("many/file-17".to_owned(), format!("other {number}")));
        files.push(("log".to_owned(), text(5000 + number * 3, 1)));
        files
    };
    let whole = Ends::new(1, files).send("main~1", false);
    let thin = Ends::new(1, files).send("main~1", true);
    assert_eq!((whole.deltas, thin.deltas, thin.objects), (0, 2, whole.objects));
    assert!(whole.bytes > 250_000, "{whole:?}");
    assert!(thin.bytes < 2_000, "{thin:?}");
}

#[test]
fn what_changes_back_and_forth_never_rests_on_itself() {
    let ends = Ends::new(6, |number| vec![("a".to_owned(), text(500, 0) + ["x", "y", "z"][number % 3])]);
    assert!(ends.send("main~6", true).deltas > 0);
    // Against what the other end has, all three versions come again.
    let ends = Ends::new(4, |number| match number {
        0 => vec![("b".to_owned(), "b".to_owned())],
        _ => vec![("a".to_owned(), text(500, 0) + ["x", "y"][number % 2])],
    });
    assert!(ends.send("main~4", true).deltas > 0);
}

#[test]
fn differences_upon_differences_end_before_they_are_a_burden() {
    let ends = Ends::new(120, |number| vec![("log".to_owned(), text(500 + number, 2))]);
    let written = ends.send("main~120", true);
    assert!(written.deltas > 100, "{written:?}");
    let pack = std::fs::read_dir(ends.there.path().join("objects/pack")).unwrap();
    let mut deepest = 0;
    for file in
        pack.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "idx"))
    {
        let listed = ends.there.git(&["verify-pack", "-v", file.to_str().unwrap()], b"");
        for line in String::from_utf8(listed).unwrap().lines().filter(|line| line.contains("blob")) {
            let depth = line.split_whitespace().nth(5).map_or(0, |word| word.parse::<usize>().unwrap());
            deepest = deepest.max(depth);
        }
    }
    assert!((10..=50).contains(&deepest), "{deepest}");
}

#[test]
fn a_former_version_that_cannot_be_read_here_makes_no_difference() {
    let ends = Ends::new(1, |number| vec![("log".to_owned(), text(500 + number, 3))]);
    let repository = Repository::open(ends.here.path()).unwrap();
    let progress = Progress::new();
    let mut set = push_set(&repository, ends.oid("main"), &[ends.oid("main~1")], &progress).unwrap();
    for former in set.formers.values_mut() {
        *former = "1111111111111111111111111111111111111111".parse().unwrap();
    }
    let mut pack = OutgoingPack::new(&repository, &set.objects, &progress).unwrap();
    pack.rest_on(&set.formers);
    assert_eq!(pack.write(&mut |_| Ok(())).unwrap().deltas, 0);
}
