//! The broker PostgreSQL: messages between nodes are rows, and `NOTIFY` only tells that there are new ones.
//!
//! Each node numbers its own messages without holes and commits them one batch after the other. A reader has a
//! position per sender, so no late commit of another node can hide a message, and a hole is a known loss.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::FromRow;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::db::Db;
use crate::background;
use crate::bus::broker::{Arrivals, Broker, Connection, Outgoing};
use crate::bus::broker_pipe::{BrokerPipe, NODE, PROBE};
use crate::bus::{BoxFuture, Pipe};
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;

/// Connects a node to the others through the database, and stays connected. The channels of this cluster begin
/// with `prefix`; `node` must be different for every node.
///
/// # Errors
/// [`ImksError::Config`] for a database that is not PostgreSQL.
pub fn connect(db: &Db, prefix: &str, node: NodeId) -> ImksResult<Arc<dyn Pipe>> {
    Ok(BrokerPipe::start(Box::new(PostgresBroker::new(db, prefix, node)?), node))
}

/// The channels that a node has subscribed to.
type Channels = parking_lot::Mutex<HashSet<String>>;

/// The server's database as the broker between its nodes.
struct PostgresBroker {
    pool: PgPool,
    node: Arc<str>,
    prefix: Arc<str>,
    /// The number of the last message of this node. Held while messages are written, so that their numbers are
    /// committed in order.
    last: Arc<Mutex<i64>>,
}

impl PostgresBroker {
    fn new(db: &Db, prefix: &str, node: NodeId) -> ImksResult<Self> {
        let Db::Postgres(pool) = db else {
            return Err(ImksError::Config("IMKS_ADAPTER=postgres needs a DATABASE_URL of PostgreSQL".into()));
        };
        let (node, prefix) = (node.to_string().into(), prefix.into());
        Ok(Self { pool: (**pool).clone(), node, prefix, last: Arc::default() })
    }

    async fn open(&self, arrivals: Arrivals) -> Result<PostgresConnection, sqlx::Error> {
        // Connections of its own: the bus must neither wait for queries of clients nor delay them.
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_MAX)
            .connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = Box::pin(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        Box::pin(listener.listen(&self.prefix)).await?;
        let presence = Box::pin(pool.acquire()).await?.detach();
        let channels: Arc<Channels> = Arc::default();
        let positions = sqlx::query_as(POSITIONS).fetch_all(&pool).await?.into_iter().collect();
        let reader = Reader {
            pool: pool.clone(),
            node: self.node.clone(),
            prefix: self.prefix.clone(),
            channels: channels.clone(),
            positions,
            arrivals,
        };
        let (stop, ended) = (CancellationToken::new(), watch::Sender::new(None));
        let tasks = TaskTracker::new();
        let reading = until(stop.clone(), reader.run(listener), ended.clone());
        tasks.spawn(background::essential("cluster_reader", reading));
        let sweeping = until(stop.clone(), sweep(pool.clone()), ended.clone());
        tasks.spawn(background::essential("cluster_sweep", sweeping));
        Ok(PostgresConnection {
            pool,
            presence: Mutex::new(presence),
            channels,
            node: self.node.clone(),
            prefix: self.prefix.clone(),
            last: self.last.clone(),
            ended,
            _stop: stop.drop_guard(),
            _tasks: tasks,
        })
    }
}

impl Broker for PostgresBroker {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn place(&self) -> String {
        let options = self.pool.connect_options();
        format!("{}:{}", options.get_host(), options.get_port())
    }

    fn error(&self, why: String) -> ImksError {
        ImksError::AdapterMessageBus(Cause::new(why))
    }

    fn connect(&self, arrivals: Arrivals) -> BoxFuture<'_, ImksResult<Arc<dyn Connection>>> {
        Box::pin(async move { Ok(Arc::new(Box::pin(self.open(arrivals)).await?) as Arc<dyn Connection>) })
    }
}

struct PostgresConnection {
    pool: PgPool,
    /// The connection that holds a lock per node channel, so that senders know whether its receiver is there.
    presence: Mutex<sqlx::PgConnection>,
    channels: Arc<Channels>,
    node: Arc<str>,
    prefix: Arc<str>,
    last: Arc<Mutex<i64>>,
    ended: watch::Sender<Option<String>>,
    _stop: DropGuard,
    /// The tasks that read and remove messages, until `_stop`.
    _tasks: TaskTracker,
}

