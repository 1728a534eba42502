//! The embedded directory on both databases, through the same gRPC client that an external core is reached by.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    reason = "a test that cannot go on fails"
)]

#[path = "directory/admin.rs"]
mod admin;
#[path = "directory/core_client.rs"]
mod core_client;
#[path = "directory/direct.rs"]
mod direct;
#[path = "directory/session.rs"]
mod session;
mod support;
#[path = "directory/team.rs"]
mod team;
#[path = "directory/visitor.rs"]
mod visitor;

use std::time::Duration;

use imks::error::Code;
use imks::testing::auth::{AccessChange, Permission, Permissions, TokenConfig, TokenVerifier};
use imks::testing::directory::{Config, Directory, NewChannel, RoleName, Seed, User};
use imks::testing::models::db::Db;
use imks::testing::pb::{CoreClient, Verdict, v1};
use support::database::on_each;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
/// The promise is a second; these tests share the machine with a database that syncs and with each other.
const SEEN: Duration = Duration::from_secs(4);
const HOUR: Duration = Duration::from_secs(3_600);

/// A server's view of a directory, and the same database in the hands of the command line.
struct World {
    directory: Directory,
    command_line: Directory,
    core: CoreClient,
    auth: TokenVerifier,
    permissions: Permissions,
    changes: Receiver<AccessChange>,
}

async fn world(db: Db) -> World {
    let directory = Directory::open(db.clone(), Config::default()).await.unwrap();
    let command_line = Directory::open(db, Config::default()).await.unwrap();
    let core = CoreClient::from_channel(directory.channel(), imks::testing::pb::Config::default());
    let config = TokenConfig { refresh_pause: Duration::ZERO, ..TokenConfig::default() };
    let auth = TokenVerifier::start(core.clone(), config).await.unwrap();
    let permissions = Permissions::new(core.clone(), imks::testing::auth::PermissionConfig::default());
    let mut changes = permissions.changes();
    // All three streams say that they follow.
    for _ in 0..3 {
        timeout(5 * SECOND, changes.recv()).await.unwrap().unwrap();
    }
    World { directory, command_line, core, auth, permissions, changes }
}

impl World {
    /// Waits for a change. Those of different kinds have no order.
    async fn seen(&mut self, expected: impl Fn(&AccessChange) -> bool) {
        let seen = async { while !expected(&self.changes.recv().await.unwrap()) {} };
        timeout(SEEN, seen).await.expect("a change of another process");
    }

    async fn code(&self, user: Uuid, channel: Uuid, permission: Permission) -> &'static str {
        match self.permissions.require(user, channel, permission).await {
            Ok(_) => "ok",
            Err(error) => error.code().as_str(),
        }
    }

    async fn token(&self, user: &User) -> String {
        self.command_line.issue_token(user, HOUR).await.unwrap()
    }

    async fn general(&self) -> Uuid {
        self.directory.channel_named("general").await.unwrap().unwrap().id
    }
}

#[tokio::test]
async fn a_new_user_gets_a_token_that_opens_the_general_channel() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.command_line.ensure_development("alice").await.unwrap();
        let identity = world.auth.verify(&world.token(&alice).await).await.unwrap();
        assert_eq!((identity.user_id, &*identity.username), (alice.id, "alice"));
        let channels = world.core.list_user_channels(alice.id).await.unwrap();
        assert_eq!(channels.len(), 1);
        assert_eq!((&*channels[0].name, channels[0].channel_id), ("general", world.general().await));
        assert_eq!(world.code(alice.id, world.general().await, Permission::SendMessages).await, "ok");
        let again = world.command_line.ensure_development("alice").await.unwrap();
        assert_eq!(again.id, alice.id, "the second token is of the same user");
    })
    .await;
}

