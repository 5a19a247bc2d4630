//! Answers without a daemon: from the store and the bare repositories, under the state directory's lock.
//!
//! What only a running daemon knows (whether a root can be reached, how changes are noticed) is said to be
//! unknown. Without a configuration the repositories that lie in the state directory are shown, and no
//! remotes, because their names stand nowhere else.

mod large;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backupbot_actors::board::{
    GuardStatus, Moment, RemoteState, RemoteStatus, RemoteView, RepositoryStatus, SkippedFile,
};
use backupbot_actors::control::{Decided, exact_if_lossy};
use backupbot_actors::root::repository_path;
use backupbot_core::config::{Alerts, Repository as RepositorySettings};
use backupbot_core::error::{Kind, Result as CoreResult};
use backupbot_core::git::repository::Repository;
use backupbot_core::guard;
use backupbot_core::history::Oid;
use backupbot_core::ignore::IgnoreRules;
use backupbot_core::inspect::{drills, verified};
use backupbot_core::keeping::scrubs;
use backupbot_core::lfs::SizeLimit;
use backupbot_core::names::{RemoteName, RepositoryName};
use backupbot_core::protection::{self, PathReport, StateCounts, Subject};
use backupbot_core::scan::{Bounds, WatchedRoot};
use backupbot_core::snapshot;
use backupbot_core::store::changes::Skipped;
use backupbot_core::store::checkpoints::Pause;
use backupbot_core::store::guard::{Approval, Quarantine};
use backupbot_core::store::{FILE_NAME, Store, StoreReader};

use crate::alerts;
use crate::boot;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::lock::{self, Holder, Lock};
use crate::output;
use crate::press;
use crate::settings::{Asking, Settings, World};
use crate::status::{self, RepositoryAnswer, RootAnswer, RootStanding, StatusAnswer, VERSION};

/// Another command that looks holds the lock for a moment only.
const PATIENCE: Duration = Duration::from_secs(2);
/// Skipped files listed of each root, as the daemon does.
const LISTED_SKIPS: usize = 100;
/// Commits looked at for the oldest one that a remote lacks.
const LOOK_BACK: usize = 10_000;

/// The state of nobody's daemon, held for a moment.
pub struct Offline {
    state_dir: PathBuf,
    settings: Option<Settings>,
    instance: String,
    store: Store,
    _lock: Lock,
}

impl Drop for Offline {
    fn drop(&mut self) {
        // If it cannot be noted, the next start checks the database: slower, and no harm.
        let _ = self.store.mark_stopped();
    }
}

/// Opens what a daemon left. `may_create` makes it, if there is nothing yet.
pub fn open(world: &World, asking: Asking<'_>, command: &str, may_create: bool) -> Result<Offline, Failure> {
    boot::keep_files_private();
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?;
    let is_there = state_dir.join(FILE_NAME).try_exists();
    if !is_there.map_err(|error| Failure::io(format!("cannot look into {}", shown(&state_dir)), error))? {
        if !may_create || settings.is_none() {
            return Err(Failure::failed(format!(
                "there is no state in {}: nothing was backed up with it yet; start `backupbot run`, or name the \
                 right place with --state-dir or --config",
                shown(&state_dir)
            )));
        }
        boot::make_state_dir(&state_dir, &slog::Logger::root(slog::Discard, slog::o!()))?;
    }
    let instance =
        settings.as_ref().map_or_else(|| world.host.clone(), |settings| settings.config.instance.clone());
    let lock = lock::take(&state_dir, &Holder::this(command, &instance, &world.host), PATIENCE)?;
    let (store, recovery) = Store::open_to_look(&state_dir)?;
    if let Some(recovery) = &recovery {
        output::complain(&boot::recovered(recovery));
    }
    Ok(Offline { state_dir, settings, instance, store, _lock: lock })
}

