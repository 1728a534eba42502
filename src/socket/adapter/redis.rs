//! The broker Redis (or Valkey): `PUBLISH` and `SUBSCRIBE`, or their sharded forms on a Redis Cluster.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::{Config, Options, TcpConfig};
use fred::types::{Builder, ConnectHandle, MessageKind, RespVersion, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bus::broker::{Arrivals, Broker, Connection, Outgoing};
use crate::bus::broker_pipe::BrokerPipe;
use crate::bus::{BoxFuture, Pipe};
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;

/// Connects a node to the others through Redis, and stays connected. The channels of this cluster begin with
/// `prefix`; `node` must be different for every node. URLs are `redis://[user:password@]host:port`, `rediss://`
/// with TLS, `redis-cluster://` and `redis-sentinel://` with their variants.
///
/// # Errors
/// [`ImksError::Config`] for a URL that cannot be used; it does not contain the URL.
pub fn connect(url: &str, prefix: &str, node: NodeId) -> ImksResult<Arc<dyn Pipe>> {
    Ok(BrokerPipe::start(Box::new(Redis::new(url, prefix)?), node))
}

/// Connects a node to Node.js servers, for [`NamespaceBuilder::classic`](crate::socket::NamespaceBuilder::classic). `prefix`
/// is the option `key` of their adapter, `socket.io` by default. URLs as for [`connect`].
///
/// # Errors
/// [`ImksError::Config`] for a URL that cannot be used; it does not contain the URL.
pub fn classic(url: &str, prefix: &str) -> ImksResult<Arc<dyn Pipe>> {
    let mut redis = Redis::new(url, prefix)?;
    redis.names = Names { prefix: prefix.into(), are_classic: true };
    Ok(BrokerPipe::start(Box::new(redis), NodeId::random()?))
}

/// A Redis server, a Redis Cluster, or a Redis server behind Sentinels.
struct Redis {
    config: Config,
    names: Names,
}

/// The names of channels in Redis.
#[derive(Clone)]
struct Names {
    /// What precedes the name of each channel.
    prefix: Arc<str>,
    /// Whether they are those of Node.js servers. One that ends with `*` is then a pattern; the part of `#NAMESPACE#*` before
    /// the star is that of all its channels up to the second `#`.
    are_classic: bool,
}

impl Names {
    /// Returns the name of a channel.
    fn channel(&self, channel: &str) -> String {
        format!("{}{channel}", self.prefix)
    }

    fn channels<'a>(&self, channels: impl Iterator<Item = &'a Arc<str>>) -> Vec<String> {
        channels.map(|channel| self.channel(channel)).collect()
    }

    fn is_pattern(&self, channel: &str) -> bool {
        self.are_classic && channel.ends_with('*')
    }

    /// Returns a pattern in which only the star at the end is special.
    fn pattern(&self, pattern: &str) -> String {
        let mut escaped = String::new();
        for c in self.channel(pattern.strip_suffix('*').unwrap_or(pattern)).chars() {
            escaped.extend("*?[]\\".contains(c).then_some('\\'));
            escaped.push(c);
        }
        escaped + "*"
    }

    /// Returns the subscription that a message belongs to.
    fn subscription<'a>(&self, channel: &'a str, kind: &MessageKind) -> Option<Cow<'a, str>> {
        let channel = channel.strip_prefix(&*self.prefix)?;
        if *kind != MessageKind::PMessage {
            return Some(Cow::Borrowed(channel));
        }
        let (namespace, _) = channel.strip_prefix('#')?.split_once('#')?;
        Some(Cow::Owned(format!("#{namespace}#*")))
    }
}

impl Redis {
    fn new(url: &str, prefix: &str) -> ImksResult<Self> {
        let mut config = Config::from_url(url)
            .map_err(|error| ImksError::Config(format!("REDIS_URL cannot be used: {}", error.details())))?;
        config.fail_fast = true;
        // A connection that subscribes can also ping, and so learn that its subscriptions are complete.
        config.version = RespVersion::RESP3;
        Ok(Self { config, names: Names { prefix: format!("{prefix}:").into(), are_classic: false } })
    }

    /// Creates a client that gives up where it would otherwise wait or reconnect: the pipe replaces it. In each of its
    /// channels there is room for so many messages, which is allocated at once.
    fn client(&self, messages_max: usize) -> Result<Client, fred::error::Error> {
        Builder::from_config(self.config.clone())
            .with_performance_config(|config| {
                config.default_command_timeout = COMMAND_MAX;
                config.broadcast_channel_capacity = messages_max;
            })
            .with_connection_config(|config| {
                config.connection_timeout = COMMAND_MAX;
                config.internal_command_timeout = COMMAND_MAX;
                config.max_command_attempts = 1;
                config.max_command_buffer_len = COMMANDS_MAX;
                config.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            })
            .build()
    }

