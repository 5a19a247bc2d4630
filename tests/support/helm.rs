//! The real Helm and its judges, which `tests/run` installs below target/tools; what it renders, taken apart.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// A program below target/tools; says so where it is missing.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(name);
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`: the test runner would swallow it as the output of a test that passes.
    let line = format!("\nSKIPPED: what {name} would judge: it is missing (tests/run installs it)\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}

/// The chart.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("helm")
}

/// One version of Helm.
pub struct Helm(PathBuf);

/// Those that are installed.
pub fn helms() -> Vec<Helm> {
    ["helm/helm3", "helm/helm4"].iter().filter_map(|name| tool(name)).map(Helm).collect()
}

impl Helm {
    fn run(&self, arguments: &[&str], values: &Value) -> Result<String, String> {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("values.json");
        fs::write(&file, values.to_string()).unwrap();
        let output = Command::new(&self.0)
            .args(arguments)
            .arg(chart())
            .arg("--values")
            .arg(&file)
            .env("HOME", scratch.path())
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()),
        }
    }

    /// `helm lint --strict`.
    pub fn lint(&self, values: &Value) -> Result<String, String> {
        self.run(&["lint", "--strict"], values)
    }

    /// What would be installed.
    pub fn template(&self, values: &Value) -> Result<String, String> {
        self.template_as("rel", "backups", values)
    }

    /// What would be installed as this release, there.
    pub fn template_as(&self, release: &str, namespace: &str, values: &Value) -> Result<String, String> {
        self.run(&["template", release, "--namespace", namespace], values)
    }

    /// The same, which must succeed, taken apart.
    pub fn render(&self, values: &Value) -> Vec<Value> {
        documents(&self.template(values).unwrap_or_else(|error| panic!("{error}\n{values:#}")))
    }
}

/// The documents of a stream.
pub fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").map(|part| part.trim_start_matches("---\n"));
    let parts = parts.filter(|part| part.lines().any(|line| !line.is_empty() && !line.starts_with('#')));
    parts.map(|part| serde_yaml::from_str(part).unwrap_or_else(|error| panic!("{error}:\n{part}"))).collect()
}

/// Those of a kind.
pub fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// Every pod that would come to be: what holds it, and its specification.
pub fn pods(documents: &[Value]) -> Vec<(String, Value)> {
    let pods = documents.iter().filter_map(|document| {
        let spec = match document["kind"].as_str().unwrap() {
            "Pod" => &document["spec"],
            "StatefulSet" | "DaemonSet" | "Job" => &document["spec"]["template"]["spec"],
            "CronJob" => &document["spec"]["jobTemplate"]["spec"]["template"]["spec"],
            _ => return None,
        };
        Some((format!("{} {}", document["kind"], document["metadata"]["name"]), spec.clone()))
    });
    pods.collect()
}

/// A repository as a configuration has it.
pub fn repository(name: &str) -> Value {
    json!({
        "name": name,
        "roots": [{"path": format!("/data/{name}")}],
        "remotes": [{
            "name": "gitea", "url": format!("https://git.example.org/me/{name}.git"),
            "credentials": {"username": "bot", "password_file": "/run/secrets/backupbot/gitea/password"},
        }],
    })
}

/// A source for it.
pub fn source(name: &str) -> Value {
    json!({"name": name, "mountPath": format!("/data/{name}"), "persistentVolumeClaim": {"claimName": name}})
}

/// The least that can be installed.
pub fn least() -> Value {
    json!({
        "config": {"version": 1, "repositories": [repository("documents")]},
        "sources": [source("documents")],
        "secrets": [{"name": "gitea", "secretName": "gitea"}],
    })
}

/// Everything that the chart can make, at once.
pub fn everything() -> Value {
    let mut values = least();
    set(&mut values, "secrets", json!([{"name": "gitea", "data": {"password": "s3cret"}}]));
    for switch in ["serviceMonitor", "podMonitor", "prometheusRule", "dashboard", "restore", "verify"] {
        set(&mut values, &format!("{switch}.enabled"), json!(true));
    }
    set(&mut values, "restore.from", json!("https://git.example.org/me/documents.git"));
    set(&mut values, "restore.volume", json!({"persistentVolumeClaim": {"claimName": "restored"}}));
    set(&mut values, "verify.from", json!("https://git.example.org/me/documents.git"));
    values
}

/// Sets what a dotted name names.
pub fn set(values: &mut Value, name: &str, value: Value) {
    let place = name.split('.').fold(values, |place, part| &mut place[part]);
    *place = value;
}
