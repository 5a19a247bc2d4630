//! What opens OpenPGP messages: private keys in hand, or `gpg` with its agent.
//!
//! In: a message, from a repository, which anybody may have written to. Out: its plaintext, of which nothing counts until the
//! end came without an error. A host that only writes has none of this.

use std::io::{BufRead, Write};
use std::sync::Arc;

use super::openpgp::{self, PrivateKey};
use crate::error::Result;
use crate::progress::Progress;

/// What opens OpenPGP messages.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    private: Vec<Arc<PrivateKey>>,
    agent: bool,
}

impl Opener {
    /// Opens with these keys and, if none of them does, with `gpg` and its agent where `agent` says so.
    pub fn new(private: Vec<Arc<PrivateKey>>, agent: bool) -> Self {
        Self { private, agent }
    }

    /// Whether there is anything to open with.
    pub fn is_able(&self) -> bool {
        self.agent || !self.private.is_empty()
    }

    /// The private keys.
    pub fn private(&self) -> &[Arc<PrivateKey>] {
        &self.private
    }

    /// This one, and what another one has.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let private = self.private.iter().chain(&other.private).cloned().collect();
        Self { private, agent: self.agent || other.agent }
    }

    /// Decrypts a message of any size; gives the number of bytes written, which are at most `limit`.
    ///
    /// # Errors
    /// As [`openpgp::decrypt`].
    pub fn decrypt(
        &self,
        message: impl BufRead + Send,
        out: impl Write,
        limit: u64,
        progress: &Progress,
    ) -> Result<u64> {
        let keys: Vec<&PrivateKey> = self.private.iter().map(AsRef::as_ref).collect();
        openpgp::decrypt(message, &keys, out, limit, progress)
    }
}
