//! The looks themselves: functions that block, for the blocking pool.

use std::sync::Arc;
use std::time::Duration;

use backupbot_core::config::{Alerts, Remote, RemoteUrl};
use backupbot_core::disk::Room;
use backupbot_core::error::{Error, Fate, Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::health::{self, Draw, Expected, Health};
use backupbot_core::git::repository::OWN_ORIGIN;
use backupbot_core::git::size;
use backupbot_core::progress::Progress;
use backupbot_core::snapshot;
use backupbot_core::transport;

use super::rules;
use crate::board::{Finding, Moment, StateSizes};
use crate::lag;
use crate::seat::RepositorySeat;

/// The least patience of the configuration's and this: others wait to be looked at.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a repository is read at one look.
const SAMPLE_OBJECTS: u64 = 1000;
const SAMPLE_BYTES: u64 = 256 << 20;
/// A repository that is worked in may look damaged for a moment: a pack between two names, or merged away.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// What was seen of this machine.
pub(super) struct Around {
    pub findings: Vec<Finding>,
    pub sizes: StateSizes,
}

/// Room, sizes if they are wanted (else the `former` stay), and how far each remote lags.
pub(super) fn look_around(
    seats: &[Arc<RepositorySeat>],
    limits: &Alerts,
    former: StateSizes,
    with_sizes: bool,
    progress: &Progress,
) -> Result<Around> {
    fault::point("actor:health:job");
    let mut findings = Vec::new();
    let mut sizes = former;
    let Some(common) = seats.first().map(|seat| &seat.common) else { return Ok(Around { findings, sizes }) };
    let room = Room::of(&common.state_dir)?;
    sizes.disk_free = room.bytes;
    findings.push(rules::room(&room, limits));
    for seat in seats {
        progress.check()?;
        let name = &seat.settings.name;
        if with_sizes && seat.path.exists() {
            sizes.repositories.insert(name.clone(), size::bytes_below(&seat.path, progress)?);
        }
        // A repository that cannot be read is told of elsewhere, and hides nothing of the others.
        let Ok(lags) = lag::of_repository(seat, Moment::now()) else { continue };
        for (remote, lag) in lags {
            findings.push(rules::lag(name, &remote, lag.unprotected_seconds, lag.last_success, limits));
        }
    }
    Ok(Around { findings, sizes })
}

/// What a look at a remote came to.
pub(super) struct Reached {
    /// `None`: nothing can be said.
    pub finding: Option<Finding>,
    /// Whether it may be asked again soon: wrong passwords lock accounts.
    pub is_refusal: bool,
}

/// Asks a remote for its references, as a push begins, and nothing more.
pub(super) fn look_at_remote(seat: &RepositorySeat, remote: &Remote, progress: &Progress) -> Result<Reached> {
    let mut hasty = remote.clone();
    hasty.timeouts.stall = hasty.timeouts.stall.min(PATIENCE);
    hasty.timeouts.answer = hasty.timeouts.answer.min(PATIENCE);
    let asked = transport::connect_to_test(&hasty, &seat.path, progress)
        .and_then(|connected| connected.map(|mut transport| transport.advertise()).transpose());
    let name = &seat.settings.name;
    let found = match asked {
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            let record = seat.common.store.reader().remote(name, &remote.name)?;
            if record.is_none_or(|record| record.confirmed.is_none()) {
                // The first push makes it.
                return Ok(Reached { finding: None, is_refusal: false });
            }
            Err(Error::new(Kind::RemoteUnreachable, format!("{} is gone: is its disk mounted?", remote.url)))
        }
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        Err(error) if error.kind() == Kind::Busy => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = &found
        && is_our_own(remote, error.kind())
    {
        return Ok(Reached { finding: None, is_refusal: false });
    }
    let is_refusal = found.as_ref().is_err_and(|error| error.fate() == Fate::Halt);
    let finding = rules::reachability(name, &remote.name, found.map_err(|error| error.to_string()));
    Ok(Reached { finding: Some(finding), is_refusal })
}

/// Trouble of this machine, which says nothing about a remote behind a network.
fn is_our_own(remote: &Remote, kind: Kind) -> bool {
    match kind {
        Kind::Limit | Kind::Store | Kind::DiskFull | Kind::Internal => true,
        Kind::Io | Kind::Git => !matches!(remote.url, RemoteUrl::Local(_)),
        _ => false,
    }
}

/// Reads a sample of the repository. Damage counts when it was seen at each of several looks.
pub(super) fn sample(seat: &RepositorySeat, progress: &Progress) -> Result<Health> {
    let reader = seat.common.store.reader();
    let mut seed = [0; 8];
    // Without randomness the same objects are read each time; that is still a sample.
    let _ = getrandom::fill(&mut seed);
    let draw = Draw { objects: SAMPLE_OBJECTS, bytes: SAMPLE_BYTES, seed: u64::from_le_bytes(seed) };
    let mut look = 1;
    loop {
        let checkpoint = reader.checkpoint(&seat.settings.name)?;
        let checkpoint = checkpoint.map(|checkpoint| snapshot::oid(&checkpoint.commit)).transpose()?;
        let branch = seat.branch()?;
        let expected = Expected { origin: OWN_ORIGIN, branch: &branch, checkpoint };
        let health = health::sample(&seat.path, &expected, draw, progress)?;
        if look == LOOKS || !matches!(health, Health::Damaged(_)) {
            return Ok(health);
        }
        look += 1;
        progress.check()?;
        std::thread::sleep(BETWEEN_LOOKS);
    }
}
