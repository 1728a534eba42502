//! Channels with a proof of what the caller may do in them: the only way to read or write messages.
//!
//! [`Ctx`](super::ctx::Ctx) issues the proofs. Each offers the operations that its permission allows, and
//! fills in its own channel, author and slow mode:
//!
//! | proof | permission | from |
//! | --- | --- | --- |
//! | `Channel<View>` | `VIEW_CHANNEL` | [`Ctx::visible`](super::ctx::Ctx::visible) |
//! | `Channel<Read>` | `READ_HISTORY` | [`Ctx::readable`](super::ctx::Ctx::readable) |
//! | `Channel<Write>` | the one that was asked for | [`Ctx::writable`](super::ctx::Ctx::writable) |
//! | `Channel<Moderate>` | `MANAGE_MESSAGES`, for which the core is asked each time | [`Ctx::moderated`](super::ctx::Ctx::moderated) |

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::budget::Reservation;
use super::parts::Messaging;
use super::session::Session;
use super::timed::timed;
use super::turn::Turn;
use crate::ImksResult;
use crate::models::Db;
use crate::models::append::{Authority, Mutation, Receipt, Scope};
use crate::models::channel_state::{ChannelHead, heads};
use crate::models::message::{AuthorInfo, MessageDetail};
use crate::models::message_mention_inbox;
use crate::models::message_page::{self, MessagePage, Page};
use crate::models::message_read_state::{self, ReadState};
use crate::models::message_search::{self, Found, Query};
use crate::models::message_send::{NewMessage, Repeat, Sent};
use crate::models::message_sync::{self, ChannelSync, Cursor, Limits};
use crate::models::metrics::{STAGE_SECONDS, Stage};
use crate::telemetry::trace;

/// Proof that the caller may see the channel.
#[derive(Debug)]
pub enum View {}

/// Proof that the caller may read the messages of the channel.
#[derive(Debug)]
pub enum Read {}

/// Proof that the caller may write in the channel and change their own messages.
#[derive(Debug)]
pub enum Write {}

/// Proof that the caller may change the messages of others.
#[derive(Debug)]
pub enum Moderate {}

/// A channel in which the caller has the permission `P`.
///
/// Operations that need another permission do not compile:
///
/// ```
/// # use imks::testing::messaging::{Channel, Read, Turn, Write};
/// # use imks::testing::models::message_edit::EditMessage;
/// fn write(channel: Channel<Write>, turn: Turn, edit: EditMessage) {
///     let _ = channel.submit(turn, edit);
/// }
/// ```
///
/// ```compile_fail
/// # use imks::testing::messaging::{Channel, Read, Turn, Write};
/// # use imks::testing::models::message_edit::EditMessage;
/// fn write(channel: Channel<Read>, turn: Turn, edit: EditMessage) {
///     let _ = channel.submit(turn, edit);
/// }
/// ```
pub struct Channel<P> {
    messaging: Messaging,
    session: Arc<Session>,
    id: Uuid,
    slow_mode: Duration,
    /// When the request arrived.
    since: Instant,
    proof: PhantomData<P>,
}

impl<P> Channel<P> {
    /// Creates a proof. Only for [`Ctx`](super::ctx::Ctx), which has checked the permission.
    pub(super) fn new(
        messaging: &Messaging,
        session: &Arc<Session>,
        id: Uuid,
        slow_mode: Duration,
        since: Instant,
    ) -> Self {
        let (messaging, session) = (messaging.clone(), session.clone());
        Self { messaging, session, id, slow_mode, since, proof: PhantomData }
    }

    /// Returns the id of the channel.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the database, for queries about this channel that the permission allows.
    pub(super) fn db(&self) -> &Db {
        self.messaging.db()
    }
}

impl Channel<View> {
    /// Queues the question whether the caller has sent this message before. It changes nothing.
    pub fn submit_repeat(&self, turn: Turn, message: NewMessage) -> ImksResult<Receipt<Sent>> {
        self.put(turn, Authority::Own, Repeat(message))
    }

    /// Returns the newest numbers of channels with one query, in their order.
    pub async fn heads(channels: &[Self]) -> ImksResult<Vec<ChannelHead>> {
        let Some(Self { messaging, .. }) = channels.first() else { return Ok(Vec::new()) };
        let ids: Vec<Uuid> = channels.iter().map(|channel| channel.id).collect();
        let read = || timed("heads", heads(messaging.db(), &ids));
        let heads = read().await?;
        match messaging.relay().is_none_or(|relay| relay.baseline(&heads)) {
            true => Ok(heads),
            false => read().await,
        }
    }

    /// Moves the caller's read position forward. Returns it, and whether it moved.
    pub async fn mark_read(&self, seq: i64) -> ImksResult<(ReadState, bool)> {
        let user = self.session.identity().user_id;
        timed("read_mark", message_read_state::mark(self.messaging.db(), user, self.id, seq)).await
    }
}

impl Channel<Read> {
    /// Returns a page of history, which ends early when it fills the room.
    pub async fn page(&self, room: &Reservation, page: Page) -> ImksResult<MessagePage> {
        let (db, reader) = (self.messaging.db(), self.session.identity().user_id);
        timed("history", message_page::page(db, reader, self.id, page, room.answer_bytes())).await
    }

