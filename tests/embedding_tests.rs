//! The library inside an axum application that somebody else serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::routing::{any, get};
use futures_util::{SinkExt, StreamExt};
use imks::engine::Engine;
use imks::socket::{Reply, Server, Socket};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

async fn socket_io(
    State(engine): State<Engine>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> axum::response::Response {
    engine.handle(request, peer).await.map(axum::body::Body::new)
}

#[tokio::test]
async fn an_axum_application_serves_socket_io_over_websocket_beside_its_own_pages() {
    let server = Server::builder(Default::default())
        .namespace("/", |ns| {
            ns.on_typed("add", |_: Socket, (a, b): (i32, i32)| async move { Reply(a + b) });
        })
        .build()
        .unwrap();
    let engine = Engine::new(Default::default()).unwrap();
    let app = Router::new()
        .route("/", get(async || "mine"))
        .route("/socket.io/", any(socket_io).with_state(engine.clone()))
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = imks::http::listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let serving = server.clone();
    tasks.spawn(async move { serving.serve(engine).await });

    let url = format!("ws://{addr}/socket.io/?EIO=4&transport=websocket");
    let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut next = async |say: &str| {
        client.send(Message::text(say)).await.unwrap();
        client.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    };
    assert!(next("40").await.starts_with("0{"));
    assert!(next(r#"421["add",1,2]"#).await.starts_with("40{"));
    drop(server);
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("431[3]"));
}
