//! What both servers are told and do; the reference's side is tests/js/reference.js.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use imks::engine::{self, Engine};
use imks::http::listener;
use imks::socket::parser::{Placeholder, RawArgs};
use imks::socket::{Accept, Config, ConnectError, NamespaceBuilder, Server};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Limit of a message, in bytes.
pub(crate) const PAYLOAD_MAX: usize = 10_000;
/// How long the namespace `/slow` thinks.
pub(crate) const SLOW_MS: u64 = 300;
/// Characters of the event `long`.
pub(crate) const LONG: usize = 2_000;
/// Attachments of the event `many`: more than a client of the reference takes.
pub(crate) const MANY: u8 = 11;

/// Deadlines in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    ping_interval: u64,
    ping_timeout: u64,
    connect_timeout: u64,
}

/// For whatever is not about time.
pub(crate) const PATIENT: Deadlines =
    Deadlines { ping_interval: 25_000, ping_timeout: 20_000, connect_timeout: 45_000 };
/// Short enough to be waited for.
pub(crate) const HASTY: Deadlines = Deadlines { ping_interval: 300, ping_timeout: 200, connect_timeout: 750 };

impl Deadlines {
    /// The reference's options.
    pub(crate) fn options(self) -> String {
        json!({
            "pingInterval": self.ping_interval,
            "pingTimeout": self.ping_timeout,
            "connectTimeout": self.connect_timeout,
            "maxHttpBufferSize": PAYLOAD_MAX,
        })
        .to_string()
    }

    /// imks on a free port, for as long as the runtime.
    pub(crate) async fn serve(self) -> SocketAddr {
        let engine = Engine::new(engine::Config {
            ping_interval: Duration::from_millis(self.ping_interval),
            ping_timeout: Duration::from_millis(self.ping_timeout),
            max_payload: PAYLOAD_MAX,
            ..engine::Config::default()
        });
        let engine = engine.expect("an engine");
        let config =
            Config { connect_timeout: Duration::from_millis(self.connect_timeout), ..Config::default() };
        let server = server(config);
        let listener = listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let limits = listener::Config::default();
        let routes = listener::routes(engine.clone(), Router::new(), &limits);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(async move { server.serve(engine).await });
        tasks.spawn(listener::serve(listener, limits, routes, tasks.clone(), stop));
        address
    }
}

fn server(config: Config) -> Server {
    let server = Server::builder(config)
        .namespace("/", welcome)
        .namespace("/custom", welcome)
        .namespace("/refusing", |namespace| {
            talk(namespace);
            namespace.on_connect(|_, payload| async move {
                let auth: Value = payload.parse().expect("an object");
                if auth["token"] != "good" {
                    return Err(ConnectError::with_data("not authorized", json!({"code": 42})));
                }
                Ok(accept(&auth))
            });
        })
        .namespace("/silent", |namespace| {
            namespace.on_connect(|_, _| async { Err::<(), _>(ConnectError::new("no")) });
        })
        .namespace("/slow", |namespace| {
            talk(namespace);
            namespace.on_connect(|_, payload| async move {
                tokio::time::sleep(Duration::from_millis(SLOW_MS)).await;
                Ok::<_, ConnectError>(accept(&payload.parse().expect("an object")))
            });
        });
    server.build().expect("a server")
}

fn welcome(namespace: &mut NamespaceBuilder) {
    talk(namespace);
    namespace.on_connect(|_, payload| async move {
        Ok::<_, ConnectError>(accept(&payload.parse().expect("an object")))
    });
}

fn accept(auth: &Value) -> Accept {
    Accept::default().with_event("auth", auth).expect("JSON")
}

fn talk(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("message", |event| {
        let _ = event.socket().emit_args("message-back", event.args());
    });
    namespace.on_sync("message-with-ack", |mut event| {
        let args = event.args().clone();
        let _ = event.take_ack().expect("asked for").send_args(&args);
    });
    namespace.on_sync("1", |event| {
        let _ = event.socket().emit_args("number-back", event.args());
    });
    namespace.on_sync("leave-me", |event| event.socket().disconnect(false));
    namespace.on_sync("close-me", |event| event.socket().disconnect(true));
    namespace.on_sync("many", |event| {
        let json: Vec<String> =
            (0..MANY).map(|number| json!(Placeholder(number.into())).to_string()).collect();
        let attachments: Vec<Bytes> = (0..MANY).map(|number| Bytes::from(vec![number])).collect();
        let args = RawArgs { json: &json.join(","), attachments: &attachments };
        let _ = event.socket().emit_args("many", &args);
    });
    namespace.on_sync("long", |event| {
        let _ = event.socket().emit("long", &"x".repeat(LONG));
    });
}
