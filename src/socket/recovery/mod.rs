//! Connection state recovery: sessions, and the packets that their clients may have missed.

pub(crate) mod config;
pub(crate) mod event;
pub mod log;
#[cfg(test)]
pub(crate) mod log_sim;
pub(crate) mod session_store;
