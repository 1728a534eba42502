//! Many connections on two nodes want the same at the same time.
//!
//! `IMKS_MIXED_SECONDS` is how long the mixed load runs; more than two minutes need `cargo test` in place of nextest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use imks::testing::clock;
use imks::testing::directory::RoleName;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::client::TestClient;
use crate::conversation::{number, two_nodes};
use crate::play::{EMOJI, answer_of};
use crate::server::TestServer;

/// The connections of a test, on both nodes in turn.
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 20;

/// Two nodes with one channel, and so many clients in it: all of one user, or each of another.
struct Contest {
    nodes: [TestServer; 2],
    channel: String,
    clients: Vec<TestClient>,
    tokens: Vec<String>,
}

impl Contest {
    async fn begin(name: impl Fn(usize) -> String) -> Self {
        let nodes = two_nodes().await;
        let channel = nodes[0].channel("arena", &[]).await;
        let (directory, mut clients, mut tokens) = (nodes[0].directory(), Vec::new(), Vec::new());
        for index in 0..CONNECTIONS {
            let user = directory.ensure_user(&name(index)).await.unwrap();
            let role = if index == 0 { RoleName::Owner } else { RoleName::Member };
            if index == 0 || name(index) != name(0) {
                directory.add_member("arena", &name(index), role).await.unwrap();
            }
            let token = directory.issue_token(&user, Duration::from_secs(3_600)).await.unwrap();
            clients.push(TestClient::connect(nodes[index % 2].addr(), &token).await);
            tokens.push(token);
        }
        Self { nodes, channel, clients, tokens }
    }

    /// A further connection of the user who has this one.
    async fn again(&self, index: usize) -> TestClient {
        TestClient::connect(self.nodes[0].addr(), &self.tokens[index]).await
    }

    /// Everybody asks at once; the answers.
    async fn all(&mut self, event: &str, request: impl Fn(usize) -> Value) -> Vec<Result<Value, String>> {
        let asked = self.clients.iter_mut().enumerate();
        join_all(asked.map(async |(index, client)| answer_of(client.call(event, request(index)).await))).await
    }

    async fn history(&mut self) -> Vec<Value> {
        let request = json!({ "channel_id": self.channel, "limit": 100 });
        self.clients[0].ok("history", request).await["messages"].as_array().unwrap().clone()
    }

