//! Requests for sessions of other nodes, passed on to their owners over HTTP: one hop, signed with a secret of the
//! owner, and a stream of bytes once a WebSocket is open (ADR 0060).

mod forwarder;
mod head;
mod line;
mod owner;
mod peer;
mod pinned;

pub use self::forwarder::Forwarder;
pub use self::head::PATH;
pub use self::owner::routes;
pub use self::peer::Contact;
