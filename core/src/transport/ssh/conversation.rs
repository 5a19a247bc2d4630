//! One service, run over one channel of a connection: its output to read, its input to write, its stderr aside.
//!
//! The session's own task reads packets as long as there is room: up to [`super::connect`]'s bound for those nobody
//! has read yet, then the server has to wait. While we write, what comes in meanwhile is taken out of its way (a server
//! may report progress, and must not stop reading for that), up to a bound too. What we write is handed over
//! in pieces, with pauses in which the session writes them to the socket. Of stderr the last part is kept, however much it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::channel::{Channel, Exit, Got};
use super::connect::Connection;
use super::site::Site;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::messages::Messages;
use crate::transport::pace::{Pace, Throttle};
use crate::transport::runtime::run;
use crate::transport::wire::{Body, Conversation, Incoming, Limits, Outgoing, Service};

/// So much is collected before it is handed over.
const PIECE: usize = 128 * 1024;
/// After so much the session is given a moment without us. It writes to the socket only when nothing more lies ready for
/// it, and keeps what it has encrypted until then.
const MOST_AT_ONCE: usize = 1 << 20;
/// So much that came while we wrote is kept; then the server has to wait.
const MOST_UNREAD: usize = 2 << 20;
/// After its output has ended, a program may take so long to end itself.
const LAST_BREATH: Duration = Duration::from_secs(10);
/// At the end of a conversation the other end may take so long to end it too; the connection is given up then.
const FAREWELL: Duration = Duration::from_secs(2);
/// A service that waited for longer is not counted on.
const LONGEST_PARKED: Duration = Duration::from_secs(20);
/// Git's way to say that there is nothing more.
const FLUSH: &[u8] = b"0000";
/// The exit code with which a shell says that there is no such program.
const NOT_FOUND: u32 = 127;

/// A conversation with one service.
pub(super) struct SshConversation<'w> {
    slot: Slot<'w>,
    /// Where it goes if it is parked.
    place: &'w mut Option<Parked>,
    throttle: &'w mut Throttle,
    site: &'w Site,
    progress: &'w Progress,
    limits: Limits,
    service: Service,
    channel: Channel,
    pace: Pace,
    /// When the last wait ended; the time since is ours.
    left_at: Instant,
    /// Bytes of output read since the last question.
    delivered: u64,
    has_asked: bool,
    is_read: bool,
}

/// The connection, which is given up unless its conversation has come to its end in an orderly way.
struct Slot<'w> {
    connection: &'w mut Option<Connection>,
    is_clean: bool,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if !self.is_clean {
            *self.connection = None;
        }
    }
}

/// A conversation while nobody holds it.
pub(super) struct Parked {
    service: Service,
    channel: Channel,
    /// Its advertisement has been read.
    is_read: bool,
    since: Instant,
}

impl Parked {
    /// Before its first word.
    pub(super) fn new(service: Service, channel: russh::Channel<Msg>) -> Self {
        let (incoming, outgoing) = channel.split();
        Self {
            service,
            channel: Channel { incoming, outgoing, got: Got::default() },
            is_read: false,
            since: Instant::now(),
        }
    }

    /// Whether this is that service, and the other end still waits, as far as was heard: some give up soon.
    pub(super) fn is_good_for(&self, service: Service) -> bool {
        self.service == service && !self.channel.got.is_deaf() && self.since.elapsed() < LONGEST_PARKED
    }
}

/// Starts `command` on a new channel of a connection.
pub(super) fn start(
    connection: &Connection,
    site: &Site,
    progress: &Progress,
    limits: Limits,
    command: &str,
) -> Result<russh::Channel<Msg>> {
    run(progress, async {
        let open = async {
            let channel = connection.handle.channel_open_session().await?;
            // What the server makes of it comes as the channel's first message.
            channel.exec(true, command).await?;
            Ok(channel)
        };
        match timeout(limits.connect, open).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(why))) => {
                let text = format!("{} does not let us start a program: {why:?}", site.shown());
                Err(Error::new(Kind::RemoteRefused, text))
            }
            Ok(Err(error)) => Err(connection.broken(site, &error)),
            Err(_) => {
                let seconds = limits.connect.as_secs_f32();
                let text = format!("{} has not let us start a program within {seconds} s", site.shown());
                Err(Error::new(Kind::RemoteUnreachable, text))
            }
        }
    })
}

impl<'w> SshConversation<'w> {
    /// With the service that runs on `channel` of the connection in `slot`.
    pub(super) fn new(
        parked: Parked,
        place: &'w mut Option<Parked>,
        connection: &'w mut Option<Connection>,
        throttle: &'w mut Throttle,
        site: &'w Site,
        progress: &'w Progress,
        limits: Limits,
    ) -> Self {
        let Parked { service, channel, is_read, .. } = parked;
        Self {
            slot: Slot { connection, is_clean: false },
            place,
            throttle,
            site,
            progress,
            limits,
            service,
            channel,
            pace: Pace::waiting(limits),
            left_at: Instant::now(),
            delivered: 0,
            has_asked: false,
            is_read,
        }
    }

