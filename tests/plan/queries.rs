//! What the server asks often, each as the server asks it.

use std::time::{Duration, Instant};

use imks::testing::clock;
use imks::testing::models::channel_state::heads;
use imks::testing::models::db::{Config, Db};
use imks::testing::models::message_page::{self, Page, Position};
use imks::testing::models::message_search::{self, Query};
use imks::testing::models::message_sync::{self, Cursor, Limits};
use imks::testing::models::{
    message_attachment, message_bookmark, message_draft, message_edit, message_expiring,
    message_mention_inbox, message_pin, message_poll_vote, message_read_state, message_receipt,
    message_report, message_retention, message_scheduled, message_search_index, message_thread,
    message_thread_member, sweep, user_stream,
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::capture::{Plan, Said};
use crate::fill::{READER, Size, channel, fill, user};
use crate::support::{Store, Writer, message, scope};

const MIB: usize = 1 << 20;
/// The most rows that a statement looks at, whatever the size of the tables: twenty for each of five hundred channels.
const ROWS_MAX: f64 = 10_000.0;
/// The most that a search looks at. While there are not many more, PostgreSQL rather reads all that are of the time than
/// look up five hundred channels in the index of words.
const SEARCH_ROWS_MAX: f64 = 200_000.0;
/// The most statements of one question, of however many channels it is.
const STATEMENTS_MAX: usize = 6;
/// The most statements of what may look at one span of time after another, or writes to several tables.
const MANY_STATEMENTS_MAX: usize = 40;
/// How often each question is asked.
const RUNS: usize = 3;
/// The messages in the suite; a million where somebody has a minute.
const MESSAGES: i64 = 50_000;

/// One database, and what is done with it.
struct Asked {
    db: Db,
    said: Said,
    size: Size,
    rows_max: f64,
    statements_max: usize,
    report: Vec<String>,
}

/// Carries a query out three times, and looks at the plans of all its statements.
macro_rules! look {
    ($asked:expr, $name:literal, $query:expr) => {{
        $asked.said.take();
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let started = Instant::now();
            $query.await.unwrap_or_else(|error| panic!("{}: {error}", $name));
            best = best.min(started.elapsed());
        }
        $asked.judge($name, best).await;
    }};
}

impl Asked {
    async fn judge(&mut self, name: &str, best: Duration) {
        let said = self.said.take();
        let (mut rows, mut count) = (0.0_f64, 0);
        match &self.db {
            Db::Postgres(_) => {
                let plans: Vec<Plan> = said.iter().filter_map(|notice| Plan::of_notice(notice)).collect();
                for plan in &plans {
                    assert!(plan.scans.is_empty(), "{name}: {:?}\n{}", plan.scans, plan.statement);
                    assert!(
                        plan.rows <= self.rows_max,
                        "{name} reads {} rows in {} ms\n{}",
                        plan.rows,
                        plan.millis,
                        plan.statement
                    );
                    rows = rows.max(plan.rows);
                }
                count = plans.len();
            }
            Db::Sqlite(sqlite) => {
                for statement in said.iter().filter(|text| is_statement(text)) {
                    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
                    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
                        .fetch_all(&sqlite.writer)
                        .await
                        .unwrap_or_else(|error| panic!("{error}: {statement}"));
                    let scans: Vec<&String> =
                        plan.iter().map(|(.., line)| line).filter(|line| reads_a_whole_table(line)).collect();
                    assert!(scans.is_empty(), "{name}: {scans:?}\n{statement}\n{plan:#?}");
                    count += 1;
                }
                self.said.take();
            }
        }
        assert!(count > 0, "{name}: nothing was asked: {said:?}");
        assert!(count <= RUNS * self.statements_max, "{name}: {count} statements in {RUNS} runs: {said:#?}");
        self.report.push(format!(
            "{:>9.2} ms {:>7} rows {:>3} statements  {name}",
            best.as_secs_f64() * 1e3,
            rows,
            count / RUNS
        ));
    }

