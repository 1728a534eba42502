//! The state of a poll, with its totals. It is stored as JSON in the row of its message.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::stored_json::{from_column, to_column};
use super::text::ShortText;
use crate::clock::{Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// The question of a poll.
pub type Question = ShortText<1, QUESTION_CHARS_MAX>;

/// The text of an answer.
pub type OptionText = ShortText<1, OPTION_CHARS_MAX>;

/// A poll to start with a message.
#[derive(Debug, Clone)]
pub struct NewPoll {
    /// The question.
    pub question: Question,
    /// The answers to choose from, 2 to [`OPTIONS_MAX`].
    pub options: Vec<OptionText>,
    /// The most answers that one voter may choose.
    pub max_choices: usize,
    /// Whether nobody learns who voted for what.
    pub anonymous: bool,
    /// Whether the votes are hidden until the poll closes.
    pub hide_results: bool,
    /// Whether a voter may choose again.
    pub allow_change: bool,
    /// How long the poll is open, in microseconds; `None` until it is closed by hand.
    pub open_for: Option<Micros>,
    /// A random number that hides who votes in an anonymous poll.
    pub secret: Uuid,
}

impl NewPoll {
    /// Returns what tells two polls apart, for the nonce of a message. A repeat is sent later, so it may leave the
    /// poll open for less time.
    pub(super) fn content(&self) -> impl Iterator<Item = Vec<u8>> {
        let options = self.options.iter().map(|option| option.as_str().as_bytes().to_vec());
        let choices = self.max_choices.to_be_bytes().to_vec();
        let flags = [self.anonymous, self.hide_results, self.allow_change, self.open_for.is_some()];
        let rest = [self.question.as_str().as_bytes().to_vec(), choices, flags.map(u8::from).to_vec()];
        rest.into_iter().chain(options)
    }
}

/// A poll as everybody sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Poll {
    pub(super) question: String,
    pub(super) options: Vec<PollOption>,
    pub(super) max_choices: usize,
    pub(super) anonymous: bool,
    pub(super) hide_results: bool,
    pub(super) allow_change: bool,
    pub(super) closes_at: Option<Micros>,
    pub(super) closed_at: Option<Micros>,
    /// The number of voters with a choice.
    pub(super) total_voters: i64,
    /// What the reader chose. Never stored or broadcast.
    #[serde(skip)]
    pub(super) my_votes: Option<Vec<usize>>,
}

/// An answer to choose from. Its id is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct PollOption {
    pub text: String,
    pub votes: i64,
}

/// A set of answers: bit n stands for answer n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Choices(pub i64);

impl Choices {
    fn has(self, option: usize) -> bool {
        self.0 >> option & 1 == 1
    }

    /// Returns the ids of the answers.
    pub(super) fn ids(self) -> Vec<usize> {
        (0..OPTIONS_MAX).filter(|option| self.has(*option)).collect()
    }
}

impl Poll {
    /// Creates the state of a poll that starts at `now`.
    pub(super) fn new(poll: &NewPoll, now: Micros) -> Self {
        let option = |text: &OptionText| PollOption { text: text.as_str().into(), votes: 0 };
        Self {
            question: poll.question.as_str().into(),
            options: poll.options.iter().map(option).collect(),
            max_choices: poll.max_choices,
            anonymous: poll.anonymous,
            hide_results: poll.hide_results,
            allow_change: poll.allow_change,
            closes_at: poll.open_for.map(|time| now + time),
            closed_at: None,
            total_voters: 0,
            my_votes: None,
        }
    }

    /// Parses the column of the message's row.
    pub(crate) fn from_stored(text: Option<&str>) -> ImksResult<Option<Box<Self>>> {
        from_column(text)
    }

    /// Returns the value for the column of the message's row.
    pub(crate) fn stored(&self) -> ImksResult<String> {
        to_column(&Shown { poll: self, hides: false, stores: true })
    }

    /// Whether votes are refused at `now`.
    pub(super) fn is_over(&self, now: Micros) -> bool {
        self.closed_at.is_some() || self.closes_at.is_some_and(|at| at <= now)
    }

    /// Returns a set of chosen answers.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for answers that do not exist, or too many of them.
    pub(super) fn choices(&self, ids: &[usize]) -> ImksResult<Choices> {
        if let Some(unknown) = ids.iter().find(|id| **id >= self.options.len()) {
            return Err(ImksError::invalid("option_ids", format!("has no option {unknown}")));
        }
        let choices = Choices(ids.iter().fold(0, |all, id| all | 1 << id));
        if choices.ids().len() > self.max_choices {
            let reason = format!("has more than {} options", self.max_choices);
            return Err(ImksError::invalid("option_ids", reason));
        }
        Ok(choices)
    }

    /// Replaces what one voter chose.
    pub(super) fn count(&mut self, before: Choices, after: Choices) {
        for (id, option) in self.options.iter_mut().enumerate() {
            option.votes += i64::from(after.has(id)) - i64::from(before.has(id));
        }
        self.total_voters += i64::from(after.0 != 0) - i64::from(before.0 != 0);
    }

    /// Marks the answers that the reader chose.
    pub(super) fn mark_own(&mut self, choices: Choices) {
        self.my_votes = Some(choices.ids());
    }
}

