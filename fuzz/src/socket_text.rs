//! The default Socket.IO parser: lines are messages, binary ones begin with a NUL. What is an event must still be one
//! after it was sent.

use bytes::Bytes;
use imks::engine::Message;
use imks::socket::packet::{Packet, PacketBody};
use imks::socket::parser::{Decoder, Limits, encode_event};

fn messages(data: &[u8]) -> impl Iterator<Item = Message> + '_ {
    data.split(|byte| *byte == b'\n').filter_map(|line| match line.strip_prefix(b"\0") {
        Some(binary) => Some(Message::Binary(Bytes::copy_from_slice(binary))),
        None => Some(Message::Text(std::str::from_utf8(line).ok()?.into())),
    })
}

pub fn check(data: &[u8]) {
    let mut decoder = Decoder::new(Limits::default());
    for message in messages(data) {
        let Ok(packet) = decoder.add(message) else { return };
        let Some(Packet { namespace, body: PacketBody::Event(id, args) }) = packet else { continue };
        if !args.has_name() {
            continue;
        }
        let frames = encode_event(&namespace, id, args.name(), &args).expect("what was read can be written");
        let mut again = Decoder::new(Limits::default());
        let last = frames.iter().map(|frame| {
            let payload = Bytes::copy_from_slice(frame.payload());
            again.add(match frame.is_binary() {
                true => Message::Binary(payload),
                false => Message::Text(std::str::from_utf8(&payload[1..]).expect("text").into()),
            })
        });
        let packet = last.last().expect("a frame").expect("can be read").expect("is whole");
        let PacketBody::Event(read_id, read) = packet.body else { panic!("no event any more") };
        assert_eq!((read_id, read.name()), (id, args.name()));
        assert_eq!(read.attachments(), args.attachments());
    }
}
