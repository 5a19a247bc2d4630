//! What a batch is built from: the seat's settings, what the database knows, and the room that there is.

use std::collections::BTreeMap;

use backupbot_core::config::MassChangePolicy;
use backupbot_core::crypt::sealer::Sealer;
use backupbot_core::disk::Room;
use backupbot_core::error::Result;
use backupbot_core::fault;
use backupbot_core::git::repository::Repository;
use backupbot_core::guard::Guard;
use backupbot_core::guard::restores::Restores;
use backupbot_core::lfs::{Classifier, Pointer};
use backupbot_core::progress::Progress;
use backupbot_core::restore::journal;
use backupbot_core::scan::Limit;
use backupbot_core::snapshot::{self, Batch, Built};
use backupbot_core::store::changes::TakenRow;

use super::cycle::WALK_FINDINGS;
use crate::seat::RepositorySeat;

/// Reads `rows` into a pack, as the seat's settings say.
pub(super) fn build(seat: &RepositorySeat, rows: Vec<TakenRow>, progress: &Progress) -> Result<Built> {
    fault::point("actor:committer:job");
    let repository = Repository::open(&seat.path)?;
    let reader = seat.common.store.reader();
    let checkpoint = reader.checkpoint(&seat.settings.name)?;
    let base = checkpoint.as_ref().map(|checkpoint| snapshot::oid(&checkpoint.commit)).transpose()?;
    let files = reader.files(&seat.settings.name)?;
    let branch = seat.branch()?;
    // What is left of the disk may hold a smaller commit. (A limit of nothing would take nothing, for ever.)
    let spare = Room::of(&seat.path)?.spare().max(1);
    let record = reader.guard(&seat.settings.name)?;
    let limits = &seat.settings.mass_change;
    let journals = seat.common.state_dir.join(journal::DIRECTORY);
    // Read anew for each batch; without its key nothing is stored.
    let encryption = seat.settings.encryption.as_ref();
    let sealer = Sealer::read(encryption)?;
    let form = sealer.as_ref().map(|sealer| sealer.policy().clone());
    let restores = Restores::read(&journals, seat.settings.name.as_str(), limits.window, form);
    let since = record.since.iter().map(|(root, commit)| Ok((root.clone(), snapshot::oid(commit)?)));
    let since = since.collect::<Result<BTreeMap<_, _>>>()?;
    let is_guarded = limits.policy != MassChangePolicy::Off && record.quarantine.is_none();
    let guard = Guard { limits, memory: &seat.guard, since: &since, restores: &restores };
    let batch = Batch {
        guard: is_guarded.then_some(guard),
        repository: &repository,
        branch: &branch,
        base,
        identity: (&seat.common.identity.name, &seat.common.identity.email),
        instance: &seat.common.instance,
        tags: &seat.settings.tags,
        roots: &seat.roots,
        rows,
        classifier: &Classifier::of(&seat.settings),
        encryption,
        sealer: sealer.as_ref(),
        is_everywhere: &|pointer| is_everywhere(seat, pointer),
        files: &files,
        large_file: seat.settings.batch.bytes,
        limit: Limit {
            findings: seat.settings.batch.files.max(WALK_FINDINGS),
            bytes: seat.settings.batch.bytes.min(spare),
        },
        number: checkpoint.map_or(0, |checkpoint| checkpoint.batch) + 1,
        threads: std::thread::available_parallelism().map_or(2, usize::from).min(8),
    };
    snapshot::build(&batch, progress)
}

/// Whether every remote is known to have a large content.
fn is_everywhere(seat: &RepositorySeat, pointer: &Pointer) -> Result<bool> {
    let reader = seat.common.store.reader();
    for remote in &seat.settings.remotes {
        if reader.large(&seat.settings.name, &remote.name, &pointer.id)?.is_none() {
            return Ok(false);
        }
    }
    Ok(!seat.settings.remotes.is_empty())
}
