//! A database with many messages, made by the database itself.

use std::time::Duration;

use imks::testing::clock;
use imks::testing::models::db::{Config, Db};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

/// Whom the tests ask for; this user is in all channels.
pub const READER: u64 = 0;
const USERS: i64 = 50;
/// Channels that nobody has written in.
const SILENT: i64 = 20_000;
/// The messages of each channel that a user has not read.
const BEHIND: i64 = 50;
/// A user follows the threads of every so many channels.
const FOLLOWED_EVERY: i64 = 20;
/// How old the first message is.
const AGE_MS: i64 = 180 * 86_400_000;
/// Each so many messages have a word that the others do not have.
const RARE: i64 = 1_009;
/// Scatters the ids of channels: those of a user are not neighbours.
const STRIDE: i64 = 7_919;
const PRIME: i64 = 1_000_003;
/// Authors of each channel.
const AUTHORS: i64 = 20;
/// A reply in the thread of the channel's first message, a change, a deletion, a mention: each so many messages.
const REPLY_EVERY: i64 = 10;
const CHANGE_EVERY: i64 = 10;
const DELETED_EVERY: i64 = 50;
const MENTION_EVERY: i64 = 10;

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub messages: i64,
    pub channels: i64,
    /// The time of the first message, in milliseconds, and how many are between two.
    first: i64,
    step: i64,
}

impl Size {
    pub fn new(messages: i64) -> Self {
        let channels = (messages / 500).max(500);
        let step = AGE_MS / messages;
        Self { messages, channels, first: clock::now_micros() / 1_000 - AGE_MS - 60_000, step }
    }

    /// Messages in a channel.
    pub fn seqs(&self) -> i64 {
        self.messages / self.channels
    }

    pub fn revs(&self) -> i64 {
        self.seqs() / CHANGE_EVERY
    }

    pub fn message(&self, channel: u64, seq: i64) -> Uuid {
        let number = (seq - 1) * self.channels + channel as i64;
        Uuid::from_u128(
            (((self.first + number * self.step) as u128) << 80) | (0x7000_8000 << 48) | number as u128,
        )
    }
}

pub fn channel(number: u64) -> Uuid {
    Uuid::from_u128(0x7000_8000_0000_0000_0000 | u128::from(number * STRIDE as u64 % PRIME as u64))
}

pub fn user(number: u64) -> Uuid {
    Uuid::from_u128(0x7000_9000_0000_0000_0000 | u128::from(number))
}

/// Words of the two databases for the same.
struct Words {
    postgres: bool,
    size: Size,
}

impl Words {
    fn id(&self, prefix: &str, number: &str) -> String {
        match self.postgres {
            true => format!("('{prefix}' || lpad(to_hex(({number})::bigint), 12, '0'))::uuid"),
            false => format!("unhex('{prefix}' || printf('%012x', {number}))"),
        }
    }

    fn channel(&self, number: &str) -> String {
        self.id("00000000000070008000", &format!("({number}) * {STRIDE} % {PRIME}"))
    }

    fn user(&self, number: &str) -> String {
        self.id("00000000000070009000", number)
    }

    fn message(&self, number: &str) -> String {
        let Size { first, step, .. } = self.size;
        match self.postgres {
            true => format!(
                "(lpad(to_hex(({first} + {number} * {step})::bigint), 12, '0') || '70008000' || lpad(to_hex(({number})::bigint), 12, '0'))::uuid"
            ),
            false => format!("unhex(printf('%012x70008000%012x', {first} + {number} * {step}, {number}))"),
        }
    }

    /// The numbers from 0, as the table `name` with the column `name`.
    fn numbers(&self, name: &str, count: i64) -> String {
        match self.postgres {
            true => format!("generate_series(0::bigint, {count} - 1) AS {name}({name})"),
            false => format!(
                "(WITH RECURSIVE g(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM g WHERE i < {count} - 1) SELECT i AS {name} FROM g) AS {name}"
            ),
        }
    }
}

/// The statements that fill an empty database.
fn statements(postgres: bool, size: Size) -> Vec<String> {
    let words = Words { postgres, size };
    let mut all = of_messages(&words);
    all.extend(of_some_messages(&words));
    all.extend(of_channels(&words));
    all.extend(of_users(&words));
    all.extend(of_search(&words));
    all.push(if postgres { "VACUUM ANALYZE" } else { "ANALYZE" }.to_owned());
    all
}

