//! The heads of requests and replies between nodes: what is passed on, and the signature. All functions are pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;

use crate::engine::{ClientStream, ForwardedRequest};
use crate::node::NodeId;
use crate::secret::{digest, is_same};

/// Returns the request that the owner gets, and the stream of a client that asks for a WebSocket. `None` if it cannot
/// be written or signed.
pub(super) fn request(
    secret: &[u8; SECRET_BYTES],
    received: ForwardedRequest,
) -> Option<(Request<Full<Bytes>>, Option<ClientStream>)> {
    let ForwardedRequest { method, uri, headers, body, client } = received;
    let uri: Uri = format!("{PATH}?{}", uri.query().unwrap_or_default()).parse().ok()?;
    let mut headers = end_to_end(headers);
    if client.is_some() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("imks"));
    let signature = HeaderValue::try_from(signature(secret, &method, &uri)?).ok()?;
    headers.insert(SIGNATURE, signature);
    let mut request = Request::new(Full::new(body));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    Some((request, client))
}

/// Whether a request was signed with the secret of this node.
pub(super) fn is_signed(
    secret: &[u8; SECRET_BYTES],
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> bool {
    let shown = headers.get(SIGNATURE).map(HeaderValue::as_bytes);
    let (Some(shown), Some(expected)) = (shown, signature(secret, method, uri)) else { return false };
    is_same(shown, expected.as_bytes())
}

/// Returns the signature of a request: HMAC-SHA-256 of the method, the path and the query, in base64url.
fn signature(secret: &[u8; SECRET_BYTES], method: &Method, uri: &Uri) -> Option<String> {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let signed = digest(secret, format!("{method} {path}").as_bytes()).ok()?;
    Some(URL_SAFE_NO_PAD.encode(signed))
}

/// Marks an answer as that of `node`.
pub(super) fn mark(node: NodeId, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::try_from(node.to_string()) {
        headers.insert(ANSWERED_BY, value);
    }
}

/// Returns the headers of the reply for the client, or `None` if `owner` has not answered but somebody else at its
/// address.
pub(super) fn reply(owner: NodeId, mut headers: HeaderMap, switches: bool) -> Option<HeaderMap> {
    let by = headers.remove(ANSWERED_BY)?;
    if by.to_str().ok().and_then(NodeId::parse) != Some(owner) {
        return None;
    }
    headers.remove(header::DATE);
    if switches {
        return Some(headers);
    }
    let closes = headers.get(header::CONNECTION).is_some_and(|value| value == "close");
    let mut headers = end_to_end(headers);
    if closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Some(headers)
}

/// Removes the headers that concern one connection only (RFC 9110 section 7.6.1), and those that frame the body.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // What the session needs cannot be taken away by naming it.
    let kept = |name: &HeaderName| *name == header::HOST || name.as_str().starts_with("sec-websocket-");
    for name in named.iter().filter(|name| !kept(name)).chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
    headers
}

/// The path of requests between nodes.
pub const PATH: &str = "/cluster/session";
/// The length of the secret of a node in bytes.
pub const SECRET_BYTES: usize = 32;
const OF_ONE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::EXPECT,
];
/// The header with the signature of a request between nodes.
const SIGNATURE: HeaderName = HeaderName::from_static("imks-forwarded");
/// The header with the node that has answered.
const ANSWERED_BY: HeaderName = HeaderName::from_static("imks-node");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received(method: Method, uri: &str, headers: &[(&str, &str)]) -> ForwardedRequest {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let headers = request.body(()).unwrap().into_parts().0.headers;
        let (uri, body) = (uri.parse().unwrap(), Bytes::from_static(b"4hi"));
        ForwardedRequest { method, uri, headers, body, client: None }
    }

    const SECRET: [u8; SECRET_BYTES] = [7; SECRET_BYTES];

    #[test]
    fn the_owner_gets_the_query_and_the_headers_of_the_client_and_nothing_about_its_connection() {
        let headers = [
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("host", "chat.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("cookie", "a=b"),
            ("imks-forwarded", "forged"),
        ];
        let (request, _) =
            request(&SECRET, received(Method::POST, "/socket.io/?sid=a&EIO=4", &headers)).unwrap();
        assert_eq!(request.uri().to_string(), format!("{PATH}?sid=a&EIO=4"));
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cookie", "host", "imks-forwarded", "x-forwarded-for"]);
        assert!(is_signed(&SECRET, request.method(), request.uri(), request.headers()));
    }

    #[test]
    fn a_signature_is_good_for_one_owner_one_method_and_one_query() {
        let (request, _) = request(&SECRET, received(Method::GET, "/socket.io/?sid=a", &[])).unwrap();
        let good = |secret: &[u8; SECRET_BYTES], method: &Method, uri: &str| {
            is_signed(secret, method, &uri.parse().unwrap(), request.headers())
        };
        let uri = request.uri().to_string();
        assert!(good(&SECRET, &Method::GET, &uri));
        assert!(!good(&[8; SECRET_BYTES], &Method::GET, &uri));
        assert!(!good(&SECRET, &Method::POST, &uri));
        assert!(!good(&SECRET, &Method::GET, &format!("{uri}b")));
        assert!(!good(&SECRET, &Method::GET, "/socket.io/?sid=a"));
        assert!(!is_signed(&SECRET, &Method::GET, request.uri(), &HeaderMap::new()));
    }

    #[test]
    fn an_answer_counts_only_if_the_owner_has_marked_it() {
        let (owner, other) = (NodeId::random().unwrap(), NodeId::random().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
        assert_eq!(reply(owner, headers.clone(), false), None, "a balancer has answered");
        mark(owner, &mut headers);
        assert_eq!(reply(other, headers.clone(), false), None, "another node has answered");
        let shown = reply(owner, headers, false).unwrap();
        assert_eq!(shown.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }

    proptest! {
        #[test]
        fn no_query_leaves_the_path_of_forwarded_requests(query in "[a-z0-9=&%/?.:@_-]{0,60}") {
            let uri = format!("/socket.io/?{query}");
            let (request, _) = request(&SECRET, received(Method::GET, &uri, &[])).unwrap();
            prop_assert_eq!(request.uri().path(), PATH);
            prop_assert_eq!(request.uri().query(), Some(&*query));
            prop_assert!(request.uri().authority().is_none());
            prop_assert!(is_signed(&SECRET, request.method(), request.uri(), request.headers()));
        }

        #[test]
        fn no_value_of_a_client_is_a_signature(value in "[A-Za-z0-9_-]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(SIGNATURE, HeaderValue::from_str(&value).unwrap());
            prop_assert!(!is_signed(&SECRET, &Method::GET, &"/a".parse().unwrap(), &headers));
        }
    }
}
