//! One look at the queue, and one commit if it is time: take, build, stage, publish, settle, report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use backupbot_core::clock::left_until;
use backupbot_core::config::MassChangePolicy;
use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::pack;
use backupbot_core::git::refs;
use backupbot_core::git::repository::Repository;
use backupbot_core::names::RepositoryName;
use backupbot_core::path::RelPath;
use backupbot_core::snapshot::{self, Built, Recovered, Summary};
use backupbot_core::store::changes::{LONGEST_PAUSE, Reach, RowVerdict};
use backupbot_core::store::checkpoints::{RowOutcome, Settlement, StagedCommit};
use backupbot_core::store::guard::{Quarantine, Seen};
use git2::Oid;
use slog::{Logger, error, info, warn};

use super::build::build;
use super::{Trouble, run_job};
use crate::board::SkippedFile;
use crate::measure::{self, Rescan};
use crate::messages::{
    ClockWentBack, CountUnsettled, Enqueue, GuardNote, LookAtWaiting, NoteOfGuard, RootSeen, Settle,
    SkippedNow, Stage, TakeBatch, Unstage, WaitingNow,
};
use crate::queue::Queue;
use crate::seat::{RepositorySeat, now_ms};
use crate::supervision::ExitHandle;
use crate::trail;

/// Findings that one commit of a walk takes at most: more than a batch of single changes, because the walk has
/// them at hand, and few enough that protection grows while a first backup runs.
pub(super) const WALK_FINDINGS: usize = 10_000;
/// Between two commits, unless somebody waits or the former left something behind: while files stream in, one larger
/// commit a second costs a tenth of what many small ones do, and nobody is protected later by more than that.
const BREATH: Duration = Duration::from_secs(1);
/// Skipped files listed in status.
const LISTED_SKIPS: usize = 100;

/// What a cycle came to.
pub(super) struct CycleEnd {
    pub(super) now: WaitingNow,
    pub(super) committed: bool,
    pub(super) tip: Option<Oid>,
    /// Older commits that stay clear text, after everything was brought into another form.
    pub(super) clear_history: Option<u64>,
    /// Every change up to this is in a commit or listed as skipped.
    pub(super) settled_up_to: Option<u64>,
    pub(super) unavailable: Option<String>,
    pub(super) has_skips: bool,
    /// It is paused because its quarantine was rejected.
    pub(super) is_rejected: bool,
    pub(super) look_again: Option<Duration>,
    /// No commit before this.
    pub(super) breathe_until: Option<Instant>,
    /// A step failed whose outcome is known by now, but not what it had to tell.
    is_unsure: bool,
}

/// One look at the queue, and one commit if it is time.
pub(super) struct Cycle {
    pub(super) seat: Arc<RepositorySeat>,
    pub(super) exit: ExitHandle,
    pub(super) queue: Addr<Queue>,
    pub(super) log: Logger,
    pub(super) eager: bool,
    /// Somebody is about to put files back, and what is there has to be kept first.
    pub(super) though_rejected: bool,
    pub(super) list_skips: bool,
    /// Up to which change each of those who wait does.
    pub(super) waited_for: BTreeSet<u64>,
    /// No commit before this, unless somebody waits.
    pub(super) breathe_until: Option<Instant>,
    /// The last cycle failed, and it is not known how far it came.
    pub(super) after_failure: bool,
    /// The wall clock was set back, to this.
    pub(super) clock_back_ms: Option<i64>,
}

/// Has what is recorded of files with times after the one that the clock was set back to prove nothing.
pub(super) async fn clock_went_back(
    queue: &Addr<Queue>,
    repository: &RepositoryName,
    to_ms: i64,
    log: &Logger,
) -> std::result::Result<(), Trouble> {
    let files = queue.send(ClockWentBack { repository: repository.clone(), to_ms }).await??;
    warn!(log, "the clock was set back; files with later times are read again when they are next looked at";
          "files" => files);
    Ok(())
}

