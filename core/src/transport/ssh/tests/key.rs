//! Keys as `ssh-keygen` and `openssl` write them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::transport::ssh::tests::sshd::{fingerprint, make_key};

fn read_file(path: &Path, passphrase: Option<&str>) -> Result<PrivateKey> {
    let file = Secret::new(fs::read(path).unwrap());
    read(&file, "SSH key of remote nas", || Ok(passphrase.map(|text| Secret::new(text.as_bytes().to_vec()))))
}

#[test]
fn every_type_and_form_is_read_with_and_without_a_passphrase() {
    let scratch = tempfile::tempdir().unwrap();
    for kind in ["ed25519", "ecdsa", "rsa", "rsa-PEM", "ecdsa-PEM", "rsa-PKCS8", "ecdsa-PKCS8"] {
        for passphrase in ["", "correct horse"] {
            if kind == "ecdsa-PEM" && !passphrase.is_empty() {
                continue;
            }
            let path = scratch.path().join(format!("{kind}{}", passphrase.len()));
            make_key(&path, kind, passphrase);
            let key = read_file(&path, Some(passphrase)).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert!(shown(key.public_key()).ends_with(&fingerprint(&path)), "{kind}");
            if passphrase.is_empty() {
                continue;
            }
            let error = read_file(&path, None).unwrap_err();
            assert_eq!(error.kind(), Kind::Credentials, "{kind}");
            assert!(error.to_string().contains("credentials.passphrase_file"), "{kind}: {error}");
            let error = read_file(&path, Some("wrong")).unwrap_err();
            assert!(error.to_string().contains("cannot be opened with its passphrase"), "{kind}: {error}");
            assert!(!error.to_string().contains("wrong\""), "{kind}: {error}");
        }
    }
}

#[test]
fn a_key_with_other_line_ends_or_spaces_is_the_same_key() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key");
    make_key(&path, "ed25519", "");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("\n  {}", text.replace('\n', "\r\n  "))).unwrap();
    assert!(
        shown(read_file(&path, None).unwrap().public_key())
            .ends_with(&fingerprint(&path.with_extension("pub")))
    );
}

#[test]
fn what_is_no_usable_key_says_what_it_is_instead() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("key");
    make_key(&path, "ed25519", "");
    let text = fs::read_to_string(&path).unwrap();
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    let half = text.lines().take(3).collect::<Vec<_>>().join("\n");
    for (contents, word) in [
        (public.as_str(), "public key"),
        ("hello", "no private key"),
        (half.as_str(), "damaged"),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "damaged"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = read_file(&path, None).unwrap_err();
        assert!(error.kind() == Kind::Credentials && error.to_string().contains(word), "{error}");
    }
    let old = scratch.path().join("old");
    let made = Command::new("openssl")
        .args(["genrsa", "-traditional", "-des3", "-passout", "pass:secret", "-out"])
        .arg(&old)
        .arg("2048")
        .output();
    // Where openssl is not installed, or is without it.
    if made.is_ok_and(|output| output.status.success()) {
        let error = read_file(&old, Some("secret")).unwrap_err();
        assert!(error.to_string().contains("ssh-keygen -p"), "{error}");
    }
}
