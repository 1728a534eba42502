//! Reactions: who reacted to a message with what. The message's row carries the totals as they are shown; this table
//! has one row per message, emoji and user.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Removable, Write};
use super::append::{Authority, LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::Db;
use super::message::MessageDetail;
use super::rows::{Column, RowsSql};
use super::text::refused;
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// What somebody reacts with: one emoji (Unicode Technical Standard 51, section 1.4.9), or `:name:` for a custom one;
/// at most [`EMOJI_BYTES_MAX`] bytes. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Emoji(Arc<str>);

impl Emoji {
    /// Checks a text.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn new(text: &str) -> ImksResult<Self> {
        if text.len() > EMOJI_BYTES_MAX {
            return Err(ImksError::invalid("emoji", format!("is longer than {EMOJI_BYTES_MAX} bytes")));
        }
        if !is_custom_name(text) && !is_emoji(text) {
            return Err(ImksError::invalid("emoji", "must be one emoji, or a name between colons"));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Emoji {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(refused)
    }
}

impl Serialize for Emoji {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn is_custom_name(text: &str) -> bool {
    let name = text.strip_prefix(':').and_then(|text| text.strip_suffix(':')).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
}

/// Elements joined by U+200D. Pictographs are recognised by their blocks, so that next year's need no release.
fn is_emoji(text: &str) -> bool {
    text.split('\u{200d}').all(is_emoji_element)
}

/// A flag, a keycap, or a pictograph with a skin tone, a variation selector or the tags of a subdivision's flag.
fn is_emoji_element(element: &str) -> bool {
    let mut chars = element.chars();
    let Some(first) = chars.next() else { return false };
    let rest = chars.as_str();
    match first {
        '\u{1f1e6}'..='\u{1f1ff}' => {
            matches!(rest.chars().next(), Some('\u{1f1e6}'..='\u{1f1ff}')) && rest.chars().count() == 1
        }
        '0'..='9' | '#' | '*' => rest.trim_start_matches('\u{fe0f}') == "\u{20e3}",
        first if is_pictograph(first) => is_modifier(rest),
        _ => false,
    }
}

fn is_modifier(rest: &str) -> bool {
    let tags = rest.strip_suffix('\u{e007f}').filter(|tags| !tags.is_empty());
    matches!(rest, "" | "\u{fe0f}" | "\u{fe0f}\u{20e3}")
        || matches!(rest.chars().next(), Some('\u{1f3fb}'..='\u{1f3ff}')) && rest.chars().count() == 1
        || tags.is_some_and(|tags| tags.chars().all(|tag| matches!(tag, '\u{e0020}'..='\u{e007e}')))
}

fn is_pictograph(char: char) -> bool {
    matches!(char,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2194}'..='\u{21aa}'
        | '\u{231a}'..='\u{23ff}' | '\u{24c2}' | '\u{25aa}'..='\u{27bf}' | '\u{2934}' | '\u{2935}'
        | '\u{2b05}'..='\u{2b55}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}'
        | '\u{1f004}' | '\u{1f0cf}' | '\u{1f170}'..='\u{1f19a}' | '\u{1f201}'..='\u{1f251}'
        | '\u{1f300}'..='\u{1faff}')
}

/// The reactions to a message, by emoji in the order of their first use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reactions(Vec<Reaction>);

/// All reactions to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reaction {
    emoji: Emoji,
    total: Total,
}

/// How many users reacted with an emoji, and some of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Total {
    count: i64,
    /// Up to [`USERS_SHOWN`] of them.
    user_ids: Vec<Uuid>,
    /// Whether the reader is among them. Never stored, never broadcast.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    me: bool,
}

impl Total {
    /// Whether it names only some of the users.
    fn is_abridged(&self) -> bool {
        usize::try_from(self.count).is_ok_and(|count| count > self.user_ids.len())
    }
}

