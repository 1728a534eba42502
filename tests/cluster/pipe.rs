//! What a pipe promises, on every broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imks::bus::{NoReceiver, Pipe, Subscription};
use imks::node::NodeId;
use tokio::time::{Instant, timeout};

use crate::broker::{Broker, BrokerProcess, Kind, redis_cluster};
use crate::proxy::Line;

/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(subscription: &mut Subscription) -> Bytes {
    timeout(PATIENCE, subscription.recv()).await.expect("a message").expect("an open pipe")
}

async fn confirmed(subscription: &mut Subscription) {
    assert!(timeout(PATIENCE, subscription.confirmed()).await.expect("a confirmation"));
}

async fn is_up(pipe: &Arc<dyn Pipe>, up: bool) -> u64 {
    let mut state = pipe.state();
    match timeout(PATIENCE, state.wait_for(|state| state.up == up)).await {
        Ok(state) => state.unwrap().epoch,
        Err(_) => panic!("up is not {up}: {:?}, {:?}", pipe.ping().await, pipe.state()),
    }
}

/// Publishes until a message arrives, and returns how long that took.
async fn until_heard(from: &Arc<dyn Pipe>, heard: &mut Subscription) -> Duration {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        from.publish("news", Bytes::from_static(b"again"));
        if let Ok(Some(message)) = timeout(Duration::from_millis(50), heard.recv()).await
            && message == "again"
        {
            return started.elapsed();
        }
    }
    panic!("nothing is heard any more");
}

