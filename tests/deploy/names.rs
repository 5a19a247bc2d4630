//! Names of what the chart makes: they stay names whatever YAML takes them for, and change where Kubernetes needs another; and what
//! is said of pods holds for each of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::assert_valid;
use super::cases::shared_out;
use crate::support::helm::{documents, everything, helms, least, of_kind, pods, repository, set, source};

#[test]
fn names_that_yaml_takes_for_something_else_stay_names() {
    let mut rendered = Vec::new();
    for helm in helms() {
        for fullname in ["null", "no", "e1", "y"] {
            let mut values = everything();
            set(&mut values, "fullnameOverride", json!(fullname));
            set(&mut values, "nameOverride", json!("1e3"));
            set(&mut values, "priorityClassName", json!("true"));
            set(&mut values, "serviceAccount.name", json!("0x1f"));
            set(&mut values, "state.existingClaim", json!("1e3"));
            set(&mut values, "dashboard.namespace", json!("on"));
            set(&mut values, "config.repositories", json!([repository("123")]));
            set(&mut values, "sources", json!([source("123")]));
            let secrets = json!([
                {"name": "gitea", "data": {"1.10": "a", "on": "b", "0x10": "c"}},
                {"name": "1e3", "secretName": "1e3"},
            ]);
            set(&mut values, "secrets", secrets);
            let text = helm.template_as("1e3", "12345", &values).unwrap();
            for key in ["\"1.10\": ", "\"on\": ", "\"0x10\": "] {
                assert!(text.contains(key), "{key}");
            }
            for document in documents(&text) {
                let place = &document["metadata"];
                assert!(place["name"].is_string() && place["namespace"].is_string(), "{place}");
                assert_eq!(place["labels"]["app.kubernetes.io/name"], "1e3");
                assert_eq!(place["labels"]["app.kubernetes.io/instance"], "1e3");
            }
            rendered.push(text);
        }
        let mut shards = shared_out();
        shards["shards"][0]["name"] = json!("1e3");
        rendered.push(helm.template_as("on", "1e3", &shards).unwrap());
        let mut map = super::with_a_map_of_ones_own();
        set(&mut map, "existingConfigMap.name", json!("1e3"));
        rendered.push(helm.template_as("on", "1e3", &map).unwrap());

        let said = helm.template_as("9lives", "backups", &least()).unwrap_err();
        assert!(said.contains("begins with a digit (9lives-backupbot)"), "{said}");
    }
    assert_valid(&rendered);
}

#[test]
fn a_job_has_another_name_when_it_is_to_do_something_else() {
    for helm in helms() {
        let names = |values: &Value| -> BTreeSet<String> {
            let made = helm.render(values);
            let jobs = of_kind(&made, "Job").into_iter();
            jobs.map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
        };
        let mut values = everything();
        let first = names(&values);
        assert_eq!(first.len(), 2);
        assert_eq!(first, names(&values), "the same wish has the same name");
        // Where the revision is always the first, as with `helm template`, it would be refused otherwise.
        set(&mut values, "restore.at", json!("yesterday"));
        set(&mut values, "verify.sample", json!("1%"));
        assert!(first.is_disjoint(&names(&values)));
        // Kubernetes adds six characters for its pods, and a label holds 63.
        set(&mut values, "fullnameOverride", json!("n".repeat(34)));
        assert!(names(&values).iter().all(|name| name.len() + 3 + 6 <= 63), "with a revision of four digits");
    }
}

#[test]
fn what_is_said_of_pods_holds_for_the_jobs_and_the_test_too() {
    let mut seen = BTreeSet::new();
    for helm in helms() {
        let mut values = everything();
        set(&mut values, "podAnnotations", json!({"sidecar.istio.io/inject": "false", "helm.sh/hook": "x"}));
        set(&mut values, "podLabels", json!({"team": "storage", "app.kubernetes.io/component": "x"}));
        set(&mut values, "priorityClassName", json!("high"));
        set(&mut values, "imagePullSecrets", json!([{"name": "registry"}]));
        set(&mut values, "tolerations", json!([{"operator": "Exists"}]));
        set(&mut values, "affinity", json!({"podAffinity": {}}));
        let made = helm.render(&values);
        for (what, pod) in pods(&made) {
            assert_eq!(pod["priorityClassName"], "high", "{what}");
            assert_eq!(pod["imagePullSecrets"][0]["name"], "registry", "{what}");
            assert_eq!(pod["tolerations"][0]["operator"], "Exists", "{what}");
            // A restore must not wait for the application beside which the daemon runs.
            assert_eq!(pod["affinity"].is_null(), !what.contains("StatefulSet"), "{what}");
            seen.insert(what);
        }
        for document in &made {
            let own = match document["kind"].as_str().unwrap() {
                "Pod" => &document["metadata"],
                "StatefulSet" | "Job" => &document["spec"]["template"]["metadata"],
                _ => continue,
            };
            assert_eq!(own["labels"]["team"], "storage");
            assert_ne!(own["labels"]["app.kubernetes.io/component"], "x", "by it the daemon is found");
            assert_eq!(own["annotations"]["sidecar.istio.io/inject"], "false");
            if document["kind"] == "Pod" {
                assert_eq!(own["annotations"]["helm.sh/hook"], "test");
            }
        }
    }
    assert!(seen.is_empty() || seen.len() >= 4, "{seen:?}");
}

#[test]
fn a_pod_that_never_became_ready_is_replaced_by_what_mends_it() {
    for helm in helms() {
        for set in of_kind(&helm.render(&shared_out()), "StatefulSet") {
            // By `OrderedReady`, the default, Kubernetes waits for the broken one for ever.
            assert_eq!(set["spec"]["podManagementPolicy"], "Parallel");
            assert_eq!(set["spec"]["updateStrategy"]["type"], "RollingUpdate");
        }
    }
}

#[test]
fn a_platform_may_choose_the_users_itself() {
    for helm in helms() {
        let mut values = everything();
        set(
            &mut values,
            "podSecurityContext",
            json!({"runAsUser": null, "runAsGroup": null, "fsGroup": null}),
        );
        assert!(helm.lint(&values).is_ok());
        for (what, pod) in pods(&helm.render(&values)) {
            let own = &pod["securityContext"];
            assert_eq!(own["runAsNonRoot"], true, "{what}");
            for key in ["runAsUser", "runAsGroup", "fsGroup"] {
                assert!(own.get(key).is_none(), "{what}: {own}");
            }
        }
    }
}
