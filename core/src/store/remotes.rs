//! What is known of each remote: where it stands, how the last attempts went, when to try again.
//!
//! The record survives restarts, so backoff does not start over and a halted remote stays halted. It is a
//! cache of the truth, which is the remote's own reference, except for `halted` and the retry times.

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::{PUSH_HISTORY, REMOTES, Store, StoreReader, decode, encode};
use crate::error::Result;
use crate::names::{RemoteName, RepositoryName};

/// Attempts kept in the history of one remote.
const HISTORY_LENGTH: u64 = 1000;

/// A remote that waits for somebody, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// The class: `diverged`, `rewound`, `quota`, `too_large`, `rejected` and the like.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// The branch on the remote that receives the work meanwhile, in full; empty if it is the usual one, or none does.
    pub rescue_branch: String,
    /// The commit last read back there. On the usual branch: without large contents that the remote refused.
    pub rescue_commit: Option<[u8; 20]>,
}

/// What is known of one remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRecord {
    /// BLAKE3 of the address that the rest was learnt at: the same name may come to mean another place.
    pub place: [u8; 32],
    /// The commit that was last read back from its branch.
    pub confirmed: Option<[u8; 20]>,
    /// When that was, Unix milliseconds.
    pub confirmed_at_ms: Option<i64>,
    /// Failed attempts since then.
    pub failures: u32,
    /// The next attempt is not before this, Unix milliseconds.
    pub retry_at_ms: i64,
    /// The words of the last failure.
    pub last_error: Option<String>,
    /// Set while the remote waits for somebody.
    pub halted: Option<Halt>,
}

/// One attempt to bring a remote up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRecord {
    /// When it began, Unix milliseconds.
    pub at_ms: i64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// The commit that was to arrive.
    pub commit: [u8; 20],
    /// Objects sent.
    pub objects: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Absent for success, else the words of the failure.
    pub error: Option<String>,
}

/// One remote's tables with the right to write them.
#[derive(Debug)]
pub struct RemoteStore {
    store: Store,
    repository: RepositoryName,
    remote: RemoteName,
}

impl RemoteStore {
    pub(super) fn new(store: Store, repository: RepositoryName, remote: RemoteName) -> Self {
        Self { store, repository, remote }
    }

    pub(super) fn parts(&self) -> (&Store, &RepositoryName, &RemoteName) {
        (&self.store, &self.repository, &self.remote)
    }

    /// What is known.
    pub fn load(&self) -> Result<RemoteRecord> {
        Ok(self.store.reader().remote(&self.repository, &self.remote)?.unwrap_or_default())
    }

    /// Keeps what is known now and the attempt that taught it, in one transaction.
    pub fn record(&self, record: &RemoteRecord, attempt: Option<&PushRecord>) -> Result<()> {
        let (repository, remote) = (self.repository.as_str(), self.remote.as_str());
        self.store.write(|transaction| {
            transaction.open_table(REMOTES)?.insert((repository, remote), encode(record)?.as_slice())?;
            let Some(attempt) = attempt else { return Ok(()) };
            let mut history = transaction.open_table(PUSH_HISTORY)?;
            let last = {
                let mut rows = history.range((repository, remote, 0)..=(repository, remote, u64::MAX))?;
                rows.next_back().transpose()?.map_or(0, |(key, _)| key.value().2)
            };
            history.insert((repository, remote, last + 1), encode(attempt)?.as_slice())?;
            let oldest_kept = (last + 1).saturating_sub(HISTORY_LENGTH);
            history
                .retain_in((repository, remote, 0)..(repository, remote, oldest_kept + 1), |_, _| false)?;
            Ok(())
        })
    }
}

impl StoreReader {
    /// What is known of a remote.
    pub fn remote(&self, repository: &RepositoryName, remote: &RemoteName) -> Result<Option<RemoteRecord>> {
        self.store().read(|transaction| {
            let found = transaction.open_table(REMOTES)?.get((repository.as_str(), remote.as_str()))?;
            found.map(|value| decode(value.value())).transpose()
        })
    }

    /// The latest attempts at a remote, newest first, at most `most`.
    pub fn push_history(
        &self,
        repository: &RepositoryName,
        remote: &RemoteName,
        most: usize,
    ) -> Result<Vec<PushRecord>> {
        let (repository, remote) = (repository.as_str(), remote.as_str());
        self.store().read(|transaction| {
            let history = transaction.open_table(PUSH_HISTORY)?;
            let rows = history.range((repository, remote, 0)..=(repository, remote, u64::MAX))?;
            rows.rev()
                .take(most)
                .map(|row| {
                    let (_, value) = row?;
                    decode(value.value())
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_keeps_the_newest_attempts() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let (repository, remote) = (RepositoryName::new("r").unwrap(), RemoteName::new("nas").unwrap());
        let tables = store.remote(&repository, &remote);
        assert_eq!(tables.load().unwrap(), RemoteRecord::default());
        let attempt =
            |at_ms| PushRecord { at_ms, took_ms: 1, commit: [1; 20], objects: 0, bytes: 0, error: None };
        for at_ms in 0..5 {
            let record = RemoteRecord { confirmed_at_ms: Some(at_ms), ..RemoteRecord::default() };
            tables.record(&record, Some(&attempt(at_ms))).unwrap();
        }
        assert_eq!(tables.load().unwrap().confirmed_at_ms, Some(4));
        let newest = store.reader().push_history(&repository, &remote, 2).unwrap();
        assert_eq!(newest.iter().map(|push| push.at_ms).collect::<Vec<_>>(), [4, 3]);
    }
}
