//! Outgoing HTTP requests to addresses that the operator configured: one connection pool, a deadline and a size
//! limit for each answer, and no redirects.

use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::response::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{ImksError, ImksResult};
use crate::telemetry::trace;

/// An HTTP client. Cheap to clone; all clones share one pool of connections. Trusts the certificates that the
/// system trusts, or those in the file that `SSL_CERT_FILE` names.
#[derive(Clone)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// The answers of a proxy, or of an application itself, that stand for no answer at all.
pub const DOWN: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the whole exchange may take, from the look-up of the name to the end of the answer.
    pub deadline: Duration,
    /// The size of the largest answer, in bytes.
    pub answer_bytes_max: usize,
}

impl HttpClient {
    /// Creates a client for `http://` and `https://`.
    ///
    /// # Errors
    /// `Config` if the system has no certificates to trust.
    pub fn new() -> ImksResult<Self> {
        let trusting = HttpsConnectorBuilder::new().with_native_roots();
        let trusting = trusting.map_err(|error| {
            ImksError::Config(format!("no certificates of the system to trust (SSL_CERT_FILE): {error}"))
        })?;
        Ok(Self::over(trusting.https_or_http().enable_http1().build()))
    }

    /// Creates a client that trusts what these settings of TLS say.
    #[cfg(feature = "tools")]
    pub fn trusting(mut tls: rustls::ClientConfig) -> Self {
        // It speaks HTTP/1.1 and nothing else, which needs no name.
        tls.alpn_protocols.clear();
        Self::over(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
    }

    fn over(connector: HttpsConnector<HttpConnector>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self(client)
    }

    /// Sends a request and returns the answer, whatever its status is. `to` names the other side in errors and
    /// in the log.
    ///
    /// # Errors
    /// `Timeout` after the deadline; `Unavailable` if the other side cannot be reached, or if its answer is
    /// larger than the limit.
    pub async fn send(
        &self,
        to: &'static str,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> ImksResult<Response<Bytes>> {
        self.exchange(to, request, limits, failed).await
    }

    /// Sends a request as [`HttpClient::send`] does, for somebody on the terminal, who is told the cause of a failure.
    ///
    /// # Errors
    /// `Timeout` after the deadline; `Io` with `to` and the deepest cause if the other side cannot be reached, or if its
    /// answer is larger than the limit.
    #[cfg(feature = "tools")]
    pub async fn ask(
        &self,
        to: &'static str,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> ImksResult<Response<Bytes>> {
        self.exchange(to, request, limits, told).await
    }

    /// Sends a request and reads the answer. `fail` makes an error of what went wrong before the deadline.
    async fn exchange(
        &self,
        to: &'static str,
        mut request: Request<Full<Bytes>>,
        limits: Limits,
        fail: fn(&'static str, &(dyn Error + 'static)) -> ImksError,
    ) -> ImksResult<Response<Bytes>> {
        tell_trace(request.headers_mut());
        let request = without_user(request);
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            let body = Limited::new(body, limits.answer_bytes_max).collect().await?.to_bytes();
            Ok::<_, Box<dyn Error + Send + Sync>>(Response::from_parts(head, body))
        };
        let answered = timeout(limits.deadline, Box::pin(exchange)).await;
        answered.map_err(|_| ImksError::Timeout(to))?.map_err(|error| fail(to, error.as_ref()))
    }
}

impl HttpClient {
    /// Sends a request and returns the head of the answer, whatever its status is. The body is read as far as the
    /// limit, so that the connection can be used again, and ignored.
    ///
    /// # Errors
    /// `Timeout` if the head has not arrived by the deadline; `Unavailable` if the other side cannot be reached.
    pub async fn deliver(
        &self,
        to: &'static str,
        mut request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> ImksResult<Parts> {
        tell_trace(request.headers_mut());
        let request = without_user(request);
        let end = Instant::now() + limits.deadline;
        let answer = timeout_at(end, Box::pin(self.0.request(request))).await;
        let answer = answer.map_err(|_| ImksError::Timeout(to))?.map_err(|error| failed(to, &error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, limits.answer_bytes_max).collect();
        // The head has decided. A body that is too large or too slow only costs the connection.
        let _ = timeout_at(end, Box::pin(body)).await;
        Ok(head)
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

/// Takes the user and the password out of the address of a request, which the pool of connections logs, and sends them as
/// the header `Authorization` (RFC 7617), unless the request has one.
fn without_user<B>(mut request: Request<B>) -> Request<B> {
    let Some((user, host)) = request.uri().authority().and_then(|it| it.as_str().rsplit_once('@')) else {
        return request;
    };
    let user = STANDARD.encode(percent_decode_str(user).collect::<Vec<u8>>());
    let mut parts = request.uri().clone().into_parts();
    parts.authority = host.parse::<Authority>().ok();
    // What was an authority with a user is one without.
    let Ok(uri) = Uri::from_parts(parts) else { return request };
    *request.uri_mut() = uri;
    if let Ok(mut value) = HeaderValue::try_from(format!("Basic {user}")) {
        value.set_sensitive(true);
        request.headers_mut().entry(header::AUTHORIZATION).or_insert(value);
    }
    request
}

/// Tells the other side which span a request is from, as W3C writes it, if what needs it is traced.
fn tell_trace(headers: &mut HeaderMap) {
    let Some(context) = trace::current() else { return };
    // The text has only characters that a header may have.
    if let Ok(value) = HeaderValue::try_from(context.parent().to_string()) {
        headers.insert("traceparent", value);
    }
}

/// Logs the deepest cause, which names the problem ("connection refused"), and returns the error for the caller.
fn failed(to: &'static str, error: &(dyn Error + 'static)) -> ImksError {
    tracing::warn!(to, cause = %deepest(error), "an HTTP request failed");
    ImksError::Unavailable(to)
}

/// Returns the error for somebody on the terminal, with the deepest cause.
#[cfg(feature = "tools")]
fn told(to: &'static str, error: &(dyn Error + 'static)) -> ImksError {
    ImksError::io(to)(std::io::Error::other(deepest(error).to_string()))
}

fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// How long an unused connection stays open.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// The number of unused connections to one host that stay open.
const POOL_IDLE_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_sent_as_a_header_and_leaves_the_address() {
        let request = |url: &str| without_user(Request::post(url).body(()).unwrap());
        let told = request("http://im:hun%40ter2@hook:8080/auth?a=b");
        assert_eq!(told.uri(), "http://hook:8080/auth?a=b");
        // The base64 of im:hun@ter2.
        assert_eq!(told.headers()[header::AUTHORIZATION], "Basic aW06aHVuQHRlcjI=");
        assert!(!format!("{told:?}").contains("aW06"), "{told:?}");
        let plain = request("https://hook/auth");
        assert!(plain.uri() == "https://hook/auth" && plain.headers().is_empty());
    }

    #[test]
    fn a_header_that_a_request_has_already_is_not_replaced_by_the_address() {
        let request = Request::post("http://im:hunter2@hook/").header(header::AUTHORIZATION, "Bearer x");
        let request = without_user(request.body(()).unwrap());
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer x");
        assert_eq!(request.uri(), "http://hook/");
    }
}
