//! Which snapshot a user means: `latest`, `latest~3`, a tag, the beginning of a commit's id, or a time.
//!
//! A time means the newest snapshot that is not younger: the state of that moment. A time that leaves something out
//! means its end, so a date is the last snapshot of that day and `13:05` all of that minute. Times without a zone are
//! of the time zone that is passed in. Where several readings lead to different snapshots nothing is guessed: the
//! error names them, and how to say each.

use std::collections::BTreeSet;

use git2::{ObjectType, Oid};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

use super::Snapshot;
use super::log::Log;
use crate::error::{Error, Kind, Result};
use crate::git::repository::{Repository, git_error};
use crate::guard::branch;

/// A shorter beginning of an id is taken for something else.
const SHORTEST_PREFIX: usize = 4;
/// Candidates that an error names.
const NAMED: usize = 5;

/// What `--at` takes, for messages.
pub const FORMS: &str = "latest, latest~3, a tag, a quarantine branch, a commit's id or its first four digits or more, 2026-11-22, \
     \"2026-11-22 13:05\", 2026-11-22T13:05:00Z, yesterday, or \"2 hours ago\"";

/// The snapshot that `text` means, seen from `tip` at `now`.
///
/// # Errors
/// [`Kind::Config`] for what has no meaning or several, [`Kind::Git`] if there is no such snapshot or history cannot
/// be read.
pub fn resolve(repository: &Repository, tip: Oid, text: &str, now: &Zoned) -> Result<Snapshot> {
    let text = text.trim();
    if let Some(back) = generations(text) {
        return generation(repository, tip, text, back);
    }
    let mut candidates: Vec<(String, Oid)> = Vec::new();
    if let Some(commit) = tag(repository, text)? {
        let name = text.strip_prefix("refs/tags/").unwrap_or(text);
        candidates.push((format!("the tag refs/tags/{name}"), commit));
    }
    if let Some(commit) = quarantine(repository, text)? {
        candidates.push((format!("the quarantine {text}"), commit));
    }
    if is_prefix(text) {
        let commits = with_prefix(repository, tip, text)?;
        candidates.extend(commits.into_iter().map(|id| (format!("the commit {id}"), id)));
    }
    let instant = instant(text, now)
        .map_err(|why| Error::new(Kind::Config, format!("{text:?} is no time that there can be: {why}")))?;
    // A time is only an answer if there is a snapshot of it, and only then can it compete with a tag.
    let mut too_early = None;
    if let Some(instant) = instant {
        match not_younger(repository, tip, text, instant, now.time_zone()) {
            Ok(snapshot) => candidates.push((format!("the time {}", local(instant, now)), snapshot.id)),
            Err(error) => too_early = Some(error),
        }
    }
    let different: BTreeSet<Oid> = candidates.iter().map(|(_, id)| *id).collect();
    match (different.first(), different.len()) {
        (Some(id), 1) => Snapshot::read(repository, *id),
        (None, _) => Err(too_early.unwrap_or_else(|| nothing(text))),
        _ => Err(ambiguous(text, &candidates)),
    }
}

fn nothing(text: &str) -> Error {
    let text =
        format!("{text:?} names no snapshot: there is no such tag or commit, and it is no time; say {FORMS}");
    Error::new(Kind::Config, text)
}

fn ambiguous(text: &str, candidates: &[(String, Oid)]) -> Error {
    let named = candidates.iter().take(NAMED).map(|(what, id)| {
        let id = id.to_string();
        if what.contains(&id) { what.clone() } else { format!("{what} ({})", &id[..12]) }
    });
    let named: Vec<String> = named.collect();
    let more = candidates.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let text = format!(
        "{text:?} can mean {}{more}: say it as it stands here, or with more digits",
        named.join(", or ")
    );
    Error::new(Kind::Config, text)
}

