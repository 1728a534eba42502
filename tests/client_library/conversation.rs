//! What two sides say to each other, over every transport and with both servers.

use imks::client::{Binary, Client, ClientError, ClientEvent, DisconnectReason, Refusal};
use serde_json::{Value, json};

use crate::application::{Application, Kind};
use crate::{Via, builder, hears, until, within};

/// Everything that a client says and hears.
async fn they_talk(kind: Kind, via: Via) {
    let server = Application::start(kind).await;
    let builder = builder(&server.url(), via);
    let builder = server.quic.iter().fold(builder, |builder, quic| builder.quic_port(quic.port()));
    let client = builder.build().unwrap();
    let mut events = client.events();
    let socket = client.socket("/").unwrap();
    socket.on_question("your age?", |please: String| async move { if please == "please" { 42 } else { 0 } });
    let (mut echoed, mut told) =
        (socket.stream::<(Value, Binary, Value)>("echoed"), socket.stream::<i64>("told"));
    within(socket.connect()).await.unwrap();

    assert_eq!(within(socket.ask::<i64>("add", &(1, 2)).into_future()).await.unwrap(), 3);
    let (text, bytes) =
        (json!({"é€😀\u{2028}": [null, 1.5, true, {}]}), Binary(vec![0, 1, 4, 127, 255].into()));
    socket.emit_args("echo", &(&text, &bytes, "end")).await.unwrap();
    let back = within(echoed.next()).await.unwrap().unwrap();
    assert_eq!(back, (text, bytes.clone(), json!("end")));
    for large in [vec![], vec![7; 300_000]] {
        let large = Binary(large.into());
        assert_eq!(
            within(socket.emit_with_ack::<Binary>("bytes", &large).into_future()).await.unwrap(),
            large
        );
    }
    if matches!(via, Via::Upgrade | Via::UpgradeToWebTransport) {
        hears(&mut events, |event| matches!(event, ClientEvent::TransportSwitched { .. })).await;
    }
    assert!(client.stats().transport.is_some_and(|it| via.settles_on(it)), "{:?}", client.stats());
    socket.emit_args("ask me", &()).await.unwrap();
    assert_eq!(within(told.next()).await.unwrap().unwrap(), 42);
    they_keep_the_order(&socket, &mut echoed).await;
    they_part(&client, &server).await;
}

/// Many events in one go arrive in their order, whatever the transport makes of them.
async fn they_keep_the_order(
    socket: &imks::client::Socket,
    echoed: &mut imks::client::EventStream<(Value, Binary, Value)>,
) {
    let bytes = Binary(vec![1, 2].into());
    for number in 0..200 {
        socket.emit_args("echo", &(number, &bytes, "end")).await.unwrap();
    }
    for number in 0..200 {
        assert_eq!(within(echoed.next()).await.unwrap().unwrap().0, number);
    }
}

async fn they_part(client: &Client, server: &Application) {
    let custom = client.socket("/custom").unwrap();
    let mut auth = custom.stream::<Value>("auth");
    within(custom.connect()).await.unwrap();
    assert_eq!(within(auth.next()).await.unwrap().unwrap(), json!({}));
    assert_eq!(within(custom.ask::<i64>("add", &(2, 2)).into_future()).await.unwrap(), 4);
    custom.disconnect().await.unwrap();
    let late = within(custom.ask::<i64>("add", &(2, 2)).into_future()).await;
    assert!(matches!(late, Err(ClientError::Closed)));
    let stats = client.stats();
    assert!(stats.packets_sent > 200 && stats.packets_received > 200 && stats.rtt.is_some(), "{stats:?}");
    within(client.close()).await;
    if let Some(ours) = &server.ours {
        let root = ours.server().namespace("/").unwrap();
        until(|| root.is_empty()).await;
    }
}

#[tokio::test]
async fn they_talk_over_a_websocket_with_imks() {
    they_talk(Kind::Imks, Via::WebSocket).await;
}

