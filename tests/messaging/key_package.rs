//! Key packages, for groups that encrypt end to end.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::on_both;
use crate::server::first_channel;

fn packages(ids: std::ops::Range<usize>) -> Value {
    ids.map(|id| json!({"id": format!("{id:03}"), "package": format!("package {id}")})).collect()
}

fn ids(claimed: &Value) -> Vec<&str> {
    claimed["packages"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect()
}

on_both! {
    async fn every_package_is_handed_out_once_and_the_last_resort_again_and_again(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let publish = |packages: Value| json!({"device_id": "phone", "packages": packages});
        assert_eq!(bob.ok("keypackage:publish", publish(packages(0..2))).await, json!({"available": 2}));
        let last = json!([{"id": "last", "package": "again", "last_resort": true}]);
        assert_eq!(bob.ok("keypackage:publish", publish(last)).await, json!({"available": 2}));
        let claim = json!({"channel_id": channel, "user_ids": [bob.ready["user"]["id"]]});
        let first = alice.ok("keypackage:claim", claim.clone()).await;
        let expected = json!({"user_id": bob.ready["user"]["id"], "device_id": "phone", "id": "000",
            "package": "package 0", "last_resort": false});
        assert_eq!((&first["packages"], &first["missing"]), (&json!([expected]), &json!([])));
        assert_eq!(ids(&alice.ok("keypackage:claim", claim.clone()).await), ["001"]);
        for _ in 0..2 {
            assert_eq!(ids(&alice.ok("keypackage:claim", claim.clone()).await), ["last"]);
        }
        assert_eq!(bob.ok("keypackage:publish", publish(packages(0..2))).await, json!({"available": 0}), "a repeat");
        bob.ok("keypackage:publish", json!({"device_id": "laptop", "packages": packages(7..8)})).await;
        assert_eq!(ids(&alice.ok("keypackage:claim", claim).await), ["007", "last"], "one of each device");
    }

    async fn packages_are_for_those_who_share_the_channel(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob, mut eve) =
            (server.client("alice").await, server.client("bob").await, server.client("eve").await);
        for client in [&mut bob, &mut eve] {
            client.ok("keypackage:publish", json!({"device_id": "d", "packages": packages(0..3)})).await;
        }
        let both = json!([bob.ready["user"]["id"], eve.ready["user"]["id"]]);
        let claim = json!({"channel_id": club, "user_ids": both});
        assert_eq!(eve.refused("keypackage:claim", claim.clone()).await["code"], "not_found");
        let claimed = alice.ok("keypackage:claim", claim).await;
        assert_eq!((ids(&claimed), &claimed["missing"]), (vec!["000"], &json!([eve.ready["user"]["id"]])));
        let many = json!({"device_id": "d", "packages": packages(0..101)});
        assert_eq!(bob.refused("keypackage:publish", many).await["details"]["field"], "packages");
        for (range, left) in [(100..200, 102), (200..298, 200)] {
            let more = json!({"device_id": "d", "packages": packages(range)});
            assert_eq!(bob.ok("keypackage:publish", more).await["available"], left);
        }
        let error = bob.refused("keypackage:publish", json!({"device_id": "d", "packages": packages(300..301)})).await;
        assert_eq!((&error["code"], &error["details"]["limit"]), (&json!("limit_reached"), &json!("key_packages")));
    }

    async fn of_many_who_claim_at_once_everybody_gets_another_one(server: TestServer) {
        let mut bob = server.client("bob").await;
        let claim = json!({"channel_id": first_channel(&bob), "user_ids": [bob.ready["user"]["id"]]});
        bob.ok("keypackage:publish", json!({"device_id": "d", "packages": packages(0..20)})).await;
        let mut others = Vec::new();
        for name in ["alice", "carol", "dave", "erin"] {
            others.push(server.client(name).await);
        }
        let mut asked = Vec::new();
        for client in &mut others {
            for _ in 0..5 {
                asked.push(client.ask("keypackage:claim", claim.clone()).await);
            }
        }
        let mut claimed = BTreeSet::new();
        for (number, ask) in asked.into_iter().enumerate() {
            let answer = others[number / 5].answer(ask).await;
            claimed.insert(ids(&answer["data"])[0].to_owned());
        }
        assert_eq!(claimed.len(), 20);
    }
}
