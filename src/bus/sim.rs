//! An in-memory pipe for tests. It delays, reorders, drops, duplicates and partitions messages, reproducibly
//! for each seed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{BoxFuture, BusState, Inbox, NoReceiver, Pipe, Subscription, subscription};
use crate::node::NodeId;

/// The faults that are injected into message delivery.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// The longest delay. Each message has its own delay, so messages overtake each other.
    pub delay_max: Duration,
    /// The percentage of messages that are lost silently.
    pub lost_percent: u8,
    /// The percentage of messages to one node that are lost silently.
    pub direct_lost_percent: u8,
    /// The percentage of messages that arrive twice.
    pub doubled_percent: u8,
}

/// The network between simulated nodes. Cheap to clone.
#[derive(Clone, Default)]
pub struct SimBus(Arc<Mutex<Network>>, TaskTracker);

#[derive(Default)]
struct Network {
    weather: Weather,
    random: u64,
    subscribers: Vec<Subscriber>,
    /// The pipes that are cut off from all pipes outside this set.
    island: HashSet<usize>,
    pipes: Vec<watch::Sender<BusState>>,
}

struct Subscriber {
    pipe: usize,
    target: Target,
    inbox: Inbox,
}

/// The destination of a message.
#[derive(Clone, PartialEq, Eq)]
enum Target {
    Channel(String),
    Node(NodeId),
}

impl Target {
    /// Whether a subscription to this target gets what is sent to that one.
    fn takes(&self, that: &Self) -> bool {
        match (self, that) {
            (Self::Channel(pattern), Self::Channel(channel)) => match pattern.strip_suffix('*') {
                Some(start) => channel.starts_with(start),
                None => pattern == channel,
            },
            _ => self == that,
        }
    }
}

impl SimBus {
    /// Creates a network whose behavior is fully determined by the seed.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let bus = Self::default();
        {
            let mut network = bus.0.lock();
            network.weather = weather;
            // A xorshift generator never leaves the state zero.
            network.random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        }
        bus
    }

    /// Creates a pipe for one more node.
    pub fn pipe(&self) -> Arc<SimPipe> {
        let state = watch::Sender::new(BusState::default());
        let mut network = self.0.lock();
        network.pipes.push(state.clone());
        Arc::new(SimPipe { bus: self.clone(), number: network.pipes.len() - 1, state })
    }

    /// Changes the faults of messages that are sent from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.0.lock().weather = weather;
    }

    /// Cuts the pipes with these numbers off from all others.
    pub fn partition(&self, island: impl IntoIterator<Item = usize>) {
        self.0.lock().island = island.into_iter().collect();
    }

    /// Ends the partition. Every pipe learns that it may have missed messages.
    pub fn heal(&self) {
        let mut network = self.0.lock();
        network.island.clear();
        network.pipes.iter().for_each(|pipe| pipe.send_modify(|state| state.epoch += 1));
    }

    fn carry(&self, from: usize, target: &Target, message: &Bytes) -> usize {
        let mut network = self.0.lock();
        network.subscribers.retain(|subscriber| !subscriber.inbox.is_closed());
        let inboxes: Vec<Inbox> = network.reached(from, target).cloned().collect();
        for inbox in &inboxes {
            for delay in network.copies(target) {
                match delay {
                    Duration::ZERO => inbox.push(message.clone()),
                    delay => self.push_later(inbox.clone(), message.clone(), delay),
                }
            }
        }
        inboxes.len()
    }

    fn push_later(&self, inbox: Inbox, message: Bytes, delay: Duration) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let carrying = async move {
            tokio::time::sleep(delay).await;
            inbox.push(message);
        };
        self.1.spawn_on(carrying, &runtime);
    }
}

impl Network {
    fn reached(&self, from: usize, target: &Target) -> impl Iterator<Item = &Inbox> {
        let together = move |to: usize| self.island.contains(&from) == self.island.contains(&to);
        let takes = move |it: &&Subscriber| it.target.takes(target) && together(it.pipe);
        self.subscribers.iter().filter(takes).map(|subscriber| &subscriber.inbox)
    }

    /// Returns the delay of each copy of a message.
    fn copies(&mut self, target: &Target) -> Vec<Duration> {
        let Weather { delay_max, lost_percent, direct_lost_percent, doubled_percent } = self.weather;
        let lost_percent = if matches!(target, Target::Node(_)) { direct_lost_percent } else { lost_percent };
        if self.draw(100) < u64::from(lost_percent) {
            return Vec::new();
        }
        let copies = if self.draw(100) < u64::from(doubled_percent) { 2 } else { 1 };
        let millis = u64::try_from(delay_max.as_millis()).unwrap_or(u64::MAX);
        (0..copies).map(|_| Duration::from_millis(self.draw(millis.saturating_add(1)))).collect()
    }

    /// Returns a random number below `bound` (xorshift64).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound.max(1)
    }
}

