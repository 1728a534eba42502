//! Tests of the outgoing queue, filled and drained by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use super::{Backlog, Drained, Outbox, OutboxLimits, Pressure, Queue, Queued, SendError, Take};
use crate::engine::{Close, Frame, Protocol, Reservation, Transport, metrics};

fn outbox_of(transport: Transport) -> Outbox {
    Outbox(Arc::new(Queue::new(transport, Protocol::V4, Arc::new(OutboxLimits::default()))))
}

fn held(packets: usize, bytes: usize) -> Backlog {
    Backlog { pushes: Queued { packets, bytes }, ..Backlog::default() }
}

fn take(outbox: &Outbox) -> Drained {
    outbox.0.take_and_arm(Waker::noop(), Take::All, false)
}

#[test]
fn messages_leave_in_the_order_they_were_sent() {
    let outbox = outbox_of(Transport::WebSocket);
    outbox.send(Frame::text("a")).unwrap();
    outbox.send_all(&[Frame::text("b"), Frame::binary(b"c")]).unwrap();
    let payloads: Vec<_> = take(&outbox).frames.iter().map(|frame| frame.payload().to_vec()).collect();
    assert_eq!(payloads, [b"4a".to_vec(), b"4b".to_vec(), b"c".to_vec()]);
}

#[test]
fn a_reader_that_stops_reading_is_closed_after_256_packets() {
    let outbox = outbox_of(Transport::WebSocket);
    outbox.0.set_blocked(Some(held(1, 10)));
    for _ in 0..255 {
        outbox.send(Frame::text("a")).unwrap();
    }
    assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
    assert!(outbox.is_closed() && take(&outbox).slow);
}

#[test]
fn a_reader_that_stops_reading_is_closed_after_a_mebibyte() {
    let outbox = outbox_of(Transport::WebSocket);
    outbox.0.set_blocked(Some(held(0, 0)));
    outbox.send(Frame::binary(&vec![0; 2 << 20])).unwrap();
    assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
}

#[test]
fn a_burst_to_a_reader_that_keeps_up_is_accepted_with_pressure() {
    let outbox = outbox_of(Transport::WebSocket);
    for sent in 1..=4096 {
        assert_eq!(outbox.send(Frame::text("a")), Ok(Pressure(sent > 128)));
    }
    assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
}

#[test]
fn a_client_that_does_not_poll_is_closed_after_a_mebibyte() {
    let outbox = outbox_of(Transport::Polling);
    outbox.send(Frame::binary(&vec![0; 1 << 20])).unwrap();
    assert_eq!(outbox.send(Frame::text("a")), Err(SendError::Slow));
}

#[test]
fn volatile_messages_need_a_wire_that_can_take_them_now() {
    let outbox = outbox_of(Transport::Polling);
    assert!(!outbox.send_volatile(&[Frame::text("a")]));
    outbox.0.take_and_arm(Waker::noop(), Take::All, true);
    assert!(outbox.send_volatile(&[Frame::text("a")]));
    assert!(!outbox.send_volatile(&[Frame::text("b")]));
}

#[test]
fn volatile_messages_never_close_a_connection() {
    let outbox = outbox_of(Transport::WebSocket);
    (0..4096).for_each(|_| assert!(outbox.send(Frame::text("a")).is_ok()));
    assert!(!outbox.send_volatile(&[Frame::text("b")]) && !outbox.is_closed());
    assert_eq!(take(&outbox).frames.len(), 4096);
}

#[test]
fn whoever_waits_for_room_is_told_when_there_is_some_or_none_will_be() {
    let outbox = outbox_of(Transport::WebSocket);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Ok(())));
    (0..129).for_each(|_| assert!(outbox.send(Frame::text("a")).is_ok()));
    assert_eq!((outbox.queued().packets, outbox.poll_drained(&mut cx)), (129, Poll::Pending));
    outbox.0.set_blocked(Some(held(take(&outbox).frames.len(), 0)));
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Pending);
    outbox.0.set_blocked(Some(held(128, 0)));
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Ok(())));
    outbox.close(Close::Now);
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Err(SendError::Closed)));
}

