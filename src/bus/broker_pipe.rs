//! The pipe over a broker: one task that connects, subscribes, sends and receives, and replaces a connection
//! that failed or fell silent.
//!
//! Subscriptions can die silently in any broker or client library. So this node sends a numbered probe to
//! itself, through the broker, at an interval; a connection on which a probe does not come back is replaced.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::{Arrival, Arrivals, Broker, Connection, Outgoing, lost};
use super::metrics::{self, Drop, Reconnect};
use super::outgoing::{OutgoingQueue, Pace};
pub(crate) use super::probes::PROBE;
use super::probes::Probes;
use super::routes::Routes;
use super::{BoxFuture, BusState, NoReceiver, Pipe, Subscription, subscription};
use crate::background;
use crate::clock::jittered;
use crate::error::ImksResult;
use crate::node::NodeId;

/// A pipe over a broker.
pub(crate) struct BrokerPipe {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

struct Shared {
    broker: Box<dyn Broker>,
    state: watch::Sender<BusState>,
    routes: Mutex<Routes>,
    /// Notified when a subscription was added or has ended.
    changed: Arc<Notify>,
    outgoing: OutgoingQueue,
    probes: Probes,
    /// The current connection, once its subscriptions are complete.
    connection: Mutex<Option<Arc<dyn Connection>>>,
    /// The reason why there is no connection.
    down: Mutex<String>,
    stop: CancellationToken,
}

/// Why a connection is not used any more.
struct Ended(Reconnect, String);

impl BrokerPipe {
    /// Starts to connect, without an end of attempts. `node` must be different for every node of the cluster.
    pub(crate) fn start(broker: Box<dyn Broker>, node: NodeId) -> Arc<Self> {
        let state = watch::Sender::new(BusState { up: false, ..BusState::default() });
        let shared = Arc::new(Shared {
            broker,
            routes: Mutex::default(),
            changed: Arc::new(Notify::new()),
            outgoing: OutgoingQueue::new(state.clone()),
            probes: Probes::new(node),
            connection: Mutex::default(),
            down: Mutex::new("not connected yet".into()),
            stop: CancellationToken::new(),
            state,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(background::essential("bus", shared.clone().run()));
        tasks.close();
        Arc::new(Self { shared, tasks })
    }

    fn add(&self, channels: &[&str]) -> Subscription {
        let (inbox, subscription) = subscription(self.shared.state.clone());
        if !self.shared.stop.is_cancelled() {
            let mut routes = self.shared.routes.lock();
            channels.iter().for_each(|channel| routes.add(channel, inbox.clone()));
            drop(routes);
            self.shared.changed.notify_one();
        }
        subscription.telling(self.shared.changed.clone())
    }
}

impl Pipe for BrokerPipe {
    fn name(&self) -> &'static str {
        self.shared.broker.name()
    }

    fn reaches_others(&self) -> bool {
        true
    }

    fn publish(&self, channel: &str, message: Bytes) {
        self.shared.outgoing.push(Outgoing { channel: channel.into(), message });
    }

    fn subscribe(&self, channel: &str) -> Subscription {
        self.add(&[channel])
    }

    fn subscribe_all(&self, channels: &[&str]) -> Subscription {
        self.add(channels)
    }

    fn receive(&self, node: NodeId) -> Subscription {
        self.add(&[&node_channel(node)])
    }

    fn send_to(&self, node: NodeId, message: Bytes) -> BoxFuture<'_, Result<(), NoReceiver>> {
        Box::pin(async move {
            let Some(connection) = self.shared.connection.lock().clone() else { return Err(NoReceiver) };
            let bytes = message.len() as u64;
            let outgoing = Outgoing { channel: node_channel(node).into(), message };
            match timeout(COMMAND_MAX, connection.publish_counted(outgoing)).await {
                Ok(Ok(true)) => {
                    count_sent(1, bytes);
                    Ok(())
                }
                Ok(Ok(false)) => Err(NoReceiver),
                // Whether it arrived is not known: the connection is found to be broken by its task.
                Ok(Err(_)) | Err(_) => {
                    lost(&self.shared.state, Drop::Connection, 1);
                    Ok(())
                }
            }
        })
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.shared.state.subscribe()
    }

