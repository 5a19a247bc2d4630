use super::*;
use crate::alerts::Alert;
use crate::status::tests::{drilled, healthy, large as lfs, scrubbed, verified};
use backupbot_actors::board::SkippedFile;
use backupbot_core::config::on_disk::OnDisk;

fn page_of(repository: RepositoryAnswer) -> String {
    let answer = StatusAnswer {
        instance: "laptop".to_owned(),
        version: "0.1.0".to_owned(),
        daemon: true,
        repositories: vec![repository],
        alerts: Vec::new(),
        configuration: None,
        health: Vec::new(),
    };
    render(&answer, Moment::from_unix_seconds(1_000_300).unwrap())
}

#[test]
fn a_healthy_page_says_so_in_its_first_line_and_asks_for_nothing() {
    let page = page_of(healthy());
    let expected = "\
everything is protected (backupbot 0.1.0, instance laptop)

documents: commit c0ffee00c0, nothing waits to be committed
  root folder1: watched (inotify), 1234 files when last compared (left out: 3 by your rules)
  remote usb: has everything, last read back 1970-01-12T13:46:40Z, 5 min ago
";
    assert_eq!(page, expected);
}

#[test]
fn what_was_verified_is_told_beneath_the_remotes() {
    let page = page_of(RepositoryAnswer { verified: vec![verified(0)], ..healthy() });
    assert!(page.starts_with("everything is protected ("), "{page}");
    let expected = "  remote usb: verified 5 min ago (1% of c0ffee00c0): nothing was wrong\n";
    assert!(page.ends_with(expected), "{page}");
}

#[test]
fn drills_and_what_comes_next_are_told_in_words() {
    let waits = InspectionStatus {
        remote: Some("usb".to_owned()),
        next: Moment::from_unix_seconds(1_000_300 + 7200),
        ..InspectionStatus::default()
    };
    let tried = InspectionStatus {
        attempts: 3,
        reason: Some("unplugged".to_owned()),
        next: Moment::from_unix_seconds(1_000_300),
        ..InspectionStatus::default()
    };
    let inspections = vec![waits, tried];
    let page = page_of(RepositoryAnswer { drills: vec![drilled(1_000_000, 0)], inspections, ..healthy() });
    assert!(page.starts_with("everything is protected ("), "{page}");
    let expected = "  remote usb: drill 5 min ago (1% of c0ffee00c0): 120 files restored, all as it was
  remote usb: next drill in 2 h
  what is here: next verification now
    tried several times in vain (3): unplugged
";
    assert!(page.ends_with(expected), "{page}");
}

#[test]
fn large_files_are_told_with_the_room_that_they_take() {
    let mut repository = RepositoryAnswer { scrubs: vec![scrubbed(0, 0)], ..healthy() };
    repository.remotes[0].lfs = Some(lfs(40, None, false));
    let page = page_of(repository);
    assert!(page.starts_with("everything is protected ("), "{page}");
    let expected =
        "  remote usb: 12 large files, 40.0 MiB; 40.0 MiB of 100.0 MiB used (40 %, full on 1970-02-01)
  remote usb: large files looked at 5 min ago: 12 large files, 12.0 MiB asked for, 1 read: nothing was wrong
";
    assert!(page.ends_with(expected), "{page}");
}

