//! What carries Git's smart protocol: a way to start a service at the other end and to exchange bytes with it.
//!
//! HTTP and SSH differ in how a conversation begins (a GET and a POST, or one channel), not in what is said. A
//! conversation is: its advertisement, read to its end or to its flush packet; then at most one request; then the
//! answer, read to its end. Whatever waits is bounded by the wire's [`Limits`] and ends soon after the
//! [`crate::progress::Progress`] that the wire was made with is cancelled.

use std::time::Duration;

use super::Notes;
use crate::error::Result;

/// A program at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Takes pushes.
    ReceivePack,
    /// Answers fetches.
    UploadPack,
}

impl Service {
    /// The program's name, as it stands in addresses and commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Service::ReceivePack => "git-receive-pack",
            Service::UploadPack => "git-upload-pack",
        }
    }
}

/// How patient a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection, its encryption and its log-in, each address of the host on its own.
    pub connect: Duration,
    /// While bytes are under way: over this time at least [`LOWEST_RATE`] on average.
    pub stall: Duration,
    /// While the other end works and says nothing.
    pub answer: Duration,
    /// Bytes a second, both ways together; `None`: as fast as it goes.
    pub bandwidth: Option<u64>,
}

/// Bytes a second below which a transfer counts as stalled.
pub const LOWEST_RATE: u64 = 512;

/// Bytes that come in.
pub trait Incoming {
    /// Fills a part of `buffer`; 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// From here on bytes have to come steadily: the other end has begun to send what it was asked for.
    fn flow(&mut self) {}
}

/// Bytes that go out.
pub trait Outgoing {
    /// Takes all of `bytes`, waiting for room.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Writes the body of a request.
pub type Body<'b> = &'b mut dyn FnMut(&mut dyn Outgoing) -> Result<()>;

/// An exchange with one service.
pub trait Conversation {
    /// The advertisement. Over SSH it ends with a flush packet, and the other end waits.
    fn advertisement(&mut self) -> &mut dyn Incoming;

    /// Sends a request of `length` bytes, if that is known, and gives the answer to read. An answer that comes before
    /// the request was taken whole, such as a refusal of its size, counts more than that it was not.
    fn ask(&mut self, length: Option<u64>, body: Body<'_>) -> Result<Box<dyn Incoming + '_>>;

    /// Whether the other end says its advertisement in any case, so that it has to be read before anything is asked.
    fn has_to_be_read_first(&self) -> bool;

    /// What the other end has said beside its answer so far: an SSH server's stderr. Not clean in any way.
    fn aside(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Ends it; without a request, in the way that tells the other end that there will be none.
    fn close(self: Box<Self>);

    /// Leaves it open after its advertisement, for [`Wire::resume`], where that is cheaper than another one.
    fn park(self: Box<Self>) {
        self.close();
    }
}

/// A way to one repository at the other end.
pub trait Wire: Send {
    /// Starts a service.
    fn open(&mut self, service: Service) -> Result<Box<dyn Conversation + '_>>;

    /// Goes on with the conversation of this service that was parked, the advertisement of which has been read, or
    /// starts one.
    fn resume(&mut self, service: Service) -> Result<Box<dyn Conversation + '_>> {
        self.open(service)
    }

    /// Whether a push may be made by what was advertised some time ago. Where looking again costs a request of its own,
    /// it tells nothing that the push itself does not prove.
    fn may_push_unasked(&self) -> bool {
        false
    }

    /// Whether the other end has a Git LFS server for this repository; `None` where that is not known.
    fn has_lfs(&mut self) -> Result<Option<bool>> {
        Ok(None)
    }

    /// What was noticed on the way since the last call.
    fn notes(&mut self) -> Notes {
        Notes::default()
    }
}
