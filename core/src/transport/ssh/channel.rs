//! A channel of a connection, and what has come over it: output that nobody has read yet, the last part of stderr, and
//! how far it is from its end.

use std::collections::VecDeque;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};

use super::connect::one_line;

/// So much of stderr is kept, the last of it.
const MOST_STDERR: usize = 8 * 1024;

/// Why the program at the other end ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exit {
    Code(u32),
    Signal(String),
}

/// A channel and what has come over it.
pub(super) struct Channel {
    pub incoming: ChannelReadHalf,
    pub outgoing: ChannelWriteHalf<Msg>,
    pub got: Got,
}

/// What has come over a channel.
#[derive(Default)]
pub(super) struct Got {
    pub unread: VecDeque<Bytes>,
    pub unread_bytes: usize,
    pub stderr: Vec<u8>,
    /// No more output will come.
    pub is_at_end: bool,
    pub exit: Option<Exit>,
    /// The server has closed the channel.
    pub is_closed: bool,
    /// The session has ended without that.
    pub is_broken: bool,
    /// The server would not start the program.
    pub is_refused: bool,
}

impl Got {
    /// Takes in what has come; `None` means that nothing more can. Returns how many bytes of output it was.
    pub(super) fn take(&mut self, message: Option<ChannelMsg>) -> usize {
        match message {
            None => {
                self.is_broken = !self.is_closed;
                self.is_at_end = true;
            }
            Some(ChannelMsg::Data { data }) => {
                let length = data.len();
                self.unread_bytes += length;
                if length > 0 {
                    self.unread.push_back(data);
                }
                return length;
            }
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                self.stderr.extend_from_slice(&data);
                let surplus = self.stderr.len().saturating_sub(MOST_STDERR);
                self.stderr.drain(..surplus);
            }
            Some(ChannelMsg::Eof) => self.is_at_end = true,
            Some(ChannelMsg::ExitStatus { exit_status }) => self.exit = Some(Exit::Code(exit_status)),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                self.exit = Some(Exit::Signal(name_of(&signal_name)));
            }
            Some(ChannelMsg::Close) => (self.is_closed, self.is_at_end) = (true, true),
            Some(ChannelMsg::Failure) => (self.is_refused, self.is_at_end) = (true, true),
            Some(_) => {}
        }
        0
    }

    /// Nothing more will come over the channel.
    pub(super) fn is_over(&self) -> bool {
        self.is_closed || self.is_broken || self.is_refused
    }

    /// Nobody takes what we write.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_over() || self.exit.is_some()
    }

    /// Drops the output that nobody has read.
    pub(super) fn forget(&mut self) {
        (self.unread_bytes, self.unread) = (0, VecDeque::new());
    }

    /// Moves output into `buffer`; returns how much.
    pub(super) fn pop(&mut self, buffer: &mut [u8]) -> usize {
        let Some(front) = self.unread.front_mut() else { return 0 };
        let length = front.len().min(buffer.len());
        buffer[..length].copy_from_slice(&front[..length]);
        let rest = front.slice(length..);
        match rest.is_empty() {
            true => drop(self.unread.pop_front()),
            false => *front = rest,
        }
        self.unread_bytes -= length;
        length
    }
}

fn name_of(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => one_line(name),
        other => format!("{other:?}"),
    }
}
