//! The same reader after permessage-deflate was negotiated: whatever a peer compresses, no message is larger than it may
//! be, and what comes out does not depend on how the bytes were cut.
#![no_main]

use imks::engine::read_deflated_websocket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = read_deflated_websocket(data, data.len(), 10_000);
    assert_eq!(read_deflated_websocket(data, usize::from(*piece), 10_000), whole);
});
