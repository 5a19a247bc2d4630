//! Reading the stored metadata as docs/format.md describes it, without any code of the program.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The records of one directory in a clone, the directory's own (`.`) among them. `directory` is escaped as it
/// is stored.
pub fn records(clone: &Path, root: &str, directory: &str) -> Vec<Value> {
    let place = clone.join(".backupbot/meta").join(root).join(directory).join("_bb_meta");
    let mut found = Vec::new();
    collect(&place, &mut found);
    found
}

fn collect(place: &Path, found: &mut Vec<Value>) {
    if place.is_dir() {
        let mut shards: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
        shards.sort();
        for shard in shards {
            collect(&shard, found);
        }
        return;
    }
    let text = fs::read_to_string(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(r#"{"backupbot":1}"#), "{} has its header", place.display());
    found.extend(lines.map(|line| serde_json::from_str::<Value>(line).unwrap()));
}

/// The record of `name` among `records`.
pub fn record<'r>(records: &'r [Value], name: &str) -> &'r Value {
    records
        .iter()
        .find(|record| record["name"] == name)
        .unwrap_or_else(|| panic!("no record of {name:?} in {records:#?}"))
}
