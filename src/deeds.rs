//! What commands do to Git, to files and to what is trusted, written into the audit log of the state directory that they work
//! beside.
//!
//! In go events, out come lines, by the rules of [`backupbot_core::audit`]: a daemon may be writing meanwhile. A command adds to
//! a log that there is and begins none, because it may run as another user than the daemon, who could not write to it then; where
//! nobody has begun one (a restore on a new machine), nothing is written. What cannot be written is said, and stops nothing.

use std::path::PathBuf;

use backupbot_core::audit::{Audit, Event};
use backupbot_core::restore::Report;

use crate::boot;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::{self, World};

/// The audit log, as a command sees it.
pub struct Deeds {
    path: Option<PathBuf>,
    who: String,
}

impl Deeds {
    /// Of `command`, by whoever called it.
    pub fn of(command: &str, world: &World, global: &Global) -> Self {
        let path = settings::for_asking(world, global).ok().map(|asking| {
            let usual = asking.state_dir.join(boot::AUDIT_FILE);
            let settings = asking.configuration().ok().flatten();
            settings.map_or(usual, |settings| boot::audit_file(&settings.config))
        });
        Self { path, who: format!("{command} by user {}", rustix::process::getuid().as_raw()) }
    }

    /// Adds a line.
    pub fn write(&self, event: Event) {
        let Some(path) = &self.path else { return };
        let trouble = match Audit::join(path) {
            Ok(None) => None,
            Ok(Some(audit)) => {
                audit.record(event.by(&self.who));
                audit.trouble()
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(trouble) = trouble {
            output::complain(&format!("the audit log does not tell of this: {trouble}"));
        }
    }
}

/// A restore is about to write.
pub fn restore_begun(repository: &str, snapshot: &str, target: &str) -> Event {
    restore("begun", repository, snapshot, target)
}

/// What became of a restore that wanted to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// Everything that was wanted is there.
    Whole,
    /// It came to its end, and something could not be restored.
    InPart,
    /// Somebody stopped it.
    Cancelled,
    /// It could not go on.
    Failed,
    /// The process ended.
    Interrupted,
}

impl Restored {
    /// The result in the audit log, which is counted by (`backupbot_actors::measure`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "ok",
            Self::InPart => "incomplete",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Of how many things that could not be restored, or what went wrong; `None` if what was asked for could not be obeyed,
    /// so that there was no restore.
    pub fn ended(outcome: &Result<u64, Failure>, is_cancelled: bool) -> Option<Self> {
        match outcome {
            Ok(0) => Some(Self::Whole),
            Ok(_) => Some(Self::InPart),
            Err(_) if is_cancelled => Some(Self::Cancelled),
            Err(failure) if failure.exit == Exit::Usage => None,
            Err(_) => Some(Self::Failed),
        }
    }
}

/// A restore is over. The report, as far as there is one, says how much it was.
pub fn restore_ended(
    became: Restored,
    repository: &str,
    snapshot: &str,
    target: &str,
    report: Option<&Report>,
) -> Event {
    let event = restore(became.as_str(), repository, snapshot, target);
    let Some(report) = report else { return event };
    let event = event.with("files", report.totals.files).with("bytes", report.totals.bytes);
    if report.problem_count == 0 { event } else { event.with("not restored", report.problem_count) }
}

fn restore(result: &str, repository: &str, snapshot: &str, target: &str) -> Event {
    Event::new("restore", result).in_repository(repository).with("snapshot", snapshot).with("to", target)
}
