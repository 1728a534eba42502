//! The broker NATS: core publish and subscribe.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, Request, RequestErrorKind, ServerAddr, Subscriber};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bus::broker::{Arrivals, Broker, Connection, Outgoing};
use crate::bus::broker_pipe::BrokerPipe;
use crate::bus::{BoxFuture, Pipe, metrics};
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;

/// Connects a node to the others through NATS, and stays connected. The subjects of this cluster begin with
/// `prefix`; `node` must be different for every node. URLs are `nats://[user:password@]host:port` or `tls://`,
/// several separated by commas; `credentials` is a file with the JWT and the seed of a user.
///
/// # Errors
/// [`ImksError::Config`] for a URL that cannot be used; it does not contain the URL.
pub fn connect(
    urls: &str,
    credentials: Option<PathBuf>,
    prefix: &str,
    node: NodeId,
) -> ImksResult<Arc<dyn Pipe>> {
    Ok(BrokerPipe::start(Box::new(Nats::new(urls, credentials, prefix)?), node))
}

/// A NATS server or a cluster of them.
pub(super) struct Nats {
    servers: Vec<ServerAddr>,
    credentials: Option<PathBuf>,
    prefix: Arc<str>,
}

impl Nats {
    pub(super) fn new(urls: &str, credentials: Option<PathBuf>, prefix: &str) -> ImksResult<Self> {
        let servers: Result<Vec<ServerAddr>, _> = urls.split(',').map(|url| url.trim().parse()).collect();
        let servers = servers.map_err(|_| ImksError::Config(URL_RULE.into()))?;
        if servers.iter().any(ServerAddr::is_websocket) {
            return Err(ImksError::Config(URL_RULE.into()));
        }
        Ok(Self { servers, credentials, prefix: prefix.into() })
    }

    /// Returns host and port of each server.
    fn place(&self) -> String {
        let places = self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port()));
        places.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// Returns the options of a connection.
    pub(super) async fn options(&self) -> ImksResult<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .name("imks")
            .connection_timeout(CONNECT_MAX)
            .ping_interval(PING_INTERVAL)
            .client_capacity(COMMANDS_MAX)
            .subscription_capacity(MESSAGES_MAX);
        if let Some((user, password)) = self.servers.iter().find_map(user) {
            options = match password {
                Some(password) => options.user_and_password(user, password),
                None => options.token(user),
            };
        }
        if let Some(file) = &self.credentials {
            let failed = ImksError::io(format!("cannot read the NATS credentials {}", file.display()));
            options = options.credentials_file(file).await.map_err(failed)?;
        }
        Ok(options)
    }

    async fn open(&self, arrivals: Arrivals) -> ImksResult<NatsConnection> {
        let ended = watch::Sender::new(None);
        // A connection that fails is replaced by the pipe.
        let options = self.options().await?.max_reconnects(1);
        let options = options.event_callback(callback(arrivals.clone(), ended.clone()));
        let client = Box::pin(options.connect(self.servers.as_slice())).await;
        let client = client.map_err(|error| self.error(format!("{}: {}", self.place(), why(&error))))?;
        let stop = CancellationToken::new();
        Ok(NatsConnection {
            client,
            prefix: self.prefix.clone(),
            arrivals,
            subscriptions: Mutex::default(),
            ended,
            stop: stop.clone(),
            _stop: stop.drop_guard(),
            receiving: TaskTracker::new(),
        })
    }
}

impl Broker for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn place(&self) -> String {
        Self::place(self)
    }

    fn error(&self, why: String) -> ImksError {
        // What has ended a connection may be an error of this kind itself.
        ImksError::AdapterNats(Cause::new(why.strip_prefix("nats: ").unwrap_or(&why).to_owned()))
    }

    fn connect(&self, arrivals: Arrivals) -> BoxFuture<'_, ImksResult<Arc<dyn Connection>>> {
        Box::pin(async move { Ok(Arc::new(Box::pin(self.open(arrivals)).await?) as Arc<dyn Connection>) })
    }
}

struct NatsConnection {
    client: Client,
    prefix: Arc<str>,
    arrivals: Arrivals,
    /// The tokens that end subscriptions.
    subscriptions: Mutex<std::collections::HashMap<Arc<str>, CancellationToken>>,
    /// Why the connection has ended.
    ended: watch::Sender<Option<String>>,
    stop: CancellationToken,
    _stop: DropGuard,
    /// The tasks that receive messages, one for each subscription.
    receiving: TaskTracker,
}

impl NatsConnection {
    /// Returns the subject of a channel. Names of channels may contain anything, subjects may not.
    fn subject(&self, channel: &str) -> String {
        format!("{}.{}", self.prefix, BASE64_URL_SAFE_NO_PAD.encode(channel))
    }

