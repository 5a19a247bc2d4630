//! What is the kqueue backend's own: descriptors that run out, and what has none. What it shares with others is in
//! the conformance suite. On Linux the kernel is simulated.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// Enough for every test, and below what a test process may open.
const PLENTY: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(target_os = "linux")]
use super::simulated::Simulated as TestKernel;
#[cfg(not(target_os = "linux"))]
use super::system::System as TestKernel;

/// For the conformance suite: with descriptors for all.
pub fn make(root: &Path, rules: Arc<IgnoreRules>, _: &Path, one_file_system: bool) -> Box<dyn Backend> {
    Box::new(backend(root, rules, one_file_system, Pool::with_limit(PLENTY), |_| ()))
}

/// With descriptors for directories only.
pub fn make_without_files(
    root: &Path,
    rules: Arc<IgnoreRules>,
    _: &Path,
    one_file_system: bool,
) -> Box<dyn Backend> {
    Box::new(backend(root, rules, one_file_system, Pool::without_files(PLENTY), |_| ()))
}

fn backend(
    root: &Path,
    rules: Arc<IgnoreRules>,
    one_file_system: bool,
    pool: Arc<Pool>,
    prepare: impl FnOnce(&mut TestKernel),
) -> KqueueBackend {
    let (asker, woken) = Asker::new().unwrap();
    let mut kernel = TestKernel::new(woken).unwrap();
    prepare(&mut kernel);
    KqueueBackend::on(Box::new(kernel), asker, pool, root, rules, one_file_system).unwrap()
}

struct Fixture {
    directory: TempDir,
    backend: KqueueBackend,
    tokens: u64,
}

/// Starts a backend where the process may open `limit` files: up to 256, 64 less are for watching, and three
/// quarters of those for files.
fn started(limit: u64, fill: impl FnOnce(&Path)) -> Fixture {
    started_on(Pool::with_limit(limit), |_, _| (), fill)
}

fn started_on(
    pool: Arc<Pool>,
    prepare: impl FnOnce(&Path, &mut TestKernel),
    fill: impl FnOnce(&Path),
) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    fill(&root);
    let (rules, _) = IgnoreRules::new(&root, &[], &[".backupbotignore".to_owned()], true);
    let mut backend = backend(&root, Arc::new(rules), false, pool, |kernel| prepare(&root, kernel));
    backend.start(&Progress::new()).unwrap();
    Fixture { directory, backend, tokens: 0 }
}

impl Fixture {
    fn at(&self, below: &str) -> PathBuf {
        self.directory.path().join("root").join(below)
    }

    fn hints(&mut self) -> Vec<Hint> {
        self.tokens += 1;
        let token = Hint::Barrier(self.tokens);
        self.backend.control().barrier(self.tokens).unwrap();
        self.wait_for(&token)
    }

    fn wait_for(&mut self, wanted: &Hint) -> Vec<Hint> {
        let end = Instant::now() + PATIENCE;
        let mut hints = Vec::new();
        while !hints.contains(wanted) {
            assert!(Instant::now() < end, "waited in vain for {wanted:?}, got {hints:?}");
            self.backend.wait(Duration::from_millis(200), &mut hints).unwrap();
        }
        hints
    }

    /// Writes to all these files, and all are hinted.
    fn assert_told(&mut self, files: &[String]) {
        self.hints();
        for file in files {
            fs::write(self.at(file), format!("written at {:?}", Instant::now())).unwrap();
        }
        let hints = self.hints();
        for file in files {
            assert!(hints.contains(&changed(file)), "{file} in {hints:?}");
        }
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn changed(text: &str) -> Hint {
    Hint::Changed(path(text))
}

fn tree(root: &Path, directories: usize, files: usize) -> Vec<String> {
    let mut names = Vec::new();
    for directory in 0..directories {
        fs::create_dir_all(root.join(format!("d{directory}"))).unwrap();
        for file in 0..files {
            let name = format!("d{directory}/f{file}");
            fs::write(root.join(&name), "x").unwrap();
            names.push(name);
        }
    }
    names
}

#[test]
fn files_beyond_the_budget_are_compared_and_the_limit_is_named() {
    let mut files = Vec::new();
    let mut fixture = started(84, |root| files = tree(root, 5, 8));
    // 20 descriptors: the root, five directories, and 14 of 40 files.
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (6, 0));
    let sentence = stats.limited.unwrap();
    assert!(sentence.starts_with("26 files are not watched, and compared every few seconds"), "{sentence}");
    assert!(sentence.contains("may open 84 files (ulimit -n)"), "{sentence}");
    assert!(sentence.contains("kern.maxfilesperproc"), "{sentence}");
    fixture.assert_told(&files);
}

#[test]
fn a_directory_takes_the_descriptor_of_a_file() {
    let mut files = Vec::new();
    let mut fixture = started(84, |root| files = tree(root, 5, 8));
    for directory in 5..20 {
        fs::create_dir(fixture.at(&format!("d{directory}"))).unwrap();
    }
    fixture.hints();
    // All 20 for directories: the root and 19 of 20.
    assert_eq!((fixture.backend.stats().watches, fixture.backend.stats().unwatched), (20, 1));
    for directory in 5..20 {
        fs::remove_dir(fixture.at(&format!("d{directory}"))).unwrap();
    }
    fixture.hints();
    assert_eq!((fixture.backend.stats().watches, fixture.backend.stats().unwatched), (6, 0));
    fixture.assert_told(&files);
    fixture.backend.resync(&Progress::new()).unwrap();
    let sentence = fixture.backend.stats().limited.unwrap();
    assert!(sentence.starts_with("26 files"), "the descriptors went back to files: {sentence}");
    fixture.assert_told(&files);
}

#[test]
fn directories_beyond_the_budget_are_counted_with_all_below_and_made_good_by_a_resync() {
    let mut fixture = started(74, |root| {
        for number in 0..30 {
            fs::create_dir_all(root.join(format!("d{number}/below"))).unwrap();
            fs::write(root.join(format!("d{number}/below/f")), "x").unwrap();
        }
    });
    // Ten: the root and nine more.
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (10, 61 - 10));
    let sentence = stats.limited.unwrap();
    assert!(
        sentence.starts_with("51 directories are not watched, and compared at rescans only"),
        "{sentence}"
    );
    let beyond: Vec<RelPath> = fixture.backend.unwatched().into_keys().collect();
    let counted = |top: &RelPath| if top.as_bytes().ends_with(b"below") { 1 } else { 2 };
    assert_eq!(beyond.iter().map(counted).sum::<usize>(), 51, "{beyond:?}");
    // What is made right in one of them shows in its times.
    let top = beyond.first().unwrap().clone();
    fs::write(fixture.directory.path().join("root").join(top.as_os_path()).join("new"), "x").unwrap();
    assert!(fixture.hints().contains(&Hint::Deep(top)));
    for number in 4..30 {
        fs::remove_dir_all(fixture.at(&format!("d{number}"))).unwrap();
    }
    fixture.hints();
    fixture.backend.resync(&Progress::new()).unwrap();
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (9, 0), "the root and twice four");
    fs::write(fixture.at("d3/below/g"), "x").unwrap();
    assert!(fixture.hints().contains(&changed("d3/below/g")));
}