impl Cycle {
    pub(super) async fn run(self) -> std::result::Result<CycleEnd, Trouble> {
        let repository = self.seat.settings.name.clone();
        if let Some(to_ms) = self.clock_back_ms {
            clock_went_back(&self.queue, &repository, to_ms, &self.log).await?;
        }
        let up_to = self.seat.settings.batch.files.max(1);
        let look = LookAtWaiting { repository: repository.clone(), up_to };
        let now = self.queue.send(look).await??;
        let mut end = CycleEnd {
            committed: false,
            tip: None,
            clear_history: None,
            settled_up_to: None,
            unavailable: None,
            has_skips: self.list_skips,
            is_rejected: false,
            look_again: None,
            breathe_until: self.breathe_until,
            is_unsure: self.after_failure,
            now,
        };
        if end.now.paused_since_ms.is_some() {
            let quarantine = self.seat.quarantine()?;
            end.is_rejected = quarantine.is_some_and(|quarantine| quarantine.rejected_ms.is_some());
            if !end.is_rejected || !self.though_rejected {
                end.look_again = end.now.paused_until_ms.map(until);
                return Ok(end);
            }
        }
        end.look_again = self.pause_before_commit(&end);
        if self.eager || end.look_again.is_some_and(|pause| pause.is_zero()) {
            self.commit(&mut end).await?;
            let look = LookAtWaiting { repository: repository.clone(), up_to };
            end.now = self.queue.send(look).await??;
            end.look_again = self.pause_before_commit(&end);
        }
        if self.eager && !end.committed {
            self.begin_branch(&mut end).await?;
        }
        if end.is_unsure {
            self.take_stock(&mut end).await?;
        }
        // Not only for the first of them: with nothing left to commit there may be no further cycle that would see to the others.
        for up_to in self.waited_for {
            let count = CountUnsettled { repository: repository.clone(), up_to };
            if self.queue.send(count).await?? > 0 {
                break;
            }
            end.settled_up_to = Some(up_to);
        }
        Ok(end)
    }

    /// A branch that is named after a month begins where the former one ended, and one that the clock came back to goes on
    /// from there, also when nothing has changed: whoever flushes wants it at the remotes.
    async fn begin_branch(&self, end: &mut CycleEnd) -> std::result::Result<(), Trouble> {
        let seat = self.seat.clone();
        let begun = run_job(&self.exit, "begin a branch", move |_| {
            let (repository, branch) = (Repository::open(&seat.path)?, seat.branch()?);
            let Some(checkpoint) = seat.common.store.reader().checkpoint(&seat.settings.name)? else {
                return Ok(None);
            };
            let commit = snapshot::oid(&checkpoint.commit)?;
            let stands = repository.reference(&branch)?;
            let is_behind = match stands {
                Some(tip) => tip != commit && repository.is_ancestor(tip, commit)?,
                None => {
                    let encryption = seat.settings.encryption.as_ref();
                    repository.has_commit(commit) && snapshot::may_begin_at(&repository, commit, encryption)?
                }
            };
            if !is_behind {
                return Ok(None);
            }
            refs::move_reference(&repository, &branch, stands, commit)?;
            trail::branch_moved(&seat, &branch, commit);
            Ok(Some(commit))
        });
        if let Some(commit) = begun.await? {
            end.tip = Some(commit);
            self.seat.nudge_pushers();
        }
        Ok(())
    }

    /// After a failure: the branch may have moved without anybody having heard of it, and what the batch saw of the
    /// roots was not told. So the branch is read, the pushers look, and everything is compared.
    async fn take_stock(&self, end: &mut CycleEnd) -> std::result::Result<(), Trouble> {
        let seat = self.seat.clone();
        let tip = run_job(&self.exit, "take stock", move |_| {
            let branch = seat.branch()?;
            let tip = Repository::open(&seat.path)?.reference(&branch)?;
            if let Some(tip) = tip {
                trail::found(&seat, &branch, tip);
            }
            Ok(tip)
        });
        end.tip = tip.await?.or(end.tip);
        self.seat.nudge_pushers();
        self.compare_everything().await
    }

    async fn compare_everything(&self) -> std::result::Result<(), Trouble> {
        for root in self.seat.roots.iter() {
            let (repository, root) = (self.seat.settings.name.clone(), root.name.clone());
            let paths = vec![(RelPath::root(), Reach::Deep)];
            measure::rescan(repository.as_str(), root.as_str(), Rescan::Recovery);
            self.queue.send(Enqueue { repository, root, paths }).await??;
        }
        self.seat.queued.nudge();
        Ok(())
    }

