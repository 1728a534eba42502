//! A streamed message: its state on the wire, and the end of its text that its row lacks while more may come. This code
//! is pure: time is an argument.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::message::stored_enum;
use super::text::{BODY_BYTES_MAX, BODY_CHARS_MAX};
use crate::clock::Micros;
use crate::error::Present;
use crate::{ImksError, ImksResult};

stored_enum! {
    /// What becomes of a message whose text arrives piece by piece.
    pub enum StreamState {
        /// More text may come.
        Active = 0,
        /// Its author has said that the text is complete.
        #[default]
        Finished = 1,
        /// Its author has given up, or the message was deleted.
        Aborted = 2,
        /// Nothing came for too long.
        Interrupted = 3,
    }
}

/// How far a streamed message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stream {
    /// The state.
    pub state: StreamState,
    /// The number of characters of the text so far: where the next piece goes.
    pub offset: usize,
}

impl Stream {
    /// Returns what the column of a message with this text says.
    pub(crate) fn from_stored(stored: Option<i32>, body: &str) -> Option<Self> {
        let state = StreamState::from_stored(stored?);
        Some(Self { state, offset: body.chars().count() })
    }

    /// Whether more text may come.
    pub fn is_active(self) -> bool {
        self.state == StreamState::Active
    }
}

/// The end of a text that is not in the row of its message yet, and how long its author may be silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tail {
    /// The text that the row lacks.
    pub text: String,
    /// When the row got the text before it.
    pub folded_at: Micros,
    /// When the stream ends if nothing comes.
    pub expires_at: Micros,
}

/// What a piece of text is to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// The message has it already.
    Known,
    /// It is new, and goes to the end of the message.
    New,
}

impl Piece {
    /// Finds out what a piece that belongs at character `offset` is to a message with this text.
    ///
    /// # Errors
    /// [`ImksError::NotAsExpected`] with the offset at which the next piece belongs.
    pub(super) fn of(body: &str, offset: usize, text: &str) -> ImksResult<Self> {
        let end = body.chars().count();
        if offset == end {
            return Ok(Self::New);
        }
        let rest = body.char_indices().nth(offset).map(|(at, _)| &body[at..]);
        match rest.is_some_and(|rest| rest.starts_with(text)) {
            true => Ok(Self::Known),
            false => Err(ImksError::NotAsExpected(Present::Offset(end))),
        }
    }
}

/// Checks whether a body may grow by a piece.
///
/// # Errors
/// [`ImksError::InvalidInput`].
pub(super) fn check_growth(body: &str, piece: &str) -> ImksResult<()> {
    let is_long = |length: fn(&str) -> usize, most| length(body) + length(piece) > most;
    if is_long(str::len, BODY_BYTES_MAX) || is_long(|text| text.chars().count(), BODY_CHARS_MAX) {
        let reason =
            format!("makes the body longer than {BODY_CHARS_MAX} characters or {BODY_BYTES_MAX} bytes");
        return Err(ImksError::invalid("text", reason));
    }
    Ok(())
}

impl Tail {
    /// Starts at `now` with a row that has the whole text.
    pub(super) fn new(now: Micros) -> Self {
        Self { text: String::new(), folded_at: now, expires_at: now + STREAM_LEASE }
    }

    /// Renews the lease, because the author is there.
    pub(super) fn renew(&mut self, now: Micros) {
        self.expires_at = self.expires_at.max(now + STREAM_LEASE);
    }

    /// Adds a piece. Returns whether the row gets the text now, which empties the tail. It does in any case if the
    /// transaction writes the text of the row already (`is_rewritten`): the tail would repeat what stands there.
    pub(super) fn add(&mut self, piece: &str, now: Micros, is_rewritten: bool) -> bool {
        self.text.push_str(piece);
        let is_due = is_rewritten || self.text.len() >= FOLD_BYTES || now >= self.folded_at + FOLD_EVERY;
        if is_due {
            (self.text, self.folded_at) = (String::new(), now);
        }
        is_due
    }

    /// Whether nothing has come for too long.
    pub(super) fn is_over(&self, now: Micros) -> bool {
        self.expires_at <= now
    }
}

