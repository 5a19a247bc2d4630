//! How far each remote lags behind what was changed here, from the store and the repository, whatever the actors do.
//!
//! A remote is unprotected since the older of its oldest missing commit and the oldest change that is in no commit. This
//! blocks.

use std::collections::BTreeMap;

use backupbot_core::error::Result;
use backupbot_core::names::RemoteName;
use backupbot_core::push::delivery;
use backupbot_core::push::tally;
use backupbot_core::snapshot;
use backupbot_core::store::remotes::RemoteRecord;

use crate::board::Moment;
use crate::seat::RepositorySeat;

/// One remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// 0 if nothing waits.
    pub unprotected_seconds: u64,
    /// When its branch was last read back and was ours.
    pub last_success: Option<Moment>,
    /// Whether its history is not ours.
    pub is_diverged: bool,
}

/// Every configured remote of a repository.
///
/// # Errors
/// If store or repository cannot be read.
pub fn of_repository(seat: &RepositorySeat, now: Moment) -> Result<BTreeMap<RemoteName, Lag>> {
    let reader = seat.common.store.reader();
    let oldest = reader.oldest_change_ms(&seat.settings.name)?;
    let queued = oldest.and_then(moment).map_or(0, |since| now.seconds_since(since));
    let mut lags = BTreeMap::new();
    for remote in &seat.settings.remotes {
        let record = reader.remote(&seat.settings.name, &remote.name)?.unwrap_or_default();
        let lag = Lag {
            unprotected_seconds: queued.max(committed_for(seat, &record, now)?),
            last_success: record.confirmed_at_ms.and_then(moment),
            is_diverged: record.halted.is_some_and(|halt| tally::is_divergence(&halt.reason)),
        };
        lags.insert(remote.name.clone(), lag);
    }
    Ok(lags)
}

/// For how many seconds the oldest commit that a remote lacks has been waiting.
pub(crate) fn committed_for(seat: &RepositorySeat, record: &RemoteRecord, now: Moment) -> Result<u64> {
    let confirmed = record.confirmed.as_ref().map(snapshot::oid).transpose()?;
    let since = delivery::unconfirmed_since_ms(&seat.path, &seat.branch()?, confirmed)?;
    Ok(since.and_then(moment).map_or(0, |since| now.seconds_since(since)))
}

fn moment(ms: i64) -> Option<Moment> {
    Moment::from_unix_seconds(ms / 1000)
}
