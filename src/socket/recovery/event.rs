//! Recoverable events, which are encoded once and get their offset when they enter the log of the namespace.

use crate::error::ImksResult;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::encoder::{EncodedPacket, PacketWriter};
use crate::socket::codec::packet::PacketType;

/// A recoverable event (`2` or `5`), which returning clients may get again.
///
/// Its last argument is an offset that is filled in when the position in the log is known. The event is
/// therefore encoded only once.
#[derive(Debug)]
pub(crate) struct RecoverableEvent {
    packet: PacketWriter,
    compress: bool,
}

impl RecoverableEvent {
    /// Encodes an event.
    pub(crate) fn new(namespace: &str, name: &str, args: &impl Arguments) -> ImksResult<Self> {
        let packet = PacketWriter::array(PacketType::Event, namespace, None, Some(name), args, OFFSET_ROOM)?;
        Ok(Self { packet, compress: true })
    }

    /// Sets whether the event may be compressed in transit.
    pub(crate) fn compress(self, compress: bool) -> Self {
        Self { compress, ..self }
    }

    /// Returns the packet with its offset, which must be [`OFFSET_CHARACTERS`] long.
    pub(crate) fn stamp(mut self, offset: &str) -> EncodedPacket {
        let at = self.packet.text.len() - OFFSET_CHARACTERS - "\"]".len();
        self.packet.text.overwrite(at, offset);
        self.packet.finish().compress(self.compress)
    }

    /// Returns the packet without an offset, for listeners and other nodes. An offset is only valid on this
    /// node.
    pub(crate) fn plain(&self) -> EncodedPacket {
        let json = self.packet.json();
        let end = json.len() - OFFSET_ROOM.len() - "]".len();
        self.packet.snapshot(&format!("{}]", &json[..end])).compress(self.compress)
    }
}

/// Encodes an event with an offset that is known.
pub(crate) fn encode_with_offset(
    namespace: &str,
    name: &str,
    args: &impl Arguments,
    offset: &str,
) -> ImksResult<EncodedPacket> {
    let offset = format!(",\"{offset}\"");
    Ok(PacketWriter::array(PacketType::Event, namespace, None, Some(name), args, &offset)?.finish())
}

/// The length of an offset on the wire.
pub(crate) const OFFSET_CHARACTERS: usize = 22;

/// The placeholder for the offset.
const OFFSET_ROOM: &str = ",\"0000000000000000000000\"";

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::Frame;
    use crate::socket::codec::arguments::{One, RawArgs};

    fn wire(packet: &EncodedPacket) -> &str {
        std::str::from_utf8(&packet[0].payload()[1..]).unwrap()
    }

    #[test]
    fn an_offset_is_the_last_argument_and_other_nodes_do_not_see_it() {
        let offset = "abcdefghijklmnopqrstuv";
        let attachments = [Bytes::from_static(&[1])];
        let binary = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let rows = [
            (RecoverableEvent::new("/a", "hi", &One(&1)), r#"2/a,["hi",1,"OFFSET"]"#),
            (RecoverableEvent::new("/", "hi", &()), r#"2["hi","OFFSET"]"#),
            (
                RecoverableEvent::new("/", "hi", &binary),
                r#"51-["hi",{"_placeholder":true,"num":0},"OFFSET"]"#,
            ),
        ];
        for (event, text) in rows {
            let event = event.unwrap();
            let plain = event.plain();
            assert_eq!(wire(&plain), text.replace(r#","OFFSET""#, ""));
            let stamped = event.stamp(offset);
            assert_eq!(wire(&stamped), text.replace("OFFSET", offset));
            assert_eq!(stamped.len(), plain.len());
            assert_eq!((stamped.namespace(), stamped.id()), (plain.namespace(), None));
        }
        let refused = RecoverableEvent::new("/", "hi", &binary).unwrap().compress(false);
        for packet in [refused.plain(), refused.stamp(offset)] {
            assert!(packet.len() == 2 && !packet.iter().any(Frame::is_compressible));
        }
    }
}
