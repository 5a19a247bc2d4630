//! Keys of the configuration that are understood and checked but that no code obeys yet.
//!
//! Asking for such a thing is an error, because a backup that silently lacks what was asked for is worse than
//! none. Saying that one does not want it (null) is fine. Whoever builds one deletes its line.

use super::reader::{At, Problems};
use super::tree::{Node, Value};

/// Keys below `repositories[]` count below `defaults` too.
const UNBUILT: &[&str] = &["repositories[].encryption"];

/// Reports everything in `tree` that asks for something not built.
pub(super) fn report(tree: &Node, problems: &Problems) {
    for path in UNBUILT {
        visit(tree, &At::new(tree.place.clone(), ""), path, problems);
        if let Some(setting) = path.strip_prefix("repositories[].") {
            visit(tree, &At::new(tree.place.clone(), ""), &format!("defaults.{setting}"), problems);
        }
    }
}

fn visit(node: &Node, at: &At, path: &str, problems: &Problems) {
    if path.is_empty() {
        if node.value != Value::Null {
            let key = at.field.rsplit('.').next().unwrap_or_default();
            problems.error(at, format!("`{key}` is not built yet in this version: leave it out"));
        }
        return;
    }
    if let Some(rest) = path.strip_prefix("[]") {
        let Value::List(items) = &node.value else { return };
        for (index, item) in items.iter().enumerate() {
            let item_at = At::new(item.place.clone(), format!("{}[{index}]", at.field));
            visit(item, &item_at, rest.trim_start_matches('.'), problems);
        }
        return;
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (key, rest) = path.split_at(end);
    let Value::Map(entries) = &node.value else { return };
    let Some(entry) = entries.iter().find(|entry| entry.key == key) else { return };
    let field = if at.field.is_empty() { key.to_owned() } else { format!("{}.{key}", at.field) };
    visit(&entry.node, &At::new(entry.place().clone(), field), rest.trim_start_matches('.'), problems);
}
