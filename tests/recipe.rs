//! `recipe`: the script that it prints, run as it is by somebody who has git and python3 and nothing of ours, brings back what
//! was there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::http;
use crate::restore::{Portrait, assert_same, backed_up, fill, portraits, said};
use crate::support::daemon::{Setup, is_root};
use crate::support::sshd::{Sshd, make_key};
use crate::support::tree::{fingerprint, write};
use crate::support::web::{PASSWORD, Switches};
use crate::support::{Random, seed, skip};

const NOBODY: u32 = 65_534;

/// Whether a script can be run; says so where it cannot.
pub fn is_possible() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip("the recipe: python3 is missing");
    }
    found
}

/// The corpus of `restore`, and what is only hard without BackupBot.
pub fn filled(setup: &Setup) -> BTreeMap<Vec<u8>, Portrait> {
    let root = setup.root();
    // Names of which one is, escaped, what the other is called.
    for name in ["names/git~1", "names/_bb_git~1", "names/_bb__bb_git~1", "names/.git", "names/_bb_.git"] {
        write(&root, name, name);
    }
    write(&root, "deep/.gitattributes", "* text eol=crlf\n");
    write(&root, "deep/text", "one\ntwo\n");
    write(&root, OsStr::from_bytes(b"_bb_\xff/.git/\xfe"), "x");
    for number in 0..300 {
        write(&root, format!("many/file-{number}"), format!("{number}"));
    }
    fs::create_dir_all(root.join("names/.git~1")).unwrap();
    fs::create_dir_all(root.join("empty/_bb_/.git")).unwrap();
    if is_root() {
        write(&root, "of somebody", "x");
        std::os::unix::fs::lchown(root.join("of somebody"), Some(12_345), Some(54_321)).unwrap();
        fs::set_permissions(root.join("of somebody"), fs::Permissions::from_mode(0o6711)).unwrap();
    }
    fill(&root, &mut Random::new(seed("recipe")));
    portraits(&root)
}

/// The script as printed.
pub fn recipe(setup: &Setup, arguments: &[&str]) -> String {
    let mut all = vec!["recipe"];
    all.extend(arguments);
    let output = setup.run(&all);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A new directory of a new user.
pub fn stranger(setup: &Setup, name: &str) -> PathBuf {
    let place = setup.path(name);
    fs::create_dir_all(place.join("home")).unwrap();
    fs::create_dir(place.join("here")).unwrap();
    place
}

/// Runs a script there with nothing in the environment.
pub fn run_by(place: &Path, script: &str, environment: &[(&str, &str)], uid: Option<u32>) -> Output {
    let file = place.join("recipe.sh");
    fs::write(&file, script).unwrap();
    let mut command = Command::new("sh");
    command.arg(&file).current_dir(place.join("here")).stdin(Stdio::null());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", place.join("home"));
    command.envs(environment.iter().copied());
    if let Some(uid) = uid {
        for path in [place.to_owned(), place.join("home"), place.join("here"), file] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
        command.uid(uid).gid(uid);
    }
    command.output().unwrap()
}

#[track_caller]
pub fn bring_back(setup: &Setup, name: &str, script: &str, environment: &[(&str, &str)]) -> PathBuf {
    let place = stranger(setup, name);
    let output = run_by(&place, script, environment, None);
    assert_eq!(output.status.code(), Some(0), "{script}\n{}", said(&output));
    let back = place.join("here/documents");
    let names: Vec<_> = fs::read_dir(&back).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["folder1"], "nothing of ours is left there");
    back.join("folder1")
}

/// Switches a line of the script on.
pub fn switched_on(script: &str, beginning: &str) -> String {
    let line = script
        .lines()
        .find(|line| line.starts_with(&format!("#{beginning}")))
        .unwrap_or_else(|| panic!("{script}"));
    script.replacen(line, &line[1..], 1)
}

