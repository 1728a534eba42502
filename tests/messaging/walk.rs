//! Every event and route of the server, each with a request that is right for a member of a channel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use imks::testing::clock;
use imks::testing::directory::{FIRST_WORKSPACE, RoleName};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::client::TestClient;
use crate::fake_s3;
use crate::http_request::{Response, send};
use crate::schema::Schemas;
use crate::server::{Kind, TestServer, text};

/// What somebody gets who is not in the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// "Not found", as if nothing of it existed.
    Refused,
    /// What is about the caller alone: the same as where nothing of it exists.
    Own,
}
use Stranger::{Own, Refused};

/// Every event with a payload that is right for a member of the channel. The order matters: what is removed comes last.
pub const EVENTS: &[(&str, &str, Stranger)] = &[
    ("ping", r#"{"t":1}"#, Own),
    ("auth:refresh", r#"{"token":"{token}"}"#, Own),
    ("channel:subscribe", r#"{"channel_ids":["{channel_id}"]}"#, Own),
    ("channel:focus", r#"{"channel_ids":["{channel_id}"]}"#, Own),
    (
        "message:send",
        r#"{"channel_id":"{channel_id}","body":"hi","reply_to_message_id":"{message_id}"}"#,
        Refused,
    ),
    ("message:edit", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","body":"new"}"#, Refused),
    ("message:edits", r#"{"channel_id":"{channel_id}","message_id":"{message_id}"}"#, Refused),
    ("message:get", r#"{"channel_id":"{channel_id}","message_ids":["{message_id}"]}"#, Refused),
    ("history", r#"{"channel_id":"{channel_id}","around":"{message_id}","limit":2}"#, Refused),
    ("sync", r#"{"channels":[{"channel_id":"{channel_id}","seq":0,"rev":0}],"user_rev":0}"#, Own),
    ("search", r#"{"q":"hello","channel_ids":["{channel_id}"]}"#, Refused),
    ("mentions:list", r#"{"limit":2}"#, Own),
    ("read:mark", r#"{"channel_id":"{channel_id}","seq":1}"#, Refused),
    ("read:mark_unread", r#"{"channel_id":"{channel_id}","from_seq":1}"#, Refused),
    ("read:mark_all", r#"{"channel_ids":["{channel_id}"]}"#, Own),
    ("read:receipts", r#"{"channel_id":"{channel_id}","seq":1}"#, Refused),
    ("reaction:add", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","emoji":"👍"}"#, Refused),
    ("reaction:remove", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","emoji":"👍"}"#, Refused),
    ("emoji:list", r#"{"channel_id":"{channel_id}","etag":"1"}"#, Refused),
    ("emoji:get", r#"{"channel_id":"{channel_id}","emoji_id":"{emoji_id}"}"#, Refused),
    ("pin:add", r#"{"channel_id":"{channel_id}","message_id":"{message_id}"}"#, Refused),
    ("pin:list", r#"{"channel_id":"{channel_id}"}"#, Refused),
    ("pin:remove", r#"{"channel_id":"{channel_id}","message_id":"{message_id}"}"#, Refused),
    ("poll:vote", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","option_ids":[1]}"#, Refused),
    ("poll:voters", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","option_id":1}"#, Refused),
    ("poll:close", r#"{"channel_id":"{channel_id}","message_id":"{message_id}"}"#, Refused),
    ("message:ack", r#"{"channel_id":"{channel_id}","message_id":"{asked_id}"}"#, Refused),
    ("message:acks", r#"{"channel_id":"{channel_id}","message_id":"{asked_id}","state":"missing"}"#, Refused),
    ("thread:unfollow", r#"{"channel_id":"{channel_id}","thread_id":"{message_id}"}"#, Refused),
    ("thread:follow", r#"{"channel_id":"{channel_id}","thread_id":"{message_id}"}"#, Refused),
    ("thread:list", r#"{"channel_id":"{channel_id}","limit":2}"#, Refused),
    ("thread:followed", r#"{"unread":false}"#, Own),
    ("typing:start", r#"{"channel_id":"{channel_id}"}"#, Refused),
    ("typing:stop", r#"{"channel_id":"{channel_id}"}"#, Own),
    ("presence:set", r#"{"status":"dnd"}"#, Own),
    ("presence:active", "{}", Own),
    ("presence:subscribe", r#"{"user_ids":["{user_id}"]}"#, Own),
    ("presence:unsubscribe", r#"{"user_ids":["{user_id}"]}"#, Own),
    ("presence:list", r#"{"channel_id":"{channel_id}"}"#, Refused),
    ("call:signal", r#"{"channel_id":"{channel_id}","data":{"type":"offer"}}"#, Refused),
    ("draft:set", r#"{"channel_id":"{channel_id}","body":"begun"}"#, Refused),
    ("draft:list", "{}", Own),
    ("draft:clear", r#"{"channel_id":"{channel_id}"}"#, Own),
    ("bookmark:add", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","note":"read"}"#, Refused),
    ("bookmark:update", r#"{"channel_id":"{channel_id}","message_id":"{message_id}","note":null}"#, Refused),
    ("bookmark:list", r#"{"limit":2}"#, Own),
    ("bookmark:remove", r#"{"message_id":"{message_id}"}"#, Own),
    ("keypackage:publish", r#"{"device_id":"d","packages":[{"id":"k","package":"x"}]}"#, Own),
    ("keypackage:claim", r#"{"channel_id":"{channel_id}","user_ids":["{user_id}"]}"#, Refused),
    (
        "attachment:create",
        r#"{"channel_id":"{channel_id}","filename":"a.txt","mime":"text/plain","size":5}"#,
        Refused,
    ),
    ("attachment:complete", r#"{"attachment_id":"{unsent_id}"}"#, Refused),
    ("attachment:get", r#"{"channel_id":"{channel_id}","attachment_id":"{sent_id}"}"#, Refused),
    ("attachment:remove", r#"{"attachment_id":"{unsent_id}"}"#, Own),
    ("schedule:create", r#"{"channel_id":"{channel_id}","body":"later","send_at":"{soon}"}"#, Refused),
    ("schedule:get", r#"{"id":"{scheduled_id}"}"#, Refused),
    ("schedule:list", r#"{"state":"pending"}"#, Own),
    ("schedule:update", r#"{"id":"{scheduled_id}","body":"much later"}"#, Refused),
    ("schedule:cancel", r#"{"id":"{scheduled_id}"}"#, Refused),
    (
        "message:report",
        r#"{"channel_id":"{channel_id}","message_id":"{message_id}","reason":"spam"}"#,
        Refused,
    ),
    ("report:list", r#"{"channel_id":"{channel_id}"}"#, Refused),
    (
        "stream:append",
        r#"{"channel_id":"{channel_id}","message_id":"{stream_id}","offset":5,"text":"!"}"#,
        Refused,
    ),
    ("stream:finish", r#"{"channel_id":"{channel_id}","message_id":"{stream_id}"}"#, Refused),
    ("stream:abort", r#"{"channel_id":"{channel_id}","message_id":"{aborted_id}"}"#, Refused),
    ("message:delete", r#"{"channel_id":"{channel_id}","message_id":"{message_id}"}"#, Refused),
    ("message:delete_bulk", r#"{"channel_id":"{channel_id}","message_ids":["{message_id}"]}"#, Refused),
    ("channel:unsubscribe", r#"{"channel_ids":["{channel_id}"]}"#, Own),
];

/// The ids of things, by their names in [`EVENTS`].
pub type Ids = BTreeMap<&'static str, String>;

/// A message of bob, who owns the channel, with everything that a message can have; and what is only his.
pub async fn place(server: &TestServer, bob: &mut TestClient, channel: &str) -> Ids {
    let (sent_id, unsent_id) = (uploaded(server, bob, channel).await, uploaded(server, bob, channel).await);
    let message = json!({
        "channel_id": channel, "body": "hello", "poll": { "question": "?", "options": ["A", "B"] },
        "attachments": [sent_id], "embeds": [{ "title": "t", "fields": [{ "name": "n", "value": "v" }] }],
    });
    let message_id = text(&bob.ok("message:send", message).await["message"]["id"]);
    bob.ok("message:send", json!({ "channel_id": channel, "body": "re", "thread_id": message_id })).await;
    let (stream_id, aborted_id) = (streamed(bob, channel).await, streamed(bob, channel).await);
    let asked_id = asked(server, channel).await;
    let scheduled = json!({ "channel_id": channel, "body": "later", "send_at": soon() });
    let scheduled_id = text(&bob.ok("schedule:create", scheduled).await["scheduled"]["id"]);
    let user_id = text(&bob.ready["user"]["id"]);
    let picture = "https://emoji.example/ship.png";
    let emoji = server.directory().create_emoji(FIRST_WORKSPACE, "ship", picture).await.unwrap();
    let ids =
        [("channel_id", channel.to_owned()), ("message_id", message_id), ("scheduled_id", scheduled_id)];
    ids.into_iter()
        .chain([
            ("sent_id", sent_id),
            ("unsent_id", unsent_id),
            ("stream_id", stream_id),
            ("aborted_id", aborted_id),
            ("asked_id", asked_id),
            ("user_id", user_id),
            ("emoji_id", emoji.id.to_string()),
        ])
        .collect()
}

/// Ids of nothing.
pub fn nowhere() -> Ids {
    let names = [
        "channel_id",
        "message_id",
        "stream_id",
        "aborted_id",
        "asked_id",
        "scheduled_id",
        "sent_id",
        "unsent_id",
        "user_id",
        "emoji_id",
    ];
    names.map(|name| (name, Uuid::now_v7().to_string())).into()
}

/// A message for which more text may come.
async fn streamed(client: &mut TestClient, channel: &str) -> String {
    let message = json!({ "channel_id": channel, "body": "hello", "stream": true });
    text(&client.ok("message:send", message).await["message"]["id"])
}

/// A message of alice that asks for acknowledgements.
async fn asked(server: &TestServer, channel: &str) -> String {
    let mut alice = TestClient::connect(server.addr(), &token(server, "alice").await).await;
    let message = json!({ "channel_id": channel, "body": "read this", "ack_requested": true });
    text(&alice.ok("message:send", message).await["message"]["id"])
}

async fn uploaded(server: &TestServer, client: &mut TestClient, channel: &str) -> String {
    let file = json!({ "channel_id": channel, "filename": "a.txt", "mime": "text/plain", "size": 5 });
    let created = client.ok("attachment:create", file).await;
    let url = text(&created["upload"]["url"]);
    assert_eq!(
        fake_s3::http(server.addr(), "PUT", &url, &[("content-type", "text/plain")], b"hello").await.status,
        201
    );
    let id = text(&created["attachment"]["id"]);
    client.ok("attachment:complete", json!({ "attachment_id": id })).await;
    id
}

fn soon() -> String {
    clock::rfc3339(clock::now_micros() + 3_600_000_000)
}

pub fn fill(template: &str, ids: &Ids, token: &str) -> Value {
    let mut filled = template.replace("{token}", token).replace("{soon}", &soon());
    for (name, id) in ids {
        filled = filled.replace(&format!("{{{name}}}"), id);
    }
    serde_json::from_str(&filled).unwrap()
}

/// The payload of an event.
pub fn payload(event: &str, ids: &Ids, token: &str) -> (Value, Stranger) {
    let row = EVENTS.iter().find(|(name, ..)| *name == event);
    let (_, template, stranger) = row.unwrap_or_else(|| panic!("a new event needs a row here: {event}"));
    (fill(template, ids, token), *stranger)
}

/// The text of a document.
pub async fn document(server: &TestServer, file: &str) -> String {
    let answer = fake_s3::http(server.addr(), "GET", &format!("/api/v1/{file}"), &[], b"").await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap()
}

/// What the server says about its events and routes.
pub struct Documents {
    pub events: Schemas,
    pub routes: Schemas,
}

/// A route for users.
pub struct Route {
    pub method: String,
    pub path: String,
    /// The event that it answers.
    pub event: String,
    pub responses: Value,
}

impl Documents {
    pub async fn read(server: &TestServer) -> Self {
        let json = async |file| Schemas(serde_json::from_str(&document(server, file).await).unwrap());
        Self { events: json("asyncapi.json").await, routes: json("openapi.json").await }
    }

    /// The names of the events that the server sends or receives.
    pub fn events(&self, action: &str) -> BTreeSet<String> {
        let operations = self.events.0["operations"].as_object().unwrap().values();
        let named = operations.filter(|operation| operation["action"] == action).map(|operation| {
            let of_channel = self.follow(&operation["messages"][0]);
            text(&self.follow(of_channel)["name"])
        });
        named.collect()
    }

    fn follow(&self, reference: &Value) -> &Value {
        let pointer = reference["$ref"].as_str().unwrap().trim_start_matches('#');
        self.events.0.pointer(pointer).unwrap()
    }

    /// Checks the payload of an event, or of the answer to one.
    pub fn check(&self, message: &str, payload: &Value) {
        let messages = self.events.0["components"]["messages"].as_object().unwrap().values();
        let described = messages.into_iter().find(|it| it["name"] == message);
        let schema = &described.unwrap_or_else(|| panic!("the document has no {message}"))["payload"];
        self.events.check(schema, payload).unwrap_or_else(|problem| panic!("{message}: {problem}"));
    }

    /// The routes for users, in the order of [`EVENTS`].
    pub fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for (path, operations) in self.routes.0["paths"].as_object().unwrap() {
            let of_users =
                operations.as_object().unwrap().iter().filter(|(_, it)| it["tags"] == json!(["users"]));
            routes.extend(of_users.map(|(method, it)| Route {
                method: method.to_uppercase(),
                path: path.clone(),
                event: text(&it["summary"]),
                responses: it["responses"].clone(),
            }));
        }
        routes.sort_by_key(|route| EVENTS.iter().position(|(name, ..)| *name == route.event));
        routes
    }
}

/// Asks a route what its event would be asked. Waits where a rate limit says so.
pub async fn ask_route(
    server: &TestServer,
    token: Option<&str>,
    Route { method, path, .. }: &Route,
    payload: &Value,
) -> Response {
    let mut fields: Map<String, Value> = payload.as_object().unwrap().clone();
    let mut filled = path.clone();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let value = fields.remove(name).unwrap_or_else(|| panic!("{path} needs {name}"));
        filled = filled.replace(&format!("{{{name}}}"), value.as_str().unwrap_or(&value.to_string()));
    }
    let (query, body) = match method.as_str() {
        "GET" | "DELETE" => (query(&fields), String::new()),
        _ => (String::new(), json!(fields).to_string()),
    };
    let token = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = token.iter().map(|token| ("authorization", token.as_str())).collect();
    loop {
        let answer = send(server.addr(), &format!("{method} {filled}?{query}"), &headers, &body).await;
        match answer.body["error"]["retry_after_ms"].as_u64() {
            Some(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
            None => return answer,
        }
    }
}

fn query(fields: &Map<String, Value>) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |value: &Value| match value {
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        value => plain(value),
    };
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", list(value))).collect();
    pairs.join("&")
}

pub async fn ask(client: &mut TestClient, event: &str, payload: &Value) -> Value {
    loop {
        let answer = client.call(event, payload.clone()).await;
        match answer["error"]["retry_after_ms"].as_u64() {
            Some(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
            None => return answer,
        }
    }
}

/// A server with a channel of bob, and alice in it.
pub struct World {
    pub server: TestServer,
    pub documents: Documents,
    pub channel: String,
    pub token: String,
    pub bob: TestClient,
    pub alice: TestClient,
}

impl World {
    pub async fn new() -> Self {
        let server = TestServer::start(Kind::Sqlite).await;
        let (documents, channel) = (Documents::read(&server).await, club(&server).await);
        let (token, of_alice) = (token(&server, "bob").await, token(&server, "alice").await);
        let bob = TestClient::connect(server.addr(), &token).await;
        let alice = TestClient::connect(server.addr(), &of_alice).await;
        Self { server, documents, channel, token, bob, alice }
    }
}

/// A token of a user who is a member only where a test says so.
pub async fn token(server: &TestServer, name: &str) -> String {
    let user = server.directory().ensure_user(name).await.unwrap();
    server.directory().issue_token(&user, Duration::from_secs(3600)).await.unwrap()
}

/// A channel that bob owns, and alice is in.
async fn club(server: &TestServer) -> String {
    let channel = server.channel("club", &["alice"]).await;
    server.directory().ensure_user("bob").await.unwrap();
    server.directory().add_member("club", "bob", RoleName::Owner).await.unwrap();
    channel
}
