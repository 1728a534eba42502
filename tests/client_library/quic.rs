//! QUIC without HTTP/3: sessions directly on a connection, what they are refused with, and how they move.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use imks::client::{Client, ClientBuilder, ClientError, ClientEvent, Socket};
use imks::engine;
use imks::http::webtransport;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use wtransport::quinn::crypto::rustls::QuicClientConfig;
use wtransport::quinn::{ClientConfig, Connecting, Connection, Endpoint, RecvStream, SendStream};

use crate::application::{Application, Kind};
use crate::relay::Relay;
use crate::tls::settings;
use crate::{Via, builder, hears, until, within};

fn over_quic(server: &Application) -> ClientBuilder {
    builder(&server.url(), Via::Quic).quic_port(server.quic.unwrap().port())
}

/// The text of an error with those of its causes.
fn words(error: &ClientError) -> String {
    let mut cause = Some(error as &dyn std::error::Error);
    let causes = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this.to_string())
    });
    causes.collect::<Vec<_>>().join(": ")
}

async fn sum(socket: &Socket, a: i64, b: i64) -> i64 {
    within(socket.ask::<i64>("add", &(a, b)).into_future()).await.unwrap()
}

#[tokio::test]
async fn the_server_knows_that_a_session_is_on_quic() {
    let server = Application::start(Kind::Imks).await;
    let client = within(over_quic(&server).connect()).await.unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!(within(socket.ask::<String>("transport", &()).into_future()).await.unwrap(), "quic");
}

#[tokio::test]
async fn an_address_of_quic_means_quic_and_nothing_else() {
    let server = Application::start(Kind::Imks).await;
    let url = format!("quic://{}", server.quic.unwrap());
    let tls = imks::client::Tls::new().danger_accept_invalid_certs();
    let client = within(Client::builder(&url).tls(tls).connect()).await.unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!(within(socket.ask::<String>("transport", &()).into_future()).await.unwrap(), "quic");
}

#[tokio::test]
async fn who_offers_other_protocols_than_the_server_speaks_is_told_so_in_words() {
    let server = Application::start(Kind::Imks).await;
    let refused = within(over_quic(&server).quic_alpn(["chat/7"]).connect()).await.unwrap_err();
    assert!(matches!(refused, ClientError::Tls(_)) && !refused.is_retryable(), "{refused:?}");
    let words = words(&refused);
    assert!(words.contains("no_application_protocol") && words.contains("ALPN"), "{words}");
    within(over_quic(&server).quic_alpn(["chat/7", "imks/1"]).connect()).await.unwrap();
}

#[tokio::test]
async fn headers_and_query_reach_the_application_which_may_refuse_in_words() {
    let mut config = engine::Config::default();
    config.hooks.allow_request = Some(Arc::new(|parts| {
        let is_known = parts.headers.get("x-key").is_some_and(|key| key == "one, two");
        let is_asked = parts.uri.query().is_some_and(|query| query.contains("who=me"));
        Box::pin(async move { if is_known && is_asked { Ok(()) } else { Err("no key".to_owned()) } })
    }));
    let server = Application::imks(config).await;
    let keyed = |client: ClientBuilder| client.header("x-key", "one").header("x-key", "two");
    within(keyed(over_quic(&server)).query("who", "me").connect()).await.unwrap();
    for refused in [over_quic(&server).query("who", "me"), keyed(over_quic(&server))] {
        let refused = words(&within(refused.connect()).await.unwrap_err());
        assert!(refused.contains("no key"), "{refused}");
    }
    until(|| server.ours.as_ref().unwrap().engine().sessions() == 0).await;
}

#[tokio::test]
async fn a_path_that_nobody_serves_is_refused_in_words() {
    let server = Application::start(Kind::Imks).await;
    let url = format!("{}/elsewhere/", server.url());
    let elsewhere = builder(&url, Via::Quic).quic_port(server.quic.unwrap().port());
    let refused = words(&within(elsewhere.connect()).await.unwrap_err());
    assert!(refused.contains("Transport unknown"), "{refused}");
}

#[tokio::test]
async fn a_server_that_closes_lets_clients_know() {
    let server = Application::start(Kind::Imks).await;
    let client = within(over_quic(&server).connect()).await.unwrap();
    let mut events = client.events();
    within(client.namespace("/")).await.unwrap();
    within(server.ours.as_ref().unwrap().close()).await;
    hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
}