#[test]
fn a_few_large_messages_are_pressure_too() {
    let outbox = outbox_of(Transport::WebSocket);
    let large = Frame::binary(&vec![0; 100 << 10]);
    let pressure = [(); 3].map(|()| outbox.send(large.clone()).unwrap().0);
    assert_eq!(pressure, [false, false, true]);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Pending);
    outbox.0.set_blocked(Some(held(3, 3 * large.len())));
    take(&outbox);
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Pending, "the wire holds them back");
    outbox.0.set_blocked(None);
    assert_eq!(outbox.poll_drained(&mut cx), Poll::Ready(Ok(())));
}

#[test]
fn what_waits_for_slow_clients_is_counted_until_it_is_out_or_they_are_gone() {
    let (websocket, polling) = (outbox_of(Transport::WebSocket), outbox_of(Transport::Polling));
    let waiting = || [&websocket, &polling].map(|outbox| outbox.0.waiting_bytes());
    websocket.send(Frame::text("123")).unwrap();
    assert_eq!(waiting(), [0, 0], "it is about to be written");
    websocket.0.set_blocked(Some(held(1, 100)));
    polling.send(Frame::text("1234")).unwrap();
    polling.0.take_and_arm(Waker::noop(), Take::Nothing, false);
    assert_eq!(waiting(), [106, 7]);
    assert!(metrics::OUTBOX_WAITING_SESSIONS.get() >= 2 && metrics::OUTBOX_WAITING_BYTES.get() >= 113);
    let dropped = metrics::VOLATILE_DROPPED.get();
    assert!(!websocket.send_volatile(&[Frame::text("a")]) && !polling.send_volatile(&[Frame::text("a")]));
    assert!(metrics::VOLATILE_DROPPED.get() >= dropped + 2);
    polling.0.take_and_arm(Waker::noop(), Take::All, false);
    assert_eq!(waiting(), [106, 0]);
    websocket.0.finish();
    assert_eq!(waiting(), [0, 0]);
}

#[test]
fn large_messages_leave_compressed_where_that_was_negotiated() {
    let large = || Frame::text(&"x".repeat(1_023));
    let rows = [
        (large(), true),
        (Frame::text(&"x".repeat(1_022)), false),
        (large().uncompressed(), false),
        (Frame::binary(&[7; 1_024]), true),
    ];
    let outbox = outbox_of(Transport::WebSocket).compressing(1_024);
    let compressed = |frames: VecDeque<Frame>| frames.iter().all(|frame| frame.wire()[0] & 0x40 != 0);
    for (frame, expected) in rows {
        outbox.send(frame.clone()).unwrap();
        assert_eq!(compressed(take(&outbox).frames), expected);
        outbox.send_all(std::slice::from_ref(&frame)).unwrap();
        assert_eq!(compressed(take(&outbox).frames), expected);
        assert!(outbox.send_volatile(&[frame]));
        assert!(outbox.queued().bytes < 1_040 && compressed(take(&outbox).frames) == expected);
    }
    let plain = outbox_of(Transport::WebSocket);
    plain.send(large()).unwrap();
    assert!(!compressed(take(&plain).frames));
}

#[test]
fn nothing_is_accepted_after_a_close() {
    let outbox = outbox_of(Transport::WebSocket);
    outbox.send(Frame::text("a")).unwrap();
    outbox.close(Close::Graceful);
    outbox.close(Close::Shutdown);
    assert_eq!(outbox.send(Frame::text("b")), Err(SendError::Closed));
    let taken = take(&outbox);
    assert_eq!((taken.frames.len(), taken.closing), (1, Some(Close::Graceful)));
    outbox.close(Close::Now);
    assert_eq!(take(&outbox).closing, Some(Close::Now));
}

