//! Key packages, and how long it is known that one was handed out.

use std::collections::HashSet;

use futures_util::future::join_all;
use imks::testing::models::key_package::{KeyPackage, claim, forget_claimed, publish};
use serde_json::json;

use crate::support::{id, on_both};

const DAY: i64 = 24 * 3_600 * 1_000_000;

on_both! {
    async fn of_many_claims_at_once_each_gets_another_package_and_then_that_of_last_resort(store: &Store) {
        let (db, user) = (&store.db, id());
        let package = |name: String, last_resort: bool| -> KeyPackage {
            serde_json::from_value(json!({"id": name, "package": "text", "last_resort": last_resort})).unwrap()
        };
        for device in ["phone", "laptop"] {
            let packages = (0..12).map(|number| package(number.to_string(), false)).chain([package("last".into(), true)]);
            assert_eq!(publish(db, user, device.into(), packages.collect(), 0).await.unwrap(), 12);
        }
        let claims = join_all((0..4).map(|_| claim(db, std::slice::from_ref(&user), 1))).await;
        let once: HashSet<(String, String)> =
            claims.into_iter().flat_map(Result::unwrap).map(|it| (it.device_id, it.id)).collect();
        assert_eq!(once.len(), 8, "two devices, four claims");
        for _ in 0..8 {
            assert!(claim(db, &[user], 1).await.unwrap().iter().all(|it| !it.last_resort));
        }
        for claim in join_all((0..4).map(|_| claim(db, std::slice::from_ref(&user), 1))).await {
            let claimed = claim.unwrap();
            assert!(claimed.len() == 2 && claimed.iter().all(|it| it.last_resort), "{claimed:?}");
        }
    }

    async fn a_package_that_was_handed_out_is_not_stored_again_for_a_day(store: &Store) {
        let (db, user) = (&store.db, id());
        let package: KeyPackage = serde_json::from_value(json!({"id": "a", "package": "text"})).unwrap();
        let publish = async |now| publish(db, user, "phone".into(), vec![package.clone()], now).await.unwrap();
        assert_eq!((publish(0).await, publish(0).await), (1, 1));
        assert_eq!(claim(db, &[user, id()], 1).await.unwrap().len(), 1);
        assert_eq!(claim(db, &[user], 2).await.unwrap(), []);
        forget_claimed(db, DAY).await.unwrap();
        assert_eq!(publish(DAY).await, 0);
        forget_claimed(db, DAY + 2).await.unwrap();
        assert_eq!(publish(DAY + 2).await, 1);
    }
}
