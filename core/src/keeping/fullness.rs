//! How full a remote's room for large contents is, and when it will be full.
//!
//! In: what the database knows to be there, the configured quota, and what the remote's host says when it is asked. Out:
//! one set of numbers. That a host cannot be asked is no error: what is counted here is known all the same.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::config::{Lfs, Remote, RemoteUrl};
use crate::error::{Error, Kind, Result};
use crate::lfs::client::{self, Client};
use crate::lfs::usage::{Usage, reached};
use crate::names::RepositoryName;
use crate::progress::Progress;
use crate::store::StoreReader;

/// How full a remote is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fullness {
    /// Contents of this repository that are known to be there.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that count against the quota: as the host says, else those of this repository.
    pub used: u64,
    /// Bytes there may be: the smaller of the configured quota and the host's; absent if neither is known.
    pub quota: Option<u64>,
    /// `used` in hundredths of `quota`.
    pub percent: Option<u64>,
    /// The highest threshold of `lfs.warn_at` that was reached.
    pub reached: Option<u8>,
    /// When it will be full if it goes on as in the last month.
    pub full_on: Option<Moment>,
    /// When this was counted.
    pub checked: Moment,
    /// Why the host could not be asked, if it should have been.
    pub trouble: Option<String>,
}

/// What a remote is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'m> {
    /// The repository.
    pub repository: &'m RepositoryName,
    /// Where it stands here.
    pub path: &'m Path,
    /// The remote.
    pub remote: &'m Remote,
    /// For the thresholds.
    pub lfs: &'m Lfs,
}

impl Fullness {
    /// Counts, and asks the host if there is a way.
    ///
    /// # Errors
    /// Of our own database, and cancellation.
    pub fn look(of: Measured<'_>, reader: &StoreReader, progress: &Progress) -> Result<Self> {
        // A directory has no host, and one on a disk that is not mounted cannot be connected to.
        if matches!(of.remote.url, RemoteUrl::Local(_)) {
            return Self::known(of, reader);
        }
        let said = Client::connect(of.remote, of.path, progress).and_then(|client| client.quota(progress));
        match said {
            Err(error) if error.kind() == Kind::Cancelled => Err(error),
            said => Self::counted(of, said, reader),
        }
    }

    /// Counts without asking anybody.
    ///
    /// # Errors
    /// Of our own database.
    pub fn known(of: Measured<'_>, reader: &StoreReader) -> Result<Self> {
        Self::counted(of, Ok(None), reader)
    }

    fn counted(
        of: Measured<'_>,
        said: std::result::Result<Option<client::Usage>, Error>,
        reader: &StoreReader,
    ) -> Result<Self> {
        let checked = Moment::now();
        let now_ms = checked.unix_seconds().saturating_mul(1000);
        let usage = Usage::at(reader, of.repository, &of.remote.name, now_ms)?;
        let (said, trouble) = match said {
            Ok(said) => (said, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let used = said.map_or(usage.bytes, |said| said.used);
        let limits = [of.remote.quota, said.and_then(|said| said.limit)];
        let quota = limits.into_iter().flatten().min();
        let full_in = quota.and_then(|quota| usage.full_in(used, quota));
        Ok(Self {
            objects: usage.objects,
            bytes: usage.bytes,
            used,
            quota,
            percent: quota.map(|quota| percent(used, quota)),
            reached: quota.and_then(|quota| reached(used, quota, &of.lfs.warn_at)),
            full_on: full_in.map(|span| checked.later_by(span)),
            checked,
            trouble,
        })
    }
}

/// Rounded down, so that nothing is called full before it is.
fn percent(used: u64, quota: u64) -> u64 {
    let hundredths = u128::from(used) * 100 / u128::from(quota.max(1));
    u64::try_from(hundredths).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lfs::tests::settings;
    use crate::lfs::{ObjectId, Pointer};
    use crate::store::Store;

    #[test]
    fn the_smaller_quota_counts_and_the_hosts_own_numbers_come_first() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let mut settings = settings("{warn_at: [50, 90]}", &["generic"]);
        let lfs = settings.lfs.clone().unwrap();
        settings.remotes[0].quota = Some(1000);
        let remote = &settings.remotes[0];
        let of = Measured { repository: &settings.name, path: scratch.path(), remote, lfs: &lfs };
        let pointer = Pointer { id: ObjectId([1; 32]), size: 600 };
        store.large(&settings.name, &remote.name).confirm(&[pointer], crate::clock::now_ms()).unwrap();

        let known = Fullness::known(of, &store.reader()).unwrap();
        assert_eq!((known.objects, known.bytes, known.used), (1, 600, 600));
        assert_eq!((known.quota, known.percent, known.reached), (Some(1000), Some(60), Some(50)));
        assert_eq!(known.full_on, None, "a single day tells nothing");

        let with = |said| Fullness::counted(of, said, &store.reader()).unwrap();
        let said = with(Ok(Some(client::Usage { used: 899, limit: Some(900) })));
        assert_eq!((said.bytes, said.used, said.quota), (600, 899, Some(900)));
        assert_eq!((said.percent, said.reached), (Some(99), Some(90)), "99.9 is not 100");
        let wider = with(Ok(Some(client::Usage { used: 0, limit: Some(5000) })));
        assert_eq!((wider.quota, wider.percent, wider.reached), (Some(1000), Some(0), None));
        let silent = with(Err(Error::new(Kind::RemoteUnreachable, "no route")));
        assert_eq!((silent.used, silent.trouble.as_deref()), (600, Some("no route")));
        assert_eq!(percent(u64::MAX, 0), u64::MAX);
    }
}
