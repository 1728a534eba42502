//! The behaviours that the tests of the stock client describe (packages/socket.io-client/test of the reference), as far as
//! they make sense in Rust, with imks and with the reference as the server.
//!
//! | there | behaviour | here |
//! | --- | --- | --- |
//! | socket | the id is that of the server, in every namespace; another one after coming back anew | `the_id_of_a_socket_is_the_one_that_the_server_knows` |
//! | socket | query option, encoded | `a_query_arrives_as_it_was_written` |
//! | socket | auth option, object and function | `what_a_client_says_about_itself_arrives`, `conversation::credentials_are_asked_for_anew_whenever_a_namespace_is_joined` |
//! | socket | connect_error: nobody there, open timeout | `connection::whoever_cannot_connect_learns_the_cause_of_each_transport`, `connection::a_server_that_takes_a_connection_and_says_nothing_is_given_up` |
//! | socket | disconnect in opening state is no error | `who_leaves_before_it_has_come_hears_of_no_error` |
//! | socket | middleware failure, and no attempt after it | `conversation::a_refusal_that_is_final_says_why_and_the_other_namespaces_stay`, `a_namespace_that_has_refused_is_not_asked_again` |
//! | socket | disconnect, then connect | `the_id_of_a_socket_is_the_one_that_the_server_knows`, `connection::a_closed_client_can_be_connected_again` |
//! | socket | reserved events | `connection::an_event_of_the_wrong_type_is_an_error_that_is_told` |
//! | socket | order of events, acks | `conversation::they_talk_*`, `what_is_sent_while_away_arrives_in_its_order_and_is_answered` |
//! | socket | volatile packets | `a_volatile_event_is_dropped_while_away_and_arrives_otherwise` |
//! | socket | onAny, removed | `who_listens_to_everything_hears_it_until_the_handler_is_removed` |
//! | socket | timeout of an ack, also the default, also without a connection | `a_question_that_nobody_answers_fails_in_its_time` |
//! | socket | an ack upon disconnection fails; an unsent one does not | `a_question_on_its_way_fails_with_the_connection`, `what_is_sent_while_away_arrives_in_its_order_and_is_answered` |
//! | connection | autoConnect: false | `a_client_connects_only_when_it_is_told_to` |
//! | connection | two connections; one for several namespaces, which leaving one does not close | `namespaces_share_a_connection_and_clients_do_not` |
//! | connection | false, null, UTF-8, binary mixed with JSON, in order | `values_of_every_kind_come_back_as_they_were`, `conversation::they_talk_*` |
//! | connection | a namespace after the connection is there, or was closed | `conversation::they_talk_*`, `connection::a_closed_client_can_be_connected_again` |
//! | connection | reconnects by default, with events and growing pauses; gives up after so many attempts; again by hand | `attempts_are_counted_and_the_last_one_ends_it`, `connection::a_client_that_is_cut_off_*` |
//! | connection | no attempt after close, also while one waits; one socket stays away and another comes back | `a_client_that_is_closed_while_it_is_away_stays_away`, `a_namespace_that_is_left_while_away_stays_left` |
//! | connection | reopens a cached socket, not an active one | `who_joins_twice_has_joined_once` |
//! | connection | a server of Socket.IO v2 is told | `a_server_of_version_2_is_told` |
//! | connection | a decoding exception closes the engine | `core::tests::nonsense_from_the_server_ends_the_connection_with_its_reason` |
//! | retry | order, failure, no draining while disconnected, not twice in the connect handler | `outbox::*`, `core::tests::nothing_acknowledged_is_lost_or_doubled_and_the_order_is_kept`, `what_is_put_into_the_outbox_when_joined_is_handled_once` |
//! | connection-state-recovery | the session is restored | `connection::a_client_that_is_cut_off_*` |
//! | url | paths, ports, IPv6 | `address::tests` |
//!
//! Left out: compression of single packets, onAnyOutgoing and prepended listeners, dates, Blobs and base64 instead of binary, timers of browsers,
//! `unref`: the client has no such thing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use imks::client::{
    Client, ClientError, ClientEvent, DisconnectReason, Events, Reconnect, Socket, Status, nonce,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::application::{Application, Kind};
