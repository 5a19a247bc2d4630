//! Values of the chart for its tests: each documented one changed, and whole sets of them.

use serde_json::{Value, json};

use crate::support::helm::{least, repository, set, source};

/// Each documented value, and another one for it. What concerns only a DaemonSet or shards stands in tests of its own.
pub fn changes() -> Vec<(&'static str, Value)> {
    vec![
        ("nameOverride", json!("other")),
        ("fullnameOverride", json!("other")),
        ("image.repository", json!("registry.example.org/backupbot")),
        ("image.tag", json!("1.2.3")),
        ("image.digest", json!(format!("sha256:{}", "0".repeat(64)))),
        ("image.pullPolicy", json!("Always")),
        ("imagePullSecrets", json!([{"name": "registry"}])),
        ("mode", json!(null)),
        ("instance", json!("nas")),
        (
            "config",
            json!({"version": 1, "log": {"level": "debug"}, "repositories": [repository("documents")]}),
        ),
        ("existingConfigMap.name", json!(null)),
        ("existingConfigMap.key", json!(null)),
        ("sources", json!([source("documents"), source("more")])),
        ("allowHostPath", json!(null)),
        ("shards", json!([{"name": "a", "repositories": ["documents"]}])),
        (
            "secrets",
            json!([{"name": "gitea", "data": {"password": "p"}}, {"name": "other", "data": {"key": "value"}}]),
        ),
        ("adopt", json!("continue")),
        ("state.size", json!("1Ti")),
        ("state.storageClassName", json!("-")),
        ("state.accessModes", json!(["ReadWriteOncePod"])),
        ("state.existingClaim", json!("mine")),
        ("state.annotations", json!({"a": "b"})),
        ("state.keep", json!(false)),
        ("daemonSet.statePath", json!(null)),
        ("daemonSet.maxUnavailable", json!(null)),
        ("metrics.port", json!(9000)),
        ("metrics.address", json!("[::]")),
        ("serviceMonitor.enabled", json!(false)),
        ("serviceMonitor.labels", json!({"release": "prometheus"})),
        ("serviceMonitor.interval", json!("1m")),
        ("serviceMonitor.scrapeTimeout", json!("5s")),
        ("podMonitor.enabled", json!(false)),
        ("podMonitor.labels", json!({"release": "prometheus"})),
        ("podMonitor.interval", json!("1m")),
        ("podMonitor.scrapeTimeout", json!("5s")),
        ("prometheusRule.enabled", json!(false)),
        ("prometheusRule.labels", json!({"release": "prometheus"})),
        ("prometheusRule.runbookBase", json!("https://docs.example.org/operations.html")),
        ("dashboard.enabled", json!(false)),
        ("dashboard.labels", json!({"find": "me"})),
        ("dashboard.annotations", json!({"grafana_folder": "Backups"})),
        ("dashboard.namespace", json!("monitoring")),
        ("serviceAccount.create", json!(false)),
        ("serviceAccount.name", json!("mine")),
        ("serviceAccount.annotations", json!({"a": "b"})),
        ("networkPolicy.enabled", json!(false)),
        ("networkPolicy.from", json!([{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}])),
        ("networkPolicy.egress", json!([{"ports": [{"port": 443}]}])),
        ("podDisruptionBudget.enabled", json!(false)),
        ("podDisruptionBudget.maxUnavailable", json!("50%")),
        ("resources", json!({"limits": {"memory": "1Gi"}})),
        ("terminationGracePeriodSeconds", json!(120)),
        ("podSecurityContext", json!({"runAsUser": 1000})),
        ("securityContext", json!({"runAsGroup": 1000})),
        ("probes.startup.periodSeconds", json!(7)),
        ("probes.startup.failureThreshold", json!(7)),
        ("probes.liveness.periodSeconds", json!(7)),
        ("probes.liveness.failureThreshold", json!(7)),
        ("probes.readiness.periodSeconds", json!(7)),
        ("probes.readiness.failureThreshold", json!(7)),
        ("extraEnv", json!([{"name": "BACKUPBOT_LOG_LEVEL", "value": "debug"}])),
        ("extraVolumes", json!([{"name": "more", "emptyDir": {}}])),
        ("extraVolumeMounts", json!([{"name": "tmp", "mountPath": "/more"}])),
        ("initContainers", json!([{"name": "first", "image": "x"}])),
        ("extraContainers", json!([{"name": "beside", "image": "x"}])),
        ("podAnnotations", json!({"a": "b"})),
        ("podLabels", json!({"a": "b", "app.kubernetes.io/name": "not-this"})),
        ("commonLabels", json!({"a": "b", "app.kubernetes.io/name": "not-this"})),
        ("nodeSelector", json!({"disk": "ssd"})),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("affinity", json!({"nodeAffinity": {}})),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
        ),
        ("priorityClassName", json!("high")),
        ("hostAliases", json!([{"ip": "192.0.2.1", "hostnames": ["nas"]}])),
        ("restore.enabled", json!(false)),
        ("restore.from", json!("/mnt/usb/documents.git")),
        ("restore.at", json!("2026-11-22 13:05")),
        ("restore.paths", json!(["documents/plan.txt"])),
        ("restore.args", json!(["--no-limits"])),
        ("restore.volume", json!({"emptyDir": {}})),
        ("restore.securityContext", json!({"runAsUser": 0})),
        ("restore.podSecurityContext", json!({"runAsUser": 0})),
        ("verify.enabled", json!(false)),
        ("verify.from", json!("/mnt/usb/documents.git")),
        ("verify.at", json!("yesterday")),
        ("verify.sample", json!("1%")),
        ("verify.args", json!(["--branch", "main"])),
        ("verify.schedule", json!("0 3 * * 0")),
        ("verify.scratchSize", json!("1Gi")),
    ]
}