impl Reactions {
    /// From the column of the message's row.
    pub(crate) fn from_stored(text: Option<&str>) -> Self {
        text.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    /// For the column of the message's row; nothing where nobody reacted.
    fn stored(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    fn total(&mut self, emoji: &Emoji) -> Option<&mut Total> {
        self.0.iter_mut().find(|reaction| reaction.emoji == *emoji).map(|reaction| &mut reaction.total)
    }

    fn count(&mut self, emoji: &Emoji) -> i64 {
        self.total(emoji).map_or(0, |total| total.count)
    }

    /// Counts a user who has not reacted with this emoji before.
    fn add(&mut self, emoji: &Emoji, user: Uuid) -> ImksResult<()> {
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

    /// Takes back the reaction of a user. Says whether others must be shown in the place of that user.
    fn remove(&mut self, emoji: &Emoji, user: Uuid) -> bool {
        let Some(total) = self.total(emoji) else { return false };
        total.count -= 1;
        total.user_ids.retain(|shown| *shown != user);
        let unknown = total.is_abridged() && total.user_ids.len() < USERS_SHOWN;
        self.0.retain(|reaction| reaction.total.count > 0);
        unknown
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

/// Reads a map without losing the order of its keys.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Reactions;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("reactions by emoji")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reactions, A::Error> {
        let mut reactions = Reactions::default();
        while let Some((emoji, total)) = map.next_entry::<String, Total>()? {
            reactions.0.push(Reaction { emoji: Emoji(emoji.into()), total });
        }
        Ok(reactions)
    }
}

/// A reaction of the actor to a message.
#[derive(Debug, Clone)]
pub struct AddReaction {
    /// The message.
    pub message_id: Uuid,
    /// With what.
    pub emoji: Emoji,
}

/// A reaction to take back.
#[derive(Debug, Clone)]
pub struct RemoveReaction {
    /// The message.
    pub message_id: Uuid,
    /// Which reaction.
    pub emoji: Emoji,
    /// Whose; the actor's when absent. Those of others are for moderators.
    pub user_id: Option<Uuid>,
}

/// What a message has of one emoji: the answer to `reaction:add` and `reaction:remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reacted {
    /// The message.
    pub message_id: Uuid,
    /// The emoji.
    pub emoji: Emoji,
    /// Users who reacted with it.
    pub count: i64,
    /// Number of the message's last change.
    pub rev: i64,
}

impl Mutation for AddReaction {
    type Done = Reacted;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
        let user = references.scope().actor.id;
        references.rows::<ReactionRow>((self.message_id, self.emoji.clone(), user));
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Reacted> {
        let (message_id, emoji, user_id) = (self.message_id, &self.emoji, channel.scope().actor.id);
        let step = Step { action: Action::Add, message_id, emoji, user_id };
        let (mut reactions, rev) = step.live(channel)?;
        if step.is_stored(channel)? {
            return Ok(step.done(&mut reactions, rev));
        }
        reactions.add(&self.emoji, step.user_id)?;
        let row = ReactionRow {
            message_id: self.message_id,
            emoji: self.emoji.clone(),
            user_id: step.user_id,
            channel_id: channel.scope().channel_id,
            created_at: channel.now(),
        };
        channel.insert(row);
        step.store(channel, reactions)
    }
}

impl Mutation for RemoveReaction {
    type Done = Reacted;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
        let user = self.user_id.unwrap_or(references.scope().actor.id);
        references.rows::<ReactionRow>((self.message_id, self.emoji.clone(), user));
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Reacted> {
        let actor = channel.scope().actor.id;
        let user = self.user_id.unwrap_or(actor);
        if user != actor && channel.scope().authority == Authority::Own {
            return Err(ImksError::NotAuthor);
        }
        let step =
            Step { action: Action::Remove, message_id: self.message_id, emoji: &self.emoji, user_id: user };
        let (mut reactions, rev) = step.live(channel)?;
        if !step.is_stored(channel)? {
            return Ok(step.done(&mut reactions, rev));
        }
        let unknown = reactions.remove(&self.emoji, user);
        let others = if unknown { step.others(channel)? } else { Vec::new() };
        if let Some(total) = reactions.total(&self.emoji).filter(|_| unknown) {
            total.user_ids = others;
        }
        channel.remove::<ReactionRow>(step.key());
        step.store(channel, reactions)
    }
}

/// One user's reaction, added or taken back.
struct Step<'a> {
    action: Action,
    message_id: Uuid,
    emoji: &'a Emoji,
    user_id: Uuid,
}

/// `action` of `reaction:updated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Add,
    Remove,
}

