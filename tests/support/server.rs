//! A real server on a free port, with a fresh database.

use std::net::SocketAddr;
use std::time::Duration;

use imks::socket::rate_limit::Rate;
use imks::testing::app::App;
use imks::testing::config::{Config, Drain};
use imks::testing::directory::{Directory, NewChannel, RoleName};
use imks::testing::models::db;
use serde_json::Value;
use tempfile::TempDir;

use super::client::TestClient;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A server that is drained at the end of the test.
pub struct TestServer {
    app: App,
    database: db::Config,
    _directory: TempDir,
}

impl TestServer {
    /// With the defaults, but without rate limits.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_| {}).await
    }

    /// With the defaults, changed by `edit`; rate limits are off.
    pub async fn start_with(kind: Kind, edit: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
        config.database.data_dir = directory.path().into();
        if kind == Kind::Postgres {
            config.database.url = Some(super::postgres::create().await.into());
            // Many tests share one machine and one disk: a slow answer is not what they test.
            let patience = std::time::Duration::from_secs(10);
            (config.database.statement_timeout, config.database.acquire_timeout) = (patience, patience);
        }
        config.messaging.connects = Rate::OFF;
        config.messaging.events = Rate::OFF;
        config.messaging.sends = Rate::OFF;
        config.messaging.sends_per_channel = Rate::OFF;
        edit(&mut config);
        let database = config.database.clone();
        Self { app: Box::pin(App::start(config)).await.unwrap(), database, _directory: directory }
    }

    pub fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    pub fn internal_addr(&self) -> SocketAddr {
        self.app.internal_addr().expect("a listener for operators")
    }

    /// Where its database is, for other processes.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub fn database(&self) -> &db::Config {
        &self.database
    }

    /// The method and path of every route of the HTTP API.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub fn api_routes(&self) -> Vec<String> {
        self.app.api_routes()
    }

    pub fn directory(&self) -> &Directory {
        self.app.directory().expect("the embedded directory")
    }

    /// A token of a member of `general`, made when missing.
    pub async fn token(&self, name: &str) -> String {
        let user = self.directory().ensure_development(name).await.unwrap();
        self.directory().issue_token(&user, Duration::from_secs(3600)).await.unwrap()
    }

    /// A signed-in client of a member of `general`.
    pub async fn client(&self, name: &str) -> TestClient {
        let token = self.token(name).await;
        TestClient::connect(self.addr(), &token).await
    }

    /// A new channel with these members; its id.
    pub async fn channel(&self, name: &str, members: &[&str]) -> String {
        let new = NewChannel { name: name.into(), ..NewChannel::default() };
        let channel = self.directory().create_channel(new).await.unwrap();
        for member in members {
            self.directory().ensure_user(member).await.unwrap();
            self.directory().add_member(name, member, RoleName::default()).await.unwrap();
        }
        channel.id.to_string()
    }

    /// Drains: a task or a session that hangs makes the test fail.
    pub async fn stop(self) {
        let drain = Drain { delay: Duration::ZERO, deadline: Duration::from_secs(10) };
        self.app.drain(drain).await.unwrap();
    }
}

/// Id of the first channel in `session:ready`.
pub fn first_channel(client: &TestClient) -> String {
    client.ready["channels"][0]["channel_id"].as_str().unwrap().to_owned()
}

/// The value as text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
