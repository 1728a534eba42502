//! Tests of connection state recovery across nodes, with a simulated bus and a simulated log.

mod doubt;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::recovery::client::Client;
use super::recovery::main;
use crate::bus::sim::SimBus;
use crate::engine::MemoryPeer;
use crate::socket::recovery::log_sim::{Moods, SimLog};
use crate::socket::tests::open;
use crate::socket::{Accept, Config, NamespaceBuilder, Recovery, Server, ServerBuilder};

/// The nodes of a cluster, with their bus and their log.
struct Cluster {
    bus: SimBus,
    log: SimLog,
    recovery: Recovery,
}

impl Cluster {
    fn new() -> Self {
        let log = SimLog::new(1, Moods { delay_max: Duration::from_millis(4), ..Moods::default() });
        Self { bus: SimBus::default(), log, recovery: Recovery::default() }
    }

    fn node(&self) -> Server {
        self.node_with(|_| {})
    }

    fn node_with(&self, describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
        self.node_on(&self.log.end(), describe)
    }

    /// Starts a node with its end of the log.
    fn node_on(&self, log: &SimLog, describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
        let server = self.builder(log, describe).build().unwrap();
        server.listen_to_bus();
        server
    }

    fn builder(&self, log: &SimLog, describe: impl FnOnce(&mut NamespaceBuilder)) -> ServerBuilder {
        let config = Config { recovery: Some(self.recovery.clone()), ..Config::default() };
        let server = Server::builder(config).adapter(self.bus.pipe()).recovery_log(Arc::new(log.clone()));
        server.namespace("/", |namespace| {
            namespace.recover_data::<String>("name");
            describe(namespace);
        })
    }

