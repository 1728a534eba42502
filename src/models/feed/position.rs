//! Places in the feed, and the text that a follower keeps of one.

use std::fmt;
use std::str::FromStr;

use crate::ImksError;

/// A place in the feed, named by the event that comes next: its transaction, and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the transaction.
    pub batch: i64,
    /// The index of the event in its transaction.
    pub index: i64,
}

impl Position {
    /// Returns the place of the first event after a transaction.
    pub fn after(batch: i64) -> Self {
        Self { batch: batch.saturating_add(1), index: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.batch, self.index)
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// With what is committed from now on.
    Now,
    /// With the oldest event that is kept.
    Oldest,
    /// Where an earlier follower stopped.
    At(Position),
}

impl FromStr for Cursor {
    type Err = ImksError;

    /// Parses a cursor: empty for now, `0` for the oldest, or the text of a [`Position`].
    fn from_str(text: &str) -> Result<Self, ImksError> {
        match text {
            "" => return Ok(Self::Now),
            "0" => return Ok(Self::Oldest),
            _ => {}
        }
        let invalid = || ImksError::invalid("cursor", "is none of this server");
        let (batch, index) = text.split_once('.').ok_or_else(invalid)?;
        let number = |text: &str| text.parse().ok().filter(|number: &i64| *number >= 0).ok_or_else(invalid);
        Ok(Self::At(Position { batch: number(batch)?, index: number(index)? }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_empty_zero_or_what_was_given_out() {
        assert_eq!("".parse::<Cursor>().unwrap(), Cursor::Now);
        assert_eq!("0".parse::<Cursor>().unwrap(), Cursor::Oldest);
        for wrong in ["1", "a.b", "1.", ".1", "-1.0", "1.-1", "1.2.3", "99999999999999999999.0"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(batch in 0..i64::MAX, index in 0..i64::MAX) {
            let position = Position { batch, index };
            prop_assert_eq!(position.to_string().parse::<Cursor>().unwrap(), Cursor::At(position));
        }

        #[test]
        fn any_text_is_a_cursor_or_an_error(text in ".{0,40}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
