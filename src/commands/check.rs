//! `backupbot check`: is the configuration sound, and if not, every mistake with its place.

use backupbot_core::config::Problem;
use serde_json::json;

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::{self, Origin, Settings, World};

pub fn check(world: &World, global: &Global) -> Result<Exit, Failure> {
    let settings = match settings::from_file(world, global) {
        Ok(settings) => settings,
        Err(failure) => {
            if global.json {
                output::json(&json!({"valid": false, "problems": failure.lines}))?;
            }
            return Err(failure);
        }
    };
    let mut warnings: Vec<String> = settings.warnings.iter().map(Problem::to_string).collect();
    warnings.extend(absent_roots(&settings));
    for warning in &warnings {
        output::complain(&format!("warning: {warning}"));
    }
    let file = match &settings.origin {
        Origin::File(path) => shown(path),
        Origin::Flags(_) => String::new(),
    };
    if global.json {
        output::json(&json!({"valid": true, "file": file, "problems": [], "warnings": warnings}))?;
    } else {
        output::answer(&format!("{file}: sound: {}", summary(&settings)))?;
    }
    Ok(Exit::Done)
}

fn absent_roots(settings: &Settings) -> Vec<String> {
    let roots = settings.config.repositories.iter().flat_map(|repository| &repository.roots);
    let absent = roots.filter(|root| !root.path.is_dir());
    absent
        .map(|root| {
            format!(
                "root {}: {} is no directory now, so it cannot be backed up",
                root.name,
                shown(&root.path)
            )
        })
        .collect()
}

fn summary(settings: &Settings) -> String {
    let repositories = &settings.config.repositories;
    let roots = repositories.iter().map(|repository| repository.roots.len()).sum();
    let remotes = repositories.iter().map(|repository| repository.remotes.len()).sum();
    let count =
        |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    format!(
        "{}, {}, {}",
        count(repositories.len(), "repository", "repositories"),
        count(roots, "root", "roots"),
        count(remotes, "remote", "remotes")
    )
}
