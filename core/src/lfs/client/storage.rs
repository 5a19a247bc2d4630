//! One transfer at the place that the server has named: a PUT of an object from the store, a GET of one, the question
//! whether it arrived. A redirect is another place, under the same rules: at most three, no less safe, within reach, and
//! what lets us in stays behind.

use std::fs::File;
use std::io::{ErrorKind, Read};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Method, Response, Url};
use sha2::{Digest, Sha256};

use super::Reason;
use super::action::{Action, check};
use super::batch::{self, doing};
use super::exchange::{Reply, exchange, head, refused};
use super::failure::{Attempt, Failure, Operation, of_storage, words_of};
use super::server::Server;
use crate::error::{Error, Kind, Result};
use crate::lfs::{Objects, Pointer};
use crate::progress::Progress;
use crate::transport::wire::Outgoing;
use crate::transport::{Upload, said};

/// Redirects that are followed.
const REDIRECTS: usize = 3;
/// Bytes read from the store at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What one transfer is about.
pub(super) struct Transfer<'t> {
    pub server: &'t Server,
    pub pointer: &'t Pointer,
    pub progress: &'t Progress,
}

/// A place on the way of one transfer.
struct Hop {
    action: Action,
    /// A redirect led elsewhere: from there on nothing of ours is for any place.
    has_left: bool,
}

