//! Several connections, values that leave together, and messages in their simplest form.

use std::time::Duration;

use imks::client::{
    Balance, Batcher, Batching, ClientError, ClientEvent, ClientPool, EventStream, Overflow, Racing, Status,
};
use tokio::time::timeout;

use crate::application::{Application, Kind};
use crate::auto_racing_client;
use crate::quic_client;
use crate::relay::Relay;
use crate::{Via, builder, hears, relay_to_nobody, until, within};

#[tokio::test]
async fn a_pool_divides_the_work_and_a_broken_connection_stops_nobody() {
    let server = Application::start(Kind::Imks).await;
    let relay = Relay::start(server.address).await;
    let build = |number| match number {
        0 => builder(&relay.url(), Via::WebSocket),
        _ => builder(&server.url(), Via::WebSocket),
    };
    let pool = ClientPool::new(3, Balance::RoundRobin, build).unwrap();
    assert_eq!((within(pool.prewarm("/")).await.unwrap(), pool.connected()), (3, 3));
    let sum = async |a: i64| {
        let socket = within(pool.namespace("/")).await.unwrap();
        assert_eq!(within(socket.ask::<i64>("add", &(a, 1)).into_future()).await.unwrap(), a + 1);
    };
    for number in 0..6 {
        sum(number).await;
    }
    let answered: Vec<_> = pool.clients().iter().map(|client| client.stats().events_received).collect();
    let packets: Vec<_> = pool.clients().iter().map(|client| client.stats().packets_sent).collect();
    assert_eq!(packets, [3; 3], "a CONNECT and two questions each; {answered:?}");

    relay.close();
    until(|| pool.connected() == 2).await;
    for number in 0..6 {
        sum(number).await;
    }
    relay.open();
    until(|| pool.connected() == 3).await;
    within(pool.close()).await;
    assert!(!pool.is_connected() && pool.waiting().events == 0);
}

#[tokio::test]
async fn a_pool_works_with_the_servers_that_are_there() {
    let server = Application::start(Kind::Imks).await;
    let nobody = relay_to_nobody().await;
    let urls = [&nobody, &nobody, &server.url()].map(String::clone);
    let build = |number: usize| builder(&urls[number], Via::WebSocket);
    let pool = ClientPool::new(3, Balance::LeastLoaded, build).unwrap();
    assert_eq!(within(pool.prewarm("/")).await.unwrap(), 1);
    for _ in 0..3 {
        let socket = within(pool.namespace("/")).await.unwrap();
        assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    }
    let alone = ClientPool::new(2, Balance::LeastLoaded, |_| builder(&nobody, Via::WebSocket)).unwrap();
    assert!(matches!(within(alone.prewarm("/")).await, Err(ClientError::ConnectionFailed { .. })));
    assert!(matches!(within(alone.namespace("/")).await, Err(ClientError::ConnectionFailed { .. })));
    for wrong in [0, 257] {
        let wrong = ClientPool::new(wrong, Balance::RoundRobin, |_| builder(&nobody, Via::WebSocket));
        assert!(matches!(wrong, Err(ClientError::Config(_))));
    }
}

