//! Death at every named point: the program kills itself there under churn, and the next start makes it good.
//!
//! The table below is compared with the points in the source, so that a new point without a row fails. A row
//! counts as tested only if the process died by its own SIGKILL, that is, at the point. After each death the
//! program starts once more without a fault, and everything must be as if nothing had happened: the remote is
//! the root, no commit repeats its parent's tree, what had been complete before is in the history, no file of
//! the user was touched, nothing is left lying about.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::audit::assert_tells_all;
use crate::support::daemon::Setup;
use crate::support::git::{git, try_git};
use crate::support::lfs::{self, GitLfs};
use crate::support::tree::{Churn, corpus, fingerprint, write};
use crate::support::web::Switches;
use crate::support::{Random, SOON, eventually, seed};

/// The first world in which a point is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A first start with files there and more coming.
    First,
    /// The start after a death between the staged record and the branch.
    AfterStaged,
    /// A start without state where the remote has our history.
    WithoutState,
    /// A start where the repository is there and its database is not.
    WithoutDatabase,
    /// A first start that takes a few packs for many.
    ManyPacks,
    /// A start that finds the repository damaged.
    Damaged,
    /// A start that finds a pack with something in it that nobody needs, and no grace.
    Unneeded,
    /// A first start with a remote behind a web server.
    Network,
    /// A first start where hardly a file is too small for Git LFS.
    Large,
}

/// Every point, how often it is passed there at least, and the stage in which it is.
const POINTS: &[(&str, &[u32], Stage)] = &[
    ("store:written-not-renamed", &[1], Stage::First),
    ("store:renamed", &[1], Stage::First),
    // The repository in the state directory, then the remote.
    ("repository:made-not-synced", &[1, 2], Stage::First),
    ("repository:synced-not-renamed", &[1, 2], Stage::First),
    ("repository:renamed", &[1, 2], Stage::First),
    ("watcher:before-enqueue", &[1, 3], Stage::First),
    ("queue:before-enqueue", &[1, 3], Stage::First),
    ("queue:enqueued", &[1, 3], Stage::First),
    ("snapshot:pack-begun", &[1, 3], Stage::First),
    // Commits and pushes take turns.
    ("pack:finished", &[1, 2, 3], Stage::First),
    ("snapshot:pack-synced", &[1, 3], Stage::First),
    ("snapshot:staged", &[1, 3], Stage::First),
    ("pack:half-installed", &[1, 2, 3], Stage::First),
    ("pack:installed", &[1, 2, 3], Stage::First),
    ("snapshot:pack-installed", &[1, 3], Stage::First),
    ("ref:locked-not-moved", &[1, 2, 3], Stage::First),
    ("ref:moved", &[1, 2, 3], Stage::First),
    ("snapshot:branch-moved", &[1, 3], Stage::First),
    ("queue:before-settle", &[1, 3], Stage::First),
    ("queue:settled", &[1, 3], Stage::First),
    ("push:pack-synced", &[1, 3], Stage::First),
    ("push:pack-installed", &[1, 3], Stage::First),
    ("push:reference-moved", &[1, 3], Stage::First),
    ("push:request", &[1, 3], Stage::Network),
    ("push:answered", &[1, 3], Stage::Network),
    ("push:before-record", &[1, 3], Stage::First),
    ("push:recorded", &[1, 3], Stage::First),
    ("audit:commit-not-written", &[1, 3], Stage::First),
    ("audit:written", &[1, 4], Stage::First),
    ("lfs:object-begun", &[1, 2, 20], Stage::Large),
    ("lfs:object-synced", &[1, 2, 20], Stage::Large),
    ("lfs:object-stored", &[1, 2, 20], Stage::Large),
    ("lfs:copy-synced", &[1, 2, 20], Stage::Large),
    ("lfs:copy-placed", &[1, 2, 20], Stage::Large),
    ("recover:pack-dropped", &[1], Stage::AfterStaged),
    ("adopt:fetched", &[1], Stage::WithoutState),
    ("rebuild:root-handed-over", &[1], Stage::WithoutDatabase),
    // In our repository and in the remote, whichever has enough packs first.
    ("housekeeping:merged-not-installed", &[1, 2, 3], Stage::ManyPacks),
    ("housekeeping:installed", &[1, 2, 3], Stage::ManyPacks),
    ("housekeeping:first-removed", &[1, 2, 3], Stage::ManyPacks),
    ("prune:copied-not-installed", &[1], Stage::Unneeded),
    ("prune:installed", &[1], Stage::Unneeded),
    ("prune:first-removed", &[1], Stage::Unneeded),
    ("heal:made-not-swapped", &[1], Stage::Damaged),
    ("heal:set-aside", &[1], Stage::Damaged),
];

