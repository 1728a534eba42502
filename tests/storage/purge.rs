//! Purges: what is deleted for good is nowhere any more, and everything that counts messages is right afterwards.

use futures_util::future::join_all;
use imks::testing::models::append::{Appender, Authority, Scope};
use imks::testing::models::emoji::Emoji;
use imks::testing::models::message::AuthorInfo;
use imks::testing::models::message_delete::DeleteMessage;
use imks::testing::models::message_draft::{NewDraft, set};
use imks::testing::models::message_forward::copy_of;
use imks::testing::models::message_page::Position;
use imks::testing::models::message_reaction::AddReaction;
use imks::testing::models::message_read_state::{baseline, unread};
use imks::testing::models::message_send::NewMessage;
use imks::testing::models::purge::{Purge, PurgeKind};
use uuid::Uuid;

use crate::retention::everything;
use crate::support::{Store, Writer, code, edit, id, message, on_both, places_of, places_of_ids, scope};

/// Takes all steps, each as a node that has just started.
async fn finish(store: &Store, appender: &Appender, ordered: &Purge) -> Purge {
    let mut purge = ordered.clone();
    while !purge.is_finished() {
        purge = purge.renewed(&store.opened_again().await).await.unwrap();
        purge.step(&store.db, appender).await.unwrap();
    }
    purge
}

async fn react(writer: &Writer, channel: Uuid, user: Uuid, message_id: Uuid) {
    let add = AddReaction { message_id, emoji: Emoji::new("👍").unwrap() };
    writer.submit(scope(channel, user), add).unwrap().await.unwrap();
}

async fn unread_count(store: &Store, reader: Uuid, channel: Uuid) -> i64 {
    unread(&store.db, reader, &[channel]).await.unwrap()[0].unread_count
}

