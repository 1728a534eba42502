//! Tests of packets that replace each other in the outgoing queue, against a model.

use std::sync::Arc;
use std::task::Waker;

use proptest::prelude::*;

use super::latest::{LATEST_MAX, Slot, VOLATILE_WAITING_MAX};
use super::{Backlog, Outbox, OutboxLimits, Queue, Queued, SendError, Take};
use crate::engine::{Close, Frame, Protocol, Transport};

fn outbox_of(transport: Transport) -> Outbox {
    Outbox(Arc::new(Queue::new(transport, Protocol::V4, Arc::new(OutboxLimits::default()))))
}

fn block(outbox: &Outbox) {
    outbox.0.set_blocked(Some(Backlog { pushes: Queued { packets: 1, bytes: 1 }, ..Backlog::default() }));
}

fn texts(frames: impl IntoIterator<Item = Frame>) -> Vec<String> {
    frames.into_iter().map(|frame| String::from_utf8_lossy(&frame.payload()[1..]).into_owned()).collect()
}

fn take(outbox: &Outbox) -> Vec<String> {
    texts(outbox.0.take_and_arm(Waker::noop(), Take::All, false).frames)
}

#[test]
fn a_blocked_client_gets_the_latest_state_after_everything_that_was_sent_before_it() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox);
    for (slot, text) in [(1, "score 1"), (2, "clock 1"), (1, "score 2")] {
        outbox.send_latest(&[Frame::text(text)], Slot::new(slot)).unwrap();
        outbox.send(Frame::text(&format!("after {text}"))).unwrap();
    }
    assert_eq!(take(&outbox), ["after score 1", "clock 1", "after clock 1", "score 2", "after score 2"]);
}

#[test]
fn a_client_that_keeps_up_gets_every_state() {
    let (websocket, polling) = (outbox_of(Transport::WebSocket), outbox_of(Transport::Polling));
    polling.0.take_and_arm(Waker::noop(), Take::All, true);
    for outbox in [websocket, polling] {
        for text in ["1", "2", "3"] {
            outbox.send_latest(&[Frame::text(text)], Slot::new(1)).unwrap();
        }
        assert_eq!(take(&outbox), ["1", "2", "3"]);
    }
}

#[test]
fn a_client_that_does_not_poll_gets_the_latest_state_with_its_next_poll() {
    let outbox = outbox_of(Transport::Polling);
    for text in ["1", "2", "3"] {
        outbox.send_latest(&[Frame::text(text), Frame::text("attached")], Slot::new(1)).unwrap();
    }
    assert_eq!(take(&outbox), ["3", "attached"]);
}

#[test]
fn a_state_that_replaces_another_one_never_closes_a_slow_client() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox);
    outbox.send_latest(&[Frame::text("first")], Slot::new(1)).unwrap();
    for _ in 0..254 {
        outbox.send(Frame::text("a")).unwrap();
    }
    for _ in 0..1_000 {
        outbox.send_latest(&[Frame::text("again")], Slot::new(1)).unwrap();
    }
    assert_eq!(outbox.send_latest(&[Frame::text("other")], Slot::new(2)), Err(SendError::Slow));
}

#[test]
fn a_state_that_takes_no_more_room_replaces_another_one_beyond_the_bounds_too() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox);
    outbox.send_latest(&[Frame::text("first")], Slot::new(1)).unwrap();
    outbox.send(Frame::binary(&vec![0; 2 << 20])).unwrap();
    outbox.send_latest(&[Frame::text("again")], Slot::new(1)).unwrap();
    assert_eq!(outbox.queued().packets, 3, "with the one that the wire holds");
    assert_eq!(outbox.send_latest(&[Frame::text("longer")], Slot::new(1)), Err(SendError::Slow));
}

#[test]
fn a_state_that_waits_stays_when_a_newer_one_comes_after_the_close() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox);
    outbox.send_latest(&[Frame::text("last")], Slot::new(1)).unwrap();
    outbox.close(Close::Graceful);
    assert_eq!(outbox.send_latest(&[Frame::text("too late")], Slot::new(1)), Err(SendError::Closed));
    assert_eq!(take(&outbox), ["last"]);
}

