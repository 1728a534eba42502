//! Streamed messages in the database: what was acked is there whatever happens, on every node.

use futures_util::future::join_all;
use imks::testing::clock;
use imks::testing::models::append::{Authority, Config, Scope};
use imks::testing::models::message::{MessageDetail, MessageType};
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_reaction::AddReaction;
use imks::testing::models::message_search::{self, Page, Query};
use imks::testing::models::message_search_index;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::message_stream::{AppendText, EndStream, StreamedMessage, silent};
use imks::testing::models::message_stream_state::{STREAM_LEASE, Stream, StreamState};
use imks::testing::models::message_sync::{Cursor, Limits, sync};
use imks::testing::models::text::MessageBody;
use imks::{ImksError, ImksResult};
use serde_json::{from_value, json};
use uuid::Uuid;

use crate::support::{Store, Writer, author_of, code, edit, id, message, on_both, scope};

async fn start(writer: &Writer, body: &str) -> std::sync::Arc<MessageDetail> {
    let send = NewMessage { stream: true, body: MessageBody::beginning(body).unwrap(), ..message("-") };
    writer.send(scope(id(), id()), send).await.unwrap().0
}

fn target(message: &MessageDetail) -> StreamedMessage {
    StreamedMessage { id: message.id, only_in_threads: false, kind: None }
}

fn piece(message: &MessageDetail, offset: usize, text: &str) -> AppendText {
    AppendText { target: target(message), offset, text: from_value(json!(text)).unwrap() }
}

async fn add(writer: &Writer, message: &MessageDetail, offset: usize, text: &str) -> ImksResult<Stream> {
    writer.submit(author_of(message), piece(message, offset, text))?.await
}

fn end(message: &MessageDetail, state: StreamState, if_over: bool) -> EndStream {
    EndStream { target: target(message), state, offset: None, if_over }
}

fn server(message: &MessageDetail) -> Scope {
    Scope { authority: Authority::Any, ..author_of(message) }
}

async fn text_of(store: &Store, message: &MessageDetail) -> String {
    store.seen(id(), message.channel_id, message.id).await.body
}

const IN_ROW: &str = "SELECT CAST(LENGTH(body) AS BIGINT) FROM message";
const LIVE: &str = "SELECT COUNT(*) FROM message_stream";

