//! One HTTP connection that requests are sent on, one after the other.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::io::Io;
use super::wire::{Dialer, cookies};
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;

const NAME: &str = TransportKind::Polling.name();

/// A connection with what drives it.
pub(crate) struct HttpConnection {
    requests: SendRequest<Full<Bytes>>,
    driver: BoxFuture<'static, hyper::Result<()>>,
    has_ended: bool,
}

impl HttpConnection {
    pub(super) async fn open(dialer: &Dialer) -> ClientResult<Self> {
        let io = Io::connect(NAME, dialer).await?;
        let (requests, driver) =
            handshake(TokioIo::new(io)).await.map_err(|error| ClientError::connect(NAME, error))?;
        Ok(Self { requests, driver: Box::pin(driver), has_ended: false })
    }

    /// Sends a request and returns the body of the answer, which must be 200.
    pub(super) async fn exchange(&mut self, request: Request<Full<Bytes>>, bytes_max: usize) -> Exchanged {
        let Self { requests, driver, has_ended } = self;
        let exchange = async {
            requests.ready().await?;
            let answer = requests.send_request(request).await?;
            let (head, body) = answer.into_parts();
            Ok((head, Limited::new(body, bytes_max).collect().await))
        };
        let mut exchange = std::pin::pin!(exchange);
        let answer: hyper::Result<_> = loop {
            tokio::select! {
                biased;
                answer = &mut exchange => break answer,
                // The answer may be there although the connection has ended.
                _ = driver.as_mut(), if !*has_ended => *has_ended = true,
            }
        };
        match answer {
            Err(error) if error.is_canceled() || error.is_closed() => Exchanged::NeverSent(error),
            Err(error) => Exchanged::Answer(Err(ClientError::connect(NAME, error))),
            Ok((head, Ok(body))) if head.status == StatusCode::OK => {
                Exchanged::Answer(Ok(Answer { body: body.to_bytes(), cookies: cookies(&head.headers) }))
            }
            Ok((head, Ok(body))) => Exchanged::Answer(Err(refusal(head.status, &body.to_bytes()))),
            Ok((_, Err(error))) => Exchanged::Answer(Err(ClientError::connect(NAME, error))),
        }
    }

    /// Whether the connection can take another request, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.has_ended && !self.requests.is_closed()
    }
}

/// How a request went.
pub(super) enum Exchanged {
    /// It did not leave this side, because the server had closed the connection.
    NeverSent(hyper::Error),
    Answer(ClientResult<Answer>),
}

/// An answer that is 200.
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) cookies: Option<HeaderValue>,
}

/// What a request says.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) cookies: Option<HeaderValue>,
    pub(super) body: Bytes,
}

/// Sends a request on a connection that is there, or on a new one. Returns the connection for the next request.
pub(super) async fn request(
    dialer: &Dialer,
    connection: Option<HttpConnection>,
    asked: Asked,
) -> ClientResult<(Answer, HttpConnection)> {
    let mut connection = match connection.filter(HttpConnection::is_open) {
        Some(connection) => connection,
        None => HttpConnection::open(dialer).await?,
    };
    let bytes_max = dialer.message_bytes_max;
    let answer = match connection.exchange(build(dialer, &asked)?, bytes_max).await {
        Exchanged::Answer(answer) => answer,
        Exchanged::NeverSent(_) => {
            connection = HttpConnection::open(dialer).await?;
            match connection.exchange(build(dialer, &asked)?, bytes_max).await {
                Exchanged::Answer(answer) => answer,
                Exchanged::NeverSent(error) => Err(ClientError::connect(NAME, error)),
            }
        }
    };
    answer.map(|answer| (answer, connection))
}

fn build(dialer: &Dialer, asked: &Asked) -> ClientResult<Request<Full<Bytes>>> {
    let Asked { method, target, cookies, body } = asked;
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(body.clone()))
        .map_err(|error| ClientError::connect(NAME, error))?;
    let mut headers: HeaderMap = dialer.headers(cookies.as_ref());
    let host = HeaderValue::from_str(&dialer.address.authority);
    headers.entry(header::HOST).or_insert(host.map_err(|error| ClientError::connect(NAME, error))?);
    if method == Method::POST {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// The error for an answer that is not 200, with as much of its body as helps.
fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let text = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]).into_owned();
    ClientError::connect(NAME, format!("{status}: {text}"))
}

/// The maximum number of bytes of a refusal that an error repeats.
const REFUSAL_BYTES_MAX: usize = 256;
