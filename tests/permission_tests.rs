//! Who may do what in a channel (docs/rpc.md), against a core that may be down, slow or wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use imks::testing::auth::{AccessChange, Permission, PermissionConfig, Permissions};
use imks::testing::directory::Directory;
use imks::testing::pb::{Config, CoreClient, v1};
use support::core::{FakeCore, Mode};
use support::database::on_each;
use support::proxy::Proxy;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const MEMBER: u64 = 0b1_1111_1111;
const MODERATOR: u64 = 0b1111_1111_1111;

struct World {
    core: FakeCore,
    permissions: Permissions,
    user: Uuid,
    channel: Uuid,
}

/// A member with `bits` in a channel, and a cache that follows the core.
async fn world(bits: u64) -> World {
    world_with(bits, PermissionConfig::default()).await
}

async fn world_with(bits: u64, config: PermissionConfig) -> World {
    let (core, user, channel) = (FakeCore::start().await, Uuid::now_v7(), Uuid::now_v7());
    core.set_bits(user, channel, bits);
    let permissions = Permissions::new(core.client(), config);
    let mut changes = permissions.changes();
    // All three streams say that they follow.
    for _ in 0..3 {
        timeout(5 * SECOND, changes.recv()).await.unwrap().unwrap();
    }
    World { core, permissions, user, channel }
}

impl World {
    async fn code(&self, permission: Permission) -> &'static str {
        self.code_at(permission, Instant::now()).await
    }

    async fn code_at(&self, permission: Permission, now: Instant) -> &'static str {
        match self.permissions.require_at(self.user, self.channel, permission, now).await {
            Ok(_) => "ok",
            Err(error) => error.code().as_str(),
        }
    }
}

#[test]
fn names_and_bits_are_those_of_the_contract() {
    for (bit, permission) in Permission::ALL.into_iter().enumerate() {
        assert_eq!(permission.bit(), 1 << bit);
        let wire = v1::Permission::try_from(i32::try_from(bit + 1).unwrap()).unwrap();
        assert_eq!(wire.bit(), Some(1 << bit));
        assert_eq!(wire.as_str_name(), format!("PERMISSION_{}", permission.name()));
    }
    assert!(v1::Permission::try_from(14).is_err(), "a new permission of the contract has to be added here");
}

#[tokio::test]
async fn a_member_has_the_permissions_of_the_role_and_no_others() {
    let world = world(MEMBER).await;
    assert_eq!(world.code(Permission::SendMessages).await, "ok");
    assert_eq!(world.code(Permission::MentionEveryone).await, "forbidden");
    assert_eq!(world.code(Permission::ManageMessages).await, "forbidden");
    assert_eq!(world.core.calls("get_effective"), 1);
}

#[tokio::test]
async fn for_who_is_no_member_there_is_no_such_channel() {
    let world = world(0).await;
    for permission in Permission::ALL {
        assert_eq!(world.code(permission).await, "not_found", "{permission:?}");
    }
    let unknown = Uuid::now_v7();
    let error = world.permissions.require(world.user, unknown, Permission::ViewChannel).await.unwrap_err();
    assert_eq!(error.code(), "not_found", "the same for a channel that does not exist");
}

#[tokio::test]
async fn an_archived_channel_can_be_read_and_a_read_only_one_is_for_its_managers() {
    let world = world(MEMBER).await;
    let channel_id = world.channel.to_string();
    let state = |bits, archived, read_only| v1::Effective {
        channel_id: channel_id.clone(),
        bits,
        archived,
        read_only,
        ..Default::default()
    };
    let cases = [
        (state(MEMBER, true, false), "channel_archived"),
        (state(MEMBER | 1 << 12, true, false), "channel_archived"),
        (state(MEMBER, false, true), "channel_read_only"),
        (state(MEMBER | 1 << 12, false, true), "ok"),
    ];
    for (effective, expected) in cases {
        world.core.set_effective(world.user, effective);
        world.permissions.invalidate(None, Some(world.channel));
        assert_eq!(world.code(Permission::SendMessages).await, expected);
        assert_eq!(world.code(Permission::ReadHistory).await, "ok");
    }
}

#[tokio::test]
async fn a_storm_of_the_same_question_is_one_call() {
    let world = world(MEMBER).await;
    let gate = world.core.gate("get_effective");
    let asked =
        (0..1_000).map(|_| world.permissions.require(world.user, world.channel, Permission::SendMessages));
    let storm = futures_util::future::join_all(asked);
    let (answers, ()) = tokio::join!(storm, async { gate.add_permits(1_000) });
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(world.core.calls("get_effective"), 1);
}

#[tokio::test]
async fn who_asked_first_may_leave_without_taking_the_answer_away() {
    let world = world(MEMBER).await;
    let gate = world.core.gate("get_effective");
    {
        let first = world.permissions.require(world.user, world.channel, Permission::SendMessages);
        let mut first = Box::pin(first);
        assert!(futures_util::poll!(&mut first).is_pending());
    }
    gate.add_permits(1);
    assert_eq!(world.code(Permission::SendMessages).await, "ok");
    assert_eq!(world.core.calls("get_effective"), 1);
}

