//! HTTP long-polling.

use std::{
    io::{Read, Write},
    time::Duration,
};

use imks::engine::{CloseReason, Config};
use tokio::io::AsyncWriteExt;

use super::support::*;

const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;

#[tokio::test]
async fn messages_are_echoed_in_one_payload() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let posted = server.post(&session, "4hello\x1ebAQIDBA==\x1e4é€😀").await;
    assert_eq!(
        (posted.status, posted.body.as_str(), posted.header("content-type")),
        (200, "ok", Some("text/html"))
    );
    let polled = server.get(&session).await;
    assert_eq!(polled.body, "4hello\x1ebAQIDBA==\x1e4é€😀");
    assert_eq!(polled.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(polled.header("content-length"), Some(polled.bytes.len().to_string().as_str()));
}

#[tokio::test]
async fn a_poll_that_waits_is_answered_when_there_is_something() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let (polled, posted) = tokio::join!(server.get(&session), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        server.post(&session, "4late").await
    });
    assert_eq!((polled.body.as_str(), posted.status), ("4late", 200));
}

#[tokio::test]
async fn overlapping_polls_end_the_session() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    let (first, second) = tokio::join!(server.get(&session), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        server.get(&session).await
    });
    assert_eq!((first.status, first.body.as_str()), (200, "1"));
    assert_eq!((second.status, second.body.as_str()), (400, BAD_REQUEST));
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert_eq!(server.get(&session).await.status, 400);
}

