//! Logging in: with the configured key, or with those of an agent.
//!
//! In comes a connection whose host key has been found good; out comes one that takes commands, or why not: which key
//! was refused, and which methods the server takes. RSA keys sign with SHA-2 only. A refusal is told apart from
//! a connection that broke, because only the one is a matter of credentials.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};

use super::connect::Connection;
use super::meeting::Greeter;
use super::{key, site::Site};
use crate::config::{Credentials, SecretSource};
use crate::error::{Error, Kind, Result};
use crate::secret;

/// Servers end a connection after six attempts, as a rule.
const MOST_AGENT_KEYS: usize = 5;

/// What the configuration offers; where secrets are, not what they are.
#[derive(Clone)]
pub(super) struct Login {
    key: Option<SecretSource>,
    passphrase: Option<SecretSource>,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
}

/// What there is to log in with, read just now.
pub(super) enum Means {
    Key(Arc<PrivateKey>),
    Agent(PathBuf),
}

impl Login {
    /// Of this configuration, and this process's agent.
    pub(super) fn of(credentials: Option<&Credentials>) -> Self {
        let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            key: credentials.and_then(|all| all.ssh_key.clone()),
            passphrase: credentials.and_then(|all| all.passphrase.clone()),
            agent,
        }
    }

    /// Reads the key, each time anew. What is odd about it goes to `warnings`.
    pub(super) fn means(&self, remote: &str, warnings: &mut Vec<String>) -> Result<Means> {
        let Some(source) = &self.key else {
            return self.agent.clone().map(Means::Agent).ok_or_else(|| {
                let text = format!(
                    "there is no way to log in at remote {remote}: set credentials.ssh_key_file, or start the \
                     program with SSH_AUTH_SOCK set to an agent's socket"
                );
                Error::new(Kind::Credentials, text)
            });
        };
        let mut found = |source: &SecretSource, what: &str, is_whole: bool| -> Result<secret::Secret> {
            let found = secret::read(source, what, is_whole)?;
            if let Some(warning) = found.warning.filter(|warning| !warnings.contains(warning)) {
                warnings.push(warning);
            }
            Ok(found.secret)
        };
        let what = format!("SSH key of remote {remote}");
        let file = found(source, &what, true)?;
        let key = key::read(&file, &what, || {
            let passphrase = self.passphrase.as_ref();
            passphrase.map(|source| found(source, &format!("passphrase of the {what}"), false)).transpose()
        })?;
        Ok(Means::Key(Arc::new(key)))
    }
}

impl Means {
    /// Whether a second attempt with `other` would be the first one again.
    pub(super) fn is_same_as(&self, other: &Means) -> bool {
        match (self, other) {
            (Means::Key(one), Means::Key(other)) => {
                one.public_key().key_data() == other.public_key().key_data()
            }
            // Its keys may be others by now, but whether they are is only known when they are asked for.
            (Means::Agent(one), Means::Agent(other)) => one == other,
            _ => false,
        }
    }
}

/// How it went, unless something broke.
pub(super) enum Outcome {
    In,
    /// The server does not want what it was shown.
    Refused(Error),
}

/// Logs in with `means`.
pub(super) async fn log_in(connection: &mut Connection, site: &Site, means: &Means) -> Result<Outcome> {
    match means {
        Means::Key(key) => with_key(connection, site, key).await,
        Means::Agent(socket) => with_agent(connection, site, socket).await,
    }
}

async fn with_key(connection: &mut Connection, site: &Site, key: &Arc<PrivateKey>) -> Result<Outcome> {
    let public = key.public_key().clone();
    let mut answer = None;
    for hash in hashes(&connection.handle, public.algorithm()).await? {
        let key = PrivateKeyWithHashAlg::new(key.clone(), hash);
        let result = connection.handle.authenticate_publickey(site.user.as_str(), key).await;
        match result.map_err(|error| connection.broken(site, &error))? {
            AuthResult::Success => return Ok(Outcome::In),
            AuthResult::Failure { remaining_methods, partial_success } => {
                answer = Some((remaining_methods, partial_success));
            }
        }
        if connection.handle.is_closed() {
            break;
        }
    }
    Ok(Outcome::Refused(refusal(connection, site, &key::shown(&public), answer)?))
}

