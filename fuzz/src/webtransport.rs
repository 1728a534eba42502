//! The server's reader of WebTransport streams: what comes out does not depend on how the bytes were cut, and is never
//! more than what came in.

use imks::engine::read_webtransport;

pub fn check(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = read_webtransport(data, data.len(), 10_000);
    assert_eq!(read_webtransport(data, usize::from(*piece), 10_000), whole);
    let (frames, _) = whole;
    assert!(frames.iter().map(|(_, payload)| 1 + payload.len()).sum::<usize>() <= data.len());
}