/// Texts that the statements about messages have in common.
struct OfMessage {
    numbers: String,
    id: String,
    channel: String,
    seq: String,
    author: String,
    root: String,
    at: String,
}

impl OfMessage {
    fn new(words: &Words) -> Self {
        let Size { messages, channels, first, step } = words.size;
        Self {
            numbers: words.numbers("n", messages),
            id: words.message("n"),
            channel: words.channel(&format!("n % {channels}")),
            seq: format!("(n / {channels} + 1)"),
            author: words.user(&format!("(n / {channels} + n) % {AUTHORS}")),
            root: words.message(&format!("(n % {channels})")),
            at: format!("({first} + n * {step}) * 1000"),
        }
    }
}

/// The messages, and the counters of their channels.
fn of_messages(words: &Words) -> Vec<String> {
    let Size { channels, first, .. } = words.size;
    let (now, seqs, revs) = (first + AGE_MS, words.size.seqs(), words.size.revs());
    let OfMessage { numbers: n, id, channel: here, seq, author, root, at } = OfMessage::new(words);
    let (c, of_c) = (words.numbers("c", channels), words.channel("c"));
    let last = words.message(&format!("({} * {channels} + c)", seqs - 1));
    let thread = format!("{seq} % {REPLY_EVERY} = 0");
    vec![
        format!(
            "INSERT INTO channel_state (channel_id, last_seq, last_cseq, last_rev, last_ms, last_message_id, last_message_at, message_count) \
             SELECT {of_c}, {seqs}, {seqs}, {revs}, {now}, {last}, {now} * 1000, {seqs} FROM {c}"
        ),
        format!(
            "INSERT INTO channel_state (channel_id) SELECT {of_c} FROM {} WHERE c >= {channels}",
            words.numbers("c", channels + SILENT)
        ),
        format!(
            "INSERT INTO message (id, channel_id, seq, cseq, author_id, author_username, body, content_hash, created_at, thread_id, nonce, rev, reactions, deleted_at, poll) \
             SELECT {id}, {here}, {seq}, {seq}, {author}, 'somebody', 'the message with the number ' || n || ' says something that is as long as people write' || CASE WHEN n % {RARE} = 0 THEN ' seldom 上海' ELSE '' END, n, {at}, \
             CASE WHEN {thread} THEN {root} END, 'nonce-' || n, CASE WHEN {seq} % {CHANGE_EVERY} = 0 THEN {seq} / {CHANGE_EVERY} ELSE 0 END, \
             CASE WHEN {seq} % 20 = 0 THEN {REACTIONS} END, CASE WHEN {seq} % {DELETED_EVERY} = 0 THEN {at} END, CASE WHEN {seq} = 1 THEN {POLL} END FROM {n}"
        ),
    ]
}

/// What only some messages have.
fn of_some_messages(words: &Words) -> Vec<String> {
    let OfMessage { numbers: n, id, channel: here, seq, author, root, at } = OfMessage::new(words);
    let every = |count: i64| format!("WHERE {seq} % {count} = 0");
    let (users, reader) = (words.numbers("u", 3), words.user("u"));
    vec![
        format!(
            "INSERT INTO channel_change (channel_id, rev, kind, message_id, seq, actor_id, at) \
             SELECT {here}, {seq} / {CHANGE_EVERY}, 0, {id}, {seq}, {author}, {at} FROM {n} {}",
            every(CHANGE_EVERY)
        ),
        format!(
            "INSERT INTO message_tombstone (channel_id, seq, counted, thread_id) SELECT {here}, {seq}, FALSE, {root} FROM {n} {}",
            every(DELETED_EVERY)
        ),
        format!(
            "INSERT INTO message_mention (message_id, kind, target_id, author_id, channel_id, seq, created_at) \
             SELECT {id}, 0, {}, {author}, {here}, {seq}, {at} FROM {n} {}",
            words.user("n % 7"),
            every(MENTION_EVERY)
        ),
        format!(
            "INSERT INTO message_mention (message_id, kind, target_id, author_id, channel_id, seq, created_at) \
             SELECT {id}, 2, {here}, {author}, {here}, {seq}, {at} FROM {n} {}",
            every(97)
        ),
        format!(
            "INSERT INTO message_edit (message_id, version, channel_id, editor_id, body, edited_at) \
             SELECT {id}, 1, {here}, {author}, 'before', {at} FROM {n} {}",
            every(CHANGE_EVERY)
        ),
        format!(
            "INSERT INTO message_reaction (message_id, emoji, user_id, channel_id, created_at) \
             SELECT {id}, '👍', {reader}, {here}, {at} FROM {n} CROSS JOIN {users} {}",
            every(20)
        ),
        format!(
            "INSERT INTO message_attachment (id, channel_id, uploader_id, message_id, filename, mime, size_bytes, created_at, completed_at) \
             SELECT {id}, {here}, {author}, {id}, 'a.txt', 'text/plain', 5, {at}, {at} FROM {n} {}",
            every(30)
        ),
    ]
}