async fn next(echoed: &mut EventStream<Vec<u32>>) -> Vec<u32> {
    within(echoed.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn values_leave_together_when_there_are_enough_or_the_first_has_waited() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<Vec<u32>>("echoed");
    within(socket.connect()).await.unwrap();
    let rules = Batching::default().values(10).linger(Duration::from_millis(200));
    let batcher = Batcher::new(&socket, "echo", rules);
    for number in 0..25 {
        within(batcher.add(&number)).await.unwrap();
    }
    assert_eq!(next(&mut echoed).await, (0..10).collect::<Vec<_>>());
    assert_eq!(next(&mut echoed).await, (10..20).collect::<Vec<_>>());
    assert_eq!(batcher.len(), 5);
    assert_eq!(next(&mut echoed).await, (20..25).collect::<Vec<_>>());
    assert!(batcher.is_empty());

    let patient = Batcher::new(&socket, "echo", Batching::default().linger(Duration::MAX));
    within(patient.add(&1)).await.unwrap();
    within(patient.flush()).await.unwrap();
    assert_eq!(next(&mut echoed).await, [1]);
    within(patient.add(&2)).await.unwrap();
    drop(patient);
    assert_eq!(next(&mut echoed).await, [2], "the rest is sent at the end");

    let small = Batcher::new(&socket, "echo", Batching::default().bytes(4).linger(Duration::MAX));
    within(small.add(&1_000)).await.unwrap();
    assert_eq!(next(&mut echoed).await, [1_000]);
    assert!(matches!(within(small.add(&"x".repeat(100))).await, Err(ClientError::Full)));
}

#[tokio::test]
async fn a_batcher_waits_where_the_client_has_no_room_and_loses_nothing() {
    let server = Application::start(Kind::Imks).await;
    let relay = Relay::start(server.address).await;
    let client = builder(&relay.url(), Via::WebSocket).send_queue(1, 1_000, Overflow::Wait).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut echoed = socket.stream::<Vec<u32>>("echoed");
    within(socket.connect()).await.unwrap();
    relay.close();
    until(|| client.status() == Status::Reconnecting).await;
    let batcher = Batcher::new(&socket, "echo", Batching::default().values(1));
    let mut added = 0;
    while timeout(Duration::from_millis(200), batcher.add(&added)).await.is_ok() {
        added += 1;
        assert!(added < 100, "what waits is bounded");
    }
    relay.open();
    for number in 0..added {
        assert_eq!(next(&mut echoed).await, [number]);
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_sent_is_told() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    let batcher = Batcher::new(&socket, "disconnect", Batching::default().values(1));
    within(batcher.add(&1)).await.unwrap();
    let error = hears(&mut events, |event| matches!(event, ClientEvent::Error(_))).await;
    assert!(matches!(error, ClientEvent::Error(ClientError::ReservedEvent(_))), "{error:?}");
}

#[tokio::test]
async fn bytes_go_to_the_application_with_a_target_and_a_nonce() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    let sent = within(socket.send_binary_message("bob", vec![1, 2, 3], "upload")).await.unwrap();
    assert_eq!((sent.success, sent.message_id.as_deref()), (true, Some("3 bytes for bob")));
    let refused = within(socket.send_binary_message("nobody", vec![1], "upload")).await.unwrap();
    assert_eq!((refused.success, refused.error_message.as_deref()), (false, Some("nobody is not here")));
}

#[cfg(feature = "server")]
#[tokio::test]
async fn a_text_is_stored_in_its_channel_or_refused_with_a_reason() {
    use crate::database::{Database, Kind};
    use crate::server;

    let database = Database::create(Kind::Sqlite).without_rate_limits();
    let imks = server::Server::start(&database);
    let token = server::token(&database, "alice", &[]);
    let client = builder(&imks.url(), Via::WebSocket).auth_token(&token).build().unwrap();
    let socket = client.socket("/").unwrap();
    let mut ready = socket.stream::<serde_json::Value>("session:ready");
    within(socket.connect()).await.unwrap();
    let ready = within(ready.next()).await.unwrap().unwrap();
    let channel = ready["channels"][0]["channel_id"].as_str().unwrap();
    let stored = within(socket.send_text_message(channel, "hello")).await.unwrap();
    assert!(stored.success && stored.message_id.is_some() && stored.error_message.is_none(), "{stored:?}");
    let refused = within(socket.send_text_message(channel, " ")).await.unwrap();
    assert!(
        !refused.success && refused.message_id.is_none() && refused.error_message.is_some(),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_examples_reach_a_server_over_quic() {
    let server = Application::start(Kind::Imks).await;
    let port = server.quic.map(|quic| quic.port());
    for (port, transport) in [(None, "webtransport"), (port, "quic")] {
        assert_eq!(within(quic_client::run(&server.url(), "danger", port)).await.unwrap(), transport);
    }
    let won = within(auto_racing_client::run(&server.url(), Racing::default(), 1)).await.unwrap();
    assert!(won.is_some());
}
