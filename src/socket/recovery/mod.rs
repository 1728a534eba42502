//! Connection state recovery: sessions, and the packets that their clients may have missed.

pub(crate) mod config;
pub(crate) mod event;
pub(crate) mod session_store;