use crate::relay::Relay;
use crate::{Via, builder, hears, within};

const KINDS: [Kind; 2] = [Kind::Imks, Kind::Reference];

async fn joined(events: &mut Events) -> (String, bool) {
    let event = hears(events, |event| matches!(event, ClientEvent::Joined { .. })).await;
    let ClientEvent::Joined { sid, recovered, .. } = event else { panic!("{event:?}") };
    (sid, recovered)
}

async fn sum(socket: &Socket) -> i64 {
    within(socket.ask("add", &(1, 1)).into_future()).await.unwrap()
}

/// A client that comes through a relay.
async fn relayed(kind: Kind) -> (Application, Relay, Client, Socket, Events) {
    let server = Application::start(kind).await;
    let relay = Relay::start(server.address).await;
    let client = builder(&relay.url(), Via::WebSocket).build().unwrap();
    let events = client.events();
    let socket = within(client.namespace("/")).await.unwrap();
    (server, relay, client, socket, events)
}

/// Closes the relay, and waits until the client knows it.
async fn go_away(relay: &Relay, events: &mut Events) {
    relay.close();
    hears(events, |event| matches!(event, ClientEvent::Reconnecting { .. })).await;
}

#[tokio::test]
async fn the_id_of_a_socket_is_the_one_that_the_server_knows() {
    for kind in KINDS {
        let server = Application::start(kind).await;
        let client = builder(&server.url(), Via::WebSocket).build().unwrap();
        let mut ids = Vec::new();
        for path in ["/", "/custom", "/"] {
            let mut events = client.events();
            let socket = client.socket(path).unwrap();
            within(socket.disconnect()).await.unwrap();
            within(socket.connect()).await.unwrap();
            // The reference may be so busy that it reads the end and the beginning at once all the same. Then it ends the
            // connection, and the other namespace is restored.
            let is_it = |event: &ClientEvent| matches!(event, ClientEvent::Joined { namespace, .. } if namespace == path);
            let event = hears(&mut events, is_it).await;
            let ClientEvent::Joined { sid, recovered, .. } = event else { panic!("{event:?}") };
            let known: String = within(socket.ask("who am i", &()).into_future()).await.unwrap();
            assert_eq!((&known, recovered), (&sid, false));
            assert!(!ids.contains(&sid), "another one each time");
            ids.push(sid);
        }
        assert!(kind == Kind::Reference || client.stats().disconnects == 0, "nobody cut it");
    }
}