    /// Waits until the node has delivered everything.
    async fn reach(&self, node: &Server) {
        let store = main(node).delivery().shared().unwrap().clone();
        while !store.is_settled() || store.position() < self.log.last() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn settle(node: &Server) {
    main(node).delivery().settle().await;
}

/// Ends a node as a process that is killed: nobody hears of it, and what it has not written is lost.
fn kill(node: &Server) {
    main(node).delivery().shared().unwrap().abandon();
}

impl Client {
    /// Breaks the connection in a way that the server does not notice, and comes back to another node. The result keeps
    /// the broken connection.
    async fn move_to(&mut self, node: &Server) -> MemoryPeer {
        let broken = std::mem::replace(&mut self.peer, open(node));
        self.server = node.clone();
        self.connect().await;
        broken
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_continues_on_another_node_with_its_rooms_its_data_and_what_it_missed() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let mut client = Client::join(&one).await;
    client.socket().join("r");
    client.socket().join("left");
    client.socket().leave("left");
    client.socket().share_data("name", "anna".to_owned());
    client.socket().share_data("age", 7);
    main(&two).to("r").emit("e", &1).unwrap();
    cluster.reach(&two).await;
    cluster.reach(&one).await;
    client.read(0).await;
    client.drop_connection().await;
    main(&two).to("r").emit("e", &2).unwrap();
    main(&one).to("left").emit("e", &99).unwrap();
    main(&one).to("r").emit("e", &3).unwrap();
    for node in [&two, &one, &two] {
        let id = client.sid.clone();
        client.server = node.clone();
        client.come_back().await;
        assert!(client.recovered && client.sid == id);
        let socket = client.socket();
        assert!(socket.recovered() && socket.is_in("r") && !socket.is_in("left"));
        assert_eq!(*socket.data::<String>().unwrap(), "anna");
        assert_eq!(socket.shared_data(), json!({ "name": "anna", "age": 7 }));
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.drop_connection().await;
    }
    assert_eq!(client.numbers(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_node_was_killed_continues_and_again_and_again() {
    let cluster = Cluster::new();
    let other = cluster.node();
    let mut nodes = vec![cluster.node()];
    let mut client = Client::join(&nodes[0]).await;
    let (mut sent, mut broken) = (0, Vec::new());
    client.socket().join("r");
    for round in 0..3 {
        for _ in 0..2 {
            sent += 1;
            main(&other).to("r").emit("e", &sent).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // What was sent to it last has not reached the client.
        client.read(1).await;
        kill(nodes.last().unwrap());
        sent += 1;
        main(&other).to(&client.sid).emit("e", &sent).unwrap();
        nodes.push(cluster.node());
        broken.push(client.move_to(nodes.last().unwrap()).await);
        assert!(client.recovered, "round {round}");
        assert_eq!(client.numbers(), (1..=sent).collect::<Vec<u64>>());
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_that_does_not_know_yet_that_its_client_has_moved_lets_it_go() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let mut client = Client::join(&one).await;
    client.socket().join("r");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _broken = client.move_to(&two).await;
    assert!(client.recovered);
    cluster.reach(&two).await;
    cluster.reach(&one).await;
    assert_eq!((main(&one).len(), main(&two).len()), (0, 1));
    main(&one).to("r").emit("e", &1).unwrap();
    cluster.reach(&one).await;
    cluster.reach(&two).await;
    client.read(0).await;
    assert_eq!(client.numbers(), [1]);
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_see_the_same_client_at_once_one_continues_its_session() {
    for seed in 0..20 {
        let cluster = Cluster {
            log: SimLog::new(seed, Moods { delay_max: Duration::from_millis(30), ..Moods::default() }),
            ..Cluster::new()
        };
        let nodes = [cluster.node(), cluster.node(), cluster.node()];
        let mut client = Client::join(&nodes[0]).await;
        settle(&nodes[0]).await;
        client.drop_connection().await;
        settle(&nodes[0]).await;
        let (mut copy, hello) = (Client::join(&nodes[2]).await, client.hello());
        (copy.pid, copy.offset) = (client.pid.clone(), client.offset.clone());
        assert_eq!(copy.hello(), hello);
        client.server = nodes[1].clone();
        client.peer = open(&nodes[1]);
        copy.peer = open(&nodes[2]);
        tokio::join!(client.connect(), copy.connect());
        assert!(client.recovered != copy.recovered, "seed {seed}");
        assert_ne!(client.sid, copy.sid);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_everything_or_is_too_short_leads_to_new_sessions_and_never_to_a_wrong_yes() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let mut client = Client::join(&one).await;
    main(&one).emit("e", &1).unwrap();
    cluster.reach(&one).await;
    client.read(0).await;
    client.drop_connection().await;
    settle(&one).await;
    for n in 2..6 {
        main(&one).emit("e", &n).unwrap();
    }
    cluster.reach(&one).await;
    cluster.log.shorten(2);
    // A node that starts now knows no more than the log.
    let three = cluster.node();
    client.server = three.clone();
    client.come_back().await;
    assert!(!client.recovered);
    settle(&three).await;
    client.drop_connection().await;
    settle(&three).await;
    cluster.log.crash();
    client.server = two.clone();
    client.come_back().await;
    assert!(!client.recovered);
    // The nodes notice the loss, and go on.
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.come_back().await;
    main(&one).emit("e", &7).unwrap();
    cluster.reach(&one).await;
    cluster.reach(&two).await;
    client.received.clear();
    client.read(0).await;
    assert_eq!(client.numbers(), [7]);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_answers_to_changes_wait_and_nothing_is_lost() {
    let cluster = Cluster::new();
    let describe = |namespace: &mut NamespaceBuilder| {
        namespace.on_sync("join", |mut event| {
            event.socket().join("r");
            event.take_ack().unwrap().send(&1).unwrap();
        });
        namespace.on_sync("ping", |mut event| event.take_ack().unwrap().send(&2).unwrap());
    };
    let (one, two) = (cluster.node_with(describe), cluster.node());
    let mut client = Client::join(&one).await;
    settle(&one).await;
    cluster.log.set_moods(Moods { away: true, ..Moods::default() });
    client.peer.send(r#"20["ping"]"#);
    assert_eq!(super::text(&client.peer).await, "30[2]", "nothing changed");
    client.peer.send(r#"21["join"]"#);
    main(&two).to("r").emit("e", &1).unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    client.peer.send(r#"22["ping"]"#);
    cluster.log.set_moods(Moods::default());
    assert_eq!(super::text(&client.peer).await, "31[1]", "what came first is answered first");
    assert_eq!(super::text(&client.peer).await, "32[2]");
    cluster.reach(&two).await;
    cluster.reach(&one).await;
    client.read(0).await;
    assert_eq!(client.numbers(), [1]);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_answers_to_broadcasts_wait_and_nobody_else_does() {
    let cluster = Cluster::new();
    let describe = |namespace: &mut NamespaceBuilder| {
        namespace.on_sync("say", |mut event| {
            event.socket().to("r").emit("e", &1).unwrap();
            event.take_ack().unwrap().send(&1).unwrap();
        });
        namespace.on("say later", |mut event| async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            event.socket().namespace().to("r").emit("e", &2).unwrap();
            event.take_ack().unwrap().send(&2).unwrap();
        });
        namespace.on_sync("ping", |mut event| event.take_ack().unwrap().send(&3).unwrap());
    };
    let (one, two) = (cluster.node_with(describe), cluster.node());
    let [first, second, other] =
        [Client::join(&one).await, Client::join(&one).await, Client::join(&one).await];
    let mut far = Client::join(&two).await;
    far.socket().join("r");
    settle(&one).await;
    settle(&two).await;
    cluster.log.set_moods(Moods { away: true, ..Moods::default() });
    first.peer.send(r#"20["say"]"#);
    second.peer.send(r#"20["say later"]"#);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for client in [&first, &second] {
        client.peer.send(r#"21["ping"]"#);
    }
    other.peer.send(r#"20["ping"]"#);
    assert_eq!(super::text(&other.peer).await, "30[3]", "it has sent nothing");
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.log.set_moods(Moods::default());
    for (client, answer) in [(&first, "30[1]"), (&second, "30[2]")] {
        assert_eq!(super::text(&client.peer).await, answer);
        assert_eq!(super::text(&client.peer).await, "31[3]");
    }
    kill(&one);
    cluster.reach(&two).await;
    far.read(0).await;
    assert_eq!(far.numbers(), [1, 2], "what was answered is true on every node");
}

#[tokio::test(start_paused = true)]
async fn what_this_node_sends_stays_in_order_also_past_the_log() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(), cluster.node());
    let client = Client::join(&one).await;
    let namespace = main(&one);
    namespace.emit("e", "logged").unwrap();
    namespace.everybody().local().emit("e", "local").unwrap();
    namespace.everybody().volatile().emit("e", "volatile").unwrap();
    client.socket().emit("e", "own").unwrap();
    cluster.reach(&one).await;
    cluster.reach(&two).await;
    for expected in ["logged", "local", "volatile", "own"] {
        assert!(super::text(&client.peer).await.starts_with(&format!(r#"2["e","{expected}""#)), "{expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_the_connect_hook_follow_the_reply_and_only_the_owner_comes_back() {
    let cluster = Cluster::new();
    let describe = |namespace: &mut NamespaceBuilder| {
        namespace.on_connect(|socket, payload| async move {
            socket.emit("e", &1).unwrap();
            let user: Value = payload.parse().unwrap();
            Ok(Accept::default().with_owner(user["user"].as_str().unwrap_or_default()))
        });
    };
    let (one, two) = (cluster.node_with(describe), cluster.node_with(describe));
    let mut client = Client::join_as(&one, json!({ "user": "anna" })).await;
    cluster.reach(&one).await;
    client.read(0).await;
    assert_eq!(client.numbers(), [1]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut thief = Client::join_as(&two, json!({ "user": "bert" })).await;
    (thief.pid, thief.offset, thief.peer) = (client.pid.clone(), client.offset.clone(), open(&two));
    thief.connect().await;
    assert!(!thief.recovered);
    cluster.reach(&one).await;
    assert!(client.socket().is_connected(), "the owner does not notice");
    let _broken = client.move_to(&two).await;
    assert!(client.recovered);
}
