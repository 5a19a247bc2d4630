//! The one packet that may stand in compressed data: the file's bytes.
//!
//! A reader over a reader, of constant memory. rPGP would take anything that may stand there, signatures by the
//! million above all, and a megabyte of compressed ones becomes gigabytes in memory; so this is not left to it.

use std::io::{self, BufRead, Read};

/// What is left of the packet.
enum Left {
    /// So many bytes.
    Last(u64),
    /// So many, and then another length.
    Part(u64),
    /// All that comes.
    Endless,
}

/// Reads the bytes of a literal packet, which is to be all that the source has.
pub(super) struct Literal<R> {
    source: R,
    left: Left,
}

impl<R: BufRead> Literal<R> {
    pub(super) fn new(mut source: R) -> io::Result<Self> {
        const LITERAL: u8 = 11;
        let first = byte(&mut source)?;
        let (tag, left) = match first {
            0xc0.. => (first & 0x3f, new_length(&mut source)?),
            0x80.. => {
                let left = match first & 3 {
                    0 => Left::Last(number(&mut source, 1)?),
                    1 => Left::Last(number(&mut source, 2)?),
                    2 => Left::Last(number(&mut source, 4)?),
                    _ => Left::Endless,
                };
                ((first >> 2) & 0x0f, left)
            }
            _ => return Err(malformed()),
        };
        if tag != LITERAL {
            return Err(malformed());
        }
        let mut packet = Self { source, left };
        // Format, name and date say nothing that the tree does not say.
        let mut head = [0; 2];
        packet.read_exact(&mut head)?;
        packet.read_exact(&mut vec![0; usize::from(head[1]) + 4])?;
        Ok(packet)
    }

    /// The source, at its end if all was read.
    pub(super) fn into_source(self) -> R {
        self.source
    }
}

impl<R: BufRead> Read for Literal<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Left::Part(0) = self.left {
            self.left = new_length(&mut self.source)?;
        }
        let most = match self.left {
            Left::Last(left) | Left::Part(left) => {
                usize::try_from(left).map_or(out.len(), |left| left.min(out.len()))
            }
            Left::Endless => out.len(),
        };
        if most == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut out[..most])?;
        match &mut self.left {
            Left::Last(_) | Left::Part(_) if read == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Left::Last(left) | Left::Part(left) => *left -= read as u64,
            Left::Endless => {}
        }
        Ok(read)
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its compressed data is no literal packet")
}

fn byte(source: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    source.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn number(source: &mut impl Read, bytes: usize) -> io::Result<u64> {
    (0..bytes).try_fold(0, |number, _| Ok(number << 8 | u64::from(byte(source)?)))
}

fn new_length(source: &mut impl Read) -> io::Result<Left> {
    let first = byte(source)?;
    Ok(match first {
        0..192 => Left::Last(u64::from(first)),
        192..224 => Left::Last((u64::from(first - 192) << 8) + u64::from(byte(source)?) + 192),
        224..255 => Left::Part(1 << (first & 0x1f)),
        255 => Left::Last(number(source, 4)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(packet: &[u8]) -> io::Result<(Vec<u8>, usize)> {
        let mut literal = Literal::new(packet)?;
        let mut out = Vec::new();
        literal.read_to_end(&mut out)?;
        Ok((out, literal.into_source().len()))
    }

    #[test]
    fn bytes_come_out_of_every_form_of_length_and_nothing_behind_them_is_read() {
        let head = b"b\x01n\0\0\0\0";
        for (start, parts) in [
            (&[0xcb, 10][..], vec![&b"abc"[..]]),
            (&[0xcb, 0xff, 0, 0, 0, 10], vec![b"abc"]),
            (&[0xac, 10], vec![b"abc"]),
            (&[0xad, 0, 10], vec![b"abc"]),
            (&[0xae, 0, 0, 0, 10], vec![b"abc"]),
            // Parts of 8 and of 1, and a last one of 1.
            (&[0xcb, 0xe3], vec![b"a", &[0xe0], b"b", &[1], b"c"]),
        ] {
            let packet = [start, head, &parts.concat()].concat();
            assert_eq!(read(&packet).unwrap(), (b"abc".to_vec(), 0), "{start:?}");
            assert_eq!(read(&[&packet[..], b"more"].concat()).unwrap(), (b"abc".to_vec(), 4), "{start:?}");
            for length in 0..packet.len() {
                assert!(read(&packet[..length]).is_err(), "{start:?} {length}");
            }
        }
        assert_eq!(read(&[&[0xaf], &head[..], b"abc"].concat()).unwrap().0, b"abc");
    }

    #[test]
    fn any_other_packet_is_refused_at_its_first_byte() {
        for first in (0..=255_u8).filter(|first| !matches!(first, 0xcb | 0xac..=0xaf)) {
            assert!(read(&[first, 10, b'b', 0, 0, 0, 0, 0, 1, 2, 3, 4]).is_err(), "{first:x}");
        }
    }
}
