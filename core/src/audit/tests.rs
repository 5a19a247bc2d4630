use std::fs;
use std::io::Write;

use super::read::{Found, lines};
use super::verify::{Anchor, Verified, verify};
use super::*;

fn log() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    (directory, path)
}

fn moved(to: &str) -> Event {
    Event::new("commit", "ok").in_repository("documents").reference("refs/heads/main", Some(to))
}

fn all(path: &Path) -> Vec<Line> {
    let mut found = Vec::new();
    lines(path, &mut |_, line| {
        if let Found::Line(line, _) = line {
            found.push(*line);
        }
        true
    })
    .unwrap();
    found
}

fn verified(path: &Path) -> Verified {
    verify(path, None).unwrap()
}

#[test]
fn lines_are_numbered_and_chained_over_restarts() {
    let (_scratch, path) = log();
    for _ in 0..3 {
        let audit = Audit::open(&path).unwrap();
        audit.record(Event::new("start", "ok").with("version", "1"));
        audit.record(Event::new("stop", "ok"));
    }
    let seen = all(&path);
    assert_eq!(seen.iter().map(|line| line.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(seen[0].time.parse::<jiff::Timestamp>().is_ok());
    let found = verified(&path);
    assert_eq!((found.lines, found.problem_count, found.first_seq, found.last_seq), (6, 0, 1, 6));
}

#[test]
fn a_reference_is_told_of_when_it_stands_elsewhere_than_the_log_says() {
    let (_scratch, path) = log();
    let audit = Audit::open(&path).unwrap();
    assert!(audit.reference_stands(moved("aaa")));
    assert!(!audit.reference_stands(moved("aaa")));
    drop(audit);
    let audit = Audit::open(&path).unwrap();
    assert!(!audit.reference_stands(moved("aaa")), "what the file says counts after a restart");
    assert!(audit.reference_stands(moved("bbb")));
    assert!(audit.reference_stands(moved("bbb").at_remote("usb")), "a remote's branch is another");
    let seen = all(&path);
    assert_eq!(seen[1].event.from.as_deref(), Some("aaa"));
    assert_eq!(seen[2].event.from, None);
    assert_eq!(verified(&path).problem_count, 0);
}

#[test]
fn a_line_that_was_cut_off_is_taken_away_and_told() {
    let (_scratch, path) = log();
    Audit::open(&path).unwrap().record(moved("aaa"));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":2,\"ti").unwrap();
    assert!(verified(&path).is_cut_off);
    assert_eq!(verified(&path).problem_count, 0, "the mark of a crash is no forgery");
    Audit::open(&path).unwrap().record(moved("bbb"));
    let seen = all(&path);
    assert_eq!(seen[1].event.result, "mended");
    assert_eq!(seen[1].event.detail["bytes of a line that was cut off"], "12");
    let found = verified(&path);
    assert_eq!((found.lines, found.problem_count, found.is_cut_off), (3, 0, false));
}

#[test]
fn whatever_is_changed_taken_out_or_put_in_is_found_with_its_line() {
    let (_scratch, path) = log();
    let audit = Audit::open(&path).unwrap();
    (0..20).for_each(|number| audit.record(moved(&format!("commit{number}")).with("n", number)));
    drop(audit);
    let whole = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = whole.lines().collect();
    let forge = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed: Vec<String> = kept.iter().map(|line| (*line).to_owned()).collect();
        change(&mut changed);
        fs::write(&path, changed.join("\n") + "\n").unwrap();
        verified(&path)
    };
    let edited = forge(&|lines| lines[9] = lines[9].replace("\"n\":\"9\"", "\"n\":\"8\""));
    assert_eq!((edited.problem_count, edited.problems[0].line), (1, 11), "{edited:?}");
    let removed = forge(&|lines| drop(lines.remove(9)));
    assert_eq!(removed.problems[0].line, 10, "{removed:?}");
    let swapped = forge(&|lines| lines.swap(3, 4));
    assert!(swapped.problem_count >= 2, "{swapped:?}");
    let foreign = forge(&|lines| lines.insert(5, "not json".to_owned()));
    assert!(foreign.problems[0].what.contains("not a line"), "{foreign:?}");
    let huge = forge(&|lines| lines.insert(5, "x".repeat(2_000_000)));
    assert!(huge.problem_count > 0);
}