impl PostgresConnection {
    fn channel(&self, channel: &str) -> String {
        format!("{}:{channel}", self.prefix)
    }

    async fn insert(&self, batch: Vec<Outgoing>) -> Result<(), sqlx::Error> {
        let count = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut last = self.last.lock().await;
        // Each number is used once, whatever becomes of the statement: it may be committed although it fails.
        let first = *last + 1;
        *last += count;
        let numbers: Vec<i64> = (first..first + count).collect();
        let channels: Vec<String> = batch.iter().map(|outgoing| self.channel(&outgoing.channel)).collect();
        let messages: Vec<&[u8]> = batch.iter().map(|outgoing| &*outgoing.message).collect();
        let query = sqlx::query(INSERT).bind(&*self.node).bind(numbers).bind(channels).bind(messages);
        let told = format!("{} {last}", self.node);
        query.bind(&*self.prefix).bind(told).execute(&self.pool).await.map(drop)
    }

    async fn is_received(&self, channel: &str) -> Result<bool, sqlx::Error> {
        let [class, object] = lock_key(&self.channel(channel));
        sqlx::query_scalar(IS_LOCKED).bind(class).bind(object).fetch_one(&self.pool).await
    }
}

impl Connection for PostgresConnection {
    fn subscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async move {
            self.channels.lock().extend(channels.iter().map(|channel| self.channel(channel)));
            for channel in channels.iter().filter(|channel| channel.starts_with(NODE)) {
                let [class, object] = lock_key(&self.channel(channel));
                let mut presence = self.presence.lock().await;
                sqlx::query(LOCK).bind(class).bind(object).execute(&mut *presence).await?;
            }
            Ok(())
        })
    }

    fn unsubscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>> {
        let mut subscribed = self.channels.lock();
        for channel in channels {
            subscribed.remove(&self.channel(channel));
        }
        Box::pin(async { Ok(()) })
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, ImksResult<()>> {
        Box::pin(async move { Ok(self.insert(batch).await?) })
    }

    fn publish_counted(&self, message: Outgoing) -> BoxFuture<'_, ImksResult<bool>> {
        Box::pin(async move {
            if !self.is_received(&message.channel).await? {
                return Ok(false);
            }
            self.insert(vec![message]).await?;
            Ok(true)
        })
    }

    fn failed(&self) -> BoxFuture<'_, String> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move {
            match ended.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                Err(_) => String::new(),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // PostgreSQL would drop the locks with the connection as well, but some time after it was closed.
            let mut presence = self.presence.lock().await;
            if let Err(error) = sqlx::query(UNLOCK_ALL).execute(&mut *presence).await {
                tracing::debug!(%error, "the locks of this node end with its connection");
            }
            self.pool.close().await;
        })
    }
}

/// Reads the messages of all senders that have new ones.
struct Reader {
    pool: PgPool,
    node: Arc<str>,
    prefix: Arc<str>,
    channels: Arc<Channels>,
    /// The number of the last message of each sender that was read.
    positions: HashMap<String, i64>,
    arrivals: Arrivals,
}

/// A message, without its content if this node has not subscribed to its channel.
#[derive(FromRow)]
struct Row {
    number: i64,
    channel: Option<String>,
    message: Option<Vec<u8>>,
}

