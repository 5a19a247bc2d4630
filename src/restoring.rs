//! Restores that the API starts: one at a time, on a thread of its own, remembered by name.
//!
//! In: a [`Wish`]. Out: a [`Job`] that anybody may look at while it runs and after it ended. The last few are kept in
//! `<state_dir>/restore-jobs.json`, written when one begins and when it ends, so that after a restart one that was
//! interrupted says so. What a job does is what `backupbot restore --to` does, by the same code.

mod work;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backupbot_actors::board::Moment;
use backupbot_core::audit::{Audit, Event};
use backupbot_core::error::{Error, Kind};
use backupbot_core::progress::Progress;
use backupbot_core::restore::{Report, marker};
use backupbot_core::small_state::{self, Aside};
use serde::{Deserialize, Serialize};
use slog::{Logger, error, info, warn};
use utoipa::ToSchema;

use crate::deeds::{self, Restored};
use crate::exit::Failure;
use crate::files;
use crate::http::shapes;
use crate::settings::Settings;

/// Jobs that are remembered.
const KEPT: usize = 20;
/// Problems and remarks that are told by name; all are counted.
const NAMED: usize = 1000;
const FILE_NAME: &str = "restore-jobs.json";
/// More than [`KEPT`] reports need.
const FILE_LIMIT: u64 = 64 << 20;

/// Sets the file aside if it is damaged: for a start, before [`Jobs::open`].
pub fn mend(state_dir: &Path) -> backupbot_core::error::Result<Option<Aside>> {
    let lost = "what became of earlier restores over HTTP is not known any more";
    small_state::mend::<Vec<Job>>(&state_dir.join(FILE_NAME), FILE_LIMIT, lost)
}

/// What is to be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// A repository by its name
    #[schema(max_length = 200)]
    pub repository: String,
    /// Which state: `latest`, a commit, a tag, a time. Without it: the latest
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub at: Option<String>,
    /// `<root>/rel`, or absolute below a watched directory, with everything below; with `*`, `?` or `[` in it, all that
    /// the pattern names. None: everything
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub paths: Vec<String>,
    /// The same in base64, for names that are not UTF-8
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub paths_b64: Vec<String>,
    /// A directory beneath one of `admin.restore_dirs`; it need not exist
    #[schema(max_length = 4096)]
    pub to: String,
    /// What is done with files that stand there. Without it the directory must be empty
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<Overwrite>,
    /// Remove what the snapshot does not have; needs `overwrite`
    #[serde(default)]
    pub delete: bool,
    /// Only find out what would be done
    #[serde(default)]
    pub dry_run: bool,
    /// Read everything again from the disk afterwards
    #[serde(default)]
    pub verify: bool,
    /// Named pipes, sockets and devices too
    #[serde(default)]
    pub special: bool,
    /// What the repository holds even where that only stands for a file
    #[serde(default)]
    pub raw: bool,
    /// Leave out set-id bits and capabilities
    #[serde(default)]
    pub no_set_id: bool,
}

/// What is done with files that stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// They are left as they are.
    Never,
    /// They are replaced if they differ.
    Changed,
    /// They are replaced.
    Always,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It looks what is to be done.
    Planning,
    /// It writes.
    Restoring,
    /// It reads again what it wrote.
    Verifying,
    /// It came to its end; the report says what could not be restored.
    Finished,
    /// Somebody stopped it. The same wish goes on where it ended.
    Cancelled,
    /// It could not go on; `error` says why.
    Failed,
    /// The daemon ended while it ran. The same wish goes on where it ended.
    Interrupted,
}

impl State {
    fn is_running(self) -> bool {
        matches!(self, State::Planning | State::Restoring | State::Verifying)
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Files that were restored
    pub files: u64,
    /// Their bytes
    pub bytes: u64,
    /// Files that are to be restored, once that is known
    pub files_total: Option<u64>,
    /// Their bytes
    pub bytes_total: Option<u64>,
    /// Since the writing began
    pub bytes_per_second: u64,
}

/// A restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its name
    pub id: String,
    /// What was wished
    pub wish: Wish,
    /// How far it is
    pub state: State,
    /// When it began
    #[schema(value_type = String, format = DateTime)]
    pub started: Moment,
    /// When it ended
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Moment>,
    /// The commit that is restored
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// How much is done
    pub done: Done,
    /// Why it could not go on
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it came to
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<shapes::Report>)]
    pub report: Option<Report>,
}

/// Why there is no job.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// This one runs.
    Busy(String),
    /// The target lies elsewhere.
    Elsewhere(String),
    /// Something stands there, or another process restores there.
    Occupied(String),
    /// The wish contradicts itself.
    Senseless(String),
    /// Our own trouble.
    Failed(String),
}

/// The jobs; clones are the same.
#[derive(Clone)]
pub struct Jobs(Arc<Shared>);

struct Shared {
    file: PathBuf,
    audit: Audit,
    log: Logger,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    jobs: Vec<Job>,
    running: Option<Running>,
}

struct Running {
    id: String,
    progress: Progress,
    began_writing: Option<Instant>,
}

