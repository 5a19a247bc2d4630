//! Looking into history: what `snapshots`, `ls`, `cat` and `diff` say of real backups and of hostile repositories.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::Random;
use crate::support::daemon::Setup;
use crate::support::git::{git, try_git};
use crate::support::tree::write;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that must succeed; what it says.
fn say(setup: &Setup, arguments: &[&str]) -> String {
    let output = setup.run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", complaint(&output));
    text(&output)
}

/// The same with `--json`: a document a line.
fn documents(setup: &Setup, arguments: &[&str]) -> Vec<Value> {
    let said = say(setup, &[arguments, &["--json"]].concat());
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command that must end with this code; what it complains of.
fn refused(setup: &Setup, code: i32, arguments: &[&str]) -> String {
    let output = setup.run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", text(&output), complaint(&output));
    let complaint = complaint(&output);
    assert!(!complaint.contains("panicked"), "{complaint}");
    complaint
}

fn once(setup: &Setup) {
    let output = setup.run(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
}

#[test]
fn a_path_is_followed_through_time() {
    let setup = Setup::new();
    let root = setup.root();
    write(&root, "notes/.git/plan", "first");
    write(&root, "other", "x");
    once(&setup);
    git(&setup.local().path, &["tag", "before-the-change"]);
    write(&root, "other", "y");
    once(&setup);
    write(&root, "notes/.git/plan", "second!");
    once(&setup);
    fs::remove_file(root.join("notes/.git/plan")).unwrap();
    once(&setup);
    git(&setup.local().path, &["tag", "-a", "-m", "annotated", "after"]);

    let all = documents(&setup, &["snapshots"]);
    let history: Vec<String> = setup.local().history("main").into_iter().map(|commit| commit.id).collect();
    let ids: Vec<&str> = all.iter().map(|snapshot| snapshot["id"].as_str().unwrap()).collect();
    assert_eq!(ids, history);
    assert_eq!(all[3]["tags"], json!(["before-the-change"]));
    assert_eq!(all[0]["tags"], json!(["after"]));
    assert_eq!((&all[3]["added"], &all[3]["bytes"]), (&json!(2), &json!(6)));
    assert_eq!(all[0]["deleted"], 1);
    assert_eq!(all[1]["instance"], "testbox");
    assert!(all.iter().all(|snapshot| snapshot["remotes"] == json!(["usb"])), "{all:#?}");
    let page = say(&setup, &["snapshots"]);
    assert!(page.lines().next().unwrap().starts_with("SNAPSHOT"), "{page}");
    assert_eq!(page.lines().count(), 5);
    assert!(page.lines().nth(4).unwrap().contains("before-the-change"), "{page}");
    assert_eq!(documents(&setup, &["snapshots", "--limit", "2"]).len(), 2);
    let from_earlier = documents(&setup, &["snapshots", "--at", "latest~2"]);
    assert_eq!(from_earlier.len(), 2);
    assert_eq!(from_earlier[0]["remotes"], json!(["usb"]), "which is ahead of it");

    let versions = documents(&setup, &["snapshots", "--path", "folder1/notes/.git/plan"]);
    let changes: Vec<(&str, &Value)> =
        versions.iter().map(|version| (version["change"].as_str().unwrap(), &version["size"])).collect();
    assert_eq!(changes, [("deleted", &Value::Null), ("changed", &json!(7)), ("added", &json!(5))]);
    assert_eq!(versions[2]["id"], history[3]);
    assert!(refused(&setup, 1, &["snapshots", "--path", "folder1/never"]).contains("folder1/never"));

    // The same file by all the names that a moment has.
    let first = history[3].as_str();
    for at in [first, &first[..8], "before-the-change", "refs/tags/before-the-change", "latest~3"] {
        assert_eq!(say(&setup, &["cat", "folder1/notes/.git/plan", "--at", at]), "first", "{at}");
    }
    let absolute = root.join("notes/.git/plan");
    assert_eq!(say(&setup, &["cat", absolute.to_str().unwrap(), "--at", "latest~1"]), "second!");
    for at in ["latest", "now", "0 seconds ago", "2099-01-01", "2099-01-01T00:00:00Z", "after"] {
        let why = refused(&setup, 1, &["cat", "folder1/notes/.git/plan", "--at", at]);
        assert!(why.contains(&format!("there until {}", &history[1][..12])), "{at}: {why}");
    }
    for at in ["yesterday", "2020-01-01", "1 year ago"] {
        assert!(refused(&setup, 1, &["ls", "--at", at]).contains(&first[..12]), "the oldest is named");
    }
    for at in ["no-such-tag", "12 parsecs ago", "fff"] {
        assert!(refused(&setup, 2, &["ls", "--at", at]).contains("2 hours ago"), "what can be said is named");
    }
    assert!(refused(&setup, 1, &["ls", "--at", "latest~4"]).contains("latest~3"));
    git(&setup.local().path, &["tag", &first[..6], "main"]);
    let why = refused(&setup, 2, &["ls", "--at", &first[..6]]);
    assert!(why.contains(first) && why.contains("refs/tags/"), "{why}");

    assert_eq!(say(&setup, &["diff", "latest~3", "latest~2"]), "M folder1/other\n");
    let told = say(&setup, &["diff", "before-the-change"]);
    assert!(told.contains("D folder1/notes/.git/plan\n") && told.contains("M folder1/other\n"), "{told}");
    assert_eq!(say(&setup, &["diff", "latest~3", "--path", "folder1/other"]), "M folder1/other\n");
    let stat = say(&setup, &["diff", "latest~3", "latest~2", "--stat"]);
    assert_eq!(stat, "0 added, 1 changed, 0 deleted, 0 renamed, 0 metadata\n");
    assert_eq!(documents(&setup, &["diff", "latest~3", "latest~2", "--stat"])[0]["changed"], 1);
    assert_eq!(say(&setup, &["diff", "latest", "latest"]), "");
}

#[test]
fn local_time_is_the_time_zone_of_whoever_asks() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    once(&setup);
    let config = setup.write_config();
    let at_zone = |zone: &str| {
        let mut command = setup.command(&["snapshots".as_ref(), "--config".as_ref(), config.as_os_str()]);
        text(&command.env("TZ", zone).output().unwrap())
    };
    let hours = |zone: &str| at_zone(zone).lines().nth(1).unwrap()[25..27].parse::<i32>().unwrap();
    assert_eq!((hours("UTC0") + 24 + 5) % 24, hours("XXX-5"), "{}{}", at_zone("UTC0"), at_zone("XXX-5"));
}

#[test]
fn names_are_those_on_disk_and_never_act_on_the_terminal() {
    let setup = Setup::new();
    let root = setup.root();
    let names: Vec<&[u8]> = vec![
        b".git",
        b".gitmodules",
        b"_bb_notes",
        b"100%\\.git",
        b"new\nline",
        b"escape\x1b[31m",
        b"not-utf8-\xff\xfe",
        b"\xe2\x80\xaertl",
        b"trailing ",
        b"-rf",
        b"quo\"te's",
        b"plain",
    ];
    for name in &names {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o2750)).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    once(&setup);

    let listed = documents(&setup, &["ls", "folder1"]);
    let mut found: Vec<Vec<u8>> = Vec::new();
    for node in &listed {
        let path = match node["path_b64"].as_str() {
            Some(encoded) => decode_base64(encoded),
            None => node["path"].as_str().unwrap().as_bytes().to_vec(),
        };
        found.push(path.strip_prefix(b"folder1/").unwrap().to_vec());
    }
    let mut expected: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    expected.extend([b"empty".to_vec(), b"link".to_vec()]);
    expected.sort();
    assert_eq!(found, expected);
    let node = |path: &str| listed.iter().find(|node| node["path"] == path).unwrap();
    assert_eq!(node("folder1/empty")["mode"], "2750");
    assert_eq!(node("folder1/empty")["kind"], "dir");
    assert_eq!(node("folder1/link")["target"], "/etc/passwd");
    assert_eq!(node("folder1/plain")["size"], 5);
    assert_eq!(node("folder1/plain")["blake3"], blake3::hash(b"plain").to_hex().to_string());
    assert_eq!(documents(&setup, &["ls", "-R", "folder1"]).len(), listed.len());

    for arguments in [&["ls", "folder1"][..], &["ls", "-R"], &["snapshots"]] {
        let page = setup.run(arguments).stdout;
        let is_safe = |byte: &u8| *byte == b'\n' || (*byte >= b' ' && *byte != 0x7f);
        assert!(page.iter().all(is_safe), "{}", String::from_utf8_lossy(&page));
        assert!(String::from_utf8(page).is_ok_and(|page| !page.contains('\u{202e}')));
    }
    let page = say(&setup, &["ls", "folder1"]);
    assert!(page.contains("drwxr-s---") && page.contains("lrwxrwxrwx"), "{page}");
    assert!(page.contains("\"new\\nline\"") && page.contains(" .git\n"), "{page}");
    assert!(page.contains("link -> /etc/passwd"), "{page}");

    let config = setup.write_config();
    for name in &names {
        let path = [b"folder1/".as_slice(), name].concat();
        let arguments =
            [OsStr::new("cat"), OsStr::from_bytes(&path), OsStr::new("--config"), config.as_os_str()];
        let output = setup.command(&arguments).output().unwrap();
        assert_eq!(output.stdout, *name, "{}", complaint(&output));
    }
    let from_within = setup
        .command(&["cat".as_ref(), "plain".as_ref(), "--config".as_ref(), config.as_os_str()])
        .current_dir(&root)
        .output()
        .unwrap();
    assert_eq!(text(&from_within), "plain", "a path means what it means to a shell");
    assert!(refused(&setup, 1, &["cat", "folder1/link"]).contains("/etc/passwd"));
    assert_eq!(say(&setup, &["cat", "folder1/link", "--raw"]), "/etc/passwd");
    assert!(refused(&setup, 1, &["cat", "folder1/empty"]).contains("is a directory"));
    assert!(refused(&setup, 1, &["ls", "folder1/../../etc"]).contains("in no root"));
    assert!(refused(&setup, 1, &["ls", "/etc"]).contains("folder1"));
}

