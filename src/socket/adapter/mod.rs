//! Adapters: the pipes that join the nodes of a server. What is said over them is in [`super::cluster`]; an adapter
//! only knows named channels.

pub mod local;

pub use crate::bus::Pipe as Adapter;
