//! Payloads and packets of Engine.IO v3; the first byte chooses the form. Messages survive being written again.

use bytes::Bytes;
use imks::engine::legacy::{decode_binary, decode_payload, decode_text, encode_payload};
use imks::engine::{Frame, Message, Packet};

pub fn check(data: &[u8]) {
    let Some((form, data)) = data.split_first() else { return };
    let _ = (decode_text(Bytes::copy_from_slice(data)), decode_binary(Bytes::copy_from_slice(data)));
    let messages: Vec<Packet> = decode_payload(data, form & 1 == 1)
        .flatten()
        .filter(|packet| matches!(packet, Packet::Message(_)))
        .collect();
    if messages.is_empty() {
        return;
    }
    let frames: Vec<Frame> = messages
        .iter()
        .map(|packet| match packet {
            Packet::Message(Message::Binary(data)) => Frame::binary(data),
            Packet::Message(Message::Text(text)) => Frame::text(text),
            _ => unreachable!("only messages are left"),
        })
        .collect();
    let (payload, binary) = encode_payload(&frames, form & 2 == 2);
    let again: Vec<Packet> = decode_payload(&payload, binary).collect::<Result<_, _>>().expect("can be read");
    assert_eq!(again, messages);
}
