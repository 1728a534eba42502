//! WebTransport, with clients that break the rules or stop halfway. The server goes on.

use std::{sync::Arc, time::Duration};

use imks::{
    engine::{
        CloseReason, Config,
        config::{Cors, Origins},
    },
    http::webtransport,
};

use super::wt_client::WtServer;
use crate::support::within;

fn impatient() -> Config {
    Config { upgrade_timeout: Duration::from_millis(100), ..Config::default() }
}

/// The server is as if nothing had been.
async fn goes_on(server: &WtServer) {
    let mut stream = server.open().await;
    assert_eq!(stream.says("4hello").await, "4hello");
    drop(stream);
    server.http.drained().await;
}

#[tokio::test]
async fn a_first_packet_that_is_none_closes_the_session() {
    let server = WtServer::start(Config::default()).await;
    for first in ["4hello", "1", "2probe", "0abc", "0{}", "", r#"0{"sid":"unknown-sid"}"#] {
        let mut stream = server.stream("").await;
        stream.send(first).await;
        assert_eq!(stream.next().await, None, "{first:?}");
        stream.session.closed().await;
    }
    let mut stream = server.stream("").await;
    stream.send_binary(b"0").await;
    stream.session.closed().await;
    assert_eq!(server.http.engine.sessions(), 0);
    goes_on(&server).await;
}

#[tokio::test]
async fn a_session_without_a_stream_or_a_first_packet_is_closed_in_time() {
    let server = WtServer::start(impatient()).await;
    let silent = server.dial().await;
    let halfway = server.stream("").await;
    let mut partial = server.stream("").await;
    partial.raw(&[5, b'0']).await;
    silent.closed().await;
    halfway.session.closed().await;
    partial.session.closed().await;
    assert_eq!(server.http.engine.sessions(), 0);
    goes_on(&server).await;
}

#[tokio::test]
async fn an_empty_or_too_large_frame_is_a_parse_error() {
    let mut server = WtServer::start(Config { max_payload: 1000, ..Config::default() }).await;
    let frames =
        [&[0][..], &[0x80], &[126, 0, 0], &[126, 0x03, 0xE9], &[127, 0, 0, 0, 0, 0, 1, 0, 0], &[0xFF; 9]];
    for frame in frames {
        let mut stream = server.open().await;
        stream.raw(frame).await;
        assert_eq!(server.http.closed().await, CloseReason::ParseError, "{frame:?}");
        stream.session.closed().await;
    }
    let mut stream = server.open().await;
    let message = format!("4{}", "x".repeat(999));
    assert_eq!(stream.says(&message).await, message, "exactly the limit is fine");
}

#[tokio::test]
async fn text_that_is_no_packet_is_a_parse_error() {
    let mut server = WtServer::start(Config::default()).await;
    for bytes in [&b"\x03abc"[..], b"\x024\xff"] {
        let mut stream = server.open().await;
        stream.raw(bytes).await;
        assert_eq!(server.http.closed().await, CloseReason::ParseError);
    }
}

