//! Reactions to messages: the mutations that add and remove them, and the event for the members. The row of a
//! message stores the totals that clients see.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::append::records::Write;
use super::append::{Appender, Authority, LockedChannel, Mutation, References, Scope};
use super::channel_change::ChangeKind;
use super::db::Db;
use super::emoji::Emoji;
use super::message::MessageDetail;
use super::message_reaction_row::{Key, ReactionRow, Reactor};
use super::message_reaction_total::{Reaction, Reactions, USERS_SHOWN};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReactionAction")]
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
            None => Ok((Reactions::from_stored(row.reactions.as_deref())?, row.rev)),
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
        let (message_id, stored) = (self.message_id, reactions.stored()?);
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
        channel.tell_state("reaction:updated", rev, message_id, event)?;
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
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReactionUpdate {
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
#[derive(Debug, Serialize, JsonSchema)]
struct ReactionChange {
    action: Action,
    emoji: Emoji,
    user_id: Uuid,
}

/// Removes up to [`TAKEN_BACK_AT_ONCE`] reactions of a user, each under the right that `scope` gives in its channel.
/// Returns whether there were any.
///
/// # Errors
/// [`ImksError::Database`] and those of the append path.
pub(crate) async fn take_back(
    db: &Db,
    appender: &Appender,
    user: Uuid,
    scope: fn(Uuid) -> Scope,
) -> ImksResult<bool> {
    let found = ReactionRow::of_user(db, user, TAKEN_BACK_AT_ONCE).await?;
    let is_any = !found.is_empty();
    let mut receipts = Vec::with_capacity(found.len());
    for ReactionRow { message_id, emoji, channel_id, .. } in found {
        let remove = RemoveReaction { message_id, emoji, user_id: Some(user) };
        receipts.push((message_id, appender.submit(scope(channel_id), remove)?));
    }
    for (message_id, receipt) in receipts {
        match receipt.await {
            Ok(_) => {}
            // A deleted message shows no totals; only the row is left.
            Err(ImksError::MessageDeleted | ImksError::NotFound(_)) => {
                ReactionRow::forget(db, user, message_id).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(is_any)
}

/// The reactions that one step takes back.
const TAKEN_BACK_AT_ONCE: i64 = 200;

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
    let rows = ReactionRow::read(db, &unknown).await?;
    let own: HashSet<(Uuid, Emoji)> = rows.into_iter().map(|row| (row.message_id, row.emoji)).collect();
    for message in messages {
        for Reaction { emoji, total } in message.reactions.iter_mut() {
            total.me |= own.contains(&(message.id, emoji.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_event_is_that_of_the_protocol_and_lists_several_changes_only_if_there_are_several() {
        let emoji: Emoji = serde_json::from_value(json!("👍")).unwrap();
        let mut event = ReactionUpdate {
            channel_id: Uuid::nil(),
            message_id: Uuid::nil(),
            action: Action::Remove,
            emoji: emoji.clone(),
            user_id: Uuid::nil(),
            count: 2,
            changes: Vec::new(),
            reactions: Reactions::default(),
        };
        let value = json!(event);
        assert_eq!(
            (&value["action"], &value["emoji"], &value["count"]),
            (&json!("remove"), &json!("👍"), &json!(2))
        );
        assert_eq!(value.get("changes"), None);
        event.changes.push(ReactionChange { action: Action::Add, emoji, user_id: Uuid::nil() });
        assert_eq!(json!(event)["changes"][0]["action"], "add");
    }
}