#[tokio::test]
async fn a_query_arrives_as_it_was_written() {
    for kind in KINDS {
        let server = Application::start(kind).await;
        for via in [Via::WebSocket, Via::Polling] {
            let (name, value) = ("a&b=c", "é€ ?#+%20/\u{1f600}");
            let client = builder(&server.url(), via).query(name, value).query("empty", "").build().unwrap();
            let socket = within(client.namespace("/custom")).await.unwrap();
            for (name, expected) in [(name, Some(value)), ("empty", Some("")), ("other", None)] {
                let found: Option<String> =
                    within(socket.ask("query", &(name,)).into_future()).await.unwrap();
                assert_eq!(found.as_deref(), expected, "{kind:?} {via:?} {name}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_client_says_about_itself_arrives() {
    for kind in KINDS {
        let server = Application::start(kind).await;
        let said = json!({ "token": "a b&c", "more": [1, null, { "é": true }] });
        let client = builder(&server.url(), Via::WebSocket).auth(&said).build().unwrap();
        let socket = client.socket("/custom").unwrap();
        let mut auth = socket.stream::<Value>("auth");
        within(socket.connect()).await.unwrap();
        assert_eq!(within(auth.next()).await.unwrap().unwrap(), said);
    }
}

#[tokio::test]
async fn who_leaves_before_it_has_come_hears_of_no_error() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let client = builder(&url, Via::WebSocket).build().unwrap();
    let mut events = client.events();
    let (joining, ()) = within(async {
        tokio::join!(client.namespace("/"), async {
            client.watch_status().wait_for(|status| *status == Status::Connecting).await.unwrap();
            client.close().await;
        })
    })
    .await;
    assert!(matches!(joining, Err(ClientError::Closed)), "{joining:?}");
    drop(client);
    assert!(within(events.next()).await.is_none(), "nothing has happened");
}

#[tokio::test]
async fn a_namespace_that_has_refused_is_not_asked_again() {
    for kind in KINDS {
        let (_server, relay, client, _, mut events) = relayed(kind).await;
        let refused = within(client.namespace("/closed")).await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
        go_away(&relay, &mut events).await;
        relay.open();
        joined(&mut events).await;
        let sent = client.stats().packets_sent;
        assert_eq!(sum(&client.socket("/").unwrap()).await, 2);
        assert_eq!(client.stats().packets_sent, sent + 1, "no CONNECT beside the question");
        let refused = within(client.namespace("/closed")).await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "only when it is told to");
    }
}

#[tokio::test]
async fn a_volatile_event_is_dropped_while_away_and_arrives_otherwise() {
    for kind in KINDS {
        let (_server, relay, _client, socket, mut events) = relayed(kind).await;
        let mut echoed = socket.stream::<u32>("echoed");
        go_away(&relay, &mut events).await;
        socket.emit_volatile("echo", &(1,)).await.unwrap();
        relay.open();
        joined(&mut events).await;
        socket.emit_volatile("echo", &(2,)).await.unwrap();
        assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 2);
    }
}

#[tokio::test]
async fn who_listens_to_everything_hears_it_until_the_handler_is_removed() {
    for kind in KINDS {
        let (_server, _relay, _client, socket, _) = relayed(kind).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        let handler = socket.on_any(move |event| {
            hearing.lock().push((event.name().to_owned(), event.parse::<u32>().unwrap()));
            async {}
        });
        let mut echoed = socket.stream::<u32>("echoed");
        for number in 1..=4 {
            socket.emit("echo", &number).await.unwrap();
            assert_eq!(within(echoed.next()).await.unwrap().unwrap(), number);
            if number == 2 {
                socket.off(handler);
            }
        }
        assert_eq!(*heard.lock(), [("echoed".to_owned(), 1), ("echoed".to_owned(), 2)]);
    }
}

#[tokio::test]
async fn a_question_that_nobody_answers_fails_in_its_time() {
    let brief = Duration::from_millis(50);
    for kind in KINDS {
        let (server, relay, _client, socket, mut events) = relayed(kind).await;
        // The server takes it, and has no answer.
        let unanswered = within(socket.ask::<Value>("echo", &(1,)).timeout(brief).into_future()).await;
        assert!(matches!(unanswered, Err(ClientError::Timeout(_))), "{unanswered:?}");
        assert_eq!(sum(&socket).await, 2, "the next question is as good as any");
        go_away(&relay, &mut events).await;
        let unsent = within(socket.ask::<i64>("add", &(1, 1)).timeout(brief).into_future()).await;
        assert!(matches!(unsent, Err(ClientError::Timeout(_))), "{unsent:?}");
        let by_default = builder(&server.url(), Via::WebSocket).answer_timeout(brief).build().unwrap();
        let socket = within(by_default.namespace("/")).await.unwrap();
        let unanswered = within(socket.ask::<Value>("echo", &(1,)).into_future()).await;
        assert!(matches!(unanswered, Err(ClientError::Timeout(_))), "{unanswered:?}");
    }
}

#[tokio::test]
async fn a_question_on_its_way_fails_with_the_connection() {
    for kind in KINDS {
        let (_server, relay, _client, socket, mut events) = relayed(kind).await;
        let mut echoed = socket.stream::<u32>("echoed");
        let asking = async {
            // Its echo says that the question has arrived.
            assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 7);
            relay.cut();
        };
        let question = socket.ask::<Value>("echo", &(7,)).into_future();
        let (answer, ()) = tokio::join!(within(question), asking);
        assert!(matches!(answer, Err(ClientError::ConnectionClosed(_))), "{answer:?}");
        hears(&mut events, |event| matches!(event, ClientEvent::Reconnected { .. })).await;
        assert_eq!(sum(&socket).await, 2);
    }
}

