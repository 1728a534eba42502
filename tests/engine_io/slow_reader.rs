//! Clients on slow lines: what they ask for reaches them, whatever it is; who reads nothing is found.

use std::time::Duration;

use imks::engine::{CloseReason, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::*;

/// A heartbeat that is over long before the answers are.
fn quick_heartbeat() -> Config {
    let (ping_interval, ping_timeout) = (Duration::from_millis(200), Duration::from_millis(800));
    Config { ping_interval, ping_timeout, ..Config::default() }
}

/// Opens a WebSocket whose receive buffer is small, so that the server sees how slowly it is read.
async fn dial_with_small_buffer(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    let mut stream = socket.connect(server.addr).await.unwrap();
    stream.write_all(upgrade_head("/socket.io/?EIO=4&transport=websocket").as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    assert!(read_frame(&mut stream).await.unwrap().1.starts_with(b"0{"));
    stream
}

/// Reads at a few MiB per second until `wanted` messages have come, and answers pings. Gives their lengths.
async fn read_slowly(stream: &mut TcpStream, wanted: usize) -> Vec<usize> {
    let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
    let mut piece = vec![0; 64 << 10];
    while lengths.len() < wanted {
        let count = within(stream.read(&mut piece)).await.unwrap();
        assert_ne!(count, 0, "closed after {} messages", lengths.len());
        bytes.extend_from_slice(&piece[..count]);
        while let Some((header, length)) = frame_length(&bytes).filter(|(h, l)| bytes.len() >= h + l) {
            match bytes[header] {
                b'2' => stream.write_all(&frame(0x81, b"3")).await.unwrap(),
                b'4' => lengths.push(length - 1),
                other => panic!("a packet of type {other}"),
            }
            bytes.drain(..header + length);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lengths
}

/// Header and payload length of the frame at the start.
fn frame_length(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)))),
        127 => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize)),
        short => Some((2, usize::from(short))),
    }
}

#[tokio::test]
async fn all_answers_reach_a_slow_reader_of_a_websocket_and_few_wait_at_once() {
    let mut server = Server::start(quick_heartbeat()).await;
    let mut stream = dial_with_small_buffer(&server).await;
    for _ in 0..15 {
        stream.write_all(&frame(0x81, b"4answer:1800000")).await.unwrap();
    }
    assert_eq!(read_slowly(&mut stream, 15).await, [1_800_000; 15]);
    assert!(!server.has_closed());
    // One answer of this size may come when the mark is not reached yet, and the wire holds the one before it.
    assert!(server.queued_max() < 4_200_000, "{} bytes waited", server.queued_max());
    stream.write_all(&frame(0x81, b"4reply:and on")).await.unwrap();
    assert_eq!(read_slowly(&mut stream, 1).await, [6]);
}

#[tokio::test]
async fn a_client_that_reads_none_of_its_answers_is_found_by_the_heartbeat() {
    let mut server = Server::start(quick_heartbeat()).await;
    let mut stream = dial_with_small_buffer(&server).await;
    for _ in 0..15 {
        stream.write_all(&frame(0x81, b"4answer:1800000")).await.unwrap();
    }
    assert_eq!(server.closed().await, CloseReason::PingTimeout);
}

#[tokio::test]
async fn two_bodies_of_requests_before_the_next_poll_are_answered() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let body = vec![format!("4reply:{}", "x".repeat(100_000)); 9].join("\x1e");
    for _ in 0..2 {
        assert_eq!(server.post(&session, &body).await.body, "ok");
    }
    let mut answers = 0;
    while answers < 18 {
        let polled = server.get(&session).await;
        assert_eq!(polled.status, 200, "after {answers}");
        assert!(polled.body.split('\x1e').all(|packet| packet.len() == 100_001));
        answers += polled.body.split('\x1e').count();
    }
    assert!(server.queued_max() < 500_000, "{} bytes waited", server.queued_max());
}

#[tokio::test]
async fn a_poll_carries_sixteen_packets_and_a_payload_at_most() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    server.post(&session, &vec!["4answer:1"; 41].join("\x1e")).await;
    let mut counts = Vec::new();
    while counts.iter().sum::<usize>() < 41 {
        counts.push(server.get(&session).await.body.split('\x1e').count());
    }
    assert!(counts.iter().all(|count| *count <= 16), "{counts:?}");
    server.post(&session, &["4long:400000"; 2].join("\x1e")).await;
    server.post(&session, "4long:400000").await;
    let sizes = [server.get(&session).await.body.len(), server.get(&session).await.body.len()];
    assert_eq!(sizes, [800_003, 400_001]);
}

#[tokio::test]
async fn a_poll_that_takes_long_to_read_is_not_a_missing_pong() {
    let (ping_interval, ping_timeout) = (Duration::from_millis(100), Duration::from_millis(200));
    let mut server = Server::start(Config { ping_interval, ping_timeout, ..Config::default() }).await;
    let session = server.open().await;
    server.post(&session, "4answer:1800000").await;
    let mut stream = server.send("GET", &session, &[], "").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!server.has_closed());
    assert_eq!(Answer::read(&mut stream).await.body.len(), 1_800_001);
    let polled = server.get(&session).await;
    assert_eq!((polled.status, &*polled.body), (200, "2"));
    assert_eq!(server.closed().await, CloseReason::PingTimeout, "now it has read everything");
}
