//! Purges: messages and users that are deleted for good (docs/adr/0045). A purge is a row that says what to delete, who
//! wanted it, and how far it has come. It proceeds in small steps, each of which may be repeated, so that any node can go
//! on with it.

mod user;

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::append::{Appender, Authority, Scope};
use super::db::{Db, detached, on, transaction};
use super::message::AuthorInfo;
use super::message_delete::DeleteMessages;
use super::message_mention::mention_self;
use super::message_retention::{self, locks};
pub use super::message_unname::NOBODY;
use super::rows::{Column, Connection, RowsSql};
use super::{legal_hold, message_children};
use crate::clock::{self, Micros};
use crate::{ImksError, ImksResult};

/// What is deleted for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum PurgeKind {
    /// The messages of a channel.
    Channel = 0,
    /// A user, with the messages that they wrote.
    User = 1,
    /// A user, whose messages stay without a name.
    Name = 2,
}

/// An order to delete, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Purge {
    id: Uuid,
    kind: i32,
    target_id: Uuid,
    before: Micros,
    alias_id: Uuid,
    step: i32,
    channel_id: Uuid,
    after_seq: i64,
    /// The messages that were deleted, or lost their name, so far.
    pub purged: i64,
    /// Why it was ordered.
    pub reason: String,
    /// The name of the caller who ordered it.
    pub requested_by: String,
    /// When it was ordered.
    pub requested_at: Micros,
    /// When everything was deleted.
    pub finished_at: Option<Micros>,
}

/// The numbers of the steps of a purge. That of a channel is over after the first; that of a user goes on with what others
/// wrote.
const MESSAGES: i32 = 0;
const TAKE_BACK: i32 = 1;
const MENTIONS: i32 = 4;
const THREADS: i32 = 5;
const FORWARDS: i32 = 6;
const OWN_ROWS: i32 = 2;
const DONE: i32 = 3;

/// A message in a window.
#[derive(FromRow)]
struct Found {
    id: Uuid,
    deleted_at: Option<Micros>,
}

/// Binds the window that a purge has come to, as [`FIND`] numbers its parameters.
macro_rules! bound {
    ($query:expr, $purge:expr, $until:expr) => {
        $query
            .bind($purge.channel_id)
            .bind($purge.after_seq)
            .bind($until)
            .bind(!$purge.is_of_user())
            .bind($purge.target_id)
            .bind(if $purge.before == 0 { Micros::MAX } else { $purge.before })
    };
}

impl Purge {
    /// Orders a purge of `target`: of messages written before `before`, or of all if it is 0. `id` is the same for
    /// repeats of one request, which change nothing. Returns the purge that is under way if it is the same order.
    ///
    /// # Errors
    /// [`ImksError::NonceConflict`] if the earlier request was another order, [`ImksError::Overloaded`] while another
    /// purge of the target is under way, [`ImksError::FailedPrecondition`] if a legal hold forbids it.
    pub async fn order(
        db: &Db,
        id: Uuid,
        (kind, target): (PurgeKind, Uuid),
        before: Micros,
        (requested_by, reason): (&str, &str),
    ) -> ImksResult<Self> {
        legal_hold::check_reason(reason)?;
        if Self::by_id(db, id).await?.is_none() {
            legal_hold::refuse(db, holds(kind), target).await?;
        }
        let task_db = db.clone();
        let (requested_by, reason) = (requested_by.to_owned(), reason.to_owned());
        detached(async move { insert(&task_db, id, (kind, target), before, (&requested_by, &reason)).await })
            .await?;
        let is_same =
            |purge: &Self| (purge.kind, purge.target_id, purge.before) == (kind as i32, target, before);
        if let Some(purge) = Self::by_id(db, id).await? {
            return if is_same(&purge) { Ok(purge) } else { Err(ImksError::NonceConflict) };
        }
        let open: Option<Self> = on!(db, pool => {
            sqlx::query_as(OPEN_OF).bind(target).fetch_optional(pool).await?
        });
        // One that has ended meanwhile was this one, or one that left nothing.
        let purge = match open {
            Some(open) => open,
            None => on!(db, pool => sqlx::query_as(LAST_OF).bind(target).fetch_one(pool).await?),
        };
        if is_same(&purge) { Ok(purge) } else { Err(ImksError::Overloaded { retry_after: RETRY_AFTER }) }
    }

    async fn by_id(db: &Db, id: Uuid) -> ImksResult<Option<Self>> {
        Ok(on!(db, pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await?))
    }

