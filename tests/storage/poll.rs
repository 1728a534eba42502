//! Votes in polls, and the totals that are stored with the message.

use futures_util::future::join_all;
use imks::testing::clock;
use imks::testing::models::append::{Authority, Scope};
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_poll::NewPoll;
use imks::testing::models::message_poll_vote::{ClosePoll, Polled, Vote, overdue, voters};
use imks::testing::models::message_send::NewMessage;
use serde_json::{Value, from_value, json};
use uuid::Uuid;

use crate::support::{Writer, code, id, message, on_both, scope};

fn poll(anonymous: bool, open_for: Option<i64>) -> NewPoll {
    let options = ["A", "B", "C"].map(|text| from_value(json!(text)).unwrap());
    NewPoll {
        question: from_value(json!("Which?")).unwrap(),
        options: options.into(),
        max_choices: 2,
        anonymous,
        hide_results: false,
        allow_change: true,
        open_for,
        secret: Uuid::from_u128(7),
    }
}

async fn start(writer: &Writer, channel: Uuid, poll: NewPoll) -> Uuid {
    let send = NewMessage { poll: Some(poll), ..message("Which?") };
    writer.send(scope(channel, id()), send).await.unwrap().0.id
}

fn choose(message_id: Uuid, option_ids: &[usize]) -> Vote {
    Vote { message_id, option_ids: option_ids.into() }
}

fn votes(polled: &Polled) -> Vec<i64> {
    let poll = json!(polled.poll);
    poll["options"].as_array().unwrap().iter().map(|option| option["votes"].as_i64().unwrap()).collect()
}

on_both! {
    async fn the_totals_equal_a_recount_however_many_vote_and_change_their_mind_at_once(store: &Store) {
        let (writer, other, channel) = (store.writer(), store.writer(), id());
        for anonymous in [false, true] {
            let poll = start(&writer, channel, poll(anonymous, None)).await;
            let users: Vec<Uuid> = (0..12).map(|_| id()).collect();
            let work = (0..5).flat_map(|round| users.iter().enumerate().map(move |(number, user)| (round, number, *user)));
            let work = work.map(|(round, number, user)| {
                let node = if (number + round) % 2 == 0 { &writer } else { &other };
                let ids: &[usize] = [&[0][..], &[1, 2], &[], &[2], &[0, 1]][(round + number) % 5];
                async move { node.submit(scope(channel, user), choose(poll, ids)).unwrap().await.unwrap() }
            });
            join_all(work).await;
            let closed = writer.submit(moderator(channel), ClosePoll { message_id: poll, if_over: false }).unwrap().await.unwrap();
            let mut recount = Vec::new();
            for bit in [1, 2, 4] {
                recount.push(match bit {
                    1 => store.number("SELECT COUNT(*) FROM message_poll_vote v JOIN message_poll p ON p.message_id = v.message_id \
                        AND p.closed_at = (SELECT MAX(closed_at) FROM message_poll) WHERE v.choices & 1 <> 0").await,
                    2 => store.number("SELECT COUNT(*) FROM message_poll_vote v JOIN message_poll p ON p.message_id = v.message_id \
                        AND p.closed_at = (SELECT MAX(closed_at) FROM message_poll) WHERE v.choices & 2 <> 0").await,
                    _ => store.number("SELECT COUNT(*) FROM message_poll_vote v JOIN message_poll p ON p.message_id = v.message_id \
                        AND p.closed_at = (SELECT MAX(closed_at) FROM message_poll) WHERE v.choices & 4 <> 0").await,
                });
            }
            assert_eq!(votes(&closed), recount);
            assert_eq!(store.number("SELECT COUNT(*) FROM message_poll WHERE secret IS NOT NULL").await, 0);
        }
    }

    async fn an_anonymous_vote_is_stored_under_no_user(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let poll = start(&writer, channel, poll(true, None)).await;
        writer.submit(scope(channel, alice), choose(poll, &[0])).unwrap().await.unwrap();
        let again = writer.submit(scope(channel, alice), choose(poll, &[1])).unwrap().await.unwrap();
        assert_eq!(votes(&again), [0, 1, 0]);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_poll_vote").await, 1);
        assert_eq!(store.number("SELECT MAX(voted_at) FROM message_poll_vote").await, 0);
        writer.submit(scope(channel, id()), choose(poll, &[2])).unwrap().await.unwrap();
        let actors = store.number("SELECT COUNT(DISTINCT actor_id) FROM channel_change").await;
        assert_eq!(actors, 1, "the log of changes does not say either who it was");
        assert!(store.seen(alice, channel, poll).await.poll.is_some_and(|poll| json!(poll)["my_votes"] == json!([1])));
        assert_eq!(code(voters(&store.db, channel, poll, 1, Uuid::nil(), 10).await), "failed_precondition");
        let refused: Value = json!(store.seen(id(), channel, poll).await.poll);
        assert_eq!(refused["my_votes"], json!([]));
    }

    async fn with_its_message_a_poll_is_over_and_nobody_learns_any_more_who_voted(store: &Store) {
        let (writer, channel) = (store.writer(), id());
        let poll = start(&writer, channel, poll(true, Some(1))).await;
        writer.submit(moderator(channel), DeleteMessage { message_id: poll }).unwrap().await.unwrap();
        assert_eq!(store.number("SELECT COUNT(*) FROM message_poll WHERE secret IS NOT NULL OR closed_at IS NULL").await, 0);
        assert!(overdue(&store.db, i64::MAX).await.unwrap().is_empty());
    }

    async fn a_poll_whose_time_is_over_is_closed_once_and_takes_no_vote_even_before(store: &Store) {
        let (writer, other, channel) = (store.writer(), store.writer(), id());
        let poll = start(&writer, channel, poll(false, Some(1))).await;
        let late = writer.submit(scope(channel, id()), choose(poll, &[0])).unwrap().await;
        assert_eq!(code(late), "poll_closed");
        let due = overdue(&store.db, clock::now_micros() + 1_000_000).await.unwrap();
        assert_eq!((due.len(), due[0].message_id), (1, poll));
        let close = || ClosePoll { message_id: poll, if_over: true };
        let nodes = [&writer, &other, &writer].map(|node| node.submit(moderator(channel), close()).unwrap());
        let closed: Vec<Polled> = join_all(nodes).await.into_iter().map(Result::unwrap).collect();
        assert!(closed.iter().all(|closed| closed.rev == 1 && json!(closed.poll)["is_final"] == true));
        assert!(overdue(&store.db, i64::MAX).await.unwrap().is_empty());
    }

    async fn a_repeated_send_of_a_poll_returns_the_first_one(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let send = |text: &str| {
            let mut poll = poll(false, None);
            poll.question = from_value(json!(text)).unwrap();
            let nonce = Some(from_value(json!("n")).unwrap());
            NewMessage { poll: Some(poll), nonce, ..message("Which?") }
        };
        let (first, _) = writer.send(scope(channel, alice), send("one")).await.unwrap();
        let (again, duplicate) = writer.send(scope(channel, alice), send("one")).await.unwrap();
        assert_eq!((again.id, duplicate), (first.id, true));
        assert_eq!(code(writer.send(scope(channel, alice), send("two")).await), "nonce_conflict");
    }
}

fn moderator(channel: Uuid) -> Scope {
    Scope { authority: Authority::Any, ..scope(channel, id()) }
}
