//! What the documents promise: that the tests they name exist, that their links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `directory` with this ending.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_promise_of_the_security_document_has_its_test() {
    let sources =
        ["tests", "src", "core/src", "actors/src"].iter().flat_map(|part| files(&project().join(part), "rs"));
    let mut tests = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).unwrap();
        let functions = text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split('(').next());
        tests.extend(functions.map(str::to_owned));
    }
    let text = fs::read_to_string(project().join("docs/security.md")).unwrap();
    let (_, table) = text.split_once("## Who can do what").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let promised = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        let names: Vec<&str> =
            promised.split('`').filter_map(|part| part.rsplit_once("::")).map(|(_, name)| name).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(tests.contains(name), "{name} is no test");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn anchors(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = files(&project().join("docs"), "md");
    documents.extend(["README.md", "CHANGELOG.md", "helm/README.md"].map(|name| project().join(name)));
    let mut followed = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        // What stands between fences is code.
        let text: String = text.split("\n```").step_by(2).collect();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(' ') || link.is_empty() {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            if !place.is_empty() && target.extension().is_some_and(|extension| extension == "md") {
                assert!(anchors(&target).contains(place), "{}: no place {link}", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed}");
}
