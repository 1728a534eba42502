//! The operations over gRPC: the service `imks.v1.ControlService`.

use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, header};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::api::Peer;
use super::operation::{Never, Operation, OverGrpc, refuse};
use super::operations::OPERATIONS;
use super::{Control, Ctx};
use crate::messaging::api::bearer;
use crate::{ImksError, ImksResult};

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlService(Control);

impl ControlService {
    /// Creates the service of these operations.
    pub fn new(control: Control) -> Self {
        Self(control)
    }
}

impl NamedService for ControlService {
    const NAME: &'static str = "imks.v1.ControlService";
}

impl Service<http::Request<Body>> for ControlService {
    type Response = http::Response<Body>;
    type Error = Never;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Never>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Never>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some((operation, call)) = operation_of(request.uri().path()) else {
            let status = tonic::Status::unimplemented("this version does not serve this call");
            return Box::pin(ready(Ok(status.into_http())));
        };
        let control = self.0.clone();
        Box::pin(async move {
            let (started, limit) = (Instant::now(), time_limit(request.headers()));
            let (head, body) = request.into_parts();
            let answer = async {
                let ctx = admit(control, operation, &head).await?;
                let answer = call(ctx, http::Request::from_parts(head, body)).await;
                unreadable(&answer).map_or(Ok(answer), Err)
            };
            // What a call has begun to store goes on: a repeat with its request id finds it.
            let answer = timeout(limit, answer).await.unwrap_or(Err(TOOK_TOO_LONG));
            Ok(answer.unwrap_or_else(|error| refuse(operation.name, started, &error)))
        })
    }
}

/// Returns how long a call may take until its answer begins: as long as the caller says, and at most
/// [`CALL_TIME_MAX`].
fn time_limit(headers: &HeaderMap) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| read_timeout(value.to_str().ok()?));
    asked.map_or(CALL_TIME_MAX, |asked| asked.min(CALL_TIME_MAX))
}

/// Reads the header `grpc-timeout`: up to eight digits and a unit.
fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(3_600 * count),
        "M" => Duration::from_secs(60 * count),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn operation_of(path: &str) -> Option<(&'static Operation, &'static OverGrpc)> {
    let name = path.strip_prefix('/')?.strip_prefix(ControlService::NAME)?.strip_prefix('/')?;
    let operation = OPERATIONS.iter().find(|operation| operation.name == name)?;
    Some((operation, &operation.grpc.as_ref()?.call))
}

/// Returns why no handler has seen the request, if the answer says that it could not be read. The status of every
/// other error has details.
fn unreadable(answer: &http::Response<Body>) -> Option<ImksError> {
    let status = tonic::Status::from_header_map(answer.headers())?;
    match status.code() {
        _ if !status.details().is_empty() => None,
        Code::OutOfRange => Some(ImksError::PayloadTooLarge),
        Code::Internal => {
            Some(ImksError::InvalidPayload("The request is not the message of this call".into()))
        }
        _ => None,
    }
}

/// Checks the caller before the request is read.
async fn admit(control: Control, operation: &Operation, head: &http::request::Parts) -> ImksResult<Ctx> {
    let peer = head.extensions.get::<Peer>().cloned().unwrap_or_default();
    let header = head.headers.get(header::AUTHORIZATION);
    let header = header.map(|value| value.to_str().map_err(|_| ImksError::Auth("The key is not text")));
    let key = header.transpose()?.and_then(bearer);
    let is_page = head.headers.contains_key(header::ORIGIN);
    let caller = control.gate().authenticate(key, &peer, is_page).await?;
    caller.require(operation.scope)?;
    Ok(Ctx { control, caller })
}

const TOOK_TOO_LONG: ImksError = ImksError::Timeout("the call took too long");
/// The longest time until the answer to a call over gRPC begins. Over HTTP it is that of every request.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::RequestId;

    #[test]
    fn a_caller_may_wait_shorter_than_the_server_and_never_longer() {
        let limit = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            time_limit(&headers)
        };
        assert_eq!(limit("300m"), Duration::from_millis(300));
        assert_eq!((limit("2S"), limit("5000000u")), (Duration::from_secs(2), Duration::from_secs(5)));
        for longer in ["1M", "99999999H"] {
            assert_eq!(limit(longer), CALL_TIME_MAX);
        }
        for wrong in ["", "S", "-1S", "+1S", "1.5S", "999999999S", "1s", "1 S", "1"] {
            assert_eq!(limit(wrong), CALL_TIME_MAX, "{wrong}");
        }
        assert_eq!(time_limit(&HeaderMap::new()), CALL_TIME_MAX);
    }

    #[test]
    fn what_cannot_be_read_is_a_fault_of_the_request_and_a_fault_of_a_handler_stays_what_it_is() {
        let code = |status: tonic::Status| unreadable(&status.into_http()).map(|error| error.code().as_str());
        assert_eq!(code(tonic::Status::out_of_range("5 MiB")), Some("payload_too_large"));
        assert_eq!(code(tonic::Status::internal("failed to decode")), Some("invalid_payload"));
        assert_eq!(code(tonic::Status::unimplemented("gzip")), None);
        let own = super::super::rpc_status::status_of(&ImksError::Internal("bug"), &RequestId::next());
        assert_eq!(code(own), None);
        assert!(unreadable(&http::Response::new(Body::empty())).is_none());
    }
}