on_both! {
    async fn of_a_purged_channel_only_the_numbers_are_left(store: &Store) {
        let (writer, channel, alice, reader) = (store.writer(), id(), id(), id());
        let first = writer.say(channel, alice, "marmalade").await;
        baseline(&store.db, reader, &[(channel, None)]).await.unwrap();
        writer.edit(scope(channel, alice), edit(&first, "marmalade again")).await.unwrap();
        react(&writer, channel, reader, first.id).await;
        join_all((0..1_100).map(|n| writer.send(scope(channel, alice), message(&format!("marmalade {n}"))))).await;
        assert_eq!(unread_count(store, reader, channel).await, 1_100);
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), 0, ("ops", "asked for")).await.unwrap();
        assert_eq!(Purge::next(&store.db, Uuid::nil()).await.unwrap().as_ref(), Some(&ordered));
        let done = finish(store, &writer.appender, &ordered).await;
        assert_eq!((done.purged, Purge::next(&store.db, Uuid::nil()).await.unwrap()), (1_101, None));
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(unread_count(store, reader, channel).await, 0);
        assert_eq!(store.number("SELECT message_count FROM channel_state").await, 0);
        let next = writer.say(channel, alice, "after").await;
        assert_eq!((next.seq, unread_count(store, reader, channel).await), (1_102, 1));
        let told = writer.told().await;
        assert_eq!(told.iter().filter(|(event, _)| *event == "message:deleted").count(), 1_101);
    }

    async fn only_what_is_older_goes_where_a_time_is_given(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        writer.say(channel, alice, "marmalade").await;
        let kept = writer.say(channel, alice, "kept").await;
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), kept.created_at.0, ("ops", "asked for")).await.unwrap();
        assert_eq!(finish(store, &writer.appender, &ordered).await.purged, 1);
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(store.page(channel, Position::Latest, 10).await.messages.last().unwrap().body.as_str(), "kept");
    }

    async fn a_repeated_request_deletes_nothing_that_was_written_since(store: &Store) {
        let (writer, channel, alice, request) = (store.writer(), id(), id(), id());
        writer.say(channel, alice, "marmalade").await;
        let what = (PurgeKind::Channel, channel);
        let ordered = Purge::order(&store.db, request, what, 0, ("ops", "asked for")).await.unwrap();
        let done = finish(store, &writer.appender, &ordered).await;
        writer.say(channel, alice, "after").await;
        let again = Purge::order(&store.db, request, what, 0, ("ops", "asked for")).await.unwrap();
        assert_eq!((again.id(), again.purged, again.is_finished()), (done.id(), 1, true));
        let other = Purge::order(&store.db, request, (PurgeKind::User, alice), 0, ("ops", "asked for")).await.unwrap_err();
        assert_eq!(other.code().as_str(), "nonce_conflict");
        assert_eq!(Purge::next(&store.db, Uuid::nil()).await.unwrap(), None);
    }

    async fn of_an_erased_user_nothing_is_left_and_of_others_everything(store: &Store) {
        let (writer, one, two, alice, bob) = (store.writer(), id(), id(), id(), id());
        let name = AuthorInfo { id: alice, username: "marmalade".into() };
        let by_alice = |channel| Scope { actor: name.clone(), ..scope(channel, alice) };
        for channel in [one, two] {
            writer.send(by_alice(channel), message("marmalade")).await.unwrap();
        }
        let bobs = writer.say(one, bob, "bread").await;
        baseline(&store.db, bob, &[(one, None)]).await.unwrap();
        writer.send(by_alice(one), message("marmalade and butter")).await.unwrap();
        react(&writer, one, alice, bobs.id).await;
        react(&writer, one, bob, bobs.id).await;
        let draft = NewDraft {
            channel_id: one,
            thread_id: None,
            body: serde_json::from_value("marmalade".into()).unwrap(),
            reply_to_message_id: None,
            base_version: None,
        };
        set(&store.db, alice, draft).await.unwrap();
        let ordered = Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, ("ops", "asked for")).await.unwrap();
        assert_eq!(Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, ("ops", "asked for")).await.unwrap(), ordered, "the same order");
        let other = Purge::order(&store.db, id(), (PurgeKind::Name, alice), 0, ("ops", "asked for")).await.unwrap_err();
        assert_eq!((other.code().as_str(), other.is_retryable()), ("overloaded", true));
        let done = finish(store, &writer.appender, &ordered).await;
        assert_eq!(done.purged, 3);
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(unread_count(store, bob, one).await, 0);
        let seen = store.seen(bob, one, bobs.id).await;
        let reactions = serde_json::json!(seen.reactions);
        assert_eq!((seen.body.as_str(), &reactions["👍"]["count"]), ("bread", &1.into()));
        assert_eq!(store.number("SELECT COUNT(*) FROM message_draft").await, 0);
        assert_eq!(store.number("SELECT COUNT(*) FROM message_reaction").await, 1, "that of bob");
        let again = Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, ("ops", "asked for")).await.unwrap();
        assert!(again != done && finish(store, &writer.appender, &again).await.purged == 0, "an order of its own");
    }

    async fn what_only_programs_wrote_for_a_user_goes_as_well(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let root = writer.say(channel, bob, "bread").await;
        let by_program = NewMessage { thread_id: Some(root.id), interactive: false, ..message("marmalade") };
        writer.send(scope(channel, alice), by_program).await.unwrap();
        let ordered = Purge::order(&store.db, id(), (PurgeKind::User, alice), 0, ("ops", "asked for")).await.unwrap();
        assert_eq!(finish(store, &writer.appender, &ordered).await.purged, 1);
        assert_eq!(places_of(store, "marmalade").await, [""; 0]);
        assert_eq!(store.seen(bob, channel, root.id).await.body.as_str(), "bread");
    }

    async fn messages_of_a_user_without_a_name_stay_as_they_are(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let name = AuthorInfo { id: alice, username: "marmalade".into() };
        let by_alice = Scope { actor: name, ..scope(channel, alice) };
        let sent = writer.send(by_alice, message("bread")).await.unwrap().0;
        baseline(&store.db, bob, &[(channel, None)]).await.unwrap();
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Name, alice), 0, ("ops", "asked for")).await.unwrap();
        assert_eq!(finish(store, &writer.appender, &ordered).await.purged, 1);
        let seen = store.seen(bob, channel, sent.id).await;
        assert_eq!((seen.body.as_str(), &*seen.author.username), ("bread", "deleted user"));
        assert!(seen.author.id != alice && places_of(store, "marmalade").await.is_empty());
    }

    async fn a_user_who_is_taken_out_is_named_nowhere_and_every_change_is_told(store: &Store) {
        for kind in [PurgeKind::User, PurgeKind::Name] {
            let (writer, channel, elsewhere, alice, bob, carol) = (store.writer(), id(), id(), id(), id(), id());
            let root = everything(store, &writer, channel, alice, bob).await[0];
            let said = writer.say(channel, bob, "honey").await;
            writer.edit(scope(channel, bob), edit(&said, "more honey")).await.unwrap();
            let copy = copy_of(store.seen(carol, channel, said.id).await);
            let forward = NewMessage { forward_of: Some(copy), forwards: Some(said.id), ..message("look") };
            let forwarded = writer.send(scope(elsewhere, carol), forward).await.unwrap().0;
            let carols = writer.say(channel, carol, "carol's").await;
            let moderator = Scope { authority: Authority::Any, ..scope(channel, bob) };
            let delete = DeleteMessage { message_id: carols.id };
            writer.submit(moderator, delete).unwrap().await.unwrap();
            baseline(&store.db, bob, &[(channel, None)]).await.unwrap();

            let ordered = Purge::order(&store.db, id(), (kind, bob), 0, ("ops", "request 12")).await.unwrap();
            finish(store, &writer.appender, &ordered).await;
            let left = ["channel_change.actor_id", "purge.target_id"];
            let places = places_of_ids(store, &[bob]).await;
            assert!(places.iter().all(|place| left.contains(&place.as_str())), "{kind:?}: {places:?}");
            assert_eq!(places_of(store, &bob.to_string()).await, [""; 0], "{kind:?}");

            let root = store.seen(alice, channel, root).await;
            assert_eq!((root.body.as_str(), root.mentions.users.len()), ("marmalade again", 1), "others' words stay");
            let thread = serde_json::json!(root.thread);
            let replies = if kind == PurgeKind::User { 0 } else { 1 };
            assert_eq!(thread["reply_count"], replies);
            let copy = store.seen(alice, elsewhere, forwarded.id).await.forward_of.unwrap();
            assert_eq!(&*copy.author.username, "deleted user");
            assert_eq!(copy.body.as_str(), if kind == PurgeKind::User { "" } else { "more honey" });
            let told = writer.told().await;
            let mut revs: Vec<i64> = told.iter().filter(|(_, it)| it["channel_id"] == channel.to_string())
                .filter_map(|(_, it)| it["rev"].as_i64()).collect();
            revs.sort_unstable();
            assert_eq!(revs, (1..=revs.len() as i64).collect::<Vec<_>>(), "no change without an event");
            assert!(told.iter().any(|(event, it)| *event == "message:updated" && it["kind"] == "author"));
        }
    }

    async fn a_copy_goes_with_a_purged_message_also_when_its_author_has_no_name_any_more(store: &Store) {
        let (writer, channel, elsewhere, alice, bob) = (store.writer(), id(), id(), id(), id());
        let said = writer.say(channel, bob, "honey").await;
        let copy = copy_of((*said).clone());
        let forward = NewMessage { forward_of: Some(copy), forwards: Some(said.id), ..message("look") };
        let forwarded = writer.send(scope(elsewhere, alice), forward).await.unwrap().0;
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Name, bob), 0, ("ops", "asked for")).await.unwrap();
        finish(store, &writer.appender, &ordered).await;
        assert_eq!(store.seen(alice, elsewhere, forwarded.id).await.forward_of.unwrap().body.as_str(), "honey");
        let ordered = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), 0, ("ops", "asked for")).await.unwrap();
        finish(store, &writer.appender, &ordered).await;
        assert_eq!(places_of(store, "honey").await, [""; 0]);
        let seen = store.seen(alice, elsewhere, forwarded.id).await;
        assert_eq!(seen.body.as_str(), "look", "what was said about it is another's");
        let copy = seen.forward_of.unwrap();
        assert_eq!((copy.id, copy.body.as_str(), &*copy.author.username), (said.id, "", "deleted user"));
    }

    async fn purges_are_listed_with_who_wanted_them_and_why(store: &Store) {
        let (writer, channel, alice) = (store.writer(), id(), id());
        writer.say(channel, alice, "marmalade").await;
        let first = Purge::order(&store.db, id(), (PurgeKind::Channel, channel), 0, ("ops", "request 1")).await.unwrap();
        let first = finish(store, &writer.appender, &first).await;
        let second = Purge::order(&store.db, id(), (PurgeKind::Name, alice), 0, ("others", "")).await.unwrap();
        let list = async |before| Purge::list(&store.db, before, 10).await.unwrap();
        assert_eq!(list(None).await, [second.clone(), first.clone()]);
        assert_eq!(list(Some(second.id())).await, std::slice::from_ref(&first));
        assert_eq!((first.what(), first.reason.as_str(), first.requested_by.as_str(), first.purged),
            ((PurgeKind::Channel, channel), "request 1", "ops", 1));
        assert!(first.finished_at.is_some_and(|at| at >= first.requested_at) && second.finished_at.is_none());
        let long = "x".repeat(501);
        let refused = Purge::order(&store.db, id(), (PurgeKind::Name, id()), 0, ("ops", &long)).await;
        assert_eq!(code(refused), "invalid_input");
    }

    async fn an_upgrade_knows_whose_messages_were_forwarded(store: &Store) {
        let (writer, channel, alice, bob) = (store.writer(), id(), id(), id());
        let said = writer.say(channel, bob, "honey").await;
        let copy = copy_of((*said).clone());
        let forward = NewMessage { forward_of: Some(copy), forwards: Some(said.id), ..message("look") };
        writer.send(scope(channel, alice), forward).await.unwrap();
        store.execute(BEFORE_ERASURE).await;
        store.db.migrate().await.unwrap();
        assert!(places_of_ids(store, &[bob]).await.contains(&"message_forward.author_id".to_owned()));
    }
}

const BEFORE_ERASURE: &str = "DROP TABLE message_gone; DROP TABLE message_forward; ALTER TABLE purge DROP COLUMN reason; \
    DELETE FROM _sqlx_migrations WHERE version IN (97, 98)";
