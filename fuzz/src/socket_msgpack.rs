//! The msgpack parser. What is an event must still be the same one after it was sent.

use imks::socket::msgpack;
use imks::socket::packet::PacketBody;
use imks::socket::parser::{Limits, encode_event};

pub fn check(data: &[u8]) {
    let Ok(packet) = msgpack::decode(data, &Limits::default()) else { return };
    let PacketBody::Event(id, args) = packet.body else { return };
    if !packet.namespace.starts_with('/') || packet.namespace.contains(',') {
        return;
    }
    let frames =
        encode_event(&packet.namespace, id, args.name(), &args).expect("what was read can be written");
    let frame = msgpack::encode(&frames).expect("what was written is a packet");
    let again = msgpack::decode(frame.payload(), &Limits::default()).expect("what was written can be read");
    let PacketBody::Event(read_id, read) = again.body else { panic!("no event any more") };
    assert_eq!((read_id, read.name()), (id, args.name()));
    assert_eq!(read.attachments(), args.attachments());
}
