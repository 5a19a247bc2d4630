//! Lines as the format has them, and the example in docs/format.md.

use proptest::prelude::*;

use super::*;
use crate::metadata::tests::{file, record};

#[test]
fn a_record_line_reads_as_the_format_says() {
    let mut full = file("a \"name\"\n", 7);
    full.group = Some("users".to_owned());
    full.hard_link = Some("fd00:1234".to_owned());
    full.xattrs.insert(b"user.note".to_vec(), b"\0\xff".to_vec());
    full.xattrs.insert(b"user.\xff".to_vec(), b"x".to_vec());
    let (line, omitted) = full.to_line().unwrap();
    assert!(!omitted);
    let expected = r#"{"name":"a \"name\"\n","kind":"file","mode":"0644","uid":1000,"gid":100,"user":"anna","group":"users","mtime":"1764000000.123456789","size":7,"blake3":"HASH","xattrs":{"user.note":"AP8="},"xattrs_b64":{"dXNlci7/":"eA=="},"hard_link":"fd00:1234"}"#;
    let hash = blake3::Hash::from_bytes(full.blake3.unwrap()).to_hex().to_string();
    assert_eq!(String::from_utf8(line.clone()).unwrap(), expected.replace("HASH", &hash));
    assert_eq!(Record::from_line(&line).unwrap(), full);

    let device = Record { device: Some((8, 1)), ..record(b"\xff", EntryKind::BlockDevice, 0) };
    let (line, _) = device.to_line().unwrap();
    let expected = r#"{"name_b64":"/w==","kind":"block","mode":"0644","uid":1000,"gid":100,"user":"anna","mtime":"1764000000.123456789","device":[8,1]}"#;
    assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
    assert_eq!(Record::from_line(&line).unwrap(), device);

    let mount = Record { is_mount: true, ..record(b".", EntryKind::Directory, 0) };
    let (line, _) = mount.to_line().unwrap();
    let expected = r#"{"name":".","kind":"dir","mode":"0644","uid":1000,"gid":100,"user":"anna","mtime":"1764000000.123456789","mount":true}"#;
    assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
    assert_eq!(Record::from_line(&line).unwrap(), mount);
}

#[test]
fn unknown_fields_are_passed_over_and_everything_else_is_refused() {
    let line = |fields: &str| {
        format!(r#"{{"kind":"file","mode":"0644","uid":1,"gid":1,"mtime":"0.000000000"{fields}}}"#)
    };
    let read = |fields: &str| -> Result<Record, Problem> { Record::from_line(line(fields).as_bytes()) };
    assert_eq!(read(r#","name":"a","birth":"1.5","more":{"x":[1]}"#).unwrap().name, b"a");
    for fields in [
        "",
        r#","name":"a","name_b64":"/w==""#,
        r#","name_b64":"YQ==""#,
        r#","name_b64":"?""#,
        r#","name":"""#,
        r#","name":"..""#,
        r#","name":".""#,
        r#","name":"a/b""#,
        r#","name":"a\u0000b""#,
        r#","name":"a","name":"b""#,
        r#","name":"a","blake3":"00""#,
        r#","name":"a","device":[1,2]"#,
        r#","name":"a","size":-1"#,
        r#","name":"a","mount":true"#,
        r#","name":"a","xattrs":{"":"eA=="}"#,
        r#","name":"a","xattrs":{"user.x":"not base64!"}"#,
        r#","name":"a","xattrs_omitted":true,"xattrs":{"user.x":"eA=="}"#,
    ] {
        assert!(read(fields).is_err(), "{fields}");
    }
    for (field, values) in [
        ("mode", &["644", "00644", "0999", "10000", "", "+644"][..]),
        (
            "mtime",
            &[
                "1",
                "1.5",
                "01.000000000",
                "-0.000000000",
                "1.0000000000",
                ".000000000",
                "1e3.000000000",
                "+1.000000000",
            ],
        ),
        ("kind", &["door", "dir", "FILE"]),
    ] {
        for value in values {
            let good = Record::from_line(line(r#","name":"a""#).as_bytes()).unwrap().to_line().unwrap().0;
            let mut json: serde_json::Value = serde_json::from_slice(&good).unwrap();
            json[field] = (*value).into();
            assert!(Record::from_line(json.to_string().as_bytes()).is_err(), "{field} {value}");
        }
    }
}

proptest! {
    #[test]
    fn any_record_comes_back(
        name in prop::collection::vec(any::<u8>().prop_filter("no separator", |b| !matches!(b, b'/' | 0)), 1..60),
        seconds in any::<i64>(), nanoseconds in 0..1_000_000_000_u32, mode in 0..0o10_000_u32,
        size in any::<Option<u64>>(), user in any::<Option<String>>(), hard_link in any::<Option<String>>(),
        xattrs in prop::collection::btree_map(prop::collection::vec(1..255_u8, 1..9), any::<Vec<u8>>(), 0..4),
    ) {
        prop_assume!(name != b"." && name != b"..");
        let mtime = Mtime { seconds, nanoseconds };
        let record = Record { mode, mtime, size, user, hard_link, xattrs, ..record(&name, EntryKind::File, 1) };
        let (line, _) = record.to_line().unwrap();
        prop_assert_eq!(name_in_line(&line).unwrap(), name);
        prop_assert_eq!(Record::from_line(&line).unwrap(), record);
    }
}

#[test]
fn times_before_1970_and_far_ahead_are_decimal_seconds() {
    for (seconds, nanoseconds, text) in [
        (0, 0, "0.000000000"),
        (-1, 500_000_000, "-0.500000000"),
        (-2, 0, "-2.000000000"),
        (4_300_000_000, 1, "4300000000.000000001"),
        (i64::MIN, 0, "-9223372036854775808.000000000"),
        (i64::MAX, 999_999_999, "9223372036854775807.999999999"),
    ] {
        let record = Record { mtime: Mtime { seconds, nanoseconds }, ..file("a", 1) };
        let line = record.to_line().unwrap().0;
        assert!(String::from_utf8_lossy(&line).contains(&format!(r#""mtime":"{text}""#)), "{text}");
        assert_eq!(Record::from_line(&line).unwrap(), record);
    }
}

#[test]
fn the_example_in_the_format_document_is_what_is_written() {
    let document = include_str!("../../../../docs/format.md");
    let (_, example) = document.split_once("```jsonl\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let mut lines = example.lines();
    assert_eq!(lines.next(), Some(r#"{"backupbot":1}"#));
    let mut last = Vec::new();
    for line in lines {
        let record = Record::from_line(line.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.to_line().unwrap().0).unwrap(), line);
        assert!(last < record.name);
        last = record.name;
    }
    assert!(!last.is_empty());
}
