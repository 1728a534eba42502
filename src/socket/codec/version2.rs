//! The packets of Socket.IO v2 clients, as far as they differ.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encoder::{EncodedPacket, Frames};
use super::packet::{MAIN_NAMESPACE, Packet, PacketBody, PacketType, Payload};
use crate::engine::{Frame, legacy, query_pairs};

/// Converts the query of the namespace (`/chat?token=x`) to the `auth` option, which newer clients send
/// instead.
pub(super) fn read(mut packet: Packet) -> Packet {
    let Some((path, query)) = packet.namespace.split_once('?') else { return packet };
    if let PacketBody::Connect(auth @ None) = &mut packet.body {
        let fields = query_pairs(query).map(|(name, value)| (name.into_owned(), value.into()));
        let json = serde_json::Value::Object(fields.collect()).to_string();
        *auth = Some(Payload { json, attachments: Vec::new() });
    }
    packet.namespace = match path {
        MAIN_NAMESPACE => MAIN_NAMESPACE.into(),
        path => path.to_owned().into(),
    };
    packet
}

/// Whether a packet is the same for these clients, which is true for events and acks without attachments.
pub(super) fn is_same(packet: &EncodedPacket) -> bool {
    packet.len() == 1 && !matches!(packet.kind(), PacketType::Connect | PacketType::ConnectError)
}

/// Returns the frames of a packet for these clients.
pub(super) fn encode(packet: &EncodedPacket) -> Frames {
    let head = &packet.text()[..packet.text().len() - packet.json().len()];
    let mut frames: Frames = smallvec::smallvec![match packet.kind() {
        // Only the namespace: these clients derive their socket id themselves.
        PacketType::Connect => Frame::text(head),
        PacketType::ConnectError => Frame::text(&format!("{head}{}", reason(packet.json()))),
        _ => packet[0].clone(),
    }];
    frames.extend(packet[1..].iter().map(legacy::typed));
    frames
}

/// Returns the payload of ERROR, the earlier CONNECT_ERROR: the data of the refusal or else its message.
fn reason(json: &str) -> &str {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    serde_json::from_str::<Refusal<'_>>(json)
        .map_or(json, |refusal| refusal.data.unwrap_or(refusal.message).get())
}

#[cfg(test)]
mod tests {
    use super::super::encoder::{encode_connect, encode_connect_error};
    use super::*;

    #[test]
    fn clients_of_version_2_get_their_forms_of_connect_and_error() {
        let one = |packet: &EncodedPacket| -> Vec<Vec<u8>> {
            encode(packet).iter().map(|frame| frame.payload().to_vec()).collect()
        };
        assert_eq!(one(&encode_connect("/", "id", None)), [b"40"]);
        assert_eq!(one(&encode_connect("/x", "id", None)), [b"40/x,"]);
        let refusal = |json: serde_json::Value| one(&encode_connect_error("/x", &json).unwrap());
        assert_eq!(refusal(serde_json::json!({"message": "no"})), [b"44/x,\"no\""]);
        assert_eq!(
            refusal(serde_json::json!({"message": "no", "data": {"code": 1}})),
            [b"44/x,{\"code\":1}"]
        );
    }

    #[test]
    fn the_query_of_a_namespace_is_what_a_client_of_version_2_says_about_itself() {
        let packet = |namespace: &'static str, body| read(Packet { namespace: namespace.into(), body });
        let connect = packet("/x?token=a%20b&c", PacketBody::Connect(None));
        assert_eq!(connect.namespace, "/x");
        let PacketBody::Connect(Some(payload)) = connect.body else { panic!("no payload") };
        assert_eq!(payload.json, r#"{"c":"","token":"a b"}"#);
        assert_eq!(packet("/?a=b", PacketBody::Disconnect).namespace, "/");
    }
}
