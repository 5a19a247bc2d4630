//! Credentials and keys of encryption as the chart mounts them: what the program takes there, what the chart refuses beforehand,
//! and which pod gets which.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cases::shared_out;
use crate::support::daemon::{Setup, is_root};
use crate::support::helm::{everything, helms, least, of_kind, pods, set};
use crate::support::skip;
use crate::support::tree::write;

/// What the chart gives to files of Secrets, whose owner is root, and whose group `fsGroup`.
const MODE: u32 = 0o440;
/// Of those as whom the tests run the program.
const GROUP: u32 = 65_534;

/// A Secret as Kubernetes mounts it: files are links through `..data`, which is swapped when the Secret changes.
struct MountedSecret(TempDir);

impl MountedSecret {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        chown(place.path(), Some(0), Some(GROUP)).unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o3777)).unwrap();
        Self(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn publish(&self, version: &str, files: &[(&str, &[u8])]) {
        let directory = self.path(&format!("..{version}"));
        fs::create_dir(&directory).unwrap();
        for (name, content) in files {
            write(&directory, name, content);
            let file = directory.join(name);
            chown(&file, Some(0), Some(GROUP)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(MODE)).unwrap();
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o2755)).unwrap();
        symlink(format!("..{version}"), self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        for (name, _) in files {
            let link = self.path(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
    }
}

fn encrypted(key_file: &Path, old_keys: &Path) -> Value {
    json!({"method": "git-crypt", "key_file": key_file.to_str().unwrap(), "old_keys": old_keys.to_str().unwrap()})
}

fn new_key() -> Vec<u8> {
    let mut setup = Setup::new();
    let key_file = setup.path("keys/new.key");
    setup.repository()["encryption"] = encrypted(&key_file, &setup.path("keys/old"));
    assert!(setup.run(&["keys", "create"]).status.success());
    fs::read(key_file).unwrap()
}

#[test]
fn a_key_in_a_mounted_secret_serves_a_user_of_its_group_and_the_next_one_needs_no_restart() {
    if !is_root() {
        skip("a key that belongs to root, and is read by somebody else: only root can make one");
        return;
    }
    let (first, second) = (new_key(), new_key());
    let secret = MountedSecret::new();
    secret.publish("1", &[("documents.key", &first)]);
    let mut setup = Setup::new();
    setup.as_nobody = true;
    // The keys of before lie beside the present one: a Secret changes as a whole.
    setup.repository()["encryption"] = encrypted(&secret.path("documents.key"), secret.0.path());
    write(&setup.root(), "a", "one");
    let daemon = setup.start();
    daemon.api().flush();
    let check = || {
        let output = setup.run(&["keys", "check", "--json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{answer:#}");
        answer["repositories"][0]["key"]["id"].as_str().unwrap().to_owned()
    };
    let is_encrypted = |path: &str| {
        setup.remote().blob("main", path).unwrap().starts_with(b"\0GITCRYPT\0")
            && setup.remote().blob("main", ".backupbot/encryption").is_some()
    };
    let id = check();
    assert!(is_encrypted("folder1/a"));
    let refused = setup.run(&["keys", "rotate"]);
    assert!(!refused.status.success(), "what is mounted cannot be changed in the pod");

    secret.publish("2", &[("documents.key", &second), ("until-2026-11.key", &first)]);
    write(&setup.root(), "b", "two");
    daemon.api().flush();
    assert!(is_encrypted("folder1/a") && is_encrypted("folder1/b"));
    assert_ne!(check(), id);
    for (at, file, content) in [("latest", "folder1/b", "two"), ("latest~1", "folder1/a", "one")] {
        let shown = setup.run(&["cat", "--at", at, file]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout), content, "{at}");
    }
    daemon.stop();
}

#[test]
fn secrets_are_mounted_for_the_group_of_the_pod_and_for_nobody_else() {
    for helm in helms() {
        let mut found = 0;
        for (what, pod) in pods(&helm.render(&everything())) {
            let volumes = pod["volumes"].as_array().unwrap();
            for volume in volumes.iter().filter(|volume| volume["secret"].is_object()) {
                assert_eq!(volume["secret"]["defaultMode"], MODE, "{what}");
                assert!(pod["securityContext"]["fsGroup"].as_u64().unwrap() > 0, "{what}");
                found += 1;
            }
        }
        assert!(found >= 3, "{found}");
    }
}

#[test]
fn a_shard_has_the_secrets_that_it_names_and_no_others() {
    for helm in helms() {
        let mut values = shared_out();
        let secret = |name: &str| json!({"name": name, "secretName": name});
        set(&mut values, "secrets", json!([secret("gitea"), secret("documents-key")]));
        values["config"]["repositories"][0]["encryption"] = key_of("documents-key");
        values["shards"][0]["secrets"] = json!(["gitea", "documents-key"]);
        values["shards"][1]["secrets"] = json!(["gitea"]);
        let mounted: Vec<Vec<String>> = of_kind(&helm.render(&values), "StatefulSet")
            .iter()
            .map(|set| {
                let pod = &set["spec"]["template"]["spec"];
                let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
                let names = mounts.iter().map(|mount| mount["name"].as_str().unwrap());
                let secrets =
                    names.filter_map(|name| name.strip_prefix("secret-")).map(str::to_owned).collect();
                let volumes = pod["volumes"].as_array().unwrap().iter();
                let count = volumes.filter(|volume| volume["secret"].is_object()).count();
                assert_eq!(Vec::<String>::len(&secrets), count);
                secrets
            })
            .collect();
        assert_eq!(mounted, [vec!["gitea", "documents-key"], vec!["gitea"]]);
    }
}

fn key_of(secret: &str) -> Value {
    let directory = Path::new("/run/secrets/backupbot").join(secret);
    encrypted(&directory.join("documents.key"), &directory)
}

#[test]
fn what_the_configuration_reads_from_a_secret_that_no_pod_has_is_refused() {
    for helm in helms() {
        let mut values = least();
        values["config"]["repositories"][0]["encryption"] = key_of("documents-key");
        let said = helm.template(&values).unwrap_err();
        assert!(said.contains("no secret \"documents-key\""), "{said}");
        // A mount of another kind may have it.
        let mut by_hand = values.clone();
        set(
            &mut by_hand,
            "extraVolumes",
            json!([{"name": "keys", "csi": {"driver": "secrets-store.csi.k8s.io"}}]),
        );
        let mount =
            json!([{"name": "keys", "mountPath": "/run/secrets/backupbot/documents-key/", "readOnly": true}]);
        set(&mut by_hand, "extraVolumeMounts", mount);
        assert!(helm.template(&by_hand).is_ok());

        let mut shards = values.clone();
        let secret = |name: &str| json!({"name": name, "secretName": name});
        set(&mut shards, "secrets", json!([secret("gitea"), secret("documents-key")]));
        assert!(helm.template(&shards).is_ok());
        set(
            &mut shards,
            "shards",
            json!([{"name": "a", "repositories": ["documents"], "secrets": ["gitea"]}]),
        );
        let said = helm.template(&shards).unwrap_err();
        assert!(said.contains("shard \"a\" has no secret \"documents-key\""), "{said}");
        shards["shards"][0]["secrets"] = json!(["gitea", "documents-key", "else"]);
        let said = helm.template(&shards).unwrap_err();
        assert!(said.contains("there is no secret \"else\""), "{said}");
    }
}