    /// Waits for the next message until patience has run out, which is an error unless enough has come before.
    fn wait(&mut self) -> Result<()> {
        self.pace.excuse(self.left_at.elapsed());
        let (Channel { incoming, got, .. }, pace) = (&mut self.channel, &mut self.pace);
        let outcome = run(self.progress, async {
            let Ok(message) = timeout(pace.patience(), incoming.wait()).await else { return pace.judge() };
            let mut length = got.take(message);
            // Whatever else is there already comes along: it saves waking up for each packet.
            while !got.is_at_end && got.unread_bytes < MOST_UNREAD {
                tokio::select! {
                    biased;
                    message = incoming.wait() => length += got.take(message),
                    () = std::future::ready(()) => break,
                }
            }
            if length > 0 { pace.moved(length) } else { Ok(()) }
        });
        self.left_at = Instant::now();
        outcome
    }

    /// After the last byte: waits for the program's end, and says whether there was an answer at all.
    fn finish(&mut self) -> Result<()> {
        let Channel { incoming, got, .. } = &mut self.channel;
        run(self.progress, async {
            // A program that closes its output and works on has said what it had to say.
            let _ = timeout(LAST_BREATH, drain(incoming, got)).await;
            Ok(())
        })?;
        self.slot.is_clean = self.channel.got.is_closed;
        let mut words = Messages::default();
        words.add(&self.channel.got.stderr);
        self.verdict().map_err(|error| words.explain(error))
    }

    fn verdict(&self) -> Result<()> {
        let got = &self.channel.got;
        let program = format!("{} at {}", self.service.as_str(), self.site.shown());
        let fail = |kind: Kind, why: &str| {
            let kind = if is_full(&got.stderr) { Kind::Quota } else { kind };
            Err(Error::new(kind, format!("{program} {why}")))
        };
        // Before it was asked anything, it refuses; afterwards, something has happened to it.
        let kind = if self.has_asked { Kind::RemoteUnreachable } else { Kind::RemoteRefused };
        match &got.exit {
            _ if got.is_refused => {
                let text = format!("{} runs no programs for {}", self.site.shown(), self.site.user);
                Err(Error::new(Kind::RemoteRefused, text))
            }
            None if got.is_broken => {
                let broken = self
                    .slot
                    .connection
                    .as_ref()
                    .map(|slot| slot.broken(self.site, &russh::Error::Disconnect));
                Err(broken.unwrap_or_else(|| Error::new(Kind::RemoteUnreachable, "the connection broke")))
            }
            Some(Exit::Signal(signal)) => {
                fail(Kind::RemoteUnreachable, &format!("was ended by the signal {signal}"))
            }
            Some(Exit::Code(NOT_FOUND)) if self.delivered == 0 => fail(
                Kind::RemoteRefused,
                "was not found: is git installed there, in the PATH of commands over SSH?",
            ),
            Some(Exit::Code(code)) if *code != 0 && self.delivered == 0 => {
                fail(kind, &format!("ended with exit code {code} and no answer"))
            }
            _ if self.delivered == 0 && !self.has_asked => fail(kind, "has said nothing at all"),
            _ => Ok(()),
        }
    }

    /// Says that nothing more comes from us, and waits a moment for the other end to see it that way.
    fn part(&mut self) -> Result<()> {
        let says_nothing_more = !self.has_asked && !self.channel.got.is_deaf();
        let Channel { incoming, outgoing, got } = &mut self.channel;
        run(self.progress, async {
            let farewell = async {
                if says_nothing_more {
                    // The service ends at either; Git's own client sends both.
                    let _ = outgoing.data_bytes(FLUSH).await;
                    let _ = outgoing.eof().await;
                }
                drain(incoming, got).await;
            };
            let _ = timeout(FAREWELL, farewell).await;
            Ok(())
        })?;
        self.slot.is_clean = self.channel.got.is_closed;
        Ok(())
    }
}

/// Whether the other end has no room.
fn is_full(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr).to_lowercase();
    ["no space left on device", "disk quota exceeded"].iter().any(|sign| text.contains(sign))
}

/// Takes what still comes until nothing can, and keeps none of the output.
async fn drain(incoming: &mut ChannelReadHalf, got: &mut Got) {
    while !got.is_over() {
        got.take(incoming.wait().await);
        got.forget();
    }
}

impl Incoming for SshConversation<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.channel.got.unread.is_empty() {
            if self.channel.got.is_at_end {
                return self.finish().map(|()| 0);
            }
            self.wait()?;
        }
        let length = self.channel.got.pop(buffer);
        self.delivered += length as u64;
        self.throttle.pass(length, self.progress)?;
        Ok(length)
    }

    fn flow(&mut self) {
        self.pace.flow();
    }
}

/// The answer of a conversation that has asked.
struct Answer<'c, 'w>(&'c mut SshConversation<'w>);

impl Incoming for Answer<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer)
    }

    fn flow(&mut self) {
        self.0.flow();
    }
}

