//! Search: which messages, in channels that the reader may read, contain what is searched for, newest first.
//!
//! The index ([`super::message_search_index`]) names candidates: messages that have the numbers of all words. Each is
//! then read and compared, so that what is found is what is there now, and the same on both databases.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::db::Db;
use super::message::{ANSWER_BYTES_MAX, ContentType, MessageDetail};
use super::message_page::{Room, rows_by_id, views};
use super::message_row::Message;
use super::message_search_index::{ROLE_AUTHOR, ROLE_CHANNEL, ROLE_MENTIONED, as_words, id_at, place_of};
use super::search_terms::{Token, add_terms_of_query, contains_all, term_of_content, term_of_id, tokens};
use super::text::Mentions;
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// What a message can have besides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SearchHas")]
pub enum Has {
    /// The address of a web page in its text.
    Link,
    /// Attached files.
    Attachment,
    /// A poll.
    Poll,
}

impl Has {
    pub(super) const ALL: [Self; 3] = [Self::Link, Self::Attachment, Self::Poll];

    /// Returns the number of this content in the index.
    pub(super) fn term(self) -> i32 {
        term_of_content(match self {
            Self::Link => "link",
            Self::Attachment => "attachment",
            Self::Poll => "poll",
        })
    }

    pub(super) fn is_in(self, row: &Message) -> bool {
        match self {
            Self::Link => row.body.contains("https://") || row.body.contains("http://"),
            Self::Attachment => row.attachment_count > 0,
            Self::Poll => row.poll.is_some(),
        }
    }
}

/// The words of a search; empty by default.
#[derive(Debug, Clone, Default)]
pub struct Words(Vec<Token>);

/// What is searched for. A message is found if everything applies to it.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The words of the text.
    pub words: Words,
    /// The author.
    pub from: Option<Uuid>,
    /// A user who is mentioned by name.
    pub mentions: Option<Uuid>,
    /// What the message has.
    pub has: Vec<Has>,
    /// The latest time of the message, exclusive.
    pub before: Option<Micros>,
    /// The earliest time of the message, inclusive.
    pub after: Option<Micros>,
}

impl Query {
    /// Creates a query for the words of a text.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for more than [`WORDS_MAX`] words.
    pub fn new(text: &str) -> ImksResult<Self> {
        let words = tokens(text);
        if words.len() > WORDS_MAX {
            return Err(ImksError::invalid("q", format!("has more than {WORDS_MAX} words")));
        }
        Ok(Self { words: Words(words), ..Self::default() })
    }

    /// Whether every message would be found.
    pub fn is_empty(&self) -> bool {
        self.words.0.is_empty() && self.from.is_none() && self.mentions.is_none() && self.has.is_empty()
    }

    /// Whether this applies to a message.
    fn applies_to(&self, row: &Message) -> bool {
        is_searchable(row)
            && self.from.is_none_or(|author| author == row.author_id)
            && self.before.is_none_or(|before| row.created_at < before)
            && self.after.is_none_or(|after| row.created_at >= after)
            && self.has.iter().all(|has| has.is_in(row))
            && self.mentions.is_none_or(|user| {
                Mentions::from_stored(row.mentions.as_deref()).is_ok_and(|it| it.users.contains(&user))
            })
            && contains_all(&tokens(&row.body), &self.words.0)
    }

    /// Returns the numbers that a message must have.
    fn terms(&self) -> Vec<i32> {
        let mut terms: Vec<i32> = self.has.iter().map(|has| has.term()).collect();
        terms.extend(self.from.map(|id| term_of_id(ROLE_AUTHOR, id)));
        terms.extend(self.mentions.map(|id| term_of_id(ROLE_MENTIONED, id)));
        add_terms_of_query(&self.words.0, &mut terms);
        terms.sort_unstable();
        terms.dedup();
        terms
    }
}

