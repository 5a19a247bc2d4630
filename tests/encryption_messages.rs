//! A host with public keys only: what it stores is read by the owners of the private keys with plain gpg and by nobody else,
//! whoever comes or goes, and whatever of the host is lost. A canary in every file says what is not seen.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::encryption_switch::{CANARY, only_in, run_once, tip, walk, world};
use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::gpg::Person;
use crate::support::tree::write;
use crate::support::{SOON, eventually};

fn people(setup: &Setup) -> PathBuf {
    setup.path("people")
}

fn let_in(setup: &Setup, name: &str, person: &Person) {
    fs::create_dir_all(people(setup)).unwrap();
    fs::write(people(setup).join(format!("{name}.asc")), person.certificate()).unwrap();
}

/// A world that is encrypted for this person.
fn world_for(person: &Person) -> Setup {
    let mut setup = world();
    let_in(&setup, "alice", person);
    setup.repository()["encryption"] = json!({"method": "gpg", "recipients": [people(&setup)]});
    setup
}

/// What of a fresh clone of the remote this person cannot read, or is not what is on disk.
fn unread(setup: &Setup, branch: &str, person: &Person) -> Vec<PathBuf> {
    let scratch = tempfile::tempdir().unwrap();
    let clone = scratch.path().join("c");
    setup.remote().clone_to(&clone, branch);
    let is_unread = |path: &PathBuf| {
        let message = clone.join("folder1").join(path.strip_prefix(setup.root()).unwrap());
        person.decrypt(&message) != Some(fs::read(path).unwrap())
    };
    walk(&setup.root()).into_iter().filter(is_unread).collect()
}

#[track_caller]
fn reads_all(setup: &Setup, person: &Person) {
    assert_eq!(unread(setup, "main", person), Vec::<PathBuf>::new());
}

