//! A Socket.IO server in this process, and what its events do.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use imks::engine::{self, Engine};
use imks::http::listener;
use imks::socket::parser::{One, RawArgs};
use imks::socket::{Accept, Config, ConnectError, Event, NamespaceBuilder, Server};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the server waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A server on a free port; it ends with its runtime.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Running {
    pub(crate) fn start(engine: engine::Config, config: Config) -> Self {
        Self::start_with(engine, config, |_| Router::new())
    }

    /// With routes that lead to the engine.
    pub(crate) fn start_with(
        engine: engine::Config,
        config: Config,
        routes: impl FnOnce(&Engine) -> Router,
    ) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let address = runtime.block_on(serve(engine, config, routes));
        Self { address, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(engine: engine::Config, config: Config, routes: impl FnOnce(&Engine) -> Router) -> SocketAddr {
    let engine = Engine::new(engine).expect("an engine");
    let server = Server::builder(config)
        .namespace("/", events)
        .namespace("/custom", |namespace| {
            events(namespace);
            namespace.on_connect(|_, payload| async move {
                let auth: serde_json::Value = payload.parse().expect("an object");
                Accept::default().with_event("auth", &auth).map_err(|_| ConnectError::new("unreadable"))
            });
        })
        .namespace("/refusing", |namespace| {
            namespace.on_connect(|_, _| async { Err::<(), _>(ConnectError::new("not you")) });
        })
        .build()
        .expect("a server");
    let listener = listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let limits = listener::Config::default();
    let routes = listener::routes(engine.clone(), pages().merge(routes(&engine)), &limits);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(async move { server.serve(engine).await });
    tasks.spawn(listener::serve(listener, limits, routes, tasks.clone(), stop));
    address
}

/// A page that takes the client from this server, as a script and as a module, and what balancers ask.
fn pages() -> Router {
    const PAGE: &str = r#"<!doctype html><script src="/socket.io/socket.io.js"></script>
        <script type="module">import { io } from "/socket.io/socket.io.esm.min.js"; window.esm = io;</script>"#;
    Router::new()
        .route("/page", axum::routing::get(|| async { axum::response::Html(PAGE) }))
        .route("/health/ready", axum::routing::get(|| async {}))
}

fn events(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("message", |event| {
        event.socket().emit_args("message-back", event.args()).expect("the client is there");
    });
    namespace.on_sync("message-with-ack", |mut event| {
        let args = event.args().clone();
        event.take_ack().expect("asked for").send_args(&args).expect("an answer");
    });
    namespace.on("ask-me", |event| async move {
        let answer = event.socket().emit_with_ack("question", &One("and you?"), ANSWER_TIMEOUT).await;
        event.socket().emit_args("verdict", &answer.expect("an answer")).expect("the client is there");
    });
    namespace.on_sync("whoami", |mut event| {
        let id = event.socket().id().to_owned();
        event.take_ack().expect("asked for").send(&id).expect("an answer");
    });
    namespace.on_sync("find", |mut event| {
        let id: String = event.first().expect("an id");
        let found = event.socket().namespace().socket(&id).is_some_and(|socket| socket.id() == id);
        event.take_ack().expect("asked for").send(&found).expect("an answer");
    });
    namespace.on_sync("join", |mut event| {
        event.socket().join(&event.first::<String>().expect("a room"));
        event.take_ack().expect("asked for").send_args(&()).expect("an answer");
    });
    namespace.on_sync("share", |event| share(&event, true));
    namespace.on_sync("share-uncompressed", |event| share(&event, false));
    namespace.on_sync("message-uncompressed", |event| {
        event.socket().emit_uncompressed("message-back", event.args()).expect("the client is there");
    });
    namespace.on_sync("remember", |mut event| {
        event.socket().set_data(event.first::<serde_json::Value>().expect("a value"));
        event.take_ack().expect("asked for").send_args(&()).expect("an answer");
    });
    namespace.on_sync("recall", |mut event| {
        let data = event.socket().data::<serde_json::Value>();
        event.take_ack().expect("asked for").send(&data.as_deref()).expect("an answer");
    });
    namespace.on_sync("sessions", |mut event| {
        let status = event.socket().namespace().recovery_status().expect("recovery is on");
        event.take_ack().expect("asked for").send(&status.sessions).expect("an answer");
    });
    namespace.on_sync("leave-me", |event| event.socket().disconnect(false));
}

fn share(event: &Event, compress: bool) {
    let (room, json) = event.args().split_first::<String>().expect("a room");
    let args = RawArgs { json, attachments: event.args().attachments() };
    event.socket().namespace().to(&room).compress(compress).emit_args("shared", &args).expect("sent");
}