    /// Returns host and port, or those of all servers that are known.
    fn place(&self) -> String {
        self.config.server.hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    async fn open(&self, arrivals: Arrivals) -> Result<RedisConnection, fred::error::Error> {
        let (publisher, subscriber) = (self.client(NO_MESSAGES)?, self.client(MESSAGES_MAX)?);
        let messages = subscriber.message_rx();
        let publishing = Running(Box::pin(publisher.init()).await?);
        let connected = [publishing, Running(Box::pin(subscriber.init()).await?)];
        let stop = CancellationToken::new();
        let (ended, until_gone) = (stop.clone(), receive(messages, arrivals, self.names.clone()));
        let receiving = TaskTracker::new();
        receiving.spawn(async move {
            ended.run_until_cancelled(until_gone).await;
        });
        let (is_clustered, is_classic) = (self.config.server.is_clustered(), self.names.are_classic);
        // Node.js servers do not shard channels: each message reaches all masters, and one of them serves this node, so that
        // its messages stay in order.
        let home = publisher.active_connections().into_iter().next();
        let options =
            Options { cluster_node: home.filter(|_| is_clustered && is_classic), ..Options::default() };
        Ok(RedisConnection {
            is_sharded: is_clustered && !is_classic,
            publisher: publisher.with_options(&options),
            subscriber: subscriber.with_options(&options),
            ended: tokio::sync::Mutex::new(connected),
            names: self.names.clone(),
            _stop: stop.drop_guard(),
            _receiving: receiving,
        })
    }
}

impl Broker for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn place(&self) -> String {
        Self::place(self)
    }

    fn error(&self, why: String) -> ImksError {
        // What has ended a connection may be an error of this kind itself.
        ImksError::AdapterRedis(Cause::new(why.strip_prefix("redis: ").unwrap_or(&why).to_owned()))
    }

    fn connect(&self, arrivals: Arrivals) -> BoxFuture<'_, ImksResult<Arc<dyn Connection>>> {
        Box::pin(async move {
            let connection = Box::pin(self.open(arrivals)).await;
            let connection =
                connection.map_err(|error| self.error(format!("{}: {}", self.place(), why(&error))))?;
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        })
    }
}

/// The task of a client, which ends with this value: on a connection that fell silent it would wait for ever, and keep its
/// memory and its socket.
struct Running(ConnectHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Two connections: one that publishes, and one that subscribes, so that neither waits for the other.
struct RedisConnection {
    publisher: WithOptions<Client>,
    subscriber: WithOptions<Client>,
    /// Whether channels are those of the shards of a Redis Cluster.
    is_sharded: bool,
    /// The tasks of the clients, which end when their connection does.
    ended: tokio::sync::Mutex<[Running; 2]>,
    names: Names,
    _stop: DropGuard,
    /// The task that receives messages, until `_stop`.
    _receiving: TaskTracker,
}

impl RedisConnection {
    /// Returns the patterns and the channels, as Redis names them.
    fn split(&self, channels: &[Arc<str>]) -> (Vec<String>, Vec<String>) {
        let names = &self.names;
        let patterns = channels.iter().filter(|channel| names.is_pattern(channel));
        let patterns = patterns.map(|pattern| names.pattern(pattern)).collect();
        (patterns, names.channels(channels.iter().filter(|channel| !names.is_pattern(channel))))
    }

    async fn publish_one(&self, Outgoing { channel, message }: Outgoing) -> Result<i64, fred::error::Error> {
        let channel = self.names.channel(&channel);
        match self.is_sharded {
            true => Box::pin(self.publisher.spublish(channel, Value::Bytes(message))).await,
            false => Box::pin(self.publisher.publish(channel, Value::Bytes(message))).await,
        }
    }

    async fn publish_all(&self, batch: Vec<Outgoing>) -> Result<(), fred::error::Error> {
        let pipeline = self.publisher.pipeline().with_options(self.publisher.options());
        for Outgoing { channel, message } in batch {
            let (channel, message) = (self.names.channel(&channel), Value::Bytes(message));
            let () = match self.is_sharded {
                true => Box::pin(pipeline.spublish(channel, message)).await?,
                false => Box::pin(pipeline.publish(channel, message)).await?,
            };
        }
        let _receivers: Vec<i64> = Box::pin(pipeline.all()).await?;
        Ok(())
    }
}

impl Connection for RedisConnection {
    fn subscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async move {
            let (patterns, channels) = self.split(channels);
            if !patterns.is_empty() {
                Box::pin(self.subscriber.psubscribe(patterns)).await.map_err(failed)?;
            }
            // Each channel of a cluster has its own shard, and one command is for one shard.
            for some in channels.chunks(if self.is_sharded { 1 } else { CHANNELS_PER_COMMAND }) {
                let some = some.to_vec();
                match self.is_sharded {
                    true => Box::pin(self.subscriber.ssubscribe(some)).await,
                    false => Box::pin(self.subscriber.subscribe(some)).await,
                }
                .map_err(failed)?;
            }
            // The client library does not wait for the answers to `SUBSCRIBE`.
            Box::pin(self.subscriber.ping(None)).await.map_err(failed)
        })
    }

    fn unsubscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async move {
            let (patterns, channels) = self.split(channels);
            if !patterns.is_empty() {
                Box::pin(self.subscriber.punsubscribe(patterns)).await.map_err(failed)?;
            }
            for some in channels.chunks(if self.is_sharded { 1 } else { CHANNELS_PER_COMMAND }) {
                let some = some.to_vec();
                match self.is_sharded {
                    true => Box::pin(self.subscriber.sunsubscribe(some)).await,
                    false => Box::pin(self.subscriber.unsubscribe(some)).await,
                }
                .map_err(failed)?;
            }
            Ok(())
        })
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, ImksResult<()>> {
        Box::pin(async move { Box::pin(self.publish_all(batch)).await.map_err(failed) })
    }

    fn publish_counted(&self, message: Outgoing) -> BoxFuture<'_, ImksResult<bool>> {
        Box::pin(async move { Ok(Box::pin(self.publish_one(message)).await.map_err(failed)? > 0) })
    }

    fn subscribers<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move {
            let channel = self.names.channel(channel);
            if self.is_sharded {
                return count(Box::pin(self.publisher.pubsub_shardnumsub(channel)).await);
            }
            if self.publisher.options().cluster_node.is_none() {
                return count(Box::pin(self.publisher.pubsub_numsub(channel)).await);
            }
            // Each master knows its own subscribers only.
            let mut all = 0;
            for master in self.publisher.active_connections() {
                let master = self.publisher.with_cluster_node(master);
                all += count(Box::pin(master.pubsub_numsub(&*channel)).await)?;
            }
            Some(all)
        })
    }

    fn failed(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let mut ended = self.ended.lock().await;
            let [Running(publisher), Running(subscriber)] = &mut *ended;
            let ended = tokio::select! {
                ended = publisher => ended,
                ended = subscriber => ended,
            };
            match ended {
                Ok(Err(error)) => why(&error),
                Ok(Ok(())) | Err(_) => "the connection was closed".into(),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Whether Redis answers does not matter: dropping the clients closes the connections.
            let _ = tokio::join!(Box::pin(self.publisher.quit()), Box::pin(self.subscriber.quit()));
        })
    }
}

