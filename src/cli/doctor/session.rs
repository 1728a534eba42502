//! The checks of `imks doctor` as a user: sign-in, channels, ping, messages there and back, and the end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::report::{Fault, Outcome};
use super::{ANSWER_MAX, Doctor, advice, exchange, in_vain};
use crate::ImksResult;
use crate::cli::terminal;
use crate::client::{
    Client, ClientBuilder, ClientError, ClientEvent, EventStream, Events, Reconnect, Socket, Transports,
};

/// The checks of a session after the sign-in.
pub(super) const LATER: [&str; 8] =
    ["channels", "ping", "send", "receive", "broadcast", "members", "watch", "close"];

/// How a user signs in, and what they do.
pub(super) struct Visit<'a> {
    pub(super) builder: ClientBuilder,
    /// For a second connection of the same user.
    pub(super) second: ClientBuilder,
    pub(super) channel: Option<&'a str>,
    pub(super) watch: Option<Duration>,
}

/// Opens a polling session with the client library, and waits until a WebSocket takes over.
pub(super) async fn upgrade(builder: ClientBuilder) -> (Option<()>, Outcome) {
    let client = match builder.transports(Transports::upgrade()).reconnect(Reconnect::never()).build() {
        Ok(client) => client,
        Err(error) => return (None, Outcome::Failed(broken(&error))),
    };
    let mut events = client.events();
    let outcome = match client.connect().await {
        Err(error) => Outcome::Failed(broken(&error)),
        Ok(()) => match timeout(ANSWER_MAX, switched(&mut events)).await {
            Ok(Some(transport)) => Outcome::Good(format!("{transport} took over from polling")),
            Ok(None) => Outcome::Failed(not_upgraded("the connection ended")),
            Err(_) => Outcome::Failed(not_upgraded(&in_vain("no WebSocket took over"))),
        },
    };
    client.close().await;
    (Some(()), outcome)
}

async fn switched(events: &mut Events) -> Option<String> {
    loop {
        match events.next().await? {
            ClientEvent::TransportSwitched { transport } => return Some(transport.to_string()),
            ClientEvent::Disconnected { .. } => return None,
            _ => {}
        }
    }
}

fn not_upgraded(found: &str) -> Fault {
    Fault::new(
        found,
        "stock clients stay on polling: slower, and more work for the server",
        "look at the line `websocket`; with several servers, make the load balancer sticky",
    )
}

pub(super) fn broken(error: &ClientError) -> Fault {
    match error {
        ClientError::Refused(refusal) => advice::refusal(refusal.code(), &advice::excerpt(&refusal.message)),
        error => Fault::new(
            terminal::causes(error),
            "the connection cannot be opened, or did not last",
            "look at the lines above, and into the log of the server",
        ),
    }
}

/// Signs in and makes all checks that a user can make.
pub(super) async fn visit(doctor: &mut Doctor, visit: Visit<'_>) -> ImksResult<()> {
    let client = match visit.builder.reconnect(Reconnect::never()).build() {
        Ok(client) => client,
        Err(error) => {
            doctor.check("sign-in", async { (None::<()>, Outcome::Failed(broken(&error))) }).await?;
            return doctor.skip(&LATER, "there is no session");
        }
    };
    let mut events = client.events();
    let Some((socket, ready)) = doctor.check("sign-in", sign_in(&client)).await? else {
        client.close().await;
        return doctor.skip(&LATER, "there is no session");
    };
    doctor.check("channels", async { channels(&ready) }).await?;
    doctor.check("ping", ping(&socket)).await?;
    Box::pin(exchange::examine(doctor, &socket, &ready, visit.channel, visit.second)).await?;
    match visit.watch {
        Some(time) => drop(doctor.check("watch", watch(&mut events, time)).await?),
        None => doctor.skip(&["watch"], "give --watch 90s to see whether a quiet connection is cut")?,
    }
    let closing = async {
        client.close().await;
        (Some(()), Outcome::Good("closed".into()))
    };
    doctor.check("close", closing).await.map(drop)
}

