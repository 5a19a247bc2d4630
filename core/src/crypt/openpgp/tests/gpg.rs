//! The installed gpg, with a home and an agent of its own that end with the value.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::super::{PrivateKey, Recipient};
use super::now;

pub(crate) struct Gpg {
    home: tempfile::TempDir,
    fingerprint: String,
}

impl Gpg {
    /// Somebody with a key of which both parts are of this algorithm, and no passphrase.
    pub(crate) fn with_key(name: &str, algorithm: &str) -> Self {
        let gpg = Self::with_signing_key(name, algorithm);
        let subkey = if algorithm == "future-default" { "cv25519" } else { algorithm };
        gpg.make(&["--quick-add-key", gpg.fingerprint(), subkey, "encr"]);
        gpg
    }

    /// Somebody whose key only signs.
    pub(crate) fn with_signing_key(name: &str, algorithm: &str) -> Self {
        let algorithm = if algorithm == "future-default" { "ed25519" } else { algorithm };
        Self::generate(name, &[algorithm, "sign", "never"], "")
    }

    pub(crate) fn with_locked_key(name: &str, passphrase: &str) -> Self {
        Self::generate(name, &["future-default", "default", "never"], passphrase)
    }

    /// Somebody whose key is made as the further arguments of `--quick-gen-key` say.
    pub(crate) fn generate(name: &str, how: &[&str], passphrase: &str) -> Self {
        Self::generate_with(&[], name, how, passphrase)
    }

    /// Somebody whose key was good for one day of the year 2020.
    pub(crate) fn expired(name: &str) -> Self {
        let then = ["--faked-system-time", "20200101T000000!"];
        Self::generate_with(&then, name, &["future-default", "default", "1d"], "")
    }

    fn generate_with(options: &[&str], name: &str, how: &[&str], passphrase: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(home.path().join("gpg.conf"), "batch\nno-tty\npinentry-mode loopback\nquiet\n")
            .unwrap();
        let mut gpg = Self { home, fingerprint: String::new() };
        let user = format!("{name} <{name}@example.org>");
        gpg.make(&[options, &["--passphrase", passphrase, "--quick-gen-key", &user], how].concat());
        let listed = gpg.run(&["--with-colons", "--list-keys"], b"").stdout;
        let listed = String::from_utf8(listed).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        gpg.fingerprint = line.split(':').nth(9).unwrap().to_owned();
        gpg
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Runs gpg; the caller looks whether it went well.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg is installed");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // It may end before it has read all of it.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        output
    }

    fn run_well(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Runs gpg with an empty passphrase.
    pub(crate) fn make(&self, arguments: &[&str]) {
        let passphrase: &[&str] =
            if arguments.contains(&"--passphrase") { &[] } else { &["--passphrase", ""] };
        self.run_well(&[passphrase, arguments].concat(), b"");
    }

    /// Answers the questions of `--edit-key`.
    pub(crate) fn edit(&self, answers: &str) {
        let arguments =
            ["--no-batch", "--command-fd", "0", "--passphrase", "", "--edit-key", &self.fingerprint];
        self.run_well(&arguments, answers.as_bytes());
    }

    pub(crate) fn import(&self, key: &[u8]) {
        self.run_well(&["--import"], key);
    }

    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.run_well(&["--export", &self.fingerprint], b"")
    }

    pub(crate) fn armored_certificate(&self) -> Vec<u8> {
        self.run_well(&["--armor", "--export", &self.fingerprint], b"")
    }

    pub(crate) fn recipient(&self) -> Recipient {
        Recipient::parse(&self.certificate(), "/certificate", now()).unwrap()
    }

    /// Still under its passphrase, if it has one.
    pub(crate) fn private_export(&self) -> Vec<u8> {
        self.run_well(
            &["--passphrase", "open sesame", "--armor", "--export-secret-keys", &self.fingerprint],
            b"",
        )
    }

    pub(crate) fn private(&self) -> PrivateKey {
        PrivateKey::parse(&self.private_export(), "/key", None).unwrap()
    }

    pub(crate) fn encrypt(&self, plaintext: &[u8], to: &[&str], compression: &str) -> Vec<u8> {
        let mut arguments = vec!["--trust-model", "always", "-z", compression, "--encrypt"];
        for recipient in to {
            arguments.extend(["--recipient", recipient]);
        }
        self.run_well(&arguments, plaintext)
    }

    /// A message that is not encrypted.
    pub(crate) fn store(&self, plaintext: &[u8]) -> Vec<u8> {
        self.run_well(&["--store"], plaintext)
    }

    pub(crate) fn decrypt(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let output = self.run(&["--decrypt"], message);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // A warning would be about the missing proof, above all.
        if output.status.success() && !said.contains("WARNING") { Ok(output.stdout) } else { Err(said) }
    }

    /// How many bytes come out of a message in a file.
    pub(crate) fn decrypted_size(&self, path: &Path) -> u64 {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .arg("--decrypt")
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let size = std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
        size
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ =
            Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}