    async fn pages(&mut self) {
        let (reader, here, size) = (user(READER), channel(1), self.size);
        let middle = size.message(1, size.seqs() / 2);
        let page = |position| Page { position, thread_id: None, limit: 100 };
        let db = self.db.clone();
        look!(
            self,
            "history: the newest page",
            message_page::page(&db, reader, here, page(Position::Latest), MIB)
        );
        look!(
            self,
            "history: before",
            message_page::page(&db, reader, here, page(Position::Before(middle)), MIB)
        );
        look!(
            self,
            "history: after",
            message_page::page(&db, reader, here, page(Position::After(middle)), MIB)
        );
        look!(
            self,
            "history: around",
            message_page::page(&db, reader, here, page(Position::Around(middle)), MIB)
        );
        let thread = Page { position: Position::Latest, thread_id: Some(size.message(1, 1)), limit: 100 };
        look!(self, "history of a thread", message_page::page(&db, reader, here, thread, MIB));
        let ids: Vec<Uuid> = (1..=100).map(|seq| size.message(1, seq)).collect();
        look!(self, "message:get of 100", message_page::get_many(&db, reader, here, &ids, MIB));
        look!(self, "pin:list", message_pin::list(&db, here));
        look!(self, "thread:list", message_thread::list(&db, here, i64::MAX, 50));
        look!(self, "message:edits", message_edit::edits(&db, here, size.message(1, 10)));
        look!(self, "report:list", message_report::list(&db, here, None, 10));
        look!(
            self,
            "poll:voters",
            message_poll_vote::voters(&db, here, size.message(1, 1), 0, Uuid::nil(), 100)
        );
        look!(self, "read:receipts", message_receipt::readers(&db, here, 1, Uuid::nil(), 100));
        look!(self, "attachment:get", message_attachment::in_channel(&db, here, reader, size.message(1, 30)));
    }

    async fn catching_up(&mut self) {
        let (reader, size, db) = (user(READER), self.size, self.db.clone());
        let channels: Vec<Uuid> = (0..500).map(channel).collect();
        look!(self, "heads of 500 channels", heads(&db, &channels));
        look!(self, "unread of 500 channels", message_read_state::unread(&db, reader, &channels));
        let pairs: Vec<(Uuid, Uuid)> = channels.iter().map(|channel| (reader, *channel)).collect();
        look!(self, "standings of a user in 500 channels", message_read_state::standings(&db, &pairs));
        let behind = |seq: i64, rev: i64| -> Vec<Cursor> {
            let cursor = |channel_id: &Uuid| Cursor {
                channel_id: *channel_id,
                seq: size.seqs() - seq,
                rev: size.revs() - rev,
            };
            channels[..200].iter().map(cursor).collect()
        };
        let limits = Limits { per_channel: 200, total: 2_000, bytes: MIB };
        look!(
            self,
            "sync of 200 channels, nothing new",
            message_sync::sync(&db, reader, &behind(0, 0), limits)
        );
        look!(
            self,
            "sync of 200 channels, 1,000 messages",
            message_sync::sync(&db, reader, &behind(5, 0), limits)
        );
        look!(
            self,
            "sync of 200 channels, 400 changes",
            message_sync::sync(&db, reader, &behind(0, 2), limits)
        );
        look!(self, "sync: the user's own", user_stream::changes(&db, reader, size.channels - 50));
        look!(self, "mentions:list", message_mention_inbox::inbox(&db, reader, &channels, None, 50, MIB));
        look!(self, "bookmark:list", message_bookmark::list(&db, reader, i64::MAX, 50));
        look!(self, "draft:list", message_draft::list(&db, reader, i64::MAX, 20));
        look!(self, "schedule:list", message_scheduled::list(&db, reader, None, i64::MAX, 10));
        look!(self, "thread:followed", message_thread_member::followed(&db, reader, i64::MAX, 50, false));
        look!(
            self,
            "thread:followed, unread",
            message_thread_member::followed(&db, reader, i64::MAX, 50, true)
        );
    }

    async fn search(&mut self) {
        let (reader, db) = (user(READER), self.db.clone());
        let (channels, now) = ((0..500).map(channel).collect::<Vec<_>>(), clock::now_micros());
        look!(self, "search: behind", message_search_index::behind(&db, Uuid::nil()));
        // Two passes: on SQLite each is short.
        self.statements_max = MANY_STATEMENTS_MAX;
        look!(self, "search: follow", message_search_index::follow(&db, vec![channel(0)]));
        (self.rows_max, self.statements_max) = (SEARCH_ROWS_MAX, MANY_STATEMENTS_MAX);
        let page = message_search::Page { cursor: None, limit: 20, bytes: MIB };
        let words = |text| Query::new(text).unwrap();
        let (common, seldom, chinese) = (words("something"), words("seldom number"), words("上海"));
        look!(
            self,
            "search: a word of all messages",
            message_search::find(&db, reader, &channels, &common, page, now)
        );
        look!(self, "search: a rare word", message_search::find(&db, reader, &channels, &seldom, page, now));
        look!(
            self,
            "search: a rare word in Chinese",
            message_search::find(&db, reader, &channels, &chinese, page, now)
        );
        let found = message_search::find(&db, reader, &channels, &chinese, page, now).await.unwrap();
        assert!(
            !found.messages.is_empty() || self.size.channels > 1_000,
            "the index is as the server makes it"
        );
    }