    /// Returns the purge that is not finished and whose id comes next after `after`.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub async fn next(db: &Db, after: Uuid) -> ImksResult<Option<Self>> {
        Ok(on!(db, pool => sqlx::query_as(NEXT).bind(after).fetch_optional(pool).await?))
    }

    /// Returns up to `limit` purges that were ordered before the one with the id `before`, or of all if there is none, the
    /// newest first.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] if there is no such purge, [`ImksError::Database`].
    pub async fn list(db: &Db, before: Option<Uuid>, limit: i64) -> ImksResult<Vec<Self>> {
        let place = match before {
            None => (Micros::MAX, Uuid::max()),
            Some(id) => {
                let before = Self::by_id(db, id).await?.ok_or(ImksError::NotFound("purge"))?;
                (before.requested_at, before.id)
            }
        };
        Ok(on!(read db, pool => {
            sqlx::query_as(LIST).bind(place.0).bind(place.1).bind(limit).fetch_all(pool).await?
        }))
    }

    /// Returns what is deleted: the kind, and the channel or the user.
    pub fn what(&self) -> (PurgeKind, Uuid) {
        let kind = match self.kind {
            0 => PurgeKind::Channel,
            1 => PurgeKind::User,
            _ => PurgeKind::Name,
        };
        (kind, self.target_id)
    }

    /// Returns the id, which the order gave it.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the purge as it is now.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub async fn renewed(&self, db: &Db) -> ImksResult<Self> {
        Ok(on!(db, pool => sqlx::query_as(BY_ID).bind(self.id).fetch_one(pool).await?))
    }

    /// Whether everything is deleted.
    pub fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Takes one step, and stores how far the purge has come. May be called again after it failed.
    ///
    /// # Errors
    /// [`ImksError::FailedPrecondition`] while a legal hold forbids it, [`ImksError::Database`] and those of the append
    /// path.
    pub async fn step(&mut self, db: &Db, appender: &Appender) -> ImksResult<()> {
        legal_hold::refuse(db, self.holds(), self.target_id).await?;
        match self.step {
            MESSAGES => self.messages(db, appender).await?,
            TAKE_BACK => self.take_back(db, appender).await?,
            MENTIONS | THREADS | FORWARDS => self.take_out(db, appender).await?,
            OWN_ROWS => self.own_rows(db).await?,
            _ => self.copies(db).await?,
        }
        let (task_db, purge) = (db.clone(), self.clone());
        detached(async move { purge.store(&task_db).await }).await
    }

    async fn store(&self, db: &Db) -> ImksResult<()> {
        on!(db, pool => {
            let query = sqlx::query(STORE).bind(self.id).bind(self.step).bind(self.channel_id);
            query.bind(self.after_seq).bind(self.purged).bind(self.finished_at).execute(pool).await?;
        });
        Ok(())
    }

    /// Purges the messages in the next window of a channel.
    async fn messages(&mut self, db: &Db, appender: &Appender) -> ImksResult<()> {
        let Some((channel, (horizon_seq, last_seq))) = self.channel(db).await? else {
            self.step = if self.is_of_user() { TAKE_BACK } else { DONE };
            self.channel_id = Uuid::nil();
            return Ok(());
        };
        if channel != self.channel_id {
            (self.channel_id, self.after_seq) = (channel, 0);
        }
        self.after_seq = self.after_seq.max(horizon_seq);
        let until = self.after_seq + WINDOW;
        let found: Vec<Found> = on!(read db, pool => {
            bound!(sqlx::query_as(FIND), self, until).fetch_all(pool).await?
        });
        let ids: Vec<Uuid> = found.iter().map(|found| found.id).collect();
        if self.is_of_user() {
            self.unname(appender, channel, &ids).await?;
        } else {
            let live = found.iter().filter(|found| found.deleted_at.is_none()).map(|found| found.id);
            delete(db, appender, channel, live.collect()).await?;
        }
        // An earlier attempt may have taken out the user and failed afterwards.
        if !ids.is_empty() || self.is_of_user() {
            self.scrub(db, ids, until).await?;
        }
        self.purged += i64::try_from(found.len()).unwrap_or(i64::MAX);
        self.after_seq = if until >= last_seq { i64::MAX } else { until };
        Ok(())
    }

    /// Returns the channel to go on with, and the numbers after which its history begins and with which it ends; `None`
    /// after the last channel.
    async fn channel(&self, db: &Db) -> ImksResult<Option<(Uuid, (i64, i64))>> {
        let is_through = self.after_seq == i64::MAX;
        let channel: Option<Uuid> = match self.is_of_user() {
            false => (!is_through).then_some(self.target_id),
            true if !is_through && !self.channel_id.is_nil() => Some(self.channel_id),
            true => on!(read db, pool => {
                let query = sqlx::query_scalar(NEXT_CHANNEL).bind(self.target_id).bind(self.channel_id);
                query.fetch_optional(pool).await?
            }),
        };
        let Some(channel) = channel else { return Ok(None) };
        let numbers: Option<(i64, i64)> = on!(read db, pool => {
            sqlx::query_as(NUMBERS).bind(channel).fetch_optional(pool).await?
        });
        Ok(Some((channel, numbers.unwrap_or_default())))
    }

    /// Takes the text out of some of the copies that others forwarded. Everything is deleted when each was looked at: one
    /// that a hold concerns keeps its text, and keeps nobody waiting.
    async fn copies(&mut self, db: &Db) -> ImksResult<()> {
        let now = clock::now_micros();
        if message_retention::mark_copies(db, now).await? {
            return Ok(());
        }
        match message_retention::empty_copies(db, self.channel_id).await? {
            // There is no channel to go on with any more: the copies are walked in its place.
            Some(last) => self.channel_id = last,
            None => self.finished_at = Some(now),
        }
        Ok(())
    }

    /// Takes out of the rows of the window what must not stay. `ids` are the messages in it that were found.
    async fn scrub(&self, db: &Db, ids: Vec<Uuid>, until: i64) -> ImksResult<()> {
        let (task_db, purge) = (db.clone(), self.clone());
        detached(async move {
            let [share, lock] = locks(&task_db);
            transaction!(&task_db, tx => {
                sqlx::query(share).execute(&mut *tx).await?;
                let holds: i64 =
                    sqlx::query_scalar(purge.holds()).bind(purge.target_id).fetch_one(&mut *tx).await?;
                legal_hold::none(holds)?;
                // A change of such a message writes its whole row, which it has read under this lock.
                sqlx::query(lock).bind(purge.channel_id).execute(&mut *tx).await?;
                let mut ids = ids;
                if purge.is_of_user() {
                    // The messages have the other id by now.
                    let nameless = sqlx::query_scalar(NAMELESS).bind(purge.channel_id).bind(purge.after_seq);
                    ids = nameless.bind(until).bind(purge.alias_id).fetch_all(&mut *tx).await?;
                    sqlx::query(FORGET_DELETER).bind(purge.channel_id).bind(purge.after_seq).bind(until)
                        .bind(purge.target_id).bind(purge.alias_id).execute(&mut *tx).await?;
                    sqlx::query(FORGET_PINNER).bind(purge.channel_id).bind(purge.target_id)
                        .bind(purge.alias_id).execute(&mut *tx).await?;
                }
                purge.scrub_rows(&mut Connection::from(&mut *tx), &ids).await?;
            });
            Ok(())
        })
        .await
    }

    async fn scrub_rows(&self, connection: &mut Connection<'_>, ids: &[Uuid]) -> Result<(), sqlx::Error> {
        if self.kind != PurgeKind::Name as i32 {
            return message_children::scrub(connection, ids).await;
        }
        for sql in &RENAME_ROWS {
            let columns = [Column::of(ids, |id| *id), Column::of(ids, |_| self.alias_id)];
            sql.execute(connection, &columns).await?;
        }
        Ok(())
    }

    fn is_of_user(&self) -> bool {
        self.kind != PurgeKind::Channel as i32
    }

    /// Returns the statement that counts the holds that forbid the purge.
    fn holds(&self) -> &'static str {
        holds(if self.is_of_user() { PurgeKind::User } else { PurgeKind::Channel })
    }
}

