//! Publish and subscribe with the Rust client, over rooms of imks and of the reference.

use std::time::Duration;

use imks::client::ClientError;
use imks::client::pubsub::{PubSub, Subscription};
use tokio::time::timeout;

use crate::application::{Application, Kind};
use crate::relay::Relay;
use crate::{Via, builder, within};

async fn next<T: serde::de::DeserializeOwned>(subscription: &mut Subscription<T>) -> T {
    within(subscription.next()).await.unwrap()
}

/// Publishes numbers until one of them is heard: before the client has subscribed again, they are for nobody.
async fn hears_from(first: i64, news: &PubSub, prices: &mut Subscription<i64>) {
    for number in first.. {
        news.publish("prices", &number).await.unwrap();
        let hearing = async { while prices.next().await.unwrap() < first {} };
        if timeout(Duration::from_millis(50), hearing).await.is_ok() {
            return;
        }
    }
}

async fn topics_reach_whoever_has_subscribed_also_after_a_loss_of_the_connection(kind: Kind) {
    let server = Application::start(kind).await;
    let relay = Relay::start(server.address).await;
    let reader = builder(&relay.url(), Via::WebSocket).build().unwrap();
    let topics = PubSub::new(&reader, "/topics").unwrap();
    within(topics.connect()).await.unwrap();
    let writer = builder(&server.url(), Via::WebSocket).build().unwrap();
    let news = PubSub::new(&writer, "/topics").unwrap();
    within(news.connect()).await.unwrap();

    let mut prices = within(topics.subscribe::<i64>("prices")).await.unwrap();
    let mut again = within(topics.subscribe::<i64>("prices")).await.unwrap();
    let mut words = within(topics.subscribe::<String>("words")).await.unwrap();
    within(news.publish("prices", &7)).await.unwrap();
    within(news.publish("nobody's", &8)).await.unwrap();
    within(news.publish("words", "seven")).await.unwrap();
    assert_eq!(
        (next(&mut prices).await, next(&mut again).await, next(&mut words).await),
        (7, 7, "seven".into())
    );
    let refused = within(topics.subscribe::<i64>("secret")).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(refusal) if refusal.code() == Some("forbidden")));

    // One subscription is as good as two.
    drop(again);
    within(news.publish("prices", "a lot")).await.unwrap();
    within(news.publish("prices", &9)).await.unwrap();
    assert!(matches!(within(prices.next()).await, Err(ClientError::InvalidMessage(_))));
    assert_eq!(next(&mut prices).await, 9);

    // The session is restored, and after that another one begins.
    relay.cut();
    within(hears_from(100, &news, &mut prices)).await;
    within(topics.socket().disconnect()).await.unwrap();
    within(topics.connect()).await.unwrap();
    within(hears_from(1_000, &news, &mut prices)).await;

    // Nobody listens any more: the server is told.
    drop(prices);
    within(async {
        while topics.socket().ask::<Vec<String>>("rooms", &()).await.unwrap().contains(&"prices".to_owned()) {
        }
    })
    .await;
    within(news.publish("words", "eight")).await.unwrap();
    assert_eq!(next(&mut words).await, "eight");
}

#[tokio::test]
async fn topics_of_imks_reach_whoever_has_subscribed() {
    topics_reach_whoever_has_subscribed_also_after_a_loss_of_the_connection(Kind::Imks).await;
}

#[tokio::test]
async fn topics_of_the_reference_reach_whoever_has_subscribed() {
    topics_reach_whoever_has_subscribed_also_after_a_loss_of_the_connection(Kind::Reference).await;
}

#[tokio::test]
async fn a_subscription_that_is_slow_loses_the_oldest_messages_and_is_told() {
    let server = Application::start(Kind::Imks).await;
    let client = builder(&server.url(), Via::WebSocket).build().unwrap();
    let topics = PubSub::new(&client, "/topics").unwrap();
    within(topics.connect()).await.unwrap();
    let mut numbers = within(topics.subscribe::<i64>("numbers")).await.unwrap();
    for number in 0..300 {
        within(topics.publish("numbers", &number)).await.unwrap();
    }
    let mut heard = topics.socket().stream::<(String, i64)>("message");
    within(topics.publish("numbers", &300)).await.unwrap();
    within(heard.next()).await.unwrap().unwrap();
    assert!(matches!(within(numbers.next()).await, Err(ClientError::Dropped)));
    let mut rest = Vec::new();
    while rest.last() != Some(&300) {
        rest.push(next(&mut numbers).await);
    }
    assert!(rest.iter().copied().eq(301 - rest.len() as i64..301), "{rest:?}");
}