    async fn background(&mut self) {
        self.rows_max = ROWS_MAX;
        let (db, now) = (self.db.clone(), clock::now_micros());
        look!(self, "reminders due", message_bookmark::take_due(&db, now));
        look!(self, "scheduled messages due", message_scheduled::take_due(&db, now));
        look!(self, "polls that are over", message_poll_vote::overdue(&db, now));
        look!(self, "messages that expire", message_expiring::expired(&db, now));
        look!(self, "copies of what is gone", message_retention::mark_copies(&db, now));
        look!(self, "copies to empty", message_retention::empty_copies(&db, Uuid::nil()));
        look!(self, "files to remove", message_attachment::removable(&db, now, now));
        look!(self, "own changes to forget", sweep::forget_removed(&db, now));
    }

    async fn writes(&mut self) {
        let (reader, here, size, db) = (user(READER), channel(1), self.size, self.db.clone());
        let next = std::cell::Cell::new(size.seqs() / 2);
        let seq = || {
            next.set(next.get() + 1);
            next.get()
        };
        look!(self, "read:mark", message_read_state::mark(&db, reader, here, seq()));
        look!(self, "read:mark_unread", message_read_state::mark_unread(&db, reader, here, 2));
        let channels: Vec<Uuid> = (2..500).map(channel).collect();
        look!(self, "read:mark_all", message_read_state::mark_all(&db, user(1), &channels));
        look!(
            self,
            "thread:follow",
            message_thread_member::follow(&db, reader, here, size.message(1, 1), seq() % 2 == 0)
        );
        let writer = Writer::start(db.clone(), Default::default()).unheard();
        let reply = || {
            let nonce = imks::testing::models::text::Nonce::new(&format!("new {}", seq())).unwrap();
            imks::testing::models::message_send::NewMessage {
                thread_id: Some(size.message(1, 1)),
                reply_to_message_id: Some(size.message(1, 2)),
                nonce: Some(nonce),
                ..message("a reply")
            }
        };
        look!(self, "message:send in a thread", writer.send(scope(here, reader), reply()));
        let emoji =
            || serde_json::from_value(serde_json::json!(if seq() % 2 == 0 { "🎉" } else { "🚀" })).unwrap();
        let react = || imks::testing::models::message_reaction::AddReaction {
            message_id: size.message(1, 21),
            emoji: emoji(),
        };
        look!(self, "reaction:add", async { writer.submit(scope(here, reader), react())?.await });
        writer.appender.drain().await;
    }
}

fn is_statement(text: &str) -> bool {
    ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"].iter().any(|word| text.starts_with(word))
}

/// Lists in JSON, and rows that are part of the statement, are no tables.
fn reads_a_whole_table(line: &str) -> bool {
    let line = line.trim();
    let Some(what) = line.strip_prefix("SCAN ") else { return false };
    let name = what.split(' ').next().unwrap();
    ["message", "channel_", "user_", "directory_", "feed", "outbox"]
        .iter()
        .any(|table| name.starts_with(table))
        && !line.contains("VIRTUAL TABLE INDEX")
}

/// One listens to everything that sqlx says in this process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn look_at_all(store: &Store, config: Config) {
    let _alone = ALONE.lock().await;
    let messages = std::env::var("IMKS_PLAN_MESSAGES").map_or(MESSAGES, |text| text.parse().unwrap());
    let size = Size::new(messages);
    let started = Instant::now();
    fill(&store.config, size).await;
    println!("{messages} messages in {} channels after {:?}", size.channels, started.elapsed());
    let said = Said::listen();
    let db = Db::connect(&config).await.unwrap();
    let mut asked =
        Asked { db, said, size, rows_max: ROWS_MAX, statements_max: STATEMENTS_MAX, report: Vec::new() };
    asked.pages().await;
    asked.catching_up().await;
    asked.search().await;
    asked.background().await;
    asked.writes().await;
    println!("{}\n{}", asked.db.name(), asked.report.join("\n"));
    asked.db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_on_sqlite_goes_by_an_index() {
    let store = Store::sqlite().await;
    look_at_all(&store, store.config.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_on_postgres_goes_by_an_index_and_reads_few_rows_however_many_there_are() {
    let store = Store::postgres().await;
    let explained = [
        "session_preload_libraries]=auto_explain",
        "auto_explain.log_min_duration]=0",
        "auto_explain.log_analyze]=on",
        "auto_explain.log_format]=json",
        "auto_explain.log_level]=notice",
    ];
    let mut url = store.config.url.as_ref().unwrap().expose().to_owned();
    explained.iter().for_each(|option| url.push_str(&format!("&options[{option}")));
    let config = Config { url: Some(url.into()), max_connections: 2, ..store.config.clone() };
    look_at_all(&store, config).await;
}