#[tokio::test]
async fn from_one_address_come_only_so_many_connections() {
    let limits = webtransport::Config { connections_per_address_max: 2, ..webtransport::Config::default() };
    let server = Application::limited(limits).await;
    let first = within(over_quic(&server).connect()).await.unwrap();
    // From half of the limit on, a client has to prove its address.
    let second = within(over_quic(&server).connect()).await.unwrap();
    let refused = within(over_quic(&server).connect()).await;
    assert!(matches!(refused, Err(ClientError::ConnectionFailed { .. })), "{refused:?}");
    within(first.close()).await;
    until(|| sessions(&server) == 1).await;
    within(async { while over_quic(&server).connect().await.is_err() {} }).await;
    assert!(second.is_connected());
}

/// A client whose address changes in the middle of a stream of events, by `moves`.
async fn a_client_that_moves_misses_nothing(via: Via, moves: impl AsyncFn(&Client, &Relay)) {
    let server = Application::start(Kind::Imks).await;
    let udp = if via == Via::Quic { server.quic.unwrap() } else { server.address };
    let relay = Relay::between(server.address, udp).await;
    let client = builder(&relay.url(), via).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut shouted = socket.stream::<String>("shouted");
    within(socket.connect()).await.unwrap();
    within(socket.ask::<Option<()>>("join", &("room",)).into_future()).await.unwrap();
    let other = builder(&server.url(), Via::WebSocket).build().unwrap();
    let other = within(other.namespace("/")).await.unwrap();
    for round in 0..5 {
        for number in 0..20 {
            if number == 10 {
                moves(&client, &relay).await;
                // A server that has heard nothing from the new address keeps to the old one.
                assert_eq!(sum(&socket, round, 1).await, round + 1);
            }
            other.emit_args("shout", &("room", format!("{round}.{number}"))).await.unwrap();
        }
        for number in 0..20 {
            assert_eq!(within(shouted.next()).await.unwrap().unwrap(), format!("{round}.{number}"));
        }
    }
    let stats = client.stats();
    assert_eq!((stats.connects, stats.disconnects, stats.recoveries), (1, 0, 0));
    assert_eq!(server.ours.as_ref().unwrap().engine().sessions(), 2, "one of each client");
}

#[tokio::test]
async fn a_session_on_quic_survives_a_router_that_forgets_its_address() {
    a_client_that_moves_misses_nothing(Via::Quic, async |_, relay| relay.change_path()).await;
}

#[tokio::test]
async fn a_session_on_webtransport_survives_a_router_that_forgets_its_address() {
    a_client_that_moves_misses_nothing(Via::WebTransport, async |_, relay| relay.change_path()).await;
}