#[tokio::test]
async fn they_talk_over_polling_with_imks() {
    they_talk(Kind::Imks, Via::Polling).await;
}

#[tokio::test]
async fn they_talk_over_an_upgrade_with_imks() {
    they_talk(Kind::Imks, Via::Upgrade).await;
}

#[tokio::test]
async fn they_talk_over_webtransport_with_imks() {
    they_talk(Kind::Imks, Via::WebTransport).await;
}

#[tokio::test]
async fn they_talk_over_quic_with_imks() {
    they_talk(Kind::Imks, Via::Quic).await;
}

#[tokio::test]
async fn they_talk_over_an_upgrade_to_webtransport_with_imks() {
    they_talk(Kind::Imks, Via::UpgradeToWebTransport).await;
}

#[tokio::test]
async fn they_talk_over_whatever_wins_the_race_with_imks() {
    they_talk(Kind::Imks, Via::Racing).await;
}

#[tokio::test]
async fn they_talk_over_a_websocket_with_the_reference() {
    they_talk(Kind::Reference, Via::WebSocket).await;
}

#[tokio::test]
async fn they_talk_over_polling_with_the_reference() {
    they_talk(Kind::Reference, Via::Polling).await;
}

#[tokio::test]
async fn they_talk_over_an_upgrade_with_the_reference() {
    they_talk(Kind::Reference, Via::Upgrade).await;
}

#[tokio::test]
async fn credentials_are_asked_for_anew_whenever_a_namespace_is_joined() {
    for kind in [Kind::Imks, Kind::Reference] {
        let server = Application::start(kind).await;
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = asked.clone();
        let client = builder(&server.url(), Via::WebSocket).auth_token_provider(move || {
            let times = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                match times {
                    0 => Err("the network of the provider is away".into()),
                    1 => Ok("old".to_owned()),
                    _ => Ok("fresh".to_owned()),
                }
            }
        });
        let client = client.connect().await.unwrap();
        let socket = within(client.namespace("/closed")).await.unwrap();
        assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn a_refusal_that_is_final_says_why_and_the_other_namespaces_stay() {
    for kind in [Kind::Imks, Kind::Reference] {
        let server = Application::start(kind).await;
        let client = builder(&server.url(), Via::WebSocket).auth_token("wrong").connect().await.unwrap();
        let root = within(client.namespace("/")).await.unwrap();
        let Err(ClientError::Refused(refusal)) = within(client.namespace("/closed")).await else {
            panic!("it was let in")
        };
        let Refusal { message, .. } = &*refusal;
        assert_eq!((&**message, refusal.code()), ("no", Some("unauthenticated")));
        let Err(ClientError::Refused(refusal)) = within(client.namespace("/nowhere")).await else {
            panic!("there is no such namespace")
        };
        assert_eq!(refusal.message, "Invalid namespace");
        assert_eq!(within(root.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_for() {
    for kind in [Kind::Imks, Kind::Reference] {
        let server = Application::start(kind).await;
        let client = builder(&server.url(), Via::Polling).build().unwrap();
        within(client.namespace("/busy")).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_is_put_out_stays_out_until_it_is_told_to_come_back() {
    for kind in [Kind::Imks, Kind::Reference] {
        let server = Application::start(kind).await;
        let client = builder(&server.url(), Via::WebSocket).build().unwrap();
        let mut events = client.events();
        let socket = within(client.namespace("/")).await.unwrap();
        socket.emit_args("put me out", &()).await.unwrap();
        let left = hears(&mut events, |event| matches!(event, ClientEvent::Left { .. })).await;
        assert!(matches!(left, ClientEvent::Left { reason: DisconnectReason::ByServer, .. }), "{left:?}");
        within(socket.connect()).await.unwrap();
        assert_eq!(within(socket.ask::<i64>("add", &(1, 1)).into_future()).await.unwrap(), 2);
    }
}
