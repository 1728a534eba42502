//! The visitors of the first page, whom anybody may be.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use imks::error::Code;
use imks::testing::auth::Permission;
use imks::testing::directory::{Directory, NewChannel, RoleName};
use uuid::Uuid;

use super::{on_each, world};

const PAGE: &str = "playground/first-page";

/// The code of a refusal, and its sentence for people.
async fn refused(directory: &Directory, name: &str) -> (Code, String) {
    let error = directory.ensure_visitor(name).await.expect_err(name);
    assert!(!error.is_retryable(), "{error}");
    (error.code(), error.client_message())
}

#[tokio::test]
async fn a_visitor_is_one_user_in_one_channel_however_many_ask_at_once() {
    on_each(|db| async {
        let world = world(db).await;
        let asked = (0..20).map(|round| {
            let handle = if round % 3 == 0 { &world.directory } else { &world.command_line };
            handle.ensure_visitor(if round % 2 == 0 { "ada" } else { "ben" })
        });
        let ids: BTreeSet<Uuid> =
            join_all(asked).await.into_iter().map(|visitor| visitor.unwrap().id).collect();
        assert_eq!(ids.len(), 2);
        assert_eq!(world.directory.members(PAGE).await.unwrap().len(), 2);
        assert!(world.directory.workspace_members("playground").await.unwrap().is_empty());
        let channel = world.directory.channel_by_name(PAGE).await.unwrap().id;
        for visitor in ids {
            let channels = world.core.list_user_channels(visitor).await.unwrap();
            assert_eq!((channels.len(), channels[0].channel_id), (1, channel));
            assert_eq!(world.code(visitor, channel, Permission::SendMessages).await, "ok");
            assert_eq!(world.code(visitor, channel, Permission::ManageMessages).await, "forbidden");
        }
    })
    .await;
}

#[tokio::test]
async fn visitors_are_members_of_nothing_else_and_nobody_else_is_a_member_of_the_playground() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        for name in ["ada", "ben"] {
            directory.ensure_visitor(name).await.unwrap();
        }
        directory.ensure_development("alice").await.unwrap();
        directory.create_workspace("acme").await.unwrap();
        for name in ["acme/open", "playground/more"] {
            directory
                .create_channel(NewChannel { name: name.into(), ..NewChannel::default() })
                .await
                .unwrap();
        }
        let both = |names: [&str; 2]| names.map(str::to_owned);
        let attempts = [
            directory.ensure_development("ada").await.map(drop),
            directory.add_member("general", "ada", RoleName::Guest).await.map(drop),
            directory.set_member("acme/", "ada", &[]).await.map(drop),
            directory.set_member("acme/open", "ada", &[]).await.map(drop),
            directory.direct(&both(["ada", "alice"])).await.map(drop),
            directory.direct(&both(["ada", "ben"])).await.map(drop),
            directory.set_member(PAGE, "alice", &[]).await.map(drop),
            directory.set_member("playground/", "alice", &[]).await.map(drop),
            directory.set_member("playground/more", "alice", &[]).await.map(drop),
        ];
        for (at, attempt) in attempts.into_iter().enumerate() {
            assert_eq!(attempt.unwrap_err().code(), Code::FailedPrecondition, "{at}");
        }
        for open in ["general", "acme/open", "playground/more"] {
            assert_eq!(directory.permissions_of(open, "ada").await.unwrap(), [""; 0], "{open}");
            assert_eq!(directory.join(open, "ada").await.unwrap_err().code(), Code::NotFound, "{open}");
        }
        directory.ensure_visitor("ada").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_name_of_somebody_else_is_refused_with_what_to_do() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        directory.ensure_development("alice").await.unwrap();
        directory.create_user("member-of-nothing", false).await.unwrap();
        for name in ["alice", "member-of-nothing"] {
            let sentence = format!(
                "{name} is a user of the directory: choose another name, or get a token for {name} with `imks token {name}`"
            );
            assert_eq!(refused(directory, name).await, (Code::Conflict, sentence));
        }
        directory.remove_member("general", "alice").await.unwrap();
        assert_eq!(refused(directory, "alice").await.0, Code::Conflict, "once a user, never a visitor");
        for name in ["", "a name", &"x".repeat(65)] {
            assert_eq!(refused(directory, name).await.0, Code::InvalidInput, "{name:?}");
        }
        assert!(directory.members(PAGE).await.unwrap_or_default().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_visitor_with_more_than_visitors_have_gets_no_more_tokens() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        let ada = directory.ensure_visitor("ada").await.unwrap();
        directory.add_member(PAGE, "ada", RoleName::Owner).await.unwrap();
        assert_eq!(refused(directory, "ada").await.0, Code::Conflict);
        directory.add_member(PAGE, "ada", RoleName::Member).await.unwrap();
        assert_eq!(directory.ensure_visitor("ada").await.unwrap(), ada);
        for place in [PAGE, "playground/"] {
            directory.ban(place, "ada", "spam", None).await.unwrap();
            assert_eq!(refused(directory, "ada").await.0, Code::FailedPrecondition, "{place}");
            directory.lift_ban(place, "ada").await.unwrap();
            assert_eq!(directory.ensure_visitor("ada").await.unwrap(), ada, "{place}");
        }
        directory.set_member("playground/", "ada", &[]).await.unwrap();
        assert_eq!(refused(directory, "ada").await.0, Code::Conflict);
    })
    .await;
}