/// Returns the statement that counts the holds that forbid a purge.
fn holds(kind: PurgeKind) -> &'static str {
    match kind {
        PurgeKind::Channel => legal_hold::ON_CHANNEL,
        PurgeKind::User | PurgeKind::Name => legal_hold::ON_USER,
    }
}

async fn insert(
    db: &Db,
    id: Uuid,
    (kind, target): (PurgeKind, Uuid),
    before: Micros,
    (requested_by, reason): (&str, &str),
) -> ImksResult<()> {
    let (alias, now) = (clock::new_id(), clock::now_micros());
    on!(db, pool => {
        let query = sqlx::query(INSERT).bind(id).bind(kind as i32).bind(target).bind(before).bind(alias);
        query.bind(requested_by).bind(now).bind(Uuid::nil()).bind(reason).execute(pool).await?;
    });
    Ok(())
}

/// Deletes messages that are not deleted yet, through the append path: members are told, and counts stay right.
async fn delete(db: &Db, appender: &Appender, channel: Uuid, live: Vec<Uuid>) -> ImksResult<()> {
    for message_ids in live.chunks(DELETED_TOGETHER) {
        legal_hold::refuse(db, legal_hold::ON_CHANNEL, channel).await?;
        let delete = DeleteMessages { message_ids: message_ids.to_vec() };
        appender.submit(scope(channel), delete)?.await?;
    }
    Ok(())
}

