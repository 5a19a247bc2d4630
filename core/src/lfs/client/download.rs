//! Getting objects from a server, several at a time, hashed as they come; and asking which of them it has.
//!
//! What has come of an object is kept while the call lasts, and the rest is asked for, if the server then sends exactly
//! the rest. Whatever it sends, an object is taken only if its hash is its name.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use reqwest::Response;
use reqwest::header::CONTENT_RANGE;

use super::batch::{Actions, Answer, MOST, doing};
use super::failure::{Attempt, Failure, Operation};
use super::law::Tries;
use super::server::{Server, pause};
use super::storage::Transfer;
use super::upload::{Streak, renewed};
use super::workers::{AT_ONCE, for_each};
use super::{Downloaded, Presence, Reason, largest_first};
use crate::error::{Error, Kind, Result};
use crate::lfs::objects::Draft;
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;
use crate::transport::Answer as Body;
use crate::transport::wire::Incoming;

/// Bytes taken from the connection at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Brings a download so much before it breaks off, that counts for no failure.
const GOOD_PIECE: u64 = 1 << 20;
/// So often an object that came whole and wrong is got again: a proxy on the way may have kept something else.
const MOST_WRONG: u32 = 2;

/// Which of `objects` the server lacks.
pub(super) fn missing(server: &Server, objects: &[Pointer], progress: &Progress) -> Result<Presence> {
    let mut presence = Presence::default();
    let streak = Streak::default();
    let mut seen = HashSet::new();
    let each_once: Vec<Pointer> = objects.iter().filter(|pointer| seen.insert(**pointer)).copied().collect();
    for chunk in each_once.chunks(MOST) {
        for (pointer, answer) in server.answers(Operation::Download, chunk, progress)? {
            match answer {
                Answer::There | Answer::Do(_) => presence.there += 1,
                Answer::Not(Failure::Refused(Reason::Missing, _)) => presence.missing.push(pointer),
                Answer::Not(failure) => presence.unsure.push((pointer, streak.judge(failure)?)),
            }
        }
    }
    Ok(presence)
}

/// Gets what `store` lacks of `objects`.
pub(super) fn download(
    server: &Server,
    objects: &[Pointer],
    store: &Objects,
    progress: &Progress,
) -> Result<Downloaded> {
    let mut outcome = Downloaded::default();
    let mut wanted = Vec::new();
    for pointer in largest_first(objects) {
        progress.check()?;
        match store.has(&pointer)? {
            true => outcome.already += 1,
            false => wanted.push(pointer),
        }
    }
    let streak = Streak::default();
    for chunk in wanted.chunks(MOST) {
        let mut jobs = Vec::new();
        for (pointer, answer) in server.answers(Operation::Download, chunk, progress)? {
            match answer {
                Answer::Do(actions) => jobs.push((pointer, actions)),
                Answer::There => {
                    let failure = unusable(&pointer, "the server does not say where it is");
                    outcome.failed.push((pointer, streak.judge(failure)?));
                }
                Answer::Not(failure) => outcome.failed.push((pointer, streak.judge(failure)?)),
            }
        }
        let done = Mutex::new(&mut outcome);
        for_each(jobs, AT_ONCE, |(pointer, actions)| {
            let fetched = fetch(server, &pointer, *actions, store, progress);
            let mut outcome = done.lock().unwrap_or_else(PoisonError::into_inner);
            match fetched {
                Ok(()) => {
                    streak.ends();
                    outcome.received += 1;
                    outcome.bytes += pointer.size;
                    progress.file_done(0);
                }
                Err(failure) => outcome.failed.push((pointer, streak.judge(failure)?)),
            }
            Ok(())
        })?;
    }
    Ok(outcome)
}

/// What has come of an object so far.
struct Partial {
    draft: Option<Draft>,
    /// How often all of it came, or its end, and it was another content.
    wrong: u32,
}

/// Gets one object, by the law.
fn fetch(
    server: &Server,
    pointer: &Pointer,
    first: Actions,
    store: &Objects,
    progress: &Progress,
) -> Attempt<()> {
    let transfer = Transfer { server, pointer, progress };
    let mut tries = Tries::new(server.law);
    let mut actions = Some(first);
    let mut was_renewed = false;
    let mut partial = Partial { draft: None, wrong: 0 };
    loop {
        let began = Instant::now();
        let has_ended = |actions: &Actions| !was_renewed && !actions.transfer.is_good();
        let now = match actions.take() {
            Some(actions) if !has_ended(&actions) => actions,
            ended => {
                was_renewed |= ended.is_some();
                match renewed(server, Operation::Download, pointer, progress)? {
                    Answer::Do(actions) => *actions,
                    Answer::Not(failure) => return Err(failure),
                    Answer::There => return Err(unusable(pointer, "the server does not say where it is")),
                }
            }
        };
        let had = partial.draft.as_ref().map_or(0, Draft::size);
        let failure = match receive(&transfer, &now, &mut partial, store) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        match failure {
            Failure::Expired(_) if !was_renewed => was_renewed = true,
            Failure::Passing(error) => {
                // A line that breaks again and again, and brings a good piece each time, gets there.
                let has = partial.draft.as_ref().map_or(0, Draft::size);
                if has >= had.saturating_add(GOOD_PIECE) {
                    tries = Tries::new(server.law);
                }
                let Some(left) = tries.failed(&error, began.elapsed()) else {
                    return Err(Failure::Passing(error));
                };
                pause(left, progress).map_err(Failure::Whole)?;
                was_renewed = false;
                actions = Some(now).filter(|actions| actions.transfer.is_good());
            }
            other => return Err(other),
        }
    }
}

