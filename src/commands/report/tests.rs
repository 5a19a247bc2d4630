//! What the report says of a configuration and a status.

use super::*;
use backupbot_core::config::{Provider, Timeouts};

fn config(text: &str) -> Config {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("backupbot.yaml");
    std::fs::write(&path, text).unwrap();
    let global = Global { config: Some(path), ..Global::default() };
    settings::from_file(&World::default(), &global).unwrap().config
}

const TEXT: &str = "version: 1\nstate_dir: /s\ninstance: 'na|s'\nrepositories:\n  - name: documents\n    roots: [{path: '/data/`x`|*y*'}, {name: two, path: \"/data/a\\nb c\"}]\n";

fn nothing() -> StatusAnswer {
    serde_json::from_value(serde_json::json!({
        "instance": "nas", "version": "1", "daemon": false, "repositories": [], "alerts": [],
    }))
    .unwrap()
}

#[test]
fn what_nobody_said_and_nothing_has_proven_is_an_open_question() {
    let config = config(&format!(
        "{}    remotes:\n      - name: hub\n        url: 'http://git.example.org/d.git'\n        provider: github\n        \
         credentials: {{token_file: /run/token}}\n    drill: null\n    verify: null\n",
        TEXT.replace("na|s", "nas")
    ));
    let report = make(&config, &nothing(), None, Moment::now());
    let place = &report.repositories[0].places[0];
    assert_eq!((place.provider, place.transport), (Provider::Github.name(), "HTTP without encryption"));
    assert_eq!(place.credentials, ["token from the file /run/token"]);
    for word in [
        "one remote only",
        "`region`",
        "unencrypted",
        "`encryption`",
        "rehearsed yet",
        "read back",
        "`drill: null`",
        "`verify: null`",
    ] {
        assert!(report.open.iter().any(|question| question.contains(word)), "{word}: {:#?}", report.open);
    }
    assert_eq!(Timeouts::default(), config.repositories[0].remotes[0].timeouts);
    assert!(make(&config, &nothing(), Some("else"), Moment::now()).repositories.is_empty());
}

#[test]
fn names_stay_text_in_markdown() {
    let report = make(&config(&TEXT.replace("na|s", "nas")), &nothing(), None, Moment::now());
    let text = markdown::text(&report);
    assert!(text.contains(r"/data/\`x\`\|\*y\*, /data/a\\nb c |"), "{text}");
    assert!(text.contains("nothing leaves this machine"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("| Directories")).count(), 1, "{text}");
}
