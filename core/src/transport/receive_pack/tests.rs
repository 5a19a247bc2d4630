//! Reports as servers send them, whole, cut, refusing and endless.

use git2::Oid;

use super::super::packetline::tests::Pieces;
use super::*;

fn advertised(words: &[&str]) -> Advertised {
    Advertised {
        capabilities: words.iter().map(|word| (*word).to_owned()).collect(),
        ..Advertised::default()
    }
}

fn update(name: &str) -> ReferenceUpdate {
    ReferenceUpdate { name: name.to_owned(), expected: None, new: Oid::from_str(&"1".repeat(40)).unwrap() }
}

fn lines(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        push_packet(&mut bytes, format!("{line}\n").as_bytes());
    }
    bytes.extend_from_slice(FLUSH);
    bytes
}

fn on_band(band: u8, data: &[u8], bytes: &mut Vec<u8>) {
    for part in data.chunks(7) {
        push_packet(bytes, &[&[band], part].concat());
    }
}

fn judged(bytes: Vec<u8>, words: &[&str]) -> (Result<()>, Vec<String>) {
    let mut messages = Messages::default();
    let updates = [update("refs/heads/main"), update("refs/tags/day")];
    let outcome = report(&mut Pieces { bytes, size: 5 }, &advertised(words), &updates, &mut messages);
    let outcome = outcome.and_then(|verdict| match verdict {
        Verdict::Taken => Ok(()),
        Verdict::NotStored(error) => Err(error),
    });
    (outcome, messages.into_lines())
}

const BOTH: &[&str] = &["report-status", "side-band-64k"];

#[test]
fn a_good_report_is_one_with_and_without_bands() {
    let good = lines(&["unpack ok", "ok refs/heads/main", "ok refs/tags/day"]);
    judged(good.clone(), &["report-status"]).0.unwrap();
    let mut bytes = Vec::new();
    on_band(2, b"Resolving deltas: 10%\rResolving deltas: 100%\rall done\n", &mut bytes);
    on_band(1, &good, &mut bytes);
    bytes.extend_from_slice(FLUSH);
    let (outcome, messages) = judged(bytes, BOTH);
    outcome.unwrap();
    assert_eq!(messages, ["all done"]);
    // What an old server does not say is read back afterwards.
    judged(Vec::new(), &[]).0.unwrap();
}

#[test]
fn a_refusal_is_an_error_of_its_kind_with_the_words() {
    for (report, kind, words) in [
        (
            vec!["unpack ok", "ng refs/heads/main pre-receive hook declined"],
            Kind::RemoteRefused,
            "hook declined",
        ),
        (vec!["unpack ok", "ng refs/heads/main"], Kind::RemoteRefused, "no reason"),
        (vec!["unpack ok", "ng refs/heads/main fetch first"], Kind::RefMoved, "fetch first"),
        (vec!["unpack ok", "ng refs/heads/main \x1b[2Jquota"], Kind::Quota, "\\u{1b}[2Jquota"),
        (vec!["unpack index-pack abnormal exit"], Kind::RemoteRefused, "index-pack abnormal"),
        (vec!["unpack No space left on device"], Kind::Quota, "No space"),
        (vec!["hello"], Kind::RemoteUnreachable, "hello"),
        (vec![], Kind::RemoteUnreachable, "without a report"),
    ] {
        let error = judged(lines(&report), &["report-status"]).0.unwrap_err();
        assert_eq!(error.kind(), kind, "{report:?}: {error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains('\x1b'), "{error}");
    }
}

#[test]
fn a_branch_of_which_the_report_says_nothing_is_no_error_yet_because_it_is_read_back() {
    judged(lines(&["unpack ok"]), &["report-status"]).0.unwrap();
}

#[test]
fn a_tag_that_is_refused_is_told_and_holds_nothing_up() {
    let report = lines(&["unpack ok", "ok refs/heads/main", "ng refs/tags/day protected"]);
    let (outcome, messages) = judged(report, &["report-status"]);
    outcome.unwrap();
    assert!(messages[0].contains("refs/tags/day: protected"), "{messages:?}");
}

#[test]
fn a_server_that_gives_up_stops_or_does_not_stop_is_told() {
    let mut fatal = Vec::new();
    on_band(2, b"the disk is ill\n", &mut fatal);
    push_packet(&mut fatal, b"\x03error: no space left on device");
    let error = judged(fatal, BOTH).0.unwrap_err();
    assert_eq!(error.kind(), Kind::Quota);
    assert!(error.to_string().contains("the disk is ill"), "{error}");

    let mut cut = Vec::new();
    on_band(1, &lines(&["unpack ok"])[..6], &mut cut);
    let error = judged(cut, BOTH).0.unwrap_err();
    assert!(error.to_string().contains("middle of a packet"), "{error}");

    let mut endless = Vec::new();
    for _ in 0..LARGEST_REPORT / 60_000 + 2 {
        push_packet(&mut endless, &[1; 60_000]);
    }
    let mut messages = Messages::default();
    let mut input = Pieces { bytes: endless, size: usize::MAX };
    let error = report(&mut input, &advertised(BOTH), &[], &mut messages).unwrap_err();
    assert!(error.to_string().contains("does not end"), "{error}");
}

#[test]
fn commands_name_what_was_seen_and_ask_only_for_what_is_offered() {
    let offered = advertised(&["report-status", "delete-refs", "agent=git/2.47"]);
    let mut moved = update("refs/heads/main");
    moved.expected = Some(Oid::from_str(&"2".repeat(40)).unwrap());
    let request = commands(&offered, &[moved, update("refs/tags/day")], "me/1");
    let text = String::from_utf8(request).unwrap();
    let (old, new, none) = ("2".repeat(40), "1".repeat(40), "0".repeat(40));
    let first = format!("{old} {new} refs/heads/main\0report-status agent=me/1");
    let second = format!("{none} {new} refs/tags/day");
    assert_eq!(text, format!("{:04x}{first}{:04x}{second}0000", first.len() + 4, second.len() + 4));
}
