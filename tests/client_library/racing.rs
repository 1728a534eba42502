//! Transports that race to the server: TCP may be slow, UDP may be blocked, and both may be.

use std::time::Duration;

use imks::client::{
    Client, ClientBuilder, ClientError, ClientEvent, DisconnectReason, Racing, Tls, TransportKind, Transports,
};
use imks::engine;
use tokio::time::Instant;

use crate::application::Application;
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::tls::with_tls;
use crate::{Via, builder, hears, until, within};

const QUIC: TransportKind = TransportKind::WebTransport;
/// Long enough that a busy machine does not hide it.
const HEAD_START: Duration = Duration::from_secs(1);

/// A client that lets transports race and loses no time.
pub(crate) fn racing(relay: &Relay, racing: Racing) -> ClientBuilder {
    let builder = builder(&relay.secure_url(), Via::WebTransport).transports(Transports::racing(racing));
    builder.tls(Tls::new().danger_accept_invalid_certs())
}

async fn with_a_quick_heart() -> Application {
    let heartbeat = Duration::from_millis(300);
    let config =
        engine::Config { ping_interval: heartbeat, ping_timeout: heartbeat, ..engine::Config::default() };
    with_tls(config).await.0
}

/// A client that has come over QUIC, because TCP was slow at first.
async fn over_quic(relay: &Relay, rules: Racing) -> Client {
    relay.slow_tcp(Duration::from_secs(2));
    let client = racing(relay, rules).build().unwrap();
    within(client.namespace("/")).await.unwrap();
    assert_eq!((client.stats().transport, client.best_protocol()), (Some(QUIC), Some(QUIC)));
    client
}

#[tokio::test]
async fn where_tcp_is_slow_quic_wins_and_the_loser_begins_no_session() {
    let server = with_a_quick_heart().await;
    let relay = Relay::start(server.address).await;
    let begun = Instant::now();
    let client = over_quic(&relay, Racing::default()).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(relay.connections(), 1, "TCP has tried");
    assert_eq!(client.stats().transports.len(), 1, "a race that is not over for TCP is no failure of it");
    assert_eq!(server.ours.as_ref().unwrap().engine().sessions(), 1);
    // The connection of the loser is gone, and nothing has come on it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.ours.as_ref().unwrap().engine().sessions(), 1);
    let metrics = client.protocol_metrics();
    assert_eq!((metrics[&QUIC].success_rate, client.is_available(QUIC)), (1.0, Some(true)));
    assert_eq!(client.is_available(TransportKind::WebSocket), None);
}

#[tokio::test]
async fn quic_without_http3_takes_part_where_the_client_was_told_of_it_and_others_follow_where_it_is_blocked()
{
    const RAW: TransportKind = TransportKind::Quic;
    let server = with_a_quick_heart().await;
    let relay = Relay::between(server.address, server.quic.unwrap()).await;
    relay.slow_tcp(Duration::from_secs(2));
    let rules = Racing::default().weight(QUIC, 0.0).weight(RAW, 0.7);
    let client = racing(&relay, rules).quic_0rtt(true).build().unwrap();
    let mut events = client.events();
    within(client.namespace("/")).await.unwrap();
    assert_eq!((client.stats().transport, client.best_protocol()), (Some(RAW), Some(RAW)));
    relay.slow_tcp(Duration::ZERO);
    relay.block_udp();
    hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
    assert_eq!(client.stats().transport, Some(TransportKind::WebSocket));
    assert_eq!(client.stats().early_connects, 0, "a race is one of handshakes");
}