    /// Returns messages by id, and whether there are more than fit into the room. Ids of other channels are
    /// left out.
    pub async fn messages(&self, room: &Reservation, ids: &[Uuid]) -> ImksResult<(Vec<MessageDetail>, bool)> {
        let (db, reader) = (self.messaging.db(), self.session.identity().user_id);
        timed("messages", message_page::get_many(db, reader, self.id, ids, room.answer_bytes())).await
    }

    /// Returns the first of these messages in this order, until they fill the room, and how many of the ids that covers:
    /// at least one.
    pub async fn first_messages(
        &self,
        room: &Reservation,
        ids: &[Uuid],
    ) -> ImksResult<(Vec<MessageDetail>, usize)> {
        let (db, reader) = (self.messaging.db(), self.session.identity().user_id);
        timed("messages", message_page::get_first(db, reader, self.id, ids, room.answer_bytes())).await
    }
}

impl Channel<Write> {
    /// Queues a mutation in its lane without waiting. Once committed, it is broadcast to the channel's room.
    pub fn submit<M: Mutation>(&self, turn: Turn, mutation: M) -> ImksResult<Receipt<M::Done>> {
        self.put(turn, Authority::Own, mutation)
    }
}

impl Channel<Moderate> {
    /// Queues a mutation of any author's message in its lane without waiting.
    pub fn submit<M: Mutation>(&self, turn: Turn, mutation: M) -> ImksResult<Receipt<M::Done>> {
        self.put(turn, Authority::Any, mutation)
    }
}

impl<P> Channel<P> {
    fn put<M: Mutation>(
        &self,
        turn: Turn,
        authority: Authority,
        mutation: M,
    ) -> ImksResult<Receipt<M::Done>> {
        let identity = self.session.identity();
        let actor = AuthorInfo { id: identity.user_id, username: identity.username.as_ref().into() };
        let scope = Scope { channel_id: self.id, actor, slow_mode: self.slow_mode, authority };
        let submitted = self.messaging.appender().submit(scope, mutation);
        drop(turn);
        // What found no room goes no further, and would only make this stage look quicker than the next ones.
        if submitted.is_ok() {
            let trace = trace::current().map(|context| context.trace_id());
            STAGE_SECONDS.of(Stage::Receive).record_traced(self.since.elapsed(), trace);
        }
        submitted
    }
}

impl<P> fmt::Debug for Channel<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Channel").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The channels, among those requested, that the caller may read.
#[derive(Debug)]
pub struct ReadableChannels {
    messaging: Messaging,
    user: Uuid,
    ids: HashSet<Uuid>,
}

impl ReadableChannels {
    /// Creates the proof. Only for [`Ctx`](super::ctx::Ctx), which has checked each permission.
    pub(super) fn new(messaging: &Messaging, user: Uuid, ids: HashSet<Uuid>) -> Self {
        Self { messaging: messaging.clone(), user, ids }
    }

    /// Returns what was missed since `cursors`, and whether some channels were left out because the answer is
    /// full. Cursors of other channels are ignored.
    pub async fn sync(
        &self,
        _room: &Reservation,
        cursors: &[Cursor],
        limits: Limits,
    ) -> ImksResult<(Vec<ChannelSync>, bool)> {
        let readable = |cursor: &&Cursor| self.ids.contains(&cursor.channel_id);
        let cursors: Vec<Cursor> = cursors.iter().filter(readable).copied().collect();
        timed("sync", message_sync::sync(self.messaging.db(), self.user, &cursors, limits)).await
    }

    /// Returns a page of the caller's mention inbox.
    pub async fn mentions(
        &self,
        room: &Reservation,
        before: Option<Uuid>,
        limit: u32,
    ) -> ImksResult<message_mention_inbox::Inbox> {
        let channels: Vec<Uuid> = self.ids.iter().copied().collect();
        let (db, bytes) = (self.messaging.db(), room.answer_bytes());
        timed("mentions", message_mention_inbox::inbox(db, self.user, &channels, before, limit, bytes)).await
    }

    /// Returns messages of these channels that a search finds, below `cursor`, as many as the room has space for.
    pub async fn search(
        &self,
        room: &Reservation,
        query: &Query,
        cursor: Option<Uuid>,
        limit: usize,
    ) -> ImksResult<Found> {
        let channels: Vec<Uuid> = self.ids.iter().copied().collect();
        let page = message_search::Page { cursor, limit, bytes: room.answer_bytes() };
        let (db, now) = (self.messaging.db(), crate::clock::now_micros());
        timed("search", message_search::find(db, self.user, &channels, query, page, now)).await
    }

    /// Returns how far the caller has read in these channels. Channels without this proof are left out.
    pub async fn read_states(&self, channels: &[Uuid]) -> ImksResult<Vec<ReadState>> {
        let channels: Vec<Uuid> = channels.iter().filter(|id| self.ids.contains(id)).copied().collect();
        timed("unread", message_read_state::unread(self.messaging.db(), self.user, &channels)).await
    }
}
