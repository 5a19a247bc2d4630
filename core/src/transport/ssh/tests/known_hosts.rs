//! What the file says, compared with what `ssh-keygen` says of the same file.

use std::fs;
use std::process::Command;

use super::*;

const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIDgA0mCkWHiTPa0JWHqU5N1ItvyyBPpGwRj8YpCsZcCF";

fn known(text: &str) -> KnownHosts {
    KnownHosts { contents: text.as_bytes().to_vec() }
}

/// A key of our making; only its bytes matter.
fn key(number: u8) -> Vec<u8> {
    let mut key = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    key.extend([number; 32]);
    key
}

fn line(hosts: &str, number: u8) -> String {
    format!("{hosts} ssh-ed25519 {}\n", STANDARD.encode(key(number)))
}

#[test]
fn a_host_is_known_by_any_of_its_keys_and_by_no_other() {
    let file = known(&format!(
        "# a comment\n\n{}{}{}damaged\n@strange nas ssh-ed25519 AAAA\nnas ssh-rsa {ED25519}\n",
        line("nas", 1),
        line("nas,10.0.0.5", 2),
        line("other", 3),
    ));
    assert_eq!(file.standing("nas", &key(1)), Standing::Known);
    assert_eq!(file.standing("nas", &key(2)), Standing::Known);
    assert_eq!(file.standing("10.0.0.5", &key(2)), Standing::Known);
    assert_eq!(file.standing("stranger", &key(1)), Standing::Unknown { only_authority: false });
    let Standing::Changed { recorded } = file.standing("nas", &key(3)) else { panic!() };
    assert_eq!(recorded.iter().map(|key| key.line).collect::<Vec<_>>(), [3, 4]);
    assert!(recorded[0].fingerprint.starts_with("SHA256:") && recorded[0].algorithm == "ssh-ed25519");
    assert_eq!(file.algorithms("nas"), ["ssh-ed25519", "ssh-ed25519"]);
}

#[test]
fn a_revoked_key_is_good_for_nothing_whatever_else_is_said_of_it() {
    for text in [
        line("nas", 1) + "@revoked " + &line("*", 1),
        "@revoked ".to_owned() + &line("nas", 1) + &line("nas", 1),
    ] {
        assert_eq!(known(&text).standing("nas", &key(1)), Standing::Revoked, "{text}");
    }
    let other = known(&("@revoked ".to_owned() + &line("nas", 2) + &line("nas", 1)));
    assert_eq!(other.standing("nas", &key(1)), Standing::Known);
}

#[test]
fn an_authority_does_not_make_a_key_known() {
    let file = known(&("@cert-authority ".to_owned() + &line("*.example.org", 1)));
    assert_eq!(file.standing("nas.example.org", &key(1)), Standing::Unknown { only_authority: true });
    assert_eq!(file.standing("nas", &key(1)), Standing::Unknown { only_authority: false });
}

#[test]
fn wildcards_and_exclusions_mean_what_they_mean_for_ssh() {
    for (hosts, host, is_meant) in [
        ("*.example.org", "nas.example.org", true),
        ("*.example.org", "example.org", false),
        ("n?s", "nas", true),
        ("n?s", "naas", false),
        ("*", "anything", true),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b", "xxaxxbxx", false),
        ("*,!nas", "nas", false),
        ("*,!nas", "other", true),
        ("NAS", "nas", true),
        ("nas", "[nas]:2222", false),
        ("[nas]:2222", "[nas]:2222", true),
        ("", "nas", false),
    ] {
        assert_eq!(matches(hosts, host), is_meant, "{hosts} {host}");
    }
}

#[test]
fn names_hashed_by_ssh_keygen_are_found_again() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("known_hosts");
    let plain = format!("nas ssh-ed25519 {ED25519}\n[nas]:2222 ssh-ed25519 {ED25519}\n");
    fs::write(&path, plain).unwrap();
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&path).output().unwrap();
    assert!(hashed.status.success());
    let file = KnownHosts::read(&path).unwrap();
    assert!(!String::from_utf8_lossy(&file.contents).contains("nas"));
    let key = STANDARD.decode(ED25519).unwrap();
    for (host, standing) in [
        ("nas", Standing::Known),
        ("[nas]:2222", Standing::Known),
        ("nas2", Standing::Unknown { only_authority: false }),
    ] {
        assert_eq!(file.standing(host, &key), standing, "{host}");
    }
    let without = file.with("nas", "nas ssh-ed25519 AAAA", true).unwrap();
    let text = String::from_utf8(without).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("|1|")).count(), 1, "{text}");
    assert_eq!(known(&text).standing("[nas]:2222", &key), Standing::Known);
}

#[test]
fn a_key_is_added_after_a_line_without_end_and_changes_nothing_else() {
    let mut before = b"# mine\r\nnas ssh-ed25519 AAAA junk\n\xff\n".to_vec();
    before.extend_from_slice(line("other", 9).trim_end().as_bytes());
    let after = KnownHosts { contents: before.clone() }.with("nas", "nas ssh-ed25519 BBBB", false).unwrap();
    assert_eq!(after, [before.as_slice(), b"\nnas ssh-ed25519 BBBB\n"].concat());
}

#[test]
fn replacing_keeps_every_other_host_byte_for_byte() {
    let text = [
        "# comment about nas\n".to_owned(),
        line("nas", 1),
        line("10.0.0.5,NAS,nas2", 2).replace('\n', " a comment\r\n"),
        "@revoked ".to_owned() + &line("nas", 3),
        "@cert-authority ".to_owned() + &line("nas", 4),
        line("other", 5),
    ];
    let after = String::from_utf8(known(&text.concat()).with("nas", "NEW", true).unwrap()).unwrap();
    let expected =
        [&text[0], &text[2].replace("10.0.0.5,NAS,nas2", "10.0.0.5,nas2"), &text[3], &text[4], &text[5]];
    assert_eq!(after, expected.map(String::as_str).concat() + "NEW\n");

    let error = known(&line("*.home,nas.home", 1)).with("nas.home", "NEW", true).unwrap_err();
    assert!(error.kind() == Kind::HostKey && error.to_string().contains("line 1"), "{error}");
}

#[test]
fn a_file_that_cannot_be_one_is_an_error_and_a_missing_one_is_empty() {
    let scratch = tempfile::tempdir().unwrap();
    assert!(KnownHosts::read(&scratch.path().join("none")).unwrap().contents.is_empty());
    assert_eq!(KnownHosts::read(scratch.path()).err().unwrap().kind(), Kind::HostKey);
    let huge = scratch.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(LARGEST + 1).unwrap();
    assert_eq!(KnownHosts::read(&huge).err().unwrap().kind(), Kind::HostKey);
}

#[test]
fn hmac_is_that_of_the_standard() {
    // RFC 2202, cases 2 and 6.
    let hex = |bytes: [u8; 20]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(hmac_sha1(b"Jefe", b"what do ya want for nothing?")),
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
    );
    assert_eq!(
        hex(hmac_sha1(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First")),
        "aa4ae5e15272d00e95705637ce8a3b55ed402112"
    );
}