impl Conversation for SshConversation<'_> {
    fn advertisement(&mut self) -> &mut dyn Incoming {
        self
    }

    fn ask(&mut self, _length: Option<u64>, body: Body<'_>) -> Result<Box<dyn Incoming + '_>> {
        (self.has_asked, self.delivered) = (true, 0);
        self.pace = Pace::flowing(self.limits);
        self.left_at = Instant::now();
        let mut question = Question {
            talk: self,
            collected: Vec::with_capacity(PIECE),
            underway: Arc::default(),
            at_once: 0,
        };
        let asked = body(&mut question).and_then(|()| question.finish());
        if let Err(error) = asked
            && (error.kind() == Kind::Cancelled || !self.channel.got.is_deaf())
        {
            return Err(error);
        }
        self.pace = Pace::waiting(self.limits);
        self.left_at = Instant::now();
        Ok(Box::new(Answer(self)))
    }

    fn has_to_be_read_first(&self) -> bool {
        !self.is_read
    }

    fn aside(&self) -> Vec<u8> {
        self.channel.got.stderr.clone()
    }

    fn close(mut self: Box<Self>) {
        if !self.slot.is_clean {
            // Whoever cannot say farewell hangs up.
            let _ = self.part();
        }
    }

    fn park(self: Box<Self>) {
        if self.has_asked || self.channel.got.is_deaf() {
            return self.close();
        }
        let Self { mut slot, place, channel, service, .. } = *self;
        slot.is_clean = true;
        *place = Some(Parked { service, channel, is_read: true, since: Instant::now() });
    }
}

/// How many bytes are on their way from us to the session.
#[derive(Default)]
struct Underway {
    bytes: AtomicUsize,
    less: Notify,
}

/// A piece that says when the session has taken it.
struct Piece {
    bytes: Vec<u8>,
    underway: Arc<Underway>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.underway.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.underway.less.notify_one();
    }
}

/// The input of the program.
struct Question<'c, 'w> {
    talk: &'c mut SshConversation<'w>,
    collected: Vec<u8>,
    underway: Arc<Underway>,
    /// Bytes handed over since the last pause.
    at_once: usize,
}

impl Question<'_, '_> {
    fn send_collected(&mut self) -> Result<()> {
        let piece = self.talk.throttle.piece(PIECE);
        while !self.collected.is_empty() {
            let rest = self.collected.split_off(self.collected.len().min(piece));
            let bytes = std::mem::replace(&mut self.collected, rest);
            self.send(bytes)?;
        }
        self.collected.reserve_exact(PIECE);
        Ok(())
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        let length = bytes.len();
        self.talk.throttle.pass(length, self.talk.progress)?;
        let has_to_pause = self.at_once >= MOST_AT_ONCE;
        self.at_once = if has_to_pause { length } else { self.at_once + length };
        let underway = self.underway.clone();
        self.hand_over(length, async |outgoing| {
            while has_to_pause && underway.bytes.load(Ordering::Acquire) > 0 {
                underway.less.notified().await;
            }
            underway.bytes.fetch_add(length, Ordering::AcqRel);
            outgoing.data_bytes(Bytes::from_owner(Piece { bytes, underway: underway.clone() })).await
        })
    }

    fn finish(&mut self) -> Result<()> {
        self.send_collected()?;
        self.hand_over(0, async |outgoing| outgoing.eof().await)
    }

    /// Does `sending`, which moves so many bytes, and takes in meanwhile what comes.
    fn hand_over(
        &mut self,
        length: usize,
        sending: impl AsyncFnOnce(&ChannelWriteHalf<Msg>) -> std::result::Result<(), russh::Error>,
    ) -> Result<()> {
        let talk = &mut *self.talk;
        talk.pace.excuse(talk.left_at.elapsed());
        let (Channel { incoming, outgoing, got }, pace) = (&mut talk.channel, &mut talk.pace);
        let gone = || Error::new(Kind::RemoteUnreachable, "the remote ended before it had taken everything");
        let outcome = run(talk.progress, async {
            let sending = sending(outgoing);
            tokio::pin!(sending);
            loop {
                if got.is_deaf() {
                    return Err(gone());
                }
                let has_room = got.unread_bytes < MOST_UNREAD;
                tokio::select! {
                    biased;
                    sent = &mut sending => match sent {
                        Ok(()) => return pace.moved(length),
                        Err(_) => break,
                    },
                    message = incoming.wait(), if has_room => {
                        got.take(message);
                    }
                    () = tokio::time::sleep(pace.patience()) => pace.judge()?,
                }
            }
            // The session is over; what it left for us to read is no more than the packets that were ahead.
            while !got.is_over() {
                got.take(incoming.wait().await);
            }
            Err(gone())
        });
        talk.left_at = Instant::now();
        outcome
    }
}

impl Outgoing for Question<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = rest.len().min(PIECE - self.collected.len());
            self.collected.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
            if self.collected.len() == PIECE {
                self.send_collected()?;
            }
        }
        Ok(())
    }
}