#[tokio::test]
async fn the_fast_path_knows_what_was_asked_before_until_it_is_a_minute_old() {
    let world = world(MEMBER).await;
    let cached = |permission, now| world.permissions.cached_at(world.user, world.channel, permission, now);
    let now = Instant::now();
    assert!(cached(Permission::SendMessages, now).is_none(), "never asked");
    assert_eq!(world.code(Permission::SendMessages).await, "ok");
    assert!(matches!(cached(Permission::SendMessages, now + 40 * SECOND), Some(Ok(_))));
    assert!(matches!(cached(Permission::MentionEveryone, now), Some(Err(_))));
    assert!(cached(Permission::ManageMessages, now).is_none(), "sensitive: asked each time");
    assert!(cached(Permission::SendMessages, now + 80 * SECOND).is_none(), "a minute, and its jitter");
}

#[tokio::test]
async fn during_an_outage_members_read_and_send_for_five_minutes_and_nothing_else() {
    let world = world(MODERATOR).await;
    let start = Instant::now();
    assert_eq!(world.code_at(Permission::SendMessages, start).await, "ok");
    world.core.stop();
    let soon = start + 100 * SECOND;
    assert_eq!(world.code_at(Permission::SendMessages, soon).await, "ok");
    assert_eq!(world.code_at(Permission::ReadHistory, soon).await, "ok");
    let fast =
        world.permissions.cached_at(world.user, world.channel, Permission::SendMessages, soon + SECOND);
    assert!(matches!(fast, Some(Ok(_))), "without waiting for the core each time");
    assert_eq!(world.code_at(Permission::MentionEveryone, soon).await, "unavailable", "not by an old answer");
    assert_eq!(world.code_at(Permission::ManageMessages, soon).await, "unavailable", "sensitive: closed");
    let late = start + 361 * SECOND;
    assert_eq!(
        world.code_at(Permission::SendMessages, late).await,
        "unavailable",
        "an answer this old is none"
    );
    let stranger = world.permissions.require(Uuid::now_v7(), world.channel, Permission::SendMessages).await;
    assert_eq!(stranger.unwrap_err().code(), "unavailable", "never seen before");
}

#[tokio::test]
async fn a_silent_wrong_or_oversize_answer_decides_nothing() {
    for mode in Mode::FAILURES {
        let world = world(MODERATOR).await;
        world.core.mode(mode);
        assert_eq!(world.code(Permission::SendMessages).await, "unavailable", "{mode:?}");
        let sensitive = world.code(Permission::ManageMessages).await;
        assert_ne!(sensitive, "ok", "{mode:?}");
        world.core.mode(Mode::Normal);
        let recovered = async { while world.code(Permission::SendMessages).await != "ok" {} };
        timeout(5 * SECOND, recovered).await.expect("and it is over when the core is back");
    }
}

#[tokio::test]
async fn a_removed_member_has_no_rights_within_a_second() {
    let world = world(MEMBER).await;
    assert_eq!(world.code(Permission::SendMessages).await, "ok");
    let mut changes = world.permissions.changes();
    world.core.leave(world.user, world.channel);
    let change = timeout(SECOND, changes.recv()).await.unwrap().unwrap();
    assert_eq!(change, AccessChange::Left { user_id: world.user, channel_id: world.channel });
    assert_eq!(world.code(Permission::SendMessages).await, "not_found");
}

#[tokio::test]
async fn an_invalidation_concerns_whom_it_names() {
    let world = world(MEMBER).await;
    let (other, elsewhere) = (Uuid::now_v7(), Uuid::now_v7());
    let keys = [(world.user, world.channel), (world.user, elsewhere), (other, world.channel)];
    let cases = [
        ((Some(world.user), Some(world.channel)), [false, true, true]),
        ((Some(world.user), None), [false, false, true]),
        ((None, Some(world.channel)), [false, true, false]),
        ((None, None), [false, false, false]),
    ];
    let mut changes = world.permissions.changes();
    for ((user, channel), stay) in cases {
        for (user, channel) in keys {
            let _ = world.permissions.require(user, channel, Permission::ViewChannel).await;
        }
        world.core.invalidate(user, channel);
        timeout(SECOND, changes.recv()).await.unwrap().unwrap();
        let known = keys.map(|(user, channel)| {
            world.permissions.cached(user, channel, Permission::ViewChannel).is_some()
        });
        assert_eq!(known, stay, "{user:?} {channel:?}");
    }
}

#[tokio::test]
async fn an_answer_from_before_an_invalidation_is_not_kept_after_it() {
    let world = world(MEMBER).await;
    let gate = world.core.gate("get_effective");
    let old = world.permissions.require(world.user, world.channel, Permission::SendMessages);
    let meanwhile = async {
        // The core has answered, the answer is on its way.
        while world.core.calls("get_effective") == 0 {
            tokio::task::yield_now().await;
        }
        world.core.set_bits(world.user, world.channel, 0);
        world.permissions.invalidate(Some(world.user), Some(world.channel));
        gate.add_permits(2);
        world.code(Permission::SendMessages).await
    };
    let (_, new) = tokio::join!(old, meanwhile);
    assert_eq!(new, "not_found", "who asks afterwards does not get the old answer");
    assert_eq!(world.code(Permission::SendMessages).await, "not_found");
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let config = PermissionConfig { entries_max: 640, ..PermissionConfig::default() };
    let world = world_with(MEMBER, config).await;
    for batch in 0..10 {
        let channels: Vec<Uuid> = (0..500).map(|_| Uuid::now_v7()).collect();
        world.permissions.warm(Uuid::now_v7(), &channels).await.unwrap();
        assert!(world.permissions.len() <= 640, "after batch {batch}");
    }
}

