//! What a configuration means, and that every wrong one says where and why.

mod formats;
mod mistakes;
mod rules;
mod sources;

use super::*;

/// The smallest configuration there is: six lines, and room for more of a repository after them.
pub(super) const MINIMAL: &str = "\
version: 1
repositories:
  - name: documents
    roots: [{path: /nowhere/folder1}]
    remotes: [{name: usb, url: /nowhere/usb.git}]
";

pub(super) fn context() -> Context {
    Context {
        default_state_dir: "/nowhere/state".into(),
        default_instance: "laptop".to_owned(),
        known_variables: &["BACKUPBOT_CONFIG"],
        ..Context::default()
    }
}

pub(super) fn yaml(text: &str) -> Result<Loaded, Vec<Problem>> {
    parse(text.as_bytes(), Format::Yaml, "c.yaml", &context())
}

pub(super) fn toml(text: &str) -> Result<Loaded, Vec<Problem>> {
    parse(text.as_bytes(), Format::Toml, "c.toml", &context())
}

/// The configuration that `text` must be, with what the problems are if it is none.
pub(super) fn config(text: &str) -> Config {
    match yaml(text) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{}", lines(&problems)),
    }
}

pub(super) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Where and what: `line field`, one each.
pub(super) fn sites(problems: &[Problem]) -> Vec<String> {
    let line = |problem: &Problem| {
        problem.place.trim_start_matches("c.yaml:").trim_start_matches("c.toml:").to_owned()
    };
    problems.iter().map(|problem| format!("{} {}", line(problem), problem.field)).collect()
}
