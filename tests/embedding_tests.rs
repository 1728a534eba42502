//! The library inside an axum application that somebody else serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use imks::http::{SocketIo, listener};
use imks::socket::{Reply, Server, Socket};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

#[tokio::test]
async fn an_axum_application_serves_socket_io_over_websocket_beside_its_own_pages() {
    let server = Server::builder(Default::default())
        .namespace("/", |ns| {
            ns.on_typed("add", |_: Socket, (a, b): (i32, i32)| async move { Reply(a + b) });
        })
        .build()
        .unwrap();
    let io = SocketIo::start(server, Default::default()).unwrap();
    let app = Router::new()
        .route("/", get(async || "mine"))
        .route_service("/socket.io/", io.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket");
    let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut next = async |say: &str| {
        client.send(Message::text(say)).await.unwrap();
        client.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    };
    assert!(next("40").await.starts_with("0{"));
    assert!(next(r#"421["add",1,2]"#).await.starts_with("40{"));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("431[3]"));
    io.close().await;
    assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn a_server_listens_by_itself_until_it_is_closed() {
    let server = Server::builder(Default::default()).namespace("/", |_| {}).build().unwrap();
    let io = SocketIo::start(server, Default::default()).unwrap();
    let free = listener::bind(([127, 0, 0, 1], 0).into()).unwrap().local_addr().unwrap();
    let tasks = TaskTracker::new();
    let listening = tasks.spawn({
        let io = io.clone();
        async move { io.listen(free).await }
    });
    let url = format!("ws://{free}/socket.io/?EIO=4&transport=websocket");
    let mut client = loop {
        match tokio_tungstenite::connect_async(&url).await {
            Ok((client, _)) => break client,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    assert!(client.next().await.unwrap().unwrap().into_text().unwrap().starts_with("0{"));
    io.close().await;
    listening.await.unwrap().unwrap();
}
