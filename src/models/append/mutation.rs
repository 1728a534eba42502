//! What a feature brings to the append path: a [`Mutation`].

use std::fmt::Debug;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::channel::LockedChannel;
use super::records::{Lookup, Lookups};
use crate::models::message::AuthorInfo;
use crate::models::text::Nonce;
use crate::{ImksError, ImksResult};

/// A change of one channel: decided under the channel's lock, then written and committed together with others.
pub trait Mutation: Debug + Send + 'static {
    /// What its submitter learns after the commit.
    type Done: Debug + Send + 'static;

    /// Names what [`Mutation::decide`] is going to look at, so that it is loaded for a whole batch at once.
    fn refers(&self, _references: &mut References<'_>) {}

    /// Decides, and makes its changes through `channel`. A refusal takes back what was changed before it, at the
    /// price of deciding the batch again: check first, change then.
    ///
    /// Runs again when a batch is tried again, so it depends on nothing but its arguments.
    ///
    /// # Errors
    /// Whatever the submitter is to be told.
    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Self::Done>;
}

/// Where a mutation takes place, and in whose name: the answer of a permission check.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The channel that is changed.
    pub channel_id: Uuid,
    /// Who changes it, as shown to others.
    pub actor: AuthorInfo,
    /// Time that must lie between two messages of the actor here; zero for no limit.
    pub slow_mode: Duration,
    /// Whose messages the actor may change.
    pub authority: Authority,
}

/// Whose messages somebody may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Those they wrote.
    Own,
    /// Those of everybody: a moderator.
    Any,
}

/// Collects what the mutations of a batch refer to.
#[derive(Debug)]
pub struct References<'a> {
    scope: &'a Scope,
    wanted: &'a mut Wanted,
}

impl References<'_> {
    /// Where, and who.
    pub(crate) fn scope(&self) -> &Scope {
        self.scope
    }

    /// A message, for [`LockedChannel::message`].
    pub(crate) fn message(&mut self, id: Uuid) {
        self.wanted.messages.push(id);
    }

    /// A nonce of the actor, for [`LockedChannel::sent_before`]. It is looked up when `always`, or when the batch
    /// turns out to repeat something.
    pub(crate) fn nonce(&mut self, nonce: &Nonce, always: bool) {
        self.wanted.nonces.push((self.scope.channel_id, self.scope.actor.id, nonce.clone()));
        self.wanted.nonces_matter |= always;
    }

    /// Rows of a table of the feature, for [`LockedChannel::rows`].
    pub(crate) fn rows<L: Lookup>(&mut self, key: L::Key) {
        self.wanted.rows.want::<L>(key);
    }
}

/// What a batch refers to.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub messages: Vec<Uuid>,
    /// Channel, author and nonce of what is sent.
    pub nonces: Vec<(Uuid, Uuid, Nonce)>,
    /// Look for the nonces before anything is inserted.
    pub nonces_matter: bool,
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

/// A mutation on its way through a lane.
#[derive(Debug)]
pub(super) struct Job {
    pub scope: Scope,
    pub mutation: Box<dyn Pending>,
    pub since: Instant,
}

impl Job {
    pub(super) fn new<M: Mutation>(
        scope: Scope,
        mutation: M,
    ) -> (Self, oneshot::Receiver<ImksResult<M::Done>>) {
        let (reply, receipt) = oneshot::channel();
        let mutation = Box::new(Submitted { mutation, outcome: None, reply });
        (Self { scope, mutation, since: Instant::now() }, receipt)
    }
}

/// A mutation whose submitter waits, without its type.
pub(super) trait Pending: Debug + Send {
    fn refers(&self, references: &mut References<'_>);

    /// Decides anew, and keeps the outcome. Says whether it was refused.
    fn decide(&mut self, channel: &mut LockedChannel<'_>) -> bool;

    /// Tells the submitter the outcome that was decided last: its changes are committed.
    fn answer(self: Box<Self>);

    /// Tells the submitter that nothing, or nobody knows what, came of it.
    fn fail(self: Box<Self>, error: ImksError);
}

#[derive(Debug)]
struct Submitted<M: Mutation> {
    mutation: M,
    outcome: Option<ImksResult<M::Done>>,
    reply: oneshot::Sender<ImksResult<M::Done>>,
}

impl<M: Mutation> Pending for Submitted<M> {
    fn refers(&self, references: &mut References<'_>) {
        self.mutation.refers(references);
    }

    fn decide(&mut self, channel: &mut LockedChannel<'_>) -> bool {
        self.outcome.insert(self.mutation.decide(channel)).is_err()
    }

    fn answer(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or(Err(ImksError::Internal("committed before it was decided")));
        // Whoever went away meanwhile learns of it like everybody else.
        let _ = self.reply.send(outcome);
    }

    fn fail(self: Box<Self>, error: ImksError) {
        let _ = self.reply.send(Err(error));
    }
}
