//! The facts of a connection's first request, stored in one compact copy. Slices of the HTTP buffers would
//! keep those buffers in memory for the lifetime of the connection.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Uri};

use crate::clock::{self, Micros};
use crate::engine::{Protocol, Transport};
use crate::node::{NODE_BYTES, NodeId};
use crate::{ImksError, ImksResult};

/// An Engine.IO session id, which is a bearer secret. It has 28 characters of base64url: the node that owns
/// the session, then 128 random bits. `Debug` and `Display` show four characters of the random part.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sid(Arc<str>);

impl Sid {
    /// Creates an id of this node from the operating system's random numbers.
    ///
    /// # Errors
    /// [`ImksError::Randomness`] if the operating system has no random numbers.
    pub fn random(node: NodeId) -> ImksResult<Self> {
        let mut bytes = [0; SID_BYTES];
        bytes[..NODE_BYTES].copy_from_slice(node.as_bytes());
        bytes[NODE_BYTES..].copy_from_slice(&random_bits()?);
        let mut text = [0; SID_CHARACTERS];
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).unwrap_or(0);
        Ok(Self(String::from_utf8_lossy(&text[..written]).into()))
    }

    /// Returns the node that created a session id, if `text` has the form of [`Sid::random`]. Only that node
    /// knows whether the session exists. Returns `None` for any other text, including ids that the
    /// application created.
    pub fn owner(text: &str) -> Option<NodeId> {
        if text.len() != SID_CHARACTERS {
            return None;
        }
        let mut bytes = [0; SID_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let node = bytes.first_chunk().filter(|_| read == SID_BYTES)?;
        Some(NodeId::from_bytes(*node))
    }

    /// Creates an id from text that the application generated.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] unless it is 8 to 128 characters of `A-Z a-z 0-9 _ - . ~`.
    pub fn custom(text: &str) -> ImksResult<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.~".contains(&byte);
        if !(8..=128).contains(&text.len()) || !text.bytes().all(good) {
            return Err(ImksError::invalid("sid", "8 to 128 characters of A-Z a-z 0-9 _ - . ~"));
        }
        Ok(Self(text.into()))
    }

    /// Returns the whole secret. Only the client that owns the session may receive it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Sid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first characters of generated ids are the same for all sessions of a node.
        let start = if self.0.len() == SID_CHARACTERS { SHOWN_FROM } else { 0 };
        write!(formatter, "{}…", self.0.get(start..start + 4).unwrap_or_default())
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sid({self})")
    }
}

/// Returns 128 random bits. Several values are fetched at once to save system calls, and each is erased when
/// it is returned.
fn random_bits() -> ImksResult<[u8; 16]> {
    POOL.with_borrow_mut(|pool| {
        if pool.1 == 0 {
            getrandom::fill(&mut pool.0)?;
            pool.1 = pool.0.len();
        }
        pool.1 -= 16;
        let mut bits = [0; 16];
        let taken = &mut pool.0[pool.1..pool.1 + 16];
        bits.copy_from_slice(taken);
        taken.fill(0);
        Ok(bits)
    })
}

thread_local! {
    static POOL: RefCell<([u8; 256], usize)> = const { RefCell::new(([0; 256], 0)) };
}

/// A marker in the extensions of a request that was received over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Secure;

/// The facts of the first request of a session.
pub struct Handshake {
    /// The session id.
    pub sid: Sid,
    /// The address of the other end of the TCP or QUIC connection.
    pub peer: SocketAddr,
    /// Whether the request was received over TLS.
    pub secure: bool,
    /// The time of the request.
    pub issued: Micros,
    /// The transport of the request.
    pub transport: Transport,
    /// The requested version of Engine.IO.
    pub protocol: Protocol,
    /// Whether its client comes back: somebody at its address, or with its `Authorization`, is connected or was shortly
    /// before. That is a hint, and no proof of anything.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "read where connects are held"))]
    pub(crate) comes_back: bool,
    /// The path and query on the first line, then one `name:value` line per header.
    head: Box<str>,
}

impl Handshake {
    pub(crate) fn new(
        sid: Sid,
        peer: SocketAddr,
        transport: Transport,
        secure: bool,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Self {
        let url = uri.path_and_query().map_or("/", |url| url.as_str());
        let length = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 2).sum::<usize>();
        let mut head = String::with_capacity(url.len() + length);
        head.push_str(url);
        for (name, value) in headers {
            head.push('\n');
            head.push_str(name.as_str());
            head.push(':');
            // A value never contains a line feed, because HTTP does not allow it.
            head.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        Self {
            sid,
            peer,
            secure,
            issued: clock::now_micros(),
            transport,
            protocol: Protocol::V4,
            comes_back: false,
            head: head.into(),
        }
    }

    /// Returns the path and query as they were sent.
    pub fn url(&self) -> &str {
        self.head.split('\n').next().unwrap_or_default()
    }

    /// Returns the first value of a header. `name` is case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns all headers in the order they were received, with names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.split('\n').skip(1).filter_map(|line| line.split_once(':'))
    }

