//! Calls of servers in their traces: a span for each call over a port whose caller records one.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::ImksError;
use crate::telemetry::trace::{self, Span, SpanKind, Tracer};
use crate::telemetry::traceparent::TraceParent;

/// Wraps the services of a port. Without a tracer it changes nothing.
#[derive(Debug, Clone)]
pub(super) struct Traced(pub(super) Option<Tracer>);

/// A service whose calls are traced.
#[derive(Debug, Clone)]
pub(super) struct TracedService<S> {
    inner: S,
    tracer: Option<Tracer>,
}

impl<S> Layer<S> for Traced {
    type Service = TracedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TracedService { inner, tracer: self.0.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for TracedService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Call<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = self.tracer.as_ref().and_then(|tracer| serving(tracer, &request));
        let answering = self.inner.call(request);
        let Some(mut span) = span else { return Either::Left(answering) };
        Either::Right(Box::pin(async move {
            let answer = trace::within(Some(span.context()), answering).await;
            // A stream is answered when it begins.
            match answer.as_ref().map(|answer| Status::from_header_map(answer.headers())) {
                Ok(Some(status)) if status.code() != Code::Ok => span.failed(&status.into()),
                Ok(_) => span.succeeded(),
                Err(_) => span.failed(&ImksError::Internal("a call was not answered")),
            }
            answer
        }))
    }
}

/// A call in a trace.
type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Begins the span of a call, if its caller records one.
fn serving<B>(tracer: &Tracer, request: &Request<B>) -> Option<Span> {
    let parent = TraceParent::parse(request.headers().get("traceparent")?.to_str().ok()?)?;
    let mut span = tracer.join(&parent, "directory", SpanKind::Server)?;
    span.note("rpc.system", "grpc");
    if let Some((service, method)) = named(request.uri().path()) {
        span.note("rpc.service", service.to_owned());
        span.note("rpc.method", method.to_owned());
    }
    Some(span)
}

/// Returns the service and the method that a path names, unless they can be none of this contract.
fn named(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
    (path.len() <= PATH_BYTES_MAX && is_name(service) && is_name(method)).then_some((service, method))
}

/// The longest path of a call that is noted in its span, in bytes.
const PATH_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_service_and_a_method_or_nothing() {
        assert_eq!(
            named("/imks.v1.MemberService/ListMembers"),
            Some(("imks.v1.MemberService", "ListMembers"))
        );
        let long = format!("/a/{}", "b".repeat(PATH_BYTES_MAX));
        for other in ["", "/", "/a", "a/b", "/a/b/c", "/a/b c", "/a/ü", &long] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
