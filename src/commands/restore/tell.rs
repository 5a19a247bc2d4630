//! What a restore says: its steps if asked for, a bar while it works, the report at the end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backupbot_core::error::Result as CoreResult;
use backupbot_core::progress::Progress;
use backupbot_core::restore::{Action, Plan, Report, Step, Totals};
use backupbot_core::wording::files;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::cli::restore::Restore;
use crate::exit::{Exit, Failure};
use crate::meter::Meter;
use crate::output;

/// Steps of a plan that are shown before a question.
const SHOWN_OF_A_PLAN: usize = 40;
/// How often the bar moves.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Takes the steps and tells those that are to be told.
pub struct Teller {
    as_json: bool,
    /// All of them, as they come.
    lists: bool,
    /// The first of them, later.
    keeps: usize,
    kept: Vec<String>,
    steps: Vec<Value>,
    changes: u64,
}

impl Teller {
    /// As the flags say.
    pub fn new(global: &Global, arguments: &Restore) -> Self {
        let lists = arguments.dry_run || arguments.list;
        Self { as_json: global.json, lists, ..Self::silent() }
    }

    /// Keeps the beginning of a plan.
    pub fn for_plan(global: &Global) -> Self {
        Self { as_json: global.json, keeps: SHOWN_OF_A_PLAN, ..Self::silent() }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self { as_json: false, lists: false, keeps: 0, kept: Vec::new(), steps: Vec::new(), changes: 0 }
    }

    /// Takes a step.
    pub fn take(&mut self, step: &Step) -> CoreResult<()> {
        if matches!(step.action, Action::Equal) {
            return Ok(());
        }
        self.changes += 1;
        if self.lists && self.as_json {
            self.steps.push(serde_json::to_value(step).unwrap_or_default());
        } else if self.lists {
            // A reader that went away is no reason to stop.
            let _ = output::answer(&step.to_string());
        } else if self.kept.len() < self.keeps {
            self.kept.push(step.to_string());
        }
        Ok(())
    }

    /// A spinner while a plan is made.
    pub fn meter_of_plan(&self) -> Spinner {
        let meter = Meter::default();
        if !self.lists && meter.show() {
            meter.say("looking what is to be done".to_owned());
        }
        Spinner(meter)
    }

    /// Shows the plan before a question.
    pub fn show_plan(&self, plan: &Plan) -> Result<(), Failure> {
        if self.as_json {
            return Ok(());
        }
        for line in &self.kept {
            output::complain(line);
        }
        let more = self.changes.saturating_sub(self.kept.len() as u64);
        if more > 0 {
            output::complain(&format!("... and {more} more (all of them: --dry-run)"));
        }
        output::complain(&plan.report.summary());
        Ok(())
    }

    /// Writes the report to a file of its own.
    pub fn write_report(&self, file: &Path, report: &Report) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(report)
            .map_err(|error| Failure::io("cannot write the report", error))?;
        std::fs::write(file, text).map_err(|error| {
            Failure::io(format!("cannot write the report {}", crate::files::shown(file)), error)
        })
    }

    /// Tells the report, and the exit code that it means.
    pub fn end(self, report: &Report) -> Result<Exit, Failure> {
        if self.as_json {
            let mut answer = json!({"report": report});
            if self.lists {
                answer["steps"] = Value::Array(self.steps);
            }
            output::json(&answer)?;
        } else {
            output::answer(&report.summary())?;
        }
        for remark in &report.remarks {
            output::complain(&format!("note: {}: {}", remark.path, remark.reason));
        }
        for problem in &report.problems {
            output::complain(&format!("not restored: {}: {}", problem.path, problem.reason));
        }
        let untold = report.problem_count - report.problems.len() as u64;
        if untold > 0 {
            output::complain(&format!("not restored: {untold} more"));
        }
        Ok(if report.problem_count > 0 { Exit::SomeSkipped } else { Exit::Done })
    }
}

/// A spinner, taken away when dropped.
pub struct Spinner(Meter);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.hide();
    }
}

/// A bar that follows a restore, taken away when dropped.
pub struct Bar {
    meter: Meter,
    is_over: Arc<AtomicBool>,
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.meter.hide();
    }
}

/// Shows how far `progress` is on its way to `totals`.
pub fn show_progress(progress: &Progress, totals: &Totals) -> Bar {
    let (meter, is_over) = (Meter::default(), Arc::new(AtomicBool::new(false)));
    meter.show_bar(totals.bytes);
    let things = totals.files + totals.symlinks + totals.hard_links + totals.specials;
    let (its_meter, its_end, progress) = (meter.clone(), is_over.clone(), progress.clone());
    let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
        while !its_end.load(Ordering::Relaxed) {
            its_meter.reach(progress.bytes(), format!("{} of {}", progress.files(), files(things)));
            std::thread::sleep(LOOK_AGAIN);
        }
    });
    Bar { meter, is_over }
}
