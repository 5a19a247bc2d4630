//! `backupbot verify`: is a snapshot still what was backed up, here or at a remote?
//!
//! ```text
//! here:   the repository in the state directory ──────────────────────────┐
//! remote: a path is read in place, anything else is fetched to a scratch ─┴▶ verify ─▶ report, verified.json
//! ```
//!
//! No lock is needed and no daemon; one may work meanwhile.

mod meant;
pub(super) mod tell;

use std::path::Path;
use std::sync::Arc;

use backupbot_core::clock::Moment;
use backupbot_core::git::contents::LargeContents;
use backupbot_core::git::repository::Repository;
use backupbot_core::history::{Oid, Snapshot};
use backupbot_core::inspect;
use backupbot_core::inspect::far::{self, Wanted};
use backupbot_core::inspect::scratch::{Purpose, Scratch};
use backupbot_core::inspect::verified::{self, Verified};
use backupbot_core::progress::Progress;
use backupbot_core::restore::Named;
use backupbot_core::verify::{self as core, Report, Request, Sample};

use super::restore::interrupt;
use crate::afar::Fetching;
use crate::boot;
use crate::cli::verify::Verify;
use crate::cli::{Global, Invocation};
use crate::deeds::Deeds;
use crate::exit::{Exit, Failure};
use crate::looking::{Looking, keys};
use crate::output;
use crate::settings::World;

use tell::{Told, Watched};

pub fn verify(world: &World, invocation: &Invocation, arguments: &Verify) -> Result<Exit, Failure> {
    let global = &invocation.cli.global;
    if arguments.seed.is_some() && arguments.sample.is_none() {
        return Err(Failure::usage("--seed draws the files of a sample again: it goes with --sample"));
    }
    boot::keep_files_private();
    let progress = Progress::new();
    interrupt::listen(&progress);
    // In the environment of a container this flag's twin holds the addresses to push to.
    let remote = arguments.remote.as_deref().filter(|_| invocation.is_typed("remote"));
    let run = Run { world, global, arguments, progress: &progress, lot: Lot::draw(arguments)? };
    let outcome = match (remote, arguments.from.as_deref()) {
        (None, None) => run.here(),
        (Some(remote), _) => run.far(&meant::configured(world, global, arguments, remote)?),
        (None, Some(from)) => run.far(&meant::anywhere(world, global, arguments, from)?),
    };
    outcome.map_err(|failure| match progress.is_cancelled() {
        true => Failure::failed("interrupted: what was not read was not verified"),
        false => failure,
    })
}

/// How much is read, and what is.
#[derive(Debug, Clone, Copy)]
struct Lot {
    sample: Sample,
    seed: u64,
}

impl Lot {
    fn draw(arguments: &Verify) -> Result<Self, Failure> {
        let seed = match arguments.seed {
            Some(seed) => seed,
            None => core::draw_seed()?,
        };
        Ok(Self { sample: arguments.sample.unwrap_or(Sample::Whole), seed })
    }

    fn request<'r>(
        self,
        repository: &'r Repository,
        snapshot: &'r Snapshot,
        large: Option<&'r Arc<dyn LargeContents>>,
    ) -> Request<'r> {
        Request { repository, snapshot, sample: self.sample, seed: self.seed, large }
    }
}

/// One call of the command.
struct Run<'r> {
    world: &'r World,
    global: &'r Global,
    arguments: &'r Verify,
    progress: &'r Progress,
    lot: Lot,
}

