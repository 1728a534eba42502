//! The settings of QUIC without HTTP/3: Engine.IO directly on a QUIC stream, for the Rust client.

use std::net::SocketAddr;

/// The settings of the listener for QUIC without HTTP/3. Its limits are those of
/// [`webtransport::Config`](super::webtransport::Config).
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP address. If absent, nothing is served.
    pub listen: Option<SocketAddr>,
    /// The names of the protocol for ALPN. A client has to know one of them.
    pub alpn: Vec<String>,
    /// Whether clients that come back may begin their session together with the handshake (0-RTT).
    pub zero_rtt: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: None, alpn: vec![ALPN.to_owned()], zero_rtt: false }
    }
}

impl Config {
    /// Returns the problem of the settings, if there is one.
    pub fn problem(&self) -> Option<&'static str> {
        let is_good = |name: &String| (1..=ALPN_BYTES_MAX).contains(&name.len()) && name != "h3";
        let is_fine = !self.alpn.is_empty() && self.alpn.iter().all(is_good);
        (!is_fine).then_some("IMKS_QUIC_ALPN must have at least one name, each of 1 to 255 bytes, and not h3")
    }
}

/// The longest name that ALPN has room for (RFC 7301 section 3.1).
const ALPN_BYTES_MAX: usize = 255;

/// The name of the protocol for ALPN, where none is configured.
pub const ALPN: &str = "imks/1";
