//! `backupbot check`: is the configuration sound, and if not, every mistake with its place.
//!
//! With `--beside` also whether it agrees with those of other instances: a repository has one writer.

use std::collections::BTreeMap;

use backupbot_core::clock;
use backupbot_core::config::{BackendChoice, Config, Problem};
use backupbot_core::watch;
use serde_json::json;

use crate::cli::{Check, Global};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::{self, Origin, Settings, World};

pub fn check(world: &World, global: &Global, arguments: &Check) -> Result<Exit, Failure> {
    let settings = match sound(world, global, arguments) {
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

/// The configuration, if neither it nor one beside it has a mistake.
fn sound(world: &World, global: &Global, arguments: &Check) -> Result<Settings, Failure> {
    let settings = settings::from_file(world, global)?;
    let mut others = Vec::new();
    for file in &arguments.beside {
        let global = Global { config: Some(file.clone()), ..global.clone() };
        others.push(settings::from_file(world, &global)?);
    }
    let mut all = vec![(name_of(&settings), &settings.config)];
    all.extend(others.iter().map(|other| (name_of(other), &other.config)));
    let lines = quarrels(&all)?;
    if lines.is_empty() { Ok(settings) } else { Err(Failure { exit: Exit::Usage, lines }) }
}

fn name_of(settings: &Settings) -> String {
    match &settings.origin {
        Origin::File(path) => shown(path),
        Origin::Flags(_) => "the flags".to_owned(),
    }
}

/// What two configurations both claim for themselves.
fn quarrels(all: &[(String, &Config)]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (index, (file, config)) in all.iter().enumerate() {
        for (what, consequence) in claims(config)? {
            let owner = *owners.entry(what.clone()).or_insert(index);
            if owner != index {
                let first = all.get(owner).map_or("", |(file, _)| file);
                lines.push(format!("{file}: {what} is also in {first}: {consequence}"));
            }
        }
    }
    Ok(lines)
}

/// What only one running instance may have, and why.
fn claims(config: &Config) -> Result<Vec<(String, &'static str)>, Failure> {
    let mut claims =
        vec![(format!("instance {}", config.instance), "nobody could tell whose commits are whose")];
    for repository in &config.repositories {
        claims.push((format!("repository {}", repository.name), "only one may write it"));
        let branch = repository.branch.full_name(&config.instance, clock::now())?;
        for remote in &repository.remotes {
            let address = remote.url.to_string();
            let address = address.trim_end_matches('/').trim_end_matches(".git");
            claims.push((format!("branch {branch} at {address}"), "two writers would halt each other"));
        }
    }
    Ok(claims)
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