    /// How long to wait for more rows; zero: commit now; `None`: nothing waits.
    fn pause_before_commit(&self, end: &CycleEnd) -> Option<Duration> {
        let waiting = &end.now.waiting;
        let batch = &self.seat.settings.batch;
        // The clock may have been set to anything since these times were written.
        let until = |at_ms: i64, longest: Duration| left_until(at_ms, now_ms(), longest);
        let postponed = waiting.next_ready_ms.map(|at| until(at, LONGEST_PAUSE));
        let ready = waiting.oldest_since_ms.map(|since| {
            if waiting.ready >= batch.files || waiting.deep {
                return Duration::ZERO;
            }
            let after_ms = i64::try_from(batch.after.as_millis()).unwrap_or(i64::MAX);
            until(since.saturating_add(after_ms), batch.after)
        });
        let breath =
            end.breathe_until.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        let ready = ready.map(|ready| ready.max(breath));
        match (ready, postponed) {
            (Some(ready), Some(postponed)) => Some(ready.min(postponed)),
            (ready, postponed) => ready.or(postponed),
        }
    }

    async fn commit(&self, end: &mut CycleEnd) -> std::result::Result<(), Trouble> {
        let repository = self.seat.settings.name.clone();
        self.finish_former(end).await?;
        let most = self.seat.settings.batch.files.max(WALK_FINDINGS);
        let take = TakeBatch { repository: repository.clone(), most, eager: self.eager };
        let rows = self.queue.send(take).await??;
        if rows.is_empty() {
            return Ok(());
        }
        let (began, taken) = (Instant::now(), rows.len());
        let (seat, log) = (self.seat.clone(), self.log.clone());
        let built = run_job(&self.exit, "build", move |progress| build(&seat, rows, progress)).await?;
        let (settlement, summary) = match built {
            Built::Unchanged(settlement, summary) => (*settlement, summary),
            Built::Commit(staged, summary) => {
                let staged = Arc::new(*staged);
                let opens = match self.opened_by(&staged, &summary) {
                    Ok(opens) => opens,
                    Err(error) => {
                        self.drop_pack(staged).await?;
                        return Err(error.into());
                    }
                };
                let stage = Stage { repository: repository.clone(), staged: staged.clone(), opens };
                if let Err(error) = self.queue.send(stage).await? {
                    self.drop_pack(staged).await?;
                    return Err(error.into());
                }
                let (seat, publishing) = (self.seat.clone(), staged.clone());
                let details = details(&summary, &staged);
                let published = run_job(&self.exit, "publish", move |progress| {
                    let opened = Repository::open(&seat.path)?;
                    snapshot::publish(&opened, &publishing, progress)?;
                    fault::point("audit:commit-not-written");
                    trail::committed(&seat, &publishing.branch, snapshot::oid(&publishing.commit)?, &details);
                    Ok(())
                })
                .await;
                if let Err(Trouble::Failed(error)) = published {
                    self.undo(staged, end).await?;
                    return if end.committed { Ok(()) } else { Err(Trouble::Failed(error)) };
                }
                published?;
                end.committed = true;
                end.tip = Some(snapshot::oid(&staged.commit)?);
                let settlement = staged.settlement.clone();
                (settlement, summary)
            }
        };
        // What a user waits for: from the rows to the branch.
        let took = began.elapsed();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        measure::torn_reads(repository.as_str(), summary.torn);
        if end.committed {
            measure::committed(repository.as_str(), summary.added + summary.changed);
            measure::commit_took(repository.as_str(), took);
        }
        let found_skips = self.list_skips || settlement.rows.iter().any(is_skip);
        let left_something = settlement.rows.len() < taken || settlement.rows.iter().any(is_under_way);
        end.breathe_until = (!left_something).then(|| Instant::now() + BREATH);
        self.queue.send(Settle { repository: repository.clone(), settlement }).await??;
        self.note_guard(&summary, end).await?;
        if let Some(switched) = &summary.switched {
            end.clear_history = Some(switched.clear_commits);
            info!(log, "everything is stored in another form"; "from" => &switched.from, "to" => &switched.to,
                  "files" => switched.files);
            if let Some(again) = switched.again {
                warn!(log, "all files are read and encrypted anew, in as many commits as that takes";
                      "because" => again.as_str());
                self.compare_everything().await?;
            }
            for path in &switched.left_out {
                warn!(log, "git-crypt encrypts files of less than 4 GiB: this one is left out from now on"; "file" => path);
            }
            if switched.clear_commits > 0 {
                warn!(log, "older commits stay readable for everybody who can read the repository";
                      "commits" => switched.clear_commits);
            }
        }
        if end.committed {
            self.seat.activity.add(summary.added + summary.changed, summary.bytes);
            self.seat.nudge_pushers();
            info!(log, "committed"; "commit" => end.tip.map(|tip| tip.to_string()), "added" => summary.added,
                  "changed" => summary.changed, "deleted" => summary.deleted, "bytes" => summary.bytes,
                  "pack_bytes" => summary.pack_bytes, "took_ms" => took_ms);
        }
        for (root, (counts, _)) in summary.walks.iter().filter(|(_, (_, is_complete))| *is_complete) {
            info!(log, "compared"; "root" => %root, "files in the last part" => counts.files, "took_ms" => took_ms);
        }
        end.has_skips = self.report(&summary, found_skips).await?;
        end.unavailable = summary.unavailable.first().map(|root| root.reason.clone());
        Ok(())
    }

