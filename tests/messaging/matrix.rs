//! The authorisation of every event and every route: whoever may not is refused before anything happens.

use std::collections::BTreeMap;

use imks::testing::directory::{NewChannel, RoleName};
use imks::testing::models::Db;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::client::TestClient;
use crate::server::{TestServer, text};
use crate::walk::Stranger::{self, Own, Refused};
use crate::walk::{Ids, Route, World, ask, ask_route, nowhere, payload, place, token};

/// Somebody who is not a member, and the message that they try things with.
struct Outsider {
    who: &'static str,
    token: String,
    ids: Ids,
}

/// Everybody who may not: who never was a member, who was one, who is banned, who is in another workspace, and who got a
/// token of the first page.
async fn outsiders(server: &TestServer, channel: &str, ids: &Ids) -> Vec<Outsider> {
    let directory = server.directory();
    for name in ["frank", "billy"] {
        directory.ensure_user(name).await.unwrap();
        directory.add_member("club", name, RoleName::default()).await.unwrap();
    }
    let mut frank = TestClient::connect(server.addr(), &token(server, "frank").await).await;
    let own = frank.ok("message:send", json!({ "channel_id": channel, "body": "mine" })).await;
    directory.remove_member("club", "frank").await.unwrap();
    directory.ban("club", "billy", "", None).await.unwrap();
    directory.create_workspace("elsewhere").await.unwrap();
    directory
        .create_channel(NewChannel { name: "elsewhere/room".into(), ..NewChannel::default() })
        .await
        .unwrap();
    directory.ensure_user("eve").await.unwrap();
    directory.add_member("elsewhere/room", "eve", RoleName::Owner).await.unwrap();
    directory.ensure_visitor("ada").await.unwrap();
    let mut outsiders = Vec::new();
    for (who, name) in [
        ("a stranger", "mallory"),
        ("a former member", "frank"),
        ("a banned user", "billy"),
        ("another workspace", "eve"),
        ("a visitor of the first page", "ada"),
    ] {
        outsiders.push(Outsider { who, token: token(server, name).await, ids: ids.clone() });
    }
    let mut author = Outsider {
        who: "a former member, about an own message",
        token: outsiders[1].token.clone(),
        ids: ids.clone(),
    };
    author.ids.insert("message_id", text(&own["message"]["id"]));
    outsiders.push(author);
    frank.expect("channel:left").await;
    outsiders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_refused_before_anything_happens_and_cannot_tell_it_from_what_does_not_exist() {
    let World { server, documents, channel, mut bob, .. } = World::new().await;
    let ids = place(&server, &mut bob, &channel).await;
    // Streams that nobody goes on with end by themselves.
    for (event, id) in [("stream:finish", "stream_id"), ("stream:abort", "aborted_id")] {
        bob.ok(event, json!({ "channel_id": channel, "message_id": ids[id] })).await;
    }
    let outsiders = outsiders(&server, &channel, &ids).await;
    let (events, routes) = (documents.events("receive"), documents.routes());
    let mut rows = Rows::open(&server).await;
    for outsider in &outsiders {
        let mut client = TestClient::connect(server.addr(), &outsider.token).await;
        for event in &events {
            outsider.tries_event(&mut client, event, &mut rows).await;
        }
        for route in &routes {
            outsider.tries_route(&server, route, &mut rows).await;
        }
    }
    for token in [None, Some("nonsense")] {
        for route in &routes {
            let (request, _) = payload(&route.event, &ids, "");
            let answer = ask_route(&server, token, route, &request).await;
            assert_eq!(answer.code(), (401, "unauthenticated"), "{} {}", route.method, route.path);
            rows.stay(Refused, "a guest").await;
        }
        let refused =
            TestClient::open(server.addr()).await.join(json!({ "token": token })).await.unwrap_err();
        assert_eq!(refused["data"]["code"], "unauthenticated");
    }
    server.stop().await;
}

impl Outsider {
    async fn tries_event(&self, client: &mut TestClient, event: &str, rows: &mut Rows) {
        let (place, mut answers) = (format!("{event} of {}", self.who), Vec::new());
        for ids in [&self.ids, &nowhere()] {
            let (request, stranger) = payload(event, ids, &self.token);
            let answer = ask(client, event, &request).await;
            assert!(stranger == Own || answer["error"]["code"] == "not_found", "{place}: {answer}");
            answers.push(neutral(answer, ids));
            rows.stay(stranger, &place).await;
        }
        assert_eq!(answers[0], answers[1], "{place}");
    }

    async fn tries_route(&self, server: &TestServer, route: &Route, rows: &mut Rows) {
        let (place, mut answers) = (format!("{} {} of {}", route.method, route.path, self.who), Vec::new());
        for ids in [&self.ids, &nowhere()] {
            let (request, stranger) = payload(&route.event, ids, &self.token);
            let answer = ask_route(server, Some(&self.token), route, &request).await;
            assert!(stranger == Own || answer.code() == (404, "not_found"), "{place}: {}", answer.body);
            answers.push((answer.status, neutral(answer.body, ids)));
            rows.stay(stranger, &place).await;
        }
        assert_eq!(answers[0], answers[1], "{place}");
    }
}

/// An answer without what differs between any two, and with the names of ids instead of them.
fn neutral(mut answer: Value, ids: &Ids) -> String {
    forget(&mut answer);
    let mut text = answer.to_string();
    for (name, id) in ids {
        text = text.replace(id, name);
    }
    text
}

fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !["request_id", "server_time", "updated_at", "user_rev", "version", "rev"]
                    .contains(&name.as_str())
            });
            fields.values_mut().for_each(forget);
        }
        Value::Array(items) => items.iter_mut().for_each(forget),
        _ => {}
    }
}

/// Everything that is stored, as it was.
struct Rows {
    db: Db,
    /// Each table, with the SQL that returns its content.
    tables: Vec<(String, String)>,
    stored: BTreeMap<String, Vec<String>>,
}

impl Rows {
    async fn open(server: &TestServer) -> Self {
        let db = Db::connect(server.database()).await.unwrap();
        let Db::Sqlite(sqlite) = &db else { panic!("SQLite") };
        // The index of searches follows what was written by itself.
        // What sessions need to continue is written in the background, when they begin and end.
        let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%search%' \
            AND name NOT LIKE 'resume%'";
        let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&sqlite.writer).await.unwrap();
        let mut tables = Vec::new();
        for name in names {
            let columns = format!(
                "SELECT group_concat('quote(\"' || name || '\")', ' || '','' || ') FROM pragma_table_info('{name}')"
            );
            let columns: String =
                sqlx::query_scalar(AssertSqlSafe(columns)).fetch_one(&sqlite.writer).await.unwrap();
            tables.push((name.clone(), format!("SELECT {columns} FROM \"{name}\" ORDER BY 1")));
        }
        assert!(tables.len() > 20);
        let mut rows = Self { db, tables, stored: BTreeMap::new() };
        rows.stored = rows.read().await;
        rows
    }

    async fn read(&self) -> BTreeMap<String, Vec<String>> {
        let Db::Sqlite(sqlite) = &self.db else { panic!("SQLite") };
        let mut stored = BTreeMap::new();
        for (name, sql) in &self.tables {
            let rows =
                sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_all(&sqlite.writer).await.unwrap();
            stored.insert(name.clone(), rows);
        }
        stored
    }

    /// Whoever is refused has changed nothing.
    async fn stay(&mut self, stranger: Stranger, by: &str) {
        let now = self.read().await;
        if stranger == Refused {
            assert_eq!(now, self.stored, "{by} changed what is stored");
        }
        self.stored = now;
    }
}
