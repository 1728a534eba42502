//! Adapters, the pipes that connect the nodes of a server. An adapter only knows named channels;
//! [`super::cluster`] defines the messages.

pub mod local;
#[cfg(feature = "server")]
pub mod nats;
#[cfg(feature = "server")]
pub(crate) mod nats_log;
#[cfg(feature = "server")]
pub mod redis;
#[cfg(feature = "server")]
pub(crate) mod redis_log;

pub use crate::bus::Pipe as Adapter;
