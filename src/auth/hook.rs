//! Logins that an HTTP hook of the operator decides about: it is asked with the token of a client, and answers
//! with the user, their channels and permissions (docs/identity.md).

use bytes::Bytes;
use http::{Request, StatusCode, header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::claims::{Refusal, TOKEN_BYTES_MAX, Times};
use super::login::{Login, grants};
use super::login_config::HookConfig;
use super::metrics::{self, HookCall};
use super::recent::{Bounds, Recent};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::http_client::{DOWN, HttpClient, Limits};
use crate::pb::Breaker;
use crate::secret::{Secret, digest};
use crate::telemetry::trace::{self, Span, SpanKind};

/// What the hook says about a token.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) login: Login,
    /// When the hook was asked, and when the session ends unless it is refreshed.
    pub(super) times: Times,
}

/// The hook. Fails closed: without an answer nobody comes in, except with a token that it accepted a moment ago.
pub struct Hook {
    url: Secret,
    config: HookConfig,
    client: HttpClient,
    slots: Semaphore,
    /// The slots, and the places of those who wait for one.
    places: Semaphore,
    breaker: Mutex<Breaker>,
    /// The last answers, by a digest of their token: whoever reads this memory finds no token in it.
    accepted: Mutex<Recent<Digest, Answer>>,
    /// The key of the digests, which exists in this process only.
    digest_key: [u8; 32],
}

/// What stands for a token in memory.
type Digest = [u8; 32];

/// The body of an answer that accepts a token.
#[derive(Deserialize)]
struct Body {
    user: User,
    #[serde(default)]
    channels: Option<Value>,
    #[serde(default = "default_expiry")]
    expires_in: u64,
}

#[derive(Deserialize)]
struct User {
    id: Value,
    #[serde(default)]
    name: Option<String>,
}

impl Hook {
    /// Creates the hook at `url`.
    ///
    /// # Errors
    /// `Config` if the system has no certificates to trust.
    pub fn new(url: Secret, config: HookConfig) -> ImksResult<Self> {
        let mut digest_key = [0; 32];
        getrandom::fill(&mut digest_key)?;
        Ok(Self {
            url,
            client: HttpClient::new()?,
            slots: permits(config.calls_max),
            places: permits(config.calls_max.saturating_add(config.waiting_max)),
            breaker: Mutex::default(),
            accepted: Mutex::new(Recent::new(ACCEPTED)),
            digest_key,
            config,
        })
    }

