//! The board as its readers see it.

use super::*;

fn documents() -> RepositoryName {
    RepositoryName::new("documents").unwrap()
}

fn repository(pending: u64) -> RepositoryStatus {
    RepositoryStatus {
        name: documents(),
        paused: false,
        paused_until: None,
        pending,
        commit: Some("c0ffee".into()),
        trouble: None,
        is_encryption_in_the_way: false,
        clear_history: None,
        guard: Default::default(),
    }
}

fn remote(unprotected_since: Option<Moment>) -> RemoteStatus {
    RemoteStatus {
        name: RemoteName::new("gitea").unwrap(),
        state: RemoteState::Backoff,
        reason: Some("unreachable".into()),
        commit: Some("c0ffee".into()),
        last_success: Moment::from_unix_seconds(1_700_000_000),
        unprotected_since,
        warnings: vec!["the token is readable by all".into()],
        messages: vec!["welcome".into()],
        token_expires: None,
    }
}

fn root(name: &str) -> RootStatus {
    RootStatus {
        name: RootName::new(name).unwrap(),
        state: RootState::Watching,
        reason: None,
        backend: "inotify".into(),
        files: 12,
        excluded_by_rules: 2,
        excluded_by_system: 1,
        excluded_by_file_system: 0,
        skipped: 1,
        skipped_by_reason: BTreeMap::new(),
        watch_limited: None,
        skipped_files: vec![SkippedFile {
            path: "a".into(),
            path_b64: None,
            reason: "permission denied".into(),
        }],
    }
}

fn at(seconds: i64) -> Moment {
    Moment::from_unix_seconds(seconds).unwrap()
}

#[test]
fn the_status_answer_has_the_form_of_the_contract() {
    let board = Board::new();
    board.publish_repository(repository(3));
    board.publish_root(&documents(), root("folder1"));
    board.publish_remote(&documents(), remote(Some(at(1_700_000_000))));

    let answer = serde_json::to_value(board.status(at(1_700_000_090))).unwrap();
    let expected = serde_json::json!([{
        "name": "documents", "paused": false, "pending": 3, "commit": "c0ffee", "state": "running",
        "states": {
            "watched": 0, "detected": 0, "queued": 0, "staged": 0, "committed": 0, "lfs_processed": 0, "pushed": 0,
            "failed": 0,
        },
        "roots": [{
            "name": "folder1", "state": "watching", "reason": null, "backend": "inotify", "files": 12,
            "excluded_by_rules": 2, "excluded_by_system": 1,
            "excluded_by_file_system": 0, "skipped": 1,
        }],
        "remotes": [{
            "name": "gitea", "state": "backoff", "reason": "unreachable", "commit": "c0ffee",
            "last_success": "2023-11-14T22:13:20Z", "oldest_unprotected_seconds": 90,
            "warnings": ["the token is readable by all"], "messages": ["welcome"],
        }],
    }]);
    assert_eq!(answer, expected);
    let read_back: Vec<RepositoryView> = serde_json::from_value(answer).unwrap();
    assert_eq!(read_back[0].remotes[0].last_success, Some(at(1_700_000_000)));
}

#[test]
fn the_waiting_time_of_a_remote_grows_though_nobody_publishes() {
    let waiting = remote(Some(at(1000)));
    assert_eq!(waiting.view(at(1060)).oldest_unprotected_seconds, 60);
    assert_eq!(waiting.view(at(4600)).oldest_unprotected_seconds, 3600);
    assert_eq!(waiting.view(at(900)).oldest_unprotected_seconds, 0, "the clock was set back");
    assert_eq!(remote(None).view(at(1060)).oldest_unprotected_seconds, 0);
}

#[test]
fn a_child_says_its_state_and_what_belongs_to_it() {
    let board = Board::new();
    let id = ChildId("queue".into());
    board.child_starts(&id, "queue", 7);
    board.child_ended(&id, &ExitReason::Failed("no space".into()));
    board.child_is(&id, "queue", ChildState::Backoff { until: at(1_700_000_000) });
    let mut row = serde_json::to_value(board.child(&id).unwrap()).unwrap();
    row["since"] = "now".into();
    row["last_exit"]["at"] = "now".into();
    let expected = serde_json::json!({
        "id": "queue", "role": "queue", "state": "backoff", "until": "2023-11-14T22:13:20Z", "since": "now",
        "restarts": 0, "last_exit": {"reason": "failed: no space", "at": "now"}, "generation": 7,
    });
    assert_eq!(row, expected);
}

#[test]
fn the_restart_counter_of_a_role_outlives_its_children() {
    let board = Board::new();
    let id = ChildId("documents".into()).child("pusher gitea");
    for generation in [1, 4, 9] {
        board.child_starts(&id, "pusher", generation);
    }
    assert_eq!(board.child(&id).unwrap().restarts, 2);
    board.forget_child(&ChildId("documents".into()));
    assert_eq!(board.children(), []);
    assert_eq!(board.restarts_by_role()["pusher"], 2);
}

