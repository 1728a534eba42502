//! The address of a server: where to connect, and the path and query of each request.

use http::Uri;
use http::uri::Scheme;

use super::error::{ClientError, ClientResult};

/// The address of a server, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Address {
    pub(crate) is_secure: bool,
    /// The name or IP address, without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as they stand in the header `Host`.
    pub(crate) authority: String,
    path: String,
    /// What the application adds to the query, with a `&` before each pair.
    query: String,
}

impl Address {
    /// Parses `http://`, `https://`, `ws://` or `wss://`. Without a path it is `/socket.io/`.
    pub(crate) fn parse(url: &str) -> ClientResult<Self> {
        let invalid =
            |reason: &str| ClientError::Config(format!("the address {:?} {reason}", without_user(url)));
        let uri: Uri = url.parse().map_err(|_| invalid("is not a URL"))?;
        let is_secure = match uri.scheme().map(Scheme::as_str) {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(invalid("must begin with http://, https://, ws:// or wss://")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("has no host"))?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(invalid("must have a host, and no user"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() != authority.host() => return Err(invalid("has an invalid port")),
            None if is_secure => 443,
            None => 80,
        };
        let path = if uri.path() == "/" { DEFAULT_PATH } else { uri.path() };
        let query = uri.query().map(|query| format!("&{query}")).unwrap_or_default();
        Ok(Self { is_secure, host, port, authority: authority.to_string(), path: path.to_owned(), query })
    }

    /// Adds a pair to the query of every request. Name and value are escaped.
    pub(crate) fn push_query(&mut self, name: &str, value: &str) {
        for (sign, text) in [('&', name), ('=', value)] {
            self.query.push(sign);
            text.bytes().for_each(|byte| escape(byte, &mut self.query));
        }
    }

    /// Returns the URL of a session over HTTP/3, which is always encrypted.
    #[cfg(feature = "client-quic")]
    pub(crate) fn url(&self, transport: &str) -> String {
        let Self { host, port, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("https://{host}:{port}{}", self.target(transport, None))
    }

    /// Returns path and query of a request of a transport, for a new session or for the one with this id.
    pub(crate) fn target(&self, transport: &str, sid: Option<&str>) -> String {
        let Self { path, query, .. } = self;
        match sid {
            None => format!("{path}?EIO=4&transport={transport}{query}"),
            Some(sid) => {
                let mut target = format!("{path}?EIO=4&transport={transport}{query}&sid=");
                sid.bytes().for_each(|byte| escape(byte, &mut target));
                target
            }
        }
    }
}

/// Returns an address without its user and password, as an error may show it.
fn without_user(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://")).unwrap_or_default();
    format!("{scheme}***@{host}")
}

fn escape(byte: u8, out: &mut String) {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
        other => out.push_str(&format!("%{other:02X}")),
    }
}

/// The path of the stock servers.
const DEFAULT_PATH: &str = "/socket.io/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let plain = Address::parse("http://chat.example").unwrap();
        assert_eq!((plain.is_secure, &*plain.host, plain.port), (false, "chat.example", 80));
        assert_eq!(plain.target("polling", None), "/socket.io/?EIO=4&transport=polling");
        let mut full = Address::parse("wss://[::1]:3000/chat/io/?a=b").unwrap();
        full.push_query("who am i", "é&=");
        assert_eq!((full.is_secure, &*full.host, full.port), (true, "::1", 3000));
        assert_eq!(full.authority, "[::1]:3000");
        assert_eq!(
            full.target("websocket", Some("x/y")),
            "/chat/io/?EIO=4&transport=websocket&a=b&who%20am%20i=%C3%A9%26%3D&sid=x%2Fy"
        );
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        let wrong_ports = ["http://a:70000", "http://a:", "http://[::1]:x"];
        let wrong = ["chat.example", "ftp://a", "http://", "http://u:p@a", "/x", ""];
        for wrong in wrong.into_iter().chain(wrong_ports) {
            assert!(matches!(Address::parse(wrong), Err(ClientError::Config(_))), "{wrong}");
        }
    }

    #[test]
    fn the_password_in_an_address_is_not_told_by_its_error() {
        for wrong in ["http://u:hunter2@a", "u:hunter2@a", "http://u:hunter@2@a"] {
            let text = Address::parse(wrong).unwrap_err().to_string();
            assert!(text.contains("***@a") && !text.contains("hunter"), "{text}");
        }
    }
}