    /// Returns what the hook says about a token at `now`. Asks, unless it accepted the token less than the TTL
    /// ago and `again` is false.
    pub(super) async fn ask(&self, token: &str, now: Micros, again: bool) -> Result<Answer, Refusal> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Invalid("size"));
        }
        let digest = digest(&self.digest_key, token.as_bytes())?;
        if !again && let Some(answer) = self.cached(&digest, now) {
            return Ok(answer);
        }
        let deadline = Instant::now() + self.config.deadline;
        let overloaded = || ImksError::Overloaded { retry_after: self.config.deadline };
        let _place = self.places.try_acquire().map_err(|_| overloaded())?;
        let Ok(Ok(_slot)) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(overloaded().into());
        };
        if !self.breaker.lock().admit(Instant::now()) {
            return Err(ImksError::Unavailable(HOOK).into());
        }
        let mut span = trace::child("login_hook", SpanKind::Client);
        let answer = trace::within(span.as_ref().map(Span::context), self.call(token, deadline)).await;
        // A token on which the application fails must not keep others out; a proxy says that it is down.
        let is_down = answer.as_ref().map_or(true, |answer| DOWN.contains(&answer.status()));
        let outcome = answer.map_err(Into::into).and_then(|answer| judged(&answer, now));
        self.record(&outcome, is_down);
        match (&mut span, &outcome) {
            (None, _) => {}
            (Some(span), Err(Refusal::Unknown(error))) => span.failed(error),
            // A refusal is an answer.
            (Some(span), _) => span.succeeded(),
        }
        match &outcome {
            Ok(answer) => self.store(digest, answer),
            Err(Refusal::Invalid(_)) => self.accepted.lock().remove(&digest),
            Err(_) => {}
        }
        outcome
    }

    /// Checks that the hook answers, and that it does not accept a token that nobody has issued.
    ///
    /// # Errors
    /// `Config` if it accepts such a token; `Unavailable` or `Timeout` if it gives no answer.
    pub async fn check(&self) -> ImksResult<()> {
        match self.ask(FOREIGN_TOKEN, now_micros(), true).await {
            Ok(_) => Err(ImksError::Config("the hook accepts a token that nobody has issued".into())),
            Err(Refusal::Unknown(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Returns the login that a token stands for at `now`.
    ///
    /// # Errors
    /// `Auth` if the hook refuses the token; `Unavailable`, `Timeout` or `Overloaded` if it gives no answer.
    pub async fn login(&self, token: &str, now: Micros) -> ImksResult<Login> {
        self.ask(token, now, false).await.map(|answer| answer.login).map_err(Into::into)
    }

    fn cached(&self, digest: &Digest, now: Micros) -> Option<Answer> {
        let accepted = self.accepted.lock();
        accepted.get(digest, Instant::now()).filter(|answer| now < answer.times.expires_at).cloned()
    }

    fn store(&self, digest: Digest, answer: &Answer) {
        let now = Instant::now();
        let weight = answer.login.weight();
        self.accepted.lock().insert(digest, answer.clone(), weight, Some(now + self.config.ttl), now);
    }

    async fn call(&self, token: &str, deadline: Instant) -> ImksResult<http::Response<Bytes>> {
        let body = Bytes::from(json!({ "token": token }).to_string());
        let mut request = Request::post(self.url.expose()).header(header::CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.config.secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", secret.expose()));
        }
        let request = request.body(body.into());
        let request = request.map_err(|_| ImksError::Config("IMKS_AUTH_URL is not a URL".into()))?;
        let limits = Limits {
            deadline: deadline.saturating_duration_since(Instant::now()),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        self.client.send(HOOK, request, limits).await
    }

    fn record(&self, outcome: &Result<Answer, Refusal>, is_down: bool) {
        let mut breaker = self.breaker.lock();
        match is_down {
            true => breaker.failed(Instant::now()),
            false => breaker.succeeded(),
        }
        let call = match outcome {
            Ok(_) => HookCall::Accepted,
            Err(Refusal::Unknown(_)) => HookCall::Failed,
            Err(_) => HookCall::Refused,
        };
        metrics::HOOK_CALLS.of(call).increment();
    }
}

/// Returns what an answer of the hook says about a token.
fn judged(answer: &http::Response<Bytes>, now: Micros) -> Result<Answer, Refusal> {
    match answer.status() {
        StatusCode::OK => parsed(answer.body(), now),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::Invalid("the hook refused it")),
        status => {
            tracing::warn!(status = status.as_u16(), "the hook did not answer with 200, 401 or 403");
            Err(ImksError::Unavailable(HOOK).into())
        }
    }
}

/// Returns a semaphore of so many permits, as far as there can be that many.
fn permits(count: usize) -> Semaphore {
    Semaphore::new(count.min(Semaphore::MAX_PERMITS))
}

/// Reads an answer. One that does not have its form is an outage of the hook, and decides nothing.
pub(super) fn parsed(body: &[u8], now: Micros) -> Result<Answer, Refusal> {
    let malformed = |why: &'static str| {
        tracing::warn!(why, "the answer of the hook does not have its form");
        Refusal::Unknown(ImksError::Unavailable(HOOK))
    };
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        // The text of the error may quote the answer, which is nobody's business in a log.
        tracing::warn!(kind = ?error.classify(), column = error.column(), "the answer of the hook cannot be read");
        Refusal::Unknown(ImksError::Unavailable(HOOK))
    })?;
    let subject = match body.user.id {
        Value::String(id) => id,
        Value::Number(id) if id.is_u64() || id.is_i64() => id.to_string(),
        _ => return Err(malformed("user.id is neither a text nor a whole number")),
    };
    if body.expires_in == 0 || body.expires_in > EXPIRY_MAX_S {
        return Err(malformed("expires_in is not between a second and 31 days"));
    }
    let name = body.user.name.as_deref().unwrap_or(&subject);
    let channels = body.channels.as_ref().map_or(Ok(Vec::new()), |channels| grants(channels, None));
    let login = channels.and_then(|channels| Login::new("", &subject, name, channels));
    let login = login.map_err(|refusal| malformed(refusal.why()))?;
    let expires_at = now.saturating_add_unsigned(body.expires_in.saturating_mul(1_000_000));
    Ok(Answer { login, times: Times { issued_at: now, expires_at } })
}

fn default_expiry() -> u64 {
    3_600
}

/// The name of the hook in errors and in the log.
const HOOK: &str = "login hook";
/// The token that [`Hook::check`] presents.
const FOREIGN_TOKEN: &str = "imks-check-config";
/// The size of the largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const ACCEPTED: Bounds = Bounds { entries: ACCEPTED_MAX, bytes: ACCEPTED_BYTES_MAX };
/// The number of tokens whose acceptance is remembered; the oldest is forgotten and asked about again.
const ACCEPTED_MAX: usize = 1 << 16;
/// The memory of the answers that are remembered, in bytes.
const ACCEPTED_BYTES_MAX: usize = 32 << 20;
/// The longest session that an answer may grant, in seconds: 31 days.
const EXPIRY_MAX_S: u64 = 31 * 24 * 3_600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_names_the_user_channels_and_permissions() {
        let body = json!({
            "user": {"id": 42, "name": "Alice"},
            "channels": {"lobby": "moderator", "news": ["VIEW_CHANNEL", "READ_HISTORY"]},
            "expires_in": 60,
        });
        let answer = parsed(body.to_string().as_bytes(), 1_000_000).ok().unwrap();
        assert_eq!(answer.times.expires_at, 61_000_000);
        assert!(parsed(br#"{"user":{"id":"a"}}"#, 0).is_ok());
    }

    #[test]
    fn an_answer_of_another_form_is_an_outage_and_not_a_refusal() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"user":{}}"#,
            r#"{"user":{"id":""}}"#,
            r#"{"user":{"id":1.5}}"#,
            r#"{"user":{"id":"a"},"channels":"x"}"#,
            r#"{"user":{"id":"a"},"channels":["a b"]}"#,
            r#"{"user":{"id":"a"},"channels":{"a":["FLY"]}}"#,
            r#"{"user":{"id":"a"},"expires_in":0}"#,
        ] {
            assert!(matches!(parsed(body.as_bytes(), 0), Err(Refusal::Unknown(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in ".{0,200}") {
            let _ = parsed(text.as_bytes(), 0);
        }
    }
}
