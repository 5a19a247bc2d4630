//! What is told to programs of one name in a snapshot: the document of `ls --json` and of the API.

use backupbot_core::history::ObjectDatabase;
use backupbot_core::history::directory::Node;
use backupbot_core::metadata::{EntryKind, Record};
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use serde_json::{Map, Value, json};

use super::shown;

/// No link that a system takes has a longer target.
const LONGEST_TARGET: usize = 4096;

/// Bytes of what it holds, as recorded, or as Git holds it.
pub fn size(objects: &ObjectDatabase<'_>, node: &Node, record: Option<&Record>) -> Option<u64> {
    let recorded = record.and_then(|record| record.size);
    recorded.or_else(|| {
        let entry = node.entry.filter(|_| node.kind.has_content())?;
        objects.read_header(entry.oid).ok().map(|(size, _)| size as u64)
    })
}

/// Where a link leads.
pub fn target(objects: &ObjectDatabase<'_>, node: &Node) -> Option<Vec<u8>> {
    let oid = node.entry.filter(|_| node.kind == EntryKind::Symlink)?.oid;
    let (size, _) = objects.read_header(oid).ok()?;
    (size <= LONGEST_TARGET).then(|| objects.read(oid).ok())?.map(|object| object.data().to_vec())
}

/// All that is known.
pub fn document(
    root: &RootName,
    path: &RelPath,
    node: &Node,
    record: Option<&Record>,
    size: Option<u64>,
    target: Option<&[u8]>,
) -> Map<String, Value> {
    let mut document = Map::new();
    shown::put_path(&mut document, "path", root, path);
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("kind", json!(node.kind.as_str()));
    put("size", json!(size));
    put("object", json!(node.entry.filter(|_| node.kind.has_content()).map(|entry| entry.oid.to_string())));
    if let Some(record) = record {
        put("mode", json!(format!("{:04o}", record.mode)));
        put("uid", json!(record.uid));
        put("gid", json!(record.gid));
        put("user", json!(record.user));
        put("group", json!(record.group));
        put("mtime", json!(shown::timestamp(record.mtime).map(|mtime| mtime.to_string())));
        if let Some(blake3) = record.blake3 {
            put("blake3", json!(blake3.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        }
        if !record.xattrs.is_empty() {
            let names: Vec<_> = record.xattrs.keys().map(|name| String::from_utf8_lossy(name)).collect();
            put("xattrs", json!(names));
        }
        if let Some(link) = &record.hard_link {
            put("hard_link", json!(link));
        }
        if let Some(device) = record.device {
            put("device", json!(device));
        }
    }
    if let Some(target) = target {
        shown::put_bytes(&mut document, "target", target);
    }
    document
}
