//! What of a snapshot is encrypted and with which key: the file `.backupbot/encryption`, which is clear text.
//!
//! ```text
//! {"version":1,"method":"git-crypt","key":"5f0c…","paths":["secret/"]}
//! {"version":1,"method":"gpg","key":"5f0c…","recipients":["8DA1…"],"paths":["secret/"]}
//! ```
//!
//! The key is always one of git-crypt. With the method `gpg` it has the metadata and the checksums only, and each content is an
//! OpenPGP message to the recipients.
//!
//! In: a snapshot's tree, or what the configuration wants. Out: whether a path is encrypted, and the `.gitattributes` that
//! tell Git and git-crypt the same.

use std::fmt;

use git2::{ObjectType, Odb, Oid};
use serde::{Deserialize, Serialize};

use super::gitcrypt::KeyVersion;
use super::gitcrypt::wrapped;
use super::patterns::Patterns;
use crate::error::{Error, Kind, Result};
use crate::path::OWN_DIRECTORY;
use crate::tree;

/// Where it stands.
pub const PATH: &str = ".backupbot/encryption";
/// The only version there is.
const VERSION: u32 = 1;
/// A longer file is not read.
const LARGEST: usize = 256 * 1024;
/// Never to change: every file that names a key hangs on it.
const KEY_ID_CONTEXT: &str = "BackupBot 2026-11-23 key id, git-crypt";

/// Names a key without telling anything of it: 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(String);

impl KeyId {
    /// That of a key.
    pub fn of(key: &KeyVersion) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_ID_CONTEXT);
        hasher.update(key.aes()).update(key.hmac());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        zeroize::Zeroize::zeroize(&mut hasher);
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_sound(&self) -> bool {
        self.0.len() == 16 && self.0.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How contents are encrypted. The metadata always is as git-crypt does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cipher {
    /// As git-crypt does, with the policy's key.
    GitCrypt,
    /// As an OpenPGP message.
    OpenPgp {
        /// The fingerprints of those who can read it, in their order.
        recipients: Vec<String>,
    },
}

impl Cipher {
    /// As the configuration and the repository name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::GitCrypt => "git-crypt",
            Self::OpenPgp { .. } => "gpg",
        }
    }

    /// Whether it is that of OpenPGP.
    pub fn is_open_pgp(&self) -> bool {
        matches!(self, Self::OpenPgp { .. })
    }
}

/// What of a snapshot is encrypted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The key.
    pub key: KeyId,
    /// How the contents are encrypted.
    pub cipher: Cipher,
    /// Which contents; the metadata always is.
    pub paths: Patterns,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
}

impl Policy {
    /// The policy of a snapshot; nothing if it is clear text.
    ///
    /// # Errors
    /// [`Kind::Git`] if there is a policy that cannot be read: nothing may be taken for clear text then.
    pub fn of_tree(objects: &Odb<'_>, tree: Oid) -> Result<Option<Self>> {
        let Some(entry) = tree::lookup(objects, tree, PATH.as_bytes())? else { return Ok(None) };
        let fail = |what: &str| Error::new(Kind::Git, format!("{PATH} of the snapshot {what}"));
        let (size, kind) = objects
            .read_header(entry.oid)
            .map_err(|error| Error::with_source(Kind::Git, format!("cannot read {PATH}"), error))?;
        if kind != ObjectType::Blob || size > LARGEST {
            return Err(fail("is no small file"));
        }
        let blob = objects
            .read(entry.oid)
            .map_err(|error| Error::with_source(Kind::Git, format!("cannot read {PATH}"), error))?;
        let written: Written = serde_json::from_slice(blob.data()).map_err(|error| {
            Error::with_source(Kind::Git, format!("{PATH} of the snapshot is damaged"), error)
        })?;
        if written.version != VERSION {
            return Err(fail("is of a later version: update backupbot to read it"));
        }
        let cipher = match written.method.as_str() {
            "git-crypt" => Cipher::GitCrypt,
            "gpg" if written.recipients.iter().all(|it| is_fingerprint(it)) => {
                Cipher::OpenPgp { recipients: written.recipients }
            }
            "gpg" => return Err(fail("is damaged: it names recipients that are none")),
            _ => {
                return Err(fail(
                    "names a method that this version does not know: update backupbot to read it",
                ));
            }
        };
        let key = written.key.filter(KeyId::is_sound).ok_or_else(|| fail("is damaged: it names no key"))?;
        let paths =
            Patterns::parse(&written.paths).map_err(|problem| fail(&format!("is damaged: {problem}")))?;
        Ok(Some(Self { key, cipher, paths }))
    }

