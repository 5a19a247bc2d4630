//! The beginning of an OpenPGP message, looked at without any key: that it is encrypted, how, and for whom.
//!
//! In: the first bytes of a file. Out: the ids of the keys that can read it. This is what a host that cannot decrypt can
//! check before it gives a file away.

/// The packet of a session key for a recipient.
const SESSION_KEY: u8 = 1;
/// The packet of encrypted data that has a proof.
const PROTECTED: u8 = 18;
/// GnuPG's own packet of the kind, which its versions from 2.3 make for keys that ask for it.
const PROTECTED_GNUPG: u8 = 20;
/// Enough of a file to find its encrypted data behind a hundred recipients with the largest keys in use.
pub const ENOUGH_BYTES: usize = 64 * 1024;
/// More recipients than anybody has.
const MOST_RECIPIENTS: usize = 1000;

/// What stands in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The last eight bytes of the fingerprint of each (sub)key that the message is for; zeros for a hidden one.
    pub recipients: Vec<[u8; 8]>,
}

/// Looks at the first [`ENOUGH_BYTES`] of a file, or all of it. `None` if it is not a message for recipients whose data
/// is encrypted with a proof: clear text, above all.
pub fn look(beginning: &[u8]) -> Option<Header> {
    let mut rest = beginning;
    let mut recipients = Vec::new();
    loop {
        let (tag, length, body) = packet(rest)?;
        match tag {
            SESSION_KEY if recipients.len() < MOST_RECIPIENTS => {
                let (body, after) = body.split_at_checked(length?)?;
                let (version, body) = body.split_first()?;
                // Version 6 belongs to another form of encrypted data, which gpg does not read.
                if *version != 3 {
                    return None;
                }
                recipients.push(*body.first_chunk()?);
                rest = after;
            }
            PROTECTED | PROTECTED_GNUPG if !recipients.is_empty() && body.first() == Some(&1) => {
                return Some(Header { recipients });
            }
            _ => return None,
        }
    }
}

/// Tag, length (`None` for a part of a packet, or one without end), and what follows.
fn packet(bytes: &[u8]) -> Option<(u8, Option<usize>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    if first & 0x40 == 0 {
        let tag = (first >> 2) & 0x0f;
        return match first & 3 {
            0 => rest.split_first().map(|(length, body)| (tag, Some(usize::from(*length)), body)),
            1 => rest
                .split_first_chunk()
                .map(|(length, body)| (tag, Some(usize::from(u16::from_be_bytes(*length))), body)),
            2 => long(rest).map(|(length, body)| (tag, Some(length), body)),
            _ => Some((tag, None, rest)),
        };
    }
    let tag = first & 0x3f;
    let (length, rest) = rest.split_first()?;
    match *length {
        0..192 => Some((tag, Some(usize::from(*length)), rest)),
        192..224 => {
            let (second, rest) = rest.split_first()?;
            Some((tag, Some((usize::from(*length - 192) << 8) + usize::from(*second) + 192), rest))
        }
        224..255 => Some((tag, None, rest)),
        255 => long(rest).map(|(length, body)| (tag, Some(length), body)),
    }
}

fn long(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_be_bytes(*length)).ok()?, rest))
}