impl Jobs {
    /// Those of the runs before; what was running then is interrupted.
    pub fn open(state_dir: &Path, audit: &Audit, log: &Logger) -> Self {
        let file = state_dir.join(FILE_NAME);
        let read = files::read_small(&file, FILE_LIMIT)
            .map(|bytes| bytes.map(|bytes| serde_json::from_slice(&bytes)));
        let mut jobs: Vec<Job> = match read {
            Ok(None) => Vec::new(),
            Ok(Some(Ok(jobs))) => jobs,
            // Nothing but an answer to "what became of it" is lost.
            Ok(Some(Err(error))) => {
                warn!(log, "what is known of earlier restores cannot be read"; "error" => %error);
                Vec::new()
            }
            Err(error) => {
                warn!(log, "what is known of earlier restores cannot be read"; "error" => %error);
                Vec::new()
            }
        };
        for job in jobs.iter_mut().filter(|job| job.state.is_running()) {
            job.state = State::Interrupted;
            job.ended = Some(Moment::now());
            if !job.wish.dry_run {
                audit.record(line(job, None, Restored::Interrupted));
            }
        }
        let kept = Mutex::new(Kept { jobs, running: None });
        let this = Self(Arc::new(Shared { file, audit: audit.clone(), log: log.clone(), kept }));
        if this.with(|kept| kept.jobs.iter().any(|job| job.state == State::Interrupted)) {
            // Or the next start would tell of them again.
            this.write();
        }
        this
    }

    fn with<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        change(&mut self.0.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of them, the latest first.
    pub fn all(&self) -> Vec<Job> {
        self.with(|kept| {
            let mut jobs: Vec<Job> = kept.jobs.iter().map(|job| kept.as_of_now(job)).collect();
            jobs.reverse();
            jobs
        })
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<Job> {
        self.with(|kept| kept.jobs.iter().find(|job| job.id == id).map(|job| kept.as_of_now(job)))
    }

    /// Stops it if it runs. What was restored until then stays.
    pub fn cancel(&self, id: &str) -> Option<Job> {
        self.with(|kept| {
            if let Some(running) = kept.running.as_ref().filter(|running| running.id == id) {
                running.progress.cancel();
            }
            kept.jobs.iter().find(|job| job.id == id).map(|job| kept.as_of_now(job))
        })
    }

    /// Stops whatever runs, because the process ends. It is told as interrupted by the next one.
    pub fn interrupt(&self) {
        self.with(|kept| kept.running.iter().for_each(|running| running.progress.cancel()));
    }

    /// Begins one. Blocks.
    pub fn start(&self, wish: Wish, settings: &Arc<Settings>, who: &str) -> Result<Job, Refused> {
        let paths = work::check(&wish).map_err(Refused::Senseless)?;
        let target =
            work::target(&wish.to, &settings.config.admin.restore_dirs).map_err(Refused::Elsewhere)?;
        let free = match wish.overwrite {
            None => marker::look_for_others(&target).and_then(|()| marker::look_for_writer(&target)),
            Some(_) => marker::look_for_writer(&target),
        };
        free.map_err(|error| match error.kind() {
            Kind::Config | Kind::InUse => Refused::Occupied(for_http(&error)),
            _ => Refused::Failed(error.to_string()),
        })?;
        let id = getrandom::u64().map_err(|error| Refused::Failed(error.to_string()))?;
        let job = Job {
            id: format!("{id:016x}"),
            wish,
            state: State::Planning,
            started: Moment::now(),
            ended: None,
            snapshot: None,
            done: Done::default(),
            error: None,
            report: None,
        };
        let progress = Progress::new();
        self.with(|kept| {
            if let Some(running) = &kept.running {
                return Err(Refused::Busy(running.id.clone()));
            }
            kept.running =
                Some(Running { id: job.id.clone(), progress: progress.clone(), began_writing: None });
            kept.jobs.push(job.clone());
            let surplus = kept.jobs.len().saturating_sub(KEPT);
            kept.jobs.drain(..surplus);
            Ok(())
        })?;
        self.write();
        info!(self.0.log, "a restore begins"; "id" => &job.id, "repository" => &job.wish.repository, "to" => files::shown(&target));
        let (this, settings, begun, asker) = (self.clone(), settings.clone(), job.clone(), who.to_owned());
        let thread = std::thread::Builder::new().name("restore".to_owned()).spawn(move || {
            let run = std::panic::AssertUnwindSafe(|| {
                let step = |step| this.take(&begun.id, step, &asker);
                work::work(&settings, &begun.wish, &paths, &target, &progress, &step)
            });
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                Err(Failure::failed("the restore broke down; the daemon's log says where"))
            });
            this.ended(&begun.id, outcome, progress.is_cancelled(), &asker);
        });
        if let Err(error) = thread {
            self.ended(&job.id, Err(Failure::failed(error.to_string())), false, who);
            return Err(Refused::Failed(format!("there is no thread for it: {error}")));
        }
        Ok(job)
    }

