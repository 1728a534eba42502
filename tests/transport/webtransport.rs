//! WebTransport, with a client that behaves.

use std::time::Duration;

use imks::engine::{CloseReason, Config};

use super::{
    relay::Relay,
    wt_client::{Stream, WtServer},
};
use crate::support::within;

#[tokio::test]
async fn a_new_session_echoes_text_and_binary_and_knows_its_client() {
    let server = WtServer::start(Config::default()).await;
    let mut stream = server.open().await;
    assert_eq!(stream.says("4hello €").await, "4hello €");
    stream.send_binary(&[0, 1, 255]).await;
    assert_eq!(stream.next().await, Some((true, vec![0, 1, 255])));
    let facts: serde_json::Value = serde_json::from_str(&stream.says("4facts").await[1..]).unwrap();
    assert_eq!(
        facts,
        serde_json::json!({ "transport": "webtransport", "now": "webtransport", "secure": true,
            "address": "127.0.0.1", "url": "/socket.io/", "origin": "https://page.example" })
    );
    assert_eq!(server.http.engine.sessions(), 1);
}

#[tokio::test]
async fn long_messages_go_both_ways() {
    let server = WtServer::start(Config::default()).await;
    let mut stream = server.open().await;
    for length in [125, 126, 65_535, 65_536, 999_999] {
        let data = vec![7; length];
        let (mut sending, payload) = (stream.sending, super::wt_client::frame(true, &data));
        let sent = async move {
            sending.write_all(&payload).await.unwrap();
            sending
        };
        let mut receiving = Stream { sending: sent.await, ..stream };
        assert_eq!(receiving.next().await, Some((true, data)), "{length}");
        stream = receiving;
    }
    assert_eq!(stream.says("4long:1500000").await.len(), 1_500_001);
}

#[tokio::test]
async fn frames_may_arrive_in_any_pieces() {
    let server = WtServer::start(Config::default()).await;
    let mut stream = server.stream("").await;
    let all = [&b"\x010"[..], b"\x06", b"4", b"hello", b"\x82\x01\x02\x7e\x00", b"\x02", b"4a"];
    for piece in all {
        stream.raw(piece).await;
        tokio::task::yield_now().await;
    }
    assert!(stream.text().await.starts_with("0{"));
    assert_eq!(stream.text().await, "4hello");
    assert_eq!(stream.next().await, Some((true, vec![1, 2])));
    assert_eq!(stream.text().await, "4a");
}

#[tokio::test]
async fn polling_offers_both_upgrades_and_webtransport_takes_over() {
    let server = WtServer::start(Config::default()).await;
    let opened = server.http.get("/socket.io/?EIO=4&transport=polling").await.body;
    assert!(opened.contains(r#""upgrades":["websocket","webtransport"]"#), "{opened}");
    let path = server.http.open().await;
    let sid = path.rsplit_once("sid=").unwrap().1.to_owned();
    let mut stream = server.stream(&format!(r#"0{{"sid":"{sid}"}}"#)).await;
    assert_eq!(stream.says("2probe").await, "3probe");
    assert_eq!(server.http.post(&path, "4before").await.body, "ok");
    // Everything that is queued leaves on polling or on the stream, once.
    let polled = server.http.get(&path).await.body;
    assert_eq!(polled, "4before");
    assert_eq!(server.http.get(&path).await.body, "6");
    stream.raw(b"\x015\x064after").await;
    assert_eq!(stream.text().await, "4after");
    let facts = stream.says("4facts").await;
    assert!(
        facts.contains(r#""now":"webtransport""#) && facts.contains(r#""transport":"polling""#),
        "{facts}"
    );
    assert_eq!(server.http.get(&path).await.status, 400);
    assert_eq!(server.http.engine.sessions(), 2);
}

#[tokio::test]
async fn the_server_closes_after_what_it_has_sent() {
    let mut server = WtServer::start(Config::default()).await;
    let mut stream = server.open().await;
    assert_eq!(stream.says("4close:").await, "4last");
    assert_eq!(stream.next().await, None, "the stream ends first");
    stream.session.closed().await;
    assert_eq!(server.http.closed().await, CloseReason::ForcedClose);
    server.http.drained().await;
    for (word, reason) in [("4shutdown:", CloseReason::ServerShutdown), ("4now:", CloseReason::ForcedClose)] {
        let mut stream = server.open().await;
        stream.send(word).await;
        assert_eq!(stream.next().await, None);
        stream.session.closed().await;
        assert_eq!(server.http.closed().await, reason);
    }
}

#[tokio::test]
async fn a_client_that_closes_is_noticed_at_once() {
    let mut server = WtServer::start(Config::default()).await;
    let stream = server.open().await;
    stream.session.connection.close(0u32.into(), b"");
    assert_eq!(server.http.closed().await, CloseReason::TransportClose);
    let mut stream = server.open().await;
    stream.sending.finish().await.unwrap();
    assert_eq!(server.http.closed().await, CloseReason::TransportClose);
    let mut stream = server.open().await;
    stream.send("1").await;
    assert_eq!(server.http.closed().await, CloseReason::TransportClose);
}

#[tokio::test]
async fn the_heartbeat_is_that_of_the_engine() {
    let config = Config {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let mut server = WtServer::start(config).await;
    let mut stream = server.open().await;
    for _ in 0..3 {
        assert_eq!(stream.text().await, "2");
        stream.send("3").await;
    }
    assert_eq!(stream.text().await, "2");
    assert_eq!(server.http.closed().await, CloseReason::PingTimeout);
    stream.session.closed().await;
}

#[tokio::test]
async fn a_session_survives_a_change_of_the_network_path() {
    let mut server = WtServer::start(Config::default()).await;
    let relay = Relay::start(server.addr).await;
    let session = server.try_dial(relay.addr, "/socket.io/").await.unwrap();
    let mut stream = session.stream("0").await;
    assert!(stream.text().await.starts_with("0{"));
    for path in 0..3 {
        let word = format!("4path {path}");
        assert_eq!(within(stream.says(&word)).await, word);
        relay.change_path().await;
    }
    assert_eq!(stream.says("4close:").await, "4last");
    assert_eq!(server.http.closed().await, CloseReason::ForcedClose);
}

#[tokio::test]
async fn a_development_certificate_is_told_by_its_hash() {
    let server = WtServer::start(Config::default()).await;
    let router = imks::http::webtransport::routes(server.certificates.clone());
    let request = http::Request::get(imks::http::webtransport::HASHES_PATH).body(axum::body::Body::empty());
    let response = tower::ServiceExt::oneshot(router, request.unwrap()).await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&body["hashes"][0]["algorithm"], body["hashes"].as_array().unwrap().len()),
        (&"sha-256".into(), 1)
    );
    assert_eq!(body["hashes"][0]["value"].as_str().unwrap().len(), 44);
}

#[tokio::test]
async fn all_answers_reach_a_client_that_reads_slowly() {
    let (ping_interval, ping_timeout) = (Duration::from_millis(200), Duration::from_millis(800));
    let server = WtServer::start(Config { ping_interval, ping_timeout, ..Config::default() }).await;
    let mut stream = server.open().await;
    for _ in 0..10 {
        stream.send("4answer:1800000").await;
    }
    let mut answers = 0;
    while answers < 10 {
        match stream.text().await {
            ping if ping == "2" => stream.send("3").await,
            answer => {
                assert_eq!(answer.len(), 1_800_001);
                answers += 1;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
    }
    assert!(server.http.queued_max() < 4_200_000, "{} bytes waited", server.http.queued_max());
}
