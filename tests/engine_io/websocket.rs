//! WebSocket sessions.

use std::time::Duration;

use futures_util::SinkExt;
use imks::engine::{CloseReason, Config, metrics};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::support::*;

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

#[tokio::test]
async fn text_and_binary_are_echoed_in_order() {
    let server = Server::start(Config::default()).await;
    let mut client = server.websocket().await;
    for count in 0..200 {
        client.0.feed(Message::text(format!("4{count}"))).await.unwrap();
    }
    client.0.feed(Message::binary(vec![1, 2, 3])).await.unwrap();
    client.0.feed(Message::text("bAQIDBA==")).await.unwrap();
    client.0.flush().await.unwrap();
    for count in 0..200 {
        assert_eq!(client.text().await, format!("4{count}"));
    }
    assert_eq!(client.next().await, Message::binary(vec![1, 2, 3]));
    assert_eq!(client.next().await, Message::binary(vec![1, 2, 3, 4]));
}

#[tokio::test]
async fn a_large_message_goes_both_ways() {
    let server = Server::start(Config::default()).await;
    let mut client = server.websocket().await;
    let text = format!("4{}", "é".repeat(400_000));
    client.send(&text).await;
    assert_eq!(client.text().await, text);
}

#[tokio::test]
async fn a_ping_of_the_websocket_is_answered() {
    let server = Server::start(Config::default()).await;
    let mut client = server.websocket().await;
    client.0.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(client.next().await, Message::Pong(Bytes::from_static(b"x")));
}

#[tokio::test]
async fn packets_that_are_not_for_servers_end_it_or_are_ignored() {
    let mut server = Server::start(Config::default()).await;
    let rows = [
        ("1", 1000, CloseReason::TransportClose),
        ("2", 1002, CloseReason::TransportError),
        ("", 1002, CloseReason::ParseError),
        ("abc", 1002, CloseReason::ParseError),
        ("b!!!", 1002, CloseReason::ParseError),
    ];
    for (packet, code, reason) in rows {
        let mut client = server.websocket().await;
        client.send(packet).await;
        assert_eq!(client.close_code().await, code, "{packet:?}");
        assert_eq!(server.closed().await, reason, "{packet:?}");
    }
    let mut client = server.websocket().await;
    for packet in ["6", "5", "3", "0", "4still here"] {
        client.send(packet).await;
    }
    assert_eq!(client.text().await, "4still here");
}

