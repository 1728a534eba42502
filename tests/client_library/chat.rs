//! The messaging API of the Rust client against the real server, which is killed, cut off and far ahead.

use std::sync::Arc;
use std::time::Duration;

use imks::client::chat::{At, ChannelEvent, Chat, Draft, Message, Messages};
use imks::client::{Client, ClientError, ClientEvent, Retry};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::database::{Database, Kind};
use crate::relay::Relay;
use crate::server::{self, Server};
use crate::{Via, builder, chat_client, hears, until, within};

/// A server, and tokens of two people who talk in one channel.
struct World {
    database: Database,
    server: Server,
    alice: String,
    bob: String,
}

impl World {
    fn start() -> Self {
        Self::start_with(Database::create(Kind::Sqlite))
    }

    fn start_with(database: Database) -> Self {
        let database = database.without_rate_limits();
        let server = Server::start(&database);
        let [alice, bob] = ["alice", "bob"].map(|name| server::token(&database, name, &[]));
        Self { database, server, alice, bob }
    }

    async fn relay(&self) -> Relay {
        Relay::start(self.server.url().trim_start_matches("http://").parse().unwrap()).await
    }
}

async fn enter(url: &str, token: &str) -> (Client, Chat, Uuid) {
    let retry = Retry::forever(Duration::from_millis(20)).answer_timeout(Duration::from_secs(2));
    let client = builder(url, Via::WebSocket).auth_token(token).message_retry(retry).build().unwrap();
    let chat = within(Chat::open(&client)).await.unwrap();
    let channel = chat.channels()[0].channel_id;
    (client, chat, channel)
}

async fn say(chat: &Chat, channel: Uuid, text: &str) -> Message {
    within(async { chat.send(channel, text).await.unwrap().acknowledged().await.unwrap() }).await
}

async fn next(messages: &mut Messages) -> ChannelEvent {
    within(messages.next()).await.expect("the stream goes on").unwrap()
}

/// Reads as many messages, which follow each other without a hole.
async fn read(messages: &mut Messages, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let before = messages.cursor().unwrap_or_default().seq;
        if let ChannelEvent::Message(message) = next(messages).await {
            assert_eq!((message.seq, messages.cursor().unwrap().seq), (before + 1, before + 1));
            bodies.push(message.body);
        }
    }
    bodies
}

#[tokio::test]
async fn people_talk_and_see_each_message_and_its_changes_in_order() {
    let world = World::start();
    let (_client, alice, channel) = enter(&world.server.url(), &world.alice).await;
    let (_other, bob, _) = enter(&world.server.url(), &world.bob).await;
    assert_eq!(alice.user().unwrap().username, "alice");
    let mut messages = bob.messages(channel).open();
    let begin = within(messages.ready()).await.unwrap();

    let sent = within(alice.send(channel, Draft::new("hello").with("priority", "urgent"))).await.unwrap();
    let nonce = sent.nonce().to_owned();
    let hello = within(sent.acknowledged()).await.unwrap();
    assert_eq!((hello.seq, hello.nonce.as_deref()), (begin.seq + 1, Some(&*nonce)));
    say(&bob, channel, "hi").await;
    let edit = json!({ "channel_id": channel, "message_id": hello.id, "body": "hello, bob" });
    let edited: Value = within(alice.request("message:edit", &edit)).await.unwrap();
    assert_eq!(edited["message"]["body"], "hello, bob");
    let like = json!({ "channel_id": channel, "message_id": hello.id, "emoji": "👍" });
    within(bob.request::<Value>("reaction:add", &like)).await.unwrap();
    let delete = json!({ "channel_id": channel, "message_id": hello.id });
    let mut list = Vec::new();
    for _ in 0..4 {
        next(&mut messages).await.apply(&mut list);
    }
    assert_eq!((&*list[0].body, &*list[1].body), ("hello, bob", "hi"));
    assert_eq!(
        (&list[0].more["priority"], &list[0].more["reactions"]["👍"]["me"]),
        (&json!("urgent"), &json!(true))
    );
    within(alice.request::<Value>("message:delete", &delete)).await.unwrap();
    next(&mut messages).await.apply(&mut list);
    assert!(list[0].body.is_empty() && list[0].deleted_at.is_some());

    let page = within(bob.history(channel, At::After(hello.id), 10)).await.unwrap();
    assert_eq!(page.messages.iter().map(|it| &*it.body).collect::<Vec<_>>(), ["hi"]);
    let refused = within(alice.request::<Value>("message:edit", &edit)).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(refusal) if refusal.code() == Some("message_deleted")));
}

