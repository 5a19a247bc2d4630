//! `backupbot diff A B`: what differs between two snapshots.

use std::collections::BTreeMap;

use backupbot_core::history::compare::{self, Change, Comparison, Side, What};
use backupbot_core::metadata::EntryKind;
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use serde_json::{Map, json};

use crate::cli::Global;
use crate::cli::look::Diff;
use crate::exit::{Exit, Failure};
use crate::looking::{Looking, shown};
use crate::output::{self, Lines};
use crate::settings::World;

pub fn diff(world: &World, global: &Global, arguments: &Diff) -> Result<Exit, Failure> {
    let path = arguments.path.as_deref();
    let looking = Looking::open(world, global, arguments.which.repository.as_deref(), path)?;
    let old = looking.snapshot(Some(&arguments.old))?;
    let new = looking.snapshot(arguments.new.as_deref())?;
    let _keys = looking.unlock(&arguments.unlock, &[&old, &new])?;
    let objects = looking.repository.objects()?;
    let found = match path {
        None => compare::snapshots(&objects, &old, &new)?,
        Some(path) => {
            let (root, path) = looking.locate(path, &new).or_else(|_| looking.locate(path, &old))?;
            compare::within(&objects, &old, &new, &root, &path)?
        }
    };
    for damage in &found.damage {
        output::complain(&format!("backupbot: {damage}"));
    }
    let mut lines = Lines::begin();
    if arguments.stat {
        stat(&found, global.json, &mut lines)?;
    } else {
        for change in &found.changes {
            match global.json {
                true => lines.json(&document(change))?,
                false => lines.line(&line(change))?,
            }
        }
    }
    lines.end()?;
    Ok(Exit::Done)
}

/// How many of each kind; every kind, so that a program finds its number.
fn stat(found: &Comparison, json: bool, lines: &mut Lines) -> Result<(), Failure> {
    let kinds = ["added", "changed", "deleted", "renamed", "metadata"];
    let mut counts: BTreeMap<&str, u64> = kinds.into_iter().map(|kind| (kind, 0)).collect();
    for change in &found.changes {
        *counts.entry(change.what.as_str()).or_default() += 1;
    }
    if json {
        return lines.json(&counts);
    }
    let words: Vec<String> = kinds.iter().map(|kind| format!("{} {kind}", counts[kind])).collect();
    lines.line(&words.join(", "))
}

fn line(change: &Change) -> String {
    let side = change.new.or(change.old);
    let path = with_slash(&change.root, &change.path, side);
    let letter = change.what.letter();
    match &change.what {
        What::Renamed { root, path: from } => {
            format!("{letter} {} -> {path}{}", with_slash(root, from, change.old), fields(change))
        }
        What::Metadata => format!("{letter} {path}{}", fields(change)),
        _ => format!("{letter} {path}"),
    }
}

fn with_slash(root: &RootName, path: &RelPath, side: Option<Side>) -> String {
    let is_directory = side.is_some_and(|side| side.kind == EntryKind::Directory);
    format!("{}{}", shown::path(root, path), if is_directory { "/" } else { "" })
}

fn fields(change: &Change) -> String {
    let names: Vec<&str> = change.fields.names().collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

fn document(change: &Change) -> Map<String, serde_json::Value> {
    let mut document = Map::new();
    document.insert("change".to_owned(), json!(change.what.as_str()));
    shown::put_path(&mut document, "path", &change.root, &change.path);
    if let What::Renamed { root, path } = &change.what {
        shown::put_path(&mut document, "old_path", root, path);
    }
    let fields: Vec<&str> = change.fields.names().collect();
    document.insert("metadata".to_owned(), json!(fields));
    for (key, side) in [("old", change.old), ("new", change.new)] {
        let side = side.map(|side| {
            json!({
                "kind": side.kind.as_str(),
                "size": side.size,
                "object": side.entry.map(|entry| entry.oid.to_string()),
            })
        });
        document.insert(key.to_owned(), json!(side));
    }
    document
}