/// Whether a message can be found at all: deleted messages and texts that only their readers can decrypt cannot.
pub(super) fn is_searchable(row: &Message) -> bool {
    row.deleted_at.is_none() && ContentType::from_stored(row.content_type) != ContentType::E2ee
}

/// A page of what was found.
#[derive(Debug)]
pub struct Found {
    /// The messages, newest first.
    pub messages: Vec<MessageDetail>,
    /// The position after which the search continues; `None` at its end. A page may have fewer messages than were
    /// wanted, even none, before the end.
    pub next: Option<Uuid>,
}

/// The limits of one page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The position after which to continue; `None` for the newest messages.
    pub cursor: Option<Uuid>,
    /// The most messages.
    pub limit: usize,
    /// About the most bytes of the messages.
    pub bytes: usize,
}

/// Searches `channels`, all of which `reader` may read. At most [`CANDIDATES_MAX`] messages are compared.
///
/// # Errors
/// [`ImksError::Database`], also when the database gives up because it took too long.
pub async fn find(
    db: &Db,
    reader: Uuid,
    channels: &[Uuid],
    query: &Query,
    page: Page,
    now: Micros,
) -> ImksResult<Found> {
    if channels.is_empty() {
        return Ok(Found { messages: Vec::new(), next: None });
    }
    let mut room = Room { rows: page.limit, bytes: page.bytes };
    let index = Index::new(db, channels, query, now);
    let (mut rows, mut next) = (Vec::new(), page.cursor);
    for _ in 0..CANDIDATES_MAX / CANDIDATES_STEP {
        let candidates = index.candidates(next).await?;
        for chunk in candidates.chunks(COMPARED_AT_ONCE) {
            let (mut read, _) = rows_by_id(db, chunk, COMPARED_AT_ONCE * ANSWER_BYTES_MAX).await?;
            for id in chunk {
                next = Some(*id);
                let Some(at) = read.iter().position(|row| row.id == *id) else { continue };
                let row = read.swap_remove(at);
                if channels.contains(&row.channel_id) && query.applies_to(&row) {
                    room.take(&row);
                    rows.push(row);
                }
                if room.is_full() {
                    return Ok(Found { messages: views(db, reader, rows).await?, next });
                }
            }
        }
        if candidates.len() < CANDIDATES_STEP {
            next = None;
            break;
        }
    }
    Ok(Found { messages: views(db, reader, rows).await?, next })
}

/// The index, as one search asks it.
struct Index<'a> {
    db: &'a Db,
    terms: Vec<i32>,
    channels: Vec<i32>,
    /// The bounds in time, as ids.
    from: Uuid,
    until: Uuid,
    now: Micros,
}

impl<'a> Index<'a> {
    fn new(db: &'a Db, channels: &[Uuid], query: &Query, now: Micros) -> Self {
        let channels = channels.iter().map(|id| term_of_id(ROLE_CHANNEL, *id)).collect();
        let from = query.after.map_or(Uuid::nil(), id_at);
        // A millisecond later: the ids of a millisecond are not below its own bound.
        let until = query.before.map_or(Uuid::max(), |before| id_at(before.saturating_add(1_000)));
        Self { db, terms: query.terms(), channels, from, until, now }
    }

    /// Returns up to [`CANDIDATES_STEP`] messages older than `cursor`, newest first; fewer if there are no more. The
    /// newest time is looked at first: a word that many messages have is then found without reading all of them.
    async fn candidates(&self, cursor: Option<Uuid>) -> ImksResult<Vec<Uuid>> {
        let mut found = Vec::new();
        let mut until = cursor.map_or(self.until, |cursor| cursor.min(self.until));
        let newest = until.min(id_at(self.now));
        for window in WINDOWS {
            let from = id_before(newest, window).max(self.from);
            if from < until {
                self.add_window(from, until, &mut found).await?;
                until = from;
            }
            if found.len() >= CANDIDATES_STEP || from == self.from {
                break;
            }
        }
        Ok(found)
    }