#[tokio::test]
async fn nothing_is_missing_or_doubled_when_the_server_is_killed_and_the_network_is_cut() {
    const ROUNDS: usize = 3;
    const EACH: usize = 20;
    let mut world = World::start();
    let relay = world.relay().await;
    let (_client, alice, channel) = enter(&world.server.url(), &world.alice).await;
    let (_other, bob, _) = enter(&relay.url(), &world.bob).await;
    let mut messages = bob.messages(channel).open();
    within(messages.ready()).await.unwrap();
    let all = ROUNDS * EACH * 3;
    let reading = TaskTracker::new().spawn(async move { read(&mut messages, all).await });
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let mut sent = Vec::new();
        for number in 0..EACH * 3 {
            let body = format!("{round}/{number}");
            sent.push(alice.send(channel, &*body).await.unwrap());
            written.push(body);
            match number {
                EACH => relay.cut(),
                it if it == 2 * EACH => world.server.kill_and_restart(&world.database),
                _ => {}
            }
        }
        for sent in sent {
            within(sent.acknowledged()).await.unwrap();
        }
    }
    assert_eq!(within(reading).await.unwrap(), written);
}

#[tokio::test]
async fn a_long_absence_is_fetched_whole_or_told_as_a_gap() {
    const MISSED: usize = 450;
    let world = World::start();
    let relay = world.relay().await;
    let (_client, alice, channel) = enter(&world.server.url(), &world.alice).await;
    let (_other, bob, _) = enter(&relay.url(), &world.bob).await;
    say(&alice, channel, "before").await;
    let mut whole = bob.messages(channel).last(10).open();
    let mut newest = bob.messages(channel).last(10).skip_gaps().open();
    assert_eq!(
        (read(&mut whole, 1).await, read(&mut newest, 1).await),
        (vec!["before".into()], vec!["before".into()])
    );

    relay.close();
    let mut sent = Vec::new();
    for number in 0..MISSED {
        sent.push(alice.send(channel, number.to_string()).await.unwrap());
    }
    for sent in sent {
        within(sent.acknowledged()).await.unwrap();
    }
    relay.open();
    let bodies: Vec<String> = (0..MISSED).map(|number| number.to_string()).collect();
    assert_eq!(read(&mut whole, MISSED).await, bodies);
    let gap = next(&mut newest).await;
    assert!(matches!(gap, ChannelEvent::Gap { after: 1, before } if before > 200), "{gap:?}");
    let rest = MISSED - (newest.cursor().unwrap().seq as usize - 1);
    assert_eq!(read(&mut newest, rest).await, bodies[MISSED - rest..]);

    // From the beginning, as a program that has never been here.
    let mut all = bob.messages(channel).from_start().open();
    assert_eq!(read(&mut all, MISSED + 1).await[1..], bodies);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up_and_gets_all_of_it_later() {
    const SAID: usize = 100;
    let world = World::start();
    let (_client, alice, channel) = enter(&world.server.url(), &world.alice).await;
    let mut slow = alice.messages(channel).buffer(4).open();
    let mut quick = alice.messages(channel).open();
    within(slow.ready()).await.unwrap();
    within(quick.ready()).await.unwrap();
    for number in 0..SAID {
        say(&alice, channel, &number.to_string()).await;
    }
    let bodies: Vec<String> = (0..SAID).map(|number| number.to_string()).collect();
    assert_eq!(read(&mut quick, SAID).await, bodies);
    assert!(slow.waiting() <= 4, "{}", slow.waiting());
    assert_eq!(read(&mut slow, SAID).await, bodies);
}

#[tokio::test]
async fn a_program_goes_on_after_its_restart_where_it_ended() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let url = world.server.url();
    let (_client, alice, channel) = enter(&url, &world.alice).await;
    say(&alice, channel, "one").await;
    say(&alice, channel, "two").await;
    let line = async |messages: &mut Messages| {
        within(chat_client::next_line(messages, folder.path())).await.unwrap().unwrap()
    };
    let (bob, mut messages) = within(chat_client::enter(&url, &world.bob, folder.path())).await.unwrap();
    assert_eq!(line(&mut messages).await, "#1 alice: one");
    bob.send(channel, "three").await.unwrap().acknowledged().await.unwrap();
    drop((bob, messages));
    // The file of the outbox belongs to one client at a time, whose task ends on its own.
    let reopened =
        || std::fs::File::open(folder.path().join("chat_client.outbox.lock")).unwrap().try_lock().is_ok();
    until(reopened).await;
    let (_bob, mut messages) = within(chat_client::enter(&url, &world.bob, folder.path())).await.unwrap();
    assert_eq!(line(&mut messages).await, "#2 alice: two");
    assert_eq!(line(&mut messages).await, "#3 bob: three");
}