#[tokio::test]
async fn names_stay_usable_whatever_an_operator_removes() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        let ada = directory.ensure_visitor("ada").await.unwrap();
        directory.remove_member(PAGE, "ada").await.unwrap();
        assert_eq!(directory.ensure_visitor("ada").await.unwrap(), ada);
        directory.remove_channel(PAGE).await.unwrap();
        directory.remove_workspace("playground").await.unwrap();
        assert_eq!(directory.ensure_visitor("ada").await.unwrap(), ada);
        assert_eq!(directory.members(PAGE).await.unwrap().len(), 1);
        directory.remove_user("ada").await.unwrap();
        let second = directory.ensure_visitor("ada").await.unwrap();
        assert_ne!(second.id, ada.id, "old tokens are of somebody who is gone");
        directory.remove_user("ada").await.unwrap();
        directory.ensure_development("ada").await.unwrap();
        assert_eq!(refused(directory, "ada").await.0, Code::Conflict);
    })
    .await;
}

#[tokio::test]
async fn of_many_who_want_to_be_the_last_visitor_one_is_and_the_others_leave_nothing() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        for at in 1..100 {
            directory.ensure_visitor(&format!("visitor{at}")).await.unwrap();
        }
        let names: Vec<String> = (0..6).map(|at| format!("last{at}")).collect();
        let outcomes = join_all(names.iter().map(|name| directory.ensure_visitor(name))).await;
        for (name, outcome) in names.iter().zip(&outcomes) {
            let is_there = directory.user(name).await.unwrap().is_some();
            assert_eq!(is_there, outcome.is_ok(), "{name}: {outcome:?}");
        }
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let (code, sentence) = refused(directory, "too-late").await;
        assert_eq!(code, Code::LimitReached);
        assert!(sentence.contains("100") && sentence.contains("imks directory user remove"), "{sentence}");
        directory.ensure_visitor("visitor1").await.unwrap();
        directory.remove_user("visitor1").await.unwrap();
        directory.ensure_visitor("too-late").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_workspace_of_somebody_that_is_called_playground_is_not_opened_to_visitors() {
    on_each(|db| async {
        let world = world(db).await;
        let directory = &world.directory;
        directory.create_workspace("playground").await.unwrap();
        let new = NewChannel { name: PAGE.into(), ..NewChannel::default() };
        directory.create_channel(new).await.unwrap();
        let (code, sentence) = refused(directory, "ada").await;
        assert_eq!(code, Code::Conflict);
        assert!(sentence.contains("imks directory workspace set playground --name"), "{sentence}");
        assert!(directory.user("ada").await.unwrap().is_none());
        directory.rename_workspace("playground", "sandbox").await.unwrap();
        directory.ensure_visitor("ada").await.unwrap();
        assert!(directory.members("sandbox/first-page").await.unwrap().is_empty());
    })
    .await;
}
