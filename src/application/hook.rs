//! The application over HTTP: each event is a signed POST (Standard Webhooks 1.0), and what it answers is the ack.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, header};
use parking_lot::Mutex;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::config::SECRET;
use super::{APPLICATION, Answer, AppEvent, Config, EventHandler, refusal};
use crate::http_client::{DOWN, HttpClient, Limits};
use crate::pb::Breaker;
use crate::secret::Secret;
use crate::webhook::signature::Keys;
use crate::{ImksError, ImksResult, clock};

/// The address of the application.
pub(super) struct Hook {
    url: Secret,
    keys: Keys,
    limits: Limits,
    client: HttpClient,
    breaker: Mutex<Breaker>,
}

impl Hook {
    pub(super) fn new(url: Secret, config: &Config) -> ImksResult<Self> {
        let limits = Limits { deadline: config.deadline, answer_bytes_max: ANSWER_BYTES_MAX };
        let keys = Keys::parse(&config.secret, SECRET)?;
        Ok(Self { url, keys, limits, client: HttpClient::new()?, breaker: Mutex::default() })
    }

    fn request(&self, event: &AppEvent) -> ImksResult<Request<http_body_util::Full<Bytes>>> {
        let (body, seconds) = (body(event), clock::now_micros() / 1_000_000);
        let id = event.id.to_string();
        let request = Request::post(self.url.expose())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("imks/", env!("CARGO_PKG_VERSION")))
            .header("webhook-signature", self.keys.sign(&id, seconds, &body)?)
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .body(Bytes::from(body).into());
        request.map_err(|_| ImksError::Config("IMKS_EVENTS_URL is not a URL".into()))
    }
}

impl EventHandler for Hook {
    async fn handle(&self, event: AppEvent) -> ImksResult<Answer> {
        if !self.breaker.lock().admit(Instant::now()) {
            return Err(ImksError::Unavailable(APPLICATION));
        }
        let answered = self.client.send(APPLICATION, self.request(&event)?, self.limits).await;
        // An event on which the application fails must not keep others out; a proxy says that it is down.
        let is_down = answered.as_ref().map_or(true, |answer| DOWN.contains(&answer.status()));
        let mut breaker = self.breaker.lock();
        match is_down {
            true => breaker.failed(Instant::now()),
            false => breaker.succeeded(),
        }
        drop(breaker);
        answered.and_then(|answer| read(&answer))
    }
}

/// Returns the body of a request.
fn body(event: &AppEvent) -> String {
    let attachments: Vec<_> = event.attachments.iter().map(|bytes| STANDARD.encode(bytes)).collect();
    let body = json!({
        "id": event.id,
        "event": event.name,
        "payload": event.payload,
        "attachments": attachments,
        "user": { "id": event.user_id, "username": event.username },
        "session_id": event.session_id,
        "socket_id": event.socket_id,
    });
    body.to_string()
}

/// Reads an answer: nothing, JSON, or bytes.
fn read(answer: &Response<Bytes>) -> ImksResult<Answer> {
    let (status, body) = (answer.status(), answer.body());
    if !status.is_success() {
        return Err(refusal::of(status.as_u16(), answer.headers(), body));
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/octet-stream")) {
        return Answer::binary(body.clone());
    }
    if body.is_empty() {
        return Answer::new(&());
    }
    // Parsed and written again: what a client gets then has the depth and the size that were checked here.
    let data = serde_json::from_slice::<Value>(body).and_then(|value| to_raw_value(&value));
    let data: Box<RawValue> = data.map_err(|error| {
        tracing::warn!(kind = ?error.classify(), "the application did not answer an event with JSON");
        ImksError::Unavailable(APPLICATION)
    })?;
    Ok(Answer { data, attachments: Vec::new() })
}

/// The size of the largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: &str, body: &'static str) -> ImksResult<Answer> {
        let head = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
        read(&head.body(Bytes::from_static(body.as_bytes())).unwrap())
    }

    #[test]
    fn an_answer_is_json_bytes_or_nothing() {
        assert_eq!(answer(200, "application/json", r#"{"a":1}"#).unwrap().data.get(), r#"{"a":1}"#);
        assert_eq!(answer(204, "text/plain", "").unwrap().data.get(), "null");
        let bytes = answer(200, "application/octet-stream", "ab").unwrap();
        assert_eq!((bytes.attachments.len(), &bytes.attachments[0][..]), (1, &b"ab"[..]));
        for (status, body) in [(200, "<html>"), (302, ""), (500, "{}")] {
            let failed = answer(status, "text/html", body);
            assert!(matches!(failed, Err(ImksError::Unavailable(_))), "{failed:?}");
        }
        assert!(matches!(answer(403, "application/json", "{}"), Err(ImksError::Application { .. })));
    }
}
