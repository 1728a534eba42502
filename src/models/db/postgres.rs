//! The pool of PostgreSQL connections, with a deadline on this side for every wait.
//!
//! sqlx opens its sockets itself, so the options of the kernel (TCP user timeout, keep-alive) cannot be set
//! on them. This pool replaces them. PostgreSQL cancels a statement after the statement timeout, so a
//! connection that is silent for that long plus a grace period is considered dead. Its query then fails, the
//! queries in flight on other connections fail at once, and every connection opened before that moment is
//! replaced instead of reused. A connection that was idle for a while is pinged before it is used.

use std::io::ErrorKind;
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
use sqlx::{ConnectOptions, Connection, Describe, Either, Error, Execute, Executor, Postgres, SqlStr};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Config, TASKS, invalid_url};
use crate::error::with_causes;
use crate::{ImksError, ImksResult};

/// The pool. Cloning shares it. A reference is an executor like sqlx's own pool, but never waits without a
/// deadline.
#[derive(Debug, Clone)]
pub struct PostgresPool {
    pool: PgPool,
    silence: Silence,
    /// The longest time without an answer to a query.
    answer_max: Duration,
}

/// The last time that a connection was found silent. Connections opened before it are not used any more.
#[derive(Debug, Clone)]
struct Silence(Arc<watch::Sender<Option<Instant>>>);

impl Silence {
    /// Records that a connection is silent. Those opened until now are suspect.
    fn declare(&self) {
        tracing::warn!("a connection to PostgreSQL is silent: all that are open are replaced");
        self.0.send_replace(Some(Instant::now()));
    }

    /// Whether a connection of this age was already open when the last silence was recorded.
    fn covers(&self, age: Duration) -> bool {
        self.0.borrow().is_some_and(|since| age > since.elapsed())
    }
}

impl PostgresPool {
    /// Opens the pool that `config` describes. Waits for a server that is starting, for as long as the `patience` says.
    pub(super) async fn connect(url: &str, config: &Config, patience: Duration) -> ImksResult<Self> {
        let options = connect_options(url, config)?;
        let first = Box::pin(first(&options, config.acquire_timeout, patience)).await?;
        let silence = Silence(Arc::new(watch::Sender::new(None)));
        let pool = pool_options(config, &silence).connect_lazy_with(options);
        pin_schema(&pool, first).await?;
        let answer_max = config.statement_timeout + GRACE;
        Ok(Self { pool, silence, answer_max })
    }

    /// Acquires a connection from the pool.
    pub(crate) async fn lease(&self) -> Result<Lease, Error> {
        let connection = Box::pin(self.pool.acquire()).await?;
        Ok(Lease { connection: Some(connection), silence: self.silence.clone() })
    }

    /// Runs the `work` of one statement on a connection. Returns `None` if the connection is silent.
    pub(crate) async fn answered<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.answered_within(self.answer_max, work).await
    }

    /// Runs the `work` of a transaction of a few statements. Returns `None` if the connection is silent.
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
            // Another connection was found silent, so this one would not answer either.
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

/// A connection from the pool. Returned to the pool when dropped, unless it was found silent.
pub(crate) struct Lease {
    /// Always present until the lease is settled or dropped.
    connection: Option<PoolConnection<Postgres>>,
    silence: Silence,
}

impl Lease {
    /// Returns the outcome of work on this connection, which is closed instead of returned if it is silent.
    pub(crate) fn settle<T, E: From<Error>>(mut self, outcome: Option<Result<T, E>>) -> Result<T, E> {
        outcome.unwrap_or_else(|| {
            // Dropping closes the socket. A graceful close would wait for the silent peer once more.
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
        // sqlx would ping without a deadline, and occupy the connection's slot in the pool meanwhile.
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

    // Required by the trait, as sqlx implements it with its macros.
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

/// Opens one connection without the pool, which would try again and again and then tell nothing but that its time is over.
///
/// # Errors
/// [`ImksError::DatabaseOpen`] with host and port, and with the last cause.
async fn first(
    options: &PgConnectOptions,
    answer_max: Duration,
    patience: Duration,
) -> ImksResult<PgConnection> {
    let place = || format!("server {}:{}", options.get_host(), options.get_port());
    let deadline = Instant::now() + patience;
    let mut is_told = false;
    loop {
        let opened = timeout(answer_max, Box::pin(options.connect())).await;
        let source = match opened.unwrap_or_else(|_| Err(Error::Io(ErrorKind::TimedOut.into()))) {
            Ok(connection) => return Ok(connection),
            Err(source) => source,
        };
        if !may_be_starting(&source) || Instant::now() >= deadline {
            return Err(ImksError::DatabaseOpen { place: place(), source });
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(
                place = place(),
                error = with_causes(&source),
                seconds = patience.as_secs(),
                "waiting for the database"
            );
        }
        sleep(START_PAUSE).await;
    }
}

/// Whether a server that is starting answers so, or not at all.
fn may_be_starting(error: &Error) -> bool {
    match error {
        Error::Io(cause) => matches!(
            cause.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::TimedOut
        ),
        Error::Database(refusal) => refusal.code().is_some_and(|code| NOT_YET.contains(&&*code)),
        _ => false,
    }
}

/// Checks the form of a URL, without asking its server.
///
/// # Errors
/// [`ImksError::Config`] for a URL of another form.
pub(super) fn check_url(url: &str) -> ImksResult<()> {
    PgConnectOptions::from_str(&split_unknown(url).0).map(drop).map_err(invalid_url)
}

/// Returns a URL without the parameters that the driver does not know, and their names. It would log them with their
/// values, among which may be a password under a misspelt name.
fn split_unknown(url: &str) -> (String, Vec<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), Vec::new()) };
    let is_known = |name: &str| PARAMETERS.contains(&name) || name.starts_with("options[");
    let name = |pair: &str| {
        form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
    };
    let (known, unknown): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| is_known(&name(pair)));
    (
        format!("{base}?{}", known.join("&")),
        unknown.into_iter().map(name).filter(|name| !name.is_empty()).collect(),
    )
}

