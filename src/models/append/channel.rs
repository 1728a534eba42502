//! A channel under its lock, as a mutation reads and changes it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::batch::Batch;
use super::mutation::{Authority, Scope};
use super::records::{Lookup, Record, Removable, Write};
use super::told::{ChangeEvent, Payload, Told};
use crate::clock::Micros;
use crate::models::channel_change::{Change, ChangeKind};
use crate::models::message::{MessageDetail, ReplyPreview, is_counted};
use crate::models::message_id;
use crate::models::message_row::{Appended, BY_IDS, Message};
use crate::models::rows::{Column, RowsSql};
use crate::models::text::Nonce;
use crate::{ImksError, ImksResult};

/// A channel while its lock is held, with the changes that the batch has made so far.
pub struct LockedChannel<'a> {
    batch: &'a mut Batch,
    scope: &'a Scope,
}

impl<'a> LockedChannel<'a> {
    pub(super) fn new(batch: &'a mut Batch, scope: &'a Scope) -> Self {
        Self { batch, scope }
    }
}

/// The operations that read.
impl LockedChannel<'_> {
    /// Returns the channel, and who changes it.
    pub(crate) fn scope(&self) -> &Scope {
        self.scope
    }

    /// Returns the time of the transaction, which may be earlier than stored times.
    pub(crate) fn now(&self) -> Micros {
        self.batch.now
    }

    /// Returns a message of this channel.
    ///
    /// # Errors
    /// [`ImksError::NotFound`].
    pub(crate) fn message(&self, id: Uuid) -> ImksResult<&Message> {
        let message = self.batch.message(id).filter(|row| row.channel_id == self.scope.channel_id);
        message.ok_or(ImksError::NotFound("message"))
    }

    /// Returns a message of this channel that [`References::message`](super::References::message) could not name
    /// before. Call it before any change.
    ///
    /// # Errors
    /// [`ImksError::NotFound`], and [`ImksError::Internal`] for a message that is not loaded, which is then loaded
    /// for another decision.
    pub(crate) fn fetch_message(&mut self, id: Uuid) -> ImksResult<&Message> {
        if self.batch.message(id).is_none() {
            let found = self.rows::<Message>(&id)?.first().cloned();
            self.batch.loaded.messages.extend(found.map(|row| (id, row)));
        }
        self.message(id)
    }

    /// Returns a message of this channel that the actor may change.
    ///
    /// # Errors
    /// [`ImksError::NotFound`], [`ImksError::NotAuthor`].
    pub(crate) fn own_message(&self, id: Uuid) -> ImksResult<&Message> {
        let row = self.message(id)?;
        match self.scope.authority {
            Authority::Own if row.author_id != self.scope.actor.id => Err(ImksError::NotAuthor),
            Authority::Own | Authority::Any => Ok(row),
        }
    }

    /// Returns a message of this channel as everybody sees it.
    ///
    /// # Errors
    /// [`ImksError::NotFound`].
    pub(crate) fn detail(&self, id: Uuid) -> ImksResult<Arc<MessageDetail>> {
        let row = self.message(id)?;
        let quoted = row.reply_to_message_id.and_then(|id| self.batch.message(id));
        let reply_to = quoted.map(|row| Box::new(ReplyPreview::from(row)));
        let mut detail = row.clone().into_detail(reply_to)?;
        if let Some(forward) = detail.forward_of.as_mut() {
            match self.batch.message(forward.id).map(|row| row.deleted_at) {
                Some(None) => {}
                Some(Some(deleted_at)) => forward.hide(deleted_at),
                None => forward.hide_gone(),
            }
        }
        Ok(Arc::new(detail))
    }

    /// Returns the number of messages of this channel so far that count as unread.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn counted(&self) -> ImksResult<i64> {
        Ok(self.batch.state(self.scope.channel_id)?.last_cseq)
    }

    /// Returns the number of the channel's last message so far.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn last_seq(&self) -> ImksResult<i64> {
        Ok(self.batch.state(self.scope.channel_id)?.last_seq)
    }

    /// Returns the message that the actor sent with this nonce in the last 24 hours. Call it before any other
    /// check, so that a repeated send gets the answer of the first one.
    ///
    /// # Errors
    /// [`ImksError::NonceConflict`] when that message had other content, [`ImksError::MessageDeleted`] when
    /// it has been deleted.
    pub(crate) fn sent_before(
        &self,
        nonce: &Nonce,
        content_hash: i64,
    ) -> ImksResult<Option<Arc<MessageDetail>>> {
        let key = (self.scope.channel_id, self.scope.actor.id, nonce.clone());
        if let Some(index) = self.batch.nonces.get(&key) {
            let first = &self.batch.effects.appended[*index];
            if first.content_hash != content_hash {
                return Err(ImksError::NonceConflict);
            }
            return Ok(Some(Arc::clone(&first.message)));
        }
        let Some(stored) = self.batch.loaded.nonces.get(&key) else { return Ok(None) };
        if stored.created_at < self.now() - NONCE_LIFETIME {
            return Ok(None);
        }
        if stored.content_hash != content_hash {
            return Err(ImksError::NonceConflict);
        }
        match self.detail(stored.message_id) {
            Err(ImksError::NotFound(_)) => Err(ImksError::MessageDeleted),
            found => found.map(Some),
        }
    }

    /// Returns rows of a feature's table.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for rows that are not loaded, which are then loaded for another decision.
    pub(crate) fn rows<L: Lookup>(&mut self, key: &L::Key) -> ImksResult<&[L]> {
        if self.batch.loaded.rows.rows::<L>(key).is_none() {
            self.batch.loaded.rows.want::<L>(key.clone());
        }
        self.batch.loaded.rows.rows(key).ok_or(ImksError::Internal("rows are not loaded yet"))
    }

    /// Returns what the batch has done to all rows of a feature's table so far, in the order of the first
    /// write to each.
    pub(crate) fn writes<R: Record>(&self) -> impl Iterator<Item = (&R::Key, Write<&R>)> {
        self.batch.effects.records.writes()
    }

    /// Returns what the batch has done to a row of a feature's table so far.
    pub(crate) fn write_of<R: Record>(&self, key: &R::Key) -> Option<Write<&R>> {
        self.batch.effects.records.write_of(key)
    }
}