/// Returns the number of subscribers in an answer about one channel.
fn count(answer: Result<Vec<(String, usize)>, fred::error::Error>) -> Option<usize> {
    answer.ok()?.first().map(|(_, count)| *count)
}

/// Passes messages on until the client is gone.
async fn receive(
    mut messages: tokio::sync::broadcast::Receiver<fred::types::Message>,
    arrivals: Arrivals,
    names: Names,
) {
    loop {
        let message = match messages.recv().await {
            Ok(message) => message,
            Err(RecvError::Lagged(messages)) => {
                arrivals.lost(messages);
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let Some(channel) = names.subscription(&message.channel, &message.kind) else { continue };
        if !arrivals.push(&channel, bytes(message.value)).await {
            return;
        }
    }
}

/// Returns the content of a message without copying it.
fn bytes(value: Value) -> Bytes {
    match value {
        Value::Bytes(bytes) => bytes,
        Value::String(text) => text.into_inner(),
        // Messages have no other types.
        _ => Bytes::new(),
    }
}

fn failed(error: fred::error::Error) -> ImksError {
    ImksError::AdapterRedis(Cause::new(why(&error)))
}

/// Returns the reason in words for people: the client library tells errors of the system as they stand in programs.
fn why(error: &fred::error::Error) -> String {
    let details = error.details();
    let of_system = (*error.kind() == ErrorKind::IO).then(|| details.split('"').nth(1)).flatten();
    of_system.unwrap_or(details).to_owned()
}

/// The messages that may wait in the client library before it drops the oldest, which is counted.
const MESSAGES_MAX: usize = 16_384;
/// The room for messages of a client that receives none.
const NO_MESSAGES: usize = 16;
/// The commands that may wait in the client library.
const COMMANDS_MAX: usize = 16_384;
/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(5);
/// The most channels in one command.
const CHANNELS_PER_COMMAND: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_is_not_reached_is_told_with_its_place_and_in_words() {
        let refused = fred::error::Error::from(std::io::Error::from_raw_os_error(111));
        assert_eq!(why(&refused), "Connection refused");
        let denied = fred::error::Error::new(ErrorKind::Auth, "WRONGPASS invalid \"password\"");
        assert_eq!(why(&denied), "WRONGPASS invalid \"password\"");
        let redis = Redis::new("redis://im:hunter2@cache:6380", "imks").unwrap();
        assert_eq!(redis.place(), "cache:6380");
        let told = crate::error::with_causes(&redis.error("redis: the connection was closed".into()));
        assert_eq!(told, "redis: the connection was closed");
    }
}
