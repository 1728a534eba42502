//! What happens on one node of `imks serve` is true on all of them: who types, what a user may do, how many connections
//! they have, and what an operator sees.

use std::time::Duration;

use imks::socket::admin::Mode;
use imks::socket::rate_limit::Rate;
use imks::testing::config::Setting;
use imks::testing::directory::{Subject, permission_bits};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::broker::Kind;
use crate::client::TestClient;
use crate::serve::{Cluster, on_each_broker};
use crate::server::first_channel;

/// The promise, and as much again for a machine that runs other tests beside this one.
const SOON: Duration = Duration::from_secs(2);
/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(15);

/// The next event with this name, which must come soon.
async fn soon(client: &mut TestClient, name: &str) -> Value {
    let started = Instant::now();
    let payload = timeout(PATIENCE, client.expect(name)).await.expect(name);
    assert!(started.elapsed() < SOON, "{name} took {:?}", started.elapsed());
    payload
}

on_each_broker! {
    async fn who_types_is_seen_on_all_nodes_until_they_send_stop_or_leave(cluster: Cluster) {
        let (mut bob, mut carol) = (cluster.client(1, "bob").await, cluster.client(2, "carol").await);
        let mut alice = cluster.client(0, "alice").await;
        let channel = first_channel(&alice);
        let here = json!({ "channel_id": channel });
        for end in ["send", "stop", "leave"] {
            alice.ok("typing:start", here.clone()).await;
            for other in [&mut bob, &mut carol] {
                let typing = soon(other, "typing").await;
                assert_eq!((&typing["user"]["username"], &typing["typing"]), (&json!("alice"), &json!(true)));
            }
            match end {
                "send" => drop(alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await),
                "stop" => drop(alice.ok("typing:stop", here.clone()).await),
                _ => drop(std::mem::replace(&mut alice, cluster.client(1, "dave").await)),
            }
            for other in [&mut bob, &mut carol] {
                assert_eq!(soon(other, "typing").await["typing"], false, "after {end}");
            }
        }
    }

    async fn what_a_user_may_do_is_the_same_on_all_nodes_within_a_second(cluster: Cluster) {
        let mut alice = cluster.client(1, "alice").await;
        let mut laptop = cluster.client(2, "alice").await;
        let message = json!({ "channel_id": first_channel(&alice), "body": "hi" });
        for device in [&mut alice, &mut laptop] {
            device.ok("message:send", message.clone()).await;
        }
        let directory = cluster.nodes[0].directory();
        let send = permission_bits(&["SEND_MESSAGES"]).unwrap();
        for (deny, may) in [(send, false), (0, true)] {
            let started = Instant::now();
            directory.set_override("general", Subject::User("alice"), 0, deny).await.unwrap();
            for device in [&mut alice, &mut laptop] {
                while device.call("message:send", message.clone()).await["ok"] != may {
                    assert!(started.elapsed() < PATIENCE, "still not {may}");
                    sleep(Duration::from_millis(10)).await;
                }
            }
            assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        }
        let view = permission_bits(&["VIEW_CHANNEL"]).unwrap();
        directory.set_override("general", Subject::User("alice"), 0, view).await.unwrap();
        for device in [&mut alice, &mut laptop] {
            assert_eq!(soon(device, "channel:left").await["reason"], "forbidden");
        }
    }
}

