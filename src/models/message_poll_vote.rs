//! Votes in polls: one row per poll and voter, and the mutations that vote and close.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Write};
use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::{Db, on};
use super::message::MessageDetail;
use super::message_poll::{Choices, NewPoll, Poll};
use super::message_row::Message;
use super::rows::{Column, RowsSql};
use crate::clock::Micros;
use crate::error::Precondition;
use crate::secret::pseudonym;
use crate::{ImksError, ImksResult};

/// What a voter chooses: replaces what they chose before; nothing takes the vote back.
#[derive(Debug, Clone)]
pub struct Vote {
    /// The message of the poll.
    pub message_id: Uuid,
    /// The ids of the chosen answers.
    pub option_ids: Vec<usize>,
}

/// A poll to close.
#[derive(Debug, Clone, Copy)]
pub struct ClosePoll {
    /// The message of the poll.
    pub message_id: Uuid,
    /// Whether to close it only if its time is over.
    pub if_over: bool,
}

/// A poll after a vote or its end: the answer to `poll:vote` and `poll:close`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Polled {
    /// The message of the poll.
    pub message_id: Uuid,
    /// The number of the message's last change.
    pub rev: i64,
    /// The poll, with what the caller chose.
    pub poll: Poll,
}

impl Mutation for Vote {
    type Done = Polled;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
        references.rows::<PollRow>(self.message_id);
        let user = references.scope().actor.id;
        references.rows::<VoteRow>((self.message_id, user));
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Polled> {
        let row = channel.message(self.message_id)?;
        let (mut poll, rev) = (live_poll(row)?, row.rev);
        let (choices, is_over) = (poll.choices(&self.option_ids)?, poll.is_over(channel.now()));
        let closed = ImksError::FailedPrecondition(Precondition::PollClosed);
        // Nobody knows any more who chose what in an anonymous poll.
        if is_over && poll.anonymous {
            return Err(closed);
        }
        let voter = self.voter(channel, &poll)?;
        let before = self.stored(channel, voter)?;
        if before == choices {
            poll.mark_own(choices);
            return Ok(Polled { message_id: self.message_id, rev, poll });
        }
        if is_over {
            return Err(closed);
        }
        if before.0 != 0 && !poll.allow_change {
            return Err(ImksError::FailedPrecondition(Precondition::VoteFinal));
        }
        poll.count(before, choices);
        // With the time, the log of changes would tell who it was.
        let (message_id, voted_at) = (self.message_id, if poll.anonymous { 0 } else { channel.now() });
        channel.insert(VoteRow { message_id, voter_id: voter, choices: choices.0, voted_at });
        let mut done = store(channel, message_id, poll)?;
        done.poll.mark_own(choices);
        Ok(done)
    }
}

impl Vote {
    /// Returns the id under which the actor votes: a keyed hash in an anonymous poll.
    fn voter(&self, channel: &mut LockedChannel<'_>, poll: &Poll) -> ImksResult<Uuid> {
        let user = channel.scope().actor.id;
        if !poll.anonymous {
            return Ok(user);
        }
        let started = channel.write_of::<PollRow>(&self.message_id);
        let secret = match started {
            Some(Write::Stored(row)) => row.secret,
            _ => channel.rows::<PollRow>(&self.message_id)?.first().and_then(|row| row.secret),
        };
        pseudonym(secret.ok_or(ImksError::Internal("an open poll without a secret"))?, user)
    }

    fn stored(&self, channel: &mut LockedChannel<'_>, voter: Uuid) -> ImksResult<Choices> {
        let key = (self.message_id, voter);
        if let Some(Write::Stored(row)) = channel.write_of::<VoteRow>(&key) {
            return Ok(Choices(row.choices));
        }
        Ok(channel.rows::<VoteRow>(&key)?.first().map(|row| Choices(row.choices)).unwrap_or_default())
    }
}

impl Mutation for ClosePoll {
    type Done = Polled;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Polled> {
        let row = channel.own_message(self.message_id)?;
        let (mut poll, rev, now) = (live_poll(row)?, row.rev, channel.now());
        if poll.closed_at.is_some() || self.if_over && !poll.is_over(now) {
            return Ok(Polled { message_id: self.message_id, rev, poll });
        }
        poll.closed_at = Some(now);
        end(channel, self.message_id);
        store(channel, self.message_id, poll)
    }
}

/// Returns the poll of a message that is not deleted.
fn live_poll(row: &Message) -> ImksResult<Poll> {
    if row.deleted_at.is_some() {
        return Err(ImksError::MessageDeleted);
    }
    Poll::from_stored(row.poll.as_deref())?.map(|poll| *poll).ok_or(ImksError::NotFound("poll"))
}