    /// Returns the decoded name and value of each query parameter, in the order they were received.
    pub fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        query_pairs(self.url().split_once('?').map_or("", |(_, query)| query))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
    }

    /// Whether a browser sent the request from a page (it has an `Origin`).
    pub fn xdomain(&self) -> bool {
        self.header("origin").is_some()
    }
}

impl fmt::Debug for Handshake {
    /// Omits the head, which may contain secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Handshake")
            .field("sid", &self.sid)
            .field("peer", &self.peer)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// Returns the decoded name and value of each query parameter, in order.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.as_bytes())
}

/// The owner and 128 random bits. A multiple of three, so that no two texts decode to the same bytes.
const SID_BYTES: usize = NODE_BYTES + 16;
/// The length of [`SID_BYTES`] as base64url.
const SID_CHARACTERS: usize = 28;
/// The index of the first character with random bits only.
const SHOWN_FROM: usize = 7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sid_has_128_bits_and_is_shown_by_four_characters() {
        let node = NodeId::random().unwrap();
        let (a, b) = (Sid::random(node).unwrap(), Sid::random(node).unwrap());
        assert!(a != b && a.expose().len() == 28);
        assert_eq!(format!("{a} {a:?}"), format!("{0}… Sid({0}…)", &a.expose()[7..11]));
        assert!(a.to_string() != b.to_string(), "the node is not what is shown");
    }

    #[test]
    fn a_sid_names_the_node_that_owns_it_and_nothing_else_does() {
        let (ours, theirs) = (NodeId::random().unwrap(), NodeId::random().unwrap());
        for node in [ours, theirs] {
            assert_eq!(Sid::owner(Sid::random(node).unwrap().expose()), Some(node));
        }
        let sid = Sid::random(ours).unwrap();
        let sid = sid.expose();
        let wrong = [
            "",
            "__proto__",
            "custom-id-1",
            &sid[1..],
            &format!("{sid}A"),
            &sid.replace(&sid[20..21], "="),
            &"é".repeat(14),
        ];
        for wrong in wrong {
            assert_eq!(Sid::owner(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_of_the_right_form_names_its_owner_and_any_other_none(text in "[A-Za-z0-9_-]{28}|\\PC{0,40}") {
            let owner = Sid::owner(&text);
            prop_assert_eq!(owner.map(|owner| owner.to_string()[..6].to_owned()), owner.map(|_| text[..6].to_owned()));
            let has_form = text.len() == 28 && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
            prop_assert_eq!(owner.is_some(), has_form);
        }
    }

    #[test]
    fn a_custom_sid_that_could_break_json_or_a_header_is_refused() {
        for bad in ["", "short", "with\"quote", "with space1", "new\nline1", "ümlaut-sid"] {
            assert!(Sid::custom(bad).is_err(), "{bad}");
        }
        assert_eq!(Sid::custom("custom-id-1").unwrap().expose(), "custom-id-1");
    }

    #[test]
    fn the_head_is_kept_whole_in_one_copy() {
        let uri: Uri = "/socket.io/?EIO=4&a=%26%3D%3Fa&b=x+y&c&d=%zz".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Origin", "http://a:1".parse().unwrap());
        headers.insert("x-raw", http::HeaderValue::from_bytes(b"\xff").unwrap());
        let peer = "127.0.0.1:9".parse().unwrap();
        let sid = Sid::random(NodeId::random().unwrap()).unwrap();
        let handshake = Handshake::new(sid, peer, Transport::Polling, false, &uri, &headers);
        assert_eq!(handshake.url(), "/socket.io/?EIO=4&a=%26%3D%3Fa&b=x+y&c&d=%zz");
        assert_eq!((handshake.header("ORIGIN"), handshake.xdomain()), (Some("http://a:1"), true));
        assert_eq!((handshake.header("x-raw"), handshake.header("no")), (Some("\u{fffd}"), None));
        let query: Vec<_> = handshake.query().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(query, ["EIO:4", "a:&=?a", "b:x y", "c:", "d:%zz"]);
    }
}