#[tokio::test]
async fn a_stream_says_why_it_ends() {
    let world = World::start();
    let (client, alice, channel) = enter(&world.server.url(), &world.alice).await;
    let mut nowhere = alice.messages(Uuid::from_u128(7)).open();
    let mut here = alice.messages(channel).open();
    within(here.ready()).await.unwrap();
    let refused = within(nowhere.next()).await.unwrap().unwrap_err();
    assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
    assert!(within(nowhere.next()).await.is_none());
    within(client.close()).await;
    assert!(within(here.next()).await.is_none(), "closing is no error");
    let mut late = alice.messages(channel).open();
    assert!(matches!(within(late.ready()).await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_stream_goes_on_when_the_token_ends_and_there_is_a_new_one() {
    let world = World::start_with(Database::create(Kind::Sqlite).with("IMKS_TOKEN_LEEWAY", "0s"));
    let short = server::token(&world.database, "bob", &["--ttl", "6s"]);
    let (first, next) = (Arc::new(Mutex::new(Some(short))), world.bob.clone());
    let client = builder(&world.server.url(), Via::WebSocket).auth_token_provider(move || {
        let token = first.lock().take().unwrap_or_else(|| next.clone());
        async move { Ok(token) }
    });
    let client = client.build().unwrap();
    let mut events = client.events();
    let bob = within(Chat::open(&client)).await.unwrap();
    let (_client, alice, channel) = enter(&world.server.url(), &world.alice).await;
    let mut messages = bob.messages(channel).open();
    within(messages.ready()).await.unwrap();
    hears(&mut events, |event| matches!(event, ClientEvent::Left { .. })).await;
    say(&alice, channel, "still there?").await;
    assert_eq!(read(&mut messages, 1).await, ["still there?"]);
}

#[tokio::test]
async fn who_is_kept_out_after_a_loss_of_the_connection_learns_it() {
    let world = World::start_with(Database::create(Kind::Sqlite).with("IMKS_TOKEN_LEEWAY", "0s"));
    let token = server::token(&world.database, "alice", &["--ttl", "6s"]);
    let (_client, alice, channel) = enter(&world.server.url(), &token).await;
    let mut messages = alice.messages(channel).open();
    within(messages.ready()).await.unwrap();
    // Its token ends, the server ends the connection, and does not take the token again.
    let error = within(messages.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(refusal) if refusal.code() == Some("token_expired")),
        "{error}"
    );
}
