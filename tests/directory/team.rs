//! Workspaces, roles, overrides and bans, seen by a server while another process changes them.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use imks::testing::auth::{AccessChange, Permission};
use imks::testing::directory::{
    ChannelChange, NewChannel, NotifyLevel, RoleChange, RoleName, RoomKind, Subject, permission_bits,
};
use imks::testing::models::db::Db;
use imks::testing::pb::v1;
use sqlx::AssertSqlSafe;
use tokio::time::timeout;
use uuid::Uuid;

use super::{SECOND, SEEN, World, on_each, world};

const VIEW: u64 = 1;

/// A workspace `acme` with a channel of each kind, its member alice, and eve, who is in no workspace.
struct Team {
    world: World,
    alice: Uuid,
    eve: Uuid,
    open: Uuid,
    closed: Uuid,
    news: Uuid,
}

async fn team(db: Db) -> Team {
    let world = world(db).await;
    let directory = &world.command_line;
    directory.create_workspace("acme").await.unwrap();
    let channel = async |name: &str, kind| {
        let new = NewChannel { name: name.into(), kind, ..NewChannel::default() };
        directory.create_channel(new).await.unwrap().id
    };
    let open = channel("acme/open", RoomKind::Public).await;
    let closed = channel("acme/closed", RoomKind::Private).await;
    let news = channel("acme/news", RoomKind::Announcement).await;
    let alice = directory.create_user("alice", false).await.unwrap().id;
    let eve = directory.create_user("eve", false).await.unwrap().id;
    directory.set_member("acme/", "alice", &[]).await.unwrap();
    Team { world, alice, eve, open, closed, news }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn members_of_a_workspace_look_into_open_channels_and_write_after_they_joined() {
    on_each(|db| async {
        let Team { world, alice, eve, open, closed, news } = team(db).await;
        for channel in [open, news] {
            assert_eq!(world.code(alice, channel, Permission::ReadHistory).await, "ok");
            assert_eq!(world.code(eve, channel, Permission::ReadHistory).await, "not_found");
        }
        assert_eq!(world.code(alice, open, Permission::SendMessages).await, "forbidden");
        assert_eq!(world.code(alice, closed, Permission::ViewChannel).await, "not_found");
        let directory = &world.directory;
        assert_eq!(directory.join("acme/closed", "alice").await.unwrap_err().code(), "not_found");
        assert_eq!(directory.join("acme/open", "eve").await.unwrap_err().code(), "not_found");
        assert!(directory.join("acme/open", "alice").await.unwrap());
        assert!(!directory.join("acme/open", "alice").await.unwrap(), "a second time changes nothing");
        directory.set_member("acme/closed", "alice", &[]).await.unwrap();
        let effective = directory.permissions_of("acme/closed", "alice").await.unwrap();
        assert!(
            effective.contains(&"SEND_MESSAGES") && !effective.contains(&"PIN_MESSAGES"),
            "{effective:?}"
        );
        assert!(directory.permissions_of("acme/closed", "eve").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn announcements_are_written_by_those_who_manage_the_channel_and_read_by_all() {
    on_each(|db| async {
        let Team { world, alice, news, .. } = team(db).await;
        let bob = world.directory.create_user("bob", false).await.unwrap().id;
        world.directory.set_member("acme/news", "alice", &names(&["member"])).await.unwrap();
        world.directory.set_member("acme/news", "bob", &names(&["owner"])).await.unwrap();
        assert_eq!(world.code(alice, news, Permission::SendMessages).await, "channel_read_only");
        assert_eq!(world.code(alice, news, Permission::ReadHistory).await, "ok");
        assert_eq!(world.code(bob, news, Permission::SendMessages).await, "ok");
    })
    .await;
}

#[tokio::test]
async fn roles_add_up_and_a_role_that_another_process_changes_counts_within_a_second() {
    on_each(|db| async {
        let Team { mut world, alice, open, .. } = team(db).await;
        let other = world.command_line.clone();
        let bits = permission_bits(&["PIN_MESSAGES"]).unwrap();
        other.create_role("acme", "pinner", bits).await.unwrap();
        other.set_member("acme/open", "alice", &names(&["guest"])).await.unwrap();
        assert_eq!(world.code(alice, open, Permission::PinMessages).await, "forbidden");
        other.set_member("acme/", "alice", &names(&["guest", "pinner"])).await.unwrap();
        assert_eq!(world.code(alice, open, Permission::PinMessages).await, "ok", "asked each time");
        assert_eq!(world.code(alice, open, Permission::SendMessages).await, "forbidden");
        let bits = permission_bits(&["PIN_MESSAGES", "SEND_MESSAGES"]).unwrap();
        let concerns = |change: &AccessChange| {
            matches!(change, AccessChange::Permissions { user_id: Some(user), channel_id: None } if *user == alice)
        };
        // Of the roles given above.
        world.seen(concerns).await;
        other.set_role("acme", "pinner", RoleChange { bits: Some(bits), name: None }).await.unwrap();
        world.seen(concerns).await;
        assert_eq!(world.code(alice, open, Permission::SendMessages).await, "ok");
        other.remove_role("acme", "pinner").await.unwrap();
        world.seen(concerns).await;
        assert_eq!(world.code(alice, open, Permission::SendMessages).await, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_role_that_changes_concerns_those_who_have_it_and_not_everybody() {
    on_each(|db| async {
        let Team { world, alice, eve, .. } = team(db).await;
        let other = &world.command_line;
        let pinner = other.create_role("acme", "pinner", 0).await.unwrap();
        other.set_member("acme/", "alice", &names(&["member", "pinner"])).await.unwrap();
        let mut client =
            v1::permission_service_client::PermissionServiceClient::new(world.directory.channel());
        let request = v1::WatchInvalidationsRequest::default();
        let mut events = client.watch_invalidations(request).await.unwrap().into_inner();
        let change = RoleChange { bits: Some(1 << 10), name: Some("fixer".into()) };
        assert_eq!(other.set_role("acme", &pinner.id.to_string(), change).await.unwrap().name, "fixer");
        other.set_member("acme/open", "eve", &[]).await.unwrap();
        let mut concerned = BTreeSet::new();
        while !concerned.contains(&eve.to_string()) {
            let event = timeout(SEEN, events.next()).await.unwrap().unwrap().unwrap().event.unwrap();
            if let v1::watch_invalidations_response::Event::Invalidated(invalidation) = event {
                let is_everything = invalidation.user_id.is_empty() && invalidation.channel_id.is_empty();
                assert!(!is_everything, "the caches of all users are left alone");
                // The channels of the workspace may still be announced.
                concerned.extend(Some(invalidation.user_id).filter(|user| !user.is_empty()));
            }
        }
        assert_eq!(concerned, [alice, eve].map(|id| id.to_string()).into());
    })
    .await;
}

#[tokio::test]
async fn an_override_takes_a_channel_from_a_role_and_gives_it_back_to_one_user() {
    on_each(|db| async {
        let Team { mut world, alice, open, .. } = team(db).await;
        let other = world.command_line.clone();
        other.set_member("acme/open", "alice", &[]).await.unwrap();
        let joined =
            |change: &AccessChange| matches!(change, AccessChange::Joined(member) if (member.user_id, member.channel_id) == (alice, open));
        world.seen(joined).await;
        assert_eq!(world.code(alice, open, Permission::SendMessages).await, "ok");
        let everybody = Subject::Role("member");
        other.set_override("acme/open", everybody, 0, VIEW).await.unwrap();
        let of_channel = |change: &AccessChange| {
            matches!(change, AccessChange::Permissions { user_id: None, channel_id: Some(id) } if *id == open)
        };
        world.seen(of_channel).await;
        // It may be of the change before, and this one is the next.
        while world.code(alice, open, Permission::SendMessages).await != "not_found" {
            world.seen(|_| true).await;
        }
        other.set_override("acme/open", Subject::User("alice"), VIEW, 2).await.unwrap();
        // Clients learn from it that they see the channel again.
        world.seen(joined).await;
        // It may be the one of before, and this change is the next one.
        while world.code(alice, open, Permission::ReadHistory).await != "ok" {
            world.seen(|_| true).await;
        }
        assert_eq!(world.code(alice, open, Permission::SendMessages).await, "forbidden");
        assert_eq!(other.overrides("acme/open").await.unwrap().len(), 2);
        other.remove_override("acme/open", everybody).await.unwrap();
        other.remove_override("acme/open", Subject::User("alice")).await.unwrap();
        let again = other.remove_override("acme/open", everybody).await.unwrap_err();
        assert_eq!(again.code(), "not_found");
        assert!(other.overrides("acme/open").await.unwrap().is_empty());
        let both = other.set_override("acme/open", everybody, VIEW, VIEW).await.unwrap_err();
        assert_eq!(both.code(), "invalid_input");
    })
    .await;
}

#[tokio::test]
async fn a_banned_user_is_out_of_the_workspace_and_stays_out_until_the_ban_is_lifted() {
    on_each(|db| async {
        let Team { mut world, alice, open, closed, .. } = team(db).await;
        let other = world.command_line.clone();
        for channel in ["acme/open", "acme/closed"] {
            other.set_member(channel, "alice", &[]).await.unwrap();
        }
        other.ensure_development("alice").await.unwrap();
        assert_eq!(world.code(alice, closed, Permission::SendMessages).await, "ok");
        other.ban("acme/", "alice", "spam", None).await.unwrap();
        let left = AccessChange::Left { user_id: alice, channel_id: closed };
        world.seen(|change| *change == left).await;
        for channel in [open, closed] {
            assert_eq!(world.code(alice, channel, Permission::ViewChannel).await, "not_found");
        }
        assert_eq!(
            world.code(alice, world.general().await, Permission::SendMessages).await,
            "ok",
            "elsewhere"
        );
        for place in ["acme/", "acme/open"] {
            let error = other.set_member(place, "alice", &[]).await.unwrap_err();
            assert_eq!(error.code(), "failed_precondition", "{place}");
        }
        let bans = other.bans("acme/").await.unwrap();
        assert_eq!((bans.len(), bans[0].reason.as_str(), bans[0].ends_at), (1, "spam", None));
        other.lift_ban("acme/", "alice").await.unwrap();
        assert_eq!(other.lift_ban("acme/", "alice").await.unwrap_err().code(), "not_found");
        assert!(other.set_member("acme/open", "alice", &[]).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_ban_from_one_channel_hides_it_also_from_who_only_looks_and_ends_by_itself() {
    on_each(|db| async {
        let Team { world, alice, open, news, .. } = team(db).await;
        let directory = &world.directory;
        let soon = imks::testing::clock::now_micros() + 1_500_000;
        directory.ban("acme/open", "alice", "", Some(soon)).await.unwrap();
        assert!(directory.permissions_of("acme/open", "alice").await.unwrap().is_empty());
        assert_eq!(world.code(alice, news, Permission::ReadHistory).await, "ok");
        let ended = async {
            while directory.join("acme/open", "alice").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(10 * SECOND, ended).await.expect("the ban ends");
        assert!(imks::testing::clock::now_micros() >= soon, "not before its end");
        assert!(directory.bans("acme/open").await.unwrap().is_empty());
        assert!(!directory.permissions_of(&open.to_string(), "alice").await.unwrap().is_empty());
        let past = directory.ban("acme/open", "alice", "", Some(1)).await.unwrap_err();
        assert_eq!(past.code(), "invalid_input");
    })
    .await;
}

#[tokio::test]
async fn who_is_added_and_banned_at_the_same_time_is_not_a_member() {
    on_each(|db| async {
        let Team { world, .. } = team(db).await;
        for _ in 0..10 {
            let ban = world.directory.ban("acme/", "alice", "", None);
            let add = world.command_line.set_member("acme/open", "alice", &[]);
            let (banned, _) = tokio::join!(ban, add);
            banned.unwrap();
            assert!(world.directory.members("acme/open").await.unwrap().is_empty());
            world.directory.lift_ban("acme/", "alice").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn mentions_of_roles_reach_who_has_one_of_them_in_the_channel_or_the_workspace() {
    on_each(|db| async {
        let Team { world, alice, open, .. } = team(db).await;
        let directory = &world.directory;
        let designer = directory.create_role("acme", "designer", 0).await.unwrap().id;
        let writer = directory.create_role("acme", "writer", 0).await.unwrap().id;
        directory.set_member("acme/", "alice", &names(&["member", "designer"])).await.unwrap();
        directory.set_member("acme/open", "alice", &names(&["member", "writer"])).await.unwrap();
        let mut expected = BTreeSet::from([alice]);
        for name in ["bob", "carol", "dave"] {
            let id = directory.create_user(name, false).await.unwrap().id;
            directory.set_member("acme/open", name, &names(&["writer"])).await.unwrap();
            expected.insert(id);
        }
        // Has the role, and is not in the channel.
        directory.set_member("acme/", "eve", &names(&["designer"])).await.unwrap();
        assert_eq!(mentioned(&world, open, &[designer]).await, BTreeSet::from([alice]));
        assert_eq!(mentioned(&world, open, &[designer, writer]).await, expected);
        assert!(mentioned(&world, open, &[]).await.is_empty());
        let member = world.core.list_user_channels(alice).await.unwrap().pop().unwrap();
        let held: BTreeSet<Uuid> = member.role_ids.into_iter().collect();
        assert!(held.contains(&designer) && held.contains(&writer) && held.len() == 3);
    })
    .await;
}

async fn mentioned(world: &World, channel: Uuid, roles: &[Uuid]) -> BTreeSet<Uuid> {
    let mut client = v1::member_service_client::MemberServiceClient::new(world.directory.channel());
    let (mut users, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = v1::ResolveMentionsRequest {
            channel_id: channel.to_string(),
            role_ids: roles.iter().map(Uuid::to_string).collect(),
            page_size: 2,
            page_token,
        };
        let page = client.resolve_mentions(request).await.unwrap().into_inner();
        users.extend(page.user_ids.iter().map(|id| id.parse::<Uuid>().unwrap()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

#[tokio::test]
async fn a_member_knows_where_they_joined_and_how_they_are_notified() {
    on_each(|db| async move {
        let Team { world, alice, open, .. } = team(db.clone()).await;
        let id = match &db {
            Db::Postgres(_) => format!("'{open}'"),
            Db::Sqlite(_) => format!("x'{}'", open.simple()),
        };
        let sql =
            AssertSqlSafe(format!("INSERT INTO channel_state (channel_id, last_seq) VALUES ({id}, 41)"));
        match &db {
            Db::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
            Db::Sqlite(sqlite) => drop(sqlx::query(sql).execute(&sqlite.writer).await.unwrap()),
        }
        world.directory.set_member("acme/open", "alice", &[]).await.unwrap();
        let muted = Some(4_102_444_800_000_000);
        world
            .directory
            .set_notifications("acme/open", "alice", Some(NotifyLevel::Mentions), muted)
            .await
            .unwrap();
        let member = world.core.list_user_channels(alice).await.unwrap().pop().unwrap();
        assert_eq!((member.joined_seq, member.muted_until), (Some(41), muted));
        assert_eq!(member.notify_level, imks::testing::pb::NotifyLevel::Mentions);
        let nobody = world.directory.set_notifications("acme/open", "eve", None, Some(0)).await.unwrap_err();
        assert_eq!(nobody.code(), "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_is_changed_or_removed_by_another_process_is_seen() {
    on_each(|db| async {
        let Team { mut world, alice, open, .. } = team(db).await;
        let other = world.command_line.clone();
        other.set_member("acme/open", "alice", &[]).await.unwrap();
        let change = ChannelChange {
            name: Some("lounge".into()),
            kind: Some(RoomKind::Private),
            slow_mode_s: Some(7),
            ..ChannelChange::default()
        };
        other.set_channel("acme/open", change).await.unwrap();
        let is_it = |change: &AccessChange| {
            matches!(change, AccessChange::Channel(channel)
                if channel.name == "lounge" && channel.slow_mode_s == 7 && channel.workspace_id.is_some())
        };
        world.seen(is_it).await;
        other.remove_channel("acme/lounge").await.unwrap();
        world.seen(|change| *change == AccessChange::ChannelRemoved(open)).await;
        assert_eq!(world.code(alice, open, Permission::ViewChannel).await, "not_found");
        assert!(world.core.list_user_channels(alice).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn names_belong_to_a_workspace_and_a_workspace_with_channels_stays() {
    on_each(|db| async {
        let Team { world, .. } = team(db).await;
        let directory = &world.directory;
        let new = |name: &str| NewChannel { name: name.into(), ..NewChannel::default() };
        directory.create_channel(new("open")).await.unwrap();
        assert_eq!(directory.create_channel(new("acme/open")).await.unwrap_err().code(), "conflict");
        assert_eq!(directory.create_channel(new("nowhere/open")).await.unwrap_err().code(), "not_found");
        assert_eq!(directory.create_role("acme", "owner", 1).await.unwrap_err().code(), "conflict");
        let built_in = directory.set_role("acme", "owner", RoleChange::default()).await.unwrap_err();
        assert_eq!(built_in.code(), "failed_precondition");
        directory.rename_workspace("acme", "acme-2").await.unwrap();
        assert_eq!(directory.rename_workspace("acme-2", "main").await.unwrap_err().code(), "conflict");
        assert_eq!(directory.channels("acme-2").await.unwrap().len(), 3);
        assert_eq!(directory.remove_workspace("acme-2").await.unwrap_err().code(), "failed_precondition");
        assert_eq!(directory.remove_workspace("main").await.unwrap_err().code(), "failed_precondition");
        for channel in directory.channels("acme-2").await.unwrap() {
            directory.remove_channel(&channel.id.to_string()).await.unwrap();
        }
        directory.remove_workspace("acme-2").await.unwrap();
        assert_eq!(directory.workspaces().await.unwrap().len(), 1);
        let role = directory.add_member("open", "alice", RoleName::Owner).await;
        assert!(role.unwrap());
        let error = directory.set_member("open", "alice", &names(&["king"])).await.unwrap_err().to_string();
        assert!(error.contains("king") && error.contains("moderator"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn of_two_changes_of_a_channel_at_once_neither_takes_the_other_back() {
    on_each(|db| async {
        let world = world(db).await;
        let new = NewChannel { name: "busy".into(), ..NewChannel::default() };
        world.directory.create_channel(new).await.unwrap();
        for round in 1..=20 {
            let archived = round % 2 == 1;
            let slow = ChannelChange { slow_mode_s: Some(round), ..ChannelChange::default() };
            let archive = ChannelChange { archived: Some(archived), ..ChannelChange::default() };
            let (one, other) = tokio::join!(
                world.directory.set_channel("busy", slow),
                world.command_line.set_channel("busy", archive)
            );
            assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
            let channel = world.directory.channel_by_name("busy").await.unwrap();
            assert_eq!((channel.slow_mode_s, channel.archived), (i64::from(round), archived));
        }
    })
    .await;
}

#[tokio::test]
async fn a_ban_that_has_ended_cannot_be_lifted() {
    on_each(|db| async {
        let world = world(db).await;
        world.directory.ensure_development("alice").await.unwrap();
        let end = imks::testing::clock::now_micros() + 200_000;
        world.directory.ban("general", "alice", "spam", Some(end)).await.unwrap();
        while !world.directory.bans("general").await.unwrap().is_empty() {
            tokio::time::sleep(SECOND / 100).await;
        }
        let error = world.directory.lift_ban("general", "alice").await.unwrap_err();
        assert_eq!(error.code(), "not_found");
    })
    .await;
}