    fn subscribers<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move {
            let connection = self.shared.connection.lock().clone()?;
            connection.subscribers(channel).await
        })
    }

    fn ping(&self) -> BoxFuture<'_, ImksResult<()>> {
        Box::pin(async move {
            let connection = self.shared.connection.lock().clone();
            match connection {
                Some(connection) => {
                    self.shared.probe(&*connection).await.map_err(|Ended(_, why)| self.shared.placed(&why))
                }
                None => Err(self.shared.down.lock().clone()),
            }
            .map_err(|why| self.shared.broker.error(why))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.stop.cancel();
            self.tasks.wait().await;
        })
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut outage = Outage::default();
        while !self.stop.is_cancelled() {
            let (arrivals, received) = Arrivals::new(self.state.clone());
            let Some(connected) = self.stop.run_until_cancelled(self.connect(arrivals)).await else { break };
            let Ended(reason, why) = match connected {
                Ok(connection) => self.serve(connection, received, &mut outage).await,
                Err(why) => Ended(Reconnect::Refused, why),
            };
            if self.stop.is_cancelled() {
                break;
            }
            let why = self.placed(&why);
            self.went_down(&why);
            metrics::RECONNECTS.of(reason).increment();
            outage.report(self.broker.name(), &why);
            self.stop.run_until_cancelled(sleep(outage.pause())).await;
        }
        self.routes.lock().clear();
    }

    async fn connect(&self, arrivals: Arrivals) -> Result<Arc<dyn Connection>, String> {
        match timeout(CONNECT_MAX, self.broker.connect(arrivals)).await {
            Ok(connected) => connected.map_err(|error| told(&error)),
            Err(_) => Err("no answer to the attempt to connect".into()),
        }
    }

    /// Uses a connection until it ends.
    async fn serve(
        &self,
        connection: Arc<dyn Connection>,
        mut received: mpsc::Receiver<Arrival>,
        outage: &mut Outage,
    ) -> Ended {
        let ended = tokio::select! {
            ended = self.keep(&connection, outage) => ended,
            ended = self.send(&*connection) => ended,
            () = self.distribute(&mut received) => Ended(Reconnect::Closed, "nothing arrives any more".into()),
            why = connection.failed() => Ended(Reconnect::Closed, why),
            () = self.stop.cancelled() => {
                self.flush(&*connection).await;
                Ended(Reconnect::Closed, "this node is leaving".into())
            }
        };
        self.connection.lock().take();
        ended
    }

    /// Keeps the broker's subscriptions equal to those of this node, and sends probes.
    async fn keep(&self, connection: &Arc<dyn Connection>, outage: &mut Outage) -> Ended {
        let mut known = HashSet::new();
        if let Err(ended) = within(connection.subscribe(&[self.probes.channel()])).await {
            return ended;
        }
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(ended) = self.subscribe(&**connection, &mut known).await {
                return ended;
            }
            if self.connection.lock().is_none() {
                self.came_up(connection, outage);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                _ = probe.tick() => {
                    if let Err(ended) = self.probe(&**connection).await {
                        return ended;
                    }
                }
            }
        }
    }

    /// Tells the broker which subscriptions were added and removed. When it has confirmed them, those who wait
    /// for that are told.
    async fn subscribe(
        &self,
        connection: &dyn Connection,
        known: &mut HashSet<Arc<str>>,
    ) -> Result<(), Ended> {
        let changes = self.routes.lock().changes(known);
        if !changes.removed.is_empty() {
            within(connection.unsubscribe(&changes.removed)).await?;
        }
        if !changes.added.is_empty() {
            within(connection.subscribe(&changes.added)).await?;
            // The broker handles requests in order, so a probe that has come back confirms them.
            self.probe(connection).await?;
        }
        self.routes.lock().confirm(known);
        Ok(())
    }

    /// Sends a probe and waits until it has come back.
    async fn probe(&self, connection: &dyn Connection) -> Result<(), Ended> {
        let started = Instant::now();
        let (number, back) = self.probes.next();
        let outgoing = Outgoing { channel: self.probes.channel(), message: number.to_string().into() };
        let sent = async {
            connection
                .publish(vec![outgoing])
                .await
                .map_err(|error| Ended(Reconnect::Failed, told(&error)))?;
            back.await.map_err(|_| Ended(Reconnect::Closed, "the pipe is closed".into()))
        };
        let came_back = timeout(PROBE_MAX, sent).await;
        self.probes.forget(number);
        came_back.map_err(|_| Ended(Reconnect::Silent, "a probe did not come back".into()))??;
        metrics::PROBE_SECONDS.record(started.elapsed());
        Ok(())
    }

    async fn send(&self, connection: &dyn Connection) -> Ended {
        let mut pace = Pace::default();
        loop {
            // Messages wait until the subscriptions are complete: answers to them can be received then.
            let batch = self.outgoing.next(&mut pace).await;
            if let Err(ended) = self.send_batch(connection, batch).await {
                return ended;
            }
        }
    }

    async fn send_batch(&self, connection: &dyn Connection, batch: Vec<Outgoing>) -> Result<(), Ended> {
        let messages = batch.len() as u64;
        let bytes = batch.iter().map(|outgoing| outgoing.message.len() as u64).sum();
        let mut under_way = UnderWay { state: &self.state, messages };
        within(connection.publish(batch)).await?;
        under_way.messages = 0;
        count_sent(messages, bytes);
        Ok(())
    }

    async fn distribute(&self, received: &mut mpsc::Receiver<Arrival>) {
        let probe_channel = self.probes.channel();
        while let Some(Arrival { channel, message, .. }) = received.recv().await {
            if *channel == *probe_channel {
                self.probes.came_back(&message);
                continue;
            }
            metrics::MESSAGES_RECEIVED.increment();
            metrics::BYTES_RECEIVED.add(message.len() as u64);
            self.routes.lock().push(&channel, &message);
        }
    }

    /// Sends what is queued, then closes the connection.
    async fn flush(&self, connection: &dyn Connection) {
        let flushing = async {
            loop {
                let batch = self.outgoing.take();
                if batch.is_empty() || self.send_batch(connection, batch).await.is_err() {
                    break;
                }
            }
            connection.close().await;
        };
        if timeout(FLUSH_MAX, flushing).await.is_err() {
            tracing::warn!(
                broker = self.broker.name(),
                "messages to other nodes were not sent before the end"
            );
        }
    }

    fn came_up(&self, connection: &Arc<dyn Connection>, outage: &mut Outage) {
        *self.connection.lock() = Some(connection.clone());
        metrics::UP.set(1);
        let again = outage.end();
        tracing::info!(broker = self.broker.name(), again, "connected to the broker");
        self.state.send_modify(|state| {
            state.up = true;
            state.epoch += u64::from(again);
        });
    }

    fn placed(&self, why: &str) -> String {
        placed(self.broker.name(), &self.broker.place(), why)
    }

    fn went_down(&self, why: &str) {
        why.clone_into(&mut self.down.lock());
        metrics::UP.set(0);
        self.state.send_if_modified(|state| std::mem::replace(&mut state.up, false));
    }
}

