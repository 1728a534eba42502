//! The pool of PostgreSQL connections, with a deadline on this side for every wait.
//!
//! sqlx opens its sockets itself, so the means of the kernel (TCP user timeout, keep-alive) cannot be set on them. What
//! stands in for them: PostgreSQL ends a statement by itself after the statement timeout, so a connection that says
//! nothing for that long and a grace is silent for good. Then its query fails, the queries under way on other connections
//! fail at once, and every connection opened before that moment is replaced instead of used again. A connection that
//! rested is asked for a sign of life before it is used.

use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgQueryResult, PgRow, PgSslMode, PgStatement,
    PgTypeInfo,
};
use sqlx::{Connection, Describe, Either, Error, Execute, Executor, Postgres, SqlStr};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Config, TASKS, invalid_url};
use crate::{ImksError, ImksResult};

/// The pool. Cloning shares it. By reference it is an executor like sqlx's own pool, only that it never waits for ever.
#[derive(Debug, Clone)]
pub struct PostgresPool {
    pool: PgPool,
    silence: Silence,
    /// Longest time without an answer to a query.
    answer_max: Duration,
}

/// When connections were found to be silent; what was opened before that is not used any more.
#[derive(Debug, Clone)]
struct Silence(Arc<watch::Sender<Option<Instant>>>);

impl Silence {
    /// Notes that a connection is silent: those opened up to now are suspect.
    fn declare(&self) {
        tracing::warn!("a connection to PostgreSQL is silent: all that are open are replaced");
        self.0.send_replace(Some(Instant::now()));
    }

    /// Whether a connection of this age was open when a silence was noted.
    fn covers(&self, age: Duration) -> bool {
        self.0.borrow().is_some_and(|since| age > since.elapsed())
    }
}

impl PostgresPool {
    /// Opens the pool that `config` describes; waits a little for a server that is starting.
    pub(super) async fn connect(url: &str, config: &Config) -> ImksResult<Self> {
        let options = connect_options(url, config)?;
        let place = format!("server {}:{}", options.get_host(), options.get_port());
        let silence = Silence(Arc::new(watch::Sender::new(None)));
        let pool = pool_options(config, &silence).connect_lazy_with(options);
        let deadline = Instant::now() + START_WAIT;
        loop {
            match Box::pin(pool.acquire()).await {
                Ok(_) => break,
                Err(Error::PoolTimedOut) if Instant::now() < deadline => {}
                Err(source) => return Err(ImksError::DatabaseOpen { place, source }),
            }
        }
        let answer_max = config.statement_timeout + GRACE;
        Ok(Self { pool, silence, answer_max })
    }

    /// Takes a connection out of the pool.
    pub(crate) async fn lease(&self) -> Result<Lease, Error> {
        let connection = Box::pin(self.pool.acquire()).await?;
        Ok(Lease { connection: Some(connection), silence: self.silence.clone() })
    }

    /// Runs `work` on a connection; `None` when it is silent.
    pub(crate) async fn answered<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.answered_within(self.answer_max, work).await
    }

    /// Runs a transaction of a few statements on a connection; `None` when it is silent.
    pub(crate) async fn transacted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.answered_within(self.answer_max * 2, work).await
    }

    async fn answered_within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut silence = self.silence.0.subscribe();
        tokio::select! {
            outcome = work => Some(outcome),
            () = sleep(limit) => {
                self.silence.declare();
                None
            }
            // Found on another connection: this one would not answer either.
            _ = silence.changed() => None,
        }
    }
}

impl Deref for PostgresPool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

/// A connection out of the pool. It goes back when it is dropped, unless it was found silent.
pub(crate) struct Lease {
    /// Always there until the end.
    connection: Option<PoolConnection<Postgres>>,
    silence: Silence,
}