fn keys(setup: &Setup, arguments: &[&str]) -> String {
    let config = setup.write_config();
    let arguments = [&["keys"], arguments, &["--config", config.to_str().unwrap()]].concat();
    let output = setup.command(&arguments).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

fn trailers(setup: &Setup) -> usize {
    git(&setup.local().path, &["log", "--format=%B", "main"]).matches("BackupBot-Switch: ").count()
}

#[test]
fn who_is_let_in_while_it_runs_reads_everything_and_who_is_taken_out_nothing_new() {
    let (alice, bob) = (Person::new("alice", "never"), Person::new("bob", "never"));
    let setup = world_for(&alice);
    let daemon = setup.start();
    daemon.api().flush();
    reads_all(&setup, &alice);
    only_in(&setup, &[]);
    let first = tip(&setup);
    fs::write(setup.path("bob.asc"), bob.certificate()).unwrap();
    let said = keys(&setup, &["add-recipient", setup.path("bob.asc").to_str().unwrap()]);
    assert!(said.contains("encrypted anew"), "{said}");
    eventually("he reads everything", SOON * 3, || unread(&setup, "main", &bob).is_empty().then_some(()));
    reads_all(&setup, &alice);
    daemon.status_when("nothing waits", |status| status["repositories"][0]["pending"] == 0);
    assert!(daemon.output().contains("other recipients"), "{}", daemon.output());
    let settled = tip(&setup);
    keys(&setup, &["remove-recipient", &bob.fingerprint]);
    eventually("he reads nothing of it", SOON * 3, || {
        (unread(&setup, "main", &bob).len() == walk(&setup.root()).len()).then_some(())
    });
    daemon.api().flush();
    reads_all(&setup, &alice);
    assert!(setup.remote().is_ancestor(&first, "main") && setup.remote().is_ancestor(&settled, "main"));
    let status = daemon.api().status();
    assert!(!status["alerts"].to_string().contains("mass_change"), "{status:#}");
    daemon.stop();
    assert_eq!(trailers(&setup), 2);
    only_in(&setup, &[]);
    setup.remote().assert_sound();
}

#[test]
fn a_lost_state_is_said_and_everything_is_encrypted_anew_upon_what_the_remote_has() {
    let alice = Person::new("alice", "never");
    let setup = world_for(&alice);
    run_once(&setup);
    let before = tip(&setup);
    let blob = setup.remote().blob("main", "folder1/secret/a").unwrap();
    fs::remove_dir_all(setup.state()).unwrap();
    fs::remove_file(setup.root().join("many/07")).unwrap();
    write(&setup.root(), "later", CANARY);
    let daemon = setup.start();
    daemon.api().flush();
    let said = daemon.output();
    assert!(said.contains("the key of the metadata is lost"), "{said}");
    daemon.stop();
    reads_all(&setup, &alice);
    assert!(setup.remote().is_ancestor(&before, "main"));
    assert_ne!(setup.remote().blob("main", "folder1/secret/a").unwrap(), blob);
    assert!(setup.remote().blob("main", "folder1/many/07").is_none(), "what went meanwhile is gone");
    only_in(&setup, &[]);
}

#[test]
fn an_expired_certificate_stops_the_backup_until_there_is_a_good_one() {
    let alice = Person::new("alice", "never");
    let setup = world_for(&alice);
    let daemon = setup.start();
    daemon.api().flush();
    let before = tip(&setup);
    let expired = Person::expired("carol");
    let_in(&setup, "carol", &expired);
    write(&setup.root(), "changed", CANARY);
    let status = daemon.status_when("it says why", |status| {
        status["repositories"][0]["is_encryption_in_the_way"] == json!(true)
    });
    let trouble = status["repositories"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("carol.asc") && trouble.contains("expired"), "{trouble}");
    assert!(status["repositories"][0]["pending"].as_u64().unwrap() > 0, "the queue is kept");
    assert_eq!(tip(&setup), before);
    only_in(&setup, &[]);
    fs::remove_file(people(&setup).join("carol.asc")).unwrap();
    eventually("it goes on by itself", SOON * 2, || (tip(&setup) != before).then_some(()));
    daemon.api().flush();
    daemon.stop();
    reads_all(&setup, &alice);
}

#[test]
fn leaving_gpg_is_refused_on_the_branch_and_complete_on_another() {
    let alice = Person::new("alice", "never");
    let mut setup = world_for(&alice);
    run_once(&setup);
    let before = tip(&setup);
    setup.repository()["encryption"] = json!({"method": "none"});
    let daemon = setup.start();
    let status = daemon.status_when("it says why", |status| status["repositories"][0]["trouble"].is_string());
    let trouble = status["repositories"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("another `branch`"), "{trouble}");
    daemon.stop();
    assert_eq!(tip(&setup), before);
    setup.repository()["branch"] = json!("clear");
    run_once(&setup);
    let scratch = tempfile::tempdir().unwrap();
    let clone = scratch.path().join("c");
    setup.remote().clone_to(&clone, "clear");
    for path in walk(&setup.root()) {
        let stored = clone.join("folder1").join(path.strip_prefix(setup.root()).unwrap());
        assert!(fs::read(stored).unwrap() == fs::read(&path).unwrap(), "{}", path.display());
    }
    assert!(!setup.remote().is_ancestor(&before, "clear"));
    assert_eq!(setup.remote().tip("main").unwrap(), before, "the old branch stays");
}

#[cfg(feature = "fault-points")]
#[test]
fn who_was_let_in_and_does_not_read_everything_yet_is_told_which_files_and_gets_the_others() {
    let (alice, bob) = (Person::new("alice", "never"), Person::new("bob", "never"));
    let mut setup = world_for(&alice);
    setup.repository()["encryption"]["paths"] = json!(["secret/"]);
    run_once(&setup);
    let_in(&setup, "bob", &bob);
    // After the change of what the tree says, and before any file was read again.
    setup.launch(&[("BACKUPBOT_FAULT", "queue:settled=kill@1")]).dies_by_itself("queue:settled");
    let (config, to, key) = (setup.write_config(), setup.path("back"), bob.private_key());
    let arguments =
        ["restore", "--config", config.to_str().unwrap(), "--to", to.to_str().unwrap(), "--key-file"];
    let output = setup.command(&arguments).arg(&key).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("secret/a") && said.contains("private key"), "{said}");
    for path in walk(&setup.root()) {
        let name = path.strip_prefix(setup.root()).unwrap();
        let restored = fs::read(to.join("folder1").join(name)).ok();
        let expected = (!name.starts_with("secret")).then(|| fs::read(&path).unwrap());
        assert!(restored == expected, "{}", name.display());
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn death_at_any_point_of_the_change_of_recipients_ends_with_everything_for_the_new_ones() {
    let points = [
        ("snapshot:pack-synced", 1),
        ("snapshot:staged", 1),
        ("snapshot:branch-moved", 1),
        ("queue:before-settle", 1),
        ("queue:settled", 1),
        // In the commits that bring the files.
        ("snapshot:pack-begun", 2),
        ("snapshot:pack-synced", 2),
        ("snapshot:branch-moved", 2),
        ("queue:settled", 2),
    ];
    let (alice, bob) = (Person::new("alice", "never"), Person::new("bob", "never"));
    for (point, pass) in points {
        let setup = world_for(&alice);
        run_once(&setup);
        let_in(&setup, "bob", &bob);
        let fault = format!("{point}=kill@{pass}");
        setup.launch(&[("BACKUPBOT_FAULT", fault.as_str())]).dies_by_itself(&fault);
        run_once(&setup);
        assert_eq!(trailers(&setup), 1, "{point}");
        assert_eq!(unread(&setup, "main", &alice), Vec::<PathBuf>::new(), "{fault}");
        assert_eq!(unread(&setup, "main", &bob), Vec::<PathBuf>::new(), "{fault}");
        only_in(&setup, &[]);
        setup.remote().assert_sound();
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn death_while_the_key_of_the_metadata_is_made_or_messages_are_stored_leaves_nothing_half() {
    let alice = Person::new("alice", "never");
    for point in
        ["keys:drafted", "lfs:object-begun", "lfs:object-synced", "snapshot:pack-synced", "queue:settled"]
    {
        let mut setup = world_for(&alice);
        setup.repository()["lfs"] = json!({"threshold": "1MiB"});
        let fault = format!("{point}=kill@1");
        setup.launch(&[("BACKUPBOT_FAULT", fault.as_str())]).dies_by_itself(&fault);
        let has_canary = |path: &PathBuf| {
            fs::read(path).unwrap().windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
        };
        assert_eq!(walk(&setup.state()).into_iter().find(has_canary), None, "{point}");
        run_once(&setup);
        only_in(&setup, &[]);
        // A clone without git-lfs has a pointer there.
        assert_eq!(unread(&setup, "main", &alice), [setup.root().join("large")], "{point}");
        let stored = walk(&setup.local().path.join("lfs/objects"));
        let large = fs::read(setup.root().join("large")).unwrap();
        assert!(
            stored.iter().any(|path| alice.decrypt(path).as_ref() == Some(&large)),
            "{point}: {stored:?}"
        );
        let drafts = fs::read_dir(setup.local().path.join("lfs/tmp")).map_or(0, Iterator::count);
        assert_eq!(drafts, 0, "{point}: no draft is left");
    }
}
