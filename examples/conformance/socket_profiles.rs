//! Contracts of the Socket.IO protocol suite and of the test suite of the reference Socket.IO client.

use std::time::Duration;

use imks::ImksResult;
use imks::engine::{Config, Handshake};
use imks::socket::parser::{Placeholder, RawArgs};
use imks::socket::{
    self, Accept, ConnectError, ConnectPayload, Event, NamespaceBuilder, Parser, Server, Socket,
};
use imks::testing::clock;
use serde_json::{Value, json, value::RawValue};

/// Heartbeat of 300 + 200 ms.
pub fn v5_engine() -> Config {
    Config {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        ..Config::default()
    }
}

/// Socket.IO v5 protocol suite.
pub fn v5(parser: Parser) -> ImksResult<Server> {
    let config =
        socket::Config { connect_timeout: Duration::from_secs(1), parser, ..socket::Config::default() };
    Server::builder(config)
        .namespace("/", |namespace| {
            say_auth(namespace);
            namespace.on_sync("message", |event| {
                report(event.socket().emit_args("message-back", event.args()));
            });
            namespace.on_sync("message-with-ack", |mut event| {
                let args = event.args().clone();
                ack(&mut event, &args);
            });
        })
        .namespace("/custom", say_auth)
        .build()
}

fn say_auth(namespace: &mut NamespaceBuilder) {
    namespace.on_connect(|_, payload| async move {
        let auth: Box<RawValue> = payload.parse().map_err(|_| ConnectError::new("unreadable"))?;
        Accept::default().with_event("auth", &auth).map_err(|_| ConnectError::new("unreadable"))
    });
}

/// Accepts handshakes after 10 ms, so that a client's `timeout: 0` expires first.
pub fn client_engine() -> Config {
    let mut config = Config { ping_interval: Duration::from_secs(2), ..Config::default() };
    config.hooks.allow_request = Some(std::sync::Arc::new(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        })
    }));
    config
}

/// Test suite of the reference Socket.IO client.
pub fn client() -> ImksResult<Server> {
    let plain = |_: &mut NamespaceBuilder| {};
    let config = socket::Config { recovery: Some(socket::Recovery::default()), ..socket::Config::default() };
    Server::builder(config)
        .namespace("/", main_namespace)
        .namespace("/foo", |namespace| {
            namespace.on_sync("getId", |mut event| {
                let id = event.socket().id().to_owned();
                ack(&mut event, &socket::parser::One(&id));
            });
        })
        .namespace("/timeout_socket", plain)
        .namespace("/valid", plain)
        .namespace("/asd", plain)
        .namespace("/abc", |namespace| {
            namespace.on_connect(|socket, payload| async move {
                let auth = payload.parse().unwrap_or_default();
                let handshake = handshake(socket.handshake(), auth);
                Accept::default()
                    .with_event("handshake", &handshake)
                    .map_err(|_| ConnectError::new("unreadable"))
            });
        })
        .namespace("/no", |namespace| {
            namespace.on_connect(|_, _| async {
                Err::<(), _>(ConnectError::new("Auth failed (custom namespace)"))
            });
        })
        .build()
}

fn main_namespace(namespace: &mut NamespaceBuilder) {
    namespace.on_connect(|socket: Socket, payload: ConnectPayload| async move {
        if socket.handshake().query().any(|(name, _)| name == "fail") {
            return Err(ConnectError::new("Auth failed (main namespace)"));
        }
        socket.set_data::<Value>(payload.parse().unwrap_or_default());
        Ok(())
    });
    questions(namespace);
    gifts(namespace);
    binaries(namespace);
}