#[test]
fn answers_never_close_a_connection_and_do_not_count_for_others() {
    for transport in [Transport::WebSocket, Transport::Polling] {
        let outbox = outbox_of(transport);
        outbox.0.set_blocked(Some(Backlog::default()));
        for _ in 0..300 {
            assert_eq!(outbox.answer(&[Frame::binary(&[0; 100 << 10])], None), Ok(()));
        }
        assert!(outbox.send(Frame::text("of others")).is_ok());
        assert_eq!(outbox.queued().packets, 301);
        for _ in 0..255 {
            let _ = outbox.send(Frame::binary(&[0; 5 << 10]));
        }
        assert_eq!(
            outbox.send(Frame::text("a")),
            Err(SendError::Slow),
            "the bound of what others send stays"
        );
        assert_eq!(outbox.answer(&[Frame::text("b")], None), Err(SendError::Slow));
    }
}

#[test]
fn answers_hold_back_requests_until_they_are_out() {
    let outbox = outbox_of(Transport::WebSocket);
    let large = Frame::binary(&[0; 300 << 10]);
    outbox.send(large.clone()).unwrap();
    assert!(!outbox.0.is_congested(), "nobody's answer");
    outbox.answer(std::slice::from_ref(&large), None).unwrap();
    assert!(outbox.0.is_congested());
    let mut held = Backlog::default();
    take(&outbox).frames.iter().for_each(|frame| held.add(frame, frame.len()));
    assert!(!outbox.0.is_congested(), "about to be written");
    outbox.0.set_blocked(Some(held));
    assert!(outbox.0.is_congested(), "the wire did not take them");
    outbox.0.set_blocked(None);
    assert!(!outbox.0.is_congested());
    outbox.answer(&[large], None).unwrap();
    outbox.0.finish();
    assert!(!outbox.0.is_congested());
}

/// A value that counts how many of its kind were dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_reservation_lives_as_long_as_its_answer() {
    let dropped = Arc::new(AtomicUsize::new(0));
    for transport in [Transport::WebSocket, Transport::Polling] {
        let outbox = outbox_of(transport).compressing(1_024);
        let reservation: Reservation = Arc::new(Counted(dropped.clone()));
        let before = dropped.load(Ordering::Relaxed);
        let frames = [Frame::text("a"), Frame::binary(&[7; 2_000])];
        outbox.answer(&frames, Some(reservation)).unwrap();
        let taken = take(&outbox).frames;
        assert!(taken.iter().all(Frame::is_answer) && taken[0].payload() == b"4a");
        assert_eq!(dropped.load(Ordering::Relaxed), before);
        drop(taken);
        assert_eq!(dropped.load(Ordering::Relaxed), before + 1);
    }
}

#[test]
fn a_poll_takes_what_fits_and_leaves_the_rest_in_order() {
    let outbox = outbox_of(Transport::Polling);
    let sizes = [10_usize, 500, 600, 2_000, 3, 3, 3];
    for size in sizes {
        outbox.send(Frame::binary(&vec![0; size])).unwrap();
    }
    let poll = || {
        let taken = outbox.0.take_and_arm(Waker::noop(), Take::UpTo { packets: 2, bytes: 1_000 }, false);
        let sizes: Vec<_> = taken.frames.iter().map(|frame| frame.payload().len()).collect();
        (sizes, outbox.queued().packets > 0)
    };
    assert_eq!(poll(), (vec![10, 500], true));
    assert_eq!(poll(), (vec![600], true));
    assert_eq!(poll(), (vec![2_000], true), "one packet always fits");
    assert_eq!(poll(), (vec![3, 3], true));
    assert_eq!(poll(), (vec![3], false));
    assert_eq!(outbox.queued(), Queued::default());
    outbox.allow_long_payloads();
    for size in sizes {
        outbox.send(Frame::binary(&vec![0; size])).unwrap();
    }
    assert_eq!(poll(), (vec![10, 500], true), "no more bytes than before");
    assert_eq!((poll(), poll()), ((vec![600], true), (vec![2_000], true)));
    assert_eq!(poll(), (vec![3, 3, 3], false));
}
