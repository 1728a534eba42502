//! The recovery log that nodes share, in Redis (or Valkey): a stream for each bucket, and a hash for each session. Each
//! access is one script, so it is one step for everybody.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ReconnectPolicy};
use fred::types::{Builder, ClusterHash, CustomCommand, Value};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use crate::bus::BoxFuture;
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::recovery_log::{Batch, Expected, Found, Keep, RecoveryLog, SessionKey, Tail, Written};

/// Opens the recovery log of a cluster in the Redis at `url`, as [`redis::connect`](super::redis::connect) takes it. Keys
/// begin with `prefix`. Redis needs no persistence: after a restart the log is another one.
///
/// # Errors
/// [`ImksError::Config`] for a URL that cannot be used; [`ImksError::AdapterRedis`] if Redis cannot be reached.
pub async fn open(url: &str, prefix: &str) -> ImksResult<Arc<dyn RecoveryLog>> {
    let config = Config::from_url(url)
        .map_err(|error| ImksError::Config(format!("REDIS_URL cannot be used: {}", error.details())))?;
    let client = Builder::from_config(config)
        .with_performance_config(|config| config.default_command_timeout = COMMAND_MAX)
        .with_connection_config(|config| {
            config.connection_timeout = COMMAND_MAX;
            config.internal_command_timeout = COMMAND_MAX;
            config.max_command_attempts = 1;
            config.max_command_buffer_len = COMMANDS_MAX;
        })
        .set_policy(ReconnectPolicy::new_constant(0, RECONNECT_MILLIS))
        .build()
        .map_err(failed)?;
    Box::pin(client.init()).await.map_err(failed)?;
    Ok(Arc::new(RedisLog { client, prefix: prefix.into() }))
}

/// A Redis as the recovery log.
struct RedisLog {
    client: Client,
    prefix: Box<str>,
}

/// The keys and arguments of a script.
struct Call {
    keys: Vec<String>,
    args: Vec<Value>,
}

impl Call {
    fn arg(&mut self, arg: impl Into<Value>) {
        self.args.push(arg.into());
    }

    fn number(&mut self, number: u64) {
        self.args.push(number.to_string().into());
    }
}

impl RedisLog {
    /// Returns what the keys of a bucket begin with. All are in one slot of a Redis Cluster.
    fn base(&self, bucket: &str) -> String {
        format!("{{{}:recovery:{bucket}}}", self.prefix)
    }

    fn call(&self, bucket: &str) -> ImksResult<Call> {
        let base = self.base(bucket);
        let mut epoch = [0; 8];
        getrandom::fill(&mut epoch)?;
        let mut call = Call { keys: vec![format!("{base}:head"), format!("{base}:log")], args: Vec::new() };
        call.number(u64::from_be_bytes(epoch));
        Ok(call)
    }

