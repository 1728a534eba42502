//! Tests of connections without a network, driven by hand.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Sleep;

use crate::engine::outbox::Queue;
use crate::engine::{Close, CloseReason, Config, Connection, Event, Frame, Handshake, Message};

#[tokio::test]
async fn a_connection_in_memory_echoes_and_closes() {
    let (mut connection, peer) = Connection::in_memory(&Config::default());
    peer.send("hello");
    let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
    assert_eq!(event, Event::Message(Message::Text("hello".into())));
    connection.outbox().send(Frame::text("back")).unwrap();
    connection.outbox().close(Close::Graceful);
    let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
    assert_eq!(event, Event::Closed(CloseReason::ForcedClose));
    assert_eq!(peer.recv().await, Some(Message::Text("back".into())));
    assert_eq!(peer.recv().await, None);
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed() {
    let (mut connection, peer) = Connection::in_memory(&Config::default());
    peer.send("first");
    drop(peer);
    let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
    assert_eq!(event, Event::Message(Message::Text("first".into())));
    let event = poll_fn(|cx| connection.poll_event(cx, true)).await;
    assert_eq!(event, Event::Closed(CloseReason::TransportClose));
    assert!(connection.outbox().is_closed());
}

#[tokio::test]
async fn many_messages_give_others_their_turn() {
    let (mut connection, peer) = Connection::in_memory(&Config::default());
    (0..100).for_each(|_| peer.send("a"));
    let mut turn = |cx: &mut Context<'_>| {
        Poll::Ready(std::iter::from_fn(|| connection.poll_event(cx, true).is_ready().then_some(())).count())
    };
    assert_eq!((poll_fn(&mut turn).await, poll_fn(&mut turn).await), (64, 36));
}

/// A waker that counts its calls.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task may be polled after others have used up the runtime's budget of a turn. It is then polled again,
/// and everything that appears pending must have registered its waker.
#[tokio::test(start_paused = true)]
async fn the_heartbeat_goes_on_though_a_turn_begins_without_budget() {
    let config = Config::default();
    let (mut connection, _peer) = Connection::in_memory(&config);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut turn = || connection.poll_event(&mut Context::from_waker(&waker), true).is_pending();
    let used_up = poll_fn(|cx| {
        while coop::has_budget_remaining() {
            let _ = pin!(coop::consume_budget()).poll(cx);
        }
        Poll::Ready(turn())
    });
    assert!(used_up.await);
    tokio::task::yield_now().await;
    assert!(turn());
    wakes.0.store(0, Ordering::Relaxed);
    tokio::time::advance(config.ping_interval + Duration::from_millis(1)).await;
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "the ping is due");
}

/// Measures the memory of an idle WebSocket connection in this layer, without the task that holds it.
#[test]
fn an_idle_connection_is_small() {
    let sizes = [
        ("Connection", size_of::<Connection>(), 640),
        ("Queue", size_of::<Queue>(), 256),
        ("Handshake", size_of::<Handshake>(), 128),
        ("Sleep", size_of::<Sleep>(), 192),
        ("Frame", size_of::<Frame>(), 40),
        ("Message", size_of::<Message>(), 40),
    ];
    for (name, size, size_max) in sizes {
        println!("{name}: {size} bytes");
        assert!(size <= size_max, "{name}: {size} > {size_max}");
    }
}
