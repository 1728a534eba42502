//! A back end with a key that may do everything, and its server.

use std::ops::Deref;

use imks::testing::config::Config;
use imks::testing::control::{Listeners, Scopes, keys};
use imks::testing::models::db::Db;
use imks::testing::pb::control::control_service_client::ControlServiceClient;
use serde_json::Value;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::http_request::{Response, send};
use crate::server::{Kind, TestServer};

/// The generated client, with a key.
pub type Client = ControlServiceClient<InterceptedService<Channel, Key>>;

/// Adds a key to every call.
#[derive(Clone)]
pub struct Key(AsciiMetadataValue);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub struct Backend {
    server: TestServer,
    pub key: String,
}

impl Deref for Backend {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

impl Backend {
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_| {}).await
    }

    pub async fn start_with(kind: Kind, edit: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::start_with(kind, |config| {
            config.internal_listen = Some("127.0.0.1:0".parse().unwrap());
            config.control.listeners = Listeners::Public;
            edit(config);
        })
        .await;
        let key = make_key(&server, "backend", "all").await;
        Self { server, key }
    }

    /// A client of gRPC with the key.
    pub async fn grpc(&self) -> Client {
        self.grpc_with(&self.key).await
    }

    pub async fn grpc_with(&self, key: &str) -> Client {
        let channel = self.channel_to_internal().await;
        let key = Key(format!("Bearer {key}").parse().unwrap());
        ControlServiceClient::with_interceptor(channel, key)
    }

    pub async fn channel_to_internal(&self) -> Channel {
        let url = format!("http://{}", self.internal_addr());
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }

    /// Another key.
    pub async fn key(&self, name: &str, scopes: &str) -> String {
        make_key(&self.server, name, scopes).await
    }

    /// The database in the hands of another process.
    pub async fn db(&self) -> Db {
        Db::connect(self.server.database()).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.post_as(&self.key, path, &[], body).await
    }

    pub async fn post_as(&self, key: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Response {
        let key = format!("Bearer {key}");
        let headers = [headers, &[("authorization", key.as_str())]].concat();
        send(self.addr(), &format!("POST /api/v1/admin{path}"), &headers, &body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Response {
        self.ask("PUT", path, &body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "").await
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.ask("DELETE", path, "").await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        let key = format!("Bearer {}", self.key);
        send(self.addr(), &format!("{method} /api/v1/admin{path}"), &[("authorization", &key)], body).await
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

async fn make_key(server: &TestServer, name: &str, scopes: &str) -> String {
    let db = Db::connect(server.database()).await.unwrap();
    let key = keys::create(&db, name, Scopes::parse(scopes).unwrap(), None).await.unwrap();
    db.close().await;
    key.expose().to_owned()
}
