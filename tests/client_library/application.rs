//! A server with the events that the tests speak of: imks in this process, or the reference
//! (tests/js/library_reference.js).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use imks::engine;
use imks::http::{SocketIo, quic, tls, webtransport};
use imks::socket::packet::Args;
use imks::socket::{
    Binary, Config, ConnectError, EventError, NamespaceBuilder, Parser, Recovery, Reply, Server, Socket,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::script::Script;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Imks,
    Reference,
}

/// A running server.
pub(crate) struct Application {
    pub(crate) address: SocketAddr,
    /// Its address for QUIC without HTTP/3. The reference has none.
    pub(crate) quic: Option<SocketAddr>,
    /// The server in this process.
    pub(crate) ours: Option<SocketIo>,
    /// The process of the other one, which ends with this.
    _theirs: Option<Script>,
}

impl Application {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Imks => Self::imks(engine::Config::default()).await,
            Kind::Reference => Self::reference(engine::Config::default()),
        }
    }

    /// A server with the heart of these settings.
    pub(crate) async fn start_with(kind: Kind, engine: engine::Config) -> Self {
        match kind {
            Kind::Imks => Self::imks(engine).await,
            Kind::Reference => Self::reference(engine),
        }
    }

    fn reference(engine: engine::Config) -> Self {
        let [interval, timeout] =
            [engine.ping_interval, engine.ping_timeout].map(|it| it.as_millis().to_string());
        let heart = [("PING_INTERVAL", &*interval), ("PING_TIMEOUT", &*timeout)];
        let mut script = Script::start("library_reference.js", &heart);
        let port = script.hears(|line| line["port"].is_u64())["port"].as_u64().unwrap();
        let address = ([127, 0, 0, 1], u16::try_from(port).unwrap()).into();
        Self { address, quic: None, ours: None, _theirs: Some(script) }
    }

    /// imks with settings of the engine.
    pub(crate) async fn imks(engine: engine::Config) -> Self {
        Self::imks_with(engine, None).await
    }

    /// imks over TLS, where a certificate is given, and over WebTransport.
    pub(crate) async fn imks_with(engine: engine::Config, tls: Option<tls::Config>) -> Self {
        Self::serve(server(Parser::Default), engine, tls, webtransport::Config::default(), false).await
    }

    /// imks with the msgpack parser.
    pub(crate) async fn msgpack() -> Self {
        let server = server(Parser::MsgPack);
        Self::serve(server, engine::Config::default(), None, webtransport::Config::default(), false).await
    }

    /// imks on which sessions may begin together with a handshake, which may take `handshake_timeout`.
    pub(crate) async fn early(tls: tls::Config, handshake_timeout: Duration) -> Self {
        let limits = webtransport::Config { handshake_timeout, ..webtransport::Config::default() };
        Self::serve(server(Parser::Default), engine::Config::default(), Some(tls), limits, true).await
    }

    /// imks with limits of QUIC.
    pub(crate) async fn limited(limits: webtransport::Config) -> Self {
        Self::serve(server(Parser::Default), engine::Config::default(), None, limits, false).await
    }

    async fn serve(
        server: Server,
        engine: engine::Config,
        tls: Option<tls::Config>,
        limits: webtransport::Config,
        zero_rtt: bool,
    ) -> Self {
        let mode = webtransport::Mode::On;
        let listen = Some(([127, 0, 0, 1], 0).into());
        let builder = SocketIo::builder(server)
            .with_engine(engine)
            .with_webtransport(webtransport::Config { mode, ..limits })
            .with_quic(quic::Config { listen, zero_rtt, ..quic::Config::default() });
        let io = tls.into_iter().fold(builder, |builder, tls| builder.with_tls(tls)).build().unwrap();
        let bound = io.bind(([127, 0, 0, 1], 0)).unwrap();
        let (address, quic) = (bound.addr(), bound.quic_addr());
        TaskTracker::new().spawn(bound.serve());
        Self { address, quic, ours: Some(io), _theirs: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn server(parser: Parser) -> Server {
    let remembered = Arc::new(Mutex::new(Vec::<String>::new()));
    let config = Config { recovery: Some(Recovery::default()), parser, ..Config::default() };
    let (one, other) = (remembered.clone(), remembered.clone());
    let attempts = Arc::new(AtomicUsize::new(0));
    let builder = Server::builder(config)
        .namespace("/", move |namespace| talk(namespace, one))
        .namespace("/custom", move |namespace| {
            talk(namespace, other);
            namespace.on_connect(|socket, payload| async move {
                let auth: Value = payload.parse().expect("an object");
                socket.emit("auth", &auth).expect("an event");
                Ok(())
            });
        })
        .namespace("/busy", move |namespace| {
            namespace.on_connect(move |_, _| {
                let attempt = attempts.fetch_add(1, Ordering::SeqCst);
                let data = json!({ "code": "overloaded", "retryable": true, "retry_after_ms": 20 });
                async move { if attempt < 2 { Err(ConnectError::with_data("busy", data)) } else { Ok(()) } }
            });
        })
        .namespace("/topics", topics)
        .namespace("/closed", |namespace| {
            talk(namespace, remembered);
            namespace.on_connect(|_, payload| async move {
                let auth: Value = payload.parse().unwrap_or_default();
                let code = match auth["token"].as_str() {
                    Some("fresh") => return Ok(()),
                    Some("old") => "token_expired",
                    _ => "unauthenticated",
                };
                Err(ConnectError::with_data("no", json!({ "code": code, "retryable": false })))
            });
        });
    builder.build().unwrap()
}

/// The server half of `imks::client::pubsub`.
fn topics(namespace: &mut NamespaceBuilder) {
    namespace.on_typed("subscribe", |socket: Socket, topic: String| async move {
        if topic == "secret" {
            return Reply(json!({ "ok": false, "error": { "code": "forbidden", "message": "no" } }));
        }
        socket.join(&topic);
        Reply(json!({ "ok": true }))
    });
    namespace.on_typed("unsubscribe", |socket: Socket, topic: String| async move { socket.leave(&topic) });
    namespace.on_typed("publish", |socket: Socket, (topic, value): (String, Value)| async move {
        socket.namespace().to(&topic).emit_args("message", &(&topic, value))?;
        Ok::<_, EventError>(Reply(json!({ "ok": true })))
    });
    namespace.on_typed("rooms", |socket: Socket, ()| async move { Reply(socket.rooms()) });
}

#[derive(serde::Deserialize)]
struct Upload {
    target: String,
    nonce: String,
    content: Binary,
}

fn talk(namespace: &mut NamespaceBuilder, remembered: Arc<Mutex<Vec<String>>>) {
    namespace.on_typed("add", |_: Socket, (a, b): (i64, i64)| async move { Reply(a + b) });
    namespace.on_typed("who am i", |socket: Socket, ()| async move { Reply(socket.id().to_owned()) });
    namespace.on_typed("query", |socket: Socket, name: String| async move {
        let found = socket.handshake().query().find(|(key, _)| *key == name);
        Reply(found.map(|(_, value)| value))
    });
    namespace.on("echo", |event| async move {
        event.socket().emit_args("echoed", event.args()).expect("an event");
    });
    namespace.on_typed("bytes", |_: Socket, bytes: Binary| async move { Reply(bytes) });
    namespace.on_typed("transport", |socket: Socket, ()| async move { Reply(socket.transport().name()) });
    namespace.on_typed("rtt", |socket: Socket, ()| async move {
        Reply(socket.rtt().map(|rtt| u64::try_from(rtt.as_micros()).expect("a short time")))
    });
    namespace.on_typed("upload", |_: Socket, upload: Upload| async move {
        assert!(!upload.nonce.is_empty());
        Reply(match &*upload.target {
            "nobody" => json!({ "ok": false, "error": { "message": "nobody is not here" } }),
            target => {
                let id = format!("{} bytes for {target}", upload.content.0.len());
                json!({ "ok": true, "data": { "message": { "id": id } } })
            }
        })
    });
    namespace.on_typed("ask me", |socket: Socket, ()| async move {
        let wait = Duration::from_secs(5);
        let age: Args = socket.emit_with_ack("your age?", &("please",), wait).await?;
        socket.emit_args("told", &age)?;
        Ok::<_, EventError>(())
    });
    namespace.on_typed("join", |socket: Socket, room: String| async move {
        socket.join(&room);
        Ok::<_, EventError>(Reply(()))
    });
    namespace.on_typed("shout", |socket: Socket, (room, text): (String, String)| async move {
        socket.namespace().emit_to_room(&room, "shouted", &text)
    });
    namespace.on_typed("long", |_: Socket, bytes: usize| async move { Reply("x".repeat(bytes)) });
    let count = |socket: Socket, ()| async move { Reply(socket.namespace().len()) };
    namespace.on_typed("how many", count);
    namespace.on_typed("put me out", |socket: Socket, ()| async move { socket.disconnect(false) });
    remember(namespace, remembered);
}

fn remember(namespace: &mut NamespaceBuilder, remembered: Arc<Mutex<Vec<String>>>) {
    let known = remembered.clone();
    namespace.on_typed("remember", move |_: Socket, nonce: String| {
        let mut known = known.lock();
        if !known.contains(&nonce) {
            known.push(nonce.clone());
        }
        async move { Reply(nonce) }
    });
    namespace.on_typed("remembered", move |_: Socket, ()| {
        let all = remembered.lock().clone();
        async move { Reply(all) }
    });
}
