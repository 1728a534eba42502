//! What is put into the outbox arrives, once, in its order.

use std::time::Duration;

use imks::client::{Client, ClientError, ClientEvent, FileStore, MemoryStore, Retry, Socket, nonce};
use imks::engine;

use crate::application::{Application, Kind};
use crate::relay::Relay;
use crate::{Via, builder, hears, until, within};

async fn remembered(socket: &Socket) -> Vec<String> {
    within(socket.ask("remembered", &()).into_future()).await.unwrap()
}

/// Cuts the connection again and again while events go through the outbox.
async fn events_of_the_outbox_are_handled_once_in_their_order(kind: Kind, via: Via) {
    // Over QUIC both sides learn of a cut by the silence only.
    let heartbeat = if via.has_quic() { Duration::from_millis(100) } else { Duration::from_secs(20) };
    let config =
        engine::Config { ping_interval: heartbeat, ping_timeout: heartbeat, ..engine::Config::default() };
    let server = Application::start_with(kind, config).await;
    let relay = Relay::start(server.address).await;
    let retry = Retry::forever(Duration::from_millis(10)).answer_timeout(Duration::from_millis(500));
    let client = builder(&relay.url(), via).message_retry(retry).build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    let nonces: Vec<String> = (0..100).map(|_| nonce()).collect();
    let mut deliveries = Vec::new();
    for (number, nonce) in nonces.iter().enumerate() {
        deliveries.push(socket.send("remember", nonce).await.unwrap());
        if number % 10 == 9 {
            relay.cut();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    for (delivery, nonce) in deliveries.into_iter().zip(&nonces) {
        assert_eq!(&within(delivery.acknowledged::<String>()).await.unwrap(), nonce);
    }
    assert_eq!(remembered(&socket).await, nonces);
    let stats = client.stats();
    assert_eq!((stats.messages_sent, stats.messages_failed, stats.waiting.events), (100, 0, 0));
}

#[tokio::test]
async fn events_of_the_outbox_are_handled_once_in_their_order_by_imks() {
    events_of_the_outbox_are_handled_once_in_their_order(Kind::Imks, Via::WebSocket).await;
}

#[tokio::test]
async fn events_of_the_outbox_are_handled_once_in_their_order_by_imks_over_polling() {
    events_of_the_outbox_are_handled_once_in_their_order(Kind::Imks, Via::Polling).await;
}

#[tokio::test]
async fn events_of_the_outbox_are_handled_once_in_their_order_by_imks_over_webtransport() {
    events_of_the_outbox_are_handled_once_in_their_order(Kind::Imks, Via::WebTransport).await;
}

#[tokio::test]
async fn events_of_the_outbox_are_handled_once_in_their_order_by_imks_after_a_race() {
    events_of_the_outbox_are_handled_once_in_their_order(Kind::Imks, Via::Racing).await;
}

#[tokio::test]
async fn events_of_the_outbox_are_handled_once_in_their_order_by_the_reference_after_an_upgrade() {
    events_of_the_outbox_are_handled_once_in_their_order(Kind::Reference, Via::Upgrade).await;
}

#[tokio::test]
async fn events_of_the_outbox_are_handled_once_in_their_order_by_the_reference() {
    events_of_the_outbox_are_handled_once_in_their_order(Kind::Reference, Via::WebSocket).await;
}

#[tokio::test]
async fn an_outbox_in_a_file_survives_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox");
    let server = Application::start(Kind::Imks).await;
    let relay = Relay::start(server.address).await;
    let build = || builder(&relay.url(), Via::WebSocket).outbox(FileStore::new(&file)).build();
    let nonces = [nonce(), nonce()];
    let client = build().unwrap();
    assert!(matches!(build(), Err(ClientError::Outbox(_))), "a file belongs to one client");
    let socket = within(client.namespace("/")).await.unwrap();
    relay.close();
    for nonce in &nonces {
        socket.send("remember", nonce).await.unwrap();
    }
    let mut status = client.watch_status();
    drop((client, socket));
    within(status.wait_for(|status| *status == imks::client::Status::Closed)).await.unwrap();

    relay.open();
    let client = within(async {
        loop {
            match build() {
                Ok(client) => return client,
                // The file is free when the task of the first client is gone.
                Err(ClientError::Outbox(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    for _ in &nonces {
        hears(&mut events, |event| matches!(event, ClientEvent::MessageSent { .. })).await;
    }
    assert_eq!(remembered(&socket).await, nonces);
}

#[tokio::test]
async fn an_event_that_nobody_answers_is_given_up_and_the_next_one_follows() {
    let server = Application::start(Kind::Imks).await;
    let store = MemoryStore::default();
    let retry = Retry::times(1, Duration::from_millis(10)).answer_timeout(Duration::from_millis(50));
    let client = builder(&server.url(), Via::WebSocket).message_retry(retry).outbox(store.clone());
    let client: Client = client.build().unwrap();
    let socket = within(client.namespace("/")).await.unwrap();
    // The server echoes it, and answers nothing.
    let lost = socket.send("echo", "x").await.unwrap();
    let kept = socket.send("remember", "y").await.unwrap();
    assert_eq!(store.entries().first().map(|entry| entry.id), Some(lost.id()));
    assert!(matches!(within(lost.acknowledged::<()>()).await, Err(ClientError::Timeout(_))));
    assert_eq!(within(kept.acknowledged::<String>()).await.unwrap(), "y");
    until(|| store.entries().is_empty()).await;
}
