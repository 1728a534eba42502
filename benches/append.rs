//! The append path against what the database itself can do: bare bulk inserts of the same rows, in the same run.
//!
//! `cargo bench --bench append [-- postgres|sqlite]`; seconds per measurement from `IMKS_BENCH_SECONDS` (5).
//! PostgreSQL from `IMKS_TEST_POSTGRES_URL`; the SQLite file is made in `IMKS_BENCH_DIR` (the target directory).
//! CPU is that of this process: it includes the senders, and for SQLite the database.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    reason = "a measurement: it may fail loudly, and it prints a table"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imks::testing::models::append::{Appender, Authority, Config, Scope};
use imks::testing::models::db::{self, Db};
use imks::testing::models::message::{AuthorInfo, ContentType, MessageType, Priority};
use imks::testing::models::message_id;
use imks::testing::models::message_mention::Mentioned;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::{Mentions, MessageBody, Nonce};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, SqlitePool};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const SENDERS: usize = 200;
const IN_FLIGHT: usize = 8;
const CHANNELS: usize = 1_000;
const BARE_BATCH: usize = 100;
const BARE_CONNECTIONS: usize = 4;
const BODY: &str = "A message of ordinary length, as people write them: a sentence or two, about one hundred and \
                    fifty characters, and then it is over and somebody answers.";

struct Line {
    store: &'static str,
    what: &'static str,
    rate: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
}