#[tokio::test]
async fn a_second_upgrade_is_refused_and_the_first_one_goes_on() {
    let server = WtServer::start(Config::default()).await;
    let path = server.http.open().await;
    let first = format!(r#"0{{"sid":"{}"}}"#, path.rsplit_once("sid=").unwrap().1);
    let mut stream = server.stream(&first).await;
    assert_eq!(stream.says("2probe").await, "3probe");
    server.stream(&first).await.session.closed().await;
    stream.send("5").await;
    assert_eq!(stream.says("4hello").await, "4hello");
    server.stream(&first).await.session.closed().await;
    assert_eq!(stream.says("4hello").await, "4hello");
}

#[tokio::test]
async fn an_upgrade_that_is_given_up_leaves_the_session_on_polling() {
    let server = WtServer::start(impatient()).await;
    let path = server.http.open().await;
    let first = format!(r#"0{{"sid":"{}"}}"#, path.rsplit_once("sid=").unwrap().1);
    let abandoned = server.stream(&first).await;
    abandoned.session.closed().await;
    let mut wrong = server.stream(&first).await;
    wrong.send("4early").await;
    wrong.session.closed().await;
    assert_eq!(server.http.post(&path, "4hello").await.body, "ok");
    assert_eq!(server.http.get(&path).await.body, "4hello");
}

#[tokio::test]
async fn the_application_may_refuse_a_session() {
    let mut config = Config::default();
    config.hooks.allow_request = Some(Arc::new(|parts| {
        let known = parts.headers.get("origin").is_some_and(|origin| origin == "https://page.example");
        let denied = !known || parts.uri.query().is_some_and(|query| query.contains("deny"));
        Box::pin(async move { if denied { Err("no".to_owned()) } else { Ok(()) } })
    }));
    let server = WtServer::start(config).await;
    let session = server.try_dial(server.addr, "/socket.io/?deny=1").await.unwrap();
    session.stream("0").await.session.closed().await;
    assert_eq!(server.http.engine.sessions(), 0);
    goes_on(&server).await;
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_session_where_the_policy_says_so() {
    // The clients of these tests come from https://page.example.
    for (origin, allowed) in [("https://page.example", true), ("https://page.example.evil.example", false)] {
        let origins = Origins::List(vec![origin.into()]);
        let cors = Some(Cors { origins, enforce: true, ..Cors::default() });
        let server = WtServer::start(Config { cors, ..Config::default() }).await;
        let dialled = server.try_dial(server.addr, "/socket.io/").await;
        assert_eq!(dialled.is_ok(), allowed, "{origin}");
        if let Ok(session) = dialled {
            assert!(session.stream("0").await.text().await.starts_with("0{"));
        }
    }
}

#[tokio::test]
async fn another_path_or_protocol_version_is_refused() {
    let server = WtServer::start(Config::default()).await;
    assert!(server.try_dial(server.addr, "/other/").await.is_err());
    let session = server.try_dial(server.addr, "/socket.io/?EIO=3").await.unwrap();
    session.stream("0").await.session.closed().await;
    goes_on(&server).await;
}

#[tokio::test]
async fn a_server_with_enough_sessions_takes_no_more() {
    let server = WtServer::start(Config { sessions_max: 1, ..Config::default() }).await;
    let mut first = server.open().await;
    server.stream("0").await.session.closed().await;
    assert_eq!(first.says("4hello").await, "4hello");
    server.http.engine.close();
    assert!(server.try_dial(server.addr, "/socket.io/").await.is_err());
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let limits = webtransport::Config { connections_per_address_max: 2, ..webtransport::Config::default() };
    let server = WtServer::with_limits(Config::default(), limits).await;
    let first = server.open().await;
    let second = server.open().await;
    assert!(server.try_dial(server.addr, "/socket.io/").await.is_err());
    drop((first, second));
    server.http.drained().await;
    goes_on(&server).await;
}

#[tokio::test]
async fn abandoned_handshakes_give_their_places_back() {
    let limits = webtransport::Config {
        connections_per_address_max: 3,
        // Enough for the handshake itself on a busy machine.
        handshake_timeout: Duration::from_millis(500),
        ..webtransport::Config::default()
    };
    let server = WtServer::with_limits(impatient(), limits).await;
    for _ in 0..4 {
        let silent = server.dial().await;
        let halfway = server.stream("").await;
        // Before HTTP/3, and gone without a word.
        drop(server.quic().await);
        silent.closed().await;
        halfway.session.closed().await;
    }
    goes_on(&server).await;
}

#[tokio::test]
async fn a_client_that_never_speaks_http_3_is_closed() {
    let limits = webtransport::Config {
        handshake_timeout: Duration::from_millis(100),
        ..webtransport::Config::default()
    };
    let server = WtServer::with_limits(Config::default(), limits).await;
    let (silent, _endpoint) = server.quic().await;
    // Halfway through the type of a stream, of a frame, and with an invalid request.
    let (uni, _endpoint) = server.quic().await;
    let mut stream = uni.open_uni().await.unwrap();
    stream.write_all(&[0x40]).await.unwrap();
    let (bi, _endpoint) = server.quic().await;
    let (mut stream, _receiving) = bi.open_bi().await.unwrap();
    stream.write_all(&[0x01, 0x40]).await.unwrap();
    let (wrong, _endpoint) = server.quic().await;
    let (mut stream, _receiving) = wrong.open_bi().await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (many, _endpoint) = server.quic().await;
    let mut streams = Vec::new();
    while let Some(Ok(stream)) = futures_util::FutureExt::now_or_never(many.open_uni()) {
        streams.push(stream);
    }
    assert!(streams.len() < 10, "{}", streams.len());
    for connection in [silent, uni, bi, wrong, many] {
        within(connection.closed()).await;
    }
    goes_on(&server).await;
}

#[tokio::test]
async fn ten_thousand_bytes_of_noise_on_the_port_do_no_harm() {
    let server = WtServer::start(Config::default()).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 1u64;
    for length in 0..100 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(length * 12)
        .collect();
        socket.send_to(&noise, server.addr).unwrap();
    }
    goes_on(&server).await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_closed() {
    let mut server = WtServer::start(Config::default()).await;
    let mut stream = server.open().await;
    stream.send("4flood:400").await;
    assert_eq!(server.http.closed().await, CloseReason::Slow);
    stream.session.closed().await;
}
