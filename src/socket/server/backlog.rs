//! The backlog of a connection: the outputs that wait until their handler may start. It does no I/O.
//!
//! A connection is read from while its backlog is within its bound, so that acks, which never wait, get
//! through. A handler that waits for an ack of its own client does not use up a slot. However many such
//! handlers there are, the next event can start, and so the acks behind it are read.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::client::Output;

/// The outputs of a connection in order of arrival, except acks.
#[derive(Debug)]
pub(super) struct Backlog<S> {
    /// What waits, and since when.
    waiting: VecDeque<(Output<S>, Instant)>,
    bytes: usize,
}

impl<S> Default for Backlog<S> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0 }
    }
}

impl<S> Backlog<S> {
    /// Returns an output that can be handled now: an ack always, anything else if nothing waits and
    /// `may_start` allows it. Queues the output otherwise, at `now`, which is asked for only then.
    pub(super) fn admit(
        &mut self,
        output: Output<S>,
        may_start: impl FnOnce() -> bool,
        now: impl FnOnce() -> Instant,
    ) -> Option<Output<S>> {
        if matches!(output, Output::Ack { .. }) || (self.waiting.is_empty() && may_start()) {
            return Some(output);
        }
        self.bytes += output.bytes();
        self.waiting.push_back((output, now()));
        None
    }

    /// Removes and returns the next output, and since when it has waited.
    pub(super) fn next(&mut self) -> Option<(Output<S>, Instant)> {
        let (output, since) = self.waiting.pop_front()?;
        self.bytes -= output.bytes();
        if self.waiting.is_empty() {
            // Free the memory, so that idle connections stay small.
            self.waiting = VecDeque::new();
        }
        Some((output, since))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the size of the queued outputs in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether one more handler may start beside those in flight. Handlers that wait for acks of this client do
/// not count, because the client's ack arrives only if its connection is read. `pending_acks` is called only
/// if needed.
pub(super) fn may_start(in_flight: usize, max: usize, pending_acks: impl FnOnce() -> usize) -> bool {
    in_flight < max || in_flight < max.saturating_add(pending_acks())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tungstenite::Utf8Bytes;

    use super::*;
    use crate::socket::codec::packet::Args;

    fn event(number: u64) -> Output<()> {
        let args = Args::ack(Utf8Bytes::from_static("[]"), 0).unwrap();
        Output::Event { socket: (), id: Some(number), args }
    }

    fn ack(number: u64) -> Output<()> {
        Output::Ack { socket: (), id: number, args: Args::none() }
    }

    #[test]
    fn acks_never_wait_and_what_waits_keeps_its_order_and_is_counted() {
        let mut backlog = Backlog::default();
        let early = Instant::now();
        let late = early + std::time::Duration::from_secs(1);
        assert!(backlog.admit(event(1), || true, Instant::now).is_some());
        assert!(backlog.admit(event(2), || false, || early).is_none());
        assert!(backlog.admit(event(3), || true, || late).is_none(), "not before the one that waits");
        assert!(backlog.admit(ack(1), || false, Instant::now).is_some());
        assert_eq!(backlog.bytes(), event(2).bytes() + event(3).bytes());
        assert_eq!((backlog.next(), backlog.next()), (Some((event(2), early)), Some((event(3), late))));
        assert!(backlog.is_empty() && backlog.bytes() == 0 && backlog.next().is_none());
    }

    /// A connection whose handlers each request several acks of the client, one after the other. The client
    /// answers every request.
    struct Model {
        wire: VecDeque<Output<()>>,
        backlog: Backlog<()>,
        /// The acks that each running handler still needs, including the pending one.
        running: BTreeMap<u64, usize>,
        questions: Vec<usize>,
        places: usize,
        bytes_max: usize,
    }

    impl Model {
        fn may_start(&self) -> bool {
            let asking = self.running.values().filter(|left| **left > 0).count();
            may_start(self.running.len(), self.places, || asking)
        }

        fn start(&mut self, number: u64) {
            let questions = self.questions[number as usize];
            self.running.insert(number, questions);
            if questions > 0 {
                self.wire.push_back(ack(number));
            }
        }

        fn handle(&mut self, output: Output<()>) {
            match output {
                Output::Event { id, .. } => self.start(id.unwrap()),
                Output::Ack { id, .. } => {
                    let left = self.running.get_mut(&id).unwrap();
                    *left -= 1;
                    if *left > 0 {
                        self.wire.push_back(ack(id));
                    }
                }
                _ => {}
            }
        }

        /// Reads and starts what is possible. Returns whether anything happened.
        fn step(&mut self) -> bool {
            if self.may_start()
                && let Some((output, _)) = self.backlog.next()
            {
                self.handle(output);
                return true;
            }
            if self.backlog.bytes() >= self.bytes_max {
                return false;
            }
            let Some(output) = self.wire.pop_front() else { return false };
            let may_start = self.may_start();
            if let Some(output) = self.backlog.admit(output, || may_start, Instant::now) {
                self.handle(output);
            }
            true
        }

        /// Ends the handlers that do not wait for the client.
        fn finish_others(&mut self) -> bool {
            let before = self.running.len();
            self.running.retain(|_, left| *left > 0);
            self.running.len() < before
        }
    }

    proptest! {
        #[test]
        fn whatever_handlers_ask_their_client_nothing_waits_for_ever(
            questions in prop::collection::vec(0_usize..4, 1..200), places in 1_usize..8, events_max in 1_usize..8,
        ) {
            let wire: VecDeque<_> = (0..questions.len() as u64).map(event).collect();
            let bytes_max = events_max * event(0).bytes();
            let mut model = Model {
                wire, backlog: Backlog::default(), running: BTreeMap::new(), questions, places, bytes_max,
            };
            loop {
                while model.step() {
                    // The bound is checked before reading, so one more output may be added.
                    prop_assert!(model.backlog.bytes() <= bytes_max + event(0).bytes());
                }
                let asking = model.running.values().filter(|left| **left > 0).count();
                let blocked = model.running.len() - asking >= places;
                prop_assert!(blocked || asking == 0, "handlers wait for acks that nobody reads");
                if !model.finish_others() {
                    break;
                }
            }
            prop_assert!(model.backlog.is_empty() && model.wire.is_empty());
            prop_assert!(model.running.is_empty());
        }
    }
}
