//! Tests of authenticators: who may join, what handlers then know, and what happens without an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::socket::packet::{PacketBody, Payload};
use crate::socket::tests::{open, server, text};
use crate::socket::{
    AuthenticatorLimits, ConnectError, ConnectPayload, Credentials, NamespaceBuilder, StaticTokens,
};

const REFUSED: &str = r#"4{"message":"The token is missing or not valid","data":{"code":"unauthenticated","message":"The token is missing or not valid","retryable":false}}"#;

fn whoami(ns: &mut NamespaceBuilder) {
    ns.on_sync("whoami", |mut event| {
        let name = event.socket().data::<&str>();
        event.take_ack().unwrap().send(&name.as_deref()).unwrap();
    });
}

#[tokio::test]
async fn a_client_with_a_known_token_is_who_the_application_says_and_all_others_stay_out() {
    let server = server(|ns| {
        ns.authenticate(StaticTokens::new([("a", "alice"), ("b", "bob")]));
        whoami(ns);
    });
    let peer = open(&server);
    for auth in ["", "{}", r#"{"token":"c"}"#, r#"{"token":null}"#, r#"{"token":["a"]}"#, r#"{"token":""}"#] {
        peer.send(&format!("0{auth}"));
        assert_eq!(text(&peer).await, REFUSED, "{auth}");
    }
    peer.send(r#"0{"token":"b","user":"alice"}"#);
    assert!(text(&peer).await.starts_with("0{"));
    peer.send(r#"20["whoami"]"#);
    assert_eq!(text(&peer).await, r#"30["bob"]"#);
}

#[tokio::test]
async fn credentials_in_a_log_do_not_show_the_token() {
    let server = server(|ns| {
        ns.authenticate(|credentials: Credentials| async move {
            let shown = format!("{credentials:?}");
            if shown.contains("hunter2") { Err(ConnectError::unauthenticated()) } else { Ok(shown) }
        });
    });
    let peer = open(&server);
    peer.send(r#"0{"token":"hunter2"}"#);
    assert!(text(&peer).await.starts_with("0{"));
}

#[tokio::test]
async fn without_an_answer_in_time_nobody_joins_and_the_transport_ends_so_that_clients_come_back() {
    let limits = AuthenticatorLimits { deadline: Duration::from_millis(50), ..Default::default() };
    let server = server(|ns| {
        ns.authenticate_within(limits, |_: Credentials| std::future::pending::<Result<(), ConnectError>>());
    });
    let peer = open(&server);
    peer.send("0");
    assert_eq!(peer.recv().await, None, "no packet, least of all a refusal");
}

#[tokio::test]
async fn only_so_many_clients_are_asked_about_at_once() {
    let (running, most, gate) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let ask = {
        let (running, most, gate) = (running.clone(), most.clone(), gate.clone());
        move |_: Credentials| {
            let (running, most, gate) = (running.clone(), most.clone(), gate.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.notified().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ConnectError>("somebody")
            }
        }
    };
    let limits = AuthenticatorLimits { calls_max: 2, ..Default::default() };
    let server = server(|ns| {
        ns.authenticate_within(limits, ask);
    });
    let peers: Vec<_> = (0..6).map(|_| open(&server)).collect();
    for peer in &peers {
        peer.send("0");
    }
    for _ in &peers {
        while running.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        tokio::task::yield_now().await;
    }
    for peer in &peers {
        gate.notify_one();
        assert!(text(peer).await.starts_with("0{"));
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn so_many_clients_wait_for_an_authenticator_and_others_come_back_later() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let limits = AuthenticatorLimits { calls_max: 1, waiting_max: 1, ..Default::default() };
    let server = server(|ns| {
        ns.authenticate_within(limits, move |_: Credentials| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<(), ConnectError>>()
        });
    });
    let peers: Vec<_> = (0..3).map(|_| open(&server)).collect();
    peers[0].send("0");
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // One of the two waits, the other one is sent away at once, long before the deadline.
    for peer in &peers[1..] {
        peer.send("0");
    }
    let (one, other) = peers.split_at(2);
    let first = tokio::select! {
        packet = one[1].recv() => packet,
        packet = other[0].recv() => packet,
    };
    assert_eq!((first, asked.load(Ordering::SeqCst)), (None, 1));
}

#[test]
fn what_a_client_presents_is_not_in_what_debug_shows() {
    let auth = Payload { json: r#"{"token":"hunter2"}"#.into(), attachments: Vec::new() };
    let (payload, packet) = (ConnectPayload::new(Some(auth.clone())), PacketBody::Connect(Some(auth)));
    let shown = format!("{payload:?} {packet:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
