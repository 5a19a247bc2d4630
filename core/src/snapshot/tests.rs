//! Batches on real directories, judged by the real git.

mod large;
pub(crate) mod messages;
mod mounts;
mod orphans;
mod recovery;
pub(crate) mod sealed;
mod switch;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::config::Tags;
use crate::ignore::IgnoreRules;
use crate::lfs;
use crate::names::RepositoryName;
use crate::path::RelPath;
use crate::scan::Bounds;
use crate::store::changes::{Reach, WATERMARK};
use crate::store::{QueueStore, Store};
use crate::tree::Entry;

pub(crate) struct Bench {
    pub scratch: tempfile::TempDir,
    pub store: Store,
    pub queue: QueueStore,
    pub repository: Repository,
    pub name: RepositoryName,
    pub roots: Vec<WatchedRoot>,
    pub limit: Limit,
    pub tags: Tags,
    pub classifier: Classifier,
    pub encryption: Option<Encryption>,
    /// Whether the remotes are known to have all large contents.
    pub is_everywhere: bool,
    pub branch: String,
}

const BRANCH: &str = "refs/heads/main";

pub(crate) fn bench() -> Bench {
    bench_with(&[], &["folder"])
}

fn bench_with(patterns: &[&str], roots: &[&str]) -> Bench {
    let scratch = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(scratch.path()).unwrap();
    let path = scratch.path().join("repos/documents.git");
    let (repository, _) = Repository::open_or_create(&path, BRANCH, "state", "owner").unwrap();
    let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
    let roots = roots
        .iter()
        .map(|name| {
            let path = scratch.path().join("data").join(name);
            fs::create_dir_all(&path).unwrap();
            let (rules, problems) =
                IgnoreRules::new(&path, &patterns, &[".backupbotignore".to_owned()], true);
            assert!(problems.is_empty());
            WatchedRoot::new(RootName::new(*name).unwrap(), path, Arc::new(rules), Bounds::default())
        })
        .collect();
    Bench {
        queue: store.queue().unwrap(),
        store,
        repository,
        name: RepositoryName::new("documents").unwrap(),
        roots,
        limit: Limit { findings: 10_000, bytes: 256 << 20 },
        tags: Tags::default(),
        classifier: Classifier::default(),
        encryption: None,
        is_everywhere: false,
        branch: BRANCH.to_owned(),
        scratch,
    }
}

