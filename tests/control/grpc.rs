//! What every gRPC client expects of a server: reflection, health, details of errors.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use imks::testing::models::db::Db;
use imks::testing::pb::control::{BroadcastRequest, GetMessagesRequest, Target, target};
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use uuid::Uuid;

use crate::backend::Backend;
use crate::http_request::send;
use crate::on_both;
use crate::server::Kind;

/// `google.rpc.Status`, as far as this test reads it.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ErrorInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_finds_the_service_by_reflection_and_asks_for_its_health() {
    let backend = Backend::start(Kind::Sqlite).await;
    let channel = backend.channel_to_internal().await;
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let questions = futures_util::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("imks.v1.ControlService".into())),
    ]);
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut answers = reflection.server_reflection_info(questions).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["imks.v1.ControlService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let file = answers.next().await.unwrap().unwrap().message_response;
    assert!(
        matches!(file, Some(MessageResponse::FileDescriptorResponse(file)) if !file.file_descriptor_proto.is_empty())
    );

    let mut health = HealthClient::new(channel);
    for service in ["", "imks.v1.ControlService"] {
        let serving = async |health: &mut HealthClient<_>| {
            let request = HealthCheckRequest { service: service.into() };
            health.check(request).await.is_ok_and(|answer| answer.into_inner().status == 1)
        };
        while !serving(&mut health).await {}
    }
    let scraped = send(backend.internal_addr(), "GET /health/live", &[], "").await;
    assert_eq!(scraped.status, 200, "HTTP/1 on the same port");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_says_to_programs_what_it_is() {
    let backend = Backend::start(Kind::Sqlite).await;
    let mut grpc = backend.grpc().await;
    let request = GetMessagesRequest { channel_id: Uuid::now_v7().to_string(), ..Default::default() };
    let status = grpc.get_messages(request).await.unwrap_err();
    let details = Status::decode(status.details()).unwrap().details;
    let info = details[0].value.as_ref().unwrap();
    assert_eq!(details[0].type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    assert_eq!((status.code(), &*info.reason, &*info.domain), (tonic::Code::NotFound, "not_found", "imks"));
    let request = GetMessagesRequest { channel_id: "general".into(), ..Default::default() };
    let status = grpc.get_messages(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::InvalidArgument, "channel_id: must be a UUID")
    );
    let mut broadcast = order("large");
    broadcast.payload_json = "x".repeat(5 << 20);
    let status = grpc.broadcast(broadcast).await.unwrap_err();
    let details = Status::decode(status.details()).unwrap().details;
    let info = details[0].value.as_ref().unwrap();
    assert_eq!((status.code(), &*info.reason), (tonic::Code::InvalidArgument, "payload_too_large"));
    // Its first field is no target.
    let broken = Any { type_url: "x".into(), value: None };
    assert_eq!(call_within(&backend, "5S", "Broadcast", &broken).await, "3", "INVALID_ARGUMENT");
    backend.stop().await;
}

/// A database that stores no answers of calls until [`answers_are_stored_again`].
async fn no_answers_are_stored(backend: &Backend) {
    let (sqlite, postgres) = (
        "CREATE TRIGGER away BEFORE UPDATE ON control_request BEGIN SELECT RAISE(ABORT, 'away'); END",
        "ALTER TABLE control_request ADD CONSTRAINT away CHECK (answer IS NULL)",
    );
    execute(backend, sqlite, postgres).await;
}

async fn answers_are_stored_again(backend: &Backend) {
    execute(backend, "DROP TRIGGER away", "ALTER TABLE control_request DROP CONSTRAINT away").await;
}

async fn execute(backend: &Backend, sqlite: &'static str, postgres: &'static str) {
    let db = backend.db().await;
    match &db {
        Db::Postgres(pool) => drop(sqlx::query(postgres).execute(pool).await.unwrap()),
        Db::Sqlite(file) => drop(sqlx::query(sqlite).execute(&file.writer).await.unwrap()),
    }
    db.close().await;
}

fn order(request_id: &str) -> BroadcastRequest {
    BroadcastRequest {
        target: Some(Target { to: Some(target::To::All(true)) }),
        event: "app:order".into(),
        payload_json: "7".into(),
        request_id: request_id.into(),
        ..Default::default()
    }
}

/// Makes a call without a client that gives up by itself. Returns the status in the head of the answer.
async fn call_within(backend: &Backend, time: &str, name: &str, request: &impl Message) -> String {
    let stream = tokio::net::TcpStream::connect(backend.internal_addr()).await.unwrap();
    let (executor, stream) = (TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(executor, stream).await.unwrap();
    tokio::spawn(connection);
    let content = request.encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&content);
    let request = http::Request::post(format!("http://imks/imks.v1.ControlService/{name}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", time)
        .header("authorization", format!("Bearer {}", backend.key))
        .body(Full::from(body))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    answer.headers().get("grpc-status").map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default()
}

on_both! {
    async fn a_call_ends_when_its_caller_waits_no_longer_and_a_repeat_finds_what_it_did(backend: Backend) {
        let mut alice = backend.client("alice").await;
        no_answers_are_stored(&backend).await;
        assert_eq!(call_within(&backend, "300m", "Broadcast", &order("one")).await, "4", "DEADLINE_EXCEEDED");
        assert_eq!(alice.expect("app:order").await, 7);
        let mut grpc = backend.grpc().await;
        let (repeated, ()) = tokio::join!(grpc.broadcast(order("one")), answers_are_stored_again(&backend));
        repeated.unwrap();
        assert_eq!(alice.events_so_far().await, [], "it happened once");
    }

    async fn a_call_whose_answer_cannot_be_stored_at_once_happens_once_and_is_answered(backend: Backend) {
        let mut alice = backend.client("alice").await;
        no_answers_are_stored(&backend).await;
        let (mut one, mut two) = (backend.grpc().await, backend.grpc().await);
        let healed = async {
            alice.expect("app:order").await;
            answers_are_stored_again(&backend).await;
        };
        let (first, second, ()) = tokio::join!(one.broadcast(order("one")), two.broadcast(order("one")), healed);
        first.unwrap();
        second.unwrap();
        assert_eq!(alice.events_so_far().await, [], "it happened once");
    }

    async fn what_is_refused_is_counted_by_its_code_wherever_it_is_refused(backend: Backend) {
        let key = backend.key("reader", "read").await;
        backend.post_as("imks_", "/broadcast", &[], json!({})).await;
        send(backend.addr(), "GET /api/v1/admin/users", &[("authorization", "Bearer imks_")], "").await;
        backend.post_as(&key, "/broadcast", &[], json!({})).await;
        backend.post("/broadcast", json!({ "event": "order" })).await;
        backend.delete("/members?place=nowhere&user=nobody").await;
        let item = json!({ "user_id": Uuid::nil(), "channel_id": Uuid::nil(), "change": "joined", "version": -1 });
        backend.post("/memberships/sync", json!({ "items": [item] })).await;
        let metrics = metrics(&backend).await;
        for (code, count) in [("unauthenticated", 2), ("forbidden", 1), ("not_found", 1), ("invalid_input", 2)] {
            let line = format!("imks_control_call_errors_total{{code=\"{code}\"}} {count}");
            assert!(metrics.contains(&line), "{line} is missing: {metrics}");
        }
    }

    async fn nobody_sends_a_body_who_may_not_call(backend: Backend) {
        for path in ["broadcast", "users"] {
            let mut stream = tokio::net::TcpStream::connect(backend.addr()).await.unwrap();
            let head = format!(
                "PUT /api/v1/admin/{path} HTTP/1.1\r\nHost: imks\r\nContent-Length: 4000000\r\n\
                 Authorization: Bearer imks_\r\n\r\n"
            );
            let head = if path == "broadcast" { head.replace("PUT", "POST") } else { head };
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            let read = stream.read_exact(&mut answer);
            tokio::time::timeout(Duration::from_secs(5), read).await.expect("an answer").unwrap();
            assert_eq!(&answer, b"HTTP/1.1 401");
        }
    }
}

async fn metrics(backend: &Backend) -> String {
    let mut stream = tokio::net::TcpStream::connect(backend.internal_addr()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: imks\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
