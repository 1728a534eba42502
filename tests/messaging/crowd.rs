//! A crowd that comes back at once: all of them continue their sessions, and the database has little to do for that.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::client::TestClient;
use crate::server::{Kind, TestServer, first_channel};

/// The statements that this process sends to databases, by what they begin with.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<BTreeMap<String, usize>>>);

impl Statements {
    /// Begins to count.
    fn watched() -> &'static Self {
        static ALL: LazyLock<Statements> = LazyLock::new(|| {
            let statements = Statements::default();
            tracing_subscriber::registry().with(statements.clone()).init();
            statements
        });
        &ALL
    }

    /// Returns how many there were since the last time, and which. The rows of many sessions are written by one statement, but
    /// on SQLite by as many in one transaction: they go to no server, and are left out.
    fn take(&self, kind: Kind) -> (usize, BTreeMap<String, usize>) {
        let mut all = std::mem::take(&mut *self.0.lock());
        let in_transaction = ["INSERT INTO resume_session", "UPDATE resume_session"];
        all.retain(|it, _| kind == Kind::Postgres || !in_transaction.iter().any(|some| it.starts_with(some)));
        (all.values().sum(), all)
    }
}

impl<S: Subscriber> Layer<S> for Statements {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Summary(self));
    }
}

struct Summary<'a>(&'a Statements);

impl Visit for Summary<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            *self.0.0.lock().entry(value.to_owned()).or_default() += 1;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// The clients of the crowd.
const CLIENTS: usize = 200;

async fn a_crowd_comes_back(kind: Kind) {
    let server = TestServer::start(kind).await;
    let mut tokens = Vec::new();
    for number in 0..CLIENTS {
        tokens.push(server.token(&format!("user{number}")).await);
    }
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    // They have connected before, a few at a time: what is written of each then is not what this is about.
    for some in tokens.chunks(20) {
        join_all(some.iter().map(|token| TestClient::connect(server.addr(), token))).await;
    }
    let statements = Statements::watched();
    statements.take(kind);
    let before = join_all(tokens.iter().map(|token| TestClient::connect(server.addr(), token))).await;
    let (anew, _) = statements.take(kind);
    let known: Vec<_> = before.iter().map(|client| (client.pid.clone(), client.offset.clone())).collect();
    drop(before);
    for body in ["one", "two"] {
        alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
    }
    statements.take(kind);
    let come_back = |(token, (pid, offset)): (&String, &(Option<String>, Option<String>))| {
        let auth = json!({ "token": token, "pid": pid, "offset": offset });
        let (addr, pid) = (server.addr(), pid.clone());
        async move {
            let mut client = TestClient::open(addr).await;
            client.join(auth).await.unwrap();
            client.ready = client.expect("session:ready").await;
            assert_eq!((&client.pid, &client.ready["resumed"]), (&pid, &json!(true)));
            for body in ["one", "two"] {
                assert_eq!(client.expect("message:new").await["body"], body);
            }
            client
        }
    };
    let after = join_all(tokens.iter().zip(&known).map(come_back)).await;
    let (continued, which) = statements.take(kind);
    assert!(continued < CLIENTS, "{continued} statements, {anew} for new sessions: {which:?}");
    drop(after);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_continues_with_fewer_statements_than_clients_on_sqlite() {
    Box::pin(a_crowd_comes_back(Kind::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_continues_with_fewer_statements_than_clients_on_postgres() {
    Box::pin(a_crowd_comes_back(Kind::Postgres)).await;
}
