//! A server of one line, and the handle that closes it.

use std::sync::Arc;

use imks::client::{Client, ClientEvent, DisconnectReason, Reconnect};
use imks::http::SocketIo;
use imks::socket::{Reply, Server, ServerBuilder, Socket};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::within;

fn doubling() -> ServerBuilder {
    Server::builder(Default::default()).namespace("/", |ns| {
        ns.on_typed("double", |_: Socket, number: i64| async move { Reply(2 * number) });
    })
}

#[tokio::test]
async fn a_server_of_one_line_serves_until_a_signal_and_then_says_good_bye() {
    let serving = doubling().listen(([127, 0, 0, 1], 0)).unwrap();
    let (addr, signal, tasks) = (serving.addr(), Arc::new(Notify::new()), TaskTracker::new());
    assert_eq!(serving.webtransport_addr(), None);
    let until = tasks.spawn({
        let signal = signal.clone();
        async move { serving.until(signal.notified()).await }
    });
    let client = Client::builder(&format!("http://{addr}")).reconnect(Reconnect::never()).build().unwrap();
    let mut events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    let four: i64 = within(socket.emit_with_ack("double", &2)).await.unwrap();
    assert_eq!(four, 4);

    signal.notify_one();
    let ended = loop {
        if let ClientEvent::Disconnected { reason } = within(events.next()).await.unwrap() {
            break reason;
        }
    };
    assert!(matches!(ended, DisconnectReason::TransportClosed), "{ended:?}: a stock client comes back");
    within(until).await.unwrap();
    let refused = Client::builder(&format!("http://{addr}")).reconnect(Reconnect::never()).connect();
    assert!(within(refused).await.unwrap_err().is_retryable(), "nobody listens any more");
}

#[tokio::test]
async fn what_the_handle_shows_is_the_server_and_whoever_has_it_can_close_it() {
    let serving = SocketIo::builder(doubling().build().unwrap()).listen(([127, 0, 0, 1], 0)).unwrap();
    let client = Client::builder(&format!("http://{}", serving.addr())).connect();
    within(within(client).await.unwrap().namespace("/")).await.unwrap();
    assert_eq!(serving.server().namespace("/").unwrap().len(), 1);
    let io = serving.io().clone();
    let tasks = TaskTracker::new();
    let closing = tasks.spawn(async move { io.close().await });
    within(serving.stopped()).await;
    within(closing).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_closed_past_its_handle_stops_listening_too() {
    let serving = doubling().listen(([127, 0, 0, 1], 0)).unwrap();
    let client = Client::builder(&format!("http://{}", serving.addr())).reconnect(Reconnect::never());
    within(within(client.connect()).await.unwrap().namespace("/")).await.unwrap();
    within(serving.server().close()).await;
    within(serving.until(std::future::pending::<()>())).await;
}

#[tokio::test]
async fn a_port_that_is_taken_and_two_certificates_at_once_are_told() {
    let serving = doubling().listen(([127, 0, 0, 1], 0)).unwrap();
    let taken = doubling().listen(serving.addr()).unwrap_err();
    assert!(taken.to_string().contains(&serving.addr().to_string()), "{taken}");
    let two = SocketIo::builder(doubling().build().unwrap())
        .with_self_signed(["localhost"])
        .with_cert_path("cert.pem")
        .with_key_path("key.pem");
    assert!(two.listen(([127, 0, 0, 1], 0)).unwrap_err().to_string().contains("not both"));
    within(serving.close()).await;
}
