//! What a service says before it is asked anything: its references and what it can do. See gitprotocol-pack(5).

use std::collections::{BTreeMap, BTreeSet};

use git2::Oid;

use super::packetline::{Packet, Packets};
use super::wire::{Incoming, Service};
use crate::error::{Error, Kind, Result};
use crate::path::lossy;

/// A remote with more says so in hundreds of megabytes; none of ours has.
const MOST_REFERENCES: usize = 2_000_000;
/// Names may be long, and somebody may never stop: this much is listened to.
const LONGEST: usize = 256 * 1024 * 1024;

/// An advertisement, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Advertised {
    /// By full name, without the peeled values of tags.
    pub(super) references: BTreeMap<String, Oid>,
    /// Commits that it has without a reference of its own.
    pub(super) haves: Vec<Oid>,
    pub(super) capabilities: BTreeSet<String>,
}

impl Advertised {
    /// Whether the service can do this.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// The program that answers, as it calls itself.
    pub(super) fn agent(&self) -> Option<&str> {
        self.value_of("agent")
    }

    fn value_of(&self, name: &str) -> Option<&str> {
        self.capabilities.iter().find_map(|capability| capability.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Reads an advertisement up to its flush packet.
pub(super) fn read(input: &mut dyn Incoming, service: Service) -> Result<Advertised> {
    let mut packets = Packets::new(input);
    let mut advertised = Advertised::default();
    let mut is_first = true;
    let mut heard = 0_usize;
    let banner = format!("# service={}", service.as_str());
    loop {
        let line = match packets.next()? {
            None => return Err(no_git("it says nothing")),
            Some(Packet::Flush) => break,
            Some(Packet::Data(line)) => line,
        };
        heard += line.len() + 4;
        if heard > LONGEST {
            let text = format!("the remote's list of references does not end after {LONGEST} bytes");
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if is_first && line == banner.as_bytes() {
            // HTTP says which service it is, in a section of its own.
            if packets.next()? != Some(Packet::Flush) {
                return Err(no_git("its first section does not end"));
            }
            continue;
        }
        if let Some(message) = line.strip_prefix(b"ERR ") {
            let text = format!("the remote says: {}", super::said(message));
            return Err(Error::new(super::refusal::kind_of(message), text));
        }
        if is_first && line == b"version 1" {
            continue;
        }
        reference(line, is_first, &mut advertised)?;
        is_first = false;
    }
    if let Some(format) = advertised.value_of("object-format")
        && format != "sha1"
    {
        let text = format!(
            "the remote is a repository with {} object names; only SHA-1 repositories are supported: make another one",
            super::said(format.as_bytes())
        );
        return Err(Error::new(Kind::RemoteRefused, text));
    }
    Ok(advertised)
}

fn reference(line: &[u8], is_first: bool, advertised: &mut Advertised) -> Result<()> {
    let (line, capabilities) = match line.iter().position(|byte| *byte == 0) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &b""[..]),
    };
    if is_first {
        let words = String::from_utf8_lossy(capabilities).into_owned();
        advertised.capabilities =
            words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    }
    if line.starts_with(b"shallow ") {
        return Ok(());
    }
    let parts = line.iter().position(|byte| *byte == b' ').map(|at| (&line[..at], &line[at + 1..]));
    let Some((hex, name)) = parts else {
        return Err(no_git(&format!("it says \"{}\"", lossy(&line[..line.len().min(60)]))));
    };
    let oid =
        std::str::from_utf8(hex).ok().filter(|hex| hex.len() == 40).and_then(|hex| Oid::from_str(hex).ok());
    let Some(oid) = oid else {
        let is_long = hex.len() == 64;
        let why = if is_long { "its object names are not SHA-1" } else { "it names no object" };
        return Err(no_git(why));
    };
    if name == b"capabilities^{}" || name.ends_with(b"^{}") {
        return Ok(());
    }
    if advertised.references.len() + advertised.haves.len() >= MOST_REFERENCES {
        let text = format!("the remote has more than {MOST_REFERENCES} references");
        return Err(Error::new(Kind::RemoteRefused, text));
    }
    if name == b".have" {
        advertised.haves.push(oid);
        return Ok(());
    }
    // A name that is not UTF-8 is none of ours; what it points to is still there to build on.
    match std::str::from_utf8(name) {
        Ok(name) => {
            advertised.references.insert(name.to_owned(), oid);
        }
        Err(_) => advertised.haves.push(oid),
    }
    Ok(())
}

fn no_git(why: &str) -> Error {
    Error::new(Kind::RemoteUnreachable, format!("the remote does not answer as Git does: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::packetline::push_packet;
    use super::super::packetline::tests::Pieces;
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";

    fn parse(lines: &[&[u8]]) -> Result<Advertised> {
        let mut bytes = Vec::new();
        for line in lines {
            match *line {
                b"FLUSH" => bytes.extend_from_slice(b"0000"),
                line => push_packet(&mut bytes, line),
            }
        }
        read(&mut Pieces { bytes, size: 7 }, Service::ReceivePack)
    }

    fn line(oid: &str, rest: &str) -> Vec<u8> {
        format!("{oid} {rest}\n").into_bytes()
    }

    #[test]
    fn references_and_capabilities_are_read_with_and_without_the_banner_of_http() {
        let first = line(A, "refs/heads/main\0report-status side-band-64k agent=git/2.47 object-format=sha1");
        let second = line(B, "refs/tags/v1");
        let peeled = line(A, "refs/tags/v1^{}");
        let have = line(B, ".have");
        for banner in [vec![], vec![&b"# service=git-receive-pack\n"[..], b"FLUSH"]] {
            let mut lines = banner;
            lines.extend([&first[..], &second, &peeled, &have, b"FLUSH"]);
            let advertised = parse(&lines).unwrap();
            assert_eq!(advertised.references.len(), 2);
            assert_eq!(advertised.references["refs/heads/main"].to_string(), A);
            assert_eq!(advertised.haves.len(), 1);
            assert!(advertised.can("side-band-64k") && !advertised.can("atomic"));
            assert_eq!(advertised.agent(), Some("git/2.47"));
        }
    }

    #[test]
    fn an_empty_repository_has_capabilities_only() {
        let zero = "0".repeat(40);
        let advertised = parse(&[&line(&zero, "capabilities^{}\0report-status"), b"FLUSH"]).unwrap();
        assert!(advertised.references.is_empty() && advertised.can("report-status"));
        assert!(parse(&[b"FLUSH"]).unwrap().references.is_empty());
    }

    #[test]
    fn what_is_no_repository_of_ours_is_refused_with_the_reason() {
        let long = "3".repeat(64);
        for (lines, word) in [
            (vec![line(&long, "refs/heads/main\0object-format=sha256"), b"FLUSH".to_vec()], "not SHA-1"),
            (vec![line(A, "refs/heads/main\0object-format=sha256"), b"FLUSH".to_vec()], "only SHA-1"),
            (vec![b"ERR access denied\x1b[2J".to_vec()], "access denied"),
            (vec![b"hello".to_vec()], "hello"),
            (vec![], "says nothing"),
            (vec![line(A, "refs/heads/main")], "says nothing"),
        ] {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let error = parse(&lines).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.to_string().contains('\x1b'), "{error}");
        }
    }
}
