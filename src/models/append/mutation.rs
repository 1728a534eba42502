//! The interface between a feature and the append path: a [`Mutation`].

use std::fmt::Debug;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::channel::LockedChannel;
use super::records::{Lookup, Lookups};
use crate::models::message::AuthorInfo;
use crate::models::text::Nonce;
use crate::telemetry::trace::{self, Context, Span, SpanKind};
use crate::{ImksError, ImksResult};

/// A change of one channel: decided under the channel's lock, then written and committed with others.
pub trait Mutation: Debug + Send + 'static {
    /// The result that the submitter gets after the commit.
    type Done: Debug + Send + 'static;

    /// Names the rows that [`Mutation::decide`] reads, so that they are loaded for a whole batch at once.
    fn refers(&self, _references: &mut References<'_>) {}

    /// Decides the mutation, and makes its changes through `channel`. A refusal reverts the changes before
    /// it, but then the whole batch is decided again: check first, then change.
    ///
    /// Runs again when a batch is retried, so it must depend only on its arguments.
    ///
    /// # Errors
    /// The error for the submitter.
    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Self::Done>;
}

/// The channel of a mutation and its actor: the result of a permission check.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The channel to change.
    pub channel_id: Uuid,
    /// The user who changes it, as shown to others.
    pub actor: AuthorInfo,
    /// The least time between two messages of the actor in this channel; zero for no limit.
    pub slow_mode: Duration,
    /// The messages that the actor may change.
    pub authority: Authority,
}

/// The set of messages that an actor may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The messages that the actor wrote.
    Own,
    /// The messages of everybody, as a moderator.
    Any,
}

/// The collector of everything that the mutations of a batch refer to.
#[derive(Debug)]
pub struct References<'a> {
    scope: &'a Scope,
    wanted: &'a mut Wanted,
}

impl References<'_> {
    /// Returns the channel, and who changes it.
    pub(crate) fn scope(&self) -> &Scope {
        self.scope
    }

    /// Requests a message, for [`LockedChannel::message`].
    pub(crate) fn message(&mut self, id: Uuid) {
        self.wanted.messages.push(id);
    }

    /// Requests a nonce of the actor, for [`LockedChannel::sent_before`]. It is looked up once a mutation of the
    /// batch is refused, or the batch turns out to contain a repeated send.
    pub(crate) fn nonce(&mut self, nonce: &Nonce) {
        self.wanted.nonces.push((self.scope.channel_id, self.scope.actor.id, nonce.clone()));
    }

    /// Requests rows of a feature's table, for [`LockedChannel::rows`].
    pub(crate) fn rows<L: Lookup>(&mut self, key: L::Key) {
        self.wanted.rows.want::<L>(key);
    }
}

/// Everything that a batch refers to.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub messages: Vec<Uuid>,
    /// The channel, author and nonce of each send.
    pub nonces: Vec<(Uuid, Uuid, Nonce)>,
    pub rows: Lookups,
}

impl Wanted {
    pub(super) fn of(jobs: &[Job]) -> Self {
        let mut wanted = Self::default();
        for job in jobs {
            job.mutation.refers(&mut References { scope: &job.scope, wanted: &mut wanted });
        }
        wanted
    }
}

/// A mutation in a lane.
#[derive(Debug)]
pub(super) struct Job {
    pub scope: Scope,
    pub mutation: Box<dyn Pending>,
    pub since: Instant,
    /// The span of this write, if it is traced.
    pub trace: Option<Context>,
}

impl Job {
    pub(super) fn new<M: Mutation>(
        scope: Scope,
        mutation: M,
    ) -> (Self, oneshot::Receiver<ImksResult<M::Done>>) {
        let (reply, receipt) = oneshot::channel();
        let mut span = trace::child("append", SpanKind::Internal);
        let channel = scope.channel_id;
        span.iter_mut().for_each(|span| span.note("messaging.destination.name", channel.to_string()));
        let trace = span.as_ref().map(Span::context);
        let mutation = Box::new(Submitted { mutation, outcome: None, reply, span });
        (Self { scope, mutation, since: Instant::now(), trace }, receipt)
    }
}

/// A mutation with a waiting submitter, with its type erased.
pub(super) trait Pending: Debug + Send {
    fn refers(&self, references: &mut References<'_>);

    /// Decides again and keeps the outcome. Returns whether the mutation was refused.
    fn decide(&mut self, channel: &mut LockedChannel<'_>) -> bool;

    /// Sends the last decided outcome to the submitter: its changes are committed.
    fn answer(self: Box<Self>);

    /// Sends an error to the submitter: the mutation failed, or its outcome is unknown.
    fn fail(self: Box<Self>, error: ImksError);
}

#[derive(Debug)]
struct Submitted<M: Mutation> {
    mutation: M,
    outcome: Option<ImksResult<M::Done>>,
    reply: oneshot::Sender<ImksResult<M::Done>>,
    span: Option<Span>,
}

impl<M: Mutation> Submitted<M> {
    /// Ends the span, and sends the outcome.
    fn tell(mut self, outcome: ImksResult<M::Done>) {
        self.span.iter_mut().for_each(|span| span.outcome(&outcome));
        drop(self.span);
        // A submitter that has been dropped learns the outcome like every other client.
        let _ = self.reply.send(outcome);
    }
}

impl<M: Mutation> Pending for Submitted<M> {
    fn refers(&self, references: &mut References<'_>) {
        self.mutation.refers(references);
    }

    fn decide(&mut self, channel: &mut LockedChannel<'_>) -> bool {
        self.outcome.insert(self.mutation.decide(channel)).is_err()
    }

    fn answer(mut self: Box<Self>) {
        let outcome = self.outcome.take();
        self.tell(outcome.unwrap_or(Err(ImksError::Internal("committed before it was decided"))));
    }

    fn fail(self: Box<Self>, error: ImksError) {
        self.tell(Err(error));
    }
}
