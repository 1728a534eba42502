//! One node of a cluster, with everything that reaches the other nodes.

use std::sync::Arc;
use std::time::Duration;

use imks::node::NodeId;
use imks::recovery_log;
use imks::socket::adapter::{Adapter, nats, redis};
use imks::socket::packet::Args;
use imks::socket::parser::{Arguments, RawArgs};
use imks::socket::recovery_log::RecoveryLog;
use imks::socket::{self, Broadcast, Event, NamespaceBuilder, Recovery, Server, ServerEvent};
use imks::testing::forward::Forwarder;
use imks::testing::models::cluster_message;
use imks::testing::models::db::{self, Db};
use imks::{ImksError, ImksResult};
use serde_json::{Map, Value, json, value::RawValue};

use crate::contacts;

/// The name of a node, and its way to the others.
type Node<'a> = (&'a str, &'a Forwarder);

/// A node that reaches the others through the broker at `url`.
pub async fn server(url: &str, prefix: &str, node: Node<'_>) -> ImksResult<Server> {
    build(url, prefix, node, socket::Config::default(), None).await
}

/// The same with sessions that clients continue on any node. The broker also holds the log of events.
pub async fn recovering_server(url: &str, prefix: &str, node: Node<'_>) -> ImksResult<Server> {
    let log = match url.split(':').next().unwrap_or_default() {
        "postgres" | "postgresql" => recovery_log::postgres(url, prefix).await?,
        scheme if scheme.starts_with("redis") => recovery_log::redis(url, prefix).await?,
        "nats" | "tls" => recovery_log::nats(url, None, prefix).await?,
        _ => return Err(ImksError::Config("--adapter must be redis://, nats:// or postgres://".into())),
    };
    let config = socket::Config { recovery: Some(Recovery::default()), ..socket::Config::default() };
    build(url, prefix, node, config, Some(log)).await
}

/// The same in a cluster that it shares with Node.js servers: `prefix` is the option `key` of their adapter.
pub fn classic_server(url: &str, prefix: &str, (name, forwarder): Node<'_>) -> ImksResult<Server> {
    let adapter = redis::classic(url, prefix)?;
    let name: Arc<str> = name.into();
    let server = Server::builder(socket::Config::default()).namespace("/", |namespace| {
        namespace.classic(adapter.clone());
        contract(namespace, &name);
    });
    let server = server.namespace(contacts::NAMESPACE, |namespace| {
        namespace.classic(adapter);
        contacts::hear(namespace, forwarder);
    });
    server.build()
}

async fn build(
    url: &str,
    prefix: &str,
    (name, forwarder): Node<'_>,
    config: socket::Config,
    log: Option<Arc<dyn RecoveryLog>>,
) -> ImksResult<Server> {
    let node = NodeId::random()?;
    let name: Arc<str> = name.into();
    let server = Server::builder(config).node(node).adapter(adapter(url, prefix, node).await?);
    let server = match log {
        Some(log) => server.recovery_log(log),
        None => server,
    };
    let server = server.namespace("/", |namespace| contract(namespace, &name));
    server.namespace(contacts::NAMESPACE, |namespace| contacts::hear(namespace, forwarder)).build()
}

/// What every node does, whatever connects it to the others.
fn contract(namespace: &mut NamespaceBuilder, name: &Arc<str>) {
    namespace.recover_data::<Data>(DATA);
    about(namespace, name);
    broadcasts(namespace);
    questions(namespace, name);
    sockets(namespace);
}

async fn adapter(url: &str, prefix: &str, node: NodeId) -> ImksResult<Arc<dyn Adapter>> {
    match url.split(':').next().unwrap_or_default() {
        scheme if scheme.starts_with("redis") => redis::connect(url, prefix, node),
        "nats" | "tls" => nats::connect(url, None, prefix, node),
        "postgres" | "postgresql" => {
            let db = Db::connect(&db::Config { url: Some(url.into()), ..db::Config::default() }).await?;
            db.migrate().await?;
            cluster_message::connect(&db, prefix, node)
        }
        _ => Err(ImksError::Config("--adapter must be redis://, nats:// or postgres://".into())),
    }
}

