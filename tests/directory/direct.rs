//! Direct conversations.

use std::collections::BTreeSet;

use imks::testing::auth::Permission;
use uuid::Uuid;

use super::{on_each, world};

#[tokio::test]
async fn two_people_have_one_conversation_however_many_ask_for_it_at_once() {
    on_each(|db| async {
        let world = world(db).await;
        for name in ["alice", "bob", "carol"] {
            world.directory.create_user(name, false).await.unwrap();
        }
        let (ab, ba) = (["alice", "bob"].map(str::to_owned), ["bob", "alice"].map(str::to_owned));
        let asked = (0..20).map(|round| {
            let handle = if round % 3 == 0 { &world.directory } else { &world.command_line };
            handle.direct(if round % 2 == 0 { &ab } else { &ba })
        });
        let made = futures_util::future::join_all(asked).await;
        let ids: BTreeSet<Uuid> = made.into_iter().map(|channel| channel.unwrap().id).collect();
        assert_eq!(ids.len(), 1);
        let id = ids.into_iter().next().unwrap();
        let alice = world.directory.user("alice").await.unwrap().unwrap().id;
        let channels = world.core.list_user_channels(alice).await.unwrap();
        assert_eq!((channels.len(), channels[0].channel_id), (1, id));
        assert_eq!(world.code(alice, id, Permission::SendMessages).await, "ok");
        let carol = world.directory.user("carol").await.unwrap().unwrap().id;
        assert_eq!(world.code(carol, id, Permission::ViewChannel).await, "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_conversation_of_more_is_another_one_and_its_people_are_fixed() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        for name in ["alice", "bob", "carol"] {
            directory.create_user(name, false).await.unwrap();
        }
        let people = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let two = directory.direct(&people(&["alice", "bob"])).await.unwrap();
        let three = directory.direct(&people(&["carol", "alice", "bob"])).await.unwrap();
        assert_ne!(two.id, three.id);
        assert_eq!((three.name.as_str(), three.is_direct()), ("alice, bob, carol", true));
        let id = two.id.to_string();
        for outcome in [
            directory.set_member(&id, "carol", &[]).await.map(drop),
            directory.remove_member(&id, "alice").await,
            directory.ban(&id, "alice", "", None).await,
        ] {
            assert_eq!(outcome.unwrap_err().code(), "failed_precondition");
        }
        for alone in [&["alice"][..], &["alice", "alice"], &[]] {
            assert_eq!(directory.direct(&people(alone)).await.unwrap_err().code(), "invalid_input");
        }
        assert_eq!(directory.direct(&people(&["alice", "nobody"])).await.unwrap_err().code(), "not_found");
    })
    .await;
}
