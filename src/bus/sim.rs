//! An in-memory pipe for tests. It delays, reorders, drops, duplicates and partitions messages, is deaf, stands still and
//! dies, reproducibly for each seed.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{BoxFuture, BusState, Inbox, NoReceiver, Pipe, Subscription, subscription};
use crate::node::NodeId;

/// Random numbers that a seed determines (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Creates dice. Those with different seeds or names have nothing to do with each other.
    pub fn new(seed: u64, name: impl Hash) -> Self {
        // It has fixed keys, so it is the same in every process.
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Returns a random number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// Returns true in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns a random duration of whole milliseconds up to `longest`.
    pub fn duration(&mut self, longest: Duration) -> Duration {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.below(millis.saturating_add(1)))
    }
}

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
    seed: u64,
    /// The dice of each way through the network, so that what happens on one changes nothing on another.
    dice: HashMap<(usize, Target), Dice>,
    subscribers: Vec<Subscriber>,
    /// The pipes that are cut off from all pipes outside this set.
    island: HashSet<usize>,
    ends: Vec<End>,
}

/// The state of one pipe.
struct End {
    state: watch::Sender<BusState>,
    /// Whether the process of this pipe has died.
    is_dead: bool,
    /// Until when the process of this pipe stands still.
    still_until: Option<Instant>,
    /// Until when everything from and to this pipe is lost.
    deaf_until: Option<Instant>,
}

struct Subscriber {
    pipe: usize,
    target: Target,
    inbox: Inbox,
}

/// The destination of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Channel(String),
    Node(NodeId),
}

impl SimBus {
    /// Creates a network whose behavior is fully determined by the seed.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let bus = Self::default();
        {
            let mut network = bus.0.lock();
            (network.weather, network.seed) = (weather, seed);
        }
        bus
    }

    /// Creates a pipe for one more node.
    pub fn pipe(&self) -> Arc<SimPipe> {
        let state = watch::Sender::new(BusState::default());
        let mut network = self.0.lock();
        let end = End { state: state.clone(), is_dead: false, still_until: None, deaf_until: None };
        network.ends.push(end);
        Arc::new(SimPipe { bus: self.clone(), number: network.ends.len() - 1, state })
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
        network.ends.iter().for_each(End::reconnect);
    }

    /// Whether a message of one pipe reaches another one now, but for the weather.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        let (network, now) = (self.0.lock(), Instant::now());
        let speaks = |pipe: usize| {
            let end = &network.ends[pipe];
            !end.is_dead && !end.is_deaf(now) && end.still_until.is_none_or(|until| until <= now)
        };
        network.are_together(from, to) && speaks(from) && speaks(to)
    }

    /// Drops what would come to a pipe from now on, as an inbox that is full, and counts it.
    pub fn deafen(&self, pipe: usize, until: Instant) {
        self.0.lock().ends[pipe].deaf_until = Some(until);
    }

    /// Tells a pipe that its connection is a new one.
    pub fn reconnect(&self, pipe: usize) {
        self.0.lock().ends[pipe].reconnect();
    }

    /// Stops the process of a pipe for a time: what it sends and what it gets waits.
    pub fn stop(&self, pipe: usize, until: Instant) {
        self.0.lock().ends[pipe].still_until = Some(until);
    }

    /// Ends a pipe as a process that is killed: it says and hears nothing more.
    pub fn kill(&self, pipe: usize) {
        let mut network = self.0.lock();
        network.ends[pipe].is_dead = true;
        network.subscribers.retain(|subscriber| subscriber.pipe != pipe);
    }

    /// Returns the number of subscriptions.
    pub fn subscriptions(&self) -> usize {
        let mut network = self.0.lock();
        network.subscribers.retain(|subscriber| !subscriber.inbox.is_closed());
        network.subscribers.len()
    }

    fn carry(&self, from: usize, target: &Target, message: &Bytes) -> usize {
        let (mut network, now) = (self.0.lock(), Instant::now());
        network.subscribers.retain(|subscriber| !subscriber.inbox.is_closed());
        let reached: Vec<(usize, Inbox)> = network.reached(from, target).collect();
        let sent = network.ends[from].still_until.map_or(now, |until| until.max(now));
        for (to, inbox) in &reached {
            for delay in network.copies(from, target) {
                if network.drops(from, *to, now) {
                    continue;
                }
                match sent + delay {
                    arrival if arrival <= now => inbox.push(message.clone()),
                    arrival => self.push_later(*to, inbox.clone(), message.clone(), arrival),
                }
            }
        }
        reached.len()
    }

    fn push_later(&self, to: usize, inbox: Inbox, message: Bytes, arrival: Instant) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let network = self.0.clone();
        let carrying = async move {
            tokio::time::sleep_until(arrival).await;
            let still_until = network.lock().ends[to].still_until.filter(|until| *until > arrival);
            if let Some(until) = still_until {
                tokio::time::sleep_until(until).await;
            }
            if !network.lock().ends[to].is_dead {
                inbox.push(message);
            }
        };
        self.1.spawn_on(carrying, &runtime);
    }
}

impl End {
    fn reconnect(&self) {
        self.state.send_modify(|state| state.epoch += 1);
    }

    fn is_deaf(&self, now: Instant) -> bool {
        self.deaf_until.is_some_and(|until| until > now)
    }
}

impl Network {
    fn are_together(&self, one: usize, other: usize) -> bool {
        self.island.contains(&one) == self.island.contains(&other)
    }

    fn reached(&self, from: usize, target: &Target) -> impl Iterator<Item = (usize, Inbox)> {
        let is_dead = self.ends[from].is_dead;
        let takes =
            move |it: &&Subscriber| !is_dead && it.target == *target && self.are_together(from, it.pipe);
        self.subscribers.iter().filter(takes).map(|subscriber| (subscriber.pipe, subscriber.inbox.clone()))
    }

    /// Whether a pipe that is deaf loses a message.
    fn drops(&self, from: usize, to: usize, now: Instant) -> bool {
        if self.ends[to].is_deaf(now) {
            self.ends[to].state.send_modify(|state| state.lost += 1);
            return true;
        }
        self.ends[from].is_deaf(now)
    }

    /// Returns the delay of each copy of a message.
    fn copies(&mut self, from: usize, target: &Target) -> Vec<Duration> {
        let Weather { delay_max, lost_percent, direct_lost_percent, doubled_percent } = self.weather;
        let lost_percent = if matches!(target, Target::Node(_)) { direct_lost_percent } else { lost_percent };
        let seed = self.seed;
        let dice = self.dice.entry((from, target.clone())).or_insert_with(|| Dice::new(seed, (from, target)));
        if dice.chance(lost_percent.into()) {
            return Vec::new();
        }
        let copies = if dice.chance(doubled_percent.into()) { 2 } else { 1 };
        (0..copies).map(|_| dice.duration(delay_max)).collect()
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