    /// The file's text.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let recipients = match &self.cipher {
            Cipher::GitCrypt => Vec::new(),
            Cipher::OpenPgp { recipients } => recipients.clone(),
        };
        let written = Written {
            version: VERSION,
            method: self.cipher.as_str().to_owned(),
            key: Some(self.key.clone()),
            recipients,
            paths: self.paths.texts(),
        };
        let mut text = serde_json::to_vec(&written).map_err(|error| {
            Error::with_source(Kind::Internal, "cannot write an encryption policy", error)
        })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Whether the file at a path of the repository is encrypted. Symlinks never are.
    pub fn covers(&self, path: &[u8]) -> bool {
        if path.rsplit(|byte| *byte == b'/').next() == Some(crate::lfs::attributes::FILE_NAME) {
            return false;
        }
        match path.split(|byte| *byte == b'/').next() {
            Some(first) if first == OWN_DIRECTORY.as_bytes() => is_metadata(path),
            Some(first) if first == wrapped::DIRECTORY.as_bytes() => false,
            _ => self.paths.matches(path),
        }
    }

    /// How the file at a path is encrypted; `None` if it is not.
    pub fn cipher_of(&self, path: &[u8]) -> Option<&Cipher> {
        self.covers(path).then(|| if is_metadata(path) { &Cipher::GitCrypt } else { &self.cipher })
    }

    /// The lines of the topmost `.gitattributes` that say what [`Policy::covers`] says.
    pub fn attributes(&self) -> Vec<u8> {
        let mut text = String::new();
        // Git has no filter for what is decrypted with gpg.
        let contents = if self.cipher.is_open_pgp() { Vec::new() } else { self.paths.lines() };
        for line in contents.iter().map(String::as_str).chain(["/.backupbot/meta/**"]) {
            text.push_str(line);
            text.push_str(" filter=git-crypt diff=git-crypt\n");
        }
        for line in ["/.backupbot/format", "/.backupbot/encryption", "/.git-crypt/**", ".gitattributes"] {
            text.push_str(line);
            text.push_str(" -filter !diff\n");
        }
        text.into_bytes()
    }
}

fn is_metadata(path: &[u8]) -> bool {
    path.starts_with(b".backupbot/meta/")
}

fn is_fingerprint(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::gitcrypt::KeyFile;

    fn policy(paths: &[&str]) -> Policy {
        let key = KeyFile::generate(None).unwrap();
        Policy {
            key: KeyId::of(&key.versions()[0]),
            cipher: Cipher::GitCrypt,
            paths: Patterns::parse(paths).unwrap(),
        }
    }

    #[test]
    fn metadata_is_always_encrypted_and_what_tells_of_the_encryption_never() {
        for policy in [policy(&[]), policy(&["secret/"])] {
            for path in [".backupbot/meta/a/_bb_meta", ".backupbot/meta/a/_bb_meta/00", "a/secret/x"] {
                assert!(policy.covers(path.as_bytes()), "{path}");
            }
            for path in [".backupbot/format", PATH, ".gitattributes", "a/.gitattributes", ".git-crypt/keys/x"]
            {
                assert!(!policy.covers(path.as_bytes()), "{path}");
            }
        }
        assert!(policy(&[]).covers(b"a/x") && !policy(&["secret/"]).covers(b"a/x"));
    }

    #[test]
    fn git_sees_the_same_in_the_attributes() {
        for policy in [policy(&[]), policy(&["secret/", "*.key"])] {
            let scratch = tempfile::tempdir().unwrap();
            let git = |arguments: &[&str]| {
                let mut command = std::process::Command::new("git");
                command.current_dir(scratch.path()).args(arguments);
                command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", scratch.path()).output().unwrap()
            };
            assert!(git(&["init", "-q"]).status.success());
            let text =
                [b"* -text -ident -filter !working-tree-encoding\n".to_vec(), policy.attributes()].concat();
            std::fs::write(scratch.path().join(".gitattributes"), text).unwrap();
            for path in [
                ".backupbot/meta/a/_bb_meta",
                ".backupbot/format",
                PATH,
                ".gitattributes",
                "a/.gitattributes",
                ".git-crypt/keys/default/0/A.gpg",
                ".git-crypt/.gitattributes",
                "a/x",
                "a/secret/x",
                "a/b.key",
            ] {
                let said = git(&["check-attr", "filter", "--", path]).stdout;
                let is_encrypted = String::from_utf8_lossy(&said).trim_end().ends_with(": git-crypt");
                assert_eq!(is_encrypted, policy.covers(path.as_bytes()), "{path}");
            }
        }
    }
}
