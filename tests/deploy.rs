//! The Helm chart and the Dockerfile, judged by the real Helm (3 and 4), the schemas of Kubernetes, promtool, hadolint and the
//! program itself; in the long tier the images are built and run.

mod cases;
mod names;
mod readme;
mod secrets;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use cases::{changes, encrypted, on_nodes, shared_out, with_a_map_of_ones_own};

use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::helm::{chart, everything, helms, least, of_kind, pods, repository, set, source, tool};
use crate::support::tree::write;
use crate::support::{is_long, skip};

/// Has the schemas of a few versions look at what was rendered, strictly; each document once, because most are the same.
fn assert_valid(rendered: &[String]) {
    let Some(validate) = tool("kubernetes/bin/kubernetes-validate") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let parts = rendered.iter().flat_map(|text| text.split("\n---\n"));
    let distinct: BTreeSet<&str> = parts.map(|part| part.trim_start_matches("---\n")).collect();
    let file = scratch.path().join("all.yaml");
    fs::write(&file, distinct.into_iter().collect::<Vec<_>>().join("\n---\n")).unwrap();
    for version in ["1.25", "1.31", "1.37"] {
        let output = Command::new(&validate).args(["--strict", "-k", version]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let is_fine = |line: &&str| {
            line.contains("passed") || line.contains("monitoring.coreos.com") || line.trim().is_empty()
        };
        let complaints: Vec<&str> = said.lines().filter(|line| !is_fine(line)).collect();
        assert!(output.status.success() && complaints.is_empty(), "{version}: {complaints:#?}");
        assert!(said.contains("passed"), "{version}: {said}");
    }
}

#[test]
fn every_documented_value_is_obeyed_alone_and_what_is_made_is_valid_for_kubernetes() {
    let readme = fs::read_to_string(chart().join("README.md")).unwrap();
    let documented: BTreeSet<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let changed: BTreeSet<&str> = changes().iter().map(|(name, _)| *name).collect();
    assert_eq!(documented, changed, "each value of the README has a case here");
    let mut cases =
        vec![least(), everything(), shared_out(), on_nodes(), with_a_map_of_ones_own(), encrypted()];
    let fixed = cases.len();
    for (name, value) in changes().into_iter().filter(|(_, value)| !value.is_null()) {
        let mut values = everything();
        set(&mut values, name, value);
        cases.push(values);
    }
    let helms = helms();
    let Some(newest) = helms.last() else { return };
    let rendered: Vec<String> = cases.iter().map(|values| newest.template(values).unwrap()).collect();
    for (text, (name, _)) in
        rendered[fixed..].iter().zip(changes().iter().filter(|(_, value)| !value.is_null()))
    {
        assert_ne!(text, &rendered[1], "{name} changes nothing");
    }
    for helm in &helms {
        assert!(helm.lint(&least()).is_ok() && helm.lint(&everything()).is_ok());
        // The other versions make the same; of each value that would take too long for every day.
        let compared = if is_long() { cases.len() } else { fixed };
        for (values, text) in cases.iter().zip(&rendered).take(compared) {
            assert!(
                &helm.template(values).unwrap() == text,
                "another version makes something else of {values:#}"
            );
        }
    }
    assert_valid(&rendered);
}

#[test]
fn text_of_any_kind_stays_the_text_that_it_is() {
    let hostile = "}} {{ fail \"x\" }} {{ .Values }}: # ' \" \\ \t\n---\nkind: Evil\r\n\u{feff} é 漢 null";
    for helm in helms() {
        let mut values = everything();
        set(&mut values, "config.identity", json!({"name": hostile, "email": "x@example.org"}));
        values["config"]["repositories"][0]["roots"][0]["ignore"] =
            json!([hostile, "*.tmp", "yes", "1e3", "0x1"]);
        set(&mut values, "podAnnotations", json!({"a": hostile}));
        set(&mut values, "extraEnv", json!([{"name": "TEXT", "value": hostile}]));
        set(&mut values, "secrets", json!([{"name": "gitea", "data": {"password": hostile}}]));
        set(&mut values, "restore.paths", json!([hostile]));
        set(&mut values, "verify.args", json!([hostile]));
        let made = helm.render(&values);
        assert_eq!(made.len(), helm.render(&everything()).len());
        let config = of_kind(&made, "ConfigMap")
            .into_iter()
            .find_map(|map| map["data"]["config.yaml"].as_str().map(str::to_owned))
            .unwrap();
        let config: Value = serde_yaml::from_str(&config).unwrap();
        assert_eq!(config["identity"]["name"], hostile);
        let ignored = &config["repositories"][0]["roots"][0]["ignore"];
        assert_eq!(ignored, &json!([hostile, "*.tmp", "yes", "1e3", "0x1"]));
        let set = of_kind(&made, "StatefulSet")[0];
        assert_eq!(set["spec"]["template"]["metadata"]["annotations"]["a"], hostile);
        let variables = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        assert_eq!(variables.last().unwrap(), &json!({"name": "TEXT", "value": hostile}));
        let jobs = of_kind(&made, "Job");
        for job in jobs {
            let arguments = &job["spec"]["template"]["spec"]["containers"][0]["args"];
            assert_eq!(arguments.as_array().unwrap().last().unwrap(), hostile, "{arguments}");
        }
        let secret = of_kind(&made, "Secret")[0]["data"]["password"].as_str().unwrap().to_owned();
        assert_eq!(decoded(&secret), hostile);
    }
}

fn decoded(text: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

#[test]
fn what_would_lose_or_endanger_something_is_refused_with_the_reason() {
    let shards = |shards: Value| [("shards", shards)];
    let node = json!([{"name": "documents", "mountPath": "/data/documents", "hostPath": {"path": "/srv"}}]);
    let a = |repositories: Value| json!({"name": "a", "repositories": repositories});
    let cases: Vec<(Value, Vec<(&str, Value)>, &str)> = vec![
        (least(), vec![("config.repositories", json!([]))], "say what to back up"),
        (least(), vec![("config.state_dir", json!("/x"))], "set by the chart"),
        (least(), vec![("sources", json!([]))], "in no source"),
        (least(), vec![("sources", node)], "allowHostPath"),
        (
            least(),
            vec![("sources", json!([{"name": "documents", "mountPath": "/data/documents"}]))],
            "exactly one of",
        ),
        (least(), vec![("sources", json!([source("documents"), source("documents")]))], "two sources"),
        (least(), vec![("secrets", json!([{"name": "x"}]))], "neither secretName nor data"),
        (
            least(),
            vec![("secrets", json!([{"name": "x", "secretName": "y", "data": {"a": "b"}}]))],
            "both secretName",
        ),
        (least(), vec![("existingConfigMap.name", json!("mine"))], "both config.repositories"),
        (least(), vec![("config.shutdown_grace", json!("2m"))], "terminationGracePeriodSeconds"),
        (
            least(),
            vec![("sources", json!([{"name": "documents", "mountPath": "/", "volume": {"emptyDir": {}}}]))],
            "own place",
        ),
        (least(), vec![("restore.enabled", json!(true))], "restore.from"),
        (least(), vec![("verify.enabled", json!(true))], "verify.from"),
        (shared_out(), shards(json!([a(json!(["documents"]))])).to_vec(), "\"photos\" is in no shard"),
        (
            shared_out(),
            shards(json!([a(json!(["documents", "photos", "else"]))])).to_vec(),
            "no repository \"else\"",
        ),
        (
            shared_out(),
            shards(json!([a(json!(["documents", "photos"])), {"name": "b", "repositories": ["photos"]}]))
                .to_vec(),
            "two writers",
        ),
        (shared_out(), vec![("state.existingClaim", json!("x"))], "each shard needs its own"),
        (
            shared_out(),
            shards(json!([
                {"name": "a", "repositories": ["documents"], "instance": "x"},
                {"name": "b", "repositories": ["photos"], "instance": "x"},
            ]))
            .to_vec(),
            "the same instance",
        ),
        (
            on_nodes(),
            vec![("config.repositories", json!([repository("documents")]))],
            "needs {instance} in it",
        ),
        (on_nodes(), vec![("daemonSet.statePath", json!(""))], "daemonSet.statePath"),
        (on_nodes(), vec![("shards", json!([a(json!(["documents"]))]))], "shards are for StatefulSets"),
        // By the schema.
        (least(), vec![("replicas", json!(2))], "replicas"),
        (least(), vec![("image.tagg", json!("x"))], "tagg"),
        (least(), vec![("mode", json!("Deployment"))], "mode"),
        (least(), vec![("metrics.port", json!("9177"))], "port"),
        (least(), vec![("state.size", json!("lots"))], "size"),
        (least(), vec![("instance", json!("a b"))], "instance"),
        (least(), vec![("sources", json!([{"name": "Documents", "mountPath": "/d", "volume": {}}]))], "name"),
        (least(), vec![("restore.from", json!("a\nb"))], "from"),
    ];
    for helm in helms() {
        for (start, wrong, word) in &cases {
            let mut values = start.clone();
            for (name, value) in wrong {
                set(&mut values, name, value.clone());
            }
            let said = helm.template(&values).expect_err(word);
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

#[test]
fn every_pod_keeps_to_the_restricted_pod_security_standard_and_has_no_token() {
    let mut scheduled = everything();
    set(&mut scheduled, "verify.schedule", json!("0 3 * * 0"));
    let mut seen = BTreeSet::new();
    for helm in helms() {
        for values in [least(), everything(), scheduled.clone(), shared_out()] {
            for (what, pod) in pods(&helm.render(&values)) {
                seen.insert(what.clone());
                assert_restricted(&what, &pod);
                assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
                for mount in pod["containers"][0]["volumeMounts"].as_array().unwrap() {
                    let name = mount["name"].as_str().unwrap();
                    let is_writable = mount["readOnly"] != true;
                    assert!(!is_writable || ["state", "tmp", "target"].contains(&name), "{what}: {name}");
                }
            }
        }
    }
    assert!(seen.is_empty() || seen.len() >= 6, "{seen:?}");
}

/// Pod Security Standards, "restricted", of kubernetes.io.
fn assert_restricted(what: &str, pod: &Value) {
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[forbidden].is_null(), "{what}: {forbidden}");
    }
    let own = &pod["securityContext"];
    assert_eq!(own["runAsNonRoot"], true, "{what}");
    assert!(own["runAsUser"].as_u64().unwrap() > 0, "{what}");
    assert_eq!(own["seccompProfile"]["type"], "RuntimeDefault", "{what}");
    assert!(own["sysctls"].is_null() && own["windowsOptions"].is_null(), "{what}");
    let allowed =
        ["configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected", "csi", "ephemeral"];
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        assert!(kinds.iter().all(|kind| allowed.contains(&kind.as_str())), "{what}: {kinds:?}");
        if volume["name"].as_str().unwrap().starts_with("source-") {
            assert_eq!(
                volume["persistentVolumeClaim"]["readOnly"], true,
                "{what}: fsGroup would change its owner"
            );
        }
    }
    for container in pod["containers"].as_array().unwrap() {
        let own = &container["securityContext"];
        assert_eq!(own["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(own["readOnlyRootFilesystem"], true, "{what}");
        assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}), "{what}");
        assert!(own["privileged"].is_null() && own["runAsUser"].is_null(), "{what}");
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        assert!(ports.iter().all(|port| port["hostPort"].is_null()), "{what}");
    }
}

#[test]
fn one_writer_has_a_state_and_selectors_find_the_pods_whatever_labels_are_added() {
    for helm in helms() {
        let mut values = shared_out();
        set(&mut values, "podLabels", json!({"backupbot/shard": "x", "app.kubernetes.io/name": "x"}));
        set(&mut values, "commonLabels", json!({"app.kubernetes.io/component": "x"}));
        let made = helm.render(&values);
        let mut claims = BTreeSet::new();
        for set in of_kind(&made, "StatefulSet") {
            assert_eq!(set["spec"]["replicas"], 1);
            let labels = &set["spec"]["template"]["metadata"]["labels"];
            for selector in
                of_kind(&made, "Service").iter().map(|service| &service["spec"]["selector"]).chain([
                    &set["spec"]["selector"]["matchLabels"],
                    &of_kind(&made, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"],
                    &of_kind(&made, "NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"],
                ])
            {
                for (name, value) in selector.as_object().unwrap() {
                    assert_eq!(&labels[name], value, "{name}");
                }
            }
            let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
            let claim = |name: &str| {
                let volume = volumes.iter().find(|volume| volume["name"] == name)?;
                Some(volume["persistentVolumeClaim"]["claimName"].as_str()?.to_owned())
            };
            assert!(claims.insert(claim("state").unwrap()), "a state has one writer");
            let sources = ["source-documents", "source-photos"].map(claim);
            assert_eq!(sources.iter().flatten().count(), 1, "a shard sees its own sources only");
        }
        assert_eq!(claims.len(), 2);
        // Kubernetes adds a hash of ten characters to the name, and a label holds 63.
        set(&mut values, "fullnameOverride", json!("n".repeat(34)));
        values["shards"][0]["name"] = json!("s".repeat(16));
        let names = helm.render(&values);
        let longest = of_kind(&names, "StatefulSet")
            .iter()
            .map(|set| set["metadata"]["name"].as_str().unwrap().len())
            .max();
        assert!(longest.unwrap() + 11 <= 63, "{longest:?}");
        let nodes = helm.render(&on_nodes());
        let update = &of_kind(&nodes, "DaemonSet")[0]["spec"]["updateStrategy"]["rollingUpdate"];
        assert_eq!(update, &json!({"maxSurge": 0, "maxUnavailable": "10%"}));
        let instance = &pods(&nodes)[0].1["containers"][0]["env"][2];
        assert_eq!(instance["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName", "{instance}");
    }
}

#[test]
fn the_program_itself_accepts_every_rendered_configuration_and_finds_what_two_of_them_share() {
    let setup = Setup::new();
    let write = |name: &str, text: &str| {
        fs::write(setup.path(name), text).unwrap();
        setup.path(name).to_str().unwrap().to_owned()
    };
    let check = |files: &[String]| {
        let mut command = setup.command(&["check", "--config", &files[0]]);
        command.env_remove("BACKUPBOT_STATE_DIR").env_remove("BACKUPBOT_CONFIG");
        for file in &files[1..] {
            command.args(["--beside", file]);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for helm in helms() {
        for values in [least(), everything(), shared_out(), on_nodes(), encrypted()] {
            let maps = helm.render(&values);
            let maps =
                of_kind(&maps, "ConfigMap").into_iter().filter_map(|map| map["data"]["config.yaml"].as_str());
            let files: Vec<String> =
                maps.enumerate().map(|(number, text)| write(&format!("{number}.yaml"), text)).collect();
            let (code, said) = check(&files);
            assert_eq!(code, Some(0), "{said}");
        }
    }
    let config = |instance: &str, name: &str, branch: &str, url: &str| {
        let remotes = json!([{"name": "r", "url": url}]);
        let repository =
            json!({"name": name, "branch": branch, "roots": [{"path": "/data"}], "remotes": remotes});
        json!({"version": 1, "state_dir": "/s", "instance": instance, "repositories": [repository]})
            .to_string()
    };
    let one = write("one.yaml", &config("a", "documents", "main", "https://git.example.org/d.git"));
    let cases = [
        (
            config("b", "documents", "main", "https://git.example.org/e.git"),
            "repository documents is also in",
        ),
        (config("b", "photos", "main", "https://git.example.org/d"), "branch refs/heads/main at"),
        (config("a", "photos", "main", "https://git.example.org/e.git"), "instance a is also in"),
        ("version: 2".to_owned(), "two.yaml:1"),
    ];
    for (other, word) in cases {
        let (code, said) = check(&[one.clone(), write("two.yaml", &other)]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(word) && said.contains("two.yaml"), "{word}: {said}");
    }
    let other =
        write("two.yaml", &config("b", "photos", "nodes/{instance}", "https://git.example.org/d.git"));
    assert_eq!(check(&[one, other]).0, Some(0));
}

#[test]
fn the_rules_of_the_chart_are_those_of_the_file_and_lead_to_the_manual() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = fs::read_to_string(project.join("docs/prometheus/backupbot.rules.yaml")).unwrap();
    let copy = fs::read_to_string(chart().join("rules/backupbot.rules.yaml")).unwrap();
    assert!(file == copy, "cp docs/prometheus/backupbot.rules.yaml helm/rules/");
    let manual = fs::read_to_string(project.join("docs/operations.md")).unwrap();
    let headings: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|title| title.replace('`', ""))
        .collect();
    let rules: Value = serde_yaml::from_str(&file).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let runbook = rule["annotations"]["runbook"].as_str().unwrap_or_else(|| panic!("{rule}: no runbook"));
        let anchor = runbook.strip_prefix("docs/operations.md#").unwrap();
        assert!(headings.contains(anchor), "{anchor} is no heading of docs/operations.md");
    }
    for helm in helms() {
        let mut values = everything();
        set(&mut values, "prometheusRule.runbookBase", json!("https://docs.example.org/operations.html"));
        let made = helm.render(&values);
        let spec = &of_kind(&made, "PrometheusRule")[0]["spec"];
        let (count, first) = (&spec["groups"][0]["rules"], &spec["groups"][0]["rules"][0]);
        assert_eq!(count.as_array().unwrap().len(), rules["groups"][0]["rules"].as_array().unwrap().len());
        let url = first["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.starts_with("https://docs.example.org/operations.html#"), "{url}");
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("rules.json"), spec.to_string()).unwrap();
        let promtool =
            Command::new("promtool").args(["check", "rules", "rules.json"]).current_dir(&scratch).output();
        let promtool = promtool.unwrap();
        assert!(promtool.status.success(), "{}", String::from_utf8_lossy(&promtool.stderr));
    }
}

#[test]
fn the_readme_of_the_chart_is_made_from_its_values() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/chart-readme");
    let checked = Command::new("python3").arg(script).arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    let Some(hadolint) = tool("kubernetes/bin/hadolint") else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    let linted = Command::new(hadolint).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&[linted.stdout, linted.stderr].concat()).into_owned();
    assert!(linted.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_images_run_as_anybody_without_rights_in_little_memory_and_keep_their_state() {
    if !is_long() {
        skip("building and running the images: tests/run --long, or tests/container");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container");
    let status = Command::new(script).status().unwrap();
    assert!([Some(0), Some(77)].contains(&status.code()), "{status}");
}

#[test]
fn a_repository_that_moves_to_another_shard_goes_on_from_the_tip_when_it_is_told_to() {
    let shard = |instance: &str, content: &str| {
        let mut setup = Setup::new();
        setup.config["instance"] = json!(instance);
        write(&setup.root(), "a", content);
        setup
    };
    let old = shard("backups-a", "one");
    assert!(old.run(&["once"]).status.success());
    let remote = old.remote();
    let tip = remote.tip("main").unwrap();
    for (adopt, is_continued) in [("", false), ("continue", true)] {
        let mut new = shard("backups-b", "two");
        new.repository()["remotes"][0]["url"] = json!(remote.path);
        new.write_config();
        let output = new.command(&["once"]).env("BACKUPBOT_ADOPT", adopt).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.success(), is_continued, "{adopt:?}: {said}");
        let now = remote.tip("main").unwrap();
        assert_eq!(now != tip, is_continued, "{adopt:?}: {said}");
    }
    assert_eq!(git(&remote.path, &["rev-parse", "main~1"]).trim(), tip);
    assert_eq!(git(&remote.path, &["show", "main:folder1/a"]), "two");
}
