//! Keys of the configuration that are understood and checked but that no code obeys yet.
//!
//! Asking for such a thing is an error, because a backup that silently lacks what was asked for is worse than
//! none. Saying that one does not want it (null, empty, off) is fine. Whoever builds one deletes its line.

use super::reader::{At, Problems};
use super::tree::{Node, Value};

/// What counts as asking for it.
enum Asks {
    /// Any value but null, false, and an empty list or mapping.
    Set,
    /// Any value but null.
    NotNull,
}

/// Keys below `repositories[]` count below `defaults` too.
const UNBUILT: &[(&str, Asks)] = &[
    ("repositories[].lfs", Asks::NotNull),
    ("repositories[].encryption", Asks::NotNull),
    ("repositories[].remotes[].quota", Asks::Set),
    ("repositories[].remotes[].provider", Asks::Set),
    ("repositories[].remotes[].lfs_url", Asks::Set),
];

/// Reports everything in `tree` that asks for something not built.
pub(super) fn report(tree: &Node, problems: &Problems) {
    for (path, asks) in UNBUILT {
        visit(tree, &At::new(tree.place.clone(), ""), path, asks, problems);
        if let Some(setting) = path.strip_prefix("repositories[].") {
            visit(tree, &At::new(tree.place.clone(), ""), &format!("defaults.{setting}"), asks, problems);
        }
    }
}

fn visit(node: &Node, at: &At, path: &str, asks: &Asks, problems: &Problems) {
    if path.is_empty() {
        if asks.for_something(node) {
            let key = at.field.rsplit('.').next().unwrap_or_default();
            problems.error(at, format!("`{key}` is not built yet in this version: leave it out"));
        }
        return;
    }
    if let Some(rest) = path.strip_prefix("[]") {
        let Value::List(items) = &node.value else { return };
        for (index, item) in items.iter().enumerate() {
            let item_at = At::new(item.place.clone(), format!("{}[{index}]", at.field));
            visit(item, &item_at, rest.trim_start_matches('.'), asks, problems);
        }
        return;
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (key, rest) = path.split_at(end);
    let Value::Map(entries) = &node.value else { return };
    let Some(entry) = entries.iter().find(|entry| entry.key == key) else { return };
    let field = if at.field.is_empty() { key.to_owned() } else { format!("{}.{key}", at.field) };
    visit(&entry.node, &At::new(entry.place().clone(), field), rest.trim_start_matches('.'), asks, problems);
}

impl Asks {
    fn for_something(&self, node: &Node) -> bool {
        let is_set = match &node.value {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            Value::Number(_) | Value::Text(_) => true,
        };
        match self {
            Asks::Set => is_set,
            Asks::NotNull => node.value != Value::Null,
        }
    }
}