/// The operations that change.
impl LockedChannel<'_> {
    /// Appends a message: assigns its number, id and time to `row`, records its nonce, and returns it as
    /// everybody sees it.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn append(
        &mut self,
        mut row: Message,
        content_hash: i64,
        reply_to: Option<Box<ReplyPreview>>,
    ) -> ImksResult<Arc<MessageDetail>> {
        let now = self.now();
        let random = self.batch.random();
        let state = self.batch.state_mut(self.scope.channel_id)?;
        state.last_seq += 1;
        state.last_cseq += i64::from(is_counted(row.thread_id, row.flags));
        row.created_at = now.max(state.last_ms.saturating_mul(1_000));
        state.last_ms = row.created_at / 1_000;
        row.id = message_id::new(state.last_ms, state.last_seq, random);
        row.channel_id = self.scope.channel_id;
        (row.seq, row.cseq) = (state.last_seq, state.last_cseq);
        state.last_message_id = Some(row.id);
        state.last_message_at = Some(row.created_at);
        state.message_count += 1;
        let (cseq, mentions, forward_of) = (row.cseq, row.mentions.clone(), row.forward_of.clone());
        let (attachments, embeds) = (row.attachments.clone(), row.embeds.clone());
        let message = Arc::new(row.into_detail(reply_to)?);
        if let Some(nonce) = &message.nonce {
            self.claim(nonce.clone());
        }
        self.batch.effects.appended.push(Appended {
            message: Arc::clone(&message),
            cseq,
            content_hash,
            mentions,
            attachments,
            embeds,
            forward_of,
        });
        Ok(message)
    }

    /// Assigns a nonce to the next message, and takes it from an earlier message whose claim has expired.
    fn claim(&mut self, nonce: Nonce) {
        let key = (self.scope.channel_id, self.scope.actor.id, nonce);
        if let Some(old) = self.batch.loaded.nonces.get(&key) {
            self.batch.effects.released.push(old.message_id);
        }
        self.batch.nonces.insert(key, self.batch.effects.appended.len());
    }

    /// Changes a message, and gives it the channel's next `rev`.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message of another channel.
    pub(crate) fn change(
        &mut self,
        id: Uuid,
        kind: ChangeKind,
        change: impl FnOnce(&mut Message),
    ) -> ImksResult<&Message> {
        let at = self.now();
        let seq = self.message(id)?.seq;
        let actor_id = self.scope.actor.id;
        let state = self.batch.state_mut(self.scope.channel_id)?;
        state.last_rev += 1;
        let (channel_id, rev) = (state.channel_id, state.last_rev);
        let last = self.batch.effects.changes.len();
        self.batch.effects.changes.push(Change { channel_id, rev, kind, message_id: id, seq, actor_id, at });
        let changed = self.batch.changed_mut(id)?;
        let text = (changed.row.version, changed.row.stream);
        change(&mut changed.row);
        changed.row.rev = rev;
        changed.stored = true;
        // What a stream added is written with its end.
        changed.rewritten |= (changed.row.version, changed.row.stream) != text;
        changed.last = Some(last);
        Ok(&changed.row)
    }

    /// Changes a message like [`LockedChannel::change`]. If the message's last change is of the same kind and
    /// in the same batch, both become one change with one `rev` and one event.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message of another channel.
    pub(crate) fn change_together(
        &mut self,
        id: Uuid,
        kind: ChangeKind,
        change: impl FnOnce(&mut Message),
    ) -> ImksResult<&Message> {
        match self.batch.changed.get(&id).copied() {
            Some(index) if self.batch.last_kind(index) == Some(kind) => {
                self.batch.steps += 1;
                let changed = &mut self.batch.effects.changed[index];
                change(&mut changed.row);
                Ok(&changed.row)
            }
            _ => self.change(id, kind, change),
        }
    }

    /// Leaves out who made the last change to a message in this batch.
    pub(crate) fn unname_change(&mut self, id: Uuid) {
        let effects = &mut self.batch.effects;
        let changed = self.batch.changed.get(&id).and_then(|index| effects.changed.get(*index));
        if let Some(change) =
            changed.and_then(|changed| changed.last).and_then(|last| effects.changes.get_mut(last))
        {
            change.actor_id = Uuid::nil();
        }
    }

    /// Adds to the text of a message. Returns whether the batch writes the text to the row in any case, with what is
    /// new. Otherwise the table of a feature keeps that, until the row is [rewritten](LockedChannel::rewrite).
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message of another channel.
    pub(crate) fn extend(&mut self, id: Uuid, text: &str) -> ImksResult<bool> {
        self.message(id)?;
        self.batch.steps += 1;
        let changed = self.batch.changed_mut(id)?;
        changed.row.body.push_str(text);
        Ok(changed.rewritten)
    }

    /// Writes the text of a message to its row, which is no change that others are told of.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message of another channel.
    pub(crate) fn rewrite(&mut self, id: Uuid) -> ImksResult<()> {
        self.message(id)?;
        self.batch.steps += 1;
        let changed = self.batch.changed_mut(id)?;
        (changed.stored, changed.rewritten) = (true, true);
        Ok(())
    }

    /// Decrements the number of messages that are not deleted.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn uncount(&mut self) -> ImksResult<()> {
        self.batch.state_mut(self.scope.channel_id)?.message_count -= 1;
        Ok(())
    }

    /// Stores a row in a feature's table.
    pub(crate) fn insert<R: Record>(&mut self, row: R) {
        self.batch.steps += 1;
        self.batch.effects.records.insert(row);
    }

    /// Removes a row from a feature's table, if it exists.
    pub(crate) fn remove<R: Removable>(&mut self, key: R::Key) {
        self.batch.steps += 1;
        self.batch.effects.records.remove::<R>(key);
    }

    /// Sends the event of the message that was appended last to the channel's members after the commit.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn tell(&mut self, event: &'static str, payload: Arc<dyn Payload>) -> ImksResult<()> {
        let head = self.head()?;
        self.batch.effects.told.push(Told::new(self.scope.channel_id, head, event, payload));
        Ok(())
    }

    /// Sends an event without a number to the channel's members after the commit. Clients that cannot take it right
    /// then miss it.
    pub(crate) fn tell_in_passing(&mut self, event: &'static str, payload: Arc<dyn Payload>) {
        self.batch.steps += 1;
        self.batch.effects.told.push(Told::in_passing(self.scope.channel_id, event, payload));
    }

    fn head(&mut self) -> ImksResult<(i64, i64)> {
        let state = self.batch.state_mut(self.scope.channel_id)?;
        Ok((state.last_seq, state.last_rev))
    }

    /// Sends the event of the change with this `rev` to the channel's members after the commit. The payload
    /// gets the `rev` and a name for traces. Replaces the event that was to be sent for this change before.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn tell_change<P>(&mut self, event: &'static str, rev: i64, payload: P) -> ImksResult<()>
    where
        P: Serialize + fmt::Debug + Send + Sync + 'static,
    {
        self.tell_about(event, rev, None, payload)
    }

    /// Does what [`LockedChannel::tell_change`] does for an event that tells the whole state of `state_of`.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn tell_state<P>(
        &mut self,
        event: &'static str,
        rev: i64,
        state_of: Uuid,
        payload: P,
    ) -> ImksResult<()>
    where
        P: Serialize + fmt::Debug + Send + Sync + 'static,
    {
        self.tell_about(event, rev, Some(state_of), payload)
    }

    fn tell_about<P>(
        &mut self,
        event: &'static str,
        rev: i64,
        state_of: Option<Uuid>,
        payload: P,
    ) -> ImksResult<()>
    where
        P: Serialize + fmt::Debug + Send + Sync + 'static,
    {
        let (channel_id, head) = (self.scope.channel_id, self.head()?);
        let payload = Arc::new(ChangeEvent::new(payload, rev));
        let next = self.batch.effects.told.len();
        let place = *self.batch.told_changes.entry((channel_id, rev)).or_insert(next);
        match self.batch.effects.told.get_mut(place) {
            Some(earlier) => earlier.replace(event, payload, state_of),
            None => {
                let told = Told::new(channel_id, head, event, payload).with_state_of(state_of);
                self.batch.effects.told.push(told);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LockedChannel<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LockedChannel").field("scope", self.scope).finish_non_exhaustive()
    }
}

/// Messages that a mutation could not name before.
impl Lookup for Message {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn select() -> &'static RowsSql {
        &BY_IDS
    }

    fn key_columns(ids: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(ids, |id| *id)]
    }
}

/// How long a nonce is kept.
pub(crate) const NONCE_LIFETIME: Micros = 24 * 3_600 * 1_000_000;