fn decode_base64(text: &str) -> Vec<u8> {
    let mut child =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn every_kind_of_difference_has_its_letter() {
    let setup = Setup::new();
    let root = setup.root();
    for name in ["changed", "moved", "gone", "modes", "same"] {
        write(&root, name, name);
    }
    once(&setup);
    write(&root, "changed", "otherwise");
    write(&root, "new", "new");
    fs::create_dir(root.join("in")).unwrap();
    fs::rename(root.join("moved"), root.join("in/mo\nved")).unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    fs::set_permissions(root.join("modes"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    once(&setup);
    assert_eq!(
        say(&setup, &["diff", "latest~1", "latest"]),
        "M folder1/changed\n\
         A folder1/empty/\n\
         D folder1/gone\n\
         R folder1/moved -> \"folder1/in/mo\\nved\"\n\
         m folder1/modes (mode)\n\
         A folder1/new\n"
    );
    let told = documents(&setup, &["diff", "latest~1"]);
    let renamed = told.iter().find(|change| change["change"] == "renamed").unwrap();
    assert_eq!(renamed["old_path"], "folder1/moved");
    assert_eq!(renamed["path"], "folder1/in/mo\nved");
    assert_eq!(renamed["old"]["object"], renamed["new"]["object"]);
    let modes = told.iter().find(|change| change["change"] == "metadata").unwrap();
    assert_eq!(modes["metadata"], json!(["mode"]));
}

#[test]
fn a_remote_holds_what_was_read_back_there_and_everything_behind_it() {
    let mut setup = Setup::new();
    let second = setup.path("second.git");
    let url = second.to_str().unwrap().to_owned();
    setup.repository()["remotes"].as_array_mut().unwrap().push(json!({"name": "nas", "url": url}));
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    // Away from now on.
    fs::rename(&second, setup.path("away.git")).unwrap();
    fs::write(&second, "no repository").unwrap();
    write(&setup.root(), "file", "3");
    daemon.status_when("the third commit is at one remote only", |status| {
        let remotes = status["repositories"][0]["remotes"].as_array().unwrap();
        let commit =
            |name: &str| remotes.iter().find(|remote| remote["name"] == name).unwrap()["commit"].clone();
        let tip = status["repositories"][0]["commit"].clone();
        commit("usb") == tip && commit("nas") != tip && setup.local().history("main").len() == 3
    });
    let expected = [json!(["usb"]), json!(["nas", "usb"]), json!(["nas", "usb"])];
    let remotes = |setup: &Setup| -> Vec<Value> {
        documents(setup, &["snapshots"]).iter().map(|snapshot| snapshot["remotes"].clone()).collect()
    };
    assert_eq!(remotes(&setup), expected, "as the daemon says");
    daemon.stop_or_fail();
    assert_eq!(remotes(&setup), expected, "as the store says");
    let page = say(&setup, &["snapshots"]);
    assert!(page.lines().nth(2).unwrap().contains("nas, usb"), "{page}");

    // Without the store nobody knows, and the snapshots are shown all the same.
    fs::remove_file(setup.state().join("state.redb")).unwrap();
    let output = setup.run(&["snapshots", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert!(complaint(&output).contains("not known"), "{}", complaint(&output));
    assert!(text(&output).lines().all(|line| line.contains("\"remotes\":null")), "{}", text(&output));
}

#[test]
fn several_repositories_are_told_apart_by_name_or_by_the_path() {
    let mut setup = Setup::new();
    fs::create_dir(setup.path("folder2")).unwrap();
    let (path, url) = (setup.path("folder2"), setup.path("remote/two.git"));
    let two = json!({"name": "two", "roots": [{"path": path}], "remotes": [{"name": "usb", "url": url}]});
    setup.config["repositories"].as_array_mut().unwrap().push(two);
    write(&setup.root(), "file", "1");
    write(&path, "file", "2");
    once(&setup);
    let why = refused(&setup, 2, &["snapshots"]);
    assert!(why.contains("documents, two"), "{why}");
    assert_eq!(say(&setup, &["cat", "folder2/file"]), "2");
    assert_eq!(say(&setup, &["cat", setup.root().join("file").to_str().unwrap()]), "1");
    assert_eq!(documents(&setup, &["snapshots", "--repository", "two"]).len(), 1);
    assert_eq!(documents(&setup, &["snapshots", "--path", "folder1/file"]).len(), 1);
    assert!(refused(&setup, 1, &["ls", "--repository", "three"]).contains("three"));
    // A root that is watched no more is still there.
    setup.config["repositories"].as_array_mut().unwrap().truncate(1);
    fs::create_dir(setup.path("folder3")).unwrap();
    setup.repository()["roots"] = json!([{"path": setup.path("folder3")}]);
    assert_eq!(say(&setup, &["cat", "folder1/file"]), "1");
}

#[test]
fn nothing_to_look_into_is_told_with_what_to_do() {
    let setup = Setup::new();
    for command in [&["snapshots"][..], &["ls"], &["diff", "latest"], &["cat", "folder1/x"]] {
        let why = refused(&setup, 1, command);
        assert!(why.contains("backupbot run"), "{why}");
    }
    for command in [&["cat"][..], &["diff"]] {
        assert_eq!(setup.run(command).status.code(), Some(2), "{command:?}");
    }
}

#[test]
fn a_large_file_is_written_without_being_held_and_damage_is_told() {
    let setup = Setup::new();
    let path = setup.root().join("film");
    // More than is allowed, in which each megabyte is another, quickly made and compressed.
    let mut file = fs::File::create(&path).unwrap();
    for number in 0..120_u32 {
        let mut piece = vec![0; 1 << 20];
        if number == 60 {
            // The middle of the pack is in it: a bit of what says "the same again" may be flipped without any harm.
            let mut random = Random::new(60);
            piece = (0..1 << 17).flat_map(|_| random.next().to_le_bytes()).collect();
        }
        piece[..4].copy_from_slice(&number.to_le_bytes());
        file.write_all(&piece).unwrap();
    }
    drop(file);
    once(&setup);
    let config = setup.write_config();
    let mut command =
        setup.command(&["cat".as_ref(), "folder1/film".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut hash = blake3::Hasher::new();
    let mut stdout = child.stdout.take().unwrap();
    let mut piece = vec![0; 1 << 20];
    let mut peak = 0;
    loop {
        let count = stdout.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("0");
        let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(hash.finalize(), blake3::hash(&fs::read(&path).unwrap()));
    assert!(peak > 0 && peak < 80_000, "{peak} kB");

    // A reader that goes away is no failure.
    let mut command =
        setup.command(&["cat".as_ref(), "folder1/film".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut piece).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), complaint(&output)), (Some(0), String::new()));

    let packs = setup.local().path.join("objects/pack");
    for entry in fs::read_dir(packs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() == Some(OsStr::new("pack")) {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
    let why = refused(&setup, 1, &["cat", "folder1/film"]);
    assert!(why.contains("not the file"), "{why}");
}

#[test]
fn what_stands_for_a_file_is_never_given_for_it() {
    let setup = Setup::new();
    let root = setup.root();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    let cipher = "\0GITCRYPT\0nonsense";
    write(&root, "looks-like-a-pointer", pointer);
    write(&root, "looks-like-ciphertext", cipher);
    write(&root, "large.iso", "large");
    write(&root, "secret", "secret");
    once(&setup);
    // A user's own files are themselves.
    assert_eq!(say(&setup, &["cat", "folder1/looks-like-a-pointer"]), pointer);
    assert_eq!(say(&setup, &["cat", "folder1/looks-like-ciphertext"]), cipher);

    commit_over(&setup, &[("folder1/large.iso", pointer), ("folder1/secret", cipher)]);
    assert!(refused(&setup, 1, &["cat", "folder1/large.iso"]).contains("the large object 4d7a2146"));
    assert!(refused(&setup, 1, &["cat", "folder1/secret"]).contains("git-crypt"));
    assert_eq!(say(&setup, &["cat", "folder1/large.iso", "--raw"]), pointer);
    assert_eq!(say(&setup, &["cat", "folder1/secret", "--raw"]), cipher);

    // Changed by another program: Git's content counts, and the difference is told.
    commit_over(&setup, &[("folder1/large.iso", "edited by hand")]);
    let output = setup.run(&["cat", "folder1/large.iso"]);
    assert_eq!((text(&output).as_str(), output.status.code()), ("edited by hand", Some(0)));
    assert!(complaint(&output).contains("another program"), "{}", complaint(&output));
    let snapshot = &documents(&setup, &["snapshots"])[0];
    assert_eq!((&snapshot["added"], &snapshot["instance"]), (&Value::Null, &Value::Null));
}

/// A commit by plain Git that changes these files in the local repository.
fn commit_over(setup: &Setup, files: &[(&str, &str)]) {
    let bare = setup.local().path;
    let index = setup.path("an-index");
    let run = |arguments: &[&str], input: &str| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(&bare).env("GIT_INDEX_FILE", &index);
        for name in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{name}_NAME"), "Somebody").env(format!("GIT_{name}_EMAIL"), "some@body");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        text(&output).trim().to_owned()
    };
    run(&["read-tree", "main"], "");
    for (path, content) in files {
        let blob = run(&["hash-object", "-w", "--stdin"], content);
        run(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{path}")], "");
    }
    let tree = run(&["write-tree"], "");
    let commit = run(&["commit-tree", "-p", "main", "-m", "by hand", &tree], "");
    run(&["update-ref", "refs/heads/main", &commit], "");
    fs::remove_file(index).unwrap();
}

/// Writes an object of any form, as only somebody with bad intentions would.
fn forge(bare: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["hash-object", "-t", kind, "-w", "--stdin", "--literally"])
        .current_dir(bare)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output).trim().to_owned()
}

fn tree_of(bare: &Path, entries: &[(&str, &[u8], &str)]) -> String {
    let mut data = Vec::new();
    for (mode, name, id) in entries {
        data.extend_from_slice(mode.as_bytes());
        data.push(b' ');
        data.extend_from_slice(name);
        data.push(0);
        let digits = (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap());
        data.extend(digits);
    }
    forge(bare, "tree", &data)
}

#[test]
fn a_hostile_repository_is_read_as_far_as_it_makes_sense() {
    let setup = Setup::new();
    write(&setup.root(), "good/file", "good");
    once(&setup);
    let bare = setup.local().path;
    let blob = forge(&bare, "blob", b"content");
    let file = |name: &'static [u8]| ("100644", name, blob.as_str());
    let nowhere = "12".repeat(20);
    let twice = tree_of(&bare, &[file(b"same"), file(b"same")]);
    let upwards = tree_of(&bare, &[file(b"..")]);
    let dot_git = tree_of(&bare, &[file(b".git"), file(b"_bb_plain"), file(b"fine")]);
    let links = tree_of(&bare, &[file(b"fine"), ("160000", b"module", &nowhere)]);
    let missing = tree_of(&bare, &[("100644", b"gone", &nowhere)]);
    let records = r#"{"backupbot":1}
{"name":"..","kind":"fifo","mode":"0600","uid":1,"gid":1,"mtime":"0.000000000"}
"#;
    let garbage = forge(&bare, "blob", records.as_bytes());
    let shard_of_root = tree_of(&bare, &[("100644", b"_bb_meta", &garbage)]);
    let meta_of_roots = tree_of(&bare, &[("40000", b"folder1", &shard_of_root)]);
    let meta = tree_of(&bare, &[("40000", b"meta", &meta_of_roots)]);
    let root = tree_of(
        &bare,
        &[
            ("40000", b"dot-git", &dot_git),
            ("40000", b"links", &links),
            ("40000", b"missing", &missing),
            file(b"plain"),
            ("40000", b"twice", &twice),
            ("40000", b"upwards", &upwards),
        ],
    );
    let top =
        tree_of(&bare, &[("40000", b".backupbot", &meta), file(b"at-the-top"), ("40000", b"folder1", &root)]);
    let who = "a <a@b> 99999999999999999 +0000";
    let parent = setup.local().tip("main").unwrap();
    let message = "backup x: 18446744073709551616 added, -1 changed, 0 deleted\n\nBackupBot-Instance: \x1b[31m\nBackupBot-Roots: ..,/,folder1\nBackupBot-Bytes: many\n";
    let commit = format!("tree {top}\nparent {parent}\nauthor {who}\ncommitter {who}\n\n{message}");
    let commit = forge(&bare, "commit", commit.as_bytes());
    let updated = try_git(&bare, &["update-ref", "refs/heads/main", &commit]);
    assert!(updated.status.success(), "{}", complaint(&updated));

    let all = documents(&setup, &["snapshots"]);
    assert_eq!((all.len(), &all[0]["added"], &all[0]["bytes"]), (2, &Value::Null, &Value::Null));
    assert!(!say(&setup, &["snapshots"]).contains('\x1b'));
    assert_eq!(documents(&setup, &["snapshots", "--path", "folder1/good/file"]).len(), 2);

    let output = setup.run(&["ls", "-R", "--json"]);
    assert_eq!(output.status.code(), Some(3), "what could not be read is told: {}", complaint(&output));
    let told: Vec<Value> = text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |path: &str| -> Vec<&Value> { told.iter().filter(|node| node["path"] == path).collect() };
    assert_eq!(of("folder1/plain")[0]["size"], 7);
    assert!(
        of("folder1")
            .iter()
            .any(|node| node["problem"].as_str().is_some_and(|it| it.contains("impossible name")))
    );
    assert_eq!(of("folder1/links/fine")[0]["kind"], "file");
    assert!(of("folder1/links/module")[0]["problem"].as_str().unwrap().contains("another repository"));
    assert!(of("folder1/dot-git/.git")[0]["problem"].is_string());
    assert_eq!(of("folder1/dot-git/fine")[0]["kind"], "file");
    for damaged in ["folder1/twice", "folder1/upwards"] {
        assert!(of(damaged).iter().all(|node| node["problem"].is_string()), "{damaged}: {:?}", of(damaged));
    }
    assert!(told.iter().all(|node| !node["path"].as_str().unwrap().contains("..")), "{told:#?}");

    assert!(text(&setup.run(&["ls", "folder1"])).contains("plain"));
    assert_eq!(say(&setup, &["cat", "folder1/plain"]), "content");
    for (code, arguments) in [
        (1, &["ls", "folder1/twice"][..]),
        (1, &["ls", "folder1/upwards"]),
        (1, &["cat", "folder1/missing/gone"]),
        (1, &["cat", "folder1/links/module"]),
        (1, &["cat", "folder1/upwards/.."]),
        (1, &["diff", "latest~1"]),
    ] {
        refused(&setup, code, arguments);
    }
    let told = say(&setup, &["diff", "latest~1", "--path", "folder1/good"]);
    assert_eq!(told, "D folder1/good/file\n");
}
