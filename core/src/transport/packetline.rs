//! Git's packet lines: four hexadecimal digits of length, then so many bytes, the digits included.
//!
//! What comes in is a stranger's: a length that is none, a line that is cut off and a stream without end are errors
//! that say what was received. See gitprotocol-common(5).

use super::wire::Incoming;
use crate::error::{Error, Kind, Result};
use crate::path::lossy;

/// The longest packet there is, its four digits included.
const LONGEST: usize = 65_520;
/// What ends a section.
pub(super) const FLUSH: &[u8] = b"0000";

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// Its bytes, perhaps none.
    Data(Vec<u8>),
    /// The end of a section.
    Flush,
}

/// Reads packets from a stream.
pub(super) struct Packets<'i> {
    input: &'i mut dyn Incoming,
    /// What was read and not yet given out, from `start` on.
    buffer: Vec<u8>,
    start: usize,
}

impl<'i> Packets<'i> {
    pub(super) fn new(input: &'i mut dyn Incoming) -> Self {
        Self { input, buffer: Vec::new(), start: 0 }
    }

    /// From here on bytes have to come steadily.
    pub(super) fn flow(&mut self) {
        self.input.flow();
    }

    /// The next packet; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> Result<Option<Packet>> {
        if !self.have(4)? {
            return match self.buffer.len() - self.start {
                0 => Ok(None),
                _ => Err(self.garbage("ends in the middle of a length")),
            };
        }
        let digits = &self.buffer[self.start..self.start + 4];
        let length = std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        match length {
            Some(0) => {
                self.start += 4;
                Ok(Some(Packet::Flush))
            }
            Some(length @ 4..=LONGEST) => {
                if !self.have(length)? {
                    return Err(self.garbage("ends in the middle of a packet"));
                }
                let data = self.buffer[self.start + 4..self.start + length].to_vec();
                self.start += length;
                Ok(Some(Packet::Data(data)))
            }
            _ => Err(self.garbage("is not in Git's packet format")),
        }
    }

    /// Whether a packet follows, and not a pack as it is.
    pub(super) fn is_next_a_line(&mut self) -> Result<bool> {
        Ok(!self.have(4)? || self.buffer[self.start..self.start + 4] != *b"PACK")
    }

    /// What is left of the stream after the packets read so far.
    pub(super) fn rest(self) -> (Vec<u8>, &'i mut dyn Incoming) {
        (self.buffer[self.start..].to_vec(), self.input)
    }

    /// Whether `length` bytes are there to be given out.
    fn have(&mut self, length: usize) -> Result<bool> {
        while self.buffer.len() - self.start < length {
            self.buffer.drain(..self.start);
            self.start = 0;
            let filled = self.buffer.len();
            self.buffer.resize(LONGEST.max(filled + 1), 0);
            let read = self.input.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn garbage(&self, what: &str) -> Error {
        let shown = &self.buffer[self.start..self.buffer.len().min(self.start + 60)];
        let text = format!("what the remote answers {what}: \"{}\"", lossy(shown));
        Error::new(Kind::RemoteUnreachable, text)
    }
}

/// Appends a packet.
pub(super) fn push_packet(output: &mut Vec<u8>, data: &[u8]) {
    debug_assert!(data.len() + 4 <= LONGEST);
    output.extend_from_slice(format!("{:04x}", data.len() + 4).as_bytes());
    output.extend_from_slice(data);
}

/// One packet of a stream that carries a report and messages side by side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Band {
    /// What was asked for.
    Data(Vec<u8>),
    /// For the eyes of a person.
    Message(Vec<u8>),
    /// The other end gave up, and says why.
    Fatal(Vec<u8>),
}

/// Takes a side-band packet apart.
pub(super) fn band(mut data: Vec<u8>) -> Result<Band> {
    match data.first() {
        Some(1) => {
            data.remove(0);
            Ok(Band::Data(data))
        }
        Some(2) => Ok(Band::Message(data.split_off(1))),
        Some(3) => Ok(Band::Fatal(data.split_off(1))),
        _ => {
            let shown = lossy(&data[..data.len().min(60)]);
            Err(Error::new(
                Kind::RemoteUnreachable,
                format!("the remote answers on no known band: \"{shown}\""),
            ))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Bytes that come in pieces.
    pub(in crate::transport) struct Pieces {
        pub(in crate::transport) bytes: Vec<u8>,
        pub(in crate::transport) size: usize,
    }

    impl Incoming for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let size = self.size.min(self.bytes.len()).min(buffer.len());
            buffer[..size].copy_from_slice(&self.bytes[..size]);
            self.bytes.drain(..size);
            Ok(size)
        }
    }

    fn read_all(bytes: &[u8], size: usize) -> Result<Vec<Packet>> {
        let mut input = Pieces { bytes: bytes.to_vec(), size };
        let mut packets = Packets::new(&mut input);
        let mut all = Vec::new();
        while let Some(packet) = packets.next()? {
            all.push(packet);
        }
        Ok(all)
    }

    #[test]
    fn packets_come_out_as_they_went_in_however_they_are_cut() {
        let mut stream = Vec::new();
        push_packet(&mut stream, b"one\n");
        push_packet(&mut stream, b"");
        stream.extend_from_slice(FLUSH);
        push_packet(&mut stream, &[7; LONGEST - 4]);
        let expected = [
            Packet::Data(b"one\n".to_vec()),
            Packet::Data(vec![]),
            Packet::Flush,
            Packet::Data(vec![7; LONGEST - 4]),
        ];
        for size in [1, 3, 4, 1000, usize::MAX] {
            assert_eq!(read_all(&stream, size).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn what_is_no_packet_is_an_error_that_shows_it() {
        for (bytes, word) in [
            (&b"<!DOCTYPE html>"[..], "<!DOCTYPE"),
            (b"0005", "middle of a packet"),
            (b"00", "middle of a length"),
            (b"+004", "packet format"),
            (b"0001", "packet format"),
            (b"0003", "packet format"),
            (b"fff1", "packet format"),
        ] {
            let error = read_all(bytes, usize::MAX).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.kind(), Kind::RemoteUnreachable);
        }
        assert!(band(vec![]).is_err() && band(b"x".to_vec()).is_err());
        assert_eq!(band(b"\x02hello".to_vec()).unwrap(), Band::Message(b"hello".to_vec()));
    }
}
