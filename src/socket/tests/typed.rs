//! Tests of typed payloads: arguments, answers and binary fields.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::engine::{MemoryPeer, Message};
use crate::socket::tests::{join, server, settle, text};
use crate::socket::{Binary, EventError, Reply, Socket};

#[derive(Serialize, Deserialize)]
struct Upload {
    name: String,
    content: Binary,
}

async fn bytes(peer: &MemoryPeer) -> Bytes {
    match peer.recv().await {
        Some(Message::Binary(bytes)) => bytes,
        other => panic!("expected an attachment, got {other:?}"),
    }
}

#[tokio::test]
async fn a_handler_of_one_argument_needs_no_tuple() {
    let server = server(|ns| {
        ns.on_typed("join", |socket: Socket, room: String| async move {
            socket.join(&room);
            Reply(room)
        });
        ns.on_typed("sum", |_: Socket, numbers: Vec<u32>| async move { Reply(numbers.iter().sum::<u32>()) });
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"21["join","r"]"#);
    assert_eq!(text(&peer).await, r#"31["r"]"#);
    peer.send(r#"22["sum",[1,2,3]]"#);
    assert_eq!(text(&peer).await, "32[6]");
    peer.send(r#"23["join"]"#);
    assert!(text(&peer).await.starts_with(r#"33[{"error":"#));
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_told_to_the_client_and_to_the_application() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let server = server({
        let told = told.clone();
        move |ns| {
            ns.on_typed("join", |_: Socket, _: String| async {});
            ns.on_typed("add", |_: Socket, (a, b): (i32, i32)| async move { Reply(a + b) });
            ns.on_typed("upload", |_: Socket, _: Upload| async {});
            ns.on_typed("size", |_: Socket, size: Size| async move { Reply(size.0) });
            ns.on_event_refused(move |_, error| told.lock().push(error.message.clone()));
        }
    });
    let (peer, _) = join(&server).await;
    let cases = [
        (r#"["join",7]"#, "expected a string"),
        (r#"["join",["a"]]"#, "expected a string"),
        (r#"["join"]"#, "an argument is missing"),
        (r#"["join","a","b"]"#, "more arguments than one"),
        (r#"["add",1]"#, "expected a tuple of size 2"),
        (r#"["add",1,2,3]"#, "more arguments than are taken"),
        (r#"["add",1,"a secret, expected or not"]"#, "expected i32"),
        (r#"["add",[1,2]]"#, "expected i32"),
        (r#"["upload",{"name":"a"}]"#, "missing field `content`"),
        (r#"["size",0]"#, "a size is at least 1"),
    ];
    for (event, reason) in cases {
        peer.send(&format!("21{event}"));
        let answer = format!(r#"31[{{"error":{{"message":"wrong arguments: {reason}"}}}}]"#);
        assert_eq!(text(&peer).await, answer, "{event}");
    }
    peer.send(r#"2["join"]"#);
    settle(&peer).await;
    let reasons = cases.map(|(_, reason)| reason).into_iter().chain(["an argument is missing"]);
    let reasons: Vec<String> = reasons.map(|reason| format!("wrong arguments: {reason}")).collect();
    assert_eq!(*told.lock(), reasons);
}

/// A type with a check of its own.
#[derive(Deserialize)]
#[serde(try_from = "u32")]
struct Size(u32);

impl TryFrom<u32> for Size {
    type Error = &'static str;

    fn try_from(size: u32) -> Result<Self, Self::Error> {
        if size > 0 { Ok(Self(size)) } else { Err("a size is at least 1") }
    }
}

#[tokio::test]
async fn handlers_and_hooks_get_the_state_of_the_application() {
    let clients = Arc::new(AtomicU32::new(0));
    let names: Arc<[&str]> = Arc::new(["anna", "bert"]);
    let server = server(|ns| {
        ns.with_state(clients.clone())
            .on_connected(|_, clients| async move {
                clients.fetch_add(1, Ordering::Relaxed);
            })
            .on_disconnect(|_, _, clients| {
                clients.fetch_sub(1, Ordering::Relaxed);
            })
            .on_typed("clients", |_, (), clients| async move { Reply(clients.load(Ordering::Relaxed)) });
        ns.with_state(names).on_typed("name", |_, number: usize, names| async move {
            names.get(number).map(|name| Reply(*name)).ok_or_else(|| EventError::new("nobody"))
        });
    });
    let (first, _) = join(&server).await;
    let (second, _) = join(&server).await;
    for (question, answer) in [
        (r#"21["clients"]"#, "31[2]"),
        (r#"22["name",1]"#, r#"32["bert"]"#),
        (r#"23["name",2]"#, r#"33[{"error":{"message":"nobody"}}]"#),
    ] {
        first.send(question);
        assert_eq!(text(&first).await, answer);
    }
    second.send("1");
    first.send(r#"24["clients"]"#);
    assert_eq!(text(&first).await, "34[1]");
    assert_eq!(clients.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn arguments_arrive_as_a_tuple_and_what_the_handler_returns_is_the_answer() {
    let server = server(|ns| {
        ns.on_typed("add", |_: Socket, (a, b): (i32, i32)| async move { Reply(a + b) });
        ns.on_typed("nothing", |_: Socket, (): ()| async {});
        ns.on_typed("divide", |_: Socket, (a, b): (i32, i32)| async move {
            a.checked_div(b).map(Reply).ok_or_else(|| EventError::new("by zero"))
        });
    });
    let (peer, _) = join(&server).await;
    for (question, answer) in [
        (r#"21["add",1,2]"#, "31[3]"),
        (r#"22["nothing"]"#, "32[]"),
        (r#"23["divide",6,3]"#, "33[2]"),
        (r#"24["divide",6,0]"#, r#"34[{"error":{"message":"by zero"}}]"#),
    ] {
        peer.send(question);
        assert_eq!(text(&peer).await, answer);
    }
    for wrong in [r#"25["add",1]"#, r#"25["add",1,"2"]"#, r#"25["add",1,2,3]"#, r#"25["add"]"#] {
        peer.send(wrong);
        let answer = text(&peer).await;
        assert!(answer.starts_with(r#"35[{"error":{"message":""#), "{wrong}: {answer}");
    }
    peer.send(r#"2["add","no","answer wanted"]"#);
    settle(&peer).await;
}

#[tokio::test]
async fn a_binary_field_is_an_attachment_in_both_directions_and_is_not_copied() {
    let server = server(|ns| {
        ns.on_typed("echo", |_: Socket, (upload, more): (Upload, Vec<Binary>)| async move {
            Reply((upload.name, more, upload.content))
        });
        ns.on_sync("shared", |mut event| {
            let (content,): (Binary,) = event.parse().unwrap();
            let shared = content.as_ptr() == event.args().attachments()[0].as_ptr();
            event.take_ack().unwrap().send(&shared).unwrap();
        });
    });
    let (peer, _) = join(&server).await;
    let placeholder = |number: usize| format!(r#"{{"_placeholder":true,"num":{number}}}"#);
    peer.send(&format!(
        r#"53-7["echo",{{"name":"a","content":{}}},[{},{}]]"#,
        placeholder(2),
        placeholder(0),
        placeholder(1)
    ));
    for content in [b"zero" as &[u8], b"one", b"two"] {
        peer.send_message(Message::Binary(Bytes::copy_from_slice(content)));
    }
    let answer = format!(r#"63-7[["a",[{},{}],{}]]"#, placeholder(0), placeholder(1), placeholder(2));
    assert_eq!(text(&peer).await, answer);
    assert_eq!(
        (&*bytes(&peer).await, &*bytes(&peer).await, &*bytes(&peer).await),
        (b"zero" as &[u8], b"one" as &[u8], b"two" as &[u8])
    );
    peer.send(&format!(r#"51-8["shared",{}]"#, placeholder(0)));
    peer.send_message(Message::Binary(Bytes::from_static(b"x")));
    assert_eq!(text(&peer).await, "38[true]");
}

#[tokio::test]
async fn a_binary_value_can_be_emitted_to_one_and_to_many() {
    let server = server(|_| {});
    let (peer, id) = join(&server).await;
    let namespace = server.namespace("/").unwrap();
    let upload = Upload { name: "a".into(), content: vec![1, 2].into() };
    namespace.socket(&id).unwrap().emit_args("one", &(1, &upload)).unwrap();
    assert_eq!(text(&peer).await, r#"51-["one",1,{"name":"a","content":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(&*bytes(&peer).await, [1, 2]);
    namespace.emit("many", &upload.content).unwrap();
    assert_eq!(text(&peer).await, r#"51-["many",{"_placeholder":true,"num":0}]"#);
    assert_eq!(&*bytes(&peer).await, [1, 2]);
}

#[tokio::test]
async fn a_placeholder_without_its_attachment_is_no_binary_value() {
    let server = server(|ns| {
        ns.on_typed("size", |_: Socket, (content,): (Binary,)| async move { Reply(content.len()) });
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"21["size",{"_placeholder":true,"num":0}]"#);
    assert!(text(&peer).await.contains("error"));
    peer.send(r#"22["size",{"num":0}]"#);
    assert!(text(&peer).await.contains("error"));
    peer.send(r#"23["size",[1,2,3]]"#);
    assert_eq!(text(&peer).await, "33[3]");
    assert_eq!(serde_json::to_string(&Binary::from(vec![1, 2])).unwrap(), "[1,2]");
}

#[tokio::test(start_paused = true)]
async fn a_producer_can_wait_until_a_client_has_taken_what_was_sent() {
    let server = server(|ns| {
        ns.on_typed("many", |socket: Socket, (): ()| async move {
            for number in 0..10_000 {
                socket.emit("number", &number).map_err(EventError::from)?;
                socket.drained().await.map_err(EventError::from)?;
                tokio::task::yield_now().await;
            }
            Ok::<_, EventError>(Reply("done"))
        });
    });
    let (peer, id) = join(&server).await;
    peer.send(r#"21["many"]"#);
    let received = async {
        let mut last = text(&peer).await;
        while last.starts_with(r#"2["number""#) {
            last = text(&peer).await;
        }
        last
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), received).await.unwrap();
    assert_eq!(answer, r#"31["done"]"#);
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    peer.close();
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(socket.drained().await.unwrap_err().code(), "not_found");
}
