//! The sending of a scheduled message by the node that holds its lease.

use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record};
use super::append::{LockedChannel, Mutation, References};
use super::message_scheduled::{DueMessage, ScheduledState};
use super::message_send::{NewMessage, Sent};
use super::rows::{Column, RowsSql};
use super::user_rev::{Need, TakenRev};
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// The sending of a scheduled message: appends it and stores that it is sent, in one transaction.
#[derive(Debug, Clone)]
pub struct SendScheduled {
    /// The scheduled message, with the lease of this node.
    pub due: DueMessage,
    /// The message to send.
    pub message: NewMessage,
}

impl Mutation for SendScheduled {
    type Done = Sent;

    fn refers(&self, references: &mut References<'_>) {
        references.rows::<Lease>(self.due.id);
        self.message.refers(references);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Sent> {
        let (id, at) = (self.due.id, channel.now());
        let lease = channel.rows::<Lease>(&id)?.first();
        if !lease.is_some_and(|lease| lease.is_held(self.due.attempts, at)) {
            return Err(ImksError::Unavailable("lease of a scheduled message"));
        }
        let sent = self.message.decide(channel)?;
        // The order matters: the first locks the author's stream and takes the number that the second stores.
        channel.insert(TakenRev { user: self.due.user_id, need: Need::Always });
        channel.insert(SentScheduled { id, attempts: self.due.attempts, message_id: sent.message.id, at });
        Ok(sent)
    }
}

/// The lease of a scheduled message.
#[derive(Debug, FromRow)]
struct Lease {
    id: Uuid,
    state: i32,
    attempts: i64,
    due_at: Option<Micros>,
}

impl Lease {
    /// Whether lease number `attempts` will last until a transaction that starts at `now` has ended.
    fn is_held(&self, attempts: i64, now: Micros) -> bool {
        self.state == ScheduledState::Dispatching as i32
            && self.attempts == attempts
            && self.due_at.is_some_and(|end| end > now + TRANSACTION_MAX)
    }
}

impl Lookup for Lease {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn select() -> &'static RowsSql {
        &LEASES
    }

    fn key_columns(ids: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(ids, |id| *id)]
    }
}

/// A scheduled message that is sent.
#[derive(Debug)]
struct SentScheduled {
    id: Uuid,
    /// The number of the lease.
    attempts: i64,
    message_id: Uuid,
    at: Micros,
}

impl Record for SentScheduled {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn insert() -> &'static RowsSql {
        &SENT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.id),
            Column::of(rows, |row| row.attempts),
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.at),
        ]
    }
}

/// More than the longest transaction of the append path, in microseconds.
const TRANSACTION_MAX: Micros = 5 * 1_000_000;
/// Reads leases by an update that changes nothing: it locks the rows, so that no other node takes a lease before the
/// message is stored as sent.
static LEASES: RowsSql = RowsSql::new(
    "wanted",
    "UPDATE message_scheduled SET state = state WHERE id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL) \
     RETURNING id, state, attempts, due_at",
);
static SENT: RowsSql = RowsSql::new(
    "id, attempts, message_id, at",
    "UPDATE message_scheduled SET state = 2, message_id = r.message_id, due_at = NULL, settled_at = r.at, \
       version = version + 1, user_rev = s.last_rev, updated_at = r.at FROM r, user_state s \
     WHERE message_scheduled.id = r.id AND s.user_id = message_scheduled.user_id \
       AND message_scheduled.state = 1 AND message_scheduled.attempts = r.attempts",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_only_by_its_own_number_and_while_a_transaction_still_fits_into_it() {
        let state = ScheduledState::Dispatching as i32;
        let lease = Lease { id: Uuid::nil(), state, attempts: 2, due_at: Some(10 * TRANSACTION_MAX) };
        assert!(lease.is_held(2, 0) && !lease.is_held(1, 0));
        assert!(!lease.is_held(2, 9 * TRANSACTION_MAX));
        let cancelled = ScheduledState::Cancelled as i32;
        assert!(!Lease { state: cancelled, ..lease }.is_held(2, 0));
    }
}
