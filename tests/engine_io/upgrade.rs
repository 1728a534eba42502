//! From polling to WebSocket: what happens at every step, and when a step never comes.

use std::time::Duration;

use imks::engine::{CloseReason, Config};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::support::*;

#[tokio::test]
async fn a_session_moves_with_everything_that_is_queued() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut client = server.dial(&as_websocket(&session)).await;
    server.post(&session, "4before").await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    assert_eq!(server.get(&session).await.body, "4before", "polling goes on during the probe");
    assert_eq!(server.get(&session).await.body, "6", "and does not wait");
    assert_eq!(server.post(&session, "4during").await.body, "ok");
    client.send("5").await;
    client.send("4after").await;
    assert_eq!((client.text().await, client.text().await), ("4during".into(), "4after".into()));
    let answer = server.get(&session).await;
    assert_eq!((answer.status, answer.body.contains(r#""code":3"#)), (400, true));
    assert_eq!(server.engine.sessions(), 1);
}

#[tokio::test]
async fn a_poll_that_follows_the_upgrade_packet_is_refused() {
    let server = Server::start(Config::default()).await;
    for _ in 0..20 {
        let session = server.open().await;
        let mut client = server.dial_raw(&as_websocket(&session)).await;
        client.write_all(&[frame(0x81, b"2probe"), frame(0x81, b"5")].concat()).await.unwrap();
        assert_eq!(server.get(&session).await.status, 400);
    }
}

#[tokio::test]
async fn a_poll_that_waits_is_released_by_the_probe() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut client = server.dial(&as_websocket(&session)).await;
    let (polled, ()) = tokio::join!(server.get(&session), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.send("2probe").await;
    });
    assert_eq!(polled.body, "6");
}

#[tokio::test]
async fn a_poll_is_held_for_the_answer_to_a_post_that_is_under_way() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut client = server.dial(&as_websocket(&session)).await;
    let (polled, ()) = tokio::join!(server.get(&session), async {
        let head =
            format!("POST {session} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\n4h");
        let mut post = server.raw(&head).await;
        client.send("2probe").await;
        assert_eq!(client.text().await, "3probe");
        tokio::time::sleep(Duration::from_millis(150)).await;
        post.write_all(b"i!").await.unwrap();
        assert_eq!(Answer::read(&mut post).await.body, "ok");
    });
    assert_eq!(polled.body, "4hi!", "not a noop");
    assert_eq!(server.get(&session).await.body, "6");
}

#[tokio::test]
async fn a_candidate_that_closes_or_breaks_a_rule_is_answered_in_kind() {
    let server = Server::start(Config { max_payload: 1000, ..Config::default() }).await;
    let session = server.open().await;
    let rows: [(Vec<u8>, &[u8]); 3] = [
        (frame(0x88, b"\x03\xe8bye"), b"\x03\xe8bye"),
        (frame(0x88, b""), b""),
        (frame(0x81, &[b'4'; 1001]), b"\x03\xf1message too large"),
    ];
    for (sent, answer) in rows {
        let mut stream = server.dial_raw(&as_websocket(&session)).await;
        stream.write_all(&sent).await.unwrap();
        assert_eq!(read_frame(&mut stream).await, Some((0x88, answer.to_vec())));
        assert_eq!(server.post(&session, "4on").await.body, "ok");
        assert_eq!(server.get(&session).await.body, "4on");
    }
}

#[tokio::test]
async fn the_probe_may_be_left_out_and_messages_may_follow_at_once() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut stream = server.dial_raw(&as_websocket(&session)).await;
    stream.write_all(&[frame(0x81, b"5"), frame(0x81, b"4hello")].concat()).await.unwrap();
    assert_eq!(read_frame(&mut stream).await.unwrap().1, b"4hello");
}