#[tokio::test]
async fn where_udp_is_blocked_a_websocket_follows_after_the_head_start() {
    let server = with_a_quick_heart().await;
    let relay = Relay::start(server.address).await;
    let client = over_quic(&relay, Racing::default().head_start(HEAD_START)).await;
    relay.slow_tcp(Duration::ZERO);
    let mut events = client.events();
    relay.block_udp();
    hears(&mut events, |event| matches!(event, ClientEvent::Reconnecting { .. })).await;
    let begun = Instant::now();
    let back = hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
    let (took, transport) = (begun.elapsed(), TransportKind::WebSocket);
    assert!(matches!(back, ClientEvent::Reconnected { transport: it } if it == transport), "{back:?}");
    assert!((HEAD_START..HEAD_START + Duration::from_secs(1)).contains(&took), "{took:?}");
    let joined = hears(&mut events, |event| matches!(event, ClientEvent::Joined { .. })).await;
    assert!(matches!(joined, ClientEvent::Joined { recovered: true, .. }), "{joined:?}");
    assert_eq!(client.best_protocol(), Some(transport), "who wins begins the next race");
    relay.cut();
    hears(&mut events, |event| matches!(event, ClientEvent::Reconnecting { .. })).await;
    let begun = Instant::now();
    hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
    assert!(begun.elapsed() < HEAD_START, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn whoever_reaches_nobody_learns_the_cause_of_each_transport_of_the_race() {
    let server = with_a_quick_heart().await;
    let relay = Relay::start(server.address).await;
    relay.close();
    let rules = Racing::default().timeout(Duration::from_millis(500));
    for (rules, causes) in [(rules.clone(), 3), (rules.without_fallback(), 2)] {
        let Err(ClientError::NoTransport(failures)) = within(racing(&relay, rules).connect()).await else {
            panic!("the relay is closed")
        };
        assert_eq!(failures.len(), causes, "{failures:?}");
        assert!(failures.iter().any(|failure| matches!(failure, ClientError::Timeout(_))), "{failures:?}");
    }
}

#[tokio::test]
async fn where_a_websocket_is_reached_and_refused_polling_carries_the_session() {
    let (server, _) = with_tls(engine::Config { websocket: false, ..engine::Config::default() }).await;
    let relay = Relay::start(server.address).await;
    relay.block_udp();
    let rules = Racing::default().timeout(Duration::from_millis(500));
    let client = racing(&relay, rules).build().unwrap();
    within(client.namespace("/")).await.unwrap();
    assert_eq!(client.stats().transport, Some(TransportKind::Polling));
    assert_eq!(client.best_protocol(), None, "polling does not race");
    assert_eq!(client.is_available(TransportKind::WebSocket), Some(false));
}

#[tokio::test]
async fn measurements_find_a_better_transport_and_the_session_does_not_notice() {
    let server = with_a_quick_heart().await;
    let relay = Relay::start(server.address).await;
    relay.block_udp();
    relay.slow_tcp(Duration::from_millis(200));
    let rules = Racing::default().interval(Duration::from_millis(100)).probes(1);
    let client = racing(&relay, rules).build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    until(|| client.is_available(QUIC) == Some(false)).await;
    assert_eq!(client.best_protocol(), Some(TransportKind::WebSocket));
    relay.let_udp_through();
    // It has to be better twice in a row.
    until(|| client.best_protocol() == Some(QUIC)).await;
    let metrics = client.protocol_metrics();
    assert!(metrics[&QUIC].score > metrics[&TransportKind::WebSocket].score, "{metrics:?}");
    assert_eq!(client.stats().connects, 1);
    assert_eq!(server.ours.as_ref().unwrap().engine().sessions(), 1);
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    relay.cut();
    let back = hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
    assert!(matches!(back, ClientEvent::Reconnected { transport } if transport == QUIC), "{back:?}");
}

#[tokio::test]
async fn a_server_that_measurements_reach_may_have_lost_the_connection() {
    let server = with_a_quick_heart().await;
    let proxy = Proxy::start(server.address).await;
    let url = proxy.url().replace("http:", "https:");
    let rules = Racing::default().weight(QUIC, 0.0).interval(Duration::from_millis(100));
    let client = builder(&url, Via::WebTransport).transports(Transports::racing(rules)).build().unwrap();
    let mut events = client.events();
    within(client.namespace("/")).await.unwrap();
    proxy.silence();
    let lost = hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
    assert!(
        matches!(lost, ClientEvent::Disconnected { reason: DisconnectReason::HeartbeatTimeout }),
        "{lost:?}"
    );
}