impl Offline {
    fn repositories(&self) -> Vec<RepositoryName> {
        if let Some(settings) = &self.settings {
            return settings.config.repositories.iter().map(|repository| repository.name.clone()).collect();
        }
        let Ok(entries) = std::fs::read_dir(self.state_dir.join("repos")) else { return Vec::new() };
        let names = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            RepositoryName::new(name.strip_suffix(".git")?).ok()
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn configured(&self, name: &RepositoryName) -> Option<&RepositorySettings> {
        self.settings.as_ref()?.config.repositories.iter().find(|repository| repository.name == *name)
    }

    /// The repository of that name, or all.
    pub fn chosen(&self, wanted: Option<&str>) -> Result<Vec<RepositoryName>, Failure> {
        let mut names = self.repositories();
        let Some(wanted) = wanted else { return Ok(names) };
        names.retain(|name| name.as_str() == wanted);
        if names.is_empty() {
            return Err(Failure::failed(format!("there is no repository {wanted:?}")));
        }
        Ok(names)
    }

    /// Pauses, for some time or until further notice, or resumes.
    pub fn set_paused(
        &self,
        wanted: Option<&str>,
        paused: bool,
        lasting: Option<Duration>,
    ) -> Result<Vec<RepositoryName>, Failure> {
        let names = self.chosen(wanted)?;
        let mut queue = self.store.queue()?;
        let since_ms = backupbot_actors::seat::now_ms();
        let until_ms = lasting.map(|lasting| backupbot_actors::control::later_ms(since_ms, lasting));
        for name in &names {
            queue.set_pause(name, paused.then_some(Pause { since_ms, until_ms }))?;
        }
        Ok(names)
    }

    /// Ends quarantines; the next start pushes.
    pub fn approve(&self, wanted: Option<&str>) -> Result<Vec<Decided>, Failure> {
        let (reader, mut queue) = (self.store.reader(), self.store.queue()?);
        let mut decided = Vec::new();
        for (name, quarantine) in self.decidable(wanted)? {
            let settings = self.configured(&name).ok_or_else(|| {
                Failure::usage("no configuration was found: name the one with this repository with --config")
            })?;
            if reader.staged(&name)?.is_some() {
                let text = format!("{name}: a commit was left half made: start the daemon, and approve then");
                return Err(Failure::failed(text));
            }
            let repository = Repository::open(&repository_path(&self.state_dir, name.as_str()))?;
            let branch = settings.branch.full_name(&self.instance, backupbot_core::clock::now())?;
            let commit = guard::approve(&repository, &quarantine, &branch)?;
            let at_ms = backupbot_actors::seat::now_ms();
            queue.end_quarantine(&name, &Approval { commit: snapshot::raw(commit), at_ms })?;
            decided.push(Decided {
                name: name.to_string(),
                branch: guard::branch::short(&branch).to_owned(),
                commit: commit.to_string(),
            });
        }
        Ok(decided)
    }

    /// Rejects quarantines; the next start is paused.
    pub fn reject(&self, wanted: Option<&str>) -> Result<Vec<Decided>, Failure> {
        let mut queue = self.store.queue()?;
        let mut decided = Vec::new();
        for (name, quarantine) in self.decidable(wanted)? {
            queue.reject_quarantine(&name, backupbot_actors::seat::now_ms())?;
            decided.push(Decided {
                name: name.to_string(),
                branch: guard::branch::short(&quarantine.protected_branch).to_owned(),
                commit: snapshot::oid(&quarantine.protected)?.to_string(),
            });
        }
        Ok(decided)
    }

    fn decidable(&self, wanted: Option<&str>) -> Result<Vec<(RepositoryName, Quarantine)>, Failure> {
        let mut found = Vec::new();
        for name in self.chosen(wanted)? {
            if let Some(quarantine) = self.store.reader().guard(&name)?.quarantine {
                found.push((name, quarantine));
            }
        }
        if found.is_empty() {
            return Err(Failure::failed("there is no quarantine: nothing is to be decided"));
        }
        Ok(found)
    }

    /// How everything stands, as far as can be known.
    pub fn status(&self) -> Result<StatusAnswer, Failure> {
        let (now, reader) = (Moment::now(), self.store.reader());
        let verified = verified::read(&self.state_dir);
        let drills = drills::read(&self.state_dir);
        let mut repositories = Vec::new();
        for name in self.repositories() {
            let mut answer = self.repository(&name, &reader, now)?;
            answer.take_verified(&verified);
            answer.take_drills(&drills);
            answer.take_scrubs(scrubs::read(&self.state_dir, name.as_str()));
            self.count_large(&name, &mut answer)?;
            repositories.push(answer);
        }
        let limits =
            self.settings.as_ref().map_or_else(Alerts::default, |settings| settings.config.alerts.clone());
        let halted_since =
            |repository: &_, remote: &_| status::halted_since(&reader, repository, remote).ok().flatten();
        let mut alerts = alerts::of_repositories(&repositories, &limits, now, halted_since);
        if self.settings.is_none() {
            // What is not known cannot be missing.
            alerts.retain(|alert| alert.name != "no_remote");
        }
        Ok(StatusAnswer {
            instance: self.instance.clone(),
            version: VERSION.to_owned(),
            daemon: false,
            repositories,
            alerts,
            configuration: None,
            health: Vec::new(),
        })
    }

    fn repository(
        &self,
        name: &RepositoryName,
        reader: &StoreReader,
        now: Moment,
    ) -> CoreResult<RepositoryAnswer> {
        let directory = repository_path(&self.state_dir, name.as_str());
        let configured = self.configured(name);
        // A damaged one is news, and the next start's to replace.
        let (opened, commit, trouble) = match self.open_at_tip(&directory, configured) {
            Ok((opened, commit)) => (opened, commit, None),
            Err(error) if matches!(error.kind(), Kind::Git | Kind::Io) => {
                (None, None, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        let (count, skipped) = reader.skipped(name, usize::MAX)?;
        let waits = reader.oldest_change_ms(name)?.and_then(|ms| Moment::from_unix_seconds(ms / 1000));
        let waits = waits.map_or(0, |since| now.seconds_since(since));

        let mut roots = Vec::new();
        let mut remotes = Vec::new();
        if let Some(settings) = configured {
            let files = reader.files(name)?;
            for root in &settings.roots {
                let count = files.count_contents(&root.name)?;
                roots.push(root_answer(root.name.as_str(), count, &skipped));
            }
            for remote in &settings.remotes {
                let mut view =
                    self.remote(name, &remote.name, opened.as_ref(), commit.as_deref(), reader, now)?;
                view.oldest_unprotected_seconds = view.oldest_unprotected_seconds.max(waits);
                remotes.push(view);
            }
        }
        // Nobody else asks for the queue while we hold the lock.
        let pending = self.store.queue()?.row_count(name) as u64;
        let pause = reader.pause(name, backupbot_actors::seat::now_ms())?;
        let status = RepositoryStatus {
            name: name.clone(),
            paused: pause.is_some(),
            paused_until: pause
                .and_then(|pause| Moment::from_unix_seconds(pause.until_ms?.saturating_add(999) / 1000)),
            pending,
            commit,
            trouble,
            is_encryption_in_the_way: false,
            clear_history: None,
            guard: GuardStatus::of(
                &reader.guard(name)?,
                reader.paused_since(name)?.is_some(),
                &configured.map_or_else(Default::default, |settings| settings.mass_change.clone()),
                now,
            )?,
        };
        let failed = count as u64;
        let states = StateCounts {
            watched: roots.iter().map(|root| root.files).sum(),
            queued: pending.saturating_sub(failed),
            staged: reader.staged(name)?.map_or(0, |staged| staged.settlement.rows.len() as u64),
            failed,
            ..StateCounts::default()
        };
        let states = match configured.filter(|_| status.commit.is_some()) {
            Some(settings) => self.with_delivery(states, settings, &directory, reader)?,
            None => states,
        };
        Ok(RepositoryAnswer {
            status,
            states,
            roots,
            remotes,
            verified: Vec::new(),
            drills: Vec::new(),
            // Nobody looks at anything on schedule now.
            inspections: Vec::new(),
            scrubs: Vec::new(),
        })
    }

    fn open_at_tip(
        &self,
        directory: &Path,
        configured: Option<&RepositorySettings>,
    ) -> CoreResult<(Option<Repository>, Option<String>)> {
        if !directory.exists() {
            return Ok((None, None));
        }
        let opened = Repository::open(directory)?;
        let tip = match configured {
            Some(settings) => opened.reference(&self.branch(settings)?)?,
            None => opened.reference("HEAD")?,
        };
        let tip = tip.map(|tip| tip.to_string());
        Ok((Some(opened), tip))
    }

    /// The counts that depend on what the remotes have.
    fn with_delivery(
        &self,
        states: StateCounts,
        settings: &RepositorySettings,
        directory: &Path,
        reader: &StoreReader,
    ) -> CoreResult<StateCounts> {
        let mut committed = 0;
        for remote in &settings.remotes {
            let confirmed = reader.remote(&settings.name, &remote.name)?.and_then(|record| record.confirmed);
            let confirmed = confirmed.as_ref().map(snapshot::oid).transpose()?;
            let lacks = protection::count_unconfirmed(directory, &self.branch(settings)?, confirmed)?;
            committed = committed.max(lacks);
        }
        let pushed = states.watched.saturating_sub(committed.saturating_add(states.failed));
        Ok(StateCounts { committed, pushed, ..states })
    }

    fn branch(&self, settings: &RepositorySettings) -> CoreResult<String> {
        match self.store.reader().guard(&settings.name)?.quarantine {
            Some(quarantine) => Ok(quarantine.branch),
            None => settings.branch.full_name(&self.instance, backupbot_core::clock::now()),
        }
    }

    fn remote(
        &self,
        repository: &RepositoryName,
        remote: &RemoteName,
        opened: Option<&Repository>,
        tip: Option<&str>,
        reader: &StoreReader,
        now: Moment,
    ) -> CoreResult<RemoteView> {
        let record = reader.remote(repository, remote)?.unwrap_or_default();
        let confirmed = record.confirmed.as_ref().map(|id| press::hex(id));
        let lacks_since = match (opened, tip) {
            (Some(opened), Some(tip)) if confirmed.as_deref() != Some(tip) => {
                oldest_missing(opened, tip, record.confirmed.as_ref())
            }
            _ => None,
        };
        let state = match (&record.halted, record.failures) {
            (Some(_), _) => RemoteState::Halted,
            (None, 0) => RemoteState::Idle,
            (None, _) => RemoteState::Backoff,
        };
        let reason = match record.halted {
            Some(halt) => Some(format!("{}: {}", halt.reason, halt.message)),
            None => record.last_error,
        };
        let last_success = record.confirmed_at_ms.and_then(|ms| Moment::from_unix_seconds(ms / 1000));
        let status = RemoteStatus {
            state,
            reason,
            commit: confirmed,
            last_success,
            unprotected_since: lacks_since,
            ..status::unheard_of(remote.clone())
        };
        Ok(status.view(now))
    }

    /// The commit that was last read back at each configured remote of a repository.
    pub fn confirmed(&self, name: &RepositoryName) -> Result<BTreeMap<String, Option<Oid>>, Failure> {
        let reader = self.store.reader();
        let mut confirmed = BTreeMap::new();
        for remote in self.configured(name).iter().flat_map(|settings| &settings.remotes) {
            let record = reader.remote(name, &remote.name)?.unwrap_or_default();
            let commit = record.confirmed.as_ref().map(snapshot::oid).transpose()?;
            confirmed.insert(remote.name.to_string(), commit);
        }
        Ok(confirmed)
    }

    /// Where a file stands.
    pub fn why(&self, path: &[u8]) -> Result<Option<PathReport>, Failure> {
        let Some(settings) = &self.settings else {
            let text = "no daemon is running and no configuration was found, so it is not known which directories \
                        are watched: name the configuration with --config";
            return Err(Failure::usage(text));
        };
        for repository in &settings.config.repositories {
            let roots: Vec<WatchedRoot> = repository
                .roots
                .iter()
                .map(|root| {
                    let (rules, _) =
                        IgnoreRules::new(&root.path, &root.ignore, &root.ignore_files, root.system_excludes);
                    let bounds = Bounds {
                        one_file_system: root.one_file_system,
                        largest_file: SizeLimit::of(repository, settings.config.limits.repository_size),
                    };
                    WatchedRoot::new(root.name.clone(), root.path.clone(), Arc::new(rules), bounds)
                })
                .collect();
            let Some((root, relative)) = protection::locate(&roots, path) else { continue };
            let git_directory = repository_path(&self.state_dir, repository.name.as_str());
            if !git_directory.exists() {
                let text =
                    format!("nothing of {} was ever committed; start `backupbot run`", repository.name);
                return Err(Failure::failed(text));
            }
            let remotes: Vec<RemoteName> =
                repository.remotes.iter().map(|remote| remote.name.clone()).collect();
            let subject = Subject {
                repository: &repository.name,
                git_directory: &git_directory,
                branch: &self.branch(repository)?,
                root,
                path: &relative,
                remotes: &remotes,
            };
            return Ok(Some(protection::report(&subject, &self.store.reader())?));
        }
        Ok(None)
    }
}

fn root_answer(name: &str, files: u64, skipped: &[Skipped]) -> RootAnswer {
    let of_root: Vec<&Skipped> = skipped.iter().filter(|skip| skip.root.as_str() == name).collect();
    let listed = of_root.iter().take(LISTED_SKIPS).map(|skip| SkippedFile {
        path: skip.path.to_string(),
        path_b64: exact_if_lossy(skip.path.as_bytes()),
        reason: format!("{}: {}", skip.failure.reason.as_str(), skip.failure.message),
    });
    RootAnswer {
        name: name.to_owned(),
        state: RootStanding::NotWatched,
        reason: Some("no daemon is running".to_owned()),
        backend: String::new(),
        files,
        excluded_by_rules: 0,
        excluded_by_system: 0,
        excluded_by_file_system: 0,
        skipped: of_root.len() as u64,
        skipped_files: listed.collect(),
    }
}

/// When the oldest commit was made that is in the history of `tip` and not of `confirmed`.
fn oldest_missing(repository: &Repository, tip: &str, confirmed: Option<&[u8; 20]>) -> Option<Moment> {
    let git = repository.git();
    let mut walk = git.revwalk().ok()?;
    walk.push(git.revparse_single(tip).ok()?.id()).ok()?;
    if let Some(confirmed) =
        confirmed.and_then(|id| snapshot::oid(id).ok()).filter(|id| repository.has_commit(*id))
    {
        walk.hide(confirmed).ok()?;
    }
    let oldest = walk.take(LOOK_BACK).filter_map(Result::ok).last()?;
    Moment::from_unix_seconds(git.find_commit(oldest).ok()?.time().seconds())
}

/// The refusal of what only a daemon can do.
pub fn no_daemon(state_dir: &Path, remedy: &str) -> Failure {
    Failure::new(Exit::Failed, format!("no daemon is running for {}; {remedy}", shown(state_dir)))
}
