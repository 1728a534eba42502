//! What the answers of an application mean that are not 2xx.

use std::time::Duration;

use http::{HeaderMap, header};
use serde::Deserialize;

use super::APPLICATION;
use crate::ImksError;
use crate::error::Code;

/// What an application may say about a refusal.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    code: String,
    message: String,
}

/// Returns the error for an answer with this status: a refusal for 4xx, with the code and the words of the body if
/// it has some, and an outage for everything else.
pub(super) fn of(status: u16, headers: &HeaderMap, body: &[u8]) -> ImksError {
    let Some(code) = code(status) else {
        tracing::warn!(status, "the application did not answer an event with 2xx or 4xx");
        return ImksError::Unavailable(APPLICATION);
    };
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let named = Code::ALL.iter().copied().find(|it| *it == &*body.code && it.http_status() < 500);
    let shown = |text: &str| !text.trim().is_empty() && !text.chars().any(char::is_control);
    let message = Some(body.message).filter(|text| shown(text) && text.chars().count() <= MESSAGE_CHARS_MAX);
    ImksError::Application { code: named.unwrap_or(code), message, retry_after: retry_after(headers) }
}

/// Returns the code for a status without one of its own; `None` for an outage.
fn code(status: u16) -> Option<Code> {
    match status {
        401 | 403 => Some(Code::Forbidden),
        404 => Some(Code::NotFound),
        409 => Some(Code::Conflict),
        413 => Some(Code::PayloadTooLarge),
        422 => Some(Code::FailedPrecondition),
        429 => Some(Code::RateLimited),
        400..500 => Some(Code::InvalidInput),
        _ => None,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The longest sentence of an application that clients get, in characters; a longer one is left out.
const MESSAGE_CHARS_MAX: usize = 256;
/// The longest wait that an application can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> (Code, String) {
        let error = of(status, &HeaderMap::new(), body.as_bytes());
        (error.code(), error.client_message())
    }

    #[test]
    fn a_refusal_has_the_code_and_the_words_of_the_application() {
        assert_eq!(told(409, r#"{"message":"sold out"}"#), (Code::Conflict, "sold out".into()));
        assert_eq!(told(400, r#"{"code":"limit_reached","message":"10 a day"}"#).0, Code::LimitReached);
        assert_eq!(told(404, "<html>").0, Code::NotFound);
        let wait = HeaderMap::from_iter([(header::RETRY_AFTER, "7".parse().unwrap())]);
        assert_eq!(of(429, &wait, b"").retry_after(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_an_application_cannot_say_is_left_out() {
        for body in [r#"{"code":"internal"}"#, r#"{"code":"nonsense"}"#, r#"{"message":"a\nb"}"#, "[]"] {
            assert_eq!(
                told(400, body),
                (Code::InvalidInput, "A field has a value that is not allowed".into())
            );
        }
        for status in [199, 302, 500, 503] {
            assert_eq!(told(status, "").0, Code::Unavailable);
        }
    }
}
