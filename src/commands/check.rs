//! `backupbot check`: is the configuration sound, and if not, every mistake with its place.

use backupbot_core::config::{BackendChoice, Problem};
use backupbot_core::watch;
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
    warnings.extend(roots_without_events(&settings));
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

/// Roots on file systems that do not tell of changes made elsewhere.
fn roots_without_events(settings: &Settings) -> Vec<String> {
    let roots = settings.config.repositories.iter().flat_map(|repository| &repository.roots);
    let found = roots.filter_map(|root| {
        let kind = watch::polled_kind(&root.path)?;
        let consequence = match root.backend {
            BackendChoice::Poll => return None,
            BackendChoice::Auto => "it is polled every 5 to 30 seconds",
            BackendChoice::Inotify | BackendChoice::Kqueue => {
                "with this backend such changes are found by the next rescan only; auto or poll finds them"
            }
        };
        let (name, path) = (&root.name, shown(&root.path));
        Some(format!(
            "root {name}: {path} is on {kind}, which does not tell of changes made elsewhere: {consequence}"
        ))
    });
    found.collect()
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
