//! What a back end may do that has proved who it is: no user's permission is asked for.

use std::time::Duration;

use uuid::Uuid;

pub use super::backend_users::{Connected, Unread};
use super::budget::ConnectionBudget;
pub use super::budget::{AnswerSize, Reservation};
use super::mention;
use super::orders::{self, Done, Order, Subject};
use super::parts::Messaging;
use super::timed::timed;
use crate::auth::{ChannelInfo, IncomingWebhook, Membership, UserInfo};
use crate::clock::Micros;
use crate::models::append::{Authority, Mutation, Receipt, Scope};
use crate::models::message::{AuthorInfo, MessageDetail};
use crate::models::message_mention::Mentioned;
use crate::models::message_page::{self, MessagePage, Page};
use crate::models::message_read_state::baseline;
use crate::models::text::Mentions;
use crate::socket::Namespace;
use crate::{ImksError, ImksResult, error};

/// The operations of back ends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Backend {
    messaging: Messaging,
    namespace: Namespace,
}

impl Backend {
    /// Creates the operations on the users' sockets in `namespace`.
    pub fn new(messaging: &Messaging, namespace: &Namespace) -> Self {
        Self { messaging: messaging.clone(), namespace: namespace.clone() }
    }

    pub(super) fn messaging(&self) -> &Messaging {
        &self.messaging
    }

    /// Returns the namespace of the users' sockets.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns a channel that the core knows. Without one, nothing can be read or written.
    ///
    /// # Errors
    /// [`ImksError::NotFound`]; [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub async fn channel(&self, id: Uuid) -> ImksResult<BackendChannel> {
        let info = self.messaging.channels().get(self.messaging.core(), id).await?;
        let info = self.messaging.permissions().limited(info);
        Ok(BackendChannel { backend: self.clone(), info })
    }

    /// Returns a channel as the core has it now, without its policy.
    ///
    /// # Errors
    /// Those of [`Backend::channel`].
    pub async fn channel_now(&self, id: Uuid) -> ImksResult<ChannelInfo> {
        self.messaging.channels().forget(id);
        self.messaging.channels().get(self.messaging.core(), id).await
    }

    /// Returns the membership of a user in a channel, if there is one.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub async fn membership(&self, user: Uuid, channel: Uuid) -> ImksResult<Option<Membership>> {
        self.messaging.core().membership(user, channel).await
    }

    /// Marks everything in the channel as read for a new member, so that only later messages are unread.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub async fn start_reading(&self, membership: &Membership) -> ImksResult<()> {
        let channels = [(membership.channel_id, membership.joined_seq)];
        timed("baseline", baseline(self.messaging.db(), membership.user_id, &channels)).await
    }

    /// Has every node carry out an order.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] if the other nodes cannot be told; those of the order on this node.
    pub async fn order(&self, order: Order) -> ImksResult<Done> {
        orders::give(&self.messaging, &self.namespace, order).await
    }

    /// Returns up to when tokens are void that are withdrawn now.
    pub fn void_until(&self, subject: Subject) -> Micros {
        subject.void_until(self.messaging.tokens().lifetime_max())
    }

    /// Returns the incoming webhook that a token stands for, if there is one.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub async fn incoming_webhook(&self, token: &str) -> ImksResult<Option<IncomingWebhook>> {
        self.messaging.core().incoming_webhook(token).await
    }

    /// Returns a user that the core knows.
    ///
    /// # Errors
    /// [`ImksError::NotFound`]; [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub async fn user(&self, id: Uuid) -> ImksResult<UserInfo> {
        let user = self.messaging.core().users(&[id]).await?.into_iter().find(|user| user.id == id);
        user.ok_or(ImksError::NotFound("user"))
    }

    /// Takes a token for a piece of text from the author's bucket for this message.
    ///
    /// # Errors
    /// [`ImksError::RateLimited`].
    pub fn count_piece(&self, author: Uuid, message: Uuid) -> ImksResult<()> {
        self.messaging.rates().count_piece(author, message)
    }

    /// Reserves room for a large answer to `caller`, and waits while other answers hold it.
    ///
    /// # Errors
    /// [`ImksError::Overloaded`] when there is no room in time.
    pub async fn reserve(&self, caller: Uuid, size: AnswerSize) -> ImksResult<Reservation> {
        self.messaging.answers().reserve(&ConnectionBudget::default(), caller, size).await
    }
}

/// A channel that the core knows.
#[derive(Debug)]
pub struct BackendChannel {
    backend: Backend,
    info: ChannelInfo,
}

impl BackendChannel {
    /// Returns the id of the channel.
    pub fn id(&self) -> Uuid {
        self.info.id
    }

    /// Queues a mutation in the name of `actor` without waiting. Once committed, it is broadcast to the channel's
    /// room. Read-only channels and slow mode are for users.
    ///
    /// # Errors
    /// [`ImksError::FailedPrecondition`] for an archived channel, and those of
    /// [`Appender::submit`](crate::models::append::Appender::submit).
    pub fn submit<M: Mutation>(&self, actor: AuthorInfo, mutation: M) -> ImksResult<Receipt<M::Done>> {
        if self.info.archived {
            return Err(ImksError::FailedPrecondition(error::Precondition::ChannelArchived));
        }
        let (channel_id, slow_mode, authority) = (self.info.id, Duration::ZERO, Authority::Any);
        self.backend.messaging.appender().submit(Scope { channel_id, actor, slow_mode, authority }, mutation)
    }

    /// Returns the people behind the roles and `here` of a message, as they are now.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`] for roles with too many members, [`ImksError::Unavailable`] or
    /// [`ImksError::Timeout`] when the core does not answer.
    pub async fn mentioned(&self, mentions: &Mentions) -> ImksResult<Mentioned> {
        let Backend { messaging, namespace } = &self.backend;
        mention::resolve(messaging, namespace, self.info.id, mentions).await
    }

    /// Returns a page of history, which ends early when it fills the room.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub async fn page(&self, room: &Reservation, page: Page) -> ImksResult<MessagePage> {
        let page =
            message_page::page(self.backend.messaging.db(), NOBODY, self.info.id, page, room.answer_bytes());
        timed("history", page).await
    }

    /// Returns messages by id, and whether there are more than fit into the room. Ids of other channels are
    /// left out.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub async fn messages(&self, room: &Reservation, ids: &[Uuid]) -> ImksResult<(Vec<MessageDetail>, bool)> {
        let db = self.backend.messaging.db();
        timed("messages", message_page::get_many(db, NOBODY, self.info.id, ids, room.answer_bytes())).await
    }
}

/// The reader of a back end's pages: nothing is marked as its own.
const NOBODY: Uuid = Uuid::nil();