fn connect_options(url: &str, config: &Config) -> ImksResult<PgConnectOptions> {
    let timeout = format!("{}ms", config.statement_timeout.as_millis());
    let (url, unknown) = split_unknown(url);
    if !unknown.is_empty() {
        tracing::warn!(names = ?unknown, "these parameters of DATABASE_URL are not known, and change nothing");
    }
    let mut options = PgConnectOptions::from_str(&url).map_err(invalid_url)?.options([
        ("statement_timeout", timeout.clone()),
        // A transaction of a silent connection would keep its locks until the kernel of the database server
        // gives the connection up, by default after two hours.
        ("idle_in_transaction_session_timeout", timeout),
        // Statements are prepared once and their plans are cached. A plan made while a table was small would
        // scan it, and would still scan it with a million messages, until the next ANALYZE.
        ("enable_seqscan", "off".to_owned()),
        // That makes a scan of a small table look expensive, and what looks expensive is compiled: 80 ms for nothing.
        ("jit", "off".to_owned()),
    ]);
    if options.get_application_name().is_none() {
        options = options.application_name("imks");
    }
    if is_loopback(options.get_host()) && !url.contains("sslmode") {
        // TLS over loopback protects nothing, and sqlx leaves Nagle's algorithm on: every batch of more than
        // one TLS record would wait 40 ms for a delayed acknowledgement.
        options = options.ssl_mode(PgSslMode::Disable);
    }
    Ok(options)
}

/// Pins the schema of the tables for all later connections. By default PostgreSQL looks into a schema with the name of
/// the role first, and the role may be called like the schema `imks`, which is for other programs.
async fn pin_schema(pool: &PgPool, mut connection: PgConnection) -> Result<(), Error> {
    let schema: Option<String> = sqlx::query_scalar(SCHEMA).fetch_one(&mut connection).await?;
    if let Some(schema) = schema {
        let path = format!("\"{}\"", schema.replace('"', "\"\""));
        pool.set_connect_options((*pool.connect_options()).clone().options([("search_path", path)]));
    }
    connection.close().await
}

fn pool_options(config: &Config, silence: &Silence) -> PgPoolOptions {
    let (before, after) = (silence.clone(), silence.clone());
    PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        // A ping before every query would double the round trips. Only idle connections are suspect.
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

/// The schema that has the tables, or the one in which they are to be created.
const SCHEMA: &str = "SELECT COALESCE((SELECT path.name FROM unnest(current_schemas(false)) \
    WITH ORDINALITY AS path(name, place) JOIN pg_namespace n ON n.nspname = path.name \
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = '_sqlx_migrations' AND c.relkind = 'r' \
    ORDER BY path.place LIMIT 1), current_schema())::TEXT";
/// The codes of PostgreSQL for a server that is starting, stopping or recovering, and for one that has no connection left,
/// perhaps because it still counts those of a process that was killed.
const NOT_YET: [&str; 2] = ["57P03", "53300"];
/// The pause between two attempts to reach a server that may be starting.
const START_PAUSE: Duration = Duration::from_millis(200);
/// The extra time a live connection needs to report that its statement was cancelled.
const GRACE: Duration = Duration::from_millis(500);
/// How long a connection may take to answer a ping.
const PROBE: Duration = Duration::from_millis(500);
/// The idle time after which a connection is pinged before it is used.
const IDLE_IS_SUSPECT: Duration = Duration::from_secs(5);
/// The parameters of a URL that the driver knows, beside `options[NAME]`.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_the_driver_does_not_know_never_gets_to_its_log() {
        let (url, unknown) =
            split_unknown("postgres://im@db/imks?passwd=hunter2&host=a%20b&options[jit]=on&%70ort=1&x");
        assert_eq!(url, "postgres://im@db/imks?host=a%20b&options[jit]=on&%70ort=1");
        assert_eq!(unknown, ["passwd", "x"]);
        let plain = "postgres://im:hunter2@db/imks";
        assert_eq!(split_unknown(plain), (plain.to_owned(), Vec::new()));
    }
}