/// What each channel has.
fn of_channels(words: &Words) -> Vec<String> {
    let Size { channels, first, .. } = words.size;
    let (now, seqs) = (first + AGE_MS, words.size.seqs());
    let (c, of_c) = (words.numbers("c", channels), words.channel("c"));
    vec![
        format!(
            "INSERT INTO message_thread (root_message_id, channel_id, last_reply_seq) SELECT {}, {of_c}, {seqs} FROM {c}",
            words.message("c")
        ),
        format!(
            "INSERT INTO message_author (author_id, channel_id, last_seq, last_cseq, last_at) \
             SELECT {}, {of_c}, 1, 1, {first} FROM {c} CROSS JOIN {}",
            words.user("a"),
            words.numbers("a", AUTHORS)
        ),
        format!(
            "INSERT INTO message_pin (channel_id, message_id, pinned_by, pinned_at) SELECT {of_c}, {}, {}, {first} + p FROM {c} CROSS JOIN {}",
            words.message(&format!("(p * {channels} + c)")),
            words.user("p"),
            words.numbers("p", 20)
        ),
        format!(
            "INSERT INTO message_poll (message_id, channel_id, closes_at) SELECT {}, {of_c}, ({now} + 86400000 + c * 60000) * 1000 FROM {c}",
            words.message("c")
        ),
        format!(
            "INSERT INTO message_poll_vote (message_id, voter_id, choices, voted_at) SELECT {}, {}, 1, {first} FROM {c} CROSS JOIN {}",
            words.message("c"),
            words.user("v"),
            words.numbers("v", USERS)
        ),
        format!(
            "INSERT INTO message_report (id, channel_id, message_id, author_id, reporter_id, reason, body, created_at) \
             SELECT {}, {of_c}, {}, {}, {}, 'spam', 'x', {first} FROM {c} CROSS JOIN {}",
            words.id("00000000000070007000", &format!("c * {USERS} + r")),
            words.message("c"),
            words.user("1"),
            words.user("r"),
            words.numbers("r", 5)
        ),
    ]
}

/// What is of each user: a position in each channel, and some of everything else.
fn of_users(words: &Words) -> Vec<String> {
    let Size { channels, first, .. } = words.size;
    let now = first + AGE_MS;
    let seqs = words.size.seqs();
    let (c, u) = (words.numbers("c", channels), words.numbers("u", USERS));
    let (of_c, of_u, of_m) = (words.channel("c"), words.user("u"), words.message("c"));
    let own = |prefix: &str| words.id(prefix, &format!("u * {channels} + c"));
    let each = format!("FROM {c} CROSS JOIN {u}");
    vec![
        format!("INSERT INTO user_state (user_id, last_rev) SELECT {of_u}, {channels} FROM {u}"),
        format!(
            "INSERT INTO message_read_state (user_id, channel_id, read_seq, read_cseq, updated_at, user_rev) \
             SELECT {of_u}, {of_c}, {seqs} - {BEHIND}, {seqs} - {BEHIND}, {first}, c {each}"
        ),
        format!(
            "INSERT INTO message_thread_member (user_id, root_message_id, channel_id, following, decided_seq, read_seq, user_rev) \
             SELECT {of_u}, {of_m}, {of_c}, TRUE, 1, {seqs} - {BEHIND}, c {each} WHERE c % {FOLLOWED_EVERY} = 0"
        ),
        format!(
            "INSERT INTO message_draft (user_id, channel_id, thread_key, body, version, user_rev, updated_at) \
             SELECT {of_u}, {of_c}, {}, 'begun', 1, c, {first} {each}",
            words.id("00000000000000000000", "0")
        ),
        format!(
            "INSERT INTO message_bookmark (user_id, message_id, channel_id, note, remind_at, user_rev, created_at) \
             SELECT {of_u}, {of_m}, {of_c}, 'note', ({now} + 86400000 + c * 60000) * 1000, c, {first} {each}"
        ),
        format!(
            "INSERT INTO message_scheduled (id, user_id, channel_id, payload, send_at, due_at, user_rev, created_at, updated_at) \
             SELECT {}, {of_u}, {of_c}, '{{}}', ({now} + 86400000 + c * 60000) * 1000, ({now} + 86400000 + c * 60000) * 1000, c, {first}, {first} {each}",
            own("00000000000070006000")
        ),
    ]
}

