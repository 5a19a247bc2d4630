//! Private keys: from the bytes of a key file to something that can sign.
//!
//! OpenSSH's format and PEM (PKCS #1, PKCS #8, SEC 1), encrypted or not; ed25519, ECDSA and RSA. The passphrase is read
//! only for a key that needs one. Nothing of a key ever gets into an error.

use russh::keys::{Algorithm, HashAlg, PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// A key, and what it is called in messages.
pub(super) fn read(
    file: &Secret,
    what: &str,
    passphrase: impl FnOnce() -> Result<Option<Secret>>,
) -> Result<PrivateKey> {
    let fail = |why: &str| Error::new(Kind::Credentials, format!("the {what} {why}"));
    let text = std::str::from_utf8(file.bytes()).map_err(|_| fail(NO_KEY))?;
    if !text.contains("PRIVATE KEY-----") {
        let is_public = ["ssh-", "ecdsa-", "sk-", "-----BEGIN PUBLIC KEY", "---- BEGIN SSH2 PUBLIC"]
            .iter()
            .any(|start| text.trim_start().starts_with(start));
        return Err(fail(if is_public { "is a public key: name the private one" } else { NO_KEY }));
    }
    // Line ends of another system, and spaces that a form field has added.
    let text = Zeroizing::new(text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n") + "\n");
    let is_openssh = text.contains("BEGIN OPENSSH PRIVATE KEY");
    let is_encrypted = if is_openssh {
        PrivateKey::from_openssh(text.as_bytes()).map_err(|_| fail(DAMAGED))?.is_encrypted()
    } else {
        text.contains("ENCRYPTED")
    };
    let key = if is_encrypted {
        let Some(passphrase) = passphrase()? else {
            return Err(fail("is encrypted: set credentials.passphrase_file"));
        };
        let passphrase = passphrase.text().map_err(|_| fail("has a passphrase that is not UTF-8 text"))?;
        let opened = decode_secret_key(&text, Some(passphrase));
        opened.map_err(|_| fail(if is_openssh { WRONG_PASSPHRASE } else { WRONG_PASSPHRASE_OR_OLD }))?
    } else {
        decode_secret_key(&text, None).map_err(|_| fail(DAMAGED))?
    };
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(fail(&format!("is of the type {other}: use ed25519, ecdsa or rsa"))),
    }
}

const NO_KEY: &str = "is no private key in OpenSSH's format or PEM";
const DAMAGED: &str = "cannot be read: it is damaged, or of an unknown type";
const WRONG_PASSPHRASE: &str = "cannot be opened with its passphrase";
const WRONG_PASSPHRASE_OR_OLD: &str = "cannot be opened with its passphrase; if that is right, its encryption is too old: ssh-keygen -p -f FILE renews it";

/// For messages: `ssh-ed25519 SHA256:…`.
pub(super) fn shown(key: &russh::keys::PublicKey) -> String {
    let algorithm = match key.algorithm() {
        Algorithm::Rsa { .. } => "ssh-rsa".to_owned(),
        other => other.to_string(),
    };
    format!("{algorithm} {}", key.fingerprint(HashAlg::Sha256))
}

#[cfg(test)]
#[path = "tests/key.rs"]
mod tests;
