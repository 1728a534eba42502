//! The bodies of polling requests: the payload that answers a GET, and the packets of a POST.

use crate::ImksResult;
use crate::engine::{Frame, Packet, Protocol, codec, legacy};

/// The body of the response to a GET.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) body: Vec<u8>,
    /// Whether the body is binary, which is possible only in version 3.
    pub(crate) binary: bool,
    /// Whether a packet in the body may be compressed.
    pub(crate) compressible: bool,
}

impl Payload {
    /// Encodes frames for a client of this version.
    pub(crate) fn new<'a>(
        protocol: Protocol,
        frames: impl IntoIterator<Item = &'a Frame, IntoIter: Clone>,
    ) -> Self {
        let frames = frames.into_iter();
        let compressible = frames.clone().any(Frame::is_compressible);
        let (body, binary) = match protocol {
            Protocol::V4 => (codec::encode_payload(frames).into_bytes(), false),
            Protocol::V3 { base64 } => legacy::encode_payload(frames, base64),
        };
        Self { body, binary, compressible }
    }
}

/// Decodes the body of a POST. Returns the packets before the first malformed one, and whether there was one.
pub(crate) fn decode(protocol: Protocol, body: &[u8], binary: bool) -> (Vec<Packet>, bool) {
    match protocol {
        Protocol::V4 => collect(codec::decode_payload(body)),
        Protocol::V3 { .. } => collect(legacy::decode_payload(body, binary)),
    }
}

fn collect(decoded: impl Iterator<Item = ImksResult<Packet>>) -> (Vec<Packet>, bool) {
    let mut packets = Vec::new();
    for packet in decoded {
        match packet {
            Ok(packet) if packets.len() < PACKETS_MAX => packets.push(packet),
            _ => return (packets, true),
        }
    }
    (packets, false)
}

/// The maximum number of packets in a POST body. A client that sends the shortest events there are, `42["a"]`,
/// fits 125,000 of them into the default `max_payload`; half a million empty packets would fit as well.
const PACKETS_MAX: usize = 131_072;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_too_many_packets_is_malformed() {
        let body = |count: usize| vec!["4"; count].join("\x1e");
        let (packets, malformed) = decode(Protocol::V4, body(PACKETS_MAX).as_bytes(), false);
        assert_eq!((packets.len(), malformed), (PACKETS_MAX, false));
        assert!(decode(Protocol::V4, body(PACKETS_MAX + 1).as_bytes(), false).1);
    }
}
