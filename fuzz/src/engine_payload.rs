//! Polling payloads and text packets of Engine.IO v4. What is read is read again after it was written.

use imks::engine::codec::{decode_payload, decode_text, encode_text};

pub fn check(data: &[u8]) {
    for packet in decode_payload(data).flatten() {
        let written = encode_text(&packet);
        let plain = !written.starts_with(['1', '5', '6']);
        if plain {
            assert_eq!(decode_text(written.into()).expect("what was written can be read"), packet);
        }
    }
}
