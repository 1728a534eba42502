//! The steps of a purge that take a user out of what others wrote, and remove what was theirs alone.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{DELETED_TOGETHER, DONE, FORWARDS, MENTIONS, OWN_ROWS, Purge, PurgeKind, THREADS, scope};
use crate::ImksResult;
use crate::models::append::Appender;
use crate::models::db::{Db, detached, on, transaction};
use crate::models::legal_hold;
use crate::models::message_reaction;
use crate::models::message_retention::locks;
use crate::models::message_unname::Unname;

impl Purge {
    /// Takes the user out of messages of a channel, through the append path: members are told.
    pub(super) async fn unname(&self, appender: &Appender, channel: Uuid, ids: &[Uuid]) -> ImksResult<()> {
        for message_ids in ids.chunks(DELETED_TOGETHER) {
            let (user, alias, message_ids) = (self.target_id, self.alias_id, message_ids.to_vec());
            let erases = self.kind == PurgeKind::User as i32;
            appender.submit(scope(channel), Unname { user, alias, message_ids, erases })?.await?;
        }
        Ok(())
    }

    /// Takes back some of the user's reactions.
    pub(super) async fn take_back(&mut self, db: &Db, appender: &Appender) -> ImksResult<()> {
        if !message_reaction::take_back(db, appender, self.target_id, scope).await? {
            self.step = MENTIONS;
        }
        Ok(())
    }

    /// Takes the user out of some messages of others, and goes on to the next step when there are no more.
    pub(super) async fn take_out(&mut self, db: &Db, appender: &Appender) -> ImksResult<()> {
        let ([find, forget], next) = match self.step {
            MENTIONS => (NAMED_IN_MENTIONS, THREADS),
            THREADS => (NAMED_IN_THREADS, FORWARDS),
            _ => (NAMED_IN_FORWARDS, OWN_ROWS),
        };
        let found: Vec<(Uuid, Uuid)> = on!(read db, pool => {
            sqlx::query_as(find).bind(self.target_id).bind(TAKEN_OUT_AT_ONCE).fetch_all(pool).await?
        });
        let Some((last, _)) = found.last().copied() else {
            self.step = next;
            return Ok(());
        };
        let mut of_channel: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for (message, channel) in found {
            of_channel.entry(channel).or_default().push(message);
        }
        for (channel, mut ids) in of_channel {
            ids.dedup();
            self.unname(appender, channel, &ids).await?;
        }
        let (task_db, user) = (db.clone(), self.target_id);
        let alias = (self.step == FORWARDS).then_some(self.alias_id);
        detached(async move {
            on!(&task_db, pool => {
                let query = sqlx::query(forget).bind(user).bind(last);
                let query = if let Some(alias) = alias { query.bind(alias) } else { query };
                query.execute(pool).await?;
            });
            Ok(())
        })
        .await
    }

    /// Removes what belongs to the user alone. Comes last, because it also says where the user wrote.
    pub(super) async fn own_rows(&mut self, db: &Db) -> ImksResult<()> {
        let (task_db, user, alias, holds) = (db.clone(), self.target_id, self.alias_id, self.holds());
        detached(async move {
            let [share, _] = locks(&task_db);
            transaction!(&task_db, tx => {
                sqlx::query(share).execute(&mut *tx).await?;
                legal_hold::none(sqlx::query_scalar(holds).bind(user).fetch_one(&mut *tx).await?)?;
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
}

/// Where messages of others name the user, in the order of their ids, and how that is forgotten up to a message.
const NAMED_IN_MENTIONS: [&str; 2] = [
    "SELECT message_id, channel_id FROM message_mention WHERE target_id = $1 ORDER BY message_id LIMIT $2",
    "DELETE FROM message_mention WHERE target_id = $1 AND message_id <= $2",
];
const NAMED_IN_THREADS: [&str; 2] = [
    "SELECT root_message_id, channel_id FROM message_thread_member WHERE user_id = $1 \
     ORDER BY root_message_id LIMIT $2",
    "DELETE FROM message_thread_member WHERE user_id = $1 AND root_message_id <= $2",
];
const NAMED_IN_FORWARDS: [&str; 2] = [
    "SELECT message_id, channel_id FROM message_forward WHERE author_id = $1 ORDER BY message_id LIMIT $2",
    // The copy stays one of its original, whose text it must not outlive.
    "UPDATE message_forward SET author_id = $3 WHERE author_id = $1 AND message_id <= $2",
];
/// The messages of others that one step takes the user out of.
const TAKEN_OUT_AT_ONCE: i64 = 200;
/// A vote counts on without its voter, and a file of a message stays without the one who sent it. In an anonymous poll
/// nobody can tell which vote it is.
const RENAME_ELSEWHERE: [&str; 5] = [
    "UPDATE message_ack SET user_id = $2 WHERE user_id = $1",
    "UPDATE message_poll_vote SET voter_id = $2 WHERE voter_id = $1",
    "UPDATE message_report SET author_id = $2 WHERE author_id = $1",
    "UPDATE message_report SET reporter_id = $2, note = NULL WHERE reporter_id = $1",
    "UPDATE message_attachment SET uploader_id = $2 WHERE uploader_id = $1",
];
const FORGET: [&str; 9] = [
    "DELETE FROM message_draft WHERE user_id = $1",
    "DELETE FROM message_scheduled WHERE user_id = $1",
    "DELETE FROM message_bookmark WHERE user_id = $1",
    // Files that were not sent: their bytes are removed with the other deleted ones.
    "UPDATE message_attachment SET deleted_at = created_at \
        WHERE uploader_id = $1 AND message_id IS NULL AND deleted_at IS NULL",
    "DELETE FROM key_package WHERE user_id = $1",
    "DELETE FROM user_presence WHERE user_id = $1",
    "DELETE FROM user_state WHERE user_id = $1",
    "DELETE FROM message_author WHERE author_id = $1",
    "DELETE FROM message_read_state WHERE user_id = $1",
];