/// Returns the right to change everything in a channel, in nobody's name.
fn scope(channel_id: Uuid) -> Scope {
    let actor = AuthorInfo { id: Uuid::nil(), username: NOBODY.into() };
    Scope { channel_id, actor, slow_mode: Duration::ZERO, authority: Authority::Any }
}

/// The numbers of a channel that one step looks at.
const WINDOW: i64 = 1_000;
/// The messages that are deleted together: as many as a moderator may delete at once.
const DELETED_TOGETHER: usize = 100;
const RETRY_AFTER: Duration = Duration::from_secs(5);

const INSERT: &str = "INSERT INTO purge (id, kind, target_id, before, alias_id, requested_by, requested_at, step, \
    channel_id, after_seq, purged, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, 0, 0, $9) ON CONFLICT DO NOTHING";
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, target_id, before, alias_id, step, channel_id, after_seq, purged, reason, requested_by, \
             requested_at, finished_at FROM purge ",
            $rest
        )
    };
}
const OPEN_OF: &str = select!("WHERE target_id = $1 AND finished_at IS NULL");
const LAST_OF: &str = select!("WHERE target_id = $1 ORDER BY finished_at DESC LIMIT 1");
const NEXT: &str = select!("WHERE finished_at IS NULL AND id > $1 ORDER BY id LIMIT 1");
const BY_ID: &str = select!("WHERE id = $1");
/// The ids of calls that repeat are no times, so the order is that of the orders.
const LIST: &str = select!(
    "WHERE requested_at < $1 OR (requested_at = $1 AND id < $2) ORDER BY requested_at DESC, id DESC LIMIT $3"
);
const STORE: &str = "UPDATE purge SET step = $2, channel_id = $3, after_seq = $4, purged = $5, finished_at = $6 \
    WHERE id = $1";

/// Where a user wrote, or could, or a program wrote in their name.
const NEXT_CHANNEL: &str = concat!(
    "SELECT channel_id FROM (SELECT channel_id FROM message_author WHERE author_id = $1 \
     UNION SELECT channel_id FROM message_read_state WHERE user_id = $1 \
     UNION SELECT channel_id FROM message_mention WHERE target_id = $1 AND kind = ",
    mention_self!(),
    ") AS channels WHERE channel_id > $2 ORDER BY channel_id LIMIT 1"
);
const NUMBERS: &str = "SELECT horizon_seq, last_seq FROM channel_state WHERE channel_id = $1";
const FIND: &str = "SELECT id, deleted_at FROM message WHERE channel_id = $1 AND seq > $2 AND seq <= $3 \
    AND ($4 OR author_id = $5) AND created_at < $6";
const NAMELESS: &str =
    "SELECT id FROM message WHERE channel_id = $1 AND seq > $2 AND seq <= $3 AND author_id = $4";
const FORGET_DELETER: &str = "UPDATE message SET deleted_by = $5 \
    WHERE channel_id = $1 AND seq > $2 AND seq <= $3 AND deleted_by = $4";
const FORGET_PINNER: &str = "UPDATE message_pin SET pinned_by = $3 WHERE channel_id = $1 AND pinned_by = $2";
/// What stands about a message under the id of its author.
static RENAME_ROWS: [RowsSql; 2] = [
    RowsSql::new(
        "id, alias",
        "UPDATE message_edit SET editor_id = r.alias FROM r WHERE message_edit.message_id = r.id",
    ),
    RowsSql::new(
        "id, alias",
        "UPDATE message_mention SET author_id = r.alias FROM r WHERE message_mention.message_id = r.id",
    ),
];
