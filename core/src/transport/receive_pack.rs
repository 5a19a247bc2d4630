//! Asking `git-receive-pack` to take objects and to move references. See gitprotocol-pack(5), "Pushing Data".
//!
//! Never with force: each command names the value that was advertised, and the other end refuses if it is another by
//! then. What comes back is believed only as far as it is bad news; good news is read back by the caller.

use super::advertisement::Advertised;
use super::packetline::{Band, FLUSH, Packet, Packets, band, push_packet};
use super::wire::{Conversation, Incoming, Outgoing};
use super::{Messages, ReferenceUpdate, refusal, said};
use crate::error::{Error, Kind, Result};

/// What is asked for, where it is offered.
const WANTED: &[&str] = &["report-status", "side-band-64k", "quiet", "object-format=sha1"];
/// A report names a few references; this is for somebody who does not stop.
const LARGEST_REPORT: usize = 4 * 1024 * 1024;
/// Bodies up to this size are gathered, so that their length can be announced: some proxies take no other.
const LARGEST_GATHERED: u64 = 1024 * 1024;

/// The objects of a push, as a pack.
pub(super) trait Pack {
    /// Roughly how many bytes it has.
    fn estimate(&self) -> u64;
    /// Writes it, from its beginning, each time it is asked to.
    fn write(&mut self, output: &mut dyn Outgoing) -> Result<()>;
}

/// What became of the objects.
#[derive(Debug)]
pub(super) enum Verdict {
    /// They are there, and the references stand.
    Taken,
    /// The other end could not make objects of what it was sent, and has moved nothing.
    NotStored(Error),
}

/// Sends `pack` and the commands, and reads the report. What the server says to people goes to `messages`, also when
/// this fails.
pub(super) fn push(
    mut conversation: Box<dyn Conversation + '_>,
    advertised: &Advertised,
    updates: &[ReferenceUpdate],
    pack: &mut dyn Pack,
    agent: &str,
    messages: &mut Messages,
) -> Result<Verdict> {
    let commands = commands(advertised, updates, agent);
    let estimate = pack.estimate();
    let outcome = if estimate <= LARGEST_GATHERED {
        let mut whole = Gathered(commands);
        pack.write(&mut whole)?;
        let length = Some(whole.0.len() as u64);
        let answer = conversation.ask(length, &mut |output| output.write(&whole.0));
        answer.and_then(|mut answer| report(answer.as_mut(), advertised, updates, messages))
    } else {
        let answer = conversation.ask(None, &mut |output| {
            output.write(&commands)?;
            pack.write(output)
        });
        answer.and_then(|mut answer| report(answer.as_mut(), advertised, updates, messages))
    };
    let aside = conversation.aside();
    messages.add(&aside);
    conversation.close();
    outcome
}

struct Gathered(Vec<u8>);

impl Outgoing for Gathered {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn commands(advertised: &Advertised, updates: &[ReferenceUpdate], agent: &str) -> Vec<u8> {
    let mut capabilities: Vec<String> =
        WANTED.iter().filter(|word| advertised.can(word)).map(|word| (*word).to_owned()).collect();
    if advertised.agent().is_some() {
        capabilities.push(format!("agent={agent}"));
    }
    let mut request = Vec::new();
    for (number, update) in updates.iter().enumerate() {
        let old = update.expected.map_or_else(|| "0".repeat(40), |oid| oid.to_string());
        let mut line = format!("{old} {} {}", update.new, update.name);
        if number == 0 {
            line.push('\0');
            line.push_str(&capabilities.join(" "));
        }
        push_packet(&mut request, line.as_bytes());
    }
    request.extend_from_slice(FLUSH);
    request
}

/// Reads what became of it.
fn report(
    answer: &mut dyn Incoming,
    advertised: &Advertised,
    updates: &[ReferenceUpdate],
    messages: &mut Messages,
) -> Result<Verdict> {
    if !advertised.can("report-status") {
        // An old server tells nothing: what is read back afterwards decides.
        return Ok(Verdict::Taken);
    }
    let lines = if advertised.can("side-band-64k") { beside(answer, messages)? } else { plain(answer)? };
    let mut lines = lines.into_iter();
    let unpacked = lines.next().ok_or_else(|| {
        Error::new(Kind::RemoteUnreachable, format!("the remote ended without a report{}", messages.quoted()))
    })?;
    match unpacked.strip_prefix("unpack ") {
        Some("ok") => {}
        Some(reason) => {
            let kind = match refusal::kind_of(reason.as_bytes()) {
                Kind::RemoteRefused => refusal::kind_of(messages.text().as_bytes()),
                kind => kind,
            };
            let text = format!(
                "the remote could not store the objects: {}{}",
                said(reason.as_bytes()),
                messages.quoted()
            );
            return Ok(Verdict::NotStored(Error::new(kind, text)));
        }
        None => {
            let text = format!("the remote's report begins with \"{}\"", said(unpacked.as_bytes()));
            return Err(Error::new(Kind::RemoteUnreachable, text));
        }
    }
    for line in lines {
        let Some(refused) = line.strip_prefix("ng ") else { continue };
        let (name, reason) = refused.split_once(' ').unwrap_or((refused, "no reason given"));
        let kind = refusal::kind_of_reference(reason, &messages.text());
        let text = format!(
            "the remote refused to move {}: {}{}",
            said(name.as_bytes()),
            said(reason.as_bytes()),
            messages.quoted()
        );
        // A tag that could not be set must not hold the branch up; the branch is always named first.
        if updates.first().is_none_or(|first| first.name == name) {
            return Err(Error::new(kind, text));
        }
        messages.add(text.as_bytes());
    }
    Ok(Verdict::Taken)
}

fn plain(answer: &mut dyn Incoming) -> Result<Vec<String>> {
    let mut packets = Packets::new(answer);
    let mut lines = Vec::new();
    let mut size = 0;
    while let Some(Packet::Data(line)) = packets.next()? {
        size += line.len();
        check_size(size)?;
        lines.push(text_of(&line));
    }
    Ok(lines)
}

/// The report is a stream of packets inside the packets of its band.
fn beside(answer: &mut dyn Incoming, messages: &mut Messages) -> Result<Vec<String>> {
    let mut packets = Packets::new(answer);
    let mut report = Vec::new();
    while let Some(Packet::Data(data)) = packets.next()? {
        match band(data)? {
            Band::Data(data) => {
                check_size(report.len() + data.len())?;
                report.extend_from_slice(&data);
            }
            Band::Message(text) => messages.add(&text),
            Band::Fatal(text) => {
                let kind = refusal::kind_of(&text);
                let text = format!("the remote gave up: {}{}", said(&text), messages.quoted());
                return Err(Error::new(kind, text));
            }
        }
    }
    plain(&mut Held(report))
}

struct Held(Vec<u8>);

impl Incoming for Held {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let size = buffer.len().min(self.0.len());
        buffer[..size].copy_from_slice(&self.0[..size]);
        self.0.drain(..size);
        Ok(size)
    }
}

fn check_size(size: usize) -> Result<()> {
    if size <= LARGEST_REPORT {
        return Ok(());
    }
    Err(Error::new(Kind::RemoteUnreachable, "the remote's report does not end"))
}

fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests;
