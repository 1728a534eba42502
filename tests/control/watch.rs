//! The feed for back ends: a stream over gRPC, a long poll over HTTP.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use imks::testing::clock::now_micros;
use imks::testing::models::api_key;
use imks::testing::pb::control::gap::Reason;
use imks::testing::pb::control::watch_response::Event;
use imks::testing::pb::control::{
    Content, Durable, SendMessageAsRequest, SendMessagesRequest, WatchRequest, WatchResponse,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::backend::Backend;
use crate::http_request::{Response, send};
use crate::on_both;
use crate::server::Kind;

fn from(cursor: &str) -> WatchRequest {
    WatchRequest { cursor: cursor.into(), ..WatchRequest::default() }
}

async fn try_watch(backend: &Backend, request: WatchRequest) -> Result<Streaming<WatchResponse>, Status> {
    Ok(backend.grpc().await.watch(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<WatchResponse>) -> Result<WatchResponse, Status> {
    let next = timeout(Duration::from_secs(20), stream.message()).await.expect("news in time");
    next.map(|item| item.expect("a stream that goes on"))
}

/// A stream that has begun, and its first cursor.
async fn watch(backend: &Backend, request: WatchRequest) -> (Streaming<WatchResponse>, String) {
    let mut stream = try_watch(backend, request).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    assert!(matches!(first.event, Some(Event::Heartbeat(_))), "{first:?}");
    (stream, first.cursor)
}

/// The next events with their cursors; heartbeats are passed over.
async fn events(stream: &mut Streaming<WatchResponse>, count: usize) -> Vec<(Durable, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        let WatchResponse { cursor, event } = next(stream).await.unwrap();
        match event.unwrap() {
            Event::Durable(event) => all.push((event, cursor)),
            Event::Heartbeat(_) => {}
            Event::Gap(_) => panic!("a gap"),
        }
    }
    all
}

async fn write(backend: &Backend, channel: &str, bodies: impl IntoIterator<Item = String>) {
    let message = |body| SendMessageAsRequest {
        channel_id: channel.into(),
        content: Some(Content { body, ..Content::default() }),
        ..SendMessageAsRequest::default()
    };
    let messages = bodies.into_iter().map(message).collect();
    let sent = backend.grpc().await.send_messages(SendMessagesRequest { messages }).await.unwrap();
    assert!(sent.into_inner().results.iter().all(|it| format!("{it:?}").contains("Stored")));
}

fn body(event: &Durable) -> String {
    let message: Value = serde_json::from_str(&event.message_json).unwrap();
    message["body"].as_str().unwrap().to_owned()
}

async fn get_as(backend: &Backend, key: &str, query: &str) -> Response {
    let key = format!("Bearer {key}");
    let headers = [("authorization", key.as_str())];
    send(backend.addr(), &format!("GET /api/v1/admin/events?{query}"), &headers, "").await
}

on_both! {
    async fn a_stream_misses_nothing_and_repeats_nothing_while_many_write(backend: Backend) {
        let mut channels = Vec::new();
        for name in ["one", "two", "three"] {
            channels.push(backend.channel(name, &["alice"]).await);
        }
        let (mut stream, _) = watch(&backend, from("")).await;
        let writers = (0..9).map(|n| {
            let (backend, channel) = (&backend, &channels[n % 3]);
            async move {
                for round in 0..5 {
                    write(backend, channel, (0..5).map(|m| format!("{n} {round} {m}"))).await;
                }
            }
        });
        let (_, told) = tokio::join!(join_all(writers), events(&mut stream, 225));
        let mut seqs: HashMap<String, Vec<i64>> = HashMap::new();
        for (event, _) in &told {
            assert_eq!((&*event.event, event.rev), ("message:new", 0));
            seqs.entry(event.channel_id.clone()).or_default().push(event.seq);
        }
        for channel in &channels {
            assert_eq!(seqs[channel], (1..=75).collect::<Vec<_>>());
        }
    }

    async fn a_stream_goes_on_after_the_cursor_of_the_last_event_that_was_handled(backend: Backend) {
        let channel = backend.channel("resumed", &["alice"]).await;
        let (mut stream, start) = watch(&backend, from("")).await;
        write(&backend, &channel, (0..12).map(|n| n.to_string())).await;
        let cursor = events(&mut stream, 5).await.pop().unwrap().1;
        drop(stream);
        write(&backend, &channel, ["12".to_owned()]).await;
        let (mut again, _) = watch(&backend, from(&cursor)).await;
        let bodies: Vec<_> = events(&mut again, 8).await.iter().map(|(event, _)| body(event)).collect();
        assert_eq!(bodies, (5..13).map(|n| n.to_string()).collect::<Vec<_>>());
        let (mut all, _) = watch(&backend, from(&start)).await;
        assert_eq!(body(&events(&mut all, 13).await[0].0), "0", "the first heartbeat has a cursor, too");
    }

    async fn who_has_a_cursor_of_events_that_are_gone_is_told_so_and_goes_on(backend: Backend) {
        let channel = backend.channel("gap", &["alice"]).await;
        write(&backend, &channel, ["kept".to_owned()]).await;
        let mut stream = try_watch(&backend, from("999999999.0")).await.unwrap();
        let gap = loop {
            let item = next(&mut stream).await.unwrap();
            match item.event.unwrap() {
                Event::Gap(gap) => {
                    assert_eq!(gap.reason(), Reason::UnknownCursor);
                    break item.cursor;
                }
                Event::Heartbeat(_) => {}
                Event::Durable(event) => panic!("before the gap: {event:?}"),
            }
        };
        assert_eq!(body(&events(&mut stream, 1).await[0].0), "kept");
        let polled = backend.get("/events?cursor=999999999.0&wait=20").await.data();
        assert_eq!(polled, json!({ "events": [], "cursor": gap, "gap": true, "gap_reason": "unknown_cursor" }));
        let polled = backend.get(&format!("/events?cursor={gap}&wait=20")).await.data();
        assert_eq!(polled["events"][0]["message"]["body"], "kept");
    }

    async fn a_filter_leaves_out_other_channels_and_other_events(backend: Backend) {
        let (wanted, other) = (backend.channel("wanted", &["alice"]).await, backend.channel("other", &["alice"]).await);
        let of_channel = WatchRequest { channel_ids: vec![wanted.clone()], ..WatchRequest::default() };
        let (mut stream, start) = watch(&backend, of_channel).await;
        write(&backend, &other, ["no".to_owned()]).await;
        write(&backend, &wanted, ["yes".to_owned()]).await;
        assert_eq!(body(&events(&mut stream, 1).await[0].0), "yes");
        let polled = backend.get(&format!("/events?cursor={start}&channel_ids={other}&events=message:new,message:updated")).await;
        assert_eq!(polled.data()["events"][0]["message"]["body"], "no");
        let none = backend.get(&format!("/events?cursor={start}&events=message:deleted&wait=1")).await.data();
        assert_eq!(none["events"], json!([]));
        for (query, field) in [("events=message", "events"), ("channel_ids=x", "channel_ids"), ("cursor=x", "cursor"), ("wait=26", "wait"), ("wait=0", "wait")] {
            let refused = backend.get(&format!("/events?{query}")).await;
            assert_eq!((refused.status, refused.field()), (400, field), "{}", refused.body);
        }
        let many = WatchRequest { channel_ids: vec![wanted; 1_001], ..WatchRequest::default() };
        assert_eq!(try_watch(&backend, many).await.unwrap_err().code(), Code::InvalidArgument);
    }

    async fn a_long_poll_is_answered_as_soon_as_something_happens(backend: Backend) {
        let channel = backend.channel("polled", &["alice"]).await;
        let cursor = backend.get("/events?wait=1").await.data()["cursor"].as_str().unwrap().to_owned();
        let query = format!("/events?cursor={cursor}&wait=25");
        let write = async {
            write(&backend, &channel, ["now".to_owned()]).await;
        };
        let (polled, ()) = tokio::join!(timeout(Duration::from_secs(20), backend.get(&query)), write);
        let polled = polled.expect("an answer before the wait is over").data();
        let event = &polled["events"][0];
        assert_eq!((&event["event"], &event["channel_id"]), (&json!("message:new"), &json!(channel)));
        assert_eq!((&event["seq"], &event["rev"], &event["message"]["body"]), (&json!(1), &json!(0), &json!("now")));
        assert_eq!((&event["actor_id"], &polled["gap"]), (&event["message"]["author"]["id"], &json!(false)));
        let cursor = polled["cursor"].as_str().unwrap();
        assert_eq!(backend.get(&format!("/events?cursor={cursor}&wait=1")).await.data()["events"], json!([]));
    }

    async fn an_answer_has_at_most_a_hundred_events_and_a_mebibyte(backend: Backend) {
        let channel = backend.channel("large", &["alice"]).await;
        for _ in 0..3 {
            write(&backend, &channel, (0..50).map(|_| "ä".repeat(8_000))).await;
        }
        let (mut cursor, mut seqs) = ("0".to_owned(), Vec::new());
        while seqs.len() < 150 {
            let polled = backend.get(&format!("/events?cursor={cursor}&channel_ids={channel}")).await;
            assert!(polled.body.to_string().len() <= (1 << 20) + 1_000);
            let data = polled.data();
            let events = data["events"].as_array().unwrap();
            assert!((1..=100).contains(&events.len()));
            seqs.extend(events.iter().map(|event| event["seq"].as_i64().unwrap()));
            cursor = data["cursor"].as_str().unwrap().to_owned();
        }
        assert_eq!(seqs, (1..=150).collect::<Vec<_>>());
    }

    async fn who_does_not_read_keeps_nobody_waiting_and_misses_nothing(backend: Backend) {
        let channel = backend.channel("slow", &["alice"]).await;
        let (mut slow, _) = watch(&backend, from("")).await;
        let (mut quick, _) = watch(&backend, from("")).await;
        for _ in 0..6 {
            write(&backend, &channel, (0..50).map(|_| "ä".repeat(8_000))).await;
        }
        events(&mut quick, 300).await;
        let seqs: Vec<i64> = events(&mut slow, 300).await.iter().map(|(event, _)| event.seq).collect();
        assert_eq!(seqs, (1..=300).collect::<Vec<_>>());
    }

    async fn who_follows_and_does_not_read_holds_no_connection_to_the_database(backend: Backend) {
        let channel = backend.channel("slow", &["alice"]).await;
        let mut unread = Vec::new();
        for _ in 0..10 {
            unread.push(watch(&backend, from("")).await);
        }
        let polls = (0..5).map(|_| backend.get("/events?wait=25"));
        let waiting = join_all(polls);
        let read = async {
            for _ in 0..3 {
                write(&backend, &channel, (0..50).map(|_| "ä".repeat(8_000))).await;
            }
            let path = format!("/channels/{channel}/messages?limit=1");
            join_all((0..30).map(|_| backend.get(&path))).await
        };
        let (_, read) = tokio::join!(waiting, read);
        assert!(read.iter().all(|answer| answer.status == 200), "with fewer connections than followers");
    }

    async fn only_a_key_that_may_read_follows_the_feed(backend: Backend) {
        let key = backend.key("writer", "publish").await;
        let refused = backend.grpc_with(&key).await.watch(from("")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(get_as(&backend, &key, "wait=1").await.code(), (403, "forbidden"));
    }

    async fn a_key_has_a_bounded_number_of_streams(backend: Backend) {
        let mut streams = Vec::new();
        for _ in 0..16 {
            streams.push(watch(&backend, from("")).await);
        }
        let refused = try_watch(&backend, from("")).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(backend.get("/events?wait=1").await.code(), (429, "rate_limited"));
        let other = backend.key("other", "read").await;
        assert_eq!(get_as(&backend, &other, "wait=1").await.status, 200, "others have their own");
        streams.pop();
        while backend.get("/events?wait=1").await.status != 200 {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_tell_the_lag_and_end_a_stream_whose_key_was_revoked() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let backend =
            Backend::start_with(kind, |config| config.control.heartbeat = Duration::from_millis(50)).await;
        let key = backend.key("short", "read").await;
        let mut stream = backend.grpc_with(&key).await.watch(from("")).await.unwrap().into_inner();
        for _ in 0..3 {
            let Some(Event::Heartbeat(beat)) = next(&mut stream).await.unwrap().event else {
                panic!("no heartbeat")
            };
            assert!(beat.at_us > 0 && beat.lag_us == 0, "{beat:?}");
        }
        let db = backend.db().await;
        api_key::revoke(&db, "short", now_micros()).await.unwrap();
        db.close().await;
        let ended = loop {
            if let Err(status) = next(&mut stream).await {
                break status;
            }
        };
        assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
        backend.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_tells_its_streams_to_come_again() {
    let backend = Backend::start(Kind::Sqlite).await;
    let (mut stream, _) = watch(&backend, from("")).await;
    let (ended, ()) = tokio::join!(async { next(&mut stream).await.unwrap_err() }, backend.stop());
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(!ended.details().is_empty(), "it is a status of the server, not of a broken connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_feed_says_which_setting_it_needs() {
    let off = |config: &mut imks::testing::config::Config| config.feed.retention = Duration::ZERO;
    let backend = Backend::start_with(Kind::Sqlite, off).await;
    let refused = try_watch(&backend, from("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("IMKS_FEED_RETENTION"), "{refused:?}");
    assert_eq!(backend.get("/events").await.code(), (422, "failed_precondition"));
    backend.stop().await;
}
