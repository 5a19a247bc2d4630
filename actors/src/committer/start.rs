//! The first steps of a committer's life: the repository exists, no crash's half is left in it, a history that
//! was lost here is continued, and the stat cache is believed only if it belongs to the branch.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use backupbot_core::adopt;
use backupbot_core::error::{Error, Result};
use backupbot_core::fault;
use backupbot_core::git::pack;
use backupbot_core::git::refs;
use backupbot_core::git::repository::Repository;
use backupbot_core::names::RootName;
use backupbot_core::progress::Progress;
use backupbot_core::snapshot::{self, Recovered};
use backupbot_core::store::StoreReader;
use backupbot_core::store::checkpoints::{Checkpoint, Settlement, StagedCommit};
use backupbot_core::store::files::FileDelta;
use backupbot_core::transport;
use git2::Oid;
use slog::{Logger, info, warn};
use tokio::sync::mpsc;

use super::{Trouble, run_job};
use crate::messages::{DistrustFiles, Settle, Unstage};
use crate::queue::Queue;
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;

/// The first steps of a committer's life: the repository exists, and no crash's half is left in it.
pub(super) struct Start {
    pub(super) seat: Arc<RepositorySeat>,
    pub(super) exit: ExitHandle,
    pub(super) queue: Addr<Queue>,
    pub(super) log: Logger,
}

impl Start {
    pub(super) async fn run(self) -> std::result::Result<Option<Oid>, Trouble> {
        let name = self.seat.settings.name.clone();
        let (seat, reader) = (self.seat.clone(), self.seat.common.store.reader());
        let staged = run_job(&self.exit, "recover", move |_| recover(&seat, &reader)).await?;
        match staged {
            Some((Recovered::Settle, staged)) => {
                info!(self.log, "a commit that was on its way is settled");
                let settlement = staged.settlement;
                self.queue.send(Settle { repository: name.clone(), settlement }).await??;
            }
            Some((Recovered::Drop, _)) => {
                info!(self.log, "a commit that was on its way is undone; its changes are still queued");
                self.queue.send(Unstage(name.clone())).await??;
            }
            None => {}
        }
        let seat = self.seat.clone();
        let log = self.log.clone();
        run_job(&self.exit, "adopt", move |progress| adopt_history(&seat, &log, progress)).await?;
        let (seat, reader) = (self.seat.clone(), self.seat.common.store.reader());
        let (tip, trusted) = run_job(&self.exit, "check", move |_| check_cache(&seat, &reader)).await?;
        if !trusted {
            warn!(
                self.log,
                "the cache of known files does not belong to this history; everything is read again"
            );
            self.queue.send(DistrustFiles(name)).await??;
            if let Some(tip) = tip {
                self.rebuild_cache(tip).await?;
            }
        }
        Ok(tip)
    }

    /// Fills the stat cache from the tip, in parts, the checkpoint last: a start that finds no checkpoint begins
    /// again.
    async fn rebuild_cache(&self, tip: Oid) -> std::result::Result<(), Trouble> {
        let (tell, mut parts) = mpsc::channel(2);
        let (seat, exit) = (self.seat.clone(), self.exit.clone());
        let job = actix_rt::spawn(async move {
            run_job(&exit, "rebuild", move |progress| rebuild(&seat, tip, &tell, progress)).await
        });
        let repository = self.seat.settings.name.clone();
        while let Some(files) = parts.recv().await {
            let settlement = Settlement { files: vec![files], ..Settlement::default() };
            self.queue.send(Settle { repository: repository.clone(), settlement }).await??;
        }
        let batch = match job.await {
            Ok(batch) => batch?,
            Err(error) => return Err(Trouble::Panicked(error.to_string())),
        };
        let checkpoint = Some(Checkpoint { commit: snapshot::raw(tip), at_ms: now_ms(), batch });
        let settlement = Settlement { checkpoint, ..Settlement::default() };
        self.queue.send(Settle { repository, settlement }).await??;
        Ok(())
    }
}

type Part = (RootName, Vec<FileDelta>);

