//! A channel under its lock: what a mutation sees of it, and all it can do to it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::batch::{Appended, Batch};
use super::mutation::{Authority, Scope};
use super::records::{Lookup, Record, Removable, Write};
use super::told::{ChangeEvent, Payload, Told};
use crate::clock::Micros;
use crate::models::channel_change::{Change, ChangeKind};
use crate::models::message::{Message, MessageDetail, ReplyPreview, is_counted};
use crate::models::message_id;
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

/// What a mutation sees.
impl LockedChannel<'_> {
    /// Where it takes place, and in whose name.
    pub(crate) fn scope(&self) -> &Scope {
        self.scope
    }

    /// The time of the transaction. It may be earlier than what is stored.
    pub(crate) fn now(&self) -> Micros {
        self.batch.now
    }

    /// A message of this channel.
    ///
    /// # Errors
    /// [`ImksError::NotFound`].
    pub(crate) fn message(&self, id: Uuid) -> ImksResult<&Message> {
        let message = self.batch.message(id).filter(|row| row.channel_id == self.scope.channel_id);
        message.ok_or(ImksError::NotFound("message"))
    }

    /// A message of this channel that the actor may change.
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

    /// A message of this channel as everybody sees it.
    ///
    /// # Errors
    /// [`ImksError::NotFound`].
    pub(crate) fn detail(&self, id: Uuid) -> ImksResult<Arc<MessageDetail>> {
        let row = self.message(id)?;
        let quoted = row.reply_to_message_id.and_then(|id| self.batch.message(id));
        let reply_to = quoted.map(|row| Box::new(ReplyPreview::from(row)));
        Ok(Arc::new(row.clone().into_detail(reply_to)))
    }

    /// The messages that the batch has added to the channel so far, in order.
    pub(crate) fn appended(&self) -> impl DoubleEndedIterator<Item = &MessageDetail> {
        let all = self.batch.effects.appended.iter().map(|appended| &*appended.message);
        all.filter(|message| message.channel_id == self.scope.channel_id)
    }

    /// The message that the actor sent with this nonce in the last 24 hours; to be asked before any other check, so
    /// that a repeat gets the answer of the first send.
    ///
    /// # Errors
    /// [`ImksError::NonceConflict`] when that message had other content, [`ImksError::MessageDeleted`] when it is no
    /// more.
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
        self.detail(stored.message_id).map(Some).map_err(|_| ImksError::MessageDeleted)
    }

    /// Rows of a table of the feature.
    ///
    /// # Errors
    /// [`ImksError::Internal`] when they are not loaded; then they are, and the batch is decided again.
    pub(crate) fn rows<L: Lookup>(&mut self, key: &L::Key) -> ImksResult<&[L]> {
        if self.batch.loaded.rows.rows::<L>(key).is_none() {
            self.batch.loaded.rows.want::<L>(key.clone());
        }
        self.batch.loaded.rows.rows(key).ok_or(ImksError::Internal("rows are not loaded yet"))
    }

    /// What the batch has done to all rows of a table of the feature so far, in the order of the first write to each.
    pub(crate) fn writes<R: Record>(&self) -> impl Iterator<Item = (&R::Key, Write<&R>)> {
        self.batch.effects.records.writes()
    }

    /// What the batch has done to a row of the feature so far.
    pub(crate) fn write_of<R: Record>(&self, key: &R::Key) -> Option<Write<&R>> {
        self.batch.effects.records.write_of(key)
    }
}

/// What a mutation can do.
impl LockedChannel<'_> {
    /// Adds a message: gives `row` its number, id and time, remembers its nonce, and answers it as everybody sees it.
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
        let (cseq, mentions) = (row.cseq, row.mentions.clone());
        let message = Arc::new(row.into_detail(reply_to));
        if let Some(nonce) = &message.nonce {
            self.claim(nonce.clone());
        }
        self.batch.effects.appended.push(Appended {
            message: Arc::clone(&message),
            cseq,
            content_hash,
            mentions,
        });
        Ok(message)
    }

    /// Makes the next message the owner of this nonce, and takes it off a message that is too old to keep it.
    fn claim(&mut self, nonce: Nonce) {
        let key = (self.scope.channel_id, self.scope.actor.id, nonce);
        if let Some(old) = self.batch.loaded.nonces.get(&key) {
            self.batch.effects.released.push(old.message_id);
        }
        self.batch.nonces.insert(key, self.batch.effects.appended.len());
    }

    /// Changes a message, which gets the channel's next `rev`.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message that is not of this channel.
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
        let version = changed.row.version;
        change(&mut changed.row);
        changed.row.rev = rev;
        changed.rewritten |= changed.row.version != version;
        changed.last = last;
        Ok(&changed.row)
    }

    /// Changes a message as [`LockedChannel::change`] does; but where the last change of this message was of the
    /// same kind and is of this batch too, both are one change with one `rev`, and one event.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a message that is not of this channel.
    pub(crate) fn change_together(
        &mut self,
        id: Uuid,
        kind: ChangeKind,
        change: impl FnOnce(&mut Message),
    ) -> ImksResult<&Message> {
        match self.batch.changed.get(&id).copied() {
            Some(index) if self.batch.last_kind(index) == kind => {
                self.batch.steps += 1;
                let changed = &mut self.batch.effects.changed[index];
                change(&mut changed.row);
                Ok(&changed.row)
            }
            _ => self.change(id, kind, change),
        }
    }

    /// One live message less.
    ///
    /// # Errors
    /// [`ImksError::Internal`] for a channel that is not locked.
    pub(crate) fn uncount(&mut self) -> ImksResult<()> {
        self.batch.state_mut(self.scope.channel_id)?.message_count -= 1;
        Ok(())
    }

    /// Stores a row of the feature.
    pub(crate) fn insert<R: Record>(&mut self, row: R) {
        self.batch.steps += 1;
        self.batch.effects.records.insert(row);
    }

    /// Removes a row of the feature, if it is there.
    pub(crate) fn remove<R: Removable>(&mut self, key: R::Key) {
        self.batch.steps += 1;
        self.batch.effects.records.remove::<R>(key);
    }

    /// Tells the channel's members of something new.
    pub(crate) fn tell(&mut self, event: &'static str, payload: Arc<dyn Payload>) {
        self.batch.steps += 1;
        self.batch.effects.told.push(Told::new(self.scope.channel_id, event, payload));
    }

    /// Tells the channel's members of the change with this `rev`, which the payload gets beside a name for traces.
    /// It replaces what was to be told of that change before.
    pub(crate) fn tell_change<P>(&mut self, event: &'static str, rev: i64, payload: P)
    where
        P: Serialize + fmt::Debug + Send + Sync + 'static,
    {
        self.batch.steps += 1;
        let told = Told::new(self.scope.channel_id, event, Arc::new(ChangeEvent::new(payload, rev)));
        let next = self.batch.effects.told.len();
        let place = *self.batch.told_changes.entry((self.scope.channel_id, rev)).or_insert(next);
        match self.batch.effects.told.get_mut(place) {
            Some(earlier) => *earlier = told,
            None => self.batch.effects.told.push(told),
        }
    }
}

impl fmt::Debug for LockedChannel<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LockedChannel").field("scope", self.scope).finish_non_exhaustive()
    }
}

/// How long a nonce is remembered.
pub(crate) const NONCE_LIFETIME: Micros = 24 * 3_600 * 1_000_000;
