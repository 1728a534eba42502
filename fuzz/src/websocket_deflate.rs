//! The same reader after permessage-deflate was negotiated: whatever a peer compresses, no message is larger than it may
//! be, and what comes out does not depend on how the bytes were cut.

use imks::engine::read_deflated_websocket;

pub fn check(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = read_deflated_websocket(data, data.len(), 10_000);
    assert_eq!(read_deflated_websocket(data, usize::from(*piece), 10_000), whole);
}
