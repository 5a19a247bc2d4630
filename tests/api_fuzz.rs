//! Schemathesis asks everything that the OpenAPI document allows, and much that it does not: no answer may be a server
//! error, and none may be one that is not documented.
//!
//! `tests/run` installs it below `target/tools`; where it is missing the test says that it was skipped.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::daemon::Setup;
use crate::support::skip;
use crate::support::tree::write;

const CHECKS: &str = "status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,allow_header_conformance";
/// Seconds for the whole of it.
const TIME: &str = "40";
/// Seconds for flush alone.
const TIME_OF_FLUSH: &str = "10";

fn program() -> Option<PathBuf> {
    let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/schemathesis/bin/schemathesis");
    tools.exists().then_some(tools)
}

#[test]
fn no_answer_is_a_server_error_or_undocumented() {
    let Some(schemathesis) = program() else {
        return skip("the API was not fuzzed: schemathesis is not installed (tests/run does that)");
    };
    let mut setup = Setup::new();
    std::fs::create_dir(setup.path("restored")).unwrap();
    setup.config["admin"]["restore_dirs"] = json!([setup.path("restored").to_str().unwrap()]);
    write(&setup.root(), "file", "x");
    write(&setup.root(), "deep/er", "y");
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    std::fs::write(setup.path("openapi.json"), api.get("/api/v1/openapi.json").body).unwrap();
    let run = |arguments: &[&str], checks: String| {
        let output = Command::new(&schemathesis)
            .arg("run")
            .arg(setup.path("openapi.json"))
            .args(["--url", &format!("http://{}", api.address), "--checks", &checks])
            .args(["-H", &format!("Authorization: {}", api.bearer()), "--suppress-health-check", "all"])
            .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--warnings", "off"])
            .args(arguments)
            .env("HOME", setup.scratch.path())
            .current_dir(setup.scratch.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
    };
    // A flush that is given a millisecond answers 504, as the contract has it; events never end.
    run(
        &["--exclude-path", "/api/v1/events", "--exclude-path", "/api/v1/flush", "--max-time", TIME],
        format!("not_a_server_error,{CHECKS}"),
    );
    run(&["--include-path", "/api/v1/flush", "--max-time", TIME_OF_FLUSH], CHECKS.to_owned());
    assert_eq!(api.raw("GET", "/livez", &[("Host", "x")], b"").status, 200);
    assert!(!daemon.output().contains("panicked"), "{}", daemon.output());
    assert!(!daemon.output().contains(&api.token), "the token is not in the log");
}
