//! One turn of the inspector: what is due, the one thing that waits longest, and what came of it. Blocks; runs as a job.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use backupbot_core::clock::Moment;
use backupbot_core::config::Remote;
use backupbot_core::crypt::given::Given;
use backupbot_core::error::{Error, Kind, Result};
use backupbot_core::fault;
use backupbot_core::git::contents::LargeContents;
use backupbot_core::git::repository::Repository;
use backupbot_core::history::Snapshot;
use backupbot_core::inspect;
use backupbot_core::inspect::drill::{self, Rehearsal};
use backupbot_core::inspect::drills::{self, Drilled};
use backupbot_core::inspect::places::{self, Place};
use backupbot_core::inspect::schedule::{self, Due, Past, Period};
use backupbot_core::inspect::scratch;
use backupbot_core::inspect::verified::{self, Verified};
use backupbot_core::lfs::Objects;
use backupbot_core::lfs::known::Known;
use backupbot_core::progress::Progress;
use backupbot_core::verify::{self, Sample, draw_seed};
use slog::{Logger, error, info, warn};

use crate::board::InspectionStatus;
use crate::seat::{Common, RepositorySeat, now_ms};
use crate::trail;

/// Between two looks at what is due: clocks are set, and commands write results too.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The same while a place is not ready: nothing is committed yet, or a remote has nothing yet.
const UNTIL_READY: Duration = Duration::from_secs(5);
/// The shortest pause between two turns.
const BREATH: Duration = Duration::from_millis(100);
/// What an attempt is known by until it has come to an end.
const CUT_SHORT: &str = "the last attempt was cut short";

/// Removes what killed processes left.
pub(super) fn sweep(common: &Common, log: &Logger) {
    if let Err(error) = scratch::sweep(&common.state_dir) {
        warn!(log, "what an interrupted verification or drill left cannot be removed"; "error" => %error);
    }
}

/// What is known from earlier.
struct Notes {
    verified: Vec<Verified>,
    drills: Vec<Drilled>,
    places: Vec<Place>,
}

impl Notes {
    fn read(common: &Common) -> Self {
        let state_dir = &common.state_dir;
        Self {
            verified: verified::read(state_dir),
            drills: drills::read(state_dir),
            places: places::read(state_dir),
        }
    }
}

/// Something that is to be done at a place again and again.
struct Task<'t> {
    seat: &'t RepositorySeat,
    /// The remote to rehearse with; `None`: what is here is verified.
    remote: Option<&'t Remote>,
    place: Place,
    past: Past,
    due: Due,
    /// When nothing was found wrong the last time.
    last_good: Option<Moment>,
    /// The sample and the seed that found something wrong.
    bad: Option<(Sample, Option<u64>)>,
}

/// Publishes when everything is due, does what is due and waits longest, and says when to look again.
pub(super) fn turn(
    common: &Common,
    seats: &[Arc<RepositorySeat>],
    log: &Logger,
    progress: &Progress,
) -> Result<Duration> {
    for aside in inspect::mend(&common.state_dir)? {
        error!(log, "{}", aside.words());
        common.board.recovered("file", &aside.name(), &aside.words());
    }
    let tasks = survey(common, seats)?;
    publish(common, seats, &tasks, None);
    let is_due = |task: &&Task<'_>| task.due.after.is_zero();
    let Some(task) = tasks.iter().filter(is_due).min_by_key(|task| task.waits_since()) else {
        let longest = if tasks.len() < wanted(seats) { UNTIL_READY } else { LOOK_AGAIN };
        let next = tasks.iter().map(|task| task.due.after).min().unwrap_or(longest);
        return Ok(next.clamp(BREATH, longest));
    };
    publish(common, seats, &tasks, Some(task));
    let outcome = task.attempt(common, log, progress);
    publish(common, seats, &survey(common, seats)?, None);
    outcome.map(|()| BREATH)
}

/// How many places there are to be inspected when all are ready.
fn wanted(seats: &[Arc<RepositorySeat>]) -> usize {
    let places = seats.iter().map(|seat| {
        let settings = &seat.settings;
        let drills = if settings.drill.is_some() { settings.remotes.len() } else { 0 };
        usize::from(settings.verify.is_some()) + drills
    });
    places.sum()
}

