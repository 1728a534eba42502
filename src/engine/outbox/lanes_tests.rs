//! Tests of lanes in the outgoing queue, against a model.

use std::sync::Arc;
use std::task::Waker;

use proptest::prelude::*;

use super::latest::VOLATILE_WAITING_MAX;
use super::{Backlog, Lane, Outbox, OutboxLimits, Queue, Queued, SendError, Slot, Take, WhenFull};
use crate::engine::{Close, Frame, Protocol, Transport};

fn outbox_of(transport: Transport) -> Outbox {
    Outbox(Arc::new(Queue::new(transport, Protocol::V4, Arc::new(OutboxLimits::default()))))
}

fn block(outbox: &Outbox, is_blocked: bool) {
    outbox.0.set_blocked(is_blocked.then(Backlog::default));
}

fn take(outbox: &Outbox, take: Take) -> Vec<String> {
    let frames = outbox.0.take_and_arm(Waker::noop(), take, false).frames;
    frames.iter().map(|frame| String::from_utf8_lossy(&frame.payload()[1..]).into_owned()).collect()
}

#[test]
fn a_client_that_does_not_keep_up_gets_messages_first_then_states_then_history() {
    for transport in [Transport::WebSocket, Transport::Polling] {
        let outbox = outbox_of(transport);
        block(&outbox, true);
        outbox.answer_in(&[Frame::text("history")], None, Lane::Bulk).unwrap();
        outbox.send_in(&[Frame::text("export")], Lane::Bulk).unwrap();
        outbox.send_in(&[Frame::text("typing")], Lane::Ephemeral).unwrap();
        outbox.send(Frame::text("message")).unwrap();
        outbox.answer(&[Frame::text("ack")], None).unwrap();
        assert_eq!(outbox.queued().packets, 5);
        assert_eq!(take(&outbox, Take::All), ["message", "ack", "typing", "history", "export"]);
        assert_eq!(outbox.queued(), Queued::default());
    }
}

/// What stands before the last of ten messages that are sent to a client on a slow line while 40 pages of history and 16 signs
/// of typing wait for it: packets, and their bytes. With one lane, everything goes as a message does.
fn before_the_last_message(has_lanes: bool) -> (usize, usize) {
    let outbox = outbox_of(Transport::WebSocket);
    let lane = |lane| if has_lanes { lane } else { Lane::Chat };
    block(&outbox, true);
    for number in 0..40 {
        outbox.answer_in(&[Frame::text(&"h".repeat(5_000))], None, lane(Lane::Bulk)).unwrap();
        if number < 16 {
            outbox.send_in(&[Frame::text("typing")], lane(Lane::Ephemeral)).unwrap();
        }
        if number % 4 == 3 {
            outbox.send(Frame::text("message")).unwrap();
        }
    }
    let taken = take(&outbox, Take::All);
    assert_eq!(taken.len(), 66, "nothing is dropped");
    let last = taken.iter().rposition(|packet| packet == "message").unwrap();
    (last, taken[..last].iter().map(String::len).sum())
}

#[test]
fn ten_messages_overtake_200_kilobytes_of_history_to_a_client_that_does_not_keep_up() {
    assert_eq!(before_the_last_message(true), (9, 63), "the nine messages before it, and nothing else");
    assert_eq!(before_the_last_message(false), (65, 200_159), "without lanes, everything");
}

#[test]
fn a_client_that_keeps_up_gets_everything_in_the_order_in_which_it_was_sent() {
    let outbox = outbox_of(Transport::WebSocket);
    outbox.answer_in(&[Frame::text("history")], None, Lane::Bulk).unwrap();
    outbox.send_in(&[Frame::text("typing")], Lane::Ephemeral).unwrap();
    outbox.send(Frame::text("message")).unwrap();
    assert_eq!(take(&outbox, Take::All), ["history", "typing", "message"]);
}