/// Hands over what the tip holds of each root; returns the number of the batch that made it.
fn rebuild(seat: &RepositorySeat, tip: Oid, tell: &mpsc::Sender<Part>, progress: &Progress) -> Result<u64> {
    let repository = Repository::open(&seat.path)?;
    for root in seat.roots.iter() {
        snapshot::rebuild_files(&repository, tip, &root.name, progress, &mut |deltas| {
            tell.blocking_send((root.name.clone(), deltas)).map_err(|_| Error::cancelled())
        })?;
        fault::point("rebuild:root-handed-over");
    }
    snapshot::batch_of(&repository, tip)
}

/// Opens or makes the repository, sweeps leftovers, and finishes or undoes a staged commit on disk.
fn recover(seat: &RepositorySeat, reader: &StoreReader) -> Result<Option<(Recovered, StagedCommit)>> {
    fault::point("actor:committer:job");
    let (repository, _) = Repository::open_or_create(&seat.path, &seat.branch()?, "state", "state")?;
    refs::sweep_stale_locks(&seat.path, Duration::ZERO, std::time::SystemTime::now());
    let staged = reader.staged(&seat.settings.name)?;
    let kept = staged.as_ref().map(|staged| staged.pack.as_str());
    pack::sweep_temporary(&repository.pack_directory(), kept)?;
    let Some(staged) = staged else { return Ok(None) };
    let recovered = snapshot::recover(&repository, &staged)?;
    Ok(Some((recovered, staged)))
}

/// Continues a remote's history where this machine has none.
fn adopt_history(seat: &RepositorySeat, log: &Logger, progress: &Progress) -> Result<()> {
    let repository = Repository::open(&seat.path)?;
    let branch = seat.branch()?;
    if repository.reference(&branch)?.is_some()
        || seat.common.store.reader().checkpoint(&seat.settings.name)?.is_some()
    {
        return Ok(());
    }
    let roots: Vec<RootName> = seat.roots.iter().map(|root| root.name.clone()).collect();
    let mut offers = Vec::new();
    for remote in &seat.settings.remotes {
        let asked = transport::connect(&remote.url, &branch, &seat.path).and_then(|(mut transport, _)| {
            adopt::ask(&remote.name, transport.as_mut(), &branch, &seat.common.instance, &roots)
        });
        match asked {
            Ok(offer) => offers.extend(offer),
            Err(error) => {
                warn!(log, "a remote cannot be asked for its history; it is compared when it is reached";
                                "remote" => %remote.name, "error" => %error)
            }
        }
    }
    let Some(offer) = adopt::leading(&offers) else { return Ok(()) };
    let Some(remote) = seat.settings.remotes.iter().find(|remote| remote.name == offer.remote) else {
        return Ok(());
    };
    info!(log, "the state is new here and a remote has our history: continuing it"; "remote" => %remote.name,
          "commit" => %offer.tip);
    let (mut transport, _) = transport::connect(&remote.url, &branch, &seat.path)?;
    adopt::take_over(&repository, &branch, transport.as_mut(), offer, progress)
}

/// The branch's tip, and whether the stat cache may be believed: its checkpoint is in the tip's history.
fn check_cache(seat: &RepositorySeat, reader: &StoreReader) -> Result<(Option<Oid>, bool)> {
    let repository = Repository::open(&seat.path)?;
    let tip = repository.reference(&seat.branch()?)?;
    let Some(checkpoint) = reader.checkpoint(&seat.settings.name)? else {
        // Without a checkpoint the cache is empty or half made; only an empty branch needs none.
        return Ok((tip, tip.is_none() && !has_any_file(seat, reader)?));
    };
    let commit = snapshot::oid(&checkpoint.commit)?;
    let trusted = match tip {
        Some(tip) => repository.is_ancestor(commit, tip)?,
        // The branch has a new name (its template has a date): it continues from the checkpoint.
        None => repository.has_commit(commit),
    };
    Ok((tip.or(Some(commit).filter(|_| trusted)), trusted))
}

fn has_any_file(seat: &RepositorySeat, reader: &StoreReader) -> Result<bool> {
    let files = reader.files(&seat.settings.name)?;
    for root in seat.roots.iter() {
        if files.has_any(&root.name)? {
            return Ok(true);
        }
    }
    Ok(false)
}