/// Everything that there is something to look at of.
fn survey<'t>(common: &Common, seats: &'t [Arc<RepositorySeat>]) -> Result<Vec<Task<'t>>> {
    let mut notes = Notes::read(common);
    let mut tasks = Vec::new();
    for seat in seats {
        if !seat.settled.may_push() {
            continue;
        }
        if let Some(settings) = &seat.settings.verify
            && has_settled(common, seat)
        {
            let period = Period {
                every: settings.every,
                whole_every: settings.full_every,
                spread: spread(common, seat, None),
            };
            tasks.push(verification(common, seat, &period, &mut notes)?);
        }
        let Some(settings) = &seat.settings.drill else { continue };
        let statuses = common.board.remotes(&seat.settings.name);
        for remote in &seat.settings.remotes {
            let was_reached =
                statuses.iter().any(|status| status.name == remote.name && status.last_success.is_some());
            if was_reached {
                let spread = spread(common, seat, Some(remote));
                let period = Period { every: settings.every, whole_every: None, spread };
                tasks.push(rehearsal(common, seat, remote, &period, &mut notes)?);
            }
        }
    }
    Ok(tasks)
}

/// Whether there is a commit, and it is at a remote if there are any.
fn has_settled(common: &Common, seat: &RepositorySeat) -> bool {
    let name = &seat.settings.name;
    let has_commit = common.board.repository(name).is_some_and(|status| status.commit.is_some());
    let remotes = common.board.remotes(name);
    has_commit
        && (seat.settings.remotes.is_empty() || remotes.iter().any(|remote| remote.last_success.is_some()))
}

/// What tells this place from others, the same after each start.
fn spread(common: &Common, seat: &RepositorySeat, remote: Option<&Remote>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&common.instance, seat.settings.name.as_str(), remote.map(|remote| remote.name.as_str()))
        .hash(&mut hasher);
    hasher.finish()
}

fn verification<'t>(
    common: &Common,
    seat: &'t RepositorySeat,
    period: &Period,
    notes: &mut Notes,
) -> Result<Task<'t>> {
    let place = place(common, seat, None, notes)?;
    let of_this = |it: &&Verified| it.repository == place.repository && it.remote.is_none();
    let all: Vec<&Verified> = notes.verified.iter().filter(of_this).collect();
    let now = Moment::now();
    let last = latest(now, all.iter().map(|it| it.at));
    let whole = latest(now, all.iter().filter(|it| it.is_whole()).map(|it| it.at));
    let is_bad = all.iter().any(|it| it.problems > 0);
    let last_good = latest(now, all.iter().filter(|it| it.problems == 0).map(|it| it.at));
    let past = past(&place, last, whole, is_bad);
    let due = schedule::next(&past, period, now_ms());
    // Only the whole takes back what is wrong.
    let bad = is_bad.then_some((Sample::Whole, None));
    Ok(Task { seat, remote: None, place, past, due, last_good, bad })
}

fn rehearsal<'t>(
    common: &Common,
    seat: &'t RepositorySeat,
    remote: &'t Remote,
    period: &Period,
    notes: &mut Notes,
) -> Result<Task<'t>> {
    let place = place(common, seat, Some(remote), notes)?;
    let standing = drills::standing(&notes.drills, &place.repository, remote.name.as_str());
    let last = standing.latest.map(|drilled| drilled.at);
    let past = past(&place, last, None, standing.bad.is_some());
    let due = schedule::next(&past, period, now_ms());
    let last_good = standing.good.map(|drilled| drilled.at);
    // The same lot again, or its luck would prove nothing.
    let bad = standing.bad.and_then(|bad| Some((Sample::shown_as(&bad.sample)?, bad.seed)));
    Ok(Task { seat, remote: Some(remote), place, past, due, last_good, bad })
}

/// The latest that is not ahead of the clock: what was noted under a clock that was wrong would hide everything after it.
fn latest(now: Moment, times: impl Iterator<Item = Moment>) -> Option<Moment> {
    times.filter(|at| *at <= now).max()
}

