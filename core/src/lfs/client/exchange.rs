//! One request and its answer whole, for everything but objects themselves: bounded in time and size. In: a request;
//! out: status, what matters of the head, and the body.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};

use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::wire::{Incoming, Limits};
use crate::transport::{Answer, Throttle, client_error, retry_after, said, wait};

/// A larger answer to a hundred objects is no answer.
const MOST_BYTES: usize = 4 << 20;
/// Bytes of a refusal that are read, for its words.
const REFUSAL_BYTES: usize = 4096;
/// What it means is known by then; nobody waits long for its words.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub location: Option<String>,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// Waits for the head of an answer.
pub(super) fn head(
    request: RequestBuilder,
    doing: &str,
    limits: Limits,
    progress: &Progress,
) -> Result<Response> {
    wait(progress, async {
        match tokio::time::timeout(limits.answer, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(client_error(&format!("cannot {doing}"), &error)),
            Err(_) => {
                let text = format!("cannot {doing}: no answer within {:.0} s", limits.answer.as_secs_f64());
                Err(Error::new(Kind::RemoteUnreachable, text))
            }
        }
    })
}

/// Sends a request and reads its answer.
pub(super) fn exchange(
    request: RequestBuilder,
    doing: &str,
    limits: Limits,
    progress: &Progress,
) -> Result<Reply> {
    let response = head(request, doing, limits, progress)?;
    let status = response.status().as_u16();
    if !response.status().is_success() {
        return Ok(refused(response, limits, progress));
    }
    let mut reply = reply_of(&response, status);
    let mut answer = Answer::new(response, limits, &Throttle::new(None), progress);
    answer.flow();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = answer.read(&mut piece)?;
        if read == 0 {
            return Ok(reply);
        }
        if reply.body.len() + read > MOST_BYTES {
            let text = format!("cannot {doing}: the answer is larger than makes sense");
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        reply.body.extend_from_slice(&piece[..read]);
    }
}

/// A refusal with the beginning of its body, whatever becomes of that.
pub(super) fn refused(response: Response, limits: Limits, progress: &Progress) -> Reply {
    let status = response.status().as_u16();
    let mut reply = reply_of(&response, status);
    let patience = limits.answer.min(REFUSAL_PATIENCE);
    // A trickle of words counts as none after the same time.
    let limits = Limits { answer: patience, stall: patience, ..limits };
    let mut answer = Answer::new(response, limits, &Throttle::new(None), progress);
    answer.flow();
    let mut words = vec![0; REFUSAL_BYTES];
    let mut filled = 0;
    while filled < words.len() {
        match answer.read(&mut words[filled..]) {
            Ok(read) if read > 0 => filled += read,
            _ => break,
        }
    }
    words.truncate(filled);
    reply.body = words;
    reply
}

fn reply_of(response: &Response, status: u16) -> Reply {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    Reply {
        status,
        retry_after: header(RETRY_AFTER).and_then(|value| retry_after(value, jiff::Timestamp::now())),
        location: header(LOCATION).map(str::to_owned),
        content_type: said(header(CONTENT_TYPE).unwrap_or("none").as_bytes()),
        body: Vec::new(),
    }
}
