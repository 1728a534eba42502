//! How connections begin, break and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use imks::client::{
    Binary, Client, ClientError, ClientEvent, DisconnectReason, Overflow, Retry, Status, TransportKind,
    Transports,
};
use imks::engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::task::TaskTracker;

use crate::application::{Application, Kind};
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::{Via, builder, hears, until, within};

/// Cuts a client off in the middle of a stream of events.
async fn a_client_that_is_cut_off_misses_nothing(kind: Kind, via: Via) {
    a_client_misses_nothing_of(Application::start(kind).await, via).await;
}

async fn a_client_misses_nothing_of(server: Application, via: Via) {
    let udp = if via == Via::Quic { server.quic.unwrap() } else { server.address };
    let relay = Relay::between(server.address, udp).await;
    let client = builder(&relay.url(), via).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let mut shouted = socket.stream::<String>("shouted");
    within(socket.connect()).await.unwrap();
    within(socket.ask::<Option<()>>("join", &("room",)).into_future()).await.unwrap();

    let other = builder(&server.url(), Via::WebSocket).build().unwrap();
    let other = within(other.namespace("/")).await.unwrap();
    let shout = async |number: u32| other.emit_args("shout", &("room", number.to_string())).await.unwrap();
    shout(0).await;
    assert_eq!(within(shouted.next()).await.unwrap().unwrap(), "0");
    for round in 0..3 {
        // In the middle of an upgrade the server notices no cut before its heartbeat does.
        until(|| client.stats().transport.is_some_and(|it| via.settles_on(it))).await;
        if via == Via::Polling {
            // The server learns of a cut at once only while a poll is under way, and nothing else tells that one is.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        relay.close();
        hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
        // The server may take a moment longer than the client.
        while within(other.ask::<u32>("how many", &()).into_future()).await.unwrap() > 1 {}
        for number in 1..=10 {
            shout(round * 10 + number).await;
        }
        // An answer says that the events before it were handled.
        within(other.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap();
        relay.open();
        let joined = hears(&mut events, |event| matches!(event, ClientEvent::Joined { .. })).await;
        assert!(matches!(joined, ClientEvent::Joined { recovered: true, .. }), "{joined:?}");
        for number in 1..=10 {
            assert_eq!(within(shouted.next()).await.unwrap().unwrap(), (round * 10 + number).to_string());
        }
    }
    assert_eq!(client.stats().recoveries, 3);
}

#[tokio::test]
async fn a_client_of_imks_that_is_cut_off_on_a_websocket_misses_nothing() {
    a_client_that_is_cut_off_misses_nothing(Kind::Imks, Via::WebSocket).await;
}

#[tokio::test]
async fn a_client_of_imks_that_is_cut_off_on_polling_misses_nothing() {
    a_client_that_is_cut_off_misses_nothing(Kind::Imks, Via::Polling).await;
}

#[tokio::test]
async fn a_client_of_imks_that_is_cut_off_after_an_upgrade_misses_nothing() {
    a_client_that_is_cut_off_misses_nothing(Kind::Imks, Via::Upgrade).await;
}

/// imks that notices quickly when nothing comes any more: datagrams have no end.
async fn with_a_quick_heart() -> Application {
    of_a_quick_heart(Kind::Imks).await
}

async fn of_a_quick_heart(kind: Kind) -> Application {
    let heartbeat = Duration::from_millis(300);
    let config =
        engine::Config { ping_interval: heartbeat, ping_timeout: heartbeat, ..engine::Config::default() };
    Application::start_with(kind, config).await
}

#[tokio::test]
async fn a_client_of_imks_that_is_cut_off_on_webtransport_misses_nothing() {
    a_client_misses_nothing_of(with_a_quick_heart().await, Via::WebTransport).await;
}

#[tokio::test]
async fn a_client_of_imks_that_is_cut_off_on_quic_misses_nothing() {
    a_client_misses_nothing_of(with_a_quick_heart().await, Via::Quic).await;
}

#[tokio::test]
async fn a_client_of_imks_that_is_cut_off_after_an_upgrade_to_webtransport_misses_nothing() {
    a_client_misses_nothing_of(with_a_quick_heart().await, Via::UpgradeToWebTransport).await;
}

#[tokio::test]
async fn a_client_of_imks_that_races_and_is_cut_off_misses_nothing() {
    a_client_misses_nothing_of(with_a_quick_heart().await, Via::Racing).await;
}

#[tokio::test]
async fn a_client_of_the_reference_that_is_cut_off_after_an_upgrade_misses_nothing() {
    // It may still be in the middle of the upgrade, when only its heartbeat tells it of a cut.
    a_client_misses_nothing_of(of_a_quick_heart(Kind::Reference).await, Via::Upgrade).await;
}

#[tokio::test]
async fn a_client_of_the_reference_that_is_cut_off_on_a_websocket_misses_nothing() {
    a_client_that_is_cut_off_misses_nothing(Kind::Reference, Via::WebSocket).await;
}

#[tokio::test]
async fn a_client_of_the_reference_that_is_cut_off_on_polling_misses_nothing() {
    a_client_that_is_cut_off_misses_nothing(Kind::Reference, Via::Polling).await;
}

#[tokio::test]
async fn where_no_websocket_gets_through_polling_does() {
    let server = Application::imks(engine::Config { websocket: false, ..engine::Config::default() }).await;
    let client = Client::builder(&server.url()).build().unwrap();
    let mut events = client.events();
    within(client.namespace("/")).await.unwrap();
    let connected = hears(&mut events, |event| matches!(event, ClientEvent::Connected { .. })).await;
    let polling = TransportKind::Polling;
    assert!(matches!(connected, ClientEvent::Connected { transport } if transport == polling));
    let transports = client.stats().transports;
    assert_eq!(transports[&TransportKind::WebSocket].success_rate(), Some(0.0));
    assert_eq!(transports[&polling].success_rate(), Some(1.0));
}

#[tokio::test]
async fn a_client_stays_on_polling_where_the_server_offers_nothing_else() {
    let server =
        Application::imks(engine::Config { allow_upgrades: false, ..engine::Config::default() }).await;
    let client = builder(&server.url(), Via::Upgrade).build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    assert_eq!(client.stats().transports.len(), 1);
}

/// The address of a way to a server that lets no WebSocket through.
async fn without_websockets(target: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tasks = TaskTracker::new();
    TaskTracker::new().spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tasks.spawn(async move {
                let mut head = [0; 256];
                let bytes = client.peek(&mut head).await.unwrap();
                if String::from_utf8_lossy(&head[..bytes]).contains("transport=websocket") {
                    return;
                }
                let mut server = TcpStream::connect(target).await.unwrap();
                // Either side may end it.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn a_client_stays_on_polling_and_says_why_where_its_websocket_does_not_get_through() {
    let server = Application::start(Kind::Imks).await;
    let url = without_websockets(server.address).await;
    let client = builder(&url, Via::Upgrade).build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    let told = hears(&mut events, |event| matches!(event, ClientEvent::Error(_))).await;
    let ClientEvent::Error(ClientError::ConnectionFailed { transport, .. }) = told else {
        panic!("{told:?}")
    };
    assert_eq!(transport, TransportKind::WebSocket.name());
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    assert_eq!(client.stats().transport, Some(TransportKind::Polling));
}

/// A server that has let one client into its root, and does what the test says from then on.
async fn welcoming(listener: TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut websocket = accept_async(stream).await.unwrap();
    let open = r#"0{"sid":"x","upgrades":[],"pingInterval":1000,"pingTimeout":1000}"#;
    websocket.send(Message::text(open)).await.unwrap();
    websocket.next().await.unwrap().unwrap();
    websocket.send(Message::text(r#"40{"sid":"y"}"#)).await.unwrap();
    websocket
}

#[tokio::test]
async fn a_message_that_is_longer_on_its_way_than_a_server_may_be_silent_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = builder(&url, Via::WebSocket).build().unwrap();
    let mut long = client.socket("/").unwrap().stream::<String>("long");
    let joining = async { tokio::join!(welcoming(listener), client.namespace("/")) };
    let (mut server, joined) = within(joining).await;
    joined.unwrap();
    let text = "x".repeat(600);
    let packet = format!(r#"42["long","{text}"]"#);
    let [high, low] = u16::try_from(packet.len()).unwrap().to_be_bytes();
    let frame = [&[0x81, 126, high, low][..], packet.as_bytes()].concat();
    for part in frame.chunks(frame.len().div_ceil(6)) {
        server.get_mut().write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(within(long.next()).await.unwrap().unwrap(), text);
    assert_eq!(client.status(), Status::Connected);
}

#[tokio::test]
async fn a_client_whose_server_takes_nothing_hears_it_all_the_same() {
    for compression in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let builder = builder(&url, Via::WebSocket).compression(compression);
        let client = builder.send_queue(100, 100_000_000, Overflow::Wait).build().unwrap();
        let mut told = client.socket("/").unwrap().stream::<u32>("told");
        let joining = async { tokio::join!(welcoming(listener), client.namespace("/")) };
        let (mut server, joined) = within(joining).await;
        let socket = joined.unwrap();
        // More than the network holds.
        let much = Binary(vec![0; 1_000_000].into());
        for _ in 0..50 {
            socket.emit("much", &much).await.unwrap();
        }
        server.send(Message::text(r#"42["told",7]"#)).await.unwrap();
        assert_eq!(within(told.next()).await.unwrap().unwrap(), 7, "{compression}");
        assert!(client.waiting().events > 0, "the server has taken nothing");
    }
}

#[tokio::test]
async fn a_message_that_is_larger_than_the_client_takes_ends_the_connection() {
    let server = Application::start(Kind::Imks).await;
    for via in [Via::WebSocket, Via::Polling, Via::WebTransport] {
        let client = builder(&server.url(), via).message_bytes_max(1_000).build().unwrap();
        let mut events = client.events();
        let socket = within(client.namespace("/")).await.unwrap();
        socket.emit("echo", &"x".repeat(2_000)).await.unwrap();
        let end = hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
        let ClientEvent::Disconnected { reason } = end else { panic!("{end:?}") };
        let is_told = match via {
            Via::WebTransport => matches!(reason, DisconnectReason::Protocol(_)),
            _ => matches!(reason, DisconnectReason::TransportFailed(_)),
        };
        assert!(is_told, "{reason}");
    }
}

#[tokio::test]
async fn a_client_that_would_wait_for_ever_works_as_any_other() {
    let server = Application::start(Kind::Imks).await;
    let ever = Duration::MAX;
    let builder = builder(&server.url(), Via::WebSocket).connect_timeout(ever).join_timeout(ever);
    let builder = builder.answer_timeout(ever).message_retry(Retry::forever(ever).answer_timeout(ever));
    let client = builder.receive_queue(usize::MAX).build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    assert_eq!(within(socket.ask::<i64>("add", &(1, 2)).timeout(ever).into_future()).await.unwrap(), 3);
    let delivery = within(socket.send("remember", "once")).await.unwrap();
    assert_eq!(within(delivery.acknowledged::<String>()).await.unwrap(), "once");
}

#[tokio::test]
async fn a_listener_that_panics_takes_nothing_from_the_client() {
    let server = Application::start(Kind::Imks).await;
    let builder = builder(&server.url(), Via::WebSocket).on_event(|event| panic!("{event:?}"));
    let client = builder.build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_cookie_of_the_server_goes_with_the_later_requests_of_its_session() {
    let open = r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#;
    let length = open.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: node=7; Path=/\r\nContent-Length: {length}\r\n\r\n{open}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in [&*answer, ""] {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            requests.push(String::from_utf8(request).unwrap().to_lowercase());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    };
    let client = builder(&url, Via::Polling).header("cookie", "mine=1").build().unwrap();
    let (requests, connected) = within(async { tokio::join!(server, client.connect()) }).await;
    connected.unwrap();
    assert!(requests[0].contains("\r\ncookie: mine=1\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("\r\ncookie: mine=1; node=7\r\n"), "{}", requests[1]);
    assert!(requests[1].starts_with("get /socket.io/?eio=4&transport=polling&sid=x "), "{}", requests[1]);
}

#[tokio::test]
async fn whoever_cannot_connect_learns_the_cause_of_each_transport() {
    let nobody = crate::relay_to_nobody().await;
    let Err(ClientError::NoTransport(causes)) = within(Client::builder(&nobody).connect()).await else {
        panic!("nobody listens there")
    };
    assert_eq!(causes.len(), 2);
    let error = within(builder(&nobody, Via::WebSocket).connect()).await.unwrap_err();
    assert!(matches!(error, ClientError::ConnectionFailed { transport: "websocket", .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_client_that_may_retry_its_first_attempt_waits_for_the_server() {
    let server = Application::start(Kind::Imks).await;
    let relay = Relay::start(server.address).await;
    relay.close();
    let client = builder(&relay.url(), Via::WebSocket).retry_initial().build().unwrap();
    let mut events = client.events();
    let (connected, ()) = tokio::join!(within(client.connect()), async {
        hears(&mut events, |event| matches!(event, ClientEvent::Reconnecting { attempt: 3, .. })).await;
        assert_eq!(client.status(), Status::Connecting);
        relay.open();
    });
    connected.unwrap();
    assert!(client.is_connected() && relay.connections() > 2);
}

#[tokio::test]
async fn a_network_that_falls_silent_is_noticed_by_the_missing_heartbeat() {
    let heartbeat = Duration::from_millis(200);
    let config =
        engine::Config { ping_interval: heartbeat, ping_timeout: heartbeat, ..engine::Config::default() };
    let server = Application::imks(config).await;
    for via in [Via::WebSocket, Via::Polling] {
        let proxy = Proxy::start(server.address).await;
        let client = builder(&proxy.url(), via).build().unwrap();
        let mut events = client.events();
        let socket = within(client.namespace("/")).await.unwrap();
        hears(&mut events, |event| matches!(event, ClientEvent::Heartbeat { .. })).await;
        proxy.silence();
        let end = hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
        let reason = DisconnectReason::HeartbeatTimeout.to_string();
        assert!(matches!(end, ClientEvent::Disconnected { reason: it } if it.to_string() == reason));
        hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
        assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_heartbeat_tells_the_last_round_trip_and_events_are_told_to_who_asks_for_them() {
    let heartbeat = Duration::from_millis(100);
    let config = engine::Config { ping_interval: heartbeat, ..engine::Config::default() };
    let server = Application::imks(config).await;
    let client = builder(&server.url(), Via::WebSocket).tell_received().build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    hears(&mut events, |event| matches!(event, ClientEvent::Heartbeat { rtt: None })).await;
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    let last = client.stats().rtt.unwrap().last;
    hears(&mut events, |event| matches!(event, ClientEvent::Heartbeat { rtt: Some(rtt) } if *rtt == last))
        .await;
    within(socket.emit("echo", "hello")).await.unwrap();
    let event = hears(&mut events, |event| matches!(event, ClientEvent::MessageReceived { .. })).await;
    let ClientEvent::MessageReceived { namespace, args } = event else { panic!() };
    assert_eq!((&*namespace, args.name(), &*args.first::<String>().unwrap()), ("/", "echoed", "hello"));
}

#[tokio::test]
async fn the_events_end_with_the_task_of_the_client_however_that_ends() {
    let server = Application::start(Kind::Imks).await;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = {
        let _inside = runtime.enter();
        builder(&server.url(), Via::WebSocket).build().unwrap()
    };
    let mut events = client.events();
    within(client.connect()).await.unwrap();
    runtime.shutdown_background();
    within(async { while events.next().await.is_some() {} }).await;
    assert_eq!(client.status(), Status::Closed);
    assert!(within(client.events().next()).await.is_none());
}

#[tokio::test]
async fn a_server_that_takes_a_connection_and_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for via in [Via::WebSocket, Via::Polling, Via::WebTransport] {
        let quick = builder(&url, via).connect_timeout(Duration::from_millis(100));
        assert!(matches!(within(quick.connect()).await, Err(ClientError::Timeout(_))));
    }
}

#[tokio::test]
async fn a_client_takes_its_leave_when_its_last_handle_is_gone() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let mut status = client.watch_status();
    let socket = within(client.namespace("/")).await.unwrap();
    let mut stream = socket.stream::<()>("never");
    drop((client, socket));
    within(status.wait_for(|status| *status == Status::Closed)).await.unwrap();
    assert!(within(stream.next()).await.is_none());
    let root = server.ours.as_ref().unwrap().server().namespace("/").unwrap();
    until(|| root.is_empty()).await;
}

#[tokio::test]
async fn the_end_of_a_client_shows_although_somebody_keeps_an_event() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    let (say, mut heard) = mpsc::channel(1);
    socket.on_event("echoed", move |event| {
        say.try_send(event).unwrap();
        async {}
    });
    within(socket.connect()).await.unwrap();
    socket.emit("echo", &1).await.unwrap();
    let kept = within(heard.recv()).await.unwrap();
    drop((client, socket));
    within(async { while events.next().await.is_some() {} }).await;
    assert_eq!(kept.parse::<u32>().unwrap(), 1);
}

#[tokio::test]
async fn a_slow_handler_gets_every_event_in_its_order_and_the_heart_beats_on() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).receive_queue(2).build().unwrap();
    let socket = client.socket("/").unwrap();
    let next = Arc::new(AtomicUsize::new(0));
    let expected = next.clone();
    socket.on("echoed", move |number: usize| {
        let expected = expected.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(expected.fetch_add(1, Ordering::SeqCst), number);
        }
    });
    within(socket.connect()).await.unwrap();
    for number in 0..300 {
        socket.emit("echo", &number).await.unwrap();
    }
    until(|| next.load(Ordering::SeqCst) == 300).await;
    assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_handler_that_panics_takes_nothing_from_the_next_event() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    socket.on("echoed", |number: u32| async move { assert_ne!(number, 1) });
    let mut echoed = socket.stream::<u32>("echoed");
    within(socket.connect()).await.unwrap();
    for number in 1..=2 {
        socket.emit("echo", &number).await.unwrap();
        assert_eq!(within(echoed.next()).await.unwrap().unwrap(), number);
    }
    let error = hears(&mut events, |event| matches!(event, ClientEvent::Error(_))).await;
    assert!(matches!(error, ClientEvent::Error(ClientError::HandlerPanicked(name)) if &*name == "echoed"));
}

#[tokio::test]
async fn an_event_of_the_wrong_type_is_an_error_that_is_told() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    socket.on("echoed", |_: u8| async {});
    within(socket.connect()).await.unwrap();
    socket.emit("echo", "text").await.unwrap();
    let error = hears(&mut events, |event| matches!(event, ClientEvent::Error(_))).await;
    assert!(matches!(error, ClientEvent::Error(ClientError::InvalidMessage(_))));
    let wrong = within(socket.ask::<String>("add", &(1, 2)).into_future()).await;
    assert!(matches!(wrong, Err(ClientError::InvalidMessage(_))));
    assert!(matches!(socket.emit("disconnect", "x").await, Err(ClientError::ReservedEvent(_))));
    assert!(matches!(client.socket("chat"), Err(ClientError::InvalidNamespace(_))));
}

#[tokio::test]
async fn what_waits_is_bounded_and_what_happens_then_is_the_applications_choice() {
    let server = Application::start(Kind::Imks).await;
    let relay = Relay::start(server.address).await;
    for (overflow, kept) in
        [(Overflow::DropOldest, [3, 4]), (Overflow::DropNewest, [1, 2]), (Overflow::Fail, [1, 2])]
    {
        let client = builder(&relay.url(), Via::WebSocket).send_queue(2, 1_000, overflow).build().unwrap();
        let mut events = client.events();
        let socket = client.socket("/").unwrap();
        let mut echoed = socket.stream::<u32>("echoed");
        within(socket.connect()).await.unwrap();
        relay.close();
        hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
        for number in 1..=4 {
            let sent = socket.emit("echo", &number).await;
            assert_eq!(sent.is_err(), overflow == Overflow::Fail && number > 2);
        }
        until(|| client.waiting().events <= 2).await;
        relay.open();
        for number in kept {
            assert_eq!(within(echoed.next()).await.unwrap().unwrap(), number, "{overflow:?}");
        }
    }
}

#[tokio::test]
async fn a_closed_client_can_be_connected_again() {
    let server = Application::start(Kind::Imks).await;
    let client = Client::builder(&server.url()).transports(Transports::default()).build().unwrap();
    let mut events = client.events();
    for _ in 0..2 {
        let socket = within(client.namespace("/")).await.unwrap();
        assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
        within(client.close()).await;
        assert_eq!(client.status(), Status::Idle);
        let end = hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
        assert!(matches!(end, ClientEvent::Disconnected { reason: DisconnectReason::ByClient }));
    }
}
