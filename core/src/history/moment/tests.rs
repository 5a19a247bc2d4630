//! What people type, against a history with known times.

use jiff::tz::TimeZone;

use super::*;
use crate::tree::judge::Judge;

const DAY: i64 = 86_400;

/// Commits at these seconds after 2026-11-20T00:00:00Z, and the repository.
struct History {
    judge: Judge,
    repository: Repository,
    ids: Vec<Oid>,
}

fn base() -> i64 {
    "2026-11-20T00:00:00Z".parse::<Timestamp>().unwrap().as_second()
}

fn history(times: &[i64]) -> History {
    let judge = Judge::new();
    let tree = String::from_utf8(judge.git_with(["mktree"], b"")).unwrap().trim().to_owned();
    let mut ids: Vec<Oid> = Vec::new();
    for time in times {
        let parent = ids.last().map(|id| format!("parent {id}\n")).unwrap_or_default();
        let who = format!("a <a@b> {} +0000", base() + time);
        let text = format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\nx\n");
        let id = judge.git_with(["hash-object", "-t", "commit", "-w", "--stdin"], text.as_bytes());
        ids.push(Oid::from_str(String::from_utf8(id).unwrap().trim()).unwrap());
    }
    judge.git(["update-ref", "refs/heads/main", &ids[ids.len() - 1].to_string()]);
    let repository = Repository::open(judge.path()).unwrap();
    History { judge, repository, ids }
}

impl History {
    fn at(&self, text: &str, now: &Zoned) -> std::result::Result<usize, String> {
        let tip = *self.ids.last().unwrap();
        let found = resolve(&self.repository, tip, text, now).map_err(|error| error.to_string())?;
        Ok(self.ids.iter().position(|id| *id == found.id).unwrap())
    }
}

/// One hour ahead of UTC, two in summer.
fn zone() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn now(text: &str) -> Zoned {
    text.parse::<Timestamp>().unwrap().to_zoned(zone())
}

#[test]
fn times_mean_the_newest_snapshot_that_is_not_younger() {
    // 20th 12:00, 21st 22:30, 21st 23:30 (local: the 22nd, 0:30), 22nd 08:00:30 UTC.
    let history = history(&[DAY / 2, DAY + 81_000, DAY + 84_600, 2 * DAY + 28_830]);
    let now = now("2026-11-22T10:00:00Z");
    let cases = [
        ("latest", 3),
        ("latest~0", 3),
        ("latest~", 2),
        ("latest~3", 0),
        ("now", 3),
        ("2026-11-22", 3),
        ("2026-11-21", 1),
        ("yesterday", 1),
        ("2026-11-20", 0),
        ("2026-11-22 00:30", 2),
        ("2026-11-22T00:29", 1),
        ("2026-11-21T23:30:00Z", 2),
        ("2026-11-21t23:29:59z", 1),
        ("2026-11-21T23:30:00+01:00", 1),
        ("2026-11-22 09:00:29", 2),
        ("2026-11-22 09:00", 3),
        ("today 09:00", 3),
        ("yesterday 23:59", 1),
        ("2 hours ago", 2),
        ("an hour ago", 3),
        ("119m ago", 3),
        ("1 day ago", 0),
        ("a week ago", usize::MAX),
        ("2030-01-01", 3),
        ("  latest  ", 3),
    ];
    for (text, expected) in cases {
        let found = history.at(text, &now);
        match expected {
            usize::MAX => assert!(found.unwrap_err().contains("2026-11-20 13:00:00"), "{text}"),
            expected => assert_eq!(found, Ok(expected), "{text}"),
        }
    }
    let nonsense = [
        "",
        "yesteryear",
        "2026-13-01",
        "2026-02-30",
        "2026-11-22 25:00",
        "latest~x",
        "99999999999999 years ago",
        "ago",
        "a hen ago",
        "-1 days ago",
        "2026-11-22 13:05 nonsense",
        "..",
        "refs/heads/main",
        "\0",
        "~1",
    ];
    for text in nonsense {
        let tip = history.ids[3];
        let error = resolve(&history.repository, tip, text, &now).unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{text}: {error}");
    }
    assert!(history.at("latest~4", &now).unwrap_err().contains("latest~3 is the oldest"));
    assert!(history.at("latest~99999999999999999999999", &now).is_err());
}