    async fn end(self) {
        drop(self.clients);
        for node in self.nodes {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_nonce_from_many_connections_of_two_nodes_makes_one_message() {
    let mut contest = Contest::begin(|_| "alice".into()).await;
    let channel = contest.channel.clone();
    let mut ids = BTreeSet::new();
    for round in 0..ROUNDS {
        let request = json!({ "channel_id": channel, "body": "once", "nonce": format!("n{round}") });
        let answers = contest.all("message:send", |_| request.clone()).await;
        let answers: Vec<Value> = answers.into_iter().map(Result::unwrap).collect();
        let round: BTreeSet<&str> = answers.iter().map(|it| it["message"]["id"].as_str().unwrap()).collect();
        assert_eq!((round.len(), answers.iter().filter(|it| it["duplicate"] == false).count()), (1, 1));
        ids.extend(round.into_iter().map(str::to_owned));
    }
    let stored = contest.history().await;
    assert_eq!((stored.len(), ids.len()), (ROUNDS, ROUNDS));
    assert!((1..).zip(&stored).all(|(seq, message)| message["seq"] == seq), "no number is lost");
    contest.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_edits_that_expect_the_same_version_one_is_stored() {
    let mut contest = Contest::begin(|_| "alice".into()).await;
    let channel = contest.channel.clone();
    let sent = contest.clients[0].ok("message:send", json!({ "channel_id": channel, "body": "0" })).await;
    let id = &sent["message"]["id"];
    for version in 1..=ROUNDS {
        let edit = |index: usize| {
            let body = format!("{version} by {index}");
            json!({ "channel_id": channel, "message_id": id, "body": body, "expected_version": version })
        };
        let answers = contest.all("message:edit", edit).await;
        let stored: Vec<&Value> = answers.iter().flatten().collect();
        assert_eq!(stored.len(), 1, "{answers:?}");
        assert_eq!(
            (&stored[0]["message"]["version"], &stored[0]["rev"]),
            (&json!(version + 1), &json!(version))
        );
        assert!(answers.iter().filter_map(|it| it.as_ref().err()).all(|code| code == "version_mismatch"));
    }
    let edits =
        contest.clients[1].ok("message:edits", json!({ "channel_id": channel, "message_id": id })).await;
    assert_eq!(edits["edits"].as_array().unwrap().len(), ROUNDS);
    contest.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_votes_and_reactions_of_many_at_once_none_is_lost_and_none_counts_twice() {
    let mut contest = Contest::begin(|index| format!("user{index}")).await;
    let channel = contest.channel.clone();
    let poll = json!({ "question": "?", "options": ["A", "B", "C"] });
    let send = json!({ "channel_id": channel, "body": "vote", "poll": poll });
    let id = contest.clients[0].ok("message:send", send).await["message"]["id"].take();
    let choice = |index: usize, round: usize| (index * 7 + round * 5) % 3;
    let each = contest.clients.iter_mut().enumerate().map(async |(index, client)| {
        for round in 0..ROUNDS {
            let (option, emoji) = (choice(index, round), EMOJI[(index + round) % 2]);
            let vote = json!({ "channel_id": channel, "message_id": id, "option_ids": [option] });
            let react = json!({ "channel_id": channel, "message_id": id, "emoji": emoji });
            let event = if round % 4 < 2 { "reaction:add" } else { "reaction:remove" };
            let asked = [client.ask("poll:vote", vote).await, client.ask(event, react).await];
            for asked in asked {
                let answer = client.answer(asked).await;
                assert!(answer["ok"] == true || answer["error"]["code"] == "rate_limited", "{answer}");
            }
        }
        last_word(client, &channel, &id, index).await;
    });
    join_all(each).await;
    let message = contest.history().await.remove(0);
    let votes = |option: usize| (0..CONNECTIONS).filter(|index| index % 3 == option).count();
    for option in 0..3 {
        assert_eq!(message["poll"]["options"][option]["votes"], votes(option), "{}", message["poll"]);
        let request = json!({ "channel_id": channel, "message_id": id, "option_id": option });
        let voters = contest.clients[0].ok("poll:voters", request).await;
        assert_eq!(voters["user_ids"].as_array().unwrap().len(), votes(option));
    }
    assert_eq!(message["poll"]["total_voters"], CONNECTIONS);
    for (emoji, total) in message["reactions"].as_object().unwrap() {
        let users: BTreeSet<&str> =
            total["user_ids"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(total["count"], users.len(), "{emoji}: {total}");
    }
    contest.end().await;
}

/// The vote and the reaction that count: each is repeated until there is room for it.
async fn last_word(client: &mut TestClient, channel: &str, id: &Value, index: usize) {
    let vote = json!({ "channel_id": channel, "message_id": id, "option_ids": [index % 3] });
    let react = json!({ "channel_id": channel, "message_id": id, "emoji": EMOJI[index % 2] });
    for (event, request) in [("poll:vote", vote), ("reaction:add", react)] {
        loop {
            let answer = client.call(event, request.clone()).await;
            let Some(wait) = answer["error"]["retry_after_ms"].as_u64() else {
                assert_eq!(answer["ok"], true, "{answer}");
                break;
            };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// What one client does: its requests, with messages that it has heard of.
struct Busy {
    dice: Dice,
    me: String,
    channels: Vec<String>,
    /// Channel and id of messages.
    known: Vec<(String, String)>,
    people: Vec<String>,
    /// The newest numbers that it has heard.
    seq: i64,
    rev: i64,
}

impl Busy {
    fn next(&mut self) -> (&'static str, Value) {
        let channel = self.channels[self.dice.roll(self.channels.len())].clone();
        let someone = self.people[self.dice.roll(self.people.len())].clone();
        let roll = self.dice.roll(24);
        let Some((there, id)) = self.known.get(self.dice.roll(self.known.len().max(1))).cloned() else {
            return ("message:send", json!({ "channel_id": channel, "body": "first" }));
        };
        let on = json!({ "channel_id": there, "message_id": id });
        let with = |more: Value| {
            let mut request = on.clone();
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            request
        };
        let poll = json!({ "question": "?", "options": ["A", "B"] });
        match roll {
            0..=3 => (
                "message:send",
                json!({ "channel_id": channel, "body": "hello", "mentions": { "users": [someone] }, "clear_draft": roll == 0 }),
            ),
            4..=6 => (
                "message:send",
                json!({ "channel_id": there, "thread_id": id, "body": "re", "mentions": { "users": [someone, self.me] }, "clear_draft": roll == 4 }),
            ),
            7 => ("message:send", json!({ "channel_id": channel, "body": "vote", "poll": poll })),
            8 => (
                "message:edit",
                with(
                    json!({ "body": format!("edited {}", self.dice.roll(9)), "mentions": { "users": [someone] } }),
                ),
            ),
            9 => ("message:delete", on),
            10 => ("reaction:add", with(json!({ "emoji": EMOJI[self.dice.roll(3)] }))),
            11 => ("reaction:remove", with(json!({ "emoji": EMOJI[self.dice.roll(3)] }))),
            12 => ("poll:vote", with(json!({ "option_ids": [self.dice.roll(2)] }))),
            13 => ("pin:add", on),
            _ => self.next_of_own(roll, &channel, &there, &id),
        }
    }

    /// What concerns the user alone, and what only reads.
    fn next_of_own(&mut self, roll: usize, channel: &str, there: &str, id: &str) -> (&'static str, Value) {
        let later = clock::rfc3339(clock::now_micros() + 3_600_000_000);
        match roll {
            23 => ("read:mark", json!({ "channel_id": channel, "seq": self.dice.roll(500) })),
            14 => ("read:mark_unread", json!({ "channel_id": channel, "from_seq": 1 + self.dice.roll(50) })),
            15 => ("read:mark_all", json!({})),
            16 => (
                "draft:set",
                json!({ "channel_id": channel, "body": format!("draft {}", self.dice.roll(9)) }),
            ),
            17 => ("bookmark:add", json!({ "channel_id": there, "message_id": id, "note": "n" })),
            18 => ("bookmark:remove", json!({ "message_id": id })),
            19 => ("thread:follow", json!({ "channel_id": there, "thread_id": id })),
            20 => (
                "schedule:create",
                json!({ "channel_id": channel, "body": "later", "send_at": later, "clear_draft": true }),
            ),
            21 => (
                "sync",
                json!({ "channels": [{ "channel_id": channel, "seq": 0, "rev": 0 }], "user_rev": 0, "limit_per_channel": 20 }),
            ),
            _ => ("history", json!({ "channel_id": channel, "limit": 20 })),
        }
    }

    /// Messages and changes come in the order of their numbers, however much is under way.
    fn hear(&mut self, events: Vec<(String, Value)>) {
        for (event, payload) in events {
            if event == "message:new" {
                let seq = payload["seq"].as_i64().unwrap();
                assert!(seq > self.seq, "message {seq} came after {}", self.seq);
                self.seq = seq;
            } else if let Some(rev) = payload["rev"].as_i64() {
                assert!(rev > self.rev, "{event} {rev} came after {}", self.rev);
                self.rev = rev;
            }
        }
    }

    /// Runs until then; how often each code was answered.
    async fn run(&mut self, client: &mut TestClient, until: Instant) -> BTreeMap<String, usize> {
        let mut codes = BTreeMap::new();
        while Instant::now() < until {
            let asked: Vec<_> = (0..4).map(|_| self.next()).collect();
            let mut ids = Vec::new();
            for (event, request) in asked {
                ids.push((client.ask(event, request.clone()).await, event, request));
            }
            for (id, event, request) in ids {
                let answer = answer_of(client.answer(id).await);
                self.hear(client.kept());
                let code = answer.as_ref().err().cloned().unwrap_or_else(|| "ok".into());
                assert!(EXPECTED.contains(&code.as_str()), "{event} {request}: {answer:?}");
                *codes.entry(code).or_default() += 1;
                if let Ok(message) = answer.as_ref().map(|data| &data["message"])
                    && message["thread_id"].is_null()
                    && let (Some(channel), Some(id)) =
                        (message["channel_id"].as_str(), message["id"].as_str())
                {
                    self.known.push((channel.to_owned(), id.to_owned()));
                    self.known.drain(..self.known.len().saturating_sub(40));
                }
            }
        }
        codes
    }
}

/// What may be answered to requests that do not know what others do, and by a machine that has too much to do.
const EXPECTED: [&str; 11] = [
    "ok",
    "rate_limited",
    "forbidden",
    "not_found",
    "message_deleted",
    "limit_reached",
    "poll_closed",
    "failed_precondition",
    "unavailable",
    "timeout",
    "overloaded",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_do_everything_at_once_on_two_nodes_without_a_deadlock_and_all_counts_are_right_in_the_end() {
    let mut contest = Contest::begin(|index| format!("user{}", index / 2)).await;
    for (index, client) in contest.clients.iter().enumerate().skip(2) {
        assert!(!client.ready["channels"].as_array().unwrap().is_empty(), "client {index} is in the channel");
    }
    let people: Vec<String> =
        contest.clients.iter().map(|it| it.ready["user"]["id"].as_str().unwrap().to_owned()).collect();
    let channels = vec![contest.channel.clone()];
    let until = Instant::now() + Duration::from_secs(number("IMKS_MIXED_SECONDS", 4) as u64);
    let each = contest.clients.iter_mut().enumerate().map(async |(index, client)| {
        let (me, dice) = (people[index].clone(), Dice(0x9e37_79b9 + index as u64));
        let mut busy = Busy {
            dice,
            me,
            channels: channels.clone(),
            known: Vec::new(),
            people: people.clone(),
            seq: 0,
            rev: 0,
        };
        busy.run(client, until).await
    });
    let mut codes = BTreeMap::<String, usize>::new();
    for (code, count) in join_all(each).await.into_iter().flatten() {
        *codes.entry(code).or_default() += count;
    }
    assert!(codes["ok"] > 50, "{codes:?}");
    let late: usize =
        ["unavailable", "timeout", "overloaded"].iter().filter_map(|code| codes.get(*code)).sum();
    assert!(late * 100 <= codes["ok"], "{codes:?}");
    let mut database = connection(&contest.nodes[0]).await;
    for (what, sql) in WRONG {
        let wrong: i64 = sqlx::query_scalar(sql).fetch_one(&mut database).await.unwrap();
        assert_eq!(wrong, 0, "{what}");
    }
    for index in 0..CONNECTIONS {
        let ready = contest.again(index).await.ready;
        let (state, user) = (&ready["channels"][0], ready["user"]["id"].as_str().unwrap());
        let read: i64 = state["read_seq"].as_i64().unwrap();
        let counts: (i64, i64) =
            sqlx::query_as(RECOUNT).bind(read).bind(user).fetch_one(&mut database).await.unwrap();
        let told = (state["unread_count"].as_i64().unwrap(), state["mention_count"].as_i64().unwrap());
        assert_eq!(told, counts, "unread and mentions of {user} after {read}");
    }
    println!("{codes:?}");
    contest.end().await;
}

async fn connection(node: &TestServer) -> PgConnection {
    PgConnection::connect(node.database().url.as_ref().unwrap().expose()).await.unwrap()
}

/// Unread messages after a position ($1) of a user ($2), and those of them and of threads that mention the user.
const RECOUNT: &str = "SELECT COUNT(*) FILTER (WHERE thread_id IS NULL OR flags & 8 <> 0), \
    COUNT(*) FILTER (WHERE mentions LIKE '%' || $2 || '%') FROM message \
    WHERE seq > $1 AND deleted_at IS NULL AND author_id <> $2::uuid";

/// What must not be, each as a number that must be zero.
const WRONG: [(&str, &str); 8] = [
    ("deadlocks", "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"),
    (
        "holes in the numbers",
        "SELECT COUNT(*) FROM channel_state s WHERE last_seq <> (SELECT COUNT(*) FROM message m WHERE m.channel_id = s.channel_id) \
         OR last_seq <> (SELECT MAX(seq) FROM message m WHERE m.channel_id = s.channel_id) \
         OR last_rev <> (SELECT COUNT(*) FROM channel_change c WHERE c.channel_id = s.channel_id)",
    ),
    (
        "numbers of what counts as unread",
        "SELECT COUNT(*) FROM (SELECT cseq, SUM(CASE WHEN thread_id IS NULL OR flags & 8 <> 0 THEN 1 ELSE 0 END) \
         OVER (PARTITION BY channel_id ORDER BY seq) AS expected FROM message) AS it WHERE cseq <> expected",
    ),
    (
        "numbers of the last changes",
        "SELECT COUNT(*) FROM message m LEFT JOIN (SELECT message_id, MAX(rev) AS rev FROM channel_change GROUP BY message_id) AS c \
         ON c.message_id = m.id WHERE m.rev <> COALESCE(c.rev, 0)",
    ),
    (
        "counts of replies",
        "SELECT COUNT(*) FROM message r WHERE r.thread IS NOT NULL AND (r.thread::json->>'reply_count')::bigint <> \
         (SELECT COUNT(*) FROM message m WHERE m.thread_id = r.id AND m.deleted_at IS NULL)",
    ),
    (
        "counts of voters",
        "SELECT COUNT(*) FROM message m WHERE m.poll IS NOT NULL AND m.deleted_at IS NULL AND (m.poll::json->>'total_voters')::bigint <> \
         (SELECT COUNT(*) FROM message_poll_vote v WHERE v.message_id = m.id AND v.choices <> 0)",
    ),
    (
        "counts of reactions",
        "SELECT COUNT(*) FROM message m WHERE m.deleted_at IS NULL AND \
         COALESCE((SELECT SUM((e.value->>'count')::bigint) FROM json_each(m.reactions::json) AS e), 0) <> \
         (SELECT COUNT(*) FROM message_reaction r WHERE r.message_id = m.id)",
    ),
    (
        "tombstones",
        "SELECT (SELECT COUNT(*) FROM message WHERE deleted_at IS NOT NULL) - (SELECT COUNT(*) FROM message_tombstone)",
    ),
];