impl Run<'_> {
    fn at(&self) -> Option<&str> {
        self.arguments.at.at.as_deref()
    }

    fn here(&self) -> Result<Exit, Failure> {
        let wanted = self.arguments.which.repository.as_deref();
        let looking = Looking::open(self.world, self.global, wanted, None)?;
        let snapshot = match self.at() {
            None => Snapshot::read(&looking.repository, looking.tip).map_err(|error| error.to_string()),
            at => Ok(looking.snapshot(at)?),
        };
        let _keys = match &snapshot {
            Ok(snapshot) => looking.unlock(&self.arguments.unlock, &[snapshot])?,
            Err(_) => None,
        };
        let report = match &snapshot {
            Ok(snapshot) => self.read(&looking.repository, snapshot, Some(&looking.large()))?,
            Err(why) => self.unread(looking.tip, why),
        };
        let snapshot = snapshot.ok();
        let told = Told {
            repository: looking.name.as_str(),
            place: None,
            commit: snapshot.as_ref().map_or(looking.tip, |snapshot| snapshot.id),
            time: snapshot.map(|snapshot| snapshot.time),
            is_here: None,
        };
        self.end(&looking.state_dir, &told, None, &report)
    }

    fn far(&self, meant: &meant::Meant<'_>) -> Result<Exit, Failure> {
        boot::make_state_dir(&meant.state_dir, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let scratch = far::is_fetched(&meant.remote).then(|| {
            Scratch::take(&meant.state_dir, Purpose::Verification, meant.repository(), &meant.remote.name)
        });
        let scratch = scratch.transpose()?;
        let keys = keys::given(self.world, &self.arguments.unlock)?;
        let keys = match meant.own() {
            Some(own) => keys.and_those_of(&own),
            None => keys,
        };
        let wanted = Wanted {
            keys: &keys,
            remote: &meant.remote,
            branch: meant.branch.as_deref(),
            at: self.at(),
            state_dir: &meant.state_dir,
            sample: self.lot.sample,
            seed: self.lot.seed,
            whole_takes: None,
        };
        let far = {
            let _shown = scratch.as_ref().map(|_| Fetching::show(self.progress));
            let place = scratch.as_ref().map_or(meant.state_dir.as_path(), Scratch::path);
            far::open(&wanted, place, &mut output::complain, self.progress)?
        };
        let here = Looking::open(self.world, self.global, Some(meant.repository().as_str()), None).ok();
        let here = here.and_then(|looking| Snapshot::read(&looking.repository, far.commit).ok());
        let report = match &far.snapshot {
            Ok(snapshot) => {
                let mut report = self.read(&far.repository, snapshot, Some(&far.large))?;
                if here.as_ref().is_some_and(|here| here.tree != snapshot.tree) {
                    report.problem(Named::at(b".", "the same snapshot here has another tree"));
                }
                report
            }
            Err(why) => self.unread(far.commit, why),
        };
        let told = Told {
            repository: meant.repository().as_str(),
            place: Some(meant.shown()),
            commit: far.commit,
            time: far.snapshot.as_ref().ok().map(|snapshot| snapshot.time),
            is_here: Some(here.is_some()),
        };
        self.end(&meant.state_dir, &told, meant.configured_name(), &report)
    }

    /// What there is to say of a snapshot that cannot even be begun with.
    fn unread(&self, commit: Oid, why: &str) -> Report {
        let (commit, sample) = (commit.to_string(), self.lot.sample.to_string());
        let mut report = Report { commit, sample, ..Report::default() };
        report.problem(Named::at(b".", format!("the snapshot could not be had: {why}")));
        report
    }

    fn read(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        large: Option<&Arc<dyn LargeContents>>,
    ) -> Result<Report, Failure> {
        let work = Progress::new();
        let _following = interrupt::follow(self.progress, &work);
        let mut watched = Watched::looking();
        let request = self.lot.request(repository, snapshot, large);
        Ok(core::verify(&request, &mut |to_do| watched.reading(&work, to_do), &work)?)
    }

    /// Tells and remembers it. What was named by an address alone has no place in the status, and an earlier snapshot that
    /// is well says nothing of the latest.
    fn end(
        &self,
        state_dir: &Path,
        told: &Told<'_>,
        remote: Option<&str>,
        report: &Report,
    ) -> Result<Exit, Failure> {
        let exit = told.tell(self.global.json, report)?;
        let has_place = told.place.is_none() || remote.is_some();
        let news = Verified::new(told.repository, remote, report, Moment::now());
        if let Some(place) = &told.place {
            // Who named an address may have named anybody's: it is told as it is shown.
            let deeds = Deeds::of("verify", self.world, self.global);
            deeds.write(remote.map_or_else(|| news.deed().with("from", place), |_| news.deed()));
        }
        if has_place {
            // If it cannot be done, remembering fails as well, and says so.
            for aside in inspect::mend(state_dir).unwrap_or_default() {
                output::complain(&aside.words());
            }
        }
        if has_place
            && self.at().is_none()
            && let Err(failure) = verified::remember(state_dir, news)
        {
            output::complain(&format!("backupbot: the result is not kept for `status`: {failure}"));
        }
        Ok(exit)
    }
}