#[test]
fn volatile_states_wait_while_few_do_and_never_close_a_slow_client() {
    let outbox = outbox_of(Transport::WebSocket);
    let state =
        |number: usize| outbox.send_ephemeral(&[Frame::text(&number.to_string())], Some(slot(number)));
    assert!(state(0), "it can be sent at once");
    assert_eq!(take(&outbox), ["0"]);
    block(&outbox);
    assert_eq!((0..100).filter(|number| state(*number)).count(), VOLATILE_WAITING_MAX);
    assert!(state(0), "it takes the room of the one that it replaces");
    (0..238).for_each(|_| assert!(outbox.send(Frame::text("a")).is_ok()));
    outbox.send(Frame::text("last")).unwrap();
    assert!(state(0) && !state(99), "the queue is full");
    assert!(!outbox.is_closed());
}

fn slot(number: usize) -> Slot {
    Slot::new(number as u64)
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    SendLatest { slot: usize, frames: usize },
    Block(bool),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_usize..4).prop_map(Step::Send),
        (0_usize..6, 1_usize..4).prop_map(|(slot, frames)| Step::SendLatest { slot, frames }),
        (0_usize..100, 1_usize..3).prop_map(|(slot, frames)| Step::SendLatest { slot, frames }),
        any::<bool>().prop_map(Step::Block),
        (0_usize..12).prop_map(Step::Take),
    ]
}

/// A packet that waits in the model.
#[derive(Debug)]
struct Waiting {
    frames: Vec<String>,
    /// The slot in which it can be replaced.
    slot: Option<usize>,
}

/// The queue as it should be: a list of packets, looked through each time.
#[derive(Debug, Default)]
struct Model {
    packets: Vec<Waiting>,
    blocked: bool,
}

impl Model {
    fn send(&mut self, frames: Vec<String>, slot: Option<usize>) {
        let slot = slot.filter(|_| self.blocked);
        if slot.is_some() {
            self.packets.retain(|packet| packet.slot != slot);
        }
        let has_place = self.packets.iter().filter(|packet| packet.slot.is_some()).count() < LATEST_MAX;
        self.packets.push(Waiting { frames, slot: slot.filter(|_| has_place) });
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count && !self.packets.is_empty() {
            let first = &mut self.packets[0];
            taken.push(first.frames.remove(0));
            first.slot = None;
            if first.frames.is_empty() {
                self.packets.remove(0);
            }
        }
        taken
    }

    fn frames(&self) -> impl Iterator<Item = &String> {
        self.packets.iter().flat_map(|packet| &packet.frames)
    }
}

proptest! {
    #[test]
    fn whatever_happens_everything_else_keeps_its_order_and_every_byte_is_counted(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let outbox = outbox_of(Transport::WebSocket);
        let mut model = Model::default();
        for (number, step) in steps.into_iter().enumerate() {
            let texts_of = |frames: usize| (0..frames).map(|frame| format!("{number}.{frame}")).collect::<Vec<_>>();
            let framed = |texts: &[String]| texts.iter().map(|text| Frame::text(text)).collect::<Vec<_>>();
            match step {
                Step::Send(frames) => {
                    let texts = texts_of(frames);
                    prop_assume!(outbox.send_all(&framed(&texts)).is_ok());
                    model.send(texts, None);
                }
                Step::SendLatest { slot: at, frames } => {
                    let texts = texts_of(frames);
                    prop_assume!(outbox.send_latest(&framed(&texts), slot(at)).is_ok());
                    model.send(texts, Some(at));
                }
                Step::Block(blocked) => {
                    outbox.0.set_blocked(blocked.then(Backlog::default));
                    model.blocked = blocked;
                }
                Step::Take(packets) => {
                    let part = Take::UpTo { packets, bytes: usize::MAX };
                    let drained = outbox.0.take_and_arm(Waker::noop(), part, false);
                    prop_assert_eq!(texts(drained.frames), model.take(packets));
                }
            }
            let bytes = model.frames().map(|text| Frame::text(text).len()).sum::<usize>();
            prop_assert_eq!(outbox.queued(), Queued { packets: model.frames().count(), bytes });
        }
        prop_assert_eq!(take(&outbox), model.take(usize::MAX));
    }
}
