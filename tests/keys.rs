//! The keys of encrypted repositories in the hands of an operator: made, carried away on paper, brought back, changed, and looked
//! at; with the real git-crypt and the real gpg at the other end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::audit::lines;
use crate::support::daemon::Setup;
use crate::support::git::{git, try_git};
use crate::support::gpg::Person;
use crate::support::tree::write;
use crate::support::{SOON, eventually};

fn encrypted() -> Setup {
    let mut setup = Setup::new();
    let key_file = key_file(&setup);
    setup.repository()["encryption"] = json!({"method": "git-crypt", "key_file": key_file.to_str().unwrap()});
    setup
}

fn key_file(setup: &Setup) -> PathBuf {
    setup.path("keys/documents.key")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `keys`, which must end with this code, and returns what it said.
fn keys(setup: &Setup, arguments: &[&str], code: i32) -> String {
    let output = setup.run(&[&["keys"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn checked(setup: &Setup, code: i32) -> Value {
    let output = setup.run(&["keys", "check", "--json"]);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], code == 0);
    answer["repositories"][0].clone()
}

fn key_id(setup: &Setup) -> String {
    checked_key(setup)["id"].as_str().unwrap().to_owned()
}

fn checked_key(setup: &Setup) -> Value {
    let output = setup.run(&["keys", "check", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["repositories"][0]["key"].clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Whether a clone that the real git-crypt encrypted with one key file is opened by another.
fn opens(scratch: &Path, made_with: &Path, key: &Path) -> bool {
    let place = tempfile::tempdir_in(scratch).unwrap();
    let origin = place.path().join("origin");
    git(place.path(), &["init", "-q", "-b", "main", "origin"]);
    unlock(&origin, made_with).unwrap();
    write(&origin, ".gitattributes", "x filter=git-crypt diff=git-crypt\n");
    write(&origin, "x", "what nobody may read");
    git(&origin, &["add", "-A"]);
    git(&origin, &["commit", "-q", "-m", "x"]);
    git(place.path(), &["clone", "-q", "origin", "clone"]);
    let clone = place.path().join("clone");
    let is_open = unlock(&clone, key).is_ok();
    let content = fs::read(clone.join("x")).unwrap();
    assert_eq!(content == b"what nobody may read", is_open);
    is_open
}

fn unlock(clone: &Path, key: &Path) -> Result<(), String> {
    let mut command = Command::new("git-crypt");
    command.current_dir(clone).arg("unlock").arg(key).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", clone);
    let output = command.output().expect("git-crypt is installed");
    if output.status.success() { Ok(()) } else { Err(said(&output)) }
}

#[test]
fn a_key_is_made_before_anything_ran_and_a_clone_is_opened_by_what_is_exported() {
    let setup = encrypted();
    assert!(keys(&setup, &["check"], 3).contains("keys create"), "it says how to make one");
    let made = keys(&setup, &["create"], 0);
    let id = key_id(&setup);
    assert!(made.contains(&id) && made.contains("--kit"), "{made}");
    assert_eq!((mode(&key_file(&setup)), mode(&setup.path("keys"))), (0o600, 0o700));
    let before = fs::read(key_file(&setup)).unwrap();
    assert!(keys(&setup, &["create"], 2).contains("is there already"));
    assert_eq!(fs::read(key_file(&setup)).unwrap(), before);
    assert!(!setup.state().exists());

    let out = setup.path("out.key");
    keys(&setup, &["export", "--to", out.to_str().unwrap()], 0);
    assert_eq!((fs::read(&out).unwrap(), mode(&out)), (before.clone(), 0o600));
    assert!(keys(&setup, &["export", "--to", out.to_str().unwrap()], 2).contains("is there already"));
    assert_eq!(setup.run(&["keys", "export"]).stdout, before);
    assert!(opens(setup.scratch.path(), &key_file(&setup), &out));
    let page = keys(&setup, &["check"], 0);
    assert!(page.contains("all is well") && page.contains("nothing was backed up yet"), "{page}");
}

#[test]
fn a_kit_that_was_typed_in_again_gives_the_key_and_a_mistyped_line_is_named() {
    let setup = encrypted();
    keys(&setup, &["create"], 0);
    let id = key_id(&setup);
    let kit = String::from_utf8(setup.run(&["keys", "export", "--kit"]).stdout).unwrap();
    assert!(kit.contains("RECOVERY KIT") && kit.contains("documents.git") && kit.contains(&id), "{kit}");
    let typed = kit[kit.find("\nKEY ").unwrap()..].to_uppercase().replace("  ", " ");
    let typed_file = setup.path("typed.txt");
    let from = typed_file.to_str().unwrap().to_owned();

    let other = encrypted();
    let at = typed.find("\n 5 ").unwrap() + 4;
    let wrong = if &typed[at..=at] == "7" { "3" } else { "7" };
    fs::write(&typed_file, [&typed[..at], wrong, &typed[at + 1..]].concat()).unwrap();
    let refused = keys(&other, &["import", &from], 2);
    assert!(refused.contains("line 5 is mistyped") && !refused.contains("line 6"), "{refused}");
    assert!(!key_file(&other).exists());

    fs::write(&typed_file, &typed).unwrap();
    assert!(keys(&other, &["import", &from], 0).contains(&id));
    assert_eq!(fs::read(key_file(&other)).unwrap(), fs::read(key_file(&setup)).unwrap());
    assert_eq!(mode(&key_file(&other)), 0o600);
    assert!(keys(&other, &["import", &from], 0).contains("was already"));

    // Where another key is, nothing is written over it.
    let third = encrypted();
    keys(&third, &["create"], 0);
    let before = fs::read(key_file(&third)).unwrap();
    assert!(keys(&third, &["import", &from], 2).contains("--old"));
    keys(&third, &["import", &from, "--old"], 0);
    assert_eq!(fs::read(key_file(&third)).unwrap(), before);
    assert_eq!(checked(&third, 0)["old_keys"][0]["id"], json!(id));

    // Without any configuration, on a new machine.
    let to = setup.path("new.key");
    let arguments = ["keys", "import", &from, "--to", to.to_str().unwrap()];
    let output = setup.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(opens(setup.scratch.path(), &key_file(&setup), &to));
    fs::write(&typed_file, b"\0\xff nonsense").unwrap();
    assert!(keys(&other, &["import", &from], 1).contains("neither a key file"));
}

#[test]
fn a_rotation_keeps_the_old_key_and_the_next_kit_has_both() {
    let setup = encrypted();
    // The audit log is begun by whoever works; commands only add to it.
    keys(&setup, &["create"], 0);
    let (old, old_bytes) = (key_id(&setup), fs::read(key_file(&setup)).unwrap());
    let told = keys(&setup, &["rotate"], 0);
    let new = key_id(&setup);
    assert!(told.contains(&old) && told.contains(&new) && told.contains("fresh clone"), "{told}");
    assert_ne!(old, new);
    let kept = setup.path(&format!("keys/documents.key.old/{old}.key"));
    assert_eq!(fs::read(&kept).unwrap(), old_bytes);
    assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o600, 0o700));
    let kit = setup.path("kit.txt");
    keys(&setup, &["export", "--kit", "--to", kit.to_str().unwrap()], 0);

    let other = encrypted();
    keys(&other, &["import", kit.to_str().unwrap()], 0);
    let answer = checked(&other, 0);
    assert_eq!((&answer["key"]["id"], &answer["old_keys"][0]["id"]), (&json!(new), &json!(old)));
}

#[cfg(feature = "fault-points")]
#[test]
fn death_during_a_rotation_leaves_every_key_somewhere() {
    for (point, is_done) in [("keys:old-kept", false), ("keys:drafted@2", false), ("keys:placed", true)] {
        let setup = encrypted();
        keys(&setup, &["create"], 0);
        let old = key_id(&setup);
        let (name, at) = point.split_once('@').unwrap_or((point, "1"));
        let config = setup.write_config();
        let mut command = setup.command(&["keys", "rotate", "--config", config.to_str().unwrap()]);
        let output = command.env("BACKUPBOT_FAULT", format!("{name}=kill@{at}")).output().unwrap();
        assert_eq!(output.status.code(), None, "{point}: {}", said(&output));
        let answer = checked(&setup, 0);
        assert_eq!(answer["key"]["id"] != json!(old), is_done, "{point}");
        assert_eq!(answer["old_keys"][0]["id"], json!(old), "{point}");
        keys(&setup, &["rotate"], 0);
        let answer = checked(&setup, 0);
        let in_hand: Vec<_> = answer["old_keys"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert!(in_hand.contains(&&json!(old)), "{point}");
        assert_eq!(fs::read_dir(setup.path("keys")).unwrap().count(), 2, "{point}: no draft is left");
    }
}

#[cfg(feature = "fault-points")]
#[test]
fn death_while_a_key_is_made_leaves_none_and_the_next_one_is_whole() {
    let setup = encrypted();
    let config = setup.write_config();
    let mut command = setup.command(&["keys", "create", "--config", config.to_str().unwrap()]);
    let output = command.env("BACKUPBOT_FAULT", "keys:drafted=kill").output().unwrap();
    assert_eq!(output.status.code(), None, "{}", said(&output));
    assert!(!key_file(&setup).exists());
    keys(&setup, &["create"], 0);
    assert_eq!(fs::read_dir(setup.path("keys")).unwrap().count(), 1);
}

#[test]
fn recipients_are_added_renewed_and_removed_where_the_configuration_looks_for_them() {
    let mut setup = encrypted();
    keys(&setup, &["create"], 0);
    let alice = Person::new("alice", "2y");
    let certificate = setup.path("alice-by-mail.asc");
    fs::write(&certificate, alice.certificate()).unwrap();
    let from = certificate.to_str().unwrap().to_owned();
    assert!(keys(&setup, &["add-recipient", &from], 2).contains("recipients: [DIRECTORY]"));

    let people = setup.path("people");
    setup.repository()["encryption"]["recipients"] = json!([people.to_str().unwrap()]);
    let told = keys(&setup, &["check"], 3);
    assert!(told.contains("people") && told.contains("TO DO"), "{told}");
    let told = keys(&setup, &["add-recipient", &from], 0);
    assert!(told.contains(&alice.fingerprint) && told.contains("alice@example.org"), "{told}");
    let copy = people.join(format!("{}.asc", alice.fingerprint));
    assert_eq!((fs::read(&copy).unwrap(), mode(&copy)), (alice.certificate(), 0o644));
    assert!(keys(&setup, &["add-recipient", &from], 0).contains("already"));
    let row = checked(&setup, 0)["recipients"][0].clone();
    assert_eq!((&row["fingerprint"], &row["trouble"]), (&json!(alice.fingerprint), &Value::Null));
    assert!(row["expires"].as_u64().is_some());

    fs::write(&certificate, "no certificate").unwrap();
    assert!(keys(&setup, &["add-recipient", &from], 2).contains("alice-by-mail.asc"));
    assert!(keys(&setup, &["remove-recipient", &from], 1).contains("40 digits"));
    let told = keys(&setup, &["remove-recipient", &alice.fingerprint.to_lowercase()], 0);
    assert!(told.contains("keys rotate") && !copy.exists(), "{told}");
    assert!(keys(&setup, &["remove-recipient", &alice.fingerprint], 1).contains("is no recipient"));
    assert!(keys(&setup, &["check"], 0).contains("without a certificate"));
}

#[test]
fn certificates_that_are_not_in_force_or_end_soon_are_named() {
    let mut setup = encrypted();
    keys(&setup, &["create"], 0);
    let people = setup.path("people");
    fs::create_dir(&people).unwrap();
    setup.repository()["encryption"]["recipients"] = json!([people.to_str().unwrap()]);
    let (soon, gone) = (Person::new("soon", "10d"), Person::new("gone", "never"));
    fs::write(people.join("soon.asc"), soon.certificate()).unwrap();
    let findings = checked(&setup, 3)["findings"].clone();
    assert_eq!(findings.as_array().unwrap().len(), 1);
    assert!(findings[0].as_str().unwrap().contains("soon.asc"), "{findings:#}");
    fs::remove_file(people.join("soon.asc")).unwrap();
    gone.revoke();
    fs::write(people.join("gone.asc"), gone.certificate()).unwrap();
    fs::write(people.join("broken.asc"), "broken").unwrap();
    let answer = checked(&setup, 3);
    let text = answer["findings"].to_string();
    assert!(text.contains("gone.asc") && text.contains("revoked") && text.contains("broken.asc"), "{text}");
    assert_eq!(answer["recipients"].as_array().unwrap().len(), 2);
    // It can still be taken away by its fingerprint.
    keys(&setup, &["remove-recipient", &gone.fingerprint], 0);
    assert!(!people.join("gone.asc").exists());
}

#[test]
fn permissions_and_places_that_give_a_key_away_are_named() {
    let mut setup = encrypted();
    let inside = setup.root().join("my.key");
    setup.repository()["encryption"]["key_file"] = json!(inside.to_str().unwrap());
    keys(&setup, &["create"], 0);
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(setup.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let text = checked(&setup, 3)["findings"].to_string();
    for part in ["chmod 600", "chmod go-w", "watched directory"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Adds a snapshot to the local repository whose policy names a key.
fn snapshot_with_policy(setup: &Setup, key: &str) -> String {
    let local = setup.local();
    let work = setup.path("work");
    let _ = fs::remove_dir_all(&work);
    git(setup.scratch.path(), &["clone", "-q", local.path.to_str().unwrap(), "work"]);
    let policy = json!({"version": 1, "method": "git-crypt", "key": key}).to_string();
    write(&work, ".backupbot/encryption", format!("{policy}\n"));
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-q", "-m", "x"]);
    git(&work, &["push", "-q", "origin", "HEAD:main"]);
    git(&work, &["rev-parse", "HEAD"]).trim().to_owned()
}

#[test]
fn a_check_names_the_keys_that_snapshots_need_and_which_of_them_is_missing() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "x");
    let once = setup.run(&["once"]);
    assert!(once.status.success(), "{}", said(&once));
    assert_eq!(checked(&setup, 0)["method"], "none");
    let key_file = key_file(&setup);
    setup.repository()["encryption"] = json!({"method": "git-crypt", "key_file": key_file.to_str().unwrap()});
    keys(&setup, &["create"], 0);
    assert!(checked(&setup, 0)["remarks"].to_string().contains("clear text"));
    let first = key_id(&setup);
    snapshot_with_policy(&setup, &first);
    let tip = snapshot_with_policy(&setup, "00112233445566ff");
    let answer = checked(&setup, 3);
    assert_eq!(answer["latest"]["commit"], json!(tip));
    assert_eq!(answer["latest"]["as_configured"], false);
    let needed = answer["needed"].as_array().unwrap();
    let in_hand: Vec<_> = needed.iter().map(|row| (row["key"].clone(), row["in_hand"].clone())).collect();
    assert_eq!(in_hand, [(json!("00112233445566ff"), json!(false)), (json!(first), json!(true))]);
    let findings = answer["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(findings[0].as_str().unwrap().contains("keys import --old"));

    let tip = snapshot_with_policy(&setup, &first);
    let latest = checked(&setup, 3)["latest"].clone();
    assert_eq!(
        latest,
        json!({"commit": tip, "key": first, "as_configured": true, "recipients_current": true})
    );
    // Somebody took the section out of the configuration.
    setup.repository().as_object_mut().unwrap().remove("encryption");
    assert!(checked(&setup, 3)["findings"].to_string().contains("says nothing of encryption"));
    assert!(try_git(&setup.local().path, &["fsck"]).status.success());
}

#[test]
fn what_was_done_with_keys_stands_in_the_audit_log() {
    let mut setup = Setup::new();
    write(&setup.root(), "file", "x");
    assert!(setup.run(&["once"]).status.success());
    let (key_file, people) = (key_file(&setup), setup.path("people"));
    setup.repository()["encryption"] = json!({
        "method": "git-crypt", "key_file": key_file.to_str().unwrap(), "recipients": [people.to_str().unwrap()],
    });
    let alice = Person::new("alice", "never");
    let certificate = setup.path("alice.asc");
    fs::write(&certificate, alice.certificate()).unwrap();
    let out = setup.path("out.key");
    for arguments in [
        &["create"][..],
        &["export", "--to", out.to_str().unwrap()],
        &["export", "--kit"],
        &["import", out.to_str().unwrap()],
        &["rotate"],
        &["add-recipient", certificate.to_str().unwrap()],
        &["remove-recipient", &alice.fingerprint],
    ] {
        keys(&setup, arguments, 0);
    }
    let lines = lines(&setup);
    let deeds: Vec<_> = lines
        .iter()
        .filter(|line| line["what"] == "key" || line["what"] == "recipient")
        .map(|line| format!("{} {}", line["what"].as_str().unwrap(), line["result"].as_str().unwrap()))
        .collect();
    let wanted = [
        "key created",
        "key exported",
        "key exported",
        "key imported",
        "key rotated",
        "recipient added",
        "recipient removed",
    ];
    assert_eq!(deeds, wanted, "{lines:#?}");
    let audit = fs::read_to_string(setup.state().join("audit.jsonl")).unwrap();
    assert!(audit.contains(&alice.fingerprint) && audit.contains("recovery kit"));
    let verified = setup.run(&["audit", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[test]
fn several_keys_are_told_apart_and_a_shared_one_is_rotated_for_all() {
    let mut setup = encrypted();
    let mut second = setup.repository().clone();
    second["name"] = json!("pictures");
    fs::create_dir(setup.path("folder2")).unwrap();
    second["roots"] = json!([{"name": "folder2", "path": setup.path("folder2").to_str().unwrap()}]);
    second["remotes"] = json!([]);
    second["encryption"]["old_keys"] = json!(setup.path("elsewhere").to_str().unwrap());
    setup.config["repositories"].as_array_mut().unwrap().push(second);
    keys(&setup, &["create", "--repository", "pictures"], 0);
    let old = key_id(&setup);
    assert!(keys(&setup, &["rotate"], 0).contains("documents, pictures"));
    for place in ["keys/documents.key.old", "elsewhere"] {
        assert!(setup.path(place).join(format!("{old}.key")).exists(), "{place}");
    }
    setup.config["repositories"][1]["encryption"]["key_file"] =
        json!(setup.path("other.key").to_str().unwrap());
    assert!(keys(&setup, &["rotate"], 2).contains("choose with --repository"));
    keys(&setup, &["create", "--repository", "pictures"], 0);
    assert!(keys(&setup, &["create", "--repository", "music"], 1).contains("music"));
    let mut clear = Setup::new();
    assert!(keys(&clear, &["create"], 2).contains("key_file"));
    clear.repository()["encryption"] = json!({"method": "none"});
    assert!(keys(&clear, &["rotate"], 2).contains("is encrypted"));
}

#[test]
fn a_rotation_beside_a_daemon_encrypts_everything_anew_and_plain_git_crypt_reads_both_states() {
    let setup = encrypted();
    keys(&setup, &["create"], 0);
    write(&setup.root(), "file", "what nobody may read");
    let daemon = setup.start();
    daemon.api().flush();
    let old = key_id(&setup);
    assert_eq!(checked(&setup, 0)["latest"]["as_configured"], true);
    let told = keys(&setup, &["rotate"], 0);
    assert!(told.contains("asked to make a snapshot now"), "{told}");
    let new = key_id(&setup);
    eventually("the latest snapshot is encrypted with the new key", SOON, || {
        (checked(&setup, 0)["latest"]["key"] == json!(new)).then_some(())
    });
    daemon.api().flush();
    let answer = checked(&setup, 0);
    let needed: Vec<_> = answer["needed"].as_array().unwrap().iter().map(|row| row["key"].clone()).collect();
    assert_eq!(needed, [json!(new), json!(old)]);
    let remote = setup.remote().path;
    let old_key = setup.path(&format!("keys/documents.key.old/{old}.key"));
    for (commit, key, wrong) in
        [("main", &key_file(&setup), &old_key), ("main~1", &old_key, &key_file(&setup))]
    {
        let clone = setup.path(&format!("clone-{commit}"));
        git(setup.scratch.path(), &["clone", "-q", "-n", remote.to_str().unwrap(), clone.to_str().unwrap()]);
        git(&clone, &["checkout", "-q", "--detach", &format!("origin/{commit}")]);
        let _ = unlock(&clone, wrong);
        let is_read = |clone: &Path| {
            fs::read(clone.join("folder1/file")).ok() == Some(b"what nobody may read".to_vec())
        };
        assert!(!is_read(&clone), "{commit}");
        fs::remove_dir_all(&clone).unwrap();
        git(setup.scratch.path(), &["clone", "-q", "-n", remote.to_str().unwrap(), clone.to_str().unwrap()]);
        git(&clone, &["checkout", "-q", "--detach", &format!("origin/{commit}")]);
        unlock(&clone, key).unwrap();
        assert!(is_read(&clone), "{commit}");
    }
}

#[test]
fn a_recipient_opens_a_plain_clone_with_gpg_alone_from_the_next_snapshot_on() {
    let mut setup = encrypted();
    let people = setup.path("people");
    setup.repository()["encryption"]["recipients"] = json!([people.to_str().unwrap()]);
    fs::create_dir(&people).unwrap();
    keys(&setup, &["create"], 0);
    write(&setup.root(), "file", "what nobody may read");
    let daemon = setup.start();
    daemon.api().flush();
    let (alice, eve) = (Person::new("alice", "never"), Person::new("eve", "never"));
    let certificate = setup.path("alice.asc");
    fs::write(&certificate, alice.certificate()).unwrap();
    assert!(checked(&setup, 0)["latest"]["recipients_current"] == true);
    keys(&setup, &["add-recipient", certificate.to_str().unwrap()], 0);
    eventually("the key is in the latest snapshot for her", SOON, || {
        (checked(&setup, 0)["latest"]["recipients_current"] == true).then_some(())
    });
    daemon.api().flush();
    let remote = setup.remote().path;
    for (person, may) in [(&alice, true), (&eve, false)] {
        let clone = setup.path(&format!("clone-{may}"));
        git(setup.scratch.path(), &["clone", "-q", remote.to_str().unwrap(), clone.to_str().unwrap()]);
        let mut command = Command::new("git-crypt");
        command
            .current_dir(&clone)
            .arg("unlock")
            .env("GNUPGHOME", person.home())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        assert_eq!(command.output().unwrap().status.success(), may);
        let content = fs::read(clone.join("folder1/file")).unwrap();
        assert_eq!(content == b"what nobody may read", may);
    }
    keys(&setup, &["remove-recipient", &alice.fingerprint], 0);
    eventually("it is in there for nobody", SOON, || {
        (checked(&setup, 0)["latest"]["recipients_current"] == true).then_some(())
    });
    let listed = git(&setup.local().path, &["ls-tree", "-r", "--name-only", "main"]);
    assert!(!listed.contains(".git-crypt"), "{listed}");
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_of_the_process_is_left_in_a_core_dump_and_others_do_not_look_into_it() {
    use std::os::unix::fs::MetadataExt;
    let mut setup = Setup::new();
    setup.as_nobody = true;
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    let of_process = |name: &str| PathBuf::from(format!("/proc/{}/{name}", daemon.pid()));
    let limits = fs::read_to_string(of_process("limits")).unwrap();
    let core: Vec<&str> = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    // What may not be dumped belongs to root there, whoever runs it.
    assert_eq!(fs::metadata(of_process("environ")).unwrap().uid(), 0);
    daemon.api().flush();
    setup.assert_clone_equals_root();
}
