//! A host that only writes, its contents OpenPGP messages: it reads the metadata and compares ciphertexts; the owner of a private
//! key, in a file or with gpg and its agent, reads everything.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::encryption_reading::{committed, new_key, object_of};
use crate::restore::{assert_same, backed_up, portraits, said};
use crate::support::Random;
use crate::support::daemon::Setup;
use crate::support::git::git;
use crate::support::gpg::Person;
use crate::support::lfs::objects;
use crate::support::tree::write;
use crate::verify::{document, ends, flip};

const SECRET: &str = "the only copy of it";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything is encrypted for this person, and what is larger than 64 KiB is in LFS.
fn write_only(person: &Person) -> Setup {
    let mut setup = Setup::new();
    let certificate = setup.path("certificate.asc");
    fs::write(&certificate, person.certificate()).unwrap();
    setup.repository()["encryption"] = json!({"method": "gpg", "recipients": [text(&certificate)]});
    setup.repository()["lfs"] = json!({"threshold": "64KiB"});
    let root = setup.root();
    write(&root, "letter", SECRET);
    write(&root, "empty", "");
    write(&root, "notes/.git/config", "a name that git does not take");
    write(&root, "film", Random::new(7).bytes(3_000_000));
    symlink("letter", root.join("link")).unwrap();
    backed_up(&setup);
    setup
}

/// Runs the program where gpg has this person's keys.
#[track_caller]
fn run_as(person: &Person, machine: &Setup, code: i32, arguments: &[&str]) -> Output {
    let output = machine.command(arguments).env("GNUPGHOME", person.home()).output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(!told.contains("panicked"), "{told}");
    output
}

#[test]
fn a_host_that_only_writes_reads_no_content_and_the_owner_of_the_key_reads_everything() {
    let (alice, eve) = (Person::new("alice", "never"), Person::new("eve", "never"));
    let setup = write_only(&alice);
    let expected = portraits(&setup.root());
    let config = setup.write_config();

    let back = setup.path("back");
    for command in [
        &["restore", "--to", text(&back)][..],
        &["restore", "--to", text(&back), "--dry-run"],
        &["restore", "--to", text(&back), "folder1/letter"],
        &["restore", "--to", text(&back), "--key-file", text(&eve.private_key())],
        &["restore", "--in-place", "--yes"],
        &["cat", "folder1/letter"],
        &["cat", "folder1/film", "--key-file", text(&eve.private_key())],
    ] {
        let (answer, complained) = ends(&setup, 2, command);
        for word in [&alice.fingerprint, "--key-file", "--gpg", "private_key"] {
            assert!(complained.contains(word), "{command:?}: {complained}");
        }
        assert!(answer.is_empty() && !back.exists(), "{command:?}: {answer}");
    }
    let gpg = [&["restore", "--to", text(&back), "--gpg", "--config", text(&config)][..]].concat();
    let told = said(&run_as(&eve, &setup, 2, &gpg));
    assert!(told.contains("gpg") && !back.exists(), "{told}");

    assert!(ends(&setup, 0, &["ls", "-R"]).0.contains("letter"));
    ends(&setup, 0, &["snapshots"]);
    let (answer, _) = ends(&setup, 0, &["verify"]);
    assert!(
        answer.contains("nothing is wrong") && answer.contains("4 contents compared as ciphertexts"),
        "{answer}"
    );
    for remote in [&["verify"][..], &["verify", "--remote", "usb"]] {
        let report = &document(&setup, 0, remote)["report"];
        assert_eq!((&report["ciphertexts"], &report["problem_count"]), (&json!(4), &json!(0)), "{report:#}");
    }

    let key = alice.private_key();
    ends(&setup, 0, &["restore", "--to", text(&back), "--key-file", text(&key), "--verify"]);
    assert_same(&expected, &portraits(&back.join("folder1")));
    assert_eq!(ends(&setup, 0, &["cat", "folder1/letter", "--key-file", text(&key)]).0, SECRET);
    let film = ["cat", "folder1/film", "--gpg", "--config", text(&config)];
    assert!(run_as(&alice, &setup, 0, &film).stdout == Random::new(7).bytes(3_000_000));
    let report = &document(&setup, 0, &["verify", "--key-file", text(&key)])["report"];
    assert_eq!(report["ciphertexts"], json!(null), "{report:#}");
    let by_gpg = setup.path("by gpg");
    run_as(&alice, &setup, 0, &["restore", "--to", text(&by_gpg), "--gpg", "--config", text(&config)]);
    assert_same(&expected, &portraits(&by_gpg.join("folder1")));

    // On a machine that knows nothing the private key opens the metadata, too.
    let (machine, remote) = (Setup::new(), setup.remote().path);
    for (name, how) in [("file", &["--key-file", text(&key)][..]), ("agent", &["--gpg"])] {
        let place = machine.path(name);
        let from = [&["restore", "--from", text(&remote), "--to", text(&place)][..], how].concat();
        run_as(&alice, &machine, 0, &from);
        assert_same(&expected, &portraits(&place.join("folder1")));
        run_as(&alice, &machine, 0, &[&["verify", "--from", text(&remote)][..], how].concat());
    }
    let nowhere = machine.path("nowhere");
    let from = ["restore", "--from", text(&remote), "--to", text(&nowhere), "--gpg"];
    let told = said(&run_as(&eve, &machine, 2, &from));
    assert!(told.contains("no key that gpg opens") && !nowhere.exists(), "{told}");
}

