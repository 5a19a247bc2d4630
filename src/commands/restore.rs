//! `backupbot restore`: any version of any file, to where it was or to somewhere else.
//!
//! ```text
//! what: paths ─┐
//! when: at ────┼─▶ a plan (shown, or the end of a dry run) ─▶ in place: commit what is there, journal ─▶ apply ─▶ report
//! where: place ┘
//! ```
//!
//! The daemon is not needed and not in the way: the repository is only read. In place it is asked to commit what is
//! there first; without one this process does so itself.

mod from;
pub mod interrupt;
mod paths;
mod place;
mod present;
mod tell;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backupbot_core::audit::Event;
use backupbot_core::crypt::places::Lent;
use backupbot_core::crypt::unsealer::Unsealer;
use backupbot_core::history::Snapshot;
use backupbot_core::ignore::IgnoreRules;
use backupbot_core::names::RootName;
use backupbot_core::progress::Progress;
use backupbot_core::restore::{
    self, Bounds, Destination, Existing, Plan, Policies, Report, Request, Selection, journal, marker,
};

use crate::boot;
use crate::cli::Global;
use crate::cli::restore::{Overwrite, Restore};
use crate::deeds::{self, Deeds, Restored};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::looking::keys;
use crate::output;
use crate::settings::World;

use tell::Teller;

pub use interrupt::follow;
pub use paths::selection;
pub use place::{Source, real_path};

/// How long an interrupted restore in place is gone on with by the same command.
const GOES_ON_WITHIN_MS: i64 = 24 * 60 * 60 * 1000;

/// How an undo is told from other restores; the time of what it takes back follows.
const UNDO_OF: &str = "--undo of ";

/// When the restore began that an undo takes back.
fn undone_by(identity: &marker::Identity) -> Option<i64> {
    identity.selection.first()?.strip_prefix(UNDO_OF)?.parse().ok()
}

pub fn restore(world: &World, global: &Global, arguments: &Restore) -> Result<Exit, Failure> {
    check_usage(arguments)?;
    boot::keep_files_private();
    // A file that is no key is found before anything is fetched.
    keys::given(world, &arguments.unlock)?;
    let wanted = arguments.scope.repository.as_deref();
    let progress = Progress::new();
    interrupt::listen(&progress);
    let source = match &arguments.from {
        Some(from) => Source::from(world, global, arguments, from, &progress),
        None => Source::find(world, global, wanted, arguments.paths.first().map(PathBuf::as_path)),
    };
    let source = source.map_err(|failure| interrupt::explain(failure, &progress))?;
    let run =
        Run { world, global, arguments, source: &source, progress: &progress, wanted: RefCell::default() };
    let outcome = match &arguments.to {
        Some(directory) => run.to(&world.absolute(directory)),
        None if arguments.undo => run.undo(),
        None => run.in_place(),
    };
    run.tell_end(&outcome);
    outcome.map_err(|failure| interrupt::explain(failure, &progress))
}

fn check_usage(arguments: &Restore) -> Result<(), Failure> {
    let ways = [arguments.to.is_some(), arguments.in_place, arguments.undo];
    if ways.into_iter().filter(|given| *given).count() != 1 {
        return Err(Failure::usage(
            "say where to restore to: --to DIR, or --in-place for where it was; --undo takes the last restore in place back",
        ));
    }
    if arguments.undo && (!arguments.paths.is_empty() || arguments.at.is_some()) {
        return Err(Failure::usage(
            "--undo takes back exactly what was restored: it goes without PATH and --at",
        ));
    }
    if arguments.from.is_some() && arguments.to.is_none() {
        return Err(Failure::usage(
            "--from restores below a directory: name it with --to DIR, look at what came, and move it where it belongs",
        ));
    }
    if arguments.delete && arguments.to.is_some() && arguments.overwrite.is_none() {
        return Err(Failure::usage(
            "--delete removes what stands in the directory: say with --overwrite=never, changed or always what is to be \
             done with the rest",
        ));
    }
    Ok(())
}

/// One call of the command.
struct Run<'r> {
    world: &'r World,
    global: &'r Global,
    arguments: &'r Restore,
    source: &'r Source<'r>,
    progress: &'r Progress,
    /// What is restored, for the audit log.
    wanted: RefCell<Option<Wanted>>,
}

/// What is going to be restored, and how much of it was.
#[derive(Default)]
struct Wanted {
    snapshot: String,
    report: Option<Report>,
}

