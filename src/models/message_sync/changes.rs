//! The changes of channels after the cursors of a client, from the log of changes.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use super::{Cursor, sync_limit, total_limit};
use crate::ImksResult;
use crate::models::channel_state::ChannelHead;
use crate::models::db::Db;
use crate::models::rows::{Column, RowsSql};

/// The changed messages of a channel, with the number of their last change.
pub(super) type Changed = HashMap<Uuid, i64>;

/// The changes after the cursors. Of channels that come after more changes than fit into one answer it knows nothing.
pub(super) struct Changes {
    of_channel: HashMap<Uuid, Changed>,
    /// The number of cursors, always the first ones, after which the log was looked at: at least one, if there are any.
    pub(super) covered: usize,
}

impl Changes {
    /// Reads the changes between the cursors and the heads. What was changed again meanwhile keeps the number up to
    /// there: whoever takes a greater one for known would miss those in between.
    pub(super) async fn read(db: &Db, cursors: &[Cursor], heads: &[ChannelHead]) -> ImksResult<Self> {
        let (mut behind, mut entries, mut covered) = (Vec::new(), 0, 0);
        for (place, (cursor, head)) in cursors.iter().zip(heads).enumerate() {
            if is_told_one_by_one(cursor, head) {
                entries += head.last_rev - cursor.rev;
                if entries > ENTRIES_MAX {
                    break;
                }
                behind.push((place, (cursor, head)));
            }
            covered = place + 1;
        }
        let columns = [
            Column::of(&behind, |(_, (cursor, _))| cursor.channel_id),
            Column::of(&behind, |(_, (cursor, _))| cursor.rev),
            Column::of(&behind, |(_, (_, head))| head.last_rev),
            Column::of(&behind, |(place, _)| i64::try_from(*place).unwrap_or(i64::MAX)),
        ];
        let mut of_channel: HashMap<Uuid, Changed> = HashMap::new();
        for ChangeRow { channel_id, message_id, rev } in CHANGES.read(db, &columns).await? {
            of_channel.entry(channel_id).or_default().insert(message_id, rev);
        }
        Ok(Self { of_channel, covered })
    }

    /// Returns the changes of a channel after its cursor; `None` if they cannot be told one by one, because they are
    /// too many, or because the log does not reach back to the cursor.
    pub(super) fn of(&mut self, cursor: &Cursor, head: &ChannelHead) -> Option<Changed> {
        match cursor.rev < head.last_rev {
            true => self.of_channel.remove(&cursor.channel_id),
            false => Some(Changed::new()),
        }
    }
}

/// Whether the log is looked at for a channel. Numbers have no holes, so its entries can be counted without reading them.
/// What is read of it must be part of the answer: a cursor of another history makes no use of it.
fn is_told_one_by_one(cursor: &Cursor, head: &ChannelHead) -> bool {
    cursor.seq <= head.last_seq && (1..=CHANNEL_ENTRIES_MAX).contains(&(head.last_rev - cursor.rev))
}

/// The most entries in the log of a channel, of however few messages, after which a client starts over.
const CHANNEL_ENTRIES_MAX: i64 = 2_000;
/// The most entries in the log that are looked at for one answer.
const ENTRIES_MAX: i64 = 20_000;

#[derive(FromRow)]
struct ChangeRow {
    channel_id: Uuid,
    message_id: Uuid,
    rev: i64,
}

// Numbers have no holes: if the next change after the cursor is not in the log, it was already swept.
static CHANGES: RowsSql = RowsSql::new(
    "of_channel, since, until, place",
    concat!(
        "SELECT channel_id, message_id, rev FROM (\
           SELECT r.place, r.since, c.channel_id, c.message_id, MAX(c.rev) AS rev, \
             MIN(MIN(c.rev)) OVER (PARTITION BY r.place) AS first, COUNT(*) OVER (PARTITION BY r.place) AS messages \
           FROM r JOIN channel_change c ON c.channel_id = r.of_channel AND c.rev > r.since AND c.rev <= r.until \
           WHERE r.of_channel IS NOT NULL GROUP BY r.place, r.since, c.channel_id, c.message_id) AS changed \
         WHERE first = since + 1 AND messages <= ",
        sync_limit!(),
        " ORDER BY place LIMIT 1 + ",
        total_limit!()
    ),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn changes_on_sqlite_are_found_by_an_index() {
        let plan = sqlite_plan(&CHANGES.sqlite_text(4, 8).unwrap()).await;
        assert!(plan.iter().any(|line| line.starts_with("SEARCH c USING")), "{plan:#?}");
    }
}