    fn take(&self, id: &str, step: work::Reached, who: &str) {
        let began_writing = self.with(|kept| {
            if step.state == State::Restoring
                && let Some(running) = &mut kept.running
            {
                running.began_writing = Some(Instant::now());
            }
            let job = kept.jobs.iter_mut().find(|job| job.id == id)?;
            job.state = step.state;
            job.snapshot = Some(step.snapshot);
            if let Some((files, bytes)) = step.totals {
                job.done = Done { files_total: Some(files), bytes_total: Some(bytes), ..job.done };
            }
            (step.state == State::Restoring).then(|| job.clone())
        });
        if let Some(job) = began_writing {
            let snapshot = job.snapshot.as_deref().unwrap_or_default();
            let event = deeds::restore_begun(&job.wish.repository, snapshot, &job.wish.to);
            self.0.audit.record(event.by(who).with("job", &job.id));
        }
    }

    fn ended(&self, id: &str, outcome: Result<Report, Failure>, is_cancelled: bool, who: &str) {
        let exit = outcome.as_ref().map(|report| report.problem_count).map_err(Clone::clone);
        let became = Restored::ended(&exit, is_cancelled);
        let ended = self.with(|kept| {
            let at = kept.jobs.iter().position(|job| job.id == id)?;
            let mut job = kept.as_of_now(&kept.jobs[at]);
            job.ended = Some(Moment::now());
            match outcome {
                Ok(mut report) => {
                    report.problems.truncate(NAMED);
                    report.remarks.truncate(NAMED);
                    job.state = State::Finished;
                    info!(self.0.log, "a restore has ended"; "id" => id, "files" => report.totals.files,
                          "problems" => report.problem_count);
                    job.report = Some(report);
                }
                Err(failure) => {
                    job.state = if is_cancelled { State::Cancelled } else { State::Failed };
                    let why = failure.lines.join("; ");
                    warn!(self.0.log, "a restore has not come to its end"; "id" => id, "reason" => &why);
                    job.error = (!is_cancelled).then_some(why);
                }
            }
            kept.jobs[at] = job.clone();
            kept.running = None;
            Some(job)
        });
        if let (Some(job), Some(became)) = (ended.filter(|job| !job.wish.dry_run), became) {
            self.0.audit.record(line(&job, Some(who), became));
        }
        self.write();
    }

    /// A job goes on even if it cannot be noted.
    fn write(&self) {
        let written = self.with(|kept| {
            let text = serde_json::to_vec(&kept.jobs).map_err(|error| Failure::failed(error.to_string()))?;
            files::write_private(&self.0.file, &text)
        });
        if let Err(failure) = written {
            error!(self.0.log, "what is restored cannot be noted"; "error" => failure.lines.join("; "));
        }
    }
}

/// The remedy in the words of a wish, not of the command.
fn for_http(error: &Error) -> String {
    error.to_string().replace("--overwrite=never, changed or always", "`overwrite`: never, changed or always")
}

/// What the audit log says at the end of a job.
fn line(job: &Job, who: Option<&str>, became: Restored) -> Event {
    let snapshot = job.snapshot.as_deref().unwrap_or("none");
    let (repository, to) = (&job.wish.repository, &job.wish.to);
    let event = deeds::restore_ended(became, repository, snapshot, to, job.report.as_ref());
    let event = who.iter().fold(event, |event, who| event.by(who)).with("job", &job.id);
    job.error.iter().fold(event, |event, error| event.with("message", error))
}

impl Kept {
    fn as_of_now(&self, job: &Job) -> Job {
        let mut job = job.clone();
        if let Some(running) = self.running.as_ref().filter(|running| running.id == job.id)
            && let Some(began) = running.began_writing
        {
            let (files, bytes) = (running.progress.files(), running.progress.bytes());
            let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let bytes_per_second = bytes.saturating_mul(1000) / milliseconds;
            job.done = Done { files, bytes, bytes_per_second, ..job.done };
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_when_the_process_ended_is_told_as_interrupted_afterwards() {
        let scratch = tempfile::tempdir().unwrap();
        let log = Logger::root(slog::Discard, slog::o!());
        let job = |id: &str, state| Job {
            id: id.to_owned(),
            wish: Wish::default(),
            state,
            started: Moment::now(),
            ended: None,
            snapshot: None,
            done: Done::default(),
            error: None,
            report: None,
        };
        let audit = Audit::open(&scratch.path().join("audit.jsonl")).unwrap();
        let before = [job("a", State::Finished), job("b", State::Restoring)];
        std::fs::write(scratch.path().join(FILE_NAME), serde_json::to_vec(&before).unwrap()).unwrap();
        let jobs = Jobs::open(scratch.path(), &audit, &log);
        let states: Vec<_> = jobs.all().iter().map(|job| (job.id.clone(), job.state)).collect();
        assert_eq!(states, [("b".to_owned(), State::Interrupted), ("a".to_owned(), State::Finished)]);
        assert!(jobs.get("b").unwrap().ended.is_some() && jobs.cancel("c").is_none());

        std::fs::write(scratch.path().join(FILE_NAME), "{").unwrap();
        assert!(
            Jobs::open(scratch.path(), &audit, &log).all().is_empty(),
            "a damaged file loses only the past"
        );
    }
}
