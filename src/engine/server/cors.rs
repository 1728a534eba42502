//! Cross-origin rules: which web pages may read responses, and a log entry for origins that may not.

use std::collections::HashSet;
use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use parking_lot::{Mutex, RwLock};

use crate::engine::config::{Cors, Origins};
use crate::engine::request_error::RequestError;
use crate::shown::shown;

/// The policy of a server, which can be replaced while it is in use. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CurrentCors(Arc<RwLock<Option<Arc<Cors>>>>);

impl CurrentCors {
    pub(crate) fn new(cors: Option<Cors>) -> Self {
        Self(Arc::new(RwLock::new(cors.map(Arc::new))))
    }

    /// Returns the policy of now; `None` if only pages of the same origin may read answers.
    pub(crate) fn get(&self) -> Option<Arc<Cors>> {
        self.0.read().clone()
    }

    #[cfg(feature = "server")]
    pub(crate) fn set(&self, cors: Option<Cors>) {
        *self.0.write() = cors.map(Arc::new);
    }
}

/// Adds the headers of the response to a preflight request.
pub(crate) fn allow_request(cors: &Cors, request: &HeaderMap, headers: &mut HeaderMap) {
    let methods = if cors.methods.is_empty() { DEFAULT_METHODS.into() } else { cors.methods.join(",") };
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, &methods);
    if !cors.headers.is_empty() {
        insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers.join(","));
    } else {
        headers.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        if let Some(wanted) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
}

/// Adds the cross-origin headers to a response. Origins are compared exactly and as a whole; an origin that
/// is not in the list is never reflected.
pub(crate) fn allow_origin(cors: &Cors, request: &HeaderMap, headers: &mut HeaderMap) {
    let Origins::List(_) = &cors.origins else {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return;
    };
    vary_by_origin(headers);
    let Some(origin) = request.get(header::ORIGIN).filter(|origin| is_allowed(cors, origin)) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// Refuses the request of a page whose origin is not allowed, if the policy says so. Programs that are no browser
/// send no `Origin`.
pub(super) fn enforce(cors: Option<&Cors>, request: &HeaderMap) -> Result<(), RequestError> {
    let Some(cors) = cors.filter(|cors| cors.enforce) else { return Ok(()) };
    let is_fine = |origin: &HeaderValue| is_allowed(cors, origin) || is_same_origin(origin, request);
    match request.get(header::ORIGIN).is_none_or(is_fine) {
        true => Ok(()),
        false => Err(RequestError::Forbidden("Origin not allowed".into())),
    }
}

fn is_allowed(cors: &Cors, origin: &HeaderValue) -> bool {
    match &cors.origins {
        Origins::Any => true,
        Origins::List(allowed) => allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
    }
}

/// Writes one `Vary` header, in the order of the reference server.
fn vary_by_origin(headers: &mut HeaderMap) {
    let both = "Origin, Access-Control-Request-Headers";
    let value = if headers.contains_key(header::VARY) { both } else { "Origin" };
    headers.insert(header::VARY, HeaderValue::from_static(value));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // A configured value that is not a valid header value is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The origins whose pages could not read a response. Each is logged once, because the browser reports the
/// problem only to its user.
#[derive(Default)]
pub(crate) struct RefusedOrigins(Mutex<HashSet<Box<[u8]>>>);

impl RefusedOrigins {
    /// Logs a request from a page of another origin that `cors` does not allow.
    pub(crate) fn note(&self, cors: Option<&Cors>, request: &HeaderMap) {
        let Some(origin) = request.get(header::ORIGIN) else { return };
        if cors.is_some_and(|cors| is_allowed(cors, origin)) || is_same_origin(origin, request) {
            return;
        }
        let origin = &origin.as_bytes()[..origin.len().min(ORIGIN_BYTES_MAX)];
        if self.is_new(origin) {
            tracing::warn!(
                origin = &*shown(&String::from_utf8_lossy(origin)),
                "pages of this origin cannot connect; to allow it, add it to IMKS_CORS_ORIGINS (engine::Config::cors)"
            );
        }
    }

    fn is_new(&self, origin: &[u8]) -> bool {
        let mut refused = self.0.lock();
        refused.len() < REFUSED_ORIGINS_MAX && !refused.contains(origin) && refused.insert(origin.into())
    }
}

/// Whether the page came from the host that the request is sent to. A proxy may have changed the host.
fn is_same_origin(origin: &HeaderValue, request: &HeaderMap) -> bool {
    let origin = origin.as_bytes();
    let Some(authority) = origin.windows(3).position(|part| part == b"://").map(|at| &origin[at + 3..])
    else {
        return false;
    };
    let hosts = [header::HOST, HeaderName::from_static("x-forwarded-host")];
    hosts.iter().filter_map(|name| request.get(name)).any(|host| host.as_bytes() == authority)
}

const DEFAULT_METHODS: &str = "GET,HEAD,PUT,PATCH,POST,DELETE";
/// The maximum number of refused origins that are logged. More would add nothing, and the set must not grow
/// with what peers send.
const REFUSED_ORIGINS_MAX: usize = 64;
/// The maximum number of bytes of an origin that are stored and logged.
const ORIGIN_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        headers.iter().map(pair).collect()
    }

    fn refused(log: &RefusedOrigins) -> usize {
        log.0.lock().len()
    }

    #[test]
    fn a_refused_origin_is_noted_once_and_few_are_remembered() {
        let log = RefusedOrigins::default();
        let foreign = request(&[("origin", "http://localhost:5173"), ("host", "localhost:3000")]);
        log.note(None, &foreign);
        log.note(None, &foreign);
        assert_eq!(refused(&log), 1);
        for number in 0..1000 {
            log.note(None, &request(&[("origin", &format!("http://{number}.example"))]));
        }
        assert_eq!(refused(&log), REFUSED_ORIGINS_MAX);
    }

    #[test]
    fn pages_of_this_server_and_allowed_ones_are_not_noted() {
        let log = RefusedOrigins::default();
        log.note(None, &request(&[("host", "a:1")]));
        log.note(None, &request(&[("origin", "https://a:1"), ("host", "a:1")]));
        log.note(None, &request(&[("origin", "https://a"), ("host", "10.0.0.1"), ("x-forwarded-host", "a")]));
        let origins = Origins::List(vec!["https://good".into()]);
        let cors = Cors { origins, ..Cors::default() };
        log.note(Some(&cors), &request(&[("origin", "https://good"), ("host", "a")]));
        assert_eq!(refused(&log), 0);
        log.note(Some(&cors), &request(&[("origin", "null"), ("host", "a")]));
        assert_eq!(refused(&log), 1);
    }
}