impl Step<'_> {
    fn key(&self) -> Key {
        (self.message_id, self.emoji.clone(), self.user_id)
    }

    /// The reactions of the message, which must not be deleted, and the number of its last change.
    fn live(&self, channel: &LockedChannel<'_>) -> ImksResult<(Reactions, i64)> {
        let row = channel.message(self.message_id)?;
        match row.deleted_at {
            Some(_) => Err(ImksError::MessageDeleted),
            None => Ok((Reactions::from_stored(row.reactions.as_deref()), row.rev)),
        }
    }

    /// Whether the user's reaction is there.
    fn is_stored(&self, channel: &mut LockedChannel<'_>) -> ImksResult<bool> {
        match channel.write_of::<ReactionRow>(&self.key()) {
            Some(write) => Ok(matches!(write, Write::Stored(_))),
            None => Ok(!channel.rows::<ReactionRow>(&self.key())?.is_empty()),
        }
    }

    /// Users to be shown once this one has taken back the reaction.
    fn others(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Vec<Uuid>> {
        let stored = channel.rows::<Reactor>(&(self.message_id, self.emoji.clone()))?;
        let stored: Vec<Uuid> = stored.iter().map(|reactor| reactor.user_id).collect();
        let key = |user| (self.message_id, self.emoji.clone(), user);
        let untouched =
            stored.into_iter().filter(|user| channel.write_of::<ReactionRow>(&key(*user)).is_none());
        let ours = channel.writes::<ReactionRow>().filter_map(|(key, write)| match write {
            Write::Stored(_) if (key.0, &key.1) == (self.message_id, self.emoji) => Some(key.2),
            _ => None,
        });
        Ok(untouched.chain(ours).filter(|user| *user != self.user_id).take(USERS_SHOWN).collect())
    }

    /// Writes the new totals and tells them.
    fn store(self, channel: &mut LockedChannel<'_>, mut reactions: Reactions) -> ImksResult<Reacted> {
        let (message_id, stored) = (self.message_id, reactions.stored());
        let row = channel.change_together(message_id, ChangeKind::Reaction, |row| row.reactions = stored)?;
        let (rev, channel_id) = (row.rev, row.channel_id);
        let done = self.done(&mut reactions, rev);
        let event = ReactionUpdate {
            channel_id,
            message_id,
            action: self.action,
            emoji: self.emoji.clone(),
            user_id: self.user_id,
            count: done.count,
            changes: self.changes(channel),
            reactions,
        };
        channel.tell_change("reaction:updated", rev, event);
        Ok(done)
    }

    /// All reactions to the message that the batch adds or takes back, when there are several.
    fn changes(&self, channel: &LockedChannel<'_>) -> Vec<ReactionChange> {
        let here = channel.writes::<ReactionRow>().filter(|((message, ..), _)| *message == self.message_id);
        let change = |((_, emoji, user_id), write): (&Key, Write<&ReactionRow>)| ReactionChange {
            action: if write == Write::Removed { Action::Remove } else { Action::Add },
            emoji: emoji.clone(),
            user_id: *user_id,
        };
        let changes: Vec<_> = here.map(change).collect();
        if changes.len() > 1 { changes } else { Vec::new() }
    }

    fn done(&self, reactions: &mut Reactions, rev: i64) -> Reacted {
        let count = reactions.count(self.emoji);
        Reacted { message_id: self.message_id, emoji: self.emoji.clone(), count, rev }
    }
}

/// Payload of `reaction:updated`, but for its `rev`, which every change has (docs/protocol.md).
#[derive(Debug, Serialize)]
struct ReactionUpdate {
    channel_id: Uuid,
    message_id: Uuid,
    action: Action,
    emoji: Emoji,
    user_id: Uuid,
    count: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ReactionChange>,
    reactions: Reactions,
}

/// One of several reactions that were committed together.
#[derive(Debug, Serialize)]
struct ReactionChange {
    action: Action,
    emoji: Emoji,
    user_id: Uuid,
}

/// Marks the reactions of `reader` in messages that nobody else is going to see.
///
/// # Errors
/// [`ImksError::Database`].
pub(crate) async fn mark_own(db: &Db, reader: Uuid, messages: &mut [MessageDetail]) -> ImksResult<()> {
    let mut unknown = Vec::new();
    for message in messages.iter_mut() {
        for Reaction { emoji, total } in &mut message.reactions.0 {
            total.me = total.user_ids.contains(&reader);
            if !total.me && total.is_abridged() {
                unknown.push((message.id, emoji.clone(), reader));
            }
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let rows: Vec<ReactionRow> = FIND.read(db, &ReactionRow::columns_of_keys(&unknown)).await?;
    let own: HashSet<(Uuid, Emoji)> = rows.into_iter().map(|row| (row.message_id, row.emoji)).collect();
    for message in messages {
        for Reaction { emoji, total } in &mut message.reactions.0 {
            total.me |= own.contains(&(message.id, emoji.clone()));
        }
    }
    Ok(())
}

/// Message, emoji and user.
type Key = (Uuid, Emoji, Uuid);

/// A row of `message_reaction`.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
struct ReactionRow {
    message_id: Uuid,
    #[sqlx(try_from = "String")]
    emoji: Emoji,
    user_id: Uuid,
    channel_id: Uuid,
    created_at: Micros,
}

impl From<String> for Emoji {
    /// An emoji that was checked before it was stored.
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl ReactionRow {
    fn columns_of_keys(keys: &[Key]) -> Vec<Column<'_>> {
        vec![
            Column::Ids(keys.iter().map(|(message, ..)| *message).collect()),
            Column::Texts(keys.iter().map(|(_, emoji, _)| emoji.as_str()).collect()),
            Column::Ids(keys.iter().map(|(.., user)| *user).collect()),
        ]
    }
}

impl Record for ReactionRow {
    type Key = Key;

    fn key(&self) -> Key {
        (self.message_id, self.emoji.clone(), self.user_id)
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::Ids(rows.iter().map(|row| row.message_id).collect()),
            Column::Texts(rows.iter().map(|row| row.emoji.as_str()).collect()),
            Column::Ids(rows.iter().map(|row| row.user_id).collect()),
            Column::Ids(rows.iter().map(|row| row.channel_id).collect()),
            Column::Numbers(rows.iter().map(|row| row.created_at).collect()),
        ]
    }
}

impl Removable for ReactionRow {
    fn delete() -> &'static RowsSql {
        &DELETE
    }

    fn key_columns(keys: &[Key]) -> Vec<Column<'_>> {
        Self::columns_of_keys(keys)
    }
}

