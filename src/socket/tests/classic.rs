//! Tests of a namespace that is shared with Node.js servers, whose messages are written by hand here.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::bus::metrics::{Drop, MESSAGES_DROPPED};
use crate::bus::sim::SimBus;
use crate::bus::{Pipe, Subscription};
use crate::socket::tests::{join, rooms, settle, text};
use crate::socket::{Namespace, NamespaceBuilder, Server};

const REQUESTS: &str = "-request#/#";
const RESPONSES: &str = "-response#/#";

/// One imks server on a bus on which the test is everybody else.
struct Cluster {
    bus: SimBus,
    server: Server,
    requests: Subscription,
    responses: Subscription,
    broadcasts: Subscription,
}

impl Cluster {
    /// The test is one Node.js server, because it subscribes to the channel of requests.
    async fn new(describe: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let bus = SimBus::default();
        let server = node(&bus, describe);
        let pipe = bus.pipe();
        // The server learns that its subscription is complete.
        tokio::task::yield_now().await;
        let (requests, responses) = (pipe.subscribe(REQUESTS), pipe.subscribe(RESPONSES));
        let broadcasts = pipe.subscribe_all(&["#/#*"]);
        Self { bus, server, requests, responses, broadcasts }
    }

    fn says(&self, channel: &str, message: impl Into<Bytes>) {
        self.bus.pipe().publish(channel, message.into());
    }

    fn asks(&self, request: &Value) {
        self.says(REQUESTS, request.to_string());
    }

    fn answers(&self, response: &Value) {
        self.says(RESPONSES, response.to_string());
    }

    async fn request(&mut self) -> Value {
        serde_json::from_slice(&self.requests.recv().await.unwrap()).unwrap()
    }

    async fn response(&mut self) -> Value {
        serde_json::from_slice(&self.responses.recv().await.unwrap()).unwrap()
    }

    fn main(&self) -> Namespace {
        self.server.namespace("/").unwrap().clone()
    }
}

fn node(bus: &SimBus, describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
    let pipe = bus.pipe();
    let server = Server::builder(Default::default()).namespace("/", |namespace| {
        namespace.classic(pipe);
        describe(namespace);
    });
    let server = server.build().unwrap();
    server.listen_to_bus();
    server
}

