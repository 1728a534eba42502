//! The rows of `message_reaction`: one per message, emoji and user.

use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Removable};
use super::db::{Db, on};
use super::emoji::Emoji;
use super::message_reaction_total::USERS_SHOWN;
use super::rows::{Column, ROWS_LIMIT, RowsSql, sql_number};
use crate::ImksResult;
use crate::clock::Micros;

/// The message, emoji and user.
pub(super) type Key = (Uuid, Emoji, Uuid);

/// A row of `message_reaction`.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct ReactionRow {
    pub message_id: Uuid,
    #[sqlx(try_from = "String")]
    pub emoji: Emoji,
    pub user_id: Uuid,
    pub channel_id: Uuid,
    pub created_at: Micros,
}

impl ReactionRow {
    /// Returns the stored reactions among these.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(super) async fn read(db: &Db, keys: &[Key]) -> ImksResult<Vec<Self>> {
        FIND.read(db, &Self::columns_of_keys(keys)).await
    }

    /// Returns up to `limit` reactions of a user.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(super) async fn of_user(db: &Db, user: Uuid, limit: i64) -> ImksResult<Vec<Self>> {
        Ok(on!(read db, pool => sqlx::query_as(OF_USER).bind(user).bind(limit).fetch_all(pool).await?))
    }

    /// Removes the rows of a user's reactions to a message, which shows them no more.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub(super) async fn forget(db: &Db, user: Uuid, message: Uuid) -> ImksResult<()> {
        on!(db, pool => {
            sqlx::query(FORGET).bind(user).bind(message).execute(pool).await?;
        });
        Ok(())
    }

    fn columns_of_keys(keys: &[Key]) -> Vec<Column<'_>> {
        vec![
            Column::of(keys, |(message, ..)| message),
            Column::of(keys, |(_, emoji, _)| emoji.as_str()),
            Column::of(keys, |(.., user)| user),
        ]
    }
}

impl Record for ReactionRow {
    type Key = Key;

    fn key(&self) -> Key {
        (self.message_id, self.emoji.clone(), self.user_id)
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.emoji.as_str()),
            Column::of(rows, |row| row.user_id),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.created_at),
        ]
    }
}

impl Removable for ReactionRow {
    fn delete() -> &'static RowsSql {
        &DELETE
    }

    fn key_columns(keys: &[Key]) -> Vec<Column<'_>> {
        Self::columns_of_keys(keys)
    }
}

impl Lookup for ReactionRow {
    type Key = Key;

    fn key(&self) -> Key {
        Record::key(self)
    }

    fn select() -> &'static RowsSql {
        &FIND
    }

    fn key_columns(keys: &[Key]) -> Vec<Column<'_>> {
        Self::columns_of_keys(keys)
    }
}

/// A user who reacted to a message with an emoji.
#[derive(Debug, FromRow)]
pub(super) struct Reactor {
    pub message_id: Uuid,
    #[sqlx(try_from = "String")]
    pub emoji: Emoji,
    pub user_id: Uuid,
}

impl Lookup for Reactor {
    /// The message and emoji.
    type Key = (Uuid, Emoji);

    fn key(&self) -> Self::Key {
        (self.message_id, self.emoji.clone())
    }

    fn select() -> &'static RowsSql {
        &REACTORS
    }

    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |(message, _)| message), Column::of(keys, |(_, emoji)| emoji.as_str())]
    }
}

static INSERT: RowsSql = RowsSql::new(
    "message_id, emoji, user_id, channel_id, created_at",
    "INSERT INTO message_reaction (message_id, emoji, user_id, channel_id, created_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static DELETE: RowsSql = RowsSql::new(
    "message_id, emoji, user_id",
    "DELETE FROM message_reaction WHERE (message_id, emoji, user_id) IN \
     (SELECT message_id, emoji, user_id FROM r WHERE message_id IS NOT NULL)",
);
static FIND: RowsSql = RowsSql::new(
    "message_id, emoji, user_id",
    "SELECT m.message_id, m.emoji, m.user_id, m.channel_id, m.created_at FROM r JOIN message_reaction m \
     ON m.message_id = r.message_id AND m.emoji = r.emoji AND m.user_id = r.user_id \
     WHERE r.message_id IS NOT NULL",
);
sql_number! {
    /// The most users that are read for one emoji: those shown, plus one for each removal in a batch.
    const REACTORS_READ: usize = reactors_read = 1_034;
}
const _: () = assert!(REACTORS_READ == USERS_SHOWN + ROWS_LIMIT, "every mutation of a batch may remove one");
static REACTORS: RowsSql = RowsSql::new(
    "message_id, emoji",
    concat!(
        "SELECT message_id, emoji, user_id FROM (SELECT m.message_id, m.emoji, m.user_id, \
             ROW_NUMBER() OVER (PARTITION BY m.message_id, m.emoji ORDER BY m.user_id) AS place \
           FROM (SELECT DISTINCT message_id, emoji FROM r WHERE message_id IS NOT NULL) w \
           JOIN message_reaction m ON m.message_id = w.message_id AND m.emoji = w.emoji) numbered \
         WHERE place <= ",
        reactors_read!()
    ),
);
const OF_USER: &str = "SELECT message_id, emoji, user_id, channel_id, created_at FROM message_reaction \
    WHERE user_id = $1 ORDER BY message_id LIMIT $2";
const FORGET: &str = "DELETE FROM message_reaction WHERE user_id = $1 AND message_id = $2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_key_under_which_it_is_found_and_one_column_for_each_of_its_table() {
        let row = ReactionRow {
            message_id: Uuid::from_u128(1),
            emoji: serde_json::from_str("\"👍\"").unwrap(),
            user_id: Uuid::from_u128(2),
            channel_id: Uuid::from_u128(3),
            created_at: 4,
        };
        assert_eq!(Record::key(&row), (row.message_id, row.emoji.clone(), row.user_id));
        assert_eq!(<ReactionRow as Lookup>::key(&row), Record::key(&row));
        assert_eq!(ReactionRow::columns(&[&row]).len(), INSERT.width());
        assert_eq!(ReactionRow::columns_of_keys(&[Record::key(&row)]).len(), FIND.width());
    }
}