#[tokio::test]
async fn a_member_removed_by_another_process_has_no_rights_left() {
    on_each(|db| async {
        let mut world = world(db).await;
        let alice = world.command_line.ensure_development("alice").await.unwrap().id;
        let general = world.general().await;
        world.seen(|change| matches!(change, AccessChange::Joined(member) if member.user_id == alice)).await;
        assert_eq!(world.code(alice, general, Permission::SendMessages).await, "ok");
        world.command_line.remove_member("general", "alice").await.unwrap();
        let left = AccessChange::Left { user_id: alice, channel_id: general };
        world.seen(|change| *change == left).await;
        assert_eq!(world.code(alice, general, Permission::SendMessages).await, "not_found");
        assert_eq!(world.code(alice, general, Permission::ManageMessages).await, "not_found");
        let error = world.command_line.remove_member("general", "alice").await.unwrap_err();
        assert_eq!(error.code(), "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_closed_account_is_out_everywhere_and_its_name_is_free() {
    on_each(|db| async {
        let mut world = world(db).await;
        let alice = world.directory.ensure_development("alice").await.unwrap();
        let token = world.token(&alice).await;
        let identity = world.auth.verify(&token).await.unwrap();
        let mut revoked = world.auth.revoked();
        world.command_line.remove_user("alice").await.unwrap();
        assert_eq!(timeout(SEEN, revoked.recv()).await.unwrap().unwrap().user_id, Some(alice.id));
        assert!(world.auth.is_revoked(&identity));
        assert_eq!(world.auth.verify(&token).await.unwrap_err().code(), "token_revoked");
        assert_eq!(world.core.verify_token(&token, "imks").await.unwrap(), Verdict::Revoked);
        world
            .seen(|change| matches!(change, AccessChange::Left { user_id, .. } if *user_id == alice.id))
            .await;
        assert!(world.core.list_user_channels(alice.id).await.unwrap().is_empty());
        assert!(world.core.users(&[alice.id]).await.unwrap()[0].deleted);
        let second = world.directory.ensure_development("alice").await.unwrap();
        assert_ne!(second.id, alice.id);
        assert!(world.auth.verify(&world.token(&second).await).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn revocations_from_before_a_start_hold_after_it() {
    on_each(|db| async move {
        let first = world(db.clone()).await;
        let alice = first.directory.ensure_development("alice").await.unwrap();
        let (token, other) = (first.token(&alice).await, first.token(&alice).await);
        let session = first.auth.verify(&token).await.unwrap().session_id.unwrap();
        first.directory.revoke_session(&session.to_string()).await.unwrap();
        let second = world(db).await;
        assert_eq!(second.auth.verify(&token).await.unwrap_err().code(), "token_revoked");
        assert!(second.auth.verify(&other).await.is_ok(), "another session of the same user");
    })
    .await;
}

#[tokio::test]
async fn after_a_rotation_old_and_new_tokens_are_good() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.ensure_development("alice").await.unwrap();
        let old = world.token(&alice).await;
        world.command_line.rotate_signing_key().await.unwrap();
        let new = world.token(&alice).await;
        for token in [&old, &new] {
            assert!(world.auth.verify_remote(token).await.is_ok());
        }
        let header = |token: &str| token.split('.').next().unwrap().to_owned();
        assert_ne!(header(&old), header(&new), "signed with different keys");
    })
    .await;
}

#[tokio::test]
async fn the_core_says_what_is_wrong_with_a_token() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.ensure_development("alice").await.unwrap();
        let token = world.token(&alice).await;
        assert!(matches!(world.core.verify_token(&token, "imks").await.unwrap(), Verdict::Valid { .. }));
        let elsewhere = world.core.verify_token(&token, "elsewhere").await.unwrap();
        assert_eq!(elsewhere, Verdict::Invalid, "another audience");
        let stranger = support::token::Key::ed25519("stranger").token(alice.id);
        for bad in ["", "a.b.c", &stranger, &"x".repeat(100_000)] {
            assert_eq!(world.core.verify_token(bad, "imks").await.unwrap(), Verdict::Invalid);
        }
        let ttl = world.directory.issue_token(&alice, 800 * HOUR).await.unwrap_err();
        assert_eq!(ttl.code(), "invalid_input");
    })
    .await;
}

#[tokio::test]
async fn a_seed_file_makes_a_team_once_however_often_it_is_read() {
    let text = r#"
        [[user]]
        name = "robot"
        bot = true

        [[channel]]
        name = "team"
        private = true
        owners = ["alice"]
        members = ["bob", "robot"]
        guests = ["eve"]

        [[channel]]
        name = "news"
        read_only = true
        owners = ["alice"]
        members = ["bob"]
    "#;
    on_each(|db| async move {
        let world = world(db).await;
        let first = world.directory.import(Seed::parse(text).unwrap()).await.unwrap();
        assert_eq!((first.users.there, first.channels.made, first.memberships.made), (0, 2, 6));
        let second = world.directory.import(Seed::parse(text).unwrap()).await.unwrap();
        assert_eq!((second.users.made, second.channels.made, second.memberships.made), (0, 0, 0));
        assert_eq!((second.users.there, second.channels.there), (first.users.made, 2));
        assert_eq!(world.directory.users().await.unwrap().len(), 4);
        assert_eq!(world.directory.members("team").await.unwrap().len(), 4);
        let id = async |name: &str| world.directory.user(name).await.unwrap().unwrap().id;
        let channel = async |name: &str| world.directory.channel_named(name).await.unwrap().unwrap().id;
        let (team, news) = (channel("team").await, channel("news").await);
        assert_eq!(world.code(id("alice").await, team, Permission::ManageMessages).await, "ok");
        assert_eq!(world.code(id("bob").await, team, Permission::ManageMessages).await, "forbidden");
        assert_eq!(world.code(id("eve").await, team, Permission::SendMessages).await, "forbidden");
        assert_eq!(world.code(id("eve").await, team, Permission::ReadHistory).await, "ok");
        assert_eq!(world.code(id("eve").await, news, Permission::ReadHistory).await, "not_found");
        assert_eq!(world.code(id("bob").await, news, Permission::SendMessages).await, "channel_read_only");
        assert_eq!(world.code(id("alice").await, news, Permission::SendMessages).await, "ok");
        assert!(world.core.users(&[id("robot").await]).await.unwrap()[0].bot);
    })
    .await;
    assert!(Seed::parse("[[chanel]]\nname = \"typo\"").is_err(), "unknown words are refused");
}

#[tokio::test]
async fn a_channel_archived_by_another_process_stops_writers() {
    on_each(|db| async {
        let mut world = world(db).await;
        let alice = world.command_line.ensure_development("alice").await.unwrap().id;
        let general = world.general().await;
        assert_eq!(world.code(alice, general, Permission::SendMessages).await, "ok");
        world.command_line.set_channel_state("general", Some(true), None).await.unwrap();
        world.seen(|change| matches!(change, AccessChange::Channel(channel) if channel.archived)).await;
        assert_eq!(world.code(alice, general, Permission::SendMessages).await, "channel_archived");
        let mut client = v1::channel_service_client::ChannelServiceClient::new(world.directory.channel());
        let request = |id: Uuid| v1::GetChannelRequest { channel_id: id.to_string() };
        let known = client.get_channel(request(general)).await.unwrap().into_inner().channel.unwrap();
        assert!(known.archived);
        let unknown = client.get_channel(request(Uuid::now_v7())).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    })
    .await;
}

#[tokio::test]
async fn a_name_is_taken_once_and_has_to_be_a_name() {
    on_each(|db| async {
        let world = world(db).await;
        world.directory.create_user("alice", false).await.unwrap();
        let long = "a".repeat(65);
        for name in ["", " ", "a b", "a\n", "<b>", &long] {
            let error = world.directory.create_user(name, false).await.unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{name:?}");
        }
        let taken = world.directory.create_user("alice", false).await.unwrap_err();
        assert_eq!(
            (taken.code(), taken.to_string()),
            (Code::Conflict, "the user \"alice\" exists already".into())
        );
        world.directory.create_user("Zoë.O-Neill_2", false).await.unwrap();
        let new = |name: &str| NewChannel { name: name.into(), ..NewChannel::default() };
        world.directory.create_channel(new("team")).await.unwrap();
        assert_eq!(world.directory.create_channel(new("team")).await.unwrap_err().code(), "conflict");
        let error = world.directory.add_member("team", "bob", RoleName::Member).await.unwrap_err();
        assert_eq!((error.code(), error.to_string()), (Code::NotFound, "there is no user \"bob\"".into()));
    })
    .await;
}

#[tokio::test]
async fn many_processes_that_need_the_same_user_at_once_make_one() {
    on_each(|db| async {
        let world = world(db).await;
        let made = (0..20).map(|_| world.command_line.ensure_development("alice"));
        let users = futures_util::future::join_all(made).await;
        let first = users[0].as_ref().unwrap().id;
        assert!(users.iter().all(|user| user.as_ref().unwrap().id == first));
        assert_eq!(world.directory.members("general").await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn channels_and_members_are_listed_page_by_page_and_learnt_at_once() {
    on_each(|db| async {
        let world = world(db).await;
        let mut seed = String::new();
        for number in 0..5 {
            seed.push_str(&format!("[[channel]]\nname = \"c{number}\"\nmembers = [\"alice\", \"bob\"]\n"));
        }
        world.directory.import(Seed::parse(&seed).unwrap()).await.unwrap();
        let alice = world.directory.user("alice").await.unwrap().unwrap().id;
        let channels = pages_of_two(&world.directory, alice).await;
        assert_eq!(channels.len(), 5);
        assert_eq!(channels.len(), world.core.list_user_channels(alice).await.unwrap().len());
        world.permissions.warm(alice, &channels).await.unwrap();
        for channel in &channels {
            let known = world.permissions.cached(alice, *channel, Permission::SendMessages);
            assert!(matches!(known, Some(Ok(_))));
        }
        let mut client = v1::member_service_client::MemberServiceClient::new(world.directory.channel());
        let request =
            v1::ListChannelMembersRequest { channel_id: channels[0].to_string(), ..Default::default() };
        let members = client.list_channel_members(request).await.unwrap().into_inner();
        assert_eq!((members.memberships.len(), members.next_page_token.as_str()), (2, ""));
        assert!(world.core.is_member(alice, channels[0]).await.unwrap());
        assert!(!world.core.is_member(Uuid::now_v7(), channels[0]).await.unwrap());
    })
    .await;
}

async fn pages_of_two(directory: &Directory, user: Uuid) -> Vec<Uuid> {
    let mut client = v1::member_service_client::MemberServiceClient::new(directory.channel());
    let (mut channels, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListUserChannelsRequest { user_id: user.to_string(), page_size: 2, page_token };
        let page = client.list_user_channels(request).await.unwrap().into_inner();
        assert!(page.memberships.len() <= 2);
        channels.extend(page.memberships.iter().map(|member| member.channel_id.parse::<Uuid>().unwrap()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return channels;
        }
    }
}

#[tokio::test]
async fn the_same_directory_is_a_core_on_a_port() {
    on_each(|db| async {
        let directory = Directory::open(db, Config::default()).await.unwrap();
        let alice = directory.ensure_development("alice").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = directory.serve_on(listener, async { drop(stopped.await) });
        let client = async {
            let core = CoreClient::connect(&url, imks::testing::pb::Config::default()).unwrap();
            let auth = TokenVerifier::start(core.clone(), TokenConfig::default()).await.unwrap();
            let token = directory.issue_token(&alice, HOUR).await.unwrap();
            assert_eq!(auth.verify(&token).await.unwrap().user_id, alice.id);
            assert_eq!(core.list_user_channels(alice.id).await.unwrap().len(), 1);
            stop.send(()).unwrap();
        };
        let both = async { tokio::join!(Box::pin(server), Box::pin(client)) };
        let (served, ()) = timeout(10 * SECOND, both).await.expect("ends although streams are open");
        served.unwrap();
    })
    .await;
}

#[tokio::test]
async fn no_key_is_in_what_debug_shows() {
    on_each(|db| async {
        let world = world(db).await;
        let shown = format!("{:?} {:?}", world.directory, world.core);
        assert!(shown.len() < 200, "{shown}");
    })
    .await;
}
