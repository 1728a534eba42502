//! Coming back where something went wrong before: a client that is cut off again before it has heard that its session continues, a
//! token that was withdrawn meanwhile, and a database that has lost what it knew.

use std::time::Duration;

use imks::testing::directory::RoleName;
use imks::testing::models::db::Db;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::client::TestClient;
use crate::machine::{Machine, World};
use crate::server::{Kind, TestServer, first_channel, text};

/// What a client knows of its session.
#[derive(Clone)]
struct Known {
    pid: Option<String>,
    offset: Option<String>,
}

impl Known {
    fn of(client: &TestClient) -> Self {
        Self { pid: client.pid.clone(), offset: client.offset.clone() }
    }

    fn auth(&self, token: &str) -> Value {
        json!({ "token": token, "pid": self.pid, "offset": self.offset })
    }
}

/// A client that comes back with what it knows, and whether its session continues.
async fn back(server: &TestServer, token: &str, known: &Known) -> (TestClient, bool) {
    let mut client = TestClient::open(server.addr()).await;
    client.offset.clone_from(&known.offset);
    client.join(known.auth(token)).await.unwrap();
    client.ready = client.expect("session:ready").await;
    let is_recovered = client.pid == known.pid;
    assert_eq!(client.ready["resumed"], is_recovered);
    (client, is_recovered)
}

async fn say(client: &mut TestClient, channel: &str, body: &str) {
    client.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
}

/// The bodies of the messages that come before the answer to a `ping`.
async fn bodies(client: &mut TestClient) -> Vec<String> {
    let events = client.events_so_far().await.into_iter();
    events.filter(|(name, _)| name == "message:new").map(|(_, message)| text(&message["body"])).collect()
}