async fn with_agent(connection: &mut Connection, site: &Site, socket: &Path) -> Result<Outcome> {
    let place = crate::path::lossy(socket.as_os_str().as_encoded_bytes());
    let fail = |error: russh::keys::Error| {
        Error::with_source(Kind::Credentials, format!("the SSH agent at {place} (SSH_AUTH_SOCK)"), error)
    };
    let mut agent = AgentClient::connect_uds(socket).await.map_err(fail)?;
    if let Some(binding) = connection.handle.agent_session_binding() {
        // Older agents do not know it; those that do need it for keys that are bound to a destination.
        let _ = agent.bind_session(binding, false).await;
    }
    let identities = agent.request_identities().await.map_err(fail)?;
    let usable: Vec<PublicKey> = identities.into_iter().filter_map(usable).collect();
    if usable.is_empty() {
        let text = format!(
            "the SSH agent at {place} (SSH_AUTH_SOCK) has no key of ours to log in with: ssh-add one"
        );
        return Ok(Outcome::Refused(Error::new(Kind::Credentials, text)));
    }
    let mut answer = None;
    let mut shown = Vec::new();
    for public in usable.into_iter().take(MOST_AGENT_KEYS) {
        shown.push(key::shown(&public));
        // One that cannot sign safely there does not keep the others from it.
        for hash in hashes(&connection.handle, public.algorithm()).await.unwrap_or_default() {
            let user = site.user.as_str();
            let result =
                connection.handle.authenticate_publickey_with(user, public.clone(), hash, &mut agent).await;
            match result {
                Ok(AuthResult::Success) => return Ok(Outcome::In),
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    answer = Some((remaining_methods, partial_success));
                }
                // The agent would not sign with this one.
                Err(_) => {}
            }
        }
        if connection.handle.is_closed() {
            break;
        }
    }
    Ok(Outcome::Refused(refusal(connection, site, &shown.join(", "), answer)?))
}

/// Keys that wait for somebody's touch are of no use to a program.
fn usable(identity: AgentIdentity) -> Option<PublicKey> {
    match identity {
        AgentIdentity::PublicKey { key, .. } => {
            let is_usable = matches!(
                key.algorithm(),
                Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. }
            );
            is_usable.then_some(key)
        }
        AgentIdentity::Certificate { .. } => None,
    }
}

/// With which hashes a key may sign there, the best first; never SHA-1.
async fn hashes(handle: &Handle<Greeter>, algorithm: Algorithm) -> Result<Vec<Option<HashAlg>>> {
    if !matches!(algorithm, Algorithm::Rsa { .. }) {
        return Ok(vec![None]);
    }
    match handle.best_supported_rsa_hash().await {
        Ok(Some(Some(hash))) => Ok(vec![Some(hash)]),
        Ok(Some(None)) => {
            let text =
                "the server takes RSA keys only with SHA-1, which is not safe any more: use an ed25519 key";
            Err(Error::new(Kind::Credentials, text))
        }
        // It does not say.
        _ => Ok(vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256)]),
    }
}

/// A sentence for what the server has answered; an error if it has not, because the connection broke.
fn refusal(
    connection: &Connection,
    site: &Site,
    keys: &str,
    answer: Option<(MethodSet, bool)>,
) -> Result<Error> {
    let (host, user) = (site.shown(), &site.user);
    let said = connection.said();
    let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
    let Some((methods, is_partial)) = answer else {
        if connection.handle.is_closed() {
            return Err(connection.broken(site, &russh::Error::Disconnect));
        }
        let text = format!("the SSH agent would not sign for {user} at {host} with any of its keys: {keys}");
        return Ok(Error::new(Kind::Credentials, text));
    };
    let takes = methods.iter().map(String::from).collect::<Vec<_>>().join(", ");
    if is_partial {
        let text = format!(
            "{host} took the key {keys} for the user {user}, but wants more: {takes}; only logging in with a key \
             alone is supported{said}"
        );
        return Ok(Error::new(Kind::Credentials, text));
    }
    if takes.is_empty() && connection.handle.is_closed() {
        let too_many = connection.said().to_lowercase().contains("too many");
        let kind = if too_many { Kind::Credentials } else { Kind::RemoteUnreachable };
        let text = format!("{host} closed the connection while {user} logged in with {keys}{said}");
        let error = Error::new(kind, text);
        return if too_many { Ok(error) } else { Err(error) };
    }
    if !methods.contains(&MethodKind::PublicKey) {
        let takes = if takes.is_empty() { "nothing" } else { &takes };
        let text = format!("{host} does not let the user {user} in with a key; it takes: {takes}{said}");
        return Ok(Error::new(Kind::Credentials, text));
    }
    let text = format!(
        "{host} refused the key {keys} for the user {user}; it takes: {takes}; is the public key recorded there for \
         that user?{said}"
    );
    Ok(Error::new(Kind::Credentials, text))
}
