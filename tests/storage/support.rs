//! A store of its own for each test, and short words for what tests do with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use imks::testing::models::append::{Appender, Authority, Commits, Config, Mutation, Receipt, Scope};
use imks::testing::models::db::{self, Db};
use imks::testing::models::message::{AuthorInfo, ContentType, MessageDetail, MessageType, Priority};
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_edit::EditMessage;
use imks::testing::models::message_embed::Embeds;
use imks::testing::models::message_mention::Mentioned;
use imks::testing::models::message_page::{self, MessagePage, Page, Position};
use imks::testing::models::message_send::{NewMessage, Sent};
use imks::testing::models::text::{Mentions, MessageBody};
use imks::{ImksError, ImksResult};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Runs one test body on a fresh SQLite file and on a fresh PostgreSQL schema.
macro_rules! on_both {
    ($(async fn $name:ident($store:ident: &Store) $body:block)*) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn body($store: &$crate::support::Store) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                let store = $crate::support::Store::sqlite().await;
                body(&store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                let store = $crate::support::Store::postgres().await;
                body(&store).await;
            }
        })*
    };
}
pub(crate) use on_both;

pub struct Store {
    pub db: Db,
    pub config: db::Config,
    schema: Option<String>,
    _directory: Option<tempfile::TempDir>,
}

impl Store {
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = db::Config { data_dir: directory.path().into(), ..db::Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        Self { db, config, schema: None, _directory: Some(directory) }
    }

    pub async fn postgres() -> Self {
        let store = Self::empty_postgres().await;
        store.db.migrate().await.unwrap();
        store
    }

    /// Without tables.
    pub async fn empty_postgres() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let schema = format!("imks_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        admin(format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await;
        let separator = if url().contains('?') { '&' } else { '?' };
        let url =
            Some(format!("{}{separator}options[search_path]={schema}&application_name={schema}", url()));
        let config = db::Config { url: url.map(Into::into), max_connections: 6, ..db::Config::default() };
        let db = Db::connect(&config).await.unwrap();
        Self { db, config, schema: Some(schema), _directory: None }
    }

    /// A second process would do this.
    pub async fn opened_again(&self) -> Db {
        Db::connect(&self.config).await.unwrap()
    }

    pub fn writer(&self) -> Writer {
        Writer::start(self.db.clone(), Config::default())
    }

    pub async fn execute(&self, sql: &str) {
        match &self.db {
            Db::Postgres(pool) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
            }
            Db::Sqlite(sqlite) => {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&sqlite.writer).await.unwrap();
            }
        }
    }

    /// A message as somebody sees it.
    pub async fn seen(&self, reader: Uuid, channel: Uuid, message: Uuid) -> MessageDetail {
        message_page::get_many(&self.db, reader, channel, &[message], 1 << 20).await.unwrap().0.remove(0)
    }

    pub async fn page(&self, channel: Uuid, position: Position, limit: u32) -> MessagePage {
        let page = Page { position, thread_id: None, limit };
        message_page::page(&self.db, Uuid::nil(), channel, page, 1 << 20).await.unwrap()
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        match &self.db {
            Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
            Db::Sqlite(sqlite) => sqlx::query_scalar(sql).fetch_one(&sqlite.reader).await.unwrap(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(schema) = self.schema.take() else { return };
        let clean_up = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(admin(format!("DROP SCHEMA {schema} CASCADE")));
        };
        std::thread::spawn(clean_up).join().unwrap();
    }
}