/// Events that the client wants an answer to.
fn questions(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("echo", |mut event| {
        let args = event.args().clone();
        ack(&mut event, &args);
    });
    namespace.on_sync("getAckDate", |mut event| {
        let date = clock::rfc3339(clock::now_micros());
        ack(&mut event, &socket::parser::One(&date));
    });
    namespace.on_sync("getHandshake", |mut event| {
        let auth = event.socket().data::<Value>().map(|auth| (*auth).clone()).unwrap_or_default();
        let handshake = handshake(event.socket().handshake(), auth);
        ack(&mut event, &socket::parser::One(&handshake));
    });
    namespace.on_sync("getId", |mut event| {
        let id = event.socket().id().to_owned();
        ack(&mut event, &socket::parser::One(&id));
    });
    namespace.on("ack", |event| async move {
        let socket = event.socket();
        let answer = socket.emit_with_ack("ack", &(), Duration::from_secs(5)).await;
        let expected = (5, json!({"test": true}));
        if answer.and_then(|answer| answer.parse::<(i64, Value)>()).is_ok_and(|answer| answer == expected) {
            report(socket.emit_args("got it", &()));
        }
    });
}

/// Events that are answered with another event.
fn gifts(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("hi", |event| report(event.socket().emit_args("hi", &())));
    namespace.on_sync("false", |event| report(event.socket().emit("false", &false)));
    namespace.on_sync("getDate", |event| {
        report(event.socket().emit("takeDate", &clock::rfc3339(clock::now_micros())));
    });
    namespace.on_sync("getDateObj", |event| {
        report(event.socket().emit("takeDateObj", &json!({"date": clock::rfc3339(clock::now_micros())})));
    });
    namespace.on_sync("getUtf8", |event| {
        for text in ["てすと", "Я Б Г Д Ж Й", "Ä ä Ü ü ß", "utf8 — string", "utf8 — string"]
        {
            report(event.socket().emit("takeUtf8", text));
        }
    });
    namespace.on_sync("doge", |event| report(emit_bytes(event.socket(), "doge")));
    namespace.on_sync("getbin", |event| report(emit_bytes(event.socket(), "takebin")));
}

/// Events that carry attachments.
fn binaries(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("buffa", |event| {
        if event.args().attachments().len() == 1 {
            report(event.socket().emit_args("buffack", &()));
        }
    });
    namespace.on_sync("jsonbuff", |event| {
        let expected = json!({"hello": "lol", "message": Placeholder(0), "goodbye": "gotcha"});
        if event.first::<Value>().is_ok_and(|value| value == expected) {
            report(event.socket().emit_args("jsonbuff-ack", &()));
        }
    });
    namespace.on_sync("abuff1", |event| event.socket().set_data(event.args().attachments().len() == 1));
    namespace.on_sync("abuff2", |event| {
        if event.socket().data::<bool>().is_some_and(|first_came_first| *first_came_first) {
            report(event.socket().emit_args("abuff2-ack", &()));
        }
    });
}

fn emit_bytes(socket: &Socket, event: &str) -> ImksResult<()> {
    let json = serde_json::to_string(&Placeholder(0))?;
    socket.emit_args(event, &RawArgs { json: &json, attachments: &["asdfasdf".into()] })
}

/// The handshake as the reference's `socket.handshake` shows it.
fn handshake(handshake: &Handshake, auth: Value) -> Value {
    let headers: serde_json::Map<String, Value> =
        handshake.headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let query: serde_json::Map<String, Value> =
        handshake.query().map(|(name, value)| (name.to_string(), value.to_string().into())).collect();
    json!({
        "headers": headers,
        "time": clock::rfc3339(handshake.issued),
        "address": handshake.peer.ip().to_string(),
        "xdomain": handshake.xdomain(),
        "secure": handshake.secure,
        "issued": handshake.issued / 1_000,
        "url": handshake.url(),
        "query": query,
        "auth": auth,
    })
}

fn ack(event: &mut Event, args: &impl socket::parser::Arguments) {
    if let Some(ack) = event.take_ack() {
        report(ack.send_args(args));
    }
}

fn report(result: ImksResult<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "event not handled");
    }
}