#[test]
fn a_state_for_a_closed_connection_is_refused_like_everything_else() {
    let outbox = outbox_of(Transport::WebSocket);
    outbox.send_in(&[Frame::text("typing")], Lane::Ephemeral).unwrap();
    outbox.close(Close::Now);
    for lane in [Lane::Ephemeral, Lane::Chat, Lane::Bulk] {
        assert!(outbox.send_in(&[Frame::text("typing")], lane).is_err(), "{lane:?}");
    }
}

#[test]
fn states_beyond_those_that_may_wait_are_dropped_and_close_no_connection() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox, true);
    for number in 0..1_000 {
        outbox.send_in(&[Frame::text(&number.to_string())], Lane::Ephemeral).unwrap();
    }
    assert!(!outbox.is_closed());
    assert_eq!(outbox.queued().packets, VOLATILE_WAITING_MAX);
    outbox.send(Frame::text("message")).unwrap();
    assert_eq!(take(&outbox, Take::All)[..3], ["message", "0", "1"]);
}

#[test]
fn large_events_that_nobody_reads_close_a_slow_client_like_others() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox, true);
    let send = || outbox.send_in(&[Frame::binary(&vec![0; 400 << 10])], Lane::Bulk);
    assert!(send().is_ok() && send().is_ok() && send().is_ok());
    assert_eq!(send(), Err(SendError::Slow));
    assert_eq!(outbox.queued(), Queued::default());
}

#[test]
fn a_packet_that_has_left_in_part_is_not_overtaken() {
    let outbox = outbox_of(Transport::Polling);
    let event = ["event", "first attachment", "second attachment"].map(Frame::text);
    outbox.send_in(&event, Lane::Bulk).unwrap();
    let one = Take::UpTo { packets: 1, bytes: usize::MAX };
    assert_eq!(take(&outbox, one), ["event"]);
    outbox.send(Frame::text("message")).unwrap();
    assert_eq!(take(&outbox, Take::All), ["first attachment", "second attachment", "message"]);
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Step {
    Send { lane: Lane, frames: usize, slot: Option<u64> },
    Block(bool),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![Just(Lane::Chat), Just(Lane::Ephemeral), Just(Lane::Bulk)];
    prop_oneof![
        4 => (lane, 1_usize..4, prop::option::of(0_u64..4))
            .prop_map(|(lane, frames, slot)| Step::Send { lane, frames, slot }),
        1 => any::<bool>().prop_map(Step::Block),
        1 => (0_usize..12).prop_map(Step::Take),
    ]
}

/// The queue as it should be: a list of packets for each lane.
#[derive(Debug, Default)]
struct Model {
    lanes: [Vec<(Vec<String>, Option<u64>)>; 3],
    is_blocked: bool,
}

impl Model {
    fn send(&mut self, lane: Lane, frames: Vec<String>, slot: Option<u64>) {
        let place = lane as usize;
        let waits = self.is_blocked || !self.lanes[place].is_empty();
        if lane == Lane::Chat || !waits {
            return self.lanes[0].push((frames, None));
        }
        let slot = slot.filter(|_| lane == Lane::Ephemeral);
        let held = slot.and_then(|slot| self.lanes[place].iter().position(|(_, held)| *held == Some(slot)));
        match held {
            Some(held) => drop(self.lanes[place].remove(held)),
            None if lane == Lane::Ephemeral && self.lanes[place].len() == VOLATILE_WAITING_MAX => return,
            None => {}
        }
        self.lanes[place].push((frames, slot));
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(lane) = self.lanes.iter().position(|lane| !lane.is_empty()) else { break };
            let (mut frames, _) = self.lanes[lane].remove(0);
            taken.push(frames.remove(0));
            if !frames.is_empty() {
                self.lanes[0].insert(0, (frames, None));
            }
        }
        taken
    }

    fn frames(&self) -> impl Iterator<Item = &String> {
        self.lanes.iter().flatten().flat_map(|(frames, _)| frames)
    }
}