/// Points that other tests die at. No command of the program reaches those of a rollback yet; core's own tests do. A
/// decision about somebody else's history is made again by whoever made it (`adoption`); `restore` has its own table, and
/// `guard` dies at those of an approval, `lfs_keeping` at those of a prune and a scrub, `keys` at those of a rotation, `encryption_switch` at all that a switch
/// passes.
const ELSEWHERE: &[&str] = &[
    "rollback:",
    "adopt:set-aside",
    "restore:",
    "inspect:",
    "drill:",
    "approve:",
    "lfs-prune:",
    "lfs-scrub:",
    "switch:",
    "keys:",
];

fn die_at(setup: &Setup, point: &str, pass: u32, stage: Stage) {
    let fault = format!("{point}=kill@{pass}");
    let mut environment = vec![("BACKUPBOT_FAULT", fault.as_str())];
    if stage == Stage::ManyPacks {
        environment.push(("BACKUPBOT_FAULT_MOST_PACKS", "3"));
    }
    if stage == Stage::Unneeded {
        environment.push(("BACKUPBOT_FAULT_PRUNE_AFTER_MS", "0"));
    }
    setup.launch(&environment).dies_by_itself(&fault);
}

/// The world just before the run that is to die.
fn prepare(setup: &Setup, stage: Stage, seed: u64) -> Churn {
    corpus(&setup.root(), 60, &mut Random::new(seed));
    match stage {
        Stage::First | Stage::ManyPacks | Stage::Network | Stage::Large => {}
        Stage::AfterStaged => die_at(setup, "snapshot:staged", 1, stage),
        Stage::WithoutState | Stage::WithoutDatabase | Stage::Damaged | Stage::Unneeded => {
            let daemon = setup.start();
            daemon.api().flush();
            daemon.stop();
            match stage {
                Stage::WithoutState => fs::remove_dir_all(setup.state()).unwrap(),
                Stage::WithoutDatabase => fs::remove_file(setup.state().join("state.redb")).unwrap(),
                Stage::Damaged => fs::write(setup.local().path.join("refs/heads/main"), "").unwrap(),
                _ => with_something_unneeded(setup),
            }
        }
    }
    Churn::start(&setup.root(), seed, Duration::from_millis(15))
}

/// A content that no commit has, in one pack with everything else.
fn with_something_unneeded(setup: &Setup) {
    let local = setup.local().path;
    fs::write(setup.path("unneeded"), "nobody needs this").unwrap();
    git(&local, &["hash-object", "-w", setup.path("unneeded").to_str().unwrap()]);
    git(&local, &["repack", "-a", "-d", "-k", "-q"]);
    git(&local, &["prune-packed", "-q"]);
    // As if the last search were long ago.
    let _ = fs::remove_file(local.join("objects/info/backupbot-searched"));
}

fn dies_and_recovers(point: &str, pass: u32, stage: Stage, seed: u64) {
    let (setup, _web) = if stage == Stage::Network {
        let Some((setup, web)) = crate::http::served(&Switches::default()) else { return };
        (setup, Some(web))
    } else {
        (Setup::new(), None)
    };
    let mut setup = setup;
    if stage == Stage::Large {
        setup.repository()["lfs"] = serde_json::json!({"threshold": "100B"});
    }
    let churn = prepare(&setup, stage, seed);
    let complete_before = setup.remote().tip("main");
    die_at(&setup, point, pass, stage);
    let complete_after_death = setup.remote().tip("main");
    churn.stop();
    let untouched = fingerprint(&setup.root());

    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    match stage {
        Stage::Large => assert!(!lfs::assert_all_is_well(&setup, &GitLfs::new()).is_empty()),
        _ => setup.assert_all_is_well(),
    }
    assert_eq!(fingerprint(&setup.root()), untouched, "a file of the user was touched");
    for tip in [complete_before, complete_after_death].into_iter().flatten() {
        assert!(setup.remote().is_ancestor(&tip, "main"), "{tip} was complete and is lost");
    }
    assert_tells_all(&setup);
    let tip = setup.remote().tip("main");
    assert_eq!(setup.local().tip("main"), tip);

    // Nothing is left to do either: one more start adds nothing.
    let daemon = setup.start();
    daemon.status_when("the root is compared", |status| {
        status["repositories"][0]["roots"][0]["state"] == "watching"
    });
    daemon.api().flush();
    daemon.stop();
    assert_eq!(setup.remote().tip("main"), tip, "a replay made a second commit");
}

