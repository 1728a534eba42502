//! The end of a conversation: the model, the server and every device agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::TestClient;
use crate::model::{Channel, Message};
use crate::operation::Mention;
use crate::people::Person;
use crate::play::{EMOJI, Play};
use crate::replica::{Copied, Replica};

/// How long events may be on their way between nodes.
const PATIENCE: Duration = Duration::from_secs(10);

impl Play<'_> {
    /// Compares all that there is.
    pub async fn end(mut self) {
        for user in 0..self.people.len() {
            let token = self.people[user].token.clone();
            let node = &self.nodes[user % self.nodes.len()];
            let mut fresh = TestClient::connect(node.addr(), &token).await;
            self.check_positions(user, &fresh.ready);
            let mut histories = BTreeMap::new();
            for index in 0..self.channels.len() {
                if self.is_member(user, index).is_ok() {
                    let history = self.check_history(user, index, &mut fresh).await;
                    histories.insert(self.channels[index].id.clone(), history);
                }
            }
            self.check_own(user, &mut fresh).await;
            let mut new = Replica::default();
            new.catch_up(&mut fresh).await;
            self.check_replica(user, &mut new, &histories);
            self.check_devices(user, &histories).await;
        }
    }

    fn check_positions(&self, user: usize, ready: &Value) {
        let shown = ready["channels"].as_array().unwrap();
        let mine: BTreeSet<&String> =
            self.channels.iter().filter(|it| it.members.contains(&user)).map(|it| &it.id).collect();
        let ids: BTreeSet<&str> = shown.iter().map(|it| it["channel_id"].as_str().unwrap()).collect();
        assert_eq!(ids, mine.into_iter().map(String::as_str).collect());
        for channel in self.channels.iter().filter(|channel| channel.members.contains(&user)) {
            let state = shown.iter().find(|state| state["channel_id"] == json!(channel.id)).unwrap();
            let counts = channel.counts(user);
            let number = |name: &str| state[name].as_i64().unwrap();
            let numbers = [
                number("last_seq"),
                number("rev"),
                number("read_seq"),
                number("unread_count"),
                number("mention_count"),
            ];
            let expected = [channel.last_seq(), channel.rev, counts.read_seq, counts.unread, counts.mentions];
            assert_eq!(
                numbers, expected,
                "seq, rev, read, unread, mentions of user {user} in {}",
                channel.name
            );
        }
    }

    /// All messages of a channel, compared with the model.
    async fn check_history(&self, user: usize, channel: usize, client: &mut TestClient) -> Vec<Value> {
        let (mut all, mut before) = (Vec::new(), Value::Null);
        let here = &self.channels[channel];
        loop {
            let request = json!({ "channel_id": here.id, "before": before, "limit": 20 });
            let mut page = client.ok("history", request).await;
            let messages = std::mem::take(page["messages"].as_array_mut().unwrap());
            before = messages.first().map(|first| first["id"].clone()).unwrap_or_default();
            all.splice(0..0, messages);
            if page["has_more_before"] == false {
                break;
            }
        }
        assert_eq!(all.len(), here.messages.len());
        for ((seq, message), shown) in here.numbered().zip(&all) {
            assert_eq!(summary(shown), self.expected(user, here, seq, message), "{shown}");
        }
        let pins = client.ok("pin:list", json!({ "channel_id": here.id })).await;
        let pinned = |it: &&Message| it.pinned && !it.deleted;
        let expected: BTreeSet<&str> = here.messages.iter().filter(pinned).map(|it| it.id.as_str()).collect();
        let shown = pins["pins"].as_array().unwrap().iter().map(|pin| pin["message_id"].as_str().unwrap());
        assert_eq!(shown.collect::<BTreeSet<_>>(), expected);
        all
    }

    /// What a message must say to a reader.
    fn expected(&self, user: usize, channel: &Channel, seq: i64, message: &Message) -> Value {
        let id = |user: usize| &self.people[user].id;
        let of = |index: usize| &channel.messages[index].id;
        let mut reactions = BTreeMap::<&str, (Vec<&String>, bool)>::new();
        for (emoji, who) in message.reactions.iter().filter(|_| !message.deleted) {
            let (users, me) = reactions.entry(EMOJI[*emoji]).or_default();
            users.push(id(*who));
            *me |= *who == user;
        }
        reactions.values_mut().for_each(|(users, _)| users.sort());
        let poll = message.poll.as_ref().filter(|_| !message.deleted).map(|poll| {
            let votes = |option: usize| poll.votes.values().filter(|it| **it >> option & 1 == 1).count();
            let mine = poll.votes.get(&user).copied().unwrap_or(0);
            let mine: Vec<usize> = (0..3).filter(|option| mine >> option & 1 == 1).collect();
            let voters = poll.votes.values().filter(|it| **it != 0).count();
            json!([votes(0), votes(1), votes(2), voters, poll.closed, mine])
        });
        let root = seq as usize - 1;
        let thread = channel.replies(root).next_back().map(|(last, _)| {
            let mut people: Vec<&String> = Vec::new();
            for (_, reply) in channel.replies(root).rev() {
                if !people.contains(&id(reply.author)) {
                    people.push(id(reply.author));
                }
            }
            json!([channel.replies(root).filter(|(_, reply)| !reply.deleted).count(), last, people])
        });
        let reply_to = message.content.reply_to.map(|index| {
            let quoted = &channel.messages[index];
            json!([quoted.id, if quoted.deleted { "" } else { &quoted.body }, quoted.deleted])
        });
        let mention = if message.deleted { Mention::Nobody } else { message.mention };
        let users: Vec<&String> = match mention {
            Mention::User(user) => vec![id(user)],
            _ => Vec::new(),
        };
        json!({
            "seq": seq, "id": message.id, "author": id(message.author), "version": message.version,
            "body": if message.deleted { "" } else { &message.body }, "deleted": message.deleted,
            "pinned": message.pinned && !message.deleted, "thread_id": message.content.thread.map(of),
            "reactions": reactions, "poll": poll, "thread": thread, "reply_to": reply_to,
            "mentions": [users, mention == Mention::Moderators, mention == Mention::Channel, mention == Mention::Here],
        })
    }

    async fn check_own(&self, user: usize, client: &mut TestClient) {
        let mut inbox = BTreeSet::new();
        for channel in self.channels.iter().filter(|channel| channel.members.contains(&user)) {
            let joined = channel.positions[&user].joined;
            let named = |seq: i64, it: &Message| it.people.contains(&user) || it.wide && seq > joined;
            let live =
                channel.numbered().filter(|(seq, it)| !it.deleted && it.author != user && named(*seq, it));
            inbox.extend(live.map(|(_, message)| message.id.clone()));
        }
        let shown = client.ok("mentions:list", json!({ "limit": 100 })).await;
        let shown = shown["mentions"].as_array().unwrap().iter();
        let shown: Vec<String> = shown.map(|it| it["message"]["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(shown, inbox.into_iter().rev().collect::<Vec<_>>(), "the inbox of user {user}");
        self.check_threads(user, client).await;
        let synced = client.ok("sync", json!({ "channels": [] })).await;
        assert_eq!(synced["user"]["rev"], self.people[user].rev, "the number of user {user}'s changes");
    }

    /// The threads that a user follows, and those of them with unread replies.
    async fn check_threads(&self, user: usize, client: &mut TestClient) {
        for unread in [false, true] {
            let request = json!({ "limit": 100, "unread": unread });
            let followed = client.ok("thread:followed", request).await;
            let shown = followed["threads"].as_array().unwrap().iter().map(|thread| {
                let number = |name: &str| thread[name].as_i64().unwrap();
                let numbers =
                    (number("read_seq"), number("unread_count"), number("mention_count"), number("user_rev"));
                (thread["thread_id"].as_str().unwrap().to_owned(), numbers)
            });
            let mut expected = BTreeMap::new();
            for channel in &self.channels {
                for ((root, _), follower) in
                    channel.followers.iter().filter(|((_, who), it)| *who == user && it.following)
                {
                    let counts = channel.thread_counts(*root, user);
                    let numbers = (counts.read_seq, counts.unread, counts.mentions, follower.user_rev);
                    let is_shown = !unread || counts.unread > 0;
                    expected.extend(is_shown.then(|| (channel.messages[*root].id.clone(), numbers)));
                }
            }
            assert_eq!(shown.collect::<BTreeMap<_, _>>(), expected, "the threads of user {user}");
        }
    }

    fn check_replica(&self, user: usize, replica: &mut Replica, histories: &BTreeMap<String, Vec<Value>>) {
        assert_eq!(replica.channels.keys().collect::<Vec<_>>(), histories.keys().collect::<Vec<_>>());
        for channel in self.channels.iter().filter(|channel| channel.members.contains(&user)) {
            let copied = &replica.channels[&channel.id];
            assert_eq!((copied.seq, copied.rev), (channel.last_seq(), channel.rev));
            assert_eq!(copied.read_seq, channel.counts(user).read_seq, "user {user} in {}", channel.name);
            for (copy, stored) in copied.messages.values().zip(&histories[&channel.id]) {
                assert_eq!(for_everybody(&quoting(copied, copy)), for_everybody(stored));
            }
            assert_eq!(copied.messages.len(), channel.messages.len());
        }
        assert_eq!(own_of(replica), self.own(user));
    }

    /// Every device has heard of everything, at the latest when it asks.
    async fn check_devices(&mut self, user: usize, histories: &BTreeMap<String, Vec<Value>>) {
        for device in 0..self.people[user].devices.len() {
            let Some(mut client) = self.people[user].devices[device].client.take() else { continue };
            let mut replica = std::mem::take(&mut self.people[user].devices[device].replica);
            let until = Instant::now() + PATIENCE;
            while !self.is_told(user, &replica) && Instant::now() < until {
                replica.pump(&mut client).await;
            }
            self.check_replica(user, &mut replica, histories);
            replica.sync(&mut client).await;
            self.check_replica(user, &mut replica, histories);
            assert_eq!(replica.user_rev, self.people[user].rev);
        }
    }

    fn is_told(&self, user: usize, replica: &Replica) -> bool {
        let mine = || self.channels.iter().filter(|channel| channel.members.contains(&user));
        let is_whole = |channel: &Channel| {
            let copied = replica.channels.get(&channel.id);
            copied.is_some_and(|it| {
                (it.seq, it.rev, it.read_seq)
                    == (channel.last_seq(), channel.rev, channel.counts(user).read_seq)
            })
        };
        mine().all(is_whole) && mine().count() == replica.channels.len() && own_of(replica) == self.own(user)
    }

    /// The drafts, bookmarks and scheduled messages of a user, each with its last change.
    fn own(&self, user: usize) -> BTreeSet<String> {
        let Person { drafts, bookmarks, scheduled, .. } = &self.people[user];
        let mut own = BTreeSet::new();
        for ((channel, thread), it) in drafts {
            let channel = &self.channels[*channel];
            let thread = thread.map(|thread| &channel.messages[thread].id);
            own.insert(
                json!([channel.id, thread, it.body.as_deref().unwrap_or(""), it.version, it.user_rev])
                    .to_string(),
            );
        }
        for ((channel, message), it) in bookmarks {
            let id = &self.channels[*channel].messages[*message].id;
            own.insert(json!([id, it.note, it.removed, it.user_rev]).to_string());
        }
        for it in scheduled {
            let state = if it.cancelled { "cancelled" } else { "pending" };
            own.insert(json!([it.id, it.body, state, it.version, it.user_rev]).to_string());
        }
        own
    }
}

fn own_of(replica: &Replica) -> BTreeSet<String> {
    let drafts = replica
        .drafts
        .values()
        .map(|it| json!([it["channel_id"], it["thread_id"], it["body"], it["version"], it["user_rev"]]));
    let bookmarks = replica
        .bookmarks
        .values()
        .map(|it| json!([it["message_id"], it["note"], it["removed"], it["user_rev"]]));
    let scheduled = replica
        .scheduled
        .values()
        .map(|it| json!([it["id"], it["message"]["body"], it["state"], it["version"], it["user_rev"]]));
    drafts.chain(bookmarks).chain(scheduled).map(|it| it.to_string()).collect()
}

/// A message with what it answers as the device knows it now.
fn quoting(copied: &Copied, message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(quoted) = copied.messages.values().find(|it| it["id"] == message["reply_to_message_id"]) {
        let shown = ["id", "seq", "author", "body", "created_at", "deleted_at"];
        message["reply_to"] = shown.map(|name| (name.to_owned(), quoted[name].clone())).into_iter().collect();
    }
    message
}

/// Without what depends on the reader, and what has no order.
fn for_everybody(message: &Value) -> Value {
    let mut message = message.clone();
    for total in message["reactions"].as_object_mut().unwrap().values_mut() {
        total.as_object_mut().unwrap().remove("me");
        sort(&mut total["user_ids"]);
    }
    if let Some(poll) = message["poll"].as_object_mut() {
        poll.remove("my_votes");
    }
    message
}

fn sort(ids: &mut Value) {
    ids.as_array_mut().unwrap().sort_by(|a, b| a.as_str().cmp(&b.as_str()));
}

/// What the model knows of a message that the server shows.
fn summary(shown: &Value) -> Value {
    let reactions: BTreeMap<&String, Value> = shown["reactions"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(emoji, total)| {
            let mut users = total["user_ids"].clone();
            sort(&mut users);
            assert_eq!(total["count"], users.as_array().unwrap().len());
            (emoji, json!([users, total["me"] == true]))
        })
        .collect();
    let some = |value: &Value, parts: Vec<Value>| if value.is_null() { Value::Null } else { json!(parts) };
    let (poll, thread, quoted) = (&shown["poll"], &shown["thread"], &shown["reply_to"]);
    let votes = |option: usize| poll["options"][option]["votes"].clone();
    let poll = some(
        poll,
        vec![
            votes(0),
            votes(1),
            votes(2),
            poll["total_voters"].clone(),
            poll["is_final"].clone(),
            poll["my_votes"].clone(),
        ],
    );
    let thread = some(
        thread,
        ["reply_count", "last_reply_seq", "participant_ids"].map(|name| thread[name].clone()).into(),
    );
    let reply_to = some(
        quoted,
        vec![quoted["id"].clone(), quoted["body"].clone(), json!(!quoted["deleted_at"].is_null())],
    );
    let mentions = &shown["mentions"];
    json!({
        "seq": shown["seq"], "id": shown["id"], "author": shown["author"]["id"], "version": shown["version"],
        "body": shown["body"], "deleted": !shown["deleted_at"].is_null(), "pinned": shown["pinned"],
        "thread_id": shown["thread_id"], "reactions": reactions, "poll": poll, "thread": thread,
        "reply_to": reply_to,
        "mentions": [mentions["users"], mentions["roles"] != json!([]), mentions["channel"], mentions["here"]],
    })
}