/// What is noted of a place; noted now if it is seen for the first time.
fn place(
    common: &Common,
    seat: &RepositorySeat,
    remote: Option<&Remote>,
    notes: &mut Notes,
) -> Result<Place> {
    let repository = seat.settings.name.to_string();
    let remote = remote.map(|remote| remote.name.to_string());
    let known = notes.places.iter().find(|place| place.repository == repository && place.remote == remote);
    if let Some(known) = known {
        return Ok(known.clone());
    }
    let since = Moment::now();
    let place = Place { repository, remote, since, attempts: 0, attempted: None, reason: None };
    places::note(&common.state_dir, &place)?;
    notes.places.push(place.clone());
    Ok(place)
}

fn past(place: &Place, last: Option<Moment>, whole: Option<Moment>, is_bad: bool) -> Past {
    let ms = |moment: Moment| moment.unix_seconds().saturating_mul(1000);
    Past {
        since_ms: ms(place.since),
        last_ms: last.map(ms),
        last_whole_ms: whole.map(ms),
        is_bad,
        attempts: place.attempts,
        attempted_ms: place.attempted.map(ms),
    }
}

fn publish(common: &Common, seats: &[Arc<RepositorySeat>], tasks: &[Task<'_>], running: Option<&Task<'_>>) {
    for seat in seats {
        let of_this = tasks.iter().filter(|task| std::ptr::eq(task.seat, seat.as_ref()));
        let row = |task: &Task<'_>| InspectionStatus {
            remote: task.place.remote.clone(),
            last_good: task.last_good,
            next: Some(Moment::now().later_by(task.due.after)),
            running: running.is_some_and(|running| std::ptr::eq(running, task)),
            attempts: task.place.attempts,
            reason: task.place.reason.clone(),
        };
        common.board.publish_inspections(&seat.settings.name, of_this.map(row).collect());
    }
}

