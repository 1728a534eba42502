//! `imks.publish`: messages that other programs write in their own transactions of PostgreSQL.

use std::time::Duration;

use imks::testing::config::Config;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::client::TestClient;
use crate::server::{Kind, TestServer, first_channel};

struct World {
    server: TestServer,
    url: String,
    database: PgConnection,
    client: TestClient,
    channel: Uuid,
}

async fn world() -> World {
    let url = crate::postgres::create().await;
    let server = server(&url).await;
    let client = server.client("ann").await;
    let channel = first_channel(&client).parse().unwrap();
    let database = PgConnection::connect(&url).await.unwrap();
    World { server, url, database, client, channel }
}

async fn server(url: &str) -> TestServer {
    let url = url.to_owned();
    TestServer::start_with(Kind::Sqlite, move |config: &mut Config| config.database.url = Some(url.into()))
        .await
}

const BOT: Uuid = Uuid::from_u128(0xb07);

async fn publish(
    database: &mut PgConnection,
    channel: Uuid,
    body: &str,
    key: Option<&str>,
) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar("SELECT imks.publish($1, $2, $3, 'Shop', $4)")
        .bind(channel)
        .bind(body)
        .bind(BOT)
        .bind(key)
        .fetch_one(database)
        .await
}

fn refusal(outcome: Result<Uuid, sqlx::Error>) -> String {
    outcome.unwrap_err().as_database_error().unwrap().message().to_owned()
}

async fn count(database: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(database).await.unwrap()
}