/// Writes the new state of a poll and broadcasts it.
fn store(channel: &mut LockedChannel<'_>, message_id: Uuid, poll: Poll) -> ImksResult<Polled> {
    let stored = poll.stored()?;
    let row = channel.change_together(message_id, ChangeKind::Poll, |row| row.poll = Some(stored))?;
    let (channel_id, rev) = (row.channel_id, row.rev);
    if poll.anonymous {
        channel.unname_change(message_id);
    }
    channel.tell_change("poll:updated", rev, PollUpdate { channel_id, message_id, poll: poll.clone() })?;
    Ok(Polled { message_id, rev, poll })
}

/// The payload of `poll:updated` without its `rev`, which every change has (docs/protocol.md).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PollUpdate {
    channel_id: Uuid,
    message_id: Uuid,
    poll: Poll,
}

/// Stores a poll that starts with a message which the batch has appended.
pub(super) fn start(
    channel: &mut LockedChannel<'_>,
    message: &MessageDetail,
    new: &NewPoll,
) -> ImksResult<()> {
    let Some(poll) = message.poll.as_deref() else { return Ok(()) };
    let (message_id, channel_id) = (message.id, message.channel_id);
    let secret = new.anonymous.then_some(new.secret);
    channel.insert(PollRow { message_id, channel_id, secret, closes_at: poll.closes_at });
    channel.insert(PollText { message_id, text: poll.stored()? });
    Ok(())
}

/// Records that a poll is over, because it is closed or its message is deleted.
pub(super) fn end(channel: &mut LockedChannel<'_>, message_id: Uuid) {
    let at = channel.now();
    channel.insert(ClosedPoll { message_id, at });
}

/// Marks what `reader` chose in polls that are only sent to them. What was chosen in an anonymous poll is not known
/// any more once it is closed.
///
/// # Errors
/// [`ImksError::Database`].
pub(crate) async fn mark_own(db: &Db, reader: Uuid, messages: &mut [MessageDetail]) -> ImksResult<()> {
    // What is read for nobody is broadcast.
    if reader.is_nil() {
        return Ok(());
    }
    let polls = messages.iter().filter_map(|message| Some((message.id, message.poll.as_deref()?)));
    let (anonymous, open): (Vec<_>, Vec<_>) = polls.partition(|(_, poll)| poll.anonymous);
    let mut keys: Vec<(Uuid, Uuid)> = open.into_iter().map(|(message, _)| (message, reader)).collect();
    let anonymous: Vec<Uuid> = anonymous.into_iter().map(|(message, _)| message).collect();
    if !anonymous.is_empty() {
        let rows: Vec<PollRow> = FIND_POLLS.read(db, &PollRow::key_columns(&anonymous)).await?;
        for PollRow { message_id, secret, .. } in rows {
            if let Some(secret) = secret {
                keys.push((message_id, pseudonym(secret, reader)?));
            }
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let rows: Vec<VoteRow> = FIND_VOTES.read(db, &VoteRow::key_columns(&keys)).await?;
    let own: HashMap<Uuid, Choices> =
        rows.into_iter().map(|row| (row.message_id, Choices(row.choices))).collect();
    for message in messages {
        if let Some(poll) = message.poll.as_mut().filter(|_| keys.iter().any(|(id, _)| *id == message.id)) {
            poll.mark_own(own.get(&message.id).copied().unwrap_or_default());
        }
    }
    Ok(())
}

/// Returns up to `limit` users who chose an answer, by id, after `after`.
///
/// # Errors
/// [`ImksError::Forbidden`] for an anonymous poll and while the results are hidden, [`ImksError::NotFound`],
/// [`ImksError::MessageDeleted`], [`ImksError::Database`].
pub async fn voters(
    db: &Db,
    channel: Uuid,
    message: Uuid,
    option: usize,
    after: Uuid,
    limit: i64,
) -> ImksResult<Vec<Uuid>> {
    let row: Option<(Option<String>, Option<Micros>)> = on!(read db, pool => {
        sqlx::query_as(POLL).bind(message).bind(channel).fetch_optional(pool).await?
    });
    let (text, deleted_at) = row.ok_or(ImksError::NotFound("message"))?;
    let row = Message { poll: text, deleted_at, ..Message::default() };
    let poll = live_poll(&row)?;
    if poll.anonymous || poll.hide_results && poll.closed_at.is_none() {
        return Err(ImksError::FailedPrecondition(Precondition::VotersHidden));
    }
    let bit = poll.choices(&[option])?.0;
    Ok(on!(read db, pool => {
        sqlx::query_scalar(VOTERS).bind(message).bind(bit).bind(after).bind(limit).fetch_all(pool).await?
    }))
}

/// A poll whose time is over, with what is needed to close it in the name of its author.
#[derive(Debug, FromRow)]
#[allow(missing_docs, reason = "named as the columns")]
pub struct OverduePoll {
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub author_id: Uuid,
    pub author_username: String,
}

/// Returns up to [`POLLS_AT_ONCE`] polls whose time is over at `now`.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn overdue(db: &Db, now: Micros) -> ImksResult<Vec<OverduePoll>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(OVERDUE).bind(now).bind(POLLS_AT_ONCE).fetch_all(pool).await?
    }))
}

