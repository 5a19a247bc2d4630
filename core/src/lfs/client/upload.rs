//! Bringing objects to a server: what it lacks of them, largest first, several at a time; each is confirmed by the
//! server's own verification, or else by asking once more whether it is there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batch::{Actions, Answer, MOST};
use super::failure::{Attempt, Failure, Operation};
use super::law::Tries;
use super::server::{Server, pause};
use super::storage::Transfer;
use super::workers::{AT_ONCE, for_each};
use super::{Reason, Refusal, Uploaded, largest_first};
use crate::error::{Error, Kind, Result};
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;

/// So many objects one after the other that lasting trouble was had with: it is the server's, not theirs.
const MOST_IN_A_ROW: u32 = 5;

/// Whether trouble is one object's or everybody's.
#[derive(Default)]
pub(super) struct Streak(AtomicU32);

impl Streak {
    /// One went well.
    pub(super) fn ends(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// One is given up: the refusal, or the error of the whole call.
    pub(super) fn judge(&self, failure: Failure) -> Result<Refusal> {
        let is_trouble = matches!(failure, Failure::Passing(_) | Failure::Expired(_));
        let refusal = failure.into_refusal()?;
        if is_trouble && self.0.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_IN_A_ROW {
            return Err(refusal.error);
        }
        Ok(refusal)
    }
}

/// How an object got there.
enum Way {
    Sent { is_confirmed: bool },
    Already,
}

/// Brings `objects` there.
pub(super) fn upload(
    server: &Server,
    objects: &[Pointer],
    store: &Objects,
    progress: &Progress,
) -> Result<Uploaded> {
    let mut outcome = Uploaded::default();
    let streak = Streak::default();
    for chunk in largest_first(objects).chunks(MOST) {
        upload_chunk(server, chunk, store, &streak, &mut outcome, progress)?;
    }
    Ok(outcome)
}

fn upload_chunk(
    server: &Server,
    chunk: &[Pointer],
    store: &Objects,
    streak: &Streak,
    outcome: &mut Uploaded,
    progress: &Progress,
) -> Result<()> {
    let mut jobs = Vec::new();
    for (pointer, answer) in server.answers(Operation::Upload, chunk, progress)? {
        match answer {
            Answer::There => outcome.already += 1,
            Answer::Do(actions) => jobs.push((pointer, actions)),
            Answer::Not(failure) => outcome.refused.push((pointer, streak.judge(failure)?)),
        }
    }
    let done = Mutex::new((outcome, Vec::new()));
    for_each(jobs, AT_ONCE, |(pointer, actions)| {
        let sent = send(server, &pointer, *actions, store, progress);
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, unconfirmed) = &mut *done;
        match sent {
            Ok(Way::Already) => outcome.already += 1,
            Ok(Way::Sent { is_confirmed: true }) => count(outcome, &pointer, progress),
            Ok(Way::Sent { is_confirmed: false }) => unconfirmed.push(pointer),
            Err(failure) => {
                outcome.refused.push((pointer, streak.judge(failure)?));
                return Ok(());
            }
        }
        streak.ends();
        Ok(())
    })?;
    let (outcome, unconfirmed) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    confirm(server, unconfirmed, outcome, progress)
}

fn count(outcome: &mut Uploaded, pointer: &Pointer, progress: &Progress) {
    outcome.sent += 1;
    outcome.bytes += pointer.size;
    progress.file_done(0);
}

/// Sends one object, by the law.
fn send(
    server: &Server,
    pointer: &Pointer,
    first: Actions,
    store: &Objects,
    progress: &Progress,
) -> Attempt<Way> {
    let transfer = Transfer { server, pointer, progress };
    if !store.has(pointer).map_err(Failure::Whole)? {
        return Err(transfer.not_here());
    }
    let mut tries = Tries::new(server.law);
    let mut actions = Some(first);
    let (mut was_renewed, mut was_sent) = (false, false);
    loop {
        let began = Instant::now();
        let has_ended = |actions: &Actions| !was_renewed && !actions.transfer.is_good();
        let now = match actions.take() {
            Some(actions) if !has_ended(&actions) => actions,
            ended => {
                was_renewed |= ended.is_some();
                match renewed(server, Operation::Upload, pointer, progress)? {
                    Answer::There if was_sent => return Ok(Way::Sent { is_confirmed: true }),
                    Answer::There => return Ok(Way::Already),
                    Answer::Do(actions) => *actions,
                    Answer::Not(failure) => return Err(failure),
                }
            }
        };
        let attempt = transfer.put(&now.transfer, store).and_then(|()| {
            was_sent = true;
            match &now.verify {
                Some(verify) => transfer.verify(verify).map(|()| true),
                None => Ok(false),
            }
        });
        let failure = match attempt {
            Ok(is_confirmed) => return Ok(Way::Sent { is_confirmed }),
            Err(failure) => failure,
        };
        match failure {
            Failure::Expired(_) if !was_renewed => was_renewed = true,
            Failure::Passing(error) => match tries.failed(&error, began.elapsed()) {
                Some(left) => {
                    pause(left, progress).map_err(Failure::Whole)?;
                    // The connection may have ended after the last byte: then it is there.
                    was_sent = true;
                    was_renewed = false;
                    actions = Some(now).filter(|actions| actions.transfer.is_good());
                }
                None => return Err(Failure::Passing(error)),
            },
            other => return Err(other),
        }
    }
}

/// What is to be done now with one object whose answer does not count any more.
pub(super) fn renewed(
    server: &Server,
    operation: Operation,
    pointer: &Pointer,
    progress: &Progress,
) -> Attempt<Answer> {
    let answers = server.answers(operation, std::slice::from_ref(pointer), progress);
    let answer = answers.map_err(Failure::Whole)?.pop().map(|(_, answer)| answer);
    answer.ok_or_else(|| Failure::Whole(Error::new(Kind::Internal, "a batch of one object has no answer")))
}

/// Asks whether what was sent is there now. A storage may need a moment to know.
fn confirm(
    server: &Server,
    mut unconfirmed: Vec<Pointer>,
    outcome: &mut Uploaded,
    progress: &Progress,
) -> Result<()> {
    let mut tries = Tries::new(server.law);
    while !unconfirmed.is_empty() {
        let mut still = Vec::new();
        for (pointer, answer) in server.answers(Operation::Upload, &unconfirmed, progress)? {
            match answer {
                Answer::There => count(outcome, &pointer, progress),
                Answer::Do(_) => still.push(pointer),
                Answer::Not(failure) => outcome.refused.push((pointer, failure.into_refusal()?)),
            }
        }
        unconfirmed = still;
        let Some(first) = unconfirmed.first() else { return Ok(()) };
        let error = unkept(first);
        match tries.failed(&error, Duration::ZERO) {
            Some(left) => pause(left, progress)?,
            None => {
                let refusals = unconfirmed
                    .iter()
                    .map(|pointer| (*pointer, Refusal { reason: Reason::Trouble, error: unkept(pointer) }));
                outcome.refused.extend(refusals);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn unkept(pointer: &Pointer) -> Error {
    let text = format!(
        "the remote took the large object {} of {} bytes, and says that it does not have it",
        pointer.id, pointer.size
    );
    Error::new(Kind::RemoteUnreachable, text)
}