impl Lookup for ReactionRow {
    type Key = Key;

    fn key(&self) -> Key {
        Record::key(self)
    }

    fn select() -> &'static RowsSql {
        &FIND
    }

    fn key_columns(keys: &[Key]) -> Vec<Column<'_>> {
        Self::columns_of_keys(keys)
    }
}

/// One of those who reacted to a message with an emoji.
#[derive(Debug, FromRow)]
struct Reactor {
    message_id: Uuid,
    #[sqlx(try_from = "String")]
    emoji: Emoji,
    user_id: Uuid,
}

impl Lookup for Reactor {
    /// Message and emoji.
    type Key = (Uuid, Emoji);

    fn key(&self) -> Self::Key {
        (self.message_id, self.emoji.clone())
    }

    fn select() -> &'static RowsSql {
        &REACTORS
    }

    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>> {
        vec![
            Column::Ids(keys.iter().map(|(message, _)| *message).collect()),
            Column::Texts(keys.iter().map(|(_, emoji)| emoji.as_str()).collect()),
        ]
    }
}

/// Longest emoji, in bytes.
pub const EMOJI_BYTES_MAX: usize = 64;
/// Different emoji on one message.
pub const DISTINCT_MAX: usize = 20;
/// Users that a message names for each emoji.
pub const USERS_SHOWN: usize = 10;

static INSERT: RowsSql = RowsSql::new(
    "message_id, emoji, user_id, channel_id, created_at",
    "INSERT INTO message_reaction (message_id, emoji, user_id, channel_id, created_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static DELETE: RowsSql = RowsSql::new(
    "message_id, emoji, user_id",
    "DELETE FROM message_reaction WHERE (message_id, emoji, user_id) IN \
     (SELECT message_id, emoji, user_id FROM r WHERE message_id IS NOT NULL)",
);
static FIND: RowsSql = RowsSql::new(
    "message_id, emoji, user_id",
    "SELECT m.message_id, m.emoji, m.user_id, m.channel_id, m.created_at FROM r JOIN message_reaction m \
     ON m.message_id = r.message_id AND m.emoji = r.emoji AND m.user_id = r.user_id \
     WHERE r.message_id IS NOT NULL",
);
/// As many as can be shown after everybody in a batch has taken back a reaction.
static REACTORS: RowsSql = RowsSql::new(
    "message_id, emoji",
    "SELECT message_id, emoji, user_id FROM (SELECT m.message_id, m.emoji, m.user_id, \
         ROW_NUMBER() OVER (PARTITION BY m.message_id, m.emoji ORDER BY m.user_id) AS place \
       FROM (SELECT DISTINCT message_id, emoji FROM r WHERE message_id IS NOT NULL) w \
       JOIN message_reaction m ON m.message_id = w.message_id AND m.emoji = w.emoji) numbered \
     WHERE place <= 1034",
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_emoji_is_one_emoji_or_a_custom_name() {
        for text in ["👍", "👍🏽", "❤", "❤️", "🏳️‍🌈", "👩‍👩‍👧‍👦", "🇩🇪", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺️", "©", ":party_parrot:", ":+1:"]
        {
            assert_eq!(Emoji::new(text).unwrap().as_str(), text);
        }
        let long = format!(":{}:", "n".repeat(63));
        let refused = [
            "",
            "a",
            "1",
            "👍👍",
            "👍 ",
            "🇩",
            "🇩🇪🇩",
            "👍\u{200d}",
            "::",
            ":a b:",
            "\u{fe0f}",
            "\u{200d}",
            "<b>",
            "\0",
            &long,
        ];
        for text in refused {
            let error = Emoji::new(text).unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{text:?}");
        }
    }

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
        let stored = reactions.stored().unwrap();
        assert_eq!(Reactions::from_stored(Some(&stored)), reactions);
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
        assert_eq!((json!(Reactions::default()), Reactions::default().stored()), (json!({}), None));
        let total = Total { count: 1, user_ids: vec![Uuid::nil()], me: true };
        let reactions = Reactions(vec![Reaction { emoji: Emoji::new("👍").unwrap(), total }]);
        assert_eq!(json!(reactions), json!({ "👍": { "count": 1, "user_ids": [Uuid::nil()], "me": true } }));
    }
}