fn url() -> String {
    std::env::var("IMKS_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into())
}

async fn admin(sql: String) {
    let mut connection =
        PgConnection::connect(&url()).await.expect("PostgreSQL for tests, see IMKS_TEST_POSTGRES_URL");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// An appender whose commits are read by the test.
pub struct Writer {
    pub appender: Appender,
    pub commits: Vec<Commits>,
}

impl Writer {
    pub fn start(db: Db, config: Config) -> Self {
        let (appender, commits) = Appender::start(db, config);
        Self { appender, commits }
    }

    /// Lets the commits be read by nobody in particular, so that their queue never fills.
    pub fn unheard(mut self) -> Self {
        for mut commits in self.commits.drain(..) {
            TaskTracker::new().spawn(async move { while commits.recv().await.is_some() {} });
        }
        self
    }

    pub fn submit<M: Mutation>(&self, scope: Scope, mutation: M) -> ImksResult<Receipt<M::Done>> {
        self.appender.submit(scope, mutation)
    }

    pub async fn send(&self, scope: Scope, message: NewMessage) -> ImksResult<(Arc<MessageDetail>, bool)> {
        let Sent { message, duplicate } = self.submit(scope, message)?.await?;
        Ok((message, duplicate))
    }

    pub async fn say(&self, channel: Uuid, author: Uuid, body: &str) -> Arc<MessageDetail> {
        self.send(scope(channel, author), message(body)).await.unwrap().0
    }

    pub async fn edit(&self, scope: Scope, edit: EditMessage) -> ImksResult<Arc<MessageDetail>> {
        self.submit(scope, edit)?.await
    }

    pub async fn delete(&self, message: &MessageDetail) -> ImksResult<i64> {
        let delete = DeleteMessage { message_id: message.id };
        Ok(self.submit(author_of(message), delete)?.await?.rev)
    }

    /// Drains, and gives all events that were told: their names and payloads.
    pub async fn told(mut self) -> Vec<(&'static str, Value)> {
        self.appender.drain().await;
        let mut all = Vec::new();
        for commits in &mut self.commits {
            while let Some(transaction) = commits.recv().await {
                for told in transaction.told {
                    let mut json = Vec::new();
                    told.write_json(&mut json).unwrap();
                    all.push((told.event(), serde_json::from_slice(&json).unwrap()));
                }
            }
        }
        all
    }
}

/// Somebody who may change their own messages in a channel.
pub fn scope(channel: Uuid, user: Uuid) -> Scope {
    let actor = AuthorInfo { id: user, username: "alice".into() };
    Scope { channel_id: channel, actor, slow_mode: Duration::ZERO, authority: Authority::Own }
}

/// The author of a message, in its channel.
pub fn author_of(message: &MessageDetail) -> Scope {
    scope(message.channel_id, message.author.id)
}

pub fn message(body: &str) -> NewMessage {
    NewMessage {
        body: MessageBody::new(body).unwrap(),
        kind: MessageType::Default,
        content_type: ContentType::Markdown,
        thread_id: None,
        also_send_to_channel: false,
        reply_to_message_id: None,
        forward_of: None,
        forwards: None,
        expires_at: None,
        mentions: Mentions::default(),
        mentioned: Mentioned::default(),
        flags: 0,
        priority: Priority::Normal,
        ack_requested: false,
        stream: false,
        poll: None,
        metadata: None,
        attachments: Vec::new(),
        embeds: Embeds::default(),
        nonce: None,
        expect: None,
        scheduled_id: None,
        interactive: true,
    }
}

pub fn edit(message: &MessageDetail, body: &str) -> EditMessage {
    let body = MessageBody::new(body).unwrap();
    EditMessage {
        message_id: message.id,
        body,
        mentions: None,
        mentioned: Mentioned::default(),
        attachments: None,
        may_attach: true,
        expected_version: None,
        window: None,
    }
}

pub fn id() -> Uuid {
    Uuid::now_v7()
}

pub fn code<T: std::fmt::Debug>(result: Result<T, ImksError>) -> &'static str {
    result.unwrap_err().code().as_str()
}

/// The tables and columns in which a text stands.
pub async fn places_of(store: &Store, text: &str) -> Vec<String> {
    let columns: Vec<(String, String)> = match &store.db {
        Db::Postgres(pool) => sqlx::query_as(
            "SELECT table_name::TEXT, column_name::TEXT FROM information_schema.columns \
             WHERE table_schema = current_schema() AND data_type = 'text'",
        )
        .fetch_all(pool)
        .await
        .unwrap(),
        Db::Sqlite(sqlite) => sqlx::query_as(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND c.type = 'TEXT'",
        )
        .fetch_all(&sqlite.reader)
        .await
        .unwrap(),
    };
    let mut places = Vec::new();
    for (table, column) in columns {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE {column} LIKE '%{text}%'");
        let count: i64 = match &store.db {
            Db::Postgres(pool) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap(),
            Db::Sqlite(sqlite) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&sqlite.reader).await.unwrap()
            }
        };
        if count > 0 {
            places.push(format!("{table}.{column}"));
        }
    }
    places
}

/// The tables and columns in which one of these ids stands.
pub async fn places_of_ids(store: &Store, ids: &[Uuid]) -> Vec<String> {
    let columns: Vec<(String, String)> = match &store.db {
        Db::Postgres(pool) => sqlx::query_as(
            "SELECT table_name::TEXT, column_name::TEXT FROM information_schema.columns \
             WHERE table_schema = current_schema() AND data_type = 'uuid' ORDER BY 1, 2",
        )
        .fetch_all(pool)
        .await
        .unwrap(),
        Db::Sqlite(sqlite) => sqlx::query_as(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND c.type = 'BLOB' ORDER BY 1, 2",
        )
        .fetch_all(&sqlite.reader)
        .await
        .unwrap(),
    };
    let mut places = Vec::new();
    for (table, column) in columns {
        let mut count: i64 = 0;
        for id in ids {
            let sql = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table} WHERE {column} = $1"));
            count += match &store.db {
                Db::Postgres(pool) => {
                    sqlx::query_scalar::<_, i64>(sql).bind(id).fetch_one(pool).await.unwrap()
                }
                Db::Sqlite(sqlite) => {
                    sqlx::query_scalar::<_, i64>(sql).bind(id).fetch_one(&sqlite.reader).await.unwrap()
                }
            };
        }
        if count > 0 {
            places.push(format!("{table}.{column}"));
        }
    }
    places
}
