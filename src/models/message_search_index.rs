//! The index of search: for each message the numbers of its words ([`super::search_terms`]), and those of its
//! channel, its author, the users it mentions and what it has.
//!
//! The index follows the messages a moment later (docs/adr/0037): sending costs nothing more, and one pass adds the
//! messages of many channels with a few statements. A row per channel says how far it has come, so that a crash leaves
//! no hole. What has changed is read again, so the order in which messages and changes are followed does not matter.

use std::collections::HashSet;
use std::fmt::Write as _;

use sqlx::FromRow;
use uuid::Uuid;

use super::channel_change::ChangeKind;
use super::db::{Db, detached, on, transaction};
use super::message_id::seq_of;
use super::message_row::{BY_IDS, Message, message_columns};
use super::message_search::{Has, is_searchable};
use super::rows::{Column, Connection, RowsSql};
use super::search_terms::{add_terms_of_text, term_of_id, tokens};
use super::text::Mentions;
use crate::ImksResult;
use crate::clock::Micros;

/// Brings the index up to date with `channels`, up to [`messages_at_once`] and as many changes. Returns the
/// channels with which it is not up to date yet.
///
/// # Errors
/// [`crate::ImksError::Database`]; then nothing has changed.
pub async fn follow(db: &Db, channels: Vec<Uuid>) -> ImksResult<Vec<Uuid>> {
    let (db, at_once) = (db.clone(), messages_at_once(db));
    detached(async move {
        Ok(transaction!(&db, tx => pass(&mut Connection::from(&mut *tx), channels, at_once).await?))
    })
    .await
}

/// Returns the most messages, and the most changes, of one pass.
pub fn messages_at_once(db: &Db) -> i64 {
    match db {
        Db::Postgres(_) => MESSAGES_AT_ONCE,
        // Everybody else who writes waits for a pass.
        Db::Sqlite(_) => MESSAGES_AT_ONCE / 4,
    }
}

/// Returns the channels, among the next [`COMPARED_AT_ONCE`] after `after` in the order of their ids, with which the
/// index is not up to date, and the channel after which to continue; `None` after the last.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn behind(db: &Db, after: Uuid) -> ImksResult<(Vec<Uuid>, Option<Uuid>)> {
    let compared: Vec<(Uuid, bool)> = on!(read db, pool => {
        sqlx::query_as(BEHIND).bind(after).bind(COMPARED_AT_ONCE).fetch_all(pool).await?
    });
    let is_full = i64::try_from(compared.len()).is_ok_and(|count| count >= COMPARED_AT_ONCE);
    let next = compared.last().filter(|_| is_full).map(|(channel, _)| *channel);
    let behind = compared.into_iter().filter(|(_, is_behind)| *is_behind).map(|(channel, _)| channel);
    Ok((behind.collect(), next))
}

/// A channel: how far the index has come, and how far this pass goes.
#[derive(Debug, FromRow)]
struct Progress {
    channel_id: Uuid,
    seq: i64,
    rev: i64,
    last_seq: i64,
    last_rev: i64,
}

impl Progress {
    fn is_behind(&self) -> bool {
        self.seq < self.last_seq || self.rev < self.last_rev
    }

    /// Returns a range of numbers after `done`, and takes its length from what is left of the pass.
    fn next(done: i64, last: i64, left: &mut i64) -> (i64, i64) {
        let until = last.min(done + *left).max(done);
        *left -= until - done;
        (done, until)
    }
}