#[tokio::test]
async fn what_is_sent_while_away_arrives_in_its_order_and_is_answered() {
    for kind in KINDS {
        let (_server, relay, _client, socket, mut events) = relayed(kind).await;
        let mut echoed = socket.stream::<u32>("echoed");
        go_away(&relay, &mut events).await;
        for number in 0..20 {
            socket.emit("echo", &number).await.unwrap();
        }
        let (sum, ()) = tokio::join!(sum(&socket), async { relay.open() });
        assert_eq!(sum, 2);
        for number in 0..20 {
            assert_eq!(within(echoed.next()).await.unwrap().unwrap(), number);
        }
    }
}

#[tokio::test]
async fn a_client_connects_only_when_it_is_told_to() {
    let server = Application::start(Kind::Reference).await;
    let relay = Relay::start(server.address).await;
    let client = builder(&relay.url(), Via::WebSocket).build().unwrap();
    let socket = client.socket("/").unwrap();
    let unsent = socket.emit("echo", &1).await;
    let unasked = within(socket.ask::<i64>("add", &(1, 1)).into_future()).await;
    assert!(unsent.is_ok() && matches!(unasked, Err(ClientError::Closed)), "{unasked:?}");
    assert_eq!((client.status(), relay.connections()), (Status::Idle, 0));
    within(socket.connect()).await.unwrap();
    assert_eq!((sum(&socket).await, relay.connections()), (2, 1));
}

