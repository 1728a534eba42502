//! Messages that a user is taken out of: as their author, in what they mention, among those who took part in a thread,
//! and in the copy of a message that they forward (docs/adr/0045).

use std::sync::Arc;

use uuid::Uuid;

use super::append::records::Record;
use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::legal_hold::Held;
use super::message::Forward;
use super::message_delete::delete_all;
use super::message_edit::MessageUpdate;
use super::message_row::Message;
use super::message_thread_state::ThreadState;
use super::rows::{Column, RowsSql};
use super::text::Mentions;
use crate::clock::Micros;
use crate::error::Precondition;
use crate::{ImksError, ImksResult};

/// The name that is shown where a user was.
pub const NOBODY: &str = "deleted user";

/// A user to take out of messages.
#[derive(Debug, Clone)]
pub(super) struct Unname {
    /// The user.
    pub user: Uuid,
    /// The id that takes the place of theirs.
    pub alias: Uuid,
    /// The messages to look at, without duplicates.
    pub message_ids: Vec<Uuid>,
    /// Whether what the user wrote goes too.
    pub erases: bool,
}

impl Mutation for Unname {
    type Done = ();

    fn refers(&self, references: &mut References<'_>) {
        self.message_ids.iter().for_each(|id| references.message(*id));
        references.rows::<Held>((self.user, references.scope().channel_id));
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<()> {
        let place = (self.user, channel.scope().channel_id);
        if !channel.rows::<Held>(&place)?.is_empty() {
            return Err(ImksError::FailedPrecondition(Precondition::OnHold));
        }
        let is_own = |row: &Message| row.author_id == self.user && row.deleted_at.is_none();
        let goes = |id: &Uuid| self.erases && channel.message(*id).is_ok_and(is_own);
        let (gone, kept): (Vec<Uuid>, Vec<Uuid>) = self.message_ids.iter().copied().partition(goes);
        delete_all(channel, &gone, |channel, id| {
            // One change with the deletion, of which everybody is told.
            let changes = self.changes(channel.message(id)?, channel.now())?;
            channel.change_together(id, ChangeKind::Delete, |row| changes.apply(row))?;
            self.record(channel, id)
        })?;
        kept.into_iter().try_for_each(|id| self.take_out(channel, id))
    }
}

impl Unname {
    fn take_out(&self, channel: &mut LockedChannel<'_>, id: Uuid) -> ImksResult<()> {
        // A message that is gone names nobody.
        let Ok(row) = channel.message(id) else { return Ok(()) };
        let changes = self.changes(row, channel.now())?;
        if changes.is_empty() {
            return Ok(());
        }
        channel.change(id, ChangeKind::Author, |row| changes.apply(row))?;
        self.record(channel, id)?;
        let message = channel.detail(id)?;
        let update = MessageUpdate { message: Arc::clone(&message), kind: "author" };
        channel.tell_change("message:updated", message.rev, update)
    }

    /// Stores what the statement for changed messages leaves out.
    fn record(&self, channel: &mut LockedChannel<'_>, id: Uuid) -> ImksResult<()> {
        let Message { author_id, author_username, nonce, forward_of, .. } = channel.message(id)?.clone();
        channel.insert(Unnamed { id, author_id, author_username, nonce, forward_of });
        Ok(())
    }

    fn changes(&self, row: &Message, now: Micros) -> ImksResult<Changes> {
        let mut mentions = Mentions::from_stored(row.mentions.as_deref())?;
        let mut thread = ThreadState::from_stored(row.thread.as_deref())?;
        let mut forward = Forward::from_stored(row.forward_of.as_deref())?;
        let is_mentioned = mentions.users.contains(&self.user);
        mentions.users.iter_mut().filter(|user| **user == self.user).for_each(|user| *user = self.alias);
        let took_part = thread.as_mut().is_some_and(|thread| thread.rename(self.user, self.alias));
        let forward = forward.as_mut().filter(|forward| forward.author.id == self.user);
        let forward = forward.map(|forward| {
            (forward.author.id, forward.author.username) = (self.alias, NOBODY.into());
            if self.erases {
                forward.hide(now);
            }
            forward.stored()
        });
        Ok(Changes {
            author: (row.author_id == self.user).then_some(self.alias),
            mentions: is_mentioned.then(|| mentions.stored()).transpose()?,
            thread: thread.filter(|_| took_part).map(|thread| thread.stored()).transpose()?,
            forward_of: forward.transpose()?,
        })
    }
}

/// What changes in a message; `None` stays as it is.
struct Changes {
    author: Option<Uuid>,
    mentions: Option<Option<String>>,
    thread: Option<String>,
    forward_of: Option<String>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        let Self { author, mentions, thread, forward_of } = self;
        author.is_none() && mentions.is_none() && thread.is_none() && forward_of.is_none()
    }

    fn apply(&self, row: &mut Message) {
        if let Some(alias) = self.author {
            (row.author_id, row.author_username, row.nonce) = (alias, NOBODY.into(), None);
        }
        if let Some(mentions) = &self.mentions {
            row.mentions.clone_from(mentions);
        }
        if self.thread.is_some() {
            row.thread.clone_from(&self.thread);
        }
        if self.forward_of.is_some() {
            row.forward_of.clone_from(&self.forward_of);
        }
    }
}

/// The columns of a message that otherwise never change.
#[derive(Debug)]
struct Unnamed {
    id: Uuid,
    author_id: Uuid,
    author_username: String,
    nonce: Option<String>,
    forward_of: Option<String>,
}

impl Record for Unnamed {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn insert() -> &'static RowsSql {
        &STORE
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.id),
            Column::of(rows, |row| row.author_id),
            Column::of(rows, |row| &row.author_username),
            Column::of(rows, |row| &row.nonce),
            Column::of(rows, |row| &row.forward_of),
        ]
    }
}

static STORE: RowsSql = RowsSql::new(
    "id, author_id, author_username, nonce, forward_of",
    "UPDATE message SET author_id = r.author_id, author_username = r.author_username, nonce = r.nonce, \
     forward_of = r.forward_of FROM r WHERE message.id = r.id",
);
