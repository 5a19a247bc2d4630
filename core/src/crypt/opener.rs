//! What opens OpenPGP messages: private keys in hand, or `gpg` with its agent.
//!
//! In: a message, from a repository, which anybody may have written to. Out: its plaintext, of which nothing counts until the
//! end came without an error. A host that only writes has none of this. [`Decryptor`] does the same where a message comes in
//! pieces that somebody else reads.

mod agent;
mod decryptor;

#[cfg(test)]
mod tests;

use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use zeroize::Zeroizing;

use self::agent::Agent;
pub use self::decryptor::Decryptor;
use super::openpgp::header::{self, Header};
use super::openpgp::{self, PrivateKey};
use crate::error::Result;
use crate::progress::Progress;

/// What opens OpenPGP messages.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    private: Vec<Arc<PrivateKey>>,
    agent: Option<Arc<Agent>>,
}

impl Opener {
    /// Opens with these keys and, what is for none of them, with `gpg` and its agent where `agent` says so.
    pub fn new(private: Vec<Arc<PrivateKey>>, agent: bool) -> Self {
        Self { private, agent: agent.then(Arc::default) }
    }

    /// Opens with the `gpg` that has this home.
    #[cfg(test)]
    pub(crate) fn with_gpg_of(private: Vec<Arc<PrivateKey>>, home: &std::path::Path) -> Self {
        Self { private, agent: Some(Arc::new(Agent::at_home(home))) }
    }

    /// Whether there is anything to open with.
    pub fn is_able(&self) -> bool {
        self.asks_gpg() || !self.private.is_empty()
    }

    /// Whether `gpg` is asked for what no private key in hand opens.
    pub fn asks_gpg(&self) -> bool {
        self.agent.is_some()
    }

    /// The private keys.
    pub fn private(&self) -> &[Arc<PrivateKey>] {
        &self.private
    }

    /// This one, and what another one has.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let private = self.private.iter().chain(&other.private).cloned().collect();
        Self { private, agent: self.agent.as_ref().or(other.agent.as_ref()).cloned() }
    }

    /// Decrypts a message of any size; gives the number of bytes written, which are at most `limit`. What names no key in hand
    /// as its recipient, or hides for whom it is, goes to `gpg` where there is one.
    ///
    /// # Errors
    /// As [`openpgp::decrypt`]; [`Kind::EncryptionKey`](crate::error::Kind::EncryptionKey) if `gpg` is not there, has no key
    /// for it, or was not given the passphrase.
    pub fn decrypt(
        &self,
        mut message: impl BufRead + Send,
        out: impl Write,
        limit: u64,
        progress: &Progress,
    ) -> Result<u64> {
        let Some(agent) = &self.agent else { return self.by_keys(message, out, limit, progress) };
        let mut head = Vec::new();
        let read = message.by_ref().take(header::ENOUGH_BYTES as u64).read_to_end(&mut head);
        read.map_err(|error| super::error_of(error, "read what is to be decrypted"))?;
        // Whatever else gpg would do with: nothing but what is encrypted, with a proof, ever gets there.
        let header = header::look(&head).ok_or_else(openpgp::is_no_message)?;
        let message = (&head[..]).chain(message);
        if self.is_for_a_key_in_hand(&header) {
            return self.by_keys(message, out, limit, progress);
        }
        agent.decrypt(message, out, limit, progress)
    }

    fn by_keys(
        &self,
        message: impl BufRead + Send,
        out: impl Write,
        limit: u64,
        progress: &Progress,
    ) -> Result<u64> {
        let keys: Vec<&PrivateKey> = self.private.iter().map(AsRef::as_ref).collect();
        openpgp::decrypt(message, &keys, out, limit, progress)
    }

    fn is_for_a_key_in_hand(&self, header: &Header) -> bool {
        self.private.iter().any(|key| key.key_ids().any(|id| header.recipients.contains(&id)))
    }

    /// A message in memory, decrypted.
    ///
    /// # Errors
    /// As [`Opener::decrypt`].
    pub fn decrypt_whole(
        &self,
        message: &[u8],
        limit: u64,
        progress: &Progress,
    ) -> Result<Zeroizing<Vec<u8>>> {
        // Never moved while it grows, as far as an honest message goes: what it was moved from would stay in memory.
        let room = usize::try_from(limit).unwrap_or(usize::MAX).min(message.len());
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        self.decrypt(message, &mut *out, limit, progress)?;
        Ok(out)
    }
}
