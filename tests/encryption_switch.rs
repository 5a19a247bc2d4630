//! Encryption is switched on, changed and off while the program runs; without the key nothing is stored; what would go out in
//! clear text stays here. git-crypt is the judge of what is in the repository, a canary in every file of what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::git::{git, try_git};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

pub const CANARY: &str = "CANARY-0815-sings";

/// A world with files of all sizes, each with the canary in it, and a key that git-crypt made.
pub fn world() -> Setup {
    let setup = Setup::new();
    for file in 0..30 {
        write(&setup.root(), format!("many/{file:02}"), format!("{file} {CANARY}"));
    }
    write(&setup.root(), "secret/a", CANARY);
    write(&setup.root(), "empty", "");
    write(&setup.root(), "large", format!("{CANARY}{}", "l".repeat(3 << 20)));
    write(&setup.root(), "middle", format!("{CANARY}{}", "m".repeat(300_000)));
    setup
}

fn new_key(setup: &Setup, name: &str) -> PathBuf {
    let path = setup.path(name);
    let made = Command::new("git-crypt").arg("keygen").arg(&path).output().expect("git-crypt is installed");
    assert!(made.status.success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn encrypt(setup: &mut Setup, key: &Path, more: &Value) {
    let mut section = json!({"method": "git-crypt", "key_file": key, "clear_history": "accept"});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    setup.repository()["encryption"] = section;
}

pub fn run_once(setup: &Setup) -> String {
    let daemon = setup.start();
    daemon.api().flush();
    let status = daemon.api().status();
    daemon.stop();
    status.to_string()
}

/// A clone of the remote that git-crypt unlocked equals the root.
fn unlocks(setup: &Setup, branch: &str, key: &Path) {
    let clone = tempfile::tempdir().unwrap();
    setup.remote().clone_to(&clone.path().join("c"), branch);
    let at = clone.path().join("c");
    let unlocked = Command::new("git-crypt").current_dir(&at).arg("unlock").arg(key).output().unwrap();
    assert!(unlocked.status.success(), "{}", String::from_utf8_lossy(&unlocked.stderr));
    for entry in walk(&setup.root()) {
        let path = entry.strip_prefix(setup.root()).unwrap();
        assert!(
            fs::read(&entry).unwrap() == fs::read(at.join("folder1").join(path)).unwrap(),
            "{}",
            path.display()
        );
    }
    let said = Command::new("git-crypt").current_dir(&at).args(["status", "-e"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&said.stdout).contains("WARNING"), "{said:?}");
}

pub fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found
}

fn has_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
}

/// The objects of a repository in which the canary is.
pub fn canaries(repository: &Path) -> Vec<String> {
    let all =
        git(repository, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]);
    let blobs = all.lines().filter_map(|line| line.strip_suffix(" blob"));
    blobs
        .filter(|oid| has_canary(&try_git(repository, &["cat-file", "blob", oid]).stdout))
        .map(str::to_owned)
        .collect()
}

/// The canary is in no object but those that `commits` have, and in no file of the state or of the remote.
pub fn only_in(setup: &Setup, commits: &[&str]) {
    for repository in [setup.local().path, setup.remote().path] {
        let mut known = String::new();
        for commit in commits {
            known += &git(&repository, &["rev-list", "--objects", commit]);
        }
        for oid in canaries(&repository) {
            assert!(known.contains(&oid), "{oid} of {} has the canary", repository.display());
        }
    }
    for directory in [setup.state(), setup.remote().path] {
        for file in walk(&directory) {
            // Those were looked into one by one; what is short stands in a pack as it is.
            if !commits.is_empty() && file.components().any(|part| part.as_os_str() == "objects") {
                continue;
            }
            assert!(!has_canary(&fs::read(&file).unwrap()), "{}", file.display());
        }
    }
}

pub fn tip(setup: &Setup) -> String {
    setup.local().tip("main").unwrap()
}

