//! An event on its way into the log of its namespace: encoded once, and stamped with its offset there.

use crate::error::ImksResult;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::encoder::{EncodedPacket, PacketWriter};
use crate::socket::codec::packet::PacketType;

/// `2` or `5`: an event that anybody may get again after a short absence. It ends with an offset that is filled in
/// when the event's place in the log is known, so that it is encoded once nevertheless.
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

    /// The event with or without leave to compress it on its way.
    pub(crate) fn compress(self, compress: bool) -> Self {
        Self { compress, ..self }
    }

    /// The event with its offset, which is [`OFFSET_CHARACTERS`] long.
    pub(crate) fn stamp(mut self, offset: &str) -> EncodedPacket {
        let at = self.packet.text.len() - OFFSET_CHARACTERS - "\"]".len();
        self.packet.text.overwrite(at, offset);
        self.packet.finish().compress(self.compress)
    }

    /// The event without an offset, for listeners and other nodes: the offset of this node means nothing to them.
    pub(crate) fn plain(&self) -> EncodedPacket {
        let json = self.packet.json();
        let end = json.len() - OFFSET_ROOM.len() - "]".len();
        self.packet.snapshot(&format!("{}]", &json[..end])).compress(self.compress)
    }
}

/// How long an offset is on the wire.
pub(crate) const OFFSET_CHARACTERS: usize = 22;

/// Stands where the offset will be.
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