    async fn add_window(&self, from: Uuid, until: Uuid, found: &mut Vec<Uuid>) -> ImksResult<()> {
        let limit = i64::try_from(CANDIDATES_STEP - found.len()).unwrap_or(i64::MAX);
        let ids: Vec<Uuid> = match self.db {
            Db::Postgres(pool) => {
                let query = sqlx::query_scalar(CANDIDATES_POSTGRES).bind(&self.terms).bind(&self.channels);
                query.bind(from).bind(until).bind(limit).fetch_all(pool).await?
            }
            Db::Sqlite(sqlite) => {
                let query =
                    sqlx::query_scalar(CANDIDATES_SQLITE).bind(self.expression()).bind(place_of(from));
                query.bind(until).bind(place_of(until)).bind(limit).fetch_all(&sqlite.reader).await?
            }
        };
        found.extend(ids);
        Ok(())
    }

    /// Returns the query in the language of FTS5: one of the channels, and all of the terms.
    fn expression(&self) -> String {
        let mut expression = format!("({})", as_words(&self.channels, " OR "));
        if !self.terms.is_empty() {
            expression.push_str(" AND ");
            expression.push_str(&as_words(&self.terms, " AND "));
        }
        expression
    }
}

/// Returns the lowest id of the time that is `micros` before that of `id`.
fn id_before(id: Uuid, micros: Micros) -> Uuid {
    let at = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX / 1_000) * 1_000;
    id_at(at.saturating_sub(micros).max(0))
}

/// The most words in one query.
pub const WORDS_MAX: usize = 32;
/// The most messages that one search compares with the query.
pub const CANDIDATES_MAX: usize = 500;
/// The candidates that are requested from the index at once.
const CANDIDATES_STEP: usize = 100;
/// The candidates whose messages are read at once.
const COMPARED_AT_ONCE: usize = 20;
const DAY: Micros = 24 * 3_600 * 1_000_000;
/// How far back the index is asked at first, then, and at last.
const WINDOWS: [Micros; 4] = [DAY, 15 * DAY, 180 * DAY, Micros::MAX];

/// Materialised, so that the number index is always used: ordering the whole table by time and stopping early would
/// be as slow as the word is rare.
pub const CANDIDATES_POSTGRES: &str = "WITH found AS MATERIALIZED (SELECT message_id FROM message_search \
      WHERE terms @> $1 AND terms && $2 AND message_id >= $3 AND message_id < $4) \
    SELECT message_id FROM found ORDER BY message_id DESC LIMIT $5";
const CANDIDATES_SQLITE: &str = "SELECT s.message_id FROM message_search_terms \
    JOIN message_search s ON s.place = message_search_terms.rowid \
    WHERE message_search_terms MATCH $1 AND message_search_terms.rowid >= $2 \
      AND message_search_terms.rowid < COALESCE((SELECT place FROM message_search WHERE message_id = $3), $4) \
    ORDER BY message_search_terms.rowid DESC LIMIT $5";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn a_search_on_sqlite_reads_its_index_in_the_order_of_time() {
        let plan = sqlite_plan(CANDIDATES_SQLITE).await;
        assert!(
            plan.iter().any(|line| line.starts_with("SCAN message_search_terms VIRTUAL TABLE INDEX")),
            "{plan:#?}"
        );
        assert!(plan.iter().any(|line| line.starts_with("SEARCH s USING INTEGER PRIMARY KEY")), "{plan:#?}");
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{plan:#?}");
    }

    #[test]
    fn a_query_has_a_bounded_number_of_words() {
        assert!(Query::new(&"a ".repeat(WORDS_MAX)).is_ok());
        assert_eq!(Query::new(&"a ".repeat(WORDS_MAX + 1)).unwrap_err().code(), "invalid_input");
        assert!(Query::new(" -- ").unwrap().is_empty());
    }
}
