//! The feed: what channels were told, in one order, also for those who come later.

use std::collections::HashSet;
use std::time::Duration;

use imks::testing::models::append::Config;
use imks::testing::models::db::Db;
use imks::testing::models::emoji::Emoji;
use imks::testing::models::feed::{self, Cursor, Event, Feed, Filter, Follower, Reason, Step};
use imks::testing::models::message_pin::AddPin;
use imks::testing::models::message_reaction::AddReaction;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::support::{Store, Writer, author_of, edit, id, on_both};

/// The feed of a node, which looks for news until the guard is dropped.
fn feed(store: &Store) -> (Feed, DropGuard) {
    feed_with(store, feed::Config::default())
}

fn feed_with(store: &Store, config: feed::Config) -> (Feed, DropGuard) {
    let (feed, stop) = (Feed::new(store.db.clone(), config), CancellationToken::new());
    tokio::spawn(feed.clone().run(stop.clone()));
    (feed, stop.drop_guard())
}

async fn step(follower: &mut Follower) -> Step {
    timeout(Duration::from_secs(10), follower.next()).await.expect("news in time").unwrap()
}

/// The next `count` events.
async fn events(follower: &mut Follower, count: usize) -> Vec<Event> {
    let mut all = Vec::new();
    while all.len() < count {
        match step(follower).await {
            Step::Events(events, _) => all.extend(events),
            Step::Gap(_, reason) => panic!("a gap: {reason:?}"),
        }
    }
    assert_eq!(all.len(), count, "{all:#?}");
    all
}

fn message(event: &Event) -> Value {
    serde_json::from_str(&event.message).unwrap()
}

fn names(events: &[Event]) -> Vec<(&'static str, i64, i64)> {
    events.iter().map(|event| (event.name, event.seq, event.rev)).collect()
}

