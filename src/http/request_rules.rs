//! The rules of HTTP/1.1 for the heads of requests that hyper does not enforce.

use std::net::Ipv6Addr;

use http::{HeaderMap, HeaderValue, Request, Version, header};

use crate::http::refusal::{self, Refusal};

/// Returns the refusal of a request that breaks a rule: HTTP/1.1 requires a host, nobody may name two, of which a proxy
/// reads the other one (RFC 9112 section 3.2), a body has no coding but that of chunks (RFC 9112 section 6.1), and only one
/// expectation exists (RFC 9110 section 10.1.1).
pub(super) fn broken_rule<B>(request: &Request<B>) -> Option<&'static Refusal> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => return Some(&refusal::NO_HOST),
        (Some(host), None) if !is_host(host.as_bytes()) => return Some(&refusal::BAD_HOST),
        (_, None) => {}
        (_, Some(_)) => return Some(&refusal::TWO_HOSTS),
    }
    if let Some(refusal) = unknown_coding(headers) {
        return Some(refusal);
    }
    let expectation = headers.get(header::EXPECT)?;
    let known = expectation.as_bytes().eq_ignore_ascii_case(b"100-continue");
    (!known).then_some(&refusal::EXPECTATION)
}

/// Returns the refusal of a body with other codings than chunks. Hyper looks at the last one only.
fn unknown_coding(headers: &HeaderMap) -> Option<&'static Refusal> {
    let values = headers.get_all(header::TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes);
    let codings = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut chunked = false;
    for coding in codings.filter(|coding| !coding.is_empty()) {
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Some(&refusal::TRANSFER_CODING);
        }
        if std::mem::replace(&mut chunked, true) {
            return Some(&refusal::CHUNKED_TWICE);
        }
    }
    None
}

/// Whether a value is `uri-host [ ":" port ]` (RFC 9110 section 7.2). Nothing at all is one, too: that of a target without
/// an authority.
fn is_host(value: &[u8]) -> bool {
    let end = match value.first() {
        Some(b'[') => value.iter().position(|byte| *byte == b']').map_or(value.len(), |at| at + 1),
        _ => value.iter().position(|byte| *byte == b':').unwrap_or(value.len()),
    };
    let (host, port) = value.split_at(end);
    let has_port = port.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    (port.is_empty() || has_port) && if host.starts_with(b"[") { is_literal(host) } else { is_name(host) }
}

/// Whether a host in brackets is an address of IPv6, maybe with a zone, or of a later version (RFC 3986 section 3.2.2).
fn is_literal(host: &[u8]) -> bool {
    let inside = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    let Some(inside) = inside.and_then(|inside| std::str::from_utf8(inside).ok()) else { return false };
    if inside.starts_with(['v', 'V']) {
        return inside.bytes().all(|byte| is_plain(byte) || byte == b':');
    }
    let (address, zone) = inside.split_once('%').unwrap_or((inside, "25"));
    address.parse::<Ipv6Addr>().is_ok() && is_name(zone.as_bytes())
}

/// Whether a host is a name or an address of IPv4 (RFC 3986 section 3.2.2).
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (byte, after) if is_plain(*byte) => after,
            _ => return false,
        };
    }
    true
}

/// Whether a byte stands for itself in a host.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_maybe_with_a_port() {
        for good in [
            "",
            "a",
            "chat.example",
            "chat.example.",
            "my_host:3000",
            "a:",
            "192.0.2.1:80",
            "[::1]",
            "[::1]:3000",
            "[fe80::1%25eth0]",
            "[::ffff:192.0.2.1]",
            "xn--bcher-kva.example",
            "a%20b",
            "[v1.a:b]",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            &b"a b"[..],
            b"a/b",
            b"a@b",
            b"a\xff",
            b"a:b",
            b"a:80:80",
            b"::1",
            b"[::1",
            b"[a]",
            b"[::1]a",
            b"[::1]:a",
            b"a?b",
            b"a#b",
            b"a%2",
            b"a%zz",
            b"a\\b",
            b"<a>",
            b"a\"b",
            b"http://a",
            b"a]",
            b"a, b",
            b"[]",
        ] {
            assert!(!is_host(bad), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_body_has_no_coding_but_one_of_chunks() {
        let refused = |values: &[&'static str]| {
            let values = values.iter().map(|value| HeaderValue::from_static(value));
            let headers = values.map(|value| (header::TRANSFER_ENCODING, value)).collect();
            unknown_coding(&headers).map(std::ptr::from_ref)
        };
        assert!(
            [&[][..], &["chunked"], &["Chunked"], &[", chunked ,"]].map(refused).iter().all(Option::is_none)
        );
        let twice = [&["chunked, chunked"][..], &["chunked", "chunked"]].map(refused);
        assert_eq!(twice, [Some(std::ptr::from_ref(&refusal::CHUNKED_TWICE)); 2]);
        let others =
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity"], &["chunked;q=1"]].map(refused);
        assert_eq!(others, [Some(std::ptr::from_ref(&refusal::TRANSFER_CODING)); 4]);
    }
}