/// A row of `message_poll`.
#[derive(Debug, FromRow)]
struct PollRow {
    message_id: Uuid,
    channel_id: Uuid,
    secret: Option<Uuid>,
    closes_at: Option<Micros>,
}

impl Record for PollRow {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &INSERT_POLLS
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.secret),
            Column::of(rows, |row| row.closes_at),
        ]
    }
}

impl Lookup for PollRow {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn select() -> &'static RowsSql {
        &FIND_POLLS
    }

    fn key_columns(messages: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(messages, |message| *message)]
    }
}

/// The column `poll` of a new message. It is not in the statement that inserts messages, because most have none.
#[derive(Debug)]
struct PollText {
    message_id: Uuid,
    text: String,
}

impl Record for PollText {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &SET_TEXT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.message_id), Column::of(rows, |row| row.text.as_str())]
    }
}

/// The end of a poll, with which its secret is destroyed.
#[derive(Debug)]
struct ClosedPoll {
    message_id: Uuid,
    at: Micros,
}

impl Record for ClosedPoll {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &CLOSE
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.message_id), Column::of(rows, |row| row.at)]
    }
}

/// A row of `message_poll_vote`.
#[derive(Debug, FromRow)]
struct VoteRow {
    message_id: Uuid,
    voter_id: Uuid,
    choices: i64,
    voted_at: Micros,
}

impl VoteRow {
    fn columns_of_keys(keys: &[(Uuid, Uuid)]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |key| key.0), Column::of(keys, |key| key.1)]
    }
}

impl Record for VoteRow {
    /// The message and voter.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.message_id, self.voter_id)
    }

    fn insert() -> &'static RowsSql {
        &VOTE
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.voter_id),
            Column::of(rows, |row| row.choices),
            Column::of(rows, |row| row.voted_at),
        ]
    }
}

impl Lookup for VoteRow {
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.message_id, self.voter_id)
    }

    fn select() -> &'static RowsSql {
        &FIND_VOTES
    }

    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>> {
        Self::columns_of_keys(keys)
    }
}

/// The polls that one call of [`overdue`] returns.
pub const POLLS_AT_ONCE: i64 = 100;
const POLL: &str = "SELECT poll, deleted_at FROM message WHERE id = $1 AND channel_id = $2";
const VOTERS: &str = "SELECT voter_id FROM message_poll_vote \
    WHERE message_id = $1 AND choices & $2 <> 0 AND voter_id > $3 ORDER BY voter_id LIMIT $4";
const OVERDUE: &str = "SELECT p.message_id, p.channel_id, m.author_id, m.author_username \
    FROM message_poll p JOIN message m ON m.id = p.message_id \
    WHERE p.closed_at IS NULL AND p.closes_at IS NOT NULL AND p.closes_at <= $1 AND m.deleted_at IS NULL \
    ORDER BY p.closes_at LIMIT $2";
static INSERT_POLLS: RowsSql = RowsSql::new(
    "message_id, channel_id, secret, closes_at",
    "INSERT INTO message_poll (message_id, channel_id, secret, closes_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static FIND_POLLS: RowsSql = RowsSql::new(
    "message_id",
    "SELECT p.message_id, p.channel_id, p.secret, p.closes_at FROM r \
     JOIN message_poll p ON p.message_id = r.message_id WHERE r.message_id IS NOT NULL",
);
static SET_TEXT: RowsSql = RowsSql::new(
    "message_id, poll",
    "UPDATE message SET poll = r.poll FROM r WHERE message.id = r.message_id",
);
static CLOSE: RowsSql = RowsSql::new(
    "message_id, at",
    "UPDATE message_poll SET closed_at = r.at, secret = NULL FROM r WHERE message_poll.message_id = r.message_id",
);
static VOTE: RowsSql = RowsSql::new(
    "message_id, voter_id, choices, voted_at",
    "INSERT INTO message_poll_vote (message_id, voter_id, choices, voted_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL \
     ON CONFLICT (message_id, voter_id) DO UPDATE SET choices = excluded.choices, voted_at = excluded.voted_at",
);
static FIND_VOTES: RowsSql = RowsSql::new(
    "message_id, voter_id",
    "SELECT v.message_id, v.voter_id, v.choices, v.voted_at FROM r JOIN message_poll_vote v \
     ON v.message_id = r.message_id AND v.voter_id = r.voter_id WHERE r.message_id IS NOT NULL",
);
