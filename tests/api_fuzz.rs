//! Schemathesis asks everything that the OpenAPI document allows, and much that it does not: no answer may be a server
//! error, and none may be one that is not documented.
//!
//! `tests/run` installs it below `target/tools`; where it is missing the test says that it was skipped.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::tree::write;
use crate::support::{is_long, skip};

const CHECKS: &str = "status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,allow_header_conformance";
/// Seconds for the whole of it.
const TIME: &str = "40";
/// The same in the long tier, and as many cases as that may make of one operation.
const LONG: (&str, &str) = ("300", "3000");
/// Requests that the long tier makes at least.
const MANY: usize = 10_000;
/// Seconds for flush alone.
const TIME_OF_FLUSH: &str = "10";

fn program() -> Option<PathBuf> {
    let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/schemathesis/bin/schemathesis");
    tools.exists().then_some(tools)
}

/// Names that are there, among others, so that requests come further than to "no such thing".
fn give_values(document: &mut Value, tip: &str, job: &str, targets: &[&str]) {
    let text = |values: Value| json!({"type": "string", "enum": values});
    for (path, item) in document["paths"].as_object_mut().unwrap() {
        for operation in item.as_object_mut().unwrap().values_mut() {
            for parameter in
                operation.get_mut("parameters").into_iter().flat_map(|all| all.as_array_mut().unwrap())
            {
                let values = match parameter["name"].as_str().unwrap() {
                    "repository" => json!(["documents", "nobody"]),
                    "id" if path.contains("snapshots") => json!([tip, "latest", "none"]),
                    "id" => json!([job, "none"]),
                    "path" => json!(["folder1", "folder1/file", "folder1/deep", "folder1/none"]),
                    "path_b64" => json!(["Zm9sZGVyMQ=="]),
                    "before" => json!([tip, "latest", "none"]),
                    _ => continue,
                };
                parameter["schema"] = text(values);
            }
        }
    }
    let schemas = &mut document["components"]["schemas"];
    for wish in ["PauseWish", "ResumeWish", "FlushWish"] {
        schemas[wish]["properties"]["repository"] = text(json!(["documents", "nobody"]));
    }
    // The wish is part of answers, too, where anything may stand.
    schemas["GivenWish"] = schemas["Wish"].clone();
    let wish = &mut schemas["GivenWish"]["properties"];
    wish["repository"] = text(json!(["documents", "nobody"]));
    wish["to"] = text(json!(targets));
    wish["at"] = text(json!([tip, "latest", "none"]));
    wish["paths"]["items"] = text(json!(["folder1", "folder1/file", "folder1/*", "folder1/none"]));
    wish["paths_b64"]["items"] = text(json!(["Zm9sZGVyMQ=="]));
    let body = &mut document["paths"]["/api/v1/restores"]["post"]["requestBody"];
    body["content"]["application/json"]["schema"] = json!({"$ref": "#/components/schemas/GivenWish"});
}

/// The operations that succeeded at least once, as `METHOD pattern`.
fn done(har: &Value) -> BTreeSet<String> {
    let succeeded = har["log"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| matches!(entry["response"]["status"].as_u64(), Some(200..300)));
    let operations = succeeded.map(|entry| {
        let url = entry["request"]["url"].as_str().unwrap();
        let path = url.splitn(4, '/').nth(3).unwrap_or_default().split('?').next().unwrap();
        let mut parts: Vec<&str> = path.split('/').collect();
        match parts.get(2).copied() {
            Some("repositories") => {
                parts[3] = "{repository}";
                if parts.get(4) == Some(&"snapshots") {
                    parts.get_mut(5).into_iter().for_each(|id| *id = "{id}");
                }
            }
            Some("restores") => parts.get_mut(3).into_iter().for_each(|id| *id = "{id}"),
            _ => {}
        }
        format!("{} /{}", entry["request"]["method"].as_str().unwrap(), parts.join("/"))
    });
    operations.collect()
}

#[test]
fn no_answer_is_a_server_error_or_undocumented() {
    let Some(schemathesis) = program() else {
        return skip("the API was not fuzzed: schemathesis is not installed (tests/run does that)");
    };
    let mut setup = Setup::new();
    std::fs::create_dir(setup.path("restored")).unwrap();
    setup.config["admin"]["restore_dirs"] = json!([setup.path("restored").to_str().unwrap()]);
    setup.repository()["lfs"] = json!({"threshold": "1KiB"});
    write(&setup.root(), "file", "x");
    write(&setup.root(), "deep/er", vec![b'y'; 2048]);
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let tip = setup.remote().tip("main").unwrap();
    let restored = |name: &str| setup.path(&format!("restored/{name}")).to_str().unwrap().to_owned();
    let wish = json!({"repository": "documents", "to": restored("first")});
    let job = api.post("/api/v1/restores", &wish).json()["id"].as_str().unwrap().to_owned();
    let mut document = api.get("/api/v1/openapi.json").json();
    give_values(&mut document, &tip, &job, &[&restored("a"), &restored("b"), "/elsewhere"]);
    std::fs::write(setup.path("openapi.json"), document.to_string()).unwrap();
    let har = setup.path("asked.har");
    let run = |arguments: &[&str], checks: String| {
        let output = Command::new(&schemathesis)
            .arg("run")
            .arg(setup.path("openapi.json"))
            .args(["--url", &format!("http://{}", api.address), "--checks", &checks])
            .args(["-H", &format!("Authorization: {}", api.bearer()), "--suppress-health-check", "all"])
            .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--warnings", "off"])
            .args(["--report", "har", "--report-har-path"])
            .arg(&har)
            .args(arguments)
            .env("HOME", setup.scratch.path())
            .current_dir(setup.scratch.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
    };
    let size: &[&str] = if is_long() { &[LONG.0, "--max-examples", LONG.1] } else { &[TIME] };
    // A flush that is given a millisecond answers 504, as the contract has it; events never end.
    run(
        &[&["--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/flush", "--max-time"], size]
            .concat(),
        format!("not_a_server_error,{CHECKS}"),
    );
    // Refusals are documented too: a run that was only refused would have proven nothing.
    let asked: Value = serde_json::from_slice(&std::fs::read(&har).unwrap()).unwrap();
    let cases = asked["log"]["entries"].as_array().unwrap().len();
    println!("{cases} requests without a server error");
    assert!(!is_long() || cases >= MANY, "only {cases} requests");
    let done = done(&asked);
    // Flush is asked alone below, events never end, and there is no quarantine to decide about (tests/guard.rs has one).
    let is_left_out =
        |path: &str| ["/events", "/flush", "/approve", "/reject"].iter().any(|end| path.ends_with(end));
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|_| !is_left_out(path)) {
            let operation = format!("{} {path}", method.to_uppercase());
            assert!(done.contains(&operation), "{operation} never succeeded; these did: {done:#?}");
        }
    }
    run(&["--include-path", "/api/v1/flush", "--max-time", TIME_OF_FLUSH], CHECKS.to_owned());
    assert_eq!(api.raw("GET", "/livez", &[("Host", "x")], b"").status, 200);
    assert!(!daemon.output().contains("panicked"), "{}", daemon.output());
    assert!(!daemon.output().contains(&api.token), "the token is not in the log");
}
