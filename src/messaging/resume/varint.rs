//! Numbers in as few bytes as they need: seven bits in each, the lowest first.

/// Appends a number.
pub(super) fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends a number that may be negative, in few bytes if it is small either way.
pub(super) fn write_signed(bytes: &mut Vec<u8>, number: i64) {
    write(bytes, ((number << 1) ^ (number >> 63)) as u64);
}

/// Takes a number from the beginning. `None` if there is none.
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Takes a number that may be negative.
pub(super) fn read_signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = read(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_is_read_as_it_was_written(number in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            write(&mut bytes, number);
            write_signed(&mut bytes, signed);
            let mut rest = &bytes[..];
            prop_assert_eq!(read(&mut rest), Some(number));
            prop_assert_eq!(read_signed(&mut rest), Some(signed));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_too_long_or_cut_off_is_no_number() {
        for bytes in [&[0x80][..], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert_eq!(read(&mut &*bytes), None, "{bytes:?}");
        }
    }
}
