//! Key packages, and how long it is known that one was handed out.

use imks::testing::models::key_package::{KeyPackage, claim, forget_claimed, publish};
use serde_json::json;

use crate::support::{id, on_both};

const DAY: i64 = 24 * 3_600 * 1_000_000;

on_both! {
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