proptest! {
    #[test]
    fn each_lane_keeps_its_order_and_every_byte_is_counted(steps in prop::collection::vec(step(), 0..100)) {
        let outbox = outbox_of(Transport::WebSocket);
        let mut model = Model::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Send { lane, frames, slot } => {
                    let texts: Vec<_> = (0..frames).map(|frame| format!("{number}.{frame}")).collect();
                    let framed: Vec<_> = texts.iter().map(|text| Frame::text(text)).collect();
                    let sent = match lane {
                        Lane::Ephemeral => {
                            outbox.send_ephemeral(&framed, slot.map(Slot::new));
                            Ok(super::Pressure(false))
                        }
                        lane => outbox.send_in(&framed, lane),
                    };
                    prop_assume!(sent.is_ok());
                    model.send(lane, texts, slot);
                }
                Step::Block(is_blocked) => {
                    block(&outbox, is_blocked);
                    model.is_blocked = is_blocked;
                }
                Step::Take(packets) => {
                    let part = Take::UpTo { packets, bytes: usize::MAX };
                    prop_assert_eq!(take(&outbox, part), model.take(packets));
                }
            }
            let bytes = model.frames().map(|text| Frame::text(text).len()).sum::<usize>();
            prop_assert_eq!(outbox.queued(), Queued { packets: model.frames().count(), bytes });
        }
        prop_assert_eq!(take(&outbox, Take::All), model.take(usize::MAX));
    }
}

/// Sends a thousand numbers to a client that reads nothing, and returns those that it gets in the end.
fn numbers_of_a_thousand(when_full: WhenFull) -> Vec<String> {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox, true);
    for number in 0..1_000 {
        outbox.send_bounded(&[Frame::text(&number.to_string())], when_full).unwrap();
    }
    assert!(!outbox.is_closed());
    outbox.answer(&[Frame::text("ack")], None).unwrap();
    take(&outbox, Take::All)
}

#[test]
fn a_queue_that_is_full_drops_the_oldest_the_newest_or_its_client() {
    let texts = |numbers: std::ops::Range<usize>| numbers.map(|number| number.to_string());
    let acked_first: Vec<String> = ["ack".to_owned()].into_iter().chain(texts(744..1_000)).collect();
    assert_eq!(numbers_of_a_thousand(WhenFull::DropOldest), acked_first);
    let acked_last: Vec<String> = texts(0..256).chain(["ack".to_owned()]).collect();
    assert_eq!(numbers_of_a_thousand(WhenFull::DropNewest), acked_last);
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox, true);
    let sent: Vec<bool> =
        (0..257).map(|_| outbox.send_bounded(&[Frame::text("a")], WhenFull::Close).is_ok()).collect();
    assert!(sent[..256].iter().all(|sent| *sent) && !sent[256] && outbox.is_closed());
}

#[test]
fn where_others_have_filled_the_queue_the_newest_is_dropped_and_a_client_that_keeps_up_loses_nothing() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox, true);
    for _ in 0..256 {
        outbox.send(Frame::text("chat")).unwrap();
    }
    outbox.send_bounded(&[Frame::text("price")], WhenFull::DropOldest).unwrap();
    assert_eq!(take(&outbox, Take::All), vec!["chat"; 256]);
    block(&outbox, false);
    for _ in 0..3 {
        outbox.send_bounded(&[Frame::text("price")], WhenFull::DropOldest).unwrap();
        outbox.send(Frame::text("chat")).unwrap();
    }
    assert_eq!(take(&outbox, Take::All), ["price", "chat", "price", "chat", "price", "chat"]);
}

#[test]
fn what_must_not_be_lost_takes_the_place_of_the_oldest_that_may_be_and_closes_no_connection() {
    let outbox = outbox_of(Transport::WebSocket);
    block(&outbox, true);
    for number in 0..300 {
        outbox.send_bounded(&[Frame::text(&number.to_string())], WhenFull::DropOldest).unwrap();
    }
    outbox.send(Frame::text("chat")).unwrap();
    outbox.send_in(&[Frame::text("history")], Lane::Bulk).unwrap();
    assert!(!outbox.is_closed());
    let newest = (46..300).map(|number| number.to_string());
    let expected: Vec<String> =
        ["chat".to_owned()].into_iter().chain(newest).chain(["history".to_owned()]).collect();
    assert_eq!(take(&outbox, Take::All), expected);
}