impl Transfer<'_> {
    fn headers(&self, hop: &Hop, operation: Operation) -> Result<HeaderMap> {
        match hop.has_left {
            true => Ok(hop.action.headers.clone()),
            false => self.server.headers_for(operation, &hop.action, self.progress),
        }
    }

    fn failure(&self, reply: &Reply, action: &Action, operation: Operation) -> Failure {
        self.server.heed(&action.href, reply.retry_after);
        let words = words_of(&reply.body, &action.secrets());
        let doing = doing(operation, self.pointer, &action.shown());
        of_storage(reply.status, operation, &doing, reply.retry_after, &words)
    }

    /// Sends the object from `store`, hashed on its way: where the file is not what its name says, its last piece is never sent.
    pub(super) fn put(&self, action: &Action, store: &Objects) -> Attempt<()> {
        let mut hop = Hop { action: action.clone(), has_left: false };
        for _ in 0..=REDIRECTS {
            let reply = match self.put_once(&hop, store)? {
                None => return Ok(()),
                Some(reply) => reply,
            };
            if !matches!(reply.status, 301 | 302 | 307 | 308) {
                return Err(self.failure(&reply, &hop.action, Operation::Upload));
            }
            hop = self.next(hop, &reply, Operation::Upload)?;
        }
        Err(self.rejected(Operation::Upload, &hop.action, "it redirects again and again"))
    }

    /// `None`: it was taken.
    fn put_once(&self, hop: &Hop, store: &Objects) -> Attempt<Option<Reply>> {
        let (server, progress, action) = (self.server, self.progress, &hop.action);
        let file = match store.open(&self.pointer.id).map_err(|error| self.unreadable(error))? {
            Some(file) => file,
            None => return Err(self.not_here()),
        };
        server.rest(&action.href, progress).map_err(Failure::Whole)?;
        let client = server.client_to(&action.href, progress).map_err(Failure::of)?;
        let mut headers = self.headers(hop, Operation::Upload).map_err(Failure::of)?;
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
        let request = client.request(Method::PUT, action.href.clone()).headers(headers);
        let size = Some(self.pointer.size);
        let mut upload =
            Upload::start(request, size, server.limits, &server.throttle, progress).map_err(Failure::of)?;
        let fed = self.feed(file, &mut upload, action);
        let is_cut_off = upload.is_cut_off();
        let response = match fed {
            // Whoever refuses an object need not take it to its end.
            Err(failure) if !is_cut_off => return Err(failure),
            fed => match upload.answer() {
                Ok(response) => response,
                Err(error) => {
                    return Err(fed.err().filter(|_| !is_cut_off).unwrap_or(Failure::of(self.named(
                        error,
                        Operation::Upload,
                        action,
                    ))));
                }
            },
        };
        if !response.status().is_success() {
            return Ok(Some(refused(response, server.limits, progress)));
        }
        if is_cut_off {
            let text = format!(
                "cannot {}: it stopped taking what was sent, and says it was a success",
                doing(Operation::Upload, self.pointer, &action.shown())
            );
            return Err(Failure::Passing(Error::new(Kind::RemoteUnreachable, text)));
        }
        Ok(None)
    }

    /// Writes the object into the request. Its last piece waits until all of it was hashed.
    fn feed(&self, mut file: File, upload: &mut Upload, action: &Action) -> Attempt<()> {
        let named = |error| Failure::of(self.named(error, Operation::Upload, action));
        let mut hasher = Sha256::new();
        let (mut piece, mut held) = (vec![0; PIECE_BYTES], Vec::with_capacity(PIECE_BYTES));
        let mut size = 0u64;
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(self.unreadable(Error::with_source(Kind::Io, "cannot read it", error)));
                }
            };
            size += length as u64;
            if size > self.pointer.size {
                return Err(self.damaged_here());
            }
            hasher.update(&piece[..length]);
            upload.write(&held).map_err(named)?;
            held.clear();
            held.extend_from_slice(&piece[..length]);
            self.progress.bytes_done(length as u64);
        }
        if size != self.pointer.size || hasher.finalize().as_slice() != self.pointer.id.0.as_slice() {
            return Err(self.damaged_here());
        }
        upload.write(&held).map_err(named)
    }

    /// Asks for the object from byte `from` on.
    pub(super) fn get(&self, action: &Action, from: u64) -> Attempt<Response> {
        let mut hop = Hop { action: action.clone(), has_left: false };
        for _ in 0..=REDIRECTS {
            let (server, progress) = (self.server, self.progress);
            server.rest(&hop.action.href, progress).map_err(Failure::Whole)?;
            let client = server.client_to(&hop.action.href, progress).map_err(Failure::of)?;
            let mut headers = self.headers(&hop, Operation::Download).map_err(Failure::of)?;
            headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let mut request = client.request(Method::GET, hop.action.href.clone()).headers(headers);
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let doing = doing(Operation::Download, self.pointer, &hop.action.shown());
            let response = head(request, &doing, server.limits, progress).map_err(Failure::of)?;
            if response.status().is_success() {
                return Ok(response);
            }
            let reply = refused(response, server.limits, progress);
            if !matches!(reply.status, 301 | 302 | 303 | 307 | 308) {
                return Err(self.failure(&reply, &hop.action, Operation::Download));
            }
            hop = self.next(hop, &reply, Operation::Download)?;
        }
        Err(self.rejected(Operation::Download, action, "it redirects again and again"))
    }

    /// Tells whom it concerns that the object was sent, and hears whether it arrived.
    pub(super) fn verify(&self, action: &Action) -> Attempt<()> {
        let (server, progress) = (self.server, self.progress);
        let body = format!(r#"{{"oid":"{}","size":{}}}"#, self.pointer.id, self.pointer.size);
        server.rest(&action.href, progress).map_err(Failure::Whole)?;
        let client = server.client_to(&action.href, progress).map_err(Failure::of)?;
        let hop = Hop { action: action.clone(), has_left: false };
        let mut headers = self.headers(&hop, Operation::Upload).map_err(Failure::of)?;
        headers.insert(ACCEPT, HeaderValue::from_static(batch::TYPE));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(batch::TYPE));
        let request = client.request(Method::POST, action.href.clone()).headers(headers).body(body);
        let doing = format!("have {} confirm the large object {}", action.shown(), self.pointer.id);
        let reply = exchange(request, &doing, server.limits, progress).map_err(Failure::of)?;
        match reply.status {
            200..=299 => Ok(()),
            _ => Err(self.failure(&reply, action, Operation::Upload)),
        }
    }

    /// Where a redirect leads.
    fn next(&self, hop: Hop, reply: &Reply, operation: Operation) -> Attempt<Hop> {
        let Hop { mut action, mut has_left } = hop;
        let location = reply.location.as_deref().unwrap_or_default();
        let fail = |why: &str| self.rejected(operation, &action, &format!("it redirects, and {why}"));
        if location.is_empty() || location.chars().any(char::is_control) {
            return Err(fail("says to no place"));
        }
        let target: Url = action.href.join(location).map_err(|_| fail("says to no place"))?;
        check(&target, &action.href).map_err(|why| fail(&why))?;
        if target.origin() != action.href.origin() {
            has_left = true;
            for header in [AUTHORIZATION, COOKIE] {
                action.headers.remove(header);
            }
        }
        action.href = target;
        Ok(Hop { action, has_left })
    }

    fn rejected(&self, operation: Operation, action: &Action, why: &str) -> Failure {
        let text =
            format!("cannot {}: {}", doing(operation, self.pointer, &action.shown()), said(why.as_bytes()));
        Failure::Refused(Reason::Rejected, Error::new(Kind::RemoteRefused, text))
    }

    /// An error of the connection, with the object.
    pub(super) fn named(&self, error: Error, operation: Operation, action: &Action) -> Error {
        match error.kind() {
            Kind::RemoteUnreachable | Kind::RemoteRefused => {
                let doing = doing(operation, self.pointer, &action.shown());
                Error::new(error.kind(), format!("cannot {doing}: {error}"))
            }
            _ => error,
        }
    }

    /// It is not in the store.
    pub(super) fn not_here(&self) -> Failure {
        let text = format!(
            "the large object {} of {} bytes is not in the store here",
            self.pointer.id, self.pointer.size
        );
        Failure::Refused(Reason::Missing, Error::new(Kind::Git, text))
    }

    fn damaged_here(&self) -> Failure {
        let text =
            format!("the large object {} in the store here is damaged: it was not sent", self.pointer.id);
        Failure::Refused(Reason::Damaged, Error::new(Kind::Git, text))
    }

    /// Too many open files concern all; a place of the disk that cannot be read concerns one object.
    fn unreadable(&self, error: Error) -> Failure {
        match error.kind() {
            Kind::Io => {
                let text = format!("the large object {} in the store here cannot be read", self.pointer.id);
                Failure::Refused(Reason::Damaged, Error::with_source(Kind::Io, text, error))
            }
            _ => Failure::Whole(error),
        }
    }
}