impl Bench {
    pub fn root(&self) -> PathBuf {
        self.roots[0].path.clone()
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn touch(&mut self, path: &str, reach: Reach) {
        let path = RelPath::new(path.as_bytes().to_vec()).unwrap();
        let root = self.roots[0].name.clone();
        self.queue.enqueue(&self.name, &root, &[(path, reach)], 1).unwrap();
    }

    fn build(&mut self) -> Built {
        self.try_build(None).unwrap()
    }

    pub fn try_build(&mut self, guard: Option<Guard<'_>>) -> Result<Built> {
        let rows = self.queue.take(&self.name, i64::MAX, 10_000, true).unwrap();
        let files = self.store.reader().files(&self.name).unwrap();
        let sealer = Sealer::read(self.encryption.as_ref())?;
        let batch = Batch {
            repository: &self.repository,
            branch: &self.branch,
            base: self.base(),
            identity: ("Test", "test@example.org"),
            instance: "laptop",
            tags: &self.tags,
            roots: &self.roots,
            rows,
            classifier: &self.classifier,
            is_everywhere: &|_| Ok(self.is_everywhere),
            files: &files,
            limit: self.limit,
            large_file: self.limit.bytes,
            number: self.store.reader().checkpoint(&self.name).unwrap().map_or(0, |c| c.batch) + 1,
            threads: 2,
            encryption: self.encryption.as_ref(),
            sealer: sealer.as_ref(),
            guard,
        };
        build(&batch, &Progress::new())
    }

    /// What the stat cache speaks of, where the branch has another name by now.
    fn base(&self) -> Option<Oid> {
        let checkpoint = self.store.reader().checkpoint(&self.name).unwrap()?;
        (self.branch != BRANCH).then(|| oid(&checkpoint.commit).unwrap())
    }

    /// One batch, through all its steps; the commit if there was one.
    pub fn step(&mut self) -> (Option<Oid>, Summary) {
        match self.build() {
            Built::Unchanged(settlement, summary) => {
                self.queue.settle(&self.name, &settlement, 2).unwrap();
                (None, summary)
            }
            Built::Commit(staged, summary) => {
                self.queue.stage(&self.name, &staged).unwrap();
                publish(&self.repository, &staged, &Progress::new()).unwrap();
                self.queue.settle(&self.name, &staged.settlement, 2).unwrap();
                (Some(oid(&staged.commit).unwrap()), summary)
            }
        }
    }

    /// Batches until the queue is empty; the number of commits.
    pub fn drain(&mut self) -> usize {
        let mut commits = 0;
        for _ in 0..10_000 {
            if self.queue.row_count(&self.name) == 0 {
                self.fsck();
                return commits;
            }
            commits += usize::from(self.step().0.is_some());
        }
        panic!("the queue does not drain");
    }

    pub fn back_up(&mut self) -> usize {
        for root in self.roots.iter().map(|root| root.name.clone()).collect::<Vec<_>>() {
            self.queue.enqueue(&self.name, &root, &[(RelPath::root(), Reach::Deep)], 1).unwrap();
        }
        self.drain()
    }

    pub fn fsck(&self) {
        let output = git(self.repository.path(), &["fsck", "--full", "--strict"]);
        assert!(!output.contains("error") && !output.contains("dangling"), "{output}");
    }

    fn clone_fresh(&self) -> tempfile::TempDir {
        let target = tempfile::tempdir().unwrap();
        let source = self.repository.path().to_str().unwrap();
        git(target.path(), &["clone", "-q", source, "."]);
        target
    }

    /// The plain clone is the root, up to the escape.
    pub fn assert_clone_equals(&self) {
        let clone = self.clone_fresh();
        for root in &self.roots {
            let mut cloned = listing(&clone.path().join(root.name.as_str()), true);
            let source = listing(&root.path, false);
            cloned.retain(|path, _| !path.is_empty());
            assert_eq!(cloned, source, "{}", root.name);
        }
    }
}

pub(crate) fn git(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(at).env("LC_ALL", "C").output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "git {arguments:?}: {text}");
    text
}

