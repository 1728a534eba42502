//! The envelope of every answer, over Socket.IO and over HTTP: `{ok:true,data}` or `{ok:false,error}`
//! (docs/protocol.md, "Answers").

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::ImksError;
use crate::clock::{self, Timestamp};
use crate::error::{Code, Present};
use crate::telemetry::traceparent::TraceParent;

/// The answer to a request that was carried out.
#[derive(Debug, Serialize)]
pub struct Success<'a, T> {
    ok: bool,
    data: &'a T,
    meta: Meta<'a>,
}

/// What an answer says beside its data.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct Meta<'a> {
    #[cfg_attr(feature = "server", schemars(with = "String"))]
    request_id: &'a RequestId,
    server_time: Timestamp,
    /// The span of the request in the server's traces, as W3C writes it. Only of requests that are traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schemars(with = "Option<String>"))]
    traceparent: Option<TraceParent>,
}

impl<'a, T: Serialize> Success<'a, T> {
    /// Wraps `data`.
    pub fn new(data: &'a T, request_id: &'a RequestId) -> Self {
        let server_time = Timestamp(clock::now_micros());
        Self { ok: true, data, meta: Meta { request_id, server_time, traceparent: None } }
    }

    /// Tells the span of the request, if it is traced.
    #[must_use]
    pub fn traced(mut self, traceparent: Option<TraceParent>) -> Self {
        self.meta.traceparent = traceparent;
        self
    }
}

/// The answer to a request that was refused or failed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct Failure {
    #[cfg_attr(feature = "server", schemars(extend("const" = false)))]
    ok: bool,
    error: ErrorBody,
}

impl Failure {
    /// Wraps the part of `error` that a client may see.
    pub fn new(error: &ImksError, request_id: &RequestId) -> Self {
        Self { ok: false, error: ErrorBody::new(error, request_id) }
    }
}

/// The part of an error that a client may see. Programs read `code`; `message` is for logs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    code: Code,
    message: String,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[cfg_attr(feature = "server", schemars(with = "String"))]
    request_id: RequestId,
}

impl ErrorBody {
    /// Copies the part of `error` that a client may see.
    pub fn new(error: &ImksError, request_id: &RequestId) -> Self {
        Self {
            code: error.code(),
            message: error.client_message(),
            retryable: error.is_retryable(),
            retry_after_ms: error.retry_after().map(whole_millis),
            details: Details::of(error),
            request_id: *request_id,
        }
    }
}

/// What a program may need besides the code.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema), schemars(rename = "ErrorDetails"))]
#[serde(rename_all = "snake_case")]
enum Details {
    Field(String),
    Permission(&'static str),
    Current(i64),
    LastSeq(i64),
    Offset(usize),
    Key(PresentKey),
    Limit(&'static str),
    Bucket(&'static str),
}

/// The value that a key has instead of the expected one; none for a key that does not exist.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
struct PresentKey {
    version: i64,
    value: Option<String>,
}

impl Details {
    fn of(error: &ImksError) -> Option<Self> {
        match error {
            ImksError::InvalidInput { field, .. } => Some(Self::Field(field.clone().into_owned())),
            ImksError::InvalidField { field, .. } => Some(Self::Field(field.clone())),
            ImksError::Forbidden(permission) => Some(Self::Permission(permission)),
            ImksError::VersionMismatch { current } => Some(Self::Current(*current)),
            ImksError::NotAsExpected(Present::LastSeq(last_seq)) => Some(Self::LastSeq(*last_seq)),
            ImksError::NotAsExpected(Present::Offset(offset)) => Some(Self::Offset(*offset)),
            ImksError::NotAsExpected(Present::Key { version, value }) => {
                Some(Self::Key(PresentKey { version: *version, value: value.clone() }))
            }
            ImksError::LimitReached(limit) => Some(Self::Limit(limit)),
            ImksError::RateLimited { bucket, .. } => Some(Self::Bucket(bucket)),
            _ => None,
        }
    }
}

/// Returns the name and the value of what a program may need besides the code.
#[cfg(feature = "server")]
pub fn details(error: &ImksError) -> Option<(&'static str, String)> {
    Some(match Details::of(error)? {
        Details::Field(field) => ("field", field),
        Details::Permission(permission) => ("permission", permission.into()),
        Details::Current(current) => ("current", current.to_string()),
        Details::LastSeq(last_seq) => ("last_seq", last_seq.to_string()),
        Details::Offset(offset) => ("offset", offset.to_string()),
        Details::Key(PresentKey { version, .. }) => ("version", version.to_string()),
        Details::Limit(limit) => ("limit", limit.into()),
        Details::Bucket(bucket) => ("bucket", bucket.into()),
    })
}

/// Rounds up, so that a retry after this many milliseconds is never too early.
fn whole_millis(wait: std::time::Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The id of one request in logs and answers. Opaque to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// Returns an id that this process has not used.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:08x}-{:x}", process(), self.0)
    }
}

/// Returns a number that differs between processes, so that one log can hold the requests of several nodes.
fn process() -> u32 {
    static PROCESS: OnceLock<u32> = OnceLock::new();
    *PROCESS.get_or_init(|| {
        let mut random = [0; 4];
        match getrandom::fill(&mut random) {
            Ok(()) => u32::from_le_bytes(random),
            Err(_) => std::process::id(),
        }
    })
}

impl Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn failure(error: &ImksError) -> Value {
        let id = RequestId::next();
        let mut value = serde_json::to_value(Failure::new(error, &id)).unwrap();
        assert_eq!(value["error"].as_object_mut().unwrap().remove("request_id"), Some(json!(id.to_string())));
        value
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back_and_which_bucket_is_empty() {
        let error =
            ImksError::RateLimited { bucket: "send:user", retry_after: Duration::from_nanos(1_200_000_001) };
        let expected = json!({ "ok": false, "error": {
            "code": "rate_limited", "message": "Too many requests, slow down", "retryable": true,
            "retry_after_ms": 1201, "details": { "bucket": "send:user" } } });
        assert_eq!(failure(&error), expected);
    }

    #[test]
    fn details_name_the_field_the_permission_or_the_current_version() {
        let details = |error| failure(&error)["error"]["details"].clone();
        assert_eq!(details(ImksError::invalid("body", "is empty")), json!({ "field": "body" }));
        assert_eq!(details(ImksError::Forbidden("SEND_MESSAGES")), json!({ "permission": "SEND_MESSAGES" }));
        let present = |present| details(ImksError::NotAsExpected(present));
        assert_eq!(present(Present::LastSeq(7)), json!({ "last_seq": 7 }));
        assert_eq!(present(Present::Offset(9)), json!({ "offset": 9 }));
        let key = Present::Key { version: 2, value: Some("v".into()) };
        assert_eq!(present(key), json!({ "key": { "version": 2, "value": "v" } }));
        assert_eq!(details(ImksError::VersionMismatch { current: 3 }), json!({ "current": 3 }));
        assert_eq!(details(ImksError::UnknownEvent), Value::Null);
    }

    #[test]
    fn success_carries_the_data_and_the_time() {
        let value = serde_json::to_value(Success::new(&json!({ "a": 1 }), &RequestId::next())).unwrap();
        assert_eq!((&value["ok"], &value["data"]), (&json!(true), &json!({ "a": 1 })));
        assert!(value["meta"]["server_time"].as_str().unwrap().ends_with('Z'));
    }
}
