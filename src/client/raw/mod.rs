//! WebSockets without Socket.IO, for programs that want only these: a client, and a small server.
//!
//! ```no_run
//! use imks::client::raw::{Message, RawClient};
//!
//! # async fn run() -> imks::client::ClientResult<()> {
//! let mut connection = RawClient::connect("wss://chat.example/feed").await?;
//! connection.send_text("hello").await?;
//! while let Some(message) = connection.receive().await? {
//!     match message {
//!         Message::Text(text) => connection.send_text(&text).await?,
//!         Message::Close(code, reason) => println!("{code}: {reason}"),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! There is no session, no acknowledgement and no way back after a loss: that is what [`Client`](super::Client) adds.

mod connection;
mod dial;
mod registry;
mod router;
mod server;

pub use self::connection::{Message, RawConnection, RawSender};
pub use self::dial::RawClient;
pub use self::registry::{Registry, Sent};
pub use self::router::{Routed, Router};
pub use self::server::{RawServer, RawServerBuilder};