/// Files and links below `root`: what a clone can show of them.
fn listing(root: &Path, unescape: bool) -> BTreeMap<Vec<u8>, String> {
    fn walk(at: &Path, prefix: &[u8], unescape: bool, found: &mut BTreeMap<Vec<u8>, String>) {
        for entry in fs::read_dir(at).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = entry.file_name().as_bytes().to_vec();
            if unescape && name == lfs::attributes::FILE_NAME {
                continue;
            }
            let name =
                if unescape { crate::path::unescape_component(&name).unwrap().into_owned() } else { name };
            let path = [prefix, &name].concat();
            let metadata = entry.path().symlink_metadata().unwrap();
            if metadata.is_dir() {
                walk(&entry.path(), &[path.as_slice(), b"/"].concat(), unescape, found);
            } else if metadata.is_symlink() {
                found.insert(path, format!("-> {:?}", fs::read_link(entry.path()).unwrap()));
            } else if metadata.is_file() {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                let hash = blake3::hash(&fs::read(entry.path()).unwrap());
                found.insert(path, format!("{executable} {hash}"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, b"", unescape, &mut found);
    found
}

#[test]
fn a_first_backup_is_what_a_clone_shows() {
    let mut bench = bench();
    bench.write("a.txt", "one");
    bench.write("dir/deep/b.txt", "two");
    bench.write("dir/empty-file", "");
    bench.write("dir/.git/config", "[core]\n");
    bench.write(".gitattributes", "* text=auto\n");
    bench.write("crlf.txt", "a\r\nb\r\n");
    bench.write("_bb_odd", "x");
    fs::create_dir_all(bench.root().join("empty")).unwrap();
    symlink("a.txt", bench.root().join("link")).unwrap();
    symlink("/nowhere", bench.root().join("dangling")).unwrap();
    fs::set_permissions(bench.root().join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(bench.back_up(), 1);
    bench.assert_clone_equals();
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let tree = bench.repository.tree_of(tip).unwrap();
    let objects = bench.repository.objects().unwrap();
    let empty = metadata::read_directory(
        &objects,
        tree,
        &bench.roots[0].name,
        &RelPath::new(b"empty".to_vec()).unwrap(),
    );
    assert!(empty.unwrap().is_some(), "an empty directory lives in the metadata");
}

#[test]
fn nothing_changed_is_no_commit_and_one_change_is_one() {
    let mut bench = bench();
    bench.write("a", "one");
    bench.write("b", "two");
    assert_eq!(bench.back_up(), 1);
    assert_eq!(bench.back_up(), 0, "a rescan without changes");
    bench.touch("a", Reach::Exact);
    assert_eq!(bench.drain(), 0, "an event without a change");
    bench.write("a", "three");
    bench.touch("a", Reach::Exact);
    assert_eq!(bench.drain(), 1);
    bench.assert_clone_equals();
}

#[test]
fn deletions_renames_and_changes_of_kind_arrive() {
    let mut bench = bench();
    bench.write("file", "1");
    bench.write("dir/x", "2");
    bench.write("dir/sub/y", "3");
    bench.write("keep/z", "4");
    bench.back_up();
    fs::remove_file(bench.root().join("file")).unwrap();
    bench.write("file/now-a-directory", "5");
    fs::remove_dir_all(bench.root().join("dir")).unwrap();
    bench.write("dir", "now a file");
    fs::rename(bench.root().join("keep"), bench.root().join("kept")).unwrap();
    for path in ["file", "dir", "keep", "kept"] {
        bench.touch(path, Reach::Exact);
    }
    bench.drain();
    bench.assert_clone_equals();
    assert_eq!(bench.back_up(), 0, "the events told everything");
    fs::remove_file(bench.root().join("dir")).unwrap();
    symlink("kept", bench.root().join("dir")).unwrap();
    bench.back_up();
    bench.assert_clone_equals();
    assert_eq!(bench.back_up(), 0);
}

#[test]
fn what_a_directory_no_longer_holds_goes_with_the_directorys_own_row() {
    let mut bench = bench();
    for path in ["dir/stays", "dir/came-and-went", "dir/sub/x", "dir/sub-stays/y"] {
        bench.write(path, path);
    }
    bench.back_up();
    fs::remove_file(bench.root().join("dir/came-and-went")).unwrap();
    fs::remove_dir_all(bench.root().join("dir/sub")).unwrap();
    bench.touch("dir", Reach::Exact);
    bench.touch("dir/sub", Reach::Exact);
    let (_, summary) = bench.step();
    assert_eq!(summary.deleted, 2, "each counts once");
    bench.drain();
    bench.assert_clone_equals();
}

#[test]
fn a_large_root_is_split_into_commits_that_grow() {
    let mut bench = bench();
    for n in 0..60 {
        bench.write(&format!("d{}/e{}/f{n:02}", n % 3, n % 5), format!("{n}").repeat(10));
    }
    bench.limit = Limit { findings: 7, bytes: 256 << 20 };
    let commits = bench.back_up();
    assert!(commits > 8, "{commits}");
    bench.assert_clone_equals();
    assert_eq!(bench.back_up(), 0);
}

#[test]
fn a_commit_does_not_exceed_its_bytes_but_for_one_large_file() {
    let mut bench = bench();
    for n in 0..20 {
        bench.write(&format!("f{n:02}"), vec![u8::try_from(n).unwrap(); 1000]);
    }
    bench.write("big", vec![7u8; 9000]);
    bench.limit = Limit { findings: 10_000, bytes: 3500 };
    bench.queue.enqueue(&bench.name, &bench.roots[0].name, &[(RelPath::root(), Reach::Deep)], 1).unwrap();
    let mut large = 0;
    while bench.queue.row_count(&bench.name) > 0 {
        let (_, summary) = bench.step();
        large += usize::from(summary.bytes > 3500);
        assert!(summary.bytes <= 9000, "{summary:?}");
    }
    assert_eq!(large, 1);
    bench.assert_clone_equals();
}

#[test]
fn what_is_left_out_is_counted_and_leaves_the_tree_when_it_was_in() {
    let mut bench = bench_with(&["*.tmp"], &["folder"]);
    bench.write("a.tmp", "x");
    bench.write("a.txt", "x");
    bench.write(".DS_Store", "x");
    bench.write("later/x.log", "x");
    bench.back_up();
    let clone = bench.clone_fresh();
    assert!(!clone.path().join("folder/a.tmp").exists());
    assert!(!clone.path().join("folder/.DS_Store").exists());
    assert!(clone.path().join("folder/later/x.log").exists());
    bench.write(".backupbotignore", "later/\n");
    bench.queue.enqueue(&bench.name, &bench.roots[0].name, &[(RelPath::root(), Reach::Deep)], 1).unwrap();
    let (_, summary) = bench.step();
    let (counts, complete) = summary.walks[&bench.roots[0].name];
    assert!(complete);
    assert_eq!((counts.excluded_by_rules, counts.excluded_by_system), (2, 1));
    assert!(!bench.clone_fresh().path().join("folder/later").exists());
}

#[test]
fn a_root_that_is_gone_or_empty_or_elsewhere_deletes_nothing() {
    let mut bench = bench_with(&[], &["one", "two"]);
    bench.write("a", "1");
    fs::write(bench.roots[1].path.join("b"), "2").unwrap();
    bench.back_up();
    let aside = bench.scratch.path().join("aside");
    fs::rename(bench.root(), &aside).unwrap();
    fs::write(bench.roots[1].path.join("c"), "3").unwrap();
    bench.touch("a", Reach::Exact);
    bench.touch("", Reach::Deep);
    bench.queue.enqueue(&bench.name, &bench.roots[1].name, &[(RelPath::root(), Reach::Deep)], 1).unwrap();
    let (commit, summary) = bench.step();
    assert_eq!(summary.unavailable.len(), 1);
    assert!(commit.is_some(), "the other root goes on");
    let clone = bench.clone_fresh();
    assert!(clone.path().join("one/a").exists() && clone.path().join("two/c").exists());
    fs::create_dir(bench.root()).unwrap();
    let (commit, summary) = bench.step();
    assert!(commit.is_none() && summary.unavailable[0].reason.contains("is empty"), "{summary:?}");
    fs::remove_dir(bench.root()).unwrap();
    fs::rename(&aside, bench.root()).unwrap();
    bench.drain();
    bench.assert_clone_equals();
}

#[test]
fn special_files_are_recorded_and_hard_links_grouped() {
    let mut bench = bench();
    bench.write("a", "same");
    fs::hard_link(bench.root().join("a"), bench.root().join("b")).unwrap();
    let fifo = bench.root().join("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(bench.root().join("sock")).unwrap();
    bench.back_up();
    bench.assert_clone_equals();
    let tip = bench.repository.reference(BRANCH).unwrap().unwrap();
    let tree = bench.repository.tree_of(tip).unwrap();
    let objects = bench.repository.objects().unwrap();
    let record = |name: &str| {
        let path = RelPath::new(name.as_bytes().to_vec()).unwrap();
        metadata::read_record(&objects, tree, &bench.roots[0].name, &path).unwrap().unwrap()
    };
    assert_eq!(record("pipe").kind, EntryKind::Fifo);
    assert_eq!(record("sock").kind, EntryKind::Socket);
    assert_eq!(record("a").hard_link, record("b").hard_link);
    assert!(record("a").hard_link.is_some());
    let metadata = bench.root().join("a").metadata().unwrap();
    assert_eq!(record("a").mtime.seconds, metadata.mtime());
    assert_eq!(record("a").blake3, Some(*blake3::hash(b"same").as_bytes()));
}

#[test]
fn a_same_size_edit_with_its_time_put_back_is_seen() {
    let mut bench = bench();
    bench.write("a", "one");
    let then = bench.root().join("a").metadata().unwrap().modified().unwrap();
    bench.back_up();
    bench.write("a", "two");
    fs::File::options().write(true).open(bench.root().join("a")).unwrap().set_modified(then).unwrap();
    assert_eq!(bench.back_up(), 1);
    bench.assert_clone_equals();
}

#[test]
fn tags_are_set_by_their_period() {
    let mut bench = bench();
    bench.tags = Tags { every: crate::config::TagPeriod::Day, name: "backup-%Y-%m-%d".to_owned() };
    for content in ["one", "two"] {
        bench.write("a", content);
        bench.back_up();
    }
    assert_eq!(git(bench.repository.path(), &["tag"]).lines().count(), 1);
    bench.tags.every = crate::config::TagPeriod::Commit;
    bench.write("a", "three");
    bench.back_up();
    assert_eq!(git(bench.repository.path(), &["tag"]).lines().count(), 2);
}

#[test]
fn an_overflowing_queue_still_ends_with_everything() {
    let mut bench = bench();
    for n in 0..50 {
        bench.write(&format!("f{n}"), n.to_string());
    }
    let root = bench.roots[0].name.clone();
    let rows: Vec<_> = (0..=WATERMARK)
        .map(|n| (RelPath::new(format!("f{n}").into_bytes()).unwrap(), Reach::Exact))
        .collect();
    bench.queue.enqueue(&bench.name, &root, &rows, 1).unwrap();
    assert_eq!(bench.queue.row_count(&bench.name), 1);
    bench.drain();
    bench.assert_clone_equals();
}

#[test]
fn a_change_through_one_name_reaches_the_other_names_of_the_file() {
    let mut bench = bench();
    bench.write("a", "one");
    fs::create_dir(bench.root().join("d")).unwrap();
    fs::hard_link(bench.root().join("a"), bench.root().join("d/b")).unwrap();
    bench.back_up();
    bench.write("a", "two, through the first name");
    bench.touch("a", Reach::Exact);
    assert_eq!(bench.drain(), 1);
    bench.assert_clone_equals();
    assert_eq!(bench.back_up(), 0);
}

#[test]
fn a_file_that_became_an_empty_directory_leaves_the_tree() {
    let mut bench = bench();
    bench.write("d", "a file");
    bench.write("other", "x");
    bench.back_up();
    fs::remove_file(bench.root().join("d")).unwrap();
    fs::create_dir(bench.root().join("d")).unwrap();
    bench.touch("d", Reach::Deep);
    bench.drain();
    bench.assert_clone_equals();
}

#[test]
fn records_below_a_path_that_became_a_file_do_not_outlive_it() {
    let mut bench = bench();
    bench.write("a", "a file");
    bench.back_up();
    fs::remove_file(bench.root().join("a")).unwrap();
    bench.write("a/deep/inside", "kept by its inode");
    bench.touch("a/deep/inside", Reach::Exact);
    bench.drain();
    let aside = bench.scratch.path().join("aside");
    fs::rename(bench.root().join("a"), &aside).unwrap();
    bench.write("a", "a file again");
    bench.touch("a", Reach::Exact);
    bench.drain();
    fs::remove_file(bench.root().join("a")).unwrap();
    fs::rename(&aside, bench.root().join("a")).unwrap();
    bench.back_up();
    bench.assert_clone_equals();
}
