//! The first steps of a committer's life: the repository exists and is sound, no crash's half is left in it, a
//! history that was lost here is continued, and the stat cache is believed only if it belongs to the branch.
//!
//! The same steps are taken again when a batch, a push or housekeeping met something that should not be: then
//! with the reason why the repository has to be replaced.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use backupbot_core::adopt::{self, Offer};
use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::health::{self, Expected, Health};
use backupbot_core::git::pack;
use backupbot_core::git::refs;
use backupbot_core::git::repository::Repository;
use backupbot_core::guard;
use backupbot_core::heal::{self, Continued, Healed, Patient};
use backupbot_core::lfs::{Objects, fetched};
use backupbot_core::names::RootName;
use backupbot_core::progress::Progress;
use backupbot_core::snapshot::{self, Recovered};
use backupbot_core::store::StoreReader;
use backupbot_core::store::checkpoints::{Checkpoint, Settlement, StagedCommit};
use backupbot_core::store::files::FileDelta;
use backupbot_core::transport;
use git2::Oid;
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc;

use backupbot_core::git::repository::OWN_ORIGIN as ORIGIN;

use super::cycle::clock_went_back;
use super::{Trouble, run_job};
use crate::measure::{self, Rescan};
use crate::messages::{DistrustFiles, GuardNote, KeepOnly, NoteOfGuard, Settle, Unstage};
use crate::queue::Queue;
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;
use crate::trail;

/// Other tools' temporary files in our repository are left over after this; a `git gc` may take hours.
const FOREIGN_GRACE: Duration = Duration::from_secs(24 * 3600);

/// What a committer begins with.
pub(super) struct Started {
    pub(super) tip: Option<Oid>,
    /// Commits up to the tip that are clear text, where encryption is configured and that was accepted.
    pub(super) clear_history: u64,
}

/// The first steps of a committer's life: the repository is sound, and no crash's half is left in it.
pub(super) struct Start {
    pub(super) seat: Arc<RepositorySeat>,
    pub(super) exit: ExitHandle,
    pub(super) queue: Addr<Queue>,
    pub(super) log: Logger,
    /// Why the repository has to be replaced, if that is known already.
    pub(super) damage: Option<String>,
}