#[test]
fn a_tail_that_was_cut_off_or_written_anew_is_found_by_a_line_noted_down_elsewhere() {
    let (_scratch, path) = log();
    let audit = Audit::open(&path).unwrap();
    (0..5).for_each(|number| audit.record(moved(&format!("commit{number}"))));
    let noted = verified(&path);
    let anchor = Anchor { seq: noted.last_seq, hash: noted.head };
    audit.record(moved("later"));
    drop(audit);
    assert_eq!(verify(&path, Some(&anchor)).unwrap().has_anchor, Some(true));
    let whole = fs::read_to_string(&path).unwrap();
    let three: String = whole.split_inclusive('\n').take(3).collect();
    fs::write(&path, three).unwrap();
    assert_eq!(verify(&path, Some(&anchor)).unwrap().has_anchor, Some(false));
    let audit = Audit::open(&path).unwrap();
    (0..9).for_each(|number| audit.record(moved(&format!("forged{number}"))));
    let forged = verify(&path, Some(&anchor)).unwrap();
    assert_eq!((forged.problem_count, forged.has_anchor), (0, Some(false)));
}

#[test]
fn two_writers_share_one_chain() {
    let (_scratch, path) = log();
    let (one, other) = (Audit::open(&path).unwrap(), Audit::open(&path).unwrap());
    std::thread::scope(|scope| {
        for audit in [&one, &other] {
            scope.spawn(move || {
                (0..50).for_each(|number| audit.record(Event::new("commit", "ok").with("n", number)))
            });
        }
    });
    assert_eq!((one.trouble(), other.trouble()), (None, None));
    let found = verified(&path);
    assert_eq!((found.lines, found.problem_count), (100, 0), "{found:?}");
}

#[test]
fn a_guest_writes_into_a_log_that_is_there_and_makes_none() {
    let (_scratch, path) = log();
    assert!(Audit::join(&path).unwrap().is_none());
    assert!(Audit::join(&path.join("no/such")).unwrap().is_none());
    assert!(!path.exists());
    let keeper = Audit::open(&path).unwrap();
    let guest = Audit::join(&path).unwrap().unwrap();
    keeper.0.state().file.set_largest(500);
    for number in 0..20 {
        keeper.record(Event::new("commit", "ok").with("n", number));
        guest.record(Event::new("restore", "ok").with("n", number));
    }
    assert_eq!((keeper.trouble(), guest.trouble()), (None, None));
    let found = verified(&path);
    assert_eq!(found.problem_count, 0, "{found:?}");
    assert_eq!(all(&path).iter().filter(|line| line.event.what == "restore").count(), 20);
    fs::remove_file(&path).unwrap();
    guest.record(Event::new("restore", "ok"));
    assert!(guest.trouble().is_some() && !path.exists(), "a log that is gone is the keeper's to begin");
}