    /// The quarantine that begins with a commit. Were such a commit staged without it, the next one would bring the mass
    /// change to the protected branch.
    fn opened_by(&self, staged: &StagedCommit, summary: &Summary) -> Result<Option<Quarantine>> {
        let Some((root, loss)) = &summary.mass_change else { return Ok(None) };
        if self.seat.settings.mass_change.policy != MassChangePolicy::Quarantine {
            return Ok(None);
        }
        let checkpoint = self.seat.common.store.reader().checkpoint(&self.seat.settings.name)?;
        let text = "a mass change was found where nothing was committed before";
        let checkpoint = checkpoint.ok_or_else(|| Error::new(Kind::Internal, text))?;
        Ok(Some(Quarantine {
            branch: staged.branch.clone(),
            protected_branch: self.seat.protected_branch()?,
            protected: checkpoint.commit,
            seen: Seen { root: root.clone(), lost: loss.lost, of: loss.of, at_ms: now_ms() },
            rejected_ms: None,
        }))
    }

    /// Which roots are known whole from now on, and what was noticed.
    async fn note_guard(&self, summary: &Summary, end: &CycleEnd) -> std::result::Result<(), Trouble> {
        let repository = &self.seat.settings.name;
        let reader = self.seat.common.store.reader();
        let send = async |note| self.queue.send(NoteOfGuard { repository: repository.clone(), note }).await;
        if let Some((root, loss)) = &summary.mass_change {
            let seen = Seen { root: root.clone(), lost: loss.lost, of: loss.of, at_ms: now_ms() };
            match self.seat.quarantine()? {
                Some(quarantine) => {
                    error!(self.log, "MASS CHANGE: commits go to a quarantine until somebody approves";
                           "root" => %root, "lost" => loss.lost, "of" => loss.of, "branch" => &quarantine.branch);
                    self.seat.guard.forget();
                    trail::quarantined(&self.seat, &quarantine);
                }
                None => {
                    warn!(self.log, "mass change"; "root" => %root, "lost" => loss.lost, "of" => loss.of);
                    send(GuardNote::Tell(seen)).await??;
                }
            }
        }
        let complete = summary.walks.iter().filter(|(_, (_, is_complete))| *is_complete);
        let known = reader.guard(repository)?.since;
        for (root, _) in complete.filter(|(root, _)| !known.contains_key(*root)) {
            let checkpoint = reader.checkpoint(repository)?;
            let checkpoint = checkpoint.map(|checkpoint| snapshot::oid(&checkpoint.commit)).transpose()?;
            if let Some(commit) = end.tip.or(checkpoint) {
                send(GuardNote::CountSince(root.clone(), commit)).await??;
            }
        }
        Ok(())
    }

    /// A commit that an earlier cycle staged and could neither settle nor undo, because the disk failed: nothing is
    /// taken, and above all nothing else staged, before it is one or the other.
    async fn finish_former(&self, end: &mut CycleEnd) -> std::result::Result<(), Trouble> {
        let (reader, name) = (self.seat.common.store.reader(), self.seat.settings.name.clone());
        match run_job(&self.exit, "look for a staged commit", move |_| reader.staged(&name)).await? {
            Some(staged) => self.undo(Arc::new(staged), end).await,
            None => Ok(()),
        }
    }

    /// Nobody recorded the pack of this commit, or perhaps somebody did: gone, it does no harm either way.
    async fn drop_pack(&self, staged: Arc<StagedCommit>) -> std::result::Result<(), Trouble> {
        let seat = self.seat.clone();
        run_job(&self.exit, "undo", move |_| {
            let opened = Repository::open(&seat.path)?;
            pack::remove_by_name(&opened.pack_directory(), &staged.pack)
        })
        .await
    }

