//! The relay of channel events between nodes: each node delivers the events of all nodes to its own clients, in
//! the order of the channel, without holes or repeats.
//!
//! The bus may lose, repeat and reorder events; the database is the truth. An event that comes too early is held
//! for a moment, then what is missing is read from the database. A lost tail is found by heads: whoever wrote to
//! a channel announces its numbers twice more, and after a reconnect, a known loss or the end of another node, and every
//! minute, each node compares the numbers of its channels with the database.

mod flow;
mod heads;
mod wire;

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::flow::{Flow, HOLD, Head, Held, Verdict};
use self::heads::Announcements;
use self::wire::{Body, Event, Message};
use super::audience::{Audience, News};
use super::metrics;
use super::node_message::NodeMessage;
use crate::background;
use crate::bus::metrics as bus_metrics;
use crate::bus::{BusState, Pipe, Subscription};
use crate::clock;
use crate::models::Db;
use crate::models::append::Told;
use crate::models::channel_state::{ChannelHead, heads};
use crate::models::message_sync::missed_events;
use crate::node::NodeId;
use crate::telemetry::trace::{Span, SpanKind, Tracer};
use crate::telemetry::traceparent::TraceParent;
use crate::{ImksError, ImksResult};

/// The relay of one node. Cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    node: NodeId,
    pipe: Arc<dyn Pipe>,
    db: Db,
    /// The flows of the channels that have clients here, in shards by channel.
    flows: [Mutex<HashMap<Uuid, Flow>>; SHARDS],
    /// The bytes that are left for events that came too early.
    held_space: Arc<Semaphore>,
    /// Notified when a hole appears.
    hole: Notify,
    announcements: Announcements,
    /// Records the deliveries of events that other nodes trace.
    tracer: Option<Tracer>,
}

impl Relay {
    /// Creates the relay of a node, or `None` if there can be no other nodes.
    pub fn new(pipe: Arc<dyn Pipe>, node: NodeId, db: Db, tracer: Option<Tracer>) -> Option<Self> {
        pipe.reaches_others().then(|| {
            Self(Arc::new(Inner {
                node,
                pipe,
                db,
                tracer,
                flows: Default::default(),
                held_space: Arc::new(Semaphore::new(HELD_BYTES_MAX)),
                hole: Notify::new(),
                announcements: Announcements::default(),
            }))
        })
    }

    /// Returns the name of this node among the others.
    pub(super) fn node(&self) -> NodeId {
        self.0.node
    }

    /// Returns the connection to the others.
    pub(super) fn pipe(&self) -> &Arc<dyn Pipe> {
        &self.0.pipe
    }

    /// Starts to deliver the events of other nodes, until `stop`.
    pub(super) fn start(&self, audience: &Audience, tasks: &TaskTracker, stop: &CancellationToken) {
        let subscription = self.0.pipe.subscribe(CHANNEL);
        let receiving = self.clone().receive(audience.clone(), subscription);
        let receiving = stop.clone().run_until_cancelled_owned(receiving);
        tasks.spawn(background::essential("relay", receiving));
        self.keep("holes", audience, tasks, stop, |relay, audience| relay.heal_holes(audience));
        self.keep("heads", audience, tasks, stop, |relay, _| relay.announce_heads());
        self.keep("channels", audience, tasks, stop, |relay, audience| relay.forget_channels(audience));
        self.keep("losses", audience, tasks, stop, |relay, audience| relay.compare_after_losses(audience));
    }