fn local(instant: Timestamp, now: &Zoned) -> String {
    instant.to_zoned(now.time_zone().clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// How many snapshots back from the latest.
fn generations(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("latest")?;
    if rest.is_empty() {
        return Some(0);
    }
    let digits = rest.strip_prefix('~')?;
    if digits.is_empty() {
        return Some(1);
    }
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

fn generation(repository: &Repository, tip: Oid, text: &str, back: usize) -> Result<Snapshot> {
    let mut count = 0;
    for snapshot in Log::new(repository, tip) {
        let snapshot = snapshot?;
        if count == back {
            return Ok(snapshot);
        }
        count += 1;
    }
    let text = format!(
        "{text} is before the first snapshot: there are {count}, and latest~{} is the oldest",
        count.max(1) - 1
    );
    Err(Error::new(Kind::Git, text))
}

/// The commit that a tag of that name leads to.
fn tag(repository: &Repository, text: &str) -> Result<Option<Oid>> {
    let name = text.strip_prefix("refs/tags/").unwrap_or(text);
    let full = format!("refs/tags/{name}");
    if !git2::Reference::is_valid_name(&full) {
        return Ok(None);
    }
    let reference = match repository.git().find_reference(&full) {
        Ok(reference) => reference,
        Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(git_error(&format!("read {full} of"), repository.path(), error)),
    };
    match reference.peel(ObjectType::Commit) {
        Ok(object) => Ok(Some(object.id())),
        Err(error) => {
            let text = format!("the tag {name} leads to no commit that is here");
            Err(Error::with_source(Kind::Git, text, error))
        }
    }
}

/// The tip of the quarantine branch of that name.
fn quarantine(repository: &Repository, text: &str) -> Result<Option<Oid>> {
    let full = if text.starts_with("refs/") { text.to_owned() } else { format!("refs/heads/{text}") };
    let is_one = full.starts_with(branch::PREFIX) && git2::Reference::is_valid_name(&full);
    if is_one { repository.reference(&full) } else { Ok(None) }
}

fn is_prefix(text: &str) -> bool {
    (SHORTEST_PREFIX..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The commits whose ids begin so: of the history of `tip`, and of every reference.
fn with_prefix(repository: &Repository, tip: Oid, text: &str) -> Result<BTreeSet<Oid>> {
    let wanted = text.to_ascii_lowercase();
    if wanted.len() == 40 {
        let id = Oid::from_str(&wanted).ok().filter(|id| repository.has_commit(*id));
        return Ok(id.into_iter().collect());
    }
    let fail = |error| git_error("walk the history of", repository.path(), error);
    let mut walk = repository.git().revwalk().map_err(fail)?;
    walk.push(tip).map_err(fail)?;
    for (_, id) in repository.references()? {
        // Not every reference leads to a commit.
        let _ = walk.push(id);
    }
    // Where history breaks off, what is known of it counts.
    let known = walk.map_while(std::result::Result::ok);
    Ok(known.filter(|id| id.to_string().starts_with(&wanted)).collect())
}

fn not_younger(
    repository: &Repository,
    tip: Oid,
    text: &str,
    instant: Timestamp,
    zone: &TimeZone,
) -> Result<Snapshot> {
    let mut log = Log::new(repository, tip);
    let mut oldest: Option<Snapshot> = None;
    for snapshot in log.by_ref() {
        let snapshot = snapshot?;
        if snapshot.time <= instant {
            return Ok(snapshot);
        }
        oldest = Some(snapshot);
    }
    let text = match (oldest, log.broke_off()) {
        (Some(oldest), None) => format!(
            "there is no snapshot of {text}: the oldest, {}, was made on {}",
            oldest.short_id(),
            oldest.time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S"),
        ),
        (_, Some(missing)) => format!(
            "there is no snapshot of {text} here: history breaks off before {missing}, which is not in {}",
            repository.path().display()
        ),
        (None, None) => format!("there is no snapshot of {text}"),
    };
    Err(Error::new(Kind::Git, text))
}

/// The last instant of the time that `text` says; `None` if it says none.
///
/// # Errors
/// A sentence, for what looks like a time and can be none.
pub fn instant(text: &str, now: &Zoned) -> std::result::Result<Option<Timestamp>, String> {
    if text == "now" || text == "today" {
        return Ok(Some(now.timestamp()));
    }
    if let Some(span) = relative(text) {
        let past = now.checked_sub(span?).map_err(|error| error.to_string())?;
        return Ok(Some(past.timestamp()));
    }
    let (day, time) = day_and_time(text);
    let date = match day {
        "yesterday" => now.date().yesterday().map_err(|error| error.to_string())?,
        "today" => now.date(),
        _ => match date_in(day) {
            Some(date) => date?,
            None => return Ok(None),
        },
    };
    let zone = now.time_zone();
    let Some(time) = time else {
        return end_of_day(date, zone).map(Some).map_err(|error| error.to_string());
    };
    if let Some(end) = end_of_clock_time(time) {
        // An hour that comes twice, when clocks are set back, has its end in the second one.
        let ends = zone.to_ambiguous_timestamp(DateTime::from_parts(date, end)).later();
        return ends.map(Some).map_err(|error| error.to_string());
    }
    // With its own zone.
    Ok(text.parse::<Timestamp>().ok())
}

fn day_and_time(text: &str) -> (&str, Option<&str>) {
    if let Some((day, time)) = text.split_once(' ') {
        return (day, Some(time));
    }
    match (text.get(..10), text.get(10..11), text.get(11..)) {
        (Some(day), Some("T" | "t"), Some(time)) => (day, Some(time)),
        _ => (text, None),
    }
}

fn end_of_day(date: Date, zone: &TimeZone) -> std::result::Result<Timestamp, jiff::Error> {
    let next = date.tomorrow()?.to_zoned(zone.clone())?.timestamp();
    next.checked_sub(1.nanosecond())
}

/// A date as `2026-11-22`; an error if there is no such day.
fn date_in(text: &str) -> Option<std::result::Result<Date, String>> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
    let narrow = |number: i16| i8::try_from(number).unwrap_or(i8::MAX);
    Some(Date::new(year, narrow(month), narrow(day)).map_err(|error| error.to_string()))
}

/// The last moment of `13:05` or `13:05:07`.
fn end_of_clock_time(text: &str) -> Option<Time> {
    let (hour, minute, second) = match (numbers(text, ':', [2, 2]), numbers(text, ':', [2, 2, 2])) {
        (Some([hour, minute]), _) => (hour, minute, 59),
        (_, Some([hour, minute, second])) => (hour, minute, second),
        _ => return None,
    };
    let narrow = |number: i16| i8::try_from(number).ok();
    Time::new(narrow(hour)?, narrow(minute)?, narrow(second)?, 999_999_999).ok()
}

/// Exactly these numbers of digits, with `separator` between them.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i16; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

/// `2 hours ago`, `an hour ago`, `90m ago`.
fn relative(text: &str) -> Option<std::result::Result<Span, String>> {
    let amount = text.strip_suffix("ago")?.trim_end();
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = match digits {
        0 => {
            let (article, unit) = amount.split_once(' ')?;
            matches!(article, "a" | "an" | "one").then_some(("1", unit.trim_start()))?
        }
        _ => (&amount[..digits], amount[digits..].trim_start()),
    };
    let count = number.parse::<i64>().unwrap_or(i64::MAX);
    let span = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => Span::new().try_seconds(count),
        "m" | "min" | "mins" | "minute" | "minutes" => Span::new().try_minutes(count),
        "h" | "hour" | "hours" => Span::new().try_hours(count),
        "d" | "day" | "days" => Span::new().try_days(count),
        "w" | "week" | "weeks" => Span::new().try_weeks(count),
        "month" | "months" => Span::new().try_months(count),
        "y" | "year" | "years" => Span::new().try_years(count),
        _ => return None,
    };
    Some(span.map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests;
