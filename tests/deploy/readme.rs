//! What the chart's README shows: each example is taken by the real Helm, and what comes of it by the program.

use std::fs;

use serde_json::{Value, json};

use super::cases::shared_out;
use crate::support::daemon::Setup;
use crate::support::helm::{chart, everything, helms, of_kind, set};

fn examples() -> Vec<Value> {
    let text = fs::read_to_string(chart().join("README.md")).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.map(|block| serde_yaml::from_str(block).unwrap()).collect()
}

#[test]
fn the_examples_of_the_readme_are_taken_and_give_sound_configurations() {
    let [first, shards, encryption, affinity]: [Value; 4] = examples().try_into().unwrap();
    let with = |base: &Value, more: &Value| {
        let mut values = base.clone();
        for (name, value) in more.as_object().unwrap() {
            set(&mut values, name, value.clone());
        }
        values
    };
    let two = with(&first, &json!({"config": shared_out()["config"], "sources": shared_out()["sources"]}));
    let setup = Setup::new();
    for helm in helms() {
        for values in [first.clone(), with(&two, &shards), with(&first, &encryption), with(&first, &affinity)]
        {
            let made = helm.render(&values);
            for map in of_kind(&made, "ConfigMap") {
                let file = setup.path("rendered.yaml");
                fs::write(&file, map["data"]["config.yaml"].as_str().unwrap()).unwrap();
                let output = setup.command(&["check", "--config", file.to_str().unwrap()]).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        let made = helm.render(&with(&first, &affinity));
        let pod = &of_kind(&made, "StatefulSet")[0]["spec"]["template"]["spec"];
        assert!(pod["affinity"]["podAffinity"].is_object(), "{pod}");
    }
}

#[test]
fn a_key_is_made_with_the_few_lines_that_the_readme_shows() {
    let text = fs::read_to_string(chart().join("README.md")).unwrap();
    let lines = text.split("cat > key.yaml <<'EOF'\n").nth(1).unwrap().split("EOF\n").next().unwrap();
    let setup = Setup::new();
    let key_file = setup.path("keys/documents.key");
    fs::write(setup.path("key.yaml"), lines.replace("/root/keys/documents.key", key_file.to_str().unwrap()))
        .unwrap();
    let output = setup.command(&["--config", "key.yaml", "keys", "create"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(key_file).unwrap().starts_with(b"\0GITCRYPTKEY\0"));
}

#[test]
fn what_is_empty_by_default_may_stand_there_without_a_value() {
    let text = fs::read_to_string(chart().join("README.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
    let empty = rows.filter(|(_, rest)| rest.starts_with("{}`") || rest.starts_with("[]`"));
    let names: Vec<&str> = empty.map(|(name, _)| name).collect();
    assert!(names.len() > 20, "{names:?}");
    for helm in helms() {
        for name in &names {
            let mut values = everything();
            set(&mut values, name, Value::Null);
            let Err(said) = helm.template(&values) else { continue };
            // Without these there is nothing to do, and the chart's own words say so.
            assert!(["sources", "secrets", "restore.volume"].contains(name), "{name}: {said}");
            assert!(!said.contains("nil pointer") && !said.contains("wrong type"), "{name}: {said}");
        }
    }
}
