//! Negotiation of permessage-deflate (RFC 7692 section 7).

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderValue};

/// Returns the `Sec-WebSocket-Extensions` of the response for the first acceptable offer.
pub(crate) fn accept(request: &HeaderMap) -> Option<HeaderValue> {
    // A quoted value is a token inside its quotes (RFC 6455 section 9.1), so it has no comma and no semicolon.
    let values = request.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(answer).map(HeaderValue::from_static)
}

/// Returns the response to one offer. Messages are compressed with a window of 15 bits regardless of the
/// client's preference, and a client may use any size. An offer with an unknown, malformed or repeated
/// parameter is declined (RFC 7692 section 7.1).
fn answer(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let (mut seen, mut accepted) = (Vec::new(), WITHOUT_CONTEXT);
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
            None => (parameter, None),
        };
        let known = match (name, value) {
            (
                "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits",
                None,
            ) => true,
            ("client_max_window_bits", Some(bits)) => WINDOW_BITS.contains(&bits),
            ("server_max_window_bits", Some("15")) => {
                accepted = WITHOUT_CONTEXT_WINDOW_15;
                true
            }
            _ => false,
        };
        if !known || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(accepted)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

const WITHOUT_CONTEXT: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const WITHOUT_CONTEXT_WINDOW_15: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";
/// The valid values of a window size: no leading zero, no sign.
const WINDOW_BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];