/// The index of search, as the server would make it for some words; the messages of the first channel are left to it.
fn of_search(words: &Words) -> Vec<String> {
    let Size { messages, channels, first, step } = words.size;
    let (n, id) = (words.numbers("n", messages), words.message("n"));
    let rows =
        (0..channels).map(|number| format!("({number}, {})", term(b'i', channel(number as u64).as_bytes())));
    let rows = rows.collect::<Vec<_>>().join(", ");
    let (all, seldom) = (
        [term(b'w', b"something"), term(b'w', b"number")],
        [term(b'w', b"seldom"), term(b'p', "上海".as_bytes())],
    );
    let joined =
        format!("FROM {n} JOIN plan_channel ON plan_channel.c = n % {channels} WHERE n % {channels} > 0");
    let place = format!("(({first} + n * {step}) << 20) | (n / {channels} + 1)");
    let mut statements = vec![
        "CREATE TABLE plan_channel (c BIGINT PRIMARY KEY, term INTEGER)".to_owned(),
        format!("INSERT INTO plan_channel VALUES {rows}"),
    ];
    match words.postgres {
        true => statements.push(format!(
            "INSERT INTO message_search (message_id, terms) SELECT {id}, \
             ARRAY[term, {}, {}, 100000 + (n % 5000)] || CASE WHEN n % {RARE} = 0 THEN ARRAY[{}, {}] ELSE '{{}}'::int4[] END {joined}",
            all[0], all[1], seldom[0], seldom[1]
        )),
        false => {
            let hex = |term: i32| format!("{term:08x}");
            statements.push(format!("INSERT INTO message_search (place, message_id) SELECT {place}, {id} {joined}"));
            statements.push(format!(
                "INSERT INTO message_search_terms (rowid, terms) SELECT {place}, printf('%08x {} {} %08x', term & 4294967295, 100000 + (n % 5000)) \
                 || CASE WHEN n % {RARE} = 0 THEN ' {} {}' ELSE '' END {joined}",
                hex(all[0]), hex(all[1]), hex(seldom[0]), hex(seldom[1])
            ));
        }
    }
    statements.push("DROP TABLE plan_channel".to_owned());
    statements.push(format!(
        "INSERT INTO message_search_state (channel_id, seq, rev) SELECT {}, {}, {} FROM {} WHERE c > 0",
        words.channel("c"),
        words.size.seqs(),
        words.size.revs(),
        words.numbers("c", channels)
    ));
    statements
}

/// The number of a word, as in `src/models/search_terms.rs`.
fn term(role: u8, bytes: &[u8]) -> i32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in std::iter::once(&role).chain(bytes) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    (hash ^ (hash >> 15)).cast_signed()
}

/// What is stored of reactions and of a poll.
const REACTIONS: &str = r#"'{"👍":{"count":3,"user_ids":[]}}'"#;
const POLL: &str = r#"'{"question":"?","options":[{"text":"A","votes":50},{"text":"B","votes":0}],"max_choices":1,"anonymous":false,"hide_results":false,"allow_change":true,"total_voters":50,"closes_at":null,"closed_at":null}'"#;

/// Fills the database of this configuration.
pub async fn fill(config: &Config, size: Size) {
    let patient = Config { statement_timeout: Duration::from_secs(3_600), ..config.clone() };
    let db = Db::connect(&patient).await.unwrap();
    for statement in statements(matches!(db, Db::Postgres(_)), size) {
        let sql = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
        let done = match &db {
            Db::Postgres(pool) => sql.execute(pool).await.map(drop),
            Db::Sqlite(sqlite) => sql.execute(&sqlite.writer).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
    db.close().await;
}