/// Messages that are being sent. If that is given up, they count as lost.
struct UnderWay<'a> {
    state: &'a watch::Sender<BusState>,
    messages: u64,
}

impl std::ops::Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lost(self.state, Drop::Connection, self.messages);
    }
}

/// The attempts to connect since the last connection.
#[derive(Default)]
struct Outage {
    attempts: u32,
    has_been_up: bool,
    reported: Option<Instant>,
}

impl Outage {
    /// Ends the outage. Returns whether messages may have been missed in it.
    fn end(&mut self) -> bool {
        let again = std::mem::replace(&mut self.has_been_up, true) || self.attempts > 0;
        (self.attempts, self.reported) = (0, None);
        again
    }

    /// Logs the outage, at a limited rate.
    fn report(&mut self, broker: &str, why: &str) {
        if self.reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.reported = Some(Instant::now());
            tracing::error!(
                broker,
                why,
                "not connected to the broker: other nodes hear nothing from this one"
            );
        }
    }

    /// Returns the pause before the next attempt.
    fn pause(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.attempts.min(8)).min(PAUSE_MAX);
        self.attempts += 1;
        jittered(pause)
    }
}

/// Waits for the answer to a command.
async fn within(command: impl Future<Output = ImksResult<()>>) -> Result<(), Ended> {
    match timeout(COMMAND_MAX, command).await {
        Ok(done) => done.map_err(|error| Ended(Reconnect::Failed, told(&error))),
        Err(_) => Err(Ended(Reconnect::Silent, "a command was not answered".into())),
    }
}

/// Returns a reason with the servers that it is about.
fn placed(broker: &str, place: &str, why: &str) -> String {
    if why.contains(place) {
        return why.to_owned();
    }
    let why = why.strip_prefix(broker).and_then(|why| why.strip_prefix(": ")).unwrap_or(why);
    format!("{broker}: {place}: {why}")
}

/// Returns an error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn count_sent(messages: u64, bytes: u64) {
    metrics::MESSAGES_SENT.add(messages);
    metrics::BYTES_SENT.add(bytes);
}

/// Returns the channel of messages to one node.
fn node_channel(node: NodeId) -> String {
    format!("{NODE}{node}")
}

/// The start of the channels of single nodes.
pub(crate) const NODE: &str = "node:";

/// The interval of probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a probe may take to come back.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// How long an attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a command of the broker may take.
const COMMAND_MAX: Duration = Duration::from_secs(5);
/// How long the last messages of a node that leaves may take.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// The first pause between two attempts to connect; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The minimum time between two log entries about an outage.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_broker_is_told_with_its_address() {
        for (why, told) in [
            ("redis: Request timed out.", "redis: cache:6379: Request timed out."),
            ("Connection closed.", "redis: cache:6379: Connection closed."),
            ("redis: cache:6379: Connection refused", "redis: cache:6379: Connection refused"),
        ] {
            assert_eq!(placed("redis", "cache:6379", why), told);
        }
    }
}
