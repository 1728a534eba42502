//! Search: the index follows the messages, and what is found is what a naive search finds.

use imks::testing::clock;
use imks::testing::models::db::Db;
use imks::testing::models::message::ContentType;
use imks::testing::models::message_search::{self, CANDIDATES_POSTGRES, Has, Page, Query};
use imks::testing::models::message_search_index;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::Mentions;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{Store, author_of, edit, id, message, on_both, scope};

/// Follows a channel until the index is up to date.
async fn indexed(store: &Store, channel: Uuid) {
    let mut behind = vec![channel];
    while !behind.is_empty() {
        behind = message_search_index::follow(&store.db, behind).await.unwrap();
    }
}

fn words(text: &str) -> Query {
    Query::new(text).unwrap()
}

/// The bodies found, newest first, by pages of `limit`.
async fn found(store: &Store, channels: &[Uuid], query: &Query, limit: usize) -> Vec<String> {
    let (mut bodies, mut cursor) = (Vec::new(), None);
    loop {
        let page = Page { cursor, limit, bytes: 1 << 20 };
        let now = clock::now_micros();
        let found = message_search::find(&store.db, id(), channels, query, page, now).await.unwrap();
        assert!(found.messages.len() <= limit);
        bodies.extend(found.messages.into_iter().map(|message| message.body));
        match found.next {
            Some(next) => cursor = Some(next),
            None => return bodies,
        }
    }
}

on_both! {
    async fn words_are_found_in_every_script_newest_first_and_follow_edits_and_deletions(store: &Store) {
        let (writer, channel, alice) = (store.writer().unheard(), id(), id());
        let first = writer.say(channel, alice, "我昨天在上海吃饭").await;
        let second = writer.say(channel, alice, "Back from Café Zürich, 上海 next").await;
        let secret = NewMessage { content_type: ContentType::E2ee, ..message("上海 secret") };
        writer.send(scope(channel, alice), secret).await.unwrap();
        indexed(store, channel).await;
        let all = [channel];
        assert_eq!(found(store, &all, &words("上海"), 10).await, [second.body.as_str(), first.body.as_str()]);
        assert_eq!(found(store, &all, &words("海"), 1).await.len(), 2, "one character, by pages");
        assert_eq!(found(store, &all, &words("海上"), 10).await, Vec::<String>::new());
        assert_eq!(found(store, &all, &words("CAFE zurich 上海"), 10).await, [second.body.as_str()]);
        assert_eq!(found(store, &[id()], &words("上海"), 10).await, Vec::<String>::new(), "another channel");
        writer.edit(author_of(&second), edit(&second, "Geneva")).await.unwrap();
        writer.delete(&first).await.unwrap();
        assert_eq!(found(store, &all, &words("上海"), 10).await, Vec::<String>::new(), "at once");
        indexed(store, channel).await;
        assert_eq!(found(store, &all, &words("geneva"), 10).await, ["Geneva"]);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_search").await, 1);
    }

    async fn filters_narrow_a_search_by_author_content_mention_and_time(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer().unheard(), id(), id(), id());
        let first = writer.say(channel, alice, "one https://example.com/").await;
        let mentions = Mentions { users: vec![bob], ..Mentions::default() };
        writer.send(scope(channel, bob), NewMessage { mentions, ..message("two") }).await.unwrap();
        indexed(store, channel).await;
        let all = [channel];
        let by = |query: Query| async move { found(store, &all, &query, 10).await };
        assert_eq!(by(Query { from: Some(bob), ..Query::default() }).await, ["two"]);
        assert_eq!(by(Query { mentions: Some(bob), ..Query::default() }).await, ["two"]);
        assert_eq!(by(Query { has: vec![Has::Link], ..Query::default() }).await, [first.body.as_str()]);
        assert_eq!(by(Query { has: vec![Has::Link], from: Some(bob), ..Query::default() }).await, Vec::<String>::new());
        let at = first.created_at.0;
        assert_eq!(by(Query { before: Some(at), ..words("one") }).await, Vec::<String>::new());
        assert_eq!(by(Query { before: Some(at + 1), after: Some(at), ..words("one") }).await.len(), 1);
    }

    async fn an_index_that_is_far_behind_catches_up_in_bounded_passes(store: &Store) {
        let (writer, channel, alice) = (store.writer().unheard(), id(), id());
        let at_once = message_search_index::messages_at_once(&store.db);
        let count = usize::try_from(at_once).unwrap() * 2 + 10;
        for number in 0..count {
            writer.say(channel, alice, &format!("common {number}")).await;
        }
        let (behind, next) = message_search_index::behind(&store.db, Uuid::nil()).await.unwrap();
        assert_eq!((behind.as_slice(), next), ([channel].as_slice(), None));
        assert_eq!(message_search_index::follow(&store.db, behind).await.unwrap(), [channel]);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_search").await, at_once);
        indexed(store, channel).await;
        assert_eq!(found(store, &[channel], &words("common"), 50).await.len(), count);
        let (behind, _) = message_search_index::behind(&store.db, Uuid::nil()).await.unwrap();
        assert_eq!(behind, Vec::<Uuid>::new());
    }

    async fn two_nodes_that_follow_one_channel_at_once_index_each_message_once(store: &Store) {
        let (writer, channel, alice) = (store.writer().unheard(), id(), id());
        for number in 0..40 {
            writer.say(channel, alice, &format!("common {number}")).await;
        }
        let other = store.opened_again().await;
        let (one, two) = tokio::join!(
            message_search_index::follow(&store.db, vec![channel]),
            message_search_index::follow(&other, vec![channel]),
        );
        assert_eq!((one.unwrap(), two.unwrap()), (vec![], vec![]));
        assert_eq!(found(store, &[channel], &words("common"), 50).await.len(), 40);
    }

    async fn a_search_of_two_thousand_channels_is_answered(store: &Store) {
        let (writer, channel, alice) = (store.writer().unheard(), id(), id());
        writer.say(channel, alice, "needle").await;
        indexed(store, channel).await;
        let mut channels: Vec<Uuid> = (0..1_999).map(|_| id()).collect();
        channels.push(channel);
        assert_eq!(found(store, &channels, &words("needle"), 10).await, ["needle"]);
    }

    async fn every_search_finds_what_a_naive_search_finds(store: &Store) {
        let mut runner = TestRunner::deterministic();
        let word = prop::sample::select(vec!["tea", "Tee", "tëa", "上海", "海上", "上", "京都", "한국", "👍", "x"]);
        let text = prop::collection::vec((word.clone(), prop::sample::select(vec![" ", "", ", "])), 1..6)
            .prop_map(|parts| parts.into_iter().map(|(word, between)| format!("{word}{between}")).collect::<String>());
        let (writer, alice, channels) = (store.writer().unheard(), id(), [id(), id()]);
        let mut said: Vec<(Uuid, String)> = Vec::new();
        for number in 0..120 {
            let body = text.new_tree(&mut runner).unwrap().current();
            let channel = channels[number % 2];
            let sent = writer.say(channel, alice, &body).await;
            match number % 7 {
                3 => drop(writer.delete(&sent).await.unwrap()),
                5 => {
                    let other = text.new_tree(&mut runner).unwrap().current();
                    writer.edit(author_of(&sent), edit(&sent, &other)).await.unwrap();
                    said.push((channel, other));
                }
                _ => said.push((channel, body)),
            }
            if number % 11 == 0 {
                indexed(store, channel).await;
            }
        }
        indexed(store, channels[0]).await;
        indexed(store, channels[1]).await;
        let queries = prop::collection::vec(word, 1..4).prop_map(|words| words.join(" "));
        for _ in 0..60 {
            let query = queries.new_tree(&mut runner).unwrap().current();
            let naive: Vec<&String> =
                said.iter().rev().filter(|(channel, body)| *channel == channels[0] && contains(body, &query)).map(|(_, body)| body).collect();
            let indexed = found(store, &channels[..1], &words(&query), 7).await;
            assert_eq!(indexed.iter().collect::<Vec<_>>(), naive, "{query}");
        }
    }
}