impl Start {
    pub(super) async fn run(self) -> std::result::Result<Started, Trouble> {
        let name = self.seat.settings.name.clone();
        let (seat, damage) = (self.seat.clone(), self.damage.clone());
        let found = run_job(&self.exit, "recover", move |progress| recover(&seat, damage, progress)).await?;
        if let Some((reason, healed)) = &found.healed {
            let words = healed.in_words(&self.seat.path, reason);
            error!(self.log, "{}", words);
            self.seat.common.board.recovered("repository", name.as_str(), &words);
        }
        match found.staged {
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
        self.finish_approval().await?;
        let roots: Vec<RootName> = self.seat.roots.iter().map(|root| root.name.clone()).collect();
        let keep = KeepOnly { repository: name.clone(), roots: roots.clone() };
        let dropped = self.queue.send(keep).await??;
        if dropped > 0 {
            info!(self.log, "what was queued of roots that are no longer configured is dropped"; "rows" => dropped);
            trail::roots_dropped(&self.seat, dropped);
        }
        let note = GuardNote::CountOnly(roots);
        self.queue.send(NoteOfGuard { repository: name.clone(), note }).await??;
        let seat = self.seat.clone();
        let log = self.log.clone();
        run_job(&self.exit, "adopt", move |progress| adopt_history(&seat, &log, progress)).await?;
        let (seat, reader) = (self.seat.clone(), self.seat.common.store.reader());
        let last = self.seat.common.store.reader().checkpoint(&name)?.map(|checkpoint| checkpoint.at_ms);
        if last.is_some_and(|last| now_ms() < last) {
            clock_went_back(&self.queue, &name, now_ms(), &self.log).await?;
        }
        let (tip, trusted) = run_job(&self.exit, "check", move |progress| {
            let (tip, trusted) = check_cache(&seat, &reader, progress)?;
            if let Some(tip) = tip {
                trail::found(&seat, &seat.branch()?, tip);
            }
            Ok((tip, trusted))
        })
        .await?;
        if !trusted {
            warn!(
                self.log,
                "the cache of known files does not belong to this history; everything is read again"
            );
            for root in self.seat.roots.iter() {
                measure::rescan(name.as_str(), root.name.as_str(), Rescan::Recovery);
            }
            self.queue.send(DistrustFiles(name)).await??;
            if let Some(tip) = tip {
                self.rebuild_cache(tip).await?;
            }
        }
        let seat = self.seat.clone();
        let clear_history = run_job(&self.exit, "count clear text", move |progress| {
            let is_told = seat
                .settings
                .encryption
                .as_ref()
                .is_some_and(|encryption| encryption.accepts_clear_history && encryption.encrypts());
            match tip.filter(|_| is_told) {
                Some(tip) => snapshot::clear_commits(&Repository::open(&seat.path)?, tip, progress),
                None => Ok(0),
            }
        })
        .await?;
        Ok(Started { tip, clear_history })
    }

    /// An approval that a crash cut off after the branch had moved is recorded; a protected branch that was lost with its
    /// repository is set again.
    async fn finish_approval(&self) -> std::result::Result<(), Trouble> {
        let Some(quarantine) = self.seat.quarantine()? else { return self.reopen_quarantine().await };
        let (seat, protected) = (self.seat.clone(), self.seat.protected_branch()?);
        let approved = run_job(&self.exit, "look for an approval", move |_| {
            let repository = Repository::open(&seat.path)?;
            let stood = snapshot::oid(&quarantine.protected)?;
            if repository.reference(&quarantine.protected_branch)?.is_none() && repository.has_commit(stood) {
                refs::move_reference(&repository, &quarantine.protected_branch, None, stood)?;
            }
            let is_approved = guard::is_approved(&repository, &quarantine, &protected)?;
            let stands = if is_approved { repository.reference(&protected)? } else { None };
            if let Some(tip) = stands {
                trail::approved(&seat, &protected, tip);
            }
            Ok(stands)
        });
        if let Some(commit) = approved.await? {
            info!(self.log, "an approval that was on its way is recorded");
            let note = GuardNote::End(commit);
            self.queue.send(NoteOfGuard { repository: self.seat.settings.name.clone(), note }).await??;
        }
        Ok(())
    }

    /// A database that is new here says nothing of a quarantine; the branches do.
    async fn reopen_quarantine(&self) -> std::result::Result<(), Trouble> {
        let name = &self.seat.settings.name;
        let reader = self.seat.common.store.reader();
        if reader.checkpoint(name)?.is_some() {
            return Ok(());
        }
        let seat = self.seat.clone();
        let found = run_job(&self.exit, "look for a quarantine", move |progress| {
            let roots: Vec<RootName> = seat.roots.iter().map(|root| root.name.clone()).collect();
            let (repository, protected) = (Repository::open(&seat.path)?, seat.protected_branch()?);
            guard::reopen(&repository, &seat.common.instance, &protected, &roots, progress)
        });
        if let Some(quarantine) = found.await? {
            warn!(self.log, "the quarantine goes on, although the database knew nothing of it";
                  "branch" => &quarantine.branch);
            let note = GuardNote::Reopen(Box::new(quarantine));
            self.queue.send(NoteOfGuard { repository: name.clone(), note }).await??;
        }
        Ok(())
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

/// What the first look at the repository came to.
struct Found {
    staged: Option<(Recovered, StagedCommit)>,
    /// Why it was replaced, and how that went.
    healed: Option<(String, Healed)>,
}

/// Makes, or replaces, a repository that is not there or is damaged; sweeps leftovers; finishes or undoes a staged
/// commit on disk.
fn recover(seat: &RepositorySeat, damage: Option<String>, progress: &Progress) -> Result<Found> {
    fault::point("actor:committer:job");
    let reader = seat.common.store.reader();
    let staged = reader.staged(&seat.settings.name)?;
    let known = Known::load(seat, &reader, staged.as_ref())?;
    let diagnosis = match damage {
        Some(reason) => Some(reason),
        None => diagnose(seat, &known, staged.as_ref())?,
    };
    let healed = match diagnosis {
        Some(reason) => {
            let roots: Vec<RootName> = seat.roots.iter().map(|root| root.name.clone()).collect();
            let patient = Patient {
                path: &seat.path,
                origin: ORIGIN,
                owner: ORIGIN,
                branch: &known.branch,
                known: &known.commits,
                remotes: &seat.settings.remotes,
                instance: &seat.common.instance,
                roots: &roots,
            };
            let healed = heal::heal(&patient, progress)?;
            if let Continued::Remote(remote, tip) = &healed.continued {
                trail::fetched(seat, remote, *tip, "what was here is damaged");
            }
            trail::repository_replaced(seat, &healed.in_words(&seat.path, &reason));
            Some((reason, healed))
        }
        None => None,
    };
    let (repository, _) = Repository::open_or_create(&seat.path, &known.branch, ORIGIN, ORIGIN)?;
    let staged = match staged {
        Some(staged) => Some((sweep_and_finish(&repository, Some(&staged))?, staged)),
        None => {
            sweep_and_finish(&repository, None)?;
            None
        }
    };
    if let Some((Some(Recovered::Settle), staged)) = &staged {
        trail::committed(seat, &staged.branch, snapshot::oid(&staged.commit)?, &[]);
    }
    let staged = staged.and_then(|(recovered, staged)| recovered.map(|recovered| (recovered, staged)));
    Ok(Found { staged, healed })
}

/// What the database knows of the branch.
struct Known {
    branch: String,
    checkpoint: Option<Oid>,
    /// Where it may have stood.
    commits: Vec<Oid>,
}

impl Known {
    fn load(seat: &RepositorySeat, reader: &StoreReader, staged: Option<&StagedCommit>) -> Result<Self> {
        let name = &seat.settings.name;
        let checkpoint =
            reader.checkpoint(name)?.map(|checkpoint| snapshot::oid(&checkpoint.commit)).transpose()?;
        let mut commits: Vec<Oid> = checkpoint.into_iter().collect();
        if let Some(staged) = staged {
            commits.push(snapshot::oid(&staged.commit)?);
        }
        for remote in &seat.settings.remotes {
            let record = reader.remote(name, &remote.name)?.unwrap_or_default();
            for commit in
                [record.confirmed, record.halted.and_then(|halt| halt.rescue_commit)].into_iter().flatten()
            {
                commits.push(snapshot::oid(&commit)?);
            }
        }
        Ok(Self { branch: seat.branch()?, checkpoint, commits })
    }

    fn expected(&self) -> Expected<'_> {
        Expected { origin: ORIGIN, branch: &self.branch, checkpoint: self.checkpoint }
    }
}

/// Why the repository has to be replaced; `None` if it is sound, or was never made.
fn diagnose(seat: &RepositorySeat, known: &Known, staged: Option<&StagedCommit>) -> Result<Option<String>> {
    let missing = || {
        let was_there =
            !known.commits.is_empty() || !backupbot_core::quarantine::earlier(&seat.path).is_empty();
        was_there.then(|| "it is gone".to_owned())
    };
    match health::look_at_shape(&seat.path, ORIGIN)? {
        Health::Missing => return Ok(missing()),
        Health::Damaged(reason) => return Ok(Some(reason)),
        Health::Sound => {}
    }
    // A pack that was being put in place has no index yet: first what a crash left, then the look.
    let swept = Repository::open(&seat.path).and_then(|repository| sweep_and_finish(&repository, staged));
    match health::look(&seat.path, &known.expected())? {
        Health::Damaged(reason) => Ok(Some(reason)),
        Health::Missing => Ok(missing()),
        Health::Sound => swept.map(|_| None),
    }
}

/// Removes what a crash left, and finishes or undoes the staged commit. Doing it again is harmless.
fn sweep_and_finish(repository: &Repository, staged: Option<&StagedCommit>) -> Result<Option<Recovered>> {
    // Under the state directory's lock every lock found here is nobody's.
    refs::sweep_stale_locks(repository.path(), Duration::ZERO, std::time::SystemTime::now());
    pack::sweep_temporary(&repository.pack_directory(), staged.map(|staged| staged.pack.as_str()))?;
    Objects::of(repository.path()).sweep()?;
    fetched::sweep(repository.path())?;
    pack::sweep_foreign(repository.path(), FOREIGN_GRACE, std::time::SystemTime::now());
    staged.map(|staged| snapshot::recover(repository, staged)).transpose()
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
    let asked = adopt::ask_all(&seat.settings.remotes, |remote| {
        match transport::connect_to_read(remote, &seat.path, progress)? {
            Some(mut transport) => {
                adopt::ask(&remote.name, transport.as_mut(), &branch, &seat.common.instance, &roots)
            }
            None => Ok(None),
        }
    });
    for (name, answer) in asked {
        match answer {
            Ok(offer) => offers.extend(offer),
            Err(error) => {
                warn!(log, "a remote cannot be asked for its history; it is compared when it is reached";
                                "remote" => %name, "error" => %error)
            }
        }
    }
    while let Some(offer) = adopt::leading(&offers).cloned() {
        info!(log, "the state is new here and a remote has our history: continuing it"; "remote" => %offer.remote,
              "commit" => %offer.tip);
        match take_over(seat, &repository, &branch, &offer, progress) {
            Err(error) if error.kind() == Kind::Git => {
                // Damage there must not keep the files here from being committed.
                warn!(log, "the remote's history cannot be read"; "remote" => %offer.remote, "error" => %error);
                offers.retain(|other| other.remote != offer.remote);
            }
            taken => return taken,
        }
    }
    Ok(())
}

fn take_over(
    seat: &RepositorySeat,
    repository: &Repository,
    branch: &str,
    offer: &Offer,
    progress: &Progress,
) -> Result<()> {
    let configured = seat.settings.remotes.iter().find(|remote| remote.name == offer.remote);
    let connected = match configured {
        Some(remote) => transport::connect_to_fetch(remote, &seat.path, progress)?,
        None => None,
    };
    let taken = match connected {
        Some(mut transport) => adopt::take_over(repository, branch, transport.as_mut(), offer, progress),
        None => Err(Error::new(Kind::RemoteUnreachable, "the remote is gone again")),
    };
    match &taken {
        Ok(()) => {
            trail::fetched(seat, &offer.remote, offer.tip, "the state is new here");
            trail::adopted(seat, branch, offer.tip);
        }
        Err(error) if error.kind() == Kind::Cancelled => {}
        Err(error) => trail::not_fetched(seat, &offer.remote, offer.tip, error),
    }
    taken
}

/// The branch's tip, and whether the stat cache may be believed: it speaks of one commit, its checkpoint.
fn check_cache(
    seat: &RepositorySeat,
    reader: &StoreReader,
    progress: &Progress,
) -> Result<(Option<Oid>, bool)> {
    let repository = Repository::open(&seat.path)?;
    let branch = seat.branch()?;
    let tip = repository.reference(&branch)?;
    let Some(checkpoint) = reader.checkpoint(&seat.settings.name)? else {
        // Without a checkpoint the cache is empty or half made; only an empty branch needs none.
        return Ok((tip, tip.is_none() && !has_any_file(seat, reader)?));
    };
    let commit = snapshot::oid(&checkpoint.commit)?;
    let Some(tip) = tip else {
        // The branch has a new name (its template has a date): it continues from the checkpoint.
        let is_here = repository.has_commit(commit);
        let encryption = seat.settings.encryption.as_ref();
        if is_here && snapshot::may_begin_at(&repository, commit, encryption)? {
            refs::move_reference(&repository, &branch, None, commit)?;
        }
        return Ok((Some(commit).filter(|_| is_here), is_here));
    };
    if tip != commit
        && repository.is_ancestor(tip, commit)?
        && health::is_complete(&repository, commit, &[tip], progress)?
    {
        // An old value of the branch came back, or the date went back to it: what was made after it is still here.
        refs::move_reference(&repository, &branch, Some(tip), commit)?;
        return Ok((Some(commit), true));
    }
    Ok((Some(tip), tip == commit))
}

/// Whether the repository is damaged, and how; `fully` reads all of it.
pub(super) fn examine(seat: &RepositorySeat, fully: bool, progress: &Progress) -> Result<Option<String>> {
    let reader = seat.common.store.reader();
    let known = Known::load(seat, &reader, reader.staged(&seat.settings.name)?.as_ref())?;
    let health = if fully {
        health::examine(&seat.path, &known.expected(), progress)?
    } else {
        health::look(&seat.path, &known.expected())?
    };
    Ok(match health {
        Health::Sound => None,
        Health::Missing => Some("it is gone".to_owned()),
        Health::Damaged(reason) => Some(reason),
    })
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
