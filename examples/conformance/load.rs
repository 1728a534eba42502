//! The contract of the load generator: `echo` acks its arguments; `back` emits them back; `join` and `leave` a room,
//! acked; `broadcast` a payload to everybody in a room, the sender included, as `msg`.

use std::time::Duration;

use imks::ImksResult;
use imks::engine;
use imks::socket::parser::RawArgs;
use imks::socket::{self, Event, NamespaceBuilder, Server};

/// Defaults.
pub fn engine() -> engine::Config {
    engine::Config::default()
}

/// Ping after 5 s, pong within 4 s, payload up to 1 MB.
pub fn short_engine() -> engine::Config {
    engine::Config {
        ping_interval: Duration::from_secs(5),
        ping_timeout: Duration::from_secs(4),
        max_payload: 1_000_000,
        ..engine::Config::default()
    }
}

/// Defaults. With a delay, `echo` waits for it before it acks.
pub fn server(delay: Duration) -> ImksResult<Server> {
    let described = move |namespace: &mut NamespaceBuilder| {
        events(namespace);
        if !delay.is_zero() {
            namespace.on("echo", move |event| async move {
                tokio::time::sleep(delay).await;
                echo(event);
            });
        }
    };
    Server::builder(socket::Config::default()).namespace("/", described).build()
}

/// CONNECT within 5 s.
pub fn short_server() -> ImksResult<Server> {
    let config = socket::Config { connect_timeout: Duration::from_secs(5), ..socket::Config::default() };
    Server::builder(config).namespace("/", events).build()
}

fn events(namespace: &mut NamespaceBuilder) {
    namespace.on_sync("echo", echo);
    namespace.on_sync("back", |event| report(event.socket().emit_args("back", event.args())));
    namespace.on_sync("join", |event| with_room(event, |event, room| event.socket().join(room)));
    namespace.on_sync("leave", |event| with_room(event, |event, room| event.socket().leave(room)));
    namespace.on_sync("broadcast", |event| report(broadcast(&event)));
}

fn echo(mut event: Event) {
    if let Some(ack) = event.take_ack() {
        report(ack.send_args(event.args()));
    }
}

fn with_room(mut event: Event, act: impl Fn(&Event, &str)) {
    let room = match event.first::<String>() {
        Ok(room) => room,
        Err(error) => return report(Err(error)),
    };
    act(&event, &room);
    if let Some(ack) = event.take_ack() {
        report(ack.send_args(&()));
    }
}

fn broadcast(event: &Event) -> ImksResult<()> {
    let (room, json) = event.args().split_first::<std::borrow::Cow<'_, str>>()?;
    let payload = RawArgs { json, attachments: event.args().attachments() };
    event.socket().namespace().to(&room).emit_args("msg", &payload)
}

fn report(result: ImksResult<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "event not handled");
    }
}
