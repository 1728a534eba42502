//! The reports about users between nodes: the tasks that send and receive them.

use std::sync::Arc;

use tokio::time::{Duration, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exchange::{Exchange, Outcome, To};
use super::user::Moment;
use super::wire::Message;
use super::{Board, Presences, now};
use crate::background;
use crate::bus::metrics as bus_metrics;
use crate::bus::{BusState, Pipe, Subscription};
use crate::messaging::node_message::NodeMessage;
use crate::node::NodeId;
use crate::socket::Namespace;

/// The way of a node's reports to the others, and of theirs to this node.
#[derive(Clone)]
struct Reports {
    board: Board,
    namespace: Namespace,
    pipe: Arc<dyn Pipe>,
}

impl Board {
    /// Starts to exchange reports with other nodes, until `stop`.
    pub(in crate::messaging) fn report(
        &self,
        (node, pipe): (NodeId, &Arc<dyn Pipe>),
        namespace: &Namespace,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (to_all, to_this) = (pipe.subscribe(CHANNEL), pipe.subscribe(&channel_of(node)));
        let reports = Reports { board: self.clone(), namespace: namespace.clone(), pipe: pipe.clone() };
        let sender = reports.clone();
        let sending = move |stop: CancellationToken| stop.run_until_cancelled_owned(sender.clone().send());
        tasks.spawn(background::keep("presence_reports", stop.clone(), sending));
        let receiving = stop.clone().run_until_cancelled_owned(reports.receive(to_all, to_this));
        tasks.spawn(background::essential("presence_of_nodes", receiving));
    }
}

impl Reports {
    /// Reports what has changed. What changes while the last reports are sent is put together.
    async fn send(self) {
        loop {
            self.board.0.news.notified().await;
            while self.report() {
                sleep(BATCH).await;
            }
        }
    }

    /// Reports what has changed, as far as it fits into one message. Returns whether there was something.
    fn report(&self) -> bool {
        self.with(|exchange, all, now| exchange.reports(all, now).inspect(|it| self.publish(To::All, it)))
            .flatten()
            .is_some()
    }

    /// Takes the messages of other nodes, and looks who of them is still there.
    async fn receive(self, mut to_all: Subscription, mut to_this: Subscription) {
        if !to_all.confirmed().await || !to_this.confirmed().await {
            return;
        }
        let mut state = self.pipe.state();
        let mut known = *state.borrow_and_update();
        self.say_hello();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0;
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    count += 1;
                    let before = std::mem::replace(&mut known, *state.borrow_and_update());
                    self.look(before, known, count % LOOKS_PER_SIGN == 0);
                }
                // Pages first: later reports must not overtake them.
                Some(message) = to_this.recv() => self.take(&message),
                Some(message) = to_all.recv() => self.take(&message),
            }
        }
    }

    fn take(&self, message: &[u8]) {
        match Message::decode(message) {
            Ok(message) => self.follow(|exchange, all, now| exchange.take(all, message, now)),
            Err(error) => {
                bus_metrics::MESSAGES_DROPPED.of(bus_metrics::Drop::Unreadable).increment();
                tracing::debug!(%error, "a message about presence was dropped");
            }
        }
    }

    /// Looks who of the others is still there, and gives signs of life.
    fn look(&self, before: BusState, known: BusState, is_time_for_a_sign: bool) {
        if !known.up {
            self.with(|exchange, _, now| exchange.cannot_hear(now));
            return;
        }
        let members = self.namespace.cluster().others();
        self.follow(|exchange, all, now| exchange.look(all, &members, now));
        if (before.epoch, before.lost) != (known.epoch, known.lost) {
            self.say_hello();
        } else if is_time_for_a_sign {
            self.with(|exchange, _, now| self.publish(To::All, &exchange.alive(now)));
        }
    }

    fn say_hello(&self) {
        self.with(|exchange, _, now| self.publish(To::All, &exchange.hello(now)));
    }

    /// Works with what is exchanged. What is published meanwhile leaves in the order of its numbers.
    fn with<T>(&self, work: impl FnOnce(&mut Exchange, &mut Presences, Moment) -> T) -> Option<T> {
        let state = &mut *self.board.0.state.lock();
        let exchange = state.exchange.as_mut()?;
        Some(work(exchange, &mut state.all, now()))
    }

    /// Works with what is exchanged, and does what follows.
    fn follow(&self, work: impl FnOnce(&mut Exchange, &mut Presences, Moment) -> Outcome) {
        let is_told = self.with(|exchange, all, now| {
            let Outcome { told, sent } = work(exchange, all, now);
            sent.iter().for_each(|(to, message)| self.publish(*to, message));
            self.board.0.untold.add(told)
        });
        if is_told.unwrap_or(false) {
            self.board.tell(&self.namespace);
        }
    }

    fn publish(&self, to: To, message: &Message) {
        let channel = match to {
            To::All => CHANNEL.to_owned(),
            To::One(node) => channel_of(node),
        };
        match message.encode() {
            Ok(bytes) => self.pipe.publish(&channel, bytes),
            Err(error) => tracing::warn!(%error, "other nodes were not told of presence"),
        }
    }
}

/// Returns the channel of the bus for what is meant for one node.
fn channel_of(node: NodeId) -> String {
    format!("{CHANNEL}:{node}")
}

/// The channel of the bus for what is meant for all nodes.
const CHANNEL: &str = "presence";
/// The pause between two messages with reports.
const BATCH: Duration = Duration::from_millis(50);
/// How often a node looks who of the others is there.
const LOOK: Duration = Duration::from_secs(1);
/// The number of looks between two signs of life, by which others notice that they have missed the last reports.
const LOOKS_PER_SIGN: u32 = 5;