#[tokio::test]
async fn a_wrong_first_packet_ends_the_websocket_only() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    for packet in ["4early", "2", "2other", "1", "3", "abc"] {
        let mut client = server.dial(&as_websocket(&session)).await;
        client.send(packet).await;
        assert!(!matches!(
            within(futures_util::StreamExt::next(&mut client.0)).await,
            Some(Ok(Message::Text(_)))
        ));
        assert_eq!(server.post(&session, "4on").await.body, "ok", "{packet}");
        assert_eq!(server.get(&session).await.body, "4on", "{packet}");
    }
}

/// Opens a WebSocket for the session and takes it to a step of the upgrade.
async fn at_step(server: &Server, session: &str, step: usize) -> TcpStream {
    let path = as_websocket(session);
    if step == 0 {
        return server.raw(&upgrade_head(&path)).await;
    }
    let mut stream = server.dial_raw(&path).await;
    if step == 2 {
        stream.write_all(&frame(0x81, b"2probe")).await.unwrap();
        assert_eq!(read_frame(&mut stream).await.unwrap().1, b"3probe");
    }
    if step == 3 {
        stream.write_all(&frame(0x81, b"2probe")[..5]).await.unwrap();
    }
    stream
}

/// Tries to move the session to a WebSocket and to use it there.
async fn upgrades(server: &Server, session: &str) -> bool {
    let mut client = server.dial(&as_websocket(session)).await;
    client.send("2probe").await;
    if !matches!(futures_util::StreamExt::next(&mut client.0).await, Some(Ok(Message::Text(_)))) {
        return false;
    }
    client.send("5").await;
    client.send("4again").await;
    client.text().await == "4again"
}

#[tokio::test]
async fn a_websocket_that_is_lost_at_any_step_costs_nothing() {
    let server = Server::start(Config::default()).await;
    for (step, reset) in (0..4).flat_map(|step| [(step, false), (step, true)]) {
        let session = server.open().await;
        let stream = at_step(&server, &session, step).await;
        server.post(&session, "4kept").await;
        if reset {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        assert_eq!(server.get(&session).await.body, "4kept", "step {step}");
        // Another attempt succeeds as soon as the loss is known.
        within(async { while !upgrades(&server, &session).await {} }).await;
    }
    server.drained().await;
}

#[tokio::test]
async fn an_upgrade_that_never_finishes_is_given_up() {
    let server =
        Server::start(Config { upgrade_timeout: Duration::from_millis(500), ..Config::default() }).await;
    let session = server.open().await;
    let mut client = server.dial(&as_websocket(&session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    assert_eq!(client.close_code().await, 1008);
    assert_eq!(server.post(&session, "4on").await.body, "ok");
    assert_eq!(server.get(&session).await.body, "4on");
    let held = tokio::time::timeout(Duration::from_millis(30), server.get(&session)).await;
    assert!(held.is_err(), "polls wait again");
}

#[tokio::test]
async fn a_second_websocket_is_opened_and_closed_and_the_first_goes_on() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut first = server.dial(&as_websocket(&session)).await;
    first.send("2probe").await;
    assert_eq!(first.text().await, "3probe");
    assert_eq!(server.dial(&as_websocket(&session)).await.close_code().await, 1008);
    first.send("5").await;
    first.send("4a").await;
    assert_eq!(first.text().await, "4a");
    assert_eq!(server.dial(&as_websocket(&session)).await.close_code().await, 1008);
    first.send("4b").await;
    assert_eq!(first.text().await, "4b");
}

#[tokio::test]
async fn a_session_that_ends_takes_the_websocket_with_it() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut client = server.dial(&as_websocket(&session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    server.post(&session, "1").await;
    assert_eq!(client.close_code().await, 1008);
    assert_eq!(server.closed().await, CloseReason::TransportClose);
}

#[tokio::test]
async fn a_graceful_close_waits_for_the_upgrade_and_happens_there() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut client = server.dial(&as_websocket(&session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    server.post(&session, "4close").await;
    client.send("5").await;
    assert_eq!(client.text().await, "4last");
    assert_eq!(client.close_code().await, 1000);
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
}