on_both! {
    async fn everything_that_a_channel_is_told_is_in_the_feed_in_its_order(store: &Store) {
        let ((feed, _guard), writer, channel, user) = (feed(store), store.writer(), id(), id());
        let first = writer.say(channel, user, "one").await;
        writer.edit(author_of(&first), edit(&first, "two")).await.unwrap();
        let react = AddReaction { message_id: first.id, emoji: Emoji::new("👍").unwrap() };
        writer.submit(author_of(&first), react).unwrap().await.unwrap();
        writer.submit(author_of(&first), AddPin { message_id: first.id }).unwrap().await.unwrap();
        writer.say(channel, user, "three").await;
        writer.delete(&first).await.unwrap();

        let mut follower = feed.follow(Cursor::Oldest, Filter::default());
        let told = events(&mut follower, 6).await;
        assert_eq!(names(&told), [
            ("message:new", 1, 0),
            ("message:updated", 1, 1),
            ("reaction:updated", 1, 2),
            ("pin:updated", 1, 3),
            ("message:new", 2, 0),
            ("message:deleted", 1, 4),
        ]);
        assert!(told.iter().all(|event| event.channel_id == channel && event.actor_id == user));
        let (first_seen, last) = (message(&told[0]), message(&told[4]));
        assert_eq!(first_seen["body"], "", "what was deleted since is not told");
        assert_eq!((&last["body"], &last["seq"], &last["rev"]), (&"three".into(), &2.into(), &0.into()));
    }

    async fn a_follower_goes_on_where_its_cursor_is(store: &Store) {
        let ((feed, _guard), writer, channel, user) = (feed(store), store.writer(), id(), id());
        let receipts: Vec<_> = (0..150)
            .map(|n| writer.submit(crate::support::scope(channel, user), crate::support::message(&format!("{n}"))).unwrap())
            .collect();
        for receipt in receipts {
            receipt.await.unwrap();
        }
        let all = events(&mut feed.follow(Cursor::Oldest, Filter::default()), 150).await;
        assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=150).collect::<Vec<_>>());
        for stop in [1, 77, 100, 149] {
            let text = all[stop - 1].next.to_string();
            let rest = events(&mut feed.follow(text.parse().unwrap(), Filter::default()), 150 - stop).await;
            assert_eq!(rest[0].seq, i64::try_from(stop).unwrap() + 1);
            assert_eq!(rest[0].place, all[stop - 1].next);
        }
        let mut new = feed.follow(Cursor::Now, Filter::default());
        new.begun().await.unwrap();
        writer.say(channel, user, "later").await;
        assert_eq!(events(&mut new, 1).await[0].seq, 151);
    }

    async fn a_filter_leaves_out_other_channels_and_events(store: &Store) {
        let ((feed, _guard), writer, user) = (feed(store), store.writer(), id());
        let channels = [id(), id(), id()];
        for channel in channels {
            let said = writer.say(channel, user, "hello").await;
            writer.edit(author_of(&said), edit(&said, "again")).await.unwrap();
        }
        let filter = Filter { channels: HashSet::from([channels[1]]), events: HashSet::from(["message:updated".into()]) };
        let found = events(&mut feed.follow(Cursor::Oldest, filter), 1).await;
        assert_eq!((found[0].channel_id, found[0].name), (channels[1], "message:updated"));
    }

    async fn whoever_comes_too_late_is_told_of_the_gap(store: &Store) {
        let (writer, channel, user) = (store.writer(), id(), id());
        let (young, guard) = feed(store);
        for body in ["one", "two", "three"] {
            writer.say(channel, user, body).await;
        }
        let kept = events(&mut young.follow(Cursor::Oldest, Filter::default()), 3).await;
        drop(guard);
        store.execute("UPDATE feed_batch SET at = 0 WHERE id <= 2").await;
        let (feed, _guard) = feed(store);
        while store.number("SELECT COUNT(*) FROM feed_batch").await > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut late = feed.follow(Cursor::At(kept[0].next), Filter::default());
        assert!(matches!(step(&mut late).await, Step::Gap(_, Reason::Removed)));
        assert_eq!(events(&mut late, 1).await[0].seq, 3, "it goes on with what is kept");
        let mut in_time = feed.follow(Cursor::At(kept[1].next), Filter::default());
        assert_eq!(events(&mut in_time, 1).await[0].seq, 3);
        let mut oldest = feed.follow(Cursor::Oldest, Filter::default());
        assert_eq!(events(&mut oldest, 1).await[0].seq, 3, "the oldest that is kept is no gap");
        let mut foreign = feed.follow("999.0".parse().unwrap(), Filter::default());
        assert!(matches!(step(&mut foreign).await, Step::Gap(_, Reason::UnknownCursor)), "a cursor of another database");
    }

    async fn whoever_has_everything_is_told_of_no_gap_when_all_of_it_was_removed(store: &Store) {
        let (writer, channel, user) = (store.writer(), id(), id());
        let (young, guard) = feed(store);
        for body in ["one", "two", "three"] {
            writer.say(channel, user, body).await;
        }
        let told = events(&mut young.follow(Cursor::Oldest, Filter::default()), 3).await;
        drop(guard);
        store.execute("UPDATE feed_batch SET at = 0").await;
        let (feed, _guard) = feed(store);
        while store.number("SELECT COUNT(*) FROM feed_batch").await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cursors = [Cursor::Now, Cursor::Oldest, Cursor::At(told[2].next)];
        let mut followers = cursors.map(|cursor| feed.follow(cursor, Filter::default()));
        for follower in &mut followers {
            follower.begun().await.unwrap();
        }
        writer.say(channel, user, "four").await;
        for follower in &mut followers {
            assert_eq!(events(follower, 1).await[0].seq, 4);
        }
    }

    async fn whoever_begins_now_is_not_told_what_others_wrote_while_nobody_followed(store: &Store) {
        let ((feed, _guard), writer, channel, user) = (feed(store), store.writer(), id(), id());
        feed.follow(Cursor::Now, Filter::default()).begun().await.unwrap();
        for _ in 0..50 {
            writer.say(channel, user, "before").await;
        }
        let mut now = feed.follow(Cursor::Now, Filter::default());
        now.begun().await.unwrap();
        writer.say(channel, user, "after").await;
        assert_eq!(events(&mut now, 1).await[0].seq, 51);
    }

    async fn a_page_is_bounded_in_bytes_also_where_messages_are_large(store: &Store) {
        let ((feed, _guard), writer, channel, user) = (feed(store), store.writer(), id(), id());
        let large = crate::support::message(&"ä".repeat(8_000));
        let receipts: Vec<_> = (0..150)
            .map(|_| writer.submit(crate::support::scope(channel, user), large.clone()).unwrap())
            .collect();
        for receipt in receipts {
            receipt.await.unwrap();
        }
        let (mut follower, mut seqs) = (feed.follow(Cursor::Oldest, Filter::default()), Vec::new());
        while seqs.len() < 150 {
            let Step::Events(some, _) = step(&mut follower).await else { panic!("a gap") };
            let bytes: usize = some.iter().map(|event| event.message.len()).sum();
            assert!(some.len() > 30 && bytes <= 1 << 20 || seqs.len() + some.len() == 150, "{bytes}");
            seqs.extend(some.iter().map(|event| event.seq));
        }
        assert_eq!(seqs, (1..=150).collect::<Vec<_>>());
    }

    async fn nothing_is_recorded_while_the_feed_is_off(store: &Store) {
        let off = feed::Config { retention: Duration::ZERO };
        let (feed, _guard) = feed_with(store, off);
        let writer = Writer::start(store.db.clone(), Config { feed: false, ..Config::default() });
        writer.say(id(), id(), "hello").await;
        assert_eq!(store.number("SELECT COUNT(*) FROM feed_batch").await, 0);
        let refused = feed.follow(Cursor::Oldest, Filter::default()).next().await.unwrap_err();
        assert_eq!(refused.code().as_str(), "unavailable");
    }

    async fn messages_that_were_purged_are_passed_over(store: &Store) {
        let ((feed, _guard), writer, channel, user) = (feed(store), store.writer(), id(), id());
        writer.say(channel, user, "one").await;
        writer.say(channel, user, "two").await;
        store.execute("DELETE FROM message WHERE seq = 1").await;
        assert_eq!(events(&mut feed.follow(Cursor::Oldest, Filter::default()), 1).await[0].seq, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_restored_under_a_running_server_is_a_gap_and_then_the_feed_goes_on() {
    let store = Store::postgres().await;
    let ((feed, _guard), writer, channel, user) = (feed(&store), store.writer(), id(), id());
    let mut follower = feed.follow(Cursor::Oldest, Filter::default());
    for body in ["one", "two", "three"] {
        writer.say(channel, user, body).await;
    }
    let told = events(&mut follower, 3).await;
    store.execute("DELETE FROM feed_batch WHERE id > 1; SELECT setval('feed_batch_id_seq', 1)").await;
    assert!(matches!(step(&mut follower).await, Step::Gap(_, Reason::UnknownCursor)));
    writer.say(channel, user, "four").await;
    let seqs: Vec<i64> = events(&mut follower, 2).await.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 4], "from the oldest event that the backup has");
    let mut late = feed.follow(Cursor::At(told[2].next), Filter::default());
    assert!(matches!(step(&mut late).await, Step::Gap(_, Reason::UnknownCursor)));
}