/// The socket itself.
fn about(namespace: &mut NamespaceBuilder, name: &Arc<str>) {
    on(namespace, "echo", |event| {
        let args = event.args().clone();
        ack(event, &args)
    });
    let name = name.clone();
    on(namespace, "whoami", move |event| {
        let socket = event.socket();
        let about = json!({ "id": socket.id(), "node": &*name, "recovered": socket.recovered() });
        ack(event, &socket::parser::One(&about))
    });
    on(namespace, "set", |event| {
        let more: Map<String, Value> = event.first()?;
        let mut data = event.socket().data::<Data>().map(|data| data.0.clone()).unwrap_or_default();
        data.extend(more);
        event.socket().share_data(DATA, Data(data));
        ack(event, &())
    });
    on(namespace, "join", |event| {
        let Room(room) = event.first()?;
        event.socket().join(&room);
        ack(event, &())
    });
    on(namespace, "leave", |event| {
        let Room(room) = event.first()?;
        event.socket().leave(&room);
        ack(event, &())
    });
}

/// The name of a room. Clients may write it as a number, as those of Node.js servers do.
#[derive(serde::Deserialize)]
#[serde(from = "Value")]
struct Room(String);

impl From<Value> for Room {
    fn from(value: Value) -> Self {
        match value {
            Value::String(name) => Self(name),
            other => Self(other.to_string()),
        }
    }
}

/// What `set` has set.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
struct Data(Map<String, Value>);

/// The room of the first argument, or everybody.
fn target<'a>(broadcast: Broadcast<'a>, room: Option<&'a Room>) -> Broadcast<'a> {
    match room {
        Some(Room(room)) => broadcast.to(room),
        None => broadcast,
    }
}

/// Sends `msg` with the arguments after the room, and acks if the client asks for it.
fn send(
    event: &mut Event,
    build: impl for<'a> Fn(&'a Event, Option<&'a Room>) -> Broadcast<'a>,
) -> ImksResult<()> {
    let (room, rest): (Option<Room>, &str) = event.args().split_first()?;
    let payload = RawArgs { json: rest, attachments: event.args().attachments() };
    build(event, room.as_ref()).emit_args("msg", &payload)?;
    ack(event, &())
}

fn broadcasts(namespace: &mut NamespaceBuilder) {
    on(namespace, "broadcast", |event| {
        send(event, |event, room| target(event.socket().namespace().everybody(), room))
    });
    on(namespace, "broadcast_others", |event| {
        send(event, |event, room| target(event.socket().broadcast(), room))
    });
    on(namespace, "broadcast_volatile", |event| {
        send(event, |event, room| target(event.socket().namespace().everybody().volatile(), room))
    });
    on(namespace, "broadcast_local", |event| {
        send(event, |event, room| target(event.socket().namespace().everybody().local(), room))
    });
    on(namespace, "broadcast_except", |event| {
        let values = event.args().values()?;
        let [room, except, payload @ ..] = &values[..] else {
            return Err(ImksError::InvalidPayload("R X …".into()));
        };
        let (room, Room(except)): (Option<Room>, Room) =
            (serde_json::from_str(room.get())?, serde_json::from_str(except.get())?);
        let json = payload.iter().map(|value| value.get()).collect::<Vec<_>>().join(",");
        let payload = RawArgs { json: &json, attachments: event.args().attachments() };
        let everybody = event.socket().namespace().everybody();
        target(everybody, room.as_ref()).except(&except).emit_args("msg", &payload)?;
        ack(event, &())
    });
}

fn questions(namespace: &mut NamespaceBuilder, name: &Arc<str>) {
    namespace.on("ask_servers", |event| async move { report(ask_servers(event).await) });
    namespace.on("ask", |event| async move { report(ask(event).await) });
    let name = name.clone();
    namespace.on_server_event("question", move |mut event: ServerEvent| {
        let name = name.clone();
        async move {
            let json = format!("[{},{}]", json!(&*name), or_null(event.args().json()));
            let attachments = event.args().attachments().to_vec();
            report(event.answer_args(&RawArgs { json: &json, attachments: &attachments }));
        }
    });
}

async fn ask_servers(mut event: Event) -> ImksResult<()> {
    let question = RawArgs { json: or_null(event.args().json()), attachments: event.args().attachments() };
    let namespace = event.socket().namespace();
    let asked = namespace.server_side_emit_with_ack("question", &question, PATIENCE).await?;
    answer(&mut event, asked.answers.iter().map(|(_, args)| args), asked.silent.is_empty())
}