macro_rules! on_each_broker {
    ($($(#[$meta:meta])* async fn $name:ident($broker:ident: Broker) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn run(kind: Kind) {
                let $broker = Broker::shared(kind).await;
                $body
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_redis() {
                Box::pin(run(Kind::Redis)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_nats() {
                Box::pin(run(Kind::Nats)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                Box::pin(run(Kind::Postgres)).await;
            }
        }
    )*};
}

on_each_broker! {
    async fn what_is_published_after_the_confirmation_arrives_in_order(broker: Broker) {
        let ((_, one), (_, two)) = (broker.pipe().await, broker.pipe().await);
        let (mut news, mut other) = (two.subscribe("/a room: *.>\u{e9}"), two.subscribe("other"));
        confirmed(&mut news).await;
        confirmed(&mut other).await;
        for n in 0..1_000_u32 {
            one.publish("/a room: *.>\u{e9}", n.to_string().into());
        }
        one.publish("other", Bytes::from_static(&[0, 255, 1]));
        for n in 0..1_000_u32 {
            assert_eq!(next(&mut news).await, n.to_string());
        }
        assert_eq!(next(&mut other).await, [0, 255, 1][..]);
        assert_eq!((one.state().borrow().lost, two.state().borrow().lost), (0, 0));
        assert!(one.ping().await.is_ok());
        one.close().await;
        two.close().await;
        assert_eq!(timeout(PATIENCE, news.recv()).await, Ok(None));
        assert!(one.ping().await.is_err());
    }

    async fn a_message_to_one_node_reaches_it_or_is_known_to_reach_nobody(broker: Broker) {
        let ((_, one), (node, two)) = (broker.pipe().await, broker.pipe().await);
        let mut own = two.receive(node);
        confirmed(&mut own).await;
        assert_eq!(one.send_to(node, Bytes::from_static(b"you")).await, Ok(()));
        assert_eq!(next(&mut own).await, "you");
        let started = Instant::now();
        let nobody = NodeId::random().unwrap();
        assert_eq!(one.send_to(nobody, Bytes::from_static(b"you")).await, Err(NoReceiver));
        assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
        two.close().await;
        assert_eq!(one.send_to(node, Bytes::from_static(b"you")).await, Err(NoReceiver));
    }

    async fn a_subscription_that_ended_and_one_that_came_late_disturb_nobody(broker: Broker) {
        let ((_, one), (_, two)) = (broker.pipe().await, broker.pipe().await);
        let mut first = two.subscribe("news");
        confirmed(&mut first).await;
        drop(first);
        let mut second = two.subscribe("news");
        let mut third = two.subscribe("news");
        confirmed(&mut second).await;
        confirmed(&mut third).await;
        one.publish("news", Bytes::from_static(b"x"));
        assert_eq!((next(&mut second).await, next(&mut third).await), ("x".into(), "x".into()));
    }

    async fn two_clusters_in_one_broker_do_not_hear_each_other(broker: Broker) {
        let (_, one) = broker.pipe().await;
        let mut news = one.subscribe("news");
        confirmed(&mut news).await;
        let others = Broker::shared(broker.kind).await;
        let (_, stranger) = others.pipe().await;
        stranger.publish("news", Bytes::from_static(b"not for you"));
        stranger.close().await;
        one.publish("news", Bytes::from_static(b"for you"));
        if broker.kind != Kind::Postgres {
            assert_eq!(next(&mut news).await, "for you");
        }
    }

    async fn a_cut_connection_is_replaced_and_everybody_is_told(broker: Broker) {
        let ((_, one), (_, two)) = (broker.pipe().await, broker.pipe().await);
        let mut news = two.subscribe("news");
        confirmed(&mut news).await;
        broker.proxy.set(Line::Cut);
        assert_eq!((is_up(&one, false).await, is_up(&two, false).await), (0, 0));
        assert!(one.ping().await.is_err());
        broker.proxy.set(Line::Open);
        assert_eq!((is_up(&one, true).await, is_up(&two, true).await), (1, 1));
        let took = until_heard(&one, &mut news).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    async fn a_silent_connection_is_noticed_and_replaced(broker: Broker) {
        let ((_, one), (_, two)) = (broker.pipe().await, broker.pipe().await);
        let mut news = two.subscribe("news");
        confirmed(&mut news).await;
        broker.proxy.set(Line::Silent);
        let started = Instant::now();
        is_up(&one, false).await;
        is_up(&two, false).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        broker.proxy.set(Line::Open);
        // An attempt that hangs in the silence is given up first.
        assert_eq!((is_up(&one, true).await, is_up(&two, true).await), (1, 1));
        until_heard(&one, &mut news).await;
    }

    async fn publishing_into_an_outage_never_waits_and_what_is_lost_is_counted(broker: Broker) {
        let (_, one) = broker.pipe().await;
        broker.proxy.set(Line::Cut);
        is_up(&one, false).await;
        let before = one.state().borrow().lost;
        let started = Instant::now();
        for _ in 0..20_000 {
            one.publish("news", Bytes::from_static(b"x"));
        }
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(one.state().borrow().lost - before, 20_000 - 16_384);
        one.close().await;
    }
}

async fn killed_and_paused(kind: Kind) {
    let mut process = BrokerProcess::start(kind).await;
    let broker = Broker::own(&process).await;
    let ((_, one), (node, two)) = (broker.pipe().await, broker.pipe().await);
    let (mut news, mut own) = (two.subscribe("news"), two.receive(node));
    confirmed(&mut news).await;
    confirmed(&mut own).await;
    process.kill();
    is_up(&one, false).await;
    is_up(&two, false).await;
    process.restart().await;
    assert_eq!((is_up(&one, true).await, is_up(&two, true).await), (1, 1));
    let took = until_heard(&one, &mut news).await;
    assert!(took < Duration::from_secs(2), "after a restart: {took:?}");
    assert_eq!(one.send_to(node, Bytes::from_static(b"you")).await, Ok(()));
    assert_eq!(next(&mut own).await, "you");
    process.pause();
    is_up(&one, false).await;
    process.resume();
    is_up(&one, true).await;
    is_up(&two, true).await;
    let took = until_heard(&one, &mut news).await;
    assert!(took < Duration::from_secs(2), "after a pause: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_restarted_empty_and_paused() {
    Box::pin(killed_and_paused(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_restarted_empty_and_paused() {
    Box::pin(killed_and_paused(Kind::Nats)).await;
}

/// Whether two pipes to this URL hear each other, or the error of the first one.
async fn hear_each_other(connect: impl Fn(NodeId) -> Arc<dyn Pipe>) -> Result<(), String> {
    let (one, two) = (connect(NodeId::random().unwrap()), connect(NodeId::random().unwrap()));
    for pipe in [&one, &two] {
        let mut state = pipe.state();
        if timeout(Duration::from_secs(3), state.wait_for(|state| state.up)).await.is_err() {
            return Err(format!("{:?}", pipe.ping().await));
        }
    }
    let node = NodeId::random().unwrap();
    let (mut all, mut own) = (Vec::new(), two.receive(node));
    for n in 0..20 {
        all.push(two.subscribe(&format!("news {n}")));
    }
    confirmed(&mut own).await;
    for (n, news) in all.iter_mut().enumerate() {
        confirmed(news).await;
        one.publish(&format!("news {n}"), n.to_string().into());
        assert_eq!(next(news).await, n.to_string());
    }
    assert_eq!(one.send_to(node, Bytes::from_static(b"you")).await, Ok(()));
    assert_eq!(next(&mut own).await, "you");
    assert_eq!(one.send_to(NodeId::random().unwrap(), Bytes::new()).await, Err(NoReceiver));
    one.close().await;
    two.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_passwords_are_sent_and_wrong_ones_are_refused() {
    let redis = BrokerProcess::start_with(Kind::Redis, &["--requirepass", "secret"]).await;
    let url = |password: &str| format!("redis://default:{password}@{}", redis.addr);
    let connect = |url: String| move |node| imks::socket::adapter::redis::connect(&url, "p", node).unwrap();
    assert_eq!(hear_each_other(connect(url("secret"))).await, Ok(()));
    let refused = hear_each_other(connect(url("wrong"))).await.unwrap_err();
    assert!(refused.contains("WRONGPASS") && !refused.contains("secret"), "{refused}");
    let nats = BrokerProcess::start_with(Kind::Nats, &["--user", "me", "--pass", "secret"]).await;
    let url = |password: &str| format!("nats://me:{password}@{}", nats.addr);
    let connect =
        |url: String| move |node| imks::socket::adapter::nats::connect(&url, None, "p", node).unwrap();
    assert_eq!(hear_each_other(connect(url("secret"))).await, Ok(()));
    let refused = hear_each_other(connect(url("wrong"))).await.unwrap_err();
    assert!(refused.contains("authorization") && !refused.contains("secret"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_carries_messages_on_all_its_shards() {
    let (_shards, url) = redis_cluster(0).await;
    let connect = |node| imks::socket::adapter::redis::connect(&url, "p", node).unwrap();
    assert_eq!(hear_each_other(connect).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_whose_master_dies_carries_messages_again_when_a_replica_has_taken_its_place() {
    let (mut nodes, url) = redis_cluster(1).await;
    let own = || imks::socket::adapter::redis::connect(&url, "p", NodeId::random().unwrap()).unwrap();
    let classic = || imks::socket::adapter::redis::classic(&url, "p").unwrap();
    let pairs = [[own(), own()], [classic(), classic()]];
    let mut heard = pairs.each_ref().map(|[_, two]| two.subscribe("news"));
    for ([one, two], news) in pairs.iter().zip(&mut heard) {
        is_up(one, true).await;
        is_up(two, true).await;
        confirmed(news).await;
    }
    nodes[0].kill();
    for pipe in pairs.iter().flatten() {
        let mut state = pipe.state();
        let again = state.wait_for(|state| state.up && state.epoch > 0);
        assert!(timeout(PATIENCE, again).await.is_ok(), "{:?}", pipe.ping().await);
    }
    for ([one, _], news) in pairs.iter().zip(&mut heard) {
        let took = until_heard(one, news).await;
        assert!(took < Duration::from_secs(2), "after the end of a master: {took:?}");
    }
}