async fn pass(
    connection: &mut Connection<'_>,
    mut channels: Vec<Uuid>,
    at_once: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    channels.sort_unstable();
    // Waits for another node that follows the same channels. Heads are read after that, in a snapshot of their own.
    let locked: Vec<(Uuid,)> = LOCK.fetch(connection, &[Column::Ids(channels.clone())]).await?;
    let locked = locked.into_iter().map(|(channel,)| channel).collect();
    let mut progress: Vec<Progress> = HEADS.fetch(connection, &[Column::Ids(locked)]).await?;
    let (mut messages_left, mut changes_left) = (at_once, at_once);
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for channel in &mut progress {
        let messages = Progress::next(channel.seq, channel.last_seq, &mut messages_left);
        let changes = Progress::next(channel.rev, channel.last_rev, &mut changes_left);
        (channel.seq, channel.rev) = (messages.1, changes.1);
        new.extend((messages.0 < messages.1).then_some((channel.channel_id, messages)));
        changed.extend((changes.0 < changes.1).then_some((channel.channel_id, changes)));
    }
    let mut rows: Vec<Message> = MESSAGES.fetch(connection, &ranges(&new)).await?;
    let known: HashSet<Uuid> = rows.iter().map(|row| row.id).collect();
    let changed: Vec<(Uuid,)> = CHANGED.fetch(connection, &ranges(&changed)).await?;
    let changed: HashSet<Uuid> =
        changed.into_iter().map(|(id,)| id).filter(|id| !known.contains(id)).collect();
    let changed: Vec<Message> = BY_IDS.fetch(connection, &[Column::of(&changed, |id| *id)]).await?;
    rows.extend(changed);
    let (kept, gone): (Vec<Message>, Vec<Message>) = rows.into_iter().partition(is_searchable);
    store(connection, &kept).await?;
    remove(connection, &gone.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
    ADVANCE.execute(connection, &advance_columns(&progress)).await?;
    Ok(progress.iter().filter(|channel| channel.is_behind()).map(|channel| channel.channel_id).collect())
}

fn ranges(channels: &[(Uuid, (i64, i64))]) -> [Column<'_>; 3] {
    [
        Column::of(channels, |(channel, _)| *channel),
        Column::of(channels, |(_, (after, _))| *after),
        Column::of(channels, |(_, (_, until))| *until),
    ]
}

fn advance_columns(progress: &[Progress]) -> [Column<'_>; 3] {
    [
        Column::of(progress, |channel| channel.channel_id),
        Column::of(progress, |channel| channel.seq),
        Column::of(progress, |channel| channel.rev),
    ]
}

async fn store(connection: &mut Connection<'_>, rows: &[Message]) -> Result<(), sqlx::Error> {
    let ids = || Column::of(rows, |row| row.id);
    let terms: Vec<Vec<i32>> = rows.iter().map(terms_of).collect();
    if matches!(connection, Connection::Postgres(_)) {
        let arrays: Vec<String> = terms.iter().map(|terms| as_array(terms)).collect();
        return STORE_POSTGRES.execute(connection, &[ids(), Column::of(&arrays, |text| text)]).await;
    }
    // A message that was stored before keeps its place. One whose place is taken gets the next one.
    let mut without: Vec<(Uuid, i64)> = rows.iter().map(|row| (row.id, place_of(row.id))).collect();
    while !without.is_empty() {
        let columns = || [Column::of(&without, |(id, _)| *id), Column::of(&without, |(_, place)| *place)];
        TAKE_PLACES.execute(connection, &columns()).await?;
        let still: Vec<(Uuid, i64)> = WITHOUT_PLACE.fetch(connection, &columns()).await?;
        without = still.into_iter().map(|(id, place)| (id, place + 1)).collect();
    }
    let words: Vec<String> = terms.iter().map(|terms| as_words(terms, " ")).collect();
    STORE_SQLITE.execute(connection, &[ids(), Column::of(&words, |text| text)]).await
}

/// Keeps other nodes from following a channel until the end of the transaction. Whoever removes its messages needs that: a
/// pass that has read one of them would store its words again.
pub(super) async fn lock(connection: &mut Connection<'_>, channel: Uuid) -> Result<(), sqlx::Error> {
    LOCK.execute(connection, &[Column::Ids(vec![channel])]).await
}

/// Removes messages from the index.
pub(super) async fn remove(connection: &mut Connection<'_>, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    let ids = || [Column::of(ids, |id| *id)];
    if matches!(connection, Connection::Sqlite(_)) {
        REMOVE_TERMS_SQLITE.execute(connection, &ids()).await?;
    }
    REMOVE.execute(connection, &ids()).await
}

/// Returns the numbers of a message, sorted.
fn terms_of(row: &Message) -> Vec<i32> {
    let mut terms = vec![term_of_id(ROLE_CHANNEL, row.channel_id), term_of_id(ROLE_AUTHOR, row.author_id)];
    // A message whose mentions cannot be read is found by everything else.
    let mentions = Mentions::from_stored(row.mentions.as_deref()).unwrap_or_default();
    terms.extend(mentions.users.iter().map(|user| term_of_id(ROLE_MENTIONED, *user)));
    terms.extend(Has::ALL.into_iter().filter(|has| has.is_in(row)).map(Has::term));
    add_terms_of_text(&tokens(&row.body), &mut terms);
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// Returns terms as words of FTS5.
pub(super) fn as_words(terms: &[i32], between: &str) -> String {
    let mut words = String::with_capacity(terms.len() * (8 + between.len()));
    for (index, term) in terms.iter().enumerate() {
        let between = if index == 0 { "" } else { between };
        // Writing to a String cannot fail.
        let _ = write!(words, "{between}{term:08x}");
    }
    words
}

/// Returns terms as the text of a PostgreSQL array.
fn as_array(terms: &[i32]) -> String {
    let numbers: Vec<String> = terms.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// Returns the place that a message gets on SQLite unless it is taken: places are in the order of time.
pub(super) fn place_of(id: Uuid) -> i64 {
    let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX).min((1 << 43) - 1);
    (millis << PLACE_BITS) | (seq_of(id) & ((1 << PLACE_BITS) - 1))
}

/// Returns the lowest id of a time.
pub(super) fn id_at(at: Micros) -> Uuid {
    let millis = u128::try_from(at / 1_000).unwrap_or(0).min((1 << 48) - 1);
    Uuid::from_u128(millis << 80)
}

pub(super) const ROLE_CHANNEL: u8 = b'i';
pub(super) const ROLE_AUTHOR: u8 = b'a';
pub(super) const ROLE_MENTIONED: u8 = b'm';

/// The bits of a place below its millisecond.
const PLACE_BITS: u32 = 20;
/// The most messages, and the most changes, of one pass with PostgreSQL.
pub const MESSAGES_AT_ONCE: i64 = 256;
/// The channels that one call of [`behind`] compares.
pub const COMPARED_AT_ONCE: i64 = 1_000;

static LOCK: RowsSql = RowsSql::new(
    "channel_id",
    "INSERT INTO message_search_state (channel_id) SELECT channel_id FROM r WHERE channel_id IS NOT NULL \
     ORDER BY channel_id ON CONFLICT (channel_id) DO UPDATE SET seq = message_search_state.seq RETURNING channel_id",
);
static HEADS: RowsSql = RowsSql::new(
    "wanted",
    "SELECT s.channel_id, s.seq, s.rev, c.last_seq, c.last_rev FROM r JOIN message_search_state s \
     ON s.channel_id = r.wanted JOIN channel_state c ON c.channel_id = r.wanted",
);
static MESSAGES: RowsSql = RowsSql::new(
    "wanted, above, until",
    concat!(
        "SELECT ",
        message_columns!(),
        " FROM r JOIN message ON message.channel_id = r.wanted AND message.seq > r.above AND message.seq <= r.until"
    ),
);
/// Reactions, pins, votes and threads change nothing that is searched for.
static CHANGED: RowsSql = RowsSql::new(
    "wanted, above, until",
    "SELECT k.message_id FROM r JOIN channel_change k ON k.channel_id = r.wanted AND k.rev > r.above \
     AND k.rev <= r.until WHERE k.kind IN (0, 1, 7, 9)",
);
const _: () =
    assert!(ChangeKind::Edit as i32 == 0 && ChangeKind::Delete as i32 == 1 && ChangeKind::Stream as i32 == 7);
const _: () = assert!(ChangeKind::Author as i32 == 9);
static STORE_POSTGRES: RowsSql = RowsSql::new(
    "message_id, terms",
    "INSERT INTO message_search (message_id, terms) SELECT message_id, terms::int4[] FROM r \
     WHERE message_id IS NOT NULL ON CONFLICT (message_id) DO UPDATE SET terms = excluded.terms",
);
static TAKE_PLACES: RowsSql = RowsSql::new(
    "message_id, place",
    "INSERT INTO message_search (message_id, place) SELECT * FROM r WHERE message_id IS NOT NULL \
     ON CONFLICT DO NOTHING",
);
static WITHOUT_PLACE: RowsSql = RowsSql::new(
    "wanted, place",
    "SELECT r.wanted, r.place FROM r WHERE r.wanted IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM message_search s WHERE s.message_id = r.wanted)",
);
static STORE_SQLITE: RowsSql = RowsSql::new(
    "wanted, terms",
    "INSERT OR REPLACE INTO message_search_terms (rowid, terms) SELECT s.place, r.terms FROM r \
     JOIN message_search s ON s.message_id = r.wanted",
);
static REMOVE_TERMS_SQLITE: RowsSql = RowsSql::new(
    "wanted",
    "DELETE FROM message_search_terms WHERE rowid IN \
     (SELECT s.place FROM r JOIN message_search s ON s.message_id = r.wanted)",
);
static REMOVE: RowsSql = RowsSql::new(
    "wanted",
    "DELETE FROM message_search WHERE message_id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL)",
);
static ADVANCE: RowsSql = RowsSql::new(
    "channel_id, seq, rev",
    "UPDATE message_search_state SET seq = r.seq, rev = r.rev FROM r \
     WHERE message_search_state.channel_id = r.channel_id",
);
const BEHIND: &str = "SELECT c.channel_id, c.last_seq > COALESCE(s.seq, 0) OR c.last_rev > COALESCE(s.rev, 0) \
    FROM (SELECT channel_id, last_seq, last_rev FROM channel_state WHERE channel_id > $1 ORDER BY channel_id LIMIT $2) c \
    LEFT JOIN message_search_state s ON s.channel_id = c.channel_id ORDER BY c.channel_id";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn following_reads_no_table_from_end_to_end() {
        for (sql, columns) in [(&HEADS, 1), (&MESSAGES, 3), (&CHANGED, 3), (&WITHOUT_PLACE, 2)] {
            let plan = sqlite_plan(&sql.sqlite_text(columns, 2).unwrap()).await;
            let scans = |line: &&String| {
                line.starts_with("SCAN ") && !line.ends_with(" r") && !line.contains("CONSTANT")
            };
            assert_eq!(plan.iter().find(scans), None, "{plan:#?}");
        }
        assert!(sqlite_plan(BEHIND).await.iter().any(|line| line.starts_with("SEARCH channel_state")));
    }

    #[test]
    fn places_are_in_the_order_of_time_and_distinct_within_a_channel() {
        let id = |ms, seq, random| super::super::message_id::new(ms, seq, random);
        assert!(place_of(id(5, 900, 1)) < place_of(id(6, 1, 0)));
        assert!(place_of(id(5, 1, 9)) < place_of(id(5, 2, 0)));
        assert!(place_of(id_at(5_000)) <= place_of(id(5, 0, 0)) && place_of(Uuid::max()) > 0);
    }

    #[test]
    fn a_pass_shares_its_size_among_channels() {
        let mut left = 10;
        assert_eq!(Progress::next(3, 9, &mut left), (3, 9));
        assert_eq!(Progress::next(0, 100, &mut left), (0, 4));
        assert_eq!(Progress::next(7, 100, &mut left), (7, 7));
    }
}