#[test]
fn whatever_is_wrong_shows_in_the_first_line_and_in_words() {
    type Spoil = fn(&mut RepositoryAnswer);
    let cases: &[(Spoil, &[&str])] = &[
        (|it| it.status.trouble = Some("disk full".into()), &["NO COMMIT", "disk full", "tried again"]),
        (|it| it.status.paused = true, &["PAUSED", "-> `backupbot resume --repository documents`"]),
        (
            |it| {
                it.roots[0].state = RootStanding::Unavailable;
                it.roots[0].reason = Some("it is empty".to_owned());
            },
            &["root folder1: UNAVAILABLE: it is empty", "-> mount or restore"],
        ),
        (|it| it.roots[0].state = RootStanding::Scanning, &["being compared"]),
        (
            |it| {
                it.roots[0].skipped = 25;
                it.status.pending = 25;
                it.remotes[0].oldest_unprotected_seconds = 100_000;
                it.roots[0].skipped_files = vec![SkippedFile {
                    path: "a\\nb".to_owned(),
                    path_b64: None,
                    reason: "unreadable: no".to_owned(),
                }];
            },
            &[
                "25 files NOT protected",
                "a\\nb: unreadable: no",
                "and 24 more",
                "nothing waits to be committed",
                "has everything that could be read",
                "-> make them readable",
            ],
        ),
        (
            |it| {
                it.remotes[0].state = RemoteState::Backoff;
                it.remotes[0].reason = Some("cannot open /mnt".to_owned());
                it.remotes[0].commit = None;
                it.remotes[0].last_success = None;
                it.remotes[0].oldest_unprotected_seconds = 11_100;
            },
            &[
                "remote usb: NOT up to date for 3 h 5 min: the last push failed: cannot open /mnt",
                "it has nothing yet, never reached",
                "-> see that it can be reached",
            ],
        ),
        (
            |it| it.remotes[0].state = RemoteState::Halted,
            &[
                "HALTED",
                "-> look at the remote; when its state is right, `backupbot resume --repository documents`",
            ],
        ),
        (
            |it| it.remotes[0].oldest_unprotected_seconds = 65,
            &["NOT up to date for 1 min: waiting for the next commit"],
        ),
        (|it| it.remotes.clear(), &["no remote is known"]),
        (|it| it.scrubs = vec![scrubbed(2, 1)], &["2 LOST, 1 DAMAGED\n", "    folder1/film: it is gone"]),
        (|it| it.verified = vec![verified(2)], &["of c0ffee00c0): 2 things were WRONG"]),
        (
            |it| it.drills = vec![drilled(1_000_000, 1)],
            &["restored, 1 thing was WRONG\n", "    folder1/x: gone"],
        ),
        (
            |it| {
                it.status.commit = None;
                it.remotes[0].commit = None;
            },
            &["commit nothing yet"],
        ),
    ];
    for (spoil, expected) in cases {
        let mut repository = healthy();
        spoil(&mut repository);
        let page = page_of(repository);
        assert!(page.starts_with("NOT everything is protected"), "{page}");
        for text in *expected {
            assert!(page.contains(text), "{text:?} is missing in:\n{page}");
        }
    }
}

#[test]
fn changes_of_the_last_minute_are_on_their_way() {
    let spoils: [fn(&mut RepositoryAnswer); 3] = [
        |it| it.states.detected = 1,
        |it| it.status.pending = 1,
        |it| {
            it.remotes[0].state = RemoteState::Pushing;
            it.remotes[0].commit = Some("0dd".to_owned());
            it.remotes[0].oldest_unprotected_seconds = 5;
        },
    ];
    for spoil in spoils {
        let mut repository = healthy();
        spoil(&mut repository);
        let page = page_of(repository);
        assert!(page.starts_with("everything is protected but the latest changes"), "{page}");
    }
}

#[test]
fn both_configurations_are_named_where_they_differ() {
    let file = Some("/etc/backupbot/config.yaml".to_owned());
    let mut status = ConfigurationStatus::obeyed(file, &"a".repeat(64));
    assert_eq!(checksums(&status), "configuration: aaaaaaaaaa, as in /etc/backupbot/config.yaml");
    status.was_tried(OnDisk::Text("b".repeat(64)));
    status.was_refused("line 3".to_owned(), Moment::from_unix_seconds(7).unwrap());
    let line = checksums(&status);
    assert!(
        line.contains("aaaaaaaaaa is in force") && line.contains("bbbbbbbbbb, which is refused"),
        "{line}"
    );
    status.says(OnDisk::Unreadable("it is gone".to_owned()));
    assert!(checksums(&status).ends_with("cannot be read: it is gone"));
    let flags = ConfigurationStatus::obeyed(None, &"a".repeat(64));
    assert_eq!(checksums(&flags), "configuration: aaaaaaaaaa, of the command line");
}

#[test]
fn without_a_daemon_nothing_is_called_protected() {
    let answer = StatusAnswer {
        instance: "laptop".to_owned(),
        version: "0.1.0".to_owned(),
        daemon: false,
        repositories: vec![healthy()],
        configuration: None,
        health: Vec::new(),
        alerts: vec![Alert::state_recovered(&backupbot_actors::board::Recovered {
            kind: "database",
            at: Moment::from_unix_seconds(1_000_000).unwrap(),
            words: "it was damaged".to_owned(),
        })],
    };
    let page = render(&answer, Moment::from_unix_seconds(1_000_300).unwrap());
    assert!(page.starts_with("NOT everything") && page.contains("No daemon is running"), "{page}");
    assert!(page.contains("warning: it was damaged"), "{page}");
}