#[test]
fn a_repository_is_forgotten_with_all_that_belongs_to_it_and_nothing_else() {
    let board = Board::new();
    let photos = RepositoryName::new("photos").unwrap();
    board.publish_repository(repository(0));
    for owner in [&documents(), &photos] {
        board.publish_root(owner, root("folder1"));
        board.publish_root(owner, root("folder2"));
        board.publish_remote(owner, remote(None));
    }
    board.forget_root(&photos, &RootName::new("folder2").unwrap());
    board.forget_repository(&documents());
    assert_eq!(board.repositories(), []);
    assert_eq!((board.roots(&documents()).len(), board.remotes(&documents()).len()), (0, 0));
    assert_eq!((board.roots(&photos).len(), board.remotes(&photos).len()), (1, 1));
    board.forget_remote(&photos, &RemoteName::new("gitea").unwrap());
    assert_eq!(board.remotes(&photos), []);
}

#[actix::test]
async fn a_waiter_is_woken_by_the_change_it_waits_for() {
    let board = Board::new();
    board.publish_repository(repository(2));
    let waiting = board.clone();
    let waiter = actix::spawn(async move {
        waiting.wait_for(|board| board.repository(&documents()).filter(|status| status.pending == 0)).await
    });
    tokio::task::yield_now().await;
    board.publish_repository(repository(1));
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    board.publish_repository(repository(0));
    assert_eq!(waiter.await.unwrap().pending, 0);
}

#[test]
fn publishing_the_same_again_wakes_nobody() {
    let board = Board::new();
    board.publish_repository(repository(2));
    let changes = board.subscribe();
    board.publish_repository(repository(2));
    assert!(!changes.0.has_changed().unwrap());
    board.publish_repository(repository(3));
    assert!(changes.0.has_changed().unwrap());
}

#[test]
fn a_leak_counts_until_it_is_over() {
    let board = Board::new();
    let first = board.leak();
    let second = board.leak();
    assert_eq!(board.leaked(), 2);
    drop((first, second));
    assert_eq!(board.leaked(), 0);
}

#[test]
fn what_the_inspector_found_well_is_published_in_unix_seconds_by_place() {
    let board = Board::new();
    let (repository, usb) = (RepositoryName::new("documents").unwrap(), RemoteName::new("usb").unwrap());
    assert_eq!((board.last_verified(&repository), board.last_drill(&repository, &usb)), (None, None));
    let at = |remote: Option<&str>, seconds| InspectionStatus {
        remote: remote.map(str::to_owned),
        last_good: Moment::from_unix_seconds(seconds),
        ..InspectionStatus::default()
    };
    board.publish_inspections(&repository, vec![at(None, 7), at(Some("usb"), 8)]);
    assert_eq!((board.last_verified(&repository), board.last_drill(&repository, &usb)), (Some(7), Some(8)));
    board.forget_repository(&repository);
    assert!(board.inspections(&repository).is_empty());
}

#[test]
fn a_check_says_since_when_its_state_is_so_and_goes_with_what_it_speaks_of() {
    let board = Board::new();
    let gitea = RemoteName::new("gitea").unwrap();
    let at = |seconds| Moment::from_unix_seconds(seconds).unwrap();
    let say = |state, message: &str, seconds| {
        let (check, subject) = (Check::RemoteReachable, Subject::remote(&documents(), &gitea));
        let finding = Finding { check, subject, state, message: message.into(), remedy: None };
        board.publish_health(finding, at(seconds));
        let rows = board.health();
        assert_eq!(rows.len(), 1);
        (rows[0].since.unix_seconds(), rows[0].checked.unix_seconds())
    };
    assert_eq!(say(Condition::Ok, "it answers", 10), (10, 10));
    assert_eq!(say(Condition::Ok, "it answers", 20), (10, 20));
    assert_eq!(say(Condition::Failing, "no route", 30), (30, 30));
    assert_eq!(say(Condition::Failing, "refused", 40), (30, 40), "another reason is the same trouble");
    let json = serde_json::to_value(board.health()).unwrap();
    assert_eq!(json[0]["check"], "remote_reachable");
    assert_eq!((&json[0]["repository"], &json[0]["remote"]), (&"documents".into(), &"gitea".into()));
    assert_eq!((&json[0]["state"], &json[0]["message"]), (&"failing".into(), &"refused".into()));
    assert!(json[0].get("root").is_none() && json[0]["since"].is_string());
    assert_eq!(serde_json::from_value::<Vec<HealthRow>>(json).unwrap(), board.health());
    board.forget_remote(&documents(), &gitea);
    assert_eq!(board.health(), []);
}