impl Reader {
    /// Reads until the connection ends. Returns why it did.
    async fn run(mut self, mut listener: PgListener) -> String {
        loop {
            let notification = match Box::pin(listener.try_recv()).await {
                Ok(Some(notification)) => notification,
                Ok(None) => return "the connection was closed".into(),
                Err(error) => return error.to_string(),
            };
            let Some((sender, last)) = notification.payload().split_once(' ') else { continue };
            let Ok(last) = last.parse() else { continue };
            match self.read(sender, last).await {
                Ok(true) => {}
                Ok(false) => return "nobody reads any more".into(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Reads a sender's messages up to number `last`. Returns false once nobody wants them.
    async fn read(&mut self, sender: &str, last: i64) -> Result<bool, sqlx::Error> {
        let mut position = self.positions.get(sender).copied().unwrap_or(0);
        while position < last {
            let channels = self.channels_of(sender);
            let rows: Vec<Row> = sqlx::query_as(READ)
                .bind(sender)
                .bind(position)
                .bind(channels)
                .bind(ROWS_PER_READ)
                .fetch_all(&self.pool)
                .await?;
            let before = position;
            for row in rows {
                // The number of a message that was not stored, or has been removed before it was read.
                self.arrivals.lost(u64::try_from(row.number - position - 1).unwrap_or(0));
                position = row.number;
                if !self.pass_on(row).await {
                    return Ok(false);
                }
            }
            if position == before {
                self.arrivals.lost(u64::try_from(last - position).unwrap_or(0));
                position = last;
            }
        }
        self.positions.insert(sender.to_owned(), position);
        Ok(true)
    }

    /// Returns the channels that are read from a sender: of this node itself, only its probes.
    fn channels_of(&self, sender: &str) -> Vec<String> {
        let is_own = *sender == *self.node;
        let probe = format!("{}:{PROBE}", self.prefix);
        let channels = self.channels.lock();
        channels.iter().filter(|channel| !is_own || channel.starts_with(&probe)).cloned().collect()
    }

    async fn pass_on(&self, row: Row) -> bool {
        let (Some(channel), Some(message)) = (row.channel, row.message) else { return true };
        match channel.strip_prefix(&*self.prefix).and_then(|rest| rest.strip_prefix(':')) {
            Some(channel) => self.arrivals.push(channel, Bytes::from(message)).await,
            None => true,
        }
    }
}

/// Removes messages that every node has read, or has lost.
async fn sweep(pool: PgPool) -> String {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sqlx::query(SWEEP).bind(KEPT_MICROS).execute(&pool).await {
            tracing::warn!(%error, "old messages between nodes were not removed");
        }
    }
}

/// Runs a task of a connection until `stop`, and records why it ended.
async fn until(
    stop: CancellationToken,
    task: impl Future<Output = String>,
    ended: watch::Sender<Option<String>>,
) {
    if let Some(why) = stop.run_until_cancelled(task).await {
        ended.send_replace(Some(why));
    }
}

/// Returns the key of a channel's advisory lock: a hash (FNV-1a). A collision only makes a receiver seem to be
/// there.
fn lock_key(channel: &str) -> [i32; 2] {
    let hash = channel.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    [(hash >> 32) as i32, hash as i32]
}

// The clock is the database's, because rows of all nodes are compared.
const INSERT: &str = "WITH written AS (\
        INSERT INTO cluster_message (sender, number, channel, message, sent_at) \
        SELECT $1, r.*, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT \
        FROM UNNEST($2::BIGINT[], $3::TEXT[], $4::BYTEA[]) AS r) \
    SELECT pg_notify($5, $6)";
const READ: &str = "SELECT number, \
        CASE WHEN channel = ANY($3) THEN channel END AS channel, \
        CASE WHEN channel = ANY($3) THEN message END AS message \
    FROM cluster_message WHERE sender = $1 AND number > $2 ORDER BY number LIMIT $4";
const POSITIONS: &str = "SELECT sender, MAX(number) FROM cluster_message GROUP BY sender";
const SWEEP: &str = "DELETE FROM cluster_message \
    WHERE sent_at < (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT - $1";
const LOCK: &str = "SELECT pg_advisory_lock_shared($1, $2)";
const UNLOCK_ALL: &str = "SELECT pg_advisory_unlock_all()";
const IS_LOCKED: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
    AND classid = ($1::BIGINT & 4294967295)::OID AND objid = ($2::BIGINT & 4294967295)::OID \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// The connections of a node for the bus: one listens, one is present, the others read and write.
const CONNECTIONS: u32 = 4;
/// How long a message may wait for a connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// The messages that are read with one query.
const ROWS_PER_READ: i64 = 512;
/// How long messages are kept for nodes that are slow.
const KEPT_MICROS: i64 = 30_000_000;
/// The interval at which old messages are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_channels_have_different_locks() {
        let keys: HashSet<[i32; 2]> = (0..10_000).map(|n| lock_key(&format!("imks:node:{n}"))).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