/// How long the author of a streamed message may be silent, in microseconds.
pub const STREAM_LEASE: Micros = 30_000_000;
/// How long a piece of text may wait for its message's row to be written, while others arrive, in microseconds.
const FOLD_EVERY: Micros = 1_000_000;
/// How many bytes of text may wait for their message's row to be written.
const FOLD_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_is_new_at_the_end_known_where_it_stands_and_a_conflict_elsewhere() {
        let end = |offset, text| match Piece::of("grüß dich", offset, text) {
            Err(ImksError::NotAsExpected(Present::Offset(end))) => end,
            other => panic!("{other:?}"),
        };
        assert_eq!(Piece::of("grüß dich", 9, "!").unwrap(), Piece::New);
        assert_eq!(Piece::of("grüß dich", 2, "üß d").unwrap(), Piece::Known);
        assert_eq!(Piece::of("", 0, "").unwrap(), Piece::New);
        assert_eq!((end(10, "!"), end(usize::MAX, "")), (9, 9));
        assert_eq!((end(2, "uss"), end(5, "dich!")), (9, 9), "also a piece that goes on where the text ends");
    }

    #[test]
    fn a_text_that_is_full_takes_no_character_more() {
        check_growth(&"x".repeat(BODY_CHARS_MAX - 1), "y").unwrap();
        assert_eq!(check_growth(&"x".repeat(BODY_CHARS_MAX), "y").unwrap_err().code(), "invalid_input");
        assert!(check_growth(&"\u{1f600}".repeat(BODY_BYTES_MAX / 4), "y").is_err());
    }

    #[test]
    fn what_follows_in_a_transaction_that_writes_the_row_goes_there_too() {
        let mut tail = Tail::new(0);
        assert!(!tail.add("one", 1, false));
        assert!(tail.add(" two", 1, true));
        assert_eq!(tail.text, "");
    }

    #[test]
    fn states_are_stored_as_numbers_that_never_change() {
        assert_eq!(StreamState::ALL.iter().map(|state| *state as i32).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let names = serde_json::json!(["active", "finished", "aborted", "interrupted"]);
        assert_eq!(serde_json::json!(StreamState::ALL), names);
    }

    #[test]
    fn a_state_of_a_later_version_takes_no_more_text() {
        let stream = Stream::from_stored(Some(99), "grüß").unwrap();
        assert_eq!((stream.is_active(), stream.offset), (false, 4));
        assert_eq!(Stream::from_stored(None, ""), None);
    }

    /// What arrives, after how long.
    fn pieces() -> impl Strategy<Value = Vec<(Micros, usize, String)>> {
        let piece = (0..2_500_000_i64, 0..40_usize, "[a-zäß\u{1f600}]{0,6}|x{900,1500}");
        prop::collection::vec(piece, 0..60)
    }

    proptest! {
        /// `row` is what the message's row has: whoever reads it with the tail sees every accepted piece once.
        #[test]
        fn row_and_tail_are_the_accepted_text_and_the_row_is_late_by_a_second_or_four_kibibytes(
            pieces in pieces(),
        ) {
            let (mut row, mut tail, mut accepted, mut now) = (String::new(), Tail::new(0), String::new(), 0);
            for (passed, back, text) in pieces {
                now += passed;
                let whole = format!("{row}{}", tail.text);
                prop_assert_eq!(&whole, &accepted);
                // Some come late, some twice, some at a place that is not there.
                let end = whole.chars().count();
                let offset = if back < 30 { end } else { (end + 35).saturating_sub(back) };
                let placed = Piece::of(&whole, offset, &text);
                match placed {
                    Ok(Piece::New) => {
                        accepted.push_str(&text);
                        if tail.add(&text, now, false) {
                            row = accepted.clone();
                        }
                    }
                    Ok(Piece::Known) => {
                        let there: String = whole.chars().skip(offset).collect();
                        prop_assert!(there.starts_with(&text));
                    }
                    Err(ImksError::NotAsExpected(Present::Offset(expected))) => prop_assert_eq!(expected, end),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
                tail.renew(now);
                prop_assert!(tail.text.len() < FOLD_BYTES);
                prop_assert!(!tail.is_over(now + STREAM_LEASE - 1) && tail.is_over(now + STREAM_LEASE));
            }
        }
    }
}