impl JsonSchema for Poll {
    fn schema_name() -> Cow<'static, str> {
        "Poll".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (time, option) =
            (generator.subschema_for::<Option<Timestamp>>(), generator.subschema_for::<ShownOption<'_>>());
        json_schema!({
            "type": "object",
            "properties": {
                "question": { "type": "string" },
                "options": { "type": "array", "items": option },
                "max_choices": { "type": "integer" },
                "anonymous": { "type": "boolean" },
                "hide_results": { "type": "boolean" },
                "allow_change": { "type": "boolean" },
                "total_voters": { "type": "integer" },
                "total_votes": { "type": ["integer", "null"], "description": "Null while the results are hidden." },
                "closes_at": time,
                "closed_at": time,
                "is_final": { "type": "boolean" },
                "my_votes": {
                    "type": "array", "items": { "type": "integer" },
                    "description": "What the reader chose; not in events.",
                },
            },
            "required": [
                "question", "options", "max_choices", "anonymous", "hide_results", "allow_change", "total_voters",
                "total_votes", "closes_at", "closed_at", "is_final",
            ],
        })
    }
}

impl Serialize for Poll {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hides = self.hide_results && self.closed_at.is_none();
        Shown { poll: self, hides, stores: false }.serialize(serializer)
    }
}

/// A poll in one of its two forms: as it is stored, or as it is shown.
struct Shown<'a> {
    poll: &'a Poll,
    hides: bool,
    stores: bool,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { poll, hides, stores } = self;
        let mut out = serializer.serialize_struct("Poll", 12)?;
        out.serialize_field("question", &poll.question)?;
        let votes = |option: &PollOption| (!hides).then_some(option.votes);
        let shown = |(id, option)| ShownOption { id, text: &poll.options[id].text, votes: votes(option) };
        out.serialize_field("options", &poll.options.iter().enumerate().map(shown).collect::<Vec<_>>())?;
        out.serialize_field("max_choices", &poll.max_choices)?;
        out.serialize_field("anonymous", &poll.anonymous)?;
        out.serialize_field("hide_results", &poll.hide_results)?;
        out.serialize_field("allow_change", &poll.allow_change)?;
        out.serialize_field("total_voters", &poll.total_voters)?;
        if *stores {
            out.serialize_field("closes_at", &poll.closes_at)?;
            out.serialize_field("closed_at", &poll.closed_at)?;
            return out.end();
        }
        let total: i64 = poll.options.iter().map(|option| option.votes).sum();
        out.serialize_field("total_votes", &(!hides).then_some(total))?;
        out.serialize_field("closes_at", &poll.closes_at.map(Timestamp))?;
        out.serialize_field("closed_at", &poll.closed_at.map(Timestamp))?;
        out.serialize_field("is_final", &poll.closed_at.is_some())?;
        if let Some(mine) = &poll.my_votes {
            out.serialize_field("my_votes", mine)?;
        }
        out.end()
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PollOption")]
struct ShownOption<'a> {
    id: usize,
    text: &'a str,
    /// Null while the results are hidden.
    votes: Option<i64>,
}

/// The longest question of a poll, in Unicode scalar values.
pub const QUESTION_CHARS_MAX: usize = 300;
/// The longest answer of a poll, in Unicode scalar values.
pub const OPTION_CHARS_MAX: usize = 100;
/// The most answers of a poll.
pub const OPTIONS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{from_value, json};

    use super::*;

    fn poll(options: usize, max_choices: usize, hide_results: bool) -> Poll {
        let text = |number: usize| from_value(json!(format!("option {number}"))).unwrap();
        let new = NewPoll {
            question: from_value(json!("Lunch?")).unwrap(),
            options: (0..options).map(text).collect(),
            max_choices,
            anonymous: false,
            hide_results,
            allow_change: true,
            open_for: Some(60_000_000),
            secret: Uuid::nil(),
        };
        Poll::new(&new, 0)
    }

    #[test]
    fn hidden_results_are_stored_but_not_shown_before_the_poll_is_closed() {
        let mut poll = poll(2, 1, true);
        poll.count(Choices(0), Choices(0b10));
        let shown = json!(poll);
        assert_eq!((&shown["options"][1]["votes"], &shown["total_votes"]), (&json!(null), &json!(null)));
        assert_eq!(
            (&shown["total_voters"], &shown["closes_at"]),
            (&json!(1), &json!("1970-01-01T00:01:00.000Z"))
        );
        let mut read = Poll::from_stored(Some(&poll.stored().unwrap())).unwrap().unwrap();
        assert_eq!(*read, poll);
        read.closed_at = Some(1);
        let shown = json!(read);
        assert_eq!((&shown["options"][1]["votes"], &shown["is_final"]), (&json!(1), &json!(true)));
    }

    #[test]
    fn only_answers_that_exist_and_not_too_many_can_be_chosen() {
        let poll = poll(3, 2, false);
        assert_eq!(poll.choices(&[2, 0, 2]).unwrap().ids(), [0, 2]);
        assert_eq!(poll.choices(&[]).unwrap(), Choices(0));
        for wrong in [&[3][..], &[0, 1, 2], &[64], &[usize::MAX]] {
            assert_eq!(poll.choices(wrong).unwrap_err().code(), "invalid_input", "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn the_totals_equal_a_recount(votes in prop::collection::vec((0..5_usize, 0..16_i64), 0..60)) {
            let (mut poll, mut of) = (poll(4, 4, false), [Choices(0); 5]);
            for (voter, choice) in votes {
                poll.count(of[voter], Choices(choice));
                of[voter] = Choices(choice);
            }
            for (id, option) in poll.options.iter().enumerate() {
                prop_assert_eq!(option.votes, of.iter().filter(|it| it.has(id)).count() as i64);
            }
            prop_assert_eq!(poll.total_voters, of.iter().filter(|it| it.0 != 0).count() as i64);
        }
    }
}