async fn so_many_connections(kind: Kind) {
    let cluster = Cluster::start_with(kind, 3, |config| config.messaging.sessions_per_user = 3).await;
    let mut devices = Vec::new();
    for node in 0..3 {
        devices.push(cluster.client(node, "alice").await);
    }
    // Until every node knows of the others.
    sleep(Duration::from_secs(1)).await;
    let token = cluster.nodes[0].token("alice").await;
    for node in &cluster.nodes {
        let mut further = TestClient::open(node.addr()).await;
        further.raw(&format!("40{}", json!({ "token": token }))).await;
        let admitted = timeout(Duration::from_millis(500), further.event()).await;
        assert!(admitted.is_err(), "there are three, on all nodes together: {admitted:?}");
    }
    let mut further = TestClient::open(cluster.nodes[0].addr()).await;
    further.raw(&format!("40{}", json!({ "token": token }))).await;
    cluster.client(0, "bob").await.ok("ping", json!({})).await;
    // One that was connected to another node.
    devices.pop();
    let left = Instant::now();
    assert_eq!(further.event().await.0, "session:ready", "as soon as there is room");
    assert!(left.elapsed() < SOON, "{:?}", left.elapsed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_whatever_nodes_they_are_on_with_redis() {
    Box::pin(so_many_connections(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_whatever_nodes_they_are_on_with_nats() {
    Box::pin(so_many_connections(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_whatever_nodes_they_are_on_with_postgres() {
    Box::pin(so_many_connections(Kind::Postgres)).await;
}

async fn so_many_messages(kind: Kind) {
    let rate = Rate::new(1, 20);
    let cluster = Cluster::start_with(kind, 2, |config| config.messaging.sends = rate).await;
    let (mut phone, mut laptop) = (cluster.client(0, "alice").await, cluster.client(1, "alice").await);
    let message = json!({ "channel_id": first_channel(&phone), "body": "hi" });
    // Until both nodes know of her on the other one.
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    for _ in 0..rate.burst {
        phone.ok("message:send", message.clone()).await;
    }
    sleep(Duration::from_millis(1_500)).await;
    let mut sent = 0;
    while laptop.call("message:send", message.clone()).await["ok"] == true {
        sent += 1;
    }
    let earned = started.elapsed().as_secs() + 1;
    assert!(sent <= earned, "{sent} more from another node, and only {earned} were earned meanwhile");
    let refused = laptop.refused("message:send", message).await;
    assert_eq!(
        (&refused["code"], &refused["details"]["bucket"]),
        (&json!("rate_limited"), &json!("send:user"))
    );
    cluster.client(1, "bob").await.ok("ping", json!({})).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rates_of_a_user_count_on_all_nodes_together_with_redis() {
    Box::pin(so_many_messages(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rates_of_a_user_count_on_all_nodes_together_with_nats() {
    Box::pin(so_many_messages(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rates_of_a_user_count_on_all_nodes_together_with_postgres() {
    Box::pin(so_many_messages(Kind::Postgres)).await;
}

/// The next event of this name on a page for which `wanted` is true.
async fn shown(page: &mut TestClient, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let showing = async {
        loop {
            let payload = page.expect(name).await;
            if wanted(&payload) {
                break payload;
            }
        }
    };
    timeout(PATIENCE, showing).await.expect(name)
}

async fn an_operator_watches(kind: Kind) {
    let names = std::cell::Cell::new(0);
    let cluster = Cluster::start_with(kind, 2, |config| {
        names.set(names.get() + 1);
        config.admin.enabled = true;
        config.admin.auth = Setting::parse("none").unwrap();
        config.admin.mode = Mode::Development;
        config.admin.server_id = Some(format!("server {}", names.get()));
    })
    .await;
    let mut bob = cluster.client(1, "bob").await;
    let is_bob = |socket: &&Value| socket["nsp"] == "/";
    let deadline = Instant::now() + PATIENCE;
    let (mut page, socket) = loop {
        let mut page = TestClient::open(cluster.nodes[0].addr()).await;
        page.join_at("/admin,", json!({})).await.unwrap();
        let all = shown(&mut page, "all_sockets", |_| true).await;
        if let Some(socket) = all.as_array().unwrap().iter().find(is_bob) {
            break (page, socket.clone());
        }
        // The nodes have just started, and hear of each other soon.
        assert!(Instant::now() < deadline, "the socket of the other node is not shown: {all}");
        sleep(Duration::from_millis(50)).await;
    };
    for server in ["server 1", "server 2"] {
        let has_one = |stats: &Value| stats["serverId"] == server && stats["clientsCount"] == 1;
        shown(&mut page, "server_stats", has_one).await;
    }
    page.raw(&format!(r#"42/admin,{}"#, json!(["_disconnect", "/", true, socket["id"]]))).await;
    assert!(bob.was_dismissed().await, "the page of one node ends sockets of the other");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_operator_on_one_node_shows_and_reaches_the_sockets_of_all_with_redis() {
    Box::pin(an_operator_watches(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_operator_on_one_node_shows_and_reaches_the_sockets_of_all_with_nats() {
    Box::pin(an_operator_watches(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_operator_on_one_node_shows_and_reaches_the_sockets_of_all_with_postgres() {
    Box::pin(an_operator_watches(Kind::Postgres)).await;
}