#[tokio::test]
async fn frames_that_break_the_rules_end_it_with_a_code() {
    let mut server = Server::start(Config { max_payload: 1000, ..Config::default() }).await;
    let rows = [
        ("unmasked", vec![0x81, 1, b'4'], 1002),
        ("reserved bit", frame(0xC1, b"4"), 1002),
        ("continuation of nothing", frame(0x80, b"4"), 1002),
        ("not UTF-8", frame(0x81, b"4\xff"), 1007),
        ("too large", frame(0x81, &[b'4'; 1001]), 1009),
        ("announced too large", [&[0x82, 0xFF][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(), 1009),
        ("fragments too large", [frame(0x02, &[0; 600]), frame(0x80, &[0; 600])].concat(), 1009),
        ("bad close code", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("too many fragments", [frame(0x02, b""), frame(0x00, b"").repeat(20_000)].concat(), 1008),
    ];
    for (name, bytes, code) in rows {
        let mut stream = server.dial_raw(PATH).await;
        assert!(read_frame(&mut stream).await.unwrap().1.starts_with(b"0{"));
        stream.write_all(&bytes).await.unwrap();
        let (told, why) = read_close(&mut stream).await;
        assert_eq!(told, code, "{name}");
        assert!(why.len() > 10, "{name}: it says why: {why}");
        stream.shutdown().await.unwrap();
        let reason = server.closed().await;
        assert_eq!(reason == CloseReason::TooLarge, code == 1009, "{name}: {reason:?}");
    }
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_own_content() {
    let mut server = Server::start(Config::default()).await;
    for content in [&b""[..], b"\x03\xe8", b"\x03\xf6gateway", b"\x0f\xa0mine"] {
        let mut stream = server.dial_raw(PATH).await;
        assert!(read_frame(&mut stream).await.unwrap().1.starts_with(b"0{"));
        stream.write_all(&frame(0x88, content)).await.unwrap();
        assert_eq!(read_frame(&mut stream).await, Some((0x88, content.to_vec())));
        assert_eq!(server.closed().await, CloseReason::TransportClose);
    }
}

#[tokio::test]
async fn base64_in_a_text_frame_may_be_written_in_any_form() {
    let server = Server::start(Config::default()).await;
    let mut client = server.websocket().await;
    for text in ["bAQIDBA==", "bAQIDBA", "bAQ\r\nIDBA==", "b-_8="] {
        client.send(text).await;
        let tokio_tungstenite::tungstenite::Message::Binary(data) = client.next().await else {
            panic!("not binary: {text:?}")
        };
        assert!(data[..] == [1, 2, 3, 4] || data[..] == [0xfb, 0xff], "{text:?}");
    }
}

#[tokio::test]
async fn frames_may_come_in_any_pieces_even_with_the_request() {
    let server = Server::start(Config::default()).await;
    let mut bytes = upgrade_head(PATH).into_bytes();
    bytes.extend(frame(0x81, b"4with the request"));
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    read_head(&mut stream).await;
    assert!(read_frame(&mut stream).await.unwrap().1.starts_with(b"0{"));
    assert_eq!(read_frame(&mut stream).await.unwrap().1, b"4with the request");
    stream.set_nodelay(true).unwrap();
    for byte in [frame(0x01, b"4by"), frame(0x80, b"te")].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_frame(&mut stream).await.unwrap().1, b"4byte");
}

#[tokio::test]
async fn the_server_closes_after_what_is_queued() {
    let mut server = Server::start(Config::default()).await;
    let mut client = server.websocket().await;
    client.send("4close").await;
    assert_eq!(client.text().await, "4last");
    assert_eq!(client.close_code().await, 1000);
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
    let mut client = server.websocket().await;
    client.send("4shutdown").await;
    assert_eq!(client.close_code().await, 1001);
    assert_eq!(server.closed().await, CloseReason::ServerShutdown);
    let mut client = server.websocket().await;
    client.send("4now").await;
    assert_eq!(client.close_code().await, 1000);
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
}

#[tokio::test]
async fn a_peer_that_never_ends_does_not_hold_a_close() {
    let mut server = Server::start(Config::default()).await;
    let mut stream = server.dial_raw(PATH).await;
    stream.write_all(&frame(0x81, b"4now")).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
    assert!(start.elapsed() < Duration::from_secs(1), "at once");
    let mut stream = server.dial_raw(PATH).await;
    stream.write_all(&frame(0x81, b"4close")).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn the_close_of_a_client_is_answered() {
    let mut server = Server::start(Config::default()).await;
    let mut client = server.websocket().await;
    client.0.close(None).await.unwrap();
    assert!(matches!(client.next().await, Message::Close(_)));
    assert_eq!(server.closed().await, CloseReason::TransportClose);
    let mut stream = server.dial_raw(PATH).await;
    stream.shutdown().await.unwrap();
    assert_eq!(server.closed().await, CloseReason::TransportClose);
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn a_reset_ends_one_session_and_nothing_else() {
    let mut server = Server::start(Config::default()).await;
    let mut other = server.websocket().await;
    let stream = server.dial_raw(PATH).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    assert!(matches!(server.closed().await, CloseReason::TransportError | CloseReason::TransportClose));
    other.send("4here").await;
    assert_eq!(other.text().await, "4here");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_closed_as_slow_and_one_that_reads_late_is_not() {
    let mut server = Server::start(Config::default()).await;
    let mut stream = server.dial_raw(PATH).await;
    // More than the kernel takes, below the bound of a burst; then one more message.
    stream.write_all(&frame(0x81, b"4flood:200")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _ = stream.write_all(&frame(0x81, b"4flood:200")).await;
    assert_eq!(server.closed().await, CloseReason::Slow);

    let mut stream = server.dial_raw(PATH).await;
    read_frame(&mut stream).await.unwrap();
    stream.write_all(&frame(0x81, b"4flood:200")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..200 {
        assert_eq!(read_frame(&mut stream).await.unwrap().1.len(), (64 << 10) + 1);
    }
    stream.write_all(&frame(0x81, b"4then")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await.unwrap().1, b"4then");
}

#[tokio::test]
async fn a_request_that_leaves_before_its_answer_leaves_no_session() {
    let server = Server::start(Config::default()).await;
    for _ in 0..20 {
        let stream = server.raw(&upgrade_head(PATH)).await;
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    let mut last = server.raw(&upgrade_head(PATH)).await;
    let mut byte = [0];
    last.read_exact(&mut byte).await.unwrap();
    drop(last);
    server.drained().await;
}

#[tokio::test]
async fn a_producer_that_waits_for_room_does_not_lose_a_slow_reader() {
    let server = Server::start(Config::default()).await;
    let mut stream = server.dial_raw(PATH).await;
    read_frame(&mut stream).await.unwrap();
    stream.write_all(&frame(0x81, b"4pour:400")).await.unwrap();
    // 26 MB are more than the system takes for a reader that does not read.
    within(async {
        while metrics::OUTBOX_WAITING_SESSIONS.get() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    for _ in 0..400 {
        assert_eq!(read_frame(&mut stream).await.unwrap().1.len(), 1 + (64 << 10));
    }
    stream.write_all(&frame(0x81, b"4still here")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, Some((0x81, b"4still here".to_vec())));
}