/// Runs every row whose point starts with `area`, and reports all that fail, not only the first.
fn area(area: &str) {
    let seed = seed(&format!("crash {area}"));
    let mut failures = Vec::new();
    let rows = POINTS.iter().filter(|(point, _, _)| point.starts_with(area));
    for (point, passes, stage) in rows {
        for pass in *passes {
            let row = std::panic::AssertUnwindSafe(|| dies_and_recovers(point, *pass, *stage, seed));
            if let Err(panic) = std::panic::catch_unwind(row) {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                failures.push(format!("{point}@{pass}: {}", said.unwrap_or_default()));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn death_while_the_database_is_made() {
    area("store:");
}

#[test]
fn death_while_a_repository_is_made() {
    area("repository:");
}

#[test]
fn death_while_changes_are_queued() {
    area("watcher:");
    area("queue:");
}

#[test]
fn death_while_a_commit_is_made() {
    area("snapshot:");
}

#[test]
fn death_while_a_pack_is_put_in_place() {
    area("pack:");
}

#[test]
fn death_while_a_reference_moves() {
    area("ref:");
}

#[test]
fn death_while_a_remote_is_written() {
    area("push:");
}

#[test]
fn death_while_it_is_written_down_what_was_done() {
    area("audit:");
}

#[test]
fn death_while_an_earlier_death_is_made_good() {
    area("recover:");
    area("adopt:");
    area("rebuild:");
}

#[test]
fn death_while_a_large_content_is_stored() {
    area("lfs:");
}

#[test]
fn death_while_packs_are_merged() {
    area("housekeeping:");
}

#[test]
fn death_while_what_nobody_needs_is_removed() {
    area("prune:");
}

#[test]
fn death_while_a_damaged_repository_is_replaced() {
    area("heal:");
}

#[test]
fn what_nobody_needs_goes_after_its_grace_and_commits_go_on() {
    let setup = Setup::new();
    corpus(&setup.root(), 60, &mut Random::new(seed("what_nobody_needs_goes")));
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    with_something_unneeded(&setup);
    let unneeded = git(&setup.local().path, &["hash-object", setup.path("unneeded").to_str().unwrap()]);
    let is_there = || try_git(&setup.local().path, &["cat-file", "-e", unneeded.trim()]).status.success();
    assert!(is_there());

    let daemon = setup.start();
    write(&setup.root(), "file", "x");
    daemon.api().flush();
    daemon.stop();
    assert!(is_there(), "it is young");

    let _ = fs::remove_file(setup.local().path.join("objects/info/backupbot-searched"));
    let daemon = setup.launch(&[("BACKUPBOT_FAULT_PRUNE_AFTER_MS", "0")]);
    daemon.serving();
    let churn = Churn::start(&setup.root(), 7, Duration::from_millis(15));
    eventually("it is gone", SOON, || (!is_there()).then_some(()));
    daemon.api().flush();
    churn.stop();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn every_point_in_the_source_has_a_row() {
    let mut found = Vec::new();
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![base.join("core/src"), base.join("actors/src"), base.join("src")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        for part in text.split("fault::point(\"").skip(1) {
            found.push(part.split('"').next().unwrap().to_owned());
        }
    }
    // Panics and hangs of actors are in `supervision`.
    found.retain(|point| !point.starts_with("actor:"));
    found.sort();
    found.dedup();
    assert!(found.len() > 20, "the source was searched: {found:?}");
    let table: Vec<&str> = POINTS.iter().map(|(point, _, _)| *point).collect();
    let is_elsewhere = |point: &str| ELSEWHERE.iter().any(|start| point.starts_with(start));
    let is_missing = |point: &&String| !is_elsewhere(point) && !table.contains(&point.as_str());
    let missing: Vec<&String> = found.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "points without a row: {missing:?}");
    let surplus: Vec<&&str> =
        table.iter().filter(|point| !found.iter().any(|other| other == *point)).collect();
    assert!(surplus.is_empty(), "rows without a point: {surplus:?}");
    let documented = fs::read_to_string(base.join("docs/architecture.md")).unwrap();
    let undocumented: Vec<&String> =
        found.iter().filter(|point| !documented.contains(&format!("`{point}`"))).collect();
    assert!(undocumented.is_empty(), "points that docs/architecture.md does not explain: {undocumented:?}");
}

#[test]
fn death_while_tags_are_set_leaves_the_tag_to_the_next_start() {
    let mut setup = Setup::new();
    setup.repository()["tags"] = serde_json::json!({"every": "day", "name": "day-%Y"});
    write(&setup.root(), "file", "x");
    die_at(&setup, "snapshot:branch-moved", 1, Stage::First);
    let daemon = setup.start();
    daemon.api().flush();
    let tag = eventually("the tag", SOON, || {
        setup.remote().references().into_iter().find(|(name, _)| name.starts_with("refs/tags/day-"))
    });
    daemon.stop();
    assert!(setup.remote().is_ancestor(&tag.1, "main"));
    setup.assert_all_is_well();
}
