//! The numbers of a user's stream.
//!
//! A change takes its number before it writes rows with a `user_rev`. That locks the user's row of `user_state`,
//! so numbers become visible in order.

use uuid::Uuid;

use super::append::records::Record;
use super::rows::{Column, RowsSql};

/// A number of a user's stream that a batch takes for a row that it writes. The statements of features read the
/// number from `user_state`, so this has to be inserted before the row.
#[derive(Debug)]
pub(super) struct TakenRev {
    pub user: Uuid,
    pub need: Need,
}

/// What a number is taken for. None is taken if there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// A draft is cleared, if there is one.
    ClearDraft { channel_id: Uuid, thread_key: Uuid },
    /// A thread is followed because of the message with number `seq`, unless that is decided already.
    Follow { root: Uuid, seq: i64 },
    /// Something that needs no check.
    Always,
}

impl Need {
    /// Returns the channel of a draft, the thread, and the number of the message.
    fn columns(self) -> (Option<Uuid>, Option<Uuid>, Option<i64>) {
        match self {
            Self::ClearDraft { channel_id, thread_key } => (Some(channel_id), Some(thread_key), None),
            Self::Follow { root, seq } => (None, Some(root), Some(seq)),
            Self::Always => (None, None, None),
        }
    }
}

impl Record for TakenRev {
    type Key = (Uuid, Need);

    fn key(&self) -> Self::Key {
        (self.user, self.need)
    }

    fn insert() -> &'static RowsSql {
        &TAKE_REV
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.user),
            Column::of(rows, |row| row.need.columns().0),
            Column::of(rows, |row| row.need.columns().1),
            Column::of(rows, |row| row.need.columns().2),
        ]
    }
}

/// Takes the next number of a user's stream, and locks the stream until the transaction ends.
pub(super) const NEXT_USER_REV: &str = "INSERT INTO user_state (user_id, last_rev) VALUES ($1, 1) \
    ON CONFLICT (user_id) DO UPDATE SET last_rev = user_state.last_rev + 1 RETURNING last_rev";
/// Locks the stream of a user until the transaction ends, without taking a number: for what users may do only once at a
/// time.
pub(super) const LOCK_USER: &str = "INSERT INTO user_state (user_id, last_rev) VALUES ($1, 0) \
    ON CONFLICT (user_id) DO UPDATE SET last_rev = user_state.last_rev";
/// Locks the streams in the order of their users, in one statement, so that two batches cannot deadlock.
static TAKE_REV: RowsSql = RowsSql::new(
    "user_id, channel_id, thread_id, seq",
    "INSERT INTO user_state (user_id, last_rev) SELECT DISTINCT r.user_id, 1 FROM r \
     WHERE r.user_id IS NOT NULL AND CASE WHEN r.channel_id IS NOT NULL THEN EXISTS (\
         SELECT 1 FROM message_draft d WHERE d.user_id = r.user_id AND d.channel_id = r.channel_id \
         AND d.thread_key = r.thread_id AND d.deleted_at IS NULL) \
       WHEN r.thread_id IS NULL THEN TRUE \
       ELSE NOT EXISTS (SELECT 1 FROM message_thread_member m WHERE m.user_id = r.user_id \
         AND m.root_message_id = r.thread_id AND (m.following OR m.decided_seq >= r.seq)) END \
     ORDER BY r.user_id ON CONFLICT (user_id) DO UPDATE SET last_rev = user_state.last_rev + 1",
);
/// The condition that selects the rows of a table `t` of a user ($1) with a `user_rev` after $2, about $3 of
/// them: rows that were changed together stay together.
macro_rules! after_user_rev {
    ($table:literal) => {
        concat!(
            " WHERE t.user_id = $1 AND t.user_rev > $2 AND t.user_rev <= COALESCE((SELECT n.user_rev FROM ",
            $table,
            " n WHERE n.user_id = $1 AND n.user_rev > $2 ORDER BY n.user_rev LIMIT 1 OFFSET $3 - 1), \
             9223372036854775807) ORDER BY t.user_rev"
        )
    };
}
pub(super) use after_user_rev;

/// Runs a statement that returns the row that it changes, with the next number of a user's stream. If it changes none,
/// the number is taken back, and the enclosing function returns `Ok(None)`.
macro_rules! numbered {
    ($db:expr, $user:expr, $user_rev:ident => $query:expr) => {
        transaction!($db, tx => {
            let $user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind($user).fetch_one(&mut *tx).await?;
            let row = $query.fetch_optional(&mut *tx).await?;
            if row.is_none() {
                // Leaving without a commit takes back the number.
                return Ok(None);
            }
            row
        })
    };
}
pub(super) use numbered;
