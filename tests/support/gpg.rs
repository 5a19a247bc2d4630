//! A person with a home for the real gpg, whose agent ends with the value.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Somebody with an OpenPGP key without a passphrase.
pub struct Person {
    home: tempfile::TempDir,
    /// Of the certificate.
    pub fingerprint: String,
}

impl Person {
    /// Makes a key that lives for so long (`never`, `10d`, `2y`).
    pub fn new(name: &str, lives: &str) -> Self {
        Self::made(&[], name, lives)
    }

    /// Makes a key that was good for one day of the year 2020.
    pub fn expired(name: &str) -> Self {
        Self::made(&["--faked-system-time", "20200101T000000!"], name, "1d")
    }

    fn made(options: &[&str], name: &str, lives: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut person = Self { home, fingerprint: String::new() };
        let user = format!("{name} <{name}@example.org>");
        let how = ["--passphrase", "", "--quick-gen-key", &user, "future-default", "default", lives];
        person.gpg(&[options, &how].concat());
        let listed = String::from_utf8(person.gpg(&["--with-colons", "--list-keys"])).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        person.fingerprint = line.split(':').nth(9).unwrap().to_owned();
        person
    }

    /// Where gpg finds the private key.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The certificate, armored.
    pub fn certificate(&self) -> Vec<u8> {
        self.gpg(&["--armor", "--export", &self.fingerprint])
    }

    /// The private key, armored, in a file of its owner's.
    pub fn private_key(&self) -> PathBuf {
        let path = self.home().join("private.asc");
        fs::write(&path, self.gpg(&["--armor", "--export-secret-keys", &self.fingerprint])).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// What a message says, if it is for this person.
    pub fn decrypt(&self, message: &Path) -> Option<Vec<u8>> {
        let output = Command::new("gpg")
            .args(["--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--homedir"])
            .arg(self.home())
            .arg("--decrypt")
            .arg(message)
            .output()
            .expect("gpg is installed");
        output.status.success().then_some(output.stdout)
    }

    /// Revokes the key.
    pub fn revoke(&self) {
        let path = self.home().join(format!("openpgp-revocs.d/{}.rev", self.fingerprint));
        let text = fs::read_to_string(&path).unwrap().replace(":-----BEGIN", "-----BEGIN");
        fs::write(&path, text).unwrap();
        self.gpg(&["--import", path.to_str().unwrap()]);
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("gpg")
            .args(["--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--homedir"])
            .arg(self.home())
            .args(arguments)
            .output()
            .expect("gpg is installed");
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ =
            Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}
