//! The embedded directory over HTTP, for back ends: `http` mounts it. Who may call is decided by the same
//! keys and certificates as for all other calls of back ends.

use serde_json::{Map, Value};

use super::Control;
use super::api::Peer;
use super::caller::Scope;
use crate::directory::admin::{NOUNS, Request, Verb};
use crate::envelope::{RequestId, Success};
use crate::error::Precondition;
use crate::messaging::api::{Answer, Call, Method};
use crate::{ImksError, ImksResult};

/// Returns the path of each route below [`super::api::PREFIX`], with its methods.
pub fn routes() -> impl Iterator<Item = (&'static str, Vec<Method>)> {
    NOUNS.into_iter().map(|(noun, verbs)| (noun, verbs.iter().copied().map(method).collect()))
}

impl Control {
    /// Answers a request to one of the [`routes`].
    pub async fn administer(&self, noun: &str, method: Method, call: Call, peer: &Peer) -> Answer {
        let request_id = RequestId::next();
        match self.about_directory(noun, method, call, peer).await {
            Ok(data) => Answer::success(200, &Success::new(&data, &request_id), None),
            Err(error) => {
                tracing::debug!(noun, %error, "a request about the directory was refused");
                Answer::failure(&error, &request_id)
            }
        }
    }

    async fn about_directory(
        &self,
        noun: &str,
        method: Method,
        call: Call,
        peer: &Peer,
    ) -> ImksResult<Value> {
        let caller = self.authenticate(call.bearer(), peer).await?;
        caller.require(if noun.starts_with("tokens") { Scope::Tokens } else { Scope::Users })?;
        let directory = self.0.directory.as_ref();
        let directory = directory.ok_or(ImksError::FailedPrecondition(Precondition::ExternalCore))?;
        let (verb, fields) = match method {
            Method::Get => (Verb::Get, query(&call)),
            Method::Delete => (Verb::Delete, query(&call)),
            Method::Put => (Verb::Put, body(&call)?),
            Method::Post => (Verb::Post, body(&call)?),
            Method::Patch => return Err(ImksError::MethodNotAllowed),
        };
        directory.administer(noun, Request { verb, fields, key: call.idempotency_key }).await
    }
}

fn method(verb: Verb) -> Method {
    match verb {
        Verb::Get => Method::Get,
        Verb::Put => Method::Put,
        Verb::Post => Method::Post,
        Verb::Delete => Method::Delete,
    }
}

fn query(call: &Call) -> Map<String, Value> {
    let query = call.query.as_deref().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect()
}

fn body(call: &Call) -> ImksResult<Map<String, Value>> {
    serde_json::from_slice(&call.body)
        .map_err(|_| ImksError::InvalidPayload("The body must be a JSON object".into()))
}
