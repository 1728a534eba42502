//! The library inside an axum application that somebody else serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use imks::authenticators::{HttpHook, SignedTokens, User};
use imks::http::{SocketIo, listener};
use imks::socket::{Authenticator, Reply, Server, Socket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

#[path = "embedding/commands.rs"]
mod commands;
#[path = "embedding/echo.rs"]
mod echo;
#[path = "embedding/layer.rs"]
mod layer;
#[path = "embedding/listen.rs"]
mod listen;

/// Fails the test if something takes longer than anybody would wait.
async fn within<T>(work: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), work).await.expect("it takes too long")
}

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

/// What a client with each token learns: the answer to CONNECT, then who it is. `None`: the transport ended.
async fn answers(authenticator: impl Authenticator<Identity = User>, tokens: &[&str]) -> Vec<Option<String>> {
    let describe = |ns: &mut imks::socket::NamespaceBuilder| {
        ns.authenticate(authenticator);
        ns.on_typed("whoami", |socket: Socket, ()| async move {
            let user = socket.data::<User>().unwrap();
            Reply(json!([user.id, user.name]))
        });
    };
    let io = SocketIo::start(
        Server::builder(Default::default()).namespace("/", describe).build().unwrap(),
        Default::default(),
    );
    let io = io.unwrap();
    let listener = listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", listener.local_addr().unwrap());
    let app = Router::new().route_service("/socket.io/", io.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let mut answers = Vec::new();
    for token in tokens {
        let (mut client, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        client.next().await.unwrap().unwrap();
        let connect = format!("40{}", json!({ "token": token }));
        client.send(Message::text(connect)).await.unwrap();
        let Some(Ok(Message::Text(answer))) = client.next().await else {
            answers.push(None);
            continue;
        };
        if let Some(refused) = answer.strip_prefix("44") {
            let refused: Value = serde_json::from_str(refused).unwrap();
            answers.push(Some(refused["data"]["code"].as_str().unwrap().to_owned()));
            continue;
        }
        client.send(Message::text(r#"420["whoami"]"#)).await.unwrap();
        answers.push(Some(client.next().await.unwrap().unwrap().into_text().unwrap()[3..].to_owned()));
    }
    io.close().await;
    answers
}

fn says(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test]
async fn an_application_lets_its_users_in_by_the_tokens_that_it_signs() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let token = |claims: Value, secret: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let now = imks::testing::clock::now_micros() / 1_000_000;
    let claims = json!({"sub": "42", "name": "Alice", "iat": now, "exp": now + 60});
    let old = json!({"sub": "42", "iat": now - 120, "exp": now - 60});
    let tokens =
        [token(claims.clone(), SECRET), token(claims, &SECRET.replace('0', "1")), token(old, SECRET)];
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).chain(["", "x"]).collect();
    let heard = answers(SignedTokens::from_shared_secret(SECRET).await.unwrap(), &tokens).await;
    let refused = says("unauthenticated");
    let expected =
        [says(r#"[["42","Alice"]]"#), refused.clone(), says("token_expired"), refused.clone(), refused];
    assert_eq!(heard, expected);
    assert!(SignedTokens::from_shared_secret("short").await.is_err());
    assert!(SignedTokens::from_public_keys("/nowhere.pem").await.is_err());
}

#[tokio::test]
async fn an_application_lets_its_users_in_by_its_hook_and_nobody_while_the_hook_is_down() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/login", listener.local_addr().unwrap());
    let hook = axum::routing::post(async |body: String| {
        let body: Value = serde_json::from_str(&body).unwrap();
        match body["token"].as_str().unwrap() {
            "good" => (axum::http::StatusCode::OK, json!({"user": {"id": 7, "name": "Bo"}}).to_string()),
            "down" => (axum::http::StatusCode::BAD_GATEWAY, String::new()),
            _ => (axum::http::StatusCode::UNAUTHORIZED, String::new()),
        }
    });
    let tasks = TaskTracker::new();
    let app = Router::new().route("/login", hook);
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let heard = answers(HttpHook::new(&url, None).unwrap(), &["good", "bad", "down"]).await;
    assert_eq!(heard, [says(r#"[["7","Bo"]]"#), says("unauthenticated"), None]);
}