#[test]
fn a_clock_that_was_wrong_for_a_while_does_not_hide_what_was_before() {
    let history = history(&[0, 1000 * DAY, DAY, -9 * DAY, 2 * DAY]);
    let now = now("2026-11-25T00:00:00Z");
    assert_eq!(history.at("2026-11-20T12:00:00Z", &now), Ok(3), "made after the others, whatever it says");
    assert_eq!(history.at("2026-11-22T00:00:00Z", &now), Ok(4));
}

#[test]
fn an_hour_that_comes_twice_means_its_second_end_and_one_that_is_left_out_is_understood() {
    // 25th of October, 3:00 to 2:00: 2:30 is at 0:30 UTC and again at 1:30 UTC.
    let back = "2026-10-25T00:30:00Z".parse::<Timestamp>().unwrap().as_second() - base();
    let history = history(&[back - DAY, back, back + 3600, back + 7200]);
    let now = now("2026-11-25T00:00:00Z");
    assert_eq!(history.at("2026-10-25 02:30", &now), Ok(2));
    assert_eq!(history.at("2026-10-25 01:59", &now), Ok(0));
    assert_eq!(history.at("2026-10-24", &now), Ok(0));
    assert!(history.at("2026-03-29 02:30", &now).unwrap_err().contains("there is no snapshot of"));
}

#[test]
fn tags_and_the_beginnings_of_ids_are_found_and_what_is_ambiguous_is_told() {
    let history = history(&[0, DAY, 2 * DAY]);
    let now = now("2026-11-25T00:00:00Z");
    let id = |at: usize| history.ids[at].to_string();
    let tag = |name: &str, at: usize| drop(history.judge.git(["tag", name, &id(at)]));
    tag("before-the-move", 0);
    history.judge.git(["tag", "-a", "-m", "annotated", "v1/final", &id(1)]);
    assert_eq!(history.at("before-the-move", &now), Ok(0));
    assert_eq!(history.at("refs/tags/before-the-move", &now), Ok(0));
    assert_eq!(history.at("v1/final", &now), Ok(1));
    for at in 0..3 {
        assert_eq!(history.at(&id(at), &now), Ok(at));
        assert_eq!(history.at(&id(at)[..12].to_uppercase(), &now), Ok(at));
    }
    assert!(history.at(&id(0)[..3], &now).is_err());
    assert!(history.at(&"0".repeat(40), &now).is_err());
    assert!(history.at("refs/heads/main", &now).is_err());

    // A date that is a tag too: the same snapshot is no question, another one is.
    tag("2026-11-21", 1);
    assert_eq!(history.at("2026-11-21", &now), Ok(1));
    tag("2026-11-22", 0);
    let error = history.at("2026-11-22", &now).unwrap_err();
    assert!(error.contains("refs/tags/2026-11-22") && error.contains("2026-11-22 23:59:59"), "{error}");
    assert_eq!(history.at("refs/tags/2026-11-22", &now), Ok(0));
    assert_eq!(history.at("2026-11-22 23:59:59", &now), Ok(2));
    // One that is before the first snapshot competes with nothing.
    tag("2020-01-01", 2);
    assert_eq!(history.at("2020-01-01", &now), Ok(2));
    // A tag that looks like the beginning of an id.
    let prefix = id(0)[..6].to_owned();
    tag(&prefix, 2);
    let error = history.at(&prefix, &now).unwrap_err();
    assert!(error.contains(&id(0)) && error.contains(&format!("refs/tags/{prefix}")), "{error}");
    // Of a tree.
    let tree = String::from_utf8(history.judge.git(["rev-parse", "main^{tree}"])).unwrap();
    history.judge.git(["tag", "of-a-tree", tree.trim()]);
    assert!(history.at("of-a-tree", &now).is_err());
}

#[test]
fn a_beginning_that_several_commits_share_names_them_all() {
    let history = history(&(0..2000).map(|number| number * 60).collect::<Vec<_>>());
    let now = now("2026-11-25T00:00:00Z");
    let mut beginnings: Vec<String> = history.ids.iter().map(|id| id.to_string()[..4].to_owned()).collect();
    beginnings.sort();
    let shared = beginnings.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0].clone();
    let error = history.at(&shared, &now).unwrap_err();
    assert_eq!(error.matches("the commit ").count(), beginnings.iter().filter(|it| **it == shared).count());
    assert!(error.contains("more digits"), "{error}");
}
