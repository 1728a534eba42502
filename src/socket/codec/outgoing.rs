//! Packets as a client sends them: one text and its attachments, which no frame has copied.

use bytes::Bytes;
use tungstenite::Utf8Bytes;

use super::arguments::{Arguments, RawArgs};
use super::binary;
use super::encoder::{EncodedPacket, PacketWriter, encode_ack, encode_disconnect, encode_event};
use super::msgpack;
use super::packet_type::PacketType;
use super::placeholder::all_have_attachments;
use crate::engine::Frame;
use crate::error::{ImksError, ImksResult};

/// Arguments that are encoded before their packet is, so that they can wait and be sent again under another ack
/// id. Cloning them copies pointers.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedArgs {
    /// Comma-separated JSON without brackets.
    json: Utf8Bytes,
    attachments: Vec<Bytes>,
}

impl EncodedArgs {
    /// Encodes arguments.
    ///
    /// # Errors
    /// [`ImksError::EngineSerialization`] for a value that cannot be JSON, such as a map whose keys are not texts;
    /// [`ImksError::InvalidSocketPacketFormat`] for a value beside attachments that looks like the placeholder of one
    /// that is not there, for which a server would end the connection.
    pub fn new(args: &impl Arguments) -> ImksResult<Self> {
        let mut attachments = args.attachments().to_vec();
        let mut text = Frame::writer(args.size_hint());
        let (written, found) = binary::writing(attachments.len(), || args.write_json(&mut text));
        written?;
        attachments.extend(found.attachments);
        let frame = text.finish();
        let json = Utf8Bytes::try_from(frame.wire().slice_ref(&frame.payload()[1..]))
            .map_err(|_| ImksError::Internal("encoded arguments are not UTF-8"))?;
        match has_attachments(&json, &attachments) {
            true => Ok(Self { json, attachments }),
            false => Err(ImksError::InvalidSocketPacketFormat("placeholder without an attachment")),
        }
    }

    /// Takes arguments that were encoded before, for example from a file.
    ///
    /// # Errors
    /// [`ImksError::InvalidSocketPacketFormat`] if the text is not what [`EncodedArgs::json`] returned, or if an
    /// attachment is missing.
    pub fn from_parts(json: &str, attachments: Vec<Bytes>) -> ImksResult<Self> {
        let array = format!("[{json}]");
        let is_array = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&array).is_ok();
        if !is_array || !has_attachments(&array, &attachments) {
            return Err(ImksError::InvalidSocketPacketFormat("stored arguments are not JSON"));
        }
        Ok(Self { json: json.into(), attachments })
    }

    /// Returns the arguments as comma-separated JSON without brackets.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns the attachments, in the order of the placeholders' numbers.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Returns the number of bytes of the text and the attachments.
    pub fn bytes(&self) -> usize {
        self.json.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    fn raw(&self) -> RawArgs<'_> {
        RawArgs { json: &self.json, attachments: &self.attachments }
    }
}

/// Whether every placeholder has its attachment. Without attachments there are no placeholders: what looks like one is
/// data of the application.
fn has_attachments(json: &str, attachments: &[Bytes]) -> bool {
    attachments.is_empty() || all_have_attachments(json, attachments.len())
}

/// How packets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// Text, with a binary message per attachment.
    #[default]
    Json,
    /// One binary message per packet.
    MsgPack,
}

/// A packet on its way to a server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outgoing {
    /// The text with the `4` of Engine.IO, or nothing: then the packet is in its attachment.
    pub(crate) text: Utf8Bytes,
    /// The attachments, which follow the text as binary messages.
    pub(crate) attachments: Vec<Bytes>,
}

impl Outgoing {
    /// Creates an event. With `id`, it asks for an ack.
    pub(crate) fn event(
        encoding: Encoding,
        namespace: &str,
        id: Option<u64>,
        name: &str,
        args: &EncodedArgs,
    ) -> ImksResult<Self> {
        match encoding {
            Encoding::Json => Self::array(PacketType::Event, namespace, id, Some(name), args),
            Encoding::MsgPack => Self::msgpack(&encode_event(namespace, id, name, &args.raw())?),
        }
    }

    /// Returns the bytes of the largest message of the packet, in which attachments may be Base64.
    pub(crate) fn largest_message(&self, is_base64: bool) -> usize {
        let message = |bytes: &Bytes| match is_base64 {
            true => bytes.len().div_ceil(3).saturating_mul(4).saturating_add(1),
            false => bytes.len(),
        };
        self.attachments.iter().map(message).fold(self.text.len(), usize::max)
    }

    /// Creates the answer to the event with this id.
    pub(crate) fn ack(encoding: Encoding, namespace: &str, id: u64, args: &EncodedArgs) -> ImksResult<Self> {
        match encoding {
            Encoding::Json => Self::array(PacketType::Ack, namespace, Some(id), None, args),
            Encoding::MsgPack => Self::msgpack(&encode_ack(namespace, id, &args.raw())?),
        }
    }

    /// Creates a CONNECT with the JSON object of the `auth` option, or without one if the text is empty.
    pub(crate) fn connect(encoding: Encoding, namespace: &str, auth: &str) -> ImksResult<Self> {
        let mut packet = PacketWriter::new(PacketType::Connect, namespace, 0, auth.len());
        packet.text.push_str(auth);
        match encoding {
            Encoding::Json => Ok(Self { text: packet.into_text()?, attachments: Vec::new() }),
            Encoding::MsgPack => Self::msgpack(&packet.finish()),
        }
    }

