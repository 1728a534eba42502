//! What stands in other tables about messages, and how it goes with them: their content, or everything.

use uuid::Uuid;

use super::message_attachment_use::DETACH;
use super::message_search_index;
use super::rows::{Column, Connection, RowsSql};
use crate::clock::Micros;

/// Takes the content out of deleted messages. What is left of each is its place in the order, and who wrote it.
pub(super) async fn scrub(connection: &mut Connection<'_>, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    for sql in [&GONE].into_iter().chain(&CONTENT).chain([&EMPTY]) {
        sql.execute(connection, &[Column::of(ids, |id| *id)]).await?;
    }
    Ok(())
}

/// Removes messages with everything that belongs to them. The bytes of their files are removed later, as of deleted ones.
pub(super) async fn remove(
    connection: &mut Connection<'_>,
    ids: &[Uuid],
    now: Micros,
) -> Result<(), sqlx::Error> {
    DETACH.execute(connection, &[Column::of(ids, |id| *id), Column::of(ids, |_| now)]).await?;
    message_search_index::remove(connection, ids).await?;
    for sql in [&GONE].into_iter().chain(&CONTENT).chain(&REST) {
        sql.execute(connection, &[Column::of(ids, |id| *id)]).await?;
    }
    Ok(())
}

/// A statement that takes the ids of messages.
const fn of_messages(sql: &'static str) -> RowsSql {
    RowsSql::new("id", sql)
}

/// What messages say, and what was said about them. A feature with a table of its own adds one line.
static CONTENT: [RowsSql; 8] = [
    of_messages("DELETE FROM message_edit WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message_reaction WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message_poll WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message_poll_vote WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message_ack WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message_stream WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("UPDATE message_report SET body = '' FROM r WHERE message_report.message_id = r.id"),
    of_messages("DELETE FROM message_mention WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
];
static EMPTY: RowsSql = of_messages(
    "UPDATE message SET body = '', mentions = NULL, reactions = NULL, poll = NULL, metadata = NULL, \
     attachments = NULL, embeds = NULL, forward_of = NULL, nonce = NULL, content_hash = 0 FROM r \
     WHERE message.id = r.id",
);
/// Copies in other channels lose the text in steps of their own (`super::message_retention`): there may be any number of
/// them, and more while this is not committed.
static GONE: RowsSql = of_messages(
    "INSERT INTO message_gone (original_id, look_at) SELECT r.id, 0 FROM r WHERE r.id IS NOT NULL \
     ON CONFLICT (original_id) DO UPDATE SET look_at = 0",
);
/// What only points to messages, and the messages themselves, which come last.
static REST: [RowsSql; 6] = [
    of_messages(
        "DELETE FROM message_pin WHERE (channel_id, message_id) IN \
         (SELECT m.channel_id, m.id FROM r JOIN message m ON m.id = r.id WHERE r.id IS NOT NULL)",
    ),
    of_messages(
        "DELETE FROM message_thread WHERE root_message_id IN (SELECT id FROM r WHERE id IS NOT NULL)",
    ),
    of_messages(
        "DELETE FROM message_thread_member WHERE root_message_id IN (SELECT id FROM r WHERE id IS NOT NULL)",
    ),
    of_messages("DELETE FROM message_forward WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message_bookmark WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
    of_messages("DELETE FROM message WHERE id IN (SELECT id FROM r WHERE id IS NOT NULL)"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::{Config, Db, sqlite_plan};

    #[tokio::test]
    async fn everything_of_a_message_is_found_by_an_index() {
        for sql in CONTENT.iter().chain([&EMPTY]).chain(&REST) {
            let sql = sql.sqlite_text(1, 2).unwrap();
            let plan = sqlite_plan(&sql).await;
            assert!(plan.iter().any(|line| line.starts_with("SEARCH message")), "{sql}: {plan:#?}");
            assert!(!plan.iter().any(|line| line.starts_with("SCAN message")), "{sql}: {plan:#?}");
        }
    }

    #[tokio::test]
    async fn a_new_table_about_messages_is_noticed() {
        let config = Config { url: Some(String::from("sqlite::memory:").into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT t.name FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND c.name IN ('message_id', 'root_message_id') ORDER BY t.name",
        )
        .fetch_all(&sqlite.writer)
        .await
        .unwrap();
        let texts: Vec<String> =
            CONTENT.iter().chain(&REST).map(|sql| sql.sqlite_text(1, 1).unwrap().to_string()).collect();
        let goes = |table: &str| texts.iter().any(|text| text.contains(&format!("DELETE FROM {table} ")));
        let left: Vec<&str> = tables.iter().map(String::as_str).filter(|table| !goes(table)).collect();
        // A log that ends by itself, what has a statement of its own above, and what a user wrote for later.
        let known =
            ["channel_change", "message_attachment", "message_report", "message_scheduled", "message_search"];
        assert_eq!(left, known);
    }
}
