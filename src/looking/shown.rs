//! Names, times and sizes of what is looked at, for people and for programs.

use backupbot_core::history::Snapshot;
use backupbot_core::metadata::Mtime;
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// A name as it is, or in quotes with escapes where a terminal could take it for something else.
///
/// A name is whatever a stranger called a file: control characters and those that reverse the direction of text never
/// reach the terminal, and no two names look the same because of an escape.
pub fn name(bytes: &[u8]) -> String {
    let is_plain = std::str::from_utf8(bytes).is_ok_and(|text| {
        !text.is_empty()
            && !text.starts_with(char::is_whitespace)
            && !text.ends_with(char::is_whitespace)
            && !text.chars().any(|c| matches!(c, '"' | '\\') || is_invisible(c))
    });
    if is_plain {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\t' => quoted.push_str("\\t"),
                '\r' => quoted.push_str("\\r"),
                c if is_invisible(c) => {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        quoted.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// Characters that change how others are shown, or show nothing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A path in a root.
pub fn path(root: &RootName, path: &RelPath) -> String {
    name(&full(root, path))
}

fn full(root: &RootName, path: &RelPath) -> Vec<u8> {
    let mut full = root.as_str().as_bytes().to_vec();
    if !path.is_root() {
        full.push(b'/');
        full.extend_from_slice(path.as_bytes());
    }
    full
}

/// Puts a path into a document: `key` exact if it is UTF-8, else lossy and exact under `key_b64`.
pub fn put_path(document: &mut Map<String, Value>, key: &str, root: &RootName, path: &RelPath) {
    put_bytes(document, key, &full(root, path));
}

/// The same for any bytes.
pub fn put_bytes(document: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    document.insert(key.to_owned(), json!(String::from_utf8_lossy(bytes)));
    if std::str::from_utf8(bytes).is_err() {
        document.insert(format!("{key}_b64"), json!(STANDARD.encode(bytes)));
    }
}

/// What is told to programs of a snapshot.
pub fn snapshot(snapshot: &Snapshot, tags: &[String]) -> Map<String, Value> {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("id", json!(snapshot.id.to_string()));
    put("time", json!(snapshot.time.to_string()));
    put("added", json!(snapshot.counts.map(|counts| counts.added)));
    put("changed", json!(snapshot.counts.map(|counts| counts.changed)));
    put("deleted", json!(snapshot.counts.map(|counts| counts.deleted)));
    put("bytes", json!(snapshot.bytes));
    put("instance", json!(snapshot.instance));
    put("batch", json!(snapshot.batch));
    put("roots", json!(snapshot.watched.iter().map(|root| root.as_str()).collect::<Vec<_>>()));
    put("tags", json!(tags));
    document
}

/// A time in a time zone, to the second.
pub fn time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A file's time as a timestamp; `None` beyond the year 9999, which file systems can say and nobody means.
pub fn timestamp(mtime: Mtime) -> Option<Timestamp> {
    let nanoseconds = i128::from(mtime.seconds) * 1_000_000_000 + i128::from(mtime.nanoseconds);
    Timestamp::from_nanosecond(nanoseconds).ok()
}

/// A size for people.
pub fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_act_on_a_terminal_and_cannot_be_mistaken_for_each_other() {
        for plain in ["a", "über b.txt", "日本", "it's", "100%", "-rf", "a  b"] {
            assert_eq!(name(plain.as_bytes()), plain);
        }
        let quoted: [(&[u8], &str); 9] = [
            (b"new\nline", r#""new\nline""#),
            (b"\x1b[31mred", r#""\x1b[31mred""#),
            (b"not-\xff-utf8", r#""not-\xff-utf8""#),
            (b"back\\slash", r#""back\\slash""#),
            (b"quo\"te", r#""quo\"te""#),
            (b"trailing ", r#""trailing ""#),
            ("\u{202e}gpj.exe".as_bytes(), r#""\xe2\x80\xaegpj.exe""#),
            ("\u{9b}31m".as_bytes(), r#""\xc2\x9b31m""#),
            (b"", r#""""#),
        ];
        for (bytes, shown) in quoted {
            assert_eq!(name(bytes), shown);
        }
        assert_ne!(name(b"\n"), name(b"\\n"));
        assert_ne!(name(b"a"), name(b"\"a\""));
    }

    #[test]
    fn a_path_for_a_program_is_exact() {
        let root = RootName::new("docs").unwrap();
        let put = |bytes: &[u8]| {
            let mut document = Map::new();
            put_path(&mut document, "path", &root, &RelPath::new(bytes).unwrap());
            Value::Object(document)
        };
        assert_eq!(put(b"a\nb"), json!({"path": "docs/a\nb"}));
        assert_eq!(put(b""), json!({"path": "docs"}));
        assert_eq!(put(b"\xff"), json!({"path": "docs/\u{fffd}", "path_b64": "ZG9jcy//"}));
    }
}
