//! An event on its way into the log of its namespace: encoded once, and stamped with its offset there.

use crate::engine::{Frame, FrameWriter};
use crate::error::ImksResult;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::dialect::with_compression;
use crate::socket::codec::parser::{EVENT, Frames, malformed, packet_writer, split_head, write_array};

/// `2` or `5`: an event that anybody may get again after a short absence. It ends with an offset that is filled in
/// when the event's place in the log is known, so that it is encoded once nevertheless.
#[derive(Debug)]
pub(crate) struct Unstamped {
    text: FrameWriter,
    attachments: Frames,
    compressible: bool,
}

impl Unstamped {
    /// Encodes an event.
    pub(crate) fn event(namespace: &str, name: &str, args: &impl Arguments) -> ImksResult<Self> {
        let (text, attachments) = write_array(EVENT, namespace, None, Some(name), args, OFFSET_ROOM)?;
        Ok(Self { text, attachments, compressible: true })
    }

    /// The same; without `compress` it is not to be compressed on its way.
    pub(crate) fn with_compression(self, compress: bool) -> Self {
        let attachments = with_compression(self.attachments, compress);
        Self { attachments, compressible: compress, ..self }
    }

    /// An event that another node encoded, without an offset.
    pub(crate) fn foreign(text: &str, attachments: Frames) -> ImksResult<Self> {
        let open = text.strip_suffix(']').ok_or_else(|| malformed("event does not end with a bracket"))?;
        let mut out = Frame::writer(text.len() + OFFSET_ROOM.len());
        out.push_str(open);
        out.push_str(OFFSET_ROOM);
        out.push_str("]");
        Ok(Self { text: out, attachments, compressible: true })
    }

    /// The event with its offset, which is [`OFFSET_CHARACTERS`] long.
    pub(crate) fn stamp(mut self, offset: &str) -> Frames {
        let at = self.text.len() - OFFSET_CHARACTERS - "\"]".len();
        self.text.overwrite(at, offset);
        let mut frames = Frames::new();
        frames.push(self.text.finish());
        frames.append(&mut self.attachments);
        with_compression(frames, self.compressible)
    }

    /// The event as other nodes get it: the offset of this node means nothing to them.
    pub(crate) fn plain(&self) -> Frames {
        let text = self.text.text();
        let mut out = Frame::writer(text.len());
        out.push_str(&text[..text.len() - OFFSET_ROOM.len() - "]".len()]);
        out.push_str("]");
        let mut frames = Frames::new();
        frames.push(out.finish());
        frames.extend(self.attachments.iter().cloned());
        with_compression(frames, self.compressible)
    }
}

/// Whether the text of a packet is an event that asks for no answer.
pub(crate) fn is_plain_event(text: &str) -> bool {
    split_head(text).is_ok_and(|head| matches!(head.kind, 2 | 5) && head.id.is_none())
}

/// How long an offset is on the wire.
pub(crate) const OFFSET_CHARACTERS: usize = 22;

/// Stands where the offset will be.
const OFFSET_ROOM: &str = ",\"0000000000000000000000\"";

/// `0`: the namespace is joined, under this socket id; with the private id the client may come back to it after a
/// short absence.
pub(crate) fn encode_connect_recoverable(namespace: &str, sid: &str, pid: &str) -> Frame {
    let mut out = packet_writer("0", namespace, 0);
    out.push_str("{\"sid\":\"");
    out.push_str(sid);
    out.push_str("\",\"pid\":\"");
    out.push_str(pid);
    out.push_str("\"}");
    out.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::socket::codec::parser::{One, RawArgs};

    fn wire(frame: &Frame) -> &str {
        std::str::from_utf8(&frame.payload()[1..]).unwrap()
    }

    #[test]
    fn an_offset_is_the_last_argument_and_other_nodes_do_not_see_it() {
        let offset = "abcdefghijklmnopqrstuv";
        let attachments = [Bytes::from_static(&[1])];
        let binary = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let rows = [
            (Unstamped::event("/a", "hi", &One(&1)), r#"2/a,["hi",1,"OFFSET"]"#),
            (Unstamped::event("/", "hi", &()), r#"2["hi","OFFSET"]"#),
            (Unstamped::event("/", "hi", &binary), r#"51-["hi",{"_placeholder":true,"num":0},"OFFSET"]"#),
        ];
        for (event, text) in rows {
            let event = event.unwrap();
            let plain = event.plain();
            assert_eq!(wire(&plain[0]), text.replace(r#","OFFSET""#, ""));
            let again = Unstamped::foreign(wire(&plain[0]), plain[1..].iter().cloned().collect()).unwrap();
            for frames in [event.stamp(offset), again.stamp(offset)] {
                assert_eq!(wire(&frames[0]), text.replace("OFFSET", offset));
                assert_eq!(frames.len(), plain.len());
            }
        }
        let refused = Unstamped::event("/", "hi", &binary).unwrap().with_compression(false);
        for frames in [refused.plain(), refused.stamp(offset)] {
            assert!(frames.len() == 2 && !frames.iter().any(Frame::is_compressible));
        }
        assert!(Unstamped::foreign("2", Frames::new()).is_err());
        assert_eq!(wire(&encode_connect_recoverable("/a", "x", "y")), r#"0/a,{"sid":"x","pid":"y"}"#);
    }
}
