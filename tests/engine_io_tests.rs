//! Engine.IO over real sockets: HTTP by hand, WebSocket by tokio-tungstenite or by hand where it is rude.
//! Each test is a row of the protocol's tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod engine_io {
    pub mod deflate;
    pub mod forward;
    pub mod heartbeat;
    pub mod polling;
    pub mod requests;
    pub mod slow_reader;
    pub mod support;
    pub mod upgrade;
    pub mod websocket;
}
