//! Several processes write at once: numbers stay whole, nonces stay single.

use std::collections::{HashMap, HashSet};

use imks::testing::models::append::Config;
use imks::testing::models::message_page::Position;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::text::Nonce;
use imks::testing::telemetry::trace::{self, Sampling, SpanData, SpanKind, Tracer};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::support::{Writer, code, id, message, on_both, scope};

on_both! {
    async fn three_processes_and_the_same_sends_make_one_history(store: &Store) {
        const SENDS: usize = 400;
        let channels: Vec<Uuid> = (0..5).map(|_| id()).collect();
        let author = id();
        let (tasks, mut results) = (TaskTracker::new(), Vec::new());
        for process in 0..3 {
            let writer = Writer::start(store.opened_again().await, Config { batch: 16, ..Config::default() });
            let channels = channels.clone();
            results.push(tasks.spawn(async move {
                // Everybody sends the same, each in another order.
                let sends = (0..SENDS).map(|count| (count * [1, 3, 7][process] + process * 50) % SENDS);
                let send = |number: usize| {
                    let nonce = Some(Nonce::new(&format!("n{number}")).unwrap());
                    let message = NewMessage { nonce, ..message(&format!("body {number}")) };
                    (number, writer.submit(scope(channels[number % 5], author), message).unwrap())
                };
                let mut ids = HashMap::new();
                for (number, receipt) in sends.map(send).collect::<Vec<_>>() {
                    ids.insert(number, receipt.await.unwrap().message.id);
                }
                writer.appender.drain().await;
                ids
            }));
        }
        let mut answers = Vec::new();
        for result in results {
            answers.push(result.await.unwrap());
        }
        assert!(answers.iter().all(|ids| ids == &answers[0]));
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 400);
        for channel in channels {
            assert_whole(store, channel, 80).await;
        }
    }

    async fn one_sender_is_stored_in_the_order_of_his_calls(store: &Store) {
        let writer = store.writer();
        let (channel, alice) = (id(), id());
        let receipts: Vec<_> = (0..1_000)
            .map(|number| writer.submit(scope(channel, alice), message(&number.to_string())).unwrap())
            .collect();
        for (number, receipt) in (1..).zip(receipts) {
            let message = receipt.await.unwrap().message;
            assert_eq!((message.seq, message.body.as_str()), (number, (number - 1).to_string().as_str()));
        }
        let told = writer.told().await;
        assert!(told.iter().map(|(_, payload)| payload["seq"].as_i64().unwrap()).eq(1..=1_000));
    }

    async fn a_full_lane_refuses_at_once_and_says_when_to_come_back(store: &Store) {
        let config = Config { queue: 4, lanes: 1, ..Config::default() };
        let writer = Writer::start(store.db.clone(), config);
        let send = || writer.submit(scope(id(), id()), message("x"));
        let (ended, mut spans) = mpsc::channel(1_024);
        let sampling = Sampling { ratio: 1.0, parent_based: false, trusts_clients: false };
        let request = Tracer::new(sampling, ended).root("test", SpanKind::Internal).unwrap();
        let sending = async { (0..500).map(|_| send()).collect::<Vec<_>>() };
        let results = trace::within(Some(request.context()), sending).await;
        let refused = results.iter().filter(|result| result.is_err()).count();
        assert!(refused > 0, "a queue of four took five hundred");
        for result in results {
            match result {
                Ok(receipt) => drop(receipt.await.unwrap()),
                Err(error) => assert_eq!((error.code().as_str(), error.is_retryable()), ("overloaded", true)),
            }
        }
        drop(request);
        let outcome = |span: &SpanData| format!("{:?}", span.attributes.iter().find(|it| it.key == "imks.outcome"));
        let outcomes: Vec<String> = std::iter::from_fn(|| spans.try_recv().ok())
            .filter(|span| span.name == "append")
            .map(|span| outcome(&span))
            .collect();
        let ended = |code: &str| outcomes.iter().filter(|outcome| outcome.contains(code)).count();
        assert_eq!((ended("\"overloaded\""), ended("\"ok\"")), (refused, 500 - refused));
    }

    async fn draining_keeps_every_accepted_write_and_takes_no_more(store: &Store) {
        let writer = store.writer();
        let send = || writer.submit(scope(id(), id()), message("x"));
        let receipts: Vec<_> = (0..300).map(|_| send().unwrap()).collect();
        writer.appender.drain().await;
        assert_eq!(store.number("SELECT COUNT(*) FROM message").await, 300);
        for receipt in receipts {
            receipt.await.unwrap();
        }
        assert_eq!(code(send()), "unavailable");
    }
}

/// `seq` from 1 to `count` without a hole, and ids in the same order.
async fn assert_whole(store: &crate::support::Store, channel: Uuid, count: i64) {
    let messages = store.page(channel, Position::Latest, 100).await.messages;
    assert!(messages.iter().map(|message| message.seq).eq(1..=count));
    assert!(messages.is_sorted_by(|a, b| a.id < b.id && a.created_at <= b.created_at));
    assert_eq!(messages.iter().map(|message| &message.body).collect::<HashSet<_>>().len() as i64, count);
}
