//! Tests of cases in which nobody knows whether a client has missed something: it gets a new session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Cluster, kill, main, settle};
use crate::node::NodeId;
use crate::socket::recovery::log::{Batch, RecoveryLog};
use crate::socket::tests::open;
use crate::socket::tests::recovery::client::Client;
use crate::socket::{Accept, ConnectError};

/// A batch of a node that has never written before.
fn batch(cluster: &Cluster, entries: Vec<Bytes>) -> Batch {
    let (node, epoch) = (NodeId::random().unwrap(), cluster.log.epoch());
    let (sessions, ended) = Default::default();
    Batch { node, serial: 1, epoch, number: 1, entries, sessions, ended, lease: None, again: false }
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_stores_before_it_knows_that_the_log_is_another_one_is_no_session() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    // It has got nothing, and so has no offset that would tell the epoch.
    let mut client = Client::join(&one).await;
    settle(&one).await;
    cluster.log.crash();
    client.socket().join("r");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut writer = Client::join(&two).await;
    sleep(3).await;
    writer.come_back().await;
    for n in 0..5 {
        main(&two).emit("e", &n).unwrap();
    }
    cluster.reach(&two).await;
    let _broken = client.move_to(&two).await;
    assert!(!client.recovered);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_stopped_for_too_long_does_not_call_current_what_it_has_not_followed() {
    let cluster = Cluster::new();
    let end = cluster.log.end();
    let (one, two) = (cluster.node_on(&end, |_| {}), cluster.node());
    let (mut client, _other) = (Client::join(&one).await, Client::join(&two).await);
    main(&two).emit("e", &1).unwrap();
    cluster.reach(&one).await;
    client.read(0).await;
    end.set_cut(true);
    cluster.bus.partition([0]);
    main(&two).to(&client.sid).sockets_join("r").unwrap();
    main(&two).emit("e", &2).unwrap();
    cluster.reach(&two).await;
    cluster.log.shorten(0);
    end.set_cut(false);
    cluster.bus.heal();
    cluster.reach(&one).await;
    assert!(main(&one).socket(&client.sid).is_none(), "the client has missed something");
    // The node has other clients, and tells that it is alive.
    let _another = Client::join(&one).await;
    sleep(12).await;
    let _broken = client.move_to(&two).await;
    assert!(!client.recovered || client.socket().is_in("r"));
}

/// Accepts a client, after a word from outside if it is `slow`.
async fn accept_late(slow: bool, told: Arc<Notify>, goes_on: Arc<Notify>) -> Result<Accept, ConnectError> {
    if slow {
        told.notify_one();
        goes_on.notified().await;
    }
    Ok(Accept::default())
}

fn verdict(refused: bool) -> Result<Accept, ConnectError> {
    if refused { Err(ConnectError::new("not now")) } else { Ok(Accept::default()) }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_changed_while_another_node_asked_its_hook_is_not_taken() {
    let cluster = Cluster::new();
    let (asked, go_on, waits) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
    let (told, goes_on, is_slow) = (asked.clone(), go_on.clone(), waits.clone());
    let one = cluster.node();
    let two = cluster.node_with(|namespace| {
        namespace.on_connect(move |socket, _| {
            let (told, goes_on) = (told.clone(), goes_on.clone());
            let slow = socket.recovered() && is_slow.swap(false, Ordering::Relaxed);
            accept_late(slow, told, goes_on)
        });
    });
    let mut client = Client::join(&one).await;
    settle(&one).await;
    let socket = client.socket();
    let changing = async {
        asked.notified().await;
        // The former node has not noticed that the client left, and its application goes on.
        socket.join("late");
        settle(&one).await;
        go_on.notify_one();
    };
    let (_broken, ()) = tokio::join!(client.move_to(&two), changing);
    assert!(!client.recovered && !waits.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_session_that_its_node_has_changed_since_is_not_used() {
    let cluster = Cluster::new();
    let refusing = Arc::new(AtomicBool::new(true));
    let refuses = refusing.clone();
    let one = cluster.node();
    let two = cluster.node_with(|namespace| {
        namespace.on_connect(move |_, _| std::future::ready(verdict(refuses.load(Ordering::Relaxed))));
    });
    let mut client = Client::join(&one).await;
    settle(&one).await;
    let mut twin = Client::join(&one).await;
    (twin.server, twin.peer, twin.pid) = (two.clone(), open(&two), client.pid.clone());
    assert!(twin.try_connect().await.is_some());
    client.socket().join("r");
    settle(&one).await;
    refusing.store(false, Ordering::Relaxed);
    let _broken = client.move_to(&two).await;
    assert!(client.recovered && client.socket().is_in("r"));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_became_too_large_is_not_recovered_from_what_was_stored_before() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let mut client = Client::join(&one).await;
    settle(&one).await;
    client.socket().share_data("much", "x".repeat(300 << 10));
    client.socket().join("r");
    settle(&one).await;
    kill(&one);
    let _broken = client.move_to(&two).await;
    assert!(!client.recovered);
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_value_that_cannot_be_stored_is_not_recovered_without_it() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let mut client = Client::join(&one).await;
    settle(&one).await;
    // JSON has no such keys.
    client.socket().share_data("pairs", std::collections::HashMap::from([((1, 2), 3)]));
    settle(&one).await;
    kill(&one);
    let _broken = client.move_to(&two).await;
    assert!(!client.recovered);
}

#[tokio::test(start_paused = true)]
async fn after_an_entry_that_this_version_cannot_read_clients_get_new_sessions() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let mut client = Client::join(&one).await;
    settle(&one).await;
    cluster.log.write("/", &batch(&cluster, vec![Bytes::from_static(b"news")])).await.unwrap();
    main(&two).emit("e", &1).unwrap();
    cluster.reach(&two).await;
    cluster.reach(&one).await;
    client.read(0).await;
    assert_eq!(client.numbers(), [1], "the connection goes on");
    for node in [&one, &two] {
        let mut copy = Client::join(node).await;
        (copy.peer, copy.pid, copy.offset) = (open(node), client.pid.clone(), client.offset.clone());
        copy.connect().await;
        assert!(!copy.recovered);
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_configured_with_the_same_name_are_two_in_the_log() {
    let cluster = Cluster::new();
    let named = |cluster: &Cluster| {
        let server = cluster.builder(&cluster.log.end(), |_| {});
        let server = server.node(NodeId::from_bytes([7; 5])).build().unwrap();
        server.listen_to_bus();
        server
    };
    // A process that was killed, and the next one of the same name.
    let one = named(&cluster);
    let mut client = Client::join(&one).await;
    for n in 1..4 {
        main(&one).emit("e", &n).unwrap();
        settle(&one).await;
    }
    client.read(0).await;
    kill(&one);
    let two = named(&cluster);
    let _broken = client.move_to(&two).await;
    assert!(client.recovered);
    main(&two).emit("e", &4).unwrap();
    cluster.reach(&two).await;
    client.read(0).await;
    assert_eq!(client.numbers(), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_when_a_room_changes_keeps_nothing_else_from_happening() {
    let cluster = Cluster::new();
    let one = cluster.node_with(|namespace| {
        namespace.on_room_change(|_, change| {
            assert!(!matches!(change, crate::socket::RoomChange::Joined("bad")), "as always");
        });
    });
    let (first, second) = (Client::join(&one).await, Client::join(&one).await);
    main(&one).everybody().sockets_join("bad").unwrap();
    main(&one).to("bad").emit("e", &1).unwrap();
    cluster.reach(&one).await;
    for mut client in [first, second] {
        assert!(client.socket().is_in("bad"));
        client.read(0).await;
        assert_eq!(client.numbers(), [1]);
    }
}