on_both! {
    async fn an_acked_piece_is_read_on_every_node_before_its_row_has_it(store: &Store) {
        let (here, there) = (store.writer(), store.writer());
        let message = start(&here, "one").await;
        assert_eq!(add(&here, &message, 3, " two").await.unwrap().offset, 7);
        assert_eq!(store.number(IN_ROW).await, 3, "the row is written later");
        assert_eq!(text_of(store, &message).await, "one two");
        assert_eq!(add(&there, &message, 7, " three").await.unwrap().offset, 13);
        let wrong = add(&here, &message, 7, " four").await;
        assert!(matches!(wrong, Err(ImksError::NotAsExpected(_))), "{wrong:?}");
        let done = there.submit(author_of(&message), end(&message, StreamState::Finished, false)).unwrap().await.unwrap();
        assert_eq!((done.body.as_str(), done.rev, done.version), ("one two three", 1, 1));
        assert_eq!((store.number(IN_ROW).await, store.number(LIVE).await), (13, 0));
        assert_eq!(store.number("SELECT COUNT(*) FROM channel_change").await, 1, "one change, however many pieces");
        let told: Vec<_> = here.told().await.into_iter().map(|(event, _)| event).collect();
        assert_eq!(told, ["message:new", "message:append"]);
    }

    async fn after_a_crash_the_author_goes_on_where_the_acks_ended(store: &Store) {
        let writer = store.writer();
        let message = start(&writer, "").await;
        add(&writer, &message, 0, "before").await.unwrap();
        drop(writer);
        let again = Writer::start(store.opened_again().await, Config::default());
        let seen = store.seen(id(), message.channel_id, message.id).await;
        assert_eq!(seen.stream, Some(Stream { state: StreamState::Active, offset: 6 }));
        assert_eq!(add(&again, &message, 0, "before").await.unwrap().offset, 6, "an ack that was lost");
        add(&again, &message, 6, " and after").await.unwrap();
        assert_eq!(text_of(store, &message).await, "before and after");
    }

    async fn the_row_gets_the_text_after_four_kibibytes_without_a_change_of_the_channel(store: &Store) {
        let writer = store.writer();
        let message = start(&writer, "").await;
        for number in 0..5 {
            add(&writer, &message, number * 1_000, &"x".repeat(1_000)).await.unwrap();
        }
        assert_eq!(store.number(IN_ROW).await, 5_000);
        add(&writer, &message, 5_000, "end").await.unwrap();
        assert_eq!((store.number(IN_ROW).await, text_of(store, &message).await.len()), (5_000, 5_003));
        assert_eq!(store.number("SELECT last_rev FROM channel_state").await, 0);
    }

    async fn what_follows_a_piece_that_fills_the_tail_in_one_transaction_is_there_once(store: &Store) {
        let writer = Writer::start(store.db.clone(), Config { linger: std::time::Duration::from_millis(50), ..Config::default() });
        let message = start(&writer, "").await;
        let full = "x".repeat(4_096);
        let pieces = [(0, full.as_str()), (4_096, "end"), (4_099, "!")]
            .map(|(offset, text)| writer.submit(author_of(&message), piece(&message, offset, text)).unwrap());
        assert!(join_all(pieces).await.iter().all(Result::is_ok));
        assert_eq!(text_of(store, &message).await, format!("{full}end!"));
        assert_eq!(add(&writer, &message, 4_100, "?").await.unwrap().offset, 4_101);
        assert_eq!(text_of(store, &message).await, format!("{full}end!?"));
    }

    async fn pieces_and_other_changes_of_one_transaction_see_each_other(store: &Store) {
        let writer = Writer::start(store.db.clone(), Config { linger: std::time::Duration::from_millis(50), ..Config::default() });
        let message = start(&writer, "a").await;
        let (mut pieces, mut author) = (Vec::new(), author_of(&message));
        author.slow_mode = std::time::Duration::ZERO;
        for number in 1..10 {
            pieces.push(writer.submit(author.clone(), piece(&message, number, "b")).unwrap());
        }
        let emoji = imks::testing::models::emoji::Emoji::new("👍").unwrap();
        let reacted = writer.submit(author.clone(), AddReaction { message_id: message.id, emoji }).unwrap();
        let last = writer.submit(author.clone(), piece(&message, 10, "c")).unwrap();
        let edited = writer.submit(author.clone(), edit(&message, "whole")).unwrap();
        let late = writer.submit(author, piece(&message, 5, "!")).unwrap();
        assert!(join_all(pieces).await.into_iter().enumerate().all(|(number, stream)| stream.unwrap().offset == number + 2));
        reacted.await.unwrap();
        assert_eq!(last.await.unwrap().offset, 11);
        let edited = edited.await.unwrap();
        assert_eq!((edited.body.as_str(), edited.version), ("whole", 2));
        assert_eq!(code(late.await), "stream_ended");
        assert_eq!(text_of(store, &message).await, "whole");
        assert_eq!(store.number("SELECT CAST(LENGTH(body) AS BIGINT) FROM message_edit").await, 11, "the text that the edit replaced");
        assert_eq!(store.number(LIVE).await, 0);
    }

    async fn a_silent_author_is_interrupted_once_and_whoever_is_there_is_not(store: &Store) {
        let (here, there) = (store.writer(), store.writer());
        let (gone, here_still) = (start(&here, "so").await, start(&here, "still").await);
        add(&here, &gone, 2, " long").await.unwrap();
        let interrupted = end(&gone, StreamState::Interrupted, true);
        let early = here.submit(server(&gone), interrupted).unwrap().await.unwrap();
        assert!(early.stream.is_some_and(Stream::is_active), "the lease is not over");
        assert!(silent(&store.db, clock::now_micros()).await.unwrap().is_empty());
        let due = silent(&store.db, clock::now_micros() + STREAM_LEASE).await.unwrap();
        assert_eq!(due.len(), 2);
        assert!(due.iter().any(|stream| (stream.message_id, stream.author_id) == (gone.id, gone.author.id)));
        store.execute(&format!("UPDATE message_stream SET expires_at = 0 WHERE message_id <> {}", literal(store, here_still.id))).await;
        assert_eq!(silent(&store.db, clock::now_micros()).await.unwrap().len(), 1);
        let ends = [&here, &there].map(|node| node.submit(server(&gone), interrupted).unwrap());
        let ended: Vec<_> = join_all(ends).await.into_iter().map(Result::unwrap).collect();
        assert!(ended.iter().all(|ended| ended.rev == 1 && ended.body == "so long"));
        assert_eq!(ended[0].stream, Some(Stream { state: StreamState::Interrupted, offset: 7 }));
        assert_eq!(code(add(&here, &gone, 7, "!").await), "stream_ended");
        assert_eq!(store.number(LIVE).await, 1);
    }

    async fn what_is_being_streamed_takes_no_room_from_what_has_changed(store: &Store) {
        let writer = store.writer();
        let streamed = start(&writer, &"x".repeat(4_000)).await;
        let changed = writer.say(id(), id(), "before").await;
        writer.edit(author_of(&changed), edit(&changed, "after")).await.unwrap();
        let cursors = [&streamed, &changed].map(|it| Cursor { channel_id: it.channel_id, seq: 1, rev: 0 });
        for (bytes, streams) in [(1, 0), (500, 0), (3_000, 1)] {
            let limits = Limits { per_channel: 200, total: 2_000, bytes };
            let (answers, more) = sync(&store.db, id(), &cursors, limits).await.unwrap();
            let changes: Vec<usize> = answers.iter().map(|answer| answer.changes.len()).collect();
            assert_eq!((changes, more), (vec![streams, 1], false), "{bytes}");
        }
    }

    async fn search_finds_the_whole_text_once_the_stream_has_ended(store: &Store) {
        let writer = store.writer();
        let message = start(&writer, "apples").await;
        index(store, message.channel_id).await;
        add(&writer, &message, 6, " and pears").await.unwrap();
        writer.submit(author_of(&message), end(&message, StreamState::Finished, false)).unwrap().await.unwrap();
        index(store, message.channel_id).await;
        let page = Page { cursor: None, limit: 10, bytes: 1 << 20 };
        let query = Query::new("pears").unwrap();
        let found = message_search::find(&store.db, id(), &[message.channel_id], &query, page, clock::now_micros()).await.unwrap();
        assert_eq!(found.messages.into_iter().map(|message| message.id).collect::<Vec<_>>(), [message.id]);
    }

    async fn a_deleted_stream_leaves_nothing_to_end(store: &Store) {
        let writer = store.writer();
        let message = start(&writer, "one").await;
        add(&writer, &message, 3, " two").await.unwrap();
        writer.submit(author_of(&message), DeleteMessage { message_id: message.id }).unwrap().await.unwrap();
        assert_eq!((store.number(LIVE).await, store.number("SELECT CAST(stream AS BIGINT) FROM message").await), (0, 2));
        assert_eq!(code(add(&writer, &message, 7, "!").await), "message_deleted");
    }

    async fn a_stream_whose_message_a_version_without_streams_deleted_is_not_ended_again_and_again(store: &Store) {
        let writer = store.writer();
        let (gone, there) = (start(&writer, "gone").await, start(&writer, "there").await);
        store.execute(&format!("UPDATE message SET deleted_at = 1 WHERE id = {}", literal(store, gone.id))).await;
        let due = silent(&store.db, clock::now_micros() + STREAM_LEASE).await.unwrap();
        assert_eq!(due.iter().map(|stream| stream.message_id).collect::<Vec<_>>(), [there.id]);
    }

    async fn only_a_message_of_the_asked_type_takes_more(store: &Store) {
        let writer = store.writer();
        let message = start(&writer, "mine").await;
        let of_bot = StreamedMessage { kind: Some(MessageType::Bot), ..target(&message) };
        let of_person = StreamedMessage { kind: Some(MessageType::Default), ..target(&message) };
        let add = |target| writer.submit(author_of(&message), AppendText { target, ..piece(&message, 4, "!") }).unwrap();
        assert_eq!(code(add(of_bot).await), "forbidden");
        assert_eq!(add(of_person).await.unwrap().offset, 5);
    }
}

async fn index(store: &Store, channel: Uuid) {
    let mut behind = vec![channel];
    while !behind.is_empty() {
        behind = message_search_index::follow(&store.db, behind).await.unwrap();
    }
}

/// An id in SQL.
fn literal(store: &Store, id: Uuid) -> String {
    match &store.db {
        imks::testing::models::Db::Postgres(_) => format!("'{id}'"),
        imks::testing::models::Db::Sqlite(_) => format!("x'{}'", id.simple()),
    }
}