impl Task<'_> {
    /// Since when nothing was done about it.
    fn waits_since(&self) -> i64 {
        let done = self.past.last_ms.max(self.past.attempted_ms.filter(|_| self.past.attempts > 0));
        done.unwrap_or(self.past.since_ms)
    }

    /// Does it. An error is trouble of our own; what the place does not let us do is noted.
    fn attempt(&self, common: &Common, log: &Logger, progress: &Progress) -> Result<()> {
        let begun = Place {
            attempts: self.place.attempts.saturating_add(1),
            attempted: Some(Moment::now()),
            reason: Some(CUT_SHORT.to_owned()),
            ..self.place.clone()
        };
        places::note(&common.state_dir, &begun)?;
        fault::point("inspect:attempt-noted");
        let outcome = match self.remote {
            None => self.verify(common, log, progress),
            Some(remote) => self.rehearse(common, remote, log, progress),
        };
        let after = match outcome {
            Ok(()) => Place { attempts: 0, attempted: None, reason: None, ..self.place.clone() },
            Err(error) if progress.is_cancelled() || error.kind() == Kind::Cancelled => {
                // Nobody's fault: it is made again when it can be.
                places::note(&common.state_dir, &self.place)?;
                return Err(Error::cancelled());
            }
            Err(error) => {
                if let Some(remote) = self.remote {
                    trail::not_drilled(self.seat, &remote.name, &error);
                }
                let what = if error.kind() == Kind::DiskFull { "skipped" } else { "failed" };
                let remote = self.place.remote.as_deref().unwrap_or("none");
                warn!(log, "a verification or drill came to no result and is tried again"; "what" => what,
                      "repository" => &self.place.repository, "remote" => remote, "attempts" => begun.attempts,
                      "error" => %error);
                let reason = match what {
                    "skipped" => format!("skipped: {error}"),
                    _ => error.to_string(),
                };
                Place { reason: Some(reason), ..begun }
            }
        };
        places::note(&common.state_dir, &after)
    }

    fn verify(&self, common: &Common, log: &Logger, progress: &Progress) -> Result<()> {
        let policy = self.seat.settings.verify.clone().unwrap_or_default();
        let sample = match (&self.bad, self.due.is_whole) {
            (Some((sample, _)), _) => *sample,
            (None, true) => Sample::Whole,
            (None, false) => policy.sample,
        };
        let repository = Repository::open(&self.seat.path)?;
        let tip = match repository.reference(&self.seat.branch()?)? {
            Some(tip) => Some(tip),
            // A branch that is named after the month may not have begun yet; HEAD is where the last one was.
            None => repository.reference("HEAD")?,
        };
        let tip = tip.ok_or_else(|| Error::new(Kind::Git, "there is no snapshot to verify"))?;
        let snapshot = Snapshot::read(&repository, tip)?;
        let seed = draw_seed()?;
        let settings = &self.seat.settings;
        let remotes = settings.remotes.iter().map(|remote| remote.name.clone()).collect();
        let objects = Objects::of(&self.seat.path);
        let known: Arc<dyn LargeContents> =
            Arc::new(Known::new(objects, common.store.reader(), settings.name.clone(), remotes));
        let large = Some(&known);
        let request = verify::Request { repository: &repository, snapshot: &snapshot, sample, seed, large };
        let report = verify::verify(&request, &mut |_| {}, progress)?;
        verified::remember(
            &common.state_dir,
            Verified::new(&self.place.repository, None, &report, Moment::now()),
        )?;
        if report.problem_count == 0 {
            info!(log, "verified"; "repository" => &self.place.repository, "sample" => &report.sample,
                  "files" => report.verified_files, "bytes" => report.verified_bytes,
                  "ciphertexts" => report.ciphertexts);
            return Ok(());
        }
        let first =
            report.problems.first().map_or_else(String::new, |it| format!("{}: {}", it.path, it.reason));
        error!(log, "what is here is not what was backed up"; "repository" => &self.place.repository,
               "problems" => report.problem_count, "first" => &first);
        // Whoever keeps the repository looks at all of it, and mends it from the remotes if it is damaged.
        self.seat.suspect(&format!("a verification found: {first}"));
        Ok(())
    }

    fn rehearse(&self, common: &Common, remote: &Remote, log: &Logger, progress: &Progress) -> Result<()> {
        let settings = self.seat.settings.drill.clone().unwrap_or_default();
        let (sample, seed) = self.bad.unwrap_or((settings.sample, None));
        let branch = self.seat.branch()?;
        let keys = Given::of_repository(&self.seat.path);
        let request = drill::Request {
            keys: &keys,
            repository: &self.seat.settings.name,
            remote,
            branch: Some(&branch),
            state_dir: &common.state_dir,
            own: &self.seat.path,
            sample,
            seed: match seed {
                Some(seed) => seed,
                None => draw_seed()?,
            },
        };
        let say = &mut |text: &str| info!(log, "drill"; "remote" => %remote.name, "note" => text);
        let Rehearsal { drilled, .. } = drill::drill(&request, say, progress)?;
        common.audit.record(drilled.deed());
        drills::remember(&common.state_dir, drilled.clone())?;
        let repository = &drilled.repository;
        if drilled.problems == 0 && drilled.ciphertexts.is_some() {
            info!(log, "read and compared; no private key is here to restore it with"; "repository" => repository,
                  "remote" => &drilled.remote, "sample" => &drilled.sample, "files" => drilled.files,
                  "ciphertexts" => drilled.ciphertexts);
        } else if drilled.problems == 0 {
            info!(log, "restored and compared"; "repository" => repository, "remote" => &drilled.remote,
                  "sample" => &drilled.sample, "files" => drilled.files, "bytes" => drilled.bytes);
        } else {
            error!(log, "what a remote has could not be restored as it was"; "repository" => repository,
                   "remote" => &drilled.remote, "problems" => drilled.problems,
                   "first" => drilled.named.first());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_from_a_clock_that_was_ahead_does_not_hide_the_others() {
        let at = |seconds| Moment::from_unix_seconds(seconds).unwrap();
        assert_eq!(latest(at(100), [at(7), at(99), at(5_000)].into_iter()), Some(at(99)));
        assert_eq!(latest(at(100), [at(101)].into_iter()), None);
        assert_eq!(latest(at(100), [at(100)].into_iter()), Some(at(100)));
    }
}