#[test]
fn the_configuration_says_where_the_private_key_is() {
    let alice = Person::new("alice", "never");
    let mut setup = write_only(&alice);
    let expected = portraits(&setup.root());
    setup.repository()["encryption"]["private_key"] = json!(text(&alice.private_key()));
    let back = setup.path("back");
    ends(&setup, 0, &["restore", "--to", text(&back), "--verify"]);
    assert_same(&expected, &portraits(&back.join("folder1")));
    assert!(ends(&setup, 0, &["drill", "--whole"]).0.contains("restored and compared"));
    setup.repository()["encryption"]["private_key"] = json!(null);
    setup.repository()["encryption"]["gpg_agent"] = json!(true);
    write(&setup.root(), "letter", "spoilt");
    let config = setup.write_config();
    run_as(&alice, &setup, 0, &["restore", "--in-place", "--yes", "--config", text(&config)]);
    assert_same(&expected, &portraits(&setup.root()));
}

#[test]
fn a_drill_without_a_private_key_compares_and_with_one_restores() {
    let alice = Person::new("alice", "never");
    let setup = write_only(&alice);
    let (told, noted) = ends(&setup, 0, &["drill", "--whole"]);
    assert!(told.contains("all is as it was") && told.contains("nothing restored"), "{told}");
    assert!(noted.contains("no private key") && noted.contains("4 ciphertexts"), "{noted}");
    let answer = document(&setup, 0, &["drill", "--sample", "3"]);
    let drill = &answer["drills"][0]["drill"];
    assert!(drill["ciphertexts"].is_u64() && drill["is_here"] == json!(true), "{answer:#}");
    let told = ends(&setup, 0, &["drill", "--whole", "--key-file", text(&alice.private_key())]).0;
    assert!(told.contains("restored and compared"), "{told}");
    let told = ends(&setup, 0, &["status"]).0;
    assert!(told.contains("5 files restored") || told.contains("restored, all as it was"), "{told}");
}

#[test]
fn a_damaged_message_and_clear_text_in_place_of_one_are_found_without_a_private_key() {
    let alice = Person::new("alice", "never");
    let setup = write_only(&alice);
    let remote = setup.remote();
    flip(&remote.path, &[object_of(&remote, "folder1/letter")]);
    let [large] = objects(&remote.path).try_into().unwrap();
    fs::set_permissions(&large, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&large).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&large, bytes).unwrap();
    for command in [&["verify", "--remote", "usb"][..], &["drill", "--whole"]] {
        let told = ends(&setup, 3, command);
        for name in ["folder1/letter", "folder1/film"] {
            assert!(told.0.contains(name) || told.1.contains(name), "{command:?}: {told:?}");
        }
    }
    let back = setup.path("back");
    let key = alice.private_key();
    let from = ["restore", "--from", "usb", "--to", text(&back), "--key-file", text(&key)];
    let told = ends(&setup, 3, &from);
    assert!(!back.join("folder1/letter").exists() && !back.join("folder1/film").exists(), "{told:?}");
    assert!(back.join("folder1/empty").exists(), "{told:?}");

    let setup = write_only(&alice);
    let remote = setup.remote();
    let clear: [(&str, &[u8]); 2] = [("folder1/letter", b"pay to somebody else"), ("folder1/empty", b"")];
    committed(&remote.path, setup.scratch.path(), &clear);
    for how in [&[][..], &["--key-file", text(&key)]] {
        let told = ends(&setup, 3, &[&["verify", "--remote", "usb"][..], how].concat());
        for word in ["folder1/letter", "folder1/empty", "clear text"] {
            assert!(told.0.contains(word) || told.1.contains(word), "{word}: {told:?}");
        }
    }
}

