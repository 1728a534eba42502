//! A member who talks while something fails, and compares the history with what was acknowledged to them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::TestClient;
use crate::server::first_channel;

/// Every request is answered within this time, whatever fails: the five seconds of `IMKS_APPEND_OUTAGE`, and a slow machine.
pub const ANSWERED: Duration = Duration::from_secs(8);

/// A member who talks, and everything that was acknowledged to them.
pub struct Speaker {
    pub client: TestClient,
    channel: String,
    pub acknowledged: Vec<Value>,
}

impl Speaker {
    pub async fn connect(server: SocketAddr, token: &str) -> Self {
        let client = TestClient::connect(server, token).await;
        Self { channel: first_channel(&client), client, acknowledged: Vec::new() }
    }

    pub async fn comes_back(&mut self, server: SocketAddr, token: &str) {
        self.client = TestClient::connect(server, token).await;
    }

    /// The answer to a message whose text is its nonce.
    pub async fn tries(&mut self, body: &str) -> Value {
        let message = json!({ "channel_id": self.channel, "body": body, "nonce": body });
        self.client.call("message:send", message).await
    }

    pub async fn says(&mut self, body: &str) -> Value {
        let mut answer = self.tries(body).await;
        assert_eq!(answer["ok"], true, "{body}: {answer}");
        let message = answer["data"]["message"].take();
        self.acknowledged.push(message.clone());
        message
    }

    /// Is refused for now, and soon.
    pub async fn is_refused_for_now(&mut self, body: &str) {
        let asked = Instant::now();
        let answer = self.tries(body).await;
        is_refusal_for_now(&answer);
        assert!(asked.elapsed() < ANSWERED, "{:?}", asked.elapsed());
    }

    /// Says the same until it is acknowledged, and returns how long that took.
    pub async fn says_again_and_again(&mut self, body: &str) -> Duration {
        let started = Instant::now();
        loop {
            let mut answer = self.tries(body).await;
            if answer["ok"] == true {
                self.acknowledged.push(answer["data"]["message"].take());
                return started.elapsed();
            }
            is_refusal_for_now(&answer);
        }
    }

    async fn reads(&mut self) -> Vec<Value> {
        let mut page = self.client.ok("history", json!({ "channel_id": self.channel, "limit": 100 })).await;
        serde_json::from_value(page["messages"].take()).unwrap()
    }

    /// The history has what was acknowledged, once and in its order, and nothing else.
    pub async fn finds_what_was_acknowledged(&mut self) {
        let of = |messages: &[Value]| -> Vec<(i64, String)> {
            let facts = |message: &Value| {
                (message["seq"].as_i64().unwrap(), message["body"].as_str().unwrap().to_owned())
            };
            messages.iter().map(facts).collect()
        };
        assert_eq!(of(&self.reads().await), of(&self.acknowledged));
    }
}

/// Whether a client may send the same again.
pub fn is_refusal_for_now(answer: &Value) {
    let error = &answer["error"];
    assert_eq!((&answer["ok"], &error["retryable"]), (&json!(false), &json!(true)), "{answer}");
    assert!(["unavailable", "timeout", "overloaded"].contains(&error["code"].as_str().unwrap()), "{answer}");
}