#[test]
fn the_script_brings_everything_back_as_it_was_from_a_path_of_any_name() {
    if !is_possible() {
        return;
    }
    let mut setup = Setup::new();
    let remote = setup.path("a \"disk\", it's $HOME's/documents.git");
    setup.repository()["remotes"] = json!([{"name": "usb", "url": remote.to_str().unwrap()}]);
    let expected = filled(&setup);
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    assert_same(&expected, &portraits(&bring_back(&setup, "first", &script, &[])));

    let first = crate::support::git::Judge::new(&remote).tip("main").unwrap();
    write(&setup.root(), "run", "changed");
    write(&setup.root(), "added/_bb_later", "x");
    backed_up(&setup);
    let back = bring_back(&setup, "second", &script, &[]);
    assert_same(&portraits(&setup.root()), &portraits(&back));

    let older = switched_on(&script, "state=COMMIT").replace("state=COMMIT", &format!("state={first}"));
    let one =
        switched_on(&older, "git --git-dir=documents.git cat-file").replace("folder1/PATH", "folder1/run");
    let listed = switched_on(&one, "git --git-dir=documents.git ls-tree");
    let listed =
        switched_on(&listed, "git --git-dir=documents.git log").replace("folder1/PATH", "folder1/run");
    assert_same(&expected, &portraits(&bring_back(&setup, "third", &listed, &[])));
    let file = setup.path("third/here/restored-file");
    assert_eq!(fs::read(file).unwrap(), b"#!/bin/sh\n");

    // The history that is there is used again; what stands there is not touched.
    let again = run_by(&setup.path("third"), &script, &[], None);
    assert_ne!(again.status.code(), Some(0), "{}", said(&again));
    assert_same(&expected, &portraits(&setup.path("third/here/documents/folder1")));
}

#[test]
fn somebody_else_gets_back_what_is_on_a_disk_that_is_not_theirs() {
    if !is_possible() {
        return;
    }
    if !is_root() {
        skip("a recipe run by another user: only root can become one");
        return;
    }
    let setup = Setup::new();
    let mut expected = filled(&setup);
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    let readable = ["chmod", "-R", "a+rX", "remote"];
    let status = Command::new(readable[0]).args(&readable[1..]).current_dir(setup.scratch.path()).status();
    assert!(status.unwrap().success());
    fs::set_permissions(setup.scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let place = stranger(&setup, "nobody");
    let output = run_by(&place, &script, &[], Some(NOBODY));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("belonged to others"), "{}", said(&output));
    for portrait in expected.values_mut() {
        portrait.owner = (NOBODY, NOBODY);
        if portrait.mode & 0o170_000 != 0o120_000 {
            portrait.mode &= !0o6000;
        }
    }
    assert_same(&expected, &portraits(&place.join("here/documents/folder1")));
}

#[test]
fn the_script_works_over_ssh_with_a_key_in_a_file_of_any_name() {
    if !is_possible() {
        return;
    }
    let mut setup = Setup::new();
    let sshd = Sshd::start(setup.scratch.path());
    let keys = setup.path("it's 100% \"my\" keys".replace('"', "").as_str());
    fs::create_dir(&keys).unwrap();
    let key = keys.join("id");
    make_key(&key, "ed25519", "");
    sshd.let_in(&key, "");
    let bare = setup.path("served by ssh.git");
    crate::support::git::git(setup.scratch.path(), &["init", "--quiet", "--bare", bare.to_str().unwrap()]);
    let url = sshd.url(&bare.to_str().unwrap().replace(' ', "%20"));
    let known_hosts = keys.join("known hosts");
    setup.repository()["remotes"] = json!([{"name": "nas", "url": url, "credentials":
        {"ssh_key_file": key.to_str().unwrap(), "known_hosts_file": known_hosts.to_str().unwrap()}}]);
    let expected = filled(&setup);
    let trusted = setup.run(&["remote", "trust", "nas", "--yes"]);
    assert!(trusted.status.success(), "{}", said(&trusted));
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    assert_same(&expected, &portraits(&bring_back(&setup, "ssh", &script, &[])));
}