#[test]
fn over_http_a_content_is_sent_only_where_a_private_key_is_configured() {
    let alice = Person::new("alice", "never");
    for has_key in [false, true] {
        let mut setup = write_only(&alice);
        if has_key {
            setup.repository()["encryption"]["private_key"] = json!(text(&alice.private_key()));
        }
        let daemon = setup.start();
        let api = daemon.api();
        let get = |path: &str| {
            api.get(&format!("/api/v1/repositories/documents/snapshots/latest/files?path=folder1/{path}"))
        };
        for (path, content) in [
            ("letter", SECRET.as_bytes().to_vec()),
            ("film", Random::new(7).bytes(3_000_000)),
            ("empty", Vec::new()),
        ] {
            let answer = get(path);
            if has_key {
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(answer.body == content, "{path}");
                assert_eq!(answer.header("content-length"), Some(content.len().to_string().as_str()));
            } else {
                let problem = answer.problem(409);
                assert!(problem["detail"].as_str().unwrap().contains("private key"), "{problem}");
            }
        }
        assert_eq!(get("").status, 200, "the metadata is read in any case");
    }
}

#[test]
fn a_content_that_came_back_is_no_difference_although_its_message_is_another() {
    let alice = Person::new("alice", "never");
    let setup = write_only(&alice);
    let letter = setup.root().join("letter");
    let time = fs::metadata(&letter).unwrap().modified().unwrap();
    for content in ["something else", SECRET] {
        write(&setup.root(), "letter", content);
        if content == SECRET {
            fs::File::options().write(true).open(&letter).unwrap().set_modified(time).unwrap();
        }
        backed_up(&setup);
    }
    let remote = setup.remote();
    let object = |at: &str| git(&remote.path, &["rev-parse", &format!("{at}:folder1/letter")]);
    assert_ne!(object("main"), object("main~2"), "or the test is none");
    assert!(ends(&setup, 0, &["diff", "latest~1"]).0.contains("folder1/letter"));
    assert_eq!(ends(&setup, 0, &["diff", "latest~2"]).0, "");
}

#[test]
fn gpg_opens_the_key_of_a_repository_that_is_encrypted_as_git_crypt_does() {
    let (alice, eve) = (Person::new("alice", "never"), Person::new("eve", "never"));
    let mut setup = Setup::new();
    let (key, certificates) = (new_key(&setup, "documents.key"), setup.path("certificates"));
    fs::create_dir(&certificates).unwrap();
    for (name, person) in [("a", &eve), ("b", &alice)] {
        fs::write(certificates.join(format!("{name}.asc")), person.certificate()).unwrap();
    }
    setup.repository()["encryption"] =
        json!({"method": "git-crypt", "key_file": text(&key), "recipients": [text(&certificates)]});
    write(&setup.root(), "letter", SECRET);
    backed_up(&setup);
    let (machine, remote) = (Setup::new(), setup.remote().path);
    let stranger = Person::new("stranger", "never");
    let place = machine.path("back");
    let from = ["restore", "--from", text(&remote), "--gpg", "--to", text(&place)];
    let told = said(&run_as(&stranger, &machine, 2, &from));
    assert!(told.contains("no key that gpg opens") && !place.exists(), "{told}");
    run_as(&alice, &machine, 0, &from);
    assert_eq!(fs::read_to_string(place.join("folder1/letter")).unwrap(), SECRET);
    run_as(&alice, &machine, 0, &["verify", "--from", text(&remote), "--gpg"]);
}

#[test]
fn the_daemon_of_a_host_that_only_writes_verifies_and_makes_drills_on_schedule() {
    let alice = Person::new("alice", "never");
    let mut setup = write_only(&alice);
    setup.repository()["verify"] = json!({"sample": "100%", "every": "1s"});
    setup.repository()["drill"] = json!({"sample": "100%", "every": "1s"});
    let daemon = setup.start();
    let status = daemon.status_when("a verification and a drill", |status| {
        let repository = &status["repositories"][0];
        repository["verified"][0]["ciphertexts"] == json!(4)
            && repository["drills"][0]["ciphertexts"] == json!(4)
    });
    let repository = &status["repositories"][0];
    for what in ["verified", "drills"] {
        assert_eq!(repository[what][0]["problems"], json!(0), "{repository:#}");
    }
}
