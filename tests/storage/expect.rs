//! Messages that are only stored under a condition.

use imks::testing::models::channel_key::{Expect, KEYS_MAX, NewValue};
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::Nonce;
use serde_json::{Value, json};

use crate::support::{id, message, on_both, scope};

on_both! {
    async fn of_fifty_commits_for_one_version_exactly_one_wins(store: &Store) {
        let (writers, channel) = ([store.writer(), store.writer()], id());
        store.writer().say(channel, id(), "before").await;
        for version in 0..5 {
            let commit = |number: usize| with(key("epoch", version, &format!("{version} by {number}")));
            let submit = |number: usize| writers[number % 2].submit(scope(channel, id()), commit(number)).unwrap();
            let receipts: Vec<_> = (0..50).map(submit).collect();
            let (mut won, mut lost) = (Vec::new(), Vec::new());
            for (number, receipt) in receipts.into_iter().enumerate() {
                match receipt.await {
                    Ok(sent) => won.push((number, sent.message.seq)),
                    Err(error) => lost.push(details(error)),
                }
            }
            let [(winner, seq)] = won[..] else { panic!("{won:?}") };
            assert_eq!(seq, version + 2, "who loses takes no number");
            let present = json!({"key": {"version": version + 1, "value": format!("{version} by {winner}")}});
            assert!(lost.len() == 49 && lost.iter().all(|details| *details == present), "{lost:?}");
        }
        assert_eq!(store.number("SELECT COUNT(*) FROM channel_key").await, 1);
    }

    async fn of_fifty_answers_to_one_message_exactly_one_is_the_next(store: &Store) {
        let (writers, channel) = ([store.writer(), store.writer()], id());
        let first = store.writer().say(channel, id(), "who is first?").await;
        let answer = || with(Expect::LastSeq(first.seq));
        let submit = |number: usize| writers[number % 2].submit(scope(channel, id()), answer()).unwrap();
        let receipts: Vec<_> = (0..50).map(submit).collect();
        let mut won = 0;
        for receipt in receipts {
            match receipt.await {
                Ok(sent) => won += sent.message.seq,
                Err(error) => assert_eq!(details(error), json!({"last_seq": 2})),
            }
        }
        assert_eq!(won, 2);
    }

    async fn a_retry_gets_its_message_though_the_condition_is_over(store: &Store) {
        let (channel, alice) = (id(), id());
        for expect in [Expect::LastSeq(0), key("turn", 0, "alice")] {
            let send = || NewMessage { nonce: Some(Nonce::new(&format!("{expect:?}")[..4]).unwrap()), ..with(expect.clone()) };
            let (first, duplicate) = store.writer().send(scope(channel, alice), send()).await.unwrap();
            assert!(!duplicate);
            let (again, duplicate) = store.writer().send(scope(channel, alice), send()).await.unwrap();
            assert_eq!((again.id, duplicate), (first.id, true));
        }
        let writer = store.writer();
        let send = || NewMessage { nonce: Some(Nonce::new("together").unwrap()), ..with(key("turn", 1, "bob")) };
        let [first, again] = [(), ()].map(|()| writer.submit(scope(channel, alice), send()).unwrap());
        assert_eq!(first.await.unwrap().message.id, again.await.unwrap().message.id);
    }

    async fn a_channel_has_a_bounded_number_of_keys_and_those_it_has_go_on(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let send = |name: usize| writer.submit(scope(channel, alice), with(key(&format!("k{name}"), 0, ""))).unwrap();
        let receipts: Vec<_> = (0..1_003).map(send).collect();
        let mut refused = 0;
        for receipt in receipts {
            refused += usize::from(receipt.await.is_err_and(|error| error.code().as_str() == "limit_reached"));
        }
        assert_eq!((refused, store.number("SELECT COUNT(*) FROM channel_key").await), (3, KEYS_MAX));
        writer.send(scope(channel, alice), with(key("k7", 1, "x"))).await.unwrap();
        writer.send(scope(id(), alice), with(key("more", 0, ""))).await.unwrap();
    }

    async fn a_key_belongs_to_its_channel_and_starts_at_version_zero(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        let missing = writer.send(scope(channel, alice), with(key("a", 1, "x"))).await.unwrap_err();
        assert_eq!(details(missing), json!({"key": {"version": 0, "value": null}}));
        for (channel, name) in [(channel, "a"), (channel, "b"), (id(), "a")] {
            writer.send(scope(channel, alice), with(key(name, 0, ""))).await.unwrap();
        }
        let taken = writer.send(scope(channel, alice), with(key("a", 0, "y"))).await.unwrap_err();
        assert_eq!((taken.code().as_str(), taken.is_retryable()), ("conflict", false));
        assert_eq!(details(taken), json!({"key": {"version": 1, "value": ""}}));
    }
}

fn with(expect: Expect) -> NewMessage {
    NewMessage { expect: Some(expect), ..message("commit") }
}

fn key(key: &str, version: i64, value: &str) -> Expect {
    Expect::Key(NewValue::new(key.into(), version, value.into()).unwrap())
}

/// What a client is told besides the code.
fn details(error: imks::ImksError) -> Value {
    let imks::ImksError::NotAsExpected(present) = error else { panic!("{error}") };
    match present {
        imks::error::Present::LastSeq(last_seq) => json!({ "last_seq": last_seq }),
        imks::error::Present::Offset(offset) => json!({ "offset": offset }),
        imks::error::Present::Key { version, value } => json!({"key": {"version": version, "value": value}}),
    }
}
