//! `backupbot audit`: what was done, from the log itself, and whether that is whole.
//!
//! It reads files and asks nobody, so it works beside a daemon, without one, and when the database is damaged.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use backupbot_core::audit::Line;
use backupbot_core::audit::read::{self, Found};
use backupbot_core::audit::verify::{self, Verified};
use backupbot_core::history::moment;
use jiff::Timestamp;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::boot;
use crate::cli::Global;
use crate::cli::audit::{Audit, AuditCommand, AuditVerify};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::looking::shown as look;
use crate::output::{self, Lines};
use crate::settings::{self, World};

/// Lines shown, if nothing is said.
const LINES: usize = 50;

pub fn audit(world: &World, global: &Global, arguments: &Audit) -> Result<Exit, Failure> {
    let path = log_file(world, global)?;
    match &arguments.command {
        None => list(&path, global, arguments),
        Some(AuditCommand::Verify(verify)) => check(&path, global, verify),
    }
}

fn log_file(world: &World, global: &Global) -> Result<PathBuf, Failure> {
    let asking = settings::for_asking(world, global)?;
    let usual = asking.state_dir.join(boot::AUDIT_FILE);
    let path = asking.configuration()?.map_or(usual, |settings| boot::audit_file(&settings.config));
    if !matches!(path.try_exists(), Ok(false)) {
        return Ok(path);
    }
    Err(Failure::failed(format!(
        "there is no audit log {}: nothing was done with this state directory yet; name the right one with --state-dir or \
         --config",
        shown(&path)
    )))
}

fn list(path: &Path, global: &Global, arguments: &Audit) -> Result<Exit, Failure> {
    let since = arguments.since.as_deref().map(|text| since(text, &Zoned::now())).transpose()?;
    let usual = if since.is_some() { usize::MAX } else { LINES };
    let limit = arguments.limit.unwrap_or(usual);
    let mut kept: VecDeque<Line> = VecDeque::new();
    let mut unreadable = 0u64;
    read::lines(path, &mut |_, found| {
        let line = match found {
            Found::Line(line, _) => *line,
            Found::Foreign(..) => {
                unreadable += 1;
                return true;
            }
            Found::CutOff => return true,
        };
        let is_meant = arguments.repository.is_none() || line.event.place.repository == arguments.repository;
        let is_late = since.is_none_or(|since| line.time.parse().is_ok_and(|time: Timestamp| time >= since));
        if is_meant && is_late {
            kept.push_back(line);
            if kept.len() > limit {
                kept.pop_front();
            }
        }
        true
    })?;
    let mut lines = Lines::begin();
    let zone = TimeZone::system();
    for line in &kept {
        if global.json {
            lines.json(line)?;
        } else {
            lines.line(&in_words(line, &zone))?;
        }
    }
    lines.end()?;
    if unreadable > 0 {
        output::complain(&format!(
            "{unreadable} lines of {} are none of ours: `backupbot audit verify` names them",
            shown(path)
        ));
        return Ok(Exit::SomeSkipped);
    }
    Ok(Exit::Done)
}

/// A day begins at its beginning; everything else is what `--at` takes it for.
fn since(text: &str, now: &Zoned) -> Result<Timestamp, Failure> {
    let nothing = || Failure::usage(format!("--since {text:?} is no time: say {}", moment::FORMS));
    let zone = now.time_zone().clone();
    let day = match text {
        "today" => Some(now.date()),
        "yesterday" => now.date().yesterday().ok(),
        _ => text.parse::<Date>().ok().filter(|_| text.len() == 10),
    };
    if let Some(day) = day {
        return day.to_zoned(zone).map(|start| start.timestamp()).map_err(|_| nothing());
    }
    moment::instant(text, now).ok().flatten().ok_or_else(nothing)
}

/// One line for people: when, who, what, to what, what came of it.
fn in_words(line: &Line, zone: &TimeZone) -> String {
    let event = &line.event;
    let when = line.time.parse().map_or_else(|_| line.time.clone(), |time| look::time(time, zone));
    let mut words = vec![when, event.what.clone()];
    let place = [&event.place.repository, &event.place.remote].into_iter().flatten().cloned();
    words.push(place.collect::<Vec<_>>().join(" → "));
    if let Some(reference) = &event.place.reference {
        words.push(reference.strip_prefix("refs/heads/").unwrap_or(reference).to_owned());
        words.push(format!("{}..{}", short(event.from.as_deref()), short(event.to.as_deref())));
    }
    words.push(event.result.clone());
    words.extend(event.detail.iter().map(|(name, value)| format!("{name}={value}")));
    if event.who != "daemon" {
        words.push(format!("({})", event.who));
    }
    words.retain(|word| !word.is_empty());
    let text = words.join("  ");
    // What a server said stands in here.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn short(id: Option<&str>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| id.chars().take(10).collect())
}

fn check(path: &Path, global: &Global, arguments: &AuditVerify) -> Result<Exit, Failure> {
    let verified = verify::verify(path, arguments.head.as_ref())?;
    let is_well = verified.problem_count == 0 && verified.has_anchor != Some(false);
    if global.json {
        output::json(&document(&verified, is_well))?;
    } else {
        tell(path, &verified, arguments, is_well)?;
    }
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

fn document(verified: &Verified, is_well: bool) -> serde_json::Value {
    let problems: Vec<_> = verified
        .problems
        .iter()
        .map(|problem| json!({"file": shown(&problem.file), "line": problem.line, "problem": problem.what}))
        .collect();
    json!({
        "ok": is_well,
        "lines": verified.lines,
        "first": {"seq": verified.first_seq, "time": verified.first_time},
        "last": {"seq": verified.last_seq, "time": verified.last_time, "hash": verified.head},
        "head_found": verified.has_anchor,
        "cut_off": verified.is_cut_off,
        "problem_count": verified.problem_count,
        "problems": problems,
    })
}

fn tell(path: &Path, verified: &Verified, arguments: &AuditVerify, is_well: bool) -> Result<(), Failure> {
    for problem in &verified.problems {
        output::complain(&format!("{}:{}: {}", shown(&problem.file), problem.line, problem.what));
    }
    let unlisted = verified.problem_count.saturating_sub(verified.problems.len() as u64);
    if unlisted > 0 {
        output::complain(&format!("and {unlisted} more"));
    }
    if let (Some(anchor), Some(false)) = (&arguments.head, verified.has_anchor) {
        output::complain(&format!(
            "line {} is not the one that was noted down: the log was written anew, or cut off",
            anchor.seq
        ));
    }
    if verified.is_cut_off {
        output::complain(
            "the last line is cut off, as a process that died leaves it; the next start takes it away",
        );
    }
    if verified.first_seq > 1 {
        output::complain(&format!("the lines before number {} are not here", verified.first_seq));
    }
    if verified.lines == 0 {
        return output::answer(&format!("{} is empty", shown(path)));
    }
    let (from, to) = (verified.first_time.as_deref(), verified.last_time.as_deref());
    let state = if is_well { "in order" } else { "NOT in order" };
    output::answer(&format!(
        "{} lines from {} to {} are {state}\nlast line: {}:{}",
        verified.lines,
        from.unwrap_or("?"),
        to.unwrap_or("?"),
        verified.last_seq,
        verified.head
    ))
}
