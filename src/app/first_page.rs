//! The first page: a chat for two in one browser at `/`, for development, and the tokens that it asks for
//! (docs/adr/0058).

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::envelope::{RequestId, Success};
use crate::http::{failure, is_loopback, method_not_allowed};
use crate::{ImksError, ImksResult};

/// Returns the routes of the page, of its files below `/first/`, and of its tokens. `engine_path` is the path of
/// Engine.IO, where its clients connect, and `is_tls` says whether they do with TLS.
pub(super) fn routes(directory: &Directory, engine_path: &str, is_tls: bool) -> Router {
    let scheme = if is_tls { "https" } else { "http" };
    let tokens = Tokens { directory: directory.clone(), engine_path: engine_path.to_owned(), scheme };
    let mut router = Router::new()
        .route("/first/token", post(issue))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(tokens);
    for file in &FILES {
        router = router.route(file.path, get(move || async move { file.answer() }));
    }
    router.method_not_allowed_fallback(method_not_allowed)
}

/// A file of the page, which is part of the program.
struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

impl File {
    fn answer(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "same-origin"),
            (HeaderName::from_static("content-security-policy"), POLICY),
        ];
        (headers, self.content).into_response()
    }
}

#[derive(Clone)]
struct Tokens {
    directory: Directory,
    engine_path: String,
    /// The scheme of the page.
    scheme: &'static str,
}

/// A request for a token.
#[derive(Deserialize)]
struct Asked {
    /// The name of the visitor, who is created if missing.
    name: String,
}

/// A token, and where to connect with it.
#[derive(Serialize)]
struct Issued {
    token: String,
    path: String,
}

async fn issue(
    State(tokens): State<Tokens>,
    headers: HeaderMap,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Response {
    let issued = match check_caller(&headers, tokens.scheme).and_then(|()| body(asked)) {
        Ok(asked) => tokens.issue(&asked.name).await,
        Err(refused) => Err(refused),
    };
    let answer = match issued {
        Ok(issued) => Json(Success::new(&issued, &RequestId::next())).into_response(),
        Err(error) => failure(&error),
    };
    ([(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], answer)
        .into_response()
}

impl Tokens {
    async fn issue(&self, name: &str) -> ImksResult<Issued> {
        let user = self.directory.ensure_visitor(name).await?;
        let token = self.directory.issue_token(&user, TOKEN_TTL).await?;
        Ok(Issued { token, path: self.engine_path.clone() })
    }
}

fn body(asked: Result<Json<Asked>, JsonRejection>) -> ImksResult<Asked> {
    match asked {
        Ok(Json(asked)) => Ok(asked),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ImksError::PayloadTooLarge)
        }
        Err(rejection) => Err(ImksError::InvalidPayload(rejection.body_text())),
    }
}

/// Checks that the page itself asks, in a browser on this machine: not a page of another site, not one whose name was
/// made to resolve to this machine (DNS rebinding), and nobody behind a proxy that can be told.
fn check_caller(headers: &HeaderMap, scheme: &str) -> ImksResult<()> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).filter(|host| is_loopback(host));
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    let is_own_page = host.is_some_and(|host| origin == Some((scheme, host)));
    let site = headers.get("sec-fetch-site");
    let is_same_site = site.is_none_or(|site| site.as_bytes() == b"same-origin");
    let is_direct =
        headers.keys().all(|name| !FORWARDED.iter().any(|start| name.as_str().starts_with(start)));
    if is_own_page && is_same_site && is_direct { Ok(()) } else { Err(ImksError::NotFirstPage) }
}

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
static FILES: [File; 6] = [
    File { path: "/", content_type: HTML, content: include_str!("../../web/index.html") },
    File { path: "/first/page.css", content_type: CSS, content: include_str!("../../web/page.css") },
    File { path: "/first/page.js", content_type: JAVASCRIPT, content: include_str!("../../web/page.js") },
    File { path: "/first/person.js", content_type: JAVASCRIPT, content: include_str!("../../web/person.js") },
    File { path: "/first/client.js", content_type: JAVASCRIPT, content: include_str!("../../web/client.js") },
    File { path: "/first/icon.svg", content_type: SVG, content: include_str!("../../web/icon.svg") },
];
/// The content security policy: everything comes from this server, and nothing is written into the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How the names of headers begin that proxies add. What they pass on may come from other machines.
const FORWARDED: [&str; 7] =
    ["forwarded", "x-forwarded", "x-original", "x-real-ip", "via", "cf-", "true-client-ip"];
/// The maximum number of bytes of a request for a token.
const BODY_BYTES_MAX: usize = 1024;
/// The lifetime of a token. The page asks for a new one at each connection, and before the end of one.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn is_accepted(headers: &[(&'static str, &'static str)]) -> bool {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = pairs.collect();
        check_caller(&headers, "http").is_ok()
    }

    #[test]
    fn a_token_is_for_the_page_itself_at_whatever_loopback_address_it_was_opened() {
        for (host, origin) in [
            ("127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("localhost:3000", "http://localhost:3000"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("127.0.0.2", "http://127.0.0.2"),
        ] {
            assert!(is_accepted(&[("host", host), ("origin", origin)]), "{host}");
            let site = ("sec-fetch-site", "same-origin");
            assert!(is_accepted(&[("host", host), ("origin", origin), site]), "{host}");
        }
    }

    #[test]
    fn names_that_only_look_like_this_machine_get_no_token() {
        for host in [
            "127.0.0.1.example:3000",
            "localhost.example",
            "example@127.0.0.1.example",
            "192.168.0.2:3000",
            "0.0.0.0:3000",
            "",
            "[::2]",
        ] {
            let origin: &'static str = format!("http://{host}").leak();
            assert!(!is_accepted(&[("host", host), ("origin", origin)]), "{host}");
        }
        let own = [("host", "127.0.0.1:3000"), ("origin", "http://127.0.0.1:3000")];
        assert!(is_accepted(&own));
        let forwarded =
            ["forwarded", "x-forwarded-proto", "x-original-forwarded-for", "x-real-ip", "via", "cf-ray"];
        for more in forwarded.map(|name| (name, "192.0.2.1")) {
            assert!(!is_accepted(&[own[0], own[1], more]), "{more:?}");
        }
        for site in ["cross-site", "same-site", "none"] {
            assert!(!is_accepted(&[own[0], own[1], ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!is_accepted(&own[..1]), "without an origin it is no page");
        assert!(!is_accepted(&[own[0], ("origin", "null")]));
        assert!(!is_accepted(&[own[0], ("origin", "https://127.0.0.1:3000")]), "a proxy has ended TLS");
        assert!(
            !is_accepted(&[own[0], ("origin", "http://127.0.0.1:3001")]),
            "another port is another origin"
        );
    }
}