    /// Starts a task that begins again if it panics.
    fn keep<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        audience: &Audience,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        begin: impl Fn(Self, Audience) -> F + Send + 'static,
    ) {
        let (relay, audience) = (self.clone(), audience.clone());
        let begin = move |stop: CancellationToken| {
            stop.run_until_cancelled_owned(begin(relay.clone(), audience.clone()))
        };
        tasks.spawn(background::keep(name, stop.clone(), begin));
    }

    /// Records the numbers that a client of this node has got. What is committed later arrives as an event. Returns false if that
    /// is not so of a channel, because this node began to tell its events beyond these numbers meanwhile: then they must be
    /// read again. Those are committed, so once is enough.
    #[must_use]
    pub(super) fn baseline<'a>(&self, heads: impl IntoIterator<Item = &'a ChannelHead>) -> bool {
        let mut are_current = true;
        for head in heads {
            let at = Head { seq: head.last_seq, rev: head.last_rev };
            let mut flows = self.flows(head.channel_id).lock();
            let flow = flows.entry(head.channel_id).or_insert_with(|| Flow::after(at));
            are_current &= flow.began() <= at.place();
        }
        are_current
    }

    /// Whether this node has delivered the events of a channel up to this place, so that none of them comes any more.
    pub(super) fn has_told(&self, channel: Uuid, place: i64) -> bool {
        self.flows(channel).lock().get(&channel).is_some_and(|flow| flow.head().place() >= place)
    }

    /// Delivers events of this node, which are all of one channel, and sends them to the others. Events without a
    /// number are not for it. `payload` is a buffer.
    pub(super) fn tell(&self, audience: &Audience, told: &[&Told], payload: &mut Vec<u8>) -> ImksResult<()> {
        let told: Vec<_> = told.iter().filter_map(|told| Some((told, told.head()?))).collect();
        let Some((last, (seq, rev))) = told.last().copied() else { return Ok(()) };
        payload.clear();
        let mut ends = Vec::with_capacity(told.len());
        for (told, _) in &told {
            told.write_json(payload)?;
            ends.push(payload.len());
        }
        let text = text(payload)?;
        let mut start = 0;
        let mut events = Vec::with_capacity(told.len());
        for ((told, (seq, rev)), end) in told.iter().zip(ends) {
            let (name, state_of) = (told.event(), told.state_of());
            let trace = told.trace().map(|trace| trace.parent().to_string().into());
            events.push(Event { seq: *seq, rev: *rev, name, json: &text[start..end], state_of, trace });
            start = end;
        }
        let channel = last.channel_id();
        events.iter().for_each(|event| self.deliver(audience, channel, event));
        self.publish(Body::Events { channel, events })?;
        self.0.announcements.wrote(channel, Head { seq, rev }, Instant::now());
        Ok(())
    }

    fn publish(&self, body: Body<'_>) -> ImksResult<()> {
        let message = Message { version: wire::VERSION, node: self.0.node, at: clock::now_micros(), body };
        self.0.pipe.publish(CHANNEL, message.encode()?);
        Ok(())
    }

    fn flows(&self, channel: Uuid) -> &Mutex<HashMap<Uuid, Flow>> {
        // The last byte of an id is random.
        &self.0.flows[usize::from(channel.as_bytes()[15]) % SHARDS]
    }

    /// Delivers an event to the clients of this node in its turn.
    fn deliver(&self, audience: &Audience, channel: Uuid, event: &Event<'_>) {
        let mut flows = self.flows(channel).lock();
        if !audience.follows(channel) {
            flows.remove(&channel);
            return;
        }
        let (now, head) = (Instant::now(), Head { seq: event.seq, rev: event.rev });
        let before = head.place() - 1;
        let flow = flows
            .entry(channel)
            .or_insert_with(|| Flow::after(Head { seq: before - head.rev, rev: head.rev }));
        match flow.accept(head, now) {
            Verdict::Repeat => return,
            Verdict::Early => {
                // What finds no room is read from the database instead.
                let bytes = u32::try_from(event.json.len()).unwrap_or(u32::MAX);
                if let Ok(space) = self.0.held_space.clone().try_acquire_many_owned(bytes) {
                    let (name, json, state_of) = (event.name.into(), event.json.into(), event.state_of);
                    flow.hold(Held { head, name, json, state_of, _space: space });
                }
                self.0.hole.notify_one();
                return;
            }
            Verdict::Deliver => {
                let state_of = event.state_of;
                audience.tell(
                    channel,
                    News { head: (head.seq, head.rev), event: event.name, json: event.json, state_of },
                );
            }
        }
        release(flow, audience, channel, now);
    }

    async fn receive(self, audience: Audience, mut subscription: Subscription) {
        while let Some(message) = subscription.recv().await {
            if let Err(error) = self.take(&audience, &message) {
                bus_metrics::MESSAGES_DROPPED.of(bus_metrics::Drop::Unreadable).increment();
                tracing::debug!(%error, "a message of another node was dropped");
            }
        }
    }

    fn take(&self, audience: &Audience, message: &[u8]) -> ImksResult<()> {
        let Message { node, at, body, .. } = Message::decode(message)?;
        if node == self.0.node {
            return Ok(());
        }
        bus_metrics::LAG_SECONDS.record(since(at));
        match body {
            Body::Events { channel, events } => {
                for event in &events {
                    let span = self.receiving(channel, event);
                    self.deliver(audience, channel, event);
                    if let Some(mut span) = span {
                        span.succeeded();
                    }
                    metrics::DISPATCH_REMOTE_SECONDS.record(since(at));
                }
            }
            Body::Heads(heads) => {
                for (channel, seq, rev) in heads {
                    self.learn(channel, Head { seq, rev });
                }
            }
        }
        Ok(())
    }

    /// Begins the span of the delivery of another node's event, if that traces it.
    fn receiving(&self, channel: Uuid, event: &Event<'_>) -> Option<Span> {
        let parent = TraceParent::parse(event.trace.as_deref()?)?;
        let mut span = self.0.tracer.as_ref()?.join(&parent, "deliver", SpanKind::Consumer)?;
        span.note("messaging.system", "imks");
        span.note("messaging.operation.name", "deliver");
        span.note("messaging.destination.name", channel.to_string());
        Some(span)
    }

    /// Records that a channel has come this far.
    fn learn(&self, channel: Uuid, head: Head) {
        let mut flows = self.flows(channel).lock();
        let Some(flow) = flows.get_mut(&channel) else { return };
        if head.place() > flow.head().place() && flow.hole().is_none() {
            metrics::HEADS_BEHIND.increment();
        }
        flow.knows(head.place(), Instant::now());
        if flow.hole().is_some() {
            self.0.hole.notify_one();
        }
    }

    /// Reads what is missing from the database, once it has been missing for a moment.
    async fn heal_holes(self, audience: Audience) {
        loop {
            let (due, next) = self.holes(Instant::now());
            let healing = stream::iter(due);
            healing.for_each_concurrent(HEALS_AT_ONCE, |channel| self.heal(&audience, channel)).await;
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => self.0.hole.notified().await,
            }
        }
    }

    /// Returns the channels whose holes must be healed now, and when the next one must be.
    fn holes(&self, now: Instant) -> (Vec<Uuid>, Option<Instant>) {
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for shard in &self.0.flows {
            for (channel, flow) in shard.lock().iter() {
                let Some(at) = flow.hole().map(|since| since + HOLD) else { continue };
                match at <= now {
                    true => due.push(*channel),
                    false => next = Some(next.map_or(at, |next| next.min(at))),
                }
            }
        }
        (due, next)
    }

    async fn heal(&self, audience: &Audience, channel: Uuid) {
        let flow = |flow: &Flow| (flow.head(), flow.known(), flow.hole());
        let Some((head, known, since)) = self.flows(channel).lock().get(&channel).map(flow) else { return };
        let missed = missed_events(&self.0.db, channel, head.seq, head.rev).await;
        let now = Instant::now();
        let mut flows = self.flows(channel).lock();
        let Some(flow) = flows.get_mut(&channel) else { return };
        let missed = match missed {
            Ok(missed) => missed,
            Err(error) => {
                tracing::warn!(%error, "events that this node has missed were not read");
                return flow.retry_at(now + RETRY);
            }
        };
        if flow.head() != head {
            // Late events filled the hole, or a part of it, while the database was read.
            return;
        }
        let mut payload = Vec::new();
        for told in &missed.told {
            payload.clear();
            match told.write_json(&mut payload).and_then(|()| text(&payload)) {
                Ok(json) => News::of(told, json).into_iter().for_each(|news| audience.tell(channel, news)),
                // It would fail the next time too. Clients see the hole in the numbers and ask for a `sync`.
                Err(error) => tracing::error!(%channel, event = told.event(), %error, "event not sent"),
            }
        }
        flow.healed(Head { seq: missed.seq, rev: missed.rev }, known, now);
        metrics::HOLES_HEALED.increment();
        since.inspect(|since| metrics::HOLE_SECONDS.record(now.duration_since(*since)));
        release(flow, audience, channel, now);
    }

    /// Announces the numbers of channels to which this node wrote, again and again until all must know them.
    async fn announce_heads(self) {
        let mut ticks = interval(ANNOUNCE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = self.0.pipe.state();
        loop {
            ticks.tick().await;
            if !state.borrow().up {
                // What was written meanwhile is announced after the reconnect.
                continue;
            }
            for heads in self.0.announcements.due(Instant::now()) {
                if let Err(error) = self.publish(Body::Heads(heads)) {
                    tracing::warn!(%error, "numbers of channels were not announced");
                }
            }
        }
    }

    /// Compares the numbers of all channels with the database after every reconnect and known loss; when another node is gone,
    /// which may have taken with it what it had to tell; and from time to time.
    async fn compare_after_losses(self, audience: Audience) {
        let mut state = self.0.pipe.state();
        let mut seen = *state.borrow_and_update();
        let (mut others, mut compared_at) = (audience.other_nodes(), Instant::now());
        loop {
            let is_behind = |now: &BusState| now.up && (now.epoch, now.lost) != (seen.epoch, seen.lost);
            let lost = tokio::select! {
                now = state.wait_for(is_behind) => Some(now.map(|now| *now)),
                () = sleep(LOOK_EVERY) => None,
            };
            let before = mem::replace(&mut others, audience.other_nodes());
            match lost {
                Some(Ok(now)) => seen = now,
                Some(Err(_closed)) => return,
                None if before.iter().any(|node| !others.contains(node)) => {}
                None if compared_at.elapsed() >= COMPARE_EVERY => {}
                None => continue,
            }
            self.compare_all().await;
            compared_at = Instant::now();
            // Under a storm of losses, once in a while is enough.
            sleep(COMPARE_PAUSE).await;
        }
    }

    /// Compares all channels, those that could not be read again and again.
    async fn compare_all(&self) {
        let shards = self.0.flows.iter();
        let mut channels: Vec<Uuid> =
            shards.flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect();
        let mut has_failed = false;
        loop {
            let (unread, error) = self.compare(&channels).await;
            let Some(error) = error else { return };
            match has_failed {
                false => tracing::warn!(%error, "numbers of channels are compared later"),
                true => tracing::debug!(%error, "numbers of channels are still not compared"),
            }
            (channels, has_failed) = (unread, true);
            sleep(RETRY).await;
        }
    }

    /// Forgets the channels whose clients have left.
    async fn forget_channels(self, audience: Audience) {
        loop {
            sleep(FORGET_INTERVAL).await;
            for shard in &self.0.flows {
                shard.lock().retain(|channel, _| audience.follows(*channel));
            }
        }
    }

    /// Compares channels with the database. Returns those that could not be read, and the last reason.
    async fn compare(&self, channels: &[Uuid]) -> (Vec<Uuid>, Option<ImksError>) {
        let (mut unread, mut reason) = (Vec::new(), None);
        for some in channels.chunks(HEADS_PER_QUERY) {
            match heads(&self.0.db, some).await {
                Ok(heads) => heads.iter().for_each(|head| {
                    self.learn(head.channel_id, Head { seq: head.last_seq, rev: head.last_rev });
                }),
                Err(error) => {
                    unread.extend(some);
                    reason = Some(error);
                }
            }
        }
        (unread, reason)
    }
}