    /// Whether the server takes a message of this size. If not, it is counted.
    fn accepts(&self, Outgoing { channel, message }: &Outgoing) -> bool {
        let fits = message.len() <= self.client.max_payload();
        if !fits {
            metrics::MESSAGES_DROPPED.of(metrics::Drop::TooLarge).increment();
            let (bytes, max) = (message.len(), self.client.max_payload());
            tracing::error!(%channel, bytes, max, "message too large for NATS: raise max_payload of its servers");
        }
        fits
    }
}

impl Connection for NatsConnection {
    fn subscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async move {
            for channel in channels {
                let subscriber = self.client.subscribe(self.subject(channel)).await.map_err(failed)?;
                let stop = self.stop.child_token();
                self.subscriptions.lock().insert(channel.clone(), stop.clone());
                let (client, arrivals) = (self.client.clone(), self.arrivals.clone());
                let receiving = receive(client, subscriber, channel.clone(), arrivals);
                self.receiving.spawn(async move { stop.run_until_cancelled(receiving).await });
            }
            Ok(())
        })
    }

    fn unsubscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>> {
        let mut subscriptions = self.subscriptions.lock();
        channels.iter().filter_map(|channel| subscriptions.remove(channel)).for_each(|stop| stop.cancel());
        Box::pin(async { Ok(()) })
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, ImksResult<()>> {
        Box::pin(async move {
            for outgoing in batch.into_iter().filter(|outgoing| self.accepts(outgoing)) {
                let subject = self.subject(&outgoing.channel);
                self.client.publish(subject, outgoing.message).await.map_err(failed)?;
            }
            self.client.flush().await.map_err(failed)
        })
    }

    fn publish_counted(&self, outgoing: Outgoing) -> BoxFuture<'_, ImksResult<bool>> {
        Box::pin(async move {
            if !self.accepts(&outgoing) {
                return Ok(true);
            }
            // The server answers at once if nobody is there. The receiver answers with an empty message.
            let request = Request::new().payload(outgoing.message).timeout(Some(RECEIPT_MAX));
            match Box::pin(self.client.send_request(self.subject(&outgoing.channel), request)).await {
                Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(false),
                // A receiver that is busy may still get it.
                Err(error) if error.kind() == RequestErrorKind::TimedOut => Ok(true),
                outcome => outcome.map(|_| true).map_err(failed),
            }
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
            self.stop.cancel();
            self.receiving.close();
            self.receiving.wait().await;
            // The server handles commands in order: once it answers, it has ended the subscriptions. Dropping the
            // client closes the connection, also if there is no answer.
            let last = Request::new().timeout(Some(RECEIPT_MAX));
            if let Err(error) = Box::pin(self.client.send_request(self.subject("end"), last)).await
                && error.kind() != RequestErrorKind::NoResponders
            {
                tracing::debug!(%error, "NATS did not confirm the end of the subscriptions");
            }
        })
    }
}

/// Returns the user and the password in the URL of a server. A user without a password is a token.
fn user(server: &ServerAddr) -> Option<(String, Option<String>)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((server.username().map(decode)?, server.password().map(decode)))
}

/// Returns the callback that records the end of the connection, and the losses of the client library.
fn callback(
    arrivals: Arrivals,
    ended: watch::Sender<Option<String>>,
) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static {
    move |event| {
        match event {
            Event::SlowConsumer(_) => arrivals.lost(1),
            Event::Disconnected | Event::Closed => drop(ended.send_replace(Some(event.to_string()))),
            Event::LameDuckMode => drop(ended.send_replace(Some("the server is shutting down".into()))),
            Event::ServerError(error) => tracing::warn!(%error, "error of NATS"),
            Event::ClientError(error) => tracing::warn!(%error, "error of the NATS client"),
            Event::Connected | Event::Draining => {}
        }
        std::future::ready(())
    }
}

/// Passes messages on until the subscription ends, and answers those who want to know that they arrived.
async fn receive(client: Client, mut subscriber: Subscriber, channel: Arc<str>, arrivals: Arrivals) {
    while let Some(message) = subscriber.next().await {
        if !arrivals.push(&channel, message.payload).await {
            return;
        }
        let Some(reply) = message.reply else { continue };
        if client.publish(reply, Bytes::new()).await.is_err() {
            return;
        }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ImksError {
    ImksError::AdapterNats(Cause::new(why(&error)))
}

/// Returns the deepest cause, which names the problem: each error around it tells it again.
fn why(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.last().map(ToString::to_string).unwrap_or_default();
    text.strip_prefix("nats: ").map_or_else(|| text.clone(), str::to_owned)
}

const URL_RULE: &str =
    "NATS_URL must be one or more of nats://host:port and tls://host:port, separated by commas";
/// How long an attempt to connect to one server may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The interval of pings; without an answer to two of them the connection has failed.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long the receiver of a message to one node may take to confirm it.
const RECEIPT_MAX: Duration = Duration::from_millis(500);
/// The commands that may wait in the client library. Publishing waits when they are that many.
const COMMANDS_MAX: usize = 4_096;
/// The messages of one subscription that may wait in the client library before it drops them, which is counted.
const MESSAGES_MAX: usize = 8_192;
