//! Limits, and prices, which are printed and not judged.

use super::*;
use crate::watch::namespace::is_inside;

#[test]
fn when_watches_run_out_the_rest_is_named_and_made_good_later() {
    let test = "watch::inotify::tests::extremes::when_watches_run_out_the_rest_is_named_and_made_good_later";
    if !is_inside(test, "echo 10 > /proc/sys/user/max_inotify_watches") {
        return;
    }
    let mut fixture = started(|root| {
        for number in 0..30 {
            fs::create_dir(root.join(format!("d{number}"))).unwrap();
        }
    });
    // Ten: the sentinel, the root and eight of thirty.
    let stats = fixture.backend.stats();
    assert_eq!((stats.watches, stats.unwatched), (9, 22));
    let sentence = stats.limited.unwrap();
    let begin = "22 directories are not watched because user.max_inotify_watches = 10 (of this user namespace; \
                 fs.inotify.max_user_watches";
    assert!(sentence.starts_with(begin), "{sentence}");
    fs::create_dir_all(fixture.at("new/below")).unwrap();
    fs::write(fixture.at("new/below/f"), "x").unwrap();
    assert!(covered(&fixture.hints(), "new/below/f"));
    assert_eq!(fixture.backend.stats().unwatched, 24);
    for number in 0..30 {
        fs::remove_dir(fixture.at(&format!("d{number}"))).unwrap();
    }
    fixture.hints();
    fixture.backend.resync(&Progress::new()).unwrap();
    assert_eq!(fixture.backend.stats().limited, None);
    fixture.assert_watches(&["", "new", "new/below"]);
}

#[test]
fn a_kernel_that_tells_nothing_fails_the_test_of_it() {
    let mut fixture = started(|_| ());
    fixture.backend.self_test(PATIENCE).unwrap();
    let sentinel = fixture.backend.sentinel_watch.unwrap();
    fixture.backend.unwatch([sentinel]);
    let error = fixture.backend.self_test(Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains("did not tell of a change"), "{error}");
    assert!(error.to_string().contains("sentinel"), "{error}");
}

#[test]
fn the_time_from_event_to_hint_is_printed() {
    let mut fixture = started(|_| ());
    let file = fixture.at("f");
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel::<Instant>();
    let writer = std::thread::spawn(move || {
        while asked.recv().is_ok() {
            let begin = Instant::now();
            fs::write(&file, "x").unwrap();
            tell.send(begin).unwrap();
        }
    });
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..1000 {
        fixture.hints.clear();
        ask.send(()).unwrap();
        fixture.wait_for(|hint| *hint == changed("f"));
        let seen = Instant::now();
        times.push(seen.saturating_duration_since(told.recv().unwrap()));
        fixture.hints();
    }
    drop(ask);
    writer.join().unwrap();
    times.sort();
    eprintln!(
        "from before the write to the hint: median {:?}, 99th of 100 {:?}, worst {:?}",
        times[500], times[990], times[999]
    );
}

#[test]
fn ten_thousand_directories_are_watched_at_a_price_that_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    for top in 0..100 {
        for below in 0..99 {
            fs::create_dir_all(root.join(format!("top{top}/below{below}"))).unwrap();
        }
    }
    let (rules, _) = IgnoreRules::new(&root, &[], &[".backupbotignore".to_owned()], true);
    let mut backend =
        InotifyBackend::new(&root, Arc::new(rules), &directory.path().join("s"), false).unwrap();
    let begin = Instant::now();
    backend.start(&Progress::new()).unwrap();
    eprintln!("10,001 directories watched in {:?}", begin.elapsed());
    assert_eq!(backend.stats().watches, 10_001);
    let begin = Instant::now();
    backend.resync(&Progress::new()).unwrap();
    eprintln!("and again in {:?}", begin.elapsed());
    assert_eq!(backend.stats().watches, 10_001);
}
