//! What every gRPC client expects of a server: reflection, health, details of errors.

use futures_util::StreamExt;
use imks::testing::pb::control::GetMessagesRequest;
use prost::Message;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use uuid::Uuid;

use crate::backend::Backend;
use crate::http_request::send;
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
    backend.stop().await;
}
