//! What the fuzz targets check, one file each. `src/socket/tests/fuzz_corpus.rs` of imks runs it over the corpus in every test run.

pub mod engine_legacy;
pub mod engine_payload;
pub mod identity_answers;
pub mod socket_msgpack;
pub mod socket_text;
pub mod websocket;
pub mod websocket_deflate;
pub mod webtransport;