#[tokio::test]
async fn a_session_learns_its_channels_with_one_call() {
    let world = world(MEMBER).await;
    let channels: Vec<Uuid> = (0..400).map(|_| Uuid::now_v7()).chain([world.channel]).collect();
    world.permissions.warm(world.user, &channels).await.unwrap();
    assert_eq!(world.code(Permission::SendMessages).await, "ok");
    assert_eq!((world.core.calls("batch_get_effective"), world.core.calls("get_effective")), (1, 0));
}

#[tokio::test]
async fn after_a_restart_of_the_core_everything_works_again_by_itself() {
    let world = world(MEMBER).await;
    world.core.stop();
    assert_eq!(world.code(Permission::SendMessages).await, "unavailable");
    let mut changes = world.permissions.changes();
    world.core.restart().await;
    let back = async { while world.code(Permission::SendMessages).await != "ok" {} };
    timeout(10 * SECOND, back).await.expect("calls");
    let followed = async {
        loop {
            world.core.leave(world.user, world.channel);
            let left = timeout(SECOND / 4, changes.recv()).await;
            if matches!(left, Ok(Ok(AccessChange::Left { .. }))) {
                return;
            }
        }
    };
    timeout(10 * SECOND, followed).await.expect("streams");
}

#[tokio::test]
async fn a_user_with_many_channels_gets_all_pages() {
    let (core, user) = (FakeCore::start().await, Uuid::now_v7());
    let membership = || v1::Membership {
        channel_id: Uuid::now_v7().to_string(),
        user_id: user.to_string(),
        channel_name: "general".into(),
        ..Default::default()
    };
    core.set_memberships(user, (0..7).map(|_| membership()).collect());
    assert_eq!(core.client().list_user_channels(user).await.unwrap().len(), 7);
    assert_eq!(core.calls("list_user_channels"), 4, "pages of two");
    core.mode(Mode::Wrong);
    assert!(core.client().list_user_channels(user).await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn every_attempt_of_a_call_tells_the_core_how_long_it_waits() {
    let world = world(MEMBER).await;
    let config = imks::testing::pb::Config { retries_max: 2, ..Default::default() };
    let client = CoreClient::connect(&world.core.url(), config).unwrap();
    world.core.mode(Mode::Unavailable);
    let answer = client.check(world.user, world.channel, v1::Permission::PinMessages).await;
    assert!(answer.unwrap_err().is_retryable());
    assert_eq!((world.core.calls("check"), world.core.checks_with_timeout()), (3, 3));
}

#[tokio::test]
async fn a_network_that_falls_silent_is_noticed_by_pings_and_the_streams_come_back() {
    let core = FakeCore::start().await;
    let proxy = Proxy::start(core.addr()).await;
    assert_eq!(Config::default().keep_alive, 10 * SECOND, "as docs/rpc.md says");
    let config = Config { keep_alive: SECOND / 5, ..Config::default() };
    let permissions =
        Permissions::new(CoreClient::connect(&proxy.url(), config).unwrap(), PermissionConfig::default());
    let mut changes = permissions.changes();
    for round in 1..=3 {
        // All three streams say that they follow, over one connection.
        for _ in 0..3 {
            timeout(5 * SECOND, changes.recv()).await.expect("sooner than the default").unwrap();
        }
        assert_eq!(proxy.connections(), round);
        proxy.silence();
    }
}

#[tokio::test]
async fn calls_go_on_while_the_core_ends_connections_that_are_old() {
    on_each(|db| async {
        let config = imks::testing::directory::Config { connection_age: SECOND / 20, ..Default::default() };
        let directory = Directory::open(db, config).await.unwrap();
        let alice = directory.ensure_development("alice").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = directory.serve_on(listener, async { drop(stopped.await) });
        let client = async {
            let config = Config { deadline: 10 * SECOND, ..Config::default() };
            let core = CoreClient::connect(&proxy.url(), config).unwrap();
            let calls = (0..4).map(|_| ask_until_connections_are_replaced(&core, &proxy, alice.id));
            timeout(30 * SECOND, futures_util::future::join_all(calls))
                .await
                .expect("connections are replaced");
            stop.send(()).unwrap();
        };
        let (served, ()) = tokio::join!(Box::pin(server), Box::pin(client));
        served.unwrap();
    })
    .await;
}

async fn ask_until_connections_are_replaced(core: &CoreClient, proxy: &Proxy, user: Uuid) {
    while proxy.connections() < 10 {
        assert_eq!(core.list_user_channels(user).await.map(|all| all.len()).unwrap(), 1);
    }
}