fn main() {
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let seconds = std::env::var("IMKS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let limit = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut lines = Vec::new();
    for store in ["sqlite", "postgres"] {
        if only.as_deref().is_none_or(|only| only == store) {
            lines.extend(runtime.block_on(measure(store, limit)));
        }
    }
    println!("| store | what | messages/s | of bare | CPU us/message | p50 ms | p99 ms |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    let mut bare = 1.0;
    for line in lines {
        if line.what.starts_with("bare") {
            bare = line.rate;
        }
        println!(
            "| {} | {} | {:.0} | {:.2} | {:.1} | {:.2} | {:.2} |",
            line.store,
            line.what,
            line.rate,
            line.rate / bare,
            line.cpu,
            line.p50,
            line.p99
        );
    }
}

async fn measure(store: &'static str, limit: Duration) -> Vec<Line> {
    let mut lines = Vec::new();
    for round in 0..2 {
        let fresh = Fresh::open(store, &format!("bare{round}")).await;
        let bare = match &fresh.db {
            Db::Postgres(pool) => bare_postgres(pool, limit).await,
            Db::Sqlite(sqlite) => bare_sqlite(&sqlite.writer, limit).await,
        };
        lines.push(Line { store, what: "bare loader", ..bare });
        fresh.remove().await;
        let mut half = 0.0;
        for (what, channels) in [("append, 1,000 channels", CHANNELS), ("append, one hot channel", 1)] {
            let fresh = Fresh::open(store, &format!("append{round}{channels}")).await;
            let line = append(&fresh.db, channels, None, limit).await;
            if channels > 1 {
                half = line.rate / 2.0;
            }
            lines.push(Line { store, what, ..line });
            fresh.remove().await;
        }
        let fresh = Fresh::open(store, &format!("half{round}")).await;
        let line = append(&fresh.db, CHANNELS, Some(half), limit).await;
        lines.push(Line { store, what: "append, 1,000 channels, half of that rate", ..line });
        fresh.remove().await;
    }
    lines
}

/// A store of its own for one measurement.
struct Fresh {
    db: Db,
    schema: Option<String>,
    _directory: Option<tempfile::TempDir>,
}

impl Fresh {
    async fn open(store: &str, name: &str) -> Self {
        let (config, schema, directory) = match store {
            "postgres" => {
                let schema = format!("imks_bench_{name}");
                admin(format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; CHECKPOINT"))
                    .await;
                let url = Some(format!("{}?options[search_path]={schema}", postgres_url()));
                (db::Config { url: url.map(Into::into), ..db::Config::default() }, Some(schema), None)
            }
            _ => {
                let parent =
                    std::env::var("IMKS_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").into());
                let directory = tempfile::tempdir_in(parent).unwrap();
                let config = db::Config { data_dir: directory.path().into(), ..db::Config::default() };
                (config, None, Some(directory))
            }
        };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        Self { db, schema, _directory: directory }
    }

    async fn remove(self) {
        self.db.close().await;
        if let Some(schema) = self.schema {
            admin(format!("DROP SCHEMA {schema} CASCADE")).await;
        }
    }
}

fn postgres_url() -> String {
    std::env::var("IMKS_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into())
}

async fn admin(sql: String) {
    let mut connection = PgConnection::connect(&postgres_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// Counts what was done in which time, and what it cost.
struct Meter {
    started: Instant,
    cpu: Duration,
    done: Arc<AtomicU64>,
}

impl Meter {
    fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_time(), done: Arc::default() }
    }

    fn stop(&self, mut latencies: Vec<u32>) -> Line {
        let done = self.done.load(Ordering::Relaxed) as f64;
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies
                .get(index.min(latencies.len().saturating_sub(1)))
                .map_or(0.0, |micros| f64::from(*micros) / 1e3)
        };
        Line {
            store: "",
            what: "",
            rate: done / self.started.elapsed().as_secs_f64(),
            cpu: (cpu_time() - self.cpu).as_secs_f64() * 1e6 / done,
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

#[allow(unsafe_code, reason = "getrusage has no safe wrapper in the standard library")]
fn cpu_time() -> Duration {
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

const COLUMNS: &str = "id, channel_id, seq, cseq, author_id, author_username, type, content_type, body, flags, nonce, content_hash, created_at";

/// The rows that an appender would write, in the same random channels, without deciding anything.
struct BareRows {
    channels: Vec<(Uuid, i64)>,
    authors: Vec<Uuid>,
    random: u64,
    next: u64,
}

impl BareRows {
    /// A loader's own share of the channels: nothing coordinates loaders.
    fn new(loaders: usize) -> Self {
        let channels = (0..CHANNELS / loaders).map(|_| (Uuid::now_v7(), 0)).collect();
        let authors: Vec<Uuid> = (0..SENDERS).map(|_| Uuid::now_v7()).collect();
        let random = authors[0].as_u64_pair().1;
        Self { channels, authors, random, next: 0 }
    }

    fn row(&mut self) -> (Uuid, Uuid, i64, Uuid, String) {
        self.next += 1;
        self.random = xorshift(self.random);
        let (count, authors) = (self.channels.len(), self.authors.len());
        let (channel, seq) = &mut self.channels[self.random as usize % count];
        *seq += 1;
        let id = message_id::new(imks::testing::clock::now_micros() / 1_000, *seq, self.random);
        (
            id,
            *channel,
            *seq,
            self.authors[(self.random >> 32) as usize % authors],
            format!("nonce-{}", self.next),
        )
    }
}

fn xorshift(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^ (random << 17)
}

async fn bare_postgres(pool: &PgPool, limit: Duration) -> Line {
    let meter = Meter::start();
    let tasks = TaskTracker::new();
    let loaders: Vec<_> = (0..BARE_CONNECTIONS)
        .map(|_| {
            let (pool, done) = (pool.clone(), Arc::clone(&meter.done));
            tasks.spawn(async move {
                let mut rows = BareRows::new(BARE_CONNECTIONS);
                let mut latencies = Vec::new();
                let mut connection = pool.acquire().await.unwrap();
                let started = Instant::now();
                while started.elapsed() < limit {
                    let batch: Vec<_> = (0..BARE_BATCH).map(|_| rows.row()).collect();
                    let before = Instant::now();
                    sqlx::query(AssertSqlSafe(format!(
                        "INSERT INTO message ({COLUMNS}) SELECT id, channel, seq, seq, author, 'alice', 0, 0, body, 0, \
                         nonce, seq, at FROM UNNEST($1::uuid[], $2::uuid[], $3::int8[], $4::uuid[], $5::text[], $6::text[], \
                         $7::int8[]) AS r(id, channel, seq, author, body, nonce, at)"
                    )))
                    .bind(batch.iter().map(|row| row.0).collect::<Vec<_>>())
                    .bind(batch.iter().map(|row| row.1).collect::<Vec<_>>())
                    .bind(batch.iter().map(|row| row.2).collect::<Vec<_>>())
                    .bind(batch.iter().map(|row| row.3).collect::<Vec<_>>())
                    .bind(vec![BODY; BARE_BATCH])
                    .bind(batch.iter().map(|row| row.4.as_str()).collect::<Vec<_>>())
                    .bind(vec![imks::testing::clock::now_micros(); BARE_BATCH])
                    .execute(&mut *connection)
                    .await
                    .unwrap();
                    latencies.push(before.elapsed().as_micros() as u32);
                    done.fetch_add(BARE_BATCH as u64, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for loader in loaders {
        latencies.extend(loader.await.unwrap());
    }
    meter.stop(latencies)
}

async fn bare_sqlite(pool: &SqlitePool, limit: Duration) -> Line {
    let meter = Meter::start();
    let mut rows = BareRows::new(1);
    let mut latencies = Vec::new();
    let mut connection = pool.acquire().await.unwrap();
    let values = vec!["(?,?,?,?,?,?,?,?,?,?,?,?,?)"; BARE_BATCH].join(",");
    let sql: Arc<str> = format!("INSERT INTO message ({COLUMNS}) VALUES {values}").into();
    while meter.started.elapsed() < limit {
        let batch: Vec<_> = (0..BARE_BATCH).map(|_| rows.row()).collect();
        let before = Instant::now();
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&sql)));
        for (id, channel, seq, author, nonce) in batch {
            query =
                query.bind(id).bind(channel).bind(seq).bind(seq).bind(author).bind("alice").bind(0).bind(0);
            query = query.bind(BODY).bind(0).bind(nonce).bind(seq).bind(imks::testing::clock::now_micros());
        }
        query.execute(&mut *connection).await.unwrap();
        latencies.push(before.elapsed().as_micros() as u32);
        meter.done.fetch_add(BARE_BATCH as u64, Ordering::Relaxed);
    }
    meter.stop(latencies)
}

/// `rate`: messages per second that all senders together aim at; nothing is as fast as the acks come.
async fn append(db: &Db, channels: usize, rate: Option<f64>, limit: Duration) -> Line {
    let (appender, commits) = Appender::start(db.clone(), Config::default());
    let tasks = TaskTracker::new();
    for mut commits in commits {
        tasks.spawn(async move { while commits.recv().await.is_some() {} });
    }
    let channels: Arc<Vec<Uuid>> = Arc::new((0..channels).map(|_| Uuid::now_v7()).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let meter = Meter::start();
    let senders: Vec<_> = (0..SENDERS)
        .flat_map(|sender| std::iter::repeat_n((sender, Uuid::now_v7()), IN_FLIGHT).enumerate())
        .map(|(slot, (sender, author))| {
            let sender = Sender {
                appender: appender.clone(),
                channels: Arc::clone(&channels),
                author,
                number: (sender * IN_FLIGHT + slot) as u64,
                pause: rate.map(|rate| Duration::from_secs_f64((SENDERS * IN_FLIGHT) as f64 / rate)),
            };
            tasks.spawn(sender.run(Arc::clone(&stop), Arc::clone(&meter.done)))
        })
        .collect();
    tokio::time::sleep(limit).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for sender in senders {
        latencies.extend(sender.await.unwrap());
    }
    let line = meter.stop(latencies);
    appender.drain().await;
    line
}

/// One message in flight.
struct Sender {
    appender: Appender,
    channels: Arc<Vec<Uuid>>,
    author: Uuid,
    number: u64,
    pause: Option<Duration>,
}

impl Sender {
    async fn run(self, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<u32> {
        let mut latencies = Vec::new();
        let mut random = self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = tokio::time::Instant::now();
        if let Some(pause) = self.pause {
            next += pause.mul_f64(self.number as f64 / (SENDERS * IN_FLIGHT) as f64);
        }
        for count in 0_u64.. {
            if let Some(pause) = self.pause {
                tokio::time::sleep_until(next).await;
                next += pause;
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            random = xorshift(random);
            let channel = self.channels[random as usize % self.channels.len()];
            let message = self.message(&format!("nonce-{}-{count}", self.number));
            let before = Instant::now();
            self.appender.submit(self.scope(channel), message).unwrap().await.unwrap();
            latencies.push(before.elapsed().as_micros() as u32);
            done.fetch_add(1, Ordering::Relaxed);
        }
        latencies
    }

    fn scope(&self, channel_id: Uuid) -> Scope {
        let actor = AuthorInfo { id: self.author, username: "alice".into() };
        Scope { channel_id, actor, slow_mode: Duration::ZERO, authority: Authority::Own }
    }

    fn message(&self, nonce: &str) -> NewMessage {
        NewMessage {
            body: MessageBody::new(BODY).unwrap(),
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
            attachments: Vec::new(),
            embeds: imks::testing::models::message_embed::Embeds::default(),
            expect: None,
            metadata: None,
            nonce: Some(Nonce::new(nonce).unwrap()),
            scheduled_id: None,
            interactive: true,
        }
    }
}
