//! A connection that changes its transport while it lives, through a relay that blocks UDP and makes TCP slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imks::client::{ClientEvent, Events, Racing, Socket, Tls, TransportKind};
use imks::engine;
use tokio_util::task::TaskTracker;

use crate::application::Application;
use crate::racing::racing;
use crate::relay::Relay;
use crate::tls::with_tls;
use crate::{Via, builder, hears, until, within};

const QUIC: TransportKind = TransportKind::WebTransport;
const WEBSOCKET: TransportKind = TransportKind::WebSocket;

/// Rules that find a better transport within a second.
fn quick() -> Racing {
    Racing::default().interval(Duration::from_millis(100)).probes(1)
}

async fn with_a_quick_heart() -> (Application, Relay) {
    let heartbeat = Duration::from_millis(300);
    server(engine::Config { ping_interval: heartbeat, ping_timeout: heartbeat, ..engine::Config::default() })
        .await
}

async fn server(config: engine::Config) -> (Application, Relay) {
    let server = with_tls(config).await.0;
    let relay = Relay::start(server.address).await;
    (server, relay)
}

/// Somebody who says, asks and sends, one after the other, until it is enough. Returns how often.
async fn talk(socket: Socket, is_enough: Arc<AtomicBool>) -> u32 {
    let mut number = 0;
    while !is_enough.load(Ordering::SeqCst) {
        socket.emit("echo", &number).await.unwrap();
        let sum: u32 = socket.ask("add", &(number, 1)).await.unwrap();
        assert_eq!(sum, number + 1);
        drop(socket.send("remember", &format!("{number}")).await.unwrap());
        number += 1;
    }
    number
}

async fn switched_to(events: &mut Events, wanted: TransportKind) {
    let switched = hears(events, |event| matches!(event, ClientEvent::TransportSwitched { .. })).await;
    assert!(
        matches!(switched, ClientEvent::TransportSwitched { transport } if transport == wanted),
        "{switched:?}"
    );
    let joined = hears(events, |event| matches!(event, ClientEvent::Joined { .. })).await;
    assert!(matches!(joined, ClientEvent::Joined { recovered: true, .. }), "{joined:?}");
}

#[tokio::test]
async fn a_session_moves_to_the_better_transport_and_nothing_is_lost_doubled_or_out_of_order() {
    let (server, relay) = server(engine::Config::default()).await;
    relay.block_udp();
    relay.slow_tcp(Duration::from_millis(200));
    let client = racing(&relay, quick()).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<u32>("echoed");
    let reading = TaskTracker::new().spawn(async move {
        let mut all = Vec::new();
        while let Some(number) = echoed.next().await {
            let number = number.unwrap();
            if number == u32::MAX {
                break;
            }
            all.push(number);
        }
        all
    });
    within(socket.connect()).await.unwrap();
    let is_enough = Arc::new(AtomicBool::new(false));
    let talking = TaskTracker::new().spawn(talk(socket.clone(), is_enough.clone()));
    until(|| client.is_available(QUIC) == Some(false)).await;
    assert_eq!(client.stats().transport, Some(WEBSOCKET));

    relay.let_udp_through();
    switched_to(&mut events, QUIC).await;
    let transport: String = within(socket.ask("transport", &()).into_future()).await.unwrap();
    assert_eq!((&*transport, client.stats().transport), ("webtransport", Some(QUIC)));
    until(|| server.ours.as_ref().unwrap().engine().sessions() == 1).await;
    let here: usize = within(socket.ask("how many", &()).into_future()).await.unwrap();
    assert_eq!(here, 1, "nobody is there twice");

    is_enough.store(true, Ordering::SeqCst);
    let count = within(talking).await.unwrap();
    socket.emit("echo", &u32::MAX).await.unwrap();
    let all: Vec<u32> = (0..count).collect();
    assert_eq!(within(reading).await.unwrap(), all);
    until(|| client.waiting().events == 0).await;
    let remembered: Vec<String> = within(socket.ask("remembered", &()).into_future()).await.unwrap();
    let wanted: Vec<String> = all.iter().map(u32::to_string).collect();
    assert_eq!(remembered, wanted);
    let stats = client.stats();
    assert_eq!((stats.disconnects, stats.errors), (0, 0), "it was no loss");
}

