//! What sessions need to continue: who takes one, and what is forgotten.

use imks::testing::models::db::Db;
use imks::testing::models::resume::{
    Last, StoredPart, StoredSession, add_part, channels, find, fold, folded, lasts, old_parts, parts, put,
    renew, set_channels, sweep, take, went_away,
};
use uuid::Uuid;

use crate::support::{id, on_both};

const WINDOW: i64 = 120_000_000;

fn session(number: u8, generation: i64) -> StoredSession {
    StoredSession {
        key: vec![number; 32],
        user: Uuid::nil(),
        token_session: None,
        generation,
        epoch: 1,
        began: 1,
        user_rev: 0,
        channels: vec![number],
        former: None,
    }
}

/// The first bytes of the keys of the sessions that are there, of the first ten.
async fn there(db: &Db) -> Vec<u8> {
    let keys: Vec<[u8; 32]> = (0..10).map(|number| [number; 32]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let mut there: Vec<u8> = find(db, &keys).await.unwrap().iter().map(|found| found.key[0]).collect();
    there.sort_unstable();
    there
}

on_both! {
    async fn of_several_who_take_one_session_one_gets_it_and_the_others_get_theirs(store: &Store) {
        let db = &store.db;
        renew(db, 1).await.unwrap();
        let all: Vec<StoredSession> = (0..4).map(|number| session(number, 0)).collect();
        put(db, &all).await.unwrap();
        let next = |number: u8, generation: i64, channels: u8| {
            StoredSession { channels: vec![channels], former: Some(vec![9]), ..session(number, generation) }
        };
        let claims = [next(2, 1, 20), next(0, 1, 21), next(2, 1, 22), next(1, 2, 23), next(8, 1, 24)];
        let taken = take(db, &claims).await.unwrap();
        assert_eq!((taken[1], taken[3], taken[4]), (true, false, false), "it is there, of another generation, not there");
        assert!(taken[0] != taken[2], "one of two");
        let winner = if taken[0] { 20 } else { 22 };
        let found = find(db, &[&[2; 32]]).await.unwrap().remove(0);
        assert_eq!((found.generation, found.channels, found.former), (1, vec![winner], Some(vec![9])));
        assert_eq!(take(db, &[next(2, 1, 25)]).await.unwrap(), [false], "too late");
    }

    async fn many_who_take_the_same_sessions_in_any_order_at_once_do_not_wait_for_each_other(store: &Store) {
        let db = &store.db;
        renew(db, 1).await.unwrap();
        let all: Vec<StoredSession> = (0..100).map(|number| session(number, 0)).collect();
        put(db, &all).await.unwrap();
        let next: Vec<StoredSession> = (0..100).map(|number| session(number, 1)).collect();
        let back: Vec<StoredSession> = next.iter().rev().cloned().collect();
        let claims: Vec<(Vec<u8>, i64)> = all.iter().rev().map(|it| (it.key.clone(), 0)).collect();
        let (one, two, away) = tokio::join!(take(db, &next), take(db, &back), went_away(db, &claims));
        away.unwrap();
        let taken = |all: Vec<bool>| all.into_iter().filter(|taken| *taken).count();
        assert_eq!(taken(one.unwrap()) + taken(two.unwrap()), 100);
    }

    async fn the_channels_of_many_change_together_but_of_those_that_others_have_continued(store: &Store) {
        let db = &store.db;
        renew(db, 1).await.unwrap();
        put(db, &(0..3).map(|number| session(number, 0)).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(take(db, &[session(1, 1)]).await.unwrap(), [true]);
        let change = |number: u8| ((vec![number; 32], 0), vec![number, 7]);
        set_channels(db, &[0, 1, 2, 9].map(change)).await.unwrap();
        set_channels(db, &[]).await.unwrap();
        let stored = channels(db, &[&[0; 32], &[1; 32], &[2; 32], &[9; 32]]).await.unwrap();
        let of = |number: u8, generation: i64| stored.get(&(vec![number; 32], generation)).cloned();
        assert_eq!([of(0, 0), of(1, 1), of(2, 0)], [Some(vec![0, 7]), Some(vec![1]), Some(vec![2, 7])]);
        assert_eq!(stored.len(), 3);
    }

    async fn those_who_left_first_are_forgotten_first(store: &Store) {
        let db = &store.db;
        renew(db, 1).await.unwrap();
        let all: Vec<StoredSession> = (0..5).map(|number| session(number, 0)).collect();
        put(db, &all).await.unwrap();
        for number in [3, 1, 4, 0] {
            went_away(db, &[(vec![number; 32], 0)]).await.unwrap();
            // The clock of SQLite counts milliseconds; without this, two may have left at the same time.
            store.execute("UPDATE resume_session SET away_at = away_at - 1000").await;
        }
        sweep(db, WINDOW, 4).await.unwrap();
        assert_eq!(there(db).await, [0, 1, 2, 3, 4], "as many as there may be, and one that is connected");
        sweep(db, WINDOW, 2).await.unwrap();
        assert_eq!(there(db).await, [0, 2, 4]);
        store.execute("UPDATE resume_session SET away_at = away_at - 130000000").await;
        sweep(db, WINDOW, 9).await.unwrap();
        assert_eq!(there(db).await, [2], "the others are away for too long");
    }

    async fn a_journal_that_was_made_short_knows_the_last_of_each_channel(store: &Store) {
        let (db, [one, two]) = (&store.db, [id(), id()]);
        renew(db, 1).await.unwrap();
        let part = |n: i64| StoredPart { n, upto: n * 10, deliveries: vec![0; 8] };
        for n in 1..=3 {
            add_part(db, 1, &part(n)).await.unwrap();
        }
        let old = old_parts(db, 1, WINDOW, 8).await.unwrap();
        assert_eq!(old.iter().map(|it| it.n).collect::<Vec<_>>(), [1, 2], "the newest bytes stay");
        let last = |channel_id: Uuid, began: i64| Last { channel_id, began, ended: began + 1, seq: began, rev: 0 };
        fold(db, 1, (1, 10), &[last(one, 3), last(two, 5)]).await.unwrap();
        fold(db, 1, (2, 20), &[last(one, 13)]).await.unwrap();
        assert_eq!(folded(db, 1).await.unwrap(), Some(20));
        assert_eq!(parts(db, 1, 0).await.unwrap(), [part(3)]);
        let mut known = lasts(db, 1, &[one, two, id()]).await.unwrap();
        known.sort_by_key(|last| last.began);
        assert_eq!(known, [last(two, 5), last(one, 13)]);
    }
}
