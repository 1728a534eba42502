//! Reactions to messages: one row per message, emoji and user. The row of a message stores the totals that
//! clients see.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Removable, Write};
use super::append::{Authority, LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::Db;
use super::emoji::Emoji;
use super::message::MessageDetail;
use super::message_reaction_total::{Reaction, Reactions, USERS_SHOWN};
use super::rows::{Column, ROWS_LIMIT, RowsSql, sql_number};
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A reaction of the actor to a message.
#[derive(Debug, Clone)]
pub struct AddReaction {
    /// The message.
    pub message_id: Uuid,
    /// The emoji to react with.
    pub emoji: Emoji,
}

/// A reaction to remove.
#[derive(Debug, Clone)]
pub struct RemoveReaction {
    /// The message.
    pub message_id: Uuid,
    /// The emoji of the reaction.
    pub emoji: Emoji,
    /// The user whose reaction to remove; the actor if absent. Only moderators may remove those of others.
    pub user_id: Option<Uuid>,
}

/// The total of one emoji on a message: the answer to `reaction:add` and `reaction:remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reacted {
    /// The message.
    pub message_id: Uuid,
    /// The emoji.
    pub emoji: Emoji,
    /// The number of users who reacted with the emoji.
    pub count: i64,
    /// The number of the message's last change.
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

/// One reaction of one user that is added or removed.
struct Step<'a> {
    action: Action,
    message_id: Uuid,
    emoji: &'a Emoji,
    user_id: Uuid,
}

/// The `action` of `reaction:updated`.
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

    /// Returns the reactions of the message, which must not be deleted, and the number of its last change.
    fn live(&self, channel: &LockedChannel<'_>) -> ImksResult<(Reactions, i64)> {
        let row = channel.message(self.message_id)?;
        match row.deleted_at {
            Some(_) => Err(ImksError::MessageDeleted),
            None => Ok((Reactions::from_stored(row.reactions.as_deref()), row.rev)),
        }
    }

    /// Whether the user's reaction is stored.
    fn is_stored(&self, channel: &mut LockedChannel<'_>) -> ImksResult<bool> {
        match channel.write_of::<ReactionRow>(&self.key()) {
            Some(write) => Ok(matches!(write, Write::Stored(_))),
            None => Ok(!channel.rows::<ReactionRow>(&self.key())?.is_empty()),
        }
    }

    /// Returns the users to show once this one has removed their reaction.
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

    /// Writes the new totals and broadcasts them.
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

    /// Returns all reactions to the message that the batch adds or removes, if there are several.
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

/// The payload of `reaction:updated` without its `rev`, which every change has (docs/protocol.md).
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

/// Marks the reactions of `reader` in messages that are only sent to them.
///
/// # Errors
/// [`ImksError::Database`].
pub(crate) async fn mark_own(db: &Db, reader: Uuid, messages: &mut [MessageDetail]) -> ImksResult<()> {
    let mut unknown = Vec::new();
    for message in messages.iter_mut() {
        for Reaction { emoji, total } in message.reactions.iter_mut() {
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
        for Reaction { emoji, total } in message.reactions.iter_mut() {
            total.me |= own.contains(&(message.id, emoji.clone()));
        }
    }
    Ok(())
}

/// The message, emoji and user.
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

/// A user who reacted to a message with an emoji.
#[derive(Debug, FromRow)]
struct Reactor {
    message_id: Uuid,
    #[sqlx(try_from = "String")]
    emoji: Emoji,
    user_id: Uuid,
}

impl Lookup for Reactor {
    /// The message and emoji.
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
sql_number! {
    /// The most users that are read for one emoji: those shown, plus one for each removal in a batch.
    const REACTORS_READ: usize = reactors_read = 1_034;
}
const _: () = assert!(REACTORS_READ == USERS_SHOWN + ROWS_LIMIT, "every mutation of a batch may remove one");
static REACTORS: RowsSql = RowsSql::new(
    "message_id, emoji",
    concat!(
        "SELECT message_id, emoji, user_id FROM (SELECT m.message_id, m.emoji, m.user_id, \
             ROW_NUMBER() OVER (PARTITION BY m.message_id, m.emoji ORDER BY m.user_id) AS place \
           FROM (SELECT DISTINCT message_id, emoji FROM r WHERE message_id IS NOT NULL) w \
           JOIN message_reaction m ON m.message_id = w.message_id AND m.emoji = w.emoji) numbered \
         WHERE place <= ",
        reactors_read!()
    ),
);
