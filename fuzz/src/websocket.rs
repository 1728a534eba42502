//! The server's WebSocket reader: what comes out does not depend on how the bytes were cut.

use imks::engine::read_websocket;

pub fn check(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = read_websocket(data, data.len(), 10_000);
    assert_eq!(read_websocket(data, usize::from(*piece), 10_000), whole);
}
