//! The network to PostgreSQL goes silent: no connection is closed, nothing is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use imks::testing::models::append;
use imks::testing::models::db::{Config, Db};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::support::{Store, Writer, code, id, message, scope};

/// A TCP proxy to PostgreSQL whose connections can go silent.
struct Proxy {
    port: u16,
    /// Connections of an earlier generation carry nothing any more.
    generation: watch::Sender<u32>,
    /// New connections are accepted and carry nothing.
    blackhole: Arc<AtomicBool>,
    tasks: TaskTracker,
}

impl Proxy {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (generation, blackhole) = (watch::Sender::new(0), Arc::new(AtomicBool::new(false)));
        let proxy = Self { port, generation, blackhole, tasks: TaskTracker::new() };
        let (generation, blackhole) = (proxy.generation.clone(), proxy.blackhole.clone());
        let tasks = proxy.tasks.clone();
        proxy.tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let is_silent = blackhole.load(Ordering::SeqCst);
                tasks.spawn(carry(client, server.clone(), generation.subscribe(), is_silent));
            }
        });
        proxy
    }

    fn silence_what_is_open(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn silence_everything(&self) {
        self.blackhole.store(true, Ordering::SeqCst);
        self.silence_what_is_open();
    }

    fn heal(&self) {
        self.blackhole.store(false, Ordering::SeqCst);
    }
}

/// Carries bytes both ways until one side closes; at the end of its generation it stays open, and silent for ever.
async fn carry(mut client: TcpStream, server: String, mut generation: watch::Receiver<u32>, is_silent: bool) {
    // Outlives its generation, so that PostgreSQL sees no end of the connection either.
    let mut upstream = None;
    if !is_silent {
        let upstream = upstream.insert(TcpStream::connect(server).await.unwrap());
        tokio::select! {
            _ = copy_bidirectional(&mut client, upstream) => return,
            _ = generation.changed() => {}
        }
    }
    std::future::pending::<()>().await;
}

/// A pool whose connections all pass a proxy, several of them open.
async fn through_proxy(store: &Store) -> (Proxy, Db) {
    let url = store.config.url.as_ref().unwrap().expose();
    let (_, rest) = url.split_once('@').unwrap();
    let server = rest.split(['/', '?']).next().unwrap().to_owned();
    let proxy = Proxy::start(server.clone()).await;
    let url = url.replacen(&server, &format!("127.0.0.1:{}", proxy.port), 1);
    let db = Db::connect(&Config { url: Some(url.into()), ..Config::default() }).await.unwrap();
    busy(&db, 8).await;
    (proxy, db)
}

/// Opens as many connections, since each is used at the same time.
async fn busy(db: &Db, connections: usize) {
    let Db::Postgres(pool) = db else { panic!() };
    let sleep = || sqlx::query("SELECT pg_sleep(0.2)").execute(pool);
    for outcome in join_all((0..connections).map(|_| sleep())).await {
        outcome.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_back_within_three_seconds_when_only_the_old_connections_are_silent() {
    let store = Store::postgres().await;
    let (proxy, db) = through_proxy(&store).await;
    let Db::Postgres(pool) = &db else { panic!() };
    let under_way = sqlx::query("SELECT pg_sleep(1)").execute(pool);
    let (under_way, ()) = tokio::join!(under_way, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.silence_what_is_open();
        let silent_since = Instant::now();
        while db.ping().await.is_err() {}
        assert!(silent_since.elapsed() < Duration::from_secs(3), "{:?}", silent_since.elapsed());
        let back = Instant::now();
        for outcome in join_all((0..16).map(|_| db.ping())).await {
            outcome.unwrap();
        }
        assert!(
            back.elapsed() < Duration::from_secs(1),
            "no other has to find out again: {:?}",
            back.elapsed()
        );
    });
    assert!(under_way.is_err(), "what was under way is told so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_is_answered_within_five_seconds_while_everything_is_silent() {
    let store = Store::postgres().await;
    let (proxy, db) = through_proxy(&store).await;
    proxy.silence_everything();
    for _ in 0..2 {
        let asked = Instant::now();
        for outcome in join_all((0..32).map(|_| db.ping())).await {
            let error = outcome.unwrap_err();
            assert!(error.is_retryable(), "{error:?}");
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    proxy.heal();
    let healed = Instant::now();
    while db.ping().await.is_err() {}
    assert!(healed.elapsed() < Duration::from_secs(3), "{:?}", healed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_rested_are_replaced_at_once() {
    let store = Store::postgres().await;
    let (proxy, db) = through_proxy(&store).await;
    // Longer than a connection may rest without being asked for a sign of life.
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    proxy.silence_what_is_open();
    let asked = Instant::now();
    for outcome in join_all((0..8).map(|_| db.ping())).await {
        outcome.unwrap();
    }
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_are_stored_within_three_seconds_after_a_failover_and_answered_within_five_in_silence() {
    let store = Store::postgres().await;
    let (proxy, db) = through_proxy(&store).await;
    let writer = Writer::start(db, append::Config::default());
    let (channel, alice) = (id(), id());
    assert_eq!(writer.say(channel, alice, "before").await.seq, 1);
    proxy.silence_what_is_open();
    let asked = Instant::now();
    assert_eq!(writer.say(channel, alice, "after the failover").await.seq, 2);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    proxy.silence_everything();
    let asked = Instant::now();
    let answer = code(writer.send(scope(channel, alice), message("into the void")).await);
    assert!(["unavailable", "timeout"].contains(&answer), "{answer}");
    assert!(asked.elapsed() < Duration::from_millis(5_200), "{:?}", asked.elapsed());
    proxy.heal();
    assert!(writer.say(channel, alice, "back").await.seq >= 3, "the one without an answer may be stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_silent_connection_are_released_within_five_seconds() {
    let store = Store::postgres().await;
    let (proxy, db) = through_proxy(&store).await;
    let Db::Postgres(pool) = &db else { panic!() };
    let lock = || sqlx::query("SELECT pg_advisory_xact_lock(1)");
    let mut transaction = pool.begin().await.unwrap();
    lock().execute(&mut *transaction).await.unwrap();
    proxy.silence_what_is_open();
    let silent_since = Instant::now();
    while lock().execute(pool).await.is_err() {
        assert!(silent_since.elapsed() < Duration::from_secs(5), "{:?}", silent_since.elapsed());
    }
}
