//! The installed git-crypt, in a directory of its own: its filters, its keys, and clones that it unlocks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::super::key::KeyFile;

pub(in crate::crypt) struct GitCrypt {
    scratch: tempfile::TempDir,
}

impl GitCrypt {
    pub(in crate::crypt) fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.scratch.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("TMPDIR", self.scratch.path());
        for (name, value) in [("NAME", "a"), ("EMAIL", "a@example.org")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command
    }

    fn git(&self, within: &Path, arguments: &[&str]) -> Output {
        let output = self.command("git").current_dir(within).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    pub(in crate::crypt) fn key_made_by_program(&self) -> Vec<u8> {
        let path = self.path("made.key");
        let output =
            self.command("git-crypt").arg("keygen").arg(&path).output().expect("git-crypt is installed");
        assert!(output.status.success());
        fs::read(path).unwrap()
    }

    pub(in crate::crypt) fn named_key_made_by_program(&self, name: &str) -> Vec<u8> {
        let repository = self.path("named");
        fs::create_dir(&repository).unwrap();
        self.git(&repository, &["init", "-q"]);
        for arguments in [vec!["init", "-k", name], vec!["export-key", "-k", name, "../named.key"]] {
            let output = self.command("git-crypt").current_dir(&repository).args(arguments).output().unwrap();
            assert!(output.status.success());
        }
        fs::read(self.path("named.key")).unwrap()
    }

    pub(in crate::crypt) fn clean(&self, key: &KeyFile, plaintext: &[u8]) -> Result<Vec<u8>, String> {
        self.filter("clean", key, plaintext)
    }

    pub(in crate::crypt) fn smudge(&self, key: &KeyFile, ciphertext: &[u8]) -> Result<Vec<u8>, String> {
        self.filter("smudge", key, ciphertext)
    }

    fn filter(&self, verb: &str, key: &KeyFile, input: &[u8]) -> Result<Vec<u8>, String> {
        fs::write(self.path("input"), input).unwrap();
        self.filter_file(verb, key, &self.path("input"), &self.path("output"))?;
        Ok(fs::read(self.path("output")).unwrap())
    }

    /// The filter over files, of any size.
    pub(in crate::crypt) fn filter_file(
        &self,
        verb: &str,
        key: &KeyFile,
        input: &Path,
        output: &Path,
    ) -> Result<(), String> {
        let key_path = self.path("key");
        fs::write(&key_path, key.to_bytes()).unwrap();
        let done = self
            .command("git-crypt")
            .arg(verb)
            .arg(format!("--key-file={}", key_path.display()))
            .stdin(File::open(input).unwrap())
            .stdout(File::create(output).unwrap())
            .output()
            .expect("git-crypt is installed");
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    }

    /// A plain clone of a repository whose blobs are these, and whose attributes name the filter.
    pub(in crate::crypt) fn clone_of(&self, files: &[(String, Vec<u8>)]) -> PathBuf {
        let origin = self.path("origin");
        fs::create_dir(&origin).unwrap();
        self.git(&origin, &["init", "-q", "-b", "main"]);
        let attributes =
            "* filter=git-crypt diff=git-crypt\n.gitattributes !filter !diff\n.git-crypt/** !filter !diff\n";
        fs::write(origin.join(".gitattributes"), attributes).unwrap();
        for (path, bytes) in files {
            let path = origin.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        // The filter has no program here, so that Git takes the bytes as they are.
        self.git(&origin, &["add", "-A"]);
        self.git(&origin, &["commit", "-q", "-m", "x"]);
        self.git(self.scratch.path(), &["clone", "-q", "origin", "clone"]);
        self.path("clone")
    }

    pub(in crate::crypt) fn unlock_with_key(&self, clone: &Path, key: &KeyFile) {
        let path = self.path("unlock.key");
        fs::write(&path, key.to_bytes()).unwrap();
        let output = self.command("git-crypt").current_dir(clone).arg("unlock").arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What Git takes for changed when it has to look at every file again.
    pub(in crate::crypt) fn changes_in(&self, clone: &Path) -> String {
        fs::remove_file(clone.join(".git/index")).unwrap();
        self.git(clone, &["reset", "-q"]);
        String::from_utf8(self.git(clone, &["status", "--porcelain"]).stdout).unwrap()
    }

    /// Unlocks with what gpg has in its home.
    pub(in crate::crypt) fn unlock_with_gpg(&self, clone: &Path, gpg_home: &Path) -> Result<(), String> {
        let output = self
            .command("git-crypt")
            .current_dir(clone)
            .env("GNUPGHOME", gpg_home)
            .arg("unlock")
            .output()
            .expect("git-crypt is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// Adds a recipient as the program does; gives the bytes of the wrapped key.
    pub(in crate::crypt) fn wrapped_by_program(
        &self,
        key: &KeyFile,
        gpg_home: &Path,
        fingerprint: &str,
    ) -> Vec<u8> {
        let repository = self.with_recipient(key, gpg_home, fingerprint);
        fs::read(repository.join(format!(".git-crypt/keys/default/0/{fingerprint}.gpg"))).unwrap()
    }

    /// What the program puts beside the wrapped keys.
    pub(in crate::crypt) fn attributes_by_program(
        &self,
        key: &KeyFile,
        gpg_home: &Path,
        fingerprint: &str,
    ) -> Vec<u8> {
        let repository = self.with_recipient(key, gpg_home, fingerprint);
        fs::read(repository.join(".git-crypt/.gitattributes")).unwrap()
    }

    fn with_recipient(&self, key: &KeyFile, gpg_home: &Path, fingerprint: &str) -> PathBuf {
        let repository = self.path("wrapping");
        fs::create_dir(&repository).unwrap();
        self.git(&repository, &["init", "-q"]);
        self.unlock_with_key(&repository, key);
        let output = self
            .command("git-crypt")
            .current_dir(&repository)
            .env("GNUPGHOME", gpg_home)
            .args(["add-gpg-user", "--trusted", "-n", fingerprint])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        repository
    }
}
