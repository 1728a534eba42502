//! Connections without a network, driven by hand.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use super::{Close, CloseReason, Config, Connection, Event, Frame, Handshake, Message, outbox::Shared};

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

/// What an idle WebSocket connection costs in this layer, without the task that holds it.
#[test]
fn an_idle_connection_is_small() {
    let sizes = [
        ("Connection", size_of::<Connection>(), 640),
        ("Shared", size_of::<Shared>(), 256),
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
