//! What the tests of several files here need.

use crate::config::{self, Format, Repository};

/// The settings of a repository with `lfs: <lfs>` and one remote for each provider.
pub(crate) fn settings(lfs: &str, providers: &[&str]) -> Repository {
    let remotes: Vec<String> = providers
        .iter()
        .map(|provider| {
            format!("{{name: {provider}, url: 'https://host.example/{provider}.git', provider: {provider}}}")
        })
        .collect();
    let text = format!(
        "version: 1\nrepositories:\n  - name: r\n    roots: [{{path: /nowhere/r}}]\n    lfs: {lfs}\n    remotes: [{}]\n",
        remotes.join(", ")
    );
    let context = config::Context {
        default_state_dir: "/nowhere/state".into(),
        default_instance: "laptop".to_owned(),
        ..Default::default()
    };
    match config::parse(text.as_bytes(), Format::Yaml, "c.yaml", &context) {
        Ok(mut loaded) => loaded.config.repositories.remove(0),
        Err(problems) => {
            panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
        }
    }
}