/// Search by its definition, for the words of the test: every word of an alphabet is a whole word of the text, and
/// everything else a part of it between letters and spaces.
fn contains(body: &str, query: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace('ë', "e");
    let is_latin = |character: char| character.is_ascii_alphanumeric();
    let parts = |text: &str| -> Vec<String> {
        let text = plain(text);
        let mut parts: Vec<String> = Vec::new();
        let mut before = None;
        for character in text.chars() {
            let kind = (!matches!(character, ' ' | ',')).then(|| is_latin(character));
            match (kind, before) {
                (None, _) => {}
                (Some(_), Some(_)) if kind == before => parts.last_mut().unwrap().push(character),
                (Some(_), _) => parts.push(character.to_string()),
            }
            before = kind;
        }
        parts
    };
    let text = parts(body);
    parts(query).iter().all(|wanted| match wanted.chars().all(is_latin) {
        true => text.contains(wanted),
        false => text.iter().any(|part| part.contains(wanted.as_str())),
    })
}

/// Fills the index with `count` rows, a thousandth of which have the number 7, and a tenth the number 8.
const FILL: &str = "BEGIN; SET LOCAL statement_timeout = 0; INSERT INTO message_search (message_id, terms) \
    SELECT gen_random_uuid(), ARRAY[1 + n % 50, CASE WHEN n % 1000 = 0 THEN 7000 ELSE 0 END, CASE WHEN n % 10 = 0 THEN 8000 ELSE 0 END] \
    FROM generate_series(1, 60000) n; ANALYZE message_search; COMMIT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_on_postgres_uses_the_index_of_numbers_for_rare_and_common_words() {
    let store = Store::postgres().await;
    store.execute(FILL).await;
    let Db::Postgres(pool) = &store.db else { panic!("not PostgreSQL") };
    for terms in ["7000", "8000", "7000,8000"] {
        let query = CANDIDATES_POSTGRES
            .replace("$1", &format!("'{{{terms}}}'::int4[]"))
            .replace("$2", "'{1,2,3}'::int4[]")
            .replace("$3", "'00000000-0000-0000-0000-000000000000'")
            .replace("$4", "'ffffffff-ffff-ffff-ffff-ffffffffffff'")
            .replace("$5", "100");
        let plan = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN ANALYZE {query}")));
        let plan: Vec<String> = plan.fetch_all(pool).await.unwrap();
        assert!(
            plan.iter().any(|line| line.contains("Bitmap Index Scan on message_search_terms")),
            "{plan:#?}"
        );
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
    }
}

/// Prints what the index costs beside the sending of messages: `cargo nextest run --no-capture -E 'test(cost_of_the_index)'`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_the_index_is_paid_after_the_commit() {
    let store = Store::sqlite().await;
    let (writer, channel, alice) = (store.writer().unheard(), id(), id());
    for number in 0..256 {
        writer
            .say(channel, alice, &format!("hello world, this is the message number {number} of a test"))
            .await;
    }
    assert_eq!(store.number("SELECT COUNT(*) FROM message_search").await, 0, "sending writes nothing of it");
    let started = tokio::time::Instant::now();
    indexed(&store, channel).await;
    println!("256 messages indexed in {:?}, by one transaction", started.elapsed());
    assert_eq!(store.number("SELECT COUNT(*) FROM message_search").await, 256);
}