#[test]
fn lines_of_others_are_heeded_once_and_the_head_is_the_last_of_all() {
    let (_scratch, path) = log();
    let keeper = Audit::open(&path).unwrap();
    keeper.record(Event::new("before", "ok"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    keeper.heed(Arc::new(move |event: &Event| ear.lock().unwrap().push(event.what.clone())));
    let guest = Audit::join(&path).unwrap().unwrap();
    guest.record(Event::new("theirs", "ok"));
    let found = verified(&path);
    let head = keeper.head().unwrap();
    assert_eq!((head.seq, head.hash), (2, found.head));
    keeper.record(Event::new("ours", "ok"));
    guest.record(Event::new("theirs again", "ok"));
    keeper.record(Event::new("ours again", "ok"));
    assert_eq!(keeper.head().unwrap().seq, 5);
    assert_eq!(*heard.lock().unwrap(), ["theirs", "ours", "theirs again", "ours again"]);
}

#[test]
fn half_a_line_of_a_guest_that_was_killed_is_taken_away_by_the_keeper() {
    let (_scratch, path) = log();
    let keeper = Audit::open(&path).unwrap();
    keeper.record(moved("aaa"));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":2,\"ti").unwrap();
    assert_eq!(keeper.head().unwrap().seq, 1);
    keeper.record(moved("bbb"));
    let found = verified(&path);
    assert_eq!((found.lines, found.problem_count, found.is_cut_off), (2, 0, false));
}

#[test]
fn a_file_that_has_grown_is_followed_by_the_next_and_the_chain_goes_on() {
    let (_scratch, path) = log();
    let audit = Audit::open(&path).unwrap();
    audit.0.state().file.set_largest(2_000);
    audit.reference_stands(moved("first").at_remote("quiet"));
    for number in 0..40 {
        audit.reference_stands(moved(&format!("commit{number}")));
    }
    drop(audit);
    assert!(file::formers(&path).unwrap().len() > 3);
    let found = verified(&path);
    assert_eq!((found.problem_count, found.first_seq), (0, 1), "{found:?}");
    let audit = Audit::open(&path).unwrap();
    assert!(!audit.reference_stands(moved("first").at_remote("quiet")), "known through all the files");
    audit.0.state().file.set_largest(1);
    audit.record(moved("last"));
    drop(audit);
    fs::remove_file(&path).unwrap();
    let audit = Audit::open(&path).unwrap();
    assert!(!audit.reference_stands(moved("commit39")), "a crash between two files leaves the former");
    audit.record(Event::new("start", "ok"));
    fs::remove_file(&file::formers(&path).unwrap()[0]).unwrap();
    let found = verified(&path);
    assert!(found.first_seq > 1 && found.problem_count == 0, "{found:?}");
}

#[test]
fn a_log_that_is_taken_away_while_it_is_written_goes_on_with_its_numbers() {
    let (_scratch, path) = log();
    let audit = Audit::open(&path).unwrap();
    (0..3).for_each(|number| audit.record(moved(&format!("commit{number}"))));
    fs::remove_file(&path).unwrap();
    audit.record(moved("after"));
    assert_eq!(audit.trouble(), None);
    let seen = all(&path);
    assert_eq!((seen.len(), seen[0].seq), (1, 4), "that three are missing can be seen");
}

#[test]
fn what_cannot_be_written_waits_and_is_written_when_it_can() {
    let (_scratch, path) = log();
    let audit = Audit::open(&path).unwrap();
    audit.record(moved("one"));
    let good = {
        let read_only = LogFile::read_only_for_test(&path);
        std::mem::replace(&mut audit.0.state().file, read_only)
    };
    assert!(audit.reference_stands(moved("two")));
    assert!(!audit.reference_stands(moved("two")), "what waits counts");
    assert!(audit.trouble().unwrap().contains("1 lines wait"), "{:?}", audit.trouble());
    (0..PENDING).for_each(|number| audit.record(Event::new("push", "ok").with("n", number)));
    assert!(audit.trouble().unwrap().contains("1 were lost"), "{:?}", audit.trouble());
    audit.0.state().file = good;
    audit.record(Event::new("stop", "ok"));
    assert_eq!(audit.trouble(), None);
    let seen = all(&path);
    assert_eq!(seen.len(), 1 + PENDING + 1, "all that found room, and that some did not");
    assert_eq!(seen.last().unwrap().event.detail["lines that found no room"], "2");
    assert_eq!(verified(&path).problem_count, 0);
}

#[test]
fn texts_are_bounded_without_secrets_and_on_one_line() {
    let (_scratch, path) = log();
    crate::secret::remember_form("hunter2-and-more");
    let audit = Audit::open(&path).unwrap();
    audit.record(
        Event::new("push", "rejected")
            .with("message", "line one\nline two hunter2-and-more")
            .with("long", "é".repeat(5000)),
    );
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.len() < 3000);
}
