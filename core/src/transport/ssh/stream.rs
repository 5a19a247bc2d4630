//! The socket of a connection, read in larger parts and not for every few bytes.
//!
//! An SSH packet is read in two parts, and a server that takes what we send says so with a packet of forty bytes for
//! every few kilobytes: without this, half of the time of a push goes into waking up for them. What has come is
//! read at once, as much as there is; where small parts follow each other quickly, the next look waits for a moment, in
//! which more comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Two of the largest packets that servers send.
const BUFFER: usize = 64 * 1024;
/// Less than this is a small part.
const SMALL: usize = 4 * 1024;
/// After so many of them within [`SPELL`], the next look waits: a greeting and a log-in have fewer.
const MANY: u32 = 8;
const SPELL: Duration = Duration::from_millis(10);
/// So long: short against a round trip over a network.
const REST: Duration = Duration::from_millis(1);

/// A socket with a buffer for what comes in; what goes out passes.
pub(super) struct CalmStream<S = TcpStream> {
    socket: S,
    buffer: Box<[u8]>,
    /// What of the buffer has not been read yet.
    unread: std::ops::Range<usize>,
    /// Until then nobody looks for more.
    rest: Pin<Box<Sleep>>,
    is_resting: bool,
    /// Small parts since then.
    small: u32,
    since: Instant,
}

impl<S> CalmStream<S> {
    pub(super) fn new(socket: S) -> Self {
        let now = Instant::now();
        let rest = Box::pin(sleep_until(now));
        Self {
            socket,
            buffer: vec![0; BUFFER].into(),
            unread: 0..0,
            rest,
            is_resting: false,
            small: 0,
            since: now,
        }
    }

    /// Whether so many small parts have come lately, this one included, that it is better to wait for more.
    fn is_flooded(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) > SPELL {
            (self.small, self.since) = (0, now);
        }
        self.small += 1;
        self.small > MANY
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CalmStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unread.is_empty() {
            if this.is_resting {
                ready!(this.rest.as_mut().poll(context));
                this.is_resting = false;
            }
            let mut part = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.socket).poll_read(context, &mut part))?;
            this.unread = 0..part.filled().len();
            if (1..SMALL).contains(&this.unread.len()) {
                let now = Instant::now();
                this.is_resting = this.is_flooded(now);
                if this.is_resting {
                    this.rest.as_mut().reset(now + REST);
                }
            }
        }
        let length = this.unread.len().min(into.remaining());
        into.put_slice(&this.buffer[this.unread.start..this.unread.start + length]);
        this.unread.start += length;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CalmStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts how often the socket is asked.
    struct Counted<S>(S, u32);

    impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_read(context, into)
        }
    }

    #[test]
    fn every_byte_comes_in_order_whatever_the_sizes_and_the_end_is_an_end() {
        crate::transport::runtime::runtime().unwrap().block_on(async {
            let (near, mut far) = tokio::io::duplex(7_000);
            let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            let bytes = sent.clone();
            let sender = tokio::spawn(async move {
                for part in bytes.chunks(50_001) {
                    far.write_all(part).await.unwrap();
                }
            });
            let mut stream = CalmStream::new(near);
            let mut received = Vec::new();
            let mut length = [0; 4];
            while stream.read_exact(&mut length[..3]).await.is_ok() {
                received.extend_from_slice(&length[..3]);
            }
            sender.await.unwrap();
            assert_eq!(received, sent);
        });
    }

    #[test]
    fn many_small_parts_are_taken_with_few_looks() {
        crate::transport::runtime::runtime().unwrap().block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut stream = CalmStream::new(Counted(near, 0));
            let sender = tokio::spawn(async move {
                for number in 0..2_000_u32 {
                    far.write_all(&number.to_be_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            for number in 0..2_000 {
                assert_eq!(stream.read_u32().await.unwrap(), number);
            }
            sender.await.unwrap();
            assert!(stream.socket.1 < 1_000, "{} looks for 2000 parts", stream.socket.1);
        });
    }
}
