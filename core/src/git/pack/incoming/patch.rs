//! An object out of another one and a delta. See gitformat-pack(5), "Deltified representation".
//!
//! In: the base and instructions, which may come from anywhere. Out: what they make, of exactly the size that they
//! announce, or what is wrong with them.

/// So much is set aside on the delta's word; the rest when it is made.
const RESERVED_AT_FIRST: u64 = 4 * 1024 * 1024;
/// A copy whose length has no bytes means that.
const COPY_WITHOUT_LENGTH: usize = 0x1_0000;

const CUT_SHORT: &str = "its delta is cut short";

/// The size of what `delta` makes, by its own word.
pub(super) fn announced(delta: &[u8]) -> Result<u64, &'static str> {
    let mut delta = Instructions { rest: delta };
    delta.number()?;
    delta.number()
}

/// What `delta` makes out of `base`.
pub(super) fn patch(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut delta = Instructions { rest: delta };
    if delta.number()? != base.len() as u64 {
        return Err("its delta is made for a base of another size");
    }
    let size = delta.number()?;
    let mut made = Vec::with_capacity(size.min(RESERVED_AT_FIRST) as usize);
    while !delta.rest.is_empty() {
        let code = delta.byte()?;
        let part = match code {
            0 => return Err("its delta has an instruction that Git does not know"),
            1..0x80 => delta.bytes(code.into())?,
            _ => {
                let from = delta.scattered(code, 4)?;
                let length = match delta.scattered(code >> 4, 3)? {
                    0 => COPY_WITHOUT_LENGTH,
                    length => length,
                };
                let end = from.checked_add(length);
                end.and_then(|end| base.get(from..end)).ok_or("its delta copies from beyond its base")?
            }
        };
        if (made.len() + part.len()) as u64 > size {
            return Err("its delta makes more than it announces");
        }
        made.extend_from_slice(part);
    }
    if (made.len() as u64) < size {
        return Err("its delta makes less than it announces");
    }
    Ok(made)
}

struct Instructions<'d> {
    rest: &'d [u8],
}

impl<'d> Instructions<'d> {
    fn bytes(&mut self, count: usize) -> Result<&'d [u8], &'static str> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, &'static str> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift > 63 || (part << shift) >> shift != part {
                return Err("a size in its delta does not fit 64 bits");
            }
            number |= part << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
    }

    /// A number of which only those bytes are there whose bits are set in `code`.
    fn scattered(&mut self, code: u8, most_bytes: u32) -> Result<usize, &'static str> {
        let mut number = 0;
        for place in 0..most_bytes {
            if code & (1 << place) != 0 {
                number |= usize::from(self.byte()?) << (8 * place);
            }
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::delta::delta;
    use super::*;

    proptest! {
        #[test]
        fn what_our_own_deltas_say_is_made(
            base in prop::collection::vec(0u8..4, 0..3000),
            from in 0usize..3000,
            inserted in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let from = from.min(base.len());
            let new = [&base[from..], &inserted, &base[..from]].concat();
            let instructions = delta(&base, &new, usize::MAX).unwrap();
            prop_assert_eq!(announced(&instructions), Ok(new.len() as u64));
            prop_assert_eq!(patch(&base, &instructions).unwrap(), new);
        }

        #[test]
        fn any_instructions_make_what_they_announce_or_fail(
            base in prop::collection::vec(any::<u8>(), 0..100),
            mut instructions in prop::collection::vec(any::<u8>(), 0..60),
            is_for_this_base: bool,
        ) {
            if is_for_this_base {
                instructions.insert(0, base.len() as u8);
            }
            if let Ok(made) = patch(&base, &instructions) {
                prop_assert_eq!(announced(&instructions), Ok(made.len() as u64));
            }
        }
    }

    #[test]
    fn every_lie_of_a_delta_is_told() {
        let base = b"0123456789";
        for (instructions, word) in [
            (&b""[..], "cut short"),
            (&[10], "cut short"),
            (&[9, 1, 1, b'x'], "another size"),
            (&[10, 3, 1, b'x'], "less"),
            (&[10, 1, 2, b'x', b'y'], "more"),
            (&[10, 9, 3, b'x'], "cut short"),
            (&[10, 1, 0], "does not know"),
            (&[10, 5, 0x91, 6, 5], "beyond"),
            (&[10, 1, 0x80], "beyond"),
            (&[10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f], "64 bits"),
            (&[0x8a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0], "64 bits"),
        ] {
            let error = patch(base, instructions).unwrap_err();
            assert!(error.contains(word), "{instructions:?}: {error}");
        }
        assert_eq!(patch(base, &[10, 5, 0x91, 5, 5]).unwrap(), b"56789");
        assert_eq!(patch(base, &[10, 0]).unwrap(), b"");
        let base = vec![7; 0x1_0001];
        assert_eq!(patch(&base, &[0x81, 0x80, 4, 0x80, 0x80, 4, 0x80]).unwrap(), base[1..]);
    }
}
