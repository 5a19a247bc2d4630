//! What a server says of objects: the batch question, asked in halves where it is too large, and again about those with
//! which there was trouble that passes. In: an operation and up to [`batch::MOST`] objects; out: an answer for each.

use std::time::Instant;

use reqwest::{Method, Url};

use super::Reason;
use super::batch::{self, Answer};
use super::endpoint::below;
use super::exchange::Reply;
use super::failure::{Failure, Operation, of_object, words_of};
use super::law::Tries;
use super::server::{Question, Server, pause, place_shown};
use crate::error::{Error, Kind, Result};
use crate::lfs::Pointer;
use crate::progress::Progress;
use crate::transport::said;

impl Server {
    /// What the server says of up to [`batch::MOST`] objects; again about those with which it has trouble that passes.
    pub(super) fn answers(
        &self,
        operation: Operation,
        objects: &[Pointer],
        progress: &Progress,
    ) -> Result<Vec<(Pointer, Answer)>> {
        let mut tries = Tries::new(self.law);
        let (mut settled, mut open) = (Vec::with_capacity(objects.len()), objects.to_vec());
        loop {
            let began = Instant::now();
            let (passing, answered): (Vec<_>, Vec<_>) = self
                .batch(operation, &open, progress)?
                .into_iter()
                .partition(|(_, answer)| matches!(answer, Answer::Not(Failure::Passing(_))));
            settled.extend(answered);
            let next = match passing.first() {
                Some((_, Answer::Not(Failure::Passing(error)))) => tries.failed(error, began.elapsed()),
                _ => None,
            };
            match next {
                Some(left) => pause(left, progress)?,
                None => {
                    settled.extend(passing);
                    return Ok(settled);
                }
            }
            open = passing.into_iter().map(|(pointer, _)| pointer).collect();
        }
    }

    /// Asks about up to [`batch::MOST`] objects. A question that is too large, or with an object in it that the server
    /// cannot process, is asked in halves.
    pub(super) fn batch(
        &self,
        operation: Operation,
        objects: &[Pointer],
        progress: &Progress,
    ) -> Result<Vec<(Pointer, Answer)>> {
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let body = batch::request(operation, self.reference.as_deref(), objects)?;
        let batch_of = |base: &Url| below(base, "objects/batch");
        let question = Question { operation, method: Method::POST, body: Some(&body), is_bearer: false };
        let (standing, reply) = self.ask(&question, batch_of, progress)?;
        let shown = said(place_shown(&standing.base).as_bytes());
        if (200..300).contains(&reply.status) {
            self.is_good();
            return batch::read(operation, objects, &reply.body, &standing.base, &shown).map_err(|error| {
                error.with_words(&format!("its answer has the content type {}", reply.content_type))
            });
        }
        let error = self.refusal(&standing, &reply);
        match reply.status {
            413 | 422 if error.kind() == Kind::Quota => Err(error),
            413 | 422 if objects.len() > 1 => {
                let (first, second) = objects.split_at(objects.len() / 2);
                let mut answers = self.batch(operation, first, progress)?;
                answers.extend(self.batch(operation, second, progress)?);
                Ok(answers)
            }
            413 | 422 => {
                let doing = batch::doing(operation, &objects[0], &shown);
                let words = words_of(&reply.body, &[]);
                let failure = of_object(u64::from(reply.status), operation, &doing, &words);
                Ok(vec![(objects[0], Answer::Not(failure))])
            }
            404 if operation == Operation::Download => self.all_or_nothing(objects, error, &reply, progress),
            _ => Err(error),
        }
    }

    /// Some servers say of a batch of which they have nothing what they say of a repository that does not exist. What is
    /// to be uploaded tells one from the other.
    fn all_or_nothing(
        &self,
        objects: &[Pointer],
        refusal: Error,
        reply: &Reply,
        progress: &Progress,
    ) -> Result<Vec<(Pointer, Answer)>> {
        let is_missing = |pointer: &Pointer| {
            let text = format!("the remote does not have the large object {}", pointer.id);
            Answer::Not(Failure::Refused(Reason::Missing, Error::new(Kind::RemoteRefused, text)))
        };
        match self.batch(Operation::Upload, objects, progress) {
            Ok(answers) => Ok(answers
                .into_iter()
                .map(|(pointer, answer)| match answer {
                    Answer::Do(_) => (pointer, is_missing(&pointer)),
                    Answer::There => {
                        let text = format!(
                            "the remote says that it has the large object {}, and that it has not",
                            pointer.id
                        );
                        let error = Error::new(Kind::RemoteRefused, text);
                        (pointer, Answer::Not(Failure::Refused(Reason::Rejected, error)))
                    }
                    not => (pointer, not),
                })
                .collect()),
            // Whoever may only read has the words to go by.
            Err(error) if error.kind() == Kind::Credentials => {
                let words = words_of(&reply.body, &[]).to_lowercase();
                match words.contains("object") {
                    true => Ok(objects.iter().map(|pointer| (*pointer, is_missing(pointer))).collect()),
                    false => Err(refusal),
                }
            }
            Err(error) if error.kind() == Kind::RemoteRefused => Err(refusal),
            Err(error) => Err(error),
        }
    }
}