/// Waits until it is so.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn cut_off_again(kind: Kind) {
    let server = TestServer::start(kind).await;
    let token = server.token("bob").await;
    let (mut alice, mut bob) =
        (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    let channel = first_channel(&bob);
    say(&mut alice, &channel, "first").await;
    bob.expect("message:new").await;
    let known = Known::of(&bob);
    for body in ["second", "third"] {
        say(&mut alice, &channel, body).await;
    }
    let mut former = bob;
    // Three times, the connection ends before the client has read anything.
    for _ in 0..3 {
        let mut cut = TestClient::open(server.addr()).await;
        cut.raw(&format!("40{}", known.auth(&token))).await;
        former.ended().await;
        former = cut;
    }
    let (cut, is_recovered) = back(&server, &token, &known).await;
    assert!(is_recovered, "it has read nothing");
    assert_eq!(cut.offset, known.offset, "session:ready alone says nothing of what comes then");
    drop(cut);
    let (mut bob, is_recovered) = back(&server, &token, &known).await;
    assert!(is_recovered, "it has read session:ready");
    assert_eq!(bodies(&mut bob).await, ["second", "third"]);
    say(&mut alice, &channel, "fourth").await;
    assert_eq!(bob.expect("message:new").await["body"], "fourth");
    let known = Known::of(&bob);
    for body in ["fifth", "sixth"] {
        say(&mut alice, &channel, body).await;
    }
    drop(bob);
    let (mut bob, is_recovered) = back(&server, &token, &known).await;
    assert!(is_recovered);
    assert_eq!(bob.event().await.1["body"], "fifth");
    let in_part = Known::of(&bob);
    assert_ne!(in_part.offset, known.offset, "it says that it has a part");
    assert_eq!(bob.event().await.1["body"], "sixth");
    let whole = Known::of(&bob);
    drop(bob);
    let (mut bob, is_recovered) = back(&server, &token, &whole).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await, Vec::<String>::new(), "it has all");
    let (bob, is_recovered) = back(&server, &token, &in_part).await;
    assert!(!is_recovered, "who got a part only would get that twice");
    assert_eq!(bob.ready["channels"][0]["last_seq"], 6);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_again_before_hearing_of_the_session_continues_all_the_same_on_sqlite() {
    Box::pin(cut_off_again(Kind::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_again_before_hearing_of_the_session_continues_all_the_same_on_postgres() {
    Box::pin(cut_off_again(Kind::Postgres)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_token_also_while_its_client_is_away() {
    let server = TestServer::start(Kind::Sqlite).await;
    let [token, other] = [server.token("bob").await, server.token("bob").await];
    let bob = TestClient::connect(server.addr(), &token).await;
    let (known, session) = (Known::of(&bob), text(&bob.ready["session_id"]));
    drop(bob);
    let (bob, is_recovered) = back(&server, &other, &known).await;
    assert!(is_recovered, "with another token of the same user");
    let (bob, is_recovered) = back(&server, &token, &Known::of(&bob)).await;
    assert!(is_recovered);
    let known = Known::of(&bob);
    drop(bob);
    server.directory().revoke_session(&session).await.unwrap();
    let mut client = TestClient::open(server.addr()).await;
    let refused = client.join(known.auth(&token)).await.unwrap_err();
    assert_eq!(refused["data"]["code"], "token_revoked");
    let db = Db::connect(server.database()).await.unwrap();
    let Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
    eventually("its session is still there", async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM resume_session");
        count.fetch_one(&sqlite.reader).await.unwrap() == 0
    })
    .await;
    let (_, is_recovered) = back(&server, &other, &known).await;
    assert!(!is_recovered);
    db.close().await;
    server.stop().await;
}

/// A client that was quiet while the journal was made short.
async fn quiet(kind: Kind) {
    let server = TestServer::start_with(kind, |config| config.messaging.resume.journal_bytes = 1).await;
    let token = server.token("bob").await;
    let (mut alice, mut bob) =
        (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    let channel = first_channel(&bob);
    for body in ["one", "two"] {
        say(&mut alice, &channel, body).await;
        assert_eq!(bob.expect("message:new").await["body"], body);
    }
    let db = Db::connect(server.database()).await.unwrap();
    eventually("the journal stays long", async || {
        // The node has no row before its first turn of writing.
        let folded = "SELECT COALESCE(MAX(folded), 0) FROM resume_node";
        let folded: Result<i64, _> = match &db {
            Db::Postgres(pool) => sqlx::query_scalar(folded).fetch_one(pool).await,
            Db::Sqlite(sqlite) => sqlx::query_scalar(folded).fetch_one(&sqlite.reader).await,
        };
        folded.unwrap() > 0
    })
    .await;
    db.close().await;
    let known = Known::of(&bob);
    say(&mut alice, &channel, "three").await;
    drop(bob);
    let (mut bob, is_recovered) = back(&server, &token, &known).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await, ["three"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_client_continues_after_the_journal_was_made_short_on_sqlite() {
    quiet(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_client_continues_after_the_journal_was_made_short_on_postgres() {
    quiet(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_database_has_lost_its_unlogged_tables_clients_get_new_sessions_and_those_continue_later() {
    let server = TestServer::start(Kind::Postgres).await;
    let token = server.token("bob").await;
    let (mut alice, mut bob) =
        (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    let channel = first_channel(&bob);
    say(&mut alice, &channel, "before").await;
    bob.expect("message:new").await;
    // Its session is stored.
    let (bob, is_recovered) = back(&server, &token, &Known::of(&bob)).await;
    assert!(is_recovered);
    let mut database = PgConnection::connect(server.database().url.as_ref().unwrap().expose()).await.unwrap();
    sqlx::raw_sql("TRUNCATE resume_node, resume_part, resume_last, resume_session")
        .execute(&mut database)
        .await
        .unwrap();
    let mut known = Known::of(&bob);
    say(&mut alice, &channel, "after").await;
    drop(bob);
    let (mut new, is_recovered) = back(&server, &token, &known).await;
    assert!(!is_recovered);
    say(&mut alice, &channel, "to the new one").await;
    assert_eq!(new.expect("message:new").await["body"], "to the new one");
    known = Known::of(&new);
    drop(new);
    eventually("nobody continues any more", async || {
        let (client, is_recovered) = back(&server, &token, &known).await;
        known = Known::of(&client);
        is_recovered
    })
    .await;
    say(&mut alice, &channel, "later").await;
    let (mut bob, is_recovered) = back(&server, &token, &known).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await, ["later"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_added_to_a_channel_gets_what_was_missed_there_too() {
    let server = TestServer::start(Kind::Sqlite).await;
    let club = server.channel("club", &["alice"]).await;
    let token = server.token("bob").await;
    let (mut alice, mut bob) =
        (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    say(&mut alice, &club, "before").await;
    server.directory().add_member("club", "bob", RoleName::Member).await.unwrap();
    bob.expect("channel:joined").await;
    say(&mut alice, &club, "there").await;
    assert_eq!(bob.expect("message:new").await["body"], "there");
    let known = Known::of(&bob);
    drop(bob);
    say(&mut alice, &club, "meanwhile").await;
    let (mut bob, is_recovered) = back(&server, &token, &known).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await, ["meanwhile"]);
    server.stop().await;
}

/// A client of a server in a process of its own that comes back, and continues its session.
async fn continued(machine: &Machine, token: &str, known: &Known) -> TestClient {
    let mut client = TestClient::open(machine.address).await;
    client.join(known.auth(token)).await.unwrap();
    client.ready = client.expect("session:ready").await;
    assert_eq!(client.ready["resumed"], true);
    client
}

/// Somebody gets messages of so many channels, one after the other, until the server is killed, again and again.
async fn killed_while_it_talks(channels: usize) {
    let world = World::new();
    let [alice, bob] = ["alice", "bob"].map(|name| world.token(name, "1h"));
    for n in 1..channels {
        world.channel(&format!("channel-{n}"), &["alice", "bob"]);
    }
    let mut machine = world.serve_by(&["sh"], "");
    let first = TestClient::connect(machine.address, &bob).await;
    let followed = first.ready["channels"].as_array().unwrap().iter().map(|it| text(&it["channel_id"]));
    let followed: Vec<String> = followed.collect();
    assert_eq!(followed.len(), channels);
    // Whoever has come back is stored.
    let mut listener = continued(&machine, &bob, &Known::of(&first)).await;
    for round in 0..5 {
        let mut alice = TestClient::connect(machine.address, &alice).await;
        for n in 0..30 {
            let body = format!("{round}.{n}");
            say(&mut alice, &followed[n % channels], &body).await;
            assert_eq!(listener.expect("message:new").await["body"], body);
        }
        for n in 30..33 {
            say(&mut alice, &followed[n % channels], &format!("{round}.{n}")).await;
        }
        machine.kill();
        machine = world.serve_by(&["sh"], "");
        listener = continued(&machine, &bob, &Known::of(&listener)).await;
        let mut missed = bodies(&mut listener).await;
        // Channel by channel.
        missed.sort();
        assert_eq!(missed, [30, 31, 32].map(|n| format!("{round}.{n}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_got_messages_until_the_server_was_killed_continues_each_time() {
    Box::pin(killed_while_it_talks(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_got_messages_of_several_channels_until_the_server_was_killed_continues_each_time() {
    Box::pin(killed_while_it_talks(5)).await;
}