/// Adds a row to the feed in a transaction of its own, which stays open.
async fn open_transaction(store: &Store) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let Db::Postgres(pool) = &store.db else { panic!("not PostgreSQL") };
    let mut transaction = (**pool).begin().await.unwrap();
    let insert = "INSERT INTO feed_batch (at, ranges) SELECT at, ranges FROM feed_batch ORDER BY id LIMIT 1";
    sqlx::query(insert).execute(&mut *transaction).await.unwrap();
    transaction
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_waits_for_a_transaction_that_is_open_while_others_commit() {
    let store = Store::postgres().await;
    let ((feed, _guard), writer, channel, user) = (feed(&store), store.writer(), id(), id());
    let mut follower = feed.follow(Cursor::Oldest, Filter::default());
    writer.say(channel, user, "one").await;
    assert_eq!(events(&mut follower, 1).await[0].seq, 1);

    let open = open_transaction(&store).await;
    writer.say(channel, user, "two").await;
    writer.say(channel, user, "three").await;
    let early = timeout(Duration::from_secs(1), follower.next()).await;
    assert!(early.is_err(), "nobody may pass what can still appear: {early:?}");
    open.commit().await.unwrap();
    // The row of the open transaction repeats the first event; it comes at its place.
    assert_eq!(
        names(&events(&mut follower, 3).await),
        [("message:new", 1, 0), ("message:new", 2, 0), ("message:new", 3, 0)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_passes_what_was_rolled_back_and_does_not_wait_for_transactions_of_others() {
    let store = Store::postgres().await;
    let ((feed, _guard), writer, channel, user) = (feed(&store), store.writer(), id(), id());
    let mut follower = feed.follow(Cursor::Oldest, Filter::default());
    writer.say(channel, user, "one").await;
    assert_eq!(events(&mut follower, 1).await[0].seq, 1);

    // Somebody else writes to the same database for a long time.
    let Db::Postgres(pool) = &store.db else { panic!("not PostgreSQL") };
    let mut other = (**pool).begin().await.unwrap();
    sqlx::query("CREATE TABLE of_others (id BIGINT)").execute(&mut *other).await.unwrap();
    let open = open_transaction(&store).await;
    writer.say(channel, user, "two").await;
    open.rollback().await.unwrap();
    assert_eq!(events(&mut follower, 1).await[0].seq, 2);
    other.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_miss_nothing_while_many_write_and_some_roll_back() {
    let store = Store::postgres().await;
    let (feed, _guard) = feed(&store);
    let mut follower = feed.follow(Cursor::Oldest, Filter::default());
    let channels: Vec<Uuid> = (0..8).map(|_| id()).collect();
    let writers = [store.writer().unheard(), store.writer().unheard()];
    let (user, rounds) = (id(), 40);
    let say = async |writer: &Writer| {
        for round in 0..rounds {
            for channel in &channels {
                writer.say(*channel, user, &format!("{round}")).await;
            }
        }
    };
    let roll_back = async {
        for _ in 0..20 {
            while store.number("SELECT COUNT(*) FROM feed_batch").await == 0 {
                tokio::task::yield_now().await;
            }
            open_transaction(&store).await.rollback().await.unwrap();
        }
    };
    let total = 2 * rounds * channels.len();
    let (told, ..) =
        tokio::join!(events(&mut follower, total), say(&writers[0]), say(&writers[1]), roll_back);
    for channel in channels {
        let of: Vec<i64> =
            told.iter().filter(|event| event.channel_id == channel).map(|event| event.seq).collect();
        assert_eq!(of, (1..=2 * rounds as i64).collect::<Vec<_>>());
    }
}