/// A broadcast in msgpack, with the arguments and options as JSON.
fn broadcast(uid: &str, data: Value, rooms: Value, flags: Value) -> Vec<u8> {
    let packet = json!({ "type": 2, "data": data, "nsp": "/" });
    rmp_serde::to_vec_named(&(uid, packet, json!({ "rooms": rooms, "flags": flags, "except": [] }))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn servers_reach_each_others_clients_and_ignore_what_they_have_said_themselves() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    let ((anna, _), (bert, bert_id)) = (join(&first).await, join(&second).await);
    bert.send(r#"2["join","7"]"#);
    settle(&bert).await;
    let main = first.namespace("/").unwrap();
    main.emit("hi", &json!({ "a": [1.5] })).unwrap();
    assert_eq!(text(&anna).await, r#"2["hi",{"a":[1.5]}]"#);
    assert_eq!(text(&bert).await, r#"2["hi",{"a":[1.5]}]"#);
    main.to("7").emit("seven", &7).unwrap();
    assert_eq!(text(&bert).await, r#"2["seven",7]"#);
    assert_eq!(main.server_count().await, 2);
    let fetched = main.fetch_sockets().await.unwrap();
    assert_eq!((fetched.sockets.len(), fetched.silent.len()), (2, 0));
    let remote = fetched.sockets.iter().find(|socket| socket.id() == bert_id).unwrap();
    assert_eq!(remote.handshake().transport, "websocket");
    remote.join("s").unwrap();
    main.to("s").emit("in s", &1).unwrap();
    assert_eq!(text(&bert).await, r#"2["in s",1]"#);
    main.everybody().disconnect_sockets(false).unwrap();
    assert_eq!((text(&anna).await, text(&bert).await), ("1".into(), "1".into()));
}

#[tokio::test(start_paused = true)]
async fn what_emitters_send_arrives_once_with_dates_as_text_and_numbers_as_rooms() {
    let cluster = Cluster::new(|namespace| {
        rooms(namespace);
        namespace.on_server_event("tell", |event| async move {
            let told: u8 = event.args().first().unwrap();
            event.namespace().everybody().local().emit("told", &told).unwrap();
        });
    })
    .await;
    let (anna, _) = join(&cluster.server).await;
    anna.send(r#"2["join","12"]"#);
    settle(&anna).await;
    let mut date = broadcast("emitter", json!(["when", "D"]), json!([12]), json!({ "volatile": true }));
    let place = date.windows(2).position(|pair| pair == b"\xa1D").unwrap();
    date.splice(place..place + 2, *b"\xd6\xff\x00\x00\x00\x01");
    cluster.says("#/#12#", date);
    assert_eq!(text(&anna).await, r#"2["when","1970-01-01T00:00:01.000Z"]"#);
    cluster.says("#/#other#", broadcast("emitter", json!(["no"]), json!(["other"]), json!({})));
    let own = cluster.server.node().to_string();
    cluster.says("#/#", broadcast(&own, json!(["own"]), json!([]), json!({})));
    cluster.asks(&json!({ "type": 2, "opts": { "rooms": [12], "except": [] }, "rooms": ["x"] }));
    cluster.says("#/#x#", broadcast("emitter", json!(["yes"]), json!(["x"]), json!({})));
    assert_eq!(text(&anna).await, r#"2["yes"]"#);
    // A server event without an answer: what its handler does is seen.
    cluster.asks(&json!({ "uid": "emitter", "type": 6, "data": ["tell", 1] }));
    assert_eq!(text(&anna).await, r#"2["told",1]"#);
    cluster.asks(&json!({ "type": 4, "opts": { "rooms": ["x"], "except": [] } }));
    assert_eq!(text(&anna).await, "1");
}

#[tokio::test(start_paused = true)]
async fn every_request_is_answered() {
    let mut cluster = Cluster::new(|namespace| {
        rooms(namespace);
        namespace.on_server_event("question", |mut event| async move {
            let answer = json!({ "of": event.node().to_string(), "to": event.args().json() });
            event.answer(&answer).unwrap();
        });
    })
    .await;
    let (anna, id) = join(&cluster.server).await;
    anna.send(r#"2["join","r"]"#);
    settle(&anna).await;
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "a", "type": 0, "rooms": ["r"] }));
    assert_eq!(cluster.response().await, json!({ "requestId": "a", "sockets": [id] }));
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "b", "type": 1 }));
    assert_eq!(cluster.response().await, json!({ "requestId": "b", "rooms": ["r", id] }));
    let all = json!({ "rooms": [], "except": [] });
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "c", "type": 5, "opts": all }));
    let fetched = cluster.response().await;
    let socket = &fetched["sockets"][0];
    assert_eq!((&socket["id"], &socket["data"]), (&json!(id), &json!({})));
    assert_eq!(socket["handshake"]["auth"], json!({}));
    assert!(socket["handshake"]["issued"].as_i64().unwrap() > 1_700_000_000_000, "{socket}");
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "d", "type": 6, "data": ["question", 1] }));
    let answer = json!({ "of": "KD2JDGA", "to": "1" });
    assert_eq!(cluster.response().await, json!({ "type": 6, "requestId": "d", "data": answer }));
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "e", "type": 6, "data": ["nobody handles it"] }));
    assert_eq!(cluster.response().await, json!({ "type": 6, "requestId": "e" }));
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "f", "type": 2, "sid": id, "room": "old" }));
    assert_eq!(cluster.response().await, json!({ "requestId": "f" }));
    assert!(cluster.main().socket(&id).unwrap().rooms().iter().any(|room| **room == *"old"));
    let packet = json!({ "type": 2, "data": ["vote"], "nsp": "/" });
    let opts = json!({ "rooms": ["r"], "except": [], "flags": { "timeout": 9_000 } });
    let vote = json!({ "uid": "KD2JDG", "requestId": "g", "type": 7, "packet": packet, "opts": opts });
    cluster.says(REQUESTS, rmp_serde::to_vec_named(&vote).unwrap());
    assert_eq!(cluster.response().await, json!({ "type": 8, "requestId": "g", "clientCount": 1 }));
    let number = text(&anna).await.trim_start_matches('2').split('[').next().unwrap().to_owned();
    anna.send(&format!(r#"3{number}["yes",2]"#));
    let ack: Value = rmp_serde::from_slice(&cluster.responses.recv().await.unwrap()).unwrap();
    assert_eq!(ack, json!({ "type": 9, "requestId": "g", "packet": "yes" }));
}

#[tokio::test(start_paused = true)]
async fn node_servers_are_asked_and_who_is_silent_costs_one_deadline_and_is_counted() {
    let mut cluster = Cluster::new(rooms).await;
    let silent = cluster.bus.pipe();
    let _silent = silent.subscribe(REQUESTS);
    let main = cluster.main();
    assert_eq!(main.server_count().await, 3);
    let fetching = TaskTracker::new().spawn({
        let main = main.clone();
        async move { main.fetch_sockets().await.unwrap() }
    });
    let request = cluster.request().await;
    assert_eq!((&request["type"], &request["opts"]), (&json!(5), &json!({ "rooms": [], "except": [] })));
    let handshake = json!({
        "headers": { "cookie": "secret", "x-a": ["1", "2"] }, "address": "::1", "xdomain": false, "secure": true,
        "issued": 1_700_000_000_000_i64, "url": "/socket.io/?a=b", "query": { "transport": "polling" }, "auth": {},
    });
    let socket =
        json!({ "id": "A2345678901234567890", "handshake": handshake, "rooms": ["x", 7], "data": 1 });
    cluster.answers(&json!({ "requestId": "not ours", "sockets": [socket] }));
    cluster.answers(&json!({ "requestId": request["requestId"], "sockets": [socket] }));
    let started = tokio::time::Instant::now();
    let fetched = fetching.await.unwrap();
    assert_eq!((fetched.sockets.len(), fetched.silent.len()), (1, 1));
    assert!(started.elapsed() <= Duration::from_secs(6), "{:?}", started.elapsed());
    let socket = &fetched.sockets[0];
    assert_eq!((socket.rooms(), socket.data()), (&["x".to_owned(), "7".to_owned()][..], &json!(1)));
    assert_eq!((&*socket.handshake().transport, socket.handshake().headers.len()), ("polling", 2));
}

#[tokio::test(start_paused = true)]
async fn rooms_of_node_servers_are_listed_once_and_who_has_no_answer_is_not_waited_for() {
    let mut cluster = Cluster::new(rooms).await;
    let silent = cluster.bus.pipe();
    let _silent = silent.subscribe(REQUESTS);
    let main = cluster.main();
    let asking = TaskTracker::new().spawn({
        let main = main.clone();
        async move { main.all_rooms().await.unwrap() }
    });
    let request = cluster.request().await;
    assert_eq!(request["type"], 1);
    for rooms in [json!(["x", 7]), json!(["x", "y"])] {
        cluster.answers(&json!({ "requestId": request["requestId"], "rooms": rooms }));
    }
    let all = asking.await.unwrap();
    assert_eq!(
        (all.rooms.into_iter().collect::<Vec<_>>(), all.silent.len()),
        (["7", "x", "y"].map(String::from).to_vec(), 0)
    );

    let asking = TaskTracker::new().spawn({
        let main = main.clone();
        async move { main.server_side_emit_with_ack("q", &(1,), Duration::from_secs(2)).await.unwrap() }
    });
    let request = cluster.request().await;
    assert_eq!((&request["type"], &request["data"]), (&json!(6), &json!(["q", 1])));
    cluster.answers(&json!({ "type": 6, "requestId": request["requestId"], "data": "fine" }));
    cluster.answers(&json!({ "type": 6, "requestId": request["requestId"] }));
    let started = tokio::time::Instant::now();
    let answered = asking.await.unwrap();
    assert_eq!((answered.answers[0].1.json(), answered.silent.len()), (r#""fine""#, 1));
    assert!(started.elapsed() < Duration::from_secs(1), "nobody is waited for who has no answer");
}

#[tokio::test(start_paused = true)]
async fn acks_of_clients_of_node_servers_are_counted() {
    let mut cluster = Cluster::new(rooms).await;
    let (anna, _) = join(&cluster.server).await;
    let asking = TaskTracker::new().spawn({
        let main = cluster.main();
        async move { main.emit_with_ack("vote", &(1,), Duration::from_secs(3)).await.unwrap() }
    });
    let request: Value = rmp_serde::from_slice(&cluster.requests.recv().await.unwrap()).unwrap();
    assert_eq!(request["opts"]["flags"], json!({ "timeout": 3_000 }));
    assert_eq!(request["packet"], json!({ "type": 2, "data": ["vote", 1], "nsp": "/" }));
    let id = &request["requestId"];
    let ack = |value: u8| json!({ "type": 9, "requestId": id, "packet": value });
    cluster.answers(&json!({ "type": 8, "requestId": id, "clientCount": 2 }));
    for value in [4, 5] {
        cluster.says(RESPONSES, rmp_serde::to_vec_named(&ack(value)).unwrap());
    }
    let number = text(&anna).await.trim_start_matches('2').split('[').next().unwrap().to_owned();
    anna.send(&format!("3{number}[3]"));
    let answers = asking.await.unwrap();
    assert!(answers.is_complete());
    let mut values = answers.first::<u8>().unwrap();
    values.sort_unstable();
    assert_eq!(values, [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn broken_and_foreign_messages_are_counted_and_harm_nobody() {
    let mut cluster = Cluster::new(rooms).await;
    let (anna, _) = join(&cluster.server).await;
    let before = MESSAGES_DROPPED.of(Drop::Unreadable).get();
    let broken: [&[u8]; 8] = [
        b"",
        b"{",
        b"\x93\xa1a",
        b"\xc1",
        br#"{"uid":"23e42783bef100fc","nsp":"/","type":3,"data":{}}"#,
        br#"{"type":5,"requestId":"a"}"#,
        br#"{"type":6,"requestId":"a","data":[null]}"#,
        &[0x90; 100_000],
    ];
    for message in broken {
        cluster.says("#/#", message.to_vec());
        cluster.says(REQUESTS, message.to_vec());
        cluster.says(RESPONSES, message.to_vec());
    }
    cluster.says("#/#", broadcast("emitter", json!(["still here"]), json!([]), json!({})));
    assert_eq!(text(&anna).await, r#"2["still here"]"#);
    cluster.asks(&json!({ "uid": "KD2JDG", "requestId": "z", "type": 1 }));
    while let Ok(response) = tokio::time::timeout(Duration::from_secs(1), cluster.responses.recv()).await {
        let response: Value = serde_json::from_slice(&response.unwrap()).unwrap_or_default();
        if response["requestId"] == "z" {
            assert!(MESSAGES_DROPPED.of(Drop::Unreadable).get() >= before + 16);
            return;
        }
    }
    panic!("no answer to a good request after broken ones");
}

#[tokio::test(start_paused = true)]
async fn what_this_server_sends_looks_like_the_broadcast_of_a_node_server() {
    let mut cluster = Cluster::new(rooms).await;
    cluster.main().to("r").except("x").volatile().emit("said", &json!({ "a": null })).unwrap();
    let sent: Value = rmp_serde::from_slice(&cluster.broadcasts.recv().await.unwrap()).unwrap();
    let packet = json!({ "type": 2, "data": ["said", { "a": null }], "nsp": "/" });
    let options = json!({ "rooms": ["r"], "except": ["x"], "flags": { "volatile": true } });
    assert_eq!(sent, json!([cluster.server.node().to_string(), packet, options]));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_counted_any_more() {
    let cluster = Cluster::new(rooms).await;
    let pipe = cluster.bus.pipe();
    assert_eq!(pipe.subscribers(REQUESTS).await, Some(2));
    cluster.server.close().await;
    assert_eq!(pipe.subscribers(REQUESTS).await, Some(1));
    let builder = |path: &str| {
        let pipe = cluster.bus.pipe();
        let server = Server::builder(Default::default());
        server
            .namespace(path, |namespace| {
                namespace.classic(pipe);
            })
            .build()
    };
    assert!(builder("/a#b").is_err(), "its channels could be those of the room b of /a");
    assert!(builder("/a").is_ok());
}
