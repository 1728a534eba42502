//! The OPEN packet, which is the first packet of each session.

use crate::engine::{Config, Frame, Sid, Transport};

/// The OPEN packets of an engine. They differ only in the session id.
pub(super) struct OpenPacket {
    /// The text after the session id on polling.
    polling: String,
    /// The text after the session id on a wire that offers no upgrades.
    wire: String,
    /// The text after the session id on QUIC without HTTP/3, where the client may open a second stream.
    quic: String,
}

impl OpenPacket {
    pub(super) fn new(config: &Config) -> Self {
        let upgrades = [("\"websocket\"", config.websocket), ("\"webtransport\"", config.webtransport)];
        let offered = upgrades.iter().filter(|(_, on)| *on && config.allow_upgrades).map(|(name, _)| *name);
        let (polling, wire) = (end(config, &offered.collect::<Vec<_>>().join(",")), end(config, ""));
        let quic = wire.replace('}', r#","bulk":true}"#);
        Self { polling, wire, quic }
    }

    /// Returns the packet for a session that starts on `transport`.
    pub(super) fn of(&self, sid: &Sid, transport: Transport) -> Frame {
        let end = match transport {
            Transport::Polling => &self.polling,
            Transport::WebSocket | Transport::WebTransport => &self.wire,
            Transport::Quic => &self.quic,
        };
        Frame::packet(&[r#"0{"sid":""#, sid.expose(), end].concat())
    }
}

/// Returns the packet after the session id, with exactly five keys.
fn end(config: &Config, upgrades: &str) -> String {
    format!(
        r#"","upgrades":[{upgrades}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
        config.ping_interval.as_millis(),
        config.ping_timeout.as_millis(),
        config.max_payload,
    )
}