#[tokio::test]
async fn namespaces_share_a_connection_and_clients_do_not() {
    for kind in KINDS {
        let (_server, relay, client, root, _) = relayed(kind).await;
        let custom = within(client.namespace("/custom")).await.unwrap();
        assert_eq!((relay.connections(), client.stats().connects), (1, 1));
        custom.disconnect().await.unwrap();
        assert_eq!(sum(&root).await, 2, "the connection stays");
        let other = builder(&relay.url(), Via::WebSocket).query("other", "1").build().unwrap();
        let elsewhere = within(other.namespace("/")).await.unwrap();
        assert_eq!((relay.connections(), sum(&elsewhere).await), (2, 2));
        within(other.close()).await;
        assert_eq!(sum(&root).await, 2);
    }
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_were() {
    for kind in KINDS {
        let (_server, _relay, _client, socket, _) = relayed(kind).await;
        let mut echoed = socket.stream::<Value>("echoed");
        let values = [
            json!(false),
            json!(null),
            json!(0),
            json!(-1.5e-7),
            json!(""),
            json!([]),
            json!({}),
            json!("てすと"),
            json!("Я Б Г Д Ж Й"),
            json!("utf8 — string"),
            json!("\u{0}\u{1f}\"\\/\u{2028}\u{fffd}"),
            json!({ "_placeholder": "no", "num": 0 }),
        ];
        for value in &values {
            socket.emit("echo", value).await.unwrap();
            assert_eq!(within(echoed.next()).await.unwrap().unwrap(), *value, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn attempts_are_counted_and_the_last_one_ends_it() {
    let first = Duration::from_millis(10);
    for kind in KINDS {
        let server = Application::start(kind).await;
        let relay = Relay::start(server.address).await;
        let rules = Reconnect::exponential(first, 2.0, Duration::from_secs(1)).jitter(0.0).attempts_max(3);
        let client = builder(&relay.url(), Via::WebSocket).reconnect(rules).build().unwrap();
        let mut events = client.events();
        let socket = within(client.namespace("/")).await.unwrap();
        relay.close();
        for (number, pause) in (1..=3).zip([first, first * 2, first * 4]) {
            let event = hears(&mut events, |event| matches!(event, ClientEvent::Reconnecting { .. })).await;
            let ClientEvent::Reconnecting { attempt, delay } = event else { panic!("{event:?}") };
            assert_eq!((attempt, delay), (number, pause));
        }
        let end = hears(&mut events, |event| matches!(event, ClientEvent::ReconnectFailed { .. })).await;
        let ClientEvent::ReconnectFailed { error } = end else { panic!("{end:?}") };
        assert!(matches!(error, ClientError::ReconnectFailed { attempts: 3, .. }), "{error:?}");
        assert_eq!(client.status(), Status::Idle);
        relay.open();
        within(socket.connect()).await.unwrap();
        assert_eq!(sum(&socket).await, 2);
    }
}

#[tokio::test]
async fn a_client_that_is_closed_while_it_is_away_stays_away() {
    for kind in KINDS {
        let (_server, relay, client, socket, mut events) = relayed(kind).await;
        go_away(&relay, &mut events).await;
        within(client.close()).await;
        relay.open();
        let tried = relay.connections();
        assert_eq!(client.status(), Status::Idle);
        let other = builder(&relay.url(), Via::WebSocket).build().unwrap();
        assert_eq!(sum(&within(other.namespace("/")).await.unwrap()).await, 2);
        assert_eq!((relay.connections(), client.status()), (tried + 1, Status::Idle));
        within(socket.connect()).await.unwrap();
        assert_eq!(sum(&socket).await, 2);
    }
}

#[tokio::test]
async fn a_namespace_that_is_left_while_away_stays_left() {
    for kind in KINDS {
        let (_server, relay, client, root, mut events) = relayed(kind).await;
        let custom = within(client.namespace("/custom")).await.unwrap();
        go_away(&relay, &mut events).await;
        custom.disconnect().await.unwrap();
        relay.open();
        joined(&mut events).await;
        assert_eq!(sum(&root).await, 2);
        let left = within(custom.ask::<i64>("add", &(1, 1)).into_future()).await;
        assert!(matches!(left, Err(ClientError::Closed)), "{left:?}");
        within(custom.connect()).await.unwrap();
        assert_eq!(sum(&custom).await, 2);
    }
}

#[tokio::test]
async fn who_joins_twice_has_joined_once() {
    for kind in KINDS {
        let (_server, _relay, client, socket, mut events) = relayed(kind).await;
        joined(&mut events).await;
        let again = client.socket("/").unwrap();
        let mut echoed = again.stream::<u32>("echoed");
        let (one, other) = within(async { tokio::join!(socket.connect(), again.connect()) }).await;
        assert!(one.is_ok() && other.is_ok());
        let sent = client.stats().packets_sent;
        socket.emit("echo", &5).await.unwrap();
        assert_eq!(within(echoed.next()).await.unwrap().unwrap(), 5, "both are the same namespace");
        assert_eq!(client.stats().packets_sent, sent + 1);
        within(socket.disconnect()).await.unwrap();
        let left = hears(&mut events, |event| !matches!(event, ClientEvent::Heartbeat { .. })).await;
        assert!(matches!(left, ClientEvent::Left { .. }), "nothing was joined meanwhile: {left:?}");
    }
}

#[tokio::test]
async fn a_server_of_version_2_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = builder(&url, Via::WebSocket).reconnect(Reconnect::never()).build().unwrap();
    let mut events = client.events();
    let old = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut websocket = accept_async(stream).await.unwrap();
        let open = r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":5000}"#;
        websocket.send(Message::text(open)).await.unwrap();
        websocket.next().await.unwrap().unwrap();
        // It lets everybody into the root, without an id of the socket.
        websocket.send(Message::text("40")).await.unwrap();
        while websocket.next().await.is_some_and(|message| message.is_ok()) {}
    };
    let (joining, ()) = within(async { tokio::join!(client.namespace("/"), old) }).await;
    let Err(ClientError::ConnectionClosed(DisconnectReason::Protocol(_))) = joining else {
        panic!("{joining:?}")
    };
    let told = hears(&mut events, |event| matches!(event, ClientEvent::Disconnected { .. })).await;
    assert!(matches!(told, ClientEvent::Disconnected { reason: DisconnectReason::Protocol(_) }), "{told:?}");
}

#[tokio::test]
async fn what_is_put_into_the_outbox_when_joined_is_handled_once() {
    for kind in KINDS {
        let (_server, relay, _client, socket, mut events) = relayed(kind).await;
        let nonces = [nonce(), nonce()];
        for nonce in &nonces {
            go_away(&relay, &mut events).await;
            relay.open();
            joined(&mut events).await;
            let delivery = socket.send("remember", nonce).await.unwrap();
            assert_eq!(within(delivery.acknowledged::<String>()).await.unwrap(), *nonce);
        }
        let remembered: Vec<String> = within(socket.ask("remembered", &()).into_future()).await.unwrap();
        assert_eq!(remembered, nonces);
    }
}