#[test]
fn what_is_compared_is_found_without_a_barrier_too() {
    let mut fixture = started_on(Pool::without_files(PLENTY), |_, _| (), |root| drop(tree(root, 3, 3)));
    fs::write(fixture.at("d1/f1"), "changed").unwrap();
    fixture.backend.sweep.hurry();
    fixture.wait_for(&changed("d1/f1"));
}

#[test]
fn a_second_change_that_leaves_no_trace_in_the_times_is_hinted() {
    let mut fixture = started_on(Pool::without_files(PLENTY), |_, _| (), |root| drop(tree(root, 1, 1)));
    for content in 0..50 {
        // Faster than the clock of the file system ticks, and of one size.
        fs::write(fixture.at("d0/f0"), [content]).unwrap();
        assert!(fixture.hints().contains(&changed("d0/f0")), "write {content}");
    }
}

#[test]
fn an_ignore_file_is_told_even_where_other_files_are_not() {
    let mut fixture = started_on(
        Pool::without_files(PLENTY),
        |_, _| (),
        |root| {
            drop(tree(root, 3, 3));
            fs::write(root.join(".backupbotignore"), "d0\n").unwrap();
        },
    );
    assert_eq!(fixture.backend.stats().watches, 3);
    fs::write(fixture.at(".backupbotignore"), "").unwrap();
    fixture.wait_for(&Hint::Deep(RelPath::root()));
    assert_eq!(fixture.backend.stats().watches, 4);
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_kernel_cannot_watch_is_compared_and_its_neighbours_are_told() {
    use std::os::unix::fs::MetadataExt;
    let mut files = Vec::new();
    let mut fixture = started_on(
        Pool::with_limit(PLENTY),
        |root, kernel| {
            let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
            kernel.refused = vec![inode("d1/f1"), inode("d2")];
        },
        |root| files = tree(root, 4, 3),
    );
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched, stats.limited), (4, 1, None));
    files.retain(|file| !file.starts_with("d2"));
    fixture.assert_told(&files);
    fs::write(fixture.at("d2/new"), "x").unwrap();
    assert!(fixture.hints().contains(&Hint::Deep(path("d2"))));
    assert_eq!(fixture.backend.stats().unwatched, 1);
}

#[test]
fn a_backend_that_is_dropped_gives_its_descriptors_back() {
    let pool = Pool::with_limit(PLENTY);
    let fixture = started_on(pool.clone(), |_, _| (), |root| drop(tree(root, 4, 4)));
    drop(fixture.backend);
    let mut budget = Budget::new(pool);
    assert_eq!((0..PLENTY).filter(|_| budget.take_directory()).count(), 3072);
}

#[test]
fn a_root_that_is_not_there_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("absent");
    let (rules, _) = IgnoreRules::new(&root, &[], &[], true);
    let (asker, woken) = Asker::new().unwrap();
    let kernel = Box::new(TestKernel::new(woken).unwrap());
    let pool = Pool::with_limit(PLENTY);
    let error = KqueueBackend::on(kernel, asker, pool, &root, Arc::new(rules), false).err().unwrap();
    assert_eq!(error.kind(), Kind::RootUnavailable);
    assert!(error.to_string().contains("absent"), "{error}");
}