/// One node's end of a [`SimBus`].
pub struct SimPipe {
    bus: SimBus,
    number: usize,
    state: watch::Sender<BusState>,
}

impl SimPipe {
    /// Returns the number of the pipe, for [`SimBus::partition`].
    pub fn number(&self) -> usize {
        self.number
    }

    fn add(&self, target: Target) -> Subscription {
        let (inbox, subscription) = subscription(self.state.clone());
        inbox.confirm();
        self.bus.0.lock().subscribers.push(Subscriber { pipe: self.number, target, inbox });
        subscription
    }
}

impl Pipe for SimPipe {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn reaches_others(&self) -> bool {
        true
    }

    fn publish(&self, channel: &str, message: Bytes) {
        self.bus.carry(self.number, &Target::Channel(channel.to_owned()), &message);
    }

    fn subscribe(&self, channel: &str) -> Subscription {
        self.add(Target::Channel(channel.to_owned()))
    }

    fn subscribe_all(&self, channels: &[&str]) -> Subscription {
        let (inbox, subscription) = subscription(self.state.clone());
        inbox.confirm();
        let subscriber = |channel: &&str| Subscriber {
            pipe: self.number,
            target: Target::Channel((*channel).to_owned()),
            inbox: inbox.clone(),
        };
        self.bus.0.lock().subscribers.extend(channels.iter().map(subscriber));
        subscription
    }

    fn receive(&self, node: NodeId) -> Subscription {
        self.add(Target::Node(node))
    }

    fn send_to(&self, node: NodeId, message: Bytes) -> BoxFuture<'_, Result<(), NoReceiver>> {
        let reached = self.bus.carry(self.number, &Target::Node(node), &message);
        Box::pin(async move { if reached > 0 { Ok(()) } else { Err(NoReceiver) } })
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    fn subscribers<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Option<usize>> {
        let target = Target::Channel(channel.to_owned());
        let count = self.bus.0.lock().reached(self.number, &target).count();
        Box::pin(async move { Some(count) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.bus.0.lock().subscribers.retain(|subscriber| subscriber.pipe != self.number);
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn received(subscription: &mut Subscription) -> Vec<Bytes> {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut all = Vec::new();
        while let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, subscription.recv()).await {
            all.push(message);
        }
        all
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(test)
    }

    async fn trace(seed: u64, weather: Weather, messages: u8) -> Vec<Bytes> {
        let bus = SimBus::new(seed, weather);
        let (one, two) = (bus.pipe(), bus.pipe());
        let mut heard = two.subscribe("/");
        for n in 0..messages {
            one.publish("/", Bytes::from(vec![n]));
        }
        received(&mut heard).await
    }

    proptest! {
        #[test]
        fn a_seed_tells_everything_and_the_weather_only_what_it_may(
            seed in any::<u64>(), delay in 0_u64..500, lost in 0_u8..=100, doubled in 0_u8..=100, messages in 0_u8..100,
        ) {
            let weather = Weather {
                delay_max: Duration::from_millis(delay), lost_percent: lost, doubled_percent: doubled,
                direct_lost_percent: 0,
            };
            let first = run(trace(seed, weather, messages));
            prop_assert_eq!(&first, &run(trace(seed, weather, messages)));
            let count = |n: u8| first.iter().filter(|message| message[0] == n).count();
            let counts: Vec<usize> = (0..messages).map(count).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), first.len());
            prop_assert!(counts.iter().all(|count| *count <= 2));
            prop_assert!(lost > 0 || counts.iter().all(|count| *count >= 1));
            prop_assert!(doubled > 0 || counts.iter().all(|count| *count <= 1));
            prop_assert!(delay > 0 || first.is_sorted());
        }
    }

    #[test]
    fn a_partition_keeps_apart_until_it_heals_and_everybody_is_told() {
        run(async {
            let bus = SimBus::new(1, Weather::default());
            let (one, two) = (bus.pipe(), bus.pipe());
            let node = NodeId::random().unwrap();
            let mut heard = two.subscribe("a");
            let mut own = two.receive(node);
            bus.partition([two.number()]);
            one.publish("a", Bytes::from_static(b"lost"));
            assert_eq!(one.send_to(node, Bytes::from_static(b"lost")).await, Err(NoReceiver));
            bus.heal();
            one.publish("a", Bytes::from_static(b"heard"));
            one.publish("b", Bytes::from_static(b"for others"));
            assert_eq!(one.send_to(node, Bytes::from_static(b"own")).await, Ok(()));
            assert_eq!(received(&mut heard).await, ["heard"]);
            assert_eq!(received(&mut own).await, ["own"]);
            assert_eq!((one.state().borrow().epoch, two.state().borrow().epoch), (1, 1));
            assert_eq!(one.subscribers("a").await, Some(1));
            two.close().await;
            assert_eq!(one.subscribers("a").await, Some(0));
            assert_eq!(heard.recv().await, None);
        });
    }
}
