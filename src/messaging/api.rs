//! The HTTP API as values: routes that share their handlers with the Socket.IO events. `http` mounts them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::budget::Reservation;
use super::ctx::Caller;
pub use super::input::{Payload, request as parse};
use super::parts::Messaging;
pub use super::server_facts::ServerFacts;
use super::session::{Session, Token};
use crate::contract::Contract;
pub use crate::contract::Method;
use crate::envelope::{Failure, RequestId};
use crate::socket::Namespace;
pub(crate) use crate::socket::bearer;
use crate::telemetry::traceparent::TraceParent;
use crate::{ImksError, ImksResult};

/// The routes of the features.
#[derive(Debug)]
pub struct Api {
    pub(super) namespace: Namespace,
    pub(super) routes: Vec<Route>,
    pub(super) contract: Contract,
    pub(super) facts: ServerFacts,
}

/// A route and its handler. Cheap to clone.
#[derive(Clone)]
pub struct Route {
    method: Method,
    path: &'static str,
    answer: Arc<dyn Fn(ApiRequest) -> Answering + Send + Sync>,
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A request to one of the routes.
#[derive(Debug)]
pub struct ApiRequest {
    method: Method,
    namespace: Namespace,
    call: Call,
}

/// The content of an HTTP request.
#[derive(Debug, Default)]
pub struct Call {
    /// The address of the client.
    pub peer: Option<SocketAddr>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The span that the header `traceparent` names.
    pub traceparent: Option<TraceParent>,
    /// Parameters in the path, decoded.
    pub parameters: Vec<(String, String)>,
    /// The query, as it came.
    pub query: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Api {
    /// Returns all routes, each with the namespace that [`Route::answer`] needs.
    pub fn routes(&self) -> impl Iterator<Item = (Route, Namespace)> + '_ {
        self.routes.iter().map(|route| (route.clone(), self.namespace.clone()))
    }

    /// Returns what clients may send and what they get.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Returns what everybody may know about this server.
    pub fn facts(&self) -> &ServerFacts {
        &self.facts
    }
}

impl Route {
    pub(super) fn new(
        method: Method,
        path: &'static str,
        answer: impl Fn(ApiRequest) -> Answering + Send + Sync + 'static,
    ) -> Self {
        Self { method, path, answer: Arc::new(answer) }
    }

    /// Returns the method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the path below the prefix of the API, with its parameters in braces.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Answers one request.
    pub async fn answer(&self, namespace: Namespace, call: Call) -> Answer {
        (self.answer)(ApiRequest { method: self.method, namespace, call }).await
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Route").field("method", &self.method).field("path", &self.path).finish()
    }
}

impl ApiRequest {
    /// Returns the caller that the token in the `Authorization` header identifies.
    pub(super) async fn caller(&self, messaging: &Messaging) -> ImksResult<Caller> {
        let token = self.call.bearer();
        let token = token.ok_or(ImksError::Auth("A token is needed in the header Authorization: Bearer"))?;
        let token = Token::new(token, self.call.peer);
        let identity = messaging.tokens().verify(token.presented()).await?;
        Caller::over_http(messaging, Session::new(identity, token, None), &self.namespace)
    }

    /// Returns the span that the header `traceparent` names.
    pub(super) fn traceparent(&self) -> Option<TraceParent> {
        self.call.traceparent
    }

    /// Returns the parameters of the request, including those in the path.
    pub(super) fn payload(&self) -> ImksResult<Payload<'static>> {
        self.call.payload(self.method, KEY_FIELD)
    }
}

impl Call {
    /// Returns the token in the `Authorization` header.
    pub fn bearer(&self) -> Option<&str> {
        self.authorization.as_deref().and_then(bearer)
    }