    /// A staged commit whose branch did not move is taken back; its rows are all still queued. One whose branch did
    /// move is settled, and is this cycle's.
    async fn undo(&self, staged: Arc<StagedCommit>, end: &mut CycleEnd) -> std::result::Result<(), Trouble> {
        let seat = self.seat.clone();
        let recovered = run_job(&self.exit, "undo", {
            let staged = staged.clone();
            move |_| {
                let recovered = snapshot::recover(&Repository::open(&seat.path)?, &staged)?;
                if recovered == Recovered::Settle {
                    trail::committed(&seat, &staged.branch, snapshot::oid(&staged.commit)?, &[]);
                }
                Ok(recovered)
            }
        })
        .await?;
        let repository = self.seat.settings.name.clone();
        match recovered {
            Recovered::Drop => self.queue.send(Unstage(repository)).await??,
            Recovered::Settle => {
                let settlement: Settlement = staged.settlement.clone();
                // How many files it holds was known to the cycle that failed.
                measure::committed(repository.as_str(), 0);
                self.queue.send(Settle { repository, settlement }).await??;
                end.committed = true;
                end.tip = Some(snapshot::oid(&staged.commit)?);
                end.is_unsure = true;
                info!(self.log, "a commit that was on its way is settled"; "commit" => end.tip.map(|tip| tip.to_string()));
            }
        }
        Ok(())
    }

    /// Tells the watchers what the batch saw of their roots. Returns whether anything is skipped now.
    async fn report(&self, summary: &Summary, list_skips: bool) -> std::result::Result<bool, Trouble> {
        let skips = if list_skips {
            let (reader, name) = (self.seat.common.store.reader(), self.seat.settings.name.clone());
            Some(run_job(&self.exit, "list skipped", move |_| reader.skipped(&name, usize::MAX)).await?.1)
        } else {
            None
        };
        for root in self.seat.roots.iter() {
            let unavailable = summary
                .unavailable
                .iter()
                .find(|unavailable| unavailable.root == root.name)
                .map(|u| u.reason.clone());
            let walk = summary.walks.get(&root.name).copied();
            let skipped = skips.as_ref().map(|all| {
                let of_root: Vec<_> = all.iter().filter(|skip| skip.root == root.name).collect();
                let listed = of_root.iter().take(LISTED_SKIPS).map(|skip| SkippedFile {
                    path: skip.path.to_string(),
                    path_b64: crate::control::exact_if_lossy(skip.path.as_bytes()),
                    reason: format!("{}: {}", skip.failure.reason.as_str(), skip.failure.message),
                });
                let mut by_reason = BTreeMap::new();
                for skip in &of_root {
                    *by_reason.entry(skip.failure.reason.as_str()).or_default() += 1;
                }
                SkippedNow { count: of_root.len() as u64, by_reason, listed: listed.collect() }
            });
            let seen = RootSeen { unavailable, walk, skipped };
            if let Some(watcher) = self.seat.watchers.get(&root.name).and_then(|place| place.address()) {
                let _ = watcher.send(seen).await;
            }
        }
        Ok(skips.is_some_and(|skips| !skips.is_empty()))
    }
}

/// What the audit log says of a commit.
fn details(summary: &Summary, staged: &StagedCommit) -> Vec<(&'static str, String)> {
    let mut details = vec![
        ("added", summary.added.to_string()),
        ("changed", summary.changed.to_string()),
        ("deleted", summary.deleted.to_string()),
        ("bytes", summary.bytes.to_string()),
    ];
    if let Some(switched) = &summary.switched {
        details.push(("switch", format!("{} -> {}", switched.from, switched.to)));
    }
    if !staged.tags.is_empty() {
        details.push(("tags", staged.tags.join(" ")));
    }
    details
}

fn is_skip(outcome: &RowOutcome) -> bool {
    matches!(outcome.verdict, RowVerdict::Again { .. })
}

fn is_under_way(outcome: &RowOutcome) -> bool {
    matches!(outcome.verdict, RowVerdict::Walked { cursor: Some(_), .. })
}

/// The time until a moment, and at least a little, so that a clock that is being set makes nobody spin.
fn until(ms: i64) -> Duration {
    let left = u64::try_from(ms.saturating_sub(now_ms())).unwrap_or(0);
    Duration::from_millis(left.max(10))
}
