//! Which large contents are known to be at each remote, since when.
//!
//! A cache of what servers said, for numbers and for what is asked again: nothing is taken away here, and no push is
//! called complete, on the strength of a row. A row is written whole by who asked the server, in one transaction.

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::{LFS, RemoteStore, Store, StoreReader, decode, encode};
use crate::error::Result;
use crate::lfs::{ObjectId, Pointer};
use crate::names::{RemoteName, RepositoryName};

/// What is known of one content at one remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Its bytes.
    pub size: u64,
    /// When the remote first said that it has it, Unix milliseconds.
    pub since_ms: i64,
    /// When it last said so.
    pub at_ms: i64,
    /// When it was last read from there and was right.
    pub read_ms: Option<i64>,
}

/// One remote's large contents, with the right to write what is known of them.
#[derive(Debug)]
pub struct LargeStore {
    store: Store,
    repository: RepositoryName,
    remote: RemoteName,
}

impl Store {
    /// What is known of the large contents at a remote, for writing. Only who asks that remote may.
    pub fn large(&self, repository: &RepositoryName, remote: &RemoteName) -> LargeStore {
        LargeStore { store: self.clone(), repository: repository.clone(), remote: remote.clone() }
    }
}

impl RemoteStore {
    /// What is known of the large contents at this remote.
    pub fn large(&self) -> LargeStore {
        let (store, repository, remote) = self.parts();
        store.large(repository, remote)
    }
}

impl LargeStore {
    /// The remote said at `at_ms` that it has these.
    pub fn confirm(&self, pointers: &[Pointer], at_ms: i64) -> Result<()> {
        self.edit(pointers, |former, pointer| Confirmed {
            size: pointer.size,
            since_ms: former.map_or(at_ms, |former| former.since_ms),
            at_ms,
            read_ms: former.and_then(|former| former.read_ms),
        })
    }

    /// These were read from the remote at `at_ms` and were right.
    pub fn confirm_read(&self, pointers: &[Pointer], at_ms: i64) -> Result<()> {
        self.edit(pointers, |former, pointer| Confirmed {
            size: pointer.size,
            since_ms: former.map_or(at_ms, |former| former.since_ms),
            at_ms,
            read_ms: Some(at_ms),
        })
    }

    fn edit(
        &self,
        pointers: &[Pointer],
        row: impl Fn(Option<Confirmed>, &Pointer) -> Confirmed,
    ) -> Result<()> {
        if pointers.is_empty() {
            return Ok(());
        }
        let (repository, remote) = (self.repository.as_str(), self.remote.as_str());
        self.store.write(|transaction| {
            let mut table = transaction.open_table(LFS)?;
            for pointer in pointers {
                let key = (repository, remote, pointer.id.0.as_slice());
                let former: Option<Confirmed> = {
                    let found = table.get(key)?;
                    found.map(|value| decode(value.value())).transpose()?
                };
                table.insert(key, encode(&row(former, pointer))?.as_slice())?;
            }
            Ok(())
        })
    }

    /// The remote does not have these any more.
    pub fn forget(&self, ids: &[ObjectId]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let (repository, remote) = (self.repository.as_str(), self.remote.as_str());
        self.store.write(|transaction| {
            let mut table = transaction.open_table(LFS)?;
            for id in ids {
                table.remove((repository, remote, id.0.as_slice()))?;
            }
            Ok(())
        })
    }

    /// Another place is called by the remote's name now: nothing is known of it.
    pub fn forget_all(&self) -> Result<()> {
        let (repository, remote) = (self.repository.as_str(), self.remote.as_str());
        self.store.write(|transaction| {
            let mut table = transaction.open_table(LFS)?;
            table.retain_in(
                (repository, remote, [0u8; 0].as_slice())..=(repository, remote, LAST),
                |_, _| false,
            )?;
            Ok(())
        })
    }
}

/// No id is behind it.
const LAST: &[u8] = &[0xff; 33];

impl StoreReader {
    /// What is known of one content at a remote.
    pub fn large(
        &self,
        repository: &RepositoryName,
        remote: &RemoteName,
        id: &ObjectId,
    ) -> Result<Option<Confirmed>> {
        self.store().read(|transaction| {
            let table = transaction.open_table(LFS)?;
            let found = table.get((repository.as_str(), remote.as_str(), id.0.as_slice()))?;
            found.map(|value| decode(value.value())).transpose()
        })
    }

    /// Tells of every content that a remote is known to have, in the order of their names.
    pub fn each_large(
        &self,
        repository: &RepositoryName,
        remote: &RemoteName,
        tell: &mut dyn FnMut(ObjectId, Confirmed),
    ) -> Result<()> {
        let (repository, remote) = (repository.as_str(), remote.as_str());
        self.store().read(|transaction| {
            let table = transaction.open_table(LFS)?;
            for row in table.range((repository, remote, [0u8; 0].as_slice())..=(repository, remote, LAST))? {
                let (key, value) = row?;
                if let Ok(id) = <[u8; 32]>::try_from(key.value().2) {
                    tell(ObjectId(id), decode(value.value())?);
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_remote_has_is_kept_by_remote_and_forgotten_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let repository = RepositoryName::new("r").unwrap();
        let (nas, usb) = (RemoteName::new("nas").unwrap(), RemoteName::new("usb").unwrap());
        let pointer = |byte, size| Pointer { id: ObjectId([byte; 32]), size };
        let (first, last) = (pointer(0, 1), pointer(255, 2));
        let at_nas = store.large(&repository, &nas);
        at_nas.confirm(&[first, last], 10).unwrap();
        at_nas.confirm(&[first], 20).unwrap();
        at_nas.confirm_read(&[last], 30).unwrap();
        store.large(&repository, &usb).confirm(&[first], 40).unwrap();
        let reader = store.reader();
        let all = |remote: &RemoteName| {
            let mut all = Vec::new();
            reader.each_large(&repository, remote, &mut |id, row| all.push((id, row))).unwrap();
            all
        };
        let row = |size, since_ms, at_ms, read_ms| Confirmed { size, since_ms, at_ms, read_ms };
        assert_eq!(all(&nas), [(first.id, row(1, 10, 20, None)), (last.id, row(2, 10, 30, Some(30)))]);
        at_nas.forget(&[first.id]).unwrap();
        assert_eq!(reader.large(&repository, &nas, &first.id).unwrap(), None);
        assert_eq!(reader.large(&repository, &usb, &first.id).unwrap(), Some(row(1, 40, 40, None)));
        at_nas.forget_all().unwrap();
        assert_eq!((all(&nas).len(), all(&usb).len()), (0, 1));
    }
}