#[tokio::test]
async fn a_session_moves_from_polling_too() {
    let (server, relay) = server(engine::Config::default()).await;
    relay.block_udp();
    let rules = quick().weight(WEBSOCKET, 0.0).weight(TransportKind::Polling, 0.001);
    let client = racing(&relay, rules).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<u32>("echoed");
    within(socket.connect()).await.unwrap();
    until(|| client.is_available(QUIC) == Some(false)).await;
    assert_eq!(client.stats().transport, Some(TransportKind::Polling));
    socket.emit("echo", &1).await.unwrap();
    assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 1);

    relay.let_udp_through();
    switched_to(&mut events, QUIC).await;
    socket.emit("echo", &2).await.unwrap();
    assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 2);
    until(|| server.ours.as_ref().unwrap().engine().sessions() == 1).await;
    assert_eq!(client.stats().disconnects, 0);
}

#[tokio::test]
async fn where_udp_is_blocked_later_the_client_falls_back_and_returns_only_by_the_rule() {
    let (_server, relay) = with_a_quick_heart().await;
    relay.slow_tcp(Duration::from_secs(2));
    let client = racing(&relay, quick()).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<u32>("echoed");
    within(socket.connect()).await.unwrap();
    assert_eq!(client.stats().transport, Some(QUIC));
    socket.emit("echo", &1).await.unwrap();
    assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 1);

    relay.slow_tcp(Duration::ZERO);
    relay.block_udp();
    let back = |event: &ClientEvent| {
        matches!(event, ClientEvent::Reconnected { .. } | ClientEvent::TransportSwitched { .. })
    };
    // Measurements may notice before the heartbeat does.
    let came_back = hears(&mut events, back).await;
    assert!(
        matches!(
            came_back,
            ClientEvent::Reconnected { transport } | ClientEvent::TransportSwitched { transport }
                if transport == WEBSOCKET
        ),
        "{came_back:?}"
    );
    let joined = hears(&mut events, |event| matches!(event, ClientEvent::Joined { .. })).await;
    assert!(matches!(joined, ClientEvent::Joined { recovered: true, .. }), "{joined:?}");
    assert_eq!(client.best_protocol(), Some(WEBSOCKET));

    relay.let_udp_through();
    relay.slow_tcp(Duration::from_millis(500));
    switched_to(&mut events, QUIC).await;
    let metrics = client.protocol_metrics();
    assert!(metrics[&QUIC].score > metrics[&WEBSOCKET].score * 1.2, "{metrics:?}");
}

#[tokio::test]
async fn a_transport_stays_where_the_server_has_not_shown_that_it_restores_sessions() {
    let (_server, relay) = server(engine::Config::default()).await;
    relay.block_udp();
    relay.slow_tcp(Duration::from_millis(200));
    let client = racing(&relay, quick()).build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    until(|| client.is_available(QUIC) == Some(false)).await;
    relay.let_udp_through();
    until(|| client.best_protocol() == Some(QUIC)).await;
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    assert_eq!(client.stats().transport, Some(WEBSOCKET), "no event has come with an offset");

    let mut events = client.events();
    let mut echoed = socket.stream::<u32>("echoed");
    socket.emit("echo", &1).await.unwrap();
    assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 1);
    switched_to(&mut events, QUIC).await;
}

#[tokio::test]
async fn the_server_knows_the_round_trip_after_the_first_heartbeat() {
    let (server, _relay) = with_a_quick_heart().await;
    let url = format!("https://{}", server.address);
    for via in [Via::WebSocket, Via::WebTransport, Via::Polling] {
        let client = builder(&url, via).tls(Tls::new().danger_accept_invalid_certs()).build().unwrap();
        let mut events = client.events();
        let socket = within(client.namespace("/")).await.unwrap();
        let before: Option<u64> = within(socket.ask("rtt", &()).into_future()).await.unwrap();
        assert_eq!(before, None, "{via:?}");
        hears(&mut events, |event| matches!(event, ClientEvent::Heartbeat { .. })).await;
        // The pong leaves before the question.
        let rtt: Option<u64> = within(socket.ask("rtt", &()).into_future()).await.unwrap();
        assert!(rtt.is_some(), "{via:?}");
    }
}