impl Run<'_> {
    /// It is known which state is to be restored.
    fn want(&self, snapshot: &Snapshot) {
        if !self.arguments.dry_run {
            let snapshot = snapshot.id.to_string();
            *self.wanted.borrow_mut() = Some(Wanted { snapshot, report: None });
        }
    }

    fn deeds(&self) -> Deeds {
        Deeds::of(if self.arguments.undo { "restore --undo" } else { "restore" }, self.world, self.global)
    }

    fn tell_begin(&self) {
        if let Some(wanted) = &*self.wanted.borrow() {
            let begun = deeds::restore_begun(self.source.name().as_str(), &wanted.snapshot, &self.target());
            self.deeds().write(self.with_origin(begun));
        }
    }

    fn tell_end(&self, outcome: &Result<Exit, Failure>) {
        let Some(wanted) = self.wanted.take() else { return };
        let report = wanted.report.as_ref();
        let problems = report.map_or(0, |report| report.problem_count);
        let exit = outcome.as_ref().map(|_| problems).map_err(Clone::clone);
        let Some(became) = Restored::ended(&exit, self.progress.is_cancelled()) else { return };
        let (repository, target) = (self.source.name().as_str(), self.target());
        let ended = deeds::restore_ended(became, repository, &wanted.snapshot, &target, report);
        let ended = match outcome {
            Err(failure) => ended.with("message", failure.lines.join("; ")),
            Ok(_) => ended,
        };
        self.deeds().write(self.with_origin(ended));
    }

    fn with_origin(&self, event: Event) -> Event {
        self.arguments.from.iter().fold(event, |event, from| event.with("from", from))
    }

    fn target(&self) -> String {
        match &self.arguments.to {
            Some(directory) => shown(&self.world.absolute(directory)),
            None => "in place".to_owned(),
        }
    }

    fn snapshot(&self) -> Result<Snapshot, Failure> {
        self.source.looking.snapshot(self.arguments.at.as_deref())
    }

    /// Before anything else: without the key of an encrypted snapshot nothing is fetched and nothing begun.
    fn unlock(&self, snapshot: &Snapshot) -> Result<Option<Lent>, Failure> {
        self.source.bring_encryption(snapshot, self.progress)?;
        let (looking, unlock) = (&self.source.looking, &self.arguments.unlock);
        if !self.arguments.raw {
            return looking.unlock_contents(unlock, &[snapshot]);
        }
        // Who wants what is stored needs no key, and gets none of what is recorded.
        looking.unlock(unlock, &[snapshot]).or_else(|failure| {
            output::complain(&format!("backupbot: {}", failure.lines.join("; ")));
            Ok(None)
        })
    }

    fn reads_contents(&self, snapshot: &Snapshot) -> Result<bool, Failure> {
        let unsealer = Unsealer::of(self.source.repository(), snapshot.tree)?;
        Ok(unsealer.is_none_or(|unsealer| unsealer.reads_contents()))
    }

    fn policies(&self) -> Policies {
        let arguments = self.arguments;
        let existing = match arguments.overwrite {
            Some(Overwrite::Never) => Existing::Never,
            Some(Overwrite::Changed) => Existing::Changed,
            Some(Overwrite::Always) => Existing::Always,
            None if arguments.to.is_some() => Existing::Finish,
            None => Existing::Changed,
        };
        Policies {
            existing,
            replace_kinds: arguments.overwrite == Some(Overwrite::Always)
                || (arguments.to.is_none() && arguments.overwrite.is_none()),
            delete: arguments.delete,
            specials: arguments.special,
            raw: arguments.raw,
            set_id: !arguments.no_set_id,
            contents_elsewhere: arguments.dry_run && self.source.is_fetched(),
            bounds: Bounds { on: !arguments.no_limits, ..Bounds::default() },
            large: Some(self.source.large()),
            ..Policies::default()
        }
    }

    fn identity(&self, snapshot: &Snapshot) -> marker::Identity {
        let mut selection: Vec<String> = self.arguments.paths.iter().map(|path| shown(path)).collect();
        selection.sort();
        for (given, flag) in [
            (self.arguments.special, "--special"),
            (self.arguments.raw, "--raw"),
            (self.arguments.no_set_id, "--no-set-id"),
        ] {
            if given {
                selection.push(flag.to_owned());
            }
        }
        marker::Identity {
            repository: self.source.name().to_string(),
            snapshot: snapshot.id.to_string(),
            selection,
        }
    }

    /// The snapshot of an interrupted restore of the same things, if no other state was asked for: since then `latest` may
    /// have become another.
    fn interrupted(&self, begun: Option<marker::Identity>) -> Result<Option<Snapshot>, Failure> {
        let Some(begun) = begun.filter(|_| self.arguments.at.is_none()) else { return Ok(None) };
        let Ok(id) = begun.snapshot.parse() else { return Ok(None) };
        let Ok(snapshot) = Snapshot::read(self.source.repository(), id) else { return Ok(None) };
        if self.identity(&snapshot) != begun {
            return Ok(None);
        }
        output::complain(&format!(
            "going on with the restore of snapshot {} that was interrupted (--at names another state)",
            self.source.looking.named(&snapshot)
        ));
        Ok(Some(snapshot))
    }

    fn to(&self, directory: &Path) -> Result<Exit, Failure> {
        let begun = marker::unfinished(directory).filter(|_| self.arguments.overwrite.is_none());
        let snapshot = match self.interrupted(begun)? {
            Some(snapshot) => snapshot,
            None => self.snapshot()?,
        };
        self.want(&snapshot);
        let _keys = self.unlock(&snapshot)?;
        let selection = selection(self.source, &snapshot, &self.arguments.paths)?;
        self.source.refuse_dangerous_target(directory, &snapshot)?;
        let mut policies = self.policies();
        if policies.delete {
            policies.excluded = self.rules(|root| Some(directory.join(root.as_str())));
        }
        let identity = self.identity(&snapshot);
        let guarded = policies.existing == Existing::Finish;
        if guarded {
            // Before anything is fetched for it.
            marker::look(directory, &identity)?;
        }
        match self.arguments.dry_run {
            true => self.source.outline(&snapshot, &selection, self.progress)?,
            false => self.source.bring(&snapshot, &selection, self.progress)?,
        }
        let destination = Destination::Directory(directory.to_path_buf());
        let request = self.request(&snapshot, &selection, &destination, &policies);
        let mut teller = Teller::new(self.global, self.arguments);
        if self.arguments.dry_run {
            let plan = self.plan(&request, &mut teller)?;
            return self.report(plan.report, teller);
        }
        if !self.arguments.raw && !self.reads_contents(&snapshot)? {
            // What is asked for may be all clear text; if not, it is found here, and nothing is begun.
            self.plan(&request, &mut Teller::silent())?;
        }
        let marker = if guarded { Some(marker::begin(directory, &identity)?) } else { None };
        let plan = self.plan(&request, &mut Teller::silent())?;
        let report = self.apply(&request, &plan, &mut teller, None)?;
        if let Some(marker) = marker {
            marker.finish()?;
        }
        self.report(report, teller)
    }

    fn in_place(&self) -> Result<Exit, Failure> {
        let past = journal::latest(&self.source.journals(), self.source.name().as_str())?;
        // Later it counts as given up, and `latest` means what it says.
        let since_ms = jiff::Timestamp::now().as_millisecond() - GOES_ON_WITHIN_MS;
        let begun = past.filter(|past| !past.is_finished && past.head.started_ms >= since_ms);
        let snapshot = match self.interrupted(begun.map(|past| past.head.identity))? {
            Some(snapshot) => snapshot,
            None => self.snapshot()?,
        };
        self.want(&snapshot);
        let _keys = self.unlock(&snapshot)?;
        let selection = selection(self.source, &snapshot, &self.arguments.paths)?;
        let identity = self.identity(&snapshot);
        self.work_in_place(&snapshot, &selection, self.policies(), identity).map(|(exit, _)| exit)
    }

    fn undo(&self) -> Result<Exit, Failure> {
        let (journals, repository) = (self.source.journals(), self.source.name().as_str());
        let mut past = journal::latest(&journals, repository)?;
        // An undo that was interrupted is gone on with, not itself undone.
        let undoing =
            past.as_ref().filter(|past| !past.is_finished).and_then(|past| undone_by(&past.head.identity));
        if let Some(started_ms) = undoing {
            past = journal::begun_at(&journals, repository, started_ms)?.or(past);
        }
        let past = past.ok_or_else(|| {
            let text = "there is no restore in place to take back: there was none, or the last one was taken back already";
            Failure::failed(text)
        })?;
        let before =
            past.head.before.parse().map_err(|error| Failure::io("the journal is damaged", error))?;
        let snapshot = Snapshot::read(self.source.repository(), before)?;
        self.want(&snapshot);
        let _keys = self.unlock(&snapshot)?;
        let selection = Selection::Exactly(past.paths.clone());
        let policies = Policies {
            existing: Existing::Changed,
            replace_kinds: true,
            delete: true,
            specials: true,
            ..self.policies()
        };
        let identity = marker::Identity {
            repository: self.source.name().to_string(),
            snapshot: snapshot.id.to_string(),
            selection: vec![format!("{UNDO_OF}{}", past.head.started_ms)],
        };
        let (exit, is_done) = self.work_in_place(&snapshot, &selection, policies, identity)?;
        if is_done {
            past.mark_undone()?;
        }
        Ok(exit)
    }

    /// Shows the plan, asks, makes the present state safe, restores. Whether it was done.
    fn work_in_place(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        mut policies: Policies,
        identity: marker::Identity,
    ) -> Result<(Exit, bool), Failure> {
        let places = self.source.places()?;
        policies.excluded = self.rules(|root| places.get(root).cloned());
        let destination = Destination::InPlace(places);
        let request = self.request(snapshot, selection, &destination, &policies);
        let mut teller = if self.arguments.dry_run {
            Teller::new(self.global, self.arguments)
        } else {
            Teller::for_plan(self.global)
        };
        let plan = self.plan(&request, &mut teller)?;
        if self.arguments.dry_run {
            return Ok((self.report(plan.report, teller)?, false));
        }
        if plan.report.totals.changes() == 0 {
            let report = Report { dry_run: false, finished: true, ..plan.report };
            return Ok((self.report(report, Teller::new(self.global, self.arguments))?, true));
        }
        teller.show_plan(&plan)?;
        if !present::confirm(self.arguments.yes)? {
            self.wanted.take();
            return Err(Failure::failed("nothing was restored"));
        }
        let present = present::commit(self.world, self.global, self.source, selection)?;
        let policies = Policies { unsaved: present.unsaved, ..policies.clone() };
        let request = Request { policies: &policies, ..request };
        let started_ms = jiff::Timestamp::now().as_millisecond();
        let head = journal::Head { identity, before: present.commit.to_string(), started_ms };
        let mut journal = journal::begin(&self.source.journals(), head)?;
        let mut teller = Teller::new(self.global, self.arguments);
        let report = self.apply(&request, &plan, &mut teller, Some(&mut journal))?;
        journal.finish()?;
        Ok((self.report(report, teller)?, true))
    }

    fn request<'q>(
        &'q self,
        snapshot: &'q Snapshot,
        selection: &'q Selection,
        destination: &'q Destination,
        policies: &'q Policies,
    ) -> Request<'q> {
        Request { repository: self.source.repository(), snapshot, selection, destination, policies }
    }

    /// The rules of the configured roots, applied to where they are restored to.
    fn rules(&self, place: impl Fn(&RootName) -> Option<PathBuf>) -> BTreeMap<RootName, Arc<IgnoreRules>> {
        let rules = self.source.roots().filter_map(|root| {
            let (rules, _) =
                IgnoreRules::new(&place(&root.name)?, &root.ignore, &root.ignore_files, root.system_excludes);
            Some((root.name.clone(), Arc::new(rules)))
        });
        rules.collect()
    }

    fn plan(&self, request: &Request<'_>, teller: &mut Teller) -> Result<Plan, Failure> {
        let _shown = teller.meter_of_plan();
        let mut plan = restore::plan(request, &mut |step| teller.take(step), self.progress)?;
        plan.report.snapshot = request.snapshot.id.to_string();
        Ok(plan)
    }

    fn apply(
        &self,
        request: &Request<'_>,
        plan: &Plan,
        teller: &mut Teller,
        mut journal: Option<&mut journal::Journal>,
    ) -> Result<Report, Failure> {
        self.tell_begin();
        let work = Progress::new();
        let _following = follow(self.progress, &work);
        let shown = tell::show_progress(&work, &plan.report.totals);
        let mut told = |step: &restore::Step| {
            if let Some(journal) = &mut journal {
                journal.note(step)?;
            }
            teller.take(step)
        };
        let mut report = restore::apply(request, plan, &mut told, &work)?;
        drop(shown);
        report.snapshot = request.snapshot.id.to_string();
        if self.arguments.verify {
            restore::reread(request, &mut report, self.progress)?;
        }
        Ok(report)
    }

    fn report(&self, mut report: Report, teller: Teller) -> Result<Exit, Failure> {
        report.target = self.target();
        if let Some(wanted) = &mut *self.wanted.borrow_mut() {
            wanted.report = Some(report.clone());
        }
        if let Some(file) = &self.arguments.report {
            teller.write_report(&self.world.absolute(file), &report)?;
        }
        teller.end(&report)
    }
}