#[tokio::test]
async fn overlapping_posts_end_the_session() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    let head = format!("POST {session} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n4a");
    let mut slow = server.raw(&head).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let second = server.post(&session, "4b").await;
    assert_eq!((second.status, second.body.as_str()), (400, BAD_REQUEST));
    assert_eq!(server.closed().await, CloseReason::TransportError);
    let first = read_head(&mut slow).await;
    assert!(first.starts_with("HTTP/1.1 400"), "nobody waits for the rest of the body: {first}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_request_ends_the_session_at_once() {
    let mut server = Server::start(Config::default()).await;
    let poll = server.open().await;
    let held = server.send("GET", &poll, &[], "").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(held);
    assert_eq!(server.closed().await, CloseReason::TransportError);
    let post = server.open().await;
    drop(server.raw(&format!("POST {post} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n4a")).await);
    assert_eq!(server.closed().await, CloseReason::TransportError);
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn a_body_above_the_limit_ends_the_session() {
    let mut server = Server::start(Config { max_payload: 100, ..Config::default() }).await;
    let session = server.open().await;
    assert_eq!(server.post(&session, &format!("4{}", "a".repeat(99))).await.body, "ok");
    let declared = server.post(&session, &"4".repeat(101)).await;
    // The test suite of the reference client expects an empty body here.
    assert_eq!((declared.status, declared.body.as_str()), (413, ""));
    assert_eq!(server.closed().await, CloseReason::TooLarge);
    assert_eq!(server.post(&session, "4a").await.status, 400);
    let session = server.open().await;
    let chunk = format!("40\r\n{}\r\n", "4".repeat(64));
    let head = format!(
        "POST {session} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut streamed = server.raw(&format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(Answer::read(&mut streamed).await.status, 413);
    assert_eq!(server.closed().await, CloseReason::TooLarge);
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut() {
    let mut server =
        Server::start(Config { body_timeout: Duration::from_millis(50), ..Config::default() }).await;
    let session = server.open().await;
    let head =
        format!("POST {session} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\n4a");
    let mut slow = server.raw(&head).await;
    let cut = Answer::read(&mut slow).await;
    assert_eq!((cut.status, cut.body.contains("timeout")), (408, true));
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn bodies_that_are_no_packets_end_the_session_after_the_good_ones() {
    let mut server = Server::start(Config::default()).await;
    for body in ["", "abc", "4a\x1e", "b!!!", "4a\x1e\x1e4b", "9"] {
        let session = server.open().await;
        let refused = server.post(&session, body).await;
        assert_eq!((refused.status, refused.body.as_str()), (400, BAD_REQUEST), "{body:?}");
        assert_eq!(server.closed().await, CloseReason::ParseError, "{body:?}");
        assert_eq!(server.get(&session).await.status, 400);
    }
    let session = server.open().await;
    assert_eq!(server.post(&session, "2").await.status, 200, "only the server pings");
    assert_eq!(server.closed().await, CloseReason::TransportError);
    let session = server.open().await;
    let binary = [("Content-Type", "application/octet-stream")];
    assert_eq!(server.request("POST", &session, &binary, "4a").await.status, 400);
    assert_eq!(server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_client_that_closes_gets_a_noop_on_its_poll_in_either_order() {
    let mut server = Server::start(Config::default()).await;
    for poll_first in [true, false] {
        let session = server.open().await;
        let late = Duration::from_millis(10);
        let (polled, posted) = tokio::join!(
            async {
                tokio::time::sleep(if poll_first { Duration::ZERO } else { late }).await;
                server.get(&session).await
            },
            async {
                tokio::time::sleep(if poll_first { late } else { Duration::ZERO }).await;
                server.post(&session, "1").await
            }
        );
        assert_eq!((polled.status, polled.body.as_str(), posted.body.as_str()), (200, "6", "ok"));
        assert_eq!(server.closed().await, CloseReason::TransportClose);
        assert_eq!(server.get(&session).await.status, 400);
    }
}

#[tokio::test]
async fn the_server_closes_after_what_is_queued_in_an_answer_of_its_own() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    assert_eq!(server.post(&session, "4close").await.body, "ok");
    assert_eq!(server.get(&session).await.body, "4last");
    assert_eq!(server.get(&session).await.body, "1");
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
    let session = server.open().await;
    let (polled, _) = tokio::join!(server.get(&session), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        server.post(&session, "4now").await
    });
    assert_eq!(polled.body, "1");
    assert_eq!(server.closed().await, CloseReason::ForcedClose);
}

#[tokio::test]
async fn a_close_that_nobody_polls_for_ends_at_its_deadline() {
    let mut server =
        Server::start(Config { close_timeout: Duration::from_millis(50), ..Config::default() }).await;
    let session = server.open().await;
    server.post(&session, "4shutdown").await;
    assert_eq!(server.closed().await, CloseReason::ServerShutdown);
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_poll_is_closed_as_slow() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    assert_eq!(server.post(&session, "4flood:17").await.status, 200);
    assert_eq!(server.closed().await, CloseReason::Slow);
}

#[tokio::test]
async fn the_ok_waits_while_the_holder_is_busy() {
    let server = Server::start(Config { inbound_messages_max: 2, ..Config::default() }).await;
    let session = server.open().await;
    assert_eq!(server.post(&session, "4deaf").await.status, 200);
    assert_eq!(server.post(&session, "4a\x1e4b").await.status, 200);
    let held = tokio::time::timeout(Duration::from_millis(50), server.post(&session, "4c")).await;
    assert!(held.is_err());
}

#[tokio::test]
async fn large_payloads_are_compressed_if_the_client_can() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    for (accepted, coding) in [("gzip, deflate", Some("gzip")), ("deflate", Some("deflate")), ("br", None)] {
        server.post(&session, "4long:2000").await;
        let polled = server.request("GET", &session, &[("Accept-Encoding", accepted)], "").await;
        assert_eq!(polled.header("content-encoding"), coding);
        let mut text = String::new();
        match coding {
            Some("gzip") => {
                flate2::read::GzDecoder::new(&polled.bytes[..]).read_to_string(&mut text).unwrap()
            }
            Some(_) => flate2::read::ZlibDecoder::new(&polled.bytes[..]).read_to_string(&mut text).unwrap(),
            None => (&polled.bytes[..]).read_to_string(&mut text).unwrap(),
        };
        assert_eq!(text, format!("4{}", "x".repeat(2000)));
    }
    server.post(&session, "4long:1000").await;
    let small = server.request("GET", &session, &[("Accept-Encoding", "gzip")], "").await;
    assert_eq!(small.header("content-encoding"), None);
}

#[tokio::test]
async fn a_compressed_body_is_not_inflated() {
    let mut server = Server::start(Config::default()).await;
    let session = server.open().await;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b'4'; 100 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let head = format!(
        "POST {session} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    let mut post = server.raw(&head).await;
    post.write_all(&bomb).await.unwrap();
    let refused = Answer::read(&mut post).await;
    assert_eq!((refused.status, refused.body.as_str()), (400, BAD_REQUEST), "it is no packet");
    assert_eq!(server.closed().await, CloseReason::ParseError);
}

#[tokio::test]
async fn a_payload_is_compressed_unless_no_packet_in_it_should_be() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    for (commands, coding) in [("4plain:2000", None), ("4plain:2000\x1e4long:1", Some("gzip"))] {
        server.post(&session, commands).await;
        let polled = server.request("GET", &session, &[("Accept-Encoding", "gzip")], "").await;
        assert_eq!(polled.header("content-encoding"), coding);
    }
}

#[tokio::test]
async fn a_producer_that_waits_for_room_does_not_lose_a_client_that_polls_slowly() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    assert_eq!(server.post(&session, "4pour:100").await.status, 200);
    let mut received = 0;
    while received < 100 {
        let answer = server.get(&session).await;
        assert_eq!(answer.status, 200);
        // Never more than the soft mark and one message.
        let packets = answer.body.split('\x1e').count();
        assert!(packets <= 5, "{packets}");
        received += packets;
    }
    assert_eq!(received, 100);
}
