//! permessage-deflate on the wire.

use std::io::Write;

use flate2::{Compression, write::DeflateDecoder, write::DeflateEncoder};
use imks::engine::{CloseReason, Config};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::support::*;

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const TEXT: u8 = 0x1;

fn compressing() -> Config {
    Config { per_message_deflate: true, max_payload: 100_000, ..Config::default() }
}

/// Opens a WebSocket with this offer. Gives the answer to it as well.
async fn dial(server: &Server, path: &str, offer: &str) -> (TcpStream, Option<String>) {
    let head = upgrade_head(path);
    let head = head.trim_end();
    let mut stream = server.raw(&format!("{head}\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n")).await;
    let answer = read_head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let extensions = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    (stream, extensions.map(str::to_owned))
}

/// A session that may be compressed, after its OPEN packet.
async fn open(server: &Server) -> TcpStream {
    let (mut stream, extensions) = dial(server, PATH, "permessage-deflate; client_max_window_bits").await;
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(extensions.as_deref(), Some(agreed));
    let (first, packet) = read_frame(&mut stream).await.unwrap();
    assert!(first == FIN | TEXT && packet.starts_with(b"0{"));
    stream
}

/// By a block that says it is the last, and the empty one that must follow.
fn deflated(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    let mut payload = encoder.finish().unwrap();
    payload.push(0);
    payload
}

fn inflated(payload: &[u8]) -> String {
    let mut decoder = DeflateDecoder::new(Vec::new());
    decoder.write_all(payload).unwrap();
    decoder.write_all(&[0, 0, 0xff, 0xff]).unwrap();
    decoder.flush().unwrap();
    String::from_utf8(decoder.get_ref().clone()).unwrap()
}

#[tokio::test]
async fn large_messages_go_both_ways_compressed_and_small_ones_as_they_are() {
    let server = Server::start(compressing()).await;
    let mut stream = open(&server).await;
    let large = format!("4{}", "é".repeat(10_000));
    stream.write_all(&frame(FIN | RSV1 | TEXT, &deflated(large.as_bytes()))).await.unwrap();
    let (first, payload) = read_frame(&mut stream).await.unwrap();
    assert_eq!(first, FIN | RSV1 | TEXT);
    assert!(payload.len() < 200, "{}", payload.len());
    assert_eq!(inflated(&payload), large);
    stream.write_all(&frame(FIN | RSV1 | TEXT, &deflated(b"4small"))).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, Some((FIN | TEXT, b"4small".to_vec())));
    stream.write_all(&frame(FIN | TEXT, b"4echo")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, Some((FIN | TEXT, b"4echo".to_vec())));
    stream.write_all(&frame(FIN | TEXT, b"4plain:2000")).await.unwrap();
    let (first, payload) = read_frame(&mut stream).await.unwrap();
    assert_eq!((first, payload.len()), (FIN | TEXT, 2_001), "its sender does not want it compressed");
}

#[tokio::test]
async fn a_websocket_that_takes_over_from_polling_compresses_too() {
    let server = Server::start(compressing()).await;
    let path = server.open().await;
    let (mut stream, extensions) = dial(&server, &as_websocket(&path), "permessage-deflate").await;
    assert!(extensions.is_some());
    stream.write_all(&frame(FIN | TEXT, b"2probe")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, Some((FIN | TEXT, b"3probe".to_vec())));
    stream.write_all(&frame(FIN | RSV1 | TEXT, &deflated(b"5"))).await.unwrap();
    stream.write_all(&frame(FIN | TEXT, b"4long:5000")).await.unwrap();
    let (first, payload) = read_frame(&mut stream).await.unwrap();
    assert_eq!((first, inflated(&payload).len()), (FIN | RSV1 | TEXT, 5_001));
}

#[tokio::test]
async fn whoever_does_not_ask_or_asks_too_much_is_served_uncompressed() {
    let cases = [
        (Config::default(), PATH, "permessage-deflate"),
        (compressing(), PATH, "permessage-deflate; server_max_window_bits=9"),
        (compressing(), PATH, "x-webkit-deflate-frame"),
        (Config { allow_eio3: true, ..compressing() }, &PATH.replace('4', "3"), "permessage-deflate"),
    ];
    for (config, path, offer) in cases {
        let mut server = Server::start(config).await;
        let (mut stream, extensions) = dial(&server, path, offer).await;
        assert_eq!(extensions, None, "{offer}");
        read_frame(&mut stream).await.unwrap();
        stream.write_all(&frame(FIN | TEXT, b"4long:5000")).await.unwrap();
        let (first, payload) = read_frame(&mut stream).await.unwrap();
        assert_eq!((first, payload.len()), (FIN | TEXT, 5_001), "{offer}");
        stream.write_all(&frame(FIN | RSV1 | TEXT, &deflated(b"4a"))).await.unwrap();
        assert_eq!(read_close(&mut stream).await.0, 1002);
        drop(stream);
        assert_eq!(server.closed().await, CloseReason::TransportError);
    }
}

#[tokio::test]
async fn compressed_messages_that_break_the_rules_end_it_with_a_code() {
    let mut server = Server::start(compressing()).await;
    let start = frame(RSV1 | TEXT, &deflated(b"4a"));
    let cases = [
        ("no stream", frame(FIN | RSV1 | TEXT, b"\xff\xff"), 1007, CloseReason::ParseError),
        ("nothing at all", frame(FIN | RSV1 | TEXT, b""), 1007, CloseReason::ParseError),
        ("not UTF-8", frame(FIN | RSV1 | TEXT, &deflated(b"4\xff")), 1007, CloseReason::ParseError),
        ("empty", frame(FIN | RSV1 | TEXT, &[0]), 1002, CloseReason::ParseError),
        ("a bomb", frame(FIN | RSV1 | TEXT, &deflated(&[b'4'; 10 << 20])), 1009, CloseReason::TooLarge),
        ("a ping", frame(FIN | RSV1 | 0x9, b""), 1002, CloseReason::TransportError),
        ("a continuation", [start, frame(FIN | RSV1, b"")].concat(), 1002, CloseReason::TransportError),
    ];
    for (name, bytes, code, reason) in cases {
        let mut stream = open(&server).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read_close(&mut stream).await.0, code, "{name}");
        drop(stream);
        assert_eq!(server.closed().await, reason, "{name}");
    }
}

#[tokio::test]
async fn many_bombs_are_echoed_one_after_the_other() {
    let server = Server::start(compressing()).await;
    let mut stream = open(&server).await;
    let bomb = frame(FIN | RSV1 | TEXT, &deflated(&[b'4'; 90_000]));
    stream.write_all(&bomb.repeat(200)).await.unwrap();
    for _ in 0..200 {
        let (_, payload) = read_frame(&mut stream).await.unwrap();
        assert_eq!(inflated(&payload).len(), 90_000);
    }
}
