//! The stock client in a real browser.

use axum::Router;
use imks::{
    engine::{
        self,
        config::Cors,
        metrics::{DEFLATE_BYTES, DeflateStep},
    },
    http::{
        listener,
        tls::Certificates,
        webtransport::{self, Heartbeat, Listener},
    },
    socket::{self, NamespaceBuilder, Server},
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::script::Script;

fn events(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("echo", |mut event| {
        let args = event.args().clone();
        event.take_ack().unwrap().send_args(&args).unwrap();
    });
    namespace.on_sync("facts", |mut event| {
        let handshake = event.socket().handshake();
        let facts = json!({
            "transport": handshake.transport.name(),
            "secure": handshake.secure,
            "address": handshake.peer.ip().to_string(),
            "origin": handshake.header("origin"),
        });
        event.take_ack().unwrap().send_args(&socket::parser::One(&facts)).unwrap();
    });
    namespace.on_sync("leave", |event| {
        event.socket().emit("last", "last").unwrap();
        event.socket().disconnect(true);
    });
    namespace.on_sync("drop", |event| {
        event.socket().emit("last", "last").unwrap();
        event.socket().close_connection();
    });
}

#[test]
fn a_browser_compresses_its_websocket_messages_and_reads_ours() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let url = runtime.block_on(async {
        let cors = Some(Cors::default());
        let config = engine::Config { per_message_deflate: true, cors, ..engine::Config::default() };
        let engine = engine::Engine::new(config).unwrap();
        let limits = listener::Config::default();
        let tcp = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let server = Server::builder(socket::Config::default());
        let server = server.namespace("/", events).build().unwrap();
        let routes = listener::routes(engine.clone(), Router::new(), &limits);
        tasks.spawn(listener::serve(tcp, limits, routes, tasks.clone(), stop.clone()));
        tasks.spawn(async move { server.serve(engine).await });
        url
    });
    let before = [DeflateStep::ToCompress, DeflateStep::Inflated].map(|step| DEFLATE_BYTES.of(step).get());
    Script::run("browser_deflate.js", &[("URL", &url)]);
    stop.cancel();
    let after = [DeflateStep::ToCompress, DeflateStep::Inflated].map(|step| DEFLATE_BYTES.of(step).get());
    // Two connections with two rounds of three texts.
    let long_texts = 2 * 2 * (500_000 + 20_000 * "héllo €😀 ".len() as u64);
    for (before, after) in before.into_iter().zip(after) {
        assert!(after - before > long_texts, "{before} to {after}");
    }
}

#[test]
fn a_browser_talks_over_webtransport_from_the_start_and_after_an_upgrade() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let url = runtime.block_on(async {
        let config = engine::Config {
            webtransport: true,
            websocket: false,
            cors: Some(Cors::default()),
            ..engine::Config::default()
        };
        let heartbeat = Heartbeat { interval: config.ping_interval, timeout: config.ping_timeout };
        let engine = engine::Engine::new(config).unwrap();
        let limits = listener::Config::default();
        let tcp = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = tcp.local_addr().unwrap();
        let certificates = Certificates::self_signed(vec!["127.0.0.1".into()]).unwrap();
        let udp = webtransport::bind(addr).unwrap();
        let quic = Listener::new(udp, &certificates, &webtransport::Config::default(), heartbeat).unwrap();
        let server = Server::builder(socket::Config::default());
        let server = server.namespace("/", events).build().unwrap();
        let routes = listener::routes(engine.clone(), webtransport::routes(certificates), &limits);
        tasks.spawn(quic.serve(engine.clone(), tasks.clone(), stop.clone()));
        tasks.spawn(listener::serve(tcp, limits, routes, tasks.clone(), stop.clone()));
        tasks.spawn(async move { server.serve(engine).await });
        format!("http://{addr}")
    });
    Script::run("browser.js", &[("URL", &url)]);
    stop.cancel();
}
