//! Responses of the HTTP layer to input that does not become a request: JSON with a code.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};

use crate::error::Code;
use crate::http::config::AnyBody;

/// The reason why the HTTP layer refuses a connection or request.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    message: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, code: Code, message: &'static str) -> Self {
        Self { status, code, message }
    }

    /// Returns the refusal that replaces an error response which hyper generates itself, without a body.
    pub(super) fn instead_of(head: &[u8]) -> Option<&'static Self> {
        let status = head.get(..STATUS_END)?.strip_prefix(b"HTTP/1.1 ")?;
        let (_, headers) = head.split_at(head.iter().position(|byte| *byte == b'\n')? + 1);
        if !headers.starts_with(b"connection: close\r\ncontent-length: 0\r\ndate: ") {
            return None;
        }
        match status {
            b"400" => Some(&MALFORMED),
            b"414" => Some(&TARGET_TOO_LONG),
            b"431" => Some(&HEAD_TOO_LARGE),
            _ => None,
        }
    }

    /// Returns the response of a service. The connection ends after it.
    pub(super) fn response(&self) -> Response<AnyBody> {
        let mut response = Response::new(Either::Left(Full::new(Bytes::from(self.body()))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Returns the response of a service, which says when the same request may succeed.
    pub(super) fn response_after(&self, wait: Duration) -> Response<AnyBody> {
        let mut response = self.response();
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        response
    }

    /// Returns the response as bytes of a connection that ends after it.
    pub(super) fn bytes(&self) -> Bytes {
        let (body, retry) = (self.body(), if self.code.is_retryable() { "retry-after: 5\r\n" } else { "" });
        format!(
            "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: application/json\r\n{retry}content-length: {}\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into()
    }

    /// Returns the envelope of docs/protocol.md. Code and message are constants that need no escaping.
    fn body(&self) -> String {
        let (code, message, retryable) = (self.code, self.message, self.code.is_retryable());
        format!(r#"{{"ok":false,"error":{{"code":"{code}","message":"{message}","retryable":{retryable}}}}}"#)
    }
}

pub(super) static MALFORMED: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidPayload, "The request is not valid HTTP/1.1");
pub(super) static NO_HOST: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidPayload, "The header Host is missing");
pub(super) static TWO_HOSTS: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidPayload, "The header Host is there twice");
pub(super) static BAD_HOST: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidPayload, "The header Host is not a host with a port");
pub(super) static CHUNKED_TWICE: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidPayload, "The body is chunked twice");
pub(super) static TRANSFER_CODING: Refusal =
    Refusal::new(StatusCode::NOT_IMPLEMENTED, Code::InvalidPayload, "The only Transfer-Encoding is chunked");
pub(super) static HTTP2: Refusal = Refusal::new(
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    Code::InvalidPayload,
    "This port speaks HTTP/1.1, not HTTP/2",
);
pub(super) static EXPECTATION: Refusal = Refusal::new(
    StatusCode::EXPECTATION_FAILED,
    Code::InvalidPayload,
    "The only expectation is 100-continue",
);
pub(super) static NOT_TLS: Refusal = Refusal::new(
    StatusCode::BAD_REQUEST,
    Code::InvalidPayload,
    "This port speaks TLS: use https:// or wss:// in place of http:// or ws://",
);
pub(super) static TARGET_TOO_LONG: Refusal =
    Refusal::new(StatusCode::URI_TOO_LONG, Code::PayloadTooLarge, "The request target is too long");
pub(super) static HEAD_TOO_LARGE: Refusal = Refusal::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    Code::PayloadTooLarge,
    "The request head is too large, or has too many headers",
);
pub(super) static TOO_SLOW: Refusal =
    Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::Timeout, "The request took too long");
pub(super) static CROWDED: Refusal = Refusal::new(
    StatusCode::TOO_MANY_REQUESTS,
    Code::RateLimited,
    "Too many connections or new sessions from this address, retry later",
);
pub(super) static BUSY: Refusal =
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, "The server is busy, retry later");

/// The length of `HTTP/1.1 400`.
const STATUS_END: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_hyper_itself_is_replaced() {
        let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        assert!(Refusal::instead_of(own.as_bytes()).is_some());
        for other in [
            own.replace("400", "404"),
            own.replace("content-length: 0", "content-length: 5"),
            own.replace("connection", "x-app: 1\r\nconnection"),
            own[..20].to_owned(),
            String::new(),
        ] {
            assert!(Refusal::instead_of(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_refusal_is_json_with_a_code() {
        for refusal in [
            &MALFORMED,
            &NO_HOST,
            &TWO_HOSTS,
            &BAD_HOST,
            &CHUNKED_TWICE,
            &TRANSFER_CODING,
            &HTTP2,
            &EXPECTATION,
            &NOT_TLS,
            &TARGET_TOO_LONG,
            &HEAD_TOO_LARGE,
            &TOO_SLOW,
            &BUSY,
            &CROWDED,
        ] {
            let body: serde_json::Value = serde_json::from_str(&refusal.body()).unwrap();
            assert_eq!(body["error"]["code"], refusal.code.as_str());
            let bytes = refusal.bytes();
            assert!(bytes.ends_with(refusal.body().as_bytes()));
        }
    }
}
