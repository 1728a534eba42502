//! Threads: what the first message says of its replies, and who follows.

use futures_util::future::join_all;
use imks::testing::models::append::{Authority, Scope};
use imks::testing::models::message_delete::DeleteMessages;
use imks::testing::models::message_draft::SendDraft;
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::message_thread_member::{follow, followed, mark};
use imks::testing::models::text::Mentions;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Writer, id, message, on_both, scope};

async fn reply(writer: &Writer, channel: Uuid, author: Uuid, root: Uuid) -> Uuid {
    let send = NewMessage { thread_id: Some(root), ..message("reply") };
    writer.send(scope(channel, author), send).await.unwrap().0.id
}

on_both! {
    async fn the_count_of_replies_equals_a_recount_after_replies_and_deletions_at_once(store: &Store) {
        let (writer, other, channel, alice) = (store.writer(), store.writer(), id(), id());
        let root = writer.say(channel, alice, "root").await.id;
        let replies = (0..20).map(|number| {
            let node = if number % 2 == 0 { &writer } else { &other };
            async move { reply(node, channel, id(), root).await }
        });
        let replies = join_all(replies).await;
        let moderator = || Scope { authority: Authority::Any, ..scope(channel, alice) };
        let deletions = replies[..12].chunks(4).map(|some| {
            let all = DeleteMessages { message_ids: some.iter().copied().chain([id()]).collect() };
            writer.submit(moderator(), all).unwrap()
        });
        for deleted in join_all(deletions).await {
            let deleted = deleted.unwrap();
            assert_eq!((deleted.deleted.len(), deleted.skipped.len()), (4, 1));
        }
        let again = DeleteMessages { message_ids: replies[..4].to_vec() };
        assert!(writer.submit(moderator(), again).unwrap().await.unwrap().deleted.is_empty());
        let thread = json!(store.seen(alice, channel, root).await.thread);
        assert_eq!((&thread["reply_count"], &thread["last_reply_seq"]), (&json!(8), &json!(21)));
        assert_eq!(store.number("SELECT message_count FROM channel_state").await, 9);
        let told = writer.told().await;
        let deleted: Vec<_> = told.iter().filter(|(name, _)| *name == "message:deleted").map(|(_, it)| &it["id"]).collect();
        assert_eq!(deleted, replies[..12].iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    }

    async fn who_takes_part_follows_and_an_unfollow_lasts_until_one_replies_or_is_mentioned(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let root = writer.say(channel, alice, "root").await.id;
        reply(&writer, channel, bob, root).await;
        let threads = |user| followed(&store.db, user, i64::MAX, 10, false);
        let mine = threads(alice).await.unwrap();
        assert_eq!((mine.len(), mine[0].unread_count, mine[0].read_seq, mine[0].user_rev), (1, 1, 1, 1));
        assert_eq!(threads(bob).await.unwrap()[0].unread_count, 0);
        let (state, changed) = follow(&store.db, alice, channel, root, false).await.unwrap();
        assert!(changed && !state.following);
        assert!(!follow(&store.db, alice, channel, root, false).await.unwrap().1, "again changes nothing");
        reply(&writer, channel, bob, root).await;
        assert_eq!(threads(alice).await.unwrap(), []);
        let mentions = Mentions { users: vec![alice], ..Mentions::default() };
        let send = NewMessage { thread_id: Some(root), mentions, ..message("you") };
        writer.send(scope(channel, bob), send).await.unwrap();
        let mine = threads(alice).await.unwrap();
        assert_eq!((mine[0].following, mine[0].unread_count, mine[0].mention_count), (true, 3, 1));
        let (read, _) = mark(&store.db, alice, channel, root, 3).await.unwrap();
        assert_eq!((read.read_seq, read.unread_count), (3, 1));
        assert!(!mark(&store.db, alice, channel, root, 2).await.unwrap().1, "never moves back");
        assert_eq!(mark(&store.db, alice, channel, root, 99).await.unwrap().0.unread_count, 0);
        assert_eq!(followed(&store.db, alice, i64::MAX, 10, true).await.unwrap(), []);
        assert_eq!(follow(&store.db, alice, channel, id(), true).await.unwrap_err().code(), "not_found");
    }

    async fn replies_of_many_to_many_threads_at_once_never_deadlock(store: &Store) {
        let (writer, other) = (store.writer(), store.writer());
        let users: Vec<Uuid> = (0..6).map(|_| id()).collect();
        let mut roots = Vec::new();
        for _ in 0..6 {
            let channel = id();
            roots.push((channel, writer.say(channel, users[0], "root").await.id));
        }
        let steps = (0..4).flat_map(|round| (0..6).flat_map(move |user| (0..6).map(move |root| (round, user, root))));
        let work = steps.map(|(round, user, root)| {
            let node = if (round + user + root) % 2 == 0 { &writer } else { &other };
            let ((channel, root), user) = (roots[root], users[user]);
            let mentions = Mentions { users: users.clone(), ..Mentions::default() };
            let send = NewMessage { thread_id: Some(root), mentions, ..message("reply") };
            async move { node.submit(scope(channel, user), SendDraft(send)).unwrap().await }
        });
        let outcomes = join_all(work).await;
        assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes.iter().find(|it| it.is_err()));
        for user in users {
            assert_eq!(followed(&store.db, user, i64::MAX, 10, false).await.unwrap().len(), 6);
        }
    }
}
