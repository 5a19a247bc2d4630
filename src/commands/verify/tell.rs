//! What a verification says: a bar while it reads, the result for people or programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backupbot_core::history::Oid;
use backupbot_core::progress::Progress;
use backupbot_core::restore::Named;
use backupbot_core::verify::{Report, Work};
use backupbot_core::wording::{counted, files};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use jiff::Timestamp;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::looking::shown;
use crate::meter::Meter;
use crate::output;

/// How often the bar moves.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Remarks that are printed; `--json` has more.
const REMARKS: usize = 20;

/// What was verified.
pub struct Told<'t> {
    /// Which repository.
    pub repository: &'t str,
    /// Which remote, in words; `None` for what is here.
    pub place: Option<String>,
    /// Which snapshot.
    pub commit: Oid,
    /// When it was made, if it could be read.
    pub time: Option<Timestamp>,
    /// Whether the same snapshot is here; asked of remotes only.
    pub is_here: Option<bool>,
}

impl Told<'_> {
    /// Tells the result, and the exit code that it means.
    pub fn tell(&self, as_json: bool, report: &Report) -> Result<Exit, Failure> {
        if as_json {
            output::json(&json!({
                "repository": self.repository,
                "remote": self.place,
                "snapshot": self.commit.to_string(),
                "time": self.time.map(|time| time.to_string()),
                "snapshot_is_here": self.is_here,
                "report": report,
            }))?;
        } else {
            output::answer(&self.summary(report))?;
        }
        let remarks = &report.remarks[..report.remarks.len().min(REMARKS)];
        named("note", remarks, report.remark_count);
        named("wrong", &report.problems, report.problem_count);
        Ok(if report.problem_count > 0 { Exit::SomeSkipped } else { Exit::Done })
    }

    fn summary(&self, report: &Report) -> String {
        let size = |bytes: u64| ByteSize(bytes).display().iec();
        let place = match &self.place {
            Some(place) => format!(", as {place} holds it"),
            None => String::new(),
        };
        let verdict = match report.problem_count {
            0 => "nothing is wrong".to_owned(),
            1 => "1 thing is WRONG".to_owned(),
            many => format!("{many} things are WRONG"),
        };
        let read = match report.seed {
            None => format!("{} ({})", files(report.verified_files), size(report.verified_bytes)),
            Some(seed) => format!(
                "{} of {} ({} of {}; sample {}, seed {seed})",
                report.verified_files,
                files(report.files),
                size(report.verified_bytes),
                size(report.bytes),
                report.sample
            ),
        };
        let ciphertexts = match report.ciphertexts {
            0 => String::new(),
            many => format!(
                "\n{} compared as {}: no private key that opens them is here",
                counted(many, "content", "contents"),
                if many == 1 { "a ciphertext" } else { "ciphertexts" }
            ),
        };
        let compared = match self.is_here {
            Some(true) => "\nit is the very snapshot that is here",
            Some(false) => "\nthis snapshot is not here, so it was compared with nothing",
            None => "",
        };
        format!(
            "snapshot {} of {}{place}: {verdict}\nread {read} in {}{ciphertexts}{compared}",
            &self.commit.to_string()[..12],
            self.repository,
            counted(report.directories, "directory", "directories")
        )
    }
}

/// Names some of `count` things.
pub fn named(what: &str, things: &[Named], count: u64) {
    for named in things {
        output::complain(&format!("{what}: {}: {}", path(named), named.reason));
    }
    let untold = count.saturating_sub(things.len() as u64);
    if untold > 0 {
        output::complain(&format!("{what}: {untold} more"));
    }
}

/// A path that cannot act on a terminal.
fn path(named: &Named) -> String {
    let exact = named.path_b64.as_ref().and_then(|text| STANDARD.decode(text).ok());
    shown::name(exact.as_deref().unwrap_or(named.path.as_bytes()))
}

/// The moving line while something is verified, taken away when dropped.
pub struct Watched {
    meter: Meter,
    is_over: Arc<AtomicBool>,
}

impl Watched {
    /// While names and records are read.
    pub fn looking() -> Self {
        let meter = Meter::default();
        if meter.show() {
            meter.say("reading names and records".to_owned());
        }
        Self { meter, is_over: Arc::new(AtomicBool::new(false)) }
    }

    /// While contents are read.
    pub fn reading(&mut self, progress: &Progress, work: Work) {
        self.meter.hide();
        self.meter.show_bar(work.bytes);
        let (meter, is_over, progress) = (self.meter.clone(), self.is_over.clone(), progress.clone());
        let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                meter.reach(progress.bytes(), format!("{} of {}", progress.files(), files(work.files)));
                std::thread::sleep(LOOK_AGAIN);
            }
        });
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.meter.hide();
    }
}
