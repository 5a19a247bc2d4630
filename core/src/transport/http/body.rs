//! Bytes of a request on their way out and of an answer on their way in, between a caller that blocks and a client that
//! does not.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_core::Stream;
use reqwest::{Body, RequestBuilder, Response};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::error_of;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::pace::{Pace, Throttle};
use crate::transport::runtime::{self, run};
use crate::transport::wire::{Incoming, Limits, Outgoing};

/// Bytes handed on at a time.
const PIECE: usize = 64 * 1024;
/// Pieces on their way to the client.
const WAITING: usize = 4;

/// A request whose body is being written.
pub(crate) struct Upload {
    pieces: Option<mpsc::Sender<Bytes>>,
    held: Vec<u8>,
    response: JoinHandle<reqwest::Result<Response>>,
    limits: Limits,
    pace: Pace,
    /// Since when it is being produced what goes next.
    left: Instant,
    throttle: Throttle,
    progress: Progress,
    is_cut_off: bool,
}

impl Upload {
    /// Sends the head of the request and waits for its body.
    pub(crate) fn start(
        request: RequestBuilder,
        length: Option<u64>,
        limits: Limits,
        throttle: &Throttle,
        progress: &Progress,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let request = match length {
            Some(length) => request.header(reqwest::header::CONTENT_LENGTH, length),
            None => request,
        };
        let request = request.body(Body::wrap_stream(Pieces(receiver)));
        let response = runtime::runtime()?.spawn(request.send());
        Ok(Self {
            pieces: Some(sender),
            held: Vec::new(),
            response,
            limits,
            pace: Pace::flowing(limits),
            left: Instant::now(),
            throttle: throttle.clone(),
            progress: progress.clone(),
            is_cut_off: false,
        })
    }

    /// Whether the client takes no more: the answer is there, or the connection is not.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    fn send(&mut self, piece: Bytes) -> Result<()> {
        self.throttle.pass(piece.len(), &self.progress)?;
        self.progress.check()?;
        self.pace.excuse(self.left.elapsed());
        let sent = self.hand_on(piece);
        self.left = Instant::now();
        sent
    }

    fn hand_on(&mut self, piece: Bytes) -> Result<()> {
        let Some(pieces) = &self.pieces else { return Err(cut_off()) };
        let size = piece.len();
        let mut piece = match pieces.try_send(piece) {
            Ok(()) => return self.pace.moved(size),
            Err(mpsc::error::TrySendError::Full(piece)) => Some(piece),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.is_cut_off = true;
                return Err(cut_off());
            }
        };
        while let Some(waiting) = piece.take() {
            let patience = self.pace.patience();
            let sent = run(
                &self.progress,
                async {
                    match pieces.reserve().await {
                        Ok(place) => {
                            place.send(waiting.clone());
                            Ok(Some(true))
                        }
                        Err(_) => Ok(Some(false)),
                    }
                }
                .within(patience),
            )?;
            match sent {
                Some(true) => self.pace.moved(size)?,
                Some(false) => {
                    self.is_cut_off = true;
                    return Err(cut_off());
                }
                None => {
                    self.pace.judge()?;
                    piece = Some(waiting);
                }
            }
        }
        Ok(())
    }

    /// Ends the body, and waits for the head of the answer.
    pub(crate) fn answer(mut self) -> Result<Response> {
        if !self.is_cut_off && !self.held.is_empty() {
            let rest = std::mem::take(&mut self.held);
            if let Err(error) = self.send(Bytes::from(rest))
                && !self.is_cut_off
            {
                return Err(error);
            }
        }
        self.pieces = None;
        let mut pace = Pace::waiting(self.limits);
        loop {
            let response = &mut self.response;
            let patience = pace.patience();
            let answered = run(&self.progress, async { Ok(Some(response.await)) }.within(patience))?;
            match answered {
                Some(Ok(Ok(response))) => return Ok(response),
                Some(Ok(Err(error))) => return Err(error_of("cannot send", &error)),
                Some(Err(_)) => {
                    return Err(Error::new(
                        Kind::RemoteUnreachable,
                        "the request was given up by the client",
                    ));
                }
                None => pace.judge()?,
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Nobody waits for it any more: the connection is closed with the request half sent.
        self.response.abort();
    }
}

fn cut_off() -> Error {
    Error::new(
        Kind::RemoteUnreachable,
        "the remote closed the connection before it had taken the whole request",
    )
}

impl Outgoing for Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        let piece = self.throttle.piece(PIECE);
        while !rest.is_empty() {
            let room = piece.saturating_sub(self.held.len()).max(1);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.held.extend_from_slice(now);
            rest = later;
            if self.held.len() >= piece {
                let full = std::mem::take(&mut self.held);
                self.send(Bytes::from(full))?;
            }
        }
        Ok(())
    }
}

/// What the client takes the body from.
struct Pieces(mpsc::Receiver<Bytes>);

impl Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

/// The body of an answer.
pub(crate) struct Answer {
    response: Response,
    held: Bytes,
    pace: Pace,
    /// Since when what came last is being worked on.
    left: Instant,
    throttle: Throttle,
    progress: Progress,
}

impl Answer {
    pub(crate) fn new(response: Response, limits: Limits, throttle: &Throttle, progress: &Progress) -> Self {
        Self {
            response,
            held: Bytes::new(),
            pace: Pace::waiting(limits),
            left: Instant::now(),
            throttle: throttle.clone(),
            progress: progress.clone(),
        }
    }
}

impl Incoming for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.pace.excuse(self.left.elapsed());
        while self.held.is_empty() {
            let patience = self.pace.patience();
            let response = &mut self.response;
            let piece = run(&self.progress, async { Ok(Some(response.chunk().await)) }.within(patience))?;
            match piece {
                Some(Ok(Some(piece))) => {
                    self.pace.moved(piece.len())?;
                    let held_back = Instant::now();
                    self.throttle.pass(piece.len(), &self.progress)?;
                    self.pace.excuse(held_back.elapsed());
                    self.held = piece;
                }
                Some(Ok(None)) => return Ok(0),
                Some(Err(error)) => return Err(error_of("the answer broke off", &error)),
                None => self.pace.judge()?,
            }
        }
        let size = buffer.len().min(self.held.len());
        buffer[..size].copy_from_slice(&self.held.split_to(size));
        self.left = Instant::now();
        Ok(size)
    }

    fn flow(&mut self) {
        self.pace.flow();
    }
}

/// Waiting no longer than one is willing to.
trait Within<T>: Future<Output = Result<Option<T>>> + Sized {
    /// `None` when the time is over.
    async fn within(self, patience: std::time::Duration) -> Result<Option<T>> {
        match tokio::time::timeout(patience, self).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(None),
        }
    }
}

impl<T, F: Future<Output = Result<Option<T>>>> Within<T> for F {}