async fn ask(mut event: Event) -> ImksResult<()> {
    let (room, question, millis): (Option<Room>, Box<RawValue>, f64) = event.parse()?;
    let everybody = target(event.socket().namespace().everybody(), room.as_ref());
    let timeout = Duration::try_from_secs_f64(millis / 1_000.0)
        .map_err(|_| ImksError::InvalidPayload("MS is no time".into()))?;
    let question = RawArgs { json: question.get(), attachments: event.args().attachments() };
    let asked = everybody.emit_with_ack("question", &question, timeout).await?;
    answer(&mut event, asked.answers.iter().map(|answer| &answer.args), asked.is_complete())
}

/// Acks with the first argument of each answer and its bytes; without one it is null.
fn answer<'a>(event: &mut Event, answers: impl Iterator<Item = &'a Args>, complete: bool) -> ImksResult<()> {
    let (mut values, mut attachments) = (Vec::new(), Vec::new());
    for args in answers {
        let mut value = if args.json().is_empty() { Value::Null } else { args.first()? };
        renumber(&mut value, attachments.len());
        values.push(value);
        attachments.extend_from_slice(args.attachments());
    }
    let error = if complete { Value::Null } else { "some did not answer".into() };
    let json = json!({ "error": error, "answers": values }).to_string();
    ack(event, &RawArgs { json: &json, attachments: &attachments })
}

/// Moves the numbers of attachments in a value, because others come before them.
fn renumber(value: &mut Value, before: usize) {
    match value {
        Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = fields.get("num").and_then(Value::as_u64).unwrap_or_default();
            fields.insert("num".into(), (number + before as u64).into());
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| renumber(value, before)),
        Value::Array(values) => values.iter_mut().for_each(|value| renumber(value, before)),
        _ => {}
    }
}

fn or_null(json: &str) -> &str {
    if json.is_empty() { "null" } else { json }
}

/// What is asked of and done to sockets of all nodes.
fn sockets(namespace: &mut NamespaceBuilder) {
    namespace.on("fetch", |event| async move { report(fetch(event).await) });
    namespace.on("sockets_join", |event| async move {
        report(change_rooms(event, |sockets, room| sockets.sockets_join(room)).await);
    });
    namespace.on("sockets_leave", |event| async move {
        report(change_rooms(event, |sockets, room| sockets.sockets_leave(room)).await);
    });
    on(namespace, "disconnect_room", |event| {
        let (room, close): (Option<Room>, bool) = event.parse()?;
        ack(event, &())?;
        target(event.socket().namespace().everybody(), room.as_ref()).disconnect_sockets(close)
    });
}

/// Acks when every node has made the change: nodes handle what this one sends in order, so who answers the question
/// has made it.
async fn change_rooms(
    mut event: Event,
    change: impl FnOnce(Broadcast<'_>, &str) -> ImksResult<()>,
) -> ImksResult<()> {
    let (room, Room(other)): (Option<Room>, Room) = event.parse()?;
    let namespace = event.socket().namespace();
    change(target(namespace.everybody(), room.as_ref()), &other)?;
    namespace.everybody().fetch_sockets().await?;
    ack(&mut event, &())
}

async fn fetch(mut event: Event) -> ImksResult<()> {
    let room: Option<Room> = event.first()?;
    let everybody = target(event.socket().namespace().everybody(), room.as_ref());
    let mut sockets = Vec::new();
    for socket in everybody.fetch_sockets().await?.sockets {
        let mut rooms = socket.rooms().to_vec();
        rooms.sort();
        // Sockets of Node.js servers have their values at the top.
        let data = socket.data().get(DATA).unwrap_or_else(|| socket.data());
        let query =
            socket.handshake().url.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
        let query: Map<String, Value> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
            .collect();
        sockets.push(json!({ "id": socket.id(), "rooms": rooms, "data": data, "query": query }));
    }
    ack(&mut event, &socket::parser::One(&sockets))
}

/// Registers a handler that cannot wait.
fn on(
    namespace: &mut NamespaceBuilder,
    name: &str,
    handler: impl Fn(&mut Event) -> ImksResult<()> + Send + Sync + 'static,
) {
    namespace.on_sync(name, move |mut event| report(handler(&mut event)));
}

fn report(result: ImksResult<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "event not handled");
    }
}

fn ack(event: &mut Event, args: &impl Arguments) -> ImksResult<()> {
    event.take_ack().map_or(Ok(()), |ack| ack.send_args(args))
}

/// The name of the shared data.
const DATA: &str = "set";
const PATIENCE: Duration = Duration::from_secs(5);
