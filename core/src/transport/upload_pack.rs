//! Asking `git-upload-pack` for the objects of a commit, as one pack. See gitprotocol-pack(5), "Packfile Negotiation".
//!
//! One round: what is wanted, done. That is all that a backup needs, and it is the same over HTTP and
//! SSH. The history can be cut off after some commits, and objects left out, where the other end can do that.

use git2::Oid;

use super::advertisement::Advertised;
use super::packetline::{Band, FLUSH, Packet, Packets, band, push_packet};
use super::wire::Conversation;
use super::{Messages, refusal, said};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// Advertised commits, or any objects where the other end gives them; at least one.
    pub(super) objects: &'w [Oid],
    /// How many commits of its history; `None`: all.
    pub(super) depth: Option<u32>,
    /// A filter, such as `tree:0`, used where the other end can do that.
    pub(super) filter: Option<&'static str>,
}

/// Gives the pack's bytes to `sink`.
pub(super) fn fetch(
    mut conversation: Box<dyn Conversation + '_>,
    advertised: &Advertised,
    wanted: Wanted<'_>,
    agent: &str,
    messages: &mut Messages,
    progress: &Progress,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let request = request(advertised, wanted, agent)?;
    let is_beside = advertised.can("side-band-64k") || advertised.can("side-band");
    let outcome = conversation
        .ask(Some(request.len() as u64), &mut |output| output.write(&request))
        .and_then(|mut answer| {
            let mut packets = Packets::new(answer.as_mut());
            let first = skip_negotiation(&mut packets)?;
            packets.flow();
            if !is_beside {
                return rest(first.is_some(), packets, progress, sink);
            }
            let mut next = first;
            while let Some(Packet::Data(data)) = next {
                progress.check()?;
                match band(data)? {
                    Band::Data(data) => sink(&data)?,
                    Band::Message(text) => messages.add(&text),
                    Band::Fatal(text) => {
                        let text_said = format!("the remote gave up: {}{}", said(&text), messages.quoted());
                        return Err(Error::new(refusal::kind_of(&text), text_said));
                    }
                }
                next = packets.next()?;
            }
            match next {
                Some(_) => Ok(()),
                None => {
                    Err(Error::new(Kind::RemoteUnreachable, "the remote stopped in the middle of a pack"))
                }
            }
        });
    let aside = conversation.aside();
    messages.add(&aside);
    conversation.close();
    outcome
}

fn request(advertised: &Advertised, wanted: Wanted<'_>, agent: &str) -> Result<Vec<u8>> {
    let mut capabilities = Vec::new();
    for word in ["side-band-64k", "ofs-delta", "no-progress", "object-format=sha1"] {
        if advertised.can(word) {
            capabilities.push(word.to_owned());
        }
    }
    if !advertised.can("side-band-64k") && advertised.can("side-band") {
        capabilities.push("side-band".to_owned());
    }
    if advertised.agent().is_some() {
        capabilities.push(format!("agent={agent}"));
    }
    let filter = wanted.filter.filter(|_| advertised.can("filter"));
    if filter.is_some() {
        capabilities.push("filter".to_owned());
    }
    let mut request = Vec::new();
    for (number, object) in wanted.objects.iter().enumerate() {
        let words = if number == 0 { format!(" {}", capabilities.join(" ")) } else { String::new() };
        push_packet(&mut request, format!("want {object}{words}\n").as_bytes());
    }
    if let Some(depth) = wanted.depth {
        if !advertised.can("shallow") {
            let text = "the remote gives whole histories only, and the end of one was asked for";
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        push_packet(&mut request, format!("deepen {depth}\n").as_bytes());
    }
    if let Some(filter) = filter {
        push_packet(&mut request, format!("filter {filter}\n").as_bytes());
    }
    request.extend_from_slice(FLUSH);
    push_packet(&mut request, b"done\n");
    Ok(request)
}

/// Where the history is cut, and which of ours it has: neither matters, because one round says all there is to say.
fn skip_negotiation(packets: &mut Packets<'_>) -> Result<Option<Packet>> {
    let mut is_answered = false;
    loop {
        let packet = packets.next()?;
        match &packet {
            Some(Packet::Data(line)) if line.starts_with(b"ERR ") => {
                let message = &line[4..];
                let text = format!("the remote says: {}", said(message));
                return Err(Error::new(refusal::kind_of(message), text));
            }
            Some(Packet::Data(line)) if line.starts_with(b"NAK") || line.starts_with(b"ACK ") => {
                is_answered = true
            }
            Some(Packet::Data(line)) if line.starts_with(b"shallow ") || line.starts_with(b"unshallow ") => {}
            Some(Packet::Flush) if !is_answered => {}
            None => {
                return Err(Error::new(
                    Kind::RemoteUnreachable,
                    "the remote ended before it had sent anything",
                ));
            }
            _ => return Ok(packet),
        }
        if is_answered && !packets.is_next_a_line()? {
            return Ok(None);
        }
    }
}

/// Without bands the pack follows as it is.
fn rest(
    has_packet: bool,
    packets: Packets<'_>,
    progress: &Progress,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if has_packet {
        return Err(Error::new(
            Kind::RemoteUnreachable,
            "the remote sends packets where its pack should begin",
        ));
    }
    let (held, input) = packets.rest();
    sink(&held)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        progress.check()?;
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            read => sink(&buffer[..read])?,
        }
    }
}