#[tokio::test]
async fn a_session_on_quic_survives_a_move_to_another_network() {
    a_client_that_moves_misses_nothing(Via::Quic, async |client, _| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        within(client.rebind(socket)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_cannot_move_says_so() {
    let server = Application::start(Kind::Imks).await;
    for via in [Via::WebSocket, Via::Polling, Via::WebTransport] {
        let client = within(builder(&server.url(), via).connect()).await.unwrap();
        let moved = within(client.rebind(UdpSocket::bind("127.0.0.1:0").unwrap())).await;
        assert!(matches!(moved, Err(ClientError::Config(_))), "{via:?}: {moved:?}");
    }
    let client = over_quic(&server).build().unwrap();
    assert!(within(client.rebind(UdpSocket::bind("127.0.0.1:0").unwrap())).await.is_err(), "not connected");
    within(client.connect()).await.unwrap();
    until(|| client.is_connected()).await;
}

/// How long a server waits for the end of a handshake that never comes.
const HANDSHAKE: Duration = Duration::from_secs(3);

fn sessions(server: &Application) -> usize {
    server.ours.as_ref().unwrap().engine().sessions()
}

/// Connects a client once more that has left before.
async fn comes_back(client: &Client) -> Socket {
    within(client.close()).await;
    within(client.namespace("/")).await.unwrap()
}

#[tokio::test]
async fn a_client_that_comes_back_begins_its_session_with_the_handshake() {
    let (tls, _, _folder) = settings();
    let server = Application::early(tls, HANDSHAKE).await;
    let client = over_quic(&server).quic_0rtt(true).auth_token("old").build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!((sum(&socket, 1, 1).await, client.stats().early_connects), (2, 0));
    for times in 1..=3 {
        let socket = comes_back(&client).await;
        assert_eq!((sum(&socket, times, 1).await, client.stats().early_connects), (times + 1, times as u64));
        let nonce = format!("once {times}");
        let kept = socket.ask::<String>("remember", &(&nonce,)).into_future();
        assert_eq!(within(kept).await.unwrap(), nonce);
    }
    until(|| sessions(&server) == 1).await;
}

#[tokio::test]
async fn who_does_not_ask_for_it_or_meets_a_server_that_does_not_allow_it_needs_a_handshake_first() {
    let (tls, _, _folder) = settings();
    let allows = Application::early(tls, HANDSHAKE).await;
    let forbids = Application::start(Kind::Imks).await;
    for (server, asks) in [(&allows, false), (&forbids, true)] {
        let client = over_quic(server).quic_0rtt(asks).build().unwrap();
        let socket = within(client.namespace("/")).await.unwrap();
        assert_eq!(sum(&socket, 1, 1).await, 2);
        let socket = comes_back(&client).await;
        assert_eq!((sum(&socket, 1, 1).await, client.stats().early_connects), (2, 0));
    }
}

#[tokio::test]
async fn a_server_that_has_forgotten_a_client_is_met_with_a_handshake_and_nothing_is_doubled() {
    let (tls, _, _folder) = settings();
    let servers =
        [Application::early(tls.clone(), HANDSHAKE).await, Application::early(tls, HANDSHAKE).await];
    let relay = Relay::between(servers[0].address, servers[0].quic.unwrap()).await;
    let client = builder(&relay.url(), Via::Quic).quic_0rtt(true).build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!(sum(&socket, 1, 1).await, 2);
    relay.lead_to(servers[1].quic.unwrap());
    let socket = comes_back(&client).await;
    assert_eq!(sum(&socket, 1, 1).await, 2);
    let stats = client.stats();
    assert_eq!((stats.early_connects, stats.connects, stats.errors), (0, 2, 0));
    assert_eq!(
        (sessions(&servers[1]), within(socket.ask::<u32>("how many", &()).into_future()).await.unwrap()),
        (1, 1)
    );
    // Its tickets are good for the next time.
    let socket = comes_back(&client).await;
    assert_eq!((sum(&socket, 1, 1).await, client.stats().early_connects), (2, 1));
    for _ in 0..3 {
        hears(&mut events, |event| matches!(event, ClientEvent::Joined { .. })).await;
    }
}

/// A client without manners: it sends what it likes, when it likes.
struct Rude {
    endpoint: Endpoint,
    config: ClientConfig,
    relay: Relay,
}

impl Rude {
    fn new(certificate: &rustls::pki_types::CertificateDer<'static>, relay: Relay) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"imks/1".to_vec()];
        tls.enable_early_data = true;
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        Self { endpoint, config, relay }
    }

    fn connect(&self) -> Connecting {
        self.endpoint.connect_with(self.config.clone(), self.relay.address(), "localhost").unwrap()
    }

    /// Connects until it has a ticket, and leaves.
    async fn get_ticket(&self) {
        let connection = within(self.connect()).await.unwrap();
        let (mut sending, mut receiving) = connection.open_bi().await.unwrap();
        say(&mut sending, &["0"]).await;
        // The tickets come before the first packet of the session.
        within(receiving.read_exact(&mut [0; 1])).await.unwrap();
        connection.close(1000_u32.into(), b"");
    }
}

/// Sends short packets.
async fn say(sending: &mut SendStream, packets: &[&str]) {
    for packet in packets {
        sending.write_all(&[&[packet.len() as u8], packet.as_bytes()].concat()).await.unwrap();
    }
}

/// A server on which sessions begin early, somebody who has been there, and somebody who asks what has happened.
async fn somebody_who_was_here() -> (Application, Rude, Client, Socket) {
    let (tls, made, _folder) = settings();
    let server = Application::early(tls, HANDSHAKE).await;
    let relay = Relay::between(server.address, server.quic.unwrap()).await;
    let rude = Rude::new(made.cert.der(), relay);
    rude.get_ticket().await;
    until(|| sessions(&server) == 0).await;
    let other = builder(&server.url().replace("http:", "https:"), Via::WebSocket);
    let other = other.tls(imks::client::Tls::new().danger_accept_invalid_certs()).build().unwrap();
    let socket = within(other.namespace("/")).await.unwrap();
    (server, rude, other, socket)
}

async fn remembered(asks: &Socket) -> Vec<String> {
    within(asks.ask::<Vec<String>>("remembered", &()).into_future()).await.unwrap()
}

async fn how_many(asks: &Socket) -> u32 {
    within(asks.ask::<u32>("how many", &()).into_future()).await.unwrap()
}

const FLIGHT: [&str; 3] = ["0", "40", r#"42["remember","x"]"#];

#[tokio::test]
async fn an_event_that_comes_before_the_end_of_the_handshake_waits_for_it_and_is_handled_once() {
    let (server, rude, _other, asks) = somebody_who_was_here().await;
    rude.relay.mute_server(true);
    rude.relay.recorded();
    let (connection, accepted) = rude.connect().into_0rtt().unwrap_or_else(|_| panic!("there is no ticket"));
    let (mut sending, _receiving) = connection.open_bi().await.unwrap();
    say(&mut sending, &FLIGHT).await;
    until(|| sessions(&server) == 2).await;
    while how_many(&asks).await < 2 {}
    for _ in 0..20 {
        assert_eq!(remembered(&asks).await, Vec::<String>::new());
    }
    let flight = rude.relay.recorded();
    rude.relay.mute_server(false);
    assert!(within(accepted).await);
    while remembered(&asks).await != ["x"] {}
    connection.close(1000_u32.into(), b"");
    until(|| sessions(&server) == 1).await;

    // Whoever sends the same again is sent away: the ticket was good for one use.
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    within(async {
        loop {
            for datagram in &flight {
                socket.send_to(datagram, server.quic.unwrap()).await.unwrap();
            }
            // For a moment the server takes them for late packets of the connection that has just ended.
            let mut answer = [0; 2_048];
            let answered = socket.recv_from(&mut answer);
            if tokio::time::timeout(Duration::from_millis(200), answered).await.is_ok() {
                return;
            }
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!((how_many(&asks).await, remembered(&asks).await), (1, vec!["x".to_owned()]));
        assert_eq!(sessions(&server), 1);
    }
}

#[tokio::test]
async fn an_event_that_comes_before_a_handshake_that_is_broken_off_is_not_handled() {
    let (server, rude, _other, asks) = somebody_who_was_here().await;
    rude.relay.mute_server(true);
    let (connection, _accepted) = rude.connect().into_0rtt().unwrap_or_else(|_| panic!("there is no ticket"));
    let (mut sending, _receiving) = connection.open_bi().await.unwrap();
    say(&mut sending, &FLIGHT).await;
    until(|| sessions(&server) == 2).await;
    while how_many(&asks).await < 2 {}
    // Its packets need no keys but those that everybody has.
    connection.close(0_u32.into(), b"");
    until(|| sessions(&server) == 1).await;
    assert_eq!((how_many(&asks).await, remembered(&asks).await), (1, Vec::<String>::new()));
}

/// What somebody sends who begins a session before the end of a handshake, and the connection that it belongs to.
struct Flight {
    datagrams: Vec<Vec<u8>>,
    connection: Connection,
    _stream: (SendStream, RecvStream),
}

/// Begins a session, of which nothing reaches the server.
async fn kept_from_the_server(rude: &Rude) -> Flight {
    rude.relay.block_udp();
    rude.relay.recorded();
    let (connection, _accepted) = rude.connect().into_0rtt().unwrap_or_else(|_| panic!("there is no ticket"));
    let (mut sending, receiving) = connection.open_bi().await.unwrap();
    say(&mut sending, &FLIGHT).await;
    let mut datagrams = Vec::new();
    let is_whole = |datagrams: &[Vec<u8>]| {
        let sent = connection.stats();
        sent.frame_tx.stream > 0 && datagrams.len() as u64 >= sent.udp_tx.datagrams
    };
    while !is_whole(&datagrams) {
        tokio::task::yield_now().await;
        datagrams.extend(rude.relay.recorded());
    }
    Flight { datagrams, connection, _stream: (sending, receiving) }
}

/// Sends datagrams from an address of its own.
async fn send_copies(server: &Application, datagrams: &[Vec<u8>]) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in datagrams {
        socket.send_to(datagram, server.quic.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_flight_that_somebody_else_sends_opens_a_session_that_ends_by_itself_and_does_nothing() {
    let (server, rude, _other, asks) = somebody_who_was_here().await;
    let flight = kept_from_the_server(&rude).await;
    send_copies(&server, &flight.datagrams).await;
    until(|| sessions(&server) == 2).await;
    while how_many(&asks).await < 2 {}
    until(|| sessions(&server) == 1).await;
    assert_eq!((how_many(&asks).await, remembered(&asks).await), (1, Vec::<String>::new()));
}

#[tokio::test]
async fn a_flight_that_ends_with_a_close_does_nothing_although_its_handshake_is_over_when_it_is_read() {
    let (server, rude, _other, asks) = somebody_who_was_here().await;
    let mut flight = kept_from_the_server(&rude).await;
    let before = flight.datagrams.len();
    flight.connection.close(0_u32.into(), b"");
    while flight.datagrams.len() == before {
        tokio::task::yield_now().await;
        flight.datagrams.extend(rude.relay.recorded());
    }
    send_copies(&server, &flight.datagrams).await;
    for _ in 0..100 {
        assert_eq!(remembered(&asks).await, Vec::<String>::new());
    }
    until(|| sessions(&server) == 1).await;
    assert_eq!((how_many(&asks).await, remembered(&asks).await), (1, Vec::<String>::new()));
}

/// What comes first on a slow network: an event, or a large answer that was asked for before it.
async fn first_on_a_slow_network(has_bulk: bool) -> &'static str {
    let server = Application::start(Kind::Imks).await;
    let relay = Relay::between(server.address, server.quic.unwrap()).await;
    let client = builder(&relay.url(), Via::Quic).quic_bulk(has_bulk).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut shouted = socket.stream::<String>("shouted");
    within(socket.connect()).await.unwrap();
    within(socket.ask::<Option<()>>("join", &("room",)).into_future()).await.unwrap();
    let other = builder(&server.url(), Via::WebSocket).build().unwrap();
    let other = within(other.namespace("/")).await.unwrap();
    // About 300 KB in a second.
    relay.throttle(Duration::from_millis(4));
    let before = relay.carried();
    let asking = socket.ask::<String>("long", &(1_000_000,)).timeout(Duration::from_secs(20));
    let mut asking = Box::pin(within(asking.into_future()));
    let shouting = async {
        until(|| relay.carried() > before + 50_000).await;
        other.emit_args("shout", &("room", "news")).await.unwrap();
        within(shouted.next()).await.unwrap().unwrap()
    };
    let mut shouting = Box::pin(shouting);
    tokio::select! {
        // Both can come with one datagram.
        biased;
        answer = &mut asking => {
            assert_eq!((answer.unwrap().len(), shouting.await), (1_000_000, "news".into()));
            "answer"
        }
        news = &mut shouting => {
            assert_eq!((news, asking.await.unwrap().len()), ("news".into(), 1_000_000));
            "event"
        }
    }
}

#[tokio::test]
async fn an_event_does_not_wait_behind_a_large_answer_on_a_second_stream() {
    assert_eq!(first_on_a_slow_network(true).await, "event");
}

#[tokio::test]
async fn without_a_second_stream_an_event_waits_for_what_was_sent_before_it() {
    assert_eq!(first_on_a_slow_network(false).await, "answer");
}

#[tokio::test]
async fn large_answers_and_small_ones_on_two_streams_all_arrive_whole() {
    let server = Application::start(Kind::Imks).await;
    let client = over_quic(&server).quic_bulk(true).build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    let large = async |bytes: usize| {
        let answer = within(socket.ask::<String>("long", &(bytes,)).into_future()).await.unwrap();
        assert_eq!(answer.len(), bytes);
    };
    let small = async |number: i64| assert_eq!(sum(&socket, number, 1).await, number + 1);
    tokio::join!(join_all((0..8).map(|more| large(400_000 + more))), join_all((0..200).map(small)));
    within(client.close()).await;
    until(|| sessions(&server) == 0).await;
}
