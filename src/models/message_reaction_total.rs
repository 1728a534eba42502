//! The totals of the reactions to a message: a count and some users for each emoji. They are stored as JSON
//! in the row of the message.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::emoji::Emoji;
use super::stored_json::{from_column, to_column};
use super::text::described;
use crate::{ImksError, ImksResult};

/// The reactions to a message, by emoji in the order of their first use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reactions(Vec<Reaction>);

described!([] Reactions, generator => {
    "type": "object", "additionalProperties": generator.subschema_for::<Total>(),
});

/// All reactions to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reaction {
    pub emoji: Emoji,
    pub total: Total,
}

/// The number of users who reacted with an emoji, and some of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReactionTotal")]
pub(super) struct Total {
    pub count: i64,
    /// Up to [`USERS_SHOWN`] of the users.
    pub user_ids: Vec<Uuid>,
    /// Whether the reader is one of the users. Never stored or broadcast.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub me: bool,
}

impl Total {
    /// Whether the total names only some of the users.
    pub(super) fn is_abridged(&self) -> bool {
        usize::try_from(self.count).is_ok_and(|count| count > self.user_ids.len())
    }
}

impl Reactions {
    /// Parses the column of the message's row.
    pub(crate) fn from_stored(text: Option<&str>) -> ImksResult<Self> {
        Ok(from_column(text)?.unwrap_or_default())
    }

    /// Returns the value for the column of the message's row; `None` if there are no reactions.
    pub(super) fn stored(&self) -> ImksResult<Option<String>> {
        (!self.0.is_empty()).then(|| to_column(self)).transpose()
    }

    pub(super) fn total(&mut self, emoji: &Emoji) -> Option<&mut Total> {
        self.0.iter_mut().find(|reaction| reaction.emoji == *emoji).map(|reaction| &mut reaction.total)
    }

    pub(super) fn count(&mut self, emoji: &Emoji) -> i64 {
        self.total(emoji).map_or(0, |total| total.count)
    }

    /// Adds a user who has not reacted with this emoji yet.
    pub(super) fn add(&mut self, emoji: &Emoji, user: Uuid) -> ImksResult<()> {
        if let Some(total) = self.total(emoji) {
            total.count += 1;
            if total.user_ids.len() < USERS_SHOWN {
                total.user_ids.push(user);
            }
            return Ok(());
        }
        if self.0.len() >= DISTINCT_MAX {
            return Err(ImksError::LimitReached("reactions_distinct"));
        }
        let total = Total { count: 1, user_ids: vec![user], me: false };
        self.0.push(Reaction { emoji: emoji.clone(), total });
        Ok(())
    }

    /// Removes the reaction of a user. Returns whether other users have to be shown instead.
    pub(super) fn remove(&mut self, emoji: &Emoji, user: Uuid) -> bool {
        let Some(total) = self.total(emoji) else { return false };
        total.count -= 1;
        total.user_ids.retain(|shown| *shown != user);
        let unknown = total.is_abridged() && total.user_ids.len() < USERS_SHOWN;
        self.0.retain(|reaction| reaction.total.count > 0);
        unknown
    }
}

impl Reactions {
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reaction> {
        self.0.iter_mut()
    }
}

impl Serialize for Reactions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|reaction| (&reaction.emoji, &reaction.total)))
    }
}

impl<'de> Deserialize<'de> for Reactions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

/// A visitor that reads a map and keeps the order of its keys.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Reactions;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("reactions by emoji")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reactions, A::Error> {
        let mut reactions = Reactions::default();
        while let Some((emoji, total)) = map.next_entry::<String, Total>()? {
            reactions.0.push(Reaction { emoji: emoji.into(), total });
        }
        Ok(reactions)
    }
}

/// The most different emoji on one message.
pub const DISTINCT_MAX: usize = 20;
/// The most users that a message names for each emoji.
pub const USERS_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn totals_keep_their_order_and_stop_at_the_limits() {
        let (mut reactions, user) = (Reactions::default(), Uuid::from_u128);
        let emoji = |number: usize| Emoji::new(&format!(":e{number}:")).unwrap();
        for number in 0..DISTINCT_MAX {
            reactions.add(&emoji(number), user(1)).unwrap();
        }
        let refused = reactions.add(&emoji(DISTINCT_MAX), user(1));
        assert!(matches!(refused, Err(ImksError::LimitReached("reactions_distinct"))));
        for number in 2..=11 {
            reactions.add(&emoji(0), user(number)).unwrap();
        }
        let stored = reactions.stored().unwrap().unwrap();
        assert_eq!(Reactions::from_stored(Some(&stored)).unwrap(), reactions);
        assert!(stored.starts_with(r#"{":e0:":{"count":11,"user_ids":["#) && stored.contains(":e19:"));
        assert_eq!(reactions.total(&emoji(0)).unwrap().user_ids.len(), USERS_SHOWN);
    }

    #[test]
    fn whoever_leaves_is_replaced_only_where_somebody_is_not_shown() {
        let (mut reactions, user) = (Reactions::default(), Uuid::from_u128);
        let emoji = Emoji::new("👍").unwrap();
        for number in 1..=11 {
            reactions.add(&emoji, user(number)).unwrap();
        }
        assert!(!reactions.remove(&emoji, user(11)), "was not shown");
        assert!(!reactions.remove(&emoji, user(1)), "all that are left are shown");
        for number in 12..=14 {
            reactions.add(&emoji, user(number)).unwrap();
        }
        assert!(reactions.remove(&emoji, user(2)));
    }

    #[test]
    fn nobody_reacted_looks_like_an_empty_object_and_the_reader_is_marked() {
        assert_eq!((json!(Reactions::default()), Reactions::default().stored().unwrap()), (json!({}), None));
        let total = Total { count: 1, user_ids: vec![Uuid::nil()], me: true };
        let reactions = Reactions(vec![Reaction { emoji: Emoji::new("👍").unwrap(), total }]);
        assert_eq!(json!(reactions), json!({ "👍": { "count": 1, "user_ids": [Uuid::nil()], "me": true } }));
    }
}
