//! Metadata that this program did not write: of a later version, damaged, or hostile.

use super::*;

#[test]
fn a_line_that_a_later_version_wrote_survives_a_change_beside_it() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let later =
        r#"{"name":"b","kind":"file","mode":"0600","uid":1,"gid":1,"mtime":"0.000000000","birth":"9"}"#;
    let shard = format!("{{\"backupbot\":1,\"by\":\"later\"}}\n{later}\n");
    let blob = TreeSink::write(&objects, ObjectType::Blob, shard.as_bytes()).unwrap();
    let mut edits = Edits::new();
    edits.set(".backupbot/meta/folder/_bb_meta", tree::Entry { mode: tree::MODE_FILE, oid: blob });
    let base = tree::apply(&objects, &objects, None, &edits).unwrap();
    let mut changes = Changes::new();
    changes.put(&RelPath::root(), file("a", 1));
    let mut edits = Edits::new();
    apply(&objects, &objects, base, &root(), &changes, None, &mut edits).unwrap();
    let result = tree::apply(&objects, &objects, base, &edits).unwrap().unwrap();
    let entry = lookup(&objects, result, b".backupbot/meta/folder/_bb_meta").unwrap().unwrap();
    let data = read_blob(&objects, entry.oid, b"", 1 << 20).unwrap();
    assert!(String::from_utf8(data).unwrap().ends_with(&format!("\n{later}\n")));
}

#[test]
fn hostile_metadata_is_an_error_and_nothing_else() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let good = r#"{"name":"b","kind":"file","mode":"0600","uid":1,"gid":1,"mtime":"0.000000000"}"#;
    let blob = |text: &str| TreeSink::write(&objects, ObjectType::Blob, text.as_bytes()).unwrap();
    let shards = [
        String::new(),
        "\n".to_owned(),
        "{\"backupbot\":1}".to_owned(),
        "{\"backupbot\":2}\n".to_owned(),
        "{\"version\":1}\n".to_owned(),
        format!("{{\"backupbot\":1}}\n{good}\n{good}\n"),
        format!("{{\"backupbot\":1}}\n\n{good}\n"),
        format!("{{\"backupbot\":1}}\n{}\n", good.replace('b', "a/b")),
        format!("{{\"backupbot\":1}}\n{}\n", "[".repeat(100_000)),
        format!("{{\"backupbot\":1}}\n{}\n", " ".repeat(17 << 20)),
    ];
    let mut places: Vec<(String, Oid)> =
        shards.iter().map(|shard| ("_bb_meta".to_owned(), blob(shard))).collect();
    let wrong_child = (child_at(&hash_of(b"b"), 0) + 1) & 0x3f;
    let digits = String::from_utf8(child_name(wrong_child).to_vec()).unwrap();
    places.push((format!("_bb_meta/{digits}"), blob(&format!("{{\"backupbot\":1}}\n{good}\n"))));
    places.push(("_bb_meta/40".to_owned(), blob("{\"backupbot\":1}\n")));
    places.push(("_bb_meta/0".to_owned(), blob("{\"backupbot\":1}\n")));
    places.push(("_bb_x/_bb_meta".to_owned(), blob("{\"backupbot\":1}\n")));
    places.push(("file".to_owned(), blob("{\"backupbot\":1}\n")));
    for (place, oid) in places {
        let mut edits = Edits::new();
        edits.set(format!(".backupbot/meta/folder/{place}"), tree::Entry { mode: tree::MODE_FILE, oid });
        let tree = tree::apply(&objects, &objects, None, &edits).unwrap().unwrap();
        let error = walk(&objects, tree, &root(), &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::Git, "{place}: {error}");
        assert!(read_directory(&objects, tree, &root(), &RelPath::root()).is_err(), "{place}");
    }
    let deep = vec!["00"; 50].join("/");
    let mut edits = Edits::new();
    let shard = blob("{\"backupbot\":1}\n");
    edits.set(
        format!(".backupbot/meta/folder/_bb_meta/{deep}"),
        tree::Entry { mode: tree::MODE_FILE, oid: shard },
    );
    let tree = tree::apply(&objects, &objects, None, &edits).unwrap().unwrap();
    assert!(walk(&objects, tree, &root(), &mut |_, _| Ok(())).is_err());
}

#[test]
fn a_repository_of_a_later_format_is_left_alone() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    for (text, is_known) in [("1\n", true), ("2\n", false), ("1", false), ("", false), ("one\n", false)] {
        let oid = TreeSink::write(&objects, ObjectType::Blob, text.as_bytes()).unwrap();
        let mut edits = Edits::new();
        edits.set(FORMAT_PATH, tree::Entry { mode: tree::MODE_FILE, oid });
        let base = tree::apply(&objects, &objects, None, &edits).unwrap();
        let mut changes = Changes::new();
        changes.put(&RelPath::root(), file("a", 1));
        let done = apply(&objects, &objects, base, &root(), &changes, None, &mut Edits::new());
        assert_eq!(done.is_ok(), is_known, "{text:?}");
    }
}

#[test]
fn damage_is_replaced_by_removing_what_it_is_in_and_recording_it_anew() {
    let judge = Judge::new();
    let objects = judge.objects_in_memory();
    let oid = TreeSink::write(&objects, ObjectType::Blob, b"no shard").unwrap();
    for (place, damaged) in
        [("", ""), ("/_bb_meta", ""), ("/d", "d"), ("/d/_bb_meta", "d"), ("/d/e/file", "d/e")]
    {
        let mut edits = Edits::new();
        edits.set(format!(".backupbot/meta/folder{place}"), tree::Entry { mode: tree::MODE_FILE, oid });
        let base = tree::apply(&objects, &objects, None, &edits).unwrap();
        let mut changes = Changes::new();
        changes.remove(&path(damaged));
        changes.put_directory(&path("d"), own(1));
        changes.put_directory(&path("d/e"), own(2));
        changes.put(&path("d/e"), file("f", 3));
        let mut edits = Edits::new();
        apply(&objects, &objects, base, &root(), &changes, None, &mut edits).unwrap();
        let tree = tree::apply(&objects, &objects, base, &edits).unwrap().unwrap();
        let mut found = 0;
        walk(&objects, tree, &root(), &mut |_, _| {
            found += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(found, 3, "{place}");
    }
}