#[test]
fn encryption_is_switched_on_its_key_changed_its_paths_and_off_again_and_each_is_one_commit() {
    let mut setup = world();
    run_once(&setup);
    let clear = tip(&setup);
    let (one, two) = (new_key(&setup, "one.key"), new_key(&setup, "two.key"));
    encrypt(&mut setup, &one, &json!({}));
    let status = run_once(&setup);
    assert!(status.contains("\"clear_history\":1"), "{status}");
    unlocks(&setup, "main", &one);
    only_in(&setup, &[&clear]);
    assert_eq!(git(&setup.local().path, &["rev-list", "--count", "main"]).trim(), "2");

    let old = setup.path("two.key.old");
    fs::create_dir(&old).unwrap();
    fs::copy(&one, old.join("one.key")).unwrap();
    encrypt(&mut setup, &two, &json!({}));
    write(&setup.root(), "more", CANARY);
    run_once(&setup);
    unlocks(&setup, "main", &two);
    only_in(&setup, &[&clear]);

    encrypt(&mut setup, &two, &json!({"paths": ["secret/"]}));
    run_once(&setup);
    unlocks(&setup, "main", &two);
    assert!(setup.remote().blob("main", "folder1/secret/a").unwrap().starts_with(b"\0GITCRYPT\0"));
    assert!(has_canary(&setup.remote().blob("main", "folder1/more").unwrap()));

    fs::copy(&two, old.join("two.key")).unwrap();
    setup.repository()["encryption"] = json!({"method": "none", "old_keys": old});
    run_once(&setup);
    setup.assert_clone_equals_root();
    setup.remote().assert_sound();
    let messages = git(&setup.local().path, &["log", "--format=%B", "main"]);
    assert_eq!(messages.matches("BackupBot-Switch: ").count(), 4, "{messages}");
}

#[test]
fn clear_text_in_the_history_is_neither_added_to_nor_pushed_until_it_is_accepted_or_another_branch_is_named()
{
    let mut setup = world();
    run_once(&setup);
    let (before, key) = (tip(&setup), new_key(&setup, "key"));
    encrypt(&mut setup, &key, &json!({"clear_history": "refuse"}));
    write(&setup.root(), "new", CANARY);
    let daemon = setup.start();
    let status = daemon.status_when("it says why", |status| status["repositories"][0]["trouble"].is_string());
    let trouble = status["repositories"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("clear_history: accept") && trouble.contains("branch"), "{trouble}");
    assert!(status["alerts"].to_string().contains("\"encryption\""), "{status:#}");
    daemon.stop();
    assert_eq!(tip(&setup), before);

    setup.repository()["branch"] = json!("encrypted");
    run_once(&setup);
    unlocks(&setup, "encrypted", &key);
    let roots = git(&setup.remote().path, &["rev-list", "--max-parents=0", "encrypted"]);
    assert_ne!(roots.trim(), before);
    assert!(!setup.remote().is_ancestor(&before, "encrypted"));
    only_in(&setup, &[&before]);
}

#[test]
fn while_the_key_is_away_nothing_is_stored_and_it_goes_on_by_itself() {
    let mut setup = world();
    let key = new_key(&setup, "key");
    encrypt(&mut setup, &key, &json!({"clear_history": "refuse"}));
    let daemon = setup.start();
    daemon.api().flush();
    let before = tip(&setup);
    only_in(&setup, &[]);
    let kept = fs::read(&key).unwrap();
    let troubles: [&dyn Fn(); 3] =
        [&|| fs::remove_file(&key).unwrap(), &|| fs::write(&key, "no key").unwrap(), &|| {
            fs::remove_file(&key).unwrap();
            new_key(&setup, "key");
        }];
    for (number, trouble) in troubles.into_iter().enumerate() {
        let tip_before = tip(&setup);
        trouble();
        write(&setup.root(), "changed", format!("{CANARY} {number}"));
        let status = daemon.status_when("it says why", |status| {
            status["repositories"][0]["is_encryption_in_the_way"] == json!(true)
        });
        let alerts = status["alerts"].as_array().unwrap();
        let alert = alerts.iter().find(|alert| alert["name"] == "encryption").unwrap();
        assert_eq!(alert["severity"], "critical");
        assert!(status["repositories"][0]["pending"].as_u64().unwrap() > 0, "the queue is kept");
        assert_eq!(tip(&setup), tip_before);
        only_in(&setup, &[]);
        fs::write(&key, &kept).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        eventually("it goes on by itself", SOON * 2, || (tip(&setup) != tip_before).then_some(()));
        daemon.status_when("the trouble is over", |status| status["repositories"][0]["trouble"].is_null());
    }
    daemon.api().flush();
    assert!(!has_canary(daemon.output().as_bytes()));
    daemon.stop();
    assert_ne!(tip(&setup), before);
    unlocks(&setup, "main", &key);
    only_in(&setup, &[]);
}