/// Delivers the events that were held and whose turn it is.
fn release(flow: &mut Flow, audience: &Audience, channel: Uuid, now: Instant) {
    while let Some(held) = flow.release(now) {
        let Held { head, name, json, state_of, .. } = &held;
        let head = (head.seq, head.rev);
        audience.tell(channel, News { head, event: name, json, state_of: *state_of });
    }
}

/// Returns what has passed since a time of another node's clock.
fn since(at: clock::Micros) -> Duration {
    Duration::from_micros(u64::try_from(clock::now_micros().saturating_sub(at)).unwrap_or(0))
}

fn text(json: &[u8]) -> ImksResult<&str> {
    std::str::from_utf8(json).map_err(|_| ImksError::Internal("JSON that is not UTF-8"))
}

/// The channel of the bus.
const CHANNEL: &str = "channels";
const SHARDS: usize = 16;
/// The maximum size of the events of all channels together that came too early and are held, in bytes.
const HELD_BYTES_MAX: usize = 64 << 20;
/// The channels that are read from the database concurrently.
const HEALS_AT_ONCE: usize = 8;
/// The interval at which numbers of channels are announced.
const ANNOUNCE_TICK: Duration = Duration::from_millis(100);
/// The pause before the database is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How often it is looked whether another node is gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest time between two comparisons of all numbers: what nobody has announced is found then.
const COMPARE_EVERY: Duration = Duration::from_mins(1);
/// The pause between two comparisons of all numbers.
const COMPARE_PAUSE: Duration = Duration::from_millis(500);
/// The interval at which channels without clients are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);
/// The most channels of one query.
const HEADS_PER_QUERY: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::sim::{SimBus, Weather};
    use crate::models::db::Config;

    async fn relay() -> Relay {
        let config = Config { url: Some("sqlite::memory:".into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let pipe = SimBus::new(1, Weather::default()).pipe();
        Relay::new(pipe, NodeId::random().unwrap(), db, None).unwrap()
    }

    fn head(channel_id: Uuid, last_seq: i64) -> ChannelHead {
        ChannelHead { last_seq, ..ChannelHead::empty(channel_id) }
    }

    #[tokio::test]
    async fn who_read_the_numbers_before_the_events_of_the_channel_began_here_reads_them_again() {
        let (relay, [one, two]) = (relay().await, [1, 2].map(Uuid::from_u128));
        assert!(relay.baseline([&head(one, 11), &head(two, 3)]));
        assert!(!relay.baseline([&head(one, 10), &head(two, 3)]), "11 is told to nobody any more");
        assert!(relay.baseline([&head(one, 11)]) && relay.baseline([&head(one, 12)]));
    }

    #[tokio::test]
    async fn channels_that_could_not_be_compared_are_compared_again() {
        let (relay, channels) = (relay().await, [1, 2].map(Uuid::from_u128));
        let (unread, error) = relay.compare(&channels).await;
        assert!(unread.is_empty() && error.is_none());
        relay.0.db.close().await;
        let (unread, error) = relay.compare(&channels).await;
        assert_eq!(unread, channels);
        assert!(error.is_some());
    }
}
