//! Errors over gRPC: a status whose details are `google.rpc.ErrorInfo` and, if it is known when a retry can
//! succeed, `google.rpc.RetryInfo`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::ImksError;
use crate::envelope::{RequestId, details};

/// Returns the status of an error.
pub(super) fn status_of(error: &ImksError, request_id: &RequestId) -> Status {
    let code = error.code();
    let mut metadata = BTreeMap::from([("request_id".to_owned(), request_id.to_string())]);
    metadata.extend(details(error).map(|(name, value)| (name.to_owned(), value)));
    let info = ErrorInfo { reason: code.as_str().into(), domain: DOMAIN.into(), metadata };
    let retry = error.retry_after().map(|wait| Any::of("google.rpc.RetryInfo", &RetryInfo::after(wait)));
    let (grpc, message) = (code.grpc(), error.client_message());
    let status = RpcStatus {
        code: grpc.into(),
        message: message.clone(),
        details: std::iter::once(Any::of("google.rpc.ErrorInfo", &info)).chain(retry).collect(),
    };
    Status::with_details(grpc, message, Bytes::from(status.encode_to_vec()))
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Any {
    fn of(name: &str, message: &impl Message) -> Self {
        Self { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

impl RetryInfo {
    fn after(wait: Duration) -> Self {
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let nanos = i32::try_from(wait.subsec_nanos()).unwrap_or_default();
        Self { retry_delay: Some(ProtoDuration { seconds, nanos }) }
    }
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

const DOMAIN: &str = "imks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_code_the_details_and_when_to_come_back() {
        let error = ImksError::RateLimited { bucket: "calls:key", retry_after: Duration::from_millis(1_500) };
        let status = status_of(&error, &RequestId::next());
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let decoded = RpcStatus::decode(status.details()).unwrap();
        assert_eq!(decoded.message, error.client_message());
        let info = ErrorInfo::decode(&*decoded.details[0].value).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("rate_limited", "imks"));
        assert_eq!(info.metadata["bucket"], "calls:key");
        let retry = RetryInfo::decode(&*decoded.details[1].value).unwrap();
        assert_eq!(retry.retry_delay, Some(ProtoDuration { seconds: 1, nanos: 500_000_000 }));
    }

    #[test]
    fn an_error_of_the_database_tells_nothing_of_it() {
        let status = status_of(&ImksError::Database(sqlx_closed()), &RequestId::next());
        let decoded = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((status.code(), decoded.details.len()), (tonic::Code::Unavailable, 1));
        assert!(!status.message().to_lowercase().contains("sql"));
    }

    fn sqlx_closed() -> sqlx::Error {
        sqlx::Error::PoolClosed
    }
}