#[test]
fn clear_text_where_ciphertext_should_be_is_not_sent() {
    let mut setup = world();
    let key = new_key(&setup, "key");
    encrypt(&mut setup, &key, &json!({}));
    run_once(&setup);
    // Somebody commits a file into our repository as plain Git does without git-crypt.
    let local = setup.local().path;
    let before = tip(&setup);
    fs::write(setup.path("forged"), format!("forged {CANARY}")).unwrap();
    let blob = git(&local, &["hash-object", "-w", "--no-filters", setup.path("forged").to_str().unwrap()]);
    let index = setup.path("index");
    let with_index = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(&local)
            .env("GIT_INDEX_FILE", &index)
            .args(["-c", "user.name=x", "-c", "user.email=x@y"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    with_index(&["read-tree", &before]);
    with_index(&["update-index", "--add", "--cacheinfo", &format!("100644,{},folder1/forged", blob.trim())]);
    let tree = with_index(&["write-tree"]);
    let commit = with_index(&["commit-tree", &tree, "-p", &before, "-m", "forged"]);
    git(&local, &["update-ref", "refs/heads/main", &commit]);

    let daemon = setup.start();
    let status = daemon.status_when("the remote is halted", |status| {
        status["repositories"][0]["remotes"][0]["state"] == "halted"
    });
    let remote = &status["repositories"][0]["remotes"][0];
    let reason = remote["reason"].as_str().unwrap();
    assert!(reason.contains("clear text") && reason.contains("folder1/forged"), "{reason}");
    let alerts = status["alerts"].as_array().unwrap();
    let alert = alerts.iter().find(|alert| alert["name"] == "remote_halted").unwrap();
    assert_eq!(alert["severity"], "critical");
    daemon.stop();
    assert_eq!(setup.remote().tip("main").unwrap(), before);
    assert_eq!(canaries(&setup.remote().path), Vec::<String>::new(), "nothing was sent");
}

#[cfg(feature = "fault-points")]
#[test]
fn death_at_any_point_of_the_switch_leaves_the_one_form_or_the_other_and_ends_in_the_new_one() {
    let points = [
        ("snapshot:pack-begun", 1),
        ("lfs:object-synced", 1),
        ("lfs:object-stored", 1),
        ("switch:contents-stored", 1),
        ("snapshot:pack-synced", 1),
        ("snapshot:staged", 1),
        ("snapshot:pack-installed", 1),
        ("snapshot:branch-moved", 1),
        ("queue:before-settle", 1),
        ("queue:settled", 1),
    ];
    for (point, pass) in points {
        let mut setup = world();
        setup.repository()["lfs"] = json!({"threshold": "200KB"});
        run_once(&setup);
        let clear = tip(&setup);
        let key = new_key(&setup, "key");
        encrypt(&mut setup, &key, &json!({}));
        write(&setup.root(), "new", format!("new {CANARY}"));
        let fault = format!("{point}=kill@{pass}");
        setup.launch(&[("BACKUPBOT_FAULT", fault.as_str())]).dies_by_itself(&fault);
        run_once(&setup);
        let history = git(&setup.local().path, &["log", "--format=%H %s%n%b", "main"]);
        assert_eq!(history.matches("BackupBot-Switch: ").count(), 1, "{point}: {history}");
        for repository in [setup.local().path, setup.remote().path] {
            let known = git(&repository, &["rev-list", "--objects", &clear]);
            assert!(canaries(&repository).iter().all(|oid| known.contains(oid)), "{point}");
        }
        for path in ["folder1/new", "folder1/many/07", "folder1/secret/a", ".backupbot/meta/folder1/_bb_meta"]
        {
            let blob = setup.remote().blob("main", path).unwrap();
            assert!(blob.starts_with(b"\0GITCRYPT\0"), "{point}: {path}");
        }
        setup.remote().assert_sound();
    }
}