impl Lease {
    /// Gives the outcome of what ran on this connection. One that is silent is closed, not given back.
    pub(crate) fn settle<T, E: From<Error>>(mut self, outcome: Option<Result<T, E>>) -> Result<T, E> {
        outcome.unwrap_or_else(|| {
            // Dropping closes the socket; saying goodbye to somebody silent would only be another wait.
            drop(self.connection.take().map(PoolConnection::detach));
            Err(Error::Io(std::io::ErrorKind::TimedOut.into()).into())
        })
    }

    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        self.connection.as_deref_mut().ok_or(Error::PoolClosed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let silence = self.silence.clone();
        // sqlx would ask for a sign of life without a deadline, and keep the connection's place in the pool meanwhile.
        TASKS.spawn(async move {
            if timeout(PROBE, connection.return_to_pool()).await.is_err() {
                silence.declare();
            }
        });
    }
}

impl<'c> Executor<'c> for &'c PostgresPool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let rows = async move {
            let mut lease = self.lease().await?;
            let work = lease.connection()?.fetch_many(query).try_collect::<Vec<_>>();
            let outcome = self.answered(work).await;
            lease.settle(outcome)
        };
        stream::once(rows).map_ok(|rows| stream::iter(rows.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            let mut lease = self.lease().await?;
            let outcome = self.answered(lease.connection()?.fetch_optional(query)).await;
            lease.settle(outcome)
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        async move {
            let mut lease = self.lease().await?;
            let outcome = self.answered(lease.connection()?.prepare_with(sql, parameters)).await;
            lease.settle(outcome)
        }
        .boxed()
    }

    // Part of the trait as sqlx builds it with its macros.
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        async move {
            let mut lease = self.lease().await?;
            let outcome = self.answered(lease.connection()?.describe(sql)).await;
            lease.settle(outcome)
        }
        .boxed()
    }
}

fn connect_options(url: &str, config: &Config) -> ImksResult<PgConnectOptions> {
    let mut options = PgConnectOptions::from_str(url).map_err(invalid_url)?.options([
        ("statement_timeout", format!("{}ms", config.statement_timeout.as_millis())),
        // Statements are prepared once and their plan is kept. A plan made while the tables were small would
        // scan them, and would still scan them a million messages later, until the next ANALYZE.
        ("enable_seqscan", "off".to_owned()),
    ]);
    if options.get_application_name().is_none() {
        options = options.application_name("imks");
    }
    if is_loopback(options.get_host()) && !url.contains("sslmode") {
        // TLS to oneself protects nothing, and sqlx leaves Nagle's algorithm on: every batch of more than one TLS
        // record would wait 40 ms for a delayed acknowledgement.
        options = options.ssl_mode(PgSslMode::Disable);
    }
    Ok(options)
}

fn pool_options(config: &Config, silence: &Silence) -> PgPoolOptions {
    let (before, after) = (silence.clone(), silence.clone());
    PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        // A ping before every query would double the round trips; only connections that rested are suspect.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let silence = before.clone();
            Box::pin(async move {
                if silence.covers(meta.age) {
                    return Ok(false);
                }
                if meta.idle_for < IDLE_IS_SUSPECT {
                    return Ok(true);
                }
                match timeout(PROBE, connection.ping()).await {
                    Ok(answer) => answer.map(|()| true),
                    Err(_) => {
                        silence.declare();
                        Err(Error::Io(std::io::ErrorKind::TimedOut.into()))
                    }
                }
            })
        })
        .after_release(move |_, meta| {
            let is_suspect = after.covers(meta.age);
            Box::pin(async move { Ok(!is_suspect) })
        })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How long a start waits for a server that is starting, too.
const START_WAIT: Duration = Duration::from_secs(5);
/// What a living connection needs to say that its statement was ended.
const GRACE: Duration = Duration::from_millis(500);
/// How long a connection has for a sign of life.
const PROBE: Duration = Duration::from_millis(500);
/// A connection that rested this long is asked for a sign of life before it is used.
const IDLE_IS_SUSPECT: Duration = Duration::from_secs(5);