async fn sign_in(client: &Client) -> (Option<(Socket, Value)>, Outcome) {
    let signing_in = async {
        let socket = client.socket("/")?;
        let mut ready: EventStream<Value> = socket.stream("session:ready");
        let mut more: EventStream<Value> = socket.stream("session:channels");
        socket.connect().await?;
        let mut first = timeout(ANSWER_MAX, ready.next()).await;
        if let Ok(Some(Ok(told))) = &mut first {
            // What has not come by then is missing in what is said about channels.
            let _ = timeout(ANSWER_MAX, add_channels(told, &mut more)).await;
        }
        Ok::<_, ClientError>((socket, first))
    };
    match signing_in.await {
        Err(error) => (None, Outcome::Failed(broken(&error))),
        Ok((socket, Ok(Some(Ok(ready))))) => {
            let name = advice::excerpt(ready["user"]["username"].as_str().unwrap_or("somebody"));
            let node = advice::excerpt(ready["server"]["node"].as_str().unwrap_or("unknown"));
            let text = format!("as {name}, on the node {node}");
            (Some((socket, ready)), Outcome::Good(text))
        }
        Ok((socket, _)) => {
            let text = "let in; without session:ready, so this is another server than imks";
            (Some((socket, Value::Null)), Outcome::Good(text.into()))
        }
    }
}

/// Adds the channels that the first event of the session has no room for.
async fn add_channels(ready: &mut Value, more: &mut EventStream<Value>) {
    let mut is_complete = ready["channels_complete"] != false;
    while !is_complete {
        let Some(Ok(told)) = more.next().await else { return };
        is_complete = told["channels_complete"] != false;
        let all = ready.get_mut("channels").and_then(Value::as_array_mut);
        if let (Some(all), Some(channels)) = (all, told["channels"].as_array()) {
            all.extend(channels.iter().cloned());
        }
    }
}

fn channels(ready: &Value) -> (Option<()>, Outcome) {
    let Some(channels) = ready["channels"].as_array() else {
        return (None, Outcome::Skipped("this server tells no channels".into()));
    };
    if channels.is_empty() {
        let fault = Fault::new(
            "no channels",
            "the user is a member of no channel, so there is nothing to read or write",
            "make them a member: `imks directory member add`, or in your core",
        );
        return (None, Outcome::Warned(fault));
    }
    let names: Vec<String> = channels
        .iter()
        .take(NAMES_SHOWN)
        .map(|channel| advice::excerpt(channel["name"].as_str().unwrap_or("(no name)")))
        .collect();
    let more = if channels.len() > NAMES_SHOWN { ", …" } else { "" };
    (Some(()), Outcome::Good(format!("{}: {}{more}", channels.len(), names.join(", "))))
}

async fn ping(socket: &Socket) -> (Option<()>, Outcome) {
    match socket.ask::<Value>("ping", &(json!({}),)).timeout(ANSWER_MAX).await {
        Ok(_) => (Some(()), Outcome::Good("an event is answered".into())),
        Err(error) => (None, Outcome::Failed(broken(&error))),
    }
}

/// Waits to see whether the connection lasts.
async fn watch(events: &mut Events, time: Duration) -> (Option<()>, Outcome) {
    let started = tokio::time::Instant::now();
    let ended = async {
        let mut heartbeats = 0_u32;
        loop {
            match events.next().await {
                Some(ClientEvent::Heartbeat { .. }) => heartbeats += 1,
                Some(ClientEvent::Disconnected { reason } | ClientEvent::Left { reason, .. }) => {
                    return (heartbeats, reason.to_string());
                }
                None => return (heartbeats, "the client has ended".into()),
                Some(_) => {}
            }
        }
    };
    match timeout(time, ended).await {
        Err(_) => (Some(()), Outcome::Good(format!("open for {} s", time.as_secs()))),
        Ok((heartbeats, reason)) => {
            let found =
                format!("cut after {} s and {heartbeats} heartbeats: {reason}", started.elapsed().as_secs());
            let fault = Fault::new(
                found,
                "something between cuts connections on which nothing happens, or the server ended it",
                "raise the idle time of the proxy or load balancer above the heartbeat (IMKS_ENGINE_PING_INTERVAL, 25 s); nginx: proxy_read_timeout 60s",
            );
            (None, Outcome::Failed(fault))
        }
    }
}

/// The most names of channels that are shown.
const NAMES_SHOWN: usize = 8;
