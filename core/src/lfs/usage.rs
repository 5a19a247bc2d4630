//! How much of a remote's room for large contents is used, and when it will be full.
//!
//! In: what is known to be there, since when, and how much there may be. Out: numbers, the threshold that was reached,
//! and a date. What was first seen on the first day is the first backup and says nothing of what comes each day.

use std::time::Duration;

use super::pointer::ObjectId;
use crate::error::Result;
use crate::names::{RemoteName, RepositoryName};
use crate::store::StoreReader;
use crate::store::lfs::Confirmed;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Growth is that of so many days.
const WINDOW_MS: i64 = 30 * DAY_MS;
/// A date further away is none.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What is known to be at a remote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Contents.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the first of them was seen there, Unix milliseconds.
    first_ms: Option<i64>,
    /// Bytes that came within the window, after the first day.
    recent: u64,
    /// How long that is, milliseconds.
    over_ms: i64,
}

impl Usage {
    /// Counts what a remote is known to have.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn at(
        reader: &StoreReader,
        repository: &RepositoryName,
        remote: &RemoteName,
        now_ms: i64,
    ) -> Result<Self> {
        let mut usage = Self::default();
        reader.each_large(repository, remote, &mut |_: ObjectId, row: Confirmed| {
            usage.objects += 1;
            usage.bytes = usage.bytes.saturating_add(row.size);
            usage.first_ms = Some(usage.first_ms.map_or(row.since_ms, |first| first.min(row.since_ms)));
        })?;
        let Some(first_ms) = usage.first_ms else { return Ok(usage) };
        let from_ms = first_ms.saturating_add(DAY_MS).max(now_ms.saturating_sub(WINDOW_MS));
        usage.over_ms = now_ms.saturating_sub(from_ms).max(0);
        reader.each_large(repository, remote, &mut |_: ObjectId, row: Confirmed| {
            if row.since_ms >= from_ms {
                usage.recent = usage.recent.saturating_add(row.size);
            }
        })?;
        Ok(usage)
    }

    /// Bytes a day; `None` while there is less than a day to tell it from.
    pub fn daily(&self) -> Option<u64> {
        let daily = u128::from(self.recent) * DAY_MS as u128 / u128::try_from(self.over_ms).ok()?.max(1);
        (self.over_ms >= DAY_MS).then(|| u64::try_from(daily).unwrap_or(u64::MAX))
    }

    /// How long from now until `quota` is reached, with `used` bytes there now, if it goes on like this. `None` if it is
    /// not growing, or not within ten years.
    pub fn full_in(&self, used: u64, quota: u64) -> Option<Duration> {
        let Some(left) = quota.checked_sub(used).filter(|left| *left > 0) else {
            return Some(Duration::ZERO);
        };
        let daily = self.daily().filter(|daily| *daily > 0)?;
        let seconds = u128::from(left) * 86_400 / u128::from(daily);
        let span = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
        (span <= LONGEST).then_some(span)
    }
}

/// Which of these percentages of `quota` the `used` bytes have reached: the highest of them.
pub fn reached(used: u64, quota: u64, warn_at: &[u8]) -> Option<u8> {
    let has_reached = |percent: &&u8| u128::from(used) * 100 >= u128::from(quota) * u128::from(**percent);
    warn_at.iter().filter(has_reached).max().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lfs::Pointer;
    use crate::store::Store;

    #[test]
    fn what_is_there_is_counted_and_what_comes_each_day_tells_when_it_is_full() {
        let scratch = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(scratch.path()).unwrap();
        let (repository, nas) = (RepositoryName::new("r").unwrap(), RemoteName::new("nas").unwrap());
        let at_nas = store.large(&repository, &nas);
        let at = |now_ms| Usage::at(&store.reader(), &repository, &nas, now_ms).unwrap();
        assert_eq!((at(0), at(0).daily()), (Usage::default(), None));
        let put = |byte, size, at_ms| {
            at_nas.confirm(&[Pointer { id: ObjectId([byte; 32]), size }], at_ms).unwrap();
        };
        put(1, 1_000_000, 0);
        assert_eq!(at(DAY_MS).daily(), None, "the first backup tells nothing of later days");
        put(2, 100, 2 * DAY_MS);
        put(3, 300, 4 * DAY_MS);
        let usage = at(5 * DAY_MS);
        assert_eq!((usage.objects, usage.bytes, usage.daily()), (3, 1_000_400, Some(100)));
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!(usage.full_in(usage.bytes, 1_001_400), days(10));
        assert_eq!(usage.full_in(usage.bytes, 1_000_000), days(0));
        assert_eq!(usage.full_in(usage.bytes, u64::MAX), None, "not in anybody's life");
        assert_eq!(at(90 * DAY_MS).daily(), Some(0), "nothing came for a month");
        assert_eq!(at(90 * DAY_MS).full_in(1, 2), None);
        // A clock that went back.
        assert_eq!(at(-5 * DAY_MS).daily(), None);
    }

    #[test]
    fn the_highest_threshold_that_was_reached_counts() {
        let warn_at = [80, 95];
        assert_eq!(reached(79, 100, &warn_at), None);
        assert_eq!(reached(80, 100, &warn_at), Some(80));
        assert_eq!(reached(200, 100, &warn_at), Some(95));
        assert_eq!(reached(u64::MAX, u64::MAX, &warn_at), Some(95));
        assert_eq!(reached(5, 0, &warn_at), Some(95), "nothing is allowed at all");
        assert_eq!(reached(5, 100, &[]), None);
    }
}