#[test]
fn the_script_works_over_https_and_git_asks_for_the_password() {
    if !is_possible() {
        return;
    }
    let Some((setup, _web)) = http::served(&Switches::default()) else { return };
    let expected = filled(&setup);
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    assert!(!script.contains(PASSWORD), "{script}");
    assert!(
        script.contains(setup.path("password").to_str().unwrap()),
        "it says where the password is: {script}"
    );
    // A person at a terminal.
    let person = setup.path("person");
    let typed = format!("#!/bin/sh\ncase \"$1\" in Password*) echo '{PASSWORD}';; *) exit 1;; esac\n");
    fs::write(&person, typed).unwrap();
    fs::set_permissions(&person, fs::Permissions::from_mode(0o755)).unwrap();
    let back = bring_back(&setup, "https", &script, &[("GIT_ASKPASS", person.to_str().unwrap())]);
    assert_same(&expected, &portraits(&back));
}

#[test]
fn the_first_remote_that_is_there_is_used_and_one_can_be_named() {
    if !is_possible() {
        return;
    }
    let mut setup = Setup::new();
    let at = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    let remotes = json!([{"name": "usb", "url": at("usb.git")}, {"name": "nas", "url": at("nas.git")}]);
    let photos = setup.path("photos");
    fs::create_dir(&photos).unwrap();
    setup.repository()["remotes"] = remotes;
    setup.repository()["branch"] = json!("refs/backup/of {instance}".replace(' ', "-"));
    let second = json!({"name": "my photos", "branch": "{date:%Y}", "roots": [{"path": photos.to_str().unwrap()}],
                        "remotes": [{"name": "usb", "url": setup.path("photos.git").to_str().unwrap()}]});
    setup.config["repositories"].as_array_mut().unwrap().push(second);
    write(&setup.root(), "x", "of documents");
    write(&photos, "y", "of photos");
    backed_up(&setup);
    fs::rename(setup.path("usb.git"), setup.path("away.git")).unwrap();

    let place = stranger(&setup, "all");
    let output = run_by(&place, &recipe(&setup, &[]), &[], None);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(fs::read(place.join("here/documents/folder1/x")).unwrap(), b"of documents");
    assert_eq!(fs::read(place.join("here/my photos/photos/y")).unwrap(), b"of photos");

    let nas = recipe(&setup, &["--remote", "nas"]);
    assert!(nas.contains("nas.git") && !nas.contains("usb.git") && !nas.contains("photos"), "{nas}");
    // The variable of `run --remote` holds an address.
    let mut command = setup.command(&["recipe", "--config", setup.write_config().to_str().unwrap()]);
    let output = command.env("BACKUPBOT_REMOTE", "/mnt/other.git").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), recipe(&setup, &[]));
    let photos = recipe(&setup, &["--repository", "my photos"]);
    assert!(photos.contains("photos.git") && !photos.contains("nas.git"), "{photos}");
    for (wrong, word) in [(["--remote", "cloud"], "usb, nas"), (["--repository", "music"], "music")] {
        let output = setup.run(&["recipe", wrong[0], wrong[1]]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
}

#[test]
fn the_commands_are_a_list_too_and_without_a_remote_the_state_is_the_place() {
    if !is_possible() {
        return;
    }
    let mut setup = Setup::new();
    setup.repository()["remotes"] = json!([]);
    let expected = filled(&setup);
    backed_up(&setup);
    let list: Value = serde_json::from_str(&recipe(&setup, &["--json"])).unwrap();
    let commands: Vec<&str> = list["commands"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["optional"] == false)
        .map(|step| step["command"].as_str().unwrap())
        .collect();
    let back = bring_back(&setup, "list", &(commands.join("\n") + "\n"), &[]);
    assert_same(&expected, &portraits(&back));
}

#[test]
fn a_hostile_checkout_changes_nothing_outside_of_it() {
    if !is_possible() {
        return;
    }
    let setup = Setup::new();
    let victim = setup.path("victim");
    write(&victim, "directory/file", "x");
    let before = fingerprint(&victim);
    let place = setup.path("checkout");
    write(&place, ".backupbot/format", "1\n");
    write(&place, "folder1/file", "x");
    write(&place, "folder1/_bb_../file", "x");
    write(&place, "folder1/_bb_/file", "x");
    write(&place, "folder1/_bb_taken", "x");
    write(&place, "folder1/taken", "keep");
    symlink(victim.join("directory"), place.join("folder1/link")).unwrap();
    symlink(victim.join("directory"), place.join("folder2")).unwrap();
    let owner = r#""mode":"4777","uid":12345,"gid":12345,"mtime":"1.000000000""#;
    let line = |name: &str, kind: &str, more: &str| {
        format!("{{\"name\":{},\"kind\":\"{kind}\",{owner}{more}}}\n", json!(name))
    };
    let mut shard = String::from("{\"backupbot\":1}\n");
    for name in ["../../../victim/directory/file", "..", "link/file", "/etc/hostname", "", "a\0b"] {
        shard += &line(name, "file", ",\"size\":1");
    }
    shard += &line("link", "file", ",\"size\":1");
    shard += &line("link", "dir", "");
    shard += &line("link", "symlink", ",\"hard_link\":\"a\"");
    shard += &line("file", "file", ",\"size\":1,\"hard_link\":\"a\",\"xattrs\":{\"user.a\":7}");
    shard += "{\"name\":7}\n{}\n[]\n\n";
    write(&place, ".backupbot/meta/folder1/_bb_meta", shard);
    for directory in ["folder1/link", "folder1/_bb_..", "folder2", "_bb_..", "folder1/_bb_../_bb_.."] {
        let records =
            format!("{{\"backupbot\":1}}\n{}{}", line(".", "dir", ""), line("file", "file", ",\"size\":1"));
        write(&place, format!(".backupbot/meta/{directory}/_bb_meta"), records);
        fs::create_dir_all(place.join(format!(".backupbot/meta/{directory}/new"))).unwrap();
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recipe/put_back.py");
    let output = Command::new("python3").args(["-I", program]).arg(&place).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!said(&output).contains("Traceback"), "{}", said(&output));
    assert_eq!(fingerprint(&victim), before, "{}", said(&output));
    assert_eq!(fs::read(place.join("folder1/taken")).unwrap(), b"keep");
    // Names are never undone twice.
    let again = Command::new("python3").args(["-I", program]).arg(&place).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
}

#[test]
fn nothing_that_is_configured_becomes_a_command_of_its_own() {
    let mut setup = Setup::new();
    let nasty = "/x'\"\ntouch pwned\r\n$(touch pwned)`touch pwned`;touch pwned # ${HOME}";
    let key = json!({"ssh_key_file": nasty, "passphrase_file": nasty, "known_hosts_file": nasty});
    let web =
        json!({"username": "a'$(touch pwned)", "password_command": ["touch pwned;touch pwned", "a secret"]});
    setup.repository()["remotes"] = json!([
        {"name": "usb", "url": "/nowhere/$(touch pwned)'`touch pwned`;touch pwned"},
        {"name": "web", "url": "http://127.0.0.1:9/'$(touch pwned)", "credentials": web, "ca_file": nasty},
        {"name": "nas", "url": "ssh://$(touch%20pwned)@127.0.0.1:9/'$(touch pwned)", "credentials": key},
    ]);
    setup.repository()["branch"] = json!("a'$(touch{instance})'b;c");
    setup.config["instance"] = json!("x");
    setup.repository()["roots"][0]["name"] = json!("it's $(touch pwned)");
    let script = recipe(&setup, &[]);
    assert!(!script.contains("a secret"), "arguments of a command may be secrets: {script}");
    let place = stranger(&setup, "nasty");
    let output = run_by(&place, &script, &[("GIT_ASKPASS", "true")], None);
    assert_eq!(
        output.status.code(),
        Some(128),
        "every clone fails, and nothing else happens: {}",
        said(&output)
    );
    let found: Vec<_> =
        fs::read_dir(place.join("here")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(said(&output).contains("127.0.0.1"), "{}", said(&output));
}

#[test]
fn the_lines_in_the_format_document_undo_names_that_stand_beside_their_escaped_forms() {
    if !is_possible() {
        return;
    }
    let setup = Setup::new();
    let place = setup.path("restored");
    let names = ["git~1", "_bb_git~1", "_bb__bb_git~1", "100%\\.git"];
    for (stored, name) in
        ["_bb_git~1", "_bb__bb_git~1", "_bb__bb__bb_git~1", "_bb_100%25%5C.git"].iter().zip(names)
    {
        write(&place, stored, name);
        write(&place, format!("_bb_.git/{stored}/file"), name);
    }
    let document = include_str!("../docs/format.md");
    let (_, program) = document.split_once("python3 - restored <<'EOF'\n").unwrap();
    let (program, _) = program.split_once("EOF\n").unwrap();
    let output = Command::new("python3").args(["-c", program]).arg(&place).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for name in names {
        assert_eq!(fs::read_to_string(place.join(name)).unwrap(), name);
        assert_eq!(fs::read_to_string(place.join(".git").join(name).join("file")).unwrap(), name);
    }
}

/// The example configuration with every remote in it switched on.
fn example() -> String {
    let (before, remotes) = include_str!("../config.example.yaml").split_once("    remotes:").unwrap();
    let mut text = format!("{before}    remotes:");
    for (number, line) in remotes.lines().enumerate() {
        let content = line.trim_start();
        let is_off =
            content.starts_with('#') && !content.starts_with("# ") && !content.contains("not built yet");
        let line = if is_off { line.replacen('#', "", 1) } else { line.to_owned() };
        text.push_str(if number == 0 { "" } else { "\n" });
        text.push_str(&line);
    }
    text
}

#[test]
fn the_recipe_in_the_operators_manual_is_what_the_program_prints() {
    let setup = Setup::new();
    let path = setup.path("example.yaml");
    fs::write(&path, example()).unwrap();
    let output = setup.command(&["recipe", "--config", path.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let manual = include_str!("../docs/operations.md");
    let begin = manual.find("#!/bin/sh\n").expect("the manual has the recipe");
    let written = &manual[begin..];
    let written = &written[..written.find("```").unwrap()];
    let different = printed.lines().zip(written.lines()).find(|(printed, written)| printed != written);
    assert_eq!(different, None, "docs/operations.md has another recipe");
    assert_eq!(printed, written, "docs/operations.md has another recipe");
}

#[test]
fn large_files_come_back_by_git_lfs_and_one_that_is_lost_hides_no_other() {
    if !is_possible() {
        return;
    }
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    let contents: Vec<Vec<u8>> = (1u8..=3).map(|byte| vec![byte; 70_000]).collect();
    for (name, content) in ["large", "dir/gone", "odd [name] \"x\""].iter().zip(&contents) {
        write(&setup.root(), name, content);
    }
    write(&setup.root(), "small", "x");
    backed_up(&setup);
    let script = recipe(&setup, &[]);
    assert!(script.contains("It needs git, git-lfs and python3"), "{script}");
    let back = bring_back(&setup, "whole", &script, &[]);
    assert_same(&portraits(&setup.root()), &portraits(&back));
    let one = switched_on(&script, "git --git-dir=documents.git cat-file");
    let one = one.replace("folder1/PATH", "folder1/large");
    bring_back(&setup, "one", &one, &[]);
    assert!(fs::read(setup.path("one/here/restored-file")).unwrap() == contents[0]);

    let victim = crate::support::lfs::objects(&setup.remote().path)
        .into_iter()
        .find(|path| fs::read(path).unwrap() == contents[1])
        .unwrap();
    fs::remove_file(victim).unwrap();
    let place = stranger(&setup, "lost");
    let output = run_by(&place, &script, &[], None);
    let said = said(&output);
    assert!(said.contains("not all large files could be had"), "{said}");
    let back = place.join("here/documents/folder1");
    assert!(fs::read(back.join("large")).unwrap() == contents[0], "{said}");
    assert!(fs::read(back.join("dir/gone")).unwrap().starts_with(b"version https://git-lfs"), "{said}");
}

#[test]
fn large_files_come_back_from_a_server_of_their_own() {
    if !is_possible() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let Some(server) = crate::support::giftless::Giftless::start(scratch.path(), true) else { return };
    let mut setup = Setup::new();
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    setup.repository()["remotes"][0]["lfs_url"] = json!(format!("{}/info/lfs", server.url()));
    write(&setup.root(), "large", vec![7; 70_000]);
    backed_up(&setup);
    let back = bring_back(&setup, "whole", &recipe(&setup, &[]), &[]);
    assert!(fs::read(back.join("large")).unwrap() == vec![7; 70_000]);
}
