//! Clusters that imks shares with Node.js servers on one Redis, or one Redis Cluster: stock servers, emitters and clients.

use imks::testing::forward::Forwarder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application;
use crate::broker::{Broker, Kind, redis_cluster};
use crate::script::Script;
use crate::suite::listening;

/// Runs a script with as many nodes of imks as the layout has.
async fn play(script: &'static str, layout: &'static str) {
    play_on(Broker::shared(Kind::Redis).await, script, layout).await;
}

async fn play_on(broker: Broker, script: &'static str, layout: &'static str) {
    play_at(broker.url(), broker.prefix.clone(), script, layout).await;
}

async fn play_at(redis: String, prefix: String, script: &'static str, layout: &'static str) {
    let tasks = TaskTracker::new();
    let (mut nodes, mut urls) = (Vec::new(), Vec::new());
    for (name, kind) in ["one", "two", "three"].into_iter().zip(layout.split(',')) {
        if kind == "imks" {
            let forwarder = Forwarder::new(&tasks, &CancellationToken::new()).unwrap();
            let server = application::classic_server(&redis, &prefix, (name, &forwarder)).unwrap();
            let (io, url) = listening(server, &tasks).await;
            nodes.push(io);
            urls.push(url);
        }
    }
    let urls = urls.join(",");
    let run = move || {
        let environment = [("REDIS", &*redis), ("PREFIX", &*prefix), ("LAYOUT", layout), ("URLS", &*urls)];
        Script::run(script, &environment);
    };
    tokio::task::spawn_blocking(run).await.unwrap();
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_server_among_servers_of_imks_is_one_cluster() {
    Box::pin(play("classic.js", "imks,node,imks")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_of_imks_among_node_servers_is_one_cluster() {
    Box::pin(play("classic.js", "node,imks,node")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_both_kinds_are_one_cluster_on_a_redis_cluster() {
    let (_masters, url) = redis_cluster(0).await;
    Box::pin(play_at(url, "socket.io".into(), "classic_redis_cluster.js", "imks,node,imks")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_messages_of_others_in_the_same_redis_harm_nobody() {
    let mut broker = Broker::shared(Kind::Redis).await;
    // Characters that mean something in patterns mean nothing in a prefix.
    broker.prefix.push_str("*[a]?");
    Box::pin(play_on(broker, "classic_broken.js", "imks,imks")).await;
}