async fn until_empty(database: &mut PgConnection) {
    while count(database, "SELECT COUNT(*) FROM outbox_message WHERE failed_at IS NULL").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transaction_publishes_is_sent_when_it_commits_and_not_when_it_rolls_back() {
    let World { server, mut database, mut client, channel, .. } = world().await;
    let mut rolled_back = database.begin().await.unwrap();
    publish(&mut rolled_back, channel, "never", None).await.unwrap();
    rolled_back.rollback().await.unwrap();
    let mut committed = database.begin().await.unwrap();
    for body in ["order 7", "is paid"] {
        publish(&mut committed, channel, body, None).await.unwrap();
    }
    committed.commit().await.unwrap();
    for (seq, body) in [(1, "order 7"), (2, "is paid")] {
        let new = client.expect("message:new").await;
        assert_eq!((&new["body"], &new["seq"], &new["type"]), (&json!(body), &json!(seq), &json!("bot")));
        assert_eq!(new["author"], json!({ "id": BOT, "username": "Shop" }));
    }
    until_empty(&mut database).await;
    assert_eq!(count(&mut database, "SELECT COUNT(*) FROM outbox_message").await, 0);
    let health = crate::http_request::send(server.addr(), "GET /health", &[], "").await.body;
    let outbox = &health["checks"]["outbox"];
    assert_eq!(
        (&outbox["status"], &outbox["waiting"], &outbox["failed"]),
        (&json!("up"), &json!(0), &json!(0))
    );
    assert!(health["checks"]["feed"]["lag_ms"].is_u64(), "{health}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_can_never_be_sent_is_refused_in_the_transaction() {
    let World { server, mut database, channel, .. } = world().await;
    assert!(refusal(publish(&mut database, Uuid::now_v7(), "hi", None).await).contains("no such channel"));
    assert!(refusal(publish(&mut database, channel, &"ä".repeat(8_001), None).await).contains("longer than"));
    assert!(refusal(publish(&mut database, channel, " \n", None).await).contains("empty"));
    assert!(refusal(publish(&mut database, channel, "hi", Some("")).await).contains("idempotency_key"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_says_how_much_its_message_matters_and_asks_readers_to_acknowledge_it() {
    let World { server, mut database, mut client, channel, .. } = world().await;
    let mut publish = async |priority: &str, ack: Option<bool>| {
        let call = "SELECT imks.publish($1, 'disk is full', $2, 'Shop', idempotency_key => 'disk', \
                    priority => $3, ack_requested => $4)";
        let published = sqlx::query_scalar::<_, Uuid>(call).bind(channel).bind(BOT).bind(priority).bind(ack);
        published.fetch_one(&mut database).await
    };
    assert!(refusal(publish("high", Some(true)).await).contains("normal, important or urgent"));
    assert!(refusal(publish("urgent", None).await).contains("null"));
    publish("urgent", Some(true)).await.unwrap();
    let message = client.expect("message:new").await;
    assert_eq!((&message["priority"], &message["ack_requested"]), (&json!("urgent"), &json!(true)));
    let ack = json!({ "channel_id": channel, "message_id": message["id"] });
    assert_eq!(client.ok("message:ack", ack).await["ack_count"], 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_one_message_however_often_it_is_published() {
    let World { server, mut database, mut client, channel, .. } = world().await;
    let mut transaction = database.begin().await.unwrap();
    let first = publish(&mut transaction, channel, "paid", Some("order-7")).await.unwrap();
    assert_eq!(publish(&mut transaction, channel, "paid", Some("order-7")).await.unwrap(), first);
    transaction.commit().await.unwrap();
    assert_eq!(client.expect("message:new").await["nonce"], "order-7");
    until_empty(&mut database).await;
    // After it was sent, the key still names the same message.
    publish(&mut database, channel, "paid", Some("order-7")).await.unwrap();
    until_empty(&mut database).await;
    assert_eq!(count(&mut database, "SELECT COUNT(*) FROM message").await, 1);
    // With another text it cannot be sent, and says why.
    publish(&mut database, channel, "other", Some("order-7")).await.unwrap();
    until_empty(&mut database).await;
    let reason: String =
        sqlx::query_scalar("SELECT reason FROM outbox_message").fetch_one(&mut database).await.unwrap();
    assert!(reason.starts_with("nonce_conflict: "), "{reason}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ended_between_commit_and_removal_sends_nothing_twice() {
    let World { server, url, mut database, mut client, channel } = world().await;
    // What the ended node leaves behind: its message is stored, and its row is still there.
    sqlx::raw_sql(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER keep BEFORE DELETE ON outbox_message FOR EACH ROW EXECUTE FUNCTION keep()",
    )
    .execute(&mut database)
    .await
    .unwrap();
    for number in 0..20 {
        publish(&mut database, channel, &format!("{number}"), None).await.unwrap();
    }
    for number in 0..20 {
        assert_eq!(client.expect("message:new").await["body"], format!("{number}"));
    }
    drop(client);
    server.stop().await;
    sqlx::raw_sql("DROP TRIGGER keep ON outbox_message").execute(&mut database).await.unwrap();
    assert_eq!(count(&mut database, "SELECT COUNT(*) FROM outbox_message").await, 20);
    let nodes = [self::server(&url).await, self::server(&url).await];
    until_empty(&mut database).await;
    assert_eq!(count(&mut database, "SELECT COUNT(*) FROM message").await, 20);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_publish_can_do_nothing_else() {
    let World { server, url, mut database, mut client, channel } = world().await;
    let role = format!("shop_{}", Uuid::now_v7().simple());
    sqlx::raw_sql(AssertSqlSafe(format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA imks TO {role}; \
         GRANT EXECUTE ON FUNCTION imks.publish TO {role}"
    )))
    .execute(&mut database)
    .await
    .unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    let mut shop = PgConnection::connect(&format!("{scheme}://{role}@{rest}")).await.unwrap();
    publish(&mut shop, channel, "from the shop", None).await.unwrap();
    assert_eq!(client.expect("message:new").await["body"], "from the shop");
    for sql in
        ["SELECT body FROM message", "SELECT id::text FROM outbox_message", "DELETE FROM outbox_message"]
    {
        let refused = sqlx::query(sql).execute(&mut shop).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{refused}");
    }
    shop.close().await.unwrap();
    server.stop().await;
    sqlx::raw_sql(AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}")))
        .execute(&mut database)
        .await
        .unwrap();
}

/// A pooler in front of PostgreSQL that allows no LISTEN; its address.
async fn without_listen(server: String) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(pass_on(client, server));
        }
    });
    addr
}

/// Passes on what both sides say, until the client wants to LISTEN.
async fn pass_on(client: TcpStream, server: TcpStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
        let said = &buffer[..count];
        let listens = said.windows(6).any(|word| word == b"LISTEN");
        if listens || to_server.write_all(said).await.is_err() {
            break;
        }
    }
    back.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_also_where_nobody_can_listen() {
    let url = crate::postgres::create().await;
    let (before, rest) = url.rsplit_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let pooler = without_listen(server.to_owned()).await;
    let server = self::server(&format!("{before}@{pooler}/{database}")).await;
    let mut client = server.client("ann").await;
    let channel = first_channel(&client).parse().unwrap();
    let mut database = PgConnection::connect(&url).await.unwrap();
    publish(&mut database, channel, "by a poll", None).await.unwrap();
    assert_eq!(client.expect("message:new").await["body"], "by a poll");
    server.stop().await;
}