    /// Creates a DISCONNECT.
    pub(crate) fn disconnect(encoding: Encoding, namespace: &str) -> ImksResult<Self> {
        if encoding == Encoding::MsgPack {
            return Self::msgpack(&encode_disconnect(namespace));
        }
        let packet = PacketWriter::new(PacketType::Disconnect, namespace, 0, 0);
        Ok(Self { text: packet.into_text()?, attachments: Vec::new() })
    }

    fn msgpack(packet: &EncodedPacket) -> ImksResult<Self> {
        let frame = msgpack::encode(packet)?;
        let bytes = frame.wire().slice_ref(frame.payload());
        Ok(Self { text: Utf8Bytes::default(), attachments: vec![bytes] })
    }

    fn array(
        kind: PacketType,
        namespace: &str,
        id: Option<u64>,
        name: Option<&str>,
        args: &EncodedArgs,
    ) -> ImksResult<Self> {
        let (packet, attachments) = PacketWriter::unframed_array(kind, namespace, id, name, &args.raw(), "")?;
        Ok(Self { text: packet.into_text()?, attachments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Binary;
    use crate::socket::codec::arguments::One;

    const JSON: Encoding = Encoding::Json;

    #[test]
    fn a_packet_of_a_client_is_the_text_of_the_protocol_and_bytes_that_nobody_copied() {
        let bytes = Bytes::from(vec![1, 2, 3]);
        let args = EncodedArgs::new(&("a", Binary(bytes.clone()))).unwrap();
        let packet = Outgoing::event(JSON, "/chat", Some(7), "say", &args).unwrap();
        assert_eq!(packet.text, r#"451-/chat,7["say","a",{"_placeholder":true,"num":0}]"#);
        assert_eq!(packet.attachments[0].as_ptr(), bytes.as_ptr());
        let ack = Outgoing::ack(JSON, "/", 3, &EncodedArgs::new(&One("yes")).unwrap()).unwrap();
        assert_eq!(ack.text, r#"433["yes"]"#);
        let none = EncodedArgs::new(&()).unwrap();
        assert_eq!(Outgoing::event(JSON, "/", None, "x", &none).unwrap().text, r#"42["x"]"#);
        assert_eq!(Outgoing::connect(JSON, "/", r#"{"token":"t"}"#).unwrap().text, r#"40{"token":"t"}"#);
        assert_eq!(Outgoing::connect(JSON, "/chat", "").unwrap().text, "40/chat,");
        assert_eq!(Outgoing::disconnect(JSON, "/chat").unwrap().text, "41/chat,");
    }

    #[test]
    fn with_msgpack_a_packet_is_one_binary_message_that_a_server_reads() {
        use super::super::packet::{Limits, PacketBody};

        let encoding = Encoding::MsgPack;
        let bytes = Bytes::from(vec![1, 2, 3]);
        let args = EncodedArgs::new(&("a", Binary(bytes.clone()))).unwrap();
        let read = |packet: Outgoing| {
            assert!(packet.text.is_empty() && packet.attachments.len() == 1);
            msgpack::decode(&packet.attachments[0], &Limits::default()).unwrap()
        };
        let event = read(Outgoing::event(encoding, "/chat", Some(7), "say", &args).unwrap());
        let PacketBody::Event(Some(7), received) = event.body else { panic!("{event:?}") };
        let (text, binary): (String, Binary) = received.extract().unwrap();
        assert_eq!((&*event.namespace, received.name(), &*text, binary.0), ("/chat", "say", "a", bytes));
        let ack = read(Outgoing::ack(encoding, "/", 3, &EncodedArgs::new(&One("yes")).unwrap()).unwrap());
        assert!(matches!(ack.body, PacketBody::Ack(Some(3), _)));
        let connect = read(Outgoing::connect(encoding, "/", r#"{"token":"t"}"#).unwrap());
        let PacketBody::Connect(Some(payload)) = connect.body else { panic!("{connect:?}") };
        assert_eq!(payload.json, r#"{"token":"t"}"#);
        assert!(matches!(
            read(Outgoing::connect(encoding, "/", "").unwrap()).body,
            PacketBody::Connect(None)
        ));
        assert_eq!(read(Outgoing::disconnect(encoding, "/").unwrap()).body, PacketBody::Disconnect);
    }

    #[test]
    fn stored_arguments_are_those_that_were_stored() {
        let binary = Binary(Bytes::from_static(b"x"));
        let args = EncodedArgs::new(&(1, &binary, &binary)).unwrap();
        let again = EncodedArgs::from_parts(args.json(), args.attachments().to_vec()).unwrap();
        assert_eq!(args, again);
        assert!(EncodedArgs::from_parts("1,", Vec::new()).is_err());
        assert!(EncodedArgs::from_parts("1],[2", Vec::new()).is_err());
        assert!(EncodedArgs::from_parts(args.json(), args.attachments()[..1].to_vec()).is_err());
    }

    #[test]
    fn what_looks_like_a_placeholder_is_data_unless_there_are_attachments() {
        let looks = serde_json::json!({"_placeholder": true, "num": 7});
        let plain = EncodedArgs::new(&One(&looks)).unwrap();
        assert!(Outgoing::event(JSON, "/", None, "say", &plain).unwrap().text.starts_with("42["));
        assert_eq!(EncodedArgs::from_parts(plain.json(), Vec::new()).unwrap(), plain);
        assert!(EncodedArgs::new(&(looks, Binary(Bytes::from_static(b"x")))).is_err());
    }
}
