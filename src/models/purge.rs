//! Purges: messages and users that are deleted for good (docs/adr/0045). A purge is a row that says what to delete, who
//! wanted it, and how far it has come. It proceeds in small steps, each of which may be repeated, so that any node can go
//! on with it.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::append::{Appender, Authority, Scope};
use super::db::{Db, detached, on, transaction};
use super::message::AuthorInfo;
use super::message_delete::DeleteMessages;
use super::message_reaction;
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
    finished_at: Option<Micros>,
}

/// The steps of a purge, in order. That of a channel is over after the first.
const MESSAGES: i32 = 0;
const TAKE_BACK: i32 = 1;
const OWN_ROWS: i32 = 2;
const DONE: i32 = 3;

/// A message in a window.
#[derive(FromRow)]
struct Found {
    id: Uuid,
    deleted_at: Option<Micros>,
}

/// Binds the window that a purge has come to, as `window!` numbers its parameters.
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
    /// purge of the target is under way.
    pub async fn order(
        db: &Db,
        id: Uuid,
        (kind, target): (PurgeKind, Uuid),
        before: Micros,
        requested_by: &str,
    ) -> ImksResult<Self> {
        let (task_db, requested_by) = (db.clone(), requested_by.to_owned());
        detached(async move { insert(&task_db, id, (kind, target), before, &requested_by).await }).await?;
        let is_same =
            |purge: &Self| (purge.kind, purge.target_id, purge.before) == (kind as i32, target, before);
        let requested: Option<Self> = on!(db, pool => {
            sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await?
        });
        if let Some(purge) = requested {
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

    /// Returns the purge that is not finished and whose id comes next after `after`.
    ///
    /// # Errors
    /// [`ImksError::Database`].
    pub async fn next(db: &Db, after: Uuid) -> ImksResult<Option<Self>> {
        Ok(on!(db, pool => sqlx::query_as(NEXT).bind(after).fetch_optional(pool).await?))
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
    /// [`ImksError::Database`] and those of the append path.
    pub async fn step(&mut self, db: &Db, appender: &Appender) -> ImksResult<()> {
        match self.step {
            MESSAGES => self.messages(db, appender).await?,
            TAKE_BACK => self.take_back(db, appender).await?,
            OWN_ROWS => self.own_rows(db).await?,
            _ => self.finished_at = Some(clock::now_micros()),
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
        let Some((channel, last_seq)) = self.channel(db).await? else {
            self.step = if self.is_of_user() { TAKE_BACK } else { DONE };
            return Ok(());
        };
        if channel != self.channel_id {
            (self.channel_id, self.after_seq) = (channel, 0);
        }
        let until = self.after_seq + WINDOW;
        let found: Vec<Found> = on!(read db, pool => {
            bound!(sqlx::query_as(FIND), self, until).fetch_all(pool).await?
        });
        if self.kind != PurgeKind::Name as i32 {
            let live = found.iter().filter(|found| found.deleted_at.is_none()).map(|found| found.id);
            delete(appender, channel, live.collect()).await?;
        }
        if !found.is_empty() {
            self.scrub(db, until).await?;
        }
        self.purged += i64::try_from(found.len()).unwrap_or(i64::MAX);
        self.after_seq = if until >= last_seq { i64::MAX } else { until };
        Ok(())
    }

    /// Returns the channel to go on with, and its last number; `None` after the last channel.
    async fn channel(&self, db: &Db) -> ImksResult<Option<(Uuid, i64)>> {
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
        let last_seq: Option<i64> = on!(read db, pool => {
            sqlx::query_scalar(LAST_SEQ).bind(channel).fetch_optional(pool).await?
        });
        Ok(Some((channel, last_seq.unwrap_or(0))))
    }

    /// Takes out of the rows of the window what must not stay.
    async fn scrub(&self, db: &Db, until: i64) -> ImksResult<()> {
        let (task_db, purge) = (db.clone(), self.clone());
        detached(async move {
            let statements = if purge.kind == PurgeKind::Name as i32 { &[] } else { &SCRUB[..] };
            transaction!(&task_db, tx => {
                for sql in statements {
                    bound!(sqlx::query(*sql), purge, until).execute(&mut *tx).await?;
                }
                if purge.is_of_user() {
                    let rename = bound!(sqlx::query(RENAME), purge, until);
                    rename.bind(purge.alias_id).bind(NOBODY).execute(&mut *tx).await?;
                }
            });
            Ok(())
        })
        .await
    }

    /// Takes back some of the user's reactions.
    async fn take_back(&mut self, db: &Db, appender: &Appender) -> ImksResult<()> {
        if !message_reaction::take_back(db, appender, self.target_id, scope).await? {
            self.step = OWN_ROWS;
        }
        Ok(())
    }

    /// Removes what belongs to the user alone. Comes last, because it also says where the user wrote.
    async fn own_rows(&mut self, db: &Db) -> ImksResult<()> {
        let (task_db, user, alias) = (db.clone(), self.target_id, self.alias_id);
        detached(async move {
            transaction!(&task_db, tx => {
                for forget in FORGET {
                    sqlx::query(forget).bind(user).execute(&mut *tx).await?;
                }
                for rename in RENAME_ELSEWHERE {
                    sqlx::query(rename).bind(user).bind(alias).execute(&mut *tx).await?;
                }
            });
            Ok(())
        })
        .await?;
        self.step = DONE;
        Ok(())
    }

    fn is_of_user(&self) -> bool {
        self.kind != PurgeKind::Channel as i32
    }
}

async fn insert(
    db: &Db,
    id: Uuid,
    (kind, target): (PurgeKind, Uuid),
    before: Micros,
    requested_by: &str,
) -> ImksResult<()> {
    let (alias, now) = (clock::new_id(), clock::now_micros());
    on!(db, pool => {
        let query = sqlx::query(INSERT).bind(id).bind(kind as i32).bind(target).bind(before).bind(alias);
        query.bind(requested_by).bind(now).bind(Uuid::nil()).execute(pool).await?;
    });
    Ok(())
}

/// Deletes messages that are not deleted yet, through the append path: members are told, and counts stay right.
async fn delete(appender: &Appender, channel: Uuid, live: Vec<Uuid>) -> ImksResult<()> {
    for message_ids in live.chunks(DELETED_TOGETHER) {
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

/// The name that is shown where a user was.
pub const NOBODY: &str = "deleted user";
/// The numbers of a channel that one step looks at.
const WINDOW: i64 = 1_000;
/// The messages that are deleted together: as many as a moderator may delete at once.
const DELETED_TOGETHER: usize = 100;
const RETRY_AFTER: Duration = Duration::from_secs(5);

const INSERT: &str = "INSERT INTO purge (id, kind, target_id, before, alias_id, requested_by, requested_at, step, \
    channel_id, after_seq, purged) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, 0, 0) ON CONFLICT DO NOTHING";
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, target_id, before, alias_id, step, channel_id, after_seq, purged, finished_at \
             FROM purge ",
            $rest
        )
    };
}
const OPEN_OF: &str = select!("WHERE target_id = $1 AND finished_at IS NULL");
const LAST_OF: &str = select!("WHERE target_id = $1 ORDER BY finished_at DESC LIMIT 1");
const NEXT: &str = select!("WHERE finished_at IS NULL AND id > $1 ORDER BY id LIMIT 1");
const BY_ID: &str = select!("WHERE id = $1");
const STORE: &str = "UPDATE purge SET step = $2, channel_id = $3, after_seq = $4, purged = $5, finished_at = $6 \
    WHERE id = $1";

/// Where a user wrote, or could.
const NEXT_CHANNEL: &str = "SELECT channel_id FROM (SELECT channel_id FROM message_author WHERE author_id = $1 \
    UNION SELECT channel_id FROM message_read_state WHERE user_id = $1) AS channels \
    WHERE channel_id > $2 ORDER BY channel_id LIMIT 1";
const LAST_SEQ: &str = "SELECT last_seq FROM channel_state WHERE channel_id = $1";
macro_rules! window {
    ($before:literal $(, $after:literal)?) => {
        concat!(
            $before,
            " channel_id = $1 AND seq > $2 AND seq <= $3 AND ($4 OR author_id = $5) AND created_at < $6"
            $(, $after)?
        )
    };
}
const FIND: &str = window!("SELECT id, deleted_at FROM message WHERE");
/// What is left of a deleted message: its place in the order, and who wrote it.
const SCRUB: [&str; 7] = [
    window!("DELETE FROM message_edit WHERE message_id IN (SELECT id FROM message WHERE", ")"),
    window!("DELETE FROM message_reaction WHERE message_id IN (SELECT id FROM message WHERE", ")"),
    window!("DELETE FROM message_poll WHERE message_id IN (SELECT id FROM message WHERE", ")"),
    window!("DELETE FROM message_poll_vote WHERE message_id IN (SELECT id FROM message WHERE", ")"),
    window!("UPDATE message_report SET body = '' WHERE message_id IN (SELECT id FROM message WHERE", ")"),
    window!("DELETE FROM message_mention WHERE message_id IN (SELECT id FROM message WHERE", ")"),
    window!(
        "UPDATE message SET body = '', mentions = NULL, reactions = NULL, poll = NULL, metadata = NULL, \
         attachments = NULL, embeds = NULL, forward_of = NULL, nonce = NULL, content_hash = 0 WHERE"
    ),
];
const RENAME: &str = window!("UPDATE message SET author_id = $7, author_username = $8, nonce = NULL WHERE");
/// A vote counts on without its voter, and a file of a message stays without the one who sent it. In an anonymous poll
/// nobody can tell which vote it is.
const RENAME_ELSEWHERE: [&str; 4] = [
    "UPDATE message_poll_vote SET voter_id = $2 WHERE voter_id = $1",
    "UPDATE message_report SET author_id = $2 WHERE author_id = $1",
    "UPDATE message_report SET reporter_id = $2, note = NULL WHERE reporter_id = $1",
    "UPDATE message_attachment SET uploader_id = $2 WHERE uploader_id = $1",
];
const FORGET: [&str; 11] = [
    "DELETE FROM message_draft WHERE user_id = $1",
    "DELETE FROM message_scheduled WHERE user_id = $1",
    "DELETE FROM message_bookmark WHERE user_id = $1",
    "DELETE FROM message_thread_member WHERE user_id = $1",
    "DELETE FROM message_mention WHERE kind = 0 AND target_id = $1",
    // Files that were not sent: their bytes are removed with the other deleted ones.
    "UPDATE message_attachment SET deleted_at = created_at \
        WHERE uploader_id = $1 AND message_id IS NULL AND deleted_at IS NULL",
    "DELETE FROM key_package WHERE user_id = $1",
    "DELETE FROM user_presence WHERE user_id = $1",
    "DELETE FROM user_state WHERE user_id = $1",
    "DELETE FROM message_author WHERE author_id = $1",
    "DELETE FROM message_read_state WHERE user_id = $1",
];