    fn session(&self, bucket: &str, key: SessionKey) -> ImksResult<String> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or(ImksError::Internal("no SHA-256"))?;
        let hash = URL_SAFE_NO_PAD.encode(suite.common.hash_provider.hash(&key.0));
        Ok(format!("{}:session:{hash}", self.base(bucket)))
    }

    async fn run(&self, script: &str, call: Call) -> ImksResult<Answer> {
        let mut args: Vec<Value> =
            vec![format!("{BEGIN}\n{script}").into(), call.keys.len().to_string().into()];
        args.extend(call.keys.into_iter().map(Value::from));
        args.extend(call.args);
        // The first key is the third argument.
        let command = CustomCommand::new_static("EVAL", ClusterHash::Offset(2), false);
        let values: Vec<Bytes> = Box::pin(self.client.custom(command, args)).await.map_err(failed)?;
        Ok(Answer(values.into_iter()))
    }

    async fn write_batch(&self, bucket: &str, batch: &Batch) -> ImksResult<Written> {
        let mut call = self.call(bucket)?;
        call.keys.push(format!("{}:node:{}", self.base(bucket), batch.node));
        call.arg(batch.node.to_string());
        call.number(batch.number);
        call.arg(batch.lease.map(|lease| lease.to_string()).unwrap_or_default());
        call.number(SESSION_MILLIS);
        call.number(batch.entries.len() as u64);
        call.number(batch.sessions.len() as u64);
        call.number(batch.serial);
        call.number(batch.epoch);
        batch.entries.iter().for_each(|entry| call.arg(entry.clone()));
        for session in &batch.sessions {
            call.keys.push(self.session(bucket, session.key)?);
            call.number(session.generation);
            call.arg(session.away_millis.map(|millis| millis.to_string()).unwrap_or_default());
            call.arg(session.record.clone());
            call.number(session.version);
        }
        for (key, generation) in &batch.ended {
            call.keys.push(self.session(bucket, *key)?);
            call.number(*generation);
        }
        let mut answer = self.run(WRITE, call).await?;
        let (epoch, first) = (answer.number()?, answer.number()?);
        let mut taken = Vec::new();
        while let Some(index) = answer.optional()? {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            taken.extend(batch.sessions.get(index).map(|session| session.key));
        }
        let positions = (first..).take(batch.entries.len()).collect();
        Ok(Written { epoch, positions, taken })
    }

    async fn read_after(&self, bucket: &str, after: u64) -> ImksResult<Tail> {
        let mut call = self.call(bucket)?;
        call.number(after);
        call.number(ENTRIES_PER_READ);
        call.number(BYTES_PER_READ);
        let mut answer = self.run(READ, call).await?;
        let (epoch, last, first) = (answer.number()?, answer.number()?, answer.number()?);
        Ok(Tail { epoch, last, first, entries: answer.0.collect() })
    }

    async fn find_session(&self, bucket: &str, key: SessionKey) -> ImksResult<Option<Found>> {
        let mut call = self.call(bucket)?;
        call.keys.push(self.session(bucket, key)?);
        call.arg(format!("{}:node:", self.base(bucket)));
        let mut answer = self.run(FIND, call).await?;
        if answer.0.len() == 0 {
            return Ok(None);
        }
        let (epoch, last) = (answer.number()?, answer.number()?);
        let node = NodeId::parse(&answer.text()?).ok_or_else(unreadable)?;
        let (generation, version) = (answer.number()?, answer.number()?);
        let (connected, away_millis) = (answer.number()? == 1, answer.number()?);
        let (taken_millis, lease) = (answer.optional()?, answer.optional()?);
        let record = answer.0.next().ok_or_else(unreadable)?;
        Ok(Some(Found {
            epoch,
            last,
            node,
            generation,
            version,
            connected,
            away_millis,
            taken_millis,
            lease,
            record,
        }))
    }

    async fn take_session(
        &self,
        bucket: &str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> ImksResult<bool> {
        let mut call = self.call(bucket)?;
        call.keys.push(self.session(bucket, key)?);
        call.number(expected.generation);
        call.arg(node.to_string());
        call.arg(expected.version.map(|version| version.to_string()).unwrap_or_default());
        Ok(self.run(TAKE, call).await?.number()? == 1)
    }

    async fn trim_bucket(&self, bucket: &str, keep: Keep) -> ImksResult<()> {
        loop {
            let mut call = self.call(bucket)?;
            call.number(keep.millis);
            call.number(keep.entries);
            call.number(keep.bytes);
            if self.run(TRIM, call).await?.number()? == 0 {
                return Ok(());
            }
        }
    }
}

impl RecoveryLog for RedisLog {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn write<'a>(&'a self, bucket: &'a str, batch: &'a Batch) -> BoxFuture<'a, ImksResult<Written>> {
        Box::pin(self.write_batch(bucket, batch))
    }

    fn read<'a>(&'a self, bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        Box::pin(self.read_after(bucket, after))
    }

    fn find<'a>(&'a self, bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>> {
        Box::pin(self.find_session(bucket, key))
    }

    fn take<'a>(
        &'a self,
        bucket: &'a str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        Box::pin(self.take_session(bucket, key, expected, node))
    }

    fn trim<'a>(&'a self, bucket: &'a str, keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(self.trim_bucket(bucket, keep))
    }
}

/// The values that a script returned, in their order.
struct Answer(std::vec::IntoIter<Bytes>);

impl Answer {
    fn text(&mut self) -> ImksResult<String> {
        let bytes = self.0.next().ok_or_else(unreadable)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| unreadable())
    }

    fn number(&mut self) -> ImksResult<u64> {
        self.optional()?.ok_or_else(unreadable)
    }

    /// Returns the next number, or `None` if there is no further value or an empty one.
    fn optional(&mut self) -> ImksResult<Option<u64>> {
        if self.0.len() == 0 {
            return Ok(None);
        }
        match &*self.text()? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| unreadable()),
        }
    }
}

fn unreadable() -> ImksError {
    ImksError::AdapterRedis(Cause::new("an answer that is not one of the recovery log"))
}

fn failed(error: fred::error::Error) -> ImksError {
    ImksError::AdapterRedis(Cause::new(error))
}

const BEGIN: &str = include_str!("redis_log/script.lua");
const WRITE: &str = include_str!("redis_log/write.lua");
const READ: &str = include_str!("redis_log/read.lua");
const FIND: &str = include_str!("redis_log/find.lua");
const TAKE: &str = include_str!("redis_log/take.lua");
const TRIM: &str = include_str!("redis_log/trim.lua");

/// The lifetime of a session that is not stored again. Those of connected clients are, at least every twenty minutes.
const SESSION_MILLIS: u64 = 3_600_000;
/// The entries that are read with one script.
const ENTRIES_PER_READ: u64 = 512;
/// The size after which a script reads no further entry, in bytes.
const BYTES_PER_READ: u64 = 8 << 20;
/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(2);
/// The commands that may wait in the client library.
const COMMANDS_MAX: usize = 1_024;
/// The pause between two attempts to connect.
const RECONNECT_MILLIS: u32 = 500;