    /// Returns the parameters of the request, including those in the path. The idempotency key becomes the field
    /// `key_field`, where the request changes something.
    ///
    /// # Errors
    /// [`ImksError::InvalidPayload`].
    pub fn payload(&self, method: Method, key_field: &str) -> ImksResult<Payload<'static>> {
        match method {
            Method::Get => Ok(self.form(None)),
            Method::Delete => Ok(self.form(Some(key_field))),
            Method::Post | Method::Put | Method::Patch => self.json(key_field),
        }
    }

    fn form(&self, key_field: Option<&str>) -> Payload<'static> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(&self.parameters);
        if let Some((field, key)) = key_field.zip(self.idempotency_key.as_deref()) {
            form.append_pair(field, unquoted(key));
        }
        let query = self.query.as_deref().unwrap_or_default();
        Payload::Form(form.extend_pairs(form_urlencoded::parse(query.as_bytes())).finish().into())
    }

    fn json(&self, key_field: &str) -> ImksResult<Payload<'static>> {
        let body = if self.body.is_empty() { EMPTY_OBJECT } else { &*self.body };
        let malformed = |_| ImksError::InvalidPayload("The body must be JSON".into());
        let body: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
        if !body.get().starts_with('{') {
            return Err(ImksError::InvalidPayload("The body must be an object".into()));
        }
        // The values stay as they were written: numbers of any size pass unchanged.
        let mut fields: Fields = serde_json::from_str(body.get()).map_err(malformed)?;
        for (name, value) in &self.parameters {
            set(&mut fields, name, value)?;
        }
        if let Some(key) = &self.idempotency_key {
            set(&mut fields, key_field, unquoted(key))?;
        }
        Ok(Payload::Json(serde_json::to_string(&fields)?.into()))
    }
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// Adds a field from the path or a header. The body may repeat it with the same value, but not contradict it.
fn set(fields: &mut Fields, name: &str, value: &str) -> ImksResult<()> {
    let text = serde_json::value::to_raw_value(value)?;
    match fields.insert(name.into(), text).map(|before| serde_json::from_str(before.get())) {
        None | Some(Ok(Value::Null)) => Ok(()),
        Some(Ok(Value::String(before))) if before == value => Ok(()),
        Some(_) => {
            let text = format!("{name}: is not what the path or the header Idempotency-Key says");
            Err(ImksError::InvalidPayload(text))
        }
    }
}

/// Removes the quotes of an idempotency key that is written as a structured field.
fn unquoted(key: &str) -> &str {
    let key = key.trim();
    key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key)
}

/// The answer to an HTTP request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// How long to wait before a retry, where that is known.
    pub retry_after: Option<Duration>,
    /// The envelope as JSON. Its memory counts against the budget until it is dropped.
    pub body: Bytes,
}

impl Answer {
    /// Returns the answer of a request that was carried out. `room` is held as long as the answer is in memory.
    pub fn success(status: u16, envelope: &impl Serialize, room: Option<Reservation>) -> Self {
        match serde_json::to_vec(envelope) {
            Ok(text) => Self { status, retry_after: None, body: accounted(text, room) },
            Err(error) => {
                tracing::error!(%error, "an answer cannot be encoded");
                Self::refusal(&ImksError::Internal("an answer cannot be encoded"))
            }
        }
    }

    /// Returns the answer for an error that occurred before a handler was called.
    pub fn refusal(error: &ImksError) -> Self {
        Self::failure(error, &RequestId::next())
    }

    /// Returns the answer of a request that was refused or failed.
    pub fn failure(error: &ImksError, request_id: &RequestId) -> Self {
        // Serialisation fails only for types that refuse it, and a failure has none.
        let body = serde_json::to_vec(&Failure::new(error, request_id)).unwrap_or_default().into();
        Self { status: error.http_status(), retry_after: error.retry_after(), body }
    }
}

fn accounted(text: Vec<u8>, room: Option<Reservation>) -> Bytes {
    let Some(room) = room else { return Bytes::from(text) };
    let room = room.for_bytes(text.capacity());
    Bytes::from_owner(Accounted { text, _room: room })
}

/// Bytes with the reservation that accounts for them.
struct Accounted {
    text: Vec<u8>,
    _room: Arc<dyn Any + Send + Sync>,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// The field that the header `Idempotency-Key` stands for.
pub(super) const KEY_FIELD: &str = "nonce";
const EMPTY_OBJECT: &[u8] = b"{}";
