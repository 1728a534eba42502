//! Sessions with refresh tokens, and signing keys.

use std::time::Duration;

use futures_util::StreamExt;
use imks::testing::auth::{Identity, TokenConfig, TokenVerifier};
use imks::testing::clock::now_micros;
use imks::testing::directory::{Config, Directory};
use imks::testing::pb::Verdict;
use tokio::time::timeout;
use uuid::Uuid;

use super::{SEEN, on_each, world};

#[tokio::test]
async fn a_refresh_token_brings_new_tokens_of_the_same_session() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let first = world.directory.begin_session(&alice, None).await.unwrap();
        let second = world.command_line.refresh(&first.refresh_token).await.unwrap();
        let third = world.directory.refresh(&second.refresh_token).await.unwrap();
        assert_eq!((first.session_id, first.session_id), (second.session_id, third.session_id));
        assert_ne!(second.refresh_token, third.refresh_token);
        for token in [&first.access_token, &third.access_token] {
            let identity = world.auth.verify(token).await.unwrap();
            assert_eq!((identity.user_id, identity.session_id), (alice.id, Some(first.session_id)));
        }
        assert_eq!(world.directory.sessions("alice").await.unwrap().len(), 1);
        for bad in ["", "imks_refresh_AAAA", &first.access_token] {
            assert_eq!(world.directory.refresh(bad).await.err().unwrap().code(), "unauthenticated");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refresh_token_that_is_used_twice_ends_its_session_and_no_other() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let other = world.directory.begin_session(&alice, None).await.unwrap();
        let stolen = world.directory.begin_session(&alice, None).await.unwrap();
        let next = world.directory.refresh(&stolen.refresh_token).await.unwrap();
        let mut revoked = world.auth.revoked();
        let error = world.command_line.refresh(&stolen.refresh_token).await.err().unwrap();
        assert_eq!(error.code(), "unauthenticated");
        let revocation = timeout(SEEN, revoked.recv()).await.unwrap().unwrap();
        assert_eq!(revocation.session_id, Some(stolen.session_id));
        assert_eq!(world.auth.verify(&next.access_token).await.unwrap_err().code(), "token_revoked");
        let successor = world.directory.refresh(&next.refresh_token).await.err().unwrap();
        assert_eq!(successor.code(), "unauthenticated", "the newest token of the session is void too");
        assert!(world.auth.verify(&other.access_token).await.is_ok());
        assert!(world.directory.refresh(&other.refresh_token).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn of_many_who_use_a_refresh_token_at_once_at_most_one_gets_tokens() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let tokens = world.directory.begin_session(&alice, None).await.unwrap();
        let uses = (0..10).map(|_| world.directory.refresh(&tokens.refresh_token));
        let outcomes = futures_util::future::join_all(uses).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(world.directory.sessions("alice").await.unwrap().is_empty(), "and the session is over");
        for tokens in outcomes.into_iter().flatten() {
            let verdict = world.core.verify_token(&tokens.access_token, "imks").await.unwrap();
            assert_eq!(verdict, Verdict::Revoked, "nor is what the one got of use");
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_end_with_their_user_with_their_time_and_when_they_are_ended() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let refused = async |token: &str| world.directory.refresh(token).await.err().unwrap().code().as_str();
        let ended = world.directory.begin_session(&alice, None).await.unwrap();
        world.command_line.revoke_session(&ended.session_id.to_string()).await.unwrap();
        assert_eq!(refused(&ended.refresh_token).await, "unauthenticated");
        assert_eq!(world.core.verify_token(&ended.access_token, "imks").await.unwrap(), Verdict::Revoked);
        let short = Config { refresh_ttl: Duration::from_millis(1), ..Config::default() };
        let brief = Directory::open(db, short).await.unwrap().begin_session(&alice, None).await.unwrap();
        while now_micros() < brief.session_expires_at {
            tokio::task::yield_now().await;
        }
        assert_eq!(refused(&brief.refresh_token).await, "unauthenticated");
        let revoked = world.directory.begin_session(&alice, None).await.unwrap();
        world.directory.revoke_user("alice").await.unwrap();
        assert_eq!(refused(&revoked.refresh_token).await, "unauthenticated");
        let last = world.directory.begin_session(&alice, None).await.unwrap();
        world.directory.remove_user("alice").await.unwrap();
        assert_eq!(refused(&last.refresh_token).await, "unauthenticated");
        assert_eq!(world.directory.begin_session(&alice, None).await.err().unwrap().code(), "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_begun_again_under_the_same_key_is_the_same_session() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let first = world.directory.begin_session(&alice, Some("request-1")).await.unwrap();
        let again = world.directory.begin_session(&alice, Some("request-1")).await.unwrap();
        assert_eq!(first.session_id, again.session_id);
        assert_eq!(world.directory.sessions("alice").await.unwrap().len(), 1);
        assert!(world.directory.refresh(&again.refresh_token).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_key_is_replaced_when_it_is_old_once_and_its_tokens_stay_good() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let old = world.token(&alice).await;
        let impatient = Config { key_age: Duration::from_micros(1), ..Config::default() };
        // Followers look at the age when they start. Two of them at once may see the same old key.
        let (one, two) =
            tokio::join!(Directory::open(db.clone(), impatient.clone()), Directory::open(db, impatient));
        let replaced = async {
            while world.directory.signing_keys().await.unwrap().len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SEEN, replaced).await.expect("a new key");
        one.unwrap().close().await;
        two.unwrap().close().await;
        let keys = world.directory.signing_keys().await.unwrap();
        assert_eq!(keys.iter().filter(|key| key.not_after.is_none()).count(), 1, "one key signs: {keys:?}");
        for token in [old, world.token(&alice).await] {
            assert!(world.auth.verify_remote(&token).await.is_ok());
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_of_a_key_that_was_declared_void_are_refused() {
    on_each(|db| async {
        let world = world(db).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let token = world.token(&alice).await;
        let key = world.directory.signing_keys().await.unwrap().remove(0);
        world.command_line.revoke_signing_key(&key.kid).await.unwrap();
        assert_eq!(world.core.verify_token(&token, "imks").await.unwrap(), Verdict::Invalid);
        let keys = world.core.signing_keys("").await.unwrap().unwrap().keys;
        assert!(keys.iter().any(|known| known.kid == key.kid && known.revoked));
        assert!(world.auth.verify_remote(&world.token(&alice).await).await.is_ok(), "a new key signs");
        assert_eq!(world.command_line.revoke_signing_key(&key.kid).await.unwrap_err().code(), "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_session_of_the_same_key_can_begin_again_right_after_its_end() {
    on_each(|db| async move {
        let world = world(db.clone()).await;
        let alice = world.directory.create_user("alice", false).await.unwrap();
        let key = Some("phone");
        let first = world.directory.begin_session(&alice, key).await.unwrap();
        for round in 0..2 {
            match round {
                0 => world.directory.revoke_session(&first.session_id.to_string()).await.unwrap(),
                _ => world.directory.revoke_user("alice").await.unwrap(),
            }
            let again = world.directory.begin_session(&alice, key).await.unwrap();
            assert_eq!(again.session_id, first.session_id);
            let verdict = world.core.verify_token(&again.access_token, "imks").await.unwrap();
            assert!(matches!(verdict, Verdict::Valid { .. }), "{round}: {verdict:?}");
            let old = world.core.verify_token(&first.access_token, "imks").await.unwrap();
            assert_eq!(old, Verdict::Revoked);
        }
        // One whose time is over, and whose row nobody has removed yet.
        let short = Config { refresh_ttl: Duration::from_millis(50), ..Config::default() };
        let directory = Directory::open(db, short).await.unwrap();
        let first = directory.begin_session(&alice, Some("tablet")).await.unwrap();
        while now_micros() < first.session_expires_at {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let again = directory.begin_session(&alice, Some("tablet")).await.unwrap();
        assert!(again.session_expires_at > first.session_expires_at);
    })
    .await;
}

#[tokio::test]
async fn who_starts_hears_of_every_withdrawal_however_many_there_are() {
    on_each(|db| async {
        let directory = Directory::open(db, Config::default()).await.unwrap();
        let sessions: Vec<Uuid> = (0..1_050).map(|_| Uuid::now_v7()).collect();
        let withdrawn = futures_util::stream::iter(&sessions).map(async |session| {
            directory.revoke_session(&session.to_string()).await.unwrap();
        });
        withdrawn.buffered(4).collect::<Vec<()>>().await;
        let core = imks::testing::pb::CoreClient::from_channel(
            directory.channel(),
            imks::testing::pb::Config::default(),
        );
        let auth = TokenVerifier::start(core, TokenConfig::default()).await.unwrap();
        let identity = |session| Identity {
            user_id: Uuid::nil(),
            username: "alice".into(),
            session_id: Some(session),
            issued_at: 1,
            expires_at: i64::MAX,
        };
        let heard = async {
            while !sessions.iter().all(|session| auth.is_revoked(&identity(*session))) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SEEN, heard).await.expect("all of them");
        assert!(!auth.is_revoked(&identity(Uuid::now_v7())));
    })
    .await;
}