/// Two repositories, shared out.
pub fn shared_out() -> Value {
    let mut values = least();
    set(&mut values, "config.repositories", json!([repository("documents"), repository("photos")]));
    set(&mut values, "sources", json!([source("documents"), source("photos")]));
    let shards = json!([
        {"name": "a", "repositories": ["documents"], "sources": ["documents"]},
        {"name": "b", "repositories": ["photos"], "sources": ["photos"], "adopt": "continue", "nodeSelector": {"disk": "big"}},
    ]);
    set(&mut values, "shards", shards);
    values
}

/// On every node.
pub fn on_nodes() -> Value {
    let mut values = least();
    set(&mut values, "mode", json!("DaemonSet"));
    set(&mut values, "allowHostPath", json!(true));
    set(&mut values, "daemonSet", json!({"statePath": "/var/lib/backupbot", "maxUnavailable": "10%"}));
    set(&mut values, "config.repositories", json!([repository("documents")]));
    values["config"]["repositories"][0]["branch"] = json!("nodes/{instance}");
    let source = json!([{"name": "documents", "mountPath": "/data/documents", "hostPath": {"path": "/srv"}}]);
    set(&mut values, "sources", source);
    values
}

/// With a key, the keys of before, and recipients, each from a Secret.
pub fn encrypted() -> Value {
    let mut values = least();
    values["config"]["repositories"][0]["encryption"] = json!({
        "method": "git-crypt",
        "key_file": "/run/secrets/backupbot/documents-key/documents.key",
        "old_keys": "/run/secrets/backupbot/documents-key",
        "recipients": ["/run/secrets/backupbot/people"],
        "paths": ["*.kdbx"],
    });
    let secret = |name: &str| json!({"name": name, "secretName": name});
    set(&mut values, "secrets", json!([secret("gitea"), secret("documents-key"), secret("people")]));
    values
}

/// With a ConfigMap that is there already, and sources of other kinds.
pub fn with_a_map_of_ones_own() -> Value {
    json!({
        "existingConfigMap": {"name": "mine", "key": "backup.toml"},
        "allowHostPath": true,
        "sources": [
            {"name": "here", "mountPath": "/data/here", "hostPath": {"path": "/srv", "type": "Directory"}},
            {"name": "there", "mountPath": "/data/there", "volume": {"nfs": {"server": "nas", "path": "/x", "readOnly": true}}},
        ],
    })
}