fn unusable(pointer: &Pointer, why: &str) -> Failure {
    let text = format!("cannot get the large object {} of {} bytes: {why}", pointer.id, pointer.size);
    Failure::Refused(Reason::Rejected, Error::new(Kind::RemoteRefused, text))
}

/// One request for the object, or for what is left of it.
fn receive(
    transfer: &Transfer<'_>,
    actions: &Actions,
    partial: &mut Partial,
    store: &Objects,
) -> Attempt<()> {
    let Transfer { server, pointer, progress } = *transfer;
    let from = partial.draft.as_ref().map_or(0, Draft::size);
    let doing = doing(Operation::Download, pointer, &actions.transfer.shown());
    let response = match transfer.get(&actions.transfer, from) {
        // It may be the rest that it does not like to give.
        Err(failure) if from > 0 && matches!(failure, Failure::Refused(..)) => {
            partial.draft = None;
            let text = format!("cannot {doing}: its rest is not to be had");
            return Err(Failure::Passing(Error::new(Kind::RemoteUnreachable, text)));
        }
        other => other?,
    };
    match begins_at(&response, from, pointer.size) {
        Some(start) if start == from => {}
        Some(_) => partial.draft = None,
        None => {
            partial.draft = None;
            return Err(wrong(
                partial,
                format!("cannot {doing}: another part of it came than was asked for"),
            ));
        }
    }
    let resumed = partial.draft.is_some();
    let mut draft = match partial.draft.take() {
        Some(draft) => draft,
        None => store.begin().map_err(Failure::Whole)?,
    };
    if response.content_length().is_some_and(|length| draft.size().saturating_add(length) > pointer.size) {
        return Err(wrong(partial, format!("cannot {doing}: more bytes are announced than it has")));
    }
    let mut body = Body::new(response, server.limits, &server.throttle, progress);
    body.flow();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                partial.draft = Some(draft).filter(|draft| draft.size() > 0);
                return Err(Failure::of(transfer.named(error, Operation::Download, &actions.transfer)));
            }
        };
        if draft.size() + length as u64 > pointer.size {
            return Err(wrong(partial, format!("cannot {doing}: more bytes came than it has")));
        }
        draft.write(&piece[..length]).map_err(Failure::Whole)?;
        progress.bytes_done(length as u64);
    }
    if draft.size() < pointer.size {
        let text = format!("cannot {doing}: it ended after {} bytes", draft.size());
        partial.draft = Some(draft).filter(|draft| !resumed && draft.size() > 0);
        return Err(wrong(partial, text));
    }
    match draft.finish_as(pointer) {
        Err(error) if error.kind() == Kind::RemoteRefused => {
            let text = format!("cannot {doing}: its bytes are not what its name says");
            // A part that came before may be at fault; then it does not count.
            match resumed {
                true => Err(Failure::Passing(Error::new(Kind::RemoteUnreachable, text))),
                false => Err(wrong(partial, text)),
            }
        }
        other => other.map_err(Failure::Whole),
    }
}

/// The server sent what is not the object. Once that may be an accident.
fn wrong(partial: &mut Partial, text: String) -> Failure {
    partial.wrong += 1;
    match partial.wrong < MOST_WRONG {
        true => Failure::Passing(Error::new(Kind::RemoteUnreachable, text)),
        false => Failure::Refused(Reason::Damaged, Error::new(Kind::RemoteRefused, text)),
    }
}

/// With which byte of the object the body begins; `None` if it is not the object to its end.
fn begins_at(response: &Response, from: u64, size: u64) -> Option<u64> {
    match response.status().as_u16() {
        206 => {
            let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            is_rest(range, from, size).then_some(from)
        }
        _ => Some(0),
    }
}

/// Whether a Content-Range is the one from `from` to the end of `size` bytes.
fn is_rest(range: &str, from: u64, size: u64) -> bool {
    let Some((unit, rest)) = range.trim().split_once(' ') else { return false };
    let Some((part, total)) = rest.trim().split_once('/') else { return false };
    let Some((first, last)) = part.split_once('-') else { return false };
    let is = |text: &str, number: Option<u64>| text.parse().ok() == number && number.is_some();
    unit.eq_ignore_ascii_case("bytes")
        && is(first, Some(from))
        && is(last, size.checked_sub(1))
        && (total == "*" || is(total, Some(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_the_rest_and_nothing_else() {
        assert!(is_rest("bytes 5-9/10", 5, 10) && is_rest("Bytes 5-9/*", 5, 10));
        for bad in [
            "bytes 4-9/10",
            "bytes 5-8/10",
            "bytes 5-9/11",
            "bytes 5-/10",
            "bytes */10",
            "items 5-9/10",
            "5-9/10",
            "",
            "bytes 5-99999999999999999999/10",
        ] {
            assert!(!is_rest(bad, 5, 10), "{bad}");
        }
        assert!(!is_rest("bytes 0-0/0", 0, 0));
    }
}
