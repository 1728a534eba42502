//! Pings, pongs and their deadlines.

use std::time::Duration;

use imks::engine::{CloseReason, Config};
use tokio::time::Instant;

use super::support::*;

fn quick() -> Config {
    let ms = Duration::from_millis;
    Config { ping_interval: ms(100), ping_timeout: ms(80), ..Config::default() }
}

#[tokio::test]
async fn a_polling_client_that_answers_lives_and_one_that_does_not_ends_on_time() {
    let mut server = Server::start(quick()).await;
    let session = server.open().await;
    for _ in 0..3 {
        assert_eq!(server.get(&session).await.body, "2");
        assert_eq!(server.post(&session, "3").await.body, "ok");
    }
    let session = server.open().await;
    tokio::time::sleep(Duration::from_millis(180)).await;
    assert_eq!(server.get(&session).await.status, 400);
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
}

#[tokio::test]
async fn a_websocket_client_that_answers_lives() {
    let server = Server::start(quick()).await;
    let start = Instant::now();
    let mut client = server.websocket().await;
    for count in 1..=3 {
        assert_eq!(client.text().await, "2");
        assert!(start.elapsed() >= Duration::from_millis(count * 100));
        client.send("3").await;
    }
    assert_eq!(server.engine.sessions(), 1);
}

#[tokio::test]
async fn a_client_that_talks_but_never_answers_gains_one_timeout() {
    let mut server = Server::start(quick()).await;
    let mut client = server.websocket().await;
    assert_eq!(client.text().await, "2");
    let pinged = Instant::now();
    while pinged.elapsed() < Duration::from_millis(400) && server.engine.sessions() > 0 {
        let _ =
            futures_util::SinkExt::send(&mut client.0, tokio_tungstenite::tungstenite::Message::text("4a"))
                .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
    assert!(pinged.elapsed() < Duration::from_millis(300));
}

#[tokio::test]
async fn an_unread_pong_is_not_held_against_its_sender() {
    let server = Server::start(quick()).await;
    let mut client = server.websocket().await;
    client.send("4deaf").await;
    assert_eq!(client.text().await, "2");
    client.send("3").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(server.engine.sessions(), 1);
}

#[tokio::test]
async fn a_websocket_that_does_not_answer_is_closed_with_a_code() {
    let mut server = Server::start(quick()).await;
    let mut client = server.websocket().await;
    assert_eq!(client.text().await, "2");
    assert_eq!(client.close_code().await, 4000);
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
}
