//! Many entries, and prices, which are printed; only memory is judged.

use super::*;

#[test]
fn very_many_changes_in_one_directory_are_one_hint() {
    let mut fixture = started(|root| fs::create_dir(root.join("d")).unwrap());
    for number in 0..5000 {
        fs::write(fixture.at(&format!("d/{number}")), "").unwrap();
    }
    assert_eq!(fixture.entries(), [deep("d")]);
    fs::write(fixture.at("d/77"), "x").unwrap();
    assert_eq!(fixture.hints(), [changed("d/77")]);
}

#[test]
fn paths_beyond_the_systems_limit_are_polled() {
    let mut fixture = started(|_| ());
    let name = "d".repeat(200);
    let mut at = fs::File::open(fixture.root()).unwrap();
    let mut deepest = RelPath::root();
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY;
        at = rustix::fs::openat(&at, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap().into();
        deepest = deepest.join(name.as_bytes());
    }
    assert_eq!(fixture.entries(), [deep(&name)]);
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    drop(rustix::fs::openat(&at, "f", flags, rustix::fs::Mode::RWXU).unwrap());
    assert!(fixture.hints().contains(&Hint::Changed(deepest.join(b"f"))));
}

#[test]
fn a_file_takes_less_than_forty_bytes() {
    let names = "an-ordinary-name-0000.txt".len();
    let mut fixture = started(|root| {
        for directory in 0..400 {
            let directory = root.join(format!("directory-{directory:04}"));
            fs::create_dir(&directory).unwrap();
            for file in 0..50 {
                fs::write(directory.join(format!("an-ordinary-name-{file:04}.txt")), "").unwrap();
            }
        }
    });
    let bytes = fixture.backend.poller.bytes();
    let begin = Instant::now();
    assert_eq!(fixture.hints(), []);
    eprintln!(
        "20,000 files with names of {names} bytes in 400 directories: {:.1} bytes a file, a pass {:?}",
        bytes as f64 / 20_000.0,
        begin.elapsed()
    );
    assert!(bytes < 40 * 20_000, "{bytes}");
}
